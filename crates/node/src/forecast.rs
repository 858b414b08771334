//! What putting an app would come to, without doing it: whether it is refused, and which machines its stars would come to.
//!
//! It is worked out as if everything that goes had gone and nobody else asked for anything: a plan, no promise.

use std::collections::BTreeMap;

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
    /// Why none would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Stars beyond those that are looked at, of a service that has very many.
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

/// What a machine has more or less of than it has now.
#[derive(Debug, Clone, Copy, Default)]
struct Other {
    come: u32,
    go: u32,
    kept: Kept,
    freed: Kept,
}

impl Node {
    /// `base`: the version of the app that the change was planned from.
    pub fn forecast(&self, spec: &AppSpec, base: Option<u64>, wall: WallTime) -> Forecast {
        if let Err(problem) = self.check_app(spec, base) {
            return Forecast { refused: Some(problem), services: Vec::new() };
        }
        let mut others: BTreeMap<NodeId, Other> = BTreeMap::new();
        let services = spec.services.keys().filter_map(|name| {
            let (record, is_other) = as_put(&self.state, spec, name, wall)?;
            let due = record.spec.job.as_ref().and_then(calendar).and_then(|calendar| calendar.next_after(wall));
            let stars = self.forecast_of(&spec.service_key(name), &record, is_other, &mut others);
            let none = || ServiceForecast {
                service: name.clone(),
                comes: Vec::new(),
                due: None,
                homeless: 0,
                problem: None,
                beyond: 0,
            };
            stars.or_else(|| due.map(|_| none())).map(|stars| ServiceForecast { due, ..stars })
        });
        Forecast { refused: None, services: services.collect() }
    }

    fn forecast_of(
        &self,
        key: &ServiceKey,
        record: &ServiceRecord,
        is_other: bool,
        others: &mut BTreeMap<NodeId, Other>,
    ) -> Option<ServiceForecast> {
        let ServiceSpec { template, placement, .. } = &record.spec;
        let in_reservation = placement.reservation.is_some();
        if in_reservation && self.no_reservation(key, placement).is_some() {
            // Its places come with the same app, or later.
            return None;
        }
        let stays = |star: &StarRecord| {
            !is_other && star.phase < StarPhase::Draining && !star.leaving && self.may_stay(record, star)
        };
        let (mut stay, mut of_service) = (0_u32, BTreeMap::<NodeId, u32>::new());
        for star in self.state.stars_of(key).filter(|star| star.phase != StarPhase::Ended) {
            if stays(star) {
                stay += 1;
                *of_service.entry(star.node).or_default() += 1;
            } else {
                let other = others.entry(star.node).or_default();
                other.go += 1;
                other.freed = other.freed.with(&star.template.reserve, 1);
            }
        }
        let missing = record.wanted().saturating_sub(stay);
        if missing == 0 {
            return None;
        }
        let looked_at = missing.min(ASSIGNED_AT_ONCE);
        let ordinals: Vec<u32> = (1..=looked_at).collect();
        let request = PlanRequest { service: key, template, placement, ordinals: &ordinals };
        let mut views = self.machines(key, placement);
        for view in &mut views {
            view.of_service = of_service.get(&view.node).copied().unwrap_or_default();
            let Some(other) = others.get(&view.node) else { continue };
            view.stars = (view.stars + other.come).saturating_sub(other.go);
            view.kept = view.kept.and(other.kept).less(other.freed);
        }
        let views = self.candidates_among(&request, views);
        let placed = plan(&views, &request, &mut self.ids.clone(), |_: StarId| false);
        let mut on: BTreeMap<NodeId, u32> = BTreeMap::new();
        for placed in &placed {
            *on.entry(placed.node).or_default() += 1;
        }
        for (node, stars) in &on {
            let other = others.entry(*node).or_default();
            other.come += stars;
            if !in_reservation {
                other.kept = other.kept.with(&template.reserve, *stars);
            }
        }
        let mut comes: Vec<Comes> =
            on.iter().map(|(node, stars)| Comes { node: *node, name: self.name_of(*node), stars: *stars }).collect();
        comes.sort_by_key(|comes| std::cmp::Reverse(comes.stars));
        let homeless = looked_at.saturating_sub(u32::try_from(placed.len()).unwrap_or(u32::MAX));
        let problem = (homeless > 0).then(|| self.why_homeless(&request, &views, &on)).flatten();
        let (service, beyond) = (key.name.clone(), missing - looked_at);
        Some(ServiceForecast { service, comes, due: None, homeless, problem, beyond })
    }

    /// Whether a star that runs is where, and what, its service will want.
    fn may_stay(&self, record: &ServiceRecord, star: &StarRecord) -> bool {
        let of_present = self.state.services.get(&star.service).map(|before| before.revision) == Some(star.revision);
        let is_to_go = self.is_draining(star.node) || self.is_misplaced(&record.spec.placement, star.node);
        of_present && (!is_to_go || self.has_volume_on(&star.service, star.node))
    }

    /// Why nobody takes one more, with what was planned counted.
    fn why_homeless(
        &self,
        request: &PlanRequest<'_>,
        views: &[NodeView<'_>],
        on: &BTreeMap<NodeId, u32>,
    ) -> Option<String> {
        let planned = views.iter().map(|view| {
            let stars = on.get(&view.node).copied().unwrap_or_default();
            let kept = if request.placement.reservation.is_some() { 0 } else { stars };
            NodeView {
                of_service: view.of_service + stars,
                kept: view.kept.with(&request.template.reserve, kept),
                places: view.places.map(|places| places.saturating_sub(stars)),
                ..*view
            }
        });
        let all: Vec<NodeView<'_>> = planned.chain(self.closed(request.service, request.placement)).collect();
        check(&all, request).err().map(|problem| problem.message)
    }
}
