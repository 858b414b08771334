//! Landlock: rules that a process sets itself about where files may be changed. See landlock(7).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::check;

/// Ask for the version instead of a ruleset.
const VERSION: libc::c_uint = 1;
/// The rule is about what lies beneath a file or folder.
const PATH_BENEATH: libc::c_int = 1;

/// The kernel's `struct landlock_ruleset_attr`, first version.
#[repr(C)]
struct Ruleset {
    handled: u64,
}

/// The kernel's `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// The version of the kernel's rules; an error where it has none, or has them switched off.
pub(crate) fn version() -> io::Result<u32> {
    // SAFETY: with this flag the kernel takes neither pointer nor size.
    let version = check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, ptr::null::<u8>(), 0, VERSION) })?;
    Ok(version as u32)
}

/// A set of rules about these rights: what no rule allows is forbidden, once the rules hold.
pub(crate) fn ruleset(handled: u64) -> io::Result<OwnedFd> {
    let attributes = Ruleset { handled };
    let (at, size) = (&raw const attributes, size_of::<Ruleset>());
    // SAFETY: `attributes` is a live structure of the size given.
    let fd = check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, at, size, 0) })?;
    // SAFETY: the kernel has just opened it for us and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Allows rights on a file, or on a folder and all beneath it.
pub(crate) fn allow(ruleset: BorrowedFd<'_>, parent: BorrowedFd<'_>, allowed: u64) -> io::Result<()> {
    let rule = PathBeneath { allowed, parent: parent.as_raw_fd() };
    let at = &raw const rule;
    // SAFETY: `rule` is a live structure of the kind named.
    check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), PATH_BENEATH, at, 0) })?;
    Ok(())
}

/// From here on the rules hold for this process and all it starts. Needs `no_new_privs`.
pub(crate) fn restrict(ruleset: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })?;
    Ok(())
}
