//! Contents by their hash: each is kept once, however many snapshots have it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_bytes::ByteBuf;

use super::tree::PIECE_MAX;

/// Room that is left on the disk whatever is kept: the command log and what stars write need some.
const LEFT_FREE: u64 = 128 << 20;
/// How much is written between two looks at the room there is.
const LOOK_EVERY: u64 = 16 << 20;
/// No hash starts with a dot.
const UNFINISHED: &str = ".unfinished-";

#[derive(Debug)]
pub(super) struct Pieces {
    folder: PathBuf,
    next: AtomicU64,
    /// What was not there before, and its length.
    fresh: Mutex<BTreeMap<ByteBuf, u64>>,
    looked: AtomicU64,
}

impl Pieces {
    /// Unfinished ones of an earlier process are removed.
    pub(super) fn new(folder: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { folder, next: AtomicU64::new(0), fresh: Mutex::default(), looked: AtomicU64::new(LOOK_EVERY) })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// How many bytes of these were not there when this was asked last.
    pub(super) fn added<'a>(&self, used: impl Iterator<Item = &'a ByteBuf>) -> u64 {
        let mut fresh = std::mem::take(&mut *self.fresh());
        used.filter_map(|hash| fresh.remove(hash)).sum()
    }

    fn fresh(&self) -> MutexGuard<'_, BTreeMap<ByteBuf, u64>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a stretch of a file whose content is `bytes`. Where the file system can, the piece shares the file's blocks.
    /// Not synced: see `sync`.
    pub(super) fn put(&self, bytes: &[u8], file: BorrowedFd<'_>, offset: u64) -> io::Result<ByteBuf> {
        let hash = blake3::hash(bytes);
        let path = self.path(hash.as_bytes());
        if path.exists() {
            return Ok(ByteBuf::from(hash.as_bytes().to_vec()));
        }
        self.make_room(bytes.len() as u64)?;
        let name = format!("{UNFINISHED}{}-{}", std::process::id(), self.next.fetch_add(1, Ordering::Relaxed));
        let unfinished = self.folder.join(name);
        let make = || -> io::Result<()> {
            DirBuilder::new().recursive(true).mode(0o700).create(path.parent().unwrap_or(&self.folder))?;
            let mut piece = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&unfinished)?;
            if !shares(file, offset, &piece, bytes)? {
                piece.set_len(0)?;
                io::Seek::rewind(&mut piece)?;
                piece.write_all(bytes)?;
            }
            fs::rename(&unfinished, &path)
        };
        make().inspect_err(|_| {
            let _ = fs::remove_file(&unfinished);
        })?;
        let hash = ByteBuf::from(hash.as_bytes().to_vec());
        self.fresh().insert(hash.clone(), bytes.len() as u64);
        Ok(hash)
    }

    /// A piece, checked: its file, to be shared, and its content.
    pub(super) fn get(&self, hash: &[u8]) -> io::Result<(File, Vec<u8>)> {
        let path = self.path(hash);
        let file = File::open(&path)?;
        let mut bytes = Vec::new();
        (&file).take(PIECE_MAX as u64 + 1).read_to_end(&mut bytes)?;
        if blake3::hash(&bytes).as_bytes() != hash {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("`{}` is damaged", path.display())));
        }
        Ok((file, bytes))
    }

    /// Makes what was put durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(&self.folder)?)?)
    }

    /// Removes the pieces that are not `used`.
    pub(super) fn collect(&self, used: &BTreeSet<ByteBuf>) -> io::Result<()> {
        let names: BTreeSet<String> = used.iter().map(|hash| text(hash)).collect();
        for shelf in fs::read_dir(&self.folder)? {
            let shelf = shelf?;
            if !shelf.file_type()?.is_dir() {
                continue;
            }
            for piece in fs::read_dir(shelf.path())? {
                let piece = piece?;
                let name = format!("{}{}", shelf.file_name().to_string_lossy(), piece.file_name().to_string_lossy());
                if !names.contains(&name) {
                    fs::remove_file(piece.path())?;
                }
            }
            // Fails while there are some in it.
            let _ = fs::remove_dir(shelf.path());
        }
        Ok(())
    }

    fn path(&self, hash: &[u8]) -> PathBuf {
        let text = text(hash);
        // 256 folders: no single one grows large.
        self.folder.join(&text[..2]).join(&text[2..])
    }

    fn make_room(&self, more: u64) -> io::Result<()> {
        if self.looked.fetch_add(more, Ordering::Relaxed) < LOOK_EVERY {
            return Ok(());
        }
        self.looked.store(0, Ordering::Relaxed);
        let disk = rustix::fs::statvfs(&self.folder)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < LEFT_FREE + LOOK_EVERY {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

fn text(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Has `piece` share the blocks of a stretch, if the file system can; `false` when it does not hold those bytes then. The kernel
/// copies where it cannot share.
fn shares(file: BorrowedFd<'_>, offset: u64, piece: &File, bytes: &[u8]) -> io::Result<bool> {
    let mut from = offset;
    let mut to = 0;
    while to < bytes.len() as u64 {
        let left = bytes.len() - to as usize;
        match rustix::fs::copy_file_range(file, Some(&mut from), piece.as_fd(), Some(&mut to), left) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => return Err(ErrorKind::StorageFull.into()),
            // Another file system, or one that has no such call.
            Err(_) => return Ok(false),
        }
    }
    // It may have changed between the look at it and the copy.
    let mut copied = vec![0; bytes.len()];
    let whole = rustix::io::pread(piece, &mut copied, 0).is_ok_and(|read| read == bytes.len());
    Ok(whole && copied == bytes)
}
