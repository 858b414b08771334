//! Services that have a star on each machine: how many that is follows from the machines, and is counted when these change.

use model::{Duty, Placement, Standing};

use crate::apply::Change;
use crate::record::{NodeRecord, State};

/// Whether a machine has a star of such a service. One that is cordoned keeps it.
fn has_one(placement: &Placement, record: &NodeRecord) -> bool {
    record.standing == Standing::Up
        && record.duty != Duty::Draining
        && record.facts.are_told()
        && placement.broken(Some(&record.name), &record.facts).next().is_none()
        && placement.kept_off(&record.taints).is_none()
}

/// After each command that may have changed it.
pub(crate) fn recount(state: &mut State, changes: &mut Vec<Change>) {
    let is_news = |change: &Change| matches!(change, Change::NodeChanged { .. } | Change::ServicePut { .. });
    if !changes.iter().any(is_news) {
        return;
    }
    for (key, service) in &mut state.services {
        let placement = &service.spec.placement;
        let everywhere = placement.every_node.then(|| {
            // A machine that is alone is not among the nodes.
            if state.nodes.is_empty() {
                return 1;
            }
            let there = state.nodes.values().filter(|record| has_one(placement, record));
            u32::try_from(there.count()).unwrap_or(u32::MAX)
        });
        if std::mem::replace(&mut service.everywhere, everywhere) != everywhere {
            changes.push(Change::RolloutMoved { service: key.clone() });
        }
    }
}
