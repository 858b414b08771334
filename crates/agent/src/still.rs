//! Stars held still while their files are looked at: for as long as a connection to the nursery lasts, so that nothing that
//! happens to this process can leave them so.

use std::path::Path;
use std::time::Duration;

use isolate::{Client, Message, Request};
use model::{Code, Problem, StarId};
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use crate::ready::{Ready, register};

/// Longest wait for the nursery's answers; it gives a star twenty seconds to come to a stand.
const PATIENCE: Duration = Duration::from_secs(25);

/// Stars that stand still until this is dropped.
pub(crate) struct Still {
    connection: AsyncFd<Ready<Client>>,
}

impl Still {
    /// Whether they have stood still all the time: a nursery that has ended meanwhile held nobody any more.
    pub(crate) fn holds(&self) -> bool {
        let received = self.connection.get_ref().0.try_recv();
        matches!(received, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Returns when nothing in them moves. One that has ended meanwhile is none of them.
    pub(crate) async fn hold(data_dir: &Path, stars: &[StarId]) -> Result<Self, Problem> {
        let failed = |why: String| {
            Problem::new(Code::Unavailable, format!("the stars cannot be held still: {why}"))
                .help("nothing was changed")
        };
        let hello = Request::Hello { version: isolate::protocol::VERSION };
        let requests: Vec<Request> =
            std::iter::once(hello).chain(stars.iter().map(|&star| Request::Hold { star })).collect();
        let count = stars.len();
        let ask = async move {
            let client = register(Client::connect(data_dir)?)?;
            let mut requests = requests.into_iter().peekable();
            let mut answers = 0;
            let mut problem = None;
            while answers < count {
                // No more than fits is sent at once.
                while let Some(request) = requests.peek() {
                    match client.get_ref().0.try_send(request, &[]) {
                        Ok(()) => drop(requests.next()),
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    }
                }
                let mut guard = client.readable().await?;
                let Ok(received) = guard.try_io(|client| client.get_ref().0.try_recv()) else { continue };
                match received?.0 {
                    Message::Held { problem: None, .. } => answers += 1,
                    Message::Held { problem: Some(why), .. } if why == "the star does not run" => answers += 1,
                    Message::Held { problem: Some(why), .. } => {
                        answers += 1;
                        problem = Some(why);
                    }
                    Message::Refused { star: None, reason } => return Err(std::io::Error::other(reason)),
                    _ => {}
                }
            }
            Ok((client, problem))
        };
        match timeout(PATIENCE, ask).await {
            Ok(Ok((client, None))) => Ok(Self { connection: client }),
            Ok(Ok((_, Some(problem)))) => Err(failed(problem)),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }
}
