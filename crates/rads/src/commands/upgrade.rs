//! `rads c upgrade`: nursery and agent become this program; the stars notice neither.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use agent::Upgraded;
use api::{Client, StarsThen, Version};
use model::{Code, Problem};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::agent::{find_or_start, nursery_args, shut_down};
use crate::cli::Form;
use crate::screen;

/// Between two looks at whether an entry point takes connections.
const STEP: Duration = Duration::from_millis(2);
/// Longest wait for an entry point to be there again.
const BACK_AGAIN: Duration = Duration::from_secs(20);

/// What became of both. A part that is this program already is `None`.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    nursery: Option<NurseryOutcome>,
    agent: Option<AgentOutcome>,
}

#[derive(Debug, Serialize)]
struct NurseryOutcome {
    stars: u32,
    pause_us: u64,
}

#[derive(Debug, Serialize)]
struct AgentOutcome {
    pid: u32,
    pid_before: u32,
    /// How long an entry point took no connections; `None` without one.
    entry_points_down_ms: Option<u64>,
}

pub(crate) async fn upgrade(data_dir: &Path, form: Form) -> Result<u8, Problem> {
    let found = match Client::connect(data_dir).await {
        Err(problem) if problem.code == Code::NoAgent && isolate::Client::connect(data_dir).is_ok() => None,
        found => Some(found?),
    };
    // The nursery first: if it refuses, nothing at all has changed.
    let nursery = agent::upgrade_nursery(data_dir, &nursery_args(data_dir)).await?;
    let nursery = nursery.map(|Upgraded { stars, pause }| NurseryOutcome { stars, pause_us: pause.as_micros() as u64 });
    let mut outcome = Outcome { nursery, agent: None };
    if form == Form::Text {
        screen::line(match &outcome.nursery {
            Some(NurseryOutcome { stars, pause_us }) => {
                let stars = screen::count(*stars as usize, "star");
                format!("nursery  is this program now; {stars} ran on, it paused for {} ms", milliseconds(*pause_us))
            }
            None => "nursery  is this program already".to_owned(),
        });
    }
    if let Some((client, version)) = found {
        if !is_this_program(version.pid) {
            outcome.agent = Some(replace(data_dir, client, version).await?);
        }
        if form == Form::Text {
            screen::line(match &outcome.agent {
                Some(AgentOutcome { pid, pid_before, entry_points_down_ms }) => {
                    let down = entry_points_down_ms
                        .map(|down| format!("; entry points took no connections for {down} ms"))
                        .unwrap_or_default();
                    format!("agent    is this program now, pid {pid} after {pid_before}{down}")
                }
                None => "agent    is this program already".to_owned(),
            });
        }
    } else if form == Form::Text {
        screen::line("agent    does not run; the next one will be this program if it starts it");
    }
    if form == Form::Json {
        screen::json(&outcome)?;
    }
    Ok(0)
}

/// Ends an agent, but not its stars, and starts this program in its place.
async fn replace(data_dir: &Path, client: Client, version: Version) -> Result<AgentOutcome, Problem> {
    if !version.background {
        // Whoever started it there, a person or a supervisor, would start it again, or miss it.
        let message = format!("the agent (pid {}) was not started in the background and stays what it is", version.pid);
        return Err(Problem::new(Code::Conflict, message)
            .help("the nursery is this program now; end the agent and start it again where it was started"));
    }
    // Of the first entry point. One with any free port may have another one then, which says nothing.
    let entry = client.services().await?.into_iter().find_map(|view| Some((view.service, view.address?)));
    let (arrived, arrives) = oneshot::channel();
    let watch = entry.as_ref().map(|(_, address)| tokio::spawn(downtime(*address, arrives)));
    shut_down(&client, &version, StarsThen::Keep).await?;
    let (client, now, _) = find_or_start(data_dir).await?;
    let mut down = None;
    if let (Some((service, before)), Some(watch)) = (entry, watch) {
        let since = Instant::now();
        let address = loop {
            match client.service(&service).await?.address {
                None if since.elapsed() < BACK_AGAIN => sleep(STEP).await,
                address => break address,
            }
        };
        if address == Some(before) {
            let _ = arrived.send(());
            down = watch.await.ok().flatten();
        }
    }
    Ok(AgentOutcome {
        pid: now.pid,
        pid_before: version.pid,
        entry_points_down_ms: down.map(|down| down.as_millis() as u64),
    })
}

/// How long nothing listens at an address: from the first connection that is refused to the first that is not. Ends when
/// it is told that something listens there, or that nothing will.
async fn downtime(entry: SocketAddr, mut listens: oneshot::Receiver<()>) -> Option<Duration> {
    let mut refused: Option<Instant> = None;
    loop {
        let told = listens.try_recv();
        match (TcpStream::connect(entry).await.is_ok(), refused) {
            (true, Some(since)) => return Some(since.elapsed()),
            (true, None) if told.is_ok() => return Some(Duration::ZERO),
            (true, None) => {}
            (false, _) => refused = refused.or(Some(Instant::now())),
        }
        if told == Err(oneshot::error::TryRecvError::Closed) {
            return None;
        }
        sleep(STEP).await;
    }
}

/// Whether a process was executed from the file this one was.
fn is_this_program(pid: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let file = |path: &str| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    file(&format!("/proc/{pid}/exe")) == file("/proc/self/exe")
}

/// Microseconds as milliseconds with one digit after the point.
fn milliseconds(us: u64) -> String {
    format!("{}.{}", us / 1000, us % 1000 / 100)
}
