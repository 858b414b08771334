//! Giving privileges up for good.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::thread::{CapabilitySet, CapabilitySets};

use super::check;

/// One instruction of a seccomp program, as the kernel takes it.
pub(crate) type Instruction = libc::sock_filter;

/// `SECBIT_NOROOT`, `SECBIT_NO_SETUID_FIXUP` and `SECBIT_NO_CAP_AMBIENT_RAISE`, each with its lock: user id 0 means
/// nothing, neither now nor after an exec.
const SECURE_BITS: libc::c_ulong = 0b1100_1111;

/// The same for a process that keeps some capabilities, but for `SECBIT_NO_SETUID_FIXUP`: when it becomes somebody else, it
/// gives them up, as programs expect.
const KEEPING_BITS: libc::c_ulong = 0b1100_0011;

/// The kernel refuses numbers it does not know; capabilities end below this one.
const CAPABILITIES_MAX: libc::c_ulong = 64;

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<libc::c_long> {
    // SAFETY: the options used here take integers, no pointers.
    check(unsafe { libc::prctl(option, argument, 0, 0, 0) }.into())
}

/// Sees to it that no exec and no change of ids grants anything but the capabilities of these numbers. What this process
/// may do itself it still may.
pub(crate) fn close_ways_back(keep: &[u32]) -> io::Result<()> {
    let others = (0..CAPABILITIES_MAX).filter(|number| !keep.iter().any(|kept| u64::from(*kept) == *number));
    for capability in others {
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            other => other?,
        };
    }
    if keep.is_empty() {
        prctl(libc::PR_SET_SECUREBITS, SECURE_BITS)?;
    }
    rustix::thread::clear_ambient_capability_set()?;
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Lets the next change of ids leave the permitted capabilities as they are.
pub(crate) fn keep_capabilities() -> io::Result<()> {
    Ok(rustix::thread::set_keep_capabilities(true)?)
}

/// Gives up every capability but those of these numbers, which programs executed from here on have too. Nothing brings the
/// others back once the ways back are closed.
pub(crate) fn drop_capabilities(keep: &[u32]) -> io::Result<()> {
    let none = CapabilitySet::empty();
    let set = |effective, inheritable| {
        rustix::thread::set_capabilities(None, CapabilitySets { effective, permitted: effective, inheritable })
    };
    if keep.is_empty() {
        return Ok(set(none, none)?);
    }
    let kept = keep.iter().fold(none, |kept, number| kept | CapabilitySet::from_bits_retain(1 << number));
    // The bits below are set by whoever may; it is gone with the last line.
    set(kept | CapabilitySet::SETPCAP, kept)?;
    for number in keep {
        ambient(*number)?;
    }
    prctl(libc::PR_SET_SECUREBITS, KEEPING_BITS)?;
    Ok(set(kept, kept)?)
}

fn ambient(capability: u32) -> io::Result<()> {
    // SAFETY: the option takes integers, no pointers.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) }.into())?;
    Ok(())
}

/// Filters every system call from here on. Needs `close_ways_back` before.
pub(crate) fn filter_calls(program: &[Instruction]) -> io::Result<()> {
    filter_calls_with(program, 0).map(drop)
}

/// The same with flags (`SECCOMP_FILTER_FLAG_…`). With the one that asks for it the result is a descriptor of the
/// calls that wait for somebody's verdict. Needs either no new privileges or the right to administrate.
pub(crate) fn filter_calls_with(program: &[Instruction], flags: u32) -> io::Result<Option<OwnedFd>> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the kernel copies `len` instructions from the live slice and checks them; it does not write to them.
    let result = check(unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) })?;
    let asked = u64::from(flags) & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0;
    // SAFETY: with that flag the result is a descriptor that is new and ours alone.
    Ok(asked.then(|| unsafe { OwnedFd::from_raw_fd(result as i32) }))
}

/// Leaves the session of keys one was started in for a new one without a name.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    /// `KEYCTL_JOIN_SESSION_KEYRING`.
    const JOIN: libc::c_int = 1;
    // SAFETY: a null name asks for a new keyring; nothing is read or written.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN, std::ptr::null::<libc::c_char>()) })?;
    Ok(())
}
