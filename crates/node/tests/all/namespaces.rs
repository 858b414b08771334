//! When a node that leads warns of the end of a namespace, when it brings it about, and that no other does.

use std::time::Duration;

use model::{Bytes, Name, NamespaceChange, NodeFacts, NodeId, NodeRole, Time, WallTime};
use node::{Effect, Event, Node, NodeConfig};
use state::{Command, State};

const MINUTE: Duration = Duration::from_secs(60);

/// A node, what it proposes, and two clocks: one that goes on, and one that people set.
struct Desk {
    node: Node,
    now: Time,
    wall: WallTime,
    index: u64,
    effects: Vec<Effect>,
}

impl Desk {
    fn of(state: State) -> Self {
        let memory = Bytes(0);
        let config = NodeConfig { node: NodeId(1), seed: 1, rootless: false, memory, cores: 2, cpus: None };
        let index = state.index;
        let wall = WallTime(1_000_000);
        let (now, effects) = (Time(1_000_000_000_000), Vec::new());
        let mut desk = Self { node: Node::new(config, state), now, wall, index, effects };
        desk.tell(Event::NurseryUp { running: Vec::new(), ended: Vec::new() });
        desk
    }

    /// A machine that is alone.
    fn alone() -> Self {
        Self::of(State::default())
    }

    /// One of two nodes.
    fn among_others() -> Self {
        let mut state = State::default();
        let wall = WallTime(1);
        let (name, address) = (|text: &str| text.parse().unwrap(), || "10.0.0.1:7946".to_owned());
        let facts = || Box::new(NodeFacts { cores: 2, ..NodeFacts::default() });
        let found = Command::Found { cluster: name("test"), name: name("a"), address: address(), facts: facts(), wall };
        state::apply(&mut state, 1, &found);
        let (role, ticket) = (NodeRole::Controller, None);
        let admit = Command::AdmitNode { name: name("b"), role, address: address(), facts: facts(), wall, ticket };
        state::apply(&mut state, 2, &admit);
        Self::of(state)
    }

    fn tell(&mut self, event: Event) {
        self.node.handle(self.now, self.wall, event, &mut self.effects);
    }

    fn write(&mut self, command: Command) {
        self.index += 1;
        self.tell(Event::Committed { index: self.index, command });
    }

    /// What is proposed about namespaces, and that it is written.
    fn writes(&mut self) -> Vec<Command> {
        let mut all = Vec::new();
        loop {
            let effects = std::mem::take(&mut self.effects);
            let of_namespaces = effects.into_iter().filter_map(|effect| match effect {
                Effect::Propose { command, .. } => {
                    let is = matches!(command, Command::WarnNamespace { .. } | Command::EndNamespace { .. });
                    is.then_some(command)
                }
                _ => None,
            });
            let commands: Vec<Command> = of_namespaces.collect();
            if commands.is_empty() {
                return all;
            }
            commands.iter().for_each(|command| self.write(command.clone()));
            all.extend(commands);
        }
    }

    /// Lets time pass on both clocks.
    fn wait(&mut self, time: Duration) -> Vec<Command> {
        let until = self.now + time;
        let mut all = self.writes();
        while let Some(at) = self.node.next_deadline().filter(|at| *at <= until) {
            let at = self.now.max(at);
            self.pass(at);
            self.tell(Event::Tick);
            all.extend(self.writes());
        }
        self.pass(until);
        all
    }

    fn pass(&mut self, at: Time) {
        self.wall = WallTime(self.wall.0 + u64::try_from(at.since(self.now).as_millis()).unwrap());
        self.now = at;
    }

    fn make(&mut self, minutes: u64) {
        let change = NamespaceChange { ttl_ms: Some(Some(minutes * 60_000)), ..NamespaceChange::default() };
        self.write(Command::SetNamespace { namespace: dev(), change, new: true, wall: self.wall });
    }

    fn is_there(&self) -> bool {
        self.node.state().namespaces.contains_key(&dev())
    }
}

fn dev() -> Name {
    "dev".parse().unwrap()
}

fn told(commands: &[Command]) -> Vec<&'static str> {
    let kind = |command: &Command| match command {
        Command::WarnNamespace { .. } => "warned",
        _ => "ended",
    };
    commands.iter().map(kind).collect()
}

#[test]
fn a_namespace_is_warned_of_once_and_ends_when_its_time_is_over() {
    let mut desk = Desk::alone();
    desk.make(20);
    assert_eq!(told(&desk.wait(MINUTE * 17)), [""; 0]);
    assert_eq!(told(&desk.wait(MINUTE * 2)), ["warned"], "two minutes before: a tenth of its time");
    assert!(desk.is_there());
    assert_eq!(told(&desk.wait(MINUTE * 2)), ["ended"]);
    assert!(!desk.is_there());
    assert_eq!(told(&desk.wait(MINUTE * 60)), [""; 0]);
}

#[test]
fn what_a_machine_that_is_alone_keeps_beside_the_log_is_told_to_go() {
    let mut desk = Desk::alone();
    desk.write(Command::DeleteNamespace { namespace: dev(), force: true, wall: desk.wall });
    let gone = Effect::NamespaceRemoved { namespace: dev() };
    assert!(desk.effects.contains(&gone), "{:?}", desk.effects);
}

#[test]
fn a_clock_that_is_set_is_noticed_within_a_minute() {
    let mut desk = Desk::alone();
    desk.make(600);
    assert_eq!(told(&desk.wait(MINUTE)), [""; 0]);
    desk.wall = WallTime(desk.wall.0 + 600 * 60_000);
    assert_eq!(told(&desk.wait(MINUTE)), ["ended"]);
}

#[test]
fn only_who_leads_brings_an_end_about_and_who_leads_next_goes_on_with_it() {
    let mut desk = Desk::among_others();
    desk.make(10);
    assert_eq!(told(&desk.wait(MINUTE * 11)), [""; 0]);
    desk.tell(Event::Leads { leads: true });
    assert_eq!(told(&desk.writes()), ["ended"]);
}

#[test]
fn what_could_not_be_written_is_tried_again() {
    let mut desk = Desk::alone();
    desk.make(1);
    desk.now = desk.now + MINUTE;
    desk.wall = WallTime(desk.wall.0 + 60_000);
    desk.effects.clear();
    desk.tell(Event::Tick);
    let proposal = desk.effects.iter().find_map(|effect| match effect {
        Effect::Propose { proposal, command: Command::EndNamespace { .. } } => Some(*proposal),
        _ => None,
    });
    desk.effects.clear();
    let problem = model::Problem::new(model::Code::DiskFull, "full");
    desk.tell(Event::ProposalFailed { proposal: proposal.unwrap(), problem });
    assert!(desk.is_there());
    assert_eq!(told(&desk.wait(Duration::from_secs(2))), ["ended"]);
}
