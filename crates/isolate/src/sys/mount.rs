//! Attributes of mounts that are not attached yet.

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

/// Sets attributes on a mount and on those below it. Mounts and unmounts elsewhere reach it no more. With a user
/// namespace, a mount that is not attached yet shows its files' owners through that namespace's mapping.
pub(crate) fn set(
    mount: BorrowedFd<'_>,
    attributes: u64,
    reach: Reach,
    owners: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let id_map = if owners.is_some() { ID_MAP } else { 0 };
    let attributes = Attributes {
        set: attributes | id_map,
        clear: 0,
        propagation: libc::MS_PRIVATE,
        user_namespace: owners.map_or(0, |fd| fd.as_raw_fd() as u64),
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
