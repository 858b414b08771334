//! Signals: blocked and read as data, never handled in between.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::check;

/// A set of all signals that can be blocked.
fn all() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigfillset initialises the whole set it is given.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn none() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the whole set it is given.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn set_mask(set: &libc::sigset_t) {
    // SAFETY: reads a live set; with a valid `how` this cannot fail.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, set, ptr::null_mut()) };
}

/// Holds every signal back from this thread until it is waited for.
pub(crate) fn block_all() {
    set_mask(&all());
}

/// Default dispositions and an empty mask, as a program expects them when it begins.
pub(crate) fn reset() {
    default_all();
    unblock_all();
}

/// What a signal does by default it does again, unless it is blocked.
pub(crate) fn default_all() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL needs no handler to stay alive. Numbers that cannot be changed are refused by the kernel.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

pub(crate) fn unblock_all() {
    set_mask(&none());
}

pub(crate) fn ignore(signal: i32) {
    // SAFETY: SIG_IGN needs no handler to stay alive.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Waits for any signal and takes it. All signals must be blocked.
pub(crate) fn wait() -> io::Result<i32> {
    let set = all();
    // SAFETY: reads a live set; no information beyond the number is asked for.
    Ok(check(unsafe { libc::sigwaitinfo(&raw const set, ptr::null_mut()) }.into())? as i32)
}

/// Blocked signals, one by one, as a descriptor that can be polled.
#[derive(Debug)]
pub(crate) struct SignalFd(OwnedFd);

impl SignalFd {
    pub(crate) fn new() -> io::Result<Self> {
        let set = all();
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: reads a live set and returns a new descriptor.
        let fd = check(unsafe { libc::signalfd(-1, &raw const set, flags) }.into())?;
        // SAFETY: the descriptor is new and ours alone.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// The next pending signal, if one is.
    pub(crate) fn next(&self) -> Option<i32> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        let length = rustix::io::read(&self.0, &mut info).ok()?;
        // The signal's number is the structure's first field, 32 bits wide.
        (length == info.len()).then(|| i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends any signal, real-time ones included, to the process a pidfd stands for.
pub(crate) fn send(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info = ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed: the kernel fills one in.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) })?;
    Ok(())
}

/// Sends a signal to a process of this namespace, or to every other one with -1.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::kill(pid, signal) }.into())?;
    Ok(())
}
