//! A CRIU with which the memory of stars can be kept, for the tests of that: Debian 12's is too old.
//!
//! It is not installed. apt fetches the packages of Debian's unstable release, with all that they depend on, into the target
//! folder, with lists of its own; it checks them by the keys of this machine. There they are unpacked, once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::command;

/// Debian 13's first release has 4.1, which cannot keep sockets on Linux 6.16 and later.
const SOURCE: &str = "deb http://deb.debian.org/debian sid main\n";

/// Where it is unpacked; `None` when somebody has chosen one already, or it cannot be had: then those tests say so and are
/// skipped.
pub(crate) fn folder() -> Option<PathBuf> {
    if std::env::var_os("RADS_CRIU").is_some() {
        return None;
    }
    let place = command::target_dir().ok()?.join("criu");
    let root = place.join("root");
    if root.join("usr/sbin/criu").is_file() {
        return Some(root);
    }
    match fetch(&place, &root) {
        Ok(()) => Some(root),
        Err(why) => {
            println!("no CRIU for the tests ({why}): those of memory are skipped");
            None
        }
    }
}

fn fetch(place: &Path, root: &Path) -> Result<(), String> {
    println!("$ apt-get download criu and what it depends on, into `{}`", place.display());
    let failed = |error: io::Error| format!("`{}`: {error}", place.display());
    let new = place.join("new");
    let _ = fs::remove_dir_all(place);
    for folder in ["state/lists/partial", "cache/archives/partial", "new"] {
        fs::create_dir_all(place.join(folder)).map_err(failed)?;
    }
    fs::write(place.join("sources.list"), SOURCE).map_err(failed)?;
    // To apt nothing is installed: it fetches everything, the C library too.
    fs::write(place.join("status"), "").map_err(failed)?;
    apt_get(place, &["update"])?;
    apt_get(place, &["install", "-y", "--no-install-recommends", "--download-only", "criu"])?;
    for package in fs::read_dir(place.join("cache/archives")).map_err(failed)? {
        let package = package.map_err(failed)?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&new))?;
        }
    }
    fs::rename(&new, root).map_err(failed)?;
    ["state", "cache"].iter().try_for_each(|folder| fs::remove_dir_all(place.join(folder))).map_err(failed)
}

fn apt_get(place: &Path, args: &[&str]) -> Result<(), String> {
    let mut command = Command::new("apt-get");
    for (option, value) in [
        ("Dir::Etc::sourcelist", "sources.list"),
        ("Dir::State", "state"),
        ("Dir::State::status", "status"),
        ("Dir::Cache", "cache"),
    ] {
        command.arg("-o").arg(format!("{option}={}", place.join(value).display()));
    }
    for option in
        ["Dir::Etc::sourceparts=-", "APT::Sandbox::User=root", "Acquire::Languages=none", "Acquire::http::Timeout=20"]
    {
        command.args(["-o", option]);
    }
    run(command.arg("-qq").args(args))
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{name}` failed, {status}")),
        Err(error) => Err(format!("`{name}` cannot be run: {error}")),
    }
}
