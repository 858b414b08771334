//! A root of the star's own: a read-only folder of the host below, a writable layer above, in memory or on the star's disk.
//!
//! Files in the folder belong to whoever runs the nursery and are seen as the star's root's. What the star changes lies in
//! the upper layer, which is as large as the star's memory or its disk at most, and is gone with the star. The folder's content is a
//! stranger's: wherever something of ours goes, what is there is looked at first, and no link is followed.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, UnmountFlags};

use crate::fault::Because;
use crate::points::{self, Point, Tree};
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
    /// Where the order's mounts go.
    pub(crate) points: &'a [Point],
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
                    points::give(memory.as_fd(), name, self.owner)?;
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
        let tree = Tree { root, owner: self.owner, whose: " of its root file system" };
        FOLDERS.iter().try_for_each(|name| tree.folder(name))?;
        for point in self.points {
            // The bundle's own folders; see `start`.
            match point.path.split('/').next() {
                Some("app") => {}
                _ => tree.make(point)?,
            }
        }
        for name in ETC_FILES {
            replace_link(&tree, &format!("etc/{name}")).because(|| format!("cannot make `/etc/{name}`"))?;
        }
        Ok(())
    }
}

/// A file that is no link, in a folder that is known to be none.
fn replace_link(tree: &Tree<'_>, path: &str) -> io::Result<()> {
    match points::kind(tree.root, path)? {
        Some(FileType::RegularFile) => return Ok(()),
        Some(FileType::Directory) => return Err(io::ErrorKind::IsADirectory.into()),
        Some(_) => rustix::fs::unlinkat(tree.root, path, AtFlags::empty())?,
        None => {}
    }
    tree.create(path)
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
