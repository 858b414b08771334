//! A command within a star: three pipes or a terminal, whose far ends go to the nursery.

use std::io;
use std::os::fd::OwnedFd;

use api::{Exec, ExecCommand, TerminalSize};
use model::{Code, Problem, StarId};
use tokio::net::unix::pipe;

use crate::link::Link;
use crate::terminal::Terminal;

/// Starts a command; it runs until it ends or its pipes are dropped.
pub(crate) fn start(link: Link, star: StarId, command: ExecCommand) -> Result<Exec, Problem> {
    let ExecCommand { argv, env, terminal } = command;
    let ends = match terminal {
        Some(size) => Ends::terminal(size),
        None => Ends::pipes(),
    };
    let Ends { near, far } = ends.map_err(|error| {
        let message = format!("no pipes or terminal for the command: {error}");
        Problem::new(Code::Unavailable, message).help("try again in a moment")
    })?;
    Ok(near(Box::pin(async move { link.exec(star, argv, env, far).await })))
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

    fn terminal(size: TerminalSize) -> io::Result<Self> {
        let (terminal, far) = Terminal::open(size)?;
        let near = Box::new(move |exit| {
            let control = terminal.clone();
            Exec {
                stdin: Box::new(terminal.clone()),
                stdout: Box::new(terminal),
                stderr: Box::new(tokio::io::empty()),
                resize: Some(Box::new(move |size| control.resize(size))),
                exit,
            }
        });
        Ok(Self { near, far })
    }
}
