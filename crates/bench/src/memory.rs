//! What processes hold of the machine's memory, as the kernel tells it.

use std::fs;

/// Memory of one process, in bytes, from `/proc/PID/smaps_rollup`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mapped {
    /// Its proportional share: private pages and its part of shared ones.
    pub(crate) pss: u64,
    /// Pages it alone has written: these are also charged to its cgroup.
    pub(crate) private_dirty: u64,
}

pub(crate) fn mapped(pid: u32) -> Result<Mapped, String> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    Ok(Mapped { pss: field(&text, "Pss:"), private_dirty: field(&text, "Private_Dirty:") })
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    Ok(field(&text, "VmRSS:"))
}

/// The most a process ever had resident, in bytes.
pub(crate) fn peak(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    Ok(field(&text, "VmHWM:"))
}

/// Processor time of a process so far, user and system, in clock ticks of 10 ms.
pub(crate) fn cpu_ticks(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    // Fields 14 and 15 of the file; the first after the name is field 3.
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    Ok(ticks.sum())
}

/// The value of a line `Name:   123 kB`, in bytes.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|value| value.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}
