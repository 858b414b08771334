//! The turns of a star's life as a user has them: what runs before and after, pauses, deadlines, probes from within.

mod support;

use support::{World, get, kill};

#[test]
fn a_paused_service_stands_still_and_goes_on_where_it_was() {
    let world = World::new();
    let app = world.hello("instances: 2");
    let address = world.up(&app);
    let before = world.stars();
    assert_eq!(world.rads(&["c", "pause", "hello"]).ok(), "hello: paused\n");
    let stars = world.json(&["c", "list"]);
    assert!(stars.as_array().unwrap().iter().all(|star| star["phase"] == "paused"), "{stars}");
    assert_eq!(get(address).unwrap().0, 503);
    world.rads(&["c", "exec", "hello", "--", "true"]).refused("C0105", "it is paused");
    // Whoever looks after them changes, they do not.
    kill(world.agent_pid(), "-9");
    let mut agent = world.command(&["c", "agent"]).spawn().unwrap();
    world.wait_for("the next agent", || world.rads(&["c", "status"]).code == 0);
    assert_eq!(world.service("hello")["paused"], true);
    let plan = world.rads(&["c", "plan", app.to_str().unwrap()]);
    assert!(plan.code == 2 && plan.out.contains("hello: paused, will go on"), "{plan:?}");
    assert_eq!(world.rads(&["c", "resume", "hello"]).ok(), "hello: 2 stars ready\n");
    assert_eq!(get(world.address("hello")).unwrap().0, 200);
    assert_eq!(world.stars(), before, "the same processes");
    // Paused stars are stopped like any other.
    world.rads(&["c", "pause", "hello"]).ok();
    assert_eq!(world.rads(&["c", "stop", "hello"]).ok(), "hello: stopped\n");
    world.rads(&["c", "pause", "hello"]).refused("C0105", "is stopped");
    world.up(&app);
    world.rads(&["c", "pause", "hello"]).ok();
    world.rads(&["c", "down", "--all"]).ok();
    world.rads(&["c", "shutdown"]).ok();
    agent.wait().unwrap();
    world.assert_nothing_left();
}

#[test]
fn hooks_run_at_their_turns_and_their_output_is_in_the_log() {
    let world = World::new();
    let app = world.hello(
        "before_start: [\"sh\", \"-c\", \"echo before $STAR_NAME on $PORT; test ! -e /data/broken\"], \
         before_stop: [\"sh\", \"-c\", \"echo after $STAR_NAME\"], volumes: {\"/data\": \"marks\"}",
    );
    world.up(&app);
    assert_eq!(
        world.rads(&["c", "logs", "hello"]).ok(),
        "hello-1 | before hello-1 on 8080\nhello-1 | hello-1 begins\n"
    );
    world.rads(&["c", "exec", "hello-1", "--", "touch", "/data/broken"]).ok();
    world.rads(&["c", "stop", "hello"]).ok();
    let log = world.rads(&["c", "logs", "hello-1", "--previous"]).ok();
    assert!(log.ends_with("hello-1 | after hello-1\n"), "{log}");
    // One that fails keeps the program from starting.
    world.rads(&["c", "start", "hello"]).refused("C0", "to be run before it, ended with exit code 1");
    let events = world.rads(&["c", "events"]).ok();
    assert!(events.contains("star `hello-1` ended: not started: `sh -c"), "{events}");
    world.rads(&["c", "down", "--all"]).ok();
    world.assert_nothing_left();
}

#[test]
fn a_star_that_runs_into_its_deadline_ends_and_says_so() {
    let world = World::new();
    let app = world.app(
        "constellation.deploy(\"job\", {command: [\"sleep\", \"1000\"], restart: \"never\", deadline_seconds: 0.5});",
    );
    world.rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
    let waited = world.rads(&["c", "wait", "job", "--timeout", "30s"]);
    assert_eq!((waited.code, waited.out.as_str()), (1, "job-1  ran into its deadline\n"));
    assert_eq!(world.service("job")["started"], 1);
    let status = world.rads(&["c", "status"]).ok();
    assert!(status.ends_with("  ended\n"), "{status}");
    world.rads(&["c", "down", "--all"]).ok();
}

#[test]
fn a_star_is_ready_when_a_script_or_a_command_within_it_says_so() {
    let world = World::new();
    world.file(
        "well.rads",
        "turbo answer = http.get(`http://127.0.0.1:${env.get(\"PORT\")}/`);\n\
         if (fs.exists(\"/data/ill\")) { echo(\"coughing\"); process.exit(3); }\n\
         if (answer.body != env.get(\"STAR_NAME\")) { throw `it said ${answer.body}`; }\n",
    );
    world.file("hello.rads", support::HELLO);
    let service = |name: &str, ready: &str| {
        format!(
            "constellation.deploy(\"{name}\", {{script: \"hello.rads\", port: 8080, listen: 0, \
             volumes: {{\"/data\": \"{name}\"}}, ready: {{{ready}, interval_ms: 20}}}});\n"
        )
    };
    let app = world.app(
        &(service("hello", "script: \"well.rads\"")
            + &service("other", "exec: [\"test\", \"!\", \"-e\", \"/data/ill\"]")),
    );
    world.up(&app);
    for name in ["hello", "other"] {
        assert_eq!(get(world.address(name)).unwrap(), (200, format!("{name}-1")));
        let ill = |command: &str| {
            world.rads(&["c", "exec", name, "--", command, "/data/ill"]).ok();
        };
        ill("touch");
        world.wait_for("the star to be taken out", || get(world.address(name)).unwrap().0 == 503);
        ill("rm");
        world.wait_for("the star to be taken back", || get(world.address(name)).unwrap().0 == 200);
    }
    world.rads(&["c", "down", "--all"]).ok();
    world.assert_nothing_left();
}

#[test]
fn a_probe_whose_time_is_over_is_ended() {
    let world = World::new();
    let app = world.app(
        "constellation.deploy(\"slow\", {command: [\"sleep\", \"1000\"], \
         ready: {exec: [\"sleep\", \"617\"], timeout_ms: 30, start_seconds: 1.5}});",
    );
    let mut up = world.command(&["up", "-d", "--yes", app.to_str().unwrap()]).spawn().unwrap();
    let sleeping = || {
        let lines = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = lines.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
        lines.filter(|line| line == "sleep\x00617\x00").count()
    };
    let mut most = 0;
    world.wait_for("the star to be given up", || {
        most = most.max(sleeping());
        let status = world.rads(&["c", "status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_str(&status.out).unwrap_or_default();
        status["services"][0]["restarts"].as_u64() >= Some(1)
    });
    assert!((1..=2).contains(&most), "{most} probes ran at once");
    let _ = world.rads(&["c", "down", "--all"]);
    up.wait().unwrap();
    world.wait_for("the last probe to end", || sleeping() == 0);
    world.assert_nothing_left();
}

#[test]
fn a_command_is_told_its_port() {
    let world = World::new();
    let app = world.app(
        "constellation.deploy(\"web\", {command: [\"sh\", \"-c\", \"echo $0 $URL; sleep 1000\", \"--port=$PORT\"], \
         port: 7070, listen: 0, ready: {exec: [\"true\"]}, env: {URL: \"http://$STAR_NAME:${PORT}/\"}});",
    );
    world.rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
    world.wait_for("its word", || !world.rads(&["c", "logs", "web"]).ok().is_empty());
    assert_eq!(world.rads(&["c", "logs", "web"]).ok(), "web-1 | --port=7070 http://web-1:7070/\n");
    assert_eq!(
        world.rads(&["c", "exec", "web", "--", "sh", "-c", "echo $PORT $URL"]).ok(),
        "7070 http://web-1:7070/\n"
    );
    // The one that comes after it has a higher generation: whoever is written to can tell who is late.
    let generation = || -> u64 {
        let said = world.rads(&["c", "exec", "web", "--", "sh", "-c", "echo $STAR_GENERATION"]).ok();
        said.trim().parse().unwrap()
    };
    let first = generation();
    world.rads(&["c", "restart", "web"]).ok();
    assert!(generation() > first);
    world.rads(&["c", "down", "--all"]).ok();
}

#[test]
fn a_star_starts_slowly_and_is_replaced_when_it_lives_no_more() {
    let world = World::new();
    world.file("hello.rads", support::HELLO);
    let app = world.app(
        "constellation.deploy(\"hello\", {script: \"hello.rads\", port: 8080, listen: 0, volumes: {\"/data\": \"marks\"}, \
         startup: {exec: [\"sh\", \"-c\", \"echo >> /data/starts; test -e /data/begun\"], interval_ms: 20, start_seconds: 60}, \
         ready: {exec: [\"test\", \"!\", \"-e\", \"/data/busy\"], interval_ms: 20, start_seconds: 30}, \
         live: {exec: [\"sh\", \"-c\", \"echo >> /data/lives; test ! -e /data/dead\"], interval_ms: 50, failures: 2}});",
    );
    let mut up = world.command(&["up", "-d", "--yes", app.to_str().unwrap()]).spawn().unwrap();
    world.wait_for("the star to run", || {
        world.rads(&["c", "status"]).code == 0 && world.stars().first().is_some_and(|star| star.phase == "starting")
    });
    let star = world.stars()[0].clone();
    let mark = |command: &str, name: &str| {
        world.rads(&["c", "exec", "hello", "--", command, &format!("/data/{name}")]).ok();
    };
    let asked = |what: &str| {
        let counted = world.rads(&["c", "exec", "hello", "--", "sh", "-c", &format!("cat /data/{what} | wc -l")]);
        counted.out.trim().parse::<u32>().unwrap_or(0)
    };
    // Whether it lives is not asked while it starts.
    mark("touch", "dead");
    world.wait_for("it to be asked often", || asked("starts") > 8);
    assert_eq!((world.stars()[0].clone(), asked("lives")), (star.clone(), 0));
    mark("rm", "dead");
    mark("touch", "begun");
    assert!(up.wait().unwrap().success());
    let address = world.address("hello");
    assert_eq!(get(address).unwrap().0, 200);
    // Unready is not dead.
    mark("touch", "busy");
    world.wait_for("it to be taken out", || get(address).unwrap().0 == 503);
    let before = asked("lives");
    world.wait_for("it to be asked on", || asked("lives") > before + 3);
    assert_eq!((world.stars()[0].id.clone(), world.service("hello")["restarts"].as_u64()), (star.id.clone(), Some(0)));
    // Dead is, though nobody waits for it to be ready.
    mark("touch", "dead");
    world.wait_for("it to be replaced", || world.stars().first().is_some_and(|other| other.id != star.id));
    assert!(world.rads(&["c", "events", "hello-1"]).ok().contains("ended: no longer healthy"));
    world.rads(&["c", "down", "--all"]).ok();
    world.assert_nothing_left();
}
