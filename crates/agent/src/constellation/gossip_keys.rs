//! What gossip is sealed with: the log says it, sealed under keys of controllers; each node has it opened, by itself when it is a
//! controller, else by asking one over TLS. So a node that was off while the keys changed learns them when it is back.
//!
//! A change takes three steps, so that at every moment all understand each other: a new key is given to all; it seals; the old one
//! goes. The first is asked for. The leader takes the others, each when every node that is up has said that it is at the one before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::{Code, NodeId, Problem, Standing};
use net::identity::{KeyRing, KeyUse};
use net::{Purpose, Stream};
use rnp::{ErrorCode, Fault};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use state::{Command, GossipKey, Security, State};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::bundles::given;
use super::certs::Certs;
use super::gossip::Gossip;
use super::home::{self, Home, Key};
use super::mesh::refuse;
use super::once;
use super::registrar::Log;
use super::security;
use super::wire::Reader;
use crate::clock;
use crate::main_loop::Seen;

/// The keys, opened, for nodes.
pub(crate) const RING: &str = "gossip.ring";
/// How far a node is.
pub(crate) const HAVE: &str = "gossip.have";

/// Longest wait for an answer to either.
const WITHIN: Duration = Duration::from_secs(3);
const ANSWER_MAX_BYTES: usize = 64 << 10;
/// How often the leader looks whether the next step can be taken, and a node what the log says.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What was sealed before a step is on its way no longer than this.
const SETTLES: Duration = Duration::from_secs(2);
/// A node that is up but gives no answer holds a change up no longer than this: it learns the keys when it can be asked again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Clones are the same.
#[derive(Clone)]
pub(crate) struct GossipKeys {
    certs: Certs,
    gossip: Gossip,
    /// What opens sealed keys: on controllers.
    ring: Option<Arc<KeyRing>>,
    /// Of the keys that are in use here.
    version: Arc<AtomicU64>,
}

/// What a controller gives.
#[derive(Serialize, Deserialize)]
struct Opened {
    version: u64,
    keys: Vec<(u32, ByteBuf)>,
}

impl GossipKeys {
    /// # Errors
    /// When a controller has no ring.
    pub(crate) fn new(home: &Home, certs: Certs, gossip: Gossip) -> Result<Self, Problem> {
        let ring = match home.role {
            model::NodeRole::Controller => Some(Arc::new(home.unsealing_ring()?)),
            model::NodeRole::Worker => None,
        };
        Ok(Self { certs, gossip, ring, version: Arc::default() })
    }

    /// Uses what the log says, until the agent ends.
    pub(crate) async fn follow(self, mut seen: watch::Receiver<Seen>) {
        loop {
            let Ok(known) = self.certs.log.look(known).await else { return };
            let pause = match known {
                Some((version, keys)) if version != self.version.load(Ordering::Relaxed) => {
                    match self.take(version, &keys).await {
                        Ok(()) => continue,
                        Err(problem) => {
                            tracing::warn!(%problem, version, "the keys of gossip stay as they were");
                            LOOK_EVERY
                        }
                    }
                }
                _ => {
                    if seen.changed().await.is_err() {
                        return;
                    }
                    LOOK_EVERY / 5
                }
            };
            sleep(pause).await;
        }
    }

    async fn take(&self, version: u64, sealed: &[GossipKey]) -> Result<(), Problem> {
        let keys = match &self.ring {
            Some(ring) => open(sealed, ring)?,
            None => self.asked(version).await?,
        };
        self.gossip.set_keys(&home::ring(&keys)?);
        let numbers: Vec<u32> = keys.iter().map(|key| key.number).collect();
        tracing::info!(version, ?numbers, "the keys of gossip have changed");
        self.certs.keep(|home| home.gossip = keys).await;
        self.version.store(version, Ordering::Relaxed);
        Ok(())
    }

    /// By a controller that is as far.
    async fn asked(&self, version: u64) -> Result<Vec<Key>, Problem> {
        let mut last = Problem::new(Code::Unavailable, "no controller is known");
        for controller in self.certs.controllers().await? {
            match self.ask::<Opened>(controller, RING).await {
                Ok(opened) if opened.version >= version => {
                    return Ok(opened.keys.into_iter().map(|(number, key)| Key { number, key }).collect());
                }
                Ok(_) => last = Problem::new(Code::Unavailable, "the controller that was asked is not as far"),
                Err(problem) => last = problem,
            }
        }
        Err(last)
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, node: NodeId, what: &str) -> Result<T, Problem> {
        let none = || Problem::new(Code::Unavailable, format!("node `{node}` gave no answer"));
        let told = async {
            let stream = self.certs.roads.open(node, Purpose::Peer, what, Bytes::new(), WITHIN).await?;
            let answer: Option<Result<T, Problem>> = Reader::bounded(stream, ANSWER_MAX_BYTES).next().await?;
            answer.unwrap_or_else(|| Err(none()))
        };
        timeout(WITHIN, told).await.unwrap_or_else(|_| Err(none()))
    }

    /// Answers a node that asks for the keys.
    pub(crate) fn serve_ring(&self, stream: Stream) -> Result<(), Fault> {
        if self.ring.is_none() {
            return Err(Fault::new(ErrorCode::NotFound, "a worker opens no keys"));
        }
        let this = self.clone();
        tokio::spawn(async move {
            match this.opened().await {
                Ok(opened) => given(stream, &opened).await,
                Err(problem) => refuse(stream, &problem).await,
            }
        });
        Ok(())
    }

    async fn opened(&self) -> Result<Opened, Problem> {
        let none = || Problem::new(Code::NotFound, "the keys of gossip are those that the constellation began with");
        let (version, sealed) = self.certs.log.look(known).await?.ok_or_else(none)?;
        let ring = self.ring.as_ref().ok_or_else(none)?;
        let keys = open(&sealed, ring)?.into_iter().map(|key| (key.number, key.key)).collect();
        Ok(Opened { version, keys })
    }

    /// Tells which keys are in use here.
    #[expect(clippy::unnecessary_wraps, reason = "as every other service")]
    pub(crate) fn serve_have(&self, stream: Stream) -> Result<(), Fault> {
        let version = self.version.load(Ordering::Relaxed);
        tokio::spawn(async move { given(stream, &version).await });
        Ok(())
    }

    /// Begins to change the key. On a controller.
    ///
    /// # Errors
    /// `Conflict` while a change is under way.
    pub(crate) async fn rotate(&self) -> Result<(), Problem> {
        let ring = self.ring.as_ref().ok_or_else(|| Problem::new(Code::Forbidden, "a worker changes no keys"))?;
        self.certs.log.catch_up().await?;
        if once::outcome(&self.certs.log).await?.transpose()?.is_some() {
            return Ok(());
        }
        let state = self.certs.log.look(security::members).await?;
        let known = security::of(&state)?;
        if known.gossip.len() > 1 {
            let problem = Problem::new(Code::Conflict, "the key of gossip is being changed already");
            return Err(problem.help("`rads c events` shows how far it has come"));
        }
        let mut keys = match known.gossip.is_empty() {
            true => self.certs.home().gossip.iter().map(|key| seal(key, ring)).collect(),
            false => known.gossip.clone(),
        };
        let number = keys.iter().map(|key: &GossipKey| key.number).max().unwrap_or_default() + 1;
        let key = Key { number, key: ByteBuf::from(KeyRing::generate_key().to_vec()) };
        keys.push(seal(&key, ring));
        self.set(keys, known.gossip_version, &state).await
    }

    async fn set(&self, keys: Vec<GossipKey>, base: u64, state: &State) -> Result<(), Problem> {
        let now = self.certs.clock.now();
        let command = Command::SetGossipKeys { keys, base, wall: now };
        if let Some(problem) = security::refusal(state, &command) {
            return Err(problem);
        }
        let index = self.certs.log.write(once::under_key(command, now, None)).await?;
        if let Some(outcome) = once::outcome(&self.certs.log).await? {
            return outcome.map(drop);
        }
        let version = self.certs.log.look(|state| state.security.as_ref().map(|of| of.gossip_version)).await?;
        match version {
            Some(version) if version >= index => Ok(()),
            _ => Err(Problem::new(Code::Conflict, "the keys of gossip have changed meanwhile")),
        }
    }

    /// Takes the steps of a change, while this node leads and until the agent ends.
    pub(crate) async fn lead(self) {
        // The version of the keys, and since when it is seen.
        let mut seen = (0, Instant::now());
        loop {
            clock::rest(LOOK_EVERY).await;
            let Ok(known) = self.certs.log.look(known).await else { return };
            let Some((version, keys)) = known.filter(|(_, keys)| keys.len() > 1) else { continue };
            if seen.0 != version {
                seen = (version, Instant::now());
            }
            let me = self.certs.roads.me();
            let is_here = self.version.load(Ordering::Relaxed) == version;
            if self.certs.log.leader() != Some(me) || !is_here || seen.1.elapsed() < SETTLES {
                continue;
            }
            let Ok(state) = self.certs.log.look(security::members).await else { return };
            let up = state.nodes.iter().filter(|(node, record)| record.standing == Standing::Up && **node != me);
            let behind = self.behind(up.map(|(node, _)| *node).collect(), version).await;
            if !behind.is_empty() && seen.1.elapsed() < PATIENCE {
                tracing::debug!(?behind, "nodes do not have the keys of gossip yet");
                continue;
            }
            let numbers: Vec<u32> = keys.iter().map(|key| key.number).collect();
            match self.set(next(keys), version, &state).await {
                Ok(()) => tracing::info!(before = ?numbers, "the key of gossip is being changed"),
                Err(problem) => tracing::warn!(%problem, "the keys of gossip stay as they are"),
            }
        }
    }

    /// Nodes that do not say that they have these keys.
    async fn behind(&self, nodes: Vec<NodeId>, version: u64) -> Vec<NodeId> {
        let mut behind = Vec::new();
        for some in nodes.chunks(64) {
            let asked = some.iter().map(|node| async { (*node, self.ask::<u64>(*node, HAVE).await) });
            let told = futures_util::future::join_all(asked).await;
            behind.extend(told.into_iter().filter(|(_, have)| have.as_ref() != Ok(&version)).map(|(node, _)| node));
        }
        behind
    }
}

/// What the log says, if it says anything.
fn known(state: &State) -> Option<(u64, Vec<GossipKey>)> {
    let security = state.security.as_ref().filter(|security| !security.gossip.is_empty())?;
    Some((security.gossip_version, security.gossip.clone()))
}

/// The next step from a ring of more than one key: the newest seals, or what came before it goes.
fn next(mut keys: Vec<GossipKey>) -> Vec<GossipKey> {
    let newest = keys.iter().map(|key| key.number).max();
    if keys.first().map(|key| key.number) == newest {
        keys.truncate(1);
    } else if let Some(at) = keys.iter().position(|key| Some(key.number) == newest) {
        let newest = keys.remove(at);
        keys.insert(0, newest);
    }
    keys
}

fn seal(key: &Key, ring: &KeyRing) -> GossipKey {
    let sealed = ring.for_use(KeyUse::Ring).seal(&context(key.number), &key.key);
    GossipKey { number: key.number, sealed }
}

fn open(sealed: &[GossipKey], ring: &KeyRing) -> Result<Vec<Key>, Problem> {
    let sealer = ring.for_use(KeyUse::Ring);
    let open = |key: &GossipKey| {
        let opened = sealer.open(&context(key.number), &key.sealed).map_err(|error| {
            let message = format!("gossip key {} of the log does not open: {error}", key.number);
            Problem::new(Code::DataCorrupt, message)
        })?;
        Ok(Key { number: key.number, key: ByteBuf::from(opened.to_vec()) })
    };
    sealed.iter().map(open).collect()
}

fn context(number: u32) -> Vec<u8> {
    format!("gossip key {number}").into_bytes()
}

/// What who joins now is given.
///
/// # Errors
/// `DataCorrupt`.
pub(crate) fn present(security: &Security, ring: &KeyRing, home: &Home) -> Result<Vec<Key>, Problem> {
    if security.gossip.is_empty() { Ok(home.gossip.clone()) } else { open(&security.gossip, ring) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_goes_on_by_steps_to_one_key_and_what_is_sealed_opens() {
        let ring = KeyRing::new([(1, [3; 32])]).unwrap();
        let keys: Vec<Key> = [4, 5].map(|number| Key { number, key: ByteBuf::from([number as u8; 32]) }).into();
        let sealed: Vec<GossipKey> = keys.iter().map(|key| seal(key, &ring)).collect();
        let numbers = |keys: &[GossipKey]| keys.iter().map(|key| key.number).collect::<Vec<u32>>();
        let second = next(sealed.clone());
        assert_eq!(numbers(&second), [5, 4]);
        assert_eq!(numbers(&next(second.clone())), [5]);
        assert!(open(&sealed, &ring).unwrap() == keys);
        // Under another number, or by another ring, nothing opens.
        let moved = GossipKey { number: 4, sealed: sealed[1].sealed.clone() };
        assert_eq!(open(&[moved], &ring).err().map(|problem| problem.code), Some(Code::DataCorrupt));
        let other = KeyRing::new([(1, [9; 32])]).unwrap();
        assert_eq!(open(&sealed, &other).err().map(|problem| problem.code), Some(Code::DataCorrupt));
    }
}
