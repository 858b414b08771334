//! Where stars go: a pure function from a view and a request to a plan with its reasons.
//!
//! One node today. What is here is the seam that many nodes will use: a plan leaves nothing to choose (ids, ordinals,
//! ports, node), and the state checks it again when it is applied.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use model::{Bytes, Code, CpuSet, Network, NodeId, Problem, ServiceKey, StarId, StarTemplate};

/// What is known of the node that stars can go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeView {
    pub node: NodeId,
    /// 0 when it is not known; then nothing is refused for it.
    pub memory: Bytes,
    /// Its processors; `None` when they are not known, and then nothing is refused for them.
    pub cpus: Option<CpuSet>,
}

/// Stars wanted for a service.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub service: &'a ServiceKey,
    pub template: &'a StarTemplate,
    /// Places to fill, in order.
    pub ordinals: &'a [u32],
}

/// One star, decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    pub star: StarId,
    pub ordinal: u32,
    pub node: NodeId,
    pub port: Option<u16>,
}

/// Ports for stars on the host's network: below the range that Linux gives to outgoing connections (32768 upwards).
const HOST_PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Star ids from a seed: the same seed gives the same ids, and different agents different ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    state: u64,
}

impl Ids {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next id that is not `taken`.
    pub fn next(&mut self, taken: impl Fn(StarId) -> bool) -> StarId {
        loop {
            let id = StarId(self.random());
            if !taken(id) {
                return id;
            }
        }
    }

    /// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Whether a star of this template can run anywhere at all; the problem names what it needs and what there is.
pub fn check(view: &NodeView, service: &ServiceKey, template: &StarTemplate) -> Result<(), Problem> {
    if let (Some(needs), Some(has)) = (template.limits.cpus, view.cpus)
        && let Some(missing) = needs.first_beyond(&has)
    {
        let message = format!("no node can hold a star of `{service}` (needs processor {missing}, the node has {has})");
        return Err(Problem::new(Code::NoCapacity, message).help("name others in its `cpus`"));
    }
    let Some(needs) = template.limits.memory else { return Ok(()) };
    if view.memory.0 == 0 || needs <= view.memory {
        return Ok(());
    }
    let message = format!(
        "no node can hold a star of `{service}` (needs {needs} of memory, the largest node has {})",
        view.memory
    );
    Err(Problem::new(Code::NoCapacity, message).help("lower its `ram_mb`"))
}

/// Places stars. `taken` tells ids in use, `ports` those of stars on the host's network.
pub fn plan(
    view: &NodeView,
    request: &Request<'_>,
    ids: &mut Ids,
    taken: impl Fn(StarId) -> bool,
    ports: &BTreeSet<u16>,
) -> Vec<Placement> {
    let mut ports = ports.clone();
    let mut placements: Vec<Placement> = Vec::with_capacity(request.ordinals.len());
    for ordinal in request.ordinals {
        let star = ids.next(|id| taken(id) || placements.iter().any(|placed| placed.star == id));
        let port = match request.template.network {
            Network::None | Network::Bridge => request.template.port,
            // Stars that share the host's ports each get one of their own.
            Network::Host => request.template.port.and_then(|_| {
                let offset = (star.0 % HOST_PORTS.len() as u64) as u16;
                let start = HOST_PORTS.start + offset;
                let free = (start..HOST_PORTS.end).chain(HOST_PORTS.start..start).find(|port| !ports.contains(port))?;
                ports.insert(free);
                Some(free)
            }),
        };
        placements.push(Placement { star, ordinal: *ordinal, node: view.node, port });
    }
    placements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_from_the_seed_and_avoid_those_taken() {
        let (mut a, mut b) = (Ids::new(7), Ids::new(7));
        let first = a.next(|_| false);
        assert_eq!(first, b.next(|_| false));
        let mut c = Ids::new(7);
        assert_ne!(c.next(|id| id == first), first);
        assert_ne!(Ids::new(8).next(|_| false), first);
    }
}
