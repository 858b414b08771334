//! The log and its snapshot in one database file, used by one thread: open, append, compact, recover.
//!
//! Leaves queues, callbacks and what a failure means for the process to `store`. A command is one row of the table
//! `log` under its index; the table `snapshot` holds at most one row, the state at its index, and the log then begins
//! right after it. One commit is one sync, however many commands it carries.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use model::{Code, Problem};
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use state::{Command, State};

use crate::disk::{Disk, Faults};
use crate::record::{self, Kind};
use crate::tip::Tip;
use crate::{bundles, fault, place};

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const SNAPSHOT: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshot");

const FILE: &str = "state.redb";
const TIP: &str = "tip";
/// Present after a failed sync, until the file was written anew: its pages in memory may not be those on the disk.
const MARK: &str = "sync-failed";

/// The database reads its file through this much memory at most: the log is written often and read once.
const CACHE_BYTES: usize = 4 << 20;
/// A snapshot is taken when the log since the last one is at least this long …
const COMPACT_BYTES: u64 = 1 << 20;
/// … and this many times the snapshot, so that its cost stays a fraction of the writes that led to it and the file
/// stays within a constant factor of the state.
const COMPACT_RATIO: u64 = 2;

/// Why the disk did not do as asked.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// No room. Nothing of the batch is kept; later ones may work.
    Full,
    /// What is read is not what was written.
    Corrupt(String),
    /// Anything else, a failed sync first of all: the disk cannot be relied on any more.
    Fatal(String),
}

#[derive(Debug)]
pub(crate) struct Ledger {
    dir: PathBuf,
    faults: Arc<Faults>,
    /// `None` after a failure, until it is opened again.
    database: Option<Database>,
    tip: Tip,
    /// Index of the last acknowledged command.
    last: u64,
    log_bytes: u64,
    snapshot_bytes: u64,
    /// The kernel's lock on the folder.
    _lock: File,
}

impl Ledger {
    /// Opens or creates the ledger in `dir` and rebuilds the state from it.
    pub(crate) fn open(dir: &Path) -> Result<(Self, State), Problem> {
        fs::create_dir_all(dir).map_err(|error| fault::problem("create", dir, &error))?;
        let lock = lock(dir)?;
        let tip_path = dir.join(TIP);
        let tip = Tip::open(&tip_path).map_err(|error| fault::problem("open", &tip_path, &error))?;
        let faults = Arc::default();
        let mut this = Self {
            dir: dir.to_path_buf(),
            faults,
            database: None,
            tip,
            last: 0,
            log_bytes: 0,
            snapshot_bytes: 0,
            _lock: lock,
        };
        let state = this.recover().map_err(|failure| this.problem(&failure))?;
        Ok((this, state))
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    #[cfg(test)]
    pub(crate) fn faults(&self) -> Arc<Faults> {
        Arc::clone(&self.faults)
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
        let path = self.dir.join(FILE);
        match failure {
            Failure::Full => fault::disk_full(&self.dir.display().to_string()),
            Failure::Corrupt(what) => fault::corrupt(&path, what),
            Failure::Fatal(what) => {
                Problem::new(Code::Internal, format!("the disk under `{}` failed: {what}", path.display()))
                    .help("look for errors of the disk with `dmesg`; nothing that was acknowledged is lost yet")
            }
        }
    }

    /// Leaves a note for the next process that the file may differ from what is in memory.
    pub(crate) fn mark_sync_failed(&self) {
        // Best effort on a disk that just failed.
        let _ = File::create(self.dir.join(MARK)).and_then(|file| file.sync_all());
    }

    fn recover(&mut self) -> Result<State, Failure> {
        let mark = self.dir.join(MARK);
        self.database = Some(self.open_database(&self.dir.join(FILE))?);
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
        if mark.exists() {
            self.rewrite(&state)?;
            fs::remove_file(&mark).map_err(io_failure)?;
        }
        Ok(state)
    }

    /// Writes a new file with only a snapshot and puts it in the place of the old one.
    fn rewrite(&mut self, state: &State) -> Result<(), Failure> {
        let (path, fresh) = (self.dir.join(FILE), self.dir.join("state.redb.new"));
        let snapshot = record::encode(Kind::Snapshot, self.last, state).map_err(Failure::Fatal)?;
        self.database = None;
        let _ = fs::remove_file(&fresh);
        self.database = Some(self.open_database(&fresh)?);
        self.write(|transaction, last| {
            transaction.open_table(LOG)?;
            transaction.open_table(SNAPSHOT)?.insert(last, snapshot.as_slice())?;
            Ok(())
        })?;
        fs::rename(&fresh, &path).and_then(|()| bundles::sync_dir(&self.dir)).map_err(io_failure)?;
        self.log_bytes = 0;
        self.snapshot_bytes = snapshot.len() as u64;
        Ok(())
    }

    /// The state at the end of the log, and that index. Also measures the log.
    fn read(&mut self) -> Result<(State, u64), Failure> {
        let read = self.database().begin_read();
        let transaction = read.map_err(|error| self.failure(error.into()))?;
        let (mut state, mut index) = (State::default(), 0);
        (self.log_bytes, self.snapshot_bytes) = (0, 0);
        let snapshots = match transaction.open_table(SNAPSHOT) {
            Ok(table) => table,
            // A new file. In one that is not, the tip tells that something is missing.
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok((state, 0)),
            Err(error) => return Err(self.failure(error.into())),
        };
        if let Some((at, bytes)) = snapshots.last().map_err(|error| self.failure(error.into()))? {
            index = at.value();
            state = record::decode(Kind::Snapshot, index, bytes.value()).map_err(Failure::Corrupt)?;
            self.snapshot_bytes = bytes.value().len() as u64;
        }
        let log = transaction.open_table(LOG).map_err(|error| self.failure(error.into()))?;
        for row in log.iter().map_err(|error| self.failure(error.into()))? {
            let (at, bytes) = row.map_err(|error| self.failure(error.into()))?;
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
        if self.database.is_some() {
            return Ok(());
        }
        if self.faults.sync_failed.load(SeqCst) {
            return Err(Failure::Fatal("a sync failed before".to_owned()));
        }
        self.faults.full.store(false, SeqCst);
        self.database = Some(self.open_database(&self.dir.join(FILE))?);
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
            self.database = None;
        }
        result
    }

    fn open_database(&self, path: &Path) -> Result<Database, Failure> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let disk = Disk::new(file.map_err(io_failure)?, Arc::clone(&self.faults));
        Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(disk)
            .map_err(|error| self.failure(error.into()))
    }

    /// One durable transaction. When it fails the database is closed: what it holds in memory is not to be used.
    fn write(
        &mut self,
        change: impl FnOnce(&redb::WriteTransaction, u64) -> Result<(), ChangeError>,
    ) -> Result<(), Failure> {
        let last = self.last;
        let result = (|| {
            let transaction = self.database().begin_write().map_err(redb::Error::from)?;
            change(&transaction, last).map_err(|error| error.0)?;
            transaction.commit().map_err(redb::Error::from)
        })();
        result.map_err(|error| {
            let failure = self.failure(error);
            self.database = None;
            failure
        })
    }

    fn database(&self) -> &Database {
        self.database.as_ref().expect("opened by `recover` or `reopen` before every use")
    }

    fn failure(&self, error: redb::Error) -> Failure {
        if self.faults.sync_failed.load(SeqCst) {
            return Failure::Fatal(format!("a sync failed ({error})"));
        }
        // Before the error itself: after the first failed write the database only says that one came before.
        if self.faults.full.load(SeqCst) {
            return Failure::Full;
        }
        match error {
            redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                Failure::Corrupt(error.to_string())
            }
            redb::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Failure::Corrupt("the file is cut short".to_owned())
            }
            redb::Error::Io(error) => io_failure(error),
            redb::Error::PreviousIo => Failure::Fatal("an earlier write failed".to_owned()),
            other => Failure::Corrupt(other.to_string()),
        }
    }
}

/// Any error of a change, so that `?` works on tables and rows alike.
struct ChangeError(redb::Error);

impl From<redb::TableError> for ChangeError {
    fn from(error: redb::TableError) -> Self {
        Self(error.into())
    }
}

impl From<redb::StorageError> for ChangeError {
    fn from(error: redb::StorageError) -> Self {
        Self(error.into())
    }
}

fn io_failure(error: std::io::Error) -> Failure {
    if fault::is_full(&error) { Failure::Full } else { Failure::Fatal(error.to_string()) }
}

/// Takes the folder itself, so that no file of it need exist before it is ours.
fn lock(dir: &Path) -> Result<File, Problem> {
    let folder = File::open(dir).map_err(|error| fault::problem("open", dir, &error))?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => {
            // The pid is known when the store lies in a data folder that is held.
            Err(place::held(dir, dir.parent().and_then(place::DataDir::holder)))
        }
        Err(TryLockError::Error(error)) => Err(fault::problem("lock", dir, &error)),
    }
}

#[cfg(test)]
mod tests;
