//! Secrets on their way into a star: files of a memory file system that is never swapped, each mounted by itself.
//!
//! The file system is a ramfs. It knows no bounds, so no star may ever write to it: files are put there by the nursery, and
//! mounted read-only.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags};

use crate::private::Private;
use crate::root::{attach, detached};
use crate::sys;

/// Attached where the nursery can reach it; dropped, what was mounted of it elsewhere stays.
pub(crate) struct Vault {
    folder: PathBuf,
}

impl Vault {
    /// Lays contents down as files for one owner. `workshop` is a folder in which things may be mounted for a moment.
    pub(crate) fn open(workshop: &Path, contents: &[Private], owner: Option<(u32, u32)>) -> io::Result<Self> {
        let folder = workshop.join("vault");
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        let context = rustix::mount::fsopen("ramfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(context.as_fd(), "mode", "0700")?;
        rustix::mount::fsconfig_create(context.as_fd())?;
        let attributes =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        attach(&mount, &folder)?;
        // From here on dropping it takes the mount away.
        let vault = Self { folder };
        for (number, content) in contents.iter().enumerate() {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&mount, number.to_string(), flags, Mode::RUSR)?;
            if let Some((uid, gid)) = owner {
                rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            }
            let mut rest = content.bytes();
            while !rest.is_empty() {
                rest = &rest[rustix::io::write(&file, rest)?..];
            }
        }
        Ok(vault)
    }

    /// A mount of one file, not attached anywhere.
    pub(crate) fn file(&self, number: usize) -> io::Result<OwnedFd> {
        let attributes = sys::mount::READ_ONLY | sys::mount::NO_SUID | sys::mount::NO_DEV | sys::mount::NO_EXEC;
        detached(&self.folder.join(number.to_string()), attributes, None)
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.folder, UnmountFlags::DETACH);
    }
}
