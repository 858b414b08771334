//! An agent of our own on a folder of its own, driven by the commands a person types.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct Agent {
    process: Child,
    rads: PathBuf,
    data: PathBuf,
    /// Another may be on its folder by now.
    killed: bool,
}

impl Agent {
    pub(crate) fn start(rads: &Path, folder: &Path) -> Result<Self, String> {
        let data = folder.join("data");
        let log = fs::File::create(folder.join("agent.log")).map_err(|error| format!("agent log: {error}"))?;
        let process = Command::new(rads)
            .args(["c", "agent", "--data-dir"])
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("cannot start an agent: {error}"))?;
        let agent = Self { process, rads: rads.to_owned(), data, killed: false };
        let deadline = Instant::now() + Duration::from_secs(10);
        while agent.run(&["c", "status"]).is_err() {
            if Instant::now() > deadline {
                return Err("the agent did not answer within 10 s".to_owned());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(agent)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ends the agent where it stands; nursery and stars go on.
    pub(crate) fn kill(&mut self) {
        // Gone already is as well.
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.killed = true;
    }

    /// Ends agent, nursery and stars where they stand, as a power cut does.
    pub(crate) fn kill_machine(&self) -> Result<(), String> {
        let nursery = fs::read_to_string(self.data.join("nursery.pid")).map_err(|error| format!("nursery: {error}"))?;
        let children = |pid: &str| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let nursery = nursery.trim().to_owned();
        let stars = children(&nursery);
        let victims = [self.pid().to_string(), nursery].into_iter().chain(stars.split_whitespace().map(str::to_owned));
        for victim in victims {
            let pid = victim.parse().ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                // A star ends with its nursery's namespaces, or has ended by itself.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        Ok(())
    }

    /// Starts `rads ARGS` against this agent and leaves it running.
    pub(crate) fn spawn(&self, args: &[&str]) -> Result<Child, String> {
        let mut command = Command::new(&self.rads);
        command
            .args(args)
            .env("RADS_DATA", &self.data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().map_err(|error| format!("cannot run rads: {error}"))
    }

    /// Runs `rads ARGS` against this agent and gives what it printed.
    pub(crate) fn run(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new(&self.rads)
            .args(args)
            .env("RADS_DATA", &self.data)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot run rads: {error}"))?;
        if !output.status.success() {
            return Err(format!("`rads {}`: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.killed {
            return;
        }
        let _ = self.run(&["c", "shutdown"]);
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            match self.process.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                _ => return,
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One `GET` on a connection of its own: the body of a 200, or nothing.
pub(crate) fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}
