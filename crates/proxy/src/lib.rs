//! The data plane: accepts HTTP and TCP, asks the balancer, reaches a star through its door.
//!
//! A listener accepts connections for a service; each HTTP request (or TCP connection) is given a star of the set
//! published last, on a connection that is kept for the next. Which stars there are, when one is drained and for how
//! long is decided elsewhere; how a connection into a star's network is made is the [`Dial`]'s. Nothing here waits for
//! the agent: with the control side gone, the last set published stays in use.

#![forbid(unsafe_code)]

use std::io;

use model::StarId;
use tokio::net::TcpStream;

mod forward;
mod head;
mod lane;
mod listener;
mod patience;
mod port;
mod proxy;
mod route;
mod tcp;
mod tunnel;
mod upstream;

pub use lane::StarTraffic;
pub use proxy::Proxy;

/// Makes connections into stars. The agent does it with sockets from inside the star's network namespace.
pub trait Dial: Send + Sync + 'static {
    /// A connection to `port` of the star. An error sends the request to another star.
    fn dial(&self, star: StarId, port: u16) -> impl Future<Output = io::Result<TcpStream>> + Send;
}
