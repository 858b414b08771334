//! Snapshots: what stars wrote is kept at one moment, and brought back.

mod support;

use std::fs;
use std::path::PathBuf;

use support::World;

fn volume(world: &World, name: &str) -> PathBuf {
    world.data().join("volumes/default").join(name)
}

fn number(path: PathBuf) -> u64 {
    fs::read_to_string(&path).unwrap().trim().parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn app(world: &World, script: &str) -> PathBuf {
    world.app(&format!(
        "constellation.deploy(\"hello\", {{command: [\"sh\", \"-c\", \"{script}\"], instances: 2, volumes: {{\"/data\": \"pages\"}}}});"
    ))
}

#[test]
fn a_snapshot_is_of_one_moment_and_comes_back() {
    let world = World::new();
    // Each number is put in two files, one after the other: at any moment they differ by one at most.
    let script = "put() { echo $n > /data/$STAR_NAME.new; mv /data/$STAR_NAME.new /data/$STAR_NAME.$1; }; \
                  n=0; while :; do n=$((n+1)); put first; put second; done";
    world.rads(&["up", "-d", "--yes", app(&world, script).to_str().unwrap()]).ok();
    let pages = volume(&world, "pages");
    world.wait_for("both to write", || {
        ["hello-1", "hello-2"].iter().all(|n| pages.join(format!("{n}.second")).exists())
    });
    let before = world.stars();
    for round in 0..3 {
        let taken = world.json(&["c", "snapshot", "hello", "--as", &format!("round-{round}")]);
        assert_eq!(
            (taken["stars"].as_u64(), taken["snapshot"]["name"].as_str()),
            (Some(2), Some(&*format!("round-{round}"))),
            "{taken}"
        );
    }
    // They went on, the same processes.
    let last = number(pages.join("hello-1.first"));
    world.wait_for("them to go on", || {
        fs::read_to_string(pages.join("hello-1.first"))
            .is_ok_and(|text| text.trim().parse().is_ok_and(|n: u64| n > last + 10))
    });
    assert_eq!(world.stars(), before);
    world
        .rads(&["c", "snapshot", "hello", "--as", "round-0"])
        .refused("C0105", "there is a snapshot `round-0` already");

    let said = world.rads(&["c", "snapshots"]).ok();
    assert!(said.starts_with("SNAPSHOT") && said.contains("round-2   hello"), "{said}");
    world.rads(&["c", "stop", "hello"]).ok();
    let now = number(pages.join("hello-1.first")).max(number(pages.join("hello-2.first")));
    for round in 0..3 {
        let restored = world.rads(&["c", "restore", &format!("round-{round}")]).ok();
        assert!(restored.contains("restored to pages"), "{restored}");
        for star in ["hello-1", "hello-2"] {
            let first = number(pages.join(format!("{star}.first")));
            let second = number(pages.join(format!("{star}.second")));
            assert!(first == second || first == second + 1, "round {round}: {first} {second}");
            assert!(first <= now);
        }
    }
    // With stars that run, they are stopped and started for it.
    world.rads(&["c", "start", "hello"]).ok();
    let said = world.rads(&["c", "restore", "round-1", "hello"]).ok();
    assert!(said.ends_with("hello: 2 stars ready\n"), "{said}");
    assert_eq!(world.rads(&["c", "snapshots", "delete", "round-1"]).ok(), "round-1: deleted\n");
    world.rads(&["c", "restore", "round-1"]).refused("C0", "no snapshot `round-1`");
    world.rads(&["c", "down"]).ok();
    world.assert_nothing_left();
}

#[test]
fn a_star_held_still_goes_on_when_the_agent_dies() {
    let world = World::new();
    world.rads(&["up", "-d", "--yes", app(&world, "while :; do date +%N > /data/now; done").to_str().unwrap()]).ok();
    let pages = volume(&world, "pages");
    // So much that a snapshot takes a while.
    world.wait_for("its volume", || pages.exists());
    fs::write(pages.join("large"), (0..50_000_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    let mut taking = world.command(&["c", "snapshot", "hello"]);
    let mut taking = support::Ended(taking.stderr(std::process::Stdio::null()).spawn().unwrap());
    world.wait_for("it to begin", || {
        world.data().join("snapshots/.pieces").read_dir().is_ok_and(|mut dir| dir.next().is_some())
    });
    support::kill(world.agent_pid(), "-9");
    let _ = taking.0.wait();
    let now = || fs::read_to_string(pages.join("now")).unwrap_or_default();
    let before = now();
    world.wait_for("the star to write", || !now().is_empty() && now() != before);
    let app = world.data().parent().unwrap().join("hello/app.rads");
    world.rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
    assert_eq!(world.json(&["c", "snapshots"]).as_array().unwrap().len(), 0);
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let world = World::new();
    world.up(&world.hello("instances: 1"));
    world.rads(&["c", "snapshot", "hello"]).refused("C0105", "service `hello` has no volumes");
    world.rads(&["c", "snapshot", "nobody"]).refused("C0", "no service or star `nobody`");
    world.rads(&["c", "snapshot", "hello", "--as", "../up"]).refused("C0", "is not a name");
    world.rads(&["c", "snapshot", "hello", "--as", "a\nb"]).refused("C0", "is not a name");
    world.rads(&["c", "restore", "../../etc"]).refused("C0", "is not a name");
    world.rads(&["c", "restore", "nothing"]).refused("C0", "no snapshot `nothing`");
    world.rads(&["c", "snapshots", "delete", "nothing"]).refused("C0", "no snapshot `nothing`");
    assert_eq!(world.rads(&["c", "snapshots"]).ok(), "no snapshots; take one with `rads c snapshot SERVICE`\n");
}
