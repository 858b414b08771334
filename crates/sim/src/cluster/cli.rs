//! `cargo xtask sim cluster`: runs seeds one after another and says which went wrong, or replays one with all that happened.

use std::process::ExitCode;

use super::{Options, Report, run};

const HELP: &str = "\
usage: cargo xtask sim cluster [--seeds N] [--from N] [--nodes N] [--steps N]    runs seeds, one after another
       cargo xtask sim cluster --seed N [--nodes N] [--steps N] [--trace]        replays one

  --nodes 0 (the default) takes 1, 3, 5 and 7 in turn
";

/// Runs what the rest of a command line says.
pub fn main(rest: &[String]) -> ExitCode {
    let mut seeds = 100;
    let (mut from, mut nodes, mut steps, mut trace, mut one) = (0, 0, 60, false, None);
    let mut args = rest.iter();
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse::<u64>().ok());
        let taken = match arg.as_str() {
            "--seeds" => number().map(|n| seeds = n),
            "--from" => number().map(|n| from = n),
            "--nodes" => number().map(|n| nodes = n),
            "--steps" => number().map(|n| steps = n),
            "--seed" => number().map(|n| one = Some(n)),
            "--trace" => {
                trace = true;
                Some(())
            }
            _ => None,
        };
        if taken.is_none() {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    }
    let range = one.map_or(from..from + seeds, |seed| seed..seed + 1);
    let count = range.end - range.start;
    let mut failed = 0_u64;
    let mut total = Report::default();
    for seed in range {
        let nodes = if nodes == 0 { [1, 3, 5, 7][(seed % 4) as usize] } else { nodes as usize };
        let options = Options { seed, nodes, steps: steps as u32, faultless: false, bug: None };
        match run(options) {
            Ok(report) => {
                total.events += report.events;
                total.entries += report.entries;
                total.starts += report.starts;
                total.leaders += report.leaders;
                total.lost += report.lost;
                total.gave_way += report.gave_way;
                total.erred += report.erred;
                total.took += report.took;
            }
            Err(failure) => {
                failed += 1;
                println!("seed {seed}, {nodes} nodes, {steps} steps: {}", failure.what);
                if trace {
                    failure.trace.iter().for_each(|line| println!("{line}"));
                }
            }
        }
    }
    println!(
        "{count} seeds, {failed} failed: {} events, {} entries, {} stars started, {} leaders, {} nodes lost, {} stars gave way, {} versions went back for their errors, {} h of virtual time",
        total.events,
        total.entries,
        total.starts,
        total.leaders,
        total.lost,
        total.gave_way,
        total.erred,
        total.took.as_secs() / 3600
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
