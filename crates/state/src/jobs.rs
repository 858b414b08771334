//! Runs of jobs: how one begins, what its parts come to, and what follows from its end.
//!
//! A run is a revision of its own: stars of an earlier one are on their way out. Parts that ended well are the service's `done` places,
//! so what a job needs next is decided as for any service, by how many stars it wants.

use std::collections::BTreeMap;

use model::job::Failure;
use model::{Code, ExitCause, Job, Name, Overlap, Problem, Run, RunOutcome, ServiceKey, WallTime};
use serde::{Deserialize, Serialize};

use crate::apply::{Applied, Change, service_mut};
use crate::record::{About, ServiceRecord, State};

/// What is known of a job's runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// Runs it ever had.
    pub count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<Present>,
    /// Those that have ended, oldest first; as many as the job keeps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<Run>,
    /// The last moment of its schedule that a run was begun or left out for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<WallTime>,
    /// A moment of its schedule whose run begins when the present one has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<WallTime>,
    /// The last run that was taken, of each job before it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub taken: BTreeMap<Name, u64>,
}

/// The run that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {
    pub number: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<WallTime>,
    pub began: WallTime,
    /// How often stars failed, and how last, by ordinal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<u32, (u32, ExitCause)>,
}

impl Runs {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The last run that has ended.
    pub fn last(&self) -> Option<&Run> {
        self.ended.last()
    }
}

impl ServiceRecord {
    /// Stars that a job wants now.
    pub(crate) fn parts_wanted(&self, job: &Job) -> u32 {
        match self.runs.present {
            None => 0,
            Some(_) => self.spec.instances.saturating_sub(self.free(self.spec.instances)).min(job.parallelism),
        }
    }

    /// Parts of the run that have ended well.
    fn parts_done(&self) -> u32 {
        u32::try_from(self.done.range(..=self.spec.instances).count()).unwrap_or(u32::MAX)
    }

    /// The runs that are kept, the present one last.
    pub fn all_runs(&self) -> Vec<Run> {
        let present = self.runs.present.as_ref().map(|present| self.run_of(present, None, None));
        self.runs.ended.iter().cloned().chain(present).collect()
    }

    fn run_of(&self, present: &Present, ended: Option<WallTime>, outcome: Option<RunOutcome>) -> Run {
        let failure = |(ordinal, (times, last)): (&u32, &(u32, ExitCause))| Failure {
            part: ordinal.saturating_sub(1),
            times: *times,
            last: last.clone(),
        };
        Run {
            number: present.number,
            slot: present.slot,
            began: present.began,
            ended,
            outcome,
            parts: self.spec.instances,
            good: self.parts_done(),
            failures: present.failures.iter().map(failure).collect(),
        }
    }

    /// Ends the run that is under way, if one is.
    fn end_run(&mut self, outcome: RunOutcome, wall: WallTime) -> Option<u64> {
        let present = self.runs.present.take()?;
        let run = self.run_of(&present, Some(wall), Some(outcome));
        self.runs.ended.push(run);
        self.forget_runs(wall);
        Some(present.number)
    }

    /// Forgets runs beyond the number and the age that the job keeps. The last one is shown in any case, and what comes after it looks for
    /// the last that went well.
    fn forget_runs(&mut self, wall: WallTime) {
        let (keep, age) = self.spec.job.as_ref().map_or((1, None), |job| (job.keep as usize, job.keep_ms));
        let ended = &mut self.runs.ended;
        ended.drain(..ended.len().saturating_sub(keep));
        let Some(age) = age else { return };
        let number = |run: Option<&Run>| run.map(|run| run.number);
        let good = ended.iter().rev().find(|run| run.outcome == Some(RunOutcome::Succeeded));
        let stay = [number(ended.last()), number(good)];
        let is_young = |run: &Run| run.ended.is_none_or(|at| at.0.saturating_add(age) > wall.0);
        ended.retain(|run| is_young(run) || stay.contains(&Some(run.number)));
    }

    fn begin_run(&mut self, slot: Option<WallTime>, index: u64, wall: WallTime) {
        self.end_run(RunOutcome::Replaced, wall);
        self.forget_runs(wall);
        self.runs.count += 1;
        self.runs.slot = self.runs.slot.max(slot);
        self.runs.queued = None;
        self.runs.present = Some(Present { number: self.runs.count, slot, began: wall, failures: BTreeMap::new() });
        self.revision = index;
        self.done.clear();
        self.held.clear();
    }
}

/// A job was described, or is another: what ran of it has ended, and what nothing else begins begins.
pub(crate) fn put(service: &mut ServiceRecord, replaced: bool, index: u64, wall: WallTime) {
    let Some(job) = service.spec.job.clone() else {
        service.runs = Runs::default();
        return;
    };
    if !replaced {
        return;
    }
    service.end_run(RunOutcome::Replaced, wall);
    service.runs.queued = None;
    if job.schedule.is_none() && job.after.is_empty() {
        service.begin_run(None, index, wall);
    }
}

/// Begins a run: for a moment of its schedule, or because somebody asks.
pub(crate) fn begin(
    state: &mut State,
    key: &ServiceKey,
    slot: Option<WallTime>,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    let index = state.index;
    let service = service_mut(state, key)?;
    let refused = |message: String, help: String| Err(Problem::new(Code::Conflict, message).help(help));
    let Some(job) = &service.spec.job else {
        let problem = Problem::new(Code::InvalidValue, format!("service `{key}` is no job"));
        return Err(problem.help(format!("`rads c restart {key}` replaces its stars")));
    };
    if service.stopped {
        return refused(format!("job `{key}` is stopped"), format!("`rads c start {key}` lets it run again"));
    }
    let overlap = job.schedule.as_ref().map(|schedule| schedule.overlap).filter(|_| slot.is_some());
    if slot.is_some() && slot <= service.runs.slot {
        // Who leads now has not seen what who led before had written.
        return refused(format!("that run of job `{key}` was begun"), "nothing is to be done".to_owned());
    }
    let present = service.runs.present.as_ref().map(|present| present.number);
    let what = match (present, overlap) {
        (Some(number), None) => {
            let help = match service.held.is_empty() {
                true => format!("`rads c wait {key}` waits for its end, `rads c stop {key}` ends it"),
                false => format!("`rads c start {key}` lets its parts run that were stopped one by one"),
            };
            return refused(format!("run {number} of job `{key}` is under way"), help);
        }
        (Some(number), Some(Overlap::Skip)) => {
            service.runs.slot = slot;
            format!("job `{key}`: a run was left out, for run {number} is under way")
        }
        (Some(number), Some(Overlap::Queue)) => {
            (service.runs.slot, service.runs.queued) = (slot, slot);
            format!("job `{key}`: a run waits for run {number}")
        }
        (Some(number), Some(Overlap::Replace)) => {
            service.begin_run(slot, index, wall);
            format!("job `{key}`: run {} takes the place of run {number}", service.runs.count)
        }
        (None, _) => {
            service.begin_run(slot, index, wall);
            format!("job `{key}`: run {} begins", service.runs.count)
        }
    };
    state.record_of(About::service(state, key), wall, what);
    changes.push(Change::RolloutMoved { service: key.clone() });
    Ok(())
}

/// A star of a job's present run ended by itself: its part is done, is tried again, or has failed with all of the run.
pub(crate) fn part_ended(
    state: &mut State,
    key: &ServiceKey,
    ordinal: u32,
    cause: &ExitCause,
    wall: WallTime,
    changes: &mut Vec<Change>,
) {
    let Some(service) = state.services.get_mut(key) else { return };
    let Some(retries) = service.spec.job.as_ref().map(|job| job.retries) else { return };
    let Some(present) = service.runs.present.as_mut() else { return };
    // Not its own fault; or no part: earlier versions let one run beside another that was on its way out.
    if matches!(cause, ExitCause::NodeLost | ExitCause::Evicted) || ordinal > service.spec.instances {
        return;
    }
    if cause.is_success() {
        service.done.insert(ordinal);
        // One that is stopped by its name is waited for.
        if service.parts_done() >= service.spec.instances {
            over(state, key, RunOutcome::Succeeded, wall, changes);
        }
        return;
    }
    let (times, last) = present.failures.entry(ordinal).or_insert((0, cause.clone()));
    (*times, *last) = (*times + 1, cause.clone());
    if *times > retries {
        let outcome = RunOutcome::Failed { part: ordinal.saturating_sub(1), cause: cause.clone() };
        over(state, key, outcome, wall, changes);
    }
}

/// A run has ended: what waited for that begins.
pub(crate) fn over(
    state: &mut State,
    key: &ServiceKey,
    outcome: RunOutcome,
    wall: WallTime,
    changes: &mut Vec<Change>,
) {
    let index = state.index;
    let Some(service) = state.services.get_mut(key) else { return };
    let is_good = outcome == RunOutcome::Succeeded;
    let how = match &outcome {
        RunOutcome::Succeeded => "succeeded".to_owned(),
        RunOutcome::Failed { part, cause } => format!("failed: part {part} ended: {cause}"),
        RunOutcome::Replaced => "was replaced".to_owned(),
        RunOutcome::Stopped => "was stopped".to_owned(),
    };
    let app = service.app.clone();
    let Some(number) = service.end_run(outcome, wall) else { return };
    let queued = service.runs.queued.filter(|_| !service.stopped);
    if let Some(slot) = queued {
        service.begin_run(Some(slot), index, wall);
    }
    state.record_of(About::service(state, key), wall, format!("job `{key}`: run {number} {how}"));
    changes.push(Change::RolloutMoved { service: key.clone() });
    if !is_good {
        return;
    }
    let waits = |service: &ServiceRecord| {
        service.app == app && service.spec.job.as_ref().is_some_and(|job| job.after.contains(&key.name))
    };
    let next: Vec<ServiceKey> =
        state.services.iter().filter(|(_, service)| waits(service)).map(|(key, _)| key.clone()).collect();
    for key in next {
        follow(state, &key, wall, changes);
    }
}

/// Begins a run of a job when each that it waits for has had a good run that it has not taken yet.
fn follow(state: &mut State, key: &ServiceKey, wall: WallTime, changes: &mut Vec<Change>) {
    let index = state.index;
    let Some(service) = state.services.get(key) else { return };
    let Some(job) = service.spec.job.as_ref().filter(|_| !service.stopped) else { return };
    let taken = |name: &Name| service.runs.taken.get(name).copied().unwrap_or(0);
    let mut good = BTreeMap::new();
    for name in &job.after {
        let before = key.beside(name);
        let runs = state.services.get(&before).map(|before| &before.runs);
        let last = runs.and_then(|runs| runs.ended.iter().rev().find(|run| run.outcome == Some(RunOutcome::Succeeded)));
        match last.map(|run| run.number).filter(|number| *number > taken(name)) {
            Some(number) => drop(good.insert(name.clone(), number)),
            None => return,
        }
    }
    let Some(service) = state.services.get_mut(key) else { return };
    let before: Vec<String> = good.iter().map(|(name, number)| format!("run {number} of `{name}`")).collect();
    service.runs.taken.extend(good);
    service.begin_run(None, index, wall);
    let what = format!("job `{key}`: run {} begins, after {}", service.runs.count, before.join(" and "));
    state.record_of(About::service(state, key), wall, what);
    changes.push(Change::RolloutMoved { service: key.clone() });
}
