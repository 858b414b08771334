//! The loop: every thing that happens comes to one place as an [`Incoming`], becomes an event of the pure [`Node`], and
//! the effects it answers with are performed. Nothing is decided here.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;

use isolate::{FileBind, Launch, Message, Request as Order, StarOrder, Walls};
use model::talk::WAY_IN_STAR;
use model::{
    Bytes, Code, ExitCause, NodeId, ProbeKind, ProbeRole, Problem, RequestId, ServiceKey, StarId, StarTemplate,
};
use node::{Effect, Event, Node, Reply, Request, StartOrder};
use proxy::Proxy;
use state::{Command, Part, StarRecord, State};
use store::{Bundles, Roots, Snapshots, Store};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep_until;

use crate::clock::{self, Clock};
use crate::constellation::vault::{Opened, Vault};
use crate::constellation::{Carrier, Mesh, Shared};
use crate::control::Remote;
use crate::doors::Doors;
use crate::exec::{self, Errand};
use crate::link::{FromNursery, Link};
use crate::memories::Memories;
use crate::namespaces;
use crate::orders::{self, Open, Values};
use crate::probe::{Attempt, probe};
use crate::resources;
use crate::talk::Ways;
use crate::watches::Watches;

/// So many things that happened are looked at before others see what became of them, at most.
const SHOWN_TOGETHER: u32 = 64;

/// Everything that can happen to an agent.
pub(crate) enum Incoming {
    /// Somebody asks for a change; the answer comes when it is on disk.
    Change { request: Box<Request>, answer: Answer },
    /// Somebody looks at the node.
    Look(Box<dyn FnOnce(&Node) + Send>),
    /// The nursery came, went or said something.
    Nursery(FromNursery),
    /// The store wrote a command, or could not.
    Stored { proposal: u64, command: Command, result: Result<u64, Problem> },
    /// The next command of the log that several machines share, and the same as MessagePack where that is at hand.
    Applied { index: u64, command: Arc<Command>, written: Option<::bytes::Bytes> },
    /// That log did not take a command.
    NotProposed { proposal: u64, problem: Problem },
    /// This node leads from now on, or does no more.
    Leads { leads: bool },
    /// A node reported to this one, which leads; answered when that has been taken in, whether the node has a lease.
    Heard { node: NodeId, answer: oneshot::Sender<Result<(), Problem>> },
    /// A leader that a majority followed at this moment or later has heard from this node since.
    Leased { heard: std::time::Instant },
    /// Membership sees a node, or does not.
    Seems { node: NodeId, alive: bool },
    /// No change is taken any more; answered with the state once what was begun is written. For a machine that is alone.
    Freeze { frozen: oneshot::Sender<State> },
    /// What a star is made from is here, with the secrets it is bound to, or could not be fetched.
    Prepared { order: Box<StartOrder>, result: Result<Opened, Problem> },
    /// Changes are taken again.
    Thaw,
    /// How much memory a star uses, where that is measured.
    Measured { star: StarId, used: Option<Bytes> },
    /// How much memory this machine has left.
    MemoryLeft { left: Bytes },
    /// How much memory stars use, now that there is too little.
    Weighed { used: Vec<(StarId, Bytes)> },
    /// What stars of a service made of requests.
    Answered { service: ServiceKey, answers: Vec<(StarId, node::Answers)> },
    /// A probe ended.
    Probed { star: StarId, role: ProbeRole, outcome: Result<(), String> },
    /// The command that a star runs before it stops has ended.
    HookEnded { star: StarId },
    /// Nothing is in flight at a star that gets no more requests.
    Drained { star: StarId },
    /// An entry point was opened, or could not be.
    Listening { service: ServiceKey, result: Result<std::net::SocketAddr, Problem> },
    /// Every star is to end in good order; answered when all have, and when the log knows it.
    Rest { ended: oneshot::Sender<()>, rested: oneshot::Sender<()> },
    /// The agent is to end; answered when the node has had its last word.
    End { ended: oneshot::Sender<()> },
}

type Answer = oneshot::Sender<Result<Reply, Problem>>;

/// What others see of the loop without asking it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Index of the last command applied.
    pub(crate) index: u64,
    pub(crate) nursery: Option<(u32, Walls)>,
}

/// The loop and what it performs effects with.
pub(crate) struct Loop {
    pub(crate) node: Node,
    pub(crate) clock: Clock,
    pub(crate) ledger: Ledger,
    pub(crate) bundles: Arc<Bundles>,
    pub(crate) roots: Arc<Roots>,
    pub(crate) values: Values,
    pub(crate) memories: Arc<Memories>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) data_dir: PathBuf,
    /// This program.
    pub(crate) exe: PathBuf,
    pub(crate) link: Link,
    pub(crate) doors: Doors,
    pub(crate) proxy: Arc<Proxy<Mesh>>,
    pub(crate) mesh: Mesh,
    /// Nothing on a machine that is alone: its files are here or nowhere.
    pub(crate) carrier: Option<Carrier>,
    /// Stars whose files are being fetched, and how to give that up.
    pub(crate) fetching: HashMap<StarId, AbortHandle>,
    /// Where what was begun here reports. Unbounded, but every message ends something the node began, and the node
    /// has at most one of each kind in flight per star, service and proposal.
    pub(crate) done: mpsc::UnboundedSender<Incoming>,
    pub(crate) seen: watch::Sender<Seen>,
    pub(crate) watches: Watches,
    pub(crate) ways: Ways,
    pub(crate) answers: HashMap<RequestId, Answer>,
    pub(crate) next_request: u64,
    /// To ask other nodes what this one cannot see.
    pub(crate) remote: Remote,
    /// Who waits for every star to have ended.
    pub(crate) resting: Option<oneshot::Sender<()>>,
    /// The same, told when no star runs here any more, whether or not that is written.
    pub(crate) ending: Option<oneshot::Sender<()>>,
    /// The node that reported just now, and its answer.
    pub(crate) heard: Option<(NodeId, oneshot::Sender<Result<(), Problem>>)>,
    /// Who waits for everything to be written.
    pub(crate) freezing: Option<oneshot::Sender<State>>,
    pub(crate) frozen: bool,
    /// Commands that the store has not answered.
    pub(crate) storing: u32,
}

/// Where commands are written.
pub(crate) enum Ledger {
    /// By a machine that is alone.
    Alone(Store),
    /// By the voters of a constellation.
    Shared(Shared),
}

impl Loop {
    /// Runs until it is told to end. `asked` is what comes from outside; `reported` the other end of `done`. Gives
    /// back what has to outlive it: the ledger, and the queue that others still report to.
    pub(crate) async fn run(
        mut self,
        mut asked: mpsc::Receiver<Incoming>,
        mut reported: mpsc::UnboundedReceiver<Incoming>,
    ) -> (Ledger, mpsc::UnboundedReceiver<Incoming>) {
        let (mut effects, mut replies, mut unshown) = (Vec::new(), Vec::new(), 0);
        let mut sleep = pin!(sleep_until(tokio::time::Instant::now()));
        loop {
            let deadline = self.node.next_deadline().map(|time| self.clock.instant(time));
            // Most things that happen do not change what is due next.
            if let Some(deadline) = deadline.filter(|deadline| *deadline != sleep.deadline()) {
                sleep.as_mut().reset(deadline);
            }
            let incoming = tokio::select! {
                // What was begun is finished before more is begun.
                biased;
                Some(incoming) = reported.recv() => Some(incoming),
                Some(incoming) = asked.recv() => Some(incoming),
                () = &mut sleep, if deadline.is_some() => None,
            };
            let mut ended = None;
            if let Some(event) = self.translate(incoming, &mut ended) {
                let committed = matches!(event, Event::Committed { .. });
                self.node.handle(self.clock.now(), clock::wall(), event, &mut effects);
                if committed {
                    self.forget_waiting();
                    self.learn_roads();
                    let (state, touched) = (self.node.state(), self.node.touched());
                    if touched.iter().any(|part| matches!(part, Part::Node(_))) {
                        self.watches.learn_machines(&state.nodes);
                    }
                    self.watches.push(state.index, touched.iter().map(|part| (part.to_string(), part.is_in(state))));
                }
                for effect in effects.drain(..) {
                    match effect {
                        Effect::Reply { id, result } => replies.push((id, result)),
                        effect => self.perform(effect),
                    }
                }
            }
            if let Some((node, answer)) = self.heard.take() {
                let given_up = || Problem::new(Code::Conflict, "the node is given up, and is not welcomed back yet");
                // Nobody may be waiting any more.
                let _ = answer.send(self.node.leases(node).then_some(()).ok_or_else(given_up));
            }
            // What comes together is shown together: many wait, and each word of it wakes them.
            unshown += 1;
            if (reported.is_empty() && asked.is_empty()) || unshown >= SHOWN_TOGETHER || ended.is_some() {
                self.show();
                unshown = 0;
                // Who is answered may look at once, and sees what it asked for.
                replies.drain(..).for_each(|(id, result)| self.reply(id, result));
            }
            if self.storing == 0
                && let Some(frozen) = self.freezing.take()
            {
                // Nobody may be waiting any more.
                let _ = frozen.send(self.node.state().clone());
            }
            if self.ending.is_some() && self.node.stars_here() == 0 {
                // Nobody may be waiting any more.
                let _ = self.ending.take().map(|ended| ended.send(()));
            }
            if self.resting.is_some() && self.node.is_at_rest() {
                // Nobody may be waiting any more.
                let _ = self.resting.take().map(|rested| rested.send(()));
            }
            if let Some(ended) = ended {
                // Nobody may be waiting any more.
                let _ = ended.send(());
                return (self.ledger, reported);
            }
        }
    }

    /// What an incoming thing means to the node: mostly one event.
    fn translate(&mut self, incoming: Option<Incoming>, end: &mut Option<oneshot::Sender<()>>) -> Option<Event> {
        Some(match incoming {
            None => Event::Tick,
            Some(Incoming::Change { answer, .. }) if self.frozen => {
                let problem = Problem::new(Code::Unavailable, "this machine is just becoming part of a constellation");
                // Nobody may be waiting any more.
                let _ = answer.send(Err(problem.help("try again in a moment")));
                return None;
            }
            Some(Incoming::Change { request, answer }) => {
                self.next_request += 1;
                let id = RequestId(self.next_request);
                self.answers.insert(id, answer);
                Event::Request { id, request: *request }
            }
            Some(Incoming::Look(look)) => {
                look(self.node.look_at(self.clock.now()));
                return None;
            }
            Some(Incoming::Nursery(heard)) => return self.hear(heard),
            Some(Incoming::Stored { command, result: Ok(index), .. }) => {
                self.storing -= 1;
                Event::Committed { index, command }
            }
            Some(Incoming::Stored { proposal, result: Err(problem), .. }) => {
                self.storing -= 1;
                tracing::warn!(%problem, "not written");
                Event::ProposalFailed { proposal, problem }
            }
            Some(Incoming::Applied { index, command, written }) => {
                if let Ledger::Shared(shared) = &self.ledger {
                    shared.feed.push(index, &command, written);
                }
                // Nobody else has it any more.
                Event::Committed { index, command: Arc::unwrap_or_clone(command) }
            }
            Some(Incoming::NotProposed { proposal, problem }) => {
                tracing::debug!(%problem, "not written");
                Event::ProposalFailed { proposal, problem }
            }
            Some(Incoming::Leads { leads }) => Event::Leads { leads },
            Some(Incoming::Heard { node, answer }) => {
                if let Err(problem) = node::rights::is_heard(self.node.state(), node) {
                    // Nobody may be waiting any more.
                    let _ = answer.send(Err(problem));
                    return None;
                }
                self.heard = Some((node, answer));
                Event::Heard { node }
            }
            Some(Incoming::Leased { heard }) => {
                // What has passed since is not left of it.
                let length = node::SINGLETON_LEASE.saturating_sub(heard.elapsed());
                Event::Leased { length }
            }
            Some(Incoming::Seems { node, alive }) => Event::Seems { node, alive },
            Some(Incoming::Freeze { frozen }) => {
                self.frozen = true;
                self.freezing = Some(frozen);
                return None;
            }
            Some(Incoming::Prepared { order, result }) => {
                // Otherwise it was taken back meanwhile.
                self.fetching.remove(&order.star)?;
                match result {
                    Ok(opened) => {
                        self.start(*order, &opened);
                        return None;
                    }
                    Err(problem) => Event::StarStartFailed { star: order.star, reason: problem.message },
                }
            }
            Some(Incoming::Thaw) => {
                self.frozen = false;
                return None;
            }
            Some(Incoming::Measured { star, used }) => Event::Measured { star, used },
            Some(Incoming::MemoryLeft { left }) => Event::MemoryLeft { left },
            Some(Incoming::Weighed { used }) => Event::Weighed { used },
            Some(Incoming::Answered { service, answers }) => Event::Answered { service, answers },
            Some(Incoming::Probed { star, role, outcome }) => Event::Probed { star, role, outcome },
            Some(Incoming::HookEnded { star }) => Event::HookEnded { star },
            Some(Incoming::Drained { star }) => Event::Drained { star },
            Some(Incoming::Listening { service, result }) => Event::Listening { service, result },
            Some(Incoming::Rest { ended, rested }) => {
                (self.ending, self.resting) = (Some(ended), Some(rested));
                Event::Rest
            }
            Some(Incoming::End { ended }) => {
                *end = Some(ended);
                Event::Stop
            }
        })
    }

    fn hear(&mut self, heard: FromNursery) -> Option<Event> {
        Some(match heard {
            FromNursery::Up { pid, stars, walls } => {
                tracing::info!(pid, stars = stars.len(), "nursery up");
                self.seen.send_modify(|seen| seen.nursery = Some((pid, walls)));
                let running = stars.iter().filter(|report| report.ended.is_none());
                let running: BTreeSet<StarId> = running.map(|report| report.star).collect();
                running.iter().for_each(|star| self.doors.admit(*star));
                self.open_ways(&running);
                let never = |cause: &ExitCause| matches!(cause, ExitCause::StartFailed { .. });
                let begun = stars.iter().filter(|report| !report.ended.as_ref().is_some_and(never));
                begun.for_each(|report| self.has_begun(report.star));
                orders::nursery_up(stars)
            }
            FromNursery::Down => {
                self.seen.send_modify(|seen| seen.nursery = None);
                Event::NurseryDown
            }
            FromNursery::Said(Message::Started { star, pid, start_time, elapsed_us }) => {
                tracing::info!(%star, pid, elapsed_us, "star started");
                self.doors.admit(star);
                self.memories.note(star, Ok(()));
                self.has_begun(star);
                Event::StarStarted { star, pid, start_time }
            }
            FromNursery::Said(Message::StartFailed { star, reason }) => {
                tracing::warn!(%star, reason, "star not started");
                self.memories.note(star, Err(&reason));
                self.ways.close(star);
                Event::StarStartFailed { star, reason }
            }
            FromNursery::Said(Message::Exited { star, cause }) => {
                tracing::info!(%star, %cause, "star ended");
                self.doors.forget(star);
                self.ways.close(star);
                Event::StarExited { star, cause }
            }
            FromNursery::Said(Message::Limited { star, problem }) => {
                if let Some(problem) = &problem {
                    tracing::warn!(%star, problem, "limits not changed");
                }
                Event::Limited { star, problem }
            }
            FromNursery::Said(Message::Frozen { star, problem }) => {
                if let Some(problem) = &problem {
                    tracing::warn!(%star, problem, "star not paused or resumed");
                }
                Event::Frozen { star, problem }
            }
            FromNursery::Said(Message::Refused { star, reason }) => {
                tracing::warn!(?star, reason, "nursery refused an order");
                return None;
            }
            FromNursery::Said(_) => return None,
        })
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Propose { proposal, command } => {
                let done = self.done.clone();
                match &self.ledger {
                    Ledger::Alone(_) if self.frozen => {
                        let problem =
                            Problem::new(Code::Unavailable, "this machine is just becoming part of a constellation");
                        let _ = done.send(Incoming::NotProposed { proposal, problem });
                    }
                    Ledger::Alone(store) => {
                        self.storing += 1;
                        store.append(command.clone(), move |result| {
                            let _ = done.send(Incoming::Stored { proposal, command, result });
                        });
                    }
                    Ledger::Shared(shared) => {
                        let shared = shared.clone();
                        // Once it is agreed on it comes back as applied.
                        tokio::spawn(async move {
                            if let Err(problem) = shared.propose(&command).await {
                                let _ = done.send(Incoming::NotProposed { proposal, problem });
                            }
                        });
                    }
                }
            }
            Effect::Reply { id, result } => self.reply(id, result),
            Effect::NamespaceRemoved { namespace } => {
                if let Values::Alone(secrets) = &self.values {
                    namespaces::clear(Arc::clone(secrets), namespace);
                }
            }
            Effect::Start { order } => match (&self.carrier, &self.values) {
                (Some(carrier), Values::Shared(vault))
                    if !carrier.has(&order.template) || !order.template.secrets().is_empty() =>
                {
                    self.fetch(carrier.clone(), vault.clone(), order);
                }
                (_, Values::Shared(_)) => self.start(order, &Opened::new()),
                (_, Values::Alone(secrets)) => {
                    let secrets = Arc::clone(secrets);
                    self.start(order, &secrets);
                }
            },
            Effect::Signal { star, signal } => self.link.order(Order::Signal { star, signal }),
            Effect::Kill { star } => match self.fetching.remove(&star) {
                Some(fetching) => {
                    fetching.abort();
                    let reason = "it was taken back while its files were fetched".to_owned();
                    let failed = Message::StartFailed { star, reason };
                    let _ = self.done.send(Incoming::Nursery(FromNursery::Said(failed)));
                }
                None => self.link.order(Order::Kill { star }),
            },
            Effect::Forget { star } => self.link.order(Order::Forget { star }),
            Effect::Lease { stars, length } => {
                let for_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
                self.link.order(Order::Lease { stars, for_ms });
            }
            Effect::Limit { star, limits } => self.link.order(Order::Limit { star, limits: Box::new(limits) }),
            Effect::Freeze { star, frozen } => self.link.order(Order::Freeze { star, frozen }),
            Effect::Hook { star, command } => {
                let (link, done, data_dir) = (self.link.clone(), self.done.clone(), self.data_dir.clone());
                let errand = self.errand(star, |record| orders::command_in(record, &command));
                tokio::spawn(async move {
                    if let Some(errand) = errand {
                        match exec::hook(&link, &data_dir, errand.await).await {
                            Ok(0) => {}
                            Ok(code) => tracing::warn!(%star, code, "hook failed"),
                            Err(problem) => tracing::warn!(%star, %problem, "hook failed"),
                        }
                    }
                    let _ = done.send(Incoming::HookEnded { star });
                });
            }
            Effect::Measure { star } => {
                let (data_dir, done) = (self.data_dir.clone(), self.done.clone());
                tokio::task::spawn_blocking(move || {
                    let used = working_set(&data_dir, star);
                    let _ = done.send(Incoming::Measured { star, used });
                });
            }
            Effect::LookAtMemory => {
                // Some microseconds: the kernel adds up counters.
                if let Some(left) = resources::memory_left() {
                    let _ = self.done.send(Incoming::MemoryLeft { left });
                }
            }
            Effect::Weigh { stars } => {
                tracing::warn!(stars = stars.len(), "too little memory is left on this machine");
                let (data_dir, done) = (self.data_dir.clone(), self.done.clone());
                tokio::task::spawn_blocking(move || {
                    let used = stars.into_iter().filter_map(|star| Some((star, working_set(&data_dir, star)?)));
                    let _ = done.send(Incoming::Weighed { used: used.collect() });
                });
            }
            Effect::LookAtAnswers { service } => {
                let (remote, done) = (self.remote.clone(), self.done.clone());
                tokio::spawn(async move {
                    let answers = remote.answers_of(&service).await;
                    let _ = done.send(Incoming::Answered { service, answers });
                });
            }
            Effect::Probe { star, role, port, host_network, kind, timeout } => {
                let inside = match &kind {
                    ProbeKind::Exec { command } => self.errand(star, |record| orders::command_in(record, command)),
                    ProbeKind::Script { path } => self.errand(star, |_| Launch::Script { path: path.clone() }),
                    ProbeKind::Started | ProbeKind::Tcp | ProbeKind::Http { .. } => None,
                };
                let attempt = Attempt { star, port: port.unwrap_or_default(), host_network, kind, timeout };
                let (doors, link, done) = (self.doors.clone(), self.link.clone(), self.done.clone());
                tokio::spawn(async move {
                    let outcome = match inside {
                        Some(errand) => exec::probe(&link, timeout, errand.await).await,
                        None => probe(&doors, &attempt).await,
                    };
                    let _ = done.send(Incoming::Probed { star, role, outcome });
                });
            }
            Effect::Listen { service, entry } => {
                let (proxy, done) = (Arc::clone(&self.proxy), self.done.clone());
                // What is accepted is served on the threads that accept it.
                clock::traffic().spawn(async move {
                    let result = proxy.listen(service.clone(), entry).await;
                    let _ = done.send(Incoming::Listening { service, result });
                });
            }
            Effect::Unlisten { service } => self.proxy.unlisten(&service),
            Effect::Publish { service, set, balance } => self.proxy.publish(&service, set, balance),
            Effect::Drain { star, service } => {
                // Closed to new requests here and now; only the waiting is left to a task. Other nodes close to it when they
                // hear of it, and leave when theirs are answered.
                let quiet = self.proxy.drain(&service, star);
                let (mesh, done) = (self.mesh.clone(), self.done.clone());
                tokio::spawn(async move {
                    quiet.await;
                    mesh.until_left(star).await;
                    let _ = done.send(Incoming::Drained { star });
                });
            }
        }
    }

    /// Orders a star whose files are here, and whose secrets `values` gives.
    fn start(&mut self, order: StartOrder, values: &dyn Open) {
        let (bundles, roots) = (&self.bundles, &self.roots);
        let memory = self.memories.take(&order.service, order.star);
        let way = self.way(order.star, &order.template);
        let ordinal = self.node.state().stars.get(&order.star).map_or(0, |record| record.ordinal);
        let made =
            orders::star_order(order, bundles, roots, values, &self.snapshots, &self.data_dir, &self.exe, ordinal);
        match made.map(|order| with_way(StarOrder { memory, ..order }, way)) {
            Ok(order) => self.link.order(Order::Start(Box::new(order))),
            Err((star, reason)) => {
                let failed = Message::StartFailed { star, reason };
                let _ = self.done.send(Incoming::Nursery(FromNursery::Said(failed)));
            }
        }
    }

    /// The folder of a star's way to this agent, opened; nothing for one that wants none.
    fn way(&self, star: StarId, template: &StarTemplate) -> Option<PathBuf> {
        if !self.ways.wanted(template, self.bundles.path(&template.bundle).as_deref()) {
            return None;
        }
        let opened = self.ways.open(star);
        opened.inspect_err(|error| tracing::warn!(%star, %error, "a star has no way to its agent")).ok()
    }

    /// Opens the ways of stars that were there before this agent.
    fn open_ways(&self, running: &BTreeSet<StarId>) {
        self.ways.sweep(running);
        for star in running {
            if let Some(record) = self.node.state().stars.get(star) {
                self.way(*star, &record.template);
            }
        }
    }

    /// Has a star's files and secrets fetched from other nodes; it is started when they are here.
    fn fetch(&mut self, carrier: Carrier, vault: Vault, order: StartOrder) {
        // Ordered anew, because the nursery is, while they are on their way.
        if self.fetching.contains_key(&order.star) {
            return;
        }
        let (star, done) = (order.star, self.done.clone());
        let fetching = tokio::spawn(async move {
            let prepared = async {
                carrier.prepare(&order.template).await?;
                if order.template.secrets().is_empty() { Ok(Opened::new()) } else { vault.of_star(star).await }
            };
            let result = prepared.await;
            if let Err(problem) = &result {
                tracing::warn!(%star, %problem, "what a star needs is not here");
            }
            let _ = done.send(Incoming::Prepared { order: Box::new(order), result });
        });
        self.fetching.insert(star, fetching.abort_handle());
    }

    /// What a star was to begin with is its own from here on.
    fn has_begun(&self, star: StarId) {
        let Some(record) = self.node.state().stars.get(&star) else { return };
        if self.snapshots.awaits(&record.service) {
            let (snapshots, service, ordinal) = (Arc::clone(&self.snapshots), record.service.clone(), record.ordinal);
            tokio::task::spawn_blocking(move || snapshots.taken(&service, ordinal, star));
        }
    }

    /// Where the other nodes are is what the log says.
    fn learn_roads(&self) {
        if let Ledger::Shared(shared) = &self.ledger {
            shared.roads.learn(self.node.state());
        }
    }

    /// Files wait for no service that is gone: another one of its name is not it.
    fn forget_waiting(&self) {
        let services = &self.node.state().services;
        if self.snapshots.wait_only_for(|service| services.contains_key(service)) {
            let snapshots = Arc::clone(&self.snapshots);
            tokio::task::spawn_blocking(move || snapshots.sweep_waiting());
        }
    }

    /// What is to be run within a star; nothing when it is not known any more.
    fn errand(
        &self,
        star: StarId,
        launch: impl FnOnce(&StarRecord) -> Launch,
    ) -> Option<Pin<Box<dyn Future<Output = Errand> + Send>>> {
        let record = self.node.state().stars.get(&star)?.clone();
        let (launch, values) = (launch(&record), self.values.clone());
        Some(Box::pin(async move { Errand { star, launch, env: values.environment(&record).await } }))
    }

    fn reply(&mut self, id: RequestId, result: Result<Reply, Problem>) {
        if let Some(answer) = self.answers.remove(&id) {
            // Nobody may be waiting any more.
            let _ = answer.send(result);
        }
    }

    /// Lets those who wait for the log to move on know that it did.
    fn show(&self) {
        let index = self.node.state().index;
        self.seen.send_if_modified(|seen| std::mem::replace(&mut seen.index, index) != index);
        self.watches.reached(index);
        if let Ledger::Shared(shared) = &self.ledger {
            shared.feed.reached(index);
        }
    }
}

/// What a star uses and the kernel could not take back at once, where this machine measures it.
fn working_set(data_dir: &Path, star: StarId) -> Option<Bytes> {
    isolate::stats(data_dir, star).ok()?.memory_working_set.map(Bytes)
}

/// A star with the way it was given, unless it has something of its own at that place.
fn with_way(mut order: StarOrder, way: Option<PathBuf>) -> StarOrder {
    let inside = |path: &String| path == WAY_IN_STAR || path.starts_with(&format!("{WAY_IN_STAR}/"));
    let interior = &order.interior;
    let taken = order.volumes.iter().map(|volume| &volume.inside).any(inside)
        || interior.tmpfs.iter().map(|tmpfs| &tmpfs.inside).any(inside)
        || interior.files.iter().map(|file| &file.inside).any(inside)
        || interior.secrets.iter().map(|secret| &secret.inside).any(inside);
    if let Some(host) = way.filter(|_| !taken) {
        order.interior.files.push(FileBind { host, inside: WAY_IN_STAR.to_owned(), file: false, read_only: true });
    }
    order
}
