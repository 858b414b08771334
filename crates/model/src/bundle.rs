//! A bundle: the files of one version of a service, named by their content.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::schema::text_schema;

/// BLAKE3 of some bytes, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentHash(pub [u8; 32]);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a content hash: 64 hexadecimal digits")]
pub struct InvalidHash(pub String);

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ContentHash {
    type Err = InvalidHash;
    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let invalid = || InvalidHash(text.to_owned());
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(invalid());
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0]).zip(digit(pair[1])).map(|(high, low)| high << 4 | low).ok_or_else(invalid)?;
        }
        Ok(Self(hash))
    }
}

impl TryFrom<String> for ContentHash {
    type Error = InvalidHash;
    fn try_from(text: String) -> Result<Self, InvalidHash> {
        text.parse()
    }
}

impl From<ContentHash> for String {
    fn from(hash: ContentHash) -> String {
        hash.to_string()
    }
}

text_schema!(ContentHash);

/// A bundle's name: the hash of its manifest's canonical bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct BundleId(pub ContentHash);

impl fmt::Display for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a bundle holds: relative, normalised paths with `/` between their parts, sorted by being in a map.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BundleManifest {
    pub files: BTreeMap<String, FileEntry>,
}

/// Most files of one bundle.
pub const BUNDLE_FILES_MAX: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FileEntry {
    pub content: ContentHash,
    pub size: u64,
    pub executable: bool,
}

impl BundleManifest {
    /// The bytes whose hash names the bundle: a line per file, `hash size x|- path`, after a version line.
    /// Never edited once released: a new form gets a new first line.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut text = String::from("rads bundle 1\n");
        for (path, file) in &self.files {
            let mode = if file.executable { 'x' } else { '-' };
            text.push_str(&format!("{} {} {mode} {path}\n", file.content, file.size));
        }
        text.into_bytes()
    }
}

/// Whether a path may name a file of a bundle: relative, no empty, `.` or `..` part, no control character.
pub fn is_bundle_path(path: &str) -> bool {
    /// Longest path Linux takes (`PATH_MAX`), less room for the folder it is unpacked in.
    const PATH_MAX: usize = 3_500;
    path.len() <= PATH_MAX
        && !path.chars().any(char::is_control)
        && path.split('/').all(|part| !matches!(part, "" | "." | "..") && part.len() <= 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_read_back_and_nothing_else_is_one() {
        let hash = ContentHash([0xa5; 32]);
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for bad in ["", "a5", &"g".repeat(64), &"A".repeat(64), &"é".repeat(32)] {
            assert!(bad.parse::<ContentHash>().is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_stay_inside_the_bundle() {
        for good in ["a", "lib/util.rads", "static/ä.css"] {
            assert!(is_bundle_path(good), "{good}");
        }
        for bad in ["", "/etc/passwd", "a/../b", "..", "a//b", "./a", "a/", "a\nb"] {
            assert!(!is_bundle_path(bad), "{bad}");
        }
    }
}
