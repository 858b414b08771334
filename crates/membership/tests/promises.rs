//! What is promised of membership, in simulated networks; each protection with a control in which it is off and the same scenario
//! goes wrong. The large runs are behind `cargo xtask sim membership`.

use std::time::Duration;

use membership::{Attributes, Claimed, Config, Effect, Event, Metadata, Protections, Status};
use model::NodeId;
use sim::members::{World, member};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn without(take_away: impl Fn(&mut Protections)) -> Protections {
    let mut protections = Protections::default();
    take_away(&mut protections);
    protections
}

fn settled(nodes: usize, seed: u64) -> World {
    World::settled(nodes, Config::default(), seed)
}

/// Settles with all protections; what happens then happens with these.
fn settled_then(protections: Protections, nodes: usize, seed: u64) -> World {
    let mut world = settled(nodes, seed);
    world.protect(protections);
    world
}

fn versioned(version: &str) -> Metadata {
    Metadata::new(Attributes { version: version.to_owned(), ..Attributes::default() }).unwrap()
}

#[test]
fn all_who_join_at_once_know_all_within_seconds() {
    for nodes in [2, 3, 30, 100] {
        let mut world = World::started(nodes, Config::default(), 7, seconds(2));
        let limit = world.now + seconds(8);
        assert!(world.run_while(limit, |world| !world.all_know_all()).is_some(), "{nodes} nodes within 8 s");
        world.run_for(seconds(20));
        assert!(world.all_are_well(), "{nodes} nodes");
    }
}

#[test]
fn all_survivors_know_of_a_death_within_six_seconds_and_of_no_other() {
    for (nodes, seed) in [(3, 1), (5, 2), (30, 3), (100, 4), (100, 5)] {
        let mut world = settled(nodes, seed);
        world.kill(2);
        let limit = world.now + seconds(6);
        assert!(world.run_while(limit, |world| !world.all_see(2, Status::Dead)).is_some(), "{nodes} nodes");
        world.run_for(seconds(20));
        assert_eq!(world.false_deaths, 0, "{nodes} nodes");
        let accusers = world.nodes[0].membership.member(NodeId(3)).unwrap().accused_by;
        assert!(!accusers.is_empty(), "who accused it is known");
    }
}

#[test]
fn the_last_of_two_knows_that_it_is_alone() {
    let mut world = settled(2, 1);
    world.kill(1);
    let limit = world.now + seconds(12);
    assert!(world.run_while(limit, |world| !world.all_see(1, Status::Dead)).is_some());
}

#[test]
fn when_many_die_at_once_all_is_known_soon_and_the_others_live() {
    for every in [3, 2] {
        let mut world = settled(60, 3);
        let victims: Vec<usize> = (0..60).step_by(every).collect();
        victims.iter().for_each(|place| world.kill(*place));
        let (start, limit) = (world.now, world.now + seconds(60));
        let all_known = |world: &World| victims.iter().all(|place| world.all_see(*place, Status::Dead));
        let took = world.run_while(limit, |world| !all_known(world)).expect("within a minute").since(start);
        assert!(took < seconds(9), "one in {every}: {took:?}");
        world.run_for(seconds(20));
        assert_eq!(world.false_deaths, 0);
    }
}

fn false_deaths_under_loss(protections: Protections, nodes: usize, loss: f64, time: Duration) -> u64 {
    let mut world = settled_then(protections, nodes, 11);
    sim::figures::innocents(&mut world, loss, time).false_deaths
}

#[test]
fn loss_kills_nobody() {
    for (nodes, loss, time) in [(30, 0.05, seconds(600)), (30, 0.3, seconds(180)), (3, 0.3, seconds(1_200))] {
        assert_eq!(false_deaths_under_loss(Protections::default(), nodes, loss, time), 0, "{nodes} nodes, loss {loss}");
    }
}

#[test]
fn control_without_suspicion_loss_kills() {
    let protections = without(|protections| protections.suspicion = false);
    assert!(false_deaths_under_loss(protections, 30, 0.3, seconds(180)) > 0);
}

#[test]
fn whoever_stands_still_for_two_seconds_lives() {
    let mut world = settled(40, 45);
    world.network.loss = 0.05;
    for place in 0..40 {
        world.pause(place);
        world.run_for(seconds(2));
        world.resume(place);
        world.run_for(Duration::from_millis(300));
    }
    assert_eq!(world.false_deaths, 0);
}

#[test]
fn far_apart_is_not_dead() {
    let mut world = World::started(40, Config::default(), 47, seconds(2));
    world.network.latency = (Duration::from_millis(40), Duration::from_millis(160));
    world.run_for(seconds(40));
    assert!(world.all_know_all() && world.all_are_well());
    world.forget_reports();
    world.network.loss = 0.02;
    world.run_for(seconds(120));
    assert_eq!((world.false_deaths, world.false_suspicions), (0, 0));
    world.kill(7);
    let limit = world.now + seconds(7);
    assert!(world.run_while(limit, |world| !world.all_see(7, Status::Dead)).is_some());
}

/// Node 4 hears nothing for a moment, in which node 9 describes itself anew.
fn misses_an_update(protections: Protections) -> bool {
    let mut world = settled_then(protections, 30, 5);
    world.network.deaf.insert(4, 1.0);
    world.give(9, Event::Update { metadata: versioned("2.0.0") });
    world.run_for(Duration::from_millis(1_800));
    world.network.deaf.clear();
    let knows =
        |world: &World| world.nodes[4].membership.member(NodeId(10)).unwrap().member.metadata.version == "2.0.0";
    assert!(!knows(&world), "the scenario must begin with a miss");
    let limit = world.now + seconds(60);
    world.run_while(limit, |world| !knows(world)).is_none()
}

#[test]
fn who_missed_news_learns_it_by_comparing_tables() {
    assert!(!misses_an_update(Protections::default()));
}

#[test]
fn control_without_anti_entropy_news_stays_missed() {
    assert!(misses_an_update(without(|protections| protections.anti_entropy = false)));
}

/// A watcher of node 7 stands still for 20 s just after it accused it; node 7 contradicts meanwhile.
fn deaths_declared_after_standing_still(protections: Protections) -> u64 {
    let mut world = settled_then(protections, 12, 9);
    world.pause(7);
    let accuser = |world: &World| {
        world.running().find(|place| {
            let view = world.nodes[*place].membership.member(NodeId(8)).unwrap();
            view.status == Status::Suspect && view.accused_by.contains(&NodeId(*place as u64 + 1))
        })
    };
    let limit = world.now + seconds(5);
    world.run_while(limit, |world| accuser(world).is_none()).expect("accused");
    let accuser = accuser(&world).unwrap();
    world.pause(accuser);
    world.resume(7);
    world.run_for(seconds(20));
    world.forget_reports();
    world.resume(accuser);
    world.run_for(Duration::from_millis(100));
    world.nodes[accuser].membership.counters().declared_dead
}

#[test]
fn who_stood_still_listens_before_it_judges() {
    assert_eq!(deaths_declared_after_standing_still(Protections::default()), 0);
}

#[test]
fn control_without_local_health_who_stood_still_declares_the_living_dead() {
    let protections = without(|protections| protections.local_health = false);
    assert!(deaths_declared_after_standing_still(protections) > 0);
}

/// How often a node that hears one datagram in eight accuses others, in four times a minute.
fn accusations_of_a_deaf_node(protections: Protections) -> u64 {
    let minute = |seed| {
        let mut world = settled_then(protections, 30, seed);
        world.network.deaf.insert(4, 0.875);
        world.run_for(seconds(60));
        world.nodes[4].membership.counters().accusations
    };
    (50..54).map(minute).sum()
}

#[test]
fn a_deaf_node_doubts_itself() {
    let without = accusations_of_a_deaf_node(without(|protections| protections.local_health = false));
    let with = accusations_of_a_deaf_node(Protections::default());
    assert!(with * 2 < without, "{with} accusations with local health, {without} without");
}

/// Node 0 is cut off until it is alone; then the network is whole again.
fn is_alone_for_ever(protections: Protections) -> bool {
    let mut world = settled_then(protections, 5, 15);
    world.network.split(5, |place| place == 0);
    let limit = world.now + seconds(30);
    let alone = |world: &World| world.nodes[0].membership.live_count() == 0 && world.all_see(0, Status::Dead);
    // Both sides report deaths across the cut; `all_see` asks the other side, and node 0 sees nobody alive.
    assert!(world.run_while(limit, |world| !alone(world)).is_some(), "cut off");
    world.run_for(seconds(60));
    world.network.heal();
    let limit = world.now + seconds(60);
    world.run_while(limit, |world| !world.all_are_well()).is_none()
}

#[test]
fn who_lost_everybody_comes_back_by_itself() {
    assert!(!is_alone_for_ever(Protections::default()));
}

#[test]
fn control_without_rejoin_who_lost_everybody_stays_alone() {
    assert!(is_alone_for_ever(without(|protections| protections.rejoin = false)));
}

#[test]
fn two_clusters_that_never_met_become_one_by_a_common_seed() {
    let mut world = World::new(6, Config::default(), 17);
    world.network.split(6, |place| place < 3);
    (0..6).for_each(|place| world.start_at(place, world.now, &[0, 3]));
    world.run_for(seconds(60));
    assert_eq!(world.nodes[1].membership.live_count(), 2);
    world.network.heal();
    let limit = world.now + seconds(240);
    assert!(world.run_while(limit, |world| !world.all_know_all()).is_some());
}

/// Deaths that either half reports of its own members when two halves of 40 meet again after two minutes.
fn deaths_when_halves_meet(protections: Protections) -> u64 {
    let mut world = settled_then(protections, 40, 19);
    world.network.split(40, |place| place % 2 == 0);
    world.run_for(seconds(120));
    assert!(
        (1..40).step_by(2).all(|odd| world.nodes[0].sees[odd] == Some(Status::Dead)),
        "halves know of each other's loss"
    );
    assert_eq!(world.false_deaths, 0, "each half is whole");
    world.network.heal();
    // Somebody helps, so that tables are compared before anybody has contradicted its death.
    world.give(0, Event::Join { seeds: &[sim::members::addr_of(1)] });
    let limit = world.now + seconds(60);
    assert!(world.run_while(limit, |world| !world.all_are_well()).is_some(), "one again");
    world.false_deaths
}

#[test]
fn halves_that_meet_again_report_no_death() {
    assert_eq!(deaths_when_halves_meet(Protections::default()), 0);
}

#[test]
fn control_without_second_thoughts_halves_that_meet_declare_the_living_dead() {
    assert!(deaths_when_halves_meet(without(|protections| protections.second_thoughts = false)) > 0);
}

#[test]
fn a_cut_between_two_nodes_kills_neither() {
    for one_way in [true, false] {
        let mut world = settled(10, 21);
        world.network.cut_one_way(10, |place| place == 3, |place| place == 6);
        if !one_way {
            world.network.cut_one_way(10, |place| place == 6, |place| place == 3);
        }
        world.run_for(seconds(120));
        assert!(world.all_are_well(), "one way: {one_way}");
        assert!(world.nodes.iter().all(|node| node.membership.counters().declared_dead == 0));
    }
}

#[test]
fn who_can_speak_but_not_hear_is_dead_to_the_others() {
    let mut world = settled(10, 23);
    world.network.cut_one_way(10, |place| place != 3, |place| place == 3);
    let limit = world.now + seconds(15);
    assert!(world.run_while(limit, |world| !world.all_see(3, Status::Dead)).is_some());
    let others_live = |world: &World| (0..10).filter(|of| *of != 3).all(|of| world.count_seeing(of, Status::Dead) <= 1);
    world.run_for(seconds(60));
    assert!(others_live(&world), "its accusations convince nobody");
}

/// How often node 3 is reported alive while it stands still for 10 s of every 20 s, for eight rounds, and how long it is held at last.
fn returns_of_a_flapping_node(protections: Protections) -> (usize, Duration) {
    let mut world = settled_then(protections, 10, 25);
    world.keep_reports();
    for _ in 0..8 {
        world.pause(3);
        world.run_for(seconds(10));
        world.resume(3);
        world.run_for(seconds(10));
    }
    let alive = |report: &&sim::members::Report| report.of == 3 && report.by == 0 && report.to == Status::Alive;
    let held = world.nodes[0].membership.member(NodeId(4)).unwrap().held_until;
    (world.reports.iter().filter(alive).count(), held.map_or(Duration::ZERO, |until| until.since(world.now)))
}

#[test]
fn who_comes_and_goes_is_held_back_longer_each_time() {
    let (returns, held) = returns_of_a_flapping_node(Protections::default());
    assert!(returns <= 2, "reported alive {returns} times");
    assert!(held > seconds(200), "held for {held:?} more");
}

#[test]
fn control_without_damping_every_return_is_reported() {
    let (returns, _) = returns_of_a_flapping_node(without(|protections| protections.damping = false));
    assert!(returns >= 8, "reported alive {returns} times");
}

#[test]
fn who_leaves_has_left_and_is_not_dead() {
    for nodes in [2, 5, 60] {
        let mut world = settled(nodes, 27);
        world.keep_reports();
        world.leave(1);
        let limit = world.now + seconds(3);
        assert!(world.run_while(limit, |world| !(world.nodes[1].gone && world.all_see(1, Status::Left))).is_some());
        world.run_for(seconds(30));
        assert!(world.reports.iter().all(|report| report.to == Status::Left), "{nodes} nodes");
    }
}

#[test]
fn who_left_comes_back_with_a_higher_incarnation_and_is_not_held() {
    let mut world = settled(10, 29);
    for _ in 0..3 {
        world.leave(1);
        world.run_for(seconds(10));
        world.restart(1, member(1), &[0, 2]);
        world.run_for(seconds(5));
        assert!(world.all_know_all() && world.all_are_well());
    }
    assert!(world.nodes[1].membership.me().incarnation > 0);
}

#[test]
fn a_quick_restart_is_described_anew_and_nobody_dies() {
    let mut world = settled(20, 31);
    world.keep_reports();
    world.kill(5);
    let mut again = member(5);
    again.metadata = versioned("9.9.9");
    world.restart(5, again, &[0]);
    world.run_for(seconds(20));
    let knows = |by: usize| world.nodes[by].membership.member(NodeId(6)).unwrap().member.metadata.version == "9.9.9";
    assert!((0..20).filter(|by| *by != 5).all(knows));
    assert!(world.nodes.iter().all(|node| node.conflicts.is_empty()));
    assert!(world.reports.iter().all(|report| report.to != Status::Dead));
}

#[test]
fn a_new_node_at_an_old_address_replaces_the_old_one() {
    let mut world = settled(20, 33);
    world.kill(5);
    let mut new = member(5);
    new.id = NodeId(500);
    world.restart(5, new, &[0]);
    world.run_for(seconds(20));
    for by in (0..20).filter(|by| *by != 5) {
        let members: Vec<_> = world.nodes[by].membership.members().collect();
        let named: Vec<_> = members.iter().filter(|view| view.member.name.as_str() == "node-5").collect();
        assert_eq!(named.len(), 1);
        assert_eq!((named[0].member.id, named[0].status), (NodeId(500), Status::Alive));
        assert!(world.nodes[by].conflicts.is_empty(), "{:?}", world.nodes[by].conflicts);
    }
}

#[test]
fn one_name_for_two_live_nodes_is_reported_once_by_each() {
    let mut world = World::new(6, Config::default(), 35);
    (0..5).for_each(|place| world.start_at(place, world.now, &[0, 1]));
    world.run_for(seconds(10));
    let mut twin = member(5);
    twin.name = member(2).name;
    world.restart(5, twin, &[0]);
    world.run_for(seconds(40));
    for place in 0..6 {
        let conflicts = &world.nodes[place].conflicts;
        let expected = Effect::Conflict { over: Claimed::Name(member(2).name), between: (NodeId(3), NodeId(6)) };
        assert_eq!(conflicts, &[expected], "at {place}");
    }
    assert_eq!(world.false_deaths, 0);
}

#[test]
fn a_copied_data_folder_is_reported() {
    let mut world = settled(6, 37);
    world.kill(5);
    world.run_for(seconds(20));
    // Node 5's machine now claims to be node 2, which is there.
    let mut copy = member(5);
    (copy.id, copy.name) = (NodeId(3), member(2).name);
    world.restart(5, copy, &[0]);
    world.run_for(seconds(60));
    let identity = |effect: &Effect| matches!(effect, Effect::Conflict { over: Claimed::Identity(_), .. });
    assert!([2, 5].iter().any(|place| world.nodes[*place].conflicts.iter().any(identity)));
}

#[test]
fn a_quiet_cluster_is_cheap() {
    let mut world = settled(60, 39);
    let (mean, most) = sim::figures::traffic(&mut world, seconds(60));
    // A tenth of what targets.md allows at 1,000 nodes: the cost of a quiet node hardly depends on how many there are.
    assert!(mean < 10_000.0 && most < 20_000.0, "{mean:.0} bit/s in the mean, {most:.0} at most");
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    let run = |seed| {
        let mut world = settled(20, seed);
        world.network.loss = 0.2;
        world.kill(3);
        world.run_for(seconds(30));
        (world.steps, world.nodes[0].sent, world.false_suspicions)
    };
    assert_eq!(run(41), run(41));
    assert_ne!(run(41), run(42));
}
