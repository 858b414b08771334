//! The highest index ever acknowledged, beside the log: tells a damaged tail from an unfinished one.
//!
//! The database ends at its last commit whose checksums hold, because a power cut may leave a half-written one behind.
//! Damage to the last finished commit looks the same. This small file is written, without a sync of its own, after
//! each commit was synced and before it is acknowledged: it may lag behind the log but never run ahead of it, so a log
//! that ends before the tip has lost something acknowledged.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

#[derive(Debug)]
pub(crate) struct Tip(File);

impl Tip {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map(Self)
    }

    /// The index last written; `None` when there is none or it cannot be trusted.
    pub(crate) fn read(&self) -> Option<u64> {
        let mut bytes = [0; BYTES];
        self.0.read_exact_at(&mut bytes, 0).ok()?;
        let index = u64::from_le_bytes(bytes[..8].try_into().ok()?);
        (bytes == encode(index)).then_some(index)
    }

    /// Failing is harmless: an older tip proves less, and nothing untrue.
    pub(crate) fn write(&self, index: u64) {
        let _ = self.0.write_all_at(&encode(index), 0);
    }
}

const BYTES: usize = 16;

/// The index and half a BLAKE3 of it, so that a flipped bit makes a tip that proves nothing instead of a false alarm.
fn encode(index: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&index.to_le_bytes());
    bytes[8..].copy_from_slice(&blake3::hash(&index.to_le_bytes()).as_bytes()[..8]);
    bytes
}
