//! What is said of machines that are a constellation together: how one begins, who is of it, and how one leaves.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use model::{Duty, Name, NodeId, NodeRole, Reserve, WallTime};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

pub use node::roster::{Health, MachineView, OwnPlace};

/// Where nodes speak to each other when nobody says otherwise: TCP for requests, UDP for membership.
pub const PORT: u16 = 7946;

/// What a machine says of itself when it becomes a node. The agent adds what it finds: memory, processors, version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Introduction {
    /// What it is called, unlike every other node.
    pub name: Name,
    /// Where it listens for the others.
    #[schema(value_type = String)]
    pub listen: SocketAddr,
    /// Where the others reach it, `host:port`.
    pub advertise: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<Name>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What is kept for the machine itself.
    #[serde(default, skip_serializing_if = "Reserve::is_nothing")]
    pub reserved: Reserve,
    /// Where it listens for users with a grant, over HTTPS; nowhere when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub api: Option<SocketAddr>,
    /// As a controller it tells machines of its network that look for the constellation where it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discoverable: bool,
}

/// A constellation to be founded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Init {
    pub cluster: Name,
    pub me: Introduction,
    /// How long certificates of nodes are good, in days; 7 when nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_days: Option<u16>,
}

/// A constellation to be joined.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Join {
    /// A controller of it, `host:port`; when it is left out, those are asked for that are on this network and discoverable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    pub token: String,
    pub me: Introduction,
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is for the one who shows it.
        f.debug_struct("Join").field("address", &self.address).field("me", &self.me).finish_non_exhaustive()
    }
}

/// What a machine becomes. The agent that answered so begins anew at once, under the same process id.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Became {
    pub cluster: Name,
    pub node: NodeId,
    pub name: Name,
    pub role: NodeRole,
    /// Of the first node: what another one joins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Invitation>,
}

/// A token that admits machines.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Invitation {
    pub token: String,
    /// What who joins with it becomes.
    pub role: NodeRole,
    pub uses: u32,
    pub expires: WallTime,
}

/// A machine of the constellation, and its part in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    #[serde(flatten)]
    pub machine: MachineView,
    /// The one that leads.
    pub leads: bool,
    /// Of those that agree on the log.
    pub votes: bool,
    /// The one that answers.
    pub answers: bool,
}

impl NodeView {
    /// Whether it has not left.
    pub fn is_of_it(&self) -> bool {
        self.machine.health != Health::Left
    }
}

/// How one node reaches the others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Survey {
    /// Where the one that answers listens for the others, TCP and UDP; nothing when it is in no constellation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub listen: Option<SocketAddr>,
    /// Every other node that did not leave.
    pub nodes: Vec<Neighbour>,
}

/// What came of trying to reach a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Neighbour {
    pub node: NodeId,
    pub name: Name,
    pub address: String,
    /// Why its port took no connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_connected: Option<String>,
    /// Why it did not answer a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_answered: Option<String>,
    /// From the request to its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_us: Option<u64>,
    /// How far its clock is ahead of that of the one that asked; half the round trip may be wrong about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ahead_ms: Option<i64>,
    /// It answered a datagram, as membership sends them, to the same port.
    pub datagrams: bool,
}

/// Whether a node gets stars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetDuty {
    pub duty: Duty,
}

/// How a node is taken out, by another or itself.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Removal {
    /// Even though it is there, or volumes lie there: they are given up.
    #[serde(default)]
    pub force: bool,
}
