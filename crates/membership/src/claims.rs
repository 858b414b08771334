//! What is believed of what is heard: rumours and records about others, accusations of oneself, and what is reported of it.

use model::{NodeId, Time};

use crate::damping::Damping;
use crate::member::Status;
use crate::membership::{Claimed, Effect, Life, Membership, Via};
use crate::suspicion::Suspicion;
use crate::table::Entry;
use crate::wire::{Description, Record, Rumour};

/// Most conflicts remembered as said.
const CONFLICTS_MAX: usize = 1_024;

impl Membership {
    /// Takes a claim about a member's status.
    pub(crate) fn hear(&mut self, rumour: Rumour, via: Via, effects: &mut Vec<Effect>) {
        let id = rumour.id;
        if id == self.me.id {
            self.hear_of_self(&rumour, effects);
            return;
        }
        let Some(entry) = self.table.get(id) else { return };
        let (known, acked) = (entry.rank(), entry.acked);
        let by = self.accusers_that_count(&rumour.by);
        if known == (rumour.incarnation, Status::Suspect) && rumour.status == Status::Suspect {
            let span = self.span();
            let grew = self.table.change(id, |entry| entry.suspicion.as_mut().is_some_and(|it| it.hear(&by, span)));
            if grew == Some(true) {
                self.tell(id, false);
            }
            return;
        }
        if (rumour.incarnation, rumour.status) <= known {
            return;
        }
        let mut status = rumour.status;
        if status == Status::Dead && known.1.is_live() && self.config.protections.second_thoughts {
            // Deaths are news: one that comes up while tables are compared is from the other side of a partition or of a long
            // pause, and the member may well be there. So may one that answered us a moment ago.
            let lately = acked.is_some_and(|at| self.now.since(at) < self.config.period * 2);
            if via == Via::Sync || (via == Via::Gossip && lately && known.1 == Status::Alive) {
                status = Status::Suspect;
            }
            if (rumour.incarnation, status) <= known {
                return;
            }
        }
        self.believe(id, rumour.incarnation, status, by, effects);
    }

    fn believe(&mut self, id: NodeId, incarnation: u64, status: Status, by: Vec<NodeId>, effects: &mut Vec<Effect>) {
        let (now, span) = (self.now, self.span());
        let config = &self.config;
        let returned = self.table.change(id, |entry| {
            let returned = entry.status == Status::Dead && status.is_live();
            if returned && config.protections.damping {
                entry.damping.returned(now, config);
            }
            if !status.is_live() {
                entry.damping.held_until = None;
            }
            if let (Status::Dead, Some(suspicion)) = (status, &entry.suspicion) {
                entry.accusers = suspicion.accusers().to_vec();
            } else {
                entry.accusers = by.clone();
            }
            entry.suspicion = (status == Status::Suspect).then(|| Suspicion::new(now, &by, span));
            entry.incarnation = incarnation;
            entry.status = status;
            entry.since = now;
            returned
        });
        self.tell(id, false);
        if returned == Some(true) {
            self.compare_soon();
        }
        if !status.is_live() {
            self.conflicts.retain(|(a, b)| *a != id && *b != id);
        }
        self.report(id, effects);
        if status.is_live() {
            self.look_for_conflicts(id, effects);
        } else {
            self.rejoin_when_alone();
        }
    }

    /// Accusers count when they are members that may answer: a broken peer cannot make them up.
    fn accusers_that_count(&self, by: &[NodeId]) -> Vec<NodeId> {
        let counts = |id: &NodeId| *id == self.me.id || self.table.get(*id).is_some_and(|it| it.status.is_live());
        by.iter().copied().filter(counts).collect()
    }

    fn hear_of_self(&mut self, rumour: &Rumour, effects: &mut Vec<Effect>) {
        let newer = match rumour.status {
            Status::Alive => rumour.incarnation > self.me.incarnation,
            Status::Suspect | Status::Dead | Status::Left => rumour.incarnation >= self.me.incarnation,
        };
        if !newer || self.life != Life::Member {
            return;
        }
        self.counters.contradictions += 1;
        // Of an incarnation that this run never had: it is from an earlier one, and so may its description be.
        let earlier_life = rumour.incarnation > self.me.incarnation;
        self.me.incarnation = rumour.incarnation;
        if earlier_life {
            self.describe_anew();
        } else {
            self.me.incarnation += 1;
            self.health.worsen(u8::from(rumour.status == Status::Suspect));
            self.tell(self.me.id, false);
        }
        for accuser in rumour.by.clone() {
            self.send_to_member(accuser, None, effects);
        }
    }

    /// Takes a claim that comes with a description.
    pub(crate) fn introduce(&mut self, record: &Record<'_>, via: Via, effects: &mut Vec<Effect>) {
        let id = record.rumour.id;
        if id == self.me.id {
            self.see_own_record(record, effects);
            return;
        }
        match self.table.get(id) {
            Some(entry) if record.described >= entry.described => {
                let new = (record.described, crate::wire::hash(record.description));
                if new > entry.edition() {
                    self.redescribe(record, via, effects);
                }
                self.hear(record.rumour.clone(), via, effects);
            }
            Some(_) => self.hear(record.rumour.clone(), via, effects),
            None => self.meet(record, via, effects),
        }
    }

    fn see_own_record(&mut self, record: &Record<'_>, effects: &mut Vec<Effect>) {
        let other = record.described >= self.described && record.description != self.description.bytes();
        if !other || self.life != Life::Member {
            self.hear_of_self(&record.rumour, effects);
            return;
        }
        // An earlier run, or another machine with a copy of our data folder. The earlier run is silent; the other one goes on, and
        // describes itself anew after we have.
        let here = self.me.addr;
        let twin = Description::decode(record.description).ok().map(|it| it.addr).filter(|addr| *addr != here);
        self.me.incarnation = self.me.incarnation.max(record.rumour.incarnation).max(record.described);
        self.describe_anew();
        self.contested = self.contested.saturating_add(1);
        if let Some(addr) = twin.filter(|_| self.contested > 1) {
            self.report_conflict(Claimed::Identity(addr), self.me.id, self.me.id, effects);
        }
    }

    fn redescribe(&mut self, record: &Record<'_>, via: Via, effects: &mut Vec<Effect>) {
        let id = record.rumour.id;
        let Ok(description) = Description::decode(record.description) else {
            self.counters.malformed += 1;
            return;
        };
        let described = record.described;
        self.table.change(id, |entry| {
            entry.description = description;
            entry.described = described;
        });
        if via != Via::Sync {
            self.tell(id, true);
        }
        if let Some(view) = self.member(id) {
            effects.push(Effect::Updated { member: view.member });
        }
        self.replace_who_was_here(id, effects);
        self.look_for_conflicts(id, effects);
    }

    fn meet(&mut self, record: &Record<'_>, via: Via, effects: &mut Vec<Effect>) {
        let rumour = &record.rumour;
        let age = std::time::Duration::from_secs(record.age_s.into());
        if !rumour.status.is_live() && age >= self.config.forget_after {
            return;
        }
        if self.table.len() >= self.config.members_max {
            match self.table.longest_gone().filter(|_| rumour.status.is_live()) {
                Some(gone) => self.forget(gone),
                None => {
                    self.counters.refused_members += 1;
                    return;
                }
            }
        }
        let Ok(description) = Description::decode(record.description) else {
            self.counters.malformed += 1;
            return;
        };
        let (id, span) = (rumour.id, self.span());
        let by = self.accusers_that_count(&rumour.by);
        let age_nanos = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        let since = if rumour.status.is_live() { self.now } else { Time(self.now.0.saturating_sub(age_nanos)) };
        let entry = Entry {
            description,
            described: record.described,
            incarnation: rumour.incarnation,
            status: rumour.status,
            since,
            suspicion: (rumour.status == Status::Suspect).then(|| Suspicion::new(self.now, &by, span)),
            accusers: by,
            acked: None,
            damping: Damping::default(),
            reported: None,
        };
        let first = self.table.live().is_empty();
        self.table.insert(id, entry);
        if via != Via::Sync {
            self.tell(id, true);
        }
        if first && rumour.status.is_live() {
            self.found_company();
        }
        self.report(id, effects);
        if rumour.status.is_live() {
            self.replace_who_was_here(id, effects);
            self.look_for_conflicts(id, effects);
        }
    }

    /// Says how a member is seen, when that differs from what was said last.
    pub(crate) fn report(&mut self, id: NodeId, effects: &mut Vec<Effect>) {
        let now = self.now;
        let Some(entry) = self.table.get(id) else { return };
        let held = entry.damping.held_until.is_some_and(|until| until > now);
        let to = if entry.status == Status::Alive && held { Status::Suspect } else { entry.status };
        let from = entry.reported;
        if from == Some(to) {
            return;
        }
        let member = entry.description.member(id, entry.incarnation);
        self.table.change(id, |entry| entry.reported = Some(to));
        effects.push(Effect::Changed { member, from, to });
    }

    /// Declares those dead who did not contradict in time. Who has only heard of it tries for itself first: the contradiction may
    /// have been lost on the way here, and who was right has told of the death by then.
    pub(crate) fn judge_suspicions(&mut self, effects: &mut Vec<Effect>) {
        while let Some((_, id)) = self.table.first_deadline().filter(|(at, _)| *at <= self.now) {
            let me = self.me.id;
            let until = self.now + self.config.period.mul_f64(1.1);
            let put_off = self.table.change(id, |entry| {
                entry.suspicion.as_mut().is_some_and(|it| !it.accusers().contains(&me) && it.put_off(until))
            });
            if put_off == Some(true) {
                self.probe(id, effects);
            } else {
                self.declare_dead(id, effects);
            }
        }
    }

    pub(crate) fn declare_dead(&mut self, id: NodeId, effects: &mut Vec<Effect>) {
        let Some(incarnation) = self.table.get(id).map(|entry| entry.incarnation) else { return };
        self.counters.declared_dead += 1;
        let rumour = Rumour { id, incarnation, status: Status::Dead, by: vec![self.me.id] };
        self.hear(rumour, Via::Own, effects);
    }

    /// This node got no answer.
    pub(crate) fn accuse(&mut self, id: NodeId, effects: &mut Vec<Effect>) {
        let Some(incarnation) = self.table.get(id).map(|entry| entry.incarnation) else { return };
        self.counters.accusations += 1;
        if !self.config.protections.suspicion {
            self.declare_dead(id, effects);
            return;
        }
        let rumour = Rumour { id, incarnation, status: Status::Suspect, by: vec![self.me.id] };
        self.hear(rumour, Via::Own, effects);
    }

    /// Gone, and a newer node has its name.
    pub(crate) fn is_replaced(&self, id: NodeId) -> bool {
        let Some(entry) = self.table.get(id).filter(|entry| !entry.status.is_live()) else { return false };
        let name = entry.description.name_hash;
        let newer = |other: NodeId| other > id && self.table.get(other).is_some_and(|it| it.status.is_live());
        (self.description.name_hash == name && self.me.id > id) || self.table.named(name).any(newer)
    }

    fn look_for_conflicts(&mut self, id: NodeId, effects: &mut Vec<Effect>) {
        let Some(entry) = self.table.get(id) else { return };
        let name_hash = entry.description.name_hash;
        let live = |other: &NodeId| *other != id && self.table.get(*other).is_some_and(|it| it.status.is_live());
        let mut others: Vec<NodeId> = self.table.named(name_hash).filter(live).take(4).collect();
        if self.description.name_hash == name_hash {
            others.push(self.me.id);
        }
        if others.is_empty() {
            return;
        }
        let name = entry.description.member(id, 0).name;
        for other in others {
            self.report_conflict(Claimed::Name(name.clone()), id, other, effects);
        }
    }

    fn report_conflict(&mut self, over: Claimed, a: NodeId, b: NodeId, effects: &mut Vec<Effect>) {
        let between = (a.min(b), a.max(b));
        if self.conflicts.len() < CONFLICTS_MAX && self.conflicts.insert(between) {
            effects.push(Effect::Conflict { over, between });
        }
    }

    /// An address belongs to the newest node that claims it. The older one is gone, or contradicts; then probes decide, which
    /// only the one that is really there answers.
    fn replace_who_was_here(&mut self, id: NodeId, effects: &mut Vec<Effect>) {
        let Some(addr) = self.table.get(id).map(|entry| entry.description.addr) else { return };
        if addr == self.me.addr {
            if id < self.me.id {
                self.declare_dead(id, effects);
            } else {
                self.report_conflict(Claimed::Addr(addr), id, self.me.id, effects);
            }
            return;
        }
        let newest =
            self.table.at_addr(addr).filter(|it| self.table.get(*it).is_some_and(|e| e.status.is_live())).max();
        let older: Vec<NodeId> = self
            .table
            .at_addr(addr)
            .filter(|other| Some(*other) != newest && self.table.get(*other).is_some_and(|it| it.status.is_live()))
            .collect();
        for other in older {
            self.declare_dead(other, effects);
        }
    }

    pub(crate) fn forget(&mut self, id: NodeId) {
        self.table.remove(id);
        self.queue.remove(id);
        self.conflicts.retain(|(a, b)| *a != id && *b != id);
        self.rejoin_when_alone();
    }

    pub(crate) fn forget_the_long_gone(&mut self) {
        let (now, after) = (self.now, self.config.forget_after);
        let long_gone = |entry: &Entry| !entry.status.is_live() && now.since(entry.since) >= after;
        let ids: Vec<NodeId> = self.table.iter().filter(|(_, entry)| long_gone(entry)).map(|(id, _)| id).collect();
        for id in ids {
            self.forget(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node;

    fn suspect(id: u64, incarnation: u64, by: &[u64]) -> Rumour {
        let by = by.iter().copied().map(NodeId).collect();
        Rumour { id: NodeId(id), incarnation, status: Status::Suspect, by }
    }

    #[test]
    fn only_members_can_accuse() {
        let mut node = node(20);
        let mut effects = Vec::new();
        node.hear(suspect(2, 0, &[901, 902, 903]), Via::Gossip, &mut effects);
        let longest = node.table.first_deadline().unwrap().0;
        assert_eq!(longest, node.now + node.span().longest, "made up accusers do not hurry");
        node.hear(suspect(2, 0, &[3, 4, 5]), Via::Gossip, &mut effects);
        assert_eq!(node.table.first_deadline().unwrap().0, node.now + node.span().shortest);
    }

    #[test]
    fn an_older_claim_changes_nothing_and_a_newer_one_does() {
        let mut node = node(3);
        let mut effects = Vec::new();
        let claim = |incarnation, status| Rumour { id: NodeId(2), incarnation, status, by: Vec::new() };
        for (incarnation, status, then) in [
            (5, Status::Alive, Status::Alive),
            (4, Status::Dead, Status::Alive),
            (5, Status::Suspect, Status::Suspect),
            (5, Status::Alive, Status::Suspect),
            (6, Status::Alive, Status::Alive),
            (6, Status::Dead, Status::Dead),
            (6, Status::Suspect, Status::Dead),
            (6, Status::Left, Status::Left),
            (7, Status::Alive, Status::Alive),
        ] {
            node.hear(claim(incarnation, status), Via::Gossip, &mut effects);
            assert_eq!(node.table.get(NodeId(2)).unwrap().status, then, "after {status} of {incarnation}");
        }
    }

    #[test]
    fn an_accusation_is_contradicted_to_the_accusers() {
        let mut node = node(10);
        let mut effects = Vec::new();
        node.hear(suspect(1, 0, &[4, 5]), Via::Gossip, &mut effects);
        assert_eq!(node.me().incarnation, 1);
        let told: Vec<_> =
            effects.iter().map(|it| if let Effect::Send { to, .. } = it { *to } else { panic!() }).collect();
        assert_eq!(told, [4, 5].map(|id| crate::testing::peer(id).addr));
        node.hear(suspect(1, 0, &[6]), Via::Gossip, &mut effects);
        assert_eq!(node.me().incarnation, 1, "what was contradicted already is old");
    }

    #[test]
    fn an_earlier_run_elsewhere_is_no_twin_and_one_that_goes_on_is() {
        let mut node = node(3);
        let mut effects = Vec::new();
        let mut elsewhere = node.me().clone();
        elsewhere.addr = ([10, 9, 9, 9], 7946).into();
        let description = Description::of(&elsewhere);
        for (described, conflicts) in [(4, 0), (4, 0), (9, 1), (20, 1)] {
            let rumour = Rumour { id: NodeId(1), incarnation: described, status: Status::Alive, by: Vec::new() };
            let record = Record { rumour, described, age_s: 0, description: description.bytes() };
            node.introduce(&record, Via::Gossip, &mut effects);
            assert!(node.described > described, "ours supersedes it");
            let count = effects.iter().filter(|it| matches!(it, Effect::Conflict { .. })).count();
            assert_eq!(count, conflicts, "after {described}");
        }
    }

    #[test]
    fn the_long_gone_are_forgotten() {
        let mut node = node(3);
        node.declare_dead(NodeId(2), &mut Vec::new());
        node.now = node.now + node.config.forget_after;
        node.forget_the_long_gone();
        assert_eq!(node.table.iter().map(|(id, _)| id).collect::<Vec<_>>(), [NodeId(3)]);
    }
}
