//! A machine of a constellation: what it is for, what it has and where it stands.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cpus::CpuSet;
use crate::name::{Name, ServiceKey, VolumeKey};
use crate::problem::{Code, Problem};
use crate::reserve::{Overcommit, Reserve};
use crate::units::Bytes;

/// Most machines of one constellation.
pub const NODES_MAX: usize = 8_192;
/// Most labels of one machine.
pub const LABELS_MAX: usize = 64;
/// Longest name or value of a label, and longest address.
pub const LABEL_MAX_BYTES: usize = 253;

/// Volumes named in one line.
const SAID_MAX: usize = 3;

/// A volume that lies on a machine, and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct VolumeThere {
    pub volume: VolumeKey,
    /// Services that name it, or have a star left that has it: their stars run there and nowhere else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceKey>,
}

impl fmt::Display for VolumeThere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.volume)?;
        for (at, service) in self.services.iter().take(SAID_MAX).enumerate() {
            write!(f, "{}`{service}`", if at == 0 { " of " } else { ", " })?;
        }
        match self.services.len().saturating_sub(SAID_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Volumes in words, as the beginning of a sentence: ``volume `data` of `web` ``. Nothing of none.
pub fn said_of_volumes(volumes: &[VolumeThere]) -> Option<String> {
    let named: Vec<String> = volumes.iter().take(SAID_MAX).map(ToString::to_string).collect();
    let what = if volumes.len() == 1 { "volume" } else { "volumes" };
    match volumes.len().saturating_sub(SAID_MAX) {
        _ if volumes.is_empty() => None,
        0 => Some(format!("{what} {}", named.join("; "))),
        more => Some(format!("{what} {} and {more} more", named.join("; "))),
    }
}

/// What to do before a machine leaves on which volumes lie.
pub const KEEP_OR_LEAVE: &str =
    "keep it with `rads c snapshot`, on this machine's disk, or give it up with `rads c leave --force`";

/// Refuses that a machine goes, with whose disk volumes would be gone. `help` says how to keep them, or give them up.
///
/// # Errors
/// Names the volumes and the services that have them.
pub fn check_given_up(node: &Name, volumes: &[VolumeThere], help: impl Into<String>) -> Result<(), Problem> {
    let Some(said) = said_of_volumes(volumes) else { return Ok(()) };
    let (lies, goes) = if volumes.len() == 1 { ("lies", "it is") } else { ("lie", "they are") };
    let message = format!("{said} {lies} on node `{node}` and nowhere else: {goes} given up with it");
    Err(Problem::new(Code::Conflict, message).help(help))
}

/// What a machine says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct NodeFacts {
    /// 0 when it is not known.
    pub memory: Bytes,
    pub cores: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<CpuSet>,
    /// What is kept for the machine itself: nothing of it is kept for stars, and none of it counts as room for their limits.
    #[serde(default, skip_serializing_if = "Reserve::is_nothing")]
    pub reserved: Reserve,
    /// How often what it has may be kept for stars. It is not the machine that says so, but who operates it.
    #[serde(default, skip_serializing_if = "Overcommit::is_none")]
    pub overcommit: Overcommit,
    /// Its agent has no privileges: some networks and users are not to be had there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rootless: bool,
    /// The program's version.
    #[serde(default)]
    pub program: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<Name>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl NodeFacts {
    /// Whether the machine itself has told them, as it does when it has come: each has a processor. Until then it was let in,
    /// and nothing else is known of it.
    pub fn are_told(&self) -> bool {
        self.cores > 0
    }

    /// Whether what a machine says is within bounds: it is kept on every controller.
    pub fn check(&self) -> Result<(), Problem> {
        let refused = |what: String| Err(Problem::new(Code::InvalidValue, what));
        if self.labels.len() > LABELS_MAX {
            return refused(format!("a node has at most {LABELS_MAX} labels, not {}", self.labels.len()));
        }
        let texts = self.labels.iter().flat_map(|(name, value)| [name, value]).chain([&self.program]);
        for text in texts {
            if text.len() > LABEL_MAX_BYTES || text.chars().any(char::is_control) {
                return refused(format!(
                    "`{}` is not a label",
                    text.chars().take(40).collect::<String>().escape_debug()
                ));
            }
        }
        Ok(())
    }
}

/// Whether a machine takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Up,
    /// Given up: its stars count as ended and run elsewhere. What still runs on it is ended when it is heard of again.
    Lost,
    /// It left, or was removed, for good.
    Left,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Lost => "lost",
            Self::Left => "left",
        })
    }
}

/// Whether a machine gets stars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Duty {
    #[default]
    Takes,
    /// It keeps what it has and gets no new ones.
    Cordoned,
    /// Its stars move elsewhere.
    Draining,
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Takes => "takes stars",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
        })
    }
}
