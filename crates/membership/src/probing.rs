//! Who is probed when, and what the answers mean. Each member is watched by the few before it on the ring, and now and then by anybody;
//! a probe is several tries, directly and through helpers, within one period.

use std::net::SocketAddr;
use std::time::Duration;

use model::{NodeId, Time};

use crate::member::Status;
use crate::membership::{Effect, Membership, Via};
use crate::wire::{Message, Rumour};

/// Most probes under way: those of one period, and those of members that this node accuses.
const PROBES_MAX: usize = 64;
/// Most pings under way for others. One more pushes out one of them, whose asker has other helpers.
const RELAYS_MAX: usize = 256;
/// Most calls that are remembered. One more pushes out one of them, whose caller calls again.
const CALLS_MAX: usize = 1_024;
/// Tries of a probe, evenly over the period. Helpers are asked beside those in the middle.
const TRIES: u8 = 6;

/// A probe under way, by its nonce.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    target: NodeId,
    tries: u8,
    /// When the next try, or the judgement, is due.
    pub(crate) due: Time,
    /// The time between tries, stretched by what this node thought of itself at the start.
    step: Duration,
    /// Helpers that have not said that they heard.
    unheard: Vec<NodeId>,
    asked: usize,
}

/// A ping sent for another, by its nonce.
#[derive(Debug, Clone)]
pub(crate) struct Relay {
    asker: SocketAddr,
    asker_id: NodeId,
    asker_nonce: u32,
    target: NodeId,
    started: Time,
}

impl Membership {
    /// The next in turn: each watched member once a period, and one at random.
    pub(crate) fn probe_next(&mut self, effects: &mut Vec<Effect>) {
        let watched = self.table.watched(self.config.watched);
        let slots = watched.len() + 1;
        self.due.slot = self.now + self.health.stretch(self.config.period) / slots as u32;
        self.slot = (self.slot + 1) % slots;
        let target = if self.slot == 0 { self.next_at_random() } else { watched.get(self.slot - 1).copied() };
        if let Some(target) = target {
            self.probe(target, effects);
        }
    }

    /// Everybody in a shuffled order before anybody again.
    fn next_at_random(&mut self) -> Option<NodeId> {
        for _ in 0..2 {
            while let Some(id) = self.turn.pop() {
                if self.table.get(id).is_some_and(|entry| entry.status.is_live()) {
                    return Some(id);
                }
            }
            self.turn = self.table.live().to_vec();
            self.rng.shuffle(&mut self.turn);
        }
        None
    }

    pub(crate) fn probe(&mut self, target: NodeId, effects: &mut Vec<Effect>) {
        if self.probes.len() >= PROBES_MAX || self.probes.values().any(|probe| probe.target == target) {
            return;
        }
        let step = self.health.stretch(self.config.period) / u32::from(TRIES);
        let nonce = self.new_nonce();
        let probe = Probe { target, tries: 1, due: self.now + step, step, unheard: Vec::new(), asked: 0 };
        self.probes.insert(nonce, probe);
        self.send_to_member(target, Some(Message::Ping { nonce }), effects);
    }

    fn new_nonce(&mut self) -> u32 {
        loop {
            let nonce = self.rng.next() as u32;
            let taken = self.probes.contains_key(&nonce) || self.relays.contains_key(&nonce);
            if !taken && !self.calls.contains_key(&nonce) {
                return nonce;
            }
        }
    }

    /// Tries again, or judges.
    pub(crate) fn run_probes(&mut self, effects: &mut Vec<Effect>) {
        let due: Vec<u32> =
            self.probes.iter().filter(|(_, probe)| probe.due <= self.now).map(|(nonce, _)| *nonce).collect();
        for nonce in due {
            let Some(probe) = self.probes.get_mut(&nonce) else { continue };
            if probe.tries == TRIES {
                let probe = self.probes.remove(&nonce).expect("found above");
                self.judge(&probe, effects);
                continue;
            }
            let target = probe.target;
            probe.due = self.now + probe.step;
            let with_helpers = probe.tries < TRIES - 1;
            probe.tries += 1;
            self.send_to_member(target, Some(Message::Ping { nonce }), effects);
            if with_helpers {
                self.ask_helpers(nonce, target, effects);
            }
        }
    }

    fn ask_helpers(&mut self, nonce: u32, target: NodeId, effects: &mut Vec<Effect>) {
        let helpers = self.table.random_live(self.config.helpers, &mut self.rng, |id| id == target);
        if let Some(probe) = self.probes.get_mut(&nonce) {
            let new = helpers.iter().filter(|id| !probe.unheard.contains(id)).copied().collect::<Vec<_>>();
            probe.asked += new.len();
            probe.unheard.extend(new);
        }
        for helper in helpers {
            self.send_to_member(helper, Some(Message::AskPing { nonce, target }), effects);
        }
    }

    /// No answer within the period.
    fn judge(&mut self, probe: &Probe, effects: &mut Vec<Effect>) {
        let Some(entry) = self.table.get(probe.target).filter(|entry| entry.status.is_live()) else { return };
        let suspect_already = entry.suspicion.as_ref().is_some_and(|it| it.accusers().contains(&self.me.id));
        let heard = probe.asked - probe.unheard.len();
        let may_accuse = self.health.may_accuse(probe.asked, heard);
        if may_accuse && !suspect_already {
            self.accuse(probe.target, effects);
        }
        // The accused is called until it answers or its time is over: each call carries the accusation.
        if self.table.get(probe.target).is_some_and(|entry| entry.status == Status::Suspect) {
            self.probe(probe.target, effects);
        }
    }

    pub(crate) fn message(&mut self, addr: SocketAddr, from: NodeId, message: Message, effects: &mut Vec<Effect>) {
        match message {
            Message::Ping { nonce } => self.send(addr, from, Some(Message::Ack { nonce }), effects),
            Message::Ack { nonce } => self.acked(from, nonce, effects),
            Message::AskPing { nonce, target } => self.help(addr, from, nonce, target, effects),
            Message::Heard { nonce } => {
                if let Some(probe) = self.probes.get_mut(&nonce) {
                    probe.unheard.retain(|id| *id != from);
                }
            }
            Message::Relayed { nonce, target, incarnation } => {
                if self.probes.get(&nonce).is_some_and(|probe| probe.target == target) {
                    let alive = Rumour { id: target, incarnation, status: Status::Alive, by: Vec::new() };
                    self.hear(alive, Via::Gossip, effects);
                    self.probes.remove(&nonce);
                    self.health.improve();
                }
            }
        }
    }

    fn acked(&mut self, from: NodeId, nonce: u32, effects: &mut Vec<Effect>) {
        if self.probes.get(&nonce).is_some_and(|probe| probe.target == from) {
            self.probes.remove(&nonce);
            self.health.improve();
            let now = self.now;
            self.table.change(from, |entry| entry.acked = Some(now));
        } else if let Some(relay) = self.relays.remove(&nonce).filter(|relay| relay.target == from) {
            let incarnation = self.table.get(from).map_or(0, |entry| entry.incarnation);
            let said = Message::Relayed { nonce: relay.asker_nonce, target: from, incarnation };
            self.send(relay.asker, relay.asker_id, Some(said), effects);
        } else if self.calls.get(&nonce) == Some(&from) {
            self.calls.remove(&nonce);
            effects.push(Effect::Answered { id: from });
        }
    }

    /// One datagram that is to be answered, beside all probing: nobody is accused by it.
    pub(crate) fn call(&mut self, id: NodeId, effects: &mut Vec<Effect>) {
        if self.table.get(id).is_none() {
            return;
        }
        while self.calls.len() >= CALLS_MAX {
            self.calls.pop_first();
        }
        let nonce = self.new_nonce();
        self.calls.insert(nonce, id);
        self.send_to_member(id, Some(Message::Ping { nonce }), effects);
    }

    /// Somebody gets no answer from `target`. The address is ours, not the asker's: it cannot point us at a stranger.
    fn help(&mut self, addr: SocketAddr, from: NodeId, asker_nonce: u32, target: NodeId, effects: &mut Vec<Effect>) {
        self.send(addr, from, Some(Message::Heard { nonce: asker_nonce }), effects);
        if self.table.get(target).is_none() {
            return;
        }
        self.make_room_for_relay();
        let nonce = self.new_nonce();
        let relay = Relay { asker: addr, asker_id: from, asker_nonce, target, started: self.now };
        self.relays.insert(nonce, relay);
        self.send_to_member(target, Some(Message::Ping { nonce }), effects);
    }

    fn make_room_for_relay(&mut self) {
        if self.relays.len() < RELAYS_MAX {
            return;
        }
        let (now, old) = (self.now, self.config.period * 4);
        self.relays.retain(|_, relay| now.since(relay.started) < old);
        while self.relays.len() >= RELAYS_MAX {
            self.relays.pop_first();
        }
    }

    /// The dead may have come back, or the network between us and them. Together, each of the dead is called about every two periods;
    /// the call carries their death, which they contradict.
    pub(crate) fn call_the_dead(&mut self, effects: &mut Vec<Effect>) {
        if !self.config.protections.rejoin || self.table.dead_count() == 0 {
            return;
        }
        let (dead, callers) = (self.table.dead_count(), self.table.live().len() + 1);
        if self.rng.below(2 * callers) < dead
            && let Some(id) = self.table.random_dead(&mut self.rng)
        {
            let nonce = self.new_nonce();
            self.send_to_member(id, Some(Message::Ping { nonce }), effects);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Event;
    use crate::testing::{node, peer};
    use crate::wire::DatagramWriter;

    #[test]
    fn pings_for_others_are_bounded_and_go_only_to_members() {
        let mut node = node(10);
        let mut effects = Vec::new();
        for nonce in 0..10_000 {
            let target = NodeId(3 + u64::from(nonce % 2) * 1_000);
            let asks = DatagramWriter::new(NodeId(2), 0, NodeId(1), Some(Message::AskPing { nonce, target })).finish();
            node.handle(Time::ZERO, Event::Datagram { from: peer(2).addr, bytes: &asks }, &mut effects);
        }
        assert_eq!(node.relays.len(), RELAYS_MAX);
        let sent_to =
            |to: SocketAddr| effects.iter().filter(|it| matches!(it, Effect::Send { to: at, .. } if *at == to)).count();
        assert_eq!((sent_to(peer(2).addr), sent_to(peer(3).addr)), (10_000, 5_000));
    }

    #[test]
    fn a_call_is_answered_by_whom_it_was_for_once_and_accuses_nobody() {
        let mut node = node(3);
        let mut effects = Vec::new();
        let answered = |effects: &[Effect]| {
            let answered =
                effects.iter().filter(|effect| matches!(effect, Effect::Answered { id } if *id == NodeId(2)));
            answered.count()
        };
        node.handle(Time::ZERO, Event::Call { id: NodeId(99) }, &mut effects);
        assert!(effects.is_empty() && node.calls.is_empty(), "nobody of that name");
        node.handle(Time::ZERO, Event::Call { id: NodeId(2) }, &mut effects);
        let nonce = *node.calls.keys().next().unwrap();
        let ack = |from| DatagramWriter::new(from, 0, NodeId(1), Some(Message::Ack { nonce })).finish();
        node.handle(Time::ZERO, Event::Datagram { from: peer(3).addr, bytes: &ack(NodeId(3)) }, &mut effects);
        assert_eq!(answered(&effects), 0, "another's answer");
        for _ in 0..2 {
            node.handle(Time::ZERO, Event::Datagram { from: peer(2).addr, bytes: &ack(NodeId(2)) }, &mut effects);
        }
        assert_eq!(answered(&effects), 1);
        for _ in 0..2 * CALLS_MAX {
            node.call(NodeId(2), &mut effects);
        }
        assert_eq!((node.calls.len(), node.probes.len()), (CALLS_MAX, 0));
    }

    #[test]
    fn an_answer_counts_only_from_whom_it_was_asked() {
        let mut node = node(3);
        let mut effects = Vec::new();
        node.probe(NodeId(2), &mut effects);
        let nonce = *node.probes.keys().next().unwrap();
        let ack = |from| DatagramWriter::new(from, 0, NodeId(1), Some(Message::Ack { nonce })).finish();
        node.handle(Time::ZERO, Event::Datagram { from: peer(3).addr, bytes: &ack(NodeId(3)) }, &mut effects);
        assert!(node.probes.contains_key(&nonce), "another's answer");
        node.handle(Time::ZERO, Event::Datagram { from: peer(2).addr, bytes: &ack(NodeId(2)) }, &mut effects);
        assert!(!node.probes.contains_key(&nonce));
    }
}
