//! One accepted connection: HTTP/1.1 by hyper, our bounds around it, requests handed to the site one after another.
//!
//! hyper answers what it cannot parse (400, 431). Here are the answers it leaves to the server: 408 for a request that
//! does not arrive in time, 413 for a body over the bound, and the goodbye in both cases: what the client still sends
//! is read for a moment, else the kernel would reset the connection and the client never see the answer.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::reply::{self, Reply};
use super::{App, Bounds, Found, Site};

/// A connection that was just accepted may have its first request on the way when the server stops: it gets this long.
const FRESH_GRACE: Duration = Duration::from_millis(200);
/// How long and how much is read from a client that was refused, so that it sees why.
const GOODBYE: Duration = Duration::from_secs(1);
const GOODBYE_BYTES: usize = 4 * 1024 * 1024;

type Answer = Pin<Box<dyn Future<Output = Result<Reply, Infallible>>>>;

/// Serves `stream` until the client closes, a bound is hit, or `stopping` turns true and the request in flight is done.
pub(crate) async fn serve<A: App>(
    site: Rc<Site<A::Target>>,
    app: A,
    stream: TcpStream,
    mut stopping: watch::Receiver<bool>,
) {
    let progress = Rc::new(Progress::default());
    let seen = Rc::clone(&progress);
    let bounds = site.bounds;
    let service = service_fn(move |request: Request<Incoming>| -> Answer {
        let (site, app, progress) = (Rc::clone(&site), app.clone(), Rc::clone(&seen));
        progress.began.set(true);
        Box::pin(async move { Ok(respond(&site, &app, request, &progress).await) })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_read)
        .max_header_size(bounds.header_bytes)
        .max_buf_size(bounds.header_bytes)
        .half_close(true) // a client may end its side first, as `nc` does, and still wants its answer
        .serve_connection(TokioIo::new(stream), service);

    let outcome = {
        let began = &progress.began;
        let mut stop = pin!(async move {
            let asked = stopping.wait_for(|stopping| *stopping).await.is_ok();
            if asked && !began.get() {
                sleep(FRESH_GRACE).await;
            }
        });
        let mut stopped = false;
        poll_fn(|context| {
            // The connection first: a request that is already here is begun, and so survives the stop.
            let outcome = connection.poll_without_shutdown(context);
            if outcome.is_ready() || stopped || stop.as_mut().poll(context).is_pending() {
                return outcome;
            }
            stopped = true;
            Pin::new(&mut connection).graceful_shutdown();
            connection.poll_without_shutdown(context)
        })
        .await
    };

    let parts = connection.into_parts();
    let stream = parts.io.into_inner();
    match outcome {
        Err(error) if error.is_timeout() && !parts.read_buf.is_empty() => {
            // Half a request arrived. An idle keep-alive connection is closed without a word instead.
            refuse(stream, "408 Request Timeout").await;
        }
        // hyper gives the connection up at a faulty chunk, and our answer with it.
        _ if progress.faulty.get() => refuse(stream, "400 Bad Request").await,
        Err(error) if error.is_parse() => say_goodbye(stream).await,
        _ if progress.unread.get() => say_goodbye(stream).await,
        // Whatever else ended it (the client left, an idle time-out), dropping the socket closes it.
        _ => {}
    }
}

/// What the connection must know of its requests.
#[derive(Default)]
struct Progress {
    began: Cell<bool>,
    /// A request was answered before all of its body was read.
    unread: Cell<bool>,
    /// The body was not HTTP: a chunk without a size, say.
    faulty: Cell<bool>,
}

async fn respond<A: App>(
    site: &Rc<Site<A::Target>>,
    app: &A,
    request: Request<Incoming>,
    progress: &Progress,
) -> Reply {
    let (head, body) = request.into_parts();
    let (targets, params) = match site.find(&head) {
        Found::Targets(targets, params) => (targets, params),
        Found::Reply(reply) => {
            // hyper closes the connection by itself if the rest of the body does not arrive at once.
            progress.unread.set(!body.is_end_stream());
            return reply;
        }
    };
    match read_body(body, &site.bounds).await {
        Ok(body) => app.answer(targets, super::Call { head, params, body }).await,
        Err(status) => {
            progress.unread.set(true);
            progress.faulty.set(status == StatusCode::BAD_REQUEST);
            let mut reply = reply::status(status);
            reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            reply
        }
    }
}

async fn read_body(body: Incoming, bounds: &Bounds) -> Result<Bytes, StatusCode> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > bounds.body_bytes as u64 {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    timeout(bounds.body_read, collect(body, bounds.body_bytes)).await.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT))
}

async fn collect(mut body: Incoming, limit: usize) -> Result<Bytes, StatusCode> {
    let mut all = BytesMut::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        // A faulty chunk or a client that left: the answer is for the former.
        let Ok(data) = frame.map_err(|_| StatusCode::BAD_REQUEST)?.into_data() else { continue };
        if all.len() + data.len() > limit {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        if all.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

async fn refuse(mut stream: TcpStream, status: &str) {
    let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    // Failing means that the client is gone.
    let _ = stream.write_all(answer.as_bytes()).await;
    say_goodbye(stream).await;
}

async fn say_goodbye(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let discard = async {
        let mut scrap = [0; 8 * 1024];
        let mut total = 0;
        while total < GOODBYE_BYTES {
            match stream.read(&mut scrap).await {
                Ok(read) if read > 0 => total += read,
                _ => break,
            }
        }
    };
    let _ = timeout(GOODBYE, discard).await;
}
