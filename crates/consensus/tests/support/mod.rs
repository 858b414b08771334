//! Several voters in one process: their network, which can be cut anywhere, their disks, which outlive them, and whoever
//! listens to them.
#![allow(dead_code, unreachable_pub)] // each test takes its own part

use std::collections::{BTreeMap, BTreeSet};
use std::future::{self, Future};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use consensus::{Applied, Config, Consensus, Lane, Outcome, PeerError, Peers, Refusal, Role};
use futures_util::future::{BoxFuture, FutureExt};
use model::{NodeId, ServiceKey, WallTime};
use state::{Command, State};

pub mod disk;
#[path = "../../../store/tests/sample/mod.rs"]
pub mod sample;

pub use disk::InMemory;

/// Long enough for anything on a busy machine; a test that waits this long has failed.
pub const SOON: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Net {
    voters: Mutex<BTreeMap<NodeId, Consensus>>,
    /// From, to: nothing arrives, nobody is told.
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
    /// How many more pieces of snapshots arrive before one is lost on the way.
    pieces: Mutex<Option<u32>>,
    /// Who led which term, and whatever must not be.
    leaders: Mutex<(BTreeMap<u64, NodeId>, Vec<String>)>,
    /// Counts requests by lane and sender.
    pub sent: Mutex<BTreeMap<(NodeId, String), u64>>,
}

#[derive(Clone)]
pub struct Wire {
    me: NodeId,
    net: Arc<Net>,
}

impl Net {
    pub fn wire(self: &Arc<Self>, me: NodeId) -> Wire {
        Wire { me, net: Arc::clone(self) }
    }

    pub fn connect(&self, voter: NodeId, consensus: &Consensus) {
        self.voters.lock().unwrap().insert(voter, consensus.clone());
    }

    pub fn disconnect(&self, voter: NodeId) {
        self.voters.lock().unwrap().remove(&voter);
    }

    pub fn cut_one_way(&self, from: NodeId, to: NodeId) {
        self.cut.lock().unwrap().insert((from, to));
    }

    /// Cuts everything between the two groups.
    pub fn cut(&self, some: &[NodeId], others: &[NodeId]) {
        for (some, other) in some.iter().flat_map(|some| others.iter().map(move |other| (*some, *other))) {
            self.cut_one_way(some, other);
            self.cut_one_way(other, some);
        }
    }

    pub fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }

    pub fn lose_pieces_after(&self, pieces: u32) {
        *self.pieces.lock().unwrap() = Some(pieces);
    }

    fn leads(&self, term: u64, node: NodeId) {
        let mut leaders = self.leaders.lock().unwrap();
        let first = *leaders.0.entry(term).or_insert(node);
        if first != node {
            leaders.1.push(format!("{first} and {node} both led term {term}"));
        }
    }

    fn passes(&self, from: NodeId, to: NodeId) -> bool {
        !self.cut.lock().unwrap().contains(&(from, to))
    }

    fn loses_piece(&self) -> bool {
        let mut left = self.pieces.lock().unwrap();
        match *left {
            Some(0) => {
                *left = None;
                true
            }
            Some(more) => {
                *left = Some(more - 1);
                false
            }
            None => false,
        }
    }
}

impl Peers for Wire {
    fn request(
        &self,
        to: NodeId,
        lane: Lane,
        request: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, PeerError>> + Send + 'static + use<> {
        let (net, me) = (Arc::clone(&self.net), self.me);
        *net.sent.lock().unwrap().entry((me, format!("{lane:?}"))).or_default() += 1;
        // What RNP carries in a frame: a mebibyte, sixteen of bulk.
        let most = if lane == Lane::Bulk { 16 << 20 } else { 1 << 20 };
        if request.len() > most {
            net.leaders.lock().unwrap().1.push(format!("a request of {} bytes on {lane:?}", request.len()));
        }
        let there = net.voters.lock().unwrap().get(&to).cloned();
        let answer: BoxFuture<'static, _> = match there {
            None => future::ready(Err(PeerError::Unreachable("not there".to_owned()))).boxed(),
            Some(_) if !net.passes(me, to) => future::pending().boxed(),
            Some(_) if lane == Lane::Bulk && net.loses_piece() => {
                future::ready(Err(PeerError::Failed("lost".to_owned()))).boxed()
            }
            // Arrives at once, in order; the answer may be cut off later.
            Some(there) => there.handle(me, &request).map(Ok).boxed(),
        };
        async move {
            let answer = answer.await;
            if !net.passes(to, me) {
                future::pending::<()>().await;
            }
            answer
        }
    }
}

/// What one voter told whoever listens, checked while it comes.
#[derive(Debug, Default)]
pub struct Heard {
    pub state: Option<State>,
    pub states: u64,
    pub commands: u64,
}

/// A voter and what belongs to it.
pub struct Voter {
    pub consensus: Consensus,
    pub heard: Arc<Mutex<Heard>>,
    pub fatal: Arc<Mutex<Option<String>>>,
}

pub async fn start(config: Config, disk: impl consensus::Disk, net: &Arc<Net>) -> Voter {
    let me = config.me;
    let fatal: Arc<Mutex<Option<String>>> = Arc::default();
    let told = Arc::clone(&fatal);
    let on_fatal = move |problem: &model::Problem| *told.lock().unwrap() = Some(problem.message.clone());
    let (consensus, mut applied) = Consensus::start(config, disk, net.wire(me), on_fatal).await.unwrap();
    net.connect(me, &consensus);
    let (mut statuses, terms) = (consensus.watch(), Arc::clone(net));
    tokio::spawn(async move {
        while statuses.changed().await.is_ok() {
            if let Some(now) = statuses.borrow_and_update().as_ref().filter(|now| now.role == Role::Leader) {
                terms.leads(now.term, me);
            }
        }
    });
    let heard: Arc<Mutex<Heard>> = Arc::default();
    let hears = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Some(applied) = applied.recv().await {
            hears.lock().unwrap().hear(applied);
        }
    });
    Voter { consensus, heard, fatal }
}

impl Heard {
    fn hear(&mut self, applied: Applied) {
        match applied {
            Applied::State(new) => {
                let before = self.state.as_ref().map_or(0, |state| state.index);
                assert!(new.index >= before, "a state of {} after command {before}", new.index);
                self.state = Some((*new).clone());
                self.states += 1;
            }
            Applied::Command { index, command, changes, .. } => {
                let state = self.state.as_mut().expect("the state comes first");
                assert!(index > state.index, "command {index} after command {}", state.index);
                assert_eq!(state::apply(state, index, &command), changes, "command {index}");
                self.commands += 1;
            }
        }
    }
}

/// Voters that come and go, on disks in memory.
pub struct Cluster {
    pub net: Arc<Net>,
    pub disks: BTreeMap<NodeId, InMemory>,
    pub voters: BTreeMap<NodeId, Voter>,
    pub config: Config,
}

/// These nodes.
pub fn set(nodes: impl IntoIterator<Item = u64>) -> BTreeSet<NodeId> {
    nodes.into_iter().map(NodeId).collect()
}

impl Cluster {
    /// `count` voters, numbered from 1, that agree on an app of seven services.
    pub async fn start(count: u64) -> Self {
        Self::with(count, Config::new(NodeId(0))).await
    }

    pub async fn with(count: u64, config: Config) -> Self {
        let mut this = Self { net: Arc::default(), disks: BTreeMap::new(), voters: BTreeMap::new(), config };
        let first = NodeId(1);
        consensus::found(&mut this.disk(first).open(), first, &State::default()).unwrap();
        this.up(first).await;
        this.propose(&sample::command(1)).await;
        for node in (2..=count).map(NodeId) {
            this.up(node).await;
            this.voters[&first].consensus.set_voters(&set(1..=node.0)).await.unwrap();
        }
        this
    }

    pub fn disk(&mut self, node: NodeId) -> InMemory {
        self.disks.entry(node).or_default().clone()
    }

    /// Starts a voter on the disk it has.
    pub async fn up(&mut self, node: NodeId) {
        let disk = self.disk(node).open();
        let voter = start(Config { me: node, ..self.config.clone() }, disk, &self.net).await;
        self.voters.insert(node, voter);
    }

    /// As `kill -9`: from this moment on nothing of it is written or sent.
    pub async fn kill(&mut self, node: NodeId) {
        self.disks[&node].kill_user();
        self.net.disconnect(node);
        let voter = self.voters.remove(&node).unwrap();
        // Off the way of whoever measures.
        tokio::spawn(async move { voter.consensus.stop().await });
    }

    pub fn voter(&self, node: NodeId) -> &Consensus {
        &self.voters[&node].consensus
    }

    pub fn heard(&self, node: NodeId) -> MutexGuard<'_, Heard> {
        self.voters[&node].heard.lock().unwrap()
    }

    pub fn all(&self) -> Vec<NodeId> {
        self.voters.keys().copied().collect()
    }

    /// One that says it is the leader.
    pub fn leader_now(&self) -> Option<NodeId> {
        self.voters.iter().find(|(_, voter)| voter.consensus.status().role == Role::Leader).map(|(node, _)| *node)
    }

    /// Waits until one of these leads.
    pub async fn leader_of(&self, among: &[NodeId]) -> NodeId {
        let elected = among.iter().map(|node| {
            let voter = self.voter(*node).clone();
            let node = *node;
            async move {
                match voter.wait_for(SOON, |now| now.role == Role::Leader).await {
                    Some(_) => node,
                    None => future::pending().await,
                }
            }
            .boxed()
        });
        tokio::time::timeout(SOON, future_select(elected.collect())).await.expect("a leader")
    }

    pub async fn leader(&self) -> NodeId {
        self.leader_of(&self.all()).await
    }

    /// Proposes to whoever leads, until it is agreed on.
    pub async fn propose(&self, command: &Command) -> Outcome {
        self.propose_to(&self.all(), command).await
    }

    /// The same, to some of them.
    pub async fn propose_to(&self, among: &[NodeId], command: &Command) -> Outcome {
        let end = Instant::now() + SOON;
        loop {
            for node in among {
                match self.voter(*node).propose(command).await {
                    Ok(outcome) => return outcome,
                    Err(refusal) => assert!(Instant::now() < end, "{refusal:?}"),
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Waits until all have applied and told what any of them has.
    pub async fn settle(&self) -> State {
        self.propose(&scale(0, 0)).await;
        // One of them may think it leads, still.
        let end = Instant::now() + SOON;
        let (leader, target) = loop {
            let leader = self.leader().await;
            match self.voter(leader).read_index().await {
                Ok(index) => break (leader, index),
                Err(refusal) => assert!(Instant::now() < end, "{refusal:?}"),
            }
        };
        for (node, voter) in &self.voters {
            let reached = voter.consensus.wait_for(SOON, |now| now.applied >= target).await;
            assert!(reached.is_some(), "{node} stays behind {target}: {:?}", voter.consensus.status());
        }
        assert_eq!(self.net.leaders.lock().unwrap().1, Vec::<String>::new());
        let state = self.voter(leader).state();
        for (node, voter) in &self.voters {
            assert_eq!(*voter.consensus.state(), *state, "{node}");
            let end = Instant::now() + SOON;
            while voter.heard.lock().unwrap().state.as_ref() != Some(&*state) {
                assert!(Instant::now() < end, "{node} has not told all it applied");
                tokio::task::yield_now().await;
            }
            assert_eq!(*voter.fatal.lock().unwrap(), None, "{node}");
        }
        (*state).clone()
    }
}

/// The network knows the voters, which know the network: one of them must let go.
impl Drop for Cluster {
    fn drop(&mut self) {
        self.net.voters.lock().unwrap().clear();
    }
}

async fn future_select<T>(futures: Vec<BoxFuture<'_, T>>) -> T {
    futures_util::future::select_all(futures).await.0
}

pub fn service(number: u64) -> ServiceKey {
    ServiceKey::in_default(format!("web-{number}").parse().unwrap())
}

/// Writes a number into one of seven registers.
pub fn scale(register: u64, value: u32) -> Command {
    Command::Scale { service: service(register), instances: value, wall: WallTime(1) }
}

/// What is in it.
pub fn register(state: &State, register: u64) -> u32 {
    state.services[&service(register)].spec.instances
}

pub fn is_not_leader(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::NotLeader { .. })
}
