//! Walls that a description takes down on purpose. Each is named, shown in the plan and noted among the events.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::app::{Network, StarTemplate};

/// What a star lacks of the usual walls; nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Weakened {
    /// Every system call reaches the kernel: for programs that make namespaces, trace others or use io_uring.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_seccomp: bool,
    /// What is run in it by `exec` may trace its program, and nothing but its mounts keeps files as they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_landlock: bool,
    /// What it may do within its own user namespace beyond what anybody may.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub capabilities: BTreeSet<Capability>,
}

/// Those that programs which start as root and become somebody else need, each good within the star's own user namespace
/// only. See capabilities(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    Chown,
    DacOverride,
    Fowner,
    Fsetid,
    Kill,
    Setgid,
    Setuid,
}

impl Capability {
    pub const ALL: [Self; 7] =
        [Self::Chown, Self::DacOverride, Self::Fowner, Self::Fsetid, Self::Kill, Self::Setgid, Self::Setuid];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chown => "chown",
            Self::DacOverride => "dac_override",
            Self::Fowner => "fowner",
            Self::Fsetid => "fsetid",
            Self::Kill => "kill",
            Self::Setgid => "setgid",
            Self::Setuid => "setuid",
        }
    }

    /// The kernel's number.
    pub fn number(self) -> u32 {
        match self {
            Self::Chown => 0,
            Self::DacOverride => 1,
            Self::Fowner => 3,
            Self::Fsetid => 4,
            Self::Kill => 5,
            Self::Setgid => 6,
            Self::Setuid => 7,
        }
    }

    /// Whether it is about more ids than one, which an ordinary user's star does not have.
    pub fn needs_ids(self) -> bool {
        matches!(self, Self::Chown | Self::Setgid | Self::Setuid)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Weakened {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl StarTemplate {
    /// The walls its stars do without, for people; empty for a usual star.
    pub fn missing_walls(&self) -> String {
        let Weakened { no_seccomp, no_landlock, capabilities } = &self.weakened;
        let mut missing = Vec::new();
        if self.network == Network::Host {
            missing.push("the host's network".to_owned());
        }
        if *no_seccomp {
            missing.push("no system call filter".to_owned());
        }
        if *no_landlock {
            missing.push("no Landlock".to_owned());
        }
        if !capabilities.is_empty() {
            let names: Vec<&str> = capabilities.iter().map(|capability| capability.as_str()).collect();
            missing.push(format!("capabilities {}", names.join(" ")));
        }
        missing.join(", ")
    }
}
