//! The words of the project: typed ids, names, units, specs, statuses and problems.
//!
//! Plain data, checked at its edges: a value of one of these types needs no further checks. What the data
//! *means* over time is `state`; what is decided from it is `node` and the crates it composes.

#![forbid(unsafe_code)]

pub mod access;
pub mod app;
pub mod beat;
pub mod bundle;
pub mod cpus;
pub mod endpoint;
pub mod hold;
pub mod id;
pub mod identity;
pub mod interior;
pub mod job;
pub mod limits;
pub mod machine;
pub mod name;
pub mod namespace;
pub mod once;
pub mod placement;
pub mod problem;
pub mod reserve;
mod schema;
pub mod secret;
pub mod star;
pub mod taint;
pub mod talk;
pub mod time;
pub mod units;
pub mod update;
pub mod weakened;

pub use access::{Access, Rights, Role, Scope, Verb};
pub use app::{
    AppSpec, Balance, Entry, Health, Hooks, ListenAddr, Network, Probe, ProbeKind, ProbeRole, Program, Protocol,
    RestartPolicy, ServiceSpec, StarTemplate, VolumeMount,
};
pub use bundle::{BundleId, BundleManifest, ContentHash, FileEntry};
pub use cpus::CpuSet;
pub use endpoint::{Endpoint, EndpointSet};
pub use hold::Hold;
pub use id::{NodeId, RequestId, StarId};
pub use identity::{JoinTicket, NodeIdentity, NodeRole, Serial, TicketRefusal};
pub use interior::{Interior, Tmpfs, User};
pub use job::{Job, Missed, Overlap, Run, RunOutcome, Schedule};
pub use limits::{Limits, LimitsChange};
pub use machine::{Duty, NodeFacts, Standing, VolumeThere};
pub use name::{AppKey, Name, SecretKey, ServiceKey, VolumeKey};
pub use namespace::{NamespaceChange, Quota, QuotaChange, Usage};
pub use once::{IdempotencyKey, Once};
pub use placement::{Attribute, Condition, Placement, Preference, Priority, Strategy};
pub use problem::{Code, Problem};
pub use reserve::{Kept, Lack, Overcommit, Reserve};
pub use secret::{SecretChange, SecretView};
pub use star::{Exit, ExitCause, StarPhase, Turn};
pub use taint::{Taint, Taints, Toleration};
pub use time::{Time, WallTime};
pub use units::{Bytes, Millicores};
pub use update::{Amount, Fate, OnFailure, OnSecret, RolloutTurn, Update, UpdateStrategy};
pub use weakened::{Capability, Weakened};
