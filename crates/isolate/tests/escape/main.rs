//! Ways out of a star, tried one by one: `cargo xtask test escape`.
//!
//! This program is the nursery, what runs in the stars, and the attacker. A *probe* is one attempt. Inside stars of the
//! default profile (as a script and as a command, as root and as an ordinary user) every probe must fail. Its *control* is the
//! same attempt where the wall in question is missing, and must succeed there: a probe that fails everywhere shows nothing. Where
//! this kernel or this machine's root is refused too, the probe is counted apart, with the reason.

#[path = "../stars/kit.rs"]
#[allow(dead_code)]
mod kit;
mod probes;
mod sys;
mod world;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use isolate::{ScriptStart, StarEntry, StarOrder};
use kit::Kit;
use model::{Bytes, ExitCause, Limits, Millicores, Network};
use probes::{Control, Probe, all};
use world::World;

/// Fewest probes that must have shown both sides as root.
const SHOWN_MIN: usize = 120;
/// Longest one probe may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// A user id nobody has on a usual machine.
const ORDINARY_USER: u32 = 54_321;

// Exit codes of `probe NAME`, the reason on standard output.
const ESCAPED: i32 = 0;
const HELD: i32 = 10;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["nursery", data_dir] => {
            let config = isolate::NurseryConfig { data_dir: PathBuf::from(data_dir) };
            match isolate::serve(config, StarEntry { run: script, rehearse: || {} }) {
                Ok(()) => ExitCode::SUCCESS,
                Err(fault) => {
                    eprintln!("{fault}");
                    ExitCode::FAILURE
                }
            }
        }
        ["probes", ref names @ ..] => {
            attempt(names);
            ExitCode::SUCCESS
        }
        ["probe", name] => ExitCode::from(probe(name) as u8),
        ["unwalled", name] => {
            sys::step_aside();
            ExitCode::from(probe(name) as u8)
        }
        _ => run(&args),
    }
}

/// As a RADS star, which starts no other program: one attempt.
fn script(start: ScriptStart<'_>) -> i32 {
    probe(&start.args[0])
}

/// One attempt, in a process of its own.
fn probe(name: &str) -> i32 {
    let Some(probe) = all().into_iter().find(|probe| probe.name == name) else {
        println!("there is no such probe");
        return 2;
    };
    match (probe.attempt)() {
        Ok(()) => ESCAPED,
        Err(reason) => {
            println!("{reason}");
            HELD
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ended {
    Escaped,
    Held(String),
    /// It says nothing about any wall.
    Broken(String),
}

/// Runs each probe and prints `name<TAB>escaped|held|broken<TAB>reason`.
fn attempt(names: &[&str]) {
    for name in names {
        let ended = attempt_one(Path::new("/app/escape"), "probe", name);
        let (word, reason) = match &ended {
            Ended::Escaped => ("escaped", ""),
            Ended::Held(reason) => ("held", reason.as_str()),
            Ended::Broken(reason) => ("broken", reason.as_str()),
        };
        println!("{name}\t{word}\t{reason}");
    }
    println!("done");
}

fn attempt_one(program: &Path, mode: &str, name: &str) -> Ended {
    let child = Command::new(program).arg(mode).arg(name).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return Ended::Broken(format!("the probe cannot be started: {error}")),
    };
    let begun = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begun.elapsed() > PATIENCE => {
                let _ = child.kill();
                let _ = child.wait();
                return Ended::Broken("it does not end".to_owned());
            }
            _ => std::thread::sleep(Duration::from_micros(200)),
        }
    };
    let mut said = String::new();
    if let Some(mut out) = child.stdout.take() {
        let _ = std::io::Read::read_to_string(&mut out, &mut said);
    }
    let said = said.trim().replace(['\n', '\t'], " ");
    match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
        (Some(ESCAPED), _) => Ended::Escaped,
        (Some(HELD), _) => Ended::Held(said),
        (_, Some(signal)) => Ended::Held(format!("ended by signal {signal}")),
        (code, _) => Ended::Broken(format!("exit code {code:?}: {said}")),
    }
}

type Results = BTreeMap<String, Ended>;

/// The probes inside one star of the default profile, but for what `weaken` takes away.
fn in_star(kit: &Kit, world: &World, names: &[&str], kind: Kind, weaken: impl Fn(&mut StarOrder)) -> Results {
    if let Kind::Script = kind {
        return names.iter().map(|&name| (name.to_owned(), in_script(kit, world, name))).collect();
    }
    let words = [&["./escape", "probes"], names].concat();
    let mut order = kit.command(&words);
    order.env.extend(world.env());
    order.limits = LIMITS;
    weaken(&mut order);
    kit.start(&order);
    // On a busy machine all of them take their time; what matters is that each comes to an end.
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        let lines = kit.lines(order.star);
        if lines.iter().any(|line| line.text == "done") {
            break;
        }
        if lines.len() != seen {
            (seen, since) = (lines.len(), Instant::now());
        }
        assert!(since.elapsed() < 2 * PATIENCE, "no end of what comes after:\n{}", kit.log(order.star));
        std::thread::sleep(Duration::from_millis(5));
    }
    let results = parse(&kit.log(order.star));
    kit.end(order.star);
    results
}

const LIMITS: Limits =
    Limits { cpu: Some(Millicores(500)), memory: Some(Bytes::mib(96)), pids: Some(48), ..Limits::UNLIMITED };

/// One probe as a star of its own.
fn in_script(kit: &Kit, world: &World, name: &str) -> Ended {
    let mut order = kit.script(&[name]);
    order.env.extend(world.env());
    order.limits = LIMITS;
    kit.start(&order);
    let cause = kit.end(order.star);
    let said = kit.log(order.star).trim().replace(['\n', '\t'], " ");
    match cause {
        ExitCause::Code(ESCAPED) => Ended::Escaped,
        ExitCause::Code(HELD) => Ended::Held(said),
        ExitCause::OutOfMemory => Ended::Held("out of memory".to_owned()),
        ExitCause::Signal(signal) => Ended::Held(format!("ended by signal {signal}")),
        cause => Ended::Broken(format!("{cause}: {said}")),
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Script,
    Command,
}

fn parse(text: &str) -> Results {
    let line = |line: &str| {
        let mut parts = line.splitn(3, '\t');
        let (name, word, reason) = (parts.next()?, parts.next()?, parts.next()?.to_owned());
        let ended = match word {
            "escaped" => Ended::Escaped,
            "held" => Ended::Held(reason),
            "broken" => Ended::Broken(reason),
            _ => return None,
        };
        Some((name.to_owned(), ended))
    };
    text.lines().filter_map(line).collect()
}

fn run(args: &[String]) -> ExitCode {
    let wanted: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let verbose = args.iter().any(|arg| arg == "--verbose");
    let chosen = |probe: &Probe| wanted.is_empty() || wanted.iter().any(|part| probe.path().contains(part.as_str()));
    let probes: Vec<Probe> = all().into_iter().filter(chosen).collect();
    if probes.is_empty() {
        // The filter is for another suite.
        return ExitCode::SUCCESS;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = rustix::process::geteuid().is_root();
    let who = if root { "root" } else { "user" };
    let kit = Kit::new(&folder.path().join("kit"));
    let exe = std::env::current_exe().expect("a program has a path");
    std::fs::copy(&exe, kit.bundle.join("escape")).expect("a copy");
    let world = World::new(folder.path(), kit.bundle.clone());
    let names: Vec<&str> = probes.iter().map(|probe| probe.name).collect();

    let mut failed = 0;
    for kind in [Kind::Command, Kind::Script] {
        let results = in_star(&kit, &world, &names, kind, |_| {});
        for probe in &probes {
            // Without groups nothing of the kind is promised to an ordinary user, and the start says so.
            let excused = probe.control == Control::Unlimited && !kit.walls.memory.is_yes();
            match results.get(probe.name) {
                Some(Ended::Held(reason)) if verbose => println!("{who} {kind:?} {}: held, {reason}", probe.path()),
                Some(Ended::Held(_)) => {}
                Some(Ended::Escaped) if excused => println!("{who} {kind:?} {}: not enforced here", probe.path()),
                other => {
                    println!("{who} {kind:?} {}: {other:?}", probe.path());
                    failed += 1;
                }
            }
        }
    }
    println!("escape: {who}: {} probes as a command and as a script, {failed} not held", names.len());
    if root {
        let shown = controls(&kit, &world, &probes, verbose);
        if wanted.is_empty() && shown < SHOWN_MIN {
            println!("escape: only {shown} probes were shown with their control, {SHOWN_MIN} are wanted");
            failed += 1;
        }
        if !as_ordinary_user(args, folder.path()) {
            failed += 1;
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every probe where its wall is missing. Says how many got through.
fn controls(kit: &Kit, world: &World, probes: &[Probe], verbose: bool) -> usize {
    let of = |control: Control| -> Vec<&str> {
        probes.iter().filter(|probe| probe.control == control).map(|probe| probe.name).collect()
    };
    let mut results = Results::new();
    results.extend(in_star(kit, world, &of(Control::HostNetwork), Kind::Command, |order| {
        order.network = Network::Host;
    }));
    results.extend(in_star(kit, world, &of(Control::Unlimited), Kind::Command, |order| {
        order.limits = Limits::UNLIMITED;
    }));
    world.enter();
    let exe = std::env::current_exe().expect("a program has a path");
    for name in of(Control::Unwalled) {
        results.insert(name.to_owned(), attempt_one(&exe, "unwalled", name));
    }
    let mut groups: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for probe in probes {
        let (shown, of) = groups.entry(probe.group).or_default();
        *of += 1;
        match &results[probe.name] {
            Ended::Escaped => *shown += 1,
            Ended::Held(reason) | Ended::Broken(reason) => {
                println!("control of {}: this machine refuses it without a star too: {reason}", probe.path());
            }
        }
    }
    for (group, (shown, of)) in &groups {
        if verbose || *shown < *of {
            println!("escape: {group}: {shown} of {of} shown with their control");
        }
    }
    let shown = groups.values().map(|(shown, _)| shown).sum();
    println!("escape: {shown} of {} probes succeed where their wall is missing", probes.len());
    shown
}

/// Runs a copy of this program that is the user's, as who builds it has it, in a folder the user may write.
fn as_ordinary_user(args: &[String], folder: &Path) -> bool {
    let exe = folder.join("escape");
    let home = folder.join("home");
    std::fs::copy(std::env::current_exe().expect("a program has a path"), &exe).expect("a copy");
    std::fs::create_dir(&home).expect("a folder");
    for path in [folder, &exe] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours to change");
    }
    for path in [&home, &exe] {
        std::os::unix::fs::chown(path, Some(ORDINARY_USER), Some(ORDINARY_USER)).expect("root may");
    }
    let mut command = Command::new(&exe);
    command.args(args).env("TMPDIR", &home).env("HOME", &home).current_dir(&home);
    command.uid(ORDINARY_USER).gid(ORDINARY_USER).status().expect("it runs").success()
}
