//! Stars stopped, started and restarted by their names.

use std::time::Duration;

use model::{Code, ProbeRole, StarPhase, WallTime};
use node::{Event, Request, RunningStar};
use state::Command;

use super::{Desk, key, name_of, pid, web};

#[test]
fn a_star_restarted_by_its_name_is_drained_and_another_has_its_name() {
    let mut desk = Desk::serving(3);
    let second = desk.stars(StarPhase::Ready)[1];
    let (name, ordinal) = (name_of(&desk, second), desk.node.star_view(second).unwrap().ordinal);
    desk.ask(Request::RestartStar { service: key(), ordinal }).unwrap();
    assert_eq!(desk.told_of_stars(), ["routes 2", "drain"], "no other star is touched");
    assert!(desk.node.service_view(&key()).unwrap().changing, "whoever waits for it goes on waiting");
    desk.tell(Event::Drained { star: second });
    assert!(desk.started().is_empty(), "its place is taken until it has ended");
    assert_eq!(desk.told_of_stars(), ["signal 15"]);
    desk.exit(second);
    let [again] = desk.started()[..] else { panic!() };
    assert_eq!(name_of(&desk, again), name);
    desk.make_ready(again);
    let view = desk.node.service_view(&key()).unwrap();
    assert!(!view.changing && view.ready == 3 && view.restarts == 0, "{view:?}");
    // One whose number is not the first free one keeps it too.
    desk.ask(Request::Restart { service: key() }).unwrap();
    for _ in 0..10 {
        for star in desk.started() {
            desk.make_ready(star);
        }
        for star in desk.stars(StarPhase::Draining) {
            desk.tell(Event::Drained { star });
            desk.exit(star);
        }
    }
    let last = desk.stars(StarPhase::Ready).into_iter().max_by_key(|star| desk.node.star_view(*star).unwrap().ordinal);
    let (last, name) = (last.unwrap(), name_of(&desk, last.unwrap()));
    let ordinal = desk.node.star_view(last).unwrap().ordinal;
    desk.ask(Request::RestartStar { service: key(), ordinal }).unwrap();
    desk.tell(Event::Drained { star: last });
    desk.exit(last);
    let [again] = desk.started()[..] else { panic!() };
    assert_eq!(name_of(&desk, again), name);
}

#[test]
fn a_star_stopped_by_its_name_leaves_its_place_until_it_is_started() {
    let mut desk = Desk::serving(3);
    let first = desk.stars(StarPhase::Ready)[0];
    let ordinal = desk.node.star_view(first).unwrap().ordinal;
    let stop = || Request::StopStar { service: key(), ordinal };
    desk.ask(stop()).unwrap();
    desk.tell(Event::Drained { star: first });
    desk.exit(first);
    desk.wait(Duration::from_secs(120));
    assert!(desk.started().is_empty(), "nothing comes in its place");
    let view = desk.node.service_view(&key()).unwrap();
    assert_eq!((view.desired, view.ready, view.changing, view.held.as_slice()), (2, 2, false, [ordinal].as_slice()));
    desk.ask(stop()).unwrap();
    desk.ask(Request::StartStar { service: key(), ordinal }).unwrap();
    let [again] = desk.started()[..] else { panic!() };
    assert_eq!(desk.node.star_view(again).unwrap().ordinal, ordinal);
    desk.make_ready(again);
    // Whoever asks for the whole service gets all of it.
    desk.ask(stop()).unwrap();
    desk.tell(Event::Drained { star: again });
    desk.exit(again);
    desk.ask(Request::StartService { service: key() }).unwrap();
    assert_eq!(desk.started().len(), 1);
    // What is not there is refused.
    let refused = |desk: &mut Desk, request| desk.ask(request).unwrap_err().code;
    assert_eq!(refused(&mut desk, Request::StopStar { service: key(), ordinal: 9 }), Code::NotFound);
    assert_eq!(refused(&mut desk, Request::RestartStar { service: key(), ordinal: 0 }), Code::NotFound);
    desk.ask(Request::Pause { service: key() }).unwrap();
    assert_eq!(refused(&mut desk, stop()), Code::Conflict);
}

#[test]
fn one_that_ended_as_it_was_told_to_takes_nobody_with_it() {
    let mut desk = Desk::serving(3);
    let stars = desk.stars(StarPhase::Ready);
    let at =
        |ordinal| stars.iter().copied().find(|star| desk.node.star_view(*star).unwrap().ordinal == ordinal).unwrap();
    let (first, last) = (at(1), at(3));
    for _ in 0..3 {
        desk.tell(Event::Probed { star: last, role: ProbeRole::Ready, outcome: Err("no".to_owned()) });
    }
    assert_eq!(desk.stars(StarPhase::Unready), [last]);
    desk.ask(Request::StopStar { service: key(), ordinal: 1 }).unwrap();
    desk.tell(Event::Drained { star: first });
    desk.effects.clear();
    // While that is being written there are two, as there should be, one of them the first that goes when there are too many.
    desk.exit(first);
    assert_eq!(desk.stars(StarPhase::Unready), [last]);
    assert!(desk.started().is_empty());
}

#[test]
fn what_was_told_to_go_goes_though_the_agent_was_replaced() {
    let desk = Desk::serving(2);
    let star = desk.stars(StarPhase::Ready)[0];
    let (other, ordinal) = (desk.stars(StarPhase::Ready)[1], desk.node.star_view(star).unwrap().ordinal);
    let mut state = desk.node.state().clone();
    let index = state.index + 1;
    state::apply(&mut state, index, &Command::StopStar { service: key(), ordinal, wall: WallTime(1) });
    // Nobody has acted on it.
    let mut next = Desk::new(state);
    let running = [star, other].map(|star| {
        let generation = next.node.state().stars[&star].generation;
        RunningStar { star, generation, pid: pid(star), start_time: 7 }
    });
    next.tell(Event::NurseryUp { running: running.into(), ended: Vec::new() });
    assert_eq!(next.stars(StarPhase::Draining), [star]);
    assert_eq!(next.stars(StarPhase::Ready), [other]);
}

#[test]
fn what_was_told_to_go_before_it_ran_goes_though_the_agent_was_replaced() {
    // In the log it is still to start: with the nursery it runs, is on its way, or is unknown.
    for (runs, told) in [(Some(7), "signal 15"), (Some(0), "kill"), (None, "")] {
        let mut desk = Desk::serving(0);
        desk.ask(Request::Scale { service: key(), instances: 1 }).unwrap();
        let [star] = desk.started()[..] else { panic!() };
        let mut state = desk.node.state().clone();
        let index = state.index + 1;
        state::apply(&mut state, index, &Command::StopStar { service: key(), ordinal: 1, wall: WallTime(1) });
        let mut next = Desk::new(state);
        let generation = next.node.state().stars[&star].generation;
        let running = runs.map(|pid| RunningStar { star, generation, pid, start_time: 7 });
        next.tell(Event::NurseryUp { running: running.into_iter().collect(), ended: Vec::new() });
        assert!(next.started().is_empty(), "{runs:?}");
        let phase = next.node.star_view(star).unwrap().phase;
        match runs {
            Some(_) => assert!(phase == StarPhase::Stopping && next.told().contains(&told.to_owned()), "{runs:?}"),
            None => assert_eq!(phase, StarPhase::Ended),
        }
    }
}

/// `web-3` serves nobody: it is the first that goes when there are too many.
fn with_an_unready_one() -> Desk {
    let mut desk = Desk::serving(3);
    let last = desk.of_name(3);
    for _ in 0..3 {
        desk.tell(Event::Probed { star: last, role: ProbeRole::Ready, outcome: Err("no".to_owned()) });
    }
    assert_eq!(desk.stars(StarPhase::Unready), [last]);
    desk.effects.clear();
    desk
}

#[test]
fn what_is_said_last_of_a_star_that_goes_is_what_becomes_of_its_place() {
    let start = || Request::StartStar { service: key(), ordinal: 1 };
    let stop = || Request::StopStar { service: key(), ordinal: 1 };
    let restart = || Request::RestartStar { service: key(), ordinal: 1 };
    for (said, comes_back) in [
        ([restart(), stop()], false),
        ([stop(), start()], true),
        ([stop(), restart()], true),
        ([restart(), start()], true),
    ] {
        // The second is said while it drains, and while its end is written.
        for ended in [false, true] {
            let words = format!("{said:?}, ended: {ended}");
            let mut desk = with_an_unready_one();
            let first = desk.of_name(1);
            desk.ask(said[0].clone()).unwrap();
            desk.tell(Event::Drained { star: first });
            desk.moves_unwritten = ended;
            if ended {
                desk.exit(first);
            }
            desk.ask(said[1].clone()).unwrap();
            if !ended {
                desk.exit(first);
            }
            desk.moves_unwritten = false;
            desk.wait(Duration::from_secs(2));
            let started: Vec<String> = desk.started().into_iter().map(|star| name_of(&desk, star)).collect();
            assert_eq!(started, if comes_back { vec!["web-1"] } else { Vec::new() }, "{words}");
            assert_eq!(desk.stars(StarPhase::Unready), [desk.of_name(3)], "{words}: nobody else is touched");
        }
    }
}

#[test]
fn what_goes_anyway_is_too_much_before_anybody_else() {
    for request in
        [Request::StopStar { service: key(), ordinal: 1 }, Request::RestartStar { service: key(), ordinal: 1 }]
    {
        let mut desk = with_an_unready_one();
        let (first, last) = (desk.of_name(1), desk.of_name(3));
        desk.ask(request).unwrap();
        desk.ask(Request::Scale { service: key(), instances: 2 }).unwrap();
        desk.tell(Event::Drained { star: first });
        desk.exit(first);
        desk.wait(Duration::from_secs(2));
        assert_eq!((desk.stars(StarPhase::Unready), desk.started()), (vec![last], Vec::new()));
    }
}

#[test]
fn a_name_that_nobody_has_is_not_the_next() {
    let mut desk = Desk::serving(7);
    desk.ask(Request::Scale { service: key(), instances: 3 }).unwrap();
    for star in desk.stars(StarPhase::Draining) {
        desk.tell(Event::Drained { star });
        desk.exit(star);
    }
    // It is known still.
    desk.ask(Request::RestartStar { service: key(), ordinal: 7 }).unwrap();
    desk.effects.clear();
    desk.exit(desk.of_name(2));
    let (_, next) = desk.time_to_start();
    assert_eq!(name_of(&desk, next), "web-2");
}

#[test]
fn a_new_version_does_not_wait_for_an_old_star_that_goes() {
    let mut desk = Desk::serving(1);
    desk.ask(Request::StopStar { service: key(), ordinal: 1 }).unwrap();
    desk.put(web(1, "b"));
    let [new] = desk.started()[..] else { panic!() };
    desk.make_ready(new);
    assert_eq!(desk.node.service_view(&key()).unwrap().rollout, None, "it is over");
}

#[test]
fn a_star_that_was_stopped_comes_back_by_its_own_name() {
    let mut desk = Desk::serving(3);
    // Names with a gap, as a roll-out leaves them.
    desk.ask(Request::Restart { service: key() }).unwrap();
    for _ in 0..10 {
        for star in desk.started() {
            desk.make_ready(star);
        }
        for star in desk.stars(StarPhase::Draining) {
            desk.tell(Event::Drained { star });
            desk.exit(star);
        }
    }
    let ordinal_of = |star| desk.node.star_view(star).unwrap().ordinal;
    let ordinals: Vec<u32> = desk.stars(StarPhase::Ready).into_iter().map(ordinal_of).collect();
    let last = *ordinals.iter().max().unwrap();
    assert!(last > 3, "{ordinals:?}");
    let star = desk.of_name(last);
    desk.ask(Request::StopStar { service: key(), ordinal: last }).unwrap();
    desk.tell(Event::Drained { star });
    desk.exit(star);
    desk.wait(Duration::from_secs(5));
    desk.ask(Request::StartStar { service: key(), ordinal: last }).unwrap();
    let [again] = desk.started()[..] else { panic!() };
    assert_eq!(name_of(&desk, again), format!("web-{last}"));
}
