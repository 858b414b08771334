//! What a node may have written into the log: a worker that somebody has taken over must not be able to become more.

use model::{Code, Name, NodeId, NodeRole, Problem, Standing, StarPhase};
use state::{Command, State};

/// Whether what a node says of itself counts. One that was taken out has a certificate that is good for some seconds more, so that
/// it can hear that it may go: it hears, and is not heard.
///
/// # Errors
/// `Forbidden` for one that has left. One that is not known here yet may be new.
pub fn is_heard(state: &State, from: NodeId) -> Result<(), Problem> {
    match state.nodes.get(&from) {
        Some(record) if record.standing == Standing::Left => {
            let message = format!("node `{}` was removed from the constellation", record.name);
            Err(Problem::new(Code::Forbidden, message))
        }
        _ => Ok(()),
    }
}

/// Whether a node may have this written by the leader.
///
/// # Errors
/// `Forbidden`, with what it may not.
pub fn may_write(state: &State, from: NodeId, role: NodeRole, command: &Command) -> Result<(), Problem> {
    is_heard(state, from)?;
    let forbidden = |what: &str| Err(Problem::new(Code::Forbidden, format!("node `{from}` may not {what}")));
    let written = match command {
        Command::Keyed { command, .. } => command,
        other => other,
    };
    match written {
        Command::Keyed { .. } => forbidden("write a key within a key"),
        Command::By { author, .. } | Command::Note { author, .. } if author.node != from => {
            forbidden("say that another node was asked")
        }
        Command::By { command, .. } if command.asked().is_none() => {
            forbidden("have an author for what nobody asks for")
        }
        Command::By { command, .. } => may_have_asked(from, role, command),
        Command::Note { .. } => Ok(()),
        bare if bare.asked().is_some() => forbidden("have this written without saying who asks for it"),
        // Whoever leads now may have planned otherwise.
        plan if plan.is_plan() => forbidden("write a plan: only who leads may"),
        Command::Found { .. } => forbidden("found a constellation within one"),
        Command::AdmitNode { .. } if role != NodeRole::Controller => forbidden("admit others: it is a worker"),
        Command::SetAuthorities { .. } | Command::NoteCertificate { .. } | Command::SetGossipKeys { .. }
            if role != NodeRole::Controller =>
        {
            forbidden("say who is believed: it is a worker")
        }
        Command::DescribeNode { node, .. } | Command::UseCertificate { node, .. } | Command::NoteTwin { node, .. }
            if *node != from =>
        {
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

/// The same for what somebody asked it for. On a worker nobody can be more than it is.
fn may_have_asked(from: NodeId, role: NodeRole, command: &Command) -> Result<(), Problem> {
    let forbidden =
        |what: &str| Err(Problem::new(Code::Forbidden, format!("node `{from}` may not {what}: it is a worker")));
    if role == NodeRole::Controller {
        return Ok(());
    }
    match command {
        Command::AddTicket { .. }
        | Command::RemoveTicket { .. }
        | Command::RevokeCertificates { .. }
        | Command::AddGrant { .. }
        | Command::RemoveGrant { .. } => forbidden("say who is believed, or may do what"),
        Command::SetSecret { .. } => forbidden("set secrets"),
        Command::SetNamespace { .. } | Command::DeleteNamespace { .. } => forbidden("say which namespaces there are"),
        // Not its own either: whom a machine is for is an admin's to say.
        Command::SetTaint { .. } => forbidden("taint nodes"),
        Command::SetOvercommit { .. } => forbidden("say how often what a node has is kept for stars"),
        // Not even by the node's own users: `remove` and `drain` elsewhere are an admin's.
        Command::SetDuty { node, .. } | Command::RemoveNode { node, .. } if *node != from => {
            forbidden("say what becomes of other nodes")
        }
        _ => Ok(()),
    }
}

/// Whether a node may send messages in a namespace for programs outside of stars. A controller may; a worker where it runs stars:
/// who has taken it over can speak as these anyway, and as no others.
///
/// # Errors
/// `Forbidden`.
pub fn may_send(state: &State, from: NodeId, namespace: &Name) -> Result<(), Problem> {
    // A machine that is alone has no others to send anything to.
    if state.nodes.is_empty() || state.nodes.get(&from).is_some_and(|record| record.role == NodeRole::Controller) {
        return Ok(());
    }
    let mut own = state.stars.values().filter(|star| star.node == from && star.phase != StarPhase::Ended);
    if own.any(|star| star.service.namespace == *namespace) {
        return Ok(());
    }
    let message =
        format!("node `{from}` may not send messages in namespace `{namespace}`: it is a worker without stars there");
    Err(Problem::new(Code::Forbidden, message)
        .help("send them on a controller, or on a node that runs stars of that namespace"))
}

#[cfg(test)]
mod tests {
    use model::{Duty, NodeFacts, Rights, Scope, StarId, StarPhase, WallTime};
    use state::{Author, Deed, Grant, Outcome, Proof, Transition, Who};

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
        let twin = |node| Command::NoteTwin { node: NodeId(node), address: "b".to_owned(), wall };
        check(worker, twin(5), true);
        check(controller, twin(6), false);
        let admit = || {
            let (name, address) = ("c".parse().unwrap(), "c:1".to_owned());
            let facts = Box::new(NodeFacts::default());
            Command::AdmitNode { name, role: controller, address, facts, wall, ticket: None }
        };
        check(worker, admit(), false);
        check(controller, admit(), true);
        check(controller, Command::LoseNode { node: NodeId(6), wall }, false);
        check(controller, Command::Assign { stars: Vec::new(), wall }, false);
        let due = || Command::BeginRun { service: "night".parse().unwrap(), slot: Some(WallTime(9)), wall };
        check(controller, due(), false);
        let author = Author { who: Who::User(0), node: NodeId(5), by_way_of: None, address: None };
        check(controller, Command::By { author, command: Box::new(due()), wall }, false);
        let ended = Transition { star: StarId(9), phase: StarPhase::Ended, process: None, exit: None };
        // Of a star that nobody knows.
        check(worker, Command::Transitions { changes: vec![ended], wall }, true);
    }

    #[test]
    fn who_was_taken_out_is_not_heard_and_who_is_not_known_yet_is() {
        let wall = WallTime(1);
        let mut state = State::default();
        let (cluster, facts) = ("test".parse().unwrap(), Box::new(NodeFacts::default()));
        let found = Command::Found { cluster, name: "a".parse().unwrap(), address: "a:1".to_owned(), facts, wall };
        state::apply(&mut state, 1, &found);
        let command = Command::Transitions { changes: Vec::new(), wall };
        let heard = |state: &State, node| {
            let written = may_write(state, NodeId(node), NodeRole::Controller, &command);
            assert_eq!(written.is_ok(), is_heard(state, NodeId(node)).is_ok());
            written
        };
        assert!(heard(&state, 1).is_ok() && heard(&state, 9).is_ok());
        state::apply(&mut state, 2, &Command::RemoveNode { node: NodeId(1), wall });
        let refused = heard(&state, 1).unwrap_err();
        assert!(refused.code == Code::Forbidden && refused.message.contains("node `a` was removed"), "{refused}");
        assert!(heard(&state, 9).is_ok());
    }

    #[test]
    fn what_somebody_asks_for_says_who_and_a_worker_is_no_admin() {
        let state = State::default();
        let wall = WallTime(1);
        let (worker, controller) = (NodeRole::Worker, NodeRole::Controller);
        let author = |node| Author { who: Who::User(0), node: NodeId(node), by_way_of: None, address: None };
        let by = |node, command| Command::By { author: author(node), command: Box::new(command), wall };
        let check = |role, command: Command, expected: bool| {
            assert_eq!(may_write(&state, NodeId(5), role, &command).is_ok(), expected, "{role} {command:?}");
        };
        let scale = || Command::Scale { service: "web".parse().unwrap(), instances: 2, wall };
        check(worker, by(5, scale()), true);
        check(worker, by(6, scale()), false);
        check(worker, scale(), false);
        check(controller, scale(), false);
        check(controller, by(5, Command::Forget { stars: Vec::new() }), false);
        let twice = by(5, by(5, scale()));
        check(controller, twice, false);
        let duty = |node| Command::SetDuty { node: NodeId(node), duty: Duty::Draining, wall };
        check(worker, by(5, duty(5)), true);
        check(worker, by(5, duty(6)), false);
        check(controller, by(5, duty(6)), true);
        check(worker, by(5, Command::RemoveNode { node: NodeId(6), wall }), false);
        let grant = || {
            let Rights { role, namespaces } = Rights { role: model::Role::Admin, namespaces: Scope::All };
            let proof = Proof::Token(model::ContentHash([1; 32]));
            let grant = Box::new(Grant { role, namespaces, proof, created: wall, expires: None });
            Command::AddGrant { name: "eve".parse().unwrap(), grant, wall }
        };
        check(worker, by(5, grant()), false);
        check(controller, by(5, grant()), true);
        check(worker, by(5, Command::RemoveGrant { name: "eve".parse().unwrap(), wall }), false);
        let namespace = || "dev".parse().unwrap();
        let end = |command| by(5, command);
        check(worker, end(Command::DeleteNamespace { namespace: namespace(), force: true, wall }), false);
        check(controller, end(Command::DeleteNamespace { namespace: namespace(), force: true, wall }), true);
        check(controller, Command::EndNamespace { namespace: namespace(), at: wall, wall }, false);
        check(worker, by(5, Command::SetSecret { secret: "x".parse().unwrap(), sealed: vec![1], wall }), false);
        let deed = || Deed { verb: model::Verb::Enter, what: "x".to_owned(), outcome: Outcome::Done };
        check(worker, Command::Note { author: author(5), deed: deed(), wall }, true);
        check(worker, Command::Note { author: author(6), deed: deed(), wall }, false);
    }
}
