//! How commands and snapshots are written: version, checksum, MessagePack with named fields.
//!
//! A record that was ever released is read for ever: [`v1`] is never edited, a new form gets a module of its own and a
//! new first byte. Within a version, fields may be added with a default, since they are written by name.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a record is; part of its checksum, so one cannot pass for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Command,
    Snapshot,
    /// One entry of the log that several machines share.
    SharedEntry,
    /// What is remembered beside that log: a vote, marks.
    SharedHead,
    /// The state at the beginning of that log.
    SharedSnapshot,
}

/// The bytes of `value` as record `index`, in the newest version.
pub(crate) fn encode<T: Serialize>(kind: Kind, index: u64, value: &T) -> Result<Vec<u8>, String> {
    v1::encode(kind, index, value)
}

/// Reads a record of any version. The error says what is wrong with it.
pub(crate) fn decode<T: DeserializeOwned>(kind: Kind, index: u64, bytes: &[u8]) -> Result<T, String> {
    match bytes.first() {
        Some(&v1::VERSION) => v1::decode(kind, index, bytes),
        Some(version) => Err(format!("record {index} has the unknown version {version}")),
        None => Err(format!("record {index} is empty")),
    }
}

/// Bytes that have a meaning of their own, under the same checksum.
pub(crate) fn seal(kind: Kind, index: u64, payload: &[u8]) -> Vec<u8> {
    v1::seal(kind, index, payload)
}

/// What [`seal`] was given, of any version.
pub(crate) fn unseal(kind: Kind, index: u64, bytes: &[u8]) -> Result<&[u8], String> {
    match bytes.first() {
        Some(&v1::VERSION) => v1::unseal(kind, index, bytes),
        Some(version) => Err(format!("record {index} has the unknown version {version}")),
        None => Err(format!("record {index} is empty")),
    }
}

/// `1 | checksum (16) | payload`. The checksum is the first half of BLAKE3 over the kind, the index (little-endian)
/// and the payload: with the index in it, a record in another's place is found out as well as a flipped bit.
mod v1 {
    use super::{DeserializeOwned, Kind, Serialize};

    pub(super) const VERSION: u8 = 1;
    const CHECKSUM_BYTES: usize = 16;
    const HEAD_BYTES: usize = 1 + CHECKSUM_BYTES;

    pub(super) fn encode<T: Serialize>(kind: Kind, index: u64, value: &T) -> Result<Vec<u8>, String> {
        let mut bytes = vec![VERSION; HEAD_BYTES];
        let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
        value.serialize(&mut serializer).map_err(|error| error.to_string())?;
        let checksum = checksum(kind, index, &bytes[HEAD_BYTES..]);
        bytes[1..HEAD_BYTES].copy_from_slice(&checksum);
        Ok(bytes)
    }

    pub(super) fn decode<T: DeserializeOwned>(kind: Kind, index: u64, bytes: &[u8]) -> Result<T, String> {
        let payload = unseal(kind, index, bytes)?;
        rmp_serde::from_slice(payload).map_err(|error| format!("record {index} cannot be decoded: {error}"))
    }

    pub(super) fn seal(kind: Kind, index: u64, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&checksum(kind, index, payload));
        bytes.extend_from_slice(payload);
        bytes
    }

    pub(super) fn unseal(kind: Kind, index: u64, bytes: &[u8]) -> Result<&[u8], String> {
        let (head, payload) =
            bytes.split_at_checked(HEAD_BYTES).ok_or_else(|| format!("record {index} is cut short"))?;
        if checksum(kind, index, payload) != head[1..] {
            return Err(format!("record {index} fails its checksum"));
        }
        Ok(payload)
    }

    fn checksum(kind: Kind, index: u64, payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(match kind {
            Kind::Command => b"C",
            Kind::Snapshot => b"S",
            Kind::SharedEntry => b"E",
            Kind::SharedHead => b"H",
            Kind::SharedSnapshot => b"s",
        });
        hasher.update(&index.to_le_bytes());
        hasher.update(payload);
        let mut checksum = [0; CHECKSUM_BYTES];
        checksum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_BYTES]);
        checksum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::one_of_each;
    use state::{Command, State};

    const VALUE: (&str, u64) = ("web", 3);

    #[test]
    fn a_record_reads_back_only_as_itself() {
        let bytes = encode(Kind::Command, 7, &VALUE).unwrap();
        let read = |kind, index| decode::<(String, u64)>(kind, index, &bytes);
        assert_eq!(read(Kind::Command, 7).unwrap(), ("web".to_owned(), 3));
        assert!(read(Kind::Command, 8).is_err());
        assert!(read(Kind::Snapshot, 7).is_err());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_detected() {
        let bytes = encode(Kind::Command, 7, &VALUE).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(decode::<(String, u64)>(Kind::Command, 7, &damaged).is_err(), "byte {at} bit {bit}");
            }
            assert!(decode::<(String, u64)>(Kind::Command, 7, &bytes[..at]).is_err(), "cut at {at}");
        }
    }

    /// Records as they were written when version 1 was released: `index hex` a line. They must be read for ever; a line
    /// may be added (`RADS_GOLDEN=1` prints those of today), none may be changed.
    #[test]
    fn records_of_the_first_version_are_still_read() {
        let commands = one_of_each();
        if std::env::var_os("RADS_GOLDEN").is_some() {
            for (index, command) in (1..).zip(&commands) {
                println!("{index} {}", hex(&encode(Kind::Command, index, command).unwrap()));
            }
        }
        let golden = include_str!("../tests/golden/log-v1.txt").lines().map(|line| line.split_once(' ').unwrap());
        let mut read = 0;
        for (index, text) in golden {
            let index: u64 = index.parse().unwrap();
            let command: Command = decode(Kind::Command, index, &bytes_of(text)).unwrap();
            assert_eq!(command, commands[index as usize - 1]);
            read += 1;
        }
        assert_eq!(read, commands.len());
    }

    /// The state after the first seven of those commands, before the app is removed, likewise.
    #[test]
    fn a_snapshot_of_the_first_version_is_still_read() {
        let mut state = State::default();
        let commands = one_of_each();
        for (index, command) in (1..).zip(&commands[..7]) {
            state::apply(&mut state, index, command);
        }
        if std::env::var_os("RADS_GOLDEN").is_some() {
            println!("{}", hex(&encode(Kind::Snapshot, state.index, &state).unwrap()));
        }
        let golden = include_str!("../tests/golden/snapshot-v1.txt").trim();
        let read: State = decode(Kind::Snapshot, state.index, &bytes_of(golden)).unwrap();
        // What the same commands lead to may change, what was stored may not: only what holds for both is compared.
        for service in state.services.values_mut() {
            service.restarts_by.clear();
            service.versions.clear();
            (service.version, service.since, service.rollout) = (1, model::WallTime::default(), None);
        }
        assert_eq!((read.index, &read.apps, &read.services), (state.index, &state.apps, &state.services));
        assert!(read.stars.keys().eq(state.stars.keys()) && !read.events.is_empty());
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn bytes_of(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }
}
