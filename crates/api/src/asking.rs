//! Whether a change is asked for again that may have been made or not: under its key it is made once, however often it is asked for.

use std::time::Duration;

use model::{Code, Problem};
use tokio::time::Instant;

/// Between two times.
pub(crate) const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How long nobody may answer: another agent starts within it.
const NOBODY_FOR: Duration = Duration::from_secs(15);
/// How long an agent may answer that it reaches no leader: as long as it waits for one itself, and more than twice an election.
const LEADERLESS_FOR: Duration = Duration::from_secs(2);

/// A change that is being asked for.
#[derive(Debug)]
pub(crate) struct Asking {
    began: Instant,
    /// Since when an agent answers each time.
    answered: Option<Instant>,
    /// One of the times it may have been made.
    may_be: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Again,
    Tell(Problem),
}

impl Asking {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, answered: None, may_be: false }
    }

    /// After a time that ended with this problem, told `by_agent` or found on the way to it.
    pub(crate) fn next(&mut self, now: Instant, problem: Problem, by_agent: bool) -> Next {
        self.may_be |= problem.changed;
        let may_pass = matches!(problem.code, Code::NoAgent | Code::Unavailable | Code::Timeout);
        if !self.may_be || !may_pass {
            return Next::Tell(problem);
        }
        self.answered = self.answered.filter(|_| by_agent).or_else(|| by_agent.then_some(now));
        let leaderless = self.answered.is_some_and(|since| now - since >= LEADERLESS_FOR);
        match leaderless || now - self.began >= NOBODY_FOR {
            // Whatever the last time says of itself.
            true => Next::Tell(unknown(problem)),
            false => Next::Again,
        }
    }
}

/// What is told of the last time, without its saying that nothing was done: the first may have done it.
fn unknown(problem: Problem) -> Problem {
    match problem.changed {
        true => problem,
        false => {
            let message = format!("{}; it was asked for before, and that may still take effect", problem.message);
            Problem { message, ..problem }.after_changes().help("look at what there is before you ask again")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks until a problem is told, each time ending so, `each` after the one before; gives it and how long it took.
    fn told(each: Duration, times: impl Fn(Duration) -> (Problem, bool)) -> (Problem, Duration) {
        let began = Instant::now();
        let (mut asking, mut waited) = (Asking::new(began), Duration::ZERO);
        loop {
            waited += each;
            let (problem, by_agent) = times(waited);
            match asking.next(began + waited, problem, by_agent) {
                Next::Again => waited += AGAIN_AFTER,
                Next::Tell(problem) => return (problem, waited),
            }
        }
    }

    fn no_leader() -> Problem {
        Problem::new(Code::Unavailable, "no leader is known").help("nothing was written")
    }

    #[test]
    fn what_was_certainly_not_done_is_told_at_once() {
        let each = Duration::from_secs(2);
        let (problem, waited) = told(each, |_| (no_leader(), true));
        assert_eq!((problem, waited), (no_leader(), each));
        let refused = || Problem::new(Code::Conflict, "it has changed meanwhile").after_changes();
        assert_eq!(told(each, |_| (refused(), true)), (refused(), each));
    }

    #[test]
    fn what_may_be_done_is_asked_again_while_a_leader_may_be_elected_and_no_longer() {
        let each = Duration::from_secs(2);
        let silent = || Problem::new(Code::Unavailable, "the leader fell silent").after_changes();
        let (problem, waited) =
            told(each, |waited| if waited == each { (silent(), true) } else { (no_leader(), true) });
        assert!(waited <= Duration::from_secs(5), "{waited:?}");
        assert!(problem.changed && problem.message.contains("may still take effect"), "{problem}");
        assert_ne!(problem.help, no_leader().help, "that nothing was written is true of the last time only");
    }

    #[test]
    fn an_agent_that_is_gone_is_waited_for_until_another_starts() {
        let (each, starts) = (Duration::from_millis(10), Duration::from_secs(12));
        let lost = || Problem::new(Code::Unavailable, "it closed the connection").after_changes();
        let gone = || Problem::new(Code::NoAgent, "no agent answers");
        let (_, waited) = told(each, |waited| if waited == each { (lost(), false) } else { (gone(), false) });
        assert!(waited >= NOBODY_FOR, "{waited:?}");
        // One that has just started finds its leader.
        let (_, waited) = told(each, |waited| match waited {
            _ if waited == each => (lost(), false),
            _ if waited < starts => (gone(), false),
            _ => (no_leader(), true),
        });
        assert!(waited >= NOBODY_FOR.min(starts + LEADERLESS_FOR), "{waited:?}");
    }
}
