//! Commands run from the root of the workspace, shown before they run.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What a task ends in: nothing, or one line that says what failed.
pub(crate) type Outcome = Result<(), String>;

pub(crate) fn cargo(args: &[&str]) -> Outcome {
    cargo_with_env(args, &[])
}

pub(crate) fn cargo_with_env(args: &[&str], env: &[(&str, &str)]) -> Outcome {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(program);
    command.args(args).envs(env.iter().copied()).current_dir(root());
    println!("$ cargo {}", args.join(" "));
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`cargo {}` failed ({status})", args.join(" "))) }
}

/// What a command prints; its own complaints go to the terminal.
pub(crate) fn output(program: &str, args: &[&str]) -> Result<String, String> {
    let result = Command::new(program)
        .args(args)
        .current_dir(root())
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run `{program}`: {error}"))?;
    if !result.status.success() {
        return Err(format!("`{program} {}` failed ({})", args.join(" "), result.status));
    }
    String::from_utf8(result.stdout).map_err(|_| format!("`{program}` printed something other than text"))
}

/// Runs a program in a folder; what it prints goes to the terminal.
pub(crate) fn run_in(folder: &Path, program: &str, args: &[&str]) -> Outcome {
    let status = Command::new(program).args(args).current_dir(folder).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{program} {}` failed ({status})", args.join(" "))),
        Err(error) => Err(format!("cannot run `{program}`: {error}")),
    }
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> Result<PathBuf, String> {
    let metadata = output("cargo", &["metadata", "--format-version", "1", "--no-deps"])?;
    let metadata: serde_json::Value =
        serde_json::from_str(&metadata).map_err(|error| format!("cargo metadata: {error}"))?;
    metadata["target_directory"]
        .as_str()
        .map(Into::into)
        .ok_or_else(|| "cargo metadata names no target folder".to_owned())
}

/// The root of the workspace: two folders above this crate.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}
