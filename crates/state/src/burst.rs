//! What a namespace has beyond its quota, which it keeps for as long as nobody else wants the room.
//!
//! What its services ask for stands in a row: those of a higher priority first, of equals those of the older app, then by name. As far as the quota
//! goes that is the namespace's own; of each service so many stars are, the older ones, and the others give way to any star that is
//! another's own, whatever the priorities are. Nothing of that is written down, and nothing of it follows from what runs: a star that
//! ends and comes back finds what was its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use model::namespace::Asked;
use model::{AppSpec, Duty, Name, Quota, ServiceKey, StarId, StarPhase, Usage, WallTime};

use crate::record::{StarRecord, State};

/// How many of the stars that are asked for of a service are its namespace's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub own: u32,
    pub asked: u32,
}

/// The stars of a service, the oldest first.
#[derive(Debug, Default)]
struct Row<'s> {
    stay: Vec<&'s StarRecord>,
    /// These go when others have come for them: each of them keeps its part until one of those is ready, and whoever comes has it
    /// already. A roll-out that cannot end for want of room must not leave a namespace twice what is its own.
    leave: Vec<&'s StarRecord>,
}

impl Row<'_> {
    /// How many of those that are the namespace's own have come for others.
    fn made_up(&self, share: Share) -> usize {
        self.stay.iter().take(share.own as usize).filter(|star| star.phase == StarPhase::Ready).count()
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
            let planned = planned.filter(|spec| spec.services.contains_key(name)).map(|spec| &spec.app);
            let app = planned.or_else(|| self.services.get(&key).map(|record| &record.app));
            app.and_then(|app| self.apps.get(app)).map_or(WallTime(u64::MAX), |app| app.created)
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

    /// How many more stars of a service would be its namespace's own, those that come for others included. `is_present`: of its present
    /// version, not of one that comes back for a while.
    pub fn own_left(&self, service: &ServiceKey, is_present: bool) -> u32 {
        let Some(share) = self.share_of(service) else { return u32::MAX };
        let row = self.row_of(service);
        let there = if is_present { row.stay.len() } else { row.made_up(share) + row.leave.len() };
        share.own.saturating_sub(u32::try_from(there).unwrap_or(u32::MAX))
    }

    /// The stars that a namespace has beyond its quota. None where it may have no more than that.
    pub fn beyond_quota(&self, namespace: &Name) -> BTreeSet<StarId> {
        let mut beyond = BTreeSet::new();
        for (name, share) in self.shares(namespace, None).into_iter().flatten() {
            if share.own == share.asked {
                continue;
            }
            let row = self.row_of(&ServiceKey { namespace: namespace.clone(), name });
            let (own, made_up) = (share.own as usize, row.made_up(share));
            beyond.extend(row.stay.iter().skip(own).chain(row.leave.iter().skip(own - made_up)).map(|star| star.id));
        }
        beyond
    }

    /// The same of the namespaces of these services together.
    pub fn beyond_quotas<'s>(&self, services: impl Iterator<Item = &'s ServiceKey>) -> BTreeSet<StarId> {
        let namespaces: BTreeSet<&Name> = services.map(|service| &service.namespace).collect();
        namespaces.into_iter().flat_map(|namespace| self.beyond_quota(namespace)).collect()
    }

    fn quota_with_burst(&self, namespace: &Name) -> Option<&Quota> {
        let quota = &self.namespaces.get(namespace)?.quota;
        quota.burst.is_some_and(|more| more > 0).then_some(quota)
    }

    fn row_of(&self, service: &ServiceKey) -> Row<'_> {
        let revision = self.services.get(service).map(|record| record.revision);
        let is_draining =
            |star: &StarRecord| self.nodes.get(&star.node).is_some_and(|node| node.duty == Duty::Draining);
        let mut stars: Vec<&StarRecord> =
            self.stars_of(service).filter(|star| star.phase < StarPhase::Draining && !star.leaving).collect();
        stars.sort_by_key(|star| (star.assigned, star.id));
        let stays = |star: &&StarRecord| Some(star.revision) == revision && !star.moves && !is_draining(star);
        let (stay, leave) = stars.into_iter().partition(stays);
        Row { stay, leave }
    }
}
