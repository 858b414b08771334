//! A connection to a star, driven by whoever uses it.
//!
//! The HTTP library splits a connection into a handle and a future that moves its bytes, usually run by a task of its
//! own. Here the task of the client's connection polls that future itself: while it waits for the answer, and while it
//! passes the body on. A request then crosses no task and wakes no other thread, and a slow client stops the reading
//! from the star all by itself. A connection at rest is polled by nobody; whether the star closed it meanwhile is found
//! out when it is taken.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::Connection;
use crate::lane::{Lane, Ticket};

/// Bytes of one answer's head, and of a body chunk read at once.
const BUFFER_MAX: usize = 64 << 10;
/// A star may answer before it has read the whole request; this long it is then given to read the rest, so that the
/// connection can be used again.
const SETTLE_FOR: Duration = Duration::from_secs(5);

pub(crate) struct Upstream {
    sender: SendRequest<Question>,
    /// `None` once it has ended. It must go then: a request it never took comes back only when it is dropped.
    connection: Option<Driver>,
}

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("ended", &self.has_ended()).finish_non_exhaustive()
    }
}

impl Upstream {
    pub(crate) async fn new(connection: Connection) -> io::Result<Self> {
        match connection {
            Connection::Near(stream) => {
                // Without it the kernel holds small writes back for up to 40 ms.
                stream.set_nodelay(true)?;
                Self::over(stream).await
            }
            Connection::Far(stream) => Self::over(stream).await,
        }
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> io::Result<Self> {
        let mut builder = Builder::new();
        builder.max_buf_size(BUFFER_MAX);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        Ok(Self { sender, connection: Some(Box::pin(connection.with_upgrades())) })
    }

    /// Whether a connection at rest can take a request: looks for an end or stray bytes the star sent meanwhile.
    pub(crate) fn is_usable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.has_ended() && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of the answer. A request that comes back with the error was never begun.
    pub(crate) async fn send(
        &mut self,
        request: Request<Question>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Question>>> {
        let answer = self.sender.try_send_request(request);
        tokio::pin!(answer);
        poll_fn(|cx| {
            // First: it writes the request, and reads what the answer then finds.
            self.drive(cx);
            answer.as_mut().poll(cx)
        })
        .await
    }

    /// Runs the connection to its end: what an upgrade needs to get its bytes.
    pub(crate) async fn run(mut self: Box<Self>) {
        poll_fn(|cx| {
            self.drive(cx);
            if self.has_ended() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        // An error reaches the request it concerns; here only the end matters.
        if self.connection.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
            self.connection = None;
        }
    }

    fn has_ended(&self) -> bool {
        self.connection.is_none()
    }

    /// Gives the connection back to its lane, at once or when the star has read the request to its end.
    fn rest(mut self: Box<Self>, lane: Arc<Lane>, cx: &mut Context<'_>) {
        self.drive(cx);
        if self.has_ended() {
            return;
        }
        if self.sender.is_ready() {
            lane.put_idle(self);
            return;
        }
        tokio::spawn(async move {
            let settled = poll_fn(|cx| {
                self.drive(cx);
                if self.has_ended() {
                    Poll::Ready(false)
                } else {
                    self.sender.poll_ready(cx).map(|ready| ready.is_ok())
                }
            });
            if let Ok(true) = tokio::time::timeout(SETTLE_FOR, settled).await {
                lane.put_idle(self);
            }
        });
    }
}

/// The body of a request to a star: the client's as it comes, or none.
pub(crate) struct Question(Option<Incoming>);

impl Question {
    pub(crate) const NONE: Self = Self(None);

    pub(crate) fn new(body: Incoming) -> Self {
        if body.is_end_stream() { Self::NONE } else { Self(Some(body)) }
    }
}

impl Body for Question {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// The body of an answer to a client.
pub(crate) enum Answer {
    /// The proxy's own words.
    Own(Full<Bytes>),
    /// A star's, as it comes.
    Star(StarBody),
    /// Nothing: the head of an upgrade.
    Empty,
}

/// A star's body, with what it takes to move it. The request counts as in flight until the last byte is passed on.
pub(crate) struct StarBody {
    body: Incoming,
    upstream: Option<Box<Upstream>>,
    ticket: Option<Ticket>,
}

impl StarBody {
    pub(crate) fn new(body: Incoming, upstream: Box<Upstream>, ticket: Ticket) -> Self {
        Self { body, upstream: Some(upstream), ticket: Some(ticket) }
    }

    /// Ends it early when there is nothing to pass on, so that an empty answer costs no further poll.
    pub(crate) fn settled(mut self, cx: &mut Context<'_>) -> Self {
        if self.body.is_end_stream() {
            self.finish(cx);
        }
        self
    }

    fn finish(&mut self, cx: &mut Context<'_>) {
        let ticket = self.ticket.take();
        if let (Some(upstream), Some(ticket)) = (self.upstream.take(), &ticket) {
            upstream.rest(Arc::clone(&ticket.lane), cx);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = match self.get_mut() {
            Self::Own(own) => return Pin::new(own).poll_frame(cx).map_err(|never| match never {}),
            Self::Empty => return Poll::Ready(None),
            Self::Star(star) => star,
        };
        if let Some(upstream) = &mut this.upstream {
            upstream.drive(cx);
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(_)) if !this.body.is_end_stream() => {}
            Some(Ok(_)) | None => this.finish(cx),
            Some(Err(_)) => {
                if let Some(ticket) = &mut this.ticket {
                    ticket.fail();
                }
                this.upstream = None;
                this.ticket = None;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(own) => own.is_end_stream(),
            Self::Empty => true,
            Self::Star(star) => star.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(own) => own.size_hint(),
            Self::Empty => SizeHint::with_exact(0),
            Self::Star(star) => star.body.size_hint(),
        }
    }
}

/// Ends both directions; for a peer that is owed nothing more.
pub(crate) fn hang_up(stream: TcpStream) {
    if let Ok(stream) = stream.into_std() {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
