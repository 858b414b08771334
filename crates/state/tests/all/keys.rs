//! Changes that are asked for under a key happen once.

use model::{Code, ContentHash, NodeId, Once, ServiceKey, WallTime};
use state::keys::{ANSWER_MAX_BYTES, ANSWERS_MAX, KEPT_AT_LEAST_MS, KEPT_AT_MOST_MS, KEYS_MAX};
use state::{Change, Command, State, apply};

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
    assert_eq!(state.keys.len(), 2);
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
}
