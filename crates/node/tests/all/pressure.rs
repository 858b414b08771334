//! What a machine does that has too little memory left.

use std::time::Duration;

use model::{
    AppSpec, Bytes, ExitCause, Name, NamespaceChange, NodeId, Preference, Priority, QuotaChange, ServiceKey, StarId,
    StarPhase, WallTime,
};
use node::{Effect, Event};
use state::Command;

use crate::desk::{Desk, web};

const MACHINE: Bytes = Bytes::mib(1_000);
/// A fiftieth would be less than the least.
const LOW: Bytes = Bytes::mib(64);

/// `web` with two stars of the usual priority and `batch` with one of a low one on this machine, which leads; all are ready.
fn crowded() -> Desk {
    let mut desk = Desk::of_memory(MACHINE, 6, false);
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    let mut batch = web(3, Vec::new());
    batch.placement.priority = Priority(10);
    // Where it would go, all else being equal.
    batch.placement.prefer = vec![Preference { that: "node = b".parse().unwrap(), weight: 50 }];
    let spec = AppSpec { app: "nightly".parse().unwrap(), services: [("batch".parse().unwrap(), batch)].into() };
    desk.write(Command::PutApp { spec, base: None, wall: WallTime(2) });
    desk.write_all();
    settle(&mut desk);
    desk
}

/// All that is to start here starts and is ready.
fn settle(desk: &mut Desk) {
    loop {
        let effects = std::mem::take(&mut desk.effects);
        let starts: Vec<StarId> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Start { order } => Some(order.star),
                _ => None,
            })
            .collect();
        desk.effects = effects.into_iter().filter(|effect| !matches!(effect, Effect::Start { .. })).collect();
        if starts.is_empty() {
            return;
        }
        for star in starts {
            desk.tell(Event::StarStarted { star, pid: star.0 as u32, start_time: 7 });
        }
        desk.write_all();
    }
}

fn own(desk: &Desk, service: &str) -> Vec<StarId> {
    let key: ServiceKey = service.parse().unwrap();
    let there =
        desk.node.state().stars_of(&key).filter(|star| star.node == NodeId(2) && star.phase != StarPhase::Ended);
    there.map(|star| star.id).collect()
}

/// Time passes, and the others are there.
fn wait(desk: &mut Desk, time: Duration) {
    desk.wait(time);
    for node in [1, 3] {
        desk.tell(Event::Heard { node: NodeId(node) });
    }
    desk.write_all();
}

/// Waits until the node looks, and tells how much it finds.
fn look(desk: &mut Desk, within: Duration, left: Bytes) {
    desk.effects.retain(|effect| !matches!(effect, Effect::LookAtMemory));
    wait(desk, within);
    let looks = desk.effects.iter().filter(|effect| matches!(effect, Effect::LookAtMemory)).count();
    assert_eq!(looks, 1, "within {within:?}");
    desk.tell(Event::MemoryLeft { left });
}

fn weighed(desk: &mut Desk) -> Option<Vec<StarId>> {
    let weigh = desk.effects.extract_if(.., |effect| matches!(effect, Effect::Weigh { .. })).next()?;
    match weigh {
        Effect::Weigh { stars } => Some(stars),
        _ => unreachable!(),
    }
}

/// Who was told to end, and how.
fn ended(desk: &mut Desk) -> Vec<(StarId, &'static str)> {
    let told = desk.effects.extract_if(.., |effect| matches!(effect, Effect::Signal { .. } | Effect::Kill { .. }));
    let how = told.map(|effect| match effect {
        Effect::Signal { star, .. } => (star, "signal"),
        Effect::Kill { star } => (star, "kill"),
        _ => unreachable!(),
    });
    how.collect()
}

#[test]
fn a_star_of_the_lowest_priority_gives_way_and_its_service_goes_elsewhere() {
    let mut desk = crowded();
    let (web, batch) = (own(&desk, "web"), own(&desk, "batch"));
    assert_eq!((web.len(), batch.len()), (2, 1));
    let long = Duration::from_secs(5);
    look(&mut desk, long, MACHINE);
    assert_eq!(weighed(&mut desk), None, "there is enough");
    look(&mut desk, long, Bytes::mib(255));
    assert_eq!(weighed(&mut desk), None, "little is not too little");
    let soon = Duration::from_millis(500);
    look(&mut desk, soon, Bytes(LOW.0 - 1));
    let stars = weighed(&mut desk).expect("too little");
    assert_eq!(stars.len(), 3);
    let used = vec![(web[0], Bytes::mib(500)), (web[1], Bytes::mib(300)), (batch[0], Bytes::mib(100))];
    desk.tell(Event::Weighed { used });
    assert_eq!(ended(&mut desk), [(batch[0], "signal")]);
    desk.write_all();
    assert_eq!(desk.node.state().stars[&batch[0]].phase, StarPhase::Unready, "nothing new is sent there");
    assert_eq!(desk.node.state().stars_of(&"batch".parse().unwrap()).count(), 3, "its place is kept meanwhile");

    // One at a time, however little is left; it is killed when it does not go.
    look(&mut desk, soon, Bytes(0));
    assert_eq!(weighed(&mut desk), None);
    wait(&mut desk, Duration::from_secs(5));
    assert_eq!(ended(&mut desk), [(batch[0], "kill")]);
    desk.tell(Event::StarExited { star: batch[0], cause: ExitCause::Signal(9) });
    desk.write_all();
    let exit = desk.node.state().stars[&batch[0]].exit.clone().unwrap();
    assert_eq!((exit.cause, exit.asked), (ExitCause::Evicted, false));
    assert_eq!(own(&desk, "batch"), [], "the next one is elsewhere");
    let elsewhere = [1, 3].map(|node| desk.on(node).len()).iter().sum::<usize>();
    assert_eq!(elsewhere, 4 + 3, "nobody is missing");

    // Still too little: of those that are left who uses most.
    look(&mut desk, soon, Bytes(0));
    assert_eq!(weighed(&mut desk).map(|stars| stars.len()), Some(2));
    desk.tell(Event::Weighed { used: vec![(web[0], Bytes::mib(500)), (web[1], Bytes::mib(300))] });
    assert_eq!(ended(&mut desk), [(web[0], "signal")]);
}

#[test]
fn what_is_beyond_a_quota_gives_way_before_the_lowest_priority() {
    for burst in [false, true] {
        let mut desk = crowded();
        let mut calm = web(1, Vec::new());
        calm.placement.priority = Priority(5);
        calm.placement.prefer = vec![Preference { that: "node = b".parse().unwrap(), weight: 50 }];
        let spec = AppSpec { app: "ops/calm".parse().unwrap(), services: [("calm".parse().unwrap(), calm)].into() };
        desk.write(Command::PutApp { spec, base: None, wall: WallTime(2) });
        desk.write_all();
        settle(&mut desk);
        let quota =
            QuotaChange { instances: Some(Some(1)), burst: Some(burst.then_some(900)), ..QuotaChange::default() };
        let change = NamespaceChange { quota, ..NamespaceChange::default() };
        let namespace: Name = "default".parse().unwrap();
        desk.write(Command::SetNamespace { namespace: namespace.clone(), change, new: false, wall: WallTime(2) });
        let (web, calm) = (own(&desk, "web"), own(&desk, "ops/calm")[0]);
        let beyond = desk.node.state().beyond_quota(&namespace);
        let last = web[1].max(web[0]);
        assert_eq!(beyond.contains(&last), burst);
        look(&mut desk, Duration::from_secs(5), Bytes(0));
        desk.tell(Event::Weighed { used: vec![(last, Bytes::mib(300)), (calm, Bytes::mib(900))] });
        assert_eq!(ended(&mut desk), [(if burst { last } else { calm }, "signal")]);
    }
}

#[test]
fn who_gives_way_has_no_longer_when_it_is_not_wanted_either() {
    let mut desk = crowded();
    look(&mut desk, Duration::from_secs(5), Bytes(0));
    let batch = own(&desk, "batch")[0];
    desk.tell(Event::Weighed { used: vec![(batch, Bytes::mib(100))] });
    assert_eq!(ended(&mut desk), [(batch, "signal")]);
    desk.write(Command::RemoveApp { app: "nightly".parse().unwrap(), wall: WallTime(3) });
    desk.write_all();
    desk.tell(Event::Drained { star: batch });
    desk.write_all();
    assert_eq!(desk.node.state().stars[&batch].phase, StarPhase::Stopping);
    ended(&mut desk);
    wait(&mut desk, Duration::from_secs(5));
    assert_eq!(ended(&mut desk), [(batch, "kill")]);
}

#[test]
fn what_was_weighed_before_something_ended_ends_nobody() {
    let mut desk = crowded();
    look(&mut desk, Duration::from_secs(5), Bytes(0));
    assert!(weighed(&mut desk).is_some());
    let (web, batch) = (own(&desk, "web"), own(&desk, "batch")[0]);
    let used = vec![(web[0], Bytes::mib(500)), (web[1], Bytes::mib(300))];
    desk.tell(Event::StarExited { star: batch, cause: ExitCause::Code(1) });
    ended(&mut desk);
    desk.tell(Event::Weighed { used: used.clone() });
    assert_eq!(ended(&mut desk), [], "there may be enough now");
    // And so when there is enough before it is known.
    for (left, expected) in [(MACHINE, vec![]), (Bytes(0), vec![(web[0], "signal")])] {
        look(&mut desk, Duration::from_millis(500), Bytes(0));
        assert!(weighed(&mut desk).is_some());
        desk.tell(Event::MemoryLeft { left });
        assert_eq!(weighed(&mut desk), None, "one at a time");
        desk.tell(Event::Weighed { used: used.clone() });
        assert_eq!(ended(&mut desk), expected);
    }
}

#[test]
fn what_is_measured_of_stars_that_are_gone_ends_nobody() {
    let mut desk = crowded();
    look(&mut desk, Duration::from_secs(5), Bytes(0));
    let batch = own(&desk, "batch")[0];
    assert!(weighed(&mut desk).is_some());
    desk.tell(Event::StarExited { star: batch, cause: ExitCause::Code(1) });
    ended(&mut desk);
    desk.tell(Event::Weighed { used: vec![(batch, Bytes::mib(900)), (StarId(4_711), Bytes::mib(900))] });
    assert_eq!(ended(&mut desk), []);
}

#[test]
fn a_machine_without_stars_does_not_look() {
    let mut desk = Desk::of_memory(MACHINE, 0, false);
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    desk.wait(Duration::from_secs(60));
    assert!(!desk.effects.iter().any(|effect| matches!(effect, Effect::LookAtMemory)));
}
