//! A voter's disk: a journal of bytes that takes time to reach the medium, and loses what has not when the power goes.
//!
//! A commit is one batch of records, each with a checksum, the last one marked. When the power goes, of what was on its way a part
//! arrives: up to some byte, with some sectors of it still blank. A process that is killed leaves a part up to some byte. What is read
//! afterwards ends before the first batch that is not whole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use consensus_sim::executor::{self, Moment};
use consensus_sim::{Disk, Fault, Kept, Stored, Write};
use model::{Code, Problem};

use crate::chance::Chance;

/// What a medium writes as a whole.
const SECTOR: usize = 512;

/// What outlives the machine that uses it.
#[derive(Debug, Clone)]
pub(crate) struct Medium(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    chance: Chance,
    /// On the medium.
    journal: Vec<u8>,
    /// On its way there, in order, and when each arrives.
    on_its_way: Vec<(Moment, Vec<u8>)>,
    faults: Faults,
    /// A batch is taken for whole though nothing says that it is.
    trusts_tails: bool,
    /// Torn batches found by those who read.
    torn: u64,
}

/// What is wrong with a disk now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Faults {
    pub full: bool,
    /// The next sync fails.
    pub sync_fails: bool,
    /// A sync takes up to this long, beside what it always takes.
    pub slow: Duration,
}

impl Medium {
    pub(crate) fn new(seed: u64, trusts_tails: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            chance: Chance::new(seed),
            journal: Vec::new(),
            on_its_way: Vec::new(),
            faults: Faults::default(),
            trusts_tails,
            torn: 0,
        })))
    }

    /// For the process that uses it from now on.
    pub(crate) fn open(&self) -> Opened {
        Opened { medium: self.clone(), cache: Cache::default(), failed: false }
    }

    pub(crate) fn faults<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        change(&mut self.inner().faults)
    }

    /// The power goes now.
    pub(crate) fn cut_power(&self) {
        self.inner().interrupt(true);
    }

    /// The process that uses it is killed now.
    pub(crate) fn kill_user(&self) {
        self.inner().interrupt(false);
    }

    pub(crate) fn torn(&self) -> u64 {
        self.inner().torn
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic while it is held")
    }
}

impl Inner {
    fn settle(&mut self) {
        let now = executor::now();
        let count = self.on_its_way.iter().take_while(|(arrives, _)| *arrives <= now).count();
        for (_, bytes) in self.on_its_way.drain(..count) {
            self.journal.extend(bytes);
        }
    }

    fn interrupt(&mut self, loses_sectors: bool) {
        self.settle();
        let mut rest: Vec<u8> = self.on_its_way.drain(..).flat_map(|(_, bytes)| bytes).collect();
        let arrived = match self.chance.below(4) {
            0 => 0,
            1 => rest.len(),
            _ => self.chance.below(rest.len() as u64 + 1) as usize,
        };
        rest.truncate(arrived);
        if loses_sectors && self.chance.one_in(2) {
            let start = self.journal.len();
            let sector_of = |at: usize| (start + at) / SECTOR;
            let blank: Vec<bool> = (0..=sector_of(rest.len()) - sector_of(0)).map(|_| self.chance.one_in(3)).collect();
            for at in 0..rest.len() {
                if blank[sector_of(at) - sector_of(0)] {
                    rest[at] = 0;
                }
            }
        }
        self.journal.extend(rest);
    }
}

/// The disk as one process has it.
#[derive(Debug)]
pub(crate) struct Opened {
    medium: Medium,
    cache: Cache,
    failed: bool,
}

/// What the journal says.
#[derive(Debug, Default)]
struct Cache {
    stored: Stored,
    entries: BTreeMap<u64, Vec<u8>>,
    snapshot: Option<Kept>,
}

impl Disk for Opened {
    fn load(&mut self) -> Result<Stored, Fault> {
        let mut inner = self.medium.inner();
        inner.settle();
        let (batches, whole) = read(&inner.journal, inner.trusts_tails);
        if whole < inner.journal.len() {
            inner.torn += 1;
            inner.journal.truncate(whole);
        }
        self.cache = Cache::default();
        batches.into_iter().for_each(|write| self.cache.apply(write));
        Ok(Stored { entries: self.cache.entries.clone().into_iter().collect(), ..self.cache.stored.clone() })
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), Fault> {
        let mut inner = self.medium.inner();
        if self.failed {
            return Err(failed());
        }
        if inner.faults.full
            && writes.iter().any(|write| !matches!(write, Write::Purge { .. } | Write::Truncate { .. }))
        {
            executor::busy_until(executor::now() + Duration::from_micros(200));
            return Err(Fault::Full(Problem::new(Code::DiskFull, "the disk is full")));
        }
        let usual = Duration::from_micros(200) + inner.chance.at_most(Duration::from_millis(3));
        let slow = inner.faults.slow;
        let takes = usual + inner.chance.at_most(slow);
        inner.settle();
        let begins = inner.on_its_way.last().map_or(executor::now(), |(arrives, _)| *arrives);
        let arrives = begins + takes;
        executor::busy_until(arrives);
        inner.on_its_way.push((arrives, batch(writes)));
        if std::mem::take(&mut inner.faults.sync_fails) {
            self.failed = true;
            // Of what the failed sync was for, a part may have arrived. Nobody will know which.
            inner.interrupt(true);
            return Err(failed());
        }
        drop(inner);
        writes.iter().cloned().for_each(|write| self.cache.apply(write));
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Option<Kept>, Fault> {
        match self.failed {
            true => Err(failed()),
            false => Ok(self.cache.snapshot.clone()),
        }
    }
}

fn failed() -> Fault {
    Fault::Failed(Problem::new(Code::Internal, "a sync failed"))
}

impl Cache {
    fn apply(&mut self, write: Write) {
        match write {
            Write::Vote(bytes) => self.stored.vote = Some(bytes),
            Write::Committed(bytes) => self.stored.committed = Some(bytes),
            Write::Append { index, bytes } => drop(self.entries.insert(index, bytes)),
            Write::Truncate { from } => drop(self.entries.split_off(&from)),
            Write::Purge { upto, mark } => {
                self.entries = self.entries.split_off(&(upto + 1));
                self.stored.purged = Some(mark);
            }
            Write::Snapshot { index, bytes } => self.snapshot = Some((index, bytes)),
        }
    }
}

/// `length (4) | checksum (8) | last of its batch (1) | kind (1) | index (8) | bytes`, numbers little-endian; the length is of what
/// follows the checksum, which is of that too.
fn batch(writes: &[Write]) -> Vec<u8> {
    let mut out = Vec::new();
    for (place, write) in writes.iter().enumerate() {
        let (kind, index, bytes): (u8, u64, &[u8]) = match write {
            Write::Vote(bytes) => (0, 0, bytes),
            Write::Committed(bytes) => (1, 0, bytes),
            Write::Append { index, bytes } => (2, *index, bytes),
            Write::Truncate { from } => (3, *from, &[]),
            Write::Purge { upto, mark } => (4, *upto, mark),
            Write::Snapshot { index, bytes } => (5, *index, bytes),
        };
        let mut body = vec![u8::from(place + 1 == writes.len()), kind];
        body.extend(index.to_le_bytes());
        body.extend(bytes);
        out.extend((body.len() as u32).to_le_bytes());
        out.extend(checksum(&body).to_le_bytes());
        out.extend(body);
    }
    out
}

fn checksum(body: &[u8]) -> u64 {
    body.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// What whole batches say, and where the last of them ends.
fn read(journal: &[u8], trusts_tails: bool) -> (Vec<Write>, usize) {
    let (mut writes, mut whole, mut at, mut batch) = (Vec::new(), 0, 0, Vec::new());
    while let Some((write, is_last, next)) = record(journal, at, trusts_tails) {
        batch.push(write);
        at = next;
        if is_last || trusts_tails {
            writes.append(&mut batch);
            whole = at;
        }
    }
    (writes, whole)
}

fn record(journal: &[u8], at: usize, trusts_tails: bool) -> Option<(Write, bool, usize)> {
    let head = journal.get(at..at + 12)?;
    let length = u32::from_le_bytes(head[..4].try_into().ok()?) as usize;
    let end = at + 12 + length;
    let body = match journal.get(at + 12..end) {
        Some(body) => body,
        None if trusts_tails => &journal[at + 12..],
        None => return None,
    };
    if !trusts_tails && checksum(body).to_le_bytes() != head[4..] {
        return None;
    }
    let (last, rest) = body.split_first()?;
    let (kind, rest) = rest.split_first()?;
    let index = u64::from_le_bytes(rest.get(..8)?.try_into().ok()?);
    let bytes = rest[8..].to_vec();
    let write = match kind {
        0 => Write::Vote(bytes),
        1 => Write::Committed(bytes),
        2 => Write::Append { index, bytes },
        3 => Write::Truncate { from: index },
        4 => Write::Purge { upto: index, mark: bytes },
        5 => Write::Snapshot { index, bytes },
        _ => return None,
    };
    Some((write, *last == 1, end.min(journal.len())))
}

#[cfg(test)]
mod tests {
    use consensus_sim::executor::Simulation;

    use super::*;

    fn writes() -> Vec<Write> {
        vec![Write::Vote(vec![1; 40]), Write::Append { index: 1, bytes: vec![2; 700] }, Write::Truncate { from: 9 }]
    }

    #[test]
    fn a_journal_ends_before_the_first_batch_that_is_not_whole() {
        let (first, second) = (batch(&writes()), batch(&[Write::Append { index: 2, bytes: vec![3; 90] }]));
        let both = [first.clone(), second].concat();
        assert_eq!(read(&both, false).0.len(), 4);
        for cut in 0..both.len() {
            let (found, whole) = read(&both[..cut], false);
            let expected = if cut < first.len() { (0, 0) } else { (3, first.len()) };
            assert_eq!((found.len(), whole), expected, "cut at {cut}");
        }
        for at in first.len()..both.len() {
            let mut damaged = both.clone();
            damaged[at] ^= 4;
            assert_eq!(read(&damaged, false).0, writes(), "damaged at {at}");
        }
        assert!(read(&both[..first.len() - 3], true).0.len() > 1, "the control takes half a batch");
    }

    #[test]
    fn what_was_answered_for_survives_a_power_cut_and_what_was_not_may_not() {
        let mut survived = Vec::new();
        for seed in 0..40 {
            let _simulation = Simulation::new(seed, None);
            let medium = Medium::new(seed, false);
            let mut disk = medium.open();
            disk.load().unwrap();
            disk.commit(&[Write::Append { index: 1, bytes: vec![1; 2_000] }]).unwrap();
            medium.cut_power();
            survived.push(!medium.open().load().unwrap().entries.is_empty());
        }
        assert!(survived.contains(&true) && survived.contains(&false), "{survived:?}");
    }
}
