//! What the shared log does when the disk fails or lies.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use model::Code;

use super::*;
use crate::database::MARK;

fn entry(index: u64) -> Change {
    Change::Append { index, bytes: format!("entry {index}").into_bytes() }
}

fn entries(range: std::ops::RangeInclusive<u64>) -> Vec<(u64, Vec<u8>)> {
    range.map(|index| (index, format!("entry {index}").into_bytes())).collect()
}

/// A program that another test starts has the lock of a folder from its fork to its exec, long after it was given back here.
fn reopened(dir: &Path) -> Result<(SharedLog, Contents), Problem> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match SharedLog::open(dir) {
            Err(problem) if problem.code == Code::AgentRunning && Instant::now() < deadline => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

/// A log with everything in it: purged up to 3, entries 4 to 9.
fn filled(dir: &Path) -> Contents {
    let (mut log, contents) = SharedLog::open(dir).unwrap();
    assert_eq!(contents, Contents::default());
    let appended: Vec<_> = (1..=12).map(entry).collect();
    log.commit(&appended).unwrap();
    log.commit(&[Change::Vote(b"an older vote".to_vec()), Change::Truncate { from: 10 }]).unwrap();
    log.commit(&[
        Change::Vote(b"vote".to_vec()),
        Change::Snapshot { index: 2, bytes: b"an older state".to_vec() },
        Change::Snapshot { index: 3, bytes: b"state".to_vec() },
        Change::Purge { upto: 3, mark: b"term".to_vec() },
        Change::Committed(b"eight".to_vec()),
    ])
    .unwrap();
    Contents {
        vote: Some(b"vote".to_vec()),
        committed: Some(b"eight".to_vec()),
        purged: Some((3, b"term".to_vec())),
        entries: entries(4..=9),
    }
}

#[test]
fn what_was_committed_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = filled(dir.path());
    let (mut log, contents) = reopened(dir.path()).unwrap();
    assert_eq!(contents, wanted);
    assert_eq!(log.snapshot().unwrap(), Some((3, b"state".to_vec())));
    // A snapshot from elsewhere may be ahead of the log.
    log.commit(&[
        Change::Snapshot { index: 100, bytes: b"later".to_vec() },
        Change::Purge { upto: 100, mark: Vec::new() },
        entry(101),
    ])
    .unwrap();
    drop(log);
    let (mut log, contents) = reopened(dir.path()).unwrap();
    assert_eq!(log.snapshot().unwrap(), Some((100, b"later".to_vec())));
    assert_eq!((contents.purged, contents.entries), (Some((100, Vec::new())), entries(101..=101)));
}

#[test]
fn a_full_disk_refuses_a_commit_and_takes_the_same_one_later() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = SharedLog::open(dir.path()).unwrap();
    log.commit(&[entry(1)]).unwrap();
    let faults = log.base.faults();
    for round in 0..3 {
        let batch: Vec<_> = (2 + round * 50..52 + round * 50).map(entry).collect();
        faults.inject_full.store(true, SeqCst);
        for _ in 0..2 {
            let Err(Fault::Full(problem)) = log.commit(&batch) else { panic!("committed to a full disk") };
            assert_eq!(problem.code, Code::DiskFull);
        }
        faults.inject_full.store(false, SeqCst);
        log.commit(&batch).unwrap();
    }
    drop(log);
    assert_eq!(reopened(dir.path()).unwrap().1.entries, entries(1..=151));
}

#[test]
fn a_failed_sync_is_final_and_the_next_process_writes_the_file_anew() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = filled(dir.path());
    let (mut log, _) = reopened(dir.path()).unwrap();
    let faults = log.base.faults();
    faults.inject_sync_failure.store(true, SeqCst);
    assert!(matches!(log.commit(&[entry(10)]), Err(Fault::Failed(_))));
    faults.inject_sync_failure.store(false, SeqCst);
    assert!(matches!(log.commit(&[entry(10)]), Err(Fault::Failed(_))), "a later sync proves nothing");
    assert!(dir.path().join(MARK).exists());
    drop(log);
    let before = fs::metadata(dir.path().join(FILE)).unwrap();
    let (mut log, contents) = reopened(dir.path()).unwrap();
    let after = fs::metadata(dir.path().join(FILE)).unwrap();
    assert_ne!(std::os::unix::fs::MetadataExt::ino(&before), std::os::unix::fs::MetadataExt::ino(&after));
    // What was never acknowledged may be there or not.
    assert!(contents.entries == wanted.entries || contents.entries == entries(4..=10));
    assert_eq!((contents.vote, contents.committed, contents.purged), (wanted.vote, wanted.committed, wanted.purged));
    assert_eq!(log.snapshot().unwrap(), Some((3, b"state".to_vec())));
    assert!(!dir.path().join(MARK).exists());
    log.commit(&[Change::Truncate { from: 10 }, entry(10)]).unwrap();
    drop(log);
    assert_eq!(reopened(dir.path()).unwrap().1.entries, entries(4..=10));
}

#[test]
fn a_file_from_before_what_was_acknowledged_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let older = fs::read(dir.path().join(FILE)).unwrap();
    let (mut log, _) = reopened(dir.path()).unwrap();
    // As many entries as before: only their number of commits tells.
    log.commit(&[Change::Vote(b"another".to_vec())]).unwrap();
    drop(log);
    fs::write(dir.path().join(FILE), older).unwrap();
    let problem = reopened(dir.path()).unwrap_err();
    assert_eq!(problem.code, Code::DataCorrupt);
    assert!(problem.message.contains("it ends at commit 3, but 4 was acknowledged"), "{problem}");
}

/// Flips bytes of a small log, one at a time: it opens as it was, when the byte meant nothing, or is refused as damaged.
/// All of the header and a part of the rest; every byte that is not zero with `RADS_FLIP_ALL=1`.
#[test]
fn no_flipped_byte_changes_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = filled(dir.path());
    let memory = Path::new("/dev/shm");
    let copy = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    for file in [FILE, TIP] {
        fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
    }
    let path = copy.path().join(FILE);
    let whole = fs::read(&path).unwrap();
    let all = std::env::var_os("RADS_FLIP_ALL").is_some();
    let (mut refused, mut same) = (0, 0);
    let chosen = (0..whole.len()).filter(|at| match whole[*at] {
        0 => at % 30_011 == 0,
        _ => all || *at < 512 || at % 13 == 0,
    });
    for at in chosen {
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[whole[at] ^ 0x10], at as u64).unwrap();
        let read = reopened(copy.path()).and_then(|(mut log, contents)| match log.snapshot() {
            Ok(snapshot) => Ok((contents, snapshot)),
            Err(Fault::Full(problem) | Fault::Failed(problem)) => Err(problem),
        });
        match read {
            Ok((contents, Some((3, state)))) if contents == wanted && state == b"state" => same += 1,
            Ok(other) => panic!("byte {at} flipped: opened as {other:?}"),
            Err(problem) => {
                assert_eq!(problem.code, Code::DataCorrupt, "byte {at}: {problem}");
                refused += 1;
            }
        }
        fs::write(&path, &whole).unwrap();
    }
    assert!(refused > 50 && same > 0, "{refused} refused, {same} without meaning");
}
