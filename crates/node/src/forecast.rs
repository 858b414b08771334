//! What putting an app would come to, without doing it: whether it is refused, and which machines its stars would come to.
//!
//! It is worked out as if everything of the app that goes had gone and nobody else asked for anything: a plan, no promise.

use std::collections::{BTreeMap, BTreeSet};

use model::{AppSpec, Kept, Name, NodeId, Problem, ServiceKey, ServiceSpec, StarId, StarPhase, WallTime};
use scheduler::{NodeView, Request as PlanRequest, check, plan};
use serde::{Deserialize, Serialize};
use state::{ServiceRecord, StarRecord, as_put};

use crate::jobs::calendar;
use crate::node::Node;
use crate::services::ASSIGNED_AT_ONCE;

/// What an app would come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Forecast {
    /// What putting it would be refused with. Nothing is known of its services then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Problem>,
    /// Those of which stars would be started, or that have a schedule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceForecast>,
}

/// Where stars of a service would come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ServiceForecast {
    pub service: Name,
    /// The machines that get some, those that get most first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comes: Vec<Comes>,
    /// When its next run would be due, of a job with a schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<WallTime>,
    /// Stars that no machine would take.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub homeless: u32,
    /// Stars of others, which have a lower priority, that would give way for some of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gives_way: Vec<GivesWay>,
    /// Why none of them could begin: they come one after another, and none has room beside those that are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<String>,
    /// Why none would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Stars beyond those that are looked at: a thousand of an app.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub beyond: u32,
}

/// Stars that would come to a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Comes {
    pub node: NodeId,
    /// What it is called, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    pub stars: u32,
}

/// Stars of a service that would give way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GivesWay {
    pub service: ServiceKey,
    pub stars: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Services times machines of an app that is looked at: each service is held against each machine, between two events.
const PAIRS_MAX: usize = 100_000;
/// Stars of a service for which it is looked for others that give way: each costs a look at all of those.
const ROOM_MAX: u32 = 64;

/// A service of the app, as it would be.
struct Planned {
    key: ServiceKey,
    record: ServiceRecord,
    /// Its stars that would stay, by machine.
    stays: BTreeMap<NodeId, u32>,
    /// Places of its reservation that its stars leave, by machine.
    leaves: BTreeMap<NodeId, u32>,
    missing: u32,
}

/// What becomes of machines meanwhile.
#[derive(Default)]
struct Meanwhile {
    on: BTreeMap<NodeId, Other>,
    /// Stars that are foretold in places of reservations.
    in_places: BTreeMap<(ServiceKey, NodeId), u32>,
    /// Where stars of services of the app would be.
    there: BTreeMap<ServiceKey, BTreeSet<NodeId>>,
    /// Stars that are still to be looked at.
    left: u32,
}

/// What a machine has more or less of than it has now.
#[derive(Debug, Clone, Copy, Default)]
struct Other {
    come: u32,
    go: u32,
    kept: Kept,
    freed: Kept,
}

impl Node {
    /// `base`: the version of the app that the change was planned from. Of an app with very many services nothing is foretold.
    pub fn forecast(&self, spec: &AppSpec, base: Option<u64>, wall: WallTime) -> Forecast {
        if spec.services.len().saturating_mul(self.state.nodes.len().max(1)) > PAIRS_MAX {
            return Forecast::default();
        }
        if let Err(problem) = self.check_app(spec, base) {
            return Forecast { refused: Some(problem), services: Vec::new() };
        }
        if !self.nursery_up {
            // Where nobody is started just now nobody is, which says nothing of the app.
            return Forecast::default();
        }
        let mut meanwhile = Meanwhile { left: ASSIGNED_AT_ONCE, ..Meanwhile::default() };
        let planned = self.what_stays(spec, wall, &mut meanwhile);
        let services = planned.iter().filter_map(|service| {
            let stars = self.forecast_of(spec, service, &planned, &mut meanwhile);
            let job = service.record.spec.job.as_ref();
            let due = job.and_then(calendar).and_then(|calendar| calendar.next_after(wall));
            let stars = stars.or_else(|| due.map(|_| ServiceForecast::of(&service.key)))?;
            Some(ServiceForecast { due, ..stars })
        });
        Forecast { refused: None, services: services.collect() }
    }

    /// Every service of the app as it would be. What goes of it, be it of services that it does not have any more, leaves room.
    fn what_stays(&self, spec: &AppSpec, wall: WallTime, meanwhile: &mut Meanwhile) -> Vec<Planned> {
        let mut planned: BTreeMap<ServiceKey, Planned> = BTreeMap::new();
        for name in spec.services.keys() {
            let Some(record) = as_put(&self.state, spec, name, wall) else { continue };
            let (key, none) = (spec.service_key(name), BTreeMap::new());
            let service = Planned { key: key.clone(), record, stays: none.clone(), leaves: none, missing: 0 };
            planned.insert(key, service);
        }
        for key in self.state.services.iter().filter(|(_, record)| record.app == spec.app).map(|(key, _)| key) {
            let mut stars: Vec<&StarRecord> =
                self.state.stars_of(key).filter(|star| star.phase != StarPhase::Ended).collect();
            stars.sort_by_key(|star| star.ordinal);
            let mut service = planned.get_mut(key);
            let mut room = service.as_ref().map_or(0, |service| service.record.wanted());
            for star in stars {
                let stays = room > 0 && service.as_ref().is_some_and(|service| self.may_stay(&service.record, star));
                if stays {
                    room -= 1;
                    meanwhile.there.entry(key.clone()).or_default().insert(star.node);
                    service.iter_mut().for_each(|service| *service.stays.entry(star.node).or_default() += 1);
                    continue;
                }
                let other = meanwhile.on.entry(star.node).or_default();
                other.go += 1;
                if self.state.is_in_place(star) {
                    service.iter_mut().for_each(|service| *service.leaves.entry(star.node).or_default() += 1);
                } else if !self.is_spoken_for(star) {
                    other.freed = other.freed.with(&star.template.reserve, 1);
                }
            }
        }
        for service in planned.values_mut() {
            service.missing = service.record.wanted().saturating_sub(service.stays.values().sum());
        }
        planned.into_values().collect()
    }

    fn forecast_of(
        &self,
        spec: &AppSpec,
        service: &Planned,
        all: &[Planned],
        meanwhile: &mut Meanwhile,
    ) -> Option<ServiceForecast> {
        let Planned { key, record, stays, leaves, missing } = service;
        let ServiceSpec { template, placement, .. } = &record.spec;
        let reservation = placement.reservation.as_ref().map(|name| key.beside(name));
        // Which places it will have is not known yet.
        let is_known =
            |reservation: &ServiceKey| self.state.services.get(reservation).is_some_and(|record| record.begun);
        let is_put_too = |reservation: &ServiceKey| {
            all.iter().any(|other| other.key == *reservation && (other.missing > 0 || !is_known(reservation)))
        };
        if *missing == 0 || reservation.as_ref().is_some_and(is_put_too) {
            return None;
        }
        let told = ServiceForecast::of(key);
        if let Some(problem) = self.no_reservation(key, placement) {
            return Some(ServiceForecast { homeless: *missing, problem: Some(problem.message), ..told });
        }
        let looked_at = (*missing).min(meanwhile.left);
        meanwhile.left -= looked_at;
        let ordinals: Vec<u32> = (1..=looked_at).collect();
        let request = PlanRequest { service: key, template, placement, ordinals: &ordinals };
        let apart: Vec<&Planned> = all.iter().filter(|other| are_apart(service, other)).collect();
        let mut views = self.machines(key, placement, record.revision);
        for view in &mut views {
            (view.of_service, view.others) = (stays.get(&view.node).copied().unwrap_or_default(), 0);
            let other = meanwhile.on.get(&view.node).copied().unwrap_or_default();
            view.stars = (view.stars + other.come).saturating_sub(other.go);
            view.kept = view.kept.and(other.kept).less(other.freed);
            // Of services of the app, where they would be counts, not where they are.
            let is_there = |other: &ServiceKey| meanwhile.there.get(other).is_some_and(|on| on.contains(&view.node));
            view.apart = view.apart.filter(|other| self.is_of_other_app(other, spec));
            view.apart = view.apart.or(apart.iter().map(|other| &other.key).find(|other| is_there(other)));
        }
        let mut views = self.candidates_among(&request, views);
        if let Some(reservation) = &reservation {
            for view in &mut views {
                let back = leaves.get(&view.node).copied().unwrap_or_default();
                let taken = meanwhile.in_places.get(&(reservation.clone(), view.node)).copied().unwrap_or_default();
                view.places = view.places.map(|places| (places + back).saturating_sub(taken));
            }
        }
        let placed = plan(&views, &request, &mut self.ids.clone(), |_: StarId| false);
        let mut on: BTreeMap<NodeId, u32> = BTreeMap::new();
        for placed in &placed {
            *on.entry(placed.node).or_default() += 1;
        }
        let mut homeless = looked_at.saturating_sub(u32::try_from(placed.len()).unwrap_or(u32::MAX));
        let (mut gives_way, mut problem, mut beyond) = (Vec::new(), None, missing - looked_at);
        if homeless > 0 {
            with_planned(&mut views, &request, &on);
            if reservation.is_none() {
                let asked = homeless.min(ROOM_MAX);
                let ahead = stays.values().sum::<u32>() as usize + placed.len();
                let share = self.state.shares(&key.namespace, Some(spec)).and_then(|mut all| all.remove(&key.name));
                let own = share.map_or(usize::MAX, |share| (share.own as usize).saturating_sub(ahead));
                let found = self.whom_to_send(&request, &mut views, asked as usize, own);
                homeless -= u32::try_from(found.len()).unwrap_or(u32::MAX);
                if found.len() == asked as usize {
                    // For the others nobody was looked for.
                    (homeless, beyond) = (0, beyond + homeless);
                }
                found.iter().for_each(|found| *on.entry(found.node).or_default() += 1);
                gives_way = self.of_services(found.iter().flat_map(|found| &found.stars));
            }
            let mut all = views.clone();
            all.extend(self.closed(key, placement));
            problem = (homeless > 0).then(|| check(&all, &request).err()).flatten().map(|problem| problem.message);
        }
        let stuck = self.stuck(key, record, &request).filter(|_| !on.is_empty());
        for (node, stars) in &on {
            let other = meanwhile.on.entry(*node).or_default();
            other.come += stars;
            match &reservation {
                Some(reservation) => *meanwhile.in_places.entry((reservation.clone(), *node)).or_default() += stars,
                None => other.kept = other.kept.with(&template.reserve, *stars),
            }
            meanwhile.there.entry(key.clone()).or_default().insert(*node);
        }
        let mut comes: Vec<Comes> =
            on.iter().map(|(node, stars)| Comes { node: *node, name: self.name_of(*node), stars: *stars }).collect();
        comes.sort_by_key(|comes| std::cmp::Reverse(comes.stars));
        Some(ServiceForecast { comes, homeless, gives_way, stuck, problem, beyond, ..told })
    }

    /// Whether stars of a service are there whatever becomes of this app.
    fn is_of_other_app(&self, service: &ServiceKey, spec: &AppSpec) -> bool {
        self.state.services.get(service).is_some_and(|record| record.app != spec.app)
    }

    /// Whether a star that runs is one of those that its service will want, and where it may be.
    fn may_stay(&self, record: &ServiceRecord, star: &StarRecord) -> bool {
        let is_to_go = || self.is_draining(star.node) || self.is_misplaced(&record.spec.placement, star.node);
        star.revision == record.revision
            && star.phase < StarPhase::Draining
            && !star.leaving
            && (!is_to_go() || self.has_volume_on(&star.service, star.node))
    }

    /// Why the first of new stars could not begin beside the old ones, which go only when it is there.
    fn stuck(&self, key: &ServiceKey, record: &ServiceRecord, request: &PlanRequest<'_>) -> Option<String> {
        let serves = |star: &StarRecord| star.phase == StarPhase::Ready && !self.may_stay(record, star);
        let waits = record.spec.update.room(record.wanted()).1 == 0
            && !record.spec.placement.every_node
            && !record.spec.template.singleton
            && record.spec.job.is_none()
            && !self.has_no_spare_place(key, record)
            && self.state.stars_of(key).any(serves);
        if !waits {
            return None;
        }
        let now = self.candidates(request, record.revision);
        let problem = check(now.iter().chain(&self.closed(key, request.placement)), request).err()?;
        (!self.could_make_room(request, &now)).then_some(problem.message)
    }

    /// How many of these stars are of which service.
    fn of_services<'s>(&self, stars: impl Iterator<Item = &'s StarId>) -> Vec<GivesWay> {
        let mut counted: BTreeMap<&ServiceKey, u32> = BTreeMap::new();
        for star in stars.filter_map(|star| self.state.stars.get(star)) {
            *counted.entry(&star.service).or_default() += 1;
        }
        counted.into_iter().map(|(service, stars)| GivesWay { service: service.clone(), stars }).collect()
    }
}

/// Counts what was planned as there.
fn with_planned(views: &mut [NodeView<'_>], request: &PlanRequest<'_>, on: &BTreeMap<NodeId, u32>) {
    for view in views {
        let stars = on.get(&view.node).copied().unwrap_or_default();
        view.of_service += stars;
        match &mut view.places {
            Some(places) => *places = places.saturating_sub(stars),
            None => view.kept = view.kept.with(&request.template.reserve, stars),
        }
    }
}

impl ServiceForecast {
    fn of(service: &ServiceKey) -> Self {
        let service = service.name.clone();
        Self {
            service,
            comes: Vec::new(),
            due: None,
            homeless: 0,
            gives_way: Vec::new(),
            stuck: None,
            problem: None,
            beyond: 0,
        }
    }
}

/// Whether two services share no machine, whichever of them says so.
fn are_apart(one: &Planned, other: &Planned) -> bool {
    let says = |one: &Planned, other: &Planned| one.record.spec.placement.apart_from.contains(&other.key.name);
    one.key != other.key && (says(one, other) || says(other, one))
}
