//! What agreed commands lead to: the state, and everyone who wants to hear of it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, OptionalSend};
use state::{Change, Command, State};
use tokio::sync::mpsc;

use crate::disk::{Fault, Write};
use crate::flusher::Flusher;
use crate::raft::{LogId, Reply, Snapshot, SnapshotMeta, StoredMembers, Types};
use crate::snapshot::Image;
use crate::v1;

/// How long a snapshot waits for room on a full disk before it is tried again.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// What is handed on, in the order of the log, without gap or repetition.
#[derive(Debug, Clone)]
pub enum Applied {
    /// The state as a whole: first of all after a start, and when this voter was so far behind that the commands in between
    /// are not sent any more. Its `index` is the last command's in it.
    State(Arc<State>),
    /// One agreed command, the same as MessagePack with named fields, and what it changed. Indexes grow but have gaps: the log
    /// also carries what is not a command.
    Command { index: u64, command: Arc<Command>, written: Bytes, changes: Vec<Change> },
}

/// Clones are the same machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    inner: Arc<Mutex<Inner>>,
    flusher: Flusher,
    applied: mpsc::Sender<Applied>,
    /// Size of the last snapshot made or installed.
    snapshot_bytes: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Inner {
    last: Option<LogId>,
    members: StoredMembers,
    /// Shared with a snapshot while that is made: the next command then works on a copy.
    state: Arc<State>,
    /// Somebody was given the state, and hears of every change from there on.
    heard: bool,
}

impl Machine {
    pub(crate) fn new(flusher: Flusher, applied: mpsc::Sender<Applied>) -> Self {
        Self { inner: Arc::default(), flusher, applied, snapshot_bytes: Arc::default() }
    }

    /// Begins to tell: the state first. What was recovered before needs nobody who listens.
    pub(crate) fn begin_to_tell(&self) {
        let mut inner = self.inner();
        // Under the lock, so that nothing is applied in between; the channel is new, so there is room.
        let _ = self.applied.try_send(Applied::State(Arc::clone(&inner.state)));
        inner.heard = true;
    }

    /// The state now. Held for long, it costs a copy of the state when the next command is applied.
    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.inner().state)
    }

    /// The index of the last command applied.
    pub(crate) fn index(&self) -> u64 {
        self.inner().state.index
    }

    pub(crate) fn snapshot_bytes(&self) -> u64 {
        self.snapshot_bytes.load(Relaxed)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while it is held")
    }

    /// Waits while those who listen are behind: they are given no more than they can take.
    async fn tell(&self, applied: Applied) {
        // Nobody listens any more when the agent ends.
        let _ = self.applied.send(applied).await;
    }

    /// Gives what changed, and what is to be told of it.
    fn apply_command(&self, id: LogId, bytes: &Bytes) -> io::Result<(Vec<Change>, Option<Applied>)> {
        // Another version may have written it. To pass over it would be another state than the others have.
        let command = v1::command(bytes).map_err(|error| {
            io::Error::other(format!("command {} cannot be read by this version: {error}", id.index))
        })?;
        let mut inner = self.inner();
        let changes = state::apply(Arc::make_mut(&mut inner.state), id.index, &command);
        inner.last = Some(id);
        let told = inner.heard.then(|| Applied::Command {
            index: id.index,
            command: Arc::new(command),
            written: v1::written(bytes),
            changes: changes.clone(),
        });
        Ok((changes, told))
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Image;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembers), io::Error> {
        let inner = self.inner();
        Ok((inner.last, inner.members.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let id = entry.log_id;
            let changes = match entry.payload {
                EntryPayload::Normal(bytes) => {
                    let (changes, told) = self.apply_command(id, &bytes.0)?;
                    if let Some(told) = told {
                        self.tell(told).await;
                    }
                    changes
                }
                EntryPayload::Blank => {
                    self.inner().last = Some(id);
                    Vec::new()
                }
                EntryPayload::Membership(members) => {
                    let mut inner = self.inner();
                    inner.last = Some(id);
                    inner.members = StoredMembers::new(Some(id), members);
                    Vec::new()
                }
            };
            if let Some(responder) = responder {
                responder.send(Reply { changes });
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        // A view of its own: what is applied from now on is not in it.
        let inner = self.inner();
        let view = Inner {
            last: inner.last,
            members: inner.members.clone(),
            state: Arc::clone(&inner.state),
            ..Inner::default()
        };
        Self { inner: Arc::new(Mutex::new(view)), ..self.clone() }
    }

    async fn install_snapshot(&mut self, _: &SnapshotMeta, image: Image) -> Result<(), io::Error> {
        let size = image.bytes.len() as u64;
        let (snapshot, state) = decode(image).await?;
        // After a start it is there already.
        let stored = self.get_current_snapshot().await?;
        if stored.is_none_or(|stored| stored.meta != snapshot.meta) {
            save(&self.flusher, &snapshot).await?;
        }
        self.snapshot_bytes.store(size, Relaxed);
        let state = Arc::new(state);
        let heard = {
            let mut inner = self.inner();
            inner.last = snapshot.meta.last_log_id;
            inner.members = snapshot.meta.last_membership;
            inner.state = Arc::clone(&state);
            inner.heard
        };
        if heard {
            self.tell(Applied::State(state)).await;
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        match self.flusher.snapshot().await? {
            Some((_, bytes)) => Ok(Some(decode(Image::new(bytes)).await?.0)),
            None => Ok(None),
        }
    }
}

/// The builder is a machine that stands still: see `get_snapshot_builder`.
impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = Image;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let this = self.clone();
        let made = blocking(move || {
            let (last, members, state) = {
                let inner = this.inner();
                (inner.last, inner.members.clone(), Arc::clone(&inner.state))
            };
            let image = Image::encode(last, &members, &state)?;
            let meta = SnapshotMeta { last_log_id: last, last_membership: members };
            Ok(Snapshot { meta, snapshot: image })
        });
        let snapshot = made.await?;
        save(&self.flusher, &snapshot).await?;
        self.snapshot_bytes.store(snapshot.snapshot.bytes.len() as u64, Relaxed);
        Ok(snapshot)
    }
}

async fn decode(image: Image) -> io::Result<(Snapshot, State)> {
    blocking(move || image.decode().map_err(|error| format!("a snapshot cannot be read by this version: {error}")))
        .await
}

/// A large state takes a while: not on a thread that others wait for.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> io::Result<T> {
    Types::spawn_blocking(work).await?.map_err(io::Error::other)
}

/// Keeps the snapshot, as soon as there is room for it.
async fn save(flusher: &Flusher, snapshot: &Snapshot) -> io::Result<()> {
    let index = snapshot.meta.last_log_id.map_or(0, |last| last.index);
    loop {
        let write = Write::Snapshot { index, bytes: snapshot.snapshot.bytes.to_vec() };
        match flusher.attempt(write).await? {
            Ok(()) => return Ok(()),
            Err(Fault::Full(_)) => Types::sleep(FULL_RETRY).await,
            Err(Fault::Failed(problem)) => return Err(io::Error::other(problem.message)),
        }
    }
}
