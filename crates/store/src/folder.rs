//! A folder that belongs to one log: its lock, what failed in it since it was opened, the mark that a failed sync leaves.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use model::{Code, Problem};

use crate::disk::Faults;
use crate::{bundles, fault, place};

/// Present after a failed sync, until what the disk has was written anew: pages in memory may not be those on the disk.
pub(crate) const MARK: &str = "sync-failed";

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

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if fault::is_full(&error) { Self::Full } else { Self::Fatal(error.to_string()) }
    }
}

impl Failure {
    /// Of a sync, whatever its error, a full disk too: what was written before it may be lost, and no later one tells.
    pub(crate) fn of_sync(error: &io::Error) -> Self {
        Self::Fatal(format!("a sync failed ({error})"))
    }
}

#[derive(Debug)]
pub(crate) struct Folder {
    dir: PathBuf,
    faults: Arc<Faults>,
    /// The kernel's.
    _lock: File,
}

impl Folder {
    /// Makes the folder where there is none, and takes it.
    pub(crate) fn take(dir: &Path) -> Result<Self, Problem> {
        fs::create_dir_all(dir).map_err(|error| fault::problem("create", dir, &error))?;
        Ok(Self { dir: dir.to_path_buf(), faults: Arc::default(), _lock: lock(dir)? })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }

    /// Makes the names of its files durable.
    pub(crate) fn sync(&self) -> Result<(), Failure> {
        bundles::sync_dir(&self.dir).map_err(|error| Failure::of_sync(&error))
    }

    /// Not after a failed sync: a later one that works proves nothing about it.
    pub(crate) fn is_usable(&self) -> Result<(), Failure> {
        match self.faults.sync_failed.load(SeqCst) {
            true => Err(Failure::Fatal("a sync failed before".to_owned())),
            false => Ok(()),
        }
    }

    /// Whether an earlier process met a failed sync here.
    pub(crate) fn is_marked(&self) -> bool {
        self.path(MARK).exists()
    }

    /// Leaves a note for the next process that a file may differ from what is in memory.
    pub(crate) fn mark_sync_failed(&self) {
        // Best effort on a disk that just failed.
        let _ = File::create(self.path(MARK)).and_then(|file| file.sync_all());
    }

    pub(crate) fn unmark(&self) -> Result<(), Failure> {
        match fs::remove_file(self.path(MARK)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Says what a failure of what lies at `path` means to a person.
    pub(crate) fn problem(&self, path: &Path, failure: &Failure) -> Problem {
        match failure {
            Failure::Full => fault::disk_full(&self.dir.display().to_string()),
            Failure::Corrupt(what) => fault::corrupt(path, what),
            Failure::Fatal(what) => {
                Problem::new(Code::Internal, format!("the disk under `{}` failed: {what}", path.display()))
                    .help("look for errors of the disk with `dmesg`; nothing that was acknowledged is lost yet")
            }
        }
    }
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
