//! How long an accused member has to contradict.

use std::time::Duration;

use model::{NodeId, Time};

use crate::wire::ACCUSERS_MAX;

#[derive(Debug, Clone)]
pub(crate) struct Suspicion {
    since: Time,
    by: Vec<NodeId>,
    pub(crate) deadline: Time,
    /// How often its end was put off to try for oneself.
    put_off: u8,
}

/// A node that has only heard of a suspicion tries for itself before it believes in a death, at most this often.
const PUT_OFF_MAX: u8 = 3;

impl Suspicion {
    pub(crate) fn new(now: Time, by: &[NodeId], span: Span) -> Self {
        let mut suspicion = Self { since: now, by: Vec::new(), deadline: now + span.longest, put_off: 0 };
        suspicion.hear(by, span);
        suspicion
    }

    pub(crate) fn accusers(&self) -> &[NodeId] {
        &self.by
    }

    /// Whether one of these had not accused yet. The deadline moves nearer with each that is new.
    pub(crate) fn hear(&mut self, by: &[NodeId], span: Span) -> bool {
        let before = self.by.len();
        for id in by {
            if self.by.len() < ACCUSERS_MAX && !self.by.contains(id) {
                self.by.push(*id);
            }
        }
        self.deadline = self.deadline.min(self.since + span.with(self.by.len().saturating_sub(1)));
        self.by.len() > before
    }

    /// Puts the end off to `until`; false when that was done often enough.
    pub(crate) fn put_off(&mut self, until: Time) -> bool {
        let may = self.put_off < PUT_OFF_MAX;
        if may {
            self.put_off += 1;
            self.deadline = until;
        }
        may
    }

    /// This node stood still for `lost`: the accused had that much less time to be heard.
    pub(crate) fn give_back(&mut self, lost: Duration) {
        self.since = self.since + lost;
        self.deadline = self.deadline + lost;
    }
}

/// The shortest and the longest time, and how many further accusers lead from one to the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) shortest: Duration,
    pub(crate) longest: Duration,
    confirmations: usize,
}

/// Of the period. From the first who knows to the last, news takes 0.2 s among 30 members, 0.3 s among 100 and 0.5 s among 1,000
/// (measured, ADR 0032); an accusation has to get there, and its contradiction back, with much of both lost.
const SHORTEST_LEAST_PERIODS: f64 = 2.0;
const SHORTEST_PERIODS_PER_DECADE: f64 = 0.9;
/// Lifeguard uses 6; a suspicion of one accuser lasts this many times the shortest.
const LONGEST_FACTOR: f64 = 4.0;

impl Span {
    /// In a cluster with `others` live members beside this one.
    pub(crate) fn of(period: Duration, others: usize, confirmations: usize) -> Self {
        let decades = (others.max(1) as f64).log10();
        let shortest = period.mul_f64((SHORTEST_PERIODS_PER_DECADE * decades).max(SHORTEST_LEAST_PERIODS));
        // The accused cannot accuse itself, and the first accuser is not a confirmation.
        let confirmations = confirmations.min(others.saturating_sub(1));
        Self { shortest, longest: shortest.mul_f64(LONGEST_FACTOR), confirmations }
    }

    /// Lifeguard's formula: the first confirmations count most.
    fn with(self, confirmed: usize) -> Duration {
        if self.confirmations == 0 {
            return self.longest;
        }
        let done = ((confirmed + 1) as f64).ln() / ((self.confirmations + 1) as f64).ln();
        self.longest - (self.longest - self.shortest).mul_f64(done.min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(1);

    #[test]
    fn each_accuser_makes_it_shorter_and_the_same_one_again_does_not() {
        let span = Span::of(PERIOD, 999, 2);
        let mut suspicion = Suspicion::new(Time::ZERO, &[NodeId(1)], span);
        let mut last = suspicion.deadline;
        assert_eq!(last, Time::ZERO + span.longest);
        assert!(!suspicion.hear(&[NodeId(1)], span));
        assert_eq!(suspicion.deadline, last);
        for accuser in [2, 3] {
            assert!(suspicion.hear(&[NodeId(accuser)], span));
            assert!(suspicion.deadline < last);
            last = suspicion.deadline;
        }
        assert_eq!(last, Time::ZERO + span.shortest);
    }

    #[test]
    fn it_lasts_longer_in_a_larger_cluster_and_where_nobody_can_confirm() {
        assert!(Span::of(PERIOD, 5_000, 2).shortest > Span::of(PERIOD, 999, 2).shortest);
        assert!(Span::of(PERIOD, 999, 2).shortest > Span::of(PERIOD, 99, 2).shortest);
        let alone = Span::of(PERIOD, 1, 2);
        assert_eq!(alone.with(0), alone.longest);
        // Two others: one may accuse, the other confirm.
        let pair = Span::of(PERIOD, 2, 2);
        assert_eq!((pair.with(0), pair.with(1)), (pair.longest, pair.shortest));
    }
}
