//! How a nursery settles on a data folder: alone on it, in namespaces of its own, with the stars it finds there.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use model::{ExitCause, Network};
use rustix::fs::FlockOperation;
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::handover::{ExecState, Handover, PhaseState, StarState, fnv, now_ns};
use super::program;
use super::{Exec, Nursery, Phase, Star, StarEntry};
use crate::bridge::Bridge;
use crate::cgroup::Hierarchies;
use crate::child::masked_proc;
use crate::disk::Disks;
use crate::exec::Running;
use crate::fault::{Doing, Fault};
use crate::ids::IdRanges;
use crate::network::Networks;
use crate::nursery::peers::Peers;
use crate::nursery::poller::{Poller, Source};
use crate::pipes::Pipes;
use crate::protocol::Message;
use crate::protostar::Ahead;
use crate::record::Record;
use crate::root::Stage;
use crate::star::Told;
use crate::start::{Site, network_of};
use crate::sys::inherit;
use crate::sys::signal::SignalFd;
use crate::walls::Walls;
use crate::{landlock, place, seccomp, star, sys};

/// The nursery, ready to run.
pub(super) fn settle(data_dir: &Path, entry: StarEntry) -> Result<Nursery, Fault> {
    at(data_dir, |data_dir| settle_at(data_dir, entry))
}

/// A nursery that goes on from the state another program left in descriptor `state` of this process.
pub(super) fn take_over(data_dir: &Path, entry: StarEntry, state: i32) -> Result<Nursery, Fault> {
    at(data_dir, |data_dir| {
        let cannot = || "cannot take over".to_owned();
        let state = inherit::take(state).doing(cannot)?;
        let state = Handover::read(state).map_err(std::io::Error::other).doing(cannot)?;
        take_over_at(data_dir, entry, state)
    })
}

/// Does something at the folder's true place.
fn at<T>(data_dir: &Path, settle: impl FnOnce(&Path) -> Result<T, Fault>) -> Result<T, Fault> {
    place::make_private(data_dir)
        .and_then(|()| fs::canonicalize(data_dir))
        .and_then(|data_dir| settle(&data_dir).map_err(std::io::Error::other))
        .map_err(|error| match error.downcast::<Fault>() {
            Ok(fault) => fault,
            Err(source) => Fault::System { doing: format!("cannot use `{}`", data_dir.display()), source },
        })
}

fn settle_at(data_dir: &Path, entry: StarEntry) -> Result<Nursery, Fault> {
    let cannot = |what: &'static str| move || format!("cannot {what}");
    let signals = alone()?;
    let privileged = is_privileged();
    if !privileged {
        program::settle().doing(cannot("execute the nursery from a read-only mount"))?;
    }
    let lock = lock(data_dir)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    raise_open_files();
    place::make_private(&place::stars(data_dir)).doing(cannot("make the stars' folder"))?;

    let mut disks = Disks::probe(data_dir, privileged);
    let records = records(data_dir, &mut disks);
    if !privileged {
        enter_user_namespace(&records)?;
    }
    let hierarchies = Hierarchies::set_up(&groups_name(data_dir), privileged, data_dir);
    let stage = Stage::set_up(data_dir.join("root"))?;
    let mut site = site(data_dir, entry, privileged, hierarchies, stage, disks)?;
    // The usual tree, so that the first star does not wait for it. A failure will be told when one is started. One that takes
    // over has somebody waiting now, and makes it with its first protostar.
    let _ = site.stage.root(&[]);
    let listener = place::listen(data_dir).doing(cannot("listen on `nursery.sock`"))?;
    let mut nursery = Nursery::new(lock, site, listener, signals).doing(cannot("wait for events"))?;
    for record in records {
        nursery.adopt(record);
    }
    nursery.sweep();
    Ok(nursery)
}

fn take_over_at(data_dir: &Path, entry: StarEntry, state: Handover) -> Result<Nursery, Fault> {
    let cannot = || "cannot take over".to_owned();
    let lock = File::from(inherit::take(state.lock).doing(cannot)?);
    let listener = inherit::take(state.listener).doing(cannot)?;
    let signals = alone()?;
    // Only for people to read: the kernel calls the process by the descriptor it was executed from.
    let _ = rustix::thread::set_name(c"rads");
    let hierarchies = Hierarchies::set_up(&groups_name(data_dir), state.privileged, data_dir);
    let stage = Stage::set_up_again(data_dir.join("root"))?;
    let disks = Disks::probe(data_dir, state.privileged);
    let site = site(data_dir, entry, state.privileged, hierarchies, stage, disks)?;
    let mut nursery = Nursery::new(lock, site, listener, signals).doing(cannot)?;
    nursery.peers.unpack(state.next_peer, state.peers, &mut nursery.poller).doing(cannot)?;
    for star in state.stars {
        nursery.unpack_star(star).doing(cannot)?;
    }
    nursery.next_exec = state.next_exec;
    for exec in state.execs {
        nursery.unpack_exec(exec).doing(cannot)?;
    }
    nursery.sweep();
    let stars = nursery.stars.values().filter(|star| star.lives()).count() as u32;
    let elapsed_us = now_ns().saturating_sub(state.stopped_ns) / 1000;
    nursery.tell(state.asked_by, Message::TookOver { stars, elapsed_us });
    Ok(nursery)
}

/// Makes sure that there is but one thread, and has signals come as data.
fn alone() -> Result<SignalFd, Fault> {
    let cannot = |what: &'static str| move || format!("cannot {what}");
    let threads = fs::read_dir("/proc/self/task").doing(cannot("count threads"))?.count();
    assert_eq!(threads, 1, "a nursery has no other threads: its copies would lack them");
    sys::signal::block_all();
    SignalFd::new().doing(cannot("receive signals"))
}

fn site(
    data_dir: &Path,
    entry: StarEntry,
    privileged: bool,
    hierarchies: Hierarchies,
    stage: Stage,
    disks: Disks,
) -> Result<Site, Fault> {
    let name = group_name(data_dir);
    Ok(Site {
        data_dir: data_dir.to_owned(),
        hierarchies,
        stage,
        networks: Networks::new(privileged).doing(|| "cannot open the network namespace".to_owned())?,
        bridge: Bridge::new(name as u32, data_dir),
        ids: privileged.then(|| IdRanges::new(name >> 32)),
        filters: seccomp::Filters::new(),
        landlock: landlock::version(),
        masked: masked_proc(),
        entry,
        ahead: Ahead::default(),
        disks,
        title: sys::title::Title::find().ok(),
    })
}

/// The lock of the data folder. It is the process's, not the open file's: a star that was being made when the nursery was
/// killed may still have its descriptors, and must not keep the next nursery out. No other part of this process may open
/// and close the file, which would end the lock.
fn lock(data_dir: &Path) -> Result<File, Fault> {
    let path = place::pid_file(data_dir);
    let doing = || format!("cannot lock `{}`", path.display());
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).doing(doing)?;
    if rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        let _ = file.read_to_string(&mut pid);
        return Err(Fault::AlreadyRunning { data_dir: data_dir.to_owned(), pid: pid.trim().parse().unwrap_or(0) });
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).doing(doing)?;
    Ok(file)
}

/// Whether stars can be given ids and mounts of their own by the host's rights.
fn is_privileged() -> bool {
    let needed = CapabilitySet::SYS_ADMIN
        | CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::CHOWN
        | CapabilitySet::NET_ADMIN
        | CapabilitySet::SYS_CHROOT
        | CapabilitySet::SYS_PTRACE
        | CapabilitySet::KILL;
    let have = rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
    have && rustix::process::geteuid().is_root() && IdRanges::available()
}

/// Without privileges on the host, the rights over namespaces come from a user namespace in which one is root. Stars
/// that outlived another nursery live below its namespace, and only from there are they reached: it is found again
/// through any of them.
fn enter_user_namespace(records: &[Record]) -> Result<(), Fault> {
    let cannot = || "cannot make a user namespace (are unprivileged user namespaces switched off?)".to_owned();
    let of_star = |record: &Record| {
        star::find(record)?;
        let space = File::open(format!("/proc/{}/ns/user", star::member_pid(record).ok()?)).ok()?;
        sys::namespace::parent(space.as_fd()).ok()
    };
    let living = records.iter().filter(|record| record.ended.is_none() && record.pid != 0);
    if let Some(space) = living.filter_map(of_star).next() {
        let entered = move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::User));
        return entered.doing(|| "cannot enter the user namespace of the running stars".to_owned());
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    sys::namespace::unshare(UnshareFlags::NEWUSER).doing(cannot)?;
    fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| fs::write("/proc/self/gid_map", format!("0 {gid} 1")))
        .and_then(|()| fs::write("/proc/self/uid_map", format!("0 {uid} 1")))
        .doing(cannot)
}

/// Four descriptors a star: as many as may be had.
fn raise_open_files() {
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// The stars that are known on disk. A folder without a record never held one: a nursery died while making it.
fn records(data_dir: &Path, disks: &mut Disks) -> Vec<Record> {
    let entries = fs::read_dir(place::stars(data_dir)).into_iter().flatten().flatten();
    let (known, empty): (Vec<_>, Vec<_>) =
        entries.map(|entry| entry.path()).partition(|path| path.join("record").exists());
    for folder in empty {
        disks.give_back(&folder);
        let _ = fs::remove_dir_all(folder);
    }
    let load = |folder: PathBuf| match Record::load(&folder) {
        Ok(record) => Some(record),
        Err(error) => {
            // Nobody can look after it: what is in its groups is ended with those that are not known.
            eprintln!("the record in `{}` cannot be read ({error}): that star is ended", folder.display());
            let _ = fs::rename(folder.join("record"), folder.join("record.unreadable"));
            None
        }
    };
    known.into_iter().filter_map(load).collect()
}

/// A name for a data folder's groups, spread well enough for the few nurseries of a machine.
fn group_name(data_dir: &Path) -> u64 {
    fnv(data_dir.as_os_str().as_encoded_bytes())
}

fn groups_name(data_dir: &Path) -> String {
    format!("rads-{:08x}", group_name(data_dir) as u32)
}

impl Nursery {
    fn new(lock: File, site: Site, listener: OwnedFd, signals: SignalFd) -> std::io::Result<Self> {
        let mut poller = Poller::new()?;
        poller.add(&listener, Source::Listener)?;
        poller.add(&signals, Source::Signals)?;
        let walls = Walls {
            disk: site.disks.means().clone(),
            landlock: landlock::enforced(),
            ..site.hierarchies.walls(site.ids.is_none())
        };
        Ok(Self {
            lock,
            site,
            walls,
            poller,
            listener,
            signals,
            peers: Peers::default(),
            stars: Default::default(),
            execs: Default::default(),
            next_exec: 0,
            resting: Vec::new(),
            spares_fail: false,
            leases: Default::default(),
            yielding: Default::default(),
            check: None,
            stopping: false,
        })
    }

    /// Removes what belongs to no star that is known.
    fn sweep(&mut self) {
        self.site.bridge.sweep();
        let known: BTreeSet<_> = self.stars.values().flat_map(|star| star.record.groups.names()).collect();
        self.site.hierarchies.sweep(|name| known.contains(name));
    }

    /// Goes on with a star where the program before this one stopped.
    fn unpack_star(&mut self, state: StarState) -> std::io::Result<()> {
        let StarState { record, phase, told, network, pidfd, logs, still } = state;
        let id = record.star;
        let folder = place::star(&self.site.data_dir, id);
        self.site.hierarchies.inherit(&record.groups);
        if !matches!(phase, PhaseState::Ended) {
            if let (Some(slot), Some(ids)) = (record.slot, &mut self.site.ids) {
                ids.keep(slot);
            }
            if let Some(address) = record.address {
                self.site.bridge.adopt(address);
            }
        }
        let phase = match phase {
            PhaseState::Starting { asked_us_ago, report } => {
                let report = inherit::take(report)?;
                let token = self.poller.add(&report, Source::Report(id))?;
                let now = Instant::now();
                let asked = now.checked_sub(Duration::from_micros(asked_us_ago)).unwrap_or(now);
                Phase::Starting { asked, report, token }
            }
            PhaseState::Running => Phase::Running,
            PhaseState::Leaving(outcome) => Phase::Leaving(outcome),
            PhaseState::Ended => Phase::Ended,
        };
        let pipes = match logs {
            None => None,
            Some([out, err]) => {
                let readers = [inherit::take(out.reader)?, inherit::take(err.reader)?];
                let mut pipes = Pipes::go_on(&folder, readers, [out.rest, err.rest]);
                pipes.limit(record.limits.and_then(|limits| limits.log_rate));
                Some(pipes)
            }
        };
        let network = network.map(inherit::take).transpose()?;
        let mut star = Star { record, folder, phase, told, network, pidfd: None, logs: None, still };
        if let Some(pidfd) = pidfd {
            self.attend(&mut star, inherit::take(pidfd)?, pipes)?;
        }
        self.stars.insert(id, star);
        Ok(())
    }

    fn unpack_exec(&mut self, state: ExecState) -> std::io::Result<()> {
        let ExecState { number, pid, pidfd, report, peer, asked_as } = state;
        let running = Running { pidfd: inherit::take(pidfd)?, pid, report: inherit::take(report)? };
        let token = self.poller.add(&running.pidfd, Source::ExecEnd(number))?;
        self.execs.insert(number, Exec { running, token, peer, asked_as });
        Ok(())
    }

    /// Takes over a star of a nursery that is gone: alive, or with its end noted.
    fn adopt(&mut self, record: Record) {
        self.site.hierarchies.inherit(&record.groups);
        let folder = place::star(&self.site.data_dir, record.star);
        let found = if record.ended.is_none() { star::find(&record) } else { None };
        if let (Some(slot), Some(ids), None) = (record.slot, &mut self.site.ids, &record.ended) {
            ids.keep(slot);
        }
        let network = match record.network {
            Network::Host => None,
            _ => found.as_ref().and_then(|_| network_of(star::member_pid(&record).ok()?).ok()),
        };
        let mut star = Star {
            record,
            folder,
            phase: Phase::Running,
            told: Told::default(),
            network,
            pidfd: None,
            logs: None,
            still: Default::default(),
        };
        match found {
            Some(pidfd) => {
                if let Some(address) = star.record.address {
                    self.site.bridge.adopt(address);
                }
                let mut pipes = Pipes::open(&star.folder).ok();
                if let (Some(pipes), Some(limits)) = (&mut pipes, &star.record.limits) {
                    pipes.limit(limits.log_rate);
                }
                // Out of descriptors: it runs on, unwatched, until a nursery with more of them follows.
                let _ = self.attend(&mut star, pidfd, pipes);
            }
            None if star.record.ended.is_some() => star.phase = Phase::Ended,
            None => {
                let cause = match star.record.pid {
                    0 => ExitCause::StartFailed { reason: "the nursery ended while starting it".to_owned() },
                    _ => star::cause(&star.record, &star.folder, None, Told::default()),
                };
                self.site.clean_up(&star.record, &star.folder);
                star.conclude(cause);
            }
        }
        self.stars.insert(star.record.star, star);
    }
}
