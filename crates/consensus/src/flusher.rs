//! The disk's own thread: takes what waits, makes one commit of it, answers in order.
//!
//! While one commit syncs, what comes meanwhile waits and goes with the next: the busier the disk, the larger the batches.
//! A full disk keeps its batch and is tried again until there is room; a failed one ends everything.

use std::io;
use std::mem;
use std::time::Duration;

use model::{Code, Problem};
use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot, watch};

use crate::disk::{Disk, Fault, Kept, Write};
use crate::raft::Types;
use crate::runtime::{self, Thread};

/// Jobs that may wait. Beyond it their makers wait too, openraft's loop first of all: a disk this far behind is felt.
const JOBS_MAX: usize = 1024;
/// Bytes of one commit at most, so that the first of a burst does not wait for the last.
const BATCH_BYTES: usize = 4 << 20;
/// How often a full disk is asked again: often enough that nobody waits for it, seldom enough to cost nothing.
const FULL_RETRY: Duration = Duration::from_millis(100);

/// Called once, on the disk's thread, when the disk cannot be relied on any more.
pub(crate) type OnFatal = Box<dyn FnOnce(&Problem) + Send>;

pub(crate) enum Done {
    /// Entries, which openraft waits for later.
    Flushed(IOFlushed<Types>),
    /// Anything that is waited for at once.
    Told(oneshot::Sender<Result<(), Fault>>),
}

enum Job {
    /// Must be on disk before it is answered. A full disk only delays it.
    Write(Vec<Write>, Done),
    /// May be lost: goes along with the next commit.
    Note(Write),
    /// As `Write`, but a full disk refuses it.
    Try(Write, oneshot::Sender<Result<(), Fault>>),
    Read(oneshot::Sender<Result<Option<Kept>, Fault>>),
    /// Do what came before, and end.
    Stop,
}

/// The way to the thread. The thread ends when it is told to, or when the last one is gone.
#[derive(Debug, Clone)]
pub(crate) struct Flusher {
    jobs: mpsc::Sender<Job>,
    full: watch::Receiver<bool>,
}

impl Flusher {
    /// With the thread itself, to wait for its end.
    pub(crate) fn start(disk: impl Disk, on_fatal: OnFatal) -> Result<(Self, Thread), Problem> {
        let (jobs, waiting) = mpsc::channel(JOBS_MAX);
        let (full_sender, full) = watch::channel(false);
        let mut worker = Worker { disk, waiting, full: full_sender, failed: None, on_fatal: Some(on_fatal) };
        let thread = Thread::start("consensus-disk", async move { worker.run().await })
            .map_err(|error| Problem::new(Code::Internal, format!("cannot start the thread of the disk: {error}")))?;
        Ok((Self { jobs, full }, thread))
    }

    /// Whether the disk has no room now.
    pub(crate) fn is_full(&self) -> bool {
        *self.full.borrow()
    }

    pub(crate) fn full(&self) -> watch::Receiver<bool> {
        self.full.clone()
    }

    /// Queues entries. `flushed` is called when they are safe.
    pub(crate) async fn append(&self, writes: Vec<Write>, flushed: IOFlushed<Types>) -> io::Result<()> {
        self.send(Job::Write(writes, Done::Flushed(flushed))).await
    }

    /// Returns when the write is safe.
    pub(crate) async fn write(&self, write: Write) -> io::Result<()> {
        let (done, told) = oneshot::channel();
        self.send(Job::Write(vec![write], Done::Told(done))).await?;
        told.await.map_err(|_| ended())?.map_err(io_error)
    }

    pub(crate) async fn note(&self, write: Write) -> io::Result<()> {
        self.send(Job::Note(write)).await
    }

    /// Returns when the write is safe or there is no room for it.
    pub(crate) async fn attempt(&self, write: Write) -> io::Result<Result<(), Fault>> {
        let (done, told) = oneshot::channel();
        self.send(Job::Try(write, done)).await?;
        told.await.map_err(|_| ended())
    }

    pub(crate) async fn snapshot(&self) -> io::Result<Option<Kept>> {
        let (done, told) = oneshot::channel();
        self.send(Job::Read(done)).await?;
        told.await.map_err(|_| ended())?.map_err(io_error)
    }

    /// Ends the thread after what is queued. Nothing is taken any more.
    pub(crate) async fn stop(&self) {
        // It has ended already, then.
        let _ = self.jobs.send(Job::Stop).await;
    }

    async fn send(&self, job: Job) -> io::Result<()> {
        self.jobs.send(job).await.map_err(|_| ended())
    }
}

fn ended() -> io::Error {
    io::Error::other("the disk's thread has ended")
}

fn io_error(fault: Fault) -> io::Error {
    io::Error::other(fault.problem().message.clone())
}

struct Worker<D> {
    disk: D,
    waiting: mpsc::Receiver<Job>,
    full: watch::Sender<bool>,
    failed: Option<Problem>,
    on_fatal: Option<OnFatal>,
}

#[derive(Default)]
struct Batch {
    writes: Vec<Write>,
    dones: Vec<Done>,
    bytes: usize,
}

impl<D: Disk> Worker<D> {
    async fn run(&mut self) {
        let mut notes = Vec::new();
        let mut stopping = false;
        while !stopping && let Some(first) = self.waiting.recv().await {
            let mut batch = Batch::default();
            let mut next = Some(first);
            while let Some(job) = next.take() {
                match job {
                    Job::Write(writes, done) => batch.push(writes, Some(done)),
                    // Only the last of a kind counts.
                    Job::Note(write) => {
                        notes.retain(|note| mem::discriminant(note) != mem::discriminant(&write));
                        notes.push(write);
                    }
                    Job::Stop => {
                        stopping = true;
                        self.waiting.close();
                    }
                    // Both see what came before them.
                    Job::Try(write, done) => {
                        self.flush(&mut batch, &mut notes).await;
                        // Nobody may wait any more.
                        let _ = done.send(self.commit(&[write]).await);
                    }
                    Job::Read(done) => {
                        self.flush(&mut batch, &mut notes).await;
                        let read = self.disk.snapshot();
                        let _ = done.send(read.inspect_err(|fault| self.fail(fault)));
                    }
                }
                if batch.bytes < BATCH_BYTES {
                    next = self.waiting.try_recv().ok();
                }
            }
            self.flush(&mut batch, &mut notes).await;
        }
        if !notes.is_empty() {
            let _ = self.commit(&notes).await;
        }
    }

    /// Commits the batch, however long it takes for room to appear, and answers.
    async fn flush(&mut self, batch: &mut Batch, notes: &mut Vec<Write>) {
        if batch.writes.is_empty() {
            return;
        }
        batch.push(mem::take(notes), None);
        let result = loop {
            match self.commit(&batch.writes).await {
                Err(Fault::Full(problem)) => {
                    self.full.send_replace(true);
                    runtime::pause(FULL_RETRY).await;
                    // What is queued waits behind this; whether anybody is left to wait is all there is to find out.
                    if self.waiting.is_closed() {
                        break Err(Fault::Full(problem));
                    }
                }
                other => break other,
            }
        };
        self.full.send_if_modified(|full| mem::replace(full, false));
        let Batch { dones, .. } = mem::take(batch);
        for done in dones {
            match done {
                Done::Flushed(flushed) => flushed.io_completed(result.clone().map_err(io_error)),
                Done::Told(told) => {
                    let _ = told.send(result.clone());
                }
            }
        }
    }

    async fn commit(&mut self, writes: &[Write]) -> Result<(), Fault> {
        if let Some(problem) = &self.failed {
            return Err(Fault::Failed(problem.clone()));
        }
        runtime::commit(&mut self.disk, writes).await.inspect_err(|fault| self.fail(fault))
    }

    /// Tells of a final failure, before anybody gets an answer that depends on it.
    fn fail(&mut self, fault: &Fault) {
        if let Fault::Failed(problem) = fault {
            self.failed = Some(problem.clone());
            if let Some(on_fatal) = self.on_fatal.take() {
                on_fatal(problem);
            }
        }
    }
}

impl Batch {
    fn push(&mut self, writes: Vec<Write>, done: Option<Done>) {
        let size = |write: &Write| match write {
            Write::Vote(bytes) | Write::Committed(bytes) => bytes.len(),
            Write::Append { bytes, .. } | Write::Snapshot { bytes, .. } => bytes.len(),
            Write::Purge { mark, .. } => mark.len(),
            Write::Truncate { .. } => 0,
        };
        self.bytes += writes.iter().map(size).sum::<usize>();
        self.writes.extend(writes);
        self.dones.extend(done);
    }
}
