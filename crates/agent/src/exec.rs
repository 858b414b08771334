//! A command within a star: three pipes or a terminal, whose far ends go to the nursery. And what a node has run there by
//! itself: hooks, whose output goes to the star's log, and probes, of whose output the end is kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use api::{Exec, ExecCommand};
use isolate::Launch;
use isolate::parcel::Copying;
use model::{Code, Problem, StarId};
use tokio::net::unix::pipe;
use tokio::time::sleep;

use crate::link::Link;
use crate::ready::register;
use crate::terminal::Terminal;

/// How long a command may take to open its terminal. A star may stop what comes into it.
const TERMINAL_FOR: Duration = Duration::from_secs(10);

/// Starts a command; it runs until it ends, or whoever asked is gone: then it is hung up on, and killed after `grace`. The star's
/// own environment is `environment`.
pub(crate) async fn start(
    link: Link,
    star: StarId,
    grace: Duration,
    mut environment: BTreeMap<String, String>,
    command: ExecCommand,
) -> Result<Exec, Problem> {
    let ExecCommand { argv, env, terminal } = command;
    environment.extend(env);
    let launch = Launch::Command { argv };
    let failed = |error: io::Error| {
        let message = format!("no pipes or terminal for the command: {error}");
        Problem::new(Code::Unavailable, message).help("try again in a moment")
    };
    let Some(size) = terminal else {
        let Ends { near, far } = Ends::pipes().map_err(failed)?;
        return Ok(near(Box::pin(async move { link.exec_leashed(grace, star, launch, environment, far).await })));
    };
    let (near, far) = isolate::terminal::socket().map_err(failed)?;
    let near = register(near).map_err(failed)?;
    let mut exit: api::Answer<'static, i32> =
        Box::pin(async move { link.exec_leashed(grace, star, launch, environment, vec![far]).await });
    let arrived = tokio::select! {
        biased;
        arrived = Terminal::arrive(&near, size) => arrived,
        ended = &mut exit => return Err(without_terminal(ended)),
        // What is dropped here is killed.
        () = sleep(TERMINAL_FOR) => {
            let message = format!("the command has no terminal after {} s: the star may keep it from running", TERMINAL_FOR.as_secs());
            return Err(Problem::new(Code::Timeout, message).help("`rads c restart` starts the star anew"));
        }
    };
    let terminal = match arrived {
        Ok(terminal) => terminal,
        // Nobody is left to send one: how it ended says why.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(without_terminal(exit.await)),
        Err(error) => return Err(failed(error)),
    };
    let control = terminal.clone();
    Ok(Exec {
        stdin: Box::new(terminal.clone()),
        stdout: Box::new(terminal),
        stderr: Box::new(tokio::io::empty()),
        resize: Some(Box::new(move |size| control.resize(size))),
        exit,
    })
}

/// Why a command has no terminal, from how it ended.
fn without_terminal(ended: Result<i32, Problem>) -> Problem {
    ended.err().unwrap_or_else(|| Problem::new(Code::StartFailed, "the command ended before it had a terminal"))
}

/// Starts a copy of files; it runs until it ends or whoever asked is gone.
pub(crate) fn copy(link: Link, star: StarId, copying: Copying) -> Result<Exec, Problem> {
    let Ends { near, far } = Ends::pipes().map_err(|error| {
        let message = format!("no pipes for the copy: {error}");
        Problem::new(Code::Unavailable, message).help("try again in a moment")
    })?;
    Ok(near(Box::pin(async move { link.copy(star, copying, far).await })))
}

/// A hook or a probe to run.
#[derive(Debug)]
pub(crate) struct Errand {
    pub(crate) star: StarId,
    pub(crate) launch: Launch,
    /// The star's own.
    pub(crate) env: BTreeMap<String, String>,
}

/// Runs a hook to its end. It may take any time: whoever waits for it ends the star, and it with the star.
pub(crate) async fn hook(link: &Link, data_dir: &Path, errand: Errand) -> Result<i32, Problem> {
    let ends = File::open("/dev/null").and_then(|null| {
        let [out, err] = isolate::outputs(data_dir, errand.star)?;
        Ok(vec![null.into(), out, err])
    });
    let ends = ends.map_err(|error| Problem::new(Code::Unavailable, format!("the star's log: {error}")))?;
    link.exec(errand.star, errand.launch, errand.env, ends).await
}

/// How much of the end of a probe's output is looked at for what to tell when it fails.
const TOLD_MAX: usize = 1024;

/// Runs a probe: fine when it ends with 0 in time.
pub(crate) async fn probe(link: &Link, time: Duration, errand: Errand) -> Result<(), String> {
    let ends = pipe::pipe().and_then(|(theirs, output)| {
        let out = theirs.into_blocking_fd()?;
        Ok((output, vec![File::open("/dev/null")?.into(), out.try_clone()?, out]))
    });
    let (output, ends) = ends.map_err(|error| format!("no pipe for it: {error}"))?;
    let mut said = Vec::new();
    let exit = link.exec_within(time, errand.star, errand.launch, errand.env, ends);
    let ended = {
        let mut exit = std::pin::pin!(exit);
        loop {
            // It is read on, so that it never waits; its end is not waited for: what it left behind may keep it open.
            tokio::select! {
                biased;
                ended = &mut exit => break ended,
                Ok(()) = output.readable() => if !take_in(&output, &mut said) { break exit.await },
            }
        }
    };
    take_in(&output, &mut said);
    match ended.map_err(|problem| problem.message)? {
        0 => Ok(()),
        code => {
            let said = String::from_utf8_lossy(&said);
            let last = said.trim_end().lines().last().map(|line| format!(": {line}")).unwrap_or_default();
            Err(format!("it ended with exit code {code}{last}"))
        }
    }
}

/// Reads what is there and keeps its end. `false` at the end of it all.
fn take_in(output: &pipe::Receiver, said: &mut Vec<u8>) -> bool {
    let mut some = [0; 4096];
    match output.try_read(&mut some) {
        Ok(0) => false,
        Ok(read) => {
            said.extend_from_slice(&some[..read]);
            said.drain(..said.len().saturating_sub(TOLD_MAX));
            true
        }
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

struct Ends {
    /// The command as it is seen from here, given how it ends.
    near: Box<dyn FnOnce(api::Answer<'static, i32>) -> Exec>,
    /// Standard input, output and error of the command.
    far: Vec<OwnedFd>,
}

impl Ends {
    fn pipes() -> io::Result<Self> {
        let (stdin, their_stdin) = pipe::pipe()?;
        let (their_stdout, stdout) = pipe::pipe()?;
        let (their_stderr, stderr) = pipe::pipe()?;
        // Programs expect pipes that block.
        let far =
            vec![their_stdin.into_blocking_fd()?, their_stdout.into_blocking_fd()?, their_stderr.into_blocking_fd()?];
        let near = Box::new(|exit| Exec {
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            resize: None,
            exit,
        });
        Ok(Self { near, far })
    }
}
