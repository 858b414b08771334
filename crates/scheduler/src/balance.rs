//! Which stars would be elsewhere if they were placed now.
//!
//! Stars come and machines come, and what was even is not any more. Here are the fewest moves after which a service is spread as
//! its placement says: over the values of its first attribute, within each over those of the next, at last over machines. One star
//! moves at a time, from where there are most to where there are fewest, and only if that is better by more than the move.

use std::collections::BTreeMap;

use model::{Attribute, NodeId, Strategy};

use crate::fit::fits;
use crate::order::{crowding, preferred};
use crate::{NodeView, Request};

/// A star of the service goes from one machine to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    pub from: NodeId,
    pub to: NodeId,
}

/// The moves that spread a service evenly again, at most so many; none for one that is not spread. `movable` says how many of its
/// stars on a machine may move. The next star comes before the old one goes: no room that a move leaves counts for another.
pub fn balance(
    views: &[NodeView<'_>],
    request: &Request<'_>,
    movable: impl Fn(NodeId) -> u32,
    most: usize,
) -> Vec<Move> {
    if request.placement.strategy != Strategy::Spread {
        return Vec::new();
    }
    let machine = |view: &NodeView<'_>| Machine { movable: movable(view.node), preferred: preferred(view, request) };
    let machines = views.iter().map(machine).collect();
    let mut scale = Scale { views: views.to_vec(), machines, request: *request };
    let mut moves = Vec::new();
    while moves.len() < most {
        let all: Vec<usize> = (0..views.len()).collect();
        let Some((from, to)) = scale.next(&all, &request.placement.spread) else { break };
        scale.carry(from, to);
        moves.push(Move { from: views[from].node, to: views[to].node });
    }
    moves
}

#[derive(Debug, Clone, Copy)]
struct Machine {
    movable: u32,
    preferred: i64,
}

struct Scale<'v, 'r> {
    views: Vec<NodeView<'v>>,
    machines: Vec<Machine>,
    request: Request<'r>,
}

impl<'v> Scale<'v, '_> {
    /// The best move among the machines at these places.
    fn next(&self, places: &[usize], spread: &[Attribute]) -> Option<(usize, usize)> {
        let Some((attribute, others)) = spread.split_first() else {
            let (from, to) = (self.giver(places, &[])?, self.taker(places, &[])?);
            // What the star is worth where it is: there it is the last, on the other machine it would be the next.
            let is_better = from != to && self.load(to, 0) < self.load(from, 1);
            return is_better.then_some((from, to));
        };
        let values = self.by(attribute, places);
        let giver = values.iter().filter_map(|places| Some((self.stars(places), self.giver(places, others)?)));
        let taker = values.iter().filter_map(|places| Some((self.stars(places), self.taker(places, others)?)));
        let (giver, taker) = (giver.max_by_key(|(stars, _)| *stars), taker.min_by_key(|(stars, _)| *stars));
        if let (Some((many, from)), Some((few, to))) = (giver, taker)
            && many > few + 1
        {
            return Some((from, to));
        }
        values.iter().find_map(|places| self.next(places, others))
    }

    /// The machine that has a star too many, if any.
    fn giver(&self, places: &[usize], spread: &[Attribute]) -> Option<usize> {
        let Some((attribute, others)) = spread.split_first() else {
            let can = places.iter().copied().filter(|place| self.machines[*place].movable > 0);
            return can.max_by_key(|place| (self.load(*place, 1), self.views[*place].stars, *place));
        };
        let values = self.by(attribute, places);
        let can = values.iter().filter_map(|places| Some((self.stars(places), self.giver(places, others)?)));
        can.max_by_key(|(stars, _)| *stars).map(|(_, place)| place)
    }

    /// The machine that would get the next star, if any.
    fn taker(&self, places: &[usize], spread: &[Attribute]) -> Option<usize> {
        let Some((attribute, others)) = spread.split_first() else {
            let may = |place: &usize| !self.views[*place].shunned && fits(&self.views[*place], &self.request);
            let can = places.iter().copied().filter(may);
            return can.min_by_key(|place| (self.load(*place, 0), self.views[*place].stars, *place));
        };
        let values = self.by(attribute, places);
        let can = values.iter().filter_map(|places| Some((self.stars(places), self.taker(places, others)?)));
        can.min_by_key(|(stars, _)| *stars).map(|(_, place)| place)
    }

    /// What a machine is worth for the next star, as a plan has it, when so many have gone.
    fn load(&self, place: usize, without: u32) -> i64 {
        crowding(self.views[place].of_service.saturating_sub(without), self.machines[place].preferred)
    }

    fn stars(&self, places: &[usize]) -> u32 {
        places.iter().map(|place| self.views[*place].of_service).sum()
    }

    /// Machines of each value; those of which it is not known are together.
    fn by(&self, attribute: &Attribute, places: &[usize]) -> Vec<Vec<usize>> {
        let mut values: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for place in places {
            let view = &self.views[*place];
            values.entry(attribute.of(view.name, view.facts)).or_default().push(*place);
        }
        values.into_values().collect()
    }

    fn carry(&mut self, from: usize, to: usize) {
        let reserve = &self.request.template.reserve;
        let giver = &mut self.views[from];
        giver.of_service = giver.of_service.saturating_sub(1);
        giver.stars = giver.stars.saturating_sub(1);
        self.machines[from].movable = self.machines[from].movable.saturating_sub(1);
        let view = &mut self.views[to];
        view.of_service += 1;
        view.stars += 1;
        view.kept = view.kept.with(reserve, 1);
    }
}
