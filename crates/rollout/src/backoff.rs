//! When to try again after a star ended by itself: at once the first time, then after 1, 2, 4 … 30 seconds.
//!
//! Kept for each place (ordinal) of a service, so that one star that fails does not hold up its siblings.

use std::time::Duration;

use model::Time;

const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// After a minute without a failure the next one is a first one again.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// Failures in a row after which a person should hear of it: the third comes about a second after the first, so that a
/// script that cannot work is told of while somebody is still looking.
pub const CRASH_LOOP_FAILURES: u32 = 3;

/// The failures of one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backoff {
    failures: u32,
    last: Time,
    not_before: Time,
}

impl Backoff {
    /// A star of this place ended by itself.
    pub fn failed(&mut self, now: Time) {
        if now.since(self.last) >= STABLE_AFTER {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.last = now;
        self.not_before = now + delay(self.failures);
    }

    /// When the next star of this place may start.
    pub fn not_before(&self) -> Time {
        self.not_before
    }

    /// It fails again and again.
    pub fn is_crash_loop(&self, now: Time) -> bool {
        self.failures >= CRASH_LOOP_FAILURES && now.since(self.last) < STABLE_AFTER
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }
}

fn delay(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        // Beyond five doublings the bound holds.
        n => FIRST_DELAY.saturating_mul(1 << (n - 2).min(5)).min(LONGEST_DELAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_from_nothing_to_half_a_minute_and_start_over_after_a_stable_minute() {
        let mut backoff = Backoff::default();
        let mut now = Time(0) + Duration::from_secs(1_000);
        let mut delays = Vec::new();
        for _ in 0..9 {
            backoff.failed(now);
            delays.push(backoff.not_before().since(now).as_secs());
            now = backoff.not_before();
        }
        assert_eq!(delays, [0, 1, 2, 4, 8, 16, 30, 30, 30]);
        assert!(backoff.is_crash_loop(now));
        now = now + Duration::from_secs(60);
        assert!(!backoff.is_crash_loop(now));
        backoff.failed(now);
        assert_eq!(backoff.not_before(), now);
    }
}
