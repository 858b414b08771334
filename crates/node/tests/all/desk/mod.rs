//! A node of a constellation on a desk: what it proposes is written when a test says so.
#![allow(dead_code)] // Each test program uses some of it.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{
    AppSpec, BundleId, Bytes, ContentHash, ExitCause, Limits, Network, NodeFacts, NodeId, NodeRole, Probe, ProbeKind,
    Program, RestartPolicy, ServiceSpec, Standing, StarId, StarPhase, StarTemplate, Time, VolumeMount, WallTime,
};
use node::{Effect, Event, Node, NodeConfig};
use state::{Command, State, Transition};

/// Node 2 of three; node 1 founded the constellation. What it proposes is written when the test says so.
pub(crate) struct Desk {
    pub(crate) node: Node,
    pub(crate) now: Time,
    pub(crate) index: u64,
    pub(crate) effects: Vec<Effect>,
}

impl Desk {
    /// `stars` of `web` are wanted, whose volume, if it has one, lies on node 3.
    pub(crate) fn new(stars: u32, volume: bool) -> Self {
        Self::of_memory(Bytes(0), stars, volume)
    }

    /// Its own machine has so much memory, and looks how much is left.
    pub(crate) fn of_memory(memory: Bytes, stars: u32, volume: bool) -> Self {
        let mut state = State::default();
        let wall = WallTime(1);
        let facts = || Box::new(NodeFacts { cores: 2, ..NodeFacts::default() });
        let name = |text: &str| text.parse().unwrap();
        let address = || "10.0.0.1:7946".to_owned();
        let mut commands =
            vec![Command::Found { cluster: name("test"), name: name("a"), address: address(), facts: facts(), wall }];
        for other in ["b", "c"] {
            let role = NodeRole::Controller;
            commands.push(Command::AdmitNode {
                name: name(other),
                role,
                address: address(),
                facts: facts(),
                wall,
                ticket: None,
            });
        }
        let mount = VolumeMount { volume: name("data"), path: "/data".to_owned(), size: None };
        let volumes = if volume { vec![mount] } else { Vec::new() };
        let services = [(name("web"), web(stars, volumes))].into();
        commands.push(Command::PutApp { spec: AppSpec { app: "shop".parse().unwrap(), services }, base: None, wall });
        for (index, command) in (1..).zip(&commands) {
            state::apply(&mut state, index, command);
        }
        if volume {
            state.homes.insert("data".parse().unwrap(), NodeId(3));
        }
        let config = NodeConfig { node: NodeId(2), seed: 1, rootless: false, memory, cores: 2, cpus: None };
        let index = state.index;
        let mut desk =
            Self { node: Node::new(config, state), now: Time(1_000_000_000_000), index, effects: Vec::new() };
        desk.tell(Event::NurseryUp { running: Vec::new(), ended: Vec::new() });
        desk
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.node.handle(self.now, WallTime(self.now.0 / 1_000_000), event, &mut self.effects);
    }

    /// What was proposed since this was asked last, oldest first.
    pub(crate) fn proposed(&mut self) -> Vec<Command> {
        let effects = std::mem::take(&mut self.effects);
        let (proposals, others) = effects.into_iter().partition(|effect| matches!(effect, Effect::Propose { .. }));
        self.effects = others;
        let command = |effect| match effect {
            Effect::Propose { command, .. } => command,
            _ => unreachable!(),
        };
        proposals.into_iter().map(command).collect()
    }

    pub(crate) fn write(&mut self, command: Command) {
        self.index += 1;
        self.tell(Event::Committed { index: self.index, command });
    }

    /// Writes everything proposed, and what that leads to.
    pub(crate) fn write_all(&mut self) {
        loop {
            let commands = self.proposed();
            if commands.is_empty() {
                return;
            }
            commands.into_iter().for_each(|command| self.write(command));
        }
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.node.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.tell(Event::Tick);
        }
        self.now = until;
    }

    pub(crate) fn on(&self, node: u64) -> Vec<StarId> {
        let stars = self.node.state().stars.values();
        let there = stars.filter(|star| star.node == NodeId(node) && star.phase != StarPhase::Ended);
        there.map(|star| star.id).collect()
    }

    pub(crate) fn standing(&self, node: u64) -> Standing {
        self.node.state().nodes[&NodeId(node)].standing
    }

    pub(crate) fn kills(&mut self) -> Vec<StarId> {
        let kill = |effect: &Effect| match effect {
            Effect::Kill { star } => Some(*star),
            _ => None,
        };
        let kills = self.effects.iter().filter_map(kill).collect();
        self.effects.clear();
        kills
    }
}

/// Three machines that have 1,000 MiB each, of which this one leads.
pub(crate) fn with_room() -> Desk {
    let mut desk = Desk::new(0, false);
    for node in 1..=3 {
        let facts = Box::new(NodeFacts { cores: 2, memory: Bytes::mib(1_000), ..NodeFacts::default() });
        desk.write(Command::DescribeNode { node: NodeId(node), address: "a:1".to_owned(), facts, wall: WallTime(1) });
    }
    desk.tell(Event::Leads { leads: true });
    desk.write_all();
    desk
}

pub(crate) fn web(instances: u32, volumes: Vec<VolumeMount>) -> ServiceSpec {
    ServiceSpec {
        placement: Default::default(),
        update: Default::default(),
        job: None,
        hold: None,
        template: StarTemplate {
            program: Program::Script("x.rads".to_owned()),
            args: Vec::new(),
            bundle: BundleId(ContentHash([0; 32])),
            rootfs: None,
            env: BTreeMap::new(),
            limits: Limits { memory: None, ..Limits::DEFAULT },
            volumes,
            network: Network::None,
            port: None,
            probe: Probe::new(ProbeKind::Started),
            restart: RestartPolicy::Always,
            grace_ms: 1_000,
            stop_signal: None,
            deadline_ms: None,
            hooks: Default::default(),
            health: Default::default(),
            interior: Default::default(),
            weakened: Default::default(),
            access: None,
            reserve: Default::default(),
            checkpoint: false,
            singleton: false,
        },
        instances,
        entry: None,
    }
}

/// Every star that was assigned runs at once, and every one that is to go ends.
pub(crate) fn settle(desk: &mut Desk) {
    for _ in 0..20 {
        desk.write_all();
        let mut changes: Vec<Transition> = Vec::new();
        let mut own = Vec::new();
        for star in desk.node.state().stars.values() {
            if star.node == NodeId(2) {
                if star.phase == StarPhase::Assigned {
                    own.push(Event::StarStarted { star: star.id, pid: 7, start_time: 7 });
                }
                continue;
            }
            let (phase, exit) = match star.phase {
                StarPhase::Assigned => (StarPhase::Ready, None),
                StarPhase::Draining => (StarPhase::Ended, Some(model::Exit { cause: ExitCause::Code(0), asked: true })),
                _ => continue,
            };
            let process = (phase == StarPhase::Ready).then_some((7, 7));
            changes.push(Transition { star: star.id, phase, process, exit });
        }
        desk.effects.retain(|effect| {
            let event = match effect {
                Effect::Drain { star, .. } => Event::Drained { star: *star },
                Effect::Signal { star, .. } | Effect::Kill { star } => {
                    Event::StarExited { star: *star, cause: ExitCause::Code(0) }
                }
                _ => return true,
            };
            own.push(event);
            false
        });
        if changes.is_empty() && own.is_empty() {
            return;
        }
        own.into_iter().for_each(|event| desk.tell(event));
        desk.write(Command::Transitions { changes, wall: WallTime(3) });
    }
    panic!("it does not come to rest");
}
