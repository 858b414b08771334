//! Durable writes a second with three voters, and what the death of a leader costs, beside etcd on the same disk.
//!
//! `writes [--seconds N] [--dir FOLDER] [--etcd]`. The voters and their clients are in this process and speak without
//! sockets; each voter has its own file and syncs it. etcd runs as three processes on loopback, without TLS, and is written
//! to by gRPC over one connection a client. So the figures compare log, disk and agreement; what a network and TLS add to
//! ours is not in them.

#[path = "../../bench/src/etcd.rs"]
#[allow(dead_code)] // of the peer only its writes are asked for here
mod etcd;
#[path = "../tests/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use consensus::{Config, Consensus, Role, found};
use etcd::Etcd;
use model::NodeId;
use state::State;
use support::disk::OnDisk;
use support::{Net, Voter, sample, scale, start};

const CLIENTS: [usize; 3] = [1, 64, 256];
const KILLS: usize = 9;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let args: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let seconds = after("--seconds").and_then(|text| text.parse().ok()).unwrap_or(5);
    let dir = after("--dir").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(dir).expect("a folder");
    let window = Duration::from_secs(seconds);
    println!("# 3 voters, fsync on, {} · network: none (one process)", dir.path().display());
    println!("# sync of 4 KiB: {:?} (median of 200)", sync_time(dir.path()));
    // One after the other, twice, so that a change of the machine's load shows.
    for round in 1..=2 {
        println!("# round {round}");
        runtime.block_on(ours(&dir.path().join(format!("ours-{round}")), window));
        if args.iter().any(|arg| arg == "--etcd") {
            runtime.block_on(etcd(&dir.path().join(format!("etcd-{round}")), window));
        }
    }
    runtime.block_on(failover(&dir.path().join("failover")));
    // Killed voters may still be ending.
    runtime.shutdown_background();
}

/// What everyone here waits for.
fn sync_time(dir: &Path) -> Duration {
    use std::io::Write;
    let mut file = std::fs::File::create(dir.join("sync")).expect("a file");
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let start = Instant::now();
            file.write_all(&[7; 4096]).and_then(|()| file.sync_data()).expect("a sync");
            start.elapsed()
        })
        .collect();
    times.sort();
    times[100]
}

fn report(what: &str, clients: usize, window: Duration, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    let rate = times.len() as f64 / window.as_secs_f64();
    println!("{what} {clients:>3} clients: {rate:>8.0} writes/s  p50 {:>9.2?}  p99 {:>9.2?}", at(50), at(99));
}

async fn voters(dir: &Path, net: &Arc<Net>) -> Vec<Voter> {
    let folder = |node: u64| {
        let folder = dir.join(node.to_string());
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    };
    found(&mut OnDisk::open(&folder(1)).expect("a disk"), NodeId(1), &State::default()).expect("a first voter");
    let mut voters = Vec::new();
    for node in 1..=3 {
        let disk = OnDisk::open(&folder(node)).expect("a disk");
        voters.push(start(Config::new(NodeId(node)), disk, net).await);
        if node > 1 {
            voters[0].consensus.set_voters(&(1..=node).map(NodeId).collect()).await.expect("a voter");
        } else {
            while voters[0].consensus.propose(&sample::command(1)).await.is_err() {}
        }
    }
    voters
}

async fn ours(dir: &Path, window: Duration) {
    let net = Arc::<Net>::default();
    let voters = voters(dir, &net).await;
    for clients in CLIENTS {
        let leader = voters.iter().find(|voter| voter.consensus.status().role == Role::Leader).expect("a leader");
        let end = Instant::now() + window;
        let writing = (0..clients).map(|client| {
            let leader: Consensus = leader.consensus.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                while Instant::now() < end {
                    let asked = Instant::now();
                    let command = scale(client as u64 % 7, times.len() as u32 % 1_000);
                    leader.propose(&command).await.expect("a write");
                    times.push(asked.elapsed());
                }
                times
            })
        });
        report("constellation", clients, window, all(writing.collect()).await);
    }
    for voter in voters {
        voter.consensus.shutdown().await;
    }
}

async fn all(tasks: Vec<tokio::task::JoinHandle<Vec<Duration>>>) -> Vec<Duration> {
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("a client"));
    }
    times
}

async fn failover(dir: &Path) {
    let net = Arc::<Net>::default();
    let mut voters = voters(dir, &net).await;
    let mut times = Vec::new();
    for _ in 0..KILLS {
        let leader = loop {
            match voters.iter().position(|voter| voter.consensus.status().role == Role::Leader) {
                Some(leader) => break leader,
                None => tokio::task::yield_now().await,
            }
        };
        let killed = Instant::now();
        let gone = voters.remove(leader);
        let node = NodeId(leader_id(&gone));
        net.disconnect(node);
        gone.consensus.stop().await;
        drop(gone);
        'written: loop {
            for voter in &voters {
                if voter.consensus.propose(&scale(1, 1)).await.is_ok() {
                    break 'written;
                }
            }
            tokio::task::yield_now().await;
        }
        times.push(killed.elapsed());
        let disk = OnDisk::open(&dir.join(node.0.to_string())).expect("the disk it had");
        voters.insert(leader, start(Config::new(node), disk, &net).await);
        // The next one is killed only when all are there.
        let last = voters.iter().map(|voter| voter.consensus.status().committed).max().unwrap_or(0);
        for voter in &voters {
            voter.consensus.wait_for(support::SOON, |now| now.applied >= last && now.leader.is_some()).await;
        }
    }
    times.sort();
    let (least, median, most) = (times[0], times[KILLS / 2], times[KILLS - 1]);
    println!("leader gone, next write answered: min {least:.0?} median {median:.0?} max {most:.0?} of {KILLS}");
}

fn leader_id(voter: &Voter) -> u64 {
    voter.consensus.status().leader.map_or(0, |leader| leader.0)
}

async fn etcd(dir: &Path, window: Duration) {
    let Some(etcd) = Etcd::start(dir) else {
        println!("etcd is not installed: skipped");
        return;
    };
    let Some(leader) = etcd.leader().await else {
        println!("etcd has not elected a leader within 30 s: skipped");
        return;
    };
    for clients in CLIENTS {
        report("etcd         ", clients, window, etcd.writes(leader, clients, window).await);
    }
}
