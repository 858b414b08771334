//! The shared log as the agent uses it: a change is written where the leader is.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use consensus::{Consensus, Refusal};
use model::{Code, Duty, NodeId, NodeRole, Problem, Standing};
use net::connection::Failure;
use net::{Purpose, Received};
use node::roster::{Health, MachineView};
use rnp::message::{Ping, StatePropose, StateProposed, StateReadAt, StateReadIndex};
use rnp::{ErrorCode, Fault, Message};
use state::Command;
use tokio::time::Instant;

use super::feed::{Feed, Keepers};
use super::patience::{Next, Patience};
use super::roads::{self, Roads};
use super::wire::encode;
use crate::control::Looker;
use crate::main_loop::Seen;

/// Longest wait for this node to hear what it knows to be in the log.
const HEAR_WITHIN: Duration = Duration::from_secs(10);
/// How long it is good to know that a majority follows: nodes report about every second, and a thousand of them ask.
const FOLLOWED_FOR: Duration = Duration::from_millis(250);
const NOTHING_WRITTEN: &str = "nothing was written; what runs keeps running. `rads c nodes` shows who is there, and who votes: if more than half of them \
                               are gone for good, `rads c recover` on one that is left";
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
    pub(crate) patience: Patience,
}

/// How a node goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goes {
    /// When others have what only it has.
    WhenItMay,
    /// Nobody talks to it any more.
    AtOnce,
}

/// How one attempt ended.
enum Attempt {
    Done(u64),
    /// Nothing was written, and it may go better elsewhere or later.
    Again(Problem),
    Failed(Problem),
}

/// Why a leader elsewhere gave no answer that was asked for.
enum Unanswered {
    /// It never heard of it.
    NotSent(Problem),
    Refused(Fault),
    /// It may have heard, and may have done it.
    Silent(Problem),
}

impl Shared {
    /// The same log, for who is ready to wait that long.
    pub(crate) fn with(&self, patience: Patience) -> Self {
        Self { patience, ..self.clone() }
    }

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
        let deadline = Instant::now() + self.patience.leader;
        let mut last = None;
        while Instant::now() < deadline {
            let leader = self.leader();
            let attempt = match leader {
                Some(leader) if leader == self.roads.me() => self.propose_here(command).await,
                Some(leader) => self.propose_there(leader, command, deadline).await,
                None => match self.left_out().await {
                    Some(problem) => Attempt::Failed(problem),
                    None => Attempt::Again(no_leader()),
                },
            };
            match attempt {
                Attempt::Done(index) => return Ok(index),
                Attempt::Failed(problem) => return Err(problem),
                Attempt::Again(problem) => last = Some(problem),
            }
            // Another leader is news; without any, the same one is asked again.
            let _ = tokio::time::timeout(PAUSE, self.until_other_leader(leader)).await;
        }
        Err(self.left_out().await.or(last).unwrap_or_else(no_leader))
    }

    /// What to tell who asks on a machine that is of the constellation no more, as far as that is known here: no leader will
    /// come for it.
    async fn left_out(&self) -> Option<Problem> {
        let me = self.roads.me();
        let left = move |node: &node::Node| node.state().nodes.get(&me).map(|own| own.standing) == Some(Standing::Left);
        let told = |message: &str, help: &str| Some(Problem::new(Code::Conflict, message).help(help));
        let endpoint = self.roads.endpoint();
        match (self.looker.look(left).await, endpoint.received()) {
            (Ok(true), _) => told(
                "this machine was removed from the constellation",
                "nothing was written; in some seconds its agent has forgotten the constellation, and `rads c join` joins anew",
            ),
            (_, Received::ShutOut) => told(
                "this machine was removed from the constellation, or its certificate was revoked",
                "nothing was written; once most controllers that answer have said so for some seconds its agent forgets the constellation, and `rads c join` joins anew",
            ),
            (_, Received::ByStrangers) if !endpoint.is_connected() => told(
                "those who are there show certificates of an authority that this machine does not know",
                "nothing was written; if another authority was made while it was away, `rads c remove` it on another node, and join \
                 anew with `rads c join` from an empty data folder (`--data-dir`)",
            ),
            _ => None,
        }
    }

    /// Refuses that a node goes with which the log would be lost.
    ///
    /// # Errors
    /// `Conflict` when it alone keeps the log and nobody can take it over; as [`Shared::read_index`].
    pub(crate) async fn check_log_stays(&self, node: NodeId, goes: Goes) -> Result<(), Problem> {
        let index = self.read_index().await?;
        self.applied(index).await.map_err(|problem| Problem { changed: false, ..problem })?;
        let voter = self.voter.as_ref().map(Consensus::status).filter(|now| now.leader.is_some());
        let agreed = voter.map_or_else(|| self.keepers().agreed, |now| now.agreed.iter().copied().collect());
        if agreed != [node] {
            return Ok(());
        }
        // Whom the leader would have vote: see `node::voters`.
        let can_vote = |view: &MachineView| {
            view.role == NodeRole::Controller && view.duty != Duty::Draining && view.facts.are_told()
        };
        let heirs = move |own: &node::Node| {
            let views = own.machine_views();
            views.iter().any(|view| view.id != node && view.health == Health::Alive && can_vote(view))
        };
        if goes == Goes::WhenItMay && self.looker.look(heirs).await? {
            return Ok(());
        }
        let name = self.name_of(node).await;
        let message = format!("node `{name}` alone keeps the log, which would be lost with it");
        let help = match goes {
            Goes::AtOnce => {
                "let more controllers join until three vote, or take it out with `rads c leave` there, which hands the log on"
            }
            Goes::WhenItMay => "let another controller join first, or come back, that can take the log over",
        };
        Err(Problem::new(Code::Conflict, message).help(help))
    }

    /// Waits until another leader, or none, is known here than this one.
    async fn until_other_leader(&self, than: Option<NodeId>) {
        let mut keepers = self.feed.keepers();
        let mut standing = self.voter.as_ref().map(Consensus::watch_standing);
        while self.leader() == than {
            let standing = async {
                match &mut standing {
                    Some(standing) => standing.changed().await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            let goes_on = tokio::select! {
                goes_on = standing => goes_on,
                changed = keepers.changed() => changed.is_ok(),
            };
            if !goes_on {
                return;
            }
        }
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
        let deadline = Instant::now() + self.patience.leader;
        let mut last = no_leader();
        while Instant::now() < deadline {
            let leader = self.leader();
            let asked = match leader {
                Some(leader) if leader == self.roads.me() => self.read_index_here().await,
                Some(leader) => self.read_index_there(leader, deadline).await,
                None => match self.left_out().await {
                    Some(problem) => return Err(problem),
                    None => Err(no_leader()),
                },
            };
            match asked {
                Ok(index) => return Ok(index),
                Err(problem) => last = problem,
            }
            let _ = tokio::time::timeout(PAUSE, self.until_other_leader(leader)).await;
        }
        Err(self.left_out().await.unwrap_or(last))
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
        let applied = tokio::time::timeout(HEAR_WITHIN, seen.wait_for(|seen| seen.index >= index)).await;
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
        match self.ask(leader, message.into(), deadline).await {
            Ok(Message::StateProposed(StateProposed { index })) => Attempt::Done(index),
            Ok(other) => {
                let problem = format!("`{}` is no answer to a change", other.kind().name());
                Attempt::Failed(Problem::new(Code::Internal, problem).after_changes())
            }
            Err(Unanswered::NotSent(problem)) => Attempt::Again(problem),
            Err(Unanswered::Refused(fault)) => match fault.code {
                ErrorCode::NotLeader => Attempt::Again(no_leader()),
                ErrorCode::Timeout => Attempt::Failed(roads::refused(&fault).after_changes()),
                _ => Attempt::Failed(roads::refused(&fault)),
            },
            Err(Unanswered::Silent(problem)) => {
                let message = format!("{}, so it may still take effect", problem.message);
                Attempt::Failed(Problem { message, ..problem }.after_changes())
            }
        }
    }

    /// Asks a leader elsewhere, until it is known by `deadline` whether it can be reached, and then for as long as it shows that
    /// it is there.
    async fn ask(&self, leader: NodeId, message: Message, deadline: Instant) -> Result<Message, Unanswered> {
        let reached = tokio::select! {
            biased;
            reached = self.roads.connection(leader, Purpose::Control) => reached.map_err(|problem| problem.message),
            // To one that leads no more nothing need be asked.
            () = self.until_other_leader(Some(leader)) => Err("another leads by now".to_owned()),
            () = tokio::time::sleep_until(deadline) => Err("it does not answer in time".to_owned()),
        };
        let connection = match reached {
            Ok(connection) => connection,
            Err(why) => return Err(Unanswered::NotSent(self.out_of_reach(leader, &why).await)),
        };
        let (began, mut shown) = (Instant::now(), Instant::now());
        let mut asked = pin!(connection.request(message, self.patience.answer));
        let failure = loop {
            match self.patience.next(began.elapsed(), shown.elapsed()) {
                Next::Wait(time) => tokio::select! {
                    biased;
                    answered = &mut asked => break answered,
                    () = tokio::time::sleep(time) => {}
                },
                Next::Doubt => tokio::select! {
                    biased;
                    answered = &mut asked => break answered,
                    shows = connection.request(Ping {}, self.patience.sign) => match shows {
                        Ok(_) => shown = Instant::now(),
                        Err(failure) => {
                            // Whoever asks next finds out whether another one leads there, and loses nothing.
                            connection.abort();
                            break Err(failure);
                        }
                    },
                },
                Next::GiveUp => break Err(Failure::Timeout),
            }
        };
        match failure {
            Ok(answer) => Ok(answer),
            Err(Failure::Refused(fault)) => Err(Unanswered::Refused(fault)),
            Err(Failure::NotSent(why)) => Err(Unanswered::NotSent(self.out_of_reach(leader, &why.to_string()).await)),
            Err(Failure::Timeout | Failure::Ended(_)) => {
                let message = format!("the leader, node `{}`, fell silent", self.name_of(leader).await);
                let problem = Problem::new(Code::Unavailable, message);
                Err(Unanswered::Silent(problem.help("`rads c nodes` shows who is there")))
            }
        }
    }

    async fn out_of_reach(&self, leader: NodeId, why: &str) -> Problem {
        let message = format!("the leader, node `{}`, cannot be reached: {why}", self.name_of(leader).await);
        Problem::new(Code::Unavailable, message).help(NOTHING_WRITTEN)
    }

    async fn name_of(&self, node: NodeId) -> String {
        let name = self.looker.look(move |own| own.state().nodes.get(&node).map(|record| record.name.to_string()));
        // The loop ends with the agent.
        name.await.ok().flatten().unwrap_or_else(|| node.to_string())
    }

    async fn read_index_here(&self) -> Result<u64, Problem> {
        let Some(voter) = &self.voter else { return Err(no_leader()) };
        voter.read_index().await.map_err(|refusal| match refusal {
            Refusal::NotLeader { .. } => no_leader(),
            Refusal::Refused(problem) | Refusal::Unknown(problem) => problem,
        })
    }

    async fn read_index_there(&self, leader: NodeId, deadline: Instant) -> Result<u64, Problem> {
        match self.ask(leader, StateReadIndex {}.into(), deadline).await {
            Ok(Message::StateReadAt(StateReadAt { index })) => Ok(index),
            Ok(other) => Err(Problem::new(Code::Internal, format!("`{}` is no answer", other.kind().name()))),
            Err(Unanswered::Refused(fault)) => Err(roads::refused(&fault)),
            Err(Unanswered::NotSent(problem) | Unanswered::Silent(problem)) => Err(problem),
        }
    }

    /// Who keeps the log, as far as is known here.
    pub(crate) fn keepers(&self) -> Keepers {
        self.feed.keepers().borrow().clone()
    }
}

fn no_leader() -> Problem {
    Problem::new(Code::Unavailable, "no leader is known: a majority of the voters may be out of reach")
        .help(NOTHING_WRITTEN)
}

#[cfg(test)]
mod tests;
