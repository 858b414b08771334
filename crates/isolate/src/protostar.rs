//! A star before it has an order: its process runs, its walls stand but for the last, and it waits.
//!
//! Raising walls takes the kernel two milliseconds and is the same work for every star of the same *shape*. So each star
//! is made in two steps: first a protostar of its shape, then the order that makes it this star and no other. Protostars
//! of the usual shape are made ahead while the nursery has nothing else to do; a star of another shape has one made for it,
//! and the nursery goes through the order's particulars while the protostar raises its walls.
//!
//! A protostar holds nothing of any order: whoever's star it becomes, there is nothing of another's in it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use model::{Capability, Limits, Network, StarId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions};

use crate::cgroup::Hierarchies;
use crate::child::{self, GO, Shell};
use crate::disk::Area;
use crate::fault::Because;
use crate::ids;
use crate::order::{Launch, Place, StarOrder};
use crate::overlay::{Above, Layers};
use crate::pipes::Pipes;
use crate::points::Point;
use crate::record::Record;
use crate::root::tmpfs;
use crate::start::{Site, borrowed, network_of, start_time};
use crate::{place, sys};

/// Room of a star's `/tmp`, `/dev/shm` and `/run` together when its memory is unlimited.
const SCRATCH_MAX: u64 = 256 << 20;
/// Files in them: each costs kernel memory.
pub(crate) const SCRATCH_FILES: &str = "65536";

/// Protostars of the usual shape kept ready. Each holds half a megabyte; a usual change of a service starts no more at once.
const AHEAD: usize = 4;

/// What has to be known of a star before its walls are raised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape<'a> {
    /// Its own root, and the bytes it may write there.
    own_root: Option<(&'a Path, u64)>,
    /// Bytes of its disk, when it has one.
    disk: Option<u64>,
    /// Where its mounts go: the root needs something there to mount them on.
    points: Vec<Point>,
    /// What it may do that stars may not: it is given up for good with the other walls.
    capabilities: BTreeSet<Capability>,
    /// Whether it stays in the host's network.
    host_network: bool,
    /// Whether it may make every system call there is: what is forbidden is so for good.
    unfiltered: bool,
    /// The number of the process that brings its memory back, if it has one to go on from.
    restorer: Option<u32>,
}

impl<'a> Shape<'a> {
    const USUAL: Self = Self {
        own_root: None,
        disk: None,
        points: Vec::new(),
        capabilities: BTreeSet::new(),
        host_network: false,
        unfiltered: false,
        restorer: None,
    };

    pub(crate) fn of(order: &'a StarOrder) -> Self {
        // It counts as the star's memory: half of it leaves the program the other half.
        let size = order.limits.memory.map_or(SCRATCH_MAX, |limit| limit.0 / 2);
        Self {
            own_root: order.root.as_deref().map(|folder| (folder, size)),
            disk: order.limits.disk.map(|size| size.0),
            // The bundle's is always there, and those in its own memory the star makes itself.
            points: order.places().iter().skip(1).filter(|place| !place.is_own_memory()).map(point).collect(),
            capabilities: order.weakened.capabilities.clone(),
            host_network: order.network == Network::Host,
            unfiltered: order.weakened.no_seccomp,
            restorer: order.memory.as_ref().map(|memory| memory.free),
        }
    }
}

fn point(place: &Place<'_>) -> Point {
    Point { path: place.inside.trim_start_matches('/').to_owned(), file: place.is_file() }
}

pub(crate) struct Protostar {
    /// What is known so far; `star` is not.
    pub(crate) record: Record,
    /// Holds its pipes and its exit note; takes the star's name when there is one.
    pub(crate) folder: PathBuf,
    pub(crate) pidfd: OwnedFd,
    /// The order goes here. Closed unsent, it ends the protostar: nobody can be left with one if the nursery dies.
    pub(crate) orders: OwnedFd,
    /// What the star says of its start; see `child`.
    pub(crate) report: OwnedFd,
    pub(crate) network: Option<OwnedFd>,
    pub(crate) pipes: Pipes,
    /// The star's own writable memory file system.
    pub(crate) scratch: OwnedFd,
    /// Where its record will be written.
    pub(crate) blank: fs::File,
    /// What its groups and its memory file system have been set to.
    pub(crate) bounds: Bounds,
}

/// What an order says of limits, in a form that can be set before the order comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    limits: Limits,
    /// Whether an init of ours counts among the processes.
    init: bool,
}

impl Bounds {
    pub(crate) fn of(order: &StarOrder) -> Self {
        Self { limits: order.limits, init: matches!(order.launch, Launch::Command { .. }) }
    }

    /// Sets a star's groups, and says in its record what it cannot set.
    pub(crate) fn set(&self, record: &mut Record, hierarchies: &Hierarchies) -> Result<(), String> {
        let Self { limits, init } = self;
        let first = Some(record.pid).filter(|pid| *pid != 0);
        hierarchies
            .complete(&mut record.groups, limits, first)
            .because(|| "cannot make the star's cgroups".to_owned())?;
        record.init = *init;
        record.groups.own_pids = u32::from(*init);
        record.groups.fixed_pids = limits.pids.filter(|_| record.groups.pids.is_none());
        record.groups.limit(limits).map_err(|error| error.to_string())
    }

    /// Bytes of the star's `/tmp`, `/dev/shm` and `/run` together.
    pub(crate) fn scratch(&self) -> u64 {
        self.limits.memory.map_or(SCRATCH_MAX, |limit| limit.0)
    }
}

/// Whether somebody waits for a protostar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Now,
    Ahead,
}

/// The protostars made ahead.
pub(crate) struct Ahead {
    ready: Vec<Protostar>,
    /// Those of the last order: as often as not the next one has the same, and then they are set already.
    pub(crate) bounds: Bounds,
    /// Names what is made; no two things of one nursery have the same.
    made: u64,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { ready: Vec::new(), bounds: Bounds { limits: Limits::UNLIMITED, init: false }, made: 0 }
    }
}

impl Site {
    /// A protostar of the order's shape, from those made ahead if there is one.
    pub(crate) fn protostar(&mut self, order: &StarOrder) -> Result<Protostar, String> {
        let shape = Shape::of(order);
        while shape == Shape::USUAL
            && let Some(protostar) = self.ahead.ready.pop()
        {
            if protostar.lives() {
                return Ok(protostar);
            }
            self.abandon(protostar);
        }
        self.form(&order.star.to_string(), &shape, Bounds::of(order), When::Now)
    }

    pub(crate) fn has_no_protostar(&self) -> bool {
        self.ahead.ready.is_empty()
    }

    pub(crate) fn wants_protostars(&self) -> bool {
        self.ahead.ready.len() < AHEAD
    }

    /// Makes one more ahead.
    pub(crate) fn form_ahead(&mut self) -> Result<(), String> {
        self.ahead.made += 1;
        let name = format!("protostar-{}-{}", std::process::id(), self.ahead.made);
        let protostar = self.form(&name, &Shape::USUAL, self.ahead.bounds, When::Ahead)?;
        self.ahead.ready.push(protostar);
        Ok(())
    }

    /// Ends those that were made ahead.
    pub(crate) fn abandon_ahead(&mut self) {
        // All at once: while one is waited for, the others end too.
        for protostar in &self.ahead.ready {
            let _ = sys::signal::send(protostar.pidfd.as_fd(), libc::SIGKILL);
        }
        for protostar in std::mem::take(&mut self.ahead.ready) {
            self.abandon(protostar);
        }
    }

    /// Ends a protostar and gives back what it held.
    pub(crate) fn abandon(&mut self, protostar: Protostar) {
        let _ = sys::signal::send(protostar.pidfd.as_fd(), libc::SIGKILL);
        let _ = rustix::process::waitid(WaitId::PidFd(protostar.pidfd.as_fd()), WaitIdOptions::EXITED);
        self.clean_up(&protostar.record, &protostar.folder);
        let _ = fs::remove_dir_all(&protostar.folder);
    }

    /// Makes one. `name` is its groups' and, until it has an order, its folder's. On failure nothing is left of it.
    fn form(&mut self, name: &str, shape: &Shape<'_>, bounds: Bounds, when: When) -> Result<Protostar, String> {
        let mut record = Record::new(StarId(0), 0, Network::None);
        record.groups = self.hierarchies.star(name, 0);
        if let Some(ids) = &mut self.ids {
            record.slot = Some(ids.take().ok_or("every range of user ids is taken")?);
        }
        let folder = place::stars(&self.data_dir).join(format!("{name}.new"));
        let formed = self.form_with(&mut record, &folder, shape, bounds, when);
        formed.inspect_err(|_| {
            self.clean_up(&record, &folder);
            let _ = fs::remove_dir_all(&folder);
        })
    }

    fn form_with(
        &mut self,
        record: &mut Record,
        folder: &Path,
        shape: &Shape<'_>,
        bounds: Bounds,
        when: When,
    ) -> Result<Protostar, String> {
        let cannot = |what: &'static str| move || format!("cannot {what}");
        record.groups.create().because(cannot("make the star's cgroups"))?;
        bounds.set(record, &self.hierarchies)?;
        let birthplace = record.groups.birthplace().because(cannot("open the star's cgroup"))?;
        let owner = record.slot.map(ids::host_id);
        place::make_new(folder).because(|| format!("cannot make `{}`", folder.display()))?;
        let (ends, pipes) = Pipes::make(folder, owner).because(cannot("make the star's pipes"))?;
        let blank = Record::blank(folder).because(cannot("make the star's record"))?;
        let disk = shape
            .disk
            .map(|size| self.disks.make(folder, size, owner, shape.own_root.is_some(), self.stage.workshop()));
        let disk = disk.transpose()?;
        let (root, devices) = match shape.own_root {
            None => (self.stage.root(&shape.points)?, None),
            Some(own) => {
                let devices = self.stage.devices()?;
                let (below, size) = own;
                let above = disk.as_ref().map_or(Above::Memory(size), |disk| Above::Folder(disk.folder()));
                (self.overlay(below, above, &shape.points, record.slot)?, Some(devices))
            }
        };
        let (orders, orders_from) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .because(cannot("make a socket"))?;
        let (report, report_to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).because(cannot("make a pipe"))?;
        let network = match shape.host_network {
            true => None,
            false => self.networks.take().because(cannot("make a network namespace"))?,
        };
        let own_network = !shape.host_network && network.is_none();
        let namespaces = NAMESPACES | if own_network { libc::CLONE_NEWNET } else { 0 };
        let scratch = scratch(owner, bounds.scratch()).because(cannot("make the star's `/tmp`"))?;
        let shell = Shell {
            tasks: record.groups.tasks().because(cannot("open the star's cgroups"))?,
            orders: orders_from,
            report: report_to,
            exit_note: exit_note(folder).because(cannot("make the star's exit note"))?,
            root,
            devices,
            scratch: scratch.as_fd(),
            tmp: disk.map(Area::into_tmp),
            stdout: ends.out,
            stderr: ends.err,
            own_network,
            drop_groups: record.slot.is_some(),
            filter_ahead: !shape.unfiltered,
            ahead: when == When::Ahead,
            // The init of a command would only carry the memory that this touches.
            rehearse: when == When::Ahead && !bounds.init,
            masked: &self.masked,
            filters: &self.filters,
            landlock: self.landlock,
            capabilities: &shape.capabilities,
            restorer: shape.restorer,
            entry: self.entry,
            title: self.title,
        };
        let clone = || {
            sys::process::clone(namespaces, borrowed(&birthplace), || {
                sys::process::close(orders.as_fd());
                child::run(&shell)
            })
        };
        let clone = || self.stage.clone_from_bare(clone);
        let cloned = match &network {
            Some(network) => self.networks.inside(network.as_fd(), clone),
            None => clone(),
        };
        let (pid, pidfd) = cloned.because(cannot("make the star's namespaces"))?;
        drop(shell);
        record.pid = pid;
        let mut network = network;
        let mut release = || -> io::Result<()> {
            record.start_time = start_time(pid)?;
            if own_network {
                network = Some(network_of(pid)?);
            }
            ids::map(pid, record.slot)?;
            rustix::io::write(&orders, GO)?;
            Ok(())
        };
        if let Err(error) = release() {
            // It waits for the word that will not come; its end is quick.
            let _ = sys::signal::send(pidfd.as_fd(), libc::SIGKILL);
            let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            return Err(error).because(cannot("let the star go"));
        }
        let (record, folder) = (record.clone(), folder.to_owned());
        Ok(Protostar { record, folder, pidfd, orders, report, network, pipes, scratch, blank, bounds })
    }

    /// The star's own root over a folder of the host.
    fn overlay(
        &mut self,
        folder: &Path,
        above: Above<'_>,
        points: &[Point],
        slot: Option<u32>,
    ) -> Result<OwnedFd, String> {
        let owners = self.owners(slot)?;
        let layers = Layers { folder, owners: borrowed(&owners), owner: slot.map(ids::host_id), above, points };
        layers.assemble(self.stage.workshop())
    }
}

impl Protostar {
    fn lives(&self) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())) == Ok(0)
    }
}

/// Every namespace but the network's, which was made ahead, and the cgroup's, which must not be entered before the
/// groups are joined.
const NAMESPACES: libc::c_int =
    libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// The star's own writable memory file system with its folders; its files come with the order.
fn scratch(owner: Option<u32>, size: u64) -> io::Result<OwnedFd> {
    let id = owner.unwrap_or(0).to_string();
    let size = size.to_string();
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
    Ok(mount)
}

fn exit_note(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    Ok(rustix::fs::open(folder.join("exit"), flags, Mode::RUSR | Mode::WUSR)?)
}
