//! One way in: accepts connections for a service, bounds them, and ends gracefully.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use model::{ListenAddr, Problem, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::Dial;
use crate::forward::Way;
use crate::head::Client;
use crate::patience::Patience;
use crate::{port, upstream};

/// What a listener allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Connections at a time; a descriptor and some 10 KiB each, twice when they reach a star.
    connections: usize,
    /// Connections beyond those that are told so; beyond both they are just closed.
    refusals: usize,
    /// A client has this long to send the head of a request, counted from the end of the one before: it also ends
    /// connections that are kept alive for nothing.
    head_for: Duration,
    /// A client that has connected when a listener ends has this long to begin its first request: the kernel told it that it
    /// was let in before anybody here knew of it.
    begin_for: Duration,
}

pub(crate) const BOUNDS: Bounds = Bounds {
    connections: 10_000,
    refusals: 256,
    head_for: Duration::from_secs(60),
    // Long beside the way there and back, also of a busy machine; short for who waits for the end.
    begin_for: Duration::from_millis(250),
};

/// Largest head of a request. Cookies of 8 KiB and long tokens fit; a flood of headers does not.
const HEAD_MAX: usize = 64 << 10;
/// Requests and TCP connections in flight when a listener ends have this long to finish. Upgraded connections are not
/// ended here: they belong to their star by now, and end with it.
const FINISH_FOR: Duration = Duration::from_secs(30);
/// Pause after a failed accept: there are no descriptors left, and some must close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Listener {
    /// What was asked for; the port may be 0.
    pub(crate) asked: ListenAddr,
    pub(crate) address: SocketAddr,
    tcp: Arc<AtomicBool>,
    closing: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    /// Ends when nobody accepts or answers requests any more.
    answering: mpsc::Receiver<Answering>,
}

/// Held by whoever may still answer a request; nothing is ever sent.
#[derive(Debug)]
enum Answering {}

impl Listener {
    pub(crate) fn start<D: Dial>(
        asked: ListenAddr,
        protocol: Protocol,
        bounds: Bounds,
        way: Arc<Way<D>>,
    ) -> Result<Self, Problem> {
        let wanted = SocketAddr::new(asked.ip, asked.port);
        let socket = port::bind(wanted)?;
        let address = socket.local_addr().unwrap_or(wanted);
        let tcp = Arc::new(AtomicBool::new(protocol == Protocol::Tcp));
        let (closing, closed) = watch::channel(false);
        let (answers, answering) = mpsc::channel(1);
        let door = Door {
            tcp: Arc::clone(&tcp),
            bounds,
            way,
            closing: closed,
            answers,
            served: Arc::default(),
            refused: Arc::default(),
        };
        let accepting = tokio::spawn(door.accept(socket));
        Ok(Self { asked, address, tcp, closing, accepting, answering })
    }

    /// What connections accepted from now on speak.
    pub(crate) fn speak(&self, protocol: Protocol) {
        self.tcp.store(protocol == Protocol::Tcp, SeqCst);
    }

    /// Accepts no more and lets what is in flight finish.
    pub(crate) fn end(self) -> Ended {
        // Nobody listening means that the task has ended already.
        let _ = self.closing.send(true);
        Ended { accepting: Some(self.accepting), answering: self.answering }
    }
}

/// A listener on its way out.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Holds the port until it ends. Taken by who waits for that.
    pub(crate) accepting: Option<JoinHandle<()>>,
    answering: mpsc::Receiver<Answering>,
}

impl Ended {
    pub(crate) fn is_answered(&self) -> bool {
        self.answering.is_closed()
    }

    /// Waits until every request that came in is answered. TCP connections and those of other protocols are not waited
    /// for: there is no telling when they are done.
    pub(crate) async fn answered(mut self) {
        self.answering.recv().await;
    }
}

/// What the task that accepts has.
struct Door<D> {
    tcp: Arc<AtomicBool>,
    bounds: Bounds,
    way: Arc<Way<D>>,
    closing: watch::Receiver<bool>,
    answers: mpsc::Sender<Answering>,
    served: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl<D: Dial> Door<D> {
    async fn accept(mut self, socket: TcpListener) {
        loop {
            let accepted = tokio::select! {
                biased;
                _ = self.closing.changed() => break,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((client, from)) => self.let_in(client, from),
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
        // The kernel has let these in; closing would reset them.
        let Ok(socket) = socket.into_std() else { return };
        for _ in 0..port::BACKLOG {
            let (client, from) = match socket.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // It has given up.
                Err(_) => continue,
            };
            if client.set_nonblocking(true).is_ok()
                && let Ok(client) = TcpStream::from_std(client)
            {
                self.let_in(client, from);
            }
        }
    }

    fn let_in(&self, client: TcpStream, from: SocketAddr) {
        let http = !self.tcp.load(SeqCst);
        if let Some(place) = Place::take(&self.served, self.bounds.connections) {
            let (way, closing) = (Arc::clone(&self.way), self.closing.clone());
            if http {
                let (answers, bounds) = (self.answers.clone(), self.bounds);
                tokio::spawn(async move {
                    serve(client, from, bounds, way, closing).await;
                    drop((place, answers));
                });
            } else {
                tokio::spawn(async move {
                    join(client, way, closing).await;
                    drop(place);
                });
            }
        } else if let Some(place) = http.then(|| Place::take(&self.refused, self.bounds.refusals)).flatten() {
            tokio::spawn(async move {
                turn_away(client).await;
                drop(place);
            });
        }
    }
}

async fn serve<D: Dial>(
    client: TcpStream,
    from: SocketAddr,
    Bounds { head_for, begin_for, .. }: Bounds,
    way: Arc<Way<D>>,
    mut closing: watch::Receiver<bool>,
) {
    if client.set_nodelay(true).is_err() {
        return;
    }
    let who = Client::new(from.ip());
    let patience = Patience::new();
    let begun = watch::Sender::new(false);
    let service = service_fn(|request| {
        let (way, who) = (&way, &who);
        begun.send_if_modified(|begun| !std::mem::replace(begun, true));
        async move { Ok::<_, std::convert::Infallible>(way.forward(request, who).await) }
    });
    let connection = http1::Builder::new()
        .timer(patience.clone())
        .header_read_timeout(head_for)
        .max_header_size(HEAD_MAX)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(client), service)
        .with_upgrades();
    tokio::pin!(connection);
    // Errors are the client's: it has been answered, or is gone.
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = patience.lost(head_for) => return,
        _ = closing.wait_for(|closing| *closing) => {}
    }
    let mut begins = begun.subscribe();
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        _ = timeout(begin_for, begins.wait_for(|begun| *begun)) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(FINISH_FOR, connection).await;
}

async fn join<D: Dial>(client: TcpStream, way: Arc<Way<D>>, mut closing: watch::Receiver<bool>) {
    let joined = way.join(client);
    tokio::pin!(joined);
    tokio::select! {
        () = joined.as_mut() => return,
        _ = closing.wait_for(|closing| *closing) => {}
    }
    let _ = timeout(FINISH_FOR, joined).await;
}

/// Says that there are too many connections, without reading the request first.
async fn turn_away(mut client: TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
        content-type: text/plain; charset=utf-8\r\ncontent-length: 21\r\n\r\ntoo many connections\n";
    let told = async {
        client.write_all(ANSWER).await?;
        client.shutdown().await?;
        // Closing with unread bytes would reset the connection and take the answer with it.
        let mut unread = [0; 4096];
        while client.read(&mut unread).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = timeout(Duration::from_secs(1), told).await;
    upstream::hang_up(client);
}

/// One of a bounded number of places, given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let claim = |now| if now < most { Some(now + 1) } else { None };
        taken.fetch_update(SeqCst, SeqCst, claim).ok().map(|_| Self(Arc::clone(taken)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    use model::{Endpoint, NodeId, ServiceKey};

    use crate::route::Route;
    use crate::{Connection, DialError};

    struct Nowhere;

    impl Dial for Nowhere {
        fn is_near(&self, _: NodeId) -> bool {
            true
        }

        async fn dial(&self, _: Endpoint) -> Result<Connection, DialError> {
            Err(io::Error::from(io::ErrorKind::ConnectionRefused).into())
        }
    }

    fn listener(bounds: Bounds) -> Listener {
        let service: ServiceKey = "web".parse().unwrap();
        let way = Way { service, route: Arc::<Route>::default(), dial: Arc::new(Nowhere) };
        Listener::start(ListenAddr::loopback(0), Protocol::Http, bounds, Arc::new(way)).unwrap()
    }

    /// All that comes until the other side closes.
    async fn rest_of(mut stream: TcpStream) -> String {
        let mut text = String::new();
        let read = timeout(Duration::from_secs(20), stream.read_to_string(&mut text)).await;
        read.expect("the connection ends").unwrap();
        text
    }

    #[tokio::test]
    async fn a_connection_too_many_is_told_so_and_the_next_is_served_again() {
        let listener = listener(Bounds { connections: 1, ..BOUNDS });
        let connect = || TcpStream::connect(listener.address);
        let mut first = connect().await.unwrap();
        // Answered, so it has been accepted and holds the only place.
        first.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(first.read(&mut [0; 512]).await.unwrap() > 0);
        let answer = rest_of(connect().await.unwrap()).await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1\r\n"), "{answer}");
        let length = answer.split_once("\r\n\r\n").map(|(_, body)| body.len());
        assert!(answer.contains(&format!("content-length: {}\r\n", length.unwrap())), "{answer}");
        drop(first);
        loop {
            let mut next = connect().await.unwrap();
            next.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
            if rest_of(next).await.contains("no star of `web` is ready") {
                break;
            }
        }
    }

    #[tokio::test]
    async fn who_has_connected_when_a_listener_ends_may_begin_one_request() {
        let begins_within = async |begin_for| {
            let listener = listener(Bounds { begin_for, ..BOUNDS });
            let early = TcpStream::connect(listener.address).await.unwrap();
            // Answered, so the one before it has been accepted.
            let mut next = TcpStream::connect(listener.address).await.unwrap();
            next.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            assert!(next.read(&mut [0; 512]).await.unwrap() > 0);
            listener.end().accepting.unwrap().await.unwrap();
            assert_eq!(rest_of(next).await, "", "a connection at rest is closed");
            early
        };
        let mut early = begins_within(Duration::from_secs(20)).await;
        early.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(rest_of(early).await.contains("no star of `web` is ready"));
        let silent = begins_within(Duration::from_millis(1)).await;
        assert_eq!(rest_of(silent).await, "");
    }

    #[tokio::test]
    async fn a_client_that_never_finishes_its_head_is_cut_off() {
        let listener = listener(Bounds { head_for: Duration::from_millis(20), ..BOUNDS });
        for head in ["", "GET / HTTP/1.1\r\nhost: a\r\nx-slow"] {
            let mut client = TcpStream::connect(listener.address).await.unwrap();
            client.write_all(head.as_bytes()).await.unwrap();
            assert_eq!(rest_of(client).await, "", "{head:?}");
        }
    }
}
