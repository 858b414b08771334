//! Real agents in network namespaces: what a constellation of several machines promises, and that it holds while machines die,
//! stand still and are cut off from each other.
//!
//! As root, or (`cargo xtask test cluster --rootless`) as a user without rights in a user namespace. The short part runs with all tests; what takes minutes is for `cargo xtask test cluster`.

mod access;
mod clients;
mod comings;
mod discovery;
mod elsewhere;
mod faults;
mod history;
mod identity;
mod keeping;
mod long;
mod placement;
mod programs;
mod rig;
mod rollouts;
mod story;
mod sync;
mod talking;
mod twins;
mod volumes;
