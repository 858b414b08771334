//! Backups and what is done without an agent, for the command line.

use std::path::Path;

use api::{Became, Introduction};
use model::Problem;

pub use crate::constellation::backup::{Head, become_only_voter, look};
use crate::{clock, constellation, life};

/// Makes an empty data folder that of the first node of a constellation: see [`Head`] for what a backup tells of itself.
///
/// # Errors
/// `Conflict` when the folder is not empty; `DataCorrupt`, `Unsupported`, `FileUnreadable` for the file. Nothing is left behind
/// then.
pub fn restore(data_dir: &Path, file: &Path, me: Introduction) -> Result<Became, Problem> {
    let machine = constellation::machine(me);
    let mut facts = life::describe_node().facts();
    machine.described.clone().tell(&mut facts);
    constellation::backup::restore(data_dir, file, machine, &facts, clock::wall())
}
