//! A process of agents holds no more memory than they use.

use std::time::Duration;

use crate::clock;

/// By then what only its start needs is freed.
const STARTED: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(30);

/// Gives back what is free, now and then.
pub(crate) async fn run() {
    clock::rest(STARTED).await;
    loop {
        isolate::give_back();
        clock::rest(AGAIN).await;
    }
}
