//! Who may do what: roles, namespaces, and the one function that says yes. What it does not allow is denied.
//!
//! How somebody proves to be who they are is `net`'s, which grants there are the log's, what each request asks for `api`'s.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::schema::text_schema;
use crate::{Code, Name, NodeRole, Problem, ServiceKey};

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
    /// Those to come included, as far as they are called so. One pattern at least is of many names: see [`Scope::of`].
    Like(BTreeSet<Pattern>),
}

impl Scope {
    /// Those that are meant by any of these.
    pub fn of(patterns: BTreeSet<Pattern>) -> Self {
        let names = patterns.iter().map(|pattern| match pattern {
            Pattern::Name(name) => Some(name.clone()),
            Pattern::Prefix(_) => None,
        });
        match names.collect() {
            Some(names) => Self::Only(names),
            None => Self::Like(patterns),
        }
    }

    pub fn has(&self, namespace: &Name) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(namespace),
            Self::Like(patterns) => patterns.iter().any(|pattern| pattern.means(namespace)),
        }
    }

    /// Whether it says what there is of such namespaces, and not only of this one: who has that may make it and take it away.
    pub fn has_kind(&self, namespace: &Name) -> bool {
        match self {
            Self::All => true,
            Self::Only(_) => false,
            Self::Like(patterns) => {
                patterns.iter().any(|pattern| matches!(pattern, Pattern::Prefix(_)) && pattern.means(namespace))
            }
        }
    }

    pub fn is_all(&self) -> bool {
        *self == Self::All
    }

    /// Whether everything of `other` is of this.
    pub fn covers(&self, other: &Self) -> bool {
        let covered = |pattern: &Pattern| self.patterns().iter().any(|own| own.covers(pattern));
        self.is_all() || (!other.is_all() && other.patterns().iter().all(covered))
    }

    /// What is of both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, rest) | (rest, Self::All) => rest.clone(),
            (one, other) => {
                let (one, other) = (one.patterns(), other.patterns());
                let lesser = |a: &Pattern| {
                    let met = other.iter().filter_map(|b| a.and(b).cloned()).collect::<Vec<_>>();
                    met.into_iter()
                };
                Self::of(one.iter().flat_map(lesser).collect())
            }
        }
    }

    /// Nothing of all of them.
    fn patterns(&self) -> BTreeSet<Pattern> {
        match self {
            Self::All => BTreeSet::new(),
            Self::Only(names) => names.iter().cloned().map(Pattern::Name).collect(),
            Self::Like(patterns) => patterns.clone(),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.pad("all"),
            Self::Only(names) => f.pad(&names.iter().map(Name::as_str).collect::<Vec<_>>().join(",")),
            Self::Like(patterns) => f.pad(&patterns.iter().map(Pattern::to_string).collect::<Vec<_>>().join(",")),
        }
    }
}

/// One namespace, or all that begin so: `dev-*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Pattern {
    Name(Name),
    /// Without the star; what a name may begin with.
    Prefix(String),
}

text_schema!(Pattern);

/// The text given is no namespace and no pattern of some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a namespace: use its name, or how names begin and a star, as `dev-*`", .0.escape_debug())]
pub struct InvalidPattern(pub String);

impl Pattern {
    pub fn means(&self, namespace: &Name) -> bool {
        match self {
            Self::Name(name) => name == namespace,
            Self::Prefix(prefix) => namespace.as_str().starts_with(prefix.as_str()),
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (own, Self::Name(name)) => own.means(name),
            (Self::Prefix(prefix), Self::Prefix(longer)) => longer.starts_with(prefix.as_str()),
            (Self::Name(_), Self::Prefix(_)) => false,
        }
    }

    /// Of two that have something in common, the narrower has it all.
    fn and<'p>(&'p self, other: &'p Self) -> Option<&'p Self> {
        if self.covers(other) { Some(other) } else { Some(self).filter(|_| other.covers(self)) }
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidPattern;
    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        let Some(prefix) = text.strip_suffix('*') else {
            return Name::try_from(text).map(Self::Name).map_err(|invalid| InvalidPattern(invalid.0));
        };
        // With one letter more it is a name.
        match format!("{prefix}x").parse::<Name>() {
            Ok(_) if !prefix.is_empty() => Ok(Self::Prefix(prefix.to_owned())),
            _ => Err(InvalidPattern(text)),
        }
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;
    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        Self::try_from(text.to_owned())
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.pad(name.as_str()),
            Self::Prefix(prefix) => f.pad(&format!("{prefix}*")),
        }
    }
}

/// What the stars of a service may ask of the constellation. Who has none may ask for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Access {
    pub role: Role,
    /// Their own when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Scope>,
}

impl Access {
    /// As rights of somebody in a namespace.
    pub fn rights(&self, own: &Name) -> Rights {
        let its_own = || Scope::Only([own.clone()].into());
        Rights { role: self.role, namespaces: self.namespaces.clone().unwrap_or_else(its_own) }
    }

    /// What both give, to stars of a namespace.
    #[must_use]
    pub fn and(&self, other: &Self, own: &Name) -> Self {
        if self == other {
            return self.clone();
        }
        let Rights { role, namespaces } = self.rights(own).and(&other.rights(own));
        Self { role, namespaces: Some(namespaces) }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespaces {
            None => f.pad(&format!("{} of its own namespace", self.role)),
            Some(Scope::All) => f.pad(&format!("{} of all namespaces", self.role)),
            Some(some) => f.pad(&format!("{} of {}", self.role, some.to_string().replace(',', ", "))),
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

    /// Whether a star may have it done at all. What has secrets' values, the insides of other stars, or says who is believed is for people
    /// only, and so are files: a star deploys what it was made of.
    pub fn is_for_stars(self) -> bool {
        match self {
            Self::Greet | Self::See | Self::ReadLogs | Self::Change | Self::ManageNamespaces => true,
            Self::Upload
            | Self::Snapshot
            | Self::Enter
            | Self::SetSecret
            | Self::ReadSecret
            | Self::Weaken
            | Self::ManageNodes
            | Self::ManageAccess
            | Self::Backup
            | Self::ReadAudit => false,
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
            // Which ones there are of a kind concerns those of that kind alone.
            Place::In(namespace) if verb == Verb::ManageNamespaces && self.namespaces.has_kind(namespace) => Ok(()),
            _ if self.namespaces.is_all() => Ok(()),
            _ => Err(Denied::Namespace),
        }
    }

    /// What both may.
    pub fn and(&self, other: &Self) -> Self {
        Self { role: self.role.min(other.role), namespaces: self.namespaces.and(&other.namespaces) }
    }

    /// Whether whatever the other may, this may.
    pub fn covers(&self, other: &Self) -> bool {
        self.role >= other.role && self.namespaces.covers(&other.namespaces)
    }
}

/// What the stars of a service are told that may ask for nothing.
pub fn no_access(service: &ServiceKey) -> Problem {
    let message = format!("the stars of service `{service}` may ask for nothing: it has no `access`");
    Problem::new(Code::Forbidden, message)
        .help("give the service the option `access`, such as `access: \"operator\"`; its next stars have it")
}

/// What they are told when it is for nobody's stars.
pub fn not_for_stars(service: &ServiceKey, verb: Verb) -> Problem {
    let message = format!("service `{service}` may not {verb}: no star may, whatever its `access`");
    Problem::new(Code::Forbidden, message).help("somebody outside of stars can, with `rads` or a grant")
}

impl Denied {
    /// The same to a star.
    pub fn problem_of_star(self, service: &ServiceKey, rights: &Rights, verb: Verb, place: Place<'_>) -> Problem {
        let problem = self.problem(&format!("service `{service}`"), rights, verb, place);
        problem.help(format!("the option `access` of service `{service}` says what its stars may do, and where"))
    }

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
            names => Scope::of(names.iter().map(|text| text.parse().unwrap()).collect()),
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
    fn namespaces_may_be_named_by_how_they_begin() {
        let scope = |names: &[&str]| rights(Role::Viewer, names).namespaces;
        assert_eq!(scope(&["a", "b"]), Scope::Only([name("a"), name("b")].into()));
        let dev = scope(&["dev-*", "shop"]);
        for (namespace, has, has_kind) in
            [("dev-ann", true, true), ("shop", true, false), ("dev", false, false), ("prod", false, false)]
        {
            assert_eq!((dev.has(&name(namespace)), dev.has_kind(&name(namespace))), (has, has_kind), "{namespace}");
        }
        for text in ["*", "-*", "Dev*", "a*b", "", &format!("{}*", "x".repeat(63))] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
        let (one, other) = (scope(&["dev-*", "shop"]), scope(&["dev-a*", "shop", "prod"]));
        assert_eq!(one.and(&other), scope(&["dev-a*", "shop"]));
        assert_eq!(other.and(&one), one.and(&other));
        assert_eq!(scope(&["dev-*"]).and(&scope(&["dev-ann", "eve"])), scope(&["dev-ann"]));
        assert_eq!(scope(&["a"]).and(&scope(&["b"])), scope(&[]));
        let covers = |one: &[&str], other: &[&str], expected| {
            assert_eq!(scope(one).covers(&scope(other)), expected, "{one:?} {other:?}");
        };
        covers(&["*"], &["dev-*"], true);
        covers(&["dev-*"], &["*"], false);
        covers(&["dev-*"], &["dev-a*", "dev-b"], true);
        covers(&["dev-a*"], &["dev-*"], false);
        covers(&["dev-a"], &["dev-a*"], false);
        covers(&["dev-*"], &["dev-a", "prod"], false);
        covers(&[], &[], true);
    }

    #[test]
    fn who_has_a_kind_of_namespaces_says_which_there_are_of_it_and_no_others() {
        let (dev, prod) = (name("dev-ann"), name("prod"));
        let may = |rights: Rights, namespace: &Name| rights.may(Verb::ManageNamespaces, Place::In(namespace)).is_ok();
        assert!(may(rights(Role::Admin, &["dev-*"]), &dev));
        assert!(!may(rights(Role::Admin, &["dev-*"]), &prod));
        assert!(!may(rights(Role::Operator, &["dev-*"]), &dev));
        // As before: who has a namespace has what is in it.
        assert!(!may(rights(Role::Admin, &["dev-ann"]), &dev));
        assert_eq!(rights(Role::Admin, &["dev-*"]).may(Verb::ManageNodes, Place::In(&dev)), Err(Denied::Namespace));
    }

    #[test]
    fn what_two_give_is_no_more_than_each_and_no_access_has_more_than_its_giver() {
        let access = |role, names: Option<&[&str]>| Access {
            role,
            namespaces: names.map(|names| rights(role, names).namespaces),
        };
        let own = name("ci");
        let both = access(Role::Admin, Some(&["ci", "dev-*"])).and(&access(Role::Operator, None), &own);
        assert_eq!(both, access(Role::Operator, Some(&["ci"])));
        assert_eq!(access(Role::Operator, None).rights(&own), rights(Role::Operator, &["ci"]));
        assert!(rights(Role::Operator, &["ci"]).covers(&access(Role::Operator, None).rights(&own)));
        assert!(!rights(Role::Operator, &["ci"]).covers(&access(Role::Admin, None).rights(&own)));
        assert!(!rights(Role::Admin, &["ci"]).covers(&access(Role::Viewer, Some(&["*"])).rights(&own)));
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
