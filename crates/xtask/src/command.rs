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

/// The root of the workspace: two folders above this crate.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}
