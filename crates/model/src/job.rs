//! A service that runs to its end: how often, when, and what it waits for.

use serde::{Deserialize, Serialize};

use crate::app::INSTANCES_MAX;
use crate::name::Name;
use crate::problem::{Code, Problem};
use crate::star::ExitCause;
use crate::time::WallTime;

/// Most runs of a job that are kept: a day of one that runs every ten minutes, and more than is looked at.
pub const RUNS_MAX: u32 = 150;
/// Longest of one input; all of them are part of the state.
pub const INPUT_MAX_BYTES: usize = 4_096;
/// Of all inputs of a job together.
pub const INPUTS_MAX_BYTES: usize = 256 << 10;

/// What makes a service a job. In each run its stars end well once for each of its instances: those are its *parts*, numbered from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Job {
    /// Parts that run at a time.
    pub parallelism: u32,
    /// How often a part may fail before the run has.
    pub retries: u32,
    /// What each part is for, in `JOB_INPUT`; none, or one for each part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    /// When it runs by itself. One without runs when it is described, or when those before it have, and when somebody asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Jobs of the same app of which it takes a good run each before it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Name>,
    /// Runs that are remembered after their end.
    pub keep: u32,
    /// How long, in milliseconds; no bound where it is not said. The last run stays, and so does the last that went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_ms: Option<u64>,
}

/// At which moments a job runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Schedule {
    /// Minute, hour, day of the month, month, day of the week, as crontab(5) has them.
    pub cron: String,
    /// Of the clock that this is said of, `Europe/Berlin`.
    pub zone: String,
    pub overlap: Overlap,
    pub missed: Missed,
}

/// What becomes of a run that is due while the last one is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    #[default]
    Skip,
    /// It begins when that one ends; of several that wait, the last.
    Queue,
    /// That one is ended.
    Replace,
}

/// What becomes of runs that were due while nobody was there to begin them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// The last of them begins late.
    #[default]
    Once,
    Skip,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    Succeeded,
    /// A part failed once more than it may.
    Failed {
        part: u32,
        cause: ExitCause,
    },
    /// Another took its place: it was due, asked for, or the job is another now.
    Replaced,
    /// The job was stopped.
    Stopped,
}

/// A run as it was, or is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Run {
    /// Counts the runs of the job, from 1.
    pub number: u64,
    /// When it was due by its schedule, if that began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<WallTime>,
    pub began: WallTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<WallTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<RunOutcome>,
    /// Parts it has, and those that ended well.
    pub parts: u32,
    pub good: u32,
    /// Parts that failed, how often, and how last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Failure {
    pub part: u32,
    pub times: u32,
    pub last: ExitCause,
}

impl Job {
    /// Refuses what is no job.
    ///
    /// # Errors
    /// Says which of its options cannot be.
    pub fn check(&self, parts: u32) -> Result<(), Problem> {
        let refused = |message: String, help: &str| Err(Problem::new(Code::InvalidValue, message).help(help));
        if parts == 0 || parts > INSTANCES_MAX {
            return refused(
                format!("a job has between 1 and {INSTANCES_MAX} parts, not {parts}"),
                "`completions` says how many",
            );
        }
        if self.parallelism == 0 {
            return refused(
                "with `parallelism: 0` no part of the job would ever run".to_owned(),
                "say 1, or leave it out",
            );
        }
        if !self.inputs.is_empty() && self.inputs.len() != parts as usize {
            let message = format!("the job has {} inputs and {parts} parts", self.inputs.len());
            return refused(message, "leave `completions` out: each input makes a part");
        }
        if let Some(long) = self.inputs.iter().find(|input| input.len() > INPUT_MAX_BYTES || input.contains('\0')) {
            let shown: String = long.chars().take(20).collect();
            let message = format!(
                "the input `{}…` is longer than {INPUT_MAX_BYTES} bytes, or has a NUL in it",
                shown.escape_debug()
            );
            return refused(message, "give parts the names of their files, and the files by a volume");
        }
        let all: usize = self.inputs.iter().map(String::len).sum();
        if all > INPUTS_MAX_BYTES {
            let message = format!("the inputs have {all} bytes together, at most {INPUTS_MAX_BYTES} are kept");
            return refused(message, "give parts the names of their files, and the files by a volume");
        }
        if self.keep == 0 || self.keep > RUNS_MAX {
            return refused(
                format!("between 1 and {RUNS_MAX} runs are kept, not {}", self.keep),
                "`keep` says how many",
            );
        }
        if self.schedule.is_some() && !self.after.is_empty() {
            let message = "a job runs by its `schedule` or `after` others, not both".to_owned();
            return refused(message, "give the schedule to the first of them");
        }
        Ok(())
    }
}

/// Refuses jobs that wait for each other, or for what is no job.
///
/// # Errors
/// Names them.
pub fn check_order<'a>(jobs: impl Iterator<Item = (&'a Name, Option<&'a Job>)>) -> Result<(), Problem> {
    let jobs: std::collections::BTreeMap<&Name, Option<&Job>> = jobs.collect();
    let after = |name: &'a Name| jobs.get(name).copied().flatten().map_or(&[][..], |job| &job.after);
    for (name, job) in &jobs {
        for before in job.map_or(&[][..], |job| &job.after) {
            if !matches!(jobs.get(before), Some(Some(_))) {
                let what = if jobs.contains_key(before) { "is no job" } else { "is not described in this app" };
                let problem = Problem::new(Code::InvalidValue, format!("`{name}` runs after `{before}`, which {what}"));
                return Err(problem.help("name jobs of the same app"));
            }
        }
    }
    // What has nothing before it that is left goes first; what is left then goes round.
    let mut left: std::collections::BTreeSet<&Name> = jobs.keys().copied().collect();
    loop {
        let free: Vec<&Name> =
            left.iter().copied().filter(|name| after(name).iter().all(|before| !left.contains(before))).collect();
        if free.is_empty() {
            break;
        }
        for name in free {
            left.remove(name);
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = left.iter().map(|name| format!("`{name}`")).collect();
    let problem =
        Problem::new(Code::InvalidValue, format!("jobs wait for each other, so none would run: {}", names.join(", ")));
    Err(problem.help("take one of them out of an `after`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        Job {
            parallelism: 1,
            retries: 0,
            inputs: Vec::new(),
            schedule: None,
            after: Vec::new(),
            keep: 10,
            keep_ms: None,
        }
    }

    #[test]
    fn what_is_no_job_is_refused() {
        let refused = |job: Job, parts: u32| job.check(parts).unwrap_err().message;
        assert!(job().check(1).is_ok());
        assert!(refused(job(), 0).contains("parts"));
        assert!(refused(Job { parallelism: 0, ..job() }, 1).contains("parallelism"));
        assert!(refused(Job { inputs: vec!["a".to_owned()], ..job() }, 2).contains("1 inputs and 2 parts"));
        assert!(refused(Job { inputs: vec!["x".repeat(5_000)], ..job() }, 1).contains("4096"));
        assert!(refused(Job { keep: 0, ..job() }, 1).contains("kept"));
    }

    #[test]
    fn jobs_that_wait_for_each_other_are_named() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let after = |names: &[&str]| Job { after: names.iter().map(|text| name(text)).collect(), ..job() };
        let check = |jobs: &[(&str, Option<Job>)]| {
            let named: Vec<(Name, Option<Job>)> = jobs.iter().map(|(text, job)| (name(text), job.clone())).collect();
            check_order(named.iter().map(|(name, job)| (name, job.as_ref()))).map_err(|problem| problem.message)
        };
        let chain = [("a", Some(job())), ("b", Some(after(&["a"]))), ("c", Some(after(&["a", "b"])))];
        assert_eq!(check(&chain), Ok(()));
        let round =
            [("a", Some(after(&["c"]))), ("b", Some(after(&["a"]))), ("c", Some(after(&["b"]))), ("d", Some(job()))];
        assert!(check(&round).unwrap_err().ends_with("`a`, `b`, `c`"));
        assert!(check(&[("a", Some(after(&["a"])))]).is_err());
        assert!(check(&[("a", Some(after(&["web"]))), ("web", None)]).unwrap_err().contains("is no job"));
        assert!(check(&[("a", Some(after(&["gone"])))]).unwrap_err().contains("not described"));
    }
}
