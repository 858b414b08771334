//! The log as openraft sees it: all of it in memory, every change on its way to the disk in the order it was made.
//!
//! The log is short, `compact` sees to that, so reading never touches the disk. Entries are readable at once and answered
//! for when the disk has them; votes are on the disk before anybody hears of them.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};

use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend};

use crate::disk::{Stored, Write};
use crate::flusher::Flusher;
use crate::raft::{Entry, LogId, Members, Types, Vote, size_of};
use crate::v1;

/// Entries of one request to a peer: with one command of any size it fits a control frame of a mebibyte.
const REQUEST_BYTES: u64 = 128 << 10;

/// The log, and a reader of it: clones are the same log.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    memory: Arc<Mutex<Memory>>,
    flusher: Flusher,
}

/// What a log keeps in memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    entries: VecDeque<Entry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    bytes: u64,
}

impl Log {
    pub(crate) fn new(memory: Memory, flusher: Flusher) -> Self {
        Self { memory: Arc::new(Mutex::new(memory)), flusher }
    }

    /// The size of each entry up to `last`, by index.
    pub(crate) fn sizes(&self, last: u64) -> Vec<(u64, u64)> {
        let memory = self.memory();
        let entries = memory.entries.iter().take_while(|entry| entry.log_id.index <= last);
        entries.map(|entry| (entry.log_id.index, size_of(entry))).collect()
    }

    /// Bytes of all entries together.
    pub(crate) fn bytes(&self) -> u64 {
        self.memory().bytes
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no panic while it is held")
    }
}

impl Memory {
    /// What the disk had.
    pub(crate) fn read(stored: &Stored) -> Result<Self, String> {
        let log_id = |bytes: &Option<Vec<u8>>| match bytes {
            Some(bytes) => v1::decode::<v1::LogId>(bytes).map(|id| Some(LogId::from(id))),
            None => Ok(None),
        };
        let vote = match &stored.vote {
            Some(bytes) => Some(v1::decode::<v1::Vote>(bytes)?.into()),
            None => None,
        };
        let mut this =
            Self { vote, committed: log_id(&stored.committed)?, purged: log_id(&stored.purged)?, ..Self::default() };
        for (index, bytes) in &stored.entries {
            let entry = v1::decode::<v1::Entry>(bytes).and_then(v1::Entry::into_raft);
            let entry = entry.map_err(|error| format!("entry {index}: {error}"))?;
            if entry.log_id.index != *index || this.next().is_some_and(|next| next != *index) {
                return Err(format!("entry {index} is not where it belongs"));
            }
            this.push(entry);
        }
        Ok(this)
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.entries.back().map(|entry| entry.log_id).or(self.purged)
    }

    pub(crate) fn vote(&self) -> Option<Vote> {
        self.vote
    }

    pub(crate) fn committed(&self) -> Option<LogId> {
        self.committed
    }

    /// The newest membership in it.
    pub(crate) fn members(&self) -> Option<Members> {
        self.entries.iter().rev().find_map(|entry| match &entry.payload {
            EntryPayload::Membership(members) => Some(members.clone()),
            _ => None,
        })
    }

    /// The index of the next entry, when there is anything it follows.
    fn next(&self) -> Option<u64> {
        self.last().map(|last| last.index + 1)
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += size_of(&entry);
        self.entries.push_back(entry);
    }

    fn truncate(&mut self, from: u64) {
        while let Some(entry) = self.entries.pop_back_if(|entry| entry.log_id.index >= from) {
            self.bytes -= size_of(&entry);
        }
    }

    fn purge(&mut self, upto: LogId) {
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.log_id.index <= upto.index) {
            self.bytes -= size_of(&entry);
        }
        self.purged = self.purged.max(Some(upto));
    }

    fn range(&self, range: impl RangeBounds<u64>) -> impl Iterator<Item = &Entry> {
        let first = self.entries.front().map_or(0, |entry| entry.log_id.index);
        let position = |index: u64| usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX);
        let from = match range.start_bound() {
            Bound::Included(index) => position(*index),
            Bound::Excluded(index) => position(index.saturating_add(1)),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => position(index.saturating_add(1)),
            Bound::Excluded(index) => position(*index),
            Bound::Unbounded => usize::MAX,
        };
        let to = to.min(self.entries.len());
        self.entries.range(from.min(to)..to)
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.memory().range(range).cloned().collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.memory().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let mut bytes = 0;
        let memory = self.memory();
        let mut entries = Vec::new();
        for entry in memory.range(start..end) {
            bytes += size_of(entry);
            // One at least, whatever its size.
            if bytes > REQUEST_BYTES && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let memory = self.memory();
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.flusher.write(Write::Vote(bytes(&v1::Vote::from(vote))?)).await?;
        self.memory().vote = Some(*vote);
        Ok(())
    }

    /// Lost by a crash without harm: a leader elected afterwards knows. So it costs no sync of its own.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(committed) = committed else { return Ok(()) };
        self.flusher.note(Write::Committed(bytes(&v1::LogId::from(committed))?)).await?;
        self.memory().committed = Some(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let memory = self.memory();
        // It goes along with entries it may be ahead of only if those were not kept.
        Ok(memory.committed.min(memory.last()))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut writes = Vec::new();
        {
            let mut memory = self.memory();
            for entry in entries {
                let index = entry.log_id.index;
                // What is there already, and what follows it, is of another leader.
                if memory.entries.back().is_some_and(|last| last.log_id.index >= index) {
                    memory.truncate(index);
                    writes.push(Write::Truncate { from: index });
                }
                writes.push(Write::Append { index, bytes: bytes(&v1::Entry::from(&entry))? });
                memory.push(entry);
            }
        }
        self.flusher.append(writes, callback).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |last| last.index + 1);
        self.memory().truncate(from);
        // Not waited for: what is answered for later comes after it, and until then it may as well not have happened.
        self.flusher.append(vec![Write::Truncate { from }], IOFlushed::noop()).await
    }

    /// Lost by a crash without harm: the snapshot that stands for the entries is on the disk.
    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.memory().purge(upto);
        let mark = bytes(&v1::LogId::from(upto))?;
        self.flusher.note(Write::Purge { upto: upto.index, mark }).await
    }
}

fn bytes<T: serde::Serialize>(value: &T) -> io::Result<Vec<u8>> {
    v1::encode(value).map_err(io::Error::other)
}
