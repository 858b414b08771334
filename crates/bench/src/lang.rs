//! The language against its peers: the same small programs in RADS, Lua, CPython and Node, timed as whole
//! processes in turns, so that a noisy moment hits all of them.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

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
    let samples = (0..bench.depth.samples(50)).filter_map(|_| time(&bench.rads, &["run"], &script)).collect();
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
    let samples = (0..bench.depth.samples(50)).filter_map(|_| time(Path::new("lua5.4"), &[], &peer)).collect();
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

/// One program in every language, in turns. Ours is held against Lua, the fastest plain interpreter of them.
fn compare(bench: &Bench, program: &str, report: &mut Report) {
    let folder = bench.root.join("benches/lang");
    let ours = folder.join(format!("{program}.rads"));
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); PEERS.len() + 1];
    for _ in 0..bench.depth.samples(10) {
        times[0].extend(time(&bench.rads, &["run"], &ours));
        for (index, (command, extension)) in PEERS.iter().enumerate() {
            let file = folder.join(format!("{program}.{extension}"));
            times[index + 1].extend(time(Path::new(command), &[], &file));
        }
    }
    let mut times = times.into_iter().map(Samples::new);
    let Some(rads) = times.next().flatten() else {
        report.failed(&format!("{program}_rads"), "the program failed");
        return;
    };
    let peers: Vec<_> = PEERS.iter().zip(times).collect();
    let lua = peers.iter().find(|((command, _), _)| *command == "lua5.4").and_then(|(_, times)| times.as_ref());
    let target = lua.map_or(Target::None, |lua| Target::AtMost(lua.median()));
    report.figure(&format!("{program}_rads"), rads.median(), "ms", target, &rads.spread());
    for ((command, _), times) in &peers {
        let name = format!("{program}_{command}");
        match times {
            Some(times) => report.figure(&name, times.median(), "ms", Target::None, &times.spread()),
            None => report.skipped(&name, &format!("{command} is not installed")),
        }
    }
}

/// Milliseconds of one whole run; `None` when it cannot be run or fails.
fn time(program: &Path, args: &[&str], script: &Path) -> Option<f64> {
    let start = now_ns();
    let status =
        Command::new(program).args(args).arg(script).stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
    let elapsed = ms_between(start, now_ns());
    status.success().then_some(elapsed)
}
