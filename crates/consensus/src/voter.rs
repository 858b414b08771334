//! The handle: start, propose, read, watch, end.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::{Code, NodeId, Problem};
use openraft::alias::InstantOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::type_config::TypeConfigExt;
use openraft::{Instant, ReadPolicy, ServerState};
use state::{Change, Command, State};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::config::Config;
use crate::disk::Disk;
use crate::flusher::{Flusher, OnFatal};
use crate::gather::Gatherer;
use crate::handle::Door;
use crate::log::{Log, Memory};
use crate::machine::{Applied, Machine};
use crate::network::Factory;
use crate::peers::Peers;
use crate::raft::{Raft, Sealed, Types};
use crate::runtime::{AbortHandle, Thread};
use crate::status::{self, Role, Standing, Status};
use crate::{compact, pulse, v1};

/// Applied commands that may wait for whoever listens; then applying waits, and with it every answer.
const APPLIED_MAX: usize = 1024;
/// Proposals that may wait for an answer. Beyond it they are refused at once: waiting longer would help nobody.
const PROPOSALS_MAX: usize = 4096;
/// A leader that a majority has not answered yet, as right after its election, is asked again after this long: a round of
/// heartbeats takes about as long.
const LEASE_RETRY: Duration = Duration::from_millis(2);

/// Between two looks at a leader that does not act as one yet.
const NOT_YET: Duration = Duration::from_millis(15);

type Moment = InstantOf<Types>;

/// A proposal that was agreed on and applied here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub index: u64,
    /// What it changed; a command that does not fit the state is among them as refused.
    pub changes: Vec<Change>,
}

/// Why a proposal or a read has no outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Ask the leader, if it is known. Nothing was written.
    NotLeader { leader: Option<NodeId> },
    /// Nothing was written.
    Refused(Problem),
    /// It may be written or not, now or later. Repeating it may do it twice.
    Unknown(Problem),
}

/// One voter, running. Clones are the same voter; it ends with [`Consensus::shutdown`], or when the last is dropped.
#[derive(Debug, Clone)]
pub struct Consensus {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub config: Config,
    pub raft: Raft,
    machine: Machine,
    flusher: Flusher,
    thread: Thread,
    door: Door,
    gatherer: Gatherer,
    status: watch::Receiver<Option<Status>>,
    standing: watch::Receiver<Standing>,
    proposals: Semaphore,
    /// Held while the voters change: one change at a time.
    pub changing: tokio::sync::Mutex<()>,
    tasks: Vec<AbortHandle>,
}

impl Consensus {
    /// Starts the voter that the disk belongs to, with what it has; a new disk waits to be told of by a leader, unless
    /// [`crate::found`] was called on it. The receiver gets the state and every command applied after it; it must be
    /// emptied all the time, never by a task that waits for a proposal of its own.
    ///
    /// `on_fatal` is called once when the disk cannot be relied on any more or a command cannot be applied. The process
    /// must end then: nothing is answered from there on.
    ///
    /// # Errors
    /// `DataCorrupt` when what is on the disk is no log, `DiskFull`, `InvalidValue` for the configuration.
    pub async fn start<P: Peers>(
        config: Config,
        mut disk: impl Disk,
        peers: P,
        on_fatal: impl FnOnce(&Problem) + Send + 'static,
    ) -> Result<(Self, mpsc::Receiver<Applied>), Problem> {
        let raft_config = Arc::new(config.raft()?);
        let on_fatal = Once::new(on_fatal);
        // Reading a log takes a moment, and blocks.
        let loaded = Types::spawn_blocking(move || disk.load().map(|stored| (Memory::read(&stored), disk)));
        let loaded = loaded.await.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        let (memory, disk) = loaded.map_err(|fault| fault.problem().clone())?;
        let memory = memory.map_err(|what| {
            Problem::new(Code::DataCorrupt, format!("the shared log is damaged: {what}"))
                .help("nothing was changed; restore a backup, or let this node join again under a new id")
        })?;
        let (flusher, thread) = Flusher::start(disk, on_fatal.boxed())?;
        let (applied, receiver) = mpsc::channel(APPLIED_MAX);
        let machine = Machine::new(flusher.clone(), applied);
        let log = Log::new(memory, flusher.clone());
        let factory = Factory::new(config.clone(), peers);
        let started = Raft::new(config.me.0, raft_config, factory, log.clone(), machine.clone()).await;
        let raft = started
            .map_err(|error| Problem::new(Code::Internal, format!("the shared log cannot be started: {error}")))?;
        machine.begin_to_tell();
        let heard = pulse::Heard::new();
        let silence = heard.silence();
        let (door, order) = Door::new(raft.clone(), flusher.clone(), heard.clone());
        let gatherer = Gatherer::new(raft.clone());
        let voters = began(&raft).await.map_err(|error| Problem::new(Code::Internal, error))?;
        let first = status::initial(&raft);
        let (standing_sender, standing) = watch::channel(first.standing());
        let (status_sender, status) = watch::channel(Some(first));
        let told = on_fatal.clone();
        let pulse = pulse::run(raft.clone(), standing.clone(), heard, config.clone());
        let following = (status_sender, standing_sender);
        let status_kept = status::follow(raft.clone(), flusher.full(), silence, following, move |why| told.call(why));
        let tasks = vec![
            Types::spawn(order).abort_handle(),
            Types::spawn(pulse).abort_handle(),
            Types::spawn(compact::run(raft.clone(), log, machine.clone(), config.clone())).abort_handle(),
            Types::spawn(status_kept).abort_handle(),
        ];
        if voters == [config.me.0] {
            // Nobody to wait for. A failure shows in the status.
            let _ = raft.trigger().elect(false).await;
        }
        let inner = Inner {
            config,
            raft,
            machine,
            flusher,
            thread,
            door,
            gatherer,
            status,
            standing,
            proposals: Semaphore::new(PROPOSALS_MAX),
            changing: tokio::sync::Mutex::default(),
            tasks,
        };
        Ok((Self { inner: Arc::new(inner) }, receiver))
    }

    /// Proposes a command, and waits until it is agreed on and applied here. Only the leader can.
    pub async fn propose(&self, command: &Command) -> Result<Outcome, Refusal> {
        let bytes = v1::encode(command).map_err(|error| refused(Code::Internal, error))?;
        if bytes.len() > v1::COMMAND_MAX {
            let message =
                format!("a command of {} KiB is larger than {} KiB", bytes.len() >> 10, v1::COMMAND_MAX >> 10);
            return Err(refused(Code::InvalidValue, message));
        }
        let Ok(_place) = self.inner.proposals.try_acquire() else {
            return Err(refused(Code::Unavailable, "too many changes wait to be agreed on"));
        };
        let deadline = Types::now() + self.inner.config.answer_within;
        let bytes = Sealed(bytes.into());
        loop {
            if self.inner.flusher.is_full() {
                let problem = Problem::new(Code::DiskFull, "the disk of the leader is full; nothing was written");
                return Err(Refusal::Refused(problem.help("free some space and try again; what runs keeps running")));
            }
            self.check_majority()?;
            let written = self.inner.gatherer.propose(bytes.clone());
            let forward = match self.while_majority(deadline, written).await {
                Err(why) => return Err(unknown(Code::Timeout, why)),
                Ok(Some(Ok(written))) => {
                    return Ok(Outcome { index: written.log_id.index, changes: written.response.changes });
                }
                Ok(Some(Err(ClientWriteError::ForwardToLeader(forward)))) => forward,
                Ok(Some(Err(ClientWriteError::LogEntryDiscarded(_)))) => {
                    return Err(unknown(Code::Unavailable, "the leader changed while the change was agreed on"));
                }
                Ok(Some(Err(error))) => return Err(refused(Code::Internal, error)),
                Ok(None) => return Err(unknown(Code::Unavailable, "the shared log has ended")),
            };
            self.leader_or_wait(&forward, deadline).await?;
        }
    }

    /// The index up to which commands must be applied to see everything that was answered for before this was called,
    /// anywhere. They are applied here; whoever keeps a state of its own must wait until it has come that far. Only the
    /// leader can, and only while a majority follows it.
    pub async fn read_index(&self) -> Result<u64, Refusal> {
        let deadline = Types::now() + self.inner.config.answer_within;
        let late = |_| refused(Code::Timeout, "no majority of the voters has answered in time");
        loop {
            self.check_majority()?;
            let asked = self.inner.raft.get_read_linearizer(ReadPolicy::ReadIndex);
            let forward = match Types::timeout_at(deadline, asked).await.map_err(late)? {
                Ok(linearizer) => {
                    let ready = Types::timeout_at(deadline, linearizer.await_ready(&self.inner.raft)).await;
                    ready.map_err(late)?.map_err(|error| refused(Code::Unavailable, error))?;
                    return Ok(self.inner.machine.index());
                }
                Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => forward,
                // On a busy machine a round of heartbeats may come back too late: that is no reason yet.
                Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => match Types::now() < deadline {
                    true => {
                        Types::sleep(LEASE_RETRY).await;
                        continue;
                    }
                    false => return Err(no_majority()),
                },
                Err(RaftError::Fatal(error)) => return Err(refused(Code::Unavailable, error)),
            };
            self.leader_or_wait(&forward, deadline).await?;
        }
    }

    /// Takes what another voter asks; `from` is who asks, as its certificate says. The request has its place among others of
    /// that voter when this returns, so call it in the order they arrived; the future is the answer to send back.
    pub fn handle(&self, from: NodeId, request: &[u8]) -> impl Future<Output = Vec<u8>> + Send + 'static {
        self.inner.door.handle(from, request)
    }

    /// The state here and now: what was applied, be it old. A copy is made of it if it is held while commands are applied.
    pub fn state(&self) -> Arc<State> {
        self.inner.machine.state()
    }

    /// Whether it asks to be leader when it hears of none; it does from its start on. One that knows from others that it is no
    /// voter any more need not.
    pub fn set_may_ask_for_votes(&self, may: bool) {
        self.inner.raft.runtime_config().elect(may);
    }

    /// The node this voter is.
    pub fn me(&self) -> NodeId {
        self.inner.config.me
    }

    pub fn status(&self) -> Status {
        self.inner.status.borrow().clone().unwrap_or_else(|| status::initial(&self.inner.raft))
    }

    /// Waits until the status is as wanted; `None` when it is not within the time.
    pub async fn wait_for(&self, within: Duration, mut wanted: impl FnMut(&Status) -> bool + Send) -> Option<Status> {
        let mut watch = self.inner.status.clone();
        let met = async {
            watch.wait_for(|now| now.as_ref().is_some_and(&mut wanted)).await.ok().and_then(|now| now.clone())
        };
        Types::timeout(within, met).await.ok().flatten()
    }

    /// Who leads and who votes, as far as is known here. Costs little, however much is written.
    pub fn standing(&self) -> Standing {
        self.inner.standing.borrow().clone()
    }

    /// Tells of every change of that.
    pub fn watch_standing(&self) -> watch::Receiver<Standing> {
        self.inner.standing.clone()
    }

    /// A moment at which, or after which, a majority followed this voter as their leader: the last that heartbeats and entries
    /// have shown, so asking costs them nothing. `None` when it does not lead, or nobody else has a vote.
    pub fn followed(&self) -> Option<std::time::Instant> {
        let metrics = self.inner.raft.metrics();
        let now = metrics.borrow_watched();
        let acked = now.last_quorum_acked.filter(|_| now.state == ServerState::Leader)?;
        // Read first, so that what passes in between makes it older, not newer.
        let clock = std::time::Instant::now();
        clock.checked_sub(acked.elapsed())
    }

    /// Tells of every change of the status, of the log's growth every few milliseconds; always holds one.
    pub fn watch(&self) -> watch::Receiver<Option<Status>> {
        self.inner.status.clone()
    }

    /// Ends this voter. A leader hands its place to the voter that is furthest, so that nobody has to notice its absence
    /// first. What was answered for is on the disk when this returns.
    pub async fn shutdown(&self) {
        if self.status().role == Role::Leader && self.status().voters.len() > 1 {
            // Without a successor the others elect one, a little later.
            let _ = self.transfer_leadership(None).await;
        }
        self.stop().await;
    }

    /// Ends this voter where it stands.
    pub async fn stop(&self) {
        // It ended by itself, then: the reason was told when it did.
        let _ = self.inner.raft.shutdown().await;
        let _ = self.wait_for(self.inner.config.election_max, |now| now.role == Role::Stopped).await;
        self.inner.tasks.iter().for_each(AbortHandle::abort);
        self.inner.flusher.stop().await;
        self.inner.thread.ended().await;
    }

    /// Waits for what a majority has to say, as long as one is heard.
    async fn while_majority<T>(&self, deadline: Moment, asked: impl Future<Output = T>) -> Result<T, &'static str> {
        let mut asked = pin!(asked);
        loop {
            let look = deadline.min(Types::now() + self.inner.config.election_max);
            let looking = Types::sleep_until(look);
            tokio::select! {
                biased;
                answered = &mut asked => return Ok(answered),
                () = looking => {}
            }
            if Types::now() >= deadline {
                return Err("no majority of the voters has answered in time");
            }
            if self.check_majority().is_err() {
                return Err("a majority of the voters has fallen silent");
            }
            // Its entries may yet be agreed on under the next leader, but nothing says when this voter hears of it.
            if !self.inner.raft.is_leader() {
                return Err("this voter is no longer the leader");
            }
        }
    }

    /// A leader that no majority answers must not take what it cannot get agreed on, nor answer a read.
    fn check_majority(&self) -> Result<(), Refusal> {
        let metrics = self.inner.raft.metrics();
        let now = metrics.borrow_watched();
        let is_silent = now.last_quorum_acked.is_some_and(|heard| heard.elapsed() > 2 * self.inner.config.election_max);
        match is_silent && now.membership_config.voter_ids().count() > 1 {
            true => Err(no_majority()),
            false => Ok(()),
        }
    }

    /// Names the leader, or waits a moment for one to be known: right after an election openraft may not say yet who won.
    async fn leader_or_wait(&self, forward: &ForwardToLeader<Types>, deadline: Moment) -> Result<(), Refusal> {
        let me = self.inner.config.me;
        if let Some(leader) = forward.leader_id.map(NodeId).filter(|leader| *leader != me) {
            return Err(Refusal::NotLeader { leader: Some(leader) });
        }
        let patience = (3 * self.inner.config.election_max).min(deadline.saturating_duration_since(Types::now()));
        let known = self.wait_for(patience, |now| now.leader.is_some() || now.role == Role::Stopped).await;
        match known.map(|now| (now.role, now.leader)) {
            // Known to be the leader, and not yet or no longer acting as one.
            Some((role, Some(leader))) if leader == me && role != Role::Stopped => {
                let acts = role == Role::Leader;
                Types::sleep(if acts { LEASE_RETRY } else { NOT_YET }).await;
                match Types::now() < deadline {
                    true => Ok(()),
                    false => Err(Refusal::NotLeader { leader: None }),
                }
            }
            Some((Role::Stopped, _)) => Err(refused(Code::Unavailable, "the shared log has ended")),
            Some((_, leader)) => Err(Refusal::NotLeader { leader }),
            None => Err(Refusal::NotLeader { leader: None }),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // They hold openraft, which ends when nobody does.
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Waits for openraft's loop to run and its metrics to say what it has. Gives the voters.
async fn began(raft: &Raft) -> Result<Vec<u64>, String> {
    let members = raft.with_raft_state(|state| state.membership_state.effective().clone()).await;
    let members = members.map_err(|error| error.to_string())?;
    let mut metrics = raft.metrics();
    while metrics.borrow_watched().membership_config.log_id() < members.log_id() {
        metrics.changed().await.map_err(|error| error.to_string())?;
    }
    Ok(members.voter_ids().collect())
}

pub(crate) fn refused(code: Code, why: impl ToString) -> Refusal {
    Refusal::Refused(Problem::new(code, why.to_string()))
}

pub(crate) fn unknown(code: Code, why: impl ToString) -> Refusal {
    let problem = Problem::new(code, format!("{}; it may still take effect", why.to_string()));
    Refusal::Unknown(problem.after_changes())
}

fn no_majority() -> Refusal {
    let problem = Problem::new(Code::Unavailable, "this voter does not hear from a majority of the others");
    Refusal::Refused(problem.help("nothing was written; what runs keeps running until they are back"))
}

/// Something to be called by whoever is first.
struct Once(Arc<Mutex<Option<OnFatal>>>);

impl Once {
    fn new(call: impl FnOnce(&Problem) + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(call)))))
    }

    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    fn call(&self, problem: &Problem) {
        let call = self.0.lock().expect("no panic while it is held").take();
        if let Some(call) = call {
            call(problem);
        }
    }

    fn boxed(&self) -> OnFatal {
        let this = self.clone();
        Box::new(move |problem| this.call(problem))
    }
}
