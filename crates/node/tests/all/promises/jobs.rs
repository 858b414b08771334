//! Jobs: what their parts are told, and when runs begin.

use std::time::Duration;

use model::{AppSpec, ExitCause, RestartPolicy, StarId, StarPhase};
use node::{Effect, Event, Request};

use super::{Desk, key, web};

/// `web` as a job of these parts.
fn job(parts: u32, job: model::Job) -> AppSpec {
    let mut app = web(parts, "a");
    for service in app.services.values_mut() {
        service.job = Some(job.clone());
        service.entry = None;
        service.template.restart = RestartPolicy::OnFailure;
    }
    app
}

fn once() -> model::Job {
    model::Job {
        parallelism: 2,
        retries: 1,
        inputs: Vec::new(),
        schedule: None,
        after: Vec::new(),
        keep: 5,
        keep_ms: None,
    }
}

fn half_hourly(missed: model::Missed) -> model::Job {
    let (cron, zone) = ("*/30 * * * *".to_owned(), "UTC".to_owned());
    model::Job { schedule: Some(model::Schedule { cron, zone, overlap: model::Overlap::Skip, missed }), ..once() }
}

/// What each star that was ordered is told of its part: number, input.
fn told_parts(desk: &mut Desk) -> Vec<(StarId, String, Option<String>)> {
    let mut parts = Vec::new();
    desk.effects.retain(|effect| match effect {
        Effect::Start { order } => {
            let env = &order.template.env;
            parts.push((order.star, env["JOB_PART"].clone(), env.get("JOB_INPUT").cloned()));
            false
        }
        _ => true,
    });
    parts
}

#[test]
fn each_part_of_a_job_is_told_what_it_is_for_and_is_tried_again_when_it_fails() {
    let mut desk = Desk::serving(0);
    let inputs = ["a.csv", "b.csv", "c.csv"].map(str::to_owned).to_vec();
    desk.put(job(3, model::Job { inputs, ..once() }));
    let parts = told_parts(&mut desk);
    let told: Vec<_> = parts.iter().map(|(_, part, input)| (part.as_str(), input.as_deref().unwrap())).collect();
    assert_eq!(told, [("0", "a.csv"), ("1", "b.csv")], "two at a time");
    desk.tell(Event::StarStarted { star: parts[0].0, pid: 5, start_time: 7 });
    desk.tell(Event::StarExited { star: parts[0].0, cause: ExitCause::Code(0) });
    let third = told_parts(&mut desk);
    assert_eq!(third[0].1, "2");
    desk.exit(parts[1].0);
    desk.exit(third[0].0);
    let again = told_parts(&mut desk);
    assert_eq!(again.iter().map(|(_, part, _)| part.as_str()).collect::<Vec<_>>(), ["1", "2"], "each may fail once");
    for (star, ..) in again {
        desk.tell(Event::StarExited { star, cause: ExitCause::Code(0) });
    }
    let view = desk.node.service_view(&key()).unwrap();
    assert!(view.is_over() && !view.changing, "{view:?}");
    let last = view.job.unwrap().last.unwrap();
    assert_eq!((last.outcome, last.good, last.failures.len()), (Some(model::RunOutcome::Succeeded), 3, 2));
}

#[test]
fn a_run_begins_when_it_is_due_and_a_missed_one_once_or_not_at_all() {
    let runs = |desk: &Desk| desk.node.state().services[&key()].runs.count;
    for missed in [model::Missed::Once, model::Missed::Skip] {
        let mut desk = Desk::serving(0);
        desk.put(job(1, half_hourly(missed)));
        assert_eq!(runs(&desk), 0);
        // It is 16 minutes and 40 seconds past midnight.
        desk.wait(Duration::from_secs(799));
        assert_eq!(runs(&desk), 0);
        desk.wait(Duration::from_secs(1));
        assert_eq!(runs(&desk), 1);
        for (star, ..) in told_parts(&mut desk) {
            desk.tell(Event::StarExited { star, cause: ExitCause::Code(0) });
        }
        // Nobody is there for some hours; then another agent is.
        let mut next = Desk::new(desk.node.state().clone());
        next.now = desk.now + Duration::from_secs(3 * 3_600 + 600);
        next.index = desk.index;
        next.tell(Event::NurseryUp { running: Vec::new(), ended: Vec::new() });
        let expected = if missed == model::Missed::Once { 2 } else { 1 };
        assert_eq!(runs(&next), expected, "{missed:?}");
        next.wait(Duration::from_secs(60));
        assert_eq!(runs(&next), expected, "{missed:?}, once at most");
    }
}

#[test]
fn a_schedule_that_is_none_is_refused_whoever_asks() {
    let mut desk = Desk::serving(0);
    let mut wrong = half_hourly(model::Missed::Once);
    wrong.schedule.as_mut().unwrap().cron = "0 0 31 2 *".to_owned();
    let refused = desk.ask(Request::PutApp { spec: job(1, wrong), base: None }).unwrap_err();
    assert!(refused.message.contains("never due"), "{refused}");
}

#[test]
fn a_job_has_no_parts_but_its_own_whatever_goes() {
    let mut desk = Desk::serving(0);
    desk.put(job(3, model::Job { parallelism: 3, ..once() }));
    let parts: Vec<StarId> = told_parts(&mut desk).into_iter().map(|(star, ..)| star).collect();
    for star in &parts {
        desk.make_ready(*star);
    }
    // Another run takes the place of this one.
    desk.put(job(3, model::Job { parallelism: 3, retries: 2, ..once() }));
    assert_eq!(told_parts(&mut desk), [], "all of it go, and their places are taken until they have");
    let going: Vec<StarId> = [desk.stars(StarPhase::Draining), desk.stars(StarPhase::Stopping)].concat();
    assert_eq!(going.len(), 3);
    let mut numbers = Vec::new();
    for star in going {
        desk.tell(Event::Drained { star });
        desk.exit(star);
        numbers.extend(told_parts(&mut desk).into_iter().map(|(_, part, _)| part));
    }
    numbers.sort();
    assert_eq!(numbers, ["0", "1", "2"]);
}
