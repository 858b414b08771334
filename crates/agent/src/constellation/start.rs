//! From what a node keeps on its disk to a running part of its constellation.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use consensus::{Applied, Consensus};
use model::{Code, NodeFacts, NodeId, NodeRole, Problem, Standing, StarPhase};
use net::identity::Revoked;
use net::tls::SystemClock;
use net::{Endpoint, Limits, Threads, Timing};
use state::{NodeRecord, State};
use store::{EXIT_DISK_FAILED, Followed, SharedLog};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::certs::Certs;
use super::discovery;
use super::disk::OnDisk;
use super::entry::{self, Standpoint};
use super::feed::Feed;
use super::follow::Follower;
use super::gossip::{Gossip, random_seed};
use super::gossip_keys::GossipKeys;
use super::home::{Home, JOIN_ANEW, folder};
use super::lead;
use super::let_go;
use super::order::Order;
use super::patience::Patience;
use super::peers::Voters;
use super::registrar::Registrar;
use super::report;
use super::roads::Roads;
use super::rotation;
use super::security;
use super::shared::Shared;
use super::switchboard::{DataPlane, Lines, Switchboard};
use super::twin::{Start, Twins};
use crate::clock::{self, Clock};
use crate::control::Looker;
use crate::main_loop::{Incoming, Seen};

/// What the agent holds of a node's part in its constellation.
pub(crate) struct Part {
    pub(crate) home: Arc<Home>,
    pub(crate) shared: Shared,
    pub(crate) gossip: Gossip,
    /// Where the loop begins.
    pub(crate) state: State,
    certs: Certs,
    gossip_keys: GossipKeys,
    leaves: Arc<AtomicBool>,
    begin: Begin,
}

/// What begins to run once the loop does.
struct Begin {
    follower: Follower,
    applied: Option<mpsc::Receiver<Applied>>,
    /// How far the own voter had come.
    told: u64,
    switchboard: Arc<Switchboard>,
    listener: TcpListener,
    ask: mpsc::Sender<Incoming>,
    run: Start,
    twins: mpsc::Receiver<SocketAddr>,
    threads: Threads,
}

/// Opens what the node has, and finds the state to begin with: the newer of what its voter and its copy know. One that knows
/// nothing waits until a controller tells it. It is called where votes are to be heard. Nothing comes of it where the others
/// have let go of the node meanwhile: then it has forgotten that it was one.
///
/// # Errors
/// `PortInUse`, `DataCorrupt`, `DiskFull`, `DataUnwritable`; `NodeTwice` when another agent is this node.
pub(crate) async fn start(
    mut home: Home,
    facts: NodeFacts,
    data_dir: PathBuf,
    clock: Clock,
    ask: mpsc::Sender<Incoming>,
    seen: watch::Receiver<Seen>,
    threads: Threads,
) -> Result<Option<Part>, Problem> {
    begin_log(&mut home, &data_dir)?;
    let home = Arc::new(home);
    let switchboard = Arc::new(Switchboard::default());
    let endpoint = Endpoint::new(net::Config {
        node: home.node,
        certificate: home.certified()?,
        trust: home.trust(Revoked::default())?,
        service: Arc::clone(&switchboard) as Arc<dyn net::Service>,
        clock: Arc::new(SystemClock),
        timing: Timing::DEFAULT,
        limits: Limits::default(),
        threads: threads.clone(),
    });
    let roads = Roads::new(&home, endpoint);
    // Before it listens, so that nobody but another one can answer in this node's name, and before it votes.
    let run = Start::new(&home, random_seed());
    let seeds: Vec<NodeId> = home.seeds.iter().map(|seed| seed.node).collect();
    run.is_first(&roads, Some(&home.advertise), &seeds).await?;
    let listener = TcpListener::bind(home.listen).await.map_err(|error| in_use(home.listen, "TCP", &error))?;
    let (followed, copied) = Followed::open(&folder(&data_dir).join("followed"))?;
    let (voter, applied, own) = match home.role {
        NodeRole::Controller => {
            let (voter, applied, own) = start_voter(&home, &data_dir, &roads).await?;
            (Some(voter), Some(applied), own)
        }
        NodeRole::Worker => (None, None, State::default()),
    };
    let (told, feed) = (own.index, Feed::new());
    let last = followed.last();
    let mut follower =
        Follower { roads: roads.clone(), feed: feed.clone(), followed: Arc::new(Mutex::new(followed)), last };
    let mut state = if own.index >= copied.index { own } else { copied };
    if state.cluster.is_none() {
        tracing::info!(cluster = %home.cluster, "this node knows nothing yet: it asks a controller");
        match follower.first_state(&seeds).await? {
            Some(first) => state = first,
            None => return let_go::forget(&home, &data_dir).map(|()| None),
        }
    }
    roads.learn(&state);
    if seeds.is_empty() {
        // A founder. Its voter is not heard yet, and waits for a leader before it asks for votes itself.
        run.is_first(&roads, None, &controllers(&state)).await?;
    }
    // Before its stars start again: what they held may be elsewhere, or given up.
    let runs = state.stars.on_node(home.node).any(|star| star.phase != StarPhase::Ended);
    if runs
        && !let_go::keeps_the_log(voter.as_ref(), home.node)
        && let_go::is_by_most(&roads, &controllers(&state), let_go::WITHIN_BEFORE).await
    {
        return let_go::forget(&home, &data_dir).map(|()| None);
    }
    feed.begin(state.index);
    match security::trust(&state) {
        Ok(trust) => roads.endpoint().set_trust(trust),
        Err(problem) => tracing::error!(%problem, "this node believes whom it believed last"),
    }
    let shared = Shared {
        voter,
        roads: roads.clone(),
        feed,
        looker: Looker { ask: ask.clone() },
        seen,
        followed: Arc::default(),
        patience: Patience::PERSON,
    };
    let registrar = match home.role {
        NodeRole::Controller => Some(Registrar::new(shared.clone(), Arc::clone(&home), Arc::new(SystemClock))?),
        NodeRole::Worker => None,
    };
    let certs = Certs {
        home: Arc::new(Mutex::new(Home::clone(&home))),
        data_dir,
        roads: roads.clone(),
        log: shared.clone(),
        registrar,
        clock: Arc::new(SystemClock),
    };
    let (hint, twins) = mpsc::channel(1);
    let gossip = Gossip::start(&home, &facts, clock, roads, ask.clone(), hint).await?;
    let gossip_keys = GossipKeys::new(&home, certs.clone(), gossip.clone())?;
    let begin = Begin { follower, applied, told, switchboard, listener, ask, run, twins, threads };
    Ok(Some(Part { home, shared, gossip, state, certs, gossip_keys, leaves: Arc::default(), begin }))
}

impl Part {
    /// Lets everything run that talks to the loop, which must run from here on. `again` is told when the agent has to begin
    /// anew from what is on its disk, `over` why it has to end.
    pub(crate) fn run(
        self,
        facts: NodeFacts,
        data_dir: &Path,
        data: DataPlane,
        again: mpsc::Sender<()>,
        over: mpsc::Sender<Problem>,
    ) -> Running {
        let standpoint = self.standpoint();
        let carrier = data.carrier.clone();
        let Self { home, shared, gossip, state, certs, gossip_keys, begin, .. } = self;
        let Begin { follower, applied, told, switchboard, listener, ask, run, twins: hints, threads } = begin;
        let twins = Twins::new(run, shared.clone(), over);
        let registrar = certs.registrar.clone();
        let lines = Lines {
            voter: shared.voter.clone(),
            shared: shared.clone(),
            gossip: gossip.clone(),
            data,
            registrar: registrar.as_ref().map(|registrar| registrar.over(shared.with(Patience::MACHINE))),
            gossip_keys: gossip_keys.clone(),
            twins: twins.clone(),
            ask: ask.clone(),
        };
        switchboard.connect(lines);
        let order = Arc::new(Order::new(ask.clone(), state.index));
        let (follow, wanted) = watch::channel(shared.voter.is_none());
        let _within = threads.control.enter();
        let mut tasks = JoinSet::new();
        let endpoint = shared.roads.endpoint().clone();
        let serving = async move {
            // Who calls wakes the thread that this runs on.
            let here = listener.into_std().and_then(TcpListener::from_std);
            let served = match &here {
                Ok(listener) => endpoint.serve(listener).await,
                Err(error) => Err(error.kind().into()),
            };
            if let Err(error) = served {
                tracing::error!(%error, "no more connections from other nodes are accepted");
            }
        };
        tasks.spawn_on(serving, &threads.data);
        if let (Some(voter), Some(applied)) = (shared.voter.clone(), applied) {
            let told = Arc::new(AtomicU64::new(told));
            tasks.spawn(lead::hear(applied, Arc::clone(&order), Arc::clone(&told)));
            tasks.spawn(lead::stand(voter.clone(), shared.feed.clone(), Arc::clone(&order), told, follow));
            tasks.spawn(lead::lead(voter, shared.clone(), ask.clone()));
        } else {
            // A worker follows for as long as it runs.
            tasks.spawn(async move {
                follow.closed().await;
            });
        }
        if home.discoverable && home.role == NodeRole::Controller {
            tasks.spawn(discovery::answer(Arc::clone(&home)));
        }
        tasks.spawn(twins.watch(home.advertise.clone(), hints));
        tasks.spawn(certs.clone().follow(shared.seen.clone()));
        tasks.spawn(certs.renew());
        tasks.spawn(gossip_keys.clone().follow(shared.seen.clone()));
        if let Some(registrar) = registrar.clone() {
            tasks.spawn(gossip_keys.lead());
            tasks.spawn(rotation::run(registrar, shared.clone(), Arc::new(SystemClock)));
        }
        tasks.spawn(follower.run(shared.looker.clone(), order, wanted, again.clone()));
        tasks.spawn(entry::until_removed(standpoint, data_dir.to_owned(), again));
        tasks.spawn(report::run(shared.clone(), ask));
        tasks.spawn_on(carrier.collect_now_and_then(shared.clone()), &threads.data);
        tasks.spawn(report::describe(shared.clone(), home.advertise.clone(), facts));
        Running { shared, tasks }
    }

    pub(crate) fn standpoint(&self) -> Standpoint {
        Standpoint {
            home: Arc::clone(&self.home),
            shared: self.shared.clone(),
            gossip: self.gossip.clone(),
            registrar: self.certs.registrar.clone(),
            gossip_keys: self.gossip_keys.clone(),
            leaves: Arc::clone(&self.leaves),
        }
    }
}

/// A node's part in its constellation, running.
pub(crate) struct Running {
    shared: Shared,
    tasks: JoinSet<()>,
}

impl Running {
    /// Ends it: a leader hands its place on, and what was acknowledged is on the disk when this returns.
    pub(crate) async fn end(mut self) {
        if let Some(voter) = &self.shared.voter {
            voter.shutdown().await;
        }
        self.tasks.abort_all();
        self.shared.roads.endpoint().goodbye("the agent is ending").await;
    }
}

/// Those that have not left.
pub(super) fn controllers(state: &State) -> Vec<NodeId> {
    let there = |record: &NodeRecord| record.role == NodeRole::Controller && record.standing != Standing::Left;
    state.nodes.iter().filter(|(_, record)| there(record)).map(|(node, _)| *node).collect()
}

async fn start_voter(
    home: &Home,
    data_dir: &Path,
    roads: &Roads,
) -> Result<(Consensus, mpsc::Receiver<Applied>, State), Problem> {
    let disk = OnDisk::open(&log_folder(data_dir)).map_err(|problem| match problem.code {
        Code::DataCorrupt => problem.help(JOIN_ANEW),
        _ => problem,
    })?;
    let config = consensus::Config { beats_from: Some(clock::beats_from()), ..consensus::Config::new(home.node) };
    let failed = |problem: &Problem| {
        eprintln!("{problem}");
        std::process::exit(EXIT_DISK_FAILED)
    };
    let (voter, mut applied) = Consensus::start(config, disk, Voters::new(roads.clone()), failed).await?;
    match applied.recv().await {
        Some(Applied::State(state)) => Ok((voter, applied, State::clone(&state))),
        _ => Err(Problem::new(Code::Internal, "the shared log tells no state to begin with")),
    }
}

/// Begins a controller's part of the log, and remembers that there is one.
pub(super) fn begin_log(home: &mut Home, data_dir: &Path) -> Result<(), Problem> {
    let log = log_folder(data_dir);
    if home.role != NodeRole::Controller {
        return Ok(());
    }
    if home.has_log {
        let gone = || {
            Problem::new(Code::DataCorrupt, format!("`{}`, this node's part of the shared log, is gone", log.display()))
        };
        return SharedLog::is_in(&log).then_some(()).ok_or_else(|| gone().help(JOIN_ANEW));
    }
    drop(OnDisk::open(&log)?);
    home.has_log = true;
    home.write(data_dir)
}

/// Where a voter keeps its part of the log.
pub(crate) fn log_folder(data_dir: &Path) -> std::path::PathBuf {
    folder(data_dir).join("log")
}

pub(super) fn in_use(address: SocketAddr, what: &str, error: &io::Error) -> Problem {
    let problem = Problem::new(Code::PortInUse, format!("cannot listen on `{address}` ({what}): {error}"));
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            problem.help("another agent or program has it; `--listen` at `rads c init` or `join` chooses another")
        }
        _ => problem,
    }
}
