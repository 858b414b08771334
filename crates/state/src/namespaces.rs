//! Namespaces: which are kept by themselves, until when, and what each may have.
//!
//! A name is a namespace as soon as something is in it, and no longer than that. One that was made, or of which something was said,
//! is kept beside that: it stays when it is empty, may have a quota, and may have an end. When it ends, its apps and secrets end
//! with it, and its volumes do not: what nobody can make again is not removed by a clock. The clock is that of who leads; here
//! only times are compared that came in commands.

use std::collections::{BTreeMap, BTreeSet};

use model::namespace::{Asked, NAMESPACES_MAX, Services};
use model::{
    AppKey, AppSpec, Code, Name, NamespaceChange, Problem, Quota, SecretKey, ServiceKey, ServiceSpec, StarPhase, Usage,
    VolumeKey, WallTime,
};
use serde::{Deserialize, Serialize};

use crate::apply::{Applied, Change, remove_app};
use crate::everywhere;
use crate::record::{About, State};

/// What was said of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceRecord {
    pub created: WallTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    #[serde(default, skip_serializing_if = "Quota::is_empty")]
    pub quota: Quota,
    /// How much more processor time than their own its stars may borrow, in percent, where their service says nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_borrow: Option<u32>,
}

/// When a namespace ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub at: WallTime,
    /// When that was said.
    pub since: WallTime,
    /// It was warned of.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warned: bool,
}

/// Longest time before its end at which a namespace is warned of: somebody is to see it, and not to forget it again.
const WARN_MS: u64 = 3_600_000;

impl End {
    /// When it is warned of: an hour before, or when a tenth of its time is left, if that is later.
    pub fn warn_at(&self) -> WallTime {
        let tenth = self.at.0.saturating_sub(self.since.0) / 10;
        WallTime(self.at.0.saturating_sub(tenth.min(WARN_MS)))
    }
}

/// What is in a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inside {
    pub apps: Vec<AppKey>,
    pub services: u64,
    /// That have not ended, those of services that are gone included.
    pub stars: u64,
    pub secrets: Vec<SecretKey>,
    pub volumes: Vec<VolumeKey>,
}

impl Inside {
    /// Whether there is nothing that would be gone with it. Volumes stay.
    fn loses_nothing(&self) -> bool {
        self.apps.is_empty() && self.secrets.is_empty()
    }

    /// ``2 services with 6 stars, 1 secret, volume `pages` ``.
    pub fn said(&self) -> String {
        let count = |number: u64, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
        let mut parts = Vec::new();
        if self.services > 0 {
            parts.push(format!("{} with {}", count(self.services, "service"), count(self.stars, "star")));
        }
        if !self.secrets.is_empty() {
            parts.push(count(self.secrets.len() as u64, "secret"));
        }
        parts.extend(said_of_volumes(&self.volumes));
        if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
    }
}

/// Volumes named in one line.
const SAID_MAX: usize = 3;

fn said_of_volumes(volumes: &[VolumeKey]) -> Option<String> {
    let named: Vec<String> = volumes.iter().take(SAID_MAX).map(|volume| format!("`{volume}`")).collect();
    let more = match volumes.len().saturating_sub(SAID_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let what = if volumes.len() == 1 { "volume" } else { "volumes" };
    (!volumes.is_empty()).then(|| format!("{what} {}{more}", named.join(", ")))
}

impl State {
    /// Every namespace: those that are kept by themselves, those in which something is, and `default`.
    pub fn namespace_names(&self) -> BTreeSet<Name> {
        let mut names = BTreeSet::from([Name::default_namespace()]);
        names.extend(self.namespaces.keys().cloned());
        names.extend(self.apps.keys().map(|key| key.namespace.clone()));
        names.extend(self.services.keys().map(|key| key.namespace.clone()));
        names.extend(self.stars.services().map(|key| key.namespace.clone()));
        names.extend(self.secrets.keys().map(|key| key.namespace.clone()));
        names.extend(self.homes.keys().map(|key| key.namespace.clone()));
        names
    }

    pub fn inside(&self, namespace: &Name) -> Inside {
        let stars = self.stars.services().filter(|key| key.namespace == *namespace);
        let stars = stars.flat_map(|key| self.stars.of_service(key)).filter(|star| star.phase != StarPhase::Ended);
        Inside {
            apps: self.apps.keys().filter(|key| key.namespace == *namespace).cloned().collect(),
            services: self.services.keys().filter(|key| key.namespace == *namespace).count() as u64,
            stars: stars.count() as u64,
            secrets: self.secrets.keys().filter(|key| key.namespace == *namespace).cloned().collect(),
            volumes: self.homes.keys().filter(|key| key.namespace == *namespace).cloned().collect(),
        }
    }

    pub fn services_in<'s>(&'s self, namespace: &'s Name) -> Services<'s> {
        let services = self.services.iter().filter(move |(key, _)| key.namespace == *namespace);
        services.map(|(key, record)| (&key.name, Asked::of(&record.spec, record.everywhere))).collect()
    }

    /// What the services of a namespace ask for.
    pub fn usage_of(&self, namespace: &Name) -> Usage {
        Usage::of_services(&self.services_in(namespace))
    }

    /// Whether a namespace may have these in place of what it has. `gone` are services that it would have no more.
    ///
    /// # Errors
    /// `QuotaExceeded`, in words.
    pub(crate) fn check_quota(
        &self,
        namespace: &Name,
        put: &BTreeMap<Name, ServiceSpec>,
        gone: impl Fn(&Name) -> bool,
    ) -> Applied {
        let Some(record) = self.namespaces.get(namespace).filter(|record| !record.quota.is_empty()) else {
            return Ok(());
        };
        let before = self.services_in(namespace);
        let mut after = before.clone();
        after.retain(|name, _| !gone(name));
        after.extend(self.asked(put));
        record.quota.check(namespace, &before, &after)
    }

    fn asked<'s>(&'s self, put: &'s BTreeMap<Name, ServiceSpec>) -> impl Iterator<Item = (&'s Name, Asked<'s>)> {
        put.iter().map(|(name, spec)| (name, Asked::of(spec, everywhere::count(&self.nodes, &spec.placement))))
    }

    /// The services of a namespace with an app as it would be.
    pub(crate) fn services_with<'s>(&'s self, app: &'s AppSpec) -> Services<'s> {
        let namespace = &app.app.namespace;
        let others = self.services.iter().filter(|(key, of)| key.namespace == *namespace && of.app != app.app);
        let others = others.map(|(key, record)| (&key.name, Asked::of(&record.spec, record.everywhere)));
        others.chain(self.asked(&app.services)).collect()
    }

    /// The same for one service that is changed by itself.
    pub(crate) fn check_quota_of(&self, service: &ServiceKey, spec: ServiceSpec) -> Applied {
        self.check_quota(&service.namespace, &BTreeMap::from([(service.name.clone(), spec)]), |_| false)
    }
}

/// Says something of a namespace; of one that is not there yet when it is `new`.
pub(crate) fn set(
    state: &mut State,
    name: &Name,
    change: &NamespaceChange,
    new: bool,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    change.check()?;
    let is_default = *name == Name::default_namespace();
    let is_there = state.namespace_names().contains(name);
    if new && is_there {
        let problem = Problem::new(Code::AlreadyExists, format!("there is a namespace `{name}` already"));
        return Err(
            problem.help(format!("`rads c ns show {name}` shows what is in it, `rads c ns set {name}` changes it"))
        );
    }
    if !new && !is_there {
        return Err(missing(name));
    }
    if is_default && change.ttl_ms.flatten().is_some() {
        let problem = Problem::new(Code::InvalidValue, "namespace `default` has no end");
        return Err(problem.help("what is to end goes into a namespace of its own"));
    }
    if !state.namespaces.contains_key(name) && state.namespaces.len() >= NAMESPACES_MAX {
        let problem = Problem::new(Code::NoCapacity, format!("there are {NAMESPACES_MAX} namespaces already"));
        return Err(problem.help("`rads c ns list` lists them, `rads c ns delete` ends one"));
    }
    let over = {
        let before = state.namespaces.get(name).map(|record| record.quota).unwrap_or_default();
        change.quota.of(&before).exceeded(&state.services_in(name))
    };
    let made = NamespaceRecord { created: wall, end: None, quota: Quota::default(), cpu_borrow: None };
    let record = state.namespaces.entry(name.clone()).or_insert(made);
    let mut said = Vec::new();
    if let Some(ttl) = change.ttl_ms {
        record.end = ttl.map(|ttl| End { at: WallTime(wall.0.saturating_add(ttl)), since: wall, warned: false });
        said.push(ttl.map_or("it has no end".to_owned(), |ttl| format!("it ends in {}", span(ttl))));
    }
    let quota = change.quota.of(&record.quota);
    if quota != record.quota {
        record.quota = quota;
        said.push(if quota.is_empty() { "it has no quota".to_owned() } else { "it has another quota".to_owned() });
        if !over.is_empty() {
            said.push(format!("more than that is used and stays, without growing: {}", over.join(", ")));
        }
    }
    if let Some(more) = change.cpu_borrow.filter(|more| *more != record.cpu_borrow) {
        record.cpu_borrow = more;
        said.push(more.map_or("its stars borrow nothing".to_owned(), |more| {
            format!("its stars may borrow {more} % more processor time")
        }));
    }
    let what = if new { "created" } else { "changed" };
    let said = if said.is_empty() { String::new() } else { format!(": {}", said.join("; ")) };
    state.record_of(About::namespace(name), wall, format!("namespace `{name}` {what}{said}"));
    changes.push(Change::NamespaceChanged { namespace: name.clone() });
    Ok(())
}

pub(crate) fn delete(
    state: &mut State,
    name: &Name,
    force: bool,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    if *name == Name::default_namespace() {
        let problem = Problem::new(Code::InvalidValue, "namespace `default` is always there");
        return Err(problem.help("`rads c down` takes its apps down"));
    }
    // A machine that is alone keeps secrets beside the log, and may have nothing else of it.
    let may_have_secrets = force && state.cluster.is_none();
    if !may_have_secrets && !state.namespace_names().contains(name) {
        return Err(missing(name));
    }
    let inside = state.inside(name);
    if !force && !inside.loses_nothing() {
        let problem = Problem::new(Code::Conflict, format!("namespace `{name}` is not empty: {}", inside.said()));
        return Err(problem.help("`--force` removes what is in it; volumes stay"));
    }
    clear(state, name, inside, "deleted", wall, changes);
    Ok(())
}

/// Warns of the end of a namespace, unless that is another by now.
pub(crate) fn warn(state: &mut State, name: &Name, at: WallTime, wall: WallTime, changes: &mut Vec<Change>) -> Applied {
    let inside = state.inside(name);
    let end = state.namespaces.get_mut(name).and_then(|record| record.end.as_mut());
    let Some(end) = end.filter(|end| end.at == at && !end.warned) else { return Err(otherwise(name)) };
    end.warned = true;
    let mut what = format!("namespace `{name}` ends in {}", span(at.0.saturating_sub(wall.0)));
    let gone = Inside { volumes: Vec::new(), ..inside.clone() };
    if !gone.loses_nothing() {
        what += &format!(", with what is in it: {}", gone.said());
    }
    what.extend(said_of_volumes(&inside.volumes).map(|volumes| format!("; kept: {volumes}")));
    state.record_of(About::namespace(name), wall, what);
    changes.push(Change::NamespaceChanged { namespace: name.clone() });
    Ok(())
}

/// Ends a namespace whose time is over. Refused when it was given more meanwhile, and when its time is not over by the clock of who
/// says so.
pub(crate) fn end(state: &mut State, name: &Name, at: WallTime, wall: WallTime, changes: &mut Vec<Change>) -> Applied {
    let end = state.namespaces.get(name).and_then(|record| record.end);
    if !end.is_some_and(|end| end.at == at && at <= wall) {
        return Err(otherwise(name));
    }
    let inside = state.inside(name);
    clear(state, name, inside, "ended: its time was over", wall, changes);
    Ok(())
}

fn clear(state: &mut State, name: &Name, inside: Inside, how: &str, wall: WallTime, changes: &mut Vec<Change>) {
    let mut what = format!("namespace `{name}` {how}");
    let gone = Inside { volumes: Vec::new(), ..inside.clone() };
    if !gone.loses_nothing() {
        what += &format!("; gone with it: {}", gone.said());
    }
    what.extend(said_of_volumes(&inside.volumes).map(|volumes| format!("; kept: {volumes}")));
    for app in &inside.apps {
        // It was found a moment ago.
        let _ = remove_app(state, app, wall, changes);
    }
    for secret in inside.secrets {
        state.secrets.remove(&secret);
        changes.push(Change::SecretDeleted { secret });
    }
    state.namespaces.remove(name);
    state.record_of(About::namespace(name), wall, what);
    changes.push(Change::NamespaceRemoved { namespace: name.clone() });
}

fn missing(name: &Name) -> Problem {
    Problem::new(Code::NotFound, format!("no namespace `{name}`")).help("`rads c ns list` lists them")
}

fn otherwise(name: &Name) -> Problem {
    Problem::new(Code::Conflict, format!("the end of namespace `{name}` is another by now"))
}

/// `3 days`, `2 h`, `90 s`: the largest unit of which there are two, or exactly one.
pub fn span(ms: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("days", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)];
    let fits = |(_, size): &&(&str, u64)| ms >= 2 * size || ms == *size;
    match UNITS.iter().find(fits) {
        Some(("days", _)) if ms == UNITS[0].1 => "1 day".to_owned(),
        Some((unit, size)) => format!("{} {unit}", (ms + size / 2) / size),
        None => format!("{} s", ms.div_ceil(1_000)),
    }
}
