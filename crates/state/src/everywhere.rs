//! Services that have a star on each machine: how many that is follows from the machines, and is counted when these change.

use std::collections::BTreeMap;

use model::{Duty, NodeId, Placement, Standing};

use crate::apply::Change;
use crate::record::{NodeRecord, State};

/// Whether a machine has a star of such a service. One that is cordoned keeps it.
fn has_one(placement: &Placement, record: &NodeRecord) -> bool {
    record.standing == Standing::Up
        && record.duty != Duty::Draining
        && placement.fits(&record.name, &record.facts, &record.taints)
}

/// How many stars a service placed like this has, if that follows from the machines.
pub(crate) fn count(nodes: &BTreeMap<NodeId, NodeRecord>, placement: &Placement) -> Option<u32> {
    placement.every_node.then(|| {
        // A machine that is alone is not among the nodes.
        if nodes.is_empty() {
            return 1;
        }
        let there = nodes.values().filter(|record| has_one(placement, record));
        u32::try_from(there.count()).unwrap_or(u32::MAX)
    })
}

/// After each command that may have changed it.
pub(crate) fn recount(state: &mut State, changes: &mut Vec<Change>) {
    let is_news = |change: &Change| matches!(change, Change::NodeChanged { .. } | Change::ServicePut { .. });
    if !changes.iter().any(is_news) {
        return;
    }
    for (key, service) in &mut state.services {
        let everywhere = count(&state.nodes, &service.spec.placement);
        if std::mem::replace(&mut service.everywhere, everywhere) != everywhere {
            changes.push(Change::RolloutMoved { service: key.clone() });
        }
    }
}
