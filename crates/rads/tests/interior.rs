//! What a star finds inside, from the app's file to its program: secrets above all, which are to be nowhere else.

mod support;

use std::fs;
use std::io::Write;
use std::process::Stdio;

use support::{Outcome, World, outcome};

/// Sets a secret by standard input.
fn set(world: &World, name: &str, value: &[u8]) -> Outcome {
    let mut command = world.command(&["c", "secrets", "set", name]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that refuses its line does not read on.
    let _ = child.stdin.take().unwrap().write_all(value);
    outcome(child.wait_with_output().unwrap())
}

const APP: &str = r#"constellation.deploy("keeper", {
    command: ["sh", "-c", "test \"$(cat /run/secrets/db)\" = \"$DB\" && echo they agree; cat /etc/app.conf; echo $(pwd); exec sleep 1000"],
    secrets: {"/run/secrets/db": "db-password"},
    env_secrets: {DB: "db-password"},
    binds: {"/etc/app.conf": "conf/app.conf"},
    tmpfs: {"/cache": {size_mb: 1}},
    workdir: "/cache",
});
"#;

#[test]
fn a_secret_reaches_its_star_and_nothing_else() {
    let world = World::new();
    let app = world.app(APP);
    world.file("conf/app.conf", "bound\n");
    let up = ["up", "-d", app.to_str().unwrap()];
    let refused = world.rads(&up);
    refused.refused("C0109", "there is no secret `db-password`");
    assert!(refused.err.contains("rads c secrets set db-password"), "{}", refused.err);
    assert!(!world.data().join("agent.sock").exists(), "an agent that nothing needs ends");

    let value = "kx73-hunter2-qw91";
    assert_eq!(set(&world, "db-password", value.as_bytes()).ok(), "db-password: set\n");
    world.rads(&up).ok();
    world.wait_for("the star to speak", || world.rads(&["c", "logs", "keeper"]).ok().contains("/cache"));
    let said = world.rads(&["c", "logs", "keeper"]).ok();
    assert!(said.contains("they agree") && said.contains("bound"), "{said}");
    let exec = |words: &[&str]| world.rads(&[&["c", "exec", "keeper", "--"], words].concat());
    assert_eq!(exec(&["cat", "/run/secrets/db"]).ok(), value);
    assert_eq!(exec(&["sh", "-c", "printf %s $DB"]).ok(), value, "what runs in the star later has it too");

    // Everything that can be asked, and everything that is on disk or was said in a log.
    for words in [
        &["c", "plan", app.to_str().unwrap()][..],
        &["c", "status"],
        &["c", "list", "--all"],
        &["c", "inspect", "keeper-1"],
        &["c", "stats", "keeper"],
        &["c", "events"],
        &["c", "secrets", "list"],
    ] {
        for form in ["text", "json"] {
            let shown = world.rads(&[words, &["-o", form]].concat());
            assert!(!format!("{}{}", shown.out, shown.err).contains(value), "{words:?}: {}", shown.out);
        }
    }
    assert!(world.rads(&["c", "events"]).ok().contains("secret `db-password` set"));
    let mut folders = vec![world.data().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => {
                    let bytes = fs::read(entry.path()).unwrap_or_default();
                    let found = bytes.windows(value.len()).any(|window| window == value.as_bytes());
                    assert!(!found, "{}", entry.path().display());
                }
                _ => {}
            }
        }
    }
    let lines =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    assert!(!lines.into_iter().any(|line| String::from_utf8_lossy(&line).contains(value)));

    // A new value replaces the stars that have the secret: another comes first, and then the one before goes.
    let before = world.stars();
    set(&world, "db-password", b"another").ok();
    world.wait_for("the new value", || exec(&["cat", "/run/secrets/db"]).out == "another" && world.stars().len() == 1);
    assert_ne!(world.stars(), before);

    // What is in use stays; a value that no variable can hold stops the next star with its reason.
    world.rads(&["c", "secrets", "delete", "db-password"]).refused("C0105", "in use by service `keeper`");
    set(&world, "db-password", b"a\0b").ok();
    world.rads(&["c", "restart", "keeper"]).refused("C0305", "holds bytes that no variable can");
    assert_eq!(exec(&["cat", "/run/secrets/db"]).ok(), "another", "the star of before still runs");
    // The same app without it.
    world.up(&world.hello("instances: 1"));
    world.rads(&["c", "secrets", "delete", "db-password"]).ok();
    world.rads(&["c", "secrets", "delete", "db-password"]).refused("C0109", "no secret `db-password`");
    world.rads(&["c", "down", "--all"]).ok();
    world.assert_nothing_left();
}

#[test]
fn who_was_given_a_secret_is_among_the_events() {
    let world = World::new();
    let app = world.app(APP);
    world.file("conf/app.conf", "bound\n");
    let value = "kx73-hunter2-qw91";
    set(&world, "db-password", value.as_bytes()).ok();
    world.rads(&["up", "-d", app.to_str().unwrap()]).ok();
    let events = |name: &str| {
        let text =
            world.rads(&[&["c", "events"], name.split_whitespace().collect::<Vec<_>>().as_slice()].concat()).ok();
        let secret = text.lines().filter(|line| line.contains("secret")).map(|line| line[21..].to_owned());
        secret.collect::<Vec<_>>()
    };
    let given = "star `keeper-1` was given secret `db-password`";
    assert_eq!(events("keeper-1"), [given]);
    // An agent that takes the star over gives it nothing anew, and one that is replaced is given it again.
    support::kill_to_the_end(&world, world.agent_pid());
    assert!(world.rads(&["up", "-d", app.to_str().unwrap()]).ok().contains("nothing to change"));
    assert_eq!(events("keeper-1"), [given]);
    world.rads(&["c", "restart", "keeper"]).ok();
    let name = world.stars()[0].name.clone();
    assert_eq!(events("keeper").last(), Some(&given.replace("keeper-1", &name)));
    assert_eq!(events("keeper").len(), 2);
    // A person who reads it, by its name or where the star has it.
    let uid = rustix::process::getuid().as_raw();
    assert_eq!(world.rads(&["c", "secret", "get", "db-password"]).ok(), value);
    let read = format!("secret `db-password` read by uid {uid}");
    assert_eq!(events("").last(), Some(&read));
    let json = world.json(&["c", "secrets", "get", "db-password"]);
    assert_eq!(json, serde_json::json!({"secret": "db-password", "value": value}));
    let went_in = format!("uid {uid} went into star `{name}`, which has secret `db-password`");
    for words in
        [&["c", "exec", "keeper", "--", "cat", "/run/secrets/db"][..], &["c", "cp", "keeper:/run/secrets/db", "-"]]
    {
        let before = events(&name).iter().filter(|event| **event == went_in).count();
        assert!(world.rads(words).ok().contains(value));
        assert_eq!(events(&name).iter().filter(|event| **event == went_in).count(), before + 1, "{words:?}");
    }
    // One that is not there is not read, and what JSON cannot hold is printed as it is.
    let before = events("");
    world.rads(&["c", "secrets", "get", "nothing"]).refused("C0109", "no secret `nothing`");
    assert_eq!(events(""), before);
    set(&world, "odd", b"\xff\0").ok();
    let refused = world.rads(&["c", "secrets", "get", "odd", "-o", "json"]);
    assert!(refused.code == 1 && refused.err.contains("holds bytes that JSON cannot"), "{refused:?}");
    let odd = world.command(&["c", "secrets", "get", "odd"]).output().unwrap();
    assert_eq!(odd.stdout, b"\xff\0");
    // Without secrets there is nothing to note.
    world.rads(&["c", "down"]).ok();
    world.up(&world.hello("instances: 1"));
    world.rads(&["c", "exec", "hello", "--", "true"]).ok();
    assert!(!world.rads(&["c", "events", "hello-1"]).ok().contains("went into"));
}

#[test]
fn who_only_looks_at_secrets_brings_nothing_back() {
    let world = World::new();
    set(&world, "db-password", b"x").ok();
    world.up(&world.hello("instances: 1"));
    world.rads(&["c", "shutdown"]).ok();
    for words in [&["list"][..], &["get", "db-password"], &["delete", "db-password"]] {
        world.rads(&[&["c", "secrets"], words].concat()).refused("C0201", "no agent");
        world.rads(&["c", "status"]).refused("C0201", "no agent");
    }
    world.assert_nothing_left();
}

#[test]
fn a_secret_that_cannot_be_is_refused_and_changes_nothing() {
    let world = World::new();
    for name in ["", "..", "../x", "a/../b", "a/b/c", "A", "a b", "a\nb", &"x".repeat(64)] {
        let refused = set(&world, name, b"x");
        assert_eq!(refused.code, 1, "{name:?}: {}{}", refused.out, refused.err);
        assert!(refused.err.contains("error[C0001]"), "{name:?}: {}", refused.err);
    }
    set(&world, "empty", b"").refused("C0102", "nothing was given");
    set(&world, "large", &vec![7; 65_537]).refused("C0102", "at most 64 KiB");
    world.rads(&["c", "secrets", "set", "x", "--from-file", "/no/such"]).refused("C0002", "`/no/such`");
    assert!(!world.data().join("secrets").exists());
    // Byte by byte, from a file as from a pipe, in a namespace of its own.
    let bytes: Vec<u8> = (0..=255).collect();
    let file = world.file("value", "");
    fs::write(&file, &bytes).unwrap();
    world.up(&world.hello("instances: 1"));
    assert_eq!(world.rads(&["c", "secrets", "list", "-o", "json"]).ok().trim(), "[]");
    world.rads(&["c", "secrets", "set", "team/odd", "--from-file", file.to_str().unwrap()]).ok();
    let listed = world.rads(&["c", "secrets", "list"]).ok();
    assert!(listed.contains("team/odd"), "{listed}");
}

#[test]
fn weaker_walls_are_told_before_and_kept_among_the_events() {
    let world = World::new();
    let app = world.app(
        "constellation.deploy(\"weak\", {command: [\"sleep\", \"1000\"], weaken: {seccomp: \"off\"}, network: \"host\"});",
    );
    let planned = world.rads(&["c", "plan", app.to_str().unwrap()]);
    let told = "weaker walls: the host's network, no system call filter";
    assert!(planned.code == 2 && planned.out.contains(told), "{}{}", planned.out, planned.err);
    world.rads(&["up", "-d", app.to_str().unwrap()]).ok();
    let events = world.rads(&["c", "events"]).ok();
    let noted = "service `weak` runs with weaker walls: the host's network, no system call filter";
    assert!(events.contains(noted), "{events}");
    let status = world.rads(&["c", "exec", "weak", "--", "grep", "Seccomp:", "/proc/self/status"]).ok();
    assert_eq!(status, "Seccomp:\t0\n");
}

const TALKER: &str = r#"
constellation.on("message", blast (event) {
    echo(`heard ${event.message.text} from ${event.from.star ?? "outside"}`);
    if (event.message.relay != null) {
        echo(`told ${constellation.send(event.message.relay, { text: event.message.text })}`);
    }
});
echo("listening");
"#;

const TALKERS: &str = r#"
constellation.deploy("talker", {script: "talker.rads", instances: 2, ram_mb: 48});
constellation.deploy("silent", {script: "silent.rads", ram_mb: 48});
"#;

#[test]
fn stars_that_name_the_module_talk_and_find_the_next_agent() {
    let world = World::new();
    world.file("talker.rads", TALKER);
    world.file("silent.rads", "loop (true) { sleep(1000); }\n");
    let app = world.app(TALKERS);
    world.rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
    let team = "constellation.deploy(\"talker\", {script: \"talker.rads\", namespace: \"team\", ram_mb: 48});\n";
    let team = world.file("team.rads", team);
    world.rads(&["up", "-d", "--yes", team.to_str().unwrap()]).ok();
    let count = |target: &str, what: &str| world.rads(&["c", "logs", target]).out.matches(what).count();
    world.wait_for("all to listen", || count("talker", "listening") == 2 && count("team/talker", "listening") == 1);
    let relay =
        world.file("relay.rads", "echo(constellation.send(\"talker-2\", { text: \"one\", relay: \"talker\" }));");
    let say = |path: &std::path::Path| world.rads(&["run", path.to_str().unwrap()]).ok();
    assert_eq!(say(&relay), "1\n");
    world.wait_for("the other to hear", || count("talker-1", "heard one from talker-2") == 1);
    world.wait_for("how many to be told", || count("talker-2", "told 1") == 1);
    assert_eq!(count("team/talker", "heard"), 0, "another namespace");
    let all = world.file("all.rads", "echo(constellation.broadcast({ text: \"all\" }));");
    assert_eq!(say(&all), "2\n");
    world.wait_for("both to hear", || count("talker", "heard all from outside") == 2);
    assert_eq!(count("team/talker", "heard"), 0);

    // What a star has of its agent is two sockets, and these only if it wants them.
    let within = |star: &str, command: &str| world.rads(&["c", "exec", star, "--", "/bin/sh", "-c", command]);
    assert_eq!(within("talker-1", "ls -A /run/rads").ok(), "api\ns\n");
    assert_ne!(within("talker-1", "touch /run/rads/x").code, 0, "it can put nothing beside it");
    assert_ne!(within("silent-1", "ls -d /run/rads").code, 0, "nobody asked for it");

    let before = world.stars();
    support::kill(world.agent_pid(), "-9");
    let mut agent = world.command(&["c", "agent"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    world.wait_for("another agent", || world.rads(&["c", "version"]).out.contains("pid"));
    world.wait_for("the stars to have found it", || say(&all) == "2\n");
    assert_eq!(world.stars().len(), before.len());
    world.rads(&["c", "shutdown"]).ok();
    agent.wait().unwrap();
    let ways = world.data().join("ways");
    assert!(fs::read_dir(ways).unwrap().next().is_none(), "nothing is left of the ways");
}
