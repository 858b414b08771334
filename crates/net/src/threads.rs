//! Which threads carry which connections.

use std::io;
use std::os::fd::AsFd;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_rustls::TlsStream;

use crate::connection::Purpose;

/// The runtimes that a node's connections live on: votes and heartbeats wait for no payload, and for no stranger's handshake.
#[derive(Debug, Clone)]
pub struct Threads {
    /// Of all but [`Purpose::Data`].
    pub control: Handle,
    /// Of [`Purpose::Data`], and of who calls until it is known who that is and what for.
    pub data: Handle,
}

impl Threads {
    /// All of them on the runtime that this is called on.
    ///
    /// # Panics
    /// Outside of one.
    pub fn here() -> Self {
        Self { control: Handle::current(), data: Handle::current() }
    }

    pub(crate) fn of(&self, purpose: Purpose) -> &Handle {
        match purpose {
            Purpose::Control | Purpose::Peer | Purpose::Log => &self.control,
            Purpose::Data => &self.data,
        }
    }
}

/// Lets a connection's socket wake its runtime from now on, not the one that it was opened or accepted on.
pub(crate) fn move_to(home: &Handle, stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    let _within = home.enter();
    let socket = stream.get_mut().0;
    let same = socket.as_fd().try_clone_to_owned()?;
    *socket = TcpStream::from_std(same.into())?;
    Ok(())
}
