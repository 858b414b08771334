//! What each service needs next: asks `rollout`, plans what is missing, retires what is too much, and tells the proxy
//! where requests may go.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{Endpoint, EndpointSet, Network, ServiceKey, StarId, StarPhase};
use rollout::{Actions, Seen, Wanted, decide};
use scheduler::{Request as PlanRequest, plan};
use state::{Assignment, Command};

use crate::event::Effect;
use crate::log::Purpose;
use crate::node::{Node, Step};
use crate::timers::Timer;

/// Ended stars kept for each service, so that their logs can still be read.
const ENDED_KEPT: usize = 5;
/// When a write failed (a full disk), the next try comes this much later.
pub(crate) const WRITE_AGAIN: Duration = Duration::from_secs(1);

impl Node {
    /// Looks at one service and takes every step that is due.
    pub(crate) fn reconcile(&mut self, key: &ServiceKey, step: &mut Step<'_>) {
        let wanted = match self.state.services.get(key) {
            Some(record) => Wanted { stars: record.wanted(), revision: record.revision },
            None => Wanted { stars: 0, revision: 0 },
        };
        if let Some(service) = self.services.get_mut(key)
            && service.backoff_revision != wanted.revision
        {
            service.backoff_revision = wanted.revision;
            service.backoff.clear();
            service.last_failure = None;
        }
        let Actions { mut start, mut drain } = decide(wanted, &self.seen(key));
        if self.state.services.get(key).is_some_and(|record| record.paused) {
            // What stands still stays as it is; only what is not there yet may turn out to be too much.
            start = 0;
            drain.retain(|star| self.stars.get(star).is_some_and(|local| local.phase == StarPhase::Assigned));
        }
        // Nothing is started that could not be ordered; what serves goes on meanwhile.
        if start > 0 && self.nursery_up {
            self.assign(key, start, step);
        }
        if let Some(service) = self.services.get_mut(key) {
            drain.append(&mut service.leaving);
        }
        let draining: Vec<StarId> = drain.into_iter().filter(|star| self.retire(*star, step)).collect();
        self.publish(key, step);
        for star in draining {
            step.effects.push(Effect::Drain { star, service: key.clone() });
        }
        self.forget_ended(key, step);
        self.drop_if_gone(key);
    }

    /// The stars of a service, with those whose assignment is being written.
    fn seen(&self, key: &ServiceKey) -> Vec<Seen> {
        let of_service = self.stars.iter().filter(|(_, local)| local.service == *key);
        let mut seen: Vec<Seen> = of_service
            .filter_map(|(star, local)| {
                let phase = match local.phase {
                    StarPhase::Ended if self.holds_its_place(*star, local) => StarPhase::Ready,
                    StarPhase::Ended => return None,
                    // Whether another comes in its place is known when it has ended.
                    _ if local.overdue || local.leaves == Some(true) => StarPhase::Unready,
                    // Its place is not wanted: it counts for nothing from here on.
                    _ if local.leaves == Some(false) => StarPhase::Draining,
                    phase => phase,
                };
                Some(Seen { star: *star, revision: local.revision, ordinal: local.ordinal, phase })
            })
            .collect();
        let assigning = self.services.get(key).into_iter().flat_map(|service| &service.assigning);
        seen.extend(assigning.map(|(star, ordinal, revision)| Seen {
            star: *star,
            revision: *revision,
            ordinal: *ordinal,
            phase: StarPhase::Assigned,
        }));
        seen
    }

    /// Plans stars for the first free places, except those that wait for their back-off.
    fn assign(&mut self, key: &ServiceKey, count: u32, step: &mut Step<'_>) {
        let taken: BTreeSet<u32> = self.seen(key).iter().map(|seen| seen.ordinal).collect();
        let (Some(record), Some(service)) = (self.state.services.get(key), self.services.get_mut(key)) else { return };
        let is_free = |ordinal: &u32| {
            !taken.contains(ordinal) && !record.done.contains(ordinal) && !record.held.contains(ordinal)
        };
        let first: Vec<u32> = service.first.iter().copied().filter(is_free).collect();
        service.first.retain(|ordinal| taken.contains(ordinal));
        let others = (1..).filter(is_free).filter(|ordinal| !first.contains(ordinal));
        let free = first.iter().copied().chain(others);
        let mut ordinals = Vec::new();
        let mut next_try = None;
        for ordinal in free.take(count as usize) {
            match service.backoff.get(&ordinal).map(rollout::Backoff::not_before).filter(|at| *at > step.now) {
                Some(at) => next_try = Some(next_try.map_or(at, |first: model::Time| first.min(at))),
                None => ordinals.push(ordinal),
            }
        }
        if let Some(at) = next_try {
            self.timers.set(Timer::Service(key.clone()), at);
        }
        if ordinals.is_empty() {
            return;
        }
        let template = &record.spec.template;
        let on_host = self.state.stars.values().filter(|star| star.template.network == Network::Host);
        let ports: BTreeSet<u16> =
            on_host.filter(|star| star.phase != StarPhase::Ended).filter_map(|star| star.port).collect();
        let request = PlanRequest { service: key, template, ordinals: &ordinals };
        let view = self.config.view();
        let is_taken = |star: StarId| self.state.stars.contains_key(&star);
        let placements = plan(&view, &request, &mut self.ids, is_taken, &ports);
        let revision = record.revision;
        let stars: Vec<Assignment> = placements
            .into_iter()
            .map(|placement| Assignment {
                star: placement.star,
                service: key.clone(),
                revision,
                ordinal: placement.ordinal,
                node: placement.node,
                port: placement.port,
            })
            .collect();
        service.assigning.extend(stars.iter().map(|star| (star.star, star.ordinal, revision)));
        self.propose(Purpose::Assign, Command::Assign { stars, wall: step.wall }, step);
    }

    /// Tells the proxy where requests may go, when that is other than before.
    fn publish(&mut self, key: &ServiceKey, step: &mut Step<'_>) {
        let entry = self.state.services.get(key).and_then(|record| record.spec.entry.as_ref());
        let ready = self.stars.iter().filter(|(_, local)| local.service == *key && local.phase == StarPhase::Ready);
        let endpoints: Vec<Endpoint> =
            ready.filter_map(|(star, local)| Some(Endpoint { star: *star, port: local.port? })).collect();
        let Some(service) = self.services.get_mut(key) else { return };
        let (endpoints, balance) = match (entry, &service.published) {
            (Some(entry), _) => (endpoints, entry.balance),
            // No entry any more: nothing goes anywhere.
            (None, Some((_, balance))) => (Vec::new(), *balance),
            (None, None) => return,
        };
        let wanted = Some((endpoints.clone(), balance));
        let is_first = service.published.is_none();
        if service.published == wanted || (is_first && endpoints.is_empty()) {
            return;
        }
        service.published = wanted;
        service.generation += 1;
        let set = EndpointSet { generation: service.generation, endpoints };
        step.effects.push(Effect::Publish { service: key.clone(), set, balance });
    }

    /// Drops ended stars beyond those that are kept; all of a service that is gone.
    fn forget_ended(&mut self, key: &ServiceKey, step: &mut Step<'_>) {
        if self.log.is_under_way(&Purpose::Forget) {
            self.forget_later.insert(key.clone());
            return;
        }
        let kept = if self.state.services.contains_key(key) { ENDED_KEPT } else { 0 };
        let mut ended: Vec<_> = self.state.stars_of(key).filter(|star| star.phase == StarPhase::Ended).collect();
        if ended.len() <= kept {
            return;
        }
        ended.sort_by_key(|star| std::cmp::Reverse((star.ended, star.generation, star.id)));
        let stars: Vec<StarId> = ended.iter().skip(kept).map(|star| star.id).collect();
        self.propose(Purpose::Forget, Command::Forget { stars }, step);
    }

    /// A service that is neither known nor has stars left is no more. One whose entry point is being opened stays.
    fn drop_if_gone(&mut self, key: &ServiceKey) {
        let has_stars = self.stars.values().any(|local| local.service == *key);
        let is_opening = self.services.get(key).is_some_and(|service| service.address.is_some());
        if !has_stars && !is_opening && !self.state.services.contains_key(key) {
            self.services.remove(key);
            self.timers.clear(&Timer::Service(key.clone()));
        }
    }
}
