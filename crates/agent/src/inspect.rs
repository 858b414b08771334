//! What the host knows of a star, in the words of the API.

use std::collections::BTreeMap;

use api::{HostView, InForce, MountView, PlaceInForce, WallsView};
use isolate::{DiskMeans, Enforced, IO_IN_PART, Inspection, Walls};

pub(crate) fn host_view(found: Inspection) -> HostView {
    let mount = |mount: isolate::MountPoint| MountView {
        at: mount.at.display().to_string(),
        kind: mount.kind,
        source: mount.source,
        options: mount.options,
    };
    let limits = found.limits;
    let place = |place: isolate::PlaceInForce| PlaceInForce {
        at: place.at.display().to_string(),
        bytes: place.bytes,
        means: place.means,
    };
    HostView {
        pid: found.pid,
        start_time: found.start_time,
        program_pid: found.program_pid,
        first_user_id: found.first_user_id,
        user_ids: found.user_ids,
        address: found.address,
        cgroups: found.groups.into_iter().map(|(name, folder)| (name, folder.display().to_string())).collect(),
        namespaces: found.namespaces,
        mounts: found.mounts.into_iter().map(mount).collect(),
        limits: InForce {
            cpu_millicores: limits.cpu_millicores,
            memory_bytes: limits.memory_bytes,
            memory_soft_bytes: limits.memory_soft_bytes,
            pids: limits.pids,
            open_files: limits.open_files,
            cpus: limits.cpus,
            cpu_burst_percent: limits.cpu_burst_percent,
            io_read_bytes_s: limits.io_read_bytes_s,
            io_write_bytes_s: limits.io_write_bytes_s,
            disk_bytes: limits.disk_bytes,
            log_bytes_s: limits.log_bytes_s,
            places: limits.places.into_iter().map(place).collect(),
            means: limits.means,
        },
    }
}

/// The limits that this machine does not hold, with the reasons.
pub(crate) fn not_enforced(walls: &WallsView) -> BTreeMap<String, String> {
    let known = [
        ("cpu", &walls.cpu_not_enforced),
        ("memory", &walls.memory_not_enforced),
        ("soft memory", &walls.memory_not_enforced),
        ("pids", &walls.pids_not_enforced),
        ("processors", &walls.cpus_not_enforced),
        ("cpu burst", &walls.cpu_burst_not_enforced),
        ("disk reads", &walls.io_not_enforced),
        ("disk writes", &walls.io_not_enforced),
        ("size of volumes", &walls.disk_in_memory),
    ];
    known.into_iter().filter_map(|(limit, reason)| Some((limit.to_owned(), reason.clone()?))).collect()
}

/// Which limits hold on this machine.
pub(crate) fn walls_view(nursery_pid: u32, walls: Walls) -> WallsView {
    let reason = |enforced: Enforced| match enforced {
        Enforced::Yes => None,
        Enforced::No { reason } => Some(reason),
    };
    let (disk, disk_in_memory) = match walls.disk {
        DiskMeans::ProjectQuota => ("project_quota", None),
        DiskMeans::Image => ("image", None),
        DiskMeans::Memory { reason } => ("memory", Some(reason)),
    };
    WallsView {
        nursery_pid,
        disk: disk.to_owned(),
        disk_in_memory,
        rootless: walls.rootless,
        cgroup: walls.cgroup,
        cpu_not_enforced: reason(walls.cpu),
        memory_not_enforced: reason(walls.memory),
        pids_not_enforced: reason(walls.pids),
        cpus_not_enforced: reason(walls.pinning),
        cpu_burst_not_enforced: reason(walls.burst),
        cpu_borrow_not_enforced: reason(walls.yielding),
        io_not_limited: (walls.io.is_yes() && walls.io_in_part).then(|| IO_IN_PART.to_owned()),
        io_not_enforced: reason(walls.io),
    }
}

/// The agent's own resident memory (proc_pid_status(5)); 0 when it cannot be read.
pub(crate) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}
