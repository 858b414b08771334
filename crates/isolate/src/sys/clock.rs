//! What the kernel knows of its clock.

use std::io;

use super::check;

/// Whether something (an NTP or PTP client) keeps the clock right, by the kernel's word (adjtimex(2)).
pub(crate) fn is_synchronised() -> io::Result<bool> {
    // SAFETY: all its fields are integers; with `modes` zero the kernel is asked to change nothing.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a whole `timex` that lives for the call, which the kernel fills.
    let state = check(unsafe { libc::adjtimex(&raw mut timex) }.into())?;
    Ok(state != libc::c_long::from(libc::TIME_ERROR) && timex.status & libc::STA_UNSYNC == 0)
}
