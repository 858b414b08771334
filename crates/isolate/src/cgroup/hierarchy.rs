//! What the machine offers: which controllers are mounted where, and the parent group of all our stars.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Access;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use model::Limits;

use super::group::{Group, Groups, Late, Version, inherit};
use super::{device, keyed, number, turns, write};
use crate::fault::plain;
use crate::sys;
use crate::walls::{DiskMeans, Enforced, Walls};

/// The version 2 controllers a star is limited by.
const WANTED: [&str; 5] = ["cpu", "memory", "pids", "cpuset", "io"];

/// The parents of every star's groups, one per controller.
#[derive(Debug)]
pub(crate) struct Hierarchies {
    cpu: Parent,
    usage: Parent,
    memory: Parent,
    pids: Parent,
    cpuset: Parent,
    io: Parent,
    /// The disk of the data folder as `MAJOR:MINOR`, or why it has none that could be limited.
    device: Result<String, String>,
    /// Version 1 only: version 2 freezes any group.
    freezer: Parent,
    kind: &'static str,
    /// Parents made by nurseries before this one, which may have been in other groups than this one is.
    inherited: BTreeSet<PathBuf>,
    /// The group the nursery moved itself into, when the group above had to be empty.
    leaf: Option<Leaf>,
}

/// `<own group>/rads-<hash>` of one controller, or why there is none.
type Parent = Result<Group, String>;

#[derive(Debug)]
struct Leaf {
    above: PathBuf,
    dir: PathBuf,
}

impl Hierarchies {
    /// Finds the controllers and makes the parent groups, named `name`. Never fails: what cannot be had is said in
    /// the walls.
    pub(crate) fn set_up(name: &str, privileged: bool, data_dir: &Path) -> Self {
        let mounts = Mounts::find();
        let mut leaf = None;
        let v2 = mounts.v2.as_ref().map(|mount| v2_parent(mount, name, privileged, &mut leaf));
        let parent = |controller: &str, v1: &str| match (mounts.v1(v1), &v2) {
            (Some(own), _) => v1_parent(&own, name),
            (None, Some(Ok(group))) => has_controller(group, controller),
            (None, Some(Err(reason))) => Err(reason.clone()),
            (None, None) => Err(format!("no cgroup with the `{controller}` controller is mounted")),
        };
        let kind = match (mounts.v1.iter().all(Hierarchy::is_named), &mounts.v2) {
            (true, None) => "none",
            (true, Some(_)) => "v2",
            (false, None) => "v1",
            (false, Some(_)) => "hybrid",
        };
        let usage = if mounts.v1("cpuacct").is_some() { "cpuacct" } else { "cpu" };
        let (cpu, usage) = (parent("cpu", "cpu"), parent("cpu", usage));
        let freezer = mounts.v1("freezer").ok_or_else(String::new).and_then(|own| v1_parent(&own, name));
        let (memory, pids) = (parent("memory", "memory"), parent("pids", "pids"));
        let cpuset = parent("cpuset", "cpuset").and_then(furnish_cpuset);
        let io = parent("io", "blkio");
        let (device, inherited) = (device::under(data_dir), BTreeSet::new());
        Self { cpu, usage, memory, pids, cpuset, io, device, freezer, kind, inherited, leaf }
    }

    pub(crate) fn walls(&self, rootless: bool) -> Walls {
        let enforced = |parent: &Parent| match parent {
            Ok(_) => Enforced::Yes,
            Err(reason) => Enforced::No { reason: reason.clone() },
        };
        Walls {
            landlock: Enforced::default(),
            cpu: enforced(&self.cpu),
            memory: enforced(&self.memory),
            // Without a controller each star is bounded by its own rlimit; see `Groups::fixed_pids`.
            pids: Enforced::Yes,
            pinning: enforced(&self.cpuset),
            burst: match &self.cpu {
                Ok(group) if !group.can_burst() => {
                    Enforced::No { reason: "this kernel has none (Linux 5.14 and later do)".to_owned() }
                }
                parent => enforced(parent),
            },
            yielding: match &self.cpu {
                Ok(group) if !group.can_give_way() => {
                    Enforced::No { reason: "this kernel has no `cpu.idle` (Linux 5.15 and later do)".to_owned() }
                }
                parent => enforced(parent),
            },
            yielding_in_part: !turns::can_be_lengthened(),
            io: match &self.device {
                Ok(_) => enforced(&self.io),
                Err(reason) => Enforced::No { reason: reason.clone() },
            },
            io_in_part: self.io.as_ref().is_ok_and(|group| group.version == Version::V1),
            disk: DiskMeans::default(),
            rootless,
            cgroup: self.kind.to_owned(),
        }
    }

    /// A star's groups, not made yet.
    pub(crate) fn star(&self, star: &str, own_pids: u32) -> Groups {
        let below = |parent: &Parent| {
            parent.as_ref().ok().map(|group| Group { version: group.version, dir: group.dir.join(star) })
        };
        Groups {
            cpu: below(&self.cpu),
            usage: below(&self.usage),
            memory: below(&self.memory),
            pids: below(&self.pids),
            cpuset: below(&self.cpuset).filter(|group| group.version == Version::V2),
            io: below(&self.io).filter(|group| group.version == Version::V2),
            device: self.device.as_ref().ok().cloned(),
            freezer: None,
            own_pids,
            fixed_pids: None,
        }
    }

    /// Makes the version 1 groups that these limits take and most do not, for a star whose first process is `first`. `true` when the record has to be kept anew.
    pub(crate) fn complete(&self, groups: &mut Groups, limits: &Limits, first: Option<u32>) -> io::Result<bool> {
        let wanted = [
            (Late::Cpuset, &self.cpuset, limits.cpus.is_some() && groups.cpuset.is_none()),
            (Late::Io, &self.io, (limits.io_read.is_some() || limits.io_write.is_some()) && groups.io.is_none()),
        ];
        let mut added = false;
        for (kind, parent, is_wanted) in wanted {
            let name = groups.names().pop_first();
            if let (true, Ok(parent), Some(name)) = (is_wanted, parent, name) {
                groups.add(kind, Group { version: parent.version, dir: parent.dir.join(name) }, first)?;
                added = true;
            }
        }
        Ok(added)
    }

    /// The version 1 group in which a star can be frozen, not made yet; `None` where there is none.
    pub(crate) fn freezer(&self, star: &str) -> Option<Group> {
        self.freezer.as_ref().ok().map(|parent| Group { version: parent.version, dir: parent.dir.join(star) })
    }

    /// The processor time that all stars together have used.
    pub(crate) fn used(&self) -> Option<Duration> {
        let Group { version, dir } = self.usage.as_ref().ok()?;
        match version {
            Version::V1 => number(dir, "cpuacct.usage").map(Duration::from_nanos),
            Version::V2 => keyed(dir, "cpu.stat", "usage_usec").map(Duration::from_micros),
        }
    }

    /// Removes groups of stars that are not `known`, and ends what is in them: a nursery that was killed leaves those it was
    /// starting or had made ahead, and a star whose record cannot be read any more is nobody's.
    pub(crate) fn sweep(&self, known: impl Fn(&str) -> bool) {
        for dir in self.parents().map(|parent| &parent.dir).chain(&self.inherited) {
            let Ok(entries) = fs::read_dir(dir) else { continue };
            for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                if !entry.file_name().to_str().is_some_and(&known) {
                    end_all(&entry.path());
                    // Fails while one of them is still ending; the last sweep removes it then.
                    let _ = fs::remove_dir(entry.path());
                }
            }
        }
    }

    /// Takes over what lies around the groups of an earlier nursery's star.
    pub(crate) fn inherit(&mut self, groups: &Groups) {
        self.inherited.extend(groups.dirs().into_iter().filter_map(|group| group.dir.parent().map(Path::to_owned)));
    }

    /// Removes the parents, and leaves the nursery where it was found.
    pub(crate) fn tear_down(&self) {
        // What a nursery before this one left may not have been empty until now.
        self.sweep(|_| false);
        for dir in self.parents().map(|parent| &parent.dir).chain(&self.inherited) {
            let _ = fs::remove_dir(dir);
        }
        if let Some(Leaf { above, dir }) = &self.leaf {
            // The group above may hold processes again only once it hands no controllers down.
            let off: String = WANTED.iter().map(|controller| format!("-{controller} ")).collect();
            let _ = write(above, "cgroup.subtree_control", off.trim_end());
            let _ = write(above, "cgroup.procs", 0);
            let _ = fs::remove_dir(dir);
        }
    }

    fn parents(&self) -> impl Iterator<Item = &Group> {
        [&self.cpu, &self.usage, &self.memory, &self.pids, &self.cpuset, &self.io, &self.freezer].into_iter().flatten()
    }
}

/// Kills every process in a group. With the first of a star the kernel ends all of it.
fn end_all(group: &Path) {
    let pids = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        // Nobody waits for it, so its number may be taken anew at any time: by the descriptor it is itself.
        let pidfd = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let still_there = |pids: String| pids.split_whitespace().any(|other| other.parse() == Ok(pid));
        if let Some(pidfd) = pidfd
            && fs::read_to_string(group.join("cgroup.procs")).is_ok_and(still_there)
        {
            let _ = sys::signal::send(pidfd.as_fd(), libc::SIGKILL);
        }
    }
}

/// Where cgroups are mounted and where in them this process is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mounts {
    pub(crate) v1: Vec<Hierarchy>,
    pub(crate) v2: Option<Unified>,
}

/// A version 1 mount: its controllers (or `name=…`, where it only groups), its top as it is seen from here, and this
/// process's group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) controllers: Vec<String>,
    pub(crate) top: PathBuf,
    pub(crate) own: PathBuf,
}

impl Hierarchy {
    /// Whether it limits nothing.
    fn is_named(&self) -> bool {
        self.controllers.iter().all(|name| name.starts_with("name="))
    }
}

/// The version 2 mount, likewise.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unified {
    pub(crate) top: PathBuf,
    pub(crate) own: PathBuf,
}

impl Mounts {
    /// Those of this process.
    pub(crate) fn find() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    fn parse(mountinfo: &str, cgroup: &str) -> Self {
        let mut mounts = Self::default();
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let before: Vec<&str> = before.split(' ').collect();
            let after: Vec<&str> = after.split(' ').collect();
            let (&[_, _, _, root, point, ..], &[kind, _, options, ..]) = (&before[..], &after[..]) else { continue };
            let names: Vec<&str> = options.split(',').collect();
            // A line of /proc/self/cgroup is `id:controllers:path`; version 2 has no controllers in it.
            let own = cgroup.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (controllers, path) = (parts.next()?, parts.next()?);
                let here = match kind {
                    "cgroup2" => controllers.is_empty(),
                    "cgroup" => controllers.split(',').any(|controller| names.contains(&controller)),
                    _ => false,
                };
                here.then_some((controllers, path))
            });
            let Some((controllers, own)) = own else { continue };
            let point = PathBuf::from(unescape(point));
            // What is mounted may be a part of the hierarchy only, as in a container.
            let inside = Path::new(own).strip_prefix(unescape(root)).unwrap_or(Path::new(""));
            let own = point.join(inside);
            match kind {
                "cgroup2" => mounts.v2 = Some(Unified { top: point, own }),
                _ => {
                    let controllers = controllers.split(',').map(str::to_owned).collect();
                    mounts.v1.push(Hierarchy { controllers, top: point, own });
                }
            }
        }
        mounts
    }

    fn v1(&self, controller: &str) -> Option<PathBuf> {
        let mount = self.v1.iter().find(|mount| mount.controllers.iter().any(|name| name == controller));
        mount.map(|mount| mount.own.clone())
    }
}

/// `mountinfo` writes spaces and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

fn v1_parent(own: &Path, name: &str) -> Parent {
    let dir = own.join(name);
    make(&dir)?;
    Ok(Group { version: Version::V1, dir })
}

/// A version 1 group has no processors and no memory until it is given some.
fn furnish_cpuset(group: Group) -> Parent {
    if group.version == Version::V1 {
        for file in ["cpuset.mems", "cpuset.cpus"] {
            inherit(&group.dir, file).map_err(|error| plain(&error))?;
        }
    }
    Ok(group)
}

/// Version 2 limits children only where the group above hands the controllers down, and such a group (but for the
/// hierarchy's real top) may hold no processes itself. Tried in turn:
/// our own group, when nothing but this process is in it (a unit, scope or container that was delegated to us);
/// as an ordinary user the groups above that belong to us (`user@1000.service` of a systemd session);
/// as root the top of the hierarchy.
fn v2_parent(mount: &Unified, name: &str, privileged: bool, leaf: &mut Option<Leaf>) -> Parent {
    if mount.own.file_name().is_some_and(|own| own == leaf_name(name).as_str())
        && let Some(above) = mount.own.parent()
    {
        // This process moved aside as another program.
        *leaf = Some(Leaf { above: above.to_owned(), dir: mount.own.clone() });
        return v2_child(above, name);
    }
    let mut refused = format!("no group above `{}` is delegated to this user", mount.own.display());
    if writable(&mount.own) && only_us(&mount.own) {
        match move_aside(&mount.own, name).and_then(|moved| Ok((moved, v2_child(&mount.own, name)?))) {
            Ok((moved, group)) => {
                *leaf = Some(moved);
                return Ok(group);
            }
            Err(reason) => refused = reason,
        }
    }
    let above = mount.own.ancestors().take_while(|group| group.starts_with(&mount.top));
    let candidates: Vec<&Path> = match privileged {
        true => vec![&mount.top],
        false => above.filter(|group| writable(group)).collect(),
    };
    for group in candidates {
        match v2_child(group, name) {
            Ok(group) => return Ok(group),
            Err(reason) => refused = reason,
        }
    }
    Err(refused)
}

/// Makes the parent of our stars below `above`, with every wanted controller that can be had handed down to it.
fn v2_child(above: &Path, name: &str) -> Parent {
    let handed = fs::read_to_string(above.join("cgroup.subtree_control")).unwrap_or_default();
    for controller in WANTED.iter().filter(|wanted| !handed.split_whitespace().any(|have| have == **wanted)) {
        // One at a time: a controller that version 1 holds must not cost us the others.
        let _ = write(above, "cgroup.subtree_control", format!("+{controller}"));
    }
    let dir = above.join(name);
    make(&dir)?;
    let offered = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    if offered.split_whitespace().all(|controller| !WANTED.contains(&controller)) {
        let _ = fs::remove_dir(&dir);
        return Err(format!("`{}` hands no controllers down", above.display()));
    }
    for controller in offered.split_whitespace().filter(|controller| WANTED.contains(controller)) {
        write(&dir, "cgroup.subtree_control", format!("+{controller}")).map_err(|error| error.to_string())?;
    }
    Ok(Group { version: Version::V2, dir })
}

fn has_controller(group: &Group, controller: &str) -> Parent {
    let handed = fs::read_to_string(group.dir.join("cgroup.subtree_control")).unwrap_or_default();
    match handed.split_whitespace().any(|have| have == controller) {
        true => Ok(group.clone()),
        false => Err(format!("the `{controller}` controller is not delegated to `{}`", group.dir.display())),
    }
}

fn only_us(group: &Path) -> bool {
    let us = std::process::id().to_string();
    fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|pids| pids.split_whitespace().eq([us.as_str()]))
}

fn leaf_name(name: &str) -> String {
    format!("{name}-nursery")
}

fn move_aside(above: &Path, name: &str) -> Result<Leaf, String> {
    let dir = above.join(leaf_name(name));
    make(&dir)?;
    write(&dir, "cgroup.procs", 0).map_err(|error| error.to_string())?;
    Ok(Leaf { above: above.to_owned(), dir })
}

fn writable(group: &Path) -> bool {
    let may = |path: &Path| rustix::fs::access(path, Access::WRITE_OK).is_ok();
    may(group) && may(&group.join("cgroup.procs")) && may(&group.join("cgroup.subtree_control"))
}

fn make(dir: &Path) -> Result<(), String> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(format!("cannot make the group `{}`: {}", dir.display(), plain(&error)))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_MOUNTS: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw";

    #[test]
    fn every_arrangement_of_mounts_is_understood() {
        let mounts = Mounts::parse(HYBRID_MOUNTS, "4:memory:/a/b\n2:cpu,cpuacct:/\n9:name=systemd:/\n0::/c");
        assert_eq!(mounts.v1("memory"), Some(PathBuf::from("/sys/fs/cgroup/memory/a/b")));
        assert_eq!(mounts.v1("cpuacct"), Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/")));
        assert_eq!(mounts.v1("pids"), None);
        assert_eq!(mounts.v2.unwrap().own, Path::new("/sys/fs/cgroup/unified/c"));

        let v2 = Mounts::parse(
            "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate",
            "0::/user.slice/x.scope",
        );
        assert!(v2.v1.is_empty());
        assert_eq!(v2.v2.unwrap().own, Path::new("/sys/fs/cgroup/user.slice/x.scope"));

        let container =
            Mounts::parse("50 49 0:30 /docker/12 /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids", "8:pids:/docker/12");
        assert_eq!(container.v1("pids"), Some(PathBuf::from("/sys/fs/cgroup/pids/")));
        assert_eq!(Mounts::parse("", ""), Mounts::default());
    }

    /// A folder that looks like a version 2 hierarchy, as far as plain files can.
    fn fake(own: &str, controllers: &str) -> (tempfile::TempDir, Unified) {
        let top = tempfile::tempdir().unwrap();
        let own = top.path().join(own);
        fs::create_dir_all(own.join("rads-x")).unwrap();
        for dir in own.ancestors().take_while(|dir| dir.starts_with(top.path())) {
            fs::write(dir.join("cgroup.procs"), "1\n2\n").unwrap();
            fs::write(dir.join("cgroup.subtree_control"), "").unwrap();
        }
        fs::write(own.join("rads-x/cgroup.controllers"), controllers).unwrap();
        fs::write(own.join("rads-x/cgroup.subtree_control"), "").unwrap();
        let unified = Unified { top: top.path().to_owned(), own };
        (top, unified)
    }

    #[test]
    fn an_ordinary_user_gets_the_group_that_belongs_to_it() {
        let (_top, unified) = fake("user/session", "cpu memory pids");
        let group = v2_parent(&unified, "rads-x", false, &mut None).unwrap();
        assert_eq!(group.dir, unified.own.join("rads-x"));
    }

    #[test]
    fn a_group_that_hands_nothing_down_is_refused_with_the_reason() {
        let (_top, unified) = fake("", "hugetlb");
        let reason = v2_parent(&unified, "rads-x", true, &mut None).unwrap_err();
        assert!(reason.contains("hands no controllers down") || reason.contains("cannot"), "{reason}");
    }

    #[test]
    fn a_missing_controller_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.subtree_control"), "memory pids").unwrap();
        let group = Group { version: Version::V2, dir: dir.path().to_owned() };
        assert!(has_controller(&group, "memory").is_ok());
        assert!(has_controller(&group, "cpu").unwrap_err().contains("`cpu` controller is not delegated"));
    }
}
