//! What is said of who may use a constellation from outside, and of who did what.

use std::net::IpAddr;

use model::{ContentHash, Name, NodeId, Role, Scope, ServiceKey, StarId, Verb, WallTime};
use serde::{Deserialize, Serialize};
use state::{AuditRecord, Author, Outcome, Who};
use utoipa::ToSchema;

/// Where nodes listen for users when nobody says otherwise.
pub const PORT: u16 = 7947;

/// Rights to be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewGrant {
    pub name: Name,
    pub role: Role,
    pub namespaces: Scope,
    /// For how long, in milliseconds; until it is revoked when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life_ms: Option<u64>,
    /// A request for a certificate (PKCS #10, DER, in hexadecimal digits) instead of a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// Rights that were given.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Granted {
    pub grant: GrantView,
    /// What proves who they are. Told here and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The certificate, and those that lead from it to the authority, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    pub cluster: Name,
    /// SHA-256 of the authority's key: by it a client knows the constellation.
    pub ca_hash: String,
    /// Where the node that answers listens for users; nothing when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// Rights that somebody has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GrantView {
    pub name: Name,
    pub role: Role,
    pub namespaces: Scope,
    /// Known by a certificate, not by a token.
    pub certificate: bool,
    pub created: WallTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<WallTime>,
}

/// A part of the chain of records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// The hash of the record before the first of these; nothing when that is the first there was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<ContentHash>,
    pub records: Vec<RecordView>,
    /// There are more after these.
    pub more: bool,
    /// The index up to which there are no others.
    pub index: u64,
}

/// Somebody did something, or was not let.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecordView {
    pub number: u64,
    pub index: u64,
    pub wall: WallTime,
    pub author: AuthorView,
    pub verb: Verb,
    pub what: String,
    pub outcome: OutcomeView,
    /// Of all of this and of the hash before.
    pub hash: ContentHash,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuthorView {
    pub who: WhoView,
    /// The node that had it written, and the one that passed it on to that.
    pub node: NodeId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_way_of: Option<NodeId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhoView {
    /// A user of the machine, by number.
    User(u32),
    /// Somebody by a grant.
    Grant(Name),
    /// The agent, by itself.
    Agent,
    Stranger,
    /// A star, by the access of its service.
    Star {
        star: StarId,
        service: ServiceKey,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeView {
    Done,
    /// Tried, and not possible: why.
    Refused(String),
    /// Not allowed: so many times since the record before.
    Denied(u32),
}

impl From<AuditRecord> for RecordView {
    fn from(record: AuditRecord) -> Self {
        let AuditRecord { number, index, wall, author, verb, what, outcome, hash } = record;
        let Author { who, node, by_way_of, address } = author;
        let who = match who {
            Who::User(uid) => WhoView::User(uid),
            Who::Grant(name) => WhoView::Grant(name),
            Who::Agent => WhoView::Agent,
            Who::Stranger => WhoView::Stranger,
            Who::Star { star, service } => WhoView::Star { star, service },
        };
        let outcome = match outcome {
            Outcome::Done => OutcomeView::Done,
            Outcome::Refused(why) => OutcomeView::Refused(why),
            Outcome::Denied(times) => OutcomeView::Denied(times),
        };
        let author = AuthorView { who, node, by_way_of, address };
        Self { number, index, wall, author, verb, what, outcome, hash }
    }
}

/// To be verified.
impl From<RecordView> for AuditRecord {
    fn from(view: RecordView) -> Self {
        let RecordView { number, index, wall, author, verb, what, outcome, hash } = view;
        let AuthorView { who, node, by_way_of, address } = author;
        let who = match who {
            WhoView::User(uid) => Who::User(uid),
            WhoView::Grant(name) => Who::Grant(name),
            WhoView::Agent => Who::Agent,
            WhoView::Stranger => Who::Stranger,
            WhoView::Star { star, service } => Who::Star { star, service },
        };
        let outcome = match outcome {
            OutcomeView::Done => Outcome::Done,
            OutcomeView::Refused(why) => Outcome::Refused(why),
            OutcomeView::Denied(times) => Outcome::Denied(times),
        };
        let author = Author { who, node, by_way_of, address };
        Self { number, index, wall, author, verb, what, outcome, hash }
    }
}
