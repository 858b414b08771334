//! A few dozen runs of the real consensus, and runs in which a protection is taken away: those must go wrong.
//! `cargo xtask sim consensus` runs thousands.

use std::time::Duration;

use sim::voters::{Bug, Options, Report, run};

fn options(seed: u64) -> Options {
    Options { seed, time: Duration::from_secs(8), bug: None, trace: false }
}

fn must_be_well(options: Options) -> Report {
    run(options).unwrap_or_else(|failure| {
        let last = failure.trace.len().saturating_sub(60);
        panic!("{options:?}: {}\n{}", failure.what, failure.trace[last..].join("\n"))
    })
}

/// Two loops without a pause were found so: a leader asked again before a majority had answered it, in every run, and a purge asked
/// for again while a snapshot was on its way, in one of ten.
#[test]
fn whatever_fails_there_is_one_log_and_what_was_answered_for_is_in_it() {
    let sum = |seeds: std::ops::Range<u64>| {
        seeds.map(|seed| must_be_well(options(seed))).fold(Report::default(), |all, one| all.and(&one))
    };
    let all = std::thread::scope(|scope| {
        let half = scope.spawn(|| sum(0..30));
        sum(30..60).and(&half.join().unwrap())
    });
    // What was to be tried was.
    let tried = [
        all.writes / 1_000,
        all.reads / 1_000,
        all.unknown,
        all.terms / 100,
        all.changes / 30,
        all.finished,
        all.snapshots,
        all.torn,
    ];
    assert!(tried.iter().all(|count| *count > 0), "{all:?}");
}

#[test]
fn a_seed_is_one_run() {
    let runs = [3, 3, 4].map(|seed| must_be_well(options(seed)));
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0].hash, runs[2].hash);
}

/// Whether one of the first runs goes wrong without a protection.
fn is_found(bug: Bug) -> bool {
    (0..120).any(|seed| run(Options { bug: Some(bug), ..options(seed) }).is_err())
}

#[test]
fn an_answer_before_the_sync_is_found() {
    assert!(is_found(Bug::AnswersBeforeSync));
}

#[test]
fn a_forgotten_vote_is_found() {
    assert!(is_found(Bug::ForgetsVotes));
}

#[test]
fn a_read_that_asks_nobody_is_found() {
    assert!(is_found(Bug::ReadsWithoutAsking));
}

#[test]
fn a_snapshot_that_nobody_checks_is_found() {
    assert!(is_found(Bug::TakesSnapshotsUnchecked));
}

#[test]
fn half_a_batch_taken_for_whole_is_found() {
    assert!(is_found(Bug::TrustsTails));
}
