//! Versions of the protocol, and what two peers of different ones speak.
//!
//! A new minor version adds messages, fields and capabilities, which peers of an older one ignore or refuse one by one. A
//! new major version changes what bytes mean; peers of different major versions do not talk.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    pub major: u8,
    pub minor: u8,
}

impl Version {
    /// What this program speaks.
    pub const CURRENT: Self = Self { major: 1, minor: 0 };

    /// The version to speak with a peer of version `other`: the older of the two; nothing when they do not understand each
    /// other.
    pub fn common(self, other: Self) -> Option<Self> {
        (self.major == other.major).then_some(self.min(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_speak_the_older_minor_version_and_no_other_major_one() {
        let version = |major, minor| Version { major, minor };
        assert_eq!(version(1, 3).common(version(1, 1)), Some(version(1, 1)));
        assert_eq!(version(1, 0).common(version(1, 9)), Some(version(1, 0)));
        assert_eq!(version(1, 9).common(version(2, 0)), None);
    }
}
