//! What a nursery is told to start: one star, described so that nothing is left to choose.
//!
//! Plain data. Who decides it is the agent; what it turns into is `start`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::{Bytes, Limits, Network, StarId};
use serde::{Deserialize, Serialize};

/// One star to start. A star id is used once: an order for an id that is known is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StarOrder {
    pub star: StarId,
    /// The generation of the assignment that asks for it; kept in the star's record and told to every agent.
    pub generation: u64,
    /// The name the star sees as its own: letters, digits and `-`. Of one longer than the kernel's 64 characters the end
    /// is taken, where the numbers are.
    pub hostname: String,
    pub launch: Launch,
    pub args: Vec<String>,
    /// A command run to its end within the walls before all else; unless it ends with 0, the star does not start. None when
    /// empty.
    #[serde(default)]
    pub before: Vec<String>,
    /// The whole environment: nothing is inherited. `PATH` and `HOME` are added when they are missing.
    pub env: BTreeMap<String, String>,
    /// The host folder the star sees, read-only, at `/app`.
    pub bundle: PathBuf,
    /// The host folder that is the star's root in place of the host's programs: read-only, with a writable layer over it
    /// that is gone with the star. Only for commands.
    #[serde(default)]
    pub root: Option<PathBuf>,
    pub volumes: Vec<Bind>,
    pub limits: Limits,
    pub network: Network,
}

impl StarOrder {
    /// The host name as the kernel takes it.
    pub(crate) fn short_hostname(&self) -> &str {
        let start = self.hostname.len().saturating_sub(HOSTNAME_MAX);
        self.hostname.get(start..).unwrap_or_default().trim_start_matches('-')
    }

    /// The host folders the star sees and where: the bundle, then the volumes, an outer one before those inside it.
    pub(crate) fn places(&self) -> Vec<Place<'_>> {
        let mut volumes: Vec<_> = self.volumes.iter().collect();
        volumes.sort_by_key(|volume| &volume.inside);
        let volumes = volumes.into_iter().map(|volume| Place {
            host: &volume.host,
            inside: &volume.inside,
            size: volume.size.map(|size| size.0),
        });
        std::iter::once(Place { host: &self.bundle, inside: BUNDLE, size: None }).chain(volumes).collect()
    }
}

/// A host folder that a star sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) host: &'a Path,
    pub(crate) inside: &'a str,
    pub(crate) size: Option<u64>,
}

/// Where a star sees its bundle.
pub(crate) const BUNDLE: &str = "/app";

/// Most volumes of a star: their mounts travel to it in one packet, as many descriptors as a packet of doors has.
pub(crate) const VOLUMES_MAX: usize = crate::protocol::DOORS_MAX as usize - 1;

/// Overwrites what only one star is to know. A RADS star is a copy of the nursery: what is left lying about in its memory
/// is in every later star's.
pub(crate) fn scrub(texts: impl IntoIterator<Item = String>) {
    for text in texts {
        let mut bytes = text.into_bytes();
        bytes.fill(0);
        // Nobody reads them again, which must not be a reason to leave them as they are.
        std::hint::black_box(&bytes);
    }
}

/// Longest host name, `__NEW_UTS_LEN` of Linux.
const HOSTNAME_MAX: usize = 64;

/// What runs in the star.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Launch {
    /// A RADS script by its path within `/app`: the nursery's own copy, no exec. `StarOrder::args` are its arguments.
    Script { path: String },
    /// A program and its first arguments, executed as they are; `StarOrder::args` are appended. A first word with
    /// a `/` is taken relative to `/app`, one without is looked up on the star's `PATH`.
    Command { argv: Vec<String> },
}

impl Launch {
    /// Refuses what nobody could run.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Script { path } if !is_normal(path) => {
                Err(format!("`{}` is not a path within the bundle", path.escape_debug()))
            }
            Self::Command { argv } if argv.first().is_none_or(String::is_empty) => {
                Err("the command is empty".to_owned())
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn into_words(self) -> Vec<String> {
        match self {
            Self::Script { path } => vec![path],
            Self::Command { argv } => argv,
        }
    }
}

/// Whether a relative path is one that leads nowhere but down.
pub(crate) fn is_normal(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | "..")) && !path.contains('\0')
}

/// A host folder seen inside the star, writable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    pub host: PathBuf,
    /// Absolute and normalised, not below `/proc`, `/dev` or `/sys`.
    pub inside: String,
    /// Most bytes of it. Where it is kept in an image, that lies beside `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
}
