//! A star's limits as they are in force: read back from whatever holds each of them, and by what that is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use model::Limits;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::process::Resource;
use serde::{Deserialize, Serialize};

use crate::disk;
use crate::record::Record;
use crate::sys;
use crate::usage::Mount;

/// Limits as what holds them has them. `None`: it holds none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    pub cpu_millicores: Option<u64>,
    /// Of unused processor time, how much may be used later, in percent of what it has in a period.
    pub cpu_burst_percent: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub memory_soft_bytes: Option<u64>,
    pub pids: Option<u64>,
    pub open_files: Option<u64>,
    /// The processors it may run on, as `0-1,3`.
    pub cpus: Option<String>,
    /// Bytes a second.
    pub io_read_bytes_s: Option<u64>,
    pub io_write_bytes_s: Option<u64>,
    /// Of its own disk; `None` when it has none.
    pub disk_bytes: Option<u64>,
    /// What of its output is taken in a second.
    pub log_bytes_s: Option<u64>,
    /// Its other places to write to: volumes and memory file systems.
    pub places: Vec<PlaceInForce>,
    /// By what each limit above is held, by the names that `model::limits` has for people.
    pub means: BTreeMap<String, String>,
}

/// A writable place and how much it may hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceInForce {
    pub at: PathBuf,
    /// `None`: as much as the file system it is on.
    pub bytes: Option<u64>,
    /// By what; `None` when it is not.
    pub means: Option<String>,
}

/// What bounds a place, as far as that can be read.
type Bound = Option<(u64, String)>;

/// The star's limits. `folder` is the star's, `member` a process in it, `mounts` what that sees.
pub(crate) fn read(record: &Record, folder: &Path, member: u32, mounts: &[Mount]) -> InForce {
    let mut limits = record.groups.in_force();
    let mut held_by = |limit: &str, means: String| drop(limits.means.insert(limit.to_owned(), means));
    if let Some(pids) = record.groups.fixed_pids {
        limits.pids = limits.pids.or(Some(pids.into()));
        held_by("pids", "process limit (RLIMIT_NPROC)".to_owned());
    }
    limits.open_files = sys::process::rlimit(member, Resource::Nofile).ok().and_then(|limit| limit.current);
    held_by("open files", "process limit (RLIMIT_NOFILE)".to_owned());
    let asked = record.limits.unwrap_or(Limits::UNLIMITED);
    limits.log_bytes_s = Some(asked.log_rate.map_or(Limits::LOG_RATE_MAX, |rate| rate.min(Limits::LOG_RATE_MAX)).0);
    held_by("log rate", "nursery, by what it reads".to_owned());
    if let Some((bytes, means)) = asked.disk.and_then(|_| of_disk(folder, member, mounts)) {
        held_by("disk", means);
        limits.disk_bytes = Some(bytes);
    }
    let writable = record.stance.writable.iter().filter(|inside| *inside != "/");
    limits.places = writable.map(|inside| of_place(Path::new(inside), member, mounts)).collect();
    limits
}

/// The star's own disk, which is its `/tmp` too.
fn of_disk(folder: &Path, member: u32, mounts: &[Mount]) -> Bound {
    match disk::quota_of(&folder.join("disk")) {
        Ok(Some(bytes)) => Some((bytes, "project quota".to_owned())),
        _ => of_mount(Path::new("/tmp"), member, mounts),
    }
}

fn of_place(at: &Path, member: u32, mounts: &[Mount]) -> PlaceInForce {
    let quota = || {
        let place = open(member, at).ok()?;
        let bytes = disk::quota_at(&place).ok().flatten()?;
        Some((bytes, "project quota".to_owned()))
    };
    let (bytes, means) = of_mount(at, member, mounts).or_else(quota).unzip();
    PlaceInForce { at: at.to_owned(), bytes, means }
}

/// What is mounted at a place, where that is a file system of its own.
fn of_mount(at: &Path, member: u32, mounts: &[Mount]) -> Bound {
    let mount = mounts.iter().rev().find(|mount| mount.at == at)?;
    if mount.kind == "tmpfs" {
        let stat = rustix::fs::fstatvfs(open(member, at).ok()?).ok()?;
        return Some((stat.f_blocks * stat.f_frsize, "memory file system".to_owned()));
    }
    let device = mount.source.strip_prefix("/dev/").filter(|name| name.starts_with("loop") && !name.contains('/'))?;
    /// The kernel counts a device's size in these, whatever its blocks are.
    const SECTOR: u64 = 512;
    let sectors: u64 = fs::read_to_string(format!("/sys/class/block/{device}/size")).ok()?.trim().parse().ok()?;
    Some((sectors * SECTOR, format!("image on /dev/{device}")))
}

/// A place within a star, through any process in it. No link on the way is followed.
fn open(member: u32, at: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(format!("/proc/{member}/root"), flags, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(root.as_fd(), at, flags, Mode::empty(), resolve)?)
}
