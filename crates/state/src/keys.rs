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

    fn note(&mut self, index: u64, once: &Once, wall: WallTime, problem: Option<Problem>) {
        self.by_key.insert(once.key.clone(), index);
        self.by_index.insert(index, Outcome { key: once.key.clone(), request: once.request, wall, problem });
    }
}

/// Applies what is asked for under a key, unless that was done.
pub(crate) fn apply_once(state: &mut State, index: u64, once: &Once, command: &Command, wall: WallTime) -> Vec<Change> {
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
    if let Err(problem) = state.keys.make_room(wall) {
        return vec![Change::Refused { problem }];
    }
    let changes = apply(state, index, command);
    let problem = changes.iter().find_map(|change| match change {
        Change::Refused { problem } => Some(problem.clone()),
        _ => None,
    });
    state.keys.note(index, once, wall, problem);
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
        Command::Keyed { once: once(key, request), command: Box::new(command), wall: WallTime(wall) }
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
}
