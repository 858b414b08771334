//! The nursery's life.
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::fault::Fault;

/// Where a nursery lives: everything it needs is below one folder.
#[derive(Debug, Clone)]
pub struct NurseryConfig {
    /// `nursery.sock`, `nursery.pid` and `stars/<id>/` are made in it.
    pub data_dir: PathBuf,
}

/// What a RADS star is given when its walls stand.
#[derive(Debug)]
pub struct ScriptStart<'a> {
    /// The script as the star sees it, below `/app`.
    pub path: &'a Path,
    pub args: &'a [String],
    /// The environment; the process's own has been set to it too.
    pub env: &'a BTreeMap<String, String>,
    /// To be written to once when the script is ready; nobody listens yet when it is `None`.
    pub ready_fd: Option<OwnedFd>,
}

/// What a RADS star runs, given by the program. Its result is the star's exit code.
pub type StarEntry = fn(ScriptStart<'_>) -> i32;

/// The nursery's whole life; returns after `Shutdown`.
pub fn serve(config: NurseryConfig, entry: StarEntry) -> Result<(), Fault> {
    let _ = (config, entry);
    Ok(())
}
