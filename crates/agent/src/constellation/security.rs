//! What the log says of who is believed, as `net` takes it; and how authorities and rings of keys are written.

use bytes::Bytes;
use model::{Code, ContentHash, Problem, Standing};
use net::identity::keyring::{KEY_BYTES, Sealer};
use net::identity::{Authority, KeyRing, KeyUse, Lifetime, Revoked, SealedAuthority, Trust};
use rustls::pki_types::CertificateDer;
use serde_bytes::ByteBuf;
use state::{AuthorityRecord, Command, Security, State, apply};

use super::home::Key;

/// Who is in the constellation and who is believed: all that is needed to decide who may come in.
pub(crate) fn members(state: &State) -> State {
    State {
        index: state.index,
        cluster: state.cluster.clone(),
        nodes: state.nodes.clone(),
        security: state.security.clone(),
        ..State::default()
    }
}

/// Why a command would be refused; nothing when it would hold.
pub(crate) fn refusal(state: &State, command: &Command) -> Option<Problem> {
    let mut tried = members(state);
    let changes = apply(&mut tried, state.index + 1, command);
    changes.into_iter().find_map(|change| match change {
        state::Change::Refused { problem } => Some(problem),
        _ => None,
    })
}

/// # Errors
/// `Internal` where no authority is: it is made when a constellation is founded.
pub(crate) fn of(state: &State) -> Result<&Security, Problem> {
    state.security.as_ref().ok_or_else(|| Problem::new(Code::Internal, "the state knows no certificate authority"))
}

/// An authority as the log has it.
pub(crate) fn record(authority: &Authority, sealer: &Sealer) -> Result<AuthorityRecord, Problem> {
    let sealed = rmp_serde::to_vec_named(&authority.seal(sealer));
    let sealed = sealed.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    Ok(AuthorityRecord { id: id(authority.certificate()), sealed })
}

/// Under what an authority is known in the log.
pub(crate) fn id(certificate: &CertificateDer<'_>) -> ContentHash {
    ContentHash(*blake3::hash(certificate).as_bytes())
}

/// All authorities of the log, the one that issues first; their keys are still sealed.
pub(crate) fn authorities(security: &Security) -> Result<Vec<SealedAuthority>, Problem> {
    let read = |record: &AuthorityRecord| rmp_serde::from_slice(&record.sealed).map_err(damaged);
    security.authorities.iter().map(read).collect()
}

/// The authority that issues, and how long what it issues is good.
pub(crate) fn issuer(security: &Security, ring: &KeyRing) -> Result<(Authority, Lifetime), Problem> {
    let all = authorities(security)?;
    let first = all.first().ok_or_else(|| damaged("there is none"))?;
    let authority = Authority::open(first, &ring.for_use(KeyUse::Authority)).map_err(damaged)?;
    Ok((authority, Lifetime::days(security.lifetime_days).map_err(damaged)?))
}

/// Whom to believe by what the log says.
pub(crate) fn trust(state: &State) -> Result<Trust, Problem> {
    let security = of(state)?;
    let authorities = authorities(security)?.into_iter().map(|sealed| CertificateDer::from(sealed.certificate));
    let cluster = state.cluster.clone().ok_or_else(|| damaged("the state names no constellation"))?;
    Trust::new(cluster, authorities.collect(), revoked(state)).map_err(damaged)
}

/// Whom not to believe any more.
pub(crate) fn revoked(state: &State) -> Revoked {
    let serials = state.security.iter().flat_map(|security| security.revoked.keys().copied()).collect();
    let left = state.nodes.iter().filter(|(_, record)| record.standing == Standing::Left);
    Revoked { serials, nodes: left.map(|(node, _)| *node).collect() }
}

/// A ring on its way: of each key the number (4 bytes, big-endian) and the 32 bytes, the one that seals first.
pub(crate) fn ring_out(keys: &[Key]) -> Vec<Bytes> {
    keys.iter().map(|key| [&key.number.to_be_bytes(), key.key.as_slice()].concat().into()).collect()
}

/// The other way round.
///
/// # Errors
/// `Unsupported` when it is no such ring.
pub(crate) fn ring_in(keys: &[Bytes]) -> Result<Vec<Key>, Problem> {
    let key = |bytes: &Bytes| {
        let (number, key) = bytes.split_first_chunk::<4>()?;
        let number = u32::from_be_bytes(*number);
        (key.len() == KEY_BYTES).then(|| Key { number, key: ByteBuf::from(key) })
    };
    let read: Option<Vec<_>> = keys.iter().map(key).collect();
    read.ok_or_else(|| Problem::new(Code::Unsupported, "the keys of the constellation are in a form not known here"))
}

fn damaged(why: impl std::fmt::Display) -> Problem {
    Problem::new(Code::DataCorrupt, format!("the certificate authorities of the log cannot be used: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_read_back_and_nothing_else_is() {
        let keys = vec![
            Key { number: 7, key: ByteBuf::from([1; KEY_BYTES]) },
            Key { number: u32::MAX, key: ByteBuf::from([2; KEY_BYTES]) },
        ];
        assert!(ring_in(&ring_out(&keys)).unwrap() == keys);
        for bad in [0, 3, 4, 35, 37] {
            assert!(ring_in(&[Bytes::from(vec![0; bad])]).is_err(), "{bad} bytes");
        }
    }
}
