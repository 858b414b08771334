//! How long who asks for a change is kept waiting: for a leader, and for the answer of one that may be gone.
//!
//! Nothing was written as long as no leader was reached. From then on only the leader knows, so one that does not answer is asked
//! whether it is there: a slow one is waited for, and one that is gone is given up soon.

use std::time::Duration;

/// What somebody who asks is ready to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// For a leader that takes what is asked. Longer than an election, which takes less than a second.
    pub(crate) leader: Duration,
    /// For the answer of a leader that shows that it is there: a slow disk fits into it.
    pub(crate) answer: Duration,
    /// A leader that has shown nothing for so long is asked whether it is there.
    pub(crate) doubt: Duration,
    /// For it to say so. Three packets in a row may get lost: TCP sends again after 200, 400 and 800 ms.
    pub(crate) sign: Duration,
}

/// What to do about a leader that has not answered yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing, for so long.
    Wait(Duration),
    /// Ask whether it is there.
    Doubt,
    GiveUp,
}

impl Patience {
    /// Of somebody who looks at a screen.
    pub(crate) const PERSON: Self = Self {
        leader: Duration::from_secs(2),
        answer: Duration::from_secs(10),
        doubt: Duration::from_secs(1),
        sign: Duration::from_secs(1),
    };
    /// Of a machine that asks once, to join or for a certificate: several elections may pass.
    pub(crate) const MACHINE: Self = Self { leader: Duration::from_secs(10), ..Self::PERSON };

    /// `waited` since it was asked, `shown` since it last showed that it is there, which it did by being reached.
    pub(crate) fn next(&self, waited: Duration, shown: Duration) -> Next {
        if waited >= self.answer {
            Next::GiveUp
        } else if shown >= self.doubt {
            Next::Doubt
        } else {
            Next::Wait((self.doubt - shown).min(self.answer - waited))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_does_not_answer_is_doubted_and_one_that_is_there_is_waited_for() {
        let ms = Duration::from_millis;
        let check = |waited, shown, expected| assert_eq!(Patience::PERSON.next(ms(waited), ms(shown)), expected);
        check(0, 0, Next::Wait(ms(1_000)));
        check(400, 400, Next::Wait(ms(600)));
        check(1_000, 1_000, Next::Doubt);
        // It was there a moment ago.
        check(1_010, 10, Next::Wait(ms(990)));
        check(9_500, 100, Next::Wait(ms(500)));
        check(9_500, 1_200, Next::Doubt);
        check(10_000, 10, Next::GiveUp);
    }

    #[test]
    fn a_person_hears_within_two_seconds_that_nobody_leads() {
        let Patience { leader, doubt, sign, .. } = Patience::PERSON;
        assert_eq!((leader, doubt + sign), (Duration::from_secs(2), Duration::from_secs(2)));
    }
}
