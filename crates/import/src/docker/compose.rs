//! Compose files: what is outside of services, and what services share. A service is in `service`.

mod deploy;
mod service;

use std::collections::{BTreeMap, BTreeSet};

use model::{Code, Problem};

use super::image::Images;
use crate::draft::{App, Listen};
use crate::ledger::{Ledger, WithHelp as _};
use crate::report::Verdict;
use crate::text::interpolated;
use crate::tree::{NODES_MAX, Node, Value};
use crate::{Source, text_of, yaml};

/// Deepest chain of `extends`.
const EXTENDS_MAX: usize = 16;

/// Most of what is looked through for addresses: texts times services. Beyond it no port is found by where it is called.
const SEARCHED_MAX: usize = 50 << 20;

/// What a service that others wait for has to have done.
const COMPLETED: &str = "service_completed_successfully";

/// What services refer to.
pub(super) struct Context<'a> {
    source: &'a Source<'a>,
    images: Images,
    /// Of the project, for images that are built.
    project: String,
    configs: BTreeMap<String, Node>,
    volumes: BTreeMap<String, Node>,
}

pub(crate) fn read(source: &Source<'_>, ledger: &mut Ledger, app: &mut App) -> Result<(), Problem> {
    let [file] = source.files else {
        return Err(Problem::new(Code::Usage, "compose files are imported one at a time")
            .help("merge several with `docker compose -f A -f B config > merged.yml`"));
    };
    let mut documents = yaml::documents(&file.name, text_of(file)?)?;
    for node in &mut documents {
        ledger.enter(node, &file.name, "");
    }
    let no_services = || {
        Problem::new(Code::FileUnreadable, format!("`{}` has no `services`", file.name))
            .help("is it a compose file? others are imported as kubernetes, nomad, …; see `rads import --help`")
    };
    let root = documents.iter().find(|node| node.get("services").is_some() || is_first_form(node));
    let root = root.ok_or_else(no_services)?;
    let (services, is_old) = match root.get("services") {
        Some(services) => (services.clone(), false),
        // The first form of compose files had services alone.
        None => (root.clone(), true),
    };
    let named = |key: &str| -> BTreeMap<String, Node> {
        root.get(key).filter(|_| !is_old).map(Node::entries).unwrap_or_default().iter().cloned().collect()
    };
    let project = root.text_at("name").map_or_else(|| "app".to_owned(), |name| interpolated(name).0.by_default());
    let context =
        Context { source, images: Images::of(source)?, project, configs: named("configs"), volumes: named("volumes") };
    if source.beside.read(".env").is_some() {
        let text = "variables have the values that the environment of `rads up` has; `.env` is not read then";
        ledger.note(Verdict::Changed, root, text.help("`set -a; . ./.env; set +a` before it, in a shell"));
    }
    let mut budget = NODES_MAX * 4;
    let called = called_at(&services);
    let one_shots = one_shots(&services);
    let mut names = BTreeMap::new();
    for (name, node) in services.entries() {
        if !node.is_map() {
            ledger.left(node, format!("service `{name}` is described by nothing"));
            continue;
        }
        let whole = extended(source, ledger, &services, node, EXTENDS_MAX, &mut budget);
        let mut made = service::read(&context, ledger, app, name, &whole, &one_shots);
        names.insert(name.clone(), made.name.clone());
        if made.port.is_none()
            && made.job.is_none()
            && let Some(port) = called.get(name)
        {
            let (listen, free) = app.listen(Listen::new(Listen::HERE, *port));
            let at = if free { format!("127.0.0.1:{port}") } else { "any free port".to_owned() };
            (made.port, made.listen, made.http) = (Some(*port), Some(listen), super::ports::is_usually_http(*port));
            let text = format!("port {port}, by which others call `{name}`, is reached at {at} of this machine");
            ledger.note(Verdict::Changed, node, text);
        }
        super::without_restart(ledger, &mut made, node);
        app.services.push(made);
    }
    // Jobs wait for others by the names that these have in the app.
    for job in app.services.iter_mut().filter_map(|service| service.job.as_mut()) {
        job.after = job.after.iter().filter_map(|name| names.get(name).cloned()).collect();
    }
    if services.entries().len() > 1 {
        let text = "services do not find each other by name: a star reaches nothing but what its `network` lets it";
        ledger.note(Verdict::NotCarried, &services, text.help("give a service that calls others network: \"host\" and 127.0.0.1 with the `listen` of what it calls; it listens on `$PORT` itself"));
    }
    if !is_old {
        for (key, node) in root.entries() {
            outside(&context, ledger, app, key, node);
        }
    }
    for other in documents.iter().filter(|other| other.id != root.id) {
        ledger.left(other, "a compose file is one document");
    }
    Ok(())
}

fn is_first_form(node: &Node) -> bool {
    let is_service = |node: &Node| node.get("image").is_some() || node.get("build").is_some();
    !node.entries().is_empty() && node.entries().iter().all(|(_, node)| is_service(node))
}

/// Services that others want to have ended well, and that no policy starts again.
fn one_shots(services: &Node) -> BTreeSet<String> {
    let waited_for = services.entries().iter().flat_map(|(_, service)| {
        let after = service.get("depends_on").map(Node::entries).unwrap_or_default().iter();
        after.filter(|(_, how)| how.text_at("condition") == Some(COMPLETED)).map(|(name, _)| name.clone())
    });
    let ends = |name: &String| {
        let Some(service) = services.get(name) else { return false };
        let policy = service.text_at("restart").unwrap_or("no");
        let profiles = service.get("profiles").is_some_and(|profiles| !profiles.one_or_more().is_empty());
        !profiles && !matches!(policy, "always" | "unless-stopped")
    };
    waited_for.filter(ends).collect()
}

/// What stands beside `services`.
fn outside(context: &Context<'_>, ledger: &mut Ledger, app: &mut App, key: &str, node: &Node) {
    match key {
        "services" => {}
        "version" => ledger.carried(node, "it has no meaning any more"),
        "name" => {
            ledger.left(
                node,
                "an app is called after its file or folder"
                    .help(format!("write it to `{}.rads`", crate::names::name_of(&context.project, "app"))),
            );
        }
        "volumes" => {
            for (name, node) in node.entries() {
                volume(ledger, app, name, node);
            }
        }
        "secrets" => {
            for (name, node) in node.entries() {
                secret(ledger, name, node);
            }
        }
        "configs" => {
            for (name, node) in node.entries() {
                let text = match (node.get("content"), node.get("file")) {
                    (Some(_), _) => format!("config `{name}`, a file of the app"),
                    (_, Some(_)) => format!("config `{name}`, a file beside the app"),
                    _ => {
                        ledger.left(node, format!("config `{name}` is kept elsewhere"));
                        continue;
                    }
                };
                ledger.carried(node, text);
            }
        }
        "networks" => {
            for (name, node) in node.entries() {
                ledger.left(node, format!("network `{name}`: a star's network is its own, or its machine's"));
            }
        }
        "include" => {
            ledger.left(
                node,
                "other files are not taken in".help("import them one by one, or what `docker compose config` prints"),
            );
        }
        "models" => ledger.left(node, "only containers become services"),
        _ if key.starts_with("x-") => {
            ledger.left(node, "an extension: what others repeat of it by an anchor is told there");
        }
        _ => {}
    }
    if !ledger.is_open(node) {
        return;
    }
    if node.is_leaf() && matches!(key, "volumes" | "secrets" | "configs" | "networks" | "services") {
        ledger.carried(node, "nothing is in it");
    }
}

fn volume(ledger: &mut Ledger, app: &mut App, name: &str, node: &Node) {
    let called = app.volume(name);
    for (key, value) in node.entries() {
        match key.as_str() {
            "name" => ledger.changed(value, format!("volume `{called}`: it is called as services call it")),
            "external" => {
                let text = format!("volume `{called}` begins empty: what it holds elsewhere has to be copied");
                ledger.left(value, text.help("`tar -C FOLDER -c . | rads c cp - STAR:PATH`"));
            }
            "driver" if value.scalar() == Some("local") => ledger.carried(value, "a volume lies on its machine"),
            "driver" | "driver_opts" => ledger.left(value, "a volume lies in its machine's data folder"),
            "labels" => ledger.left(value, "volumes have no labels"),
            _ => {}
        }
    }
    if node.is_leaf() {
        ledger.carried(node, format!("volume `{called}`"));
    }
}

fn secret(ledger: &mut Ledger, name: &str, node: &Node) {
    let called = crate::names::name_of(name, "secret");
    let help = match (node.text_at("file"), node.text_at("environment")) {
        (Some(file), _) => format!("set it with `rads c secrets set {called} < {file}`"),
        (_, Some(variable)) => format!("set it with `printf %s \"${variable}\" | rads c secrets set {called}`"),
        _ => ledger.how_to_set(&called),
    };
    ledger.changed(node, format!("secret `{called}`: its value is not in the app").help(help));
}

/// Ports by which services are called in texts of others, as in `http://api:8080/` or `db:5432`.
fn called_at(services: &Node) -> BTreeMap<String, u16> {
    let mut texts = Vec::new();
    gather(services, &mut texts);
    let mut ports = BTreeMap::new();
    let length: usize = texts.iter().map(|text| text.len()).sum();
    if length.saturating_mul(services.entries().len()) > SEARCHED_MAX {
        return ports;
    }
    for (name, _) in services.entries() {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        for text in &texts {
            let mut rest = *text;
            while let Some((before, after)) = rest.split_once(name.as_str()) {
                let digits: String = match after.strip_prefix(':') {
                    Some(port) if !before.ends_with(is_part) => port.chars().take_while(char::is_ascii_digit).collect(),
                    _ => String::new(),
                };
                // `8080:80` behind it is no address but an image or a port.
                let behind = after.get(1 + digits.len()..).unwrap_or_default();
                let ends = !behind.starts_with(|c: char| is_part(c) || c == ':');
                if let Some(port) = digits.parse::<u16>().ok().filter(|port| *port > 0 && ends) {
                    ports.entry(name.clone()).or_insert(port);
                }
                rest = after;
                if name.is_empty() {
                    break;
                }
            }
        }
    }
    ports
}

/// Texts in which an address may be: not those of images and ports.
fn gather<'a>(node: &'a Node, texts: &mut Vec<&'a str>) {
    /// Longer ones are no addresses, and looking through them takes its time.
    const TEXT_MAX: usize = 4_096;
    match &node.value {
        Value::Scalar { text, .. } if text.len() <= TEXT_MAX && text.contains(':') => texts.push(text),
        Value::List(items) => items.iter().for_each(|item| gather(item, texts)),
        Value::Map(entries) => {
            let skipped =
                |key: &str| matches!(key, "image" | "ports" | "volumes" | "build" | "container_name" | "labels");
            entries.iter().filter(|(key, _)| !skipped(key)).for_each(|(_, value)| gather(value, texts));
        }
        _ => {}
    }
}

/// A service with what it extends.
fn extended(
    source: &Source<'_>,
    ledger: &mut Ledger,
    services: &Node,
    node: &Node,
    depth: usize,
    budget: &mut usize,
) -> Node {
    let Some(extends) = node.get("extends") else { return node.clone() };
    let (name, file) = match extends.scalar() {
        Some(name) => (name.to_owned(), None),
        None => (extends.text_at("service").unwrap_or_default().to_owned(), extends.text_at("file")),
    };
    if depth == 0 {
        ledger.left(extends, "it extends itself, or too many others");
        return node.clone();
    }
    let base = match file {
        None => services.get(&name).cloned(),
        Some(path) => {
            let text = source.beside.read(path).and_then(|bytes| String::from_utf8(bytes).ok());
            let documents = text.and_then(|text| yaml::documents(path, &text).ok()).unwrap_or_default();
            let others = documents.first().and_then(|root| root.get("services")).cloned();
            let found = others.as_ref().and_then(|others| others.get(&name)).cloned();
            found.map(|mut base| {
                ledger.enter(&mut base, path, &format!("services.{name}"));
                base
            })
        }
    };
    let Some(base) = base.filter(|base| base.id != node.id) else {
        ledger.left(
            extends,
            format!("there is no service `{name}` to extend").help("import what `docker compose config` prints"),
        );
        return node.clone();
    };
    let Some(left) = budget.checked_sub(base.count() + node.count()) else {
        ledger.left(extends, "too much is extended by too many");
        return node.clone();
    };
    *budget = left;
    ledger.carried(extends, format!("what `{name}` has and it does not"));
    // What the other one extends is in its own file.
    let base = if file.is_some() { base } else { extended(source, ledger, services, &base, depth - 1, budget) };
    merged(&base, node)
}

/// A service laid over another.
fn merged(base: &Node, over: &Node) -> Node {
    let mut entries: Vec<(String, Node)> = Vec::new();
    for (key, value) in base.entries() {
        if matches!(key.as_str(), "extends" | "depends_on") {
            continue;
        }
        match over.get(key) {
            None => entries.push((key.clone(), value.clone())),
            Some(own) if value.is_map() && own.is_map() => entries.push((key.clone(), merged(value, own))),
            Some(own)
                if value.is_list() && own.is_list() && !matches!(key.as_str(), "command" | "entrypoint" | "test") =>
            {
                let items = value.items().iter().chain(own.items()).cloned().collect();
                entries.push((key.clone(), Node { value: Value::List(items), ..own.clone() }));
            }
            Some(own) => entries.push((key.clone(), own.clone())),
        }
    }
    for (key, value) in over.entries() {
        if base.get(key).is_none() || matches!(key.as_str(), "extends" | "depends_on") {
            entries.push((key.clone(), value.clone()));
        }
    }
    Node { value: Value::Map(entries), ..over.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_where_others_call_a_service() {
        let text = "web: {environment: {A: 'postgres://u@db:5432/x', B: 'api:80:90'}, image: 'cache:7'}\ndb: {}\napi: {}\ncache: {}\n";
        let services = yaml::documents("f", text).unwrap().remove(0);
        assert_eq!(called_at(&services), BTreeMap::from([("db".to_owned(), 5432)]));
    }
}
