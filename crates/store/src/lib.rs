//! What is on disk: the command log, state snapshots, bundles, root file systems and secrets.
//!
//! Independent parts: [`DataDir`] takes the folder, [`Store`] keeps the log of commands and rebuilds the state from it,
//! [`Bundles`] keeps code by content, [`Roots`] what stars have as their root,
//! [`Secrets`] what only they may know, [`Snapshots`] what they wrote, [`Answers`] what was asked for once. [`SharedLog`] takes the place of [`Store`] where
//! several machines keep one log, [`Followed`] where a machine only hears of it. Nothing here decides or interprets: what a command means is `state`'s.

#![forbid(unsafe_code)]

mod answers;
pub mod backup;
pub mod bundles;
mod database;
mod disk;
mod fault;
mod folder;
mod followed;
#[cfg(fuzzing)]
pub mod fuzzing;
mod journal;
mod ledger;
pub mod place;
mod record;
mod roots;
#[cfg(test)]
#[path = "../tests/sample/mod.rs"]
mod sample;
pub mod secrets;
pub mod shared;
pub mod snapshots;
mod store;
mod tip;

pub use answers::{Answers, Known};
pub use bundles::Bundles;
pub use followed::Followed;
pub use place::DataDir;
pub use roots::Roots;
pub use secrets::Secrets;
pub use shared::SharedLog;
pub use snapshots::Snapshots;
pub use store::{EXIT_DISK_FAILED, Recovered, Store};
