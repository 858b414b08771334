//! Whether stars of a service may stay where they are, and count: what is the same for all of them is found out once. A service is
//! looked at whenever one of its stars moves on, and then all of them are.

use model::{Duty, NodeId, Placement, ServiceKey, StarPhase, WallTime};
use state::{NodeRecord, ServiceRecord, StarRecord, State};

use crate::node::Node;
use crate::rollouts::{ready_since, settles};

/// What decides about the stars of one service.
pub(crate) struct Ground<'n> {
    node: &'n Node,
    record: Option<&'n ServiceRecord>,
    /// Services whose machines its stars leave.
    avoided: Vec<ServiceKey>,
    /// Where its volumes lie.
    homes: Vec<NodeId>,
}

impl Ground<'_> {
    /// Stars that move, or of a machine that is drained or is not any more as their service requires, are replaced like those of an
    /// earlier revision: the next comes first. Those whose volume lies there stay: nothing could take their place.
    pub(crate) fn revision_on(&self, node: NodeId, revision: u64, moves: bool) -> u64 {
        let machine = self.node.state.nodes.get(&node);
        let is_unfit = |machine: &NodeRecord| machine.duty == Duty::Draining || self.is_misplaced(machine, revision);
        let is_near = || !self.avoided.is_empty() && self.node.has_any_of(&self.avoided, node);
        let is_to_go = moves || machine.is_some_and(is_unfit) || is_near();
        if is_to_go && !self.homes.contains(&node) { rollout::NOWHERE } else { revision }
    }

    /// What comes back for a while is placed as its own version says.
    fn is_misplaced(&self, machine: &NodeRecord, revision: u64) -> bool {
        let spec = self.record.map(|service| service.spec_of(revision).unwrap_or(&service.spec));
        spec.is_some_and(|spec| is_misplaced(&spec.placement, machine))
    }

    pub(crate) fn was_taken_back(&self, revision: u64) -> bool {
        self.record.is_some_and(|record| was_taken_back(record, revision))
    }

    /// Whether a star of this node or another makes up for an old one.
    pub(crate) fn has_settled(&self, star: &StarRecord, phase: StarPhase, wall: WallTime) -> bool {
        let Some(service) = self.record else { return false };
        match service.spec.update.healthy_ms {
            0 => phase == StarPhase::Ready,
            _ => phase == StarPhase::Ready && ready_since(star).is_some_and(|at| wall >= settles(service, at)),
        }
    }
}

impl Node {
    pub(crate) fn ground_of(&self, service: &ServiceKey) -> Ground<'_> {
        let record = self.state.services.get(service);
        let volumes = record.into_iter().flat_map(|record| State::volumes_of(service, &record.spec.template));
        Ground {
            node: self,
            record,
            avoided: self.avoided_by(service),
            homes: volumes.filter_map(|volume| self.state.homes.get(&volume).copied()).collect(),
        }
    }

    /// Whether a star so placed is not to be on a machine, for what that is.
    pub(crate) fn is_misplaced(&self, placement: &Placement, node: NodeId) -> bool {
        self.state.nodes.get(&node).is_some_and(|machine| is_misplaced(placement, machine))
    }

    pub(crate) fn has_volume_on(&self, service: &ServiceKey, node: NodeId) -> bool {
        let Some(record) = self.state.services.get(service) else { return false };
        let mut volumes = State::volumes_of(service, &record.spec.template);
        volumes.any(|volume| self.state.homes.get(&volume) == Some(&node))
    }
}

/// What has failed makes up for nothing, and gets no more requests.
pub(crate) fn was_taken_back(service: &ServiceRecord, revision: u64) -> bool {
    service.rollout.is_none() && service.taken_back.as_ref().is_some_and(|taken_back| taken_back.revision == revision)
}

fn is_misplaced(placement: &Placement, machine: &NodeRecord) -> bool {
    let evicted = || match placement.every_node {
        // Where it does not count a machine it has no star there.
        true => placement.kept_off(&machine.taints).is_some(),
        false => placement.kept_off_for_good(&machine.taints),
    };
    let is_broken = || placement.broken(Some(&machine.name), &machine.facts).next().is_some();
    machine.facts.are_told() && (is_broken() || evicted())
}
