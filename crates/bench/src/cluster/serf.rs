//! serf as a peer: its agents on loopback with its settings for local networks, heard by what they print.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(10);

/// Ends with its processes.
pub(super) struct Serf {
    agents: Vec<Member>,
}

struct Member {
    name: String,
    process: Child,
    /// Lines with what it has seen happen to others.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Drop for Member {
    fn drop(&mut self) {
        // Gone already is as well.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Serf {
    /// Nothing where it is not installed.
    pub(super) fn start(count: usize) -> Result<Option<Self>, String> {
        let mut agents: Vec<Member> = Vec::new();
        let mut first: Option<String> = None;
        for number in 1..=count {
            let name = format!("serf-{number}");
            let (bind, rpc) = (super::machines::address()?, super::machines::address()?);
            let mut command = Command::new("serf");
            command.args([
                "agent",
                "-profile=lan",
                "-log-level=info",
                "-node",
                &name,
                "-bind",
                &bind,
                "-rpc-addr",
                &rpc,
            ]);
            if let Some(first) = &first {
                command.args(["-join", first]);
            }
            let Ok(mut process) = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
            else {
                return Ok(None);
            };
            let output = process.stdout.take().ok_or("no output of serf")?;
            let seen = Arc::new(Mutex::new(Vec::new()));
            let telling = Arc::clone(&seen);
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if line.contains("EventMember") {
                        telling.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                    }
                }
            });
            agents.push(Member { name, process, seen });
            if first.is_none() {
                // The others join it as soon as they run.
                std::thread::sleep(Duration::from_secs(1));
                first = Some(bind);
            }
        }
        Ok(Some(Self { agents }))
    }

    pub(super) fn until_all_know_all(&self) -> Result<(), String> {
        let names: Vec<&str> = self.agents.iter().map(|agent| agent.name.as_str()).collect();
        let knows = |member: &Member| names.iter().all(|name| member.has_seen("EventMemberJoin", name));
        self.wait(knows, "know all")
    }

    /// Kills one; gives how long it was until all others held it for dead.
    pub(super) fn kill_one(&mut self) -> Result<Duration, String> {
        let mut dead = self.agents.pop().ok_or("nobody is left")?;
        let began = Instant::now();
        dead.process.kill().map_err(|error| error.to_string())?;
        self.wait(|member| member.has_seen("EventMemberFailed", &dead.name), "know of a death")?;
        Ok(began.elapsed())
    }

    fn wait(&self, met: impl Fn(&Member) -> bool, what: &str) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while !self.agents.iter().all(&met) {
            if Instant::now() > deadline {
                return Err(format!("not all agents of serf {what} within {} s", PATIENCE.as_secs()));
            }
            std::thread::sleep(STEP);
        }
        Ok(())
    }
}

impl Member {
    /// `… serf: EventMemberFailed: serf-7 127.0.0.1`
    fn has_seen(&self, event: &str, name: &str) -> bool {
        let (event, name) = (format!("{event}: "), format!("{name} "));
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().any(|line| line.split_once(&event).is_some_and(|(_, rest)| rest.starts_with(&name)))
    }
}
