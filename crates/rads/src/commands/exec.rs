//! Runs a command within a star's walls, with this terminal's input and output.

use api::exec::{EXIT, PAYLOAD_MAX, STDERR, STDIN, STDOUT, read_frame, write_frame};
use api::{Client, Ended, ExecCommand};
use model::{Code, Problem, StarId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::find;
use crate::cli::Exec;

pub(crate) async fn exec(client: &Client, args: Exec) -> Result<u8, Problem> {
    let star: StarId = find::running_star(client, &args.name).await?;
    let command = ExecCommand { argv: args.command, env: Default::default() };
    let (mut from, mut to) = tokio::io::split(client.exec(star, &command).await?);
    // Ends with the program: a read of the terminal cannot be called off.
    tokio::spawn(async move {
        let mut stdin = tokio::io::stdin();
        let mut buffer = vec![0; PAYLOAD_MAX];
        loop {
            let read = stdin.read(&mut buffer).await.unwrap_or(0);
            // An empty frame is the end of the input.
            if write_frame(&mut to, STDIN, &buffer[..read]).await.is_err() || read == 0 {
                return to;
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
            EXIT => return ended(&payload),
            _ => {}
        }
    }
    Err(Problem::new(Code::Unavailable, "the agent ended before the command did"))
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
