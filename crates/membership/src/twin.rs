//! Two agents that are the same node, because one was started from a copy of the other's data folder: which of them gives way.
//!
//! One that asks before it has begun gives way to whoever answers. Else it is the one that has run for less long: both say how long by
//! a clock that nobody sets, at one moment and to each other, so that a wrong time of day ends nobody. Of two that began at about the
//! same time it is the one with the lower number.

use std::time::Duration;

/// Starts closer to each other than this count as the same: what is said takes time on its way, by which the one that is asked
/// would seem to be the older one to either of two that ask at once.
const CLOSE: Duration = Duration::from_secs(1);

/// One start of a node, as it is at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Drawn at the start.
    pub number: u64,
    /// How long it has run.
    pub up: Duration,
    /// It has begun: it answers in the node's name, and may have voted. Until then it only asks.
    pub serves: bool,
}

/// What two that meet come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    /// It is this very one.
    Itself,
    /// This one goes on, and the other is to end.
    Stays,
    /// This one is to end.
    GivesWay,
}

impl Run {
    /// The other one, of the same numbers, comes to the opposite.
    pub fn meets(self, other: Self) -> Meeting {
        if self.number == other.number {
            return Meeting::Itself;
        }
        let first = if self.serves != other.serves {
            self.serves
        } else if self.up.abs_diff(other.up) < CLOSE {
            self.number > other.number
        } else {
            self.up > other.up
        };
        if first { Meeting::Stays } else { Meeting::GivesWay }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u64, up_ms: u64) -> Run {
        Run { number, up: Duration::from_millis(up_ms), serves: true }
    }

    #[test]
    fn the_later_of_two_gives_way_and_both_know_which() {
        let check = |one: Run, other: Run, expected: Meeting| {
            assert_eq!(one.meets(other), expected, "{one:?} {other:?}");
            let opposite = match expected {
                Meeting::Itself => Meeting::Itself,
                Meeting::Stays => Meeting::GivesWay,
                Meeting::GivesWay => Meeting::Stays,
            };
            assert_eq!(other.meets(one), opposite, "{other:?} {one:?}");
        };
        check(run(1, 60_000), run(2, 10), Meeting::Stays);
        check(run(2, 60_000), run(1, 10), Meeting::Stays);
        check(run(1, 1_000), run(2, 0), Meeting::Stays);
        // Began at about the same time: neither is the later one.
        check(run(2, 5_000), run(1, 5_000), Meeting::Stays);
        check(run(1, 5_999), run(2, 5_000), Meeting::GivesWay);
        check(run(7, 0), run(7, 0), Meeting::Itself);
        // It was asked a while after it had said how long it ran.
        check(run(7, 9_000), run(7, 1_000), Meeting::Itself);
        check(run(1, u64::MAX), run(2, 0), Meeting::Stays);
        // One that has not begun, however close.
        let begins = Run { serves: false, ..run(9, 400) };
        check(begins, run(1, 0), Meeting::GivesWay);
        check(begins, Run { number: 1, ..begins }, Meeting::Stays);
    }

    /// Each may ask, and what it said of itself is old by then: at most one of the two ends all the same.
    #[test]
    fn two_that_ask_each_other_at_once_agree() {
        for late_ms in [0, 5, 400] {
            for apart_ms in [0, 3, 500, 5_000] {
                let (one, other) = (run(1, 10_000 + apart_ms), run(2, 10_000));
                let later = |run: Run| Run { up: run.up + Duration::from_millis(late_ms), ..run };
                let asked_by_one = one.meets(later(other));
                let asked_by_other = other.meets(later(one));
                assert_ne!(asked_by_one, asked_by_other, "{apart_ms} ms apart, {late_ms} ms on the way");
            }
        }
    }
}
