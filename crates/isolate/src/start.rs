//! The nursery's side of a start: a protostar gets its order and becomes a star.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use model::interior::{PlaceKind, check_place};
use model::{Network, User};
use rustix::fs::{Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::bridge::{self, Bridge};
use crate::cgroup::{Hierarchies, hurry};
use crate::child::{self, Briefing, GO, Masked};
use crate::disk::Disks;
use crate::fault::Because;
use crate::ids::IdRanges;
use crate::memory::RESTORE_LOG;
use crate::network::Networks;
use crate::nursery::StarEntry;
use crate::order::{Beginning, Content, Interior, Launch, PLACES_MAX, Place, StarOrder};
use crate::pipes::Pipes;
use crate::private::Private;
use crate::protostar::{Ahead, Bounds, Protostar, SCRATCH_FILES};
use crate::record::{Record, Stance};
use crate::root::{Stage, detached, resize, tmpfs};
use crate::seccomp::Filters;
use crate::sys::title::Title;
use crate::vault::Vault;
use crate::{ids, packet, place, sys};

/// What a nursery holds ready for every start.
pub(crate) struct Site {
    pub(crate) data_dir: PathBuf,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) stage: Stage,
    pub(crate) networks: Networks,
    pub(crate) bridge: Bridge,
    /// `None` without privileges on the host: every star then has the user's own id.
    pub(crate) ids: Option<IdRanges>,
    pub(crate) filters: Filters,
    /// Of the kernel's Landlock, where it has one that serves.
    pub(crate) landlock: Option<u32>,
    pub(crate) masked: Vec<Masked>,
    pub(crate) entry: StarEntry,
    pub(crate) ahead: Ahead,
    pub(crate) disks: Disks,
    /// `None` where the kernel does not tell: stars then look like the nursery.
    pub(crate) title: Option<Title>,
}

/// A star on its way: it has its order, its walls are not yet reported.
pub(crate) struct Launched {
    pub(crate) record: Record,
    pub(crate) pidfd: OwnedFd,
    /// What the star says of its start; see `child`.
    pub(crate) report: OwnedFd,
    pub(crate) network: Option<OwnedFd>,
    pub(crate) pipes: Pipes,
}

impl Site {
    /// Starts a star. Its folder is made; on failure nothing is left of it.
    pub(crate) fn launch(&mut self, order: &StarOrder, secrets: &[Private]) -> Result<Launched, String> {
        check(order, self.ids.is_some())?;
        let mut protostar = self.protostar(order)?;
        match self.ignite(&mut protostar, order, secrets) {
            Ok(()) => {
                let Protostar { record, pidfd, report, network, pipes, .. } = protostar;
                Ok(Launched { record, pidfd, report, network, pipes })
            }
            Err(reason) => {
                self.abandon(protostar);
                Err(reason)
            }
        }
    }

    /// Whether something made ahead is missing.
    pub(crate) fn wants_spares(&self) -> bool {
        self.networks.wants_more() || self.ids.as_ref().is_some_and(IdRanges::wants_more) || self.wants_protostars()
    }

    /// Makes one such thing: a protostar, which takes a millisecond or two, or what makes the next one cheaper.
    pub(crate) fn make_spare(&mut self) -> Result<(), String> {
        let failed = || "cannot make spares".to_owned();
        if self.has_no_protostar() {
            return self.form_ahead();
        }
        match &mut self.ids {
            Some(ids) if ids.wants_more() => ids.prepare().because(failed),
            _ if self.networks.wants_more() => self.networks.prepare().because(failed),
            _ => self.form_ahead(),
        }?;
        if !self.wants_spares() {
            // The copies have taken this process's memory with them: what the next order touches is copied now.
            child::rehearse_order();
        }
        Ok(())
    }

    /// Gives back what a star held outside its namespaces. `false` while its groups are not empty yet. `folder` is its folder.
    pub(crate) fn clean_up(&mut self, record: &Record, folder: &Path) -> bool {
        if !record.groups.remove() {
            return false;
        }
        if let (Some(ids), Some(slot)) = (&mut self.ids, record.slot) {
            ids.release(slot);
        }
        if let Some(address) = record.address {
            self.bridge.release(address);
        }
        self.disks.give_back(folder);
        true
    }

    /// Makes a protostar the star that is ordered: everything that is its alone.
    fn ignite(&mut self, protostar: &mut Protostar, order: &StarOrder, secrets: &[Private]) -> Result<(), String> {
        let cannot = |what: &'static str| move || format!("cannot {what}");
        let Protostar { record, network, scratch, .. } = protostar;
        record.star = order.star;
        record.generation = order.generation;
        record.network = order.network;
        record.limits = Some(order.limits);
        record.stance = Stance::of(order);
        let bounds = Bounds::of(order);
        if protostar.bounds != bounds {
            bounds.set(record, &self.hierarchies)?;
            resize(scratch, bounds.scratch()).because(cannot("size the star's `/tmp`"))?;
        }
        self.ahead.bounds = bounds;
        protostar.pipes.limit(order.limits.log_rate);
        let processes = record.groups.fixed_pids.map(|pids| u64::from(pids) + u64::from(record.groups.own_pids));
        let mounts = self.mounts(order, secrets, record.slot)?;
        let furnish = || furnish(scratch, order).because(cannot("make the star's `/run`"));
        if order.root.is_some() {
            // It covers what its root has of them.
            furnish()?;
        }
        let of_memory = self.of_memory(order, &protostar.folder, record.slot)?;
        let briefing = Briefing { order: Cow::Borrowed(order), processes };
        let mounts: Vec<_> = mounts.iter().chain(&of_memory).map(AsFd::as_fd).collect();
        packet::send(protostar.orders.as_fd(), &briefing, &mounts).because(cannot("tell the star its order"))?;
        // While it goes through that, and gives up what it took, the rest is done here.
        if order.root.is_none() {
            furnish()?;
        }
        if order.network == Network::Bridge {
            let network = network.as_ref().filter(|_| self.ids.is_some());
            let network = network.ok_or("`network: \"bridge\"` needs root")?;
            record.address = Some(self.bridge.wire(&self.networks, network.as_fd())?);
        }
        let folder = place::star(&self.data_dir, order.star);
        let cwd = rustix::fs::CWD;
        rustix::fs::renameat_with(cwd, &protostar.folder, cwd, &folder, RenameFlags::NOREPLACE)
            .because(|| format!("cannot make `{}`", folder.display()))?;
        protostar.folder = folder;
        protostar.pipes.moved(&protostar.folder);
        // It was made when nobody was waiting for it.
        hurry(record.pid);
        // On disk before the star does anything: whatever happens to the nursery now, the next one knows it.
        record.create(&protostar.folder, &protostar.blank).because(cannot("keep the star's record"))?;
        match rustix::io::write(&protostar.orders, GO) {
            // It has failed already, and its report says why.
            Ok(_) | Err(Errno::PIPE) => Ok(()),
            Err(error) => Err(error).because(cannot("let the star go")),
        }
    }

    /// The user namespace through which a slot's star sees the owners of files; `None` without privileges.
    pub(crate) fn owners(&mut self, slot: Option<u32>) -> Result<Option<OwnedFd>, String> {
        match (&mut self.ids, slot) {
            (Some(ids), Some(slot)) => ids.mapping(slot).because(|| "cannot map user ids".to_owned()).map(Some),
            _ => Ok(None),
        }
    }

    /// What the star's memory is brought back with, in the order of `Restorer::bring_back`. Its root may read the images, which
    /// stay those of the host's root.
    fn of_memory(&mut self, order: &StarOrder, folder: &Path, slot: Option<u32>) -> Result<Vec<OwnedFd>, String> {
        let Some(memory) = &order.memory else { return Ok(Vec::new()) };
        let cannot = |path: &Path| {
            let path = path.display().to_string();
            move || format!("cannot open `{path}`")
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let kit = rustix::fs::open(&memory.kit, flags, Mode::empty()).because(cannot(&memory.kit))?;
        let owners = self.owners(slot)?;
        let attributes = sys::mount::READ_ONLY | sys::mount::NO_SUID | sys::mount::NO_DEV;
        let images = detached(&memory.images, attributes, borrowed(&owners)).because(cannot(&memory.images))?;
        let log = folder.join(RESTORE_LOG);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::APPEND | OFlags::CLOEXEC;
        let log = rustix::fs::open(&log, flags, Mode::RUSR | Mode::WUSR).because(cannot(&log))?;
        Ok(vec![kit, images, log])
    }

    /// Detached mounts of everything that goes into the star, in the order of `StarOrder::places`, and of what it begins with.
    fn mounts(&mut self, order: &StarOrder, secrets: &[Private], slot: Option<u32>) -> Result<Vec<OwnedFd>, String> {
        let places = order.places();
        for place in places.iter().filter(|place| !place.is_file()) {
            if let Some(below) = place.inside.strip_prefix("/app/") {
                // The only place that is not ours to shape: the bundle lends an empty folder.
                let failed = || format!("cannot make a place for {}", place.what());
                fs::create_dir_all(order.bundle.join(below)).because(failed)?;
            }
        }
        let owners = self.owners(slot)?;
        let owners = borrowed(&owners);
        let user = order.interior.user.unwrap_or(User { uid: 0, gid: 0 });
        let base = slot.map(ids::host_id);
        let owner = base.map(|base| (base + user.uid, base + user.gid));
        let vault = match secrets {
            [] => None,
            _ => Some(
                Vault::open(self.stage.workshop(), secrets, owner).because(|| "cannot lay secrets down".to_owned())?,
            ),
        };
        let mount = |place: &Place<'_>| {
            let read_only = if place.is_read_only() { sys::mount::READ_ONLY } else { 0 };
            let attributes = read_only | sys::mount::NO_SUID | sys::mount::NO_DEV;
            let (host, mount) = match (place.content, &vault) {
                (Content::Bundle(host), _) => (host, detached(host, attributes, owners)),
                (Content::Volume(volume), _) => {
                    let size = volume.size.map(|size| size.0);
                    if let Some(volume) = self.disks.volume(&volume.host, size, owners, self.stage.workshop())? {
                        return Ok(volume);
                    }
                    (volume.host.as_path(), detached(&volume.host, attributes, owners))
                }
                (Content::Bind(bind), _) => (bind.host.as_path(), detached(&bind.host, attributes, owners)),
                (Content::Tmpfs(size), _) => (Path::new("memory"), memory(size, owner)),
                (Content::Secret(number), Some(vault)) => (Path::new("memory"), vault.file(number)),
                (Content::Secret(_), None) => return Err(format!("{} has no value", place.what())),
            };
            mount.map_err(|error| why_no_mount(place, host, &error, owners.is_some()))
        };
        let mut mounts: Vec<OwnedFd> = places.iter().map(mount).collect::<Result<_, _>>()?;
        if let Some(Beginning { folder, .. }) = &order.beginning {
            let attributes = sys::mount::READ_ONLY | sys::mount::NO_SUID | sys::mount::NO_DEV;
            let begun = detached(folder, attributes, owners);
            mounts.push(begun.because(|| "cannot show the star the files it begins with".to_owned())?);
        }
        Ok(mounts)
    }
}

/// A memory file system of the star's own, for all its users.
fn memory(size: u64, owner: Option<(u32, u32)>) -> io::Result<OwnedFd> {
    let (uid, gid) = owner.unwrap_or_default();
    let (size, uid, gid) = (size.to_string(), uid.to_string(), gid.to_string());
    tmpfs(&[("size", &*size), ("nr_inodes", SCRATCH_FILES), ("mode", "1777"), ("uid", &*uid), ("gid", &*gid)])
}

fn why_no_mount(place: &Place<'_>, host: &Path, error: &io::Error, mapped: bool) -> String {
    let what = place.what();
    if mapped && error.raw_os_error() == Some(libc::EINVAL) {
        return format!(
            "cannot bind {what}: the file system of `{}` cannot show files under other owners (no idmapped mounts)",
            host.display()
        );
    }
    format!("cannot bind {what} from `{}`: {}", host.display(), crate::fault::plain(error))
}

/// Refuses what the walls could not carry. The agent has checked it for the user; this is for the nursery's own sake.
fn check(order: &StarOrder, mapped: bool) -> Result<(), String> {
    let label = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if order.short_hostname().is_empty() || !order.hostname.chars().all(label) {
        return Err(format!("`{}` is not a host name", order.hostname.escape_debug()));
    }
    let places = order.places();
    if places.len() > PLACES_MAX + 1 {
        return Err(format!("at most {PLACES_MAX} places beside the bundle, not {}", places.len() - 1));
    }
    for place in &places[1..] {
        let (kind, what) = match place.content {
            Content::Bundle(_) | Content::Volume(_) => (PlaceKind::Volume, "a volume"),
            Content::Tmpfs(_) => (PlaceKind::Tmpfs, "a memory file system"),
            Content::Bind(_) => (PlaceKind::Bind, "a bind"),
            Content::Secret(_) => (PlaceKind::Secret, "a secret"),
        };
        if let Err(why) = check_place(kind, place.inside) {
            return Err(format!("{what} cannot be at `{}`: {why}", place.inside.escape_debug()));
        }
    }
    let Interior { workdir, user, .. } = &order.interior;
    if let Some(workdir) = workdir.as_ref().filter(|workdir| !workdir.starts_with('/') || workdir.contains('\0')) {
        return Err(format!("`{}` is no folder to start in", workdir.escape_debug()));
    }
    if user.is_some_and(|user| (user.uid, user.gid) != (0, 0)) && !mapped {
        return Err("without root a star has no user but its root".to_owned());
    }
    if let Some(name) = order.env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
        return Err(format!("`{}` is not a variable's name", name.escape_debug()));
    }
    if order.env.values().chain(&order.args).chain(&order.before).any(|text| text.contains('\0')) {
        return Err("a variable or an argument holds a NUL byte".to_owned());
    }
    if order.memory.is_some() && (!mapped || order.root.is_some() || matches!(order.launch, Launch::Script { .. })) {
        return Err("only root brings memories back, and only of commands in the host's root file system".to_owned());
    }
    if let Some(begun) = &order.beginning {
        let sound =
            |area: &String| area.starts_with('/') && !area.contains('\0') && !area.split('/').any(|it| it == "..");
        if let Some(area) = begun.areas.iter().find(|area| !sound(area)) {
            return Err(format!("`{}` is no place for files to begin with", area.escape_debug()));
        }
    }
    match &order.launch {
        Launch::Script { .. } if order.root.is_some() => Err("a script has the nursery's own root".to_owned()),
        launch => launch.check(),
    }
}

/// Puts a star's own files into its memory file system.
fn furnish(scratch: &OwnedFd, order: &StarOrder) -> io::Result<()> {
    let name = order.short_hostname();
    put(scratch, "hostname", &format!("{name}\n"))?;
    let local = format!("127.0.0.1 localhost {name}\n::1 localhost\n");
    match order.network {
        Network::Host => {
            put(scratch, "hosts", &(local + &fs::read_to_string("/etc/hosts").unwrap_or_default()))?;
            put(scratch, "resolv.conf", &fs::read_to_string("/etc/resolv.conf").unwrap_or_default())?;
        }
        Network::Bridge => {
            put(scratch, "hosts", &local)?;
            put(scratch, "resolv.conf", &bridge::resolv_conf())?;
        }
        Network::None => put(scratch, "hosts", &local)?,
    }
    Ok(())
}

fn put(folder: &OwnedFd, name: &str, text: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH)?;
    rustix::io::write(&file, text.as_bytes())?;
    Ok(())
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
