//! Proposals on their way to openraft: what comes while others are agreed on waits for them, and then goes together.
//!
//! A round costs a commit on every voter's disk and a message to each and back, whether it carries one command or a hundred.
//! Nobody waits while nothing is under way, so one client alone is answered as soon as without this.

use std::sync::Arc;

use futures_util::StreamExt;
use openraft::raft::WriteResult;
use openraft::type_config::TypeConfigExt;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::raft::{Raft, Sealed, Types};

/// Rounds under way at once: while one is on the disks, the next is made up.
const ROUNDS: usize = 2;
/// Bytes of commands in one, so that the first of a burst does not wait for the last.
const ROUND_BYTES: usize = 512 << 10;
/// Proposals that may wait here; there is a bound before this one.
const WAITING_MAX: usize = 4096;

struct Proposal {
    command: Sealed,
    answer: oneshot::Sender<WriteResult<Types>>,
}

/// Takes proposals. Clones take them to the same rounds.
#[derive(Debug, Clone)]
pub(crate) struct Gatherer {
    waiting: mpsc::Sender<Proposal>,
}

impl Gatherer {
    /// With the task that makes up the rounds; it ends with openraft, or when the last of these is gone.
    pub(crate) fn new(raft: Raft) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (waiting, proposals) = mpsc::channel(WAITING_MAX);
        (Self { waiting }, make_up_rounds(raft, proposals))
    }

    /// Proposes a command; `None` when the log has ended. Whoever stops waiting may have proposed it all the same.
    pub(crate) async fn propose(&self, command: Sealed) -> Option<WriteResult<Types>> {
        let (answer, answered) = oneshot::channel();
        self.waiting.send(Proposal { command, answer }).await.ok()?;
        answered.await.ok()
    }
}

async fn make_up_rounds(raft: Raft, mut waiting: mpsc::Receiver<Proposal>) {
    let rounds = Arc::new(Semaphore::new(ROUNDS));
    loop {
        let Ok(round) = Arc::clone(&rounds).acquire_owned().await else { return };
        let Some(first) = waiting.recv().await else { return };
        let (mut commands, mut answers, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut next = Some(first);
        while let Some(Proposal { command, answer }) = next.take() {
            // Who has given up meanwhile does not want it any more.
            if !answer.is_closed() {
                bytes += command.0.len();
                commands.push(command);
                answers.push(answer);
            }
            if bytes < ROUND_BYTES {
                next = waiting.try_recv().ok();
            }
        }
        if commands.is_empty() {
            continue;
        }
        let Ok(mut answered) = raft.client_write_many(commands).await else { return };
        // Nobody waits for the task itself: it ends with openraft at the latest.
        drop(Types::spawn(async move {
            let mut round = Some(round);
            for mut answer in answers {
                let result = loop {
                    tokio::select! {
                        biased;
                        result = answered.next() => break result,
                        // No majority answers: what is proposed after it must not wait for this one.
                        () = answer.closed(), if round.is_some() => round = None,
                    }
                };
                let Some(Ok(result)) = result else { return };
                let _ = answer.send(result);
            }
        }));
    }
}
