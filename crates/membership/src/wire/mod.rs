//! Bytes between members. The first byte is the version: its upper half the major one, by which the layout is chosen, its lower half
//! the minor one. A newer minor version may add kinds of items, which are skipped, and fields at the end of items, which are ignored.
//!
//! Datagrams are sealed and blobs travel inside TLS, both by `net`: who has no key of the cluster never gets here. Who has one may
//! still be broken, so nothing is allocated from a declared length and every list has a bound.

#[cfg(test)]
mod tests;
mod v1;

use std::net::SocketAddr;

use model::NodeId;

use crate::member::{Member, Metadata, Status};

pub(crate) use v1::{BlobWriter, DatagramWriter};

/// Longest datagram: it fits one Ethernet frame after sealing, in a tunnel too.
pub const DATAGRAM_MAX_BYTES: usize = 1_200;
/// Longest push/pull blob: it fits a control frame of RNP (1 MiB) with its envelope.
pub const BLOB_MAX_BYTES: usize = 1_000_000;
/// Most accusers that are told of one suspicion: more would not end it sooner.
pub(crate) const ACCUSERS_MAX: usize = 4;
/// Incarnations from here on are refused: a member whose own had reached the end could not contradict any more.
pub(crate) const INCARNATION_END: u64 = 1 << 48;
/// Most buckets of a digest.
pub(crate) const BUCKETS_MAX: usize = 1_024;

/// The bytes are not what a member of this version sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Datagram<'a> {
    pub(crate) from: NodeId,
    pub(crate) incarnation: u64,
    pub(crate) to: NodeId,
    pub(crate) message: Option<Message>,
    pub(crate) news: Vec<News<'a>>,
}

/// What a datagram asks or answers; without one it only tells news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    /// Answer this.
    Ping { nonce: u32 },
    /// The answer.
    Ack { nonce: u32 },
    /// Ping `target` for me.
    AskPing { nonce: u32, target: NodeId },
    /// I have your `AskPing`: the link between us is well.
    Heard { nonce: u32 },
    /// `target` has answered me.
    Relayed { nonce: u32, target: NodeId, incarnation: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News<'a> {
    Rumour(Rumour),
    Record(Record<'a>),
}

/// A claim about a member's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rumour {
    pub(crate) id: NodeId,
    pub(crate) incarnation: u64,
    pub(crate) status: Status,
    /// Who got no answer, for a suspicion or a death; at most `ACCUSERS_MAX`.
    pub(crate) by: Vec<NodeId>,
}

/// A claim with a description, which introduces a member to who does not know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) rumour: Rumour,
    /// The incarnation in which the member last described itself anew.
    pub(crate) described: u64,
    /// How long ago the member died or left, in seconds.
    pub(crate) age_s: u32,
    /// Encoded; checked by [`Description::decode`] when it is wanted.
    pub(crate) description: &'a [u8],
}

/// Name, address and metadata as they travel; checked, and taken apart again when asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    bytes: Box<[u8]>,
    pub(crate) hash: u64,
    pub(crate) addr: SocketAddr,
    /// A hash of the name, which is looked for often.
    pub(crate) name_hash: u64,
}

impl Description {
    pub(crate) fn of(member: &Member) -> Self {
        let bytes = v1::encode_description(member).into_boxed_slice();
        let name_hash = hash(member.name.as_str().as_bytes());
        Self { hash: hash(&bytes), bytes, addr: member.addr, name_hash }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (name, addr, _) = v1::decode_description(bytes)?;
        Ok(Self { hash: hash(bytes), bytes: bytes.into(), addr, name_hash: hash(name.as_str().as_bytes()) })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The member whose description this is.
    pub(crate) fn member(&self, id: NodeId, incarnation: u64) -> Member {
        let (name, addr, metadata) =
            v1::decode_description(&self.bytes).expect("checked when it was made, and not changed since");
        Member { id, name, addr, incarnation, metadata }
    }
}

pub(crate) fn metadata_bytes(metadata: &Metadata) -> Vec<u8> {
    v1::encode_metadata(metadata)
}

pub(crate) fn decode_datagram(bytes: &[u8]) -> Result<Datagram<'_>, Malformed> {
    match bytes.first() {
        Some(version) if version >> 4 == v1::MAJOR && bytes.len() <= DATAGRAM_MAX_BYTES => v1::decode_datagram(bytes),
        _ => Err(Malformed),
    }
}

/// What one side of a comparison of tables tells the other.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Blob<'a> {
    pub(crate) from: NodeId,
    pub(crate) kind: BlobKind,
    pub(crate) records: Vec<Record<'a>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BlobKind {
    /// "My table hashes to these buckets": answered by an `Answer`. A power of two of them.
    Ask { buckets: Vec<u64> },
    /// "These buckets differ, and this is what I have in them."
    Answer { differing: Vec<bool>, more: bool },
    /// "And this is what I have that you lack": answered by nothing.
    Push,
}

pub(crate) fn decode_blob(bytes: &[u8]) -> Result<Blob<'_>, Malformed> {
    match bytes.first() {
        Some(version) if version >> 4 == v1::MAJOR && bytes.len() <= BLOB_MAX_BYTES => v1::decode_blob(bytes),
        _ => Err(Malformed),
    }
}

/// FNV-1a (Fowler, Noll and Vo), finished so that all bits count. It spreads, and does not protect: who can choose names and ids
/// already holds a key of the cluster.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let folded = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    crate::rng::mix(folded)
}
