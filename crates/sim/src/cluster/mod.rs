//! A constellation in one thread: the real decisions of many nodes over a virtual clock, a simulated network, machines that
//! lose power and stars that crash. What happens is a function of the options; a seed that failed once is kept as a test.
//!
//! The log is an ideal one: one leader at most, chosen among the voters that see a majority, and what it writes stays written. What
//! a real log does to get there is shown by `consensus`. Everything above it runs as it ships: `node`, `state`, `scheduler`,
//! `rollout`.
//!
//! - `world`: the clock, the queue of what happens, the network, the log. `machine`: one machine. `faults`: what goes wrong.
//! - `apps`: what people ask for. `check`: what must hold, after every event and in the end; `shares`:
//!   what is kept and what may be had; `answers`: what requests meet.

mod answers;
mod apps;
mod check;
mod cli;
mod faults;
mod machine;
mod shares;
mod world;

pub(crate) use apps::spec;
pub use cli::main;
pub use world::{Bug, Failure, Options, Report, run};
