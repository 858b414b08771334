//! Figures of the project and its peers, measured in one run on one machine.
//!
//! `bench [stars|hostile|cluster|scheduler|lang] [--quick] [--only=NAME]`: prints a line a figure (see `report`), exits 1 when one misses its target.
//! `--only` leaves out the figures of stars, and the parts of `cluster` (rnp, voters, hollow, detection, simulated), whose names do not begin so.
//! Peers that are not installed are named and skipped.

#![forbid(unsafe_code)]

mod agent;
mod clock;
mod cluster;
mod engine;
mod etcd;
mod hostile;
mod lang;
mod memory;
mod peers;
mod report;
mod scheduler;
mod stars;

use std::path::PathBuf;
use std::process::ExitCode;

/// How much is measured: `--quick` ends within 50 s, for a look while working.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    Quick,
    Full,
}

impl Depth {
    /// How many samples to take of something cheap.
    pub(crate) fn samples(self, full: usize) -> usize {
        match self {
            Self::Quick => (full / 5).max(5),
            Self::Full => full,
        }
    }
}

/// Where the programs under measurement are.
pub(crate) struct Bench {
    pub(crate) rads: PathBuf,
    /// This program: as `bench stamp` it prints the moment of its first instruction, as `bench hollow…` it is a part of `cluster`.
    pub(crate) this: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) depth: Depth,
    /// How the names of the figures begin that are asked for.
    pub(crate) only: String,
}

impl Bench {
    pub(crate) fn wants(&self, figure: &str) -> bool {
        figure.starts_with(&self.only)
    }
}

const GROUPS: [&str; 5] = ["stars", "hostile", "cluster", "scheduler", "lang"];

fn main() -> ExitCode {
    let started_ns = clock::now_ns();
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "stamp") {
        println!("{started_ns}");
        return ExitCode::SUCCESS;
    }
    if args.first().is_some_and(|arg| arg == "hollow-nodes") {
        return cluster::run_hollow_nodes(&args[1..]);
    }
    let depth = if args.iter().any(|arg| arg == "--quick") { Depth::Quick } else { Depth::Full };
    let hollow = args.first().is_some_and(|arg| arg == "hollow");
    let groups: Vec<&str> = args.iter().map(String::as_str).filter(|arg| !arg.starts_with("--")).collect();
    if let Some(unknown) = groups.iter().find(|group| !hollow && !GROUPS.contains(group)) {
        eprintln!("bench: no group `{unknown}`; there are {}", GROUPS.join(", "));
        return ExitCode::from(2);
    }
    let is_known = |flag: &String| flag == "--quick" || flag.starts_with("--only=") || !flag.starts_with("--");
    if let Some(unknown) = args.iter().find(|flag| !hollow && !is_known(flag)) {
        eprintln!(
            "bench: no option `{unknown}`; there are --quick and --only=NAME, and the groups {}",
            GROUPS.join(", ")
        );
        return ExitCode::from(2);
    }
    let only = args.iter().find_map(|arg| arg.strip_prefix("--only=")).unwrap_or_default();
    let bench = match locate(depth, only) {
        Ok(bench) => bench,
        Err(reason) => {
            eprintln!("bench: {reason}");
            return ExitCode::from(2);
        }
    };
    if hollow {
        return cluster::measure_hollow(&bench);
    }
    let wanted = |group: &str| groups.is_empty() || groups.contains(&group);
    let mut report = report::Report::default();
    println!("# fsync on (as the disk gives it), network: loopback only, profile: release");
    if wanted("stars") {
        stars::run(&bench, &mut report);
    }
    if wanted("hostile") {
        hostile::run(&bench, &mut report);
    }
    if wanted("cluster") {
        cluster::run(&bench, &mut report);
    }
    if wanted("scheduler") {
        scheduler::run(&bench, &mut report);
    }
    if wanted("lang") {
        lang::run(&bench, &mut report);
    }
    if report.missed().is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("# missed: {}", report.missed().join(", "));
    ExitCode::FAILURE
}

/// `rads` is built beside this program by `cargo xtask bench`.
fn locate(depth: Depth, only: &str) -> Result<Bench, String> {
    let this = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let rads = this.with_file_name("rads");
    if !rads.exists() {
        return Err(format!("`{}` is missing: run `cargo xtask bench`", rads.display()));
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = root.ancestors().nth(2).map(PathBuf::from).ok_or("the source tree has moved")?;
    Ok(Bench { rads, this, root, depth, only: only.to_owned() })
}
