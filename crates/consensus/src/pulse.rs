//! When openraft looks at its clock. By itself it does so five times in each heartbeat, on every voter, for ever, which was most of
//! what an idle one cost. Here it looks only while an election may be due, and a leader's heartbeats are asked for one by one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::Instant;
use openraft::alias::InstantOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::SerdeInstant;
use openraft::type_config::TypeConfigExt;
use tokio::sync::watch;

use crate::config::Config;
use crate::raft::{Raft, Types};
use crate::status::{Role, Standing};

/// When this voter last followed a leader's word, and a majority its own. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    last: Arc<Mutex<Option<InstantOf<Types>>>>,
    silence: watch::Sender<Silence>,
}

/// Why openraft is not believed in whom it names as leader: the last one it knew, or this voter itself, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Silence {
    /// No other leader's word is fresh: this voter was taken out while it was away, or is cut off.
    pub(crate) of_leader: bool,
    /// This voter leads, and no majority has said of late that it follows.
    pub(crate) of_followers: bool,
}

impl Silence {
    /// Nobody was heard yet.
    pub(crate) const AT_FIRST: Self = Self { of_leader: true, of_followers: false };
}

impl Heard {
    pub(crate) fn new() -> Self {
        Self { last: Arc::default(), silence: watch::Sender::new(Silence::AT_FIRST) }
    }

    /// A leader was heard and not refused: openraft has begun to wait for its next word anew.
    pub(crate) fn note(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Types::now());
        self.silence.send_if_modified(|silence| std::mem::replace(&mut silence.of_leader, false));
    }

    pub(crate) fn silence(&self) -> watch::Receiver<Silence> {
        self.silence.subscribe()
    }

    fn ago(&self) -> Option<Duration> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).map(|heard| heard.elapsed())
    }

    /// Looks at the clock. `followed`: how long ago a majority was heard, on a leader that needs one.
    fn judge(&self, followed: Option<Duration>, config: &Config) {
        let long = 2 * config.election_max;
        let now = Silence {
            of_leader: self.ago().is_none_or(|ago| ago >= long),
            of_followers: followed.is_some_and(|ago| ago >= long),
        };
        self.silence.send_if_modified(|silence| std::mem::replace(silence, now) != now);
    }
}

/// How long ago a majority followed this voter as leader, or it became that: nobody can have answered before. Nothing where it
/// does not lead, or none but itself has a vote.
fn followed(
    standing: &Standing,
    acked: Option<InstantOf<Types>>,
    led: &mut Option<(u64, InstantOf<Types>)>,
) -> Option<Duration> {
    if standing.role != Role::Leader || standing.voters.len() == 1 {
        *led = None;
        return None;
    }
    if led.is_none_or(|(term, _)| term != standing.term) {
        *led = Some((standing.term, Types::now()));
    }
    let (_, since) = (*led)?;
    Some(acked.map_or(since, |acked| acked.max(since)).elapsed())
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
    let mut led = None;
    loop {
        let now = standing.borrow_and_update().clone();
        if now.role == Role::Stopped {
            return;
        }
        let acked = raft.metrics().borrow_watched().last_quorum_acked;
        let followed = followed(&now, acked.map(SerdeInstant::into_inner), &mut led);
        heard.judge(followed, &config);
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
                Some(rest) => Types::sleep(config.rest(rest)).await,
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
            agreed: Arc::default(),
        };
        let check = |role, voters, heard: Option<u64>, expected| {
            assert_eq!(need(&standing(role, voters), heard.map(Duration::from_millis), &config), expected);
        };
        check(Role::Leader, 1, None, Need::Nothing);
        check(Role::Leader, 3, None, Need::Heartbeat(config.heartbeat));
        check(Role::Follower, 3, Some(100), Need::NothingFor(config.election_max - Duration::from_millis(100)));
        check(Role::Learner, 3, Some(0), Need::NothingFor(config.election_max));
        // Its leader is silent, or it has never heard one.
        check(Role::Follower, 3, Some(480), Need::Ticks);
        check(Role::Follower, 3, None, Need::Ticks);
        check(Role::Candidate, 3, Some(5_000), Need::Ticks);
    }
}
