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
    /// For those others would give way, which have a lower priority.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub makes_room: bool,
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

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Services times machines of an app that is looked at: each service is held against each machine, between two events.
const PAIRS_MAX: usize = 100_000;

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
        let is_put_too =
            |reservation: &ServiceKey| all.iter().any(|other| other.key == *reservation && other.missing > 0);
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
        let homeless = looked_at.saturating_sub(u32::try_from(placed.len()).unwrap_or(u32::MAX));
        let (makes_room, problem) = match homeless {
            0 => (false, None),
            _ => self.why_homeless(record, &request, &views, &on),
        };
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
        Some(ServiceForecast { comes, homeless, makes_room, problem, beyond: missing - looked_at, ..told })
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

    /// Whether others give way for one more, with what was planned counted, and if none would, why nobody takes it.
    fn why_homeless(
        &self,
        record: &ServiceRecord,
        request: &PlanRequest<'_>,
        views: &[NodeView<'_>],
        on: &BTreeMap<NodeId, u32>,
    ) -> (bool, Option<String>) {
        let with_planned = views.iter().map(|view| {
            let stars = on.get(&view.node).copied().unwrap_or_default();
            let kept = if request.placement.reservation.is_some() { 0 } else { stars };
            NodeView {
                of_service: view.of_service + stars,
                kept: view.kept.with(&request.template.reserve, kept),
                places: view.places.map(|places| places.saturating_sub(stars)),
                ..*view
            }
        });
        let mut all: Vec<NodeView<'_>> = with_planned.collect();
        if self.could_make_room(request.service, record, &all) {
            return (true, None);
        }
        all.extend(self.closed(request.service, request.placement));
        (false, check(&all, request).err().map(|problem| problem.message))
    }
}

impl ServiceForecast {
    fn of(service: &ServiceKey) -> Self {
        let service = service.name.clone();
        Self { service, comes: Vec::new(), due: None, homeless: 0, makes_room: false, problem: None, beyond: 0 }
    }
}

/// Whether two services share no machine, whichever of them says so.
fn are_apart(one: &Planned, other: &Planned) -> bool {
    let says = |one: &Planned, other: &Planned| one.record.spec.placement.apart_from.contains(&other.key.name);
    one.key != other.key && (says(one, other) || says(other, one))
}
