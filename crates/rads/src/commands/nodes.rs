//! `rads c nodes`, `drain`, `cordon`, `uncordon`, `taint`, `remove`: the machines of a constellation and what each is for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::time::Duration;

use api::constellation::MachineView;
use api::{Client, Health, NodeView, StarView};
use model::machine::{KEEP_OR_LEAVE, check_given_up, said_of_volumes};
use model::{Bytes, Code, Duty, Name, NodeId, Problem, ServiceKey, StarPhase, Taint, Taints, VolumeKey, VolumeThere};
use serde::Serialize;
use tokio::time::Instant;

use super::show;
use crate::cli::Form;
use crate::membership::{AddTaint, Drain, Nodes, OneNode, Remove, RemoveTaint};
use crate::screen::{self, Table};

/// Longest single wait at the agent. What membership sees does not move the index: it is shown this much later.
const WAIT_MS: u64 = 1_000;
/// Longest wait for the stars of a node to be elsewhere: each is replaced first, and finishes its requests then.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(600);

pub(crate) async fn nodes(client: &Client, args: Nodes, form: Form) -> Result<u8, Problem> {
    show::tell_age(client, form).await;
    let clears = form == Form::Text && std::io::stdout().is_terminal();
    let mut shown = None;
    let mut index = 0;
    loop {
        let mut nodes = all(client).await?;
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
            format!("{}{duty}{}", machine.health, tainted(&machine.taints)),
            format!("{}{part}", machine.role),
            machine.address.clone(),
            if place.is_empty() { "-".to_owned() } else { place.join("/") },
            if facts.program.is_empty() { "-".to_owned() } else { facts.program.clone() },
            machine.stars.to_string(),
            // It has not said what it is yet.
            if facts.memory.0 == 0 {
                "-".to_owned()
            } else {
                format!("{} of {}", Bytes(machine.memory_limits), facts.memory)
            },
        ]);
    }
    table
}

pub(crate) async fn drain(client: &Client, args: Drain, form: Form) -> Result<u8, Problem> {
    let id = find_there(client, &args.node).await?.machine.id;
    client.set_duty(id, Duty::Draining).await?;
    // Looked at when no star comes there any more.
    let node = find(client, &id.to_string()).await?;
    let stars = client.stars().await?;
    let (moving, stays) = (moving(&node.machine, &stars).len(), stays(&node.machine, &stars));
    for stay in &stays {
        screen::note(format!("{stay} on `{}`", node.machine.name));
    }
    if args.wait {
        drained(client, id).await.map_err(Problem::after_changes)?;
    }
    let text = match (args.wait, moving) {
        (_, 0) if !stays.is_empty() => "nothing moves: it has no other stars and gets none".to_owned(),
        (_, 0) => "drained: it has no stars and gets none".to_owned(),
        (true, stars) => format!("drained: {} moved elsewhere", screen::count(stars, "star")),
        (false, stars) => {
            let stars = screen::count(stars, "star");
            format!("draining: {stars} to move; `rads c nodes -w` shows it, `--wait` waits for it")
        }
    };
    told(client, Told { stays, ..Told::of(&node) }, &text, form).await
}

pub(crate) async fn cordon(client: &Client, args: OneNode, form: Form) -> Result<u8, Problem> {
    let node = find_there(client, &args.node).await?;
    client.set_duty(node.machine.id, Duty::Cordoned).await?;
    told(client, Told::of(&node), "cordoned: it keeps its stars and gets no new ones", form).await
}

pub(crate) async fn uncordon(client: &Client, args: OneNode, form: Form) -> Result<u8, Problem> {
    let node = find_there(client, &args.node).await?;
    client.set_duty(node.machine.id, Duty::Takes).await?;
    told(client, Told::of(&node), "takes stars", form).await
}

pub(crate) async fn taint(client: &Client, args: AddTaint, form: Form) -> Result<u8, Problem> {
    let node = find_there(client, &args.node).await?;
    let (name, value) = model::taint::parse(&args.taint)?;
    let taint = Taint { value, evicts: args.evict };
    client.set_taint(node.machine.id, &name, &taint).await?;
    let before = node.machine.taints.get(&name).filter(|before| before.value != taint.value);
    let instead = before.map(|before| format!(", no longer `{}`", model::taint::shown(&name, before)));
    let whom = match taint.evicts {
        true => "who does not tolerate it moves elsewhere",
        false => "who does not tolerate it gets no new stars there",
    };
    let text =
        format!("tainted `{}`{}: {whom}", model::taint::shown(&name, &taint), instead.as_deref().unwrap_or_default());
    told(client, Told::of(&node), &text, form).await
}

pub(crate) async fn untaint(client: &Client, args: RemoveTaint, form: Form) -> Result<u8, Problem> {
    let node = find_there(client, &args.node).await?;
    let (name, value) = model::taint::parse(&args.taint)?;
    if let (Some(there), true) = (node.machine.taints.get(&name), value.is_some())
        && there.value != value
    {
        let (machine, there) = (&node.machine.name, model::taint::shown(&name, there));
        let problem =
            Problem::new(Code::NotFound, format!("node `{machine}` is tainted `{there}`, not `{}`", args.taint));
        return Err(problem.help(format!("`rads c untaint {machine} {name}` takes it away, whatever its value is")));
    }
    client.remove_taint(node.machine.id, &name).await?;
    told(client, Told::of(&node), "not tainted any more", form).await
}

fn tainted(taints: &Taints) -> String {
    let shown: Vec<String> = taints.iter().map(|(name, taint)| model::taint::shown(name, taint)).collect();
    if shown.is_empty() { String::new() } else { format!(", tainted {}", shown.join("; ")) }
}

pub(crate) async fn remove(client: &Client, args: Remove, form: Form) -> Result<u8, Problem> {
    let node = find_there(client, &args.node).await?;
    client.remove_node(node.machine.id, args.force).await?;
    let given_up = node.machine.volumes_there.as_slice();
    let said = said_of_volumes(given_up);
    let text = said.map_or_else(|| "removed".to_owned(), |said| format!("removed; given up with it: {said}"));
    told(client, Told { given_up, ..Told::of(&node) }, &text, form).await
}

/// What a command about a node answers.
#[derive(Serialize)]
struct Told<'a> {
    node: NodeView,
    /// What lay there and is out of reach now.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    given_up: &'a [VolumeThere],
    /// What does not move elsewhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stays: Vec<Stay>,
}

impl Told<'_> {
    fn of(node: &NodeView) -> Self {
        Self { node: node.clone(), given_up: &[], stays: Vec::new() }
    }
}

async fn told(client: &Client, mut told: Told<'_>, text: &str, form: Form) -> Result<u8, Problem> {
    match form {
        Form::Text => screen::line(format!("{}: {text}", told.node.machine.name)),
        Form::Json => {
            let nodes = client.nodes().await?;
            if let Some(node) = nodes.into_iter().find(|node| node.machine.id == told.node.machine.id) {
                told.node = node;
            }
            screen::json(&told)?;
        }
    }
    Ok(0)
}

/// A service of which stars stay on a machine that is drained: volumes of it lie there.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Stay {
    service: ServiceKey,
    volumes: Vec<VolumeKey>,
    stars: usize,
}

impl std::fmt::Display for Stay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let volumes: Vec<String> = self.volumes.iter().map(|volume| format!("`{volume}`")).collect();
        let (what, lie) = if volumes.len() == 1 { ("volume", "lies") } else { ("volumes", "lie") };
        let (stars, volumes) = (screen::count(self.stars, "star"), volumes.join(", "));
        write!(
            f,
            "{stars} of `{}` {}: {what} {volumes} {lie}",
            self.service,
            if self.stars == 1 { "stays" } else { "stay" }
        )
    }
}

fn there<'s>(machine: &MachineView, stars: &'s [StarView]) -> impl Iterator<Item = &'s StarView> {
    let node = machine.id;
    stars.iter().filter(move |star| star.node == node && star.phase != StarPhase::Ended)
}

/// Its stars that can run elsewhere.
fn moving<'s>(machine: &MachineView, stars: &'s [StarView]) -> Vec<&'s StarView> {
    let tied: BTreeSet<&ServiceKey> = machine.volumes_there.iter().flat_map(|there| &there.services).collect();
    there(machine, stars).filter(|star| !tied.contains(&star.service)).collect()
}

/// Those that cannot.
fn stays(machine: &MachineView, stars: &[StarView]) -> Vec<Stay> {
    let mut tied: BTreeMap<&ServiceKey, Vec<VolumeKey>> = BTreeMap::new();
    for VolumeThere { volume, services } in &machine.volumes_there {
        services.iter().for_each(|service| tied.entry(service).or_default().push(volume.clone()));
    }
    let stay = |(service, volumes): (&ServiceKey, Vec<VolumeKey>)| {
        let stars = there(machine, stars).filter(|star| star.service == *service).count();
        (stars > 0).then(|| Stay { service: service.clone(), volumes, stars })
    };
    tied.into_iter().filter_map(stay).collect()
}

/// That a machine has all its stars moved but these, and what to do about them.
fn check_stays(machine: &Name, stays: &[Stay]) -> Result<(), Problem> {
    let Some(first) = stays.first() else { return Ok(()) };
    let more = match stays.len() - 1 {
        0 => String::new(),
        more => format!("; {} more stay", screen::count(more, "service")),
    };
    let message = format!("not all of node `{machine}` runs elsewhere: {first} on it and nowhere else{more}");
    let help = format!(
        "while its machine is off, `{0}` is away, and back with it: `rads c stop {0}` ends it in good order before; \
         `rads c uncordon {machine}` lets stars come again",
        first.service
    );
    Err(Problem::new(Code::Conflict, message).help(help))
}

/// Waits until no star runs on a node any more that could run elsewhere. Says what keeps them there.
///
/// # Errors
/// `Conflict` when others are left, which stay.
pub(super) async fn drained(client: &Client, node: NodeId) -> Result<(), Problem> {
    let deadline = Instant::now() + DRAIN_TIMEOUT;
    let mut said = None;
    loop {
        let index = client.index(0, 0).await?;
        let machine = find(client, &node.to_string()).await?.machine;
        let stars = client.stars().await?;
        let left = moving(&machine, &stars);
        let Some(first) = left.first() else { return check_stays(&machine.name, &stays(&machine, &stars)) };
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
    check_given_up(&own.machine.name, &own.machine.volumes_there, KEEP_OR_LEAVE)
}

/// Every node, or that there is no constellation.
async fn all(client: &Client) -> Result<Vec<NodeView>, Problem> {
    let nodes = client.nodes().await?;
    if nodes.is_empty() { Err(client.status().await?.alone()) } else { Ok(nodes) }
}

/// The one that answers.
pub(super) async fn own(client: &Client) -> Result<NodeView, Problem> {
    let none = || Problem::new(Code::Internal, "the node that answers is not among those it names");
    all(client).await?.into_iter().find(|node| node.answers).ok_or_else(none)
}

/// The node of that name or id; one that is there before one that was.
pub(super) async fn find(client: &Client, name: &str) -> Result<NodeView, Problem> {
    pick(&all(client).await?, name)
}

/// The same, and it has not left.
pub(super) async fn find_there(client: &Client, name: &str) -> Result<NodeView, Problem> {
    has_not_left(pick(&all(client).await?, name)?, name)
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
pub(super) mod tests {
    use super::*;

    fn star(service: &str, ordinal: u32, node: u64, phase: StarPhase) -> StarView {
        StarView {
            id: model::StarId(u64::from(ordinal)),
            name: format!("{service}-{ordinal}"),
            service: service.parse().unwrap(),
            ordinal,
            app: service.parse().unwrap(),
            node: NodeId(node),
            node_name: None,
            phase,
            outdated: false,
            port: None,
            pid: None,
            start_time: None,
            since: None,
            problem: None,
            exit: None,
            restarts: 0,
        }
    }

    pub(in crate::commands) fn machine(volumes_there: Vec<VolumeThere>) -> MachineView {
        MachineView {
            taints: Taints::new(),
            id: NodeId(3),
            name: "c".parse().unwrap(),
            role: model::NodeRole::Controller,
            health: Health::Alive,
            duty: Duty::Draining,
            address: String::new(),
            facts: Default::default(),
            admitted: model::WallTime(0),
            since: model::WallTime(0),
            stars: 0,
            ready: 0,
            memory_limits: 0,
            volumes: Vec::new(),
            volumes_there,
        }
    }

    #[test]
    fn what_stays_on_a_drained_machine_is_told_with_its_volume_and_not_waited_for() {
        let volume = |name: &str, services: &[&str]| VolumeThere {
            volume: name.parse().unwrap(),
            services: services.iter().map(|name| name.parse().unwrap()).collect(),
        };
        let machine =
            machine(vec![volume("visits", &["book", "report"]), volume("pages", &["book"]), volume("x", &[])]);
        let stars = [
            star("book", 1, 3, StarPhase::Ready),
            star("book", 2, 3, StarPhase::Ended),
            star("hello", 1, 3, StarPhase::Ready),
            star("hello", 2, 2, StarPhase::Ready),
            star("report", 1, 3, StarPhase::Ended),
        ];
        let moving: Vec<&str> = moving(&machine, &stars).iter().map(|star| star.name.as_str()).collect();
        assert_eq!(moving, ["hello-1"]);
        let stays = stays(&machine, &stars);
        let told: Vec<String> = stays.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["1 star of `book` stays: volumes `visits`, `pages` lie"]);
        let problem = check_stays(&machine.name, &stays).unwrap_err();
        assert_eq!(problem.code, Code::Conflict);
        assert!(problem.help.unwrap().contains("rads c stop book"));
        assert_eq!(check_stays(&machine.name, &[]), Ok(()));
    }

    fn seen(id: u64, name: &str, health: Health) -> NodeView {
        let machine = MachineView { id: NodeId(id), name: name.parse().unwrap(), health, ..machine(Vec::new()) };
        NodeView { machine, leads: false, votes: false, answers: false }
    }

    #[test]
    fn who_has_left_is_told_by_the_name_that_was_typed() {
        let nodes = [seen(1, "a", Health::Alive), seen(2, "b", Health::Left), seen(3, "a", Health::Left)];
        let find = |name: &str| pick(&nodes, name).and_then(|node| has_not_left(node, name));
        assert_eq!(find("a").unwrap().machine.id, NodeId(1), "not the one that was");
        let left = find("b").unwrap_err();
        assert_eq!((left.code, left.message.as_str()), (Code::NotFound, "node `b` has left the constellation already"));
        let id = NodeId(2).to_string();
        assert!(find(&id).unwrap_err().message.contains(&id));
        assert_eq!(find("c").unwrap_err().message, "no node `c`");
    }
}
