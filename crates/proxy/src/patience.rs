//! How long a client may take over the head of a request, without a timer for every request.
//!
//! The HTTP library asks for a new timer whenever it begins to wait for a head. Registering one with the runtime costs a
//! system call each time, only to be thrown away microseconds later. Here the library gets a timer that merely notes its
//! deadline, and each connection has one real timer that looks at the note when it fires.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// The deadline of one connection, in milliseconds since `origin`; [`NONE`] while no head is awaited.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    origin: Instant,
    deadline: Arc<AtomicU64>,
}

const NONE: u64 = u64::MAX;

impl Patience {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now(), deadline: Arc::new(AtomicU64::new(NONE)) }
    }

    /// Ends when a deadline has passed. `allowed` is the time the library is told to allow: a deadline that is not
    /// noted yet cannot be nearer than that.
    pub(crate) async fn lost(&self, allowed: Duration) {
        let mut look_at = Instant::now() + allowed;
        loop {
            tokio::time::sleep_until(look_at.into()).await;
            let now = Instant::now();
            look_at = match self.deadline.load(Relaxed) {
                NONE => now + allowed,
                millis => self.origin + Duration::from_millis(millis),
            };
            if look_at <= now {
                return;
            }
        }
    }
}

impl Timer for Patience {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let millis = deadline.saturating_duration_since(self.origin).as_millis();
        self.deadline.store(u64::try_from(millis).unwrap_or(NONE), Relaxed);
        Box::pin(Note(Arc::clone(&self.deadline)))
    }
}

/// A timer that never fires; dropping it takes the note away.
struct Note(Arc<AtomicU64>);

impl Sleep for Note {}

impl Future for Note {
    type Output = ();
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.0.store(NONE, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_deadline_that_still_stands_is_missed() {
        // Looked at every millisecond, for long enough to be looked at several times.
        let lost = |patience: Patience, within| async move {
            tokio::time::timeout(within, patience.lost(Duration::from_millis(1))).await.is_ok()
        };
        let (long, short) = (Duration::from_secs(20), Duration::from_millis(30));
        let patience = Patience::new();
        let passed = patience.sleep_until(Instant::now());
        assert!(lost(patience.clone(), long).await);
        drop(passed);
        assert!(!lost(patience.clone(), short).await, "no head is awaited");
        let _far = patience.sleep_until(Instant::now() + long);
        assert!(!lost(patience.clone(), short).await, "the deadline is far");
    }
}
