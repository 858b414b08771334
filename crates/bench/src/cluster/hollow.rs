//! A hundred nodes whose stars are not real beside three real controllers (targets 17, 18): what controllers hold and use, what goes over
//! the network.
//!
//! All of it in a network namespace of its own, whose loopback carries nothing else: its counter is what all nodes together send. Without
//! root it is this machine's loopback, and said so.

pub(super) mod nodes;
mod nursery;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use super::machines::{Machine, Machines};
use crate::memory;
use crate::report::{Report, Samples, Target};
use crate::{Bench, Depth};

const CONTROLLERS: usize = 3;
/// Without the controllers, who get no stars.
const NODES: usize = 100;
/// What all the news of a deployment takes to arrive everywhere.
const SETTLED_AFTER: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(300);
const STEP: Duration = Duration::from_millis(200);

/// Measures in another process, which has the network namespace.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let mut command = match rustix::process::geteuid().is_root() {
        true => {
            let mut command = Command::new("unshare");
            command.args(["--net", "sh", "-c", "ip link set lo mtu 1500 up && exec \"$0\" \"$@\""]).arg(&bench.this);
            command
        }
        false => Command::new(&bench.this),
    };
    command.arg("hollow");
    if bench.depth == Depth::Quick {
        command.arg("--quick");
    }
    let status = command.status().map_err(|error| format!("cannot measure: {error}"))?;
    match status.code() {
        Some(0) => Ok(()),
        // It has printed its lines itself.
        Some(1) => {
            report.missed_elsewhere("hollow");
            Ok(())
        }
        _ => Err(format!("measuring ended by {status}")),
    }
}

/// The other process.
pub(crate) fn main(bench: &Bench) -> ExitCode {
    let mut report = Report::default();
    match all(bench, &mut report) {
        Ok(()) if report.missed().is_empty() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(1),
        Err(reason) => {
            report.failed("hollow", &reason);
            ExitCode::from(1)
        }
    }
}

fn all(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (stars, window) = match bench.depth {
        Depth::Quick => (1_000, Duration::from_secs(10)),
        Depth::Full => (10_000, Duration::from_secs(60)),
    };
    let (mut controllers, _) = Machines::found(bench, folder.path())?;
    controllers.join("controller", CONTROLLERS)?;
    controllers.until_voters(CONTROLLERS)?;
    for controller in &controllers.all {
        controllers.all[0].agent.run(&["c", "cordon", &controller.name])?;
    }
    let first = &controllers.all[0];
    let (hollow, joined) = Hollow::start(bench, folder.path(), first)?;
    let note = format!("{NODES} of them, 4 at once; {}", joined.spread());
    report.figure("hollow_join", joined.median(), "ms", Target::AtMost(2_000.0), &note);
    until_alive(first, NODES + CONTROLLERS)?;
    std::thread::sleep(SETTLED_AFTER);
    resting(&controllers, &hollow, "no stars", window / 2, report)?;

    let took = deploy(folder.path(), first, stars)?;
    let note = format!("until all are ready, {NODES} hollow nodes");
    report.figure(&format!("hollow_{stars}_stars"), took.as_secs_f64(), "s", Target::None, &note);
    std::thread::sleep(SETTLED_AFTER);
    resting(&controllers, &hollow, &format!("{stars} stars"), window, report)
}

/// The process with the hollow nodes; it ends with this.
struct Hollow {
    process: Child,
}

impl Drop for Hollow {
    fn drop(&mut self) {
        // Gone already is as well.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Hollow {
    fn start(bench: &Bench, folder: &Path, to: &Machine) -> Result<(Self, Samples), String> {
        let token = to.token("worker", NODES)?;
        let address = to.nodes()?.into_iter().find(|node| node.name == to.name).ok_or("no node")?.address;
        let process = Command::new(&bench.this)
            .arg("hollow-nodes")
            .arg(folder)
            .args([&NODES.to_string(), &address, &token])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("no hollow nodes: {error}"))?;
        let mut this = Self { process };
        let told = this.process.stdout.take().ok_or("no output of hollow nodes")?;
        let lines = BufReader::new(told).lines().map_while(Result::ok);
        let times = lines.filter_map(|line| line.strip_prefix("joined ").and_then(|time| time.parse().ok()));
        let times: Vec<f64> = times.take(NODES).collect();
        match times.len() {
            NODES => Ok((this, Samples::new(times).ok_or("nobody joined")?)),
            joined => Err(format!("only {joined} of {NODES} hollow nodes joined")),
        }
    }
}

fn until_alive(at: &Machine, count: usize) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while at.nodes()?.iter().filter(|node| node.alive).count() < count {
        if Instant::now() > deadline {
            return Err(format!("there are not {count} nodes within {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(STEP);
    }
    Ok(())
}

fn deploy(folder: &Path, at: &Machine, stars: usize) -> Result<Duration, String> {
    let app = folder.join("fleet.rads");
    let text = format!(
        "import constellation;\nconstellation.deploy(\"fleet\", \
         {{ command: [\"sleep\", \"1000\"], instances: {stars}, cpu_percent: 1, ram_mb: 16 }});\n"
    );
    std::fs::write(&app, text).map_err(|error| error.to_string())?;
    let began = Instant::now();
    at.agent.run(&["up", "-d", "--yes", &app.display().to_string()])?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let (client, _) = api::Client::connect(&at.data()).await.map_err(|problem| problem.to_string())?;
        loop {
            let services = client.services().await.map_err(|problem| problem.to_string())?;
            if services.iter().map(|service| service.ready as usize).sum::<usize>() >= stars {
                return Ok(began.elapsed());
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("{stars} stars are not ready within {} s", PATIENCE.as_secs()));
            }
            tokio::time::sleep(STEP).await;
        }
    })
}

/// What everybody costs while nothing happens.
fn resting(
    controllers: &Machines<'_>,
    hollow: &Hollow,
    with: &str,
    window: Duration,
    report: &mut Report,
) -> Result<(), String> {
    let name = |what: &str| format!("hollow_{what}_{}", with.replace(' ', "_"));
    let mut pids: Vec<u32> = controllers.all.iter().map(|machine| machine.agent.pid()).collect();
    pids.push(hollow.process.id());
    let used = || pids.iter().map(|pid| memory::used(*pid)).collect::<Result<Vec<_>, _>>();
    let (before, sent, began) = (used()?, loopback()?, Instant::now());
    std::thread::sleep(window);
    let (after, sent, took) = (used()?, loopback()?.saturating_sub(sent), began.elapsed().as_secs_f64());
    let mut percent: Vec<f64> = before
        .iter()
        .zip(&after)
        .map(|(before, after)| after.since(*before).time.as_secs_f64() / took * 100.0)
        .collect();
    let theirs = percent.pop().unwrap_or_default() / NODES as f64;
    let most = percent.into_iter().fold(0.0, f64::max);
    let note =
        format!("of a core, the busiest of {CONTROLLERS}, {NODES} hollow nodes, {with}; each of those {theirs:.2}");
    report.figure(&name("controller_cpu"), most, "%", Target::AtMost(5.0), &note);
    let theirs = pids.pop().map_or(Ok(0), memory::resident)?;
    let memory = |pid: &u32| Ok((memory::resident(*pid)?, memory::resident_own(*pid)?));
    let (all, own) = pids.iter().map(memory).collect::<Result<Vec<_>, String>>()?.into_iter().max().unwrap_or_default();
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let note = format!(
        "resident, the largest of {CONTROLLERS}: {:.1} its own, the rest pages of files; hollow nodes {:.1} each",
        mb(own),
        mb(theirs) / NODES as f64
    );
    report.figure(&name("controller_memory"), mb(all), "MB", Target::AtMost(100.0), &note);
    let each = sent as f64 * 8.0 / took / (NODES + CONTROLLERS) as f64 / 1e6;
    let whose = if rustix::process::geteuid().is_root() { "nothing else is" } else { "with whatever else is" };
    let note = format!(
        "each way and node, in the mean, packets of 1,500 bytes with all heads, over {took:.0} s; {whose} on this loopback"
    );
    report.figure(&name("traffic"), each, "Mbit/s", Target::AtMost(0.1), &note);
    Ok(())
}

/// Bytes that loopback has carried.
fn loopback() -> Result<u64, String> {
    let text = std::fs::read_to_string("/proc/net/dev").map_err(|error| error.to_string())?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let sent = line.and_then(|line| line.split_whitespace().nth(8)).and_then(|sent| sent.parse().ok());
    sent.ok_or_else(|| "no loopback".to_owned())
}
