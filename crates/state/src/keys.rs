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

#[cfg(test)]
mod tests {
    use model::{NodeId, ServiceKey};

    use super::*;

    fn once(key: &str, request: u8) -> Once {
        Once { key: key.parse().unwrap(), request: ContentHash([request; 32]) }
    }

    /// A change that is refused, but for a machine in no constellation.
    fn refused() -> Command {
        Command::Restart { service: ServiceKey::in_default("web".parse().unwrap()), wall: WallTime(0) }
    }

    fn keyed(key: &str, request: u8, wall: u64, command: Command) -> Command {
        Command::Keyed { once: once(key, request), command: Box::new(command), wall: WallTime(wall), answer: None }
    }

    fn answered(key: &str, request: u8, wall: u64, command: Command, answer: &[u8]) -> Command {
        match keyed(key, request, wall, command) {
            Command::Keyed { once, command, wall, .. } => {
                Command::Keyed { once, command, wall, answer: Some(answer.to_vec()) }
            }
            other => other,
        }
    }

    /// A change that holds, and can be counted: each is an event.
    fn noted() -> Command {
        Command::SecretsRead { secrets: Vec::new(), uid: 0, star: None, wall: WallTime(0) }
    }

    #[test]
    fn a_change_under_a_key_is_applied_once_and_answered_alike() {
        let mut state = State::default();
        assert_eq!(apply(&mut state, 5, &keyed("k", 1, 0, noted())), vec![]);
        assert_eq!(apply(&mut state, 6, &keyed("k", 1, 9, noted())), vec![Change::Repeated { index: 5 }]);
        assert_eq!((state.events.len(), state.index), (1, 6));
        assert_eq!(state.keys.outcome(&once("k", 1)), Some(Ok(5)));
        // The control: without a key it happens as often as it is asked for.
        apply(&mut state, 7, &noted());
        apply(&mut state, 8, &noted());
        assert_eq!(state.events.len(), 3);
    }

    #[test]
    fn a_refusal_is_kept_though_it_would_hold_by_now() {
        let mut state = State::default();
        let first = apply(&mut state, 5, &keyed("k", 1, 0, refused()));
        assert!(matches!(&first[..], [Change::Refused { problem }] if problem.code == Code::NotFound));
        assert_eq!(apply(&mut state, 6, &keyed("k", 1, 0, noted())), first);
        assert!(state.events.is_empty());
    }

    #[test]
    fn another_request_under_a_key_is_refused_and_changes_nothing() {
        let mut state = State::default();
        apply(&mut state, 5, &keyed("k", 1, 0, noted()));
        let before = State { index: 6, ..state.clone() };
        let changes = apply(&mut state, 6, &keyed("k", 2, 0, noted()));
        assert!(matches!(&changes[..], [Change::Refused { problem }] if problem.code == Code::AlreadyExists));
        assert_eq!(state, before);
    }

    #[test]
    fn a_plan_or_a_key_within_a_key_is_refused() {
        let mut state = State::default();
        let nested = keyed("a", 1, 0, keyed("b", 1, 0, noted()));
        let lose = keyed("c", 1, 0, Command::LoseNode { node: NodeId(1), wall: WallTime(0) });
        for command in [nested, lose] {
            let changes = apply(&mut state, 5, &command);
            assert!(matches!(&changes[..], [Change::Refused { problem }] if problem.code == Code::InvalidValue));
        }
        assert!(state.keys.is_empty() && state.events.is_empty());
    }

    #[test]
    fn keys_are_bounded_by_age_and_count_and_none_goes_within_a_minute() {
        let mut state = State::default();
        let mut index = 0;
        let mut put = |state: &mut State, key: String, wall: u64| {
            index += 1;
            apply(state, index, &keyed(&key, 1, wall, noted()))
        };
        for n in 0..KEYS_MAX {
            put(&mut state, format!("k{n}"), n as u64);
        }
        assert_eq!(state.keys.len(), KEYS_MAX);
        let changes = put(&mut state, "one-more".to_owned(), KEPT_AT_LEAST_MS - 1);
        assert!(matches!(&changes[..], [Change::Refused { problem }] if problem.code == Code::Unavailable));
        assert_eq!(state.keys.outcome(&once("k0", 1)), Some(Ok(1)));
        assert_eq!(put(&mut state, "one-more".to_owned(), KEPT_AT_LEAST_MS), vec![]);
        assert_eq!((state.keys.len(), state.keys.outcome(&once("k0", 1))), (KEYS_MAX, None));
        assert_eq!(state.keys.outcome(&once("k1", 1)), Some(Ok(2)));
        // A day later nothing of that is kept; a clock that goes back keeps all.
        put(&mut state, "late".to_owned(), KEPT_AT_MOST_MS * 3);
        assert_eq!(state.keys.len(), 1);
        put(&mut state, "back".to_owned(), 0);
        assert_eq!((state.keys.len(), state.keys.by_key.len()), (2, 2));
    }

    #[test]
    fn the_first_answer_is_kept_for_who_asks_again_for_the_same() {
        let mut state = State::default();
        apply(&mut state, 5, &answered("k", 1, 0, noted(), b"first"));
        apply(&mut state, 6, &answered("k", 1, 0, noted(), b"second"));
        assert_eq!((state.keys.answer(&once("k", 1)), state.events.len()), (Some(&b"first"[..]), 1));
        assert_eq!((state.keys.answer(&once("k", 2)), state.keys.answer(&once("l", 1))), (None, None));
        // What was refused has none, nor what nobody gave one.
        apply(&mut state, 7, &answered("r", 1, 0, refused(), b"x"));
        apply(&mut state, 8, &keyed("n", 1, 0, noted()));
        assert_eq!((state.keys.answer(&once("r", 1)), state.keys.answer(&once("n", 1))), (None, None));
    }

    #[test]
    fn answers_are_bounded_by_length_and_count() {
        let mut state = State::default();
        let long = apply(&mut state, 1, &answered("l", 1, 0, noted(), &vec![7; ANSWER_MAX_BYTES + 1]));
        assert!(matches!(&long[..], [Change::Refused { problem }] if problem.code == Code::InvalidValue));
        apply(&mut state, 2, &keyed("plain", 1, 0, noted()));
        for n in 0..ANSWERS_MAX as u64 {
            assert_eq!(apply(&mut state, 3 + n, &answered(&format!("k{n}"), 1, 0, noted(), b"x")), vec![], "{n}");
        }
        let changes = apply(&mut state, 5_000, &answered("more", 1, KEPT_AT_LEAST_MS - 1, noted(), b"x"));
        assert!(matches!(&changes[..], [Change::Refused { problem }] if problem.code == Code::Unavailable));
        // The control: there is room for those without.
        assert_eq!(apply(&mut state, 5_001, &keyed("other", 1, KEPT_AT_LEAST_MS - 1, noted())), vec![]);
        assert_eq!(apply(&mut state, 5_002, &answered("more", 1, KEPT_AT_LEAST_MS, noted(), b"x")), vec![]);
        assert_eq!((state.keys.outcome(&once("k0", 1)), state.keys.answer(&once("k1", 1))), (None, Some(&b"x"[..])));
        assert_eq!(state.keys.outcome(&once("plain", 1)), Some(Ok(2)));
        assert_eq!(state.keys.len(), state.keys.by_key.len());
    }
}
