//! Limits by control groups, version 1, version 2 or both at once; nothing outside this module knows which.
//!
//! `hierarchy` finds out what the machine offers and holds the parent of all stars' groups, `group` is one star's.
//! Only directories made here are ever written to, with two exceptions: `cgroup.subtree_control` of the group above
//! ours (version 2, where it is delegated to us), and the nursery's own membership when that group must be empty.

mod device;
mod group;
mod hierarchy;
mod spending;
mod turns;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

pub(crate) use group::Groups;
pub(crate) use hierarchy::{Hierarchies, Mounts};
pub(crate) use spending::Spent;
pub(crate) use turns::{hurry, without_hurry};

use crate::fault::plain;

/// Writes one value to a control file. Never creates a file: on a wrong path that would only hide the mistake.
pub(crate) fn write(dir: &Path, file: &str, value: impl ToString) -> io::Result<()> {
    let path = dir.join(file);
    let value = value.to_string();
    let result = OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(value.as_bytes()));
    result.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot write {value} to `{}`: {}", path.display(), plain(&error)))
    })
}

/// A file's only number; `None` when it does not exist or says `max`.
fn number(dir: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

/// The number after `key` in a file of `key number` lines.
fn keyed(dir: &Path, file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(dir.join(file)).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}
