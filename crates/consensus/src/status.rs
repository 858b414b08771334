//! What a voter knows of itself, to be looked at and waited for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use model::{NodeId, Problem};
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::Fatal;
use openraft::metrics::{RaftDataMetrics, RaftMetrics};
use openraft::type_config::TypeConfigExt;
use tokio::sync::watch;

use crate::pulse::Silence;
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
    /// Who leads, as far as this node knows: it was heard within the last two election times, or is this node itself and was
    /// followed by a majority within them.
    pub leader: Option<NodeId>,
    pub term: u64,
    /// Of the newest membership in the log, agreed on or not. While one set gives way to another, all of both.
    pub voters: Arc<BTreeSet<NodeId>>,
    /// What they give way to, while they do: a majority of both sets is needed until then. A leader that dies meanwhile leaves
    /// it so, and the next one has to go on: see [`crate::Consensus::set_voters`].
    pub voters_next: Option<Arc<BTreeSet<NodeId>>>,
    /// Those who follow without a vote.
    pub learners: Arc<BTreeSet<NodeId>>,
    /// The entry that says so.
    pub members_at: u64,
    /// The voters as last agreed on, all of one set, as far as this node has heard. While they give way to others, they are those.
    pub agreed: Arc<BTreeSet<NodeId>>,
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

/// What of a status does not change with every command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub role: Role,
    pub leader: Option<NodeId>,
    pub term: u64,
    pub voters: Arc<BTreeSet<NodeId>>,
    pub voters_next: Option<Arc<BTreeSet<NodeId>>>,
    pub learners: Arc<BTreeSet<NodeId>>,
    pub agreed: Arc<BTreeSet<NodeId>>,
}

/// How often it is told that the log has grown. The rest is told at once.
const GROWS_EVERY: Duration = Duration::from_millis(5);

impl Status {
    pub fn standing(&self) -> Standing {
        Standing {
            role: self.role,
            leader: self.leader,
            term: self.term,
            voters: Arc::clone(&self.voters),
            voters_next: self.voters_next.clone(),
            learners: Arc::clone(&self.learners),
            agreed: Arc::clone(&self.agreed),
        }
    }

    /// How far its log has come.
    fn extent(&self) -> [u64; 5] {
        [self.last, self.committed, self.applied, self.snapshot, self.purged]
    }

    fn new(metrics: &RaftMetrics<Types>, disk_full: bool, silence: Silence) -> Self {
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
        let believed = match role {
            Role::Leader => !silence.of_followers,
            _ => !silence.of_leader,
        };
        let voters_next = match members.get_joint_config().as_slice() {
            [_, .., next] => Some(Arc::new(next.iter().copied().map(NodeId).collect())),
            _ => None,
        };
        // Of two sets it is the first that everybody has agreed on.
        let agreed = metrics.committed_membership_config.membership().get_joint_config();
        let agreed = agreed.first().into_iter().flatten().copied().map(NodeId).collect();
        Self {
            role,
            leader: metrics.current_leader.filter(|_| believed).map(NodeId),
            term: metrics.current_term,
            voters: Arc::new(members.voter_ids().map(NodeId).collect()),
            voters_next,
            learners: Arc::new(members.learner_ids().map(NodeId).collect()),
            members_at: metrics.membership_config.log_id().map_or(0, |id| id.index),
            agreed: Arc::new(agreed),
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

/// As [`Status::extent`].
fn extent(data: &RaftDataMetrics<Types>) -> [u64; 5] {
    [data.last_log, data.cluster_committed, data.last_applied, data.snapshot, data.purged]
        .map(|id| id.map_or(0, |id| id.index))
}

/// Keeps a status up to date until openraft ends. `failed` is called when it ended by itself.
pub(crate) async fn follow(
    raft: Raft,
    mut disk_full: watch::Receiver<bool>,
    mut silence: watch::Receiver<Silence>,
    (status, standing): (watch::Sender<Option<Status>>, watch::Sender<Standing>),
    failed: impl FnOnce(&Problem),
) {
    // All of them together would be told of each turn of openraft's loop, several in every heartbeat.
    let (metrics, mut server, mut data) = (raft.metrics(), raft.server_metrics(), raft.data_metrics());
    let mut ended = false;
    loop {
        let full = *disk_full.borrow_and_update();
        let silent = *silence.borrow_and_update();
        let mut now = Status::new(&metrics.borrow_watched(), full, silent);
        if ended {
            now.role = Role::Stopped;
        }
        let end = now.role == Role::Stopped;
        let why = now.failed.clone();
        let told = now.extent();
        let stands = now.standing();
        status.send_if_modified(|status| {
            let changed = status.as_ref() != Some(&now);
            *status = Some(now);
            changed
        });
        standing.send_if_modified(|standing| {
            let changed = *standing != stands;
            *standing = stands;
            changed
        });
        if end {
            if let Some(why) = why {
                failed(&Problem::new(model::Code::Internal, format!("the shared log has ended: {why}")));
            }
            return;
        }
        let next = Types::now() + GROWS_EVERY;
        let grown = async {
            // Every answer to a heartbeat is told as a change, too.
            while extent(&data.borrow_watched()) == told {
                if data.changed().await.is_err() {
                    return true;
                }
            }
            Types::sleep_until(next).await;
            false
        };
        ended = tokio::select! {
            biased;
            changed = server.changed() => changed.is_err(),
            ended = grown => ended,
            changed = silence.changed() => changed.is_err(),
            // The disk's thread ends after openraft does.
            changed = disk_full.changed() => changed.is_err(),
        };
    }
}

/// The status right after the start.
pub(crate) fn initial(raft: &Raft) -> Status {
    Status::new(&raft.metrics().borrow_watched(), false, Silence::AT_FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Members, StoredMembers, log_id};

    #[test]
    fn voters_are_agreed_on_once_a_majority_has_the_entry_that_makes_them_so() {
        let members = |sets: &[&[u64]], at: u64| {
            let sets = sets.iter().map(|set| set.iter().copied().collect()).collect();
            let members = Members::new(sets, std::collections::BTreeMap::from([(1, ()), (2, ()), (3, ())])).unwrap();
            Arc::new(StoredMembers::new(Some(log_id(1, at)), members))
        };
        let agreed = |committed: (&[&[u64]], u64), newest: (&[&[u64]], u64)| {
            let mut metrics = RaftMetrics::<Types>::new_initial(1);
            metrics.committed_membership_config = members(committed.0, committed.1);
            metrics.membership_config = members(newest.0, newest.1);
            let now = Status::new(&metrics, false, Silence::AT_FIRST);
            let voters = |voters: &BTreeSet<NodeId>| voters.iter().map(|voter| voter.0).collect::<Vec<u64>>();
            (voters(&now.agreed), voters(&now.voters))
        };
        let one: &[&[u64]] = &[&[1]];
        let both: &[&[u64]] = &[&[1], &[1, 2, 3]];
        let three: &[&[u64]] = &[&[1, 2, 3]];
        assert_eq!(agreed((one, 1), (one, 1)), (vec![1], vec![1]));
        assert_eq!(agreed((one, 1), (both, 5)), (vec![1], vec![1, 2, 3]));
        assert_eq!(agreed((both, 5), (three, 6)), (vec![1], vec![1, 2, 3]));
        assert_eq!(agreed((three, 6), (three, 6)), (vec![1, 2, 3], vec![1, 2, 3]));
    }
}
