//! An app as text in RADS.

use model::{Missed, Overlap, UpdateStrategy};

use crate::LeftJob;
use crate::draft::{App, Asked, Job, Listen, Probe, Restart, Service};
use crate::text::{Piece, Text};

/// Longest line of a list that is written on one.
const WIDTH: usize = 100;

pub(crate) fn app(app: &App) -> String {
    let from: Vec<String> = app.from.iter().map(|name| format!("`{name}`")).collect();
    let from = match from.len() {
        0..=4 => from.join(", "),
        more => format!("{} and {} more files", from[..3].join(", "), more - 3),
    };
    let mut text = format!("// From {} by `rads import {}`.\n", commented(&from), app.format.as_str());
    if !app.services.is_empty() {
        text.push_str("import constellation;\n");
    }
    for service in &app.services {
        text.push('\n');
        service.comments.iter().for_each(|line| text.push_str(&format!("// {}\n", commented(line))));
        text.push_str(&deployed(service));
    }
    if !app.left.is_empty() {
        text.push_str("\n// Not carried: what no schedule says when to run.\n");
        app.left.iter().for_each(|one| text.push_str(&format!("// {}\n", commented(&left(one)))));
    }
    text
}

fn left(job: &LeftJob) -> String {
    let words: Vec<String> = job.command.iter().map(|word| crate::shell::quoted(word)).collect();
    format!("{}, {}: {}", job.name, job.when, words.join(" "))
}

/// Text that ends no comment.
fn commented(text: &str) -> String {
    crate::ledger::one_line(text)
}

fn deployed(service: &Service) -> String {
    let mut options: Vec<(&str, String)> = Vec::new();
    let mut say = |name: &'static str, value: Option<String>| options.extend(value.map(|value| (name, value)));
    let text = |text: &String| string(text);
    say("namespace", service.namespace.as_ref().map(text));
    say("rootfs", service.rootfs.as_ref().map(text));
    say("command", Some(list(service.command.iter().map(written).collect(), 4)));
    say("instances", service.instances.map(|count| count.to_string()));
    say("singleton", service.singleton.then(|| "true".to_owned()));
    say("job", service.job.as_ref().map(job));
    say("placement", placement(service));
    say("update", update(&service.update));
    say("cpu_cores", service.cpu_milli.map(|milli| decimal(milli.into(), 1000)));
    let ram = service.ram.map(|bytes| bytes >> 20);
    let gigabytes = ram.filter(|megabytes| *megabytes >= 1024 && megabytes % 1024 == 0);
    say("ram_gb", gigabytes.map(|megabytes| (megabytes / 1024).to_string()));
    say("ram_mb", ram.filter(|_| gigabytes.is_none()).map(|megabytes| megabytes.to_string()));
    say("reserve_cpu_percent", service.reserve_cpu.filter(|milli| *milli > 0).map(|milli| decimal(milli.into(), 10)));
    let kept = service.reserve_ram.filter(|bytes| *bytes > 0);
    say("reserve_ram_mb", kept.map(|bytes| (bytes >> 20).to_string()));
    say("ram_soft_mb", service.ram_soft.map(|bytes| (bytes >> 20).to_string()));
    say("pids", service.pids.map(|count| count.to_string()));
    say("open_files", service.open_files.map(|count| count.to_string()));
    say("cpus", service.cpus.as_ref().map(text));
    say("port", service.port.map(|port| port.to_string()));
    say("listen", service.listen.as_ref().filter(|_| service.port.is_some()).map(address));
    say("protocol", service.port.filter(|_| !service.http).map(|_| string("tcp")));
    say("startup", service.startup.as_ref().map(probe));
    say("ready", service.ready.as_ref().map(probe));
    say("live", service.live.as_ref().map(probe));
    say("env", object(service.env.iter().map(|(name, value)| (name, written(value)))));
    say("env_secrets", object(service.env_secrets.iter().map(|(name, secret)| (name, string(secret)))));
    say("secrets", object(service.secrets.iter().map(|(path, secret)| (path, string(secret)))));
    let volume = |(name, size): &(String, Option<u64>)| match size {
        Some(bytes) => format!("{{name: {}, size_mb: {}}}", string(name), bytes >> 20),
        None => string(name),
    };
    say("volumes", object(service.volumes.iter().map(|(path, one)| (path, volume(one)))));
    let tmpfs = |bytes: u64| format!("{{size_mb: {}}}", decimal((bytes * 1000).div_ceil(1 << 20), 1000));
    say("tmpfs", object(service.tmpfs.iter().map(|(path, size)| (path, tmpfs(*size)))));
    say("binds", object(service.binds.iter().map(|(path, source)| (path, string(source)))));
    say("workdir", service.workdir.as_ref().map(text));
    say("user", service.user.as_ref().map(text));
    say("weaken", weakened(service));
    say("network", service.network.map(string));
    let restart = |restart| match restart {
        Restart::Always => "always",
        Restart::OnFailure => "on_failure",
        Restart::Never => "never",
    };
    say("restart", service.restart.map(|one| string(restart(one))));
    say("grace_seconds", service.grace_ms.map(|ms| decimal(ms, 1000)));
    say("stop_signal", service.stop_signal.map(string));
    say("deadline_seconds", service.deadline_ms.map(|ms| decimal(ms, 1000)));
    let hook = |words: &[Text]| (!words.is_empty()).then(|| list(words.iter().map(written).collect(), 4));
    say("before_start", hook(&service.before_start));
    say("before_stop", hook(&service.before_stop));
    let options: String = options.iter().map(|(name, value)| format!("    {name}: {value},\n")).collect();
    format!("constellation.deploy({}, {{\n{options}}});\n", string(&service.name))
}

fn address(listen: &Listen) -> String {
    match listen.ip == Listen::HERE {
        true => listen.port.to_string(),
        false => string(&listen.shown()),
    }
}

fn probe(probe: &Probe) -> String {
    let mut fields = vec![match &probe.asked {
        Asked::Http(path) => format!("http: {}", string(path)),
        Asked::Tcp => "tcp: true".to_owned(),
        Asked::Exec(words) => format!("exec: [{}]", words.iter().map(written).collect::<Vec<_>>().join(", ")),
    }];
    let mut say = |name: &str, value: Option<String>| fields.extend(value.map(|value| format!("{name}: {value}")));
    say("interval_ms", probe.interval_ms.map(|ms| ms.to_string()));
    say("timeout_ms", probe.timeout_ms.map(|ms| ms.to_string()));
    say("start_seconds", probe.start_ms.map(|ms| decimal(ms, 1000)));
    say("failures", probe.failures.map(|count| count.to_string()));
    format!("{{{}}}", fields.join(", "))
}

fn job(job: &Job) -> String {
    let mut fields = Vec::new();
    let mut say = |name: &str, value: Option<String>| fields.extend(value.map(|value| format!("{name}: {value}")));
    if let Some(schedule) = &job.schedule {
        say("schedule", Some(string(schedule.cron())));
        say("zone", schedule.zone().map(string));
        let overlap = match schedule.overlap {
            Overlap::Skip => None,
            Overlap::Queue => Some("queue"),
            Overlap::Replace => Some("replace"),
        };
        say("overlap", overlap.map(string));
        say("missed", (schedule.missed == Missed::Skip).then(|| string("skip")));
    }
    let number = |count: Option<u32>| count.map(|count| count.to_string());
    say("completions", number(job.completions.filter(|count| *count > 1)));
    say("parallelism", number(job.parallelism));
    say("retries", number(job.retries));
    let after: Vec<String> = job.after.iter().map(|name| string(name)).collect();
    say("after", (!after.is_empty()).then(|| format!("[{}]", after.join(", "))));
    say("keep", number(job.keep));
    format!("{{{}}}", fields.join(", "))
}

fn update(update: &model::Update) -> Option<String> {
    let usual = model::Update::default();
    let mut fields = Vec::new();
    let mut say = |name: &str, value: Option<String>| fields.extend(value.map(|value| format!("{name}: {value}")));
    let amount = |amount: model::Amount| match amount {
        model::Amount::Stars(stars) => stars.to_string(),
        model::Amount::Percent(_) => string(&amount.to_string()),
    };
    match update.strategy {
        UpdateStrategy::Rolling => {}
        UpdateStrategy::Canary { stars } => say("canary", Some(amount(stars))),
        UpdateStrategy::BlueGreen => say("strategy", Some(string("blue_green"))),
    }
    say("max_surge", (update.max_surge != usual.max_surge).then(|| amount(update.max_surge)));
    let missing = update.max_unavailable != usual.max_unavailable;
    say("max_unavailable", missing.then(|| amount(update.max_unavailable)));
    say("healthy_seconds", (update.healthy_ms > 0).then(|| decimal(update.healthy_ms.into(), 1000)));
    say("promote_after_seconds", update.promote_after_ms.map(|ms| decimal(ms, 1000)));
    say("errors_percent", update.errors_percent.map(|percent| percent.to_string()));
    say("deadline_seconds", (update.deadline_ms != usual.deadline_ms).then(|| decimal(update.deadline_ms, 1000)));
    say("on_failure", (update.on_failure == model::OnFailure::Hold).then(|| string("hold")));
    (!fields.is_empty()).then(|| format!("{{{}}}", fields.join(", ")))
}

fn placement(service: &Service) -> Option<String> {
    let placement = &service.placement;
    let mut fields = Vec::new();
    let listed = |items: Vec<String>| format!("[{}]", items.join(", "));
    if placement.strategy != model::Strategy::default() {
        fields.push(format!("strategy: {}", string(placement.strategy.as_str())));
    }
    if !placement.require.is_empty() {
        let conditions = placement.require.iter().map(|condition| string(&condition.to_string()));
        fields.push(format!("require: {}", listed(conditions.collect())));
    }
    if !placement.prefer.is_empty() {
        let wishes = placement.prefer.iter();
        let wishes =
            wishes.map(|wish| format!("{{that: {}, weight: {}}}", string(&wish.that.to_string()), wish.weight));
        fields.push(format!("prefer: {}", listed(wishes.collect())));
    }
    if !placement.spread.is_empty() {
        let over = placement.spread.iter().map(|attribute| string(&attribute.to_string()));
        fields.push(format!("spread: {}", listed(over.collect())));
    }
    fields.extend(placement.max_skew.map(|most| format!("max_skew: {most}")));
    if placement.every_node {
        fields.push("every_node: true".to_owned());
    }
    fields.extend(placement.per_node.map(|most| format!("per_node: {most}")));
    if !placement.tolerate.is_empty() {
        let tolerated = placement.tolerate.iter().map(|toleration| string(&toleration.to_string()));
        fields.push(format!("tolerate: [{}]", tolerated.collect::<Vec<_>>().join(", ")));
    }
    (!fields.is_empty()).then(|| format!("{{{}}}", fields.join(", ")))
}

fn weakened(service: &Service) -> Option<String> {
    let mut fields = Vec::new();
    if service.no_seccomp {
        fields.push("seccomp: \"off\"".to_owned());
    }
    if !service.capabilities.is_empty() {
        let names: Vec<String> = service.capabilities.iter().map(|name| string(name)).collect();
        fields.push(format!("capabilities: [{}]", names.join(", ")));
    }
    (!fields.is_empty()).then(|| format!("{{{}}}", fields.join(", ")))
}

/// An object with a line for each of its entries when there are several.
fn object<'a>(entries: impl Iterator<Item = (&'a String, String)>) -> Option<String> {
    let entries: Vec<String> = entries.map(|(key, value)| format!("{}: {value}", name(key))).collect();
    match &entries[..] {
        [] => None,
        [one] if one.len() < WIDTH => Some(format!("{{{one}}}")),
        _ => Some(format!("{{\n{}    }}", entries.iter().map(|one| format!("        {one},\n")).collect::<String>())),
    }
}

fn list(items: Vec<String>, indent: usize) -> String {
    let flat = format!("[{}]", items.join(", "));
    if flat.len() <= WIDTH {
        return flat;
    }
    let (inner, outer) = (" ".repeat(indent + 4), " ".repeat(indent));
    format!("[\n{}{outer}]", items.iter().map(|item| format!("{inner}{item},\n")).collect::<String>())
}

/// A key as it may be written, quoted where it has to be.
fn name(key: &str) -> String {
    let plain = key.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && key.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    if plain { key.to_owned() } else { string(key) }
}

fn decimal(value: u64, per_one: u64) -> String {
    let (whole, rest) = (value / per_one, value % per_one);
    if rest == 0 {
        return whole.to_string();
    }
    let digits = format!("{:03}", rest * 1000 / per_one);
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

/// A string literal.
fn string(text: &str) -> String {
    let mut literal = String::from("\"");
    text.chars().for_each(|c| escaped(c, '"', &mut literal));
    literal.push('"');
    literal
}

fn escaped(c: char, quote: char, to: &mut String) {
    match c {
        '\\' => to.push_str("\\\\"),
        '\n' => to.push_str("\\n"),
        '\t' => to.push_str("\\t"),
        '\r' => to.push_str("\\r"),
        '\0' => to.push_str("\\0"),
        c if c == quote => to.extend(['\\', c]),
        c if c.is_control() => to.push_str(&format!("\\u{{{:x}}}", c as u32)),
        c => to.push(c),
    }
}

/// A text, with what the environment has a part in as an expression.
fn written(text: &Text) -> String {
    let from_environment = |name: &str, otherwise: &str| format!("env.get({}, {})", string(name), string(otherwise));
    match &text.0[..] {
        [Piece::Env { name, otherwise }] => from_environment(name, otherwise),
        _ if text.fixed().is_some() => string(text.fixed().unwrap_or_default()),
        pieces => {
            let mut template = String::from("`");
            for piece in pieces {
                match piece {
                    // A `$` that starts no `${ }` is itself; one before a `{` is not.
                    Piece::Fixed(text) => text.chars().for_each(|c| match c {
                        '$' => template.push_str("\\u{24}"),
                        c => escaped(c, '`', &mut template),
                    }),
                    Piece::Env { name, otherwise } => {
                        template.push_str(&format!("${{{}}}", from_environment(name, otherwise)));
                    }
                }
            }
            template.push('`');
            template
        }
    }
}
