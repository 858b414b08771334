//! Terminals of a star: a `devpts` of its own, in which its programs and those of `exec` open their pairs.
//!
//! Whoever works at a terminal from outside is handed its near side by a socket; the far side never leaves the star.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pty::OpenptFlags;

use crate::fault::Because;
use crate::packet;
use crate::record::Stance;

/// Most pairs of one star: the kernel has some thousands for everybody (`/proc/sys/kernel/pty/max`).
const PAIRS_MAX: &str = "64";
/// The group that terminals belong to on every Linux.
const TTY_GROUP: &str = "5";
/// `DEVPTS_SUPER_MAGIC`.
const DEVPTS: i64 = 0x1cd1;

/// Mounts the star's own `/dev/pts`, as its root: those who open pairs must have their ids. In a namespace of one id there is no
/// group to give terminals to, and they are for that one alone.
pub(crate) fn mount(has_groups: bool) -> Result<(), String> {
    let make = || -> io::Result<()> {
        let context = rustix::mount::fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let set = |key: &str, value: &str| rustix::mount::fsconfig_set_string(context.as_fd(), key, value);
        set("ptmxmode", "0666")?;
        set("max", PAIRS_MAX)?;
        if has_groups {
            set("gid", TTY_GROUP)?;
        }
        set("mode", if has_groups { "0620" } else { "0600" })?;
        rustix::mount::fsconfig_create(context.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        Ok(rustix::mount::move_mount(mount, "", CWD, "/dev/pts", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
    };
    make().because(|| "cannot mount `/dev/pts`".to_owned())
}

/// Within the star: opens a pair, hands the near side over and gives the far one.
pub(crate) fn open(socket: BorrowedFd<'_>, stance: &Stance) -> Result<OwnedFd, String> {
    let failed = || "cannot open a terminal in the star".to_owned();
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let near =
        rustix::fs::openat2(CWD, "/dev/pts/ptmx", flags, Mode::empty(), resolve).map_err(|error| match error {
            rustix::io::Errno::NOENT => {
                "it was started by an earlier version and has no terminals: restart it, or leave the terminal out"
                    .to_owned()
            }
            error => format!("{}: {}", failed(), crate::fault::plain(&error.into())),
        })?;
    if rustix::fs::fstatfs(&near).because(failed)?.f_type as i64 != DEVPTS {
        return Err("what is at `/dev/pts` in the star is no terminal".to_owned());
    }
    rustix::pty::unlockpt(&near).because(failed)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let far = rustix::pty::ioctl_tiocgptpeer(&near, flags).because(failed)?;
    if let Some(user) = stance.user {
        // Who works at it may open it again by its name.
        rustix::fs::fchown(&far, Some(rustix::fs::Uid::from_raw(user.uid)), None).because(failed)?;
    }
    packet::send(socket, &(), &[near.as_fd()]).because(failed)?;
    Ok(far)
}

/// A socket by which the near side of a terminal comes, and the end to send along with a command that is to have one.
pub fn socket() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// The near side. `WouldBlock` until it is there, `UnexpectedEof` when none will come.
pub fn take(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let ((), mut fds) = packet::receive::<()>(socket)?;
    fds.pop().ok_or_else(|| io::Error::other("the terminal did not come along"))
}
