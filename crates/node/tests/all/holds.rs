//! Reservations: places that are held, who gets them, and what becomes of both.

use std::time::Duration;

use model::{
    Amount, AppSpec, Bytes, Duty, Hold, Limits, NodeId, Priority, Program, Reserve, ServiceKey, ServiceSpec, StarId,
    StarPhase, WallTime,
};
use node::Event;
use state::Command;

use crate::desk::{Desk, settle, web, with_room};

fn key(service: &str) -> ServiceKey {
    service.parse().unwrap()
}

fn wall(desk: &Desk) -> WallTime {
    WallTime(desk.now.0 / 1_000_000)
}

/// An app of one service of the same name.
fn put(desk: &mut Desk, name: &str, spec: ServiceSpec) {
    let app = AppSpec { app: name.parse().unwrap(), services: [(name.parse().unwrap(), spec)].into() };
    let wall = wall(desk);
    desk.write(Command::PutApp { spec: app, base: None, wall });
    settle(desk);
}

fn places(count: u32, megabytes: u64, hold: Hold) -> ServiceSpec {
    let mut spec = web(count, Vec::new());
    spec.template.program = Program::Nothing;
    spec.template.limits = Limits::UNLIMITED;
    spec.template.reserve = Reserve { memory: Bytes::mib(megabytes), ..Reserve::default() };
    spec.hold = Some(hold);
    spec
}

fn keeping(stars: u32, megabytes: u64) -> ServiceSpec {
    let mut spec = web(stars, Vec::new());
    spec.template.reserve = Reserve { memory: Bytes::mib(megabytes), ..Reserve::default() };
    spec
}

fn within(stars: u32, megabytes: u64) -> ServiceSpec {
    let mut spec = keeping(stars, megabytes);
    spec.placement.reservation = Some("kept".parse().unwrap());
    spec
}

/// How many of a service are on which machine.
fn on(desk: &Desk, service: &str) -> [usize; 3] {
    let stars: Vec<_> =
        desk.node.state().stars_of(&key(service)).filter(|star| star.phase != StarPhase::Ended).collect();
    [1, 2, 3].map(|node| stars.iter().filter(|star| star.node == NodeId(node)).count())
}

fn kept(desk: &Desk) -> [u64; 3] {
    let load = |node| desk.node.state().stars.load_of(NodeId(node)).map_or(0, |load| load.kept.memory >> 20);
    [1, 2, 3].map(load)
}

fn free(desk: &Desk) -> usize {
    desk.node.state().free_places(&key("kept")).count()
}

fn end(desk: &mut Desk, star: StarId) {
    let exit = Some(model::Exit { cause: model::ExitCause::Code(1), asked: false });
    let ended = state::Transition { star, phase: StarPhase::Ended, process: None, exit };
    let wall = wall(desk);
    desk.write(Command::Transitions { changes: vec![ended], wall });
    settle(desk);
}

/// All machines are heard meanwhile.
fn pass(desk: &mut Desk, seconds: u64) {
    for _ in 0..seconds {
        desk.wait(Duration::from_secs(1));
        [1, 3].into_iter().for_each(|node| desk.tell(Event::Heard { node: NodeId(node) }));
        settle(desk);
    }
}

#[test]
fn what_is_held_is_nobodys_but_theirs_who_are_in_the_reservation() {
    let mut desk = with_room();
    put(&mut desk, "kept", places(3, 700, Hold::default()));
    assert_eq!((on(&desk, "kept"), kept(&desk), free(&desk)), ([1, 1, 1], [700, 700, 700], 3));
    let view = desk.node.service_view(&key("kept")).unwrap();
    assert_eq!((view.ready, view.changing, view.problem), (3, false, None), "nothing has to start");
    put(&mut desk, "other", keeping(3, 400));
    assert_eq!(on(&desk, "other"), [0, 0, 0], "there is no room but what is held");
    put(&mut desk, "page", within(2, 500));
    let there = on(&desk, "page");
    assert_eq!((there.iter().sum::<usize>(), free(&desk), kept(&desk)), (2, 1, [700, 700, 700]));
    // More than there are places wait, and say for what.
    put(&mut desk, "more", within(2, 100));
    assert_eq!((on(&desk, "more").iter().sum::<usize>(), free(&desk)), (1, 0));
    let told = desk.node.service_view(&key("more")).unwrap().problem.unwrap();
    assert!(told.contains("no place of reservation `kept` that is free"), "{told}");
    // A star that ends leaves its place as it was: one of the same service comes, or of another that waits.
    let star = desk.node.state().stars_of(&key("page")).find(|star| star.node != NodeId(2)).unwrap().id;
    end(&mut desk, star);
    assert_eq!((on(&desk, "other"), free(&desk), kept(&desk)), ([0, 0, 0], 0, [700, 700, 700]));
    let wall = wall(&desk);
    desk.write(Command::RemoveApp { app: "page".parse().unwrap(), wall });
    settle(&mut desk);
    assert_eq!((on(&desk, "more").iter().sum::<usize>(), free(&desk)), (2, 1));
}

#[test]
fn places_are_held_in_their_time_and_what_is_in_them_stays() {
    let mut desk = with_room();
    let now = wall(&desk);
    let hold = Hold { from: Some(WallTime(now.0 + 10_000)), until: Some(WallTime(now.0 + 100_000)) };
    put(&mut desk, "kept", places(2, 700, hold));
    put(&mut desk, "page", within(2, 500));
    assert_eq!((kept(&desk), on(&desk, "page")), ([0, 0, 0], [0, 0, 0]));
    let told = desk.node.service_view(&key("page")).unwrap().problem.unwrap();
    assert_eq!(told, "reservation `kept` has not begun");
    pass(&mut desk, 11);
    assert_eq!((kept(&desk).iter().sum::<u64>(), on(&desk, "page").iter().sum::<usize>()), (1_400, 2));
    pass(&mut desk, 100);
    assert!(!desk.node.state().services.contains_key(&key("kept")), "its time is over");
    assert_eq!((kept(&desk).iter().sum::<u64>(), on(&desk, "page").iter().sum::<usize>()), (1_000, 2));
    let star = desk.node.state().stars_of(&key("page")).find(|star| star.phase == StarPhase::Ready).unwrap().id;
    end(&mut desk, star);
    assert_eq!(on(&desk, "page").iter().sum::<usize>(), 1, "there is no place for the next");
    let told = desk.node.service_view(&key("page")).unwrap().problem.unwrap();
    assert_eq!(told, "reservation `kept` is over, or was released");
}

#[test]
fn places_of_a_machine_that_goes_are_held_elsewhere_and_their_stars_follow() {
    for drained in [false, true] {
        let mut desk = with_room();
        put(&mut desk, "kept", places(2, 700, Hold::default()));
        put(&mut desk, "page", within(2, 500));
        let at = on(&desk, "page").iter().position(|stars| *stars == 1).unwrap() as u64 + 1;
        let (node, wall) = (NodeId(at), WallTime(2));
        desk.write(match drained {
            true => Command::SetDuty { node, duty: Duty::Draining, wall },
            false => Command::LoseNode { node, wall },
        });
        settle(&mut desk);
        let (there, stars) = (on(&desk, "kept"), on(&desk, "page"));
        assert_eq!((there.iter().sum::<usize>(), stars, free(&desk)), (2, there, 0), "drained: {drained}");
        assert_eq!((stars[at as usize - 1], kept(&desk).iter().sum::<u64>()), (0, 1_400));
    }
}

#[test]
fn who_is_in_a_place_gives_way_to_nobody_and_free_places_go_first() {
    let mut desk = with_room();
    put(&mut desk, "kept", places(3, 700, Hold::default()));
    put(&mut desk, "page", within(1, 500));
    let (home, place) =
        desk.node.state().stars_of(&key("page")).map(|star| (star.node, star.place.unwrap())).next().unwrap();
    let mut urgent = keeping(3, 700);
    urgent.placement.priority = Priority(90);
    urgent.placement.disruptions = Amount::Percent(100);
    let lower = |spec: &mut ServiceSpec| {
        (spec.placement.priority, spec.placement.disruptions) = (Priority(10), Amount::Percent(100));
    };
    let mut reservation = places(3, 700, Hold::default());
    lower(&mut reservation);
    put(&mut desk, "kept", reservation.clone());
    put(&mut desk, "urgent", urgent);
    assert_eq!(on(&desk, "urgent").iter().sum::<usize>(), 2, "free places give way");
    assert_eq!((on(&desk, "page")[home.0 as usize - 1], free(&desk)), (1, 0));
    assert!(desk.node.state().stars.tenant_of(place).is_some());
    // Fewer are wanted: the one that has a star stays.
    let wall = wall(&desk);
    desk.write(Command::RemoveApp { app: "urgent".parse().unwrap(), wall });
    settle(&mut desk);
    assert_eq!(free(&desk), 2);
    desk.write(Command::Scale { service: key("kept"), instances: 1, wall });
    settle(&mut desk);
    assert_eq!((on(&desk, "kept").iter().sum::<usize>(), free(&desk)), (1, 0));
    assert!(desk.node.state().stars.tenant_of(place).is_some());
}

#[test]
fn stars_that_leave_their_places_are_foretold_in_these() {
    let mut desk = with_room();
    put(&mut desk, "kept", places(3, 300, Hold::default()));
    put(&mut desk, "page", within(3, 300));
    assert_eq!(on(&desk, "page"), [1, 1, 1]);
    let mut spec = within(4, 300);
    spec.template.env.insert("V".to_owned(), "2".to_owned());
    let app = AppSpec { app: "page".parse().unwrap(), services: [("page".parse().unwrap(), spec)].into() };
    let said = desk.node.forecast(&app, None, wall(&desk));
    let [service] = &said.services[..] else { panic!("{said:?}") };
    let comes: Vec<u32> = service.comes.iter().map(|comes| comes.stars).collect();
    assert_eq!((comes, service.homeless), (vec![1, 1, 1], 1), "{said:?}");
    assert!(service.problem.as_ref().unwrap().contains("no place of reservation `kept`"), "{said:?}");
}

#[test]
fn without_a_spare_place_a_roll_out_goes_through_its_own() {
    let mut desk = with_room();
    put(&mut desk, "kept", places(3, 700, Hold::default()));
    put(&mut desk, "page", within(2, 500));
    put(&mut desk, "more", within(1, 500));
    let first: Vec<StarId> = desk.node.state().stars_of(&key("page")).map(|star| star.id).collect();
    let mut changed = within(2, 500);
    changed.template.args = vec!["new".to_owned()];
    put(&mut desk, "page", changed);
    let state = desk.node.state();
    let now: Vec<_> = state.stars_of(&key("page")).filter(|star| star.phase == StarPhase::Ready).collect();
    assert!(now.len() == 2 && now.iter().all(|star| !first.contains(&star.id)), "{now:?}");
    assert_eq!((free(&desk), kept(&desk).iter().sum::<u64>()), (0, 2_100));
    assert_eq!(desk.node.state().services[&key("page")].rollout, None);
}
