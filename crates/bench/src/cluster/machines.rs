//! The machines of a constellation under measurement: agents on loopback, each with a data folder of its own on the same disk, and what
//! the commands that a person types say of them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Bench;
use crate::agent::Agent;

pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Machine {
    pub(super) agent: Agent,
    pub(super) name: String,
    folder: PathBuf,
}

impl Machine {
    fn start(bench: &Bench, folder: &Path, number: usize) -> Result<Self, String> {
        let name = format!("node-{number}");
        let folder = folder.join(&name);
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        Ok(Self { agent: Agent::start(&bench.rads, &folder)?, name, folder })
    }

    /// Starts the agent of a machine that was killed.
    pub(super) fn start_again(&mut self, bench: &Bench) -> Result<(), String> {
        self.agent = Agent::start(&bench.rads, &self.folder)?;
        Ok(())
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.data().join("agent.sock")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What its agent has logged so far.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default()
    }

    /// Runs a command that answers in JSON.
    pub(super) fn json(&self, args: &[&str]) -> Result<serde_json::Value, String> {
        let answer = self.agent.run(&[args, &["-o", "json"]].concat())?;
        serde_json::from_str(&answer).map_err(|error| format!("`rads {}`: {error}", args.join(" ")))
    }

    /// Whom it knows.
    pub(super) fn nodes(&self) -> Result<Vec<Node>, String> {
        let answer = self.json(&["c", "nodes"])?;
        let list = answer.as_array().or_else(|| answer["nodes"].as_array()).ok_or("no list of nodes")?;
        let text = |node: &serde_json::Value, field: &str| node[field].as_str().unwrap_or_default().to_owned();
        let read = |node: &serde_json::Value| Node {
            id: text(node, "id"),
            name: text(node, "name"),
            address: text(node, "address"),
            votes: node["votes"] == true,
            leads: node["leads"] == true,
            alive: node["health"] == "alive",
        };
        Ok(list.iter().map(read).collect())
    }

    /// A token that lets so many in.
    pub(super) fn token(&self, role: &str, uses: usize) -> Result<String, String> {
        let made = self.json(&["c", "token", "create", "--role", role, "--uses", &uses.to_string()])?;
        made["token"].as_str().map(str::to_owned).ok_or_else(|| "no token".to_owned())
    }
}

/// A line of `rads c nodes`.
pub(super) struct Node {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) address: String,
    pub(super) votes: bool,
    pub(super) leads: bool,
    pub(super) alive: bool,
}

/// The machines of one constellation, in the order in which they came: the name of the first is `node-1`.
pub(super) struct Machines<'b> {
    bench: &'b Bench,
    folder: PathBuf,
    pub(super) all: Vec<Machine>,
}

impl<'b> Machines<'b> {
    /// One machine that founds a constellation, and how long that took, in milliseconds.
    pub(super) fn found(bench: &'b Bench, folder: &Path) -> Result<(Self, f64), String> {
        let first = Machine::start(bench, folder, 1)?;
        let address = address()?;
        let began = Instant::now();
        let place = ["--name", &first.name, "--listen", &address, "--advertise", &address];
        first.agent.run(&[&["c", "init", "--cluster", "bench"], &place[..]].concat())?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        Ok((Self { bench, folder: folder.to_owned(), all: vec![first] }, took))
    }

    /// Lets machines join until there are so many; gives how long each took until it answered as a node, in milliseconds.
    pub(super) fn join(&mut self, role: &str, until: usize) -> Result<Vec<f64>, String> {
        let token = self.all[0].token(role, until)?;
        let to = self.all[0].nodes()?.into_iter().next().ok_or("no node")?.address;
        let mut times = Vec::new();
        for number in self.all.len() + 1..=until {
            let machine = Machine::start(self.bench, &self.folder, number)?;
            let address = address()?;
            let began = Instant::now();
            let place = ["--name", &machine.name, "--listen", &address, "--advertise", &address];
            machine.agent.run(&[&["c", "join", &to, "--token", &token], &place[..]].concat())?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
            self.all.push(machine);
        }
        Ok(times)
    }

    /// What all see once so many vote, and all are there.
    pub(super) fn until_voters(&self, voters: usize) -> Result<Vec<Node>, String> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for machine in &self.all {
                let Ok(nodes) = machine.nodes() else { continue };
                let vote = nodes.iter().filter(|node| node.votes && node.alive).count();
                if vote == voters && nodes.iter().any(|node| node.leads && node.alive) {
                    return Ok(nodes);
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(format!("there are not {voters} voters within {} s", PATIENCE.as_secs()))
    }

    /// Which of them leads.
    pub(super) fn leader(&self, nodes: &[Node]) -> Result<usize, String> {
        let leader = nodes.iter().find(|node| node.leads).ok_or("nobody leads")?;
        let place = self.all.iter().position(|machine| machine.name == leader.name);
        place.ok_or_else(|| format!("`{}` is no node of ours", leader.name))
    }
}

/// One that is free now, for TCP and most likely for UDP.
pub(super) fn address() -> Result<String, String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.to_string()).map_err(|error| error.to_string())
}
