//! A root of the star's own: a read-only folder of the host below, a writable layer above, in memory or on the star's disk.
//!
//! Files in the folder belong to whoever runs the nursery and are seen as the star's root's. What the star changes lies in
//! the upper layer, which is as large as the star's memory or its disk at most, and is gone with the star. The folder's content is a
//! stranger's: wherever something of ours goes, what is there is looked at first, and no link is followed.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, UnmountFlags};

use crate::fault::Because;
use crate::root::{attach, detached, tmpfs};
use crate::sys;

/// Folders that have to be there for the star's own mounts.
const FOLDERS: [&str; 7] = ["app", "dev", "etc", "proc", "run", "sys", "tmp"];
/// Files that have to be there to be covered by the star's own.
pub(crate) const ETC_FILES: [&str; 3] = ["hostname", "hosts", "resolv.conf"];

/// What a root is made of.
pub(crate) struct Layers<'a> {
    /// The lower layer.
    pub(crate) folder: &'a Path,
    /// Whose files are shown as the star's root's; `None` without privileges, when they are anyway.
    pub(crate) owners: Option<BorrowedFd<'a>>,
    /// The star's root as the host numbers it.
    pub(crate) owner: Option<u32>,
    pub(crate) above: Above<'a>,
    /// Where volumes go.
    pub(crate) points: &'a [&'a str],
}

/// Where the upper layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Above<'a> {
    /// In memory, so many bytes at most.
    Memory(u64),
    /// In a folder that has an empty `upper` and `work`, the star's.
    Folder(&'a Path),
}

impl Layers<'_> {
    /// The root, not attached anywhere. `workshop` is a folder in which things are mounted for a moment; it has to be the
    /// nursery's own.
    pub(crate) fn assemble(&self, workshop: &Path) -> Result<OwnedFd, String> {
        let failed = || "cannot lay the star's files over its root".to_owned();
        let (below, above) = (workshop.join("below"), workshop.join("above"));
        let root = [&below, &above]
            .into_iter()
            .try_for_each(|folder| match fs::create_dir(folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            })
            .and_then(|()| self.mount(&below, &above));
        // The overlay has its own hold on both.
        for folder in [&below, &above] {
            let _ = rustix::mount::unmount(folder, UnmountFlags::DETACH);
        }
        let root = root.because(failed)?;
        self.furnish(&root)?;
        Ok(root)
    }

    fn mount(&self, below: &Path, above: &Path) -> io::Result<OwnedFd> {
        let attributes = sys::mount::READ_ONLY | sys::mount::NO_SUID | sys::mount::NO_DEV;
        attach(&detached(self.folder, attributes, self.owners)?, below)?;
        let above = match self.above {
            Above::Folder(folder) => folder,
            Above::Memory(size) => {
                let (id, size) = (self.owner.unwrap_or(0).to_string(), size.to_string());
                let memory = tmpfs(&[("size", &*size), ("mode", "0755"), ("uid", &*id), ("gid", &*id)])?;
                attach(&memory, above)?;
                for name in ["upper", "work"] {
                    let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
                    rustix::fs::mkdirat(&memory, name, mode)?;
                    self.give(memory.as_fd(), name)?;
                }
                above
            }
        };
        let open = |folder: &Path, name: &str| {
            rustix::fs::open(folder.join(name), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        };
        let layers =
            [("lowerdir", open(below, "")?), ("upperdir", open(above, "upper")?), ("workdir", open(above, "work")?)];
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, layer) in &layers {
            // By descriptor: no name of the host's reaches an option, whatever characters it has.
            let path = format!("/proc/self/fd/{}", layer.as_raw_fd());
            rustix::mount::fsconfig_set_string(context.as_fd(), *key, path)?;
        }
        if self.owner.is_none() {
            // In a user namespace the overlay may not write the attributes it uses otherwise.
            rustix::mount::fsconfig_set_flag(context.as_fd(), "userxattr")?;
        }
        rustix::mount::fsconfig_create(context.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
    }

    /// Makes the places where the star's own mounts go.
    fn furnish(&self, root: &OwnedFd) -> Result<(), String> {
        for name in FOLDERS {
            self.folder(root, name)?;
        }
        for point in self.points {
            let mut path = String::new();
            for part in point.trim_start_matches('/').split('/') {
                path = if path.is_empty() { part.to_owned() } else { format!("{path}/{part}") };
                // The bundle's own folders; see `start`.
                if path == "app" {
                    break;
                }
                self.folder(root, &path)?;
            }
        }
        for name in ETC_FILES {
            self.file(root, &format!("etc/{name}")).because(|| format!("cannot make `/etc/{name}`"))?;
        }
        Ok(())
    }

    /// A folder that is none of links.
    fn folder(&self, root: &OwnedFd, path: &str) -> Result<(), String> {
        let failed = || format!("cannot make `/{path}` in the star's root");
        match kind(root, path).because(failed)? {
            Some(FileType::Directory) => Ok(()),
            Some(_) => Err(format!("`/{path}` of its root file system is no folder")),
            None => {
                let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
                rustix::fs::mkdirat(root, path, mode).because(failed)?;
                self.give(root.as_fd(), path).because(failed)
            }
        }
    }

    /// A file that is no link, in a folder that `folder` made sure of.
    fn file(&self, root: &OwnedFd, path: &str) -> io::Result<()> {
        match kind(root, path)? {
            Some(FileType::RegularFile) => return Ok(()),
            Some(FileType::Directory) => return Err(io::ErrorKind::IsADirectory.into()),
            Some(_) => rustix::fs::unlinkat(root, path, AtFlags::empty())?,
            None => {}
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(root, path, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH)?;
        self.give(root.as_fd(), path)
    }

    fn give(&self, folder: BorrowedFd<'_>, path: &str) -> io::Result<()> {
        let Some(owner) = self.owner else { return Ok(()) };
        let (uid, gid) = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
        Ok(rustix::fs::chownat(folder, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// What is at a path, the last part not followed and none before it a link.
fn kind(root: &OwnedFd, path: &str) -> io::Result<Option<FileType>> {
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

/// Puts a file of the star's `/run` over one of its root's `/etc`, both known to be what they seem.
pub(crate) fn cover_etc(name: &str) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let file = match rustix::mount::open_tree(CWD, format!("run/{name}"), flags) {
        // A star without network has no name servers.
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(&file, "", CWD, format!("etc/{name}"), flags)?)
}
