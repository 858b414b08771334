//! Proposals on their way to openraft: what comes while others are agreed on waits for them, and then goes together.
//!
//! A round costs a commit on every voter's disk and a message to each and back, whether it carries one command or a hundred.
//! One client alone is answered as soon as without this: nothing is under way when it asks, and only a round of many is followed by one
//! that gathers for a moment.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use openraft::errors::Fatal;
use openraft::raft::WriteResult;
use openraft::type_config::TypeConfigExt;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::raft::{Raft, Sealed, Types};

/// Rounds under way at once.
const ROUNDS: usize = 2;
/// The next one goes when the last has come back, or beside it when half of all wait, so that disks and processors both have something to
/// do; or when it takes this long, because the voters are far apart.
const ALONE_FOR: Duration = Duration::from_millis(10);
/// After a round of so many the next one gathers half of all for a moment: they will come again, and go together for the price of a few.
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
    /// As many wait as are waited for.
    enough: Arc<Notify>,
    /// Proposals that have no answer yet.
    unanswered: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Waiting {
    /// No more than [`crate::Consensus::propose`] lets in at once have somebody who waits for the answer.
    proposals: VecDeque<Proposal>,
    /// A task takes them away.
    attended: bool,
    /// It is told when so many wait.
    goal: Option<usize>,
    /// The most that had no answer at once, of late.
    peak: usize,
}

/// Counts as long as its proposal has no answer.
struct Unanswered(Arc<AtomicUsize>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Gatherer {
    pub(crate) fn new(raft: Raft) -> Self {
        let rounds = Arc::new(Semaphore::new(ROUNDS));
        Self { raft, rounds, waiting: Arc::default(), enough: Arc::default(), unanswered: Arc::default() }
    }

    /// Proposes a command; `None` when the log has ended. Whoever stops waiting may have proposed it all the same.
    pub(crate) async fn propose(&self, command: Sealed) -> Option<WriteResult<Types>> {
        let (answer, answered) = oneshot::channel();
        let unanswered = self.unanswered.fetch_add(1, Relaxed) + 1;
        let _counts = Unanswered(Arc::clone(&self.unanswered));
        let attended = {
            let mut waiting = self.waiting();
            if waiting.proposals.len() >= WAITING_MAX {
                waiting.proposals.retain(|proposal| !proposal.answer.is_closed());
            }
            waiting.proposals.push_back(Proposal { command, answer });
            waiting.peak = waiting.peak.max(unanswered);
            let count = waiting.proposals.len();
            if waiting.goal.take_if(|goal| count >= *goal).is_some() {
                self.enough.notify_one();
            }
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

    /// Until half of those wait who do when many propose.
    async fn enough(&self) {
        loop {
            {
                let mut waiting = self.waiting();
                let goal = (waiting.peak / 2).max(MANY);
                waiting.goal = Some(goal).filter(|goal| waiting.proposals.len() < *goal);
                if waiting.goal.is_none() {
                    return;
                }
            }
            // It may have been told of an earlier goal, when nobody waited for that any more.
            self.enough.notified().await;
        }
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
        waiting.peak -= waiting.peak / 16;
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
            let ready = async {
                tokio::select! {
                    biased;
                    // It never says anything: it is over when who could is gone.
                    _ = end => {}
                    () = gatherer.enough() => {}
                }
            };
            let _ = Types::timeout(ALONE_FOR, ready).await;
        }
        // Those on this thread who are about to propose do so first, and come along.
        tokio::task::yield_now().await;
        if last >= MANY {
            let _ = Types::timeout(GATHERS_FOR, gatherer.enough()).await;
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
