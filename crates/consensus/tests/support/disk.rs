//! Disks for tests: the store's own, as the agent connects it, and one in memory that can be full, fail, or end with its
//! process.
#![allow(dead_code, unreachable_pub)] // each test takes its own part

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use consensus::{Disk, Fault, Stored, Write};
use model::{Code, Problem};
use store::SharedLog;
use store::shared::{Change, Contents};

/// The store's log as a voter's disk.
pub struct OnDisk {
    log: SharedLog,
    contents: Option<Contents>,
}

impl OnDisk {
    pub fn open(dir: &Path) -> Result<Self, Problem> {
        let (log, contents) = SharedLog::open(dir)?;
        Ok(Self { log, contents: Some(contents) })
    }
}

impl Disk for OnDisk {
    fn load(&mut self) -> Result<Stored, Fault> {
        let contents = self.contents.take().unwrap_or_default();
        Ok(Stored {
            vote: contents.vote,
            committed: contents.committed,
            purged: contents.purged.map(|(_, mark)| mark),
            entries: contents.entries,
        })
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), Fault> {
        let changes: Vec<Change<'_>> = writes.iter().map(change).collect();
        self.log.commit(&changes).map_err(fault)
    }

    fn snapshot(&mut self) -> Result<Option<(u64, Vec<u8>)>, Fault> {
        self.log.snapshot().map_err(fault)
    }
}

fn change(write: &Write) -> Change<'_> {
    match write {
        Write::Vote(bytes) => Change::Vote(bytes),
        Write::Committed(bytes) => Change::Committed(bytes),
        Write::Append { index, bytes } => Change::Append { index: *index, bytes },
        Write::Truncate { from } => Change::Truncate { from: *from },
        Write::Purge { upto, mark } => Change::Purge { upto: *upto, mark },
        Write::Snapshot { index, bytes } => Change::Snapshot { index: *index, bytes },
    }
}

fn fault(fault: store::shared::Fault) -> Fault {
    match fault {
        store::shared::Fault::Full(problem) => Fault::Full(problem),
        store::shared::Fault::Failed(problem) => Fault::Failed(problem),
    }
}

/// A disk in memory that outlives the voter that uses it. What is not committed is lost with the voter.
#[derive(Clone, Default)]
pub struct InMemory(Arc<Mutex<Kept>>);

#[derive(Default)]
pub struct Kept {
    pub stored: Stored,
    pub snapshot: Option<(u64, Vec<u8>)>,
    /// Counts the commits, and the entries in them.
    pub commits: u64,
    pub appended: u64,
    /// No room.
    pub full: bool,
    /// Fails for good.
    pub broken: bool,
    /// Which opening of the disk may still write: an earlier process is dead.
    pub opening: u64,
}

/// One process's hold of it.
pub struct Opened {
    disk: InMemory,
    opening: u64,
}

impl InMemory {
    pub fn open(&self) -> Opened {
        let mut kept = self.kept();
        kept.opening += 1;
        Opened { disk: self.clone(), opening: kept.opening }
    }

    /// Whoever uses it now writes nothing more, from this moment on.
    pub fn kill_user(&self) {
        self.kept().opening += 1;
    }

    pub fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap()
    }
}

impl Opened {
    fn kept(&self) -> Result<MutexGuard<'_, Kept>, Fault> {
        let kept = self.disk.0.lock().unwrap();
        let failed = |what: &str| Err(Fault::Failed(Problem::new(Code::Internal, what)));
        match (kept.opening == self.opening, kept.broken) {
            (true, false) => Ok(kept),
            (false, _) => failed("this process was killed"),
            (_, true) => failed("the disk failed"),
        }
    }
}

impl Disk for Opened {
    fn load(&mut self) -> Result<Stored, Fault> {
        Ok(self.kept()?.stored.clone())
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), Fault> {
        let mut kept = self.kept()?;
        if kept.full {
            return Err(Fault::Full(Problem::new(Code::DiskFull, "the disk is full")));
        }
        kept.commits += 1;
        let mut entries: BTreeMap<u64, Vec<u8>> = std::mem::take(&mut kept.stored.entries).into_iter().collect();
        for write in writes.iter().cloned() {
            match write {
                Write::Vote(bytes) => kept.stored.vote = Some(bytes),
                Write::Committed(bytes) => kept.stored.committed = Some(bytes),
                Write::Append { index, bytes } => {
                    kept.appended += 1;
                    entries.insert(index, bytes);
                }
                Write::Truncate { from } => drop(entries.split_off(&from)),
                Write::Purge { upto, mark } => {
                    entries = entries.split_off(&(upto + 1));
                    kept.stored.purged = Some(mark);
                }
                Write::Snapshot { index, bytes } => kept.snapshot = Some((index, bytes)),
            }
        }
        kept.stored.entries = entries.into_iter().collect();
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Option<(u64, Vec<u8>)>, Fault> {
        Ok(self.kept()?.snapshot.clone())
    }
}
