//! A network that loses, delays and cuts, both ways or one way.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::chance::Chance;

/// Nodes are numbered from 0.
pub type Place = usize;

#[derive(Debug, Clone)]
pub struct Network {
    /// The share of datagrams that is lost anywhere.
    pub loss: f64,
    /// The share that is lost on the way to one node, in addition.
    pub deaf: BTreeMap<Place, f64>,
    /// One way takes between these.
    pub latency: (Duration, Duration),
    cuts: Vec<Cut>,
}

#[derive(Debug, Clone)]
struct Cut {
    from: Vec<bool>,
    to: Vec<bool>,
}

/// A stream that loses a segment sends it again after this time: Linux's least retransmission time-out.
const RETRANSMIT: Duration = Duration::from_millis(200);
/// A stream gives up after this many losses in a row.
const RETRANSMITS_MAX: u32 = 8;

impl Default for Network {
    fn default() -> Self {
        let latency = (Duration::from_micros(200), Duration::from_millis(2));
        Self { loss: 0.0, deaf: BTreeMap::new(), latency, cuts: Vec::new() }
    }
}

impl Network {
    /// Nothing gets from the first to the second; the other way is as it was.
    pub fn cut_one_way(&mut self, nodes: usize, from: impl Fn(Place) -> bool, to: impl Fn(Place) -> bool) {
        let list = |matches: &dyn Fn(Place) -> bool| (0..nodes).map(matches).collect();
        self.cuts.push(Cut { from: list(&from), to: list(&to) });
    }

    /// Nothing gets between those that are `inside` and the others.
    pub fn split(&mut self, nodes: usize, inside: impl Fn(Place) -> bool) {
        self.cut_one_way(nodes, &inside, |place| !inside(place));
        self.cut_one_way(nodes, |place| !inside(place), &inside);
    }

    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    pub fn is_cut(&self, from: Place, to: Place) -> bool {
        self.cuts.iter().any(|cut| cut.from[from] && cut.to[to])
    }

    fn loss_to(&self, to: Place) -> f64 {
        1.0 - (1.0 - self.loss) * (1.0 - self.deaf.get(&to).copied().unwrap_or(0.0))
    }

    fn latency(&self, chance: &mut Chance) -> Duration {
        let (least, most) = self.latency;
        least + (most - least).mul_f64(chance.unit())
    }

    /// When a datagram arrives; `None` for never.
    pub fn datagram(&self, from: Place, to: Place, chance: &mut Chance) -> Option<Duration> {
        let lost = self.is_cut(from, to) || chance.happens(self.loss_to(to));
        (!lost).then(|| self.latency(chance))
    }

    /// When a message over a stream arrives; `None` when the stream gives up.
    pub fn stream(&self, from: Place, to: Place, chance: &mut Chance) -> Option<Duration> {
        if self.is_cut(from, to) || self.is_cut(to, from) {
            return None;
        }
        let mut time = self.latency(chance) * 3;
        let mut wait = RETRANSMIT;
        for _ in 0..RETRANSMITS_MAX {
            // Either the segment or its acknowledgement.
            if !chance.happens(self.loss_to(to)) && !chance.happens(self.loss_to(from)) {
                return Some(time);
            }
            time += wait;
            wait *= 2;
        }
        None
    }
}
