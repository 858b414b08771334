//! Giving privileges up for good.

use std::io;

use super::check;

/// One instruction of a seccomp program, as the kernel takes it.
pub(crate) type Instruction = libc::sock_filter;

/// `SECBIT_NOROOT`, `SECBIT_NO_SETUID_FIXUP` and `SECBIT_NO_CAP_AMBIENT_RAISE`, each with its lock: user id 0 means
/// nothing, neither now nor after an exec.
const SECURE_BITS: libc::c_ulong = 0b1100_1111;

/// The kernel refuses numbers it does not know; capabilities end below this one.
const CAPABILITIES_MAX: libc::c_ulong = 64;

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<libc::c_long> {
    // SAFETY: the options used here take integers, no pointers.
    check(unsafe { libc::prctl(option, argument, 0, 0, 0) }.into())
}

/// Sees to it that no exec and no change of ids grants anything. What this process may do itself it still may.
pub(crate) fn close_ways_back() -> io::Result<()> {
    for capability in 0..CAPABILITIES_MAX {
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            other => other?,
        };
    }
    prctl(libc::PR_SET_SECUREBITS, SECURE_BITS)?;
    rustix::thread::clear_ambient_capability_set()?;
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Gives up every capability. Nothing brings them back once the ways back are closed.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    let none = rustix::thread::CapabilitySet::empty();
    let sets = rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Filters every system call from here on. Needs `close_ways_back` before.
pub(crate) fn filter_calls(program: &[Instruction]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `len` instructions from the live slice and checks them; it does not write to them.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })?;
    Ok(())
}
