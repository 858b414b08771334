//! Looking inside stars as a user does: what they use, files in and out, ports.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use support::{Ended, World, get, kill};

/// The text of a path that has none of its own quirks.
fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn stats_measure_what_a_star_does() {
    let world = World::new();
    let address = world.up(&world.hello("instances: 1, ram_mb: 64, volumes: {\"/data\": \"pages\"}"));
    let before = world.json(&["c", "stats", "hello-1"])[0].clone();
    world
        .rads(&[
            "c",
            "exec",
            "hello-1",
            "--",
            "sh",
            "-c",
            "head -c 3000000 /dev/zero > /data/big; head -c 500000 /dev/zero > /tmp/x",
        ])
        .ok();
    for _ in 0..20 {
        get(address).unwrap();
    }
    let number = |stats: &serde_json::Value, name: &str| stats[name].as_u64();
    let mut stats = before.clone();
    // What is on disk is looked at anew a moment later.
    world.wait_for("the disk's use", || {
        stats = world.json(&["c", "stats", "hello-1"])[0].clone();
        number(&stats, "disk_bytes") >= Some(3_500_000)
    });
    assert!(number(&stats, "disk_bytes") < Some(5_000_000), "{stats}");
    assert_eq!(number(&stats, "requests"), Some(20));
    assert!(number(&stats, "network_loopback_bytes") > number(&before, "network_loopback_bytes"), "{stats}");
    // It has no other network, and so no bytes there: none, not 0.
    assert!(stats["network_received_bytes"].is_null(), "{stats}");
    assert!(number(&stats, "fds").is_some_and(|fds| (3..100).contains(&fds)), "{stats}");
    assert_eq!((number(&stats, "pids"), number(&stats, "restarts")), (Some(1), Some(0)), "{stats}");
    assert!(stats["cpu_percent"].is_number(), "{stats}");
    if world.limits_bite() {
        assert_eq!(number(&stats, "memory_limit_bytes"), Some(64 << 20));
        let working = number(&stats, "memory_working_set_bytes").unwrap();
        assert!(working > 0 && working <= number(&stats, "memory_bytes").unwrap(), "{stats}");
        assert!(number(&stats, "memory_peak_bytes") >= number(&stats, "memory_bytes"), "{stats}");
    }
    // The star of a name remembers how often it was replaced; its neighbours' ends are not its own.
    world.rads(&["c", "scale", "hello", "2"]).ok();
    let victim = world.stars()[0].clone();
    kill(victim.pid, "-9");
    world.wait_for("a replacement", || {
        world.stars().iter().filter(|star| star.phase == "ready" && star.id != victim.id).count() == 2
    });
    let both = world.json(&["c", "stats", "hello"]);
    let restarts: Vec<_> = both.as_array().unwrap().iter().map(|stats| (&stats["name"], &stats["restarts"])).collect();
    assert_eq!(format!("{restarts:?}"), "[(String(\"hello-1\"), Number(1)), (String(\"hello-2\"), Number(0))]");
    let table = world.rads(&["c", "top"]).ok();
    assert!(table.starts_with("NAME") && table.contains("hello-2"), "{table}");
    world.rads(&["c", "top", "nothing"]).refused("C0104", "`nothing`");
}

#[test]
fn a_volume_outlives_its_service_until_it_is_deleted() {
    let world = World::new();
    // The agent stays for the other service.
    let other = "constellation.deploy(\"other\", {command: [\"sleep\", \"100000\"]});";
    let up = |volume: &str| {
        let hello = "script: \"hello.rads\", port: 8080, listen: 0";
        world.hello("");
        world.up(&world
            .app(&format!("{other}\nconstellation.deploy(\"hello\", {{{hello}, volumes: {{\"/data\": {volume}}}}});")));
    };
    up("{name: \"pages\", size_mb: 8}");
    // Counted is what the disk has: the kernel would write it there half a minute later.
    world
        .rads(&["c", "exec", "hello-1", "--", "sh", "-c", "head -c 2000000 /dev/zero > /data/big; sync /data/big"])
        .ok();
    let volumes = || world.json(&["c", "volumes"]);
    world.wait_for("its bytes", || volumes()[0]["bytes"].as_u64() >= Some(2_000_000));
    assert_eq!((&volumes()[0]["volume"], &volumes()[0]["services"][0]), (&"pages".into(), &"hello".into()));
    let delete = ["c", "volumes", "delete", "pages", "--yes"];
    world.rads(&delete).refused("C0105", "volume `pages` is in use by service `hello`");
    world.rads(&["c", "stop", "hello"]).ok();
    world.rads(&delete).refused("C0105", "volume `pages` is in use by service `hello`");
    world.rads(&["c", "destroy", "hello"]).ok();
    let folder = world.data().join("volumes/default");
    assert!(folder.join("pages").exists(), "it outlives its service");
    assert!(volumes()[0]["services"].as_array().unwrap().is_empty(), "{}", volumes());
    world.rads(&["c", "volumes", "delete", "pages"]).refused("C0001", "would be deleted with its files");
    let delete_once = |key: &str| world.ask_once("DELETE /v1/volumes/pages", key, "").0;
    assert_eq!((delete_once("k-1"), delete_once("k-1")), (200, 200));
    // The control: another request finds none.
    assert_eq!(delete_once("k-2"), 404);
    assert_eq!(volumes().as_array().unwrap().len(), 0);
    world.wait_for("the end of its files", || {
        let left = |folder: &Path| fs::read_dir(folder).into_iter().flatten().count();
        left(&folder) == 0 && !world.data().join("volumes/.deleted").exists()
    });
    world.rads(&delete).refused("C0104", "no volume `pages`");
    // Whoever asks for one of that name gets an empty one.
    up("\"pages\"");
    assert_eq!(world.rads(&["c", "exec", "hello-1", "--", "ls", "-A", "/data"]).ok(), "");
    // Nor does anybody lose it who asks again what became of the first.
    assert_eq!(delete_once("k-1"), 200);
    assert_eq!(world.rads(&["c", "exec", "hello-1", "--", "ls", "-A", "/data"]).ok(), "");
    assert_eq!(volumes().as_array().unwrap().len(), 1);
    world.rads(&["c", "destroy", "hello"]).ok();
    assert_eq!(world.rads(&delete).ok(), "pages: deleted\n");
}

#[test]
fn files_go_into_a_star_and_come_out_as_they_were() {
    let world = World::new();
    world.up(&world.hello("instances: 1, volumes: {\"/data\": \"pages\"}"));
    let tree = world.file("tree/sub/a.txt", "first\n").parent().unwrap().parent().unwrap().to_owned();
    fs::set_permissions(tree.join("sub/a.txt"), std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("sub/a.txt", tree.join("link")).unwrap();
    assert_eq!(world.rads(&["c", "cp", text(&tree), "hello-1:/data"]).ok(), "copied 4 files, 6 B\n");
    let seen = world.rads(&[
        "c",
        "exec",
        "hello-1",
        "--",
        "sh",
        "-c",
        "stat -c '%a %u' /data/tree/sub/a.txt; cat /data/tree/link",
    ]);
    assert_eq!(seen.ok(), "640 0\nfirst\n");
    // Under another name, out of a service's first star, and back.
    let back = tree.with_file_name("back");
    world.rads(&["c", "cp", "hello:/data/tree", text(&back)]).ok();
    assert_eq!(fs::read_to_string(back.join("sub/a.txt")).unwrap(), "first\n");
    assert_eq!(fs::metadata(back.join("sub/a.txt")).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_link(back.join("link")).unwrap(), Path::new("sub/a.txt"));
    // As archives through pipes.
    let mut out = world.command(&["c", "cp", "hello-1:/data/tree", "-"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut into = world.command(&["c", "cp", "-", "hello-1:/tmp/new"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut archive = Vec::new();
    out.stdout.take().unwrap().read_to_end(&mut archive).unwrap();
    into.stdin.take().unwrap().write_all(&archive).unwrap();
    assert!(out.wait().unwrap().success() && into.wait().unwrap().success());
    assert_eq!(world.rads(&["c", "exec", "hello-1", "--", "cat", "/tmp/new/tree/sub/a.txt"]).ok(), "first\n");
    // What cannot be is refused, and says where.
    let check = |from: &str, to: &str, code: &str, says: &str| world.rads(&["c", "cp", from, to]).refused(code, says);
    let (file, here) = (text(&tree.join("link")).to_owned(), text(tree.parent().unwrap()).to_owned());
    check("hello-1:/nothing", &here, "C0002", "in the star: cannot open `/nothing`: no such file");
    check(&file, "hello-1:/app/x", "C0002", "read-only");
    check(&file, "hello-1:/none/x", "C0002", "cannot open `/none`");
    check("hello-1:/dev/null", &here, "C0002", "is a device");
    check("hello-1:/proc/self/maps", &here, "C0002", "belongs to the kernel");
    check("hello-1:/data", "/nowhere/x/y", "C0004", "cannot open `/nowhere/x`");
    check("/nowhere", "hello-1:/data", "C0002", "`/nowhere`");
    check("a", "b", "C0001", "neither side");
    check("hello-1:/a", "hello:/b", "C0001", "both sides");
    check("hello-2:/a", &here, "C0104", "`hello-2`");
    check("hello-1:", &here, "C0001", "no path");
    world.rads(&["c", "pause", "hello"]).ok();
    check("hello-1:/data", &here, "C0105", "it is paused");
}

#[test]
fn a_hostile_stars_links_lead_nowhere_on_the_host() {
    let world = World::new();
    let canary = world.file("outside/secret", "canary").parent().unwrap().to_owned();
    let canary = text(&canary).to_owned();
    // It swaps a folder for a link out of its walls as fast as it can, and has pipes to hang whoever opens them.
    let swap = format!(
        "mkdir -p /data/t; mkfifo /data/t/pipe; ln -s /proc/1/root{canary} /data/t/proc; ln -s {canary} /data/t/away; \
         echo ready; \
         while :; do mkdir /data/t/x; echo inside > /data/t/x/secret; rm -r /data/t/x; ln -s {canary} /data/t/x; rm /data/t/x; done"
    );
    let app = world.app(&format!(
        "constellation.deploy(\"swap\", {{command: [\"sh\", \"-c\", \"{swap} 2>/dev/null\"], ram_mb: 32, volumes: {{\"/data\": \"swap\"}}}});"
    ));
    world.rads(&["up", "-d", "--yes", text(&app)]).ok();
    world.wait_for("the star to be at it", || world.rads(&["c", "logs", "swap"]).ok().contains("ready"));
    let here = text(app.parent().unwrap()).to_owned();
    let mut seen = 0;
    for n in 0..40 {
        let to = format!("{here}/out-{n}");
        let copied = world.rads(&["c", "cp", "swap-1:/data/t", &to]);
        // The pipe was left out, which is told; nothing waits for it.
        assert!(copied.code == 1 && copied.err.contains("is a pipe"), "{copied:?}");
        if let Ok(text) = fs::read_to_string(format!("{to}/x/secret"))
            && !fs::symlink_metadata(format!("{to}/x")).unwrap().is_symlink()
        {
            assert!(text == "inside\n" || text.is_empty(), "{text}");
            seen += 1;
        }
        // Links are copied as links.
        assert!(fs::symlink_metadata(format!("{to}/away")).unwrap().is_symlink());
        // And into what may be the folder or the link.
        world.rads(&["c", "cp", text(&app), &format!("swap-1:/data/t/x/new-{n}")]);
    }
    println!("{seen} of 40 copies met the folder");
    for path in ["away/secret", "proc/secret", "x/../../../../../../../..{canary}/secret"] {
        let path = format!("swap-1:/data/t/{}", path.replace("{canary}", &canary));
        let copied = world.rads(&["c", "cp", &path, &format!("{here}/stolen")]);
        assert_eq!(copied.code, 1, "{path}: {copied:?}");
        assert!(!Path::new(&format!("{here}/stolen")).exists());
    }
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 1, "nothing was written there");
    // The control: whoever follows the link on the host is led there.
    let volume = world.data().join("volumes/default/swap/t/away/secret");
    assert_eq!(fs::read_to_string(volume).unwrap(), "canary");
    // It cannot be made to hold more than it may: the copy is charged to it.
    if world.limits_bite() {
        let noise = world.file("noise", &"x".repeat(100 << 20));
        let copied = world.rads(&["c", "cp", text(&noise), "swap-1:/tmp/noise"]);
        assert!(copied.code == 1 && copied.err.contains("error[C0"), "{copied:?}");
        println!("{}", copied.err);
        world.wait_for("it to be there again", || world.rads(&["c", "exec", "swap-1", "--", "true"]).code == 0);
    }
}

#[test]
fn a_local_port_leads_into_a_star() {
    let world = World::new();
    world.up(&world.hello("instances: 1"));
    let forward = |name: &str, ports: &str| {
        let mut command = world.command(&["c", "port-forward", name, ports]);
        let mut child = Ended(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split_whitespace().next().unwrap().parse().unwrap_or_else(|_| panic!("{line}"));
        (child, address)
    };
    let (mut child, address): (Ended, std::net::SocketAddr) = forward("hello", "0:8080");
    assert!(address.ip().is_loopback());
    assert_eq!(get(address).unwrap(), (200, "hello-1".to_owned()));
    // The star may be replaced meanwhile.
    world.rads(&["c", "restart", "hello"]).ok();
    assert_eq!(get(address).unwrap().0, 200);
    kill(child.0.id(), "-INT");
    assert!(child.0.wait().unwrap().success());
    assert!(TcpStream::connect(address).is_err(), "it is closed");
    // A port where nobody listens closes the connection and says so.
    let (mut child, address) = forward("hello", "0:81");
    let mut nothing = Vec::new();
    let _ = TcpStream::connect(address).unwrap().read_to_end(&mut nothing);
    let mut said = String::new();
    BufReader::new(child.0.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(nothing.is_empty() && said.contains("nothing listens on port 81 in star `hello-"), "{said}");
    kill(child.0.id(), "-INT");
    child.0.wait().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    world.rads(&["c", "port-forward", "hello", &format!("{port}:8080")]).refused("C0206", "cannot listen on");
    world.rads(&["c", "port-forward", "nothing", "80"]).refused("C0104", "`nothing`");
    for ports in ["0", "70000", "x", "1:2:3"] {
        world.rads(&["c", "port-forward", "hello", ports]).refused("C0001", "expected PORT");
    }
}

#[test]
fn single_stars_are_stopped_started_and_restarted_by_their_names() {
    let world = World::new();
    let address = world.up(&world.hello("instances: 3"));
    let before = world.stars();
    assert_eq!(world.rads(&["c", "restart", "hello-2"]).ok(), "hello-2: restarted\n");
    let after = world.stars();
    let changed: Vec<&str> =
        after.iter().filter(|star| !before.contains(star)).map(|star| star.name.as_str()).collect();
    assert_eq!((changed, after.len()), (vec!["hello-2"], 3), "{before:?} {after:?}");
    assert_eq!(world.rads(&["c", "stop", "hello-2"]).ok(), "hello-2: stopped\n");
    assert_eq!(world.stars().iter().map(|star| star.name.clone()).collect::<Vec<_>>(), ["hello-1", "hello-3"]);
    for _ in 0..6 {
        assert_ne!(get(address).unwrap().1, "hello-2");
    }
    let status = world.rads(&["c", "status"]).ok();
    assert!(status.contains("2/2") && status.contains("ready, 1 star stopped"), "{status}");
    // It stays so whoever looks after it.
    support::kill_to_the_end(&world, world.agent_pid());
    let mut agent = world.command(&["c", "agent"]).spawn().unwrap();
    world.wait_for("the next agent", || world.rads(&["c", "status"]).code == 0);
    world.wait_for("the stars to be ready", || world.service("hello")["ready"] == 2);
    assert_eq!(world.rads(&["c", "start", "hello-2"]).ok(), "hello-2: started\n");
    assert_eq!(world.stars().len(), 3);
    // A name that is an id, one that is nobody's, and one that is no name.
    let id = world.stars()[0].id.clone();
    assert_eq!(world.rads(&["c", "restart", &id]).ok(), "hello-1: restarted\n");
    world.rads(&["c", "stop", "hello-9"]).refused("C0104", "no service or star `hello-9`");
    world.rads(&["c", "stop", "Hello_1"]).refused("C0102", "`Hello_1` is not a name");
    world.rads(&["c", "destroy", "hello-1"]).refused("C0001", "cannot be destroyed alone");
    world.rads(&["c", "pause", "hello"]).ok();
    world.rads(&["c", "restart", "hello-1"]).refused("C0105", "its service `hello` is paused");
    world.rads(&["c", "resume", "hello"]).ok();
    world.rads(&["c", "stop", "hello"]).ok();
    world.rads(&["c", "start", "hello-1"]).refused("C0105", "is stopped");
    world.rads(&["c", "start", "hello"]).ok();
    assert_eq!(world.rads(&["c", "destroy", "hello"]).ok(), "hello: destroyed\n");
    let status = world.json(&["c", "status"]);
    assert_eq!((&status["services"], &status["node"]["apps"]), (&serde_json::json!([]), &serde_json::json!(0)));
    world.rads(&["c", "destroy", "hello"]).refused("C0104", "`hello`");
    world.rads(&["c", "shutdown"]).ok();
    agent.wait().unwrap();
    world.assert_nothing_left();
}

#[test]
fn a_job_that_ended_is_run_again_by_its_name() {
    let world = World::new();
    let app = world.app(
        "constellation.deploy(\"job\", {command: [\"sh\", \"-c\", \"echo ran; sleep 0.3\"], restart: \"never\"});",
    );
    world.rads(&["up", "-d", "--yes", text(&app)]).ok();
    world.rads(&["c", "wait", "job", "--timeout", "30s"]).ok();
    world.rads(&["c", "stop", "job-1"]).refused("C0105", "has ended");
    for word in ["restart", "start"] {
        let again = world.rads(&["c", word, "job-1"]);
        assert!(again.code == 0, "{again:?}");
        world.rads(&["c", "wait", "job", "--timeout", "30s"]).ok();
    }
    assert_eq!(world.service("job")["started"], 3);
}

#[test]
fn everything_known_of_a_star_is_on_one_page() {
    let world = World::new();
    world.up(&world.hello("instances: 1, cpu_percent: 50, ram_mb: 64, pids: 20, volumes: {\"/data\": \"pages\"}"));
    let found = world.json(&["c", "inspect", "hello-1"]);
    let star = &world.stars()[0];
    assert_eq!(
        (found["star"]["id"].as_str(), found["host"]["pid"].as_u64()),
        (Some(star.id.as_str()), Some(star.pid.into()))
    );
    let phases: Vec<_> =
        found["history"].as_array().unwrap().iter().map(|turn| turn["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["assigned", "starting", "ready"]);
    let mounts = found["host"]["mounts"].as_array().unwrap();
    assert!(mounts.iter().any(|mount| mount["at"] == "/data") && mounts.iter().any(|mount| mount["at"] == "/app"));
    for namespace in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"] {
        assert!(found["host"]["namespaces"][namespace].is_string(), "{namespace}: {found}");
    }
    // The page's numbers are the host's.
    let map = fs::read_to_string(format!("/proc/{}/uid_map", star.pid)).unwrap();
    assert_eq!(map.split_whitespace().nth(1), Some(found["host"]["first_user_id"].to_string().as_str()));
    if world.limits_bite() {
        let limits = &found["host"]["limits"];
        assert_eq!(
            (&limits["cpu_millicores"], &limits["memory_bytes"], &limits["pids"]),
            (&500.into(), &67108864.into(), &20.into())
        );
        let folder = Path::new(found["host"]["cgroups"]["memory"].as_str().unwrap());
        let inside = fs::read_to_string(folder.join("cgroup.procs")).unwrap();
        assert!(inside.lines().any(|pid| pid == star.pid.to_string()), "{inside}");
    }
    let log = found["log_files"][0].as_str().unwrap();
    assert!(fs::read_to_string(log).unwrap().contains("hello-1 begins"));
    let page = world.rads(&["c", "inspect", "hello-1"]).ok();
    for part in ["star         hello-1 (star_", "state        ready, started", "LIMIT", "64 MiB", "/data", "WHEN"] {
        assert!(page.contains(part), "`{part}` is not in:\n{page}");
    }
    // One that ended is remembered, and by the one after it.
    kill(star.pid, "-9");
    world.wait_for("another", || world.stars().iter().any(|other| other.phase == "ready" && other.id != star.id));
    let next = world.json(&["c", "inspect", "hello-1"]);
    assert_eq!(next["before"][0]["id"].as_str(), Some(star.id.as_str()));
    let ended = world.json(&["c", "inspect", &star.id]);
    assert!(ended["host"].is_null() && ended["star"]["exit"]["cause"]["signal"] == 9, "{ended}");
    assert!(world.rads(&["c", "inspect", "hello-1"]).ok().contains("killed by SIGKILL"));
    let service = world.rads(&["c", "inspect", "hello"]).ok();
    assert!(
        service.contains("1 of 1 ready") && service.contains("star `hello-1` ended: killed by SIGKILL"),
        "{service}"
    );
    world.rads(&["c", "inspect", "nothing"]).refused("C0104", "`nothing`");
}

#[test]
fn every_limit_is_read_back_beside_what_was_asked_for_and_what_holds_it() {
    let world = World::new();
    world.up(&world.hello(
        "instances: 1, cpu_percent: 50, cpu_burst_percent: 20, cpus: \"0\", ram_mb: 64, ram_soft_mb: 32, pids: 20, \
         open_files: 128, disk_mb: 16, io_read_mb_s: 20, io_write_mb_s: 10, log_kb_s: 64, \
         tmpfs: {\"/cache\": {size_mb: 4}}, volumes: {\"/data\": {name: \"pages\", size_mb: 16}, \"/free\": \"free\"}",
    ));
    let walls = world.json(&["c", "status"])["walls"].clone();
    let page = || {
        let page = world.rads(&["c", "inspect", "hello-1"]).ok();
        let rows = page.lines().skip_while(|line| !line.starts_with("LIMIT")).take_while(|line| !line.is_empty());
        let rows = rows.map(|row| row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>());
        rows.map(|row| row.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let check = |rows: &[Vec<String>], limit: &str, asked: &str, in_force: &str, reason: &serde_json::Value| {
        let row = rows.iter().find(|row| row[0] == limit).unwrap_or_else(|| panic!("no `{limit}` in {rows:?}"));
        match reason.as_str() {
            Some(reason) => assert_eq!((&*row[1], &*row[2], &*row[3]), (asked, "not enforced", reason), "{limit}"),
            None => assert_eq!((&*row[1], &*row[2]), (asked, in_force), "{limit}: {row:?}"),
        }
    };
    let none = serde_json::Value::Null;
    let rows = page();
    for (limit, value, reason) in [
        ("cpu", "50 %", "cpu_not_enforced"),
        ("cpu burst", "20 %", "cpu_burst_not_enforced"),
        ("processors", "0", "cpus_not_enforced"),
        ("memory", "64 MiB", "memory_not_enforced"),
        ("soft memory", "32 MiB", "memory_not_enforced"),
        ("pids", "20", "pids_not_enforced"),
        ("disk reads", "20 MiB/s", "io_not_enforced"),
        ("disk writes", "10 MiB/s", "io_not_enforced"),
        ("volume /data", "16 MiB", "disk_in_memory"),
    ] {
        check(&rows, limit, value, value, &walls[reason]);
    }
    for (limit, asked, in_force) in [
        ("open files", "128", "128"),
        ("disk", "16 MiB", "16 MiB"),
        ("log rate", "64 KiB/s", "64 KiB/s"),
        ("tmpfs /cache", "4 MiB", "4 MiB"),
        ("volume /free", "-", "unlimited"),
    ] {
        check(&rows, limit, asked, in_force, &none);
    }
    // By what: what the machine said of itself.
    let disk = rows.iter().find(|row| row[0] == "disk").unwrap()[3].clone();
    let means = walls["disk"].as_str().unwrap();
    let expected = match means {
        "project_quota" => "project quota",
        "image" => "image on /dev/loop",
        _ => "memory file system",
    };
    assert!(disk.starts_with(expected), "{disk}");
    // The numbers are read back, not repeated: what is changed behind everybody's back is what is shown.
    if world.limits_bite() {
        let found = world.json(&["c", "inspect", "hello-1"]);
        let limits = &found["host"]["limits"];
        let (file, folder) = (limits["means"]["memory"].as_str().unwrap(), &found["host"]["cgroups"]["memory"]);
        let file = Path::new(folder.as_str().unwrap()).join(file.rsplit(' ').next().unwrap());
        fs::write(&file, (48 << 20).to_string()).unwrap();
        check(&page(), "memory", "64 MiB", "48 MiB", &none);
        world.rads(&["c", "limits", "hello", "--cpu-percent", "none", "--cpu-burst-percent", "none"]).ok();
        let rows = page();
        check(&rows, "cpu", "-", "unlimited", &none);
        check(&rows, "cpu burst", "-", "unlimited", &none);
    }
}

#[test]
fn events_are_chosen_by_name_and_time_and_outlive_agents() {
    let world = World::new();
    world.up(&world.hello("instances: 1"));
    let other = world.app("constellation.deploy(\"other\", {command: [\"sleep\", \"1000\"]});");
    let other = {
        let path = other.with_file_name("other.rads");
        fs::rename(&other, &path).unwrap();
        path
    };
    world.rads(&["up", "-d", "--yes", text(&other)]).ok();
    let star = world.stars().into_iter().find(|star| star.name == "hello-1").unwrap();
    kill(star.pid, "-9");
    world.wait_for("its end to be told", || world.rads(&["c", "events"]).ok().contains("ended"));
    let lines = |args: &[&str]| world.rads(&[&["c", "events"], args].concat()).ok().lines().count();
    let (all, hello, one, others) = (lines(&[]), lines(&["hello"]), lines(&["hello-1"]), lines(&["other"]));
    assert_eq!((all, hello, one, others), (3, 2, 1, 1));
    assert_eq!((lines(&["--since", "1h"]), lines(&["--since", "2099-01-01"]), lines(&["nobody"])), (3, 0, 0));
    assert_eq!(world.rads(&["c", "events", "nobody"]).err, "nothing is recorded of `nobody`\n");
    let line = world.rads(&["c", "events", "hello-1", "-o", "json"]).ok();
    let event: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    assert_eq!(
        (&event["star"], &event["service"], &event["app"]),
        (&"hello-1".into(), &"hello".into(), &"hello".into())
    );
    let before = world.rads(&["c", "events"]).ok();
    support::kill_to_the_end(&world, world.agent_pid());
    let mut agent = Ended(world.command(&["c", "agent"]).spawn().unwrap());
    world.wait_for("the next agent", || world.rads(&["c", "status"]).code == 0);
    assert_eq!(world.rads(&["c", "events"]).ok(), before);
    world.rads(&["c", "shutdown"]).ok();
    agent.0.wait().unwrap();
}

#[test]
fn a_star_that_stops_what_comes_into_it_holds_nobody_up_for_ever() {
    let world = World::new();
    let stopping = "me=$$; while :; do for place in /proc/[0-9]*; do pid=${place#/proc/}; \
                    case $pid in 1|$me) ;; *) kill -STOP $pid;; esac; done; done 2>/dev/null";
    world.rads(&["c", "create", "--name", "jealous", "--cpu-percent", "50", "--", "sh", "-c", stopping]).ok();
    // Large enough not to slip through.
    let own = world.file("given", &"words ".repeat(5 << 20));
    let outcome = world.rads(&["c", "cp", own.to_str().unwrap(), "jealous:/tmp/given"]);
    assert!(outcome.code == 1 && outcome.err.contains("the copy has not moved for 20 s"), "{outcome:?}");
}
