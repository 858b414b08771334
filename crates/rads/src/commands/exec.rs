//! Runs a command within a star's walls, with this terminal's input and output.
//!
//! From a terminal the command gets one too, and this one passes on every key as it is: ^C ends what runs in the star, not
//! this program.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use api::exec::{EXIT, PAYLOAD_MAX, RESIZE, STDERR, STDIN, STDOUT, read_frame, write_frame};
use api::{Client, Ended, ExecCommand, TerminalSize};
use model::{Code, Problem, StarId};
use rustix::termios::{OptionalActions, Termios};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::find;
use crate::cli::Exec;

pub(crate) async fn exec(client: &Client, args: Exec) -> Result<u8, Problem> {
    let star: StarId = find::running_star(client, &args.name).await?;
    let on_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && !args.no_terminal;
    let terminal = if on_terminal { size() } else { None };
    // What the programs of the star draw is drawn here.
    let term = terminal.and_then(|_| std::env::var("TERM").ok());
    let env: BTreeMap<String, String> = term.map(|term| ("TERM".to_owned(), term)).into_iter().collect();
    let command = ExecCommand { argv: args.command, env, terminal };
    let (mut from, to) = tokio::io::split(client.exec(star, &command).await?);
    let raw = terminal.and_then(|_| Raw::set());
    let (frames, sending) = mpsc::channel(FRAMES_WAITING);
    tokio::spawn(send(to, sending));
    if terminal.is_some() {
        tokio::spawn(tell_size(frames.clone()));
    }
    // Ends with the program: a read of the terminal cannot be called off.
    tokio::spawn(async move {
        let mut stdin = tokio::io::stdin();
        let mut buffer = vec![0; PAYLOAD_MAX];
        loop {
            let read = stdin.read(&mut buffer).await.unwrap_or(0);
            // An empty frame is the end of the input.
            if frames.send((STDIN, buffer[..read].to_vec())).await.is_err() || read == 0 {
                return;
            }
        }
    });
    let (mut out, mut err) = (tokio::io::stdout(), tokio::io::stderr());
    let broken = |error: std::io::Error| Problem::new(Code::Unavailable, format!("the connection broke: {error}"));
    while let Some((kind, payload)) = read_frame(&mut from).await.map_err(broken)? {
        match kind {
            // Nobody reads on: the command learns it by its own pipe when this program ends.
            STDOUT if write(&mut out, &payload).await.is_err() => return Ok(0),
            STDERR => drop(write(&mut err, &payload).await),
            EXIT => {
                drop(raw);
                return ended(&payload);
            }
            _ => {}
        }
    }
    Err(Problem::new(Code::Unavailable, "the agent ended before the command did"))
}

type Frame = (u8, Vec<u8>);

/// Frames waiting to be sent; whoever has more waits.
const FRAMES_WAITING: usize = 4;

async fn send(mut to: impl AsyncWrite + Unpin, mut sending: mpsc::Receiver<Frame>) {
    while let Some((kind, payload)) = sending.recv().await {
        if write_frame(&mut to, kind, &payload).await.is_err() {
            return;
        }
    }
    // The connection stays open for what the command still says.
    std::future::pending::<()>().await;
}

/// Passes on every new size of this terminal.
async fn tell_size(frames: mpsc::Sender<Frame>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    while changes.recv().await.is_some() {
        let frame = size().and_then(|size| serde_json::to_vec(&size).ok());
        if let Some(frame) = frame
            && frames.send((RESIZE, frame)).await.is_err()
        {
            return;
        }
    }
}

fn size() -> Option<TerminalSize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// This terminal with every key passed on as it is; as before when dropped.
struct Raw(Termios);

impl Raw {
    fn set() -> Option<Self> {
        let before = rustix::termios::tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

async fn write(to: &mut (impl AsyncWriteExt + Unpin), payload: &[u8]) -> std::io::Result<()> {
    to.write_all(payload).await?;
    to.flush().await
}

fn ended(payload: &[u8]) -> Result<u8, Problem> {
    match serde_json::from_slice(payload) {
        // The kernel keeps eight bits of an exit code.
        Ok(Ended::Code(code)) => Ok((code & 0xff) as u8),
        Ok(Ended::Problem(problem)) => Err(problem),
        Err(error) => Err(Problem::new(Code::Internal, format!("the command's end cannot be read: {error}"))),
    }
}
