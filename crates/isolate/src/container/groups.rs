//! A container's control groups: made where the bundle says, limited as it says, and removed with all that made them.
//!
//! Where version 1 has controllers they are used, otherwise version 2. What value goes to which file is decided by the
//! caller; here it is found out where those files are.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::devices::{DeviceRule, attach_filter};
use crate::cgroup::{Mounts, write};
use crate::fault::{Because, plain};
use crate::sys;

/// How long the kernel may take to end processes that were killed. One that is stuck in a disk access takes long.
const END_MAX: Duration = Duration::from_secs(10);

/// Where a container's groups are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupPath {
    /// Below the top of each hierarchy.
    Absolute(PathBuf),
    /// Below the creator's own groups (version 2: beside its own, because a group with processes hands nothing down).
    Relative(PathBuf),
}

/// One value for one file of one controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub controller: String,
    pub file: String,
    pub value: String,
    pub lacking: Lacking,
}

/// What to do where a group has no such file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lacking {
    /// The limit cannot be set, and that is an error.
    Refused,
    /// Another file has the limit as well.
    Ignored,
    /// Another file takes its place, with another value.
    Instead { file: String, value: String },
}

/// What a container may use, in both versions' words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    pub v1: Vec<Setting>,
    pub v2: Vec<Setting>,
    pub devices: Vec<DeviceRule>,
}

impl Limits {
    pub fn is_empty(&self) -> bool {
        self.v1.is_empty() && self.v2.is_empty() && self.devices.is_empty()
    }
}

/// A container's groups, as they are kept with its state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// Controllers and directory of each version 1 group.
    #[serde(default)]
    v1: Vec<(Vec<String>, PathBuf)>,
    #[serde(default)]
    v2: Option<PathBuf>,
    /// Every directory made for it, outer ones first.
    #[serde(default)]
    made: Vec<PathBuf>,
}

impl Groups {
    /// Makes the groups. On failure nothing is left of them. With `optional` a group that this user may not make is done
    /// without; whoever then wants a limit is told by `limit`.
    pub fn make(path: &GroupPath, optional: bool) -> Result<Self, String> {
        let inner = match path {
            GroupPath::Absolute(path) | GroupPath::Relative(path) => path,
        };
        let inner = inner.strip_prefix("/").unwrap_or(inner);
        if inner.components().any(|part| !matches!(part, Component::Normal(_))) || inner.as_os_str().is_empty() {
            return Err(format!("`{}` is no path of a cgroup", inner.display()));
        }
        let absolute = matches!(path, GroupPath::Absolute(_));
        let mounts = Mounts::find();
        let mut groups = Self::default();
        let limiting = mounts.v1.iter().any(|mount| mount.controllers.iter().any(|name| !name.starts_with("name=")));
        let mut refused = Ok(());
        if limiting {
            for mount in &mounts.v1 {
                let above = if absolute { &mount.top } else { &mount.own };
                match groups.make_below(above, inner, mount.controllers.iter().any(|name| name == "cpuset")) {
                    Ok(dir) => groups.v1.push((mount.controllers.clone(), dir)),
                    Err(reason) => refused = Err(reason),
                }
            }
        } else if let Some(mount) = &mounts.v2 {
            // What has processes cannot hand controllers down: beside it, not below it.
            let beside = mount.own.parent().filter(|above| above.starts_with(&mount.top)).unwrap_or(&mount.top);
            match groups.make_unified(&mount.top, if absolute { &mount.top } else { beside }, inner) {
                Ok(dir) => groups.v2 = Some(dir),
                Err(reason) => refused = Err(reason),
            }
        }
        match refused {
            Err(reason) if !optional => {
                groups.remove()?;
                Err(reason)
            }
            _ => Ok(groups),
        }
    }

    /// Which limits this user's containers can have here, found by setting them on groups that are taken away again: the
    /// version of the groups, the controllers that work, and those that do not.
    pub fn survey(name: &str) -> Result<(u8, Vec<&'static str>, Vec<&'static str>), String> {
        // Values that limit nothing.
        let harmless = [
            ("cpu", "cpu.shares", "1024", "cpu.weight", "100"),
            ("memory", "memory.limit_in_bytes", "-1", "memory.max", "max"),
            ("pids", "pids.max", "max", "pids.max", "max"),
        ];
        let groups = Self::make(&GroupPath::Relative(name.into()), false)?;
        let setting = |controller: &str, file: &str, value: &str| Setting {
            controller: controller.to_owned(),
            file: file.to_owned(),
            value: value.to_owned(),
            lacking: Lacking::Refused,
        };
        let (mut works, mut lacks) = (Vec::new(), Vec::new());
        for (controller, file_1, value_1, file_2, value_2) in harmless {
            let limits = Limits {
                v1: vec![setting(controller, file_1, value_1)],
                v2: vec![setting(controller, file_2, value_2)],
                devices: Vec::new(),
            };
            let there = !groups.is_empty() && groups.limit(&limits, false).is_ok();
            if there { works.push(controller) } else { lacks.push(controller) }
        }
        let version = if groups.v2.is_some() { 2 } else { 1 };
        groups.remove()?;
        Ok((version, works, lacks))
    }

    fn make_below(&mut self, above: &Path, inner: &Path, cpuset: bool) -> Result<PathBuf, String> {
        let mut dir = above.to_owned();
        for part in inner {
            let parent = dir.clone();
            dir.push(part);
            self.make_one(&dir)?;
            if cpuset {
                inherit_cpuset(&parent, &dir)?;
            }
        }
        Ok(dir)
    }

    fn make_unified(&mut self, top: &Path, above: &Path, inner: &Path) -> Result<PathBuf, String> {
        let whole = above.join(inner);
        let below_top = whole.strip_prefix(top).unwrap_or(inner).to_owned();
        let mut dir = top.to_owned();
        for part in &below_top {
            let offered = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
            let handed = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
            for controller in offered.split_whitespace().filter(|one| !handed.split_whitespace().any(|it| it == *one)) {
                // One at a time: one that cannot be handed down must not cost the others. A limit that lacks it says so.
                let _ = write(&dir, "cgroup.subtree_control", format!("+{controller}"));
            }
            dir.push(part);
            self.make_one(&dir)?;
        }
        Ok(dir)
    }

    fn make_one(&mut self, dir: &Path) -> Result<(), String> {
        match fs::create_dir(dir) {
            Ok(()) => self.made.push(dir.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("cannot make the cgroup `{}`: {}", dir.display(), plain(&error))),
        }
        Ok(())
    }

    /// Puts a process into every group.
    pub fn enter(&self, pid: u32) -> Result<(), String> {
        for dir in self.dirs() {
            write(dir, "cgroup.procs", pid).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Puts a process into groups below, of one controller or of all; they have to be there.
    pub fn enter_below(&self, pid: u32, controller: Option<&str>, path: &str) -> Result<(), String> {
        let below = path.trim_matches('/');
        if below.split('/').any(|part| [".", ".."].contains(&part)) {
            return Err("it may not lead out of the container's groups".to_owned());
        }
        let dirs = match controller {
            Some(name) => vec![self.controller(name)?],
            None => self.dirs().collect(),
        };
        for dir in dirs {
            write(&dir.join(below), "cgroup.procs", pid).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Whether there is any group.
    pub fn is_empty(&self) -> bool {
        self.v1.is_empty() && self.v2.is_none()
    }

    /// Sets limits. One that nothing here enforces is an error; device rules are left out where the user could make no
    /// device anyway, which the result tells.
    pub fn limit(&self, limits: &Limits, with_devices: bool) -> Result<(), String> {
        let settings = if self.v2.is_some() { &limits.v2 } else { &limits.v1 };
        for setting in settings {
            let dir = self.controller(&setting.controller)?;
            let there = dir.join(&setting.file).exists();
            let (file, value) = match &setting.lacking {
                Lacking::Ignored if !there => continue,
                Lacking::Instead { file, value } if !there => (file, value),
                _ => (&setting.file, &setting.value),
            };
            write(dir, file, value).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => format!("this kernel has no `{file}` in `{}`", dir.display()),
                _ => error.to_string(),
            })?;
        }
        if self.is_empty() && !limits.v1.is_empty() {
            return Err("no cgroup can be made here, so no limit can be set".to_owned());
        }
        if with_devices && !limits.devices.is_empty() {
            match &self.v2 {
                Some(dir) => attach_filter(dir, &limits.devices)?,
                None => {
                    let dir = self.controller("devices")?;
                    for rule in &limits.devices {
                        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
                        write(dir, file, rule.v1()).map_err(|error| error.to_string())?;
                    }
                }
            }
        }
        Ok(())
    }

    fn controller(&self, name: &str) -> Result<&Path, String> {
        if let Some(dir) = &self.v2 {
            let have = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
            return match name == "cgroup" || have.split_whitespace().any(|one| one == name) {
                true => Ok(dir),
                false => Err(format!("the `{name}` controller is not handed down to `{}`", dir.display())),
            };
        }
        let found = self.v1.iter().find(|(controllers, _)| controllers.iter().any(|one| one == name));
        found.map(|(_, dir)| &**dir).ok_or_else(|| format!("no cgroup with the `{name}` controller can be used here"))
    }

    fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().map(|(_, dir)| &**dir).chain(self.v2.as_deref())
    }

    /// What to bind or mount as the container's own view: name and directory of each version 1 group.
    pub(super) fn views(&self) -> (&[(Vec<String>, PathBuf)], Option<&Path>) {
        (&self.v1, self.v2.as_deref())
    }

    /// Every process in the groups, those in groups below them included.
    pub fn pids(&self) -> io::Result<BTreeSet<u32>> {
        let mut found = BTreeSet::new();
        // All hierarchies hold the same processes.
        let Some(dir) = self.dirs().next() else { return Ok(found) };
        let mut dirs = vec![dir.to_owned()];
        while let Some(dir) = dirs.pop() {
            let text = match fs::read_to_string(dir.join("cgroup.procs")) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // A threaded group.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => String::new(),
                other => other?,
            };
            found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
            for entry in fs::read_dir(&dir)?.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    dirs.push(entry.path());
                }
            }
        }
        Ok(found)
    }

    /// What a file of the version 2 group says, if there is one.
    pub fn unified_value(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.v2.as_ref()?.join(file)).ok()
    }

    /// Halts every process, or lets it go on.
    pub fn freeze(&self, frozen: bool) -> Result<(), String> {
        if let Some(dir) = &self.v2 {
            return write(dir, "cgroup.freeze", u8::from(frozen)).map_err(|error| error.to_string());
        }
        let dir = self.controller("freezer")?;
        let state = if frozen { "FROZEN" } else { "THAWED" };
        // While it freezes it may be asked again: a process that is being made can hold it up.
        let deadline = Instant::now() + END_MAX;
        loop {
            write(dir, "freezer.state", state).map_err(|error| error.to_string())?;
            let now =
                fs::read_to_string(dir.join("freezer.state")).because(|| "cannot read `freezer.state`".to_owned())?;
            if now.trim() == state {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err("its processes do not freeze".to_owned());
            }
            std::thread::yield_now();
        }
    }

    /// Whether everything in it is halted.
    pub fn is_frozen(&self) -> bool {
        let says = |dir: &Path, file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
        match &self.v2 {
            Some(dir) => says(dir, "cgroup.freeze").trim() == "1",
            None => self.controller("freezer").is_ok_and(|dir| says(dir, "freezer.state").trim() != "THAWED"),
        }
    }

    /// Sends a signal to every process.
    pub fn signal(&self, signal: i32) -> Result<(), String> {
        for pid in self.pids().because(|| "cannot list the container's processes".to_owned())? {
            match sys::signal::kill(pid as i32, signal) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                other => other.because(|| format!("cannot signal process {pid}"))?,
            }
        }
        Ok(())
    }

    /// Ends every process and waits for its end.
    pub fn kill(&self) -> Result<(), String> {
        let deadline = Instant::now() + END_MAX;
        let failed = || "cannot list the container's processes".to_owned();
        loop {
            let pids = self.pids().because(failed)?;
            if pids.is_empty() {
                return Ok(());
            }
            if self.is_frozen() {
                self.freeze(false)?;
            }
            let fds: Vec<OwnedFd> = pids.iter().filter_map(|&pid| open(pid)).collect();
            for fd in &fds {
                let _ = sys::signal::send(fd.as_fd(), libc::SIGKILL);
            }
            for fd in &fds {
                wait_until(fd, deadline);
            }
            if Instant::now() > deadline {
                return Err("its processes do not end".to_owned());
            }
            if fds.is_empty() {
                std::thread::yield_now();
            }
        }
    }

    /// Ends what is left in the groups and removes every directory that was made.
    pub fn remove(&self) -> Result<(), String> {
        self.kill()?;
        let own: BTreeSet<&Path> = self.dirs().collect();
        for dir in self.made.iter().rev() {
            remove_below(dir, own.contains(&**dir));
            match fs::remove_dir(dir) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Somebody else's groups have come to lie below one that is not the container's own.
                Err(_) if !own.contains(&**dir) => {}
                Err(error) => return Err(format!("cannot remove the cgroup `{}`: {}", dir.display(), plain(&error))),
            }
        }
        Ok(())
    }
}

/// Groups that the container made within its own.
fn remove_below(dir: &Path, own: bool) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| own && entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_below(&entry.path(), true);
        let _ = fs::remove_dir(entry.path());
    }
}

/// The kernel lets no process into a version 1 group that has no processors or memory nodes yet.
fn inherit_cpuset(parent: &Path, dir: &Path) -> Result<(), String> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let read = |dir: &Path| fs::read_to_string(dir.join(file)).because(|| format!("cannot read `{file}`"));
        if read(dir)?.trim().is_empty() {
            write(dir, file, read(parent)?.trim()).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

fn open(pid: u32) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid as i32)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

/// Until the process has ended or the time is over.
pub(super) fn wait_until(pidfd: &OwnedFd, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_goes_to_the_file_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        file("cgroup.controllers", "io");
        file("io.weight", "");
        let groups = Groups { v2: Some(dir.path().to_owned()), ..Groups::default() };
        let limit = |file: &str, lacking: Lacking| {
            let setting = Setting { controller: "io".into(), file: file.into(), value: "500".into(), lacking };
            groups.limit(&Limits { v2: vec![setting], ..Limits::default() }, false)
        };
        let instead = || Lacking::Instead { file: "io.weight".into(), value: "4950".into() };
        limit("io.bfq.weight", instead()).unwrap();
        assert_eq!(read("io.weight"), "4950");
        file("io.bfq.weight", "");
        limit("io.bfq.weight", instead()).unwrap();
        assert_eq!(read("io.bfq.weight"), "500");
        limit("io.gone", Lacking::Ignored).unwrap();
        assert!(limit("io.gone", Lacking::Refused).unwrap_err().contains("this kernel has no `io.gone`"));
    }
}
