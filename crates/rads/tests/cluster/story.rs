//! The story of a team with five machines: they join with one token, run one app, lose a machine, and lose nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::clients::{Writer, none_lost, up_hello};
use crate::rig::{Rig, possible};

/// From the death of a machine until its stars run elsewhere. Beside all other tests of a busy machine it may take longer.
fn elsewhere() -> Duration {
    Duration::from_secs(if std::env::var_os("RADS_ALONE").is_some() { 10 } else { 30 })
}

#[test]
fn five_machines_join_run_one_app_at_every_door_and_outlive_one_of_them() {
    if !possible() {
        return;
    }
    let rig = Rig::new(5);
    rig.constellation();
    up_hello(&rig, 0, 5);
    let stars = rig.stars(3);
    let nodes: BTreeSet<&str> = stars.iter().map(|star| star.node.as_str()).collect();
    assert_eq!(nodes.len(), 5, "one on each: {stars:?}");
    for at in rig.all() {
        let machine = rig.machine(at);
        rig.wait_for(&format!("an answer at `{}`", machine.name), || {
            machine.get(8080).is_ok_and(|(code, _)| code == 200)
        });
    }
    // A command in a star ends as it ended, wherever it is asked for.
    for at in rig.all() {
        let outcome = rig.machine(at).rads(&["c", "exec", "hello-1", "--", "sh", "-c", "echo there; exit 7"]);
        assert_eq!((outcome.code, outcome.out.as_str()), (7, "there\n"), "{}", outcome.err);
    }
    let writer = Writer::start(&rig);
    rig.wait_for("writes", || writer.acknowledged() >= 10);
    let victim = rig.named("c");
    rig.die(victim);
    let took = rig.await_ready(0, 5, &[victim], elsewhere());
    println!("the stars of a machine that died were ready elsewhere after {took:?}");
    for at in rig.up() {
        let machine = rig.machine(at);
        rig.wait_for(&format!("an answer at `{}`", machine.name), || {
            machine.get(8080).is_ok_and(|(code, _)| code == 200)
        });
    }
    assert_eq!(rig.machine(0).node("c").unwrap()["health"], "dead");
    let before = writer.acknowledged();
    rig.wait_for("more writes", || writer.acknowledged() >= before + 10);
    let (acknowledged, refusals) = writer.end();
    println!("{} writes acknowledged, {} refused", acknowledged.len(), refusals.len());
    none_lost(&rig, &acknowledged);
    // It comes back as what it was, and is told what it missed.
    rig.revive(victim);
    rig.all_alive(5);
    none_lost(&rig, &acknowledged);
}
