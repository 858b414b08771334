//! What a voter needs of its disk: a small set of bytes, changed by whole batches.

use model::Problem;

/// One thing to be kept, dropped or replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Replaces the vote.
    Vote(Vec<u8>),
    /// Replaces the note of how far the log is known to be agreed on.
    Committed(Vec<u8>),
    /// Writes one entry. Indexes have no gap.
    Append { index: u64, bytes: Vec<u8> },
    /// Drops the entries from this index on.
    Truncate { from: u64 },
    /// Drops the entries up to this index, itself included, and keeps the bytes as the note of what went.
    Purge { upto: u64, mark: Vec<u8> },
    /// Replaces the snapshot.
    Snapshot { index: u64, bytes: Vec<u8> },
}

/// What is on the disk, snapshot excepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    pub vote: Option<Vec<u8>>,
    pub committed: Option<Vec<u8>>,
    /// The note of the last purge.
    pub purged: Option<Vec<u8>>,
    /// In the order of their indexes, without a gap.
    pub entries: Vec<(u64, Vec<u8>)>,
}

/// A snapshot and its index.
pub type Kept = (u64, Vec<u8>);

/// Why nothing was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// There is no room. The same batch is tried again until there is; meanwhile nothing new is taken.
    Full(Problem),
    /// The disk cannot be relied on any more. Final: the process must end.
    Failed(Problem),
}

/// A disk, used by one thread that does nothing else, so every call may block.
pub trait Disk: Send + 'static {
    /// What is there. Called once, before anything else.
    fn load(&mut self) -> Result<Stored, Fault>;

    /// Makes all of the changes in their order, or none. They must be safe from a power cut when it returns: votes and
    /// entries are answered for right after. One call carries whatever came together, so one sync should do for it.
    fn commit(&mut self, writes: &[Write]) -> Result<(), Fault>;

    /// The snapshot, when there is one.
    fn snapshot(&mut self) -> Result<Option<Kept>, Fault>;
}

impl Fault {
    pub fn problem(&self) -> &Problem {
        match self {
            Self::Full(problem) | Self::Failed(problem) => problem,
        }
    }
}
