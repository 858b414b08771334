//! Watches: what the log changed, by prefix and in its order, told to any number of watchers without gap or repetition.
//!
//! What happened lately is kept once for all of them; a watcher is an index in it. One that comes with an index from before what
//! is kept is told so, and has to look at everything anew; so is one whose index is ahead of the log, since what it saw was
//! undone, as by a restored backup. One that does not take what it is told is cut off with the index
//! to resume from, here or at another node: every node hears the same log.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::{WatchLine, WatchQuery, WatchStream};
use model::{Code, Name, NodeId, Problem, Standing};
use state::NodeRecord;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// Keys of changes that are kept: at a hundred bytes each, less than two megabytes.
const KEPT_MAX: usize = 16_384;
/// Lines that wait for one watcher, beside the last one, which says why it is cut off.
const QUEUE_MAX: usize = 64;
/// See [`Patience`].
const PATIENCE: Patience = Patience {
    slow_after: Duration::from_secs(10),
    bookmark_every: Duration::from_secs(5),
    // A node is milliseconds behind its leader, or does not hear it: then it takes longer than anybody wants to wait.
    behind_for: Duration::from_secs(2),
};
/// Watchers at once; each has a connection and a task.
const WATCHERS_MAX: usize = 1_024;
/// Longest prefix: longer than every key.
const PREFIX_MAX_BYTES: usize = 256;
/// What keys begin with.
const KINDS: [&str; 7] = ["apps/", "services/", "stars/", "volumes/", "secrets/", "nodes/", "security"];

/// Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Watches {
    kept: Arc<Mutex<Kept>>,
    /// The index up to which everything is kept or was.
    index: Arc<watch::Sender<u64>>,
    machines: Arc<watch::Sender<Machines>>,
    room: Arc<Semaphore>,
    patience: Patience,
}

#[derive(Debug, Clone, Copy)]
struct Patience {
    /// A watcher that takes nothing for so long, while lines wait, is cut off.
    slow_after: Duration,
    /// How often an idle watcher is told how far everything is.
    bookmark_every: Duration,
    /// How long an index that is not reached is waited for: another node may have told it a moment ago.
    behind_for: Duration,
}

/// The names of all machines, and how the log has each.
pub(crate) type Machines = BTreeMap<NodeId, (Name, Standing)>;

/// What a command touched: each key, and whether it is there since.
type Step = (u64, Arc<[(String, bool)]>);

#[derive(Debug, Default)]
struct Kept {
    /// Everything after this index is here.
    after: u64,
    steps: VecDeque<Step>,
    keys: usize,
}

impl Watches {
    /// The loop begins with a state of this index.
    pub(crate) fn new(index: u64) -> Self {
        Self::with(index, PATIENCE)
    }

    fn with(index: u64, patience: Patience) -> Self {
        let kept = Kept { after: index, ..Kept::default() };
        let room = Arc::new(Semaphore::new(WATCHERS_MAX));
        Self {
            kept: Arc::new(Mutex::new(kept)),
            index: Arc::new(watch::Sender::new(index)),
            machines: Arc::default(),
            room,
            patience,
        }
    }

    /// A command was applied. Watchers hear of it from [`Watches::reached`] on.
    pub(crate) fn push(&self, index: u64, touched: impl Iterator<Item = (String, bool)>) {
        let touched: Arc<[(String, bool)]> = touched.collect();
        if !touched.is_empty() {
            self.kept().push((index, touched));
        }
    }

    /// Lets watchers know that there is more, if there is.
    pub(crate) fn reached(&self, index: u64) {
        self.index.send_if_modified(|known| std::mem::replace(known, index) != index);
    }

    /// Begins to tell a watcher.
    ///
    /// # Errors
    /// `InvalidValue` for a prefix of nothing; `Compacted` with the oldest index to watch from; `Ahead` with the newest, for one
    /// that is not reached soon; `Unavailable` when there are too many watchers.
    pub(crate) async fn watch(
        &self,
        query: WatchQuery,
        leaving: watch::Receiver<bool>,
    ) -> Result<WatchStream, Problem> {
        let WatchQuery { prefix, from } = query;
        check(&prefix)?;
        let room = Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            Problem::new(Code::Unavailable, format!("{WATCHERS_MAX} watch already")).help("ask another node")
        })?;
        let from = match from {
            Some(from) => self.reach(from).await?,
            None => *self.index.borrow(),
        };
        self.kept().since(from)?;
        let (out, lines) = mpsc::channel(QUEUE_MAX + 1);
        // Nobody else has taken any of its places.
        let last = out.clone().try_reserve_owned().map_err(|_| Problem::new(Code::Internal, "a queue begins full"))?;
        let watcher = Watcher { watches: self.clone(), prefix, told: from, out, leaving };
        tokio::spawn(async move {
            if let Some(line) = watcher.run().await {
                last.send(Ok(line));
            }
            drop(room);
        });
        Ok(Box::pin(futures_util::stream::unfold(lines, |mut lines| async {
            lines.recv().await.map(|line| (line, lines))
        })))
    }

    /// A command touched something of a machine: who waits for one to come or go is told if it did that.
    pub(crate) fn learn_machines(&self, nodes: &BTreeMap<NodeId, NodeRecord>) {
        self.machines.send_if_modified(|known| {
            let same = known.len() == nodes.len()
                && known
                    .iter()
                    .zip(nodes)
                    .all(|((id, (_, standing)), (other, now))| id == other && *standing == now.standing);
            if !same {
                *known = nodes.iter().map(|(id, record)| (*id, (record.name.clone(), record.standing))).collect();
            }
            !same
        });
    }

    /// Changes when one comes, goes, or is given up; until then nobody is in it.
    pub(crate) fn machines(&self) -> watch::Receiver<Machines> {
        self.machines.subscribe()
    }

    /// Waits a moment for an index; gives it back once it is reached.
    async fn reach(&self, from: u64) -> Result<u64, Problem> {
        let mut index = self.index.subscribe();
        let reached = timeout(self.patience.behind_for, index.wait_for(|index| *index >= from)).await;
        if reached.is_ok_and(|reached| reached.is_ok()) {
            return Ok(from);
        }
        let last = *self.index.borrow();
        let message = format!("index {from} is ahead of the log, which has come to {last} here");
        let problem = Problem::new(Code::Ahead, message).at(last);
        Err(problem.help("look at everything anew, then watch from the index that was given then"))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(prefix: &str) -> Result<(), Problem> {
    let fits = |kind: &&str| kind.starts_with(prefix) || prefix.starts_with(kind);
    if prefix.len() <= PREFIX_MAX_BYTES && KINDS.iter().any(fits) {
        return Ok(());
    }
    let shown: String = prefix.chars().take(64).flat_map(char::escape_debug).collect();
    let problem = Problem::new(Code::InvalidValue, format!("no key begins with `{shown}`"));
    Err(problem.help(format!("keys begin with {}", KINDS.map(|kind| format!("`{kind}`")).join(", "))))
}

impl Kept {
    fn push(&mut self, step: Step) {
        self.keys += step.1.len();
        self.steps.push_back(step);
        while self.keys > KEPT_MAX {
            let Some((index, keys)) = self.steps.pop_front() else { return };
            self.after = index;
            self.keys -= keys.len();
        }
    }

    /// What was touched after an index.
    fn since(&self, after: u64) -> Result<Vec<Step>, Problem> {
        if after < self.after {
            let oldest = self.after;
            let message = format!("what changed after index {after} is not kept any more: the oldest is {oldest}");
            let problem = Problem::new(Code::Compacted, message).at(oldest);
            return Err(problem.help("look at everything anew, then watch from the index that was given then"));
        }
        let from = self.steps.partition_point(|(index, _)| *index <= after);
        Ok(self.steps.range(from..).cloned().collect())
    }
}

struct Watcher {
    watches: Watches,
    prefix: String,
    /// Everything up to this index was told.
    told: u64,
    out: mpsc::Sender<Result<WatchLine, Problem>>,
    leaving: watch::Receiver<bool>,
}

impl Watcher {
    /// Tells until the watcher or the agent goes; gives the last line of one that is cut off.
    async fn run(mut self) -> Option<WatchLine> {
        let mut index = self.watches.index.subscribe();
        let mut bookmark = Instant::now();
        loop {
            // Read before what is kept: whatever comes in between is told the next time.
            let reached = *index.borrow_and_update();
            let steps = match self.watches.kept().since(self.told) {
                Ok(steps) => steps,
                Err(problem) => return Some(WatchLine::cut_off(self.told, problem)),
            };
            for (at, keys) in steps {
                let line = WatchLine::of(at, keys.iter().filter(|(key, _)| key.starts_with(&self.prefix)));
                if !line.is_bookmark() {
                    if let ControlFlow::Break(end) = self.tell(line).await {
                        return end;
                    }
                    bookmark = Instant::now() + self.watches.patience.bookmark_every;
                }
                self.told = at;
            }
            self.told = self.told.max(reached);
            if bookmark <= Instant::now() {
                if let ControlFlow::Break(end) = self.tell(WatchLine::bookmark(self.told)).await {
                    return end;
                }
                bookmark = Instant::now() + self.watches.patience.bookmark_every;
            }
            tokio::select! {
                // `self` holds the sender.
                _ = index.changed() => {}
                () = sleep_until(bookmark) => {}
                () = self.out.closed() => return None,
                _ = self.leaving.wait_for(|leaving| *leaving) => return None,
            }
        }
    }

    /// Breaks off when the watcher has gone, or with what it is told last when it does not listen.
    async fn tell(&self, line: WatchLine) -> ControlFlow<Option<WatchLine>> {
        let slow_after = self.watches.patience.slow_after;
        match self.out.send_timeout(Ok(line), slow_after).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(SendTimeoutError::Closed(_)) => ControlFlow::Break(None),
            Err(SendTimeoutError::Timeout(_)) => {
                let message = format!("this watcher has taken nothing for {} s", slow_after.as_secs());
                let problem = Problem::new(Code::Unavailable, message).at(self.told);
                let problem = problem.help(format!("watch again from index {}", self.told));
                ControlFlow::Break(Some(WatchLine::cut_off(self.told, problem)))
            }
        }
    }
}

#[cfg(test)]
mod tests;
