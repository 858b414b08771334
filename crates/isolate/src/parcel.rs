//! Files and folders as a tar stream, and back: what is copied into a star and out of one.
//!
//! Both ends run this, one of them within the star's walls. What is walked and what is read may change or lie: below the
//! path that was asked for no link is followed, a file is looked at only once it is open, special files are left out, and
//! what is written never goes through anything that was there before.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tar::{EntryType, Header};

use crate::fault::plain;

/// What to do within a star.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Copying {
    /// Writes what is at a path to standard output.
    Out { path: String },
    /// Makes what comes by standard input.
    In { path: String, naming: Naming },
}

/// How what is unpacked is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Naming {
    /// As `cp` does: in a folder by its own name, else by the name given.
    One,
    /// Whatever the stream holds goes into a folder, which is made if need be.
    All,
}

/// Whose view of the files a path is read in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// A star's: its root is the top, and links of /proc lead nowhere.
    Star,
    /// The user's own.
    User,
}

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    pub files: u64,
    pub bytes: u64,
    /// Sockets, pipes, devices and what belongs to the kernel.
    pub left_out: u64,
}

/// Exit code of a copy within a star that left something out, and said what.
pub const LEFT_OUT: i32 = 3;

/// Notes of what was left out; what comes after is only counted.
const NOTES_MAX: u64 = 20;
/// Read and written at once, and the smallest hole that is kept.
const BLOCK: usize = 64 << 10;
/// A file may say that it is longer than what it holds by this much; one that says more would fill whatever it is sent to
/// with nothing.
const HOLES_MAX: u64 = 1 << 30;
/// Longest name of an entry with the headers that carry it: `PATH_MAX` sixteen times over.
const NAME_MAX: u64 = 64 << 10;
/// Folders whose final mode is set last, because until then they have to be written to.
const CLOSED_MAX: usize = 100_000;
/// File systems of the kernel's own making: `PROC_SUPER_MAGIC`, `SYSFS_MAGIC` of linux/magic.h.
const KERNEL: [i64; 2] = [0x9fa0, 0x6265_6572];

const BELOW: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Does a copy with this process's standard streams and gives its exit code. The summary of what came in is written to
/// standard output as three numbers.
pub(crate) fn serve(copying: &Copying) -> i32 {
    let mut say = |text: &str| {
        // If nobody reads it, nobody wants to know.
        let _ = rustix::io::write(rustix::stdio::stderr(), format!("{text}\n").as_bytes());
    };
    let streams = || -> io::Result<(File, File)> {
        let input = rustix::stdio::stdin().try_clone_to_owned()?;
        Ok((input.into(), rustix::stdio::stdout().try_clone_to_owned()?.into()))
    };
    let (input, mut output) = match streams() {
        Ok(streams) => streams,
        Err(error) => {
            say(&format!("no streams: {}", plain(&error)));
            return 1;
        }
    };
    let copied = match copying {
        Copying::Out { path } => pack(View::Star, path, io::BufWriter::with_capacity(BLOCK, output), &mut say),
        Copying::In { path, naming } => {
            unpack(View::Star, path, *naming, io::BufReader::with_capacity(BLOCK, input), &mut say).and_then(
                |summary| {
                    let Summary { files, bytes, left_out } = summary;
                    writeln!(output, "{files} {bytes} {left_out}").map_err(|error| plain(&error))?;
                    Ok(summary)
                },
            )
        }
    };
    match copied {
        Ok(Summary { left_out: 0, .. }) => 0,
        Ok(_) => LEFT_OUT,
        Err(reason) => {
            say(&reason);
            1
        }
    }
}

impl Summary {
    /// Reads what `serve` writes.
    pub fn read(text: &str) -> Option<Self> {
        let numbers: Vec<u64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        match numbers[..] {
            [files, bytes, left_out] => Some(Self { files, bytes, left_out }),
            _ => None,
        }
    }
}

/// Opens a path that somebody named. Links on the way are followed, within the view.
fn open_named(view: View, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    match view {
        View::User => rustix::fs::openat(CWD, path, flags, Mode::empty()),
        View::Star => {
            let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
        }
    }
}

fn shown(path: &Path) -> String {
    format!("`{}`", path.to_string_lossy().escape_debug())
}

fn cannot(what: &str, path: &Path, error: Errno) -> String {
    format!("cannot {what} {}: {}", shown(path), plain(&error.into()))
}

/// Reading without waiting for whoever is on the other side of a pipe, and without taking a terminal.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Writes what is at a path as a tar stream, under its own name. `note` hears of what is left out.
pub fn pack(view: View, path: &str, output: impl Write, note: &mut dyn FnMut(&str)) -> Result<Summary, String> {
    let path = checked(path)?;
    let top = open_named(view, &path, READ).map_err(|error| match error {
        Errno::NXIO => format!("{} is a socket or a device, which cannot be copied", shown(&path)),
        error => cannot("open", &path, error),
    })?;
    let stat = rustix::fs::fstat(&top).map_err(|error| cannot("read", &path, error))?;
    let name = path.file_name().map_or_else(|| PathBuf::from("root"), PathBuf::from);
    let mut packer = Packer { archive: tar::Builder::new(output), summary: Summary::default(), note };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory | FileType::RegularFile if is_kernels(&top) => {
            return Err(format!("{} belongs to the kernel and cannot be copied", shown(&path)));
        }
        FileType::Directory => packer.tree(&top, &name)?,
        FileType::RegularFile => packer.file(top.into(), &stat, &name)?,
        kind => return Err(format!("{} is {}, which cannot be copied", shown(&path), kind_name(kind))),
    }
    let written = packer.archive.into_inner().and_then(|mut output| output.flush());
    written.map_err(|error| unwritten(&error))?;
    Ok(packer.summary)
}

fn unwritten(error: &io::Error) -> String {
    format!("the copy was not taken: {}", plain(error))
}

struct Packer<'n, W: Write> {
    archive: tar::Builder<W>,
    summary: Summary,
    note: &'n mut dyn FnMut(&str),
}

impl<W: Write> Packer<'_, W> {
    /// Everything below a folder, an outer folder before what is in it.
    fn tree(&mut self, top: &OwnedFd, name: &Path) -> Result<(), String> {
        let mut folders = vec![PathBuf::new()];
        while let Some(below) = folders.pop() {
            let path = if below.as_os_str().is_empty() { name.to_owned() } else { name.join(&below) };
            // By its path each time: holding every folder open would take as many descriptors as the tree is deep.
            let opened = match below.as_os_str().is_empty() {
                true => rustix::fs::openat(top, ".", READ | OFlags::DIRECTORY, Mode::empty()),
                false => rustix::fs::openat2(top, &below, READ | OFlags::DIRECTORY, Mode::empty(), BELOW),
            };
            let folder = match opened {
                Ok(folder) => folder,
                // Gone, or something else, since it was seen.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => return Err(cannot("open", &path, error)),
            };
            if is_kernels(&folder) {
                self.leave_out(&path, "belongs to the kernel");
                continue;
            }
            let stat = rustix::fs::fstat(&folder).map_err(|error| cannot("read", &path, error))?;
            self.append(&mut header(EntryType::Directory, &stat, 0), &path, io::empty())?;
            self.summary.files += 1;
            for entry in Dir::read_from(&folder).map_err(|error| cannot("read", &path, error))? {
                let entry = entry.map_err(|error| cannot("read", &path, error))?;
                let entry = OsStr::from_bytes(entry.file_name().to_bytes());
                if entry != "." && entry != ".." && self.entry(&folder, entry, &path)? {
                    folders.push(below.join(entry));
                }
            }
        }
        Ok(())
    }

    /// One entry of a folder; `true` for a folder, which has its turn later.
    fn entry(&mut self, folder: &OwnedFd, name: &OsStr, within: &Path) -> Result<bool, String> {
        let path = within.join(name);
        let seen = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(seen) => seen,
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(cannot("read", &path, error)),
        };
        match FileType::from_raw_mode(seen.st_mode) {
            FileType::Directory => return Ok(true),
            FileType::Symlink => self.link(folder, name, &seen, &path)?,
            FileType::RegularFile => match rustix::fs::openat(folder, name, READ | OFlags::NOFOLLOW, Mode::empty()) {
                // What was opened counts, not what was seen before.
                Ok(file) => {
                    let stat = rustix::fs::fstat(&file).map_err(|error| cannot("read", &path, error))?;
                    match FileType::from_raw_mode(stat.st_mode) {
                        FileType::RegularFile if is_kernels(&file) => self.leave_out(&path, "belongs to the kernel"),
                        FileType::RegularFile => self.file(file.into(), &stat, &path)?,
                        kind => self.leave_out(&path, &format!("is {}", kind_name(kind))),
                    }
                }
                Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => {}
                Err(error) => return Err(cannot("open", &path, error)),
            },
            kind => self.leave_out(&path, &format!("is {}", kind_name(kind))),
        }
        Ok(false)
    }

    fn leave_out(&mut self, path: &Path, why: &str) {
        self.summary.left_out += 1;
        if self.summary.left_out <= NOTES_MAX {
            (self.note)(&format!("left out: {} {why}", shown(path)));
        }
    }

    fn link(&mut self, folder: &OwnedFd, name: &OsStr, stat: &Stat, path: &Path) -> Result<(), String> {
        let target = match rustix::fs::readlinkat(folder, name, Vec::new()) {
            Ok(target) => OsString::from_vec(target.into_bytes()),
            Err(Errno::NOENT | Errno::INVAL) => return Ok(()),
            Err(error) => return Err(cannot("read", path, error)),
        };
        self.summary.files += 1;
        let mut header = header(EntryType::Symlink, stat, 0);
        self.archive.append_link(&mut header, path, target).map_err(|error| unwritten(&error))
    }

    fn file(&mut self, file: File, stat: &Stat, path: &Path) -> Result<(), String> {
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        let there = u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
        if size.saturating_sub(there) > HOLES_MAX {
            let (size, there) = (model::Bytes(size), model::Bytes(there));
            return Err(format!("{} is {size} long and holds {there}: more holes than are copied", shown(path)));
        }
        let mut source = Source { file, failed: None };
        // As long as its header says, whatever becomes of it meanwhile: what is missing is zeros, what is more stays.
        let exact = (&mut source).chain(io::repeat(0)).take(size);
        let appended = self.archive.append_data(&mut header(EntryType::Regular, stat, size), path, exact);
        if let Some(error) = source.failed {
            return Err(format!("cannot read {}: {}", shown(path), plain(&error)));
        }
        appended.map_err(|error| unwritten(&error))?;
        self.summary.files += 1;
        self.summary.bytes += size;
        Ok(())
    }

    fn append(&mut self, header: &mut Header, path: &Path, data: impl Read) -> Result<(), String> {
        self.archive.append_data(header, path, data).map_err(|error| unwritten(&error))
    }
}

/// A file that tells its own failures from those of whoever it is written to.
struct Source {
    file: File,
    failed: Option<io::Error>,
}

impl Read for &mut Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer);
        match read {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
            read => read,
        }
    }
}

fn header(kind: EntryType, stat: &Stat, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o1777);
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or_default());
    header.set_size(size);
    header
}

fn is_kernels(fd: &OwnedFd) -> bool {
    rustix::fs::fstatfs(fd).is_ok_and(|stat| KERNEL.contains(&stat.f_type))
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Directory => "a folder",
        FileType::Symlink => "a link",
        _ => "no file",
    }
}

fn checked(path: &str) -> Result<PathBuf, String> {
    if path.is_empty() || path.contains('\0') {
        return Err(format!("{} is no path", shown(Path::new(path))));
    }
    Ok(PathBuf::from(path))
}

/// Makes what a tar stream holds. `note` hears of what is left out.
pub fn unpack(
    view: View,
    path: &str,
    naming: Naming,
    input: impl Read,
    note: &mut dyn FnMut(&str),
) -> Result<Summary, String> {
    let (base, name) = destination(view, path, naming)?;
    let mut unpacker =
        Unpacker { base, name, summary: Summary::default(), closed: BTreeMap::new(), parent: None, note };
    let damaged = |error: io::Error| format!("the stream is no tar archive, or is damaged: {}", plain(&error));
    let unpacked = take_in(&mut unpacker, input, damaged).and_then(|()| unpacker.close_folders());
    let copied = unpacker.summary.files;
    unpacked.map_err(|reason| match copied {
        0 => reason,
        1 => format!("{reason}; 1 file was copied before"),
        files => format!("{reason}; {files} files were copied before"),
    })?;
    Ok(unpacker.summary)
}

fn take_in(unpacker: &mut Unpacker<'_>, input: impl Read, damaged: impl Fn(io::Error) -> String) -> Result<(), String> {
    let mut archive = tar::Archive::new(input);
    // Names that an extra header carries; the library would take headers of any length.
    let (mut long_name, mut long_link) = (None, None);
    for entry in archive.entries().map_err(&damaged)?.raw(true) {
        let mut entry = entry.map_err(&damaged)?;
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions() {
            if entry.size() > NAME_MAX {
                return Err(format!("an entry of the archive has a name of {} bytes", entry.size()));
            }
            let mut text = Vec::new();
            entry.read_to_end(&mut text).map_err(&damaged)?;
            if kind.is_pax_local_extensions() {
                let records = pax(&text).ok_or("the stream is no tar archive: an extended header is damaged")?;
                if records.contains_key(b"size".as_slice()) {
                    return Err("the archive has sizes in extended headers: make it with `tar --format=gnu`".to_owned());
                }
                long_name = records.get(b"path".as_slice()).map(|path| path.to_vec()).or(long_name);
                long_link = records.get(b"linkpath".as_slice()).map(|path| path.to_vec()).or(long_link);
                continue;
            }
            while text.last() == Some(&0) {
                text.pop();
            }
            if kind.is_gnu_longname() {
                long_name = Some(text)
            } else {
                long_link = Some(text)
            }
            continue;
        }
        if kind.is_pax_global_extensions() {
            continue;
        }
        let path = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        let link = long_link.take().or_else(|| entry.link_name_bytes().map(|link| link.into_owned()));
        unpacker.entry(&mut entry, &path, link)?;
    }
    Ok(())
}

/// The records of an extended header: `length key=value\n`, the length being that of the whole record (pax(1)).
fn pax(mut text: &[u8]) -> Option<BTreeMap<&[u8], &[u8]>> {
    let mut records = BTreeMap::new();
    while !text.is_empty() {
        let blank = text.iter().position(|&byte| byte == b' ')?;
        let length: usize = std::str::from_utf8(&text[..blank]).ok()?.parse().ok()?;
        let record = text.get(blank + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        records.insert(&record[..equals], &record[equals + 1..]);
        text = &text[length..];
    }
    Some(records)
}

/// The folder that a stream is unpacked in, and what its only top entry is called there if not by its own name.
fn destination(view: View, path: &str, naming: Naming) -> Result<(OwnedFd, Option<OsString>), String> {
    let given = checked(path)?;
    let folder = |path: &Path| open_named(view, path, OFlags::PATH | OFlags::DIRECTORY);
    match folder(&given) {
        Ok(found) => return Ok((found, None)),
        Err(Errno::NOENT | Errno::NOTDIR) => {}
        Err(error) => return Err(cannot("open", &given, error)),
    }
    let no_folder = || format!("there is no folder {}", shown(&given));
    let name = given.file_name().filter(|_| naming == Naming::All || !path.ends_with('/')).ok_or_else(no_folder)?;
    let parent = given.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(match view {
        View::Star => Path::new("/"),
        View::User => Path::new("."),
    });
    let within = folder(parent).map_err(|error| cannot("open", parent, error))?;
    match naming {
        Naming::One => Ok((within, Some(name.to_owned()))),
        Naming::All => {
            rustix::fs::mkdirat(&within, name, Mode::from_raw_mode(0o755))
                .map_err(|error| cannot("make", &given, error))?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(&within, name, flags, Mode::empty());
            Ok((made.map_err(|error| cannot("open", &given, error))?, None))
        }
    }
}

struct Unpacker<'n> {
    base: OwnedFd,
    /// What the first part of every path becomes.
    name: Option<OsString>,
    summary: Summary,
    /// Modes of folders that their owner may not write to.
    closed: BTreeMap<PathBuf, Mode>,
    /// The folder that was written to last: mostly the next file's too.
    parent: Option<(PathBuf, OwnedFd)>,
    note: &'n mut dyn FnMut(&str),
}

impl Unpacker<'_> {
    fn entry(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        path: &[u8],
        link: Option<Vec<u8>>,
    ) -> Result<(), String> {
        let given = Path::new(OsStr::from_bytes(path));
        let Some(path) = self.place(given)? else { return Ok(()) };
        let mode = Mode::from_raw_mode(entry.header().mode().unwrap_or(0o644) & 0o1777);
        let target = link.map(OsString::from_vec);
        match (entry.header().entry_type(), target) {
            (EntryType::Directory, _) => self.folder(path, mode)?,
            (EntryType::GNUSparse, _) => {
                return Err(format!(
                    "{} is stored as a sparse file: make the archive without `--sparse`",
                    shown(given)
                ));
            }
            (EntryType::Regular | EntryType::Continuous, _) => self.file(entry, &path, mode)?,
            (EntryType::Symlink, Some(target)) => {
                let (parent, name) = self.parent_of(&path)?;
                replace(&path, || rustix::fs::symlinkat(&target, parent, &name), || clear(parent, &name))?;
                self.summary.files += 1;
            }
            (EntryType::Link, Some(target)) => {
                let source =
                    self.place(Path::new(&target))?.ok_or_else(|| format!("{} is a link to nothing", shown(given)))?;
                let from = {
                    let (parent, name) = self.parent_of(&source)?;
                    (parent.try_clone().map_err(|error| plain(&error))?, name)
                };
                let (parent, name) = self.parent_of(&path)?;
                let make = || rustix::fs::linkat(&from.0, &from.1, parent, &name, AtFlags::empty());
                replace(&path, make, || clear(parent, &name))?;
                self.summary.files += 1;
            }
            (kind, _) => {
                self.summary.left_out += 1;
                if self.summary.left_out <= NOTES_MAX {
                    let what = match kind {
                        EntryType::Fifo => "a pipe",
                        EntryType::Char | EntryType::Block => "a device",
                        _ => "of a kind that is not known",
                    };
                    (self.note)(&format!("left out: {} is {what}", shown(given)));
                }
            }
        }
        Ok(())
    }

    /// Where an entry goes, below `base`. None for the base itself.
    fn place(&self, given: &Path) -> Result<Option<PathBuf>, String> {
        let mut parts = Vec::new();
        for part in given.components() {
            match part {
                Component::CurDir => {}
                Component::Normal(part) => parts.push(part.to_owned()),
                _ => return Err(format!("the archive has an entry {}, which leads out of the folder", shown(given))),
            }
        }
        if let (Some(first), Some(name)) = (parts.first_mut(), &self.name) {
            first.clone_from(name);
        }
        let path: PathBuf = parts.into_iter().collect();
        Ok((!path.as_os_str().is_empty()).then_some(path))
    }

    /// The folder an entry lies in, made if the archive has not, and its name there.
    fn parent_of(&mut self, path: &Path) -> Result<(&OwnedFd, OsString), String> {
        let name = path.file_name().unwrap_or_default().to_owned();
        let within = path.parent().unwrap_or(Path::new("")).to_owned();
        if self.parent.as_ref().is_none_or(|(known, _)| *known != within) {
            let folder = match self.open_folder(&within) {
                Err(Errno::NOENT) => {
                    self.make_folders(&within)?;
                    self.open_folder(&within)
                }
                other => other,
            };
            self.parent = Some((within.clone(), folder.map_err(|error| no_place(&within, error))?));
        }
        match &self.parent {
            Some((_, folder)) => Ok((folder, name)),
            None => Err(format!("no folder {}", shown(&within))),
        }
    }

    fn open_folder(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match path.as_os_str().is_empty() {
            true => rustix::io::fcntl_dupfd_cloexec(&self.base, 0),
            false => rustix::fs::openat2(&self.base, path, flags, Mode::empty(), BELOW),
        }
    }

    fn make_folders(&self, path: &Path) -> Result<(), String> {
        let mut folder = self.open_folder(Path::new("")).map_err(|error| cannot("open", path, error))?;
        let mut so_far = PathBuf::new();
        for part in path.components() {
            match rustix::fs::mkdirat(&folder, part.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(cannot("make", path, error)),
            }
            so_far.push(part);
            folder = self.open_folder(&so_far).map_err(|error| no_place(&so_far, error))?;
        }
        Ok(())
    }

    fn folder(&mut self, path: PathBuf, mode: Mode) -> Result<(), String> {
        let usable = mode | Mode::RWXU;
        let (parent, name) = self.parent_of(&path)?;
        match rustix::fs::mkdirat(parent, &name, usable) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(cannot("make", &path, error)),
        }
        let folder = self.open_folder(&path).map_err(|error| no_place(&path, error))?;
        set_mode(&folder, usable, &path)?;
        self.summary.files += 1;
        if usable != mode {
            if self.closed.len() >= CLOSED_MAX {
                return Err(format!("more than {CLOSED_MAX} folders that may not be written to"));
            }
            self.closed.insert(path, mode);
        }
        Ok(())
    }

    /// Inner folders before the outer ones, which would keep them out of reach.
    fn close_folders(&mut self) -> Result<(), String> {
        self.parent = None;
        for (path, mode) in std::mem::take(&mut self.closed).into_iter().rev() {
            let folder = self.open_folder(&path).map_err(|error| no_place(&path, error))?;
            set_mode(&folder, mode, &path)?;
        }
        Ok(())
    }

    fn file(&mut self, entry: &mut tar::Entry<'_, impl Read>, path: &Path, mode: Mode) -> Result<(), String> {
        let size = entry.header().size().map_err(|error| format!("{}: {}", shown(path), plain(&error)))?;
        let seconds = entry.header().mtime().ok().and_then(|time| i64::try_from(time).ok());
        let (parent, name) = self.parent_of(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = || rustix::fs::openat(parent, &name, flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(replace(path, make, || clear(parent, &name))?);
        let written = fill(&file, entry, size).and_then(|()| {
            rustix::fs::fchmod(&file, mode)?;
            if let Some(seconds) = seconds {
                let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
                rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })?;
            }
            Ok(())
        });
        if let Err(error) = written {
            // Half a file is worse than none.
            let _ = clear(parent, &name);
            return Err(format!("cannot write {}: {}", shown(path), plain(&error)));
        }
        self.summary.files += 1;
        self.summary.bytes += size;
        Ok(())
    }
}

fn no_place(path: &Path, error: Errno) -> String {
    match error {
        Errno::LOOP => format!("{} is a link there, and is not followed", shown(path)),
        Errno::NOTDIR => format!("{} is no folder there", shown(path)),
        error => cannot("open", path, error),
    }
}

/// Through a descriptor that was opened for its path alone.
fn set_mode(folder: &OwnedFd, mode: Mode, path: &Path) -> Result<(), String> {
    let opened = rustix::fs::openat(folder, ".", READ | OFlags::DIRECTORY, Mode::empty());
    opened.and_then(|opened| rustix::fs::fchmod(opened, mode)).map_err(|error| cannot("set the mode of", path, error))
}

/// Makes something in place of what may be there.
fn replace<T>(
    path: &Path,
    make: impl Fn() -> rustix::io::Result<T>,
    clear: impl Fn() -> rustix::io::Result<()>,
) -> Result<T, String> {
    match make() {
        Err(Errno::EXIST) => match clear() {
            Ok(()) | Err(Errno::NOENT) => make().map_err(|error| cannot("make", path, error)),
            Err(Errno::ISDIR | Errno::PERM) => Err(format!("{} is a folder there", shown(path))),
            Err(error) => Err(cannot("replace", path, error)),
        },
        other => other.map_err(|error| cannot("make", path, error)),
    }
}

fn clear(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    rustix::fs::unlinkat(parent.as_fd(), name, AtFlags::empty())
}

/// Writes what the entry holds; blocks of zeros become holes.
fn fill(file: &File, entry: &mut impl Read, size: u64) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    while at < size {
        let length = usize::try_from(size - at).unwrap_or(BLOCK).min(BLOCK);
        let block = &mut block[..length];
        entry.read_exact(block)?;
        if length < BLOCK || block.iter().any(|&byte| byte != 0) {
            file.write_all_at(block, at)?;
        }
        at += length as u64;
    }
    file.set_len(size)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn text(path: &Path) -> String {
        path.to_str().unwrap().to_owned()
    }

    /// What packing gives, and what was left out.
    fn packed(path: &Path) -> Result<(Vec<u8>, Vec<String>), String> {
        let (mut bytes, mut notes) = (Vec::new(), Vec::new());
        pack(View::User, &text(path), &mut bytes, &mut |note| notes.push(note.to_owned()))?;
        Ok((bytes, notes))
    }

    fn unpacked(bytes: &[u8], path: &Path, naming: Naming) -> Result<Summary, String> {
        unpack(View::User, &text(path), naming, bytes, &mut |_| {})
    }

    /// An archive of entries as a hostile one would write them.
    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, text) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o6755);
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            let data = if *kind == EntryType::Regular { text.as_bytes() } else { b"" };
            if *kind != EntryType::Regular {
                header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
            }
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn a_tree_comes_out_as_it_went_in() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("sub/closed")).unwrap();
        let long = "n".repeat(200);
        fs::write(tree.join(&long), "long").unwrap();
        fs::write(tree.join("sub/closed/run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(tree.join("sub/closed/run"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("/etc/nowhere", tree.join("sub/link")).unwrap();
        symlink("x".repeat(300), tree.join("sub/long-link")).unwrap();
        fs::write(tree.join("odd\nname \u{1}"), "odd").unwrap();
        fs::set_permissions(tree.join("sub/closed"), fs::Permissions::from_mode(0o555)).unwrap();
        let (bytes, notes) = packed(&tree).unwrap();
        assert!(notes.is_empty(), "{notes:?}");
        // Into a folder by its own name, and under another.
        fs::create_dir(folder.path().join("into")).unwrap();
        unpacked(&bytes, &folder.path().join("into"), Naming::One).unwrap();
        let summary = unpacked(&bytes, &folder.path().join("renamed"), Naming::One).unwrap();
        assert_eq!((summary.files, summary.left_out), (8, 0));
        for copy in [folder.path().join("into/tree"), folder.path().join("renamed")] {
            assert_eq!(fs::read_to_string(copy.join(&long)).unwrap(), "long");
            assert_eq!(fs::read_to_string(copy.join("odd\nname \u{1}")).unwrap(), "odd");
            let run = fs::metadata(copy.join("sub/closed/run")).unwrap();
            let before = fs::metadata(tree.join("sub/closed/run")).unwrap();
            assert_eq!((run.mode() & 0o7777, run.mtime()), (0o750, before.mtime()));
            assert_eq!(fs::metadata(copy.join("sub/closed")).unwrap().mode() & 0o7777, 0o555);
            assert_eq!(fs::read_link(copy.join("sub/link")).unwrap(), Path::new("/etc/nowhere"));
            assert_eq!(fs::read_link(copy.join("sub/long-link")).unwrap().as_os_str().len(), 300);
            fs::set_permissions(copy.join("sub/closed"), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(tree.join("sub/closed"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn what_other_programs_pack_is_read() {
        let folder = tempfile::tempdir().unwrap();
        // As long as the oldest of the formats takes, longer than a header alone holds.
        let long = format!("{}/{}", "d".repeat(95), "f".repeat(95));
        fs::create_dir(folder.path().join("d".repeat(95))).unwrap();
        fs::write(folder.path().join(&long), "deep").unwrap();
        fs::hard_link(folder.path().join(&long), folder.path().join("again")).unwrap();
        for format in ["gnu", "pax", "ustar"] {
            let tar = std::process::Command::new("tar")
                .args(["-c", "--format", format, "-C"])
                .arg(folder.path())
                .args(["again", &long])
                .output();
            let Ok(tar) = tar else {
                eprintln!("skipped: there is no `tar`");
                return;
            };
            assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
            let into = tempfile::tempdir().unwrap();
            unpacked(&tar.stdout, &into.path().join("new"), Naming::All).unwrap();
            assert_eq!(fs::read_to_string(into.path().join("new").join(&long)).unwrap(), "deep", "{format}");
            assert_eq!(fs::metadata(into.path().join("new/again")).unwrap().nlink(), 2, "{format}");
        }
    }

    #[test]
    fn special_files_are_left_out_and_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), "x").unwrap();
        rustix::fs::mknodat(CWD, tree.join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
        let (bytes, notes) = packed(&tree).unwrap();
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes.iter().any(|note| note.contains("`tree/pipe` is a pipe")), "{notes:?}");
        assert_eq!(unpacked(&bytes, &folder.path().join("copy"), Naming::One).unwrap().files, 2);
        for (path, says) in [("tree/pipe", "is a pipe"), ("tree/socket", "a socket")] {
            let refused = packed(&folder.path().join(path)).unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
        assert!(packed(Path::new("/dev/null")).unwrap_err().contains("is a device"));
        assert!(packed(Path::new("/proc/self/maps")).unwrap_err().contains("belongs to the kernel"));
        // Entries of that kind are not made either.
        let device = archive(&[("null", EntryType::Char, ""), ("fifo", EntryType::Fifo, "")]);
        assert_eq!(unpacked(&device, folder.path(), Naming::All).unwrap().left_out, 2);
        assert!(!folder.path().join("null").exists() && !folder.path().join("fifo").exists());
    }

    #[test]
    fn an_archive_writes_nowhere_but_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (outside, inside) = (folder.path().join("outside"), folder.path().join("inside"));
        for path in [&outside, &inside] {
            fs::create_dir(path).unwrap();
        }
        fs::write(outside.join("file"), "mine").unwrap();
        let outside_text = text(&outside);
        let refused = |entries: &[(&str, EntryType, &str)], says: &str| {
            let refused = unpacked(&archive(entries), &inside, Naming::All).unwrap_err();
            assert!(refused.contains(says), "{refused}");
            assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "mine");
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        };
        use EntryType::{Directory, Link, Regular, Symlink};
        refused(&[("../outside/new", Regular, "x")], "leads out of the folder");
        refused(&[("/tmp/rads-new", Regular, "x")], "leads out of the folder");
        refused(&[("a/../../outside/new", Regular, "x")], "leads out of the folder");
        refused(&[("link", Symlink, &outside_text), ("link/new", Regular, "x")], "is a link there");
        refused(&[("deep/link", Symlink, "../../outside"), ("deep/link/new", Directory, "")], "is a link there");
        refused(&[("hard", Link, "../outside/file")], "leads out of the folder");
        refused(&[("link", Symlink, &outside_text), ("hard", Link, "link/file")], "is a link there");
        refused(&[("link", Symlink, &outside_text), ("link", Directory, "")], "is a link there");
        // A link that is in the way is replaced, not written through.
        symlink(outside.join("file"), inside.join("file")).unwrap();
        unpacked(&archive(&[("file", Regular, "theirs")]), &inside, Naming::All).unwrap();
        assert_eq!(fs::read_to_string(inside.join("file")).unwrap(), "theirs");
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "mine");
        // Nobody's identity is lent to a file.
        assert_eq!(fs::metadata(inside.join("file")).unwrap().mode() & 0o7777, 0o755);
        // A folder is not replaced by a file, nor a file by a folder.
        fs::create_dir(inside.join("folder")).unwrap();
        refused(&[("folder", Regular, "x")], "is a folder there");
        refused(&[("file/x", Regular, "x")], "is no folder there");
    }

    #[test]
    fn damaged_archives_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let whole = archive(&[("file", EntryType::Regular, "some text")]);
        let says = |bytes: &[u8]| unpacked(bytes, folder.path(), Naming::All).unwrap_err();
        assert!(
            says(
                b"no archive at all, but long enough to be taken for a header if nobody looked at it closely. "
                    .repeat(8)
                    .as_slice()
            )
            .contains("no tar archive")
        );
        assert!(says(&whole[..515]).contains("cannot write `file`"));
        assert!(!folder.path().join("file").exists(), "half a file is not left");
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_cksum();
        assert!(says(header.as_bytes()).contains("has a name of"));
        assert!(unpacked(&whole, &folder.path().join("no/where"), Naming::All).unwrap_err().contains("cannot open"));
        assert!(
            unpacked(&whole, &folder.path().join("none/"), Naming::One).unwrap_err().contains("there is no folder")
        );
    }

    #[test]
    fn holes_stay_holes_and_a_file_of_nothing_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sparse");
        let file = File::create(&path).unwrap();
        file.write_all_at(b"end", 64 << 20).unwrap();
        let (bytes, _) = packed(&path).unwrap();
        unpacked(&bytes, &folder.path().join("copy"), Naming::One).unwrap();
        let copy = fs::metadata(folder.path().join("copy")).unwrap();
        assert_eq!(copy.len(), (64 << 20) + 3);
        assert!(copy.blocks() * 512 < 1 << 20, "{} blocks", copy.blocks());
        file.set_len(4 << 40).unwrap();
        assert!(packed(&path).unwrap_err().contains("more holes than are copied"));
    }

    #[test]
    fn summaries_read_back() {
        assert_eq!(Summary::read("3 4096 1\n"), Some(Summary { files: 3, bytes: 4096, left_out: 1 }));
        assert!(Summary::read("").is_none() && Summary::read("1 2").is_none());
    }
}
