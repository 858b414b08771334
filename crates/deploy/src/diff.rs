//! What applying a spec would change, for people to read before they agree.

use std::fmt;

use model::limits::limit_fields;
use model::{
    AppKey, AppSpec, Entry, Hold, Interior, Job, Missed, Name, Network, OnFailure, OnSecret, Overlap, Placement,
    Preference, Probe, ProbeKind, Program, Reserve, RestartPolicy, Schedule, ServiceSpec, Strategy, Update,
    UpdateStrategy, VolumeMount, WallTime,
};

/// The difference between what runs and what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    pub app: AppKey,
    /// In the order of their names; unchanged services are left out.
    pub services: Vec<(Name, ServiceChange)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceChange {
    /// With what it will be, in short.
    Create {
        stars: Stars,
        summary: Vec<String>,
    },
    /// The stars stay.
    Update {
        changes: Vec<Change>,
    },
    /// The stars are replaced.
    Replace {
        stars: Stars,
        how: Replacement,
        changes: Vec<Change>,
    },
    Remove {
        stars: Stars,
    },
}

/// How stars are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replacement {
    By(UpdateStrategy),
    /// Of a job: what runs of it ends.
    Anew,
}

impl Replacement {
    fn of(spec: &ServiceSpec) -> Self {
        if spec.job.is_some() { Self::Anew } else { Self::By(spec.update.strategy) }
    }
}

impl fmt::Display for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(UpdateStrategy::Rolling) => f.write_str("replaced one after another"),
            Self::By(UpdateStrategy::Canary { stars }) => write!(f, "replaced, once {stars} of them did well on trial"),
            Self::By(UpdateStrategy::BlueGreen) => f.write_str("replaced at once, when all of the new ones are ready"),
            Self::Anew => f.write_str("replaced; what runs of them ends"),
        }
    }
}

/// What a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stars {
    Number(u32),
    OneOnEachNode,
    /// Of a reservation.
    Places(u32),
}

impl Stars {
    fn of(spec: &ServiceSpec) -> Self {
        match (&spec.hold, spec.placement.every_node) {
            (Some(_), _) => Self::Places(spec.instances),
            (None, true) => Self::OneOnEachNode,
            (None, false) => Self::Number(spec.instances),
        }
    }

    /// Nothing where that is the number of nodes.
    pub fn number(self) -> Option<u32> {
        match self {
            Self::Number(number) | Self::Places(number) => Some(number),
            Self::OneOnEachNode => None,
        }
    }
}

impl fmt::Display for Stars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneOnEachNode => f.write_str("1 star on each node"),
            Self::Number(1) => f.write_str("1 star"),
            Self::Number(number) => write!(f, "{number} stars"),
            Self::Places(1) => f.write_str("1 place"),
            Self::Places(number) => write!(f, "{number} places"),
        }
    }
}

/// One field, as it is and as it will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub field: String,
    pub old: String,
    pub new: String,
}

impl Diff {
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// `3 stars to start, 1 service to remove`: the whole in one line.
    pub fn summary(&self) -> String {
        let mut parts = Vec::new();
        let changes = || self.services.iter().map(|(_, change)| change);
        let counted = |what: &str, of_places: &str, pick: fn(&ServiceChange) -> Option<Stars>| {
            let of = || changes().filter_map(pick);
            let number = |number: fn(Stars) -> Option<u32>| of().filter_map(number).sum::<u32>();
            let stars = number(|stars| if let Stars::Number(number) = stars { Some(number) } else { None });
            let places = number(|stars| if let Stars::Places(number) = stars { Some(number) } else { None });
            let each = of().filter(|stars| *stars == Stars::OneOnEachNode).count();
            let stars = (stars > 0).then(|| format!("{} {what}", Stars::Number(stars)));
            let places = (places > 0).then(|| format!("{} {of_places}", Stars::Places(places)));
            let each =
                (each > 0).then(|| format!("{each} {} on each node {what}", if each == 1 { "star" } else { "stars" }));
            stars.into_iter().chain(each).chain(places)
        };
        parts.extend(counted("to start", "to hold", |change| match change {
            ServiceChange::Create { stars, .. } => Some(*stars),
            _ => None,
        }));
        parts.extend(counted("to replace", "to replace", |change| match change {
            ServiceChange::Replace { stars, .. } => Some(*stars),
            _ => None,
        }));
        match changes().filter(|change| matches!(change, ServiceChange::Update { .. })).count() {
            0 => {}
            1 => parts.push("1 service to update in place".to_owned()),
            updated => parts.push(format!("{updated} services to update in place")),
        }
        parts.extend(counted("to stop", "to give back", |change| match change {
            ServiceChange::Remove { stars } => Some(*stars),
            _ => None,
        }));
        if parts.is_empty() && !self.is_empty() {
            parts.push("services change, no star does".to_owned());
        }
        if parts.is_empty() { "nothing to change".to_owned() } else { parts.join(", ") }
    }
}

/// Compares two versions of a service; nothing when they are the same.
pub fn service_diff(old: &ServiceSpec, new: &ServiceSpec) -> Option<ServiceChange> {
    changed(old, new)
}

/// Compares what runs with what is wanted.
pub fn diff(current: Option<&AppSpec>, wanted: &AppSpec) -> Diff {
    let mut services = Vec::new();
    let before = |name: &Name| current.and_then(|app| app.services.get(name));
    for (name, new) in &wanted.services {
        let change = match before(name) {
            None => Some(ServiceChange::Create { stars: Stars::of(new), summary: summary(new) }),
            Some(old) => changed(old, new),
        };
        services.extend(change.map(|change| (name.clone(), change)));
    }
    let removed =
        current.into_iter().flat_map(|app| &app.services).filter(|(name, _)| !wanted.services.contains_key(*name));
    services.extend(removed.map(|(name, old)| (name.clone(), ServiceChange::Remove { stars: Stars::of(old) })));
    services.sort_by(|(a, _), (b, _)| a.cmp(b));
    Diff { app: wanted.app.clone(), services }
}

fn changed(old: &ServiceSpec, new: &ServiceSpec) -> Option<ServiceChange> {
    let pairs = |before: Vec<(String, String)>, after: Vec<(String, String)>| -> Vec<Change> {
        let mut names: Vec<&String> = before.iter().chain(&after).map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        let value = |fields: &[(String, String)], name: &str| {
            fields.iter().find(|(field, _)| field == name).map_or("(none)".to_owned(), |(_, value)| value.clone())
        };
        let change =
            |name: &String| Change { field: name.clone(), old: value(&before, name), new: value(&after, name) };
        names.into_iter().map(change).filter(|change| change.old != change.new).collect()
    };
    let mut changes = pairs(service_fields(old), service_fields(new));
    // A job that is another ends what runs of it.
    let is_other_job = new.job.is_some() && !changes.is_empty();
    if old.template == new.template && !is_other_job {
        if changes.is_empty() && old != new {
            // Nothing that is asked for is lost because nobody thought of a word for it.
            changes.push(Change {
                field: "more".to_owned(),
                old: "as before".to_owned(),
                new: "as described".to_owned(),
            });
        }
        return (!changes.is_empty()).then_some(ServiceChange::Update { changes });
    }
    changes.extend(pairs(template_fields(old), template_fields(new)));
    if old.template.can_become(&new.template) && !is_other_job {
        return Some(ServiceChange::Update { changes });
    }
    let stars = match (Stars::of(old), Stars::of(new)) {
        (Stars::Number(old), Stars::Number(new)) => Stars::Number(old.min(new)),
        (Stars::Places(old), Stars::Places(new)) => Stars::Places(old.min(new)),
        (Stars::OneOnEachNode, _) | (_, Stars::OneOnEachNode) => Stars::OneOnEachNode,
        (old, _) => old,
    };
    Some(ServiceChange::Replace { stars, how: Replacement::of(new), changes })
}

fn summary(spec: &ServiceSpec) -> Vec<String> {
    let of_what_runs = ["cpu", "memory", "network"];
    let runs = |(name, _): &(String, String)| spec.hold.is_none() || !of_what_runs.contains(&name.as_str());
    let template = template_fields(spec).into_iter().filter(runs);
    let worth_telling = |(name, _): &(String, String)| {
        let told = [
            "program",
            "cpu",
            "cpu borrowed",
            "memory",
            "soft memory",
            "kept cpu",
            "kept memory",
            "processors",
            "disk",
            "disk reads",
            "disk writes",
            "network",
            "rootfs",
            "checkpoint",
            "singleton",
            "user",
            "workdir",
            "weaker walls",
            "access",
        ];
        let kinds = ["volume ", "tmpfs ", "bind ", "secret "];
        told.contains(&name.as_str()) || kinds.iter().any(|kind| name.starts_with(kind))
    };
    let mut lines: Vec<String> =
        template.filter(worth_telling).map(|(name, value)| format!("{name}: {value}")).collect();
    lines.extend(spec.entry.as_ref().map(|entry| format!("entry: {}", entry_text(entry))));
    let said = placement_fields(&spec.placement).into_iter().chain(update_fields(&spec.update));
    let said = said.chain(spec.job.iter().flat_map(job_fields)).chain(spec.hold.iter().flat_map(hold_fields));
    lines.extend(said.map(|(name, value)| format!("{name}: {value}")));
    lines
}

/// What can change while the stars stay.
fn service_fields(spec: &ServiceSpec) -> Vec<(String, String)> {
    let mut fields = vec![("instances".to_owned(), spec.instances.to_string())];
    fields.extend(spec.entry.as_ref().map(|entry| ("entry".to_owned(), entry_text(entry))));
    fields.extend(placement_fields(&spec.placement));
    fields.extend(update_fields(&spec.update));
    fields.extend(spec.job.iter().flat_map(job_fields));
    fields.extend(spec.hold.iter().flat_map(hold_fields));
    fields
}

/// What a job is, each part by its name.
fn job_fields(job: &Job) -> Vec<(String, String)> {
    let Job { parallelism, retries, inputs, schedule, after, keep, keep_ms } = job;
    let days = |ms: u64| (ms as f64 / 864_000.0).round() / 100.0;
    let age = keep_ms.map(|ms| format!(", none for longer than {} days", days(ms))).unwrap_or_default();
    let due = schedule.as_ref().map(|schedule| format!("{} ({})", schedule.cron, schedule.zone));
    let after: Vec<String> = after.iter().map(ToString::to_string).collect();
    let fields = [
        ("job", Some(format!("{parallelism} at a time, each tried {} times", u64::from(*retries) + 1))),
        ("inputs", (!inputs.is_empty()).then(|| inputs.join(", "))),
        ("runs", due),
        ("while one runs", schedule.as_ref().and_then(overlap)),
        ("missed runs", schedule.as_ref().filter(|due| due.missed == Missed::Skip).map(|_| "are left out".to_owned())),
        ("keeps", Some(format!("{keep} runs{age}"))),
        ("runs after", (!after.is_empty()).then(|| after.join(", "))),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// What becomes of a run that is due while another is under way, where that is not the usual.
fn overlap(schedule: &Schedule) -> Option<String> {
    match schedule.overlap {
        Overlap::Skip => None,
        Overlap::Queue => Some("the next waits".to_owned()),
        Overlap::Replace => Some("that one is ended".to_owned()),
    }
}

/// When places are held.
fn hold_fields(hold: &Hold) -> Vec<(String, String)> {
    let Hold { from, until } = hold;
    let fields = [("held from", from), ("held until", until)];
    let told = |(name, at): (&str, &Option<WallTime>)| {
        Some((name.to_owned(), at.map(|at| format!("{} UTC", calendar::moment_text(at)))?))
    };
    fields.into_iter().filter_map(told).collect()
}

/// What is said of roll-outs beyond the usual, each part by its name.
pub fn update_fields(update: &Update) -> Vec<(String, String)> {
    let usual = Update::default();
    let Update {
        strategy,
        max_surge,
        max_unavailable,
        healthy_ms,
        deadline_ms,
        promote_after_ms,
        errors_percent,
        on_failure,
        on_secret,
    } = update;
    let seconds = |ms: u64| format!("{} s", ms as f64 / 1_000.0);
    let fields = [
        ("roll-out", (*strategy != usual.strategy).then(|| strategy.to_string())),
        ("surge", (*max_surge != usual.max_surge).then(|| format!("at most {max_surge} more"))),
        ("missing", (*max_unavailable != usual.max_unavailable).then(|| format!("at most {max_unavailable}"))),
        ("settled", (*healthy_ms > 0).then(|| format!("{} after it is ready", seconds((*healthy_ms).into())))),
        ("promoted", promote_after_ms.map(|ms| format!("by itself, after {}", seconds(ms)))),
        ("errors", errors_percent.map(|percent| format!("at most {percent} % of requests"))),
        ("has time", (*deadline_ms != usual.deadline_ms).then(|| seconds(*deadline_ms))),
        ("failed", (*on_failure == OnFailure::Hold).then(|| "is held".to_owned())),
        ("new secrets", (*on_secret == OnSecret::Keep).then(|| "replace no star".to_owned())),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// What a placement says beyond the usual, each part by its name.
pub fn placement_fields(placement: &Placement) -> Vec<(String, String)> {
    let Placement {
        strategy,
        require,
        prefer,
        spread,
        max_skew,
        per_node,
        every_node,
        tolerate,
        apart_from,
        reservation,
        priority,
        disruptions,
    } = placement;
    let usual = Placement::default();
    let joined = |texts: Vec<String>| Some(texts.join("; ")).filter(|text| !text.is_empty());
    let wish = |Preference { that, weight }: &Preference| format!("{that} ({weight})");
    let fields = [
        ("strategy", (*strategy != Strategy::default()).then(|| strategy.as_str().to_owned())),
        ("requires", joined(require.iter().map(ToString::to_string).collect())),
        ("prefers", joined(prefer.iter().map(wish).collect())),
        ("spread over", joined(spread.iter().map(ToString::to_string).collect())),
        ("uneven", max_skew.map(|most| format!("by at most {most}"))),
        ("per node", per_node.map(|most| format!("at most {most}"))),
        ("on", every_node.then(|| "every node".to_owned())),
        ("tolerates", joined(tolerate.iter().map(ToString::to_string).collect())),
        ("apart from", joined(apart_from.iter().map(ToString::to_string).collect())),
        ("in reservation", reservation.as_ref().map(ToString::to_string)),
        ("priority", (*priority != usual.priority).then(|| priority.to_string())),
        ("gives way", (*disruptions != usual.disruptions).then(|| format!("with at most {disruptions} at once"))),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// What makes a star what it is.
fn template_fields(spec: &ServiceSpec) -> Vec<(String, String)> {
    let template = &spec.template;
    let program = match &template.program {
        Program::Script(path) => path.clone(),
        Program::Command(words) => words.join(" "),
        Program::Nothing => "none: it holds places".to_owned(),
    };
    let network = match template.network {
        Network::None => "none",
        Network::Host => "host",
        Network::Bridge => "bridge",
    };
    let restart = match template.restart {
        RestartPolicy::Always => "always",
        RestartPolicy::OnFailure => "on_failure",
        RestartPolicy::Never => "never",
    };
    const HASH_DIGITS: usize = 12;
    let mut fields = vec![
        ("program".to_owned(), program),
        ("args".to_owned(), template.args.join(" ")),
        ("files".to_owned(), template.bundle.to_string().chars().take(HASH_DIGITS).collect()),
    ];
    fields.extend(limit_fields(&template.limits).into_iter().map(|(name, value)| (name.to_owned(), value)));
    let Reserve { cpu, memory } = template.reserve;
    fields.extend((cpu.0 > 0).then(|| ("kept cpu".to_owned(), cpu.to_string())));
    fields.extend((memory.0 > 0).then(|| ("kept memory".to_owned(), memory.exact())));
    fields.extend([
        ("network".to_owned(), network.to_owned()),
        ("port".to_owned(), template.port.map_or("(none)".to_owned(), |port| port.to_string())),
        ("ready".to_owned(), ready_text(&template.probe)),
        ("restart".to_owned(), restart.to_owned()),
        ("grace".to_owned(), format!("{} s", f64::from(template.grace_ms) / 1000.0)),
    ]);
    let named = |name: &str, value: String| (name.to_owned(), value);
    fields.extend(template.stop_signal.map(|signal| named("stop signal", model::star::signal_name(signal))));
    fields.extend(template.deadline_ms.map(|deadline| named("deadline", format!("{} s", deadline as f64 / 1000.0))));
    fields.extend(
        template
            .health
            .startup
            .as_ref()
            .map(|probe| named("startup", format!("{}, {} s to start", probe_text(probe), seconds(probe.start_ms)))),
    );
    fields.extend(
        template
            .health
            .live
            .as_ref()
            .map(|probe| named("live", format!("{}, replaced after {} failures", probe_text(probe), probe.failures))),
    );
    for (name, hook) in [("before start", &template.hooks.before_start), ("before stop", &template.hooks.before_stop)] {
        fields.extend((!hook.is_empty()).then(|| named(name, hook.join(" "))));
    }
    fields.extend(template.rootfs.iter().map(|archive| ("rootfs".to_owned(), archive.clone())));
    fields.extend(template.singleton.then(|| named("singleton", "never more than one star".to_owned())));
    fields.extend(template.checkpoint.then(|| named("checkpoint", "its memory can be kept".to_owned())));
    fields.extend(template.env.iter().map(|(name, value)| (format!("env {name}"), value.clone())));
    fields.extend(template.volumes.iter().map(|mount| (format!("volume {}", mount.path), volume_text(mount))));
    let Interior { tmpfs, binds, secrets, env_secrets, workdir, user } = &template.interior;
    fields.extend(tmpfs.iter().map(|(path, tmpfs)| (format!("tmpfs {path}"), tmpfs.size.to_string())));
    fields.extend(binds.iter().map(|(path, source)| (format!("bind {path}"), source.clone())));
    fields.extend(secrets.iter().map(|(path, secret)| (format!("secret {path}"), secret.to_string())));
    fields.extend(env_secrets.iter().map(|(name, secret)| (format!("secret ${name}"), secret.to_string())));
    fields.extend(workdir.iter().map(|folder| named("workdir", folder.clone())));
    fields.extend(user.iter().map(|user| named("user", user.to_string())));
    let missing = template.missing_walls();
    fields.extend((!missing.is_empty()).then(|| named("weaker walls", missing)));
    fields.extend(template.access.iter().map(|access| named("access", access.to_string())));
    fields
}

fn volume_text(mount: &VolumeMount) -> String {
    match mount.size {
        Some(size) => format!("{}, {size}", mount.volume),
        None => mount.volume.to_string(),
    }
}

fn entry_text(entry: &Entry) -> String {
    let protocol = match entry.protocol {
        model::Protocol::Http => "http",
        model::Protocol::Tcp => "tcp",
    };
    let balance = match entry.balance {
        model::Balance::RoundRobin => "round robin",
        model::Balance::LeastConnections => "least connections",
    };
    let listen =
        if entry.listen.port == 0 { format!("{} (any port)", entry.listen.ip) } else { entry.listen.to_string() };
    format!("{protocol}://{listen}, {balance}")
}

fn probe_text(probe: &Probe) -> String {
    let kind = match &probe.kind {
        ProbeKind::Started => "when started".to_owned(),
        ProbeKind::Tcp => "when it accepts connections".to_owned(),
        ProbeKind::Http { path } => format!("GET {path}"),
        ProbeKind::Exec { command } => format!("when `{}` ends with 0", command.join(" ")),
        ProbeKind::Script { path } => format!("when {path} ends with 0"),
    };
    let (every, within) = (seconds(probe.interval_ms), seconds(probe.timeout_ms));
    format!("{kind}, every {every} s within {within} s")
}

fn seconds(ms: u32) -> f64 {
    f64::from(ms) / 1000.0
}

fn ready_text(probe: &Probe) -> String {
    /// What is not said where nobody chose it.
    const FAILURES: u32 = 3;
    let failures = match probe.failures {
        FAILURES => String::new(),
        failures => format!(", out after {failures} failures"),
    };
    let restart = probe.restart_after.map(|times| format!(", replaced after {times} failures")).unwrap_or_default();
    format!("{}, {} s to start{failures}{restart}", probe_text(probe), seconds(probe.start_ms))
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.services.iter().try_for_each(|(name, change)| change.tell(f, name))
    }
}

impl ServiceChange {
    /// The change of a service of this name, line by line.
    pub fn tell(&self, f: &mut impl fmt::Write, name: &Name) -> fmt::Result {
        match self {
            Self::Create { stars, summary } => {
                writeln!(f, "  + {name}: {stars}")?;
                summary.iter().try_for_each(|line| writeln!(f, "      {}", visible(line)))
            }
            Self::Update { changes } => {
                writeln!(f, "  ~ {name}: in place")?;
                write_changes(f, changes)
            }
            Self::Replace { stars, how, changes } => {
                writeln!(f, "  ± {name}: {stars} {how}")?;
                write_changes(f, changes)
            }
            Self::Remove { stars } => writeln!(
                f,
                "  - {name}: {stars} {}",
                if matches!(stars, Stars::Places(_)) { "given back" } else { "stopped" }
            ),
        }
    }
}

fn write_changes(f: &mut impl fmt::Write, changes: &[Change]) -> fmt::Result {
    changes.iter().try_for_each(|change| {
        let [field, old, new] = [&change.field, &change.old, &change.new].map(|text| visible(text));
        writeln!(f, "      {field}: {old} → {new}")
    })
}

/// A text of the app's on one line: what would move the cursor or begin a line is shown by its name.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_debug()) } else { shown.push(c) }
    }
    shown
}
