//! What a voter knows of itself, to be looked at and waited for.

use std::collections::BTreeSet;

use model::{NodeId, Problem};
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::Fatal;
use openraft::metrics::RaftMetrics;
use tokio::sync::watch;

use crate::raft::{Raft, Types};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one that proposes.
    Leader,
    /// Asks to be leader.
    Candidate,
    /// Votes and follows.
    Follower,
    /// Follows without a vote: about to become a voter, or no voter any more.
    Learner,
    /// Ended.
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub role: Role,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    pub term: u64,
    /// Of the newest membership in the log, agreed on or not. While one set gives way to another, all of both.
    pub voters: BTreeSet<NodeId>,
    /// Those who follow without a vote.
    pub learners: BTreeSet<NodeId>,
    /// The entry that says so.
    pub members_at: u64,
    /// The last entry here, the last one known to be agreed on, the last one applied, the last one in a snapshot, and
    /// the last one dropped; 0 when there is none.
    pub last: u64,
    pub committed: u64,
    pub applied: u64,
    pub snapshot: u64,
    pub purged: u64,
    /// The disk has no room: nothing new is taken until it has.
    pub disk_full: bool,
    /// Why it ended, when it was not asked to.
    pub failed: Option<String>,
}

impl Status {
    fn new(metrics: &RaftMetrics<Types>, disk_full: bool) -> Self {
        let members = metrics.membership_config.membership();
        let failed = match &metrics.running_state {
            Ok(()) | Err(Fatal::Stopped) => None,
            Err(fatal) => Some(fatal.to_string()),
        };
        let role = match metrics.state {
            _ if metrics.running_state.is_err() => Role::Stopped,
            ServerState::Leader => Role::Leader,
            ServerState::Candidate => Role::Candidate,
            ServerState::Follower => Role::Follower,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Stopped,
        };
        Self {
            role,
            leader: metrics.current_leader.map(NodeId),
            term: metrics.current_term,
            voters: members.voter_ids().map(NodeId).collect(),
            learners: members.learner_ids().map(NodeId).collect(),
            members_at: metrics.membership_config.log_id().map_or(0, |id| id.index),
            last: metrics.last_log_index.unwrap_or(0),
            committed: metrics.cluster_committed.map_or(0, |id| id.index),
            applied: metrics.last_applied.map_or(0, |id| id.index),
            snapshot: metrics.snapshot.map_or(0, |id| id.index),
            purged: metrics.purged.map_or(0, |id| id.index),
            disk_full,
            failed,
        }
    }
}

/// Keeps a status up to date until openraft ends. `failed` is called when it ended by itself.
pub(crate) async fn follow(
    raft: Raft,
    mut disk_full: watch::Receiver<bool>,
    status: watch::Sender<Option<Status>>,
    failed: impl FnOnce(&Problem),
) {
    let mut metrics = raft.metrics();
    loop {
        let full = *disk_full.borrow_and_update();
        let now = Status::new(&metrics.borrow_watched(), full);
        let end = now.role == Role::Stopped;
        // A leader without followers has nobody to tell that it is there, and nothing to wait for.
        let alone = now.role == Role::Leader && now.voters.len() + now.learners.len() == 1;
        raft.runtime_config().tick(!alone);
        let why = now.failed.clone();
        status.send_if_modified(|status| {
            let changed = status.as_ref() != Some(&now);
            *status = Some(now);
            changed
        });
        if end {
            if let Some(why) = why {
                failed(&Problem::new(model::Code::Internal, format!("the shared log has ended: {why}")));
            }
            return;
        }
        let ended = tokio::select! {
            biased;
            changed = metrics.changed() => changed.is_err(),
            // The disk's thread ends after openraft does.
            changed = disk_full.changed() => changed.is_err(),
        };
        if ended {
            status.send_modify(|status| status.as_mut().into_iter().for_each(|status| status.role = Role::Stopped));
            return;
        }
    }
}

/// The status right after the start.
pub(crate) fn initial(raft: &Raft) -> Status {
    Status::new(&raft.metrics().borrow_watched(), false)
}
