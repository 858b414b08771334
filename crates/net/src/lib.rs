//! Who is who, and what they say: identity, TLS, RNP connections, sealed datagrams.
//!
//! - [`identity`]: the authority, certificates, tokens, whom to believe. No input or output.
//! - [`tls`]: TLS 1.3 judged by that.
//! - [`endpoint`]: a node's side of all its connections; [`connection`]: one; [`pool`]: which one to use, and again;
//!   [`threads`]: who carries it.
//! - [`https`]: the same TLS for HTTP, where nodes and users meet.
//! - [`datagram`]: sealed UDP packets for membership.

#![forbid(unsafe_code)]

pub mod connection;
pub mod datagram;
pub mod endpoint;
pub mod https;
pub mod identity;
pub mod pool;
pub mod threads;
pub mod tls;

pub use connection::{Connection, Peer, Purpose, Service, Stream, StreamIo, Timing};
pub use datagram::Datagrams;
pub use endpoint::{Config, ConnectError, Endpoint, Limits, Received, connect_as_stranger};
pub use pool::Pool;
pub use threads::Threads;
