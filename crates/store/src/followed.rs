//! What a node keeps of a log that others write: a state, and the commands heard since, under their own indexes.
//!
//! A copy: what is lost of it can be had again. Still it is durable before it is acted on, so that a node that starts where
//! nobody can be reached knows every star it was told to run.

use std::path::Path;

use model::Problem;
use redb::{ReadableTable, TableDefinition};
use state::{Command, State};

use crate::database::Base;
use crate::folder::Failure;
use crate::record::{self, Kind};

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const SNAPSHOT: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshot");

const FILE: &str = "followed.redb";

/// The commands give way to a state when they are at least this long …
const COMPACT_BYTES: u64 = 1 << 20;
/// … and this many times the state, so that writing it costs a fraction of what led to it.
const COMPACT_RATIO: u64 = 2;

/// The copy, alone in its folder. Everything blocks on the disk.
#[derive(Debug)]
pub struct Followed {
    base: Base,
    last: u64,
    log_bytes: u64,
    snapshot_bytes: u64,
}

impl Followed {
    /// Opens or creates the copy in `dir`, and gives the state it leads to; an empty one when nothing was heard yet.
    ///
    /// # Errors
    /// `AgentRunning`, `DataCorrupt`, `DiskFull`, `DataUnwritable`; nothing is changed then.
    pub fn open(dir: &Path) -> Result<(Self, State), Problem> {
        let base = Base::new(dir, FILE)?;
        let mut this = Self { base, last: 0, log_bytes: 0, snapshot_bytes: 0 };
        let state = this.recover().map_err(|failure| this.base.problem(&failure))?;
        Ok((this, state))
    }

    /// Index of the last command here.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Writes commands under their indexes, which grow. Durable when it returns; on a failure none is there.
    ///
    /// # Errors
    /// `DiskFull`: the same may be tried again. Anything else is final: the process must end.
    pub fn append(&mut self, commands: &[(u64, &Command)]) -> Result<(), Problem> {
        let result = self.try_append(commands);
        result.map_err(|failure| self.told(&failure))
    }

    /// Puts a whole state in the place of everything.
    ///
    /// # Errors
    /// As [`Followed::append`].
    pub fn replace(&mut self, state: &State) -> Result<(), Problem> {
        let result = self.reopen().and_then(|()| self.snapshot(state));
        result.map_err(|failure| self.told(&failure))
    }

    /// What a failure means to a person; the next process is left a note when the file may differ from what is in memory.
    fn told(&self, failure: &Failure) -> Problem {
        if matches!(failure, Failure::Fatal(_)) {
            self.base.mark_sync_failed();
        }
        self.base.problem(failure)
    }

    fn try_append(&mut self, commands: &[(u64, &Command)]) -> Result<(), Failure> {
        self.reopen()?;
        let (mut last, mut records) = (self.last, Vec::with_capacity(commands.len()));
        for (index, command) in commands {
            if *index <= last {
                return Err(Failure::Corrupt(format!("command {index} follows command {last}")));
            }
            last = *index;
            records.push((last, record::encode(Kind::Command, last, command).map_err(Failure::Fatal)?));
        }
        self.base.write(|transaction| {
            let mut log = transaction.open_table(LOG)?;
            for (index, record) in &records {
                log.insert(*index, record.as_slice())?;
            }
            Ok(())
        })?;
        self.last = last;
        self.log_bytes += records.iter().map(|(_, record)| record.len() as u64).sum::<u64>();
        if self.log_bytes >= COMPACT_BYTES.max(self.snapshot_bytes * COMPACT_RATIO) {
            let (state, _) = self.read()?;
            self.snapshot(&state)?;
        }
        Ok(())
    }

    fn snapshot(&mut self, state: &State) -> Result<(), Failure> {
        let index = state.index;
        let snapshot = record::encode(Kind::Snapshot, index, state).map_err(Failure::Fatal)?;
        self.base.write(|transaction| {
            let mut snapshots = transaction.open_table(SNAPSHOT)?;
            snapshots.retain(|_, _| false)?;
            snapshots.insert(index, snapshot.as_slice())?;
            transaction.open_table(LOG)?.retain(|_, _| false)?;
            Ok(())
        })?;
        (self.last, self.log_bytes, self.snapshot_bytes) = (index, 0, snapshot.len() as u64);
        Ok(())
    }

    fn recover(&mut self) -> Result<State, Failure> {
        self.base.reopen()?;
        let (state, last) = self.read()?;
        self.last = last;
        if last == 0 || self.base.is_marked() {
            let snapshot = record::encode(Kind::Snapshot, last, &state).map_err(Failure::Fatal)?;
            self.base.replace(|transaction| {
                transaction.open_table(LOG)?;
                transaction.open_table(SNAPSHOT)?.insert(last, snapshot.as_slice())?;
                Ok(())
            })?;
            self.log_bytes = 0;
        }
        Ok(state)
    }

    /// The state at the end of what is here, and its index. Also measures it.
    fn read(&mut self) -> Result<(State, u64), Failure> {
        let base = &self.base;
        let transaction = base.read()?;
        let (mut state, mut last) = (State::default(), 0);
        (self.log_bytes, self.snapshot_bytes) = (0, 0);
        let snapshots = match transaction.open_table(SNAPSHOT) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok((state, 0)),
            Err(error) => return Err(base.failure(error.into())),
        };
        if let Some((at, bytes)) = snapshots.last().map_err(|error| base.failure(error.into()))? {
            last = at.value();
            state = record::decode(Kind::Snapshot, last, bytes.value()).map_err(Failure::Corrupt)?;
            self.snapshot_bytes = bytes.value().len() as u64;
        }
        let log = transaction.open_table(LOG).map_err(|error| base.failure(error.into()))?;
        for row in log.iter().map_err(|error| base.failure(error.into()))? {
            let (at, bytes) = row.map_err(|error| base.failure(error.into()))?;
            let index = at.value();
            if index <= last {
                return Err(Failure::Corrupt(format!("command {index} follows the state at {last}")));
            }
            last = index;
            let command: Command = record::decode(Kind::Command, index, bytes.value()).map_err(Failure::Corrupt)?;
            state::apply(&mut state, index, &command);
            self.log_bytes += bytes.value().len() as u64;
        }
        Ok((state, last))
    }

    /// After a failure: opens the file again and removes what the failed write may have left.
    fn reopen(&mut self) -> Result<(), Failure> {
        if self.base.is_open() {
            return Ok(());
        }
        self.base.reopen()?;
        let last = self.last;
        let removed =
            self.base.write(|transaction| Ok(transaction.open_table(LOG)?.retain_in(last + 1.., |_, _| false)?));
        if removed.is_err() {
            self.base.close();
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use model::WallTime;

    use super::*;

    fn removal(app: &str) -> Command {
        Command::RemoveApp { app: app.parse().unwrap(), wall: WallTime(1) }
    }

    #[test]
    fn what_was_heard_is_there_again_with_its_gaps() {
        let folder = tempfile::tempdir().unwrap();
        let (mut followed, state) = Followed::open(folder.path()).unwrap();
        assert_eq!((state, followed.last()), (State::default(), 0));
        let start = State { index: 40, ..State::default() };
        followed.replace(&start).unwrap();
        followed.append(&[(41, &removal("a")), (44, &removal("b"))]).unwrap();
        followed.append(&[(50, &removal("c"))]).unwrap();
        drop(followed);
        let (followed, state) = Followed::open(folder.path()).unwrap();
        let mut expected = start;
        for (index, app) in [(41, "a"), (44, "b"), (50, "c")] {
            state::apply(&mut expected, index, &removal(app));
        }
        assert_eq!((state, followed.last()), (expected, 50));
    }

    #[test]
    fn an_index_never_comes_twice_and_a_state_replaces_everything() {
        let folder = tempfile::tempdir().unwrap();
        let (mut followed, _) = Followed::open(folder.path()).unwrap();
        followed.append(&[(7, &removal("a"))]).unwrap();
        assert!(followed.append(&[(7, &removal("b"))]).is_err());
        let newer = State { index: 90, ..State::default() };
        followed.replace(&newer).unwrap();
        drop(followed);
        assert_eq!(Followed::open(folder.path()).unwrap().1, newer);
    }

    #[test]
    fn a_long_log_gives_way_to_a_state() {
        let folder = tempfile::tempdir().unwrap();
        let (mut followed, _) = Followed::open(folder.path()).unwrap();
        let (mut index, command) = (0, removal("a"));
        let mut longest = 0;
        while index < 60_000 {
            let commands: Vec<_> = (1..=1_000).map(|step| (index + step * 2, &command)).collect();
            followed.append(&commands).unwrap();
            index = followed.last();
            longest = longest.max(followed.log_bytes);
        }
        assert!(longest > 0 && longest < 2 * COMPACT_BYTES, "{longest}");
    }
}
