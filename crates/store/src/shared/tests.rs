//! What the shared log does when the disk fails or lies, and that it reads what earlier versions wrote.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use model::Code;

use super::*;
use crate::database::Base;
use crate::folder::MARK;
use crate::journal::SEGMENT_BYTES;

/// An entry's bytes.
fn text(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

fn commit(log: &mut SharedLog, range: std::ops::RangeInclusive<u64>) -> Result<(), Fault> {
    let texts = entries(range);
    let changes: Vec<_> = texts.iter().map(|(index, bytes)| Change::Append { index: *index, bytes }).collect();
    log.commit(&changes)
}

fn entries(range: std::ops::RangeInclusive<u64>) -> Vec<(u64, Vec<u8>)> {
    range.map(|index| (index, text(index))).collect()
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

/// All files of that kind, by their names.
fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        all.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix)).collect();
    files.sort();
    files
}

/// The part of the last segment that frames fill.
fn written(segment: &Path) -> usize {
    fs::read(segment).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1
}

/// A log with everything in it: purged up to 3, entries 4 to 9.
fn filled(dir: &Path) -> Contents {
    let (mut log, contents) = SharedLog::open(dir).unwrap();
    assert_eq!(contents, Contents::default());
    commit(&mut log, 1..=12).unwrap();
    log.commit(&[Change::Vote(b"an older vote"), Change::Truncate { from: 10 }]).unwrap();
    log.commit(&[
        Change::Vote(b"vote"),
        Change::Snapshot { index: 2, bytes: b"an older state" },
        Change::Snapshot { index: 3, bytes: b"state" },
        Change::Purge { upto: 3, mark: b"term" },
        Change::Committed(b"eight"),
    ])
    .unwrap();
    full()
}

fn full() -> Contents {
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
    let entry = text(101);
    log.commit(&[
        Change::Snapshot { index: 100, bytes: b"later" },
        Change::Purge { upto: 100, mark: b"" },
        Change::Append { index: 101, bytes: &entry },
    ])
    .unwrap();
    drop(log);
    let (mut log, contents) = reopened(dir.path()).unwrap();
    assert_eq!(log.snapshot().unwrap(), Some((100, b"later".to_vec())));
    assert_eq!((contents.purged, contents.entries), (Some((100, Vec::new())), entries(101..=101)));
    assert_eq!(files(dir.path(), SNAPSHOT).len(), 1, "an older one is gone");
}

/// Several segments, of which those go that nobody needs; whatever is not an entry outlives them.
#[test]
fn the_files_stay_small_however_long_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = SharedLog::open(dir.path()).unwrap();
    log.commit(&[Change::Vote(b"early"), Change::Snapshot { index: 0, bytes: b"early" }]).unwrap();
    let bytes = vec![7; 100 << 10];
    let mut most = 0;
    for index in 1..=200 {
        log.commit(&[Change::Append { index, bytes: &bytes }]).unwrap();
        if index % 10 == 0 {
            log.commit(&[Change::Purge { upto: index - 5, mark: b"mark" }]).unwrap();
        }
        let size = files(dir.path(), "journal-").iter().map(|path| path.metadata().unwrap().len()).sum::<u64>();
        most = most.max(size);
    }
    assert!(most > SEGMENT_BYTES && most < 3 * SEGMENT_BYTES, "{most} bytes");
    drop(log);
    let (mut log, contents) = reopened(dir.path()).unwrap();
    assert_eq!(contents.vote.as_deref(), Some(&b"early"[..]));
    assert_eq!(contents.purged, Some((195, b"mark".to_vec())));
    assert_eq!(contents.entries, (196..=200).map(|index| (index, bytes.clone())).collect::<Vec<_>>());
    assert_eq!(log.snapshot().unwrap(), Some((0, b"early".to_vec())));
}

/// A power cut may leave any part of the last commit: nobody was told of it, so it is as if it had never been. The control, that
/// the same is damage once it was acknowledged, is the tip.
#[test]
fn what_a_power_cut_left_of_the_last_commit_is_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = filled(dir.path());
    let tip = fs::read(dir.path().join(TIP)).unwrap();
    let journal = files(dir.path(), "journal-").pop().unwrap();
    let before = written(&journal);
    let (mut log, _) = reopened(dir.path()).unwrap();
    commit(&mut log, 10..=12).unwrap();
    drop(log);
    let whole = fs::read(&journal).unwrap();
    let end = written(&journal);
    // Bytes of it that reached the disk: a beginning, an end, all but one in the middle.
    let torn = (before..end).flat_map(|at| [(before, at), (at + 1, end), (at, at + 1)]);
    for (from, to) in torn.filter(|(from, to)| from < to && (*from, *to) != (before, end)) {
        for acknowledged in [false, true] {
            let mut bytes = whole.clone();
            match to - from {
                1 => bytes[from] ^= 0x10,
                _ => {
                    bytes[before..from].fill(0);
                    bytes[to..end].fill(0);
                }
            }
            if bytes == whole {
                continue;
            }
            let damaged = bytes.clone();
            fs::write(&journal, bytes).unwrap();
            if !acknowledged {
                fs::write(dir.path().join(TIP), &tip).unwrap();
            }
            match reopened(dir.path()) {
                Ok((mut log, contents)) if !acknowledged => {
                    assert_eq!(contents, wanted, "{from}..{to}");
                    log.commit(&[Change::Committed(b"nine")]).unwrap();
                    drop(log);
                    let contents = reopened(dir.path()).unwrap().1;
                    assert_eq!((contents.committed, contents.entries), (Some(b"nine".to_vec()), entries(4..=9)));
                }
                Ok((_, contents)) => panic!("{from}..{to} was acknowledged, and opened as {contents:?}"),
                Err(problem) => {
                    assert!(acknowledged && problem.code == Code::DataCorrupt, "{from}..{to}: {problem}");
                    assert!(fs::read(&journal).unwrap() == damaged, "{from}..{to}: refused, and changed all the same");
                }
            }
        }
    }
}

/// Also without the tip: what another commit follows was acknowledged.
#[test]
fn damage_before_another_commit_is_found_without_the_tip() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let journal = files(dir.path(), "journal-").pop().unwrap();
    let before = written(&journal);
    let (mut log, _) = reopened(dir.path()).unwrap();
    commit(&mut log, 10..=12).unwrap();
    commit(&mut log, 13..=13).unwrap();
    drop(log);
    fs::remove_file(dir.path().join(TIP)).unwrap();
    let mut bytes = fs::read(&journal).unwrap();
    bytes[before + 40] ^= 1;
    fs::write(&journal, bytes).unwrap();
    let problem = reopened(dir.path()).map(drop).unwrap_err();
    assert_eq!(problem.code, Code::DataCorrupt);
    assert!(problem.message.contains("commit 5 of `journal-"), "{problem}");
}

#[test]
fn a_segment_that_is_gone_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = SharedLog::open(dir.path()).unwrap();
    let bytes = vec![7; 1 << 20];
    for index in 1..=12 {
        log.commit(&[Change::Append { index, bytes: &bytes }]).unwrap();
    }
    drop(log);
    let segments = files(dir.path(), "journal-");
    assert!(segments.len() >= 3, "{segments:?}");
    // The last one is found out by the tip, the others by the next.
    for gone in &segments {
        let aside = dir.path().join("aside");
        fs::rename(gone, &aside).unwrap();
        let problem = reopened(dir.path()).map(drop).unwrap_err();
        assert_eq!(problem.code, Code::DataCorrupt, "{problem}");
        fs::rename(&aside, gone).unwrap();
    }
    assert_eq!(reopened(dir.path()).unwrap().1.entries.len(), 12);
}

#[test]
fn a_full_disk_refuses_a_commit_and_takes_the_same_one_later() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = SharedLog::open(dir.path()).unwrap();
    commit(&mut log, 1..=1).unwrap();
    let faults = Arc::clone(log.folder.faults());
    for round in 0..3 {
        let batch = 2 + round * 50..=51 + round * 50;
        faults.inject_full.store(true, SeqCst);
        for _ in 0..2 {
            let Err(Fault::Full(problem)) = commit(&mut log, batch.clone()) else { panic!("committed to a full disk") };
            assert_eq!(problem.code, Code::DiskFull);
        }
        let snapshot = [Change::Snapshot { index: 1, bytes: b"state" }];
        assert!(matches!(log.commit(&snapshot), Err(Fault::Full(_))));
        faults.inject_full.store(false, SeqCst);
        commit(&mut log, batch).unwrap();
    }
    drop(log);
    assert_eq!(reopened(dir.path()).unwrap().1.entries, entries(1..=151));
}

/// There is room for a commit, and none for the next segment; then there is.
#[test]
fn a_disk_that_is_full_when_another_segment_is_due_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = SharedLog::open(dir.path()).unwrap();
    let bytes = vec![7; SEGMENT_BYTES as usize];
    log.commit(&[Change::Append { index: 1, bytes: &bytes }]).unwrap();
    let faults = Arc::clone(log.folder.faults());
    faults.inject_full.store(true, SeqCst);
    assert!(matches!(commit(&mut log, 2..=3), Err(Fault::Full(_))));
    faults.inject_full.store(false, SeqCst);
    commit(&mut log, 2..=3).unwrap();
    drop(log);
    let (_, contents) = reopened(dir.path()).unwrap();
    assert_eq!(contents.entries[1..], entries(2..=3));
    assert_eq!(files(dir.path(), "journal").len(), 2, "nothing unfinished is left");
}

#[test]
fn a_failed_sync_is_final_and_the_next_process_writes_everything_anew() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = filled(dir.path());
    let (mut log, _) = reopened(dir.path()).unwrap();
    let faults = Arc::clone(log.folder.faults());
    faults.inject_sync_failure.store(true, SeqCst);
    let Err(Fault::Failed(problem)) = commit(&mut log, 10..=10) else { panic!("committed without a sync") };
    assert!(problem.message.contains("a sync failed"), "{problem}");
    faults.inject_sync_failure.store(false, SeqCst);
    assert!(matches!(commit(&mut log, 10..=10), Err(Fault::Failed(_))), "a later sync proves nothing");
    assert!(dir.path().join(MARK).exists());
    drop(log);
    let before = files(dir.path(), "journal-");
    let (mut log, contents) = reopened(dir.path()).unwrap();
    assert!(log.was_marked());
    let after = files(dir.path(), "journal-");
    assert!(after.len() == 1 && !before.contains(&after[0]), "{before:?}, {after:?}");
    // What was never acknowledged may be there or not.
    assert!(contents.entries == wanted.entries || contents.entries == entries(4..=10));
    assert_eq!((contents.vote, contents.committed, contents.purged), (wanted.vote, wanted.committed, wanted.purged));
    assert_eq!(log.snapshot().unwrap(), Some((3, b"state".to_vec())));
    assert!(!dir.path().join(MARK).exists());
    let entry = text(10);
    log.commit(&[Change::Truncate { from: 10 }, Change::Append { index: 10, bytes: &entry }]).unwrap();
    drop(log);
    let (log, contents) = reopened(dir.path()).unwrap();
    assert_eq!((log.was_marked(), contents.entries), (false, entries(4..=10)));
}

/// The process that writes everything anew may end before it takes away what was there.
#[test]
fn what_a_new_beginning_left_behind_means_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = filled(dir.path());
    let old = files(dir.path(), "journal-").pop().unwrap();
    let mut bytes = fs::read(&old).unwrap();
    fs::write(dir.path().join(MARK), "").unwrap();
    assert_eq!(reopened(dir.path()).unwrap().1, wanted);
    // Whatever becomes of it.
    bytes[100] ^= 1;
    fs::write(&old, bytes).unwrap();
    assert_eq!(reopened(dir.path()).unwrap().1, wanted);
    assert!(!old.exists());
}

#[test]
fn files_from_before_what_was_acknowledged_are_found_out() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let journal = files(dir.path(), "journal-").pop().unwrap();
    let older = fs::read(&journal).unwrap();
    let (mut log, _) = reopened(dir.path()).unwrap();
    // As many entries as before: only their number of commits tells.
    log.commit(&[Change::Vote(b"another")]).unwrap();
    drop(log);
    fs::write(&journal, older).unwrap();
    let problem = reopened(dir.path()).map(drop).unwrap_err();
    assert_eq!(problem.code, Code::DataCorrupt);
    assert!(problem.message.contains("it ends at commit 4, but 5 was acknowledged"), "{problem}");
    fs::remove_file(&journal).unwrap();
    assert!(
        reopened(dir.path()).map(drop).unwrap_err().message.contains("it ends at commit 0, but 5 was acknowledged")
    );
}

/// Flips every byte of a small log, one at a time: it opens as it was, when the byte meant nothing, or is refused as damaged.
#[test]
fn no_flipped_byte_changes_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = filled(dir.path());
    let (mut refused, mut same) = (0, 0);
    for path in [files(dir.path(), "journal-").pop().unwrap(), files(dir.path(), SNAPSHOT).pop().unwrap()] {
        let whole = fs::read(&path).unwrap();
        // All that is written, a part of the zeros behind it.
        let end = written(&path);
        for at in (0..whole.len()).filter(|at| *at < end + 40 || at % 30_011 == 0) {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[whole[at] ^ 0x10], at as u64).unwrap();
            let read = reopened(dir.path()).and_then(|(mut log, contents)| match log.snapshot() {
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
    }
    assert!(refused > 400 && same > 40, "{refused} refused, {same} without meaning");
}

/// The log as versions before journals kept it, everything in it.
fn former(dir: &Path) {
    let folder = Arc::new(Folder::take(dir).unwrap());
    let mut base = Base::within(folder, former::FILE);
    let written = base.reopen().and_then(|()| {
        base.write(|transaction| {
            let purged = [&3_u64.to_le_bytes()[..], b"term"].concat();
            let heads = [
                (former::SEQUENCE, &7_u64.to_le_bytes()[..]),
                (former::VOTE, b"vote"),
                (former::COMMITTED, b"eight"),
                (former::PURGED, &purged),
            ];
            for (head, bytes) in heads {
                let sealed = record::seal(record::Kind::SharedHead, head, bytes);
                transaction.open_table(former::HEADS)?.insert(head, sealed.as_slice())?;
            }
            for (index, bytes) in entries(4..=9) {
                let sealed = record::seal(record::Kind::SharedEntry, index, &bytes);
                transaction.open_table(former::ENTRIES)?.insert(index, sealed.as_slice())?;
            }
            let sealed = record::seal(record::Kind::SharedSnapshot, 3, b"state");
            transaction.open_table(former::SNAPSHOT)?.insert(3, sealed.as_slice())?;
            Ok(())
        })
    });
    written.unwrap();
    Tip::open(&dir.join(TIP)).unwrap().write(7);
}

#[test]
fn what_was_kept_in_a_database_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    former(dir.path());
    let before = fs::read(dir.path().join(former::FILE)).unwrap();
    let (mut log, contents) = reopened(dir.path()).unwrap();
    assert_eq!(contents, full());
    assert_eq!(log.snapshot().unwrap(), Some((3, b"state".to_vec())));
    assert!(!dir.path().join(former::FILE).exists());
    commit(&mut log, 10..=10).unwrap();
    drop(log);
    // The process may have ended before it took the database away: the journal has more.
    fs::write(dir.path().join(former::FILE), before).unwrap();
    let (mut log, contents) = reopened(dir.path()).unwrap();
    assert_eq!(contents.entries, entries(4..=10));
    assert_eq!(log.snapshot().unwrap(), Some((3, b"state".to_vec())));
    assert!(!dir.path().join(former::FILE).exists());
}

#[test]
fn a_database_from_before_what_was_acknowledged_is_not_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    former(dir.path());
    Tip::open(&dir.path().join(TIP)).unwrap().write(8);
    assert_eq!(reopened(dir.path()).map(drop).unwrap_err().code, Code::DataCorrupt);
    assert!(dir.path().join(former::FILE).exists() && files(dir.path(), "journal-").is_empty(), "nothing was changed");
}
