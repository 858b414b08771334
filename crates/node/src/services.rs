//! What each service needs next: asks `rollout`, plans what is missing, retires what is too much, and tells the proxy
//! where requests may go.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{Endpoint, EndpointSet, Limits, Reserve, ServiceKey, StarId, StarPhase, UpdateStrategy, WallTime};
use rollout::{Actions, Pace, Seen, Wanted, decide};
use scheduler::{Placed, Request as PlanRequest, plan};
use state::{Assignment, Command, StarRecord};

use crate::event::Effect;
use crate::ground::{Ground, was_taken_back};
use crate::log::Purpose;
use crate::node::{Local, Node, Step};
use crate::stars::is_over;
use crate::timers::Timer;

/// Ended stars kept for each service, so that their logs can still be read.
const ENDED_KEPT: usize = 5;
/// Stars assigned by one command: what is written at once has a bound (768 KiB), and one with the longest names takes 330 bytes. The
/// next follow when these are written.
pub(crate) const ASSIGNED_AT_ONCE: u32 = 1_000;
/// When a write failed (a full disk), the next try comes this much later.
pub(crate) const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// What a service is to be that is not known any more.
const GONE: Wanted = Wanted {
    stars: 0,
    revision: 0,
    singleton: false,
    in_place: false,
    pace: Pace { surge: 1, unavailable: 0, trial: None, previous: None, held: false },
};

impl Node {
    /// Looks at one service and takes every step that is due.
    pub(crate) fn reconcile(&mut self, key: &ServiceKey, step: &mut Step<'_>) {
        let record = self.state.services.get(key);
        let wanted = record.map_or(GONE, |record| self.wanted_of(key, record));
        if let Some(service) = self.services.get_mut(key)
            && service.revision != wanted.revision
        {
            service.revision = wanted.revision;
            service.backoff.retain(|(revision, _), _| record.is_some_and(|record| record.spec_of(*revision).is_some()));
            service.shuns.clear();
            service.last_failure = None;
        }
        // Who else leads plans for all.
        let seen = if self.peers.leads { self.seen(key, step.wall) } else { Vec::new() };
        let Actions { mut start, mut start_previous, mut drain } =
            if self.peers.leads { decide(wanted, &seen) } else { Actions::default() };
        let is_paused = record.is_some_and(|record| record.paused);
        if is_paused {
            // What stands still stays as it is; only what is not there yet may turn out to be too much.
            (start, start_previous) = (0, 0);
            drain.retain(|star| self.phase_of(*star) == Some(StarPhase::Assigned));
        }
        if record.is_some_and(|record| record.spec.hold.is_some()) {
            self.free_first(wanted.revision, &seen, &mut drain);
        }
        if self.resting {
            (start, start_previous) = (0, 0);
            drain = self.own_of(key).map(|(star, _)| star).collect();
        }
        if let Some(previous) = wanted.pace.previous.filter(|_| start_previous > 0) {
            self.assign(key, previous.revision, start_previous, &seen, step);
        }
        if start > 0 {
            self.assign(key, wanted.revision, start, &seen, step);
        } else if start_previous == 0 && self.making_room.remove(key).is_some() {
            // It is not wanted any more: there may be room for others.
            self.dirty.append(&mut self.roomless);
        }
        if start == 0
            && start_previous == 0
            && let Some(service) = self.services.get_mut(key)
        {
            (service.homeless, service.room_at) = (false, None);
            if self.peers.leads && service.assigning.is_empty() && !is_paused {
                // Nothing is wanted: nothing comes there, unless a star still is there that goes.
                service.first.retain(|ordinal| self.state.stars.is_taken(key, *ordinal));
            }
        }
        let elsewhere: Vec<StarId> = drain.extract_if(.., |star| !self.stars.contains_key(star)).collect();
        self.retire_elsewhere(&elsewhere, step);
        if let Some(service) = self.services.get_mut(key) {
            drain.append(&mut service.leaving);
        }
        let draining: Vec<StarId> = drain.into_iter().filter(|star| self.retire(*star, step)).collect();
        self.settle_rollout(key, &seen, step);
        self.begin_due(key, step);
        self.turn_hold(key, step);
        self.publish(key, step);
        for star in draining {
            step.effects.push(Effect::Drain { star, service: key.clone() });
        }
        self.forget_ended(key, step);
        self.drop_if_gone(key);
    }

    /// The stars of a service, with those whose assignment is being written.
    pub(crate) fn seen(&self, key: &ServiceKey, wall: WallTime) -> Vec<Seen> {
        let ground = self.ground_of(key);
        let mut seen: Vec<Seen> = self
            .own_of(key)
            .filter_map(|(star, local)| {
                let record = self.state.stars.get(&star)?;
                let phase = match local.phase {
                    StarPhase::Ended => self.counts_as(local, record)?,
                    // Whether another comes in the place of one that is overdue is known when it has ended.
                    _ if record.leaving || local.overdue => self.leaves_as(record),
                    StarPhase::Ready if ground.was_taken_back(local.revision) => StarPhase::Unready,
                    phase => phase,
                };
                let revision = ground.revision_on(self.config.node, local.revision, record.moves);
                let (has_ended, ordinal) = (local.phase == StarPhase::Ended, local.ordinal);
                let settled = !has_ended && ground.has_settled(record, phase, wall);
                let goes = has_ended || record.leaving || local.overdue;
                Some(Seen { star, revision, ordinal, phase, settled, goes })
            })
            .collect();
        seen.extend(self.state.stars_of(key).filter_map(|record| self.seen_elsewhere(record, &ground, wall)));
        let assigning = self.services.get(key).into_iter().flat_map(|service| &service.assigning);
        seen.extend(assigning.map(|(star, _, ordinal, revision)| Seen {
            star: *star,
            revision: *revision,
            ordinal: *ordinal,
            phase: StarPhase::Assigned,
            settled: false,
            goes: false,
        }));
        seen
    }

    /// What a star counts as that has ended here but not in the state yet: until it has, the next in its place would be refused.
    fn counts_as(&self, local: &Local, record: &StarRecord) -> Option<StarPhase> {
        let exit = local.exit.as_ref().filter(|_| record.phase != StarPhase::Ended)?;
        let service = self.state.services.get(&record.service);
        let is_over = || match service {
            Some(service) if service.spec.job.is_some() => exit.cause.is_success(),
            _ => is_over(record.template.restart, &exit.cause),
        };
        Some(match self.leaves_as(record) {
            StarPhase::Draining => StarPhase::Draining,
            // The next is to have its place.
            _ if record.leaving => StarPhase::Starting,
            _ if exit.asked => StarPhase::Draining,
            _ if !is_over() => StarPhase::Starting,
            // It stays ended, and nothing is missing. One of a version that is not wanted any more is just gone.
            _ if service.is_some_and(|service| service.revision == record.revision) => StarPhase::Ready,
            _ => StarPhase::Draining,
        })
    }

    /// What a star counts as that goes, or has gone, before its place is wanted: for nothing when that is held free, or its service is
    /// no more, else as one of those that are wanted.
    fn leaves_as(&self, record: &StarRecord) -> StarPhase {
        let service = self.state.services.get(&record.service);
        match service.is_some_and(|service| !service.held.contains(&record.ordinal)) {
            true => StarPhase::Unready,
            false => StarPhase::Draining,
        }
    }

    /// A star as the log has it: of another machine, or a place of a reservation.
    fn seen_elsewhere(&self, record: &StarRecord, ground: &Ground<'_>, wall: WallTime) -> Option<Seen> {
        if record.phase == StarPhase::Ended || (record.node == self.config.node && !record.is_place()) {
            return None;
        }
        let phase = match record.phase {
            _ if self.retiring.contains(&record.id) => StarPhase::Draining,
            _ if record.leaving => self.leaves_as(record),
            StarPhase::Ready if ground.was_taken_back(record.revision) => StarPhase::Unready,
            phase => phase,
        };
        let revision = ground.revision_on(record.node, record.revision, record.moves);
        let settled = ground.has_settled(record, phase, wall);
        Some(Seen { star: record.id, revision, ordinal: record.ordinal, phase, settled, goes: record.leaving })
    }

    /// Where a star has come to, as far as it is known here.
    fn phase_of(&self, star: StarId) -> Option<StarPhase> {
        let local = self.stars.get(&star).map(|local| local.phase);
        local.or_else(|| self.state.stars.get(&star).map(|record| record.phase))
    }

    /// Has the log tell other machines that stars of theirs are to go.
    fn retire_elsewhere(&mut self, stars: &[StarId], step: &mut Step<'_>) {
        let is_news = |star: &&StarId| {
            let record = self.state.stars.get(star);
            record.is_some_and(|record| record.phase < StarPhase::Draining && !record.leaving)
                && !self.retiring.contains(star)
        };
        let stars: Vec<StarId> = stars.iter().filter(is_news).copied().collect();
        if stars.is_empty() {
            return;
        }
        self.retiring.extend(&stars);
        self.propose(Purpose::Retire, Command::Retire { stars, wall: step.wall }, step);
    }

    /// They were told, or could not be: then their services are looked at again.
    pub(crate) fn retired(&mut self, command: &Command) -> BTreeSet<ServiceKey> {
        let (Command::Retire { stars, .. } | Command::Preempt { stars, .. } | Command::EndMove { stars, .. }) = command
        else {
            return BTreeSet::new();
        };
        self.retiring.retain(|star| !stars.contains(star));
        let records = stars.iter().filter_map(|star| self.state.stars.get(star));
        records.map(|record| record.service.clone()).collect()
    }

    /// Plans stars of a revision for the first free places, except those that wait for their back-off.
    fn assign(&mut self, key: &ServiceKey, revision: u64, count: u32, seen: &[Seen], step: &mut Step<'_>) {
        let mut taken: BTreeSet<u32> = seen.iter().map(|seen| seen.ordinal).collect();
        let assigning = self.services.get(key).into_iter().flat_map(|service| &service.assigning);
        taken.extend(assigning.map(|(_, _, ordinal, _)| ordinal));
        let (Some(record), Some(service)) = (self.state.services.get(key), self.services.get_mut(key)) else { return };
        // A job has parts, and no others beside them for a while.
        let last = record.spec.job.as_ref().map_or(u32::MAX, |_| record.spec.instances);
        let is_free = |ordinal: &u32| {
            !taken.contains(ordinal)
                && !record.done.contains(ordinal)
                && !record.held.contains(ordinal)
                && *ordinal <= last
        };
        let first: Vec<u32> = service.first.iter().copied().filter(is_free).collect();
        let others = (1..=last).filter(is_free).filter(|ordinal| !first.contains(ordinal));
        let free = first.iter().copied().chain(others);
        let mut ordinals = Vec::new();
        let mut next_try = None;
        for ordinal in free.take(count.min(ASSIGNED_AT_ONCE) as usize) {
            match service
                .backoff
                .get(&(revision, ordinal))
                .map(rollout::Backoff::not_before)
                .filter(|at| *at > step.now)
            {
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
        let Some(spec) = self.state.services.get(key).and_then(|record| record.spec_of(revision)) else { return };
        let (template, placement, reserve) = (&spec.template, &spec.placement, spec.template.reserve);
        let in_reservation = placement.reservation.is_some();
        // What its namespace has beyond its quota comes after them: room that others have made is not for it.
        let own = self.own_left(key, revision);
        if own > 0 {
            ordinals.truncate(own);
        }
        let request = PlanRequest { service: key, template, placement, ordinals: &ordinals };
        let mut ids = self.ids.clone();
        let placed =
            plan(&self.candidates(&request, revision), &request, &mut ids, |star| self.state.stars.contains_key(&star));
        self.ids = ids;
        let mut places = self.places_for(&request);
        let is_short = placed.len() < ordinals.len();
        if is_short && self.end_moves(key, step) {
            // What is to come instead of those that move has no place: none is made for it.
            return;
        }
        let Some(service) = self.services.get_mut(key) else { return };
        // Looked at again when a machine comes or changes, and when a nursery does.
        service.homeless = is_short;
        if is_short {
            // And when a star has ended for which something is kept, or with which others share no machine.
            self.roomless.insert(key.clone());
        }
        // What is to be in a reservation waits for a place there.
        if is_short && !reserve.is_nothing() && !in_reservation {
            self.make_room(key, revision, placed.len(), ordinals.len() - placed.len(), step);
        } else {
            self.making_room.remove(key);
        }
        if placed.is_empty() {
            return;
        }
        let assignment = |Placed { star, ordinal, node, port }| {
            let service = key.clone();
            let place = places.as_mut().and_then(|places| places.get_mut(&node)?.pop());
            Assignment { star, service, revision, ordinal, node, port, place }
        };
        let stars: Vec<Assignment> = placed.into_iter().map(assignment).collect();
        let Some(service) = self.services.get_mut(key) else { return };
        service.assigning.extend(stars.iter().map(|star| (star.star, star.node, star.ordinal, revision)));
        for star in &stars {
            // In a place it keeps what is kept already.
            let reserve = if star.place.is_some() { Reserve::default() } else { reserve };
            self.taking.extend(star.place);
            self.coming.entry(star.node).or_default().add(&Limits::UNLIMITED, &reserve, star.port);
            self.keeping.insert(star.star, reserve);
        }
        self.propose(Purpose::Assign, Command::Assign { stars, wall: step.wall }, step);
    }

    /// Tells the proxy where requests may go, when that is other than before.
    fn publish(&mut self, key: &ServiceKey, step: &mut Step<'_>) {
        let entry = self.state.services.get(key).and_then(|record| record.spec.entry.as_ref());
        if entry.is_none() && self.services.get(key).is_none_or(|service| service.published.is_none()) {
            return;
        }
        let is_ready = |record: &&StarRecord| match self.stars.get(&record.id) {
            Some(local) => local.phase == StarPhase::Ready,
            None => record.phase == StarPhase::Ready && !record.leaving && self.is_reachable(record.node),
        };
        let endpoint = |record: &StarRecord| Some(Endpoint { star: record.id, node: record.node, port: record.port? });
        let ready: Vec<&StarRecord> = self.state.stars_of(key).filter(is_ready).collect();
        let meant: Vec<&StarRecord> = ready.iter().copied().filter(|star| self.is_meant(star)).collect();
        // Where none of those is ready that are meant, somebody answers all the same.
        let ready = if meant.is_empty() { ready } else { meant };
        let on_trial = ready.iter().filter(|star| self.is_on_trial(star)).map(|star| star.id).collect();
        let endpoints = ready.into_iter().filter_map(endpoint).collect();
        let Some(service) = self.services.get_mut(key) else { return };
        let generation = service.generation + 1;
        let (set, balance) = match (entry, &service.published) {
            (Some(entry), _) => (EndpointSet { generation, endpoints, on_trial }, entry.balance),
            // No entry any more: nothing goes anywhere.
            (None, Some((_, balance))) => (EndpointSet { generation, ..EndpointSet::default() }, *balance),
            (None, None) => return,
        };
        let is_known = match &service.published {
            None => set.endpoints.is_empty(),
            Some((known, balanced)) => *balanced == balance && known.names_as(&set),
        };
        if is_known {
            return;
        }
        service.published = Some((set.clone(), balance));
        service.generation = generation;
        step.effects.push(Effect::Publish { service: key.clone(), set, balance });
    }

    /// Whether its version is on trial before those who send requests: a canary's, or one with a bound for errors. Not one that
    /// failed and is held.
    fn is_on_trial(&self, star: &StarRecord) -> bool {
        let Some(record) = self.state.services.get(&star.service) else { return false };
        let Some(rollout) = record.rollout.as_ref().filter(|rollout| rollout.previous.is_some()) else { return false };
        let has_failed = rollout.held.as_ref().is_some_and(|held| held.reason.is_some());
        let is_bounded = record.spec.update.errors_percent.is_some() && !rollout.pardoned;
        star.revision == record.revision && !has_failed && (rollout.trial || is_bounded)
    }

    /// Whether requests go to stars of its revision, as long as there are any.
    fn is_meant(&self, star: &StarRecord) -> bool {
        let Some(record) = self.state.services.get(&star.service) else { return true };
        let is_present = star.revision == record.revision;
        match &record.rollout {
            None => !was_taken_back(record, star.revision),
            Some(rollout) if record.spec.update.strategy == UpdateStrategy::BlueGreen && rollout.previous.is_some() => {
                is_present != rollout.trial
            }
            Some(_) => true,
        }
    }

    /// Drops ended stars beyond those that are kept; all of a service that is gone.
    fn forget_ended(&mut self, key: &ServiceKey, step: &mut Step<'_>) {
        if !self.peers.leads {
            return;
        }
        if self.log.is_under_way(&Purpose::Forget) {
            self.forget_later.insert(key.clone());
            return;
        }
        let kept = if self.state.services.contains_key(key) { ENDED_KEPT } else { 0 };
        let mut ended: Vec<_> = self.state.stars.ended_of(key).collect();
        if ended.len() <= kept {
            return;
        }
        ended.sort_by_key(|star| std::cmp::Reverse((star.ended, star.generation, star.id)));
        let stars: Vec<StarId> = ended.iter().skip(kept).map(|star| star.id).collect();
        self.propose(Purpose::Forget, Command::Forget { stars }, step);
    }

    /// A service that is neither known nor has stars left is no more. One whose entry point is being opened stays.
    fn drop_if_gone(&mut self, key: &ServiceKey) {
        if self.state.services.contains_key(key) {
            return;
        }
        let has_stars = self.own_of(key).next().is_some();
        let is_opening = self.services.get(key).is_some_and(|service| service.address.is_some());
        if !has_stars && !is_opening {
            self.services.remove(key);
            self.timers.clear(&Timer::Service(key.clone()));
        }
    }
}
