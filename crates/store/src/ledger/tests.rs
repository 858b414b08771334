//! What the ledger does when the disk fails or lies: faults are injected below the database, damage is done to its
//! files byte by byte.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use model::Code;

use super::*;
use crate::folder::MARK;
use crate::sample::{command, state_at};

fn append(ledger: &mut Ledger, count: u64) -> Result<(), Failure> {
    let first = ledger.last() + 1;
    let records: Vec<_> =
        (first..first + count).map(|n| record::encode(Kind::Command, n, &command(n)).unwrap()).collect();
    ledger.append(&records)
}

/// A program that another test starts has the lock of a folder from its fork to its exec, long after it was given back here.
fn reopened(dir: &Path) -> Result<(u64, State), Problem> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match Ledger::open(dir) {
            Err(problem) if problem.code == Code::AgentRunning && Instant::now() < deadline => std::thread::yield_now(),
            opened => return opened.map(|(ledger, state)| (ledger.last(), state)),
        }
    }
}

#[test]
fn what_was_appended_is_there_again_with_and_without_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = Ledger::open(dir.path()).unwrap();
    append(&mut ledger, 5).unwrap();
    append(&mut ledger, 1).unwrap();
    drop(ledger);
    assert_eq!(reopened(dir.path()).unwrap(), (6, state_at(6)));
    let (mut ledger, _) = Ledger::open(dir.path()).unwrap();
    ledger.compact().unwrap();
    append(&mut ledger, 2).unwrap();
    ledger.compact().unwrap();
    ledger.compact().unwrap();
    append(&mut ledger, 1).unwrap();
    drop(ledger);
    assert_eq!(reopened(dir.path()).unwrap(), (9, state_at(9)));
}

#[test]
fn the_file_stays_small_however_long_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = Ledger::open(dir.path()).unwrap();
    let mut compactions = 0;
    for _ in 0..200 {
        append(&mut ledger, 512).unwrap();
        if ledger.wants_compaction() {
            ledger.compact().unwrap();
            compactions += 1;
        }
    }
    let size = fs::metadata(dir.path().join(FILE)).unwrap().len();
    assert!(compactions > 1, "the log never grew long enough");
    assert!(size < 16 * COMPACT_BYTES, "{size} bytes after {compactions} compactions");
    drop(ledger);
    assert_eq!(reopened(dir.path()).unwrap().1, state_at(200 * 512));
}

#[test]
fn a_full_disk_refuses_a_batch_whole_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = Ledger::open(dir.path()).unwrap();
    append(&mut ledger, 3).unwrap();
    let faults = ledger.faults();
    for _ in 0..3 {
        faults.inject_full.store(true, SeqCst);
        assert!(matches!(append(&mut ledger, 50), Err(Failure::Full)));
        assert!(matches!(ledger.compact(), Err(Failure::Full)));
        assert_eq!(ledger.problem(&Failure::Full).code, Code::DiskFull);
        faults.inject_full.store(false, SeqCst);
        append(&mut ledger, 2).unwrap();
    }
    drop(ledger);
    assert_eq!(reopened(dir.path()).unwrap(), (9, state_at(9)));
}

#[test]
fn a_failed_sync_is_final_and_the_next_process_writes_the_file_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = Ledger::open(dir.path()).unwrap();
    append(&mut ledger, 3).unwrap();
    let faults = ledger.faults();
    faults.inject_sync_failure.store(true, SeqCst);
    assert!(matches!(append(&mut ledger, 1), Err(Failure::Fatal(_))));
    faults.inject_sync_failure.store(false, SeqCst);
    assert!(append(&mut ledger, 1).is_err(), "a later sync that works proves nothing about the earlier one");
    ledger.mark_sync_failed();
    drop(ledger);
    let (mut ledger, state) = Ledger::open(dir.path()).unwrap();
    // What was never acknowledged may be there or not.
    assert!((3..=4).contains(&ledger.last()));
    assert_eq!(state, state_at(ledger.last()));
    assert!(!dir.path().join(MARK).exists());
    append(&mut ledger, 1).unwrap();
    let last = ledger.last();
    drop(ledger);
    assert_eq!(reopened(dir.path()).unwrap(), (last, state_at(last)));
}

#[test]
fn a_log_that_ends_before_what_was_acknowledged_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = Ledger::open(dir.path()).unwrap();
    append(&mut ledger, 3).unwrap();
    drop(ledger);
    let older = fs::read(dir.path().join(FILE)).unwrap();
    let (mut ledger, _) = Ledger::open(dir.path()).unwrap();
    append(&mut ledger, 1).unwrap();
    drop(ledger);
    fs::write(dir.path().join(FILE), older).unwrap();
    let problem = reopened(dir.path()).unwrap_err();
    assert_eq!(problem.code, Code::DataCorrupt);
    assert!(problem.message.contains("the log ends at 3, but 4 was acknowledged"), "{problem}");
}

#[test]
fn a_folder_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_ledger, _) = Ledger::open(dir.path()).unwrap();
    assert_eq!(Ledger::open(dir.path()).unwrap_err().code, Code::AgentRunning);
}

/// Flips bytes of every file of a small store, one at a time. The store must open as it was, when the byte meant
/// nothing, or be refused as damaged; never panic, and never open as something else.
///
/// All of the header and a part of the rest; with `RADS_FLIP_ALL=1` every byte that is not zero, which takes minutes.
/// That every bit of every record is covered is shown where records are.
#[test]
fn no_flipped_byte_changes_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = Ledger::open(dir.path()).unwrap();
    append(&mut ledger, 4).unwrap();
    ledger.compact().unwrap();
    append(&mut ledger, 4).unwrap();
    // Left as by a killed process: not closed.
    let running = copy_of(dir.path());
    drop(ledger);
    let closed = copy_of(dir.path());
    let wanted = state_at(8);
    let all = std::env::var_os("RADS_FLIP_ALL").is_some();
    let (mut refused, mut same) = (0, 0);
    for files in [closed, running] {
        let path = files.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        let chosen = (0..whole.len()).filter(|at| match whole[*at] {
            0 => at % 30_011 == 0,
            _ => all || *at < 512 || at % 23 == 0,
        });
        for at in chosen {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[whole[at] ^ 0x10], at as u64).unwrap();
            match reopened(files.path()) {
                Ok((8, state)) if state == wanted => same += 1,
                Ok((last, _)) => panic!("byte {at} flipped: opened at index {last}"),
                Err(problem) => {
                    assert_eq!(problem.code, Code::DataCorrupt, "byte {at}: {problem}");
                    refused += 1;
                }
            }
            fs::write(&path, &whole).unwrap();
        }
        for at in 0..fs::read(files.path().join(TIP)).unwrap().len() {
            let tip = files.path().join(TIP);
            let good = fs::read(&tip).unwrap();
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&tip, bad).unwrap();
            assert_eq!(reopened(files.path()).unwrap(), (8, wanted.clone()), "byte {at} of the tip");
            fs::write(&tip, good).unwrap();
            fs::write(&path, &whole).unwrap();
        }
    }
    assert!(refused > 200 && same > 0, "{refused} refused, {same} without meaning");
}

fn copy_of(dir: &Path) -> tempfile::TempDir {
    // In memory where there is such a place: thousands of syncs follow, and none of them matters.
    let memory = Path::new("/dev/shm");
    let copy = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    for file in [FILE, TIP] {
        fs::copy(dir.join(file), copy.path().join(file)).unwrap();
    }
    copy
}
