//! A `docker run` line, with the words of a shell and the flags of the command.

use model::{Code, Problem};

use super::image::{Images, Program};
use super::mounts::{self, Mount};
use super::{image, ports, settings};
use crate::draft::{App, Asked, Probe, Service};
use crate::ledger::{Ledger, WithHelp as _};
use crate::shell::{self, Word};
use crate::text::Text;
use crate::tree::{NODES_MAX, Node, Value};
use crate::{Source, env, text_of, units};

/// Short flags with a value, and what they are in long.
const SHORT: &[(char, &str)] = &[
    ('p', "publish"),
    ('v', "volume"),
    ('e', "env"),
    ('u', "user"),
    ('w', "workdir"),
    ('m', "memory"),
    ('c', "cpu-shares"),
    ('h', "hostname"),
    ('l', "label"),
    ('a', "attach"),
];
/// Short flags without one.
const SHORT_SWITCHES: &[(char, &str)] =
    &[('d', "detach"), ('i', "interactive"), ('t', "tty"), ('P', "publish-all"), ('q', "quiet")];
/// Long flags without a value.
const SWITCHES: &[&str] = &[
    "detach",
    "disable-content-trust",
    "help",
    "init",
    "interactive",
    "no-healthcheck",
    "oom-kill-disable",
    "privileged",
    "publish-all",
    "quiet",
    "read-only",
    "replace",
    "rm",
    "sig-proxy",
    "tty",
    "use-api-socket",
];

/// Flags that are called otherwise in compose, whose words tell of them.
const CALLED: &[(&str, &str)] = &[
    ("interactive", "stdin_open"),
    ("label", "labels"),
    ("label-file", "labels"),
    ("annotation", "annotations"),
    ("log-driver", "logging"),
    ("log-opt", "logging"),
    ("link", "links"),
    ("link-local-ip", "mac_address"),
    ("add-host", "extra_hosts"),
    ("dns-option", "dns_opt"),
    ("device", "devices"),
    ("device-cgroup-rule", "device_cgroup_rules"),
    ("device-read-bps", "blkio_config"),
    ("device-read-iops", "blkio_config"),
    ("device-write-bps", "blkio_config"),
    ("device-write-iops", "blkio_config"),
    ("blkio-weight", "blkio_config"),
    ("blkio-weight-device", "blkio_config"),
    ("pull", "pull_policy"),
    ("userns", "userns_mode"),
    ("cgroupns", "cgroup"),
    ("sysctl", "sysctls"),
    ("memory-swap", "memswap_limit"),
    ("memory-swappiness", "mem_swappiness"),
    ("ip", "ipv4_address"),
    ("ip6", "ipv4_address"),
    ("network-alias", "links"),
    ("cpuset-mems", "cpu_shares"),
    ("replace", "rm"),
];

pub(crate) fn read(source: &Source<'_>, ledger: &mut Ledger, app: &mut App) -> Result<(), Problem> {
    let images = Images::of(source)?;
    let mut found = false;
    for file in source.files {
        let words = shell::words(text_of(file)?);
        if words.len() > NODES_MAX {
            let message = format!("`{}` holds more than {NODES_MAX} words", file.name);
            return Err(Problem::new(Code::FileUnreadable, message));
        }
        for command in commands(&words) {
            found |= one(source, ledger, app, &images, &file.name, &command);
        }
    }
    match found {
        true => Ok(()),
        false => Err(Problem::new(Code::FileUnreadable, "there is no `docker run` in it")
            .help("give it one, as `rads import docker-run 'docker run -p 8080:80 nginx'`")),
    }
}

/// Commands of a line, without where they read from and write to.
fn commands(words: &[Word]) -> Vec<Vec<Word>> {
    let (mut commands, mut command) = (Vec::new(), Vec::new());
    let mut is_target = false;
    for word in words {
        let text = word.text.by_default();
        if word.is_operator && text.contains(['<', '>']) {
            is_target = true;
        } else if word.is_operator {
            commands.push(std::mem::take(&mut command));
            is_target = false;
        } else if !std::mem::take(&mut is_target) {
            command.push(word.clone());
        }
    }
    commands.push(command);
    commands.retain(|command| !command.is_empty());
    commands
}

/// Flags of the engine itself that have a value.
const ENGINE_FLAGS: [&str; 8] = ["-H", "--host", "-c", "--context", "--config", "-l", "--log-level", "--namespace"];

/// Where the flags begin, behind `docker run` and what it is run by.
fn flags_begin(words: &[Word]) -> Option<usize> {
    let plain: Vec<String> = words.iter().take(24).map(|word| word.text.by_default()).collect();
    let word = |at: usize| plain.get(at).map(String::as_str);
    let engine = plain.iter().position(|word| {
        let program = word.rsplit('/').next().unwrap_or_default();
        matches!(program, "docker" | "podman" | "nerdctl" | "docker.exe")
    });
    // `run` alone will do.
    let mut at = engine.map_or(0, |at| at + 1);
    while let Some(flag) = word(at).filter(|word| word.starts_with('-')) {
        at += if ENGINE_FLAGS.contains(&flag) { 2 } else { 1 };
    }
    at += usize::from(word(at) == Some("container"));
    matches!(word(at), Some("run" | "create")).then_some(at + 1)
}

/// A command. Whether it was one that runs a container.
fn one(source: &Source<'_>, ledger: &mut Ledger, app: &mut App, images: &Images, file: &str, words: &[Word]) -> bool {
    let line = words[0].line;
    let Some(begin) = flags_begin(words) else {
        let begins: Vec<String> = words.iter().take(2).map(|word| word.text.by_default()).collect();
        let mut node = Node::text(line, begins.join(" "));
        ledger.enter(&mut node, file, "");
        ledger.left(&node, format!("`{}` runs no container", begins.join(" ")));
        return false;
    };
    let mut node = flags(&words[begin..], line);
    ledger.enter(&mut node, file, "");
    let image = node.get("IMAGE").and_then(|node| node.scalar().map(|text| (node, text.to_owned())));
    let Some(image) = image.filter(|(_, text)| !text.is_empty()) else {
        ledger.left(&node, "it names no image");
        return false;
    };
    let wanted = node.text_at("--name").map_or_else(|| base_name(&image.1), str::to_owned);
    let mut service = Service::new(app.service_name(&wanted), &node);
    for (flag, value) in node.entries() {
        if flag.starts_with("--") && flag != "--entrypoint" && flag != "--env-file" {
            let text = value.scalar().unwrap_or("true").to_owned();
            if flag.starts_with("--health-") && node.get("--health-cmd").is_none() {
                ledger.left(value, "of the image's own health check, which is not known");
                continue;
            }
            setting(ledger, app, &mut service, &flag[2..], value, &text);
        }
    }
    for (_, value) in node.entries().iter().filter(|(flag, _)| flag == "--env-file") {
        env_file(source, ledger, app, &mut service, value);
    }
    let entrypoint = node.get("--entrypoint").and_then(Node::scalar);
    let command = node.get("COMMAND");
    let command_words: Vec<Text> = command.map(Node::items).unwrap_or_default().iter().map(as_text).collect();
    let program = Program {
        image: &image.1,
        image_at: Some(image.0),
        built: false,
        entrypoint: entrypoint.filter(|text| !text.is_empty()).map(|text| vec![text.into()]),
        entrypoint_at: node.get("--entrypoint"),
        command: command.map(|_| command_words),
        command_at: command,
    };
    image::set(app, ledger, &mut service, images, program);
    service.network = service.network.or(Some("bridge"));
    super::without_restart(ledger, &mut service, &node);
    app.services.push(service);
    true
}

/// `nginx` of `docker.io/library/nginx:1.27`.
pub(crate) fn base_name(image: &str) -> String {
    let image = image.split('@').next().unwrap_or(image);
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split(':').next().unwrap_or(last).to_owned()
}

/// A value of the tree with its variables again.
fn as_text(node: &Node) -> Text {
    crate::text::interpolated(node.scalar().unwrap_or_default()).0
}

/// Flags by their long names, the image, and the command behind it.
fn flags(words: &[Word], line: u32) -> Node {
    let mut entries: Vec<(String, Node)> = Vec::new();
    // A `$` of the tree means a variable again when it is read, so that what is none is doubled.
    let written = |word: &Word| -> String {
        let piece = |piece: &crate::text::Piece| match piece {
            crate::text::Piece::Fixed(text) => text.replace('$', "$$"),
            crate::text::Piece::Env { name, otherwise } if otherwise.is_empty() => format!("${{{name}}}"),
            crate::text::Piece::Env { name, otherwise } => format!("${{{name}:-{otherwise}}}"),
        };
        word.text.0.iter().map(piece).collect()
    };
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let text = written(word);
        at += 1;
        let mut flag = |name: &str, value: Option<String>| {
            let node = match value {
                Some(value) => Node::text(word.line, value),
                None => Node::text(word.line, "true"),
            };
            entries.push((format!("--{name}"), node));
        };
        if text == "--" {
            break;
        }
        if let Some(long) = text.strip_prefix("--") {
            let (name, value) =
                long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value.to_owned())));
            let name = if name == "net" {
                "network"
            } else if name == "net-alias" {
                "network-alias"
            } else {
                name
            };
            if value.is_some() || SWITCHES.contains(&name) {
                flag(name, value);
            } else {
                flag(name, words.get(at).map(written));
                at += 1;
            }
        } else if let Some(short) = text.strip_prefix('-').filter(|short| !short.is_empty()) {
            for (start, letter) in short.char_indices() {
                if let Some((_, name)) = SHORT_SWITCHES.iter().find(|(known, _)| *known == letter) {
                    flag(name, None);
                    continue;
                }
                let rest = short[start + letter.len_utf8()..].to_owned();
                let name = SHORT.iter().find(|(known, _)| *known == letter).map(|(_, name)| (*name).to_owned());
                let name = name.unwrap_or_else(|| letter.to_string());
                match rest.strip_prefix('=').unwrap_or(&rest) {
                    "" => {
                        flag(&name, words.get(at).map(written));
                        at += 1;
                    }
                    value => flag(&name, Some(value.to_owned())),
                }
                break;
            }
        } else {
            at -= 1;
            break;
        }
    }
    if let Some(image) = words.get(at) {
        entries.push(("IMAGE".to_owned(), Node::text(image.line, mounts::resolved(&written(image)).0.trim())));
        let rest = &words[at + 1..];
        if let Some(first) = rest.first() {
            let items = rest.iter().map(|word| Node::text(word.line, written(word))).collect();
            entries.push(("COMMAND".to_owned(), Node::new(first.line, Value::List(items))));
        }
    }
    Node::new(line, Value::Map(entries))
}

fn setting(ledger: &mut Ledger, app: &mut App, service: &mut Service, flag: &str, node: &Node, value: &str) {
    let (plain, _) = mounts::resolved(value);
    match flag {
        "name" => ledger.carried(node, format!("service `{}`", service.name)),
        "publish" => ports::publish(app, ledger, service, node, &plain),
        "expose" => ports::expose(app, ledger, service, node, &plain),
        "publish-all" => {
            ledger.left(node, "which ports the image exposes is not known".help("name them with `-p`"));
        }
        "env" => {
            let (name, text) = match value.split_once('=') {
                Some((name, text)) => (name.to_owned(), crate::text::interpolated(text).0),
                None => (value.to_owned(), env::from_environment(value)),
            };
            env::set(app, ledger, service, node, &name, text);
        }
        "volume" => {
            let (text, said) = mounts::resolved(value);
            mounts::take(app, ledger, service, node, &mounts::parse(&text), said);
        }
        "mount" => mount(app, ledger, service, node, value),
        "tmpfs" => {
            let (path, options) = plain.split_once(':').unwrap_or((&plain, ""));
            let size = options.split(',').find_map(|option| units::docker_bytes(option.strip_prefix("size=")?));
            tmpfs(ledger, service, node, path, size);
        }
        "memory" => settings::memory(ledger, service, node, &plain),
        "memory-reservation" => settings::soft_memory(ledger, service, node, &plain),
        "cpus" => settings::cpus(ledger, service, node, &plain),
        "cpuset-cpus" => settings::cpuset(ledger, service, node, &plain),
        "cpu-quota" => quota(ledger, service, node, &plain),
        "cpu-period" => ledger.changed(node, "a share of processors is measured over 100 ms"),
        "pids-limit" => settings::pids(ledger, service, node, &plain),
        "ulimit" => {
            let (name, limits) = plain.split_once('=').unwrap_or((&plain, ""));
            let hard = limits.split(':').next_back().and_then(|hard| hard.parse().ok());
            settings::ulimit(ledger, service, node, name, hard);
        }
        "user" => settings::user(ledger, service, node, &plain),
        "workdir" => settings::workdir(ledger, service, node, &plain),
        "stop-signal" => settings::stop_signal(ledger, service, node, &plain),
        "stop-timeout" => settings::grace(ledger, service, node, &plain),
        "restart" => super::restart(ledger, service, node, &plain),
        "cap-add" => settings::cap_add(ledger, service, node, &plain),
        "cap-drop" => settings::cap_drop(ledger, node, &plain),
        "security-opt" => settings::security(ledger, service, node, &plain),
        "network" => settings::network(ledger, service, node, &plain),
        "read-only" => settings::read_only(ledger, node),
        "health-cmd" => {
            let words = shell::simple(&plain).unwrap_or_else(|| in_shell(&plain));
            service.ready.get_or_insert_with(|| Probe::new(Asked::Exec(Vec::new()))).asked = Asked::Exec(words);
            ledger.carried(node, "ready: what is run within the star");
        }
        "health-interval" | "health-timeout" | "health-retries" | "health-start-period" | "health-start-interval" => {
            health(ledger, service, node, flag, &plain);
        }
        "no-healthcheck" => ledger.carried(node, "a star is asked nothing but what `ready` says"),
        other => {
            let called = CALLED.iter().find(|(name, _)| *name == other).map(|(_, called)| *called);
            let key = called.map_or_else(|| other.replace('-', "_"), str::to_owned);
            if !settings::plain(ledger, &key, node) {
                ledger.left(node, format!("no flag of `docker run` that is known here is called `--{other}`"));
            }
        }
    }
}

fn in_shell(line: &str) -> Vec<Text> {
    vec!["sh".into(), "-c".into(), line.into()]
}

fn health(ledger: &mut Ledger, service: &mut Service, node: &Node, flag: &str, value: &str) {
    let probe = service.ready.get_or_insert_with(|| Probe::new(Asked::Exec(vec!["true".into()])));
    let ms = units::go_ms(value);
    match (flag, ms) {
        ("health-interval", Some(ms)) => probe.interval_ms = Some(ms),
        ("health-timeout", Some(ms)) => probe.timeout_ms = Some(ms),
        ("health-retries", _) if value.parse::<u64>().is_ok() => probe.failures = value.parse().ok(),
        ("health-start-period", Some(ms)) => {
            probe.start_ms = Some(ms.max(30_000));
            ledger.changed(node, "start_seconds: how long it may take to get ready before it is replaced");
            return;
        }
        _ => {
            ledger.left(node, "a probe has no such time");
            return;
        }
    }
    ledger.carried(node, "of `ready`");
}

fn quota(ledger: &mut Ledger, service: &mut Service, node: &Node, value: &str) {
    match value.trim().parse::<i64>() {
        // Microseconds of every 100,000, unless a period says otherwise, which is told with that.
        Ok(quota) if quota > 0 => {
            let _ = service.set_cpu(quota.unsigned_abs() / 100);
            let cores = service.cpu_milli.unwrap_or_default();
            ledger.changed(node, format!("cpu_cores: {}.{:03}, of a period of 100 ms", cores / 1000, cores % 1000));
        }
        Ok(_) => ledger.carried(node, "no limit"),
        Err(_) => ledger.left(node, format!("`{value}` is no number")),
    }
}

pub(crate) fn tmpfs(ledger: &mut Ledger, service: &mut Service, node: &Node, path: &str, size: Option<u64>) {
    match service.tmpfs(path, size.unwrap_or(mounts::TMPFS_DEFAULT)) {
        Ok(()) if size.is_some() => ledger.carried(node, format!("tmpfs at {path}")),
        Ok(()) => ledger.changed(node, format!("tmpfs at {path}, of 64 MiB: one without a size is not there")),
        Err(why) => ledger.left(node, format!("nothing at `{path}`: {why}")),
    }
}

/// `type=bind,source=…,target=…`.
fn mount(app: &mut App, ledger: &mut Ledger, service: &mut Service, node: &Node, value: &str) {
    let (text, said) = mounts::resolved(value);
    let (mut kind, mut mount) = ("volume".to_owned(), Mount::default());
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        match key.trim() {
            "type" => kind = value.to_owned(),
            "source" | "src" => mount.source = value.to_owned(),
            "target" | "dst" | "destination" => mount.target = value.to_owned(),
            "readonly" | "ro" => mount.read_only = value != "false" && value != "0",
            "tmpfs-size" => mount.size = units::docker_bytes(value),
            _ => {}
        }
    }
    match kind.as_str() {
        "tmpfs" => tmpfs(ledger, service, node, &mount.target, mount.size),
        "bind" if !mount.source.starts_with(['/', '.', '~']) => {
            mount.source = format!("./{}", mount.source);
            mounts::take(app, ledger, service, node, &mount, said);
        }
        "bind" | "volume" => mounts::take(app, ledger, service, node, &mount, said),
        other => ledger.left(node, format!("a mount of type `{other}`")),
    }
}

fn env_file(source: &Source<'_>, ledger: &mut Ledger, app: &mut App, service: &mut Service, node: &Node) {
    let path = mounts::resolved(node.scalar().unwrap_or_default()).0;
    match source.beside.read(&path) {
        Some(bytes) => {
            ledger.carried(node, format!("the variables of `{path}`, each told there"));
            env::set_file(app, ledger, service, &path, &bytes, false);
        }
        None => {
            ledger.left(node, format!("`{path}` cannot be read here").help("import again where it lies"));
        }
    }
}
