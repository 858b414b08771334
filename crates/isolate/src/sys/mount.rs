//! Attributes of mounts.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

pub(crate) const READ_ONLY: u64 = 0x1;
pub(crate) const NO_SUID: u64 = 0x2;
pub(crate) const NO_DEV: u64 = 0x4;
pub(crate) const NO_EXEC: u64 = 0x8;
const ID_MAP: u64 = 0x0010_0000;

/// How far attributes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    ThisMount,
    WholeTree,
}

/// The kernel's `struct mount_attr`, first version.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// What becomes of a mount. `propagation` is one of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Change<'a> {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
    /// For a mount that is not attached yet: the user namespace through which its files' owners are seen.
    pub(crate) owners: Option<BorrowedFd<'a>>,
}

/// Sets attributes on a mount and on those below it. Mounts and unmounts elsewhere reach it no more. With a user
/// namespace, a mount that is not attached yet shows its files' owners through that namespace's mapping.
pub(crate) fn set(
    mount: BorrowedFd<'_>,
    attributes: u64,
    reach: Reach,
    owners: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    change(mount, Change { set: attributes, clear: 0, propagation: libc::MS_PRIVATE, owners }, reach)
}

/// Changes a mount, or all of its tree.
pub(crate) fn change(mount: BorrowedFd<'_>, change: Change<'_>, reach: Reach) -> io::Result<()> {
    let id_map = if change.owners.is_some() { ID_MAP } else { 0 };
    let attributes = Attributes {
        set: change.set | id_map,
        clear: change.clear,
        propagation: change.propagation,
        user_namespace: change.owners.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = match reach {
        Reach::ThisMount => libc::AT_EMPTY_PATH,
        Reach::WholeTree => libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
    };
    let size = size_of::<Attributes>();
    let attributes = &raw const attributes;
    // SAFETY: the path is an empty C string and `attributes` a live structure of the size given.
    check(unsafe { libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), c"".as_ptr(), flags, attributes, size) })?;
    Ok(())
}
