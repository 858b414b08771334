//! Secrets of a constellation: sealed in the log, opened by controllers alone, and given to the node that runs a star which is
//! bound to them, for that star.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::Caller;
use bytes::Bytes;
use model::secret::SECRET_MAX;
use model::{Code, NodeId, NodeRole, Problem, SecretKey, SecretView, Standing, StarId, StarPhase};
use net::identity::KeyRing;
use net::identity::keyring::KeyUse;
use net::{Peer, Purpose, Stream};
use node::Request;
use rnp::{ErrorCode, Fault};
use serde::{Deserialize, Serialize};
use state::{Author, State};
use store::Secrets;
use store::secrets::Value;
use tokio::time::timeout;

use super::bundles::given;
use super::forward::Forward;
use super::home::Home;
use super::mesh::refuse;
use super::roads::Roads;
use super::wire::{Reader, decode, encode};
use crate::beside::beside;
use crate::control::Looker;

pub(crate) const SERVICE: &str = "secret.release";

/// Longest wait for one controller.
const RELEASE_WITHIN: Duration = Duration::from_secs(3);
/// Rounds through all controllers: what was just assigned may not be known there yet.
const ROUNDS: usize = 4;
const BETWEEN_ROUNDS: Duration = Duration::from_millis(300);

/// What a star's secrets are, by name.
pub(crate) type Opened = BTreeMap<SecretKey, Value>;

/// What follows from `secret.release`. The answer is a `Result<Vec<Released>, Problem>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Release {
    star: StarId,
}

#[derive(Serialize, Deserialize)]
struct Released {
    secret: SecretKey,
    #[serde(with = "serde_bytes")]
    value: Vec<u8>,
}

/// Clones are the same vault.
#[derive(Clone)]
pub(crate) struct Vault {
    roads: Roads,
    looker: Looker,
    forward: Forward,
    /// On controllers.
    ring: Option<Arc<KeyRing>>,
}

impl Vault {
    /// # Errors
    /// When a controller has no ring.
    pub(crate) fn new(home: &Home, roads: Roads, looker: Looker, forward: Forward) -> Result<Self, Problem> {
        let ring = match home.role {
            NodeRole::Controller => Some(Arc::new(home.unsealing_ring()?)),
            NodeRole::Worker => None,
        };
        Ok(Self { roads, looker, forward, ring })
    }

    /// Sets a value: sealed here by a controller, passed on to one by a worker.
    pub(crate) async fn set(
        &self,
        secret: SecretKey,
        value: &[u8],
        caller: Caller,
        author: Author,
    ) -> Result<u64, Problem> {
        if value.is_empty() || value.len() as u64 > SECRET_MAX.0 {
            return Err(Problem::new(Code::InvalidValue, format!("a secret has between 1 byte and {SECRET_MAX}")));
        }
        match &self.ring {
            Some(ring) => {
                let sealed = ring.for_use(KeyUse::Secret).seal(secret.to_string().as_bytes(), value);
                let set = Request::SetSecret { secret, sealed };
                Ok(self.looker.change_once(author, set).await?.index)
            }
            None => {
                let value = Bytes::copy_from_slice(value);
                let mut last = no_controller();
                for node in self.controllers().await? {
                    let client = self.forward.client(node, caller.clone()).await?;
                    match client.put_secret(&secret, value.clone()).await {
                        Err(problem) if problem.code == Code::Unavailable && !problem.changed => last = problem,
                        other => return other.map(|accepted| accepted.index),
                    }
                }
                Err(last)
            }
        }
    }

    /// A value in the open, for a user of this very machine, which must be a controller: what a worker could be given for
    /// the asking, whoever took it over would have.
    pub(crate) async fn read(&self, secret: SecretKey, caller: Caller, author: Author) -> Result<Bytes, Problem> {
        if self.ring.is_none() || caller.from.is_some() {
            let problem = Problem::new(Code::Forbidden, "values of secrets are shown on controllers only");
            return Err(problem.help("`rads c nodes` lists them; stars get theirs wherever they run"));
        }
        let key = secret.clone();
        let of = self.looker.look(move |node| sealed(node.state(), &key)).await??;
        let mut value = self.open(of)?;
        let noted = Request::NoteRead { secrets: vec![secret], uid: caller.uid, star: None };
        self.looker.change_by(author, noted).await?;
        Ok(std::mem::take(&mut *value).into())
    }

    /// All that a star of this node is bound to.
    ///
    /// # Errors
    /// When no controller gives them.
    pub(crate) async fn of_star(&self, star: StarId) -> Result<Opened, Problem> {
        let me = self.roads.me();
        if self.ring.is_some() {
            let of_star = self.looker.look(move |node| bound(node.state(), star, me)).await??;
            return of_star.into_iter().map(|of| Ok((of.0.clone(), self.open(of)?))).collect();
        }
        let mut last = no_controller();
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(BETWEEN_ROUNDS).await;
            }
            for node in self.controllers().await? {
                match self.release(node, star).await {
                    Ok(opened) => return Ok(opened),
                    Err(problem) => last = problem,
                }
            }
        }
        Err(last)
    }

    async fn release(&self, node: NodeId, star: StarId) -> Result<Opened, Problem> {
        let told = async {
            let body = encode(&Release { star })?;
            let stream = self.roads.open(node, Purpose::Peer, SERVICE, body, RELEASE_WITHIN).await?;
            let told = Reader::new(stream).next::<Result<Vec<Released>, Problem>>().await?;
            told.unwrap_or_else(|| Err(no_controller()))
        };
        let released = timeout(RELEASE_WITHIN, told).await.unwrap_or_else(|_| Err(no_controller()))?;
        Ok(released.into_iter().map(|Released { secret, value }| (secret, Value::new(value))).collect())
    }

    /// Has the log keep what this machine kept while it was alone. What the log has already is newer.
    pub(crate) async fn take_over(self, secrets: Arc<Secrets>) {
        if self.ring.is_none() {
            return;
        }
        let own = Arc::clone(&secrets);
        let Ok(left) = beside(move || own.list()).await else { return };
        for SecretView { secret, .. } in left {
            let taken = async {
                let key = secret.clone();
                if !self.looker.look(move |node| node.state().secrets.contains_key(&key)).await? {
                    let (own, key) = (Arc::clone(&secrets), secret.clone());
                    let value = beside(move || own.open(&key)).await?;
                    let agent = Author::agent(self.roads.me());
                    self.set(secret.clone(), &value, Caller::owner(0), agent).await?;
                }
                let (own, key) = (Arc::clone(&secrets), secret.clone());
                beside(move || own.delete(&key)).await
            };
            match taken.await {
                Ok(()) => tracing::info!(%secret, "secret taken over into the constellation"),
                // The next agent tries again.
                Err(problem) => tracing::warn!(%secret, %problem, "secret not taken over into the constellation"),
            }
        }
    }

    /// Gives another node the secrets of a star that it runs.
    pub(crate) fn serve(&self, peer: &Arc<Peer>, body: &[u8], stream: Stream) -> Result<(), Fault> {
        let Release { star } = decode(body).map_err(|problem| Fault::new(ErrorCode::Protocol, problem.message))?;
        if self.ring.is_none() {
            return Err(Fault::new(ErrorCode::NotFound, "a worker opens no secrets"));
        }
        let (this, node) = (self.clone(), peer.node());
        tokio::spawn(async move {
            let opened = async {
                let of_star = this.looker.look(move |own| bound(own.state(), star, node)).await??;
                let release = |of: Sealed| {
                    let value = this.open((of.0.clone(), of.1))?;
                    Ok(Released { secret: of.0, value: value.to_vec() })
                };
                of_star.into_iter().map(release).collect::<Result<Vec<Released>, Problem>>()
            };
            match opened.await {
                Ok(released) => given(stream, &released).await,
                Err(problem) => {
                    tracing::warn!(%star, %node, %problem, "secrets not given");
                    refuse(stream, &problem).await;
                }
            }
        });
        Ok(())
    }

    fn open(&self, (secret, sealed): Sealed) -> Result<Value, Problem> {
        let ring = self.ring.as_ref().ok_or_else(no_controller)?;
        ring.for_use(KeyUse::Secret).open(secret.to_string().as_bytes(), &sealed).map_err(|error| {
            let message = format!("secret `{secret}` does not open: {error}");
            Problem::new(Code::DataCorrupt, message).help(format!("set it anew with `rads c secrets set {secret}`"))
        })
    }

    /// Controllers, those that are up first.
    async fn controllers(&self) -> Result<Vec<NodeId>, Problem> {
        let me = self.roads.me();
        let find = move |state: &State| {
            let there = |standing: Standing| {
                let of = state.nodes.iter().filter(move |(node, record)| {
                    record.role == NodeRole::Controller && record.standing == standing && **node != me
                });
                of.map(|(node, _)| *node).collect::<Vec<_>>()
            };
            [there(Standing::Up), there(Standing::Lost)].concat()
        };
        self.looker.look(move |node| find(node.state())).await
    }
}

type Sealed = (SecretKey, Vec<u8>);

fn sealed(state: &State, secret: &SecretKey) -> Result<Sealed, Problem> {
    let record = state.secrets.get(secret).ok_or_else(|| {
        let problem = Problem::new(Code::SecretMissing, format!("there is no secret `{secret}`"));
        problem.help(format!("set it with `rads c secrets set {secret}`"))
    })?;
    Ok((secret.clone(), record.sealed.clone()))
}

/// What a star is bound to, if it is this node's and has not ended.
fn bound(state: &State, star: StarId, node: NodeId) -> Result<Vec<Sealed>, Problem> {
    let own = state.stars.get(&star).filter(|record| record.node == node && record.phase != StarPhase::Ended);
    let record = own.ok_or_else(|| {
        let message = format!("no star `{star}` runs on node `{node}`, as far as is known here");
        Problem::new(Code::Forbidden, message)
    })?;
    record.secrets().iter().map(|secret| sealed(state, secret)).collect()
}

fn no_controller() -> Problem {
    let problem = Problem::new(Code::Unavailable, "no controller can be reached, and only they open secrets");
    problem.help("`rads c nodes` shows who is there")
}

#[cfg(test)]
mod tests {
    use model::{BundleId, ContentHash, Name};
    use state::SecretRecord;

    use super::super::testing::star;
    use super::*;

    #[test]
    fn a_node_is_given_what_its_own_living_stars_are_bound_to_and_nothing_else() {
        let mut state = State::default();
        let [password, other]: [SecretKey; 2] = ["password", "other"].map(|name| name.parse().unwrap());
        for secret in [&password, &other] {
            let record = SecretRecord { sealed: vec![1], version: 1, changed: model::WallTime(0) };
            state.secrets.insert(secret.clone(), record);
        }
        let mut record = star(StarId(7), NodeId(2), BundleId(ContentHash([0; 32])));
        let name: Name = "password".parse().unwrap();
        let mut template = (*record.template).clone();
        template.interior.secrets.insert("/run/secrets/p".to_owned(), name);
        record.template = template.into();
        state.stars.insert(record);
        let check = |state: &State, star: u64, node: u64, expected: Result<&[&SecretKey], Code>| {
            let found = bound(state, StarId(star), NodeId(node));
            let found = found.map(|found| found.into_iter().map(|(secret, _)| secret).collect::<Vec<_>>());
            let expected = expected.map(|expected| expected.iter().copied().cloned().collect());
            assert_eq!(found.map_err(|problem| problem.code), expected, "{star} {node}");
        };
        check(&state, 7, 2, Ok(&[&password]));
        check(&state, 7, 3, Err(Code::Forbidden));
        check(&state, 8, 2, Err(Code::Forbidden));
        let mut ended = state.clone();
        ended.stars.change(StarId(7), |star| star.phase = StarPhase::Ended).unwrap();
        check(&ended, 7, 2, Err(Code::Forbidden));
        state.secrets.remove(&password);
        check(&state, 7, 2, Err(Code::SecretMissing));
    }
}
