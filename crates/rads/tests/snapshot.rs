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

    // Without a name each is another one; under a key, the same.
    let take = |key: &str| world.ask_once("POST /v1/services/hello/snapshots", key, "{}");
    let first = take("k-1");
    assert_eq!((first.0, take("k-1")), (200, first.clone()), "{first:?}");
    let name =
        serde_json::from_str::<serde_json::Value>(&first.1).unwrap()["snapshot"]["name"].as_str().unwrap().to_owned();
    let snapshots = || world.json(&["c", "snapshots"]).as_array().unwrap().len();
    assert_eq!(snapshots(), 4);
    let (status, text) = world.ask_once("POST /v1/services/hello/snapshots", "k-1", "{\"name\":\"x\"}");
    assert!(status == 409 && text.contains("another request"), "{status} {text}");
    // An agent later as well.
    support::kill(world.agent_pid(), "-9");
    world.rads(&["up", "-d", "--yes", app(&world, script).to_str().unwrap()]).ok();
    assert_eq!((take("k-1"), snapshots()), (first.clone(), 4));
    let delete = || world.ask_once(&format!("DELETE /v1/snapshots/{name}"), "k-2", "");
    assert_eq!((delete(), snapshots()), ((200, "null".to_owned()), 3));
    assert_eq!(delete(), (200, "null".to_owned()));
    // The controls.
    let (status, text) = world.ask_once(&format!("DELETE /v1/snapshots/{name}"), "k-3", "");
    assert!(status == 404 && text.contains("no snapshot"), "{status} {text}");
    assert_eq!((take("k-4").0, snapshots()), (200, 4));

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

/// What a star with a root, a disk and a volume of its own, all of them bounded, can have.
fn own_app(world: &World, more: &str) -> PathBuf {
    world.app(&format!(
        "constellation.deploy(\"own\", {{command: [\"/bin/sh\", \"-c\", \"exec sleep 100000\"], rootfs: \"root\", disk_mb: 32, \
         volumes: {{\"/data\": {{name: \"sized\", size_mb: 16}}}}, tmpfs: {{\"/cache\": {{size_mb: 8}}}}{more}}});"
    ))
}

fn sh(world: &World, star: &str, script: &str) -> String {
    world.rads(&["c", "exec", star, "--", "/bin/sh", "-c", script]).ok()
}

#[test]
fn everything_a_star_wrote_comes_back() {
    let world = World::new();
    support::shell_root(&world, &["sh", "sleep", "cat", "ls", "rm", "mkdir", "find", "sort", "stat", "ln", "chmod"]);
    let app = own_app(&world, ", instances: 2");
    world.rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
    let write = "echo new > /etc/added; echo more >> /etc/motd; rm /bin/ln; mkdir -p /opt/a; echo o > /opt/a/o; \
                 chmod 700 /opt; echo t > /tmp/t; ln_ () { :; }; echo d >> /data/d; echo r > /run/r; echo s > /dev/shm/s; \
                 echo c > /cache/c";
    let look = "find /etc /opt /bin /tmp /data /run /dev/shm /cache -xdev -type f | sort | while read f; do \
                stat -c '%n %a %u %s %Y' $f; done; cat /etc/added /etc/motd /tmp/t /data/d /run/r /dev/shm/s /cache/c";
    sh(&world, "own-1", write);
    sh(&world, "own-2", &format!("{write}; echo two > /tmp/t"));
    // Those that are made for each star anew.
    let state = |star: &str| -> String {
        let all = sh(&world, star, look);
        all.lines()
            .filter(|line| !["hostname", "hosts"].iter().any(|it| line.contains(it)))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let before = [state("own-1"), state("own-2")];
    assert!(
        before[0].contains("/opt/a/o") && !before[0].contains("/bin/ln") && before[0] != before[1],
        "{}",
        before[0]
    );
    let taken = world.json(&["c", "snapshot", "own", "--as", "all"]);
    assert_eq!(taken["snapshot"]["stars"].as_array().unwrap().len(), 2, "{taken}");
    // Nothing new costs nothing.
    assert_eq!(world.json(&["c", "snapshot", "own", "--as", "again"])["added_bytes"], 0);
    for star in ["own-1", "own-2"] {
        sh(&world, star, "rm -r /opt /etc/added /tmp/t /cache/c; rm -f /data/d; echo x > /junk; echo x > /etc/motd");
    }
    for _ in 0..2 {
        let said = world.rads(&["c", "restore", "all"]).ok();
        assert!(said.contains("restored to sized, 2 stars") && said.ends_with("own: 2 stars ready\n"), "{said}");
        assert_eq!([state("own-1"), state("own-2")], before);
    }
    assert_eq!(sh(&world, "own-1", "ls /junk 2>&1 || echo gone").lines().last(), Some("gone"));
    // A star that starts for another reason starts with what it brings, as ever.
    world.rads(&["c", "restart", "own-1"]).ok();
    assert_eq!(sh(&world, "own-1", "ls /opt /tmp/t /cache/c 2>/dev/null; cat /etc/motd"), "from my root\n");
    assert_eq!(sh(&world, "own-1", "cat /data/d"), "d\nd\n", "a volume stays");

    // Fewer stars, smaller ones, or others have no place for it, and nothing changes.
    world.rads(&["c", "scale", "own", "1"]).ok();
    world.rads(&["c", "restore", "all"]).refused("C0105", "has the files of 2 stars, and `own` has 1");
    world.file("root/etc/motd", "another root\n");
    world.rads(&["up", "-d", "--yes", own_app(&world, ", instances: 2").to_str().unwrap()]).ok();
    sh(&world, "own", "echo mine > /tmp/mine");
    world.rads(&["c", "restore", "all"]).refused("C0105", "another `rootfs`");
    // Nobody was stopped for what could not be.
    assert_eq!(sh(&world, "own", "cat /etc/motd /data/d /tmp/mine"), "another root\nd\nd\nmine\n");
    world.rads(&["c", "down"]).ok();
    world.assert_nothing_left();
}

#[test]
fn a_restore_cut_short_leaves_old_or_new() {
    let world = World::new();
    let app = world.app(
        "constellation.deploy(\"hello\", {command: [\"sleep\", \"100000\"], volumes: {\"/data\": \"pages\", \"/more\": \"more\"}});",
    );
    let up = || world.rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
    up();
    let write = |text: &str| {
        let files = "for d in /data /more /tmp; do for n in 1 2 3 4 5 6 7 8 9; do echo TEXT > $d/$n; done; done";
        sh(&world, "hello", &files.replace("TEXT", text));
    };
    let state = || {
        let text = |d: &str| sh(&world, "hello", &format!("cat {d}/* 2>/dev/null | sort -u | tr '\\n' ' '"));
        ["/data", "/more", "/tmp"].map(|d| text(d).trim().to_owned())
    };
    write("new");
    world.rads(&["c", "snapshot", "hello", "--as", "new"]).ok();
    let (mut old, mut new) = (0, 0);
    let mut found_stopped = false;
    let (log, mut agents) = (world.data().join("restored.log"), Vec::new());
    for round in 0..8_u32 {
        write("old");
        let mut restoring = world.command(&["c", "restore", "new"]);
        restoring.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut restoring = support::Ended(restoring.spawn().unwrap());
        // Ever later: when it unpacks, when it exchanges, when it is done.
        let waiting = world.data().join("snapshots/.waiting");
        let journal = world.data().join("snapshots/.restoring");
        let unpacked = world.data().join("volumes/default/.restored-pages");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let reached = |step: u32| match step {
            0 => unpacked.exists(),
            1 => waiting.join(".restored-default.hello").exists(),
            2 => journal.exists(),
            _ => waiting.join("default.hello/1").exists(),
        };
        while !reached(round % 4) && std::time::Instant::now() < deadline && restoring.0.try_wait().unwrap().is_none() {
            std::hint::spin_loop();
        }
        support::kill(world.agent_pid(), "-9");
        let _ = restoring.0.wait();
        found_stopped |= world.data().join("snapshots/.stopped-default.hello").exists();
        // It ran before, and runs again without being asked to.
        let log = fs::OpenOptions::new().append(true).create(true).open(&log).unwrap();
        let mut agent = world.command(&["c", "agent", "--background"]);
        agents.push(support::Ended(agent.stdout(std::process::Stdio::null()).stderr(log).spawn().unwrap()));
        world.wait_for("the next agent", || world.rads(&["c", "status"]).code == 0);
        world.wait_for("it to be ready", || world.service("hello")["ready"] == 1);
        let found = state();
        match [&*found[0], &*found[1], &*found[2]] {
            ["old", "old", ""] => old += 1,
            ["new", "new", "new"] => new += 1,
            _ => panic!("a mix in round {round}: {found:?}"),
        }
        assert!(!unpacked.exists() && !journal.exists());
    }
    println!("{old} old, {new} new");
    assert!(new > 0, "it was never done in time");
    let log = fs::read_to_string(log).unwrap();
    // Of eight kills some come while it is stopped; on a slow machine perhaps none.
    let told = log.contains("a restore was cut short: the service is started again");
    assert!(told || !found_stopped, "{log}");
    let noted = || fs::read_dir(world.data().join("snapshots")).unwrap().flatten().map(|entry| entry.file_name());
    assert!(!noted().any(|name| name.to_string_lossy().starts_with(".stopped")));
    world.rads(&["c", "down"]).ok();
    world.assert_nothing_left();
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let world = World::new();
    world.up(&world.hello("instances: 1"));
    world.rads(&["c", "stop", "hello"]).ok();
    world
        .rads(&["c", "snapshot", "hello"])
        .refused("C0105", "service `hello` has no volumes, and none of its stars runs");
    world.rads(&["c", "snapshot", "nobody"]).refused("C0", "no service or star `nobody`");
    world.rads(&["c", "snapshot", "hello", "--as", "../up"]).refused("C0", "is not a name");
    world.rads(&["c", "snapshot", "hello", "--as", "a\nb"]).refused("C0", "is not a name");
    world.rads(&["c", "restore", "../../etc"]).refused("C0", "is not a name");
    world.rads(&["c", "restore", "nothing"]).refused("C0", "no snapshot `nothing`");
    world.rads(&["c", "snapshots", "delete", "nothing"]).refused("C0", "no snapshot `nothing`");
    assert_eq!(world.rads(&["c", "snapshots"]).ok(), "no snapshots; take one with `rads c snapshot SERVICE`\n");
}

/// Why no memory can be kept here, if it cannot.
fn no_memory(world: &World) -> Option<String> {
    let findings = world.json(&["c", "doctor"]);
    let found = findings.as_array().unwrap().iter().find(|finding| finding["what"] == "memory snapshots").unwrap();
    (found["state"] != "works").then(|| found["detail"].as_str().unwrap().to_owned())
}

fn counts(world: &World) -> Vec<u64> {
    let said = world.rads(&["c", "logs", "hello"]).ok();
    said.lines().filter_map(|line| line.split(" | count ").nth(1)?.parse().ok()).collect()
}

/// Counts in its memory and in its volume, and tells when the two are not the same.
const COUNTER: &str = "n=0; echo 0 > /data/n; while :; do m=$(cat /data/n); [ $m = $n ] || echo differ $m $n; \
    n=$((n+1)); echo $n > /data/new; mv /data/new /data/n; echo count $n; sleep 0.01; done";

#[test]
fn a_memory_comes_back_with_the_files_of_its_moment() {
    let world = World::new();
    if let Some(why) = no_memory(&world) {
        println!("skipped: {why}");
        return;
    }
    let app = world.app(&format!(
        "constellation.deploy(\"hello\", {{command: [\"sh\", \"-c\", \"{COUNTER}\"], volumes: {{\"/data\": \"pages\"}}}});"
    ));
    world.rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
    world.wait_for("it to count", || counts(&world).last().is_some_and(|n| *n > 20));
    let taken = world.json(&["c", "snapshot", "hello", "--memory", "--as", "both"]);
    assert_eq!(taken["snapshot"]["memory"]["star"], "hello-1", "{taken}");
    assert!(taken["snapshot"]["memory"]["bytes"].as_u64().unwrap() > 10_000, "{taken}");
    let then = number(volume(&world, "pages").join("n"));
    world.wait_for("it to go on", || counts(&world).last().is_some_and(|n| *n > then + 20));
    let said = world.rads(&["c", "restore", "both"]).ok();
    assert!(said.contains("hello goes on from the memory of hello-1"), "{said}");
    assert!(said.ends_with("hello: 1 star ready\n"), "{said}");
    world.wait_for("it to go on from there", || counts(&world).last().is_some_and(|n| *n < then + 20));
    let all = counts(&world);
    let first = all[1 + all.windows(2).position(|pair| pair[1] < pair[0]).expect("it went back")];
    let kept = taken["snapshot"]["volumes"][0]["files"].as_u64().unwrap();
    assert!(kept >= 1 && first > 20 && first <= then + 1, "{first} {then}");
    // The files are of the moment of the memory; that they need not be is seen when one is changed.
    let differs = || world.rads(&["c", "logs", "hello"]).ok().contains("differ");
    assert!(!differs());
    // Changed between its look and what it writes next, it would not see it.
    world.wait_for("it to see that", || {
        world.rads(&["c", "exec", "hello", "--", "sh", "-c", "echo 7 > /data/other; mv /data/other /data/n"]).ok();
        differs()
    });
    // The control: without its memory it begins.
    world.rads(&["c", "restart", "hello"]).ok();
    world.wait_for("it to begin", || counts(&world).last().is_some_and(|n| *n < 20));
    // Another program does not fit it.
    world.rads(&["c", "stop", "hello"]).ok();
    let app =
        world.app("constellation.deploy(\"hello\", {command: [\"sleep\", \"9\"], volumes: {\"/data\": \"pages\"}});");
    world.rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
    world.rads(&["c", "restore", "both"]).refused("C0105", "has another program than the star whose memory");
    // It is as much as its images.
    let image = world.data().join("snapshots/.memory/both/pstree.img");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&image).unwrap().permissions()) & 0o777, 0o600);
    world.rads(&["c", "snapshots", "delete", "both"]).ok();
    assert!(!image.exists());
    world.rads(&["c", "down"]).ok();
    world.assert_nothing_left();
}

#[test]
fn a_memory_that_cannot_be_kept_is_refused_and_nothing_changes() {
    let world = World::new();
    world.up(&world.hello("instances: 1"));
    let before = world.stars();
    let refused = |says: &str| world.rads(&["c", "snapshot", "hello", "--memory"]).refused("C0", says);
    refused("a script is the first process of its star");
    let app = |options: &str| {
        let app = world.app(&format!("constellation.deploy(\"hello\", {{command: [\"sleep\", \"100\"], {options}}});"));
        world.rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
    };
    assert_eq!(world.stars(), before);
    app("instances: 2");
    refused("service `hello` has 2 stars, and a snapshot keeps the memory of one");
    app("instances: 1, network: \"host\"");
    refused("it is on the host's network");
    app("instances: 1");
    let without = |place: &str, says: &str| {
        world.rads(&["c", "shutdown"]).ok();
        let app = world.data().parent().unwrap().join("hello/app.rads");
        let up = world.command(&["up", "-d", "--yes", app.to_str().unwrap()]).env("RADS_CRIU", place).output().unwrap();
        assert!(up.status.success(), "{up:?}");
        let outcome = world.rads(&["c", "snapshot", "hello", "--memory", "--as", "none"]);
        match rustix_root() {
            true => outcome.refused("C0", says),
            false => outcome.refused("C0", "by root alone"),
        }
        assert_eq!(world.rads(&["c", "snapshots"]).ok(), "no snapshots; take one with `rads c snapshot SERVICE`\n");
        assert!(!world.data().join("snapshots/.memory/none").exists());
    };
    without("/nowhere", "`RADS_CRIU`: `/nowhere` cannot be read");
    without("/bin/true", "does not tell its version");
}

fn rustix_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

#[test]
fn a_script_that_asks_for_it_goes_on_from_its_memory() {
    let world = World::new();
    if let Some(why) = no_memory(&world) {
        println!("skipped: {why}");
        return;
    }
    let script = "turbo visits = 0;\nturbo server = net.http_server(\"127.0.0.1\", env.get(\"PORT\") ?? 8080);\n\
                  server.route(\"/\", blast () { visits = visits + 1; return `visit ${visits}`; }, \"GET\");\nserver.serve();\n";
    world.file("visits.rads", script);
    let app = world
        .app("constellation.deploy(\"hello\", {script: \"visits.rads\", checkpoint: true, port: 8080, listen: 0});");
    let address = world.up(&app);
    let visit = || support::get(address).unwrap().1.trim().to_owned();
    assert_eq!([visit(), visit()], ["visit 1", "visit 2"]);
    world.rads(&["c", "snapshot", "hello", "--memory", "--as", "two"]).ok();
    assert_eq!(visit(), "visit 3");
    world.rads(&["c", "restore", "two"]).ok();
    assert_eq!(visit(), "visit 3");
    // The control: without its memory it begins.
    world.rads(&["c", "restart", "hello"]).ok();
    assert_eq!(visit(), "visit 1");
    let command = world.app("constellation.deploy(\"hello\", {command: [\"sleep\", \"9\"], checkpoint: true});");
    world.rads(&["up", "-d", "--yes", command.to_str().unwrap()]).refused("C0", "`checkpoint` is for a `script`");
}
