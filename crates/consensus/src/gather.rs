//! Proposals on their way to openraft: what comes while others are agreed on waits for them, and then goes together.
//!
//! A round costs a commit on every voter's disk and a message to each and back, whether it carries one command or a hundred.
//! One client alone is answered as soon as without this: nothing is under way when it asks, and only a round of many is followed by one
//! that gathers for a moment.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use openraft::errors::Fatal;
use openraft::raft::WriteResult;
use openraft::type_config::TypeConfigExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::raft::{Raft, Sealed, Types};

/// Rounds under way at once.
const ROUNDS: usize = 2;
/// The next one goes when the last has come back, but where that takes this long, because the voters are far apart, beside it.
const ALONE_FOR: Duration = Duration::from_millis(10);
/// After a round of so many the next one gathers for a moment: as many will come again, and go together for the price of a few.
const MANY: usize = 16;
const GATHERS_FOR: Duration = Duration::from_millis(1);
/// Bytes of commands in one, so that the first of a burst does not wait for the last.
const ROUND_BYTES: usize = 512 << 10;

type Answer = oneshot::Sender<WriteResult<Types>>;
type Answered = BoxStream<'static, Result<WriteResult<Types>, Fatal<Types>>>;

/// From so many on those are dropped that nobody waits for.
const WAITING_MAX: usize = 4096;

struct Proposal {
    command: Sealed,
    answer: Answer,
}

/// Takes proposals. Clones take them to the same rounds.
#[derive(Clone)]
pub(crate) struct Gatherer {
    raft: Raft,
    rounds: Arc<Semaphore>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    /// No more than [`crate::Consensus::propose`] lets in at once have somebody who waits for the answer.
    proposals: VecDeque<Proposal>,
    /// A task takes them away.
    attended: bool,
}

impl Gatherer {
    pub(crate) fn new(raft: Raft) -> Self {
        Self { raft, rounds: Arc::new(Semaphore::new(ROUNDS)), waiting: Arc::default() }
    }

    /// Proposes a command; `None` when the log has ended. Whoever stops waiting may have proposed it all the same.
    pub(crate) async fn propose(&self, command: Sealed) -> Option<WriteResult<Types>> {
        let (answer, answered) = oneshot::channel();
        let attended = {
            let mut waiting = self.waiting();
            if waiting.proposals.len() >= WAITING_MAX {
                waiting.proposals.retain(|proposal| !proposal.answer.is_closed());
            }
            waiting.proposals.push_back(Proposal { command, answer });
            std::mem::replace(&mut waiting.attended, true)
        };
        if !attended {
            // On the threads of those who propose: see `make_up_rounds`. It ends when nobody waits.
            drop(Types::spawn(make_up_rounds(Attendant { gatherer: self.clone(), is_done: false })));
        }
        answered.await.ok()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no panic while it is held")
    }

    /// What goes together next. Nothing when nobody waits: then the next proposal needs an attendant.
    fn take_round(&self) -> Option<(Vec<Sealed>, Vec<Answer>)> {
        let mut waiting = self.waiting();
        let (mut commands, mut answers, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < ROUND_BYTES
            && let Some(Proposal { command, answer }) = waiting.proposals.pop_front()
        {
            // Who has given up meanwhile does not want it any more.
            if !answer.is_closed() {
                bytes += command.0.len();
                commands.push(command);
                answers.push(answer);
            }
        }
        waiting.attended = !commands.is_empty();
        waiting.attended.then_some((commands, answers))
    }
}

impl fmt::Debug for Gatherer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gatherer").field("waiting", &self.waiting().proposals.len()).finish_non_exhaustive()
    }
}

/// Whoever makes up rounds. Should its task be ended before its work is, nobody is left waiting for it.
struct Attendant {
    gatherer: Gatherer,
    is_done: bool,
}

impl Drop for Attendant {
    fn drop(&mut self) {
        if !self.is_done {
            *self.gatherer.waiting() = Waiting::default();
        }
    }
}

async fn make_up_rounds(mut attendant: Attendant) {
    let gatherer = attendant.gatherer.clone();
    let (mut last, mut under_way) = (0, None::<oneshot::Receiver<()>>);
    loop {
        let Ok(round) = Arc::clone(&gatherer.rounds).acquire_owned().await else { return };
        if let Some(end) = under_way.take() {
            // It never says anything: it is over when who could is gone.
            let _ = Types::timeout(ALONE_FOR, end).await;
        }
        // Those on this thread who are about to propose do so first, and come along.
        tokio::task::yield_now().await;
        if last >= MANY {
            Types::sleep(GATHERS_FOR).await;
        }
        let Some((commands, answers)) = gatherer.take_round() else {
            attendant.is_done = true;
            return;
        };
        last = commands.len();
        let Ok(answered) = gatherer.raft.client_write_many(commands).await else { return };
        let (over, end) = oneshot::channel();
        under_way = Some(end);
        // Nobody waits for the task itself: it ends with openraft at the latest.
        drop(Types::spawn(hand_out((round, over), answers, answered)));
    }
}

/// Gives everybody in a round their answer.
async fn hand_out(round: (OwnedSemaphorePermit, oneshot::Sender<()>), answers: Vec<Answer>, mut answered: Answered) {
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
}
