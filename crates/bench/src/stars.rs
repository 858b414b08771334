//! Stars against containers: start, memory, a hundred at once, recovery, and what the agent costs at rest
//! (targets rows 1, 2, 3, 4, 10, 16).

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use isolate::Launch;

use crate::agent::{Agent, get};
use crate::clock::{ms_between, now_ns};
use crate::engine::Engine;
use crate::report::{Report, Samples, Target};
use crate::{Bench, Depth, memory, peers};

/// A script whose first instruction says when it ran.
const STAMP: &str = "echo(time.monotonic_ns());\n";
/// A server that waits for requests: an idle star. It tells which star answers.
const IDLE: &str = r#"
turbo server = net.http_server("127.0.0.1", 8080);
server.route("/", blast () { return env.get("STAR_NAME") + " " + env.get("STAR_ID"); });
server.serve();
"#;

/// Between orders, for a nursery to make ahead what one of them used up.
const REST: Duration = Duration::from_millis(50);

const MIB: f64 = 1024.0 * 1024.0;

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    starts(bench, report);
    for (name, figures) in [
        ("memory_per_idle_star", memory_per_star as fn(&Bench, &mut Report) -> Result<(), String>),
        ("hundred_stars_ready", hundred),
        ("crash_to_ready", crash),
        ("agent_idle", agent_at_rest),
    ] {
        if bench.wants(name)
            && let Err(reason) = figures(bench, report)
        {
            report.failed(name, &reason);
        }
    }
}

/// Rows 1 and 2. The peers first, so that ours can be held against crun.
fn starts(bench: &Bench, report: &mut Report) {
    let samples = bench.depth.samples(100);
    for (name, peer) in
        [("start_fork_exec", peers::fork_exec as fn(&Path, usize) -> _), ("start_bwrap", peers::bubblewrap)]
    {
        if !bench.wants(name) {
            continue;
        }
        match peer(&bench.this, samples) {
            Ok(times) => report.figure(name, times.median(), "ms", Target::None, &times.spread()),
            Err(reason) => report.skipped(name, &reason),
        }
    }
    let crun = match bench.wants("start_crun") || bench.wants("start_rads_star") {
        true => peers::crun(&bench.this, samples),
        false => Err("not asked for".to_owned()),
    };
    match &crun {
        Ok(times) => report.figure("start_crun", times.median(), "ms", Target::None, &times.spread()),
        Err(reason) => report.skipped("start_crun", reason),
    }
    let script = || Launch::Script { path: "stamp.rads".to_owned() };
    let command = || Launch::Command { argv: vec!["./bench".to_owned(), "stamp".to_owned()] };
    for (name, launch, pause, limit, times_faster) in [
        ("start_rads_star", script(), Duration::ZERO, Some(5.0), 1.0),
        ("start_native_star", command(), Duration::ZERO, None, 2.0),
        ("start_rads_star_warm", script(), REST, Some(1.0), 3.0),
        ("start_native_star_warm", command(), REST, None, 2.0),
    ] {
        if !bench.wants(name) {
            continue;
        }
        match star_starts(bench, &launch, samples, pause) {
            Ok(times) => {
                let target = limit.map_or(Target::None, Target::AtMost);
                report.figure(name, times.median(), "ms", target, &times.spread());
                if let Ok(crun) = &crun {
                    let ratio = crun.median() / times.median();
                    report.figure(&format!("{name}_vs_crun"), ratio, "x", Target::AtLeast(times_faster), "medians");
                }
            }
            Err(reason) => report.failed(name, &reason),
        }
    }
}

/// From the order to the first instruction of the program, all walls standing and limits applied. Without a `pause` the
/// orders follow one upon the other and every star is made from nothing; with one the nursery makes ahead what it can.
fn star_starts(bench: &Bench, launch: &Launch, samples: usize, pause: Duration) -> Result<Samples, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let stamp = written(folder.path(), "stamp.rads", STAMP)?;
    let mut engine = Engine::start(&bench.rads, folder.path(), &[("stamp.rads", &stamp), ("bench", &bench.this)])?;
    let mut times = Vec::with_capacity(samples);
    for _ in 0..samples {
        std::thread::sleep(pause);
        let started = engine.order(launch.clone())?;
        let line = engine.first_line(started.star)?;
        let stamp: u64 = line.trim().parse().map_err(|_| format!("the star wrote `{line}`"))?;
        times.push(ms_between(started.requested_ns, stamp));
    }
    Samples::new(times).ok_or_else(|| "no samples".to_owned())
}

/// Row 3: everything a star adds, its share of the nursery's growth included; of a command, what it takes beyond the same program
/// outside of any star.
fn memory_per_star(bench: &Bench, report: &mut Report) -> Result<(), String> {
    const STARS: u32 = 50;
    const COMMAND: [&str; 2] = ["sleep", "1000"];
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let idle = written(folder.path(), "idle.rads", IDLE)?;
    let files = [("idle.rads", idle.as_path())];
    let each = |name: &str, launch: Launch| -> Result<f64, String> {
        let mut engine = Engine::start(&bench.rads, &folder.path().join(name), &files)?;
        let nursery_before = memory::mapped(engine.pid())?.private_dirty;
        let mut stars = Vec::new();
        for _ in 0..STARS {
            stars.push(engine.order(launch.clone())?);
        }
        // Idle means settled: the servers have bound their ports and gone to sleep.
        std::thread::sleep(Duration::from_millis(500));
        let mut total = memory::mapped(engine.pid())?.private_dirty.saturating_sub(nursery_before);
        for star in &stars {
            let mapped = memory::mapped(star.pid)?;
            let charged = isolate::stats(engine.data(), star.star).ok().and_then(|stats| stats.memory_bytes);
            // What the group is charged beyond the pages counted in PSS: kernel memory, page tables, tmpfs.
            total += mapped.pss + charged.unwrap_or_default().saturating_sub(mapped.private_dirty);
        }
        Ok(total as f64 / f64::from(STARS) / MIB)
    };
    let note = format!("PSS + kernel + nursery's growth, n={STARS}");
    let script = each("script", Launch::Script { path: "idle.rads".to_owned() })?;
    report.figure("memory_per_idle_star", script, "MB", Target::AtMost(1.2), &note);
    let command = each("command", Launch::Command { argv: COMMAND.map(str::to_owned).to_vec() })?;
    report.figure("memory_per_native_star", command, "MB", Target::None, &note);
    let bare = bare_memory(COMMAND, STARS)?;
    let note = format!("beyond the {bare:.2} MB (PSS) of `{}` without a star", COMMAND.join(" "));
    report.figure("memory_native_overhead", command - bare, "MB", Target::AtMost(0.3), &note);
    Ok(())
}

/// What one of so many programs takes that run in no star, in MB (PSS).
fn bare_memory([program, argument]: [&str; 2], count: u32) -> Result<f64, String> {
    let mut programs = Vec::new();
    let mut start = || -> Result<(), String> {
        let started = Command::new(program).arg(argument).spawn();
        programs.push(started.map_err(|error| format!("`{program}`: {error}"))?);
        Ok(())
    };
    let started = (0..count).try_for_each(|_| start());
    std::thread::sleep(Duration::from_millis(500));
    let total = programs.iter().try_fold(0, |sum, program| Ok(sum + memory::mapped(program.id())?.pss));
    for mut program in programs {
        let _ = program.kill();
        let _ = program.wait();
    }
    started?;
    total.map(|total| total as f64 / f64::from(count) / MIB)
}

/// Row 4: `rads up -d` with an agent running, until every star is ready: evaluation, bundle and plan included.
fn hundred(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let app = idle_app(folder.path(), 100)?;
    let agent = Agent::start(&bench.rads, folder.path())?;
    let started = Instant::now();
    agent.run(&["up", "-d", "--yes", &app])?;
    let elapsed = started.elapsed().as_secs_f64() * 1e3;
    report.figure(
        "hundred_stars_ready",
        elapsed,
        "ms",
        Target::AtMost(1000.0),
        "`rads up -d`, whole command, fsync on",
    );
    let started = Instant::now();
    agent.run(&["c", "down", "idle"])?;
    let elapsed = started.elapsed().as_secs_f64() * 1e3;
    report.figure("hundred_stars_down", elapsed, "ms", Target::AtMost(1000.0), "`rads c down`, drained and gone");
    Ok(())
}

/// Row 10: the only star of a service is killed; until another answers through the proxy.
fn crash(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let app = idle_app(folder.path(), 1)?;
    let agent = Agent::start(&bench.rads, folder.path())?;
    agent.run(&["up", "-d", "--yes", &app])?;
    let port = entry_port(&agent)?;
    let mut times = Vec::new();
    let crashes = if bench.depth == Depth::Quick { 2 } else { 5 };
    for crash in 0..crashes {
        // Only a first failure is replaced at once; a stable minute or a restart makes it a first one again.
        if crash > 0 {
            agent.run(&["c", "restart", "idle"])?;
        }
        let before = get(port, "/").ok_or("the service does not answer")?;
        let pid = only_star_pid(&agent)?;
        let killed = now_ns();
        let raw = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).ok_or("the star has no pid")?;
        rustix::process::kill_process(raw, rustix::process::Signal::KILL).map_err(|error| format!("kill: {error}"))?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while get(port, "/").is_none_or(|answer| answer == before) {
            if Instant::now() > deadline {
                return Err("no other star answered within 10 s".to_owned());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        times.push(ms_between(killed, now_ns()));
    }
    let times = Samples::new(times).ok_or("no samples")?;
    let note = format!("SIGKILL to an answer of another star; {}", times.spread());
    report.figure("crash_to_ready", times.median(), "ms", Target::AtMost(50.0), &note);
    Ok(())
}

/// Row 16: with three idle stars.
fn agent_at_rest(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let app = idle_app(folder.path(), 3)?;
    let agent = Agent::start(&bench.rads, folder.path())?;
    agent.run(&["up", "-d", "--yes", &app])?;
    let window = Duration::from_secs(if bench.depth == Depth::Quick { 5 } else { 20 });
    std::thread::sleep(Duration::from_secs(1));
    let before = memory::cpu_ticks(agent.pid())?;
    std::thread::sleep(window);
    let ticks = memory::cpu_ticks(agent.pid())?.saturating_sub(before);
    let resident = memory::resident(agent.pid())? as f64 / MIB;
    report.figure("agent_idle_memory", resident, "MB", Target::AtMost(40.0), "resident, 3 stars");
    let percent = ticks as f64 / window.as_secs_f64();
    report.figure("agent_idle_cpu", percent, "%core", Target::AtMost(0.5), "ticks of 10 ms, 3 stars");
    Ok(())
}

/// An app `idle` of `instances` idle stars behind any free port; gives the path of its description.
fn idle_app(folder: &Path, instances: u32) -> Result<String, String> {
    let folder = folder.join("idle");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    written(&folder, "idle.rads", IDLE)?;
    let app = format!(
        "import constellation;\nconstellation.deploy(\"idle\", {{ script: \"idle.rads\", instances: {instances}, \
         cpu_percent: 25, ram_mb: 64, port: 8080, listen: 0 }});\n"
    );
    Ok(written(&folder, "app.rads", &app)?.display().to_string())
}

/// The port the system chose, from `rads c status -o json`.
pub(crate) fn entry_port(agent: &Agent) -> Result<u16, String> {
    let status = json(&agent.run(&["c", "status", "-o", "json"])?)?;
    find(&status, &|value| {
        let address = value.as_str()?.strip_prefix("127.0.0.1:")?;
        address.parse::<u16>().ok().filter(|port| *port != 0)
    })
    .ok_or_else(|| "the status shows no entry point".to_owned())
}

/// The pid of the one star that runs, from `rads c list -o json`.
fn only_star_pid(agent: &Agent) -> Result<u64, String> {
    let list = json(&agent.run(&["c", "list", "-o", "json"])?)?;
    find(&list, &|value| (value["phase"] == "ready").then(|| value["pid"].as_u64()).flatten())
        .ok_or_else(|| "no star is ready".to_owned())
}

fn json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}

/// The first value anywhere inside for which `wanted` answers.
fn find<T>(value: &serde_json::Value, wanted: &impl Fn(&serde_json::Value) -> Option<T>) -> Option<T> {
    if let Some(found) = wanted(value) {
        return Some(found);
    }
    match value {
        serde_json::Value::Array(items) => items.iter().find_map(|item| find(item, wanted)),
        serde_json::Value::Object(fields) => fields.values().find_map(|field| find(field, wanted)),
        _ => None,
    }
}

fn written(folder: &Path, name: &str, text: &str) -> Result<std::path::PathBuf, String> {
    let path = folder.join(name);
    fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}
