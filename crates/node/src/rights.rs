//! What a node may have written into the log: a worker that somebody has taken over must not be able to become more.

use model::{Code, NodeId, NodeRole, Problem};
use state::{Command, State};

/// Whether a node may have this written by the leader.
///
/// # Errors
/// `Forbidden`, with what it may not.
pub fn may_write(state: &State, from: NodeId, role: NodeRole, command: &Command) -> Result<(), Problem> {
    let forbidden = |what: &str| Err(Problem::new(Code::Forbidden, format!("node `{from}` may not {what}")));
    match command.bare() {
        Command::Keyed { .. } => forbidden("write a key within a key"),
        // Whoever leads now may have planned otherwise.
        plan if plan.is_plan() => forbidden("write a plan: only who leads may"),
        Command::Found { .. } => forbidden("found a constellation within one"),
        Command::AdmitNode { .. } if role != NodeRole::Controller => forbidden("admit others: it is a worker"),
        Command::SetAuthorities { .. }
        | Command::AddTicket { .. }
        | Command::RemoveTicket { .. }
        | Command::NoteCertificate { .. }
        | Command::RevokeCertificates { .. }
        | Command::SetGossipKeys { .. }
            if role != NodeRole::Controller =>
        {
            forbidden("say who is believed: it is a worker")
        }
        Command::SetSecret { .. } if role != NodeRole::Controller => forbidden("set secrets: it is a worker"),
        Command::DescribeNode { node, .. } | Command::UseCertificate { node, .. } if *node != from => {
            forbidden("speak for another node")
        }
        Command::Transitions { changes, .. } => {
            // What is not known any more changes nothing.
            let others = |star| state.stars.get(star).is_some_and(|record| record.node != from);
            match changes.iter().any(|change| others(&change.star)) {
                true => forbidden("say what became of another node's stars"),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use model::{NodeFacts, StarId, StarPhase, WallTime};
    use state::Transition;

    use super::*;

    #[test]
    fn a_node_speaks_for_itself_and_its_stars_only() {
        let state = State::default();
        let wall = WallTime(1);
        let (worker, controller) = (NodeRole::Worker, NodeRole::Controller);
        let check = |role, command: Command, expected: bool| {
            assert_eq!(may_write(&state, NodeId(5), role, &command).is_ok(), expected, "{role} {command:?}");
        };
        let describe = |node| {
            let (node, address) = (NodeId(node), "b:1".to_owned());
            Command::DescribeNode { node, address, facts: Box::new(NodeFacts::default()), wall }
        };
        check(worker, describe(5), true);
        check(worker, describe(6), false);
        check(controller, describe(6), false);
        let admit = || {
            let (name, address) = ("c".parse().unwrap(), "c:1".to_owned());
            let facts = Box::new(NodeFacts::default());
            Command::AdmitNode { name, role: controller, address, facts, wall, ticket: None }
        };
        check(worker, admit(), false);
        check(controller, admit(), true);
        check(controller, Command::LoseNode { node: NodeId(6), wall }, false);
        check(controller, Command::Assign { stars: Vec::new(), wall }, false);
        let ended = Transition { star: StarId(9), phase: StarPhase::Ended, process: None, exit: None };
        // Of a star that nobody knows.
        check(worker, Command::Transitions { changes: vec![ended], wall }, true);
    }
}
