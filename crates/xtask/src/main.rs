//! What builders of the project run: `cargo xtask check | test | vm-test | sim | fuzz | tidy | golden | bench`.
//!
//! Each task is a list of commands a person could type; this file only decides which, and stops at the first
//! that fails. What the tasks look at themselves is in the modules.

#![forbid(unsafe_code)]

mod apt;
mod bench;
mod command;
mod criu;
mod fuzz;
mod programs;
mod rootless;
mod tidy;
mod vm;

use std::process::ExitCode;

use command::{Outcome, cargo};

const HELP: &str = "\
usage: cargo xtask TASK

  check                  under a minute when warm: format, clippy, tidy, tests of the pure crates
  test [FILTER]          everything: tidy, then every test of every crate, end-to-end ones included
  test escape [GROUP]    ways out of a star, each with its control, as one static program
  test cluster [--rootless] [FILTER…]
                         agents in network namespaces: machines that die, are cut off, stand still (minutes); as root, or with
                         `--rootless` all of it, agents included, as a user without rights in a user namespace
  test soak              10,000 stars and 100 kills of an agent, each without a trace
  vm-test [oci] [FILTER…] the isolation tests, or those of `rads-oci`, on Debian's kernel with cgroup v2, in an emulated machine (minutes)
  sim cluster [--seeds N | --seed N --trace] [--nodes N] [--steps N]
                         a constellation in one thread, with faults from seeds; says which went wrong, or replays one
  sim consensus [--seeds N | --seed N --trace] [--seconds N] [--bug NAME]
                         the real consensus in virtual time, on machines, disks and a network that fail
  fuzz NAME|all [--minutes N] [--keep]
                         what strangers can send, guided by coverage, on a nightly toolchain; without a name lists them
  tidy                   arrows between crates, purity, head comments, unsafe code, loose ends
  golden                 rewrite the expected outputs of data-driven tests; read the diff before keeping it
  bench [GROUP] [--quick] [--only=NAME]
                         measure the project and its peers in one run; groups: stars, hostile, cluster, lang
  sim membership         3 to 1,000 members in virtual time: joining, traffic, false deaths under loss, detection (minutes)
";

/// Crates without effects: their tests need no machine and take seconds.
const PURE: &[&str] = &[
    "model",
    "rnp",
    "state",
    "rollout",
    "calendar",
    "scheduler",
    "balancer",
    "membership",
    "rads-syntax",
    "rads-vm",
    "rads-compile",
    "deploy",
    "import",
    "node",
];

/// Crates whose tests compare with files that `golden` rewrites.
const WITH_GOLDENS: [&str; 4] = ["rads-syntax", "rads-compile", "deploy", "import"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rest: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    let outcome = match args.first().map(String::as_str) {
        Some("check") => check(),
        Some("test") => test(&rest),
        Some("vm-test") => vm::run(&rest),
        Some("sim") => sim(&rest),
        Some("fuzz") => fuzz::run(&rest),
        Some("tidy") => tidy::run(),
        Some("golden") => golden(),
        Some("bench") => bench::run(&rest),
        Some("help" | "--help" | "-h") => {
            print!("{HELP}");
            Ok(())
        }
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("xtask: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn check() -> Outcome {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    tidy::run()?;
    cargo(&with_packages(&["test", "--quiet"], PURE))
}

/// Debian packages that end-to-end tests need as root, and the program each brings.
const TEST_PROGRAMS: [(&str, &str); 7] = [
    ("iptables", "iptables"),
    ("iproute2", "ip"),
    ("busybox-static", "busybox"),
    ("e2fsprogs", "mkfs.ext4"),
    ("xfsprogs", "mkfs.xfs"),
    ("faketime", "faketime"),
    ("wrk", "wrk"),
];

/// One build for all tests, so that a cold run on two cores stays within minutes. End-to-end tests find the
/// binary that the same build made.
fn test(filter: &[&str]) -> Outcome {
    match filter {
        ["escape", rest @ ..] => return escape(rest),
        ["soak"] => return soak(),
        ["cluster", rest @ ..] => return cluster(rest),
        _ => {}
    }
    tidy::run()?;
    apt::install(&TEST_PROGRAMS, "(needed only as root)");
    let criu = criu::folder().map(|folder| folder.display().to_string());
    let env: Vec<(&str, &str)> = criu.iter().map(|folder| ("RADS_CRIU", folder.as_str())).collect();
    programs::run(filter, &env)
}

/// The ways out of a star, as one static program: an attacker brings no libraries.
fn escape(rest: &[&str]) -> Outcome {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let rustflags = format!("target.{target}.rustflags=[\"-C\", \"target-feature=+crt-static\"]");
    let mut args =
        vec!["test", "--package", "isolate", "--test", "escape", "--target", &target, "--config", &rustflags];
    args.push("--");
    args.extend(rest);
    cargo(&args)
}

/// Everything that takes several machines, one test at a time: what they measure is time.
fn cluster(rest: &[&str]) -> Outcome {
    if let Some(at) = rest.iter().position(|arg| *arg == "--rootless") {
        return rootless::cluster(&[&rest[..at], &rest[at + 1..]].concat());
    }
    apt::install(&TEST_PROGRAMS, "(needed only as root)");
    let args = [
        "test",
        "--package",
        "rads",
        "--test",
        "cluster",
        "--",
        "--include-ignored",
        "--test-threads=1",
        "--nocapture",
    ];
    // Times are what is promised when nothing else runs.
    command::cargo_with_env(&[&args[..], rest].concat(), &[("RADS_ALONE", "1")])
}

/// What every run of the tests does a few times, often: stars started and ended, agents killed.
fn soak() -> Outcome {
    let stars = ["test", "--package", "isolate", "--test", "stars", "--", "hundreds_of_stars"];
    command::cargo_with_env(&stars, &[("RADS_CHURN", "10000")])?;
    let agents = ["test", "--package", "rads", "--test", "story", "--", "no_kill_of_the_agent"];
    command::cargo_with_env(&agents, &[("RADS_KILLS", "100")])
}

/// In a profile that is fast and built in seconds. Which program it was is said beside the result.
fn sim(rest: &[&str]) -> Outcome {
    let commit = command::output("git", &["describe", "--always", "--dirty"])?;
    let mut args = vec!["run", "--quiet", "--profile", "sim", "--package", "sim", "--"];
    args.extend(rest);
    let outcome = cargo(&args);
    println!("commit {}", commit.trim());
    outcome
}

fn golden() -> Outcome {
    command::cargo_with_env(&with_packages(&["test", "--quiet"], &WITH_GOLDENS), &[("RADS_GOLDEN", "1")])?;
    println!("goldens rewritten: read `git diff` before you keep them");
    Ok(())
}

fn with_packages<'a>(start: &[&'a str], packages: &[&'a str]) -> Vec<&'a str> {
    let mut args = start.to_vec();
    args.extend(packages.iter().flat_map(|package| ["--package", package]));
    args
}
