//! A bundle's configuration, judged: what the engine is to do, or the first thing that is wrong with it.
//!
//! Pure: nothing is looked at but the text and what the caller says of the machine.

mod limits;
mod mounts;
mod names;
mod process;
mod seccomp;

use std::path::{Path, PathBuf};
use std::time::Duration;

use isolate::container::plan::{
    Device, DeviceKind, Hook, IdMap, Kind, Namespaces, NetDevice, Plan, Process, Propagation,
};
use isolate::container::{DeviceRule, GroupPath};

pub(crate) use limits::limits;
pub(crate) use mounts::KNOWN_OPTIONS;
pub(crate) use names::{CAPABILITIES, capability};
pub(crate) use process::{MEMORY_FLAGS, MEMORY_MODES, affinity, memory_policy, process};
pub(crate) use seccomp::{ACTIONS, ARCHITECTURES, FLAGS, OPERATORS, filter};

use crate::spec::{self, Spec};

/// The newest version of the specification this is written for.
pub(crate) const VERSION: &str = "1.2.0";
/// Longest id: it becomes a folder's and a group's name.
const ID_MAX: usize = 255;
/// The kernel's longest host name.
const NAME_MAX: usize = 64;

/// A judged configuration.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) plan: Plan,
    pub(crate) hooks: Hooks,
    pub(crate) groups: GroupPath,
    /// Whether the groups may be done without: nobody named a place for them.
    pub(crate) groups_optional: bool,
    pub(crate) limits: isolate::container::Limits,
    /// What is asked for, not had, and no error by the specification.
    pub(crate) warnings: Vec<String>,
    /// What this machine does not know and nobody misses.
    pub(crate) notes: Vec<String>,
}

/// What is run in the creator's namespaces.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    pub(crate) prestart: Vec<Hook>,
    pub(crate) create_runtime: Vec<Hook>,
    pub(crate) poststart: Vec<Hook>,
    pub(crate) poststop: Vec<Hook>,
}

/// What of the caller and its machine a judgement depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances<'a> {
    pub(crate) bundle: &'a Path,
    pub(crate) id: &'a str,
    /// The caller's own ids on this host.
    pub(crate) uid: u32,
    pub(crate) apparmor: bool,
    pub(crate) selinux: bool,
}

/// An id is a name: letters, digits and a few marks.
pub(crate) fn check_id(id: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id.len() > ID_MAX || id == "." || id == ".." || !id.chars().all(fits) {
        return Err(format!(
            "`{}` is not a container's id: letters, digits, `_`, `+`, `-` and `.`, {ID_MAX} at most",
            id.escape_debug()
        ));
    }
    Ok(())
}

/// Judges a configuration.
pub(crate) fn bundle(spec: &Spec, at: Circumstances<'_>) -> Result<Bundle, String> {
    check_version(&spec.oci_version)?;
    let (mut warnings, mut notes) = (Vec::new(), Vec::new());
    let linux = &spec.linux;
    let root = spec.root.as_ref().ok_or("`root` is missing")?;
    if root.path.is_empty() {
        return Err("`root.path` is missing".to_owned());
    }
    check_path("root.path", &root.path)?;
    let namespaces = namespaces(linux)?;
    let apart = |kind| namespaces.is_apart(kind);
    for (field, value, kind) in [("hostname", &spec.hostname, Kind::Uts), ("domainname", &spec.domainname, Kind::Uts)] {
        if value.len() > NAME_MAX || value.contains('\0') {
            return Err(format!("`{field}` is longer than {NAME_MAX} bytes"));
        }
        if !value.is_empty() && !apart(kind) {
            warnings.push(format!("`{field}` is not set: it would be the host's, for want of a `uts` namespace"));
        }
    }
    let named = |name: &String| Some(name.clone()).filter(|name| !name.is_empty() && apart(Kind::Uts));
    for (field, paths) in [("maskedPaths", &linux.masked_paths), ("readonlyPaths", &linux.readonly_paths)] {
        paths.iter().try_for_each(|path| check_absolute(&format!("linux.{field}"), path))?;
    }
    let covers = !linux.masked_paths.is_empty() || !linux.readonly_paths.is_empty() || !spec.mounts.is_empty();
    if covers && !apart(Kind::Mount) {
        warnings
            .push("mounts and covers are the host's too, until `delete`, for want of a `mount` namespace".to_owned());
    }
    if linux.intel_rdt.is_some() {
        return Err("`linux.intelRdt` is not supported".to_owned());
    }
    if !linux.mount_label.is_empty() && !at.selinux {
        return Err("`linux.mountLabel` takes SELinux, which this kernel does not have on".to_owned());
    }
    if !linux.mount_label.is_empty() {
        return Err("`linux.mountLabel` is not supported".to_owned());
    }
    let mut process = match &spec.process {
        Some(spec) => process(spec, at, &mut warnings)?,
        // Only the start takes one.
        None => Process { cwd: "/".to_owned(), ..Process::default() },
    };
    process.memory_policy = linux.memory_policy.as_ref().map(memory_policy).transpose()?;
    process.filter = linux.seccomp.as_ref().map(|seccomp| filter(seccomp, &mut notes)).transpose()?.flatten();
    let hooks = hooks(&spec.hooks)?;
    let mounts = mounts::mounts(&spec.mounts, at.bundle, &namespaces, &mut warnings, &mut notes)?;
    let (groups, groups_optional) = group_path(&linux.cgroups_path, at)?;
    let resources = linux.resources.clone().unwrap_or_default();
    let mut limits = limits(&resources)?;
    let mut rules = vec![everything(false)];
    rules.append(&mut limits.devices);
    rules.extend(DeviceRule::always());
    limits.devices = rules;
    let plan = Plan {
        root: at.bundle.join(&root.path),
        read_only_root: root.readonly,
        root_propagation: root_propagation(&linux.rootfs_propagation)?,
        hostname: named(&spec.hostname),
        domainname: named(&spec.domainname),
        sysctl: sysctls(linux, &namespaces)?,
        mounts,
        devices: linux.devices.iter().map(device).collect::<Result<_, _>>()?,
        masked_paths: linux.masked_paths.clone(),
        read_only_paths: linux.readonly_paths.clone(),
        process,
        create_container: hooks.1,
        start_container: hooks.2,
        stop_before_root: !hooks.0.prestart.is_empty() || !hooks.0.create_runtime.is_empty(),
        personality: linux.personality.as_ref().map(personality).transpose()?,
        no_pivot: false,
        new_keyring: true,
        namespaces,
    };
    Ok(Bundle { plan, hooks: hooks.0, groups, groups_optional, limits, warnings, notes })
}

fn everything(allow: bool) -> DeviceRule {
    DeviceRule { allow, kind: None, major: None, minor: None, read: true, write: true, mknod: true }
}

/// `1.x.y`, perhaps with what semantic versions have after it.
fn check_version(version: &str) -> Result<(), String> {
    if version.is_empty() {
        return Err("`ociVersion` is missing".to_owned());
    }
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let number = |part: &str| {
        let plain =
            !part.is_empty() && part.chars().all(|c| c.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
        plain.then(|| part.parse::<u32>().ok()).flatten()
    };
    let numbers: Option<Vec<u32>> = core.split('.').map(number).collect();
    match numbers.as_deref() {
        Some([1, _, _]) => Ok(()),
        Some([_, _, _]) => Err(format!("`ociVersion` is `{version}`, and only 1.x is understood")),
        _ => Err(format!("`ociVersion` is `{}`, which is no semantic version", version.escape_debug())),
    }
}

fn check_path(field: &str, path: &str) -> Result<(), String> {
    match path.contains('\0') {
        true => Err(format!("`{field}` holds a NUL byte")),
        false => Ok(()),
    }
}

fn check_absolute(field: &str, path: &str) -> Result<(), String> {
    check_path(field, path)?;
    match path.starts_with('/') {
        true => Ok(()),
        false => Err(format!("`{field}` has to be an absolute path, not `{}`", path.escape_debug())),
    }
}

fn namespaces(linux: &spec::Linux) -> Result<Namespaces, String> {
    let mut namespaces = Namespaces::default();
    for entry in &linux.namespaces {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == entry.kind);
        let kind = kind.ok_or_else(|| format!("`{}` is not a kind of namespace", entry.kind.escape_debug()))?;
        if namespaces.is_apart(kind) {
            return Err(format!("the namespace `{}` is listed twice", entry.kind));
        }
        match entry.path.is_empty() {
            true => namespaces.new.push(kind),
            false => {
                check_absolute("linux.namespaces.path", &entry.path)?;
                namespaces.joined.push((kind, PathBuf::from(&entry.path)));
            }
        }
    }
    let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    if mapped && !namespaces.is_apart(Kind::User) {
        return Err("`linux.uidMappings` and `gidMappings` take a `user` namespace".to_owned());
    }
    if namespaces.is_new(Kind::User) && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty()) {
        return Err("a new `user` namespace takes `linux.uidMappings` and `gidMappings`".to_owned());
    }
    namespaces.uid_map = id_maps("linux.uidMappings", &linux.uid_mappings)?;
    namespaces.gid_map = id_maps("linux.gidMappings", &linux.gid_mappings)?;
    for (clock, offset) in &linux.time_offsets {
        if !namespaces.is_new(Kind::Time) {
            return Err("`linux.timeOffsets` takes a new `time` namespace".to_owned());
        }
        if !["monotonic", "boottime"].contains(&&**clock) {
            return Err(format!(
                "`linux.timeOffsets` knows `monotonic` and `boottime`, not `{}`",
                clock.escape_debug()
            ));
        }
        namespaces.time_offsets.push((clock.clone(), offset.secs, offset.nanosecs));
    }
    for (name, device) in &linux.net_devices {
        if !namespaces.is_apart(Kind::Network) {
            return Err("`linux.netDevices` takes a `network` namespace of the container's own".to_owned());
        }
        let inside = if device.name.is_empty() { name } else { &device.name };
        for name in [name, inside] {
            check_device_name(name)?;
        }
        if namespaces.devices.iter().any(|other| other.inside == *inside) {
            return Err(format!("`linux.netDevices` names two devices `{inside}`"));
        }
        namespaces.devices.push(NetDevice { name: name.clone(), inside: inside.clone() });
    }
    Ok(namespaces)
}

pub(super) fn id_maps(field: &str, maps: &[spec::IdMapping]) -> Result<Vec<IdMap>, String> {
    let map = |map: &spec::IdMapping| {
        let fits = map.size > 0
            && map.container_id.checked_add(map.size - 1).is_some()
            && map.host_id.checked_add(map.size - 1).is_some();
        match fits {
            true => Ok(IdMap { inside: map.container_id, outside: map.host_id, count: map.size }),
            false => Err(format!("`{field}`: {} ids from {} are no range", map.size, map.container_id)),
        }
    };
    maps.iter().map(map).collect()
}

/// As the kernel takes them.
fn check_device_name(name: &str) -> Result<(), String> {
    /// `IFNAMSIZ`, without the zero at its end.
    const DEVICE_NAME_MAX: usize = 15;
    let fits = |c: char| !c.is_whitespace() && !c.is_control() && !"/:".contains(c);
    match !name.is_empty() && name.len() <= DEVICE_NAME_MAX && ![".", ".."].contains(&name) && name.chars().all(fits) {
        true => Ok(()),
        false => Err(format!("`linux.netDevices`: `{}` is not a device's name", name.escape_debug())),
    }
}

fn root_propagation(text: &str) -> Result<Option<Propagation>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let known = mounts::propagation(text);
    known
        .map(Some)
        .ok_or_else(|| format!("`linux.rootfsPropagation` is `{}`, which is no propagation", text.escape_debug()))
}

/// Only those that the container has to itself.
fn sysctls(linux: &spec::Linux, namespaces: &Namespaces) -> Result<Vec<(String, String)>, String> {
    const OF_IPC: [&str; 8] = [
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
    ];
    let mut found = Vec::new();
    for (key, value) in &linux.sysctl {
        // Whichever mark comes first separates; the other is then a part of a name.
        let path = match key.find(['.', '/']).map(|at| &key[at..=at]) {
            Some(".") => key
                .chars()
                .map(|c| {
                    if c == '.' {
                        '/'
                    } else if c == '/' {
                        '.'
                    } else {
                        c
                    }
                })
                .collect(),
            _ => key.clone(),
        };
        let named = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        if !named || path.contains('\0') {
            return Err(format!("`{}` is not a sysctl", key.escape_debug()));
        }
        let kind = match &*path {
            path if path.starts_with("net/") => Kind::Network,
            path if path.starts_with("fs/mqueue/") || OF_IPC.contains(&path) => Kind::Ipc,
            "kernel/domainname" | "kernel/hostname" => Kind::Uts,
            _ => return Err(format!("sysctl `{key}` belongs to the whole machine, not to a container")),
        };
        if !namespaces.is_apart(kind) {
            return Err(format!("sysctl `{key}` takes a `{}` namespace of the container's own", kind.name()));
        }
        found.push((path, value.clone()));
    }
    Ok(found)
}

fn device(device: &spec::Device) -> Result<Device, String> {
    check_absolute("linux.devices.path", &device.path)?;
    let (kind, numbered) = match &*device.kind {
        "c" | "u" => (DeviceKind::Character, true),
        "b" => (DeviceKind::Block, true),
        "p" => (DeviceKind::Fifo, false),
        other => return Err(format!("device `{}`: `{}` is not a kind of device", device.path, other.escape_debug())),
    };
    let number = |number: i64| match (numbered, u32::try_from(number)) {
        (false, _) => Ok(0),
        (true, Ok(number)) => Ok(number),
        (true, Err(_)) => Err(format!("device `{}`: {number} is not a device's number", device.path)),
    };
    Ok(Device {
        path: device.path.clone(),
        kind,
        major: number(device.major)?,
        minor: number(device.minor)?,
        mode: device.file_mode.unwrap_or(0o666),
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
    })
}

fn personality(personality: &spec::Personality) -> Result<u32, String> {
    if !personality.flags.is_empty() {
        return Err("`linux.personality.flags` knows no flag".to_owned());
    }
    match &*personality.domain {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => Err(format!("`linux.personality.domain` is `LINUX` or `LINUX32`, not `{}`", other.escape_debug())),
    }
}

type JudgedHooks = (Hooks, Vec<Hook>, Vec<Hook>);

fn hooks(hooks: &spec::Hooks) -> Result<JudgedHooks, String> {
    let all = |field: &str, hooks: &[spec::Hook]| -> Result<Vec<Hook>, String> {
        hooks.iter().map(|one| hook(field, one)).collect()
    };
    let outside = Hooks {
        prestart: all("prestart", &hooks.prestart)?,
        create_runtime: all("createRuntime", &hooks.create_runtime)?,
        poststart: all("poststart", &hooks.poststart)?,
        poststop: all("poststop", &hooks.poststop)?,
    };
    Ok((outside, all("createContainer", &hooks.create_container)?, all("startContainer", &hooks.start_container)?))
}

fn hook(field: &str, hook: &spec::Hook) -> Result<Hook, String> {
    check_absolute(&format!("hooks.{field}.path"), &hook.path)?;
    if hook.args.iter().chain(hook.env.iter().flatten()).any(|text| text.contains('\0')) {
        return Err(format!("`hooks.{field}` holds a NUL byte"));
    }
    let timeout = match hook.timeout {
        None => None,
        Some(seconds @ 1..) => Some(Duration::from_secs(seconds as u64)),
        Some(seconds) => return Err(format!("`hooks.{field}.timeout` has to be more than 0, not {seconds}")),
    };
    Ok(Hook { path: PathBuf::from(&hook.path), args: hook.args.clone(), env: hook.env.clone(), timeout })
}

/// Where the groups go, and whether they may be done without.
fn group_path(path: &str, at: Circumstances<'_>) -> Result<(GroupPath, bool), String> {
    check_path("linux.cgroupsPath", path)?;
    if path.split('/').any(|part| part == "..") {
        return Err(format!("`linux.cgroupsPath` may not hold `..`: `{}`", path.escape_debug()));
    }
    let clean = |path: &str| -> PathBuf { path.split('/').filter(|part| !part.is_empty() && *part != ".").collect() };
    Ok(match path {
        "" => (GroupPath::Relative(PathBuf::from(at.id)), at.uid != 0),
        path if path.starts_with('/') => (GroupPath::Absolute(clean(path)), false),
        path => (GroupPath::Relative(clean(path)), false),
    })
}

#[cfg(test)]
mod tests;
