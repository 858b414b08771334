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
