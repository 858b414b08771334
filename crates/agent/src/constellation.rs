//! A node's part in its constellation: what joins `net`, `consensus`, `membership` and the shared log to the loop.
//!
//! - `home`: what a node keeps of its constellation beside the log. `roads`: how to reach the others. `switchboard`: who is
//!   answered by whom. `wire`: the bytes of what is said here.
//! - `peers`, `disk`: what the voter in `consensus` needs of the network and the disk. `shared`: the log as the agent uses it;
//!   `patience`: how long it waits for a leader.
//! - `feed`: commands in their order, on to those who follow. `follow`: hearing them from a voter. `lead`: what the leader
//!   does beside planning. `gossip`: who seems to be there; `gossip_keys`: what that is sealed with. `report`: telling the leader that one is.
//! - `mesh`: the way to stars elsewhere. `bundles`: files of apps between nodes. `vault`: secrets, sealed and released. `forward`, `far_logs`: requests of the API that
//!   are answered elsewhere.
//! - `found`, `join`: how a machine becomes a node. `discovery`: finding one to join. `registrar`: lets others in and gives nodes new certificates. `certs`: a
//!   node's own, and whom it believes. `rotation`: another authority. `security`: what the log says of all
//!   that. `invitations`: what a person may do about it; `once`: and that it happens once.
//! - `twin`: whether a copy of the data folder runs elsewhere. `let_go`: whether the others have let go of this node.
//! - `start`: all of it, from the home to a running part. `entry`: how a machine becomes a node, and stops being one.
//! - `post`: messages of programs, between nodes. `survey`: how the others are reached, and what their clocks show.
//! - `access`: who of outside is who, by the grants of the log; `buckets`: how often they may ask. `gate`: where they come in. `grants`:
//!   what a person may do about it, and what is shown of who did what.
//! - `backup`: what a new first node needs to be what the constellation was.

pub(crate) mod access;
pub(crate) mod backup;
mod buckets;
pub(crate) mod bundles;
mod certs;
mod discovery;
mod disk;
pub(crate) mod entry;
pub(crate) mod far_logs;
mod feed;
mod follow;
pub(crate) mod forward;
pub(crate) mod found;
pub(crate) mod gate;
mod gossip;
pub(crate) mod gossip_keys;
pub(crate) mod grants;
pub(crate) mod home;
pub(crate) mod invitations;
pub(crate) mod join;
mod lead;
pub(crate) mod let_go;
pub(crate) mod mesh;
mod once;
mod order;
mod patience;
mod peers;
pub(crate) mod post;
pub(crate) mod registrar;
mod report;
pub(crate) mod roads;
mod rotation;
pub(crate) mod security;
pub(crate) mod shared;
mod start;
pub(crate) mod survey;
mod switchboard;
#[cfg(test)]
pub(crate) mod testing;
mod twin;
pub(crate) mod vault;
mod wire;

pub(crate) use bundles::Carrier;
pub(crate) use entry::{Standpoint, machine};
pub(crate) use home::Home;
pub(crate) use mesh::Mesh;
pub(crate) use shared::Shared;
pub(crate) use start::{Part, start};
pub(crate) use switchboard::DataPlane;
