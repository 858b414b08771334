//! A stream as the bytes of a socket: what reads and writes like TCP reads and writes it without knowing.
//!
//! Shutting down ends this side's direction alone; what comes from the other side is still read. Dropped before both sides
//! have ended it is let go of as [`Stream`] is: what was written before shutting down is still sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rnp::ErrorCode;
use rnp::stream::PIECE_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::{Stream, StreamEnd};

/// See the head of the module.
#[derive(Debug)]
pub struct StreamIo {
    stream: Stream,
    /// What came and did not fit into the reader's buffer.
    rest: Bytes,
}

impl StreamIo {
    pub fn new(stream: Stream) -> Self {
        Self { stream, rest: Bytes::new() }
    }

    /// The same, where some of what came has been read by somebody who did not want it.
    pub fn with_rest(stream: Stream, rest: Bytes) -> Self {
        Self { stream, rest }
    }

    /// Ends both directions at once; the other side is told `code`.
    pub fn reset(&self, code: ErrorCode) {
        self.stream.reset(code);
    }
}

impl From<StreamEnd> for io::Error {
    fn from(end: StreamEnd) -> Self {
        let kind = match end {
            StreamEnd::Reset(_) | StreamEnd::Overrun => io::ErrorKind::ConnectionReset,
            StreamEnd::Connection => io::ErrorKind::ConnectionAborted,
            StreamEnd::Local => io::ErrorKind::BrokenPipe,
            StreamEnd::Full => io::ErrorKind::OutOfMemory,
        };
        Self::new(kind, end)
    }
}

impl AsyncRead for StreamIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            match ready!(this.stream.poll_read(cx))? {
                Some(bytes) => this.rest = bytes,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = this.rest.len().min(buffer.remaining());
        buffer.put_slice(&this.rest[..count]);
        this.rest.advance(count);
        if this.rest.is_empty() {
            // It may keep a larger buffer alive.
            this.rest = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.stream.poll_room(cx))?;
        let count = bytes.len().min(PIECE_BYTES_MAX);
        self.stream.push(Bytes::copy_from_slice(&bytes[..count]));
        Poll::Ready(Ok(count))
    }

    /// What was written is on its way as soon as the other side takes it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.finish();
        Poll::Ready(Ok(()))
    }
}
