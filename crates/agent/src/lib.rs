//! The loop of a node: feeds the pure node its events and performs its effects; decides nothing.
//!
//! - `main_loop`: everything that happens, in one place.
//! - `link`, `doors`, `orders`: the nursery, the sockets inside stars, and what a start order becomes.
//! - `probe`, `tail`, `watcher`, `logs`, `exec`: what is done for one star at a time.
//! - `upgrade`: how an older nursery becomes the program this is.
//! - `talk`: programs that talk to each other and hear what becomes of the constellation.
//! - `watches`: what the log changes, told to who watches it.
//! - `control`, `stats`, `volumes`, `namespaces`, `resources`: the API's requests, handed to the loop or answered beside it; `denials`: those that were
//!   refused; `looker`: how they look at the node; `putting`: what is done before an app is written; `entering`: who goes into stars.
//! - `bereft`: whether the data folder is still there. `lean`: what memory is free goes back.
//! - `host`: what this machine is called and where it is reached.
//! - `constellation`: a node's part among others: connections, the shared log, who is there.

#![forbid(unsafe_code)]

pub mod backup;
mod bereft;
mod beside;
mod clock;
mod constellation;
mod control;
mod denials;
mod disk_use;
mod doors;
mod entering;
mod exec;
mod former;
pub mod host;
mod inspect;
mod lean;
mod life;
mod link;
mod logs;
mod looker;
mod main_loop;
mod memories;
mod namespaces;
mod once;
mod orders;
mod probe;
mod putting;
mod ready;
mod resources;
mod snapshots;
mod stats;
mod still;
mod tail;
mod talk;
mod terminal;
mod unknown;
mod upgrade;
mod volumes;
mod watcher;
mod watches;

/// What API tests remember of what they were asked.
#[cfg(test)]
#[path = "../../api/tests/support/mod.rs"]
mod support;

/// Where the agent of a data folder listens for other nodes once it runs; nothing when its machine is in no constellation.
///
/// # Errors
/// `DataCorrupt`, `DataUnwritable`.
pub fn listens_on(data_dir: &std::path::Path) -> Result<Option<std::net::SocketAddr>, model::Problem> {
    Ok(constellation::Home::read(data_dir)?.map(|home| home.listen))
}

/// Empties a data folder in which an agent was started for nothing, unless another has it by now: see
/// [`store::DataDir::clear_unused`].
pub fn clear_unused(data_dir: &std::path::Path) {
    if let Ok(folder) = store::DataDir::open(data_dir) {
        folder.clear_unused();
    }
}

pub use clock::runtime;
pub use life::{Config, Ending, run};
pub use upgrade::{Upgraded, upgrade_nursery};
