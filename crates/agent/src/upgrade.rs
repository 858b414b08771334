//! How the nursery of a data folder becomes the program that this process is; its stars run on.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use isolate::{Client, Message, Request};
use model::{Code, Problem};
use tokio::time::timeout;

use crate::ready::register;

/// Longest wait for the nursery's answer: the other program has five seconds to say whether it can take over.
const PATIENCE: Duration = Duration::from_secs(15);

/// A nursery that became another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upgraded {
    /// Stars that run in its care.
    pub stars: u32,
    /// How long it served nobody meanwhile.
    pub pause: Duration,
}

/// Has the nursery become the program of this process, under `args`. `None` when it is that already, or there is none.
///
/// # Errors
/// `Unavailable`, with the reason, when it could not; it goes on as it was then.
pub async fn upgrade_nursery(data_dir: &Path, args: &[OsString]) -> Result<Option<Upgraded>, Problem> {
    let Ok(client) = Client::connect(data_dir) else { return Ok(None) };
    let unknown = |error: io::Error| refused(&format!("which program it is cannot be seen: {error}"));
    if client.is_of_this_program().map_err(unknown)? {
        return Ok(None);
    }
    let words =
        args.iter().map(|arg| arg.to_str().map(str::to_owned).ok_or_else(|| refused("a path is no UTF-8 text")));
    let request = Request::Upgrade { args: words.collect::<Result<_, _>>()? };
    match timeout(PATIENCE, ask(client, &request)).await {
        Ok(Ok(Message::TookOver { stars, elapsed_us })) => {
            Ok(Some(Upgraded { stars, pause: Duration::from_micros(elapsed_us) }))
        }
        Ok(Ok(Message::Refused { reason, .. })) => Err(refused(&reason)),
        Ok(Ok(_)) => Err(refused("it gave an answer that makes no sense")),
        Ok(Err(error)) => Err(refused(&error.to_string())),
        Err(_) => Err(refused(&format!("it did not answer within {} s", PATIENCE.as_secs()))),
    }
}

async fn ask(client: Client, request: &Request) -> io::Result<Message> {
    let program = File::open("/proc/self/exe")?;
    // A socket that nothing was sent by yet has room.
    client.try_send(request, &[program.as_fd()])?;
    let client = register(client)?;
    loop {
        let mut guard = client.readable().await?;
        if let Ok(received) = guard.try_io(|client| client.get_ref().0.try_recv()) {
            return received.map(|(message, _)| message);
        }
    }
}

fn refused(why: &str) -> Problem {
    Problem::new(Code::Unavailable, format!("the nursery goes on as it was: {why}"))
        .help("its stars run on; see `nursery.log`")
}
