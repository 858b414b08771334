//! One order of commands out of two sources: the own voter's, and a voter's that is followed. Both tell the log in its order;
//! what one has told, the other does not tell again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use state::Command;
use tokio::sync::{Mutex, mpsc};

use crate::main_loop::Incoming;

pub(crate) struct Order {
    ask: mpsc::Sender<Incoming>,
    /// The index of the last command that was handed on. Held while one is, so that they stay in order.
    last: Mutex<u64>,
    /// The same, for those who do not wait.
    told: AtomicU64,
}

impl Order {
    /// Begins after the state that the loop begins with.
    pub(crate) fn new(ask: mpsc::Sender<Incoming>, index: u64) -> Self {
        Self { ask, last: Mutex::new(index), told: AtomicU64::new(index) }
    }

    /// The index of the last command that was handed on.
    pub(crate) fn last(&self) -> u64 {
        self.told.load(Ordering::Acquire)
    }

    /// Hands a command on, if it is the next: its source has told everything after `before`, so it is when everything up to
    /// there was handed on, and it was not itself.
    pub(crate) async fn deliver(&self, before: u64, index: u64, command: Arc<Command>, written: Option<Bytes>) {
        let mut last = self.last.lock().await;
        if !is_next(*last, before, index) {
            return;
        }
        // The loop ends with the agent.
        if self.ask.send(Incoming::Applied { index, command, written }).await.is_ok() {
            *last = index;
            self.told.store(index, Ordering::Release);
        }
    }
}

fn is_next(last: u64, before: u64, index: u64) -> bool {
    before <= last && last < index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_next_when_nothing_is_missing_before_it_and_it_was_not_told() {
        assert!(is_next(10, 10, 12));
        assert!(is_next(10, 8, 12));
        // Told already, by this source or the other.
        assert!(!is_next(12, 10, 12));
        assert!(!is_next(15, 10, 12));
        // The source has jumped over what the loop has not heard.
        assert!(!is_next(10, 11, 12));
    }

    #[tokio::test]
    async fn two_sources_make_one_order() {
        let (ask, mut asked) = mpsc::channel(16);
        let order = Order::new(ask, 3);
        let command = Arc::new(Command::Forget { stars: Vec::new() });
        // One is ahead, the other comes from behind and then overtakes.
        for (before, index) in [(3, 5), (2, 3), (3, 5), (5, 6), (5, 6), (8, 9), (6, 8), (9, 11), (8, 9), (9, 11)] {
            order.deliver(before, index, Arc::clone(&command), None).await;
        }
        drop(order);
        let mut told = Vec::new();
        while let Some(Incoming::Applied { index, .. }) = asked.recv().await {
            told.push(index);
        }
        assert_eq!(told, [5, 6, 8, 9, 11]);
    }
}
