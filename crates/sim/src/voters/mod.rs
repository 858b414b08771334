//! The consensus as it ships, on machines that are not: openraft and everything of `consensus` around it, over a virtual clock, a
//! simulated network and simulated disks, with faults from a seed. What happens is a function of the options.
//!
//! - `world`: the machines, what is known of them, what is wrong. `scenario`: what happens in a run. `faults`: what goes wrong.
//! - `people`: clients, and the operator who changes who votes. `disk`, `network`: what machines are made of.
//! - `truth`: what must hold of the log and the state. `history`: what clients saw.

mod cli;
mod disk;
mod faults;
mod history;
mod network;
mod people;
mod scenario;
mod truth;
mod world;

pub use cli::main;
pub use scenario::run;
pub use world::{Bug, Failure, Options, Report};

/// How long things go wrong in a run, unless another time is asked for.
pub const SECONDS: u64 = 15;
