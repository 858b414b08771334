//! Jobs and CronJobs: how often a pod has to end well, and when. The pod is told as any (`workload`).

use model::{Missed, Overlap};

use super::workload;
use crate::docker::bounded;
use crate::docker::image::Images;
use crate::draft::{App, Job, Schedule, Service};
use crate::ledger::{Ledger, WithHelp as _};
use crate::names::name_of;
use crate::tree::Node;
use crate::{LeftJob, env};

use super::objects::{self, Objects};

/// What a failed pod is tried again when nobody says.
const RETRIES_DEFAULT: u32 = 6;
/// How many ended runs are kept when nobody says: that went well, and that failed.
const KEPT_DEFAULT: (i64, i64) = (3, 1);
/// How a pod of an indexed job learns which it is.
const INDEX: &str = "JOB_COMPLETION_INDEX";

const QUEUE: &str = "overlap: \"queue\" has it begin when that one has ended";

pub(super) fn read(
    ledger: &mut Ledger,
    app: &mut App,
    images: &Images,
    objects: &mut Objects,
    object: &Node,
    kind: &str,
) {
    let cron = object.get("spec").filter(|_| kind == "CronJob");
    let spec = match cron {
        Some(cron) => cron.at(&["jobTemplate", "spec"]),
        None => object.get("spec"),
    };
    let planned = match cron {
        Some(cron) => scheduled(cron),
        None => Ok(None),
    };
    let stands_still = [cron, spec].into_iter().flatten().any(|spec| spec.get("suspend").is_some_and(Node::is_true));
    let no_pods = spec.and_then(|spec| spec.get("parallelism")).and_then(Node::int) == Some(0);
    let planned = match planned {
        _ if stands_still || no_pods => Err("it is suspended, and one of an app runs".to_owned()),
        planned => planned,
    };
    let schedule = match planned {
        Ok(schedule) => schedule,
        Err(why) => return leave(ledger, app, object, spec, cron, &why),
    };
    let job = Job { schedule, ..Job::default() };
    workload::read(ledger, app, images, objects, object, kind, Some(job));
    if let Some(cron) = cron {
        cron_spec(ledger, app, cron);
        objects::metadata(ledger, cron.at(&["jobTemplate", "metadata"]));
    }
}

/// A job that is not carried, as a comment.
fn leave(ledger: &mut Ledger, app: &mut App, object: &Node, spec: Option<&Node>, cron: Option<&Node>, why: &str) {
    let pod = spec.and_then(|spec| spec.at(&["template", "spec"]));
    let container = pod.and_then(|pod| pod.get("containers")).and_then(|containers| containers.items().first());
    let words = |key: &str| container.and_then(|one| one.get(key)).and_then(Node::texts).unwrap_or_default();
    let mut command = words("command");
    command.extend(words("args"));
    if command.is_empty() {
        let image = container.and_then(|one| one.text_at("image")).unwrap_or_default();
        command = vec![format!("command-of-{}", name_of(image, "image"))];
    }
    let when = match cron.and_then(|cron| cron.text_at("schedule")) {
        Some(schedule) => format!("at `{schedule}`"),
        None => "once".to_owned(),
    };
    let name = object.at(&["metadata", "name"]).or_else(|| object.at(&["metadata", "generateName"]));
    let name = name_of(name.and_then(Node::scalar).unwrap_or_default(), "job");
    app.leave_job(ledger, object, LeftJob { name, when, command }, why);
}

/// When a CronJob runs.
fn scheduled(cron: &Node) -> Result<Option<Schedule>, String> {
    let text = cron.text_at("schedule").unwrap_or_default();
    // Older ones name the zone before the times.
    let before = ["CRON_TZ=", "TZ="].into_iter().find_map(|prefix| text.strip_prefix(prefix)?.split_once(' '));
    let (zone, times) = before.map_or((None, text), |(zone, times)| (Some(zone), times));
    let zone = cron.text_at("timeZone").or(zone);
    let overlap = match cron.text_at("concurrencyPolicy") {
        Some("Replace") => Overlap::Replace,
        _ => Overlap::Skip,
    };
    let missed = if cron.get("startingDeadlineSeconds").is_some_and(|late| !late.is_null()) {
        Missed::Skip
    } else {
        Missed::Once
    };
    Ok(Some(Schedule::new(times, zone)?.with(overlap, missed)))
}

/// What a CronJob says beside its job.
fn cron_spec(ledger: &mut Ledger, app: &mut App, cron: &Node) {
    let limit = |key: &str, otherwise: i64| cron.get(key).and_then(Node::int).unwrap_or(otherwise).max(0);
    let kept = limit("successfulJobsHistoryLimit", KEPT_DEFAULT.0) + limit("failedJobsHistoryLimit", KEPT_DEFAULT.1);
    let said = ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"].iter().any(|key| cron.get(key).is_some());
    let job = app.services.last_mut().and_then(|service| service.job.as_mut()).filter(|_| said);
    let kept = job.map(|job| job.set_keep(kept.unsigned_abs()));
    let shown = kept.map_or(0, |kept| match kept {
        crate::draft::Bounded::AsAsked(kept) | crate::draft::Bounded::Brought(kept) => kept,
    });
    for (key, value) in cron.entries() {
        match key.as_str() {
            // What is due meets what still runs, unless a policy says otherwise.
            "schedule" if cron.get("concurrencyPolicy").is_none() => ledger.changed(
                value,
                "schedule; runs of a job do not overlap: one that is due while the last one runs is left out"
                    .help(QUEUE),
            ),
            "schedule" => ledger.carried(value, "schedule"),
            "timeZone" => ledger.carried(value, "zone"),
            "concurrencyPolicy" => match value.scalar() {
                Some("Forbid") => ledger.carried(value, "a run that is due while the last one runs is left out"),
                Some("Replace") => ledger.carried(value, "overlap: \"replace\""),
                _ => ledger.changed(
                    value,
                    "runs of a job do not overlap: one that is due while the last one runs is left out".help(QUEUE),
                ),
            },
            "startingDeadlineSeconds" if value.is_null() => ledger.carried(value, "nothing is in it"),
            "startingDeadlineSeconds" => {
                ledger.changed(value, "missed: \"skip\": a run that nobody was there to begin does not begin late");
            }
            "suspend" => ledger.carried(value, "it is off"),
            "successfulJobsHistoryLimit" | "failedJobsHistoryLimit" => {
                ledger.changed(value, format!("keep: {shown}, of runs that went well and that failed together"));
            }
            _ => {}
        }
    }
}

/// Gives a shell's line the part's number by the name it asks for; another program is the user's to change.
fn told_part(ledger: &mut Ledger, service: &mut Service) {
    let by_shell = match &service.command[..] {
        [shell, flag, _, ..] => {
            let shell = shell.by_default();
            let name = shell.rsplit('/').next().unwrap_or_default();
            matches!(name, "sh" | "bash" | "dash" | "ash" | "zsh") && flag.by_default() == "-c"
        }
        _ => false,
    };
    if by_shell && service.command[2].fixed().is_some() {
        let line = service.command[2].by_default();
        service.command[2] = format!("export {INDEX}=$JOB_PART; {line}").into();
        let text = format!("`{INDEX}` is `$JOB_PART`, set by the shell of the command");
        ledger.note(crate::report::Verdict::Changed, &service.node, text);
        return;
    }
    let text = format!("`{INDEX}` is not set: which part it is, a star finds in `$JOB_PART`");
    ledger.note(crate::report::Verdict::Changed, &service.node, text.help("have the program read that"));
}

/// What a Job says of its pods, for a service that one of their containers became. Told once, of the first.
pub(super) fn spec(ledger: &mut Ledger, service: &mut Service, spec: &Node, first: bool) {
    let Some(mut job) = service.job.take() else { return };
    let number = |key: &str| spec.get(key).and_then(Node::int).and_then(|count| u64::try_from(count).ok());
    let (completions, parallelism) = (number("completions"), number("parallelism").filter(|count| *count > 0));
    // Without a number of completions pods find out together when all is done.
    let by_queue = completions.is_none() && parallelism.is_some_and(|count| count > 1);
    let wanted = completions.or(parallelism).map(|count| job.set_completions(count.max(1)));
    let at_a_time = job.set_parallelism(parallelism.unwrap_or(1));
    let per_part = number("backoffLimitPerIndex");
    job.set_retries(per_part.or(number("backoffLimit")).unwrap_or(RETRIES_DEFAULT.into()));
    let single = job.is_single();
    if let Some(seconds) = number("activeDeadlineSeconds").filter(|seconds| (1..=31_536_000).contains(seconds)) {
        service.deadline_ms = Some(seconds * 1000);
    }
    for (key, value) in spec.entries().iter().filter(|_| first) {
        match (key.as_str(), wanted) {
            ("template", _) => {}
            ("completions", Some(wanted)) => bounded(ledger, value, "completions", wanted),
            ("parallelism", _) if by_queue => ledger.changed(
                value,
                "so many parts, each of which has to end well"
                    .help("parts that share a queue end by themselves when it is empty"),
            ),
            ("parallelism", _) => bounded(ledger, value, "parallelism", at_a_time),
            ("completionMode", _) => match value.scalar() {
                Some("Indexed") => ledger.changed(
                    value,
                    format!("which part it is, a star finds in `$JOB_PART`; nothing sets `${INDEX}` for it"),
                ),
                _ => ledger.carried(value, "parts are numbered whether they ask for it or not"),
            },
            ("backoffLimit", _) if per_part.is_some() => ledger.left(value, "retries are each part's own"),
            ("backoffLimit", _) if single => ledger.carried(value, "retries"),
            ("backoffLimit", _) => ledger.changed(value, "retries: of each part, not of all together"),
            ("backoffLimitPerIndex", _) => ledger.carried(value, "retries"),
            ("maxFailedIndexes", _) => ledger.left(value, "a run has failed when one of its parts has"),
            ("activeDeadlineSeconds", _) if service.deadline_ms.is_none() => {
                ledger.left(value, "it is no time that a star may be given")
            }
            ("activeDeadlineSeconds", _) if single => ledger.carried(value, "deadline_seconds"),
            ("activeDeadlineSeconds", _) => {
                ledger.changed(value, "deadline_seconds: of each part, not of all together")
            }
            ("ttlSecondsAfterFinished", _) => ledger.left(value, "ended runs are remembered by their number: `keep`"),
            ("suspend", _) => ledger.carried(value, "it is off"),
            ("podFailurePolicy" | "successPolicy", _) => {
                ledger.left(value, "a part has ended well when its exit code is 0")
            }
            ("podReplacementPolicy", _) => ledger.carried(value, "a part is tried again when its star has ended"),
            ("selector" | "manualSelector", _) => ledger.carried(value, "its own pods"),
            ("managedBy", _) => ledger.left(value, "a service is looked after by its constellation"),
            _ => {}
        }
        if value.is_null() && ledger.is_open(value) {
            ledger.carried(value, "nothing is in it");
        }
    }
    if env::mentions(service, INDEX) {
        told_part(ledger, service);
    }
    service.job = Some(job);
}
