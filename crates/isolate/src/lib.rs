//! The nursery and the walls around a star: namespaces, cgroups, mounts, seccomp; all the unsafe code.
//!
//! A *nursery* (`serve`) is a small single-threaded process that is the parent of every star of a node. An agent
//! talks to it through a `Client` in the words of `protocol`; both sides may die and come back without a star
//! noticing. What a star may do is decided by its `StarOrder`; that it can do no more is this crate's work.
//!
//! The crate knows neither the language nor the cluster: the program that runs the nursery hands it the function
//! that a RADS star runs once its walls stand.

#![deny(unsafe_code)]

mod areas;
mod bridge;
mod cgroup;
mod child;
mod client;
pub mod container;
pub mod criu;
mod detach;
mod disk;
mod exec;
mod fault;
mod heap;
mod ids;
mod in_force;
mod init;
mod inspect;
mod keepsake;
mod landlock;
mod lay;
pub mod log;
pub mod memory;
mod netlink;
mod network;
mod nursery;
mod order;
mod overlay;
mod packet;
pub mod parcel;
mod pipes;
pub mod place;
mod points;
mod private;
pub mod protocol;
mod protostar;
mod record;
mod root;
mod seal;
mod seccomp;
mod star;
mod start;
mod stats;
mod sys;
pub mod terminal;
mod usage;
mod vault;
mod walls;

pub use areas::{Areas, RUN_FILES, areas};
pub use client::Client;
pub use detach::launch_detached;
pub use disk::{pace, volumes};
pub use fault::Fault;
pub use heap::give_back;
pub use in_force::{InForce, PlaceInForce};
pub use inspect::{Inspection, MountPoint, inspect};
pub use nursery::{NurseryConfig, ScriptStart, StarEntry, can_take_over, serve, take_over};
pub use order::{Beginning, Bind, FileBind, Interior, Launch, Secret, StarOrder, Tmpfs};
pub use pipes::outputs;
pub use private::Private;
pub use protocol::{Message, Request, StarReport};
pub use seal::{is_sealed, seal};
pub use stats::{StarStats, disk_bytes, stats};
pub use walls::{DiskMeans, Enforced, IO_IN_PART, Walls, YIELDING_IN_PART};

/// Whether something keeps the clock right, by the kernel's word.
///
/// # Errors
/// When the kernel does not say.
pub fn clock_is_synchronised() -> std::io::Result<bool> {
    sys::clock::is_synchronised()
}
