//! Who a process is and what it may do, judged.

use isolate::container::plan::{Capabilities, MemoryPolicy, Process, Scheduler};
use isolate::container::resource_number;

use super::{Circumstances, capability, check_absolute};
use crate::spec;

const OOM_SCORE: std::ops::RangeInclusive<i32> = -1000..=1000;

pub(crate) fn process(
    spec: &spec::Process,
    at: Circumstances<'_>,
    warnings: &mut Vec<String>,
) -> Result<Process, String> {
    if spec.args.first().is_none_or(String::is_empty) {
        return Err("`process.args` is empty: there is no program to run".to_owned());
    }
    if spec.cwd.is_empty() {
        return Err("`process.cwd` is missing".to_owned());
    }
    check_absolute("process.cwd", &spec.cwd)?;
    if spec.args.iter().chain(&spec.env).any(|text| text.contains('\0')) {
        return Err("`process.args` or `process.env` holds a NUL byte".to_owned());
    }
    for variable in &spec.env {
        if variable.split_once('=').is_none_or(|(name, _)| name.is_empty()) {
            return Err(format!("`process.env`: `{}` is not `NAME=value`", variable.escape_debug()));
        }
    }
    if let Some(score) = spec.oom_score_adj.filter(|score| !OOM_SCORE.contains(score)) {
        return Err(format!("`process.oomScoreAdj` lies between -1000 and 1000, not at {score}"));
    }
    // To the kernel it means "as it is", and that is root.
    if [spec.user.uid, spec.user.gid].iter().chain(&spec.user.additional_gids).any(|id| *id == u32::MAX) {
        return Err(format!("`process.user`: {} is nobody's id", u32::MAX));
    }
    if let Some(umask) = spec.user.umask.filter(|umask| *umask > 0o777) {
        return Err(format!("`process.user.umask` is {umask:#o}, and no more than 0o777 is one"));
    }
    if !spec.apparmor_profile.is_empty() && !at.apparmor {
        return Err("`process.apparmorProfile` takes AppArmor, which this kernel does not have on".to_owned());
    }
    if !spec.selinux_label.is_empty() {
        return Err(match at.selinux {
            true => "`process.selinuxLabel` is not supported".to_owned(),
            false => "`process.selinuxLabel` takes SELinux, which this kernel does not have on".to_owned(),
        });
    }
    let size = spec.console_size.filter(|size| spec.terminal && (size.height, size.width) != (0, 0));
    Ok(Process {
        args: spec.args.clone(),
        env: spec.env.clone(),
        cwd: spec.cwd.clone(),
        uid: spec.user.uid,
        gid: spec.user.gid,
        additional_gids: spec.user.additional_gids.clone(),
        umask: spec.user.umask,
        terminal: spec.terminal,
        terminal_size: size.map(|size| (size.height, size.width)),
        capabilities: capabilities(spec.capabilities.as_ref(), warnings),
        no_new_privileges: spec.no_new_privileges,
        rlimits: rlimits(&spec.rlimits)?,
        oom_score_adj: spec.oom_score_adj,
        scheduler: spec.scheduler.as_ref().map(scheduler).transpose()?,
        io_priority: spec.io_priority.as_ref().map(io_priority).transpose()?,
        apparmor_profile: Some(spec.apparmor_profile.clone()).filter(|profile| !profile.is_empty()),
        memory_policy: None,
        // Only for processes that are run in a container afterwards.
        cpus: Vec::new(),
        filter: None,
        preserved: Vec::new(),
    })
}

/// What cannot be mapped to a capability is a warning, as the specification has it.
fn capabilities(spec: Option<&spec::Capabilities>, warnings: &mut Vec<String>) -> Capabilities {
    let Some(spec) = spec else { return Capabilities::default() };
    let mut set = |names: &[String]| {
        let mut bits = 0;
        for name in names {
            match capability(name) {
                Some(number) => bits |= 1 << number,
                None => {
                    // In words that a conformance suite looks for.
                    let warning = format!("`process.capabilities`: there is no variant for {}", name.escape_debug());
                    if !warnings.contains(&warning) {
                        warnings.push(warning);
                    }
                }
            }
        }
        bits
    };
    Capabilities {
        bounding: set(&spec.bounding),
        effective: set(&spec.effective),
        permitted: set(&spec.permitted),
        inheritable: set(&spec.inheritable),
        ambient: set(&spec.ambient),
    }
}

fn rlimits(limits: &[spec::Rlimit]) -> Result<Vec<(u32, u64, u64)>, String> {
    let mut found: Vec<(u32, u64, u64)> = Vec::new();
    for limit in limits {
        let number = resource_number(&limit.kind)
            .ok_or_else(|| format!("`process.rlimits`: `{}` is not a resource", limit.kind.escape_debug()))?;
        if found.iter().any(|&(known, ..)| known == number) {
            return Err(format!("`process.rlimits` lists `{}` twice", limit.kind));
        }
        if limit.soft > limit.hard {
            return Err(format!(
                "`process.rlimits`: the soft limit of `{}` ({}) is above the hard one ({})",
                limit.kind, limit.soft, limit.hard
            ));
        }
        found.push((number, limit.soft, limit.hard));
    }
    Ok(found)
}

fn scheduler(spec: &spec::Scheduler) -> Result<Scheduler, String> {
    let policies = [
        ("SCHED_OTHER", 0),
        ("SCHED_FIFO", 1),
        ("SCHED_RR", 2),
        ("SCHED_BATCH", 3),
        ("SCHED_ISO", 4),
        ("SCHED_IDLE", 5),
        ("SCHED_DEADLINE", 6),
    ];
    let flags = [
        ("SCHED_FLAG_RESET_ON_FORK", 0x01),
        ("SCHED_FLAG_RECLAIM", 0x02),
        ("SCHED_FLAG_DL_OVERRUN", 0x04),
        ("SCHED_FLAG_KEEP_POLICY", 0x08),
        ("SCHED_FLAG_KEEP_PARAMS", 0x10),
        ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
        ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
    ];
    let policy = policies.iter().find(|(name, _)| *name == spec.policy);
    let unknown =
        |field: &str, name: &str| format!("`process.scheduler.{field}`: `{}` is unknown", name.escape_debug());
    let &(_, policy) = policy.ok_or_else(|| unknown("policy", &spec.policy))?;
    let mut bits = 0;
    for flag in &spec.flags {
        bits |= flags.iter().find(|(name, _)| name == flag).ok_or_else(|| unknown("flags", flag))?.1;
    }
    if !(-20..=19).contains(&spec.nice) {
        return Err(format!("`process.scheduler.nice` lies between -20 and 19, not at {}", spec.nice));
    }
    if spec.priority != 0 && ![1, 2].contains(&policy) {
        return Err("`process.scheduler.priority` is for `SCHED_FIFO` and `SCHED_RR`".to_owned());
    }
    if (spec.runtime, spec.deadline, spec.period) != (0, 0, 0) && policy != 6 {
        return Err("`process.scheduler.runtime`, `deadline` and `period` are for `SCHED_DEADLINE`".to_owned());
    }
    Ok(Scheduler {
        policy,
        flags: bits,
        nice: spec.nice,
        priority: spec.priority,
        runtime: spec.runtime,
        deadline: spec.deadline,
        period: spec.period,
    })
}

fn io_priority(spec: &spec::IoPriority) -> Result<u16, String> {
    let class = match &*spec.class {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => return Err(format!("`process.ioPriority.class`: `{}` is unknown", other.escape_debug())),
    };
    match spec.priority {
        level @ 0..8 => Ok(class << 13 | level as u16),
        level => Err(format!("`process.ioPriority.priority` lies between 0 and 7, not at {level}")),
    }
}

/// Name and the kernel's `MPOL_…`.
pub(crate) const MEMORY_MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];
pub(crate) const MEMORY_FLAGS: [(&str, u32); 3] =
    [("MPOL_F_NUMA_BALANCING", 1 << 13), ("MPOL_F_RELATIVE_NODES", 1 << 14), ("MPOL_F_STATIC_NODES", 1 << 15)];

/// Which modes go with which flags and nodes the kernel says.
pub(crate) fn memory_policy(spec: &spec::MemoryPolicy) -> Result<MemoryPolicy, String> {
    let find = |field: &str, known: &[(&str, u32)], name: &str| {
        let found = known.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
        found.ok_or_else(|| format!("`linux.memoryPolicy.{field}`: `{}` is unknown", name.escape_debug()))
    };
    let mut mode = find("mode", &MEMORY_MODES, &spec.mode)?;
    for flag in &spec.flags {
        mode |= find("flags", &MEMORY_FLAGS, flag)?;
    }
    let nodes = match spec.nodes.trim() {
        "" => Vec::new(),
        nodes => numbers(nodes).ok_or_else(|| {
            format!("`linux.memoryPolicy.nodes`: `{}` is not a list of nodes such as `0-3,7`", nodes.escape_debug())
        })?,
    };
    Ok(MemoryPolicy { mode, nodes })
}

/// A list of processors such as `0-3,7`.
pub(crate) fn affinity(text: &str) -> Result<Vec<usize>, String> {
    numbers(text).ok_or_else(|| format!("`{}` is not a list of processors such as `0-3,7`", text.escape_debug()))
}

fn numbers(text: &str) -> Option<Vec<usize>> {
    /// As many as the kernel's own sets of processors and of nodes hold.
    const NUMBERS_MAX: usize = 1024;
    let mut found = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|number| *number < NUMBERS_MAX);
        let (first, last) = number(first).zip(number(last))?;
        if first > last {
            return None;
        }
        found.extend(first..=last);
    }
    Some(found)
}
