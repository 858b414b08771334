//! Snapshots of what stars wrote: which volumes, who has to stand still for it, and that nobody uses what is replaced.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use api::{SnapshotMemory, SnapshotTaken, SnapshotView, SnapshotVolume, TakeSnapshot};
use isolate::memory::Memory;
use model::{Code, Name, Problem, ServiceKey, StarId, StarPhase, WallTime};
use node::Node;
use store::Snapshots;
use store::snapshots::{FirstLook, SnapshotInfo};

use crate::clock;
use crate::control::{Looker, beside, no_service};
use crate::link::Link;
use crate::memories::{self, Sitter, Tripod};
use crate::still::Still;

/// What it takes to take one.
pub(crate) struct Darkroom {
    pub(crate) looker: Looker,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) link: Link,
    pub(crate) data_dir: PathBuf,
}

/// A service's volumes, and which stars of any service use them.
struct Users {
    volumes: BTreeSet<Name>,
    /// Those that run.
    stars: BTreeSet<StarId>,
    /// Those of services that are not stopped, or have not ended.
    names: BTreeSet<String>,
}

impl Darkroom {
    /// Keeps the volumes of a service, and the memory of its star if that is asked for.
    pub(crate) async fn take(self, service: ServiceKey, take: TakeSnapshot) -> Result<SnapshotTaken, Problem> {
        let now = clock::wall();
        let name = match take.name {
            Some(name) => name,
            None => default_name(&service, now),
        };
        let users = self.users(&service, None).await?;
        let sitter = match take.memory {
            false => None,
            true => {
                let service = service.clone();
                Some(self.looker.look(move |node| Sitter::of(node, &service)).await??)
            }
        };
        if users.volumes.is_empty() && sitter.is_none() {
            let message = format!("service `{service}` has no volumes: nothing of what its stars write outlives them");
            return Err(Problem::new(Code::Conflict, message).help("give it some: `volumes: {\"/data\": \"pages\"}`"));
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
        let mut still_for = std::time::Duration::ZERO;
        let mut look = FirstLook::default();
        if !stars.is_empty() && !users.volumes.is_empty() {
            // What is to be written out is written out before anybody has to wait for it.
            self.beside(service, users, |snapshots, service, volumes| snapshots.settle(service, volumes)).await?;
            let begun = Instant::now();
            let still = Still::hold(&self.data_dir, &stars).await?;
            let settle = |snapshots: &Snapshots, service: &ServiceKey, volumes: &BTreeSet<Name>| {
                snapshots.settle(service, volumes)
            };
            let settled = self.beside(service, users, settle).await?;
            drop(still);
            still_for += begun.elapsed();
            look = self
                .beside(service, users, move |snapshots, service, volumes| snapshots.look(service, volumes, settled))
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
            let message = format!("a star that uses the volumes of `{service}` was started meanwhile");
            return Err(Problem::new(Code::Conflict, message).help("nothing was kept; try again"));
        }
        let taken = self
            .beside(service, users, move |snapshots, service, volumes| {
                snapshots.take(&called, service, volumes, &look, now)
            })
            .await?;
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

    /// Gives volumes the files of a snapshot. Everybody who could use them has to be stopped, and so has a service that is to go
    /// on from the snapshot's memory, which is given back with its name.
    pub(crate) async fn restore(
        self,
        name: Name,
        service: Option<ServiceKey>,
    ) -> Result<(SnapshotView, ServiceKey, Option<Memory>), Problem> {
        let snapshots = Arc::clone(&self.snapshots);
        let called = name.clone();
        let info = beside(move || snapshots.info(&called)).await?;
        let service = service.unwrap_or(info.service);
        let volumes: BTreeSet<Name> = info.volumes.into_iter().map(|volume| volume.volume).collect();
        let mut users = self.users(&service, Some(volumes)).await?;
        let mut memory = None;
        if info.memory.is_some() {
            let asked = service.clone();
            let (template, wanted) = self.looker.look(move |node| goes_on(node, &asked)).await??;
            memory = memories::open(&self.snapshots, self.data_dir.clone(), &name, &service, template).await?;
            users.names.extend(wanted.then(|| service.to_string()));
        }
        if !users.names.is_empty() {
            let names: Vec<String> = users.names.iter().map(|name| format!("`{name}`")).collect();
            let message = match info.memory {
                None => format!("the volumes of snapshot `{name}` are in use by {}", names.join(", ")),
                Some(_) => format!("what snapshot `{name}` is to replace is in use by {}", names.join(", ")),
            };
            return Err(Problem::new(Code::Conflict, message).help("stop it first, as `rads c restore` does"));
        }
        let snapshots = Arc::clone(&self.snapshots);
        let to = service.clone();
        let restored = beside(move || snapshots.restore(&name, &to)).await?;
        Ok((view(restored), service, memory))
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
    let shared = |key: &ServiceKey, template: &model::StarTemplate| {
        key.namespace == service.namespace && template.volumes.iter().any(|mount| volumes.contains(&mount.volume))
    };
    let (mut stars, mut names) = (BTreeSet::new(), BTreeSet::new());
    for star in state.stars.values().filter(|star| star.phase != StarPhase::Ended) {
        if shared(&star.service, &star.template) {
            names.insert(star.service.to_string());
            if star.phase != StarPhase::Assigned {
                stars.insert(star.id);
            }
        }
    }
    for (key, record) in &state.services {
        let desired = node.service_view(key).map_or(0, |view| view.desired);
        if desired > 0 && shared(key, &record.spec.template) {
            names.insert(key.to_string());
        }
    }
    Ok(Users { volumes, stars, names })
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
    let SnapshotInfo { name, service, taken, volumes, memory } = info;
    let memory = memory.map(|memory| SnapshotMemory { star: memory.star, bytes: memory.bytes });
    let volumes =
        volumes.into_iter().map(|info| SnapshotVolume { volume: info.volume, files: info.files, bytes: info.bytes });
    SnapshotView { name, service, taken, volumes: volumes.collect(), memory }
}

#[cfg(test)]
mod tests {
    use super::*;

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
