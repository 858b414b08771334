//! What can be set. The defaults are for one local network or a few near ones, and for any size up to `members_max`; what depends on
//! the size scales by itself.

use std::time::Duration;

/// Defaults serve; times are stretched by [`crate::health`] when this node is slow itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// In this time each watched member is probed once, and a probe is judged. Must be several times the longest round trip: a
    /// shorter one finds deaths sooner and suspects more of the living. 200 ms to 60 s.
    pub period: Duration,
    /// How many members each node watches all the time: the next ones on a ring in the order of their hashed ids. So each member
    /// has as many watchers, and its death is seen within one period, however large the cluster. 1 to 8.
    pub watched: usize,
    /// How many others are asked to try when a member does not answer, each of two times. 1 to 8.
    pub helpers: usize,
    /// Accusers beyond the first after which a suspicion lasts its shortest time. Fewer than `watched`. 0 to 3.
    pub confirmations: usize,
    /// How often news is told while there is any. 50 ms to 5 s.
    pub gossip_every: Duration,
    /// To how many members news is told each time. 1 to 8.
    pub fanout: usize,
    /// How often tables are compared with another member's when nothing is new; much more often while something is. 1 s upwards.
    pub sync_every: Duration,
    /// How long the dead and those who left are remembered.
    pub forget_after: Duration,
    /// Most members known at once. One more is refused, and counted in [`crate::Counters::refused_members`].
    pub members_max: usize,
    /// How long a member that came back twice is held back as suspect; doubles with each further return. At most an hour.
    pub hold: Duration,
    /// Longest time for which a member is held back.
    pub hold_max: Duration,
    /// A return is forgiven after this time without another.
    pub forgive_after: Duration,
    pub protections: Protections,
}

/// What can be taken away in a test, to see that it is needed. All are on by default and nothing else sets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protections {
    /// Tables are compared, and differences exchanged, from time to time.
    pub anti_entropy: bool,
    /// A node that is slow, stopped or deaf doubts itself before it doubts others.
    pub local_health: bool,
    /// A node without live members looks for some.
    pub rejoin: bool,
    /// A member that comes and goes is held back.
    pub damping: bool,
    /// An accused member is given time to contradict, less when several accuse it.
    pub suspicion: bool,
    /// A death that is only heard of while comparing tables is a suspicion first.
    pub second_thoughts: bool,
}

impl Default for Protections {
    fn default() -> Self {
        Self {
            anti_entropy: true,
            local_health: true,
            rejoin: true,
            damping: true,
            suspicion: true,
            second_thoughts: true,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(1),
            watched: 4,
            helpers: 3,
            confirmations: 2,
            gossip_every: Duration::from_millis(200),
            fanout: 3,
            sync_every: Duration::from_secs(30),
            forget_after: Duration::from_secs(24 * 3600),
            members_max: 8_192,
            hold: Duration::from_secs(10),
            hold_max: Duration::from_secs(300),
            forgive_after: Duration::from_secs(600),
            protections: Protections::default(),
        }
    }
}

impl Config {
    /// The nearest configuration within the ranges above.
    pub(crate) fn within_ranges(mut self) -> Self {
        self.period = self.period.clamp(Duration::from_millis(200), Duration::from_secs(60));
        self.watched = self.watched.clamp(1, 8);
        self.helpers = self.helpers.clamp(1, 8);
        self.confirmations = self.confirmations.min(3);
        self.gossip_every = self.gossip_every.clamp(Duration::from_millis(50), Duration::from_secs(5));
        self.fanout = self.fanout.clamp(1, 8);
        self.sync_every = self.sync_every.max(Duration::from_secs(1));
        self.members_max = self.members_max.max(1);
        self.hold = self.hold.min(Duration::from_secs(3_600));
        self
    }
}
