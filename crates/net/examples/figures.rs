//! RNP beside raw TLS 1.3 and raw TCP, in one run on loopback: round trips, messages in a second, bulk.
//!
//! `cargo run --release -p net --example figures`. Sides take turns (A B A B), so that what else the machine does falls on
//! both alike. Lines are `name value unit`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{NodeId, NodeIdentity, NodeRole};
use net::connection::Answer;
use net::identity::request::CheckedRequest;
use net::identity::{Authority, Expected, Lifetime, NodeKey, Revoked, Trust};
use net::tls::{Belief, Clock, Judge, SystemClock, client_config, server_config, server_name};
use net::{Config, Connection, Endpoint, Limits, Peer, Purpose, Service, Stream, Timing};
use rnp::message::{Ping, RaftAnswer, RaftVote};
use rnp::{ErrorCode, Fault, Message};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_secs(60);
const ROUNDS: usize = 5;
const PINGS: usize = 4_000;
const CALLS: usize = 40_000;
/// As many votes as a connection serves at once, less some.
const TASKS: usize = 48;
const BULK: usize = 1 << 30;

struct Echo;

impl Service for Echo {
    fn answer(&self, _: &Arc<Peer>, message: Message) -> Answer {
        let answer = match message {
            Message::RaftVote(RaftVote { body }) => Ok(RaftAnswer { body }.into()),
            _ => Err(Fault::new(ErrorCode::NotFound, "not here")),
        };
        Box::pin(std::future::ready(answer))
    }

    /// Takes everything in, then says one byte.
    fn stream(&self, _: &Arc<Peer>, _: &str, _: Bytes, stream: Stream) -> Result<(), Fault> {
        tokio::spawn(async move {
            while let Ok(Some(_)) = stream.read().await {}
            let _ = stream.write(Bytes::from_static(b"!")).await;
            stream.finish();
        });
        Ok(())
    }
}

struct Cluster {
    authority: Authority,
    clock: Arc<dyn Clock>,
}

impl Cluster {
    fn own(&self, node: u64) -> Arc<CertifiedKey> {
        let key = NodeKey::generate().expect("a key");
        let request = CheckedRequest::read(&key.request().expect("a request")).expect("our own request");
        let identity =
            NodeIdentity { cluster: self.authority.cluster().clone(), role: NodeRole::Controller, node: NodeId(node) };
        let issued = self.authority.issue(&request, &identity, Lifetime::DEFAULT, self.clock.now());
        key.certified(issued.expect("a certificate").chain).expect("its own certificate")
    }

    fn trust(&self) -> Trust {
        let authorities = vec![self.authority.certificate().clone()];
        Trust::new(self.authority.cluster().clone(), authorities, Revoked::default()).expect("an authority")
    }

    fn endpoint(&self, node: u64) -> Endpoint {
        Endpoint::new(Config {
            node: NodeId(node),
            certificate: self.own(node),
            trust: self.trust(),
            service: Arc::new(Echo),
            clock: Arc::clone(&self.clock),
            timing: Timing::DEFAULT,
            limits: Limits::default(),
        })
    }

    fn judge(&self) -> Arc<Judge> {
        Judge::new(Belief::Trust(Arc::new(self.trust())), Expected::default(), Arc::clone(&self.clock))
    }

    /// A peer of raw TLS: echoes 64 bytes after a `p`, takes in bulk after a `b`.
    async fn raw(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let config = server_config(self.own(3), self.judge());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).expect("TCP_NODELAY");
                let config = Arc::clone(&config);
                tokio::spawn(async move {
                    let mut stream = tokio_rustls::TlsAcceptor::from(config).accept(socket).await?;
                    serve_raw(&mut stream).await
                });
            }
        });
        address
    }

    async fn call_raw(&self, address: SocketAddr) -> impl AsyncRead + AsyncWrite + Unpin + use<> {
        let socket = TcpStream::connect(address).await.expect("the peer");
        socket.set_nodelay(true).expect("TCP_NODELAY");
        let connector = tokio_rustls::TlsConnector::from(client_config(Some(self.own(4)), self.judge()));
        connector.connect(server_name(), socket).await.expect("TLS")
    }
}

async fn serve_raw(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<()> {
    let mut message = [0; 64];
    let mut sink = vec![0; 64 << 10];
    loop {
        match stream.read_u8().await? {
            b'p' => {
                stream.read_exact(&mut message[1..]).await?;
                stream.write_all(&message).await?;
            }
            _ => {
                let mut left = BULK;
                while left > 0 {
                    left -= stream.read(&mut sink).await?;
                }
                stream.write_all(b"!").await?;
            }
        }
        stream.flush().await?;
    }
}

async fn ping_raw(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Vec<Duration> {
    let mut times = Vec::with_capacity(PINGS);
    let mut message = [b'p'; 64];
    for _ in 0..PINGS {
        let begun = Instant::now();
        message[0] = b'p';
        stream.write_all(&message).await.expect("written");
        stream.flush().await.expect("written");
        stream.read_exact(&mut message).await.expect("echoed");
        times.push(begun.elapsed());
    }
    times
}

async fn bulk_raw(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> f64 {
    let piece = vec![7; 64 << 10];
    let begun = Instant::now();
    stream.write_all(b"b").await.expect("written");
    for _ in 0..BULK / piece.len() {
        stream.write_all(&piece).await.expect("written");
    }
    stream.flush().await.expect("written");
    stream.read_u8().await.expect("an end");
    BULK as f64 / begun.elapsed().as_secs_f64()
}

async fn ping_rnp(connection: &Connection) -> Vec<Duration> {
    let mut times = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let begun = Instant::now();
        connection.request(Ping {}, SOON).await.expect("a pong");
        times.push(begun.elapsed());
    }
    times
}

async fn bulk_rnp(connection: &Connection) -> f64 {
    let piece = Bytes::from(vec![7; 64 << 10]);
    let begun = Instant::now();
    let stream = connection.open("sink", Bytes::new(), 1 << 20, SOON).await.expect("a stream");
    for _ in 0..BULK / piece.len() {
        stream.write(piece.clone()).await.expect("written");
    }
    stream.finish();
    while stream.read().await.expect("an end").is_some() {}
    BULK as f64 / begun.elapsed().as_secs_f64()
}

/// Questions with their answers in a second, asked by [`TASKS`] tasks over one connection.
async fn calls_rnp(connection: &Connection) -> f64 {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let connection = connection.clone();
            tokio::spawn(async move {
                for _ in 0..CALLS / TASKS {
                    let vote = RaftVote { body: Bytes::from_static(&[7; 64]) };
                    connection.request(vote, SOON).await.expect("an answer");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    CALLS as f64 / begun.elapsed().as_secs_f64()
}

fn percentile(times: &mut [Duration], part: f64) -> f64 {
    times.sort();
    times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn measure(label: &str) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let authority = Authority::create(&"bench".parse().expect("a name"), clock.now()).expect("an authority");
    let cluster = Cluster { authority, clock };
    let (a, b) = (cluster.endpoint(1), cluster.endpoint(2));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { b.serve(&listener).await });
    let connection = a.connect(address, Expected::default(), Purpose::Control).await.expect("a connection");
    let data = a.connect(address, Expected::default(), Purpose::Data).await.expect("a connection");
    let raw = cluster.raw().await;
    let mut raw = cluster.call_raw(raw).await;
    let (mut tls, mut rnp) = (Vec::new(), Vec::new());
    let (mut tls_bulk, mut rnp_bulk, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    ping_rnp(&connection).await;
    ping_raw(&mut raw).await;
    for _ in 0..ROUNDS {
        tls.extend(ping_raw(&mut raw).await);
        rnp.extend(ping_rnp(&connection).await);
        calls.push(calls_rnp(&connection).await);
        tls_bulk.push(bulk_raw(&mut raw).await);
        rnp_bulk.push(bulk_rnp(&data).await);
    }
    let (tls_p50, rnp_p50) = (percentile(&mut tls, 0.5), percentile(&mut rnp, 0.5));
    println!("{label}/tls_ping_p50 {tls_p50:.1} us");
    println!("{label}/rnp_ping_p50 {rnp_p50:.1} us");
    println!("{label}/rnp_ping_p50_to_tls {:.2} ratio", rnp_p50 / tls_p50);
    println!("{label}/tls_ping_p99 {:.1} us", percentile(&mut tls, 0.99));
    println!("{label}/rnp_ping_p99 {:.1} us", percentile(&mut rnp, 0.99));
    let calls = median(calls);
    println!("{label}/rnp_calls {calls:.0} calls/s");
    println!("{label}/rnp_messages {:.0} msg/s", 2.0 * calls);
    println!("{label}/tls_bulk {:.2} GB/s", median(tls_bulk) / 1e9);
    println!("{label}/rnp_bulk {:.2} GB/s", median(rnp_bulk) / 1e9);
}

fn main() {
    let one = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    one.block_on(measure("one_thread"));
    let two = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    two.block_on(async { tokio::spawn(measure("two_threads")).await.expect("no panic") });
}
