//! Programs that talk to each other, and hear what becomes of the constellation: what is behind RADS's `constellation` module.
//!
//! A star has a socket of its own (`ways`), so that who asks is known by where it asks; a program outside of stars comes by the API.
//! All that can be asked is in `model::talk`, and what concerns stars concerns those of one namespace. Messages are handed on at
//! most once. Everything has a bound: the length of a message, how often one may ask, how much waits for one who does not listen.
//!
//! - `ways`: the sockets of stars. `desk`: the API by one of them. `line`: one connection. `pace`: how often one may ask. `found`: `init`. `herald`: what becomes of the machines.

mod desk;
mod found;
mod herald;
mod line;
mod pace;
mod ways;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::Talk;
use futures_util::StreamExt;
use model::talk::{Said, events};
use model::{Code, Name, NodeId, Problem, ServiceKey, StarId, StarPhase};
use node::Node;
use node::roster::Health;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use state::State;
use tokio::sync::mpsc;

use crate::constellation::post::{self, Letter};
use crate::constellation::{Shared, roads::Roads};
use crate::control::{Looker, Remote};

pub(crate) use desk::Desk;
pub(crate) use found::Founder;
pub(crate) use herald::herald;
pub(crate) use line::{USERS_MAX, serve};
pub(crate) use pace::Pace;
pub(crate) use ways::Ways;

/// What waits for one listener: beyond either, a message or event is not handed to it.
const WAITING_MAX: usize = 256;
const WAITING_MAX_BYTES: usize = 1 << 20;
/// Nodes that are told at the same time.
const AT_ONCE: usize = 32;

/// Who talks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    Star {
        star: StarId,
        service: ServiceKey,
        name: String,
    },
    /// A program outside of stars, by the rights of who runs it.
    User {
        namespace: Name,
    },
}

impl Who {
    pub(crate) fn namespace(&self) -> &Name {
        match self {
            Self::Star { service, .. } => &service.namespace,
            Self::User { namespace } => namespace,
        }
    }

    fn star(&self) -> Option<StarId> {
        match self {
            Self::Star { star, .. } => Some(*star),
            Self::User { .. } => None,
        }
    }
}

/// Where a message comes from, as who gets it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct From {
    /// Nothing for a program outside of stars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) star: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<Name>,
    /// Nothing on a machine that is alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Name>,
}

/// Clones are the same.
#[derive(Clone)]
pub(crate) struct Talks {
    me: NodeId,
    looker: Looker,
    /// The way to other nodes, and who leads; nothing on a machine that is alone.
    others: Option<(Roads, Shared)>,
    ears: Arc<Mutex<Ears>>,
}

#[derive(Default)]
struct Ears {
    stars: HashMap<StarId, Vec<Ear>>,
    users: Vec<Ear>,
}

/// A connection that listens.
#[derive(Clone)]
struct Ear {
    to: mpsc::Sender<Said>,
    /// Bytes that wait.
    waiting: Arc<AtomicUsize>,
}

impl Ear {
    fn new() -> (Self, mpsc::Receiver<Said>) {
        let (to, heard) = mpsc::channel(WAITING_MAX);
        (Self { to, waiting: Arc::default() }, heard)
    }

    /// Whether it was taken.
    fn tell(&self, said: Said) -> bool {
        let length = length(&said);
        let before = self.waiting.fetch_add(length, Ordering::Relaxed);
        if before + length <= WAITING_MAX_BYTES && self.to.try_send(said).is_ok() {
            return true;
        }
        self.waiting.fetch_sub(length, Ordering::Relaxed);
        false
    }

    /// Waits for room: whoever asks more than is taken from it is not asked on.
    async fn answer(&self, said: Said) {
        self.waiting.fetch_add(length(&said), Ordering::Relaxed);
        // The connection may have ended.
        let _ = self.to.send(said).await;
    }

    fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    fn taken(&self, said: &Said) {
        self.waiting.fetch_sub(length(said), Ordering::Relaxed);
    }
}

fn length(said: &Said) -> usize {
    match said {
        Said::Answer { result: Ok(text), .. } => text.len(),
        Said::Answer { result: Err(problem), .. } => problem.message.len(),
        Said::Event { data, .. } => data.len(),
    }
}

/// Lets a program outside of stars talk as one of a namespace.
///
/// # Errors
/// `Unavailable` when too many do.
pub(crate) fn of_user(remote: &Remote, namespace: Name) -> Result<Talk, Problem> {
    let room = Arc::clone(&remote.talkers).try_acquire_owned();
    let room = room.map_err(|_| Problem::new(Code::Unavailable, "too many programs talk already"))?;
    let (talks, clock, leaving) = (remote.talks.clone(), remote.clock, remote.leaving.clone());
    let founder = Founder {
        ask: remote.ask.clone(),
        data_dir: remote.data_dir.clone(),
        facts: remote.facts.clone(),
        again: remote.again.clone(),
    };
    let pace = Arc::new(Mutex::new(Pace::new(clock.now())));
    Ok(Box::new(move |connection| {
        Box::pin(async move {
            serve(talks, Who::User { namespace }, pace, clock, Some(founder), connection, leaving).await;
            drop(room);
        })
    }))
}

impl Talks {
    pub(crate) fn new(me: NodeId, looker: Looker, shared: Option<Shared>) -> Self {
        let others = shared.map(|shared| (shared.roads.clone(), shared));
        Self { me, looker, others, ears: Arc::default() }
    }

    /// A star that is known here, as who talks.
    pub(crate) async fn who(&self, star: StarId) -> Option<Who> {
        let of = move |state: &State| {
            let record = state.stars.get(&star)?;
            Some(Who::Star { star, service: record.service.clone(), name: record.name() })
        };
        self.looker.look(move |node| of(node.state())).await.ok().flatten()
    }

    /// The machines, as JSON.
    pub(crate) async fn nodes(&self, who: &Who) -> Result<String, Problem> {
        let (machines, own) = self.looker.look(|node| (node.machine_views(), node.id())).await?;
        let leader = self.leader_id();
        let outside = who.star().is_none();
        let view = |machine: &node::roster::MachineView| {
            let mut view = json!({
                "name": machine.name,
                "state": machine.health,
                "leads": leader == Some(machine.id),
                "here": machine.id == own,
                "region": machine.facts.region,
                "zone": machine.facts.zone,
                "rack": machine.facts.rack,
            });
            // Where machines are is nothing that a star has to know.
            if let (true, Value::Object(view)) = (outside, &mut view) {
                view.insert("id".to_owned(), json!(machine.id));
                view.insert("address".to_owned(), json!(machine.address));
                view.insert("role".to_owned(), json!(machine.role));
                view.insert("duty".to_owned(), json!(machine.duty));
                view.insert("stars".to_owned(), json!(machine.stars));
                view.insert("labels".to_owned(), json!(machine.facts.labels));
            }
            view
        };
        let there = machines.iter().filter(|machine| machine.health != Health::Left);
        let mut views: Vec<Value> = there.map(view).collect();
        if machines.is_empty() {
            views.push(json!({"name": own_name(), "state": Health::Alive, "leads": true, "here": true,
                "region": null, "zone": null, "rack": null}));
        }
        Ok(Value::from(views).to_string())
    }

    /// The name of the machine that leads, as JSON: `null` when none is known.
    pub(crate) async fn leader(&self) -> Result<String, Problem> {
        let Some(leader) = self.leader_id() else {
            let name = if self.others.is_none() { json!(own_name()) } else { Value::Null };
            return Ok(name.to_string());
        };
        let name = self.looker.look(move |node| node.name_of(leader)).await?;
        Ok(json!(name).to_string())
    }

    fn leader_id(&self) -> Option<NodeId> {
        self.others.as_ref().and_then(|(_, shared)| shared.leader())
    }

    /// Whom a message is for, by the machine they are on.
    pub(crate) async fn addressees(
        &self,
        who: &Who,
        to: Option<String>,
    ) -> Result<BTreeMap<NodeId, Vec<StarId>>, Problem> {
        let who = who.clone();
        self.looker.look(move |node| addressees(node, &who, to.as_deref())).await?
    }

    /// Hands a message on; gives how many stars took it.
    pub(crate) async fn post(&self, who: &Who, to: BTreeMap<NodeId, Vec<StarId>>, message: String) -> usize {
        let from = self.from(who).await;
        let told = to.into_iter().map(|(node, stars)| {
            let letter = Letter {
                namespace: who.namespace().clone(),
                sender: who.star(),
                from: from.clone(),
                stars,
                message: message.clone(),
            };
            async move {
                match &self.others {
                    Some((roads, _)) if node != self.me => post::send(roads, node, &letter).await,
                    _ => self.deliver(&letter),
                }
            }
        });
        futures_util::stream::iter(told).buffer_unordered(AT_ONCE).fold(0, async |sum, told| sum + told).await
    }

    async fn from(&self, who: &Who) -> From {
        let me = self.me;
        let node = self.looker.look(move |node| node.name_of(me)).await.ok().flatten();
        match who {
            Who::Star { service, name, .. } => {
                From { star: Some(name.clone()), service: Some(service.name.clone()), node }
            }
            Who::User { .. } => From { star: None, service: None, node },
        }
    }

    /// Takes a letter that another node sent: it must be from one of its own stars, and is given to stars of that namespace only.
    ///
    /// # Errors
    /// `Forbidden`.
    pub(crate) async fn receive(&self, by: NodeId, letter: Letter) -> Result<usize, Problem> {
        let checked = move |node: &Node| check(node.state(), by, letter);
        let letter = self.looker.look(checked).await??;
        Ok(self.deliver(&letter))
    }

    /// Gives a letter to the stars here that it is for and that listen; how many took it.
    fn deliver(&self, letter: &Letter) -> usize {
        let Ok(message) = serde_json::from_str::<Value>(&letter.message) else { return 0 };
        let data = json!({"event": events::MESSAGE, "from": letter.from, "message": message}).to_string();
        let ears = self.ears();
        let listens = |star: &&StarId| {
            let of = ears.stars.get(star).map(Vec::as_slice).unwrap_or_default();
            let said = || Said::Event { event: events::MESSAGE.to_owned(), data: data.clone() };
            // Every connection of a star is the star.
            of.iter().filter(|ear| ear.tell(said())).count() > 0
        };
        letter.stars.iter().filter(listens).count()
    }

    /// Tells everybody who listens here.
    fn announce(&self, event: &str, data: &Value) {
        let data = data.to_string();
        let ears = self.ears();
        for ear in ears.stars.values().flatten().chain(&ears.users) {
            ear.tell(Said::Event { event: event.to_owned(), data: data.clone() });
        }
    }

    /// From here on a connection is told events and messages.
    fn listen(&self, who: &Who, ear: &Ear) {
        let mut ears = self.ears();
        let place = match who {
            Who::Star { star, .. } => ears.stars.entry(*star).or_default(),
            Who::User { .. } => &mut ears.users,
        };
        if !place.iter().any(|there| there.to.same_channel(&ear.to)) {
            place.push(ear.clone());
        }
    }

    fn hang_up(&self, who: &Who, ear: &Ear) {
        let mut ears = self.ears();
        ears.users.retain(|there| !there.to.same_channel(&ear.to));
        if let Who::Star { star, .. } = who
            && let Some(of) = ears.stars.get_mut(star)
        {
            of.retain(|there| !there.to.same_channel(&ear.to));
            if of.is_empty() {
                ears.stars.remove(star);
            }
        }
    }

    fn ears(&self) -> MutexGuard<'_, Ears> {
        self.ears.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stars of the sender's namespace that are meant, but the sender.
fn addressees(node: &Node, who: &Who, to: Option<&str>) -> Result<BTreeMap<NodeId, Vec<StarId>>, Problem> {
    let state = node.state();
    let namespace = who.namespace();
    if who.star().is_none() {
        // The others would refuse it.
        node::rights::may_send(state, node.id(), namespace)?;
    }
    let running = state.stars.values().filter(|star| {
        let runs = star.phase != StarPhase::Ended && star.phase != StarPhase::Assigned;
        runs && star.service.namespace == *namespace && Some(star.id) != who.star()
    });
    let service = |to: &str| state.services.keys().any(|key| key.namespace == *namespace && key.name.as_str() == to);
    let at = |to: &str| state.nodes.iter().find(|(_, record)| record.name.as_str() == to).map(|(id, _)| *id);
    let meant: Vec<_> = match to {
        None => running.collect(),
        Some(to) if service(to) => running.filter(|star| star.service.name.as_str() == to).collect(),
        Some(to) => {
            let node = at(to);
            let meant: Vec<_> =
                running.filter(|star| star.name() == to || node.is_some_and(|node| star.node == node)).collect();
            let is_star = || {
                let mut of_it = state.stars.values().filter(|star| star.service.namespace == *namespace);
                of_it.any(|star| star.phase != StarPhase::Ended && star.name() == to)
            };
            if meant.is_empty() && node.is_none() && !is_star() {
                let message =
                    format!("namespace `{namespace}` has no service or star `{to}`, and there is no such node");
                return Err(Problem::new(Code::NotFound, message));
            }
            meant
        }
    };
    let mut by_node: BTreeMap<NodeId, Vec<StarId>> = BTreeMap::new();
    for star in meant {
        by_node.entry(star.node).or_default().push(star.id);
    }
    Ok(by_node)
}

/// Whether a node may have sent a letter: a machine that somebody has taken over must not speak for stars of others, nor as a program
/// outside of stars where it has none.
fn check(state: &State, by: NodeId, mut letter: Letter) -> Result<Letter, Problem> {
    let is_own = |star: StarId| {
        let record = state.stars.get(&star);
        record.is_some_and(|record| record.node == by && record.service.namespace == letter.namespace)
    };
    if letter.sender.is_none() {
        node::rights::may_send(state, by, &letter.namespace)?;
    }
    if letter.sender.is_some_and(|star| !is_own(star)) {
        let message = format!("node `{by}` speaks for a star that is not its own, as far as is known here");
        return Err(Problem::new(Code::Forbidden, message));
    }
    let namespace = letter.namespace.clone();
    letter.stars.retain(|star| state.stars.get(star).is_some_and(|record| record.service.namespace == namespace));
    Ok(letter)
}

/// What a machine that is alone is called.
fn own_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
