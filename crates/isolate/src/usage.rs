//! How much a star's writable places hold: memory file systems and images by their own count, folders of the host by going
//! through them.
//!
//! The star may change what is gone through meanwhile. Every step starts at the place's own folder, follows no link and
//! leaves no mount, so that it leads nowhere else; how far it goes is bounded.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Most files gone through. A hundred thousand take about a tenth of a second; of a place with more the use is not told.
pub(crate) const FILES_MAX: usize = 100_000;
/// `st_blocks` counts in these (stat(2)).
const BLOCK: u64 = 512;
/// Never places to store something in.
const NO_STORAGE: [&str; 7] = ["proc", "sysfs", "cgroup", "cgroup2", "devtmpfs", "devpts", "mqueue"];

/// What the writable places of the process with this number hold; `None` when it is too much to go through.
pub(crate) fn used(pid: u32) -> io::Result<Option<u64>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty())?;
    let mut seen = BTreeSet::new();
    let mut total = 0u64;
    for mount in mounts(pid)?.into_iter().filter(Mount::stores) {
        if !seen.insert(mount.what()) {
            continue;
        }
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let place = match rustix::fs::openat2(&root, &mount.at, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
        {
            Ok(place) => place,
            // Covered by another mount.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => continue,
            Err(error) => return Err(error.into()),
        };
        let used = if mount.is_its_own() { Some(in_use(&place)?) } else { held(&place, FILES_MAX)? };
        match used {
            Some(used) => total += used,
            None => return Ok(None),
        }
    }
    Ok(Some(total))
}

/// One line of `/proc/PID/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// `major:minor` of its file system.
    pub(crate) device: String,
    /// What part of the file system it shows.
    pub(crate) root: PathBuf,
    /// Where, as the process sees it.
    pub(crate) at: PathBuf,
    /// `rw,nosuid,…` of the mount itself.
    pub(crate) options: String,
    pub(crate) kind: String,
    pub(crate) source: String,
}

impl Mount {
    fn stores(&self) -> bool {
        let writable = self.options.split(',').next() == Some("rw");
        writable && !NO_STORAGE.contains(&self.kind.as_str())
    }

    /// Whether the whole file system belongs to the star, so that its own count is the star's use.
    fn is_its_own(&self) -> bool {
        let is_image = self.source.starts_with("/dev/loop") && self.root == Path::new("/");
        is_image || ["tmpfs", "overlay"].contains(&self.kind.as_str())
    }

    /// What is counted once, wherever it is seen.
    fn what(&self) -> (String, PathBuf) {
        let root = if self.is_its_own() { PathBuf::from("/") } else { self.root.clone() };
        (self.device.clone(), root)
    }
}

/// The mounts that a process sees.
pub(crate) fn mounts(pid: u32) -> io::Result<Vec<Mount>> {
    let text = fs::read(format!("/proc/{pid}/mountinfo"))?;
    Ok(text.split(|&byte| byte == b'\n').filter_map(parse).collect())
}

/// `36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue` (proc_pid_mountinfo(5)).
fn parse(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    Some(Mount {
        device: text(fields.get(2)?),
        root: unescaped(fields.get(3)?),
        at: unescaped(fields.get(4)?),
        options: text(fields.get(5)?),
        kind: text(fields.get(dash + 1)?),
        source: text(fields.get(dash + 2)?),
    })
}

/// Blanks, tabs, newlines and backslashes are written as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, others)) = rest.split_first() {
        let octal = others.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[3..];
            }
            None => {
                bytes.push(first);
                rest = others;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// By the file system's own count.
fn in_use(place: &OwnedFd) -> io::Result<u64> {
    let stat = rustix::fs::fstatvfs(place)?;
    Ok((stat.f_blocks.saturating_sub(stat.f_bfree)).saturating_mul(stat.f_frsize))
}

/// The blocks of every file below a folder, or of a file; `None` for more than `most` files.
pub(crate) fn held(place: &OwnedFd, most: usize) -> io::Result<Option<u64>> {
    let top = rustix::fs::fstat(place)?;
    let mut total = top.st_blocks as u64 * BLOCK;
    if FileType::from_raw_mode(top.st_mode) != FileType::Directory {
        return Ok(Some(total));
    }
    // Of a file with several names the blocks are there once.
    let mut linked = HashSet::new();
    let mut seen = 0;
    let mut folders = vec![PathBuf::from(".")];
    while let Some(path) = folders.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let folder = match rustix::fs::openat2(place, &path, flags, Mode::empty(), resolve) {
            Ok(folder) => folder,
            // Gone or changed meanwhile, or another's mount.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => continue,
            // Deeper than a path can say, or closed to whoever asks: how much is there is not known.
            Err(Errno::NAMETOOLONG | Errno::ACCESS) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            seen += 1;
            if seen > most {
                return Ok(None);
            }
            let Ok(stat) = rustix::fs::statat(folder.as_fd(), entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if is_folder {
                folders.push(path.join(OsStr::from_bytes(name)));
            }
            if is_folder || stat.st_nlink < 2 || linked.insert((stat.st_dev, stat.st_ino)) {
                total += stat.st_blocks as u64 * BLOCK;
            }
        }
    }
    Ok(Some(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &Path) -> OwnedFd {
        rustix::fs::open(folder, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn lines_of_the_kernels_table_are_read_whatever_their_names() {
        let line = br"97 80 0:55 /a\040b /mnt/x\011\134y rw,nosuid shared:1 master:2 - ext4 /dev/loop3 rw";
        let mount = parse(line).unwrap();
        assert_eq!((mount.root.to_str(), mount.at.to_str()), (Some("/a b"), Some("/mnt/x\t\\y")));
        assert!(mount.stores() && !mount.is_its_own(), "a part of an image is gone through");
        assert!(parse(b"97 80 0:55 / /proc rw - proc proc rw").is_some_and(|mount| !mount.stores()));
        assert!(parse(b"97 80 0:55 / /app ro,nosuid - ext4 /dev/sda1 rw").is_some_and(|mount| !mount.stores()));
        assert!(parse(b"").is_none() && parse(b"1 2 3").is_none());
        assert!(!mounts(std::process::id()).unwrap().is_empty());
    }

    #[test]
    fn blocks_are_counted_once_and_links_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let empty = held(&place(folder.path()), 100).unwrap().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/big"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(folder.path().join("sub/big"), folder.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/usr", folder.path().join("link")).unwrap();
        let used = held(&place(folder.path()), 100).unwrap().unwrap() - empty;
        assert!(((1 << 20)..(1 << 20) + 64 * 1024).contains(&used), "{used}");
        // Holes hold nothing.
        fs::File::create(folder.path().join("hole")).unwrap().set_len(1 << 40).unwrap();
        assert!(held(&place(folder.path()), 100).unwrap().unwrap() - empty < used + 64 * 1024);
    }

    #[test]
    fn what_is_too_much_to_go_through_is_not_told() {
        let folder = tempfile::tempdir().unwrap();
        for n in 0..10 {
            fs::write(folder.path().join(n.to_string()), "").unwrap();
        }
        assert!(held(&place(folder.path()), 10).unwrap().is_some());
        assert_eq!(held(&place(folder.path()), 9).unwrap(), None);
    }
}
