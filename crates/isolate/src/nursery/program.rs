//! The nursery's own program, which every star of a script is a copy of.
//!
//! Without privileges stars have the user's own id, and the program is as a rule that user's file: through
//! `/proc/self/exe` a star could change it or its mode, and be the host's user outside of its walls when it is run next
//! (CVE-2019-5736 had runc this way). So such a nursery executes itself once more, from a mount of the file alone that is
//! read-only, and the same goes for a program that takes over. With privileges a star's ids own nothing on the host.

use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{WaitId, WaitIdOptions};

use crate::root::detached;
use crate::sys::mount::READ_ONLY;
use crate::{packet, sys};

/// Set for the second life. Stars inherit no variables.
const COVERED: &str = "RADS_NURSERY_COVERED";

/// Begins again from a read-only mount, unless this is that life already. Comes back in the first one only when the file has
/// no name any more: nobody can run it again, so nobody is harmed by what it becomes.
pub(super) fn settle() -> io::Result<()> {
    if std::env::var_os(COVERED).is_some() {
        // Only for people to read: the kernel calls the process by the descriptor it was executed from.
        let _ = rustix::thread::set_name(c"rads");
        return Ok(());
    }
    let covered = match covered_by_another(File::open("/proc/self/exe")?.as_fd()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        covered => covered?,
    };
    let argv = words(std::env::args_os())?;
    let marker = OsString::from(format!("{COVERED}=1"));
    let variables =
        std::env::vars_os().map(|(name, value)| OsString::from_vec([name.as_bytes(), value.as_bytes()].join(&b'=')));
    let environment = words(variables.chain([marker]))?;
    Err(sys::exec::become_program(covered.as_fd(), &argv, &environment))
}

/// Mounts take a user namespace of one's own. A process that lives only for that makes one: what is executed in such a
/// namespace belongs to its root, who is the stars' user, and would show them more of their init than its name.
fn covered_by_another(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let (_, pidfd) = sys::process::clone(libc::CLONE_NEWUSER | libc::CLONE_NEWNS, None, || {
        let told = match cover(program) {
            Ok(mount) => packet::send(theirs.as_fd(), &None::<i32>, &[mount.as_fd()]),
            Err(error) => packet::send(theirs.as_fd(), &Some(error.raw_os_error().unwrap_or(libc::ENOENT)), &[]),
        };
        sys::process::exit(i32::from(told.is_err()))
    })?;
    drop(theirs);
    rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
    let (failed, fds): (Option<i32>, Vec<OwnedFd>) = packet::receive(ours.as_fd())?;
    match (failed, fds.into_iter().next()) {
        (None, Some(mount)) => Ok(mount),
        (failed, _) => Err(io::Error::from_raw_os_error(failed.unwrap_or(libc::EIO))),
    }
}

/// A mount of a program's file alone, through which it cannot be written. `NotFound` when the file has no name.
pub(super) fn cover(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // By its name: the mount that a descriptor was opened through may belong to another namespace.
    let path = fs::read_link(format!("/proc/self/fd/{}", program.as_raw_fd()))?;
    let mount = detached(&path, READ_ONLY, None)?;
    let (meant, found) = (rustix::fs::fstat(program)?, rustix::fs::fstat(&mount)?);
    match (meant.st_dev, meant.st_ino) == (found.st_dev, found.st_ino) {
        true => Ok(mount),
        false => Err(io::Error::new(io::ErrorKind::NotFound, "another file has its name now")),
    }
}

fn words(texts: impl Iterator<Item = OsString>) -> io::Result<Vec<CString>> {
    texts.map(|text| CString::new(text.into_vec()).map_err(io::Error::other)).collect()
}
