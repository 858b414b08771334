//! What the protocol between nodes costs, beside raw TLS 1.3 in the same run (target 6): round trips, messages, bulk.
//!
//! Two endpoints of `net` over loopback, each with a thread and a runtime of its own as two nodes have, and a raw connection with the
//! same certificates between the same two threads. Sides take turns (A B A B), so that what else the machine does falls on both alike.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{NodeId, NodeIdentity, NodeRole};
use net::connection::Answer;
use net::identity::request::CheckedRequest;
use net::identity::{Authority, Expected, Lifetime, NodeKey, Revoked, Trust};
use net::tls::{Belief, Clock, Judge, SystemClock, client_config, server_config, server_name};
use net::{Config, Connection, Endpoint, Limits, Peer, Purpose, Service, Stream, Threads, Timing};
use rnp::message::{Ping, RaftAnswer, RaftVote};
use rnp::{ErrorCode, Fault, Message};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use crate::report::{Report, Samples, Target};
use crate::{Bench, Depth};

const SOON: Duration = Duration::from_secs(60);
const PINGS: usize = 2_000;
const CALLS: usize = 40_000;
/// Who ask at once: as many votes as a connection serves at once, less some.
const ASKING: usize = 48;
const BULK: usize = 256 << 20;
/// Bytes of one write of bulk, and of one piece of a stream.
const PIECE: usize = 64 << 10;
/// What the receiver of a stream may be sent ahead: twice what is on its way between two threads.
const WINDOW: u32 = 1 << 20;

type Failed = Box<dyn std::error::Error + Send + Sync>;

pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), String> {
    all(bench, report).map_err(|error| error.to_string())
}

fn all(bench: &Bench, report: &mut Report) -> Result<(), Failed> {
    let rounds = if bench.depth == Depth::Quick { 3 } else { 10 };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let authority = Authority::create(&"bench".parse()?, clock.now())?;
    let cluster = Cluster { authority, clock };
    let (here, there) = (one_thread()?, one_thread()?);
    let served = || async { Ok::<_, Failed>((cluster.serve().await?, cluster.serve_raw().await?)) };
    let far = there.block_on(served())?;
    // What it serves runs for as long as the thread does.
    std::thread::spawn(move || there.block_on(std::future::pending::<()>()));
    here.block_on(cluster.measure(far, rounds))?.tell(report)?;
    // Both sides on this thread: no core is woken, and what is left is what the protocol costs.
    let near = here.block_on(served())?;
    here.block_on(cluster.measure(near, rounds))?.tell_near(report)
}

fn one_thread() -> Result<Runtime, Failed> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

#[derive(Default)]
struct Measured {
    tls: Vec<f64>,
    rnp: Vec<f64>,
    calls: Vec<f64>,
    tls_bulk: Vec<f64>,
    rnp_bulk: Vec<f64>,
}

impl Measured {
    fn tell(self, report: &mut Report) -> Result<(), Failed> {
        let (tls, rnp) = (samples(self.tls)?, samples(self.rnp)?);
        let note = format!("64 bytes there and back, two threads on loopback, no disk; {}", tls.spread());
        report.figure("tls_ping", tls.median(), "us", Target::None, &note);
        let note = format!("{:.2}x raw TLS in turns with it; {}", rnp.median() / tls.median(), rnp.spread());
        report.figure("rnp_ping", rnp.median(), "us", Target::AtMost(2.0 * tls.median()), &note);
        let note = format!("of the same; raw TLS {:.0}", tls.quantile(0.99));
        report.figure("rnp_ping_p99", rnp.quantile(0.99), "us", Target::AtMost(1_000.0), &note);
        let calls = samples(self.calls)?;
        let note = format!("{ASKING} ask over one connection, questions and answers of 64 bytes, both counted");
        report.figure("rnp_messages", 2.0 * calls.median(), "1/s", Target::AtLeast(100_000.0), &note);
        let (tls, rnp) = (samples(self.tls_bulk)?, samples(self.rnp_bulk)?);
        let note = format!("one way, one connection, 256 MiB; {}", tls.spread());
        report.figure("tls_bulk", tls.median(), "GB/s", Target::None, &note);
        let note = format!("one stream; {:.2}x raw TLS; {}", rnp.median() / tls.median(), rnp.spread());
        report.figure("rnp_bulk", rnp.median(), "GB/s", Target::AtLeast(1.0), &note);
        Ok(())
    }

    fn tell_near(self, report: &mut Report) -> Result<(), Failed> {
        let (tls, rnp) = (samples(self.tls)?, samples(self.rnp)?);
        let note = format!("both sides on one thread: no core is woken; {}", tls.spread());
        report.figure("tls_ping_one_thread", tls.median(), "us", Target::None, &note);
        let note = format!("{:.2}x raw TLS; {}", rnp.median() / tls.median(), rnp.spread());
        report.figure("rnp_ping_one_thread", rnp.median(), "us", Target::AtMost(2.0 * tls.median()), &note);
        let note = format!("{ASKING} ask over one connection, on one thread with who answers");
        let calls = samples(self.calls)?;
        report.figure("rnp_messages_one_thread", 2.0 * calls.median(), "1/s", Target::AtLeast(100_000.0), &note);
        Ok(())
    }
}

fn samples(values: Vec<f64>) -> Result<Samples, Failed> {
    Samples::new(values).ok_or_else(|| "nothing was measured".into())
}

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
            // The other side finds out when it is gone.
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
    fn own(&self, node: u64) -> Result<Arc<CertifiedKey>, Failed> {
        let key = NodeKey::generate()?;
        let request = CheckedRequest::read(&key.request()?)?;
        let identity =
            NodeIdentity { cluster: self.authority.cluster().clone(), role: NodeRole::Controller, node: NodeId(node) };
        let issued = self.authority.issue(&request, &identity, Lifetime::DEFAULT, self.clock.now())?;
        Ok(key.certified(issued.chain)?)
    }

    fn trust(&self) -> Result<Trust, Failed> {
        let authorities = vec![self.authority.certificate().clone()];
        Ok(Trust::new(self.authority.cluster().clone(), authorities, Revoked::default())?)
    }

    fn endpoint(&self, node: u64) -> Result<Endpoint, Failed> {
        Ok(Endpoint::new(Config {
            node: NodeId(node),
            certificate: self.own(node)?,
            trust: self.trust()?,
            service: Arc::new(Echo),
            clock: Arc::clone(&self.clock),
            timing: Timing::DEFAULT,
            limits: Limits::default(),
            threads: Threads::here(),
        }))
    }

    fn judge(&self) -> Result<Arc<Judge>, Failed> {
        Ok(Judge::new(Belief::Trust(Arc::new(self.trust()?)), Expected::default(), Arc::clone(&self.clock)))
    }

    async fn serve(&self) -> Result<SocketAddr, Failed> {
        let endpoint = self.endpoint(2)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move { endpoint.serve(&listener).await });
        Ok(address)
    }

    /// A peer of raw TLS: echoes 64 bytes after a `p`, takes in bulk after a `b`.
    async fn serve_raw(&self) -> Result<SocketAddr, Failed> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let config = server_config(self.own(3)?, self.judge()?);
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let mut stream = tokio_rustls::TlsAcceptor::from(config).accept(socket).await?;
            answer_raw(&mut stream).await
        });
        Ok(address)
    }

    async fn call_raw(&self, address: SocketAddr) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<>, Failed> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let connector = tokio_rustls::TlsConnector::from(client_config(Some(self.own(4)?), self.judge()?));
        Ok(connector.connect(server_name(), socket).await?)
    }

    async fn measure(&self, (address, raw): (SocketAddr, SocketAddr), rounds: usize) -> Result<Measured, Failed> {
        let endpoint = self.endpoint(1)?;
        let control = endpoint.connect(address, Expected::default(), Purpose::Control).await?;
        let data = endpoint.connect(address, Expected::default(), Purpose::Data).await?;
        let mut raw = self.call_raw(raw).await?;
        // The first of each is not counted: connections settle.
        ping_raw(&mut raw).await?;
        ping_rnp(&control).await?;
        let mut measured = Measured::default();
        for _ in 0..rounds {
            measured.tls.extend(ping_raw(&mut raw).await?);
            measured.rnp.extend(ping_rnp(&control).await?);
            measured.calls.push(calls_rnp(&control).await?);
            measured.tls_bulk.push(bulk_raw(&mut raw).await?);
            measured.rnp_bulk.push(bulk_rnp(&data).await?);
        }
        Ok(measured)
    }
}

async fn answer_raw(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<()> {
    let mut message = [0; 64];
    let mut sink = vec![0; PIECE];
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

fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

fn gigabytes(since: Instant) -> f64 {
    BULK as f64 / since.elapsed().as_secs_f64() / 1e9
}

async fn ping_raw(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<Vec<f64>, Failed> {
    let mut times = Vec::with_capacity(PINGS);
    let mut message = [b'p'; 64];
    for _ in 0..PINGS {
        let begun = Instant::now();
        message[0] = b'p';
        stream.write_all(&message).await?;
        stream.flush().await?;
        stream.read_exact(&mut message).await?;
        times.push(micros(begun));
    }
    Ok(times)
}

async fn ping_rnp(connection: &Connection) -> Result<Vec<f64>, Failed> {
    let mut times = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let begun = Instant::now();
        connection.request(Ping {}, SOON).await?;
        times.push(micros(begun));
    }
    Ok(times)
}

async fn bulk_raw(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<f64, Failed> {
    let piece = vec![7; PIECE];
    let begun = Instant::now();
    stream.write_all(b"b").await?;
    for _ in 0..BULK / PIECE {
        stream.write_all(&piece).await?;
    }
    stream.flush().await?;
    stream.read_u8().await?;
    Ok(gigabytes(begun))
}

async fn bulk_rnp(connection: &Connection) -> Result<f64, Failed> {
    let piece = Bytes::from(vec![7; PIECE]);
    let begun = Instant::now();
    let stream = connection.open("sink", Bytes::new(), WINDOW, SOON).await?;
    for _ in 0..BULK / PIECE {
        stream.write(piece.clone()).await?;
    }
    stream.finish();
    while stream.read().await?.is_some() {}
    Ok(gigabytes(begun))
}

/// Questions with their answers in a second.
async fn calls_rnp(connection: &Connection) -> Result<f64, Failed> {
    let begun = Instant::now();
    let asking: Vec<_> = (0..ASKING)
        .map(|_| {
            let connection = connection.clone();
            tokio::spawn(async move {
                for _ in 0..CALLS / ASKING {
                    let vote = RaftVote { body: Bytes::from_static(&[7; 64]) };
                    connection.request(vote, SOON).await?;
                }
                Ok::<_, Failed>(())
            })
        })
        .collect();
    for one in asking {
        one.await??;
    }
    Ok((CALLS / ASKING * ASKING) as f64 / begun.elapsed().as_secs_f64())
}
