//! Namespaces as a user has them: made, limited, and taken away with what is in them.

mod support;

use support::World;

const SHOP: &str = r#"constellation.deploy("web", {
    command: ["sh", "-c", "exec sleep 1000"], namespace: "dev", ram_mb: 32, instances: STARS, volumes: {"/data": "pages"},
});"#;

#[test]
fn a_quota_is_shown_before_and_held_and_what_is_in_a_namespace_goes_with_it() {
    let world = World::new();
    let app = |stars: &str| world.app(&SHOP.replace("STARS", stars)).to_str().unwrap().to_owned();
    world.rads(&["up", "-d", "--yes", &app("2")]).ok();
    world.rads(&["c", "ns", "create", "dev"]).refused("C0106", "there is a namespace `dev` already");
    world.rads(&["c", "ns", "set", "dev", "--ttl", "3d", "--quota", "instances=3,ram_mb=96"]).ok();
    let shown = world.rads(&["c", "ns", "show", "dev"]).ok();
    assert!(shown.starts_with("dev: ends in 3 d 0 h\n  1 app, 2 running stars, 0 secrets\n"), "{shown}");
    let row = shown.lines().find_map(|line| line.strip_prefix("stars ")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["2", "3", "1"], "{shown}");
    let plan = world.rads(&["c", "plan", &app("4")]);
    assert!(
        plan.code == 1 && plan.out.contains("quota of `dev`: stars 2 → 4 of 3, memory 64 MiB → 128 MiB"),
        "{plan:?}"
    );
    assert!(plan.out.contains("it will be refused: namespace `dev` may have 3 stars"), "{plan:?}");
    world
        .rads(&["up", "-d", "--yes", &app("4")])
        .refused("C0110", "may have 3 stars: 2 are used, 2 more are asked for");
    world
        .rads(&["c", "limits", "dev/web", "--ram-mb", "none"])
        .refused("C0110", "service `web` has no limit of memory");
    world.rads(&["c", "scale", "dev/web", "3"]).ok();
    // A machine that is alone keeps secrets beside its log; they are of the namespace all the same.
    let value = world.file("value", "hidden");
    world.rads(&["c", "secrets", "set", "dev/key", "--from-file", value.to_str().unwrap()]).ok();
    world.rads(&["c", "ns", "delete", "dev"]).refused("C0105", "is not empty");
    world
        .rads(&["c", "ns", "delete", "dev", "--force", "--volumes"])
        .refused("C0001", "would be deleted with their files");
    world.rads(&["c", "ns", "delete", "dev", "--force", "--volumes", "--yes"]).ok();
    world.wait_for("nothing is left of it", || {
        let (secrets, volumes) = (world.json(&["c", "secrets", "list"]), world.json(&["c", "volumes"]));
        secrets.as_array().unwrap().is_empty() && volumes.as_array().unwrap().is_empty()
    });
    let names = world.json(&["c", "ns", "list"]);
    assert_eq!(names.as_array().unwrap().len(), 1, "{names}");
    world.rads(&["c", "shutdown"]).ok();
    world.assert_nothing_left();
}

/// Each star keeps two fifths of the machine: two fit, and a third does not.
#[test]
fn what_a_namespace_has_beyond_its_quota_gives_way_to_what_is_anothers_own() {
    let world = World::new();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let kib: u64 = meminfo.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap();
    let megabytes = kib / 1_024 * 2 / 5;
    let app = |namespace: &str, priority: u32| {
        let text = format!(
            r#"import constellation;
            constellation.deploy("web", {{
                command: ["sh", "-c", "exec sleep 1000"], namespace: "{namespace}", ram_mb: {megabytes},
                reserve_ram_mb: {megabytes}, placement: {{ priority: {priority} }},
            }});"#
        );
        world.file(&format!("{namespace}.rads"), &text).to_str().unwrap().to_owned()
    };
    world.rads(&["up", "-d", "--yes", &app("dev", 90)]).ok();
    world.rads(&["c", "ns", "set", "dev", "--quota", "instances=1,burst_percent=100"]).ok();
    world.rads(&["c", "scale", "dev/web", "2"]).ok();
    world.rads(&["c", "scale", "dev/web", "3"]).refused("C0110", "may have 1 star, and 2 while there is room");
    let burst = || world.json(&["c", "ns", "show", "dev"])["burst_stars"].as_u64().unwrap_or_default();
    assert_eq!(burst(), 1);
    let plan = world.rads(&["c", "plan", &app("ops", 10)]);
    assert!(plan.out.contains("  web: 1 star of `dev/web` gives way for it\n"), "{plan:?}");
    world.rads(&["up", "-d", "--yes", &app("ops", 10)]).ok();
    assert_eq!(burst(), 0);
    let events = world.rads(&["c", "events"]).ok();
    assert!(events.contains("gives way to a star of `ops/web` (it was beyond the quota of `dev`)"), "{events}");
    let services = world.json(&["c", "status"])["services"].clone();
    let ready: Vec<u64> = services.as_array().unwrap().iter().filter_map(|view| view["ready"].as_u64()).collect();
    assert_eq!(ready, [1, 1], "{services}");
    world.rads(&["c", "shutdown"]).ok();
    world.assert_nothing_left();
}
