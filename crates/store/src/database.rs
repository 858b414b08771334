//! One database file in a folder of its own: locked, written in durable transactions, opened again after a failure, written
//! anew after a failed sync.
//!
//! What the rows mean, and what a refused change may have left behind, is its users' business: `ledger` and `followed`.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use model::Problem;
use redb::{Builder, Database, ReadTransaction, ReadableDatabase, WriteTransaction};

use crate::bundles;
use crate::disk::Disk;
#[cfg(test)]
use crate::disk::Faults;
use crate::folder::{Failure, Folder};

/// The database reads its file through this much memory at most: a log is written often and read once.
const CACHE_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(crate) struct Base {
    folder: Arc<Folder>,
    file: &'static str,
    /// `None` before the first opening and after a failure, until it is opened again.
    database: Option<Database>,
}

impl Base {
    /// Makes the folder where there is none and takes it. The file is opened by [`Base::reopen`].
    pub(crate) fn new(dir: &Path, file: &'static str) -> Result<Self, Problem> {
        Ok(Self::within(Arc::new(Folder::take(dir)?), file))
    }

    /// In a folder that is taken.
    pub(crate) fn within(folder: Arc<Folder>, file: &'static str) -> Self {
        Self { folder, file, database: None }
    }

    #[cfg(test)]
    pub(crate) fn faults(&self) -> Arc<Faults> {
        Arc::clone(self.folder.faults())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.database.is_some()
    }

    /// Opens the file, again after a failure. Not after a failed sync: a later one that works proves nothing about it.
    pub(crate) fn reopen(&mut self) -> Result<(), Failure> {
        self.folder.is_usable()?;
        self.folder.faults().full.store(false, SeqCst);
        self.database = Some(self.open_file(&self.folder.path(self.file))?);
        Ok(())
    }

    pub(crate) fn close(&mut self) {
        self.database = None;
    }

    pub(crate) fn is_marked(&self) -> bool {
        self.folder.is_marked()
    }

    pub(crate) fn mark_sync_failed(&self) {
        self.folder.mark_sync_failed();
    }

    /// Writes a new file, puts it in the place of the old one and takes the mark away.
    pub(crate) fn replace(
        &mut self,
        fill: impl FnOnce(&WriteTransaction) -> Result<(), ChangeError>,
    ) -> Result<(), Failure> {
        let (path, fresh) = (self.folder.path(self.file), self.folder.path(&format!("{}.new", self.file)));
        self.database = None;
        let _ = fs::remove_file(&fresh);
        self.database = Some(self.open_file(&fresh)?);
        self.write(fill)?;
        fs::rename(&fresh, &path).and_then(|()| bundles::sync_dir(self.folder.dir()))?;
        self.folder.unmark()
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
        if self.folder.faults().sync_failed.load(SeqCst) {
            return Failure::Fatal(format!("a sync failed ({error})"));
        }
        // Before the error itself: after the first failed write the database only says that one came before.
        if self.folder.faults().full.load(SeqCst) {
            return Failure::Full;
        }
        match error {
            redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                Failure::Corrupt(error.to_string())
            }
            redb::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Failure::Corrupt("the file is cut short".to_owned())
            }
            redb::Error::Io(error) => error.into(),
            redb::Error::PreviousIo => Failure::Fatal("an earlier write failed".to_owned()),
            other => Failure::Corrupt(other.to_string()),
        }
    }

    /// Says what a failure means to a person.
    pub(crate) fn problem(&self, failure: &Failure) -> Problem {
        self.folder.problem(&self.folder.path(self.file), failure)
    }

    fn open_file(&self, path: &Path) -> Result<Database, Failure> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let disk = Disk::new(file?, Arc::clone(self.folder.faults()));
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
