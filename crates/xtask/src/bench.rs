//! `cargo xtask bench`: build what is measured, install the peers that are missing, measure.

use std::process::Command;

use crate::command::{self, Outcome, cargo};

/// Debian packages of the peers, and the program each brings.
const PEERS: [(&str, &str); 4] =
    [("crun", "crun"), ("bubblewrap", "bwrap"), ("lua5.4", "lua5.4"), ("python3", "python3")];

pub(crate) fn run(args: &[&str]) -> Outcome {
    install_peers();
    cargo(&["build", "--release", "--quiet", "--package", "rads", "--package", "bench"])?;
    let program = target_dir()?.join("release/bench");
    let status = Command::new(&program)
        .args(args)
        .status()
        .map_err(|error| format!("cannot run `{}`: {error}", program.display()))?;
    if status.success() { Ok(()) } else { Err("a figure missed its target".to_owned()) }
}

/// As root, peers come from apt; otherwise the bench names and skips what is not there.
fn install_peers() {
    let missing: Vec<&str> =
        PEERS.into_iter().filter(|(_, program)| !on_path(program)).map(|(package, _)| package).collect();
    if missing.is_empty() {
        return;
    }
    println!("$ apt-get install -y {}", missing.join(" "));
    let quietly = |args: &[&str]| {
        Command::new("apt-get").args(args).stdout(std::process::Stdio::null()).status().is_ok_and(|s| s.success())
    };
    let mut install = vec!["install", "-y", "-qq"];
    install.extend(&missing);
    if !(quietly(&["update", "-qq"]) && quietly(&install)) {
        println!("peers not installed (not root, or no apt): {} will be skipped", missing.join(", "));
    }
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).exists()))
}

fn target_dir() -> Result<std::path::PathBuf, String> {
    let metadata = command::output("cargo", &["metadata", "--format-version", "1", "--no-deps"])?;
    let metadata: serde_json::Value =
        serde_json::from_str(&metadata).map_err(|error| format!("cargo metadata: {error}"))?;
    metadata["target_directory"]
        .as_str()
        .map(Into::into)
        .ok_or_else(|| "cargo metadata names no target folder".to_owned())
}
