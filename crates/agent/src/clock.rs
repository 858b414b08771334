//! The two clocks, read at the edge and handed inwards; the runtimes whose timers they set, and their beats.

use std::future::{Future, pending};
use std::io;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use model::{Time, WallTime, beat};
use net::Threads;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::lean;

/// When the beats of this process began: right before its runtimes' wheels of timers did.
static BEATS_FROM: OnceLock<Instant> = OnceLock::new();

/// The runtimes that last as long as the process, beside the one that [`runtime`] gives.
static LASTING: OnceLock<Lasting> = OnceLock::new();

struct Lasting {
    control: Handle,
    traffic: Runtime,
}

/// The runtime that [`crate::run`] wants, one for all agents of a process: of one thread, where the loop is and who asks it.
/// It gives back what memory they free. Beside it two others begin: see [`threads`].
///
/// # Errors
/// The system gives no thread, or no descriptor.
pub fn runtime() -> io::Result<Runtime> {
    BEATS_FROM.get_or_init(Instant::now);
    // All at once, so that their wheels turn with the beats: see `beat::EARLY`. The quicker one first.
    let control = LASTING.get().is_none().then(|| Builder::new_current_thread().enable_all().build());
    // What has nothing to do looks for something before it rests, and is woken so that it looks: of several threads that are
    // asked one short question after another most of the time goes there.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    if let Some(control) = control.transpose()? {
        let traffic = Builder::new_multi_thread().thread_name("traffic").enable_all().build()?;
        let handle = control.handle().clone();
        std::thread::Builder::new().name("control".to_owned()).spawn(move || control.block_on(pending::<()>()))?;
        let _ = LASTING.set(Lasting { control: handle, traffic });
    }
    runtime.spawn(lean::run());
    Ok(runtime)
}

/// Where a node's connections live. What it says to others all the time, the log's votes, heartbeats and entries, gossip, reports,
/// has one thread of its own: each of these wakes it, and not several that look for work, and waits for nothing else. What comes
/// in bulk or from strangers has as many as there are processors: see [`traffic`].
pub(crate) fn threads() -> Threads {
    let control = LASTING.get().map_or_else(Handle::current, |lasting| lasting.control.clone());
    Threads { control, data: traffic() }
}

/// Where what comes from outside is carried: requests of services, payloads, handshakes. They do not wait while the loop
/// thinks, nor the loop for them. In a process without [`runtime`] all of these are the same.
pub(crate) fn traffic() -> Handle {
    LASTING.get().map_or_else(Handle::current, |lasting| lasting.traffic.handle().clone())
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

    /// A beat that is no sooner than `time`, for a timer that can wait so long and is `set` for another now: that one, if it serves.
    pub(crate) fn beat(self, time: Time, set: tokio::time::Instant) -> tokio::time::Instant {
        let due = self.instant(time);
        // A timer is set a moment before its beat.
        if (due..due + beat::LONG).contains(&(set + beat::EARLY)) {
            return set;
        }
        let (began, now) = (beats_from(), Instant::now());
        let rest = due.into_std().saturating_duration_since(now);
        (now + beat::later(now.saturating_duration_since(began), rest)).into()
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
        let over = tokio::time::Instant::now();
        for millis in 100..2_000 {
            let (instant, beat) = (clock.instant(due(millis)), clock.beat(due(millis), over));
            let waits = beat.duration_since(instant);
            assert!(waits < beat::LONG, "{millis} ms waits {waits:?}");
            assert!(step(beat) >= step(instant), "{millis} ms");
            assert_eq!(step(beat) % 64, 0, "{millis} ms");
            steps.push(step(beat));
        }
        steps.dedup();
        assert!((10..=14).contains(&steps.len()), "{steps:?}");
    }

    #[test]
    fn a_timer_that_serves_stays_set() {
        let clock = Clock::start();
        let due = |millis: u64| Time::ZERO + Duration::from_millis(millis);
        let set = clock.beat(due(1_000), tokio::time::Instant::now());
        for sooner in 0..10 {
            assert_eq!(clock.beat(due(1_000 - sooner), set), set);
        }
        assert_ne!(clock.beat(due(2_000), set), set);
        assert_ne!(clock.beat(due(600), set), set);
    }

    #[tokio::test]
    async fn work_that_ends_in_time_is_not_waited_for_longer() {
        assert_eq!(within(Duration::from_secs(600), async { 1 }).await, Some(1));
        assert_eq!(within(Duration::from_millis(1), std::future::pending::<u8>()).await, None);
    }
}
