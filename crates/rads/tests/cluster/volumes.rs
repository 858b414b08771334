//! Where volumes lie: what that machine's end, its rest and its loss mean for the services that have them; and how long a machine
//! takes to end that hears from nobody.

use std::time::{Duration, Instant};

use crate::rig::{Rig, possible};

/// Of an agent that says goodbye to a machine that is cut off, with what a busy machine adds.
const GOODBYE: Duration = Duration::from_secs(5);

/// A service with a volume and one without, and the machine where the volume lies.
#[track_caller]
fn up_with_volume(rig: &Rig) -> usize {
    let app = "import constellation;\n\
               constellation.deploy(\"book\", {command: [\"sh\", \"-c\", \"echo kept >> /data/x; exec sleep 1000\"], \
               volumes: {\"/data\": \"visits\"}, singleton: true, grace_seconds: 1, ram_mb: 16});\n\
               constellation.deploy(\"plain\", {command: [\"sleep\", \"1000\"], instances: 3, grace_seconds: 1, ram_mb: 16});\n";
    let app = rig.file("app.rads", app);
    rig.machine(0).rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
    rig.await_ready(0, 4, &[], Duration::from_secs(30));
    let stars = rig.stars(0);
    rig.named(&stars.iter().find(|star| star.name == "book-1").unwrap().node)
}

#[test]
#[ignore = "a minute: `cargo xtask test cluster`"]
fn a_volume_keeps_its_service_where_it_lies_and_is_not_given_up_unasked() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation();
    let home = up_with_volume(&rig);
    let (name, other) = (rig.machine(home).name.clone(), rig.machine((home + 1) % 3));
    // Whoever asks the agent itself, past the command, is refused as well.
    let (status, body) = rig.machine(home).ask("POST /v1/constellation/leave");
    assert!(status == 409 && body.contains("volume `visits` of `book` lies on node"), "{status} {body}");
    rig.machine(home).rads(&["c", "leave"]).refused("C0105", "volume `visits` of `book` lies on node");
    let own = other.node(&name).unwrap();
    assert_eq!((&own["health"], &own["duty"]), (&"alive".into(), &"takes".into()), "nothing changed");
    let drained = other.rads(&["c", "drain", &name, "--wait"]);
    assert!(
        drained.err.starts_with(&format!("1 star of `book` stays: volume `visits` lies on `{name}`")),
        "{drained:?}"
    );
    drained.refused("C0105", "volume `visits` lies on it and nowhere else");
    let there: Vec<String> = rig.stars(0).into_iter().filter(|star| star.node == name).map(|star| star.name).collect();
    assert_eq!(there, ["book-1"]);
    other.rads(&["c", "uncordon", &name]).ok();
    rig.die(home);
    rig.wait_for("it to be given up", || other.node(&name).is_some_and(|node| node["health"] == "dead"));
    for command in [&["c", "restart", "book"][..], &["c", "scale", "book", "1"]] {
        other.rads(command).refused("C0107", &format!("volume `visits` of `book` lies on node `{name}`"));
    }
    assert!(other.rads(&["c", "status"]).ok().contains(&format!("`visits` of `book` lies on node `{name}`")));
    other.rads(&["c", "remove", &name]).refused("C0105", "volume `visits` of `book` lies on node");
    assert_eq!(other.node(&name).unwrap()["health"], "dead", "nothing changed");
    let told = other.rads(&["c", "remove", &name, "--force"]).ok();
    assert_eq!(told, format!("{name}: removed; given up with it: volume `visits` of `book`\n"));
    let said = "given up with it: volume `visits` of `book`";
    assert!(other.rads(&["c", "events"]).ok().contains(said));
    assert!(other.rads(&["c", "audit"]).ok().contains(said));
    rig.wait_for("its service elsewhere", || rig.stars((home + 1) % 3).iter().any(|star| star.name == "book-1"));
}

#[test]
#[ignore = "a minute: `cargo xtask test cluster`"]
fn a_machine_that_hears_from_nobody_ends_as_fast_as_its_stars() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation();
    // One that votes alone would go on leading.
    rig.wait_for("three voters", || rig.machine(0).nodes().iter().filter(|node| node["votes"] == true).count() == 3);
    let home = up_with_volume(&rig);
    let others: Vec<usize> = rig.all().filter(|at| *at != home).collect();
    // A peer that is cut off answers no goodbye.
    let keeps = others[0];
    rig.cut(&[keeps], &[others[1]]);
    let since = Instant::now();
    rig.machine(keeps).rads(&["c", "shutdown", "--keep-stars"]).ok();
    println!("an agent with a peer that is cut off ended after {:?}", since.elapsed());
    assert!(since.elapsed() < GOODBYE, "{:?}", since.elapsed());
    rig.ended(keeps);
    // Without a leader no log will know that the stars have ended.
    rig.cut(&[home], &others);
    let machine = rig.machine(home);
    rig.wait_for("changes to be refused", || machine.rads(&["c", "scale", "plain", "3"]).code != 0);
    let since = Instant::now();
    let ended = machine.rads(&["c", "shutdown"]);
    println!("an agent without a leader ended after {:?}: {}", since.elapsed(), ended.err);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(since.elapsed() < GOODBYE, "{:?}", since.elapsed());
    assert!(ended.err.contains("waiting for"), "{ended:?}");
}
