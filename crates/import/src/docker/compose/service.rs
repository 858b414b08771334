//! A service of a compose file.

use std::collections::BTreeSet;

use super::super::image::{self, Program};
use super::super::{mounts, ports, run, settings};
use super::{COMPLETED, Context, deploy};
use crate::draft::{App, Asked, Job, Probe, Service};
use crate::env;
use crate::ledger::{Ledger, WithHelp as _};
use crate::report::Verdict;
use crate::text::{Text, interpolated, words};
use crate::tree::Node;
use crate::units;

pub(super) fn read(
    context: &Context<'_>,
    ledger: &mut Ledger,
    app: &mut App,
    name: &str,
    node: &Node,
    one_shots: &BTreeSet<String>,
) -> Service {
    let mut service = Service::new(app.service_name(name), node);
    if one_shots.contains(name) {
        service.job = Some(Job::default());
        ledger.note(Verdict::Carried, node, "job: others want it to have ended well");
    }
    // What it is comes before what is said of it.
    let mode = node.at(&["deploy", "mode"]).and_then(Node::scalar);
    if matches!(mode, Some("replicated-job" | "global-job")) {
        service.job.get_or_insert_default();
    }
    if let Some(after) = node.get("depends_on") {
        depends_on(ledger, &mut service, after, one_shots);
    }
    if service.name != name {
        ledger.note(Verdict::Changed, node, format!("service `{}`, as names are", service.name));
    }
    for (key, value) in node.entries() {
        setting(context, ledger, app, &mut service, key, value);
    }
    deploy::everywhere(ledger, &mut service, node);
    // Variables of the description hold before those of files.
    if let Some(files) = node.get("env_file") {
        for file in files.one_or_more() {
            env_file(context, ledger, app, &mut service, file);
        }
    }
    program(context, ledger, app, &mut service, name, node);
    if service.network.is_none() {
        service.network = Some("bridge");
    }
    service
}

/// Jobs run after jobs; nothing else waits for anything.
fn depends_on(ledger: &mut Ledger, service: &mut Service, node: &Node, one_shots: &BTreeSet<String>) {
    for (name, how) in node.entries() {
        let ended = how.text_at("condition") == Some(COMPLETED) && one_shots.contains(name);
        match (&mut service.job, ended) {
            (Some(job), true) => {
                job.after.push(name.clone());
                ledger.carried(how, format!("after: [\"{name}\"]"));
            }
            (None, true) => ledger.left(
                how,
                format!("a service does not wait for job `{name}`: it starts beside it")
                    .help("one that cannot do without it ends and is started again until it can"),
            ),
            (_, false) => ledger.left(how, TOGETHER.help("write restart: \"always\" for one that gives up")),
        }
    }
    if ledger.is_open(node) {
        ledger.left(node, TOGETHER.help("write restart: \"always\" for one that gives up"));
    }
}

const TOGETHER: &str = "services start together; a star that cannot do without another ends and is started again";

/// A text with its variables as they are by default.
fn plain(node: &Node) -> String {
    interpolated(node.scalar().unwrap_or_default()).0.by_default()
}

fn program(context: &Context<'_>, ledger: &mut Ledger, app: &mut App, service: &mut Service, name: &str, node: &Node) {
    let (image, build) = (node.get("image"), node.get("build"));
    let built = format!("{}-{name}", context.project);
    let image_name = image.map(plain).filter(|image| !image.is_empty()).unwrap_or(built);
    if let Some(image) = image {
        let variables = interpolated(image.scalar().unwrap_or_default()).0;
        if variables.fixed().is_none() {
            let names: Vec<String> = variables.variables().iter().map(|name| format!("`{name}`")).collect();
            ledger.note(Verdict::Changed, image, format!("{} as by default", names.join(", ")));
        }
    }
    if let Some(build) = build {
        let folder = build.scalar().or_else(|| build.text_at("context")).unwrap_or(".");
        ledger.left(
            build,
            "nothing is built here".help(format!("`docker build -t {image_name} {folder}`, then export it")),
        );
    }
    let (entrypoint, command) = (node.get("entrypoint"), node.get("command"));
    let program = Program {
        image: &image_name,
        image_at: image,
        built: build.is_some(),
        entrypoint: entrypoint.map(command_words),
        entrypoint_at: entrypoint,
        command: command.map(command_words),
        command_at: command,
    };
    image::set(app, ledger, service, &context.images, program);
}

/// A list of words, or a line that quotes alone divide.
fn command_words(node: &Node) -> Vec<Text> {
    match node.scalar() {
        Some(line) => words(&interpolated(line).0),
        None => node.items().iter().map(|item| interpolated(item.scalar().unwrap_or_default()).0).collect(),
    }
}

fn setting(context: &Context<'_>, ledger: &mut Ledger, app: &mut App, service: &mut Service, key: &str, node: &Node) {
    let text = plain(node);
    match key {
        // Told with the program, or by the caller.
        "image" | "build" | "command" | "entrypoint" | "env_file" | "extends" | "depends_on" => {}
        "environment" => environment(ledger, app, service, node),
        "ports" => {
            for port in node.one_or_more() {
                match port.is_map() {
                    true => ports::publish_long(app, ledger, service, port),
                    false => ports::publish(app, ledger, service, port, &plain(port)),
                }
            }
        }
        "expose" => node.one_or_more().iter().for_each(|port| ports::expose(app, ledger, service, port, &plain(port))),
        "volumes" => node.one_or_more().iter().for_each(|volume| mount(context, ledger, app, service, volume)),
        "tmpfs" => {
            for one in node.one_or_more() {
                let text = plain(one);
                let (path, options) = text.split_once(':').unwrap_or((&text, ""));
                let size = options.split(',').find_map(|option| units::docker_bytes(option.strip_prefix("size=")?));
                run::tmpfs(ledger, service, one, path, size);
            }
        }
        "restart" => super::super::restart(ledger, service, node, &text),
        "deploy" => deploy::read(ledger, service, node),
        "scale" if service.job.is_some() => {
            match (node.int().and_then(|count| u64::try_from(count).ok()), &mut service.job) {
                (Some(count), Some(job)) => settings::bounded(ledger, node, "completions", job.set_completions(count)),
                _ => ledger.left(node, "it is no number"),
            }
        }
        "scale" => match node.int().and_then(|count| u64::try_from(count).ok()) {
            Some(count) => settings::bounded(ledger, node, "instances", service.set_instances(count)),
            None => ledger.left(node, "it is no number"),
        },
        "healthcheck" => healthcheck(ledger, service, node),
        "user" => settings::user(ledger, service, node, &text),
        "working_dir" => settings::workdir(ledger, service, node, &text),
        "stop_signal" => settings::stop_signal(ledger, service, node, &text),
        "stop_grace_period" => settings::grace(ledger, service, node, &text),
        "network_mode" => settings::network(ledger, service, node, &text),
        "mem_limit" => settings::memory(ledger, service, node, &text),
        "mem_reservation" => settings::soft_memory(ledger, service, node, &text),
        "cpus" | "cpu_count" => settings::cpus(ledger, service, node, &text),
        "cpu_percent" => match text.trim_end_matches('%').parse::<u64>() {
            Ok(percent) => settings::cpus(ledger, service, node, &format!("{}.{:02}", percent / 100, percent % 100)),
            Err(_) => ledger.left(node, format!("`{text}` is no number")),
        },
        "cpuset" => settings::cpuset(ledger, service, node, &text),
        "cpu_quota" => match text.parse::<u64>() {
            Ok(quota) => settings::cpus(ledger, service, node, &format!("{}", quota as f64 / 100_000.0)),
            Err(_) => ledger.left(node, format!("`{text}` is no number")),
        },
        "cpu_period" => ledger.changed(node, "a share of processors is measured over 100 ms"),
        "pids_limit" => settings::pids(ledger, service, node, &text),
        "ulimits" => {
            for (name, limit) in node.entries() {
                let hard = limit.get("hard").unwrap_or(limit).int().and_then(|hard| u64::try_from(hard).ok());
                settings::ulimit(ledger, service, limit, name, hard);
            }
        }
        "cap_add" => node.one_or_more().iter().for_each(|one| settings::cap_add(ledger, service, one, &plain(one))),
        "cap_drop" => node.one_or_more().iter().for_each(|one| settings::cap_drop(ledger, one, &plain(one))),
        "security_opt" => {
            node.one_or_more().iter().for_each(|one| settings::security(ledger, service, one, &plain(one)));
        }
        "read_only" => settings::read_only(ledger, node),
        "profiles" if node.one_or_more().is_empty() => ledger.carried(node, "it has none"),
        "profiles" if service.job.is_some() => {
            ledger.changed(node, "a job of a profile runs with the app, as any");
        }
        "profiles" => {
            let _ = service.set_instances(0);
            ledger.changed(
                node,
                "instances: 0: a service of a profile is known and has no stars"
                    .help(format!("`rads c scale {} 1` when it is to run", service.name)),
            );
        }
        "secrets" => node.one_or_more().iter().for_each(|one| secret(ledger, service, one)),
        "configs" => node.one_or_more().iter().for_each(|one| config(context, ledger, app, service, one)),
        "pre_stop" => {
            ledger.left(node, "hooks of a container are run by Docker".help("write it as `before_stop`"));
        }
        _ if settings::plain(ledger, key, node) => {}
        _ if key.starts_with("x-") => {
            ledger.left(node, "an extension: what others repeat of it by an anchor is told there");
        }
        _ => {}
    }
    if node.is_leaf() && !node.is_null() && node.scalar().is_none() && ledger.is_open(node) {
        ledger.carried(node, "nothing is in it");
    }
}

fn environment(ledger: &mut Ledger, app: &mut App, service: &mut Service, node: &Node) {
    for (name, value) in node.entries() {
        let text = match value.scalar() {
            Some(text) => interpolated(text).0,
            None => env::from_environment(name),
        };
        env::set(app, ledger, service, value, name, text);
    }
    for item in node.items() {
        let Some(text) = item.scalar() else { continue };
        let (name, text) = match text.split_once('=') {
            Some((name, value)) => (name, interpolated(value).0),
            None => (text, env::from_environment(text)),
        };
        env::set(app, ledger, service, item, name, text);
    }
}

fn env_file(context: &Context<'_>, ledger: &mut Ledger, app: &mut App, service: &mut Service, node: &Node) {
    let path = node.scalar().or_else(|| node.text_at("path")).map(|path| interpolated(path).0.by_default());
    let path = path.unwrap_or_default();
    match context.source.beside.read(&path) {
        Some(bytes) => {
            ledger.carried(node, format!("the variables of `{path}`, each told there"));
            env::set_file(app, ledger, service, &path, &bytes, true);
        }
        None => {
            ledger.left(node, format!("`{path}` cannot be read here").help("import again where it lies"));
        }
    }
}

fn mount(context: &Context<'_>, ledger: &mut Ledger, app: &mut App, service: &mut Service, node: &Node) {
    let Some(text) = node.scalar() else {
        let value = |key: &str| node.text_at(key).map(mounts::resolved).unwrap_or_default();
        let (source, said) = value("source");
        let size = node.at(&["tmpfs", "size"]).and_then(Node::scalar).and_then(units::docker_bytes);
        let read_only = node.get("read_only").is_some_and(Node::is_true);
        let mut one = mounts::Mount { source, target: value("target").0, read_only, size };
        match node.text_at("type").unwrap_or("volume") {
            "tmpfs" => run::tmpfs(ledger, service, node, &one.target, size),
            "bind" => {
                if !one.source.starts_with(['/', '.', '~']) {
                    one.source = format!("./{}", one.source);
                }
                mounts::take(app, ledger, service, node, &one, said);
            }
            "volume" => mounts::take(app, ledger, service, node, &one, said),
            other => ledger.left(node, format!("a mount of type `{other}`")),
        }
        return;
    };
    let (text, said) = mounts::resolved(text);
    let mount = mounts::parse(&text);
    // A volume of the project that is a folder of memory elsewhere is none here.
    let options = context.volumes.get(&mount.source).and_then(|volume| volume.get("driver_opts"));
    if options.is_some_and(|options| options.text_at("type") == Some("tmpfs")) {
        run::tmpfs(ledger, service, node, &mount.target, None);
        return;
    }
    mounts::take(app, ledger, service, node, &mount, said);
}

fn healthcheck(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    let off = node.get("disable").is_some_and(Node::is_true);
    let test = node.get("test");
    let items: Vec<Text> = test
        .map(|test| match test.scalar() {
            Some(line) => vec!["CMD-SHELL".into(), interpolated(line).0],
            None => command_words(test),
        })
        .unwrap_or_default();
    let how = items.first().map(Text::by_default).unwrap_or_default();
    let asked = match how.as_str() {
        _ if off => None,
        "CMD" if items.len() > 1 => Some(items[1..].to_vec()),
        "CMD-SHELL" if items.len() > 1 => Some(vec!["sh".into(), "-c".into(), items[1].clone()]),
        _ => None,
    };
    let Some(asked) = asked else {
        match off || how == "NONE" {
            true => ledger.carried(node, "a star is asked nothing but what `ready` says"),
            false => ledger.left(node, "of the image's own health check, which is not known"),
        }
        return;
    };
    let mut probe = Probe::new(Asked::Exec(asked));
    if let Some(test) = test {
        ledger.carried(test, "ready: what is run within the star");
    }
    for (key, value) in node.entries() {
        let ms = units::go_ms(&plain(value));
        match (key.as_str(), ms) {
            ("interval", Some(ms)) => probe.interval_ms = Some(ms),
            ("timeout", Some(ms)) => probe.timeout_ms = Some(ms),
            ("retries", _) if value.int().is_some_and(|count| count > 0) => {
                probe.failures = value.int().map(i64::unsigned_abs);
            }
            ("start_period", Some(ms)) => {
                probe.start_ms = Some(ms.max(30_000));
                ledger.changed(value, "start_seconds: how long it may take to get ready before it is replaced");
                continue;
            }
            ("test", _) => continue,
            ("disable", _) => {
                ledger.carried(value, "it is on");
                continue;
            }
            _ => {
                ledger.left(value, "a probe has no such time");
                continue;
            }
        }
        ledger.carried(value, "of `ready`");
    }
    service.ready = Some(probe);
}

fn secret(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    let name = node.scalar().or_else(|| node.text_at("source")).unwrap_or_default();
    let target = node.text_at("target").unwrap_or(name);
    let path = if target.starts_with('/') { target.to_owned() } else { format!("/run/secrets/{target}") };
    let called = crate::names::name_of(name, "secret");
    match service.secret_file(&path, called.clone()) {
        Ok(()) => ledger.carried(node, format!("secret `{called}` at {path}, readable by the star's user")),
        Err(why) => ledger.left(node, format!("secret `{called}` at `{path}`: {why}")),
    }
}

fn config(context: &Context<'_>, ledger: &mut Ledger, app: &mut App, service: &mut Service, node: &Node) {
    let name = node.scalar().or_else(|| node.text_at("source")).unwrap_or_default();
    let target = node.text_at("target").map_or_else(|| format!("/{name}"), str::to_owned);
    let described = context.configs.get(name);
    let file = match described {
        Some(config) if config.text_at("content").is_some() => {
            let path = format!("config/{}", crate::names::name_of(name, "config"));
            let content = interpolated(config.text_at("content").unwrap_or_default()).0.by_default();
            app.files.insert(path.clone(), content.into_bytes());
            Some(path)
        }
        Some(config) => config.text_at("file").map(|file| interpolated(file).0.by_default()),
        None => None,
    };
    let Some(file) = file else {
        ledger.left(node, format!("config `{name}` is kept elsewhere"));
        return;
    };
    match service.bind(&target, &file) {
        Ok(path) => ledger.carried(node, format!("`{file}` of the app's folder at {path}")),
        Err(why) => ledger.left(node, format!("config `{name}` at `{target}`: {why}")),
    }
}
