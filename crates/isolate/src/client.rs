//! The agent's end of the conversation with its nursery. Never blocks: the caller waits on the descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::protocol::{Message, Request};
use crate::{packet, place};

/// A connection to the nursery of one data folder.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
}

impl Client {
    /// Connects. `NotFound` and `ConnectionRefused` mean that no nursery runs there. Say `Hello` first.
    pub fn connect(data_dir: &Path) -> io::Result<Self> {
        Ok(Self { socket: place::connect(data_dir)? })
    }

    /// Sends one request; `WouldBlock` means that nothing was sent and the socket is to be waited for.
    pub fn try_send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        packet::send(self.socket.as_fd(), request, fds)
    }

    /// Takes one message and the descriptors that came with it. `WouldBlock`: none is there yet;
    /// `UnexpectedEof`: the nursery closed the connection (it ended, or this side was too slow to read).
    pub fn try_recv(&self) -> io::Result<(Message, Vec<OwnedFd>)> {
        packet::receive(self.socket.as_fd())
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
