//! What a user asks for: an app, its services, and the template every star of a service is made from.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::access::Access;
use crate::bundle::BundleId;
use crate::hold::Hold;
use crate::interior::Interior;
use crate::job::Job;
use crate::limits::Limits;
use crate::name::{AppKey, Name, ServiceKey};
use crate::placement::Placement;
use crate::problem::{Code, Problem};
use crate::reserve::Reserve;
use crate::units::Bytes;
use crate::update::Update;
use crate::weakened::Weakened;

/// Everything `app.rads` describes. The same file gives the same spec, so two specs can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AppSpec {
    pub app: AppKey,
    pub services: BTreeMap<Name, ServiceSpec>,
}

impl AppSpec {
    pub fn service_key(&self, service: &Name) -> ServiceKey {
        ServiceKey { namespace: self.app.namespace.clone(), name: service.clone() }
    }
}

/// A named group of equal stars and the way in to them.
///
/// A change of `template` replaces the stars one after another; a change of any other field is made in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ServiceSpec {
    pub template: StarTemplate,
    /// How many stars to keep running; 0 keeps the service known but empty.
    pub instances: u32,
    /// Where requests come in; `None` for a service that serves nobody.
    pub entry: Option<Entry>,
    /// Which machines its stars go to.
    #[serde(default, skip_serializing_if = "Placement::is_default")]
    pub placement: Placement,
    /// How its stars are replaced when it changes.
    #[serde(default, skip_serializing_if = "Update::is_default")]
    pub update: Update,
    /// Its stars run to their end: `instances` is the number of its parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
    /// Its stars run nothing: they hold places for stars of other services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

impl ServiceSpec {
    /// Refuses what cannot be on each machine.
    ///
    /// # Errors
    /// Names what stands against it.
    pub fn check_everywhere(&self) -> Result<(), Problem> {
        let stands_against = [
            (self.instances != 1, "`instances`"),
            (self.template.singleton, "`singleton`"),
            (self.job.is_some(), "what runs to its end"),
            (self.update.has_trial(), "`canary` and `blue_green`, which want two on a machine"),
            (!self.template.volumes.is_empty(), "`volumes`, which lie on one"),
        ];
        match stands_against.into_iter().find(|(is, _)| *is && self.placement.every_node) {
            None => Ok(()),
            Some((_, what)) => {
                let problem = Problem::new(Code::InvalidValue, format!("`every_node` does not go with {what}"));
                Err(problem.help("take one of them away"))
            }
        }
    }
}

/// Most stars one service may ask for on one node; far above what a small machine holds, below what a typing
/// slip would ask for.
pub const INSTANCES_MAX: u32 = 10_000;

/// What one star is: its program, files, limits and walls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StarTemplate {
    pub program: Program,
    pub args: Vec<String>,
    /// The files at `/app`, by content.
    pub bundle: BundleId,
    /// The archive (tar, plain or with gzip) in the bundle that is the star's root, in place of the host's programs. Only
    /// for commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<String>,
    /// A script is executed as a program behind an init instead of being a copy of the nursery, so that its memory can be kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checkpoint: bool,
    /// There is never more than one star of its service, not even while one takes another's place or while a machine is out of
    /// reach: the next one starts when the last is known to have ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub singleton: bool,
    pub env: BTreeMap<String, String>,
    pub limits: Limits,
    /// What is kept for it on its machine.
    #[serde(default, skip_serializing_if = "Reserve::is_nothing")]
    pub reserve: Reserve,
    pub volumes: Vec<VolumeMount>,
    pub network: Network,
    /// The port the program listens on inside its own network namespace; also given to it as `PORT`.
    pub port: Option<u16>,
    pub probe: Probe,
    pub restart: RestartPolicy,
    /// Milliseconds between the order to stop and SIGKILL.
    pub grace_ms: u32,
    /// The signal that tells it to stop; SIGTERM when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<i32>,
    /// Milliseconds it may run, from its start; then it is told to stop. `None`: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// What else is run within its walls, when.
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// What is asked of it beside whether it is ready.
    #[serde(default, skip_serializing_if = "Health::is_empty")]
    pub health: Health,
    #[serde(default, skip_serializing_if = "Interior::is_empty")]
    pub interior: Interior,
    /// Walls it does without.
    #[serde(default, skip_serializing_if = "Weakened::is_empty")]
    pub weakened: Weakened,
    /// What it may ask of the constellation, as far as its service still says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
}

/// Probes with consequences of their own; `StarTemplate::probe` says whether requests may come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Health {
    /// Whether it has started. Until it passes, for its `start_ms` at most, nothing else is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<Probe>,
    /// Whether it still lives. Asked from the end of its start on, ready or not: after `failures` in a row it is ended and
    /// replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Probe>,
}

impl Health {
    pub fn is_empty(&self) -> bool {
        self.startup.is_none() && self.live.is_none()
    }
}

/// Which of a star's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeRole {
    Startup,
    Ready,
    Live,
}

/// Commands run within a star's walls at the turns of its life. An empty one is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Hooks {
    /// To its end before the program starts; the star does not start unless it ends with 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before_start: Vec<String>,
    /// To its end, but for no longer than the grace, before the star is told to stop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before_stop: Vec<String>,
}

impl Hooks {
    pub fn is_empty(&self) -> bool {
        self.before_start.is_empty() && self.before_stop.is_empty()
    }
}

impl StarTemplate {
    /// Whether stars of this template become stars of `other` while they run: their limits change, and nothing else.
    pub fn can_become(&self, other: &Self) -> bool {
        let as_other = Self { limits: other.limits, ..self.clone() };
        as_other == *other
    }

    /// What these limits lack to let a star of this template live.
    pub fn check_limits(&self, limits: &Limits) -> Result<(), Problem> {
        let (memory_min, what) = match self.program {
            Program::Script(_) => (Limits::SCRIPT_MEMORY_MIN, "a RADS star"),
            Program::Command(_) => (Limits::COMMAND_MEMORY_MIN, "a star"),
            Program::Nothing => (Bytes(0), "a place"),
        };
        let too_low = |message: String| Err(Problem::new(Code::LimitTooLow, message));
        if let Some(memory) = limits.memory.filter(|memory| *memory < memory_min) {
            return too_low(format!("{what} needs at least {memory_min} of memory to live, not {memory}"));
        }
        if let (Some(soft), Some(memory)) = (limits.memory_soft, limits.memory)
            && soft > memory
        {
            let message = format!("the soft limit of memory, {soft}, is above the limit, {memory}");
            return Err(Problem::new(Code::InvalidValue, message));
        }
        if limits.balloon && limits.memory_soft.is_some() {
            let message = "the soft limit of memory follows what a star uses (`ram_balloon`) or is given (`ram_soft_mb`), not both";
            return Err(Problem::new(Code::InvalidValue, message).help("take one of them away"));
        }
        if let Some(soft) = limits.memory_soft.filter(|soft| *soft < memory_min) {
            return too_low(format!("{what} needs at least {memory_min} of memory to live, the soft limit is {soft}"));
        }
        if let Some(cpu) = limits.cpu.filter(|cpu| *cpu < Limits::CPU_MIN) {
            return too_low(format!("a star needs at least {} of a core, not {cpu}", Limits::CPU_MIN));
        }
        if limits.pids == Some(0) {
            return too_low("a star needs at least 1 process".to_owned());
        }
        if let Some(files) = limits.open_files.filter(|files| *files < Limits::OPEN_FILES_MIN) {
            return too_low(format!("a star needs at least {} open files, not {files}", Limits::OPEN_FILES_MIN));
        }
        let Reserve { cpu, memory } = self.reserve;
        if let Some(limit) = limits.memory.filter(|limit| memory > *limit) {
            let message = format!("{memory} of memory are kept for a star that may use {limit}");
            return Err(Problem::new(Code::InvalidValue, message).help("keep no more than the limit"));
        }
        if let Some(limit) = limits.cpu.filter(|limit| cpu > *limit) {
            let message = format!("{cpu} of a core are kept for a star that may use {limit}");
            return Err(Problem::new(Code::InvalidValue, message).help("keep no more than the limit"));
        }
        if let Some(disk) = limits.disk {
            check_disk("a disk", disk)?;
        }
        if let Some(burst) = limits.cpu_burst {
            if limits.cpu.is_none() {
                let message = "a cpu burst is a part of the processor time of a star, which is unlimited";
                return Err(Problem::new(Code::InvalidValue, message).help("limit that too, or leave the burst out"));
            }
            if burst > Limits::CPU_BURST_MAX {
                let message = format!("a cpu burst is at most {} %, not {burst} %", Limits::CPU_BURST_MAX);
                return Err(Problem::new(Code::InvalidValue, message));
            }
        }
        if let Some(more) = limits.cpu_borrow {
            if limits.cpu.is_none() {
                let message = "a star whose processor time is unlimited has nothing to borrow";
                return Err(Problem::new(Code::InvalidValue, message).help("limit it, or leave the borrowing out"));
            }
            if more > Limits::CPU_BORROW_MAX {
                let message = format!("a star borrows at most {} % more, not {more} %", Limits::CPU_BORROW_MAX);
                return Err(Problem::new(Code::InvalidValue, message));
            }
        }
        for (what, rate) in [("reads", limits.io_read), ("writes", limits.io_write)] {
            if let Some(rate) = rate.filter(|rate| *rate < Limits::IO_MIN) {
                return too_low(format!("a star {what} at least {} a second, not {rate}", Limits::IO_MIN));
            }
        }
        let (slowest, fastest) = (Limits::LOG_RATE_MIN, Limits::LOG_RATE_MAX);
        if let Some(rate) = limits.log_rate.filter(|rate| !(slowest..=fastest).contains(rate)) {
            let message = format!("a log rate is between {slowest} and {fastest} a second, not {rate}");
            return Err(Problem::new(Code::InvalidValue, message));
        }
        Ok(())
    }
}

/// Grace when the spec names none: enough for requests in flight, short enough to wait for at a terminal.
pub const GRACE_DEFAULT_MS: u32 = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
// A WASM module will be a variant of its own here and in `isolate::Launch`; until then `deploy` refuses one by name.
pub enum Program {
    /// A RADS script, by its path within the bundle.
    Script(String),
    /// A program and its arguments, executed as they are (no shell). A first word with a `/` is a path within
    /// `/app` when relative; one without is looked up on the star's `PATH`.
    Command(Vec<String>),
    /// It only holds a place.
    Nothing,
}

/// A named, persistent folder seen at a path inside the star.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct VolumeMount {
    pub volume: Name,
    /// Absolute and normalised; see [`crate::interior::check_place`].
    pub path: String,
    /// Most bytes of it; `None`: as many as its file system has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
}

/// Whether a disk or a volume of that size can be.
pub fn check_disk(what: &str, size: Bytes) -> Result<(), Problem> {
    let (min, max) = (Limits::DISK_MIN, Limits::DISK_MAX);
    match size {
        _ if size < min => Err(Problem::new(Code::LimitTooLow, format!("{what} is at least {min}, not {size}"))),
        _ if size > max => Err(Problem::new(Code::InvalidValue, format!("{what} is at most {max}, not {size}"))),
        _ => Ok(()),
    }
}

/// What a star can reach. Incoming requests always come through the door its node opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A namespace of its own with only loopback: nothing outside can be reached.
    None,
    /// The host's own network. The star shares its ports, so each is given one in `PORT`.
    Host,
    /// A namespace of its own behind the node's bridge, with masqueraded outgoing connections. Needs root.
    Bridge,
}

/// Where requests for a service come in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Entry {
    pub listen: ListenAddr,
    pub protocol: Protocol,
    pub balance: Balance,
}

/// An address to listen on; port 0 takes any free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ListenAddr {
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub ip: IpAddr,
    pub port: u16,
}

impl ListenAddr {
    pub fn loopback(port: u16) -> Self {
        Self { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::net::SocketAddr::new(self.ip, self.port))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1: each request is balanced on its own.
    Http,
    /// Bytes: each connection is balanced once.
    Tcp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    RoundRobin,
    /// The star with the fewest requests in flight; ties go round.
    LeastConnections,
}

/// How to tell that a star is ready for requests, and later that it still is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Probe {
    pub kind: ProbeKind,
    /// Milliseconds between two probes of a ready star. While starting, probes come faster.
    pub interval_ms: u32,
    /// Milliseconds after which one probe has failed.
    pub timeout_ms: u32,
    /// Milliseconds a star may take to become ready before it is replaced.
    pub start_ms: u32,
    /// Failures in a row after which a ready star is taken out of service.
    pub failures: u32,
    /// Failures in a row after which a star that was ready is ended and replaced; never when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_after: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// Ready as soon as the process runs: for programs that listen on nothing.
    Started,
    /// Ready when a connection to its port is accepted.
    Tcp,
    /// Ready when `GET path` answers 200–399.
    Http { path: String },
    /// Ready when a command within its walls ends with 0.
    Exec { command: Vec<String> },
    /// Ready when a RADS script of its bundle, run within its walls, ends with 0.
    Script { path: String },
}

impl ProbeKind {
    /// Whether it asks at the star's port.
    pub fn needs_port(&self) -> bool {
        matches!(self, Self::Tcp | Self::Http { .. })
    }
}

impl Probe {
    pub fn new(kind: ProbeKind) -> Self {
        Self { kind, interval_ms: 5_000, timeout_ms: 1_000, start_ms: 30_000, failures: 3, restart_after: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// Replace a star however it ended: for services.
    Always,
    /// Replace it unless it ended with exit code 0.
    OnFailure,
    /// Leave it ended.
    Never,
}
