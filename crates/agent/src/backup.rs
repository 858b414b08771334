//! Backups and what is done without an agent, for the command line.

use std::path::Path;

use api::Introduction;
use model::Problem;

pub use crate::constellation::backup::{Head, Restored, become_only_voter, log_tail, look};
use crate::{constellation, life};

pub use consensus::Tail;

/// Makes an empty data folder that of the first node of a constellation: see [`Head`] for what a backup tells of itself.
///
/// # Errors
/// `Conflict` when the folder is not empty, and while controllers of old answer, unless it is forced; `DataCorrupt`,
/// `Unsupported`, `FileUnreadable` for the file. Nothing is left behind then.
pub async fn restore(data_dir: &Path, file: &Path, me: Introduction, force: bool) -> Result<Restored, Problem> {
    let machine = constellation::machine(me);
    let mut facts = life::describe_node().facts();
    machine.described.clone().tell(&mut facts);
    constellation::backup::restore(data_dir, file, machine, &facts, force).await
}
