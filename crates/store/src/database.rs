//! One database file in a folder of its own: locked, written in durable transactions, opened again after a failure, written
//! anew after a failed sync.
//!
//! What the rows mean, and what a refused change may have left behind, is its users' business: `ledger` and `shared`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use model::{Code, Problem};
use redb::{Builder, Database, ReadTransaction, ReadableDatabase, WriteTransaction};

use crate::disk::{Disk, Faults};
use crate::{bundles, fault, place};

/// Present after a failed sync, until the file was written anew: its pages in memory may not be those on the disk.
pub(crate) const MARK: &str = "sync-failed";

/// The database reads its file through this much memory at most: a log is written often and read once.
const CACHE_BYTES: usize = 4 << 20;

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
pub(crate) struct Base {
    dir: PathBuf,
    file: &'static str,
    faults: Arc<Faults>,
    /// `None` before the first opening and after a failure, until it is opened again.
    database: Option<Database>,
    /// The kernel's lock on the folder.
    _lock: File,
}

impl Base {
    /// Makes the folder where there is none and takes it. The file is opened by [`Base::reopen`].
    pub(crate) fn new(dir: &Path, file: &'static str) -> Result<Self, Problem> {
        fs::create_dir_all(dir).map_err(|error| fault::problem("create", dir, &error))?;
        let lock = lock(dir)?;
        Ok(Self { dir: dir.to_path_buf(), file, faults: Arc::default(), database: None, _lock: lock })
    }

    #[cfg(test)]
    pub(crate) fn faults(&self) -> Arc<Faults> {
        Arc::clone(&self.faults)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.database.is_some()
    }

    /// Opens the file, again after a failure. Not after a failed sync: a later one that works proves nothing about it.
    pub(crate) fn reopen(&mut self) -> Result<(), Failure> {
        if self.faults.sync_failed.load(SeqCst) {
            return Err(Failure::Fatal("a sync failed before".to_owned()));
        }
        self.faults.full.store(false, SeqCst);
        self.database = Some(self.open_file(&self.dir.join(self.file))?);
        Ok(())
    }

    pub(crate) fn close(&mut self) {
        self.database = None;
    }

    /// Whether an earlier process met a failed sync here.
    pub(crate) fn is_marked(&self) -> bool {
        self.dir.join(MARK).exists()
    }

    /// Leaves a note for the next process that the file may differ from what is in memory.
    pub(crate) fn mark_sync_failed(&self) {
        // Best effort on a disk that just failed.
        let _ = File::create(self.dir.join(MARK)).and_then(|file| file.sync_all());
    }

    /// Writes a new file, puts it in the place of the old one and takes the mark away.
    pub(crate) fn replace(
        &mut self,
        fill: impl FnOnce(&WriteTransaction) -> Result<(), ChangeError>,
    ) -> Result<(), Failure> {
        let (path, fresh) = (self.dir.join(self.file), self.dir.join(format!("{}.new", self.file)));
        self.database = None;
        let _ = fs::remove_file(&fresh);
        self.database = Some(self.open_file(&fresh)?);
        self.write(fill)?;
        fs::rename(&fresh, &path).and_then(|()| bundles::sync_dir(&self.dir)).map_err(io_failure)?;
        match fs::remove_file(self.dir.join(MARK)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_failure(error)),
            _ => Ok(()),
        }
    }

    /// One durable transaction: one sync, however many rows. When it fails the database is closed: what it holds in
    /// memory is not to be used.
    pub(crate) fn write(
        &mut self,
        change: impl FnOnce(&WriteTransaction) -> Result<(), ChangeError>,
    ) -> Result<(), Failure> {
        let result = (|| {
            let transaction = self.database().begin_write().map_err(redb::Error::from)?;
            change(&transaction).map_err(|error| error.0)?;
            transaction.commit().map_err(redb::Error::from)
        })();
        result.map_err(|error| {
            let failure = self.failure(error);
            self.database = None;
            failure
        })
    }

    pub(crate) fn read(&self) -> Result<ReadTransaction, Failure> {
        self.database().begin_read().map_err(|error| self.failure(error.into()))
    }

    pub(crate) fn failure(&self, error: redb::Error) -> Failure {
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

    /// Says what a failure means to a person.
    pub(crate) fn problem(&self, failure: &Failure) -> Problem {
        let path = self.dir.join(self.file);
        match failure {
            Failure::Full => fault::disk_full(&self.dir.display().to_string()),
            Failure::Corrupt(what) => fault::corrupt(&path, what),
            Failure::Fatal(what) => {
                Problem::new(Code::Internal, format!("the disk under `{}` failed: {what}", path.display()))
                    .help("look for errors of the disk with `dmesg`; nothing that was acknowledged is lost yet")
            }
        }
    }

    fn open_file(&self, path: &Path) -> Result<Database, Failure> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let disk = Disk::new(file.map_err(io_failure)?, Arc::clone(&self.faults));
        Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(disk)
            .map_err(|error| self.failure(error.into()))
    }

    fn database(&self) -> &Database {
        self.database.as_ref().expect("opened by `reopen` before every use")
    }
}

/// Any error of a change, so that `?` works on tables and rows alike.
pub(crate) struct ChangeError(redb::Error);

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
