//! The agent's end of the conversation with its nursery. Never blocks: the caller waits on the descriptor.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
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

    /// Whether the nursery was executed from the same file as this process. A file that was replaced meanwhile is another.
    pub fn is_of_this_program(&self) -> io::Result<bool> {
        let pid = rustix::net::sockopt::socket_peercred(&self.socket)?.pid;
        let file = |path: &str| fs::metadata(path).map(|file| (file.dev(), file.ino()));
        Ok(file(&format!("/proc/{}/exe", pid.as_raw_nonzero()))? == file("/proc/self/exe")?)
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
