//! Connections to other nodes that are used again, and questions that are asked again.
//!
//! To one node there are at most so many connections for each purpose ([`most`]), in all [`POOL_MAX`]; never one to everybody.
//! Another is opened when those there are have [`BUSY`] requests under way each. When the pool is full, the one that was idle for
//! longest makes room.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::NodeId;
use rnp::message::StreamOpen;
use rnp::retry::Retry;
use rnp::{ErrorCode, Message};
use tokio::time::Instant;

use crate::connection::{Connection, Ended, Failure, NotSent, Purpose, Stream};
use crate::endpoint::{ConnectError, Endpoint};
use crate::identity::Expected;

/// Connections in all.
pub const POOL_MAX: usize = 1_000;

/// Requests under way on a connection before another is opened: what one task of the other side answers while the
/// next come.
pub const BUSY: usize = 32;

/// The least time an attempt is given of what is left.
const PATIENCE_MIN: Duration = Duration::from_millis(100);

/// Connections to one node for one purpose, at most.
pub const fn most(purpose: Purpose) -> usize {
    match purpose {
        Purpose::Control => 4,
        Purpose::Peer | Purpose::Log => 2,
        Purpose::Data => 8,
    }
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Request(#[from] Failure),
}

impl CallError {
    /// Whether it is certain that nothing was done.
    pub fn was_not_sent(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Request(Failure::NotSent(_)))
    }
}

/// A node's connections to others, opened as they are needed.
#[derive(Clone)]
pub struct Pool {
    endpoint: Endpoint,
    nodes: Arc<Mutex<HashMap<(NodeId, Purpose), Lane>>>,
    most_in_all: usize,
}

/// The connections to one node for one purpose.
#[derive(Default)]
struct Lane {
    connections: Vec<Kept>,
    /// One is opened at a time: the others who want one wait for it.
    opening: Arc<tokio::sync::Mutex<()>>,
}

struct Kept {
    connection: Connection,
    used: Instant,
}

impl Pool {
    pub fn new(endpoint: Endpoint) -> Self {
        Self::with_most(endpoint, POOL_MAX)
    }

    /// A pool of so many connections in all.
    pub fn with_most(endpoint: Endpoint, most_in_all: usize) -> Self {
        Self { endpoint, nodes: Arc::default(), most_in_all }
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How many connections it holds.
    pub fn len(&self) -> usize {
        self.lock().values().map(|lane| lane.connections.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A connection to the node at this address: the least loaded one, or a new one when all are busy and there may be
    /// more.
    ///
    /// # Errors
    /// When none can be opened and there is none.
    pub async fn get(&self, node: NodeId, address: SocketAddr, purpose: Purpose) -> Result<Connection, ConnectError> {
        self.get_other(node, address, purpose, None).await
    }

    /// The same, but not this one if another is to be had.
    async fn get_other(
        &self,
        node: NodeId,
        address: SocketAddr,
        purpose: Purpose,
        avoid: Option<&Connection>,
    ) -> Result<Connection, ConnectError> {
        let key = (node, purpose);
        let opening = match self.pick(key, avoid) {
            Picked::Use(connection) => return Ok(connection),
            Picked::Open(opening) => opening,
        };
        let _opening = opening.lock().await;
        // Somebody else may have opened it meanwhile.
        if let Picked::Use(connection) = self.pick(key, avoid) {
            return Ok(connection);
        }
        self.make_room()?;
        let expected = Expected { node: Some(node), role: None };
        match self.endpoint.connect(address, expected, purpose).await {
            Ok(connection) => {
                let kept = Kept { connection: connection.clone(), used: Instant::now() };
                self.lock().entry(key).or_default().connections.push(kept);
                Ok(connection)
            }
            // A busy one is better than none.
            Err(error) => self.least_loaded(key).ok_or(error),
        }
    }

    fn pick(&self, key: (NodeId, Purpose), avoid: Option<&Connection>) -> Picked {
        let mut nodes = self.lock();
        let lane = nodes.entry(key).or_default();
        lane.tidy();
        let may_open = lane.connections.len() < most(key.1);
        match lane.least_loaded(avoid) {
            Some((kept, is_avoided, load)) if !may_open || (!is_avoided && load < BUSY) => {
                kept.used = Instant::now();
                Picked::Use(kept.connection.clone())
            }
            _ => Picked::Open(Arc::clone(&lane.opening)),
        }
    }

    fn least_loaded(&self, key: (NodeId, Purpose)) -> Option<Connection> {
        let mut nodes = self.lock();
        let (kept, ..) = nodes.get_mut(&key)?.least_loaded(None)?;
        Some(kept.connection.clone())
    }

    /// Lets go of the connection that was unused for longest, when there are as many as there may be.
    fn make_room(&self) -> Result<(), ConnectError> {
        let mut nodes = self.lock();
        for lane in nodes.values_mut() {
            lane.tidy();
        }
        nodes.retain(|_, lane| !lane.connections.is_empty() || Arc::strong_count(&lane.opening) > 1);
        let count: usize = nodes.values().map(|lane| lane.connections.len()).sum();
        if count < self.most_in_all {
            return Ok(());
        }
        let idle =
            nodes.values_mut().flat_map(|lane| lane.connections.iter_mut()).filter(|kept| kept.connection.load() == 0);
        let oldest = idle.min_by_key(|kept| kept.used).ok_or(ConnectError::Full)?;
        oldest.connection.begin_goodbye("making room");
        for lane in nodes.values_mut() {
            lane.tidy();
        }
        Ok(())
    }

    /// Asks a node, and again if that does no harm and did not work: on another connection at once, then after the times
    /// of [`Retry`], all within `within`.
    ///
    /// # Errors
    /// The last one; one that another attempt would not change is given at once.
    pub async fn call(
        &self,
        node: NodeId,
        address: SocketAddr,
        purpose: Purpose,
        message: impl Into<Message>,
        within: Duration,
    ) -> Result<Message, CallError> {
        let message = message.into();
        let deadline = Instant::now() + within;
        let id = self.endpoint.next_id();
        let mut retry = Retry::default();
        let mut last: Option<CallError> = None;
        let mut avoid: Option<Connection> = None;
        loop {
            let wait = retry.next(last.as_ref().and_then(asked_to_wait));
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = match (wait, &last) {
                (Some(wait), None) => wait,
                (Some(wait), Some(_)) if wait < left => wait,
                _ => return Err(last.unwrap_or(Failure::Timeout.into())),
            };
            tokio::time::sleep(wait).await;
            let left = deadline.saturating_duration_since(Instant::now());
            // What may be asked again is not waited for to the end, should the connection be dead without a word.
            let patience =
                if message.kind().may_repeat() { left.div_f32(2.0).max(left.min(PATIENCE_MIN)) } else { left };
            let attempt = async {
                let connection = self.get_other(node, address, purpose, avoid.as_ref()).await?;
                let answer = connection.request_as(id, &message, patience).await;
                if matches!(answer, Err(Failure::Timeout)) {
                    connection.doubt();
                }
                avoid = Some(connection);
                Ok::<_, CallError>(answer?)
            };
            match attempt.await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    let harmless = message.kind().may_repeat() || error.was_not_sent();
                    if !(harmless && is_passing(&error)) {
                        return Err(error);
                    }
                    last = Some(error);
                }
            }
        }
    }

    /// Opens a stream to a service of a node. Asked once: a stream that may have been opened is not opened again.
    ///
    /// # Errors
    /// When there is no connection, or the service refuses.
    pub async fn open(
        &self,
        node: NodeId,
        address: SocketAddr,
        purpose: Purpose,
        open: StreamOpen,
        within: Duration,
    ) -> Result<Stream, CallError> {
        let connection = self.get(node, address, purpose).await?;
        Ok(connection.open(&open.service, open.body, open.window, within).await?)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(NodeId, Purpose), Lane>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Picked {
    Use(Connection),
    /// Under this lock.
    Open(Arc<tokio::sync::Mutex<()>>),
}

impl Lane {
    /// Forgets those that take no more requests, and those with an old certificate: these go on until what is under way on
    /// them is done.
    fn tidy(&mut self) {
        for kept in self.connections.iter().filter(|kept| kept.connection.is_retired() && kept.connection.load() == 0) {
            kept.connection.begin_goodbye("the certificate was renewed");
        }
        self.connections.retain(|kept| kept.connection.is_open() && !kept.connection.is_retired());
    }

    /// The connection with the least under way, and how much that is; the one to avoid only if there is no other.
    fn least_loaded(&mut self, avoid: Option<&Connection>) -> Option<(&mut Kept, bool, usize)> {
        let judged = self.connections.iter_mut().map(|kept| {
            let is_avoided = avoid.is_some_and(|avoid| kept.connection.is(avoid));
            let load = kept.connection.load();
            (kept, is_avoided, load)
        });
        judged.min_by_key(|(_, is_avoided, load)| (*is_avoided, *load))
    }
}

/// How long the other side wants not to be asked.
fn asked_to_wait(error: &CallError) -> Option<Duration> {
    match error {
        CallError::Request(Failure::Refused(fault)) => fault.retry_after_ms.map(|ms| Duration::from_millis(ms.into())),
        _ => None,
    }
}

/// Whether it may go better the next time.
fn is_passing(error: &CallError) -> bool {
    match error {
        CallError::Connect(ConnectError::Unreachable { .. } | ConnectError::Timeout { .. } | ConnectError::Full) => {
            true
        }
        CallError::Connect(ConnectError::Hello { reason: Ended::Told(fault), .. }) => {
            fault.code == ErrorCode::ResourceExhausted
        }
        CallError::Connect(_) => false,
        CallError::Request(Failure::Refused(fault)) => fault.code == ErrorCode::ResourceExhausted,
        CallError::Request(Failure::NotSent(NotSent::TooLong(_))) => false,
        CallError::Request(Failure::NotSent(_) | Failure::Ended(_) | Failure::Timeout) => true,
    }
}
