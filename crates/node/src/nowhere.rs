//! Why no machine takes a star that a service needs. Every machine can tell it, whoever leads: from the log, and from whom it hears.

use model::{Code, Duty, NodeId, Placement, Problem, ServiceKey, Standing, StarPhase, StarTemplate};
use rollout::decide;
use scheduler::{Closed, NodeView, Request as PlanRequest};
use state::{NodeRecord, ServiceRecord, State};

use crate::node::Node;

impl Node {
    pub(crate) fn nowhere(&self, key: &ServiceKey) -> Option<Problem> {
        let record = self.state.services.get(key)?;
        let template = &record.spec.template;
        let stays = self.volume_keeps(key, template);
        let current = self
            .state
            .stars_of(key)
            .filter(|star| star.phase < StarPhase::Draining && star.revision == record.revision && !star.leaving);
        if stays.is_some() {
            return stays.filter(|_| !record.paused && current.count() < record.wanted() as usize);
        }
        if !self.nursery_up || !self.is_homeless(key, record) {
            return None;
        }
        let placement = &record.spec.placement;
        if let Some(problem) = self.no_reservation(key, placement) {
            return Some(problem);
        }
        let request = PlanRequest { service: key, template, placement, ordinals: &[] };
        let open = self.candidates(&request, record.revision);
        let problem = scheduler::check(open.iter().chain(&self.closed(key, placement)), &request).err();
        let problem = problem.map(|problem| match record.rollout.as_ref().and_then(|rollout| rollout.previous) {
            Some(before) => problem.help(format!(
                "stars of version {} serve on; with `update: {{max_surge: 0, max_unavailable: 1}}` one goes before the next comes, and `rads \
                 c rollout abort {key}` takes the new one back",
                before.version
            )),
            None => problem,
        });
        problem.filter(|_| self.peers.leads || !self.could_make_room(&request, &open))
    }

    /// Whether stars of a service are wanted that are not there and do not come. Where others are on their way out for it, it will
    /// have a place.
    fn is_homeless(&self, key: &ServiceKey, record: &ServiceRecord) -> bool {
        if self.peers.leads {
            let is_short = self.services.get(key).is_some_and(|service| service.homeless);
            return is_short && !self.making_room.contains_key(key);
        }
        // What nobody comes for stays where it is: whoever leads writes that next.
        if record.paused || self.is_moving(key) {
            return false;
        }
        let actions = decide(self.wanted_of(key, record), &self.seen(key, self.wall));
        actions.start + actions.start_previous > 0
    }

    /// Machines of the constellation that get no stars of a service now, whatever it asks for.
    pub(crate) fn closed(&self, key: &ServiceKey, placement: &Placement) -> Vec<NodeView<'_>> {
        let why = |node: NodeId, record: &NodeRecord| match (record.standing, record.duty) {
            (Standing::Left, _) => None,
            _ if !record.facts.are_told() => None,
            (Standing::Lost, _) => Some(Closed::Dead),
            (Standing::Up, Duty::Draining) => Some(Closed::Drained),
            (Standing::Up, _) if !record.takes_stars_of(placement) => Some(Closed::Cordoned),
            (Standing::Up, _) => (!self.is_reachable(node)).then_some(Closed::Silent),
        };
        let apart = self.apart_there(key, placement);
        let closed = self.state.nodes.iter().filter_map(|(node, record)| {
            let (closed, apart) = (Some(why(*node, record)?), apart.get(node).copied());
            // No place of a reservation is what keeps it off.
            let places = placement.reservation.as_ref().map(|_| u32::MAX);
            Some(NodeView { closed, apart, places, ..self.view(*node, Some(record), &record.facts) })
        });
        closed.collect()
    }

    /// What keeps stars of a service from being started: one of its volumes lies where none come to.
    fn volume_keeps(&self, key: &ServiceKey, template: &StarTemplate) -> Option<Problem> {
        let home = |volume| Some((self.state.homes.get(&volume).copied()?, volume));
        let mut homes: Vec<_> = State::volumes_of(key, template).filter_map(home).collect();
        homes.sort();
        let refused = |message: String, help: String| Some(Problem::new(Code::NoCapacity, message).help(help));
        for (home, volume) in &homes {
            let Some(record) = self.state.nodes.get(home) else { continue };
            let name = &record.name;
            let (is, help) = match (record.standing, record.duty) {
                (Standing::Lost | Standing::Left, _) => (
                    "is dead",
                    format!(
                        "switch `{name}` on again, or give up what lies there with `rads c remove {name} --force`: \
                         `{key}` then begins with an empty volume elsewhere"
                    ),
                ),
                (Standing::Up, Duty::Cordoned) => ("is cordoned", format!("`rads c uncordon {name}` lets stars come")),
                (Standing::Up, Duty::Draining) => ("is drained", format!("`rads c uncordon {name}` lets stars come")),
                (Standing::Up, Duty::Takes) if !self.is_reachable(*home) => {
                    ("does not answer", "it is given up or back within seconds: see `rads c nodes`".to_owned())
                }
                (Standing::Up, Duty::Takes) => continue,
            };
            let message = format!("volume `{volume}` of `{key}` lies on node `{name}` and nowhere else, which {is}");
            return refused(message, help);
        }
        let ((first, one), (last, other)) = homes.first().zip(homes.last())?;
        if first == last {
            return None;
        }
        let name = |node: &NodeId| self.name_of(*node).map_or_else(|| node.to_string(), |name| name.to_string());
        let (first, last) = (name(first), name(last));
        let message = format!("volume `{one}` of `{key}` lies on node `{first}`, volume `{other}` on node `{last}`");
        refused(message, "its stars need all their volumes on one node: take one of them out of it".to_owned())
    }
}
