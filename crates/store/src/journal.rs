//! Files that are only ever appended to, one commit a frame, one sync a commit.
//!
//! A segment is a file `journal-N`, N the number of the last commit before it. It begins with eight bytes that say what it is
//! and with a head: whatever its user needs from before, so that older segments can go. Commits follow, numbered without a
//! gap. Every frame is
//!
//! `length of the frame (4) | number (8) | checksum (16) | payload`
//!
//! little-endian; the checksum is the first half of BLAKE3 over the frame's kind, number and payload. A length of zero is the
//! end: files grow by many zeros at once, so that most syncs have nothing to say about the file itself.
//!
//! The last segment may end in what a power cut left of a commit that nobody was told of. Anything else that does not read
//! as it was written is damage: in an older segment, because a newer one begins only after all before it was synced; before
//! another whole frame, for the same reason; and whatever the user's tip says was acknowledged.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use crate::disk::Disk;
use crate::folder::{Failure, Folder};

/// A segment is followed by another when it is this long.
pub(crate) const SEGMENT_BYTES: u64 = 4 << 20;
/// What a segment grows by. Each time, the file system notes the new length with a sync of its own.
const GROW_BYTES: u64 = 1 << 20;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// A buffer for frames is kept if it is no larger.
const BUFFER_BYTES: usize = 256 << 10;

/// What a segment begins with: its format, and in the last byte the version of that.
const MAGIC: [u8; 8] = *b"RADSLOG\x01";
const CHECKSUM_BYTES: usize = 16;
const FRAME_BYTES: usize = 4 + 8 + CHECKSUM_BYTES;
const PREFIX: &str = "journal-";
const UNFINISHED: &str = "journal.new";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first frame of a segment that continues the one before it.
    Head,
    /// The first frame of one that stands alone: what lies before it is over.
    Beginning,
    Commit,
}

/// One file.
#[derive(Debug, Clone, Copy)]
struct Segment {
    number: u64,
    /// The highest index of an entry in it, as its user says.
    highest: u64,
}

/// What a process that ended left in the files and nobody needs.
#[derive(Debug, Default)]
struct Remains {
    /// The last segment ends in a part of a commit.
    torn: bool,
    /// Segments before the one that stands alone.
    over: Vec<u64>,
}

/// The segments of a folder, the last one open.
#[derive(Debug)]
pub(crate) struct Journal {
    /// Oldest first, never none.
    segments: VecDeque<Segment>,
    disk: Disk,
    /// Where the next frame goes.
    at: u64,
    /// Up to where the file is zeros from there.
    grown: u64,
    /// The last commit.
    number: u64,
    remains: Remains,
    buffer: Vec<u8>,
}

impl Journal {
    /// Reads every frame in its order and opens the last segment; changes nothing. `None` where nothing was begun. Whoever reads
    /// says the highest index of a frame's entries, 0 when it has none. Call [`Journal::clear`] before anything is written.
    pub(crate) fn open(
        folder: &Folder,
        mut read: impl FnMut(Kind, u64, &[u8]) -> Result<u64, Failure>,
    ) -> Result<Option<Self>, Failure> {
        let mut files = Vec::new();
        for number in numbers(folder)? {
            files.push((number, fs::read(folder.path(&name(number)))?));
        }
        let begins = |(number, bytes): &(u64, Vec<u8>)| {
            Frames(bytes).head(*number).is_some_and(|(kind, ..)| kind == Kind::Beginning)
        };
        let over = files.iter().rposition(begins).unwrap_or(0);
        let mut segments = VecDeque::new();
        let (mut number, mut at, mut length, mut torn) = (0, 0, 0, false);
        for (first, bytes) in &files[over..] {
            let (first, frames) = (*first, Frames(bytes));
            let damaged = |what: &str| Failure::Corrupt(format!("{what} of `{}`", name(first)));
            let (kind, head, next) = frames.head(first).ok_or_else(|| damaged("the beginning"))?;
            if !segments.is_empty() && number != first {
                return Err(Failure::Corrupt(format!("`{}` follows commit {number}", name(first))));
            }
            let mut segment = Segment { number: first, highest: read(kind, first, head)? };
            (number, at, length) = (first, next, bytes.len());
            while let Some((commit, next)) = frames.at(at, Kind::Commit, number + 1) {
                (number, at) = (number + 1, next);
                segment.highest = segment.highest.max(read(Kind::Commit, number, commit)?);
            }
            if frames.after(at).is_some_and(|next| frames.at(next, Kind::Commit, number + 2).is_some()) {
                return Err(damaged(&format!("commit {}", number + 1)));
            }
            torn = bytes[at..].iter().any(|byte| *byte != 0);
            segments.push_back(segment);
        }
        let Some(Segment { number: last, .. }) = segments.back().copied() else { return Ok(None) };
        let file = OpenOptions::new().read(true).write(true).open(folder.path(&name(last)))?;
        let disk = Disk::new(file, Arc::clone(folder.faults()));
        let remains = Remains { torn, over: files[..over].iter().map(|(number, _)| *number).collect() };
        let (at, grown) = (at as u64, length as u64);
        Ok(Some(Self { segments, disk, at, grown, number, remains, buffer: Vec::new() }))
    }

    /// Takes away what a power cut left of a commit, and segments that are over. For who is sure that nothing is damaged.
    pub(crate) fn clear(&mut self, folder: &Folder) -> Result<(), Failure> {
        let Remains { torn, over } = std::mem::take(&mut self.remains);
        if torn {
            self.cut()?;
            self.disk.sync_data().map_err(|error| Failure::of_sync(&error))?;
        }
        remove(folder, over)
    }

    /// Begins a journal with this payload, as commit `number`. Segments of before, if there are any, are over.
    pub(crate) fn begin(folder: &Folder, number: u64, payload: &[u8], highest: u64) -> Result<Self, Failure> {
        let over = numbers(folder)?;
        let mut buffer = Vec::new();
        let (disk, at, grown) = create(folder, Kind::Beginning, number, &mut buffer, |frame| frame.extend(payload))?;
        remove(folder, over)?;
        let segments = [Segment { number, highest }].into();
        Ok(Self { segments, disk, at, grown, number, remains: Remains::default(), buffer })
    }

    /// The last commit.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether the last segment is long enough to be followed by another.
    pub(crate) fn is_long(&self) -> bool {
        self.at >= SEGMENT_BYTES
    }

    /// Begins another segment, with what its user needs from before. On a failure the last one is as it was.
    pub(crate) fn turn(&mut self, folder: &Folder, head: impl FnOnce(&mut Vec<u8>)) -> Result<(), Failure> {
        (self.disk, self.at, self.grown) = create(folder, Kind::Head, self.number, &mut self.buffer, head)?;
        self.segments.push_back(Segment { number: self.number, highest: 0 });
        Ok(())
    }

    /// Writes the next commit. Durable when it returns; after [`Failure::Full`] the same may be tried again.
    pub(crate) fn append(&mut self, highest: u64, payload: impl FnOnce(&mut Vec<u8>)) -> Result<(), Failure> {
        frame(&mut self.buffer, Kind::Commit, self.number + 1, payload)?;
        let end = self.at + self.buffer.len() as u64;
        let written = self.disk.write(self.at, &self.buffer).and_then(|()| {
            if end > self.grown {
                self.grown = grow(&self.disk, end)?;
            }
            Ok(())
        });
        let written = written.map_err(Failure::from);
        let synced = written.and_then(|()| self.disk.sync_data().map_err(|error| Failure::of_sync(&error)));
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES);
        if let Err(failure) = synced {
            if matches!(failure, Failure::Full) {
                // What was written of it is in nobody's way: the next frame is written over it.
                let _ = self.cut();
            }
            return Err(failure);
        }
        (self.at, self.number) = (end, self.number + 1);
        if let Some(last) = self.segments.back_mut() {
            last.highest = last.highest.max(highest);
        }
        Ok(())
    }

    /// Removes the oldest segments, as long as they have no entry beyond `upto`; never the last one.
    pub(crate) fn drop_upto(&mut self, folder: &Folder, upto: u64) -> Result<(), Failure> {
        let before_last = self.segments.iter().take(self.segments.len() - 1);
        let old = before_last.take_while(|segment| segment.highest <= upto).count();
        remove(folder, self.segments.drain(..old).map(|segment| segment.number))
    }

    /// Ends the file where the next frame goes.
    fn cut(&mut self) -> io::Result<()> {
        self.grown = self.at;
        self.disk.set_len(self.at)
    }
}

/// The bytes of a segment.
struct Frames<'b>(&'b [u8]);

impl<'b> Frames<'b> {
    /// The payload of the first frame, and where the next one begins.
    fn head(&self, number: u64) -> Option<(Kind, &'b [u8], usize)> {
        self.0.starts_with(&MAGIC).then_some(())?;
        [Kind::Head, Kind::Beginning]
            .into_iter()
            .find_map(|kind| self.at(MAGIC.len(), kind, number).map(|(payload, next)| (kind, payload, next)))
    }

    /// The payload of the frame that begins there, if it is whole and this one, and where the next one begins.
    fn at(&self, at: usize, kind: Kind, number: u64) -> Option<(&'b [u8], usize)> {
        let next = self.after(at)?;
        let (head, payload) = self.0.get(at..next)?.split_at_checked(FRAME_BYTES)?;
        let (stored, sum) = head[4..].split_at(8);
        (*stored == number.to_le_bytes() && *sum == checksum(kind, number, payload)).then_some((payload, next))
    }

    /// Where the frame that begins there says that it ends.
    fn after(&self, at: usize) -> Option<usize> {
        let length = self.0.get(at..)?.first_chunk().map(|length| u32::from_le_bytes(*length))?;
        at.checked_add(usize::try_from(length).ok()?).filter(|next| *next >= at + FRAME_BYTES)
    }
}

fn frame(buffer: &mut Vec<u8>, kind: Kind, number: u64, payload: impl FnOnce(&mut Vec<u8>)) -> Result<(), Failure> {
    let begin = buffer.len();
    buffer.resize(begin + FRAME_BYTES, 0);
    payload(buffer);
    let (head, payload) = buffer[begin..].split_at_mut(FRAME_BYTES);
    let length = u32::try_from(FRAME_BYTES + payload.len())
        .map_err(|_| Failure::Fatal(format!("a commit of {} bytes is too large", payload.len())))?;
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..12].copy_from_slice(&number.to_le_bytes());
    head[12..].copy_from_slice(&checksum(kind, number, payload));
    Ok(())
}

fn checksum(kind: Kind, number: u64, payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(match kind {
        Kind::Head => b"H",
        Kind::Beginning => b"B",
        Kind::Commit => b"C",
    });
    hasher.update(&number.to_le_bytes());
    hasher.update(payload);
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_BYTES]);
    checksum
}

/// A new segment, in its place when it is safe. Gives where its next frame goes and how far it is zeros from there.
fn create(
    folder: &Folder,
    kind: Kind,
    number: u64,
    buffer: &mut Vec<u8>,
    head: impl FnOnce(&mut Vec<u8>),
) -> Result<(Disk, u64, u64), Failure> {
    let unfinished = folder.path(UNFINISHED);
    buffer.clear();
    buffer.extend(MAGIC);
    frame(buffer, kind, number, head)?;
    let at = buffer.len() as u64;
    let write = || {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        let disk = Disk::new(file, Arc::clone(folder.faults()));
        disk.write(0, buffer)?;
        let grown = grow(&disk, at)?;
        disk.sync_data().map_err(|error| Failure::of_sync(&error))?;
        fs::rename(&unfinished, folder.path(&name(number)))?;
        folder.sync()?;
        Ok((disk, at, grown))
    };
    let created = write().inspect_err(|_: &Failure| drop(fs::remove_file(&unfinished)));
    buffer.clear();
    buffer.shrink_to(BUFFER_BYTES);
    created
}

/// A segment that begins with commit 0, its frames whole and their numbers right, whatever they say.
#[cfg(fuzzing)]
pub(crate) fn segment<'b>(payloads: impl Iterator<Item = &'b [u8]>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (number, payload) in payloads.enumerate() {
        let kind = if number == 0 { Kind::Beginning } else { Kind::Commit };
        let framed = frame(&mut bytes, kind, number as u64, |frame| frame.extend(payload));
        framed.expect("an input has no four gibibytes");
    }
    bytes
}

/// Writes zeros from there on; gives where they end.
fn grow(disk: &Disk, from: u64) -> io::Result<u64> {
    let end = (from + 1).next_multiple_of(GROW_BYTES);
    let mut at = from;
    while at < end {
        let zeros = &ZEROS[..ZEROS.len().min((end - at) as usize)];
        disk.write(at, zeros)?;
        at += zeros.len() as u64;
    }
    Ok(end)
}

fn name(number: u64) -> String {
    format!("{PREFIX}{number:020}")
}

/// Whether a file of this name is a segment.
pub(crate) fn is_segment(file: &str) -> bool {
    number_of(file).is_some()
}

fn number_of(file: &str) -> Option<u64> {
    file.strip_prefix(PREFIX)?.parse().ok()
}

/// Of all segments there, in their order.
fn numbers(folder: &Folder) -> Result<Vec<u64>, Failure> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder.dir())? {
        numbers.extend(entry?.file_name().to_str().and_then(number_of));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Oldest first, each gone for good before the next: what is left follows from something at any time.
fn remove(folder: &Folder, segments: impl IntoIterator<Item = u64>) -> Result<(), Failure> {
    for number in segments {
        match fs::remove_file(folder.path(&name(number))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => folder.sync()?,
        }
    }
    Ok(())
}
