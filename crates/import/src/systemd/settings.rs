//! Lines of a service's unit, section by section.

use super::all;
use super::exec::{self, Specifiers};
use super::known::{NOT_CARRIED, SINGLE, WALLS};
use crate::draft::{App, Restart, Service};
use crate::ledger::{Ledger, WithHelp as _};
use crate::names::name_of;
use crate::report::Verdict;
use crate::text::Text;
use crate::tree::Node;
use crate::{Source, docker, env, shell, units};

/// How long a star may run, as `deploy` has it.
const DEADLINES_MS: std::ops::RangeInclusive<u64> = 100..=31_536_000_000;

pub(super) struct Context<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) specifiers: &'a Specifiers,
    pub(super) roots: &'a [Node],
}

impl Context<'_> {
    pub(super) fn setting(
        &mut self,
        ledger: &mut Ledger,
        app: &mut App,
        service: &mut Service,
        section: &str,
        key: &str,
        node: &Node,
    ) {
        let text = self.specifiers.expand(node.scalar().unwrap_or_default());
        if text.is_empty() {
            ledger.carried(node, "what was said before it does not hold");
            return;
        }
        if SINGLE.contains(&key) && all(self.roots, section, key).last().is_some_and(|last| last.id != node.id) {
            ledger.carried(node, "what comes after it holds in its place");
            return;
        }
        match (section, key) {
            // Told with the program.
            ("Service", "ExecStart" | "ExecStartPre" | "ExecStop" | "Type") => {}
            ("Unit", "Description") => ledger.carried(node, "a comment of the app"),
            ("Unit", "Documentation" | "SourcePath") => ledger.left(node, "an app has comments"),
            (
                "Unit",
                "DefaultDependencies"
                | "RefuseManualStart"
                | "RefuseManualStop"
                | "StopWhenUnneeded"
                | "IgnoreOnIsolate"
                | "AllowIsolate"
                | "CollectMode",
            ) => {
                ledger.left(node, "a service runs until `rads c stop`");
            }
            ("Unit", key) if key.starts_with("Condition") || key.starts_with("Assert") => {
                ledger.left(node, "a star that is ordered is started".help("`placement` says on which machines"));
            }
            ("Install", "WantedBy" | "RequiredBy" | "UpheldBy") => {
                ledger.carried(node, "an agent that starts with its machine starts its stars");
            }
            ("Install", "Alias") => ledger.left(node, "a service has one name"),
            ("Service", "Environment") => self.environment(ledger, app, service, node, &text),
            ("Service", "EnvironmentFile") => self.environment_file(ledger, app, service, node, &text),
            ("Service", "Restart") => restart(ledger, service, node, &text),
            // A run of what ends by itself has ended when it has started.
            ("Service", "TimeoutStartSec") if service.job.is_some() => {
                match units::systemd_ms(&text).filter(|ms| DEADLINES_MS.contains(ms)) {
                    Some(ms) => {
                        service.deadline_ms = Some(ms);
                        ledger.carried(node, "deadline_seconds");
                    }
                    None => ledger.carried(node, "no deadline"),
                }
            }
            ("Service", "MemoryMin" | "MemoryLow") => match units::systemd_bytes(&text).filter(|bytes| *bytes > 0) {
                Some(bytes) => {
                    service.set_reserve_ram(bytes);
                    ledger.changed(node, "reserve_ram_mb: kept for each star, on a machine that has so much to spare");
                }
                None => ledger.carried(node, "nothing is kept for it"),
            },
            ("Service", "TimeoutStopSec") => match units::systemd_ms(&text) {
                Some(ms) => {
                    service.set_grace(ms);
                    ledger.carried(node, "grace_seconds");
                }
                None => ledger.left(node, "a star that is to stop is killed after its grace"),
            },
            ("Service", "TimeoutSec") => match units::systemd_ms(&text) {
                Some(ms) => {
                    service.set_grace(ms);
                    ledger.changed(
                        node,
                        "grace_seconds: of the stop; how long a start may take is `start_seconds` of a probe",
                    );
                }
                None => ledger.left(node, "a star that is to stop is killed after its grace"),
            },
            ("Service", "RuntimeMaxSec") => match units::systemd_ms(&text).filter(|ms| DEADLINES_MS.contains(ms)) {
                Some(ms) => {
                    service.deadline_ms = Some(ms);
                    ledger.carried(node, "deadline_seconds");
                }
                None => ledger.carried(node, "no deadline"),
            },
            ("Service", "KillSignal") => match service.set_stop_signal(&text) {
                true => ledger.carried(node, "stop_signal"),
                false => ledger.left(node, format!("`{text}` is no signal that means \"stop\" to a star")),
            },
            ("Service", "User") => match text.as_str() {
                "root" | "0" => ledger.carried(node, "a star's root, which is nobody on the host"),
                _ if service.set_user(&text) => ledger.carried(node, "user, an id of the star's own"),
                _ => {
                    ledger.changed(node, format!("not as `{text}`, but as a star's root, which is nobody on the host"))
                }
            },
            ("Service", "WorkingDirectory") => self.workdir(ledger, service, node, &text),
            ("Service", "LimitNOFILE") => match limit(&text) {
                Some(count) => docker::bounded(ledger, node, "open_files", service.set_open_files(count)),
                None => ledger.changed(node, "as many open files as the machine gives"),
            },
            ("Service", "LimitNPROC" | "TasksMax") => match limit(&text) {
                Some(count) => docker::bounded(ledger, node, "pids", service.set_pids(count)),
                None => ledger.changed(node, "a star has 256 processes unless `pids` says otherwise"),
            },
            ("Service", "LimitCORE") => match text.as_str() {
                "0" => ledger.carried(node, "stars leave no core files"),
                _ => ledger.left(node, "stars leave no core files"),
            },
            ("Service", "MemoryMax" | "MemoryLimit") => match units::systemd_bytes(&text).filter(|bytes| *bytes > 0) {
                Some(bytes) => docker::bounded(ledger, node, "ram_mb", service.set_ram(bytes)),
                None => ledger.left(node, "a star has 256 MiB unless `ram_mb` says otherwise"),
            },
            ("Service", "MemoryHigh") => match units::systemd_bytes(&text).filter(|bytes| *bytes > 0) {
                Some(bytes) => {
                    let megabytes = service.set_soft_ram(bytes);
                    ledger.carried(node, format!("ram_soft_mb: {megabytes}"));
                }
                None => ledger.left(node, "a soft limit is `ram_soft_mb`"),
            },
            ("Service", "CPUQuota") => match text.trim_end_matches('%').trim().parse::<u64>() {
                Ok(percent) if percent > 0 => {
                    let _ = service.set_cpu(percent.saturating_mul(10));
                    ledger.carried(node, "cpu_cores");
                }
                _ => ledger.left(node, format!("`{text}` is no share")),
            },
            ("Service", "CPUAffinity" | "AllowedCPUs") => {
                let set: String = text.split_whitespace().collect::<Vec<_>>().join(",");
                match set.parse::<model::CpuSet>() {
                    Ok(set) => {
                        service.cpus = Some(set.to_string());
                        ledger.carried(node, "cpus");
                    }
                    Err(error) => ledger.left(node, error.to_string()),
                }
            }
            ("Service", "StateDirectory") => self.folders(ledger, app, service, node, "/var/lib", &text),
            ("Service", "CacheDirectory") => self.folders(ledger, app, service, node, "/var/cache", &text),
            ("Service", "LogsDirectory") => self.folders(ledger, app, service, node, "/var/log", &text),
            ("Service", "RuntimeDirectory") => {
                ledger.carried(node, "a star has a `/run` of its own, which it may write to");
            }
            (
                "Service",
                "StateDirectoryMode"
                | "CacheDirectoryMode"
                | "LogsDirectoryMode"
                | "RuntimeDirectoryMode"
                | "RuntimeDirectoryPreserve",
            ) => {
                ledger.carried(node, "a volume is its star's alone");
            }
            ("Service", "TemporaryFileSystem") => {
                for path in text.split_whitespace() {
                    let (path, options) = path.split_once(':').unwrap_or((path, ""));
                    let size =
                        options.split(',').find_map(|option| units::systemd_bytes(option.strip_prefix("size=")?));
                    match service.tmpfs(path, size.unwrap_or(docker::mounts::TMPFS_DEFAULT)) {
                        Ok(()) => ledger.changed(node, format!("tmpfs at {path}")),
                        Err(why) => ledger.left(node, format!("nothing at `{path}`: {why}")),
                    }
                }
            }
            ("Service", "PrivateNetwork") if node.is_true() => {
                service.network = Some("none");
                ledger.carried(node, "network: \"none\"");
            }
            ("Service", "PrivateNetwork") => ledger.carried(node, "network: \"host\""),
            ("Service", key) if WALLS.contains(&key) => match node.boolean() {
                Some(false) => ledger.left(node, "every star has this wall"),
                _ => ledger.carried(node, "every star has this wall"),
            },
            _ if section.starts_with("X-") || key.starts_with("X-") => {
                ledger.left(node, "a note for others than systemd");
            }
            _ => {
                let known = NOT_CARRIED.iter().find(|(of, name, _)| *of == section && *name == key);
                if let Some((.., why)) = known {
                    ledger.left(node, *why);
                }
            }
        }
    }

    fn environment(&self, ledger: &mut Ledger, app: &mut App, service: &mut Service, node: &Node, text: &str) {
        // Several may be on one line; what each became is told together.
        let pairs = exec::split(text);
        for pair in &pairs {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match ledger.is_open(node) {
                true => env::set(app, ledger, service, node, name, value.into()),
                false if env::is_secret(name, value) => {
                    let secret = app.secret(name, value, &service.name);
                    let _ = service.secret_variable(name, secret.clone());
                    ledger.note(
                        Verdict::Changed,
                        node,
                        format!("variable `{name}` is secret `{secret}`").help(ledger.how_to_set(&secret)),
                    );
                }
                false => match service.variable(name, value.into()) {
                    Ok(()) => ledger.note(Verdict::Carried, node, format!("variable `{name}`")),
                    Err(why) => ledger.note(Verdict::NotCarried, node, format!("variable `{name}`: {why}")),
                },
            }
        }
    }

    fn environment_file(&self, ledger: &mut Ledger, app: &mut App, service: &mut Service, node: &Node, text: &str) {
        let path = text.trim_start_matches('-');
        match self.source.beside.read(path) {
            Some(bytes) => {
                ledger.carried(node, format!("the variables of `{path}`, each told there"));
                env::set_file(app, ledger, service, path, &bytes, false);
            }
            None => {
                ledger.left(
                    node,
                    format!("`{path}` cannot be read here")
                        .help("import again where it lies, or name its variables in `env`"),
                );
            }
        }
    }

    fn workdir(&self, ledger: &mut Ledger, service: &mut Service, node: &Node, text: &str) {
        let path = text.trim_start_matches('-');
        let inside = service.volumes.keys().any(|volume| path == volume || path.starts_with(&format!("{volume}/")));
        let seen =
            inside || path == "/" || path.starts_with("/usr") || path.starts_with("/tmp") || path.starts_with("/run");
        match seen && service.set_workdir(path).is_ok() {
            true => ledger.carried(node, "workdir"),
            false => {
                ledger.changed(
                    node,
                    format!("a star begins in `/app`, the app's folder, and does not see the host's `{path}`")
                        .help("put what it needs of it beside the app, in `assets`"),
                );
            }
        }
    }

    fn folders(&self, ledger: &mut Ledger, app: &mut App, service: &mut Service, node: &Node, below: &str, text: &str) {
        let mut told = Vec::new();
        for folder in text.split_whitespace() {
            let folder = folder.split(':').next().unwrap_or(folder);
            let path = format!("{below}/{folder}");
            let volume = app.volume(&name_of(&path, "data"));
            match service.volume(&path, volume.clone(), None) {
                Ok(()) => told.push(format!("volume `{volume}` at {path}")),
                Err(why) => told.push(format!("nothing at `{path}`: {why}")),
            }
        }
        let first = text.split_whitespace().next().unwrap_or_default();
        let first = format!("{below}/{}", first.split(':').next().unwrap_or(first));
        ledger.changed(
            node,
            told.join(", ")
                .help(format!("it is empty at first: `tar -C {first} -c . | rads c cp - {}-1:{first}`", service.name)),
        );
    }

    /// What is started, before it and at its end; called when the variables are known.
    pub(super) fn program(&mut self, ledger: &mut Ledger, service: &mut Service) {
        let kind = all(self.roots, "Service", "Type").last().copied();
        let oneshot = kind.and_then(Node::scalar) == Some("oneshot");
        for node in self
            .roots
            .iter()
            .flat_map(Node::entries)
            .filter(|(section, _)| section == "Service")
            .flat_map(|(_, lines)| lines.entries())
            .filter(|(key, _)| key == "Type")
            .map(|(_, node)| node)
        {
            if !ledger.is_open(node) {
                continue;
            }
            match node.scalar().unwrap_or_default() {
                "simple" | "exec" | "idle" => ledger.carried(node, "a star is there when its program runs"),
                "oneshot" if service.job.is_some() => ledger.carried(node, "a run of the job ends with its program"),
                "oneshot" => ledger.carried(node, "restart: \"never\""),
                "notify" | "notify-reload" | "dbus" => {
                    ledger.changed(
                        node,
                        "a star is ready when it runs: what its program tells systemd is not heard"
                            .help("ask it by `ready`: {http: …}, {tcp: true} or {exec: […]}"),
                    );
                }
                "forking" => {
                    ledger.changed(
                        node,
                        "a star's program stays in the foreground"
                            .help("take the option away that puts it into the background"),
                    );
                }
                other => ledger.left(node, format!("no type is called `{other}`")),
            }
        }
        let starts = self.lines(ledger, service, "ExecStart");
        service.command = match &starts[..] {
            [one] => one.0.clone(),
            several => joined(several),
        };
        for (words, node) in &starts {
            let program = words.first().map(Text::by_default).unwrap_or_default();
            match crate::host::is_seen(&program) {
                true if starts.len() == 1 => ledger.carried(node, "command"),
                true => ledger.carried(node, "of the lines that `command` runs one after another"),
                false => {
                    ledger.changed(
                        node,
                        format!("command; a star does not see the host's `{program}`")
                            .help("put the program beside the app and name it as ./program"),
                    );
                }
            }
        }
        for (key, option) in [("ExecStartPre", "before_start"), ("ExecStop", "before_stop")] {
            let lines = self.lines(ledger, service, key);
            let words = match &lines[..] {
                [] => continue,
                [one] => one.0.clone(),
                several => joined(several),
            };
            for (words, node) in &lines {
                let program = words.first().map(Text::by_default).unwrap_or_default();
                match crate::host::is_seen(&program) {
                    true => ledger.carried(node, option),
                    false => ledger.changed(
                        node,
                        format!("{option}; a star does not see the host's `{program}`")
                            .help("put the program beside the app and name it as ./program"),
                    ),
                }
            }
            match option {
                "before_start" => service.before_start = words,
                _ => service.before_stop = words,
            }
        }
        if oneshot && service.restart == Some(Restart::Always) {
            service.restart = Some(Restart::OnFailure);
        }
    }

    /// The lines of a key that hold, word by word.
    fn lines(&self, ledger: &mut Ledger, service: &Service, key: &str) -> Vec<(Vec<Text>, Node)> {
        let held = all(self.roots, "Service", key);
        for node in self
            .roots
            .iter()
            .flat_map(Node::entries)
            .flat_map(|(_, lines)| lines.entries())
            .filter(|(name, _)| name == key)
            .map(|(_, node)| node)
        {
            if !held.iter().any(|one| one.id == node.id) && ledger.is_open(node) {
                ledger.carried(node, "what comes after it holds in its place");
            }
        }
        let mut lines = Vec::new();
        for node in held {
            let (words, signs) = exec::words(&self.specifiers.expand(node.scalar().unwrap_or_default()));
            let value = |name: &str| service.env.get(name).cloned();
            let (words, unknown) = exec::with_variables(words, &value);
            if words.is_empty() {
                ledger.left(node, "it names no program");
                continue;
            }
            if !unknown.is_empty() {
                let names: Vec<String> = unknown.iter().map(|name| format!("`{name}`")).collect();
                let text = format!("what {} holds is not known here and was left out of `{key}`", names.join(", "));
                ledger.note(Verdict::NotCarried, node, text.help("put its value into the command"));
            }
            if signs.contains(['+', '!']) {
                ledger.note(
                    Verdict::NotCarried,
                    node,
                    "programs and hooks run as the star's user, with no more rights",
                );
            }
            // A failure that does not count ends with 0.
            let words = match signs.contains('-') && key != "ExecStart" {
                true => vec!["sh".into(), "-c".into(), Text::from(format!("{} || true", in_shell(&words)))],
                false => words,
            };
            lines.push((words, node.clone()));
        }
        lines
    }
}

fn in_shell(words: &[Text]) -> String {
    words.iter().map(|word| shell::quoted(&word.by_default())).collect::<Vec<_>>().join(" ")
}

/// Commands one after another, each if the one before went well.
fn joined(lines: &[(Vec<Text>, Node)]) -> Vec<Text> {
    let all: Vec<String> = lines.iter().map(|(words, _)| in_shell(words)).collect();
    vec!["sh".into(), "-c".into(), Text::from(all.join(" && "))]
}

fn restart(ledger: &mut Ledger, service: &mut Service, node: &Node, text: &str) {
    let (restart, said) = match text {
        "always" | "on-success" => (Restart::Always, "restart: \"always\""),
        "on-failure" | "on-abnormal" | "on-abort" | "on-watchdog" => (Restart::OnFailure, "restart: \"on_failure\""),
        "no" => (Restart::Never, "restart: \"never\""),
        other => {
            ledger.left(node, format!("no such way to restart is known: `{other}`"));
            return;
        }
    };
    service.restart = Some(restart);
    if let Some(job) = &mut service.job {
        job.retries = if restart == Restart::Never { Some(0) } else { None };
        match restart {
            Restart::Never => ledger.carried(node, "retries: 0"),
            _ => ledger.changed(node, "a run is tried again three times"),
        }
        return;
    }
    match text {
        "always" | "on-failure" | "no" => ledger.carried(node, said),
        _ => ledger.changed(node, format!("{said}: a star knows exit code 0 from others")),
    }
}

/// The hard one of `SOFT:HARD`; nothing for `infinity`.
fn limit(text: &str) -> Option<u64> {
    text.rsplit(':').next()?.trim().parse().ok()
}
