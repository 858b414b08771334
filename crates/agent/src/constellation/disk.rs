//! The store's part of the shared log as the voter's disk.

use std::path::Path;

use consensus::{Disk, Fault, Kept, Stored, Write};
use model::Problem;
use store::SharedLog;
use store::shared::{Change, Contents};

pub(crate) struct OnDisk {
    log: SharedLog,
    /// What was there at the start, until it is asked for.
    contents: Option<Contents>,
}

impl OnDisk {
    pub(crate) fn open(dir: &Path) -> Result<Self, Problem> {
        let (log, contents) = SharedLog::open(dir)?;
        if log.was_marked() {
            tracing::warn!(
                "a sync of the log had failed, which ended the agent before; what the disk has was written anew"
            );
        }
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

    fn snapshot(&mut self) -> Result<Option<Kept>, Fault> {
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
