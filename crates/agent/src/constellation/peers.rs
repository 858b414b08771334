//! What the voter in `consensus` needs of the network: for each node and lane a connection of its own, on which requests
//! leave in the order in which they were asked.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use consensus::{Lane, PeerError};
use futures_util::future::poll_immediate;
use futures_util::stream::{FuturesUnordered, StreamExt};
use model::NodeId;
use net::identity::Expected;
use net::{Connection, Purpose};
use rnp::Message;
use rnp::message::{RaftAnswer, RaftAppend, RaftSnapshot, RaftVote};
use tokio::sync::{mpsc, oneshot};

use super::roads::Roads;

/// Requests to one node on one lane that may wait for the connection. Consensus has at most sixteen under way.
const WAITING_MAX: usize = 64;
/// Longest life of a request; consensus gives up earlier.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// A lane that nobody used for this long is given up, with its connection.
const IDLE: Duration = Duration::from_secs(60);
/// A connection that is not there after this long will not be soon.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

type Answer = Result<Vec<u8>, PeerError>;
type Lanes = HashMap<(NodeId, Lane), mpsc::Sender<Asked>>;
type UnderWay = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Asked {
    request: Vec<u8>,
    answer: oneshot::Sender<Answer>,
}

/// Clones share their connections.
#[derive(Clone)]
pub(crate) struct Voters {
    roads: Roads,
    lanes: Arc<Mutex<Lanes>>,
}

impl Voters {
    pub(crate) fn new(roads: Roads) -> Self {
        Self { roads, lanes: Arc::default() }
    }

    /// Gives the request its place in the lane.
    fn enqueue(&self, to: NodeId, lane: Lane, mut asked: Asked) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = lanes.get(&(to, lane)) {
            match queue.try_send(asked) {
                Ok(()) => return,
                Err(mpsc::error::TrySendError::Full(asked)) => {
                    // Nobody may be waiting any more.
                    let _ = asked.answer.send(Err(PeerError::Failed("too many requests wait for it".to_owned())));
                    return;
                }
                // The lane was given up when it was idle.
                Err(mpsc::error::TrySendError::Closed(back)) => asked = back,
            }
        }
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        // A new queue has room.
        let _ = queue.try_send(asked);
        lanes.insert((to, lane), queue);
        tokio::spawn(carry(self.roads.clone(), to, lane, waiting));
    }
}

impl consensus::Peers for Voters {
    fn request(
        &self,
        to: NodeId,
        lane: Lane,
        request: Vec<u8>,
    ) -> impl Future<Output = Answer> + Send + 'static + use<> {
        let (answer, answered) = oneshot::channel();
        self.enqueue(to, lane, Asked { request, answer });
        async move { answered.await.unwrap_or_else(|_| Err(PeerError::Failed("the agent is ending".to_owned()))) }
    }
}

/// Carries the requests of one lane until nobody asks any more.
async fn carry(roads: Roads, to: NodeId, lane: Lane, mut waiting: mpsc::Receiver<Asked>) {
    let mut connection: Option<Connection> = None;
    let mut under_way: FuturesUnordered<UnderWay> = FuturesUnordered::new();
    loop {
        let asked = tokio::select! {
            biased;
            Some(()) = under_way.next() => continue,
            asked = tokio::time::timeout(IDLE, waiting.recv()) => asked,
        };
        let asked = match asked {
            Ok(Some(asked)) => asked,
            Ok(None) => return,
            Err(_) if under_way.is_empty() => return,
            Err(_) => continue,
        };
        let there = connection.take().filter(Connection::is_open);
        let reached = match there {
            Some(there) => Ok(there),
            None => connect(&roads, to, lane).await,
        };
        let there = match reached {
            Ok(there) => there,
            Err(why) => {
                let _ = asked.answer.send(Err(PeerError::Unreachable(why.clone())));
                // Those that wait would fail one after another, each after as long.
                while let Ok(asked) = waiting.try_recv() {
                    let _ = asked.answer.send(Err(PeerError::Unreachable(why.clone())));
                }
                continue;
            }
        };
        connection = Some(there.clone());
        let mut asking: UnderWay = Box::pin(ask(there, lane, asked));
        // Its first turn gives it its place among the others.
        if poll_immediate(&mut asking).await.is_none() {
            under_way.push(asking);
        }
    }
}

async fn connect(roads: &Roads, to: NodeId, lane: Lane) -> Result<Connection, String> {
    let purpose = match lane {
        Lane::Control => Purpose::Control,
        // Entries may be as long as a frame of control is with all that is around it.
        Lane::Log => Purpose::Log,
        Lane::Bulk => Purpose::Data,
    };
    let connecting = async {
        let address = roads.address(to).await.map_err(|problem| problem.message)?;
        let expected = Expected { node: Some(to), role: None };
        roads.endpoint().connect(address, expected, purpose).await.map_err(|error| error.to_string())
    };
    let connected = tokio::time::timeout(CONNECT_WITHIN, connecting).await;
    connected.unwrap_or_else(|_| Err("it does not answer in time".to_owned()))
}

/// One request and its answer, unless nobody waits for it any more.
async fn ask(connection: Connection, lane: Lane, asked: Asked) {
    let Asked { request, mut answer } = asked;
    let body = Bytes::from(request);
    let message: Message = match lane {
        Lane::Control => RaftVote { body }.into(),
        Lane::Log => RaftAppend { body }.into(),
        Lane::Bulk => RaftSnapshot { body }.into(),
    };
    let answered = tokio::select! {
        biased;
        answered = connection.request(message, ANSWER_WITHIN) => answered,
        () = answer.closed() => return,
    };
    let outcome = match answered {
        Ok(Message::RaftAnswer(RaftAnswer { body })) => Ok(body.to_vec()),
        Ok(other) => Err(PeerError::Failed(format!("`{}` is no answer", other.kind().name()))),
        Err(error @ (net::connection::Failure::Ended(_) | net::connection::Failure::NotSent(_))) => {
            Err(PeerError::Unreachable(error.to_string()))
        }
        Err(error) => Err(PeerError::Failed(error.to_string())),
    };
    // Nobody may be waiting any more.
    let _ = answer.send(outcome);
}
