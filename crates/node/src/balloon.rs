//! A soft limit of memory that follows what a star uses: the kernel takes back what is idle above it, and the star has room to
//! grow.
//!
//! From time to time the working set of a star that asks for it is measured. What becomes of the limit is decided here, and
//! handed down as any other change of limits.

use std::time::Duration;

use model::{Bytes, Limits, StarId, StarPhase};

use crate::event::Effect;
use crate::node::{Node, Step};
use crate::timers::Timer;

/// Between two looks: long beside a request, short beside the time for which memory that nobody uses should lie about.
const EVERY: Duration = Duration::from_secs(5);
/// Room even the smallest star has.
const ROOM_MIN: u64 = 4 << 20;
/// Limits are whole so many bytes: smaller steps are not worth an order.
const STEP: u64 = 1 << 20;

/// The soft limit after a look at how much a star uses. `most` is all that it may use.
///
/// Nobody is to wait for memory, so it grows at once and by half when use comes near it, and shrinks by a quarter of the way to
/// what is enough: a fourth of what is used more than that.
pub(crate) fn follow(soft: Option<Bytes>, used: Bytes, most: Option<Bytes>) -> Bytes {
    let most = most.map_or(u64::MAX / 4, |most| most.0);
    let enough = used.0.saturating_add((used.0 / 4).max(ROOM_MIN));
    let next = match soft {
        None => enough,
        Some(Bytes(soft)) if used.0 + used.0 / 8 >= soft => enough.max(soft + soft / 2),
        // Not for the sake of a little.
        Some(Bytes(soft)) if enough + soft / 8 < soft => soft - (soft - enough) / 4,
        Some(Bytes(soft)) => soft,
    };
    let whole = next.div_ceil(STEP).saturating_mul(STEP);
    Bytes(whole.min(most).max(ROOM_MIN.min(most)))
}

impl Node {
    /// Begins to look at a star that asks for it, and lets go of one that does not any more.
    pub(crate) fn balloon(&mut self, star: StarId, step: &mut Step<'_>) {
        let (Some(local), Some(record)) = (self.stars.get_mut(&star), self.state.stars.get(&star)) else { return };
        let timer = Timer::Balloon(star);
        if !record.template.limits.balloon {
            local.soft = None;
            self.timers.clear(&timer);
        } else if !self.timers.is_set(&timer) {
            self.timers.set(timer, step.now + EVERY);
        }
    }

    /// It is time to look again.
    pub(crate) fn measure(&mut self, star: StarId, step: &mut Step<'_>) {
        let Some(local) = self.stars.get(&star) else { return };
        self.timers.set(Timer::Balloon(star), step.now + EVERY);
        if self.nursery_up && matches!(local.phase, StarPhase::Starting | StarPhase::Ready | StarPhase::Unready) {
            step.effects.push(Effect::Measure { star });
        }
    }

    pub(crate) fn measured(&mut self, star: StarId, used: Option<Bytes>, step: &mut Step<'_>) {
        let (Some(local), Some(record)) = (self.stars.get_mut(&star), self.state.stars.get(&star)) else { return };
        let limits = record.template.limits;
        let Some(used) = used.filter(|_| limits.balloon) else { return };
        local.soft = Some(follow(local.soft, used, limits.memory));
        self.fit(star, step);
    }
}

/// What a star may use whose soft limit is where it has been brought.
pub(crate) fn with_soft(limits: Limits, soft: Option<Bytes>) -> Limits {
    if limits.balloon { Limits { memory_soft: soft, ..limits } } else { limits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_follows_use() {
        // What is used, and where the limit is after each look, in MiB; 256 are all.
        let check = |samples: &[(u64, u64)]| {
            let mut soft = None;
            for (number, (used, expected)) in samples.iter().enumerate() {
                soft = Some(follow(soft, Bytes::mib(*used), Some(Bytes::mib(256))));
                assert_eq!(soft, Some(Bytes::mib(*expected)), "look {number} of {samples:?}");
            }
        };
        // A fourth more than is used, and at least four.
        check(&[(100, 125)]);
        check(&[(1, 5), (1, 5), (2, 5)]);
        // A little more or less moves nothing.
        check(&[(100, 125), (104, 125), (96, 125), (108, 125), (100, 125)]);
        // It grows at once, by half at least, and never beyond all there is.
        check(&[(100, 125), (115, 188), (180, 256), (256, 256), (300, 256)]);
        check(&[(10, 14), (13, 21), (200, 250)]);
        // It shrinks little by little, and grows again at once.
        check(&[(200, 250), (40, 200), (40, 163), (40, 135), (40, 114), (120, 171)]);
        check(&[(200, 250), (0, 189), (0, 143), (0, 109), (0, 83), (0, 64), (0, 49), (0, 38), (0, 30)]);
    }

    #[test]
    fn no_sample_leads_astray() {
        for used in [0, 1, u64::MAX / 8, u64::MAX / 2] {
            for most in [None, Some(Bytes(1)), Some(Bytes::mib(64)), Some(Bytes(u64::MAX))] {
                for soft in [None, Some(Bytes(0)), Some(Bytes::mib(4)), most] {
                    let Bytes(next) = follow(soft.map(|soft| Bytes(soft.0.min(1 << 62))), Bytes(used), most);
                    assert!(next > 0 && most.is_none_or(|most| next <= most.0), "{soft:?} {used} {most:?}: {next}");
                }
            }
        }
    }
}
