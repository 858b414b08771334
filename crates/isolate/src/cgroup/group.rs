//! One star's groups: its limits, its counters, its end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use model::{Bytes, CpuSet, Limits};
use serde::{Deserialize, Serialize};

use super::{keyed, number, write};
use crate::in_force::InForce;
use crate::stats::StarStats;

/// The quota's period. The kernel's default: shorter ones cost more switches, longer ones stall a star visibly.
pub(super) const PERIOD_US: u64 = 100_000;
/// How often a star's processes are gone through until all of them are frozen. Those that are make no new ones.
const LOOKS: usize = 100;
/// Version 1: bytes a second from a disk and to it.
const READ_FILE: &str = "blkio.throttle.read_bps_device";
const WRITE_FILE: &str = "blkio.throttle.write_bps_device";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Version {
    V1,
    V2,
}

/// The directory in which one controller limits one star.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) version: Version,
    pub(crate) dir: PathBuf,
}

/// A star's groups by controller. `None` where the controller is not ours to use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Groups {
    pub(crate) cpu: Option<Group>,
    /// Where processor time is counted: `cpuacct` in version 1, the same as `cpu` in version 2.
    pub(crate) usage: Option<Group>,
    pub(crate) memory: Option<Group>,
    pub(crate) pids: Option<Group>,
    /// Version 1: made when the star is to run on some processors only, which few are. The same of `io`.
    #[serde(default)]
    pub(crate) cpuset: Option<Group>,
    #[serde(default)]
    pub(crate) io: Option<Group>,
    /// The disk whose use is limited, as `MAJOR:MINOR`.
    #[serde(default)]
    pub(crate) device: Option<String>,
    /// Version 1: made when the star is frozen for the first time, which few ever are. Version 2 freezes any group.
    #[serde(default)]
    pub(crate) freezer: Option<Group>,
    /// Processes in the star that are ours, not the user's: its init. They are added to the limit.
    pub(crate) own_pids: u32,
    /// Where there is no controller for them: the processes that the star's own `RLIMIT_NPROC` allows. The kernel counts
    /// those of a user namespace apart (from 5.14), and every star has one. It is set at the start and cannot be raised.
    #[serde(default)]
    pub(crate) fixed_pids: Option<u32>,
}

impl Groups {
    /// The distinct directories.
    pub(super) fn dirs(&self) -> BTreeSet<&Group> {
        [&self.cpu, &self.usage, &self.memory, &self.pids, &self.cpuset, &self.io, &self.freezer]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The directories' own names.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.dirs().into_iter().filter_map(|group| Some(group.dir.file_name()?.to_str()?.to_owned())).collect()
    }

    /// Makes the directories. What exists already is an error: a star's group is never shared.
    pub(crate) fn create(&self) -> io::Result<()> {
        for group in self.dirs() {
            if let Err(error) = fs::create_dir(&group.dir) {
                self.remove();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Removes the directories that are empty of processes. `false` when one is not yet.
    pub(crate) fn remove(&self) -> bool {
        let gone = |group: &Group| match fs::remove_dir(&group.dir) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        // Every directory is tried, whatever became of the one before.
        self.dirs().into_iter().filter(|group| !gone(group)).count() == 0
    }

    /// Descriptors of the version 1 `tasks` files. A single-threaded process that writes `0` to them moves itself,
    /// which spares the kernel the global lock that moving another process takes.
    pub(crate) fn tasks(&self) -> io::Result<Vec<OwnedFd>> {
        let v1 = self.dirs().into_iter().filter(|group| group.version == Version::V1);
        v1.map(|group| Ok(OpenOptions::new().write(true).open(group.dir.join("tasks"))?.into())).collect()
    }

    /// The version 2 directory to be born in.
    pub(crate) fn birthplace(&self) -> io::Result<Option<OwnedFd>> {
        let v2 = self.dirs().into_iter().find(|group| group.version == Version::V2);
        v2.map(|group| Ok(File::open(&group.dir)?.into())).transpose()
    }

    /// Sets the limits, at the start or later. What a controller that is missing would have limited is left alone:
    /// `Walls` has said so. Each is tried, whatever became of the one before; those that failed are told together.
    pub(crate) fn limit(&self, limits: &Limits) -> io::Result<()> {
        let mut failures = Vec::new();
        let mut tried = |result: io::Result<()>| failures.extend(result.err());
        if let Some(group) = &self.cpu {
            tried(group.limit_cpu(super::spending::quota_us(limits, 0), limits.cpu_burst));
        }
        if let Some(group) = &self.cpuset {
            tried(group.pin(limits.cpus));
        }
        if let (Some(group), Some(device)) = (&self.io, &self.device) {
            tried(group.limit_io(device, limits.io_read.map(|rate| rate.0), limits.io_write.map(|rate| rate.0)));
        }
        if let Some(group) = &self.memory {
            tried(group.limit_memory(limits.memory.map(|bytes| bytes.0)));
            tried(group.limit_memory_softly(limits.memory_soft.map(|bytes| bytes.0)));
        }
        if let Some(group) = &self.pids {
            let most = limits.pids.map(|pids| (u64::from(pids) + u64::from(self.own_pids)).to_string());
            tried(write(&group.dir, "pids.max", most.unwrap_or_else(|| "max".to_owned())));
        } else if self.fixed_pids != limits.pids {
            let fixed = "without a `pids` controller the number of processes is fixed at the start";
            tried(Err(io::Error::other(fixed)));
        }
        if failures.len() < 2 {
            return failures.pop().map_or(Ok(()), Err);
        }
        let reasons: Vec<String> = failures.iter().map(io::Error::to_string).collect();
        Err(io::Error::other(reasons.join("; ")))
    }

    /// Whether a group is there in which everything in the star can be halted.
    pub(crate) fn can_freeze(&self) -> bool {
        self.freezing().is_some()
    }

    fn freezing(&self) -> Option<&Group> {
        let v2 = || self.dirs().into_iter().find(|group| group.version == Version::V2);
        self.freezer.as_ref().or_else(v2)
    }

    /// Makes the version 1 group to freeze the star in. It is of no effect until the star is in it.
    pub(crate) fn add_freezer(&mut self, group: Group) -> io::Result<()> {
        fs::create_dir(&group.dir)?;
        self.freezer = Some(group);
        Ok(())
    }

    /// Halts everything in the star. The kernel does so as soon as it comes by each process.
    pub(crate) fn freeze(&self) -> io::Result<()> {
        let Some(Group { version, dir }) = self.freezing() else { return Ok(()) };
        if *version == Version::V2 {
            return write(dir, "cgroup.freeze", 1);
        }
        write(dir, "freezer.state", "FROZEN")?;
        // What comes in freezes.
        self.bring_into(dir).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => io::Error::other("it makes processes faster than they can be frozen"),
            _ => error,
        })
    }

    /// Moves everything in the star into one more version 1 group. What is born of a process outside is outside too until it
    /// is found by another look.
    fn bring_into(&self, dir: &Path) -> io::Result<()> {
        // Told to come in: what is seen outside all the same is ending, and on a busy machine for a while, but does nothing
        // any more. The kernel says so or passes over it.
        let mut told = BTreeSet::new();
        for _ in 0..LOOKS {
            let inside: BTreeSet<u32> = pids(dir)?.into_iter().collect();
            let is_outside = |pid: &u32| !inside.contains(pid) && !told.contains(pid);
            let outside: Vec<u32> = self.members()?.into_iter().filter(is_outside).collect();
            if outside.is_empty() {
                return Ok(());
            }
            let door = OpenOptions::new().write(true).open(dir.join("cgroup.procs"))?;
            for pid in outside {
                match (&door).write_all(pid.to_string().as_bytes()) {
                    Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
                    _ => drop(told.insert(pid)),
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "it makes processes faster than they can be moved"))
    }

    /// Makes a version 1 group that the star needs only now, with all of the star in it. `first` is its first process: a protostar
    /// that was just made may not have come into the other groups yet.
    pub(super) fn add(&mut self, kind: Late, group: Group, first: Option<u32>) -> io::Result<()> {
        fs::create_dir(&group.dir)?;
        let slot = match kind {
            Late::Cpuset => &mut self.cpuset,
            Late::Io => &mut self.io,
        };
        // Known before it is used: whatever fails from here on, it is removed with the others.
        let dir = slot.insert(group).dir.clone();
        if kind == Late::Cpuset {
            // Nobody comes into a group that has neither processors nor memory.
            for file in ["cpuset.mems", "cpuset.cpus"] {
                inherit(&dir, file)?;
            }
        }
        if let Some(pid) = first {
            write(&dir, "cgroup.procs", pid)?;
        }
        self.bring_into(&dir)
    }

    /// Lets what waits for its turn at the disk go on: it could not end before.
    fn lift_io(&self) {
        if let (Some(group), Some(device)) = (&self.io, &self.device) {
            let _ = group.limit_io(device, None, None);
        }
    }

    /// Whether everything that was to be halted is. To be asked until it is.
    pub(crate) fn is_frozen(&self) -> bool {
        match self.freezing() {
            Some(Group { version: Version::V1, dir }) => {
                let frozen = fs::read_to_string(dir.join("freezer.state")).is_ok_and(|state| state.trim() == "FROZEN");
                if !frozen {
                    // A process that was just about to wait for its child (vfork) has missed the word, and the kernel says
                    // it but once: it would wait for a child that is frozen already. It can be told again.
                    let _ = write(dir, "freezer.state", "FROZEN");
                }
                frozen
            }
            Some(Group { version: Version::V2, dir }) => keyed(dir, "cgroup.events", "frozen") == Some(1),
            None => false,
        }
    }

    /// Lets everything go on.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        match self.freezing() {
            Some(Group { version: Version::V1, dir }) => write(dir, "freezer.state", "THAWED"),
            Some(Group { version: Version::V2, dir }) => write(dir, "cgroup.freeze", 0),
            None => Ok(()),
        }
    }

    /// Every process in the star, commands executed in it included; nothing where it has no groups.
    pub(crate) fn members(&self) -> io::Result<Vec<u32>> {
        let mut limiting = [&self.pids, &self.memory, &self.cpu, &self.usage].into_iter().flatten();
        limiting.next().map_or(Ok(Vec::new()), |group| pids(&group.dir))
    }

    /// How many of the star's processes the kernel has killed for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let Some(group) = &self.memory else { return 0 };
        let file = match group.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        keyed(&group.dir, file, "oom_kill").unwrap_or(0)
    }

    /// Kills every process of the star that a version 2 group holds, also one in no process namespace of ours.
    pub(crate) fn kill(&self) {
        self.lift_io();
        for group in self.dirs().into_iter().filter(|group| group.version == Version::V2) {
            // Kernels before 5.14 lack the file; ending the star's first process does the same.
            let _ = write(&group.dir, "cgroup.kill", 1);
        }
    }

    /// The folder of each controller's group.
    pub(crate) fn folders(&self) -> BTreeMap<String, PathBuf> {
        let named = [
            ("cpu", &self.cpu),
            ("usage", &self.usage),
            ("memory", &self.memory),
            ("pids", &self.pids),
            ("cpuset", &self.cpuset),
            ("io", &self.io),
            ("freezer", &self.freezer),
        ];
        named.into_iter().filter_map(|(name, group)| Some((name.to_owned(), group.as_ref()?.dir.clone()))).collect()
    }

    /// The limits that the kernel holds by these groups, and the files that say so.
    pub(crate) fn in_force(&self) -> InForce {
        let mut limits = InForce::default();
        let mut held_by = |limit: &str, group: &Group, v1: &str, v2: &str| {
            let means = match group.version {
                Version::V1 => format!("cgroup v1 {v1}"),
                Version::V2 => format!("cgroup v2 {v2}"),
            };
            limits.means.insert(limit.to_owned(), means);
        };
        if let Some(group) = &self.cpu
            && let Some((quota, period)) = group.quota()
        {
            limits.cpu_millicores = Some(quota * 1000 / period);
            held_by("cpu", group, "cpu.cfs_quota_us", "cpu.max");
            if let Some(burst) = number(&group.dir, group.word("cpu.cfs_burst_us", "cpu.max.burst")) {
                limits.cpu_burst_percent = Some(burst * 100 / quota.max(1));
                held_by("cpu burst", group, "cpu.cfs_burst_us", "cpu.max.burst");
            }
        }
        if let Some(group) = &self.memory {
            /// Version 1 says so that there is none: the largest number of bytes, rounded down to a page.
            const NO_LIMIT: u64 = i64::MAX as u64 & !0xffff;
            let mut bytes = |limit, v1, v2| {
                let bytes = number(&group.dir, group.word(v1, v2)).filter(|bytes| *bytes < NO_LIMIT)?;
                held_by(limit, group, v1, v2);
                Some(bytes)
            };
            limits.memory_bytes = bytes("memory", "memory.limit_in_bytes", "memory.max");
            limits.memory_soft_bytes = bytes("soft memory", "memory.soft_limit_in_bytes", "memory.high");
        }
        if let Some(group) = &self.pids
            && let Some(pids) = number(&group.dir, "pids.max")
        {
            limits.pids = Some(pids.saturating_sub(u64::from(self.own_pids)));
            held_by("pids", group, "pids.max", "pids.max");
        }
        if let Some(group) = &self.cpuset {
            let text = fs::read_to_string(group.dir.join("cpuset.cpus")).unwrap_or_default();
            limits.cpus = Some(text.trim().to_owned()).filter(|text| !text.is_empty());
            if limits.cpus.is_some() {
                held_by("processors", group, "cpuset.cpus", "cpuset.cpus");
            }
        }
        if let (Some(group), Some(device)) = (&self.io, &self.device) {
            let [read, written] = group.io_limits(device);
            (limits.io_read_bytes_s, limits.io_write_bytes_s) = (read, written);
            if read.is_some() {
                held_by("disk reads", group, READ_FILE, "io.max");
            }
            if written.is_some() {
                held_by("disk writes", group, WRITE_FILE, "io.max");
            }
        }
        limits
    }

    pub(crate) fn stats(&self) -> StarStats {
        let cpu_usage_us = self.used().and_then(|used| u64::try_from(used.as_micros()).ok());
        let mut stats = StarStats { cpu_usage_us, ..StarStats::default() };
        if let Some(Group { version, dir }) = &self.cpu {
            stats.nr_throttled = keyed(dir, "cpu.stat", "nr_throttled");
            stats.throttled_us = match version {
                Version::V1 => keyed(dir, "cpu.stat", "throttled_time").map(|nanos| nanos / 1000),
                Version::V2 => keyed(dir, "cpu.stat", "throttled_usec"),
            };
        }
        if let Some(Group { version, dir }) = &self.memory {
            let (now, peak) = match version {
                Version::V1 => ("memory.usage_in_bytes", "memory.max_usage_in_bytes"),
                Version::V2 => ("memory.current", "memory.peak"),
            };
            let idle = match version {
                Version::V1 => "total_inactive_file",
                Version::V2 => "inactive_file",
            };
            stats.memory_bytes = number(dir, now);
            stats.memory_working_set =
                stats.memory_bytes.and_then(|bytes| Some(bytes.saturating_sub(keyed(dir, "memory.stat", idle)?)));
            stats.memory_peak = number(dir, peak);
        }
        if let Some(Group { dir, .. }) = &self.pids {
            stats.pids = number(dir, "pids.current").map(|pids| pids.saturating_sub(u64::from(self.own_pids)));
        }
        stats
    }
}

/// Version 1 groups that few stars need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    Cpuset,
    Io,
}

/// Takes over the content of a file from the group above.
pub(super) fn inherit(dir: &Path, file: &str) -> io::Result<()> {
    let above = dir.parent().ok_or(io::ErrorKind::NotFound)?;
    write(dir, file, fs::read_to_string(above.join(file))?.trim())
}

/// The processes in a group.
fn pids(dir: &Path) -> io::Result<Vec<u32>> {
    let text = fs::read_to_string(dir.join("cgroup.procs"))?;
    Ok(text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

impl Group {
    /// The name of a file in this version.
    fn word(&self, v1: &'static str, v2: &'static str) -> &'static str {
        match self.version {
            Version::V1 => v1,
            Version::V2 => v2,
        }
    }

    /// The processor time it has in a period, and the period, in microseconds; `None` when it may use all there is.
    pub(super) fn quota(&self) -> Option<(u64, u64)> {
        let (quota, period) = match self.version {
            Version::V1 => (number(&self.dir, "cpu.cfs_quota_us")?, number(&self.dir, "cpu.cfs_period_us")?),
            Version::V2 => {
                let text = fs::read_to_string(self.dir.join("cpu.max")).ok()?;
                let (quota, period) = text.trim().split_once(' ')?;
                (quota.parse().ok()?, period.parse().ok()?)
            }
        };
        Some((quota, period.max(1)))
    }

    /// Bytes a second that may be read from and written to a disk.
    fn io_limits(&self, device: &str) -> [Option<u64>; 2] {
        let line = |file: &str| {
            let text = fs::read_to_string(self.dir.join(file)).ok()?;
            text.lines().find_map(|line| Some(line.strip_prefix(device)?.strip_prefix(' ')?.to_owned()))
        };
        match self.version {
            Version::V1 => [READ_FILE, WRITE_FILE].map(|file| line(file)?.trim().parse().ok()),
            Version::V2 => {
                let line = line("io.max").unwrap_or_default();
                ["rbps=", "wbps="].map(|word| line.split(' ').find_map(|part| part.strip_prefix(word))?.parse().ok())
            }
        }
    }

    /// Whether the kernel knows bursts.
    pub(super) fn can_burst(&self) -> bool {
        // At the hierarchy's root there are no limits, but ours are made below it.
        let file = match self.version {
            Version::V1 => "cpu.cfs_burst_us",
            Version::V2 => "cpu.max.burst",
        };
        self.dir.join(file).exists()
    }

    /// `quota_us` of processor time per period. What an idle star leaves unused it may use later, up to `burst` percent of the
    /// quota.
    pub(super) fn limit_cpu(&self, quota_us: Option<u64>, burst_percent: Option<u32>) -> io::Result<()> {
        let (quota_file, burst_file) = match self.version {
            Version::V1 => ("cpu.cfs_quota_us", "cpu.cfs_burst_us"),
            Version::V2 => ("cpu.max", "cpu.max.burst"),
        };
        // A burst may not exceed its quota, so it is taken away before the quota may shrink. Kernels before 5.14
        // have no bursts: the quota holds all the same.
        let burst = number(&self.dir, burst_file);
        if burst.is_some_and(|burst| burst > 0) {
            write(&self.dir, burst_file, 0)?;
        }
        let written = match (self.version, quota_us) {
            (Version::V1, None) => write(&self.dir, quota_file, -1),
            (Version::V1, Some(quota)) => write(&self.dir, quota_file, quota),
            (Version::V2, None) => write(&self.dir, quota_file, "max"),
            (Version::V2, Some(quota)) => write(&self.dir, quota_file, format!("{quota} {PERIOD_US}")),
        };
        if written.is_err() {
            // It has what it had.
            return burst.map_or(Ok(()), |burst| write(&self.dir, burst_file, burst)).and(written);
        }
        match quota_us {
            Some(quota) if burst.is_some() => {
                let wanted = quota * u64::from(burst_percent.unwrap_or(100)) / 100;
                match write(&self.dir, burst_file, wanted) {
                    // Nobody asked: a parent with a tighter quota makes the kernel refuse bursts.
                    Err(_) if burst_percent.is_none() => Ok(()),
                    result => result,
                }
            }
            _ => Ok(()),
        }
    }

    /// The processors that the star runs on; all that the group above has when `None`.
    fn pin(&self, cpus: Option<CpuSet>) -> io::Result<()> {
        const FILE: &str = "cpuset.cpus";
        let Some(wanted) = cpus else {
            return match self.version {
                Version::V1 => inherit(&self.dir, FILE),
                Version::V2 if fs::read_to_string(self.dir.join(FILE))?.trim().is_empty() => Ok(()),
                Version::V2 => self.unpin(),
            };
        };
        let before = fs::read_to_string(self.dir.join(FILE))?;
        let refused = |file: &str| {
            let above = self.dir.parent().and_then(|above| fs::read_to_string(above.join(file)).ok());
            let has = above.or_else(|| fs::read_to_string(self.dir.join(file)).ok()).unwrap_or_default();
            io::Error::other(format!("it cannot run on the processors {wanted}: the group above it has {}", has.trim()))
        };
        if self.version == Version::V1 {
            return write(&self.dir, FILE, wanted).map_err(|_| refused(FILE));
        }
        const EFFECTIVE: &str = "cpuset.cpus.effective";
        write(&self.dir, FILE, wanted).map_err(|_| refused(EFFECTIVE))?;
        // Version 2 takes what is not there, and gives what is.
        if fs::read_to_string(self.dir.join(EFFECTIVE))?.trim().parse() != Ok(wanted) {
            let before = before.trim();
            if before.is_empty() { self.unpin() } else { write(&self.dir, FILE, before) }?;
            return Err(refused(EFFECTIVE));
        }
        Ok(())
    }

    /// Version 2: all processors again. Some kernels (6.1) empty no list of a group with processes; they are given all there are.
    fn unpin(&self) -> io::Result<()> {
        let Err(error) = write(&self.dir, "cpuset.cpus", "\n") else { return Ok(()) };
        let above = self.dir.parent().filter(|_| error.kind() == io::ErrorKind::StorageFull).ok_or(error)?;
        write(&self.dir, "cpuset.cpus", fs::read_to_string(above.join("cpuset.cpus.effective"))?.trim())
    }

    /// Bytes a second from and to a disk.
    fn limit_io(&self, device: &str, read: Option<u64>, written: Option<u64>) -> io::Result<()> {
        match self.version {
            Version::V1 => {
                // 0 is no limit.
                write(&self.dir, READ_FILE, format!("{device} {}", read.unwrap_or(0)))?;
                write(&self.dir, WRITE_FILE, format!("{device} {}", written.unwrap_or(0)))
            }
            Version::V2 => {
                if read.is_none() && written.is_none() && fs::read_to_string(self.dir.join("io.max"))?.trim().is_empty()
                {
                    return Ok(());
                }
                let text = |rate: Option<u64>| rate.map_or_else(|| "max".to_owned(), |rate| rate.to_string());
                write(&self.dir, "io.max", format!("{device} rbps={} wbps={}", text(read), text(written)))
            }
        }
    }

    /// Memory with no swap beside it.
    fn limit_memory(&self, bytes: Option<u64>) -> io::Result<()> {
        match self.version {
            Version::V1 => self.limit_memory_v1(bytes),
            Version::V2 => {
                self.make_room(bytes)?;
                write(&self.dir, "memory.max", bytes.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string()))?;
                if_there(&self.dir, "memory.swap.max", if bytes.is_some() { "0" } else { "max" })?;
                // A star that has lost one of its processes is not what was asked for: it ends as a whole.
                if_there(&self.dir, "memory.oom.group", "1")
            }
        }
    }

    /// Has the kernel take back what is above a limit to be. Version 2 would set a limit below what is used and kill for
    /// it; a limit that is too low for a running star is refused instead, as version 1 does.
    fn make_room(&self, bytes: Option<u64>) -> io::Result<()> {
        let used = || number(&self.dir, "memory.current").unwrap_or(0);
        let Some(wanted) = bytes.filter(|bytes| used() > *bytes) else { return Ok(()) };
        // Lowering the soft limit reclaims at once, before the write returns.
        let before = std::fs::read_to_string(self.dir.join("memory.high"))?;
        write(&self.dir, "memory.high", wanted)?;
        let used = used();
        write(&self.dir, "memory.high", before.trim())?;
        if used > wanted {
            let (used, wanted) = (Bytes(used), Bytes(wanted));
            return Err(io::Error::other(format!("it uses {used}, more than {wanted}")));
        }
        Ok(())
    }

    /// Beyond it the star gives memory back before others have to. Old kernels lack it, and it is but a wish.
    fn limit_memory_softly(&self, bytes: Option<u64>) -> io::Result<()> {
        let (file, none) = match self.version {
            Version::V1 => ("memory.soft_limit_in_bytes", "-1"),
            Version::V2 => ("memory.high", "max"),
        };
        if_there(&self.dir, file, &bytes.map_or_else(|| none.to_owned(), |bytes| bytes.to_string()))
    }

    /// Version 1 counts memory and memory with swap, and wants the second never below the first: a limit that grows
    /// is set on the second first, one that shrinks on the first.
    fn limit_memory_v1(&self, bytes: Option<u64>) -> io::Result<()> {
        const MEMORY: &str = "memory.limit_in_bytes";
        const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
        let value = bytes.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
        let grows = bytes.unwrap_or(u64::MAX) >= number(&self.dir, MEMORY).unwrap_or(u64::MAX);
        if grows {
            if_there(&self.dir, WITH_SWAP, &value)?;
            write(&self.dir, MEMORY, &value)?;
        } else {
            write(&self.dir, MEMORY, &value)?;
            if_there(&self.dir, WITH_SWAP, &value)?;
        }
        if_there(&self.dir, "memory.swappiness", if bytes.is_some() { "0" } else { "60" })
    }
}

/// Writes a file that not every kernel has.
fn if_there(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    match write(dir, file, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    use model::units::{Bytes, Millicores};

    /// A folder with the control files of one version, standing in for a real group.
    fn group(version: Version, files: &[(&str, &str)]) -> (tempfile::TempDir, Groups) {
        let folder = tempfile::tempdir().unwrap();
        for (file, content) in files {
            fs::write(folder.path().join(file), content).unwrap();
        }
        let group = Some(Group { version, dir: folder.path().to_owned() });
        let groups = Groups {
            cpu: group.clone(),
            usage: group.clone(),
            memory: group.clone(),
            pids: group,
            cpuset: None,
            io: None,
            device: None,
            freezer: None,
            own_pids: 1,
            fixed_pids: None,
        };
        (folder, groups)
    }

    /// Where version 2 is mounted and may be written, if it is.
    fn real_v2() -> Option<PathBuf> {
        let folders = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
        let top = folders.into_iter().find(|folder| folder.join("cgroup.procs").exists())?;
        let dir = top.join(own).join(format!("rads-test-{}", std::process::id()));
        fs::create_dir(&dir).ok().map(|()| dir)
    }

    #[test]
    fn a_process_is_born_into_a_version_2_group_and_ends_with_it() {
        let Some(parent) = real_v2() else {
            eprintln!("skipped: no version 2 hierarchy that may be written");
            return;
        };
        let groups =
            Groups { pids: Some(Group { version: Version::V2, dir: parent.join("star") }), ..Groups::default() };
        groups.create().unwrap();
        assert!(groups.tasks().unwrap().is_empty(), "nothing is left to join");
        let birthplace = groups.birthplace().unwrap().unwrap();
        let idle = || -> std::convert::Infallible {
            loop {
                std::thread::park();
            }
        };
        let (pid, pidfd) = crate::sys::process::clone(0, Some(birthplace.as_fd()), idle).unwrap();
        let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert!(group.lines().any(|line| line.starts_with("0::") && line.ends_with("/star")), "{group}");
        assert!(!groups.remove(), "it is not empty yet");
        groups.kill();
        let end = rustix::process::WaitId::PidFd(pidfd.as_fd());
        let status = rustix::process::waitid(end, rustix::process::WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!(status.terminating_signal(), Some(libc::SIGKILL));
        assert!(groups.remove());
        fs::remove_dir(parent).unwrap();
    }

    const LIMITS: Limits = Limits {
        cpu: Some(Millicores(250)),
        memory: Some(Bytes::mib(64)),
        memory_soft: Some(Bytes::mib(48)),
        pids: Some(10),
        ..Limits::UNLIMITED
    };
    const NONE: Limits = Limits::UNLIMITED;

    #[test]
    fn limits_are_written_in_the_words_of_each_version() {
        const V2: [&str; 7] = [
            "cpu.max",
            "cpu.max.burst",
            "memory.max",
            "memory.high",
            "memory.swap.max",
            "memory.oom.group",
            "pids.max",
        ];
        const V1: [&str; 7] = [
            "cpu.cfs_quota_us",
            "cpu.cfs_burst_us",
            "memory.limit_in_bytes",
            "memory.soft_limit_in_bytes",
            "memory.memsw.limit_in_bytes",
            "memory.swappiness",
            "pids.max",
        ];
        let check = |version, files: [&str; 7], limits, expected: [&str; 7]| {
            let (folder, groups) =
                group(version, &files.map(|file| (file, if file.contains("burst") { "0" } else { "" })));
            groups.limit(limits).unwrap();
            let written = files.map(|file| fs::read_to_string(folder.path().join(file)).unwrap());
            assert_eq!(written, expected, "{version:?}");
        };
        check(Version::V2, V2, &LIMITS, ["25000 100000", "25000", "67108864", "50331648", "0", "1", "11"]);
        check(Version::V2, V2, &NONE, ["max", "0", "max", "max", "max", "1", "max"]);
        check(Version::V1, V1, &LIMITS, ["25000", "25000", "67108864", "50331648", "67108864", "0", "11"]);
        check(Version::V1, V1, &NONE, ["-1", "0", "-1", "-1", "-1", "60", "max"]);
    }

    #[test]
    fn processors_bursts_and_disks_are_limited_in_the_words_of_each_version() {
        let limits = Limits {
            cpu: Some(Millicores(500)),
            cpus: "1".parse().ok(),
            cpu_burst: Some(20),
            io_read: Some(Bytes::mib(1)),
            ..NONE
        };
        let make = |version, files: &[(&str, &str)]| {
            let (folder, mut groups) = group(version, files);
            (groups.cpuset, groups.io) = (groups.cpu.clone(), groups.cpu.clone());
            (groups.memory, groups.pids, groups.device) = (None, None, Some("254:0".to_owned()));
            (folder, groups)
        };
        let (folder, v2) = make(
            Version::V2,
            &[
                ("cpu.max", ""),
                ("cpu.max.burst", "0"),
                ("cpuset.cpus", ""),
                ("cpuset.cpus.effective", "1\n"),
                ("io.max", ""),
            ],
        );
        let read = |folder: &tempfile::TempDir, file| fs::read_to_string(folder.path().join(file)).unwrap();
        v2.limit(&limits).unwrap();
        assert_eq!(read(&folder, "cpu.max.burst"), "10000");
        assert_eq!(read(&folder, "cpuset.cpus"), "1");
        assert_eq!(read(&folder, "io.max"), "254:0 rbps=1048576 wbps=max");
        // The kernel takes processors that are not there, and gives others.
        fs::write(folder.path().join("cpuset.cpus"), "").unwrap();
        let error = v2.limit(&Limits { cpus: "7".parse().ok(), ..limits }).unwrap_err().to_string();
        assert_eq!(error, "it cannot run on the processors 7: the group above it has 1");
        assert_eq!(read(&folder, "cpuset.cpus"), "\n");
        let (folder, v1) = make(
            Version::V1,
            &[
                ("cpu.cfs_quota_us", ""),
                ("cpu.cfs_burst_us", "0"),
                ("cpuset.cpus", ""),
                ("blkio.throttle.read_bps_device", ""),
                ("blkio.throttle.write_bps_device", ""),
            ],
        );
        v1.limit(&limits).unwrap();
        assert_eq!((read(&folder, "cpu.cfs_burst_us"), read(&folder, "cpuset.cpus")), ("10000".into(), "1".into()));
        assert_eq!(read(&folder, "blkio.throttle.read_bps_device"), "254:0 1048576");
        assert_eq!(read(&folder, "blkio.throttle.write_bps_device"), "254:0 0");
        // Without the file a burst that was asked for is not there, and that is said by the walls.
        let (_folder, old) = make(Version::V2, &[("cpu.max", ""), ("cpuset.cpus", ""), ("io.max", "")]);
        old.limit(&Limits { cpu_burst: Some(20), cpus: None, ..limits }).unwrap();
        assert!(!old.cpu.unwrap().can_burst());
    }

    #[test]
    fn limits_are_read_back_in_the_words_of_each_version() {
        let check = |version, files: &[(&str, &str)], expected: InForce, held: &[(&str, &str)]| {
            let (_folder, mut groups) = group(version, files);
            (groups.cpuset, groups.io) = (groups.cpu.clone(), groups.cpu.clone());
            groups.device = Some("254:0".to_owned());
            let means = held.iter().map(|(limit, means)| ((*limit).to_owned(), (*means).to_owned())).collect();
            assert_eq!(groups.in_force(), InForce { means, ..expected }, "{version:?} {files:?}");
        };
        let all = || InForce {
            cpu_millicores: Some(250),
            cpu_burst_percent: Some(20),
            memory_bytes: Some(64 << 20),
            memory_soft_bytes: None,
            pids: Some(10),
            cpus: Some("0-1".to_owned()),
            io_read_bytes_s: Some(1 << 20),
            ..InForce::default()
        };
        check(
            Version::V2,
            &[
                ("cpu.max", "25000 100000\n"),
                ("cpu.max.burst", "5000\n"),
                ("memory.max", "67108864\n"),
                ("memory.high", "max\n"),
                ("pids.max", "11\n"),
                ("cpuset.cpus", "0-1\n"),
                ("io.max", "7:1 rbps=5 wbps=5 riops=max wiops=max\n254:0 rbps=1048576 wbps=max riops=max wiops=max\n"),
            ],
            all(),
            &[
                ("cpu", "cgroup v2 cpu.max"),
                ("cpu burst", "cgroup v2 cpu.max.burst"),
                ("memory", "cgroup v2 memory.max"),
                ("pids", "cgroup v2 pids.max"),
                ("processors", "cgroup v2 cpuset.cpus"),
                ("disk reads", "cgroup v2 io.max"),
            ],
        );
        check(
            Version::V1,
            &[
                ("cpu.cfs_quota_us", "25000\n"),
                ("cpu.cfs_period_us", "100000\n"),
                ("cpu.cfs_burst_us", "5000\n"),
                ("memory.limit_in_bytes", "67108864\n"),
                ("memory.soft_limit_in_bytes", "9223372036854771712\n"),
                ("pids.max", "11\n"),
                ("cpuset.cpus", "0-1\n"),
                ("blkio.throttle.read_bps_device", "254:0 1048576\n"),
                ("blkio.throttle.write_bps_device", "254:16 7\n"),
            ],
            all(),
            &[
                ("cpu", "cgroup v1 cpu.cfs_quota_us"),
                ("cpu burst", "cgroup v1 cpu.cfs_burst_us"),
                ("memory", "cgroup v1 memory.limit_in_bytes"),
                ("pids", "cgroup v1 pids.max"),
                ("processors", "cgroup v1 cpuset.cpus"),
                ("disk reads", "cgroup v1 blkio.throttle.read_bps_device"),
            ],
        );
        let none = InForce::default;
        check(
            Version::V2,
            &[("cpu.max", "max 100000\n"), ("memory.max", "max\n"), ("pids.max", "max\n"), ("io.max", "")],
            none(),
            &[],
        );
        check(Version::V1, &[("cpu.cfs_quota_us", "-1\n"), ("cpu.cfs_period_us", "100000\n")], none(), &[]);
    }

    #[test]
    fn files_that_old_kernels_lack_are_done_without() {
        let (_folder, groups) = group(Version::V2, &[("cpu.max", ""), ("memory.max", ""), ("pids.max", "")]);
        groups.limit(&LIMITS).unwrap();
        let (_folder, groups) = group(Version::V2, &[("cpu.max", ""), ("memory.max", "")]);
        let error = groups.limit(&LIMITS).unwrap_err().to_string();
        assert!(error.contains("cannot write 11 to") && error.contains("pids.max"), "{error}");
    }

    #[test]
    fn a_limit_that_fails_does_not_keep_those_behind_it_from_being_set() {
        let (folder, groups) = group(Version::V2, &[("memory.max", "")]);
        let error = groups.limit(&LIMITS).unwrap_err().to_string();
        assert!(error.contains("cpu.max") && error.contains("; ") && error.contains("pids.max"), "{error}");
        assert_eq!(fs::read_to_string(folder.path().join("memory.max")).unwrap(), "67108864");
    }

    #[test]
    fn counters_are_read_in_the_words_of_each_version() {
        let expected = StarStats {
            cpu_usage_us: Some(1500),
            throttled_us: Some(30),
            nr_throttled: Some(2),
            memory_bytes: Some(4096),
            memory_working_set: Some(3072),
            memory_peak: Some(8192),
            pids: Some(2),
            ..StarStats::default()
        };
        let (_folder, v2) = group(
            Version::V2,
            &[
                ("cpu.stat", "usage_usec 1500\nnr_periods 9\nnr_throttled 2\nthrottled_usec 30\n"),
                ("memory.current", "4096\n"),
                ("memory.peak", "8192\n"),
                ("memory.stat", "anon 9\ninactive_file 1024\nactive_file 7\n"),
                ("pids.current", "3\n"),
                ("memory.events", "oom 1\noom_kill 1\n"),
            ],
        );
        assert_eq!((v2.stats(), v2.oom_kills()), (expected, 1));
        let (_folder, v1) = group(
            Version::V1,
            &[
                ("cpuacct.usage", "1500000\n"),
                ("cpu.stat", "nr_periods 9\nnr_throttled 2\nthrottled_time 30000\n"),
                ("memory.usage_in_bytes", "4096\n"),
                ("memory.max_usage_in_bytes", "8192\n"),
                ("memory.stat", "inactive_file 8\ntotal_inactive_file 1024\n"),
                ("pids.current", "3\n"),
                ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            ],
        );
        assert_eq!((v1.stats(), v1.oom_kills()), (expected, 1));
        assert_eq!(Groups::default().stats(), StarStats::default());
    }
}
