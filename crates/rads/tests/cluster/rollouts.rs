//! A service on five machines changes in every way there is, under load, and no request is lost; what is bad is taken back, whoever
//! dies meanwhile.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::clients::Load;
use crate::rig::{Rig, possible};

const STARS: usize = 5;

/// Requests on 16 connections at once, by `wrk`; none where that is not installed.
struct Flood(Option<Child>);

impl Flood {
    fn start(rig: &Rig, at: usize) -> Self {
        let mut command = rig.machine(at).enter();
        command.args(["wrk", "-t1", "-c16", "-d300", "--timeout", "5s", "http://127.0.0.1:8080/"]);
        let is_there = std::process::Command::new("wrk").arg("-v").output().is_ok();
        if !is_there {
            println!("`wrk` is not installed: requests come one after another only");
        }
        Self(is_there.then(|| command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()))
    }

    /// Ends it; what it counted beside good answers.
    fn end(self) {
        let Some(child) = self.0 else { return };
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let counted = |what: &str| text.lines().find(|line| line.trim().starts_with(what)).map(str::to_owned);
        println!("{}", counted("Requests/sec").unwrap_or_default());
        assert!(text.contains("requests in"), "{text}");
        assert_eq!((counted("Socket errors"), counted("Non-2xx")), (None, None), "{text}");
    }
}

/// Writes a version of the service that answers with its word and has this said of its roll-outs; gives the description's path.
fn version(rig: &Rig, word: &str, update: &str) -> String {
    let program = match word {
        // It ends as soon as it starts.
        "bad" => "echo(\"no\"); process.exit(3);".to_owned(),
        // It gets ready and fails every request.
        "erring" => "turbo server = net.http_server(\"127.0.0.1\", env.get(\"PORT\") ?? 8080);\n\
             server.route(\"/\", blast () { throw \"no database\"; }, \"GET\");\nserver.serve();\n"
            .to_owned(),
        // It listens where nobody asks.
        "deaf" => "turbo server = net.http_server(\"127.0.0.1\", 9);\nserver.serve();\n".to_owned(),
        word => format!(
            "turbo server = net.http_server(\"127.0.0.1\", env.get(\"PORT\") ?? 8080);\n\
             server.route(\"/\", blast () {{ return \"{word}\"; }}, \"GET\");\nserver.serve();\n"
        ),
    };
    rig.file("hello.rads", &program);
    let text = format!(
        "import constellation;\nconstellation.deploy(\"hello\", {{script: \"hello.rads\", port: 8080, instances: {STARS}, \
         ram_mb: 48, grace_seconds: 5, update: {{{update}}}}});\n"
    );
    rig.file("app.rads", &text).to_str().unwrap().to_owned()
}

/// What the service says at each machine, asked several times.
fn words(rig: &Rig) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for at in rig.up() {
        words.extend((0..3 * STARS).map(|_| {
            let (code, body) = rig.machine(at).get(8080).unwrap();
            assert_eq!(code, 200, "{body}");
            body
        }));
    }
    words.sort();
    words.dedup();
    words
}

fn service(rig: &Rig, at: usize) -> serde_json::Value {
    rig.machine(at).json(&["c", "status"])["services"][0].clone()
}

#[test]
#[ignore = "a minute and more: `cargo xtask test cluster`"]
fn a_service_changes_in_every_way_under_load_and_loses_no_request() {
    if !possible() {
        return;
    }
    let rig = Rig::new(5);
    rig.constellation();
    let up = |word: &str, update: &str| {
        let app = version(&rig, word, update);
        rig.machine(0).rads(&["up", "-d", "--yes", &app])
    };
    up("one", "").ok();
    rig.await_ready(0, STARS, &[], Duration::from_secs(30));
    let load = Load::start(&rig, 4);
    let flood = Flood::start(&rig, 1);
    rig.wait_for("requests", || load.answered() > 50);

    up("two", "healthy_seconds: 0.5, max_surge: 2").ok();
    assert_eq!(words(&rig), ["two"]);

    let told = up("three", "canary: \"40%\"");
    assert!(told.err.contains("version 3 is on trial with 2 stars"), "{told:?}");
    rig.wait_for("all to know", || words(&rig) == ["three", "two"]);
    rig.machine(2).rads(&["c", "rollout", "promote", "hello"]).ok();
    assert_eq!(words(&rig), ["three"]);

    up("four", "strategy: \"blue_green\", promote_after_seconds: 2").ok();
    assert_eq!(words(&rig), ["four"]);
    let told = up("five", "strategy: \"blue_green\"");
    assert!(told.err.contains("version 5 is on trial with 5 stars"), "{told:?}");
    assert_eq!(words(&rig), ["four"], "no request goes there");
    rig.machine(3).rads(&["c", "rollout", "abort", "hello"]).ok();
    assert_eq!((words(&rig), rig.stars(0).len()), (vec!["four".to_owned()], STARS));

    up("bad", "max_surge: \"100%\"").refused("C0305", "was taken back");
    assert_eq!(words(&rig), ["four"]);
    rig.machine(0).rads(&["c", "rollback", "hello", "2"]).ok();
    assert_eq!(words(&rig), ["two"]);

    // Whoever leads dies while a version is on its way that never gets there.
    let leader = rig.await_leader(0, None);
    let seen_from = rig.all().find(|at| *at != leader).unwrap();
    let app = version(&rig, "deaf", "deadline_seconds: 8, max_unavailable: 1");
    let asked = rig.machine(seen_from).command(&["up", "-d", "--yes", &app]).stderr(Stdio::null()).spawn();
    rig.wait_for("a roll-out", || service(&rig, seen_from)["rollout"].is_object());
    flood.end();
    let (answered, errors) = load.end();
    println!("{answered} answered one after another, {} not", errors.len());
    assert!(errors.is_empty(), "{errors:?}");
    rig.kill_agent(leader);
    rig.wait_for("the version before", || service(&rig, seen_from)["taken_back"].is_object());
    assert_eq!(words(&rig), ["two"]);
    rig.start(leader);
    rig.await_ready(seen_from, STARS, &[], Duration::from_secs(30));
    asked.unwrap().wait().unwrap();
}

/// Each machine has stars of its own, which its entry point takes first; the one on trial is on one of them.
#[test]
#[ignore = "some seconds on three machines: `cargo xtask test cluster`"]
fn a_canary_is_found_out_by_requests_to_a_machine_that_has_none() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation();
    let update = "canary: 1, errors_percent: 5";
    rig.machine(0).rads(&["up", "-d", "--yes", &version(&rig, "good", update)]).ok();
    rig.await_ready(0, STARS, &[], Duration::from_secs(30));
    let before: BTreeSet<String> = rig.stars(0).into_iter().map(|star| star.id).collect();
    rig.machine(0).rads(&["up", "-d", "--yes", &version(&rig, "erring", update)]).ok();
    let tried = || rig.stars(0).into_iter().find(|star| !before.contains(&star.id));
    rig.wait_for("one on trial", || tried().is_some());
    let its = tried().unwrap().node;
    let elsewhere = rig.all().find(|at| rig.machine(*at).name != its && has_some(&rig, *at, &before)).unwrap();
    println!("on trial at {its}, asked at {}", rig.machine(elsewhere).name);
    let mut failed = 0;
    rig.wait_for("it to be taken back", || {
        failed += (0..10).filter(|_| rig.machine(elsewhere).get(8080).unwrap().0 == 500).count();
        rig.machine(0).rads(&["c", "history", "hello"]).ok().contains("requests to its stars failed, at most 5 % may")
    });
    println!("{failed} requests had failed by then");
    assert!(failed > 0);
    rig.wait_for("the version before", || service(&rig, 0)["rollout"].is_null());
    assert_eq!(words(&rig), ["good"]);
}

fn has_some(rig: &Rig, at: usize, of: &BTreeSet<String>) -> bool {
    let name = &rig.machine(at).name;
    rig.stars(0).iter().any(|star| star.node == *name && of.contains(&star.id))
}
