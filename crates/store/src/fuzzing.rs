//! Doors for fuzzing, in no other build.

use state::{Command, State};

use crate::record::{Kind, decode, encode, seal, unseal};

/// A record that is read from a damaged disk; one whose checksum is right, whatever it says; and a log of such, from its beginning.
pub fn record(input: &[u8]) {
    let Some((what, bytes)) = input.split_first() else { return };
    match what % 4 {
        0 => {
            let _ = decode::<Command>(Kind::Command, 7, bytes);
            let _ = unseal(Kind::SharedEntry, 7, bytes);
        }
        1 => drop(state(&seal(Kind::Snapshot, 7, bytes))),
        _ => log(bytes),
    }
}

/// What is read as a state is written so that it is read as the same.
fn state(record: &[u8]) -> Result<State, String> {
    let state = decode::<State>(Kind::Snapshot, 7, record)?;
    let again = encode(Kind::Snapshot, 7, &state).expect("plain values");
    assert_eq!(decode::<State>(Kind::Snapshot, 7, &again).as_ref(), Ok(&state));
    Ok(state)
}

/// Commands, each after its length (big-endian, two bytes). Whatever was written is applied, or refused.
fn log(mut rest: &[u8]) {
    let (mut state_now, mut index) = (State::default(), 0);
    while let [high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (bytes, next) = after.split_at(length);
        rest = next;
        index += 1;
        let Ok(command) = decode::<Command>(Kind::Command, index, &seal(Kind::Command, index, bytes)) else { continue };
        let again = encode(Kind::Command, index, &command).expect("plain values");
        assert_eq!(decode::<Command>(Kind::Command, index, &again), Ok(command.clone()));
        state::apply(&mut state_now, index, &command);
        assert_eq!(state_now.index, index);
    }
    if index > 0 {
        let record = encode(Kind::Snapshot, 7, &state_now).expect("plain values");
        assert_eq!(state(&record).as_ref(), Ok(&state_now), "a snapshot is the state");
    }
}
