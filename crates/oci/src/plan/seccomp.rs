//! A system call filter, judged: names become numbers of each architecture.

use std::collections::BTreeMap;
use std::path::PathBuf;

use isolate::container::plan::Filter;
use isolate::container::profile::{Architecture, Condition, Profile, Rule, Test};

use super::check_absolute;
use crate::spec;

/// Name and the kernel's `SECCOMP_RET_…`.
pub(crate) const ACTIONS: [(&str, u32); 9] = [
    ("SCMP_ACT_ALLOW", 0x7fff_0000),
    ("SCMP_ACT_ERRNO", 0x0005_0000),
    ("SCMP_ACT_KILL", 0),
    ("SCMP_ACT_KILL_PROCESS", 0x8000_0000),
    ("SCMP_ACT_KILL_THREAD", 0),
    ("SCMP_ACT_LOG", 0x7ffc_0000),
    ("SCMP_ACT_NOTIFY", NOTIFY),
    ("SCMP_ACT_TRACE", 0x7ff0_0000),
    ("SCMP_ACT_TRAP", 0x0003_0000),
];
const NOTIFY: u32 = 0x7fc0_0000;
const EPERM: u32 = 1;
/// What the kernel keeps of the data of a verdict.
const DATA_MAX: u32 = 0xffff;

pub(crate) const OPERATORS: [&str; 7] =
    ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];

/// Name and the kernel's `SECCOMP_FILTER_FLAG_…`.
pub(crate) const FLAGS: [(&str, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_LOG", 1 << 1),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", 1 << 2),
    ("SECCOMP_FILTER_FLAG_TSYNC", 1 << 0),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", 1 << 5),
];

/// Those whose programs this machine can run.
#[cfg(target_arch = "x86_64")]
pub(crate) const ARCHITECTURES: [&str; 3] = ["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];
#[cfg(target_arch = "aarch64")]
pub(crate) const ARCHITECTURES: [&str; 2] = ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];
/// Known, and no program of theirs runs here: they need no rules.
const FOREIGN: [&str; 20] = [
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
];

/// `None` for a filter that filters nothing. Names this machine does not know are left out: their calls cannot be made.
pub(crate) fn filter(seccomp: &spec::Seccomp, notes: &mut Vec<String>) -> Result<Option<Filter>, String> {
    let otherwise = verdict("defaultAction", &seccomp.default_action, seccomp.default_errno_ret)?;
    if otherwise == NOTIFY {
        return Err(
            "`linux.seccomp.defaultAction` may not be `SCMP_ACT_NOTIFY`: nothing could be asked about".to_owned()
        );
    }
    let mut flags = 0;
    for flag in &seccomp.flags {
        let known = FLAGS.iter().find(|(name, _)| name == flag);
        flags |= known.ok_or_else(|| format!("`linux.seccomp.flags`: `{}` is unknown", flag.escape_debug()))?.1;
    }
    let mut rules: Vec<(&String, Rule)> = Vec::new();
    let mut asks = false;
    for call in &seccomp.syscalls {
        let verdict = verdict("syscalls.action", &call.action, call.errno_ret)?;
        if call.names.is_empty() {
            return Err("`linux.seccomp.syscalls` has an entry without `names`".to_owned());
        }
        if verdict == NOTIFY && call.names.iter().any(|name| name == "write") {
            return Err("`SCMP_ACT_NOTIFY` cannot be for `write`: the one to be asked is told by it".to_owned());
        }
        asks |= verdict == NOTIFY;
        let conditions = call.args.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
        let repeated = conditions
            .iter()
            .enumerate()
            .any(|(at, one)| conditions[..at].iter().any(|before| before.argument == one.argument));
        for name in &call.names {
            match repeated {
                // As libseccomp's callers have it: several conditions on one argument are alternatives.
                true => rules.extend(conditions.iter().map(|one| (name, Rule { verdict, conditions: vec![*one] }))),
                false => rules.push((name, Rule { verdict, conditions: conditions.clone() })),
            }
        }
    }
    let listener = match (asks, seccomp.listener_path.is_empty()) {
        (true, true) => return Err("`SCMP_ACT_NOTIFY` takes `linux.seccomp.listenerPath`".to_owned()),
        (true, false) => {
            check_absolute("linux.seccomp.listenerPath", &seccomp.listener_path)?;
            Some(PathBuf::from(&seccomp.listener_path))
        }
        (false, true) if !seccomp.listener_metadata.is_empty() => {
            return Err("`linux.seccomp.listenerMetadata` takes `listenerPath`".to_owned());
        }
        // Nobody would ever be asked.
        (false, _) => None,
    };
    let native = [ARCHITECTURES[ARCHITECTURES.len() - 1].to_owned()];
    let native = if cfg!(target_arch = "aarch64") { [ARCHITECTURES[0].to_owned()] } else { native };
    let names = if seccomp.architectures.is_empty() { &native[..] } else { &seccomp.architectures };
    let mut architectures = Vec::new();
    for name in names {
        if ARCHITECTURES.contains(&&**name) {
            architectures.push(architecture(name, &rules));
        } else if !FOREIGN.contains(&&**name)
            && !["SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32"].contains(&&**name)
        {
            return Err(format!("`linux.seccomp.architectures`: `{}` is unknown", name.escape_debug()));
        }
    }
    if architectures.is_empty() {
        return Err("`linux.seccomp.architectures` leaves out this machine's own".to_owned());
    }
    for (name, _) in &rules {
        if !architectures.iter().any(|one| number(one, name).is_some()) {
            let note = format!("system call `{}` is not known here", name.escape_debug());
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    Ok(Some(Filter {
        profile: Profile { otherwise, architectures },
        flags,
        listener,
        metadata: seccomp.listener_metadata.clone(),
    }))
}

fn verdict(field: &str, action: &str, errno: Option<u32>) -> Result<u32, String> {
    let known = ACTIONS.iter().find(|(name, _)| *name == action);
    let &(_, verdict) =
        known.ok_or_else(|| format!("`linux.seccomp.{field}`: `{}` is unknown", action.escape_debug()))?;
    let takes_data = ["SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"].contains(&action);
    match errno {
        None if takes_data => Ok(verdict | EPERM),
        None => Ok(verdict),
        Some(errno) if takes_data && errno <= DATA_MAX => Ok(verdict | errno),
        Some(errno) if takes_data => Err(format!("`linux.seccomp`: {errno} is not an error number")),
        Some(_) => Err(format!("`linux.seccomp`: `{action}` takes no error number")),
    }
}

fn condition(arg: &spec::SyscallArg) -> Result<Condition, String> {
    if arg.index > 5 {
        return Err(format!("`linux.seccomp.syscalls.args.index` lies between 0 and 5, not at {}", arg.index));
    }
    let test = match &*arg.op {
        "SCMP_CMP_NE" => Test::NotEqual(arg.value),
        "SCMP_CMP_LT" => Test::Less(arg.value),
        "SCMP_CMP_LE" => Test::LessOrEqual(arg.value),
        "SCMP_CMP_EQ" => Test::Equal(arg.value),
        "SCMP_CMP_GE" => Test::GreaterOrEqual(arg.value),
        "SCMP_CMP_GT" => Test::Greater(arg.value),
        "SCMP_CMP_MASKED_EQ" => Test::MaskedEqual { mask: arg.value, value: arg.value_two },
        other => return Err(format!("`linux.seccomp.syscalls.args.op`: `{}` is unknown", other.escape_debug())),
    };
    Ok(Condition { argument: arg.index, test })
}

fn architecture(name: &str, rules: &[(&String, Rule)]) -> Architecture {
    let (audit, x32) = match name {
        "SCMP_ARCH_X86_64" => (0xc000_003e, false),
        "SCMP_ARCH_X32" => (0xc000_003e, true),
        "SCMP_ARCH_X86" => (0x4000_0003, false),
        "SCMP_ARCH_AARCH64" => (0xc000_00b7, false),
        _ => (0x4000_0028, false),
    };
    let mut architecture = Architecture { audit, x32, calls: BTreeMap::new() };
    for (name, rule) in rules {
        if let Some(number) = number(&architecture, name) {
            architecture.calls.entry(number).or_default().push(rule.clone());
        }
    }
    architecture
}

/// Calls that x32 has under numbers of its own, from 512 on.
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

fn number(architecture: &Architecture, name: &str) -> Option<u32> {
    if architecture.x32
        && let Some(at) = X32_OWN.iter().position(|own| *own == name)
    {
        return Some(512 + at as u32);
    }
    match architecture.audit {
        0xc000_003e => name.parse::<syscalls::x86_64::Sysno>().ok().map(|number| number.id() as u32),
        0x4000_0003 => name.parse::<syscalls::x86::Sysno>().ok().map(|number| number.id() as u32),
        0xc000_00b7 => name.parse::<syscalls::aarch64::Sysno>().ok().map(|number| number.id() as u32),
        _ => name.parse::<syscalls::arm::Sysno>().ok().map(|number| number.id() as u32),
    }
}
