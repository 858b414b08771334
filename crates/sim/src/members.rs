//! Any number of `membership::Membership` on a simulated network, with the faults that befall them: deaths, pauses, restarts, partitions,
//! loss. What each sees of each is kept, so that questions about all of them are cheap.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use membership::{Attributes, Capacity, Config, Effect, Event, Member, Membership, Metadata, Protections, Status};
use model::{Bytes, Millicores, NodeId, Time};

use crate::chance::Chance;
use crate::network::{Network, Place};

/// What a datagram costs beside its content: IPv4 and UDP heads (28), key id, nonce and tag of XChaCha20-Poly1305 (41).
pub const DATAGRAM_OVERHEAD_BYTES: usize = 69;
/// What a message over a stream costs beside its content: RNP frame, MessagePack envelope, TLS record, TCP and IP heads.
pub const STREAM_OVERHEAD_BYTES: usize = 250;
/// Datagrams that wait in the socket of a node that stands still: Linux's default receive buffer holds about as many.
const SOCKET_DATAGRAMS: usize = 250;

/// One node as the world has it.
pub struct Node {
    pub membership: Membership,
    pub state: State,
    /// When it wants to be woken; an earlier wish is out of date.
    wake: Option<Time>,
    /// Datagrams in its socket while it stands still.
    socket: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Bytes it sent and got, with overhead.
    pub sent: u64,
    pub received: u64,
    /// How it sees each place; `None` for not at all.
    pub sees: Vec<Option<Status>>,
    pub conflicts: Vec<Effect>,
    /// It has said its goodbye.
    pub gone: bool,
    /// It was told to start and has not ended since.
    wanted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not started yet, or ended.
    Off,
    Running,
    /// It stands still, as after SIGSTOP.
    Paused,
}

enum Happening {
    Wake(Place),
    Start(Place, Vec<SocketAddr>),
    Datagram { from: Place, to: Place, bytes: Vec<u8> },
    Ask { from: Place, to: Place, bytes: Vec<u8> },
    Answer { from: Place, to: Place, bytes: Vec<u8> },
}

struct Queued {
    at: Time,
    order: u64,
    what: Happening,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub struct World {
    pub now: Time,
    pub nodes: Vec<Node>,
    pub network: Network,
    config: Config,
    chance: Chance,
    queue: BinaryHeap<Reverse<Queued>>,
    order: u64,
    /// Times a running node, to which a way led, was reported dead.
    pub false_deaths: u64,
    /// The same for suspicions.
    pub false_suspicions: u64,
    /// What each report was, newest last, when it is asked for by [`Self::keep_reports`].
    pub reports: Vec<Report>,
    keep_reports: bool,
    /// Datagrams and blobs that were sent, when they are asked for by [`Self::keep_bytes`].
    kept: Option<Kept>,
    /// Events handled so far.
    pub steps: u64,
}

/// Bytes that were sent.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    pub datagrams: Vec<Vec<u8>>,
    pub blobs: Vec<Vec<u8>>,
}

/// `by` sees `of` differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub at: Time,
    pub by: Place,
    pub of: Place,
    pub from: Option<Status>,
    pub to: Status,
}

/// Where a place's node takes datagrams.
pub fn addr_of(place: Place) -> SocketAddr {
    let [_, a, b, c] = (place as u32 + 1).to_be_bytes();
    SocketAddr::from(([10, a, b, c], 7946))
}

fn place_of(addr: SocketAddr) -> Place {
    match addr {
        SocketAddr::V4(v4) => {
            let [_, a, b, c] = v4.ip().octets();
            u32::from_be_bytes([0, a, b, c]) as Place - 1
        }
        SocketAddr::V6(_) => unreachable!("places have IPv4 addresses"),
    }
}

/// A member as a small real one would describe itself.
pub fn member(place: Place) -> Member {
    let name = |text: String| text.parse().expect("a name");
    let attributes = Attributes {
        region: Some(name(format!("region-{}", place % 3))),
        zone: Some(name(format!("zone-{}", place % 9))),
        rack: Some(name(format!("rack-{}", place % 50))),
        kind: Some(name("c6-large".to_owned())),
        labels: [(name("disk".to_owned()), "ssd".to_owned())].into(),
        capacity: Capacity { cpu: Millicores(8_000), memory: Bytes::mib(16_384), disk: Bytes::mib(200_000), gpus: 0 },
        version: "0.1.0".to_owned(),
    };
    Member {
        id: NodeId(place as u64 + 1),
        name: name(format!("node-{place}")),
        addr: addr_of(place),
        incarnation: 0,
        metadata: Metadata::new(attributes).expect("within bounds"),
    }
}

impl World {
    pub fn new(nodes: usize, config: Config, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let node = |place| Node {
            membership: Membership::new(config.clone(), member(place), Time::ZERO, chance.number()),
            state: State::Off,
            wake: None,
            socket: VecDeque::new(),
            sent: 0,
            received: 0,
            sees: vec![None; nodes],
            conflicts: Vec::new(),
            gone: false,
            wanted: false,
        };
        Self {
            now: Time::ZERO,
            nodes: (0..nodes).map(node).collect(),
            network: Network::default(),
            config,
            chance,
            queue: BinaryHeap::new(),
            order: 0,
            false_deaths: 0,
            false_suspicions: 0,
            reports: Vec::new(),
            keep_reports: false,
            kept: None,
            steps: 0,
        }
    }

    /// A world whose nodes started within `spread`, with the first three as seeds.
    pub fn started(nodes: usize, config: Config, seed: u64, spread: Duration) -> Self {
        let mut world = Self::new(nodes, config, seed);
        for place in 0..nodes {
            let after = spread.mul_f64(place as f64 / nodes as f64);
            world.start_at(place, Time::ZERO + after, &[0, 1, 2][..nodes.min(3)]);
        }
        world
    }

    /// A world whose nodes started within two seconds and know each other, and how long that took.
    pub fn joined(nodes: usize, config: Config, seed: u64) -> (Self, Duration) {
        let mut world = Self::started(nodes, config, seed, Duration::from_secs(2));
        let limit = Time::ZERO + Duration::from_secs(600);
        let joined = world.run_while(limit, |world| !world.all_know_all()).expect("all know all within 600 s");
        (world, joined.since(Time::ZERO))
    }

    /// The same, run until nothing is news any more.
    pub fn settled(nodes: usize, config: Config, seed: u64) -> Self {
        let (mut world, _) = Self::joined(nodes, config, seed);
        world.run_for(Duration::from_secs(45));
        world.forget_reports();
        world
    }

    /// Takes protections away from all nodes.
    pub fn protect(&mut self, protections: Protections) {
        self.config.protections = protections;
        for node in &mut self.nodes {
            node.membership.set_protections(protections);
        }
    }

    pub fn keep_reports(&mut self) {
        self.keep_reports = true;
    }

    /// Keeps all bytes that are sent from here on.
    pub fn keep_bytes(&mut self) {
        self.kept = Some(Kept::default());
    }

    /// What was sent since then.
    pub fn kept_bytes(&mut self) -> Kept {
        self.kept.take().unwrap_or_default()
    }

    /// Counts from here on.
    pub fn forget_reports(&mut self) {
        self.reports.clear();
        self.false_deaths = 0;
        self.false_suspicions = 0;
        for node in &mut self.nodes {
            (node.sent, node.received) = (0, 0);
        }
    }

    fn put(&mut self, at: Time, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Queued { at, order: self.order, what }));
    }

    /// Starts a node as new: it knows nobody but its seeds.
    pub fn start_at(&mut self, place: Place, at: Time, seeds: &[Place]) {
        let seeds = seeds.iter().filter(|seed| **seed != place).map(|seed| addr_of(*seed)).collect();
        self.nodes[place].wanted = true;
        self.put(at, Happening::Start(place, seeds));
    }

    /// Starts a node again that was killed, with nothing remembered, as `member` says.
    pub fn restart(&mut self, place: Place, member: Member, seeds: &[Place]) {
        let seed = self.chance.number();
        self.nodes[place].membership = Membership::new(self.config.clone(), member, self.now, seed);
        self.nodes[place].gone = false;
        self.start_at(place, self.now, seeds);
    }

    /// It ends without a word.
    pub fn kill(&mut self, place: Place) {
        let node = &mut self.nodes[place];
        node.state = State::Off;
        node.wanted = false;
        node.socket.clear();
        node.sees.fill(None);
    }

    pub fn pause(&mut self, place: Place) {
        self.nodes[place].state = State::Paused;
    }

    /// It goes on. Its timers come first, and then what lies in its socket: the worst order.
    pub fn resume(&mut self, place: Place) {
        self.nodes[place].state = State::Running;
        self.give(place, Event::Tick);
        for (from, bytes) in std::mem::take(&mut self.nodes[place].socket) {
            self.give(place, Event::Datagram { from, bytes: &bytes });
        }
    }

    pub fn leave(&mut self, place: Place) {
        self.give(place, Event::Leave);
    }

    pub fn running(&self) -> impl Iterator<Item = Place> + '_ {
        (0..self.nodes.len()).filter(|place| self.nodes[*place].state == State::Running)
    }

    /// Whether every node that was told to start runs and sees every other alive or suspect.
    pub fn all_know_all(&self) -> bool {
        let running: Vec<Place> = self.running().collect();
        running.len() == self.nodes.iter().filter(|node| node.wanted).count()
            && running.iter().all(|by| {
                let sees = &self.nodes[*by].sees;
                running.iter().all(|of| of == by || sees[*of].is_some_and(Status::is_live))
            })
    }

    /// Whether every running node sees every running node as alive, and not as suspect.
    pub fn all_are_well(&self) -> bool {
        self.running().all(|by| self.running().all(|of| of == by || self.nodes[by].sees[of] == Some(Status::Alive)))
    }

    /// How many running nodes see `of` so.
    pub fn count_seeing(&self, of: Place, status: Status) -> usize {
        self.running().filter(|by| *by != of && self.nodes[*by].sees[of] == Some(status)).count()
    }

    /// Whether every other running node sees `of` so.
    pub fn all_see(&self, of: Place, status: Status) -> bool {
        self.running().all(|by| by == of || self.nodes[by].sees[of] == Some(status))
    }

    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        self.run_while(until, |_| true);
    }

    /// Runs until `until`, or until the condition is false, which is asked 20 times a second. The time at which it was false.
    pub fn run_while(&mut self, until: Time, condition: impl Fn(&Self) -> bool) -> Option<Time> {
        let mut next_look = self.now;
        loop {
            if self.now >= next_look {
                if !condition(self) {
                    return Some(self.now);
                }
                next_look = self.now + Duration::from_millis(50);
            }
            let next = self.queue.peek().map(|Reverse(queued)| queued.at);
            if next.is_none_or(|next| next > until.min(next_look)) {
                self.now = until.min(next_look);
                if self.now == until {
                    return (!condition(self)).then_some(self.now);
                }
                continue;
            }
            let Some(Reverse(queued)) = self.queue.pop() else { continue };
            self.now = queued.at;
            self.happen(queued.what);
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Wake(place) => {
                let node = &self.nodes[place];
                if node.state == State::Running && node.wake == Some(self.now) {
                    self.give(place, Event::Tick);
                }
            }
            Happening::Start(place, seeds) => {
                self.nodes[place].state = State::Running;
                self.nodes[place].sees.fill(None);
                self.give(place, Event::Tick);
                self.give(place, Event::Join { seeds: &seeds });
            }
            Happening::Datagram { from, to, bytes } => {
                let node = &mut self.nodes[to];
                if node.state == State::Off {
                    return;
                }
                node.received += (bytes.len() + DATAGRAM_OVERHEAD_BYTES) as u64;
                let from = addr_of(from);
                if node.state == State::Running {
                    self.give(to, Event::Datagram { from, bytes: &bytes });
                } else if node.socket.len() < SOCKET_DATAGRAMS {
                    node.socket.push_back((from, bytes));
                }
            }
            Happening::Ask { from, to, bytes } => self.ask(from, to, &bytes),
            Happening::Answer { from, to, bytes } => {
                if self.nodes[to].state == State::Running {
                    self.nodes[to].received += (bytes.len() + STREAM_OVERHEAD_BYTES) as u64;
                    self.give(to, Event::PushPullAnswer { with: addr_of(from), bytes: &bytes });
                }
            }
        }
    }

    fn ask(&mut self, from: Place, to: Place, bytes: &[u8]) {
        if self.nodes[to].state != State::Running {
            return;
        }
        self.nodes[to].received += (bytes.len() + STREAM_OVERHEAD_BYTES) as u64;
        self.give(to, Event::PushPull { exchange: from as u64, bytes });
    }

    /// Gives a node an event now, and does what it wants done.
    pub fn give(&mut self, place: Place, event: Event<'_>) {
        self.steps += 1;
        let mut effects = Vec::new();
        self.nodes[place].membership.handle(self.now, event, &mut effects);
        for effect in effects {
            self.perform(place, effect);
        }
        let wake = self.nodes[place].membership.next_deadline().map(|at| at.max(self.now + Duration::from_nanos(1)));
        if wake != self.nodes[place].wake {
            self.nodes[place].wake = wake;
            if let Some(at) = wake {
                self.put(at, Happening::Wake(place));
            }
        }
    }

    fn perform(&mut self, place: Place, effect: Effect) {
        if let Some(kept) = &mut self.kept {
            match &effect {
                Effect::Send { bytes, .. } => kept.datagrams.push(bytes.clone()),
                Effect::PushPull { bytes, .. } | Effect::Answer { bytes, .. } => kept.blobs.push(bytes.clone()),
                _ => {}
            }
        }
        match effect {
            Effect::Send { to, bytes } => {
                assert!(bytes.len() <= membership::DATAGRAM_MAX_BYTES, "a datagram of {} bytes", bytes.len());
                self.nodes[place].sent += (bytes.len() + DATAGRAM_OVERHEAD_BYTES) as u64;
                let to = place_of(to);
                if let Some(after) = self.network.datagram(place, to, &mut self.chance) {
                    self.put(self.now + after, Happening::Datagram { from: place, to, bytes });
                }
            }
            Effect::PushPull { with, bytes } => {
                assert!(bytes.len() <= membership::BLOB_MAX_BYTES, "a blob of {} bytes", bytes.len());
                self.nodes[place].sent += (bytes.len() + STREAM_OVERHEAD_BYTES) as u64;
                let to = place_of(with);
                if let Some(after) = self.network.stream(place, to, &mut self.chance) {
                    self.put(self.now + after, Happening::Ask { from: place, to, bytes });
                }
            }
            Effect::Answer { exchange, bytes } => {
                let to = exchange as Place;
                self.nodes[place].sent += (bytes.len() + STREAM_OVERHEAD_BYTES) as u64;
                if let Some(after) = self.network.stream(place, to, &mut self.chance) {
                    self.put(self.now + after, Happening::Answer { from: place, to, bytes });
                }
            }
            Effect::Changed { member, from, to } => self.seen(place, place_of(member.addr), from, to),
            Effect::Updated { .. } | Effect::Answered { .. } => {}
            Effect::Conflict { .. } => self.nodes[place].conflicts.push(effect),
            Effect::Gone => {
                self.nodes[place].gone = true;
                self.kill(place);
            }
        }
    }

    fn seen(&mut self, by: Place, of: Place, from: Option<Status>, to: Status) {
        self.nodes[by].sees[of] = Some(to);
        let innocent = self.nodes[of].state == State::Running
            && !self.network.is_cut(by, of)
            && !self.network.is_cut(of, by)
            // An old death that one who starts hears of says nothing.
            && from.is_some();
        self.false_deaths += u64::from(innocent && to == Status::Dead);
        self.false_suspicions += u64::from(innocent && to == Status::Suspect);
        if self.keep_reports {
            self.reports.push(Report { at: self.now, by, of, from, to });
        }
    }
}
