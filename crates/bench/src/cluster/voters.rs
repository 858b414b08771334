//! Three to five controllers beside etcd's three (targets 7, 8, 9, 16): writes, a leader's death, a machine's death, what idling costs.
//!
//! Mutual TLS between ours, none between etcd's; the same disk. Writes go to the leader's API over its socket,
//! as etcd's go to its leader. What is compared is measured in turns.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::machines::{Machines, PATIENCE};
use crate::etcd::Etcd;
use crate::memory;
use crate::report::{Report, Samples, Target};
use crate::{Bench, Depth};

/// Clients that write at once.
const CLIENTS: usize = 64;
const NODES: usize = 5;
/// What is left of joining, or of writing, is over by then.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
/// How long idling is looked at, each time.
const IDLE_FOR: Duration = Duration::from_secs(10);
/// How often ours and etcd's are looked at in turns: what else the machine does comes and goes.
const TURNS: usize = 3;

pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let window = if bench.depth == Depth::Quick { Duration::from_secs(3) } else { Duration::from_secs(10) };
    let rounds = bench.depth.samples(10).min(10);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())?;

    let (mut machines, took) = Machines::found(bench, folder.path())?;
    report.figure("constellation_founded", took, "ms", Target::None, "one node, until it answers");
    told_join(machines.join("controller", 3)?, 3, report)?;
    let nodes = machines.until_voters(3)?;
    idle(&machines, report)?;

    let leader = machines.leader(&nodes)?;
    let asked = nodes.iter().find(|node| node.name != machines.all[leader].name).ok_or("no follower")?;
    let socket = machines.all[leader].socket();
    let etcd = Etcd::start(&folder.path().join("etcd-writes"));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        ours.push(runtime.block_on(writes(&socket, &asked.id, window))?);
        if let Some(etcd) = &etcd {
            theirs.extend(runtime.block_on(etcd_writes(etcd, window)));
        }
    }
    etcd_idle(etcd.as_ref(), report)?;
    drop(etcd);
    told_writes(report, &ours, &theirs, window);

    let ours = fail_over(bench, &mut machines, rounds)?;
    let theirs = runtime.block_on(etcd_fail_over(folder.path(), rounds));
    told_fail_over(report, ours, theirs);

    told_join(machines.join("controller", NODES)?, NODES, report)?;
    machines.until_voters(5)?;
    death(&machines, folder.path(), report)
}

fn told_join(times: Vec<f64>, until: usize, report: &mut Report) -> Result<(), String> {
    let times = Samples::new(times).ok_or("nobody joined")?;
    let note = format!("until it answers as a node; {}", times.spread());
    report.figure(&format!("join_of_{until}_nodes"), times.median(), "ms", Target::AtMost(2_000.0), &note);
    Ok(())
}

/// What an agent costs that has nothing to do.
fn idle(machines: &Machines<'_>, report: &mut Report) -> Result<(), String> {
    std::thread::sleep(SETTLED_AFTER);
    let pids: Vec<u32> = machines.all.iter().map(|machine| machine.agent.pid()).collect();
    let (times, woken) = idling(&pids)?;
    let note = format!("of a core, the busiest of 3; {}; woken {woken} times a second", times.spread());
    report.figure("idle_voter_cpu", times.median(), "%", Target::AtMost(0.5), &note);
    let memory = |pid: &u32| Ok((memory::resident(*pid)?, memory::resident_own(*pid)?));
    let (all, own) = pids.iter().map(memory).collect::<Result<Vec<_>, String>>()?.into_iter().max().unwrap_or_default();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let note = format!("resident, the largest of 3: {:.1} its own, the rest pages of files", mib(own));
    report.figure("idle_voter_memory", mib(all), "MiB", Target::AtMost(40.0), &note);
    Ok(())
}

/// The same of etcd, which has been written to and is not any more; ours are idle beside it.
fn etcd_idle(etcd: Option<&Etcd>, report: &mut Report) -> Result<(), String> {
    let Some(etcd) = etcd else {
        report.skipped("etcd_idle_cpu", "etcd is not installed");
        return Ok(());
    };
    std::thread::sleep(SETTLED_AFTER);
    let (times, woken) = idling(&etcd.pids())?;
    let note = format!("of a core, the busiest of 3; {}; woken {woken} times a second", times.spread());
    report.figure("etcd_idle_cpu", times.median(), "%", Target::None, &note);
    Ok(())
}

/// What the busiest of some processes uses, in percent of a core, and how often each was woken in a second, the last time.
fn idling(pids: &[u32]) -> Result<(Samples, String), String> {
    let used = || pids.iter().map(|pid| memory::used(*pid)).collect::<Result<Vec<_>, _>>();
    let (mut times, mut woken) = (Vec::new(), String::new());
    for _ in 0..TURNS {
        let (before, began) = (used()?, Instant::now());
        std::thread::sleep(IDLE_FOR);
        let (after, took) = (used()?, began.elapsed().as_secs_f64());
        let used: Vec<memory::Used> = before.iter().zip(&after).map(|(before, after)| after.since(*before)).collect();
        times.push(used.iter().map(|used| used.time.as_secs_f64()).fold(0.0, f64::max) / took * 100.0);
        woken = used.iter().map(|used| format!("{:.0}", used.woken as f64 / took)).collect::<Vec<_>>().join(", ");
    }
    Ok((Samples::new(times).ok_or("nobody idles")?, woken))
}

/// Changes of a node's duty, one after the other by each client, on a connection of its own.
async fn writes(socket: &Path, node: &str, window: Duration) -> Result<Vec<Duration>, String> {
    let end = Instant::now() + window;
    let writing = (0..CLIENTS).map(|client| {
        let (socket, path) = (socket.to_owned(), format!("/v1/nodes/{node}/duty"));
        tokio::spawn(async move {
            let mut times = Vec::new();
            let mut connection = connect(&socket).await?;
            while Instant::now() < end {
                let duty = if (times.len() + client) % 2 == 0 { "cordoned" } else { "takes" };
                let asked = Instant::now();
                put(&mut connection, &path, duty).await?;
                times.push(asked.elapsed());
            }
            Ok::<_, String>(times)
        })
    });
    let mut all = Vec::new();
    for client in writing.collect::<Vec<_>>() {
        all.extend(client.await.map_err(|error| error.to_string())??);
    }
    Ok(all)
}

type Connection = http1::SendRequest<Full<Bytes>>;

async fn connect(socket: &Path) -> Result<Connection, String> {
    let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    let (connection, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(driver);
    Ok(connection)
}

async fn put(connection: &mut Connection, path: &str, duty: &str) -> Result<(), String> {
    let request = hyper::Request::put(path)
        .header("host", "rads")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(format!("{{\"duty\":\"{duty}\"}}"))))
        .map_err(|error| error.to_string())?;
    connection.ready().await.map_err(|error| error.to_string())?;
    let answer = connection.send_request(request).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    match status.is_success() {
        true => Ok(()),
        false => Err(format!("{status}: {}", String::from_utf8_lossy(&body))),
    }
}

async fn etcd_writes(etcd: &Etcd, window: Duration) -> Option<Vec<Duration>> {
    let leader = etcd.leader().await?;
    Some(etcd.writes(leader, CLIENTS, window).await)
}

/// How many a second, and how long each took: of all turns together. The target is twice what etcd writes in the same turns.
fn told_writes(report: &mut Report, ours: &[Vec<Duration>], theirs: &[Vec<Duration>], window: Duration) {
    let told = |turns: &[Vec<Duration>]| {
        let rates = Samples::new(turns.iter().map(|times| times.len() as f64 / window.as_secs_f64()).collect())?;
        let latency = Samples::new(turns.iter().flatten().map(|time| time.as_secs_f64() * 1e3).collect())?;
        let (p50, p99, spread) = (latency.median(), latency.quantile(0.99), rates.spread());
        let note = format!("{CLIENTS} clients, in turns with the other; {spread}; p50 {p50:.2} ms, p99 {p99:.2}");
        Some((rates.median(), p99, note))
    };
    let Some((rate, p99, note)) = told(ours) else { return report.failed("durable_writes", "none was answered") };
    match told(theirs) {
        Some((etcd, etcd_p99, etcd_note)) => {
            report.figure("etcd_durable_writes", etcd, "1/s", Target::None, &etcd_note);
            report.figure("durable_writes", rate, "1/s", Target::AtLeast(2.0 * etcd), &note);
            report.figure("durable_write_p99", p99, "ms", Target::AtMost(etcd_p99), "beside etcd's");
        }
        None => {
            report.skipped("etcd_durable_writes", "etcd is not installed");
            report.figure("durable_writes", rate, "1/s", Target::None, &note);
        }
    }
}

/// Kills the leader's agent and asks another for a change until one is written; the agent is started again.
fn fail_over(bench: &Bench, machines: &mut Machines<'_>, rounds: usize) -> Result<Vec<f64>, String> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let nodes = machines.until_voters(3)?;
        let leader = machines.leader(&nodes)?;
        let asked = nodes.iter().find(|node| !node.leads).ok_or("no follower")?.id.clone();
        let other = (0..machines.all.len()).find(|at| *at != leader).ok_or("no other")?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        let socket = machines.all[other].socket();
        let began = Instant::now();
        machines.all[leader].agent.kill();
        let written = runtime.block_on(async {
            let mut connection = connect(&socket).await?;
            while began.elapsed() < PATIENCE {
                if put(&mut connection, &format!("/v1/nodes/{asked}/duty"), "takes").await.is_ok() {
                    return Ok(began.elapsed());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err("no change was written after the leader's death".to_owned())
        });
        times.push(written?.as_secs_f64() * 1e3);
        machines.all[leader].start_again(bench)?;
    }
    Ok(times)
}

async fn etcd_fail_over(folder: &Path, rounds: usize) -> Option<Vec<f64>> {
    let mut times = Vec::new();
    for round in 0..rounds.min(3) {
        let mut etcd = Etcd::start(&folder.join(format!("etcd-{round}")))?;
        let leader = etcd.leader().await?;
        // It is killed while it is at work, as ours is.
        etcd.writes(leader, 1, Duration::from_secs(1)).await;
        times.push(etcd.fail_over(leader).await?.as_secs_f64() * 1e3);
    }
    Some(times)
}

fn told_fail_over(report: &mut Report, ours: Vec<f64>, theirs: Option<Vec<f64>>) {
    match theirs.and_then(Samples::new) {
        Some(theirs) => report.figure("etcd_fail_over", theirs.median(), "ms", Target::None, &theirs.spread()),
        None => report.skipped("etcd_fail_over", "etcd is not installed"),
    }
    match Samples::new(ours) {
        Some(ours) => {
            let note = format!("leader's agent killed until another takes a change; {}", ours.spread());
            report.figure("fail_over", ours.median(), "ms", Target::AtMost(1_000.0), &note);
        }
        None => report.failed("fail_over", "no leader was killed"),
    }
}

/// A machine's death: everything of it is killed, and its stars are waited for elsewhere.
fn death(machines: &Machines<'_>, folder: &Path, report: &mut Report) -> Result<(), String> {
    let app = folder.join("app.rads");
    let text =
        "import constellation;\nconstellation.deploy(\"idle\", { command: [\"sleep\", \"1000\"], instances: 10 });\n";
    std::fs::write(&app, text).map_err(|error| error.to_string())?;
    let nodes = machines.until_voters(NODES)?;
    let leader = machines.leader(&nodes)?;
    machines.all[leader].agent.run(&["up", "-d", "--yes", &app.display().to_string()])?;
    let dead = &machines.all[(leader + 1) % machines.all.len()];
    let began = Instant::now();
    dead.agent.kill_machine()?;
    loop {
        let stars = machines.all[leader].json(&["c", "list"])?;
        let ready = stars.as_array().into_iter().flatten().filter(|star| star["phase"] == "ready");
        let elsewhere =
            ready.filter(|star| star["node_name"] != dead.name.as_str() && star["node"] != dead.name.as_str());
        if elsewhere.count() >= 10 {
            break;
        }
        if began.elapsed() > PATIENCE {
            return Err("the stars of a dead machine do not run elsewhere within 30 s".to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let note = format!("{NODES} nodes, 10 stars; agent, nursery and stars of one killed until all are ready elsewhere");
    report.figure("machine_death_to_ready", began.elapsed().as_secs_f64() * 1e3, "ms", Target::AtMost(10_000.0), &note);
    Ok(())
}
