//! Doors: TCP sockets made inside a star's network namespace, through which the agent alone reaches it.
//!
//! A door that found nobody listening can be tried again (Linux takes a second `connect` on a refused socket), so a
//! star that is starting costs one door however often it is probed.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use model::StarId;
use rustix::io::Errno;
use tokio::net::TcpStream;

use crate::link::Link;
use crate::ready::register;

/// Doors asked for at once when requests arrive: a proxy opens connections in bursts, and one packet carries them all.
const BATCH: u8 = 4;
/// Unused doors kept for a star. Each is a descriptor, and a star's namespace lives as long as one is open.
const STOCK_MAX: usize = 8;

/// The doors of every star of this node.
#[derive(Debug, Clone)]
pub(crate) struct Doors {
    link: Link,
    stock: Arc<Mutex<HashMap<StarId, Vec<OwnedFd>>>>,
}

/// How many doors to ask for when there is none left.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Need {
    /// For a probe: one will do.
    One,
    /// For requests: more will follow.
    Some,
}

impl Doors {
    pub(crate) fn new(link: Link) -> Self {
        Self { link, stock: Arc::default() }
    }

    /// Connects to a port inside a star.
    pub(crate) async fn connect(&self, star: StarId, port: u16, need: Need) -> io::Result<TcpStream> {
        let door = match self.take(star) {
            Some(door) => door,
            None => self.fetch(star, need).await?,
        };
        match connect(door, port).await {
            Ok(door) => {
                let stream = TcpStream::from_std(std::net::TcpStream::from(door))?;
                // Small answers are sent at once; with Nagle's algorithm one in two would wait for 40 ms.
                stream.set_nodelay(true)?;
                Ok(stream)
            }
            Err((door, error)) => {
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    self.put(star, door);
                }
                Err(error)
            }
        }
    }

    /// Makes room for the doors of a star that runs now. Doors of others are not kept: a door that comes back late
    /// must not keep a dead star's namespace.
    pub(crate) fn admit(&self, star: StarId) {
        self.lock().entry(star).or_default();
    }

    /// Closes the unused doors of a star that is no more, and with them its namespace.
    pub(crate) fn forget(&self, star: StarId) {
        self.lock().remove(&star);
    }

    async fn fetch(&self, star: StarId, need: Need) -> io::Result<OwnedFd> {
        let count = match need {
            Need::One => 1,
            Need::Some => BATCH,
        };
        let mut doors = self.link.doors(star, count).await?;
        let door = doors.pop().ok_or_else(|| io::Error::other("the nursery made no door"))?;
        self.put(star, doors);
        Ok(door)
    }

    fn take(&self, star: StarId) -> Option<OwnedFd> {
        self.lock().get_mut(&star)?.pop()
    }

    fn put(&self, star: StarId, doors: impl IntoIterator<Item = OwnedFd>) {
        if let Some(shelf) = self.lock().get_mut(&star) {
            let room = STOCK_MAX.saturating_sub(shelf.len());
            shelf.extend(doors.into_iter().take(room));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<StarId, Vec<OwnedFd>>> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects a non-blocking socket to a loopback port; one that was refused comes back.
async fn connect(mut door: OwnedFd, port: u16) -> Result<OwnedFd, (Option<OwnedFd>, io::Error)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    loop {
        // Asked again, `connect` tells how the attempt ended, and leaves a refused socket fit for another one; reading
        // the socket's error would not.
        match rustix::net::connect(&door, &address) {
            Ok(()) | Err(Errno::ISCONN) => return Ok(door),
            Err(Errno::INPROGRESS | Errno::ALREADY) => {
                // Over loopback the answer is mostly there at once, so few get here. Only now is there something to
                // wait for: a socket that does nothing yet counts as hung up.
                let waiting = register(door).map_err(|error| (None, error))?;
                waiting.writable().await.map_err(|error| (None, error))?.retain_ready();
                door = waiting.into_inner().0;
            }
            Err(error) => return Err((Some(door), error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::net::{AddressFamily, SocketFlags, SocketType};

    use super::*;

    #[tokio::test]
    async fn a_refused_door_can_be_tried_again() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        let mut door = socket;
        for _ in 0..3 {
            let (refused, error) = connect(door, address.port()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            door = refused.unwrap();
        }
        let listener = TcpListener::bind(address).unwrap();
        connect(door, address.port()).await.unwrap();
        listener.accept().unwrap();
    }
}
