//! Limits as a user has them: asked for in a description, changed on the command line, refused in one line.

mod support;

use std::fs;

use support::World;

const WRITER: &str = r#"constellation.deploy("writer", {command: ["sh", "-c", "exec sleep 1000"], OPTIONS});"#;

fn up(world: &World, options: &str) -> String {
    let app = world.app(&WRITER.replace("OPTIONS", options));
    world.rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok()
}

fn down(world: &World) {
    world.rads(&["c", "down", "--all"]).ok();
    world.assert_nothing_left();
}

#[test]
fn a_disk_and_a_volume_hold_what_they_may() {
    let world = World::new();
    up(&world, "disk_mb: 16, volumes: {\"/data\": {name: \"pages\", size_mb: 8}}");
    let walls = world.json(&["c", "status"])["walls"].clone();
    let fill = |folder: &str| {
        let script = format!("dd if=/dev/zero of={folder}/x bs=1M count=40 2>&1; echo; stat -c %s {folder}/x");
        let said = world.rads(&["c", "exec", "writer", "--", "sh", "-c", &script]).ok();
        said.lines().last().unwrap().trim().parse::<u64>().unwrap() >> 20
    };
    assert!((8..=16).contains(&fill("/tmp")), "{walls}");
    if walls["disk"] == "memory" {
        assert!(walls["disk_in_memory"].as_str().unwrap().contains("root"), "{walls}");
    } else {
        assert!((1..=8).contains(&fill("/data")), "{walls}");
        assert!(world.rads(&["c", "status"]).ok().contains("disks of stars and sizes of volumes: by "), "{walls}");
    }
    world.rads(&["c", "limits", "writer", "--disk-mb", "1"]).refused("C0103", "at least 4 MiB, not 1 MiB");
    world.rads(&["c", "limits", "writer", "--disk-mb", "none"]).refused("C0103", "began with a disk of its own");
    down(&world);
}

#[test]
fn what_no_star_can_have_is_refused_and_changes_nothing() {
    let world = World::new();
    up(&world, "cpu_percent: 50");
    let before = world.json(&["c", "limits", "writer"]);
    for (option, value, code, says) in [
        ("--cpus", "0-1000", "C0107", "needs processor"),
        ("--cpus", "1-0", "C0001", "`1-0` is no list of processors"),
        ("--cpus", "", "C0001", "is no list of processors"),
        ("--cpu-burst-percent", "101", "C0102", "at most 100 %"),
        ("--io-read-mb-s", "0", "C0103", "reads at least 64 KiB a second"),
        ("--io-write-mb-s", "-1", "C0001", "--io-write-mb-s"),
        ("--log-kb-s", "0", "C0102", "between 1 KiB and 10 MiB"),
        ("--log-kb-s", "99999999", "C0102", "between 1 KiB and 10 MiB"),
        ("--disk-mb", "5000000", "C0102", "at most 4 TiB"),
        ("--ram-balloon", "yes", "C0001", "--ram-balloon"),
    ] {
        world.rads(&["c", "limits", "writer", &format!("{option}={value}")]).refused(code, says);
    }
    assert_eq!(world.json(&["c", "limits", "writer"]), before);
    world.rads(&["c", "limits", "writer", "--cpu-burst-percent", "20"]).ok();
    world.rads(&["c", "limits", "writer", "--cpu-percent", "none"]).refused("C0102", "a cpu burst is a part");
    down(&world);
}

#[test]
fn a_star_that_wants_more_than_its_own_borrows_what_nobody_wants() {
    let world = World::new();
    let spin =
        r#"constellation.deploy("spin", {command: ["sh", "-c", "while :; do :; done"], cpu_percent: 10, ram_mb: 16});"#;
    let app = world.app(spin);
    world.rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
    let walls = world.json(&["c", "status"])["walls"].clone();
    for wall in ["cpu_not_enforced", "cpu_borrow_not_enforced"] {
        if walls[wall].is_string() {
            println!("skipped: this machine lends nothing: {}", walls[wall]);
            return down(&world);
        }
    }
    let has = || world.json(&["c", "inspect", "spin-1"])["host"]["limits"]["cpu_millicores"].as_u64();
    assert_eq!(has(), Some(100));
    world.rads(&["c", "limits", "spin", "--cpu-borrow-percent", "400"]).ok();
    world.wait_for("more than its own", || has() == Some(500));
    // What its namespace lets it borrow is for those that say nothing of it themselves.
    world.rads(&["c", "ns", "set", "default", "--cpu-borrow-percent", "100"]).ok();
    world.wait_for("the same as before", || has() == Some(500));
    world.rads(&["c", "limits", "spin", "--cpu-borrow-percent", "none"]).ok();
    world.wait_for("as much as the namespace says", || has() == Some(200));
    world.rads(&["c", "ns", "set", "default", "--cpu-borrow-percent", "none"]).ok();
    world.wait_for("its own", || has() == Some(100));
    down(&world);
}

#[test]
fn limits_that_a_running_star_cannot_have_are_taken_back_and_hold_nothing_up() {
    let world = World::new();
    up(&world, "open_files: 64");
    let before = world.json(&["c", "limits", "writer"]);
    // More than its parent may give takes a capability; where the machine gives that, nothing is refused.
    let asked = world.rads(&["c", "limits", "writer", "--open-files", "128", "--cpu-percent", "33"]);
    if asked.code != 0 {
        asked.refused("C0103", "takes the capability SYS_RESOURCE");
        assert_eq!(world.json(&["c", "limits", "writer"]), before);
    }
    for command in [
        &["pause", "writer"][..],
        &["resume", "writer"],
        &["scale", "writer", "2"],
        &["limits", "writer", "--cpu-percent", "34"],
        &["restart", "writer"],
    ] {
        world.rads(&[&["c"], command].concat()).ok();
    }
    down(&world);
}

#[test]
fn a_soft_limit_follows_what_a_star_uses() {
    let world = World::new();
    let app = world.app(
        r#"constellation.deploy("eater", {command: ["perl", "-e", "$x = 'x' x (40 << 20); sleep 1000"], ram_mb: 256,
            ram_balloon: true});"#,
    );
    world.rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
    if !world.limits_bite() {
        world.rads(&["c", "down", "--all"]).ok();
        return;
    }
    let soft = || -> u64 {
        let mut groups = world.cgroups().into_iter().filter(|group| {
            let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            !processes.is_empty()
        });
        let soft = groups.find_map(|group| {
            let mut files = ["memory.high", "memory.soft_limit_in_bytes"].iter().map(|file| group.join(file));
            let bytes = files.find_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
            // Version 1 has a number for unlimited.
            bytes.filter(|bytes| *bytes < 1 << 40)
        });
        soft.unwrap_or(0) >> 20
    };
    world.wait_for("a soft limit", || soft() > 0);
    let first = soft();
    assert!((44..=160).contains(&first), "{first} MiB");
    assert_eq!(world.rads(&["c", "limits", "eater", "--ram-balloon", "off"]).code, 0);
    assert_eq!(soft(), 0, "it is unlimited again");
    world.rads(&["c", "limits", "eater", "--ram-soft-mb", "64"]).ok();
    assert_eq!(soft(), 64);
    world.rads(&["c", "limits", "eater", "--ram-balloon", "on"]).refused("C0102", "not both");
    down(&world);
}

#[test]
fn on_a_machine_short_of_memory_the_least_important_star_gives_way() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can let an agent see another machine's memory");
        return;
    }
    let world = World::new();
    let meminfo = |megabytes_left: u64| {
        let text = format!("MemTotal:        4194304 kB\nMemAvailable:    {} kB\n", megabytes_left << 10);
        world.file("meminfo", &text)
    };
    let app = world.app(
        r#"
        turbo eater = ["perl", "-e", "$x = 'x' x (40 << 20); sleep 1000"];
        constellation.deploy("vital", {command: eater, ram_mb: 128, placement: {priority: 80}});
        constellation.deploy("batch", {command: eater, ram_mb: 128, placement: {priority: 20}});
        "#,
    );
    world.rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
    if !world.limits_bite() {
        world.rads(&["c", "down", "--all"]).ok();
        return;
    }
    // The next agent sees what the test writes; stars, which the nursery starts, do not.
    support::kill_to_the_end(&world, world.agent_pid());
    let mut agent = std::process::Command::new("unshare");
    agent
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg("mount --bind \"$1\" /proc/meminfo; shift; exec \"$@\"");
    agent.args(["sh", meminfo(3_000).to_str().unwrap(), env!("CARGO_BIN_EXE_rads"), "c", "agent"]);
    agent.env("RADS_DATA", world.data()).env_remove("RADS_LOG").stderr(std::process::Stdio::null());
    let agent = support::Ended(agent.spawn().unwrap());
    world.wait_for("the next agent", || world.rads(&["c", "status"]).code == 0);

    let vital = || world.stars().into_iter().find(|star| star.name == "vital-1").map(|star| star.pid);
    let before = vital().unwrap();
    let restarts = |service: &str| world.service(service)["restarts"].as_u64().unwrap();
    assert_eq!(restarts("batch"), 0);

    meminfo(60);
    world.wait_for("a star that gives way", || restarts("batch") > 0);
    meminfo(3_000);
    let events = world.rads(&["c", "events"]).ok();
    assert!(events.contains("star `batch-1` ended: gave way: its machine had too little memory left"), "{events}");
    let is_ready = || world.service("batch")["ready"] == 1;
    world.wait_for("the next one", is_ready);
    assert_eq!((vital(), restarts("vital")), (Some(before), 0));
    world.rads(&["c", "shutdown"]).ok();
    drop(agent);
    world.assert_nothing_left();
}
