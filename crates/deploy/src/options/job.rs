//! A service that runs to its end.

use calendar::Calendar;
use model::app::INSTANCES_MAX;
use model::job::RUNS_MAX;
use model::{Code, Job, Missed, Name, Overlap, Problem, Schedule};

use super::{OptionFault, Options, Read, narrow};
use crate::setting::Setting;

const JOB_OPTIONS: [&str; 11] = [
    "completions",
    "parallelism",
    "retries",
    "inputs",
    "schedule",
    "zone",
    "overlap",
    "missed",
    "after",
    "keep",
    "keep_days",
];
/// A part that fails more often than this fails for ever.
const RETRIES_MAX: i64 = 1_000;
/// As many as are tried by the tools that people come from.
const RETRIES_DEFAULT: u32 = 3;
const KEEP_DEFAULT: u32 = 10;
/// A minute, in days: of what is shorter nobody would see anything.
const KEEP_DAYS_MIN: f64 = 1.0 / 1_440.0;
/// Ten years.
const KEEP_DAYS_MAX: f64 = 3_650.0;
const DAY_MS: f64 = 86_400_000.0;

/// The job and how many parts it has.
pub(super) fn job(options: &mut Options) -> Read<Option<(Job, u32)>> {
    let settings = match options.take("job") {
        None => return Ok(None),
        Some(Setting::Map(settings)) => settings,
        Some(other) => {
            let example = "an object such as {schedule: \"30 4 * * *\"}, or {} for a job that runs once";
            return Err(options.wrong("job", example, &other));
        }
    };
    let own = &mut Options::new(settings, &JOB_OPTIONS, &["job"])?;
    let inputs = own.texts("inputs")?;
    let of_inputs = u32::try_from(inputs.len()).unwrap_or(u32::MAX).max(1);
    let parts = own.int("completions", 1, INSTANCES_MAX.into())?.map_or(of_inputs, narrow);
    let job = Job {
        parallelism: own.int("parallelism", 1, INSTANCES_MAX.into())?.map_or(parts, narrow),
        retries: own.int("retries", 0, RETRIES_MAX)?.map_or(RETRIES_DEFAULT, narrow),
        inputs,
        schedule: schedule(own)?,
        after: own.texts("after")?.iter().map(|name| named(own, name)).collect::<Read<Vec<Name>>>()?,
        keep: own.int("keep", 1, RUNS_MAX.into())?.map_or(KEEP_DEFAULT, narrow),
        keep_ms: own.number("keep_days", KEEP_DAYS_MIN, KEEP_DAYS_MAX)?.map(|days| (days * DAY_MS).round() as u64),
    };
    job.check(parts).map_err(|problem| own.fault_of_all(problem))?;
    Ok(Some((job, parts)))
}

fn named(own: &Options, name: &str) -> Read<Name> {
    name.parse().map_err(|error: model::name::InvalidName| {
        own.fault("after", Problem::new(Code::InvalidValue, error.to_string()))
    })
}

fn schedule(own: &mut Options) -> Read<Option<Schedule>> {
    let cron = own.text("schedule")?;
    let zone = own.text("zone")?;
    let overlap =
        own.choice("overlap", &[("skip", Overlap::Skip), ("queue", Overlap::Queue), ("replace", Overlap::Replace)])?;
    let missed = own.choice("missed", &[("once", Missed::Once), ("skip", Missed::Skip)])?;
    let Some(cron) = cron else {
        let said = [("zone", zone.is_some()), ("overlap", overlap.is_some()), ("missed", missed.is_some())];
        return match said.into_iter().find(|(_, said)| *said) {
            None => Ok(None),
            Some((name, _)) => Err(without_schedule(own, name)),
        };
    };
    let zone = zone.unwrap_or_else(|| "UTC".to_owned());
    Calendar::new(&cron, &zone).map_err(|problem| own.fault("schedule", problem))?;
    Ok(Some(Schedule { cron, zone, overlap: overlap.unwrap_or_default(), missed: missed.unwrap_or_default() }))
}

fn without_schedule(own: &Options, name: &str) -> OptionFault {
    let problem = Problem::new(Code::InvalidValue, format!("`{name}` is about a `schedule`, and there is none"));
    own.fault(name, problem.help("say when the job runs, such as schedule: \"30 4 * * *\""))
}
