//! What travels between an agent and its clients, beside the words of `model` and the views of `node`.

use std::collections::BTreeMap;

use model::{AppSpec, BundleId, Code, ContentHash, Name, Problem, ServiceKey, StarId, VolumeKey, WallTime};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

pub use node::view::{
    AppView, EventView, HeldView, RolloutView, ServiceView, StarDetail, StarView, StatusView, TakenBack, VersionView,
};
pub use node::{
    Amounts, Comes, ExplainView, ExplainedNode, Forecast, GivesWay, JobView, MoveView, NamespaceView, NodeResources,
    Pool, ResourcesView, RunsView, ServiceForecast,
};

/// The version of this API, in every path. A change that breaks a client gets a new one.
pub const API_VERSION: u32 = 1;

/// Largest JSON body: a manifest of the most files a bundle holds, with long paths, is about half of it.
pub const BODY_MAX_BYTES: usize = 4 << 20;

/// Largest file of a bundle; it is held in memory once while it is stored. Data belongs in a volume.
pub const BLOB_MAX_BYTES: usize = 64 << 20;

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// The program's version.
    pub version: String,
    /// See [`API_VERSION`].
    pub api: u32,
    pub pid: u32,
    pub data_dir: String,
    pub started: WallTime,
    /// Started by a command that needed it; the command that takes the last app down ends it too.
    pub background: bool,
    /// It is a node of a constellation, and needed though nothing runs.
    #[serde(default)]
    pub is_node: bool,
}

/// What a node is and does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    pub agent: Version,
    pub node: StatusView,
    /// `None` while no nursery answers.
    pub walls: Option<WallsView>,
    /// Bytes resident in the agent itself.
    pub agent_memory: u64,
    /// The constellation that let go of this machine while nobody here asked for it; it has been in none since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<Former>,
}

/// A place that a machine no longer has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Former {
    pub cluster: Name,
    /// What the machine was called there.
    pub name: Name,
    /// When it heard that it was let go of.
    pub since: WallTime,
}

impl Status {
    /// What whoever asks about machines is told on one that is in no constellation.
    pub fn alone(&self) -> Problem {
        self.former.as_ref().map_or_else(node::roster::alone, Former::alone)
    }
}

impl Former {
    /// The same, where the machine was in one.
    pub fn alone(&self) -> Problem {
        let Self { cluster, name, .. } = self;
        let message = format!(
            "this machine was removed from constellation `{cluster}`, where it was node `{name}`; it is in none now"
        );
        Problem::new(Code::Conflict, message)
            .help("`rads c join HOST:PORT` joins anew; `rads c leave` forgets that it was there, for use on its own")
    }
}

/// Which limits hold on this machine, each `None` when it does and the reason when it does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WallsView {
    pub nursery_pid: u32,
    pub rootless: bool,
    /// `v1`, `hybrid`, `v2` or `none`.
    pub cgroup: String,
    pub cpu_not_enforced: Option<String>,
    pub memory_not_enforced: Option<String>,
    pub pids_not_enforced: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus_not_enforced: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_burst_not_enforced: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_borrow_not_enforced: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_not_enforced: Option<String>,
    /// What version 1 of cgroups leaves out of the limits of disk reads and writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_not_limited: Option<String>,
    /// By what disks of stars and sized volumes are bounded: `project_quota`, `image`, or `memory`, which bounds no volumes.
    #[serde(default)]
    pub disk: String,
    /// Why by memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_in_memory: Option<String>,
}

/// A moment in the node's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Index {
    pub index: u64,
}

/// How long to wait for something newer.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct After {
    /// Answer when the log has gone beyond this index.
    #[serde(default)]
    pub after: u64,
    /// Answer after so many milliseconds in any case; at most 60,000.
    #[serde(default)]
    pub wait_ms: u64,
    /// Answer when this node knows everything that was acknowledged by now, anywhere: what is read of it from then on is that
    /// or newer. Refused where no majority answers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub agreed: bool,
}

/// As whom a program talks.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TalkQuery {
    /// Messages go to stars of this namespace; `default` when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
}

/// Longest time a request may ask to be held.
pub const WAIT_MAX_MS: u64 = 60_000;

/// An app to put in place of what runs under its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PutApp {
    pub spec: AppSpec,
    /// The version of the app this was planned against: 0 when it must not exist yet, nothing when it does not
    /// matter. Another version is a conflict, and nothing changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
}

/// What was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Accepted {
    /// The log index at which it holds.
    pub index: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Scale {
    pub instances: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rollback {
    /// Which version comes back; the last good one before the present when absent.
    #[serde(default)]
    pub version: Option<u64>,
}

/// Counters of one star. `null` where this machine does not measure it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StarStats {
    pub star: StarId,
    pub name: String,
    pub service: ServiceKey,
    /// When the counters were read.
    pub at: WallTime,
    /// Processor time used since the start, in microseconds.
    pub cpu_usage_us: Option<u64>,
    /// Time spent waiting because the quota was used up, in microseconds, and how many periods of 100 ms that cut short.
    pub throttled_us: Option<u64>,
    pub throttled_periods: Option<u64>,
    /// Charged now, page cache included; without a memory controller what its processes have.
    pub memory_bytes: Option<u64>,
    /// Without page cache that was not used lately.
    pub memory_working_set_bytes: Option<u64>,
    /// The most that was ever charged.
    pub memory_peak_bytes: Option<u64>,
    /// What it may use; `null` for no limit.
    pub memory_limit_bytes: Option<u64>,
    /// What its writable places hold: volumes, memory file systems, the layer over a root of its own. `null` also for
    /// more than 100,000 files.
    pub disk_bytes: Option<u64>,
    /// By interfaces of its own other than loopback; `null` when it has none.
    pub network_received_bytes: Option<u64>,
    pub network_sent_bytes: Option<u64>,
    /// Over its own loopback, where requests come in; `null` on the host's network.
    pub network_loopback_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Open descriptors of all its processes together.
    pub fds: Option<u64>,
    /// How often the star of this name ended without being asked to.
    pub restarts: u64,
    /// Requests (connections, for TCP) that ended there since it was last published.
    pub requests: u64,
    pub in_flight: u32,
    /// Requests that ended because of the star: no connection, no answer, an answer cut short.
    pub errors: u64,
    /// Sum over the ended requests, from choosing the star to the last byte of its answer.
    pub latency_us_sum: u64,
    /// Why nothing of it could be read: its node cannot be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What one node has passed on to a star, wherever that is, since the star was last published there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Passed {
    pub star: StarId,
    /// Requests (connections, for TCP) that ended there.
    pub requests: u64,
    pub in_flight: u32,
    /// Requests that ended because of the star: no connection, no answer, an answer cut short.
    pub errors: u64,
    /// Requests that the star answered with 500 to 599, or that clients gave up after five seconds without an answer.
    #[serde(default)]
    pub server_errors: u64,
    /// Sum over the ended requests, from choosing the star to the last byte of its answer.
    pub latency_us_sum: u64,
}

/// Which logs to read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// An app, a service, a star's name (`hello-1`) or id; all stars when it is left out.
    pub target: Option<String>,
    /// Go on with new lines, and with stars that start later.
    #[serde(default)]
    pub follow: bool,
    /// So many of the last lines of each star first, after every other choice; 100 when it is left out.
    pub tail: Option<u32>,
    /// No lines from before this moment.
    pub since: Option<WallTime>,
    /// Only what came this way.
    pub stream: Option<LogPart>,
    /// The star that ran before the present one of the same name, instead of those that run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub previous: bool,
}

/// Which of a star's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogPart {
    Stdout,
    Stderr,
}

/// Lines of each star shown when nobody says how many: a screen or two.
pub const TAIL_DEFAULT: u32 = 100;
/// Most lines asked for at once; about what two log files hold.
pub const TAIL_MAX: u32 = 1_000_000;

/// One line of a star's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogRecord {
    pub star: StarId,
    /// The star's name, as `hello-1`.
    pub name: String,
    pub at: WallTime,
    /// Whether it came from standard error.
    pub error: bool,
    pub text: String,
}

/// A bundle and what it still lacks; with nothing missing it is stored and can be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BundleStatus {
    pub bundle: BundleId,
    pub missing: Vec<ContentHash>,
}

/// A command to run within a star's walls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecCommand {
    pub argv: Vec<String>,
    /// Added to the star's own environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Give it a terminal of this size; its output and errors come as one then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
}

/// Files to copy as a tar stream (ustar with GNU's long names). Sockets, pipes and devices are left out: each is named on
/// standard error, and the exit code is 3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Copy {
    /// What is at a path, to standard output.
    Out { path: String },
    /// From standard input to a path. An `archive` goes into that folder as it is; else what comes is one file or folder,
    /// put there as `cp` would. Standard output gets the numbers of files, of bytes, and of what was left out.
    In {
        path: String,
        #[serde(default)]
        archive: bool,
    },
}

/// In characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

/// How a command ended; the last frame of an `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Its exit code, or 128 and the number of the signal that ended it.
    Code(i32),
    /// Why it did not run, or why its end was not seen.
    Problem(model::Problem),
}

/// What becomes of the stars when their agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StarsThen {
    /// They run on; the next agent takes them over.
    Keep,
    /// They end as when they are stopped, each within its grace, and their nursery with them. Their apps stay known: the next agent starts them anew.
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Shutdown {
    pub stars: StarsThen,
}

/// What was recorded after an index, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Events {
    /// Ask for what comes after this next.
    pub index: u64,
    pub events: Vec<EventView>,
}

/// What one star is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StarTurn {
    /// End, and leave its place free.
    Stop,
    /// Run in a place that was left free.
    Start,
    /// End, and have another of its name follow.
    Restart,
    /// End when another has come for it on another machine.
    Move,
}

/// Everything that is known of one star.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Inspection {
    #[serde(flatten)]
    pub detail: StarDetail,
    /// What it is on its host; `null` when it does not run.
    pub host: Option<HostView>,
    /// Limits that this machine does not hold, with the reasons.
    pub not_enforced: BTreeMap<String, String>,
    /// Its log, the older part first.
    pub log_files: Vec<String>,
}

/// A star as its host sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostView {
    pub pid: u32,
    /// Clock ticks since boot: with the pid it names one process for ever.
    pub start_time: u64,
    /// The process of its program, where the first is an init of the nursery's.
    pub program_pid: Option<u32>,
    /// How its root is numbered on the host, and how many users it has.
    pub first_user_id: u32,
    pub user_ids: u32,
    /// Its address on the bridge.
    #[schema(value_type = Option<String>)]
    pub address: Option<std::net::Ipv4Addr>,
    /// The folder of the cgroup of each controller.
    pub cgroups: BTreeMap<String, String>,
    /// Namespaces of its own.
    pub namespaces: BTreeMap<String, String>,
    pub mounts: Vec<MountView>,
    /// Read back from what holds them; `null` for none.
    pub limits: InForce,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MountView {
    pub at: String,
    pub kind: String,
    pub source: String,
    pub options: String,
}

/// Limits in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InForce {
    /// Thousandths of a processor core.
    pub cpu_millicores: Option<u64>,
    /// Of unused processor time, how much may be used later, in percent of what `cpu_millicores` is in 100 ms.
    #[serde(default)]
    pub cpu_burst_percent: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub memory_soft_bytes: Option<u64>,
    pub pids: Option<u64>,
    pub open_files: Option<u64>,
    /// The processors it may run on, as `0-1,3`.
    pub cpus: Option<String>,
    /// Bytes a second from the disk of the data folder, and to it.
    #[serde(default)]
    pub io_read_bytes_s: Option<u64>,
    #[serde(default)]
    pub io_write_bytes_s: Option<u64>,
    /// Of its own disk; `null` when it has none.
    #[serde(default)]
    pub disk_bytes: Option<u64>,
    /// What of its output is taken in a second.
    #[serde(default)]
    pub log_bytes_s: Option<u64>,
    /// Its volumes and memory file systems.
    #[serde(default)]
    pub places: Vec<PlaceInForce>,
    /// By what each of the limits is held, by its name for people: a file of a cgroup, `project quota`, `image on /dev/loop0`,
    /// `memory file system`, a process limit.
    #[serde(default)]
    pub means: BTreeMap<String, String>,
}

/// How much a writable place may hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlaceInForce {
    pub at: String,
    /// `null`: as much as the file system it is on.
    pub bytes: Option<u64>,
    /// By what it is bounded; `null` when it is not.
    pub means: Option<String>,
}

/// What a snapshot is to be called; without a name, after its service and the time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TakeSnapshot {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Also the memory of its star, of which there has to be one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub memory: bool,
}

/// How a namespace is taken away.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct NamespaceRemoval {
    /// With the apps and secrets that are in it.
    #[serde(default)]
    pub force: bool,
}

/// A named place whose files outlive stars.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeView {
    pub volume: VolumeKey,
    /// The name of the node where it lies.
    pub node: String,
    /// Services that have it.
    pub services: Vec<ServiceKey>,
    /// What it takes of that node's disk; nothing when the node did not say, or there are too many files to count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// Files that a service's stars wrote, as they were at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotView {
    pub name: Name,
    pub service: ServiceKey,
    pub taken: WallTime,
    pub volumes: Vec<SnapshotVolume>,
    /// Of the star it was taken of, when that was kept too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<SnapshotMemory>,
    /// Stars that ran then, with what they had of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stars: Vec<SnapshotStar>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotMemory {
    /// Its name: `hello-1`.
    pub star: String,
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotStar {
    /// `hello-1`.
    pub name: String,
    pub places: Vec<SnapshotPlace>,
}

/// A place that a star writes to and that is gone with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotPlace {
    /// `/tmp`; `/` is what it changed of its `rootfs`.
    pub path: String,
    /// Folders and links too, and what it removed.
    pub files: u64,
    pub bytes: u64,
    /// Sockets in it, of which nothing is kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotVolume {
    pub volume: Name,
    /// Folders and links too.
    pub files: u64,
    pub bytes: u64,
    /// Sockets in it, of which nothing is kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

/// A snapshot that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotTaken {
    pub snapshot: SnapshotView,
    /// Bytes of content that no snapshot had before.
    pub added_bytes: u64,
    /// Stars that stood still for it, and how long.
    pub stars: u32,
    pub still_ms: u64,
}

/// Where a snapshot's files go: without a service, where they came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreSnapshot {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceKey>,
    /// Only say whether it could be done if everybody who uses the files were stopped; of damaged content it is not told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub check: bool,
    /// With `check`, when it can be done: services that whoever asks is about to stop for it and to start again. Should the
    /// agent end before they are started, the next one starts them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starts_again: Vec<ServiceKey>,
}
