//! `cargo xtask bench`: build what is measured, install the peers that are missing, measure.

use std::process::Command;

use crate::apt;
use crate::command::{self, Outcome, cargo};

/// Debian packages of the peers, and the program each brings.
const PEERS: [(&str, &str); 6] = [
    ("crun", "crun"),
    ("bubblewrap", "bwrap"),
    ("lua5.4", "lua5.4"),
    ("python3", "python3"),
    ("etcd-server", "etcd"),
    ("serf", "serf"),
];

pub(crate) fn run(args: &[&str]) -> Outcome {
    apt::install(&PEERS, "will be skipped");
    cargo(&["build", "--release", "--quiet", "--package", "rads", "--package", "bench"])?;
    let program = command::target_dir()?.join("release/bench");
    let status = Command::new(&program)
        .args(args)
        .status()
        .map_err(|error| format!("cannot run `{}`: {error}", program.display()))?;
    if status.success() { Ok(()) } else { Err("a figure missed its target".to_owned()) }
}
