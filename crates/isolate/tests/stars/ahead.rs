//! Stars from protostars, which a nursery at rest makes ahead.

use std::fs;

use isolate::Message;
use model::{Bytes, ExitCause};

use crate::kit::{Kit, kill, runs, until};
use crate::life::descendants;
use crate::{Test, Verdict};

pub(crate) const TESTS: &[Test] = &[
    ("a_star_made_ahead_is_the_one_ordered", ordered),
    ("a_protostar_that_died_becomes_no_star", dead),
    ("protostars_end_with_their_nursery", orphaned),
    ("a_nursery_killed_while_it_makes_stars_is_followed", followed),
];

/// How many a nursery at rest keeps.
const AHEAD: usize = 4;

/// The protostars of a nursery, once it has made them all.
pub(crate) fn protostars(kit: &Kit) -> Vec<u32> {
    let named = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "protostar\n");
    let found = || descendants(*kit.nursery.borrow()).into_iter().filter(|pid| named(pid) && runs(*pid)).collect();
    until(|| Some(found()).filter(|all: &Vec<u32>| all.len() == AHEAD), || format!("only {:?} are made", found()))
}

fn ordered(kit: &Kit) -> Verdict {
    let ready = protostars(kit);
    let tell = "cat /proc/sys/kernel/hostname /etc/hostname; echo $GREETING; pwd; cat hello.txt; echo; \
                stat -f -c '%b %S' /tmp; ls /proc/self/fd; echo ready; sleep 1000";
    let mut order = kit.command(&["sh", "-c", tell]);
    order.hostname = "made-ahead".to_owned();
    order.limits.memory = Some(Bytes::mib(64));
    let (pid, _) = kit.start(&order);
    assert!(ready.contains(&pid), "{pid} was not there before: {ready:?}");
    kit.said(order.star, "ready");
    let said = kit.log(order.star);
    let expected =
        ["made-ahead", "made-ahead", "hello", "/app", "from the bundle", "16384 4096", "0", "1", "2", "3", "ready"];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected, "3 is the listing's own");
    // An operator finds it by its name, also among the host's processes.
    let shown = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(String::from_utf8_lossy(&shown).trim_end_matches('\0'), "rads init of star made-ahead");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "made-ahead\n");
    // The limit bites, though the group is older than the order.
    if kit.walls.memory.is_yes() {
        let used = isolate::stats(&kit.data_dir, order.star).unwrap().memory_bytes.unwrap();
        assert!(used > 0 && used < 64 << 20, "{used}");
        let mut bomb = kit.script(&["eat"]);
        bomb.limits.memory = Some(Bytes::mib(32));
        protostars(kit);
        assert_eq!(kit.run(&bomb).0, ExitCause::OutOfMemory);
    }
    Verdict::Held
}

fn dead(kit: &Kit) -> Verdict {
    for pid in protostars(kit) {
        kill(pid);
    }
    for order in [kit.script(&["exit", "3"]), kit.command(&["sh", "-c", "exit 3"])] {
        assert_eq!(kit.run(&order).0, ExitCause::Code(3));
    }
    // Those that died are replaced.
    let ready = protostars(kit);
    let order = kit.script(&["idle"]);
    let (pid, _) = kit.start(&order);
    assert!(ready.contains(&pid));
    Verdict::Held
}

fn orphaned(kit: &Kit) -> Verdict {
    let star = kit.script(&["idle"]);
    let (pid, _) = kit.start(&star);
    let left: Vec<u32> = protostars(kit).into_iter().filter(|&protostar| protostar != pid).collect();
    assert!(!left.is_empty());
    kit.kill_nursery();
    until(|| left.iter().all(|&pid| !runs(pid)).then_some(()), || "a protostar goes on without its nursery");
    assert!(runs(pid), "the star itself does not mind");
    let folder = kit.data_dir.join("stars");
    let names = || -> Vec<String> {
        let entries = fs::read_dir(&folder).unwrap().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let old: Vec<String> = names().into_iter().filter(|name| name.starts_with("protostar-")).collect();
    let (stars, _) = kit.open();
    assert_eq!(stars.iter().map(|report| report.pid).collect::<Vec<_>>(), [pid]);
    assert!(names().iter().all(|name| !old.contains(name)), "{old:?} are still there");
    kit.send(&isolate::Request::Kill { star: star.star }, &[]);
    kit.expect(|message| matches!(message, Message::Exited { .. }));
    Verdict::Held
}

/// Whatever is being made when the nursery dies holds what it held for some more moments.
fn followed(kit: &Kit) -> Verdict {
    for round in 0..40 {
        std::thread::sleep(std::time::Duration::from_micros(round * 250));
        kit.kill_nursery();
        kit.open();
    }
    Verdict::Held
}
