//! The log and its snapshot in one database file, used by one thread: open, append, compact, recover.
//!
//! Leaves queues, callbacks and what a failure means for the process to `store`, the file itself to `database`. A command
//! is one row of the table `log` under its index; the table `snapshot` holds at most one row, the state at its index, and
//! the log then begins right after it. One commit is one sync, however many commands it carries.

use std::path::Path;
#[cfg(test)]
use std::sync::Arc;

use model::Problem;
use redb::{ReadableTable, TableDefinition};
use state::{Command, State};

use crate::database::{Base, ChangeError};
#[cfg(test)]
use crate::disk::Faults;
use crate::fault;
pub(crate) use crate::folder::Failure;
use crate::record::{self, Kind};
use crate::tip::Tip;

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const SNAPSHOT: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshot");

const FILE: &str = "state.redb";
const TIP: &str = "tip";

/// A snapshot is taken when the log since the last one is at least this long …
const COMPACT_BYTES: u64 = 1 << 20;
/// … and this many times the snapshot, so that its cost stays a fraction of the writes that led to it and the file
/// stays within a constant factor of the state.
const COMPACT_RATIO: u64 = 2;

#[derive(Debug)]
pub(crate) struct Ledger {
    base: Base,
    tip: Tip,
    /// Index of the last acknowledged command.
    last: u64,
    log_bytes: u64,
    snapshot_bytes: u64,
}

impl Ledger {
    /// Opens or creates the ledger in `dir` and rebuilds the state from it.
    pub(crate) fn open(dir: &Path) -> Result<(Self, State), Problem> {
        let base = Base::new(dir, FILE)?;
        let tip_path = dir.join(TIP);
        let tip = Tip::open(&tip_path).map_err(|error| fault::problem("open", &tip_path, &error))?;
        let mut this = Self { base, tip, last: 0, log_bytes: 0, snapshot_bytes: 0 };
        let state = this.recover().map_err(|failure| this.problem(&failure))?;
        Ok((this, state))
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    #[cfg(test)]
    pub(crate) fn faults(&self) -> Arc<Faults> {
        self.base.faults()
    }

    /// Writes the commands under the next indexes and syncs. On a failure none of them is in the log.
    pub(crate) fn append(&mut self, commands: &[Vec<u8>]) -> Result<(), Failure> {
        self.reopen()?;
        let written = self.write(|transaction, last| {
            let mut log = transaction.open_table(LOG)?;
            for (index, command) in (last + 1..).zip(commands) {
                log.insert(index, command.as_slice())?;
            }
            Ok(())
        });
        written?;
        self.last += commands.len() as u64;
        self.log_bytes += commands.iter().map(|command| command.len() as u64).sum::<u64>();
        self.tip.write(self.last);
        Ok(())
    }

    /// Whether the log has grown long enough to be worth replacing by a snapshot.
    pub(crate) fn wants_compaction(&self) -> bool {
        self.log_bytes >= COMPACT_BYTES.max(self.snapshot_bytes * COMPACT_RATIO)
    }

    /// Replaces the log by a snapshot of what it leads to. The state is read back from the disk rather than kept in
    /// memory a second time; that also checks every record once more before it is thrown away.
    pub(crate) fn compact(&mut self) -> Result<(), Failure> {
        self.reopen()?;
        let (state, last) = self.read()?;
        if last != self.last {
            return Err(Failure::Corrupt(format!("the log ends at {last}, {} was acknowledged", self.last)));
        }
        let snapshot = record::encode(Kind::Snapshot, last, &state).map_err(Failure::Fatal)?;
        self.write(|transaction, last| {
            // The table is one row; drained rather than searched for the old index.
            let mut snapshots = transaction.open_table(SNAPSHOT)?;
            snapshots.retain(|_, _| false)?;
            snapshots.insert(last, snapshot.as_slice())?;
            transaction.open_table(LOG)?.retain_in(..=last, |_, _| false)?;
            Ok(())
        })?;
        self.log_bytes = 0;
        self.snapshot_bytes = snapshot.len() as u64;
        Ok(())
    }

    /// Says what a failure means to a person.
    pub(crate) fn problem(&self, failure: &Failure) -> Problem {
        self.base.problem(failure)
    }

    /// Leaves a note for the next process that the file may differ from what is in memory.
    pub(crate) fn mark_sync_failed(&self) {
        self.base.mark_sync_failed();
    }

    fn recover(&mut self) -> Result<State, Failure> {
        self.base.reopen()?;
        let (state, last) = self.read()?;
        if let Some(tip) = self.tip.read().filter(|tip| *tip > last) {
            return Err(Failure::Corrupt(format!("the log ends at {last}, but {tip} was acknowledged")));
        }
        self.last = last;
        if last == 0 {
            self.write(|transaction, _| {
                transaction.open_table(LOG)?;
                transaction.open_table(SNAPSHOT)?;
                Ok(())
            })?;
        }
        if self.base.is_marked() {
            self.rewrite(&state)?;
        }
        Ok(state)
    }

    /// Writes a new file with only a snapshot and puts it in the place of the old one.
    fn rewrite(&mut self, state: &State) -> Result<(), Failure> {
        let snapshot = record::encode(Kind::Snapshot, self.last, state).map_err(Failure::Fatal)?;
        let last = self.last;
        self.base.replace(|transaction| {
            transaction.open_table(LOG)?;
            transaction.open_table(SNAPSHOT)?.insert(last, snapshot.as_slice())?;
            Ok(())
        })?;
        self.log_bytes = 0;
        self.snapshot_bytes = snapshot.len() as u64;
        Ok(())
    }

    /// The state at the end of the log, and that index. Also measures the log.
    fn read(&mut self) -> Result<(State, u64), Failure> {
        let base = &self.base;
        let transaction = base.read()?;
        let (mut state, mut index) = (State::default(), 0);
        (self.log_bytes, self.snapshot_bytes) = (0, 0);
        let snapshots = match transaction.open_table(SNAPSHOT) {
            Ok(table) => table,
            // A new file. In one that is not, the tip tells that something is missing.
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok((state, 0)),
            Err(error) => return Err(base.failure(error.into())),
        };
        if let Some((at, bytes)) = snapshots.last().map_err(|error| base.failure(error.into()))? {
            index = at.value();
            state = record::decode(Kind::Snapshot, index, bytes.value()).map_err(Failure::Corrupt)?;
            self.snapshot_bytes = bytes.value().len() as u64;
        }
        let log = transaction.open_table(LOG).map_err(|error| base.failure(error.into()))?;
        for row in log.iter().map_err(|error| base.failure(error.into()))? {
            let (at, bytes) = row.map_err(|error| base.failure(error.into()))?;
            if at.value() != index + 1 {
                return Err(Failure::Corrupt(format!("record {} follows record {index}", at.value())));
            }
            index += 1;
            let command: Command = record::decode(Kind::Command, index, bytes.value()).map_err(Failure::Corrupt)?;
            state::apply(&mut state, index, &command);
            self.log_bytes += bytes.value().len() as u64;
        }
        Ok((state, index))
    }

    /// After a failure: opens the file again and removes what the failed batch may have left, because its commands
    /// were refused.
    fn reopen(&mut self) -> Result<(), Failure> {
        if self.base.is_open() {
            return Ok(());
        }
        self.base.reopen()?;
        let result = self.read().and_then(|(_, last)| match last.cmp(&self.last) {
            std::cmp::Ordering::Less => {
                Err(Failure::Corrupt(format!("the log ends at {last}, {} was acknowledged", self.last)))
            }
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => {
                self.write(|transaction, last| Ok(transaction.open_table(LOG)?.retain_in(last + 1.., |_, _| false)?))
            }
        });
        if result.is_err() {
            self.base.close();
        }
        result
    }

    fn write(
        &mut self,
        change: impl FnOnce(&redb::WriteTransaction, u64) -> Result<(), ChangeError>,
    ) -> Result<(), Failure> {
        let last = self.last;
        self.base.write(|transaction| change(transaction, last))
    }
}

#[cfg(test)]
mod tests;
