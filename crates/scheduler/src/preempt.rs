//! Who gives way: when no machine has room for a star, stars of lower services go from the one where that does least harm.
//!
//! Least harm is, in this order: the highest priority among those that go is the lowest, then the fewest of them go, then the least
//! is kept for them. No service loses more stars than it may miss, but for those that its namespace has beyond its quota: they are
//! lower than any priority.

use std::collections::BTreeMap;

use model::{NodeId, Priority, Reserve, ServiceKey, StarId};

use crate::fit::{fits_but_for_room, no_room, skewed};
use crate::{NodeView, Request};

/// A star that is on a machine already, and for which something is kept there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenant<'a> {
    pub star: StarId,
    pub service: &'a ServiceKey,
    pub node: NodeId,
    /// `None`: its namespace has it beyond its quota.
    pub priority: Option<Priority>,
    pub reserve: Reserve,
    /// It is going already: what is kept for it is free soon, whoever it made room for.
    pub goes: bool,
    /// It is one of those that its service would miss.
    pub serves: bool,
}

/// Where a star will have room, and who goes for it. Nobody, where enough are going already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preemption {
    pub node: NodeId,
    pub stars: Vec<StarId>,
}

/// Worth of a set of stars that go; less is less harm.
type Harm = (Option<Priority>, usize, u64, NodeId);

/// Makes room for one star. `spare` says how many more stars of a service may go that serve.
pub fn preempt(
    views: &[NodeView<'_>],
    request: &Request<'_>,
    tenants: &[Tenant<'_>],
    spare: impl Fn(&ServiceKey) -> u32,
) -> Option<Preemption> {
    if request.template.reserve.is_nothing() {
        return None;
    }
    let mut there: BTreeMap<NodeId, Vec<&Tenant<'_>>> = BTreeMap::new();
    let priority = Some(request.placement.priority);
    for tenant in tenants.iter().filter(|tenant| tenant.goes || tenant.priority < priority) {
        there.entry(tenant.node).or_default().push(tenant);
    }
    let fit = views.iter().filter(|view| fits_but_for_room(view, request) && skewed(view, request).is_none());
    let on = |view| on(view, request, there.get(&view.node).map_or(&[][..], Vec::as_slice), &spare);
    let options = fit.filter_map(on);
    options.min_by_key(|(harm, _)| *harm).map(|(_, preemption)| preemption)
}

/// The least that must go from one machine, if that is enough.
fn on(
    view: &NodeView<'_>,
    request: &Request<'_>,
    tenants: &[&Tenant<'_>],
    spare: &impl Fn(&ServiceKey) -> u32,
) -> Option<(Harm, Preemption)> {
    let mut left = *view;
    let has_room = |left: &NodeView<'_>| no_room(left, 0, request).is_none();
    for tenant in tenants.iter().filter(|tenant| tenant.goes) {
        left.kept = left.kept.without(&tenant.reserve);
    }
    // The lowest first, of equals the largest: fewer of them are enough.
    let mut stay: Vec<&Tenant<'_>> = tenants.iter().copied().filter(|tenant| !tenant.goes).collect();
    stay.sort_by_key(|tenant| {
        (tenant.priority, tenant.serves, std::cmp::Reverse((tenant.reserve.memory, tenant.reserve.cpu)), tenant.star)
    });
    let mut spent: BTreeMap<&ServiceKey, u32> = BTreeMap::new();
    let mut go: Vec<&Tenant<'_>> = Vec::new();
    for tenant in stay {
        if has_room(&left) {
            break;
        }
        let is_missed = tenant.serves && tenant.priority.is_some();
        let spent = spent.entry(tenant.service).or_default();
        if is_missed && *spent >= spare(tenant.service) {
            continue;
        }
        *spent += u32::from(is_missed);
        left.kept = left.kept.without(&tenant.reserve);
        go.push(tenant);
    }
    if !has_room(&left) {
        return None;
    }
    // Who turned out not to be needed stays, the highest first.
    let mut needed = Vec::new();
    while let Some(tenant) = go.pop() {
        let with = NodeView { kept: left.kept.with(&tenant.reserve, 1), ..left };
        match has_room(&with) {
            true => left = with,
            false => needed.push(tenant),
        }
    }
    let highest = needed.iter().map(|tenant| tenant.priority).max().flatten();
    let memory = needed.iter().map(|tenant| tenant.reserve.memory.0).sum();
    let stars = needed.iter().rev().map(|tenant| tenant.star).collect();
    Some(((highest, needed.len(), memory, view.node), Preemption { node: view.node, stars }))
}
