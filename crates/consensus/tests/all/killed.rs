//! Three voters on the store's disks in one process, which is killed with SIGKILL at irregular moments.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::Instant;

use crate::support::disk::OnDisk;
use crate::support::{Net, SOON, Voter, register, sample, scale, set, start};
use consensus::{Config, Consensus, Role, found};
use model::{Code, NodeId};
use state::State;

const CHILD: &str = "RADS_TEST_CONSENSUS_CHILD";
const KILLS: usize = 12;
const REGISTERS: u64 = 4;

/// Compacts all the time, so that kills meet snapshots too.
fn config(node: u64) -> Config {
    Config { compact_bytes: 32 << 10, keep_bytes: 8 << 10, ..Config::new(NodeId(node)) }
}

fn opened(dir: &Path) -> OnDisk {
    std::fs::create_dir_all(dir).unwrap();
    let end = Instant::now() + SOON;
    loop {
        // The one before may not be gone entirely.
        match OnDisk::open(dir) {
            Ok(disk) => return disk,
            Err(problem) => assert!(problem.code == Code::AgentRunning && Instant::now() < end, "{problem}"),
        }
        std::thread::yield_now();
    }
}

async fn leader(voters: &[Voter]) -> Consensus {
    let end = Instant::now() + SOON;
    loop {
        let leads = |voter: &&Voter| voter.consensus.status().role == Role::Leader;
        if let Some(voter) = voters.iter().find(leads) {
            return voter.consensus.clone();
        }
        assert!(Instant::now() < end, "no leader");
        tokio::task::yield_now().await;
    }
}

/// Not a test of its own: the process that the next one kills. Says what it finds, then what is answered for.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_proposes() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let folder = |node: u64| Path::new(&dir).join(node.to_string());
    let net = Arc::<Net>::default();
    let new = found(&mut opened(&folder(1)), NodeId(1), &State::default()).is_ok();
    let mut voters = Vec::new();
    for node in 1..=3 {
        voters.push(start(config(node), opened(&folder(node)), &net).await);
    }
    let leads = leader(&voters).await;
    if new {
        leads.propose(&sample::command(1)).await.unwrap();
    }
    // The first process may have been killed before all of them were voters.
    leads.set_voters(&set(1..=3)).await.unwrap();
    leads.read_index().await.unwrap();
    let state = leads.state();
    (0..REGISTERS).for_each(|number| println!("found {number} {}", register(&state, number)));
    let writers = (0..REGISTERS).map(|number| {
        let (leads, mut value) = (leads.clone(), register(&state, number));
        tokio::spawn(async move {
            loop {
                value = value % 9_000 + 1;
                leads.propose(&scale(number, value)).await.unwrap();
                println!("acked {number} {value}");
            }
        })
    });
    // None of them ends, but by a failure.
    futures_util::future::select_all(writers).await.0.unwrap();
}

#[test]
fn no_kill_loses_what_was_answered_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = BTreeMap::<u64, u32>::new();
    let mut answers = 0;
    for kill in 0..KILLS {
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::child_that_proposes", "--nocapture", "--test-threads=1"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // A different, irregular number of answers each time.
        let enough = 1 + (kill * 7919 + 13) % 200;
        let (mut found, mut seen) = (0, 0);
        for line in lines {
            // The first line follows what the test harness prints.
            let Some(at) = line.find("found ").or_else(|| line.find("acked ")) else { continue };
            let words: Vec<&str> = line[at..].split(' ').collect();
            let (number, value) = (words[1].parse().unwrap(), words[2].parse().unwrap());
            match words[0] {
                "found" => {
                    // The first value of all is what the app began with; one more than was answered for may be there.
                    let last = acked.get(&number).copied();
                    let right = last.is_none_or(|last| value == last || value == last % 9_000 + 1);
                    assert!(right, "kill {kill}, register {number}: {last:?} was answered for, {value} is there");
                    // From here on it is to stay, and the next value follows on it.
                    acked.insert(number, value);
                    found += 1;
                }
                _ => {
                    acked.insert(number, value);
                    seen += 1;
                    if seen == enough {
                        child.kill().unwrap();
                    }
                }
            }
        }
        child.wait().unwrap();
        assert!(found == REGISTERS && seen >= enough, "kill {kill}: the child found {found} registers, {seen} answers");
        answers += seen;
    }
    println!("{KILLS} kills, {answers} answers, none lost");
    // What the last one left opens once more.
    let left = opened(&dir.path().join("1"));
    drop(left);
    let files = std::fs::read_dir(dir.path().join("1")).unwrap();
    assert!(files.map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>() < 64 << 20);
}
