//! Paths below a container's root, whoever arranged what is there: no link leads out, and no `..` does.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use crate::fault::plain;

/// Most links that are followed for one path, as the kernel has it.
const LINKS_MAX: usize = 40;

/// A root, by descriptor.
#[derive(Debug)]
pub(super) struct Tree(pub(super) OwnedFd);

impl Tree {
    pub(super) fn open_root(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// What is at a path, the last part followed unless the flags say otherwise.
    pub(super) fn open(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = match path.trim_start_matches('/') {
            "" => ".",
            path => path,
        };
        loop {
            match rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // Something was renamed meanwhile somewhere in the system.
                Err(Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
    }

    pub(super) fn find(&self, path: &str) -> io::Result<OwnedFd> {
        self.open(path, OFlags::PATH)
    }

    /// A folder, made with all above it if it is not there.
    pub(super) fn folder(&self, path: &str, mode: u32) -> io::Result<OwnedFd> {
        self.ensure(&parts(path), mode, 0)
    }

    /// A file or folder to mount on: an empty one is made if there is none.
    pub(super) fn place(&self, path: &str, folder: bool) -> io::Result<OwnedFd> {
        match self.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        if folder {
            return self.folder(path, 0o755);
        }
        let (above, name) = self.above(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&above, &*name, flags, Mode::from_raw_mode(0o644)) {
            Ok(_) => self.find(path),
            // A link that leads nowhere yet.
            Err(Errno::LOOP) => {
                let target = rustix::fs::readlinkat(&above, &*name, Vec::new())?;
                let target = target.to_str().map_err(|_| Errno::ILSEQ)?;
                let at = match target.starts_with('/') {
                    true => target.to_owned(),
                    false => format!("{}/{target}", path.rsplit_once('/').map_or("", |(above, _)| above)),
                };
                let (above, name) = self.above(&at)?;
                rustix::fs::openat(&above, &*name, flags, Mode::from_raw_mode(0o644))?;
                self.find(path)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The folder that holds a path's last part, made if need be, and that part.
    pub(super) fn above(&self, path: &str) -> io::Result<(OwnedFd, String)> {
        let mut parts = parts(path);
        let name = parts.pop().ok_or_else(|| io::Error::other("is the root itself"))?;
        Ok((self.ensure(&parts, 0o755, 0)?, name))
    }

    fn ensure(&self, parts: &[String], mode: u32, links: usize) -> io::Result<OwnedFd> {
        let folder = OFlags::PATH | OFlags::DIRECTORY;
        let whole = parts.join("/");
        match self.open(&whole, folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !parts.is_empty() => {}
            other => return other,
        }
        let (name, above) = parts.split_last().expect("not empty");
        let parent = self.ensure(above, mode, links)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        match self.open(&whole, folder) {
            // It is there and leads nowhere: a link whose target is to be made.
            Err(error) if error.kind() == io::ErrorKind::NotFound && links < LINKS_MAX => {
                let target = rustix::fs::readlinkat(&parent, name, Vec::new())?;
                let target = target.to_str().map_err(|_| Errno::ILSEQ)?;
                let target = match target.starts_with('/') {
                    true => self::parts(target),
                    false => self::parts(&format!("{}/{target}", above.join("/"))),
                };
                self.ensure(&target, mode, links + 1)?;
                self.open(&whole, folder)
            }
            other => other,
        }
    }
}

/// The parts of a path, with `..` taken as where it leads if nothing on the way is a link. It never leads out.
fn parts(path: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part.to_owned()),
        }
    }
    parts
}

pub(super) fn is_folder(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}

/// This process's own `/proc`, kept open while the files are changed: by it what a descriptor stands for has a path.
#[derive(Debug)]
pub(super) struct Proc(OwnedFd);

impl Proc {
    /// The one this process sees, if it is one.
    pub(super) fn open() -> Result<Self, String> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = || -> io::Result<OwnedFd> {
            let fd = rustix::fs::open("/proc", flags, Mode::empty())?;
            match is_proc(fd.as_fd())? {
                true => Ok(fd),
                false => Err(io::Error::other("no process file system is mounted there")),
            }
        };
        open().map(Self).map_err(|error| format!("cannot use `/proc`: {}", plain(&error)))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// A file of it to write to. What is mounted over parts of it is not seen.
    pub(super) fn write(&self, path: &str, value: &str) -> io::Result<()> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve)?;
        rustix::io::write(&file, value.as_bytes())?;
        Ok(())
    }

    /// A path by which the kernel finds what a descriptor of this process stands for, while `self` is the folder one is
    /// in or `/proc` is where it was.
    pub(super) fn path_of(fd: BorrowedFd<'_>) -> String {
        format!("/proc/self/fd/{}", fd.as_raw_fd())
    }
}

/// Whether it lies on a process file system.
pub(super) fn is_proc(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(fd)?.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

/// The path at which the mount lies that holds `path`.
pub(super) fn mount_point(path: &Path) -> io::Result<PathBuf> {
    let is_root = |path: &Path| -> io::Result<bool> {
        let stat = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)?;
        Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    };
    let mut at = path;
    while !is_root(at)? {
        at = at.parent().ok_or(Errno::NOENT)?;
    }
    Ok(at.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        let tree = Tree::open_root(&dir.path().join("root")).unwrap();
        (dir, tree)
    }

    #[test]
    fn nothing_is_made_outside_the_root() {
        let (dir, tree) = tree();
        let root = dir.path().join("root");
        symlink("../../..", root.join("up")).unwrap();
        symlink("/etc", root.join("absolute")).unwrap();
        symlink("/gone/deep", root.join("dangling")).unwrap();
        for (path, made) in [
            ("/../../a/b", "a/b"),
            ("/up/c", "c"),
            ("/absolute/d", "etc/d"),
            ("/dangling/e", "gone/deep/e"),
            ("/x/../f", "f"),
        ] {
            tree.folder(path, 0o755).unwrap();
            assert!(root.join(made).is_dir(), "{path}");
        }
        symlink("/somewhere/file", root.join("to-file")).unwrap();
        tree.place("/to-file", false).unwrap();
        assert!(root.join("somewhere/file").is_file());
        let outside: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(outside, ["root"]);
    }

    #[test]
    fn a_link_to_itself_is_an_error_and_not_a_loop() {
        let (dir, tree) = tree();
        symlink("loop", dir.path().join("root/loop")).unwrap();
        assert!(tree.folder("/loop/x", 0o755).is_err());
        assert!(tree.place("/loop", false).is_err());
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let (dir, tree) = tree();
        fs::write(dir.path().join("root/file"), "").unwrap();
        assert!(tree.folder("/file/x", 0o755).is_err());
        assert!(tree.place("/file", true).is_ok(), "what is there is used");
    }
}
