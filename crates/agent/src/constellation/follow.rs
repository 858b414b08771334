//! Hearing the log from a voter, for a node that keeps no part of it: what comes is kept on the own disk before it is acted
//! on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::{Code, NodeId, Problem};
use net::Purpose;
use state::{Command, State};
use store::{EXIT_DISK_FAILED, Followed};
use tokio::sync::{mpsc, watch};

use super::feed::{Feed, Keepers};
use super::let_go;
use super::order::Order;
use super::roads::Roads;
use super::wire::{Follow, Reader, Told, encode};
use crate::control::Looker;

/// A voter says something every second; one that misses five is left for another.
const SILENCE: Duration = Duration::from_secs(5);
const OPEN_WITHIN: Duration = Duration::from_secs(3);
/// Between two rounds through all that could be asked.
const PAUSE: Duration = Duration::from_millis(200);
/// Commands written in one sync.
const BATCH_MAX: usize = 512;

/// One that follows.
pub(crate) struct Follower {
    pub(crate) roads: Roads,
    pub(crate) feed: Feed,
    /// Locked by the thread that writes it.
    pub(crate) followed: Arc<Mutex<Followed>>,
    /// The last command here.
    pub(crate) last: u64,
}

/// Why a follower has to stop where it is.
pub(crate) enum Halt {
    /// So much has happened that it was given a whole state, which is on the disk now.
    Replaced(Box<State>),
    /// This voter is of no use now.
    Lost(Problem),
}

impl Follower {
    /// Asks one voter after another until one gives its whole state: for a node that knows nothing yet. Nothing comes of it when
    /// most of those who let it in have let go of it.
    pub(crate) async fn first_state(&mut self, seeds: &[NodeId]) -> Result<Option<State>, Problem> {
        loop {
            for node in self.candidates() {
                match self.hear(node, None).await {
                    Halt::Replaced(state) => return Ok(Some(*state)),
                    Halt::Lost(problem) => tracing::debug!(%node, %problem, "the log is not to be heard there"),
                }
            }
            if let_go::is_by_those_there(&self.roads, seeds, OPEN_WITHIN).await {
                return Ok(None);
            }
            tracing::warn!("no controller tells the log; trying again");
            tokio::time::sleep(5 * PAUSE).await;
        }
    }

    /// Follows while `wanted`; ends when the node has to begin anew from the state that is on its disk now.
    pub(crate) async fn run(
        mut self,
        looker: Looker,
        order: Arc<Order>,
        mut wanted: watch::Receiver<bool>,
        again: mpsc::Sender<()>,
    ) {
        loop {
            if wanted.wait_for(|wanted| *wanted).await.is_err() {
                return;
            }
            if let Err(problem) = self.catch_up(&looker, &order).await {
                tracing::warn!(%problem, "what was heard of the log is not kept");
                tokio::time::sleep(5 * PAUSE).await;
                continue;
            }
            for node in self.candidates() {
                let heard = tokio::select! {
                    halt = self.hear(node, Some(&order)) => halt,
                    _ = wanted.wait_for(|wanted| !*wanted) => break,
                };
                match heard {
                    Halt::Replaced(_) => {
                        tracing::info!(
                            "too much has happened meanwhile: the agent begins anew from the state it was given"
                        );
                        // Asked once is enough.
                        let _ = again.try_send(());
                        return;
                    }
                    Halt::Lost(problem) => {
                        tracing::debug!(%node, %problem, "the log is no longer heard there");
                        self.feed.lose_keepers();
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What the own voter told meanwhile need not be heard again, but must not be missing in the copy.
    async fn catch_up(&mut self, looker: &Looker, order: &Order) -> Result<(), Problem> {
        if order.last() > self.last {
            let state = looker.look(|node| node.state().clone()).await?;
            self.replace(&state).await?;
        }
        Ok(())
    }

    /// Who may be asked: the voters first, in an order of this node's own, so that not all ask the same one.
    fn candidates(&self) -> Vec<NodeId> {
        let voters = self.feed.keepers().borrow().voters.clone();
        let me = self.roads.me();
        let mut nodes = self.roads.nodes();
        let turn =
            |node: &NodeId| node.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ me.0.wrapping_mul(0xd134_2543_de82_ef95);
        nodes.sort_by_key(|node| (!voters.contains(node), turn(node)));
        nodes
    }

    /// Follows one voter for as long as it goes.
    async fn hear(&mut self, node: NodeId, order: Option<&Order>) -> Halt {
        match self.try_hear(node, order).await {
            Ok(state) => Halt::Replaced(state),
            Err(problem) => Halt::Lost(problem),
        }
    }

    async fn try_hear(&mut self, node: NodeId, order: Option<&Order>) -> Result<Box<State>, Problem> {
        let body = encode(&Follow { after: self.last })?;
        let stream = self.roads.open(node, Purpose::Peer, "state.follow", body, OPEN_WITHIN).await?;
        let mut reader = Reader::new(stream);
        loop {
            let next = tokio::time::timeout(SILENCE, reader.next::<Told>()).await;
            let silent = |_| Problem::new(Code::Timeout, "it has fallen silent");
            let ended = || Problem::new(Code::Unavailable, "it tells no more");
            let mut next = Some(next.map_err(silent)??.ok_or_else(ended)?);
            let mut commands: Vec<(u64, Command)> = Vec::new();
            while let Some(told) = next.take() {
                match told {
                    Told::State(state) => {
                        if state.index <= self.last && self.last > 0 {
                            return Err(Problem::new(Code::Unavailable, "it is behind what is known here"));
                        }
                        self.replace(&state).await?;
                        return Ok(state);
                    }
                    Told::Command { index, command } => commands.push((index, command)),
                    Told::Mark { leader, voters, agreed, .. } => {
                        // One of the version before does not tell them apart.
                        let agreed = if agreed.is_empty() { voters.clone() } else { agreed };
                        self.feed.set_keepers(Keepers { leader, voters, agreed, at_first_hand: false });
                    }
                }
                if commands.len() < BATCH_MAX {
                    next = reader.take()?;
                }
            }
            self.keep_and_tell(commands, order).await?;
        }
    }

    async fn keep_and_tell(&mut self, commands: Vec<(u64, Command)>, order: Option<&Order>) -> Result<(), Problem> {
        if commands.is_empty() {
            return Ok(());
        }
        let commands = self.on_disk(move |followed| {
            let from = followed.last();
            let new: Vec<(u64, &Command)> =
                commands.iter().filter(|(index, _)| *index > from).map(|(index, command)| (*index, command)).collect();
            followed.append(&new).map(|()| commands)
        });
        for (index, command) in commands.await? {
            if let Some(order) = order {
                order.deliver(self.last, index, Arc::new(command), None).await;
            }
            self.last = index;
        }
        Ok(())
    }

    async fn replace(&mut self, state: &State) -> Result<(), Problem> {
        let state = state.clone();
        self.last = state.index;
        self.on_disk(move |followed| followed.replace(&state)).await
    }

    /// Does what blocks on the disk, on a thread for that. A disk that fails ends the process: what it acknowledged cannot be
    /// relied on.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Followed) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let followed = Arc::clone(&self.followed);
        let done = tokio::task::spawn_blocking(move || {
            let mut followed = followed.lock().unwrap_or_else(PoisonError::into_inner);
            let result = work(&mut followed);
            if let Err(problem) = &result
                && problem.code != Code::DiskFull
            {
                eprintln!("{problem}");
                std::process::exit(EXIT_DISK_FAILED)
            }
            result
        });
        done.await.map_err(|error| Problem::new(Code::Internal, error.to_string()))?
    }
}
