//! Machines that are cut off, killed, held still and filled up, one fault at a time.

use std::time::Duration;

use crate::clients::{Writer, none_lost, up_hello};
use crate::rig::{Rig, possible, possible_as_root};

#[test]
#[ignore = "a minute: `cargo xtask test cluster`"]
fn a_minority_refuses_writes_and_nothing_that_was_acknowledged_is_lost_when_it_is_back() {
    if !possible() {
        return;
    }
    let rig = Rig::new(5);
    rig.constellation();
    up_hello(&rig, 0, 3);
    let leader = rig.await_leader(0, None);
    let other = rig.all().find(|at| *at != leader).unwrap();
    let few = [leader, other];
    let many: Vec<usize> = rig.all().filter(|at| !few.contains(at)).collect();
    rig.cut(&few, &many);
    // The old leader finds out; then the few can do nothing, and say so.
    rig.wait_for("the few to refuse", || rig.machine(leader).rads(&["c", "scale", "hello", "4"]).code != 0);
    rig.machine(other).rads(&["c", "scale", "hello", "4"]).refused("C0208", "");
    let chosen = rig.await_leader(many[0], Some(leader));
    assert!(many.contains(&chosen));
    rig.machine(many[1]).rads(&["c", "scale", "hello", "6"]).ok();
    rig.heal();
    rig.all_alive(5);
    rig.await_ready(leader, 6, &[], Duration::from_secs(30));
}

#[test]
#[ignore = "minutes: `cargo xtask test cluster`"]
fn writes_go_on_through_partitions_that_are_halves_one_way_and_a_bridge() {
    if !possible() {
        return;
    }
    let rig = Rig::new(5);
    rig.constellation();
    up_hello(&rig, 0, 3);
    let writer = Writer::start(&rig);
    let through = |what: &str, writer: &Writer| {
        let before = writer.acknowledged();
        rig.wait_for(&format!("writes with {what}"), || writer.acknowledged() >= before + 5);
        println!("{what}: {} writes so far", writer.acknowledged());
    };
    through("no fault", &writer);
    rig.cut(&[0, 1], &[2, 3, 4]);
    through("halves", &writer);
    rig.heal();
    through("no fault", &writer);
    let leader = rig.await_leader(0, None);
    let others: Vec<usize> = rig.all().filter(|at| *at != leader).collect();
    // The leader is heard by nobody but hears all.
    others.iter().for_each(|at| rig.cut_one_way(leader, *at));
    rig.await_leader(others[0], Some(leader));
    through("a leader that is not heard", &writer);
    rig.heal();
    through("no fault", &writer);
    // Two and two that only one in the middle reaches.
    rig.cut(&[0, 1], &[3, 4]);
    through("a bridge", &writer);
    rig.heal();
    rig.all_alive(5);
    let (acknowledged, refusals) = writer.end();
    println!("{} writes acknowledged, {} refused", acknowledged.len(), refusals.len());
    none_lost(&rig, &acknowledged);
}

#[test]
#[ignore = "minutes: `cargo xtask test cluster`"]
fn no_acknowledged_write_is_lost_when_leaders_are_killed_again_and_again() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation();
    up_hello(&rig, 0, 3);
    let pids = |rig: &Rig| {
        let mut stars: Vec<_> = rig.stars(0).into_iter().map(|star| (star.id, star.pid)).collect();
        stars.sort();
        stars
    };
    rig.await_ready(0, 3, &[], Duration::from_secs(30));
    let before = pids(&rig);
    let writer = Writer::start(&rig);
    let rounds = std::env::var("RADS_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    for round in 0..rounds {
        let acknowledged = writer.acknowledged();
        rig.wait_for("writes", || writer.acknowledged() > acknowledged + 3);
        let seen_from = round % 3;
        let leader = rig.await_leader(seen_from, None);
        rig.kill_agent(leader);
        let next = (leader + 1) % 3;
        let chosen = rig.await_leader(next, Some(leader));
        println!("round {round}: `{}` after `{}`", rig.machine(chosen).name, rig.machine(leader).name);
        rig.start(leader);
        rig.all_alive(3);
    }
    let (acknowledged, refusals) = writer.end();
    println!("{} writes acknowledged, {} refused", acknowledged.len(), refusals.len());
    none_lost(&rig, &acknowledged);
    rig.await_ready(0, 3, &[], Duration::from_secs(30));
    assert_eq!(pids(&rig), before, "no star was touched");
}

#[test]
#[ignore = "minutes: `cargo xtask test cluster`"]
fn all_agents_killed_at_once_come_back_with_every_acknowledged_write() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation();
    up_hello(&rig, 0, 3);
    for _ in 0..3 {
        let writer = Writer::start(&rig);
        rig.wait_for("writes", || writer.acknowledged() >= 10);
        rig.all().for_each(|at| rig.kill_agent(at));
        let (acknowledged, _) = writer.end();
        rig.all().for_each(|at| rig.start(at));
        rig.all_alive(3);
        none_lost(&rig, &acknowledged);
    }
}

#[test]
#[ignore = "two minutes: `cargo xtask test cluster`"]
fn a_machine_that_stood_still_for_a_minute_finds_its_singleton_elsewhere_and_ends_its_own() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation();
    up_hello(&rig, 0, 1);
    rig.await_ready(0, 1, &[], Duration::from_secs(30));
    let star = rig.stars(0).remove(0);
    let holder = rig.named(&star.node);
    let others: Vec<usize> = rig.all().filter(|at| *at != holder).collect();
    rig.pause(holder);
    let took = rig.await_ready(others[0], 1, &[holder], Duration::from_secs(45));
    println!("the singleton ran elsewhere after {took:?}");
    std::thread::sleep(Duration::from_secs(60).saturating_sub(took));
    rig.go_on(holder);
    // Its own goes: at no time do requests go to it again.
    rig.wait_for("the old one to end", || !std::path::Path::new(&format!("/proc/{}", star.pid)).exists());
    rig.all_alive(3);
    let running: Vec<_> = rig.stars(holder).into_iter().filter(|one| one.name == star.name).collect();
    assert_eq!(running.len(), 1, "{running:?}");
    assert_ne!(running[0].id, star.id);
}

#[test]
#[ignore = "a minute: `cargo xtask test cluster`"]
fn packets_that_get_lost_cost_time_and_no_machine() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation();
    up_hello(&rig, 0, 3);
    rig.lose(0.1);
    let writer = Writer::start(&rig);
    rig.wait_within("writes through the loss", Duration::from_secs(120), || writer.acknowledged() >= 30);
    let dead: Vec<_> = rig.machine(0).nodes().into_iter().filter(|node| node["health"] == "dead").collect();
    assert!(dead.is_empty(), "{dead:?}");
    rig.heal();
    let (acknowledged, _) = writer.end();
    none_lost(&rig, &acknowledged);
}

#[test]
#[ignore = "a minute: `cargo xtask test cluster`"]
fn a_full_disk_stops_nobody_else_and_its_node_goes_on_when_there_is_room() {
    if !possible_as_root("a disk of its own for a machine") {
        return;
    }
    let rig = Rig::new(3);
    rig.small_disk(2, 96);
    rig.constellation();
    up_hello(&rig, 0, 3);
    let filler = rig.fill_disk(2);
    let writer = Writer::start_at(&rig, &[0, 1]);
    rig.wait_for("writes beside a full disk", || writer.acknowledged() >= 50);
    std::fs::remove_file(filler).unwrap();
    rig.all_alive(3);
    let (acknowledged, _) = writer.end();
    none_lost(&rig, &acknowledged);
}
