//! The stars of all services, found by their ids, their service, their machine and their volumes, and what each machine has to do
//! because of them. Every change of one star asks for these; with a million stars none of them may be found by looking at all.
//!
//! Only what is here changes a record, so that what is found and counted is what is there. On disk there are the records alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

use model::{Kept, Limits, Network, NodeId, Reserve, ServiceKey, StarId, StarPhase, StarTemplate, VolumeKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::record::{StarRecord, State};

/// Reads as the map of its records.
#[derive(Debug, Clone, Default)]
pub struct Stars {
    records: BTreeMap<StarId, StarRecord>,
    of_service: BTreeMap<ServiceKey, OfService>,
    on_node: BTreeMap<NodeId, OnNode>,
    of_volume: BTreeMap<VolumeKey, BTreeSet<StarId>>,
    /// By the place of a reservation, the star that is in it and has not ended.
    tenants: BTreeMap<StarId, StarId>,
}

#[derive(Debug, Clone)]
struct OfService {
    /// And where each is.
    stars: BTreeMap<StarId, NodeId>,
    ended: BTreeSet<StarId>,
    /// By the number in their names, how many have not ended.
    ordinals: BTreeMap<u32, u32>,
    /// That of the star that came last: the next one most likely has the same, and then shares it.
    template: Arc<StarTemplate>,
}

#[derive(Debug, Clone, Default)]
struct OnNode {
    stars: BTreeSet<StarId>,
    load: Load,
}

/// What a machine has to do: stars that have not ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    pub stars: u32,
    /// The sum of their limits of memory, and in thousandths of a core of processor time.
    pub memory: u64,
    pub cpu: u64,
    /// The sum of their disks.
    pub disk: u64,
    /// What is kept for them.
    pub kept: Kept,
    /// Ports of those on its own network, and how many have each.
    pub ports: BTreeMap<u16, u32>,
}

impl Load {
    /// One more star with these limits, for which so much is kept, and with its port on the machine's own network, if it has one.
    pub fn add(&mut self, limits: &Limits, reserve: &Reserve, port: Option<u16>) {
        self.count(Share::of(limits, reserve, port));
    }

    /// The contrary.
    pub fn take(&mut self, limits: &Limits, reserve: &Reserve, port: Option<u16>) {
        self.uncount(Share::of(limits, reserve, port));
    }

    fn count(&mut self, Share { memory, cpu, disk, reserve, port }: Share) {
        self.stars += 1;
        self.disk = self.disk.saturating_add(disk);
        self.kept = self.kept.with(&reserve, 1);
        self.memory = self.memory.saturating_add(memory);
        self.cpu = self.cpu.saturating_add(cpu);
        if let Some(port) = port {
            *self.ports.entry(port).or_default() += 1;
        }
    }

    fn uncount(&mut self, Share { memory, cpu, disk, reserve, port }: Share) {
        self.stars = self.stars.saturating_sub(1);
        self.disk = self.disk.saturating_sub(disk);
        self.kept = self.kept.without(&reserve);
        self.memory = self.memory.saturating_sub(memory);
        self.cpu = self.cpu.saturating_sub(cpu);
        let Some(port) = port else { return };
        match self.ports.get_mut(&port) {
            Some(stars) if *stars > 1 => *stars -= 1,
            _ => drop(self.ports.remove(&port)),
        }
    }
}

/// One star's part of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    memory: u64,
    cpu: u64,
    disk: u64,
    reserve: Reserve,
    port: Option<u16>,
}

impl Share {
    fn of(limits: &Limits, reserve: &Reserve, port: Option<u16>) -> Self {
        let disk = limits.disk.map_or(0, |disk| disk.0);
        let memory = limits.memory.map_or(0, |memory| memory.0);
        let cpu = limits.cpu.map_or(0, |cpu| u64::from(cpu.0));
        Self { memory, cpu, disk, reserve: *reserve, port }
    }
}

/// What a star is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    Ended,
    Runs(u32, Share),
}

impl Counted {
    /// `given`: what of its reserve is that of the star in it, if it is a place that has one.
    fn of(star: &StarRecord, given: &Reserve) -> Self {
        match star.phase {
            StarPhase::Ended => Self::Ended,
            _ => {
                let port = star.port.filter(|_| star.template.network == Network::Host);
                let share = Share::of(&star.template.limits, &star.template.reserve.less(given), port);
                Self::Runs(star.ordinal, share)
            }
        }
    }
}

fn count(of: &mut OfService, on: &mut OnNode, star: StarId, counted: Counted) {
    match counted {
        Counted::Ended => drop(of.ended.insert(star)),
        Counted::Runs(ordinal, share) => {
            *of.ordinals.entry(ordinal).or_default() += 1;
            on.load.count(share);
        }
    }
}

fn uncount(of: &mut OfService, on: &mut OnNode, star: StarId, counted: Counted) {
    match counted {
        Counted::Ended => drop(of.ended.remove(&star)),
        Counted::Runs(ordinal, share) => {
            match of.ordinals.get_mut(&ordinal) {
                Some(stars) if *stars > 1 => *stars -= 1,
                _ => drop(of.ordinals.remove(&ordinal)),
            }
            on.load.uncount(share);
        }
    }
}

impl Stars {
    pub fn of_service(&self, service: &ServiceKey) -> impl Iterator<Item = &StarRecord> {
        self.ids_of(service).filter_map(|(star, _)| self.records.get(&star))
    }

    /// Those of a service and where they are, which costs less than to look at them.
    pub fn ids_of(&self, service: &ServiceKey) -> impl Iterator<Item = (StarId, NodeId)> {
        self.of_service.get(service).into_iter().flat_map(|of| &of.stars).map(|(star, node)| (*star, *node))
    }

    /// Those of a service that have ended and are not forgotten.
    pub fn ended_of(&self, service: &ServiceKey) -> impl Iterator<Item = &StarRecord> {
        let ended = self.of_service.get(service).into_iter().flat_map(|of| &of.ended);
        ended.filter_map(|star| self.records.get(star))
    }

    /// Whether a star of a service with this number in its name has not ended.
    pub fn is_taken(&self, service: &ServiceKey, ordinal: u32) -> bool {
        self.of_service.get(service).is_some_and(|of| of.ordinals.contains_key(&ordinal))
    }

    /// The services that have stars, ended ones included.
    pub fn services(&self) -> impl Iterator<Item = &ServiceKey> {
        self.of_service.keys()
    }

    pub fn on_node(&self, node: NodeId) -> impl Iterator<Item = &StarRecord> {
        let stars = self.on_node.get(&node).into_iter().flat_map(|on| &on.stars);
        stars.filter_map(|star| self.records.get(star))
    }

    pub fn of_volume(&self, volume: &VolumeKey) -> impl Iterator<Item = &StarRecord> {
        let stars = self.of_volume.get(volume).into_iter().flatten();
        stars.filter_map(|star| self.records.get(star))
    }

    /// Nothing for a machine that has no star, ended ones included.
    pub fn load_of(&self, node: NodeId) -> Option<&Load> {
        self.on_node.get(&node).map(|on| &on.load)
    }

    /// Those of all machines that have stars, in their order.
    pub fn loads(&self) -> impl Iterator<Item = (NodeId, &Load)> {
        self.on_node.iter().map(|(node, on)| (*node, &on.load))
    }

    /// The star that is in a place of a reservation and has not ended.
    pub fn tenant_of(&self, place: StarId) -> Option<StarId> {
        self.tenants.get(&place).copied()
    }

    fn counted(&self, star: StarId) -> Option<Counted> {
        let given = self.tenants.get(&star).and_then(|tenant| self.records.get(tenant));
        let given = given.map(|tenant| tenant.template.reserve).unwrap_or_default();
        self.records.get(&star).map(|record| Counted::of(record, &given))
    }

    /// Counts a star as what it is now; `before` is what it was counted as.
    fn recount(&mut self, star: StarId, before: Option<Counted>) {
        let after = self.counted(star);
        let Some(record) = self.records.get(&star).filter(|_| before != after) else { return };
        if let (Some(of), Some(on)) = (self.of_service.get_mut(&record.service), self.on_node.get_mut(&record.node)) {
            before.into_iter().for_each(|before| uncount(of, on, star, before));
            after.into_iter().for_each(|after| count(of, on, star, after));
        }
    }

    /// Notes that a star is in its place, or that it has ended.
    fn settle_in(&mut self, star: StarId) {
        let Some(record) = self.records.get(&star) else { return };
        let (Some(place), has_ended) = (record.place, record.phase == StarPhase::Ended) else { return };
        self.let_place(place, star, has_ended);
    }

    fn let_place(&mut self, place: StarId, star: StarId, has_ended: bool) {
        let before = self.counted(place);
        match has_ended {
            false => drop(self.tenants.insert(place, star)),
            true if self.tenants.get(&place) == Some(&star) => drop(self.tenants.remove(&place)),
            true => {}
        }
        self.recount(place, before);
    }

    /// Puts a star in, in the place of one with its id.
    pub fn insert(&mut self, mut star: StarRecord) {
        self.remove(star.id);
        let id = star.id;
        if !self.of_service.contains_key(&star.service) {
            let of = OfService {
                stars: BTreeMap::new(),
                ended: BTreeSet::new(),
                ordinals: BTreeMap::new(),
                template: Arc::clone(&star.template),
            };
            self.of_service.insert(star.service.clone(), of);
        }
        let on = self.on_node.entry(star.node).or_default();
        on.stars.insert(id);
        if let Some(of) = self.of_service.get_mut(&star.service) {
            if of.template == star.template {
                star.template = Arc::clone(&of.template);
            } else {
                of.template = Arc::clone(&star.template);
            }
            of.stars.insert(id, star.node);
        }
        for volume in State::volumes_of(&star.service, &star.template) {
            self.of_volume.entry(volume).or_default().insert(id);
        }
        self.records.insert(id, star);
        self.recount(id, None);
        self.settle_in(id);
    }

    pub fn remove(&mut self, star: StarId) -> Option<StarRecord> {
        let counted = self.counted(star)?;
        let record = self.records.remove(&star)?;
        if let (Some(of), Some(on)) = (self.of_service.get_mut(&record.service), self.on_node.get_mut(&record.node)) {
            uncount(of, on, star, counted);
            of.stars.remove(&star);
            on.stars.remove(&star);
            let (of_is_empty, on_is_empty) = (of.stars.is_empty(), on.stars.is_empty());
            if of_is_empty {
                self.of_service.remove(&record.service);
            }
            if on_is_empty {
                self.on_node.remove(&record.node);
            }
        }
        for volume in State::volumes_of(&record.service, &record.template) {
            if let Some(stars) = self.of_volume.get_mut(&volume) {
                stars.remove(&star);
                if stars.is_empty() {
                    self.of_volume.remove(&volume);
                }
            }
        }
        if let Some(place) = record.place {
            self.let_place(place, star, true);
        }
        Some(record)
    }

    /// Changes a star; not whose it is, where, and with which volumes: for these another is made.
    pub fn change<T>(&mut self, star: StarId, change: impl FnOnce(&mut StarRecord) -> T) -> Option<T> {
        let before = self.counted(star);
        let result = change(self.records.get_mut(&star)?);
        self.recount(star, before);
        self.settle_in(star);
        Some(result)
    }
}

impl Deref for Stars {
    type Target = BTreeMap<StarId, StarRecord>;

    fn deref(&self) -> &Self::Target {
        &self.records
    }
}

impl<'s> IntoIterator for &'s Stars {
    type Item = (&'s StarId, &'s StarRecord);
    type IntoIter = std::collections::btree_map::Iter<'s, StarId, StarRecord>;

    fn into_iter(self) -> Self::IntoIter {
        self.records.iter()
    }
}

/// What is found by service or by machine follows from the records.
impl PartialEq for Stars {
    fn eq(&self, other: &Self) -> bool {
        self.records == other.records
    }
}

impl Eq for Stars {}

impl FromIterator<StarRecord> for Stars {
    fn from_iter<I: IntoIterator<Item = StarRecord>>(records: I) -> Self {
        let mut stars = Self::default();
        records.into_iter().for_each(|record| stars.insert(record));
        stars
    }
}

impl Serialize for Stars {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.records.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Stars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let records = BTreeMap::<StarId, StarRecord>::deserialize(deserializer)?;
        Ok(records.into_values().collect())
    }
}
