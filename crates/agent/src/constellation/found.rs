//! How a machine that was alone becomes the first node of a constellation: what is made for it, all of it here.

use model::{JoinTicket, Name, NodeFacts, NodeId, NodeIdentity, NodeRole, Problem, WallTime};
use net::identity::request::CheckedRequest;
use net::identity::token::TOKEN_LIFE;
use net::identity::{Authority, KeyRing, KeyUse, Lifetime, NodeKey, Token};
use serde_bytes::ByteBuf;
use state::{CertificateRecord, Change, Command, State, apply};

use super::home::{Home, Key, ring};
use super::join::Machine;
use super::security;

/// Machines that the first token admits, as controllers: as many as anybody needs of these.
pub(crate) const FIRST_USES: u32 = 16;
/// The first key of each ring.
const FIRST_KEY: u32 = 1;

/// What there is afterwards; nothing of it is kept yet.
pub(crate) struct Founded {
    pub(crate) home: Home,
    /// What the shared log begins with.
    pub(crate) state: State,
    pub(crate) token: Token,
    pub(crate) ticket: JoinTicket,
}

/// Makes a constellation of a machine and what it knew alone.
///
/// # Errors
/// As the state's: the machine is in one already, or what it says of itself is out of bounds.
pub(crate) fn found(
    mut state: State,
    cluster: &Name,
    machine: Machine,
    facts: &NodeFacts,
    lifetime: Lifetime,
    now: WallTime,
) -> Result<Founded, Problem> {
    let (gossip, unsealing) = (vec![new_key()], vec![new_key()]);
    let sealer = ring(&unsealing)?.for_use(KeyUse::Authority);
    let authority = Authority::create(cluster, now).map_err(internal)?;
    let key = NodeKey::generate().map_err(internal)?;
    let csr = key.request().map_err(internal)?;
    let subject = NodeIdentity { cluster: cluster.clone(), role: NodeRole::Controller, node: NodeId::FIRST };
    let request = CheckedRequest::read(&csr).map_err(internal)?;
    let issued = authority.issue(&request, &subject, lifetime, now).map_err(internal)?;
    let record = security::record(&authority, &sealer)?;
    let (token, ticket) = Token::generate(cluster, authority.pin(), NodeRole::Controller, FIRST_USES, TOKEN_LIFE, now);
    let certificate =
        CertificateRecord { serial: issued.serial, not_after: issued.not_after, authority: record.id, used: false };
    let Machine { name, listen, advertise, described, api, discoverable } = machine;
    let (address, facts) = (advertise.clone(), Box::new(facts.clone()));
    for command in [
        Command::Found { cluster: cluster.clone(), name: name.clone(), address, facts, wall: now },
        Command::SetAuthorities { authorities: vec![record], lifetime_days: lifetime.into(), base: 0, wall: now },
        Command::NoteCertificate { node: NodeId::FIRST, certificate, by: None, wall: now },
        Command::UseCertificate { node: NodeId::FIRST, serial: issued.serial, wall: now },
        Command::AddTicket { ticket: ticket.clone(), wall: now },
    ] {
        let index = state.index + 1;
        for change in apply(&mut state, index, &command) {
            if let Change::Refused { problem } = change {
                return Err(problem);
            }
        }
    }
    let home = Home {
        cluster: cluster.clone(),
        node: NodeId::FIRST,
        name,
        role: NodeRole::Controller,
        listen,
        advertise,
        described,
        key: ByteBuf::from(key.to_pkcs8().to_vec()),
        chain: issued.chain.iter().map(|der| ByteBuf::from(der.to_vec())).collect(),
        authorities: vec![ByteBuf::from(authority.certificate().to_vec())],
        gossip,
        unsealing,
        seeds: Vec::new(),
        api,
        discoverable,
        has_log: true,
    };
    Ok(Founded { home, state, token, ticket })
}

fn new_key() -> Key {
    Key { number: FIRST_KEY, key: ByteBuf::from(KeyRing::generate_key().to_vec()) }
}

fn internal(error: impl std::fmt::Display) -> Problem {
    Problem::new(model::Code::Internal, error.to_string())
}
