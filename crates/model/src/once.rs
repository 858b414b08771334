//! What makes a change that is asked for twice happen once: a key that its sender chose, and what was asked under it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ContentHash;
use crate::schema::text_schema;

/// Longest key, in bytes: the longest that others in the field take is 255; a UUID is 36.
pub const KEY_MAX_BYTES: usize = 128;

/// 1 to [`KEY_MAX_BYTES`] visible characters of ASCII.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdempotencyKey(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key has between 1 and {KEY_MAX_BYTES} visible characters of ASCII")]
pub struct InvalidKey;

impl IdempotencyKey {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for IdempotencyKey {
    type Error = InvalidKey;
    fn try_from(text: String) -> Result<Self, InvalidKey> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || text.len() > KEY_MAX_BYTES || !visible { Err(InvalidKey) } else { Ok(Self(text)) }
    }
}

impl FromStr for IdempotencyKey {
    type Err = InvalidKey;
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        text.to_owned().try_into()
    }
}

impl From<IdempotencyKey> for String {
    fn from(key: IdempotencyKey) -> Self {
        key.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_schema!(IdempotencyKey);

/// A key, and the hash of all that was asked under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    pub key: IdempotencyKey,
    pub request: ContentHash,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_short_and_visible() {
        let check =
            |text: &str, expected: bool| assert_eq!(text.parse::<IdempotencyKey>().is_ok(), expected, "{text:?}");
        check("a", true);
        check("550e8400-e29b-41d4-a716-446655440000", true);
        check(&"x".repeat(KEY_MAX_BYTES), true);
        check(&"x".repeat(KEY_MAX_BYTES + 1), false);
        check("", false);
        check("a b", false);
        check("a\n", false);
        check("ä", false);
    }
}
