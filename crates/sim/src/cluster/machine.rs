//! One machine: an agent that can be killed, a nursery and its stars that outlive it, and power that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{Endpoint, ExitCause, NodeId, ServiceKey, StarId, Time};
use node::{Node, NodeConfig, RunningStar};
use state::{Command, State};

/// A star's process as the nursery has it.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) generation: u64,
    pub(crate) pid: u32,
    pub(crate) service: ServiceKey,
    pub(crate) ready_at: Time,
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) id: NodeId,
    pub(crate) powered: bool,
    /// Gone for good.
    pub(crate) wrecked: bool,
    pub(crate) agent: Option<Node>,
    /// Counts agents: what was meant for an earlier one is dropped.
    pub(crate) life: u64,
    /// How much of the log is on its disk.
    pub(crate) applied: u64,
    pub(crate) processes: BTreeMap<StarId, Process>,
    /// Ended in the nursery and not yet forgotten there.
    pub(crate) corpses: BTreeMap<StarId, ExitCause>,
    /// Singletons that may run until then.
    pub(crate) leases: BTreeMap<StarId, Time>,
    pub(crate) nursery_up: bool,
    /// It has too little memory left until then.
    pub(crate) short_until: Time,
    pub(crate) next_pid: u32,
    pub(crate) routes: BTreeMap<ServiceKey, Vec<Endpoint>>,
    /// Stars of which its agent was told that they fail requests.
    pub(crate) known_to_err: BTreeSet<StarId>,
    /// When the last proposal on its way will be at the leader: they stay in order.
    pub(crate) proposals_until: Time,
}

impl Machine {
    pub(crate) fn new(id: NodeId) -> Self {
        Self {
            id,
            powered: true,
            wrecked: false,
            agent: None,
            life: 0,
            applied: 0,
            processes: BTreeMap::new(),
            corpses: BTreeMap::new(),
            leases: BTreeMap::new(),
            nursery_up: true,
            short_until: Time::ZERO,
            next_pid: 100,
            routes: BTreeMap::new(),
            known_to_err: BTreeSet::new(),
            proposals_until: Time::ZERO,
        }
    }

    pub(crate) fn config(&self, seed: u64) -> NodeConfig {
        NodeConfig { node: self.id, seed, rootless: false, memory: model::Bytes::mib(4_096), cores: 2, cpus: None }
    }

    /// An agent begins with what is on the disk.
    pub(crate) fn start_agent(&mut self, log: &[Command], seed: u64) {
        let mut state = State::default();
        for (index, command) in (1..=self.applied).zip(log) {
            state::apply(&mut state, index, command);
        }
        self.life += 1;
        self.routes.clear();
        self.known_to_err.clear();
        self.agent = Some(Node::new(self.config(seed), state));
    }

    pub(crate) fn stop_agent(&mut self) {
        self.life += 1;
        self.agent = None;
    }

    pub(crate) fn cut_power(&mut self) {
        self.stop_agent();
        self.powered = false;
        self.nursery_up = true;
        self.processes.clear();
        self.leases.clear();
        self.corpses.clear();
    }

    pub(crate) fn running(&self) -> Vec<RunningStar> {
        let of = |(star, process): (&StarId, &Process)| RunningStar {
            star: *star,
            generation: process.generation,
            pid: process.pid,
            start_time: 7,
        };
        self.processes.iter().map(of).collect()
    }
}

/// How long a star takes to answer after its start.
pub(crate) const START_MAX: Duration = Duration::from_millis(30);
