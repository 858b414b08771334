//! The resources of all machines as one pool: what there is, what is kept for what, what is promised, and what is free.
//!
//! What is really used only a machine itself knows; whoever asks for the pool asks them.

use model::{Duty, Kept, Name, NodeFacts, NodeId, Standing};
use serde::{Deserialize, Serialize};

use crate::node::Node;

/// The pool, machine by machine and in sum.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ResourcesView {
    /// Machines that have not left.
    pub nodes: Vec<NodeResources>,
    /// Of those that get stars.
    pub sum: Pool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct NodeResources {
    pub node: NodeId,
    /// What it is called, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Whether it is up and gets stars.
    pub takes: bool,
    /// Stars on it that have not ended.
    pub stars: u32,
    pub pool: Pool,
}

/// Each in its unit: thousandths of a core, or bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Pool {
    pub cpu: Amounts,
    pub memory: Amounts,
    /// Of the file system of the data folder. Nothing of it is kept.
    pub disk: Amounts,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Amounts {
    /// What there is; 0 when it is not known.
    pub capacity: u64,
    /// Of that, what is kept for the machine itself.
    pub machine: u64,
    /// What is kept for stars.
    pub kept: u64,
    /// What could be kept for more.
    pub free: u64,
    /// The sum of the limits of stars: more than there is may be promised. Those without a limit are not in it.
    pub promised: u64,
    /// What is used at the moment, by whatever runs there; nothing where the machine did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
}

impl Amounts {
    fn and(&mut self, other: &Self) {
        self.capacity = self.capacity.saturating_add(other.capacity);
        self.machine = self.machine.saturating_add(other.machine);
        self.kept = self.kept.saturating_add(other.kept);
        self.free = self.free.saturating_add(other.free);
        self.promised = self.promised.saturating_add(other.promised);
        if let Some(used) = other.used {
            self.used = Some(self.used.unwrap_or(0).saturating_add(used));
        }
    }
}

impl ResourcesView {
    /// Adds up what the machines have that get stars.
    pub fn sum_up(&mut self) {
        self.sum = Pool::default();
        for Pool { cpu, memory, disk } in self.nodes.iter().filter(|node| node.takes).map(|node| &node.pool) {
            self.sum.cpu.and(cpu);
            self.sum.memory.and(memory);
            self.sum.disk.and(disk);
        }
    }
}

impl Node {
    /// What the log knows of the pool.
    pub fn resources_view(&self) -> ResourcesView {
        let nodes = match self.state.cluster {
            None => vec![self.resources_of(self.config.node, None, &self.own_facts, true)],
            Some(_) => {
                let there = self.state.nodes.iter().filter(|(_, record)| record.standing != Standing::Left);
                let view = there.map(|(node, record)| {
                    let takes = record.standing == Standing::Up && record.duty == Duty::Takes;
                    self.resources_of(*node, Some(&record.name), &record.facts, takes)
                });
                view.collect()
            }
        };
        let mut view = ResourcesView { nodes, sum: Pool::default() };
        view.sum_up();
        view
    }

    fn resources_of(&self, node: NodeId, name: Option<&Name>, facts: &NodeFacts, takes: bool) -> NodeResources {
        let load = self.state.stars.load_of(node).cloned().unwrap_or_default();
        let Kept { cpu: kept_cpu, memory: kept_memory } = load.kept;
        let (room_cpu, room_memory) = facts.room();
        let amounts = |capacity, machine: u64, room: Option<u64>, kept: u64, promised| {
            let free = room.unwrap_or(0).saturating_sub(kept);
            Amounts { capacity, machine, kept, free, promised, used: None }
        };
        let pool = Pool {
            cpu: amounts(u64::from(facts.cores) * 1_000, facts.reserved.cpu.0.into(), room_cpu, kept_cpu, load.cpu),
            memory: amounts(facts.memory.0, facts.reserved.memory.0, room_memory, kept_memory, load.memory),
            disk: amounts(0, 0, None, 0, load.disk),
        };
        NodeResources { node, name: name.cloned(), takes, stars: load.stars, pool }
    }
}
