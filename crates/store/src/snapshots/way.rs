//! The way down a tree: of all the folders on it only the last few are held open, however deep it leads.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// Folders held open on one way. More would only spare reopening some of them, which takes microseconds.
const HELD: usize = 32;

/// Opens a folder and nothing else.
pub(super) const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

pub(super) struct Way {
    /// Of every folder on it, what it is known by.
    known: Vec<(u64, u64)>,
    /// The last of them.
    held: VecDeque<OwnedFd>,
}

impl Way {
    pub(super) fn new(top: OwnedFd) -> io::Result<Self> {
        let mut way = Self { known: Vec::new(), held: VecDeque::new() };
        way.down(top)?;
        Ok(way)
    }

    /// The folder that was come to.
    pub(super) fn here(&self) -> io::Result<BorrowedFd<'_>> {
        self.held.back().map(AsFd::as_fd).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Goes into a folder that is in this one.
    pub(super) fn down(&mut self, folder: OwnedFd) -> io::Result<()> {
        let stat = rustix::fs::fstat(&folder)?;
        self.known.push((stat.st_dev, stat.st_ino));
        self.held.push_back(folder);
        if self.held.len() > HELD {
            self.held.pop_front();
        }
        Ok(())
    }

    /// Goes back to the folder this one is in, which has to be the same as on the way down. Fails when this is the top.
    pub(super) fn up(&mut self) -> io::Result<()> {
        let left = self.held.pop_back().ok_or(io::ErrorKind::NotFound)?;
        self.known.pop();
        let Some(&expected) = self.known.last() else { return Ok(()) };
        if self.held.is_empty() {
            let above = rustix::fs::openat(&left, "..", FOLDER, Mode::empty())?;
            let stat = rustix::fs::fstat(&above)?;
            if (stat.st_dev, stat.st_ino) != expected {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "it was moved while it was read"));
            }
            self.held.push_back(above);
        }
        Ok(())
    }
}
