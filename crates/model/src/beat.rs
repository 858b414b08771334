//! When timers go off that can wait a little: together, at whole multiples of [`EVERY`] after one moment of the process. Each waking
//! of an idle processor costs as much as what is then done, so ten timers a second that go off one by one cost ten times what
//! they cost together.
//!
//! tokio's wheel of timers turns in steps of as much, from when its runtime was built: a timer in between wakes it twice, once
//! for the step and once for itself.

use std::time::Duration;

/// From one beat to the next.
pub const EVERY: Duration = Duration::from_millis(64);
/// A timer is set so much before its beat: reading the clock and setting it takes a moment, and the wheel rounds up to its
/// next millisecond.
const EARLY: Duration = Duration::from_micros(500);

/// How long to sleep to wake at the first beat that is no sooner than `rest` from now, which is `now` after the beats began.
pub fn later(now: Duration, rest: Duration) -> Duration {
    let at = now + rest;
    let past = since_beat(at);
    let beat = if past.is_zero() { at } else { at - past + EVERY };
    (beat - now).saturating_sub(EARLY)
}

/// How long to sleep to wake at the last beat that is no later than `rest` from now; when there is none in between, for as long
/// as asked.
pub fn sooner(now: Duration, rest: Duration) -> Duration {
    let at = now + rest;
    let beat = at - since_beat(at);
    if beat <= now + 2 * EARLY { rest } else { beat - now - EARLY }
}

fn since_beat(at: Duration) -> Duration {
    // Less than one beat: it fits.
    Duration::from_nanos((at.as_nanos() % EVERY.as_nanos()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn a_timer_wakes_at_a_beat() {
        // Five milliseconds after the third beat.
        let now = micros(3 * 64_000 + 5_000);
        assert_eq!(later(now, micros(1_000)), micros(59_000 - 500));
        assert_eq!(later(now, micros(59_000)), micros(59_000 - 500));
        assert_eq!(later(now, micros(60_000)), micros(59_000 + 64_000 - 500));
        assert_eq!(sooner(now, micros(192_000)), micros(59_000 + 2 * 64_000 - 500));
        // None in between, or too near to be met.
        assert_eq!(sooner(now, micros(58_000)), micros(58_000));
        assert_eq!(sooner(micros(64_000 - 700), micros(30_000)), micros(30_000));
    }

    /// Where the wheel began a moment after the beats and rounds up to its milliseconds.
    #[test]
    fn on_the_wheel_it_is_a_whole_step() {
        for case in 0..100_000_u64 {
            let (now, rest, wheel, set) =
                (400 + case * 7_919, case * 104_729 % 10_000_000, case % 400, case / 400 % 400);
            let fires = |sleep: Duration| {
                let deadline = now + set + u64::try_from(sleep.as_micros()).unwrap();
                deadline.saturating_sub(wheel).div_ceil(1_000)
            };
            let tick = fires(later(micros(now), micros(rest)));
            assert_eq!(tick % 64, 0, "case {case}");
            let fired = tick * 1_000 + wheel;
            assert!((now + rest..=now + rest + 64_400).contains(&fired), "case {case}");
            let sooner = sooner(micros(now), micros(rest));
            assert!(sooner <= micros(rest), "case {case}");
            assert!(sooner == micros(rest) || fires(sooner) % 64 == 0, "case {case}");
        }
    }
}
