//! The life of a service as decisions: which stars to start, drain or leave, when a change has come about or failed, and when to try
//! again after a star ended.
//!
//! Pure: what is wanted and what is there come in, actions come out. Who carries them out, and remembers, is `node`.
//!
//! A replacement keeps the service whole: stars of the new revision come first, beyond the wanted number by a *surge*, and an old
//! star is drained only for a settled one that makes up for it. So a revision that never gets ready replaces nothing; and as long as
//! it has not proved itself, places that old stars leave are theirs again.

#![forbid(unsafe_code)]

mod backoff;
mod shun;
mod verdict;

use model::{StarId, StarPhase};

pub use backoff::{Backoff, CRASH_LOOP_FAILURES};
pub use shun::Shun;
pub use verdict::{Answers, FAILURES_MAX, Verdict, Watch};

/// What a service should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Stars that should run.
    pub stars: u32,
    /// Stars of other revisions are to be replaced.
    pub revision: u64,
    /// The next star starts when the last has ended.
    pub singleton: bool,
    /// The next star takes the place of one that has ended: none is started beside one that is going.
    pub in_place: bool,
    pub pace: Pace,
}

/// How fast stars are replaced, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// Stars there may be beyond the wanted number.
    pub surge: u32,
    /// Stars that may be missing.
    pub unavailable: u32,
    /// Only so many new ones, beside all of the old.
    pub trial: Option<u32>,
    /// What has not been proved wrong, as long as the new revision has not been proved right.
    pub previous: Option<Previous>,
    /// No further for now.
    pub held: bool,
}

/// The revision that takes back what no new star makes up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Previous {
    pub revision: u64,
    /// How many stars it had.
    pub stars: u32,
}

/// In place of the revision of a star that cannot stay where it is, whatever it is made from.
pub const NOWHERE: u64 = 0;

/// One star that has not ended, or whose end is not known to all yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub star: StarId,
    /// What it is made from, or [`NOWHERE`].
    pub revision: u64,
    pub ordinal: u32,
    pub phase: StarPhase,
    /// It is ready, and has been for as long as it must to make up for an old one.
    pub settled: bool,
    /// It counts for now, but is on its way out, or out: the next that is to come comes into its place.
    pub goes: bool,
}

/// What to do. Carried out in any order; asking again before it is gives more of the same, so the caller counts what it
/// has begun among what it sees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actions {
    /// How many stars of the wanted revision to start.
    pub start: u32,
    /// How many of the previous one.
    pub start_previous: u32,
    /// Stars that should get no more requests and then stop.
    pub drain: Vec<StarId>,
}

/// Decides the next steps towards what is wanted. `seen` holds every star of the service that has not ended, starts that
/// are under way included.
pub fn decide(wanted: Wanted, seen: &[Seen]) -> Actions {
    // A star that is on its way out counts for nothing.
    let alive = || seen.iter().filter(|star| star.phase < StarPhase::Draining);
    let (current, old): (Vec<&Seen>, Vec<&Seen>) = alive().partition(|star| star.revision == wanted.revision);
    if wanted.singleton {
        return decide_singleton(wanted, seen, &current);
    }
    let Pace { surge, unavailable, trial, previous, held } = wanted.pace;
    let stars = wanted.stars as usize;
    let mut actions = Actions::default();

    // Too many of the wanted revision: those that go anyway go first, then those that serve nobody, then the newest.
    let mut surplus = if current.len() > stars { current.clone() } else { Vec::new() };
    surplus.sort_by_key(|star| (!star.goes, star.phase == StarPhase::Ready, std::cmp::Reverse(star.ordinal)));
    surplus.truncate(current.len().saturating_sub(stars));
    let settled = current.iter().filter(|star| star.settled && !surplus.contains(star)).count();
    actions.drain.extend(surplus.iter().map(|star| star.star));

    // Those that are tried make up for none.
    let (made_up, missing) = if trial.is_some() { (0, 0) } else { (settled, unavailable as usize) };
    let floor = stars.saturating_sub(missing);
    let kept = previous.map_or(0, |previous| floor.saturating_sub(made_up).min(previous.stars as usize));

    let goal = match trial {
        Some(tried) => stars.min(tried as usize),
        None => stars,
    };
    let goal = if held { goal.min(current.len()) } else { goal };
    let beyond = match trial {
        Some(tried) => tried as usize,
        None if old.is_empty() => 0,
        None => surge as usize,
    };
    let going = if wanted.in_place { seen.len() - current.len() - old.len() } else { 0 };
    let room = (stars + beyond).saturating_sub(current.len() + old.len() + going);
    let staying = old.iter().filter(|star| star.revision != NOWHERE).count();
    let back = kept.saturating_sub(staying).min(room);
    let start = goal.saturating_sub(current.len()).min(room - back);
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    (actions.start_previous, actions.start) = (count(back), count(start));

    // Old ones that serve nobody are no loss, beyond those that are on their way back; of those that do, as many as the settled ones
    // make up for. Only room is made for a start that has none: an old star that serves nobody must not hold the replacement up.
    let comes_back = |star: &Seen| previous.is_some_and(|previous| previous.revision == star.revision);
    let (mut old_ready, mut old_idle): (Vec<&Seen>, Vec<&Seen>) =
        old.iter().partition(|star| star.phase == StarPhase::Ready);
    // What is held goes no further, but may have become smaller.
    let spare = match held {
        true => old_ready.len().saturating_sub(stars),
        false => (made_up + old_ready.len()).saturating_sub(floor),
    };
    // One that serves where it cannot stay is waited for all the same.
    let serve_and_stay = old_ready.iter().filter(|star| star.revision != NOWHERE).count();
    let waited_for = kept.saturating_sub(serve_and_stay);
    let is_awaited = |star: &Seen| comes_back(star) && !star.goes;
    old_idle.sort_by_key(|star| !is_awaited(star));
    let stay = old_idle.iter().take(waited_for).take_while(|star| is_awaited(star)).count();
    old_ready.sort_by_key(|star| (star.revision != NOWHERE, comes_back(star)));
    // Where nothing goes on, those that cannot stay go all the same, once the others are whole.
    let whole = previous.map_or(floor.max(goal), |_| goal + kept);
    let nowhere = old_ready.len() - serve_and_stay;
    let made_up_elsewhere = (settled + old_ready.len()).saturating_sub(whole).min(nowhere);
    let spare = if held || trial.is_some() { spare.max(made_up_elsewhere) } else { spare };
    actions.drain.extend(old_idle.iter().skip(stay).map(|star| star.star));
    actions.drain.extend(old_ready.iter().take(spare).map(|star| star.star));
    actions
}

/// Whoever is wanted and first may stay.
fn decide_singleton(wanted: Wanted, seen: &[Seen], current: &[&Seen]) -> Actions {
    let stay: Vec<StarId> = current.iter().map(|star| star.star).take(wanted.stars.min(1) as usize).collect();
    let alive = seen.iter().filter(|star| star.phase < StarPhase::Draining);
    Actions {
        start: u32::from(wanted.stars > 0 && seen.is_empty()),
        start_previous: 0,
        drain: alive.map(|star| star.star).filter(|star| !stay.contains(star)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StarPhase::{Assigned, Draining, Ready, Starting, Unready};

    fn seen(stars: &[(u64, StarPhase)]) -> Vec<Seen> {
        let star = |(at, (revision, phase)): (usize, &(u64, StarPhase))| Seen {
            star: StarId(at as u64 + 1),
            revision: *revision,
            ordinal: at as u32 + 1,
            phase: *phase,
            settled: *phase == Ready,
            goes: false,
        };
        stars.iter().enumerate().map(star).collect()
    }

    /// A quarter more, and at least one.
    fn surge(stars: u32) -> u32 {
        stars.div_ceil(4).max(1)
    }

    fn usual(stars: u32) -> Wanted {
        let pace = Pace { surge: surge(stars), ..Pace::default() };
        Wanted { stars, revision: 2, singleton: false, in_place: false, pace }
    }

    fn ids(ids: &[u64]) -> Vec<StarId> {
        ids.iter().map(|id| StarId(*id)).collect()
    }

    fn check(stars: u32, there: &[(u64, StarPhase)], start: u32, drain: &[u64]) {
        let expected = Actions { start, start_previous: 0, drain: ids(drain) };
        assert_eq!(decide(usual(stars), &seen(there)), expected, "{stars} wanted of {there:?}");
    }

    /// The same while revision 1 of `before` stars may come back.
    fn check_pace(pace: Pace, there: &[(u64, StarPhase)], start: u32, start_previous: u32, drain: &[u64]) {
        let wanted = Wanted { stars: 4, revision: 2, singleton: false, in_place: false, pace };
        let expected = Actions { start, start_previous, drain: ids(drain) };
        assert_eq!(decide(wanted, &seen(there)), expected, "{pace:?} of {there:?}");
    }

    const BEFORE: Option<Previous> = Some(Previous { revision: 1, stars: 4 });

    #[test]
    fn missing_stars_are_started_and_surplus_ones_drained() {
        check(3, &[], 3, &[]);
        check(3, &[(2, Ready), (2, Starting)], 1, &[]);
        check(3, &[(2, Ready); 3], 0, &[]);
        check(1, &[(2, Ready); 3], 0, &[3, 2]);
        check(1, &[(2, Ready), (2, Starting), (2, Ready)], 0, &[2, 3]);
        check(0, &[(2, Ready), (2, Unready)], 0, &[2, 1]);
        check(2, &[(2, Draining), (2, Ready)], 1, &[]);
    }

    #[test]
    fn what_goes_anyway_is_the_first_that_is_too_much() {
        let mut there = seen(&[(2, Unready), (2, Ready), (2, Starting), (2, Unready)]);
        there[0].goes = true;
        assert_eq!(decide(usual(3), &there).drain, ids(&[1]));
        assert_eq!(decide(usual(2), &there).drain, ids(&[1, 4]));
        // Nor is it waited for as one that comes back.
        let pace = Pace { surge: 1, previous: BEFORE, ..Pace::default() };
        let wanted = Wanted { stars: 4, revision: 2, singleton: false, in_place: false, pace };
        let mut there = seen(&[(1, Unready), (1, Starting), (1, Ready), (1, Ready), (1, Ready), (2, Starting)]);
        there[0].goes = true;
        assert_eq!(decide(wanted, &there).drain, ids(&[1]));
    }

    #[test]
    fn of_a_singleton_the_next_star_starts_when_the_last_has_ended() {
        let check = |stars: u32, there: &[(u64, StarPhase)], start: u32, drain: &[u64]| {
            let wanted = Wanted { singleton: true, ..usual(stars) };
            let expected = Actions { start, start_previous: 0, drain: ids(drain) };
            assert_eq!(decide(wanted, &seen(there)), expected, "{stars} wanted of {there:?}");
        };
        check(1, &[], 1, &[]);
        check(0, &[], 0, &[]);
        check(1, &[(2, Ready)], 0, &[]);
        check(1, &[(1, Ready)], 0, &[1]);
        check(1, &[(1, Draining)], 0, &[]);
        check(1, &[(1, StarPhase::Stopping)], 0, &[]);
        check(0, &[(2, Ready)], 0, &[1]);
        // It was none before: all but one go.
        check(1, &[(2, Ready), (2, Ready), (1, Ready)], 0, &[2, 3]);
    }

    #[test]
    fn a_replacement_starts_first_and_drains_for_what_is_ready() {
        check(4, &[(1, Ready); 4], 1, &[]);
        check(4, &[(1, Ready), (1, Ready), (1, Ready), (1, Ready), (2, Starting)], 0, &[]);
        check(4, &[(1, Ready), (1, Ready), (1, Ready), (1, Ready), (2, Ready)], 0, &[1]);
        check(1, &[(1, Ready)], 1, &[]);
        check(1, &[(1, Ready), (2, Ready)], 0, &[1]);
        check(20, &[(1, Ready); 20], 5, &[]);
        check(2, &[(1, Unready), (1, Ready)], 1, &[1]);
    }

    #[test]
    fn a_revision_that_never_gets_ready_replaces_nothing() {
        check(2, &[(1, Ready), (1, Ready), (2, Assigned)], 0, &[]);
        check(2, &[(1, Ready), (1, Ready), (2, Unready)], 0, &[]);
    }

    #[test]
    fn replacing_ends_with_the_wanted_stars_and_never_falls_below_them() {
        for stars in 1..=20 {
            let mut there = seen(&vec![(1, Ready); stars as usize]);
            let mut next = 1_000;
            for _round in 0..100 {
                let actions = decide(usual(stars), &there);
                there.retain(|star| !actions.drain.contains(&star.star));
                assert!(there.iter().filter(|star| star.phase == Ready).count() >= stars as usize);
                for star in &mut there {
                    (star.phase, star.settled) = (Ready, true);
                }
                for _ in 0..actions.start {
                    next += 1;
                    let ordinal = next as u32;
                    let (star, phase, settled) = (StarId(next), Starting, false);
                    there.push(Seen { star, revision: 2, ordinal, phase, settled, goes: false });
                }
                assert!(there.len() <= (stars + surge(stars)) as usize);
            }
            assert_eq!(there.len(), stars as usize);
            assert!(there.iter().all(|star| star.revision == 2 && star.phase == Ready));
        }
    }

    #[test]
    fn a_star_that_is_ready_makes_up_for_an_old_one_when_it_has_settled() {
        let mut there = seen(&[(1, Ready), (1, Ready), (1, Ready), (1, Ready), (2, Ready)]);
        there[4].settled = false;
        assert_eq!(decide(usual(4), &there), Actions::default());
        there[4].settled = true;
        assert_eq!(decide(usual(4), &there).drain, ids(&[1]));
    }

    #[test]
    fn without_surge_as_many_go_first_as_may_be_missing() {
        let pace = Pace { surge: 0, unavailable: 1, previous: BEFORE, ..Pace::default() };
        check_pace(pace, &[(1, Ready); 4], 0, 0, &[1]);
        check_pace(pace, &[(1, Draining), (1, Ready), (1, Ready), (1, Ready)], 1, 0, &[]);
        check_pace(pace, &[(1, Ready), (1, Ready), (1, Ready), (2, Starting)], 0, 0, &[]);
        check_pace(pace, &[(1, Ready), (1, Ready), (1, Ready), (2, Ready)], 0, 0, &[1]);
    }

    #[test]
    fn what_has_a_star_in_each_place_waits_until_one_has_gone() {
        let check = |there: &[(u64, StarPhase)], start: u32, drain: &[u64]| {
            let pace = Pace { unavailable: 1, ..Pace::default() };
            let wanted = Wanted { stars: 3, revision: 2, singleton: false, in_place: true, pace };
            let expected = Actions { start, start_previous: 0, drain: ids(drain) };
            assert_eq!(decide(wanted, &seen(there)), expected, "of {there:?}");
        };
        check(&[(1, Ready); 3], 0, &[1]);
        check(&[(1, Draining), (1, Ready), (1, Ready)], 0, &[]);
        check(&[(1, Ready), (1, Ready)], 1, &[]);
        check(&[(1, Ready), (1, Ready), (2, Starting)], 0, &[]);
        check(&[(1, Ready), (1, Ready), (2, Ready)], 0, &[1]);
        check(&[], 3, &[]);
        // One machine fewer.
        check(&[(2, Ready), (2, Ready), (2, Ready), (NOWHERE, Ready)], 0, &[4]);
    }

    #[test]
    fn what_old_stars_leave_is_theirs_again_until_the_new_ones_prove_themselves() {
        let pace = Pace { surge: 1, previous: BEFORE, ..Pace::default() };
        // One of four old stars has ended, and the new one is not ready: its place is not the new revision's.
        check_pace(pace, &[(1, Ready), (1, Ready), (1, Ready), (2, Starting)], 0, 1, &[]);
        check_pace(pace, &[(1, Ready), (1, Ready), (1, Ready), (1, Starting), (2, Starting)], 0, 0, &[]);
        // The new one settled: what comes back is not waited for.
        check_pace(pace, &[(1, Ready), (1, Ready), (1, Ready), (1, Starting), (2, Ready)], 0, 0, &[4]);
        // All old ones are gone, with their machine.
        check_pace(pace, &[(2, Starting)], 0, 3, &[]);
        // Once it is over nothing comes back.
        check_pace(Pace { previous: None, ..pace }, &[(2, Starting)], 3, 0, &[]);
        // One that was small and is made larger does not come back larger.
        // Nor is one waited for whose machine is drained, be it held or on trial.
        let drained = [(1, Ready), (1, Ready), (1, Ready), (NOWHERE, Ready)];
        for pace in [pace, Pace { held: true, ..pace }, Pace { trial: Some(1), ..pace }] {
            check_pace(pace, &drained, 0, 1, &[]);
            check_pace(pace, &[drained[0], drained[1], drained[2], drained[3], (1, Starting)], 0, 0, &[]);
            check_pace(pace, &[drained[0], drained[1], drained[2], drained[3], (1, Ready)], 0, 0, &[4]);
        }
        let small = Some(Previous { revision: 1, stars: 2 });
        check_pace(Pace { previous: small, ..pace }, &[(1, Ready), (1, Ready)], 3, 0, &[]);
    }

    #[test]
    fn a_trial_leaves_the_old_ones_whole() {
        let canary = Pace { surge: 1, trial: Some(1), previous: BEFORE, ..Pace::default() };
        check_pace(canary, &[(1, Ready); 4], 1, 0, &[]);
        check_pace(canary, &[(1, Ready), (1, Ready), (1, Ready), (1, Ready), (2, Ready)], 0, 0, &[]);
        check_pace(canary, &[(1, Ready), (1, Ready), (1, Ready), (2, Ready)], 0, 1, &[]);
        let green = Pace { trial: Some(4), ..canary };
        check_pace(green, &[(1, Ready); 4], 4, 0, &[]);
        let all: Vec<_> = [[(1, Ready); 4], [(2, Ready); 4]].concat();
        check_pace(green, &all, 0, 0, &[]);
        check_pace(Pace { trial: None, ..green }, &all, 0, 0, &[1, 2, 3, 4]);
    }

    #[test]
    fn where_nothing_goes_on_what_cannot_stay_goes_once_the_others_are_whole() {
        // Half of the new ones are held, and one of them is on a machine that is drained: an old one comes for it.
        let held = Pace { surge: 1, previous: BEFORE, held: true, ..Pace::default() };
        check_pace(held, &[(2, Ready), (NOWHERE, Ready), (1, Ready), (1, Ready)], 0, 1, &[]);
        check_pace(held, &[(2, Ready), (NOWHERE, Ready), (1, Ready), (1, Ready), (1, Starting)], 0, 0, &[]);
        check_pace(held, &[(2, Ready), (NOWHERE, Ready), (1, Ready), (1, Ready), (1, Ready)], 0, 0, &[2]);
        // What is tried makes up for nobody: the next one comes when it has gone.
        let canary = Pace { surge: 1, trial: Some(2), previous: BEFORE, ..Pace::default() };
        let tried = [(1, Ready), (1, Ready), (1, Ready), (1, Ready), (2, Ready), (NOWHERE, Ready)];
        check_pace(canary, &tried, 0, 0, &[6]);
        check_pace(canary, &tried[..5], 1, 0, &[]);
        // The service was smaller before, and is whole with what it had and what is tried.
        let smaller = Pace { previous: Some(Previous { revision: 1, stars: 2 }), ..canary };
        let tried = [(1, Ready), (1, Ready), (2, Ready), (NOWHERE, Ready)];
        check_pace(smaller, &tried, 1, 0, &[]);
        let replaced: Vec<_> = [&tried[..], &[(2, Ready)]].concat();
        check_pace(smaller, &replaced, 0, 0, &[4]);
        check_pace(Pace { held: true, ..smaller }, &replaced, 0, 0, &[4]);
        // Nothing comes back that nobody knows: it serves on where it is.
        check_pace(Pace { previous: None, ..held }, &[(NOWHERE, Ready); 2], 0, 0, &[]);
    }

    #[test]
    fn what_is_held_goes_no_further_and_loses_nothing() {
        let held = Pace { surge: 1, previous: BEFORE, held: true, ..Pace::default() };
        check_pace(held, &[(1, Ready); 4], 0, 0, &[]);
        check_pace(held, &[(1, Ready), (1, Ready), (1, Ready), (1, Ready), (2, Ready)], 0, 0, &[]);
        check_pace(held, &[(1, Ready), (1, Ready), (2, Ready)], 0, 1, &[]);
        let none = Wanted { stars: 0, revision: 2, singleton: false, in_place: false, pace: held };
        assert_eq!(
            decide(none, &seen(&[(1, Ready), (1, Starting), (2, Ready)])).drain,
            ids(&[3, 2, 1]),
            "it is stopped"
        );
    }
}
