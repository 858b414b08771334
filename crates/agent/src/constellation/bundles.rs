//! Files of apps between nodes: whoever lacks a bundle fetches it from one that has it, and an app is put only when most of the
//! voters hold what it is made from.
//!
//! `bundle.fetch` answers with the manifest, then with the contents that are asked for, in that order. What came is kept, each
//! content by itself once its hash is right, so a fetch that was cut short goes on where it was, with whoever has the rest.
//! `bundle.hold` has a node fetch a bundle and tells when it has it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use model::{
    BundleId, BundleManifest, Code, ContentHash, NodeId, NodeRole, Problem, Standing, StarPhase, StarTemplate,
};
use net::connection::StreamEnd;
use net::{Peer, Purpose, Stream};
use rnp::{ErrorCode, Fault};
use serde::{Deserialize, Serialize};
use state::State;
use store::bundles::{COLLECT_AFTER, id_of};
use store::{Bundles, Roots};
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::feed::Feed;
use super::mesh::refuse;
use super::roads::Roads;
use super::shared::Shared;
use super::wire::{Reader, decode, encode, framed};
use crate::beside::beside;
use crate::control::Looker;

pub(crate) const FETCH: &str = "bundle.fetch";
pub(crate) const HOLD: &str = "bundle.hold";

const OPEN_WITHIN: Duration = Duration::from_secs(3);
/// Who sends nothing for so long is left for another.
const SILENCE: Duration = Duration::from_secs(15);
/// Longest wait for one voter to fetch what an app is made from; the largest bundle over 40 Mbit/s.
const HOLD_WITHIN: Duration = Duration::from_secs(120);
/// Rounds through all that may have a bundle: one that was just assigned may not be known of there yet.
const ROUNDS: usize = 3;
const BETWEEN_ROUNDS: Duration = Duration::from_millis(500);
/// Bundles fetched at once.
const FETCHES_MAX: usize = 3;
/// How often it is looked for what can go. What was touched lately stays in any case.
const COLLECT_EVERY: Duration = COLLECT_AFTER;
/// Hashes asked for in one message.
const ASKED_AT_ONCE: usize = 64;
/// A message that asks for contents has at most so many bytes.
const ASKED_MAX_BYTES: usize = 64 << 10;
/// A manifest of the most files there may be has some 2 MiB.
const MANIFEST_MAX_BYTES: usize = 16 << 20;
/// MiB of contents of one bundle that wait to be written to the disk; the largest content fits alone.
const WRITING_MIB: u32 = 64;
/// What one content counts for at least: so many are written at once.
const WRITING_LEAST_MIB: u32 = 4;
/// Bytes of a file read at once.
const BLOCK: usize = 128 << 10;
/// Stands for the length of a content that is not there.
const NOT_HERE: u64 = u64::MAX;

/// What follows from both services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Which {
    bundle: BundleId,
}

/// Clones are the same carrier.
#[derive(Clone)]
pub(crate) struct Carrier(Arc<Inner>);

struct Inner {
    roads: Roads,
    /// Who votes, as far as is known.
    feed: Feed,
    bundles: Arc<Bundles>,
    roots: Arc<Roots>,
    looker: Looker,
    /// Of each bundle that is being fetched: who wants it too waits.
    fetching: Mutex<HashMap<BundleId, Weak<tokio::sync::Mutex<()>>>>,
    places: Semaphore,
}

impl Carrier {
    pub(crate) fn new(roads: Roads, feed: Feed, bundles: Arc<Bundles>, roots: Arc<Roots>, looker: Looker) -> Self {
        let (fetching, places) = (Mutex::default(), Semaphore::new(FETCHES_MAX));
        Self(Arc::new(Inner { roads, feed, bundles, roots, looker, fetching, places }))
    }

    /// Whether all that a star is made from is here; costs a look at the disk.
    pub(crate) fn has(&self, template: &StarTemplate) -> bool {
        let has_root = || self.0.roots.path(&template.bundle).is_some();
        self.0.bundles.keep(&template.bundle) && (template.rootfs.is_none() || has_root())
    }

    /// Has all that a star is made from here when it returns.
    ///
    /// # Errors
    /// As [`Carrier::ensure`]; `InvalidValue` for a root file system that cannot be unpacked.
    pub(crate) async fn prepare(&self, template: &StarTemplate) -> Result<(), Problem> {
        let bundle = template.bundle;
        self.ensure(bundle, None).await?;
        let Some(archive) = template.rootfs.clone() else { return Ok(()) };
        let (bundles, roots) = (Arc::clone(&self.0.bundles), Arc::clone(&self.0.roots));
        beside(move || {
            let folder = bundles.path(&bundle).ok_or_else(|| missing(bundle))?;
            roots.ensure(&bundle, &folder.join(archive))
        })
        .await
    }

    /// Removes what nothing in the constellation is made from any more, for as long as the agent runs. What is wanted is asked of
    /// the log as it is then: a state that is behind could miss an app that was just put.
    pub(crate) async fn collect_now_and_then(self, shared: Shared) {
        loop {
            tokio::time::sleep(COLLECT_EVERY).await;
            let collected = async {
                let keep = shared.look_now(state::State::bundles).await?;
                let (bundles, roots) = (Arc::clone(&self.0.bundles), Arc::clone(&self.0.roots));
                beside(move || {
                    let removed = bundles.collect(&keep)?;
                    roots.collect(&keep, COLLECT_AFTER)?;
                    Ok(removed)
                })
                .await
            };
            match collected.await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "old bundles removed"),
                Err(problem) => tracing::debug!(%problem, "old bundles not removed"),
            }
        }
    }

    /// Has a bundle here when it returns, from `first` or whoever else has it.
    ///
    /// # Errors
    /// `BundleMissing` when nobody gives it; what the own disk says.
    pub(crate) async fn ensure(&self, bundle: BundleId, first: Option<NodeId>) -> Result<(), Problem> {
        if self.is_here(bundle).await? {
            return Ok(());
        }
        let turn = self.turn(bundle);
        let _turn = turn.lock().await;
        if self.is_here(bundle).await? {
            return Ok(());
        }
        let _place = self.0.places.acquire().await;
        let mut last = None;
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(BETWEEN_ROUNDS).await;
            }
            let others = self.0.looker.look(move |node| sources(node.state(), bundle)).await?;
            let mut asked = BTreeSet::from([self.0.roads.me()]);
            for node in first.into_iter().chain(others).filter(|node| asked.insert(*node)) {
                match self.fetch(node, bundle).await {
                    Ok(()) => return Ok(()),
                    Err(Failed::There(problem)) => {
                        tracing::debug!(%node, %bundle, %problem, "bundle not fetched");
                        last = Some(problem);
                    }
                    Err(Failed::Here(problem)) => return Err(problem),
                }
            }
        }
        let why = last.map_or_else(String::new, |problem| format!(": {}", problem.message));
        let mut problem = missing(bundle);
        problem.message.push_str(&why);
        Err(problem)
    }

    /// Has bundles with a majority of the voters when it returns; this node has them already.
    ///
    /// # Errors
    /// Tells how many voters have them.
    pub(crate) async fn spread(&self, bundles: &BTreeSet<BundleId>) -> Result<(), Problem> {
        if bundles.is_empty() {
            return Ok(());
        }
        let voters = self.0.feed.keepers().borrow().voters.clone();
        let me = self.0.roads.me();
        let mut holding = JoinSet::new();
        for voter in voters.iter().copied().filter(|voter| *voter != me) {
            let (this, bundles) = (self.clone(), bundles.clone());
            holding.spawn(async move {
                for bundle in bundles {
                    this.hold(voter, bundle).await?;
                }
                Ok::<(), Problem>(())
            });
        }
        let (mut have, wanted) = (usize::from(voters.contains(&me)), voters.len() / 2 + 1);
        let mut last = None;
        while have < wanted {
            match holding.join_next().await {
                Some(Ok(Ok(()))) => have += 1,
                Some(Ok(Err(problem))) => last = Some(problem.message),
                Some(Err(error)) => last = Some(error.to_string()),
                None => {
                    let why = last.map_or_else(String::new, |why| format!(": {why}"));
                    let message = format!(
                        "the app's files are with {have} of {} voters, and {wanted} have to hold them{why}",
                        voters.len()
                    );
                    let help = "nothing was changed; `rads c nodes` shows who is there";
                    return Err(Problem::new(Code::Unavailable, message).help(help));
                }
            }
        }
        // The others go on fetching.
        holding.detach_all();
        Ok(())
    }

    async fn hold(&self, node: NodeId, bundle: BundleId) -> Result<(), Problem> {
        let told = async {
            let stream = self.0.roads.open(node, Purpose::Data, HOLD, encode(&Which { bundle })?, OPEN_WITHIN).await?;
            let told = Reader::new(stream).next::<Result<(), Problem>>().await?;
            told.unwrap_or_else(|| Err(Problem::new(Code::Unavailable, format!("node `{node}` said nothing"))))
        };
        let late = || Problem::new(Code::Timeout, format!("node `{node}` did not fetch it in time"));
        timeout(HOLD_WITHIN, told).await.unwrap_or_else(|_| Err(late()))
    }

    async fn is_here(&self, bundle: BundleId) -> Result<bool, Problem> {
        let bundles = Arc::clone(&self.0.bundles);
        beside(move || Ok(bundles.keep(&bundle))).await
    }

    fn turn(&self, bundle: BundleId) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = self.0.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        fetching.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = fetching.get(&bundle).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        fetching.insert(bundle, Arc::downgrade(&turn));
        turn
    }

    async fn fetch(&self, node: NodeId, bundle: BundleId) -> Result<(), Failed> {
        let body = encode(&Which { bundle }).map_err(Failed::Here)?;
        let stream = self.0.roads.open(node, Purpose::Data, FETCH, body, OPEN_WITHIN).await.map_err(Failed::There)?;
        let mut reader = Reader::bounded(stream, MANIFEST_MAX_BYTES);
        let manifest = in_time(reader.next::<Result<BundleManifest, Problem>>()).await?;
        let manifest = manifest.unwrap_or_else(|| Err(silent())).map_err(Failed::There)?;
        if id_of(&manifest) != bundle {
            let message = format!("node `{node}` gave another manifest than that of bundle `{bundle}`");
            return Err(Failed::There(Problem::new(Code::InvalidValue, message)));
        }
        let (bundles, wanted) = (Arc::clone(&self.0.bundles), manifest.clone());
        let missing = beside(move || Ok(bundles.missing(&wanted))).await.map_err(Failed::Here)?;
        let sizes: HashMap<ContentHash, u64> = manifest.files.values().map(|file| (file.content, file.size)).collect();
        let (stream, rest) = reader.into_parts();
        let ask = async {
            for hashes in missing.chunks(ASKED_AT_ONCE) {
                let hashes = framed(&hashes).map_err(Failed::Here)?;
                stream.write(hashes).await.map_err(lost)?;
            }
            stream.finish();
            Ok(())
        };
        let mut input = Input { stream: &stream, buffer: rest };
        let take = self.take(&mut input, &missing, &sizes);
        let ((), ()) = tokio::try_join!(ask, take)?;
        let bundles = Arc::clone(&self.0.bundles);
        beside(move || bundles.commit(&manifest)).await.map_err(Failed::Here)?;
        tracing::info!(%bundle, %node, fetched = missing.len(), "bundle fetched");
        Ok(())
    }

    /// Takes contents in the order they were asked for. Each is kept once its hash is right.
    async fn take(
        &self,
        input: &mut Input<'_>,
        missing: &[ContentHash],
        sizes: &HashMap<ContentHash, u64>,
    ) -> Result<(), Failed> {
        let room = Arc::new(Semaphore::new(WRITING_MIB as usize));
        let mut writing = JoinSet::new();
        let taken = async {
            for hash in missing {
                let content = input.content(hash, sizes).await?;
                let mib =
                    u32::try_from(content.len() >> 20).unwrap_or(WRITING_MIB).clamp(WRITING_LEAST_MIB, WRITING_MIB);
                let Ok(place) = Arc::clone(&room).acquire_many_owned(mib).await else { return Ok(()) };
                let (bundles, hash) = (Arc::clone(&self.0.bundles), *hash);
                writing.spawn_blocking(move || {
                    let put = bundles.put_blob(&hash, &content);
                    drop(place);
                    put
                });
                while let Some(written) = writing.try_join_next() {
                    kept(written)?;
                }
            }
            Ok(())
        };
        let mut taken = taken.await;
        // What came before something went wrong is kept too.
        while let Some(written) = writing.join_next().await {
            taken = taken.and(kept(written));
        }
        taken
    }

    /// Gives a bundle to another node.
    pub(crate) fn serve_fetch(&self, peer: &Arc<Peer>, body: &[u8], stream: Stream) -> Result<(), Fault> {
        let Which { bundle } = decode(body).map_err(|problem| Fault::new(ErrorCode::Protocol, problem.message))?;
        let (this, peer) = (self.clone(), Arc::clone(peer));
        tokio::spawn(async move {
            let manifest = async {
                this.may_have(&peer, bundle).await?;
                let bundles = Arc::clone(&this.0.bundles);
                let found = beside(move || bundles.manifest(&bundle)).await?;
                found.ok_or_else(|| Problem::new(Code::NotFound, format!("bundle `{bundle}` is not on this node")))
            };
            match manifest.await {
                Ok(manifest) => {
                    if let Err(problem) = this.give(&manifest, stream).await {
                        tracing::debug!(node = %peer.node(), %bundle, %problem, "bundle not given");
                    }
                }
                Err(problem) => refuse(stream, &problem).await,
            }
        });
        Ok(())
    }

    /// A controller may have every bundle, a worker those that stars of its own are made from.
    async fn may_have(&self, peer: &Peer, bundle: BundleId) -> Result<(), Problem> {
        if peer.identity().is_some_and(|identity| identity.role == NodeRole::Controller) {
            return Ok(());
        }
        let node = peer.node();
        let needs = move |state: &State| {
            let mut own = state.stars.values().filter(|star| star.node == node && star.phase != StarPhase::Ended);
            own.any(|star| star.template.bundle == bundle)
        };
        match self.0.looker.look(move |node| needs(node.state())).await? {
            true => Ok(()),
            false => {
                let message =
                    format!("no star of node `{node}` is made from bundle `{bundle}`, as far as is known here");
                Err(Problem::new(Code::Forbidden, message))
            }
        }
    }

    async fn give(&self, manifest: &BundleManifest, stream: Stream) -> Result<(), Problem> {
        let lost = |end: StreamEnd| Problem::new(Code::Unavailable, end.to_string());
        stream.write(framed(&Ok::<_, Problem>(manifest))?).await.map_err(lost)?;
        let known: BTreeSet<ContentHash> = manifest.files.values().map(|file| file.content).collect();
        let mut reader = Reader::bounded(stream, ASKED_MAX_BYTES);
        while let Some(hashes) = reader.next::<Vec<ContentHash>>().await? {
            for hash in hashes {
                let (bundles, is_known) = (Arc::clone(&self.0.bundles), known.contains(&hash));
                let file = beside(move || if is_known { bundles.content(&hash) } else { Ok(None) }).await?;
                let Some((file, length)) = file else {
                    reader.stream().write(Bytes::copy_from_slice(&NOT_HERE.to_be_bytes())).await.map_err(lost)?;
                    continue;
                };
                reader.stream().write(Bytes::copy_from_slice(&length.to_be_bytes())).await.map_err(lost)?;
                let mut file = tokio::fs::File::from_std(file).take(length);
                loop {
                    let mut block = BytesMut::with_capacity(BLOCK);
                    let read = file.read_buf(&mut block).await;
                    match read.map_err(|error| Problem::new(Code::Internal, error.to_string()))? {
                        0 => break,
                        _ => reader.stream().write(block.freeze()).await.map_err(lost)?,
                    }
                }
                if file.limit() > 0 {
                    return Err(Problem::new(Code::DataCorrupt, format!("content `{hash}` is shorter than it was")));
                }
            }
        }
        reader.stream().finish();
        Ok(())
    }

    /// Fetches a bundle because another node asks for that, and tells it when it is here.
    pub(crate) fn serve_hold(&self, peer: &Arc<Peer>, body: &[u8], stream: Stream) -> Result<(), Fault> {
        let Which { bundle } = decode(body).map_err(|problem| Fault::new(ErrorCode::Protocol, problem.message))?;
        let (this, from) = (self.clone(), peer.node());
        tokio::spawn(async move {
            match this.ensure(bundle, Some(from)).await {
                Ok(()) => given(stream, &()).await,
                Err(problem) => refuse(stream, &problem).await,
            }
        });
        Ok(())
    }
}

fn missing(bundle: BundleId) -> Problem {
    let message = format!("no node that can be reached gives bundle `{bundle}`");
    Problem::new(Code::BundleMissing, message).help("bring the app up again from its source")
}

/// Answers with a value, and waits until it was read.
pub(super) async fn given<T: Serialize>(stream: Stream, value: &T) {
    let Ok(done) = framed(&Ok::<&T, Problem>(value)) else { return };
    if stream.write(done).await.is_ok() {
        stream.finish();
        let read = async { while let Ok(Some(_)) = stream.read().await {} };
        let _ = timeout(SILENCE, read).await;
    }
}

/// Who may have a bundle: nodes with stars made from it, then the controllers; those that are not up last.
fn sources(state: &State, bundle: BundleId) -> Vec<NodeId> {
    let of_bundle = |star: &&state::StarRecord| star.template.bundle == bundle && star.phase != StarPhase::Assigned;
    let holders = state.stars.values().filter(of_bundle).map(|star| star.node);
    let controllers =
        state.nodes.iter().filter(|(_, record)| record.role == NodeRole::Controller).map(|(node, _)| *node);
    let mut seen = BTreeSet::new();
    let all: Vec<NodeId> = holders.chain(controllers).filter(|node| seen.insert(*node)).collect();
    let standing = |node: &NodeId| state.nodes.get(node).map(|record| record.standing);
    let (up, down): (Vec<NodeId>, Vec<NodeId>) = all.into_iter().partition(|node| standing(node) == Some(Standing::Up));
    up.into_iter().chain(down.into_iter().filter(|node| standing(node) == Some(Standing::Lost))).collect()
}

/// Whose fault it is that a fetch did not come to its end.
enum Failed {
    /// Another may give it.
    There(Problem),
    /// Another could not help.
    Here(Problem),
}

fn lost(end: StreamEnd) -> Failed {
    Failed::There(Problem::new(Code::Unavailable, end.to_string()))
}

fn silent() -> Problem {
    Problem::new(Code::Unavailable, "the node said nothing")
}

fn kept(written: Result<Result<(), Problem>, tokio::task::JoinError>) -> Result<(), Failed> {
    match written {
        Ok(Ok(())) => Ok(()),
        // The bytes were not what they were called.
        Ok(Err(problem)) if problem.code == Code::InvalidValue => Err(Failed::There(problem)),
        Ok(Err(problem)) => Err(Failed::Here(problem)),
        Err(error) => Err(Failed::Here(Problem::new(Code::Internal, error.to_string()))),
    }
}

async fn in_time<T>(what: impl Future<Output = Result<T, Problem>>) -> Result<T, Failed> {
    timeout(SILENCE, what).await.unwrap_or_else(|_| Err(silent())).map_err(Failed::There)
}

/// What comes on a stream, a piece of a wanted length at a time. Memory follows what came.
struct Input<'a> {
    stream: &'a Stream,
    buffer: BytesMut,
}

impl Input<'_> {
    async fn content(&mut self, hash: &ContentHash, sizes: &HashMap<ContentHash, u64>) -> Result<Bytes, Failed> {
        let length = self.exact(8).await?.get_u64();
        if sizes.get(hash) != Some(&length) {
            let message = match length {
                NOT_HERE => format!("content `{hash}` is no longer there"),
                length => format!("content `{hash}` is announced with {length} bytes, which is not its size"),
            };
            return Err(Failed::There(Problem::new(Code::BundleMissing, message)));
        }
        self.exact(usize::try_from(length).unwrap_or(usize::MAX)).await
    }

    async fn exact(&mut self, length: usize) -> Result<Bytes, Failed> {
        while self.buffer.len() < length {
            let more = timeout(SILENCE, self.stream.read()).await.map_err(|_| Failed::There(silent()))?;
            match more.map_err(lost)? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => {
                    let problem = Problem::new(Code::Unavailable, "the node stopped in the middle");
                    return Err(Failed::There(problem));
                }
            }
        }
        Ok(self.buffer.split_to(length).freeze())
    }
}

#[cfg(test)]
mod tests;
