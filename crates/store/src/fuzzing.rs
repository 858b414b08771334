//! Doors for fuzzing, in no other build.

use state::{Command, State};

use crate::record::{Kind, decode, encode, seal, unseal};

/// A record that is read from a damaged disk, and one whose checksum is right whatever it says.
pub fn record(input: &[u8]) {
    let Some((what, bytes)) = input.split_first() else { return };
    let _ = decode::<Command>(Kind::Command, 7, bytes);
    let _ = unseal(Kind::SharedEntry, 7, bytes);
    if what % 2 == 0 {
        if let Ok(command) = decode::<Command>(Kind::Command, 7, &seal(Kind::Command, 7, bytes)) {
            let again = encode(Kind::Command, 7, &command).expect("plain values");
            assert_eq!(decode::<Command>(Kind::Command, 7, &again), Ok(command.clone()));
            // Whatever was written is applied, or refused.
            state::apply(&mut State::default(), 7, &command);
        }
    } else {
        let _ = decode::<State>(Kind::Snapshot, 7, &seal(Kind::Snapshot, 7, bytes));
    }
}
