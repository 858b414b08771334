//! Who may do what: roles, namespaces, and the one function that says yes. What it does not allow is denied.
//!
//! How somebody proves to be who they are is `net`'s, which grants there are the log's, what each request asks for `api`'s.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Code, Name, NodeRole, Problem};

/// What somebody may do, each including what is above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Role {
    /// Looks: what runs, how it is, what it prints. Never a secret's value.
    Viewer,
    /// Runs apps, and goes into their stars.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// With its article.
    pub fn one(self) -> &'static str {
        match self {
            Self::Viewer => "a viewer",
            Self::Operator => "an operator",
            Self::Admin => "an admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The word given is no role of a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a role: use `viewer`, `operator` or `admin`", .0.escape_debug())]
pub struct NoRole(pub String);

impl FromStr for Role {
    type Err = NoRole;
    fn from_str(text: &str) -> Result<Self, NoRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| NoRole(text.to_owned()))
    }
}

/// Of which namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Scope {
    /// Every one, those to come, and what is of none.
    All,
    Only(BTreeSet<Name>),
}

impl Scope {
    pub fn has(&self, namespace: &Name) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(namespace),
        }
    }

    pub fn is_all(&self) -> bool {
        *self == Self::All
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.pad("all"),
            Self::Only(names) => f.pad(&names.iter().map(Name::as_str).collect::<Vec<_>>().join(",")),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    pub role: Role,
    pub namespaces: Scope,
}

/// What is asked for. Every request of the API is one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Verb {
    /// To see who answers, which machines there are, and how far the log has come.
    Greet,
    /// To see apps, services, stars, their counters, snapshots, events, and which secrets there are.
    See,
    /// To read what stars printed.
    ReadLogs,
    /// To send files of apps.
    Upload,
    /// To put, scale, limit, stop or remove apps, services and stars.
    Change,
    /// To keep, bring back or delete snapshots.
    Snapshot,
    /// To go into a star: run a command, copy files, connect to a port.
    Enter,
    /// To set or delete a secret.
    SetSecret,
    /// To read a secret's value.
    ReadSecret,
    /// To put an app that has weaker walls than usual.
    Weaken,
    /// To say which namespaces there are, how long, and what each may have.
    ManageNamespaces,
    /// To let machines in, say what they are for, or take them out; to end agents.
    ManageNodes,
    /// To see or change who may do what, who may come in and who is believed.
    ManageAccess,
    /// To take a backup, which holds every key.
    Backup,
    /// To read who did what.
    ReadAudit,
}

impl Verb {
    pub const ALL: [Self; 15] = [
        Self::Greet,
        Self::See,
        Self::ReadLogs,
        Self::Upload,
        Self::Change,
        Self::Snapshot,
        Self::Enter,
        Self::SetSecret,
        Self::ReadSecret,
        Self::Weaken,
        Self::ManageNamespaces,
        Self::ManageNodes,
        Self::ManageAccess,
        Self::Backup,
        Self::ReadAudit,
    ];

    /// As it is said after "may not".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Greet => "see nodes",
            Self::See => "see what runs",
            Self::ReadLogs => "read logs",
            Self::Upload => "send files",
            Self::Change => "change apps and services",
            Self::Snapshot => "keep or restore snapshots",
            Self::Enter => "go into stars",
            Self::SetSecret => "set secrets",
            Self::ReadSecret => "read secrets",
            Self::Weaken => "weaken the walls of stars",
            Self::ManageNamespaces => "manage namespaces",
            Self::ManageNodes => "manage nodes",
            Self::ManageAccess => "manage access",
            Self::Backup => "take backups",
            Self::ReadAudit => "read the audit log",
        }
    }

    /// The least role that may.
    pub fn least(self) -> Role {
        match self {
            Self::Greet | Self::See | Self::ReadLogs => Role::Viewer,
            Self::Upload | Self::Change | Self::Snapshot | Self::Enter | Self::SetSecret => Role::Operator,
            Self::ReadSecret
            | Self::Weaken
            | Self::ManageNamespaces
            | Self::ManageNodes
            | Self::ManageAccess
            | Self::Backup
            | Self::ReadAudit => Role::Admin,
        }
    }

    /// Whether it concerns all namespaces wherever it is done.
    pub fn concerns_all(self) -> bool {
        matches!(
            self,
            Self::Weaken
                | Self::ManageNamespaces
                | Self::ManageNodes
                | Self::ManageAccess
                | Self::Backup
                | Self::ReadAudit
        )
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where something is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// In whichever namespaces one may see: the answer is cut down to them, or is of none.
    Any,
    In(&'a Name),
    /// In a namespace that is not known, or in all of them.
    All,
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    Role,
    Namespace,
}

impl Rights {
    /// Of root and the data folder's owner on a controller, and of a controller itself.
    pub const EVERYTHING: Self = Self { role: Role::Admin, namespaces: Scope::All };

    /// Of who has none.
    pub fn nothing() -> Self {
        Self { role: Role::Viewer, namespaces: Scope::Only(BTreeSet::new()) }
    }

    /// What a node may ask of another in its own name: of a worker no more than it may have written.
    pub fn of_node(role: NodeRole) -> Self {
        match role {
            NodeRole::Controller => Self::EVERYTHING,
            NodeRole::Worker => Self { role: Role::Operator, namespaces: Scope::All },
        }
    }

    /// Whether this may be done there.
    ///
    /// # Errors
    /// Says which of both is missing; the role first.
    pub fn may(&self, verb: Verb, place: Place<'_>) -> Result<(), Denied> {
        if self.role < verb.least() {
            return Err(Denied::Role);
        }
        match place {
            Place::Any if !verb.concerns_all() => Ok(()),
            Place::In(namespace) if !verb.concerns_all() && self.namespaces.has(namespace) => Ok(()),
            _ if self.namespaces.is_all() => Ok(()),
            _ => Err(Denied::Namespace),
        }
    }

    /// What both may.
    pub fn and(&self, other: &Self) -> Self {
        let namespaces = match (&self.namespaces, &other.namespaces) {
            (Scope::All, rest) | (rest, Scope::All) => rest.clone(),
            (Scope::Only(one), Scope::Only(other)) => Scope::Only(one.intersection(other).cloned().collect()),
        };
        Self { role: self.role.min(other.role), namespaces }
    }
}

impl Denied {
    /// In words, to `who`.
    pub fn problem(self, who: &str, rights: &Rights, verb: Verb, place: Place<'_>) -> Problem {
        let may_not = |why: String| Problem::new(Code::Forbidden, format!("{who} may not {verb}: {why}"));
        let help = "an admin gives rights with `rads c grant`";
        match (self, place) {
            (Self::Role, _) => may_not(format!("it is {}, and this takes {}", rights.role.one(), verb.least().one())),
            (Self::Namespace, Place::In(namespace)) if !verb.concerns_all() => {
                may_not(format!("it has no rights in namespace `{namespace}`"))
            }
            (Self::Namespace, Place::Any) if !verb.concerns_all() => may_not("it has no rights here".to_owned()),
            (Self::Namespace, _) => may_not("this takes rights in all namespaces".to_owned()),
        }
        .help(help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn rights(role: Role, namespaces: &[&str]) -> Rights {
        let namespaces = match namespaces {
            ["*"] => Scope::All,
            names => Scope::Only(names.iter().map(|text| name(text)).collect()),
        };
        Rights { role, namespaces }
    }

    /// The table once more, by hand: who may, in a namespace of theirs.
    fn least(verb: Verb) -> (Role, bool) {
        match verb {
            Verb::Greet | Verb::See | Verb::ReadLogs => (Role::Viewer, false),
            Verb::Upload | Verb::Change | Verb::Snapshot | Verb::Enter | Verb::SetSecret => (Role::Operator, false),
            Verb::ReadSecret => (Role::Admin, false),
            Verb::Weaken
            | Verb::ManageNamespaces
            | Verb::ManageNodes
            | Verb::ManageAccess
            | Verb::Backup
            | Verb::ReadAudit => (Role::Admin, true),
        }
    }

    #[test]
    fn every_role_verb_and_namespace() {
        let (shop, other) = (name("shop"), name("other"));
        let mut allowed = 0;
        for role in Role::ALL {
            for verb in Verb::ALL {
                for (scope, place, inside) in [
                    (&["*"][..], Place::In(&shop), true),
                    (&["*"][..], Place::All, true),
                    (&["*"][..], Place::Any, true),
                    (&["shop"][..], Place::In(&shop), true),
                    (&["shop"][..], Place::In(&other), false),
                    (&["shop"][..], Place::All, false),
                    (&[][..], Place::In(&shop), false),
                    (&["other", "shop"][..], Place::In(&shop), true),
                ] {
                    let (least, of_all) = least(verb);
                    let expected = role >= least && inside && (!of_all || scope == ["*"]);
                    let found = rights(role, scope).may(verb, place);
                    assert_eq!(found.is_ok(), expected, "{role} {scope:?} {verb:?} {place:?}");
                    allowed += usize::from(expected);
                }
            }
        }
        assert!(allowed > 0);
        // A list is for everybody who may see at all; what is in it is cut down.
        assert_eq!(rights(Role::Viewer, &[]).may(Verb::See, Place::Any), Ok(()));
        assert_eq!(rights(Role::Admin, &["shop"]).may(Verb::Backup, Place::Any), Err(Denied::Namespace));
    }

    #[test]
    fn the_lesser_of_two_is_what_both_may() {
        let worker = Rights::of_node(NodeRole::Worker);
        assert_eq!(rights(Role::Admin, &["*"]).and(&worker), rights(Role::Operator, &["*"]));
        assert_eq!(rights(Role::Viewer, &["shop"]).and(&worker), rights(Role::Viewer, &["shop"]));
        assert_eq!(
            rights(Role::Admin, &["a", "b"]).and(&rights(Role::Admin, &["b", "c"])),
            rights(Role::Admin, &["b"])
        );
        assert_eq!(Rights::EVERYTHING.and(&Rights::of_node(NodeRole::Controller)), Rights::EVERYTHING);
    }

    #[test]
    fn a_denial_says_what_is_missing() {
        let shop = name("shop");
        let check = |rights: Rights, verb, place: Place<'_>, expected: &str| {
            let denied = rights.may(verb, place).unwrap_err();
            assert_eq!(denied.problem("`ann`", &rights, verb, place).message, expected);
        };
        check(
            rights(Role::Viewer, &["shop"]),
            Verb::Change,
            Place::In(&shop),
            "`ann` may not change apps and services: it is a viewer, and this takes an operator",
        );
        check(
            rights(Role::Viewer, &["other"]),
            Verb::See,
            Place::In(&shop),
            "`ann` may not see what runs: it has no rights in namespace `shop`",
        );
        check(
            rights(Role::Admin, &["shop"]),
            Verb::Backup,
            Place::All,
            "`ann` may not take backups: this takes rights in all namespaces",
        );
    }
}
