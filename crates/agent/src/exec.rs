//! A command within a star: three pipes, whose far ends go to the nursery.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use api::{Exec, ExecCommand};
use model::{Code, Problem, StarId};
use tokio::net::unix::pipe;

use crate::link::Link;

/// Starts a command; it runs until it ends or its pipes are dropped.
pub(crate) fn start(link: Link, star: StarId, command: ExecCommand) -> Result<Exec, Problem> {
    let (stdin, stdout, stderr, pipes) = pipes().map_err(|error| {
        Problem::new(Code::Unavailable, format!("no pipes for the command: {error}")).help("try again in a moment")
    })?;
    let env: BTreeMap<String, String> = command.env;
    let exit = async move { link.exec(star, command.argv, env, pipes).await };
    Ok(Exec { stdin: Box::new(stdin), stdout: Box::new(stdout), stderr: Box::new(stderr), exit: Box::pin(exit) })
}

type Pipes = (pipe::Sender, pipe::Receiver, pipe::Receiver, Vec<OwnedFd>);

fn pipes() -> io::Result<Pipes> {
    let (stdin, their_stdin) = pipe::pipe()?;
    let (their_stdout, stdout) = pipe::pipe()?;
    let (their_stderr, stderr) = pipe::pipe()?;
    // Programs expect pipes that block.
    let theirs =
        vec![their_stdin.into_blocking_fd()?, their_stdout.into_blocking_fd()?, their_stderr.into_blocking_fd()?];
    Ok((stdin, stdout, stderr, theirs))
}
