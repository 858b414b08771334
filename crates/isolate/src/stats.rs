//! What a star uses, read from its cgroup by whoever asks; the nursery is not bothered.

use std::io;
use std::path::Path;

use model::StarId;
use serde::{Deserialize, Serialize};

use crate::record::Record;

/// Counters of one star. `None` where this machine does not measure it (see `Walls`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StarStats {
    /// Processor time used since the start, in microseconds.
    pub cpu_usage_us: Option<u64>,
    /// Time spent waiting because the quota was used up, in microseconds.
    pub throttled_us: Option<u64>,
    /// How many 100 ms periods ended early because the quota was used up.
    pub nr_throttled: Option<u64>,
    /// Memory charged now, page cache and kernel memory included.
    pub memory_bytes: Option<u64>,
    /// The most that was ever charged.
    pub memory_peak: Option<u64>,
    /// Processes and threads now.
    pub pids: Option<u64>,
    /// Open descriptors of the star's first process.
    pub fds: Option<u64>,
}

/// Reads a star's counters. Costs about ten small file reads. `NotFound` when the star is not known; all `None`
/// when it has ended.
pub fn stats(data_dir: &Path, star: StarId) -> io::Result<StarStats> {
    let record = Record::load(&crate::place::star(data_dir, star))?;
    let mut stats = record.groups.stats();
    stats.fds = std::fs::read_dir(format!("/proc/{}/fd", record.pid)).ok().map(|entries| entries.count() as u64);
    Ok(stats)
}
