//! A node's side of all its connections: accepts and opens them, knows which there are, and ends those whose peer is no
//! longer believed.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use bytes::Bytes;
use model::{Name, NodeId};
use rnp::envelope::NOBODY;
use rnp::{ErrorCode, Fault, Message};
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::connection::{
    Answer, Budget, Connection, Ended, Ids, Inner, Peer, Purpose, Service, Shared, Stream, Timing, answer_hello, run,
    say_hello,
};
use crate::identity::Trust;
use crate::identity::trust::{Distrust, Expected};
use crate::threads::{Threads, move_to};
use crate::tls::{ALPN, Belief, Clock, Judge, client_config, server_config, server_name};

/// What a node is given to speak with others.
pub struct Config {
    pub node: NodeId,
    /// Its key and certificate, and what leads to the authority.
    pub certificate: Arc<CertifiedKey>,
    pub trust: Trust,
    pub service: Arc<dyn Service>,
    pub clock: Arc<dyn Clock>,
    pub timing: Timing,
    pub limits: Limits,
    pub threads: Threads,
}

/// Bounds of a node's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections that others opened, and that were greeted. More are accepted when some end.
    pub accepted: usize,
    /// Of these, how many one node may have opened. Its pools open 14.
    pub per_node: usize,
    /// Connections whose other side is not known yet; each costs some 30 KiB for five seconds at most.
    pub strangers: usize,
    /// Of these, how many may come from one address: so many addresses it takes to keep others waiting.
    pub per_address: usize,
    /// Machines without a certificate that may be joining at once.
    pub joining: usize,
    /// Bytes that peers may make the node hold in unfinished frames and unread streams, in all.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { accepted: 10_000, per_node: 64, strangers: 512, per_address: 64, joining: 64, memory: 256 << 20 }
    }
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers there.
    #[error("`{address}` does not answer: {reason}")]
    Unreachable { address: SocketAddr, reason: String },
    #[error("`{address}` does not answer in time")]
    Timeout { address: SocketAddr },
    /// Who answers is not who was called.
    #[error("`{address}`: {reason}")]
    Distrust { address: SocketAddr, reason: Distrust },
    /// TLS could not be agreed on; the other side may not believe us.
    #[error("`{address}` refuses the connection: {reason}")]
    Tls { address: SocketAddr, reason: String },
    #[error("`{address}`: {reason}")]
    Hello { address: SocketAddr, reason: Ended },
    #[error("the pool of connections is full of those in use")]
    Full,
}

/// A node among others. Cloning gives another handle.
#[derive(Clone)]
pub struct Endpoint {
    inner: Arc<EndpointInner>,
}

struct EndpointInner {
    shared: Arc<Shared>,
    cluster: Name,
    certificate: ArcSwap<CertifiedKey>,
    trust: ArcSwap<Trust>,
    limits: Limits,
    threads: Threads,
    strangers: Arc<Semaphore>,
    accepted: Arc<Semaphore>,
    joining: Arc<Semaphore>,
    /// Strangers by address.
    from: Mutex<HashMap<IpAddr, usize>>,
    live: Mutex<HashMap<u64, Live>>,
    numbers: AtomicU64,
    /// A [`Received`].
    received: AtomicU8,
    /// How often this node was shut out.
    shut_outs: AtomicU64,
}

/// How a node is received by those that it calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Received {
    #[default]
    AsNode,
    /// By a node that says that this one was removed, or its certificate revoked.
    ShutOut,
    /// By whoever is there with a certificate of no authority that is trusted here.
    ByStrangers,
}

/// What was sent and is not acknowledged by the other side's kernel for so long, in milliseconds, ends the connection: its
/// machine is off, or cut off. A busy program's kernel still acknowledges, and several repetitions fit into it.
const UNACKNOWLEDGED_MS: u32 = 5_000;
/// Longest wait for other machines to say GOODBYE too, at the end: whoever ended this one waits for it.
const LAST_WAIT: std::time::Duration = std::time::Duration::from_secs(2);

/// Small messages go at once, and a machine that is gone is noticed by who sends to it.
pub(crate) fn settle(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    rustix::net::sockopt::set_tcp_user_timeout(socket, UNACKNOWLEDGED_MS)?;
    Ok(())
}

/// A connection that was greeted.
struct Greeting {
    inner: Arc<Inner>,
    stream: TlsStream<TcpStream>,
    input: bytes::BytesMut,
    /// The place of a machine that joins.
    joining: Option<OwnedSemaphorePermit>,
}

/// One of an address's strangers, for as long as it is one.
struct Stranger {
    endpoint: Endpoint,
    address: IpAddr,
}

impl Stranger {
    /// Nothing when the address has as many as it may.
    fn note(endpoint: &Endpoint, address: IpAddr) -> Option<Self> {
        let mut from = endpoint.inner.from.lock().unwrap_or_else(PoisonError::into_inner);
        let count = from.entry(address).or_default();
        if *count >= endpoint.inner.limits.per_address {
            return None;
        }
        *count += 1;
        Some(Self { endpoint: endpoint.clone(), address })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut from = self.endpoint.inner.from.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = from.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                from.remove(&self.address);
            }
        }
    }
}

struct Live {
    connection: Weak<Inner>,
    /// What the peer showed, to be judged again by another trust.
    chain: Vec<CertificateDer<'static>>,
}

impl Endpoint {
    pub fn new(config: Config) -> Self {
        let Config { node, certificate, trust, service, clock, timing, limits, threads } = config;
        let (ids, budget) = (Ids::new(), Budget::new(limits.memory));
        let widths = Arc::new(Budget::new(limits.memory / 4));
        let inner = EndpointInner {
            shared: Arc::new(Shared { node, service, ids, budget, widths, clock, timing }),
            cluster: trust.cluster().clone(),
            certificate: ArcSwap::new(certificate),
            trust: ArcSwap::from_pointee(trust),
            limits,
            threads,
            strangers: Arc::new(Semaphore::new(limits.strangers)),
            accepted: Arc::new(Semaphore::new(limits.accepted)),
            joining: Arc::new(Semaphore::new(limits.joining)),
            from: Mutex::default(),
            live: Mutex::default(),
            numbers: AtomicU64::new(0),
            received: AtomicU8::new(Received::AsNode as u8),
            shut_outs: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    pub fn node(&self) -> NodeId {
        self.inner.shared.node
    }

    pub fn limits(&self) -> Limits {
        self.inner.limits
    }

    /// What is left of [`Limits::memory`].
    pub fn memory_left(&self) -> usize {
        self.inner.shared.budget.left()
    }

    /// How many connections there are, whoever opened them.
    pub fn connections(&self) -> usize {
        self.live().values().filter_map(|live| live.connection.upgrade()).filter(|inner| !inner.has_ended()).count()
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.inner.shared.ids.next()
    }

    /// Accepts connections until the future is dropped; those that were accepted go on.
    ///
    /// # Errors
    /// When the listener fails for good. Out of file descriptors it waits for some.
    pub async fn serve(&self, listener: &TcpListener) -> io::Result<()> {
        loop {
            // More wait in the kernel's queue.
            let stranger = Arc::clone(&self.inner.strangers).acquire_owned().await.map_err(io::Error::other)?;
            let place = Arc::clone(&self.inner.accepted).acquire_owned().await.map_err(io::Error::other)?;
            let (socket, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_passing(&error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let endpoint = self.clone();
            let Some(from) = Stranger::note(self, address.ip()) else {
                tracing::debug!(%address, "a connection too many from one address was closed");
                continue;
            };
            tokio::spawn(async move {
                let within = endpoint.inner.shared.timing.hello;
                let greeted = tokio::time::timeout(within, endpoint.greet(socket, address)).await;
                drop((stranger, from));
                match greeted {
                    Ok(Ok(Greeting { inner, stream, input, joining })) => {
                        // A machine that joins keeps its own place, not one of a node's.
                        let place = joining.is_none().then_some(place);
                        endpoint.inner.threads.of(inner.peer.purpose).spawn(async move {
                            run(inner, stream, input).await;
                            drop((place, joining));
                        });
                    }
                    Ok(Err(error)) => tracing::debug!(%address, %error, "a connection was refused"),
                    Err(_) => tracing::debug!(%address, "a connection was not greeted in time"),
                }
            });
        }
    }

    /// TLS and HELLO with who calls.
    async fn greet(&self, socket: TcpStream, address: SocketAddr) -> Result<Greeting, ConnectError> {
        let refused = |reason: io::Error| ConnectError::Tls { address, reason: reason.to_string() };
        settle(&socket).map_err(refused)?;
        let judge = self.judge(Expected::default());
        let acceptor = TlsAcceptor::from(server_config(self.inner.certificate.load_full(), Arc::clone(&judge)));
        let accepted = acceptor.accept(socket).await;
        let certificate = match judge.take_verdict() {
            Some(Err(reason)) => return Err(ConnectError::Distrust { address, reason }),
            Some(Ok(certificate)) => Some(certificate),
            None => None,
        };
        let mut stream = TlsStream::from(accepted.map_err(refused)?);
        let (chain, binding) = examine(&stream, address)?;
        let peer = certificate.as_ref().map(|certificate| certificate.identity.node);
        let (joining, full) = match peer {
            Some(node) => (None, self.accepted_of(node) >= self.inner.limits.per_node),
            None => {
                let place = Arc::clone(&self.inner.joining).try_acquire_owned().ok();
                let full = place.is_none();
                (place, full)
            }
        };
        let greeted = answer_hello(&mut stream, &self.inner.shared, &self.inner.cluster, peer, full).await;
        let greeted = greeted.map_err(|reason| ConnectError::Hello { address, reason })?;
        let peer = Peer {
            certificate,
            address,
            purpose: greeted.purpose,
            binding,
            version: greeted.version,
            capabilities: greeted.capabilities,
        };
        move_to(self.inner.threads.of(peer.purpose), &mut stream).map_err(refused)?;
        let inner = Inner::new(Arc::clone(&self.inner.shared), peer, false);
        self.register(&inner, chain).map_err(|reason| ConnectError::Distrust { address, reason })?;
        Ok(Greeting { inner, stream, input: greeted.input, joining })
    }

    /// How many connections a node has opened to this one.
    fn accepted_of(&self, node: NodeId) -> usize {
        let live = self.live();
        let there = live.values().filter_map(|live| live.connection.upgrade());
        there.filter(|inner| !inner.opened && inner.peer.node() == node && !inner.has_ended()).count()
    }

    /// Opens a connection to a node.
    ///
    /// # Errors
    /// Tells whether nobody answers, who answers is not believed, or does not believe us.
    pub async fn connect(
        &self,
        address: SocketAddr,
        expected: Expected,
        purpose: Purpose,
    ) -> Result<Connection, ConnectError> {
        let judge = self.judge(expected);
        let own = Some(self.inner.certificate.load_full());
        let caller = Caller { shared: &self.inner.shared, cluster: &self.inner.cluster, judge, own };
        let called = caller.call(address, purpose).await;
        match &called {
            Ok(_) => self.note(Received::AsNode),
            Err(ConnectError::Hello { reason: Ended::Revoked, .. }) => {
                self.inner.shut_outs.fetch_add(1, Ordering::Relaxed);
                self.note(Received::ShutOut);
            }
            Err(ConnectError::Distrust { reason: Distrust::UnknownAuthority, .. }) => self.note(Received::ByStrangers),
            // Nobody was there, or it was another node than the one that was called.
            Err(_) => {}
        }
        let (inner, mut stream, input, chain) = called?;
        let home = self.inner.threads.of(purpose);
        move_to(home, &mut stream).map_err(|error| ConnectError::Unreachable { address, reason: error.to_string() })?;
        self.register(&inner, chain).map_err(|reason| ConnectError::Distrust { address, reason })?;
        home.spawn(run(Arc::clone(&inner), stream, input));
        Ok(Connection::new(inner))
    }

    /// How the last one that was reached received this node.
    pub fn received(&self) -> Received {
        let received = self.inner.received.load(Ordering::Relaxed);
        [Received::ShutOut, Received::ByStrangers].into_iter().find(|one| *one as u8 == received).unwrap_or_default()
    }

    /// How often a node said that this one was removed or shut out.
    pub fn times_shut_out(&self) -> u64 {
        self.inner.shut_outs.load(Ordering::Relaxed)
    }

    fn note(&self, received: Received) {
        self.inner.received.store(received as u8, Ordering::Relaxed);
    }

    /// Whether any connection with a node is open.
    pub fn is_connected(&self) -> bool {
        !self.open().is_empty()
    }

    fn judge(&self, expected: Expected) -> Arc<Judge> {
        let belief = Belief::Trust(self.inner.trust.load_full());
        Judge::new(belief, expected, Arc::clone(&self.inner.shared.clock))
    }

    /// Goes on with another certificate: of new connections from the next handshake on. Those that are open stay so until
    /// the old certificate ends; pools no longer give them out.
    pub fn set_certificate(&self, certificate: Arc<CertifiedKey>) {
        self.inner.certificate.store(certificate);
        for connection in self.open() {
            connection.retire();
        }
    }

    /// Goes on with another trust: whoever is no longer believed is let go of now, others from the next handshake on.
    pub fn set_trust(&self, trust: Trust) {
        let trust = Arc::new(trust);
        let before = self.inner.trust.swap(Arc::clone(&trust));
        let same = before.authorities() == trust.authorities();
        let now = self.inner.shared.clock.now();
        let live: Vec<_> = {
            let mut live = self.live();
            live.retain(|_, live| live.connection.strong_count() > 0);
            live.values().filter_map(|live| Some((live.connection.upgrade()?, live.chain.clone()))).collect()
        };
        for (connection, chain) in live {
            let Some(certificate) = &connection.peer.certificate else { continue };
            let judged =
                if same { trust.still(certificate) } else { trust.judge(&chain, Expected::default(), now).map(|_| ()) };
            if let Err(reason) = judged {
                connection.end(Ended::Distrust(reason));
            }
        }
    }

    /// What this node shows in handshakes.
    pub fn certificate(&self) -> Arc<CertifiedKey> {
        self.inner.certificate.load_full()
    }

    pub fn trust(&self) -> Arc<Trust> {
        self.inner.trust.load_full()
    }

    /// Says GOODBYE on all connections, and waits for them to end. Those that have not after two seconds are ended: nothing
    /// comes from a machine that is cut off.
    pub async fn goodbye(&self, reason: &str) {
        let open = self.open();
        for connection in &open {
            connection.begin_goodbye(reason);
        }
        let until = tokio::time::Instant::now() + LAST_WAIT;
        for connection in open {
            if tokio::time::timeout_at(until, connection.ended()).await.is_err() {
                connection.abort();
            }
        }
    }

    fn open(&self) -> Vec<Connection> {
        let live = self.live();
        let there = live.values().filter_map(|live| live.connection.upgrade()).filter(|inner| !inner.has_ended());
        there.map(Connection::new).collect()
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Live>> {
        self.inner.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a connection; refuses it when trust has changed since it was judged.
    fn register(&self, connection: &Arc<Inner>, chain: Vec<CertificateDer<'static>>) -> Result<(), Distrust> {
        let number = self.inner.numbers.fetch_add(1, Ordering::Relaxed);
        {
            let mut live = self.live();
            // Now and then, those that have ended are forgotten.
            if number.is_multiple_of(256) {
                live.retain(|_, live| live.connection.strong_count() > 0);
            }
            live.insert(number, Live { connection: Arc::downgrade(connection), chain: chain.clone() });
        }
        // After it was noted: whoever changes the trust from here on finds it there.
        if connection.peer.certificate.is_some() {
            let trust = self.trust();
            trust.judge(&chain, Expected::default(), self.inner.shared.clock.now())?;
        }
        Ok(())
    }
}

/// Errors of `accept` that end with the connection they are of, or when something is given back.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    const ENOBUFS: i32 = 105;
    let of_one = matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::Interrupted);
    let short_of = error.kind() == Kind::OutOfMemory || matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS));
    of_one || short_of
}

/// Who opens a connection.
struct Caller<'a> {
    shared: &'a Arc<Shared>,
    cluster: &'a Name,
    judge: Arc<Judge>,
    own: Option<Arc<CertifiedKey>>,
}

type Called = (Arc<Inner>, TlsStream<TcpStream>, bytes::BytesMut, Vec<CertificateDer<'static>>);

impl Caller<'_> {
    async fn call(self, address: SocketAddr, purpose: Purpose) -> Result<Called, ConnectError> {
        let within = self.shared.timing.hello;
        let called = tokio::time::timeout(within, self.call_without_end(address, purpose)).await;
        called.unwrap_or(Err(ConnectError::Timeout { address }))
    }

    async fn call_without_end(self, address: SocketAddr, purpose: Purpose) -> Result<Called, ConnectError> {
        let unreachable = |error: io::Error| ConnectError::Unreachable { address, reason: error.to_string() };
        let socket = TcpStream::connect(address).await.map_err(unreachable)?;
        settle(&socket).map_err(unreachable)?;
        let connector = TlsConnector::from(client_config(self.own, Arc::clone(&self.judge)));
        let connected = connector.connect(server_name(), socket).await;
        let certificate = match self.judge.take_verdict() {
            Some(Ok(certificate)) => certificate,
            Some(Err(reason)) => return Err(ConnectError::Distrust { address, reason }),
            None => {
                let reason = connected.err().map_or_else(|| "it shows no certificate".to_owned(), |e| e.to_string());
                return Err(ConnectError::Tls { address, reason });
            }
        };
        let refused = |error: io::Error| ConnectError::Tls { address, reason: error.to_string() };
        let mut stream = TlsStream::from(connected.map_err(refused)?);
        let (chain, binding) = examine(&stream, address)?;
        let node = certificate.identity.node;
        let greeted = say_hello(&mut stream, self.shared, self.cluster, node, purpose).await;
        let greeted = greeted.map_err(|reason| match reason {
            // What the other side thinks of our certificate comes where its answer should.
            Ended::Failed(reason) => ConnectError::Tls { address, reason },
            reason => ConnectError::Hello { address, reason },
        })?;
        let peer = Peer {
            certificate: Some(certificate),
            address,
            purpose: greeted.purpose,
            binding,
            version: greeted.version,
            capabilities: greeted.capabilities,
        };
        Ok((Inner::new(Arc::clone(self.shared), peer, true), stream, greeted.input, chain))
    }
}

/// The chain that the peer showed, and the keying material that only this connection has.
fn examine(
    stream: &TlsStream<TcpStream>,
    address: SocketAddr,
) -> Result<(Vec<CertificateDer<'static>>, [u8; 32]), ConnectError> {
    let tls = |reason: &str| ConnectError::Tls { address, reason: reason.to_owned() };
    let (_, session) = stream.get_ref();
    // Who offers no protocol at all is not refused by TLS itself.
    if session.alpn_protocol() != Some(ALPN) {
        return Err(tls("it does not speak RNP"));
    }
    let chain = session.peer_certificates().unwrap_or_default();
    let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
    let binding = match stream {
        TlsStream::Client(client) => client.get_ref().1.export_keying_material([0; 32], b"EXPORTER-rads-rnp-1", None),
        TlsStream::Server(server) => server.get_ref().1.export_keying_material([0; 32], b"EXPORTER-rads-rnp-1", None),
    };
    Ok((chain, binding.map_err(|error| tls(&error.to_string()))?))
}

/// Opens a connection as a machine that has no certificate, or one that has run out: to ask for one.
///
/// # Errors
/// As [`Endpoint::connect`].
pub async fn connect_as_stranger(
    address: SocketAddr,
    cluster: &Name,
    belief: Belief,
    clock: Arc<dyn Clock>,
    timing: Timing,
) -> Result<Connection, ConnectError> {
    let expected = Expected { node: None, role: Some(model::NodeRole::Controller) };
    let judge = Judge::new(belief, expected, Arc::clone(&clock));
    let (ids, budget, widths) = (Ids::new(), Budget::new(0), Arc::new(Budget::new(0)));
    let shared = Arc::new(Shared { node: NOBODY, service: Arc::new(Nothing), ids, budget, widths, clock, timing });
    let caller = Caller { shared: &shared, cluster, judge, own: None };
    let (inner, stream, input, _) = caller.call(address, Purpose::Control).await?;
    tokio::spawn(run(Arc::clone(&inner), stream, input));
    Ok(Connection::new(inner))
}

/// Does nothing for anybody.
struct Nothing;

impl Nothing {
    fn fault() -> Fault {
        Fault::new(ErrorCode::Unauthorized, "nothing is served here")
    }
}

impl Service for Nothing {
    fn answer(&self, _: &Arc<Peer>, _: Message) -> Answer {
        Box::pin(std::future::ready(Err(Self::fault())))
    }

    fn stream(&self, _: &Arc<Peer>, _: &str, _: Bytes, _: Stream) -> Result<(), Fault> {
        Err(Self::fault())
    }
}
