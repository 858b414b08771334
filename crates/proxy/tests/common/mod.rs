//! Backends that stand for stars, clients that speak raw HTTP, and a deadline for every wait.
#![allow(dead_code, unreachable_pub)] // each test file uses its own part

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::{Balance, Endpoint, EndpointSet, Entry, ListenAddr, Name, NodeId, Protocol, ServiceKey, StarId};
use proxy::{Connection, Dial, DialError, Proxy};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

pub fn web() -> ServiceKey {
    ServiceKey::in_default("web".parse::<Name>().unwrap())
}

pub fn entry(protocol: Protocol) -> Entry {
    Entry { listen: ListenAddr::loopback(0), protocol, balance: Balance::RoundRobin }
}

/// Fails a test that waits for what never comes.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it happens within 20 s")
}

/// Stars by id, each a port on loopback. Those of 1 to 99 are near; the others are far, a hundred to a machine.
#[derive(Debug, Default)]
pub struct Doors {
    ports: Mutex<BTreeMap<StarId, u16>>,
    pub dials: AtomicUsize,
    /// Machines that cannot be reached.
    dead: Mutex<BTreeSet<NodeId>>,
    /// Machines that take what they are sent and say nothing.
    pub silent: Mutex<BTreeSet<NodeId>>,
    /// How often it was asked whether one answers.
    pub asked: AtomicUsize,
    /// Attempts to reach those.
    pub in_vain: AtomicUsize,
}

pub fn node_of(star: u64) -> NodeId {
    NodeId(1 + star / 100)
}

impl Doors {
    pub fn set(&self, star: u64, port: u16) {
        self.ports.lock().unwrap().insert(StarId(star), port);
    }

    /// The machine of a star is there, or not any more.
    pub fn machine_is_dead(&self, star: u64, dead: bool) {
        let mut all = self.dead.lock().unwrap();
        if dead {
            all.insert(node_of(star))
        } else {
            all.remove(&node_of(star))
        };
    }
}

impl Dial for Doors {
    fn is_near(&self, node: NodeId) -> bool {
        node == NodeId::FIRST
    }

    async fn answers(&self, node: NodeId) -> bool {
        self.asked.fetch_add(1, SeqCst);
        if self.silent.lock().unwrap().contains(&node) {
            std::future::pending::<()>().await;
        }
        true
    }

    async fn dial(&self, Endpoint { star, node, .. }: Endpoint) -> Result<Connection, DialError> {
        self.dials.fetch_add(1, SeqCst);
        if self.dead.lock().unwrap().contains(&node) {
            self.in_vain.fetch_add(1, SeqCst);
            return Err(DialError::Machine(io::ErrorKind::HostUnreachable.into()));
        }
        let port = self.ports.lock().unwrap().get(&star).copied();
        let port = port.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        Ok(if self.is_near(node) { Connection::Near(stream) } else { Connection::Far(Box::new(stream)) })
    }
}

pub struct Scene {
    pub doors: Arc<Doors>,
    pub proxy: Arc<Proxy<Doors>>,
    pub address: SocketAddr,
    generation: AtomicU64,
}

impl Scene {
    pub async fn new(protocol: Protocol) -> Self {
        let doors = Arc::new(Doors::default());
        let proxy = Arc::new(Proxy::new(Arc::clone(&doors)));
        let address = proxy.listen(web(), entry(protocol)).await.unwrap();
        Self { doors, proxy, address, generation: AtomicU64::new(0) }
    }

    pub fn publish(&self, stars: &[u64]) {
        self.publish_with(stars, Balance::RoundRobin);
    }

    pub fn publish_with(&self, stars: &[u64], balance: Balance) {
        self.publish_on_trial(stars, &[], balance);
    }

    pub fn publish_on_trial(&self, stars: &[u64], on_trial: &[u64], balance: Balance) {
        let generation = self.generation.fetch_add(1, SeqCst) + 1;
        let endpoints =
            stars.iter().map(|star| Endpoint { star: StarId(*star), node: node_of(*star), port: 80 }).collect();
        let on_trial = on_trial.iter().copied().map(StarId).collect();
        self.proxy.publish(&web(), EndpointSet { generation, endpoints, on_trial }, balance);
    }

    /// Starts a backend and makes it the door of a star.
    pub async fn star(&self, star: u64) -> Backend {
        let backend = Backend::start(format!("{star}")).await;
        self.doors.set(star, backend.port);
        backend
    }

    pub async fn client(&self) -> Client {
        Client::to(self.address).await
    }
}

/// A small HTTP/1.1 server of a few paths:
/// `/` its name, `/head` the request head it saw, `/echo` the body sent, `/hold` answers when released, `/drop` closes
/// without an answer, `/once` answers and closes, `/chunked` a chunked body with a trailer, `/upgrade` echoes bytes.
pub struct Backend {
    pub port: u16,
    pub served: Arc<AtomicUsize>,
    pub holding: Arc<AtomicUsize>,
    pub held: Arc<Notify>,
    pub release: Arc<Notify>,
    gone: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
    connections: Arc<Mutex<Vec<tokio::task::JoinHandle<()>>>>,
}

impl Backend {
    pub async fn start(name: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (served, holding) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (held, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let connections: Arc<Mutex<Vec<tokio::task::JoinHandle<()>>>> = Arc::default();
        let gone = Arc::new(AtomicBool::new(false));
        let shared = (served.clone(), holding.clone(), held.clone(), release.clone());
        let handles = connections.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (name, shared) = (name.clone(), shared.clone());
                let connection = tokio::spawn(async move {
                    let _ = Self::serve(stream, name, shared).await;
                });
                handles.lock().unwrap().push(connection);
            }
        });
        Self { port, served, holding, held, release, gone, task, connections }
    }

    /// Ends as a killed process does: every connection is closed.
    pub fn kill(&self) {
        self.gone.store(true, SeqCst);
        self.task.abort();
        self.close_connections();
    }

    pub fn close_connections(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    async fn serve(
        stream: TcpStream,
        name: String,
        (served, holding, held, release): (Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<Notify>, Arc<Notify>),
    ) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        while let Some(head) = read_head(&mut stream).await? {
            let path = head.lines().next().and_then(|line| line.split(' ').nth(1)).unwrap_or("/").to_owned();
            if path == "/drop" {
                return Ok(());
            }
            let body = if path == "/early" { Vec::new() } else { read_body(&mut stream, &head).await? };
            let answer = match path.as_str() {
                "/head" => head.into_bytes(),
                "/echo" => body,
                "/hold" => {
                    holding.fetch_add(1, SeqCst);
                    held.notify_one();
                    release.notified().await;
                    holding.fetch_sub(1, SeqCst);
                    name.clone().into_bytes()
                }
                "/chunked" => {
                    let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
                        3\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 5\r\n\r\n";
                    stream.get_mut().write_all(text.as_bytes()).await?;
                    served.fetch_add(1, SeqCst);
                    continue;
                }
                "/upgrade" => {
                    let text = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nhi ";
                    stream.get_mut().write_all(text.as_bytes()).await?;
                    let mut bytes = [0; 1024];
                    loop {
                        let count = stream.read(&mut bytes).await?;
                        if count == 0 {
                            return Ok(());
                        }
                        stream.get_mut().write_all(&bytes[..count]).await?;
                    }
                }
                "/cut" => {
                    stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await?;
                    return Ok(());
                }
                _ => name.clone().into_bytes(),
            };
            let close = if path == "/once" { "connection: close\r\n" } else { "" };
            let length = answer.len();
            let mut message = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n{close}\r\n").into_bytes();
            if !message.is_empty() && !path.starts_with("/nobody") {
                message.extend(answer);
            }
            served.fetch_add(1, SeqCst);
            stream.get_mut().write_all(&message).await?;
            if path == "/once" {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// A message head up to and with its empty line; `None` at the end of the connection.
pub async fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if stream.read_line(&mut head).await? == 0 {
            return if head.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        if &head[before..] == "\r\n" {
            return Ok(Some(head));
        }
    }
}

pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
}

pub async fn read_body(stream: &mut BufReader<TcpStream>, head: &str) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if field(head, "transfer-encoding") == Some("chunked") {
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            let start = body.len();
            body.resize(start + size, 0);
            if size == 0 {
                // The trailer section, if any, up to the empty line.
                loop {
                    let mut line = String::new();
                    stream.read_line(&mut line).await?;
                    if line == "\r\n" || line.is_empty() {
                        return Ok(body);
                    }
                    body.extend_from_slice(format!("[{}]", line.trim()).as_bytes());
                }
            }
            stream.read_exact(&mut body[start..]).await?;
            let mut end = [0; 2];
            stream.read_exact(&mut end).await?;
        }
    }
    let length = field(head, "content-length").map_or(0, |length| length.parse().unwrap());
    body.resize(length, 0);
    stream.read_exact(&mut body).await?;
    Ok(body)
}

pub struct Client(pub BufReader<TcpStream>);

impl Client {
    pub async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    pub async fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).await.unwrap();
    }

    /// The status and body of the next answer.
    pub async fn receive(&mut self) -> io::Result<(u16, String, Vec<u8>)> {
        let head = soon(read_head(&mut self.0)).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        let body = if status == 101 { Vec::new() } else { soon(read_body(&mut self.0, &head)).await? };
        Ok((status, head, body))
    }

    pub async fn get(&mut self, path: &str) -> (u16, String) {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: web\r\n\r\n")).await;
        let (status, _, body) = self.receive().await.unwrap();
        (status, String::from_utf8(body).unwrap())
    }

    /// Whether the proxy ends the connection without another byte.
    pub async fn ends(&mut self) -> bool {
        let mut rest = Vec::new();
        soon(self.0.read_to_end(&mut rest)).await.map_or(true, |_| rest.is_empty())
    }
}
