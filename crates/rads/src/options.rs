//! The options of a service on a command line: all that `constellation.deploy` has, under the same names with `-` for `_`.
//!
//! Values are taken as they are typed and read where those of a description are: what is wrong is told in the same words, and all
//! of it at once.

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use deploy::Setting;

/// How the text of a value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    Word,
    /// `on` or `off`; without a value, on.
    Switch,
    /// A program and its arguments, split at blanks that no quotes are around.
    Words,
    /// One of a list; may be repeated, as all that follow.
    Item,
    /// `NAME=VALUE`.
    Pair,
    /// `PATH=…`, of which the rest is a name, settings (`size_mb=16`), or both.
    Place,
    /// `/path`, or settings: `http=/healthz,interval_ms=500`. What follows `exec=` is a command to its end.
    Probe,
    /// `seccomp=off`, `capabilities=setuid,setgid`.
    Wall,
    /// `require=disk in ssd, nvme`, `prefer=zone = a (80)`, `spread=region,zone`, `strategy=binpack`, `per_node=2`.
    Placement,
    /// `strategy=canary`, `max_surge=25%`.
    Update,
    /// `completions=5`, `schedule=30 4 * * *`, `inputs=a`, `after=other`.
    Job,
    /// `operator`, or `role=operator` and `namespaces=dev-*,shop`.
    Access,
}

/// One option: as it is typed, how its value is read and called, and what it is.
struct Row(&'static str, Kind, &'static str, &'static str);

/// In the order of the guide, under the headings that `--help` has.
const ROWS: [(&str, &[Row]); 6] = [
    (
        "What runs",
        &[
            Row(
                "command",
                Kind::Words,
                "COMMAND",
                "The program that each star runs, in place of a script; no shell reads it",
            ),
            Row("args", Kind::Item, "WORD", "An argument of the program; may be repeated"),
            Row(
                "rootfs",
                Kind::Word,
                "PATH",
                "A root file system for a command: a folder or an archive in the app's folder",
            ),
            Row(
                "checkpoint",
                Kind::Switch,
                "on|off",
                "Whether the memory of a script can be kept: it runs as a program of its own",
            ),
            Row("singleton", Kind::Switch, "on|off", "Whether there is never more than one star, wherever it runs"),
            Row("assets", Kind::Item, "PATH", "A file or folder to take along; may be repeated"),
            Row("instances", Kind::Number, "N", "How many stars"),
            Row(
                "placement",
                Kind::Placement,
                "NAME=VALUE",
                "Where its stars go, such as `require=region = eu` or `spread=zone`; may be repeated",
            ),
            Row(
                "update",
                Kind::Update,
                "NAME=VALUE",
                "How its stars are replaced, such as `strategy=canary` or `healthy_seconds=10`; may be repeated",
            ),
            Row(
                "job",
                Kind::Job,
                "NAME=VALUE",
                "Its stars run to their end: `completions=5`, `schedule=30 4 * * *`, `retries=3`; may be repeated",
            ),
            Row(
                "hold",
                Kind::Update,
                "NAME=VALUE",
                "Hold places and run nothing, such as `until=2026-12-24 18:00`; see `rads c reserve`",
            ),
            Row("namespace", Kind::Word, "NAME", "Where its name, its volumes and its secrets are"),
        ],
    ),
    (
        "Limits",
        &[
            Row("cpu-percent", Kind::Number, "PERCENT", "Processor time, in percent of one core"),
            Row("cpu-cores", Kind::Number, "CORES", "Processor time, in cores"),
            Row("cpu-burst-percent", Kind::Number, "PERCENT", "Of unused processor time, how much may be used later"),
            Row("cpu-borrow-percent", Kind::Number, "PERCENT", "How much more of processors that no other star wants"),
            Row("cpus", Kind::Word, "LIST", "Processors to run on, such as `0-1,3`"),
            Row("ram-mb", Kind::Number, "MB", "Memory, in MiB"),
            Row("ram-gb", Kind::Number, "GB", "Memory, in GiB"),
            Row("ram-soft-mb", Kind::Number, "MB", "Memory beyond which the kernel takes back what it can, in MiB"),
            Row("ram-balloon", Kind::Switch, "on|off", "Whether the soft limit of memory follows use"),
            Row(
                "reserve-cpu-percent",
                Kind::Number,
                "PERCENT",
                "Processor time kept for each star on its machine, in percent of one core",
            ),
            Row("reserve-ram-mb", Kind::Number, "MB", "Memory kept for each star on its machine, in MiB"),
            Row("disk-mb", Kind::Number, "MB", "Disk for `/tmp`, and for what is changed in a root of its own, in MiB"),
            Row("pids", Kind::Number, "N", "Processes and threads"),
            Row("open-files", Kind::Number, "N", "Open files of each process"),
            Row("io-read-mb-s", Kind::Number, "MB", "Disk reads in a second, in MiB"),
            Row("io-write-mb-s", Kind::Number, "MB", "Disk writes in a second, in MiB"),
            Row("log-kb-s", Kind::Number, "KB", "Output taken in a second, in KiB; who writes faster waits"),
        ],
    ),
    (
        "Network",
        &[
            Row("port", Kind::Number, "PORT", "The port that each star listens on, and the service with it"),
            Row(
                "listen",
                Kind::Word,
                "ADDRESS",
                "Where the service listens: PORT or ADDRESS:PORT; port 0 takes any free one",
            ),
            Row("protocol", Kind::Word, "http|tcp", "What is spoken there"),
            Row("balance", Kind::Word, "HOW", "Which star is next: `round_robin` or `least_connections`"),
            Row("network", Kind::Word, "HOW", "What stars reach: `none`, `bridge` or `host`"),
            Row(
                "access",
                Kind::Access,
                "ROLE",
                "What stars may ask of the constellation: `operator` in their namespace, or `role=operator` and `namespaces=dev-*`; may be repeated",
            ),
        ],
    ),
    (
        "What stars find inside",
        &[
            Row("env", Kind::Pair, "NAME=VALUE", "A variable; may be repeated"),
            Row("secrets", Kind::Pair, "PATH=SECRET", "A secret as a file; may be repeated"),
            Row("env-secrets", Kind::Pair, "NAME=SECRET", "A secret as a variable; may be repeated"),
            Row(
                "volumes",
                Kind::Place,
                "PATH=NAME",
                "A volume, `/data=pages` or `/data=pages,size_mb=100`; may be repeated",
            ),
            Row("tmpfs", Kind::Place, "PATH=SIZE", "A memory file system, `/cache=size_mb=16`; may be repeated"),
            Row(
                "binds",
                Kind::Pair,
                "PATH=FILE",
                "A file or folder of the app at another place, read-only; may be repeated",
            ),
            Row("workdir", Kind::Word, "PATH", "Where programs begin"),
            Row("user", Kind::Word, "USER", "As whom they run: a number, or two as `1000:1000`"),
            Row(
                "weaken",
                Kind::Wall,
                "WALL",
                "A wall to take down: `seccomp=off`, `landlock=off`, `capabilities=setuid,setgid`",
            ),
        ],
    ),
    (
        "Health",
        &[
            Row("startup", Kind::Probe, "PROBE", "Whether a star has started: as `--ready`"),
            Row(
                "ready",
                Kind::Probe,
                "PROBE",
                "Whether requests may come: `/path`, or `http=/path,interval_ms=500`, `tcp=true`, `script=well.rads`, `exec=COMMAND` last",
            ),
            Row("live", Kind::Probe, "PROBE", "Whether a star still works: as `--ready`"),
        ],
    ),
    (
        "Life",
        &[
            Row(
                "restart",
                Kind::Word,
                "WHEN",
                "Whether a star that ended is replaced: `always`, `on_failure`, or `never` to run once",
            ),
            Row("deadline-seconds", Kind::Number, "SECONDS", "How long a star may run"),
            Row("grace-seconds", Kind::Number, "SECONDS", "How long it has from the signal to stop to its end"),
            Row("stop-signal", Kind::Word, "SIGNAL", "The signal to stop, such as `SIGINT`"),
            Row("before-start", Kind::Words, "COMMAND", "What runs in a star before its program"),
            Row("before-stop", Kind::Words, "COMMAND", "What runs in it before it is stopped"),
        ],
    ),
];

/// Words that the manual has and this version does not know how to follow.
const LATER: [&str; 2] = ["autoscale-min", "autoscale-max"];

/// What was typed, in the words of `constellation.deploy` and the order of the guide.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ServiceOptions {
    pub(crate) settings: Vec<(String, Setting)>,
    /// The first of those that are for a later version.
    pub(crate) later: Option<&'static str>,
}

impl clap::Args for ServiceOptions {
    fn augment_args(command: Command) -> Command {
        let rows = ROWS.iter().flat_map(|(heading, rows)| rows.iter().map(move |row| (*heading, row)));
        let command = rows.fold(command, |command, (heading, Row(name, kind, value, help))| {
            let arg = Arg::new(*name).long(*name).value_name(*value).help(*help).help_heading(heading);
            let arg = arg.allow_hyphen_values(*kind == Kind::Item || *kind == Kind::Number);
            command.arg(match kind {
                Kind::Number | Kind::Word | Kind::Words | Kind::Probe => arg.action(ArgAction::Set),
                Kind::Switch => {
                    arg.action(ArgAction::Set).num_args(0..=1).require_equals(true).default_missing_value("on")
                }
                // One of several is also typed as one.
                Kind::Item
                | Kind::Pair
                | Kind::Place
                | Kind::Wall
                | Kind::Placement
                | Kind::Update
                | Kind::Job
                | Kind::Access => {
                    let arg = arg.action(ArgAction::Append);
                    singular(name).map_or(arg.clone(), |one| arg.alias(one))
                }
            })
        });
        LATER.iter().fold(command, |command, name| command.arg(Arg::new(*name).long(*name).hide(true)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServiceOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut settings = Vec::new();
        for Row(name, kind, ..) in ROWS.iter().flat_map(|(_, rows)| rows.iter()) {
            let values: Vec<&str> =
                matches.get_many::<String>(name).into_iter().flatten().map(String::as_str).collect();
            if let Some((last, _)) = values.split_last() {
                settings.push((name.replace('-', "_"), setting(*kind, last, &values)));
            }
        }
        let later = LATER.into_iter().find(|name| matches.contains_id(name));
        Ok(Self { settings, later })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn singular(name: &'static str) -> Option<&'static str> {
    name.strip_suffix('s').filter(|_| name != "tmpfs")
}

fn setting(kind: Kind, last: &str, all: &[&str]) -> Setting {
    match kind {
        Kind::Number => number(last),
        Kind::Word => Setting::Text(last.to_owned()),
        Kind::Switch => match last {
            "on" | "true" => Setting::Bool(true),
            "off" | "false" => Setting::Bool(false),
            other => Setting::Text(other.to_owned()),
        },
        Kind::Words => words(last),
        Kind::Item => Setting::List(all.iter().map(|item| Setting::Text((*item).to_owned())).collect()),
        Kind::Pair => map(all, |value| Setting::Text(value.to_owned())),
        Kind::Place => map(all, place),
        Kind::Probe => probe(last),
        Kind::Wall => map(all, |value| match value {
            "off" => Setting::Text(value.to_owned()),
            names => Setting::List(names.split(',').map(|name| Setting::Text(name.to_owned())).collect()),
        }),
        Kind::Placement => placement(all),
        Kind::Update => map(all, number),
        Kind::Job => job(all),
        Kind::Access => access(last, all),
    }
}

/// A role alone, or each names one of its options; namespaces add up.
fn access(last: &str, all: &[&str]) -> Setting {
    if !all.iter().any(|text| text.contains('=')) {
        return Setting::Text(last.to_owned());
    }
    let (several, single): (Vec<&str>, Vec<&str>) = all.iter().partition(|text| text.starts_with("namespaces="));
    let Setting::Map(mut settings) = map(&single, |value| Setting::Text(value.to_owned())) else {
        return Setting::Null;
    };
    let names = several.iter().filter_map(|text| text.split_once('=')).flat_map(|(_, names)| names.split(','));
    let names: Vec<Setting> = names.map(|name| Setting::Text(name.trim().to_owned())).collect();
    if !names.is_empty() {
        settings.push(("namespaces".to_owned(), Setting::List(names)));
    }
    Setting::Map(settings)
}

/// What is typed of a placement by itself.
pub(crate) fn placement_settings(all: &[String]) -> Vec<(String, Setting)> {
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    match placement(&all) {
        Setting::Map(settings) => settings,
        _ => Vec::new(),
    }
}

/// Each names one of its options; conditions add up.
fn placement(all: &[&str]) -> Setting {
    let mut settings: Vec<(String, Setting)> = Vec::new();
    for text in all {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let (name, value) = (name.trim(), value.trim());
        let more = match name {
            "require" => vec![Setting::Text(value.to_owned())],
            "prefer" => vec![wish(value)],
            "tolerate" => vec![Setting::Text(value.to_owned())],
            "spread" | "apart_from" => {
                value.split(',').map(|attribute| Setting::Text(attribute.trim().to_owned())).collect()
            }
            _ => {
                settings.retain(|(known, _)| known != name);
                settings.push((name.to_owned(), if value == "true" { Setting::Bool(true) } else { number(value) }));
                continue;
            }
        };
        match settings.iter_mut().find(|(known, _)| known == name) {
            Some((_, Setting::List(list))) => list.extend(more),
            _ => settings.push((name.to_owned(), Setting::List(more))),
        }
    }
    Setting::Map(settings)
}

/// Each names one of its options; inputs, and what comes before, add up.
fn job(all: &[&str]) -> Setting {
    let (several, single): (Vec<&str>, Vec<&str>) =
        all.iter().partition(|text| matches!(text.split_once('='), Some(("inputs" | "after", _))));
    let Setting::Map(mut settings) = map(&single, number) else { return Setting::Null };
    for name in ["inputs", "after"] {
        let values = several.iter().filter_map(|text| text.split_once('=')).filter(|(of, _)| *of == name);
        let list: Vec<Setting> = values.map(|(_, value)| Setting::Text(value.to_owned())).collect();
        if !list.is_empty() {
            settings.push((name.to_owned(), Setting::List(list)));
        }
    }
    Setting::Map(settings)
}

/// A condition, and its weight as a plan shows it: `zone = a (80)`.
fn wish(text: &str) -> Setting {
    let weighed = text.strip_suffix(')').and_then(|text| text.rsplit_once('(')).and_then(|(that, weight)| {
        let that = Setting::Text(that.trim().to_owned());
        Some(Setting::Map(vec![
            ("that".to_owned(), that),
            ("weight".to_owned(), Setting::Int(weight.trim().parse().ok()?)),
        ]))
    });
    weighed.unwrap_or_else(|| Setting::Text(text.to_owned()))
}

/// Of two of one name the last counts, as everywhere. One without a `=` has nothing, which is told as any other wrong value.
fn map(all: &[&str], value: impl Fn(&str) -> Setting) -> Setting {
    let mut entries: Vec<(String, Setting)> = Vec::new();
    for text in all {
        let (name, value) = match text.split_once('=') {
            Some((name, text)) => (name, value(text)),
            None => (*text, Setting::Null),
        };
        entries.retain(|(known, _)| known != name);
        entries.push((name.to_owned(), value));
    }
    Setting::Map(entries)
}

/// What is no number stays what it is, to be told.
fn number(text: &str) -> Setting {
    match (text.parse(), text.parse::<f64>()) {
        (Ok(whole), _) => Setting::Int(whole),
        (_, Ok(number)) if number.is_finite() => Setting::Float(number),
        _ => Setting::Text(text.to_owned()),
    }
}

fn place(text: &str) -> Setting {
    let mut settings = Vec::new();
    for part in text.split(',') {
        match part.split_once('=') {
            Some((name, value)) => settings.push((name.to_owned(), number(value))),
            None if text == part => return Setting::Text(part.to_owned()),
            None => settings.push(("name".to_owned(), Setting::Text(part.to_owned()))),
        }
    }
    Setting::Map(settings)
}

fn probe(text: &str) -> Setting {
    if text.starts_with('/') {
        return Setting::Text(text.to_owned());
    }
    let mut settings = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(command) = rest.strip_prefix("exec=") {
            settings.push(("exec".to_owned(), words(command)));
            break;
        }
        let (part, more) = rest.split_once(',').unwrap_or((rest, ""));
        rest = more;
        let (name, value) = part.split_once('=').unwrap_or((part, "true"));
        let value = match (name, value) {
            ("http" | "script", _) => Setting::Text(value.to_owned()),
            (_, "true") => Setting::Bool(true),
            (_, "false") => Setting::Bool(false),
            _ => number(value),
        };
        settings.push((name.to_owned(), value));
    }
    Setting::Map(settings)
}

/// Splits at blanks. Quotes of either kind keep what is between them together; one that is not closed is told as a text that is no
/// array.
fn words(text: &str) -> Setting {
    let mut words: Vec<Setting> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if open == c => quote = None,
            (None, c) if c.is_whitespace() => words.extend(word.take().map(Setting::Text)),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word.map(Setting::Text));
    if quote.is_some() { Setting::Text(text.to_owned()) } else { Setting::List(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_of_a_description_can_be_typed() {
        let typed: Vec<String> =
            ROWS.iter().flat_map(|(_, rows)| rows.iter()).map(|Row(name, ..)| name.replace('-', "_")).collect();
        for option in deploy::OPTIONS {
            // It is the file.
            assert!(option == "script" || typed.iter().any(|name| name == option), "`{option}` cannot be typed");
        }
        assert_eq!(typed.len(), deploy::OPTIONS.len() - 1, "an option that no description has");
    }

    #[test]
    fn values_are_read_as_a_description_has_them() {
        let text = |text: &str| Setting::Text(text.to_owned());
        let map = |entries: &[(&str, Setting)]| {
            Setting::Map(entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
        };
        let list = |words: &[&str]| Setting::List(words.iter().map(|word| text(word)).collect());
        let check = |kind, typed: &[&str], expected: Setting| {
            assert_eq!(setting(kind, typed[typed.len() - 1], typed), expected, "{typed:?}");
        };
        let wish = map(&[("that", text("gpu exists")), ("weight", Setting::Int(-80))]);
        check(
            Kind::Placement,
            &[
                "require=disk in ssd, nvme",
                "prefer=zone = a",
                "prefer=gpu exists (-80)",
                "require=cores >= 4",
                "spread=region, zone",
                "per_node=2",
                "strategy=binpack",
            ],
            map(&[
                ("require", list(&["disk in ssd, nvme", "cores >= 4"])),
                ("prefer", Setting::List(vec![text("zone = a"), wish])),
                ("spread", list(&["region", "zone"])),
                ("per_node", Setting::Int(2)),
                ("strategy", text("binpack")),
            ]),
        );
        let canary =
            map(&[("strategy", text("canary")), ("canary", text("10%")), ("healthy_seconds", Setting::Int(5))]);
        check(Kind::Update, &["strategy=canary", "canary=10%", "healthy_seconds=5"], canary);
        let parts =
            map(&[("retries", Setting::Int(2)), ("schedule", text("30 4 * * *")), ("inputs", list(&["a=1", "b"]))]);
        check(Kind::Job, &["inputs=a=1", "retries=2", "schedule=30 4 * * *", "inputs=b"], parts);
        check(Kind::Access, &["operator"], text("operator"));
        let access = map(&[("role", text("operator")), ("namespaces", list(&["dev-*", "shop", "ci"]))]);
        check(Kind::Access, &["role=operator", "namespaces=dev-*, shop", "namespaces=ci"], access);
        check(Kind::Number, &["64"], Setting::Int(64));
        check(Kind::Number, &["-1"], Setting::Int(-1));
        check(Kind::Number, &["0.5"], Setting::Float(0.5));
        for wrong in ["NaN", "inf", "", "lots", "1e999"] {
            check(Kind::Number, &[wrong], text(wrong));
        }
        check(Kind::Switch, &["off"], Setting::Bool(false));
        check(Kind::Words, &["sh -c 'echo \"a b\"; x'"], list(&["sh", "-c", "echo \"a b\"; x"]));
        check(Kind::Words, &[" a  '' b"], list(&["a", "", "b"]));
        check(Kind::Words, &["sh 'x"], text("sh 'x"));
        check(Kind::Pair, &["A=1", "B=x=y", "A=2"], map(&[("B", text("x=y")), ("A", text("2"))]));
        check(Kind::Pair, &["A"], map(&[("A", Setting::Null)]));
        check(Kind::Place, &["/data=pages"], map(&[("/data", text("pages"))]));
        let sized = map(&[("name", text("pages")), ("size_mb", Setting::Int(100))]);
        check(Kind::Place, &["/data=pages,size_mb=100"], map(&[("/data", sized)]));
        check(Kind::Place, &["/cache=size_mb=16"], map(&[("/cache", map(&[("size_mb", Setting::Int(16))]))]));
        check(Kind::Probe, &["/healthz"], text("/healthz"));
        let http = map(&[("http", text("/a")), ("interval_ms", Setting::Int(500))]);
        check(Kind::Probe, &["http=/a,interval_ms=500"], http);
        let exec = map(&[("timeout_ms", Setting::Int(9)), ("exec", list(&["sh", "-c", "a,b=1"]))]);
        check(Kind::Probe, &["timeout_ms=9,exec=sh -c 'a,b=1'"], exec);
        check(Kind::Probe, &["tcp"], map(&[("tcp", Setting::Bool(true))]));
        let walls = map(&[("seccomp", text("off")), ("capabilities", list(&["setuid", "setgid"]))]);
        check(Kind::Wall, &["seccomp=off", "capabilities=setuid,setgid"], walls);
    }
}
