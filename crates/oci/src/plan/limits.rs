//! What a container may use, in the words of both versions of control groups.
//!
//! Each value becomes a line for a file. What one version lacks is listed for it all the same: the engine then says that
//! this machine does not have it, and nothing is dropped in silence.

use isolate::container::plan::DeviceKind;
use isolate::container::{DeviceRule, Lacking, Limits, Setting};

use crate::spec::{BlockIo, Cpu, DeviceRule as RuleSpec, Memory, Resources, ThrottleDevice};

/// The kernel's own range of `cpu.shares`, which version 2 has as weights from 1 to 10,000.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;
/// The same for disks: weights of 10 to 1000 become 1 to 10,000.
const DISK_WEIGHTS: std::ops::RangeInclusive<u16> = 10..=1000;
const PERIOD_US: u64 = 100_000;

/// Collects the lines of both versions.
#[derive(Default)]
struct Lines {
    v1: Vec<Setting>,
    v2: Vec<Setting>,
}

impl Lines {
    fn v1(&mut self, controller: &str, file: &str, value: impl ToString) {
        self.v1.push(setting(controller, file, value));
    }

    /// The same, with what is to be done where a group has no such file.
    fn v1_or(&mut self, controller: &str, file: &str, value: impl ToString, lacking: Lacking) {
        self.v1.push(Setting { lacking, ..setting(controller, file, value) });
    }

    fn v2_or(&mut self, controller: &str, file: &str, value: impl ToString, lacking: Lacking) {
        self.v2.push(Setting { lacking, ..setting(controller, file, value) });
    }

    fn v2(&mut self, controller: &str, file: &str, value: impl ToString) {
        self.v2.push(setting(controller, file, value));
    }

    fn both(&mut self, controller: &str, file: &str, value: impl ToString) {
        let value = value.to_string();
        self.v1(controller, file, &value);
        self.v2(controller, file, value);
    }
}

fn setting(controller: &str, file: &str, value: impl ToString) -> Setting {
    let (controller, file) = (controller.to_owned(), file.to_owned());
    Setting { controller, file, value: value.to_string(), lacking: Lacking::Refused }
}

fn instead(file: &str, value: impl ToString) -> Lacking {
    Lacking::Instead { file: file.to_owned(), value: value.to_string() }
}

pub(crate) fn limits(resources: &Resources) -> Result<Limits, String> {
    let mut lines = Lines::default();
    cpu(&resources.cpu, &mut lines)?;
    memory(&resources.memory, &mut lines)?;
    match resources.pids.limit {
        None | Some(0) => {}
        Some(limit) if limit < 0 => lines.both("pids", "pids.max", "max"),
        Some(limit) => lines.both("pids", "pids.max", limit),
    }
    block_io(&resources.block_io, &mut lines)?;
    for limit in &resources.hugepage_limits {
        let size = &limit.page_size;
        if !size.chars().all(|c| c.is_ascii_alphanumeric()) || size.is_empty() {
            return Err(format!("`linux.resources.hugepageLimits`: `{}` is not a size", size.escape_debug()));
        }
        lines.v1("hugetlb", &format!("hugetlb.{size}.limit_in_bytes"), limit.limit);
        lines.v2("hugetlb", &format!("hugetlb.{size}.max"), limit.limit);
        // What is reserved and not touched yet, where the kernel counts it.
        lines.v1_or("hugetlb", &format!("hugetlb.{size}.rsvd.limit_in_bytes"), limit.limit, Lacking::Ignored);
        lines.v2_or("hugetlb", &format!("hugetlb.{size}.rsvd.max"), limit.limit, Lacking::Ignored);
    }
    if let Some(class) = resources.network.class_id {
        lines.both("net_cls", "net_cls.classid", class);
    }
    for one in &resources.network.priorities {
        if one.name.contains([' ', '\n']) || one.name.is_empty() {
            return Err(format!("`linux.resources.network.priorities`: `{}` is no interface", one.name.escape_debug()));
        }
        lines.both("net_prio", "net_prio.ifpriomap", format!("{} {}", one.name, one.priority));
    }
    for (device, limit) in &resources.rdma {
        let part = |name: &str, value: Option<u32>| value.map(|value| format!(" {name}={value}")).unwrap_or_default();
        let (handles, objects) = (part("hca_handle", limit.hca_handles), part("hca_object", limit.hca_objects));
        lines.both("rdma", "rdma.max", format!("{device}{handles}{objects}"));
    }
    for (file, value) in &resources.unified {
        let controller = file.split_once('.').map(|(controller, _)| controller);
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let controller = controller.filter(|controller| !controller.is_empty() && file.chars().all(fits));
        let controller = controller
            .ok_or_else(|| format!("`linux.resources.unified`: `{}` is no file of a cgroup", file.escape_debug()))?;
        // Only version 2 has what this is for.
        lines.v1("cgroup2", file, value);
        lines.v2(controller, file, value);
    }
    let devices = resources.devices.iter().map(device_rule).collect::<Result<_, _>>()?;
    Ok(Limits { v1: lines.v1, v2: lines.v2, devices })
}

fn cpu(cpu: &Cpu, lines: &mut Lines) -> Result<(), String> {
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        let held = shares.clamp(*SHARES.start(), *SHARES.end());
        lines.v1("cpu", "cpu.shares", shares);
        lines.v2("cpu", "cpu.weight", 1 + (held - 2) * 9999 / 262_142);
    }
    let quota = cpu.quota.filter(|quota| *quota != 0);
    let period = cpu.period.filter(|period| *period != 0);
    if let Some(period) = period {
        lines.v1("cpu", "cpu.cfs_period_us", period);
    }
    if let Some(quota) = quota {
        lines.v1("cpu", "cpu.cfs_quota_us", quota.max(-1));
    }
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|quota| *quota > 0).map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        lines.v2("cpu", "cpu.max", format!("{quota} {}", period.unwrap_or(PERIOD_US)));
    }
    if let Some(burst) = cpu.burst {
        lines.v1("cpu", "cpu.cfs_burst_us", burst);
        lines.v2("cpu", "cpu.max.burst", burst);
    }
    if let Some(idle) = cpu.idle {
        lines.both("cpu", "cpu.idle", idle);
    }
    if let Some(period) = cpu.realtime_period.filter(|period| *period != 0) {
        lines.both("cpu", "cpu.rt_period_us", period);
    }
    if let Some(runtime) = cpu.realtime_runtime.filter(|runtime| *runtime != 0) {
        lines.both("cpu", "cpu.rt_runtime_us", runtime);
    }
    for (file, list) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if !list.is_empty() {
            if !list.chars().all(|c| c.is_ascii_digit() || " ,-".contains(c)) {
                return Err(format!("`linux.resources.cpu`: `{}` is not a list of numbers", list.escape_debug()));
            }
            lines.both("cpuset", file, list);
        }
    }
    Ok(())
}

fn memory(memory: &Memory, lines: &mut Lines) -> Result<(), String> {
    let given = |value: Option<i64>| value.filter(|value| *value != 0);
    // What is below -1 means nothing to the kernel.
    let or_max = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
    let (limit, swap) = (given(memory.limit), given(memory.swap));
    if let (Some(limit), Some(swap)) = (limit, swap)
        && swap >= 0
        && (swap < limit || limit < 0)
    {
        return Err(format!("`linux.resources.memory.swap` ({swap}) is memory and swap together: at least `limit`"));
    }
    if let Some(limit) = limit {
        lines.v1("memory", "memory.limit_in_bytes", limit.max(-1));
        lines.v2("memory", "memory.max", or_max(limit));
    }
    if let Some(swap) = swap {
        lines.v1("memory", "memory.memsw.limit_in_bytes", swap.max(-1));
        match (swap, limit) {
            (..0, _) => lines.v2("memory", "memory.swap.max", "max"),
            (swap, Some(limit)) => lines.v2("memory", "memory.swap.max", swap - limit),
            (_, None) => return Err("`linux.resources.memory.swap` takes a `limit`".to_owned()),
        }
    }
    if let Some(reservation) = given(memory.reservation) {
        lines.v1("memory", "memory.soft_limit_in_bytes", reservation.max(-1));
        lines.v2("memory", "memory.low", or_max(reservation));
    }
    if let Some(tcp) = given(memory.kernel_tcp) {
        lines.both("memory", "memory.kmem.tcp.limit_in_bytes", tcp);
    }
    if let Some(kernel) = given(memory.kernel) {
        lines.both("memory", "memory.kmem.limit_in_bytes", kernel);
    }
    if let Some(swappiness) = memory.swappiness {
        if swappiness > 100 {
            return Err(format!("`linux.resources.memory.swappiness` lies between 0 and 100, not at {swappiness}"));
        }
        lines.both("memory", "memory.swappiness", swappiness);
    }
    if memory.disable_oom_killer == Some(true) {
        lines.both("memory", "memory.oom_control", 1);
    }
    if memory.use_hierarchy == Some(true) {
        // Version 2 knows nothing else.
        lines.v1("memory", "memory.use_hierarchy", 1);
    }
    Ok(())
}

fn block_io(io: &BlockIo, lines: &mut Lines) -> Result<(), String> {
    let check = |weight: u16| match DISK_WEIGHTS.contains(&weight) {
        true => Ok(1 + (u64::from(weight) - 10) * 9999 / 990),
        false => Err(format!("`linux.resources.blockIO`: a weight lies between 10 and 1000, not at {weight}")),
    };
    if let Some(weight) = io.weight.filter(|weight| *weight != 0) {
        // One scheduler has weights of its own, in the bundle's range.
        lines.v2_or("io", "io.bfq.weight", weight, instead("io.weight", check(weight)?));
        lines.v1_or("blkio", "blkio.bfq.weight", weight, instead("blkio.weight", weight));
    }
    if let Some(weight) = io.leaf_weight.filter(|weight| *weight != 0) {
        check(weight)?;
        lines.v1("blkio", "blkio.leaf_weight", weight);
        lines.v2("io", "io.leaf_weight", weight);
    }
    for device in &io.weight_device {
        let number = number(device.major, device.minor)?;
        if let Some(weight) = device.weight {
            let (line, scaled) = (format!("{number} {weight}"), format!("{number} {}", check(weight)?));
            lines.v2_or("io", "io.bfq.weight", &line, instead("io.weight", scaled));
            lines.v1_or("blkio", "blkio.bfq.weight_device", &line, instead("blkio.weight_device", &line));
        }
        if let Some(weight) = device.leaf_weight {
            check(weight)?;
            lines.v1("blkio", "blkio.leaf_weight_device", format!("{number} {weight}"));
            lines.v2("io", "io.leaf_weight", format!("{number} {weight}"));
        }
    }
    let kinds: [(&[ThrottleDevice], &str, &str); 4] = [
        (&io.throttle_read_bps_device, "blkio.throttle.read_bps_device", "rbps"),
        (&io.throttle_write_bps_device, "blkio.throttle.write_bps_device", "wbps"),
        (&io.throttle_read_iops_device, "blkio.throttle.read_iops_device", "riops"),
        (&io.throttle_write_iops_device, "blkio.throttle.write_iops_device", "wiops"),
    ];
    for (devices, file, word) in kinds {
        for device in devices {
            let number = number(device.major, device.minor)?;
            lines.v1("blkio", file, format!("{number} {}", device.rate));
            // Version 1 takes 0 for none.
            let rate = if device.rate == 0 { "max".to_owned() } else { device.rate.to_string() };
            lines.v2("io", "io.max", format!("{number} {word}={rate}"));
        }
    }
    Ok(())
}

fn number(major: i64, minor: i64) -> Result<String, String> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(format!("{major}:{minor}")),
        _ => Err(format!("{major}:{minor} is not a device's number")),
    }
}

fn device_rule(rule: &RuleSpec) -> Result<DeviceRule, String> {
    let field = "`linux.resources.devices`";
    let kind = match &*rule.kind {
        "" | "a" => None,
        "c" | "u" => Some(DeviceKind::Character),
        "b" => Some(DeviceKind::Block),
        other => return Err(format!("{field}: `{}` is not a kind of device", other.escape_debug())),
    };
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => {
            u32::try_from(number).map(Some).map_err(|_| format!("{field}: {number} is not a number of one"))
        }
    };
    if let Some(letter) = rule.access.chars().find(|c| !"rwm".contains(*c)) {
        return Err(format!("{field}: access is made of `r`, `w` and `m`, and `{}` is none", letter.escape_debug()));
    }
    // Left out it means all.
    let has = |letter| rule.access.is_empty() || rule.access.contains(letter);
    Ok(DeviceRule {
        allow: rule.allow,
        kind,
        major: number(rule.major)?,
        minor: number(rule.minor)?,
        read: has('r'),
        write: has('w'),
        mknod: has('m'),
    })
}
