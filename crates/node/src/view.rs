//! What people and programs are shown: plain data made from the state and from what this node sees beyond it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use model::{
    AppKey, AppSpec, Exit, Fate, Name, NodeId, Problem, Protocol, ServiceKey, ServiceSpec, StarId, StarPhase,
    StarTemplate, Time, Turn, WallTime,
};
use serde::{Deserialize, Serialize};
use state::StarRecord;

use crate::jobs::JobView;
use crate::node::Node;
use crate::peers::{LEASE, SINGLETON_LEASE};
use crate::roster::OwnPlace;

/// For so long a node goes without a leader after one that died: who followed it misses it for as long as a lease, and then looks for
/// another. One that has heard nothing for longer says so.
const CUT_OFF_AFTER: Duration = LEASE.saturating_add(Duration::from_secs(3));

/// A node in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StatusView {
    pub node: NodeId,
    /// Its place among others; `null` on a machine that is alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<OwnPlace>,
    /// Index of the last command that holds.
    pub index: u64,
    pub apps: u64,
    pub services: u64,
    /// Stars that have not ended.
    pub stars: u64,
    pub ready: u64,
    /// Cores of this machine; 0 when unknown.
    pub cores: u32,
    /// Bytes of memory of this machine; 0 when unknown.
    pub memory: u64,
    /// Why nothing changes on this node at the moment, though it should.
    #[serde(default)]
    pub problem: Option<String>,
    /// That no leader hears from it, and for how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_off: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AppView {
    pub app: AppKey,
    /// What was asked for last.
    pub spec: AppSpec,
    /// What a change has to be based on.
    pub version: u64,
    /// How often it was put.
    pub changes: u64,
    pub created: WallTime,
    pub changed: WallTime,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ServiceView {
    pub service: ServiceKey,
    pub app: AppKey,
    pub spec: ServiceSpec,
    /// Stars it should have now.
    pub desired: u32,
    /// Stars that requests go to.
    pub ready: u32,
    pub stopped: bool,
    /// Its stars stand still.
    #[serde(default)]
    pub paused: bool,
    /// It is not yet as it was asked to be.
    pub changing: bool,
    /// Why it is not getting there by itself.
    pub problem: Option<String>,
    /// That is because its stars end again and again: a roll-out with a version to go back to ends that by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends_again: bool,
    /// The same with what to do about it, when no machine takes a star that it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nowhere: Option<Problem>,
    /// A star of it that does not have the limits it should have, and why. Everything else about it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_problem: Option<String>,
    /// A star of it that gets no requests because it fails its probe, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unready: Option<String>,
    /// Where requests come in.
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub address: Option<SocketAddr>,
    pub protocol: Option<Protocol>,
    /// Stars ever started for it.
    pub started: u64,
    /// Stars that ended without being asked to.
    pub restarts: u64,
    /// Counts what was asked for, from 1.
    #[serde(default)]
    pub version: u64,
    /// The way to this version, until it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutView>,
    /// How its runs stand, if it is a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobView>,
    /// Why the version did not come about that had the place of this one, if it was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_back: Option<TakenBack>,
    /// Why this version did not come about, if nothing could take its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Of a reservation: the places that no star is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<u32>,
    /// The numbers of stars that were stopped one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<u32>,
}

/// How far a service is on its way to a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RolloutView {
    /// The version that comes back if it fails; absent for a service that never ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// So many new stars are tried beside the old ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<u32>,
    /// New stars that are ready.
    pub ready: u32,
    pub began: WallTime,
    /// When it has failed, unless it is over.
    pub ends: WallTime,
    /// It goes no further for now; why, if it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct HeldView {
    pub since: WallTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A version that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TakenBack {
    pub version: u64,
    pub reason: String,
    /// The index of the log at which the version before came back.
    pub index: u64,
}

/// One version of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct VersionView {
    pub version: u64,
    pub spec: ServiceSpec,
    /// When it was asked for; 0 when that is not known.
    pub since: WallTime,
    /// The earlier version that it was again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// What became of it; absent for the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fate: Option<Fate>,
}

impl ServiceView {
    /// Whether its stars were to run once and have: none will follow by itself.
    pub fn is_over(&self) -> bool {
        match &self.job {
            Some(job) => {
                let comes_by_itself = self.spec.job.as_ref().is_some_and(|job| job.schedule.is_some());
                !self.stopped && !comes_by_itself && job.run.is_none() && job.last.is_some()
            }
            None => {
                let has_some = self.spec.instances > 0 && !self.spec.placement.every_node && self.spec.hold.is_none();
                self.desired == 0 && !self.stopped && has_some
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StarView {
    pub id: StarId,
    /// `hello-1`.
    pub name: String,
    pub service: ServiceKey,
    /// The number in its name.
    #[serde(default)]
    pub ordinal: u32,
    pub app: AppKey,
    pub node: NodeId,
    /// What that machine is called, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<Name>,
    pub phase: StarPhase,
    /// It is of an earlier version of its service and will be replaced.
    pub outdated: bool,
    pub port: Option<u16>,
    pub pid: Option<u32>,
    /// Clock ticks since boot at which its process started: with the pid it names one process for ever.
    pub start_time: Option<u64>,
    /// When it came into the phase that counts: started, or ended.
    pub since: Option<WallTime>,
    /// Why it is not ready, while it starts or is unready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    pub exit: Option<Exit>,
    /// How often the star of this name ended without being asked to, those before it included.
    #[serde(default)]
    pub restarts: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct EventView {
    pub index: u64,
    pub wall: WallTime,
    pub what: String,
    /// Of what is about no app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// The app, the service and the name of the star that it is about, as far as it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub star: Option<String>,
}

/// Everything the log knows of one star.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StarDetail {
    pub star: StarView,
    /// What it was made from.
    pub template: StarTemplate,
    /// The index of the command that assigned it.
    pub generation: u64,
    /// The version of its service that it belongs to.
    pub revision: u64,
    /// When it came into which phase.
    pub history: Vec<Turn>,
    /// Where requests for its service come in.
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub entry: Option<SocketAddr>,
    /// Stars of the same name that ended before it, the last first, as long as they are kept.
    pub before: Vec<StarView>,
}

impl Node {
    pub fn status_view(&self) -> StatusView {
        let running = self.state.stars.values().filter(|star| star.phase != StarPhase::Ended);
        StatusView {
            node: self.config.node,
            place: self.own_place(),
            index: self.state.index,
            apps: self.state.apps.len() as u64,
            services: self.state.services.len() as u64,
            stars: running.count() as u64,
            ready: self.state.stars.values().filter(|star| star.phase == StarPhase::Ready).count() as u64,
            cores: self.config.cores,
            memory: self.config.memory.0,
            problem: self.own_problem(),
            cut_off: self.cut_off(),
        }
    }

    /// What keeps every service of this node from changing.
    fn own_problem(&self) -> Option<String> {
        let missing = || self.nursery_missing.then(|| "the nursery does not start; see `nursery.log`".to_owned());
        self.not_written.clone().or_else(missing)
    }

    /// Whether no leader has been sure to hear from this node for so long that it is not an election.
    fn cut_off(&self) -> Option<String> {
        let silent = match self.leased_until {
            // Not once since it began.
            Time::ZERO => self.began.map_or(Duration::ZERO, |began| self.now.since(began)),
            until => self.now.since(until) + SINGLETON_LEASE,
        };
        if self.state.cluster.is_none() || silent < CUT_OFF_AFTER {
            return None;
        }
        let seconds = silent.as_secs();
        Some(format!(
            "no leader has heard from this node for {seconds} s: what it shows of others is as old, and changes are refused; its \
             stars run on, but for singletons"
        ))
    }

    pub fn app_views(&self) -> Vec<AppView> {
        self.state.apps.keys().filter_map(|app| self.app_view(app)).collect()
    }

    pub fn app_view(&self, app: &AppKey) -> Option<AppView> {
        let record = self.state.apps.get(app)?;
        Some(AppView {
            app: app.clone(),
            spec: record.spec.clone(),
            version: record.version,
            changes: record.changes,
            created: record.created,
            changed: record.changed,
        })
    }

    /// The app that a service belongs to, or belonged to while its stars last.
    pub fn app_of(&self, service: &ServiceKey) -> Option<&AppKey> {
        let known = self.state.services.get(service).map(|record| &record.app);
        known.or_else(|| self.state.stars_of(service).next().map(|star| &star.app))
    }

    pub fn service_views(&self) -> Vec<ServiceView> {
        self.state.services.keys().filter_map(|service| self.service_view(service)).collect()
    }

    pub fn service_view(&self, key: &ServiceKey) -> Option<ServiceView> {
        let record = self.state.services.get(key)?;
        let local = self.services.get(key);
        let running = || self.state.stars_of(key).filter(|star| star.phase != StarPhase::Ended);
        let settled = if record.paused { StarPhase::Paused } else { StarPhase::Ready };
        // What has happened to a star is known here before it is written.
        let is_still = |star: &StarRecord| self.stars.get(&star.id).is_none_or(|local| local.phase == star.phase);
        // Nor is one settled that has to leave its machine; of each machine that is found out once.
        let (ground, mut stay) = (self.ground_of(key), BTreeMap::<NodeId, bool>::new());
        let mut stays = |star: &StarRecord| {
            let here = || ground.revision_on(star.node, record.revision, false) == record.revision;
            !star.moves && star.revision == record.revision && *stay.entry(star.node).or_insert_with(here)
        };
        let mut is_settled = |star: &StarRecord| {
            star.phase == settled && is_still(star) && !star.leaving && (record.paused || stays(star))
        };
        let ready = running().filter(|star| star.phase == StarPhase::Ready && is_still(star)).count();
        let desired = record.wanted();
        let is_short = running().count() != desired as usize && !record.paused;
        // What the log says of stars that no nursery has confirmed is what once was.
        let is_unconfirmed = !self.nursery_up && running().any(|star| self.stars.contains_key(&star.id));
        let is_under_way = record.rollout.as_ref().is_some_and(|rollout| rollout.held.is_none()) && !record.is_idle();
        // A job is what it was asked to be whether or not it runs.
        let is_job = record.spec.job.is_some() && !record.paused;
        let changing = !is_job && (is_under_way || is_unconfirmed || is_short || !running().all(&mut is_settled));
        // Where nothing changes, nothing is missing.
        let nowhere = if is_job || changing { self.nowhere(key) } else { None };
        let problem = self.problem_of(key, nowhere.as_ref()).or_else(|| self.own_problem().filter(|_| changing));
        let ends_again = self.ends_again(key);
        Some(ServiceView {
            service: key.clone(),
            app: record.app.clone(),
            spec: record.spec.clone(),
            desired,
            ready: u32::try_from(ready).unwrap_or(u32::MAX),
            stopped: record.stopped,
            paused: record.paused,
            changing,
            ends_again: problem.is_none() && ends_again.is_some(),
            problem: problem.or(ends_again),
            nowhere,
            limit_problem: self.limit_problem(key),
            unready: running().find_map(|star| {
                let why = self.failing(star).filter(|_| star.phase == StarPhase::Unready)?;
                Some(format!("{}: {why}", star.name()))
            }),
            address: local.and_then(|local| local.address),
            protocol: record.spec.entry.as_ref().map(|entry| entry.protocol),
            started: record.started,
            restarts: record.restarts,
            free: record.spec.hold.map(|_| u32::try_from(self.state.free_places(key).count()).unwrap_or(u32::MAX)),
            held: record.held.iter().copied().collect(),
            version: record.version,
            job: self.job_view(record),
            rollout: self.rollout_view(key, record),
            taken_back: record.taken_back.clone().map(|state::TakenBack { version, reason, index, .. }| TakenBack {
                version,
                reason,
                index,
            }),
            failed: record.failed.clone(),
        })
    }

    /// The versions of a service that are kept, the present one last.
    pub fn version_views(&self, key: &ServiceKey) -> Option<Vec<VersionView>> {
        let record = self.state.services.get(key)?;
        let earlier = record.versions.iter().map(|version| VersionView {
            version: version.number,
            spec: version.spec.clone(),
            since: version.since,
            of: version.of,
            fate: Some(version.fate.clone()),
        });
        let (spec, fate) = (record.spec.clone(), record.failed.clone().map(|reason| Fate::Failed { reason }));
        let present = VersionView { version: record.version, spec, since: record.since, of: record.of, fate };
        Some(earlier.chain([present]).collect())
    }

    /// Why a service does not get to be what it should, in one line.
    fn problem_of(&self, key: &ServiceKey, nowhere: Option<&Problem>) -> Option<String> {
        let local = self.services.get(key)?;
        if let Some(problem) = &local.listen_problem {
            return Some(problem.clone());
        }
        if let Some(nowhere) = nowhere {
            return Some(nowhere.message.clone());
        }
        self.freeze_problem(key)
    }

    /// That its stars end again and again, in one line.
    fn ends_again(&self, key: &ServiceKey) -> Option<String> {
        let local = self.services.get(key)?;
        let record = self.state.services.get(key)?;
        let of_present = local.backoff.iter().filter(|((revision, _), _)| *revision == record.revision);
        let worst = of_present.map(|(_, backoff)| backoff).max_by_key(|backoff| backoff.failures())?;
        let ready = || self.state.stars_of(key).filter(|star| star.phase == StarPhase::Ready);
        let is_current = |star: &&StarRecord| star.revision == record.revision;
        let is_down = ready().filter(is_current).count() < record.wanted() as usize;
        let is_job = record.spec.job.is_some();
        if is_job || !is_down || worst.failures() < rollout::CRASH_LOOP_FAILURES {
            return None;
        }
        let last = local.last_failure.as_ref().map(|cause| format!("; the last: {cause}")).unwrap_or_default();
        let times = worst.failures();
        Some(if ready().any(|star| star.revision != record.revision) {
            format!(
                "stars of the new version end again and again ({times} in a row{last}); those of the old one still serve"
            )
        } else {
            format!("its stars end again and again ({times} in a row{last})")
        })
    }

    fn freeze_problem(&self, key: &ServiceKey) -> Option<String> {
        self.own_of(key).find_map(|(star, local)| {
            let problem = local.freeze_problem.as_ref()?;
            Some(format!("star `{}`: {problem}", self.state.stars.get(&star)?.name()))
        })
    }

    pub fn star_views(&self) -> Vec<StarView> {
        let mut views: Vec<StarView> = self.state.stars.values().map(|star| self.view_of(star)).collect();
        views.sort_by(|a, b| (&a.service, ordinal(&a.name), a.id).cmp(&(&b.service, ordinal(&b.name), b.id)));
        views
    }

    pub fn star_view(&self, star: StarId) -> Option<StarView> {
        self.state.stars.get(&star).map(|star| self.view_of(star))
    }

    pub fn star_detail(&self, star: StarId) -> Option<StarDetail> {
        let record = self.state.stars.get(&star)?;
        let is_before = |other: &&StarRecord| {
            other.ordinal == record.ordinal && other.id != star && other.generation < record.generation
        };
        let mut before: Vec<&StarRecord> = self.state.stars_of(&record.service).filter(is_before).collect();
        before.sort_by_key(|other| std::cmp::Reverse(other.generation));
        Some(StarDetail {
            star: self.view_of(record),
            template: (*record.template).clone(),
            generation: record.generation,
            revision: record.revision,
            history: record.history.clone(),
            entry: self.services.get(&record.service).and_then(|service| service.address),
            before: before.into_iter().map(|other| self.view_of(other)).collect(),
        })
    }

    /// Why a star is not ready, as its last probe found it.
    pub(crate) fn failing(&self, star: &StarRecord) -> Option<String> {
        let waits = matches!(star.phase, StarPhase::Starting | StarPhase::Unready);
        self.stars.get(&star.id).filter(|_| waits)?.failing.clone()
    }

    fn view_of(&self, star: &StarRecord) -> StarView {
        let service = self.state.services.get(&star.service);
        let revision = service.map(|service| service.revision);
        StarView {
            id: star.id,
            name: star.name(),
            service: star.service.clone(),
            ordinal: star.ordinal,
            app: star.app.clone(),
            node: star.node,
            node_name: self.name_of(star.node),
            phase: star.phase,
            outdated: revision != Some(star.revision),
            port: star.port,
            pid: star.process.map(|(pid, _)| pid),
            start_time: star.process.map(|(_, start_time)| start_time),
            since: star.ended.or(star.started),
            problem: self.failing(star),
            exit: star.exit.clone(),
            restarts: service.and_then(|service| service.restarts_by.get(&star.ordinal).copied()).unwrap_or_default(),
        }
    }

    /// What was recorded after an index, oldest first.
    pub fn events_view(&self, after: u64) -> Vec<EventView> {
        let newer = self.state.events.iter().filter(|event| event.index > after);
        let view = |event: &state::EventRecord| EventView {
            index: event.index,
            wall: event.wall,
            what: event.what.clone(),
            namespace: event.about.namespace.clone(),
            app: event.about.app.clone(),
            service: event.about.service.clone(),
            star: event.about.star.clone(),
        };
        newer.map(view).collect()
    }
}

/// The number behind the last hyphen: `hello-10` comes after `hello-9`.
fn ordinal(name: &str) -> u32 {
    name.rsplit('-').next().and_then(|digits| digits.parse().ok()).unwrap_or_default()
}
