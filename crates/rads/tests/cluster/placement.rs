//! Machines that are for some only, a service on each of them, and who has the room where there is not enough for all.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::rig::{Rig, possible};

/// How many stars of a service are ready, by machine.
fn on(rig: &Rig, service: &str) -> BTreeMap<String, usize> {
    let mut on = BTreeMap::new();
    let stars = rig.machine(0).json(&["c", "list"]);
    let word = |star: &serde_json::Value, key: &str| star[key].as_str().unwrap_or_default().to_owned();
    for star in stars.as_array().unwrap() {
        if word(star, "service") == service && word(star, "phase") == "ready" {
            *on.entry(word(star, "node_name")).or_default() += 1;
        }
    }
    on
}

#[track_caller]
fn must_be_on(rig: &Rig, service: &str, expected: &[(&str, usize)]) {
    let expected: BTreeMap<String, usize> = expected.iter().map(|(node, stars)| ((*node).to_owned(), *stars)).collect();
    rig.wait_within(&format!("`{service}` on {expected:?}"), Duration::from_secs(30), || on(rig, service) == expected);
}

#[test]
#[ignore = "half a minute: `cargo xtask test cluster`"]
fn machines_are_kept_for_some_and_what_is_higher_has_the_room() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation();
    rig.file("sleeper.rads", "echo(\"here\"); loop { sleep(60); }");
    let up = |app: &str, placement: &str, options: &str| {
        let text = format!(
            "import constellation;\nconstellation.deploy(\"{app}\", {{script: \"sleeper.rads\", \
             grace_seconds: 1, placement: {{{placement}}}, {options}}});\n"
        );
        let path = rig.file(&format!("{app}.rads"), &text);
        rig.machine(0).rads(&["up", "-d", "--yes", path.to_str().unwrap()])
    };
    rig.machine(1).rads(&["c", "taint", "c", "gpu=a100"]).ok();
    up("web", "", "instances: 4").ok();
    must_be_on(&rig, "web", &[("a", 2), ("b", 2)]);
    up("each", "every_node: true, tolerate: [\"gpu = a100\"]", "").ok();
    must_be_on(&rig, "each", &[("a", 1), ("b", 1), ("c", 1)]);
    rig.machine(0).rads(&["c", "scale", "each", "5"]).refused("C0", "has a star on every node");
    let explained = rig.machine(2).rads(&["c", "explain", "web"]).ok();
    assert!(explained.contains("it is tainted `gpu = a100`, which the service does not tolerate"), "{explained}");
    assert!(rig.machine(0).rads(&["c", "nodes"]).ok().contains("tainted gpu = a100"));

    // Who does not tolerate it leaves; when it is gone, all may come again.
    rig.machine(1).rads(&["c", "taint", "b", "old", "--evict"]).ok();
    must_be_on(&rig, "web", &[("a", 4)]);
    must_be_on(&rig, "each", &[("a", 1), ("c", 1)]);
    rig.machine(2).rads(&["c", "untaint", "b", "old"]).ok();
    must_be_on(&rig, "each", &[("a", 1), ("b", 1), ("c", 1)]);

    // All of `web` are on `a` though `b` takes them again: they move when somebody says so.
    let told = rig.machine(1).json(&["c", "rebalance", "--dry-run"]);
    let told: Vec<_> =
        told.as_array().unwrap().iter().map(|step| [&step["service"], &step["from"], &step["to"]]).collect();
    assert_eq!(serde_json::json!(told), serde_json::json!([["web", "a", "b"], ["web", "a", "b"]]));
    must_be_on(&rig, "web", &[("a", 4)]);
    let said = rig.machine(1).rads(&["c", "rebalance", "web"]).ok();
    assert!(said.contains("web: 4 stars ready"), "{said}");
    assert_eq!(on(&rig, "web"), [("a".to_owned(), 2), ("b".to_owned(), 2)].into());

    // All that `c` has is kept for what is low, and what is higher takes a part of it.
    rig.machine(0).rads(&["c", "untaint", "c", "gpu"]).ok();
    let whole = rig.machine(0).json(&["c", "nodes"])[0]["facts"]["memory"].as_u64().unwrap() >> 20;
    let third = whole * 3 / 10;
    let on_c = "require: [\"node = c\"]";
    up("low", &format!("{on_c}, priority: 10"), &format!("instances: 3, ram_mb: {third}, reserve_ram_mb: {third}"))
        .ok();
    must_be_on(&rig, "low", &[("c", 3)]);
    up("high", &format!("{on_c}, priority: 90"), &format!("ram_mb: {third}, reserve_ram_mb: {third}")).ok();
    must_be_on(&rig, "high", &[("c", 1)]);
    must_be_on(&rig, "low", &[("c", 2)]);
    let events = rig.machine(0).rads(&["c", "events"]).ok();
    assert!(events.contains("gives way to a star of `high` (priority 90 over 10)"), "{events}");
    let explained = rig.machine(1).rads(&["c", "explain", "low"]).ok();
    assert!(explained.contains(&format!("a star keeps {third} MiB of memory, ")), "{explained}");
    // It comes back when there is room.
    rig.machine(0).rads(&["c", "destroy", "high"]).ok();
    must_be_on(&rig, "low", &[("c", 3)]);
}
