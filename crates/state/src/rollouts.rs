//! Versions of a service, and how it goes from one to the next.
//!
//! A *version* is what was asked for at one time, numbered from 1: everything about a service but how many stars it has. A *revision* is
//! what its stars were made from: many versions may share one, those that differ by what is changed in place. A *roll-out* is under way
//! from the moment stars have to be others until they are, and it always ends: who leads says how.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    AppKey, AppSpec, Code, Fate, Name, OnFailure, Problem, RolloutTurn, ServiceKey, ServiceSpec, StarTemplate, WallTime,
};
use serde::{Deserialize, Serialize};

use crate::apply::{Applied, Change, counted, limit_stars, service_mut, touch_app};
use crate::record::{About, ServiceRecord, State};
use crate::{everywhere, jobs, secrets};

/// Versions kept beside the present one: what somebody goes back to is one of the last few. Each is as large as its description.
pub const VERSIONS_MAX: usize = 10;

/// A version that is not the present one any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    pub number: u64,
    pub spec: ServiceSpec,
    pub revision: u64,
    pub since: WallTime,
    /// The version whose return it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// The index at which another took its place.
    pub until: u64,
    pub fate: Fate,
}

/// The way from one version to the present one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// What comes back if it fails; `None` of a service that never ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Before>,
    /// New stars are tried.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trial: bool,
    pub began: WallTime,
    /// When it has failed, unless it is over.
    pub ends: WallTime,
    /// Somebody holds it, or it has failed and is to stay as far as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// It had failed, and somebody let it go on: what its stars made of requests until then does not hold it again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pardoned: bool,
}

impl Rollout {
    /// Nothing holds it any more.
    fn let_go(&mut self) {
        self.pardoned |= self.held.take().is_some_and(|held| held.reason.is_some());
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub since: WallTime,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A roll-out that failed, and ended with what was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenBack {
    pub version: u64,
    /// What stars of it are made from.
    pub revision: u64,
    pub reason: String,
    /// The index at which that was written.
    pub index: u64,
}

/// The last version that was good, while the present one is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    pub version: u64,
    pub revision: u64,
    /// Stars that were wanted of it.
    pub stars: u32,
}

/// How a roll-out ended, as who leads has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Settled {
    Done,
    /// What was tried is believed.
    Promoted,
    Failed {
        reason: String,
    },
}

impl ServiceRecord {
    /// A new service, on its way to its first version.
    pub fn new(app: &AppKey, spec: &ServiceSpec, index: u64, wall: WallTime) -> Self {
        let mut service = Self {
            app: app.clone(),
            spec: spec.clone(),
            revision: index,
            version: 1,
            since: wall,
            of: None,
            versions: Vec::new(),
            rollout: None,
            failed: None,
            taken_back: None,
            everywhere: None,
            begun: spec.hold.is_some_and(|hold| hold.has_begun(wall)),
            stopped: false,
            paused: false,
            started: 0,
            restarts: 0,
            restarts_by: BTreeMap::new(),
            held: BTreeSet::new(),
            done: BTreeSet::new(),
            runs: Default::default(),
        };
        service.roll_out(None, wall);
        jobs::put(&mut service, true, index, wall);
        service
    }

    /// What stars of a revision are made from: of the present one, or of the one that would come back.
    pub fn spec_of(&self, revision: u64) -> Option<&ServiceSpec> {
        if revision == self.revision {
            return Some(&self.spec);
        }
        let before = self.before().filter(|before| before.revision == revision)?;
        if before.version == self.version { Some(&self.spec) } else { Some(&self.version(before.version)?.spec) }
    }

    /// What comes back if the roll-out that is under way fails.
    pub fn before(&self) -> Option<Before> {
        self.rollout.as_ref()?.previous
    }

    pub fn version(&self, number: u64) -> Option<&Version> {
        self.versions.iter().find(|version| version.number == number)
    }

    /// Another spec takes the place of the present one, which is kept.
    fn turn_over(&mut self, spec: ServiceSpec, fate: Fate, of: Option<u64>, index: u64, wall: WallTime) {
        let before = std::mem::replace(&mut self.spec, spec);
        let version = Version {
            number: self.version,
            spec: before,
            revision: self.revision,
            since: self.since,
            of: self.of,
            until: index,
            fate,
        };
        self.versions.push(version);
        (self.version, self.since, self.of) = (self.version + 1, wall, of);
        self.taken_back = None;
        let back = self.rollout.as_ref().and_then(|rollout| rollout.previous).map(|before| before.version);
        while self.versions.len() > VERSIONS_MAX {
            // What may come back is kept however many come in between.
            let at = self.versions.iter().position(|version| Some(version.number) != back).unwrap_or_default();
            self.versions.remove(at);
        }
    }

    /// The present version is to take the place of what runs.
    fn roll_out(&mut self, previous: Option<Before>, wall: WallTime) {
        // What runs to its end shows by its end what it is worth.
        if self.spec.job.is_some() {
            (self.rollout, self.failed) = (None, None);
            return;
        }
        let runs = previous.is_some_and(|before| before.stars > 0);
        let trial = runs && self.spec.update.has_trial() && self.wanted() > 0;
        let ends = after(wall, self.spec.update.deadline_ms);
        self.failed = None;
        self.rollout = Some(Rollout { previous, trial, began: wall, ends, held: None, pardoned: false });
    }

    /// What has become of the present version, if another takes its place now.
    fn fate(&self) -> Fate {
        match (&self.failed, &self.rollout) {
            (Some(reason), _) => Fate::Failed { reason: reason.clone() },
            (None, Some(_)) => Fate::Overtaken,
            (None, None) => Fate::Good,
        }
    }

    /// What is good now, seen from a version that follows.
    fn good(&self) -> Option<Before> {
        match &self.rollout {
            Some(rollout) => rollout.previous,
            None if self.failed.is_some() => None,
            None => {
                let stars = self.wanted();
                Some(Before { version: self.version, revision: self.revision, stars })
            }
        }
    }

    /// How long it may take begins anew: for some time nothing could go on.
    pub(crate) fn give_time(&mut self, wall: WallTime) {
        let deadline = self.spec.update.deadline_ms;
        if let Some(rollout) = &mut self.rollout {
            rollout.ends = after(wall, deadline);
        }
    }
}

fn after(wall: WallTime, ms: u64) -> WallTime {
    WallTime(wall.0.saturating_add(ms))
}

/// What a service of an app would be if that were put now, with the revision its stars would have; nothing for one that the app does
/// not have.
pub fn as_put(state: &State, app: &AppSpec, name: &Name, wall: WallTime) -> Option<ServiceRecord> {
    let wanted = app.services.get(name)?;
    let index = state.index + 1;
    let mut record = match state.services.get(&app.service_key(name)) {
        None => ServiceRecord::new(&app.app, wanted, index, wall),
        Some(record) => {
            let mut record = record.clone();
            put(&mut record, wanted, index, wall);
            record
        }
    };
    record.begun = wanted.hold.is_some_and(|hold| hold.has_begun(wall));
    record.everywhere = everywhere::count(&state.nodes, &wanted.placement);
    Some(record)
}

/// Makes a service what is wanted; whether its stars are to be others.
pub(crate) fn put(service: &mut ServiceRecord, wanted: &ServiceSpec, index: u64, wall: WallTime) -> bool {
    turn_to(service, wanted, None, index, wall)
}

fn turn_to(service: &mut ServiceRecord, wanted: &ServiceSpec, of: Option<u64>, index: u64, wall: WallTime) -> bool {
    // How many parts a job has is part of what it is.
    let instances = if wanted.job.is_some() { service.spec.instances } else { wanted.instances };
    let is_same = ServiceSpec { instances, ..service.spec.clone() } == *wanted;
    let is_job_other = service.spec.job != wanted.job || (wanted.job.is_some() && !is_same);
    let replaced = !service.spec.template.can_become(&wanted.template) || is_job_other;
    let previous = service.good();
    (service.stopped, service.paused) = (false, false);
    service.held.clear();
    if is_same {
        service.spec = wanted.clone();
    } else {
        let fate = service.fate();
        service.turn_over(wanted.clone(), fate, of, index, wall);
    }
    if !replaced {
        return false;
    }
    // Stars that are like that run already: they were about to be replaced, and stay.
    let back = previous.filter(|_| wanted.job.is_none()).filter(|before| {
        let kept = service.version(before.version);
        service.rollout.is_some() && kept.is_some_and(|kept| kept.spec.template.can_become(&wanted.template))
    });
    service.done.clear();
    match back {
        Some(before) => {
            service.revision = before.revision;
            (service.rollout, service.failed) = (None, None);
        }
        None => {
            service.revision = index;
            service.roll_out(previous, wall);
        }
    }
    jobs::put(service, true, index, wall);
    true
}

/// Its stars may use more or less from now on: another version, without another revision.
pub(crate) fn change_in_place(service: &mut ServiceRecord, spec: ServiceSpec, index: u64, wall: WallTime) {
    let fate = service.fate();
    service.turn_over(spec, fate, None, index, wall);
}

/// All stars of a service are to be others, made from the same.
pub(crate) fn renew(service: &mut ServiceRecord, index: u64, wall: WallTime) {
    let previous = service.good();
    (service.stopped, service.paused) = (false, false);
    service.held.clear();
    service.done.clear();
    (service.revision, service.taken_back) = (index, None);
    service.roll_out(previous, wall);
}

/// Who leads says how a roll-out ended. Refused when it is another one meanwhile.
pub(crate) fn settle(
    state: &mut State,
    key: &ServiceKey,
    revision: u64,
    settled: &Settled,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    let service = service_mut(state, key)?;
    let Some(rollout) = service.rollout.as_mut().filter(|_| service.revision == revision) else {
        return Err(Problem::new(Code::Conflict, format!("service `{key}` has changed since")));
    };
    let seconds = wall.since(rollout.began).as_millis() as f64 / 1_000.0;
    let is_first = rollout.previous.is_none();
    match settled {
        Settled::Promoted if rollout.trial => {
            rollout.trial = false;
            let what = format!(
                "service `{key}`: version {} was tried for {seconds} s and takes the place of all",
                service.version
            );
            state.record_of(About::service(state, key), wall, what);
        }
        Settled::Promoted => return Ok(()),
        Settled::Done => {
            service.rollout = None;
            let (version, stars) = (service.version, counted(service.spec.instances));
            // That a first version runs is told star by star.
            if !is_first {
                let what = format!("service `{key}`: version {version} is out after {seconds} s, with {stars}");
                state.record_of(About::service(state, key), wall, what);
            }
        }
        Settled::Failed { reason } => return fail(state, key, reason, false, wall, changes),
    }
    changes.push(Change::RolloutMoved { service: key.clone() });
    Ok(())
}

/// Ends a roll-out that has failed, as the service says, or by going back if that is asked for.
fn fail(
    state: &mut State,
    key: &ServiceKey,
    reason: &str,
    aborted: bool,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    let index = state.index;
    let service = service_mut(state, key)?;
    let Some(rollout) = service.rollout.as_mut() else { return Ok(()) };
    let number = service.version;
    let what = match rollout.previous {
        None => {
            service.rollout = None;
            service.failed = Some(reason.to_owned());
            format!("service `{key}` did not come up: {reason}; its stars are tried on")
        }
        Some(_) if service.spec.update.on_failure == OnFailure::Hold && !aborted => {
            rollout.held = Some(Held { since: wall, reason: Some(reason.to_owned()) });
            format!("service `{key}`: version {number} failed and is held: {reason}")
        }
        Some(before) => {
            let spec = service.spec_of(before.revision).cloned();
            let returns = spec.map(|spec| returning(key, &service.spec, spec));
            service.rollout = None;
            let revision = std::mem::replace(&mut service.revision, before.revision);
            service.done.clear();
            let what = match returns {
                Some(spec) if before.version != number => {
                    let fate = Fate::Failed { reason: reason.to_owned() };
                    service.turn_over(spec, fate, Some(before.version), index, wall);
                    format!("service `{key}`: version {number} is taken back for version {}: {reason}", before.version)
                }
                _ => format!("service `{key}` goes back to the stars it had: {reason}"),
            };
            service.taken_back = Some(TakenBack { version: number, revision, reason: reason.to_owned(), index });
            what
        }
    };
    state.record_of(About::service(state, key), wall, what);
    limit_stars(state, key, changes);
    touch_app(state, key, wall, changes);
    changes.push(Change::ServicePut { service: key.clone() });
    Ok(())
}

/// An earlier version as it comes back: with the stars that there are, and with no more access than either has. What was taken away
/// does not come back by itself.
fn returning(key: &ServiceKey, present: &ServiceSpec, earlier: ServiceSpec) -> ServiceSpec {
    let mut spec = ServiceSpec { instances: present.instances, ..earlier };
    let access = spec.template.access.take().zip(present.template.access.as_ref());
    spec.template.access = access.map(|(earlier, present)| earlier.and(present, &key.namespace));
    spec
}

/// Somebody has a say in a roll-out.
pub(crate) fn turn(
    state: &mut State,
    key: &ServiceKey,
    turn: RolloutTurn,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    let service = service_mut(state, key)?;
    let version = service.version;
    let refused = |message: String, help: String| Err(Problem::new(Code::Conflict, message).help(help));
    let see = format!("`rads c history {key}` shows its versions");
    let Some(rollout) = service.rollout.as_mut() else {
        return refused(format!("no roll-out of service `{key}` is under way"), see);
    };
    let what = match turn {
        RolloutTurn::Promote if !rollout.trial => {
            return refused(format!("version {version} of service `{key}` is not on trial"), see);
        }
        RolloutTurn::Promote => {
            rollout.trial = false;
            rollout.let_go();
            service.give_time(wall);
            format!("service `{key}`: version {version} was promoted")
        }
        RolloutTurn::Abort if rollout.previous.is_none() => {
            let help = format!("`rads c remove {key}` takes it away, `rads c stop {key}` ends its stars");
            return refused(format!("service `{key}` has no version to go back to"), help);
        }
        RolloutTurn::Abort => {
            return fail(state, key, "somebody aborted it", true, wall, changes);
        }
        RolloutTurn::Pause if rollout.held.is_some() => return Ok(()),
        RolloutTurn::Pause => {
            rollout.held = Some(Held { since: wall, reason: None });
            format!("service `{key}`: the roll-out of version {version} is paused")
        }
        RolloutTurn::Resume if rollout.held.is_none() => {
            return refused(format!("the roll-out of service `{key}` is neither paused nor held"), see);
        }
        RolloutTurn::Resume => {
            rollout.let_go();
            service.give_time(wall);
            format!("service `{key}`: the roll-out of version {version} goes on")
        }
    };
    state.record_of(About::service(state, key), wall, what);
    changes.push(Change::RolloutMoved { service: key.clone() });
    Ok(())
}

/// Makes a service what one of its earlier versions was; of none that is named, the last that was good.
pub(crate) fn roll_back(
    state: &mut State,
    key: &ServiceKey,
    version: Option<u64>,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    let index = state.index;
    let service = service_mut(state, key)?;
    let number = version_to_return(key, service, version)?;
    let Some(kept) = service.version(number) else { return Ok(()) };
    let was_good = kept.fate == Fate::Good;
    let wanted = returning(key, &service.spec, kept.spec.clone());
    let app = AppSpec { app: service.app.clone(), services: [(key.name.clone(), wanted.clone())].into() };
    secrets::check(state, &app)?;
    state.check_quota_of(key, wanted.clone())?;
    let service = service_mut(state, key)?;
    let replaced = turn_to(service, &wanted, Some(number), index, wall);
    // What ran already is not tried once more.
    if let Some(rollout) = service.rollout.as_mut().filter(|_| was_good) {
        rollout.trial = false;
    }
    let how = if replaced { "its stars are replaced" } else { "in place" };
    let what = format!("service `{key}` goes back to version {number}, as version {}: {how}", service.version);
    state.record_of(About::service(state, key), wall, what);
    limit_stars(state, key, changes);
    touch_app(state, key, wall, changes);
    changes.push(Change::ServicePut { service: key.clone() });
    Ok(())
}

/// Which version comes back.
///
/// # Errors
/// There is none, or it is the present one.
pub fn version_to_return(key: &ServiceKey, service: &ServiceRecord, version: Option<u64>) -> Result<u64, Problem> {
    let present = service.version;
    let last_good = || {
        service.before().map(|before| before.version).filter(|before| *before != present).or_else(|| {
            let mut good = service.versions.iter().rev().filter(|version| version.fate == Fate::Good);
            good.find(|version| {
                ServiceSpec { instances: service.spec.instances, ..version.spec.clone() } != service.spec
            })
            .map(|version| version.number)
        })
    };
    let see = format!("`rads c history {key}` shows its versions");
    match version {
        Some(number) if number == present => {
            let message = format!("version {number} of service `{key}` is the present one");
            Err(Problem::new(Code::Conflict, message).help(see))
        }
        Some(number) if service.version(number).is_none() => {
            let message = format!("service `{key}` has no version {number}, or it is not kept any more");
            Err(Problem::new(Code::NotFound, message).help(see))
        }
        Some(number) => Ok(number),
        None => last_good().ok_or_else(|| {
            let message = format!("service `{key}` has no good version before version {present}");
            Problem::new(Code::NotFound, message).help(see)
        }),
    }
}

/// Secrets have new values: services whose stars have them get others, one after another.
pub(crate) fn secret_changed(state: &mut State, secret: &model::SecretKey, wall: WallTime, changes: &mut Vec<Change>) {
    let has = |template: &StarTemplate| template.secrets().into_iter().any(|name: &Name| *name == secret.name);
    let concerned = |key: &ServiceKey, service: &ServiceRecord| {
        key.namespace == secret.namespace
            && service.spec.update.on_secret == model::OnSecret::Restart
            && !service.stopped
            && has(&service.spec.template)
    };
    let services = state.services.iter().filter(|(key, service)| concerned(key, service));
    let keys: Vec<ServiceKey> = services.map(|(key, _)| key.clone()).collect();
    let index = state.index;
    for key in keys {
        let Some(service) = state.services.get_mut(&key) else { continue };
        renew(service, index, wall);
        let what = format!("service `{key}`: its stars are replaced for the new value of secret `{secret}`");
        state.record_of(About::service(state, &key), wall, what);
        changes.push(Change::ServicePut { service: key });
    }
}
