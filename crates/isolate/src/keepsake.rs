//! What lies in a star's own memory file systems, kept with its memory and laid down again before that is brought back: its
//! programs have files open there.
//!
//! While this is done nothing of the star's runs. What belongs to its users belongs to the same ones again, whichever range of ids
//! the other star has. Sockets are CRIU's to make anew; devices there are none.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use model::interior::IDS_PER_STAR;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use tar::{Archive, Builder, EntryType, Header};

use crate::fault::plain;

/// Beside CRIU's images.
pub(crate) const FILE: &str = "files.tar";
/// Folders inside each other, beyond which it is given up.
const DEPTH_MAX: usize = 512;
/// What every star is given anew.
const GIVEN: [&str; 3] = ["run/hostname", "run/hosts", "run/resolv.conf"];

/// Writes what is below these absolute folders, without other file systems. `base` is the host's id of the star's root.
pub(crate) fn pack(folders: &[String], base: u32, output: File) -> Result<(), String> {
    let mut packer = Packer { builder: Builder::new(io::BufWriter::new(output)), base };
    for folder in folders {
        let path = Path::new(folder.trim_start_matches('/'));
        let failed = |error: io::Error| format!("`{folder}` cannot be kept: {}", plain(&error));
        let opened = open(CWD, folder, OFlags::DIRECTORY).map_err(failed)?;
        let device = rustix::fs::fstat(&opened).map_err(|error| failed(error.into()))?.st_dev;
        packer.folder(&opened, path, device, 0).map_err(|(path, error)| {
            format!("`/{}` cannot be kept: {}", path.to_string_lossy().escape_debug(), plain(&error))
        })?;
    }
    let done = packer.builder.into_inner().and_then(|mut output| output.flush());
    done.map_err(|error| format!("files cannot be kept: {}", plain(&error)))
}

fn open(folder: impl AsFd, name: impl rustix::path::Arg, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?)
}

struct Packer<W: Write> {
    builder: Builder<W>,
    base: u32,
}

type At<T> = Result<T, (PathBuf, io::Error)>;

impl<W: Write> Packer<W> {
    fn folder(&mut self, folder: &OwnedFd, path: &Path, device: u64, depth: usize) -> At<()> {
        let at = |error: io::Error| (path.to_owned(), error);
        if depth > DEPTH_MAX {
            return Err(at(io::Error::other("too many folders inside each other")));
        }
        let stat = rustix::fs::fstat(folder).map_err(|error| at(error.into()))?;
        self.put(EntryType::Directory, &stat, path, 0, io::empty()).map_err(at)?;
        for entry in Dir::read_from(folder).map_err(|error| at(error.into()))? {
            let entry = entry.map_err(|error| at(error.into()))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let path = path.join(name);
            if name != "." && name != ".." && !GIVEN.iter().any(|given| path == Path::new(given)) {
                self.entry(folder, name, &path, device, depth)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, folder: &OwnedFd, name: &OsStr, path: &Path, device: u64, depth: usize) -> At<()> {
        let at = |error: io::Error| (path.to_owned(), error);
        let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| at(error.into()))?;
        if stat.st_dev != device {
            return Ok(());
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let below = open(folder, name, OFlags::DIRECTORY).map_err(at)?;
                self.folder(&below, path, device, depth + 1)
            }
            FileType::RegularFile => {
                let file = open(folder, name, OFlags::empty()).map_err(at)?;
                let stat = rustix::fs::fstat(&file).map_err(|error| at(error.into()))?;
                let size = stat.st_size as u64;
                self.put(EntryType::Regular, &stat, path, size, io::Read::take(File::from(file), size)).map_err(at)
            }
            FileType::Symlink => {
                let to = rustix::fs::readlinkat(folder, name, Vec::new()).map_err(|error| at(error.into()))?;
                let mut header = self.header(EntryType::Symlink, &stat, 0);
                let to = Path::new(OsStr::from_bytes(to.to_bytes()));
                self.builder.append_link(&mut header, path, to).map_err(at)
            }
            FileType::Fifo => self.put(EntryType::Fifo, &stat, path, 0, io::empty()).map_err(at),
            _ => Ok(()),
        }
    }

    fn put(&mut self, kind: EntryType, stat: &Stat, path: &Path, size: u64, data: impl io::Read) -> io::Result<()> {
        let mut header = self.header(kind, stat, size);
        self.builder.append_data(&mut header, path, data)
    }

    fn header(&self, kind: EntryType, stat: &Stat, size: u64) -> Header {
        let own = |id: u32| u64::from(id.checked_sub(self.base).filter(|id| *id < IDS_PER_STAR).unwrap_or(0));
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(own(stat.st_uid));
        header.set_gid(own(stat.st_gid));
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or_default());
        header
    }
}

/// Makes everything again, from the root of this process on.
pub(crate) fn unpack(input: File) -> Result<(), String> {
    let mut archive = Archive::new(io::BufReader::new(input));
    let damaged = |error: io::Error| format!("the files kept with it cannot be read: {}", plain(&error));
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let path = OsString::from_vec(entry.path_bytes().into_owned());
        let path = Path::new(&path);
        if path.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err("the files kept with it are not below its root".to_owned());
        }
        let path = Path::new("/").join(path);
        lay(&mut entry, &path).map_err(|error| {
            format!("`{}` cannot be made: {}", path.to_string_lossy().escape_debug(), plain(&error))
        })?;
    }
    Ok(())
}

fn lay(entry: &mut tar::Entry<'_, impl io::Read>, path: &Path) -> io::Result<()> {
    let header = entry.header().clone();
    let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
    let id = |id: u64| u32::try_from(id).map_err(io::Error::other);
    let (uid, gid) = (Some(Uid::from_raw(id(header.uid()?)?)), Some(Gid::from_raw(id(header.gid()?)?)));
    let private = Mode::RUSR | Mode::WUSR;
    match header.entry_type() {
        EntryType::Directory => match rustix::fs::mkdir(path, Mode::RWXU) {
            // Those that every star has.
            Err(rustix::io::Errno::EXIST) => {}
            made => made?,
        },
        EntryType::Regular => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            io::copy(entry, &mut File::from(rustix::fs::open(path, flags, private)?))?;
        }
        EntryType::Fifo => rustix::fs::mknodat(CWD, path, FileType::Fifo, private, 0)?,
        EntryType::Symlink => {
            let to = entry.link_name_bytes().ok_or(io::ErrorKind::InvalidData)?.into_owned();
            rustix::fs::symlink(OsString::from_vec(to), path)?;
        }
        _ => return Err(io::ErrorKind::InvalidData.into()),
    }
    rustix::fs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    if header.entry_type() != EntryType::Symlink {
        rustix::fs::chmodat(CWD, path, mode, AtFlags::empty())?;
    }
    let time = Timespec { tv_sec: i64::try_from(header.mtime()?).unwrap_or_default(), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
