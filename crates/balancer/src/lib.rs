//! Which star gets the next request: round robin or least connections, those of this machine before others, those on trial
//! their share; and for how long one that could not be reached is left out.
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
    /// It is of a version that is not believed yet.
    pub on_trial: bool,
}

/// The stars that may be chosen, by their places.
#[derive(Debug, Clone, Copy)]
pub struct Stars<F> {
    pub count: usize,
    /// How many of them are on trial.
    pub on_trial: usize,
    /// How many run on this machine.
    pub near: usize,
    pub near_on_trial: usize,
    /// Gives the one at a place below `count`.
    pub at: F,
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
    /// Where the next turn among those on trial starts.
    trial_cursor: usize,
    /// The part of a request that those on trial are owed, in parts of which there are as many as stars.
    owed: usize,
}

impl Balancer {
    /// Chooses the place of a candidate that is not in `tried`, which holds the stars that this request has failed at.
    ///
    /// One that is left out is chosen only when all others are too. A star of this machine is chosen before others, unless
    /// it has [`NEAR_MORE`] more in flight. Among those that remain, round robin takes the next one; least connections takes
    /// the one with the fewest, and among equals the next, so that idle stars take turns. Costs two looks at each
    /// candidate at most, and mostly one look at one.
    ///
    /// While some are on trial, as many requests go to these together as there are of them among all, wherever they run: who is to
    /// be judged by answers has to be asked, also where nobody would go to another machine. Of them, and of the others, those of
    /// this machine come first only if none of those gets more by that than if nobody were on trial. Where one whose turn it
    /// is has [`NEAR_MORE`] more in flight than the idlest beyond, turns are forgotten.
    pub fn pick<F: Fn(usize) -> Candidate>(
        &mut self,
        balance: Balance,
        stars: &Stars<F>,
        tried: &[StarId],
    ) -> Option<usize> {
        // What failed once goes to anyone.
        let has_turns = tried.is_empty() && (1..stars.count).contains(&stars.on_trial);
        let picked = if has_turns { self.pick_in_turn(balance, stars) } else { None };
        picked.or_else(|| stars.next(&mut self.cursor, balance, |one| !tried.contains(&one.star)))
    }

    /// One of those whose turn it is: of the stars on trial, or of the others.
    fn pick_in_turn<F: Fn(usize) -> Candidate>(&mut self, balance: Balance, stars: &Stars<F>) -> Option<usize> {
        let Stars { count, on_trial, near: near_of_all, near_on_trial, .. } = *stars;
        let is_theirs = self.is_turn_of_trial(count, on_trial);
        let (cursor, all, near) = match is_theirs {
            true => (&mut self.trial_cursor, on_trial, near_on_trial),
            false => (&mut self.cursor, count - on_trial, near_of_all - near_on_trial),
        };
        let near_first = near * count >= all * near_of_all;
        let at = |at: usize| {
            let one = (stars.at)(at);
            Candidate { far: one.far && near_first, ..one }
        };
        let picked = Stars { count, on_trial, near: near_of_all, near_on_trial, at }
            .next(cursor, balance, |one| one.on_trial == is_theirs && !one.left_out)?;
        let has = (stars.at)(picked).in_flight;
        let others = || (0..count).map(&stars.at).filter(|one| one.on_trial != is_theirs && !one.left_out);
        let is_idler = |one: Candidate| one.in_flight.saturating_add(NEAR_MORE) <= has;
        let is_behind = has >= NEAR_MORE && others().any(is_idler);
        (!is_behind).then_some(picked)
    }

    /// Whether the next request is for one of those on trial.
    fn is_turn_of_trial(&mut self, count: usize, on_trial: usize) -> bool {
        self.owed += on_trial;
        let is_turn = self.owed >= count;
        if is_turn {
            self.owed %= count;
        }
        is_turn
    }
}

impl<F: Fn(usize) -> Candidate> Stars<F> {
    /// The next one of those that are open.
    fn next(&self, cursor: &mut usize, balance: Balance, is_open: impl Fn(&Candidate) -> bool) -> Option<usize> {
        let start = *cursor;
        let in_turn = || (0..self.count).map(|step| (start + step) % self.count).map(|at| (at, (self.at)(at)));
        let (at, _) = match in_turn().next()? {
            first if balance == Balance::RoundRobin && is_open(&first.1) && is_plain(first.1) => first,
            _ => {
                let class = Class::of(in_turn().map(|(_, one)| one).filter(&is_open));
                let mut in_class = in_turn().filter(|(_, one)| is_open(one) && class.holds(*one));
                match balance {
                    Balance::RoundRobin => in_class.next(),
                    Balance::LeastConnections => in_class.min_by_key(|(_, one)| one.in_flight),
                }?
            }
        };
        *cursor = (at + 1) % self.count;
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
            on_trial: false,
        };
        in_flight.iter().enumerate().map(star).collect()
    }

    fn pick(balancer: &mut Balancer, balance: Balance, stars: &[Candidate], tried: &[StarId]) -> Option<usize> {
        let count = |holds: &dyn Fn(&Candidate) -> bool| stars.iter().filter(|star| holds(star)).count();
        let all = Stars {
            count: stars.len(),
            on_trial: count(&|star| star.on_trial),
            near: count(&|star| !star.far),
            near_on_trial: count(&|star| star.on_trial && !star.far),
            at: |at: usize| stars[at],
        };
        balancer.pick(balance, &all, tried)
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
    fn those_on_trial_get_their_share_wherever_they_run() {
        let picks = |balance, stars: &[Candidate], count: usize| {
            let mut balancer = Balancer::default();
            let mut picked = vec![0; stars.len()];
            (0..count).for_each(|_| picked[pick(&mut balancer, balance, stars, &[]).unwrap()] += 1);
            picked
        };
        for balance in BOTH {
            let mut stars = mixed(&[0, 0, 0], &[0]);
            assert_eq!(picks(balance, &stars, 40), [14, 13, 13, 0], "as long as nobody is on trial");
            stars[3].on_trial = true;
            assert_eq!(picks(balance, &stars, 40), [10, 10, 10, 10]);
            // Nor more than that where it alone is near.
            let mut stars = mixed(&[0], &[0, 0, 0]);
            stars[0].on_trial = true;
            assert_eq!(picks(balance, &stars, 40), [10, 10, 10, 10]);
            // Of several, those of this machine have what is for all of them.
            let mut stars = mixed(&[0, 0], &[0, 0]);
            (stars[1].on_trial, stars[2].on_trial) = (true, true);
            assert_eq!(picks(balance, &stars, 40), [20, 20, 0, 0]);
            // All of them are as none.
            stars.iter_mut().for_each(|star| star.on_trial = true);
            assert_eq!(picks(balance, &stars, 40), [20, 20, 0, 0]);
        }
    }

    #[test]
    fn no_star_of_this_machine_gets_more_than_if_nobody_were_on_trial() {
        for balance in BOTH {
            // One of five near is new, all but that of the far ones; and the other way round.
            for is_new in [|at: usize| at == 0 || at >= 5, |at: usize| !(at == 0 || at >= 5)] {
                let mut stars = mixed(&[0; 5], &[0; 10]);
                (0..15).filter(|at| is_new(*at)).for_each(|at| stars[at].on_trial = true);
                let mut balancer = Balancer::default();
                let mut picked = [0; 15];
                (0..1500).for_each(|_| picked[pick(&mut balancer, balance, &stars, &[]).unwrap()] += 1);
                assert!(picked.iter().all(|picked| *picked <= 300), "{picked:?}");
                let on_trial: i32 = (0..15).filter(|at| is_new(*at)).map(|at| picked[at]).sum();
                assert_eq!(on_trial, if is_new(0) { 1100 } else { 400 }, "{picked:?}");
            }
        }
    }

    #[test]
    fn one_on_trial_that_does_not_answer_holds_no_more_requests_than_its_turns_allow() {
        let mut stars = mixed(&[0, 0], &[0]);
        stars[2].on_trial = true;
        for balance in BOTH {
            let mut balancer = Balancer::default();
            let mut in_flight = 0;
            for _ in 0..1000 {
                stars[2].in_flight = in_flight;
                in_flight += u32::from(pick(&mut balancer, balance, &stars, &[]) == Some(2));
            }
            assert_eq!(in_flight, NEAR_MORE);
        }
        // Nor do the others, where they have too much to do.
        (stars[0].in_flight, stars[1].in_flight, stars[2].in_flight) = (900, 900, 0);
        let mut balancer = Balancer::default();
        assert!((0..9).all(|_| pick(&mut balancer, Balance::LeastConnections, &stars, &[]) == Some(2)));
    }

    #[test]
    fn those_on_trial_that_cannot_be_reached_have_no_share_and_are_no_last_resort_before_others() {
        for balance in BOTH {
            let mut stars = mixed(&[0, 0], &[0]);
            (stars[2].on_trial, stars[2].left_out) = (true, true);
            let mut balancer = Balancer::default();
            let mut picks = |stars: &[Candidate], tried: &[StarId]| {
                (0..6).filter_map(|_| pick(&mut balancer, balance, stars, tried)).collect::<Vec<_>>()
            };
            assert!(picks(&stars, &[]).iter().all(|at| *at < 2));
            // Another try is anybody's, and what is asked again pays nothing of what they are owed.
            stars[2].left_out = false;
            assert_eq!(picks(&stars, &[StarId(0), StarId(1)]), [2; 6]);
            (stars[0].left_out, stars[1].left_out) = (true, true);
            assert_eq!(picks(&stars, &[]), [2; 6]);
        }
    }

    #[test]
    fn who_fails_again_is_left_out_for_longer_but_not_for_ever() {
        let seconds: Vec<u64> = [0, 1, 2, 3, 4, 5, 99].map(|failures| left_out_for(failures).as_secs()).to_vec();
        assert_eq!(seconds, [1, 1, 2, 4, 8, 8, 8]);
    }
}
