//! What a star finds within its walls beyond its bundle and its volumes, and as whom it runs.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::app::{Program, StarTemplate};
use crate::bundle::is_bundle_path;
use crate::name::Name;
use crate::problem::{Code, Problem};
use crate::schema::text_schema;
use crate::units::Bytes;

/// Each empty when nothing was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Interior {
    /// Memory file systems of its own by where it sees them; what lies in them counts as its memory.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tmpfs: BTreeMap<String, Tmpfs>,
    /// Files and folders of the bundle by where else it sees them, read-only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub binds: BTreeMap<String, String>,
    /// Secrets of its namespace by the file in which it reads them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, Name>,
    /// Secrets of its namespace by the variable in which it reads them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env_secrets: BTreeMap<String, Name>,
    /// The folder it starts in; `/app` when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Its root when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Tmpfs {
    pub size: Bytes,
}

/// A user and a group of a star's own range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

text_schema!(User);

/// How many ids a star has: every id a 16-bit program knows.
pub const IDS_PER_STAR: u32 = 0x1_0000;
/// Most volumes, memory file systems, binds and secrets of a star together: their mounts travel to it in one packet.
pub const PLACES_MAX: usize = 63;
/// Most secrets in variables: beyond it a program reads files.
pub const ENV_SECRETS_MAX: usize = 64;
/// Smallest memory file system: one page would hold nothing but its root.
pub const TMPFS_MIN: Bytes = Bytes::kib(64);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a user: a number from 0 to 65535, or two as \"1000:1000\"")]
pub struct InvalidUser(pub String);

impl FromStr for User {
    type Err = InvalidUser;
    fn from_str(text: &str) -> Result<Self, InvalidUser> {
        let id = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|id| digits && *id < IDS_PER_STAR)
        };
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        let user = id(uid).zip(id(gid)).map(|(uid, gid)| Self { uid, gid });
        user.ok_or_else(|| InvalidUser(text.escape_debug().to_string()))
    }
}

impl TryFrom<String> for User {
    type Error = InvalidUser;
    fn try_from(text: String) -> Result<Self, InvalidUser> {
        text.parse()
    }
}

impl From<User> for String {
    fn from(user: User) -> String {
        user.to_string()
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// What is to be found at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceKind {
    Volume,
    Tmpfs,
    Bind,
    Secret,
}

impl PlaceKind {
    /// The option that names such places.
    pub fn option(self) -> &'static str {
        match self {
            Self::Volume => "volumes",
            Self::Tmpfs => "tmpfs",
            Self::Bind => "binds",
            Self::Secret => "secrets",
        }
    }

    fn as_word(self) -> &'static str {
        match self {
            Self::Volume => "a volume",
            Self::Tmpfs => "a memory file system",
            Self::Bind => "a bind",
            Self::Secret => "a secret",
        }
    }
}

/// What every star has in its `/run`.
const OWN_OF_RUN: [&str; 6] = ["run", "run/hostname", "run/hosts", "run/resolv.conf", "run/shm", "run/tmp"];

/// Why nothing of a kind can be at a path; the path is absolute, normalised and in a part of the star's view that is not
/// taken.
pub fn check_place(kind: PlaceKind, path: &str) -> Result<(), &'static str> {
    let Some(relative) = path.strip_prefix('/').filter(|relative| is_bundle_path(relative)) else {
        return Err("it is no absolute path without `.`, `..` and control characters");
    };
    let below_app = relative.starts_with("app/");
    match relative.split('/').next().unwrap_or_default() {
        "proc" | "dev" | "sys" => Err("/proc, /dev and /sys are the kernel's"),
        "run" if OWN_OF_RUN.contains(&relative) => Err("/run has files of the star's own; use a folder in it"),
        "app" if !below_app => Err("/app is the bundle"),
        "app" if matches!(kind, PlaceKind::Bind | PlaceKind::Secret) => {
            Err("/app is the bundle, in which no file can be put over another")
        }
        _ => Ok(()),
    }
}

/// Something wrong with one option of a template; the path is the option's, as `["secrets", "/run/x"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misplaced {
    pub path: Vec<String>,
    pub problem: Problem,
}

impl StarTemplate {
    /// Every place it asks for, in the order of the paths.
    pub fn places(&self) -> Vec<(&str, PlaceKind)> {
        let Interior { tmpfs, binds, secrets, .. } = &self.interior;
        let volumes = self.volumes.iter().map(|mount| (mount.path.as_str(), PlaceKind::Volume));
        let mut places: Vec<_> = volumes
            .chain(tmpfs.keys().map(|path| (path.as_str(), PlaceKind::Tmpfs)))
            .chain(binds.keys().map(|path| (path.as_str(), PlaceKind::Bind)))
            .chain(secrets.keys().map(|path| (path.as_str(), PlaceKind::Secret)))
            .collect();
        places.sort_by_key(|(path, _)| *path);
        places
    }

    /// The secrets it needs, each once.
    pub fn secrets(&self) -> std::collections::BTreeSet<&Name> {
        self.interior.secrets.values().chain(self.interior.env_secrets.values()).collect()
    }

    /// Refuses places, variables and folders that cannot be, alone or beside each other.
    pub fn check_interior(&self) -> Result<(), Misplaced> {
        let places = self.places();
        let refused = |option: &str, inner: Option<&str>, problem: Problem| {
            let path = std::iter::once(option).chain(inner).map(str::to_owned).collect();
            Err(Misplaced { path, problem })
        };
        let invalid = |message: String| Problem::new(Code::InvalidValue, message);
        if let Some((_, kind)) = places.get(PLACES_MAX) {
            let message = format!(
                "a star has at most {PLACES_MAX} volumes, memory file systems, binds and secrets together, not {}",
                places.len()
            );
            return refused(kind.option(), None, invalid(message));
        }
        for (path, kind) in &places {
            if let Err(why) = check_place(*kind, path) {
                let message = format!("`{}` is no place for {}: {why}", path.escape_debug(), kind.as_word());
                let help = "use an absolute path of its own, for example /data";
                return refused(kind.option(), Some(path), invalid(message).help(help));
            }
        }
        for (at, (inner, kind)) in places.iter().enumerate() {
            // A volume within a volume may have its folder there already; anywhere else there is nothing to put it on.
            let clashes = |(outer, other): &&(&str, PlaceKind)| {
                let within = inner.strip_prefix(*outer).is_some_and(|rest| rest.starts_with('/'));
                *inner == *outer || within && (*kind, *other) != (PlaceKind::Volume, PlaceKind::Volume)
            };
            if let Some((outer, other)) = places[..at].iter().find(clashes) {
                let message = match inner == outer {
                    true => format!("`{inner}` is asked for twice, as {} and as {}", other.as_word(), kind.as_word()),
                    false => format!("`{inner}` lies within `{outer}`, where {} is", other.as_word()),
                };
                return refused(kind.option(), Some(inner), invalid(message).help("give it another place"));
            }
        }
        self.check_tmpfs().or_else(|(path, problem)| refused("tmpfs", Some(&path), problem))?;
        if let Some((path, _)) = self.interior.binds.iter().find(|(_, source)| !is_bundle_path(source)) {
            let message = format!("what is bound at `{path}` is no path inside the app's folder");
            return refused("binds", Some(path), invalid(message));
        }
        let variables = &self.interior.env_secrets;
        if variables.len() > ENV_SECRETS_MAX {
            let message = format!("at most {ENV_SECRETS_MAX} secrets go into variables, not {}", variables.len());
            return refused("env_secrets", None, invalid(message).help("read them from files, by `secrets`"));
        }
        for name in variables.keys() {
            if name.is_empty() || name.contains(['=', '\0']) {
                let message = format!("`{}` cannot be the name of an environment variable", name.escape_debug());
                return refused("env_secrets", Some(name), invalid(message));
            }
            if self.env.contains_key(name) {
                let message = format!("`{}` is given by `env` and by `env_secrets`", name.escape_debug());
                return refused("env_secrets", Some(name), invalid(message));
            }
        }
        if let Some(folder) = &self.interior.workdir
            && !folder.strip_prefix('/').is_some_and(|rest| rest.is_empty() || is_bundle_path(rest))
        {
            let shown = folder.escape_debug();
            let problem = invalid(format!("`workdir` is an absolute path without `.` and `..`, `{shown}` is not"));
            return refused("workdir", None, problem.help("the app's files are in `/app`, for example `/app/sub`"));
        }
        self.check_weakened().or_else(|problem| refused("weaken", None, problem))
    }

    fn check_tmpfs(&self) -> Result<(), (String, Problem)> {
        let mut sum = 0u64;
        for (path, tmpfs) in &self.interior.tmpfs {
            if tmpfs.size < TMPFS_MIN {
                let message =
                    format!("the memory file system at `{path}` has at least {TMPFS_MIN}, not {}", tmpfs.size);
                return Err((path.clone(), Problem::new(Code::InvalidValue, message)));
            }
            sum = sum.saturating_add(tmpfs.size.0);
            if let Some(memory) = self.limits.memory.filter(|memory| sum > memory.0) {
                let message = format!("its memory file systems hold {} and count as its memory, {memory}", Bytes(sum));
                let problem = Problem::new(Code::InvalidValue, message);
                return Err((path.clone(), problem.help("give it more `ram_mb`, or less in `tmpfs`")));
            }
        }
        Ok(())
    }

    fn check_weakened(&self) -> Result<(), Problem> {
        if matches!(self.program, Program::Script(_)) && !self.weakened.is_empty() {
            let message = "`weaken` is for a `command`: a script needs none of what it opens";
            return Err(Problem::new(Code::InvalidValue, message).help("leave `weaken` out"));
        }
        Ok(())
    }
}

impl Interior {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers_of_the_stars_range() {
        for (text, uid, gid) in [("0", 0, 0), ("1000", 1000, 1000), ("65535:1", 65_535, 1)] {
            assert_eq!(text.parse(), Ok(User { uid, gid }), "{text}");
        }
        for bad in ["", ":", "1:", ":1", "nobody", "65536", "1:65536", "-1", "+1", "1:2:3", " 1", "1\n", "1\0"] {
            assert!(bad.parse::<User>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn places_are_absolute_and_nobody_elses() {
        use PlaceKind::{Bind, Secret, Tmpfs, Volume};
        for good in ["/data", "/etc/app.conf", "/run/secrets/db", "/tmp", "/tmp/x", "/var/lib/app"] {
            for kind in [Volume, Tmpfs, Bind, Secret] {
                assert_eq!(check_place(kind, good), Ok(()), "{good}");
            }
        }
        for bad in ["", "/", "data", "/a/../b", "/a/./b", "/a//b", "/a/", "/a\nb", "/a\0b", "/proc/x", "/dev/shm/x"] {
            for kind in [Volume, Tmpfs, Bind, Secret] {
                assert!(check_place(kind, bad).is_err(), "{bad:?}");
            }
        }
        for kind in [Volume, Tmpfs] {
            assert_eq!(check_place(kind, "/app/files"), Ok(()));
        }
        for kind in [Bind, Secret] {
            assert!(check_place(kind, "/app/x").is_err());
        }
        for bad in ["/run", "/run/hosts", "/app", "/sys", &format!("/{}", "x".repeat(300))] {
            assert!(check_place(Volume, bad).is_err(), "{bad}");
        }
    }
}
