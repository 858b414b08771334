//! A data folder that is used twice, and one that is gone.

use std::time::{Duration, Instant};

use crate::rig::{Rig, possible};

#[test]
#[ignore = "half a minute: `cargo xtask test cluster`"]
fn a_copy_of_a_data_folder_ends_and_the_node_it_was_copied_from_goes_on() {
    if !possible() {
        return;
    }
    let mut rig = Rig::new(3);
    rig.constellation();
    let copy = rig.add();
    let leader = rig.await_leader(0, None);
    let other = (leader + 1) % 3;
    for node in [leader, other] {
        let (name, ip) = (rig.machine(node).name.clone(), rig.machine(node).ip.to_string());
        // It is started again at once: nobody takes it for another than it was.
        rig.kill_agent(node);
        rig.copy_folder(node, copy);
        let began = Instant::now();
        rig.start(node);
        rig.all_alive_of(&[0, 1, 2], 3);
        let before = rig.agent_pid(node);
        let (ended, took) = rig.start_in_vain(copy);
        ended.refused("C0211", &format!("node `{name}` runs already, at `{ip}:7946`"));
        assert!(ended.err.contains("rads c shutdown") && ended.err.contains("token"), "{}", ended.err);
        println!("the copy of `{name}` ended after {took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        // Its way to the node is cut: others can say that it is there.
        rig.cut(&[copy], &[node]);
        let (ended, took) = rig.start_in_vain(copy);
        ended.refused("C0211", &format!("node `{name}` runs already, at `{ip}"));
        println!("cut off from it after {took:?}");
        // It can ask nobody, so that it begins, and ends when it can. Of two that began within a second either may.
        rig.wait_for("the node to be the older one", || began.elapsed() > Duration::from_secs(2));
        rig.cut(&[copy], &[0, 1, 2]);
        rig.start(copy);
        rig.heal();
        assert_eq!(rig.exit_code(copy), 1);
        let log = std::fs::read_to_string(rig.machine(copy).log()).unwrap();
        assert!(log.lines().any(|line| line.starts_with("error[C0211]: ")), "{log}");
        rig.all_alive_of(&[0, 1, 2], 3);
        assert_eq!(rig.agent_pid(node), before);
        let events = rig.machine(other).rads(&["c", "events"]).ok();
        let told = format!("node `{name}` was started once more at `{}`", rig.machine(copy).ip);
        assert!(events.contains(&told), "{events}");
        // It still votes, and is voted for.
        rig.wait_for("a change", || rig.machine(node).rads(&["c", "cordon", &name]).code == 0);
        rig.machine(node).rads(&["c", "uncordon", &name]).ok();
    }
}
