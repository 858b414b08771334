//! What goes back to a client: a response whose body is bytes in memory or a span of an open file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

pub(crate) type Reply = Response<Payload>;

pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The body of a reply; its length is always known, so every reply carries `Content-Length`.
pub(crate) enum Payload {
    Bytes(Bytes),
    /// Read piece by piece while it is sent: a large file costs one piece of memory. The reads are synchronous; they
    /// are answered from the page cache or one short disk access, and a thread pool would cost each star more memory
    /// than it saves time.
    File(FileSpan),
}

pub(crate) struct FileSpan {
    pub(crate) file: File,
    pub(crate) offset: u64,
    pub(crate) remaining: u64,
}

/// Four pages of a usual socket buffer: large enough that the system calls do not count, small enough for a 1 MiB star.
const PIECE: u64 = 64 * 1024;

pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Payload::Bytes(text.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, TEXT);
    reply
}

/// The plain page for a status that the server itself decides, such as `404 Not Found`.
pub(crate) fn status(status: StatusCode) -> Reply {
    text(status, format!("{} {}\n", status.as_u16(), status.canonical_reason().unwrap_or("error").to_lowercase()))
}

pub(crate) fn status_with(code: StatusCode, name: HeaderName, value: &str) -> Reply {
    let mut reply = status(code);
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
    reply
}

pub(crate) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Payload::Bytes(Bytes::new()));
    *reply.status_mut() = status;
    reply
}

impl Payload {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Payload::Bytes(bytes) => bytes.len() as u64,
            Payload::File(span) => span.remaining,
        }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        Poll::Ready(match this {
            _ if this.len() == 0 => None,
            Payload::Bytes(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Payload::File(span) => Some(span.next().map(Frame::data)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}

impl FileSpan {
    fn next(&mut self) -> io::Result<Bytes> {
        let mut piece = vec![0; self.remaining.min(PIECE) as usize];
        let read = self.file.read_at(&mut piece, self.offset)?;
        if read == 0 {
            // The promised length cannot be kept: the connection is cut so that the client notices.
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file shrank while it was sent"));
        }
        piece.truncate(read);
        self.offset += read as u64;
        self.remaining -= read as u64;
        Ok(Bytes::from(piece))
    }
}
