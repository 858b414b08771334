//! Whom a service shares machines with: services that are to be apart, and stars that give way to those of a higher one.
//!
//! Who is told to go is chosen by `scheduler::preempt` and written as one command. Until the room is there it is kept: what is planned
//! meanwhile for services that are not higher counts it as taken. That is known to who leads alone; who leads after it sees stars
//! that are going and counts on their room.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{NodeId, Placement, Priority, Reserve, ServiceKey, StarId, StarPhase};
use scheduler::{NodeView, Preemption, Request as PlanRequest, Tenant, preempt};
use state::{Command, StarRecord};

use crate::log::Purpose;
use crate::node::{Node, Step};
use crate::timers::Timer;

/// Stars for which room is made at once, of one service: each costs a look at all stars that may go.
const AT_ONCE: usize = 16;
/// Between two looks for room of a service for which nobody would go.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Room that is being made on a machine for one star.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    node: NodeId,
    reserve: Reserve,
}

impl Node {
    /// What a service says of others, found from these: looked at when it is put or gone.
    pub(crate) fn note_apart(&mut self, service: &ServiceKey) {
        self.apart.retain(|_, by| {
            by.remove(service);
            !by.is_empty()
        });
        let Some(record) = self.state.services.get(service) else { return };
        for other in declared_apart(service, &record.spec.placement) {
            self.apart.entry(other).or_default().insert(service.clone());
        }
    }

    /// Whether others share no machine with stars of a service, whoever says so.
    pub(crate) fn keeps_off(&self, service: &ServiceKey) -> bool {
        self.apart.contains_key(service) || self.apart.values().any(|by| by.contains(service))
    }

    /// The machines that have stars of services which share none with this one.
    pub(crate) fn apart_there(&self, service: &ServiceKey, placement: &Placement) -> BTreeMap<NodeId, &ServiceKey> {
        let mut others: BTreeSet<ServiceKey> = declared_apart(service, placement).collect();
        others.extend(self.apart.get(service).into_iter().flatten().cloned());
        let mut there = BTreeMap::new();
        for other in &others {
            let stars = self.state.stars_of(other).filter(|star| star.phase != StarPhase::Ended);
            there.extend(stars.map(|star| (star.node, &star.service)));
            if let Some((other, local)) = self.services.get_key_value(other) {
                there.extend(local.assigning.iter().map(|(_, node, ..)| (*node, other)));
            }
        }
        there
    }

    /// The services whose machines stars of this one leave, since they are to be apart. Of two that both say so one moves.
    pub(crate) fn avoided_by(&self, service: &ServiceKey) -> Vec<ServiceKey> {
        let both = self.apart.get(service);
        let placement = self.state.services.get(service).map(|record| &record.spec.placement);
        let others = placement.into_iter().flat_map(|placement| declared_apart(service, placement));
        let moves = |other: &ServiceKey| both.is_none_or(|both| !both.contains(other)) || service > other;
        others.filter(moves).collect()
    }

    /// Whether a machine has stars of one of these that stay there.
    pub(crate) fn has_any_of(&self, services: &[ServiceKey], node: NodeId) -> bool {
        let stays = |star: &StarRecord| star.phase < StarPhase::Draining && !star.leaving;
        self.state.stars.on_node(node).any(|star| stays(star) && services.contains(&star.service))
    }

    /// Counts room that is being made for others as taken, unless the service at hand is higher than these.
    pub(crate) fn count_claims(&self, service: &ServiceKey, revision: u64, views: &mut [NodeView<'_>]) {
        let others = || self.making_room.iter().filter(|(other, _)| *other != service);
        if others().next().is_none() {
            return;
        }
        let rank = (self.own_left(service, revision) > 0).then(|| self.priority_of(service));
        for claim in others().filter(|(other, _)| self.rank_of(other) >= rank).flat_map(|(_, claims)| claims) {
            take(views, claim);
        }
    }

    fn priority_of(&self, service: &ServiceKey) -> Priority {
        self.state.services.get(service).map(|record| record.spec.placement.priority).unwrap_or_default()
    }

    /// The priority of one more star of a service; nothing where its namespace would have it beyond its quota.
    fn rank_of(&self, service: &ServiceKey) -> Option<Priority> {
        (self.state.own_left(service, true) > 0).then(|| self.priority_of(service))
    }

    /// How many more stars of a revision of a service would be its namespace's own, after those that are being written.
    pub(crate) fn own_left(&self, service: &ServiceKey, revision: u64) -> usize {
        let is_present = self.state.services.get(service).is_none_or(|record| record.revision == revision);
        let assigning = self.services.get(service).map_or(0, |service| service.assigning.len());
        (self.state.own_left(service, is_present) as usize).saturating_sub(assigning)
    }

    /// Has stars of lower services go for so many stars of this one that have no room, while so many others come.
    pub(crate) fn make_room(
        &mut self,
        key: &ServiceKey,
        revision: u64,
        coming: usize,
        missing: usize,
        step: &mut Step<'_>,
    ) {
        let still: Vec<Claim> = self.making_room.remove(key).unwrap_or_default();
        let mut claims: Vec<Claim> = still.into_iter().filter(|claim| self.is_anyone_going(claim.node)).collect();
        let Some(spec) = self.state.services.get(key).and_then(|record| record.spec_of(revision)) else { return };
        let request = PlanRequest { service: key, template: &spec.template, placement: &spec.placement, ordinals: &[] };
        let is_too_soon = self.services.get(key).and_then(|service| service.room_at).is_some_and(|at| step.now < at);
        let mut going = Vec::new();
        let mut found_none = false;
        if claims.len() < missing && !is_too_soon {
            let mut views = self.candidates(&request, revision);
            claims.iter().for_each(|claim| take(&mut views, claim));
            let wanted = missing.min(AT_ONCE).saturating_sub(claims.len());
            let own = self.own_left(key, revision).saturating_sub(coming + claims.len());
            let found = self.whom_to_send(&request, &mut views, wanted, own);
            found_none = found.len() < wanted;
            for Preemption { node, stars } in found {
                claims.push(Claim { node, reserve: spec.template.reserve });
                going.extend(stars);
            }
        }
        if !claims.is_empty() {
            self.making_room.insert(key.clone(), claims);
        }
        if found_none && let Some(service) = self.services.get_mut(key) {
            service.room_at = Some(step.now + LOOK_AGAIN);
            self.timers.set(Timer::Service(key.clone()), step.now + LOOK_AGAIN);
        }
        if !going.is_empty() {
            self.retiring.extend(&going);
            let command = Command::Preempt { service: key.clone(), stars: going, wall: step.wall };
            self.propose(Purpose::Retire, command, step);
        }
    }

    /// Stars were told to go for one of a service. Where one of them need not, nothing was gained by what was thought of: it is looked
    /// again, and not at once, since it would be thought of again.
    pub(crate) fn preempted(&mut self, command: &Command, step: &Step<'_>) {
        let Command::Preempt { service, stars, .. } = command else { return };
        let stays = |star: &StarId| self.state.stars.get(star).is_some_and(|star| star.phase < StarPhase::Draining);
        if stars.iter().any(stays)
            && let Some(local) = self.services.get_mut(service)
        {
            let claims = self.making_room.remove(service).unwrap_or_default();
            local.room_at = Some(step.now + LOOK_AGAIN);
            self.timers.set(Timer::Service(service.clone()), step.now + LOOK_AGAIN);
            let made: Vec<Claim> = claims.into_iter().filter(|claim| self.is_anyone_going(claim.node)).collect();
            if !made.is_empty() {
                self.making_room.insert(service.clone(), made);
            }
        }
    }

    /// Who would go for so many stars of a service, one after another, as far as that is found; the room that is made is taken in `views`.
    /// Where others go anyway nobody has to, and nobody has to for a star that its namespace has beyond its quota: the first
    /// `own` are none of those.
    pub(crate) fn whom_to_send(
        &self,
        request: &PlanRequest<'_>,
        views: &mut [NodeView<'_>],
        most: usize,
        own: usize,
    ) -> Vec<Preemption> {
        let (mut tenants, beyond) = self.tenants_on(views, request.service);
        let mut gone: BTreeMap<ServiceKey, u32> = BTreeMap::new();
        // Asked for again and again, and costs a look at all stars of a service.
        let spares: RefCell<BTreeMap<ServiceKey, u32>> = RefCell::default();
        let mut all = Vec::new();
        while all.len() < most {
            if all.len() >= own {
                tenants.retain(|tenant| tenant.goes);
            }
            let spare = |service: &ServiceKey| {
                let mut spares = spares.borrow_mut();
                let spare = *spares.entry(service.clone()).or_insert_with(|| self.spare_of(service, &beyond));
                spare.saturating_sub(gone.get(service).copied().unwrap_or_default())
            };
            let Some(found) = preempt(views, request, &tenants, spare) else { break };
            for tenant in tenants.iter_mut().filter(|tenant| found.stars.contains(&tenant.star)) {
                let is_missed = tenant.serves && tenant.priority.is_some();
                *gone.entry(tenant.service.clone()).or_default() += u32::from(is_missed);
                tenant.goes = true;
            }
            take(views, &Claim { node: found.node, reserve: request.template.reserve });
            if let Ok(place) = views.binary_search_by_key(&found.node, |view| view.node) {
                views[place].of_service += 1;
            }
            all.push(found);
        }
        all
    }

    /// Whether a star of a service would get room by others that go: whoever leads sees to it.
    pub(crate) fn could_make_room(&self, request: &PlanRequest<'_>, views: &[NodeView<'_>]) -> bool {
        let is_in_reservation = request.placement.reservation.is_some();
        let own = self.state.own_left(request.service, true) as usize;
        !is_in_reservation && !self.whom_to_send(request, &mut views.to_vec(), 1, own).is_empty()
    }

    fn is_anyone_going(&self, node: NodeId) -> bool {
        self.state.stars.on_node(node).any(|star| star.phase != StarPhase::Ended && self.goes(star))
    }

    fn goes(&self, star: &StarRecord) -> bool {
        let is_wanted = self.state.services.get(&star.service).is_some_and(|record| !record.stopped);
        star.phase >= StarPhase::Draining || self.retiring.contains(&star.id) || star.leaving || !is_wanted
    }

    /// Who is on these machines, and which stars their namespaces have beyond their quotas.
    fn tenants_on<'s>(&'s self, views: &[NodeView<'_>], claimant: &ServiceKey) -> (Vec<Tenant<'s>>, BTreeSet<StarId>) {
        let mut tenants: Vec<Tenant<'s>> = views.iter().flat_map(|view| self.tenants_of(claimant, view.node)).collect();
        let beyond = self.state.beyond_quotas(tenants.iter().map(|tenant| tenant.service));
        for tenant in tenants.iter_mut().filter(|tenant| beyond.contains(&tenant.star)) {
            tenant.priority = None;
        }
        (tenants, beyond)
    }

    /// Stars on a machine for which something is kept, and that may go. Those with a volume stay with it: nowhere else could they
    /// run.
    fn tenants_of<'s>(&'s self, claimant: &ServiceKey, node: NodeId) -> impl Iterator<Item = Tenant<'s>> + use<'s> {
        let claimant = claimant.clone();
        let there = self.state.stars.on_node(node).filter(|star| star.phase != StarPhase::Ended);
        let moves = there.filter(move |star| {
            !star.template.reserve.is_nothing()
                && !self.is_spoken_for(star)
                && (self.goes(star) || (star.template.volumes.is_empty() && star.service != claimant))
        });
        moves.map(move |star| Tenant {
            star: star.id,
            service: &star.service,
            node,
            priority: Some(self.priority_of(&star.service)),
            reserve: star.template.reserve,
            goes: self.goes(star),
            serves: star.phase == StarPhase::Ready,
        })
    }

    /// How many more stars of a service may be missing because they gave way.
    fn spare_of(&self, service: &ServiceKey, beyond: &BTreeSet<StarId>) -> u32 {
        let Some(record) = self.state.services.get(service) else { return u32::MAX };
        // What its namespace has beyond its quota is missed by nobody.
        let wanted = record.wanted().min(self.state.share_of(service).map_or(u32::MAX, |share| share.own));
        let serves =
            |star: &&StarRecord| star.phase == StarPhase::Ready && !self.goes(star) && !beyond.contains(&star.id);
        let serve = self.state.stars_of(service).filter(serves);
        let missing = wanted.saturating_sub(u32::try_from(serve.count()).unwrap_or(u32::MAX));
        record.spec.placement.may_miss(wanted).saturating_sub(missing)
    }
}

/// The services beside it that it says it is to be apart from.
fn declared_apart(service: &ServiceKey, placement: &Placement) -> impl Iterator<Item = ServiceKey> {
    placement.apart_from.iter().map(|name| service.beside(name)).filter(move |other| other != service)
}

fn take(views: &mut [NodeView<'_>], claim: &Claim) {
    // They are in the order of their numbers.
    if let Ok(place) = views.binary_search_by_key(&claim.node, |view| view.node) {
        views[place].kept = views[place].kept.with(&claim.reserve, 1);
    }
}
