//! Every `unsafe` block of the project: thin wrappers of system calls that `rustix` lacks, safe to call from the
//! rest of this crate. One file per kind of call; none of them decides anything.
#![allow(unsafe_code)]

pub(crate) mod bpf;
pub(crate) mod clock;
pub(crate) mod detach;
pub(crate) mod exec;
pub(crate) mod heap;
pub(crate) mod inherit;
pub(crate) mod landlock;
pub(crate) mod loopback;
pub(crate) mod mount;
pub(crate) mod namespace;
pub(crate) mod net;
pub(crate) mod privilege;
pub(crate) mod process;
pub(crate) mod quota;
pub(crate) mod schedule;
pub(crate) mod signal;
pub(crate) mod title;

use std::io;

/// The result of a system call that says -1 for failure.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
