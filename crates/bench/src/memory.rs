//! What processes hold of the machine's memory and use of its processors, as the kernel tells it.

use std::fs;
use std::time::Duration;

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

/// The part of it that is its own and not pages of files, in bytes.
pub(crate) fn resident_own(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    Ok(field(&text, "RssAnon:"))
}

/// What a process has used of processors so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) time: Duration,
    /// How often one of its threads was woken after it had waited.
    pub(crate) woken: u64,
}

impl Used {
    pub(crate) fn since(self, before: Self) -> Self {
        Self { time: self.time.saturating_sub(before.time), woken: self.woken.saturating_sub(before.woken) }
    }
}

/// Of the threads it has now.
pub(crate) fn used(pid: u32) -> Result<Used, String> {
    let path = format!("/proc/{pid}/task");
    let threads = fs::read_dir(&path).map_err(|error| format!("{path}: {error}"))?;
    let mut used = Used::default();
    for thread in threads.flatten() {
        // One may have ended meanwhile.
        let (Ok(time), Ok(status)) =
            (fs::read_to_string(thread.path().join("schedstat")), fs::read_to_string(thread.path().join("status")))
        else {
            continue;
        };
        let nanos = time.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default();
        used.time += Duration::from_nanos(nanos);
        let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        used.woken += switches.and_then(|switches| switches.trim().parse::<u64>().ok()).unwrap_or_default();
    }
    Ok(used)
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
