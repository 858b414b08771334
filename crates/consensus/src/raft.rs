//! openraft's types as used here, and their counterparts in bytes.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use model::NodeId;
use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft::vote::leader_id_std;
use openraft::{EntryPayload, Membership, RaftTypeConfig};
use state::Change;

use crate::machine::Machine;
use crate::runtime::Runtime;
use crate::snapshot::Image;
use crate::v1;

openraft::declare_raft_types!(
    pub(crate) Types:
        D = Sealed,
        R = Reply,
        NodeId = u64,
        Node = (),
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = Runtime,
);

pub(crate) type Raft = openraft::Raft<Types, Machine>;
pub(crate) type LogId = LogIdOf<Types>;
pub(crate) type Vote = VoteOf<Types>;
pub(crate) type Entry = <Types as RaftTypeConfig>::Entry;
pub(crate) type Members = Membership<u64, ()>;
pub(crate) type StoredMembers = StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = SnapshotMetaOf<Types>;
pub(crate) type Snapshot = SnapshotOf<Types, Image>;

/// A command as it is written and sent. Clones share the bytes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Sealed(pub Bytes);

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What applying an entry gave, for whoever proposed it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub changes: Vec<Change>,
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: leader_id_std::CommittedLeaderId::new(term), index }
}

impl From<LogId> for v1::LogId {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

impl From<v1::LogId> for LogId {
    fn from(id: v1::LogId) -> Self {
        log_id(id.term, id.index)
    }
}

impl From<&Vote> for v1::Vote {
    fn from(vote: &Vote) -> Self {
        Self { term: vote.leader_id.term, node: NodeId(vote.leader_id.voted_for), committed: vote.committed }
    }
}

impl From<v1::Vote> for Vote {
    fn from(vote: v1::Vote) -> Self {
        match vote.committed {
            true => Self::new_committed(vote.term, vote.node.0),
            false => Self::new(vote.term, vote.node.0),
        }
    }
}

impl From<&Members> for v1::Members {
    fn from(members: &Members) -> Self {
        let ids = |set: &std::collections::BTreeSet<u64>| set.iter().map(|id| NodeId(*id)).collect();
        Self {
            configs: members.get_joint_config().iter().map(ids).collect(),
            nodes: members.nodes().map(|(id, ())| NodeId(*id)).collect(),
        }
    }
}

impl TryFrom<v1::Members> for Members {
    type Error = String;

    fn try_from(members: v1::Members) -> Result<Self, String> {
        let nodes: BTreeMap<u64, ()> = members.nodes.iter().map(|id| (id.0, ())).collect();
        if members.configs.is_empty() && nodes.is_empty() {
            return Ok(Self::default());
        }
        let configs = members.configs.iter().map(|ids| ids.iter().map(|id| id.0).collect()).collect();
        Self::new(configs, nodes).map_err(|error| error.to_string())
    }
}

impl From<&Entry> for v1::Entry {
    fn from(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => v1::Payload::Blank,
            EntryPayload::Normal(command) => v1::Payload::Command(command.0.clone()),
            EntryPayload::Membership(members) => v1::Payload::Members(members.into()),
        };
        Self { term: entry.log_id.leader_id.term, index: entry.log_id.index, payload }
    }
}

impl v1::Entry {
    pub(crate) fn into_raft(self) -> Result<Entry, String> {
        let payload = match self.payload {
            v1::Payload::Blank => EntryPayload::Blank,
            v1::Payload::Command(bytes) => EntryPayload::Normal(Sealed(bytes)),
            v1::Payload::Members(members) => EntryPayload::Membership(members.try_into()?),
        };
        Ok(Entry { log_id: log_id(self.term, self.index), payload })
    }
}

/// What an entry takes in memory and on the wire, near enough to bound both.
pub(crate) fn size_of(entry: &Entry) -> u64 {
    const AROUND: u64 = 64;
    AROUND
        + match &entry.payload {
            EntryPayload::Blank => 0,
            EntryPayload::Normal(command) => command.0.len() as u64,
            EntryPayload::Membership(members) => 32 * members.nodes().count() as u64,
        }
}
