//! What is known: apps, their services, the stars, and what happened lately.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use model::{
    AppKey, AppSpec, BundleId, Duty, Exit, Name, NodeFacts, NodeId, NodeRole, Overcommit, Placement, SecretKey,
    ServiceKey, ServiceSpec, Standing, StarId, StarPhase, StarTemplate, Taints, Turn, VolumeKey, WallTime,
};
use serde::{Deserialize, Serialize};

use crate::audit::Audit;
use crate::jobs::Runs;
use crate::keys::Keys;
use crate::namespaces::NamespaceRecord;
use crate::rollouts::{Rollout, TakenBack, Version};
use crate::secrets::SecretRecord;
use crate::security::Security;
use crate::stars::Stars;

/// Events kept: a screen or several of history at a few dozen bytes each; the oldest goes first.
pub const EVENTS_MAX: usize = 1_000;

/// Phases remembered of one star: a usual life has six; a readiness that comes and goes has any number.
pub const TURNS_MAX: usize = 24;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// Of the last command applied.
    pub index: u64,
    pub apps: BTreeMap<AppKey, AppRecord>,
    pub services: BTreeMap<ServiceKey, ServiceRecord>,
    pub stars: Stars,
    /// `None` on a machine that is alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Name>,
    /// Empty on a machine that is alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    /// How often what a machine has may be kept for stars, where nothing else is said of it.
    #[serde(default, skip_serializing_if = "Overcommit::is_none")]
    pub overcommit: Overcommit,
    /// Where each volume lies, from its first use on: stars that have it run there and nowhere else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub homes: BTreeMap<VolumeKey, NodeId>,
    /// `None` on a machine that is alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    /// Empty on a machine that is alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<SecretKey, SecretRecord>,
    /// Those of which something was said; a name in which something is is one too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<Name, NamespaceRecord>,
    /// What became of changes that were asked for under keys.
    #[serde(default, skip_serializing_if = "Keys::is_empty")]
    pub keys: Keys,
    /// Oldest first, at most [`EVENTS_MAX`].
    pub events: VecDeque<EventRecord>,
    /// Who did what.
    #[serde(default, skip_serializing_if = "Audit::is_empty")]
    pub audit: Audit,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRecord {
    /// What was asked for last, changes to single services included.
    pub spec: AppSpec,
    /// The index of its last change: what `base` is compared with.
    pub version: u64,
    /// How often it was put since it came into being.
    pub changes: u64,
    pub created: WallTime,
    pub changed: WallTime,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    pub app: AppKey,
    pub spec: ServiceSpec,
    /// The index at which its stars last had to be others: a changed template or a restart. Stars of earlier revisions
    /// are replaced.
    pub revision: u64,
    /// Counts what was asked for, from 1, without how many stars.
    #[serde(default = "first_version")]
    pub version: u64,
    /// When that came.
    #[serde(default)]
    pub since: WallTime,
    /// The earlier version that it is again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// Those before it, oldest first, at most [`VERSIONS_MAX`](crate::rollouts::VERSIONS_MAX).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Version>,
    /// The way there, until it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Why it did not come about, where nothing could take its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// What failed last, if nothing was asked for since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_back: Option<TakenBack>,
    /// How many machines there are for it, if it is to have a star on each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub everywhere: Option<u32>,
    /// Of a reservation: its places are held.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begun: bool,
    pub stopped: bool,
    /// Its stars stand still. Whatever asks it to run, or to end, ends that too.
    #[serde(default)]
    pub paused: bool,
    /// Stars ever assigned.
    pub started: u64,
    /// Stars of this service that ended without being asked to.
    pub restarts: u64,
    /// The same, by ordinal: how often the star of each name was replaced.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub restarts_by: BTreeMap<u32, u64>,
    /// Ordinals of stars that were stopped one by one: nothing runs in their places.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub held: BTreeSet<u32>,
    /// Ordinals of this revision that ran to their end and stay ended, as the restart policy says; of a job, its parts that ended well.
    pub done: BTreeSet<u32>,
    /// Of a job.
    #[serde(default, skip_serializing_if = "Runs::is_empty")]
    pub runs: Runs,
}

/// Of a service whose versions were not counted yet.
fn first_version() -> u64 {
    1
}

impl ServiceRecord {
    /// Nothing of it is to run for now, so nothing shows whether it could.
    pub fn is_idle(&self) -> bool {
        self.stopped || self.paused || (self.wanted() == 0 && self.done.is_empty())
    }

    /// How many stars should run now.
    pub fn wanted(&self) -> u32 {
        if let Some(job) = self.spec.job.as_ref().filter(|_| !self.stopped) {
            return self.parts_wanted(job);
        }
        if self.spec.hold.is_some() && !self.begun {
            return 0;
        }
        if self.stopped {
            0
        } else {
            self.everywhere.unwrap_or(self.spec.instances).saturating_sub(self.free(u32::MAX))
        }
    }

    /// Places up to this one in which nothing is to run: done, or held. One may be both, when its star was stopped by its name and had ended
    /// well before it heard of that.
    pub(crate) fn free(&self, last: u32) -> u32 {
        u32::try_from(self.done.union(&self.held).filter(|place| **place <= last).count()).unwrap_or(u32::MAX)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StarRecord {
    pub id: StarId,
    pub app: AppKey,
    pub service: ServiceKey,
    pub revision: u64,
    pub ordinal: u32,
    pub node: NodeId,
    /// The index of the command that assigned it: orders for it carry this.
    pub generation: u64,
    /// What it was made from; its service may have moved on. Stars that were made from the same share it.
    pub template: Arc<StarTemplate>,
    pub port: Option<u16>,
    pub phase: StarPhase,
    /// Pid and start time of its first process.
    pub process: Option<(u32, u64)>,
    pub exit: Option<Exit>,
    pub assigned: WallTime,
    pub started: Option<WallTime>,
    pub ended: Option<WallTime>,
    /// It was stopped or restarted by its name, and is to go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// It is to go when another has come for it on another machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moves: bool,
    /// The place of a reservation that it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<StarId>,
    /// When it came into which phase, at most [`TURNS_MAX`]; of more the first is kept and the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Turn>,
}

impl StarRecord {
    /// `hello-1`.
    pub fn name(&self) -> String {
        format!("{}-{}", self.service.name, self.ordinal)
    }

    /// What it is given, as files or variables.
    pub fn secrets(&self) -> Vec<SecretKey> {
        let names = self.template.secrets().into_iter();
        names.map(|name| SecretKey { namespace: self.service.namespace.clone(), name: name.clone() }).collect()
    }

    pub(crate) fn turned(&mut self, phase: StarPhase, at: WallTime) {
        if self.history.len() >= TURNS_MAX {
            self.history.remove(1);
        }
        self.history.push(Turn { phase, at });
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    pub name: Name,
    pub role: NodeRole,
    /// Where other nodes reach it, `host:port`.
    pub address: String,
    pub facts: NodeFacts,
    pub standing: Standing,
    pub duty: Duty,
    /// Who has to put up with it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub taints: Taints,
    /// Where it is another than all others' ([`State::overcommit`]). What holds is in its facts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overcommit: Option<Overcommit>,
    pub admitted: WallTime,
    /// When it came to stand as it does.
    pub since: WallTime,
}

impl NodeRecord {
    /// Whether a machine that says this of itself says what is known of it. What its operator says of it is not its own.
    pub fn is_described(&self, address: &str, facts: &NodeFacts) -> bool {
        self.address == address && self.facts == NodeFacts { overcommit: self.facts.overcommit, ..facts.clone() }
    }

    /// Whether it is there, and its operator lets stars of a service so placed come. What is on every machine is on those that are
    /// cordoned too.
    pub fn takes_stars_of(&self, placement: &Placement) -> bool {
        let on_duty = match self.duty {
            Duty::Takes => true,
            Duty::Cordoned => placement.every_node,
            Duty::Draining => false,
        };
        on_duty && self.standing == Standing::Up
    }
}

/// What an event is about: the narrower, the more is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Of what is about no app of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceKey>,
    /// By its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub star: Option<String>,
}

impl About {
    pub(crate) fn namespace(name: &Name) -> Self {
        Self { namespace: Some(name.clone()), ..Self::default() }
    }

    pub(crate) fn app(app: &AppKey) -> Self {
        Self { app: Some(app.clone()), ..Self::default() }
    }

    /// A service, and its app as long as it is known.
    pub(crate) fn service(state: &State, service: &ServiceKey) -> Self {
        let app = state.services.get(service).map(|record| record.app.clone());
        Self { app, service: Some(service.clone()), ..Self::default() }
    }

    pub(crate) fn star(state: &State, service: &ServiceKey, name: &str) -> Self {
        Self { star: Some(name.to_owned()), ..Self::service(state, service) }
    }
}

/// Something a person may want to know later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    pub index: u64,
    pub wall: WallTime,
    pub what: String,
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub about: About,
}

fn is_nothing(about: &About) -> bool {
    *about == About::default()
}

impl State {
    pub fn stars_of(&self, service: &ServiceKey) -> impl Iterator<Item = &StarRecord> {
        self.stars.of_service(service)
    }

    /// The volumes that a star of this service would have.
    pub fn volumes_of(service: &ServiceKey, template: &StarTemplate) -> impl Iterator<Item = VolumeKey> {
        let namespace = service.namespace.clone();
        let names = template.volumes.iter().map(|mount| mount.volume.clone());
        names.map(move |name| VolumeKey { namespace: namespace.clone(), name }).collect::<Vec<_>>().into_iter()
    }

    /// The bundles that services and stars are made from, and those of versions that may come back.
    pub fn bundles(&self) -> BTreeSet<BundleId> {
        let wanted = self.services.values().map(|service| service.spec.template.bundle);
        let earlier = self.services.values().flat_map(|service| &service.versions);
        let wanted = wanted.chain(earlier.map(|version| version.spec.template.bundle));
        wanted.chain(self.stars.values().map(|star| star.template.bundle)).collect()
    }

    pub(crate) fn record(&mut self, wall: WallTime, what: String) {
        self.record_of(About::default(), wall, what);
    }

    pub(crate) fn record_of(&mut self, about: About, wall: WallTime, what: String) {
        while self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(EventRecord { index: self.index, wall, what, about });
    }
}
