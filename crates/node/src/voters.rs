//! Which controllers keep the log: one, three or five, spread over zones.
//!
//! A voter that is out of reach for a moment stays one: only what the log says of it counts. One that is given up is replaced
//! when there is another; the log is never left to fewer machines than there are to keep it because some are away. Growing and
//! shrinking skip two and four: of two voters both are needed, so a death between one and three would stop all writes.

use std::collections::{BTreeMap, BTreeSet};

use model::{Duty, Name, NodeId, NodeRole, Standing};
use state::State;

type Voters = BTreeSet<NodeId>;

/// A controller that did not leave, and keeps the log or may come to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    up: bool,
    place: (Option<Name>, Option<Name>),
}

type Candidates = BTreeMap<NodeId, Candidate>;

/// The voters that should follow these, while `leader` leads; nothing when they are as they should be. `voters_next` is what
/// they give way to already, since a leader before this one began it.
pub fn next(state: &State, voters: &Voters, voters_next: Option<&Voters>, leader: NodeId) -> Option<Voters> {
    if let Some(begun) = voters_next {
        return Some(begun.clone());
    }
    let candidates = candidates(state, voters);
    let wanted = wanted(candidates.len());
    let spare = best_spare(&candidates, voters);

    // The leader goes last, since it makes the changes.
    let gone = voters.iter().filter(|voter| !candidates.contains_key(voter));
    if let Some(old) = gone.min_by_key(|node| **node == leader) {
        if let Some(new) = spare.filter(|_| voters.len() <= wanted) {
            return Some(replaced(voters, *old, new));
        }
        let left: Voters = voters.iter().filter(|voter| candidates.contains_key(voter)).copied().collect();
        return (!left.is_empty()).then(|| shrunk(&candidates, left, wanted, leader));
    }

    let is_lost = |voter: &&NodeId| candidates.get(voter).is_some_and(|candidate| !candidate.up) && **voter != leader;
    let lost: Vec<NodeId> = voters.iter().filter(is_lost).copied().collect();
    if let (Some(old), Some(new)) = (lost.first(), spare) {
        return Some(replaced(voters, *old, new));
    }
    if let Some(more) = grown(&candidates, voters, wanted) {
        return Some(more);
    }
    // Three that are there keep more than five of which two are not: the next death must not be one too many.
    if voters.len() == 5 && lost.len() >= 2 || voters.len() == 4 && !lost.is_empty() {
        let too_many = &lost[..voters.len() - 3];
        return Some(voters.iter().filter(|voter| !too_many.contains(voter)).copied().collect());
    }
    if voters.len() > wanted {
        return Some(shrunk(&candidates, voters.clone(), wanted, leader));
    }
    spread(&candidates, voters, leader)
}

/// One that was let in and never came, or that is on its way out, does not come to vote; one that votes already does until it
/// has left.
fn candidates(state: &State, voters: &Voters) -> Candidates {
    let controllers = state
        .nodes
        .iter()
        .filter(|(_, node)| node.role == NodeRole::Controller && node.standing != Standing::Left)
        .filter(|(id, node)| voters.contains(id) || node.facts.are_told() && node.duty != Duty::Draining);
    let candidate = |(id, node): (&NodeId, &state::NodeRecord)| {
        let place = (node.facts.region.clone(), node.facts.zone.clone());
        (*id, Candidate { up: node.standing == Standing::Up, place })
    };
    controllers.map(candidate).collect()
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
fn neighbours(candidates: &Candidates, voters: &Voters, of: &Candidate) -> usize {
    voters.iter().filter_map(|voter| candidates.get(voter)).filter(|other| other.place == of.place).count()
}

/// The controller to add: where the fewest voters are, the oldest first.
fn best_spare(candidates: &Candidates, voters: &Voters) -> Option<NodeId> {
    let spares = candidates.iter().filter(|(node, candidate)| candidate.up && !voters.contains(node));
    spares.min_by_key(|(node, candidate)| (neighbours(candidates, voters, candidate), **node)).map(|(node, _)| *node)
}

/// The voter to remove: where the most are, the youngest first, never the leader.
fn crowded(candidates: &Candidates, voters: &Voters, leader: NodeId) -> Option<NodeId> {
    let others = voters.iter().filter(|voter| **voter != leader);
    others
        .max_by_key(|voter| {
            let candidate = candidates.get(voter);
            let crowd = candidate.map_or(0, |candidate| neighbours(candidates, voters, candidate));
            (candidate.is_none_or(|candidate| !candidate.up), crowd, **voter)
        })
        .copied()
}

fn replaced(voters: &Voters, old: NodeId, new: NodeId) -> Voters {
    voters.iter().filter(|voter| **voter != old).copied().chain([new]).collect()
}

/// As many more as there are controllers up for, to one, three or five.
fn grown(candidates: &Candidates, voters: &Voters, wanted: usize) -> Option<Voters> {
    let mut more = voters.clone();
    let mut odd = None;
    while more.len() < wanted {
        let Some(spare) = best_spare(candidates, &more) else { break };
        more.insert(spare);
        if more.len() % 2 == 1 {
            odd = Some(more.clone());
        }
    }
    odd
}

/// The same with so many at most; the leader stays if it is one of them.
fn shrunk(candidates: &Candidates, mut voters: Voters, most: usize, leader: NodeId) -> Voters {
    while voters.len() > most {
        let Some(out) = crowded(candidates, &voters, leader) else { break };
        voters.remove(&out);
    }
    voters
}

/// One voter less where two are, one more where none is.
fn spread(candidates: &Candidates, voters: &Voters, leader: NodeId) -> Option<Voters> {
    let new = best_spare(candidates, voters).filter(|node| neighbours(candidates, voters, &candidates[node]) == 0)?;
    let old = crowded(candidates, voters, leader)?;
    (neighbours(candidates, voters, candidates.get(&old)?) >= 2).then(|| replaced(voters, old, new))
}

#[cfg(test)]
mod tests {
    use model::{NodeFacts, WallTime};
    use state::NodeRecord;

    use super::*;

    /// `1a 2b- 3b* 4? 5~`: node 1 in zone a, node 2 lost, node 3 left, node 4 let in and never heard of, node 5 drained; `w`
    /// before the number: a worker.
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
            let duty = if word.ends_with('~') { Duty::Draining } else { Duty::Takes };
            let cores = if word.ends_with('?') { 0 } else { 2 };
            let word = word.trim_end_matches(['-', '*', '?', '~']);
            let digits = word.trim_end_matches(|c: char| c.is_ascii_lowercase());
            let zone = word[digits.len()..].parse().ok();
            let record = NodeRecord {
                overcommit: None,
                taints: Default::default(),
                name: format!("n{digits}").parse().unwrap(),
                role,
                address: String::new(),
                facts: NodeFacts { zone, cores, ..NodeFacts::default() },
                standing,
                duty,
                admitted: WallTime(0),
                since: WallTime(0),
            };
            state.nodes.insert(NodeId(digits.parse().unwrap()), record);
        }
        state
    }

    /// Changes until nothing is left to do; they must come to an end.
    fn settle(nodes: &str, voters: &[u64], leader: u64) -> (Vec<u64>, Vec<Voters>) {
        let state = state(nodes);
        let mut voters: Voters = voters.iter().map(|node| NodeId(*node)).collect();
        let mut changes = Vec::new();
        while let Some(next) = next(&state, &voters, None, NodeId(leader)) {
            assert!(!next.is_empty() && next != voters, "{nodes}: {changes:?}");
            voters = next;
            changes.push(voters.clone());
            assert!(changes.len() < 20, "{nodes}: {changes:?}");
        }
        (voters.iter().map(|node| node.0).collect(), changes)
    }

    #[test]
    fn there_are_never_two_voters_or_four_on_the_way() {
        for (nodes, from, to, changes) in [
            ("1 2 3", &[1][..], 3, 1),
            ("1 2 3 4 5", &[1], 5, 1),
            ("1 2 3 4 5 6", &[4, 5, 6], 5, 1),
            // One that is down does not keep the others from growing, but two are not enough for more.
            ("1 2 3 4- 5", &[1], 3, 1),
            ("1 2 3-", &[1], 1, 0),
            ("1 2 3 4 5-", &[1, 2, 3], 3, 0),
            ("1 2 3*", &[1, 2, 3], 1, 1),
            ("1 2 3 4 5*", &[1, 2, 3, 4, 5], 3, 1),
            ("1 2 3 4* 5*", &[1, 2, 3, 4, 5], 3, 1),
            ("1 2 3 4- 5-", &[1, 2, 3, 4, 5], 3, 1),
            // As an older leader may have left them.
            ("1 2 3", &[1, 2], 3, 1),
            ("1 2", &[1, 2], 1, 1),
            ("1 2 3 4-", &[1, 2, 3, 4], 3, 1),
        ] {
            let (voters, made) = settle(nodes, from, from[0]);
            assert_eq!((voters.len(), made.len()), (to, changes), "{nodes}: {made:?}");
        }
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

    /// Until then both sets are needed, so that one voter of old could still stop three.
    #[test]
    fn what_another_leader_has_begun_is_finished_first() {
        let voters = |nodes: &[u64]| nodes.iter().copied().map(NodeId).collect::<Voters>();
        let state = state("1 2 3");
        let (both, begun) = (voters(&[1, 2, 3]), voters(&[1, 2, 3]));
        assert_eq!(next(&state, &both, Some(&begun), NodeId(2)), Some(begun));
        assert_eq!(next(&state, &both, None, NodeId(2)), None);
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
    fn who_never_came_or_is_going_does_not_come_to_vote() {
        let check = |nodes: &str, voters: &[u64], expected: &[u64]| {
            assert_eq!(settle(nodes, voters, voters[0]).0, expected, "{nodes}");
        };
        for word in ["?", "~"] {
            let with = |nodes: &str| nodes.replace('!', word);
            // It neither grows by it, nor is one that is there kept from voting, nor counted on.
            check(&with("1 2 3!"), &[1], &[1]);
            check(&with("1 2 3! 4"), &[1], &[1, 2, 4]);
            check(&with("1 2 3 4 5!"), &[1, 2, 3], &[1, 2, 3]);
            check(&with("1 2 3* 4!"), &[1, 2, 3], &[1]);
            check(&with("1 2 3- 4!"), &[1, 2, 3], &[1, 2, 3]);
            check(&with("1a 2a 3a 4b!"), &[1, 2, 3], &[1, 2, 3]);
            // One that votes already goes on, so that what leaves in good order is replaced when it has left.
            check(&with("1 2 3! 4"), &[1, 2, 3], &[1, 2, 3]);
        }
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
