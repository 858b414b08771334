//! Stars that are elsewhere: reached, looked into and fed from any machine, and stepped over when their machine dies.

use std::time::{Duration, Instant};

use crate::clients::up_hello;
use crate::rig::{Rig, possible};

/// A request that was on its way to a machine when that lost its power is answered after the connection to it has ended (5 s).
const ANSWERED: Duration = Duration::from_secs(9);

const TALKER: &str = r#"
turbo name = env.get("STAR_NAME") ?? "?";
turbo server = net.http_server("127.0.0.1", env.get("PORT") ?? 8080);
server.route("/", blast () { return name; }, "GET");
echo(`${name} talks`);
server.serve();
"#;

#[test]
fn any_machine_serves_shows_and_enters_stars_that_are_elsewhere() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation();
    rig.file("talker.rads", TALKER);
    let app =
        "import constellation;\nconstellation.deploy(\"talker\", {script: \"talker.rads\", port: 8080, ram_mb: 48});\n";
    let app = rig.file("app.rads", app);
    rig.machine(0).rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
    rig.await_ready(0, 1, &[], Duration::from_secs(20));
    let star = rig.stars(0).remove(0);
    for at in rig.all() {
        let machine = rig.machine(at);
        rig.wait_for("an answer", || machine.get(8080).is_ok_and(|answer| answer == (200, star.name.clone())));
        let outcome = machine.rads(&["c", "exec", &star.name, "--", "/bin/sh", "-c", "hostname; exit 7"]);
        assert_eq!((outcome.code, outcome.out.trim()), (7, star.name.as_str()), "{outcome:?}");
        assert!(machine.rads(&["c", "inspect", &star.name]).ok().contains(&star.id));
    }
    // What came in anywhere is counted, whoever asks.
    let requests: Vec<u64> =
        rig.all().map(|at| rig.machine(at).json(&["c", "stats", "talker"])[0]["requests"].as_u64().unwrap()).collect();
    assert!(requests[0] >= 3 && requests.iter().all(|seen| *seen == requests[0]), "{requests:?}");

    let others: Vec<usize> = rig.all().filter(|at| rig.machine(*at).name != star.node).collect();
    let (here, there) = (rig.machine(others[0]), rig.machine(others[1]));
    let large: String = (0..200_000).map(|n| format!("{n}\n")).collect();
    let (from, to) = (rig.file("sent", &large), rig.file("received", ""));
    here.rads(&["c", "cp", from.to_str().unwrap(), &format!("{}:/tmp/file", star.name)]).ok();
    there.rads(&["c", "cp", &format!("{}:/tmp/file", star.name), to.to_str().unwrap()]).ok();
    assert!(std::fs::read_to_string(to).unwrap() == large, "the file comes back as it was");

    assert!(there.rads(&["c", "logs", "talker"]).ok().contains("talker-1 talks"));
    // Its machine cannot be asked any more: that is told of it, in its place.
    let home = rig.named(&star.node);
    rig.cut(&[home], &others);
    let logs = here.rads(&["c", "logs", &star.name]);
    assert!(logs.out.contains("lines of this star are missing"), "{logs:?}");
    rig.heal();
}

#[test]
fn a_machine_that_loses_its_power_costs_some_seconds_and_no_request() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation();
    rig.machine(0).rads(&["c", "cordon", "a"]).ok();
    up_hello(&rig, 0, 2);
    rig.await_ready(0, 2, &[0], Duration::from_secs(20));
    let client = rig.machine(0);
    let mut seen = std::collections::BTreeSet::new();
    rig.wait_for("both to answer at `a`", || {
        seen.extend(client.get(8080).map(|(_, name)| name).ok());
        seen.len() == 2
    });
    rig.die(1);
    let (mut slowest, until) = (Duration::ZERO, Instant::now() + Duration::from_secs(10));
    while Instant::now() < until {
        let since = Instant::now();
        let answer = client.get(8080);
        slowest = slowest.max(since.elapsed());
        assert!(matches!(&answer, Ok((200, _))), "{answer:?} after {:?}", since.elapsed());
    }
    println!("the slowest request around the death of a machine took {slowest:?}");
    assert!(slowest < ANSWERED, "{slowest:?}");
}

#[test]
fn the_machine_that_took_an_app_may_die_at_once() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation();
    // With two of two a death is one too many.
    rig.wait_for("three voters", || rig.machine(0).nodes().iter().filter(|node| node["votes"] == true).count() == 3);
    // What its stars are made of is on others only as the constellation keeps it.
    for at in [1, 2] {
        rig.machine(0).rads(&["c", "cordon", &rig.machine(at).name]).ok();
    }
    up_hello(&rig, 0, 2);
    assert!(rig.stars(0).iter().all(|star| star.node == "a"), "{:?}", rig.stars(0));
    for at in [1, 2] {
        rig.machine(0).rads(&["c", "uncordon", &rig.machine(at).name]).ok();
    }
    rig.die(0);
    rig.await_ready(1, 2, &[0], Duration::from_secs(30));
    rig.wait_for("an answer", || rig.machine(2).get(8080).is_ok_and(|(code, _)| code == 200));
}

#[test]
fn a_secret_is_set_anywhere_sealed_everywhere_and_given_to_stars_that_are_bound_to_it() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.start(0);
    // What the first machine kept while it was alone is taken over.
    set_secret(&rig, 0, "early", "from before");
    let token = rig.init(0, &[]);
    for at in [1, 2] {
        rig.start(at);
        rig.join(at, &token, &[]);
    }
    rig.all_alive(3);
    let app = rig.file(
        "keeper.rads",
        "import constellation;\nconstellation.deploy(\"keeper\", {command: [\"/bin/sleep\", \"1000\"], instances: 3, ram_mb: 16, \
         grace_seconds: 1, secrets: {\"/run/secrets/early\": \"early\"}, env_secrets: {LATE: \"late\"}});\n",
    );
    let up = ["up", "-d", "--yes", app.to_str().unwrap()];
    rig.machine(1).rads(&up).refused("C0109", "there is no secret `late`");
    set_secret(&rig, 2, "late", "swordfish");
    rig.machine(1).rads(&up).ok();
    rig.await_ready(0, 3, &[], Duration::from_secs(30));
    for star in rig.stars(0) {
        let seen = ["c", "exec", &star.name, "--", "/bin/sh", "-c", "cat /run/secrets/early; echo \" $LATE\""];
        assert_eq!(rig.machine(0).rads(&seen).ok().trim(), "from before swordfish", "{star:?}");
    }
    assert_eq!(rig.machine(1).rads(&["c", "secrets", "get", "late"]).ok().trim(), "swordfish");
    rig.machine(0).rads(&["c", "secrets", "delete", "late"]).refused("C0105", "in use by service `keeper`");
    for at in rig.all() {
        let out = std::process::Command::new("grep").args(["-rl", "swordfish"]).arg(rig.machine(at).data()).output();
        assert_eq!(String::from_utf8_lossy(&out.unwrap().stdout), "", "its value is nowhere in the open");
    }
    // Stars that come elsewhere later have it too.
    rig.die(2);
    rig.await_ready(0, 3, &[2], Duration::from_secs(30));
    let star = rig.stars(0).remove(0);
    assert_eq!(
        rig.machine(1).rads(&["c", "exec", &star.name, "--", "/bin/sh", "-c", "echo $LATE"]).ok(),
        "swordfish\n"
    );
}

#[track_caller]
fn set_secret(rig: &Rig, at: usize, name: &str, value: &str) {
    let file = rig.file(&format!("{name}.txt"), value);
    rig.machine(at).rads(&["c", "secrets", "set", name, "--from-file", file.to_str().unwrap()]).ok();
}
