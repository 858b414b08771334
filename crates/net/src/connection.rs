//! One RNP connection: requests told apart by their ids, streams with credit, whatever is urgent first.
//!
//! A task of its own (`driver`) owns the socket: it reads, and writes what callers and services put into `state`. A
//! [`Connection`] is a handle to it; the connection goes on while the driver does, whatever handles there are.
//!
//! | queue | bound | when it is full |
//! |---|---|---|
//! | requests to be written, vital and others apart | [`QUEUE_BYTES`] each | callers wait, within their deadline |
//! | requests without an answer yet | [`WAITING_MAX`] | refused here: nothing was sent |
//! | requests being served, vital and others apart | [`SERVING_MAX`], [`SERVING_VITAL_MAX`] | answered by error 3000 |
//! | answers to be written | [`ANSWER_BYTES`], then requests are answered by error 3000 | |
//! | errors and pongs of our own | [`ECHO_BYTES`] | nothing more is read until some are written |
//! | bytes of a stream to be written | two pieces | its writer waits |
//! | bytes of streams that came | their windows; [`WINDOWS_BYTES`] in all | the opening is answered by error 3000 |

mod driver;
mod hello;
mod state;
mod stream;
mod stream_io;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use model::{NodeId, NodeIdentity};
use rnp::message::{Goodbye, Priority, StreamOpen};
use rnp::{Envelope, ErrorCode, Fault, Flags, Frame, Limit, Message};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use self::state::{Outgoing, Phase, State};
pub use self::stream::{Stream, StreamEnd};
pub use self::stream_io::StreamIo;
pub(crate) use self::{
    driver::run,
    hello::{answer_hello, say_hello},
};
use crate::identity::Certificate;
use crate::identity::trust::Distrust;
use crate::tls::Clock;

/// Bytes of requests that wait to be written, for each priority: a few round trips' worth.
pub const QUEUE_BYTES: usize = 4 << 20;
/// Requests of one connection that have no answer yet.
pub const WAITING_MAX: usize = 1_024;
/// Requests of one connection that are being answered.
pub const SERVING_MAX: usize = 256;
/// The same for votes, heartbeats and appended entries, which others shall not keep out.
pub const SERVING_VITAL_MAX: usize = 64;
/// Bytes of answers that wait to be written before further requests are refused.
pub const ANSWER_BYTES: usize = 8 << 20;
/// Bytes of errors and pongs that wait to be written before nothing more is read.
pub const ECHO_BYTES: usize = 512 << 10;
/// A refusal has some 200 bytes: a peer that keeps to [`WAITING_MAX`] never makes us stop reading, so that two sides
/// that refuse each other's requests do not wait for each other.
const _: () = assert!(ECHO_BYTES > WAITING_MAX * 256);
/// Streams open at once on a connection.
pub const STREAMS_MAX: usize = 1_024;
/// Sum of the windows of a connection's streams.
pub const WINDOWS_BYTES: usize = 64 << 20;

/// What a connection is for: what it carries shares no queue with what others carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// Consensus, and what keeps a cluster together.
    Control,
    /// Anything else that nodes say.
    Peer,
    /// What the log carries from one voter to another: payloads of up to 16 MiB, though usually small ones.
    Log,
    /// Bulk: payloads of up to 16 MiB.
    Data,
}

impl Purpose {
    pub const ALL: [Self; 4] = [Self::Control, Self::Peer, Self::Log, Self::Data];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Peer => "peer",
            Self::Log => "log",
            Self::Data => "data",
        }
    }

    /// An unknown word means `peer`.
    pub fn of(word: &str) -> Self {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == word).unwrap_or(Self::Peer)
    }

    pub(crate) const fn limit(self) -> Limit {
        match self {
            Self::Control | Self::Peer => Limit::Control,
            Self::Log | Self::Data => Limit::Bulk,
        }
    }
}

/// How long things may take. Another one in tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// TCP, TLS and HELLO together.
    pub hello: Duration,
    /// A machine that joins may stay this long.
    pub stranger: Duration,
    /// Nothing heard for so long: a ping.
    pub keep_alive: Duration,
    /// No pong for so long: the end.
    pub pong: Duration,
    /// Nothing but pings for so long on a connection that we opened: GOODBYE.
    pub idle: Duration,
    /// The other side takes no byte of what is to be written, or does not finish a frame it began: the end.
    pub stall: Duration,
    /// How long a GOODBYE waits for what is under way.
    pub goodbye: Duration,
}

impl Timing {
    pub const DEFAULT: Self = Self {
        hello: Duration::from_secs(5),
        stranger: Duration::from_secs(30),
        keep_alive: Duration::from_secs(60),
        pong: Duration::from_secs(5),
        idle: Duration::from_secs(300),
        stall: Duration::from_secs(30),
        goodbye: Duration::from_secs(10),
    };
}

impl Default for Timing {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Who is at the other side, as the handshake proved it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Nothing for a machine that is to join.
    pub certificate: Option<Certificate>,
    pub address: SocketAddr,
    pub purpose: Purpose,
    /// What only the two sides of this connection know: a signature over it is of no use on another.
    pub binding: [u8; 32],
    /// The version that both speak.
    pub version: rnp::Version,
    /// What the other side can do beyond that; only the side that opened the connection is told.
    pub capabilities: Vec<String>,
}

impl Peer {
    pub fn identity(&self) -> Option<&NodeIdentity> {
        self.certificate.as_ref().map(|certificate| &certificate.identity)
    }

    /// The node at the other side; [`rnp::envelope::NOBODY`] for a machine that is to join.
    pub fn node(&self) -> NodeId {
        self.identity().map_or(rnp::envelope::NOBODY, |identity| identity.node)
    }
}

pub type Answer = Pin<Box<dyn Future<Output = Result<Message, Fault>> + Send>>;

/// What answers the requests of others.
///
/// Both are called on the connection's own task: what takes long belongs into the future or a task. Whoever asks has been
/// proved to be `peer`; whether they may ask this is the service's to decide. A machine without a certificate gets no
/// further than here with anything but `join.request` and `certificate.recover`.
pub trait Service: Send + Sync + 'static {
    /// Answers a request; the answer to a message that wants none is dropped.
    fn answer(&self, peer: &Arc<Peer>, message: Message) -> Answer;

    /// Takes a stream that the peer opens for `service`, or tells why not.
    fn stream(&self, peer: &Arc<Peer>, service: &str, body: Bytes, stream: Stream) -> Result<(), Fault>;
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    #[error("one side said goodbye")]
    Goodbye,
    #[error("it was ended on this side")]
    Local,
    #[error("the other side closed the connection")]
    Closed,
    #[error("the connection failed: {0}")]
    Failed(String),
    #[error("the other side broke the protocol: {0}")]
    Protocol(String),
    #[error("the other side ended it: {0}")]
    Told(Fault),
    #[error(transparent)]
    Distrust(Distrust),
    /// Told by who was believed, in the answer to our certificate.
    #[error("the other side does not believe this node any more: it was removed, or its certificate was revoked")]
    Revoked,
    #[error("nothing came from the other side")]
    Silent,
    #[error("the other side takes or finishes nothing")]
    Stalled,
    #[error("no memory is left for what the other side sends")]
    Full,
    #[error("a machine that is to join stayed too long")]
    Overstayed,
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The other side answered that it does not do it.
    #[error(transparent)]
    Refused(Fault),
    /// Nothing was sent: it can be asked elsewhere, whatever it is.
    #[error("not sent: {0}")]
    NotSent(NotSent),
    /// The connection ended before the answer; it may have been done.
    #[error("no answer: {0}")]
    Ended(Ended),
    /// It may have been done, or be done yet.
    #[error("no answer in time")]
    Timeout,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    #[error("the connection is being closed")]
    Leaving,
    #[error("the connection has ended: {0}")]
    Ended(Ended),
    #[error("{WAITING_MAX} requests wait for an answer already")]
    Full,
    #[error("{0}")]
    TooLong(String),
    #[error("the connection has no more numbers for streams")]
    NoStreams,
    #[error("the queue was full until the end")]
    Timeout,
}

/// Where ids of messages come from: unique among a node's messages, and not those of its earlier life.
#[derive(Debug)]
pub struct Ids(AtomicU64);

impl Ids {
    pub fn new() -> Self {
        // 2^62 are left to count up to the end.
        Self(AtomicU64::new(u64::from_be_bytes(crate::identity::random()) >> 2))
    }

    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Default for Ids {
    fn default() -> Self {
        Self::new()
    }
}

/// Memory that peers may fill beyond what each connection has anyway, for all connections of a node.
#[derive(Debug)]
pub struct Budget {
    left: AtomicUsize,
}

impl Budget {
    pub fn new(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes) }
    }

    pub(crate) fn take(&self, bytes: usize) -> bool {
        let take = |left: usize| left.checked_sub(bytes);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    pub(crate) fn give(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A part of it, for as long as somebody keeps the loan.
    pub(crate) fn lend(self: &Arc<Self>, bytes: usize) -> Option<Loan> {
        self.take(bytes).then(|| Loan { budget: Arc::clone(self), bytes })
    }

    /// What is left of it.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }
}

/// So many bytes of a budget, given back in the end.
#[derive(Debug)]
pub(crate) struct Loan {
    budget: Arc<Budget>,
    pub(crate) bytes: usize,
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.budget.give(self.bytes);
    }
}

/// What all connections of a node share.
pub(crate) struct Shared {
    pub(crate) node: NodeId,
    pub(crate) service: Arc<dyn Service>,
    pub(crate) ids: Ids,
    pub(crate) budget: Budget,
    /// By how much windows may be wider than they were at first, all together.
    pub(crate) widths: Arc<Budget>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) timing: Timing,
}

impl Shared {
    pub(crate) fn envelope(&self, id: u64, message: Message) -> Envelope {
        Envelope { id, timestamp: self.clock.now().0, sender: self.node, message }
    }
}

pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: Arc<Peer>,
    /// Whether this side opened the connection.
    pub(crate) opened: bool,
    state: Mutex<State>,
    room: [Arc<Semaphore>; 2],
    ended: watch::Sender<Option<Ended>>,
    /// No longer given out for new requests, as it was made with an old certificate of ours.
    retired: std::sync::atomic::AtomicBool,
}

impl Inner {
    pub(crate) fn new(shared: Arc<Shared>, peer: Peer, opened: bool) -> Arc<Self> {
        let room = || Arc::new(Semaphore::new(QUEUE_BYTES));
        Arc::new(Self {
            shared,
            peer: Arc::new(peer),
            opened,
            state: Mutex::new(State::new(opened)),
            room: [room(), room()],
            ended: watch::Sender::new(None),
            retired: false.into(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, then wakes the driver if it waits.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        let driver = state.driver.take();
        drop(state);
        if let Some(waker) = driver {
            waker.wake();
        }
        result
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Ends the connection from outside of the driver.
    pub(crate) fn end(&self, reason: Ended) {
        self.change(|state| state.fail(reason));
    }
}

/// A handle to a connection.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

impl Connection {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    pub fn peer(&self) -> &Arc<Peer> {
        &self.inner.peer
    }

    /// Whether it takes requests.
    pub fn is_open(&self) -> bool {
        self.inner.lock().phase == Phase::Open
    }

    /// Requests that wait for an answer, and streams.
    pub fn load(&self) -> usize {
        self.inner.lock().load()
    }

    /// Asks, and waits for the answer for as long as `within`.
    ///
    /// # Errors
    /// Tells whether it may have been done.
    pub async fn request(&self, message: impl Into<Message>, within: Duration) -> Result<Message, Failure> {
        let id = self.inner.shared.ids.next();
        self.request_as(id, &message.into(), within).await
    }

    /// The same under an id of the caller's: for asking again.
    pub(crate) async fn request_as(&self, id: u64, message: &Message, within: Duration) -> Result<Message, Failure> {
        let priority = message.kind().priority();
        let frame = self.frame(id, message.clone(), Flags::WANTS_ANSWER)?;
        let mut guard = Waiting { inner: &self.inner, id: None };
        let ask = async {
            let permit = self.room(priority, frame.len()).await?;
            let (sender, receiver) = oneshot::channel();
            self.inner.change(|state| {
                state.may_ask()?;
                if state.waiting.len() >= WAITING_MAX {
                    return Err(Failure::NotSent(NotSent::Full));
                }
                state.waiting.insert(id, sender);
                state.push(priority, Outgoing::request(frame, permit));
                Ok(())
            })?;
            guard.id = Some(id);
            receiver.await.map_err(|_| Failure::Ended(self.reason()))
        };
        match tokio::time::timeout(within, ask).await {
            Ok(Ok(Message::Error(fault))) => Err(Failure::Refused(fault)),
            Ok(answer) => answer,
            Err(_) if guard.id.is_none() => Err(Failure::NotSent(NotSent::Timeout)),
            Err(_) => Err(Failure::Timeout),
        }
    }

    /// Tells something that has no answer.
    ///
    /// # Errors
    /// When it was not sent. That it was says nothing of its having come.
    pub async fn tell(&self, message: impl Into<Message>, within: Duration) -> Result<(), Failure> {
        let message = message.into();
        let priority = message.kind().priority();
        let frame = self.frame(self.inner.shared.ids.next(), message, Flags::NONE)?;
        let room = tokio::time::timeout(within, self.room(priority, frame.len())).await;
        let permit = room.unwrap_or(Err(Failure::NotSent(NotSent::Timeout)))?;
        self.inner.change(|state| {
            state.may_ask()?;
            state.push(priority, Outgoing::request(frame, permit));
            Ok(())
        })
    }

    /// Opens a stream to a service of the other side. `window` is how many bytes it may send ahead at first.
    ///
    /// # Errors
    /// When it is refused, or the connection has ended.
    pub async fn open(&self, service: &str, body: Bytes, window: u32, within: Duration) -> Result<Stream, Failure> {
        let window = window.clamp(1, rnp::stream::WINDOW_BYTES_MAX - 1);
        let number = self.inner.change(|state| {
            state.may_ask()?;
            state.open_own(window).ok_or(Failure::NotSent(NotSent::NoStreams))
        })?;
        let stream = Stream::new(Arc::clone(&self.inner), number);
        let open = StreamOpen { stream: number.0, window, service: service.to_owned(), body };
        // When it fails or is given up, `stream` is dropped: what may have been opened is reset.
        match self.request(open, within).await? {
            Message::StreamAccepted(accepted) => {
                self.inner.change(|state| state.accepted(number, accepted.window));
                Ok(stream)
            }
            other => Err(Failure::Refused(Fault::new(
                ErrorCode::Protocol,
                format!("`{}` is no answer to `stream.open`", other.kind().name()),
            ))),
        }
    }

    /// Says GOODBYE: what is under way is finished, nothing new is begun. Returns when the connection has ended.
    pub async fn goodbye(&self, reason: &str) -> Ended {
        self.begin_goodbye(reason);
        self.ended().await
    }

    pub(crate) fn begin_goodbye(&self, reason: &str) {
        let shared = &self.inner.shared;
        let id = shared.ids.next();
        let goodbye = Goodbye { reason: reason.chars().take(200).collect() };
        let Ok(frame) = self.frame(id, goodbye.into(), Flags::WANTS_ANSWER) else { return };
        self.inner.change(|state| state.leave(id, frame, shared.timing.goodbye));
    }

    /// Ends it now: what is under way has no answer.
    pub fn abort(&self) {
        self.inner.end(Ended::Local);
    }

    /// Why it ended, once it has.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.inner.ended.subscribe();
        let reason = ended.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or(Ended::Closed)
    }

    /// Has a ping sent now; no pong in time ends the connection.
    pub(crate) fn doubt(&self) {
        self.inner.change(|state| state.doubted = true);
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub(crate) fn retire(&self) {
        self.inner.retired.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.inner.retired.load(Ordering::Relaxed)
    }

    fn reason(&self) -> Ended {
        self.inner.ended.borrow().clone().unwrap_or(Ended::Closed)
    }

    fn frame(&self, id: u64, message: Message, flags: Flags) -> Result<BytesMut, Failure> {
        let payload = self.inner.shared.envelope(id, message).encode();
        let mut frame = BytesMut::new();
        let encoded = Frame::new(flags, payload).encode(self.inner.peer.purpose.limit(), &mut frame);
        encoded.map_err(|error| Failure::NotSent(NotSent::TooLong(error.to_string())))?;
        Ok(frame)
    }

    async fn room(&self, priority: Priority, bytes: usize) -> Result<OwnedSemaphorePermit, Failure> {
        let room = Arc::clone(&self.inner.room[state::lane(priority)]);
        // A message longer than the whole queue has it for itself.
        let bytes = u32::try_from(bytes.min(QUEUE_BYTES)).unwrap_or(u32::MAX);
        let permit = room.acquire_many_owned(bytes).await;
        permit.map_err(|_| Failure::NotSent(NotSent::Ended(self.reason())))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({} at {}, {:?})", self.peer().node(), self.peer().address, self.peer().purpose)
    }
}

/// Takes a request back when nobody waits for its answer any more.
struct Waiting<'a> {
    inner: &'a Inner,
    id: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.inner.lock().waiting.remove(&id);
        }
    }
}
