//! What a nursery is told to start: one star, described so that nothing is left to choose.
//!
//! Plain data. Who decides it is the agent; what it turns into is `start`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::{Bytes, Limits, Network, StarId, User, Weakened};
use serde::{Deserialize, Serialize};

use crate::memory::Memory;
use crate::private::Private;

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
    /// What else it finds inside, and as whom it runs.
    #[serde(default)]
    pub interior: Interior,
    /// Walls it does without.
    #[serde(default)]
    pub weakened: Weakened,
    /// The memory it goes on from; without one it begins. Only for commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Files it has from its first moment on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beginning: Option<Beginning>,
}

/// Files that are laid into a star's own places before anything in it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// A host folder with folders `0`, `1`, …, whose files' owners are numbered as the star does, and lists `0.gone`, …: the
    /// paths, each ended by a NUL, that are to be removed first.
    pub folder: PathBuf,
    /// Where in the star the first, the second, … belongs.
    pub areas: Vec<String>,
}

/// What a star finds inside beside its bundle and volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interior {
    pub tmpfs: Vec<Tmpfs>,
    pub files: Vec<FileBind>,
    pub secrets: Vec<Secret>,
    /// The folder its programs start in; `/app` when `None`.
    pub workdir: Option<String>,
    /// As whom its programs run; its root when `None`.
    pub user: Option<User>,
}

/// A memory file system of the star's own. What lies in it counts as its memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    pub inside: String,
    /// Bytes.
    pub size: u64,
}

/// A host file or folder seen inside the star.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileBind {
    pub host: PathBuf,
    pub inside: String,
    /// It is a file, not a folder.
    pub file: bool,
    /// As every bind is that an agent orders. Without it there is a hole in the first wall, which tests of the second need.
    pub read_only: bool,
}

/// A file of the star's own with what only it is to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    pub inside: String,
    /// Taken out of the order before it goes on to the star, which reads it from the file.
    pub content: Private,
}

/// Something that is mounted at a place inside a star.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) inside: &'a str,
    pub(crate) content: Content<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'a> {
    Bundle(&'a Path),
    Volume(&'a Bind),
    Tmpfs(u64),
    Bind(&'a FileBind),
    /// The secret of this number.
    Secret(usize),
}

impl Place<'_> {
    /// Whether it is a file, not a folder.
    pub(crate) fn is_file(&self) -> bool {
        match self.content {
            Content::Bundle(_) | Content::Volume(_) | Content::Tmpfs(_) => false,
            Content::Bind(bind) => bind.file,
            Content::Secret(_) => true,
        }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        match self.content {
            Content::Bundle(_) | Content::Secret(_) => true,
            Content::Bind(bind) => bind.read_only,
            Content::Volume(_) | Content::Tmpfs(_) => false,
        }
    }

    /// Whether it lies in what is the star's own to write to, from its first moment on: its `/run` and `/tmp`.
    pub(crate) fn is_own_memory(&self) -> bool {
        self.inside.starts_with("/run/") || self.inside.starts_with("/tmp/")
    }

    /// As a message names it.
    pub(crate) fn what(&self) -> String {
        let inside = self.inside;
        match self.content {
            Content::Bundle(_) => "the bundle".to_owned(),
            Content::Volume(_) => format!("the volume at `{inside}`"),
            Content::Tmpfs(_) => format!("the memory file system at `{inside}`"),
            Content::Bind(_) => format!("what is bound at `{inside}`"),
            Content::Secret(_) => format!("the secret at `{inside}`"),
        }
    }
}

impl StarOrder {
    /// One that nobody gives.
    pub(crate) fn nothing() -> Self {
        Self {
            star: StarId(0),
            generation: 0,
            hostname: "nobody".to_owned(),
            launch: Launch::Script { path: "nothing".to_owned() },
            args: Vec::new(),
            before: Vec::new(),
            env: BTreeMap::from([("NOTHING".to_owned(), "nothing".to_owned())]),
            bundle: PathBuf::from(BUNDLE),
            root: None,
            volumes: Vec::new(),
            limits: Limits::UNLIMITED,
            network: Network::None,
            interior: Interior::default(),
            weakened: Weakened::default(),
            memory: None,
            beginning: None,
        }
    }

    /// The host name as the kernel takes it.
    pub(crate) fn short_hostname(&self) -> &str {
        let start = self.hostname.len().saturating_sub(HOSTNAME_MAX);
        self.hostname.get(start..).unwrap_or_default().trim_start_matches('-')
    }

    /// What is mounted inside and where: the bundle, then the rest, an outer one before those inside it.
    pub(crate) fn places(&self) -> Vec<Place<'_>> {
        let Interior { tmpfs, files, secrets, .. } = &self.interior;
        let volumes = self.volumes.iter().map(|volume| (&volume.inside, Content::Volume(volume)));
        let mut rest: Vec<_> = volumes
            .chain(tmpfs.iter().map(|tmpfs| (&tmpfs.inside, Content::Tmpfs(tmpfs.size))))
            .chain(files.iter().map(|bind| (&bind.inside, Content::Bind(bind))))
            .chain(secrets.iter().enumerate().map(|(number, secret)| (&secret.inside, Content::Secret(number))))
            .map(|(inside, content)| Place { inside, content })
            .collect();
        rest.sort_by_key(|place| place.inside);
        std::iter::once(Place { inside: BUNDLE, content: Content::Bundle(&self.bundle) }).chain(rest).collect()
    }

    /// What only this star is to know, taken out of the order.
    pub(crate) fn take_secrets(&mut self) -> Vec<Private> {
        self.interior.secrets.iter_mut().map(|secret| std::mem::take(&mut secret.content)).collect()
    }
}

/// Where a star sees its bundle.
pub(crate) const BUNDLE: &str = "/app";

/// Most places beside the bundle: their mounts travel to the star in one packet, as many descriptors as a packet of doors
/// has.
pub(crate) const PLACES_MAX: usize = crate::protocol::DOORS_MAX as usize - 1;
const _: () = assert!(PLACES_MAX == model::interior::PLACES_MAX);

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
// A WASM module comes as a variant of its own, with an entry function like the script's in `StarEntry`.
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
