//! The way to stars: through their doors on this machine, through their own machines elsewhere.
//!
//! A connection to a star elsewhere is a stream to its node (`star.dial`), which opens the star's door and passes bytes on,
//! each direction until it ends. The node tells first whether the door opened: until then nothing of a request is sent.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::{Code, Endpoint, NodeId, Problem, StarId, StarPhase};
use net::{Purpose, Stream, StreamIo};
use proxy::{Connection, Dial, DialError};
use rnp::message::Ping;
use rnp::{ErrorCode, Fault};
use serde::{Deserialize, Serialize};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::roads::Roads;
use super::wire::{Reader, decode, encode, framed};
use crate::control::Looker;
use crate::doors::{Doors, Need};

/// The name of the service that connects to stars.
pub(crate) const SERVICE: &str = "star.dial";
/// Bytes either side may send ahead of a slow reader, until much was carried. Twice this for each connection, 512 of them on one
/// of a node's eight data connections; at 1 ms between two nodes it carries 128 MB/s.
const WINDOW_BYTES: u32 = 128 << 10;
/// Longest wait for a node to open a star's door; whoever asked for it has given up soon after.
const OPEN_WITHIN: Duration = Duration::from_secs(2);
/// Longest wait for a door on this machine, below the time after which the other side takes the whole machine for dead.
const DOOR_WITHIN: Duration = Duration::from_millis(1_500);
/// Longest wait for a node to say that it is there.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// A refusal has this long to be read.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// Bytes moved at once.
const BLOCK: usize = 16 << 10;

/// What follows from `star.dial`. The answer is a `Result<(), Problem>`, then the star's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct DialStar {
    star: StarId,
    port: u16,
}

/// Clones are the same mesh.
#[derive(Clone)]
pub(crate) struct Mesh {
    me: NodeId,
    doors: Doors,
    looker: Looker,
    /// Nothing on a machine that is alone.
    roads: Option<Roads>,
    guests: Guests,
}

impl Mesh {
    pub(crate) fn new(me: NodeId, doors: Doors, looker: Looker, roads: Option<Roads>) -> Self {
        Self { me, doors, looker, roads, guests: Guests::default() }
    }

    /// Ends when no connection from elsewhere is open to a star.
    pub(crate) async fn until_left(&self, star: StarId) {
        self.guests.until_left(star).await;
    }

    async fn dial_far(&self, Endpoint { star, node, port }: Endpoint) -> Result<StreamIo, DialError> {
        let unreachable =
            |problem: Problem| DialError::Machine(io::Error::new(io::ErrorKind::HostUnreachable, problem));
        let Some(roads) = &self.roads else {
            return Err(unreachable(Problem::new(Code::Unavailable, "this machine is alone")));
        };
        let body = encode(&DialStar { star, port }).map_err(unreachable)?;
        let opened = roads.open_wide(node, Purpose::Data, SERVICE, body, WINDOW_BYTES, OPEN_WITHIN).await;
        let mut reader = Reader::new(opened.map_err(unreachable)?);
        match reader.next::<Result<(), Problem>>().await.map_err(unreachable)? {
            Some(Ok(())) => Ok(reader.into_io()),
            Some(Err(problem)) => Err(DialError::Star(io::Error::new(io::ErrorKind::ConnectionRefused, problem))),
            None => Err(unreachable(Problem::new(Code::Unavailable, "it said nothing"))),
        }
    }

    /// Connects another node to a star of this one.
    pub(crate) fn serve(&self, body: &[u8], stream: Stream) -> Result<(), Fault> {
        let dial: DialStar = decode(body).map_err(|problem| Fault::new(ErrorCode::Protocol, problem.message))?;
        let (this, guest) = (self.clone(), self.guests.enter(dial.star));
        tokio::spawn(async move {
            match this.way_in(dial).await {
                Ok(door) => join(stream, door).await,
                Err(problem) => refuse(stream, &problem).await,
            }
            drop(guest);
        });
        Ok(())
    }

    /// The door of a star that runs here, to a port that is its own.
    async fn way_in(&self, DialStar { star, port }: DialStar) -> Result<TcpStream, Problem> {
        let known = self.looker.look(move |node| {
            let record = node.state().stars.get(&star)?;
            Some((record.name(), record.node, record.phase, record.port))
        });
        let Some((name, node, phase, own)) = known.await? else {
            return Err(Problem::new(Code::NotFound, format!("no star `{star}` is known here")));
        };
        if node != self.me {
            return Err(Problem::new(Code::NotFound, format!("star `{name}` is not on this node")));
        }
        if matches!(phase, StarPhase::Assigned | StarPhase::Ended) {
            return Err(Problem::new(Code::Conflict, format!("star `{name}` does not run: it is {phase}")));
        }
        if own != Some(port) {
            return Err(Problem::new(Code::Forbidden, format!("port {port} is not that of star `{name}`")));
        }
        let connected = timeout(DOOR_WITHIN, self.doors.connect(star, port, Need::Some)).await;
        connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| {
            let message = match error.kind() {
                io::ErrorKind::ConnectionRefused => format!("nothing listens on port {port} in star `{name}`"),
                _ => format!("port {port} of star `{name}`: {error}"),
            };
            Problem::new(Code::Unavailable, message)
        })
    }
}

impl Dial for Mesh {
    fn is_near(&self, node: NodeId) -> bool {
        node == self.me
    }

    async fn answers(&self, node: NodeId) -> bool {
        match &self.roads {
            Some(roads) => roads.call_once(node, Purpose::Data, Ping {}, ANSWER_WITHIN).await.is_ok(),
            None => false,
        }
    }

    async fn dial(&self, endpoint: Endpoint) -> Result<Connection, DialError> {
        if self.is_near(endpoint.node) {
            let door = self.doors.connect(endpoint.star, endpoint.port, Need::Some).await?;
            return Ok(Connection::Near(door));
        }
        Ok(Connection::Far(Box::new(self.dial_far(endpoint).await?)))
    }
}

/// Passes bytes on until both sides have ended, or one is broken, which breaks the other.
async fn join(stream: Stream, mut door: TcpStream) {
    let Ok(opened) = framed(&Ok::<(), Problem>(())) else { return };
    if stream.write(opened).await.is_ok() {
        // How it ends is between the two.
        let _ = copy_bidirectional_with_sizes(&mut StreamIo::new(stream), &mut door, BLOCK, BLOCK).await;
    }
}

/// Says why not, and waits until that was read: a stream that is let go of before takes its last words with it.
pub(super) async fn refuse(stream: Stream, problem: &Problem) {
    let Ok(refused) = framed(&Err::<(), &Problem>(problem)) else { return };
    if stream.write(refused).await.is_ok() {
        stream.finish();
        let read = async { while let Ok(Some(_)) = stream.read().await {} };
        let _ = timeout(REFUSED_FOR, read).await;
    }
}

/// Who from elsewhere is with which star.
#[derive(Clone, Default)]
struct Guests(Arc<Inside>);

#[derive(Default)]
struct Inside {
    count: Mutex<HashMap<StarId, usize>>,
    left: Notify,
}

/// One of them, until dropped.
struct Guest {
    guests: Guests,
    star: StarId,
}

impl Guests {
    fn enter(&self, star: StarId) -> Guest {
        *self.count().entry(star).or_default() += 1;
        Guest { guests: self.clone(), star }
    }

    async fn until_left(&self, star: StarId) {
        loop {
            let left = self.0.left.notified();
            tokio::pin!(left);
            // Registered before looking, so that one who leaves in between is not missed.
            left.as_mut().enable();
            if !self.count().contains_key(&star) {
                return;
            }
            left.await;
        }
    }

    fn count(&self) -> MutexGuard<'_, HashMap<StarId, usize>> {
        self.0.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut count = self.guests.count();
        let Some(there) = count.get_mut(&self.star) else { return };
        *there -= 1;
        if *there == 0 {
            count.remove(&self.star);
            self.guests.0.left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_star_is_left_when_the_last_guest_has_gone() {
        let guests = Guests::default();
        guests.until_left(StarId(1)).await;
        let (first, second, other) = (guests.enter(StarId(1)), guests.enter(StarId(1)), guests.enter(StarId(2)));
        let (waiting, done) = (guests.clone(), Arc::new(Notify::new()));
        let told = Arc::clone(&done);
        let task = tokio::spawn(async move {
            waiting.until_left(StarId(1)).await;
            told.notify_one();
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        drop(second);
        timeout(Duration::from_secs(20), done.notified()).await.unwrap();
        drop(other);
        assert!(guests.count().is_empty());
    }
}
