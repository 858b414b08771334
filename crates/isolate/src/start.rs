//! The nursery's side of a start: everything is prepared, the star is cloned, its ids are mapped, it is let go.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use model::Network;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::bridge::{self, Bridge};
use crate::cgroup::Hierarchies;
use crate::child::{self, Masked, Plan};
use crate::fault::Because;
use crate::ids::{self, IdRanges};
use crate::network::Networks;
use crate::nursery::StarEntry;
use crate::order::{Launch, StarOrder};
use crate::overlay::Layers;
use crate::pipes::Pipes;
use crate::record::Record;
use crate::root::{Stage, detached, tmpfs};
use crate::sys;
use crate::sys::privilege::Instruction;

/// Room of a star's `/tmp`, `/dev/shm` and `/run` together when its memory is unlimited.
const SCRATCH_MAX: u64 = 256 << 20;
/// Files in them: each costs kernel memory.
const SCRATCH_FILES: &str = "65536";

/// What a nursery holds ready for every start.
pub(crate) struct Site {
    pub(crate) data_dir: PathBuf,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) stage: Stage,
    pub(crate) networks: Networks,
    pub(crate) bridge: Bridge,
    /// `None` without privileges on the host: every star then has the user's own id.
    pub(crate) ids: Option<IdRanges>,
    pub(crate) filter: Vec<Instruction>,
    pub(crate) masked: Vec<Masked>,
    pub(crate) entry: StarEntry,
}

/// A star on its way: cloned and let go, its walls not yet reported.
pub(crate) struct Launched {
    pub(crate) record: Record,
    pub(crate) pidfd: OwnedFd,
    /// What the star says of its start; see `child`.
    pub(crate) report: OwnedFd,
    pub(crate) network: Option<OwnedFd>,
    pub(crate) pipes: Pipes,
}

impl Site {
    /// Starts a star in `folder`, which exists and is empty. On failure nothing but the folder is left of it.
    pub(crate) fn launch(&mut self, order: &StarOrder, folder: &Path) -> Result<Launched, String> {
        check(order)?;
        let mut record = Record::new(order.star, order.generation, order.network);
        record.init = matches!(order.launch, Launch::Command { .. });
        record.groups = self.hierarchies.star(&order.star.to_string(), u32::from(record.init));
        record.groups.fixed_pids = order.limits.pids.filter(|_| record.groups.pids.is_none());
        if let Some(ids) = &mut self.ids {
            record.slot = Some(ids.take().ok_or("every range of user ids is taken")?);
        }
        self.launch_with(order, folder, &mut record).inspect_err(|_| {
            self.clean_up(&record);
        })
    }

    /// Whether something made ahead is missing.
    pub(crate) fn wants_spares(&self) -> bool {
        self.networks.wants_more() || self.ids.as_ref().is_some_and(IdRanges::wants_more)
    }

    /// Makes one such thing: well under a millisecond.
    pub(crate) fn make_spare(&mut self) -> io::Result<()> {
        match &mut self.ids {
            Some(ids) if ids.wants_more() => ids.prepare(),
            _ => self.networks.prepare(),
        }
    }

    /// Gives back what a star held outside its namespaces. `false` while its groups are not empty yet.
    pub(crate) fn clean_up(&mut self, record: &Record) -> bool {
        if !record.groups.remove() {
            return false;
        }
        if let (Some(ids), Some(slot)) = (&mut self.ids, record.slot) {
            ids.release(slot);
        }
        if let Some(address) = record.address {
            self.bridge.release(address);
        }
        true
    }

    fn launch_with(&mut self, order: &StarOrder, folder: &Path, record: &mut Record) -> Result<Launched, String> {
        let cannot = |what: &'static str| move || format!("cannot {what}");
        record.groups.create().because(cannot("make the star's cgroups"))?;
        record.groups.limit(&order.limits).map_err(|error| error.to_string())?;
        let birthplace = record.groups.birthplace().because(cannot("open the star's cgroup"))?;
        let owner = record.slot.map(ids::host_id);
        let (ends, pipes) = Pipes::make(folder, owner).because(cannot("make the star's pipes"))?;
        let points: Vec<&str> = order.volumes.iter().map(|volume| volume.inside.as_str()).collect();
        let (root, devices) = match &order.root {
            None => (self.stage.root(&points)?, None),
            Some(folder) => {
                let devices = self.stage.devices()?;
                (self.overlay(order, folder, &points, record.slot)?, Some(devices))
            }
        };
        let (go, let_go) = pipe_with(PipeFlags::CLOEXEC).because(cannot("make a pipe"))?;
        let (report, report_to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).because(cannot("make a pipe"))?;
        let network = match order.network {
            Network::None => self.networks.take().because(cannot("make a network namespace"))?,
            Network::Host => None,
            Network::Bridge => {
                let network = self.networks.take().because(cannot("make a network namespace"))?;
                let network = network.ok_or("`network: \"bridge\"` needs root")?;
                record.address = Some(self.bridge.wire(&self.networks, network.as_fd())?);
                Some(network)
            }
        };
        let own_network = order.network == Network::None && network.is_none();
        let namespaces = NAMESPACES | if own_network { libc::CLONE_NEWNET } else { 0 };
        let plan = Plan {
            order,
            tasks: record.groups.tasks().because(cannot("open the star's cgroups"))?,
            go,
            report: report_to,
            exit_note: exit_note(folder).because(cannot("make the star's exit note"))?,
            root,
            devices,
            scratch: scratch(order, owner).because(cannot("make the star's `/tmp`"))?,
            binds: self.binds(order, record.slot)?,
            stdout: ends.out,
            stderr: ends.err,
            own_network,
            processes: record.groups.fixed_pids.map(|pids| u64::from(pids) + u64::from(record.groups.own_pids)),
            drop_groups: record.slot.is_some(),
            masked: &self.masked,
            filter: &self.filter,
            entry: self.entry,
        };
        let clone = || {
            sys::process::clone(namespaces, borrowed(&birthplace), || {
                sys::process::close(let_go.as_fd());
                child::run(&plan)
            })
        };
        let clone = || self.stage.clone_from_bare(clone);
        let cloned = match &network {
            Some(network) => self.networks.inside(network.as_fd(), clone),
            None => clone(),
        };
        let (pid, pidfd) = cloned.because(cannot("make the star's namespaces"))?;
        drop(plan);
        record.pid = pid;
        let mut network = network;
        let mut release = || -> io::Result<()> {
            record.start_time = start_time(pid)?;
            if own_network {
                network = Some(network_of(pid)?);
            }
            // On disk before the star does anything: whatever happens to the nursery now, the next one knows it.
            record.create(folder)?;
            ids::map(pid, record.slot)?;
            rustix::io::write(&let_go, b"+")?;
            Ok(())
        };
        if let Err(error) = release() {
            // It waits for the word that will not come; its end is quick.
            let _ = sys::signal::send(pidfd.as_fd(), libc::SIGKILL);
            let _ = rustix::process::waitid(
                rustix::process::WaitId::PidFd(pidfd.as_fd()),
                rustix::process::WaitIdOptions::EXITED,
            );
            return Err(error).because(cannot("let the star go"));
        }
        Ok(Launched { record: record.clone(), pidfd, report, network, pipes })
    }

    /// The star's own root over a folder of the host.
    fn overlay(
        &mut self,
        order: &StarOrder,
        folder: &Path,
        points: &[&str],
        slot: Option<u32>,
    ) -> Result<OwnedFd, String> {
        let owners = match (&mut self.ids, slot) {
            (Some(ids), Some(slot)) => Some(ids.mapping(slot).because(|| "cannot map user ids".to_owned())?),
            _ => None,
        };
        // It counts as the star's memory: half of it leaves the program the other half.
        let size = order.limits.memory.map_or(SCRATCH_MAX, |limit| limit.0 / 2);
        let layers = Layers { folder, owners: borrowed(&owners), owner: slot.map(ids::host_id), size, points };
        layers.assemble(self.stage.workshop())
    }

    /// Detached mounts of the bundle and the volumes, an outer one before those inside it.
    fn binds<'a>(&mut self, order: &'a StarOrder, slot: Option<u32>) -> Result<Vec<(OwnedFd, &'a str)>, String> {
        let mut folders = vec![(order.bundle.as_path(), "/app", sys::mount::READ_ONLY)];
        let mut volumes: Vec<_> = order.volumes.iter().collect();
        volumes.sort_by_key(|volume| &volume.inside);
        for volume in volumes {
            if let Some(below) = volume.inside.strip_prefix("/app/") {
                // The only place that is not ours to shape: the bundle lends an empty folder.
                let failed = || format!("cannot make a place for the volume at `{}`", volume.inside);
                fs::create_dir_all(order.bundle.join(below)).because(failed)?;
            }
            folders.push((&volume.host, &volume.inside, 0));
        }
        let owners = match (&mut self.ids, slot) {
            (Some(ids), Some(slot)) => Some(ids.mapping(slot).because(|| "cannot map user ids".to_owned())?),
            _ => None,
        };
        let owners = borrowed(&owners);
        let mount = |(host, inside, attributes): (&Path, &'a str, u64)| {
            let mount = detached(host, attributes | sys::mount::NO_SUID | sys::mount::NO_DEV, owners);
            let mount = mount.map_err(|error| why_no_bind(host, inside, &error, owners.is_some()))?;
            Ok((mount, inside))
        };
        folders.into_iter().map(mount).collect()
    }
}

/// Every namespace but the network's, which was made ahead, and the cgroup's, which must not be entered before the
/// groups are joined.
const NAMESPACES: libc::c_int =
    libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

fn why_no_bind(host: &Path, inside: &str, error: &io::Error, mapped: bool) -> String {
    let what = if inside == "/app" { "the bundle".to_owned() } else { format!("the volume at `{inside}`") };
    if mapped && error.raw_os_error() == Some(libc::EINVAL) {
        return format!(
            "cannot bind {what}: the file system of `{}` cannot show files under other owners (no idmapped mounts)",
            host.display()
        );
    }
    format!("cannot bind {what} from `{}`: {}", host.display(), crate::fault::plain(error))
}

/// Refuses what the walls could not carry. The agent has checked it for the user; this is for the nursery's own sake.
fn check(order: &StarOrder) -> Result<(), String> {
    let label = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if order.short_hostname().is_empty() || !order.hostname.chars().all(label) {
        return Err(format!("`{}` is not a host name", order.hostname.escape_debug()));
    }
    let normal = |path: &str| path.split('/').all(|part| !matches!(part, "" | "." | "..")) && !path.contains('\0');
    for volume in &order.volumes {
        let relative = volume.inside.strip_prefix('/').unwrap_or_default();
        let first = relative.split('/').next().unwrap_or_default();
        if !normal(relative) || relative == "app" || ["proc", "dev", "sys", "tmp", "run"].contains(&first) {
            return Err(format!("a volume cannot be at `{}`", volume.inside.escape_debug()));
        }
    }
    if let Some(name) = order.env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
        return Err(format!("`{}` is not a variable's name", name.escape_debug()));
    }
    if order.env.values().chain(&order.args).any(|text| text.contains('\0')) {
        return Err("a variable or an argument holds a NUL byte".to_owned());
    }
    match &order.launch {
        Launch::Script { path } if !normal(path) => {
            Err(format!("`{}` is not a path within the bundle", path.escape_debug()))
        }
        Launch::Script { .. } if order.root.is_some() => Err("a script has the nursery's own root".to_owned()),
        Launch::Command { argv } if argv.first().is_none_or(String::is_empty) => Err("the command is empty".to_owned()),
        _ => Ok(()),
    }
}

/// The star's own writable memory file system, with its few files in it.
fn scratch(order: &StarOrder, owner: Option<u32>) -> io::Result<OwnedFd> {
    let size = order.limits.memory.map_or(SCRATCH_MAX, |limit| limit.0).to_string();
    let id = owner.unwrap_or(0).to_string();
    let options = [("size", &*size), ("nr_inodes", SCRATCH_FILES), ("mode", "0755"), ("uid", &*id), ("gid", &*id)];
    let mount = tmpfs(&options)?;
    let sticky = Mode::RWXU | Mode::RWXG | Mode::RWXO | Mode::SVTX;
    for folder in ["tmp", "shm"] {
        rustix::fs::mkdirat(&mount, folder, sticky)?;
        // The nursery's mask took bits away.
        rustix::fs::chmodat(&mount, folder, sticky, AtFlags::empty())?;
        if let Some(id) = owner {
            rustix::fs::chownat(&mount, folder, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)), AtFlags::empty())?;
        }
    }
    let name = order.short_hostname();
    put(&mount, "hostname", &format!("{name}\n"))?;
    let local = format!("127.0.0.1 localhost {name}\n::1 localhost\n");
    match order.network {
        Network::Host => {
            put(&mount, "hosts", &(local + &fs::read_to_string("/etc/hosts").unwrap_or_default()))?;
            put(&mount, "resolv.conf", &fs::read_to_string("/etc/resolv.conf").unwrap_or_default())?;
        }
        Network::Bridge => {
            put(&mount, "hosts", &local)?;
            put(&mount, "resolv.conf", &bridge::resolv_conf())?;
        }
        Network::None => put(&mount, "hosts", &local)?,
    }
    Ok(mount)
}

fn put(folder: &OwnedFd, name: &str, text: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH)?;
    rustix::io::write(&file, text.as_bytes())?;
    Ok(())
}

fn exit_note(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    Ok(rustix::fs::open(folder.join("exit"), flags, Mode::RUSR | Mode::WUSR)?)
}

/// When a process began, in clock ticks since boot: with its pid it names one process for ever.
pub(crate) fn start_time(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "unreadable process status");
    // The second field, the program's name, may hold anything; field 22 is the 20th after it.
    let (_, after) = stat.rsplit_once(')').ok_or_else(unreadable)?;
    after.split_whitespace().nth(19).and_then(|field| field.parse().ok()).ok_or_else(unreadable)
}

/// The network a process is in.
pub(crate) fn network_of(pid: u32) -> io::Result<OwnedFd> {
    Ok(fs::File::open(format!("/proc/{pid}/ns/net"))?.into())
}

/// A borrowed descriptor or none.
pub(crate) fn borrowed(fd: &Option<OwnedFd>) -> Option<BorrowedFd<'_>> {
    fd.as_ref().map(AsFd::as_fd)
}
