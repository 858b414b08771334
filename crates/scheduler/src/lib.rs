//! Where stars go: a pure function from a view and a request to a plan with its reasons.
//!
//! A plan leaves nothing to choose (ids, ordinals, ports, node), and the state checks it again when it is applied. `fit` says which
//! machines may have a star, `order` which of them is next.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use model::{Bytes, Kept, Name, Network, NodeFacts, NodeId, Placement, ServiceKey, StarId, StarTemplate, Taints};

mod balance;
mod crowd;
mod fit;
mod ids;
mod order;
mod preempt;

pub use balance::{Move, balance};
pub use crowd::{Crowd, count_crowds};
pub use fit::{Closed, Unfit, check, reasons};
pub use ids::Ids;
pub use preempt::{Preemption, Tenant, preempt};

/// A node that stars can go to, and what it has to do already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeView<'a> {
    pub node: NodeId,
    pub name: Option<&'a Name>,
    /// For what of it is not known nothing is refused.
    pub facts: &'a NodeFacts,
    /// What services have to put up with there; nothing where it is not known.
    pub taints: Option<&'a Taints>,
    /// Why no star at all comes there now.
    pub closed: Option<Closed>,
    /// A service that has stars there and shares no machine with the one at hand.
    pub apart: Option<&'a ServiceKey>,
    /// Stars of the service ended there again and again: others are tried first.
    pub shunned: bool,
    /// Stars that run there.
    pub stars: u32,
    /// Of these, stars of the service at hand that are like the one asked for, and stay: it is spread among those.
    pub of_service: u32,
    /// And others of it, of another version or on their way out: they have their place as long as they are there, no more.
    pub others: u32,
    /// How its value of what stars are spread over compares with others, where that bounds them.
    pub crowd: Option<Crowd>,
    /// The sum of the limits of its stars.
    pub promised_memory: Bytes,
    /// The same in thousandths of a core.
    pub promised_cpu: u64,
    /// What is kept for its stars, and for those on their way.
    pub kept: Kept,
    /// Places of the reservation that the service at hand is to be in, and that nobody is in; nothing where it is in none.
    pub places: Option<u32>,
    /// Ports that stars on its network have, and will have.
    pub ports: [Option<&'a BTreeMap<u16, u32>>; 2],
}

/// Stars wanted for a service.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub service: &'a ServiceKey,
    pub template: &'a StarTemplate,
    pub placement: &'a Placement,
    /// Places to fill, in order.
    pub ordinals: &'a [u32],
}

/// One star, decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub star: StarId,
    pub ordinal: u32,
    pub node: NodeId,
    pub port: Option<u16>,
}

/// Ports for stars on the host's network: below the range that Linux gives to outgoing connections (32768 upwards).
const HOST_PORTS: std::ops::Range<u16> = 20_000..32_000;

impl NodeView<'_> {
    fn has_port(&self, port: u16) -> bool {
        self.ports.iter().flatten().any(|ports| ports.contains_key(&port))
    }
}

/// Places stars as their placement says. `taken` tells ids in use. Ordinals beyond what the nodes can hold are left out: on no
/// machine more is kept for stars than it has for them.
pub fn plan(
    views: &[NodeView<'_>],
    request: &Request<'_>,
    ids: &mut Ids,
    taken: impl Fn(StarId) -> bool,
) -> Vec<Placed> {
    let mut next = order::Next::new(views, *request, ids);
    let mut ports: BTreeSet<(NodeId, u16)> = BTreeSet::new();
    let mut used: BTreeSet<StarId> = BTreeSet::new();
    let mut plan: Vec<Placed> = Vec::with_capacity(request.ordinals.len());
    for ordinal in request.ordinals {
        let Some(place) = next.take(ids) else { break };
        let view = &views[place];
        let star = ids.next(|id| taken(id) || used.contains(&id));
        used.insert(star);
        let port = match request.template.network {
            Network::None | Network::Bridge => request.template.port,
            // Stars that share the host's ports each get one of their own.
            Network::Host => request.template.port.and_then(|_| {
                let offset = (star.0 % HOST_PORTS.len() as u64) as u16;
                let start = HOST_PORTS.start + offset;
                let mut candidates = (start..HOST_PORTS.end).chain(HOST_PORTS.start..start);
                let free = candidates.find(|port| !view.has_port(*port) && !ports.contains(&(view.node, *port)))?;
                ports.insert((view.node, free));
                Some(free)
            }),
        };
        plan.push(Placed { star, ordinal: *ordinal, node: view.node, port });
    }
    plan
}

#[cfg(test)]
mod tests;
