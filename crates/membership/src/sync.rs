//! Anti-entropy: tables are compared over a reliable stream, and what differs is exchanged. Both sides hash their tables into buckets,
//! so that equal tables of 1,000 members cost a kilobyte, and one difference the few members that share its bucket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use model::NodeId;

use crate::member::Status;
use crate::membership::{Effect, Membership, Via};
use crate::rng::mix;
use crate::table::Entry;
use crate::wire::{BUCKETS_MAX, BlobKind, BlobWriter, Record, decode_blob, hash};

/// Members a bucket holds when the table is as large as the number of buckets assumes.
const MEMBERS_PER_BUCKET: usize = 8;
/// Fewest buckets: a table of few members is not exchanged whole for one that is new.
const BUCKETS_MIN: usize = 16;
/// How soon tables are compared again while comparisons bring something.
const SOON: Duration = Duration::from_secs(1);
/// Longest time between two attempts to find company.
const REJOIN_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Seeds and lost members that are asked at once by who has no company.
const ASKED_AT_ONCE: usize = 3;

impl Membership {
    /// The regular comparison. Now and then with a seed that is no live member: two halves that never knew each other meet so.
    pub(crate) fn compare_tables(&mut self, effects: &mut Vec<Effect>) {
        self.due.sync = self.now + self.rng.around(self.sync_pause);
        self.sync_pause = (self.sync_pause * 2).min(self.config.sync_every);
        if !self.config.protections.anti_entropy {
            return;
        }
        let strangers: Vec<SocketAddr> = self.seeds.iter().copied().filter(|seed| !self.is_live_at(*seed)).collect();
        let with = if !strangers.is_empty() && self.config.protections.rejoin && self.rng.below(4) == 0 {
            Some(strangers[self.rng.below(strangers.len())])
        } else {
            let partner = self.table.random_live(1, &mut self.rng, |_| false).pop();
            partner.and_then(|id| self.table.get(id)).map(|entry| entry.description.addr)
        };
        if let Some(with) = with {
            self.compare_with(with, effects);
        }
    }

    fn is_live_at(&self, addr: SocketAddr) -> bool {
        addr == self.me.addr
            || self.table.at_addr(addr).any(|id| self.table.get(id).is_some_and(|entry| entry.status.is_live()))
    }

    fn compare_with(&self, with: SocketAddr, effects: &mut Vec<Effect>) {
        let mut blob = BlobWriter::ask(self.me.id, &self.digest(self.bucket_count()));
        blob.record(&self.own_record());
        effects.push(Effect::PushPull { with, bytes: blob.finish() });
    }

    /// There is a reason to think that tables differ.
    pub(crate) fn compare_soon(&mut self) {
        let soon = self.now + self.rng.around(SOON);
        self.due.sync = self.due.sync.min(soon);
        self.sync_pause = self.sync_pause.min(SOON);
    }

    fn bucket_count(&self) -> usize {
        ((self.table.len() + 1) / MEMBERS_PER_BUCKET).next_power_of_two().clamp(BUCKETS_MIN, BUCKETS_MAX)
    }

    /// One number for each bucket of members. A suspicion makes no difference: it passes before it would be exchanged.
    fn digest(&self, buckets: usize) -> Vec<u64> {
        let mut digest = vec![0u64; buckets];
        let mut add = |id: NodeId, incarnation: u64, gone: Option<Status>, edition: (u64, u64)| {
            let gone = match gone {
                Some(Status::Left) => 2,
                Some(Status::Dead) => 1,
                _ => 0,
            };
            let said = [incarnation, gone, edition.0, edition.1];
            let all = said.iter().fold(mix(id.0), |so_far, part| mix(so_far ^ part));
            let bucket = &mut digest[bucket_of(id, buckets)];
            *bucket = bucket.wrapping_add(all);
        };
        for (id, entry) in self.table.iter() {
            add(id, entry.incarnation, Some(entry.status), entry.edition());
        }
        add(self.me.id, self.me.incarnation, None, (self.described, self.description.hash));
        digest
    }

    /// Another member compares its table with ours.
    pub(crate) fn asked(&mut self, exchange: u64, bytes: &[u8], effects: &mut Vec<Effect>) {
        let Ok(blob) = decode_blob(bytes) else {
            self.counters.malformed += 1;
            effects.push(Effect::Answer { exchange, bytes: Vec::new() });
            return;
        };
        let from = blob.from;
        // Our table as it is before we hear theirs is what they differ from; their own record is the exception: it introduces them.
        for record in &blob.records {
            let via = if record.rumour.id == from { Via::Gossip } else { Via::Sync };
            self.introduce(record, via, effects);
        }
        let bytes = match blob.kind {
            BlobKind::Ask { buckets } => self.answer(&buckets),
            BlobKind::Answer { .. } | BlobKind::Push => Vec::new(),
        };
        effects.push(Effect::Answer { exchange, bytes });
    }

    fn answer(&mut self, theirs: &[u64]) -> Vec<u8> {
        let ours = self.digest(theirs.len());
        let differing: Vec<bool> = ours.iter().zip(theirs).map(|(a, b)| a != b).collect();
        let mut blob = BlobWriter::answer(self.me.id);
        blob.record(&self.own_record());
        // From a random place, so that a table too large for one answer is told whole over several.
        let start = NodeId(self.rng.next() % (self.table.highest().map_or(0, |id| id.0).saturating_add(1)));
        let (before, after): (Vec<_>, Vec<_>) = self.table.iter().partition(|(id, _)| *id < start);
        let mut more = false;
        for (id, entry) in after.into_iter().chain(before) {
            if differing[bucket_of(id, differing.len())] && !blob.record(&entry.record(id, self.now)) {
                more = true;
                break;
            }
        }
        blob.finish_answer(&differing, more)
    }

    /// The answer to our comparison: take what is new in it, and push what they lack.
    pub(crate) fn answered(&mut self, with: SocketAddr, bytes: &[u8], effects: &mut Vec<Effect>) {
        if bytes.is_empty() {
            return;
        }
        let Ok(blob) = decode_blob(bytes) else {
            self.counters.malformed += 1;
            return;
        };
        let BlobKind::Answer { differing, more } = blob.kind else { return };
        let theirs: BTreeMap<NodeId, &Record<'_>> = blob.records.iter().map(|it| (it.rumour.id, it)).collect();
        let mut push = BlobWriter::push(self.me.id);
        let mut pushed = 0;
        for (id, entry) in self.table.iter() {
            let lacks = theirs.get(&id).is_none_or(|record| is_older(record, entry));
            if !more && lacks && differing[bucket_of(id, differing.len())] && push.record(&entry.record(id, self.now)) {
                pushed += 1;
            }
        }
        let news = blob.records.iter().filter(|record| self.is_news(record)).count();
        if pushed > 0 {
            effects.push(Effect::PushPull { with, bytes: push.finish() });
        }
        for record in &blob.records {
            let via = if record.rumour.id == blob.from { Via::Gossip } else { Via::Sync };
            self.introduce(record, via, effects);
        }
        if more && news > 0 {
            self.compare_with(with, effects);
        } else if news > 0 {
            self.compare_soon();
        }
    }

    fn is_news(&self, record: &Record<'_>) -> bool {
        let id = record.rumour.id;
        id != self.me.id && self.table.get(id).is_none_or(|entry| is_newer(record, entry))
    }

    /// Company was found: no more searching.
    pub(crate) fn found_company(&mut self) {
        self.due.rejoin = None;
        self.rejoin_pause = self.config.period;
        self.compare_soon();
    }

    /// Nobody is left: search, from now on.
    pub(crate) fn rejoin_when_alone(&mut self) {
        if self.config.protections.rejoin && self.table.live().is_empty() && self.due.rejoin.is_none() {
            self.rejoin_pause = self.config.period;
            self.due.rejoin = Some(self.now + self.rng.around(self.rejoin_pause));
        }
    }

    /// Asks seeds, and whoever was known before.
    pub(crate) fn rejoin(&mut self, effects: &mut Vec<Effect>) {
        self.due.rejoin = None;
        let mut known = self.seeds.clone();
        let lost = self.table.iter().filter(|(_, entry)| entry.status == Status::Dead);
        known.extend(lost.map(|(_, entry)| entry.description.addr).take(64));
        known.sort();
        known.dedup();
        self.rng.shuffle(&mut known);
        for with in known.into_iter().take(ASKED_AT_ONCE) {
            self.compare_with(with, effects);
        }
        if self.config.protections.rejoin && self.table.live().is_empty() {
            self.due.rejoin = Some(self.now + self.rng.around(self.rejoin_pause));
            self.rejoin_pause = (self.rejoin_pause * 2).min(REJOIN_PAUSE_MAX);
        }
    }
}

fn bucket_of(id: NodeId, buckets: usize) -> usize {
    (mix(id.0) % buckets as u64) as usize
}

fn standing(record: &Record<'_>) -> ((u64, Status), (u64, u64)) {
    let rumour = &record.rumour;
    ((rumour.incarnation, rumour.status), (record.described, hash(record.description)))
}

fn is_newer(record: &Record<'_>, entry: &Entry) -> bool {
    let (rank, edition) = standing(record);
    rank > entry.rank() || edition > entry.edition()
}

fn is_older(record: &Record<'_>, entry: &Entry) -> bool {
    let (rank, edition) = standing(record);
    rank < entry.rank() || edition < entry.edition()
}
