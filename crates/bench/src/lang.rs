//! The language against its peers: the same small programs in RADS, Lua, CPython and Node, timed as whole
//! processes in turns, so that a noisy moment hits all of them.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::clock::{ms_between, now_ns};
use crate::report::{Report, Samples, Target};
use crate::{Bench, memory};

/// Programs under `benches/lang`, by the name they have in every language.
const PROGRAMS: [&str; 4] = ["fib", "loop", "strings", "sort"];

/// Peers: command, file extension.
const PEERS: [(&str, &str); 3] = [("lua5.4", "lua"), ("python3", "py"), ("node", "js")];

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    hello(bench, report);
    for program in PROGRAMS {
        compare(bench, program, report);
    }
}

/// Row 24: `rads run hello`, the whole process, and the memory it reached.
fn hello(bench: &Bench, report: &mut Report) {
    let script = bench.root.join("benches/lang/hello.rads");
    let samples = (0..bench.depth.samples(50)).filter_map(|_| time(&bench.rads, &["run"], &script));
    let samples = samples.map(|run| run.ms).collect();
    match Samples::new(samples) {
        Some(times) => {
            report.figure("rads_run_hello", times.median(), "ms", Target::AtMost(5.0), &times.spread());
        }
        None => report.failed("rads_run_hello", "`rads run benches/lang/hello.rads` failed"),
    }
    match peak_memory_mb(bench) {
        Ok(peak) => report.figure("rads_run_hello_memory", peak, "MB", Target::AtMost(8.0), "most ever resident"),
        Err(reason) => report.failed("rads_run_hello_memory", &reason),
    }
    let peer = bench.root.join("benches/lang/hello.lua");
    let samples = (0..bench.depth.samples(50)).filter_map(|_| time(Path::new("lua5.4"), &[], &peer));
    let samples = samples.map(|run| run.ms).collect();
    match Samples::new(samples) {
        Some(times) => report.figure("lua_run_hello", times.median(), "ms", Target::None, &times.spread()),
        None => report.skipped("lua_run_hello", "lua5.4 is not installed"),
    }
}

/// The same program, waiting at its end until it has been looked at. (What `wait4` tells of a child includes what its
/// parent had before the exec.)
fn peak_memory_mb(bench: &Bench) -> Result<f64, String> {
    let script = bench.root.join("benches/lang/hello_waiting.rads");
    let start = Command::new(&bench.rads).arg("run").arg(script).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut process = start.map_err(|error| format!("cannot run rads: {error}"))?;
    let mut line = String::new();
    let printed = process.stdout.take().map(|stdout| BufReader::new(stdout).read_line(&mut line));
    let peak = memory::peak(process.id());
    // It would end by itself; nobody needs to wait for that.
    let _ = process.kill();
    let _ = process.wait();
    match printed {
        Some(Ok(length)) if length > 0 => Ok(peak? as f64 / (1024.0 * 1024.0)),
        _ => Err("the program printed nothing".to_owned()),
    }
}

/// One program in every language, in turns. Ours is held against Lua, the fastest plain interpreter of them. A peer that
/// failed once is not asked again.
fn compare(bench: &Bench, program: &str, report: &mut Report) {
    let folder = bench.root.join("benches/lang");
    let ours = folder.join(format!("{program}.rads"));
    let mut rads = Vec::new();
    let mut peers: Vec<Result<Vec<f64>, &str>> = vec![Ok(Vec::new()); PEERS.len()];
    for _ in 0..bench.depth.samples(10) {
        let Some(run) = time(&bench.rads, &["run"], &ours) else {
            report.failed(&format!("{program}_rads"), "the program failed");
            return;
        };
        rads.push(run.ms);
        for ((command, extension), times) in PEERS.iter().zip(&mut peers) {
            let Ok(so_far) = times else { continue };
            match time(Path::new(command), &[], &folder.join(format!("{program}.{extension}"))) {
                Some(theirs) if theirs.output == run.output => so_far.push(theirs.ms),
                Some(_) => *times = Err("it printed something else"),
                None => *times = Err("not installed, or the program failed or did not end"),
            }
        }
    }
    let peers: Vec<_> = peers.into_iter().map(|times| times.map(Samples::new)).collect();
    let named = PEERS.iter().map(|(command, _)| *command).zip(&peers);
    let lua =
        named.clone().find(|(command, _)| *command == "lua5.4").and_then(|(_, times)| times.as_ref().ok()?.as_ref());
    let target = lua.map_or(Target::None, |lua| Target::AtMost(lua.median()));
    if let Some(rads) = Samples::new(rads) {
        report.figure(&format!("{program}_rads"), rads.median(), "ms", target, &rads.spread());
    }
    for (command, times) in named {
        let name = format!("{program}_{command}");
        match times {
            Ok(Some(times)) => report.figure(&name, times.median(), "ms", Target::None, &times.spread()),
            Ok(None) => report.skipped(&name, "not measured"),
            Err(reason) => report.skipped(&name, reason),
        }
    }
}

/// One whole run.
struct Run {
    ms: f64,
    /// What it printed, for a program that did something else is no peer.
    output: String,
}

/// Longest run: a hundred times the slowest of these programs, so that it means a fault of the program.
const RUN_MAX: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// `None` when it cannot be run, fails or does not end.
fn time(program: &Path, args: &[&str], script: &Path) -> Option<Run> {
    let start = now_ns();
    let command = Command::new(program).args(args).arg(script).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut process = command.ok()?;
    let ended = has_ended(&process);
    let ms = ms_between(start, now_ns());
    if !ended {
        let _ = process.kill();
    }
    let status = process.wait().ok()?;
    // A line or two: the pipe held it meanwhile.
    let mut output = String::new();
    process.stdout.take()?.read_to_string(&mut output).ok()?;
    status.success().then_some(Run { ms, output })
}

fn has_ended(process: &Child) -> bool {
    let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
    let Some(Ok(pidfd)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return false };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&RUN_MAX)) == Ok(1)
}
