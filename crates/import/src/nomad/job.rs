//! Batch jobs: each of their groups runs to its end, so often as it counts, by the clock of `periodic` or as soon as it is described.

use super::{blocks, task};
use crate::LeftJob;
use crate::docker::bounded;
use crate::draft::{App, Job, Schedule, Service};
use crate::ledger::{Ledger, WithHelp as _};
use crate::names::name_of;
use crate::tree::Node;

/// How often a task of a batch job is tried again when nobody says.
const RETRIES_DEFAULT: u32 = 3;
/// Of one that is tried again and again: as often as `deploy` takes.
const RETRIES_WITHOUT_END: u64 = 1_000;

const QUEUE: &str = "overlap: \"queue\" has it begin when that one has ended";

/// What makes services of a batch job jobs; or why they cannot be.
pub(super) fn of(kind: &str, node: &Node) -> Result<Job, String> {
    if kind == "sysbatch" {
        return Err("it runs once on each machine, and one of an app as often as it says".to_owned());
    }
    if node.get("parameterized").is_some() {
        return Err("it runs when somebody hands it something, and `rads c run` hands nothing on".to_owned());
    }
    let Some(periodic) = node.get("periodic") else {
        return Ok(Job { retries: Some(RETRIES_DEFAULT), ..Job::default() });
    };
    if periodic.get("enabled").and_then(Node::boolean) == Some(false) {
        return Err("its schedule is off, and one of an app runs".to_owned());
    }
    let times = periodic.get("cron").or_else(|| periodic.get("crons"));
    let times: Vec<&str> = times.map(Node::one_or_more).unwrap_or_default().iter().filter_map(Node::scalar).collect();
    let said = || times.join("`, `");
    let crons: Option<Vec<String>> = times.iter().map(|cron| five_fields(cron)).collect();
    let cron = crons.as_ref().and_then(|crons| Schedule::joined(crons));
    let cron = cron.ok_or_else(|| format!("no cron schedule of five fields says `{}`", said()))?;
    // Whoever comes to lead begins what was missed, there as here.
    let schedule = Schedule::new(&cron, periodic.text_at("time_zone"))?;
    Ok(Job { retries: Some(RETRIES_DEFAULT), schedule: Some(schedule), ..Job::default() })
}

/// A job that is not carried, as a comment.
pub(super) fn leave(ledger: &mut Ledger, app: &mut App, name: &str, node: &Node, kind: &str, why: &str) {
    let periodic = node.get("periodic");
    let cron = periodic.and_then(|periodic| periodic.get("cron").or_else(|| periodic.get("crons")));
    let times =
        cron.map(|cron| cron.scalar().map_or_else(|| cron.texts().unwrap_or_default().join("; "), str::to_owned));
    let when = match times {
        Some(times) => format!("at `{times}`"),
        None if kind == "sysbatch" => "on each machine".to_owned(),
        None => "when asked for".to_owned(),
    };
    let groups = blocks(node, "group");
    let first =
        groups.iter().map(|(_, group)| *group).chain([node]).find_map(|group| blocks(group, "task").into_iter().next());
    let command = first.map(|(_, task)| task::words(task)).unwrap_or_default();
    app.leave_job(ledger, node, LeftJob { name: name_of(name, "job"), when, command }, why);
}

/// Tells of `periodic`.
pub(super) fn periodic(ledger: &mut Ledger, node: &Node) {
    for (key, value) in node.entries() {
        match key.as_str() {
            "cron" | "crons" if node.get("prohibit_overlap").is_none() => ledger.changed(
                value,
                "schedule; runs of a job do not overlap: one that is due while the last one runs is left out"
                    .help(QUEUE),
            ),
            "cron" | "crons" => ledger.carried(value, "schedule"),
            "time_zone" => ledger.carried(value, "zone"),
            "prohibit_overlap" if value.is_true() => {
                ledger.carried(value, "a run that is due while the last one runs is left out");
            }
            "prohibit_overlap" => ledger.changed(
                value,
                "runs of a job do not overlap: one that is due while the last one runs is left out".help(QUEUE),
            ),
            "enabled" => ledger.carried(value, "it is on"),
            _ => {}
        }
    }
}

/// `restart` of a task of a batch job: how often it is tried again.
pub(super) fn tries(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    let Some(job) = &mut service.job else { return };
    let without_end = node.text_at("mode") == Some("delay");
    for (key, value) in node.entries() {
        let count = value.int().and_then(|count| u64::try_from(count).ok());
        match (key.as_str(), count) {
            ("attempts", Some(count)) if !without_end => bounded(ledger, value, "retries", job.set_retries(count)),
            ("attempts", _) => ledger.left(value, "it is tried again and again"),
            ("mode", _) if without_end => {
                let retries = job.set_retries(RETRIES_WITHOUT_END);
                bounded(ledger, value, "retries", retries);
            }
            ("mode", _) => ledger.carried(value, "a run has failed when a part has failed once more than it may"),
            _ => ledger.left(value, "a part that fails is tried again at once, then after growing delays"),
        }
    }
}

/// A cron expression with a second before the minute, or a year behind the day of the week, without these.
fn five_fields(text: &str) -> Option<String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let any = |field: &str| matches!(field, "*" | "?");
    let five = match fields[..] {
        [second, .., year] if fields.len() == 7 => (second == "0" && any(year)).then(|| fields[1..6].join(" ")),
        [.., year] if fields.len() == 6 => any(year).then(|| fields[..5].join(" ")),
        _ => Some(fields.join(" ")),
    };
    five.map(|five| five.replace('?', "*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_years_go_where_they_say_nothing() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(five_fields(text).as_deref(), expected, "{text}");
        check("15 4 * * *", Some("15 4 * * *"));
        check("0 */3 * * * *", Some("0 */3 * * *"));
        check("0 15 4 * * ? *", Some("15 4 * * *"));
        check("*/30 * * * * * *", None);
        check("0 0 1 1 * 2030", None);
        check("@daily", Some("@daily"));
    }
}
