//! What takes long: every agent replaced under load, and a clock that jumps.

use std::time::Duration;

use crate::clients::{Load, Writer, none_lost, up_hello};
use crate::rig::{Rig, possible};

#[test]
#[ignore = "minutes: `cargo xtask test cluster`"]
fn every_agent_is_started_anew_under_load_and_no_request_is_lost() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation();
    up_hello(&rig, 0, 3);
    rig.await_ready(0, 3, &[], Duration::from_secs(30));
    for at in rig.all() {
        // Requests come in at the others: an entry point is where its agent is.
        let doors: Vec<usize> = rig.all().filter(|door| *door != at).collect();
        let loads: Vec<Load> = doors.iter().map(|door| Load::start(&rig, *door)).collect();
        rig.wait_for("requests", || loads.iter().all(|load| load.answered() > 50));
        rig.machine(at).rads(&["c", "shutdown", "--keep-stars"]).ok();
        rig.ended(at);
        rig.start(at);
        rig.all_alive(3);
        let before: u64 = loads.iter().map(Load::answered).sum();
        rig.wait_for("more requests", || loads.iter().map(Load::answered).sum::<u64>() > before + 100);
        for load in loads {
            let (answered, errors) = load.end();
            println!("`{}` anew: {answered} answered, {} not", rig.machine(at).name, errors.len());
            assert!(errors.is_empty(), "{errors:?}");
        }
    }
}

#[test]
#[ignore = "minutes: `cargo xtask test cluster`"]
fn clocks_that_jump_a_day_change_nothing() {
    if !possible() {
        return;
    }
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    if !std::path::Path::new(library).exists() {
        println!("skipped: libfaketime is not installed");
        return;
    }
    let rig = Rig::new(3);
    let offset = rig.file("offset", "+0");
    rig.env.borrow_mut().extend([
        ("LD_PRELOAD".to_owned(), library.to_owned()),
        ("FAKETIME_TIMESTAMP_FILE".to_owned(), offset.display().to_string()),
        ("FAKETIME_NO_CACHE".to_owned(), "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC".to_owned(), "1".to_owned()),
    ]);
    rig.constellation();
    up_hello(&rig, 0, 3);
    rig.await_ready(0, 3, &[], Duration::from_secs(30));
    let ids = |rig: &Rig| {
        let mut ids: Vec<String> = rig.stars(0).into_iter().map(|star| star.id).collect();
        ids.sort();
        ids
    };
    let before = ids(&rig);
    let writer = Writer::start(&rig);
    for jump in ["+23h", "-23h", "+0"] {
        std::fs::write(&offset, jump).unwrap();
        let acknowledged = writer.acknowledged();
        rig.wait_for(&format!("writes at {jump}"), || writer.acknowledged() >= acknowledged + 10);
        rig.all_alive(3);
    }
    let (acknowledged, _) = writer.end();
    none_lost(&rig, &acknowledged);
    assert_eq!(ids(&rig), before, "no star was touched");
}
