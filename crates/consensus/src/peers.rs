//! What a voter needs of the network: a request to a node, and its answer.

use std::future::Future;

use model::NodeId;

/// How urgent a request is, and how large it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Votes and signs of life: a few hundred bytes that must not wait behind anything.
    Control,
    /// Entries of the log, up to a mebibyte a request. Requests to one node must arrive in the order in which
    /// [`Peers::request`] was called; the answers may come in any. Another order costs time, never entries.
    Log,
    /// Pieces of snapshots, up to [`crate::Config::piece_bytes`] and a little: may wait behind everything.
    Bulk,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerError {
    /// The node cannot be reached now; it is left alone for a moment.
    Unreachable(String),
    /// This request failed; the next may not.
    Failed(String),
}

/// The way to the other voters. Whoever is asked gives the bytes to [`crate::Consensus::handle`] and sends back what that
/// answers. The receiver must know who asked: the node's certificate says it.
pub trait Peers: Clone + Send + Sync + 'static {
    /// The request is on its way, or at least has its place, when this returns; the future is the answer. A future that is
    /// dropped ends the wait; a limit of time is the caller's.
    fn request(
        &self,
        to: NodeId,
        lane: Lane,
        request: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, PeerError>> + Send + 'static + use<Self>;
}
