//! The store as the agent uses it: order, exclusion, kills and a disk that fills up.

mod sample;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use model::Code;
use sample::{command, state_at};
use state::State;
use store::Store;

const SOON: Duration = Duration::from_secs(30);

fn reopened(dir: &Path) -> (u64, State) {
    let (_store, recovered) = Store::open(dir).unwrap();
    (recovered.index, recovered.state)
}

#[test]
fn appends_are_answered_in_order_with_their_index() {
    let dir = tempfile::tempdir().unwrap();
    let (store, recovered) = Store::open(dir.path()).unwrap();
    assert_eq!((recovered.index, recovered.state), (0, state_at(0)));
    let (answers, answered) = channel();
    for n in 1..=2000 {
        let answers = answers.clone();
        store.append(command(n), move |result| answers.send(result).unwrap());
    }
    for n in 1..=2000 {
        assert_eq!(answered.recv_timeout(SOON).unwrap().unwrap(), n);
    }
    drop(store);
    assert_eq!(reopened(dir.path()), (2000, state_at(2000)));
}

#[test]
fn dropping_the_store_finishes_what_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    for n in 1..=100 {
        store.append(command(n), |result| assert!(result.is_ok()));
    }
    drop(store);
    assert_eq!(reopened(dir.path()).0, 100);
}

#[test]
fn a_second_opener_is_refused_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    assert_eq!(Store::open(dir.path()).unwrap_err().code, Code::AgentRunning);
    drop(store);
    // A child of another test has a copy of every descriptor, and with it of the lock, until it is the program it is to be.
    let until = Instant::now() + Duration::from_secs(5);
    while let Err(problem) = Store::open(dir.path()) {
        assert!(problem.code == Code::AgentRunning && Instant::now() < until, "{problem}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_is_no_store_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.redb");
    std::fs::write(&file, "not a database, but something a person may want back").unwrap();
    let problem = Store::open(dir.path()).unwrap_err();
    assert_eq!(problem.code, Code::DataCorrupt, "{problem}");
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("not a database"));
}

const CHILD: &str = "RADS_TEST_STORE_CHILD";

/// Not a test of its own: the process that the next one kills. Appends for ever and prints what is acknowledged.
#[test]
fn child_that_appends() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let (store, recovered) = Store::open(Path::new(&dir)).unwrap();
    let (acks, acked) = channel();
    // Some in flight all the time, so that the kill meets full batches and small ones.
    for n in recovered.index + 1.. {
        if n > recovered.index + 64 {
            acked.recv().unwrap();
        }
        let acks = acks.clone();
        store.append(command(n), move |result| {
            println!("acked {}", result.unwrap());
            let _ = acks.send(());
        });
    }
}

#[test]
fn no_kill_loses_what_was_acknowledged() {
    const KILLS: u64 = 20;
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for kill in 0..KILLS {
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_appends", "--nocapture", "--test-threads=1"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // A different, irregular moment each time: after 1 to 500 acknowledgements.
        let after = 1 + (kill * 7919 + 13) % 500;
        let index = |line: String| line.split("acked ").nth(1).and_then(|index| index.parse::<u64>().ok());
        for index in lines.by_ref().filter_map(index).take(after as usize) {
            acknowledged = acknowledged.max(index);
        }
        child.kill().unwrap();
        for index in lines.filter_map(index) {
            acknowledged = acknowledged.max(index);
        }
        child.wait().unwrap();
        let (last, state) = reopened(dir.path());
        assert!(last >= acknowledged, "kill {kill}: {acknowledged} was acknowledged, the log ends at {last}");
        assert_eq!(state, state_at(last), "kill {kill}");
    }
    assert!(acknowledged > KILLS);
}

/// A small file system in memory; `None` where this user may not mount one.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(bytes: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Process::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Process::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_refuses_clearly_and_works_again_once_there_is_room() {
    let Some(disk) = Small::mount("8m") else {
        println!("skipped: mounting a small file system needs root");
        return;
    };
    let dir = disk.0.path().join("store");
    let (store, _) = Store::open(&dir).unwrap();
    let append = |n: u64| {
        let (answer, answered) = channel();
        store.append(command(n), move |result| answer.send(result).unwrap());
        answered.recv_timeout(SOON).unwrap()
    };
    let mut last = 0;
    for round in 0..3 {
        last = append(last + 1).unwrap();
        let ballast = disk.0.path().join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        while file.write_all(&[7; 4096]).is_ok() {}
        drop(file);
        let problem = loop {
            match append(last + 1) {
                Ok(index) => last = index,
                Err(problem) => break problem,
            }
            assert!(last < 100_000, "the disk never fills");
        };
        assert_eq!((problem.code, problem.changed), (Code::DiskFull, false), "round {round}: {problem}");
        assert!(problem.help.is_some());
        assert_eq!(append(last + 1).unwrap_err().code, Code::DiskFull);
        std::fs::remove_file(&ballast).unwrap();
        assert_eq!(append(last + 1).unwrap(), last + 1, "round {round}: there is room again");
        last += 1;
    }
    drop(store);
    assert_eq!(reopened(&dir), (last, state_at(last)));
}
