//! What one voter keeps of the log that several machines share: its entries, the vote, two marks and a snapshot.
//!
//! Bytes in, bytes out: what an entry or a vote says is `consensus`'s, which also decides what to write when. Here they are
//! durable when [`SharedLog::commit`] returns, and found out when they are not what was written. Everything blocks on the
//! disk; its user gives it a thread and puts what waits together into one commit, which is one sync.

use std::path::Path;

use model::Problem;
use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, TableError, WriteTransaction};

use crate::database::{Base, ChangeError, Failure};
use crate::fault;
use crate::record::{self, Kind};
use crate::tip::Tip;

/// One thing to be kept, dropped or replaced. The bytes are the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Replaces the vote.
    Vote(Vec<u8>),
    /// Replaces the note of how far the log is known to be agreed on.
    Committed(Vec<u8>),
    /// Writes one entry, over another of that index when there is one.
    Append { index: u64, bytes: Vec<u8> },
    /// Drops the entries from this index on.
    Truncate { from: u64 },
    /// Drops the entries up to this index, itself included, and keeps the bytes as the note of what went.
    Purge { upto: u64, mark: Vec<u8> },
    /// Replaces the snapshot by one of this index.
    Snapshot { index: u64, bytes: Vec<u8> },
}

/// What was on disk, snapshot excepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    pub vote: Option<Vec<u8>>,
    pub committed: Option<Vec<u8>>,
    /// The index of the last entry purged, and its note.
    pub purged: Option<(u64, Vec<u8>)>,
    /// Indexes without a gap; the first follows what was purged.
    pub entries: Vec<(u64, Vec<u8>)>,
}

/// Why nothing was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// There is no room. The same changes may be committed once there is.
    Full(Problem),
    /// What is on disk cannot be relied on any more. The process must end: its successor begins with what the disk has.
    Failed(Problem),
}

/// One voter's part of the log, alone in its folder.
#[derive(Debug)]
pub struct SharedLog {
    base: Base,
    tip: Tip,
    /// Commits made; the tip holds the number of the last one that was answered.
    sequence: u64,
    was_marked: bool,
}

const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
const HEADS: TableDefinition<u64, &[u8]> = TableDefinition::new("heads");
const SNAPSHOT: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshot");

const FILE: &str = "shared.redb";
const TIP: &str = "tip";

/// Rows of the table `heads`.
const SEQUENCE: u64 = 0;
const VOTE: u64 = 1;
const COMMITTED: u64 = 2;
const PURGED: u64 = 3;

impl SharedLog {
    /// Opens or creates the log in `dir` and reads what is there, every record checked.
    ///
    /// # Errors
    /// `AgentRunning`, `DataCorrupt`, `DiskFull`, `DataUnwritable`; nothing is changed then.
    pub fn open(dir: &Path) -> Result<(Self, Contents), Problem> {
        let base = Base::new(dir, FILE)?;
        let path = dir.join(TIP);
        let tip = Tip::open(&path).map_err(|error| fault::problem("open", &path, &error))?;
        let mut this = Self { base, tip, sequence: 0, was_marked: false };
        let contents = this.recover().map_err(|failure| this.base.problem(&failure))?;
        Ok((this, contents))
    }

    /// Whether an earlier process met a failed sync here. What the disk had was written anew.
    pub fn was_marked(&self) -> bool {
        self.was_marked
    }

    /// Makes all of the changes, in their order, or none. Durable when it returns.
    ///
    /// After [`Fault::Full`] the same changes may be committed again; that some of them were made already does no harm.
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), Fault> {
        let sequence = self.ready().and_then(|()| {
            let sequence = self.sequence + 1;
            self.base.write(|transaction| {
                make(transaction, changes)?;
                put_head(transaction, SEQUENCE, &sequence.to_le_bytes())
            })?;
            Ok(sequence)
        });
        self.sequence = sequence.map_err(|failure| self.fault(failure))?;
        self.tip.write(self.sequence);
        Ok(())
    }

    /// The snapshot and its index.
    pub fn snapshot(&mut self) -> Result<Option<(u64, Vec<u8>)>, Fault> {
        self.ready().and_then(|()| self.read_snapshot()).map_err(|failure| self.fault(failure))
    }

    fn fault(&self, failure: Failure) -> Fault {
        let problem = self.base.problem(&failure);
        match failure {
            Failure::Full => Fault::Full(problem),
            Failure::Corrupt(_) => Fault::Failed(problem),
            Failure::Fatal(_) => {
                self.base.mark_sync_failed();
                Fault::Failed(problem)
            }
        }
    }

    fn recover(&mut self) -> Result<Contents, Failure> {
        self.base.reopen()?;
        let contents = self.read()?;
        if let Some(tip) = self.tip.read().filter(|tip| *tip > self.sequence) {
            let message = format!("it ends at commit {}, but {tip} was acknowledged", self.sequence);
            return Err(Failure::Corrupt(message));
        }
        if self.sequence == 0 {
            self.base.write(|transaction| {
                transaction.open_table(ENTRIES)?;
                transaction.open_table(SNAPSHOT)?;
                put_head(transaction, SEQUENCE, &0_u64.to_le_bytes())
            })?;
        }
        self.was_marked = self.base.is_marked();
        if self.was_marked {
            self.rewrite(&contents)?;
        }
        Ok(contents)
    }

    /// Writes everything into a new file and puts it in the place of the old one.
    fn rewrite(&mut self, contents: &Contents) -> Result<(), Failure> {
        let snapshot = self.read_snapshot()?;
        let sequence = self.sequence;
        self.base.replace(|transaction| {
            let mut entries = transaction.open_table(ENTRIES)?;
            transaction.open_table(SNAPSHOT)?;
            put_head(transaction, SEQUENCE, &sequence.to_le_bytes())?;
            for (head, bytes) in [(VOTE, &contents.vote), (COMMITTED, &contents.committed)] {
                bytes.iter().try_for_each(|bytes| put_head(transaction, head, bytes))?;
            }
            if let Some((upto, mark)) = &contents.purged {
                put_head(transaction, PURGED, &purged(*upto, mark))?;
            }
            for (index, bytes) in &contents.entries {
                put_entry(&mut entries, *index, bytes)?;
            }
            snapshot.iter().try_for_each(|(index, bytes)| put_snapshot(transaction, *index, bytes))
        })
    }

    /// Opens the file again after it was full. What the failed commit may have left is no harm: it is made again.
    fn ready(&mut self) -> Result<(), Failure> {
        if self.base.is_open() {
            return Ok(());
        }
        self.base.reopen()?;
        let acknowledged = self.sequence;
        let result = self.read().and_then(|_| {
            let found = self.sequence;
            if (acknowledged..=acknowledged + 1).contains(&found) {
                return Ok(());
            }
            Err(Failure::Corrupt(format!("it ends at commit {found}, but {acknowledged} was acknowledged")))
        });
        if result.is_err() {
            self.base.close();
            self.sequence = acknowledged;
        }
        result
    }

    /// Everything but the snapshot; also finds the sequence.
    fn read(&mut self) -> Result<Contents, Failure> {
        let (sequence, contents) = read(&self.base)?;
        self.sequence = sequence;
        Ok(contents)
    }

    fn read_snapshot(&self) -> Result<Option<(u64, Vec<u8>)>, Failure> {
        let base = &self.base;
        let transaction = base.read()?;
        let table = transaction.open_table(SNAPSHOT).map_err(|error| base.failure(error.into()))?;
        let Some((index, bytes)) = table.last().map_err(|error| base.failure(error.into()))? else { return Ok(None) };
        let index = index.value();
        let payload = record::unseal(Kind::SharedSnapshot, index, bytes.value()).map_err(Failure::Corrupt)?;
        Ok(Some((index, payload.to_vec())))
    }
}

fn make(transaction: &WriteTransaction, changes: &[Change]) -> Result<(), ChangeError> {
    let mut entries = transaction.open_table(ENTRIES)?;
    for change in changes {
        match change {
            Change::Vote(bytes) => put_head(transaction, VOTE, bytes)?,
            Change::Committed(bytes) => put_head(transaction, COMMITTED, bytes)?,
            Change::Append { index, bytes } => put_entry(&mut entries, *index, bytes)?,
            Change::Truncate { from } => entries.retain_in(*from.., |_, _| false)?,
            Change::Purge { upto, mark } => {
                entries.retain_in(..=*upto, |_, _| false)?;
                put_head(transaction, PURGED, &purged(*upto, mark))?;
            }
            Change::Snapshot { index, bytes } => put_snapshot(transaction, *index, bytes)?,
        }
    }
    Ok(())
}

fn put_entry(entries: &mut Table<'_, u64, &'static [u8]>, index: u64, bytes: &[u8]) -> Result<(), ChangeError> {
    let sealed = record::seal(Kind::SharedEntry, index, bytes);
    entries.insert(index, sealed.as_slice())?;
    Ok(())
}

fn put_head(transaction: &WriteTransaction, head: u64, bytes: &[u8]) -> Result<(), ChangeError> {
    let sealed = record::seal(Kind::SharedHead, head, bytes);
    transaction.open_table(HEADS)?.insert(head, sealed.as_slice())?;
    Ok(())
}

fn put_snapshot(transaction: &WriteTransaction, index: u64, bytes: &[u8]) -> Result<(), ChangeError> {
    let sealed = record::seal(Kind::SharedSnapshot, index, bytes);
    let mut table = transaction.open_table(SNAPSHOT)?;
    table.retain(|_, _| false)?;
    table.insert(index, sealed.as_slice())?;
    Ok(())
}

/// `index (8, little-endian) | note`.
fn purged(upto: u64, mark: &[u8]) -> Vec<u8> {
    [&upto.to_le_bytes(), mark].concat()
}

fn read(base: &Base) -> Result<(u64, Contents), Failure> {
    let transaction = base.read()?;
    let Some(sequence) = head(base, &transaction, SEQUENCE)? else {
        // A new file. In one that is not, the tip tells that something is missing.
        return Ok((0, Contents::default()));
    };
    let number = |bytes: &[u8]| -> Result<u64, Failure> {
        let bytes = bytes.get(..8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_le_bytes).ok_or_else(|| Failure::Corrupt("a number is cut short".to_owned()))
    };
    let purged = match head(base, &transaction, PURGED)? {
        Some(bytes) => Some((number(&bytes)?, bytes[8..].to_vec())),
        None => None,
    };
    let mut contents = Contents {
        vote: head(base, &transaction, VOTE)?,
        committed: head(base, &transaction, COMMITTED)?,
        purged,
        entries: Vec::new(),
    };
    let mut last = contents.purged.as_ref().map(|(upto, _)| *upto);
    let table = transaction.open_table(ENTRIES).map_err(|error| base.failure(error.into()))?;
    for row in table.iter().map_err(|error| base.failure(error.into()))? {
        let (index, bytes) = row.map_err(|error| base.failure(error.into()))?;
        let index = index.value();
        if let Some(last) = last.filter(|last| last.checked_add(1) != Some(index)) {
            return Err(Failure::Corrupt(format!("entry {index} follows entry {last}")));
        }
        last = Some(index);
        let payload = record::unseal(Kind::SharedEntry, index, bytes.value()).map_err(Failure::Corrupt)?;
        contents.entries.push((index, payload.to_vec()));
    }
    Ok((number(&sequence)?, contents))
}

fn head(base: &Base, transaction: &ReadTransaction, head: u64) -> Result<Option<Vec<u8>>, Failure> {
    let table = match transaction.open_table(HEADS) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(base.failure(error.into())),
    };
    let row = table.get(head).map_err(|error| base.failure(error.into()))?;
    let Some(row) = row else { return Ok(None) };
    record::unseal(Kind::SharedHead, head, row.value()).map(|bytes| Some(bytes.to_vec())).map_err(Failure::Corrupt)
}

#[cfg(test)]
mod tests;
