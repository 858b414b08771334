//! Who is alive. SWIM (Das, Gupta and Motivala, 2002) with what running it taught others since: suspicion that several witnesses
//! shorten and local health (Lifeguard, 2018), anti-entropy, a way back from zero members, damping of members that come and go.
//!
//! A state machine: [`Membership::handle`] takes an [`Event`] and the time, and appends [`Effect`]s. Sockets, keys and clocks are the
//! caller's: datagrams are sealed, and streams secured, by `net`. What is said here is a hint; that a node is lost is decided by the
//! log. Why it is not built on a library, and what was measured, is in `docs/adr/0032-membership.md`.
//!
//! ```
//! use membership::{Attributes, Config, Effect, Event, Member, Membership, Metadata};
//! use model::{NodeId, Time};
//!
//! let member = |id: u64, name: &str, addr: &str| Member {
//!     id: NodeId(id),
//!     name: name.parse().unwrap(),
//!     addr: addr.parse().unwrap(),
//!     incarnation: 0,
//!     metadata: Metadata::new(Attributes::default()).unwrap(),
//! };
//! let mut a = Membership::new(Config::default(), member(1, "a", "10.0.0.1:7946"), Time::ZERO, 1);
//! let mut b = Membership::new(Config::default(), member(2, "b", "10.0.0.2:7946"), Time::ZERO, 2);
//!
//! // `b` looks for company at the address of `a`: it asks over a stream, and takes the answer.
//! let mut effects = Vec::new();
//! b.handle(Time::ZERO, Event::Join { seeds: &["10.0.0.1:7946".parse().unwrap()] }, &mut effects);
//! let Some(Effect::PushPull { with, bytes }) = effects.pop() else { panic!("asks") };
//! a.handle(Time::ZERO, Event::PushPull { exchange: 1, bytes: &bytes }, &mut effects);
//! let Some(Effect::Answer { bytes, .. }) = effects.pop() else { panic!("answers") };
//! b.handle(Time::ZERO, Event::PushPullAnswer { with, bytes: &bytes }, &mut effects);
//! assert_eq!((a.live_count(), b.live_count()), (1, 1));
//! ```

#![forbid(unsafe_code)]

mod claims;
mod config;
mod damping;
mod gossip;
mod health;
mod member;
mod membership;
mod probing;
mod rng;
mod suspicion;
mod sync;
mod table;
#[cfg(test)]
mod testing;
mod twin;
mod wire;

pub use config::{Config, Protections};
pub use member::{
    Attributes, Capacity, InvalidMetadata, LABEL_VALUE_MAX_CHARS, LABELS_MAX, METADATA_MAX_BYTES, Member, Metadata,
    Status, VERSION_MAX_CHARS,
};
pub use membership::{Claimed, Counters, Effect, Event, Membership, View};
pub use twin::{Meeting, Run};
pub use wire::{BLOB_MAX_BYTES, DATAGRAM_MAX_BYTES};
