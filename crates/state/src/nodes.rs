//! Machines that come, go, are given up and come back.

use model::machine::{LABEL_MAX_BYTES, NODES_MAX, said_of_volumes};
use model::taint::{self, TAINTS_MAX};
use model::{
    Code, ContentHash, Duty, Exit, ExitCause, Name, NodeFacts, NodeId, NodeRole, Overcommit, Problem, Standing, StarId,
    StarPhase, Taint, Taints, WallTime,
};

use crate::apply::{Applied, Change, transit};
use crate::command::Transition;
use crate::record::{NodeRecord, State};
use crate::security;

pub(crate) fn found(
    state: &mut State,
    cluster: &Name,
    name: &Name,
    address: &str,
    facts: &NodeFacts,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    check(address, facts)?;
    if let Some(there) = &state.cluster {
        let problem = Problem::new(Code::AlreadyExists, format!("this machine is in constellation `{there}` already"));
        return Err(problem.help("`rads c leave` takes it out"));
    }
    state.cluster = Some(cluster.clone());
    state.record(wall, format!("constellation `{cluster}` founded"));
    insert(state, NodeId::FIRST, name, NodeRole::Controller, address, facts, None, wall);
    changes.push(Change::NodeChanged { node: NodeId::FIRST });
    Ok(())
}

pub(crate) fn admit(
    state: &mut State,
    name: &Name,
    role: NodeRole,
    address: &str,
    facts: &NodeFacts,
    wall: WallTime,
    ticket: Option<ContentHash>,
    changes: &mut Vec<Change>,
) -> Applied {
    check(address, facts)?;
    if state.cluster.is_none() {
        return Err(security::in_none());
    }
    // Before whatever else is wrong: who has no invitation learns nothing.
    security::check_ticket(state, ticket, role, wall)?;
    let there = |record: &&NodeRecord| record.standing != Standing::Left;
    if state.nodes.values().filter(there).any(|record| record.name == *name) {
        let problem = Problem::new(Code::AlreadyExists, format!("there is a node `{name}` already"));
        return Err(problem.help(format!("give this one another name, or take that one out: `rads c remove {name}`")));
    }
    if state.nodes.values().filter(there).count() >= NODES_MAX {
        return Err(Problem::new(Code::NoCapacity, format!("a constellation has at most {NODES_MAX} nodes")));
    }
    let node = NodeId(state.index);
    security::count_ticket(state, ticket, changes);
    insert(state, node, name, role, address, facts, ticket, wall);
    changes.push(Change::NodeChanged { node });
    Ok(())
}

fn insert(
    state: &mut State,
    node: NodeId,
    name: &Name,
    role: NodeRole,
    address: &str,
    facts: &NodeFacts,
    ticket: Option<ContentHash>,
    wall: WallTime,
) {
    let record = NodeRecord {
        name: name.clone(),
        role,
        address: address.to_owned(),
        facts: NodeFacts { overcommit: state.overcommit, ..facts.clone() },
        standing: Standing::Up,
        duty: Duty::Takes,
        taints: Taints::new(),
        overcommit: None,
        admitted: wall,
        since: wall,
    };
    state.nodes.insert(node, record);
    let by = ticket.map(|hash| format!(" with token `{}`", security::short(hash))).unwrap_or_default();
    state.record(wall, format!("node `{name}` joined as {role}{by}"));
}

pub(crate) fn describe(
    state: &mut State,
    node: NodeId,
    address: &str,
    facts: &NodeFacts,
    changes: &mut Vec<Change>,
) -> Applied {
    check(address, facts)?;
    let record = node_mut(state, node)?;
    if record.is_described(address, facts) {
        return Ok(());
    }
    let facts = NodeFacts { overcommit: record.facts.overcommit, ..facts.clone() };
    (record.address, record.facts) = (address.to_owned(), facts);
    changes.push(Change::NodeChanged { node });
    Ok(())
}

/// The stars end here, in the one order that every replica follows; on the machine itself they may run on.
pub(crate) fn lose(state: &mut State, node: NodeId, wall: WallTime, changes: &mut Vec<Change>) -> Applied {
    let Some(name) = turn(state, node, (Standing::Up, Standing::Lost), wall)? else { return Ok(()) };
    let stars = end_stars(state, node, wall, changes);
    state.record(wall, format!("node `{name}` is lost, with {stars} of its stars"));
    changes.push(Change::NodeChanged { node });
    Ok(())
}

pub(crate) fn welcome(state: &mut State, node: NodeId, wall: WallTime, changes: &mut Vec<Change>) -> Applied {
    let Some(name) = turn(state, node, (Standing::Lost, Standing::Up), wall)? else { return Ok(()) };
    state.record(wall, format!("node `{name}` is back"));
    changes.push(Change::NodeChanged { node });
    Ok(())
}

pub(crate) fn remove(state: &mut State, node: NodeId, wall: WallTime, changes: &mut Vec<Change>) -> Applied {
    let with = given_up(state, node);
    let record = node_mut(state, node)?;
    (record.standing, record.since) = (Standing::Left, wall);
    let name = record.name.clone();
    end_stars(state, node, wall, changes);
    // What lay there is out of reach for good; whoever asks for a volume of that name gets a new one.
    state.homes.retain(|volume, home| {
        if *home == node {
            changes.push(Change::VolumeLost { volume: volume.clone() });
        }
        *home != node
    });
    security::forget_node(state, node, changes);
    state.record(wall, format!("node `{name}` left{with}"));
    changes.push(Change::NodeChanged { node });
    Ok(())
}

/// What would be given up with a machine, as the rest of a line.
pub(crate) fn given_up(state: &State, node: NodeId) -> String {
    let said = said_of_volumes(&state.volumes_on(node));
    said.map(|said| format!("; given up with it: {said}")).unwrap_or_default()
}

pub(crate) fn set_duty(
    state: &mut State,
    node: NodeId,
    duty: Duty,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    let record = node_mut(state, node)?;
    if std::mem::replace(&mut record.duty, duty) == duty {
        return Ok(());
    }
    let name = record.name.clone();
    let what = match duty {
        Duty::Takes => "takes stars again",
        Duty::Cordoned => "gets no new stars",
        Duty::Draining => "is drained: its stars move elsewhere",
    };
    state.record(wall, format!("node `{name}` {what}"));
    changes.push(Change::NodeChanged { node });
    Ok(())
}

/// Says something of a machine that services have to put up with, or takes it back.
pub(crate) fn set_taint(
    state: &mut State,
    node: NodeId,
    name: &str,
    taint: Option<&Taint>,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    let text = taint.map_or_else(|| name.to_owned(), |taint| taint::shown(name, taint));
    taint::parse(&text)?;
    let record = node_mut(state, node)?;
    let there = record.taints.get(name);
    if there == taint {
        return match taint {
            Some(_) => Ok(()),
            None => Err(Problem::new(Code::NotFound, format!("node `{}` has no taint `{name}`", record.name))),
        };
    }
    if there.is_none() && record.taints.len() >= TAINTS_MAX {
        return Err(Problem::new(Code::InvalidValue, format!("a node has at most {TAINTS_MAX} taints")));
    }
    let what = match taint {
        Some(taint) => {
            record.taints.insert(name.to_owned(), taint.clone());
            let leave = if taint.evicts { ": who does not tolerate it moves elsewhere" } else { "" };
            format!("is tainted `{text}`{leave}")
        }
        None => {
            record.taints.remove(name);
            format!("is not tainted `{name}` any more")
        }
    };
    let what = format!("node `{}` {what}", record.name);
    state.record(wall, what);
    changes.push(Change::NodeChanged { node });
    Ok(())
}

/// Says how often what a machine has may be kept for stars, or that it is as for all others; without a machine, of all of which
/// nothing of their own is said. Nothing is taken from stars that are there: who has more kept than there is room gets no new ones.
pub(crate) fn set_overcommit(
    state: &mut State,
    node: Option<NodeId>,
    overcommit: Option<Overcommit>,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    overcommit.map_or(Ok(()), |overcommit| overcommit.check())?;
    let what = match node {
        Some(node) => {
            let record = node_mut(state, node)?;
            if std::mem::replace(&mut record.overcommit, overcommit) == overcommit {
                return Ok(());
            }
            match overcommit {
                Some(overcommit) => format!("node `{}`: {overcommit} may be kept for stars", record.name),
                None => format!("node `{}` is overcommitted as all others", record.name),
            }
        }
        None => {
            let overcommit = overcommit.unwrap_or_default();
            if std::mem::replace(&mut state.overcommit, overcommit) == overcommit {
                return Ok(());
            }
            format!("nodes of which nothing else is said: {overcommit} may be kept for stars")
        }
    };
    let usual = state.overcommit;
    let mut nodes: Vec<NodeId> = node.into_iter().collect();
    for (of, record) in state.nodes.iter_mut().filter(|(_, record)| record.standing != Standing::Left) {
        let overcommit = record.overcommit.unwrap_or(usual);
        if std::mem::replace(&mut record.facts.overcommit, overcommit) != overcommit && Some(*of) != node {
            nodes.push(*of);
        }
    }
    changes.push(Change::OvercommitChanged { nodes });
    state.record(wall, what);
    Ok(())
}

/// Nothing changes by it: the one that came later ends.
pub(crate) fn note_twin(state: &mut State, node: NodeId, address: &str, wall: WallTime) -> Applied {
    check_address(address)?;
    let name = node_mut(state, node)?.name.clone();
    state.record(wall, format!("node `{name}` was started once more at `{address}`, from a copy of its data folder"));
    Ok(())
}

pub(crate) fn note_leader(state: &mut State, node: NodeId, wall: WallTime) -> Applied {
    let name = node_mut(state, node)?.name.clone();
    state.record(wall, format!("node `{name}` leads"));
    Ok(())
}

fn end_stars(state: &mut State, node: NodeId, wall: WallTime, changes: &mut Vec<Change>) -> usize {
    let there = state.stars.on_node(node).filter(|star| star.phase != StarPhase::Ended);
    let stars: Vec<(StarId, bool)> = there.map(|star| (star.id, star.phase >= StarPhase::Draining)).collect();
    for (star, asked) in &stars {
        let exit = Some(Exit { cause: ExitCause::NodeLost, asked: *asked });
        let end = Transition { star: *star, phase: StarPhase::Ended, process: None, exit };
        let moved = transit(state, &end, wall, changes);
        changes.extend(moved);
    }
    stars.len()
}

/// Lets a node stand otherwise; gives its name, or nothing when it does not stand so that it could.
fn turn(
    state: &mut State,
    node: NodeId,
    (from, to): (Standing, Standing),
    wall: WallTime,
) -> Result<Option<Name>, Problem> {
    let record = node_mut(state, node)?;
    if record.standing != from {
        return Ok(None);
    }
    (record.standing, record.since) = (to, wall);
    Ok(Some(record.name.clone()))
}

fn check(address: &str, facts: &NodeFacts) -> Applied {
    check_address(address)?;
    facts.check()
}

fn check_address(address: &str) -> Applied {
    if address.len() > LABEL_MAX_BYTES || address.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Problem::new(Code::InvalidValue, "the address of a node is `host:port`"));
    }
    Ok(())
}

/// A node that has not left.
fn node_mut(state: &mut State, node: NodeId) -> Result<&mut NodeRecord, Problem> {
    let missing =
        || Problem::new(Code::NotFound, format!("no node `{node}`")).help("`rads c nodes` lists what there is");
    state.nodes.get_mut(&node).filter(|record| record.standing != Standing::Left).ok_or_else(missing)
}
