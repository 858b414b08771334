//! How often one may ask: a bucket that fills up with time.

use model::Time;

/// Asks a second, in the long run. A message costs one for each node it goes to.
const PER_SECOND: u64 = 200;
/// So many at once.
const AT_ONCE: u64 = 1_000;
const NANOS: u64 = 1_000_000_000;

/// Counts in billionths of an ask, so that nothing is lost in rounding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    left: u128,
    at: Time,
}

impl Pace {
    pub(crate) fn new(now: Time) -> Self {
        Self { left: u128::from(AT_ONCE) * u128::from(NANOS), at: now }
    }

    /// Takes so many, if they are there.
    pub(crate) fn take(&mut self, now: Time, asks: u64) -> bool {
        let passed = u64::try_from(now.since(self.at).as_nanos()).unwrap_or(u64::MAX);
        self.at = self.at.max(now);
        let full = u128::from(AT_ONCE) * u128::from(NANOS);
        self.left = full.min(self.left + u128::from(passed) * u128::from(PER_SECOND));
        // One that costs more than there ever is takes all there is.
        let cost = u128::from(asks.clamp(1, AT_ONCE)) * u128::from(NANOS);
        if self.left < cost {
            return false;
        }
        self.left -= cost;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_taken_and_then_so_many_a_second() {
        let start = Time(5);
        let mut pace = Pace::new(start);
        let taken = |pace: &mut Pace, now: Time| (0..5_000).filter(|_| pace.take(now, 1)).count() as u64;
        assert_eq!(taken(&mut pace, start), AT_ONCE);
        assert_eq!(taken(&mut pace, start), 0);
        assert_eq!(taken(&mut pace, start + Duration::from_secs(1)), PER_SECOND);
        assert_eq!(taken(&mut pace, start + Duration::from_secs(3600)), AT_ONCE);
        // However small the steps are.
        let mut now = start + Duration::from_secs(7200);
        taken(&mut pace, now);
        let mut slowly = 0;
        for _ in 0..1_000 {
            now = now + Duration::from_millis(1);
            slowly += taken(&mut pace, now);
        }
        assert_eq!(slowly, PER_SECOND);
        // Time that goes back gives nothing.
        assert!(!pace.take(start, 1));
    }

    #[test]
    fn what_goes_to_many_costs_as_much() {
        let mut pace = Pace::new(Time(0));
        assert!(pace.take(Time(0), 600) && !pace.take(Time(0), 600) && pace.take(Time(0), 400));
        assert!(pace.take(Time(0) + Duration::from_secs(3600), 1_000_000));
    }
}
