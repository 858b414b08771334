//! When openraft looks at its clock. By itself it does so five times in each heartbeat, on every voter, for ever, which was most of
//! what an idle one cost. Here it looks only while an election may be due, and a leader's heartbeats are asked for one by one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::Instant;
use openraft::alias::InstantOf;
use openraft::type_config::TypeConfigExt;
use tokio::sync::watch;

use crate::config::Config;
use crate::raft::{Raft, Types};
use crate::status::{Role, Standing};

/// When this voter last followed a leader's word. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    last: Arc<Mutex<Option<InstantOf<Types>>>>,
    silent: watch::Sender<bool>,
}

impl Heard {
    /// Nobody was heard yet.
    pub(crate) fn new() -> Self {
        Self { last: Arc::default(), silent: watch::Sender::new(true) }
    }

    /// A leader was heard and not refused: openraft has begun to wait for its next word anew.
    pub(crate) fn note(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Types::now());
        self.silent.send_if_modified(|silent| std::mem::replace(silent, false));
    }

    /// Whether no leader's word is fresh. openraft itself goes on naming the last one: a voter that was taken out while it was
    /// away, or that is cut off, would name it for ever.
    pub(crate) fn silence(&self) -> watch::Receiver<bool> {
        self.silent.subscribe()
    }

    fn ago(&self) -> Option<Duration> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).map(|heard| heard.elapsed())
    }

    /// Looks at the clock.
    fn judge(&self, config: &Config) {
        let silent = self.ago().is_none_or(|ago| ago >= 2 * config.election_max);
        self.silent.send_if_modified(|now| std::mem::replace(now, silent) != silent);
    }
}

/// What a voter needs of its clock.
#[derive(Debug, PartialEq, Eq)]
enum Need {
    /// Nothing, until its standing changes.
    Nothing,
    /// It is to say that it leads, and again after this long.
    Heartbeat(Duration),
    /// Nothing, for so long at least.
    NothingFor(Duration),
    /// Whatever openraft finds due.
    Ticks,
}

fn need(standing: &Standing, heard: Option<Duration>, config: &Config) -> Need {
    match (standing.role, heard) {
        // Without followers there is nobody to tell, and nothing to wait for.
        (Role::Leader, _) if standing.voters.len() + standing.learners.len() == 1 => Need::Nothing,
        (Role::Leader, _) => Need::Heartbeat(config.heartbeat),
        // As long as the leader's word holds, none of those who heard it asks to be leader, and then for `election_min` more.
        (_, Some(ago)) if ago < config.election_max => Need::NothingFor(config.election_max - ago),
        _ => Need::Ticks,
    }
}

/// Runs until openraft ends.
pub(crate) async fn run(raft: Raft, mut standing: watch::Receiver<Standing>, heard: Heard, config: Config) {
    loop {
        let now = standing.borrow_and_update().clone();
        if now.role == Role::Stopped {
            return;
        }
        heard.judge(&config);
        let need = need(&now, heard.ago(), &config);
        raft.runtime_config().tick(need == Need::Ticks);
        let rest = match need {
            Need::Nothing => None,
            Need::NothingFor(rest) => Some(rest),
            Need::Ticks => Some(config.heartbeat),
            Need::Heartbeat(rest) => match raft.trigger().heartbeat().await {
                Ok(()) => Some(rest),
                Err(_) => return,
            },
        };
        let rested = async {
            match rest {
                Some(rest) => Types::sleep(rest).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            biased;
            changed = standing.changed() => changed.is_err(),
            () = rested => false,
        };
        if ended {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::NodeId;

    #[test]
    fn the_clock_is_looked_at_only_when_something_may_be_due() {
        let config = Config::new(NodeId(1));
        let standing = |role, voters: u64| Standing {
            role,
            leader: None,
            term: 1,
            voters: Arc::new((1..=voters).map(NodeId).collect()),
            voters_next: None,
            learners: Arc::default(),
        };
        let check = |role, voters, heard: Option<u64>, expected| {
            assert_eq!(need(&standing(role, voters), heard.map(Duration::from_millis), &config), expected);
        };
        check(Role::Leader, 1, None, Need::Nothing);
        check(Role::Leader, 3, None, Need::Heartbeat(config.heartbeat));
        check(Role::Follower, 3, Some(100), Need::NothingFor(config.election_max - Duration::from_millis(100)));
        check(Role::Learner, 3, Some(0), Need::NothingFor(config.election_max));
        // Its leader is silent, or it has never heard one.
        check(Role::Follower, 3, Some(450), Need::Ticks);
        check(Role::Follower, 3, None, Need::Ticks);
        check(Role::Candidate, 3, Some(5_000), Need::Ticks);
    }
}
