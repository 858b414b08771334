//! Reads a folder whose content is a stranger's into a tree and pieces.
//!
//! Every name is opened relative to the folder it is in, without following a link and without leaving the file system: what
//! a star puts there leads nowhere else. What is opened is looked at again before it is believed.
//!
//! Where the folder lies over another one, as a star's root does over its `rootfs`, only what differs is read: what the
//! kernel copied up, what is new, and the names that are gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat};
use rustix::io::Errno;
use serde_bytes::ByteBuf;

use super::pieces::Pieces;
use super::tree::{Entry, FILES_MAX, Gone, Kind, PIECE_MAX, Piece, Tree};
use super::way::{FOLDER, Way};

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

/// What the star calls the owners of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Everybody has their own number.
    Same,
    /// This user and group are its root; there is nobody else.
    Root(u32, u32),
    /// They are numbered from this one on, so many.
    From(u32, u32),
}

impl Owners {
    fn inside(self, id: u32, root: impl Fn(u32, u32) -> u32) -> io::Result<u32> {
        let seen = match self {
            Self::Same => Some(id),
            Self::Root(uid, gid) => (root(uid, gid) == id).then_some(0),
            Self::From(first, count) => id.checked_sub(first).filter(|inside| *inside < count),
        };
        seen.ok_or_else(|| io::Error::other(format!("it belongs to user or group {id}, who is nobody in the star")))
    }
}

/// What to do about what is mounted within a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mounts {
    Refuse,
    /// It is not a part of the folder.
    PassOver,
}

pub(super) struct Capture<'a> {
    pub(super) pieces: &'a Pieces,
    pub(super) owners: Owners,
    pub(super) mounts: Mounts,
    /// Names at the top, and folders by device and inode anywhere, that are not to be kept.
    pub(super) leave: &'a [String],
    pub(super) elsewhere: &'a BTreeSet<(u64, u64)>,
    /// Contents known from an earlier look, which hold if the file is unchanged.
    pub(super) known: &'a Known,
    /// While it is being written to: what changes or vanishes is passed over.
    pub(super) moving: bool,
    /// What was read of files that did not change meanwhile and had not since this second: to be `known` later.
    pub(super) seen: Known,
    pub(super) unchanged_since: i64,
    /// Somebody stands still for it until then.
    pub(super) until: Option<Instant>,
}

/// A folder on the way.
struct Level {
    index: u32,
    /// Names still to be looked at, the next one last.
    names: Vec<CString>,
    /// Whether there is one below it.
    covers: bool,
}

/// What was found under a name.
enum Found {
    Nothing,
    /// It is one below, and nothing in it differs.
    Below,
    Socket,
    Entry(Entry),
    Folder {
        entry: Entry,
        folder: OwnedFd,
        below: Option<OwnedFd>,
    },
}

impl Capture<'_> {
    pub(super) fn run(&mut self, folder: OwnedFd, below: Option<OwnedFd>) -> Result<Tree, Refused> {
        let mut tree = Tree::default();
        let failed = |error: io::Error| Refused::Failed(String::new(), error);
        let stat = rustix::fs::fstat(&folder).map_err(|error| failed(error.into()))?;
        tree.entries.push(self.entry(&stat, 0, b"", Kind::Folder, Some(folder.as_fd())).map_err(failed)?);
        let covers = below.is_some();
        let mut under = below.map(Way::new).transpose().map_err(failed)?;
        let all = names(folder.as_fd()).map_err(|error| failed(error.into()))?;
        if let Some(under) = &under {
            tree.gone.extend(gone(under.here().map_err(failed)?, &all, 0).map_err(failed)?);
        }
        let (mut links, mut listed) = (BTreeMap::new(), all.len());
        let mut way = Way::new(folder).map_err(failed)?;
        let mut levels = vec![Level { index: 0, names: all, covers }];
        while let Some(level) = levels.last_mut() {
            let parent = level.index;
            let Some(name) = level.names.pop() else {
                let covers = level.covers;
                levels.pop();
                let mut up = || -> io::Result<()> {
                    way.up()?;
                    if covers && let Some(under) = &mut under { under.up() } else { Ok(()) }
                };
                up().map_err(|error| Refused::Failed(tree.path(parent as usize), error))?;
                continue;
            };
            let index = tree.entries.len() as u32;
            let covers = under.as_ref().filter(|_| level.covers);
            let taken = self.timely().and_then(|()| {
                let (here, below) = (way.here()?, covers.map(Way::here).transpose()?);
                self.take(here, below, &name, parent, index, &mut links)
            });
            let (entry, below) = match taken {
                Ok(Found::Nothing | Found::Below) => continue,
                Ok(Found::Socket) => {
                    tree.left_out += 1;
                    continue;
                }
                Ok(Found::Entry(entry)) => (entry, None),
                Ok(Found::Folder { entry, folder, below }) => (entry, Some((folder, below))),
                Err(error) if self.moving && passing(&error) => continue,
                Err(error) => {
                    tree.entries.push(placeholder(parent, &name));
                    return Err(Refused::Failed(tree.path(index as usize), error));
                }
            };
            tree.entries.push(entry);
            let Some((folder, below)) = below else { continue };
            let covers = below.is_some();
            let go_down = || -> io::Result<Vec<CString>> {
                let names = names(folder.as_fd())?;
                if let Some(below) = below {
                    tree.gone.extend(gone(below.as_fd(), &names, index)?);
                    match &mut under {
                        Some(under) => under.down(below)?,
                        None => under = Some(Way::new(below)?),
                    }
                }
                way.down(folder)?;
                Ok(names)
            };
            let names = go_down().map_err(|error| Refused::Failed(tree.path(index as usize), error))?;
            listed += names.len();
            levels.push(Level { index, names, covers });
            if listed > FILES_MAX || tree.gone.len() > FILES_MAX {
                let why = format!("there are more than {FILES_MAX} files");
                return Err(Refused::There(tree.path(index as usize), why));
            }
        }
        Ok(tree)
    }

    /// Nobody is to stand still for ever.
    fn timely(&self) -> io::Result<()> {
        match self.until.is_some_and(|until| Instant::now() > until) {
            false => Ok(()),
            true => Err(io::Error::other("it takes too long to read all of it while the stars stand still")),
        }
    }

    /// One name.
    fn take(
        &mut self,
        folder: BorrowedFd<'_>,
        below: Option<BorrowedFd<'_>>,
        name: &CString,
        parent: u32,
        index: u32,
        links: &mut BTreeMap<(u64, u64), u32>,
    ) -> io::Result<Found> {
        let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let bytes = name.as_bytes();
        if parent == 0 && self.leave.iter().any(|left| left.as_bytes() == bytes) {
            return Ok(Found::Nothing);
        }
        let under = below.and_then(|below| rustix::fs::statat(below, name, AtFlags::SYMLINK_NOFOLLOW).ok());
        if under.is_some_and(|under| is_below(&stat, &under)) {
            // What is changed below a folder is above it in a folder of its own: this is none.
            return Ok(Found::Below);
        }
        let may_be_known = kind != FileType::Directory && stat.st_nlink > 1;
        if may_be_known && let Some(&entry) = links.get(&(stat.st_dev, stat.st_ino)) {
            return Ok(Found::Entry(self.entry(&stat, parent, bytes, Kind::Same { entry }, None)?));
        }
        let opened = |flags: OFlags| match open(folder, name, flags, &stat) {
            Err(Opening::Mounted) if self.mounts == Mounts::PassOver => Ok(None),
            Err(Opening::Mounted) => Err(io::Error::other("another file system is mounted there")),
            Err(Opening::Failed(error)) => Err(error),
            Ok(file) => Ok(Some(file)),
        };
        let found = match kind {
            FileType::Directory if self.elsewhere.contains(&(stat.st_dev, stat.st_ino)) => Found::Nothing,
            FileType::Directory => {
                let Some(inner) = opened(FOLDER)? else { return Ok(Found::Nothing) };
                let entry = self.entry(&stat, parent, bytes, Kind::Folder, Some(inner.as_fd()))?;
                let is_folder = under.is_some_and(|it| FileType::from_raw_mode(it.st_mode) == FileType::Directory);
                let below = match below.filter(|_| is_folder) {
                    Some(below) => Some(rustix::fs::openat(below, name, FOLDER, Mode::empty())?),
                    None => None,
                };
                Found::Folder { entry, folder: inner, below }
            }
            FileType::RegularFile => {
                let Some(file) = opened(FILE)? else { return Ok(Found::Nothing) };
                let (size, pieces) = self.content(&file, &stat)?;
                Found::Entry(self.entry(&stat, parent, bytes, Kind::File { size, pieces }, Some(file.as_fd()))?)
            }
            FileType::Symlink => {
                let target = match rustix::fs::readlinkat(folder, name, Vec::new()) {
                    Err(Errno::INVAL) => return Err(changed()),
                    other => other?,
                };
                let kind = Kind::Link { target: ByteBuf::from(target.into_bytes()) };
                Found::Entry(self.entry(&stat, parent, bytes, kind, None)?)
            }
            FileType::Fifo => Found::Entry(self.entry(&stat, parent, bytes, Kind::Fifo, None)?),
            // Whoever listens there makes it anew.
            FileType::Socket => Found::Socket,
            // A star may make this one, which stands for nothing.
            FileType::CharacterDevice if stat.st_rdev == 0 => Found::Socket,
            _ => return Err(io::Error::other("it is a device, and no snapshot keeps one")),
        };
        if stat.st_nlink > 1 && matches!(found, Found::Entry(_)) {
            links.insert((stat.st_dev, stat.st_ino), index);
        }
        Ok(found)
    }

    fn entry(
        &self,
        stat: &Stat,
        parent: u32,
        name: &[u8],
        kind: Kind,
        open: Option<BorrowedFd<'_>>,
    ) -> io::Result<Entry> {
        Ok(Entry {
            parent,
            name: ByteBuf::from(name.to_vec()),
            mode: stat.st_mode & 0o7777,
            uid: self.owners.inside(stat.st_uid, |uid, _| uid)?,
            gid: self.owners.inside(stat.st_gid, |_, gid| gid)?,
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
                self.timely()?;
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

const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Why something was not opened.
enum Opening {
    /// Another file system is there.
    Mounted,
    Failed(io::Error),
}

/// Opens what `stat` was of, or nothing.
fn open(folder: BorrowedFd<'_>, name: &CString, flags: OFlags, stat: &Stat) -> Result<OwnedFd, Opening> {
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let file = match rustix::fs::openat2(folder, name, flags, Mode::empty(), resolve) {
        Err(Errno::XDEV) => return Err(Opening::Mounted),
        Err(Errno::LOOP | Errno::NOTDIR) => return Err(Opening::Failed(changed())),
        other => other.map_err(|error| Opening::Failed(error.into()))?,
    };
    let opened = rustix::fs::fstat(&file).map_err(|error| Opening::Failed(error.into()))?;
    match (opened.st_dev, opened.st_ino) == (stat.st_dev, stat.st_ino) {
        true => Ok(file),
        false => Err(Opening::Failed(changed())),
    }
}

/// Whether what is seen is what lies below, untouched: whatever is copied up is changed later than it was made, and nobody
/// can set that time.
fn is_below(seen: &Stat, under: &Stat) -> bool {
    let kind = |stat: &Stat| FileType::from_raw_mode(stat.st_mode);
    kind(seen) == kind(under) && Stamp::of(seen) == Stamp::of(under)
}

/// Names in a folder below that are not in the one above it.
fn gone(below: BorrowedFd<'_>, above: &[CString], parent: u32) -> io::Result<Vec<Gone>> {
    let missing = |name: &CString| above.binary_search_by(|other| name.cmp(other)).is_err();
    let gone = names(below)?.into_iter().filter(missing);
    Ok(gone.map(|name| Gone { parent, name: ByteBuf::from(name.into_bytes()) }).collect())
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
fn names(folder: BorrowedFd<'_>) -> rustix::io::Result<Vec<CString>> {
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
