//! Who is known, and the indexes over it: the living at random, the ring of watchers, names, addresses, deadlines.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use model::{NodeId, Time};

use crate::damping::Damping;
use crate::member::Status;
use crate::rng::{Rng, mix};
use crate::suspicion::Suspicion;
use crate::wire::{Description, Record, Rumour};

/// One other member, as this node sees it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) description: Description,
    /// The incarnation in which it described itself so.
    pub(crate) described: u64,
    pub(crate) incarnation: u64,
    pub(crate) status: Status,
    /// When it became so.
    pub(crate) since: Time,
    /// While it is suspect.
    pub(crate) suspicion: Option<Suspicion>,
    /// Who got no answer, kept after its death.
    pub(crate) accusers: Vec<NodeId>,
    /// When it last answered a probe of this node's.
    pub(crate) acked: Option<Time>,
    pub(crate) damping: Damping,
    /// What was last said to the caller.
    pub(crate) reported: Option<Status>,
}

impl Entry {
    /// What supersedes what: the greater. The order is total, so tables that have heard the same are the same.
    pub(crate) fn rank(&self) -> (u64, Status) {
        (self.incarnation, self.status)
    }

    pub(crate) fn edition(&self) -> (u64, u64) {
        (self.described, self.description.hash)
    }

    pub(crate) fn rumour(&self, id: NodeId) -> Rumour {
        let by = self.suspicion.as_ref().map_or(self.accusers.as_slice(), Suspicion::accusers).to_vec();
        Rumour { id, incarnation: self.incarnation, status: self.status, by }
    }

    pub(crate) fn record(&self, id: NodeId, now: Time) -> Record<'_> {
        let age_s = if self.status.is_live() { 0 } else { now.since(self.since).as_secs() };
        Record {
            rumour: self.rumour(id),
            described: self.described,
            age_s: u32::try_from(age_s).unwrap_or(u32::MAX),
            description: self.description.bytes(),
        }
    }
}

/// Where an entry is found; what changes in it moves it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Keys {
    live: bool,
    dead: bool,
    name: u64,
    addr: SocketAddr,
    deadline: Option<Time>,
    hold: Option<Time>,
}

impl Keys {
    fn of(entry: &Entry) -> Self {
        Self {
            live: entry.status.is_live(),
            dead: entry.status == Status::Dead,
            name: entry.description.name_hash,
            addr: entry.description.addr,
            deadline: entry.suspicion.as_ref().map(|suspicion| suspicion.deadline),
            hold: entry.damping.held_until,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Table {
    /// Where this node stands on the ring.
    place: u64,
    entries: BTreeMap<NodeId, Entry>,
    live: Vec<NodeId>,
    live_at: BTreeMap<NodeId, usize>,
    dead: BTreeSet<NodeId>,
    /// The living, in the order of their hashed ids.
    ring: BTreeSet<(u64, NodeId)>,
    names: BTreeSet<(u64, NodeId)>,
    addrs: BTreeSet<(SocketAddr, NodeId)>,
    deadlines: BTreeSet<(Time, NodeId)>,
    holds: BTreeSet<(Time, NodeId)>,
}

impl Table {
    pub(crate) fn new(me: NodeId) -> Self {
        Self {
            place: mix(me.0),
            entries: BTreeMap::new(),
            live: Vec::new(),
            live_at: BTreeMap::new(),
            dead: BTreeSet::new(),
            ring: BTreeSet::new(),
            names: BTreeSet::new(),
            addrs: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            holds: BTreeSet::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &Entry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    pub(crate) fn highest(&self) -> Option<NodeId> {
        self.entries.last_key_value().map(|(id, _)| *id)
    }

    pub(crate) fn insert(&mut self, id: NodeId, entry: Entry) {
        self.remove(id);
        let keys = Keys::of(&entry);
        self.entries.insert(id, entry);
        self.index(id, keys);
    }

    pub(crate) fn remove(&mut self, id: NodeId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.unindex(id, Keys::of(&entry));
        }
    }

    /// Changes an entry and where it is found.
    pub(crate) fn change<R>(&mut self, id: NodeId, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let entry = self.entries.get_mut(&id)?;
        let before = Keys::of(entry);
        let result = change(entry);
        let after = Keys::of(entry);
        if before != after {
            self.unindex(id, before);
            self.index(id, after);
        }
        Some(result)
    }

    fn index(&mut self, id: NodeId, keys: Keys) {
        if keys.live {
            self.live_at.insert(id, self.live.len());
            self.live.push(id);
            self.ring.insert((mix(id.0), id));
        }
        if keys.dead {
            self.dead.insert(id);
        }
        self.names.insert((keys.name, id));
        self.addrs.insert((keys.addr, id));
        self.deadlines.extend(keys.deadline.map(|at| (at, id)));
        self.holds.extend(keys.hold.map(|at| (at, id)));
    }

    fn unindex(&mut self, id: NodeId, keys: Keys) {
        if let Some(at) = self.live_at.remove(&id) {
            self.live.swap_remove(at);
            if let Some(moved) = self.live.get(at) {
                self.live_at.insert(*moved, at);
            }
            self.ring.remove(&(mix(id.0), id));
        }
        self.dead.remove(&id);
        self.names.remove(&(keys.name, id));
        self.addrs.remove(&(keys.addr, id));
        if let Some(at) = keys.deadline {
            self.deadlines.remove(&(at, id));
        }
        if let Some(at) = keys.hold {
            self.holds.remove(&(at, id));
        }
    }

    /// Other members that are alive or suspect.
    pub(crate) fn live(&self) -> &[NodeId] {
        &self.live
    }

    pub(crate) fn dead_count(&self) -> usize {
        self.dead.len()
    }

    pub(crate) fn random_dead(&self, rng: &mut Rng) -> Option<NodeId> {
        self.dead.iter().nth(rng.below(self.dead.len())).copied()
    }

    /// Up to `count` different live members, without those that `skip` names.
    pub(crate) fn random_live(&self, count: usize, rng: &mut Rng, skip: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        let mut chosen = Vec::with_capacity(count);
        if self.live.len() <= count * 4 {
            chosen.extend(self.live.iter().copied().filter(|id| !skip(*id)));
            rng.shuffle(&mut chosen);
            chosen.truncate(count);
            return chosen;
        }
        // Few of many: drawing again costs less than a list of all. The bound ends it when nearly all are skipped.
        for _ in 0..count * 8 {
            let id = self.live[rng.below(self.live.len())];
            if chosen.len() < count && !skip(id) && !chosen.contains(&id) {
                chosen.push(id);
            }
        }
        chosen
    }

    /// The members that follow this node on the ring, up to the `count`th that is not suspect: when many fail at once, the
    /// neighbours of the suspects watch beyond them, so that each keeps its number of watchers. At most four times `count`.
    pub(crate) fn watched(&self, count: usize) -> Vec<NodeId> {
        let after = self.ring.range((self.place, NodeId(u64::MAX))..);
        let around = self.ring.range(..(self.place, NodeId(u64::MAX)));
        let (mut watched, mut well) = (Vec::with_capacity(count), 0);
        for (_, id) in after.chain(around).take(count * 4) {
            if well == count {
                break;
            }
            watched.push(*id);
            well += usize::from(self.entries.get(id).is_some_and(|entry| entry.status == Status::Alive));
        }
        watched
    }

    pub(crate) fn named(&self, name_hash: u64) -> impl Iterator<Item = NodeId> + '_ {
        self.names.range((name_hash, NodeId(0))..=(name_hash, NodeId(u64::MAX))).map(|(_, id)| *id)
    }

    pub(crate) fn at_addr(&self, addr: SocketAddr) -> impl Iterator<Item = NodeId> + '_ {
        self.addrs.range((addr, NodeId(0))..=(addr, NodeId(u64::MAX))).map(|(_, id)| *id)
    }

    pub(crate) fn first_deadline(&self) -> Option<(Time, NodeId)> {
        self.deadlines.first().copied()
    }

    pub(crate) fn first_hold(&self) -> Option<(Time, NodeId)> {
        self.holds.first().copied()
    }

    pub(crate) fn suspects(&self) -> Vec<NodeId> {
        self.deadlines.iter().map(|(_, id)| *id).collect()
    }

    /// The one that died or left longest ago: the first to go when room is needed.
    pub(crate) fn longest_gone(&self) -> Option<NodeId> {
        let gone = self.entries.iter().filter(|(_, entry)| !entry.status.is_live());
        gone.min_by_key(|(_, entry)| entry.since).map(|(id, _)| *id)
    }
}
