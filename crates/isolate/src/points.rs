//! Places for mounts in a tree that is somebody else's: made where they are missing, with no link followed on the way.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};

use crate::fault::Because;

/// A folder, or a file, that something is to be mounted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Point {
    /// Relative to the tree.
    pub(crate) path: String,
    pub(crate) file: bool,
}

/// A tree in which places are made.
pub(crate) struct Tree<'a> {
    pub(crate) root: &'a OwnedFd,
    /// To whom, by the host's number, what is made belongs; to this process's user when `None`.
    pub(crate) owner: Option<u32>,
    /// What messages call it: ` of its root file system`.
    pub(crate) whose: &'static str,
}

impl Tree<'_> {
    pub(crate) fn make(&self, point: &Point) -> Result<(), String> {
        let mut path = String::new();
        let mut parts = point.path.split('/').peekable();
        while let Some(part) = parts.next() {
            path = if path.is_empty() { part.to_owned() } else { format!("{path}/{part}") };
            match point.file && parts.peek().is_none() {
                true => self.file(&path)?,
                false => self.folder(&path)?,
            }
        }
        Ok(())
    }

    /// A folder that is none of links.
    pub(crate) fn folder(&self, path: &str) -> Result<(), String> {
        let failed = || format!("cannot make `/{path}` in the star's root");
        match kind(self.root, path).because(failed)? {
            Some(FileType::Directory) => Ok(()),
            Some(_) => Err(format!("`/{path}`{} is no folder", self.whose)),
            None => {
                let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
                rustix::fs::mkdirat(self.root, path, mode).because(failed)?;
                self.give(path).because(failed)
            }
        }
    }

    fn file(&self, path: &str) -> Result<(), String> {
        let failed = || format!("cannot make `/{path}` in the star's root");
        match kind(self.root, path).because(failed)? {
            Some(FileType::RegularFile) => Ok(()),
            Some(_) => Err(format!("`/{path}`{} is no file", self.whose)),
            None => self.create(path).because(failed),
        }
    }

    /// A new and empty file, in a folder that `folder` made sure of.
    pub(crate) fn create(&self, path: &str) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self.root, path, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH)?;
        self.give(path)
    }

    pub(crate) fn give(&self, path: &str) -> io::Result<()> {
        give(self.root.as_fd(), path, self.owner)
    }
}

/// Hands a file or folder, not what it may link to, to an owner.
pub(crate) fn give(folder: BorrowedFd<'_>, path: &str, owner: Option<u32>) -> io::Result<()> {
    let Some(owner) = owner else { return Ok(()) };
    let (uid, gid) = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
    Ok(rustix::fs::chownat(folder, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// What is at a path, the last part not followed and none before it a link.
pub(crate) fn kind(root: &OwnedFd, path: &str) -> io::Result<Option<FileType>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let folder = rustix::fs::openat2(root, folder, flags | OFlags::DIRECTORY, Mode::empty(), resolve)?;
    match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
