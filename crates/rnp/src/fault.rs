//! What is said when something is not done: a code, words for a person, details for a program.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Codes of the protocol. One that is not known here is kept as it is: a newer peer may have more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The peer said what may not be said here. The connection may be closed after it.
    Protocol,
    /// No version that both speak.
    VersionMismatch,
    /// It is not known who asks: a certificate, token or sender that does not hold.
    AuthFailed,
    /// It is known who asks, who may not have it.
    Unauthorized,
    /// A queue, a pool or a memory is full now; asking later may help.
    ResourceExhausted,
    QuotaExceeded,
    NotFound,
    AlreadyExists,
    Internal,
    /// It was not done in time. It may have been done all the same, or be done yet.
    Timeout,
    /// The node asked does not lead. Details may say who does: `leader`, `address`.
    NotLeader,
    /// It changed since it was looked at.
    Conflict,
    Other(u16),
}

impl ErrorCode {
    pub const fn number(self) -> u16 {
        match self {
            Self::Protocol => 1000,
            Self::VersionMismatch => 1001,
            Self::AuthFailed => 2000,
            Self::Unauthorized => 2001,
            Self::ResourceExhausted => 3000,
            Self::QuotaExceeded => 3001,
            Self::NotFound => 4000,
            Self::AlreadyExists => 4001,
            Self::Conflict => 4002,
            Self::Internal => 5000,
            Self::Timeout => 5001,
            Self::NotLeader => 5002,
            Self::Other(number) => number,
        }
    }

    const NAMED: [Self; 12] = [
        Self::Protocol,
        Self::VersionMismatch,
        Self::AuthFailed,
        Self::Unauthorized,
        Self::ResourceExhausted,
        Self::QuotaExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::Conflict,
        Self::Internal,
        Self::Timeout,
        Self::NotLeader,
    ];

    pub fn of(number: u16) -> Self {
        Self::NAMED.into_iter().find(|code| code.number() == number).unwrap_or(Self::Other(number))
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.number())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u16::deserialize(deserializer).map(Self::of)
    }
}

/// The message `error`. As an answer it carries the id of what it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Fault {
    pub code: ErrorCode,
    pub message: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
    /// Do not ask again before this many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
}

impl Fault {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: BTreeMap::new(), retry_after_ms: None }
    }

    pub fn detail(mut self, name: &str, value: impl Into<String>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    pub fn retry_after_ms(mut self, milliseconds: u32) -> Self {
        self.retry_after_ms = Some(milliseconds);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_numbers_agree_and_unknown_ones_are_kept() {
        for code in ErrorCode::NAMED {
            assert_eq!(ErrorCode::of(code.number()), code);
        }
        assert_eq!(ErrorCode::of(7777), ErrorCode::Other(7777));
        assert_eq!(ErrorCode::Other(7777).number(), 7777);
    }
}
