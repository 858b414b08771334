//! When timers go off that can wait a little: together, at whole multiples of [`EVERY`] after one moment of the process. Each waking
//! of an idle processor costs as much as what is then done, so ten timers a second that go off one by one cost ten times what
//! they cost together.
//!
//! tokio's wheel of timers turns in steps of as much, from when its runtime was built: a timer in between wakes it twice, once
//! for the step and once for itself.

use std::time::Duration;

/// From one beat to the next.
pub const EVERY: Duration = Duration::from_millis(64);
/// What can wait longer goes off at one of the long beats, so far apart: a leader's heartbeats leave at each, so it is awake.
pub const LONG: Duration = Duration::from_millis(3 * 64);
/// A timer is set so much before its beat: reading the clock and setting it takes a moment, and the wheel rounds up to its
/// next millisecond.
pub const EARLY: Duration = Duration::from_micros(500);

/// How long to sleep to wake at the first beat that is no sooner than `rest` from now, which is `now` after the beats began: a long
/// one where `rest` is as long as they are apart.
pub fn later(now: Duration, rest: Duration) -> Duration {
    let every = if rest < LONG { EVERY } else { LONG };
    let at = now + rest;
    let past = since(at, every);
    let beat = if past.is_zero() { at } else { at - past + every };
    (beat - now).saturating_sub(EARLY)
}

/// How long to sleep to wake at the last long beat that is no later than `rest` from now, or else the last beat; when there is none
/// in between, for as long as asked.
pub fn sooner(now: Duration, rest: Duration) -> Duration {
    let at = now + rest;
    let beats = [LONG, EVERY].map(|every| at - since(at, every));
    let beat = beats.into_iter().find(|beat| *beat > now + 2 * EARLY);
    beat.map_or(rest, |beat| beat - now - EARLY)
}

/// How long the last of the beats so far apart is over.
fn since(at: Duration, every: Duration) -> Duration {
    // Less than one beat: it fits.
    Duration::from_nanos((at.as_nanos() % every.as_nanos()) as u64)
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
        assert_eq!(later(now, micros(191_999)), micros(59_000 + 3 * 64_000 - 500));
        // The long ones are at each third.
        assert_eq!(later(now, micros(192_000)), micros(59_000 + 5 * 64_000 - 500));
        assert_eq!(later(now, micros(187_000 + 192_000)), micros(59_000 + 5 * 64_000 - 500));
        assert_eq!(sooner(now, micros(186_999)), micros(59_000 + 64_000 - 500));
        assert_eq!(sooner(now, micros(192_000)), micros(59_000 + 2 * 64_000 - 500));
        assert_eq!(sooner(now, micros(192_000 + 150_000)), micros(59_000 + 2 * 64_000 - 500));
        // One heartbeat after the other leaves at a long beat.
        let mut at = micros(6 * 64_000 + 700);
        for beat in 3..100 {
            at += sooner(at, LONG) + micros(1_100);
            assert_eq!(at.as_micros() / LONG.as_micros(), beat, "at {at:?}");
            assert!(since(at, LONG) < micros(1_000), "at {at:?}");
        }
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
            let waits = if rest < 192_000 { 64_400 } else { 192_400 };
            assert!((now + rest..=now + rest + waits).contains(&fired), "case {case}");
            let sooner = sooner(micros(now), micros(rest));
            assert!(sooner <= micros(rest), "case {case}");
            assert!(sooner == micros(rest) || fires(sooner) % 64 == 0, "case {case}");
        }
    }
}
