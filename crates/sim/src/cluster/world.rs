//! The clock, the queue of what happens, the network and the log.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Bytes, ExitCause, NodeId, NodeRole, Problem, RequestId, StarId, Time, WallTime};
use node::{Effect, Event, SINGLETON_LEASE};
use state::{Command, Settled, State};

use super::apps;
use super::machine::{Machine, Process, START_MAX};
use super::shares::{self, Demand};
use crate::chance::Chance;

/// What a run is a function of, beside the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    pub seed: u64,
    /// Machines, at least one; the first five at most are voters.
    pub nodes: usize,
    /// Things that people do or that go wrong, one after another.
    pub steps: u32,
    /// Nothing goes wrong: people ask for things, that is all.
    pub faultless: bool,
    /// A protection that is taken away, to see that its absence is found.
    pub bug: Option<Bug>,
}

/// Protections that can be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// What was planned is written by whoever leads by then, not only by who planned it.
    ForwardedPlans,
    /// The nursery does not do what a machine is told of stars that were given up.
    NoFence,
    /// A machine that leads anew is told so before it has read what was written before.
    EarlyLead,
    /// Machines do not say how much memory they have, so that nothing is refused for lack of it.
    NoRoom,
    /// Quotas are not written.
    NoQuota,
    /// A nursery lets singletons run on though nobody says any more that they may.
    NoLease,
    /// Who leads does not hear what requests met.
    Deaf,
}

/// What a run that went well was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    pub events: u64,
    pub entries: u64,
    pub starts: u64,
    pub leaders: u64,
    pub lost: u64,
    /// Stars that gave way on a machine that was short of memory.
    pub gave_way: u64,
    /// Roll-outs that failed because requests did.
    pub erred: u64,
    /// Virtual time.
    pub took: Duration,
}

/// A run that did not go well: what did not hold, and all that happened until then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub what: String,
    pub trace: Vec<String>,
}

/// Something that happens at a time.
#[derive(Debug)]
pub(crate) enum Happening {
    /// For the agent of that life.
    Tell {
        at: usize,
        life: u64,
        event: Event,
    },
    /// A proposal reaches the leader, if it is one.
    Arrive {
        at: usize,
        from: usize,
        life: u64,
        proposal: u64,
        command: Command,
    },
    /// What is written reaches a machine.
    Deliver {
        at: usize,
    },
    /// Every machine tells the leader that it is there.
    Report,
    /// Membership notices what has changed.
    Notice,
    Elect,
    /// One that led notices that nobody follows.
    StepDown {
        at: usize,
    },
    StartAgent {
        at: usize,
    },
    PowerOn {
        at: usize,
    },
    NurseryUp {
        at: usize,
    },
    /// A singleton's lease may be over.
    LeaseOver {
        at: usize,
        star: StarId,
    },
    Heal,
}

pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) random: Chance,
    pub(crate) now: Time,
    queue: BTreeMap<(Time, u64), Happening>,
    order: u64,
    pub(crate) machines: Vec<Machine>,
    /// Machines of one side see each other.
    pub(crate) sides: Vec<u8>,
    pub(crate) leader: Option<usize>,
    pub(crate) log: Vec<Command>,
    /// What the log says.
    pub(crate) truth: State,
    /// What was asked for that all services may have.
    pub(crate) quota: model::Quota,
    pub(crate) faults: bool,
    next_request: u64,
    pub(crate) report: Report,
    pub(crate) trace: Vec<String>,
    pub(crate) failed: Option<String>,
}

/// From one machine to another.
const LATENCY_MAX: Duration = Duration::from_millis(2);
/// What a nursery that has just begun gives stars that had a lease.
const LEASE_OF_A_NEW_NURSERY: Duration = Duration::from_secs(1);
/// Longest until a proposal without an answer is given up.
const PROPOSAL_PATIENCE: Duration = Duration::from_secs(2);
/// A trace longer than this has lost its beginning.
const TRACE_MAX: usize = 20_000;

/// Runs one world to its end.
pub fn run(options: Options) -> Result<Report, Box<Failure>> {
    let mut world = World::new(options);
    world.begin();
    for _ in 0..options.steps {
        let wait = world.random.at_most(Duration::from_secs(4));
        world.run_until(world.now + wait);
        if world.random.one_in(2) && !options.faultless {
            world.fault();
        } else {
            world.ask_something();
        }
        if world.failed.is_some() {
            break;
        }
    }
    world.settle();
    match world.failed {
        None => Ok(world.report),
        Some(what) => Err(Box::new(Failure { what, trace: world.trace })),
    }
}

impl World {
    fn new(options: Options) -> Self {
        let nodes = options.nodes.max(1);
        Self {
            options,
            random: Chance::new(options.seed),
            now: Time(1_000_000_000),
            queue: BTreeMap::new(),
            order: 0,
            machines: (0..nodes).map(|at| Machine::new(NodeId(at as u64 + 1))).collect(),
            sides: vec![0; nodes],
            leader: None,
            log: Vec::new(),
            truth: State::default(),
            quota: model::Quota::default(),
            faults: true,
            next_request: 0,
            report: Report::default(),
            trace: Vec::new(),
            failed: None,
        }
    }

    /// The constellation is founded, and every machine joins it.
    fn begin(&mut self) {
        let name = |text: String| text.parse().expect("a name");
        let mut facts = Box::new(shares::facts());
        if self.options.bug == Some(Bug::NoRoom) {
            facts.memory = model::Bytes(0);
        }
        let wall = self.wall();
        self.append(Command::Found {
            cluster: name("test".to_owned()),
            name: name("node-1".to_owned()),
            address: "10.0.0.1:7946".to_owned(),
            facts: facts.clone(),
            wall,
        });
        for at in 1..self.machines.len() {
            self.append(Command::AdmitNode {
                name: name(format!("node-{}", at + 1)),
                role: NodeRole::Controller,
                address: format!("10.0.{}.{}:7946", at / 250, at % 250 + 1),
                facts: facts.clone(),
                wall,
                ticket: None,
            });
        }
        let all = self.log.len() as u64;
        for at in 0..self.machines.len() {
            self.machines[at].applied = all;
            self.start_agent(at);
        }
        self.after(Duration::from_secs(1), Happening::Report);
        self.elect();
    }

    pub(crate) fn voters(&self) -> usize {
        match self.machines.len() {
            1 | 2 => 1,
            3 | 4 => 3,
            _ => 5,
        }
    }

    pub(crate) fn wall(&self) -> WallTime {
        WallTime(self.now.0 / 1_000_000)
    }

    pub(crate) fn note(&mut self, what: String) {
        if self.trace.len() >= TRACE_MAX {
            self.trace.drain(..TRACE_MAX / 2);
        }
        let mut line = format!("{:>12} {what}", self.now.0 / 1_000);
        if line.len() > 240 {
            line.truncate(line.floor_char_boundary(240));
        }
        self.trace.push(line);
    }

    pub(crate) fn must(&mut self, holds: bool, what: &str) {
        if !holds && self.failed.is_none() {
            self.note(format!("FAILED: {what}"));
            self.failed = Some(what.to_owned());
        }
    }

    pub(crate) fn after(&mut self, wait: Duration, happening: Happening) {
        self.order += 1;
        self.queue.insert((self.now + wait, self.order), happening);
    }

    pub(crate) fn soon(&mut self, at: usize, event: Event) {
        let (wait, life) = (self.random.at_most(Duration::from_millis(3)), self.machines[at].life);
        self.after(wait, Happening::Tell { at, life, event });
    }

    fn is_up(&self, at: usize) -> bool {
        self.machines[at].agent.is_some()
    }

    pub(crate) fn connected(&self, a: usize, b: usize) -> bool {
        a == b || (self.is_up(a) && self.is_up(b) && self.sides[a] == self.sides[b])
    }

    fn sees_majority(&self, at: usize) -> bool {
        let voters = self.voters();
        let seen = (0..voters).filter(|other| self.is_up(*other) && self.connected(at, *other)).count();
        at < voters && self.is_up(at) && seen > voters / 2
    }

    /// Lets happen what happens until then.
    pub(crate) fn run_until(&mut self, until: Time) {
        while self.failed.is_none() {
            let queued = self.queue.first_key_value().map(|((time, _), _)| *time);
            let due = |machine: &Machine| machine.agent.as_ref().and_then(node::Node::next_deadline);
            let tick = self.machines.iter().enumerate().filter_map(|(at, machine)| Some((due(machine)?, at))).min();
            let tick = tick.map(|(time, at)| (time.max(self.now), at));
            let next = [queued, tick.map(|(time, _)| time)].into_iter().flatten().min().filter(|time| *time <= until);
            let Some(next) = next else {
                self.now = until;
                return;
            };
            self.now = next;
            if queued == Some(next) {
                if let Some((_, happening)) = self.queue.pop_first() {
                    self.happen(happening);
                }
            } else if let Some((_, at)) = tick {
                self.tell(at, Event::Tick);
            }
            self.report.events += 1;
            if self.report.events > 5_000_000 {
                self.must(false, "it comes to rest");
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Tell { at, life, event } => {
                if self.machines[at].life == life {
                    self.tell(at, event);
                }
            }
            Happening::Arrive { at, from, life, proposal, command } => self.arrive(at, from, life, proposal, command),
            Happening::Deliver { at } => self.deliver(at),
            Happening::Report => self.reports(),
            Happening::Notice => self.notice(),
            Happening::Elect => self.elect(),
            Happening::StepDown { at } => {
                if self.leader != Some(at) {
                    self.tell(at, Event::Leads { leads: false });
                }
            }
            Happening::StartAgent { at } => self.start_agent(at),
            Happening::PowerOn { at } => {
                self.note(format!("power of {at} on"));
                self.machines[at].powered = true;
                self.start_agent(at);
            }
            Happening::NurseryUp { at } => self.nursery_up(at),
            Happening::LeaseOver { at, star } => self.lease_over(at, star),
            Happening::Heal => self.heal(),
        }
    }

    /// Tells an agent something and does what it answers with.
    pub(crate) fn tell(&mut self, at: usize, event: Event) {
        if self.machines[at].agent.is_none() {
            return;
        }
        if !matches!(event, Event::Tick | Event::Heard { .. } | Event::Leased { .. }) {
            self.note(format!("{at} {event:?}"));
        }
        let event = self.heard(at, event);
        let (now, wall) = (self.now, self.wall());
        let mut effects = Vec::new();
        if let Some(node) = &mut self.machines[at].agent {
            node.handle(now, wall, event, &mut effects);
        }
        for effect in effects {
            self.perform(at, effect);
        }
    }

    fn perform(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::Propose { proposal, command } => {
                self.note(format!("{at} proposes {proposal} {command:?}"));
                self.check_settled(at, &command);
                self.propose(at, proposal, command);
            }
            Effect::Start { order } => {
                let star = order.star;
                let machine = &self.machines[at];
                let fits = machine.nursery_up && !machine.processes.contains_key(&star);
                let elsewhere = self.machines.iter().any(|other| other.processes.contains_key(&star));
                self.must(fits && !elsewhere, "a star is started once, and where a nursery is");
                let poisoned = apps::is_poison(&order.template);
                if (self.faults && self.random.one_in(20)) || (poisoned && !self.random.one_in(6)) {
                    let reason = "luck".to_owned();
                    self.machines[at].corpses.insert(star, ExitCause::StartFailed { reason: reason.clone() });
                    self.soon(at, Event::StarStartFailed { star, reason });
                    return;
                }
                self.note(format!("{at} starts {star} ({})", order.name));
                self.report.starts += 1;
                let ready_at = self.now + self.random.at_most(START_MAX);
                let ready_at = if poisoned { Time(u64::MAX) } else { ready_at };
                let machine = &mut self.machines[at];
                machine.next_pid += 1;
                let pid = machine.next_pid;
                let process = Process { generation: order.generation, pid, service: order.service.clone(), ready_at };
                machine.processes.insert(star, process);
                if order.template.singleton {
                    let of_service = |machine: &Machine| {
                        machine.processes.values().filter(|process| process.service == order.service).count()
                    };
                    let running: usize = self.machines.iter().map(of_service).sum();
                    self.must(running == 1, "of a singleton one star runs at most, anywhere");
                }
                self.soon(at, Event::StarStarted { star, pid, start_time: 7 });
            }
            Effect::Lease { stars, length } => {
                for star in stars {
                    self.machines[at].leases.insert(star, self.now + length);
                    self.after(length, Happening::LeaseOver { at, star });
                }
            }
            Effect::Signal { star, .. } => self.end_star(at, star, ExitCause::Code(0)),
            Effect::Kill { star } => {
                let given_up = self.truth.stars.get(&star).and_then(|record| record.exit.as_ref());
                let is_fence = given_up.is_some_and(|exit| exit.cause == ExitCause::NodeLost);
                if !(is_fence && self.options.bug == Some(Bug::NoFence)) {
                    self.end_star(at, star, ExitCause::Signal(9));
                }
            }
            Effect::NamespaceRemoved { .. } => {}
            Effect::Forget { star } => drop(self.machines[at].corpses.remove(&star)),
            Effect::Freeze { star, .. } => self.soon(at, Event::Frozen { star, problem: None }),
            Effect::Hook { star, .. } => self.soon(at, Event::HookEnded { star }),
            Effect::Limit { star, .. } => self.soon(at, Event::Limited { star, problem: None }),
            Effect::Measure { star } => self.soon(at, Event::Measured { star, used: None }),
            Effect::LookAtMemory => {
                let machine = &self.machines[at];
                let left = if machine.short_until > self.now { Bytes(0) } else { machine.config(0).memory };
                self.soon(at, Event::MemoryLeft { left });
            }
            Effect::Weigh { stars } => {
                let weight = |star| (star, Bytes::mib(self.random.below(500)));
                let used = stars.into_iter().map(weight).collect();
                self.soon(at, Event::Weighed { used });
            }
            Effect::LookAtAnswers { service } => self.look_at_answers(at, service),
            Effect::Probe { star, role, .. } => {
                let machine = &self.machines[at];
                let process = machine.processes.get(&star).filter(|_| machine.nursery_up);
                let answers = process.is_some_and(|process| process.ready_at <= self.now);
                let flaky = self.faults && self.random.one_in(200);
                let outcome = if answers && !flaky { Ok(()) } else { Err("refused".to_owned()) };
                self.soon(at, Event::Probed { star, role, outcome });
            }
            Effect::Listen { service, entry } => {
                let address = std::net::SocketAddr::new(entry.listen.ip, entry.listen.port);
                self.soon(at, Event::Listening { service, result: Ok(address) });
            }
            Effect::Publish { service, set, .. } => drop(self.machines[at].routes.insert(service, set.endpoints)),
            Effect::Drain { star, .. } => self.soon(at, Event::Drained { star }),
            Effect::Reply { .. } | Effect::Unlisten { .. } => {}
        }
    }

    /// A process ends; the agent hears of it when the nursery can tell.
    pub(crate) fn end_star(&mut self, at: usize, star: StarId, cause: ExitCause) {
        let machine = &mut self.machines[at];
        if !machine.nursery_up || machine.processes.remove(&star).is_none() {
            return;
        }
        machine.corpses.insert(star, cause.clone());
        self.soon(at, Event::StarExited { star, cause });
    }

    fn lease_over(&mut self, at: usize, star: StarId) {
        let is_over = self.machines[at].leases.get(&star).is_some_and(|end| *end <= self.now);
        if is_over && self.options.bug != Some(Bug::NoLease) {
            self.end_star(at, star, ExitCause::LeaseOver);
        }
    }

    pub(crate) fn drop_news(&mut self, of: usize) {
        self.queue.retain(|_, happening| {
            let Happening::Tell { at, event, .. } = happening else { return true };
            let is_news =
                matches!(event, Event::StarStarted { .. } | Event::StarExited { .. } | Event::StarStartFailed { .. });
            *at != of || !is_news
        });
    }

    fn nursery_up(&mut self, at: usize) {
        if !self.machines[at].powered {
            return;
        }
        self.machines[at].nursery_up = true;
        // It knows which stars have a lease, not how long.
        let leased: Vec<StarId> = self.machines[at].leases.keys().copied().collect();
        for star in leased {
            self.machines[at].leases.insert(star, self.now + LEASE_OF_A_NEW_NURSERY);
            self.after(LEASE_OF_A_NEW_NURSERY, Happening::LeaseOver { at, star });
        }
        self.drop_news(at);
        let running = self.machines[at].running();
        let ended = self.machines[at].corpses.iter().map(|(star, cause)| (*star, cause.clone())).collect();
        self.tell(at, Event::NurseryUp { running, ended });
    }

    fn start_agent(&mut self, at: usize) {
        if !self.machines[at].powered || self.machines[at].agent.is_some() {
            return;
        }
        self.note(format!("agent {at} starts"));
        let seed = self.random.number();
        let log = std::mem::take(&mut self.log);
        self.machines[at].start_agent(&log, seed);
        self.log = log;
        if self.machines[at].nursery_up {
            self.nursery_up(at);
        }
        self.after(Duration::from_millis(1), Happening::Deliver { at });
        self.network_changed();
    }

    // --- the log

    fn propose(&mut self, at: usize, proposal: u64, command: Command) {
        let life = self.machines[at].life;
        let failed = Event::ProposalFailed { proposal, problem: not_written() };
        match self.leader.filter(|leader| self.connected(at, *leader)) {
            Some(leader) => {
                // Onto a disk, or over the network and then onto a disk; in order.
                let arrives = (self.now + self.random.at_most(LATENCY_MAX)).max(self.machines[at].proposals_until);
                self.machines[at].proposals_until = arrives;
                let arrive = Happening::Arrive { at: leader, from: at, life, proposal, command };
                self.after(arrives - self.now, arrive);
            }
            None => self.after(PROPOSAL_PATIENCE, Happening::Tell { at, life, event: failed }),
        }
    }

    fn arrive(&mut self, at: usize, from: usize, life: u64, proposal: u64, command: Command) {
        let failed =
            Happening::Tell { at: from, life, event: Event::ProposalFailed { proposal, problem: not_written() } };
        // Who planned it must lead still, and be the one who writes it: another may have planned otherwise.
        let is_stale = command.is_plan() && (from != at || self.machines[at].life != life);
        let refused = is_stale && self.options.bug != Some(Bug::ForwardedPlans);
        if self.leader != Some(at) || !self.connected(from, at) || refused {
            self.after(PROPOSAL_PATIENCE, failed);
            return;
        }
        // A leader that does not hear that its plan was written does not lead any more.
        if self.faults && !command.is_plan() && self.random.one_in(40) {
            // It is written, and whoever asked does not hear of it.
            self.after(Duration::ZERO, failed);
        }
        self.append(command);
    }

    /// Writes a command. From here on it holds.
    pub(crate) fn append(&mut self, command: Command) {
        let command = self.as_written(command);
        self.log.push(command);
        let index = self.log.len() as u64;
        let command = self.log[self.log.len() - 1].clone();
        self.note(format!("#{index} {command:?}"));
        self.report.entries += 1;
        self.report.lost += u64::from(matches!(command, Command::LoseNode { .. }));
        if let Command::Transitions { changes, .. } = &command {
            let gave_way =
                |change: &&state::Transition| change.exit.as_ref().is_some_and(|exit| exit.cause == ExitCause::Evicted);
            self.report.gave_way += changes.iter().filter(gave_way).count() as u64;
        }
        if let Command::SettleRollout { settled: Settled::Failed { reason }, .. } = command.bare() {
            self.report.erred += u64::from(reason.contains("requests to its stars failed"));
        }
        self.check_plan(&command);
        let asked = Demand::of(&self.truth);
        state::apply(&mut self.truth, index, &command);
        self.check_truth();
        self.check_shares(asked, &command);
        for at in 0..self.machines.len() {
            let wait = self.random.at_most(LATENCY_MAX);
            self.after(wait, Happening::Deliver { at });
        }
    }

    /// A machine that sees the leader reads on.
    fn deliver(&mut self, at: usize) {
        if !self.leader.is_some_and(|leader| self.connected(at, leader)) {
            return;
        }
        self.catch_up(at);
    }

    fn catch_up(&mut self, at: usize) {
        while self.is_up(at) && self.machines[at].applied < self.log.len() as u64 && self.failed.is_none() {
            self.machines[at].applied += 1;
            let index = self.machines[at].applied;
            let command = self.log[index as usize - 1].clone();
            self.tell(at, Event::Committed { index, command });
        }
    }

    /// Who is to lead: the one that does, as long as a majority sees it; else any voter that sees one.
    fn elect(&mut self) {
        if let Some(leader) = self.leader {
            if self.sees_majority(leader) {
                return;
            }
            self.leader = None;
            self.tell(leader, Event::Leads { leads: false });
        }
        let fit: Vec<usize> = (0..self.voters()).filter(|at| self.sees_majority(*at)).collect();
        let Some(next) = self.random.pick(&fit) else { return };
        self.note(format!("{next} leads"));
        self.leader = Some(next);
        self.report.leaders += 1;
        if self.options.bug == Some(Bug::EarlyLead) {
            self.tell(next, Event::Leads { leads: true });
        }
        // One that is chosen again knows that it did not lead in between.
        if self.options.bug != Some(Bug::EarlyLead) {
            self.tell(next, Event::Leads { leads: false });
        }
        self.catch_up(next);
        self.tell(next, Event::Leads { leads: true });
        for at in 0..self.machines.len() {
            self.after(LATENCY_MAX, Happening::Deliver { at });
        }
    }

    // --- the network

    /// Who sees whom is other than it was: the log finds a leader, membership notices.
    pub(crate) fn network_changed(&mut self) {
        if let Some(leader) = self.leader.filter(|leader| !self.sees_majority(*leader)) {
            // It writes nothing from here on, and knows it a moment later.
            self.leader = None;
            let wait = self.random.at_most(Duration::from_secs(1));
            self.after(wait, Happening::StepDown { at: leader });
        }
        let wait = Duration::from_millis(500) + self.random.at_most(Duration::from_secs(1));
        self.after(wait, Happening::Elect);
        let wait = Duration::from_secs(1) + self.random.at_most(Duration::from_secs(2));
        self.after(wait, Happening::Notice);
        for at in 0..self.machines.len() {
            self.after(LATENCY_MAX, Happening::Deliver { at });
        }
    }

    fn notice(&mut self) {
        for at in 0..self.machines.len() {
            for about in 0..self.machines.len() {
                if at != about && self.is_up(at) {
                    let (node, alive) = (self.machines[about].id, self.connected(at, about));
                    self.tell(at, Event::Seems { node, alive });
                }
            }
        }
    }

    fn reports(&mut self) {
        if let Some(leader) = self.leader {
            let followed = self.sees_majority(leader);
            for at in 0..self.machines.len() {
                if !followed || !self.connected(at, leader) {
                    continue;
                }
                if at != leader {
                    self.tell(leader, Event::Heard { node: self.machines[at].id });
                }
                let id = self.machines[at].id;
                if !self.machines[leader].agent.as_ref().is_some_and(|node| node.leases(id)) {
                    continue;
                }
                // The answer has been on its way, and the report before it.
                let length = SINGLETON_LEASE - self.random.at_most(4 * LATENCY_MAX);
                self.soon(at, Event::Leased { length });
            }
        }
        self.after(Duration::from_secs(1), Happening::Report);
    }

    // --- people

    fn ask_something(&mut self) {
        let up: Vec<usize> = (0..self.machines.len()).filter(|at| self.is_up(*at)).collect();
        let Some(at) = self.random.pick(&up) else { return };
        self.next_request += 1;
        let most = (self.machines.len() as u64 * 2).max(4);
        let request = apps::request(&mut self.random, most);
        self.tell(at, Event::Request { id: RequestId(self.next_request), request });
    }
}

fn not_written() -> Problem {
    Problem::new(model::Code::Conflict, "no node leads at the moment")
}
