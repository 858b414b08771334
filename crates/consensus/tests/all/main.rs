//! The tests of whole voters, in one program: each program of them would compile the consensus once more.

mod cluster;
mod faults;
mod history;
mod killed;
#[path = "../support/mod.rs"]
mod support;
