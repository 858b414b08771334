//! A node's part in its constellation: what joins `net`, `consensus`, `membership` and the shared log to the loop.
//!
//! - `home`: what a node keeps of its constellation beside the log. `roads`: how to reach the others. `switchboard`: who is
//!   answered by whom. `wire`: the bytes of what is said here.
//! - `peers`, `disk`: what the voter in `consensus` needs of the network and the disk. `shared`: the log as the agent uses it.
//! - `feed`: commands in their order, on to those who follow. `follow`: hearing them from a voter. `lead`: what the leader
//!   does beside planning. `gossip`: who seems to be there. `report`: telling the leader that one is.
//! - `start`: all of it, from the home to a running part.

#![expect(dead_code, reason = "init, join and leave use it in the next step")]

mod disk;
mod feed;
mod follow;
mod gossip;
pub(crate) mod home;
mod lead;
mod order;
mod peers;
mod report;
pub(crate) mod roads;
pub(crate) mod shared;
mod start;
mod switchboard;
mod wire;

pub(crate) use home::Home;
pub(crate) use shared::Shared;
pub(crate) use start::start;
