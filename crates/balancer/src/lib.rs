//! Which star gets the next request: round robin or least connections.
//!
//! Pure: whoever holds the stars and counts what is in flight there asks, and is told a place in its list. Connections,
//! retries and draining are the proxy's.

#![forbid(unsafe_code)]

use model::{Balance, StarId};

/// A star that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub star: StarId,
    /// Requests (connections, for TCP) it has now.
    pub in_flight: u32,
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
    /// Round robin takes the next one. Least connections takes the one with the fewest, and among equals the next, so that
    /// idle stars take turns. Costs one look at each candidate at most.
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
        let mut in_turn = (0..count).map(|step| (start + step) % count);
        let is_open = |at: &usize| !tried.contains(&candidate(*at).star);
        let at = match balance {
            Balance::RoundRobin => in_turn.find(is_open),
            Balance::LeastConnections => in_turn.filter(is_open).min_by_key(|at| candidate(*at).in_flight),
        }?;
        self.cursor = (at + 1) % count;
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stars(in_flight: &[u32]) -> Vec<Candidate> {
        let star = |(at, in_flight): (usize, &u32)| Candidate { star: StarId(at as u64), in_flight: *in_flight };
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
}
