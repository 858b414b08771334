//! Stars behind real walls. The program runs itself as the nursery, as what runs in the stars, and as the same probes
//! outside of them; as root it then runs everything once more as an ordinary user.
//!
//! What the machine cannot do is skipped with a printed reason; as root nothing is.

mod ahead;
mod beginning;
mod bridge;
mod disk;
mod guard;
mod hostile;
mod interior;
mod kit;
mod leaks;
mod lease;
mod life;
mod limits;
mod memory;
mod network;
mod own_root;
mod probe;
mod upgrade;
mod walls;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use kit::Kit;

/// What a test has to say beyond that it held.
pub(crate) enum Verdict {
    Held,
    Skipped(String),
    /// It takes a program that not every machine has.
    Absent(String),
}

pub(crate) type Test = (&'static str, fn(&Kit) -> Verdict);

/// A user id nobody has on a usual machine.
const ORDINARY_USER: u32 = 54_321;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["nursery", data_dir] => nursery(data_dir, isolate::serve),
        ["nursery", data_dir, "--take-over", state] => {
            let state = state.parse().expect("a number");
            nursery(data_dir, |config, entry| isolate::take_over(config, entry, state))
        }
        ["nursery", _, "--can-take-over"] => upgrade::exit(isolate::can_take_over()),
        ["successor", ref words @ ..] => upgrade::successor(words),
        ["guard", runner, folder] => {
            guard::stand(runner.parse().expect("a number"), Path::new(folder));
            ExitCode::SUCCESS
        }
        ["probe", ref words @ ..] => {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            ExitCode::from(probe::run(&words) as u8)
        }
        _ => run_all(&args),
    }
}

fn nursery(
    data_dir: &str,
    live: impl FnOnce(isolate::NurseryConfig, isolate::StarEntry) -> Result<(), isolate::Fault>,
) -> ExitCode {
    let config = isolate::NurseryConfig { data_dir: PathBuf::from(data_dir) };
    match live(config, isolate::StarEntry { run: probe::entry, rehearse: || {} }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::FAILURE
        }
    }
}

fn run_all(args: &[String]) -> ExitCode {
    let filter: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    guard::post(folder.path());
    let root = rustix::process::geteuid().is_root();
    let (mut held, mut failed) = (0, 0);
    for (name, test) in [
        walls::TESTS,
        limits::TESTS,
        life::TESTS,
        leaks::TESTS,
        lease::TESTS,
        upgrade::TESTS,
        ahead::TESTS,
        hostile::TESTS,
        network::TESTS,
        bridge::TESTS,
        own_root::TESTS,
        beginning::TESTS,
        disk::TESTS,
        interior::TESTS,
        memory::TESTS,
    ]
    .concat()
    {
        if !filter.is_empty() && !filter.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let begun = Instant::now();
        let kit_folder = folder.path().join(name);
        let verdict = std::panic::catch_unwind(|| {
            let kit = Kit::new(&kit_folder);
            if root {
                // So that stars from protostars and stars made at once both go through everything, the latter as a user.
                ahead::protostars(&kit);
            }
            let verdict = test(&kit);
            drop(kit);
            kit::until(
                || guard::nurseries(folder.path()).is_empty().then_some(()),
                || format!("nurseries are left: {:?}", guard::nurseries(folder.path())),
            );
            verdict
        });
        let who = if root { "root" } else { "user" };
        let millis = begun.elapsed().as_millis();
        match verdict {
            Ok(Verdict::Held) => println!("test {who}::{name} ... ok ({millis} ms)"),
            Ok(Verdict::Absent(reason)) => println!("test {who}::{name} ... skipped: {reason}"),
            Ok(Verdict::Skipped(reason)) => {
                println!("test {who}::{name} ... skipped: {reason}");
                assert!(!root, "as root nothing is skipped");
            }
            Err(_) => {
                println!("test {who}::{name} ... FAILED");
                let log = std::fs::read_to_string(kit_folder.join("nursery.log")).unwrap_or_default();
                println!("--- the nursery's log\n{log}---");
                failed += 1;
            }
        }
        held += 1;
    }
    println!("{held} tests, {failed} failed");
    if root && !run_as_ordinary_user(args, folder.path()) {
        failed += 1;
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a copy of this program that is the user's, as who builds it has it, in a folder the user may write.
fn run_as_ordinary_user(args: &[String], folder: &Path) -> bool {
    let exe = folder.join("stars");
    let home = folder.join("home");
    std::fs::copy(std::env::current_exe().expect("a program has a path"), &exe).expect("a copy");
    std::fs::create_dir(&home).expect("a folder");
    for path in [folder, &exe] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours to change");
    }
    for path in [&home, &exe] {
        std::os::unix::fs::chown(path, Some(ORDINARY_USER), Some(ORDINARY_USER)).expect("root may");
    }
    let mut command = Command::new(&exe);
    command.args(args).env("TMPDIR", &home).env("HOME", &home).current_dir(&home);
    command.uid(ORDINARY_USER).gid(ORDINARY_USER).status().expect("it runs").success()
}
