//! Reads a folder whose content is a stranger's into a tree and pieces.
//!
//! Every name is opened relative to the folder it is in, without following a link and without leaving the file system: what
//! a star puts there leads nowhere else. What is opened is looked at again before it is believed.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat};
use rustix::io::Errno;
use serde_bytes::ByteBuf;

use super::pieces::Pieces;
use super::tree::{DEPTH_MAX, Entry, FILES_MAX, Kind, PIECE_MAX, Piece, Tree};

/// Attributes that are the star's: its own, and access lists. Others are the host's.
const XATTRS: [&[u8]; 2] = [b"user.", b"system.posix_acl_"];

/// Files as they were when nothing wrote to them, by inode.
pub(super) type Known = HashMap<u64, (Stamp, Vec<Piece>)>;

/// Tells whether a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    size: i64,
    mtime: (i64, u64),
    ctime: (i64, u64),
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Self {
            size: stat.st_size,
            mtime: (stat.st_mtime, stat.st_mtime_nsec),
            ctime: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// Why a folder cannot be captured.
#[derive(Debug)]
pub(super) enum Refused {
    /// What is at this path, and why it is in the way.
    There(String, String),
    Failed(String, io::Error),
}

pub(super) struct Capture<'a> {
    pub(super) pieces: &'a Pieces,
    /// Whose files are user 0's to the star; everybody has their own number when it is `None`.
    pub(super) own_ids: Option<(u32, u32)>,
    /// Contents known from an earlier look, which hold if the file is unchanged.
    pub(super) known: &'a Known,
    /// While it is being written to: what changes or vanishes is passed over.
    pub(super) moving: bool,
    /// What was read of files that did not change meanwhile and had not since this second: to be `known` later.
    pub(super) seen: Known,
    pub(super) unchanged_since: i64,
}

struct Level {
    folder: OwnedFd,
    index: u32,
    /// Names still to be looked at, the next one last.
    names: Vec<CString>,
}

impl Capture<'_> {
    pub(super) fn run(&mut self, root: &Path) -> Result<Tree, Refused> {
        let mut tree = Tree::default();
        let failed = |error: Errno| Refused::Failed(String::new(), error.into());
        let folder = rustix::fs::open(root, FOLDER, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&folder).map_err(failed)?;
        let entry = self.entry(&stat, 0, b"", Kind::Folder, Some(folder.as_fd()));
        tree.entries.push(entry.map_err(|error| Refused::Failed(String::new(), error))?);
        let mut links = BTreeMap::new();
        let mut levels = vec![Level { names: names(&folder).map_err(failed)?, folder, index: 0 }];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.pop() else {
                levels.pop();
                continue;
            };
            let index = tree.entries.len() as u32;
            let parent = level.index;
            let taken = self.take(level.folder.as_fd(), &name, parent, index, &mut links);
            let (entry, below) = match taken {
                Ok(Some(taken)) => taken,
                Ok(None) => continue,
                Err(error) if self.moving && passing(&error) => continue,
                Err(error) => {
                    tree.entries.push(placeholder(parent, &name));
                    return Err(Refused::Failed(tree.path(index as usize), error));
                }
            };
            tree.entries.push(entry);
            let in_the_way = |why: String| Err(Refused::There(tree.path(index as usize), why));
            if tree.entries.len() > FILES_MAX {
                return in_the_way(format!("there are more than {FILES_MAX} files"));
            }
            if let Some(folder) = below {
                if levels.len() >= DEPTH_MAX {
                    return in_the_way(format!("it is deeper than {DEPTH_MAX} folders"));
                }
                match names(&folder) {
                    Ok(names) => levels.push(Level { folder, index, names }),
                    Err(error) => return Err(Refused::Failed(tree.path(index as usize), error.into())),
                }
            }
        }
        Ok(tree)
    }

    /// One entry, and the folder to go into if it is one. None for what is not kept.
    fn take(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &CString,
        parent: u32,
        index: u32,
        links: &mut BTreeMap<u64, u32>,
    ) -> io::Result<Option<(Entry, Option<OwnedFd>)>> {
        let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let bytes = name.as_bytes();
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(&entry) = links.get(&stat.st_ino) {
                return Ok(Some((self.entry(&stat, parent, bytes, Kind::Same { entry }, None)?, None)));
            }
            links.insert(stat.st_ino, index);
        }
        match kind {
            FileType::Directory => {
                let below = open(folder, name, FOLDER, &stat)?;
                let entry = self.entry(&stat, parent, bytes, Kind::Folder, Some(below.as_fd()))?;
                Ok(Some((entry, Some(below))))
            }
            FileType::RegularFile => {
                let file = open(folder, name, FILE, &stat)?;
                let (size, pieces) = self.content(&file, &stat)?;
                let entry = self.entry(&stat, parent, bytes, Kind::File { size, pieces }, Some(file.as_fd()))?;
                Ok(Some((entry, None)))
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(folder, name, Vec::new())?;
                let kind = Kind::Link { target: ByteBuf::from(target.into_bytes()) };
                Ok(Some((self.entry(&stat, parent, bytes, kind, None)?, None)))
            }
            FileType::Fifo => Ok(Some((self.entry(&stat, parent, bytes, Kind::Fifo, None)?, None))),
            // Whoever listens there makes it anew.
            FileType::Socket => Ok(None),
            _ => Err(io::Error::other("it is a device, and no snapshot keeps one")),
        }
    }

    fn entry(
        &self,
        stat: &Stat,
        parent: u32,
        name: &[u8],
        kind: Kind,
        open: Option<BorrowedFd<'_>>,
    ) -> io::Result<Entry> {
        let seen = |own: Option<u32>, id: u32| match own {
            Some(own) if own == id => Ok(0),
            Some(_) => Err(io::Error::other(format!("it belongs to user or group {id}, who is nobody in the star"))),
            None => Ok(id),
        };
        Ok(Entry {
            parent,
            name: ByteBuf::from(name.to_vec()),
            mode: stat.st_mode & 0o7777,
            uid: seen(self.own_ids.map(|ids| ids.0), stat.st_uid)?,
            gid: seen(self.own_ids.map(|ids| ids.1), stat.st_gid)?,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
            xattrs: open.map(xattrs).transpose()?.unwrap_or_default(),
            kind,
        })
    }

    /// Size and pieces. A file that changes while it is read is an error, unless everything moves anyway.
    fn content(&mut self, file: &OwnedFd, stat: &Stat) -> io::Result<(u64, Vec<Piece>)> {
        let stamp = Stamp::of(stat);
        let size = stat.st_size as u64;
        if let Some((known, pieces)) = self.known.get(&stat.st_ino)
            && *known == stamp
        {
            return Ok((size, pieces.clone()));
        }
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < size {
            let begin = match rustix::fs::seek(file, SeekFrom::Data(at)) {
                Ok(begin) if begin < size => begin,
                Ok(_) | Err(Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            let end = rustix::fs::seek(file, SeekFrom::Hole(begin))?.min(size);
            at = begin;
            while at < end {
                // Pieces lie at multiples of their size, so that what is before a change does not move them.
                let until = (at / PIECE_MAX as u64 + 1) * PIECE_MAX as u64;
                let mut bytes = vec![0; (end.min(until) - at) as usize];
                read_exact(file, &mut bytes, at)?;
                let hash = self.pieces.put(&bytes, file.as_fd(), at)?;
                pieces.push(Piece { offset: at, length: bytes.len() as u32, hash });
                at += bytes.len() as u64;
            }
        }
        let after = rustix::fs::fstat(file)?;
        if Stamp::of(&after) != stamp {
            return Err(changed());
        }
        if stamp.ctime.0 < self.unchanged_since {
            self.seen.insert(stat.st_ino, (stamp, pieces.clone()));
        }
        Ok((size, pieces))
    }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Opens what `stat` was of, or nothing.
fn open(folder: BorrowedFd<'_>, name: &CString, flags: OFlags, stat: &Stat) -> io::Result<OwnedFd> {
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let file = match rustix::fs::openat2(folder, name, flags, Mode::empty(), resolve) {
        Err(Errno::XDEV) => return Err(io::Error::other("another file system is mounted there")),
        Err(Errno::LOOP | Errno::NOTDIR) => return Err(changed()),
        other => other?,
    };
    let opened = rustix::fs::fstat(&file)?;
    match (opened.st_dev, opened.st_ino) == (stat.st_dev, stat.st_ino) {
        true => Ok(file),
        false => Err(changed()),
    }
}

fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "it changed while it was read")
}

/// What happens to files that somebody works with.
fn passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Interrupted | io::ErrorKind::UnexpectedEof)
}

fn read_exact(file: &OwnedFd, mut into: &mut [u8], mut at: u64) -> io::Result<()> {
    while !into.is_empty() {
        match rustix::io::pread(file, &mut *into, at) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read")),
            Ok(read) => {
                into = &mut into[read..];
                at += read as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Names in a folder, in reverse order.
fn names(folder: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
        if names.len() > FILES_MAX {
            break;
        }
    }
    names.sort_by(|a, b| b.cmp(a));
    Ok(names)
}

fn xattrs(file: BorrowedFd<'_>) -> io::Result<Vec<(ByteBuf, ByteBuf)>> {
    let mut list = vec![0; 64 << 10];
    let length = match rustix::fs::flistxattr(file, &mut list) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in list[..length].split(|&byte| byte == 0).filter(|name| XATTRS.iter().any(|kept| name.starts_with(kept)))
    {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::fgetxattr(file, name, &mut value)?;
        value.truncate(length);
        found.push((ByteBuf::from(name.to_vec()), ByteBuf::from(value)));
    }
    found.sort();
    Ok(found)
}

/// Stands for what could not be taken, so that its path can be told.
fn placeholder(parent: u32, name: &CString) -> Entry {
    Entry {
        parent,
        name: ByteBuf::from(name.as_bytes().to_vec()),
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        xattrs: Vec::new(),
        kind: Kind::Fifo,
    }
}
