//! Proposals under way, and transitions of stars gathered into batches.
//!
//! At most one batch of transitions is being written; what happens meanwhile is merged star by star, so however many
//! stars change however fast, what waits is at most one transition a star.

use std::collections::{BTreeMap, VecDeque};

use model::{AppSpec, Exit, Name, NodeId, Once, RequestId, ServiceKey, StarId, StarPhase, Time};
use state::{Command, Transition};

use crate::limits::LimitWait;

/// Who waits for a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A change somebody asked for.
    Request(RequestId),
    /// The end of a change of limits that a star cannot have.
    TakeBack(Box<LimitWait>),
    /// Stars to bring into being.
    Assign,
    Transitions,
    /// Stars of other machines that are to go.
    Retire,
    Forget,
    /// How a roll-out of the service ended.
    Rollout(ServiceKey),
    /// A run of the job begins.
    Job(ServiceKey),
    /// A reservation begins or ends.
    Hold(ServiceKey),
    /// Where a machine stands.
    Peer(NodeId),
    /// The end of a namespace, or a warning of it.
    Namespace(Name),
}

#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) number: u64,
    pub(crate) purpose: Purpose,
    pub(crate) command: Command,
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    last: u64,
    /// Oldest first: they are committed in this order.
    under_way: VecDeque<Proposal>,
    waiting: BTreeMap<StarId, Transition>,
    /// After a failed write the next batch waits this long.
    held_until: Time,
}

impl Log {
    /// Numbers a proposal and remembers it until it is committed or fails.
    pub(crate) fn propose(&mut self, purpose: Purpose, command: Command) -> u64 {
        self.last += 1;
        self.under_way.push_back(Proposal { number: self.last, purpose, command });
        self.last
    }

    /// The proposal that a committed command was; none for a command from before this node's time.
    pub(crate) fn committed(&mut self, command: &Command) -> Option<Proposal> {
        let at = self.under_way.iter().position(|proposal| proposal.command == *command)?;
        self.under_way.remove(at)
    }

    pub(crate) fn failed(&mut self, number: u64) -> Option<Proposal> {
        let at = self.under_way.iter().position(|proposal| proposal.number == number)?;
        self.under_way.remove(at)
    }

    /// What became of a star, to be written soon.
    pub(crate) fn moved(&mut self, star: StarId, phase: StarPhase, process: Option<(u32, u64)>, exit: Option<Exit>) {
        let waiting = self.waiting.entry(star).or_insert(Transition { star, phase, process: None, exit: None });
        waiting.phase = phase;
        waiting.process = process.or(waiting.process);
        waiting.exit = exit.or(waiting.exit.take());
    }

    /// That a star does not move after all is being written.
    pub(crate) fn is_move_ending(&self, star: StarId) -> bool {
        self.under_way.iter().any(|proposal| match &proposal.command {
            Command::EndMove { stars, .. } => stars.contains(&star),
            _ => false,
        })
    }

    /// Transitions of a batch that was not written: they wait until `at`, unless something newer waits.
    pub(crate) fn again(&mut self, transitions: Vec<Transition>, at: Time) {
        self.held_until = at;
        for transition in transitions {
            let newer = self.waiting.entry(transition.star).or_insert_with(|| transition.clone());
            newer.process = newer.process.or(transition.process);
        }
    }

    /// The next batch, when none is being written and the last one was.
    pub(crate) fn batch(&mut self, now: Time) -> Option<Vec<Transition>> {
        if self.is_under_way(&Purpose::Transitions) || self.waiting.is_empty() || now < self.held_until {
            return None;
        }
        Some(std::mem::take(&mut self.waiting).into_values().collect())
    }

    /// Changes of apps that are being written.
    pub(crate) fn puts(&self) -> impl Iterator<Item = &AppSpec> {
        self.under_way.iter().filter_map(|proposal| match proposal.command.bare() {
            Command::PutApp { spec, .. } => Some(spec),
            _ => None,
        })
    }

    /// The keys of changes that are being written.
    pub(crate) fn under_keys(&self) -> impl Iterator<Item = &Once> {
        self.under_way.iter().filter_map(|proposal| match &proposal.command {
            Command::Keyed { once, .. } => Some(once),
            _ => None,
        })
    }

    /// A change of the service's limits is being written, or a change that may be one.
    pub(crate) fn may_limit(&self, key: &ServiceKey) -> bool {
        self.under_way.iter().any(|proposal| match proposal.command.bare() {
            Command::Limit { service, .. } => service == key,
            Command::PutApp { spec, .. } => {
                spec.app.namespace == key.namespace && spec.services.contains_key(&key.name)
            }
            _ => false,
        })
    }

    pub(crate) fn is_under_way(&self, purpose: &Purpose) -> bool {
        self.under_way.iter().any(|proposal| proposal.purpose == *purpose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions_merge_while_a_batch_is_written() {
        let mut log = Log::default();
        log.moved(StarId(1), StarPhase::Starting, Some((7, 8)), None);
        let first = log.batch(Time(1)).unwrap();
        let command = Command::Transitions { changes: first, wall: Default::default() };
        log.propose(Purpose::Transitions, command.clone());
        log.moved(StarId(1), StarPhase::Ready, None, None);
        log.moved(StarId(1), StarPhase::Ended, None, Some(Exit { cause: model::ExitCause::Code(0), asked: false }));
        assert_eq!(log.batch(Time(1)), None);
        log.committed(&command).unwrap();
        let second = log.batch(Time(1)).unwrap();
        assert_eq!(second.len(), 1);
        assert_eq!(second[0].phase, StarPhase::Ended);
        assert!(second[0].exit.is_some());
    }

    #[test]
    fn a_batch_that_failed_waits_and_loses_to_what_is_newer() {
        let mut log = Log::default();
        log.moved(StarId(1), StarPhase::Starting, Some((7, 8)), None);
        let first = log.batch(Time(1)).unwrap();
        log.moved(StarId(1), StarPhase::Ready, None, None);
        log.again(first, Time(5));
        assert_eq!(log.batch(Time(4)), None);
        let second = log.batch(Time(5)).unwrap();
        assert_eq!((second[0].phase, second[0].process), (StarPhase::Ready, Some((7, 8))));
    }
}
