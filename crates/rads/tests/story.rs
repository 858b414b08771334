//! The story of a user with one machine, on real namespaces and cgroups: up, look, scale, restart, crash, down.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use support::{Ended, Star, World, get, kill};

fn hello_3(world: &World) -> std::path::PathBuf {
    world.hello("instances: 3, cpu_percent: 50, ram_mb: 64, grace_seconds: 5")
}

#[test]
fn requests_go_round_the_stars_and_down_leaves_nothing() {
    let world = World::new();
    let address = world.up(&hello_3(&world));
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..30 {
        let (status, body) = get(address).unwrap();
        assert_eq!(status, 200);
        *answers.entry(body).or_default() += 1;
    }
    let expected: BTreeMap<String, usize> = ["hello-1", "hello-2", "hello-3"].map(|name| (name.to_owned(), 10)).into();
    assert_eq!(answers, expected);
    let table = world.rads(&["c", "list"]).ok();
    assert!(table.starts_with("NAME") && table.contains("hello-3"), "{table}");
    let logs = world.rads(&["c", "logs", "hello"]).ok();
    for name in ["hello-1", "hello-2", "hello-3"] {
        assert!(logs.contains(&format!("{name} | {name} begins")), "{logs}");
    }
    assert_eq!(world.rads(&["c", "down"]).ok(), "hello: down\n");
    world.assert_nothing_left();
    world.rads(&["c", "status"]).refused("C0201", "no agent answers");
}

#[test]
fn up_in_the_foreground_ends_by_interrupt_and_leaves_nothing() {
    let world = World::new();
    let app = hello_3(&world);
    let mut command = world.command(&["up", app.to_str().unwrap()]);
    let mut up = Ended(command.stdout(std::process::Stdio::piped()).spawn().unwrap());
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(up.0.stdout.take().unwrap()));
    let mut begun = BTreeSet::new();
    while begun.len() < 3 {
        let line = lines.next().unwrap().unwrap();
        if let Some((name, text)) = line.split_once(" | ") {
            assert_eq!(text, format!("{name} begins"));
            begun.insert(name.to_owned());
        }
    }
    assert_eq!(get(world.address("hello")).unwrap().0, 200);
    kill(up.0.id(), "-INT");
    assert!(up.0.wait().unwrap().success());
    world.assert_nothing_left();
}

#[test]
fn scaling_and_restarting_lose_no_request() {
    let world = World::new();
    let address = world.up(&hello_3(&world));
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, answered) = (stop.clone(), answered.clone());
            std::thread::spawn(move || {
                while !stop.load(SeqCst) {
                    let (status, body) = get(address).expect("a connection and an answer");
                    assert_eq!(status, 200, "{body}");
                    answered.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    let served = |more: usize| {
        let goal = answered.load(SeqCst) + more;
        world.wait_for("requests to be answered", || {
            answered.load(SeqCst) >= goal || clients.iter().any(|c| c.is_finished())
        });
    };
    served(50);
    assert_eq!(world.rads(&["c", "scale", "hello", "8"]).ok(), "hello: 8 stars ready\n");
    served(50);
    assert_eq!(world.rads(&["c", "scale", "hello", "2"]).ok(), "hello: 2 stars ready\n");
    served(50);
    let before: BTreeSet<String> = world.stars().into_iter().map(|star| star.id).collect();
    assert_eq!(world.rads(&["c", "restart", "hello"]).ok(), "hello: 2 stars ready\n");
    served(50);
    let after: BTreeSet<String> = world.stars().into_iter().map(|star| star.id).collect();
    assert!(before.is_disjoint(&after), "{before:?} {after:?}");
    stop.store(true, SeqCst);
    for client in clients {
        client.join().expect("no request failed");
    }
    world.rads(&["c", "down"]).ok();
    world.assert_nothing_left();
}

#[test]
fn stopped_services_stay_known_and_start_again() {
    let world = World::new();
    let address = world.up(&hello_3(&world));
    assert_eq!(world.rads(&["c", "stop", "hello"]).ok(), "hello: stopped\n");
    assert!(world.stars().is_empty());
    assert_eq!(world.service("hello")["stopped"], true);
    assert_eq!(world.rads(&["c", "start", "hello"]).ok(), "hello: 3 stars ready\n");
    assert_eq!(get(address).unwrap().0, 200);
}

#[test]
fn a_killed_star_is_replaced_and_its_end_is_told() {
    let world = World::new();
    let address = world.up(&hello_3(&world));
    let victim = world.stars()[0].clone();
    kill(victim.pid, "-9");
    world.wait_for("a replacement", || {
        let stars = world.stars();
        stars.len() == 3 && stars.iter().all(|star| star.phase == "ready" && star.id != victim.id)
    });
    assert_eq!(get(address).unwrap().0, 200);
    let all = world.rads(&["c", "list", "--all"]).ok();
    assert!(all.contains("killed by SIGKILL"), "{all}");
}

#[test]
fn an_agent_that_is_killed_leaves_its_stars_to_the_next_one() {
    let world = World::new();
    let app = hello_3(&world);
    world.up(&app);
    let identity =
        |stars: Vec<Star>| stars.into_iter().map(|star| (star.id, star.pid, star.start_time)).collect::<Vec<_>>();
    let before = identity(world.stars());
    assert_eq!(before.len(), 3);
    let agent = world.agent_pid();
    kill(agent, "-9");
    world.wait_for("the agent to be gone", || world.rads(&["c", "status"]).code == 1);
    for (_, pid, _) in &before {
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "star {pid} ended with its agent");
    }
    let second = world.rads(&["up", "-d", app.to_str().unwrap()]).ok();
    assert!(second.contains("nothing to change"), "{second}");
    world.wait_for("the stars to be ready", || world.stars().iter().filter(|star| star.phase == "ready").count() == 3);
    assert_ne!(world.agent_pid(), agent);
    assert_eq!(identity(world.stars()), before, "adopted: same ids, pids and start times");
    assert_eq!(get(world.address("hello")).unwrap().0, 200);
    world.rads(&["c", "down"]).ok();
    world.assert_nothing_left();
}

#[test]
fn logs_are_chosen_by_time_by_stream_and_by_life() {
    let world = World::new();
    let app = world.app(
        "constellation.deploy(\"two\", {command: [\"sh\", \"-c\", \"echo out; echo err >&2; exec sleep 1000\"]});",
    );
    world.rads(&["up", "-d", app.to_str().unwrap()]).ok();
    let logs = |args: &[&str]| world.rads(&[&["c", "logs", "two"], args].concat()).ok();
    world.wait_for("both lines", || logs(&[]).lines().count() == 2);
    let only = |args: &[&str], expected: &str| assert_eq!(logs(args), format!("two-1 | {expected}\n"), "{args:?}");
    only(&["--stdout"], "out");
    only(&["--stderr"], "err");
    // The last of those chosen, not of all.
    only(&["--stdout", "--tail", "1"], "out");
    assert_eq!(logs(&["--since", "1h"]).lines().count(), 2);
    assert_eq!(logs(&["--since", "2099-01-01"]), "");
    let stamped = logs(&["-t", "--stdout"]);
    assert!(stamped.starts_with("20") && stamped.as_bytes().get(19) == Some(&b' '), "{stamped}");
    world.rads(&["c", "logs", "two", "--previous"]).refused("C0104", "nothing is kept");
    let first = world.stars()[0].clone();
    kill(first.pid, "-9");
    world.wait_for("another star", || world.stars().iter().any(|star| star.id != first.id && star.phase == "ready"));
    let json = logs(&["--previous", "-o", "json"]);
    assert!(json.contains(&first.id) && json.lines().count() == 2, "{json}");
    world.rads(&["c", "logs", "--since", "yesterday"]).refused("C0001", "like `10m`");
    world.rads(&["c", "down"]).ok();
    world.assert_nothing_left();
}

#[test]
fn waiting_ends_when_the_work_is_done_and_tells_how() {
    let world = World::new();
    let app = world.app(
        "constellation.deploy(\"good\", {command: [\"sh\", \"-c\", \"sleep 0.5\"], restart: \"never\", instances: 2});
         constellation.deploy(\"bad\", {command: [\"sh\", \"-c\", \"sleep 1; exit $STAR_CODE\"], env: {STAR_CODE: \"7\"}, \
         restart: \"never\"});
         constellation.deploy(\"ever\", {command: [\"sleep\", \"1000\"]});",
    );
    world.rads(&["up", "-d", app.to_str().unwrap()]).ok();
    assert_eq!(world.rads(&["c", "wait", "good"]).ok(), "good-1  exit code 0\ngood-2  exit code 0\n");
    let bad = world.rads(&["c", "wait", "bad", "--timeout", "60s"]);
    assert_eq!((bad.code, bad.out.as_str()), (7, "bad-1  exit code 7\n"));
    // A star that will be replaced is waited for all the same: itself, not the one after it.
    world.rads(&["c", "wait", "ever-1", "--timeout", "1s"]).refused("C0304", "has not ended");
    let star = world.stars().into_iter().find(|star| star.name == "ever-1").unwrap();
    let killed = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| world.rads(&["c", "wait", &star.id]));
        kill(star.pid, "-9");
        waiting.join().unwrap()
    });
    assert_eq!((killed.code, killed.out.as_str()), (137, "ever-1  killed by SIGKILL\n"));
    world.rads(&["c", "stop", "ever"]).ok();
    assert_eq!(world.rads(&["c", "wait", "ever"]).code, 143);
    world.rads(&["c", "start", "ever"]).ok();
    world.rads(&["c", "wait", "ever"]).refused("C0001", "replaced whenever they end");
    world.rads(&["c", "down", "good"]).refused("C0104", "`good` is a service of app `hello`");
    world.rads(&["c", "wait", "nobody"]).refused("C0104", "nobody");
    world.rads(&["c", "wait", "good", "--timeout", "soon"]).refused("C0001", "as in `90s`");
    world.rads(&["c", "down"]).ok();
    world.assert_nothing_left();
}

/// A script that writes a number every few milliseconds, and never one twice.
const COUNTS: &str = "turbo n = 0; while (true) { echo(`number ${n}`); n = n + 1; sleep(5); }";

#[test]
fn no_kill_of_the_agent_loses_a_line_or_restarts_a_star() {
    // `cargo xtask test soak` asks for more.
    let kills: u32 = std::env::var("RADS_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let world = World::new();
    world.file("count.rads", COUNTS);
    let app = world.app("constellation.deploy(\"count\", {script: \"count.rads\", instances: 3});");
    world.rads(&["up", "-d", app.to_str().unwrap()]).ok();
    let identity =
        |stars: Vec<Star>| stars.into_iter().map(|star| (star.id, star.pid, star.start_time)).collect::<Vec<_>>();
    let before = identity(world.stars());
    for round in 0..kills {
        kill(world.agent_pid(), "-9");
        world.wait_for("the agent to be gone", || world.rads(&["c", "status"]).code == 1);
        world.rads(&["up", "-d", app.to_str().unwrap()]).ok();
        assert_eq!(identity(world.stars()), before, "after {} kills", round + 1);
    }
    for (id, ..) in &before {
        let log = world.rads(&["c", "logs", id, "--tail", "1000000"]).ok();
        let numbers = log.lines().filter_map(|line| line.rsplit_once("number ")?.1.trim().parse::<u64>().ok());
        let numbers: Vec<u64> = numbers.collect();
        let first = *numbers.first().expect("it counts");
        assert!(numbers.len() as u32 > kills, "{log}");
        assert!(numbers.iter().copied().eq(first..first + numbers.len() as u64), "a line is missing or there twice");
        assert_eq!(first, 0, "from the beginning");
    }
    world.rads(&["c", "down"]).ok();
    world.assert_nothing_left();
}

#[test]
fn an_agent_whose_folder_is_moved_away_ends_and_its_stars_run_on() {
    let world = World::new();
    let mut agent = world.command(&["c", "agent"]);
    let mut agent = support::Ended(agent.stderr(std::process::Stdio::piped()).spawn().unwrap());
    world.wait_for("the agent", || world.rads(&["c", "status"]).code == 0);
    world.up(&world.hello("instances: 1"));
    let before = world.stars();
    let away = world.data().with_extension("away");
    std::fs::rename(world.data(), &away).unwrap();
    world.wait_for("the agent to end", || agent.0.try_wait().unwrap().is_some());
    assert_eq!(agent.0.wait().unwrap().code(), Some(1));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut agent.0.stderr.take().unwrap(), &mut said).unwrap();
    let told: Vec<_> = said.lines().filter(|line| line.starts_with("error[C0203]: ")).collect();
    assert!(told.len() == 1 && told[0].contains("is gone"), "{said}");
    std::fs::rename(&away, world.data()).unwrap();
    world.rads(&["up", "-d", "--yes", world.hello("instances: 1").to_str().unwrap()]).ok();
    assert_eq!(world.stars(), before, "the same processes");
}

#[test]
fn commands_that_need_an_agent_at_the_same_moment_share_one() {
    let world = World::new();
    let script = world.file("server.rads", support::HELLO);
    let begin = |name: &str| {
        let mut command = world.command(&["c", "create", "--name", name, "--script", script.to_str().unwrap()]);
        Ended(command.stdout(std::process::Stdio::null()).spawn().unwrap())
    };
    let commands = ["one", "two", "three"].map(begin);
    for mut command in commands {
        assert!(command.0.wait().unwrap().success());
    }
    assert_eq!(world.stars().len(), 3);
    world.rads(&["c", "down", "--all"]).ok();
    world.assert_nothing_left();
}

#[test]
fn an_agent_that_is_told_to_end_leaves_its_stars_and_an_empty_place() {
    let world = World::new();
    let app = hello_3(&world);
    world.up(&app);
    let pids = |world: &World| world.stars().iter().map(|star| star.pid).collect::<Vec<_>>();
    let before = pids(&world);
    kill(world.agent_pid(), "-TERM");
    world.wait_for("the agent to be gone", || !world.data().join("agent.sock").exists());
    world.wait_for("its place to be free", || world.rads(&["up", "-d", app.to_str().unwrap()]).code == 0);
    assert_eq!(pids(&world), before);
    world.rads(&["c", "shutdown", "--keep-stars"]).ok();
    let kept = std::fs::read_to_string(world.data().join("nursery.pid")).unwrap();
    assert!(std::path::Path::new("/proc").join(kept.trim()).exists());
    world.rads(&["c", "shutdown", "--keep-stars"]).refused("C02", "no agent");
    // Nobody has to start an agent to be rid of what one left.
    world.rads(&["c", "shutdown"]).ok();
    world.assert_nothing_left();
    let log = std::fs::read_to_string(world.data().join("agent.log")).unwrap();
    assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
}

#[test]
fn stars_that_end_with_their_agent_have_their_hook_their_signal_and_their_grace() {
    let world = World::new();
    let script = "trap 'sleep 0.3; echo term >> /data/said; exit 0' TERM; echo begun >> /data/said; while :; do sleep 0.05; done";
    let app = world.app(&format!(
        "constellation.deploy(\"polite\", {{command: [\"sh\", \"-c\", \"{script}\"], \
         before_stop: [\"sh\", \"-c\", \"echo hook >> /data/said\"], volumes: {{\"/data\": \"said\"}}}}); \
         constellation.deploy(\"deaf\", {{command: [\"sh\", \"-c\", \"trap '' TERM; while :; do sleep 0.05; done\"], \
         grace_seconds: 1}});"
    ));
    let up = || world.rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
    let said = || std::fs::read_to_string(world.data().join("volumes/default/said/said")).unwrap_or_default();
    up();
    world.wait_for("it to listen", || said() == "begun\n");
    let begun = std::time::Instant::now();
    world.rads(&["c", "shutdown"]).ok();
    let took = begun.elapsed();
    assert!((1..8).contains(&took.as_secs()), "{took:?}");
    assert_eq!(said(), "begun\nhook\nterm\n");
    world.assert_nothing_left();
    // The next agent has them again, and that they ended was nobody's fault.
    up();
    world.wait_for("it to come again", || said() == "begun\nhook\nterm\nbegun\n");
    for service in ["polite", "deaf"] {
        assert_eq!(world.service(service)["restarts"], 0, "{service}");
    }
    let events = world.rads(&["c", "events"]).ok();
    assert!(!events.contains("killed") && !events.contains("ended"), "{events}");
    world.rads(&["c", "down"]).ok();
    world.assert_nothing_left();
}

#[test]
fn what_is_in_a_volume_survives_its_stars() {
    let world = World::new();
    world.file(
        "keeper.rads",
        r#"
turbo path = "/data/count";
turbo server = net.http_server("127.0.0.1", env.get("PORT"));
server.route("/", blast () {
    turbo count = fs.exists(path) ? str.length(io.read_file(path)) + 1 : 1;
    io.append_file(path, "x");
    return "" + count;
}, "GET");
server.serve();
"#,
    );
    let app = world.app(
        "constellation.deploy(\"keeper\", {script: \"keeper.rads\", port: 8080, listen: 0, volumes: {\"/data\": \"kept\"}});",
    );
    world.rads(&["up", "-d", app.to_str().unwrap()]).ok();
    let address = world.address("keeper");
    assert_eq!(get(address).unwrap(), (200, "1".to_owned()));
    world.rads(&["c", "restart", "keeper"]).ok();
    assert_eq!(get(address).unwrap(), (200, "2".to_owned()));
    world.rads(&["c", "down"]).ok();
    world.rads(&["up", "-d", app.to_str().unwrap()]).ok();
    assert_eq!(get(world.address("keeper")).unwrap(), (200, "3".to_owned()));
}

#[test]
fn up_again_rolls_only_what_changed() {
    let world = World::new();
    let app = hello_3(&world);
    world.file("other.rads", support::HELLO);
    let text = std::fs::read_to_string(&app).unwrap();
    let other = "constellation.deploy(\"other\", {script: \"other.rads\", instances: 1, port: 8080, listen: 0});";
    std::fs::write(&app, format!("{text}{other}\n")).unwrap();
    world.up(&app);
    let path = app.to_str().unwrap();
    let again = world.rads(&["up", "-d", path]).ok();
    assert!(again.contains("nothing to change"), "{again}");
    assert_eq!(world.rads(&["c", "plan", path]).code, 0);
    let before = world.stars();
    world.file("other.rads", &support::HELLO.replace("begins", "begins anew"));
    let plan = world.rads(&["c", "plan", path]);
    assert_eq!(plan.code, 2, "{plan:?}");
    world.rads(&["up", "-d", "--yes", path]).ok();
    let after = world.stars();
    let of = |stars: &[Star], prefix: &str| {
        stars.iter().filter(|star| star.name.starts_with(prefix)).map(|star| star.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of(&before, "hello-"), of(&after, "hello-"));
    assert_ne!(of(&before, "other-"), of(&after, "other-"));
    let logs = world.rads(&["c", "logs", "other"]).ok();
    assert!(logs.contains("begins anew"), "{logs}");
}

#[test]
fn three_hundred_stars_leave_every_counter_where_it_was() {
    let world = World::new();
    world.up(&world.hello("instances: 1, ram_mb: 64"));
    let nursery: u32 = std::fs::read_to_string(world.data().join("nursery.pid")).unwrap().trim().parse().unwrap();
    let agent = world.agent_pid();
    let counters = || {
        let descriptors = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        let mounts = std::fs::read_to_string(format!("/proc/{nursery}/mountinfo")).unwrap().lines().count();
        let threads = std::fs::read_dir(format!("/proc/{nursery}/task")).unwrap().count();
        (descriptors(agent), descriptors(nursery), mounts, threads, world.cgroups().len())
    };
    let cycle = || {
        world.rads(&["c", "scale", "hello", "100"]).ok();
        world.rads(&["c", "scale", "hello", "1"]).ok();
    };
    // The nursery makes some namespaces ahead; the first cycle is over when it has as many as it wants.
    cycle();
    let (mut before, mut steady) = (counters(), 0);
    world.wait_for("the counters to come to rest", || {
        let now = counters();
        steady = if now == before { steady + 1 } else { 0 };
        before = now;
        steady == 50
    });
    (0..3).for_each(|_| cycle());
    let mut after = before;
    world.wait_for(&format!("the counters to be {before:?} again"), || {
        after = counters();
        after == before
    });
    world.rads(&["c", "down"]).ok();
    world.assert_nothing_left();
}

#[test]
fn commands_run_within_a_stars_walls() {
    let world = World::new();
    world.up(&hello_3(&world));
    assert_eq!(world.rads(&["c", "exec", "hello-2", "--", "/bin/sh", "-c", "hostname; exit 7"]).out, "hello-2\n");
    let failed = world.rads(&["c", "exec", "hello", "--", "/bin/sh", "-c", "exit 7"]);
    assert_eq!(failed.code, 7, "{failed:?}");
    let mut command = world.command(&["c", "exec", "hello-1", "--", "/bin/cat"]);
    let mut cat =
        Ended(command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap());
    std::io::Write::write_all(&mut cat.0.stdin.take().unwrap(), b"through the wall").unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(cat.0.stdout.as_mut().unwrap(), &mut text).unwrap();
    assert_eq!(text, "through the wall");
    assert!(cat.0.wait().unwrap().success());
    // As shells have it.
    let missing = world.rads(&["c", "exec", "hello-1", "--", "nope"]);
    assert_eq!((missing.code, missing.err.as_str()), (127, "cannot run `nope`: no such file or directory\n"));
    assert_eq!(world.rads(&["c", "exec", "hello-1", "--", "/etc"]).code, 126);
    world.rads(&["c", "exec", "nobody", "--", "ls"]).refused("C0104", "`nobody`");
}

#[test]
fn a_service_script_needs_no_app() {
    let world = World::new();
    let script = world.file("server.rads", support::HELLO);
    let path = script.to_str().unwrap();
    world
        .rads(&["constellation", "create", "--name", "web", "--script", path, "--cpu-percent", "25", "--ram-mb", "512"])
        .ok();
    let list = world.rads(&["constellation", "list"]).ok();
    assert!(list.contains("web-1"), "{list}");
    world.rads(&["constellation", "stop", "web"]).ok();
    world.rads(&["constellation", "status"]).ok();
    let deployed = world.rads(&[
        "constellation",
        "deploy",
        path,
        "--instances",
        "2",
        "--cpu-cores",
        "1",
        "--ram-gb",
        "1",
        "--listen",
        "0",
    ]);
    assert!(deployed.ok().contains("server"));
    assert_eq!(world.stars().len(), 2);
    world.rads(&["c", "deploy", path, "--autoscale-min", "2"]).refused("C0303", "autoscal");
}

#[test]
fn a_command_line_has_every_option_of_a_description() {
    let world = World::new();
    world.file("conf/app.conf", "bound\n");
    let folder = world.file("x", "").parent().unwrap().to_owned();
    let root = rustix::process::getuid().is_root();
    let mut secret =
        world.command(&["c", "secrets", "set", "db", "--from-file", folder.join("conf/app.conf").to_str().unwrap()]);
    support::outcome(secret.output().unwrap()).ok();
    let mut line =
        vec!["c", "create", "--name", "kept", "--cpu-percent", "50", "--ram-mb", "64", "--ram-balloon", "--pids", "20"];
    line.extend([
        "--open-files=128",
        "--log-kb-s",
        "64",
        "--cpus",
        "0",
        "--cpu-burst-percent",
        "20",
        "--disk-mb",
        "16",
    ]);
    line.extend(["--env", "A=1", "--env", "B=x=y", "--volume", "/data=pages", "--tmpfs", "/cache=size_mb=4"]);
    line.extend(["--bind", "/etc/app.conf=conf/app.conf", "--secret", "/run/secrets/db=db", "--env-secret", "DB=db"]);
    line.extend(["--workdir", "/cache", "--restart", "on_failure", "--grace-seconds", "2", "--stop-signal", "SIGINT"]);
    line.extend([
        "--deadline-seconds",
        "600",
        "--before-start",
        "sh -c 'echo \"it begins\" > /data/begun'",
        "--before-stop",
        "true",
    ]);
    line.extend(["--ready", "interval_ms=100,exec=test -e /data/begun", "--live", "interval_ms=1000,exec=true"]);
    line.extend(["--weaken", "seccomp=off", "--network", "none", "--asset", "conf", "--port", "9000", "--listen", "0"]);
    if root {
        line.extend(["--user", "1000:1000"]);
    }
    line.extend(["--", "sh", "-c", "echo $A $B $DB; cat /etc/app.conf /data/begun; pwd; exec sleep 1000"]);
    support::outcome(world.command(&line).current_dir(&folder).output().unwrap()).ok();
    world.wait_for("it to speak", || world.rads(&["c", "logs", "kept"]).ok().contains("/cache"));
    assert_eq!(
        world.rads(&["c", "logs", "kept"]).ok().replace("kept-1 | ", ""),
        "1 x=y bound\nbound\nit begins\n/cache\n"
    );
    // It is the same as the description of it.
    let app = format!(
        "constellation.deploy(\"same\", {{command: [\"sh\", \"-c\", \"echo $A $B $DB; cat /etc/app.conf /data/begun; pwd; exec sleep 1000\"], \
         cpu_percent: 50, ram_mb: 64, ram_balloon: true, pids: 20, open_files: 128, log_kb_s: 64, cpus: \"0\", cpu_burst_percent: 20, \
         disk_mb: 16, env: {{A: \"1\", B: \"x=y\"}}, volumes: {{\"/data\": \"pages\"}}, tmpfs: {{\"/cache\": {{size_mb: 4}}}}, \
         binds: {{\"/etc/app.conf\": \"conf/app.conf\"}}, secrets: {{\"/run/secrets/db\": \"db\"}}, env_secrets: {{DB: \"db\"}}, \
         workdir: \"/cache\", restart: \"on_failure\", grace_seconds: 2, stop_signal: \"SIGINT\", deadline_seconds: 600, \
         before_start: [\"sh\", \"-c\", \"echo \\\"it begins\\\" > /data/begun\"], before_stop: [\"true\"], \
         ready: {{interval_ms: 100, exec: [\"test\", \"-e\", \"/data/begun\"]}}, live: {{interval_ms: 1000, exec: [\"true\"]}}, \
         weaken: {{seccomp: \"off\"}}, network: \"none\", assets: [\"conf\"], port: 9000, listen: 0{}}});",
        if root { ", user: \"1000:1000\"" } else { "" }
    );
    world.rads(&["up", "-d", "--yes", world.app(&app).to_str().unwrap()]).ok();
    let template = |name: &str| world.json(&["c", "inspect", &format!("{name}-1")])["template"].clone();
    assert_eq!(template("kept"), template("same"));
}

#[test]
fn answers_are_for_programs_too() {
    let world = World::new();
    world.up(&hello_3(&world));
    let status = world.json(&["c", "status"]);
    assert_eq!(status["services"][0]["ready"], 3);
    let stats = world.json(&["c", "stats", "hello"]);
    assert_eq!(stats.as_array().unwrap().len(), 3);
    let events = world.rads(&["c", "events", "-o", "json"]).ok();
    assert!(events.contains("service `hello` created with 3 stars"), "{events}");
    let line = world.rads(&["c", "logs", "--tail", "1", "hello-1", "-o", "json"]).ok();
    let record: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(record["text"], "hello-1 begins");
}

#[test]
fn limits_change_while_stars_run() {
    let world = World::new();
    let app = world.hello("instances: 2, ram_mb: 64");
    world.up(&app);
    let before = world.stars();
    let shown = world.rads(&["c", "limits", "hello", "--ram-mb", "96", "--cpu-percent", "30"]).ok();
    assert!(shown.contains("memory 64 MiB → 96 MiB") && shown.contains("cpu unlimited → 30 %"), "{shown}");
    assert_eq!(world.json(&["c", "limits", "hello"])["memory"], 96 << 20);
    assert_eq!(world.stars(), before, "the same processes");
    if world.limits_bite() {
        let groups = world.cgroups();
        let limits: Vec<String> = groups
            .iter()
            .filter_map(|group| {
                let read = |file| std::fs::read_to_string(group.join(file)).ok();
                read("memory.limit_in_bytes").or_else(|| read("memory.max"))
            })
            .map(|text| text.trim().to_owned())
            .collect();
        assert_eq!(limits.iter().filter(|limit| **limit == (96 << 20).to_string()).count(), 2, "{limits:?}");
        // Less than it uses is refused, and nobody dies of it.
        world.rads(&["c", "limits", "hello", "--ram-mb", "none"]).ok();
    }
    // The description says otherwise; to follow it takes no restart either.
    let plan = world.rads(&["c", "plan", app.to_str().unwrap()]);
    assert_eq!(plan.code, 2);
    assert!(plan.out.contains("in place") && plan.out.contains("→ 64 MiB"), "{}", plan.out);
    world.up(&app);
    assert_eq!(world.stars(), before, "still the same processes");
    assert_eq!(world.json(&["c", "limits", "hello"])["memory"], 64 << 20);
    world.rads(&["c", "limits", "hello", "--ram-mb", "1"]).refused("C0103", "4 MiB");
    world.rads(&["c", "limits", "hello", "--ram-mb", "x"]).refused("C0001", "neither a number nor `none`");
    world.rads(&["c", "limits", "nobody", "--ram-mb", "64"]).refused("C0104", "`nobody`");
}

#[test]
fn a_command_brings_its_own_root() {
    let world = World::new();
    support::shell_root(&world, &["sh", "cat", "sleep"]);
    let app = world.app(
        "constellation.deploy(\"db\", {command: [\"/bin/sh\", \"-c\", \"while :; do sleep 0.1; done\"], rootfs: \"root\"});",
    );
    let path = app.to_str().unwrap();
    world.rads(&["up", "-d", "--yes", path]).ok();
    assert_eq!(world.rads(&["c", "exec", "db-1", "--", "/bin/cat", "/etc/motd"]).ok(), "from my root\n");
    let list = "echo mine > /note; cat /note; test -e /usr/bin/env || echo no host";
    assert_eq!(world.rads(&["c", "exec", "db-1", "--", "/bin/sh", "-c", list]).ok(), "mine\nno host\n");
    assert_eq!(world.rads(&["c", "plan", path]).code, 0, "the same folder is the same archive");
    world.file("root/etc/motd", "from my new root\n");
    assert_eq!(world.rads(&["c", "plan", path]).code, 2);
    world.rads(&["up", "-d", "--yes", path]).ok();
    assert_eq!(world.rads(&["c", "exec", "db", "--", "/bin/cat", "/etc/motd"]).ok(), "from my new root\n");
    // An archive that is none is told of before anything changes.
    world.file("bad.tar", "no archive");
    let bad = world.app("constellation.deploy(\"db\", {command: [\"/bin/sh\"], rootfs: \"bad.tar\"});");
    world.rads(&["up", "-d", "--yes", bad.to_str().unwrap()]).refused("C0102", "no tar archive");
    assert_eq!(world.service("db")["ready"], 1);
    world.rads(&["c", "down", "--all"]).ok();
    world.assert_nothing_left();
}

#[test]
fn nobody_else_reaches_what_stars_leave_in_volumes() {
    let world = World::new();
    let app = world.hello("instances: 1, volumes: {\"/data\": \"kept\"}");
    world.up(&app);
    world.rads(&["c", "exec", "hello-1", "--", "/bin/cp", "/bin/true", "/data/tool"]).ok();
    world.rads(&["c", "exec", "hello-1", "--", "/bin/chmod", "4755", "/data/tool"]).ok();
    let tool = world.data().join("volumes/default/kept/tool");
    assert!(tool.exists());
    let as_nobody = |path: &std::path::Path| {
        let mut command = std::process::Command::new(path);
        std::os::unix::process::CommandExt::uid(&mut command, 65_534);
        command.current_dir("/").output()
    };
    match as_nobody("/bin/true".as_ref()) {
        Ok(control) if control.status.success() => {
            let outcome = as_nobody(&tool);
            let denied = outcome.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
            assert!(denied, "a stranger ran a star's set-user-id program: {outcome:?}");
        }
        _ => println!("skipped: only root can try another user"),
    }
}

#[test]
fn two_ups_of_one_app_at_once_both_succeed() {
    for _ in 0..5 {
        let world = World::new();
        let app = world.hello("instances: 2");
        let up = || world.command(&["up", "-d", app.to_str().unwrap()]).output().unwrap();
        let outcomes = std::thread::scope(|scope| {
            let ups = [scope.spawn(up), scope.spawn(up)];
            ups.map(|up| support::outcome(up.join().unwrap()))
        });
        for outcome in outcomes {
            outcome.ok();
            assert_eq!(world.service("hello")["ready"], 2);
        }
    }
}

#[test]
fn up_returns_when_what_it_describes_is_ready_whatever_was_before() {
    let world = World::new();
    let app = world.hello("instances: 2");
    let path = app.to_str().unwrap();
    world.up(&app);
    world.rads(&["c", "stop", "hello"]).ok();
    let plan = world.rads(&["c", "plan", path]);
    assert!(plan.code == 2 && plan.out.contains("will start"), "{plan:?}");
    let address = world.up(&app);
    assert_eq!(get(address).unwrap().0, 200);
    for _ in 0..2 {
        let before = world.stars();
        for star in &before {
            kill(star.pid, "-9");
        }
        // A death takes a moment, and so does the news of it; whoever asks in between is told that all is well.
        let known = || world.stars().iter().all(|star| before.iter().all(|dead| dead.pid != star.pid));
        world.wait_for("the deaths to be known", known);
        world.up(&app);
        assert_eq!(world.service("hello")["ready"], 2);
    }
}

#[test]
fn up_returns_when_what_it_describes_is_ready_though_all_of_it_was_dead() {
    let world = World::new();
    let app = world.hello("instances: 2");
    world.up(&app);
    // Ended in good order, and then as by a power cut.
    world.rads(&["c", "shutdown"]).ok();
    assert_eq!(get(world.up(&app)).unwrap().0, 200);
    let stars = world.stars();
    let nursery = world.json(&["c", "status"])["walls"]["nursery_pid"].as_u64().unwrap();
    kill(world.agent_pid(), "-9");
    kill(u32::try_from(nursery).unwrap(), "-9");
    for star in &stars {
        kill(star.pid, "-9");
    }
    assert_eq!(get(world.up(&app)).unwrap().0, 200);
}

#[test]
fn up_brings_back_files_that_the_data_folder_lost() {
    let world = World::new();
    let app = world.hello("instances: 1");
    world.up(&app);
    world.rads(&["c", "shutdown"]).ok();
    for lost in ["bundles", "blobs"] {
        std::fs::remove_dir_all(world.data().join(lost)).unwrap();
    }
    world.up(&app);
    kill(world.stars()[0].pid, "-9");
    world.wait_for("a star that has its files", || get(world.address("hello")).is_ok_and(|(status, _)| status == 200));
    world.up(&app);
}

#[test]
fn up_in_the_foreground_returns_when_its_stars_have_done_their_work() {
    let world = World::new();
    for (code, said) in [(0, ""), (3, "job-1 ended: exit code 3")] {
        let text = format!(
            "constellation.deploy(\"job\", {{command: [\"sh\", \"-c\", \"echo begun; sleep 1; echo done; exit {code}\"], \
             restart: \"never\"}});"
        );
        let app = world.app(&text);
        let outcome = world.rads(&["up", app.to_str().unwrap()]);
        assert_eq!(outcome.code, i32::from(code != 0), "{outcome:?}");
        assert!(outcome.out.ends_with("job-1 | begun\njob-1 | done\n"), "{outcome:?}");
        assert!(outcome.err.contains(said), "{outcome:?}");
        world.assert_nothing_left();
    }
}

#[test]
fn up_in_the_foreground_tells_who_else_ended_what() {
    let world = World::new();
    let app = world.hello("instances: 1");
    let begin = || {
        let mut command = world.command(&["up", app.to_str().unwrap()]);
        let piped = std::process::Stdio::piped;
        let mut up = command.stdout(piped()).stderr(piped()).spawn().unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(up.stdout.as_mut().unwrap()));
        assert!(lines.any(|line| line.unwrap().ends_with("begins")));
        up
    };
    let up = begin();
    world.rads(&["c", "down"]).ok();
    let output = up.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.ends_with("`hello` was taken down by another command\n"), "{said}");
    let up = begin();
    let nursery = world.json(&["c", "status"])["walls"]["nursery_pid"].clone();
    kill(world.agent_pid(), "-9");
    let output = up.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("the agent was ended") && !said.contains("taking"), "{said}");
    // What it leaves is not nothing, and whoever looks is told so.
    assert!(!nursery.is_null());
    world.wait_for("the agent's death to be known", || world.rads(&["c", "status"]).err.contains("C0201"));
    world.rads(&["c", "status"]).refused("C0201", "its nursery and stars are there");
    let ended = world.rads(&["c", "shutdown"]);
    assert!(ended.err.contains("the stars it had left are ended"), "{ended:?}");
    world.assert_nothing_left();
}

#[test]
fn the_doctor_tries_things_and_leaves_nothing() {
    let world = World::new();
    let findings = world.json(&["c", "doctor"]);
    let state = |what: &str| {
        let found = findings.as_array().unwrap().iter().find(|finding| finding["what"] == what);
        found.unwrap_or_else(|| panic!("nothing of {what} in {findings}"))["state"].clone()
    };
    assert_eq!(state("stars"), "works");
    // A busy disk is slow.
    assert!(["works", "warns"].iter().any(|known| state("data folder") == *known), "{findings}");
    assert!(["works", "warns"].iter().any(|known| state("clock") == *known), "{findings}");
    assert!(!world.data().exists(), "it is made when it is needed");
    let parent = world.data().parent().unwrap().to_owned();
    let left: Vec<_> = std::fs::read_dir(parent).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["hello"], "what it tried things in is gone");
    let broken = world.rads(&["--data-dir", "/proc/nowhere", "c", "doctor"]);
    assert!(broken.code == 1 && broken.out.contains("BROKEN"), "{broken:?}");
}

#[test]
fn a_canary_whose_requests_fail_is_taken_back() {
    let world = World::new();
    world.file(
        "hello.rads",
        r#"
        blast hello() {
            if (env.get("BAD") == "yes") { throw "it cannot find its database"; }
            return "well\n";
        }
        turbo server = net.http_server("127.0.0.1", env.get("PORT"));
        server.route("/", hello, "GET");
        server.listen();
        server.serve();
        "#,
    );
    let up = |bad: &str| {
        let options = "instances: 3, update: { canary: 1, errors_percent: 5 }, grace_seconds: 1";
        let app = format!(
            "constellation.deploy(\"hello\", {{ script: \"hello.rads\", port: 8080, listen: 0, {options}, env: {{ BAD: \"{bad}\" }} }});"
        );
        world.rads(&["up", "-d", "--yes", world.app(&app).to_str().unwrap()]).ok()
    };
    up("no");
    let address = world.address("hello");
    up("yes");
    assert_eq!(world.service("hello")["rollout"]["trial"], 1);
    let mut statuses = std::collections::BTreeMap::<u16, u32>::new();
    world.wait_for("it to be taken back", || {
        for _ in 0..10 {
            *statuses.entry(get(address).unwrap().0).or_default() += 1;
        }
        world.rads(&["c", "history", "hello"]).ok().contains("requests to its stars failed, at most 5 % may")
    });
    assert!(statuses[&500] > 0, "{statuses:?}");
    world.wait_for("the old ones alone", || world.service("hello")["rollout"].is_null());
    let after: Vec<u16> = (0..30).map(|_| get(address).unwrap().0).collect();
    assert_eq!(after, [200; 30]);
}
