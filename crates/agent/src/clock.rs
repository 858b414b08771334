//! The two clocks, read at the edge and handed inwards.

use std::time::{Duration, Instant, SystemTime};

use model::{Time, WallTime};

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
}

pub(crate) fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
