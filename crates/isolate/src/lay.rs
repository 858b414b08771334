//! Files that a star begins with, laid into its own places: what a snapshot had of an earlier one.
//!
//! Done by the star itself, behind its walls but for the last, so that a mistake in a path stays within it and all it gets
//! counts as its own. The files are a stranger's: no link is followed, nothing that is mounted is written to or removed,
//! and of the way down a tree only the last folders are held open.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, SeekFrom, Stat, Timespec, Timestamps, UTIME_OMIT, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use crate::fault::plain;

/// Folders held open on one way down; more would only spare reopening some.
const HELD: usize = 16;
/// Copied at once where the kernel does not copy by itself.
const BLOCK: usize = 256 << 10;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const WITHIN: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
/// Attributes that are the star's.
const XATTRS: [&[u8]; 2] = [b"user.", b"system.posix_acl_"];

/// Lays the folders `0`, `1`, … of `source` over the star's folders `insides`.
pub(crate) fn lay(source: &OwnedFd, insides: &[String]) -> Result<(), String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty());
    let root = root.map_err(|error| format!("cannot open the star's root: {}", plain(&error.into())))?;
    for (number, inside) in insides.iter().enumerate() {
        let failed = |path: &str, error: io::Error| {
            let path =
                if path.is_empty() { inside.clone() } else { format!("{}/{path}", inside.trim_end_matches('/')) };
            format!("cannot bring `{path}` back: {}", plain(&error))
        };
        let plainly = |error: io::Error| failed("", error);
        let open = || -> io::Result<(OwnedFd, OwnedFd)> {
            let from = rustix::fs::openat(source, number.to_string(), FOLDER, Mode::empty())?;
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            Ok((from, rustix::fs::openat2(&root, inside.as_str(), FOLDER, Mode::empty(), resolve)?))
        };
        let (from, to) = open().map_err(plainly)?;
        remove_gone(source, number, &to).map_err(plainly)?;
        let mut layer = Layer { folders: Vec::new(), linked: BTreeMap::new() };
        layer.run(from, to).map_err(|(path, error)| failed(&path, error))?;
    }
    Ok(())
}

/// The way down a tree: its last folders are open.
struct Way {
    depth: usize,
    held: VecDeque<OwnedFd>,
}

impl Way {
    fn new(top: OwnedFd) -> Self {
        Self { depth: 1, held: VecDeque::from([top]) }
    }

    fn here(&self) -> io::Result<BorrowedFd<'_>> {
        self.held.back().map(AsFd::as_fd).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn down(&mut self, folder: OwnedFd) {
        self.depth += 1;
        self.held.push_back(folder);
        if self.held.len() > HELD {
            self.held.pop_front();
        }
    }

    /// Gives the folder that is left. Nobody else moves anything in either tree.
    fn up(&mut self) -> io::Result<OwnedFd> {
        let left = self.held.pop_back().ok_or(io::ErrorKind::NotFound)?;
        self.depth -= 1;
        if self.depth > 0 && self.held.is_empty() {
            self.held.push_back(rustix::fs::openat(&left, "..", FOLDER, Mode::empty())?);
        }
        Ok(left)
    }
}

struct Layer {
    /// Every folder gone through: the number of the one it is in, and its name.
    folders: Vec<(usize, CString)>,
    /// Files with several names, by inode: where the first one is.
    linked: BTreeMap<u64, (usize, CString)>,
}

struct Level {
    number: usize,
    stat: Stat,
    names: Vec<CString>,
}

type Failure = (String, io::Error);

impl Layer {
    fn run(&mut self, from: OwnedFd, to: OwnedFd) -> Result<(), Failure> {
        let plainly = |error: io::Error| (String::new(), error);
        let top = to.try_clone().map_err(plainly)?;
        let look =
            |from: &OwnedFd| -> io::Result<(Stat, Vec<CString>)> { Ok((rustix::fs::fstat(from)?, names(from)?)) };
        let (stat, names) = look(&from).map_err(plainly)?;
        self.folders.push((0, CString::default()));
        let (mut source, mut target) = (Way::new(from), Way::new(to));
        let mut levels = vec![Level { number: 0, stat, names }];
        while let Some(level) = levels.last_mut() {
            let number = level.number;
            let Some(name) = level.names.pop() else {
                let stat = level.stat;
                levels.pop();
                // In a folder that is closed to its own user nobody could go on.
                let leave = || -> io::Result<()> { dress(target.up()?.as_fd(), source.up()?.as_fd(), &stat) };
                let mut leave = leave;
                leave().map_err(|error| (self.path(number, c""), error))?;
                continue;
            };
            let made = source.here().and_then(|from| Ok((from, target.here()?)));
            let made = made.and_then(|(from, to)| self.entry(from, to, &top, number, &name));
            let Some((inner, made)) = made.map_err(|error| (self.path(number, &name), error))? else { continue };
            let (stat, names) = look(&inner).map_err(|error| (self.path(number, &name), error))?;
            self.folders.push((number, name));
            levels.push(Level { number: self.folders.len() - 1, stat, names });
            source.down(inner);
            target.down(made);
        }
        Ok(())
    }

    /// Lays one entry; both its folders if it is one.
    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        top: &OwnedFd,
        number: usize,
        name: &CString,
    ) -> io::Result<Option<(OwnedFd, OwnedFd)>> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            let is_folder = match rustix::fs::statat(to, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(there) => FileType::from_raw_mode(there.st_mode) == FileType::Directory,
                Err(Errno::NOENT) => false,
                Err(error) => return Err(error.into()),
            };
            if !is_folder {
                if !clear(to, name)? {
                    return Ok(None);
                }
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            }
            return match rustix::fs::openat2(to, name, FOLDER, Mode::empty(), WITHIN) {
                // Something is mounted there, which is not the snapshot's.
                Err(Errno::XDEV) => Ok(None),
                Err(error) => Err(error.into()),
                Ok(made) => Ok(Some((rustix::fs::openat(from, name, FOLDER, Mode::empty())?, made))),
            };
        }
        if !clear(to, name)? {
            return Ok(None);
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.linked.get(&stat.st_ino) {
                let folder = self.reach(top, first.0)?;
                rustix::fs::linkat(&folder, &first.1, to, name, AtFlags::empty())?;
                return Ok(None);
            }
            self.linked.insert(stat.st_ino, (number, name.clone()));
        }
        match kind {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
                fill(&source, &file, stat.st_size as u64)?;
                dress(file.as_fd(), source.as_fd(), &stat)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(target, to, name)?;
                dress_by_name(to, name, &stat)?;
            }
            FileType::Fifo => {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                rustix::fs::mknodat(to, name, FileType::Fifo, mode, 0)?;
                dress_by_name(to, name, &stat)?;
                rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
            }
            // No snapshot has others.
            _ => {}
        }
        Ok(None)
    }

    /// A folder that was gone through before.
    fn reach(&self, top: &OwnedFd, mut number: usize) -> io::Result<OwnedFd> {
        let mut way = Vec::new();
        while number > 0 {
            let (above, name) = &self.folders[number];
            way.push(name);
            number = *above;
        }
        let mut at = top.try_clone()?;
        for name in way.into_iter().rev() {
            at = rustix::fs::openat2(&at, name, FOLDER, Mode::empty(), WITHIN)?;
        }
        Ok(at)
    }

    /// As a message names it.
    fn path(&self, mut number: usize, name: &CStr) -> String {
        let shown = |name: &CStr| name.to_string_lossy().escape_debug().to_string();
        let mut parts = vec![shown(name)];
        while number > 0 {
            let (above, name) = &self.folders[number];
            parts.push(shown(name));
            number = *above;
        }
        parts.reverse();
        parts.join("/").trim_end_matches('/').to_owned()
    }
}

/// Takes what is at a name away; `false` when it is something mounted, which stays.
fn clear(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::BUSY) => return Ok(false),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let top = match rustix::fs::openat2(folder, name, FOLDER, Mode::empty(), WITHIN) {
        Err(Errno::XDEV) => return Ok(false),
        other => other?,
    };
    let mut levels = vec![(name.to_owned(), names(&top)?)];
    let mut way = Way::new(top);
    while let Some((_, left)) = levels.last_mut() {
        let Some(inner) = left.pop() else {
            let Some((own, _)) = levels.pop() else { break };
            drop(way.up()?);
            let above = if levels.is_empty() { folder } else { way.here()? };
            match rustix::fs::unlinkat(above, &own, AtFlags::REMOVEDIR) {
                Ok(()) => {}
                // Something is mounted below it.
                Err(Errno::BUSY | Errno::NOTEMPTY) if levels.is_empty() => return Ok(false),
                Err(Errno::BUSY | Errno::NOTEMPTY) => {}
                Err(error) => return Err(error.into()),
            }
            continue;
        };
        match rustix::fs::unlinkat(way.here()?, &inner, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT | Errno::BUSY) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        match rustix::fs::openat2(way.here()?, &inner, FOLDER, Mode::empty(), WITHIN) {
            Err(Errno::XDEV) => {}
            Err(error) => return Err(error.into()),
            Ok(below) => {
                levels.push((inner, names(&below)?));
                way.down(below);
            }
        }
    }
    Ok(true)
}

/// Removes what a folder's list says is gone from what lies below it.
fn remove_gone(source: &OwnedFd, number: usize, to: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let list = match rustix::fs::openat(source, format!("{number}.gone"), flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut std::fs::File::from(list), &mut bytes)?;
    for path in bytes.split(|&byte| byte == 0).filter(|path| !path.is_empty()) {
        let mut parts = path.split(|&byte| byte == b'/').peekable();
        let mut at = to.try_clone()?;
        while let Some(part) = parts.next() {
            let name = CString::new(part)?;
            if parts.peek().is_none() {
                clear(at.as_fd(), &name)?;
                break;
            }
            match rustix::fs::openat2(&at, &name, FOLDER, Mode::empty(), WITHIN) {
                Ok(inner) => at = inner,
                // Gone as a whole, or not the same any more.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn names(folder: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Copies what a file holds; holes stay holes.
fn fill(from: &OwnedFd, to: &OwnedFd, size: u64) -> io::Result<()> {
    rustix::fs::ftruncate(to, size)?;
    let mut block = Vec::new();
    let mut at = 0;
    while at < size {
        at = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(begin) if begin < size => begin,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(at))?.min(size);
        while at < end {
            let (mut source, mut target) = (at, at);
            let left = (end - at).min(1 << 30) as usize;
            match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), left) {
                Ok(copied) if copied > 0 => {
                    at += copied as u64;
                    continue;
                }
                Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::IO)) => return Err(error.into()),
                // Between two file systems, mostly.
                Ok(_) | Err(_) => {}
            }
            block.resize(BLOCK, 0);
            let wanted = block.len().min(left);
            let read = rustix::io::pread(from, &mut block[..wanted], at)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut written = 0;
            while written < read {
                written += rustix::io::pwrite(to, &block[written..read], at + written as u64)?;
            }
            at += read as u64;
        }
    }
    Ok(())
}

/// Gives a file or folder the owner, mode, attributes and time of another.
fn dress(file: BorrowedFd<'_>, like: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat)?;
    rustix::fs::fchown(file, Some(uid), Some(gid))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut list = vec![0; 64 << 10];
    let length = match rustix::fs::flistxattr(like, &mut list) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let names = list[..length].split(|&byte| byte == 0);
    for name in names.filter(|name| XATTRS.iter().any(|kept| name.starts_with(kept))) {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::fgetxattr(like, name, &mut value)?;
        rustix::fs::fsetxattr(file, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(rustix::fs::futimens(file, &times(stat))?)
}

fn dress_by_name(folder: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat)?;
    rustix::fs::chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(rustix::fs::utimensat(folder, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// As the star sees it. All ones mean `leave it`, and belong to nobody.
fn owner(stat: &Stat) -> io::Result<(Uid, Gid)> {
    match (stat.st_uid, stat.st_gid) {
        (u32::MAX, _) | (_, u32::MAX) => Err(io::ErrorKind::InvalidData.into()),
        (uid, gid) => Ok((Uid::from_raw(uid), Gid::from_raw(gid))),
    }
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}
