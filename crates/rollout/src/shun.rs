//! Machines that are tried last, for a while: stars that end there again and again may do well on others.

use std::time::Duration;

use model::Time;

/// Failures in a row from which on others are tried first. One may be chance, and the next star is there soonest where the last one was.
const SHUNNED_FROM: u32 = 2;
/// Stars that end together, since what they need is away, are one failure of the machine.
const TOGETHER: Duration = Duration::from_secs(1);
/// Longer than a place waits for its next star.
const FIRST: Duration = Duration::from_secs(40);
const LONGEST: Duration = Duration::from_secs(600);
/// When it has been over for so long without a failure the next one is a first one again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// The failures of a service's stars on one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shun {
    failures: u32,
    last: Time,
    until: Time,
}

impl Shun {
    /// A star of the service ended there by itself, or could not be started.
    pub fn failed(&mut self, now: Time) {
        if self.failures == 0 || now.since(self.last) >= TOGETHER {
            self.count(now);
        }
    }

    /// A star of the service had to give way there. That is no chance: once is enough.
    pub fn evicted(&mut self, now: Time) {
        self.failed(now);
        self.until = self.until.max(now + FIRST);
    }

    fn count(&mut self, now: Time) {
        if now.since(self.until) >= FORGIVEN_AFTER {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.last = now;
        self.until = now + length(self.failures);
    }

    /// How often in a row stars failed there, while others are tried first.
    pub fn failures(&self, now: Time) -> Option<u32> {
        (now < self.until).then_some(self.failures)
    }
}

fn length(failures: u32) -> Duration {
    match failures.checked_sub(SHUNNED_FROM) {
        None => Duration::ZERO,
        // Beyond five doublings the bound holds.
        Some(more) => FIRST.saturating_mul(1 << more.min(5)).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_shunned_from_the_second_failure_on_and_longer_each_time() {
        let mut shun = Shun::default();
        let mut now = Time(0) + Duration::from_secs(1_000);
        for _ in 0..20 {
            shun.failed(now);
            now = now + Duration::from_millis(40);
        }
        assert_eq!(shun.failures(now), None, "they ended together");
        now = now + TOGETHER;
        for (failures, seconds) in [(2, 40), (3, 80), (4, 160), (5, 320), (6, 600), (7, 600)] {
            shun.failed(now);
            assert_eq!(shun.failures(now), Some(failures));
            now = now + Duration::from_secs(seconds);
            assert_eq!(shun.failures(now), None, "after {seconds} s");
            assert_eq!(shun.failures(Time(now.0 - 1)), Some(failures), "just before {seconds} s");
        }
        now = now + Duration::from_secs(59);
        shun.failed(now);
        assert_eq!(shun.failures(now), Some(8));
        now = now + Duration::from_secs(660);
        shun.failed(now);
        assert_eq!(shun.failures(now), None, "it is forgiven");
        shun.evicted(now);
        assert_eq!(shun.failures(now), Some(1), "it had to go");
    }
}
