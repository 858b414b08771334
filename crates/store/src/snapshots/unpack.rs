//! Makes a folder from a tree and its pieces, somewhere nobody else looks yet; and removes folders of any depth.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use serde_bytes::ByteBuf;

use super::pieces::Pieces;
use super::tree::{Entry, Kind, Tree};
use super::way::{FOLDER, Way};

/// The path of what failed, and how.
pub(super) type Failure = (String, io::Error);

pub(super) struct Unpack<'a> {
    pub(super) pieces: &'a Pieces,
    /// To whom all of it belongs, where stars have no ids of their own.
    pub(super) own_ids: Option<(u32, u32)>,
}

impl Unpack<'_> {
    /// Fills an empty folder.
    pub(super) fn run(&self, tree: &Tree, top: &OwnedFd) -> Result<(), Failure> {
        let plain = |error: io::Error| (String::new(), error);
        let mut way = top.try_clone().and_then(Way::new).map_err(plain)?;
        // Folders on the way to the entry at hand; entries come in the order of a walk.
        let mut open: Vec<u32> = vec![0];
        for (index, entry) in tree.entries.iter().enumerate().skip(1) {
            let failed = |error: io::Error| (tree.path(index), error);
            while open.len() > 1 && open.last().is_some_and(|folder| *folder != entry.parent) {
                self.leave(tree, &mut open, &mut way)?;
            }
            if open.last() != Some(&entry.parent) {
                return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "it is out of order")));
            }
            let made = way.here().and_then(|parent| self.make(tree, entry, parent, top)).map_err(failed)?;
            if let Some(made) = made {
                way.down(made).map_err(failed)?;
                open.push(index as u32);
            }
        }
        while !open.is_empty() {
            self.leave(tree, &mut open, &mut way)?;
        }
        Ok(())
    }

    /// Makes a folder in which everything is what it is in the end, and goes back to the one above.
    fn leave(&self, tree: &Tree, open: &mut Vec<u32>, way: &mut Way) -> Result<(), Failure> {
        let Some(folder) = open.pop().map(|folder| folder as usize) else { return Ok(()) };
        // Closed to its own user it could not be gone back from.
        let mut leave = || -> io::Result<()> {
            let left = way.here()?.try_clone_to_owned()?;
            way.up()?;
            self.dress(&tree.entries[folder], left.as_fd())
        };
        leave().map_err(|error| (tree.path(folder), error))
    }

    /// Makes one entry; the folder if it is one.
    fn make(&self, tree: &Tree, entry: &Entry, parent: BorrowedFd<'_>, top: &OwnedFd) -> io::Result<Option<OwnedFd>> {
        let name = CString::new(entry.name.to_vec())?;
        match &entry.kind {
            Kind::Folder => {
                rustix::fs::mkdirat(parent, &name, Mode::RWXU)?;
                // What it is in the end it becomes when everything is in it.
                return open_folder(parent, &name).map(Some);
            }
            Kind::File { size, pieces } => {
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(parent, &name, flags, Mode::RUSR | Mode::WUSR)?;
                rustix::fs::ftruncate(&file, *size)?;
                for piece in pieces {
                    let (from, bytes) = self.pieces.get(&piece.hash)?;
                    if bytes.len() != piece.length as usize {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "a piece has another length"));
                    }
                    fill(&file, piece.offset, &from, &bytes)?;
                }
                self.dress(entry, file.as_fd())?;
            }
            Kind::Link { target } => {
                rustix::fs::symlinkat(CString::new(target.to_vec())?, parent, &name)?;
                let (uid, gid) = self.ids(entry)?;
                rustix::fs::chownat(parent, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
                rustix::fs::utimensat(parent, &name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Kind::Fifo => {
                rustix::fs::mknodat(parent, &name, FileType::Fifo, Mode::from_raw_mode(entry.mode), 0)?;
                let (uid, gid) = self.ids(entry)?;
                rustix::fs::chownat(parent, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
                rustix::fs::chmodat(parent, &name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
                rustix::fs::utimensat(parent, &name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Kind::Same { entry } => {
                let (folder, file) = reach(tree, *entry as usize, top)?;
                rustix::fs::linkat(&folder, &file, parent, &name, AtFlags::empty())?;
            }
        }
        Ok(None)
    }

    /// Gives a file or folder its owner, mode, attributes and time.
    fn dress(&self, entry: &Entry, file: BorrowedFd<'_>) -> io::Result<()> {
        let (uid, gid) = self.ids(entry)?;
        rustix::fs::fchown(file, Some(uid), Some(gid))?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
        for (name, value) in &entry.xattrs {
            rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty())?;
        }
        Ok(rustix::fs::futimens(file, &times(entry))?)
    }

    fn ids(&self, entry: &Entry) -> io::Result<(Uid, Gid)> {
        let (uid, gid) = match self.own_ids {
            None => (entry.uid, entry.gid),
            Some(own) if (entry.uid, entry.gid) == (0, 0) => own,
            Some(_) => {
                let what = format!("an ordinary user cannot give it to user {} and group {}", entry.uid, entry.gid);
                return Err(io::Error::other(what));
            }
        };
        // All ones mean `leave it`, and belong to nobody.
        if uid == u32::MAX || gid == u32::MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it belongs to nobody there can be"));
        }
        Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
    }
}

/// The folder of an entry that was made, and its name in it.
fn reach(tree: &Tree, index: usize, top: &OwnedFd) -> io::Result<(OwnedFd, CString)> {
    let entry = &tree.entries[index];
    let mut way: Vec<&ByteBuf> = Vec::new();
    let mut folder = entry.parent as usize;
    while folder > 0 {
        way.push(&tree.entries[folder].name);
        folder = tree.entries[folder].parent as usize;
    }
    let mut at = top.try_clone()?;
    for name in way.into_iter().rev() {
        at = open_folder(at.as_fd(), &CString::new(name.to_vec())?)?;
    }
    Ok((at, CString::new(entry.name.to_vec())?))
}

fn open_folder(parent: BorrowedFd<'_>, name: &CString) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(parent, name, FOLDER, Mode::empty())?)
}

fn times(entry: &Entry) -> Timestamps {
    let (tv_sec, nanoseconds) = entry.mtime;
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
        last_modification: Timespec { tv_sec, tv_nsec: nanoseconds.min(999_999_999).into() },
    }
}

/// Puts a piece in its place: shared where the file system can.
fn fill(file: &OwnedFd, offset: u64, piece: &fs::File, bytes: &[u8]) -> io::Result<()> {
    let (mut from, mut to) = (0, offset);
    let end = offset + bytes.len() as u64;
    while to < end {
        let left = (end - to) as usize;
        match rustix::fs::copy_file_range(piece, Some(&mut from), file, Some(&mut to), left) {
            Ok(0) => break,
            Ok(_) => {}
            Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => return Err(io::ErrorKind::StorageFull.into()),
            Err(_) => break,
        }
    }
    while to < end {
        match rustix::io::pwrite(file, &bytes[(to - offset) as usize..], to) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => to += written as u64,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Removes a folder with all that is in it, however deep. Moving what is deep to the top first would take the kernel
/// milliseconds for each folder that has many below it.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        // What stands in its place, as a link, is not followed.
        Ok(file) if !file.is_dir() => return fs::remove_file(folder),
        Ok(_) => {}
    }
    // Its owner may have closed it to everybody.
    let _ = fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700));
    let top = rustix::fs::open(folder, FOLDER, Mode::empty())?;
    let mut levels = vec![(CString::default(), names_in(top.as_fd())?)];
    let mut way = Way::new(top)?;
    while let Some((_, names)) = levels.last_mut() {
        let Some(name) = names.pop() else {
            let Some((own, _)) = levels.pop().filter(|_| !levels.is_empty()) else { break };
            way.up()?;
            rustix::fs::unlinkat(way.here()?, &own, AtFlags::REMOVEDIR)?;
            continue;
        };
        match rustix::fs::unlinkat(way.here()?, &name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => continue,
            Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        let open = || open_folder(way.here()?, &name);
        let inner = match open() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                rustix::fs::chmodat(way.here()?, &name, Mode::RWXU, AtFlags::empty())?;
                open()?
            }
            other => other?,
        };
        // It may be open to its owner and not for changes.
        let _ = rustix::fs::fchmod(&inner, Mode::RWXU);
        levels.push((name, names_in(inner.as_fd())?));
        way.down(inner)?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn names_in(folder: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Whether two names stand for the same file.
pub(super) fn is_same(path: &Path, dev: u64, ino: u64) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).is_ok_and(|file| (file.dev(), file.ino()) == (dev, ino))
}
