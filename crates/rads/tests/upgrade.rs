//! `rads c upgrade`: another program looks after the same stars.

mod support;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use serde_json::Value;
use support::{Outcome, World, get, kill, outcome};

/// The same program in another file: to the kernel, and to us, another.
fn another(world: &World) -> PathBuf {
    let path = world.data().parent().unwrap().join("rads-2");
    // By a program of its own: what this process holds open for writing, a child made meanwhile holds too, and nobody can
    // execute it.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_rads")).arg(&path).status().unwrap();
    assert!(copied.success());
    path
}

fn run(world: &World, program: &PathBuf, args: &[&str]) -> Outcome {
    outcome(Command::new(program).args(args).env("RADS_DATA", world.data()).output().unwrap())
}

/// The file that a process runs: by device and number, for a nursery without privileges runs it from a mount of its own.
fn program_of(pid: u32) -> (u64, u64) {
    file(format!("/proc/{pid}/exe"))
}

fn file(path: impl AsRef<std::path::Path>) -> (u64, u64) {
    let found = std::fs::metadata(path).unwrap();
    (found.dev(), found.ino())
}

fn nursery_pid(world: &World) -> u32 {
    world.json(&["c", "status"])["walls"]["nursery_pid"].as_u64().unwrap() as u32
}

#[test]
fn nursery_and_agent_become_the_new_program_and_the_stars_run_on() {
    let world = World::new();
    // A port of its own: one that any free one will do for may be another one under the next agent.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // Slow, so that there are requests on their way whenever an agent leaves.
    world.file("hello.rads", &support::HELLO.replace("return name;", "sleep(30); return name;"));
    let app = format!(
        "constellation.deploy(\"hello\", {{script: \"hello.rads\", port: 8080, listen: {free}, instances: 3}});"
    );
    let address = world.up(&world.app(&app));
    let (before, agent, nursery) = (world.stars(), world.agent_pid(), nursery_pid(&world));
    let new = another(&world);
    let stop = Arc::new(AtomicBool::new(false));
    let client = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let (mut well, mut refused) = (0, 0);
            while !stop.load(SeqCst) {
                match get(address) {
                    Ok((200, _)) => well += 1,
                    Ok(other) => panic!("{other:?}"),
                    // While one agent has left and the next is not there.
                    Err(_) => refused += 1,
                }
            }
            (well, refused)
        }
    });

    let said: Value = serde_json::from_str(&run(&world, &new, &["c", "upgrade", "-o", "json"]).ok()).unwrap();
    assert_eq!(said["nursery"]["stars"], 3, "{said}");
    assert!(said["nursery"]["pause_us"].as_u64().unwrap() > 0, "{said}");
    assert_eq!(said["agent"]["pid_before"], agent, "{said}");
    assert!(said["agent"]["entry_points_down_ms"].is_u64(), "{said}");
    assert_eq!(world.stars(), before, "the same processes");
    assert_eq!(nursery_pid(&world), nursery, "the same process");
    assert_ne!(world.agent_pid(), agent);
    assert_eq!(program_of(nursery), file(&new));
    assert_eq!(program_of(world.agent_pid()), file(&new));
    world.wait_for("an answer", || get(address).is_ok_and(|(status, _)| status == 200));
    stop.store(true, SeqCst);
    let (well, refused) = client.join().unwrap();
    println!("{well} requests answered, {refused} connections refused meanwhile; {said}");
    assert!(well > 0);

    let again = run(&world, &new, &["c", "upgrade"]).ok();
    assert_eq!(again, "nursery  is this program already\nagent    is this program already\n");
    // Back to the one before: an upgrade has no direction.
    let back = world.rads(&["c", "upgrade"]).ok();
    assert!(back.starts_with("nursery  is this program now; 3 stars ran on, it paused for "), "{back}");
    assert!(back.contains("agent    is this program now, pid "), "{back}");
    assert_eq!(world.stars(), before);
    world.wait_for("an answer", || get(address).is_ok_and(|(status, _)| status == 200));
    world.rads(&["c", "down"]).ok();
    world.assert_nothing_left();
}

#[test]
fn a_new_agent_has_the_nursery_follow() {
    let world = World::new();
    world.up(&world.hello("instances: 2"));
    let (before, nursery) = (world.stars(), nursery_pid(&world));
    kill(world.agent_pid(), "-9");
    world.wait_for("the agent to die", || world.rads(&["c", "version"]).out.contains("no agent"));
    let new = another(&world);
    let app = world.data().parent().unwrap().join("hello/app.rads");
    run(&world, &new, &["up", "-d", "--yes", app.to_str().unwrap()]).ok();
    world.wait_for("the nursery to follow", || program_of(nursery) == file(&new));
    assert_eq!(world.stars(), before);
    assert_eq!(nursery_pid(&world), nursery);
}

#[test]
fn what_cannot_be_upgraded_is_said() {
    let world = World::new();
    world.rads(&["c", "upgrade"]).refused("C0201", "no agent answers");
    // An agent in the foreground belongs to whoever started it.
    let mut agent = world.command(&["c", "agent"]);
    let agent = support::Ended(agent.stderr(std::process::Stdio::null()).spawn().unwrap());
    world.wait_for("the agent", || world.rads(&["c", "status"]).code == 0);
    world.wait_for("the nursery", || !world.json(&["c", "status"])["walls"].is_null());
    let new = another(&world);
    run(&world, &new, &["c", "upgrade"]).refused("C0", "was not started in the background");
    assert_eq!(world.agent_pid(), agent.0.id());
    assert_eq!(program_of(nursery_pid(&world)), file(&new));
    world.rads(&["c", "shutdown"]).ok();
    world.assert_nothing_left();
}
