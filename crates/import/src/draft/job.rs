//! What makes a service of the app a job: how often it runs, when, after what. The rules are those of `model::job` and `calendar`.

use calendar::Calendar;
use model::app::INSTANCES_MAX;
use model::job::RUNS_MAX;
use model::{Missed, Overlap};

use super::service::{Bounded, bring, narrowed, value_of};

/// Most tries of a part, as `deploy` has it.
const RETRIES_MAX: u64 = 1_000;

/// A job as it is being made. What nobody says is as `deploy` has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) completions: Option<u32>,
    pub(crate) parallelism: Option<u32>,
    pub(crate) retries: Option<u32>,
    pub(crate) schedule: Option<Schedule>,
    /// Services of the app that are jobs.
    pub(crate) after: Vec<String>,
    pub(crate) keep: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// As `calendar` reads it.
    cron: String,
    /// `UTC`, unless it says otherwise.
    zone: Option<String>,
    pub(crate) overlap: Overlap,
    pub(crate) missed: Missed,
}

impl Job {
    pub(crate) fn set_completions(&mut self, count: u64) -> Bounded<u32> {
        let bounded = bring(count, 1, INSTANCES_MAX.into());
        self.completions = Some(value_of(&bounded) as u32);
        narrowed(bounded)
    }

    pub(crate) fn set_parallelism(&mut self, count: u64) -> Bounded<u32> {
        let bounded = bring(count, 1, INSTANCES_MAX.into());
        self.parallelism = Some(value_of(&bounded) as u32);
        narrowed(bounded)
    }

    pub(crate) fn set_retries(&mut self, count: u64) -> Bounded<u32> {
        let bounded = bring(count, 0, RETRIES_MAX);
        self.retries = Some(value_of(&bounded) as u32);
        narrowed(bounded)
    }

    pub(crate) fn set_keep(&mut self, count: u64) -> Bounded<u32> {
        let bounded = bring(count, 1, RUNS_MAX.into());
        self.keep = Some(value_of(&bounded) as u32);
        narrowed(bounded)
    }

    /// Whether each run has one part.
    pub(crate) fn is_single(&self) -> bool {
        self.completions.unwrap_or(1) == 1
    }
}

impl Schedule {
    /// A schedule, unless it is none or never due; then the reason.
    pub(crate) fn new(cron: &str, zone: Option<&str>) -> Result<Self, String> {
        let cron = cron.split_whitespace().collect::<Vec<_>>().join(" ");
        let zone = zone.filter(|zone| !matches!(*zone, "UTC" | "Etc/UTC"));
        let refused = |problem: model::Problem| problem.message.trim_end_matches('.').to_owned();
        Calendar::new(&cron, zone.unwrap_or("UTC")).map_err(refused)?;
        Ok(Self { cron, zone: zone.map(str::to_owned), overlap: Overlap::default(), missed: Missed::default() })
    }

    /// The same, otherwise in what becomes of runs that meet one another or nobody.
    pub(crate) fn with(self, overlap: Overlap, missed: Missed) -> Self {
        Self { overlap, missed, ..self }
    }

    pub(crate) fn cron(&self) -> &str {
        &self.cron
    }

    pub(crate) fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Whether it is due at the same moments whatever the hour is where the clock is.
    pub(crate) fn is_hourly(&self) -> bool {
        match self.cron.split_once(' ') {
            Some((_, rest)) => rest.split(' ').all(|field| field == "*"),
            None => self.cron == "@hourly",
        }
    }

    /// One for the times of several, if they differ in a single field.
    pub(crate) fn joined(crons: &[String]) -> Option<String> {
        let mut all = crons.iter().map(|cron| cron.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let mut joined = all.next()?;
        let mut differs = None;
        for fields in all {
            if fields.len() != joined.len() || fields.len() != 5 {
                return None;
            }
            for (at, field) in fields.into_iter().enumerate() {
                // What was joined already is compared by what it was first.
                if joined[at].split(',').any(|known| known == field) || joined[at] == field {
                    continue;
                }
                if *differs.get_or_insert(at) != at || joined[at] == "*" || field == "*" {
                    return None;
                }
                joined[at] = format!("{},{field}", joined[at]);
            }
        }
        Some(joined.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_what_a_calendar_takes() {
        assert_eq!(Schedule::new("30  2 * * *", None).unwrap().cron(), "30 2 * * *");
        assert_eq!(Schedule::new("@daily", Some("Etc/UTC")).unwrap().zone(), None);
        assert_eq!(Schedule::new("0 0 * * *", Some("Europe/Berlin")).unwrap().zone(), Some("Europe/Berlin"));
        for (cron, zone) in [("0 30 * * *", "UTC"), ("* * * * * *", "UTC"), ("@reboot", "UTC"), ("@daily", "Nowhere")] {
            assert!(Schedule::new(cron, Some(zone)).is_err(), "{cron}");
        }
        assert!(Schedule::new("*/5 * * * *", None).unwrap().is_hourly());
        assert!(!Schedule::new("0 3 * * *", None).unwrap().is_hourly());
    }

    #[test]
    fn times_that_differ_in_one_field_are_one_schedule() {
        let check = |crons: &[&str], expected: Option<&str>| {
            let crons: Vec<String> = crons.iter().map(|cron| (*cron).to_owned()).collect();
            assert_eq!(Schedule::joined(&crons).as_deref(), expected, "{crons:?}");
        };
        check(&["0 6 * * *", "0 18 * * *"], Some("0 6,18 * * *"));
        check(&["0 6 * * *"], Some("0 6 * * *"));
        check(&["0 6 * * *", "30 18 * * *"], None);
        check(&["0 6 * * *", "0 18 * * *", "30 6 * * *"], None);
        check(&["0 * * * *", "0 6 * * *"], None);
        check(&["@daily", "0 6 * * *"], None);
    }
}
