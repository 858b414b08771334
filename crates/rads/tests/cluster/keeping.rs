//! What is left when most machines, or all of them, are gone for good.

use std::time::Duration;

use crate::clients::{Writer, has_all, none_lost, up_hello};
use crate::rig::{Rig, possible};

#[test]
#[ignore = "a minute: `cargo xtask test cluster`"]
fn a_constellation_that_is_gone_comes_back_from_a_backup_on_a_new_machine() {
    if !possible() {
        return;
    }
    let mut rig = Rig::new(3);
    rig.constellation();
    up_hello(&rig, 0, 3);
    let writer = Writer::start(&rig);
    rig.wait_for("writes", || writer.acknowledged() >= 10);
    let (acknowledged, _) = writer.end();
    let file = rig.place("save.backup");
    let path = file.to_str().unwrap().to_owned();
    let saved = rig.machine(1).rads(&["c", "backup", "save", &path]).ok();
    assert!(saved.contains("constellation `test`") && saved.contains("3 nodes"), "{saved}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "it holds keys");
    rig.machine(1).rads(&["c", "backup", "save", &path]).refused("C0106", "is there already");
    assert!(rig.machine(0).rads(&["c", "backup", "show", &path]).ok().contains("`test`"));
    rig.machine(0).rads(&["c", "backup", "restore", &path]).refused("C0105", "not empty");
    let new = rig.add();
    let beside = rig.machine(new).rads(&["c", "backup", "restore", &path]);
    beside.refused("C0105", "constellation `test` is not gone: its controller ");
    assert!(!rig.machine(new).data().exists(), "nothing was made");
    rig.all().filter(|at| *at != new).for_each(|at| rig.die(at));
    // One that is damaged leaves nothing behind.
    let bytes = std::fs::read(&file).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    let bad = rig.file("bad.backup", "");
    std::fs::write(&bad, &flipped).unwrap();
    let machine = rig.machine(new);
    machine.rads(&["c", "backup", "restore", bad.to_str().unwrap()]).refused("C0205", "checksum");
    std::fs::write(&bad, &bytes[..bytes.len() - 1]).unwrap();
    machine.rads(&["c", "backup", "restore", bad.to_str().unwrap()]).refused("C0205", "cut short");
    assert!(
        !machine.data().exists() || std::fs::read_dir(machine.data()).unwrap().next().is_none(),
        "nothing was made"
    );
    let told = machine.rads(&["c", "backup", "restore", &path, "--name", &machine.name]).ok();
    assert!(told.contains("constellation `test` is back") && told.contains("3 nodes of old"), "{told}");
    rig.await_ready(new, 3, &[], Duration::from_secs(30));
    rig.wait_for("an answer", || machine.get(8080).is_ok_and(|(code, _)| code == 200));
    for name in ["a", "b", "c"] {
        assert_eq!(machine.node(name).unwrap()["health"], "left");
    }
    has_all(&rig, new, &acknowledged);
}

#[test]
#[ignore = "a minute: `cargo xtask test cluster`"]
fn the_last_controller_that_is_left_goes_on_alone_when_it_is_told_to() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation();
    up_hello(&rig, 0, 3);
    let writer = Writer::start(&rig);
    rig.wait_for("writes", || writer.acknowledged() >= 10);
    let (acknowledged, _) = writer.end();
    none_lost(&rig, &acknowledged);
    let last = rig.await_leader(0, None);
    let gone: Vec<usize> = rig.all().filter(|at| *at != last).collect();
    gone.iter().for_each(|at| rig.die(*at));
    let machine = rig.machine(last);
    rig.wait_for("writes to be refused", || machine.rads(&["c", "scale", "hello", "3"]).code != 0);
    machine.rads(&["c", "recover"]).refused("C0202", "agent");
    machine.rads(&["c", "recover", "--yes"]).refused("C0202", "agent");
    machine.rads(&["c", "shutdown", "--keep-stars"]).ok();
    rig.ended(last);
    machine.rads(&["c", "recover"]).refused("C0001", "of 3 voters, and cannot be undone; its log ends in term ");
    let told = machine.rads(&["c", "recover", "--yes"]).ok();
    assert!(told.contains("keeps the log alone"), "{told}");
    machine.rads(&["c", "recover", "--yes"]).refused("C0105", "alone already");
    rig.start(last);
    assert_eq!(rig.await_leader(last, None), last);
    for at in &gone {
        machine.rads(&["c", "remove", &rig.machine(*at).name, "--force"]).ok();
    }
    rig.await_ready(last, 3, &gone, Duration::from_secs(30));
    none_lost(&rig, &acknowledged);
}

/// It would have forgotten whom it elected and what it acknowledged, and a majority with it could be one that lacks it.
#[test]
#[ignore = "half a minute: `cargo xtask test cluster`"]
fn a_voter_whose_log_is_gone_does_not_go_on_and_joins_anew() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation();
    up_hello(&rig, 0, 3);
    let leader = rig.await_leader(0, None);
    let lost = rig.all().find(|at| *at != leader).unwrap();
    let (machine, name) = (rig.machine(lost), rig.machine(lost).name.clone());
    let began = rig.agent_pid(leader);
    machine.rads(&["c", "shutdown"]).ok();
    rig.ended(lost);
    let log = machine.data().join("constellation/log");
    let kept = std::fs::read_dir(&log).unwrap().flatten().count();
    assert!(kept > 0);
    std::fs::rename(&log, rig.place("aside")).unwrap();
    machine.rads(&["c", "agent"]).refused("C0205", "this node's part of the shared log, is gone");
    // Made anew by hand, it is no less gone.
    std::fs::create_dir(&log).unwrap();
    machine.rads(&["c", "agent"]).refused("C0205", "rads c remove");
    rig.machine(leader).rads(&["c", "scale", "hello", "4"]).ok();
    rig.await_ready(leader, 4, &[lost], Duration::from_secs(30));
    assert_eq!((rig.agent_pid(leader), rig.await_leader(leader, None)), (began, leader));
    // As the message says.
    rig.machine(leader).rads(&["c", "remove", &name, "--force"]).ok();
    std::fs::remove_dir_all(machine.data()).unwrap();
    let token = rig.machine(leader).json(&["c", "token", "create", "--role", "controller"]);
    rig.start(lost);
    rig.join_at(lost, leader, token["token"].as_str().unwrap());
    rig.all_alive(3);
}
