//! A task: its program by its driver, variables, resources, checks.

use super::checks::registered;
use super::files::{in_task, mounted, template};
use super::{Context, Ports, blocks, job, kind_of};
use crate::docker::image::{self, Program};
use crate::docker::mounts;
use crate::draft::{App, Restart, Service};
use crate::env;
use crate::ledger::{Ledger, WithHelp as _};
use crate::report::Verdict;
use crate::text::Text;
use crate::tree::Node;
use crate::units;

/// Keys of tasks that have no counterpart.
const NOT_CARRIED: &[(&str, &str)] = &[
    ("vault", "secrets are a constellation's own: `rads c secrets set`"),
    ("consul", "services are not found in Consul"),
    ("identity", "stars have no account"),
    ("artifact", "nothing is fetched: what a service needs lies beside the app, in `assets` or `binds`"),
    ("dispatch_payload", "a job is handed nothing when it is asked for"),
    ("logs", "what a star writes is kept by its agent: `rads c logs`"),
    ("meta", "services have no metadata"),
    ("scaling", "services do not scale by themselves yet: `rads c scale`"),
    ("csi_plugin", "a volume lies in its machine's data folder"),
    ("leader", "tasks are services of their own"),
    ("kind", "services are not found in Consul"),
    ("shutdown_delay", "a star that is to stop gets no requests first"),
    ("ephemeral_disk", "a disk of its own is `disk_mb`; a volume stays"),
    ("schedule", "a service is stopped and started by `rads c stop` and `rads c start`"),
    ("secret", "secrets are a constellation's own: `rads c secrets set`"),
    ("action", "`rads c exec` runs a command in a star"),
    ("upstreams", "services do not reach each other by name"),
    ("lifecycle", "a task that runs beside others is a service of its own"),
];

/// A text with what is known of its variables: those of the job by default, and what every star is told.
pub(super) fn resolved(context: &Context, text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        result.push_str(before);
        let Some((inner, behind)) = after.split_once('}') else {
            result.push_str("${");
            rest = after;
            continue;
        };
        let name = inner.trim();
        let upper = name.strip_prefix("env.").unwrap_or(name);
        let known = match (name.strip_prefix("var."), upper) {
            (Some(variable), _) => context.variables.get(variable).cloned(),
            (_, "NOMAD_ALLOC_ID" | "NOMAD_SHORT_ALLOC_ID") => Some("$STAR_ID".to_owned()),
            (_, "NOMAD_ALLOC_NAME" | "NOMAD_TASK_NAME") => Some("$STAR_NAME".to_owned()),
            (_, "NOMAD_TASK_DIR") => Some("/local".to_owned()),
            (_, "NOMAD_ALLOC_DIR") => Some("/alloc".to_owned()),
            (_, "NOMAD_SECRETS_DIR") => Some("/secrets".to_owned()),
            (_, name) if name.starts_with("NOMAD_PORT_") => Some("$PORT".to_owned()),
            (_, name) if name.starts_with("NOMAD_IP_") => Some("127.0.0.1".to_owned()),
            (_, name) if name.starts_with("NOMAD_ADDR_") => Some("127.0.0.1:$PORT".to_owned()),
            _ => None,
        };
        match known {
            Some(known) => result.push_str(&known),
            None => result.push_str(&format!("${{{inner}}}")),
        }
        rest = behind;
    }
    result.push_str(rest);
    result
}

/// What a text still names that nobody knows.
fn unknown(text: &str) -> bool {
    text.contains("${")
}

/// The command and arguments of a task, as they are written.
pub(super) fn words(task: &Node) -> Vec<String> {
    let config = task.get("config");
    let command = config.and_then(|config| config.get("command")).and_then(Node::scalar);
    let args = config.and_then(|config| config.get("args")).and_then(Node::texts).unwrap_or_default();
    let image = config.and_then(|config| config.text_at("image"));
    let placeholder = || format!("command-of-{}", crate::names::name_of(image.unwrap_or_default(), "image"));
    std::iter::once(command.map_or_else(placeholder, str::to_owned)).chain(args).collect()
}

/// Reads a task into a service. Whether it became one.
pub(super) fn read(
    context: &Context,
    ledger: &mut Ledger,
    app: &mut App,
    service: &mut Service,
    node: &Node,
    ports: &Ports,
) -> bool {
    let driver = node.text_at("driver").unwrap_or_default().to_owned();
    let config = node.get("config");
    let is_container = matches!(driver.as_str(), "docker" | "podman" | "containerd" | "containerd-driver");
    if !is_container && !matches!(driver.as_str(), "exec" | "raw_exec" | "exec2" | "java") {
        ledger.left(node, format!("a task of driver `{driver}`: a star runs a program, of an image or of the host"));
        return false;
    }
    if let Some(driver) = node.get("driver") {
        ledger.carried(driver, "a star's `command`");
    }
    for (_, variables) in blocks(node, "env") {
        for (name, value) in variables.entries() {
            let text = resolved(context, value.scalar().unwrap_or_default());
            if unknown(&text) {
                let told = format!("variable `{name}` stays as it is written: what it names is Nomad's to know");
                match service.variable(name, text.into()) {
                    Ok(()) => ledger.changed(value, told),
                    Err(why) => ledger.left(value, format!("variable `{name}`: {why}")),
                }
            } else {
                env::set(app, ledger, service, value, name, text.into());
            }
        }
        if variables.entries().is_empty() && ledger.is_open(variables) {
            ledger.carried(variables, "nothing is in it");
        }
    }
    let empty = Node::new(node.line, crate::tree::Value::Map(Vec::new()));
    let config = config.unwrap_or(&empty);
    let text = |key: &str| config.text_at(key).map(|text| resolved(context, text));
    let listed = |key: &str| {
        config.get(key).map(|words| {
            words
                .one_or_more()
                .iter()
                .map(|word| Text::from(resolved(context, word.scalar().unwrap_or_default())))
                .collect::<Vec<Text>>()
        })
    };
    if is_container {
        let image = text("image").unwrap_or_else(|| "image".to_owned());
        let command = text("command").map(|word| vec![Text::from(word)]);
        let command = match (command, listed("args")) {
            (Some(mut words), args) => {
                words.extend(args.into_iter().flatten());
                Some(words)
            }
            (None, args) => args,
        };
        let program = Program {
            image: &image,
            image_at: config.get("image"),
            built: false,
            entrypoint: listed("entrypoint"),
            entrypoint_at: config.get("entrypoint"),
            command,
            command_at: config.get("command").or_else(|| config.get("args")),
        };
        image::set(app, ledger, service, &context.images, program);
    } else {
        let mut words: Vec<Text> = match driver.as_str() {
            "java" => vec!["java".into()],
            _ => Vec::new(),
        };
        words.extend(listed("jvm_options").into_iter().flatten());
        if let Some(jar) = text("jar_path") {
            words.extend(["-jar".into(), jar.into()]);
        }
        if let Some(class) = text("class").filter(|_| driver == "java") {
            words.push(class.into());
        }
        words.extend(text("command").map(Text::from));
        words.extend(listed("args").into_iter().flatten());
        if words.first().is_none_or(|word| word.by_default().is_empty()) {
            ledger.left(node, "it says nothing of what it runs");
            return false;
        }
        service.command = words;
        for key in ["command", "jar_path", "class", "jvm_options"] {
            if let Some(node) = config.get(key) {
                ledger.carried(
                    node,
                    "in `command`".help(
                        "programs of the host are those below /usr; others go into the app's folder, as ./program",
                    ),
                );
            }
        }
    }
    let named: Vec<String> = service.command.iter().map(Text::by_default).filter(|word| unknown(word)).collect();
    if !named.is_empty() {
        let at = config.get("args").or_else(|| config.get("command")).unwrap_or(node);
        let text =
            format!("`{}` in `command` stays as it is written: what it names is Nomad's to know", named.join("`, `"));
        ledger.note(Verdict::Changed, at, text);
    }
    for (key, value) in config.entries() {
        if ledger.is_open(value) {
            container(context, ledger, app, service, key, value, ports);
        }
    }
    for (key, value) in node.entries() {
        setting(context, ledger, app, service, key, value, ports);
    }
    true
}

fn container(
    context: &Context,
    ledger: &mut Ledger,
    app: &mut App,
    service: &mut Service,
    key: &str,
    node: &Node,
    ports: &Ports,
) {
    let text = resolved(context, node.scalar().unwrap_or_default());
    match key {
        "args" | "command" | "entrypoint" => ledger.carried(node, "in `command`"),
        "ports" => {
            for one in node.one_or_more() {
                let known = one.scalar().is_some_and(|name| ports.contains_key(name));
                match known {
                    true => ledger.carried(one, "where the port is described"),
                    false => ledger.left(one, "no port of the group is called so"),
                }
            }
        }
        "port_map" => {
            for (name, value) in node.entries() {
                let inside = value.int().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
                match (inside, service.port) {
                    (Some(port), None) => {
                        let fixed = ports.get(name).and_then(|(_, fixed)| *fixed);
                        let (listen, _) = app.listen(crate::draft::Listen::new("*", fixed.unwrap_or(0)));
                        (service.port, service.listen, service.http) =
                            (Some(port), Some(listen), name.starts_with("http"));
                        ledger.carried(value, format!("port {port}"));
                    }
                    _ => ledger.left(value, "a service has one port"),
                }
            }
        }
        "volumes" => {
            for one in node.one_or_more() {
                let text = resolved(context, one.scalar().unwrap_or_default());
                let mut mount = mounts::parse(&text);
                // What is no path is the name of a volume.
                if mount.source.contains(['/', '.']) {
                    mount.source = in_task(&mount.source);
                }
                mounts::take(app, ledger, service, one, &mount, None);
            }
        }
        "mount" | "mounts" => {
            for one in node.one_or_more() {
                mounted(context, ledger, app, service, one);
            }
        }
        "network_mode" => match text.as_str() {
            "host" => {
                service.network = Some("host");
                ledger.carried(node, "network: \"host\"");
            }
            _ => ledger.changed(node, "network: \"bridge\": a star calls out and reaches no other by it"),
        },
        "cap_add" => node
            .one_or_more()
            .iter()
            .for_each(|one| crate::docker::cap_add(ledger, service, one, one.scalar().unwrap_or_default())),
        "cap_drop" => ledger.carried(node, "a star lacks it unless `weaken` gives it"),
        "work_dir" | "working_dir" => match service.set_workdir(&text) {
            Ok(()) => ledger.carried(node, "workdir"),
            Err(why) => ledger.left(node, why),
        },
        "pids_limit" => match node.int().and_then(|count| u64::try_from(count).ok()).filter(|count| *count > 0) {
            Some(count) => crate::docker::bounded(ledger, node, "pids", service.set_pids(count)),
            None => ledger.left(node, "it is no number"),
        },
        "privileged" if !node.is_true() => ledger.carried(node, "it is off"),
        "privileged" => ledger.left(node, "no star has rights over its machine"),
        "auth" | "auth_soft_fail" | "force_pull" | "image_pull_timeout" => {
            ledger.left(node, "nothing is pulled: the root file system lies beside the app");
        }
        "logging" => ledger.left(node, "what a star writes is kept by its agent: `rads c logs`"),
        "labels" => ledger.left(node, "services have no labels"),
        "init" | "tty" | "interactive" => ledger.carried(node, "every star's first process reaps what others leave"),
        "hostname" => ledger.left(node, "a star's host name is its own, as `web-1`"),
        _ => ledger.left(node, "a star has nothing like it"),
    }
}

fn setting(
    context: &Context,
    ledger: &mut Ledger,
    app: &mut App,
    service: &mut Service,
    key: &str,
    node: &Node,
    ports: &Ports,
) {
    let text = resolved(context, node.scalar().unwrap_or_default());
    match kind_of(key) {
        "driver" | "config" | "env" | "constraint" | "affinity" => {}
        "resources" => resources(ledger, service, node),
        "kill_timeout" => match units::go_ms(&text) {
            Some(ms) => {
                service.set_grace(ms);
                ledger.carried(node, "grace_seconds");
            }
            None => ledger.left(node, format!("`{text}` is no time")),
        },
        "kill_signal" => match service.set_stop_signal(&text) {
            true => ledger.carried(node, "stop_signal"),
            false => ledger.left(node, format!("`{text}` is no signal that means \"stop\" to a star")),
        },
        "user" => match text.as_str() {
            "root" => ledger.carried(node, "a star's root, which is nobody on the host"),
            _ if service.set_user(&text) => ledger.carried(node, "user, an id of the star's own"),
            _ => ledger.left(node, format!("user `{text}`: a star's user is a number")),
        },
        "service" => registered(context, ledger, service, node, ports),
        "restart" => restart(ledger, service, node),
        "template" => template(context, ledger, app, service, node),
        "volume_mount" => {
            let (name, path) =
                (node.text_at("volume").unwrap_or_default(), node.text_at("destination").unwrap_or_default());
            let volume = app.volume(name);
            match service.volume(path, volume.clone(), None) {
                Ok(()) if node.get("read_only").is_some_and(Node::is_true) => {
                    ledger.changed(node, format!("volume `{volume}` at {path}; not read-only"));
                }
                Ok(()) => ledger.carried(node, format!("volume `{volume}` at {path}")),
                Err(why) => ledger.left(node, format!("volume `{volume}` at `{path}`: {why}")),
            }
        }
        other => {
            if let Some((_, why)) = NOT_CARRIED.iter().find(|(known, _)| *known == other) {
                ledger.left(node, *why);
            }
        }
    }
}

fn resources(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    for (key, value) in node.entries() {
        let number = value.int().and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0);
        match (kind_of(key), number) {
            ("cores", Some(cores)) => {
                // Nobody else has them.
                let _ = service.set_cpu(cores.saturating_mul(1000));
                let _ = service.set_reserve_cpu(cores.saturating_mul(1000));
                ledger.carried(value, format!("cpu_cores: {cores}, and reserve_cpu_percent"));
            }
            ("memory", Some(megabytes)) => match node.get("memory_max").and_then(Node::int) {
                Some(_) => {
                    let kept = service.set_reserve_ram(megabytes.saturating_mul(1 << 20));
                    crate::docker::bounded(ledger, value, "reserve_ram_mb", kept);
                }
                None => {
                    let bytes = megabytes.saturating_mul(1 << 20);
                    let _ = service.set_reserve_ram(bytes);
                    crate::docker::bounded(ledger, value, "reserve_ram_mb and ram_mb", service.set_ram(bytes));
                }
            },
            ("memory_max", Some(megabytes)) => {
                crate::docker::bounded(ledger, value, "ram_mb", service.set_ram(megabytes.saturating_mul(1 << 20)));
            }
            ("cpu", _) => {
                ledger.left(
                    value,
                    "how much of a processor so many megahertz are depends on the machine"
                        .help("`reserve_cpu_percent` keeps a part of one for each star, `cpu_cores` bounds"),
                );
            }
            ("network", _) => ledger.changed(value, "where its ports are used"),
            _ => ledger.left(value, "stars have no GPUs or other devices yet"),
        }
    }
}

pub(super) fn restart(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    if service.job.is_some() {
        job::tries(ledger, service, node);
        return;
    }
    if node.get("attempts").and_then(Node::int) == Some(0) && node.text_at("mode") == Some("fail") {
        service.restart = Some(Restart::Never);
        ledger.carried(node, "restart: \"never\"");
        return;
    }
    ledger.changed(node, "a star that ends is started again, with growing delays and without an end");
}
