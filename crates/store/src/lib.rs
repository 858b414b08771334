//! What is on disk: the command log, state snapshots and bundles.
//!
//! Three independent parts: [`DataDir`] takes the folder, [`Store`] keeps the log of commands and rebuilds the state
//! from it, [`Bundles`] keeps code by content. Nothing here decides or interprets: what a command means is `state`'s.

#![forbid(unsafe_code)]

pub mod bundles;
mod disk;
mod fault;
mod ledger;
pub mod place;
mod record;
#[cfg(test)]
#[path = "../tests/sample/mod.rs"]
mod sample;
mod store;
mod tip;

pub use bundles::Bundles;
pub use place::DataDir;
pub use store::{EXIT_DISK_FAILED, Recovered, Store};
