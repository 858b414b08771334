//! What the log means: apply one command to the state, and say what changed.
//!
//! [`apply`] is total and deterministic: any command on any state gives the same result wherever it is applied, and a
//! command that does not fit is a [`Change::Refused`], not an error. Nothing here reads a clock; times come in commands,
//! written by whoever proposed them. Who decides which commands to propose is `node`; who keeps them is `store`.
//!
//! - `command`: what may be said. `record`: what is known; `stars`: and how stars are found. `apply`: from one to the other; `single`: for one star or service;
//!   `keys`: for what is asked for under a key; `nodes`: for machines; `namespaces`: for tenants, their ends and quotas; `burst`: for what they have beyond those;
//!   `security`: for who may come in and is believed; `access`: for who may use it; `rollouts`: for versions of services and the
//!   way from one to the next; `jobs`: for runs of what ends; `holds`: for reservations; `audit`: who did. `touched`: what of it changed, for who watches.

#![forbid(unsafe_code)]

pub mod access;
mod apply;
pub mod audit;
mod burst;
mod command;
mod everywhere;
mod holds;
pub mod jobs;
pub mod keys;
mod moves;
pub mod namespaces;
mod nodes;
mod record;
pub mod rollouts;
pub mod secrets;
pub mod security;
mod single;
mod stars;
mod touched;
mod volumes;

pub use access::{Grant, Proof};
pub use apply::{Change, apply, check_put};
pub use audit::{Audit, AuditRecord, Author, Deed, Outcome, Who};
pub use burst::Share;
pub use command::{Assignment, Command, Transition};
pub use keys::Keys;
pub use namespaces::{End, Inside, NamespaceRecord};
pub use record::{About, AppRecord, EVENTS_MAX, EventRecord, NodeRecord, ServiceRecord, StarRecord, State, TURNS_MAX};
pub use rollouts::{Before, Held, Rollout, Settled, TakenBack, Version, as_put};
pub use secrets::SecretRecord;
pub use security::{AuthorityRecord, CertificateRecord, GossipKey, Security};
pub use stars::{Load, Stars};
pub use touched::{Part, touched};
