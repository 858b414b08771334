//! Who a machine is in a constellation, and the record of an invitation to become one of it.
//!
//! How this is proved is `net`'s; who was admitted is the log's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::bundle::ContentHash;
use crate::schema::text_schema;
use crate::{Name, NodeId, WallTime};

/// What a machine may do in its constellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum NodeRole {
    /// May vote, lead and issue certificates; holds the whole state. Also runs stars.
    Controller,
    /// Runs stars and sees what concerns them.
    Worker,
}

impl NodeRole {
    pub const ALL: [Self; 2] = [Self::Controller, Self::Worker];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Worker => "worker",
        }
    }
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The word given is no role of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a role: use `controller` or `worker`", .0.escape_debug())]
pub struct InvalidRole(pub String);

impl FromStr for NodeRole {
    type Err = InvalidRole;
    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| InvalidRole(text.to_owned()))
    }
}

/// A machine as its certificate names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeIdentity {
    pub cluster: Name,
    pub role: NodeRole,
    pub node: NodeId,
}

impl fmt::Display for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {}", self.role, self.node, self.cluster)
    }
}

/// The serial number of a certificate, chosen at random by the authority: 128 bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial(pub u128);

text_schema!(Serial);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a serial number: 32 hexadecimal digits", .0.escape_debug())]
pub struct InvalidSerial(pub String);

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Serial {
    type Err = InvalidSerial;
    fn from_str(text: &str) -> Result<Self, InvalidSerial> {
        let digits = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let value = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        value.map(Self).ok_or_else(|| InvalidSerial(text.to_owned()))
    }
}

impl TryFrom<String> for Serial {
    type Error = InvalidSerial;
    fn try_from(text: String) -> Result<Self, InvalidSerial> {
        text.parse()
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> String {
        serial.to_string()
    }
}

/// What is kept of a join token: its secret's hash, never the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTicket {
    /// BLAKE3 of the token's secret.
    pub hash: ContentHash,
    /// What whoever joins with it becomes.
    pub role: NodeRole,
    /// The first moment at which it is no longer good.
    pub expires: WallTime,
    /// How many machines may join with it.
    pub uses_max: u32,
    /// How many have.
    pub uses: u32,
}

/// Why a token does not admit. Told to whoever keeps the tickets; a stranger hears `Unknown` whatever it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketRefusal {
    #[error("the token is not known here")]
    Unknown,
    #[error("the token has expired")]
    Expired,
    #[error("the token has been used as often as it may be")]
    UsedUp,
    #[error("the token is for another role")]
    WrongRole,
}

impl JoinTicket {
    /// Whether a machine that shows a secret with this hash may become a `role` now.
    ///
    /// # Errors
    /// The first of the reasons above that holds, in their order.
    pub fn admits(&self, hash: ContentHash, role: NodeRole, now: WallTime) -> Result<(), TicketRefusal> {
        if hash != self.hash {
            return Err(TicketRefusal::Unknown);
        }
        if now >= self.expires {
            return Err(TicketRefusal::Expired);
        }
        if self.uses >= self.uses_max {
            return Err(TicketRefusal::UsedUp);
        }
        if role != self.role {
            return Err(TicketRefusal::WrongRole);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> JoinTicket {
        let hash = ContentHash([7; 32]);
        JoinTicket { hash, role: NodeRole::Worker, expires: WallTime(1_000), uses_max: 2, uses: 0 }
    }

    #[test]
    fn a_ticket_admits_its_secret_its_role_its_hour_and_its_number() {
        let (known, other) = (ContentHash([7; 32]), ContentHash([8; 32]));
        let (worker, controller) = (NodeRole::Worker, NodeRole::Controller);
        assert_eq!(ticket().admits(known, worker, WallTime(999)), Ok(()));
        assert_eq!(ticket().admits(other, worker, WallTime(999)), Err(TicketRefusal::Unknown));
        assert_eq!(ticket().admits(known, worker, WallTime(1_000)), Err(TicketRefusal::Expired));
        assert_eq!(ticket().admits(known, controller, WallTime(0)), Err(TicketRefusal::WrongRole));
        let used = JoinTicket { uses: 2, ..ticket() };
        assert_eq!(used.admits(known, worker, WallTime(0)), Err(TicketRefusal::UsedUp));
    }

    #[test]
    fn roles_and_serials_read_back() {
        for role in NodeRole::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!("Controller".parse::<NodeRole>().is_err());
        for value in [0, 1, u128::MAX] {
            assert_eq!(Serial(value).to_string().parse(), Ok(Serial(value)));
        }
        for text in ["", "1", "+0000000000000000000000000000001", "0000000000000000000000000000000G"] {
            assert!(text.parse::<Serial>().is_err(), "{text}");
        }
    }
}
