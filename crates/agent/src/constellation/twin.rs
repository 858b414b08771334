//! Whether another agent is this very node: one was started from a copy of the other's data folder. The later one ends, by
//! `membership::twin`; the earlier one goes on and has it written.
//!
//! A start asks before it does anything else, and now and then afterwards: at the address that the node is known by, and, since
//! that may lead elsewhere from here, controllers, who ask there on its behalf. An answer proves that somebody is there with this
//! node's key. Where nobody answers nobody is waited for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use membership::{Meeting, Run};
use model::{Code, Name, NodeId, NodeRole, Problem};
use net::connection::Connection;
use net::identity::Expected;
use net::{Peer, Purpose, Stream};
use rnp::{ErrorCode, Fault};
use serde::{Deserialize, Serialize};
use state::Command;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::bundles::given;
use super::home::Home;
use super::roads::{Roads, resolve};
use super::shared::Shared;
use super::start::controllers;
use super::wire::{Reader, decode, encode};
use crate::clock;

pub(crate) const SERVICE: &str = "node.run";

/// A machine that is there takes a connection within this, on networks that a constellation's log is kept over.
const REACHED_WITHIN: Duration = Duration::from_millis(100);
/// Longest wait of a start for the answers of those that were reached: some milliseconds, unless they are busy.
const BEFORE_WITHIN: Duration = Duration::from_millis(500);
/// Later there is more time.
const WITHIN: Duration = Duration::from_secs(2);
/// What a controller takes to ask elsewhere: less than who asked it waits.
const BEHALF_WITHIN: Duration = Duration::from_millis(300);
/// Between looks, at first: whoever could not be reached at the start may have been starting too.
const FIRST_LOOKS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(10)];
/// Between looks where the node's address led to nobody. An attempt costs a packet or two.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The same where it led back here, as it should: each costs a handshake with itself, a millisecond.
const LOOK_WHERE_SURE_EVERY: Duration = Duration::from_secs(60);
/// Every so many looks a controller is asked too.
const BEHALF_EVERY: usize = 10;
/// A copy that is started again and again is written so often at most.
const WRITE_EVERY: Duration = Duration::from_secs(60);
const WINDOW_BYTES: u32 = 4 << 10;
const ANSWER_MAX_BYTES: usize = 1 << 10;

/// What follows from `node.run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    /// Whose run is asked for: the asker's own, or that of whom it asks for.
    node: NodeId,
    run: u64,
    up_ms: u64,
    /// It has not begun, and ends if anybody answers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    begins: bool,
    /// Where who asks is: said by a controller that asks on its behalf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<String>,
}

/// Who is there; nobody, when who was asked on somebody's behalf found nobody.
type Answer = Option<Told>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    run: u64,
    up_ms: u64,
    /// Where, as who asked there knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<String>,
}

impl Told {
    /// Only who serves answers.
    fn said(&self) -> Run {
        Run { number: self.run, up: Duration::from_millis(self.up_ms), serves: true }
    }
}

/// This start of the node.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    node: NodeId,
    name: Name,
    number: u64,
    began: Instant,
    begins: bool,
}

/// Clones are the same.
#[derive(Clone)]
pub(crate) struct Twins {
    start: Start,
    roads: Roads,
    shared: Shared,
    /// Told why this agent has to end.
    over: mpsc::Sender<Problem>,
    written: Arc<Mutex<Option<Instant>>>,
}

impl Start {
    pub(crate) fn new(home: &Home, number: u64) -> Self {
        Self { node: home.node, name: home.name.clone(), number, began: Instant::now(), begins: true }
    }

    fn run(&self) -> Run {
        Run { number: self.number, up: self.began.elapsed(), serves: !self.begins }
    }

    fn asks(&self) -> Asked {
        let up_ms = millis(self.began.elapsed());
        Asked { node: self.node, run: self.number, up_ms, begins: self.begins, at: None }
    }

    fn tells(&self) -> Told {
        Told { run: self.number, up_ms: millis(self.began.elapsed()), at: None }
    }

    /// Why this agent has to end because of the other.
    fn twice(&self, at: &str, up_ms: u64) -> Problem {
        let node = &self.name;
        let ago = Duration::from_millis(up_ms);
        let message =
            format!("node `{node}` runs already, at `{at}`, {}: there are two copies of its data folder", since(ago));
        Problem::new(Code::NodeTwice, message).help(
            "if the other one is the copy, end it there with `rads c shutdown` and start this one again; a machine of its own \
             joins from an empty data folder, with a token",
        )
    }

    /// Asks before anything is done in the node's name: at the address that others know it by, and those of these nodes that are
    /// controllers. Says nothing when nobody answers.
    ///
    /// # Errors
    /// `NodeTwice` when another agent is this node, and was first.
    pub(super) async fn is_first(
        &self,
        roads: &Roads,
        advertise: Option<&str>,
        others: &[NodeId],
    ) -> Result<(), Problem> {
        let own = async {
            let address = resolve(advertise?).await.ok()?;
            self.ask_there(roads, address, BEFORE_WITHIN).await
        };
        let behalf = async {
            let others = others.iter().filter(|node| **node != self.node);
            let mut asked: FuturesUnordered<_> = others.map(|node| self.ask_by(roads, *node)).collect();
            while let Some(answer) = asked.next().await {
                // That nobody was found, one controller's word is enough for.
                if let Some(answer) = answer {
                    return answer;
                }
            }
            None
        };
        let (own, behalf) = tokio::join!(timeout(BEFORE_WITHIN, own), timeout(BEFORE_WITHIN, behalf));
        let found = [own, behalf].into_iter().flatten().flatten();
        found.filter_map(|told| self.judge(&told)).next().map_or(Ok(()), Err)
    }

    /// Nothing when this one goes on.
    fn judge(&self, told: &Told) -> Option<Problem> {
        let other = told.said();
        let at = told.at.as_deref().unwrap_or("another machine");
        (self.run().meets(other) == Meeting::GivesWay).then(|| self.twice(at, told.up_ms))
    }

    async fn ask_there(&self, roads: &Roads, address: SocketAddr, within: Duration) -> Answer {
        ask_node(roads, self.node, address, &self.asks(), within).await
    }

    /// By a controller; nothing when it could not be asked, or is none.
    async fn ask_by(&self, roads: &Roads, controller: NodeId) -> Option<Answer> {
        let address = roads.address(controller).await.ok()?;
        is_reached(address).await?;
        let connection = roads.connection(controller, Purpose::Control).await.ok()?;
        // Anybody else's word is not taken for it that this agent has to end.
        if connection.peer().identity()?.role != NodeRole::Controller {
            return None;
        }
        ask(&connection, &self.asks(), WITHIN).await.ok()
    }
}

impl Twins {
    pub(crate) fn new(start: Start, shared: Shared, over: mpsc::Sender<Problem>) -> Self {
        let start = Start { begins: false, ..start };
        Self { start, roads: shared.roads.clone(), shared, over, written: Arc::default() }
    }

    /// Looks now and then, and wherever a hint leads.
    pub(crate) async fn watch(self, advertise: String, mut hints: mpsc::Receiver<SocketAddr>) {
        let mut sure = false;
        for look in 0_usize.. {
            let pause = match FIRST_LOOKS.get(look) {
                Some(pause) => *pause,
                None if sure => LOOK_WHERE_SURE_EVERY,
                None => LOOK_EVERY,
            };
            let hint = tokio::select! {
                Some(hint) = hints.recv() => Some(hint),
                () = tokio::time::sleep(pause) => None,
            };
            let address = match hint {
                Some(hint) => Some(hint),
                None => resolve(&advertise).await.ok(),
            };
            let mut found = Vec::new();
            if let Some(address) = address {
                let told = self.start.ask_there(&self.roads, address, WITHIN).await;
                if hint.is_none() {
                    sure = told.as_ref().is_some_and(|told| told.run == self.start.number);
                }
                found.extend(told);
            }
            if hint.is_some() || look < FIRST_LOOKS.len() || look % BEHALF_EVERY == 0 {
                found.extend(self.ask_a_controller().await);
            }
            found.iter().for_each(|told| self.judge(told));
        }
    }

    async fn ask_a_controller(&self) -> Answer {
        let mut controllers = self.shared.looker.look(|node| controllers(node.state())).await.ok()?;
        controllers.retain(|node| *node != self.start.node);
        // Another one first each time.
        let first = self.start.began.elapsed().subsec_nanos() as usize % controllers.len().max(1);
        controllers.rotate_left(first);
        for controller in controllers {
            if let Some(answer) = self.start.ask_by(&self.roads, controller).await {
                return answer;
            }
        }
        None
    }

    fn judge(&self, told: &Told) {
        if let Some(problem) = self.start.judge(told) {
            self.end(problem);
        }
    }

    fn end(&self, problem: Problem) {
        // Told once is enough.
        let _ = self.over.try_send(problem);
    }

    /// Answers who has the same node's key, and controllers that ask on behalf of such; asks elsewhere on behalf of others.
    pub(crate) fn serve(&self, peer: &Arc<Peer>, body: &[u8], stream: Stream) -> Result<(), Fault> {
        let asked: Asked = decode(body).map_err(|problem| Fault::new(ErrorCode::Protocol, problem.message))?;
        let not_yours = || Fault::new(ErrorCode::Unauthorized, "a node asks who else is itself, and of nobody else");
        let asker = peer.identity().ok_or_else(not_yours)?;
        let itself = asker.node == asked.node;
        let (this, address) = (self.clone(), peer.address);
        if asked.node == self.start.node && (itself || asker.role == NodeRole::Controller) {
            let at = if itself { None } else { asked.at.clone() };
            tokio::spawn(async move {
                // Both judge by what is said here: it is told before this one draws its conclusion.
                let told = this.start.tells();
                let own = told.said();
                given(stream, &Some(told)).await;
                this.met(own, &asked, at.unwrap_or_else(|| address.ip().to_string())).await;
            });
            return Ok(());
        }
        if !itself {
            return Err(not_yours());
        }
        tokio::spawn(async move {
            let answer = this.ask_on_behalf(Asked { at: Some(address.ip().to_string()), ..asked }).await;
            given(stream, &answer).await;
        });
        Ok(())
    }

    async fn ask_on_behalf(&self, asked: Asked) -> Answer {
        let address = self.roads.address(asked.node).await.ok()?;
        ask_node(&self.roads, asked.node, address, &asked, BEHALF_WITHIN).await
    }

    /// Another start of this node has asked.
    async fn met(&self, own: Run, asked: &Asked, at: String) {
        let other = Run { number: asked.run, up: Duration::from_millis(asked.up_ms), serves: !asked.begins };
        match own.meets(other) {
            Meeting::Itself => {}
            Meeting::GivesWay => self.end(self.start.twice(&at, asked.up_ms)),
            Meeting::Stays => {
                tracing::error!(%at, "another agent was started from a copy of this data folder; it has to end");
                if self.may_write() {
                    let command = Command::NoteTwin { node: self.start.node, address: at, wall: clock::wall() };
                    if let Err(problem) = self.shared.propose(&command).await {
                        tracing::warn!(%problem, "that there was a copy is not written");
                    }
                }
            }
        }
    }

    fn may_write(&self) -> bool {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let may = written.is_none_or(|at| at.elapsed() >= WRITE_EVERY);
        if may {
            *written = Some(Instant::now());
        }
        may
    }
}

/// Who answers as this node at this address: by a connection of its own, as one that is kept says nothing of the address.
async fn ask_node(roads: &Roads, node: NodeId, address: SocketAddr, asked: &Asked, within: Duration) -> Answer {
    is_reached(address).await?;
    let expected = Expected { node: Some(node), role: None };
    let answer = async {
        let connection = roads.endpoint().connect(address, expected, Purpose::Control).await.ok()?;
        let answer = ask(&connection, asked, within).await;
        connection.abort();
        answer.ok().flatten()
    };
    let told = timeout(within, answer).await.ok().flatten()?;
    Some(Told { at: told.at.or_else(|| Some(address.to_string())), ..told })
}

/// Whether a machine takes connections there, before more time is given to it.
async fn is_reached(address: SocketAddr) -> Option<()> {
    timeout(REACHED_WITHIN, TcpStream::connect(address)).await.ok()?.ok().map(drop)
}

async fn ask(connection: &Connection, asked: &Asked, within: Duration) -> Result<Answer, Problem> {
    let silent = || Problem::new(Code::Unavailable, "no answer");
    let body: Bytes = encode(asked)?;
    let stream = connection.open(SERVICE, body, WINDOW_BYTES, within).await;
    let stream = stream.map_err(|failure| Problem::new(Code::Unavailable, failure.to_string()))?;
    let mut reader = Reader::bounded(stream, ANSWER_MAX_BYTES);
    let answer = timeout(within, reader.next::<Result<Answer, Problem>>()).await.map_err(|_| silent())??;
    answer.unwrap_or_else(|| Err(silent()))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// For a person.
fn since(up: Duration) -> String {
    let seconds = up.as_secs();
    match seconds {
        0..60 => format!("for {seconds} s"),
        60..3600 => format!("for {} min", seconds / 60),
        3600..86_400 => format!("for {} h", seconds / 3600),
        _ => format!("for {} days", seconds / 86_400),
    }
}
