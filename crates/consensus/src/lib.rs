//! One log kept by several machines: Raft over what the agent connects it to.
//!
//! A voter keeps a log of [`state::Command`]s, agrees with the other voters on its order, and hands every agreed command on,
//! once and in order. Underneath is openraft, of which nothing shows here. What this crate needs of the world is named by
//! two traits: [`Disk`] keeps bytes, [`Peers`] carries requests. Time, tasks and the disk's thread are all it has of its own,
//! and these are in one file, `runtime`: `consensus-sim` is this crate with another.
//!
//! - `config`: what can be chosen. `voter`: the handle. `members`: who votes. `handle`: what peers ask.
//! - `network`: what peers are asked, `snapshot`: the state on its way between machines, in pieces.
//! - `log`, `flusher`: entries in memory and on their way to the disk. `machine`: what applies them. `compact`: when the log
//!   gives way to a snapshot. `recover`: the first voter, and the last.
//! - `pulse`: when openraft looks at its clock. `status`: what a voter says of itself.
//! - `v1`: every byte that leaves the process. `raft`: openraft's types as used here.

#![forbid(unsafe_code)]

mod compact;
mod config;
mod disk;
mod flusher;
mod gather;
mod handle;
mod log;
mod machine;
mod members;
mod network;
mod peers;
mod pulse;
mod raft;
mod recover;
mod runtime;
mod snapshot;
mod status;
mod v1;
mod voter;

pub use config::Config;
pub use disk::{Disk, Fault, Kept, Stored, Write};
pub use machine::Applied;
pub use peers::{Lane, PeerError, Peers};
pub use recover::{Alone, Tail, become_only_voter, found, tail};
pub use status::{Role, Standing, Status};
pub use v1::COMMAND_MAX;
pub use voter::{Consensus, Outcome, Refusal};

#[cfg(test)]
extern crate self as consensus;
#[cfg(test)]
mod suite;
#[cfg(test)]
#[path = "../tests/support/disk.rs"]
mod support;
