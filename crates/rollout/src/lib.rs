//! The life of a service as decisions: which stars to start, drain or leave, and when to try again after one ended.
//!
//! Pure: what is wanted and what is there come in, actions come out. Who carries them out, and remembers, is `node`.
//!
//! A replacement keeps the service whole: stars of the new revision come first, beyond the wanted number by a *surge*,
//! and an old star is drained only for a ready one that makes up for it. So a revision that never gets ready replaces
//! nothing.

#![forbid(unsafe_code)]

mod backoff;

use model::{StarId, StarPhase};

pub use backoff::{Backoff, CRASH_LOOP_FAILURES};

/// What a service should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Stars that should run.
    pub stars: u32,
    /// Stars of other revisions are to be replaced.
    pub revision: u64,
    /// The next star starts when the last has ended.
    pub singleton: bool,
}

/// One star that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub star: StarId,
    pub revision: u64,
    pub ordinal: u32,
    pub phase: StarPhase,
}

/// What to do. Carried out in any order; asking again before it is gives more of the same, so the caller counts what it
/// has begun among what it sees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actions {
    /// How many stars of the wanted revision to start.
    pub start: u32,
    /// Stars that should get no more requests and then stop.
    pub drain: Vec<StarId>,
}

/// Stars beyond the wanted number while replacing: a quarter, at least one. More is faster and takes more memory.
pub fn surge(stars: u32) -> u32 {
    stars.div_ceil(4).max(1)
}

/// Decides the next steps towards what is wanted. `seen` holds every star of the service that has not ended, starts that
/// are under way included.
pub fn decide(wanted: Wanted, seen: &[Seen]) -> Actions {
    // A star that is on its way out counts for nothing.
    let alive = || seen.iter().filter(|star| star.phase < StarPhase::Draining);
    let is_ready = |star: &&Seen| star.phase == StarPhase::Ready;
    let (current, old): (Vec<&Seen>, Vec<&Seen>) = alive().partition(|star| star.revision == wanted.revision);
    let mut actions = Actions::default();
    if wanted.singleton {
        // Whoever is wanted and first may stay.
        let stay = current.iter().map(|star| star.star).take(wanted.stars.min(1) as usize).collect::<Vec<_>>();
        actions.start = u32::from(wanted.stars > 0 && seen.is_empty());
        actions.drain.extend(alive().map(|star| star.star).filter(|star| !stay.contains(star)));
        return actions;
    }

    let stars = wanted.stars as usize;
    let most = if old.is_empty() { stars } else { stars + surge(wanted.stars) as usize };
    let missing = stars.saturating_sub(current.len());
    let room = most.saturating_sub(current.len() + old.len());
    actions.start = u32::try_from(missing.min(room)).unwrap_or(u32::MAX);

    // Too many of the wanted revision: those that serve nobody go first, then the newest.
    let mut surplus = current.clone();
    surplus.sort_by_key(|star| (star.phase == StarPhase::Ready, std::cmp::Reverse(star.ordinal)));
    surplus.truncate(current.len().saturating_sub(stars));
    let staying_ready = current.iter().filter(|star| is_ready(star) && !surplus.contains(star)).count();

    // Old ones that serve nobody are no loss; of those that do, as many as the ready ones make up for. Only room is made
    // for a start that has none: an old star that serves nobody must not hold the replacement up.
    let (old_ready, old_idle): (Vec<&Seen>, Vec<&Seen>) = old.into_iter().partition(|star| is_ready(star));
    let spare = (staying_ready + old_ready.len()).saturating_sub(stars);
    actions.drain.extend(surplus.iter().map(|star| star.star));
    actions.drain.extend(old_idle.iter().map(|star| star.star));
    actions.drain.extend(old_ready.iter().take(spare).map(|star| star.star));
    actions
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
        };
        stars.iter().enumerate().map(star).collect()
    }

    fn check(stars: u32, there: &[(u64, StarPhase)], start: u32, drain: &[u64]) {
        let actions = decide(Wanted { stars, revision: 2, singleton: false }, &seen(there));
        let expected = Actions { start, drain: drain.iter().map(|id| StarId(*id)).collect() };
        assert_eq!(actions, expected, "{stars} wanted of {there:?}");
    }

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
    fn of_a_singleton_the_next_star_starts_when_the_last_has_ended() {
        let check = |stars: u32, there: &[(u64, StarPhase)], start: u32, drain: &[u64]| {
            let actions = decide(Wanted { stars, revision: 2, singleton: true }, &seen(there));
            let expected = Actions { start, drain: drain.iter().map(|id| StarId(*id)).collect() };
            assert_eq!(actions, expected, "{stars} wanted of {there:?}");
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
                let actions = decide(Wanted { stars, revision: 2, singleton: false }, &there);
                there.retain(|star| !actions.drain.contains(&star.star));
                assert!(there.iter().filter(|star| star.phase == Ready).count() >= stars as usize);
                for star in &mut there {
                    star.phase = Ready;
                }
                for _ in 0..actions.start {
                    next += 1;
                    there.push(Seen { star: StarId(next), revision: 2, ordinal: next as u32, phase: Starting });
                }
                assert!(there.len() <= (stars + surge(stars)) as usize);
            }
            assert_eq!(there.len(), stars as usize);
            assert!(there.iter().all(|star| star.revision == 2 && star.phase == Ready));
        }
    }
}
