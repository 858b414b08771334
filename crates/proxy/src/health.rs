//! Whether something could be reached lately: a star, or the machine it runs on. What could not is left out for a while by
//! everybody, so that a dead machine costs one attempt and not one for each request.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use balancer::left_out_for;

#[derive(Debug, Default)]
pub(crate) struct Health {
    /// When it answered last, in milliseconds after [`ORIGIN`]. Noted of machines alone.
    heard: AtomicU64,
    /// Whether there is anything to look at: the one thing that is read while all is well.
    failed: AtomicBool,
    doubt: Mutex<Doubt>,
}

/// An instant as a number that fits an atomic.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

fn millis(at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(*ORIGIN).as_millis()).unwrap_or(u64::MAX)
}

#[derive(Debug, Default)]
struct Doubt {
    /// In a row.
    failures: u32,
    until: Option<Instant>,
}

impl Health {
    /// Whether it is to be left out now.
    pub(crate) fn is_left_out(&self, now: impl FnOnce() -> Instant) -> bool {
        self.failed.load(SeqCst) && self.doubt().until.is_some_and(|until| now() < until)
    }

    /// It is about to be tried. If that is after a failure, others leave it out until it is known how this one ends.
    pub(crate) fn is_tried(&self, now: impl FnOnce() -> Instant) {
        if self.failed.load(SeqCst) {
            let mut doubt = self.doubt();
            doubt.until = Some(now() + left_out_for(doubt.failures));
        }
    }

    /// It answered.
    pub(crate) fn heard(&self, now: Instant) {
        self.heard.fetch_max(millis(now), Relaxed);
    }

    /// For how long it has said nothing.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        Duration::from_millis(millis(now).saturating_sub(self.heard.load(Relaxed)))
    }

    pub(crate) fn failed(&self, now: Instant) {
        let mut doubt = self.doubt();
        doubt.failures = doubt.failures.saturating_add(1);
        doubt.until = Some(now + left_out_for(doubt.failures));
        self.failed.store(true, SeqCst);
    }

    pub(crate) fn reached(&self) {
        if self.failed.load(SeqCst) {
            let mut doubt = self.doubt();
            *doubt = Doubt::default();
            self.failed.store(false, SeqCst);
        }
    }

    fn doubt(&self) -> MutexGuard<'_, Doubt> {
        self.doubt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_left_out_and_one_alone_finds_out_whether_it_is_back() {
        let (health, start) = (Health::default(), Instant::now());
        let at = |millis| move || start + Duration::from_millis(millis);
        assert!(!health.is_left_out(at(0)));
        health.is_tried(at(0));
        assert!(!health.is_left_out(at(0)), "while all is well a try is nothing to wait for");
        health.failed(start);
        assert!(health.is_left_out(at(999)));
        assert!(!health.is_left_out(at(1_000)));
        health.is_tried(at(1_000));
        assert!(health.is_left_out(at(1_000)), "somebody is finding out");
        health.failed(at(1_000)());
        assert!(health.is_left_out(at(2_999)) && !health.is_left_out(at(3_000)), "for longer the second time");
        health.reached();
        assert!(!health.is_left_out(at(2_000)));
        health.failed(start);
        assert!(!health.is_left_out(at(1_000)), "it begins anew");
    }

    #[test]
    fn silence_is_measured_from_the_last_word() {
        let (health, start) = (Health::default(), *ORIGIN);
        let at = |millis| start + Duration::from_millis(millis);
        health.heard(at(2_000));
        health.heard(at(1_000));
        assert_eq!(health.silence(at(2_500)), Duration::from_millis(500));
        assert_eq!(health.silence(at(1_500)), Duration::ZERO);
    }
}
