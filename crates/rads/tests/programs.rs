//! Programs that deploy: the examples as they are, what a program may do, and what a star may.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{HELLO, World};

fn example(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(file)
}

/// A request: the status and the body.
fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(
            format!("{request} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").as_bytes(),
        )
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer[9..12].parse().unwrap(), answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

impl World {
    /// What a service's stars have said, without their names.
    fn said(&self, service: &str) -> Vec<String> {
        let out = self.rads(&["c", "logs", service]).out;
        out.lines().filter_map(|line| Some(line.split_once(" | ")?.1.to_owned())).collect()
    }

    /// Runs a script of the app's folder, as whoever runs this.
    #[track_caller]
    fn runs(&self, text: &str) -> Vec<String> {
        let script = self.file("program.rads", text);
        self.rads(&["run", script.to_str().unwrap()]).ok().lines().map(str::to_owned).collect()
    }
}

const COUNTED: [&str; 4] = ["3 texts, 24 words", "11 the", "6 is", "3 and"];

#[test]
fn the_pipeline_starts_a_star_for_each_text_as_a_program_and_as_a_star() {
    let world = World::new();
    let app = example("pipeline/app.rads");
    world.rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
    world.rads(&["c", "wait", "pipeline"]).ok();
    assert_eq!(world.said("pipeline"), COUNTED);
    let services = |world: &World| {
        let status = world.json(&["c", "status"]);
        let names =
            status["services"].as_array().unwrap().iter().map(|view| view["service"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(services(&world), ["pipeline"], "it leaves something behind");
    let audit = world.rads(&["c", "audit"]).ok();
    assert_eq!(audit.lines().filter(|line| line.contains("service pipeline: put app `count-")).count(), 3, "{audit}");
    let mut command = world.command(&["run", "pipeline.rads"]);
    let run = support::outcome(command.current_dir(example("pipeline")).output().unwrap()).ok();
    assert_eq!(run.lines().collect::<Vec<_>>(), COUNTED);
    assert_eq!(services(&world), ["pipeline"]);
}

#[test]
fn everybody_is_given_an_environment_that_ends() {
    let world = World::new();
    let app = example("dev-envs/app.rads");
    world.rads(&["up", "-d", "--yes", "--listen", "0", app.to_str().unwrap()]).ok();
    let office = world.address("dev-envs");
    let open = |person: &str| {
        let (status, body) = ask(office, &format!("PUT /{person}"));
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()
    };
    let (ann, bob) = (open("ann"), open("bob"));
    let address = |view: &Value| view["address"].as_str().unwrap().parse::<SocketAddr>().unwrap();
    assert_eq!(ask(address(&ann), "GET /"), (200, "hello ann\n".to_owned()));
    assert_eq!(ask(address(&bob), "GET /"), (200, "hello bob\n".to_owned()));
    let again = open("ann");
    assert_eq!(again["address"], ann["address"]);
    assert!(again["ends"].as_u64() > ann["ends"].as_u64(), "{again} {ann}");
    let shown = world.rads(&["c", "ns", "show", "dev-ann"]).ok();
    assert!(
        shown.starts_with("dev-ann: ends in 7 h 59 min") || shown.starts_with("dev-ann: ends in 8 h 0 min"),
        "{shown}"
    );
    let (status, body) = ask(office, "PUT /Not.A.Name");
    assert!(status == 422 && body.contains("is not a name"), "{status} {body}");
    assert_eq!(ask(office, "DELETE /ann").0, 204);
    world.wait_for("Ann's to be gone", || {
        let listed: Value = serde_json::from_str(&ask(office, "GET /").1).unwrap();
        let whose = listed.as_array().unwrap().iter().map(|view| view["whose"].as_str().unwrap());
        whose.collect::<Vec<_>>() == ["bob"] && TcpStream::connect(address(&ann)).is_err()
    });
}

#[test]
fn a_program_outside_of_stars_deploys_scales_waits_and_limits() {
    let world = World::new();
    // An agent that was started for an app is there as long as one is.
    world.up(&world.hello(""));
    world.file("server.rads", HELLO);
    world.file("once.rads", "echo(env.get(\"WORD\")); process.exit(env.get(\"WORD\") == \"bad\" ? 7 : 0);");
    let said = world.runs(
        r#"
        turbo web = constellation.deploy("web", script: "server.rads", port: 8080, listen: 0, ready: "/");
        echo(web.wait(60).ready);
        echo(web.scale(3).wait(60).ready, web.stars().length);
        web.restart().wait(60);
        constellation.deploy("web", { script: "server.rads", args: ["other"], port: 8080, listen: 0, ready: "/" }).wait(60);
        echo(web.status().version, web.rollback(1).wait(60).version);
        constellation.deploy("beside", { script: "server.rads", app: "web", instances: 0 });
        echo(constellation.service("beside").status().app, constellation.services().length);
        turbo good = constellation.create({ script: "once.rads", env: { WORD: "good" } });
        turbo bad = constellation.create({ name: "bad", script: "once.rads", env: { WORD: "bad" } });
        echo(good.wait(), good.output().trim(), good.status().state);
        echo(bad.wait().exit_code, bad.wait().ok, bad.name);
        turbo team = constellation.namespace("team", ttl_hours: 1, quota: { instances: 3 });
        turbo job = team.deploy("job", script: "once.rads", job: { inputs: ["a", "b"] });
        echo(job.wait(60).good, job.run().wait(60).number, team.services().length);
        blast refused(job) { try { job(); echo("it was not refused"); } catch (e) { echo(e.kind, e.data.code); } }
        refused(blast () { team.deploy("more", { script: "once.rads", instances: 3 }); });
        refused(blast () { constellation.deploy("web", { scrpt: "x" }); });
        refused(blast () { constellation.service("nowhere"); });
        refused(blast () { constellation.create({ name: "bad", script: "once.rads" }); });
        refused(blast () { constellation.deploy("web", { script: "missing.rads" }); });
        refused(blast () { team.set_quota({ ram: 1 }); });
        team.set_quota(instances: "none").deploy("more", { script: "once.rads", instances: 3, restart: "never" });
        constellation.enable_sharing("team", { cpu_borrow_percent: 50 });
        echo(team.status().cpu_borrow, team.enable_sharing(cpu_borrow_percent: "none").status().cpu_borrow ?? "none");
        echo(constellation.resources().nodes.length);
        try { constellation.deploy("late", { script: "server.rads", port: 8080, listen: 0, ready: "/nowhere" }).wait(0.2); } catch (e) { echo(e.kind); }
        team.delete(force: true);
        "#,
    );
    let expected = [
        "1",
        "3 3",
        "2 3",
        "web 3",
        "{ok: true, exit_code: 0, signal: null, reason: exit code 0} good ended",
        "7 false bad",
        "2 2 1",
        "capacity C0110",
        "value C0101",
        "not_found C0104",
        "conflict C0106",
        "value C0002",
        "value C0101",
        "50 none",
        "1",
        "timeout",
    ];
    assert_eq!(said, expected);
}

#[test]
fn programs_and_stars_reserve_places_and_have_stars_in_them() {
    let world = World::new();
    world.file("once.rads", "echo(\"ran\");");
    let reserves = r#"
        turbo r = constellation.reserve("lab", { places: 2, ram_mb: 30, for_seconds: 3600, priority: 60 });
        turbo held = r.wait(60);
        echo(held.places, held.held, held.free, held.from == null, held.until > time.now() + 3000);
        turbo one = constellation.create_from_reservation(r, { script: "once.rads", reserve_ram_mb: 20 });
        echo(one.wait(60).ok, one.output().trim());
        turbo two = r.deploy("two", { script: "once.rads", instances: 2, restart: "never", reserve_ram_mb: 30 });
        try { r.create({ script: "once.rads", reserve_ram_mb: 31 }); } catch (e) { echo(e.data.code); }
        echo(r.scale(3).wait(60).held);
        r.release();
        try { r.create({ script: "once.rads" }); } catch (e) { echo(e.data.code); }
    "#;
    let expected = ["2 2 2 true true", "true ran", "C0102", "3", "C0104"];
    world.up(&world.hello(""));
    assert_eq!(world.runs(reserves), expected);
    world.rads(&["c", "destroy", "two"]).ok();
    world.file("asks.rads", reserves);
    let options = "script: \"asks.rads\", assets: [\"once.rads\"], access: \"operator\", restart: \"never\"";
    let app = world.app(&format!("constellation.deploy(\"asks\", {{ {options} }});"));
    world.rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
    world.rads(&["c", "wait", "asks"]).ok();
    assert_eq!(world.said("asks"), expected);
}

#[test]
fn places_are_reserved_listed_and_released_by_hand() {
    let world = World::new();
    let said = world.rads(&["c", "reserve", "room", "--places", "2", "--ram-mb", "30"]).ok();
    assert!(said.contains("2 places to hold") && said.contains("room: 2 places held"), "{said}");
    let listed = world.json(&["c", "reservations"]);
    assert_eq!((&listed[0]["ready"], &listed[0]["free"]), (&2.into(), &2.into()), "{listed}");
    let refused = world.rads(&["c", "restart", "room"]);
    assert!(refused.code == 1 && refused.err.contains("is a reservation"), "{refused:?}");
    let released = world.rads(&["c", "release", "room"]).ok();
    assert!(released.contains("its places are free"), "{released}");
    assert_eq!(world.json(&["c", "reservations"]), serde_json::json!([]));
}

#[test]
fn a_star_without_access_is_told_so_and_one_that_loses_it_has_lost_it_at_once() {
    let world = World::new();
    world.file(
        "asks.rads",
        r#"
        while (true) {
            try { echo(constellation.services().length); } catch (e) { echo(e.message); }
            sleep(50);
        }
        "#,
    );
    let app = |access: &str| {
        let options = "update: { strategy: \"canary\", canary: 1 }, grace_seconds: 1";
        world.app(&format!(
            "constellation.deploy(\"asks\", {{ script: \"asks.rads\", instances: 2, {options}{access} }});"
        ))
    };
    let up = |access: &str| world.rads(&["up", "-d", "--yes", app(access).to_str().unwrap()]).ok();
    let plan = up(", access: \"viewer\"");
    assert!(plan.contains("access: viewer of its own namespace"), "{plan}");
    world.wait_for("both to be answered", || world.said("asks").iter().filter(|line| *line == "1").count() > 4);
    up("");
    let without =
        "the stars of service `asks` may ask for nothing: it has no `access` (give the service the option `access`";
    // Two stars are of the version before, and one of that on trial: none of them has any.
    let last = |star: &str| world.said(star).last().cloned().unwrap_or_default();
    let stars = world.stars();
    assert_eq!(stars.iter().filter(|star| star.phase != "ended").count(), 3, "{stars:?}");
    world.wait_for("none to be answered", || {
        world.stars().iter().filter(|star| star.phase != "ended").all(|star| last(&star.id).starts_with(without))
    });
    let audit = world.rads(&["c", "audit"]).ok();
    assert!(audit.contains("service asks: ask for something without any access: denied"), "{audit}");
    world.rads(&["c", "rollout", "abort", "asks"]).ok();
    // It does not come back with the version before.
    world.wait_for("none to be answered", || {
        let running: Vec<_> = world.stars().into_iter().filter(|star| star.phase != "ended").collect();
        running.len() == 2 && running.iter().all(|star| last(&star.id).starts_with(without))
    });
}
