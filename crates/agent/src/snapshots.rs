//! Snapshots of what stars wrote: of which volumes and stars, who has to stand still for it, and that nobody uses what is
//! replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{
    RestoreSnapshot, SnapshotMemory, SnapshotPlace, SnapshotStar, SnapshotTaken, SnapshotView, SnapshotVolume,
    TakeSnapshot,
};
use isolate::DiskMeans;
use isolate::memory::Memory;
use model::{
    BundleId, Bytes, Code, Name, NodeId, Problem, ServiceKey, Standing, StarId, StarPhase, StarTemplate, VolumeMount,
    WallTime,
};
use node::Node;
use rustix::fs::{Mode, OFlags};
use state::State;
use store::snapshots::{AreaSource, Backing, FirstLook, Owners, SnapshotInfo, StarInfo, StarSource, Stopped, What};
use store::{Roots, Snapshots};

use crate::beside::beside;
use crate::clock;
use crate::control::{Looker, Remote};
use crate::link::Link;
use crate::memories::{self, Sitter, Tripod};
use crate::still::Still;
use crate::unknown::no_service;

/// Volumes that are more than folders are `isolate`'s.
pub(crate) const BACKING: Backing = Backing {
    open: isolate::volumes::open_image,
    make: isolate::volumes::make_image,
    bound: isolate::volumes::bound_folder,
    release: isolate::volumes::release_folder,
};

/// Longest that stars stand still while they are read. Half a million files of a memory file system take some ten seconds
/// on a slow machine; what takes longer is better kept in a volume, of which most is read while its stars go on.
const STILL_MAX: Duration = Duration::from_secs(30);

/// What every star writes to that is its own.
const PLACES: [&str; 3] = ["/tmp", "/run", "/dev/shm"];

/// What it takes to take one.
pub(crate) struct Darkroom {
    pub(crate) looker: Looker,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) link: Link,
    pub(crate) roots: Arc<Roots>,
    pub(crate) data_dir: PathBuf,
    /// What bounds volumes, when there is a nursery to say so.
    pub(crate) disk: Option<DiskMeans>,
}

/// A service's volumes, and which stars of any service use them.
struct Users {
    volumes: BTreeSet<Name>,
    /// Those that run.
    stars: BTreeSet<StarId>,
    /// Those of services that are not stopped, or have not ended.
    names: BTreeSet<String>,
    /// Stars of the service itself that run.
    own: Vec<Own>,
}

/// A star whose own files are kept.
#[derive(Clone)]
struct Own {
    star: StarId,
    ordinal: u32,
    /// Where it writes.
    places: Vec<String>,
    /// The bundle that brought its root.
    rootfs: Option<BundleId>,
}

/// A service that is to get files.
struct Target {
    template: StarTemplate,
    /// How many stars it is to have, and in whose places none is to run.
    instances: u32,
    held: BTreeSet<u32>,
    /// It is stopped, and none of its stars runs.
    rests: bool,
}

impl Darkroom {
    /// Keeps the volumes of a service and what its stars have of their own.
    pub(crate) async fn take(self, service: ServiceKey, take: TakeSnapshot) -> Result<SnapshotTaken, Problem> {
        let now = clock::wall();
        let name = match take.name {
            Some(name) => name,
            None => default_name(&service, now),
        };
        let mut users = self.users(&service, None).await?;
        let sitter = match take.memory {
            false => None,
            true => {
                let service = service.clone();
                Some(self.looker.look(move |node| Sitter::of(node, &service)).await??)
            }
        };
        if sitter.is_some() {
            // They are kept with the memory.
            users.own.clear();
        }
        if users.volumes.is_empty() && users.own.is_empty() && sitter.is_none() {
            let message =
                format!("service `{service}` has no volumes, and none of its stars runs: there is nothing to keep");
            return Err(Problem::new(Code::Conflict, message).help("what a star has of its own ends with it"));
        }
        if self.snapshots.info(&name).is_ok() {
            return Err(store::snapshots::taken_already(&name));
        }
        let taken = self.take_of(&name, &service, &users, now, sitter.as_ref()).await;
        let snapshots = Arc::clone(&self.snapshots);
        // What was read and is of no use; if it cannot be removed now, it is with the next one.
        let _ = beside(move || snapshots.tidy()).await;
        taken
    }

    async fn take_of(
        &self,
        name: &Name,
        service: &ServiceKey,
        users: &Users,
        now: WallTime,
        sitter: Option<&Sitter>,
    ) -> Result<SnapshotTaken, Problem> {
        let stars: Vec<StarId> = users.stars.iter().copied().collect();
        let mut still_for = Duration::ZERO;
        let mut look = FirstLook::default();
        if !stars.is_empty() {
            let mut settled = 0;
            if !users.volumes.is_empty() {
                // What is to be written out is written out before anybody has to wait for it.
                self.beside(service, users, |snapshots, service, volumes| snapshots.settle(service, volumes)).await?;
                let begun = Instant::now();
                let still = Still::hold(&self.data_dir, &stars).await?;
                let settle = |snapshots: &Snapshots, service: &ServiceKey, volumes: &BTreeSet<Name>| {
                    snapshots.settle(service, volumes)
                };
                settled = self.beside(service, users, settle).await?;
                drop(still);
                still_for += begun.elapsed();
            }
            let sources = self.sources(users);
            look = self
                .beside(service, users, move |snapshots, service, volumes| {
                    snapshots.look(service, volumes, sources()?, settled)
                })
                .await?;
        }
        let tripod = match sitter {
            Some(_) => Some(Tripod::set_up(Arc::clone(&self.snapshots), self.data_dir.clone(), name).await?),
            None => None,
        };
        let begun = Instant::now();
        // Its processes stand still from here on, so that its memory is of the same moment as the files.
        let standing = match tripod.zip(sitter) {
            Some((tripod, sitter)) => Some(tripod.keep(&self.link, sitter).await?),
            None => None,
        };
        let still = match stars.is_empty() {
            true => None,
            false => Some(Still::hold(&self.data_dir, &stars).await?),
        };
        let (called, running) = (name.clone(), self.users(service, None).await?.stars);
        if !running.is_subset(&users.stars) {
            let message = format!("a star of `{service}`, or one that uses its volumes, was started meanwhile");
            return Err(Problem::new(Code::Conflict, message).help("nothing was kept; try again"));
        }
        let sources = self.sources(users);
        let until = still.as_ref().map(|_| Instant::now() + STILL_MAX);
        let taken = self
            .beside(service, users, move |snapshots, service, volumes| {
                let what = What { service, volumes, stars: sources()?, taken: now };
                snapshots.take(&called, what, &look, until)
            })
            .await?;
        if still.as_ref().is_some_and(|still| !still.holds()) {
            let (snapshots, called) = (Arc::clone(&self.snapshots), name.clone());
            beside(move || snapshots.delete(&called)).await?;
            let message = "the nursery ended while stars stood still for it";
            return Err(Problem::new(Code::Unavailable, message).help("nothing was kept; try again"));
        }
        let had_to_wait = still.is_some();
        drop(still);
        let mut info = taken.info;
        if let Some(standing) = standing {
            let (snapshots, name) = (Arc::clone(&self.snapshots), name.clone());
            let exposed = standing.let_go().await;
            still_for += begun.elapsed();
            info = beside(move || match exposed.list() {
                Ok(()) => snapshots.info(&name),
                // Without what was asked for it is none.
                Err(problem) => snapshots.delete(&name).and(Err(problem)),
            })
            .await?;
        } else if had_to_wait {
            still_for += begun.elapsed();
        }
        Ok(SnapshotTaken {
            snapshot: view(info),
            added_bytes: taken.added,
            stars: stars.len().max(usize::from(sitter.is_some())) as u32,
            still_ms: still_for.as_millis() as u64,
        })
    }

    /// Opens what stars have of their own; to be done beside the loop.
    fn sources(&self, users: &Users) -> impl FnOnce() -> Result<Vec<StarSource>, Problem> + Send + 'static {
        let (data_dir, roots, own) = (self.data_dir.clone(), Arc::clone(&self.roots), users.own.clone());
        move || {
            let opened = own.into_iter().map(|own| source(&data_dir, &roots, own));
            // One that has ended meanwhile has nothing any more.
            opened.filter_map(Result::transpose).collect()
        }
    }

    /// Gives volumes the files of a snapshot, and has those of its stars wait for the next ones. Everybody who could use
    /// them has to be stopped.
    /// A service that is to go on from the snapshot's memory is given back with it.
    pub(crate) async fn restore(
        self,
        name: Name,
        restore: RestoreSnapshot,
    ) -> Result<(SnapshotView, ServiceKey, Option<Memory>), Problem> {
        let snapshots = Arc::clone(&self.snapshots);
        let called = name.clone();
        let info = beside(move || snapshots.info(&called)).await?;
        let service = restore.service.unwrap_or_else(|| info.service.clone());
        let volumes: BTreeSet<Name> = info.volumes.iter().map(|volume| volume.volume.clone()).collect();
        let mut users = self.users(&service, Some(volumes)).await?;
        let key = service.clone();
        let target = self.looker.look(move |node| target(node, &key)).await??;
        if !info.stars.is_empty() && !target.rests {
            users.names.insert(service.to_string());
        }
        let mut memory = None;
        if info.memory.is_some() {
            let asked = service.clone();
            let (template, wanted) = self.looker.look(move |node| goes_on(node, &asked)).await??;
            memory = memories::open(&self.snapshots, self.data_dir.clone(), &name, &service, template).await?;
            users.names.extend(wanted.then(|| service.to_string()));
        }
        if !users.names.is_empty() && !restore.check {
            let names: Vec<String> = users.names.iter().map(|name| format!("`{name}`")).collect();
            let message = format!("what snapshot `{name}` has files of is in use by {}", names.join(", "));
            return Err(Problem::new(Code::Conflict, message).help("stop it first, as `rads c restore` does"));
        }
        let root = match &target.template.rootfs {
            Some(_) => self.roots.path(&target.template.bundle).and_then(|path| root_name(&path)),
            None => None,
        };
        let places = check(&info, &service, &target, root.as_deref())?;
        if restore.check {
            self.note_stopped(restore.starts_again).await?;
            return Ok((view(info), service, None));
        }
        let sized: Vec<VolumeMount> = target.template.volumes.into_iter().filter(|it| it.size.is_some()).collect();
        let (snapshots, data_dir, disk) = (Arc::clone(&self.snapshots), self.data_dir.clone(), self.disk.clone());
        let (wanted, to) = (info.volumes, service.clone());
        let restored = beside(move || {
            for mount in sized.iter().filter(|mount| wanted.iter().any(|volume| volume.volume == mount.volume)) {
                prepare(&data_dir, &to, mount, disk.as_ref())?;
            }
            snapshots.restore(&name, &to, &places)
        });
        Ok((view(restored.await?), service, memory))
    }

    /// Notes of services which of them run, and are about to be stopped.
    async fn note_stopped(&self, services: Vec<ServiceKey>) -> Result<(), Problem> {
        if services.is_empty() {
            return Ok(());
        }
        let running = |node: &Node| -> Vec<Stopped> {
            let records = services.into_iter().filter_map(|key| Some((node.state().services.get(&key)?, key)));
            let running = records.filter(|(record, _)| !record.stopped);
            running.map(|(record, service)| Stopped { service, paused: record.paused }).collect()
        };
        let (running, snapshots) = (self.looker.look(running).await?, Arc::clone(&self.snapshots));
        beside(move || running.iter().try_for_each(|stopped| snapshots.note_stopped(stopped))).await
    }

    /// Who uses volumes: those given, which the service has to have, or all that the service has.
    async fn users(&self, service: &ServiceKey, volumes: Option<BTreeSet<Name>>) -> Result<Users, Problem> {
        let service = service.clone();
        self.looker.look(move |node| users(node, &service, volumes)).await?
    }

    async fn beside<T: Send + 'static>(
        &self,
        service: &ServiceKey,
        users: &Users,
        work: impl FnOnce(&Snapshots, &ServiceKey, &BTreeSet<Name>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let (snapshots, service, volumes) = (Arc::clone(&self.snapshots), service.clone(), users.volumes.clone());
        beside(move || work(&snapshots, &service, &volumes)).await
    }
}

/// From what a service's stars are made, and whether there are any or are to be.
fn goes_on(node: &Node, service: &ServiceKey) -> Result<(model::StarTemplate, bool), Problem> {
    let record = node.state().services.get(service).ok_or_else(|| no_service(service))?;
    let wanted = node.service_view(service).is_some_and(|view| view.desired > 0);
    let mut stars = node.state().stars.values();
    let runs = stars.any(|star| star.service == *service && star.phase != StarPhase::Ended);
    Ok((record.spec.template.clone(), wanted || runs))
}

fn users(node: &Node, service: &ServiceKey, volumes: Option<BTreeSet<Name>>) -> Result<Users, Problem> {
    let state = node.state();
    let record = state.services.get(service).ok_or_else(|| no_service(service))?;
    let own: BTreeSet<Name> = record.spec.template.volumes.iter().map(|mount| mount.volume.clone()).collect();
    let volumes = volumes.unwrap_or_else(|| own.clone());
    if let Some(foreign) = volumes.iter().find(|volume| !own.contains(*volume)) {
        let message = format!("service `{service}` has no volume `{foreign}`, which the snapshot has");
        return Err(Problem::new(Code::Conflict, message).help("name the service it was taken of, or one like it"));
    }
    let shared = |key: &ServiceKey, template: &StarTemplate| {
        key.namespace == service.namespace && template.volumes.iter().any(|mount| volumes.contains(&mount.volume))
    };
    let (mut stars, mut names, mut own) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for star in state.stars.values().filter(|star| star.phase != StarPhase::Ended) {
        let shares = shared(&star.service, &star.template);
        if shares {
            names.insert(star.service.to_string());
        }
        if star.phase == StarPhase::Assigned {
            continue;
        }
        if star.service == *service {
            own.push(Own {
                star: star.id,
                ordinal: star.ordinal,
                places: places_of(&star.template),
                rootfs: star.template.rootfs.as_ref().map(|_| star.template.bundle),
            });
        }
        if shares || star.service == *service {
            stars.insert(star.id);
        }
    }
    for (key, record) in &state.services {
        let desired = node.service_view(key).map_or(0, |view| view.desired);
        if desired > 0 && shared(key, &record.spec.template) {
            names.insert(key.to_string());
        }
    }
    // While a star is replaced there are two of its name: the one that came last counts.
    own.sort_by_key(|own| (own.ordinal, std::cmp::Reverse(state.stars.get(&own.star).map(|star| star.generation))));
    own.dedup_by_key(|own| own.ordinal);
    Ok(Users { volumes, stars, names, own })
}

fn target(node: &Node, service: &ServiceKey) -> Result<Target, Problem> {
    let state = node.state();
    let record = state.services.get(service).ok_or_else(|| no_service(service))?;
    let runs = state.stars.values().any(|star| star.service == *service && star.phase != StarPhase::Ended);
    let desired = node.service_view(service).map_or(0, |view| view.desired);
    Ok(Target {
        template: record.spec.template.clone(),
        instances: record.spec.instances,
        held: record.held.clone(),
        rests: !runs && desired == 0,
    })
}

/// Where stars of a template write that is their own.
fn places_of(template: &StarTemplate) -> Vec<String> {
    let usual = PLACES.iter().map(|&place| place.to_owned());
    let memory = template.interior.tmpfs.keys().cloned();
    let root = template.rootfs.iter().map(|_| "/".to_owned());
    usual.chain(memory).chain(root).collect()
}

/// Opens what a star has of its own; nothing when it has ended.
fn source(data_dir: &Path, roots: &Roots, own: Own) -> Result<Option<StarSource>, Problem> {
    let Own { star, ordinal, places, rootfs } = own;
    let failed = |error: std::io::Error| {
        let message = format!("cannot look into star {ordinal}: {error}");
        Problem::new(Code::Unavailable, message).help("no snapshot was taken")
    };
    let Some(opened) = isolate::areas(data_dir, star, &places).map_err(failed)? else { return Ok(None) };
    let root = rootfs.and_then(|bundle| roots.path(&bundle));
    let owners = match opened.users {
        Some((first, count)) => Owners::From(first, count),
        None => Owners::Root(rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
    };
    let mut areas = Vec::with_capacity(places.len());
    for (inside, folder) in places.into_iter().zip(opened.folders) {
        let below = match (&root, inside.as_str()) {
            (Some(root), "/") => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                Some(rustix::fs::open(root, flags, Mode::empty()).map_err(|error| failed(error.into()))?)
            }
            _ => None,
        };
        let leave = match inside.as_str() {
            "/run" => isolate::RUN_FILES.map(str::to_owned).to_vec(),
            _ => Vec::new(),
        };
        areas.push(AreaSource { inside, folder, below, leave });
    }
    Ok(Some(StarSource { ordinal, root: root.as_deref().and_then(root_name), owners, areas }))
}

/// A root file system is called by its content.
fn root_name(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// Makes a volume with a size, which nobody has used yet, what a star would find.
fn prepare(
    data_dir: &Path,
    service: &ServiceKey,
    mount: &VolumeMount,
    disk: Option<&DiskMeans>,
) -> Result<(), Problem> {
    let (Some(size), Some(means)) = (mount.size, disk) else { return Ok(()) };
    let failed = |why: String| {
        Problem::new(Code::Unavailable, format!("volume `{}` cannot be made: {why}", mount.volume))
            .help("nothing was changed")
    };
    let bind = crate::orders::volume(data_dir, service, mount).map_err(failed)?;
    isolate::volumes::prepare(&bind.host, size, means).map_err(|error| failed(error.to_string()))
}

/// In which place of a service each star's files go, if they all can.
fn check(
    info: &SnapshotInfo,
    service: &ServiceKey,
    target: &Target,
    root: Option<&str>,
) -> Result<BTreeMap<u32, u32>, Problem> {
    let refused = |message: String, help: String| Err(Problem::new(Code::Conflict, message).help(help));
    let had: Vec<u32> = info.stars.iter().map(|star| star.ordinal).collect();
    let has = places_of(&target.template);
    for StarInfo { ordinal, root: had_root, areas } in &info.stars {
        if let Some(area) = areas.iter().find(|area| !has.contains(&area.inside)) {
            let message =
                format!("the snapshot has files of `{}`, which stars of `{service}` do not have", area.inside);
            return refused(message, "name the service it was taken of, as it was then, or one like it".to_owned());
        }
        if had_root.as_deref() != root {
            let message = format!("the snapshot is of stars with another `rootfs` than those of `{service}` have");
            return refused(message, "bring the app back as it was then with `rads up` first".to_owned());
        }
        let limits = &target.template.limits;
        let rooms = areas.iter().map(|area| (&*area.inside, area.room)).collect::<Vec<_>>();
        let room = |on_disk: bool| -> u64 {
            let is_disk = |inside: &str| limits.disk.is_some() && matches!(inside, "/tmp" | "/");
            rooms.iter().filter(|(inside, _)| is_disk(inside) == on_disk).map(|(_, room)| room).sum()
        };
        for (room, limit, what) in
            [(room(false), limits.memory, "`ram_mb`, which has them"), (room(true), limits.disk, "`disk_mb`")]
        {
            if let Some(limit) = limit.filter(|limit| room > limit.0) {
                let message = format!(
                    "the files of star {ordinal} take {}, more than the {limit} that stars of `{service}` have",
                    Bytes(room)
                );
                return refused(message, format!("give them more by {what}"));
            }
        }
        for (inside, room) in rooms {
            let size = target.template.interior.tmpfs.get(inside).map(|tmpfs| tmpfs.size);
            if let Some(size) = size.filter(|size| room > size.0) {
                let message = format!("the files of `{inside}` take {}, more than its {size}", Bytes(room));
                return refused(message, "give it a larger `size_mb`".to_owned());
            }
        }
    }
    places(&had, target.instances, &target.held).map_or_else(
        || {
            let message =
                format!("the snapshot has the files of {} stars, and `{service}` has {}", had.len(), target.instances);
            refused(message, format!("`rads c scale {service} {}` first", had.len()))
        },
        Ok,
    )
}

/// Each in its own place if there is one, the others in those that are left.
fn places(had: &[u32], instances: u32, held: &BTreeSet<u32>) -> Option<BTreeMap<u32, u32>> {
    let count = (instances as usize).saturating_sub(held.len());
    let mut free: BTreeSet<u32> = (1..).filter(|ordinal| !held.contains(ordinal)).take(count).collect();
    let mut places: BTreeMap<u32, u32> =
        had.iter().filter(|ordinal| free.remove(ordinal)).map(|&it| (it, it)).collect();
    for &ordinal in had.iter().filter(|ordinal| !places.contains_key(ordinal)).collect::<Vec<_>>() {
        places.insert(ordinal, free.pop_first()?);
    }
    Some(places)
}

/// `web-20261125-213000`, cut to what a name may be.
fn default_name(service: &ServiceKey, now: WallTime) -> Name {
    let time = stamp(now.0 / 1000);
    let mut begin: String = service.name.as_str().chars().take(model::name::NAME_MAX_CHARS - time.len() - 1).collect();
    begin.truncate(begin.trim_end_matches('-').len());
    format!("{begin}-{time}").parse().unwrap_or_else(|_| service.name.clone())
}

/// A moment as `20261125-213000`, universal time. Days by Howard Hinnant's `civil_from_days`.
fn stamp(unix_seconds: u64) -> String {
    let (days, seconds) = ((unix_seconds / 86_400) as i64, unix_seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}-{:02}{:02}{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

pub(crate) fn view(info: SnapshotInfo) -> SnapshotView {
    let SnapshotInfo { name, service, taken, volumes, stars, memory } = info;
    let volumes = volumes.into_iter().map(|info| SnapshotVolume {
        volume: info.volume,
        files: info.held.files,
        bytes: info.held.bytes,
        left_out: info.held.left_out,
    });
    let stars = stars.into_iter().map(|star| SnapshotStar {
        name: format!("{}-{}", service.name, star.ordinal),
        places: (star.areas.into_iter())
            .map(|area| SnapshotPlace {
                path: area.inside,
                files: area.held.files,
                bytes: area.held.bytes,
                left_out: area.held.left_out,
            })
            .collect(),
    });
    let memory = memory.map(|memory| SnapshotMemory { star: memory.star, bytes: memory.bytes });
    SnapshotView { name, volumes: volumes.collect(), stars: stars.collect(), service, taken, memory }
}

impl Remote {
    /// Refuses what concerns the files of stars on other nodes: each node keeps snapshots of its own.
    pub(crate) async fn check_all_here(&self, service: &ServiceKey) -> Result<(), Problem> {
        let Some(far) = &self.far else { return Ok(()) };
        let (me, of) = (far.me(), service.clone());
        let elsewhere = move |node: &Node| {
            let state = node.state();
            let running = state.stars_of(&of).filter(|star| star.phase != StarPhase::Ended).map(|star| star.node);
            let volumes = state.services.get(&of).into_iter();
            let volumes = volumes.flat_map(|record| State::volumes_of(&of, &record.spec.template));
            let homes = volumes.filter_map(|volume| state.homes.get(&volume).copied());
            let nodes: BTreeSet<NodeId> = running.chain(homes).filter(|node| *node != me).collect();
            let name = |node: &NodeId| state.nodes.get(node).map_or_else(|| node.to_string(), |of| of.name.to_string());
            nodes.iter().map(|node| format!("`{}`", name(node))).collect::<Vec<String>>()
        };
        let nodes = self.looker().look(elsewhere).await?;
        if nodes.is_empty() {
            return Ok(());
        }
        let message = format!("stars or volumes of service `{service}` are on other nodes: {}", nodes.join(", "));
        let help = "a snapshot is taken and restored on the node where all of them are";
        Err(Problem::new(Code::Unsupported, message).help(help))
    }

    /// Refuses to lay files out for stars that may start on another node: only volumes keep a service where it is.
    pub(crate) async fn check_stays_here(&self, service: &ServiceKey) -> Result<(), Problem> {
        let of = service.clone();
        let may_leave = move |node: &Node| {
            let state = node.state();
            let roams = state.services.get(&of).is_some_and(|record| record.spec.template.volumes.is_empty());
            roams && state.nodes.values().filter(|record| record.standing != Standing::Left).count() > 1
        };
        if !self.looker().look(may_leave).await? {
            return Ok(());
        }
        let message =
            format!("service `{service}` has no volume, so its next stars may be on other nodes than these files");
        Err(Problem::new(Code::Unsupported, message).help("give it a volume: its stars stay where that is"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_where_they_were_or_where_there_is_room() {
        let check = |had: &[u32], instances: u32, held: &[u32], expected: Option<&[(u32, u32)]>| {
            let found = places(had, instances, &held.iter().copied().collect());
            assert_eq!(found, expected.map(|pairs| pairs.iter().copied().collect()), "{had:?} {instances} {held:?}");
        };
        check(&[], 0, &[], Some(&[]));
        check(&[1, 2], 3, &[], Some(&[(1, 1), (2, 2)]));
        check(&[4, 2, 5], 3, &[], Some(&[(4, 1), (2, 2), (5, 3)]));
        check(&[2], 2, &[2], Some(&[(2, 1)]));
        check(&[1, 2], 1, &[], None);
        check(&[1], 2, &[1, 2], None);
    }

    #[test]
    fn a_snapshot_is_called_after_its_service_and_the_time() {
        let check = |service: &str, seconds: u64, expected: &str| {
            let service = ServiceKey::in_default(service.parse().unwrap());
            assert_eq!(default_name(&service, WallTime(seconds * 1000)).as_str(), expected);
        };
        check("web", 1_795_556_396, "web-20261124-213956");
        check("web", 951_782_399, "web-20000228-235959");
        check("web", 951_782_400, "web-20000229-000000");
        let long = "a".repeat(46) + "-" + &"b".repeat(16);
        check(&long, 0, &format!("{}-19700101-000000", "a".repeat(46)));
    }
}
