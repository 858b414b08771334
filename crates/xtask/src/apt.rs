//! Programs the project's own tasks run, from Debian's archive.

use std::process::{Command, Stdio};

/// Installs the packages whose program is missing, given as pairs of package and program. `otherwise` says what becomes
/// of those that cannot be had: without root or apt the tasks go on without them.
pub(crate) fn install(programs: &[(&str, &str)], otherwise: &str) {
    let missing: Vec<&str> =
        programs.iter().filter(|(_, program)| !on_path(program)).map(|&(package, _)| package).collect();
    if missing.is_empty() {
        return;
    }
    println!("$ apt-get install -y {}", missing.join(" "));
    let quietly =
        |args: &[&str]| Command::new("apt-get").args(args).stdout(Stdio::null()).status().is_ok_and(|s| s.success());
    let mut install = vec!["install", "-y", "-qq"];
    install.extend(&missing);
    if !(quietly(&["update", "-qq"]) && quietly(&install)) {
        println!("not installed (not root, or no apt): {} {otherwise}", missing.join(", "));
    }
}

/// Debian keeps what only root runs where an ordinary user's path does not lead.
fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.any(|folder| folder.join(program).exists())
}
