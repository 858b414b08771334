//! Who did what: records in the order of the log, each of which holds the one before it by its hash.
//!
//! The last [`AUDIT_MAX`] are kept, with the hash of the one before the first of them: so far back any change of a record, of
//! their order or their number shows. Whoever can make all of it anew can hide that on one node, and not on the others.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::LazyLock;

use blake3::Hasher;
use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use model::access::Verb;
use model::{ContentHash, Name, NodeId, ServiceKey, StarId, WallTime};
use serde::{Deserialize, Serialize};

use crate::access::said;
use crate::command::Command;
use crate::record::State;

/// Records kept; some hundred bytes each, so three megabytes at most.
pub const AUDIT_MAX: usize = 10_000;
/// Longest text of one field. What is longer is cut: the record is to say what was meant, not to hold it.
pub const TEXT_MAX: usize = 300;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Of the record before the first that is kept; nothing when none was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<ContentHash>,
    /// Oldest first.
    pub records: VecDeque<AuditRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// From 1 on, without a gap.
    pub number: u64,
    /// The index of its command.
    pub index: u64,
    pub wall: WallTime,
    pub author: Author,
    pub verb: Verb,
    pub what: String,
    pub outcome: Outcome,
    /// Of all of the above and of the hash before.
    pub hash: ContentHash,
}

/// Who asks for something, and from where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    pub who: Who,
    /// The node that had it written.
    pub node: NodeId,
    /// The node that passed it on to that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_way_of: Option<NodeId>,
    /// Where the connection came from, if it came over the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// A user of the machine, by the kernel's word.
    User(u32),
    /// Somebody by a grant.
    Grant(Name),
    /// The agent, by itself.
    Agent,
    /// Somebody who is known by nothing.
    Stranger,
    /// A star, by the access of its service.
    Star { star: StarId, service: ServiceKey },
}

impl Author {
    /// A node's agent, by itself.
    pub fn agent(node: NodeId) -> Self {
        Self { who: Who::Agent, node, by_way_of: None, address: None }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => f.pad(&format!("uid {uid}")),
            Self::Grant(name) => f.pad(name.as_str()),
            Self::Agent => f.pad("the agent"),
            Self::Stranger => f.pad("a stranger"),
            Self::Star { service, .. } => f.pad(&format!("service {service}")),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    /// It was tried, and the state did not allow it: why.
    Refused(String),
    /// It was not even tried: so many times since the record before of the same name.
    Denied(u32),
}

/// Something to be recorded that is no change of the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    pub verb: Verb,
    pub what: String,
    pub outcome: Outcome,
}

impl Audit {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.before.is_none()
    }

    /// The hash of the newest record: by it the whole chain is known.
    pub fn head(&self) -> Option<ContentHash> {
        self.records.back().map(|record| record.hash).or(self.before)
    }
}

/// Where a chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The first record that is not what it was, or does not follow the one before it.
    pub number: u64,
}

/// Whether every record is what it was when it was written, and all are there.
///
/// # Errors
/// Names the first where it does not hold.
pub fn verify<'r>(
    before: Option<ContentHash>,
    records: impl IntoIterator<Item = &'r AuditRecord>,
) -> Result<(), Broken> {
    let mut before = before;
    let mut number = None;
    for record in records {
        let follows =
            number.is_none_or(|number| record.number == number + 1) && (before.is_some() || record.number == 1);
        if !follows || hash(before, record) != record.hash {
            return Err(Broken { number: record.number });
        }
        (before, number) = (Some(record.hash), Some(record.number));
    }
    Ok(())
}

pub(crate) fn record(state: &mut State, author: &Author, wall: WallTime, deed: Deed) {
    let index = state.index;
    let audit = &mut state.audit;
    let mut record = AuditRecord {
        number: audit.records.back().map_or(1, |last| last.number + 1),
        index,
        wall,
        author: author.clone(),
        verb: deed.verb,
        what: cut(deed.what),
        outcome: match deed.outcome {
            Outcome::Refused(why) => Outcome::Refused(cut(why)),
            other => other,
        },
        hash: ContentHash([0; 32]),
    };
    record.hash = hash(audit.head(), &record);
    audit.records.push_back(record);
    while audit.records.len() > AUDIT_MAX {
        audit.before = audit.records.pop_front().map(|dropped| dropped.hash);
    }
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Version 1: every field with its length before it, so that no two records have the same bytes.
fn hash(before: Option<ContentHash>, record: &AuditRecord) -> ContentHash {
    let AuditRecord { number, index, wall, author, verb, what, outcome, hash: _ } = record;
    let Author { who, node, by_way_of, address } = author;
    let mut fields = Vec::with_capacity(512);
    let mut field = |bytes: &[u8]| {
        fields.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        fields.extend_from_slice(bytes);
    };
    field(before.as_ref().map_or(&[][..], |before| &before.0));
    for part in [*number, *index, wall.0, node.0] {
        field(&part.to_be_bytes());
    }
    match who {
        Who::User(uid) => field(format!("user {uid}").as_bytes()),
        Who::Grant(name) => field(format!("grant {name}").as_bytes()),
        Who::Agent => field(b"agent"),
        Who::Stranger => field(b"stranger"),
        Who::Star { star, service } => field(format!("star {star} of {service}").as_bytes()),
    }
    field(by_way_of.map(|node| node.0.to_string()).unwrap_or_default().as_bytes());
    field(address.map(|address| address.to_string()).unwrap_or_default().as_bytes());
    field(verb.as_str().as_bytes());
    field(what.as_bytes());
    match outcome {
        Outcome::Done => field(b"done"),
        Outcome::Refused(why) => field(format!("refused {why}").as_bytes()),
        Outcome::Denied(times) => field(format!("denied {times}").as_bytes()),
    }
    ContentHash(*Hasher::new_from_context_key(&CONTEXT).update(&fields).finalize().as_bytes())
}

/// As [`blake3::derive_key`] makes of it for each hash anew.
static CONTEXT: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context("rads constellation 2026-11 audit v1"));

impl Command {
    /// The namespace in which somebody asks for something by this; nothing where it is in none, or in several.
    pub fn namespace(&self) -> Option<&Name> {
        match self {
            Self::PutApp { spec, .. } => Some(&spec.app.namespace),
            Self::RemoveApp { app, .. } => Some(&app.namespace),
            Self::Scale { service, .. }
            | Self::Limit { service, .. }
            | Self::Restart { service, .. }
            | Self::Stop { service, .. }
            | Self::Start { service, .. }
            | Self::Pause { service, .. }
            | Self::Resume { service, .. }
            | Self::StopStar { service, .. }
            | Self::StartStar { service, .. }
            | Self::RestartStar { service, .. }
            | Self::MoveStar { service, .. }
            | Self::RemoveService { service, .. }
            | Self::TurnRollout { service, .. }
            | Self::Rollback { service, .. }
            | Self::BeginRun { service, .. } => Some(&service.namespace),
            Self::DeleteVolume { volume, .. } => Some(&volume.namespace),
            Self::SetNamespace { namespace, .. } | Self::DeleteNamespace { namespace, .. } => Some(namespace),
            _ => None,
        }
    }

    /// What somebody asks for by this: the verb, and in words. Nothing for what nodes say and decide by themselves.
    pub fn asked(&self) -> Option<(Verb, String)> {
        let change = |what: String| Some((Verb::Change, what));
        let namespaces = |what: String| Some((Verb::ManageNamespaces, what));
        let nodes = |what: String| Some((Verb::ManageNodes, what));
        let access = |what: String| Some((Verb::ManageAccess, what));
        match self {
            Self::PutApp { spec, .. } => change(format!("put app `{}`", spec.app)),
            Self::RemoveApp { app, .. } => change(format!("remove app `{app}`")),
            Self::Scale { service, instances, .. } => change(format!("scale service `{service}` to {instances}")),
            Self::Limit { service, .. } => change(format!("limit service `{service}`")),
            Self::Restart { service, .. } => change(format!("restart service `{service}`")),
            Self::Stop { service, .. } => change(format!("stop service `{service}`")),
            Self::Start { service, .. } => change(format!("start service `{service}`")),
            Self::Pause { service, .. } => change(format!("pause service `{service}`")),
            Self::Resume { service, .. } => change(format!("resume service `{service}`")),
            Self::StopStar { service, ordinal, .. } => change(format!("stop star {ordinal} of service `{service}`")),
            Self::StartStar { service, ordinal, .. } => change(format!("start star {ordinal} of service `{service}`")),
            Self::RestartStar { service, ordinal, .. } => {
                change(format!("restart star {ordinal} of service `{service}`"))
            }
            Self::MoveStar { service, ordinal, .. } => change(format!("move star {ordinal} of service `{service}`")),
            Self::RemoveService { service, .. } => change(format!("remove service `{service}`")),
            Self::SecretChanged { secret, .. } | Self::SetSecret { secret, .. } => {
                Some((Verb::SetSecret, format!("set secret `{secret}`")))
            }
            Self::DeleteVolume { volume, .. } => change(format!("delete volume `{volume}`")),
            Self::DeleteSecret { secret, .. } => Some((Verb::SetSecret, format!("delete secret `{secret}`"))),
            Self::SecretsRead { secrets, star, .. } => {
                let names = secrets.iter().map(|secret| format!("`{secret}`")).collect::<Vec<_>>().join(", ");
                Some(match star {
                    None => (Verb::ReadSecret, format!("read secret {names}")),
                    Some((_, star)) => (Verb::Enter, format!("go into star `{star}`, which has secrets {names}")),
                })
            }
            Self::SetNamespace { namespace, new: true, .. } => namespaces(format!("create namespace `{namespace}`")),
            Self::SetNamespace { namespace, .. } => namespaces(format!("change namespace `{namespace}`")),
            Self::DeleteNamespace { namespace, .. } => namespaces(format!("delete namespace `{namespace}`")),
            Self::RemoveNode { node, .. } => nodes(format!("remove node `{node}`")),
            Self::TurnRollout { service, turn, .. } => {
                change(format!("{} the roll-out of service `{service}`", turn.as_str()))
            }
            // For a moment of its schedule a run is begun by who leads.
            Self::BeginRun { slot: Some(_), .. } => None,
            Self::BeginRun { service, slot: None, .. } => change(format!("run job `{service}`")),
            Self::Rollback { service, version: None, .. } => change(format!("roll service `{service}` back")),
            Self::Rollback { service, version: Some(version), .. } => {
                change(format!("roll service `{service}` back to version {version}"))
            }
            Self::SetDuty { node, duty, .. } => nodes(format!("have node `{node}` be {duty}")),
            Self::SetTaint { node, name, taint, .. } => nodes(match taint {
                Some(taint) => format!("taint node `{node}`: `{}`", model::taint::shown(name, taint)),
                None => format!("untaint node `{node}`: `{name}`"),
            }),
            Self::SetOvercommit { node, overcommit, .. } => {
                let of = node.map_or_else(|| "all others".to_owned(), |node| format!("node `{node}`"));
                nodes(match overcommit {
                    Some(overcommit) => format!("overcommit {of}: {overcommit}"),
                    None => format!("reset the overcommit of {of}"),
                })
            }
            Self::AddTicket { ticket, .. } => access(format!("invite {} as {}", ticket.uses_max, ticket.role)),
            Self::RemoveTicket { hash, .. } => access(format!("revoke join token `{}`", crate::security::short(*hash))),
            Self::RevokeCertificates { node, .. } => access(format!("shut out node `{node}`")),
            Self::AddGrant { name, grant, .. } => access(format!("grant `{name}`: {}", said(grant))),
            Self::RemoveGrant { name, .. } => access(format!("revoke grant `{name}`")),
            Self::Assign { .. }
            | Self::Preempt { .. }
            | Self::EndMove { .. }
            | Self::Transitions { .. }
            | Self::Forget { .. }
            | Self::Found { .. }
            | Self::AdmitNode { .. }
            | Self::DescribeNode { .. }
            | Self::LoseNode { .. }
            | Self::WelcomeNode { .. }
            | Self::Retire { .. }
            | Self::SetAuthorities { .. }
            | Self::SetGossipKeys { .. }
            | Self::NoteCertificate { .. }
            | Self::UseCertificate { .. }
            | Self::By { .. }
            | Self::Keyed { .. }
            | Self::Note { .. }
            | Self::SettleRollout { .. }
            | Self::NoteTwin { .. }
            | Self::NoteLeader { .. }
            | Self::WarnNamespace { .. }
            | Self::EndNamespace { .. }
            | Self::TurnHold { .. } => None,
        }
    }
}
