//! Jobs: which run is due, and what each part is told of itself.
//!
//! A schedule is looked at by whoever leads, and each of its moments is written with the run that it begins: who leads next
//! neither leaves one out nor begins one twice.

use std::time::Duration;

use calendar::Calendar;
use model::{Code, Job, Missed, Problem, Run, ServiceKey, StarTemplate, WallTime};
use serde::{Deserialize, Serialize};
use state::{Command, ServiceRecord, StarRecord};

use crate::limits::limits_of;
use crate::log::Purpose;
use crate::node::{Node, Step};
use crate::timers::Timer;

/// A run that begins so late was missed: longer than it takes for another to lead.
const PUNCTUAL: Duration = Duration::from_secs(60);
/// Longest wait between two looks at a schedule: the clock that it is said of may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// How a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct JobView {
    /// The run that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// The last that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Run>,
}

/// The runs of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RunsView {
    /// Those that are kept, the present one last.
    pub runs: Vec<Run>,
    /// When the next one is due by its schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<WallTime>,
}

/// Read once already, when the job was described.
pub(crate) fn calendar(job: &Job) -> Option<Calendar> {
    let schedule = job.schedule.as_ref()?;
    Calendar::new(&schedule.cron, &schedule.zone).ok()
}

impl Node {
    /// Begins the run that is due, and sets the time of the next look.
    pub(crate) fn begin_due(&mut self, key: &ServiceKey, step: &mut Step<'_>) {
        let timer = Timer::Job(key.clone());
        let record = self.state.services.get(key).filter(|record| self.peers.leads && !record.stopped && !self.resting);
        let found = record.and_then(|record| {
            let job = record.spec.job.as_ref()?;
            Some((record, job, calendar(job)?))
        });
        let Some((record, job, calendar)) = found else {
            return self.timers.clear(&timer);
        };
        let last = record.runs.slot.unwrap_or_default().max(record.since);
        let may_be_late = job.schedule.as_ref().is_some_and(|schedule| schedule.missed == Missed::Once);
        let is_due = |slot: &WallTime| *slot > last && (may_be_late || step.wall.since(*slot) <= PUNCTUAL);
        let due = calendar.last_until(step.wall).filter(is_due);
        let next = calendar.next_after(step.wall).map_or(LOOK_AGAIN, |next| next.since(step.wall));
        self.timers.set(timer, step.now + next.min(LOOK_AGAIN));
        let purpose = Purpose::Job(key.clone());
        if due.is_some() && !self.log.is_under_way(&purpose) {
            let command = Command::BeginRun { service: key.clone(), slot: due, wall: step.wall };
            self.propose(purpose, command, step);
        }
    }

    pub(crate) fn job_view(&self, record: &ServiceRecord) -> Option<JobView> {
        record.spec.job.as_ref()?;
        let mut runs = record.all_runs();
        let run = runs.pop_if(|run| run.ended.is_none());
        Some(JobView { run, last: runs.pop() })
    }

    /// The runs of a job; nothing of a service that is not known.
    ///
    /// # Errors
    /// It is no job.
    pub fn runs_view(&self, key: &ServiceKey, now: WallTime) -> Option<Result<RunsView, Problem>> {
        let record = self.state.services.get(key)?;
        let Some(job) = &record.spec.job else {
            let problem = Problem::new(Code::InvalidValue, format!("service `{key}` is no job"));
            return Some(Err(problem.help(format!("`rads c history {key}` shows its versions"))));
        };
        let next = calendar(job).filter(|_| !record.stopped).and_then(|calendar| calendar.next_after(now));
        Some(Ok(RunsView { runs: record.all_runs(), next }))
    }

    /// What a star is made from, with what it is told of its part.
    pub(crate) fn template_of(&self, star: &StarRecord) -> StarTemplate {
        let mut template = (*star.template).clone();
        template.limits = limits_of(&self.state, star);
        let record = self.state.services.get(&star.service).filter(|record| record.revision == star.revision);
        let Some((record, job)) = record.and_then(|record| Some((record, record.spec.job.as_ref()?))) else {
            return template;
        };
        let part = star.ordinal.saturating_sub(1);
        let run = record.runs.present.as_ref().map(|present| present.number.to_string());
        let told = [
            ("JOB_RUN", run),
            ("JOB_PART", Some(part.to_string())),
            ("JOB_PARTS", Some(record.spec.instances.to_string())),
            ("JOB_INPUT", job.inputs.get(part as usize).cloned()),
        ];
        template.env.extend(told.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        template
    }
}
