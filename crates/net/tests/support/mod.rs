//! A cluster of test nodes on loopback, and a peer that speaks bytes.
#![allow(dead_code, unreachable_pub)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use model::{Name, NodeId, NodeIdentity, NodeRole, WallTime};
use net::connection::Answer;
use net::identity::request::CheckedRequest;
use net::identity::{Authority, Expected, Lifetime, NodeKey, Revoked, Trust};
use net::tls::{Belief, Clock, Judge, client_config, server_name};
use net::{Config, Connection, Endpoint, Limits, Peer, Purpose, Service, Stream, Threads, Timing};
use rnp::message::{GossipSync, Hello, JoinRequest, Pong, RaftVote, StateProposed};
use rnp::{Envelope, ErrorCode, Fault, Flags, Frame, Limit, Message, Payload, Version};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub const NOW: WallTime = WallTime(1_795_651_200_000);
pub const DAY: u64 = 24 * 60 * 60 * 1000;
/// An answer that does not shrink to less than readers accept, nor to much less than it is.
pub static LARGE: &[u8] = &[7; 900_000];
pub const SOON: Duration = Duration::from_secs(20);

/// A clock that stands where a test puts it.
#[derive(Debug)]
pub struct Hand(AtomicU64);

impl Hand {
    pub fn at(now: WallTime) -> Self {
        Self(AtomicU64::new(now.0))
    }

    pub fn set(&self, now: WallTime) {
        self.0.store(now.0, Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn now(&self) -> WallTime {
        WallTime(self.0.load(Ordering::Relaxed))
    }
}

pub struct Cluster {
    pub authority: Authority,
    pub clock: Arc<Hand>,
}

impl Cluster {
    pub fn new() -> Self {
        let authority = Authority::create(&"prod".parse().unwrap(), NOW).unwrap();
        Self { authority, clock: Arc::new(Hand::at(NOW)) }
    }

    pub fn name(&self) -> Name {
        self.authority.cluster().clone()
    }

    pub fn trust(&self) -> Trust {
        Trust::new(self.name(), vec![self.authority.certificate().clone()], Revoked::default()).unwrap()
    }

    pub fn certificate(&self, node: u64) -> Arc<CertifiedKey> {
        let key = NodeKey::generate().unwrap();
        let request = CheckedRequest::read(&key.request().unwrap()).unwrap();
        let role = if node < 10 { NodeRole::Controller } else { NodeRole::Worker };
        let identity = NodeIdentity { cluster: self.name(), role, node: NodeId(node) };
        let issued = self.authority.issue(&request, &identity, Lifetime::DEFAULT, self.clock.now()).unwrap();
        key.certified(issued.chain).unwrap()
    }

    pub fn endpoint(&self, node: u64, service: Arc<dyn Service>, timing: Timing, limits: Limits) -> Endpoint {
        Endpoint::new(self.config(node, service, timing, limits))
    }

    fn config(&self, node: u64, service: Arc<dyn Service>, timing: Timing, limits: Limits) -> Config {
        Config {
            node: NodeId(node),
            certificate: self.certificate(node),
            trust: self.trust(),
            service,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            timing,
            limits,
            threads: Threads::here(),
        }
    }

    pub async fn node(&self, node: u64) -> Node {
        self.node_with(node, Timing::DEFAULT, Limits::default()).await
    }

    /// One whose connections are carried elsewhere.
    pub async fn node_on(&self, node: u64, threads: Threads) -> Node {
        let service = Arc::new(Test::default());
        let config = self.config(node, Arc::clone(&service) as Arc<dyn Service>, Timing::DEFAULT, Limits::default());
        Node::serve(Endpoint::new(Config { threads, ..config }), service, "127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn node_with(&self, node: u64, timing: Timing, limits: Limits) -> Node {
        let service = Arc::new(Test::default());
        let endpoint = self.endpoint(node, Arc::clone(&service) as Arc<dyn Service>, timing, limits);
        Node::serve(endpoint, service, "127.0.0.1:0".parse().unwrap()).await
    }

    /// A connection whose bytes are the test's own, after TLS.
    pub async fn raw(&self, to: &Node, own: Option<Arc<CertifiedKey>>) -> Raw {
        let belief = Belief::Trust(Arc::new(self.trust()));
        let judge = Judge::new(belief, Expected::default(), Arc::clone(&self.clock) as Arc<dyn Clock>);
        let socket = TcpStream::connect(to.address).await.unwrap();
        let stream = TlsConnector::from(client_config(own, judge)).connect(server_name(), socket).await.unwrap();
        Raw { stream, input: BytesMut::new() }
    }

    /// The same, as node `node`, after HELLO.
    pub async fn raw_node(&self, to: &Node, node: u64, purpose: Purpose) -> Raw {
        let mut raw = self.raw(to, Some(self.certificate(node))).await;
        let answer = raw.hello(hello(node, "prod", purpose.as_str()), NodeId(node)).await.unwrap();
        assert!(matches!(answer.message, Message::HelloAck(_)), "{answer:?}");
        raw
    }
}

pub fn hello(node: u64, cluster: &str, purpose: &str) -> Hello {
    Hello { version: Version::CURRENT, node: NodeId(node), cluster: cluster.to_owned(), purpose: purpose.to_owned() }
}

pub fn envelope(id: u64, sender: NodeId, message: impl Into<Message>) -> Envelope {
    Envelope { id, timestamp: NOW.0, sender, message: message.into() }
}

pub struct Raw {
    pub stream: TlsStream<TcpStream>,
    pub input: BytesMut,
}

impl Raw {
    pub async fn hello(&mut self, hello: Hello, sender: NodeId) -> Option<Envelope> {
        self.send(Flags::WANTS_ANSWER, &envelope(1, sender, hello)).await;
        self.message().await.map(|(_, envelope)| envelope)
    }

    pub async fn send(&mut self, flags: Flags, envelope: &Envelope) {
        let mut out = BytesMut::new();
        Frame::new(flags, envelope.encode()).encode(Limit::Bulk, &mut out).unwrap();
        self.write(&out).await.unwrap();
    }

    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The next frame; nothing when the other side has closed.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = Frame::decode(&mut self.input, Limit::Bulk).unwrap() {
                return Some(frame);
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub async fn message(&mut self) -> Option<(Flags, Envelope)> {
        let frame = tokio::time::timeout(SOON, self.frame()).await.expect("a frame or the end in time")?;
        match rnp::read(&frame).unwrap() {
            Payload::Message(envelope) => Some((frame.flags, envelope)),
            Payload::Piece(piece) => panic!("{piece:?}"),
        }
    }

    /// The code of the error that comes next.
    pub async fn error(&mut self) -> ErrorCode {
        match self.message().await {
            Some((_, Envelope { message: Message::Error(fault), .. })) => fault.code,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the other side to close without another message.
    pub async fn closed(&mut self) {
        let next = self.message().await;
        assert!(next.is_none(), "{next:?}");
    }
}

/// Lets through as many as it was told to, in all.
pub struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

impl Gate {
    pub fn open_for(&self, requests: usize) {
        self.0.add_permits(requests);
    }

    async fn pass(&self) {
        self.0.acquire().await.unwrap().forget();
    }
}

/// A service whose answers tests can hold back.
#[derive(Default)]
pub struct Test {
    pub asked: AtomicUsize,
    /// Requests to `state.propose` wait for this, one each.
    pub gate: Gate,
    pub streams: Mutex<Option<mpsc::UnboundedSender<(String, Stream)>>>,
    /// So many requests are refused by 3000.
    pub refuse: AtomicUsize,
}

impl Test {
    /// Streams that are opened from now on.
    pub fn streams(&self) -> mpsc::UnboundedReceiver<(String, Stream)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.streams.lock().unwrap() = Some(sender);
        receiver
    }
}

/// What tests hold of a service, so that its gate can be waited for in a future of its own.
pub struct Gated(pub Arc<Test>);

impl Service for Test {
    fn answer(&self, _peer: &Arc<Peer>, message: Message) -> Answer {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let refused = self.refuse.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        let answer = match message {
            _ if refused.is_ok() => Err(Fault::new(ErrorCode::ResourceExhausted, "later").retry_after_ms(1)),
            // An echo.
            Message::RaftVote(RaftVote { body }) => Ok(rnp::message::RaftAnswer { body }.into()),
            Message::JoinRequest(JoinRequest { .. }) => Err(Fault::new(ErrorCode::AuthFailed, "no such token")),
            Message::RaftTransfer(_) => panic!("a mistake of the service"),
            // Few bytes ask for many.
            Message::GossipSync(GossipSync { members }) if members == "large" => {
                Ok(GossipSync { members: Bytes::from_static(LARGE) }.into())
            }
            Message::StateReadIndex(_) => Ok(rnp::message::StateReadAt { index: 7 }.into()),
            _ => Err(Fault::new(ErrorCode::NotFound, "not here")),
        };
        Box::pin(std::future::ready(answer))
    }

    fn stream(&self, _peer: &Arc<Peer>, service: &str, _body: Bytes, stream: Stream) -> Result<(), Fault> {
        match &*self.streams.lock().unwrap() {
            Some(sender) if service != "none" => {
                sender.send((service.to_owned(), stream)).map_err(|_| Fault::new(ErrorCode::Internal, "gone"))
            }
            _ => Err(Fault::new(ErrorCode::NotFound, "no such service")),
        }
    }
}

impl Service for Gated {
    fn answer(&self, peer: &Arc<Peer>, message: Message) -> Answer {
        let Message::StatePropose(_) = message else { return self.0.answer(peer, message) };
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        let test = Arc::clone(&self.0);
        Box::pin(async move {
            test.gate.pass().await;
            Ok(StateProposed { index: 1 }.into())
        })
    }

    fn stream(&self, peer: &Arc<Peer>, service: &str, body: Bytes, stream: Stream) -> Result<(), Fault> {
        self.0.stream(peer, service, body, stream)
    }
}

pub struct Node {
    pub endpoint: Endpoint,
    pub address: SocketAddr,
    pub service: Arc<Test>,
    task: tokio::task::JoinHandle<()>,
}

impl Node {
    pub async fn serve(endpoint: Endpoint, service: Arc<Test>, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = endpoint.clone();
        let task = tokio::spawn(async move { serving.serve(&listener).await.unwrap() });
        Self { endpoint, address, service, task }
    }

    pub async fn connect(&self, to: &Self, purpose: Purpose) -> Connection {
        let expected = Expected { node: Some(to.endpoint.node()), role: None };
        self.endpoint.connect(to.address, expected, purpose).await.unwrap()
    }

    /// No connection is accepted any more.
    pub fn stop_accepting(&self) {
        self.task.abort();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn vote(body: &'static [u8]) -> RaftVote {
    RaftVote { body: Bytes::from_static(body) }
}

pub fn pong() -> Message {
    Message::Pong(Pong {})
}

/// Waits until a condition holds, looking again after each event of the runtime.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Why a connection ended, which it does in time.
pub async fn ended(connection: &Connection) -> net::connection::Ended {
    tokio::time::timeout(SOON, connection.ended()).await.expect("the connection ends")
}
