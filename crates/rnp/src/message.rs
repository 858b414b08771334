//! Every message of the protocol: its name, its data, whether it may be asked twice, and how urgent it is.
//!
//! A released message is never changed, only joined by new fields with defaults and by new messages. What consensus says is
//! carried as bytes that only consensus reads; its crate has the layout.

use bytes::Bytes;
use model::NodeId;
use serde::{Deserialize, Serialize};

pub use crate::fault::Fault as Error;
use crate::version::Version;

/// What goes first on a connection. Within a class the order is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Votes and heartbeats, the life of the connection: what a cluster stands on.
    Vital,
    /// Questions and changes.
    Control,
}

/// Whether asking twice is asking once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// The same however often it is asked, or told apart by a key of its own.
    Harmless,
    /// Asked once; whoever asks decides what no answer means.
    Never,
}

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident = $type:literal, $priority:ident, $repeat:ident;)*) => {
        /// One message.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Message {
            $($(#[$doc])* $name($name),)*
        }

        /// The type of a message.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As it is on the wire: `area.verb`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $type,)*
                }
            }

            pub fn of(name: &str) -> Option<Self> {
                match name {
                    $($type => Some(Self::$name),)*
                    _ => None,
                }
            }

            pub const fn priority(self) -> Priority {
                match self {
                    $(Self::$name => Priority::$priority,)*
                }
            }

            /// Whether it may be asked again when no answer came: see `retry`.
            pub const fn may_repeat(self) -> bool {
                match self {
                    $(Self::$name => matches!(Repeat::$repeat, Repeat::Harmless),)*
                }
            }
        }

        impl Message {
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$name(_) => Kind::$name,)*
                }
            }

            pub(crate) fn encode_data(&self) -> Vec<u8> {
                let encoded = match self {
                    $(Self::$name(data) => rmp_serde::to_vec_named(data),)*
                };
                encoded.expect("plain data with text keys has a MessagePack form")
            }

            pub(crate) fn decode_data(kind: Kind, bytes: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
                Ok(match kind {
                    $(Kind::$name => Self::$name(rmp_serde::from_slice(bytes)?),)*
                })
            }
        }

        $(impl From<$name> for Message {
            fn from(data: $name) -> Self {
                Self::$name(data)
            }
        })*
    };
}

messages! {
    /// The first message on a connection, from the side that opened it.
    Hello = "hello", Vital, Never;
    /// The answer: both know each other from here on.
    HelloAck = "hello_ack", Vital, Never;
    /// The sender takes no more requests; those under way are answered, then it closes.
    Goodbye = "goodbye", Vital, Never;
    /// Nothing more comes.
    GoodbyeAck = "goodbye_ack", Vital, Never;
    Ping = "ping", Vital, Harmless;
    Pong = "pong", Vital, Harmless;
    /// Something was not done. An answer when it carries an id that was asked.
    Error = "error", Vital, Never;
    /// Two nodes tell each other everyone they know of.
    GossipSync = "gossip.sync", Control, Harmless;
    /// A machine without a certificate asks to become a node.
    JoinRequest = "join.request", Control, Never;
    JoinAccepted = "join.accepted", Control, Never;
    /// A node asks for a new certificate before the old one runs out.
    CertificateRenew = "certificate.renew", Control, Harmless;
    CertificateRenewed = "certificate.renewed", Control, Harmless;
    /// A node whose certificate ran out while it was off asks for a new one, on a connection without a certificate.
    CertificateRecover = "certificate.recover", Control, Harmless;
    RaftVote = "raft.vote", Vital, Harmless;
    RaftAppend = "raft.append", Vital, Harmless;
    RaftSnapshot = "raft.snapshot", Control, Harmless;
    RaftTransfer = "raft.transfer", Vital, Harmless;
    /// The answer to any of the four before.
    RaftAnswer = "raft.answer", Vital, Harmless;
    /// A change for the leader to write.
    StatePropose = "state.propose", Control, Harmless;
    StateProposed = "state.proposed", Control, Harmless;
    /// Up to where must a state have come so that looking at it shows everything acknowledged by now?
    StateReadIndex = "state.read_index", Control, Harmless;
    StateReadAt = "state.read_at", Control, Harmless;
    /// A node tells the leader that it is there and at work.
    NodeReport = "node.report", Control, Harmless;
    NodeReported = "node.reported", Control, Harmless;
    /// Opens a stream; pieces may follow when it is accepted.
    StreamOpen = "stream.open", Control, Never;
    StreamAccepted = "stream.accepted", Control, Never;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version: Version,
    /// `envelope::NOBODY` for a machine that is to join.
    pub node: NodeId,
    pub cluster: String,
    /// What this connection is for; a side that does not know the word takes it for `peer`.
    pub purpose: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAck {
    /// What both speak from here on.
    pub version: Version,
    pub node: NodeId,
    /// What this node can beyond what its version says.
    #[serde(default)]
    pub capabilities: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    #[serde(default)]
    pub reason: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoodbyeAck {}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {}

/// Question and answer alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipSync {
    /// In the layout of `membership`.
    pub members: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    pub token: String,
    /// A PKCS #10 request, DER. Only its key and its signature count.
    pub csr: Bytes,
    pub name: String,
    /// Where other nodes reach it, `host:port`.
    pub address: String,
    /// The program's version.
    pub program: String,
    /// What its clock says, in Unix milliseconds: one that is far off could not use its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAccepted {
    pub node: NodeId,
    pub cluster: String,
    pub role: String,
    /// DER, the node's own first.
    pub certificates: Vec<Bytes>,
    /// Authorities to trust, DER.
    pub authorities: Vec<Bytes>,
    /// Keys that datagrams are sealed with, the one to seal with first: of each its number (4 bytes, big-endian), then 32 bytes.
    pub keys: Vec<Bytes>,
    pub peers: Vec<Peer>,
    /// What opens the sealed parts of the state, keys as above one after the other: for controllers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsealing: Option<Bytes>,
}

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub node: NodeId,
    pub name: String,
    pub address: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRenew {
    pub csr: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRenewed {
    pub certificates: Vec<Bytes>,
    pub authorities: Vec<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecover {
    /// The old certificate, and what leads from it to its authority; DER.
    pub certificates: Vec<Bytes>,
    pub csr: Bytes,
    /// By the old key, over the request and the connection: see `net::identity::renewal`.
    pub signature: Bytes,
}

macro_rules! of_consensus {
    ($($name:ident)*) => {
        $(#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            /// In the layout of `consensus`.
            pub body: Bytes,
        })*
    };
}

of_consensus! { RaftVote RaftAppend RaftSnapshot RaftTransfer RaftAnswer }

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatePropose {
    /// In the layout of the log.
    pub command: Bytes,
    /// A change that carries the key of one already written is not written again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateProposed {
    pub index: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReadIndex {}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReadAt {
    pub index: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Stars that run on it.
    pub stars: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReported {
    /// How long ago a majority was last known to follow who answers, in milliseconds.
    pub age_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOpen {
    pub stream: u32,
    /// Bytes of data that the opener takes before it gives more credit.
    pub window: u32,
    /// Who at the other side it is for.
    pub service: String,
    /// What that service is told, in its own layout.
    #[serde(default)]
    pub body: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamAccepted {
    pub window: u32,
}
