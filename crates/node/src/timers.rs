//! What falls due when: one deadline a key, the earliest found at once.

use std::collections::{BTreeMap, BTreeSet};

use model::{ServiceKey, StarId, Time};

/// What a deadline is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Probe the star.
    Probe(StarId),
    /// Ask whether it still lives.
    Live(StarId),
    /// The star should have become ready.
    Start(StarId),
    /// The star should have finished its requests.
    Drain(StarId),
    /// The star should have ended.
    Kill(StarId),
    /// The star has run for as long as it may.
    Deadline(StarId),
    /// Look how much memory the star uses.
    Balloon(StarId),
    /// Look how much memory the machine has left.
    Memory,
    /// A star of the service may start again, or a crash loop is over.
    Service(ServiceKey),
    /// A roll-out of the service is to be over, or a star of it settles.
    Rollout(ServiceKey),
    /// A run of the job is due.
    Job(ServiceKey),
    /// A reservation begins, or is over.
    Hold(ServiceKey),
    /// Open the entry point that could not be opened.
    Listen(ServiceKey),
    /// Write again what could not be written.
    Write,
    /// The nursery should have answered.
    Nursery,
    /// The lease of a machine may be over.
    Peers,
    /// A namespace may end, or is to be warned of.
    Namespaces,
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_time: BTreeSet<(Time, Timer)>,
    by_key: BTreeMap<Timer, Time>,
}

impl Timers {
    /// Sets the deadline of a key in place of the one it has.
    pub(crate) fn set(&mut self, timer: Timer, at: Time) {
        self.clear(&timer);
        self.by_key.insert(timer.clone(), at);
        self.by_time.insert((at, timer));
    }

    pub(crate) fn is_set(&self, timer: &Timer) -> bool {
        self.by_key.contains_key(timer)
    }

    pub(crate) fn clear(&mut self, timer: &Timer) {
        if let Some((timer, at)) = self.by_key.remove_entry(timer) {
            self.by_time.remove(&(at, timer));
        }
    }

    pub(crate) fn clear_star(&mut self, star: StarId) {
        self.clear_probes(star);
        for timer in [Timer::Drain(star), Timer::Kill(star), Timer::Deadline(star), Timer::Balloon(star)] {
            self.clear(&timer);
        }
    }

    /// Those that ask something of a star that runs.
    pub(crate) fn clear_probes(&mut self, star: StarId) {
        self.clear(&Timer::Probe(star));
        self.clear(&Timer::Live(star));
        self.clear(&Timer::Start(star));
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the earliest that is due.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<Timer> {
        let (at, _) = self.by_time.first()?;
        if *at > now {
            return None;
        }
        let (_, timer) = self.by_time.pop_first()?;
        self.by_key.remove(&timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_one_deadline_and_the_earliest_comes_first() {
        let mut timers = Timers::default();
        let (a, b) = (Timer::Probe(StarId(1)), Timer::Kill(StarId(1)));
        timers.set(a.clone(), Time(5));
        timers.set(b.clone(), Time(3));
        timers.set(a.clone(), Time(1));
        assert_eq!(timers.next(), Some(Time(1)));
        assert_eq!(timers.pop_due(Time(4)), Some(a));
        assert_eq!(timers.pop_due(Time(2)), None);
        timers.clear_star(StarId(1));
        assert_eq!(timers.next(), None);
    }
}
