//! Changes that were asked for under a key: each is applied once, and who asks again is told what became of it.
//!
//! What is kept is bounded by count and by age. Age is counted by the times in commands, so it is the same on every node. A key
//! is kept for [`KEPT_AT_LEAST_MS`] whatever comes: while the place is full of younger ones, changes under new keys are
//! refused.

use std::collections::BTreeMap;

use model::{Code, ContentHash, IdempotencyKey, Once, Problem, WallTime};
use serde::{Deserialize, Serialize};

use crate::apply::{Change, apply};
use crate::command::Command;
use crate::record::State;

/// Keys kept at most: at some 200 bytes each, two megabytes of the state.
pub const KEYS_MAX: usize = 10_000;
/// Whoever has not asked again within a day does not.
pub const KEPT_AT_MOST_MS: u64 = 24 * 3600 * 1000;
/// Whoever asks again because an answer did not come does so within seconds.
pub const KEPT_AT_LEAST_MS: u64 = 60 * 1000;

/// Longest answer that is kept.
pub const ANSWER_MAX_BYTES: usize = 16 << 10;
/// Answers kept at most; few changes have one, of one or two kilobytes.
pub const ANSWERS_MAX: usize = 1_000;

/// What became of changes under keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    by_key: BTreeMap<IdempotencyKey, u64>,
    by_index: BTreeMap<u64, Outcome>,
}

/// The index under which it is kept is that of its command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Outcome {
    key: IdempotencyKey,
    request: ContentHash,
    wall: WallTime,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
    /// What whoever asks again is told beside that it was done.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_bytes")]
    answer: Option<Vec<u8>>,
}

/// A change under a key, without what it is.
pub(crate) struct Asked<'a> {
    pub(crate) once: &'a Once,
    pub(crate) wall: WallTime,
    pub(crate) answer: Option<&'a [u8]>,
}

impl Keys {
    pub fn is_empty(&self) -> bool {
        self.by_index.is_empty()
    }

    pub fn len(&self) -> usize {
        self.by_index.len()
    }

    /// What became of a change: the index at which it holds, or why it was refused; nothing when it is not known. Another
    /// request under a known key is a problem.
    pub fn outcome(&self, once: &Once) -> Option<Result<u64, Problem>> {
        let index = *self.by_key.get(&once.key)?;
        let outcome = self.by_index.get(&index)?;
        if outcome.request != once.request {
            let message = format!("idempotency key `{}` was used for another request", once.key);
            let problem = Problem::new(Code::AlreadyExists, message);
            return Some(Err(problem.help("a new request takes a new key; nothing was changed by this one")));
        }
        Some(outcome.problem.clone().map_or(Ok(index), Err))
    }

    /// What was kept to be told of a change that holds.
    pub fn answer(&self, once: &Once) -> Option<&[u8]> {
        let outcome = self.by_index.get(self.by_key.get(&once.key)?)?;
        outcome.answer.as_deref().filter(|_| outcome.request == once.request)
    }

    /// Forgets what is too old, and the oldest when there are too many.
    fn make_room(&mut self, wall: WallTime) -> Result<(), Problem> {
        while let Some(oldest) = self.by_index.first_entry() {
            let age = wall.0.saturating_sub(oldest.get().wall.0);
            let is_full = self.by_key.len() >= KEYS_MAX;
            if age <= KEPT_AT_MOST_MS && !is_full {
                break;
            }
            if age < KEPT_AT_LEAST_MS {
                let message = format!("{KEYS_MAX} changes with idempotency keys came within a minute");
                let problem = Problem::new(Code::Unavailable, message);
                return Err(problem.help("wait a minute, or send this one without a key; nothing was changed"));
            }
            let outcome = oldest.remove();
            self.by_key.remove(&outcome.key);
        }
        Ok(())
    }

    /// The same for those with an answer, which weigh more.
    fn make_room_for_answer(&mut self, answer: &[u8], wall: WallTime) -> Result<(), Problem> {
        if answer.len() > ANSWER_MAX_BYTES {
            let message =
                format!("an answer of {} bytes is kept for nobody, at most {ANSWER_MAX_BYTES} are", answer.len());
            return Err(Problem::new(Code::InvalidValue, message).help("ask without an idempotency key"));
        }
        let mut answers = self.by_index.iter().filter(|(_, outcome)| outcome.answer.is_some());
        let Some((oldest, outcome)) = answers.next().map(|(index, outcome)| (*index, outcome.clone())) else {
            return Ok(());
        };
        if answers.count() + 1 < ANSWERS_MAX {
            return Ok(());
        }
        if wall.0.saturating_sub(outcome.wall.0) < KEPT_AT_LEAST_MS {
            let message = format!("{ANSWERS_MAX} changes whose answers are kept came within a minute");
            let problem = Problem::new(Code::Unavailable, message);
            return Err(problem.help("wait a minute, or send this one without a key; nothing was changed"));
        }
        self.by_index.remove(&oldest);
        self.by_key.remove(&outcome.key);
        Ok(())
    }

    fn note(&mut self, index: u64, asked: &Asked<'_>, problem: Option<Problem>) {
        let Asked { once, wall, answer } = asked;
        // A refusal is all there is to tell.
        let answer = answer.filter(|_| problem.is_none()).map(<[u8]>::to_vec);
        self.by_key.insert(once.key.clone(), index);
        self.by_index
            .insert(index, Outcome { key: once.key.clone(), request: once.request, wall: *wall, problem, answer });
    }
}

/// Applies what is asked for under a key, unless that was done.
pub(crate) fn apply_once(state: &mut State, index: u64, asked: &Asked<'_>, command: &Command) -> Vec<Change> {
    let Asked { once, wall, answer } = asked;
    // Nobody proposes such a thing; whoever does gets the same answer everywhere.
    if matches!(command, Command::Keyed { .. }) || command.is_plan() {
        let problem = Problem::new(Code::InvalidValue, "only a change that somebody asks for has an idempotency key");
        return vec![Change::Refused { problem }];
    }
    match state.keys.outcome(once) {
        Some(Ok(index)) => return vec![Change::Repeated { index }],
        Some(Err(problem)) => return vec![Change::Refused { problem }],
        None => {}
    }
    let room = state.keys.make_room(*wall);
    let room = room.and_then(|()| answer.map_or(Ok(()), |answer| state.keys.make_room_for_answer(answer, *wall)));
    if let Err(problem) = room {
        return vec![Change::Refused { problem }];
    }
    let changes = apply(state, index, command);
    let problem = changes.iter().find_map(|change| match change {
        Change::Refused { problem } => Some(problem.clone()),
        _ => None,
    });
    state.keys.note(index, asked, problem);
    changes
}
