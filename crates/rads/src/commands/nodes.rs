//! `rads c nodes`, `drain`, `cordon`, `uncordon`, `remove`: the machines of a constellation and what each is for.

use std::io::IsTerminal;
use std::time::Duration;

use api::{Client, Health, NodeView, StarView};
use model::machine::{check_given_up, said_of_volumes};
use model::{Bytes, Code, Duty, NodeId, Problem, StarPhase, VolumeThere};
use serde::Serialize;
use tokio::time::Instant;

use crate::cli::Form;
use crate::membership::{Drain, Nodes, OneNode, Remove};
use crate::screen::{self, Table};

/// Longest single wait at the agent. What membership sees does not move the index: it is shown this much later.
const WAIT_MS: u64 = 1_000;
/// Longest wait for the stars of a node to be elsewhere: each is replaced first, and finishes its requests then.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(600);

pub(crate) async fn nodes(client: &Client, args: Nodes, form: Form) -> Result<u8, Problem> {
    let clears = form == Form::Text && std::io::stdout().is_terminal();
    let mut shown = None;
    let mut index = 0;
    loop {
        let mut nodes = there(client).await?;
        nodes.retain(|node| args.all || node.is_of_it());
        let text = match form {
            Form::Json if args.watch => serde_json::to_string(&nodes).unwrap_or_default() + "\n",
            Form::Json => {
                screen::json(&nodes)?;
                return Ok(0);
            }
            Form::Text => table(&nodes).render(),
        };
        if shown.as_ref() != Some(&text) {
            let between = match (clears && args.watch, &shown) {
                // Home, and clear from there: what was longer leaves nothing behind.
                (true, _) => "\x1b[H\x1b[J",
                (false, Some(_)) if form == Form::Text => "\n",
                _ => "",
            };
            screen::print(&format!("{between}{text}"));
            shown = Some(text);
        }
        if !args.watch {
            return Ok(0);
        }
        index = tokio::select! {
            moved = client.index(index, WAIT_MS) => moved?,
            _ = tokio::signal::ctrl_c() => return Ok(0),
        };
    }
}

fn table(nodes: &[NodeView]) -> Table {
    let mut table = Table::new(&["NODE", "STATE", "ROLE", "ADDRESS", "PLACE", "VERSION", ">STARS", ">MEMORY"]);
    for NodeView { machine, leads, votes, .. } in nodes {
        let part = match (leads, votes) {
            (true, _) => ", leads",
            (false, true) => ", votes",
            (false, false) => "",
        };
        let duty = match machine.duty {
            _ if machine.health == Health::Left => "",
            Duty::Takes => "",
            Duty::Cordoned => ", cordoned",
            Duty::Draining => ", draining",
        };
        let facts = &machine.facts;
        let place: Vec<&str> =
            [&facts.region, &facts.zone, &facts.rack].into_iter().flatten().map(|name| name.as_str()).collect();
        table.row([
            machine.name.to_string(),
            format!("{}{duty}", machine.health),
            format!("{}{part}", machine.role),
            machine.address.clone(),
            if place.is_empty() { "-".to_owned() } else { place.join("/") },
            if facts.program.is_empty() { "-".to_owned() } else { facts.program.clone() },
            machine.stars.to_string(),
            format!("{} of {}", Bytes(machine.memory_limits), facts.memory),
        ]);
    }
    table
}

pub(crate) async fn drain(client: &Client, args: Drain, form: Form) -> Result<u8, Problem> {
    let node = find_there(client, &args.node).await?;
    client.set_duty(node.machine.id, Duty::Draining).await?;
    if args.wait {
        drained(client, node.machine.id).await.map_err(Problem::after_changes)?;
    }
    let text = match (args.wait, node.machine.stars) {
        (_, 0) => "drained: it has no stars and gets none".to_owned(),
        (true, stars) => format!("drained: {} moved elsewhere", screen::count(stars as usize, "star")),
        (false, stars) => {
            let stars = screen::count(stars as usize, "star");
            format!("draining: {stars} to move; `rads c nodes -w` shows it, `--wait` waits for it")
        }
    };
    told(client, &node, &text, form).await
}

pub(crate) async fn cordon(client: &Client, args: OneNode, form: Form) -> Result<u8, Problem> {
    let node = find_there(client, &args.node).await?;
    client.set_duty(node.machine.id, Duty::Cordoned).await?;
    told(client, &node, "cordoned: it keeps its stars and gets no new ones", form).await
}

pub(crate) async fn uncordon(client: &Client, args: OneNode, form: Form) -> Result<u8, Problem> {
    let node = find_there(client, &args.node).await?;
    client.set_duty(node.machine.id, Duty::Takes).await?;
    told(client, &node, "takes stars", form).await
}

pub(crate) async fn remove(client: &Client, args: Remove, form: Form) -> Result<u8, Problem> {
    let node = find_there(client, &args.node).await?;
    client.remove_node(node.machine.id, args.force).await?;
    let given_up = said_of_volumes(&node.machine.volumes_there);
    let text = given_up.map_or_else(|| "removed".to_owned(), |said| format!("removed; given up with it: {said}"));
    told(client, &node, &text, form).await
}

#[derive(Serialize)]
struct Told<'a> {
    node: Option<&'a NodeView>,
    /// What lay there and is out of reach now.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    given_up: &'a [VolumeThere],
}

async fn told(client: &Client, before: &NodeView, text: &str, form: Form) -> Result<u8, Problem> {
    match form {
        Form::Text => screen::line(format!("{}: {text}", before.machine.name)),
        Form::Json => {
            let nodes = client.nodes().await?;
            let node = nodes.iter().find(|node| node.machine.id == before.machine.id);
            let is_gone = node.is_some_and(|node| node.machine.health == Health::Left);
            let given_up = if is_gone { before.machine.volumes_there.as_slice() } else { &[] };
            screen::json(&Told { node, given_up })?;
        }
    }
    Ok(0)
}

/// Waits until no star runs on a node any more. Says what keeps them there.
pub(super) async fn drained(client: &Client, node: NodeId) -> Result<(), Problem> {
    let deadline = Instant::now() + DRAIN_TIMEOUT;
    let mut said = None;
    loop {
        let index = client.index(0, 0).await?;
        let stars = client.stars().await?;
        let left: Vec<&StarView> =
            stars.iter().filter(|star| star.node == node && star.phase != StarPhase::Ended).collect();
        let Some(first) = left.first() else { return Ok(()) };
        let problem = client.service(&first.service).await.ok().and_then(|service| service.problem);
        let line = match &problem {
            Some(problem) => format!("waiting for {}: {problem}", screen::count(left.len(), "star")),
            None => format!("waiting for {}", screen::count(left.len(), "star")),
        };
        if said.as_ref() != Some(&line) {
            screen::note(&line);
            said = Some(line);
        }
        if Instant::now() > deadline {
            let message = format!("star `{}` is still there after {} s", first.name, DRAIN_TIMEOUT.as_secs());
            return Err(Problem::new(Code::Timeout, message).help("it stays told to go; see `rads c status`"));
        }
        client.index(index, WAIT_MS).await?;
    }
}

/// Refuses to let this machine go with whose disk something would be gone for good.
pub(super) fn may_be_given_up(own: &NodeView) -> Result<(), Problem> {
    let help = "keep it with `rads c snapshot`, on this machine's disk, or give it up with `rads c leave --force`";
    check_given_up(&own.machine.name, &own.machine.volumes_there, help)
}

/// Every node, or that there is no constellation.
async fn there(client: &Client) -> Result<Vec<NodeView>, Problem> {
    let nodes = client.nodes().await?;
    if nodes.is_empty() { Err(alone()) } else { Ok(nodes) }
}

pub(super) fn alone() -> Problem {
    Problem::new(Code::Conflict, "this machine is in no constellation")
        .help("`rads c init --cluster NAME` founds one, `rads c join HOST:PORT` joins one")
}

/// The node of that name or id; one that is there before one that was.
pub(super) async fn find(client: &Client, name: &str) -> Result<NodeView, Problem> {
    pick(&there(client).await?, name)
}

/// The same, and it has not left.
async fn find_there(client: &Client, name: &str) -> Result<NodeView, Problem> {
    has_not_left(pick(&there(client).await?, name)?, name)
}

fn pick(nodes: &[NodeView], name: &str) -> Result<NodeView, Problem> {
    let is = |node: &&NodeView| node.machine.name.as_str() == name || node.machine.id.to_string() == name;
    let found = nodes.iter().filter(is).min_by_key(|node| node.machine.health == Health::Left);
    found.cloned().ok_or_else(|| {
        Problem::new(Code::NotFound, format!("no node `{}`", name.escape_debug())).help("`rads c nodes` lists them")
    })
}

fn has_not_left(node: NodeView, name: &str) -> Result<NodeView, Problem> {
    if node.is_of_it() {
        return Ok(node);
    }
    Err(Problem::new(Code::NotFound, format!("node `{name}` has left the constellation already"))
        .help("`rads c nodes` lists those that are there, `rads c nodes --all` also those that were"))
}

#[cfg(test)]
mod tests {
    use model::{NodeFacts, NodeRole, WallTime};

    use super::*;

    fn node(id: u64, name: &str, health: Health) -> NodeView {
        let machine = api::MachineView {
            id: NodeId(id),
            name: name.parse().unwrap(),
            role: NodeRole::Controller,
            health,
            duty: Duty::Takes,
            address: String::new(),
            facts: NodeFacts::default(),
            admitted: WallTime(0),
            since: WallTime(0),
            stars: 0,
            ready: 0,
            memory_limits: 0,
            volumes: Vec::new(),
            volumes_there: Vec::new(),
        };
        NodeView { machine, leads: false, votes: false, answers: false }
    }

    #[test]
    fn who_has_left_is_told_by_the_name_that_was_typed() {
        let nodes = [node(1, "a", Health::Alive), node(2, "b", Health::Left), node(3, "a", Health::Left)];
        let find = |name: &str| pick(&nodes, name).and_then(|node| has_not_left(node, name));
        assert_eq!(find("a").unwrap().machine.id, NodeId(1), "not the one that was");
        let left = find("b").unwrap_err();
        assert_eq!((left.code, left.message.as_str()), (Code::NotFound, "node `b` has left the constellation already"));
        let id = NodeId(2).to_string();
        assert!(find(&id).unwrap_err().message.contains(&id));
        assert_eq!(find("c").unwrap_err().message, "no node `c`");
    }
}
