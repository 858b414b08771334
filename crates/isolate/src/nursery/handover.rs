//! What a nursery leaves to the program that takes its place: all that cannot be found again.
//!
//! MessagePack with named fields in a memory file; descriptors by their numbers, which an exec keeps. A released version
//! is never edited: a later program reads this one too, and one that does not refuses before anything happens.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::MemfdFlags;
use rustix::io::FdFlags;
use serde::{Deserialize, Serialize};

use super::Outcome;
use super::hold::Still;
use crate::protocol::Message;
use crate::record::Record;
use crate::star::Told;

pub(super) const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
pub(super) struct Handover {
    version: u32,
    /// Without privileges on the host the process is in a user namespace of its own already.
    pub(super) privileged: bool,
    /// By the monotonic clock: when the program before this one stopped serving.
    pub(super) stopped_ns: u64,
    /// Who asked for it and is to be answered.
    pub(super) asked_by: u64,
    pub(super) lock: i32,
    pub(super) listener: i32,
    pub(super) next_peer: u64,
    pub(super) peers: Vec<PeerState>,
    pub(super) stars: Vec<StarState>,
    pub(super) next_exec: u64,
    pub(super) execs: Vec<ExecState>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct PeerState {
    pub(super) id: u64,
    pub(super) socket: i32,
    /// The version in which it said hello.
    pub(super) speaks: Option<u32>,
    pub(super) waiting: Vec<(Message, Vec<i32>)>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StarState {
    pub(super) record: Record,
    pub(super) phase: PhaseState,
    pub(super) told: Told,
    pub(super) network: Option<i32>,
    pub(super) pidfd: Option<i32>,
    pub(super) logs: Option<[LogState; 2]>,
    #[serde(default)]
    pub(super) still: Still,
}

#[derive(Serialize, Deserialize)]
pub(super) struct LogState {
    pub(super) reader: i32,
    /// What came of a line that is not at its end.
    pub(super) rest: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
pub(super) enum PhaseState {
    Starting { asked_us_ago: u64, report: i32 },
    Running,
    Leaving(Outcome),
    Ended,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ExecState {
    pub(super) number: u64,
    pub(super) pid: u32,
    pub(super) pidfd: i32,
    pub(super) report: i32,
    pub(super) peer: u64,
    pub(super) asked_as: u64,
}

/// Read before the rest, which may be of another form.
#[derive(Deserialize)]
struct Envelope {
    version: u32,
}

impl Handover {
    pub(super) fn new(privileged: bool, asked_by: u64, lock: i32, listener: i32) -> Self {
        let stopped_ns = now_ns();
        let (peers, stars, execs) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            version: VERSION,
            privileged,
            stopped_ns,
            asked_by,
            lock,
            listener,
            next_peer: 0,
            peers,
            stars,
            next_exec: 0,
            execs,
        }
    }

    pub(super) fn read(file: OwnedFd) -> Result<Self, String> {
        let mut bytes = Vec::new();
        let mut file = File::from(file);
        file.read_to_end(&mut bytes).map_err(|error| format!("the state cannot be read: {error}"))?;
        Self::decode(&bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let unreadable = |error: rmp_serde::decode::Error| format!("the state cannot be read: {error}");
        let Envelope { version } = rmp_serde::from_slice(bytes).map_err(unreadable)?;
        match version {
            VERSION => rmp_serde::from_slice(bytes).map_err(unreadable),
            other => Err(format!("its state is of version {other}, this program reads {VERSION}")),
        }
    }

    /// As a memory file, read from its start.
    pub(super) fn write(&self) -> io::Result<(OwnedFd, u64)> {
        let bytes = rmp_serde::to_vec_named(self).map_err(io::Error::other)?;
        let mut file = File::from(rustix::fs::memfd_create("handover", MemfdFlags::CLOEXEC)?);
        file.write_all(&bytes)?;
        io::Seek::rewind(&mut file)?;
        Ok((file.into(), fnv(&bytes)))
    }
}

/// What a program says that has understood a state with this fingerprint. Nothing else could say it by accident.
pub(super) fn answer(fingerprint: u64) -> String {
    format!("takes over {fingerprint:016x}\n")
}

/// Reads a state on standard input and says on standard output whether this program could go on from there. The result
/// is whether it could.
pub fn can_take_over() -> bool {
    let mut bytes = Vec::new();
    let read = io::stdin().read_to_end(&mut bytes).map_err(|error| format!("the state cannot be read: {error}"));
    let (said, can) = match read.and_then(|_| Handover::decode(&bytes)) {
        Ok(_) => (answer(fnv(&bytes)), true),
        Err(reason) => (format!("{reason}\n"), false),
    };
    io::stdout().write_all(said.as_bytes()).is_ok() && can
}

/// Descriptors on their way through an exec.
#[derive(Default)]
pub(super) struct Luggage<'a>(Vec<BorrowedFd<'a>>);

impl<'a> Luggage<'a> {
    /// Adds a descriptor and returns its number.
    pub(super) fn pack(&mut self, fd: &'a impl AsFd) -> i32 {
        self.carry(fd.as_fd())
    }

    /// The same.
    pub(super) fn carry(&mut self, fd: BorrowedFd<'a>) -> i32 {
        self.0.push(fd);
        fd.as_raw_fd()
    }

    /// Whether they are to stay open when a program is executed.
    pub(super) fn keep(&self, open: bool) -> io::Result<()> {
        let flags = if open { FdFlags::empty() } else { FdFlags::CLOEXEC };
        self.0.iter().try_for_each(|fd| Ok(rustix::io::fcntl_setfd(fd, flags)?))
    }
}

/// The monotonic clock, which goes on through an exec.
pub(super) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// FNV-1a: tells contents apart that nobody forges.
pub(super) fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_reads_back_and_one_of_another_version_says_so() {
        let mut state = Handover::new(true, 3, 4, 5);
        state.peers.push(PeerState {
            id: 1,
            socket: 9,
            speaks: Some(1),
            waiting: vec![(Message::Frozen { star: model::StarId(2), problem: None }, vec![10])],
        });
        let (file, _) = state.write().unwrap();
        let read = Handover::read(file).unwrap();
        assert_eq!((read.asked_by, read.lock, read.listener, read.peers[0].socket), (3, 4, 5, 9));
        state.version = 2;
        let (file, _) = state.write().unwrap();
        let refused = Handover::read(file).err().unwrap();
        assert_eq!(refused, "its state is of version 2, this program reads 1");
        assert!(Handover::decode(b"\x80").is_err() && Handover::decode(b"").is_err());
    }
}
