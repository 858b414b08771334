//! The file under a database or a journal: plain reads, writes and syncs that remember how they failed.
//!
//! A database reports every failure alike; what to do differs. A full disk passes: the write is refused and tried
//! again later. A failed sync does not: Linux drops the dirty pages and the next sync succeeds without them, so
//! nothing that follows may be trusted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use redb::StorageBackend;

use crate::fault;

/// What went wrong below since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub full: AtomicBool,
    pub sync_failed: AtomicBool,
    #[cfg(test)]
    pub inject_full: AtomicBool,
    #[cfg(test)]
    pub inject_sync_failure: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct Disk {
    file: File,
    faults: Arc<Faults>,
}

impl Disk {
    pub(crate) fn new(file: File, faults: Arc<Faults>) -> Self {
        Self { file, faults }
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.as_ref().is_err_and(fault::is_full) {
            self.faults.full.store(true, SeqCst);
        }
        result
    }

    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if self.faults.inject_full.load(SeqCst) {
            return self.note(Err(io::ErrorKind::StorageFull.into()));
        }
        self.note(self.file.write_all_at(data, offset))
    }

    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        self.note(self.file.set_len(len))
    }

    pub(crate) fn sync_data(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.faults.inject_sync_failure.load(SeqCst) {
            self.faults.sync_failed.store(true, SeqCst);
            return Err(io::Error::from_raw_os_error(5));
        }
        self.file.sync_data().inspect_err(|_| self.faults.sync_failed.store(true, SeqCst))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write(offset, data)
    }
}
