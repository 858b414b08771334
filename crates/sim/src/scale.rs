//! How far the decisions carry: thousands of machines and a million stars, in one thread.
//!
//! Two of the machines are whole nodes as they ship: one that leads, and one worker. Both hold the whole state and decide all that they
//! would decide. What the other machines write is made here as the worker writes it: that stars run, or have ended, one command a
//! machine. There is no network, no disk and no star; what is measured is processor time of the decisions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use model::{
    AppSpec, BundleId, ContentHash, Exit, ExitCause, Limits, Network, NodeFacts, NodeId, NodeRole, Probe, ProbeKind,
    Program, RequestId, RestartPolicy, ServiceSpec, StarId, StarPhase, StarTemplate, Time, WallTime,
};
use node::{Effect, Event, Node, NodeConfig, Request};
use state::{Command, State, Transition};

use crate::chance::Chance;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// At least two.
    pub nodes: u64,
    pub apps: u64,
    /// Services of each app.
    pub services: u64,
    /// Stars of each service.
    pub stars: u64,
}

impl Size {
    pub fn all_stars(&self) -> u64 {
        self.apps * self.services * self.stars
    }
}

/// Processor time of decisions, and how many commands were written meanwhile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    pub leader: Duration,
    pub worker: Duration,
    pub commands: u64,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Leader,
    Worker,
}

pub struct Scale {
    pub size: Size,
    /// Tells how much processor time was used so far.
    meter: fn() -> Duration,
    chance: Chance,
    now: Time,
    index: u64,
    leader: Node,
    worker: Node,
    worker_config: NodeConfig,
    /// Proposed, and to be written in this order.
    proposed: VecDeque<Command>,
    /// What each of the other machines writes next.
    said: BTreeMap<NodeId, Vec<Transition>>,
    cost: Cost,
    requests: u64,
    refused: Option<String>,
}

impl Scale {
    /// Machines without stars.
    pub fn new(size: Size, meter: fn() -> Duration) -> Self {
        let founded = founded(size.nodes);
        let config = |node: u64| {
            let (memory, cores) = (model::Bytes::mib(65_536), 32);
            NodeConfig { node: NodeId(node), seed: node, rootless: false, memory, cores, cpus: None }
        };
        let worker_config = config(size.nodes);
        let mut this = Self {
            size,
            meter,
            chance: Chance::new(1),
            now: Time(1_000_000_000),
            index: founded.index,
            leader: Node::new(config(1), founded.clone()),
            worker: Node::new(worker_config, founded),
            worker_config,
            proposed: VecDeque::new(),
            said: BTreeMap::new(),
            cost: Cost::default(),
            requests: 0,
            refused: None,
        };
        for who in [Who::Leader, Who::Worker] {
            this.tell(who, Event::NurseryUp { running: Vec::new(), ended: Vec::new() });
        }
        this.tell(Who::Leader, Event::Leads { leads: true });
        this
    }

    /// What it has cost since this was asked last.
    pub fn cost(&mut self) -> Cost {
        std::mem::take(&mut self.cost)
    }

    /// Puts one app after the other, each when all stars of the one before run.
    ///
    /// # Errors
    /// When a change is refused, or stars do not run where they should.
    pub fn deploy(&mut self) -> Result<(), String> {
        for app in 1..=self.size.apps {
            self.requests += 1;
            let request = Request::PutApp { spec: app_spec(app, self.size.services, self.size.stars), base: None };
            self.tell(Who::Leader, Event::Request { id: RequestId(self.requests), request });
            self.settle();
            self.check(app * self.size.services * self.size.stars)?;
        }
        Ok(())
    }

    /// A second in which every machine reports, and so many stars end by themselves, to be replaced.
    ///
    /// # Errors
    /// When not all of them are.
    pub fn second(&mut self, crashes: u64) -> Result<(), String> {
        self.pass(Duration::from_millis(500));
        self.report(None);
        let mut fallen = BTreeSet::new();
        while (fallen.len() as u64) < crashes {
            // Ids are random, so that any number is about as far from the next of them as any other.
            let from = StarId(self.chance.number());
            let next = self.leader.state().stars.range(from..).map(|(_, star)| star);
            let ours = [self.leader.id(), self.worker.id()];
            let falls = |star: &&state::StarRecord| star.phase == StarPhase::Ready && !ours.contains(&star.node);
            if let Some(star) = next.take(16).find(falls) {
                let exit = Some(Exit { cause: ExitCause::Code(1), asked: false });
                let end = Transition { star: star.id, phase: StarPhase::Ended, process: None, exit };
                if fallen.insert(star.id) {
                    self.said.entry(star.node).or_default().push(end);
                }
            }
        }
        self.settle();
        // A star that ended is replaced a moment later.
        self.pass(Duration::from_millis(500));
        self.settle();
        self.check(self.size.all_stars())
    }

    /// A machine dies: it is missed, given up when its lease is over, and its stars run elsewhere.
    ///
    /// # Errors
    /// When it is not given up, or its stars do not run.
    pub fn death(&mut self, dead: NodeId) -> Result<(), String> {
        for who in [Who::Leader, Who::Worker] {
            self.tell(who, Event::Seems { node: dead, alive: false });
        }
        for _ in 0..node::LEASE.as_secs() + 1 {
            self.pass(Duration::from_secs(1));
            self.report(Some(dead));
        }
        self.settle();
        if self.leader.state().stars.load_of(dead).is_some_and(|load| load.stars > 0) {
            return Err(format!("node {dead} was not given up"));
        }
        self.check(self.size.all_stars())
    }

    /// The worker comes to lead instead of the one that does, and looks at everything.
    pub fn succeed(&mut self) {
        self.tell(Who::Leader, Event::Leads { leads: false });
        self.tell(Who::Worker, Event::Leads { leads: true });
        self.settle();
        self.tell(Who::Worker, Event::Leads { leads: false });
        self.tell(Who::Leader, Event::Leads { leads: true });
        self.settle();
    }

    /// An agent starts with the state as it is: what it decides first.
    pub fn start_again(&mut self) {
        let (state, config) = (self.worker.state().clone(), self.worker_config);
        let before = (self.meter)();
        self.worker = Node::new(config, state);
        self.cost.worker += (self.meter)().saturating_sub(before);
        let on_it = self.worker.state().stars.on_node(config.node).filter(|star| star.phase != StarPhase::Ended);
        let running = on_it.map(|star| node::RunningStar {
            star: star.id,
            generation: star.generation,
            pid: star.process.map_or(0, |(pid, _)| pid),
            start_time: star.process.map_or(0, |(_, time)| time),
        });
        let running = running.collect();
        self.tell(Who::Worker, Event::NurseryUp { running, ended: Vec::new() });
        self.settle();
    }

    /// Every machine but one reports to the leader; the worker hears that it may go on.
    fn report(&mut self, but: Option<NodeId>) {
        for node in (2..=self.size.nodes).map(NodeId).filter(|node| Some(*node) != but) {
            self.tell(Who::Leader, Event::Heard { node });
        }
        self.tell(Who::Worker, Event::Leased { length: node::SINGLETON_LEASE });
    }

    /// Time passes; whatever was due meanwhile is due at its end.
    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for who in [Who::Leader, Who::Worker] {
            if self.node(who).next_deadline().is_some_and(|at| at <= self.now) {
                self.tell(who, Event::Tick);
            }
        }
    }

    fn node(&mut self, who: Who) -> &mut Node {
        match who {
            Who::Leader => &mut self.leader,
            Who::Worker => &mut self.worker,
        }
    }

    /// Writes what is proposed and what the other machines say, until nobody has anything more.
    fn settle(&mut self) {
        loop {
            while let Some(command) = self.proposed.pop_front() {
                self.commit(command);
            }
            if let Some((_, changes)) = self.said.pop_first() {
                let wall = self.wall();
                self.commit(Command::Transitions { changes, wall });
            } else if self.proposed.is_empty() {
                return;
            }
        }
    }

    fn commit(&mut self, command: Command) {
        self.index += 1;
        self.cost.commands += 1;
        if let Command::Assign { stars, .. } = &command {
            let ours = [self.leader.id(), self.worker.id()];
            for star in stars.iter().filter(|star| !ours.contains(&star.node)) {
                let process = Some((self.index as u32, star.star.0));
                let runs = Transition { star: star.star, phase: StarPhase::Ready, process, exit: None };
                self.said.entry(star.node).or_default().push(runs);
            }
        }
        self.tell(Who::Worker, Event::Committed { index: self.index, command: command.clone() });
        self.tell(Who::Leader, Event::Committed { index: self.index, command });
    }

    fn wall(&self) -> WallTime {
        WallTime(self.now.0 / 1_000_000)
    }

    /// Tells one of the two something, and answers what it does about it.
    fn tell(&mut self, who: Who, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let (now, wall, meter) = (self.now, self.wall(), self.meter);
            let mut effects = Vec::new();
            let before = meter();
            self.node(who).handle(now, wall, event, &mut effects);
            let took = meter().saturating_sub(before);
            match who {
                Who::Leader => self.cost.leader += took,
                Who::Worker => self.cost.worker += took,
            }
            for effect in effects {
                match effect {
                    Effect::Propose { command, .. } => self.proposed.push_back(command),
                    Effect::Reply { result: Err(problem), .. } => self.refused = Some(problem.to_string()),
                    Effect::Start { order } => {
                        let pid = order.generation as u32;
                        events.push_back(Event::StarStarted { star: order.star, pid, start_time: order.star.0 });
                    }
                    Effect::Probe { star, role, .. } => {
                        events.push_back(Event::Probed { star, role, outcome: Ok(()) });
                    }
                    Effect::Signal { star, .. } | Effect::Kill { star } => {
                        events.push_back(Event::StarExited { star, cause: ExitCause::Signal(15) });
                    }
                    _ => {}
                }
            }
        }
    }

    /// Whether so many stars run, spread as evenly as can be, and both nodes say the same.
    fn check(&self, stars: u64) -> Result<(), String> {
        if let Some(refused) = &self.refused {
            return Err(refused.clone());
        }
        let state = self.leader.state();
        let loads = || state.nodes.keys().map(|node| state.stars.load_of(*node).map_or(0, |load| load.stars));
        let running: u64 = loads().map(u64::from).sum();
        if running != stars {
            return Err(format!("{running} stars run instead of {stars}"));
        }
        Ok(())
    }

    /// Whether all that run are ready, and both nodes say the same of every star. Looks at all of them.
    ///
    /// # Errors
    /// Says what is not so.
    pub fn check_all(&self) -> Result<(), String> {
        let state = self.leader.state();
        let ready = state.stars.values().filter(|star| star.phase == StarPhase::Ready).count() as u64;
        if ready != self.size.all_stars() {
            return Err(format!("{ready} stars are ready instead of {}", self.size.all_stars()));
        }
        if state != self.worker.state() {
            return Err("leader and worker do not say the same".to_owned());
        }
        Ok(())
    }
}

/// Three controllers, the rest workers.
fn founded(nodes: u64) -> State {
    let name = |number: u64| format!("node-{number}").parse().expect("a name");
    let address = |number: u64| format!("10.{}.{}.{}:7946", number >> 16, number >> 8 & 255, number & 255);
    let memory = model::Bytes::mib(65_536);
    let facts = Box::new(NodeFacts { memory, cores: 32, ..NodeFacts::default() });
    let (cluster, wall) = ("scale".parse().expect("a name"), WallTime(1));
    let mut state = State::default();
    let found = Command::Found { cluster, name: name(1), address: address(1), facts: facts.clone(), wall };
    state::apply(&mut state, 1, &found);
    for number in 2..=nodes {
        let role = if number <= 3 { NodeRole::Controller } else { NodeRole::Worker };
        let (name, address, facts) = (name(number), address(number), facts.clone());
        state::apply(&mut state, number, &Command::AdmitNode { name, role, address, facts, wall, ticket: None });
    }
    state
}

fn app_spec(app: u64, services: u64, stars: u64) -> AppSpec {
    let name = |number| format!("service-{app}-{number}").parse().expect("a name");
    let services = (1..=services).map(|number| (name(number), service_spec(app * 1_000 + number, stars))).collect();
    AppSpec { app: format!("app-{app}").parse().expect("a name"), services }
}

/// Much as a real one: some arguments, a few variables, limits.
fn service_spec(number: u64, stars: u64) -> ServiceSpec {
    let variable = |name: &str, value: String| (name.parse().expect("a name"), value);
    ServiceSpec {
        placement: Default::default(),
        update: Default::default(),
        job: None,
        hold: None,
        template: StarTemplate {
            program: Program::Script("server.rads".to_owned()),
            args: vec!["--shard".to_owned(), number.to_string()],
            bundle: BundleId(ContentHash([7; 32])),
            rootfs: None,
            env: [
                variable("DATABASE", format!("postgres://db-{number}.internal:5432/main")),
                variable("REGION", "eu-central".to_owned()),
                variable("LOG", "info".to_owned()),
            ]
            .into(),
            limits: Limits::DEFAULT,
            volumes: Vec::new(),
            network: Network::None,
            port: Some(8080),
            probe: Probe::new(ProbeKind::Tcp),
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
        instances: u32::try_from(stars).unwrap_or(u32::MAX),
        entry: None,
    }
}
