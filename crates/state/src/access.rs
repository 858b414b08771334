//! Grants: who, beside the users of its machines, may use a constellation, and by what they are known.

use std::collections::BTreeSet;

use model::access::{Rights, Role, Scope};
use model::{Code, ContentHash, Name, Problem, WallTime};
use serde::{Deserialize, Serialize};

use crate::apply::{Applied, Change};
use crate::record::State;
use crate::security::in_none;

/// Most grants: every request that shows a token compares it with all of them, in some ten microseconds.
pub const GRANTS_MAX: usize = 1_000;
/// Most namespaces of one grant. Who needs more has all.
pub const GRANT_NAMESPACES_MAX: usize = 64;

/// Somebody's rights, and what proves that it is them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub role: Role,
    pub namespaces: Scope,
    pub proof: Proof,
    pub created: WallTime,
    /// The first moment at which it is no longer good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<WallTime>,
}

/// What is kept of that by which somebody is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// BLAKE3 of a token's secret of 256 random bits.
    Token(ContentHash),
    /// BLAKE3 of the public key (SubjectPublicKeyInfo) of a certificate.
    Key(ContentHash),
}

impl Grant {
    pub fn rights(&self) -> Rights {
        Rights { role: self.role, namespaces: self.namespaces.clone() }
    }

    pub fn is_good(&self, now: WallTime) -> bool {
        self.expires.is_none_or(|end| now < end)
    }
}

impl State {
    /// Every grant, those that are over included.
    pub fn grants(&self) -> impl Iterator<Item = (&Name, &Grant)> {
        self.security.iter().flat_map(|security| &security.grants)
    }

    /// What somebody of this name may do now; nothing when there is no such grant, or it is over.
    pub fn grant(&self, name: &Name, now: WallTime) -> Option<&Grant> {
        self.security.as_ref()?.grants.get(name).filter(|grant| grant.is_good(now))
    }
}

/// Whose proof this is, among these. All are looked at, each byte of each: how long it takes tells nothing of how near it came.
pub fn whose<'g>(
    grants: impl Iterator<Item = (&'g Name, &'g Grant)>,
    shown: Proof,
    now: WallTime,
) -> Option<(&'g Name, &'g Grant)> {
    let mut found = None;
    for (name, grant) in grants {
        let same = match (grant.proof, shown) {
            (Proof::Token(one), Proof::Token(other)) | (Proof::Key(one), Proof::Key(other)) => {
                one.0.iter().zip(other.0).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
            }
            _ => false,
        };
        if same {
            found = Some((name, grant));
        }
    }
    found.filter(|(_, grant)| grant.is_good(now))
}

pub(crate) fn add(state: &mut State, name: &Name, grant: &Grant, wall: WallTime, changes: &mut Vec<Change>) -> Applied {
    let security = state.security.as_mut().ok_or_else(in_none)?;
    let refused = |message: String| Err(Problem::new(Code::InvalidValue, message));
    if !grant.is_good(wall) {
        return refused("a grant that is good for no time is of no use".to_owned());
    }
    if let Scope::Only(names) = &grant.namespaces
        && !(1..=GRANT_NAMESPACES_MAX).contains(&names.len())
    {
        return refused(format!("a grant is of 1 to {GRANT_NAMESPACES_MAX} namespaces, or of all"));
    }
    if security.grants.get(name).is_some_and(|there| there.is_good(wall)) {
        let problem = Problem::new(Code::AlreadyExists, format!("there is a grant `{name}` already"));
        return Err(problem.help(format!("`rads c grants revoke {name}` ends it")));
    }
    if security.grants.len() >= GRANTS_MAX {
        security.grants.retain(|_, there| there.is_good(wall));
    }
    if security.grants.len() >= GRANTS_MAX {
        let problem = Problem::new(Code::NoCapacity, format!("there are {GRANTS_MAX} grants already"));
        return Err(problem.help("`rads c grants` lists them, `rads c grants revoke` ends one"));
    }
    if security.grants.values().any(|there| there.proof == grant.proof) {
        return Err(Problem::new(Code::AlreadyExists, "there is a grant with this token or key already"));
    }
    security.grants.insert(name.clone(), grant.clone());
    state.record(wall, format!("grant `{name}` made: {}", said(grant)));
    changes.push(Change::SecurityChanged);
    Ok(())
}

pub(crate) fn remove(state: &mut State, name: &Name, wall: WallTime, changes: &mut Vec<Change>) -> Applied {
    let security = state.security.as_mut().ok_or_else(in_none)?;
    if security.grants.remove(name).is_none() {
        let problem = Problem::new(Code::NotFound, format!("no grant `{name}`"));
        return Err(problem.help("`rads c grants` lists those there are"));
    }
    state.record(wall, format!("grant `{name}` revoked"));
    changes.push(Change::SecurityChanged);
    Ok(())
}

/// `viewer of shop`.
pub(crate) fn said(grant: &Grant) -> String {
    let namespaces = match &grant.namespaces {
        Scope::All => "all namespaces".to_owned(),
        Scope::Only(names) => quoted(names),
    };
    format!("{} of {namespaces}", grant.role)
}

fn quoted(names: &BTreeSet<Name>) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
