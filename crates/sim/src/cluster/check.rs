//! What must hold: after every entry of the log, and in the end, once nothing goes wrong any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{Amount, Duty, Endpoint, NodeId, ServiceKey, Standing, StarId, StarPhase};
use state::{Assignment, Command, ServiceRecord, StarRecord};

use super::apps::is_poison;
use super::machine::Machine;
use super::world::World;

/// Leases, elections, back-offs of half a minute and replacements one after another all fit.
const SETTLING: Duration = Duration::from_secs(600);
/// What is written is known everywhere by then, when nothing goes wrong.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

fn runs(star: &&StarRecord) -> bool {
    star.phase != StarPhase::Ended
}

impl World {
    /// Before every entry. The state would refuse a star whose place is taken; who plans knows better than to ask.
    pub(crate) fn check_plan(&mut self, command: &Command) {
        let Command::Assign { stars, .. } = command else { return };
        let is_meant = |star: &&Assignment| {
            let service = self.truth.services.get(&star.service);
            service.is_some_and(|service| !service.stopped && service.spec_of(star.revision).is_some())
                && !self.truth.stars.contains_key(&star.star)
        };
        let there = || self.truth.stars.values().filter(runs);
        let is_taken =
            |star: &&Assignment| there().any(|other| other.service == star.service && other.ordinal == star.ordinal);
        if let Some(star) = stars.iter().filter(is_meant).find(is_taken) {
            self.must(
                false,
                &format!("place {} of `{}` is free when a star is planned for it", star.ordinal, star.service),
            );
        }
    }

    /// After every entry.
    pub(crate) fn check_truth(&mut self) {
        let mut places = BTreeSet::new();
        let twice = self.truth.stars.values().filter(runs).find(|star| !places.insert((&star.service, star.ordinal)));
        if let Some(name) = twice.map(|star| star.name()) {
            self.must(false, &format!("place `{name}` is given to one star"));
        }
        let mut tenants = BTreeSet::new();
        let mut in_places = self.truth.stars.values().filter(|star| star.phase != StarPhase::Ended);
        let shared = in_places.find_map(|star| star.place.filter(|place| !tenants.insert(*place)));
        self.must(shared.is_none(), &format!("a place of a reservation has one star: {shared:?}"));
        let away = self.truth.stars.values().find(|star| {
            let record = self.truth.nodes.get(&star.node);
            star.phase != StarPhase::Ended && record.is_none_or(|record| record.standing != Standing::Up)
        });
        if let Some(star) = away.map(|star| star.id) {
            self.must(false, &format!("star {star} is on a node that is up"));
        }
    }

    /// Faults stop, what was cut off is joined; in the end everything wanted runs, once, and everybody knows where.
    pub(crate) fn settle(&mut self) {
        if self.failed.is_some() {
            return;
        }
        self.faults = false;
        self.heal();
        self.run_until(self.now + SETTLING);
        self.report.took = self.now - model::Time(1_000_000_000);
        if self.failed.is_some() {
            return;
        }
        let whole = self.leader.is_some();
        self.must(whole, "somebody leads in the end");
        // What never was ready is tried on for ever, and something may be on its way at this very moment.
        let heard_by = self.now + HEARD_WITHIN;
        while self.behind().is_some() && self.now < heard_by {
            self.run_until(self.now + Duration::from_millis(1));
        }
        let behind = self.behind();
        self.must(behind.is_none(), &format!("every node knows the state in the end, {behind:?} too"));
        self.check_machines();
        self.check_rollouts();
        self.check_stars();
        self.check_routes();
    }

    /// A machine whose agent does not know the state.
    fn behind(&self) -> Option<usize> {
        let is_behind = |machine: &Machine| machine.agent.as_ref().is_some_and(|node| node.state() != &self.truth);
        self.machines.iter().position(is_behind)
    }

    fn check_machines(&mut self) {
        for at in 0..self.machines.len() {
            let (id, is_up) = (self.machines[at].id, self.machines[at].agent.is_some());
            let standing = self.truth.nodes.get(&id).map(|record| record.standing);
            let expected = if is_up { Standing::Up } else { Standing::Lost };
            self.must(standing == Some(expected), &format!("node {at} is {expected} in the end, not {standing:?}"));
        }
    }

    /// Every roll-out has ended, and where it failed what was before is there again; but for those that somebody holds.
    fn check_rollouts(&mut self) {
        let mut wrong = Vec::new();
        for (key, record) in self.truth.services.iter().filter(|(_, record)| !record.is_idle()) {
            let is_held = record.rollout.as_ref().is_some_and(|rollout| rollout.held.is_some());
            if record.rollout.is_some() && !is_held {
                wrong.push(format!("the roll-out of `{key}` goes on"));
            }
            // One that never was ready and had nothing before it is tried on.
            if is_poison(&record.spec.template) && record.failed.is_none() && !is_held {
                wrong.push(format!("`{key}` did not go back"));
            }
        }
        self.must(wrong.is_empty(), &format!("every roll-out ends: {wrong:?}"));
    }

    /// It is not as it should be, and somebody was told.
    fn is_troubled(&self, key: &ServiceKey) -> bool {
        let held = |record: &ServiceRecord| record.rollout.as_ref().is_some_and(|rollout| rollout.held.is_some());
        self.truth.services.get(key).is_some_and(|record| record.failed.is_some() || held(record))
    }

    fn check_stars(&mut self) {
        let mut running: BTreeMap<ServiceKey, u32> = BTreeMap::new();
        let mut astray = Vec::new();
        for machine in &self.machines {
            for (star, process) in &machine.processes {
                *running.entry(process.service.clone()).or_default() += 1;
                let record = self.truth.stars.get(star);
                let is_known =
                    record.is_some_and(|record| record.node == machine.id && matches!(record.phase, StarPhase::Ready));
                if !is_known && !self.is_troubled(&process.service) {
                    astray.push((*star, record.map(|record| record.phase)));
                }
            }
        }
        self.must(astray.is_empty(), &format!("what runs is ready and known in the end: {astray:?}"));
        let takers = |record: &&state::NodeRecord| record.standing == Standing::Up && record.duty == Duty::Takes;
        let services: Vec<(ServiceKey, u32)> =
            self.truth.services.iter().map(|(key, record)| (key.clone(), record.wanted())).collect();
        for (key, wanted) in services {
            let runs = running.remove(&key).unwrap_or_default();
            let held = self.truth.stars_of(&key).filter(|star| star.is_place() && star.phase == StarPhase::Ready);
            let runs = runs + u32::try_from(held.count()).unwrap_or(u32::MAX);
            if self.is_troubled(&key) {
                continue;
            }
            let may_come = |(id, node): (&model::NodeId, &state::NodeRecord)| {
                takers(&node) && self.may_come_to(&key, *id, node) && self.has_room(&key, *id, node)
            };
            let can_be = self.truth.nodes.iter().any(may_come) && self.home_takes(&key);
            let astray = self.truth.stars_of(&key).filter(|star| star.phase != StarPhase::Ended).any(|star| {
                self.truth.nodes.get(&star.node).is_none_or(|node| !self.may_stay_on(&key, star.node, node))
            });
            self.must(!astray || !can_be, &format!("every star of `{key}` is where it may be in the end"));
            let is_right = runs == wanted || (!can_be && runs <= wanted);
            self.must(is_right, &format!("of `{key}` {wanted} stars run in the end, not {runs}"));
            let gives_way = (runs < wanted).then(|| self.would_give_way(&key)).flatten();
            self.must(gives_way.is_none(), &format!("`{key}` has the room of lower ones in the end: {gives_way:?}"));
        }
        self.must(running.is_empty(), &format!("nothing else runs in the end: {running:?}"));
        let draining = self.truth.stars.values().find(|star| {
            let drained = self.truth.nodes.get(&star.node).is_some_and(|record| record.duty == Duty::Draining);
            // One that no other machine may have goes on serving where it is.
            let could_go = || {
                self.truth.nodes.iter().any(|(id, node)| {
                    takers(&node)
                        && self.may_come_to(&star.service, *id, node)
                        && self.has_room(&star.service, *id, node)
                })
            };
            drained
                && star.phase != StarPhase::Ended
                && star.template.volumes.is_empty()
                && could_go()
                && self.is_replaced(star)
        });
        let stays = draining.map(|star| star.id);
        self.must(stays.is_none(), &format!("a drained node has no stars in the end: {stays:?}"));
    }

    /// Whether others can make up for a star: not where nothing new gets ready, or what comes back has no place.
    fn is_replaced(&self, star: &StarRecord) -> bool {
        let Some(record) = self.truth.services.get(&star.service) else { return true };
        let before = record.rollout.as_ref().filter(|rollout| rollout.held.is_some()).map(|rollout| rollout.previous);
        let stays = |star: &&StarRecord| {
            runs(star) && self.truth.nodes.get(&star.node).is_some_and(|node| node.duty != Duty::Draining)
        };
        match before {
            None => record.failed.is_none(),
            Some(None) => false,
            Some(Some(before)) => {
                let of_before = self.truth.stars_of(&star.service).filter(|star| star.revision == before.revision);
                of_before.filter(stays).count() >= before.stars as usize
            }
        }
    }

    /// Whether a machine may get another star of a service, but for room.
    fn may_come_to(&self, key: &ServiceKey, id: NodeId, node: &state::NodeRecord) -> bool {
        self.could_come_to(key, id, node) && self.is_even_with(key, id)
    }

    /// Whether the service would be as even as it is to be with one star more on a machine. What it is spread over are machines.
    fn is_even_with(&self, key: &ServiceKey, id: NodeId) -> bool {
        let Some(record) = self.truth.services.get(key) else { return true };
        let Some(max_skew) = record.spec.placement.max_skew else { return true };
        let counts = |star: &&StarRecord| {
            runs(star) && star.service == *key && star.revision == record.revision && !star.leaving && !star.moves
        };
        let has = |id| self.truth.stars.on_node(id).filter(counts).count();
        let takers = self.truth.nodes.iter().filter(|(id, node)| {
            node.standing == Standing::Up && node.duty == Duty::Takes && self.could_come_to(key, **id, node)
        });
        let least = takers.map(|(id, _)| has(*id)).min().unwrap_or_default();
        has(id) < least + max_skew as usize
    }

    fn could_come_to(&self, key: &ServiceKey, id: NodeId, node: &state::NodeRecord) -> bool {
        let Some(record) = self.truth.services.get(key) else { return true };
        let placement = &record.spec.placement;
        placement.broken(Some(&node.name), &node.facts).next().is_none()
            && placement.kept_off(&node.taints).is_none()
            && !self.is_with_others(key, id, true)
            && (!placement.every_node || !self.truth.stars.on_node(id).any(|star| runs(&star) && star.service == *key))
    }

    /// Whether a star of a service may be on a machine it is on.
    fn may_stay_on(&self, key: &ServiceKey, id: NodeId, node: &state::NodeRecord) -> bool {
        let Some(record) = self.truth.services.get(key) else { return true };
        let placement = &record.spec.placement;
        placement.broken(Some(&node.name), &node.facts).next().is_none()
            && !placement.kept_off_for_good(&node.taints)
            && !self.is_with_others(key, id, false)
    }

    /// Whether a machine has stars of services from which this one is to be apart, as it says itself, or as they say.
    fn is_with_others(&self, key: &ServiceKey, id: NodeId, as_they_say: bool) -> bool {
        let says = |one: &ServiceKey, other: &ServiceKey| {
            let record = self.truth.services.get(one);
            record.is_some_and(|record| record.spec.placement.apart_from.contains(&other.name))
        };
        self.truth
            .stars
            .on_node(id)
            .filter(|star| runs(star) && star.service != *key)
            .any(|star| says(key, &star.service) || (as_they_say && says(&star.service, key)))
    }

    /// Whether the machine that its volumes bind a service to takes stars.
    fn home_takes(&self, key: &ServiceKey) -> bool {
        let Some(record) = self.truth.services.get(key) else { return true };
        let mut homes = state::State::volumes_of(key, &record.spec.template)
            .filter_map(|volume| self.truth.homes.get(&volume).copied());
        homes.all(|home| {
            let node = self.truth.nodes.get(&home);
            let tolerates = |node: &state::NodeRecord| record.spec.placement.kept_off(&node.taints).is_none();
            node.is_some_and(|node| node.standing == Standing::Up && node.duty == Duty::Takes && tolerates(node))
        })
    }

    /// A machine on which stars of lower services, any of which may be missing, have the room that a star of this one lacks.
    fn would_give_way(&self, key: &ServiceKey) -> Option<NodeId> {
        let record = self.truth.services.get(key).filter(|record| !record.paused)?;
        if record.spec.placement.reservation.is_some() {
            return None;
        }
        let (placement, reserve) = (&record.spec.placement, record.spec.template.reserve);
        if self.truth.own_left(key, true) == 0 {
            return None;
        }
        let is_lower = |star: &&StarRecord| {
            let of = self.truth.services.get(&star.service).map(|record| &record.spec.placement);
            let is_lower =
                of.is_some_and(|of| of.priority < placement.priority && of.disruptions == Amount::Percent(100));
            // What is in a place gives way to nobody, nor does the place.
            let tenants = || self.truth.stars.values().filter(runs);
            let is_spoken_for = star.place.is_some_and(|place| self.truth.stars.get(&place).as_ref().is_some_and(runs))
                || (star.is_place() && tenants().any(|other| other.place == Some(star.id)));
            is_lower && runs(star) && star.template.volumes.is_empty() && !is_spoken_for
        };
        let mut takers =
            self.truth.nodes.iter().filter(|(_, node)| node.standing == Standing::Up && node.duty == Duty::Takes);
        let frees = |(id, node): &(&NodeId, &state::NodeRecord)| {
            let lower = self.truth.stars.on_node(**id).filter(is_lower);
            let left = lower.fold(self.kept_on(**id), |kept, star| kept.without(&star.template.reserve));
            !reserve.is_nothing() && self.may_come_to(key, **id, node) && node.facts.lacks(left, &reserve).is_none()
        };
        takers.find(frees).map(|(id, _)| *id)
    }

    fn check_routes(&mut self) {
        let ready = |key: &ServiceKey| -> BTreeSet<StarId> {
            let of_service = self.truth.stars_of(key).filter(|star| star.phase == StarPhase::Ready);
            of_service.map(|star| star.id).collect()
        };
        let mut wrong = Vec::new();
        for (key, record) in &self.truth.services {
            if record.spec.entry.is_none() || self.is_troubled(key) {
                continue;
            }
            let expected = ready(key);
            for (at, machine) in self.machines.iter().enumerate().filter(|(_, machine)| machine.agent.is_some()) {
                let routes: &[Endpoint] = machine.routes.get(key).map_or(&[], Vec::as_slice);
                if routes.iter().map(|endpoint| endpoint.star).collect::<BTreeSet<_>>() != expected {
                    wrong.push(format!("{at} of `{key}`"));
                }
            }
        }
        self.must(wrong.is_empty(), &format!("every node sends requests to what is ready in the end: {wrong:?}"));
    }
}
