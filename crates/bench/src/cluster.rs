//! What a constellation costs and how soon it does what is asked of it, beside etcd (targets 7, 8, 9, 16).
//!
//! Three to five real agents on loopback, each with a data folder of its own on the same disk, mutual TLS between them, and
//! etcd's three processes on that disk after them. Writes go to the leader's API over its socket, as etcd's go to its leader.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::agent::Agent;
use crate::etcd::Etcd;
use crate::memory;
use crate::report::{Report, Samples, Target};
use crate::{Bench, Depth};

/// Clients that write at once.
const CLIENTS: usize = 64;
const NODES: usize = 5;
const PATIENCE: Duration = Duration::from_secs(30);
/// Linux counts processor time in these (getconf CLK_TCK).
const TICKS_A_SECOND: f64 = 100.0;

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    if let Err(reason) = all(bench, report) {
        report.failed("constellation", &reason);
    }
}

struct Member {
    agent: Agent,
    folder: PathBuf,
}

impl Member {
    fn start(bench: &Bench, folder: PathBuf) -> Result<Self, String> {
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        Ok(Self { agent: Agent::start(&bench.rads, &folder)?, folder })
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("data/agent.sock")
    }
}

fn all(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let window = if bench.depth == Depth::Quick { Duration::from_secs(3) } else { Duration::from_secs(10) };
    let rounds = bench.depth.samples(10).min(10);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())?;

    let mut members = vec![found(bench, folder.path(), report)?];
    join(bench, folder.path(), &mut members, 3, report)?;
    let nodes = until_voters(&members, 3)?;
    idle(&members, report)?;

    let leader = leader_of(&nodes)?;
    let asked = nodes.iter().find(|node| node.name != members[leader].1).ok_or("no follower")?;
    let socket = members[leader].0.socket();
    let ours = runtime.block_on(writes(&socket, &asked.id, window))?;
    let theirs = runtime.block_on(etcd_writes(folder.path(), window));
    told_writes(report, &ours, theirs.as_deref(), window);

    let ours = fail_over(bench, &mut members, rounds)?;
    let theirs = runtime.block_on(etcd_fail_over(folder.path(), rounds));
    told_fail_over(report, ours, theirs);

    join(bench, folder.path(), &mut members, NODES, report)?;
    until_voters(&members, 5)?;
    death(&members, folder.path(), report)
}

type Members = Vec<(Member, String)>;

fn address() -> Result<String, String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.to_string()).map_err(|error| error.to_string())
}

fn found(bench: &Bench, folder: &Path, report: &mut Report) -> Result<(Member, String), String> {
    let member = Member::start(bench, folder.join("node-1"))?;
    let address = address()?;
    let began = Instant::now();
    let name = "node-1".to_owned();
    let place = ["--listen", &address, "--advertise", &address];
    member.agent.run(&[&["c", "init", "--cluster", "bench", "--name", &name], &place[..]].concat())?;
    report.figure(
        "constellation_founded",
        began.elapsed().as_secs_f64() * 1e3,
        "ms",
        Target::None,
        "one node, until it answers",
    );
    Ok((member, name))
}

/// Lets machines join until there are so many.
fn join(bench: &Bench, folder: &Path, members: &mut Members, until: usize, report: &mut Report) -> Result<(), String> {
    let first = &members[0].0.agent;
    let made: serde_json::Value =
        json(first, &["c", "token", "create", "--role", "controller", "--uses", "16", "-o", "json"])?;
    let token = made["token"].as_str().ok_or("no token")?.to_owned();
    let to = nodes(first)?.into_iter().next().ok_or("no node")?.address;
    let mut times = Vec::new();
    for number in members.len() + 1..=until {
        let name = format!("node-{number}");
        let member = Member::start(bench, folder.join(&name))?;
        let address = address()?;
        let began = Instant::now();
        let how = ["--name", &name, "--token", &token, "--listen", &address, "--advertise", &address];
        member.agent.run(&[&["c", "join", &to], &how[..]].concat())?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        members.push((member, name));
    }
    let times = Samples::new(times).ok_or("nobody joined")?;
    let note = format!("until it answers as a node; {}", times.spread());
    report.figure(&format!("join_of_{until}_nodes"), times.median(), "ms", Target::AtMost(2_000.0), &note);
    Ok(())
}

/// A line of `rads c nodes -o json`.
struct Node {
    id: String,
    name: String,
    address: String,
    votes: bool,
    leads: bool,
    alive: bool,
}

fn json(agent: &Agent, args: &[&str]) -> Result<serde_json::Value, String> {
    serde_json::from_str(&agent.run(args)?).map_err(|error| format!("`rads {}`: {error}", args.join(" ")))
}

fn nodes(agent: &Agent) -> Result<Vec<Node>, String> {
    let answer = json(agent, &["c", "nodes", "-o", "json"])?;
    let list = answer.as_array().or_else(|| answer["nodes"].as_array()).ok_or("no list of nodes")?;
    let text = |node: &serde_json::Value, field: &str| node[field].as_str().unwrap_or_default().to_owned();
    let read = |node: &serde_json::Value| Node {
        id: text(node, "id"),
        name: text(node, "name"),
        address: text(node, "address"),
        votes: node["votes"] == true,
        leads: node["leads"] == true,
        alive: node["health"] == "alive",
    };
    Ok(list.iter().map(read).collect())
}

/// What all see once so many vote, and all are there.
fn until_voters(members: &Members, voters: usize) -> Result<Vec<Node>, String> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for (member, _) in members {
            let Ok(nodes) = nodes(&member.agent) else { continue };
            let vote = nodes.iter().filter(|node| node.votes && node.alive).count();
            if vote == voters && nodes.iter().any(|node| node.leads && node.alive) {
                return Ok(nodes);
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("there are not {voters} voters within {} s", PATIENCE.as_secs()))
}

fn leader_of(nodes: &[Node]) -> Result<usize, String> {
    let leader = nodes.iter().find(|node| node.leads).ok_or("nobody leads")?;
    let number = leader.name.rsplit('-').next().and_then(|number| number.parse::<usize>().ok());
    number.map(|number| number - 1).ok_or_else(|| format!("`{}` is no node of ours", leader.name))
}

/// What an agent costs that has nothing to do.
fn idle(members: &Members, report: &mut Report) -> Result<(), String> {
    std::thread::sleep(Duration::from_secs(2));
    let ticks = |(member, _): &(Member, String)| memory::cpu_ticks(member.agent.pid());
    let before: Vec<u64> = members.iter().map(ticks).collect::<Result<_, _>>()?;
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(10));
    let after: Vec<u64> = members.iter().map(ticks).collect::<Result<_, _>>()?;
    let used = before.iter().zip(&after).map(|(before, after)| (after - before) as f64 / TICKS_A_SECOND);
    let most = used.fold(0.0, f64::max) / began.elapsed().as_secs_f64() * 100.0;
    report.figure("idle_voter_cpu", most, "%", Target::AtMost(0.5), "of a core, the busiest of 3 voters, over 10 s");
    let resident: Vec<u64> =
        members.iter().map(|(member, _)| memory::resident(member.agent.pid())).collect::<Result<_, _>>()?;
    let most = resident.into_iter().max().unwrap_or(0) as f64 / f64::from(1 << 20);
    report.figure("idle_voter_memory", most, "MiB", Target::AtMost(40.0), "resident, the largest of 3 voters");
    Ok(())
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

async fn etcd_writes(folder: &Path, window: Duration) -> Option<Vec<Duration>> {
    let etcd = Etcd::start(&folder.join("etcd-writes"))?;
    let leader = etcd.leader().await?;
    Some(etcd.writes(leader, CLIENTS, window).await)
}

fn told_writes(report: &mut Report, ours: &[Duration], theirs: Option<&[Duration]>, window: Duration) {
    let millis = |times: &[Duration]| Samples::new(times.iter().map(|time| time.as_secs_f64() * 1e3).collect());
    let rate = |times: &[Duration]| times.len() as f64 / window.as_secs_f64();
    let theirs = theirs.and_then(|times| Some((rate(times), millis(times)?)));
    let Some(latency) = millis(ours) else { return report.failed("durable_writes", "none was answered") };
    let note = |latency: &Samples| {
        format!("{CLIENTS} clients; p50 {:.2} ms, p99 {:.2}", latency.median(), latency.quantile(0.99))
    };
    match &theirs {
        Some((etcd, theirs)) => {
            report.figure("etcd_durable_writes", *etcd, "1/s", Target::None, &note(theirs));
            report.figure("durable_writes", rate(ours), "1/s", Target::AtLeast(2.0 * etcd), &note(&latency));
            let p99 = theirs.quantile(0.99);
            report.figure("durable_write_p99", latency.quantile(0.99), "ms", Target::AtMost(p99), "beside etcd's");
        }
        None => {
            report.skipped("etcd_durable_writes", "etcd is not installed");
            report.figure("durable_writes", rate(ours), "1/s", Target::None, &note(&latency));
        }
    }
}

/// Kills the leader's agent and asks another for a change until one is written; the agent is started again.
fn fail_over(bench: &Bench, members: &mut Members, rounds: usize) -> Result<Vec<f64>, String> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let nodes = until_voters(members, 3)?;
        let leader = leader_of(&nodes)?;
        let asked = nodes.iter().find(|node| !node.leads).ok_or("no follower")?.id.clone();
        let other = (0..members.len()).find(|at| *at != leader).ok_or("no other")?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        let socket = members[other].0.socket();
        let began = Instant::now();
        members[leader].0.agent.kill();
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
        let folder = members[leader].0.folder.clone();
        members[leader].0 = Member::start(bench, folder)?;
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
fn death(members: &Members, folder: &Path, report: &mut Report) -> Result<(), String> {
    let app = folder.join("app.rads");
    let text =
        "import constellation;\nconstellation.deploy(\"idle\", { command: [\"sleep\", \"1000\"], instances: 10 });\n";
    std::fs::write(&app, text).map_err(|error| error.to_string())?;
    let nodes = until_voters(members, NODES)?;
    let leader = leader_of(&nodes)?;
    members[leader].0.agent.run(&["up", "-d", "--yes", &app.display().to_string()])?;
    let dying = (leader + 1) % members.len();
    let dead = &members[dying];
    let began = Instant::now();
    dead.0.agent.kill_machine()?;
    loop {
        let stars = json(&members[leader].0.agent, &["c", "list", "-o", "json"])?;
        let ready = stars.as_array().into_iter().flatten().filter(|star| star["phase"] == "ready");
        let elsewhere = ready.filter(|star| star["node_name"] != dead.1.as_str() && star["node"] != dead.1.as_str());
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
