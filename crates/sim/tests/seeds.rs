//! A few hundred worlds, and worlds in which a protection is taken away: those must go wrong.
//! `cargo xtask sim cluster` runs thousands. What a world found is shown by
//! itself in `node` (`tests/all/many.rs`): a seed means another world as soon as more can happen in one.

use sim::cluster::{Bug, Options, run};

fn options(seed: u64, nodes: usize) -> Options {
    Options { seed, nodes, steps: 60, faultless: false, bug: None }
}

fn must_be_well(options: Options) {
    if let Err(failure) = run(options) {
        let last = failure.trace.len().saturating_sub(60);
        panic!("{options:?}: {}\n{}", failure.what, failure.trace[last..].join("\n"));
    }
}

/// In two halves, for two cores.
fn all_is_well_in(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        must_be_well(options(seed, [1, 3, 5, 7][seed as usize % 4]));
    }
}

#[test]
fn whatever_happens_everything_wanted_runs_once_in_the_end() {
    all_is_well_in(0..100);
}

#[test]
fn in_other_worlds_too() {
    all_is_well_in(100..200);
}

/// Controllers that come and go restart nothing.
#[test]
fn what_runs_is_left_alone_while_nothing_goes_wrong() {
    for seed in 0..20 {
        let quiet = Options { faultless: true, ..options(seed, 5) };
        let report = run(quiet).unwrap_or_else(|failure| panic!("{quiet:?}: {}", failure.what));
        assert_eq!((report.lost, report.leaders), (0, 1), "{quiet:?}");
    }
}

/// Whether one of the first worlds goes wrong without a protection. The one that is found last, an early lead, is found in
/// the 66th.
fn is_found(bug: Bug) -> bool {
    (0..120).any(|seed| run(Options { bug: Some(bug), ..options(seed, 5) }).is_err())
}

#[test]
fn stars_of_a_machine_that_was_given_up_run_twice_unless_it_ends_them() {
    assert!(is_found(Bug::NoFence));
}

#[test]
fn a_plan_written_by_another_than_who_made_it_gives_a_place_twice() {
    assert!(is_found(Bug::ForwardedPlans));
}

#[test]
fn singletons_run_twice_where_their_leases_do_not_end_them() {
    assert!(is_found(Bug::NoLease));
}

#[test]
fn what_fails_all_requests_is_believed_where_nobody_hears_of_them() {
    assert!(is_found(Bug::Deaf));
}

#[test]
fn who_leads_before_having_read_everything_gives_a_place_twice() {
    assert!(is_found(Bug::EarlyLead));
}

#[test]
fn more_is_kept_on_a_machine_than_it_has_where_nobody_knows_what_it_has() {
    assert!(is_found(Bug::NoRoom));
}

#[test]
fn services_grow_beyond_a_quota_that_was_not_written() {
    assert!(is_found(Bug::NoQuota));
}
