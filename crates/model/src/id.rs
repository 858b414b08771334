//! Typed ids whose text shows their kind: `star_01h5…`, `node_0001…`.
//!
//! The text is the kind, an underscore and 13 characters of Crockford's base 32 (no `i l o u`): 64 bits,
//! sortable as text in the order of the number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::schema::text_schema;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 13 × 5 bits hold the 64 bits of an id.
const DIGITS: usize = 13;

/// The text given is not an id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of the form `{kind}_` and {DIGITS} characters")]
pub struct InvalidId {
    pub text: String,
    pub kind: &'static str,
}

/// Longest kind: every log record and every line of a watch has ids, so they are written without a heap.
const KIND_MAX: usize = 4;

/// The text of an id, made in place.
struct Text {
    bytes: [u8; KIND_MAX + 1 + DIGITS],
    length: usize,
}

impl Text {
    fn new(kind: &'static str, value: u64) -> Self {
        let length = kind.len() + 1 + DIGITS;
        let mut bytes = [b'_'; KIND_MAX + 1 + DIGITS];
        bytes[..kind.len()].copy_from_slice(kind.as_bytes());
        for (digit, byte) in bytes[kind.len() + 1..length].iter_mut().rev().enumerate() {
            *byte = ALPHABET[(value >> (digit * 5)) as usize & 31];
        }
        Self { bytes, length }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).expect("a kind and digits are ASCII")
    }
}

fn decode(kind: &'static str, text: &str) -> Result<u64, InvalidId> {
    let invalid = || InvalidId { text: text.to_owned(), kind };
    let digits = text.strip_prefix(kind).and_then(|rest| rest.strip_prefix('_')).ok_or_else(invalid)?;
    if digits.len() != DIGITS {
        return Err(invalid());
    }
    let mut value: u64 = 0;
    for byte in digits.bytes() {
        let digit = ALPHABET.iter().position(|&a| a == byte).ok_or_else(invalid)? as u64;
        if value >> 59 != 0 {
            return Err(invalid());
        }
        value = value << 5 | digit;
    }
    Ok(value)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Text::new($kind, self.0).as_str())
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                decode($kind, text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(Text::new($kind, self.0).as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }

        text_schema!($name);
    };
}

id!(
    /// One star: one isolated run of a program. A restart makes a new star with a new id.
    StarId,
    "star"
);
id!(
    /// One machine of the constellation. Never reused: it comes from a committed log index.
    NodeId,
    "node"
);
impl NodeId {
    /// A machine in no constellation, and the first node of the one it founds. All others get the index of the command that
    /// admits them, which is greater.
    pub const FIRST: Self = Self(1);
}

id!(
    /// One request a node has taken and will answer once; lives only in memory.
    RequestId,
    "req"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_shows_the_kind_and_reads_back() {
        for value in [0, 1, 31, 32, 0x0123_4567_89ab_cdef, u64::MAX] {
            let id = StarId(value);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!(StarId(1).to_string(), "star_0000000000001");
        assert_eq!(RequestId(u64::MAX).to_string(), "req_fzzzzzzzzzzzz");
    }

    #[test]
    fn other_kinds_and_malformed_text_are_refused() {
        for text in ["node_0000000000001", "star_1", "star_000000000000u", "star_zzzzzzzzzzzzz", "star", ""] {
            assert!(text.parse::<StarId>().is_err(), "{text}");
        }
    }
}
