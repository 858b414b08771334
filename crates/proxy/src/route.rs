//! The stars of one service: published as a set, chosen one by one, drained one by one.
//!
//! A request is counted in under the same lock under which its star is chosen, and a drain closes the star to choice
//! under that lock: once it has begun, what is in flight can only shrink.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use balancer::{Balancer, Stars};
use model::{Balance, EndpointSet, NodeId, StarId};

use crate::health::Health;
use crate::lane::{Lane, StarTraffic, Ticket};

#[derive(Debug, Default)]
pub(crate) struct Route(Mutex<Lanes>);

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    on_trial: usize,
    near: usize,
    near_on_trial: usize,
}

#[derive(Debug, Default)]
struct Lanes {
    generation: u64,
    balance: Option<Balance>,
    /// Stars that may be chosen, in the order of the set.
    open: Vec<Arc<Lane>>,
    /// How many of those are on trial, run on this machine, or both.
    counts: Counts,
    /// Stars that left the set busy and finish what they have; a set that names one again has it back.
    away: Vec<Arc<Lane>>,
    /// Stars that finish what they have for good, whatever a set says.
    draining: Vec<Arc<Lane>>,
    balancer: Balancer,
}

impl Route {
    /// Replaces the set. Stars that stay keep their connections; a star being drained stays out. An older set than the
    /// last one is ignored. `machine` gives how other machines are, and nothing for this one.
    pub(crate) fn publish(
        &self,
        set: &EndpointSet,
        balance: Balance,
        mut machine: impl FnMut(NodeId) -> Option<Arc<Health>>,
    ) {
        let mut lanes = self.lanes();
        if set.generation < lanes.generation {
            return;
        }
        lanes.generation = set.generation;
        lanes.balance = Some(balance);
        let mut before = std::mem::take(&mut lanes.open);
        before.append(&mut lanes.away);
        for endpoint in &set.endpoints {
            let same = |lane: &Arc<Lane>| lane.endpoint == *endpoint;
            if lanes.draining.iter().any(same) {
                continue;
            }
            let lane = match before.iter().position(same) {
                Some(at) => {
                    let lane = before.swap_remove(at);
                    lane.keep_idle();
                    lane
                }
                None => Arc::new(Lane::new(*endpoint, machine(endpoint.node))),
            };
            lane.set_on_trial(set.on_trial.contains(&endpoint.star));
            lanes.open.push(lane);
        }
        // Kept while busy, so that a drain that follows finds what is in flight.
        lanes.away = before;
        lanes.count();
        lanes.retire();
    }

    /// Chooses a star that is not in `tried`.
    pub(crate) fn pick(&self, tried: &[StarId]) -> Option<Ticket> {
        let mut guard = self.lanes();
        let lanes = &mut *guard;
        let at = |at: usize| lanes.open[at].candidate();
        let Counts { on_trial, near, near_on_trial } = lanes.counts;
        let stars = Stars { count: lanes.open.len(), on_trial, near, near_on_trial, at };
        let balance = lanes.balance.unwrap_or(Balance::RoundRobin);
        let at = lanes.balancer.pick(balance, &stars, tried)?;
        Some(lanes.open[at].enter())
    }

    /// Chooses the star no more, closes its connections at rest, and ends when nothing is in flight there.
    pub(crate) fn drain(self: &Arc<Self>, star: StarId) -> impl Future<Output = ()> + Send + use<> {
        let lane = {
            let mut guard = self.lanes();
            let lanes = &mut *guard;
            for left in [&mut lanes.open, &mut lanes.away] {
                lanes.draining.extend(left.extract_if(.., |lane| lane.endpoint.star == star));
            }
            lanes.count();
            lanes.draining.iter().find(|lane| lane.endpoint.star == star).cloned()
        };
        if let Some(lane) = &lane {
            lane.close_idle();
        }
        let route = Arc::clone(self);
        async move {
            if let Some(lane) = lane {
                lane.until_quiet().await;
                route.lanes().retire();
            }
        }
    }

    /// Whether no star is left, not even a draining one.
    pub(crate) fn is_empty(&self) -> bool {
        let lanes = self.lanes();
        lanes.all().next().is_none()
    }

    pub(crate) fn traffic(&self) -> BTreeMap<StarId, StarTraffic> {
        let lanes = self.lanes();
        lanes.all().map(|lane| (lane.endpoint.star, lane.traffic())).collect()
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // Every change is made of whole steps: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    fn all(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.open.iter().chain(&self.away).chain(&self.draining)
    }

    /// After each change of who may be chosen.
    fn count(&mut self) {
        let open = || self.open.iter().filter(|lane| !lane.is_far());
        self.counts = Counts {
            on_trial: self.open.iter().filter(|lane| lane.is_on_trial()).count(),
            near: open().count(),
            near_on_trial: open().filter(|lane| lane.is_on_trial()).count(),
        };
    }

    /// Forgets stars that have left and have nothing in flight.
    fn retire(&mut self) {
        for lanes in [&mut self.away, &mut self.draining] {
            lanes.retain(|lane| {
                lane.close_idle();
                lane.in_flight() > 0
            });
        }
    }
}
