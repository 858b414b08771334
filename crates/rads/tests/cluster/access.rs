//! A constellation used from a machine that is none of it: with a grant, as far as it reaches, and no further.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::rig::{Outcome, Rig, outcome, possible};

/// A grant that is revoked is to end what is open within this.
const SOON: Duration = Duration::from_secs(5);

/// A person at a machine without an agent.
struct Person<'r> {
    rig: &'r Rig,
    at: usize,
    home: std::path::PathBuf,
}

impl Person<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.rig.machine(self.at).command(args);
        command.env_remove("RADS_DATA").env_remove("RADS_CONTEXT").env("XDG_CONFIG_HOME", &self.home);
        command
    }

    fn rads(&self, args: &[&str]) -> Outcome {
        outcome(self.command(args).output().unwrap())
    }

    /// Remembers the constellation at a node by a name.
    #[track_caller]
    fn add(&self, name: &str, at: usize, made: &serde_json::Value) {
        let url = format!("https://{}:7947", self.rig.machine(at).ip);
        let token = self.rig.file(&format!("{name}.token"), made["token"].as_str().unwrap());
        let hash = made["ca_hash"].as_str().unwrap();
        let token = token.to_str().unwrap();
        self.rads(&["c", "context", "add", name, &url, "--ca-hash", hash, "--token-file", token]).ok();
    }
}

/// A program whose lines are read while it runs.
struct Running(Child, BufReader<std::process::ChildStdout>);

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self(child, lines)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line
    }

    /// How long it takes to end.
    fn ends(mut self) -> Duration {
        let since = Instant::now();
        self.1.read_to_string(&mut String::new()).unwrap();
        self.0.wait().unwrap();
        since.elapsed()
    }
}

#[test]
#[ignore = "twenty seconds: `cargo xtask test cluster`"]
fn a_grant_reaches_as_far_as_it_says_from_a_machine_that_is_none_of_it() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.start(0);
    rig.init(0, &["--api", "7947"]);
    let worker = rig.machine(0).json(&["c", "token", "create", "--role", "worker"]);
    rig.start(1);
    rig.join(1, worker["token"].as_str().unwrap(), &["--api", "7947"]);
    rig.all_alive(2);
    let a = rig.machine(0);
    let person = Person { rig: &rig, at: 2, home: rig.place("home") };
    let grant = |args: &[&str]| a.json(&[&["c", "grant"], args].concat());
    let (ann, op) = (grant(&["ann", "--role", "viewer"]), grant(&["op", "--role", "operator"]));
    let blog = grant(&["blog", "--role", "operator", "--namespace", "blog"]);
    rig.machine(1).rads(&["c", "grant", "eve", "--role", "admin"]).refused("C0207", "this node is a worker");
    for (name, made, at) in [("ann", &ann, 0), ("op", &op, 1), ("blog", &blog, 0)] {
        person.add(name, at, made);
    }

    // An app from there, whose stars are on both machines.
    let app = rig.file("app.rads", APP);
    rig.file("web.rads", "while (true) { echo(\"tick\"); sleep(50); }");
    let app = app.to_str().unwrap();
    person.rads(&["--context", "ann", "c", "up", "-d", app]).refused("C0207", "`ann` may not");
    person.rads(&["--context", "blog", "c", "up", "-d", app]).refused("C0207", "no rights in namespace `default`");
    person.rads(&["--context", "op", "c", "up", "-d", app]).ok();
    rig.await_ready(0, 2, &[], Duration::from_secs(30));
    let nodes: std::collections::BTreeSet<String> = rig.stars(0).into_iter().map(|star| star.node).collect();
    assert_eq!(nodes.len(), 2, "one on each");

    person.rads(&["c", "context", "use", "ann"]).ok();
    let listed = person.rads(&["c", "list"]).ok();
    assert!(listed.contains("web-1") && listed.contains("web-2"), "{listed}");
    assert!(person.rads(&["c", "status"]).ok().contains("web"));
    for star in ["web-1", "web-2"] {
        assert!(person.rads(&["c", "logs", star, "--tail", "5"]).ok().contains("tick"), "{star}");
        person.rads(&["c", "exec", star, "--", "true"]).refused("C0207", "`ann` may not go into stars");
        let inside = person.rads(&["--context", "op", "c", "exec", star, "--", "echo", "inside"]);
        assert_eq!(inside.ok(), "inside\n", "{star}");
    }
    assert!(!person.rads(&["--context", "blog", "c", "list"]).ok().contains("web"));
    person.rads(&["--context", "blog", "c", "logs", "web"]).refused("C0104", "`web`");
    person.rads(&["c", "scale", "web", "1"]).refused("C0207", "`ann` may not change");
    person.rads(&["--context", "op", "c", "backup", "save", "b"]).refused("C0207", "`op` may not take backups");
    person.rads(&["--context", "op", "c", "grants"]).refused("C0207", "`op` may not manage access");
    person.rads(&["c", "shutdown"]).refused("C0001", "context `ann`");
    person.rads(&["--context", "op", "c", "scale", "web", "3"]).ok();

    // What is open ends with the grant, on the other node too.
    person.add("ann-at-b", 1, &ann);
    let mut followed: Vec<Running> = ["ann", "ann-at-b"]
        .map(|context| Running::start(person.command(&["--context", context, "c", "logs", "-f", "web"])))
        .into();
    followed.iter_mut().for_each(|lines| assert!(lines.line().contains("| "), "a line of a log"));
    a.rads(&["c", "grants", "revoke", "ann"]).ok();
    for lines in followed {
        let took = lines.ends();
        assert!(took < SOON, "{took:?}");
    }
    person.rads(&["c", "list"]).refused("C0207", "no grant is known");

    let said = a.rads(&["c", "audit"]).ok();
    for line in [
        "op at 10.77.",
        "scale service `web` to 3",
        "`ann`: viewer of all namespaces",
        "revoke grant `ann`",
        "denied, may not send files",
        "run `echo inside` in star `web-1`",
    ] {
        assert!(said.contains(line), "`{line}` is not in:\n{said}");
    }
    let heads = [0, 1].map(|at| {
        rig.wait_for("the same records", || {
            let last = |at: usize| rig.machine(at).json(&["c", "audit", "--verify"])["last"].clone();
            last(0) == last(at)
        });
        rig.machine(at).rads(&["c", "audit", "--verify"]).ok()
    });
    assert!(heads[0].contains(" hold, ") && heads[0] == heads[1], "{heads:?}");
}

const APP: &str = "import constellation;\nconstellation.deploy(\"web\", {script: \"web.rads\", instances: 2, ram_mb: 48, \
                   grace_seconds: 1});\n";
