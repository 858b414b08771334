//! A nursery of our own on a folder of its own: stars are ordered from it as the agent orders them.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use isolate::log::LogLine;
use isolate::{Client, Launch, Message, Request, StarOrder};
use model::{Bytes, Limits, Millicores, Network, StarId};
use rustix::event::{PollFd, PollFlags, poll};

use crate::clock::now_ns;

/// Longest wait for anything the nursery is asked for: far beyond every figure, so that it means a fault.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Engine {
    nursery: Child,
    client: Client,
    data: PathBuf,
    bundle: PathBuf,
    next: u64,
}

/// A star that was asked for and whose walls stand.
pub(crate) struct Started {
    pub(crate) star: StarId,
    pub(crate) pid: u32,
    /// When it was asked for, `CLOCK_MONOTONIC`.
    pub(crate) requested_ns: u64,
}

impl Engine {
    /// Starts `rads nursery` below `folder`; `files` become the bundle of every star.
    pub(crate) fn start(rads: &Path, folder: &Path, files: &[(&str, &Path)]) -> Result<Self, String> {
        let data = folder.join("data");
        let bundle = folder.join("bundle");
        for made in [&data, &bundle] {
            fs::create_dir_all(made).map_err(|error| format!("{}: {error}", made.display()))?;
        }
        for (name, source) in files {
            fs::copy(source, bundle.join(name)).map_err(|error| format!("{}: {error}", source.display()))?;
        }
        let nursery = Command::new(rads)
            .arg("nursery")
            .arg("--data-dir")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start a nursery: {error}"))?;
        let client = connect(&data)?;
        let engine = Self { nursery, client, data, bundle, next: 1 };
        engine.send(&Request::Hello { version: isolate::protocol::VERSION })?;
        engine.wait_for(|message| matches!(message, Message::Welcome { .. }).then_some(()))?;
        Ok(engine)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.nursery.id()
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// One star with the limits of the hello example, once its walls stand.
    pub(crate) fn order(&mut self, launch: Launch) -> Result<Started, String> {
        let star = StarId(self.next);
        self.next += 1;
        let order = StarOrder {
            star,
            generation: 1,
            hostname: format!("bench-{}", star.0),
            launch,
            args: Vec::new(),
            before: Vec::new(),
            env: BTreeMap::new(),
            bundle: self.bundle.clone(),
            root: None,
            volumes: Vec::new(),
            limits: Limits {
                cpu: Some(Millicores(250)),
                memory: Some(Bytes::mib(64)),
                pids: Some(64),
                ..Limits::UNLIMITED
            },
            network: Network::None,
            interior: Default::default(),
            weakened: Default::default(),
            memory: None,
            beginning: None,
        };
        let requested_ns = now_ns();
        self.send(&Request::Start(Box::new(order)))?;
        let pid = self.wait_for(|message| match message {
            Message::Started { star: started, pid, .. } if started == star => Some(Ok(pid)),
            Message::StartFailed { reason, .. } | Message::Refused { reason, .. } => Some(Err(reason)),
            _ => None,
        })??;
        Ok(Started { star, pid, requested_ns })
    }

    /// Waits for a star that ends by itself and gives the first line it wrote.
    pub(crate) fn first_line(&mut self, star: StarId) -> Result<String, String> {
        self.wait_for(|message| match message {
            Message::Exited { star: ended, .. } if ended == star => Some(()),
            _ => None,
        })?;
        let path = self.data.join("stars").join(star.to_string()).join("log");
        let log = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let line = log.lines().next().and_then(|line| LogLine::parse(line.as_bytes())).map(|line| line.text);
        self.send(&Request::Forget { star })?;
        line.ok_or_else(|| format!("star wrote nothing to {}", path.display()))
    }

    fn send(&self, request: &Request) -> Result<(), String> {
        self.client.try_send(request, &[]).map_err(|error| format!("nursery does not listen: {error}"))
    }

    fn wait_for<T>(&self, mut wanted: impl FnMut(Message) -> Option<T>) -> Result<T, String> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.client.try_recv() {
                Ok((message, _)) => {
                    if let Some(found) = wanted(message) {
                        return Ok(found);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::from_borrowed_fd(self.client.as_fd(), PollFlags::IN)];
                    let tick = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
                    poll(&mut fds, Some(&tick)).map_err(|error| format!("poll: {error}"))?;
                }
                Err(error) => return Err(format!("nursery hung up: {error}")),
            }
        }
        Err("nursery did not answer in time".to_owned())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The nursery takes its stars and groups with it; a nursery that cannot be told is ended.
        let told = self.send(&Request::Shutdown).is_ok();
        let deadline = Instant::now() + PATIENCE;
        while told && Instant::now() < deadline {
            match self.nursery.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                _ => return,
            }
        }
        let _ = self.nursery.kill();
        let _ = self.nursery.wait();
    }
}

fn connect(data: &Path) -> Result<Client, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Client::connect(data) {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() > deadline => {
                return Err(format!("no nursery in {}: {error}", data.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}
