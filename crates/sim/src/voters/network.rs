//! The network between voters: requests and answers that take time, overtake each other, get lost, come late, or find nobody there.
//! Entries keep their order, as [`Lane::Log`] promises, but for what was given up and comes late all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use consensus_sim::executor::{self, Moment, Owner};
use consensus_sim::{Carrier, Consensus, Lane, PeerError, leader_who_says};
use futures_util::future::BoxFuture;
use model::NodeId;
use tokio::sync::oneshot;

use crate::chance::Chance;

/// A connection of which nothing is heard is given up after this long, as RNP's are.
const STANDS_STILL: Duration = Duration::from_secs(6);
/// The share of pieces of snapshots that is lost in addition, so that transfers break in the middle.
const BULK_LOSS: f64 = 0.08;
/// Requests under way belong to nobody's machine.
const WIRES: Owner = Owner(1);

#[derive(Debug, Clone)]
pub(crate) struct Net(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    chance: Chance,
    weather: Weather,
    /// From, to: nothing arrives, nobody is told.
    cuts: BTreeSet<(NodeId, NodeId)>,
    there: BTreeMap<NodeId, (Owner, Consensus)>,
    /// Who spoke as the leader of which term.
    leaders: BTreeMap<u64, NodeId>,
    wrong: Option<String>,
    carried: u64,
    /// When the last entries from one to the other arrive.
    last_entries: BTreeMap<(NodeId, NodeId), Moment>,
    /// Nothing is lost any more.
    is_mended: bool,
}

/// What the network does to all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Weather {
    /// The share of requests and of answers that never arrive.
    pub loss: f64,
    /// One way takes between these.
    pub latency: (Duration, Duration),
}

impl Weather {
    pub(crate) const FAIR: Self = Self { loss: 0.0, latency: (Duration::from_micros(100), Duration::from_millis(2)) };
}

impl Net {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            chance: Chance::new(seed),
            weather: Weather::FAIR,
            cuts: BTreeSet::new(),
            there: BTreeMap::new(),
            leaders: BTreeMap::new(),
            wrong: None,
            carried: 0,
            last_entries: BTreeMap::new(),
            is_mended: false,
        })))
    }

    pub(crate) fn wire(&self, me: NodeId) -> Wire {
        Wire { me, net: self.clone() }
    }

    pub(crate) fn connect(&self, node: NodeId, owner: Owner, consensus: Consensus) {
        self.inner().there.insert(node, (owner, consensus));
    }

    pub(crate) fn disconnect(&self, node: NodeId) {
        // It may be the last that holds it.
        let gone = self.inner().there.remove(&node);
        drop(gone);
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.inner().weather = weather;
    }

    pub(crate) fn cut(&self, from: NodeId, to: NodeId) {
        self.inner().cuts.insert((from, to));
    }

    /// Whole, fast and without loss, from now on.
    pub(crate) fn mend(&self) {
        self.heal();
        self.set_weather(Weather::FAIR);
        self.inner().is_mended = true;
    }

    pub(crate) fn heal(&self) {
        self.inner().cuts.clear();
    }

    pub(crate) fn carried(&self) -> u64 {
        self.inner().carried
    }

    /// Notes who leads. Two in one term are wrong.
    pub(crate) fn leads(&self, term: u64, node: NodeId) {
        let mut inner = self.inner();
        let first = *inner.leaders.entry(term).or_insert(node);
        if first != node {
            inner.wrong = Some(format!("{first} and {node} both lead term {term}"));
        }
    }

    pub(crate) fn leaders(&self) -> usize {
        self.inner().leaders.len()
    }

    pub(crate) fn take_wrong(&self) -> Option<String> {
        self.inner().wrong.take()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic while it is held")
    }

    /// How long one way takes; `None` when it leads nowhere.
    fn way(&self, from: NodeId, to: NodeId, lane: Lane) -> Option<Duration> {
        let mut inner = self.inner();
        let Weather { loss, latency: (least, most) } = inner.weather;
        // What is long is under way for longer.
        let loss = if lane == Lane::Bulk && !inner.is_mended { loss + BULK_LOSS } else { loss };
        if inner.cuts.contains(&(from, to)) || inner.chance.happens(loss) {
            return None;
        }
        inner.carried += 1;
        Some(least + inner.chance.at_most(most.saturating_sub(least)))
    }

    async fn carry(self, from: NodeId, to: NodeId, lane: Lane, request: Vec<u8>) -> Result<Vec<u8>, PeerError> {
        let lost = |why: &str| PeerError::Failed(why.to_owned());
        let Some(time) = self.way(from, to, lane) else {
            self.may_come_late(from, to, request);
            return self.silence(lost("the connection broke")).await;
        };
        executor::sleep_until(self.in_order(from, to, lane, time)).await;
        let there = self.inner().there.get(&to).cloned();
        let Some((owner, consensus)) = there else {
            return self.silence(PeerError::Unreachable("nobody is there".to_owned())).await;
        };
        let work = async move { consensus.handle(from, &request).await };
        // Whoever is killed meanwhile does not answer.
        let answer = executor::spawn(owner, work).await.ok();
        let Some((time, answer)) = answer.and_then(|answer| Some((self.way(to, from, lane)?, answer))) else {
            return self.silence(lost("the connection broke")).await;
        };
        executor::sleep(time).await;
        Ok(answer)
    }

    /// When what takes this time arrives.
    fn in_order(&self, from: NodeId, to: NodeId, lane: Lane, time: Duration) -> Moment {
        let arrives = executor::now() + time;
        if lane != Lane::Log {
            return arrives;
        }
        let mut inner = self.inner();
        let last = inner.last_entries.entry((from, to)).or_insert(arrives);
        *last = arrives.max(*last + Duration::from_nanos(1));
        *last
    }

    /// What nobody waits for any more may arrive yet, after what was sent later.
    fn may_come_late(&self, from: NodeId, to: NodeId, request: Vec<u8>) {
        let wait = {
            let mut inner = self.inner();
            let comes = !inner.cuts.contains(&(from, to)) && inner.chance.one_in(3);
            comes.then(|| inner.chance.at_most(Duration::from_secs(2)))
        };
        let Some(wait) = wait else { return };
        let this = self.clone();
        drop(executor::spawn(WIRES, async move {
            executor::sleep(wait).await;
            let there = this.inner().there.get(&to).cloned();
            if let Some((owner, consensus)) = there {
                drop(executor::spawn(owner, async move { consensus.handle(from, &request).await }));
            }
        }));
    }

    /// What happens to one that waits for what does not come: some connections break, others stand still until somebody notices.
    async fn silence(&self, error: PeerError) -> Result<Vec<u8>, PeerError> {
        let breaks = {
            let mut inner = self.inner();
            let breaks = inner.chance.one_in(2);
            if breaks { inner.chance.at_most(Duration::from_millis(500)) } else { STANDS_STILL }
        };
        executor::sleep(breaks).await;
        Err(error)
    }
}

/// One voter's way to the others.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    me: NodeId,
    net: Net,
}

impl Carrier for Wire {
    fn request(&self, to: NodeId, lane: Lane, request: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, PeerError>> {
        if let Some((term, leader)) = leader_who_says(&request) {
            self.net.leads(term, leader);
        }
        // What RNP carries in a frame: a mebibyte, sixteen of bulk.
        let most = if lane == Lane::Bulk { 16 << 20 } else { 1 << 20 };
        if request.len() > most {
            self.net.inner().wrong = Some(format!("a request of {} bytes on {lane:?}", request.len()));
        }
        let (net, me) = (self.net.clone(), self.me);
        let (told, answer) = oneshot::channel();
        // A request on its way arrives, whether anybody waits for the answer or not.
        drop(executor::spawn(WIRES, async move { told.send(net.carry(me, to, lane, request).await) }));
        Box::pin(
            async move { answer.await.unwrap_or_else(|_| Err(PeerError::Failed("the connection broke".to_owned()))) },
        )
    }
}
