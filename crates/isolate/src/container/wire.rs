//! Words between a container in the making and its creator, one a packet. Both sides wait for each other.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::packet;

pub(super) fn send<T: Serialize>(link: BorrowedFd<'_>, word: &T) -> io::Result<()> {
    loop {
        match packet::send(link, word, &[]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(link, PollFlags::OUT)?,
            other => return other,
        }
    }
}

/// Waits for the other side's word. `UnexpectedEof` when it is gone.
pub(super) fn receive<T: DeserializeOwned>(link: BorrowedFd<'_>) -> io::Result<T> {
    loop {
        wait(link, PollFlags::IN)?;
        match packet::receive(link) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other.map(|(word, _)| word),
        }
    }
}

fn wait(link: BorrowedFd<'_>, what: PollFlags) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::from_borrowed_fd(link, what)], None) {
            Err(Errno::INTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}
