//! The node itself: what it holds, and which event goes where.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use model::{
    Bytes, Code, CpuSet, EndpointSet, Exit, ExitCause, Limits, NodeFacts, NodeId, Problem, Reserve, RolloutTurn,
    ServiceKey, StarId, StarPhase, Time, WallTime,
};
use rollout::{Backoff, Shun};
use scheduler::Ids;
use state::{Assignment, Change, Command, Load, Part, StarRecord, State, apply, touched};

use crate::change::PendingPut;
use crate::event::{Effect, Event, Reply, RunningStar};
use crate::holds;
use crate::limits::LimitWait;
use crate::log::{Log, Proposal, Purpose};
use crate::peers::Peers;
use crate::pressure::Weighing;
use crate::room::Claim;
use crate::timers::{Timer, Timers};

/// What a node is told about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeConfig {
    pub node: NodeId,
    /// Where its random choices start; a different one for each agent.
    pub seed: u64,
    /// Without privileges some networks are not to be had.
    pub rootless: bool,
    /// 0 when it is not known.
    pub memory: Bytes,
    pub cores: u32,
    /// Its processors, when they are known.
    pub cpus: Option<CpuSet>,
}

/// See the head of the crate.
#[derive(Debug)]
pub struct Node {
    pub(crate) config: NodeConfig,
    /// What this machine is, while it is alone.
    pub(crate) own_facts: NodeFacts,
    /// When the last event was, or somebody looked.
    pub(crate) now: Time,
    /// The same by the calendar, but for who looked.
    pub(crate) wall: WallTime,
    /// When the first one was: then the entry points of what was there are asked for.
    pub(crate) began: Option<Time>,
    pub(crate) state: State,
    pub(crate) stars: BTreeMap<StarId, Local>,
    pub(crate) services: BTreeMap<ServiceKey, LocalService>,
    pub(crate) log: Log,
    pub(crate) peers: Peers,
    /// Stars that run here and were ordered by a command that has not come here yet: this agent has just begun, and the log
    /// is ahead of it. With how it ended, if it has meanwhile.
    pub(crate) early: Vec<(RunningStar, Option<ExitCause>)>,
    /// What machines will have to do when what is being written is: what is planned meanwhile goes elsewhere. What these stars are
    /// promised is not counted.
    pub(crate) coming: BTreeMap<NodeId, Load>,
    /// What will be kept for each of those that are being written.
    pub(crate) keeping: BTreeMap<StarId, Reserve>,
    /// Services that have stars for which there may be room once others have ended.
    pub(crate) roomless: BTreeSet<ServiceKey>,
    /// Places of reservations that stars are given by what is being written.
    pub(crate) taking: BTreeSet<StarId>,
    /// Room that is being made for stars of a service, by others that go.
    pub(crate) making_room: BTreeMap<ServiceKey, Vec<Claim>>,
    /// By service, those that say they are to be apart from it.
    pub(crate) apart: BTreeMap<ServiceKey, BTreeSet<ServiceKey>>,
    /// Until when none of its stars runs elsewhere, for sure.
    pub(crate) leased_until: Time,
    /// Stars of other machines that are being told to go.
    pub(crate) retiring: BTreeSet<StarId>,
    pub(crate) timers: Timers,
    pub(crate) ids: Ids,
    pub(crate) nursery_up: bool,
    /// It has been away for longer than it takes to start one.
    pub(crate) nursery_missing: bool,
    /// Changes of apps whose entry points are being opened.
    pub(crate) puts: Vec<PendingPut>,
    /// Who waits for the limits of a service to hold, the oldest first.
    pub(crate) limit_waits: Vec<LimitWait>,
    /// Services to look at again before this event is over.
    pub(crate) dirty: BTreeSet<ServiceKey>,
    /// Services whose ended stars are looked at when the forgetting that is under way is over.
    pub(crate) forget_later: BTreeSet<ServiceKey>,
    /// What the last command of the log touched.
    touched: BTreeSet<Part>,
    /// Its stars were told to end, and nothing is asked of it any more.
    pub(crate) resting: bool,
    /// Why the last thing of its own was not written; nothing once something is.
    pub(crate) not_written: Option<String>,
    /// Whether stars are being weighed, since there is too little memory.
    pub(crate) weighing: Weighing,
}

/// A star as this node sees it: ahead of the log by what has happened but is not written yet.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) service: ServiceKey,
    pub(crate) revision: u64,
    pub(crate) ordinal: u32,
    pub(crate) port: Option<u16>,
    pub(crate) phase: StarPhase,
    pub(crate) process: Option<(u32, u64)>,
    /// The nursery that is there now has been told to start it.
    pub(crate) ordered: bool,
    pub(crate) probing: bool,
    /// Probes that failed since the start, or in a row once it was ready.
    pub(crate) failed_probes: u32,
    /// Its start is over: its start-up probe passed, or without one it was ready.
    pub(crate) begun: bool,
    pub(crate) probing_life: bool,
    /// Liveness probes that failed in a row.
    pub(crate) failed_life: u32,
    /// Why it did not pass the last probe it failed; nothing once it is ready again.
    pub(crate) failing: Option<String>,
    /// It was ended because it did not become ready.
    pub(crate) timed_out: bool,
    /// It was ended because it failed its probe too often.
    pub(crate) unhealthy: bool,
    /// It was told to stop because it had run for as long as it may.
    pub(crate) overdue: bool,
    /// It was told to end because the machine has too little memory.
    pub(crate) gives_way: bool,
    /// How it ended.
    pub(crate) exit: Option<Exit>,
    /// A command runs in it after which it is told to stop.
    pub(crate) in_hook: bool,
    /// Whether it was told to stand still when it was told last; unknown for a star that is taken over.
    pub(crate) still: Option<bool>,
    /// Why it does not stand still, or does not go on.
    pub(crate) freeze_problem: Option<String>,
    /// What the nursery was told last that it may use; unknown for a star that is taken over.
    pub(crate) limits: Option<Limits>,
    /// Where its soft limit of memory has been brought, when that follows use.
    pub(crate) soft: Option<Bytes>,
    /// Changes of its limits that the nursery has not answered.
    pub(crate) limiting: u32,
    /// Why the limits it should have do not hold.
    pub(crate) limit_problem: Option<String>,
}

impl Local {
    pub(crate) fn of(record: &StarRecord) -> Self {
        Self {
            service: record.service.clone(),
            revision: record.revision,
            ordinal: record.ordinal,
            port: record.port,
            phase: record.phase,
            process: record.process,
            ordered: false,
            probing: false,
            failed_probes: 0,
            begun: matches!(record.phase, StarPhase::Ready | StarPhase::Unready | StarPhase::Paused),
            probing_life: false,
            failed_life: 0,
            failing: None,
            timed_out: false,
            unhealthy: false,
            overdue: false,
            gives_way: false,
            exit: None,
            in_hook: false,
            still: (record.phase == StarPhase::Assigned).then_some(false),
            freeze_problem: None,
            limits: None,
            soft: None,
            limiting: 0,
            limit_problem: None,
        }
    }
}

/// What this node knows of a service beyond the state.
#[derive(Debug, Default)]
pub(crate) struct LocalService {
    pub(crate) address: Option<SocketAddr>,
    /// Why its entry point is not open.
    pub(crate) listen_problem: Option<String>,
    /// Of each place, by revision: that of the service, and the one that may come back.
    pub(crate) backoff: BTreeMap<(u64, u32), Backoff>,
    /// Machines on which its stars fail.
    pub(crate) shuns: BTreeMap<NodeId, Shun>,
    /// The revision that the service had when it was looked at last.
    pub(crate) revision: u64,
    pub(crate) last_failure: Option<ExitCause>,
    /// What its stars made of requests, while that may end a roll-out.
    pub(crate) answers: crate::rollouts::Heard,
    /// Stars told to go by their names, or by the log, until the service is looked at.
    pub(crate) leaving: Vec<StarId>,
    /// Numbers that are taken first by the next stars: those of stars that go and come back by their names.
    pub(crate) first: BTreeSet<u32>,
    /// Not all its missing stars have a machine to go to.
    pub(crate) homeless: bool,
    /// When it is worth a look again whether others would go for its stars.
    pub(crate) room_at: Option<Time>,
    /// Stars whose assignment is being written: id, machine, ordinal, revision.
    pub(crate) assigning: Vec<(StarId, NodeId, u32, u64)>,
    pub(crate) generation: u64,
    pub(crate) published: Option<(EndpointSet, model::Balance)>,
}

/// How long a nursery may be away before that is a problem. One starts in some milliseconds; beside a busy agent a thousand
/// stars are taken over within this.
pub(crate) const NURSERY_PATIENCE: Duration = Duration::from_secs(5);

/// What every step needs: the times it happens at, and where its effects go.
pub(crate) struct Step<'a> {
    pub(crate) now: Time,
    pub(crate) wall: WallTime,
    pub(crate) effects: &'a mut Vec<Effect>,
}

impl Node {
    pub fn new(config: NodeConfig, state: State) -> Self {
        let stars = state.stars.on_node(config.node).filter(|record| !record.is_place());
        let stars = stars.map(|record| (record.id, Local::of(record))).collect();
        let peers = Peers::new(&state);
        let services: BTreeMap<_, _> =
            state.services.keys().map(|key| (key.clone(), LocalService::default())).collect();
        let of_stars = state.stars.services().cloned();
        let dirty = services.keys().cloned().chain(of_stars).collect();
        let own_facts = NodeFacts { overcommit: state.overcommit, ..config.facts() };
        let mut node = Self {
            config,
            own_facts,
            now: Time::ZERO,
            wall: WallTime(0),
            state,
            stars,
            services,
            log: Log::default(),
            peers,
            early: Vec::new(),
            coming: BTreeMap::new(),
            keeping: BTreeMap::new(),
            roomless: BTreeSet::new(),
            taking: BTreeSet::new(),
            making_room: BTreeMap::new(),
            apart: BTreeMap::new(),
            began: None,
            leased_until: Time::ZERO,
            retiring: BTreeSet::new(),
            timers: Timers::default(),
            ids: Ids::new(config.seed),
            nursery_up: false,
            nursery_missing: false,
            puts: Vec::new(),
            limit_waits: Vec::new(),
            dirty,
            forget_later: BTreeSet::new(),
            touched: BTreeSet::new(),
            resting: false,
            not_written: None,
            weighing: Weighing::No,
        };
        let services: Vec<ServiceKey> = node.state.services.keys().cloned().collect();
        services.iter().for_each(|service| node.note_apart(service));
        node
    }

    /// Which machine this is.
    pub fn id(&self) -> NodeId {
        self.config.node
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// What the last command of the log touched.
    pub fn touched(&self) -> &BTreeSet<Part> {
        &self.touched
    }

    /// Whether no star runs here any more and the log knows it; after [`Event::Rest`] none will.
    pub fn is_at_rest(&self) -> bool {
        let mut own = self.state.stars.on_node(self.config.node);
        !own.any(holds::is_busy) && self.services.values().all(|service| service.assigning.is_empty())
    }

    /// How many stars run here.
    pub fn stars_here(&self) -> u32 {
        let running = self.stars.values().filter(|local| local.phase != StarPhase::Ended);
        u32::try_from(running.count()).unwrap_or(u32::MAX)
    }

    /// The stars of a service that are on this machine.
    pub(crate) fn own_of(&self, service: &ServiceKey) -> impl Iterator<Item = (StarId, &Local)> {
        let here = self.state.stars.ids_of(service).filter(|(_, node)| *node == self.config.node);
        here.filter_map(|(star, _)| Some((star, self.stars.get(&star)?)))
    }

    /// How long its stars may take to end in good order: each finishes its requests, and then itself.
    pub fn longest_end(&self) -> Duration {
        let running = self.state.stars.on_node(self.config.node).filter(|record| holds::is_busy(record));
        let longest = running.map(|record| record.template.grace_ms).max().unwrap_or_default();
        Duration::from_millis(longest.into()) * 2
    }

    /// When `Event::Tick` is due at the latest, if nothing else happens.
    pub fn next_deadline(&self) -> Option<Time> {
        if self.began.is_some() { self.timers.next() } else { Some(Time::ZERO) }
    }

    /// Somebody looks at it at this moment: what is shown is as of then.
    pub fn look_at(&mut self, now: Time) -> &Self {
        self.now = now;
        self
    }

    /// Takes one event and appends what is to be done about it.
    pub fn handle(&mut self, now: Time, wall: WallTime, event: Event, effects: &mut Vec<Effect>) {
        (self.now, self.wall) = (now, wall);
        let mut step = Step { now, wall, effects };
        let mut closed = Vec::new();
        if self.began.replace(self.began.unwrap_or(now)).is_none() {
            closed.extend(self.state.services.keys().cloned());
            self.timers.set(Timer::Nursery, step.now + NURSERY_PATIENCE);
            self.look_at_namespaces(&mut step);
        }
        match event {
            Event::Request { id, .. } if self.resting => {
                let problem = Problem::new(Code::Unavailable, "the agent is ending, and its stars with it");
                step.effects.push(Effect::Reply { id, result: Err(problem.help("try again when it has ended")) });
            }
            Event::Request { id, request } => self.request(id, request, &mut step),
            Event::Committed { index, command } => self.committed(index, &command, &mut step),
            Event::ProposalFailed { proposal, problem } => {
                if let Some(failed) = self.log.failed(proposal) {
                    self.not_written(failed, problem, &mut step);
                }
            }
            Event::NurseryUp { running, ended } => self.nursery_up(running, ended, &mut step),
            Event::NurseryDown => self.nursery_down(&mut step),
            Event::StarStarted { star, pid, start_time } => self.star_started(star, (pid, start_time), &mut step),
            Event::StarStartFailed { star, reason } => {
                self.star_ended(star, ExitCause::StartFailed { reason }, &mut step);
            }
            Event::StarExited { star, cause } => self.star_ended(star, cause, &mut step),
            Event::Limited { star, problem } => self.limited(star, problem),
            Event::Frozen { star, problem } => self.frozen(star, problem),
            Event::HookEnded { star } => self.hook_ended(star, &mut step),
            Event::Measured { star, used } => self.measured(star, used, &mut step),
            Event::MemoryLeft { left } => self.memory_left(left, &mut step),
            Event::Weighed { used } => self.weighed(&used, &mut step),
            Event::Answered { service, answers } => self.answered(service, answers, &step),
            Event::Probed { star, role, outcome } => self.star_probed(star, role, outcome, &mut step),
            Event::Drained { star } => self.star_drained(star, &mut step),
            Event::Listening { service, result } => self.listening(service, result, &mut step),
            Event::Leads { leads } => self.leads(leads, &mut step),
            Event::Heard { node } => self.heard(node, &mut step),
            Event::Leased { length } => self.leased(length, &mut step),
            Event::Seems { node, alive } => self.seems(node, alive, &mut step),
            Event::Rest => {
                self.resting = true;
                self.dirty.extend(self.stars.values().map(|local| local.service.clone()));
            }
            Event::Stop | Event::Tick => {}
        }
        while let Some(timer) = self.timers.pop_due(now) {
            self.due(timer, &mut step);
        }
        // What ended is written before what takes its place: an agent that is lost in between must not find both.
        self.write_transitions(&mut step);
        while let Some(service) = self.dirty.pop_first() {
            self.reconcile(&service, &mut step);
        }
        // Opened when the proxy was told of the stars that run on: who asks at once is not answered that there are none.
        closed.iter().for_each(|service| self.listen_again(service, &mut step));
        self.settle_limits(&mut step);
        self.write_transitions(&mut step);
    }

    fn write_transitions(&mut self, step: &mut Step<'_>) {
        if let Some(changes) = self.log.batch(step.now) {
            self.propose(Purpose::Transitions, Command::Transitions { changes, wall: step.wall }, step);
        }
    }

    pub(crate) fn propose(&mut self, purpose: Purpose, command: Command, step: &mut Step<'_>) {
        let proposal = self.log.propose(purpose, command.clone());
        step.effects.push(Effect::Propose { proposal, command });
    }

    fn committed(&mut self, index: u64, command: &Command, step: &mut Step<'_>) {
        // Who asks for it, and under which key, is the state's own.
        let (written, command) = (command, command.bare());
        let before = match command {
            Command::Limit { service, .. } => {
                self.state.services.get(service).map(|record| record.spec.template.limits)
            }
            _ => None,
        };
        let changes = apply(&mut self.state, index, written);
        self.touched = touched(&self.state, &changes);
        for change in &changes {
            self.changed(change, step);
        }
        if !changes.iter().any(|change| matches!(change, Change::Refused { .. } | Change::Repeated { .. })) {
            self.asked_again(command);
        }
        self.meet_early(step);
        self.not_written = None;
        let Some(proposal) = self.log.committed(written) else { return };
        if let (Purpose::Request(id), [Change::Repeated { index }]) = (&proposal.purpose, &changes[..]) {
            // Another of the same was written first: whatever follows from it follows from that one.
            if let Command::PutApp { spec, .. } = command {
                self.undo_listening(spec, step);
            }
            step.effects.push(Effect::Reply { id: *id, result: Ok(Reply { index: *index }) });
            return;
        }
        let refused = || {
            changes.into_iter().find_map(|change| match change {
                Change::Refused { problem } => Some(problem),
                _ => None,
            })
        };
        match proposal.purpose {
            Purpose::Request(id) => {
                let refused = refused();
                if let (Some(_), Command::PutApp { spec, .. }) = (&refused, command) {
                    self.undo_listening(spec, step);
                }
                if let (None, Some(before), Command::Limit { service, change, .. }) = (&refused, before, command) {
                    let (service, change) = (service.clone(), change.clone());
                    self.limit_waits.push(LimitWait { id, index, service, change, before, refused: None });
                    return;
                }
                let result = refused.map_or(Ok(Reply { index }), Err);
                step.effects.push(Effect::Reply { id, result });
            }
            Purpose::TakeBack(wait) => self.taken_back(*wait, refused(), step),
            Purpose::Assign => self.assigned(command),
            Purpose::Forget => self.dirty.append(&mut self.forget_later),
            Purpose::Retire => {
                let mut services = self.retired(command);
                self.dirty.append(&mut services);
                self.preempted(command, step);
            }
            Purpose::Transitions | Purpose::Peer(_) => {}
            // Refused: it is another one by now.
            Purpose::Rollout(service) | Purpose::Job(service) | Purpose::Hold(service) => {
                self.dirty.insert(service);
            }
            Purpose::Namespace(_) => self.look_at_namespaces(step),
        }
    }

    /// Somebody who asks again has seen to what was wrong: earlier failures neither delay the next start nor count. Whichever node was
    /// asked, the one that leads has counted them.
    fn asked_again(&mut self, command: &Command) {
        let (Command::Scale { service, .. }
        | Command::Start { service, .. }
        | Command::TurnRollout { service, turn: RolloutTurn::Resume | RolloutTurn::Promote, .. }) = command
        else {
            return;
        };
        if let Some(local) = self.services.get_mut(service) {
            local.backoff.clear();
            local.shuns.clear();
            local.last_failure = None;
            self.dirty.insert(service.clone());
        }
    }

    /// What a change of the state means here.
    fn changed(&mut self, change: &Change, step: &mut Step<'_>) {
        match change {
            Change::ServicePut { service } => {
                self.note_apart(service);
                let local = self.services.entry(service.clone()).or_default();
                let has_entry = self.state.services.get(service).is_some_and(|record| record.spec.entry.is_some());
                if !has_entry && local.address.take().is_some() {
                    step.effects.push(Effect::Unlisten { service: service.clone() });
                }
                // Open already, and then this costs nothing, unless a removal or an answer to an earlier change closed or
                // moved it after this change had opened it.
                if has_entry {
                    self.listen_again(service, step);
                }
                let stars: Vec<StarId> = self.own_of(service).map(|(star, _)| star).collect();
                stars.into_iter().for_each(|star| self.hold(star, step));
                self.dirty.insert(service.clone());
            }
            Change::RolloutMoved { service } => {
                // The version that came back may say something else of others.
                self.note_apart(service);
                self.dirty.append(&mut self.roomless);
                self.dirty.insert(service.clone());
            }
            Change::ServiceRemoved { service } => {
                self.note_apart(service);
                self.unlisten(service, step);
                if let Some(local) = self.services.get_mut(service) {
                    local.address = None;
                    local.listen_problem = None;
                }
                self.timers.clear(&Timer::Listen(service.clone()));
                self.dirty.insert(service.clone());
            }
            Change::StarAssigned { star } => {
                self.place_changed(*star);
                let Some(record) = self.state.stars.get(star) else { return };
                self.dirty.insert(record.service.clone());
                if let Some(service) = self.services.get_mut(&record.service) {
                    service.first.remove(&record.ordinal);
                }
                if record.node == self.config.node && !record.is_place() {
                    self.stars.insert(*star, Local::of(record));
                    let generation = record.generation;
                    let runs = |(early, _): &(RunningStar, _)| early.star == *star && early.generation == generation;
                    if !self.early.iter().any(runs) {
                        self.order(*star, step);
                    }
                }
            }
            Change::StarLimited { star } => self.fit(*star, step),
            Change::StarMoved { star, phase } => {
                let makes_room = |record: &state::StarRecord| {
                    !record.template.reserve.is_nothing() || self.keeps_off(&record.service)
                };
                if *phase == StarPhase::Ended && self.state.stars.get(star).is_some_and(makes_room) {
                    self.dirty.append(&mut self.roomless);
                }
                if *phase == StarPhase::Ended {
                    self.place_changed(*star);
                }
                self.star_moved(*star, *phase, step);
            }
            // Its service is looked at as well.
            Change::StarToMove { .. } => {}
            Change::StarLeaves { star } => self.leave(*star),
            Change::PlaceChanged { service, ordinal, comes } => {
                // Whoever asks has seen to what was wrong with it.
                if let Some(local) = self.services.get_mut(service) {
                    local.backoff.retain(|(_, place), _| place != ordinal);
                    local.shuns.clear();
                }
                let local = self.services.get_mut(service).map(|local| &mut local.first);
                local.map(|first| if *comes { first.insert(*ordinal) } else { first.remove(ordinal) });
                self.dirty.insert(service.clone());
            }
            Change::StarForgotten { star, .. } => {
                if let Some(local) = self.stars.remove(star) {
                    self.dirty.insert(local.service);
                    step.effects.push(Effect::Forget { star: *star });
                }
            }
            Change::NodeChanged { node } => self.node_changed(*node, step),
            Change::OvercommitChanged { .. } => {
                self.own_facts.overcommit = self.state.overcommit;
                self.look_at_all();
            }
            Change::NamespaceChanged { namespace } => {
                self.look_at_namespaces(step);
                self.fit_all_in(namespace, step);
            }
            Change::NamespaceRemoved { namespace } => {
                self.fit_all_in(namespace, step);
                step.effects.push(Effect::NamespaceRemoved { namespace: namespace.clone() });
            }
            Change::AppPut { .. }
            | Change::AppRemoved { .. }
            | Change::SecurityChanged
            | Change::VolumePlaced { .. }
            | Change::VolumeLost { .. }
            | Change::SecretSet { .. }
            | Change::SecretDeleted { .. }
            | Change::Repeated { .. }
            | Change::Refused { .. } => {}
        }
    }

    /// An assignment was written, or will not be.
    fn not_assigning(&mut self, assignment: &Assignment) {
        if let Some(service) = self.services.get_mut(&assignment.service) {
            service.assigning.retain(|(star, ..)| *star != assignment.star);
        }
        if let Some(place) = assignment.place {
            self.taking.remove(&place);
        }
        let reserve = self.keeping.remove(&assignment.star).unwrap_or_default();
        if !reserve.is_nothing() {
            // What was refused is kept no more.
            self.dirty.append(&mut self.roomless);
        }
        if let Some(load) = self.coming.get_mut(&assignment.node) {
            load.take(&Limits::UNLIMITED, &reserve, assignment.port);
            if load.stars == 0 {
                self.coming.remove(&assignment.node);
            }
        }
    }

    /// Whatever of an assignment was refused may be planned anew.
    fn assigned(&mut self, command: &Command) {
        let Command::Assign { stars, .. } = command else { return };
        for assignment in stars {
            self.not_assigning(assignment);
            self.dirty.insert(assignment.service.clone());
        }
    }

    /// A proposal failed: somebody is told, or it is tried again a moment later.
    fn not_written(&mut self, failed: Proposal, problem: model::Problem, step: &mut Step<'_>) {
        if !matches!(failed.purpose, Purpose::Request(_) | Purpose::TakeBack(_)) {
            self.not_written = Some(problem.message.clone());
        }
        match failed.purpose {
            Purpose::Request(id) => {
                if let Command::PutApp { spec, .. } = failed.command.bare() {
                    self.undo_listening(spec, step);
                }
                step.effects.push(Effect::Reply { id, result: Err(problem) });
            }
            Purpose::TakeBack(wait) => self.taken_back(*wait, Some(problem), step),
            Purpose::Assign => {
                let Command::Assign { stars, .. } = &failed.command else { return };
                for assignment in stars {
                    self.not_assigning(assignment);
                    self.timers
                        .set(Timer::Service(assignment.service.clone()), step.now + crate::services::WRITE_AGAIN);
                }
            }
            Purpose::Transitions => {
                let Command::Transitions { changes, .. } = failed.command else { return };
                let at = step.now + crate::services::WRITE_AGAIN;
                self.log.again(changes, at);
                self.timers.set(Timer::Write, at);
            }
            Purpose::Retire => {
                for service in self.retired(&failed.command) {
                    self.timers.set(Timer::Service(service), step.now + crate::services::WRITE_AGAIN);
                }
            }
            Purpose::Peer(_) => self.peer_not_written(step),
            Purpose::Rollout(service) | Purpose::Job(service) | Purpose::Hold(service) => {
                self.timers.set(Timer::Rollout(service), step.now + crate::services::WRITE_AGAIN);
            }
            Purpose::Namespace(_) => self.timers.set(Timer::Namespaces, step.now + crate::services::WRITE_AGAIN),
            Purpose::Forget => {
                let Command::Forget { stars } = failed.command else { return };
                let records = stars.iter().filter_map(|star| self.state.stars.get(star));
                let services: BTreeSet<ServiceKey> = records.map(|star| star.service.clone()).collect();
                for service in services.into_iter().chain(std::mem::take(&mut self.forget_later)) {
                    self.timers.set(Timer::Service(service), step.now + crate::services::WRITE_AGAIN);
                }
            }
        }
    }

    fn due(&mut self, timer: Timer, step: &mut Step<'_>) {
        match timer {
            Timer::Probe(star) => self.probe(star, step),
            Timer::Live(star) => self.probe_life(star, step),
            Timer::Start(star) => self.start_overdue(star, step),
            Timer::Drain(star) => self.star_drained(star, step),
            Timer::Kill(star) => self.kill(star, step),
            Timer::Deadline(star) => self.deadline(star, step),
            Timer::Balloon(star) => self.measure(star, step),
            Timer::Memory => self.look_at_memory(step),
            Timer::Service(service) | Timer::Rollout(service) | Timer::Job(service) | Timer::Hold(service) => {
                self.dirty.insert(service);
            }
            Timer::Listen(service) => self.listen_again(&service, step),
            // Every event ends with a look at what waits to be written.
            Timer::Write => {}
            Timer::Nursery => self.nursery_missing = true,
            Timer::Peers => self.look_at_peers(step),
            Timer::Namespaces => self.look_at_namespaces(step),
        }
    }
}
