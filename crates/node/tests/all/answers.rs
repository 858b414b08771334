//! What new stars make of requests is heard before they are believed, and ends their roll-out when it is bad.

use std::time::Duration;

use model::{
    Amount, AppSpec, Balance, Entry, Exit, ExitCause, ListenAddr, NodeId, OnFailure, Protocol, RolloutTurn, ServiceKey,
    StarId, StarPhase, Update, UpdateStrategy, WallTime,
};
use node::{Answers, Effect, Event};
use state::{Command, Settled, Transition};

use crate::desk::{Desk, settle, web, with_room};

/// Four stars, and one of a new version on trial, which by itself would be believed after ten seconds.
fn on_trial(errors_percent: Option<u32>) -> (Desk, StarId) {
    on_trial_or(OnFailure::Rollback, errors_percent)
}

fn on_trial_or(on_failure: OnFailure, errors_percent: Option<u32>) -> (Desk, StarId) {
    let mut desk = with_room();
    let put = |desk: &mut Desk, args: &[&str]| {
        let mut service = web(4, Vec::new());
        service.template.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        service.template.port = Some(80);
        let listen = ListenAddr::loopback(8080);
        service.entry = Some(Entry { listen, protocol: Protocol::Http, balance: Balance::RoundRobin });
        let strategy = UpdateStrategy::Canary { stars: Amount::Stars(1) };
        service.update =
            Update { strategy, promote_after_ms: Some(10_000), errors_percent, on_failure, ..Update::default() };
        let services = [("web".parse().unwrap(), service)].into();
        let wall = WallTime(desk.now.0 / 1_000_000);
        desk.write(Command::PutApp { spec: AppSpec { app: "shop".parse().unwrap(), services }, base: None, wall });
        settle(desk);
    };
    put(&mut desk, &["first"]);
    put(&mut desk, &["second"]);
    let newest = desk.node.state().stars.values().max_by_key(|star| star.revision).unwrap();
    let tried = newest.id;
    assert_eq!(newest.template.args, ["second"]);
    (desk, tried)
}

/// How often it is asked since this was asked last.
fn looks(desk: &mut Desk) -> usize {
    desk.effects.extract_if(.., |effect| matches!(effect, Effect::LookAtAnswers { .. })).count()
}

fn answer(desk: &mut Desk, answers: &[(StarId, u64, u64)]) {
    let answers =
        answers.iter().map(|(star, requests, failed)| (*star, Answers { requests: *requests, failed: *failed }));
    desk.tell(Event::Answered { service: "web".parse().unwrap(), answers: answers.collect() });
}

/// Which stars each publication since this was asked last names as judged by their answers.
fn judged(desk: &mut Desk) -> Vec<Vec<StarId>> {
    let is_publication = |effect: &mut Effect| matches!(effect, Effect::Publish { .. });
    let on_trial = |effect| match effect {
        Effect::Publish { set, .. } => set.on_trial.into_iter().collect(),
        _ => Vec::new(),
    };
    desk.effects.extract_if(.., is_publication).map(on_trial).collect()
}

/// What is to be written of the roll-out.
fn settled(desk: &mut Desk) -> Option<Settled> {
    let settled = |command| match command {
        Command::SettleRollout { settled, .. } => Some(settled),
        _ => None,
    };
    desk.proposed().into_iter().find_map(settled)
}

#[test]
fn a_canary_is_not_believed_before_its_answers_were_looked_at() {
    let (mut desk, tried) = on_trial(Some(5));
    assert_eq!(looks(&mut desk), 1, "once, and not again before it is answered");
    desk.wait(Duration::from_secs(30));
    assert_eq!((looks(&mut desk), settled(&mut desk)), (0, None));
    // Heard from two machines; those of before are not meant.
    let others: Vec<StarId> = desk.node.state().stars.keys().copied().filter(|star| *star != tried).collect();
    let heard = [(tried, 30, 1), (tried, 30, 2), (others[0], 100, 100)];
    answer(&mut desk, &heard);
    assert_eq!((looks(&mut desk), settled(&mut desk)), (1, None), "it was asked before the star was there");
    answer(&mut desk, &heard);
    assert_eq!((looks(&mut desk), settled(&mut desk)), (0, Some(Settled::Promoted)));
}

#[test]
fn a_canary_that_fails_too_many_requests_goes_back_with_the_reason() {
    let (mut desk, tried) = on_trial(Some(5));
    looks(&mut desk);
    answer(&mut desk, &[(tried, 10, 10)]);
    assert_eq!(settled(&mut desk), None, "too few to say");
    // It is looked at again and again.
    desk.wait(Duration::from_millis(900));
    desk.wait(Duration::from_millis(1_200));
    assert_eq!(looks(&mut desk), 1);
    answer(&mut desk, &[(tried, 15, 1), (tried, 15, 1)]);
    let reason = "2 of 30 requests to its stars failed, at most 5 % may".to_owned();
    assert_eq!(settled(&mut desk), Some(Settled::Failed { reason }));
}

#[test]
fn every_entry_point_is_told_who_is_on_trial_and_when_that_is_over() {
    let (mut desk, tried) = on_trial(None);
    assert_eq!(judged(&mut desk).last(), Some(&vec![tried]));
    desk.wait(Duration::from_secs(11));
    settle(&mut desk);
    assert_eq!(judged(&mut desk).last(), Some(&vec![]), "believed, it is one of many");
    // Where a bound was said, all of its version are judged until the last of the others is gone.
    let (mut desk, _) = on_trial(Some(5));
    judged(&mut desk);
    answer(&mut desk, &[]);
    desk.wait(Duration::from_secs(11));
    for _ in 0..20 {
        answer(&mut desk, &[]);
        settle(&mut desk);
        desk.wait(Duration::from_secs(3));
    }
    let published = judged(&mut desk);
    assert_eq!(published.iter().map(Vec::len).max(), Some(4), "{published:?}");
    assert_eq!(published.last(), Some(&vec![]), "it is over");
}

#[test]
fn the_last_of_the_stars_is_looked_at_before_all_is_done() {
    let (mut desk, _) = on_trial(Some(5));
    desk.wait(Duration::from_secs(11));
    answer(&mut desk, &[]);
    let service: ServiceKey = "web".parse().unwrap();
    let is_over = |desk: &Desk| desk.node.state().services[&service].rollout.is_none();
    // All that follows takes no time: what was heard is never older than two seconds.
    settle(&mut desk);
    answer(&mut desk, &[]);
    settle(&mut desk);
    let stars: Vec<StarId> = desk.node.state().stars_of(&service).map(|star| star.id).collect();
    let is_new = |desk: &Desk, star: &StarId| {
        let record = &desk.node.state().stars[star];
        record.phase == StarPhase::Ready && record.template.args == ["second"]
    };
    let new: Vec<StarId> = stars.into_iter().filter(|star| is_new(&desk, star)).collect();
    assert_eq!((new.len(), is_over(&desk), looks(&mut desk) > 0), (4, false, true), "all are there, none is believed");
    answer(&mut desk, &new.iter().map(|star| (*star, 20, 20)).collect::<Vec<_>>());
    let failed = settled(&mut desk);
    assert!(matches!(failed, Some(Settled::Failed { .. })), "{failed:?}");
}

#[test]
fn what_was_heard_is_not_forgotten_when_a_machine_does_not_answer() {
    let (mut desk, tried) = on_trial(Some(5));
    looks(&mut desk);
    answer(&mut desk, &[(tried, 12, 12)]);
    desk.wait(Duration::from_millis(2_100));
    assert_eq!(looks(&mut desk), 1);
    answer(&mut desk, &[]);
    desk.wait(Duration::from_millis(2_100));
    answer(&mut desk, &[(tried, 20, 12)]);
    assert!(matches!(settled(&mut desk), Some(Settled::Failed { .. })));
}

#[test]
fn one_that_was_held_for_stars_that_end_is_tried_anew_when_it_is_let_go_on() {
    let (mut desk, _) = on_trial_or(OnFailure::Hold, None);
    let service: ServiceKey = "web".parse().unwrap();
    let rollout = |desk: &Desk| desk.node.state().services[&service].rollout.clone().unwrap();
    let tried = |desk: &Desk| {
        let stars = desk.node.state().stars_of(&service).filter(|star| star.phase < StarPhase::Draining);
        stars.filter(|star| star.template.args == ["second"]).map(|star| star.id).next()
    };
    // How often one ends until the version is held.
    let fails = |desk: &mut Desk| {
        for times in 0..20 {
            if rollout(desk).held.is_some() {
                return times;
            }
            let star = tried(desk).unwrap();
            let cause = ExitCause::Code(3);
            if desk.node.state().stars[&star].node == NodeId(2) {
                desk.tell(Event::StarExited { star, cause });
            } else {
                let exit = Some(Exit { cause, asked: false });
                let end = Transition { star, phase: StarPhase::Ended, process: None, exit };
                let wall = WallTime(desk.now.0 / 1_000_000);
                desk.write(Command::Transitions { changes: vec![end], wall });
            }
            desk.write_all();
            for _ in 0..60 {
                if tried(desk).is_none() && rollout(desk).held.is_none() {
                    desk.wait(Duration::from_secs(1));
                    [1, 3].into_iter().for_each(|node| desk.tell(Event::Heard { node: NodeId(node) }));
                    desk.write_all();
                }
            }
        }
        panic!("it is not held: {:?}", desk.node.service_view(&service));
    };
    assert_eq!(fails(&mut desk), 5);
    assert!(tried(&desk).is_none());
    let wall = WallTime(desk.now.0 / 1_000_000);
    // Asked at another node: what is written is what counts.
    desk.write(Command::TurnRollout { service: service.clone(), turn: RolloutTurn::Resume, wall });
    desk.write_all();
    assert!(rollout(&desk).held.is_none() && tried(&desk).is_some(), "{:?}", rollout(&desk));
    assert_eq!(fails(&mut desk), 5);
}

#[test]
fn one_that_was_held_for_its_errors_and_let_go_on_is_not_held_for_them_again() {
    for turn in [RolloutTurn::Resume, RolloutTurn::Promote] {
        let (mut desk, tried) = on_trial_or(OnFailure::Hold, Some(5));
        let service: ServiceKey = "web".parse().unwrap();
        answer(&mut desk, &[(tried, 40, 40)]);
        desk.write_all();
        let held = |desk: &Desk| {
            let rollout = desk.node.state().services[&service].rollout.clone();
            rollout.map(|rollout| rollout.held.and_then(|held| held.reason))
        };
        assert!(held(&desk).flatten().is_some_and(|reason| reason.starts_with("40 of 40 requests")));
        assert_eq!(judged(&mut desk).last(), Some(&vec![]), "no more than its turn, as long as it is held");
        let wall = WallTime(desk.now.0 / 1_000_000);
        desk.write(Command::TurnRollout { service: service.clone(), turn, wall });
        settle(&mut desk);
        desk.wait(Duration::from_secs(20));
        settle(&mut desk);
        assert_eq!(held(&desk).flatten(), None, "{turn:?}");
        let stars = desk.node.state().stars_of(&service).filter(|star| star.phase != StarPhase::Ended);
        assert!(stars.into_iter().all(|star| star.template.args == ["second"]), "{turn:?}");
    }
}

#[test]
fn nobody_is_asked_where_nothing_was_said_of_errors_or_there_is_no_way_back() {
    let (mut desk, tried) = on_trial(None);
    assert_eq!(looks(&mut desk), 0);
    answer(&mut desk, &[(tried, 100, 100)]);
    desk.wait(Duration::from_secs(11));
    assert_eq!(settled(&mut desk), Some(Settled::Promoted));
    let mut desk = with_room();
    let mut service = web(1, Vec::new());
    service.update.errors_percent = Some(5);
    let services = [("web".parse().unwrap(), service)].into();
    let spec = AppSpec { app: "shop".parse().unwrap(), services };
    desk.write(Command::PutApp { spec, base: None, wall: WallTime(desk.now.0 / 1_000_000) });
    settle(&mut desk);
    assert_eq!(looks(&mut desk), 0);
}
