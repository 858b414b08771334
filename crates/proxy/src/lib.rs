//! The data plane: accepts HTTP and TCP, asks the balancer, reaches a star through its door.
//!
//! A listener accepts connections for a service; each HTTP request (or TCP connection) is given a star of the set
//! published last, on a connection that is kept for the next. Which stars there are, when one is drained and for how
//! long is decided elsewhere; how a connection into a star's network is made is the [`Dial`]'s. Nothing here waits for
//! the agent: with the control side gone, the last set published stays in use.

#![forbid(unsafe_code)]

use std::{fmt, io};

use model::{Endpoint, NodeId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

mod forward;
mod head;
mod health;
mod lane;
mod listener;
mod patience;
mod port;
mod proxy;
mod route;
mod tcp;
mod tunnel;
mod upstream;

pub use lane::{PATIENCE, StarTraffic};
pub use proxy::Proxy;

/// Makes connections into stars: on this machine with sockets from inside the star's network namespace, on others through
/// whoever is there.
pub trait Dial: Send + Sync + 'static {
    /// Whether the stars of a node are on this machine.
    fn is_near(&self, node: NodeId) -> bool;

    /// Whether the machine of stars elsewhere answers now. Asked before a request goes over a connection that has said
    /// nothing for a while: a machine that lost its power takes requests without a word.
    fn answers(&self, _node: NodeId) -> impl Future<Output = bool> + Send {
        async { true }
    }

    /// A connection to a star. An error sends the request to another star.
    fn dial(&self, endpoint: Endpoint) -> impl Future<Output = Result<Connection, DialError>> + Send;
}

/// A connection to a star.
pub enum Connection {
    /// Its door on this machine.
    Near(TcpStream),
    /// A stream through another machine. What is written is passed on at once; shutting it down ends one direction.
    Far(Box<dyn FarStream>),
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Near(_) => "Near",
            Self::Far(_) => "Far",
        })
    }
}

/// What a connection through another machine can do.
pub trait FarStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> FarStream for T {}

/// Why there is no connection.
#[derive(Debug)]
pub enum DialError {
    /// This star does not take one. It is left out for a while, when there are others.
    Star(io::Error),
    /// The machine it runs on cannot be reached. All stars there are left out for a while.
    Machine(io::Error),
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        Self::Star(error)
    }
}
