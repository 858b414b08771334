//! Many nodes in virtual time, on one core: a simulated network around the pure crates, and what is measured in it.
//!
//! A run is a function of the code, its seed and its options. Nothing here waits or reads a clock but the command line, which says how
//! long a run took.
//!
//! - `voters`: the real consensus, on machines that fail.
//! - `cluster`: whole nodes, with faults from a seed and checkers. `scale`: two of thousands, with a million stars. `members`, `network`, `peer`, `figures`: membership alone, measured.

#![forbid(unsafe_code)]

pub mod chance;
pub mod cluster;
pub mod figures;
pub mod members;
pub mod network;
pub mod peer;
pub mod scale;
pub mod voters;
