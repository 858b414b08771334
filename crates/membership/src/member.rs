//! What is told about a member, and the bounds on all of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;

use model::{Bytes, Millicores, Name, NodeId};
use serde::{Deserialize, Serialize};

/// Longest encoded metadata, in bytes: with a name of 63 characters and an IPv6 address, it fits into one datagram beside a probe.
pub const METADATA_MAX_BYTES: usize = 512;
/// Most labels of a member.
pub const LABELS_MAX: usize = 16;
/// Longest value of a label, in characters.
pub const LABEL_VALUE_MAX_CHARS: usize = 63;
/// Longest version, in characters.
pub const VERSION_MAX_CHARS: usize = 32;

/// How a member seems to be. Gossip is a hint: that a node is lost is decided by the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// It answers.
    Alive,
    /// Somebody got no answer from it, or it came and went too often of late; it may still be there.
    Suspect,
    /// It has not answered, and has not contradicted in the time it was given.
    Dead,
    /// It said that it goes.
    Left,
}

impl Status {
    /// Alive or suspect: it may answer.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Left => "left",
        })
    }
}

/// A member as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: NodeId,
    pub name: Name,
    /// Where it takes datagrams, and streams on the same port number.
    pub addr: SocketAddr,
    /// Grows each time the member contradicts a rumour or describes itself anew. A node that starts may begin at 0: it is told by
    /// the first other member what it had reached before, and goes beyond.
    pub incarnation: u64,
    pub metadata: Metadata,
}

/// What a node says about itself for placement, display and the choice of voters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attributes {
    pub region: Option<Name>,
    pub zone: Option<Name>,
    pub rack: Option<Name>,
    /// The type of machine, as its owner names it.
    pub kind: Option<Name>,
    /// At most [`LABELS_MAX`], values of at most [`LABEL_VALUE_MAX_CHARS`] printable ASCII characters.
    pub labels: BTreeMap<Name, String>,
    pub capacity: Capacity,
    /// The program's version: at most [`VERSION_MAX_CHARS`] of `A-Z a-z 0-9 . + - _`.
    pub version: String,
}

/// What a node has for stars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capacity {
    pub cpu: Millicores,
    pub memory: Bytes,
    pub disk: Bytes,
    pub gpus: u16,
}

/// [`Attributes`] that keep to their bounds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata(Attributes);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMetadata {
    #[error("{0} labels are too many, at most {LABELS_MAX} are told to other nodes")]
    TooManyLabels(usize),
    #[error("the value of label `{0}` is not made of at most {LABEL_VALUE_MAX_CHARS} printable ASCII characters")]
    LabelValue(Name),
    #[error("`{}` is not a version: use at most {VERSION_MAX_CHARS} of A-Z, a-z, 0-9, `.`, `+`, `-` and `_`", .0.escape_debug())]
    Version(String),
    #[error("a node's metadata takes {0} bytes, at most {METADATA_MAX_BYTES} are told to other nodes")]
    TooLong(usize),
}

impl Metadata {
    pub fn new(attributes: Attributes) -> Result<Self, InvalidMetadata> {
        if attributes.labels.len() > LABELS_MAX {
            return Err(InvalidMetadata::TooManyLabels(attributes.labels.len()));
        }
        for (key, value) in &attributes.labels {
            let printable = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            if !printable || value.len() > LABEL_VALUE_MAX_CHARS {
                return Err(InvalidMetadata::LabelValue(key.clone()));
            }
        }
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b".+-_".contains(&byte);
        if attributes.version.len() > VERSION_MAX_CHARS || !attributes.version.bytes().all(legal) {
            return Err(InvalidMetadata::Version(attributes.version));
        }
        let metadata = Self(attributes);
        let length = crate::wire::metadata_bytes(&metadata).len();
        if length > METADATA_MAX_BYTES { Err(InvalidMetadata::TooLong(length)) } else { Ok(metadata) }
    }
}

impl Deref for Metadata {
    type Target = Attributes;
    fn deref(&self) -> &Attributes {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(count: usize, value: &str) -> Attributes {
        let labels = (0..count).map(|n| (format!("l{n}").parse().unwrap(), value.to_owned())).collect();
        Attributes { labels, ..Attributes::default() }
    }

    #[test]
    fn metadata_keeps_to_its_bounds() {
        assert!(Metadata::new(labelled(16, "ssd")).is_ok());
        assert_eq!(Metadata::new(labelled(17, "")).unwrap_err(), InvalidMetadata::TooManyLabels(17));
        for value in ["a\n", "é", "\0", &"x".repeat(64)] {
            assert!(matches!(Metadata::new(labelled(1, value)), Err(InvalidMetadata::LabelValue(_))), "{value:?}");
        }
        assert!(matches!(Metadata::new(labelled(16, &"x".repeat(63))), Err(InvalidMetadata::TooLong(_))));
        for version in ["1 0", "../1", &"1".repeat(33)] {
            let attributes = Attributes { version: version.to_owned(), ..Attributes::default() };
            assert!(matches!(Metadata::new(attributes), Err(InvalidMetadata::Version(_))), "{version:?}");
        }
    }
}
