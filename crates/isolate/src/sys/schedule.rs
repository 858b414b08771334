//! How the kernel shares out processor and disk to this process, and which system it plays.

use std::io;

use super::check;

/// The kernel's `struct sched_attr`, first version.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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

/// This thread, by the number that the calls below take.
pub(crate) const SELF: u32 = 0;

/// How a thread is scheduled.
pub(crate) fn scheduler(thread: u32) -> io::Result<SchedulerAttributes> {
    let mut attributes = SchedulerAttributes::default();
    let size = size_of::<SchedulerAttributes>();
    // SAFETY: the kernel writes at most as many bytes to the live structure as it is told.
    check(unsafe { libc::syscall(libc::SYS_sched_getattr, thread, &raw mut attributes, size, 0) })?;
    Ok(attributes)
}

/// Sets how a thread is scheduled.
pub(crate) fn set_scheduler(thread: u32, mut attributes: SchedulerAttributes) -> io::Result<()> {
    attributes.size = size_of::<SchedulerAttributes>() as u32;
    // SAFETY: the kernel reads as many bytes of the live structure as its first field says.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, thread, &raw const attributes, 0) })?;
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

/// As many nodes as any kernel is built for (`MAX_NUMNODES`).
pub(crate) const NODES_MAX: usize = 1024;

/// Sets from which nodes this thread's memory is taken. Nodes the kernel cannot have are an error.
pub(crate) fn set_memory_policy(mode: u32, nodes: &[usize]) -> io::Result<()> {
    let mut mask = [0u64; NODES_MAX / 64];
    for &node in nodes {
        *mask.get_mut(node / 64).ok_or(io::ErrorKind::InvalidInput)? |= 1 << (node % 64);
    }
    // The kernel takes one bit less than it is told.
    let (mask, bits) = if nodes.is_empty() { (std::ptr::null(), 0) } else { (mask.as_ptr(), NODES_MAX + 1) };
    // SAFETY: the mask is live and has as many bits as are told, or there is none.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) })?;
    Ok(())
}

/// Sets the execution domain (`PER_…`).
pub(crate) fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: takes an integer only.
    check(unsafe { libc::personality(domain.into()) }.into())?;
    Ok(())
}
