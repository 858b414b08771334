//! What is said of who may come in and who is believed: tokens, authorities, certificates.

use std::time::Duration;

use model::{Name, NodeId, NodeRole, Serial, WallTime};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Machines to be invited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Invite {
    /// What who joins becomes.
    pub role: NodeRole,
    /// How many may join.
    pub uses: u32,
    /// For how long, in milliseconds; an hour at most.
    pub life_ms: u64,
}

impl Invite {
    pub fn life(&self) -> Duration {
        Duration::from_millis(self.life_ms)
    }
}

/// A token that admits machines, or did. What is kept of it does not let anybody in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// What stands for it: the first digits of its hash.
    pub id: String,
    pub role: NodeRole,
    /// How many machines may join by it, and how many have.
    pub uses_max: u32,
    pub uses: u32,
    pub expires: WallTime,
}

/// Who is believed, by what, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificatesView {
    /// How long a new certificate is good.
    pub lifetime_days: u16,
    /// The one that issues first. More than one while they change.
    pub authorities: Vec<AuthorityView>,
    /// The numbers of the keys that gossip is sealed with, the one that seals first: more than one while they change, none as
    /// long as it is the one that the constellation began with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gossip: Vec<u32>,
    pub nodes: Vec<CertificateView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuthorityView {
    /// The first digits of its certificate's hash.
    pub id: String,
    pub issues: bool,
    pub not_after: WallTime,
    /// Nodes that would be strangers without it.
    pub needed_by: Vec<Name>,
    /// Its certificate, as PEM: what other programs are to believe.
    pub certificate: String,
}

/// The newest certificate of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateView {
    pub node: NodeId,
    pub name: Name,
    pub role: NodeRole,
    pub serial: Serial,
    pub not_after: WallTime,
    /// The id of the authority that issued it.
    pub authority: String,
    /// The node is shut out.
    pub revoked: bool,
}
