//! What a star sees as `/`: a read-only tree made once and cloned for every star.
//!
//! The nursery lives in a mount namespace of its own, so nothing mounted here is seen on the host, and all of it is
//! gone with the nursery. In a folder of it, the stage, it builds trees: a small tmpfs with the host's programs and
//! libraries, a few files of `/etc`, the harmless devices, and empty folders where a star's own mounts go. A star gets a
//! clone, which shares the tmpfs and costs no memory. Trees differ only in where volumes go; stars of one
//! service share one.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::fault::{Because, Doing, Fault};
use crate::points::{Point, Tree};
use crate::sys;
use crate::sys::mount::Reach;

/// Trees kept; the one not used for longest makes room. Each holds about 150 KB.
const TREES_MAX: usize = 16;
/// Room of one tree: `/etc` of a star, of which `ld.so.cache` is most.
const TREE_SIZE: &str = "4m";

/// Where programs and libraries are. What is a link on the host is the same link in a star.
const PROGRAMS: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Files of `/etc` that hold no secrets and that libraries look for.
const ETC_FILES: [&str; 8] =
    ["ld.so.cache", "localtime", "timezone", "protocols", "services", "mime.types", "gai.conf", "host.conf"];
/// Folders of `/etc` seen as they are: roots of trust and the links of Debian's alternatives.
const ETC_FOLDERS: [&str; 4] = ["ssl/certs", "ca-certificates", "pki/tls/certs", "alternatives"];
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// Whichever terminal a process works at; machines without any lack it.
const TERMINAL: Option<&str> = Some("tty");
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// Files that differ from star to star lie in its own `/run`.
const ETC_LINKS: [(&str, &str); 4] = [
    ("hostname", "/run/hostname"),
    ("hosts", "/run/hosts"),
    ("resolv.conf", "/run/resolv.conf"),
    ("mtab", "/proc/self/mounts"),
];
const FOLDERS: [&str; 13] =
    ["etc", "dev", "dev/shm", "dev/pts", "proc", "sys", "app", "tmp", "run", "var", "var/empty", "mnt", "home"];
const ETC_TEXTS: [(&str, &str); 3] = [
    ("passwd", "root:x:0:0:root:/app:/bin/sh\nnobody:x:65534:65534:nobody:/var/empty:/usr/sbin/nologin\n"),
    ("group", "root:x:0:\nnogroup:x:65534:\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
];

/// The trees, each at a folder of the stage.
#[derive(Debug)]
pub(crate) struct Stage {
    folder: PathBuf,
    /// The namespace all this is in.
    own: OwnedFd,
    /// A namespace with nothing in it but /proc. Stars are born there: a copy of it costs little, however many mounts
    /// the host has.
    bare: OwnedFd,
    /// Where mounts go, and the tree's number; the one used last comes last.
    trees: Vec<(Vec<Point>, u64)>,
    next: u64,
}

impl Stage {
    /// Leaves the host's mount namespace and sets the stage up at `folder`. What the host mounts later is still seen.
    pub(crate) fn set_up(folder: PathBuf) -> Result<Self, Fault> {
        sys::namespace::unshare(rustix::thread::UnshareFlags::NEWNS)
            .doing(|| "cannot make a mount namespace for the nursery".to_owned())?;
        rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
            .doing(|| "cannot leave the host's mounts".to_owned())?;
        Self::set_up_here(folder)
    }

    /// Sets the stage up anew in place of the one that the program before this one had in the same namespace.
    pub(crate) fn set_up_again(folder: PathBuf) -> Result<Self, Fault> {
        // Clones that stars have go on.
        rustix::mount::unmount(&folder, UnmountFlags::DETACH)
            .doing(|| format!("cannot unmount the old stage at `{}`", folder.display()))?;
        Self::set_up_here(folder)
    }

    fn set_up_here(folder: PathBuf) -> Result<Self, Fault> {
        crate::place::make_private(&folder).doing(|| format!("cannot make `{}`", folder.display()))?;
        tmpfs(&[("size", "64k"), ("mode", "0755")])
            .and_then(|mount| attach(&mount, &folder))
            .doing(|| format!("cannot mount a memory file system at `{}`", folder.display()))?;
        let own = here().doing(|| "cannot open the mount namespace".to_owned())?;
        let bare = make_bare().doing(|| "cannot make a bare mount namespace".to_owned())?;
        go_to(&own).doing(|| "cannot return to the mount namespace".to_owned())?;
        Ok(Self { folder, own, bare, trees: Vec::new(), next: 0 })
    }

    /// Clones a process in the bare namespace.
    pub(crate) fn clone_from_bare<T>(&self, clone: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        go_to(&self.bare)?;
        let result = clone();
        go_to(&self.own).expect("a process may always go back to the mounts that belong to it");
        result
    }

    /// A folder in which things may be mounted for a moment.
    pub(crate) fn workshop(&self) -> &Path {
        &self.folder
    }

    /// A clone of the tree with folders at `mount_points`, not attached anywhere. Costs about 20 µs, and 1 ms when
    /// the tree is new.
    pub(crate) fn root(&mut self, mount_points: &[Point]) -> Result<OwnedFd, String> {
        let path = self.tree(mount_points)?;
        clone(&path).because(|| "cannot clone the star's root".to_owned())
    }

    /// A clone of a tree's `/dev`, likewise.
    pub(crate) fn devices(&mut self) -> Result<OwnedFd, String> {
        let path = self.tree(&[])?.join("dev");
        clone(&path).because(|| "cannot clone the star's devices".to_owned())
    }

    /// The folder of a tree, built if need be.
    fn tree(&mut self, mount_points: &[Point]) -> Result<PathBuf, String> {
        let known = self.trees.iter().position(|(points, _)| points == mount_points);
        let tree = match known {
            Some(index) => self.trees.remove(index),
            None => self.build(mount_points)?,
        };
        let path = self.folder.join(tree.1.to_string());
        self.trees.push(tree);
        Ok(path)
    }

    fn build(&mut self, mount_points: &[Point]) -> Result<(Vec<Point>, u64), String> {
        if self.trees.len() >= TREES_MAX {
            let path = self.folder.join(self.trees.remove(0).1.to_string());
            // Clones that stars have go on: only this name for it ends.
            let _ = rustix::mount::unmount(&path, UnmountFlags::DETACH);
            let _ = fs::remove_dir(&path);
        }
        let number = self.next;
        self.next += 1;
        let path = self.folder.join(number.to_string());
        fs::create_dir(&path).and_then(|()| furnish(&path)).because(|| "cannot build a root for stars".to_owned())?;
        let sealed = make_mount_points(&path, mount_points)
            .and_then(|()| seal(&path).because(|| "cannot make the stars' root read-only".to_owned()));
        if let Err(reason) = sealed {
            let _ = rustix::mount::unmount(&path, UnmountFlags::DETACH);
            let _ = fs::remove_dir(&path);
            return Err(reason);
        }
        Ok((mount_points.to_vec(), number))
    }
}

fn clone(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}

fn here() -> io::Result<OwnedFd> {
    Ok(fs::File::open("/proc/thread-self/ns/mnt")?.into())
}

fn go_to(namespace: &OwnedFd) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?)
}

/// Goes into a new namespace that is emptied of everything but /proc, without which the kernel lets no star mount its
/// own.
fn make_bare() -> io::Result<OwnedFd> {
    sys::namespace::unshare(rustix::thread::UnshareFlags::NEWNS)?;
    let bare = here()?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let proc = rustix::mount::open_tree(CWD, "/proc", flags)?;
    let root = tmpfs(&[("size", "16k"), ("mode", "0755")])?;
    rustix::fs::mkdirat(&root, "proc", Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH)?;
    attach(&root, Path::new("/"))?;
    rustix::process::fchdir(&root)?;
    attach(&proc, Path::new("proc"))?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(bare)
}

/// A new tmpfs that is not attached anywhere.
pub(crate) fn tmpfs(options: &[(&str, &str)]) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Changes how many bytes a tmpfs may hold.
pub(crate) fn resize(mount: &OwnedFd, bytes: u64) -> io::Result<()> {
    let context = rustix::mount::fspick(mount, "", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "size", bytes.to_string())?;
    Ok(rustix::mount::fsconfig_reconfigure(context.as_fd())?)
}

pub(crate) fn attach(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    Ok(rustix::mount::move_mount(mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// A detached mount of a host folder or file, with everything mounted below it, and with `attributes`. `owners` is the
/// user namespace through which its files' owners are seen.
pub(crate) fn detached(path: &Path, attributes: u64, owners: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let mount = rustix::mount::open_tree(CWD, path, flags)?;
    sys::mount::set(mount.as_fd(), attributes, Reach::WholeTree, owners)?;
    Ok(mount)
}

fn furnish(root: &Path) -> io::Result<()> {
    let mount = tmpfs(&[("size", TREE_SIZE), ("mode", "0755")])?;
    attach(&mount, root)?;
    for folder in FOLDERS {
        fs::create_dir(root.join(folder))?;
    }
    for name in PROGRAMS {
        let (host, inside) = (Path::new("/").join(name), root.join(name));
        match fs::symlink_metadata(&host) {
            Ok(metadata) if metadata.is_symlink() => symlink(fs::read_link(&host)?, &inside)?,
            Ok(metadata) if metadata.is_dir() => {
                fs::create_dir(&inside)?;
                let attributes = sys::mount::READ_ONLY | sys::mount::NO_SUID | sys::mount::NO_DEV;
                attach(&detached(&host, attributes, None)?, &inside)?;
            }
            _ => {}
        }
    }
    furnish_etc(&root.join("etc"))?;
    let terminal = TERMINAL.filter(|name| Path::new("/dev").join(name).exists());
    for name in DEVICES.into_iter().chain(terminal) {
        let inside = root.join("dev").join(name);
        fs::write(&inside, "")?;
        let attributes = sys::mount::NO_SUID | sys::mount::NO_EXEC;
        attach(&detached(&Path::new("/dev").join(name), attributes, None)?, &inside)?;
    }
    DEVICE_LINKS.iter().try_for_each(|(name, target)| symlink(target, root.join("dev").join(name)))
}

fn furnish_etc(etc: &Path) -> io::Result<()> {
    for (name, text) in ETC_TEXTS {
        fs::write(etc.join(name), text)?;
    }
    for (name, target) in ETC_LINKS {
        symlink(target, etc.join(name))?;
    }
    for name in ETC_FILES {
        // What the host lacks the star lacks.
        if let Ok(content) = fs::read(Path::new("/etc").join(name)) {
            fs::write(etc.join(name), content)?;
        }
    }
    for name in ETC_FOLDERS {
        let host = Path::new("/etc").join(name);
        if host.is_dir() {
            fs::create_dir_all(etc.join(name))?;
            let attributes = sys::mount::READ_ONLY | sys::mount::NO_SUID | sys::mount::NO_DEV | sys::mount::NO_EXEC;
            attach(&detached(&host, attributes, None)?, &etc.join(name))?;
        }
    }
    Ok(())
}

/// Empty folders and files where the order's mounts go. Below `/app` the bundle's own folder is used (see `start`), below the
/// host's programs only what exists.
fn make_mount_points(root: &Path, points: &[Point]) -> Result<(), String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty()).because(|| "cannot open the star's root".to_owned())?;
    let tree = Tree { root: &root, owner: None, whose: "" };
    for point in points {
        let first = point.path.split('/').next().unwrap_or_default();
        if first != "app" && !PROGRAMS.contains(&first) {
            tree.make(point)?;
        }
    }
    Ok(())
}

/// Read-only from here on: the tree's own mount, not those below it, which have their own attributes.
fn seal(root: &Path) -> io::Result<()> {
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    let mount = rustix::mount::open_tree(CWD, root, OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    sys::mount::set(
        mount.as_fd(),
        sys::mount::READ_ONLY | sys::mount::NO_SUID | sys::mount::NO_DEV,
        Reach::ThisMount,
        None,
    )
}
