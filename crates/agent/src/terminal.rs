//! A pseudo-terminal of a star: this side is read and written here, the other is a program's and lies in the star.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use api::TerminalSize;
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::ready::{Ready, register};

/// This side. With its last copy the terminal is hung up, and the program's session with it.
#[derive(Debug, Clone)]
pub(crate) struct Terminal(Arc<AsyncFd<Ready<OwnedFd>>>);

impl Terminal {
    /// Waits for the near side, which comes by a socket of `isolate::terminal`.
    pub(crate) async fn arrive(socket: &AsyncFd<Ready<OwnedFd>>, size: TerminalSize) -> io::Result<Self> {
        let near = loop {
            let mut guard = socket.readable().await?;
            if let Ok(taken) = guard.try_io(|socket| isolate::terminal::take(socket.get_ref().0.as_fd())) {
                break taken?;
            }
        };
        rustix::io::ioctl_fionbio(&near, true)?;
        let terminal = Self(Arc::new(register(near)?));
        terminal.resize(size);
        Ok(terminal)
    }

    /// The program is told by SIGWINCH.
    pub(crate) fn resize(&self, size: TerminalSize) {
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        // A size that a terminal does not take is one it does not have.
        let _ = rustix::termios::tcsetwinsize(&self.0.get_ref().0, size);
    }
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let read = guard.try_io(|fd| Ok(rustix::io::read(&fd.get_ref().0, buffer.initialize_unfilled())?));
            match read {
                Ok(Ok(length)) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                // So Linux says that nobody has the other side open any more.
                Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(written) = guard.try_io(|fd| Ok(rustix::io::write(&fd.get_ref().0, bytes)?)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
