//! `cargo xtask sim consensus`: runs seeds one after another and says which went wrong, or replays one with all that happened.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::{Bug, Options, Report, run};

const HELP: &str = "\
usage: cargo xtask sim consensus [--seeds N] [--from N] [--seconds N] [--bug NAME]    runs seeds, one after another
       cargo xtask sim consensus --seed N [--seconds N] [--bug NAME] [--trace]        replays one

  --seconds  how long things go wrong, in virtual time (15)
  --bug      a protection that is taken away: answers-before-sync, forgets-votes, reads-without-asking,
             takes-snapshots-unchecked, trusts-tails
";

fn bug(name: &str) -> Option<Bug> {
    Some(match name {
        "answers-before-sync" => Bug::AnswersBeforeSync,
        "forgets-votes" => Bug::ForgetsVotes,
        "reads-without-asking" => Bug::ReadsWithoutAsking,
        "takes-snapshots-unchecked" => Bug::TakesSnapshotsUnchecked,
        "trusts-tails" => Bug::TrustsTails,
        _ => return None,
    })
}

/// Runs what the rest of a command line says.
pub fn main(rest: &[String]) -> ExitCode {
    let (mut seeds, mut from, mut seconds) = (100, 0, super::SECONDS);
    let (mut one, mut taken_away, mut trace) = (None, None, false);
    let mut args = rest.iter();
    while let Some(arg) = args.next() {
        let mut text = || args.next().map(String::as_str);
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
        let taken = match arg.as_str() {
            "--seeds" => number(text()).map(|n| seeds = n),
            "--from" => number(text()).map(|n| from = n),
            "--seconds" => number(text()).map(|n| seconds = n),
            "--seed" => number(text()).map(|n| one = Some(n)),
            "--bug" => text().and_then(bug).map(|bug| taken_away = Some(bug)),
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
    let range = one.map_or(from..from.saturating_add(seeds), |seed| seed..seed.saturating_add(1));
    let (began, count) = (Instant::now(), range.end - range.start);
    let (mut failed, mut total) = (0_u64, Report::default());
    for seed in range {
        let options = Options { seed, time: Duration::from_secs(seconds), bug: taken_away, trace };
        match run(options) {
            Ok(report) => total = total.and(&report),
            Err(failure) => {
                failed += 1;
                println!("seed {seed}, {seconds} s: {}", failure.what);
                if trace {
                    failure.trace.iter().for_each(|line| println!("{line}"));
                }
            }
        }
    }
    let took = began.elapsed().as_secs_f64();
    println!(
        "{count} seeds, {failed} failed: {} faults, {} terms, {} changes of voters, {} commands; {} writes answered for, {} unknown, {} \
         reads; {} snapshots installed, {} torn batches; {} messages, {} steps, {} h of virtual time in {took:.0} s; a write {:.2} s after \
         the last fault at most",
        total.faults,
        total.terms,
        total.changes,
        total.commands,
        total.writes,
        total.unknown,
        total.reads,
        total.snapshots,
        total.torn,
        total.carried,
        total.polls,
        total.took.as_secs() / 3_600,
        total.recovered.as_secs_f64(),
    );
    if one.is_some() {
        println!("hash {:016x}", total.hash);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
