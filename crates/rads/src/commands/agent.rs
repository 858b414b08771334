//! The agent as a program: in the foreground, in the background, and its end.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::{Client, StarsThen, Version};
use model::{Code, Problem, StarPhase};
use tokio::time::{Instant, sleep, timeout};

use crate::access::Api;
use crate::place::Place;
use crate::screen;

/// What is logged when nobody says otherwise. Elections and the like are told in our words; openraft's own would be a hundred
/// lines for each.
const LOGGED: &str = "info,openraft=error";

/// Runs the agent here until a signal or a request ends it.
pub(crate) fn run(data_dir: PathBuf, background: bool, api: Option<Api>) -> Result<u8, Problem> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("RADS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(LOGGED));
    let terminal = io::IsTerminal::is_terminal(&io::stderr());
    // A log that cannot be written, as on a full disk, is no reason to stop working: told to nobody, it would be a panic.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(terminal);
    log.log_internal_errors(false).init();
    end_with_a_panic();
    let runtime = agent::runtime()
        .map_err(|error| Problem::new(Code::Internal, format!("cannot start the agent's threads: {error}")))?;
    let exe = own_program()?;
    let nursery_args = nursery_args(&data_dir).to_vec();
    let api = api.map(Api::address);
    let config = agent::Config { data_dir, exe: exe.clone(), nursery_args, background, api };
    match runtime.block_on(agent::run(config))? {
        agent::Ending::Over => Ok(0),
        agent::Ending::Again => {
            drop(runtime);
            // The same process goes on as whatever its data folder says now.
            let error = std::process::Command::new(&exe).args(std::env::args_os().skip(1)).exec();
            Err(Problem::new(Code::Internal, format!("cannot execute `{}` again: {error}", exe.display())))
        }
    }
}

/// What makes this program a nursery.
pub(super) fn nursery_args(data_dir: &Path) -> [OsString; 3] {
    ["nursery".into(), "--data-dir".into(), data_dir.into()]
}

/// A panic in one of its tasks ends the whole agent: half of one would hold the folder and do nothing. Its stars run on, and
/// the next agent takes them over.
fn end_with_a_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}

/// The agent that a command is about; that of a folder is started if need be.
pub(crate) async fn at(place: &Place) -> Result<(Client, Version, bool), Problem> {
    match place {
        Place::Folder(folder) => find_or_start(folder).await,
        elsewhere => super::connect(elsewhere).await.map(|(client, version)| (client, version, false)),
    }
}

/// An agent that answers, and whether it was started for this.
pub(crate) async fn find_or_start(data_dir: &Path) -> Result<(Client, Version, bool), Problem> {
    let deadline = Instant::now() + DYING_TIMEOUT;
    loop {
        match Client::connect(data_dir).await {
            Err(problem) if problem.code == Code::NoAgent => break,
            // It is just ending: it accepts no more, but its socket is still there.
            Err(problem) if problem.code == Code::Unavailable && Instant::now() < deadline => sleep(STEP).await,
            found => return found.map(|(client, version)| (client, version, false)),
        }
    }
    let log = data_dir.join("agent.log");
    let log_start = prepare(data_dir, &log)?;
    let args: [OsString; 5] =
        ["constellation".into(), "agent".into(), "--background".into(), "--data-dir".into(), data_dir.into()];
    let pid = isolate::launch_detached(&own_program()?, &args, &log)
        .map_err(|fault| Problem::new(Code::Internal, fault.to_string()))?;
    let (client, version) = wait_until_up(data_dir, pid, &log, log_start).await?;
    // Another command may have started one at the same moment, and that one won.
    let ours = version.pid == pid;
    Ok((client, version, ours))
}

/// Ends an agent and returns when it is gone.
pub(crate) async fn shut_down(client: &Client, version: &Version, stars: StarsThen) -> Result<(), Problem> {
    let longest = match stars {
        StarsThen::Keep => Duration::ZERO,
        StarsThen::Stop => longest_end(client).await?,
    };
    client.shutdown(stars).await?;
    let patience = longest + SHUTDOWN_TIMEOUT;
    let begun = Instant::now();
    let deadline = begun + patience;
    let mut said = None;
    let mut look = begun + REASON_AFTER;
    while runs(version.pid) {
        if Instant::now() > look {
            let line = held_up_by(client, stars).await;
            if said.as_ref() != Some(&line) {
                screen::note(&line);
                said = Some(line);
            }
            look = Instant::now() + REASON_AFTER;
        }
        if Instant::now() > deadline {
            let message = format!("the agent did not end within {} s", patience.as_secs());
            return Err(Problem::new(Code::Timeout, message).help("see what it does in `agent.log` in its data folder"));
        }
        sleep(STEP).await;
    }
    Ok(())
}

/// What an agent that ends waits for. It answers for as long as stars end.
async fn held_up_by(client: &Client, stars: StarsThen) -> String {
    let left = async {
        let (own, all) = (client.status().await?.node.node, client.stars().await?);
        let left = all.into_iter().filter(|star| star.node == own && star.phase != StarPhase::Ended);
        Ok::<Vec<_>, Problem>(left.map(|star| star.name).collect())
    };
    let left = match stars {
        StarsThen::Keep => Vec::new(),
        StarsThen::Stop => timeout(REASON_AFTER, left).await.ok().and_then(Result::ok).unwrap_or_default(),
    };
    match left.as_slice() {
        [] => "waiting for the agent to end: it says goodbye to others".to_owned(),
        [first] => format!("waiting for star `{first}` to end"),
        [first, rest @ ..] => format!("waiting for star `{first}` and {} more to end", rest.len()),
    }
}

/// How long stars may take to end in good order: each finishes its requests, and then itself.
async fn longest_end(client: &Client) -> Result<Duration, Problem> {
    let services = client.services().await?;
    let longest = services.iter().map(|view| view.spec.template.grace_ms).max().unwrap_or_default();
    Ok(Duration::from_millis(longest.into()) * 2)
}

/// Whether a process still does anything; one that nobody has waited for yet does not.
pub(super) fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may hold anything, parentheses too.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Longest wait for an agent to answer: it reads its log and takes over stars first.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for an agent that closes its connections to be gone.
const DYING_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an agent to end once its stars had their time: those that are left are killed, which takes milliseconds
/// each. More than the agent waits itself, so that it is the one to tell.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(45);
/// A wait this long wants a word about why.
const REASON_AFTER: Duration = Duration::from_secs(1);
/// Between two looks; an agent is up in some milliseconds.
const STEP: Duration = Duration::from_millis(2);

/// Makes sure that the folder can hold an agent before one is started where nobody sees it fail. Returns the length of
/// the log so far.
fn prepare(data_dir: &Path, log: &Path) -> Result<u64, Problem> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
    let opened = made.and_then(|()| {
        // A full disk still gives names to empty files: only what is written shows it.
        let probe = data_dir.join("probe");
        let written = fs::write(&probe, [0; 4096]);
        let _ = fs::remove_file(&probe);
        written?;
        OpenOptions::new().append(true).create(true).mode(0o600).open(log)?.metadata()
    });
    opened.map(|metadata| metadata.len()).map_err(|error| {
        let (code, help) = match error.kind() {
            io::ErrorKind::StorageFull => {
                (Code::DiskFull, "free some space, or choose another folder with `--data-dir`")
            }
            _ => (Code::DataUnwritable, "choose another folder with `--data-dir` or `RADS_DATA`"),
        };
        Problem::new(code, format!("cannot write to the data folder `{}`: {error}", data_dir.display())).help(help)
    })
}

async fn wait_until_up(data_dir: &Path, pid: u32, log: &Path, log_start: u64) -> Result<(Client, Version), Problem> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        // Asked before connecting: an agent that ends in between has said why.
        let lives = runs(pid);
        match Client::connect(data_dir).await {
            Err(problem) if problem.code == Code::NoAgent => {}
            answer => return answer,
        }
        if !lives {
            // Another command started one at the same moment: that one has the folder and will answer soon.
            let problem = last_words(log, log_start);
            if problem.code != Code::AgentRunning || Instant::now() > deadline {
                return Err(problem);
            }
        }
        if Instant::now() > deadline {
            let message = format!("the agent (pid {pid}) did not answer within {} s", START_TIMEOUT.as_secs());
            return Err(Problem::new(Code::Timeout, message).help(format!("see `{}`", log.display())));
        }
        sleep(STEP).await;
    }
}

/// Why an agent ended: the problem it printed last.
fn last_words(log: &Path, log_start: u64) -> Problem {
    let text = fs::read(log).unwrap_or_default();
    let start = usize::try_from(log_start).unwrap_or(0).min(text.len());
    let text = String::from_utf8_lossy(&text[start..]).into_owned();
    let printed = text.rfind("error[").map(|at| &text[at..]);
    let parsed = printed.and_then(|printed| {
        let (code, rest) = printed.strip_prefix("error[")?.split_once("]: ")?;
        let code = *Code::ALL.iter().find(|known| known.as_str() == code)?;
        let mut lines = rest.lines();
        let problem = Problem::new(code, lines.next()?);
        Some(match lines.next().and_then(|line| line.strip_prefix("help: ")) {
            Some(help) => problem.help(help),
            None => problem,
        })
    });
    parsed.unwrap_or_else(|| {
        Problem::new(Code::NoAgent, "the agent ended as soon as it was started")
            .help(format!("see what it said in `{}`", log.display()))
    })
}

/// This program, to be started again. After an upgrade the old file may be gone; the running one still can be.
pub(crate) fn own_program() -> Result<PathBuf, Problem> {
    let exe = std::env::current_exe()
        .map_err(|error| Problem::new(Code::Internal, format!("cannot tell where this program lies: {error}")))?;
    Ok(if exe.exists() { exe } else { PathBuf::from("/proc/self/exe") })
}

/// `rads c shutdown`. Stars whose agent is gone need one to be ended in good order.
pub(super) async fn shutdown(data_dir: &Path, keep_stars: bool) -> Result<u8, Problem> {
    let (client, version, started) = match Client::connect(data_dir).await {
        Err(problem) if problem.code == Code::NoAgent && !keep_stars && isolate::Client::connect(data_dir).is_ok() => {
            find_or_start(data_dir).await?
        }
        found => found.map(|(client, version)| (client, version, false))?,
    };
    let stars = if keep_stars { StarsThen::Keep } else { StarsThen::Stop };
    shut_down(&client, &version, stars).await?;
    screen::note(match stars {
        StarsThen::Keep => "agent ended; its stars run on",
        StarsThen::Stop if started => "no agent was there; the stars it had left are ended",
        StarsThen::Stop => "agent ended, its stars with it",
    });
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_problem_an_agent_printed_last_is_the_one_that_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("agent.log");
        let old = "error[C0204]: the disk is full\n";
        let new = "INFO starting\nerror[C0202]: another agent (pid 7) holds `/x`\nhelp: stop it first\n";
        fs::write(&log, format!("{old}{new}")).unwrap();
        let expected = Problem::new(Code::AgentRunning, "another agent (pid 7) holds `/x`").help("stop it first");
        assert_eq!(last_words(&log, old.len() as u64), expected);
        fs::write(&log, format!("{old}thread panicked")).unwrap();
        assert_eq!(last_words(&log, old.len() as u64).code, Code::NoAgent);
    }
}
