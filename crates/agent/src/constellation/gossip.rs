//! Membership on real sockets: sealed datagrams, and comparisons over RNP.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use membership::{Attributes, Capacity, Claimed, Config, Effect, Event, Member, Membership, Metadata, Status};
use model::{Millicores, NodeFacts, NodeId, Problem};
use net::identity::KeyRing;
use net::{Datagrams, Purpose};
use rnp::Message;
use rnp::message::GossipSync;
use tokio::sync::{mpsc, oneshot, watch};

use super::home::Home;
use super::roads::{Roads, resolve};
use crate::clock::{self, Clock};
use crate::main_loop::Incoming;

/// Longest wait for the answer to a comparison.
const COMPARE_WITHIN: Duration = Duration::from_secs(5);
/// What waits to be handled; beyond it the newest datagram is dropped, as the network would.
const INBOX_MAX: usize = 1024;
/// How long a goodbye is told; membership ends it after two seconds.
const GOODBYE_WITHIN: Duration = Duration::from_secs(3);
/// A call is repeated so often, this far apart: three datagrams in a row are rarely lost, but where nothing gets through.
const CALLS: u32 = 4;
const CALL_EVERY: Duration = Duration::from_millis(250);

enum Inbox {
    Datagram {
        from: SocketAddr,
        bytes: Vec<u8>,
    },
    Compare {
        bytes: Bytes,
        answer: oneshot::Sender<Vec<u8>>,
    },
    Compared {
        with: SocketAddr,
        bytes: Bytes,
    },
    /// The nodes and where they are have changed.
    Book(BTreeMap<NodeId, SocketAddr>),
    /// Told when a node answers a datagram.
    Call {
        node: NodeId,
        answered: oneshot::Sender<()>,
    },
    Leave,
}

/// Clones are the same membership.
#[derive(Clone)]
pub(crate) struct Gossip {
    inbox: mpsc::Sender<Inbox>,
    gone: watch::Receiver<bool>,
    datagrams: Arc<Datagrams>,
}

struct Running {
    membership: Membership,
    clock: Clock,
    datagrams: Arc<Datagrams>,
    roads: Roads,
    inbox: mpsc::Sender<Inbox>,
    ask: mpsc::Sender<Incoming>,
    gone: watch::Sender<bool>,
    /// Told where somebody else describes itself as this node.
    twins: mpsc::Sender<SocketAddr>,
    book: BTreeMap<NodeId, SocketAddr>,
    answers: HashMap<u64, oneshot::Sender<Vec<u8>>>,
    exchanges: u64,
    /// Who waits for an answer of a node; those that wait no more are dropped with the next call.
    calls: HashMap<NodeId, Vec<oneshot::Sender<()>>>,
}

impl Gossip {
    /// Begins to gossip, on the datagram port of the address that the node listens on.
    pub(crate) async fn start(
        home: &Home,
        facts: &NodeFacts,
        clock: Clock,
        roads: Roads,
        ask: mpsc::Sender<Incoming>,
        twins: mpsc::Sender<SocketAddr>,
    ) -> Result<Self, Problem> {
        let ring = home.gossip_ring()?;
        let datagrams = Datagrams::bind(home.listen, &ring)
            .await
            .map_err(|error| super::start::in_use(home.listen, "UDP", &error))?;
        let datagrams = Arc::new(datagrams);
        let me = Member {
            id: home.node,
            name: home.name.clone(),
            addr: resolve(&home.advertise).await?,
            // More than this node ever had, so that what was said of it before it was away no longer counts.
            incarnation: clock::wall().0 / 1000,
            metadata: metadata(facts),
        };
        let membership = Membership::new(Config::default(), me, clock.now(), random_seed());
        let (inbox, incoming) = mpsc::channel(INBOX_MAX);
        let (gone, going) = watch::channel(false);
        tokio::spawn(receive(Arc::clone(&datagrams), inbox.clone()));
        tokio::spawn(watch_book(roads.clone(), inbox.clone()));
        let running = Running {
            membership,
            clock,
            datagrams: Arc::clone(&datagrams),
            roads,
            inbox: inbox.clone(),
            ask,
            gone,
            twins,
            book: BTreeMap::new(),
            answers: HashMap::new(),
            exchanges: 0,
            calls: HashMap::new(),
        };
        tokio::spawn(running.run(incoming));
        Ok(Self { inbox, gone: going, datagrams })
    }

    /// Goes on with other keys.
    pub(crate) fn set_keys(&self, ring: &KeyRing) {
        self.datagrams.set_keys(ring);
    }

    /// Answers another node's comparison.
    pub(crate) async fn compare(&self, members: Bytes) -> Bytes {
        let (answer, answered) = oneshot::channel();
        // Too busy is no answer.
        let _ = self.inbox.try_send(Inbox::Compare { bytes: members, answer });
        answered.await.unwrap_or_default().into()
    }

    /// Whether datagrams get from here to a node and back.
    pub(crate) async fn call(&self, node: NodeId) -> bool {
        for _ in 0..CALLS {
            let (answered, answer) = oneshot::channel();
            if self.inbox.send(Inbox::Call { node, answered }).await.is_err() {
                return false;
            }
            if let Ok(Ok(())) = tokio::time::timeout(CALL_EVERY, answer).await {
                return true;
            }
        }
        false
    }

    /// Says goodbye, so that nobody has to notice that this node is gone.
    pub(crate) async fn leave(&self) {
        if self.inbox.send(Inbox::Leave).await.is_ok() {
            let mut gone = self.gone.clone();
            // Whoever did not hear it finds out.
            let _ = tokio::time::timeout(GOODBYE_WITHIN, gone.wait_for(|gone| *gone)).await;
        }
    }
}

async fn receive(datagrams: Arc<Datagrams>, inbox: mpsc::Sender<Inbox>) {
    loop {
        match datagrams.receive().await {
            Ok((from, bytes)) => {
                // Full: as if the network had lost it.
                if let Err(mpsc::error::TrySendError::Closed(_)) = inbox.try_send(Inbox::Datagram { from, bytes }) {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "no datagrams can be received");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn watch_book(roads: Roads, inbox: mpsc::Sender<Inbox>) {
    let mut watch = roads.watch();
    loop {
        let book = watch.borrow_and_update().clone();
        let mut known = BTreeMap::new();
        for (node, address) in book {
            match resolve(&address).await {
                Ok(address) => drop(known.insert(node, address)),
                Err(problem) => tracing::warn!(%node, %problem, "a node is not found"),
            }
        }
        if inbox.send(Inbox::Book(known)).await.is_err() || watch.changed().await.is_err() {
            return;
        }
    }
}

impl Running {
    async fn run(mut self, mut incoming: mpsc::Receiver<Inbox>) {
        let mut effects = Vec::new();
        let mut sleep = pin!(tokio::time::sleep_until(tokio::time::Instant::now()));
        loop {
            let deadline = self.membership.next_deadline().map(|time| self.clock.beat(time, sleep.deadline()));
            if let Some(deadline) = deadline.filter(|deadline| *deadline != sleep.deadline()) {
                sleep.as_mut().reset(deadline);
            }
            let next = tokio::select! {
                biased;
                () = &mut sleep, if deadline.is_some() => None,
                next = incoming.recv() => match next {
                    Some(next) => Some(next),
                    None => return,
                },
            };
            let now = self.clock.now();
            match next {
                None => self.membership.handle(now, Event::Tick, &mut effects),
                Some(Inbox::Datagram { from, bytes }) => {
                    self.membership.handle(now, Event::Datagram { from, bytes: &bytes }, &mut effects);
                }
                Some(Inbox::Compare { bytes, answer }) => {
                    self.exchanges += 1;
                    let exchange = self.exchanges;
                    self.answers.insert(exchange, answer);
                    self.membership.handle(now, Event::PushPull { exchange, bytes: &bytes }, &mut effects);
                }
                Some(Inbox::Compared { with, bytes }) => {
                    self.membership.handle(now, Event::PushPullAnswer { with, bytes: &bytes }, &mut effects);
                }
                Some(Inbox::Book(book)) => self.learn(book, &mut effects),
                Some(Inbox::Call { node, answered }) => {
                    self.calls.retain(|_, waiting| {
                        waiting.retain(|one| !one.is_closed());
                        !waiting.is_empty()
                    });
                    self.calls.entry(node).or_default().push(answered);
                    self.membership.handle(now, Event::Call { id: node }, &mut effects);
                }
                Some(Inbox::Leave) => self.membership.handle(now, Event::Leave, &mut effects),
            }
            for effect in std::mem::take(&mut effects) {
                self.perform(effect).await;
            }
        }
    }

    /// Who left for good is forgotten; where the others are is where company is looked for.
    fn learn(&mut self, book: BTreeMap<NodeId, SocketAddr>, effects: &mut Vec<Effect>) {
        let now = self.clock.now();
        for node in self.book.keys().filter(|node| !book.contains_key(node)) {
            self.membership.handle(now, Event::Forget { id: *node }, effects);
        }
        let me = self.roads.me();
        let seeds: Vec<SocketAddr> =
            book.iter().filter(|(node, _)| **node != me).map(|(_, address)| *address).collect();
        if !seeds.is_empty() && book != self.book {
            self.membership.handle(now, Event::Join { seeds: &seeds }, effects);
        }
        self.book = book;
    }

    async fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, bytes } => {
                // Lost datagrams are membership's own business.
                let _ = self.datagrams.send(to, &bytes).await;
            }
            Effect::PushPull { with, bytes } => {
                let node = self.book.iter().find(|(_, address)| **address == with).map(|(node, _)| *node);
                let Some(node) = node else { return };
                let (roads, inbox) = (self.roads.clone(), self.inbox.clone());
                tokio::spawn(async move {
                    let question = GossipSync { members: bytes.into() };
                    let answer = roads.call(node, Purpose::Peer, question, COMPARE_WITHIN).await;
                    if let Ok(Message::GossipSync(GossipSync { members })) = answer {
                        // Nobody listens any more when the agent ends.
                        let _ = inbox.send(Inbox::Compared { with, bytes: members }).await;
                    }
                });
            }
            Effect::Answer { exchange, bytes } => {
                if let Some(answer) = self.answers.remove(&exchange) {
                    let _ = answer.send(bytes);
                }
            }
            Effect::Answered { id } => {
                // Nobody may be waiting any more.
                for answered in self.calls.remove(&id).into_iter().flatten() {
                    let _ = answered.send(());
                }
            }
            Effect::Changed { member, to, .. } => {
                tracing::info!(node = %member.id, name = %member.name, status = ?to, "a node seems otherwise");
                let seems = Incoming::Seems { node: member.id, alive: to == Status::Alive };
                let _ = self.ask.send(seems).await;
            }
            Effect::Updated { .. } => {}
            Effect::Conflict { over, between: (one, other) } => {
                tracing::error!(?over, %one, %other, "two nodes claim the same");
                if let Claimed::Identity(address) = over {
                    // One hint that is looked at is enough.
                    let _ = self.twins.try_send(address);
                }
            }
            Effect::Gone => {
                self.gone.send_replace(true);
            }
        }
    }
}

fn metadata(facts: &NodeFacts) -> Metadata {
    let capacity = Capacity { cpu: Millicores(facts.cores * 1000), memory: facts.memory, ..Capacity::default() };
    let attributes = Attributes {
        region: facts.region.clone(),
        zone: facts.zone.clone(),
        rack: facts.rack.clone(),
        capacity,
        version: facts.program.clone(),
        ..Attributes::default()
    };
    // Labels may be longer than gossip carries; the log has them.
    Metadata::new(attributes).or_else(|_| Metadata::new(Attributes::default())).expect("nothing at all is short enough")
}

/// For what must differ between nodes, or starts.
pub(super) fn random_seed() -> u64 {
    let mut seed = [0; 8];
    // It fails before the kernel has gathered randomness, long before anybody starts an agent.
    let _ = rustix::rand::getrandom(&mut seed[..], rustix::rand::GetRandomFlags::empty());
    u64::from_ne_bytes(seed)
}
