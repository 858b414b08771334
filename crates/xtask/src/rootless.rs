//! `cargo xtask test cluster --rootless`: the tests of several machines as a user without rights.
//!
//! The rig needs networks of its own, and gets them in a user namespace. Agents are started in these networks without any capability, so
//! they are what they are for any user. As root, it is first given away.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::command::{self, Outcome};

/// A user that no machine has.
const USER: &str = "54321";
/// Where `ip` keeps networks and `iptables` its lock is this namespace's own.
const PREPARE: &str = "mount -t tmpfs tmpfs /run && exec \"$@\"";

pub(crate) fn cluster(rest: &[&str]) -> Outcome {
    let is_root = command::output("id", &["-u"])?.trim() == "0";
    let (test, program) = built()?;
    // The folders above the project may be closed to that user.
    let place = PathBuf::from(format!("/tmp/rads-rootless-{}", std::process::id()));
    let failed = |error: std::io::Error| format!("{}: {error}", place.display());
    fs::create_dir(&place).map_err(failed)?;
    let ran = (|| {
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        let copy = |from: &PathBuf, name: &str| fs::copy(from, place.join(name)).map_err(failed);
        copy(&test, "cluster").and_then(|_| copy(&program, "rads"))?;
        let mut args: Vec<&str> = Vec::new();
        if is_root {
            args.extend(["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups"]);
        }
        args.extend([
            "unshare",
            "--user",
            "--map-current-user",
            "--keep-caps",
            "--net",
            "--mount",
            "sh",
            "-c",
            PREPARE,
            "sh",
        ]);
        let tests = place.join("cluster").display().to_string();
        args.extend([tests.as_str(), "--include-ignored", "--test-threads=1", "--nocapture"]);
        args.extend(rest);
        let (first, args) = args.split_first().ok_or("nothing to run")?;
        println!("$ {first} {}", args.join(" "));
        let mut command = Command::new(first);
        command.args(args).current_dir("/").env("HOME", "/tmp").env("RADS_PROGRAM", place.join("rads"));
        command.env("RADS_ROOTLESS", "1").env("RADS_ALONE", "1");
        let status = command.status().map_err(|error| format!("cannot run `{first}`: {error}"))?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("the tests failed ({status}), or no user namespace may be made here")),
        }
    })();
    let _ = fs::remove_dir_all(&place);
    ran
}

/// The tests and the program, as they were built.
fn built() -> Result<(PathBuf, PathBuf), String> {
    let args = ["test", "--package", "rads", "--test", "cluster", "--no-run", "--message-format=json"];
    let messages = command::output("cargo", &args)?;
    let (mut test, mut program) = (None, None);
    for message in messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
        let Some(path) = message["executable"].as_str() else { continue };
        match message["target"]["name"].as_str() {
            Some("cluster") => test = Some(PathBuf::from(path)),
            Some("rads") if message["profile"]["test"] == false => program = Some(PathBuf::from(path)),
            _ => {}
        }
    }
    test.zip(program).ok_or_else(|| "cargo names no such test".to_owned())
}
