//! How the kernel shares out processor and disk to this process, and which system it plays.

use std::io;

use super::check;

/// The kernel's `struct sched_attr`, first version.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct SchedulerAttributes {
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

/// Sets how this thread is scheduled.
pub(crate) fn set_scheduler(mut attributes: SchedulerAttributes) -> io::Result<()> {
    attributes.size = size_of::<SchedulerAttributes>() as u32;
    // SAFETY: the kernel reads as many bytes of the live structure as its first field says.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })?;
    Ok(())
}

/// Sets the class and level of this process's disk accesses, as the kernel packs them.
pub(crate) fn set_io_priority(priority: u16) -> io::Result<()> {
    /// `IOPRIO_WHO_PROCESS`.
    const PROCESS: libc::c_int = 1;
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, 0, libc::c_int::from(priority)) })?;
    Ok(())
}

/// Sets the execution domain (`PER_…`).
pub(crate) fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: takes an integer only.
    check(unsafe { libc::personality(domain.into()) }.into())?;
    Ok(())
}
