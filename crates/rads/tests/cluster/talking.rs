//! Programs that talk over machines, changes that happen once, and watches of what changes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::clients::up_hello;
use crate::rig::{Machine, Rig, possible};

const TALKER: &str = r#"
constellation.on("message", blast (event) {
    echo(`heard ${event.message.text} from ${event.from.star ?? "outside"}`);
    if (event.message.relay != null) {
        echo(`told ${constellation.send(event.message.relay, { text: event.message.text })}`);
    }
});
constellation.on("node_lost", blast (event) { echo(`lost ${event.node}`); });
echo("listening");
"#;

fn app(namespace: &str, stars: u32) -> String {
    format!(
        "import constellation;\nconstellation.deploy(\"talker\", {{script: \"talker.rads\", namespace: \"{namespace}\", \
         instances: {stars}, ram_mb: 48}});\n"
    )
}

/// What a program outside of stars says on a machine, and what it prints.
fn say(rig: &Rig, at: usize, program: &str) -> String {
    let path = rig.file("say.rads", program);
    rig.machine(at).rads(&["run", path.to_str().unwrap()]).ok()
}

fn logs(machine: &Machine, star: &str) -> String {
    machine.rads(&["c", "logs", star]).out
}

#[test]
#[ignore = "half a minute: `cargo xtask test cluster`"]
fn stars_of_a_namespace_talk_over_machines_and_others_hear_nothing() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation();
    rig.file("talker.rads", TALKER);
    for (namespace, stars) in [("default", 2), ("team", 1)] {
        let file = rig.file(&format!("{namespace}.rads"), &app(namespace, stars));
        rig.machine(0).rads(&["up", "-d", "--yes", file.to_str().unwrap()]).ok();
    }
    rig.await_ready(0, 3, &[], Duration::from_secs(30));
    let asked = rig.machine(0);
    for star in ["talker-1", "talker-2", "team/talker"] {
        rig.wait_for("stars to listen", || logs(asked, star).contains("listening"));
    }
    let stars = rig.stars(0);
    let home = |name: &str| {
        let there = stars.iter().find(|star| star.name == name && star.phase == "ready");
        rig.named(&there.unwrap_or_else(|| panic!("{stars:?}")).node)
    };
    assert_ne!(home("talker-1"), home("talker-2"), "one on each machine");

    // From outside to one star, and by that to the other, on another machine.
    let relay = "echo(constellation.send(\"talker-2\", { text: \"one\", relay: \"talker\" }));";
    for at in rig.all() {
        assert_eq!(say(&rig, at, relay).trim(), "1", "from machine {at}");
    }
    let count = |star: &str, what: &str| logs(asked, star).matches(what).count();
    rig.wait_for("the message to come", || count("talker-1", "heard one from talker-2") == 3);
    assert_eq!(count("talker-2", "heard one from outside"), 3);
    rig.wait_for("it to be counted", || count("talker-2", "told 1") == 3);
    // To everybody: two of this namespace, none of the other.
    assert_eq!(say(&rig, 2, "echo(constellation.broadcast({ text: \"all\" }));").trim(), "2");
    rig.wait_for("both to hear", || count("talker-1", "heard all") + count("talker-2", "heard all") == 2);
    assert!(!logs(asked, "team/talker").contains("heard"), "{}", logs(asked, "team/talker"));
    let nodes = say(&rig, 1, "turbo all = constellation.nodes(); echo(`${all.length} ${constellation.leader()}`);");
    assert!(nodes.starts_with("3 "), "{nodes}");

    // Its agent is another one: the star is the same, and hears again.
    let of = home("talker-2");
    rig.kill_agent(of);
    rig.start(of);
    let told = "echo(constellation.send(\"talker-2\", { text: \"again\" }));";
    rig.wait_for("the star to have found the new agent", || say(&rig, (of + 1) % 3, told).trim() == "1");
    rig.wait_for("it to hear", || logs(asked, "talker-2").contains("heard again from outside"));
    let pid = |stars: &[crate::rig::Star]| stars.iter().find(|star| star.name == "talker-2").map(|star| star.pid);
    assert_eq!(pid(&rig.stars(0)), pid(&stars), "the star was not started again");

    // A machine dies, and who listens is told.
    rig.die(of);
    let left = home("talker-1");
    let lost = format!("lost {}", rig.machine(of).name);
    rig.wait_for("the other star to be told", || logs(rig.machine(left), "talker-1").contains(&lost));
}

/// `POST` with a key, over the socket of a machine's agent: the status and the body.
fn post(machine: &Machine, path: &str, key: Option<&str>) -> (u16, String) {
    post_body(machine, path, key, "")
}

fn post_body(machine: &Machine, path: &str, key: Option<&str>, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(machine.data().join("agent.sock")).unwrap();
    let key = key.map(|key| format!("idempotency-key: {key}\r\n")).unwrap_or_default();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{key}\
                           content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer[9..12].parse().unwrap(), answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

fn restarts(machine: &Machine) -> usize {
    machine.rads(&["c", "events"]).ok().matches("restarted: its stars").count()
}

#[test]
#[ignore = "half a minute: `cargo xtask test cluster`"]
fn a_change_under_a_key_happens_once_whichever_machines_are_asked_and_whoever_dies() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation();
    up_hello(&rig, 0, 1);
    let path = "/v1/services/hello/restart";
    let first = post(rig.machine(0), path, Some("k-1"));
    assert_eq!(first.0, 200, "{first:?}");
    for at in rig.all() {
        assert_eq!(post(rig.machine(at), path, Some("k-1")), first, "machine {at}");
    }
    let invite = |at: usize, key| {
        post_body(rig.machine(at), "/v1/tokens", key, "{\"role\":\"worker\",\"uses\":1,\"life_ms\":600000}")
    };
    let token = invite(0, Some("k-2"));
    assert!(token.0 == 200 && token.1.contains("rads1_test_"), "{token:?}");
    for at in rig.all() {
        assert_eq!(invite(at, Some("k-2")), token, "machine {at}");
    }
    let leader = rig.await_leader(0, None);
    rig.kill_agent(leader);
    let other = (leader + 1) % 3;
    rig.await_leader(other, Some(leader));
    assert_eq!(post(rig.machine(other), path, Some("k-1")), first, "after the leader's death");
    assert_eq!(invite(other, Some("k-2")), token, "after the leader's death");
    let tokens = rig.machine(other).json(&["c", "token", "list"]).as_array().map(Vec::len);
    assert_ne!(invite(other, None), token);
    let more = rig.machine(other).json(&["c", "token", "list"]).as_array().map(Vec::len);
    // The founder's, and one; the control is one more.
    assert_eq!((tokens, more), (Some(2), Some(3)));
    assert_eq!(restarts(rig.machine(other)), 1);
    let (status, text) = post(rig.machine(other), "/v1/services/hello/stop", Some("k-1"));
    assert!(status == 409 && text.contains("another request"), "{status} {text}");
    // The control: without a key, each happens.
    for _ in 0..2 {
        assert_eq!(post(rig.machine(other), path, None).0, 200);
    }
    assert_eq!(restarts(rig.machine(other)), 3);
}

struct Watching {
    child: Child,
    path: std::path::PathBuf,
}

impl Watching {
    fn start(rig: &Rig, at: usize, name: &str, from: Option<u64>) -> Self {
        let path = rig.place(name);
        let from = from.map(|from| ["--from".to_owned(), from.to_string()]);
        let mut command = rig.machine(at).command(&["c", "watch", "-o", "json", "services/"]);
        command.args(from.into_iter().flatten());
        let child = command.stdout(File::create(&path).unwrap()).stderr(Stdio::inherit()).spawn().unwrap();
        Self { child, path }
    }

    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.path).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Index and keys of what changed.
    fn told(&self) -> Vec<(u64, String)> {
        let lines = self.lines().into_iter().filter(|line| line["changed"].is_array());
        lines.map(|line| (line["index"].as_u64().unwrap(), line["changed"].to_string())).collect()
    }

    fn reached(&self) -> u64 {
        self.lines().last().and_then(|line| line["index"].as_u64()).unwrap_or(0)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "half a minute: `cargo xtask test cluster`"]
fn every_machine_tells_the_same_changes_across_a_change_of_leader_and_from_any_index() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation();
    up_hello(&rig, 0, 1);
    let leader = rig.await_leader(0, None);
    let [one, two] = [(leader + 1) % 3, (leader + 2) % 3];
    let watching = [Watching::start(&rig, one, "one", None), Watching::start(&rig, two, "two", None)];
    rig.wait_for("both to watch", || watching.iter().all(|of| of.reached() > 0));
    let scale = |by: usize, count: usize| {
        rig.machine(by).rads(&["c", "scale", "hello", &count.to_string()]).ok();
    };
    (1..8).for_each(|n| scale([leader, one, two][n % 3], n % 3 + 1));
    rig.kill_agent(leader);
    rig.await_leader(one, Some(leader));
    (1..8).for_each(|n| scale([one, two][n % 2], n % 3 + 1));
    let last = rig.machine(one).json(&["c", "scale", "hello", "1"])["index"].as_u64();
    let events = rig.machine(one).rads(&["c", "events"]).ok();
    let all = |of: &Watching| last.is_none_or(|last| of.reached() >= last);
    rig.wait_for("both to have been told", || watching.iter().all(all));
    // What is running is still becoming what it is to be: what both have been told is compared.
    let both = watching.iter().map(Watching::reached).min().unwrap();
    let told = |of: &Watching| of.told().into_iter().filter(|(index, _)| *index <= both).collect::<Vec<_>>();
    let (first, second) = (told(&watching[0]), told(&watching[1]));
    let since = watching.iter().map(|of| of.lines()[0]["index"].as_u64().unwrap()).max().unwrap();
    let after = |told: &[(u64, String)]| told.iter().filter(|(index, _)| *index > since).cloned().collect::<Vec<_>>();
    assert_eq!(after(&first), after(&second));
    assert!(after(&first).is_sorted_by(|a, b| a.0 < b.0), "{first:?}");
    let scaled = events.matches("scaled from").count();
    let distinct: BTreeSet<u64> = after(&first).iter().map(|(index, _)| *index).collect();
    assert!(distinct.len() >= scaled && scaled >= 14, "{scaled} changes, told {first:?}");
    // And so does one that begins elsewhere at an index of the middle.
    let middle = first[first.len() / 2].0;
    let resumed = Watching::start(&rig, two, "resumed", Some(middle));
    rig.wait_for("the resumed one to have been told", || resumed.reached() >= both);
    let expected: Vec<(u64, String)> = first.iter().filter(|(index, _)| *index > middle).cloned().collect();
    assert_eq!(told(&resumed), expected);
    // From before what is kept: it says so, and what the oldest is.
    let late = rig.machine(two).rads(&["c", "watch", "--from", "0"]);
    late.refused("C0209", "not kept any more");
}
