//! What a star uses, read from its cgroup and from /proc by whoever asks; the nursery is not bothered.

use std::fs;
use std::io;
use std::path::Path;

use model::{Network, StarId};
use serde::{Deserialize, Serialize};

use crate::record::Record;
use crate::{star, usage};

/// Counters of one star. `None` where this machine does not measure it (see `Walls`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StarStats {
    /// Processor time used since the start, in microseconds. Without a controller that of its processes, to a hundredth of
    /// a second.
    pub cpu_usage_us: Option<u64>,
    /// Time spent waiting because the quota was used up, in microseconds.
    pub throttled_us: Option<u64>,
    /// How many 100 ms periods ended early because the quota was used up.
    pub nr_throttled: Option<u64>,
    /// Memory charged now, page cache and kernel memory included. Without a controller what its processes have, shared
    /// pages by their part.
    pub memory_bytes: Option<u64>,
    /// The same without page cache that was not used lately: what cannot be taken back easily.
    pub memory_working_set: Option<u64>,
    /// The most that was ever charged.
    pub memory_peak: Option<u64>,
    /// Processes and threads now.
    pub pids: Option<u64>,
    /// Open descriptors of all its processes together.
    pub fds: Option<u64>,
    /// Bytes that came in and went out by interfaces of its own, other than loopback; `None` when it has none.
    pub network_received: Option<u64>,
    pub network_sent: Option<u64>,
    /// Bytes over its own loopback: what the proxy and the star say to each other, and it to itself.
    pub network_loopback: Option<u64>,
}

/// Reads a star's counters. Costs about ten small file reads and a few for each process. `NotFound` when the star is not
/// known; all `None` when it has ended.
pub fn stats(data_dir: &Path, star: StarId) -> io::Result<StarStats> {
    let record = Record::load(&crate::place::star(data_dir, star))?;
    let mut stats = record.groups.stats();
    if star::find(&record).is_none() {
        return Ok(stats);
    }
    let members: Vec<u32> = star::members(&record);
    stats.fds = members.iter().map(|pid| entries(&format!("/proc/{pid}/fd"))).sum();
    let first = if record.init { Some(record.pid) } else { None };
    stats.cpu_usage_us = stats.cpu_usage_us.or_else(|| members.iter().copied().chain(first).map(cpu_us).sum());
    stats.memory_bytes = stats.memory_bytes.or_else(|| members.iter().map(|&pid| proportional_bytes(pid)).sum());
    stats.pids = stats.pids.or_else(|| members.iter().map(|pid| entries(&format!("/proc/{pid}/task"))).sum());
    if record.network != Network::Host {
        let table = fs::read_to_string(format!("/proc/{}/net/dev", record.pid)).unwrap_or_default();
        let traffic = Traffic::parse(&table);
        (stats.network_received, stats.network_sent) = traffic.outside.unzip();
        stats.network_loopback = traffic.loopback;
    }
    Ok(stats)
}

/// What a star's writable places hold, in bytes: its memory file systems, its layer over a root of its own, its volumes.
/// `None` when it has ended, or when there is too much to go through. Costs a look at every file of its volumes.
pub fn disk_bytes(data_dir: &Path, star: StarId) -> io::Result<Option<u64>> {
    let record = Record::load(&crate::place::star(data_dir, star))?;
    if star::find(&record).is_none() {
        return Ok(None);
    }
    usage::used(star::member_pid(&record)?)
}

/// How many entries a folder has.
fn entries(folder: &str) -> Option<u64> {
    fs::read_dir(folder).ok().map(|entries| entries.count() as u64)
}

/// Time a process has used, with that of its children it has waited for. The kernel counts in hundredths of a second
/// (`USER_HZ`, 100 on every platform we build for).
fn cpu_us(pid: u32) -> Option<u64> {
    const TICK_US: u64 = 10_000;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Fields 14 to 17; the second, the program's name, may hold anything.
    let (_, after) = stat.rsplit_once(')')?;
    let ticks = after.split_whitespace().skip(11).take(4).map(|field| field.parse::<u64>().ok());
    ticks.sum::<Option<u64>>().map(|ticks| ticks * TICK_US)
}

/// A process's memory, pages that it shares by its part of them.
fn proportional_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// What a network namespace's interfaces have carried.
#[derive(Debug, Default, PartialEq, Eq)]
struct Traffic {
    /// Received and sent.
    outside: Option<(u64, u64)>,
    loopback: Option<u64>,
}

impl Traffic {
    /// Reads the table of `/proc/net/dev`: after each name and colon eight numbers of what came and eight of what went.
    fn parse(table: &str) -> Self {
        let mut traffic = Self::default();
        for line in table.lines() {
            let Some((name, numbers)) = line.split_once(':') else { continue };
            let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
            let (Some(received), Some(sent)) = (numbers.first(), numbers.get(8)) else { continue };
            if name.trim() == "lo" {
                traffic.loopback = Some(*received);
            } else {
                let (before, sent_before) = traffic.outside.unwrap_or_default();
                traffic.outside = Some((before + received, sent_before + sent));
            }
        }
        traffic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_told_apart_by_where_it_went() {
        const HEAD: &str = "Inter-|   Receive                    |  Transmit\n face |bytes    packets errs drop fifo frame \
                            compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n";
        let check = |lines: &str, expected: Traffic| assert_eq!(Traffic::parse(&format!("{HEAD}{lines}")), expected);
        check("", Traffic::default());
        check(
            "    lo:     840      10    0    0    0     0          0         0      840      10 0 0 0 0 0 0\n",
            Traffic { outside: None, loopback: Some(840) },
        );
        check(
            "    lo: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n  eth0: 5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n  eth1:6 1 0 0 0 0 0 0 8 1 0 0 0 0 0 0\n",
            Traffic { outside: Some((11, 15)), loopback: Some(0) },
        );
    }

    #[test]
    fn without_controllers_processes_are_asked_themselves() {
        let own = std::process::id();
        assert!(proportional_bytes(own).unwrap() > 100_000);
        assert!(entries(&format!("/proc/{own}/fd")).unwrap() > 2);
        assert!(cpu_us(own).is_some() && cpu_us(u32::MAX).is_none());
    }
}
