//! Whether a roll-out has come about, goes on, or has failed: it always ends.

use std::time::Duration;

use model::WallTime;

/// Stars of a new revision that end in a row in one place before it has failed: with their back-off that is some eight seconds after
/// the first, long enough for what they need to come up beside them.
pub const FAILURES_MAX: u32 = 5;

/// Requests from which on their share that failed says something: one of the first two is half of them.
const REQUESTS_MIN: u64 = 20;

/// Requests to stars of a new revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answers {
    /// That ended, well or not.
    pub requests: u64,
    /// That had no answer, one that was cut short, or one with a status of 500 to 599.
    pub failed: u64,
}

impl Answers {
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { requests: self.requests + other.requests, failed: self.failed + other.failed }
    }

    /// Whether more of a hundred failed, and there were enough to tell.
    pub fn are_worse_than(&self, percent: u32) -> bool {
        self.requests >= REQUESTS_MIN && u128::from(self.failed) * 100 > u128::from(self.requests) * u128::from(percent)
    }
}

/// A roll-out as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    pub now: WallTime,
    /// When it has failed, if it has not come about.
    pub ends: WallTime,
    /// Stars are tried, so many of the new revision.
    pub trial: Option<u32>,
    /// Stars there should be when it is over.
    pub stars: u32,
    /// Of the new revision and settled.
    pub settled: u32,
    /// When the last of these had settled.
    pub since: WallTime,
    /// Of other revisions, and not on their way out.
    pub others: u32,
    /// How long after all that are tried have settled they are believed; `None`: somebody says so.
    pub promote_after: Option<Duration>,
    /// Ends in a row of stars in the place where there were most.
    pub failures: u32,
    /// What the new stars made of requests, and how many of a hundred may fail.
    pub answers: Answers,
    pub errors_percent: Option<u32>,
    /// There is something to go back to.
    pub can_return: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is to be said before that moment, unless something happens.
    Wait { until: WallTime },
    /// What was tried is believed.
    Promote,
    /// It has come about.
    Done,
    /// It had its time.
    Late,
    /// Its stars end again and again.
    Failing,
    /// Too many requests to its stars fail.
    Erring,
}

impl Watch {
    pub fn verdict(&self) -> Verdict {
        let has_settled = |stars: u32| self.settled >= stars;
        if self.can_return && self.errors_percent.is_some_and(|percent| self.answers.are_worse_than(percent)) {
            return Verdict::Erring;
        }
        if self.trial.is_none() && self.others == 0 && has_settled(self.stars) {
            return Verdict::Done;
        }
        if self.now >= self.ends {
            return Verdict::Late;
        }
        if self.failures >= FAILURES_MAX && self.can_return {
            return Verdict::Failing;
        }
        let (Some(_), Some(after)) = (self.trial.filter(|tried| has_settled(*tried)), self.promote_after) else {
            return Verdict::Wait { until: self.ends };
        };
        let believed = WallTime(self.since.0.saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)));
        if self.now >= believed { Verdict::Promote } else { Verdict::Wait { until: believed.min(self.ends) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLLING: Watch = Watch {
        now: WallTime(5_000),
        ends: WallTime(60_000),
        trial: None,
        stars: 3,
        settled: 1,
        since: WallTime(4_000),
        others: 2,
        promote_after: None,
        failures: 0,
        answers: Answers { requests: 0, failed: 0 },
        errors_percent: None,
        can_return: true,
    };

    #[test]
    fn it_is_done_when_all_are_new_and_settled() {
        assert_eq!(ROLLING.verdict(), Verdict::Wait { until: WallTime(60_000) });
        assert_eq!(Watch { settled: 3, ..ROLLING }.verdict(), Verdict::Wait { until: WallTime(60_000) });
        assert_eq!(Watch { settled: 2, others: 0, ..ROLLING }.verdict(), Verdict::Wait { until: WallTime(60_000) });
        assert_eq!(Watch { settled: 3, others: 0, ..ROLLING }.verdict(), Verdict::Done);
    }

    #[test]
    fn it_always_ends() {
        let late = Watch { now: WallTime(60_000), ..ROLLING };
        assert_eq!(late.verdict(), Verdict::Late);
        assert_eq!(Watch { trial: Some(1), ..late }.verdict(), Verdict::Late, "nobody promoted it");
        assert_eq!(Watch { settled: 3, others: 0, ..late }.verdict(), Verdict::Done, "it was there just in time");
    }

    #[test]
    fn stars_that_end_again_and_again_are_not_waited_for_when_there_is_a_way_back() {
        let failing = Watch { failures: FAILURES_MAX, ..ROLLING };
        assert_eq!(failing.verdict(), Verdict::Failing);
        assert_eq!(Watch { can_return: false, ..failing }.verdict(), Verdict::Wait { until: WallTime(60_000) });
    }

    #[test]
    fn stars_that_fail_more_requests_than_they_may_are_not_believed() {
        let check = |requests, failed, percent: Option<u32>, expected| {
            let answers = Answers { requests, failed };
            // It would be done, or promoted, otherwise.
            let done = Watch { answers, errors_percent: percent, settled: 3, others: 0, ..ROLLING };
            let (done, erring) = (done.verdict(), Watch { can_return: false, ..done }.verdict());
            assert_eq!((done == Verdict::Erring, erring), (expected, Verdict::Done), "{failed} of {requests}");
        };
        check(100, 5, Some(5), false);
        check(100, 6, Some(5), true);
        check(100, 6, None, false);
        // Too few to say.
        check(19, 19, Some(5), false);
        check(20, 2, Some(5), true);
        check(20, 1, Some(0), true);
        check(1_000_000, 0, Some(0), false);
    }

    #[test]
    fn what_is_tried_is_believed_by_itself_only_where_that_was_said() {
        let tried = Watch { trial: Some(1), ..ROLLING };
        assert_eq!(tried.verdict(), Verdict::Wait { until: WallTime(60_000) });
        let timed = Watch { promote_after: Some(Duration::from_secs(2)), ..tried };
        assert_eq!(timed.verdict(), Verdict::Wait { until: WallTime(6_000) });
        assert_eq!(Watch { now: WallTime(6_000), ..timed }.verdict(), Verdict::Promote);
        assert_eq!(
            Watch { settled: 0, now: WallTime(6_000), ..timed }.verdict(),
            Verdict::Wait { until: WallTime(60_000) }
        );
    }
}
