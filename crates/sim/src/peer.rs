//! foca 2 as it comes, with its own settings for local networks, on the same simulated network: what our figures are held against.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use foca::{AccumulatingRuntime, Config, Foca, Identity, NoCustomBroadcast, OwnedNotification, PostcardCodec, Timer};
use model::Time;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::chance::Chance;
use crate::network::{Network, Place};

/// A place and how often its node was renewed: the way back into a cluster that its documentation recommends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Id {
    place: u32,
    renewed: u16,
}

impl Identity for Id {
    type Addr = u32;

    fn renew(&self) -> Option<Self> {
        Some(Self { place: self.place, renewed: self.renewed.wrapping_add(1) })
    }

    fn addr(&self) -> u32 {
        self.place
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.renewed > adversary.renewed
    }
}

struct Node {
    foca: Foca<Id, PostcardCodec, SmallRng, NoCustomBroadcast>,
    running: bool,
    /// Whom it sees as active.
    sees: Vec<bool>,
}

enum Happening {
    Start(Place),
    Timer(Place, Timer<Id>),
    Datagram(Place, Vec<u8>),
}

type Queued = Reverse<(Time, u64)>;

pub struct World {
    pub now: Time,
    pub network: Network,
    nodes: Vec<Node>,
    chance: Chance,
    queue: BinaryHeap<Queued>,
    waiting: std::collections::HashMap<u64, Happening>,
    order: u64,
    /// Times a running node was declared down by another.
    pub false_deaths: u64,
}

impl World {
    /// Nodes that start within two seconds and announce themselves to the first three, as ours do.
    pub fn started(count: usize, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let size = u32::try_from(count).ok().and_then(std::num::NonZeroU32::new).expect("some nodes");
        let node = |place: usize| Node {
            foca: Foca::new(
                Id { place: place as u32, renewed: 0 },
                Config::new_lan(size),
                SmallRng::seed_from_u64(chance.number()),
                PostcardCodec,
            ),
            running: false,
            sees: vec![false; count],
        };
        let nodes = (0..count).map(node).collect();
        let mut world = Self {
            now: Time::ZERO,
            network: Network::default(),
            nodes,
            chance,
            queue: BinaryHeap::new(),
            waiting: std::collections::HashMap::new(),
            order: 0,
            false_deaths: 0,
        };
        for place in 0..count {
            let after = Duration::from_secs(2).mul_f64(place as f64 / count as f64);
            world.put(Time::ZERO + after, Happening::Start(place));
        }
        world
    }

    fn put(&mut self, at: Time, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse((at, self.order)));
        self.waiting.insert(self.order, what);
    }

    pub fn kill(&mut self, place: Place) {
        self.nodes[place].running = false;
    }

    pub fn all_know_all(&self) -> bool {
        self.nodes.iter().all(|node| node.running)
            && self
                .nodes
                .iter()
                .enumerate()
                .all(|(by, node)| node.sees.iter().enumerate().all(|(of, sees)| *sees || of == by))
    }

    /// Of all pairs of nodes, how many are not known.
    pub fn missing(&self) -> usize {
        let missing = |node: &Node| node.sees.iter().filter(|sees| !**sees).count() - 1;
        self.nodes.iter().map(missing).sum()
    }

    pub fn nobody_sees(&self, of: Place) -> bool {
        self.nodes.iter().filter(|node| node.running).all(|node| !node.sees[of])
    }

    /// Runs until `until`, or until the condition, which is asked ten times a second, is false.
    pub fn run_while(&mut self, until: Time, condition: impl Fn(&Self) -> bool) -> Option<Time> {
        let mut next_look = self.now;
        while self.now < until {
            if self.now >= next_look {
                if !condition(self) {
                    return Some(self.now);
                }
                next_look = self.now + Duration::from_millis(100);
            }
            match self.queue.peek() {
                Some(Reverse((at, _))) if *at <= next_look => {
                    let Some(Reverse((at, order))) = self.queue.pop() else { continue };
                    self.now = at.max(self.now);
                    if let Some(what) = self.waiting.remove(&order) {
                        self.happen(what);
                    }
                }
                _ => self.now = next_look,
            }
        }
        None
    }

    fn happen(&mut self, what: Happening) {
        let mut runtime = AccumulatingRuntime::new();
        let place = match &what {
            Happening::Start(place) | Happening::Timer(place, _) | Happening::Datagram(place, _) => *place,
        };
        let node = &mut self.nodes[place];
        let mut alone = false;
        // What foca calls an error here (an unexpected datagram, a late timer) is of no consequence to it.
        let _ = match what {
            Happening::Start(place) => {
                node.running = true;
                alone = !node.sees.contains(&true);
                let seeds = (0..3u32).filter(|seed| *seed as usize != place);
                seeds.map(|place| Id { place, renewed: 0 }).try_for_each(|seed| node.foca.announce(seed, &mut runtime))
            }
            Happening::Timer(_, timer) if node.running => node.foca.handle_timer(timer, &mut runtime),
            Happening::Datagram(_, bytes) if node.running => node.foca.handle_data(&bytes, &mut runtime),
            Happening::Timer(..) | Happening::Datagram(..) => Ok(()),
        };
        // An announcement may be lost, or come before its receiver has started.
        if alone {
            self.put(self.now + Duration::from_secs(2), Happening::Start(place));
        }
        while let Some((to, bytes)) = runtime.to_send() {
            let to = to.place as Place;
            if let Some(after) = self.network.datagram(place, to, &mut self.chance) {
                self.put(self.now + after, Happening::Datagram(to, bytes.to_vec()));
            }
        }
        while let Some((after, timer)) = runtime.to_schedule() {
            self.put(self.now + after, Happening::Timer(place, timer));
        }
        while let Some(notification) = runtime.to_notify() {
            match notification {
                OwnedNotification::MemberUp(id) => self.nodes[place].sees[id.place as Place] = true,
                OwnedNotification::MemberDown(id) => {
                    let of = id.place as Place;
                    self.nodes[place].sees[of] = false;
                    self.false_deaths += u64::from(self.nodes[of].running);
                }
                _ => {}
            }
        }
    }
}
