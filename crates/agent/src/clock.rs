//! The two clocks, read at the edge and handed inwards; the runtime whose timers they set, and its beats.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use model::{Time, WallTime, beat};
use tokio::runtime::Runtime;

use crate::lean;

/// When the beats of this process began: right before its runtime's wheel of timers did.
static BEATS_FROM: OnceLock<Instant> = OnceLock::new();

/// The runtime that [`crate::run`] wants, one for all agents of a process. It gives back what memory they free.
///
/// # Errors
/// The system gives no thread, or no descriptor.
pub fn runtime() -> io::Result<Runtime> {
    BEATS_FROM.get_or_init(Instant::now);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.spawn(lean::run());
    Ok(runtime)
}

/// In another runtime than that of [`runtime`] its timers meet no beat, which costs it more and nothing else.
pub(crate) fn beats_from() -> Instant {
    *BEATS_FROM.get_or_init(Instant::now)
}

/// Ends at the first beat after `time`: for what is looked at now and then.
pub(crate) async fn rest(time: Duration) {
    tokio::time::sleep(beat::later(beats_from().elapsed(), time)).await;
}

/// Whether `work` has ended by the first beat after `time`; what it gave, then.
pub(crate) async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        ended = &mut work => Some(ended),
        () = rest(time) => None,
    }
}

/// A monotonic clock whose origin is the agent's start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    pub(crate) fn now(self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    /// When `time` is, for a timer.
    pub(crate) fn instant(self, time: Time) -> tokio::time::Instant {
        (self.origin + time.since(Time::ZERO)).into()
    }

    /// The first beat that is no sooner than `time`, for a timer that can wait so long.
    pub(crate) fn beat(self, time: Time) -> tokio::time::Instant {
        let began = beats_from();
        let at = (self.origin + time.since(Time::ZERO)).saturating_duration_since(began);
        (began + at + beat::later(at, Duration::ZERO)).into()
    }
}

pub(crate) fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_between_two_beats_goes_off_at_the_second() {
        let clock = Clock::start();
        let due = |millis: u64| Time::ZERO + Duration::from_millis(millis);
        // As the wheel has it, which rounds up to its milliseconds.
        let step = |at: tokio::time::Instant| at.into_std().duration_since(beats_from()).as_micros().div_ceil(1_000);
        let mut steps = Vec::new();
        for millis in 0..640 {
            let (instant, beat) = (clock.instant(due(millis)), clock.beat(due(millis)));
            let waits = beat.duration_since(instant);
            assert!(waits < beat::EVERY, "{millis} ms waits {waits:?}");
            assert!(step(beat) >= step(instant), "{millis} ms");
            assert_eq!(step(beat) % 64, 0, "{millis} ms");
            steps.push(step(beat));
        }
        steps.dedup();
        assert!((10..=11).contains(&steps.len()), "{steps:?}");
    }

    #[tokio::test]
    async fn work_that_ends_in_time_is_not_waited_for_longer() {
        assert_eq!(within(Duration::from_secs(600), async { 1 }).await, Some(1));
        assert_eq!(within(Duration::from_millis(1), std::future::pending::<u8>()).await, None);
    }
}
