//! Which machine is next: machines in order, and over them the values that stars are spread over, in order too.
//!
//! The next one is always at the top, so of thousands of machines none is looked at that gets nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use model::{Attribute, NodeId, Reserve, Strategy};

use crate::crowd::Levels;
use crate::fit::{fits, no_room};
use crate::ids::Ids;
use crate::{NodeView, Request};

/// What a machine is worth for the next star; less is better. Whether it is one to be tried last, what the strategy says, and to tell
/// equals apart the machine itself and where its view is.
type Rank = (Last, [i64; 3], NodeId, usize);

/// What lets a machine come last: that stars of the service end there again and again, or else that it is promised more than there is room.
type Last = (bool, bool);

/// Machines, or values of an attribute with what is below each.
#[derive(Debug)]
enum Order {
    Machines(BinaryHeap<Reverse<Rank>>),
    Values(Values),
}

type Values = BinaryHeap<Reverse<Value>>;

/// One value of an attribute: stars of the service on the machines that have it, and what its best machine is worth.
#[derive(Debug)]
struct Value {
    of_service: u32,
    best: Rank,
    below: Order,
}

/// The machines that may have a star, with what each is promised in this plan.
#[derive(Debug)]
pub(crate) struct Next<'p, 'v> {
    request: Request<'p>,
    views: &'v [NodeView<'v>],
    scores: Vec<i64>,
    /// Stars this plan has put on each.
    given: Vec<u32>,
    order: Order,
    levels: Option<Levels>,
}

impl<'p, 'v> Next<'p, 'v> {
    pub(crate) fn new(views: &'v [NodeView<'v>], request: Request<'p>, ids: &mut Ids) -> Self {
        let scores = match request.placement.prefer.is_empty() {
            true => vec![0; views.len()],
            false => views.iter().map(|view| preferred(view, &request)).collect(),
        };
        let order = Order::Machines(BinaryHeap::new());
        let levels = Levels::of(views, &request);
        let mut next = Self { request, views, scores, given: vec![0; views.len()], order, levels };
        next.order = next.ordered((0..views.len()).collect(), &request.placement.spread, ids);
        next
    }

    /// The place of the machine that gets the next star; `None` when none may.
    pub(crate) fn take(&mut self, ids: &mut Ids) -> Option<usize> {
        let mut order = std::mem::replace(&mut self.order, Order::Machines(BinaryHeap::new()));
        let place = match (&mut order, self.levels.take()) {
            (Order::Values(values), Some(mut levels)) => {
                let place = self.take_even(values, &mut levels, ids);
                self.levels = Some(levels);
                place
            }
            _ => self.take_from(&mut order, ids),
        };
        self.order = order;
        place
    }

    /// From the best value that may have one more.
    fn take_even(&mut self, values: &mut Values, levels: &mut Levels, ids: &mut Ids) -> Option<usize> {
        let mut passed = Vec::new();
        let mut place = None;
        while let Some(Reverse(value)) = values.peek() {
            let of_service = value.of_service;
            if levels.may_rise(of_service) {
                place = self.take_value(values, ids);
                levels.rise(of_service);
                break;
            }
            passed.extend(values.pop());
        }
        values.extend(passed);
        place
    }

    fn ordered(&self, places: Vec<usize>, spread: &[Attribute], ids: &mut Ids) -> Order {
        let Some((attribute, others)) = spread.split_first() else {
            let fit = places.into_iter().filter(|place| fits(&self.views[*place], &self.request));
            return Order::Machines(fit.map(|place| Reverse(self.rank(place, ids))).collect());
        };
        // Machines of which it is not known are together.
        let mut of_value: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for place in places {
            let view = &self.views[place];
            of_value.entry(attribute.of(view.name, view.facts)).or_default().push(place);
        }
        let is_first = spread.len() == self.request.placement.spread.len();
        let value = |places: Vec<usize>| {
            // Those of a machine that has no room for another count as well.
            let planned = places.iter().map(|place| self.views[*place].of_service).sum();
            let all = places.iter().find_map(|place| self.views[*place].crowd).filter(|_| is_first);
            let of_service = all.map_or(planned, |crowd| crowd.has);
            let below = self.ordered(places, others, ids);
            Some(Reverse(Value { of_service, best: below.best()?, below }))
        };
        Order::Values(of_value.into_values().filter_map(value).collect())
    }

    fn take_from(&mut self, order: &mut Order, ids: &mut Ids) -> Option<usize> {
        match order {
            Order::Machines(machines) => {
                let Reverse((.., place)) = machines.pop()?;
                self.given[place] += 1;
                let has = self.views[place].of_service + self.views[place].others + self.given[place];
                let may_have = self.request.placement.most_per_node().is_none_or(|most| has < most);
                let view = &self.views[place];
                if may_have && no_room(view, self.given[place], &self.request).is_none() {
                    machines.push(Reverse(self.rank(place, ids)));
                }
                Some(place)
            }
            Order::Values(values) => self.take_value(values, ids),
        }
    }

    /// From the best of them.
    fn take_value(&mut self, values: &mut Values, ids: &mut Ids) -> Option<usize> {
        let Reverse(mut value) = values.pop()?;
        let place = self.take_from(&mut value.below, ids);
        value.of_service += 1;
        if let Some(best) = value.below.best() {
            value.best = best;
            values.push(Reverse(value));
        }
        place
    }

    fn rank(&self, place: usize, ids: &mut Ids) -> Rank {
        let (view, given) = (&self.views[place], self.given[place]);
        let limits = &self.request.template.limits;
        let (memory, cpu) = (limits.memory.map_or(0, |memory| memory.0), limits.cpu.map_or(0, |cpu| u64::from(cpu.0)));
        let promised_memory = view.promised_memory.0 + memory * u64::from(given);
        let promised_cpu = view.promised_cpu + cpu * u64::from(given);
        let (has_cpu, has_memory) = view.facts.room();
        let is_over =
            |promised: u64, needs: u64, has: Option<u64>| has.is_some_and(|has| needs > 0 && promised + needs > has);
        let over = is_over(promised_memory, memory, has_memory) || is_over(promised_cpu, cpu, has_cpu);
        let stars = i64::from(view.stars + given);
        let score = self.scores[place];
        let wanted = match self.request.placement.strategy {
            Strategy::Spread => [crowding(view.of_service + given, score), -score, stars],
            Strategy::Binpack => [-score, leftover(view, given, &self.request), -stars],
            Strategy::Random => [-score, (ids.random() >> 1) as i64, 0],
        };
        ((view.shunned, over), wanted, view.node, place)
    }
}

/// The sum of the weights of what the service prefers and holds on a machine.
pub(crate) fn preferred(view: &NodeView<'_>, request: &Request<'_>) -> i64 {
    let wished = request.placement.prefer.iter().filter(|wish| wish.that.holds(view.name, view.facts));
    wished.map(|wish| i64::from(wish.weight)).sum()
}

/// What would be left of a machine that has one star more, in ten-thousandths of its processors and of its memory together; what is left
/// of one more than of the other counts three times, since few stars can use it. Of services for whose stars nothing is kept, nothing
/// is: then all machines are alike.
fn leftover(view: &NodeView<'_>, given: u32, request: &Request<'_>) -> i64 {
    let reserve = &request.template.reserve;
    if *reserve == Reserve::default() {
        return 0;
    }
    // What a place of a reservation has is kept already.
    let more = if view.places.is_some() { 0 } else { given + 1 };
    let kept = view.kept.with(reserve, more);
    let share = |kept: u64, has: Option<u64>| {
        let has = has.filter(|has| *has > 0)?;
        Some(i64::try_from(u128::from(has.saturating_sub(kept)) * 10_000 / u128::from(has)).unwrap_or(i64::MAX))
    };
    let (cpu, memory) = view.facts.room();
    match (share(kept.cpu, cpu), share(kept.memory, memory)) {
        (Some(cpu), Some(memory)) => cpu + memory + 2 * (cpu - memory).abs(),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => 0,
    }
}

/// What a machine that has so many stars of the service is worth for the next, where they are spread; less is better. The whole weight
/// of a wish makes up for one star.
pub(crate) fn crowding(of_service: u32, preferred: i64) -> i64 {
    i64::from(of_service) * 100 - preferred
}

impl Order {
    fn best(&self) -> Option<Rank> {
        match self {
            Self::Machines(machines) => machines.peek().map(|Reverse(rank)| *rank),
            Self::Values(values) => values.peek().map(|Reverse(value)| value.best),
        }
    }
}

/// By what its values are compared. A value all of whose machines are to be tried last comes last.
impl Value {
    fn worth(&self) -> (Last, u32, Rank) {
        (self.best.0, self.of_service, self.best)
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.worth() == other.worth()
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.worth().cmp(&other.worth())
    }
}
