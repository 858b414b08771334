//! Who votes, one change at a time, and who leads.

use std::collections::BTreeSet;

use model::{Code, NodeId};
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::type_config::TypeConfigExt;

use crate::raft::Types;
use crate::status::Role;
use crate::voter::{Consensus, Refusal, refused, unknown};

impl Consensus {
    /// Makes these the voters in one change, once those that are new have what the others have. Until it is done a majority
    /// of the old and one of the new ones is needed. Asked for what the voters give way to already, it finishes that. Only the leader
    /// can; one that is not among them hands its place on.
    ///
    /// # Errors
    /// `Timeout` when a new one has not caught up within [`crate::Config::catch_up_within`]; it follows without a vote then, and the same
    /// call may be repeated. `Conflict` while another change is under way. `InvalidValue` for none at all.
    pub async fn set_voters(&self, voters: &BTreeSet<NodeId>) -> Result<(), Refusal> {
        let _one = self.one_change()?;
        let now = self.status();
        if voters.is_empty() {
            return Err(refused(Code::InvalidValue, "a log needs a voter"));
        }
        // Who was to become a voter and is not wanted any more.
        let stray: BTreeSet<u64> = now.learners.difference(voters).map(|node| node.0).collect();
        if !stray.is_empty() {
            self.change(ChangeMembers::RemoveNodes(stray)).await?;
        }
        if *now.voters == *voters && now.voters_next.is_none() {
            return Ok(());
        }
        for new in voters.difference(&now.voters) {
            self.catch_up(*new).await?;
        }
        self.change(ChangeMembers::ReplaceAllVoters(voters.iter().map(|voter| voter.0).collect())).await
    }

    /// Hands the leader's place to a voter, the one that is furthest when none is named. Gives the new leader.
    pub async fn transfer_leadership(&self, to: Option<NodeId>) -> Result<NodeId, Refusal> {
        let (me, status) = (self.inner.config.me, self.status());
        if status.role != Role::Leader {
            return Err(Refusal::NotLeader { leader: status.leader });
        }
        let to = match to {
            Some(to) if to == me => return Ok(me),
            Some(to) if !status.voters.contains(&to) => {
                return Err(refused(Code::NotFound, format!("{to} is no voter")));
            }
            Some(to) => to,
            None => self.furthest().ok_or_else(|| refused(Code::NotFound, "there is no other voter"))?,
        };
        let triggered = self.inner.raft.trigger().transfer_leader(to.0).await;
        triggered.map_err(|error| refused(Code::Unavailable, error))?;
        // An election without its waiting time, and the news of it.
        let within = 3 * self.inner.config.election_max;
        let done =
            self.wait_for(within, |now| now.role != Role::Leader && now.leader.is_some_and(|now| now != me)).await;
        done.and_then(|now| now.leader)
            .ok_or_else(|| refused(Code::Timeout, format!("{to} has not become leader in time")))
    }

    fn furthest(&self) -> Option<NodeId> {
        let metrics = self.inner.raft.metrics();
        let now = metrics.borrow_watched();
        let others = now.membership_config.voter_ids().filter(|voter| *voter != now.id);
        let reached = |voter: &u64| now.replication.as_ref().and_then(|all| all.get(voter).copied().flatten());
        others.max_by_key(reached).map(NodeId)
    }

    fn one_change(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, Refusal> {
        let status = self.status();
        // It leads for a moment longer than it votes, and openraft would write its change without a right to.
        if status.role == Role::Leader && !status.voters.contains(&self.inner.config.me) {
            return Err(Refusal::NotLeader { leader: None });
        }
        self.inner.changing.try_lock().map_err(|_| refused(Code::Conflict, "the voters are being changed already"))
    }

    /// Lets a node follow, and waits until it has everything that was in the log when it began to.
    async fn catch_up(&self, node: NodeId) -> Result<(), Refusal> {
        let within = self.inner.config.catch_up_within;
        let raft = &self.inner.raft;
        let caught_up = async {
            let added = raft.add_learner(node.0, (), false).await.map_err(refusal)?;
            // openraft would wait itself, but takes a node it has never reached for one that is only a little behind.
            let mut metrics = raft.metrics();
            loop {
                match &metrics.borrow_watched().replication {
                    None => return Err(Refusal::NotLeader { leader: None }),
                    Some(all) if all.get(&node.0).copied().flatten() >= Some(added.log_id) => return Ok(()),
                    Some(_) => {}
                }
                metrics.changed().await.map_err(|_| refused(Code::Unavailable, "the shared log has ended"))?;
            }
        };
        match Types::timeout(within, caught_up).await {
            Ok(caught_up) => caught_up,
            Err(_) => Err(refused(Code::Timeout, format!("{node} has not caught up within {within:?}"))),
        }
    }

    async fn change(&self, change: ChangeMembers<u64, ()>) -> Result<(), Refusal> {
        let within = self.inner.config.answer_within;
        match Types::timeout(within, self.inner.raft.change_membership(change, false)).await {
            Ok(changed) => {
                let at = changed.map_err(refusal)?.log_id.index;
                // So that the status says it too, when this returns.
                self.wait_for(within, |now| now.members_at >= at || now.role == Role::Stopped).await;
                Ok(())
            }
            Err(_) => Err(unknown(Code::Timeout, "no majority of the voters has answered in time")),
        }
    }
}

fn refusal(error: RaftError<Types, ClientWriteError<Types>>) -> Refusal {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            Refusal::NotLeader { leader: forward.leader_id.map(NodeId) }
        }
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
            unknown(Code::Unavailable, "the leader changed while the voters were changed")
        }
        RaftError::APIError(error @ ClientWriteError::ChangeMembershipError(_)) => refused(Code::Conflict, error),
        RaftError::APIError(error) => refused(Code::Internal, error),
        RaftError::Fatal(error) => unknown(Code::Unavailable, error),
    }
}
