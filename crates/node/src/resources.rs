//! The resources of all machines as one pool: what there is, what is kept for what, what is promised, and what is free.
//!
//! What is really used only a machine itself knows; whoever asks for the pool asks them.

use model::{Duty, Kept, Name, NodeFacts, NodeId, Overcommit, Standing};
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
    /// How often what a machine has may be kept for stars, where nothing of its own is said.
    #[serde(default, skip_serializing_if = "Overcommit::is_none")]
    pub overcommit: Overcommit,
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
    /// How often what it has may be kept for stars.
    #[serde(default, skip_serializing_if = "Overcommit::is_none")]
    pub overcommit: Overcommit,
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
    /// What could be kept for more, as often as its operator says.
    pub free: u64,
    /// Of what is free, what lies idle because too little is left of the other that stars need: processors without memory, or memory
    /// without processors.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub stranded: u64,
    /// The sum of the limits of stars: more than there is may be promised. Those without a limit are not in it.
    pub promised: u64,
    /// What is used at the moment, by whatever runs there; nothing where the machine did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
}

fn is_nothing(amount: &u64) -> bool {
    *amount == 0
}

/// Less than one part in so many free is too little for stars to count on.
const SCARCE: u128 = 10;

impl Pool {
    /// Finds what is stranded: where one is scarce and more is free of the other, the part of that which goes beyond.
    fn strand(&mut self) {
        let Self { cpu, memory, .. } = self;
        (cpu.stranded, memory.stranded) = (cpu.beyond(memory), memory.beyond(cpu));
    }
}

impl Amounts {
    /// What is free of this beyond the part that is free of another which is scarce.
    fn beyond(&self, other: &Self) -> u64 {
        let is_scarce = u128::from(other.free) * SCARCE < u128::from(other.capacity);
        if !is_scarce || self.capacity == 0 {
            return 0;
        }
        let part = u128::from(self.capacity) * u128::from(other.free) / u128::from(other.capacity);
        self.free.saturating_sub(u64::try_from(part).unwrap_or(u64::MAX))
    }

    fn and(&mut self, other: &Self) {
        self.capacity = self.capacity.saturating_add(other.capacity);
        self.machine = self.machine.saturating_add(other.machine);
        self.kept = self.kept.saturating_add(other.kept);
        self.free = self.free.saturating_add(other.free);
        self.stranded = self.stranded.saturating_add(other.stranded);
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
        let mut view = ResourcesView { nodes, sum: Pool::default(), overcommit: self.state.overcommit };
        view.sum_up();
        view
    }

    fn resources_of(&self, node: NodeId, name: Option<&Name>, facts: &NodeFacts, takes: bool) -> NodeResources {
        let load = self.state.stars.load_of(node).cloned().unwrap_or_default();
        let Kept { cpu: kept_cpu, memory: kept_memory } = load.kept;
        let (room_cpu, room_memory) = facts.room();
        let amounts = |capacity, machine: u64, room: Option<u64>, kept: u64, promised| {
            let free = room.unwrap_or(0).saturating_sub(kept);
            Amounts { capacity, machine, kept, free, stranded: 0, promised, used: None }
        };
        let mut pool = Pool {
            cpu: amounts(u64::from(facts.cores) * 1_000, facts.reserved.cpu.0.into(), room_cpu, kept_cpu, load.cpu),
            memory: amounts(facts.memory.0, facts.reserved.memory.0, room_memory, kept_memory, load.memory),
            disk: amounts(0, 0, None, 0, load.disk),
        };
        pool.strand();
        NodeResources { node, name: name.cloned(), takes, overcommit: facts.overcommit, stars: load.stars, pool }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(capacity: u64, free: u64) -> Amounts {
        Amounts { capacity, free, ..Amounts::default() }
    }

    #[test]
    fn what_lies_idle_for_want_of_the_other_is_stranded() {
        let check = |cpu: (u64, u64), memory: (u64, u64), stranded: (u64, u64)| {
            let [cpu, memory] = [cpu, memory].map(|(capacity, free)| amounts(capacity, free));
            let mut pool = Pool { cpu, memory, disk: Amounts::default() };
            pool.strand();
            assert_eq!((pool.cpu.stranded, pool.memory.stranded), stranded, "{cpu:?} {memory:?}");
        };
        check((4_000, 4_000), (1_000, 1_000), (0, 0));
        check((4_000, 0), (1_000, 700), (0, 700));
        // What the processors that are left can go with is not stranded.
        check((4_000, 200), (1_000, 700), (0, 650));
        check((4_000, 400), (1_000, 700), (0, 0));
        check((4_000, 2_000), (1_000, 50), (1_800, 0));
        check((4_000, 0), (1_000, 0), (0, 0));
        // What is not known strands nothing.
        check((0, 0), (1_000, 700), (0, 0));
        check((4_000, 0), (0, 0), (0, 0));
        check((u64::MAX, 0), (u64::MAX, u64::MAX), (0, u64::MAX));
    }
}
