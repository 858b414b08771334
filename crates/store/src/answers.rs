//! What this machine did under idempotency keys that no log tells of, and what it answered: snapshots, which lie here.
//!
//! Noted on disk before it is begun and again when it is done. What an agent began and did not end is known to the next one as such:
//! it is not done again unasked. The file is written as a whole, a few kilobytes each time.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use model::{Code, IdempotencyKey, Once, Problem, WallTime};
use serde::{Deserialize, Serialize};

use crate::fault;
use crate::secrets::write_whole;

/// Keys kept at most: an answer has a kilobyte, or a hundred for a thousand stars.
const KEPT_MAX: usize = 100;
/// The same as in a log: `state::keys`.
const KEPT_AT_MOST_MS: u64 = 24 * 3600 * 1000;
const KEPT_AT_LEAST_MS: u64 = 60 * 1000;
/// Largest file that is read.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// What is known of a request that came under a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Known {
    /// Nothing: it is noted that it begins now.
    Fresh,
    UnderWay,
    /// An agent began it, and ended before it was done.
    CutShort,
    /// With what was answered, as text.
    Done(Result<String, Problem>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    key: IdempotencyKey,
    request: model::ContentHash,
    begun: WallTime,
    answer: Option<Result<String, Problem>>,
}

#[derive(Debug)]
pub struct Answers {
    path: PathBuf,
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Oldest first.
    entries: VecDeque<Entry>,
    /// Begun by this process.
    under_way: BTreeSet<IdempotencyKey>,
}

impl Answers {
    /// Those of a data folder. Nothing is read yet.
    pub fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join("answers"), kept: Mutex::default() }
    }

    /// What is known of a request; when nothing is, it is on disk that it begins.
    ///
    /// # Errors
    /// `AlreadyExists` for another request under a known key; `Unavailable` while there are too many; `DataCorrupt`, `DataUnwritable`.
    pub fn begin(&self, once: &Once, now: WallTime) -> Result<Known, Problem> {
        self.with(|path, kept| {
            if let Some(entry) = kept.entries.iter().find(|entry| entry.key == once.key) {
                if entry.request != once.request {
                    let message = format!("idempotency key `{}` was used for another request", once.key);
                    let problem = Problem::new(Code::AlreadyExists, message);
                    return Err(problem.help("a new request takes a new key; nothing was changed by this one"));
                }
                return Ok(match &entry.answer {
                    Some(answer) => Known::Done(answer.clone()),
                    None if kept.under_way.contains(&once.key) => Known::UnderWay,
                    None => Known::CutShort,
                });
            }
            kept.make_room(now)?;
            let Once { key, request } = once.clone();
            kept.entries.push_back(Entry { key, request, begun: now, answer: None });
            kept.write(path).inspect_err(|_| drop(kept.entries.pop_back()))?;
            kept.under_way.insert(once.key.clone());
            Ok(Known::Fresh)
        })
    }

    /// Keeps an answer.
    ///
    /// # Errors
    /// `DataUnwritable`: this process knows it, and the next one will not.
    pub fn end(&self, once: &Once, answer: Result<String, Problem>) -> Result<(), Problem> {
        self.with(|path, kept| {
            kept.under_way.remove(&once.key);
            if let Some(entry) = kept.entries.iter_mut().find(|entry| entry.key == once.key) {
                entry.answer = Some(answer);
            }
            kept.write(path)
        })
    }

    fn with<T>(&self, with: impl FnOnce(&Path, &mut Kept) -> Result<T, Problem>) -> Result<T, Problem> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = match &mut *kept {
            Some(kept) => kept,
            none => none.insert(Kept { entries: read(&self.path)?, under_way: BTreeSet::new() }),
        };
        with(&self.path, kept)
    }
}

impl Kept {
    fn make_room(&mut self, now: WallTime) -> Result<(), Problem> {
        while let Some(oldest) = self.entries.front() {
            let age = now.0.saturating_sub(oldest.begun.0);
            let is_full = self.entries.len() >= KEPT_MAX;
            if age <= KEPT_AT_MOST_MS && !is_full {
                break;
            }
            if age < KEPT_AT_LEAST_MS || self.under_way.contains(&oldest.key) {
                let message = format!("{KEPT_MAX} requests about snapshots with idempotency keys came within a minute");
                let problem = Problem::new(Code::Unavailable, message);
                return Err(problem.help("wait a minute, or send this one without a key; nothing was changed"));
            }
            self.entries.pop_front();
        }
        Ok(())
    }

    fn write(&self, path: &Path) -> Result<(), Problem> {
        let bytes = rmp_serde::to_vec_named(&self.entries);
        let bytes = bytes.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        write_whole(&path.with_extension("unfinished"), path, &bytes)
            .map_err(|error| fault::problem("write", path, &error))
    }
}

fn read(path: &Path) -> Result<VecDeque<Entry>, Problem> {
    let damaged = |what: &dyn std::fmt::Display| {
        let message = format!("`{}`, by which nothing is done twice, is damaged: {what}", path.display());
        Problem::new(Code::DataCorrupt, message).help("remove it, when nobody is waiting for an answer")
    };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(VecDeque::new()),
        Ok(metadata) if metadata.len() > FILE_MAX_BYTES => return Err(damaged(&"it is too long")),
        other => other.map_err(|error| fault::problem("read", path, &error))?,
    };
    let bytes = fs::read(path).map_err(|error| fault::problem("read", path, &error))?;
    rmp_serde::from_slice(&bytes).map_err(|error| damaged(&error))
}

#[cfg(test)]
mod tests {
    use model::ContentHash;

    use super::*;

    fn once(key: &str, request: u8) -> Once {
        Once { key: key.parse().unwrap(), request: ContentHash([request; 32]) }
    }

    #[test]
    fn a_request_is_begun_once_and_its_answer_outlives_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        let answers = Answers::new(folder.path());
        let (now, refused) = (WallTime(9), Problem::new(Code::Conflict, "no"));
        assert_eq!(answers.begin(&once("a", 1), now), Ok(Known::Fresh));
        assert_eq!(answers.begin(&once("a", 1), now), Ok(Known::UnderWay));
        assert_eq!(answers.begin(&once("a", 2), now).unwrap_err().code, Code::AlreadyExists);
        answers.end(&once("a", 1), Ok("7".to_owned())).unwrap();
        assert_eq!(answers.begin(&once("b", 1), now), Ok(Known::Fresh));
        answers.end(&once("b", 1), Err(refused.clone())).unwrap();
        assert_eq!(answers.begin(&once("c", 1), now), Ok(Known::Fresh));
        // The next agent: of the last one nobody knows what became of it.
        let answers = Answers::new(folder.path());
        assert_eq!(answers.begin(&once("a", 1), now), Ok(Known::Done(Ok("7".to_owned()))));
        assert_eq!(answers.begin(&once("b", 1), now), Ok(Known::Done(Err(refused))));
        assert_eq!(answers.begin(&once("c", 1), now), Ok(Known::CutShort));
        // The control: another key is another request.
        assert_eq!(answers.begin(&once("d", 1), now), Ok(Known::Fresh));
    }

    #[test]
    fn what_is_kept_is_bounded_and_none_goes_within_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let answers = Answers::new(folder.path());
        let put = |key: &str, now: u64| {
            let begun = answers.begin(&once(key, 1), WallTime(now));
            if begun == Ok(Known::Fresh) {
                answers.end(&once(key, 1), Ok(String::new())).unwrap();
            }
            begun
        };
        for n in 0..KEPT_MAX {
            assert_eq!(put(&format!("k{n}"), 0), Ok(Known::Fresh));
        }
        assert_eq!(put("more", KEPT_AT_LEAST_MS - 1).unwrap_err().code, Code::Unavailable);
        assert_eq!(put("more", KEPT_AT_LEAST_MS), Ok(Known::Fresh));
        assert_eq!(put("k1", KEPT_AT_LEAST_MS), Ok(Known::Done(Ok(String::new()))));
        // The oldest is forgotten.
        assert_eq!(put("k0", KEPT_AT_LEAST_MS), Ok(Known::Fresh));
        put("late", KEPT_AT_MOST_MS * 3).unwrap();
        assert_eq!(read(&answers.path).unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_file_is_no_reason_to_do_anything_twice() {
        let folder = tempfile::tempdir().unwrap();
        Answers::new(folder.path()).begin(&once("a", 1), WallTime(0)).unwrap();
        fs::write(folder.path().join("answers"), [0xdd, 1]).unwrap();
        let problem = Answers::new(folder.path()).begin(&once("b", 1), WallTime(0)).unwrap_err();
        assert!(problem.code == Code::DataCorrupt && problem.message.contains("answers"), "{problem}");
    }
}
