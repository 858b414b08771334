//! The state machine: events and the time in, effects out. What the events mean is in the files beside this one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use model::{Name, NodeId, Time};

use crate::config::{Config, Protections};
use crate::gossip::{Queue, tellings};
use crate::health::Health;
use crate::member::{Member, Metadata, Status};
use crate::probing::{Probe, Relay};
use crate::rng::Rng;
use crate::suspicion::Span;
use crate::table::Table;
use crate::wire::{
    Datagram, DatagramWriter, Description, INCARNATION_END, Message, News, Record, Rumour, decode_datagram,
};

/// What happens to a member of a constellation.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// The time that [`Membership::next_deadline`] named has come.
    Tick,
    /// A datagram came, already opened by the key ring.
    Datagram { from: SocketAddr, bytes: &'a [u8] },
    /// Find others through these addresses; they are kept for later need.
    Join { seeds: &'a [SocketAddr] },
    /// Say goodbye. [`Effect::Gone`] follows within two seconds.
    Leave,
    /// This node describes itself anew.
    Update { metadata: Metadata },
    /// This node is found at another address.
    Moved { addr: SocketAddr },
    /// Another member began a comparison over a stream; [`Effect::Answer`] follows at once.
    PushPull { exchange: u64, bytes: &'a [u8] },
    /// The answer to [`Effect::PushPull`].
    PushPullAnswer { with: SocketAddr, bytes: &'a [u8] },
    /// The caller noticed that this node is slow (a late loop, a full queue): 1 for a little, 8 for hopelessly.
    Slow { by: u8 },
    /// The log has removed this node for good.
    Forget { id: NodeId },
    /// Somebody wants to know whether this member's datagrams come through now; [`Effect::Answered`] follows if they do. Nothing
    /// is concluded from silence: a datagram may be lost.
    Call { id: NodeId },
}

/// What the caller is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Seal these bytes, at most [`crate::DATAGRAM_MAX_BYTES`], and send them; losing them is no error.
    Send { to: SocketAddr, bytes: Vec<u8> },
    /// Send these bytes over a stream, at most [`crate::BLOB_MAX_BYTES`], and bring the answer; when there is none, nothing.
    PushPull { with: SocketAddr, bytes: Vec<u8> },
    /// The answer to [`Event::PushPull`]; empty when there is nothing to say.
    Answer { exchange: u64, bytes: Vec<u8> },
    /// A member is seen differently: `from` is `None` for one not known before.
    Changed { member: Member, from: Option<Status>, to: Status },
    /// A member describes itself anew.
    Updated { member: Member },
    /// Two live nodes claim what only one can have. Said once a pair, and again after one of them was gone.
    Conflict { over: Claimed, between: (NodeId, NodeId) },
    /// The answer to [`Event::Call`]: this member answered a datagram of this node's own.
    Answered { id: NodeId },
    /// The goodbye has been said; nothing more will come.
    Gone,
}

/// What two nodes claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    Name(Name),
    Addr(SocketAddr),
    /// The same node id from two addresses: a copied data folder.
    Identity(SocketAddr),
}

/// A member as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub member: Member,
    pub status: Status,
    pub since: Time,
    /// Who got no answer from it.
    pub accused_by: Vec<NodeId>,
    /// Alive, and reported as suspect until then because it came and went.
    pub held_until: Option<Time>,
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Datagrams and blobs that were not understood.
    pub malformed: u64,
    /// Datagrams for another node id.
    pub misdirected: u64,
    /// Members for which there was no room.
    pub refused_members: u64,
    /// Times this node accused another.
    pub accusations: u64,
    /// Times this node contradicted a rumour about itself.
    pub contradictions: u64,
    /// Times this node declared another dead.
    pub declared_dead: u64,
    /// Times this node found that it had stood still.
    pub stalls: u64,
}

/// Late by this much is not a busy moment: this node stood still, and what it did not hear meanwhile proves nothing.
const STALL: Duration = Duration::from_millis(500);
/// How long goodbyes are told.
const GOODBYE: Duration = Duration::from_secs(1);
/// How often the table is searched for the long gone.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// Most seeds kept.
const SEEDS_MAX: usize = 64;

#[derive(Debug)]
pub struct Membership {
    pub(crate) config: Config,
    pub(crate) me: Member,
    pub(crate) description: Description,
    /// The incarnation in which this node last described itself anew.
    pub(crate) described: u64,
    pub(crate) table: Table,
    pub(crate) queue: Queue,
    pub(crate) health: Health,
    pub(crate) rng: Rng,
    pub(crate) now: Time,
    /// When this node last found that it had stood still: what was due before is no reason to find it again.
    pub(crate) stalled: Time,
    pub(crate) probes: BTreeMap<u32, Probe>,
    pub(crate) relays: BTreeMap<u32, Relay>,
    /// Whom somebody called, by the nonce of the call.
    pub(crate) calls: BTreeMap<u32, NodeId>,
    /// Members still to be probed at random in this turn.
    pub(crate) turn: Vec<NodeId>,
    pub(crate) slot: usize,
    pub(crate) seeds: Vec<SocketAddr>,
    pub(crate) sync_pause: Duration,
    pub(crate) rejoin_pause: Duration,
    pub(crate) conflicts: BTreeSet<(NodeId, NodeId)>,
    /// How often another description of this very node was met.
    pub(crate) contested: u32,
    pub(crate) due: Due,
    pub(crate) life: Life,
    pub(crate) counters: Counters,
}

/// When what recurs is next due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    pub(crate) slot: Time,
    pub(crate) sync: Time,
    pub(crate) rejoin: Option<Time>,
    pub(crate) revive: Time,
    pub(crate) gossip: Option<Time>,
    pub(crate) forget: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Member,
    /// Says goodbye until then.
    Leaving(Time),
    Gone,
}

impl Membership {
    /// A member that knows only itself. `seed` decides every choice that is left to chance: it must differ between nodes.
    pub fn new(config: Config, mut me: Member, now: Time, seed: u64) -> Self {
        let config = config.within_ranges();
        me.incarnation = me.incarnation.min(INCARNATION_END / 2);
        let mut rng = Rng::new(seed ^ crate::rng::mix(me.id.0));
        let start = |rng: &mut Rng, span: Duration| now + span.mul_f64(rng.below(1_000) as f64 / 1_000.0);
        let due = Due {
            slot: start(&mut rng, config.period),
            sync: start(&mut rng, config.sync_every),
            rejoin: None,
            revive: start(&mut rng, config.period),
            gossip: None,
            forget: now + FORGET_EVERY,
        };
        Self {
            description: Description::of(&me),
            described: me.incarnation,
            table: Table::new(me.id),
            queue: Queue::new(rng.next()),
            health: Health::new(config.protections.local_health),
            now,
            stalled: now,
            probes: BTreeMap::new(),
            relays: BTreeMap::new(),
            calls: BTreeMap::new(),
            turn: Vec::new(),
            slot: 0,
            seeds: Vec::new(),
            sync_pause: config.sync_every,
            rejoin_pause: config.period,
            conflicts: BTreeSet::new(),
            contested: 0,
            due,
            life: Life::Member,
            counters: Counters::default(),
            rng,
            config,
            me,
        }
    }

    /// Takes protections away, or gives them back, in a test.
    pub fn set_protections(&mut self, protections: Protections) {
        self.config.protections = protections;
        self.health = Health::new(protections.local_health);
    }

    /// This node.
    pub fn me(&self) -> &Member {
        &self.me
    }

    /// Everybody known but this node. Who is gone is not listed when a newer node has its name.
    pub fn members(&self) -> impl Iterator<Item = View> + '_ {
        self.table.iter().filter(|(id, _)| !self.is_replaced(*id)).map(|(id, _)| self.view_of(id).expect("listed"))
    }

    pub fn member(&self, id: NodeId) -> Option<View> {
        self.view_of(id)
    }

    /// Members that may answer, without this node.
    pub fn live_count(&self) -> usize {
        self.table.live().len()
    }

    /// How slow this node finds itself: 0 well, 8 hopelessly.
    pub fn slowness(&self) -> u8 {
        self.health.score()
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// When [`Event::Tick`] is wanted next; `None` after goodbye.
    pub fn next_deadline(&self) -> Option<Time> {
        match self.life {
            Life::Gone => return None,
            Life::Leaving(until) => return Some(self.due.gossip.map_or(until, |gossip| gossip.min(until))),
            Life::Member => {}
        }
        let fixed = [self.due.slot, self.due.sync, self.due.revive, self.due.forget];
        let probe = self.probes.values().map(|probe| probe.due);
        let others = [
            self.due.rejoin,
            self.due.gossip,
            self.table.first_deadline().map(|(at, _)| at),
            self.table.first_hold().map(|(at, _)| at),
        ];
        fixed.into_iter().chain(probe).chain(others.into_iter().flatten()).min()
    }

    /// Takes one event. `now` never goes back; effects are appended in the order in which they should be done.
    pub fn handle(&mut self, now: Time, event: Event<'_>, effects: &mut Vec<Effect>) {
        if self.life == Life::Gone {
            if let Event::PushPull { exchange, .. } = event {
                effects.push(Effect::Answer { exchange, bytes: Vec::new() });
            }
            return;
        }
        let now = now.max(self.now);
        self.notice_stall(now);
        self.now = now;
        match event {
            Event::Tick => self.run_what_is_due(effects),
            Event::Datagram { from, bytes } => match decode_datagram(bytes) {
                Ok(datagram) => self.datagram(from, datagram, effects),
                Err(_) => self.counters.malformed += 1,
            },
            Event::Join { seeds } => self.join(seeds, effects),
            Event::Leave => self.leave(effects),
            Event::Update { metadata } => {
                self.me.metadata = metadata;
                self.describe_anew();
            }
            Event::Moved { addr } => {
                self.me.addr = addr;
                self.describe_anew();
            }
            Event::PushPull { exchange, bytes } => self.asked(exchange, bytes, effects),
            Event::PushPullAnswer { with, bytes } => self.answered(with, bytes, effects),
            Event::Slow { by } => self.health.worsen(by),
            Event::Forget { id } => self.forget(id),
            Event::Call { id } => self.call(id, effects),
        }
    }

    fn notice_stall(&mut self, now: Time) {
        if !self.config.protections.local_health || self.life != Life::Member {
            return;
        }
        let late = self.next_deadline().map(|due| now.since(due.max(self.stalled)));
        let Some(late) = late.filter(|late| *late > STALL) else { return };
        self.stalled = now;
        self.counters.stalls += 1;
        self.health.worsen(2);
        // What came meanwhile is still to be read, and is read before anybody is judged.
        self.probes.clear();
        self.due.slot = self.due.slot.max(now + self.config.period);
        for id in self.table.suspects() {
            self.table.change(id, |entry| {
                if let Some(suspicion) = &mut entry.suspicion {
                    suspicion.give_back(late + self.config.period);
                }
            });
        }
    }

    fn run_what_is_due(&mut self, effects: &mut Vec<Effect>) {
        let now = self.now;
        if let Life::Leaving(until) = self.life {
            if self.due.gossip.is_some_and(|due| due <= now) {
                self.tell_news(effects);
            }
            if until <= now {
                self.life = Life::Gone;
                effects.push(Effect::Gone);
            }
            return;
        }
        self.judge_suspicions(effects);
        while let Some((_, id)) = self.table.first_hold().filter(|(at, _)| *at <= now) {
            self.table.change(id, |entry| entry.damping.held_until = None);
            self.report(id, effects);
        }
        self.run_probes(effects);
        if self.due.slot <= now {
            self.probe_next(effects);
        }
        if self.due.gossip.is_some_and(|due| due <= now) {
            self.tell_news(effects);
        }
        if self.due.revive <= now {
            self.due.revive = now + self.rng.around(self.config.period);
            self.call_the_dead(effects);
        }
        if self.due.sync <= now {
            self.compare_tables(effects);
        }
        if self.due.rejoin.is_some_and(|due| due <= now) {
            self.rejoin(effects);
        }
        if self.due.forget <= now {
            self.due.forget = now + FORGET_EVERY;
            self.forget_the_long_gone();
        }
    }

    fn datagram(&mut self, addr: SocketAddr, datagram: Datagram<'_>, effects: &mut Vec<Effect>) {
        let from = datagram.from;
        if datagram.to != self.me.id || from == self.me.id {
            self.counters.misdirected += 1;
            return;
        }
        match self.table.get(from) {
            // It knows us and we do not know it: its table is worth a look.
            None => self.compare_soon(),
            Some(entry) if entry.incarnation < datagram.incarnation => {
                let rumour =
                    Rumour { id: from, incarnation: datagram.incarnation, status: Status::Alive, by: Vec::new() };
                self.hear(rumour, Via::Gossip, effects);
            }
            Some(_) => {}
        }
        let incarnation = self.me.incarnation;
        for news in datagram.news {
            match news {
                News::Rumour(rumour) => self.hear(rumour, Via::Gossip, effects),
                News::Record(record) => self.introduce(&record, Via::Gossip, effects),
            }
        }
        let asked = matches!(datagram.message, Some(Message::Ping { .. }));
        if let Some(message) = datagram.message {
            self.message(addr, from, message, effects);
        }
        // An answer carries what there is to say; without one, say it: that we are not what it thinks, or that it is not.
        let contradicted = self.me.incarnation != incarnation;
        let gone = self.table.get(from).is_some_and(|entry| entry.status == Status::Dead);
        if !asked && (contradicted || gone) {
            self.send(addr, from, None, effects);
        }
    }

    pub(crate) fn describe_anew(&mut self) {
        self.me.incarnation += 1;
        self.described = self.me.incarnation;
        self.description = Description::of(&self.me);
        self.tell(self.me.id, true);
    }

    /// Something about `id` is news.
    pub(crate) fn tell(&mut self, id: NodeId, whole: bool) {
        self.queue.add(id, whole);
        if self.due.gossip.is_none() {
            let wait = self.rng.below(1_000) as f64 / 1_000.0;
            self.due.gossip = Some(self.now + self.config.gossip_every.mul_f64(wait));
        }
    }

    fn tell_news(&mut self, effects: &mut Vec<Effect>) {
        self.due.gossip = (!self.queue.is_empty()).then(|| self.now + self.config.gossip_every);
        if self.due.gossip.is_some() {
            for id in self.table.random_live(self.config.fanout, &mut self.rng, |_| false) {
                self.send_to_member(id, None, effects);
            }
        }
    }

    pub(crate) fn send_to_member(&mut self, id: NodeId, message: Option<Message>, effects: &mut Vec<Effect>) {
        if let Some(addr) = self.table.get(id).map(|entry| entry.description.addr) {
            self.send(addr, id, message, effects);
        }
    }

    /// Sends a message with as much news as fits. What is said against the receiver comes first, so that it can contradict.
    pub(crate) fn send(&mut self, addr: SocketAddr, to: NodeId, message: Option<Message>, effects: &mut Vec<Effect>) {
        let mut writer = DatagramWriter::new(self.me.id, self.me.incarnation, to, message);
        if let Some(entry) = self.table.get(to).filter(|entry| entry.status != Status::Alive) {
            writer.news(&News::Rumour(entry.rumour(to)));
        }
        let mut told = Vec::new();
        let mut misses = 0;
        for (id, whole) in self.queue.waiting() {
            let news = match self.table.get(id) {
                Some(_) if id == to => continue,
                Some(entry) if whole => News::Record(entry.record(id, self.now)),
                Some(entry) => News::Rumour(entry.rumour(id)),
                None if whole => News::Record(self.own_record()),
                None => News::Rumour(self.own_rumour()),
            };
            if writer.news(&news) {
                told.push(id);
            } else {
                misses += 1;
                // A shorter one may still fit, but a long search for it costs more than it brings.
                if misses == 4 {
                    break;
                }
            }
        }
        // What is told to one that may be gone does not count as told.
        if self.table.get(to).is_none_or(|entry| entry.status == Status::Alive) {
            let limit = tellings(self.table.live().len() + 1);
            for id in told {
                self.queue.told(id, limit);
            }
        }
        effects.push(Effect::Send { to: addr, bytes: writer.finish() });
    }

    pub(crate) fn own_rumour(&self) -> Rumour {
        let status = if self.life == Life::Member { Status::Alive } else { Status::Left };
        Rumour { id: self.me.id, incarnation: self.me.incarnation, status, by: Vec::new() }
    }

    pub(crate) fn own_record(&self) -> Record<'_> {
        Record { rumour: self.own_rumour(), described: self.described, age_s: 0, description: self.description.bytes() }
    }

    fn join(&mut self, seeds: &[SocketAddr], effects: &mut Vec<Effect>) {
        for seed in seeds {
            if self.seeds.len() < SEEDS_MAX && *seed != self.me.addr && !self.seeds.contains(seed) {
                self.seeds.push(*seed);
            }
        }
        self.rejoin_pause = self.config.period;
        self.due.rejoin = Some(self.now);
        self.rejoin(effects);
    }

    fn leave(&mut self, effects: &mut Vec<Effect>) {
        if self.life != Life::Member {
            return;
        }
        self.life = Life::Leaving(self.now + GOODBYE);
        self.me.incarnation += 1;
        self.probes.clear();
        self.tell(self.me.id, false);
        let many = tellings(self.table.live().len() + 1);
        for id in self.table.random_live(many, &mut self.rng, |_| false) {
            self.send_to_member(id, None, effects);
        }
        // The rest of the second tells the others, and those that lost it.
        self.tell(self.me.id, false);
    }

    pub(crate) fn span(&self) -> Span {
        Span::of(self.config.period, self.table.live().len(), self.config.confirmations)
    }

    fn view_of(&self, id: NodeId) -> Option<View> {
        let entry = self.table.get(id)?;
        Some(View {
            member: entry.description.member(id, entry.incarnation),
            status: entry.reported.unwrap_or(entry.status),
            since: entry.since,
            accused_by: entry.rumour(id).by,
            held_until: entry.damping.held_until,
        })
    }
}

/// How something was heard, and so what it is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// This node found it out.
    Own,
    /// As news, or from the member itself.
    Gossip,
    /// As an old difference between tables.
    Sync,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, peer};

    #[test]
    fn one_stall_is_found_once_however_much_is_read_after_it() {
        let mut node = node(10);
        let mut effects = Vec::new();
        let by = vec![NodeId(3)];
        node.hear(Rumour { id: NodeId(2), incarnation: 0, status: Status::Suspect, by }, Via::Gossip, &mut effects);
        let deadline = node.table.first_deadline().unwrap().0;
        let stood_still = Duration::from_secs(20);
        for read in 0..100 {
            let now = Time::ZERO + stood_still + Duration::from_millis(read);
            let bytes = DatagramWriter::new(NodeId(4), 0, NodeId(1), None).finish();
            node.handle(now, Event::Datagram { from: peer(4).addr, bytes: &bytes }, &mut effects);
        }
        assert_eq!(node.counters().stalls, 1);
        let put_off = node.table.first_deadline().unwrap().0.since(deadline);
        assert!(
            put_off >= stood_still - node.config.period && put_off <= stood_still + node.config.period,
            "{put_off:?}"
        );
    }

    #[test]
    fn after_goodbye_nothing_is_wanted_and_nothing_said() {
        let mut node = node(4);
        let mut effects = Vec::new();
        node.handle(Time::ZERO, Event::Leave, &mut effects);
        while let Some(at) = node.next_deadline() {
            node.handle(at, Event::Tick, &mut effects);
        }
        assert_eq!(effects.pop(), Some(Effect::Gone));
        node.handle(
            Time::ZERO + Duration::from_secs(9),
            Event::Datagram { from: peer(2).addr, bytes: &[] },
            &mut effects,
        );
        node.handle(Time::ZERO + Duration::from_secs(9), Event::Tick, &mut effects);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Gone | Effect::Changed { .. })));
    }
}
