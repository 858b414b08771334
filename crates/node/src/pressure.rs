//! Memory that runs short on this machine: one star at a time gives way, before the kernel ends whatever it comes upon.
//!
//! Machines are overcommitted, stars without a limit grow, and what runs beside them grows too. As long as stars run, what
//! the machine has left is looked at, more often when it is little. Below [`low`] all stars are weighed and one is asked
//! to end: of those that a namespace has beyond its quota, then of the lowest priority, the one that uses most beyond what
//! is kept for it. Its service tries other machines
//! first, from then on.

use std::cmp::Reverse;
use std::time::Duration;

use model::{Bytes, Priority, StarId, StarPhase};

use crate::event::Effect;
use crate::node::{Local, Node, Step};
use crate::timers::Timer;

/// Between two looks while there is enough.
const EVERY: Duration = Duration::from_secs(5);
/// Between two looks while there is little.
const SOON: Duration = Duration::from_millis(500);
/// Little is less than so many times what is too little. What grows more slowly than by three times that in [`EVERY`] is
/// looked at soon before there is too little.
const LITTLE: u64 = 4;
/// A star that gives way has no longer than this, whatever its grace is: others wait for its memory.
pub(crate) const GRACE_MAX: Duration = Duration::from_secs(5);
const TOO_LITTLE: (u64, u64) = (64 << 20, 512 << 20);

/// Less than this must not be left: a fiftieth of the machine, from 64 to 512 MiB.
fn low(total: Bytes) -> Bytes {
    Bytes((total.0 / 50).clamp(TOO_LITTLE.0, TOO_LITTLE.1))
}

/// A star that may give way.
#[derive(Debug, Clone, Copy)]
struct Heavy {
    star: StarId,
    /// `None`: its namespace has it beyond its quota.
    priority: Option<Priority>,
    kept: Bytes,
    used: Bytes,
}

/// Who gives way. The youngest of several that weigh the same; nobody where the end of all of them would not help.
fn victim(low: Bytes, stars: &[Heavy]) -> Option<StarId> {
    let worth = Bytes(low.0 / 16);
    let all: u64 = stars.iter().map(|heavy| heavy.used.0).sum();
    let first = stars.iter().filter(|heavy| heavy.used >= worth || all >= low.0).min_by_key(|heavy| {
        let beyond = heavy.used.0.saturating_sub(heavy.kept.0);
        (heavy.used < worth, heavy.priority, Reverse((beyond, heavy.used, heavy.star)))
    });
    first.map(|heavy| heavy.star)
}

/// Whether stars are being weighed. That takes its time when memory is short, and meanwhile one may have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Weighing {
    #[default]
    No,
    Yes,
    /// What comes of it says nothing any more.
    Void,
}

impl Weighing {
    pub(crate) fn void(&mut self) {
        if *self == Self::Yes {
            *self = Self::Void;
        }
    }
}

fn may_give_way(local: &Local) -> bool {
    let runs = matches!(local.phase, StarPhase::Starting | StarPhase::Ready | StarPhase::Unready | StarPhase::Paused);
    runs && local.process.is_some()
}

impl Node {
    /// Begins to look, when a star runs here.
    pub(crate) fn await_memory(&mut self, step: &Step<'_>) {
        if self.config.memory.0 > 0 && !self.timers.is_set(&Timer::Memory) {
            self.timers.set(Timer::Memory, step.now + EVERY);
        }
    }

    /// It is time to look again. The next star that starts has it begin anew.
    pub(crate) fn look_at_memory(&mut self, step: &mut Step<'_>) {
        if self.nursery_up && self.stars.values().any(may_give_way) {
            self.timers.set(Timer::Memory, step.now + EVERY);
            step.effects.push(Effect::LookAtMemory);
        }
    }

    pub(crate) fn memory_left(&mut self, left: Bytes, step: &mut Step<'_>) {
        let low = low(self.config.memory);
        if left.0 / LITTLE < low.0 && self.timers.is_set(&Timer::Memory) {
            self.timers.set(Timer::Memory, step.now + SOON);
        }
        if left >= low {
            self.weighing.void();
        } else if self.weighing == Weighing::No && !self.somebody_gives_way() {
            let stars: Vec<StarId> =
                self.stars.iter().filter(|(_, local)| may_give_way(local)).map(|(star, _)| *star).collect();
            if !stars.is_empty() {
                self.weighing = Weighing::Yes;
                step.effects.push(Effect::Weigh { stars });
            }
        }
    }

    /// What each star uses, now that there is too little.
    pub(crate) fn weighed(&mut self, used: &[(StarId, Bytes)], step: &mut Step<'_>) {
        if std::mem::take(&mut self.weighing) != Weighing::Yes || self.somebody_gives_way() {
            return;
        }
        let services = used.iter().filter_map(|(star, _)| Some(&self.state.stars.get(star)?.service));
        let beyond = self.state.beyond_quotas(services);
        let heavy = used.iter().filter_map(|&(star, used)| {
            let record = self.state.stars.get(&star).filter(|_| self.stars.get(&star).is_some_and(may_give_way))?;
            let priority = self.state.services.get(&record.service)?.spec.placement.priority;
            let priority = (!beyond.contains(&star)).then_some(priority);
            Some(Heavy { star, priority, kept: record.template.reserve.memory, used })
        });
        if let Some(star) = victim(low(self.config.memory), &heavy.collect::<Vec<_>>()) {
            self.give_way(star, step);
        }
    }

    fn somebody_gives_way(&self) -> bool {
        self.stars.values().any(|local| local.gives_way && local.phase != StarPhase::Ended)
    }

    /// Its signal now and the kill after its grace; no hook, which would need memory. It keeps its place until it has ended,
    /// so that nobody looks for another before it is known why.
    fn give_way(&mut self, star: StarId, step: &mut Step<'_>) {
        let (Some(local), Some(record)) = (self.stars.get_mut(&star), self.state.stars.get(&star)) else { return };
        local.gives_way = true;
        local.failing = Some("it gives way: this machine has too little memory left".to_owned());
        self.timers.clear_probes(star);
        if local.phase == StarPhase::Ready {
            local.phase = StarPhase::Unready;
            self.log.moved(star, StarPhase::Unready, None, None);
            self.dirty.insert(local.service.clone());
        }
        if local.phase == StarPhase::Unready {
            let grace = Duration::from_millis(record.template.grace_ms.into()).min(GRACE_MAX);
            self.timers.set(Timer::Kill(star), step.now + grace);
            self.tell_to_stop(star, step);
        } else {
            // It has nothing to finish, or cannot hear.
            self.kill(star, step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_is_a_fiftieth_within_bounds() {
        for (total, expected) in [(512, 64), (4_096, 4_096 / 50), (24_576, 24_576 / 50), (1 << 20, 512)] {
            assert_eq!(low(Bytes::mib(total)).0 >> 20, expected, "of {total} MiB");
        }
    }

    #[test]
    fn priority_decides_then_what_is_used_beyond_what_is_kept() {
        // Priority, MiB kept and used of stars 1, 2, 3 …; who gives way when 64 MiB are too little.
        let check = |stars: &[(u8, u64, u64)], expected: Option<u64>| {
            let heavy: Vec<Heavy> = (1..)
                .zip(stars)
                .map(|(number, &(priority, kept, used))| Heavy {
                    star: StarId(number),
                    priority: Some(Priority(priority)),
                    kept: Bytes::mib(kept),
                    used: Bytes::mib(used),
                })
                .collect();
            assert_eq!(victim(Bytes::mib(64), &heavy), expected.map(StarId), "{stars:?}");
        };
        check(&[], None);
        check(&[(50, 0, 100), (50, 0, 300), (50, 0, 200)], Some(2));
        check(&[(60, 0, 900), (50, 0, 300), (70, 0, 200)], Some(2));
        // Who stays within what is kept goes after who does not.
        check(&[(50, 512, 500), (50, 64, 128)], Some(2));
        check(&[(50, 512, 500), (50, 512, 501)], Some(2));
        // The end of the least one would help nobody.
        check(&[(10, 0, 3), (50, 0, 300)], Some(2));
        check(&[(10, 0, 4), (50, 0, 300)], Some(1));
        check(&[(50, 0, 1), (10, 0, 2)], None);
        // Unless there are many of them.
        check(&[(50, 0, 3); 21], None);
        check(&[(50, 0, 3); 22], Some(22));
        // The younger one of two that are alike.
        check(&[(50, 0, 100), (50, 0, 100)], Some(2));
    }
}
