//! What a container is to be: everything decided, nothing of it done.
//!
//! Whoever reads a bundle fills this in and has checked it; the engine carries it out or says why it cannot.

use std::path::PathBuf;
use std::time::Duration;

use super::profile::Profile;

/// A whole container.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// An existing folder, absolute.
    pub root: PathBuf,
    pub read_only_root: bool,
    /// Of the root's mount in the end; by default the host's mounts reach the container and not the other way round.
    pub root_propagation: Option<Propagation>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub namespaces: Namespaces,
    /// In the order in which they are made.
    pub mounts: Vec<Mount>,
    /// Beside those every container has.
    pub devices: Vec<Device>,
    /// Absolute, as are the next.
    pub masked_paths: Vec<String>,
    pub read_only_paths: Vec<String>,
    /// Paths below `/proc/sys` and what is written there.
    pub sysctl: Vec<(String, String)>,
    pub process: Process,
    /// Run in the container's namespaces: before its root is entered, and before its program.
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    /// Whether there is something to do for the parent once the mounts are made and before the root is entered.
    pub stop_before_root: bool,
    pub personality: Option<u32>,
    /// Whether the root is entered without `pivot_root`, which a memory file system as the host's root does not allow.
    pub no_pivot: bool,
    /// Whether it gets a session of keys of its own, out of reach of its creator's.
    pub new_keyring: bool,
}

/// Which namespaces the container has of its own, and which it joins. What is in neither it shares with its creator.
#[derive(Debug, Clone, Default)]
pub struct Namespaces {
    pub new: Vec<Kind>,
    pub joined: Vec<(Kind, PathBuf)>,
    /// For a new user namespace.
    pub uid_map: Vec<IdMap>,
    pub gid_map: Vec<IdMap>,
    /// For a new time namespace: clock, seconds, nanoseconds.
    pub time_offsets: Vec<(String, i64, u32)>,
    /// Devices of the creator's network namespace that go into the container's.
    pub devices: Vec<NetDevice>,
}

/// A network device and its name inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDevice {
    pub name: String,
    pub inside: String,
}

impl Namespaces {
    pub fn is_new(&self, kind: Kind) -> bool {
        self.new.contains(&kind)
    }

    /// Not the creator's own.
    pub fn is_apart(&self, kind: Kind) -> bool {
        self.is_new(kind) || self.joined.iter().any(|(joined, _)| *joined == kind)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    User,
    Mount,
    Pid,
    Network,
    Ipc,
    Uts,
    Cgroup,
    Time,
}

impl Kind {
    pub const ALL: [Self; 8] =
        [Self::User, Self::Mount, Self::Pid, Self::Network, Self::Ipc, Self::Uts, Self::Cgroup, Self::Time];

    /// The specification's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Mount => "mount",
            Self::Pid => "pid",
            Self::Network => "network",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }

    /// Its file in `/proc/PID/ns`.
    pub fn file(self) -> &'static str {
        match self {
            Self::Mount => "mnt",
            Self::Network => "net",
            other => other.name(),
        }
    }
}

/// A range of ids: inside, outside, how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Shared { recursive: bool },
    Slave { recursive: bool },
    Private { recursive: bool },
    Unbindable { recursive: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute. Made if it is not there.
    pub destination: String,
    pub source: Source,
    /// Attributes (`MOUNT_ATTR_…`) of the mount, and of those below it.
    pub attributes: Attributes,
    pub recursive_attributes: Attributes,
    pub propagation: Vec<Propagation>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// What the host has at a path.
    Bind { path: PathBuf, recursive: bool, id_map: Option<BindIdMap> },
    /// A file system with its own options. `copy_up` fills it with what was at its destination.
    FileSystem { kind: String, source: String, options: Vec<(String, Option<String>)>, copy_up: bool },
    /// The container's own groups.
    Cgroup,
    /// Only new attributes for what is mounted at the destination.
    Remount,
}

/// Under which ids the files of a bind are seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindIdMap {
    /// Empty: those of the container's user namespace.
    pub uid_map: Vec<IdMap>,
    pub gid_map: Vec<IdMap>,
    pub recursive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
}

impl Attributes {
    pub const READ_ONLY: u64 = 0x1;
    pub const NO_SUID: u64 = 0x2;
    pub const NO_DEV: u64 = 0x4;
    pub const NO_EXEC: u64 = 0x8;
    pub const ACCESS_TIME: u64 = 0x70;
    pub const NO_ACCESS_TIME: u64 = 0x10;
    pub const STRICT_ACCESS_TIME: u64 = 0x20;
    pub const NO_FOLDER_ACCESS_TIME: u64 = 0x80;
    pub const NO_LINKS: u64 = 0x20_0000;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    Character,
    Block,
    Fifo,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub path: String,
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What runs in the container and as whom.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Empty: nothing can be started.
    pub args: Vec<String>,
    /// `NAME=value`, in order; of a name that comes twice the last counts.
    pub env: Vec<String>,
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    pub umask: Option<u32>,
    pub terminal: bool,
    /// Rows and columns of the terminal.
    pub terminal_size: Option<(u16, u16)>,
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    /// Number of the resource, soft and hard limit.
    pub rlimits: Vec<(u32, u64, u64)>,
    pub oom_score_adj: Option<i32>,
    pub scheduler: Option<Scheduler>,
    /// Class and level, as the kernel packs them.
    pub io_priority: Option<u16>,
    pub apparmor_profile: Option<String>,
    pub memory_policy: Option<MemoryPolicy>,
    /// The processors it runs on; empty: as its creator.
    pub cpus: Vec<usize>,
    pub filter: Option<Filter>,
    /// Descriptors beside the standard ones that the program gets. All others are closed.
    pub preserved: Vec<i32>,
}

/// Bit masks by capability number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

/// As `sched_setattr` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scheduler {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// From which nodes memory is taken, as `set_mempolicy` takes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryPolicy {
    /// With its flags.
    pub mode: u32,
    pub nodes: Vec<usize>,
}

/// A system call filter, and who is told of calls it asks about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub profile: Profile,
    /// `SECCOMP_FILTER_FLAG_…`.
    pub flags: u32,
    pub listener: Option<PathBuf>,
    pub metadata: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Absolute.
    pub path: PathBuf,
    /// With the name it is called by.
    pub args: Vec<String>,
    /// `None`: that of whoever runs it.
    pub env: Option<Vec<String>>,
    pub timeout: Option<Duration>,
}
