//! Which controllers keep the log: one, three or five, spread over zones, changed one at a time.
//!
//! A voter that is out of reach for a moment stays one: only what the log says of it counts. One that is given up is replaced
//! when there is another; the log is never left to fewer machines than there are to keep it because some are away.

use std::collections::{BTreeMap, BTreeSet};

use model::{Name, NodeId, NodeRole, Standing};
use state::State;

/// A change of the voters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Add(NodeId),
    Remove(NodeId),
    Replace { old: NodeId, new: NodeId },
}

/// A controller that did not leave.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    up: bool,
    place: (Option<Name>, Option<Name>),
}

/// The next step from these voters, while `leader` leads; nothing when they are as they should be.
pub fn next(state: &State, voters: &BTreeSet<NodeId>, leader: NodeId) -> Option<Step> {
    let there =
        state.nodes.iter().filter(|(_, node)| node.role == NodeRole::Controller && node.standing != Standing::Left);
    let candidates: BTreeMap<NodeId, Candidate> = there
        .map(|(id, node)| {
            let place = (node.facts.region.clone(), node.facts.zone.clone());
            (*id, Candidate { up: node.standing == Standing::Up, place })
        })
        .collect();
    let wanted = wanted(candidates.len());
    let spare = best_spare(&candidates, voters);
    // The leader goes last, since it makes the steps.
    let last = |node: &&NodeId| **node == leader;
    let mut gone: Vec<&NodeId> = voters.iter().filter(|voter| !candidates.contains_key(voter)).collect();
    gone.sort_by_key(last);
    if let Some(old) = gone.first().map(|old| **old) {
        return match spare.filter(|_| voters.len() <= wanted) {
            Some(new) => Some(Step::Replace { old, new }),
            None => (voters.len() > 1).then_some(Step::Remove(old)),
        };
    }
    let is_lost = |voter: &&NodeId| candidates.get(voter).is_some_and(|candidate| !candidate.up) && **voter != leader;
    let lost: Vec<NodeId> = voters.iter().filter(is_lost).copied().collect();
    if let (Some(old), Some(new)) = (lost.first().copied(), spare) {
        return Some(Step::Replace { old, new });
    }
    if let Some(new) = spare.filter(|_| voters.len() < wanted) {
        return Some(Step::Add(new));
    }
    // Three that are there keep more than five of which two are not: the next death must not be one too many.
    if let Some(old) = lost.first().copied()
        && (voters.len() == 5 && lost.len() >= 2 || voters.len() == 4)
    {
        return Some(Step::Remove(old));
    }
    if voters.len() > wanted {
        let crowded = crowded(&candidates, voters, leader);
        return crowded.map(Step::Remove);
    }
    spread(&candidates, voters, leader)
}

/// How many keep the log, of so many that could. Two would be worse than one: both would be needed.
fn wanted(controllers: usize) -> usize {
    match controllers {
        0..3 => 1,
        3..5 => 3,
        _ => 5,
    }
}

/// How many voters there are where this candidate is.
fn neighbours(candidates: &BTreeMap<NodeId, Candidate>, voters: &BTreeSet<NodeId>, of: &Candidate) -> usize {
    voters.iter().filter_map(|voter| candidates.get(voter)).filter(|other| other.place == of.place).count()
}

/// The controller to add: where the fewest voters are, the oldest first.
fn best_spare(candidates: &BTreeMap<NodeId, Candidate>, voters: &BTreeSet<NodeId>) -> Option<NodeId> {
    let spares = candidates.iter().filter(|(node, candidate)| candidate.up && !voters.contains(node));
    spares.min_by_key(|(node, candidate)| (neighbours(candidates, voters, candidate), **node)).map(|(node, _)| *node)
}

/// The voter to remove: where the most are, the youngest first, never the leader.
fn crowded(candidates: &BTreeMap<NodeId, Candidate>, voters: &BTreeSet<NodeId>, leader: NodeId) -> Option<NodeId> {
    let others = voters.iter().filter(|voter| **voter != leader);
    others
        .max_by_key(|voter| {
            let candidate = candidates.get(voter);
            let crowd = candidate.map_or(0, |candidate| neighbours(candidates, voters, candidate));
            (candidate.is_none_or(|candidate| !candidate.up), crowd, **voter)
        })
        .copied()
}

/// One voter less where two are, one more where none is.
fn spread(candidates: &BTreeMap<NodeId, Candidate>, voters: &BTreeSet<NodeId>, leader: NodeId) -> Option<Step> {
    let new = best_spare(candidates, voters).filter(|node| neighbours(candidates, voters, &candidates[node]) == 0)?;
    let old = crowded(candidates, voters, leader)?;
    (neighbours(candidates, voters, candidates.get(&old)?) >= 2).then_some(Step::Replace { old, new })
}

#[cfg(test)]
mod tests {
    use model::{Duty, NodeFacts, WallTime};
    use state::NodeRecord;

    use super::*;

    /// `1a 2b- 3b*`: node 1 in zone a, node 2 lost, node 3 left; `w` before the number: a worker.
    fn state(nodes: &str) -> State {
        let mut state = State::default();
        for word in nodes.split_whitespace() {
            let (role, word) = match word.strip_prefix('w') {
                Some(rest) => (NodeRole::Worker, rest),
                None => (NodeRole::Controller, word),
            };
            let standing = match word.chars().last() {
                Some('-') => Standing::Lost,
                Some('*') => Standing::Left,
                _ => Standing::Up,
            };
            let word = word.trim_end_matches(['-', '*']);
            let digits = word.trim_end_matches(|c: char| c.is_ascii_lowercase());
            let zone = word[digits.len()..].parse().ok();
            let record = NodeRecord {
                name: format!("n{digits}").parse().unwrap(),
                role,
                address: String::new(),
                facts: NodeFacts { zone, ..NodeFacts::default() },
                standing,
                duty: Duty::Takes,
                admitted: WallTime(0),
                since: WallTime(0),
            };
            state.nodes.insert(NodeId(digits.parse().unwrap()), record);
        }
        state
    }

    /// Steps until nothing is left to do; they must come to an end.
    fn settle(nodes: &str, voters: &[u64], leader: u64) -> (Vec<u64>, Vec<Step>) {
        let state = state(nodes);
        let mut voters: BTreeSet<NodeId> = voters.iter().map(|node| NodeId(*node)).collect();
        let mut steps = Vec::new();
        while let Some(step) = next(&state, &voters, NodeId(leader)) {
            match step {
                Step::Add(node) => assert!(voters.insert(node)),
                Step::Remove(node) => assert!(voters.remove(&node)),
                Step::Replace { old, new } => assert!(voters.remove(&old) && voters.insert(new)),
            }
            steps.push(step);
            assert!(steps.len() < 20, "{nodes}: {steps:?}");
        }
        (voters.iter().map(|node| node.0).collect(), steps)
    }

    #[test]
    fn one_three_or_five_controllers_keep_the_log() {
        let check = |nodes: &str, voters: &[u64], expected: &[u64]| {
            assert_eq!(settle(nodes, voters, voters[0]).0, expected, "{nodes}");
        };
        check("1", &[1], &[1]);
        check("1 2", &[1], &[1]);
        check("1 2 3", &[1], &[1, 2, 3]);
        check("1 2 3 4", &[1], &[1, 2, 3]);
        check("1 2 3 4 5", &[1], &[1, 2, 3, 4, 5]);
        check("1 2 3 4 5 6 7", &[1, 2, 3], &[1, 2, 3, 4, 5]);
        check("1 w2 w3 w4", &[1], &[1]);
        // Somebody left for good.
        check("1 2 3*", &[1, 2, 3], &[1]);
        check("1 2 3* 4", &[1, 2, 3], &[1, 2, 4]);
        check("1 2 3 4 5*", &[1, 2, 3, 4, 5], &[1, 2, 3]);
    }

    #[test]
    fn who_is_given_up_is_replaced_and_the_log_never_shrinks_to_one_for_it() {
        let check = |nodes: &str, voters: &[u64], expected: &[u64]| {
            assert_eq!(settle(nodes, voters, voters[0]).0, expected, "{nodes}");
        };
        check("1 2 3- 4", &[1, 2, 3], &[1, 2, 4]);
        check("1 2 3-", &[1, 2, 3], &[1, 2, 3]);
        check("1 2- 3-", &[1, 2, 3], &[1, 2, 3]);
        check("1 2 3 4 5-", &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]);
        check("1 2 3 4- 5-", &[1, 2, 3, 4, 5], &[1, 2, 3]);
        check("1 2 3 4 5- 6", &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 6]);
        // Lost ones that come back are taken in again.
        check("1 2 3 4 5", &[1, 2, 3], &[1, 2, 3, 4, 5]);
    }

    #[test]
    fn voters_are_spread_over_zones_and_the_leader_stays() {
        assert_eq!(settle("1a 2a 3a 4b 5c", &[1], 1).0, [1, 2, 3, 4, 5]);
        assert_eq!(settle("1a 2a 3b 4c", &[1], 1).0, [1, 3, 4]);
        let (voters, steps) = settle("1a 2a 3a 4b", &[1, 2, 3], 1);
        assert_eq!((voters, steps.len()), (vec![1, 2, 4], 1));
        assert_eq!(settle("1a 2a 3b 4c", &[1, 2, 3], 2).0, [2, 3, 4]);
        // Even the leader goes when it has left.
        assert_eq!(settle("1* 2 3 4", &[1, 2, 3], 1).0, [2, 3, 4]);
        assert_eq!(settle("1*", &[1], 1).0, [1]);
    }
}
