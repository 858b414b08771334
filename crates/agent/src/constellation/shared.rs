//! The shared log as the agent uses it: a change is written where the leader is.

use std::sync::Arc;
use std::time::Duration;

use consensus::{Consensus, Refusal};
use model::{Code, NodeId, NodeRole, Problem};
use net::Purpose;
use net::connection::Failure;
use net::pool::CallError;
use rnp::message::{StatePropose, StateProposed, StateReadAt, StateReadIndex};
use rnp::{ErrorCode, Fault, Message};
use state::Command;
use tokio::time::Instant;

use super::feed::{Feed, Keepers};
use super::roads::{self, Roads};
use super::wire::encode;
use crate::control::Looker;
use crate::main_loop::Seen;

/// Longest wait for a change to be written: an election and a slow disk fit into it.
const WITHIN: Duration = Duration::from_secs(10);
/// How long it is good to know that a majority follows: nodes report every second, and a thousand of them ask.
const FOLLOWED_FOR: Duration = Duration::from_millis(250);
/// Between two looks for a leader that is not known or does not take anything yet.
const PAUSE: Duration = Duration::from_millis(50);

/// Clones are the same log.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) voter: Option<Consensus>,
    pub(crate) roads: Roads,
    pub(crate) feed: Feed,
    pub(crate) looker: Looker,
    pub(crate) seen: tokio::sync::watch::Receiver<Seen>,
    /// When a majority was last known to follow this node.
    pub(crate) followed: Arc<tokio::sync::Mutex<Option<std::time::Instant>>>,
}

/// How one attempt ended.
enum Attempt {
    Done(u64),
    /// Nothing was written, and it may go better elsewhere or later.
    Again(Problem),
    Failed(Problem),
}

impl Shared {
    /// Writes a command; gives its index once it is agreed on. Whether it held shows in the state at that index.
    ///
    /// # Errors
    /// A problem marked `after_changes` when it may have been written, or may yet be.
    pub(crate) async fn propose(&self, command: &Command) -> Result<u64, Problem> {
        if command.is_plan() {
            // Who leads now may have planned otherwise.
            return match self.propose_here(command).await {
                Attempt::Done(index) => Ok(index),
                Attempt::Again(problem) | Attempt::Failed(problem) => Err(problem),
            };
        }
        let deadline = Instant::now() + WITHIN;
        let mut last = no_leader();
        while Instant::now() < deadline {
            let leader = self.leader();
            let attempt = match leader {
                Some(leader) if leader == self.roads.me() => self.propose_here(command).await,
                Some(leader) => self.propose_there(leader, command, deadline).await,
                None => Attempt::Again(no_leader()),
            };
            match attempt {
                Attempt::Done(index) => return Ok(index),
                Attempt::Failed(problem) => return Err(problem),
                Attempt::Again(problem) => last = problem,
            }
            let mut keepers = self.feed.keepers();
            // Another leader is news; without any, the same one is asked again.
            let _ = tokio::time::timeout(PAUSE, keepers.wait_for(|keepers| keepers.leader != leader)).await;
        }
        Err(last)
    }

    /// Who leads, as far as is known here.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        match self.voter.as_ref().map(Consensus::standing) {
            Some(now) if now.leader.is_some() && now.voters.contains(&self.roads.me()) => now.leader,
            _ => self.feed.keepers().borrow().leader,
        }
    }

    /// The index up to which a state must have come to show everything that was acknowledged by now, anywhere.
    ///
    /// # Errors
    /// When no leader can say so.
    pub(crate) async fn read_index(&self) -> Result<u64, Problem> {
        let deadline = Instant::now() + WITHIN;
        let mut last = no_leader();
        while Instant::now() < deadline {
            let leader = self.leader();
            let asked = match leader {
                Some(leader) if leader == self.roads.me() => self.read_index_here().await,
                Some(leader) => self.read_index_there(leader, deadline).await,
                None => Err(no_leader()),
            };
            match asked {
                Ok(index) => return Ok(index),
                Err(problem) => last = problem,
            }
            let mut keepers = self.feed.keepers();
            let _ = tokio::time::timeout(PAUSE, keepers.wait_for(|keepers| keepers.leader != leader)).await;
        }
        Err(last)
    }

    /// A moment at which, or after which, a majority followed this node as their leader: not long ago.
    ///
    /// # Errors
    /// When it does not lead, or no majority answers.
    pub(crate) async fn followed(&self) -> Result<std::time::Instant, Problem> {
        let heard = self.voter.as_ref().and_then(Consensus::followed);
        if let Some(at) = heard.filter(|at| at.elapsed() < FOLLOWED_FOR) {
            return Ok(at);
        }
        // One who asks answers for all who ask meanwhile.
        let mut known = self.followed.lock().await;
        if let Some(at) = known.filter(|at| at.elapsed() < FOLLOWED_FOR) {
            return Ok(at);
        }
        let began = std::time::Instant::now();
        self.read_index_here().await?;
        *known = Some(began);
        Ok(began)
    }

    /// Waits until the loop has applied everything up to an index.
    ///
    /// # Errors
    /// `Timeout`.
    pub(crate) async fn applied(&self, index: u64) -> Result<(), Problem> {
        let mut seen = self.seen.clone();
        let applied = tokio::time::timeout(WITHIN, seen.wait_for(|seen| seen.index >= index)).await;
        match applied {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Problem::new(Code::Timeout, "this node does not hear the log in time").after_changes()),
        }
    }

    /// What a look at the state shows once everything acknowledged by now is in it.
    ///
    /// # Errors
    /// When no leader can say how far that is.
    pub(crate) async fn look_now<T: Send + 'static>(
        &self,
        look: impl FnOnce(&state::State) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let index = self.read_index().await?;
        self.applied(index).await?;
        self.looker.look(|node| look(node.state())).await
    }

    /// Answers another node that asks for a change.
    pub(crate) async fn answer_propose(
        &self,
        from: NodeId,
        role: NodeRole,
        command: Command,
    ) -> Result<Message, Fault> {
        let checked = command.clone();
        let may = self.looker.look(move |node| node::rights::may_write(node.state(), from, role, &checked)).await;
        may.and_then(|may| may).map_err(|problem| roads::fault(&problem))?;
        match self.propose_here(&command).await {
            Attempt::Done(index) => Ok(StateProposed { index }.into()),
            Attempt::Again(problem) => Err(Fault::new(ErrorCode::NotLeader, problem.message)),
            Attempt::Failed(problem) if problem.changed => Err(Fault::new(ErrorCode::Timeout, problem.message)),
            Attempt::Failed(problem) => Err(roads::fault(&problem)),
        }
    }

    pub(crate) async fn answer_read_index(&self) -> Result<Message, Fault> {
        match self.read_index_here().await {
            Ok(index) => Ok(StateReadAt { index }.into()),
            Err(problem) => Err(Fault::new(ErrorCode::NotLeader, problem.message)),
        }
    }

    async fn propose_here(&self, command: &Command) -> Attempt {
        let Some(voter) = &self.voter else { return Attempt::Again(no_leader()) };
        match voter.propose(command).await {
            Ok(outcome) => Attempt::Done(outcome.index),
            Err(Refusal::NotLeader { .. }) => Attempt::Again(no_leader()),
            Err(Refusal::Refused(problem) | Refusal::Unknown(problem)) => Attempt::Failed(problem),
        }
    }

    async fn propose_there(&self, leader: NodeId, command: &Command, deadline: Instant) -> Attempt {
        let command = match encode(command) {
            Ok(command) => command,
            Err(problem) => return Attempt::Failed(problem),
        };
        let message = StatePropose { command, key: None };
        let within = deadline.saturating_duration_since(Instant::now());
        let asked = self.roads.call_once(leader, Purpose::Control, message, within).await;
        let error = match asked {
            Ok(Message::StateProposed(StateProposed { index })) => return Attempt::Done(index),
            Ok(other) => {
                let problem = format!("`{}` is no answer to a change", other.kind().name());
                return Attempt::Failed(Problem::new(Code::Internal, problem).after_changes());
            }
            Err(error) => error,
        };
        let problem = roads::problem(leader, &error);
        match &error {
            CallError::Request(Failure::Refused(fault)) => match fault.code {
                ErrorCode::NotLeader => Attempt::Again(no_leader()),
                ErrorCode::Timeout => Attempt::Failed(problem.after_changes()),
                _ => Attempt::Failed(problem),
            },
            error if error.was_not_sent() => Attempt::Again(problem),
            _ => {
                let message = format!("the leader fell silent, so it may still take effect: {}", problem.message);
                Attempt::Failed(Problem::new(Code::Unavailable, message).after_changes())
            }
        }
    }

    async fn read_index_here(&self) -> Result<u64, Problem> {
        let Some(voter) = &self.voter else { return Err(no_leader()) };
        voter.read_index().await.map_err(|refusal| match refusal {
            Refusal::NotLeader { .. } => no_leader(),
            Refusal::Refused(problem) | Refusal::Unknown(problem) => problem,
        })
    }

    async fn read_index_there(&self, leader: NodeId, deadline: Instant) -> Result<u64, Problem> {
        let within = deadline.saturating_duration_since(Instant::now()).min(Duration::from_secs(2));
        match self.roads.call_once(leader, Purpose::Control, StateReadIndex {}, within).await {
            Ok(Message::StateReadAt(StateReadAt { index })) => Ok(index),
            Ok(other) => Err(Problem::new(Code::Internal, format!("`{}` is no answer", other.kind().name()))),
            Err(error) => Err(roads::problem(leader, &error)),
        }
    }

    /// Who keeps the log, as far as is known here.
    pub(crate) fn keepers(&self) -> Keepers {
        self.feed.keepers().borrow().clone()
    }
}

fn no_leader() -> Problem {
    Problem::new(Code::Unavailable, "no leader is known: a majority of the voters may be out of reach")
        .help("nothing was written; what runs keeps running. `rads c nodes` shows who is there")
}
