//! What this machine lets a nursery enforce, said aloud.

use serde::{Deserialize, Serialize};

/// What holds for every star of a nursery. The namespaces, mounts, capabilities and seccomp are not listed: without
/// them no star is started at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walls {
    pub cpu: Enforced,
    pub memory: Enforced,
    pub pids: Enforced,
    /// `cpus`: the processors that stars run on.
    #[serde(default)]
    pub pinning: Enforced,
    /// Another part of a quota's unused time than the usual one.
    #[serde(default)]
    pub burst: Enforced,
    /// Stars that spend all the processor time they may give way to whoever is woken.
    #[serde(default)]
    pub yielding: Enforced,
    /// To other stars only; see `YIELDING_IN_PART`.
    #[serde(default)]
    pub yielding_in_part: bool,
    /// Reads and writes of the data folder's disk.
    #[serde(default)]
    pub io: Enforced,
    /// By version 1, which leaves something out; see `IO_IN_PART`.
    #[serde(default)]
    pub io_in_part: bool,
    /// By what the disks of stars and sized volumes are bounded.
    #[serde(default)]
    pub disk: DiskMeans,
    /// The second wall around a star's files; see `landlock`.
    #[serde(default)]
    pub landlock: Enforced,
    /// No privileges on the host: stars run under the user's own id, in user namespaces.
    pub rootless: bool,
    /// Which cgroups the limits use: `v1`, `hybrid`, `v2` or `none`.
    pub cgroup: String,
}

/// What version 1 of cgroups does not limit of a disk's use.
pub const IO_IN_PART: &str =
    "cgroup v1 limits reads, direct writes and what is synced; not what the kernel writes back later by itself";

/// To whom stars do not give way that have turns as long as everybody's.
pub const YIELDING_IN_PART: &str = "to other stars; to programs that are no stars from Linux 6.12 on";

/// How what stars write is bounded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskMeans {
    /// By the file system of the data folder.
    ProjectQuota,
    /// By a file system in a file, one for each.
    Image,
    /// A star's disk is in memory and counts as such; volumes are not bounded.
    Memory { reason: String },
}

impl Default for DiskMeans {
    /// What a nursery that does not know the word means.
    fn default() -> Self {
        Self::Memory { reason: "the nursery is of an earlier version".to_owned() }
    }
}

/// Whether a limit bites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforced {
    Yes,
    No { reason: String },
}

impl Default for Enforced {
    /// What a nursery that does not know the word means.
    fn default() -> Self {
        Self::No { reason: "the nursery is of an earlier version".to_owned() }
    }
}

impl Enforced {
    pub fn is_yes(&self) -> bool {
        matches!(self, Self::Yes)
    }
}
