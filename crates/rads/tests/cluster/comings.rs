//! Machines that come and go in good order, and what is refused.

use std::time::Duration;

use crate::clients::{Load, up_hello};
use crate::rig::{Rig, possible};

#[test]
fn a_machine_that_is_alone_says_so_and_one_that_is_a_node_joins_nothing_else() {
    if !possible() {
        return;
    }
    let rig = Rig::new(2);
    rig.start(0);
    rig.start(1);
    let (a, b) = (rig.machine(0), rig.machine(1));
    a.rads(&["c", "nodes"]).refused("C0105", "in no constellation");
    a.rads(&["c", "drain", "a"]).refused("C0105", "in no constellation");
    a.rads(&["c", "leave"]).refused("C0105", "in no constellation");
    let token = rig.init(0, &[]);
    a.rads(&["c", "init", "--cluster", "other"]).refused("C0106", "in constellation `test` already");
    let address = a.ip.to_string();
    a.rads(&["c", "join", &b.ip.to_string(), "--token", &token]).refused("C01", "`test`");
    b.rads(&["c", "join", &address, "--token", "no token at all"]).refused("C0", "token");
    b.rads(&["c", "join", &address, "--token", &token, "--name", "a"]).refused("C0106", "`a`");
    b.rads(&["c", "join", "10.77.0.0.1", "--token", &token]).refused("C0102", "no address of a node");
    // Nobody listens at its own address.
    b.rads(&["c", "join", &format!("{}:1", a.ip), "--token", &token]).refused("C0", &format!("{}:1", a.ip));
    rig.join(1, &token, &["--region", "eu", "--zone", "eu-1", "--label", "disk=ssd"]);
    rig.all_alive(2);
    let node = a.node("b").unwrap();
    assert_eq!((&node["facts"]["zone"], &node["facts"]["labels"]["disk"]), (&"eu-1".into(), &"ssd".into()));
    let table = b.rads(&["c", "nodes"]).ok();
    assert!(table.starts_with("NODE") && table.contains("eu/eu-1") && table.contains("controller, leads"), "{table}");
    assert!(b.rads(&["c", "status"]).ok().contains("`b` of constellation `test`"));
    a.rads(&["c", "remove", "b"]).refused("C0105", "`b` is alive");
    a.rads(&["c", "drain", "x"]).refused("C0104", "no node `x`");
}

#[test]
fn a_machine_on_which_something_runs_does_not_join() {
    if !possible() {
        return;
    }
    let rig = Rig::new(2);
    rig.start(0);
    rig.start(1);
    up_hello(&rig, 1, 1);
    let token = rig.init(0, &[]);
    let refused = rig.machine(1).rads(&["c", "join", &rig.machine(0).ip.to_string(), "--token", &token]);
    refused.refused("C0105", "apps run on this machine");
    assert_eq!(rig.machine(1).get(8080).unwrap().0, 200, "nothing changed");
}

#[test]
fn what_ran_on_the_first_machine_runs_on_while_it_founds_a_constellation() {
    if !possible() {
        return;
    }
    let rig = Rig::new(1);
    rig.start(0);
    up_hello(&rig, 0, 2);
    let pids = |rig: &Rig| rig.machine(0).stars().into_iter().map(|star| (star.id, star.pid)).collect::<Vec<_>>();
    let before = pids(&rig);
    rig.init(0, &[]);
    rig.await_ready(0, 2, &[], Duration::from_secs(30));
    assert_eq!(pids(&rig), before, "the same processes");
    rig.wait_for("an answer", || rig.machine(0).get(8080).is_ok_and(|(code, _)| code == 200));
}

#[test]
#[ignore = "a minute: `cargo xtask test cluster`"]
fn drained_left_and_removed_machines_lose_no_request_and_their_stars_run_elsewhere() {
    if !possible() {
        return;
    }
    let rig = Rig::new(4);
    rig.constellation();
    up_hello(&rig, 0, 4);
    rig.await_ready(0, 4, &[], Duration::from_secs(30));
    let load = Load::start(&rig, 0);
    rig.wait_for("requests", || load.answered() > 100);
    let d = rig.named("d");
    let told = rig.machine(0).rads(&["c", "drain", "d", "--wait"]).ok();
    assert!(told.starts_with("d: drained"), "{told}");
    assert!(rig.stars(0).iter().all(|star| star.node != "d"), "{:?}", rig.stars(0));
    rig.machine(0).rads(&["c", "uncordon", "d"]).ok();
    // In good order, with its stars moved first.
    let c = rig.named("c");
    let told = rig.machine(c).rads(&["c", "leave"]).ok();
    assert!(told.contains("`c` left"), "{told}");
    rig.await_ready(0, 4, &[c], Duration::from_secs(30));
    assert_eq!(rig.machine(0).node("c").unwrap()["health"], "left");
    rig.machine(c).rads(&["c", "nodes"]).refused("C0105", "in no constellation");
    assert!(!rig.machine(c).rads(&["c", "status"]).ok().contains("removed"), "it went by its own will");
    let before = load.answered();
    rig.wait_for("more requests", || load.answered() > before + 100);
    let (answered, errors) = load.end();
    assert!(errors.is_empty(), "{} of {answered}: {errors:?}", errors.len());
    // One that is gone for good.
    rig.die(d);
    rig.await_ready(0, 4, &[c, d], Duration::from_secs(15));
    rig.wait_for("`d` to be given up", || rig.machine(0).node("d").is_some_and(|node| node["health"] == "dead"));
    assert_eq!(rig.machine(0).rads(&["c", "remove", "d"]).ok(), "d: removed\n");
    assert_eq!(rig.machine(0).node("d").unwrap()["health"], "left");
    // Who was taken out while away is believed no more when it is back.
    rig.revive(d);
    rig.wait_for("the others to go on", || rig.machine(0).rads(&["c", "scale", "hello", "5"]).code == 0);
    assert_eq!(rig.machine(0).node("d").unwrap()["health"], "left");
    let seen: Vec<_> = rig.stars(0).into_iter().filter(|star| star.node == "d").collect();
    assert!(seen.is_empty(), "{seen:?}");
    says_that_it_was_removed(&rig, d);
    // It is another machine's name by now, or its own again.
    rig.machine(d).rads(&["c", "leave"]).ok();
    rig.machine(d).rads(&["c", "nodes"]).refused("C0105", "in no constellation");
    let made = rig.machine(0).rads(&["c", "token", "create"]).ok();
    let token = made.split_whitespace().find(|word| word.starts_with("rads1_")).unwrap_or_else(|| panic!("{made}"));
    rig.join(d, token, &[]);
    rig.wait_for("it to be back", || rig.machine(0).node("d").is_some_and(|node| node["health"] == "alive"));
    // Shut out while it is alive, it ends what runs there, which goes on elsewhere.
    // It gets stars once it has said what it is.
    let mut wanted = 5;
    rig.wait_for("a star there", || {
        wanted += 1;
        rig.machine(0).rads(&["c", "scale", "hello", &wanted.to_string()]).ok();
        rig.stars(0).iter().any(|star| star.node == "d" && star.phase == "ready")
    });
    assert!(rig.machine(d).runs_stars());
    rig.machine(0).rads(&["c", "certs", "revoke", "d"]).ok();
    says_that_it_was_removed(&rig, d);
    rig.await_ready(0, wanted, &[c, d], Duration::from_secs(15));
}

/// Waits until a machine has heard that it is none of the others any more, and runs nothing of theirs.
fn says_that_it_was_removed(rig: &Rig, at: usize) {
    let machine = rig.machine(at);
    rig.wait_for("it to hear that it was removed", || {
        machine.rads(&["c", "status"]).out.contains("until it was removed")
    });
    machine.rads(&["c", "nodes"]).refused("C0105", "was removed from constellation `test`");
    let app =
        rig.file("again.rads", "import constellation;\nconstellation.deploy(\"hello\", {script: \"hello.rads\"});\n");
    let up = machine.rads(&["up", "-d", "--yes", app.to_str().unwrap()]);
    up.refused("C0105", "was removed from constellation `test`");
    rig.wait_for("its stars to end", || !machine.runs_stars());
}

#[test]
#[ignore = "half a minute: `cargo xtask test cluster`"]
fn a_worker_runs_stars_and_changes_are_made_from_it_but_it_keeps_nothing_that_is_sealed() {
    if !possible() {
        return;
    }
    let rig = Rig::new(2);
    rig.start(0);
    rig.init(0, &[]);
    let made = rig.machine(0).rads(&["c", "token", "create", "--role", "worker"]).ok();
    let token = made.split_whitespace().find(|word| word.starts_with("rads1_")).unwrap_or_else(|| panic!("{made}"));
    rig.start(1);
    rig.join(1, token, &[]);
    rig.all_alive(2);
    let (a, b) = (rig.machine(0), rig.machine(1));
    let node = b.node("b").unwrap();
    assert_eq!((&node["role"], &node["votes"]), (&"worker".into(), &false.into()), "{node}");
    up_hello(&rig, 1, 2);
    rig.await_ready(0, 2, &[], Duration::from_secs(30));
    assert!(rig.stars(0).iter().any(|star| star.node == "b"), "{:?}", rig.stars(0));
    rig.wait_for("an answer at both", || [a, b].iter().all(|one| one.get(8080).is_ok_and(|(code, _)| code == 200)));
    let file = rig.place("worker.backup");
    b.rads(&["c", "backup", "save", file.to_str().unwrap()]).refused("C0105", "is a worker");
    assert!(!file.exists());
    b.rads(&["c", "recover", "--yes"]).refused("C0202", "agent");
    // The only one that keeps the log does not go while another is left.
    a.rads(&["c", "leave"]).refused("C0105", "last controller");
    assert_eq!(a.node("a").unwrap()["duty"], "takes", "nothing changed");
    assert!(b.rads(&["c", "leave"]).ok().contains("`b` left"));
    rig.await_ready(0, 2, &[1], Duration::from_secs(30));
}

/// Two are too few to vote, so that one of them loses its vote when the third leaves, and is told nothing by its own log from then on.
#[test]
#[ignore = "half a minute: `cargo xtask test cluster`"]
fn a_controller_that_loses_its_vote_hears_on_and_is_heard() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation();
    up_hello(&rig, 0, 3);
    let leader = rig.await_leader(0, None);
    let voters = |at: usize| rig.machine(at).nodes().iter().filter(|node| node["votes"] == true).count();
    rig.wait_for("three voters", || voters(leader) == 3);
    let others: Vec<usize> = rig.all().filter(|at| *at != leader).collect();
    let (gone, other) = (others[0], others[1]);
    rig.machine(gone).rads(&["c", "leave"]).ok();
    rig.wait_for("one voter", || voters(leader) == 1);
    rig.machine(leader).rads(&["c", "scale", "hello", "6"]).ok();
    rig.await_ready(other, 6, &[], Duration::from_secs(15));
    let there = |at: usize| rig.stars(at).iter().filter(|star| star.node == rig.machine(other).name).count();
    assert!(there(leader) > 0, "{:?}", rig.stars(leader));
    rig.wait_for("it to say so itself", || voters(other) == 1);
    rig.machine(other).rads(&["c", "scale", "hello", "2"]).ok();
    rig.await_ready(leader, 2, &[], Duration::from_secs(15));
    // Nor is it deaf when it begins anew, with a log that says that it votes.
    rig.kill_agent(other);
    rig.start(other);
    rig.machine(leader).rads(&["c", "scale", "hello", "4"]).ok();
    rig.await_ready(other, 4, &[], Duration::from_secs(15));
    rig.machine(other).rads(&["c", "scale", "hello", "3"]).ok();
    rig.machine(other).rads(&["c", "leave"]).ok();
    rig.await_ready(leader, 3, &others, Duration::from_secs(15));
}

#[test]
#[ignore = "half a minute: `cargo xtask test cluster`"]
fn a_controller_that_dies_as_it_comes_to_vote_keeps_no_other_from_it() {
    if !possible() {
        return;
    }
    let rig = Rig::new(5);
    rig.constellation_of(4);
    let leader = rig.await_leader(0, None);
    let votes = |at: usize| {
        let nodes = rig.machine(leader).nodes();
        nodes.iter().any(|node| node["votes"] == true && node["name"] == rig.machine(at).name.as_str())
    };
    rig.wait_for("three voters", || (0..4).filter(|at| votes(*at)).count() == 3);
    let spare = (0..4).find(|at| !votes(*at)).unwrap();
    let token = rig.machine(leader).json(&["c", "token", "create", "--role", "controller"]);
    rig.start(4);
    rig.join_at(4, leader, token["token"].as_str().unwrap());
    rig.die(4);
    // With five of them the leader would have five vote, and waits for the fifth.
    std::thread::sleep(Duration::from_secs(2));
    let next = (0..4).find(|at| *at != leader && *at != spare && votes(*at)).unwrap();
    rig.die(next);
    rig.wait_within("the spare one to vote", Duration::from_secs(25), || votes(spare));
}
