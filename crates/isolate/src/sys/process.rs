//! Making processes that go on in this program, and ending them.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::AssertUnwindSafe;

use rustix::process::{Resource, Rlimit};

use super::check;

/// `CLONE_INTO_CGROUP`; the libc crate's constant of that name is cut to 32 bits.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Exit code of a copy that panicked, as Rust programs have it.
pub(crate) const PANICKED: i32 = 101;

/// A copy of this process in new namespaces (`CLONE_NEW…` flags), born in the version 2 cgroup whose directory is
/// given. The copy, with a copy of all memory and descriptors, does `child` and nothing else. With `CLONE_PARENT` it is
/// the child of this process's parent.
pub(crate) fn clone(
    namespaces: libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> Infallible,
) -> io::Result<(u32, OwnedFd)> {
    clone_with(namespaces, cgroup, None, child)
}

/// A copy of this process that has this number in its process namespace, which must be free. Takes the right to keep and bring
/// back processes in the user namespace that the process namespace belongs to.
pub(crate) fn clone_as(number: u32, child: impl FnOnce() -> Infallible) -> io::Result<(u32, OwnedFd)> {
    clone_with(0, None, Some(number as libc::pid_t), child)
}

fn clone_with(
    namespaces: libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
    number: Option<libc::pid_t>,
    child: impl FnOnce() -> Infallible,
) -> io::Result<(u32, OwnedFd)> {
    let mut pidfd: libc::c_int = -1;
    // The C library keeps the thread's number where the kernel clears it at the thread's end; a plain `clone3` would
    // leave the parent's number there, and with it locks that know their owner by it would err in the child.
    let tid = rustix::thread::get_clear_child_tid_address().ok().flatten();
    let keep_tid = if tid.is_some() { libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID } else { 0 };
    let into_cgroup = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    // SAFETY: `clone_args` is plain integers, for which zero is a valid value of each.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from((namespaces | libc::CLONE_PIDFD | keep_tid) as u32) | into_cgroup;
    args.pidfd = (&raw mut pidfd).addr() as u64;
    args.child_tid = tid.map_or(0, |address| address.as_ptr().addr() as u64);
    // The child of one's parent tells of its end as oneself would.
    args.exit_signal = if namespaces & libc::CLONE_PARENT == 0 { libc::SIGCHLD as u64 } else { 0 };
    args.cgroup = cgroup.map_or(0, |fd| fd.as_raw_fd() as u64);
    args.set_tid = number.as_ref().map_or(0, |number| (&raw const *number).addr() as u64);
    args.set_tid_size = u64::from(number.is_some());
    // SAFETY: without CLONE_VM and CLONE_FILES this is a fork: the child runs on copies of all memory. Callers are
    // single-threaded (`serve` checks it), so no lock is held by a thread that the child lacks. The pointers are to
    // live locals and to this thread's own tid word, which the kernel writes in the child's copy.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        // A panic must not unwind into what the parent was doing: that is the parent's to go on with.
        let Err(_panicked) = std::panic::catch_unwind(AssertUnwindSafe(child));
        exit(PANICKED)
    }
    // SAFETY: the kernel has just opened it for us and nobody else knows of it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((pid as u32, pidfd))
}

/// Ends this process without running anything that was registered for its end: those are the parent's affairs.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: ends the process; takes no pointers.
    unsafe { libc::_exit(code) }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(i32),
    Signal(i32),
}

impl Ended {
    fn from_status(status: libc::c_int) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signal(libc::WTERMSIG(status))
        } else {
            Self::Code(libc::WEXITSTATUS(status))
        }
    }
}

/// Takes any child that has ended; `None` when there is none now. An error when there are no children at all.
pub(crate) fn reap_any() -> io::Result<Option<(u32, Ended)>> {
    let mut status = 0;
    // SAFETY: writes the status to a live local.
    let pid = check(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) }.into())?;
    Ok((pid > 0).then(|| (pid as u32, Ended::from_status(status))))
}

/// What another process may use of a resource.
pub(crate) fn rlimit(pid: u32, resource: Resource) -> io::Result<Rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads the limit into a live local and sets none.
    check(unsafe { libc::prlimit(pid as libc::pid_t, resource as _, std::ptr::null(), &raw mut limit) }.into())?;
    let finite = |value| (value != libc::RLIM_INFINITY).then_some(value);
    Ok(Rlimit { current: finite(limit.rlim_cur), maximum: finite(limit.rlim_max) })
}

/// The descriptors of this process.
pub(crate) fn open_descriptors() -> io::Result<BTreeSet<RawFd>> {
    let listed: Vec<RawFd> =
        fs::read_dir("/proc/self/fd")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    // The one that the list was read through is among them, and closed again.
    Ok(listed.into_iter().filter(|fd| is_open(*fd)).collect())
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: reads a flag of a number that need not be a descriptor.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Closes every descriptor but those listed.
pub(crate) fn close_all_but(keep: &mut [i32]) -> io::Result<()> {
    keep.sort_unstable();
    let mut first = 0;
    for &fd in &*keep {
        if fd > first {
            close_range(first as u32, (fd - 1) as u32)?;
        }
        first = fd + 1;
    }
    close_range(first as u32, u32::MAX)
}

/// Closes a descriptor whose owner is never dropped, because this process ends by `exit`.
pub(crate) fn close(fd: BorrowedFd<'_>) {
    // SAFETY: see `close_range`; the number is not used again.
    unsafe { libc::close(fd.as_raw_fd()) };
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: closes descriptors. The callers are freshly cloned children which from here on use only the ones they
    // keep; owners of the others are never dropped, because the child ends by `exit` or `exec`.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
    Ok(())
}

/// Makes `environment` the whole environment of this process.
pub(crate) fn replace_environment<'a>(environment: impl Iterator<Item = (&'a str, &'a str)>) {
    let old: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
    // SAFETY: the callers are freshly cloned children with a single thread; nobody reads the environment meanwhile.
    unsafe {
        old.iter().for_each(|name| std::env::remove_var(name));
        environment.for_each(|(name, value)| std::env::set_var(name, value));
    }
}
