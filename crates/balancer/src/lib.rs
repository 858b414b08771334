//! Which star gets the next request: round robin or least connections, those of this machine before others; and for how
//! long one that could not be reached is left out.
//!
//! Pure: whoever holds the stars and counts what is in flight there asks, and is told a place in its list. Connections,
//! retries and draining are the proxy's.

#![forbid(unsafe_code)]

use std::time::Duration;

use model::{Balance, StarId};

/// A star that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub star: StarId,
    /// Requests (connections, for TCP) it has now, as far as they came this way.
    pub in_flight: u32,
    /// It runs on another machine.
    pub far: bool,
    /// It could not be reached a moment ago; see [`left_out_for`].
    pub left_out: bool,
}

/// A star of this machine is taken before others until it has this many more in flight than the idlest of those. The way to
/// another machine costs a request some 0.1 ms; behind sixteen others it waits longer than that in all but the quickest
/// of programs.
pub const NEAR_MORE: u32 = 16;

/// How long what could not be reached is left out, after so many failures in a row: 1 s, doubling up to 8 s. Then one
/// request finds out. Membership takes a dead machine's stars out within some seconds; until then each second costs one
/// request one more attempt.
pub fn left_out_for(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.saturating_sub(1).min(3))
}

/// What one service's balancing remembers: where the next turn starts. The list may change between two picks; a turn
/// then goes on at the same place of the new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balancer {
    cursor: usize,
}

impl Balancer {
    /// Chooses the place of a candidate that is not in `tried`, which holds the stars that this request has failed at.
    ///
    /// One that is left out is chosen only when all others are too. A star of this machine is chosen before others, unless
    /// it has [`NEAR_MORE`] more in flight. Among those that remain, round robin takes the next one; least connections takes
    /// the one with the fewest, and among equals the next, so that idle stars take turns. Costs two looks at each
    /// candidate at most, and mostly one look at one.
    ///
    /// There are `count` candidates; `candidate` gives the one at a place.
    pub fn pick(
        &mut self,
        balance: Balance,
        count: usize,
        candidate: impl Fn(usize) -> Candidate,
        tried: &[StarId],
    ) -> Option<usize> {
        let start = self.cursor;
        let in_turn = || (0..count).map(|step| (start + step) % count).map(|at| (at, candidate(at)));
        let is_open = |one: &Candidate| !tried.contains(&one.star);
        let (at, _) = match in_turn().next()? {
            first if balance == Balance::RoundRobin && is_open(&first.1) && is_plain(first.1) => first,
            _ => {
                let class = Class::of(in_turn().map(|(_, one)| one).filter(is_open));
                let mut in_class = in_turn().filter(|(_, one)| is_open(one) && class.holds(*one));
                match balance {
                    Balance::RoundRobin => in_class.next(),
                    Balance::LeastConnections => in_class.min_by_key(|(_, one)| one.in_flight),
                }?
            }
        };
        self.cursor = (at + 1) % count;
        Some(at)
    }
}

/// Whether a candidate may be taken whatever the others are like.
fn is_plain(candidate: Candidate) -> bool {
    !candidate.far && !candidate.left_out && candidate.in_flight < NEAR_MORE
}

/// Which candidates are chosen from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// All have failed: one of them may be back.
    LeftOut,
    /// Of this machine, with fewer in flight than this.
    Near {
        below: u32,
    },
    Far,
}

impl Class {
    fn of(candidates: impl Iterator<Item = Candidate>) -> Self {
        let (mut near, mut far) = (None::<u32>, None::<u32>);
        for one in candidates.filter(|one| !one.left_out) {
            let least = if one.far { &mut far } else { &mut near };
            *least = Some(least.map_or(one.in_flight, |least| least.min(one.in_flight)));
        }
        match (near, far) {
            (None, None) => Self::LeftOut,
            (Some(_), None) => Self::Near { below: u32::MAX },
            (Some(near), Some(far)) if near < far.saturating_add(NEAR_MORE) => {
                Self::Near { below: far.saturating_add(NEAR_MORE) }
            }
            (_, Some(_)) => Self::Far,
        }
    }

    fn holds(self, one: Candidate) -> bool {
        match self {
            Self::LeftOut => true,
            Self::Near { below } => !one.left_out && !one.far && one.in_flight < below,
            Self::Far => !one.left_out && one.far,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stars(in_flight: &[u32]) -> Vec<Candidate> {
        let star = |(at, in_flight): (usize, &u32)| Candidate {
            star: StarId(at as u64),
            in_flight: *in_flight,
            far: false,
            left_out: false,
        };
        in_flight.iter().enumerate().map(star).collect()
    }

    fn pick(balancer: &mut Balancer, balance: Balance, stars: &[Candidate], tried: &[StarId]) -> Option<usize> {
        balancer.pick(balance, stars.len(), |at| stars[at], tried)
    }

    #[test]
    fn round_robin_is_even_over_full_turns() {
        let (mut balancer, stars) = (Balancer::default(), stars(&[9, 0, 3]));
        let picks: Vec<_> = (0..6).filter_map(|_| pick(&mut balancer, Balance::RoundRobin, &stars, &[])).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn least_connections_takes_the_idlest_and_turns_among_equals() {
        let mut balancer = Balancer::default();
        let mut pick = |in_flight: &[u32]| pick(&mut balancer, Balance::LeastConnections, &stars(in_flight), &[]);
        assert_eq!(pick(&[2, 1, 3]), Some(1));
        assert_eq!(pick(&[0, 0, 0]), Some(2));
        assert_eq!(pick(&[0, 0, 0]), Some(0));
        assert_eq!(pick(&[0, 0, 0]), Some(1));
    }

    #[test]
    fn stars_that_were_tried_are_passed_over_and_none_is_left_when_all_were() {
        let (mut balancer, stars) = (Balancer::default(), stars(&[0, 0]));
        for balance in [Balance::RoundRobin, Balance::LeastConnections] {
            assert_eq!(pick(&mut balancer, balance, &stars, &[StarId(0)]), Some(1));
            assert_eq!(pick(&mut balancer, balance, &stars, &[StarId(0), StarId(1)]), None);
            assert_eq!(pick(&mut balancer, balance, &[], &[]), None);
        }
    }

    #[test]
    fn a_list_that_shrinks_between_picks_is_no_trouble() {
        let mut balancer = Balancer::default();
        for count in [5, 5, 5, 5, 2, 1, 3] {
            assert!(pick(&mut balancer, Balance::RoundRobin, &stars(&vec![0; count]), &[]).unwrap() < count);
        }
    }

    fn mixed(near: &[u32], far: &[u32]) -> Vec<Candidate> {
        let mut all = stars(&[near, far].concat());
        all[near.len()..].iter_mut().for_each(|star| star.far = true);
        all
    }

    const BOTH: [Balance; 2] = [Balance::RoundRobin, Balance::LeastConnections];

    #[test]
    fn stars_of_this_machine_come_first_until_they_have_more_to_do_than_the_way_costs() {
        for balance in BOTH {
            let picks = |near: &[u32], far: &[u32]| {
                let mut balancer = Balancer::default();
                let stars = mixed(near, far);
                (0..4).filter_map(|_| pick(&mut balancer, balance, &stars, &[])).collect::<Vec<_>>()
            };
            assert_eq!(picks(&[3, 3], &[0, 0]), [0, 1, 0, 1]);
            assert_eq!(picks(&[NEAR_MORE], &[0, 0]), [1, 2, 1, 2]);
            assert_eq!(picks(&[NEAR_MORE], &[1, 1]), [0, 0, 0, 0]);
            assert_eq!(picks(&[NEAR_MORE, 9], &[0]), [1, 1, 1, 1], "the busy one alone is passed over");
            assert_eq!(picks(&[], &[7, 7]), [0, 1, 0, 1]);
            assert_eq!(picks(&[900, 900], &[]), [0, 1, 0, 1]);
        }
    }

    #[test]
    fn what_could_not_be_reached_is_chosen_when_nothing_else_is_left() {
        for balance in BOTH {
            let mut stars = mixed(&[0], &[0, 0]);
            stars[0].left_out = true;
            stars[1].left_out = true;
            let mut balancer = Balancer::default();
            let mut pick = |tried: &[StarId]| pick(&mut balancer, balance, &stars, tried);
            assert_eq!([pick(&[]), pick(&[]), pick(&[])], [Some(2); 3]);
            assert_eq!(pick(&[StarId(2)]), Some(0));
            assert_eq!(pick(&[StarId(2), StarId(0)]), Some(1));
            assert_eq!(pick(&[StarId(2), StarId(0), StarId(1)]), None);
        }
    }

    #[test]
    fn who_fails_again_is_left_out_for_longer_but_not_for_ever() {
        let seconds: Vec<u64> = [0, 1, 2, 3, 4, 5, 99].map(|failures| left_out_for(failures).as_secs()).to_vec();
        assert_eq!(seconds, [1, 1, 2, 4, 8, 8, 8]);
    }
}
