//! Why the stars of a service are where they are, machine by machine: the answer to "why there", "why not there" and "why nowhere".

use std::collections::BTreeMap;

use model::{Duty, Name, NodeId, Placement, Problem, Reserve, ServiceKey, Standing, StarId, StarPhase};
use scheduler::{Request as PlanRequest, plan, reasons};
use serde::{Deserialize, Serialize};
use state::{NodeRecord, ServiceRecord, State};

use crate::jobs::JobView;
use crate::node::Node;
use crate::view::ServiceView;

/// Where the stars of a service are and may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ExplainView {
    pub service: ServiceKey,
    /// Stars it should have now, and of these, how many requests go to.
    pub desired: u32,
    pub ready: u32,
    #[serde(default, skip_serializing_if = "Placement::is_default")]
    pub placement: Placement,
    /// What is kept for each of its stars.
    #[serde(default, skip_serializing_if = "Reserve::is_nothing")]
    pub reserve: Reserve,
    /// Of a job: how it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobView>,
    /// Stars that were stopped by their names: these places stay free.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<u32>,
    /// Why it does not get to be what it should.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// Every machine that has not left.
    pub nodes: Vec<ExplainedNode>,
}

/// What a machine is to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ExplainedNode {
    pub node: NodeId,
    /// What it is called, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Its stars of the service, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub here: Vec<String>,
    /// Stars of all services.
    pub stars: u32,
    /// Everything that keeps the next star of the service off it; nothing when it may have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// How often in a row stars of the service ended here, if others are tried first because of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shunned: Option<u32>,
    /// Of what the service prefers, what holds here, and with which weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preferred: Vec<String>,
    /// One more star of the service would come here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub next: bool,
}

impl Node {
    /// Nothing of a service that is not known.
    pub fn explain(&self, key: &ServiceKey) -> Option<ExplainView> {
        let view = self.service_view(key)?;
        let ServiceRecord { spec, revision, .. } = self.state.services.get(key)?;
        let revision = *revision;
        let request =
            PlanRequest { service: key, template: &spec.template, placement: &spec.placement, ordinals: &[1] };
        let candidates = self.candidates(&request, revision);
        let mut ids = self.ids.clone();
        let next = plan(&candidates, &request, &mut ids, |_: StarId| false).first().map(|placed| placed.node);
        let mut here: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
        for star in self.state.stars_of(key).filter(|star| star.phase != StarPhase::Ended) {
            here.entry(star.node).or_default().push(star.name());
        }
        let shuns = self.services.get(key).map(|local| &local.shuns);
        let apart = self.apart_there(key, &spec.placement);
        let places = self.places_for(&request);
        let mut all = self.machines(key, &spec.placement, revision);
        scheduler::count_crowds(&mut all, &request, |_| true);
        let crowds: BTreeMap<NodeId, _> = all.iter().filter_map(|view| Some((view.node, view.crowd?))).collect();
        let explained = |node: NodeId, record: Option<&NodeRecord>| {
            let (name, facts) = match record {
                Some(record) => (Some(&record.name), &record.facts),
                None => (None, &self.own_facts),
            };
            let here = here.get(&node).cloned().unwrap_or_default();
            let mut keeps: Vec<String> =
                record.and_then(|record| self.takes_none(node, record, &spec.placement)).into_iter().collect();
            if node == self.config.node && !self.nursery_up {
                keeps.push("its nursery is away: no star is started there until it is back".to_owned());
            }
            keeps.extend(self.volumes_elsewhere(key, spec, node));
            let free = places.as_ref().map(|places| places.get(&node).map_or(0, |free| free.len() as u32));
            let seen = scheduler::NodeView {
                places: free,
                of_service: here.len() as u32,
                apart: apart.get(&node).copied(),
                crowd: crowds.get(&node).copied(),
                ..self.view(node, record, facts)
            };
            keeps.extend(reasons(&seen, &request).iter().map(ToString::to_string));
            let held = spec.placement.prefer.iter().filter(|wish| wish.that.holds(name, facts));
            ExplainedNode {
                node,
                name: name.cloned(),
                here,
                stars: seen.stars,
                reasons: keeps,
                shunned: shuns.and_then(|shuns| shuns.get(&node)?.failures(self.now)),
                preferred: held.map(|wish| format!("{} ({})", wish.that, wish.weight)).collect(),
                next: next == Some(node),
            }
        };
        let nodes = if self.state.cluster.is_none() {
            vec![explained(self.config.node, None)]
        } else {
            let there = self.state.nodes.iter().filter(|(_, record)| record.standing != Standing::Left);
            there.map(|(node, record)| explained(*node, Some(record))).collect()
        };
        let ServiceView { desired, ready, nowhere, problem, job, held, .. } = view;
        // What it would tell is told here.
        let is_news = |help: &String| !help.contains("rads c explain");
        let nowhere = nowhere.map(|problem| Problem { help: problem.help.filter(is_news), ..problem });
        let problem = nowhere.or_else(|| problem.map(|problem| Problem::new(model::Code::Unavailable, problem)));
        let (placement, reserve) = (spec.placement.clone(), spec.template.reserve);
        Some(ExplainView { service: key.clone(), desired, ready, placement, reserve, job, held, problem, nodes })
    }

    /// Why a machine gets no star at all.
    fn takes_none(&self, node: NodeId, record: &NodeRecord, placement: &Placement) -> Option<String> {
        let name = &record.name;
        match (record.standing, record.duty) {
            (Standing::Lost | Standing::Left, _) => Some("it is dead".to_owned()),
            (Standing::Up, Duty::Cordoned) if !record.takes_stars_of(placement) => {
                Some(format!("it is cordoned: `rads c uncordon {name}` lets stars come"))
            }
            (Standing::Up, Duty::Draining) => Some(format!("it is drained: `rads c uncordon {name}` lets stars come")),
            (Standing::Up, _) if !record.facts.are_told() => Some("it was let in and has not come yet".to_owned()),
            (Standing::Up, _) if !self.is_reachable(node) => Some("nothing is heard of it".to_owned()),
            (Standing::Up, _) => None,
        }
    }

    /// Volumes of a service that lie on other machines.
    fn volumes_elsewhere(&self, key: &ServiceKey, spec: &model::ServiceSpec, node: NodeId) -> Vec<String> {
        let away = |volume| {
            let home = self.state.homes.get(&volume).filter(|home| **home != node)?;
            let home = self.state.nodes.get(home).map_or(home.to_string(), |record| record.name.to_string());
            Some(format!("volume `{volume}` lies on `{home}`, and stars stay with their volumes"))
        };
        State::volumes_of(key, &spec.template).filter_map(away).collect()
    }
}
