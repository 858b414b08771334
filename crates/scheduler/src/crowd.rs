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
    /// Whether one more star here is too many more than where there are fewest.
    pub(crate) fn is_beyond(&self, max_skew: u32) -> bool {
        self.has + 1 > self.least.saturating_add(max_skew)
    }
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
