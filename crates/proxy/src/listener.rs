//! One way in: accepts connections for a service, bounds them, and ends gracefully.

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
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::Dial;
use crate::forward::Way;
use crate::head::Client;
use crate::patience::Patience;
use crate::{port, upstream};

/// Connections of one listener at a time; a descriptor and some 10 KiB each, twice when they reach a star.
const CONNECTIONS_MAX: usize = 10_000;
/// Connections beyond those that are told so; beyond both they are just closed.
const REFUSALS_MAX: usize = 256;
/// A client has this long to send the head of a request, counted from the end of the one before: it also ends
/// connections that are kept alive for nothing.
const HEAD_FOR: Duration = Duration::from_secs(60);
/// Largest head of a request. Cookies of 8 KiB and long tokens fit; a flood of headers does not.
const HEAD_MAX: usize = 64 << 10;
/// Requests in flight when a listener ends have this long to finish.
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
}

impl Listener {
    pub(crate) fn start<D: Dial>(asked: ListenAddr, protocol: Protocol, way: Arc<Way<D>>) -> Result<Self, Problem> {
        let wanted = SocketAddr::new(asked.ip, asked.port);
        let socket = port::bind(wanted)?;
        let address = socket.local_addr().unwrap_or(wanted);
        let tcp = Arc::new(AtomicBool::new(protocol == Protocol::Tcp));
        let (closing, closed) = watch::channel(false);
        let accepting = tokio::spawn(accept(socket, Arc::clone(&tcp), way, closed));
        Ok(Self { asked, address, tcp, closing, accepting })
    }

    /// What connections accepted from now on speak.
    pub(crate) fn speak(&self, protocol: Protocol) {
        self.tcp.store(protocol == Protocol::Tcp, SeqCst);
    }

    /// Accepts no more and lets what is in flight finish. The port is free when the returned task has ended.
    pub(crate) fn end(self) -> JoinHandle<()> {
        // Nobody listening means that the task has ended already.
        let _ = self.closing.send(true);
        self.accepting
    }
}

async fn accept<D: Dial>(
    socket: TcpListener,
    tcp: Arc<AtomicBool>,
    way: Arc<Way<D>>,
    mut closing: watch::Receiver<bool>,
) {
    let served = Arc::new(AtomicUsize::new(0));
    let refused = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = tokio::select! {
            biased;
            _ = closing.changed() => return,
            accepted = socket.accept() => accepted,
        };
        let Ok((client, from)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let http = !tcp.load(SeqCst);
        if let Some(place) = Place::take(&served, CONNECTIONS_MAX) {
            let (way, closing) = (Arc::clone(&way), closing.clone());
            if http {
                tokio::spawn(async move {
                    serve(client, from, way, closing).await;
                    drop(place);
                });
            } else {
                tokio::spawn(async move {
                    way.join(client, from).await;
                    drop(place);
                });
            }
        } else if let Some(place) = http.then(|| Place::take(&refused, REFUSALS_MAX)).flatten() {
            tokio::spawn(async move {
                turn_away(client).await;
                drop(place);
            });
        }
    }
}

async fn serve<D: Dial>(client: TcpStream, from: SocketAddr, way: Arc<Way<D>>, mut closing: watch::Receiver<bool>) {
    if client.set_nodelay(true).is_err() {
        return;
    }
    let who = Client::new(from.ip());
    let patience = Patience::new();
    let service = service_fn(|request| {
        let (way, who) = (&way, &who);
        async move { Ok::<_, std::convert::Infallible>(way.forward(request, who).await) }
    });
    let connection = http1::Builder::new()
        .timer(patience.clone())
        .header_read_timeout(HEAD_FOR)
        .max_header_size(HEAD_MAX)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(client), service)
        .with_upgrades();
    tokio::pin!(connection);
    // Errors are the client's: it has been answered, or is gone.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = patience.lost(HEAD_FOR) => return,
        _ = closing.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(FINISH_FOR, connection).await;
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
