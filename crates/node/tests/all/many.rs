//! The promises that a node makes when there are others, one at a time. What happens when everything does at once is shown
//! by `cargo xtask sim cluster`, which found the need for several of these.

use std::time::Duration;

use model::{
    AppSpec, Bytes, Code, Duty, ExitCause, NodeFacts, NodeId, NodeRole, RequestId, Standing, StarId, StarPhase,
    VolumeMount, WallTime,
};
use node::roster::Health;
use node::{Effect, Event, LEASE, Node, NodeConfig, Request, RunningStar};
use state::{Command, Transition};

use crate::desk::{Desk, settle, web};

#[test]
fn only_who_leads_plans_and_it_plans_for_all() {
    let mut desk = Desk::new(6, false);
    assert_eq!(desk.proposed(), []);
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [2, 2, 2]);
    let started = desk.effects.iter().filter(|effect| matches!(effect, Effect::Start { .. })).count();
    assert_eq!(started, 2, "only its own");
    desk.tell(Event::Leads { leads: false });
    desk.write(Command::Scale { service: "web".parse().unwrap(), instances: 9, wall: WallTime(2) });
    assert_eq!(desk.proposed(), []);
}

/// Before any of it is written, what one service gets counts for the next.
#[test]
fn services_that_come_together_are_spread_over_all_machines() {
    let mut desk = Desk::new(0, false);
    desk.tell(Event::Leads { leads: true });
    let services = ["a", "b", "c"].map(|name| (name.parse().unwrap(), web(1, Vec::new())));
    let spec = AppSpec { app: "three".parse().unwrap(), services: services.into() };
    desk.write(Command::PutApp { spec, base: None, wall: WallTime(2) });
    desk.write_all();
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [1, 1, 1]);
    // Nothing of it is counted for good.
    desk.write(Command::RemoveApp { app: "three".parse().unwrap(), wall: WallTime(3) });
    desk.write_all();
    desk.write(Command::Scale { service: "web".parse().unwrap(), instances: 3, wall: WallTime(4) });
    desk.write_all();
    let web =
        |node| desk.node.state().stars_of(&"web".parse().unwrap()).filter(|star| star.node == NodeId(node)).count();
    assert_eq!([1, 2, 3].map(web), [1, 1, 1]);
}

#[test]
fn no_assignment_is_larger_than_what_can_be_written_at_once() {
    // The bound of `consensus`, which does not know this crate.
    const COMMAND_MAX: usize = 768 << 10;
    let mut desk = Desk::new(10_000, false);
    desk.tell(Event::Leads { leads: true });
    loop {
        let commands = desk.proposed();
        if commands.is_empty() {
            break;
        }
        for command in commands {
            let Command::Assign { stars, .. } = &command else { continue };
            let longest = "n".repeat(63).parse::<model::Name>().unwrap();
            let service = model::ServiceKey { namespace: longest.clone(), name: longest };
            let stars = stars.iter().map(|star| state::Assignment {
                service: service.clone(),
                revision: u64::MAX,
                ordinal: u32::MAX,
                node: NodeId(u64::MAX),
                port: Some(u16::MAX),
                ..star.clone()
            });
            let worst = Command::Assign { stars: stars.collect(), wall: WallTime(u64::MAX) };
            let bytes = rmp_serde::to_vec_named(&worst).unwrap().len();
            assert!(bytes < COMMAND_MAX, "{bytes} bytes");
            desk.write(command);
        }
    }
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()).iter().sum::<usize>(), 10_000);
}

#[test]
fn a_machine_is_given_up_when_its_lease_is_over_and_nobody_sees_it() {
    let mut desk = Desk::new(6, false);
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    desk.tell(Event::Seems { node: NodeId(3), alive: false });
    desk.wait(LEASE - Duration::from_millis(1));
    desk.tell(Event::Heard { node: NodeId(1) });
    assert!(!desk.proposed().iter().any(|command| matches!(command, Command::LoseNode { .. })));
    desk.wait(Duration::from_millis(1));
    desk.write_all();
    assert_eq!((desk.standing(3), desk.standing(1)), (Standing::Lost, Standing::Up));
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [3, 3, 0]);
    desk.tell(Event::Heard { node: NodeId(3) });
    desk.write_all();
    assert_eq!(desk.standing(3), Standing::Up);
}

#[test]
fn a_machine_that_no_leader_hears_from_says_so() {
    let (mut desk, told) = (Desk::new(1, false), LEASE + Duration::from_secs(3));
    let says = |desk: &mut Desk| {
        desk.tell(Event::Tick);
        desk.node.status_view().cut_off
    };
    desk.wait(told - Duration::from_millis(1));
    assert_eq!(says(&mut desk), None, "it has just begun, and an election takes as long");
    assert_eq!(desk.node.status_view().problem, None);
    desk.wait(Duration::from_millis(1));
    assert!(says(&mut desk).unwrap().starts_with("no leader has heard from this node for 8 s: "));
    desk.tell(Event::Leased { length: node::SINGLETON_LEASE });
    assert_eq!(says(&mut desk), None);
    desk.wait(told - Duration::from_millis(1));
    assert_eq!(says(&mut desk), None);
    desk.wait(Duration::from_secs(60));
    assert!(says(&mut desk).unwrap().contains(" for 67 s: "));
}

#[test]
fn a_machine_that_others_see_is_given_up_later_when_it_does_not_report() {
    let mut desk = Desk::new(0, false);
    desk.tell(Event::Seems { node: NodeId(3), alive: true });
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    for _ in 0..29 {
        desk.wait(Duration::from_secs(1));
        desk.tell(Event::Heard { node: NodeId(1) });
    }
    assert_eq!(desk.proposed(), []);
    desk.wait(Duration::from_secs(1));
    desk.write_all();
    assert_eq!((desk.standing(3), desk.standing(1)), (Standing::Lost, Standing::Up));
}

/// As after a restart of all machines, of which one stays off.
#[test]
fn a_machine_that_was_not_heard_of_since_the_start_is_shown_so_and_given_up_sooner() {
    let mut desk = Desk::new(6, false);
    let health = |desk: &Desk| desk.node.machine_views().iter().map(|view| view.health).collect::<Vec<_>>();
    assert_eq!(health(&desk), [Health::Unknown, Health::Alive, Health::Unknown]);
    assert_eq!(desk.node.own_place().map(|place| (place.nodes, place.alive)), Some((3, 1)));
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    desk.tell(Event::Heard { node: NodeId(1) });
    assert_eq!(health(&desk), [Health::Alive, Health::Alive, Health::Unknown]);
    for _ in 0..9 {
        desk.wait(Duration::from_secs(1));
        desk.tell(Event::Heard { node: NodeId(1) });
        desk.write_all();
    }
    assert_eq!((desk.standing(3), desk.on(3).len()), (Standing::Up, 2));
    desk.wait(Duration::from_secs(1));
    desk.write_all();
    assert_eq!((desk.standing(3), desk.on(3).len()), (Standing::Lost, 0));
    assert_eq!(health(&desk), [Health::Alive, Health::Alive, Health::Dead]);
}

/// Its join was broken off after it was let in.
#[test]
fn a_machine_that_was_let_in_and_never_came_gets_nothing_and_is_given_up_soon() {
    let mut desk = Desk::new(6, false);
    desk.tell(Event::Seems { node: NodeId(1), alive: true });
    desk.tell(Event::Seems { node: NodeId(3), alive: true });
    let (name, role) = ("d".parse().unwrap(), NodeRole::Controller);
    let facts = Box::new(NodeFacts { program: "0.1.0".to_owned(), ..NodeFacts::default() });
    let address = "10.0.0.4:7946".to_owned();
    desk.write(Command::AdmitNode { name, role, address: address.clone(), facts, wall: WallTime(2), ticket: None });
    let late = NodeId(desk.index);
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    assert_eq!([1, 2, 3, late.0].map(|node| desk.on(node).len()), [2, 2, 2, 0]);
    desk.wait(LEASE - Duration::from_millis(1));
    assert_eq!(desk.proposed(), []);
    let remove = |desk: &mut Desk, id: u64| {
        desk.tell(Event::Request { id: RequestId(id), request: Request::RemoveNode { node: late, force: false } });
        desk.effects.iter().any(|effect| matches!(effect, Effect::Reply { result: Err(problem), .. } if problem.message == "node `d` was not heard of yet"))
    };
    assert!(remove(&mut desk, 1));
    desk.wait(Duration::from_millis(1));
    desk.write_all();
    assert_eq!([1, 3, late.0].map(|node| desk.standing(node)), [Standing::Up, Standing::Up, Standing::Lost]);
    // It comes after all, and says what it is.
    desk.tell(Event::Heard { node: late });
    desk.write_all();
    let facts = Box::new(NodeFacts { cores: 2, ..NodeFacts::default() });
    desk.write(Command::DescribeNode { node: late, address, facts, wall: WallTime(3) });
    desk.write(Command::Scale { service: "web".parse().unwrap(), instances: 8, wall: WallTime(3) });
    desk.write_all();
    assert_eq!((desk.standing(late.0), desk.on(late.0).len()), (Standing::Up, 2));
}

#[test]
fn one_that_was_given_up_and_comes_to_lead_welcomes_itself() {
    let mut desk = Desk::new(0, false);
    desk.write(Command::LoseNode { node: NodeId(2), wall: WallTime(2) });
    assert_eq!(desk.proposed(), []);
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    assert_eq!(desk.standing(2), Standing::Up);
}

#[test]
fn stars_bound_to_a_machine_start_when_membership_sees_it_again() {
    let mut desk = Desk::new(2, true);
    desk.tell(Event::Seems { node: NodeId(3), alive: false });
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [0, 0, 0]);
    desk.tell(Event::Seems { node: NodeId(3), alive: true });
    desk.write_all();
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [0, 0, 2]);
}

#[test]
fn what_ended_is_written_before_what_takes_its_place() {
    let mut desk = Desk::new(1, false);
    desk.tell(Event::Seems { node: NodeId(1), alive: false });
    desk.tell(Event::Seems { node: NodeId(3), alive: false });
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    let [star] = desk.on(2)[..] else { panic!("{:?}", desk.node.state().stars) };
    desk.tell(Event::StarStarted { star, pid: 7, start_time: 7 });
    // A batch is being written: what happens meanwhile waits, and the place with it.
    let [started] = &desk.proposed()[..] else { panic!() };
    desk.tell(Event::StarExited { star, cause: ExitCause::Code(1) });
    assert_eq!(desk.proposed(), []);
    desk.write(started.clone());
    let kinds: Vec<&str> = desk.proposed().iter().map(kind).collect();
    assert_eq!(kinds.first(), Some(&"ended"), "{kinds:?}");
}

fn kind(command: &Command) -> &'static str {
    match command {
        Command::Transitions { changes, .. } if changes.iter().any(|change| change.phase == StarPhase::Ended) => {
            "ended"
        }
        Command::Assign { .. } => "assign",
        _ => "other",
    }
}

#[test]
fn a_star_of_another_machine_that_is_too_much_is_retired_by_the_log() {
    let mut desk = Desk::new(6, false);
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    desk.write(Command::Scale { service: "web".parse().unwrap(), instances: 0, wall: WallTime(2) });
    let retired = desk.proposed().into_iter().find_map(|command| match command {
        Command::Retire { stars, .. } => Some(stars),
        _ => None,
    });
    assert_eq!(retired.map(|stars| stars.len()), Some(4), "its own two go at once");
}

#[test]
fn a_star_whose_machine_was_given_up_is_ended_when_the_machine_hears_of_it() {
    let mut desk = Desk::new(3, false);
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    desk.tell(Event::Leads { leads: false });
    let [star] = desk.on(2)[..] else { panic!("{:?}", desk.node.state().stars) };
    desk.tell(Event::StarStarted { star, pid: 7, start_time: 7 });
    desk.effects.clear();
    desk.write(Command::LoseNode { node: NodeId(2), wall: WallTime(2) });
    assert_eq!(desk.kills(), [star]);
    // And a star that another node decided to retire goes as if it had been decided here.
    let mut desk = Desk::new(3, false);
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    let [star] = desk.on(2)[..] else { panic!() };
    desk.tell(Event::StarStarted { star, pid: 7, start_time: 7 });
    desk.effects.clear();
    let ready = Transition { star, phase: StarPhase::Ready, process: None, exit: None };
    desk.write(Command::Transitions { changes: vec![ready], wall: WallTime(2) });
    desk.write(Command::Retire { stars: vec![star], wall: WallTime(2) });
    assert!(desk.effects.iter().any(|effect| matches!(effect, Effect::Signal { star: told, .. } if *told == star)));
}

#[test]
fn a_machine_is_shown_as_alive_suspect_dead_and_left_and_only_a_dead_one_is_taken_out_by_others() {
    let mut desk = Desk::new(6, false);
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    let ask = |desk: &mut Desk, id: u64, force: bool| {
        let request = Request::RemoveNode { node: NodeId(3), force };
        desk.tell(Event::Request { id: RequestId(id), request });
        desk.write_all();
        let answer = |effect: &Effect| match effect {
            Effect::Reply { id: of, result } if *of == RequestId(id) => Some(result.clone()),
            _ => None,
        };
        desk.effects.iter().find_map(answer).expect("an answer")
    };
    let health = |desk: &Desk| {
        let views = desk.node.machine_views();
        views.iter().find(|view| view.id == NodeId(3)).map(|view| (view.health, view.stars)).unwrap()
    };
    assert_eq!(health(&desk), (Health::Unknown, 2));
    desk.tell(Event::Seems { node: NodeId(3), alive: true });
    desk.tell(Event::Heard { node: NodeId(1) });
    assert_eq!(health(&desk), (Health::Alive, 2));
    let refused = ask(&mut desk, 1, false).unwrap_err();
    assert!(refused.message.contains("`c` is alive"), "{refused}");
    desk.tell(Event::Seems { node: NodeId(3), alive: false });
    assert_eq!(health(&desk), (Health::Suspect, 2));
    assert!(ask(&mut desk, 2, false).is_err());
    desk.wait(LEASE);
    desk.tell(Event::Heard { node: NodeId(1) });
    desk.write_all();
    assert_eq!(health(&desk), (Health::Dead, 0));
    ask(&mut desk, 3, false).unwrap();
    assert_eq!(health(&desk), (Health::Left, 0));
    let place = desk.node.own_place().unwrap();
    assert_eq!((place.nodes, place.alive, place.name.as_str()), (2, 2, "b"));
    assert_eq!(ask(&mut desk, 4, true).unwrap_err().code, Code::NotFound, "it left already");
}

#[test]
fn what_lies_on_a_machine_that_is_gone_is_not_given_up_unasked() {
    let mut desk = Desk::new(1, true);
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    assert_eq!(desk.on(3).len(), 1);
    desk.write(Command::LoseNode { node: NodeId(3), wall: WallTime(2) });
    let ask = |desk: &mut Desk, id: u64, force: bool| {
        desk.effects.clear();
        desk.tell(Event::Request { id: RequestId(id), request: Request::RemoveNode { node: NodeId(3), force } });
        desk.write_all();
        let answer = desk.effects.iter().find_map(|effect| match effect {
            Effect::Reply { id: of, result } if *of == RequestId(id) => Some(result.clone()),
            _ => None,
        });
        answer.expect("an answer")
    };
    let refused = ask(&mut desk, 1, false).unwrap_err();
    assert_eq!(refused.code, Code::Conflict);
    assert_eq!(refused.message, "volume `data` of `web` lies on node `c` and nowhere else: it is given up with it");
    assert!(refused.help.unwrap().contains("rads c remove c --force"));
    assert_eq!((desk.standing(3), desk.on(1).len() + desk.on(2).len()), (Standing::Lost, 0));
    ask(&mut desk, 2, true).unwrap();
    assert_eq!((desk.standing(3), desk.on(1).len() + desk.on(2).len()), (Standing::Left, 1));
}

#[test]
fn a_service_says_which_volume_keeps_it_and_what_to_do() {
    let mut desk = Desk::new(1, true);
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    let web = "web".parse().unwrap();
    let nowhere = |desk: &Desk| desk.node.service_view(&web).unwrap().nowhere;
    let said = |desk: &Desk, leads: bool| {
        let view = desk.node.service_view(&web).unwrap();
        let nowhere = view.nowhere.unwrap_or_else(|| panic!("leads: {leads}"));
        assert_eq!((view.problem.as_ref(), nowhere.code), (Some(&nowhere.message), Code::NoCapacity));
        (nowhere.message, nowhere.help.unwrap())
    };
    let [star] = desk.on(3)[..] else { panic!() };
    let ready = Transition { star, phase: StarPhase::Ready, process: Some((7, 7)), exit: None };
    desk.write(Command::Transitions { changes: vec![ready], wall: WallTime(2) });
    // What runs is no problem, wherever no more would come.
    desk.write(Command::SetDuty { node: NodeId(3), duty: Duty::Draining, wall: WallTime(2) });
    desk.write_all();
    assert_eq!((nowhere(&desk), desk.on(3).len()), (None, 1));
    desk.write(Command::Scale { service: web.clone(), instances: 2, wall: WallTime(2) });
    desk.write_all();
    let (message, help) = said(&desk, true);
    assert_eq!(message, "volume `data` of `web` lies on node `c` and nowhere else, which is drained");
    assert!(help.contains("rads c uncordon c"), "{help}");
    desk.write(Command::SetDuty { node: NodeId(3), duty: Duty::Takes, wall: WallTime(2) });
    desk.write_all();
    assert_eq!((nowhere(&desk), desk.on(3).len()), (None, 2));
    desk.write(Command::LoseNode { node: NodeId(3), wall: WallTime(2) });
    desk.write_all();
    // Any machine says it, not only the one that leads.
    for leads in [true, false] {
        desk.tell(Event::Leads { leads });
        let (message, help) = said(&desk, leads);
        assert_eq!(message, "volume `data` of `web` lies on node `c` and nowhere else, which is dead");
        assert!(help.contains("switch `c` on again") && help.contains("rads c remove c --force"), "{help}");
    }
    // Nothing of a stopped one is wanted.
    desk.write(Command::Stop { service: web.clone(), wall: WallTime(2) });
    assert_eq!(nowhere(&desk), None);
}

#[test]
fn what_has_its_volume_on_a_drained_machine_is_not_ended_for_nothing() {
    let check = |singleton: bool| {
        let mut desk = Desk::new(0, true);
        let mut spec =
            web(1, vec![VolumeMount { volume: "data".parse().unwrap(), path: "/data".to_owned(), size: None }]);
        spec.template.singleton = singleton;
        let app = AppSpec { app: "shop".parse().unwrap(), services: [("web".parse().unwrap(), spec)].into() };
        desk.write(Command::PutApp { spec: app, base: None, wall: WallTime(1) });
        desk.tell(Event::Leads { leads: true });
        desk.write_all();
        // One that is not ready would be the first to go.
        let [star] = desk.on(3)[..] else { panic!() };
        desk.write(Command::SetDuty { node: NodeId(3), duty: Duty::Draining, wall: WallTime(2) });
        desk.write_all();
        let record = &desk.node.state().stars[&star];
        assert_eq!((record.phase, record.leaving), (StarPhase::Assigned, false), "singleton: {singleton}");
    };
    check(true);
    check(false);
}

#[test]
fn one_that_is_there_is_taken_out_by_force() {
    let mut desk = Desk::new(0, false);
    desk.tell(Event::Leads { leads: true });
    desk.tell(Event::Request { id: RequestId(1), request: Request::RemoveNode { node: NodeId(3), force: true } });
    desk.write_all();
    assert_eq!(desk.standing(3), Standing::Left);
}

#[test]
fn a_cordoned_machine_keeps_what_it_has_and_gets_more_when_it_takes_stars_again() {
    let mut desk = Desk::new(6, false);
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    let duty = |desk: &mut Desk, id: u64, duty: Duty| {
        desk.tell(Event::Request { id: RequestId(id), request: Request::SetDuty { node: NodeId(3), duty } });
        desk.write_all();
        let views = desk.node.machine_views();
        assert_eq!(views.iter().find(|view| view.id == NodeId(3)).unwrap().duty, duty);
    };
    let scale = |desk: &mut Desk, instances: u32| {
        desk.write(Command::Scale { service: "web".parse().unwrap(), instances, wall: WallTime(2) });
        desk.write_all();
    };
    duty(&mut desk, 1, Duty::Cordoned);
    scale(&mut desk, 10);
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [4, 4, 2]);
    duty(&mut desk, 2, Duty::Takes);
    scale(&mut desk, 12);
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [4, 4, 4]);
}

#[test]
fn a_star_that_is_newer_than_the_log_here_is_left_alone_until_its_order_comes() {
    // What the agent before this one knew of a star: it runs, and was ordered by a command that has not come here yet.
    let ordered = |index: u64, star: StarId| {
        let revision = 4;
        let service = "web".parse().unwrap();
        let assignment =
            state::Assignment { star, service, revision, ordinal: 1, node: NodeId(2), port: None, place: None };
        (index, Command::Assign { stars: vec![assignment], wall: WallTime(1) })
    };
    let running = |star: StarId, generation: u64| node::RunningStar { star, generation, pid: 70, start_time: 7 };
    let (mine, nobodys) = (StarId(11), StarId(12));
    let mut desk = Desk::new(1, false);
    let index = desk.index;
    let there = vec![running(mine, index + 1), running(nobodys, index + 1), running(StarId(13), index)];
    desk.tell(Event::NurseryDown);
    desk.tell(Event::NurseryUp { running: there, ended: Vec::new() });
    // Only the one that this log should know of, and does not, is ended.
    assert_eq!(desk.kills(), [StarId(13)]);
    let (index, command) = ordered(index + 1, mine);
    desk.index = index - 1;
    desk.write(command);
    // It is taken over, not started a second time; who was not ordered after all is ended.
    assert!(!desk.effects.iter().any(|effect| matches!(effect, Effect::Start { .. })), "{:?}", desk.effects);
    assert!(desk.effects.contains(&Effect::Kill { star: nobodys }), "{:?}", desk.effects);
    desk.write_all();
    assert_eq!(desk.node.state().stars[&mine].process, Some((70, 7)));

    // One that ended before its order came counts as ended once it has.
    let mut desk = Desk::new(1, false);
    let index = desk.index;
    desk.tell(Event::NurseryDown);
    desk.tell(Event::NurseryUp { running: vec![running(mine, index + 1)], ended: Vec::new() });
    desk.tell(Event::StarExited { star: mine, cause: ExitCause::Code(3) });
    desk.write(ordered(index + 1, mine).1);
    desk.write_all();
    let exit = desk.node.state().stars[&mine].exit.clone();
    assert_eq!(exit.map(|exit| exit.cause), Some(ExitCause::Code(3)));
}

/// This machine is given a singleton as number 11, which it may not start yet.
fn given_a_singleton(desk: &mut Desk) {
    let mut spec = web(1, Vec::new());
    spec.template.singleton = true;
    let services = [("web".parse().unwrap(), spec)].into();
    let app = AppSpec { app: "shop".parse().unwrap(), services };
    desk.write(Command::PutApp { spec: app, base: None, wall: WallTime(1) });
    let assignment = state::Assignment {
        star: StarId(11),
        service: "web".parse().unwrap(),
        revision: desk.index,
        ordinal: 1,
        node: NodeId(2),
        port: None,
        place: None,
    };
    desk.effects.clear();
    desk.write(Command::Assign { stars: vec![assignment], wall: WallTime(1) });
}

/// As 3861 of the simulator.
#[test]
fn what_was_given_and_taken_while_a_machine_was_away_holds_no_place_there() {
    let mut desk = Desk::new(1, false);
    given_a_singleton(&mut desk);
    desk.write(Command::LoseNode { node: NodeId(2), wall: WallTime(2) });
    assert_eq!(desk.kills(), [], "no nursery was told of it");
    desk.write(Command::LoseNode { node: NodeId(1), wall: WallTime(2) });
    desk.write(Command::LoseNode { node: NodeId(3), wall: WallTime(2) });
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    assert_eq!(desk.on(2).len(), 1, "{:?}", desk.node.state().stars);
}

#[test]
fn a_singleton_starts_only_where_it_runs_nowhere_else_for_sure() {
    let mut desk = Desk::new(1, false);
    given_a_singleton(&mut desk);
    let started = |desk: &Desk| desk.effects.iter().any(|effect| matches!(effect, Effect::Start { .. }));
    // Nobody has said that this machine is not given up.
    assert!(!started(&desk), "{:?}", desk.effects);
    desk.tell(Event::Leased { length: Duration::from_secs(3) });
    let lease = |effect: &Effect| match effect {
        Effect::Lease { stars, length } => Some((stars.clone(), *length)),
        _ => None,
    };
    let leases: Vec<_> = desk.effects.iter().filter_map(lease).collect();
    assert_eq!(leases.last(), Some(&(vec![StarId(11)], Duration::from_secs(3))));
    let lease_at = desk.effects.iter().position(|effect| lease(effect).is_some());
    let start_at = desk.effects.iter().position(|effect| matches!(effect, Effect::Start { .. }));
    assert!(lease_at < start_at && start_at.is_some(), "{:?}", desk.effects);
    // Each time it is said again the nursery hears it; one that has just begun at once, with what is left.
    desk.effects.clear();
    desk.wait(Duration::from_secs(1));
    let running = node::RunningStar { star: StarId(11), generation: desk.index, pid: 70, start_time: 7 };
    desk.tell(Event::NurseryUp { running: vec![running], ended: Vec::new() });
    let leases: Vec<_> = desk.effects.iter().filter_map(lease).collect();
    assert_eq!(leases, [(vec![StarId(11)], Duration::from_secs(2))]);
}

/// As 4450 of the simulator: the word of a machine crosses with what is written of its end.
#[test]
fn a_machine_that_is_being_given_up_may_not_run_its_singletons_on() {
    let mut desk = Desk::new(0, false);
    assert!(!desk.node.leases(NodeId(3)), "another leads");
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    assert!(desk.node.leases(NodeId(3)));
    desk.tell(Event::Seems { node: NodeId(3), alive: false });
    desk.wait(LEASE);
    let lost = desk.proposed();
    assert!(lost.iter().any(|command| matches!(command, Command::LoseNode { node: NodeId(3), .. })), "{lost:?}");
    desk.tell(Event::Heard { node: NodeId(3) });
    assert!(!desk.node.leases(NodeId(3)), "it is on its way to be written");
    lost.into_iter().for_each(|command| desk.write(command));
    desk.tell(Event::Heard { node: NodeId(3) });
    assert!(!desk.node.leases(NodeId(3)), "it is written");
    desk.write_all();
    assert!(desk.node.leases(NodeId(3)), "it was welcomed back");
}

#[test]
fn a_star_of_a_service_that_is_gone_goes_though_the_agent_was_replaced_before_it_was_told() {
    let mut desk = Desk::new(3, false);
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    let [star] = desk.on(2)[..] else { panic!() };
    desk.tell(Event::StarStarted { star, pid: 7, start_time: 7 });
    desk.write_all();
    let mut state = desk.node.state().clone();
    let removed = Command::RemoveApp { app: "shop".parse().unwrap(), wall: WallTime(5) };
    desk.index += 1;
    state::apply(&mut state, desk.index, &removed);
    let generation = state.stars[&star].generation;
    let config = NodeConfig { node: NodeId(2), seed: 1, rootless: false, memory: Bytes(0), cores: 2, cpus: None };
    let mut next = Desk { node: Node::new(config, state), now: desk.now, index: desk.index, effects: Vec::new() };
    let running = vec![RunningStar { star, generation, pid: 7, start_time: 7 }];
    next.tell(Event::NurseryUp { running, ended: Vec::new() });
    // Who leads says so now.
    next.write(Command::Retire { stars: vec![star], wall: WallTime(6) });
    let signals = |effect: &Effect| matches!(effect, Effect::Signal { star: told, .. } if *told == star);
    assert!(next.effects.iter().any(signals), "{:?}", next.effects);
}

#[test]
fn a_star_of_another_machine_that_is_restarted_by_its_name_has_it_again() {
    let mut desk = Desk::new(3, false);
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    let [star] = desk.on(3)[..] else { panic!() };
    let ordinal = desk.node.state().stars[&star].ordinal;
    desk.write(Command::RestartStar { service: "web".parse().unwrap(), ordinal, wall: WallTime(2) });
    for phase in [StarPhase::Draining, StarPhase::Stopping] {
        let change = Transition { star, phase, process: Some((7, 7)), exit: None };
        desk.write(Command::Transitions { changes: vec![change], wall: WallTime(3) });
        assert_eq!(desk.proposed(), [], "{phase:?}: its place is taken, and nothing else is missing");
    }
    let exit = Some(model::Exit { cause: ExitCause::Code(0), asked: true });
    let change = Transition { star, phase: StarPhase::Ended, process: None, exit };
    desk.write(Command::Transitions { changes: vec![change], wall: WallTime(4) });
    let [Command::Assign { stars, .. }] = &desk.proposed()[..] else { panic!() };
    assert_eq!(stars.iter().map(|star| star.ordinal).collect::<Vec<_>>(), [ordinal]);
}

#[test]
fn a_part_that_goes_on_another_machine_comes_again_as_itself() {
    let mut desk = Desk::new(0, false);
    desk.tell(Event::Leads { leads: true });
    let job = model::Job {
        parallelism: 3,
        retries: 0,
        inputs: Vec::new(),
        schedule: None,
        after: Vec::new(),
        keep: 1,
        keep_ms: None,
    };
    let mut sum = web(3, Vec::new());
    sum.job = Some(job);
    sum.template.restart = model::RestartPolicy::OnFailure;
    let spec = AppSpec { app: "sums".parse().unwrap(), services: [("sum".parse().unwrap(), sum)].into() };
    desk.write(Command::PutApp { spec, base: None, wall: WallTime(2) });
    desk.write_all();
    let [star] = desk.on(3)[..] else { panic!() };
    let ordinal = desk.node.state().stars[&star].ordinal;
    // Its machine is drained, or it has run for as long as it may.
    desk.write(Command::SetDuty { node: NodeId(3), duty: model::Duty::Draining, wall: WallTime(3) });
    desk.write_all();
    assert!(desk.node.state().stars[&star].phase >= StarPhase::Draining, "none comes before it goes");
    assert_eq!(desk.node.state().stars_of(&"sum".parse().unwrap()).count(), 3);
    let exit = Some(model::Exit { cause: ExitCause::Signal(15), asked: true });
    let change = Transition { star, phase: StarPhase::Ended, process: None, exit };
    desk.write(Command::Transitions { changes: vec![change], wall: WallTime(4) });
    let [Command::Assign { stars, .. }] = &desk.proposed()[..] else { panic!() };
    assert_eq!(stars.iter().map(|star| star.ordinal).collect::<Vec<_>>(), [ordinal]);
}

/// Its agent said so, lost power before it heard of it, and began anew: the star was started once more meanwhile.
#[test]
fn a_star_that_was_ended_before_its_agent_began_goes_when_that_is_heard() {
    let mut desk = Desk::new(3, false);
    desk.tell(Event::Leads { leads: true });
    settle(&mut desk);
    let [star] = desk.on(2)[..] else { panic!("one on each machine, not {:?}", desk.on(2)) };
    let stopping = Transition { star, phase: StarPhase::Stopping, process: None, exit: None };
    desk.write(Command::Transitions { changes: vec![stopping], wall: WallTime(1_000_000) });
    settle(&mut desk);
    assert_eq!(desk.node.state().stars[&star].phase, StarPhase::Ended);
    assert!(desk.on(2).len() == 1 && desk.on(2) != [star], "another has its place");
}
