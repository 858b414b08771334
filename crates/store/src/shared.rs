//! What one voter keeps of the log that several machines share: its entries, the vote, two marks and a snapshot.
//!
//! Bytes in, bytes out: what an entry or a vote says is `consensus`'s, which also decides what to write when. Here they are
//! durable when [`SharedLog::commit`] returns, and found out when they are not what was written. Everything blocks on the
//! disk; its user gives it a thread and puts what waits together into one commit, which is one sync.
//!
//! Commits are frames of a [`Journal`]; nothing is read again before the next start. A snapshot is a file of its own,
//! `snapshot-N`, N the commit that told of it. All of it used to be in a database: see `former`.

mod former;
mod rows;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Problem;

use self::rows::Row;
use crate::disk::Disk;
use crate::fault;
use crate::folder::{Failure, Folder};
use crate::journal::{self, Journal, Kind};
use crate::record;
use crate::tip::Tip;

/// One thing to be kept, dropped or replaced. The bytes are the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'b> {
    /// Replaces the vote.
    Vote(&'b [u8]),
    /// Replaces the note of how far the log is known to be agreed on.
    Committed(&'b [u8]),
    /// Writes one entry, over another of that index when there is one.
    Append { index: u64, bytes: &'b [u8] },
    /// Drops the entries from this index on.
    Truncate { from: u64 },
    /// Drops the entries up to this index, itself included, and keeps the bytes as the note of what went.
    Purge { upto: u64, mark: &'b [u8] },
    /// Replaces the snapshot by one of this index.
    Snapshot { index: u64, bytes: &'b [u8] },
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
    folder: Arc<Folder>,
    journal: Journal,
    tip: Tip,
    heads: Heads,
    /// Nothing is written any more.
    failed: bool,
    was_marked: bool,
}

/// What is not an entry, and goes into the head of every segment of the journal.
#[derive(Debug, Clone, Default)]
struct Heads {
    vote: Option<Vec<u8>>,
    committed: Option<Vec<u8>>,
    purged: Option<(u64, Vec<u8>)>,
    snapshot: Option<Kept>,
}

/// Which snapshot there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    index: u64,
    /// Its file is named after the commit that told of it.
    commit: u64,
}

const TIP: &str = "tip";
const SNAPSHOT: &str = "snapshot-";

impl SharedLog {
    /// Opens or creates the log in `dir` and reads what is there, every frame checked.
    ///
    /// # Errors
    /// `AgentRunning`, `DataCorrupt`, `DiskFull`, `DataUnwritable`; nothing is changed then.
    pub fn open(dir: &Path) -> Result<(Self, Contents), Problem> {
        let folder = Arc::new(Folder::take(dir)?);
        let path = folder.path(TIP);
        let tip = Tip::open(&path).map_err(|error| fault::problem("open", &path, &error))?;
        let was_marked = folder.is_marked();
        let recovered = recover(&folder, &tip, was_marked);
        let (journal, mut found) = recovered.map_err(|failure| folder.problem(folder.dir(), &failure))?;
        let contents = found.contents();
        Ok((Self { folder, journal, tip, heads: found.heads, failed: false, was_marked }, contents))
    }

    /// Whether a log was begun in this folder; what it says may be damaged.
    pub fn is_in(dir: &Path) -> bool {
        let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names
            .into_iter()
            .any(|name| name.to_str().is_some_and(|name| journal::is_segment(name) || name == former::FILE))
    }

    /// Whether an earlier process met a failed sync here. What the disk had was written anew.
    pub fn was_marked(&self) -> bool {
        self.was_marked
    }

    /// Makes all of the changes, in their order, or none. Durable when it returns.
    ///
    /// After [`Fault::Full`] the same changes may be committed again; that some of them were made already does no harm.
    pub fn commit(&mut self, changes: &[Change<'_>]) -> Result<(), Fault> {
        let committed = self.usable().and_then(|()| self.write(changes));
        committed.map_err(|failure| self.fault(failure))
    }

    /// The snapshot and its index.
    pub fn snapshot(&mut self) -> Result<Option<(u64, Vec<u8>)>, Fault> {
        let read = self.usable().and_then(|()| self.heads.snapshot.map(|kept| kept.read(&self.folder)).transpose());
        read.map_err(|failure| self.fault(failure))
    }

    fn usable(&self) -> Result<(), Failure> {
        match self.failed {
            true => Err(Failure::Fatal("it failed before".to_owned())),
            false => self.folder.is_usable(),
        }
    }

    fn write(&mut self, changes: &[Change<'_>]) -> Result<(), Failure> {
        if self.journal.is_long() {
            let heads = &self.heads;
            self.journal.turn(&self.folder, |frame| heads.put(frame))?;
        }
        let commit = self.journal.number() + 1;
        // Of several only the last one counts. Nobody knows of its file before the commit says so.
        let snapshot = changes.iter().rev().find_map(|change| match change {
            Change::Snapshot { index, bytes } => Some((Kept { index: *index, commit }, *bytes)),
            _ => None,
        });
        if let Some((kept, bytes)) = snapshot {
            kept.write(&self.folder, bytes)?;
        }
        let rows = changes.iter().map(|change| change.row(commit));
        self.journal.append(highest(rows.clone()), |frame| rows.clone().for_each(|row| row.put(frame)))?;
        self.tip.write(commit);
        let before = self.heads.snapshot;
        rows.for_each(|row| self.heads.take(&row));
        // What nobody needs any more.
        if let Some(old) = before.filter(|_| snapshot.is_some()) {
            let _ = fs::remove_file(old.path(&self.folder));
        }
        match &self.heads.purged {
            Some((upto, _)) if changes.iter().any(|change| matches!(change, Change::Purge { .. })) => {
                self.journal.drop_upto(&self.folder, *upto)
            }
            _ => Ok(()),
        }
    }

    fn fault(&mut self, failure: Failure) -> Fault {
        let problem = self.folder.problem(self.folder.dir(), &failure);
        match failure {
            Failure::Full => return Fault::Full(problem),
            Failure::Corrupt(_) => {}
            Failure::Fatal(_) => self.folder.mark_sync_failed(),
        }
        self.failed = true;
        Fault::Failed(problem)
    }
}

/// Opens the journal, or begins it with what there was before there were journals, or anew with what it has after a failed sync.
fn recover(folder: &Arc<Folder>, tip: &Tip, was_marked: bool) -> Result<(Journal, Found), Failure> {
    let mut found = Found::default();
    let opened = Journal::open(folder, |kind, number, payload| found.read(kind, number, payload))?;
    let (mut number, mut snapshot) = (opened.as_ref().map_or(0, Journal::number), None);
    if opened.is_none()
        && let Some(former) = former::read(folder)?
    {
        (number, found, snapshot) = (former.number, former.found, former.snapshot);
    }
    if let Some(tip) = tip.read().filter(|tip| *tip > number) {
        return Err(Failure::Corrupt(format!("it ends at commit {number}, but {tip} was acknowledged")));
    }
    found.check()?;
    let journal = match opened {
        Some(mut journal) if !was_marked => {
            journal.clear(folder)?;
            journal
        }
        opened => {
            if opened.is_some() {
                snapshot = found.heads.snapshot.map(|kept| kept.read(folder)).transpose()?;
            }
            let commit = number + 1;
            found.heads.snapshot = snapshot.as_ref().map(|(index, _)| Kept { index: *index, commit });
            if let (Some(kept), Some((_, bytes))) = (found.heads.snapshot, &snapshot) {
                kept.write(folder, bytes)?;
            }
            let mut payload = Vec::new();
            found.put(&mut payload);
            let highest = found.entries.last_key_value().map_or(0, |(index, _)| *index);
            let journal = Journal::begin(folder, commit, &payload, highest)?;
            tip.write(commit);
            folder.unmark()?;
            journal
        }
    };
    former::remove(folder)?;
    remove_other_snapshots(folder, found.heads.snapshot)?;
    Ok((journal, found))
}

/// What the frames of a journal lead to.
#[derive(Debug, Default)]
struct Found {
    heads: Heads,
    entries: BTreeMap<u64, Vec<u8>>,
    /// The first segment there continues another.
    continues: bool,
    /// The last commit read.
    number: Option<u64>,
}

impl Found {
    /// Gives the highest index of the frame's entries.
    fn read(&mut self, kind: Kind, number: u64, payload: &[u8]) -> Result<u64, Failure> {
        match kind {
            Kind::Beginning => *self = Self::default(),
            Kind::Head => self.continues |= self.number.is_none(),
            Kind::Commit => {}
        }
        self.number = Some(number);
        let rows = Row::read(payload).ok_or_else(|| Failure::Corrupt(format!("commit {number} makes no sense")))?;
        for row in &rows {
            self.heads.take(row);
            match *row {
                Row::Append { index, bytes } => drop(self.entries.insert(index, bytes.to_vec())),
                Row::Truncate { from } => drop(self.entries.split_off(&from)),
                Row::Purge { upto, .. } => self.entries.retain(|index, _| *index > upto),
                Row::Vote(_) | Row::Committed(_) | Row::Snapshot { .. } => {}
            }
        }
        Ok(highest(rows.into_iter()))
    }

    /// Entries have no gap, and the first one follows what was purged.
    fn check(&self) -> Result<(), Failure> {
        // Segments go only when their entries are purged.
        if self.continues && self.heads.purged.is_none() {
            return Err(Failure::Corrupt("what it begins with is missing".to_owned()));
        }
        let mut last = self.heads.purged.as_ref().map(|(upto, _)| *upto);
        for index in self.entries.keys() {
            if let Some(last) = last.filter(|last| last.checked_add(1) != Some(*index)) {
                return Err(Failure::Corrupt(format!("entry {index} follows entry {last}")));
            }
            last = Some(*index);
        }
        Ok(())
    }

    fn put(&self, frame: &mut Vec<u8>) {
        self.heads.put(frame);
        self.entries.iter().for_each(|(index, bytes)| Row::Append { index: *index, bytes }.put(frame));
    }

    fn contents(&mut self) -> Contents {
        let Heads { vote, committed, purged, .. } = self.heads.clone();
        Contents { vote, committed, purged, entries: std::mem::take(&mut self.entries).into_iter().collect() }
    }
}

impl<'b> Change<'b> {
    /// As it is written by that commit.
    fn row(&self, commit: u64) -> Row<'b> {
        match *self {
            Self::Vote(bytes) => Row::Vote(bytes),
            Self::Committed(bytes) => Row::Committed(bytes),
            Self::Append { index, bytes } => Row::Append { index, bytes },
            Self::Truncate { from } => Row::Truncate { from },
            Self::Purge { upto, mark } => Row::Purge { upto, mark },
            Self::Snapshot { index, .. } => Row::Snapshot { index, commit },
        }
    }
}

impl Heads {
    fn take(&mut self, row: &Row<'_>) {
        match *row {
            Row::Vote(bytes) => self.vote = Some(bytes.to_vec()),
            Row::Committed(bytes) => self.committed = Some(bytes.to_vec()),
            Row::Purge { upto, mark } => self.purged = Some((upto, mark.to_vec())),
            Row::Snapshot { index, commit } => self.snapshot = Some(Kept { index, commit }),
            Row::Append { .. } | Row::Truncate { .. } => {}
        }
    }

    fn put(&self, frame: &mut Vec<u8>) {
        let Self { vote, committed, purged, snapshot } = self;
        let rows = [
            vote.as_deref().map(Row::Vote),
            committed.as_deref().map(Row::Committed),
            purged.as_ref().map(|(upto, mark)| Row::Purge { upto: *upto, mark }),
            snapshot.map(|Kept { index, commit }| Row::Snapshot { index, commit }),
        ];
        rows.into_iter().flatten().for_each(|row| row.put(frame));
    }
}

/// The highest index of the entries among them, 0 when there are none.
fn highest<'b>(rows: impl Iterator<Item = Row<'b>>) -> u64 {
    let indexes = rows.filter_map(|row| match row {
        Row::Append { index, .. } => Some(index),
        _ => None,
    });
    indexes.max().unwrap_or(0)
}

impl Kept {
    fn name(self) -> String {
        format!("{SNAPSHOT}{:020}", self.commit)
    }

    fn path(self, folder: &Folder) -> PathBuf {
        folder.path(&self.name())
    }

    fn write(self, folder: &Folder, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.path(folder);
        let write = || {
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            let disk = Disk::new(file, Arc::clone(folder.faults()));
            disk.write(0, &record::seal(record::Kind::SharedSnapshot, self.index, bytes))?;
            disk.sync_data().map_err(|error| Failure::of_sync(&error))?;
            folder.sync()
        };
        write().inspect_err(|_| drop(fs::remove_file(&path)))
    }

    fn read(self, folder: &Folder) -> Result<(u64, Vec<u8>), Failure> {
        let sealed = fs::read(self.path(folder)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::Corrupt(format!("`{}` is missing", self.name())),
            _ => error.into(),
        })?;
        let payload = record::unseal(record::Kind::SharedSnapshot, self.index, &sealed).map_err(Failure::Corrupt)?;
        Ok((self.index, payload.to_vec()))
    }
}

/// What a commit that failed, or a process that ended, left behind.
fn remove_other_snapshots(folder: &Folder, kept: Option<Kept>) -> Result<(), Failure> {
    let kept = kept.map(Kept::name);
    for entry in fs::read_dir(folder.dir())? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().filter(|name| name.starts_with(SNAPSHOT));
        if name.is_some() && name != kept.as_deref() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
