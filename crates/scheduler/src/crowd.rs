//! How unevenly stars may be spread: `max_skew` of a placement, over the values of its first attribute.
//!
//! A value counts when one of its machines may have a star but for room: one that is full or cannot be reached just now holds
//! the others back, for its stars would come there.

use std::collections::BTreeMap;

use model::NodeId;

use crate::fit::could_have;
use crate::{NodeView, Request};

/// A machine's value of what stars are spread over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowd {
    /// Stars of the service on the machines that have it.
    pub has: u32,
    /// The same of the value with the fewest.
    pub least: u32,
    /// The same among values of which no machine in the plan may have a star.
    pub elsewhere: Option<u32>,
}

impl Crowd {
    pub(crate) fn is_beyond(&self, max_skew: u32) -> bool {
        is_beyond(self.has, self.least, max_skew)
    }
}

/// Whether one more star would be too many more than where there are fewest.
fn is_beyond(has: u32, least: u32, max_skew: u32) -> bool {
    has >= least.saturating_add(max_skew)
}

/// Counts them for every machine that there is, of which those for which `planned` holds are in the plan.
pub fn count_crowds(views: &mut [NodeView<'_>], request: &Request<'_>, planned: impl Fn(NodeId) -> bool) {
    let Some(attribute) = request.placement.max_skew.and(request.placement.spread.first()) else { return };
    let mut values: BTreeMap<_, (u32, bool, Vec<usize>)> = BTreeMap::new();
    for (place, view) in views.iter().enumerate() {
        let (has, counts, places) = values.entry(attribute.of(view.name, view.facts)).or_default();
        *has += view.of_service;
        *counts |= could_have(view, request);
        places.push(place);
    }
    let all: Vec<(u32, bool, Vec<usize>)> = values.into_values().collect();
    let counted = || all.iter().filter(|(_, counts, _)| *counts);
    let is_planned = |places: &[usize]| {
        places.iter().any(|place| planned(views[*place].node) && could_have(&views[*place], request))
    };
    let least = counted().map(|(has, ..)| *has).min().unwrap_or_default();
    let elsewhere = counted().filter(|(.., places)| !is_planned(places)).map(|(has, ..)| *has).min();
    for (has, _, places) in &all {
        for place in places {
            views[*place].crowd = Some(Crowd { has: *has, least, elsewhere });
        }
    }
}

/// How many values of the first attribute have how many stars, where none may have too many more than another.
#[derive(Debug)]
pub(crate) struct Levels {
    max_skew: u32,
    values: BTreeMap<u32, u32>,
}

impl Levels {
    /// Of all values that count, those without a machine in this plan too.
    pub(crate) fn of(views: &[NodeView<'_>], request: &Request<'_>) -> Option<Self> {
        let (max_skew, attribute) = request.placement.max_skew.zip(request.placement.spread.first())?;
        let mut of_value: BTreeMap<_, (u32, bool)> = BTreeMap::new();
        for view in views {
            let has = view.crowd.map_or(view.of_service, |crowd| crowd.has);
            let (known, counts) = of_value.entry(attribute.of(view.name, view.facts)).or_default();
            *known = has.max(*known);
            *counts |= could_have(view, request);
        }
        let mut levels = Self { max_skew, values: BTreeMap::new() };
        let elsewhere = views.iter().filter_map(|view| view.crowd?.elsewhere).min();
        let here = of_value.into_values().filter(|(_, counts)| *counts).map(|(has, _)| has);
        here.chain(elsewhere).for_each(|has| levels.add(has));
        Some(levels)
    }

    pub(crate) fn may_rise(&self, of_service: u32) -> bool {
        let least = self.values.first_key_value().map_or(of_service, |(least, _)| *least);
        !is_beyond(of_service, least, self.max_skew)
    }

    fn add(&mut self, of_service: u32) {
        *self.values.entry(of_service).or_default() += 1;
    }

    pub(crate) fn rise(&mut self, of_service: u32) {
        if let Some(values) = self.values.get_mut(&of_service) {
            *values -= 1;
            if *values == 0 {
                self.values.remove(&of_service);
            }
        }
        self.add(of_service + 1);
    }
}
