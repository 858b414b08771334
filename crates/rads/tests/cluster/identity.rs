//! Who comes in, who is shut out, and that nobody becomes a stranger by the mere passing of time.

use std::path::Path;

use serde_json::Value;

use crate::rig::{Rig, possible};

/// The id of the authority that issues, how many are believed, and of which authority each node's certificate is.
fn certificates(rig: &Rig, at: usize) -> (String, usize, Vec<String>) {
    let known = rig.machine(at).json(&["c", "certs"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let authorities = known["authorities"].as_array().unwrap();
    let nodes = known["nodes"].as_array().unwrap().iter().map(|node| text(&node["authority"])).collect();
    (text(&authorities[0]["id"]), authorities.len(), nodes)
}

#[test]
fn a_token_admits_what_it_says_and_nothing_else() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation_of(2);
    rig.start(2);
    let (a, c) = (rig.machine(0), rig.machine(2));
    let address = a.ip.to_string();
    a.rads(&["c", "token", "create", "--for", "2h"]).refused("C0102", "at most 60 minutes");
    a.rads(&["c", "token", "create", "--uses", "0"]).refused("C0102", "not 0");
    let made = a.json(&["c", "token", "create", "--for", "10m"]);
    let token = made["token"].as_str().unwrap();
    assert_eq!(made["role"], "worker");
    let listed = a.rads(&["c", "token", "list"]).ok();
    assert!(!listed.contains(token) && listed.contains("0 of 1"), "{listed}");
    c.rads(&["c", "join", &address, "--token", token, "--name", "b"]).refused("C0106", "node `b` already");
    rig.join(2, token, &[]);
    rig.all_alive(3);
    assert_eq!(a.node("c").unwrap()["role"], "worker");
    // A worker says who may come in as little as it lets anybody in.
    c.rads(&["c", "token", "create"]).refused("C0207", "only controllers");
    c.rads(&["c", "certs", "rotate"]).refused("C0207", "only controllers");
    // Used up, and said no more of than that.
    c.rads(&["c", "leave"]).ok();
    c.rads(&["c", "join", &address, "--token", token, "--name", "c"]).refused("C0207", "not known here");
    let revoked = a.json(&["c", "token", "create"]);
    let token = revoked["token"].as_str().unwrap();
    for listed in a.json(&["c", "token", "list"]).as_array().unwrap() {
        a.rads(&["c", "token", "revoke", listed["id"].as_str().unwrap()]).ok();
    }
    c.rads(&["c", "join", &address, "--token", token, "--name", "c"]).refused("C0207", "not known here");
    let events = a.rads(&["c", "events"]).ok();
    assert!(!events.contains("rads1_"), "{events}");
}

#[test]
#[ignore = "half a minute: `cargo xtask test cluster`"]
fn another_authority_takes_over_while_all_nodes_stay_and_who_is_shut_out_does_not() {
    if !possible() {
        return;
    }
    let rig = Rig::new(4);
    rig.constellation();
    let (first, _, _) = certificates(&rig, 0);
    rig.machine(1).rads(&["c", "certs", "rotate"]).ok();
    rig.machine(2).rads(&["c", "certs", "rotate"]).refused("C0105", "being changed already");
    let mut lost = Vec::new();
    rig.wait_for("the next authority alone", || {
        let nodes = rig.machine(3).nodes();
        lost.extend(nodes.iter().filter(|node| node["health"] != "alive").map(ToString::to_string));
        let (issues, believed, of) = certificates(&rig, 3);
        issues != first && believed == 1 && of.iter().all(|of| *of == issues)
    });
    assert!(lost.is_empty(), "{lost:?}");
    rig.all_alive(4);
    // What the authority is now lets machines in as before, and shuts them out.
    rig.machine(0).rads(&["c", "certs", "revoke", "d"]).ok();
    rig.wait_for("`d` to be a stranger", || rig.machine(3).rads(&["c", "cordon", "d"]).code != 0);
    rig.wait_for("`d` to be given up", || rig.machine(0).node("d").is_some_and(|node| node["health"] == "dead"));
    rig.machine(0).rads(&["c", "remove", "d"]).ok();
    let status = || rig.machine(3).rads(&["c", "status"]).out;
    rig.wait_for("`d` to know", || status().contains("it was `d` of constellation `test` until it was removed"));
}

#[test]
#[ignore = "half a minute: `cargo xtask test cluster`"]
fn machines_that_all_slept_until_their_certificates_ran_out_find_each_other_again() {
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    if !possible() {
        return;
    }
    if !Path::new(library).exists() {
        println!("skipped: libfaketime is not installed");
        return;
    }
    let rig = Rig::new(4);
    rig.constellation_of(3);
    rig.start(3);
    let made = rig.machine(0).json(&["c", "token", "create", "--role", "worker"]);
    rig.join(3, made["token"].as_str().unwrap(), &[]);
    rig.all_alive(4);
    rig.all().for_each(|at| rig.kill_agent(at));
    rig.env.borrow_mut().extend([
        ("LD_PRELOAD".to_owned(), library.to_owned()),
        ("FAKETIME".to_owned(), "+8d".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC".to_owned(), "1".to_owned()),
    ]);
    rig.all().for_each(|at| rig.start(at));
    rig.all_alive(4);
    rig.wait_for("a change", || rig.machine(3).rads(&["c", "cordon", "d"]).code == 0);
    let log = std::fs::read_to_string(rig.machine(3).log()).unwrap();
    assert!(log.contains("the certificate of this node ran out"), "{log}");
}

#[test]
#[ignore = "half a minute: `cargo xtask test cluster`"]
fn the_key_of_gossip_changes_while_all_are_seen_and_who_was_off_learns_it_at_its_return() {
    if !possible() {
        return;
    }
    let rig = Rig::new(4);
    rig.start(0);
    let token = rig.init(0, &[]);
    let worker = rig.machine(0).json(&["c", "token", "create", "--role", "worker", "--uses", "2"]);
    let worker = worker["token"].as_str().unwrap_or_else(|| panic!("no token in {worker}")).to_owned();
    for at in 1..4 {
        rig.start(at);
        // The last is a worker: it has to ask for keys.
        rig.join(at, if at == 3 { &worker } else { &token }, &[]);
    }
    rig.all_alive(4);
    let keys = |at: usize| rig.machine(at).json(&["c", "certs"])["gossip"].to_string();
    assert_eq!(keys(0), "null");
    // One is off for all of it.
    rig.kill_agent(2);
    rig.wait_for("it to be missed", || rig.machine(0).node("c").is_some_and(|node| node["health"] == "dead"));
    rig.machine(0).rads(&["c", "certs", "rotate", "--gossip"]).ok();
    rig.machine(0).rads(&["c", "certs", "rotate", "--gossip"]).refused("C0105", "being changed already");
    let mut seen = std::collections::BTreeSet::new();
    rig.wait_for("the old key to go", || {
        for (by, of) in [(0, "b"), (1, "a"), (0, "d"), (3, "a")] {
            seen.extend(rig.machine(by).node(of).map(|node| node["health"].to_string()));
        }
        (0..2).all(|at| keys(at) == "[2]")
    });
    let alive: std::collections::BTreeSet<String> = ["\"alive\"".to_owned()].into();
    assert_eq!(seen, alive, "somebody was not seen meanwhile");
    let answers = |by: usize, of: &str| {
        let findings = rig.machine(by).rads(&["c", "doctor", "-o", "json"]).out;
        let findings: serde_json::Value = serde_json::from_str(&findings).unwrap_or_default();
        let finding =
            findings.as_array().and_then(|all| all.iter().find(|one| one["what"] == format!("node {of}")).cloned());
        finding
            .is_some_and(|finding| finding["detail"].as_str().is_some_and(|text| text.contains("TCP and UDP answer")))
    };
    rig.wait_for("datagrams under the new key", || answers(0, "d") && answers(3, "b"));
    let events = rig.machine(0).rads(&["c", "events"]).ok();
    let steps = ["key 2 made", "sealed with key 2", "key 1 opens nothing"].map(|step| events.find(step));
    assert!(steps.iter().all(Option::is_some) && steps.is_sorted(), "{events}");
    rig.start(2);
    rig.all_alive(4);
    rig.wait_for("the one that was off to answer datagrams", || answers(0, "c") && answers(2, "d"));
}
