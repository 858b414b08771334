//! Whether stars of a service may stay where they are, and count: what is the same for all of them is found out once. A service is
//! looked at whenever one of its stars moves on, and then all of them are.

use model::{NodeId, Placement, ServiceKey, StarPhase, WallTime};
use state::{ServiceRecord, StarRecord, State};

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
    /// A version that failed makes up for nothing, and gets no more requests.
    taken_back: Option<u64>,
}

impl Ground<'_> {
    /// Stars that move, or of a machine that is drained or is not any more as their service requires, are replaced like those of an
    /// earlier revision: the next comes first. Those whose volume lies there stay: nothing could take their place.
    pub(crate) fn revision_on(&self, node: NodeId, revision: u64, moves: bool) -> u64 {
        let is_to_go = moves || self.node.is_draining(node) || self.is_unfit(node, revision);
        if is_to_go && !self.homes.contains(&node) { rollout::NOWHERE } else { revision }
    }

    /// What comes back for a while is placed as its own version says.
    fn is_unfit(&self, node: NodeId, revision: u64) -> bool {
        let is_misplaced = self.record.is_some_and(|service| {
            self.node.is_misplaced(&service.spec_of(revision).unwrap_or(&service.spec).placement, node)
        });
        is_misplaced || (!self.avoided.is_empty() && self.node.has_any_of(&self.avoided, node))
    }

    pub(crate) fn was_taken_back(&self, revision: u64) -> bool {
        self.taken_back == Some(revision)
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
        let taken_back = record.filter(|record| record.rollout.is_none()).and_then(|record| record.taken_back.as_ref());
        Ground {
            node: self,
            record,
            avoided: self.avoided_by(service),
            homes: volumes.filter_map(|volume| self.state.homes.get(&volume).copied()).collect(),
            taken_back: taken_back.map(|taken_back| taken_back.revision),
        }
    }

    /// Whether a star so placed is not to be on a machine, for what that is.
    pub(crate) fn is_misplaced(&self, placement: &Placement, node: NodeId) -> bool {
        self.state.nodes.get(&node).is_some_and(|node| {
            let evicted = || match placement.every_node {
                // Where it does not count a machine it has no star there.
                true => placement.kept_off(&node.taints).is_some(),
                false => placement.kept_off_for_good(&node.taints),
            };
            node.facts.are_told() && (placement.broken(Some(&node.name), &node.facts).next().is_some() || evicted())
        })
    }

    pub(crate) fn has_volume_on(&self, service: &ServiceKey, node: NodeId) -> bool {
        let Some(record) = self.state.services.get(service) else { return false };
        let mut volumes = State::volumes_of(service, &record.spec.template);
        volumes.any(|volume| self.state.homes.get(&volume) == Some(&node))
    }
}
