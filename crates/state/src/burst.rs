//! What a namespace has beyond its quota, which it keeps for as long as nobody else wants the room.
//!
//! What its services ask for stands in a row: those of a higher priority first, of equals those of the older app, then by name. As far as the quota
//! goes that is the namespace's own; of each service so many stars are, the older ones, and the others give way to any star that is
//! another's own, whatever the priorities are. Nothing of that is written down, and nothing of it follows from what runs: a star that
//! ends and comes back finds what was its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use model::namespace::Asked;
use model::{AppSpec, Name, Quota, ServiceKey, StarId, StarPhase, Usage, WallTime};

use crate::record::{StarRecord, State};

/// How much of a service is its namespace's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Of the stars that are asked for.
    pub own: u32,
    pub asked: u32,
}

impl Share {
    /// Whether a star is, by its place among those of its service, the oldest first, from 0. One that comes beside those that are asked
    /// for takes the place of one of them.
    pub fn is_own(&self, place: u32) -> bool {
        place < self.own || place.checked_sub(self.asked).is_some_and(|place| place < self.own)
    }
}

impl State {
    /// What of each service of a namespace is its own, an app counted as it is planned. `None`: all of it, since there may be no more than
    /// the quota.
    pub fn shares(&self, namespace: &Name, planned: Option<&AppSpec>) -> Option<BTreeMap<Name, Share>> {
        let quota = self.quota_with_burst(namespace)?;
        let services = match planned {
            Some(spec) => self.services_with(spec),
            None => self.services_in(namespace),
        };
        let since = |name: &Name| {
            let key = ServiceKey { namespace: namespace.clone(), name: name.clone() };
            let app = self.services.get(&key).and_then(|record| self.apps.get(&record.app));
            app.map_or(WallTime(u64::MAX), |app| app.created)
        };
        let mut row: Vec<_> = services.iter().map(|(name, asked)| (*name, asked)).collect();
        row.sort_by_cached_key(|(name, asked)| (Reverse(asked.spec.placement.priority), since(name), *name));
        let (mut used, mut is_full) = (Usage::default(), false);
        let share = |(name, asked): (&Name, &Asked<'_>)| {
            let star = Usage::of_star(asked.spec, &services);
            let own = if is_full { 0 } else { quota.has_room_for(&used, &star, asked.stars) };
            used.add(&star, own);
            is_full |= own < asked.stars;
            (name.clone(), Share { own, asked: asked.stars })
        };
        Some(row.into_iter().map(share).collect())
    }

    /// The same of one service. `None` for one that is not there.
    pub fn share_of(&self, service: &ServiceKey) -> Option<Share> {
        self.shares(&service.namespace, None)?.remove(&service.name)
    }

    /// Whether the next star of a service would be its namespace's own, after so many others that come.
    pub fn is_next_own(&self, service: &ServiceKey, others: u32) -> bool {
        let Some(share) = self.share_of(service) else { return true };
        let there = u32::try_from(self.staying(service).count()).unwrap_or(u32::MAX);
        share.is_own(there.saturating_add(others))
    }

    /// The stars that a namespace has beyond its quota. None where it may have no more than that.
    pub fn beyond_quota(&self, namespace: &Name) -> BTreeSet<StarId> {
        let mut beyond = BTreeSet::new();
        for (name, share) in self.shares(namespace, None).into_iter().flatten() {
            if share.own == share.asked {
                continue;
            }
            let mut stars: Vec<&StarRecord> =
                self.staying(&ServiceKey { namespace: namespace.clone(), name }).collect();
            stars.sort_by_key(|star| (star.assigned, star.id));
            beyond.extend((0..).zip(stars).filter(|(place, _)| !share.is_own(*place)).map(|(_, star)| star.id));
        }
        beyond
    }

    fn quota_with_burst(&self, namespace: &Name) -> Option<&Quota> {
        let quota = &self.namespaces.get(namespace)?.quota;
        quota.burst.is_some_and(|more| more > 0).then_some(quota)
    }

    fn staying(&self, service: &ServiceKey) -> impl Iterator<Item = &StarRecord> {
        self.stars_of(service).filter(|star| star.phase < StarPhase::Draining && !star.leaving)
    }
}
