//! What is known of a secret beside its value.

use serde::{Deserialize, Serialize};

use crate::name::SecretKey;
use crate::time::WallTime;
use crate::units::Bytes;

/// Largest value: keys and certificates are a few KiB, and each is copied to every star that has it.
pub const SECRET_MAX: Bytes = Bytes::kib(64);
/// Most secrets of one node: each is a small file.
pub const SECRETS_MAX: usize = 10_000;

/// A secret as it is listed: nothing here tells of its value, not even its length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SecretView {
    pub secret: SecretKey,
    /// How often it was set.
    pub version: u64,
    pub changed: WallTime,
}

/// What became of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretChange {
    Created,
    Replaced,
    Deleted,
}
