//! Stars that would be elsewhere if they were placed now, and those that move there.

use std::collections::{BTreeMap, BTreeSet};

use model::{Name, NodeId, ServiceKey, StarId, StarPhase};
use scheduler::{Move, Request as PlanRequest, balance};
use serde::{Deserialize, Serialize};
use state::{Command, StarRecord};

use crate::log::Purpose;
use crate::node::{Node, Step};

/// Moves that are told at once, of all services together.
const MOVES_MAX: usize = 1_000;

/// A star that would better be on another machine, as its service is to be spread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MoveView {
    pub service: ServiceKey,
    pub ordinal: u32,
    /// Of its machine, and of the one that another would come to.
    pub from: Name,
    pub to: Name,
}

impl Node {
    /// The moves after which every service is spread as it should be: none of those that cannot move now, at most 1,000.
    pub fn moves(&self) -> Vec<MoveView> {
        let mut moves = Vec::new();
        for (key, record) in &self.state.services {
            let left = MOVES_MAX - moves.len();
            if left == 0 {
                break;
            }
            // One star is nowhere too many.
            if record.wanted() > 1 && record.lets_stars_move() {
                moves.extend(self.moves_of(key, left));
            }
        }
        moves
    }

    fn moves_of(&self, key: &ServiceKey, most: usize) -> Vec<MoveView> {
        let Some(record) = self.state.services.get(key) else { return Vec::new() };
        let mut on: BTreeMap<NodeId, Vec<&StarRecord>> = BTreeMap::new();
        for star in self.state.stars_of(key).filter(|star| star.phase == StarPhase::Ready && !star.leaving) {
            if star.moves {
                // It is told again when those that move have come.
                return Vec::new();
            }
            on.entry(star.node).or_default().push(star);
        }
        // The newest goes first, as when there are too many.
        on.values_mut().for_each(|stars| stars.sort_by_key(|star| star.ordinal));
        let spec = &record.spec;
        let request = PlanRequest { service: key, template: &spec.template, placement: &spec.placement, ordinals: &[] };
        let movable = |node| on.get(&node).map_or(0, |stars| u32::try_from(stars.len()).unwrap_or(u32::MAX));
        let moves = balance(&self.candidates(&request, record.revision), &request, movable, most);
        let name = |node| self.state.nodes.get(&node).map(|record| record.name.clone());
        let told = moves.into_iter().filter_map(|Move { from, to }| {
            let ordinal = on.get_mut(&from)?.pop()?.ordinal;
            Some(MoveView { service: key.clone(), ordinal, from: name(from)?, to: name(to)? })
        });
        told.collect()
    }

    /// Machines to which no star of a service comes: stars of it move away from them.
    pub(crate) fn left_by_moves(&self, service: &ServiceKey) -> BTreeSet<NodeId> {
        self.moving(service).map(|star| star.node).collect()
    }

    /// Where no other machine has room for them, stars stay where they are. Whether there are any that were to move.
    pub(crate) fn end_moves(&mut self, service: &ServiceKey, step: &mut Step<'_>) -> bool {
        let stars: Vec<StarId> = self.moving(service).map(|star| star.id).collect();
        let news: Vec<StarId> = stars.iter().copied().filter(|star| !self.log.is_move_ending(*star)).collect();
        if !news.is_empty() {
            self.propose(Purpose::Retire, Command::EndMove { stars: news, wall: step.wall }, step);
        }
        !stars.is_empty()
    }

    pub(crate) fn is_moving(&self, service: &ServiceKey) -> bool {
        self.moving(service).next().is_some()
    }

    fn moving(&self, service: &ServiceKey) -> impl Iterator<Item = &StarRecord> {
        self.state.stars_of(service).filter(|star| star.moves && star.phase < StarPhase::Draining)
    }
}
