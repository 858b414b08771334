//! A disk that fails to sync, once, under a voter's log.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::clients::{Writer, none_lost, up_hello};
use crate::rig::{Rig, possible};

/// What the process ends with: `EX_IOERR` of `sysexits.h`.
const EXIT_DISK_FAILED: i32 = 74;

/// The library that makes syncs fail, built where the rig keeps its files.
fn shim(rig: &Rig) -> Option<PathBuf> {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/shim/failing_sync.c");
    let library = rig.place("failing_sync.so");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).output();
    match built {
        Ok(output) if output.status.success() => Some(library),
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            println!("skipped: no C compiler: {error}");
            None
        }
    }
}

#[test]
#[ignore = "a minute: `cargo xtask test cluster`"]
fn a_failed_sync_ends_its_agent_at_once_and_what_it_was_for_is_never_acknowledged() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    let Some(library) = shim(&rig) else { return };
    rig.env.borrow_mut().push(("LD_PRELOAD".to_owned(), library.display().to_string()));
    rig.constellation();
    up_hello(&rig, 0, 1);
    let log = |at: usize| rig.machine(at).data().join("constellation/log");
    // The control: with the library loaded and nothing asked of it, syncs are syncs.
    let writer = Writer::start(&rig);
    rig.wait_for("writes", || writer.acknowledged() >= 20);
    for at in rig.all() {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", rig.agent_pid(at))).unwrap();
        assert!(maps.contains("failing_sync.so"), "the library is not loaded: is the program static?");
        assert!(!log(at).join("sync-failed").exists());
    }
    for role in ["the leader", "a follower"] {
        let leader = rig.await_leader(0, None);
        let victim = if role == "the leader" { leader } else { rig.all().find(|at| *at != leader).unwrap() };
        let others: Vec<usize> = rig.all().filter(|at| *at != victim).collect();
        let trigger = log(victim).join("fail");
        std::fs::write(&trigger, "").unwrap();
        rig.wait_for("a sync to fail", || !trigger.exists());
        let failed = Instant::now();
        assert_eq!(rig.exit_code(victim), EXIT_DISK_FAILED);
        let took = failed.elapsed();
        println!("{role}: ended {took:?} after its sync failed");
        assert!(took < Duration::from_secs(1), "{took:?}");
        let words = std::fs::read_to_string(rig.machine(victim).log()).unwrap();
        assert!(words.contains("a sync failed"), "{words}");
        assert!(log(victim).join("sync-failed").exists(), "the log is marked");
        let before = writer.acknowledged();
        rig.wait_for("writes without it", || writer.acknowledged() >= before + 10);
        rig.await_leader(others[0], Some(victim));
        // Its successor says what happened, reads what the disk has, and writes that anew.
        rig.start(victim);
        rig.all_alive(3);
        let words = std::fs::read_to_string(rig.machine(victim).log()).unwrap();
        assert!(words.contains("a sync of the log had failed"), "{words}");
        assert!(!log(victim).join("sync-failed").exists(), "the mark is gone when the file is new");
    }
    let (acknowledged, refusals) = writer.end();
    println!("{} writes acknowledged, {} refused or unknown", acknowledged.len(), refusals.len());
    none_lost(&rig, &acknowledged);
}
