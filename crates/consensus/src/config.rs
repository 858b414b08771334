//! What can be chosen about a voter.

use std::time::{Duration, Instant};

use model::{Code, NodeId, Problem, beat};

/// Times are those of a local network and a disk that syncs in milliseconds. Voters of one log should have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This voter. Must be the node the disk belongs to.
    pub me: NodeId,
    /// How often the leader says that it is there, and how soon it expects an answer: most of what an idle one costs. A voter that
    /// hears of none looks at its clock five times in each. 10 ms to 10 s.
    pub heartbeat: Duration,
    /// A voter that has not heard from a leader for `election_max`, and then a time between these two that chance decides,
    /// asks to be leader itself. Shorter finds a dead leader sooner and mistakes a slow machine for a dead one more often. Each
    /// is longer than a heartbeat, both together are at least four; the gap keeps two from asking at once.
    pub election_min: Duration,
    pub election_max: Duration,
    /// Where the process's timers go off at beats, when those began: heartbeats leave and clocks are looked at on one of them
    /// then, up to [`beat::LONG`] sooner than they would.
    pub beats_from: Option<Instant>,
    /// A proposal or a read without an answer after this long ends with an error. Longer than an election takes.
    pub answer_within: Duration,
    /// A new voter must have caught up within this long.
    pub catch_up_within: Duration,
    /// A snapshot replaces the log when what it would replace is at least this many bytes, and at least as large as the
    /// snapshot before. The log is in memory too, so this bounds both.
    pub compact_bytes: u64,
    /// This much of the log stays behind a snapshot, for voters that are only a little behind.
    pub keep_bytes: u64,
    /// Snapshots travel in pieces of this size. 4 KiB to 8 MiB: RNP's bulk frames end at 16.
    pub piece_bytes: usize,
}

impl Config {
    pub fn new(me: NodeId) -> Self {
        Self {
            me,
            heartbeat: beat::LONG,
            election_min: Duration::from_millis(290),
            election_max: Duration::from_millis(480),
            beats_from: None,
            answer_within: Duration::from_secs(5),
            catch_up_within: Duration::from_secs(60),
            compact_bytes: 4 << 20,
            keep_bytes: 1 << 20,
            piece_bytes: 512 << 10,
        }
    }

    /// How long to sleep to wake in time for what is due after `rest`.
    pub(crate) fn rest(&self, rest: Duration) -> Duration {
        self.beats_from.map_or(rest, |began| beat::sooner(began.elapsed(), rest))
    }

    /// The same for openraft.
    pub(crate) fn raft(&self) -> Result<openraft::Config, Problem> {
        let range = |what: &str, fits: bool| match fits {
            true => Ok(()),
            false => Err(Problem::new(Code::InvalidValue, format!("`{what}` of the consensus is out of range"))),
        };
        range("heartbeat", (10..=10_000).contains(&self.heartbeat.as_millis()))?;
        range("election_max", self.election_max > self.election_min && self.election_max < Duration::from_secs(120))?;
        let patience = self.election_min + self.election_max;
        range("election_min", self.election_min > self.heartbeat && patience >= self.heartbeat * 4)?;
        range("answer_within", self.answer_within > self.election_max * 2)?;
        range("piece_bytes", (4 << 10..=8 << 20).contains(&self.piece_bytes))?;
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let config = openraft::Config {
            cluster_name: "constellation".to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            // Requests are bounded by bytes, where the log is read.
            max_payload_entries: 1024,
            // Both are decided in `compact`, by bytes.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            enable_pre_vote: Some(true),
            // A leader that hears from no majority falls silent, so that those who hear it can elect another: the shortest
            // time allowed.
            quorum_loss_probe_interval: Some(2 * millis(self.election_max)),
            // How far the log is agreed on is noted lazily. A leader that comes back may therefore not know what it had
            // applied; an election tells it.
            enable_leader_restore: Some(false),
            backoff: "20ms 50ms 100ms 200ms ..1s".to_owned(),
            ..openraft::Config::default()
        };
        config.validate().map_err(|error| Problem::new(Code::InvalidValue, format!("consensus: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range_and_nonsense_is_named() {
        let good = Config::new(NodeId(1));
        good.raft().unwrap();
        let check = |change: &dyn Fn(&mut Config), name: &str| {
            let mut config = good.clone();
            change(&mut config);
            let problem = config.raft().unwrap_err();
            assert!(problem.message.contains(name), "{problem}");
        };
        check(&|c| c.heartbeat = Duration::from_millis(1), "heartbeat");
        check(&|c| c.election_min = c.heartbeat, "election_min");
        check(&|c| c.election_max = c.election_min, "election_max");
        check(&|c| c.answer_within = c.election_max, "answer_within");
        check(&|c| c.piece_bytes = 1, "piece_bytes");
    }
}
