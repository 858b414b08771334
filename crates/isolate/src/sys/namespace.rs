//! Entering and leaving namespaces.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::thread::UnshareFlags;

use super::check;

/// `ioctl(NS_GET_PARENT)`: the namespace around this one.
const NS_GET_PARENT: libc::c_ulong = 0xb702;

/// Leaves namespaces for new ones.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: only a private descriptor table can confuse other threads, and it is not asked for.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// The user or process namespace around the one given.
pub(crate) fn parent(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the request takes no argument and returns a new descriptor.
    let fd = check(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_PARENT) }.into())?;
    // SAFETY: the descriptor is new and ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
