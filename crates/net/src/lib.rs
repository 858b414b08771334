//! Who is who, and what they say: identity, TLS, RNP connections, sealed datagrams.
//!
//! - [`identity`]: the authority, certificates, tokens, whom to believe. No input or output.
//! - [`tls`]: TLS 1.3 judged by that.
//! - [`datagram`]: sealed UDP packets for membership.

#![forbid(unsafe_code)]

pub mod datagram;
pub mod identity;
pub mod tls;
