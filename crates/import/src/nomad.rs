//! Nomad jobs: a service for each task of a group; one of a batch job runs to its end.

mod checks;
mod files;
mod job;
mod placement;
mod task;
mod update;

use std::collections::BTreeMap;

use model::{Code, Problem};

use crate::docker::image::Images;
use crate::draft::{App, Job, Listen, Service};
use crate::ledger::{Ledger, WithHelp as _};
use crate::report::Verdict;
use crate::tree::Node;
use crate::{Source, docker, hcl, text_of};

/// Keys of jobs and groups that have no counterpart.
const NOT_CARRIED: &[(&str, &str)] = &[
    ("priority", "services have no priorities"),
    ("all_at_once", "stars are placed as there is room"),
    ("vault", "secrets are a constellation's own: `rads c secrets set`"),
    ("consul", "services are not found in Consul"),
    ("update", "it is about services"),
    ("migrate", "`rads c drain` moves stars one after another"),
    ("reschedule", "a star whose machine is lost is started elsewhere"),
    ("disconnect", "a star whose machine is out of reach is started elsewhere"),
    ("ephemeral_disk", "a disk of its own is `disk_mb`; a volume stays"),
    ("meta", "services have no metadata"),
    ("multiregion", "one app is in one constellation"),
    ("scaling", "services do not scale by themselves yet: `rads c scale`"),
    ("spread", "spreading by percent is not there: placement: spread over an attribute is even"),
    (
        "stop_after_client_disconnect",
        "a star of a machine that is cut off ends when its lease does, if it is a singleton",
    ),
    ("max_client_disconnect", "a star whose machine is out of reach is started elsewhere"),
    ("prevent_reschedule_on_lost", "a star whose machine is lost is started elsewhere"),
    ("shutdown_delay", "a star that is to stop gets no requests first"),
    ("node_pool", "machines have labels: `placement`"),
    ("consul_token", "services are not found in Consul"),
    ("vault_token", "secrets are a constellation's own"),
    ("ui", "there is nothing to show it in"),
];

/// What a job's variables are by default, and what tasks are told of themselves.
pub(super) struct Context {
    variables: BTreeMap<String, String>,
    images: Images,
}

pub(crate) fn read(source: &Source<'_>, ledger: &mut Ledger, app: &mut App) -> Result<(), Problem> {
    let mut found = false;
    for file in source.files {
        let mut root = hcl::document(&file.name, text_of(file)?)?;
        ledger.enter(&mut root, &file.name, "");
        let mut context = Context { variables: BTreeMap::new(), images: Images::of(source)? };
        for (name, node) in blocks(&root, "variable") {
            match node.get("default").and_then(Node::scalar) {
                Some(default) => {
                    context.variables.insert(name.clone(), default.to_owned());
                    ledger.changed(node, format!("variable `{name}` as by default, wherever it is used"));
                }
                None => {
                    ledger.left(
                        node,
                        format!("variable `{name}` has no plain default: where it is used it stays as it is written"),
                    );
                }
            }
        }
        for (name, node) in blocks(&root, "job") {
            found = true;
            job(ledger, app, &context, &name, node);
        }
        for (key, node) in root.entries() {
            if ledger.is_open(node) && !key.starts_with("job") {
                ledger.left(node, "only what a job says itself is known");
            }
        }
    }
    match found {
        true => Ok(()),
        false => Err(Problem::new(Code::FileUnreadable, "there is no `job` in it")
            .help("a Nomad job is a file in HCL that begins with job \"NAME\"")),
    }
}

/// Blocks of a kind by their labels.
pub(super) fn blocks<'a>(node: &'a Node, kind: &str) -> Vec<(String, &'a Node)> {
    let label = |key: &str| -> Option<String> {
        let rest = key.strip_prefix(kind)?;
        (rest.is_empty() || rest.starts_with(' ')).then(|| rest.trim().trim_matches('"').to_owned())
    };
    node.entries().iter().filter_map(|(key, value)| Some((label(key)?, value))).collect()
}

fn kind_of(key: &str) -> &str {
    key.split(' ').next().unwrap_or(key)
}

fn job(ledger: &mut Ledger, app: &mut App, context: &Context, name: &str, node: &Node) {
    let kind = node.text_at("type").unwrap_or("service");
    let groups = blocks(node, "group");
    let namespace = node.text_at("namespace").filter(|name| *name != "default" && name.parse::<model::Name>().is_ok());
    if app.services.is_empty() {
        ledger.namespace = namespace.map(str::to_owned);
    }
    let runs = match kind {
        "batch" | "sysbatch" => match job::of(kind, node) {
            Ok(runs) => Some(runs),
            Err(why) => return job::leave(ledger, app, name, node, kind, &why),
        },
        _ => None,
    };
    let several = groups.iter().map(|(_, group)| blocks(group, "task").len()).sum::<usize>() > 1;
    // A task may stand in a job without a group.
    let mut groups = groups;
    if groups.is_empty() && !blocks(node, "task").is_empty() {
        groups.push((name.to_owned(), node));
    }
    for (group_name, group_node) in &groups {
        group(ledger, app, context, name, node, group_name, group_node, kind, several, runs.as_ref());
    }
    for (key, value) in node.entries() {
        match kind_of(key) {
            "group" | "task" | "constraint" | "affinity" => {}
            "dynamic" => {
                ledger.left(
                    value,
                    "blocks that an expression makes are not known before it is evaluated"
                        .help("write out what it makes, each by itself"),
                );
            }
            "type" if matches!(kind, "service" | "system") => ledger.carried(value, "stars that run on"),
            "type" if runs.is_some() => ledger.carried(value, "jobs"),
            "periodic" if runs.is_some() => job::periodic(ledger, value),
            "update" if kind == "service" => {}
            "datacenters"
                if value.texts().is_none_or(|all| all.iter().all(|one| matches!(one.as_str(), "dc1" | "*"))) =>
            {
                ledger.carried(value, "every machine");
            }
            "datacenters" => {
                ledger.left(
                    value,
                    "one constellation has no data centres".help("require a region or zone by `placement`"),
                );
            }
            "region" if value.scalar() == Some("global") => ledger.carried(value, "every machine"),
            "region" => {
                ledger.left(value, "a constellation is one region of Nomad".help("require a region by `placement`"));
            }
            "namespace"
                if value.scalar() == Some("default")
                    || namespace.is_some() && namespace == ledger.namespace.as_deref() =>
            {
                ledger.carried(value, "the namespace of the app");
            }
            "namespace" => ledger.left(value, "one app is in one namespace, by a name of a-z, 0-9 and `-`"),
            "id" | "name" => ledger.changed(value, "services are called after their group or task"),
            other => {
                if let Some((_, why)) = NOT_CARRIED.iter().find(|(known, _)| *known == other) {
                    ledger.left(value, *why);
                }
            }
        }
        if value.is_leaf() && value.scalar().is_none() && ledger.is_open(value) {
            ledger.carried(value, "nothing is in it");
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "a group has what its job says, too")]
fn group(
    ledger: &mut Ledger,
    app: &mut App,
    context: &Context,
    job_name: &str,
    job: &Node,
    name: &str,
    node: &Node,
    kind: &str,
    several: bool,
    runs: Option<&Job>,
) {
    let tasks = blocks(node, "task");
    let ports = ports(context, node);
    let mut made = Vec::new();
    for (task_name, task_node) in &tasks {
        let wanted = match (several, tasks.len()) {
            (false, _) => job_name.to_owned(),
            (true, 1) => format!("{job_name}-{name}"),
            (true, _) => format!("{job_name}-{task_name}"),
        };
        if let Some(hook) = task_node.get("lifecycle") {
            let when = hook.text_at("hook").unwrap_or_default().to_owned();
            let sidecar = hook.get("sidecar").is_some_and(Node::is_true);
            if !sidecar && !when.is_empty() {
                ledger.left(
                    task_node,
                    format!("a task that runs at `{when}`")
                        .help("what runs before is `before_start`, what runs after `before_stop`"),
                );
                continue;
            }
        }
        let mut service = Service::new(app.service_name(&wanted), task_node);
        service.job = runs.cloned();
        let taken = task::read(context, ledger, app, &mut service, task_node, &ports);
        // One that does not become a service was told as a whole.
        if !taken {
            continue;
        }
        for conditions in [job, node, *task_node] {
            placement::conditions(ledger, &mut service, conditions);
        }
        made.push(service);
    }
    let count = node.get("count").and_then(Node::int).and_then(|count| u64::try_from(count).ok());
    for service in &mut made {
        if let Some(count) = count {
            let (option, bounded) = match &mut service.job {
                Some(job) => ("completions", job.set_completions(count.max(1))),
                None => ("instances", service.set_instances(count)),
            };
            if let Some(node) = node.get("count").filter(|node| ledger.is_open(node)) {
                docker::bounded(ledger, node, option, bounded);
            }
        }
    }
    if kind == "system" {
        for service in &mut made {
            match service.put_everywhere() {
                Ok(told) => ledger.note(Verdict::Carried, node, told),
                Err(told) => ledger.note(Verdict::Changed, node, told),
            }
        }
    }
    // What a group says holds before what its job says.
    let updates: Vec<&Node> = [job, node].into_iter().filter_map(|node| node.get("update")).collect();
    if kind == "service" && !updates.is_empty() {
        made.iter_mut().for_each(|service| update::read(ledger, service, &updates));
    }
    if made.len() > 1 {
        ledger.note(
            Verdict::Changed,
            node,
            "tasks of a group are services of their own: they do not share a network or an `alloc` folder",
        );
    }
    if let Some(first) = made.first_mut() {
        network(ledger, app, context, first, node);
        for (_, service_node) in blocks(node, "service") {
            checks::registered(context, ledger, first, service_node, &ports);
        }
    }
    // A service is told of one policy; of a job's parts each is tried as its group says.
    for (_, restart) in blocks(node, "restart") {
        let of_all = if runs.is_some() { made.len() } else { made.len().min(1) };
        made[..of_all].iter_mut().for_each(|service| task::restart(ledger, service, restart));
    }
    for (key, value) in node.entries().iter().filter(|_| node.id != job.id) {
        match kind_of(key) {
            "task" | "network" | "service" | "restart" | "constraint" | "affinity" | "count" => {}
            "dynamic" => ledger.left(value, "blocks that an expression makes are not known before it is evaluated"),
            "type" => ledger.left(value, "which type it is, its job says"),
            "update" if kind == "service" => {}
            "volume" => {
                ledger.carried(value, "where it is mounted");
            }
            other => {
                if let Some((_, why)) = NOT_CARRIED.iter().find(|(known, _)| *known == other) {
                    ledger.left(value, *why);
                }
            }
        }
    }
    for service in &mut made {
        service.network = service.network.or(Some("bridge"));
        service.namespace.clone_from(&ledger.namespace);
    }
    app.services.extend(made);
}

/// Ports of a group by their names: inside, and outside when it is fixed.
pub(super) type Ports = BTreeMap<String, (Option<u16>, Option<u16>)>;

fn ports(context: &Context, node: &Node) -> Ports {
    let mut ports = Ports::new();
    let networks = blocks(node, "network").into_iter().chain(
        blocks(node, "task")
            .into_iter()
            .flat_map(|(_, task)| blocks(task, "resources"))
            .flat_map(|(_, resources)| blocks(resources, "network")),
    );
    for (name, port) in networks.flat_map(|(_, network)| blocks(network, "port")) {
        let number =
            |key: &str| task::resolved(context, port.text_at(key)?).parse().ok().filter(|port: &u16| *port != 0);
        ports.insert(name, (number("to").or_else(|| number("static")), number("static")));
    }
    ports
}

/// Gives a service the first port of its group.
fn network(ledger: &mut Ledger, app: &mut App, context: &Context, service: &mut Service, node: &Node) {
    for (_, network) in blocks(node, "network") {
        for (name, port) in blocks(network, "port") {
            let number =
                |key: &str| task::resolved(context, port.text_at(key)?).parse().ok().filter(|port: &u16| *port != 0);
            let (to, fixed) = (number("to"), number("static"));
            // A port that only Nomad knows the number of is one that the program is told.
            let inside = to.or(fixed).unwrap_or(8080);
            match service.port {
                None => {
                    let (listen, free) = app.listen(Listen::new(Listen::EVERYWHERE, fixed.unwrap_or(0)));
                    service.port = Some(inside);
                    service.http |= name.starts_with("http") && name != "https";
                    service.listen = Some(listen);
                    let at = match (fixed, free) {
                        (Some(fixed), true) => format!("*:{fixed}"),
                        _ => "any free port".to_owned(),
                    };
                    let text = format!("port \"{name}\" is {inside} within a star, in `$PORT`, and reached at {at}");
                    let verdict = if to.or(fixed).is_some() && free { Verdict::Carried } else { Verdict::Changed };
                    ledger.tell(verdict, port, text);
                }
                Some(known) => {
                    ledger.left(
                        port,
                        format!("port \"{name}\": a service has one port, and `{}` has {known}", service.name)
                            .help("a program that serves several ports takes a service for each"),
                    );
                }
            }
        }
        if let Some(mode) = network.get("mode") {
            match mode.scalar() {
                Some("host") => {
                    service.network = Some("host");
                    ledger.carried(mode, "network: \"host\"");
                }
                Some("none") => {
                    service.network = Some("none");
                    ledger.carried(mode, "network: \"none\"");
                }
                _ => ledger.carried(mode, "network: \"bridge\", which takes root"),
            }
        }
        for (key, value) in network.entries() {
            if matches!(key.as_str(), "mbits" | "dns" | "hostname") {
                ledger.left(value, "a star has its machine's network as it is");
            }
        }
        if ledger.is_open(network) && network.is_leaf() {
            ledger.carried(network, "nothing is in it");
        }
    }
}
