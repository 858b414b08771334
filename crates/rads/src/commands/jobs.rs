//! `rads c run` and `runs`: what jobs have done, and when they do it again.

use api::{Client, JobView, ServiceView};
use model::{Code, Problem, Run, RunOutcome, ServiceKey};

use super::find;
use crate::cli::{Form, OneService};
use crate::moment::clock_time;
use crate::screen::{self, Table};

/// Stars of a service that are told by name.
const NAMES_TOLD: usize = 3;
/// Failures of one run that are told beside it.
const FAILURES_TOLD: usize = 3;

pub(crate) async fn run(client: &Client, args: &OneService, form: Form) -> Result<u8, Problem> {
    let service = find::service(&args.name)?;
    client.run(&service).await?;
    let view = client.service(&service).await?;
    match form {
        Form::Json => screen::json(&view)?,
        Form::Text => {
            screen::line(format!("{service}: {}", state(&view).unwrap_or_default()));
            screen::note(format!(
                "`rads c wait {service}` waits for its end, `rads c logs -f {service}` shows what it says"
            ));
        }
    }
    Ok(0)
}

pub(crate) async fn runs(client: &Client, args: &OneService, form: Form) -> Result<u8, Problem> {
    let service = find::service(&args.name)?;
    let view = client.runs(&service).await?;
    if form == Form::Json {
        screen::json(&view)?;
        return Ok(0);
    }
    let mut table = Table::new(&[">RUN", "DUE", "BEGAN", ">TOOK", ">GOOD", "OUTCOME"]);
    for run in &view.runs {
        let due = run.slot.map_or("-".to_owned(), clock_time);
        let took = run.ended.map_or("-".to_owned(), |ended| screen::elapsed(ended.since(run.began)));
        let good = format!("{}/{}", run.good, run.parts);
        table.row([run.number.to_string(), due, clock_time(run.began), took, good, outcome(run)]);
    }
    match view.runs.is_empty() {
        true => screen::line("no run yet"),
        false => screen::print(&table.render()),
    }
    if let Some(next) = view.next {
        screen::line(format!("the next is due at {}", clock_time(next)));
    }
    Ok(0)
}

fn outcome(run: &Run) -> String {
    let told = match &run.outcome {
        None => "under way".to_owned(),
        Some(RunOutcome::Succeeded) => "succeeded".to_owned(),
        Some(RunOutcome::Failed { part, cause }) => format!("failed: part {part} ended: {cause}"),
        Some(RunOutcome::Replaced) => "replaced".to_owned(),
        Some(RunOutcome::Stopped) => "stopped".to_owned(),
    };
    let is_told = |part: u32| matches!(&run.outcome, Some(RunOutcome::Failed { part: failed, .. }) if *failed == part);
    let others: Vec<_> = run.failures.iter().filter(|failure| !is_told(failure.part)).collect();
    let mut words = vec![told];
    words.extend(others.iter().take(FAILURES_TOLD).map(|failure| {
        let times = if failure.times == 1 { "once".to_owned() } else { format!("{} times", failure.times) };
        format!("part {} failed {times}, last: {}", failure.part, failure.last)
    }));
    words.extend((others.len() > FAILURES_TOLD).then(|| format!("{} parts more failed", others.len() - FAILURES_TOLD)));
    words.join("; ")
}

/// How a job stands, for people; nothing of what is none.
pub(crate) fn state(view: &ServiceView) -> Option<String> {
    view.job.as_ref().map(|job| stands(&view.service, job, &view.held))
}

/// The same of a job in which the parts with these numbers were stopped by their names.
pub(super) fn stands(service: &ServiceKey, job: &JobView, held: &[u32]) -> String {
    let stands = match (&job.run, &job.last) {
        (Some(run), _) => format!("run {}: {} of {} parts done", run.number, run.good, run.parts),
        (None, Some(last)) => format!("run {} {}", last.number, outcome(last)),
        (None, None) => "has not run yet".to_owned(),
    };
    match (held.is_empty(), &job.run) {
        (false, Some(_)) => format!("{stands}; {} stopped", names(service, held)),
        _ => stands,
    }
}

/// That nothing of a job goes on by itself: what is left of its run was stopped by name. `live` says whether a star of it is there.
pub(super) fn rests(view: &ServiceView, live: bool) -> Option<Problem> {
    let run = view.job.as_ref()?.run.as_ref()?;
    // Those that are wanted come when their back-off is over.
    if live || view.stopped || view.held.is_empty() || view.desired > 0 {
        return None;
    }
    let (service, number) = (&view.service, run.number);
    let names = names(service, &view.held);
    let problem = Problem::new(Code::Conflict, format!("run {number} of `{service}` rests: {names} stopped by name"));
    Some(problem.help(format!("`rads c start {service}` goes on with it, `rads c stop {service}` ends it")))
}

/// Names of its stars, as the subject of a sentence.
fn names(service: &ServiceKey, places: &[u32]) -> String {
    let named: Vec<String> =
        places.iter().take(NAMES_TOLD).map(|place| format!("`{}-{place}`", service.name)).collect();
    let (named, more) = (named.join(", "), places.len().saturating_sub(NAMES_TOLD));
    match (places.len(), more) {
        (1, _) => format!("{named} is"),
        (_, 0) => format!("{named} are"),
        _ => format!("{named} and {more} more are"),
    }
}
