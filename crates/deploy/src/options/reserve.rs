//! What is kept for each star on its machine.

use model::{Bytes, Code, Limits, Millicores, Problem, Reserve};

use super::{CORES_MAX, Options, RAM_MAX_MB, Read};

/// No more than it may use, as far as that is limited.
pub(super) fn reserve(options: &mut Options, limits: &Limits) -> Read<Reserve> {
    let percent = options.number("reserve_cpu_percent", 0.0, CORES_MAX * 100.0)?.unwrap_or(0.0);
    let megabytes = options.number("reserve_ram_mb", 0.0, RAM_MAX_MB)?.unwrap_or(0.0);
    let cpu = Millicores((percent * 10.0).round() as u32);
    let memory = Bytes((megabytes * 1024.0 * 1024.0).round() as u64);
    if let Some(limit) = limits.cpu.filter(|limit| cpu > *limit) {
        let message = format!("`reserve_cpu_percent` keeps {cpu} of a core for a star that may use {limit}");
        let problem = Problem::new(Code::InvalidValue, message).help("keep no more than `cpu_percent` or `cpu_cores`");
        return Err(options.fault("reserve_cpu_percent", problem));
    }
    if let Some(limit) = limits.memory.filter(|limit| memory > *limit) {
        let message = format!("`reserve_ram_mb` keeps {memory} for a star that may use {limit}");
        let problem = Problem::new(Code::InvalidValue, message).help("keep no more than `ram_mb`, or raise that");
        return Err(options.fault("reserve_ram_mb", problem));
    }
    Ok(Reserve { cpu, memory })
}
