//! What a namespace has beyond its quota, which it keeps for as long as nobody else wants the room.
//!
//! Its stars stand in a row: those of a higher priority first, of equals those that have been there for longer. As far as the quota
//! goes they are its own, and those behind give way to any star that is another namespace's own, whatever the priorities are. Nothing
//! of that is written down: the row follows from what there is, and moves up when a star ends or a quota grows.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use model::{Limits, Name, Placement, Program, Quota, ServiceKey, StarId, StarPhase, StarTemplate, Usage};

use crate::record::{ServiceRecord, StarRecord, State};

impl State {
    /// The stars that a namespace has beyond its quota. None where it may have no more than that.
    pub fn beyond_quota(&self, namespace: &Name) -> BTreeSet<StarId> {
        let Some(quota) = self.quota_with_burst(namespace) else { return BTreeSet::new() };
        let mut used = Usage::default();
        let behind = self.row(namespace).into_iter().filter(|(_, star)| {
            self.count(star, &mut used);
            quota.is_passed_by(&used)
        });
        behind.map(|(_, star)| star.id).collect()
    }

    /// How many of so many more stars of a service would be its namespace's own.
    pub fn within_quota(&self, service: &ServiceKey, template: &StarTemplate, placement: &Placement, most: u32) -> u32 {
        let Some(quota) = self.quota_with_burst(&service.namespace) else { return most };
        let mut used = Usage::default();
        for (of, star) in self.row(&service.namespace) {
            if of.spec.placement.priority >= placement.priority {
                self.count(star, &mut used);
            }
        }
        let reservation = placement.reservation.as_ref().and_then(|name| self.services.get(&service.beside(name)));
        let place = reservation.map(|held| held.spec.template.reserve).unwrap_or_default();
        let limits = counted(template);
        let own = (0..most).take_while(|_| {
            used.add_stars(1, &limits, &place);
            !quota.is_passed_by(&used)
        });
        u32::try_from(own.count()).unwrap_or(most)
    }

    fn quota_with_burst(&self, namespace: &Name) -> Option<&Quota> {
        let quota = &self.namespaces.get(namespace)?.quota;
        quota.burst.is_some_and(|more| more > 0).then_some(quota)
    }

    /// The stars of a namespace as a quota counts them: a star beside the one whose place it is to take is none.
    fn row(&self, namespace: &Name) -> Vec<(&ServiceRecord, &StarRecord)> {
        let mut row = Vec::new();
        for (key, record) in self.services.iter().filter(|(key, _)| key.namespace == *namespace) {
            let stays = |star: &&StarRecord| star.phase < StarPhase::Draining && !star.leaving;
            let mut stars: Vec<&StarRecord> = self.stars_of(key).filter(stays).collect();
            stars.sort_by_key(|star| (star.assigned, star.id));
            row.extend(stars.into_iter().take(record.wanted() as usize).map(|star| (record, star)));
        }
        row.sort_by_key(|(record, star)| (Reverse(record.spec.placement.priority), star.assigned, star.id));
        row
    }

    fn count(&self, star: &StarRecord, used: &mut Usage) {
        let place = star.place.and_then(|place| self.stars.get(&place));
        let place = place.map(|place| place.template.reserve).unwrap_or_default();
        used.add_stars(1, &counted(&star.template), &place);
    }
}

/// What counts of a star; of a place in a reservation that is what it keeps.
fn counted(template: &StarTemplate) -> Limits {
    let StarTemplate { program, limits, reserve, .. } = template;
    match program {
        Program::Nothing => {
            Limits { cpu: limits.cpu.or(Some(reserve.cpu)), memory: limits.memory.or(Some(reserve.memory)), ..*limits }
        }
        _ => *limits,
    }
}
