//! Grants: who, beside the users of its machines, may use a constellation, and by what they are known; and what stars may, which
//! their services give them.
//!
//! What a star asks for is judged here, as it is written: from the moment on at which its service is another, or gone, none of its
//! stars can do anything by what it was, wherever they run.

use std::collections::BTreeSet;

use model::access::{Place, Rights, Role, Scope, Verb};
use model::{AppSpec, Code, ContentHash, Name, Problem, ServiceKey, StarId, StarPhase, WallTime};
use serde::{Deserialize, Serialize};

use crate::apply::{Applied, Change};
use crate::audit::{Author, Who};
use crate::command::Command;
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

impl State {
    /// What a star may ask for now: what it was made with, as far as its service still has that. Nothing for one that was given nothing,
    /// or has ended.
    pub fn rights_of_star(&self, star: StarId) -> Option<Rights> {
        let record = self.stars.get(&star).filter(|record| record.phase != StarPhase::Ended)?;
        let own = &record.service.namespace;
        let made = record.template.access.as_ref()?.rights(own);
        let now = self.services.get(&record.service)?.spec.template.access.as_ref()?.rights(own);
        Some(made.and(&now))
    }

    /// What who asks may do, as far as the nodes may that it was asked at.
    fn rights_of(&self, author: &Author, wall: WallTime) -> Rights {
        let of_node = |node| self.nodes.get(&node).map_or(Rights::EVERYTHING, |record| Rights::of_node(record.role));
        let asked_at = author.by_way_of.map_or(of_node(author.node), |from| of_node(from).and(&of_node(author.node)));
        let own = match &author.who {
            Who::User(_) | Who::Agent => return asked_at,
            Who::Grant(name) => self.grant(name, wall).map(Grant::rights),
            Who::Star { star, .. } => self.rights_of_star(*star),
            Who::Stranger => None,
        };
        own.map_or_else(Rights::nothing, |own| own.and(&asked_at))
    }
}

/// Whether who asks may have this done, as far as it is not for the node alone to say that was asked: what a star asks for, and that
/// nobody gives stars more than they have.
pub(crate) fn check(state: &State, author: &Author, verb: Verb, command: &Command, wall: WallTime) -> Applied {
    let rights = state.rights_of(author, wall);
    if let Who::Star { star, service } = &author.who {
        check_star(state, author, (*star, service), &rights, verb, command)?;
    }
    match command {
        Command::PutApp { spec, .. } => gives_no_more(state, spec, &rights),
        _ => Ok(()),
    }
}

fn check_star(
    state: &State,
    author: &Author,
    (star, service): (StarId, &ServiceKey),
    rights: &Rights,
    verb: Verb,
    command: &Command,
) -> Applied {
    let record = state.stars.get(&star).filter(|record| record.service == *service);
    // A node speaks for its own stars.
    let Some(record) = record.filter(|record| record.node == author.by_way_of.unwrap_or(author.node)) else {
        let message = format!("no star of service `{service}` is known to run where this was asked for");
        return Err(Problem::new(Code::Forbidden, message));
    };
    if state.rights_of_star(star).is_none() {
        return Err(model::access::no_access(service));
    }
    if !verb.is_for_stars() {
        return Err(model::access::not_for_stars(service, verb));
    }
    let place = command.namespace().map_or(Place::All, Place::In);
    rights.may(verb, place).map_err(|denied| denied.problem_of_star(service, rights, verb, place))?;
    let Command::PutApp { spec, .. } = command else { return Ok(()) };
    for (name, wanted) in changed(state, spec) {
        if !wanted.template.missing_walls().is_empty() {
            return Err(model::access::not_for_stars(service, Verb::Weaken));
        }
        if wanted.template.bundle != record.template.bundle {
            let message =
                format!("service `{name}` is not made of the files of service `{service}`, whose star asks for it");
            return Err(Problem::new(Code::Forbidden, message)
                .help("a star deploys what it was made of: its `assets` are part of that"));
        }
    }
    Ok(())
}

/// Whose code runs with rights has them: who could put another in its place would have them too.
fn gives_no_more(state: &State, spec: &AppSpec, rights: &Rights) -> Applied {
    for (name, wanted) in changed(state, spec) {
        let Some(access) = &wanted.template.access else { continue };
        if !rights.covers(&access.rights(&spec.app.namespace)) {
            let has = format!("{} of {}", rights.role, of(&rights.namespaces));
            let message = format!("service `{name}` would be {access}, and who asks for it is {has}");
            return Err(Problem::new(Code::Forbidden, message)
                .help("give it an `access` that you have yourself, or ask an admin"));
        }
    }
    Ok(())
}

/// The services whose stars would be others.
fn changed<'s>(state: &State, spec: &'s AppSpec) -> impl Iterator<Item = (&'s Name, &'s model::ServiceSpec)> {
    spec.services.iter().filter(move |(name, wanted)| {
        let present = state.services.get(&spec.service_key(name));
        present.is_none_or(|present| present.spec.template != wanted.template)
    })
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
    let named = match &grant.namespaces {
        Scope::All => None,
        Scope::Only(names) => Some(names.len()),
        Scope::Like(patterns) => Some(patterns.len()),
    };
    if named.is_some_and(|named| !(1..=GRANT_NAMESPACES_MAX).contains(&named)) {
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
    format!("{} of {}", grant.role, of(&grant.namespaces))
}

fn of(scope: &Scope) -> String {
    fn quoted<T: std::fmt::Display>(names: &BTreeSet<T>) -> String {
        names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    }
    match scope {
        Scope::All => "all namespaces".to_owned(),
        Scope::Only(names) if names.is_empty() => "no namespace".to_owned(),
        Scope::Only(names) => quoted(names),
        Scope::Like(patterns) => quoted(patterns),
    }
}
