//! Who may come in, and by what: authorities, invitations, the certificates that were given out and those that are
//! believed no more.
//!
//! Nothing here is in the open: the keys of authorities are sealed, of tokens there are hashes only. How anything is proved
//! is `net`'s; here is what was decided. Certificates are noted before they are given out: what is not written here
//! does not exist, and what was revoked or removed in between is refused.

use std::collections::BTreeMap;

use model::machine::NODES_MAX;
use model::{Code, ContentHash, JoinTicket, Name, NodeId, NodeRole, Problem, Serial, Standing, WallTime};
use serde::{Deserialize, Serialize};

use crate::access::Grant;
use crate::apply::{Applied, Change};
use crate::record::State;

/// Most authorities believed at once: the present one, the last and the next.
pub const AUTHORITIES_MAX: usize = 3;
/// Longest sealed authority; ours have about two kilobytes with their cross certificates.
pub const AUTHORITY_MAX_BYTES: usize = 16 << 10;
/// Most invitations at once. Each is good for an hour at most, so that they go by themselves.
pub const TICKETS_MAX: usize = 256;
/// Longest time an invitation is good, in milliseconds: an hour. Who finds one in a shell's history finds it too late.
pub const TICKET_LIFE_MAX_MS: u64 = 60 * 60 * 1000;
/// Most certificates of one node that have not run out. A healthy one has two around its renewal.
pub const CERTIFICATES_MAX: usize = 16;
/// Most keys that gossip is sealed with, as `net` has it.
pub const GOSSIP_KEYS_MAX: usize = 8;
/// Longest sealed key; ours have less than a hundred bytes.
const GOSSIP_KEY_MAX_BYTES: usize = 256;
/// How long after its end a certificate may still get its node a new one (`net::identity::renewal::Grace`): so long it
/// is known, and so long it is known to be revoked. In milliseconds, 30 days.
pub const GRACE_MS: u64 = 30 * 24 * 60 * 60 * 1000;
/// Longest life of a certificate in days, as `net` has it.
const LIFETIME_MAX_DAYS: u16 = 365;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Security {
    /// All that are believed; the first one issues. Never empty.
    pub authorities: Vec<AuthorityRecord>,
    /// Index of the command that set them last.
    pub version: u64,
    /// How long certificates are good.
    pub lifetime_days: u16,
    pub tickets: Vec<JoinTicket>,
    /// What each node was given and has not run out, the newest last; of a node that was away the last one that it used.
    pub certificates: BTreeMap<NodeId, Vec<CertificateRecord>>,
    /// What is not believed though it has not run out, with the moment from which on nobody needs to know.
    pub revoked: BTreeMap<Serial, WallTime>,
    /// What gossip is sealed with, the key that seals first; nothing as long as that is what the constellation began with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gossip: Vec<GossipKey>,
    /// Index of the command that set these last.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gossip_version: u64,
    /// Who may use the constellation from outside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub grants: BTreeMap<Name, Grant>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A key that gossip is sealed with, itself sealed under keys of controllers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipKey {
    /// Never used again for another key.
    pub number: u32,
    #[serde(with = "serde_bytes")]
    pub sealed: Vec<u8>,
}

/// An authority, as `net::identity::SealedAuthority` writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityRecord {
    /// BLAKE3 of its certificate.
    pub id: ContentHash,
    /// Certificate and sealed key.
    #[serde(with = "serde_bytes")]
    pub sealed: Vec<u8>,
}

/// A certificate that was given to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecord {
    pub serial: Serial,
    pub not_after: WallTime,
    /// The authority that issued it.
    pub authority: ContentHash,
    /// The node was seen with it: what it had before is of no use any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub used: bool,
}

impl State {
    /// The nodes that would be strangers without this authority: what they have last been seen with, or were given since, is
    /// of it, and could still get them the next one.
    pub fn need_authority(&self, authority: ContentHash, wall: WallTime) -> impl Iterator<Item = NodeId> + '_ {
        let security = self.security.as_ref();
        let all = security.into_iter().flat_map(|security| security.certificates.iter().map(move |of| (security, of)));
        let need = all.filter(move |(security, (_, records))| {
            let of_use = &records[present(records)..];
            of_use.iter().any(|record| {
                let is_of_it = record.authority == authority && !security.revoked.contains_key(&record.serial);
                is_of_it && record.end().0 > wall.0
            })
        });
        need.map(|(_, (node, _))| *node)
    }
}

impl CertificateRecord {
    /// From when on it is of no use, not even to get the next one.
    fn end(&self) -> WallTime {
        WallTime(self.not_after.0.saturating_add(GRACE_MS))
    }
}

/// The last one that its node was seen with.
fn present(records: &[CertificateRecord]) -> usize {
    records.iter().rposition(|record| record.used).unwrap_or(0)
}

/// `3f2a9c01`: what stands for a token or an authority where people read it.
pub fn short(hash: ContentHash) -> String {
    hash.to_string()[..8].to_owned()
}

pub(crate) fn set_authorities(
    state: &mut State,
    authorities: &[AuthorityRecord],
    lifetime_days: u16,
    base: u64,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    let refused = |message: String| Err(Problem::new(Code::InvalidValue, message));
    if state.cluster.is_none() {
        return Err(in_none());
    }
    let before = state.security.clone().unwrap_or_default();
    if base != before.version {
        let problem = Problem::new(Code::Conflict, "the certificate authorities have changed meanwhile");
        return Err(problem.help("look at them again with `rads c certs`, then repeat"));
    }
    if authorities.is_empty() || authorities.len() > AUTHORITIES_MAX {
        return refused(format!("a constellation has 1 to {AUTHORITIES_MAX} certificate authorities"));
    }
    if !(1..=LIFETIME_MAX_DAYS).contains(&lifetime_days) {
        return refused(format!("certificates last 1 to {LIFETIME_MAX_DAYS} days, not {lifetime_days}"));
    }
    if authorities.iter().any(|authority| authority.sealed.len() > AUTHORITY_MAX_BYTES) {
        return refused(format!("a certificate authority has at most {AUTHORITY_MAX_BYTES} bytes"));
    }
    let ids: Vec<ContentHash> = authorities.iter().map(|authority| authority.id).collect();
    if (1..ids.len()).any(|at| ids[..at].contains(&ids[at])) {
        return refused("a certificate authority is named twice".to_owned());
    }
    let known: Vec<ContentHash> = before.authorities.iter().map(|authority| authority.id).collect();
    let issues = ids[0];
    if !known.is_empty() && !known.contains(&issues) {
        let problem = Problem::new(Code::Conflict, "a certificate authority issues only after all trust it");
        return Err(problem.help("`rads c certs rotate` does both, one after the other"));
    }
    if let Some(gone) = known.iter().find(|id| !ids.contains(id) && state.need_authority(**id, wall).next().is_some()) {
        let message =
            format!("certificate authority `{}` is still needed: nodes have certificates of it", short(*gone));
        return Err(Problem::new(Code::Conflict, message).help("it goes by itself when all have renewed theirs"));
    }
    let version = state.index;
    let security = state.security.get_or_insert_default();
    (security.authorities, security.version, security.lifetime_days) = (authorities.to_vec(), version, lifetime_days);
    for id in ids.iter().filter(|id| !known.contains(id)) {
        let what = if known.is_empty() { "made" } else { "made: all trust it before it issues" };
        state.record(wall, format!("certificate authority `{}` {what}", short(*id)));
    }
    if known.first().is_some_and(|first| *first != issues) {
        state.record(wall, format!("certificate authority `{}` issues from here on", short(issues)));
    }
    for id in known.iter().filter(|id| !ids.contains(id)) {
        state.record(wall, format!("certificate authority `{}` is no longer trusted: nobody needs it", short(*id)));
    }
    changes.push(Change::SecurityChanged);
    Ok(())
}

/// One step of a change: who is at the step before and who is at this one understand each other.
pub(crate) fn set_gossip_keys(
    state: &mut State,
    keys: &[GossipKey],
    base: u64,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    let version = state.index;
    let security = state.security.as_mut().ok_or_else(in_none)?;
    if base != security.gossip_version {
        return Err(Problem::new(Code::Conflict, "the keys of gossip have changed meanwhile"));
    }
    let numbers: Vec<u32> = keys.iter().map(|key| key.number).collect();
    let known: Vec<u32> = security.gossip.iter().map(|key| key.number).collect();
    let invalid = |message: String| Err(Problem::new(Code::InvalidValue, message));
    if numbers.is_empty() || numbers.len() > GOSSIP_KEYS_MAX {
        return invalid(format!("gossip has 1 to {GOSSIP_KEYS_MAX} keys"));
    }
    if (1..numbers.len()).any(|at| numbers[..at].contains(&numbers[at])) {
        return invalid("a key of gossip is named twice".to_owned());
    }
    if keys.iter().any(|key| key.sealed.is_empty() || key.sealed.len() > GOSSIP_KEY_MAX_BYTES) {
        return invalid(format!("a sealed key of gossip has 1 to {GOSSIP_KEY_MAX_BYTES} bytes"));
    }
    let understood = known.first().is_none_or(|first| numbers.contains(first) && known.contains(&numbers[0]));
    if !understood {
        let problem = Problem::new(Code::Conflict, "the keys of gossip change one step after the other");
        return Err(problem.help("`rads c certs rotate --gossip` takes them all"));
    }
    (security.gossip, security.gossip_version) = (keys.to_vec(), version);
    if let Some(new) = numbers.iter().rev().find(|number| !known.contains(number)).filter(|_| numbers.len() > 1) {
        state.record(wall, format!("gossip key {new} made: all get it before it seals"));
    }
    if known.first().is_some_and(|first| *first != numbers[0]) {
        state.record(wall, format!("gossip is sealed with key {} from here on", numbers[0]));
    }
    for gone in known.iter().filter(|number| !numbers.contains(number)) {
        state.record(wall, format!("gossip key {gone} opens nothing any more"));
    }
    changes.push(Change::SecurityChanged);
    Ok(())
}

pub(crate) fn add_ticket(state: &mut State, ticket: &JoinTicket, wall: WallTime, changes: &mut Vec<Change>) -> Applied {
    let security = state.security.as_mut().ok_or_else(in_none)?;
    let refused = |message: String, help: &str| Err(Problem::new(Code::InvalidValue, message).help(help));
    if ticket.expires <= wall {
        return refused(
            "a join token that is good for no time is of no use".to_owned(),
            "say for how long, as `--for 30m`",
        );
    }
    if ticket.expires.0 - wall.0 > TICKET_LIFE_MAX_MS {
        let message = format!("a join token is good for at most {} minutes", TICKET_LIFE_MAX_MS / 60_000);
        return refused(message, "leave `--for` out, and make another token when this one has run out");
    }
    if !(1..=NODES_MAX as u32).contains(&ticket.uses_max) || ticket.uses != 0 {
        let message = format!("a join token admits 1 to {NODES_MAX} machines, not {}", ticket.uses_max);
        return refused(message, "say how many are to join by it, as `--uses 3`");
    }
    security.tickets.retain(|there| there.expires > wall);
    if security.tickets.iter().any(|there| there.hash == ticket.hash) {
        return Err(Problem::new(Code::AlreadyExists, "there is a join token with this hash already"));
    }
    if security.tickets.len() >= TICKETS_MAX {
        let problem = Problem::new(Code::NoCapacity, format!("there are {TICKETS_MAX} join tokens already"));
        return Err(problem.help("they go when their time is over, or by `rads c token revoke`"));
    }
    security.tickets.push(ticket.clone());
    let machines = if ticket.uses_max == 1 { "1 machine".to_owned() } else { format!("{} machines", ticket.uses_max) };
    let what = format!("join token `{}` made: for {machines}, as {}", short(ticket.hash), ticket.role);
    state.record(wall, what);
    changes.push(Change::SecurityChanged);
    Ok(())
}

pub(crate) fn remove_ticket(
    state: &mut State,
    hash: ContentHash,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    let security = state.security.as_mut().ok_or_else(in_none)?;
    let before = security.tickets.len();
    security.tickets.retain(|ticket| ticket.hash != hash);
    if security.tickets.len() == before {
        let problem = Problem::new(Code::NotFound, format!("no join token `{}`", short(hash)));
        return Err(problem.help("`rads c token list` shows those there are"));
    }
    state.record(wall, format!("join token `{}` revoked", short(hash)));
    changes.push(Change::SecurityChanged);
    Ok(())
}

/// Whether a machine may become a `role` by this invitation. Nothing is counted yet.
pub(crate) fn check_ticket(state: &State, ticket: Option<ContentHash>, role: NodeRole, wall: WallTime) -> Applied {
    let Some(security) = &state.security else { return Ok(()) };
    let refused = |reason: &dyn std::fmt::Display| Err(Problem::new(Code::Forbidden, reason.to_string()));
    let Some(hash) = ticket else { return refused(&"a machine joins by a token only") };
    let Some(ticket) = security.tickets.iter().find(|ticket| ticket.hash == hash) else {
        return refused(&model::TicketRefusal::Unknown);
    };
    ticket.admits(hash, role, wall).or_else(|reason| refused(&reason))
}

pub(crate) fn count_ticket(state: &mut State, ticket: Option<ContentHash>, changes: &mut Vec<Change>) {
    let tickets = state.security.iter_mut().flat_map(|security| &mut security.tickets);
    for ticket in tickets.filter(|there| Some(there.hash) == ticket) {
        ticket.uses += 1;
        changes.push(Change::SecurityChanged);
    }
}

/// `by` is the certificate that its node showed when it asked for this one; nothing for its first.
pub(crate) fn note_certificate(
    state: &mut State,
    node: NodeId,
    record: &CertificateRecord,
    by: Option<Serial>,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    let name = member(state, node)?;
    let security = state.security.as_mut().ok_or_else(in_none)?;
    if !security.authorities.iter().any(|authority| authority.id == record.authority) {
        return Err(Problem::new(Code::Conflict, "the certificate authority that issued this is not trusted any more"));
    }
    security.forget(wall);
    let refused = |message: String| Err(Problem::new(Code::Forbidden, message));
    let records = security.certificates.entry(node).or_default();
    match by {
        Some(by) if security.revoked.contains_key(&by) => {
            return refused(format!("the certificate of node `{name}` was revoked"));
        }
        None if !records.is_empty() => {
            return refused(format!("node `{name}` has a certificate, by which it gets the next"));
        }
        _ => {}
    }
    if records.iter().any(|there| there.serial == record.serial) {
        return Err(Problem::new(Code::AlreadyExists, format!("certificate `{}` is known already", record.serial)));
    }
    if records.len() >= CERTIFICATES_MAX {
        let problem = format!("node `{name}` has {CERTIFICATES_MAX} certificates that have not run out");
        return Err(Problem::new(Code::NoCapacity, problem));
    }
    records.push(CertificateRecord { used: false, ..record.clone() });
    changes.push(Change::SecurityChanged);
    Ok(())
}

/// A node was seen with a certificate. The second time nothing changes.
pub(crate) fn use_certificate(
    state: &mut State,
    node: NodeId,
    serial: Serial,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    let security = state.security.as_mut().ok_or_else(in_none)?;
    let records = security.certificates.get_mut(&node).into_iter().flatten();
    let Some(record) = records.into_iter().find(|record| record.serial == serial) else {
        return Err(Problem::new(Code::NotFound, format!("no certificate `{serial}` of node `{node}`")));
    };
    if !std::mem::replace(&mut record.used, true) {
        security.forget(wall);
        changes.push(Change::SecurityChanged);
    }
    Ok(())
}

/// All that a node has: it is shut out, and gets no new one.
pub(crate) fn revoke(state: &mut State, node: NodeId, wall: WallTime, changes: &mut Vec<Change>) -> Applied {
    let name = member(state, node)?;
    let others = state.nodes.iter().filter(|(other, record)| {
        **other != node && record.role == NodeRole::Controller && record.standing == Standing::Up
    });
    if others.count() == 0 {
        let message = format!("node `{name}` is the only controller that is up: nobody else could let it in again");
        return Err(Problem::new(Code::Conflict, message));
    }
    let security = state.security.as_mut().ok_or_else(in_none)?;
    security.forget(wall);
    let records = security.certificates.get(&node).map(Vec::as_slice).unwrap_or_default();
    let fresh: Vec<_> = records.iter().filter(|record| !security.revoked.contains_key(&record.serial)).collect();
    if fresh.is_empty() {
        let what = if records.is_empty() { "has no certificate" } else { "is shut out already" };
        return Err(Problem::new(Code::Conflict, format!("node `{name}` {what}")));
    }
    let revoked: Vec<_> = fresh.into_iter().map(|record| (record.serial, record.end())).collect();
    security.revoked.extend(revoked);
    state.record(wall, format!("certificates of node `{name}` revoked: it is shut out"));
    changes.push(Change::SecurityChanged);
    Ok(())
}

/// A node that left needs nothing more; that it left is remembered for ever.
pub(crate) fn forget_node(state: &mut State, node: NodeId, changes: &mut Vec<Change>) {
    if let Some(security) = &mut state.security
        && security.certificates.remove(&node).is_some()
    {
        changes.push(Change::SecurityChanged);
    }
}

impl Security {
    /// Drops what nobody needs to know any more.
    fn forget(&mut self, wall: WallTime) {
        self.revoked.retain(|_, until| *until > wall);
        for records in self.certificates.values_mut() {
            let superseded = present(records);
            let mut at = 0;
            records.retain(|record| {
                at += 1;
                let end = if at <= superseded { record.not_after } else { record.end() };
                end > wall
            });
        }
    }
}

fn member(state: &State, node: NodeId) -> Result<Name, Problem> {
    let record = state.nodes.get(&node).filter(|record| record.standing != Standing::Left);
    let missing = || Problem::new(Code::NotFound, format!("node `{node}` is not a member any more"));
    record.map(|record| record.name.clone()).ok_or_else(missing)
}

pub(crate) fn in_none() -> Problem {
    Problem::new(Code::Conflict, "this machine is in no constellation").help("`rads c init` founds one")
}
