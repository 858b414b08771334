//! When to ask again. Only what is the same however often it is asked is asked again: see `Kind::may_repeat`.

use std::time::Duration;

/// Attempts in all, the first included.
pub const ATTEMPTS: u32 = 5;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const FACTOR: u32 = 3;
/// However many attempts there come to be, none is waited for longer.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Waits before each attempt: none, then 100, 300, 900 and 2700 ms.
#[derive(Debug, Clone, Default)]
pub struct Retry {
    made: u32,
}

impl Retry {
    /// How long to wait before the next attempt, at least `asked` (what the peer said); nothing when there is none left.
    pub fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        if self.made == ATTEMPTS {
            return None;
        }
        let wait = match self.made {
            0 => Duration::ZERO,
            made => (FIRST_WAIT * FACTOR.pow(made - 1)).min(WAIT_MAX),
        };
        self.made += 1;
        Some(wait.max(asked.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_attempts_wait_three_times_longer_each() {
        let mut retry = Retry::default();
        let waits: Vec<u128> = std::iter::from_fn(|| retry.next(None)).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [0, 100, 300, 900, 2_700]);
    }

    #[test]
    fn what_the_peer_says_is_the_least_that_is_waited() {
        let mut retry = Retry::default();
        retry.next(None);
        assert_eq!(retry.next(Some(Duration::from_secs(1))), Some(Duration::from_secs(1)));
        assert_eq!(retry.next(Some(Duration::from_millis(1))), Some(Duration::from_millis(300)));
    }
}
