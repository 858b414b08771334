//! Doors for fuzzing, in no other build.

use std::fs;
use std::path::{Path, PathBuf};

use state::{Command, State};

use crate::record::{Kind, decode, encode, seal, unseal};
use crate::shared::{Change, Contents, SharedLog};

/// A record that is read from a damaged disk; one whose checksum is right, whatever it says; and a log of such, from its beginning.
pub fn record(input: &[u8]) {
    let Some((what, bytes)) = input.split_first() else { return };
    match what % 4 {
        0 => {
            let _ = decode::<Command>(Kind::Command, 7, bytes);
            let _ = unseal(Kind::SharedEntry, 7, bytes);
        }
        1 => drop(state(&seal(Kind::Snapshot, 7, bytes))),
        _ => log(bytes),
    }
}

/// What is read as a state is written so that it is read as the same.
fn state(record: &[u8]) -> Result<State, String> {
    let state = decode::<State>(Kind::Snapshot, 7, record)?;
    let again = encode(Kind::Snapshot, 7, &state).expect("plain values");
    assert_eq!(decode::<State>(Kind::Snapshot, 7, &again).as_ref(), Ok(&state));
    Ok(state)
}

/// Commands, each after its length (big-endian, two bytes). Whatever was written is applied, or refused.
fn log(input: &[u8]) {
    let (mut state_now, mut index) = (State::default(), 0);
    for bytes in parts(input) {
        index += 1;
        let Ok(command) = decode::<Command>(Kind::Command, index, &seal(Kind::Command, index, bytes)) else { continue };
        let again = encode(Kind::Command, index, &command).expect("plain values");
        assert_eq!(decode::<Command>(Kind::Command, index, &again), Ok(command.clone()));
        state::apply(&mut state_now, index, &command);
        assert_eq!(state_now.index, index);
    }
    if index > 0 {
        let record = encode(Kind::Snapshot, 7, &state_now).expect("plain values");
        assert_eq!(state(&record).as_ref(), Ok(&state_now), "a snapshot is the state");
    }
}

/// A voter's part of the log on a damaged disk: a journal that says anything; one whose checksums are right, whatever it says; and
/// a genuine one of which some bytes are others. What is refused stays as it is; what is read can be written to and read again.
pub fn journal(input: &[u8]) {
    let Some((what, rest)) = input.split_first() else { return };
    let dir = tempdir();
    let file = dir.join("journal-00000000000000000000");
    let bytes = match what % 3 {
        0 => rest.to_vec(),
        1 => crate::journal::segment(parts(rest)),
        _ => {
            let written = genuine(&dir);
            let file = dir.join("journal-00000000000000000001");
            let mut bytes = fs::read(&file).expect("what was just written");
            bytes.truncate(4096);
            for change in rest.chunks_exact(3) {
                let place = usize::from(u16::from_be_bytes([change[0], change[1]])) % bytes.len();
                bytes[place] = change[2];
            }
            fs::write(&file, bytes).expect("room for a file");
            // All of it was acknowledged.
            if let Ok((_, read)) = SharedLog::open(&dir) {
                assert_eq!(read, written);
            }
            return;
        }
    };
    fs::write(&file, &bytes).expect("room for a file");
    let Ok((mut log, before)) = SharedLog::open(&dir) else {
        assert_eq!(fs::read(&file).expect("it is still there"), bytes);
        return;
    };
    log.commit(&[Change::Vote(b"vote")]).expect("what was read can be written to");
    drop(log);
    let (_, after) = SharedLog::open(&dir).expect("what was written can be read");
    assert_eq!(after, Contents { vote: Some(b"vote".to_vec()), ..before });
}

/// Every kind of change, over more than one commit.
fn genuine(dir: &Path) -> Contents {
    let (mut log, _) = SharedLog::open(dir).expect("an empty folder");
    let entries: Vec<Change<'_>> = (1..=9).map(|index| Change::Append { index, bytes: b"a command" }).collect();
    let more = [Change::Truncate { from: 8 }, Change::Append { index: 8, bytes: b"another" }, Change::Committed(b"8")];
    for changes in [&[Change::Vote(b"one")][..], &entries, &more, &[Change::Purge { upto: 3, mark: b"three" }]] {
        log.commit(changes).expect("room for it");
    }
    drop(log);
    SharedLog::open(dir).expect("what was written can be read").1
}

/// In memory, and empty.
fn tempdir() -> PathBuf {
    let dir = PathBuf::from(format!("/dev/shm/rads-fuzz-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a folder in memory");
    dir
}

/// The input as its length (big-endian, two bytes) and so many bytes, again and again.
pub fn parts(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let [high, low, after @ ..] = rest else { return None };
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (bytes, next) = after.split_at(length);
        rest = next;
        Some(bytes)
    })
}
