//! Where stars go when there are several machines: what a service says of its places, and who has the room.

use std::time::Duration;

use model::{
    AppSpec, Bytes, Code, Duty, Exit, ExitCause, NamespaceChange, NodeFacts, NodeId, Overcommit, QuotaChange,
    RequestId, Reserve, ServiceSpec, StarId, StarPhase, WallTime,
};
use node::{Effect, Event, Request};
use state::{Command, Transition};

use crate::desk::{Desk, settle, web, with_room};

fn stars_of(desk: &Desk, service: &str) -> usize {
    let service = service.parse().unwrap();
    let stars = desk.node.state().stars_of(&service);
    stars.filter(|star| star.phase != StarPhase::Ended).count()
}

/// `web` as it is asked for, with this placement, whoever asks.
fn placed(desk: &mut Desk, stars: u32, placement: &str) {
    let spec = ServiceSpec { placement: serde_json::from_str(placement).unwrap(), ..web(stars, Vec::new()) };
    let services = [("web".parse().unwrap(), spec)].into();
    let app = AppSpec { app: "shop".parse().unwrap(), services };
    desk.write(Command::PutApp { spec: app, base: None, wall: WallTime(2) });
    settle(desk);
}

fn with_label(desk: &mut Desk, node: u64, label: Option<(&str, &str)>) {
    let labels = label.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let facts = Box::new(NodeFacts { cores: 2, labels, ..NodeFacts::default() });
    desk.write(Command::DescribeNode {
        node: NodeId(node),
        address: "10.0.0.1:7946".to_owned(),
        facts,
        wall: WallTime(2),
    });
    settle(desk);
}

#[test]
fn stars_go_where_their_service_requires_and_move_when_a_machine_is_not_so_any_more() {
    let mut desk = Desk::new(0, false);
    desk.tell(Event::Leads { leads: true });
    for node in [1, 3] {
        with_label(&mut desk, node, Some(("disk", "ssd")));
    }
    placed(&mut desk, 4, r#"{"require":["disk = ssd"]}"#);
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [2, 0, 2]);
    let stays = desk.on(3);
    with_label(&mut desk, 1, None);
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [0, 0, 4]);
    assert!(stays.iter().all(|star| desk.on(3).contains(star)), "who is where it should be stays");
    // Where it would have to go nobody is: it goes on serving, and what is missing is told.
    with_label(&mut desk, 3, None);
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [0, 0, 4]);
    let view = desk.node.service_view(&"web".parse().unwrap()).unwrap();
    assert_eq!(view.nowhere.unwrap().message, "no node takes a star of `web`: `disk = ssd` does not hold on 3 nodes");
}

#[test]
fn new_stars_are_spread_among_themselves_whatever_the_old_ones_do() {
    let mut desk = Desk::new(0, false);
    desk.tell(Event::Leads { leads: true });
    for (node, row) in [(1, "x"), (2, "x"), (3, "y")] {
        with_label(&mut desk, node, Some(("row", row)));
    }
    let mut put = |stars: u32, placement: &str, version: u32| {
        let mut spec = ServiceSpec { placement: serde_json::from_str(placement).unwrap(), ..web(stars, Vec::new()) };
        spec.template.env.insert("V".to_owned(), version.to_string());
        let app = AppSpec { app: "shop".parse().unwrap(), services: [("web".parse().unwrap(), spec)].into() };
        desk.write(Command::PutApp { spec: app, base: None, wall: WallTime(1_000_000) });
        settle(&mut desk);
        [1, 2, 3].map(|node| desk.on(node).len())
    };
    for version in 0..5 {
        assert_eq!(put(3, "{}", version), [1, 1, 1], "version {version}");
    }
    for version in 5..10 {
        let [a, b, c] = put(4, r#"{"spread":["row"],"max_skew":1}"#, version);
        assert_eq!((a + b, c), (2, 2), "version {version}: {a} {b} {c}");
    }
    // Machines may have no more than so many, the old ones too.
    for version in 10..13 {
        assert_eq!(put(3, r#"{"per_node":2}"#, version), [1, 1, 1], "version {version}");
    }
}

/// What is told of a service by who leads, and by who follows.
fn told(desk: &mut Desk) -> [(bool, Option<String>); 2] {
    [true, false].map(|leads| {
        desk.tell(Event::Leads { leads });
        let view = desk.node.service_view(&"web".parse().unwrap()).unwrap();
        let nowhere = view.nowhere.map(|problem| problem.message);
        assert_eq!(view.problem, nowhere, "leads: {leads}");
        (view.changing, nowhere)
    })
}

#[test]
fn every_machine_says_that_none_takes_a_star_and_what_closed_ones_have_to_do_with_it() {
    let mut desk = Desk::new(0, false);
    desk.tell(Event::Leads { leads: true });
    placed(&mut desk, 2, r#"{"require":["node = b"]}"#);
    assert_eq!(told(&mut desk), [(false, None), (false, None)]);
    let set = |desk: &mut Desk, node: u64, duty: Duty| {
        desk.write(Command::SetDuty { node: NodeId(node), duty, wall: WallTime(2) });
        settle(desk);
    };
    // What it has stays and is enough.
    set(&mut desk, 2, Duty::Cordoned);
    assert_eq!(told(&mut desk), [(false, None), (false, None)]);
    desk.tell(Event::Leads { leads: true });
    desk.write(Command::Scale { service: "web".parse().unwrap(), instances: 3, wall: WallTime(3) });
    settle(&mut desk);
    let cordoned = "no node takes a star of `web`: `node = b` does not hold on 2 nodes; 1 node is cordoned";
    assert_eq!(told(&mut desk), [(true, Some(cordoned.to_owned())), (true, Some(cordoned.to_owned()))]);
    desk.tell(Event::Leads { leads: true });
    set(&mut desk, 2, Duty::Draining);
    let drained = "no node takes a star of `web`: `node = b` does not hold on 2 nodes; 1 node is drained";
    assert_eq!(told(&mut desk), [(true, Some(drained.to_owned())), (true, Some(drained.to_owned()))]);
    desk.tell(Event::Leads { leads: true });
    desk.write(Command::Scale { service: "web".parse().unwrap(), instances: 2, wall: WallTime(3) });
    settle(&mut desk);
    assert_eq!(told(&mut desk)[1].1.as_deref(), Some(drained), "two have to go, and have no place");
    desk.tell(Event::Leads { leads: true });
    set(&mut desk, 2, Duty::Takes);
    assert_eq!(told(&mut desk), [(false, None), (false, None)]);
}

#[test]
fn a_service_changes_until_no_star_is_where_it_cannot_stay() {
    let mut desk = Desk::new(0, false);
    desk.tell(Event::Leads { leads: true });
    let key = "web".parse().unwrap();
    let put = |desk: &mut Desk, placement: &str| {
        let spec = ServiceSpec { placement: serde_json::from_str(placement).unwrap(), ..web(2, Vec::new()) };
        let services = [("web".parse().unwrap(), spec)].into();
        desk.write(Command::PutApp {
            spec: AppSpec { app: "shop".parse().unwrap(), services },
            base: None,
            wall: WallTime(2),
        });
    };
    put(&mut desk, r#"{"require":["node = b"]}"#);
    settle(&mut desk);
    assert!(!desk.node.service_view(&key).unwrap().changing);
    put(&mut desk, r#"{"require":["node = c"]}"#);
    let view = desk.node.service_view(&key).unwrap();
    assert!(view.changing && view.ready == 2, "its stars are on their way before the first of them is planned");
    settle(&mut desk);
    assert!(!desk.node.service_view(&key).unwrap().changing);
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [0, 0, 2]);
}

#[test]
fn a_placement_no_machine_has_is_refused_and_one_that_is_full_already_is_not() {
    let mut desk = Desk::new(0, false);
    desk.tell(Event::Leads { leads: true });
    let ask = |desk: &mut Desk, id: u64, placement: &str| {
        let spec = ServiceSpec { placement: serde_json::from_str(placement).unwrap(), ..web(3, Vec::new()) };
        let spec = AppSpec { app: "shop".parse().unwrap(), services: [("web".parse().unwrap(), spec)].into() };
        desk.effects.clear();
        desk.tell(Event::Request { id: RequestId(id), request: Request::PutApp { spec, base: None } });
        settle(desk);
        let reply = desk.effects.iter().find_map(|effect| match effect {
            Effect::Reply { id: of, result } if *of == RequestId(id) => Some(result.clone()),
            _ => None,
        });
        reply.expect("an answer")
    };
    let refused = ask(&mut desk, 1, r#"{"require":["region = eu"]}"#).unwrap_err();
    assert_eq!(refused.message, "no node takes a star of `web`: `region = eu` does not hold on 3 nodes");
    ask(&mut desk, 2, r#"{"per_node":1}"#).unwrap();
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [1, 1, 1]);
    // Its own stars are in nobody's way but their own.
    ask(&mut desk, 3, r#"{"per_node":1,"prefer":[{"that":"node = a","weight":1}]}"#).unwrap();
    desk.write(Command::SetDuty { node: NodeId(3), duty: Duty::Cordoned, wall: WallTime(2) });
    settle(&mut desk);
    let refused = ask(&mut desk, 4, r#"{"require":["node = c"]}"#).unwrap_err();
    assert_eq!(
        refused.message,
        "no node takes a star of `web`: `node = c` does not hold on 2 nodes; 1 node is cordoned"
    );
    assert_eq!(refused.help.as_deref(), Some("`rads c uncordon c` lets stars come to it"));
    let refused = ask(&mut desk, 5, r#"{"require":["zoen = a"]}"#).unwrap_err();
    assert!(refused.help.unwrap().starts_with("no node has a label `zoen`: "));
}

#[test]
fn each_machine_says_what_keeps_a_star_off_it_and_one_that_it_comes_there() {
    let mut desk = Desk::new(0, false);
    desk.tell(Event::Leads { leads: true });
    with_label(&mut desk, 1, Some(("disk", "ssd")));
    with_label(&mut desk, 2, Some(("disk", "ssd")));
    placed(&mut desk, 1, r#"{"require":["disk = ssd"],"per_node":1,"prefer":[{"that":"node = b","weight":10}]}"#);
    desk.write(Command::SetDuty { node: NodeId(3), duty: Duty::Cordoned, wall: WallTime(2) });
    settle(&mut desk);
    let view = desk.node.explain(&"web".parse().unwrap()).unwrap();
    let told: Vec<_> = view.nodes.iter().map(|node| (node.here.len(), node.next, node.reasons.join("; "))).collect();
    let full = "it has a star of the service, and `per_node` is 1".to_owned();
    let away = "it is cordoned: `rads c uncordon c` lets stars come; `disk = ssd` does not hold".to_owned();
    assert_eq!(told, [(0, true, String::new()), (1, false, full), (0, false, away)]);
    assert_eq!(view.nodes[1].preferred, ["node = b (10)"]);
    assert_eq!(desk.node.explain(&"other".parse().unwrap()), None);
}

/// An app of one service, each of whose stars is to have so much kept for it.
fn keeping(app: &str, stars: u32, megabytes: u64) -> Command {
    let mut spec = web(stars, Vec::new());
    spec.template.reserve = Reserve { memory: Bytes::mib(megabytes), ..Reserve::default() };
    let services = [("of-".to_owned() + app).parse().unwrap()].map(|name| (name, spec.clone())).into();
    Command::PutApp { spec: AppSpec { app: app.parse().unwrap(), services }, base: None, wall: WallTime(1_000_000) }
}

#[test]
fn services_planned_at_once_do_not_ask_for_one_room() {
    let mut desk = with_room();
    desk.write(keeping("a", 3, 600));
    // Not written yet; what it will keep counts.
    let first = desk.proposed();
    desk.write(keeping("b", 3, 600));
    assert_eq!(desk.proposed(), [], "there is no room for it, and nothing is proposed");
    first.into_iter().for_each(|command| desk.write(command));
    desk.write_all();
    assert_eq!((stars_of(&desk, "of-a"), stars_of(&desk, "of-b")), (3, 0));
    let view = desk.node.service_view(&"of-b".parse().unwrap()).unwrap();
    let expected = "no node can hold a star of `of-b` (needs 600 MiB of memory, largest free is 400 MiB)";
    assert_eq!(view.problem.as_deref(), Some(expected));
}

#[test]
fn stars_that_wait_for_room_come_when_machines_are_overcommitted() {
    let mut desk = with_room();
    desk.write(keeping("a", 5, 600));
    desk.write_all();
    assert_eq!(stars_of(&desk, "of-a"), 3);
    let overcommit = |node: Option<u64>, memory_percent: u32| Command::SetOvercommit {
        node: node.map(NodeId),
        overcommit: Some(Overcommit { cpu_percent: 100, memory_percent }),
        wall: WallTime(1),
    };
    desk.write(overcommit(Some(2), 120));
    desk.write_all();
    assert_eq!(stars_of(&desk, "of-a"), 4);
    desk.write(overcommit(None, 200));
    desk.write_all();
    assert_eq!(stars_of(&desk, "of-a"), 5);
    let view = desk.node.resources_view();
    let free: Vec<u64> = view.nodes.iter().map(|node| node.pool.memory.free >> 20).collect();
    let kept: Vec<u64> = view.nodes.iter().map(|node| node.pool.memory.kept >> 20).collect();
    assert_eq!(free.iter().zip(&kept).map(|(free, kept)| free + kept).collect::<Vec<_>>(), [2_000, 1_200, 2_000]);
    // Nothing is taken from stars that are there.
    desk.write(overcommit(None, 100));
    desk.write_all();
    assert_eq!(stars_of(&desk, "of-a"), 5);
}

#[test]
fn a_star_that_fails_on_one_machine_again_is_tried_on_others() {
    let mut desk = with_room();
    desk.write(keeping("a", 1, 600));
    settle(&mut desk);
    let service: model::ServiceKey = "of-a".parse().unwrap();
    let there = |desk: &Desk| {
        let mut stars = desk.node.state().stars_of(&service).filter(|star| star.phase != StarPhase::Ended);
        stars.next().map(|star| (star.id, star.node))
    };
    let fails = |desk: &mut Desk| {
        let (star, node) = there(desk).unwrap();
        let exit = Some(Exit { cause: ExitCause::Code(1), asked: false });
        match node == desk.node.id() {
            true => desk.tell(Event::StarExited { star, cause: ExitCause::Code(1) }),
            false => {
                let change = Transition { star, phase: StarPhase::Ended, process: None, exit };
                desk.write(Command::Transitions { changes: vec![change], wall: WallTime(2) });
            }
        }
        settle(desk);
        desk.wait(Duration::from_millis(1_100));
        settle(desk);
        node
    };
    let first = fails(&mut desk);
    assert_eq!(there(&desk).map(|(_, node)| node), Some(first), "once may be chance, and there it is soonest ready");
    fails(&mut desk);
    let (_, second) = there(&desk).unwrap();
    assert_ne!(second, first);
    let explained = desk.node.explain(&service).unwrap();
    let shunned: Vec<_> = explained.nodes.iter().filter_map(|node| Some((node.node, node.shunned?))).collect();
    assert_eq!(shunned, [(first, 2)]);
    // Whoever changes it has seen to what was wrong.
    desk.write(Command::Restart { service: service.clone(), wall: WallTime(3) });
    assert!(desk.node.explain(&service).unwrap().nodes.iter().all(|node| node.shunned.is_none()));
}

#[test]
fn a_machine_on_which_stars_fail_is_still_better_than_none() {
    let mut desk = Desk::new(0, false);
    desk.tell(Event::Leads { leads: true });
    for node in [1, 3] {
        desk.write(Command::SetDuty { node: NodeId(node), duty: Duty::Cordoned, wall: WallTime(1) });
    }
    desk.write(keeping("a", 1, 0));
    for _ in 0..3 {
        settle(&mut desk);
        let star = desk.on(2)[0];
        desk.tell(Event::StarExited { star, cause: ExitCause::Code(1) });
        settle(&mut desk);
        desk.wait(Duration::from_millis(2_100));
    }
    settle(&mut desk);
    assert_eq!(desk.on(2).len(), 1);
}

#[test]
fn stars_wait_rather_than_be_more_uneven_than_they_may() {
    let mut desk = Desk::new(0, false);
    for (node, row) in [(1, "x"), (2, "x"), (3, "y")] {
        let labels = [("row".to_owned(), row.to_owned())].into();
        let facts = NodeFacts { cores: 2, memory: Bytes::mib(1_000), labels, ..NodeFacts::default() };
        let (address, facts) = ("a:1".to_owned(), Box::new(facts));
        desk.write(Command::DescribeNode { node: NodeId(node), address, facts, wall: WallTime(1) });
    }
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    let with = |app: &str, stars: u32, placement: &str| match keeping(app, stars, 600) {
        Command::PutApp { mut spec, base, wall } => {
            for service in spec.services.values_mut() {
                service.placement = serde_json::from_str(placement).unwrap();
            }
            Command::PutApp { spec, base, wall }
        }
        other => other,
    };
    desk.write(with("a", 1, r#"{"require":["row = y"]}"#));
    desk.write_all();
    desk.write(with("b", 2, r#"{"spread":["row"],"max_skew":1}"#));
    desk.write_all();
    assert_eq!((stars_of(&desk, "of-a"), stars_of(&desk, "of-b")), (1, 1), "row y has no room for the second");
    let service = "of-b".parse().unwrap();
    let told = desk.node.explain(&service).unwrap();
    let reasons: Vec<String> = told.nodes.iter().map(|node| node.reasons.join("; ")).collect();
    let skewed = "its `row` has 1 star of the service, another 0, and `max_skew` is 1";
    assert!(reasons[0].starts_with(skewed) && reasons[1].starts_with(skewed), "{reasons:?}");
    assert!(reasons[2].contains("a star keeps 600 MiB") && !told.nodes.iter().any(|node| node.next), "{reasons:?}");
    let nowhere = desk.node.service_view(&service).unwrap().problem.unwrap();
    assert!(nowhere.contains("600 MiB") || nowhere.contains("max_skew"), "{nowhere}");
    // Room in row y is room for both.
    desk.write(with("a", 0, "{}"));
    settle(&mut desk);
    settle(&mut desk);
    assert_eq!((stars_of(&desk, "of-a"), stars_of(&desk, "of-b")), (0, 2));
    assert_eq!(desk.on(3).len(), 1);
}

#[test]
fn a_service_that_waits_for_others_to_go_comes_when_they_have() {
    let mut desk = with_room();
    desk.write(keeping("b", 3, 0));
    desk.write_all();
    let Command::PutApp { mut spec, base, wall } = keeping("a", 1, 0) else { unreachable!("an app") };
    for service in spec.services.values_mut() {
        service.placement = serde_json::from_str(r#"{"apart_from":["of-b"]}"#).unwrap();
    }
    desk.write(Command::PutApp { spec, base, wall });
    settle(&mut desk);
    assert_eq!((stars_of(&desk, "of-a"), stars_of(&desk, "of-b")), (0, 3));
    // Nothing is kept for any of them.
    desk.write(keeping("b", 0, 0));
    settle(&mut desk);
    settle(&mut desk);
    assert_eq!((stars_of(&desk, "of-a"), stars_of(&desk, "of-b")), (1, 0));
}

#[test]
fn a_service_that_waits_for_room_gets_it_when_a_star_ends_for_which_it_was_kept() {
    let mut desk = with_room();
    desk.write(keeping("a", 3, 600));
    desk.write_all();
    desk.write(keeping("b", 1, 600));
    desk.write_all();
    assert_eq!((stars_of(&desk, "of-a"), stars_of(&desk, "of-b")), (3, 0));
    let star = desk.node.state().stars_of(&"of-a".parse().unwrap()).find(|star| star.node == NodeId(3)).unwrap().id;
    desk.write(Command::Scale { service: "of-a".parse().unwrap(), instances: 0, wall: WallTime(2) });
    desk.write_all();
    let ended = Transition { star, phase: StarPhase::Ended, process: None, exit: None };
    desk.write(Command::Transitions { changes: vec![ended], wall: WallTime(3) });
    desk.write_all();
    assert_eq!(stars_of(&desk, "of-b"), 1);
}

#[test]
fn a_star_that_no_node_could_ever_keep_is_refused_at_once_and_one_that_waits_is_not() {
    let mut desk = with_room();
    desk.write(keeping("a", 3, 600));
    desk.write_all();
    let mut ask = |megabytes| {
        let Command::PutApp { spec, base, .. } = keeping("b", 1, megabytes) else { unreachable!() };
        desk.tell(Event::Request { id: RequestId(megabytes), request: Request::PutApp { spec, base } });
        let refused = desk.effects.iter().find_map(|effect| match effect {
            Effect::Reply { id, result: Err(problem) } if *id == RequestId(megabytes) => Some(problem.clone()),
            _ => None,
        });
        desk.write_all();
        refused
    };
    let problem = ask(1_001).unwrap();
    assert_eq!(problem.code, Code::NoCapacity);
    assert!(problem.message.contains("needs 1001 MiB of memory, largest free is 1000 MiB"), "{problem}");
    assert_eq!(ask(1_000), None);
}

/// `app` of one service, whose stars keep so much each, with this placement.
fn keeping_at(app: &str, stars: u32, megabytes: u64, placement: &str) -> Command {
    let Command::PutApp { mut spec, base, wall } = keeping(app, stars, megabytes) else { unreachable!() };
    for service in spec.services.values_mut() {
        service.placement = serde_json::from_str(placement).unwrap();
    }
    Command::PutApp { spec, base, wall }
}

fn taint(desk: &mut Desk, node: u64, name: &str, taint: Option<model::Taint>) {
    let name = name.to_owned();
    desk.write(Command::SetTaint { node: NodeId(node), name, taint, wall: WallTime(2) });
    settle(desk);
}

#[test]
fn a_taint_keeps_stars_off_and_has_those_leave_where_it_evicts() {
    let mut desk = Desk::new(0, false);
    desk.tell(Event::Leads { leads: true });
    placed(&mut desk, 3, "{}");
    let (stays, evicts) = (model::Taint::default(), model::Taint { evicts: true, ..model::Taint::default() });
    taint(&mut desk, 1, "gpu", Some(stays));
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [1, 1, 1], "who is there stays");
    placed(&mut desk, 6, "{}");
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [1, 3, 2], "and no other comes");
    taint(&mut desk, 1, "gpu", Some(evicts));
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [0, 3, 3]);
    placed(&mut desk, 7, r#"{"tolerate":["gpu"]}"#);
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [1, 3, 3]);
    taint(&mut desk, 1, "gpu", None);
    assert!(desk.node.state().nodes[&NodeId(1)].taints.is_empty());
}

#[test]
fn services_that_are_to_be_apart_share_no_machine_whoever_says_so() {
    let mut desk = with_room();
    let on = |desk: &Desk, service: &str| -> Vec<u64> {
        let service = service.parse().unwrap();
        let stars = desk.node.state().stars_of(&service);
        let there = stars.filter(|star| star.phase != StarPhase::Ended);
        let mut nodes: Vec<u64> = there.map(|star| star.node.0).collect();
        nodes.sort_unstable();
        nodes
    };
    desk.write(keeping_at("db", 1, 1, "{}"));
    // Planned before the other is written.
    desk.write(keeping_at("web", 4, 1, r#"{"apart_from":["of-db"]}"#));
    settle(&mut desk);
    let db = on(&desk, "of-db")[0];
    assert!(!on(&desk, "of-web").contains(&db) && on(&desk, "of-web").len() == 4);
    // Those that came first do not have the one on theirs that says nothing.
    desk.write(keeping_at("db", 2, 1, "{}"));
    settle(&mut desk);
    assert_eq!(on(&desk, "of-db"), [db, db]);
    let told = desk.node.explain(&"of-db".parse().unwrap()).unwrap();
    let reason = "it has a star of `of-web`, from which this one is to be apart";
    assert_eq!(told.nodes.iter().filter(|node| node.reasons == [reason]).count(), 2);
    // Whoever comes to say it later moves.
    desk.write(keeping_at("late", 3, 1, "{}"));
    settle(&mut desk);
    assert_eq!(on(&desk, "of-late"), [1, 2, 3]);
    desk.write(keeping_at("late", 3, 1, r#"{"apart_from":["of-web"]}"#));
    settle(&mut desk);
    assert_eq!(on(&desk, "of-late"), [db, db, db]);
}

/// Time in which every machine is heard of.
fn pass(desk: &mut Desk, seconds: u64) {
    for _ in 0..seconds {
        desk.wait(Duration::from_secs(1));
        [1, 3].into_iter().for_each(|node| desk.tell(Event::Heard { node: NodeId(node) }));
    }
}

#[test]
fn a_star_of_a_higher_service_has_the_room_of_lower_ones() {
    let mut desk = with_room();
    desk.write(keeping_at("low", 3, 600, r#"{"priority":10}"#));
    settle(&mut desk);
    desk.write(keeping("usual", 1, 600));
    settle(&mut desk);
    assert_eq!((stars_of(&desk, "of-usual"), stars_of(&desk, "of-low")), (1, 2));
    let events = &desk.node.state().events;
    let told = "gives way to a star of `of-usual` (priority 50 over 10)";
    assert_eq!(events.iter().filter(|event| event.what.ends_with(told)).count(), 1);
    // A quarter of three is one: no more may be missing.
    desk.write(keeping("usual", 2, 600));
    settle(&mut desk);
    assert_eq!((stars_of(&desk, "of-usual"), stars_of(&desk, "of-low")), (1, 2));
    // Once it may, the next look finds it.
    desk.write(keeping_at("low", 3, 600, r#"{"priority":10,"disruptions":"100%"}"#));
    pass(&mut desk, 6);
    settle(&mut desk);
    assert_eq!((stars_of(&desk, "of-usual"), stars_of(&desk, "of-low")), (2, 1));
    // Equals wait.
    desk.write(keeping("equal", 2, 600));
    settle(&mut desk);
    assert_eq!((stars_of(&desk, "of-equal"), stars_of(&desk, "of-usual"), stars_of(&desk, "of-low")), (1, 2, 0));
    // What is lower comes back when there is room again.
    desk.write(Command::Scale { service: "of-usual".parse().unwrap(), instances: 0, wall: WallTime(3) });
    settle(&mut desk);
    assert_eq!((stars_of(&desk, "of-equal"), stars_of(&desk, "of-low")), (2, 1));
}

/// `ops` may have so many stars, and four times as many while there is room.
fn with_burst(desk: &mut Desk, namespace: &str, stars: u32) {
    let quota = QuotaChange { instances: Some(Some(stars)), burst: Some(Some(300)), ..QuotaChange::default() };
    let change = NamespaceChange { quota, ..NamespaceChange::default() };
    desk.write(Command::SetNamespace { namespace: namespace.parse().unwrap(), change, new: true, wall: WallTime(2) });
}

#[test]
fn services_that_look_for_room_at_once_count_on_a_quota_once() {
    let mut desk = with_room();
    desk.write(keeping_at("low", 3, 600, r#"{"priority":10,"disruptions":"100%"}"#));
    settle(&mut desk);
    with_burst(&mut desk, "ops", 1);
    let Command::PutApp { mut spec, base, wall } = keeping("x", 1, 600) else { unreachable!() };
    spec.app.namespace = "ops".parse().unwrap();
    let service = spec.services.values().next().cloned().unwrap();
    spec.services = ["a", "b", "c"].map(|name| (name.parse().unwrap(), service.clone())).into();
    let forecast = desk.node.forecast(&spec, None, WallTime(3));
    let gives: Vec<usize> = forecast.services.iter().map(|service| service.gives_way.len()).collect();
    assert_eq!(gives, [1, 0, 0]);
    desk.write(Command::PutApp { spec, base, wall });
    pass(&mut desk, 20);
    settle(&mut desk);
    let there = |desk: &Desk| ["ops/a", "ops/b", "ops/c", "of-low"].map(|service| stars_of(desk, service));
    assert_eq!(there(&desk), [1, 0, 0, 2]);
    // What is its own has room made again when it has to go elsewhere, whoever of the namespace has room already.
    let node = desk.node.state().stars_of(&"ops/a".parse().unwrap()).next().unwrap().node;
    desk.write(Command::SetDuty { node, duty: Duty::Draining, wall: WallTime(4) });
    pass(&mut desk, 20);
    settle(&mut desk);
    assert_eq!(there(&desk), [1, 0, 0, 1], "for one that moves, too");
}

#[test]
fn what_a_namespace_has_beyond_its_quota_gives_way_and_comes_back_when_there_is_room() {
    let mut desk = with_room();
    with_burst(&mut desk, "dev", 1);
    let keeping_in = |namespace: &str, stars, placement: &str| {
        let Command::PutApp { mut spec, base, wall } = keeping_at("x", stars, 600, placement) else { unreachable!() };
        spec.app.namespace = namespace.parse().unwrap();
        Command::PutApp { spec, base, wall }
    };
    desk.write(keeping_in("dev", 3, r#"{"priority":90,"disruptions":"0%"}"#));
    settle(&mut desk);
    let counts = |desk: &Desk| (stars_of(desk, "dev/of-x"), stars_of(desk, "ops/of-x"));
    let burst = |desk: &Desk| desk.node.namespace_view(&"dev".parse().unwrap()).unwrap().burst_stars;
    assert_eq!((counts(&desk), burst(&desk)), ((3, 0), 2), "there is room");
    desk.write(keeping_in("ops", 3, r#"{"priority":10}"#));
    settle(&mut desk);
    assert_eq!((counts(&desk), burst(&desk)), ((1, 2), 0), "the first is its own");
    pass(&mut desk, 20);
    settle(&mut desk);
    assert_eq!(counts(&desk), (1, 2), "and what is beyond sends nobody away");
    // A restart has no room for all, and comes to rest as it was.
    desk.write(Command::Restart { service: "dev/of-x".parse().unwrap(), wall: WallTime(3) });
    for _ in 0..4 {
        settle(&mut desk);
        pass(&mut desk, 6);
    }
    settle(&mut desk);
    assert_eq!((counts(&desk), burst(&desk)), ((1, 2), 0));
    desk.write(Command::Scale { service: "ops/of-x".parse().unwrap(), instances: 1, wall: WallTime(3) });
    settle(&mut desk);
    assert_eq!((counts(&desk), burst(&desk)), ((2, 1), 1));
    // Without burst two are what it has, and stay.
    let quota = QuotaChange { burst: Some(None), ..QuotaChange::default() };
    let change = NamespaceChange { quota, ..NamespaceChange::default() };
    desk.write(Command::SetNamespace { namespace: "dev".parse().unwrap(), change, new: false, wall: WallTime(4) });
    desk.write(Command::Scale { service: "ops/of-x".parse().unwrap(), instances: 3, wall: WallTime(5) });
    pass(&mut desk, 6);
    settle(&mut desk);
    assert_eq!((counts(&desk), burst(&desk)), ((2, 1), 0));
}

/// The star that makes room has not ended yet: its service does not get that room back, and nobody else goes.
#[test]
fn room_that_is_being_made_is_kept_for_whom_it_is_made() {
    let mut desk = with_room();
    desk.write(keeping_at("low", 3, 600, r#"{"priority":10,"disruptions":"100%"}"#));
    settle(&mut desk);
    desk.write(keeping("usual", 1, 600));
    desk.write_all();
    let view = desk.node.service_view(&"of-usual".parse().unwrap()).unwrap();
    assert_eq!((view.nowhere, view.problem), (None, None), "it will have a place");
    let going = |desk: &Desk| {
        let stars = desk.node.state().stars.values();
        stars.filter(|star| star.phase == StarPhase::Draining).map(|star| star.id).collect::<Vec<_>>()
    };
    let [star] = going(&desk)[..] else { panic!("one goes, not {:?}", going(&desk)) };
    pass(&mut desk, 20);
    desk.write_all();
    assert_eq!(going(&desk), [star], "nobody else goes while it does");
    let ended = Transition { star, phase: StarPhase::Ended, process: None, exit: None };
    desk.write(Command::Transitions { changes: vec![ended], wall: WallTime(3) });
    desk.write_all();
    assert_eq!((stars_of(&desk, "of-usual"), stars_of(&desk, "of-low")), (1, 2));
}

#[test]
fn a_service_on_every_node_follows_the_machines() {
    let mut desk = Desk::new(0, false);
    desk.tell(Event::Leads { leads: true });
    placed(&mut desk, 1, r#"{"every_node":true,"tolerate":["gpu"]}"#);
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [1, 1, 1]);
    let duty = |desk: &mut Desk, duty| {
        desk.write(Command::SetDuty { node: NodeId(3), duty, wall: WallTime(2) });
        settle(desk);
    };
    duty(&mut desk, Duty::Cordoned);
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [1, 1, 1]);
    duty(&mut desk, Duty::Draining);
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [1, 1, 0]);
    duty(&mut desk, Duty::Takes);
    taint(&mut desk, 1, "gpu", Some(model::Taint::default()));
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [1, 1, 1]);
    taint(&mut desk, 1, "old", Some(model::Taint::default()));
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [0, 1, 1], "it does not tolerate this one");
    // Another version takes the places one after another, and is never twice on a machine.
    let before: Vec<StarId> = [2, 3].iter().flat_map(|node| desk.on(*node)).collect();
    desk.write(Command::Restart { service: "web".parse().unwrap(), wall: WallTime(3) });
    settle(&mut desk);
    assert_eq!([1, 2, 3].map(|node| desk.on(node).len()), [0, 1, 1]);
    assert!(before.iter().all(|star| !desk.on(2).contains(star) && !desk.on(3).contains(star)));
    desk.write(Command::LoseNode { node: NodeId(3), wall: WallTime(3) });
    desk.write_all();
    assert_eq!(desk.node.service_view(&"web".parse().unwrap()).unwrap().desired, 1);
    let scaled = Command::Scale { service: "web".parse().unwrap(), instances: 5, wall: WallTime(4) };
    let request = Request::Scale { service: "web".parse().unwrap(), instances: 5 };
    desk.effects.clear();
    desk.tell(Event::Request { id: RequestId(9), request });
    assert_eq!(
        desk.proposed(),
        [scaled.clone()].map(|command| match command {
            Command::Scale { service, instances, .. } => {
                Command::Scale { service, instances, wall: WallTime(desk.now.0 / 1_000_000) }
            }
            _ => unreachable!(),
        })
    );
    desk.write(scaled);
    assert_eq!(desk.node.service_view(&"web".parse().unwrap()).unwrap().desired, 1, "it is refused");
}

/// Six stars on node 2, and two machines that came afterwards.
fn uneven(placement: &str) -> Desk {
    let mut desk = Desk::new(0, false);
    desk.tell(Event::Leads { leads: true });
    for (duty, stars) in [(Duty::Cordoned, 6), (Duty::Takes, 6)] {
        for node in [1, 3].map(NodeId) {
            desk.write(Command::SetDuty { node, duty, wall: WallTime(2) });
        }
        placed(&mut desk, stars, placement);
    }
    desk
}

#[test]
fn stars_move_to_where_they_would_come_and_serve_until_another_has() {
    let mut desk = uneven("{}");
    let there = |desk: &Desk| [1, 2, 3].map(|node| desk.on(node).len());
    assert_eq!(there(&desk), [0, 6, 0]);
    let moves = desk.node.moves();
    let told: Vec<(u32, &str, &str)> =
        moves.iter().map(|step| (step.ordinal, step.from.as_str(), step.to.as_str())).collect();
    assert_eq!(told, [(6, "b", "a"), (5, "b", "c"), (4, "b", "a"), (3, "b", "c")]);
    let before = desk.on(2);
    for step in moves {
        let (service, ordinal) = (step.service, step.ordinal);
        desk.write(Command::MoveStar { service, ordinal, wall: WallTime(2) });
    }
    let view = desk.node.service_view(&"web".parse().unwrap()).unwrap();
    assert!(view.changing && view.ready == 6);
    assert!(desk.node.moves().is_empty(), "what moves is not moved again");
    let proposed = desk.proposed();
    let goes = |command: &Command| match command {
        Command::Transitions { changes, .. } => changes.iter().any(|change| before.contains(&change.star)),
        _ => false,
    };
    assert!(!proposed.iter().any(goes), "{proposed:?}");
    proposed.into_iter().for_each(|command| desk.write(command));
    settle(&mut desk);
    assert_eq!(there(&desk), [2, 2, 2]);
    assert!(desk.node.moves().is_empty());
    let view = desk.node.service_view(&"web".parse().unwrap()).unwrap();
    assert!(!view.changing && view.ready == 6);
}

#[test]
fn a_star_for_which_there_is_no_room_elsewhere_stays_and_nobody_gives_way_for_it() {
    let mut desk = with_room();
    desk.write(keeping_at("low", 2, 600, r#"{"priority":10}"#));
    settle(&mut desk);
    desk.write(keeping("high", 1, 600));
    settle(&mut desk);
    let count = |desk: &Desk| (stars_of(desk, "of-low"), stars_of(desk, "of-high"));
    assert_eq!(count(&desk), (2, 1));
    let service: model::ServiceKey = "of-high".parse().unwrap();
    let star = desk.node.state().stars_of(&service).next().unwrap().id;
    desk.write(Command::MoveStar { service, ordinal: 1, wall: WallTime(2) });
    settle(&mut desk);
    assert_eq!(count(&desk), (2, 1));
    let state = desk.node.state();
    assert!(!state.stars[&star].moves && state.stars[&star].phase == StarPhase::Ready);
    let told = "star `of-high-1` stays: no other machine has room for it";
    assert!(state.events.iter().any(|event| event.what == told), "{:?}", state.events);
}

#[test]
fn what_cannot_move_is_refused_with_the_reason() {
    let refused = |desk: &mut Desk, service: &str, ordinal: u32| {
        let mut after = desk.node.state().clone();
        let command = Command::MoveStar { service: service.parse().unwrap(), ordinal, wall: WallTime(3) };
        let index = after.index + 1;
        let changes = state::apply(&mut after, index, &command);
        changes.into_iter().find_map(|change| match change {
            state::Change::Refused { problem } => Some(problem.message),
            _ => None,
        })
    };
    let mut desk = Desk::new(3, true);
    desk.tell(Event::Leads { leads: true });
    settle(&mut desk);
    assert_eq!(refused(&mut desk, "web", 1).as_deref(), Some("star `web-1` cannot move: it stays with its volumes"));
    let mut desk = uneven("{}");
    assert_eq!(refused(&mut desk, "web", 1), None);
    assert_eq!(refused(&mut desk, "web", 9).as_deref(), Some("service `web` has no star `web-9` that runs"));
    placed(&mut desk, 1, r#"{"every_node":true}"#);
    let why = "star `web-1` cannot move: its service is on every node";
    assert_eq!(refused(&mut desk, "web", 1).as_deref(), Some(why));
}

#[test]
fn a_cordoned_machine_has_what_is_on_every_one_and_explain_knows() {
    let mut desk = Desk::new(0, false);
    desk.tell(Event::Leads { leads: true });
    placed(&mut desk, 1, r#"{"every_node":true}"#);
    for (duty, expected) in
        [(Duty::Cordoned, None), (Duty::Draining, Some("it is drained: `rads c uncordon c` lets stars come"))]
    {
        desk.write(Command::SetDuty { node: NodeId(3), duty, wall: WallTime(2) });
        let told = desk.node.explain(&"web".parse().unwrap()).unwrap();
        let of_duty = told.nodes[2].reasons.iter().find(|reason| reason.contains("uncordon"));
        assert_eq!(of_duty.map(String::as_str), expected);
    }
}
