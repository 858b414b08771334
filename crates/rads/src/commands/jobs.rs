//! `rads c run` and `runs`: what jobs have done, and when they do it again.

use api::{Client, JobView};
use model::{Problem, Run, RunOutcome};

use super::find;
use crate::cli::{Form, OneService};
use crate::moment::clock_time;
use crate::screen::{self, Table};

/// Failures of one run that are told beside it.
const FAILURES_TOLD: usize = 3;

pub(crate) async fn run(client: &Client, args: &OneService, form: Form) -> Result<u8, Problem> {
    let service = find::service(&args.name)?;
    client.run(&service).await?;
    let view = client.service(&service).await?;
    match form {
        Form::Json => screen::json(&view)?,
        Form::Text => {
            screen::line(format!("{service}: {}", view.job.as_ref().map(state).unwrap_or_default()));
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

/// How a job stands, for people.
pub(crate) fn state(job: &JobView) -> String {
    match (&job.run, &job.last) {
        (Some(run), _) => format!("run {}: {} of {} parts done", run.number, run.good, run.parts),
        (None, Some(last)) => format!("run {} {}", last.number, outcome(last)),
        (None, None) => "has not run yet".to_owned(),
    }
}
