//! The log as the agent uses it: appends are queued to a thread of their own, which syncs many at once and answers in
//! order.
//!
//! What a failure means is decided here, once: a full disk refuses the batch and is tried again with the next; any
//! other failure, a failed sync above all, is final. Then the process must not go on as if its writes were safe.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use model::{Code, Problem};
use state::{Command, State};

use crate::ledger::{Failure, Ledger};
use crate::record::{self, Kind};

/// Appends that may wait for the disk. Beyond it they are refused at once: a disk this far behind must be felt.
const QUEUE_MAX: usize = 4096;
/// Most commands of one commit, so that the first of a burst does not wait for the last.
const BATCH_MAX: usize = 512;
/// Exit code of a process whose disk failed (`EX_IOERR` of `sysexits.h`).
pub const EXIT_DISK_FAILED: i32 = 74;

type Done = Box<dyn FnOnce(Result<u64, Problem>) + Send>;

struct Append {
    record: Command,
    done: Done,
}

/// The durable log of one agent. Dropping it finishes what is queued and closes the file.
#[derive(Debug)]
pub struct Store {
    queue: Option<SyncSender<Append>>,
    thread: Option<JoinHandle<()>>,
}

/// What was on disk.
#[derive(Debug)]
pub struct Recovered {
    pub state: State,
    /// Index of the last command in the log; 0 when there is none.
    pub index: u64,
}

impl Store {
    /// Opens or creates the store in `dir`, alone. When the disk fails later in a way that cannot be made good, the
    /// process exits with [`EXIT_DISK_FAILED`]; stars live on in the nursery.
    ///
    /// # Errors
    /// `AgentRunning`, `DataCorrupt`, `DiskFull`, `DataUnwritable`; nothing is changed then.
    pub fn open(dir: &Path) -> Result<(Self, Recovered), Problem> {
        Self::open_with(dir, |problem| {
            eprintln!("{problem}");
            std::process::exit(EXIT_DISK_FAILED)
        })
    }

    /// As [`Store::open`], with another end: `on_fatal` is called once, on the store's thread, before the appends it
    /// concerns are answered. The caller must end the process soon; every later append is refused.
    pub fn open_with(
        dir: &Path,
        on_fatal: impl FnOnce(&Problem) + Send + 'static,
    ) -> Result<(Self, Recovered), Problem> {
        let (ledger, state) = Ledger::open(dir)?;
        let index = ledger.last();
        Ok((Self::start(ledger, on_fatal)?, Recovered { state, index }))
    }

    fn start(ledger: Ledger, on_fatal: impl FnOnce(&Problem) + Send + 'static) -> Result<Self, Problem> {
        let (queue, appends) = sync_channel(QUEUE_MAX);
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || run(ledger, &appends, on_fatal))
            .map_err(|error| Problem::new(Code::Internal, format!("cannot start the thread of the store: {error}")))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Queues a command. `done` is called on the store's thread, in the order of the calls, once the command is
    /// synced (with its index) or refused (`DiskFull`, or a failed disk); then nothing of it is kept.
    ///
    /// When more than a few thousand are waiting, `done` is called at once, here, with `Unavailable`.
    pub fn append(&self, command: Command, done: impl FnOnce(Result<u64, Problem>) + Send + 'static) {
        let append = Append { record: command, done: Box::new(done) };
        let Some(queue) = &self.queue else { return };
        let (append, why) = match queue.try_send(append) {
            Ok(()) => return,
            Err(TrySendError::Full(append)) => (append, "the disk is too far behind"),
            Err(TrySendError::Disconnected(append)) => (append, "the store has ended"),
        };
        (append.done)(Err(Problem::new(Code::Unavailable, why).help("try again in a moment")));
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.queue = None;
        // A panic of the thread was printed where it happened.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread: waits for one append, takes what else is there, writes, answers.
fn run(mut ledger: Ledger, appends: &Receiver<Append>, on_fatal: impl FnOnce(&Problem)) {
    let mut on_fatal = Some(on_fatal);
    let mut failed: Option<Problem> = None;
    while let Ok(first) = appends.recv() {
        let batch: Vec<Append> = std::iter::once(first).chain(appends.try_iter().take(BATCH_MAX - 1)).collect();
        if let Some(problem) = &failed {
            batch.into_iter().for_each(|append| (append.done)(Err(problem.clone())));
            continue;
        }
        let (records, accepted, refused) = encode(batch, ledger.last());
        let outcome = if records.is_empty() { Ok(()) } else { ledger.append(&records) };
        let outcome = outcome.map_err(|failure| {
            let problem = ledger.problem(&failure);
            fail(&ledger, &failure, &problem, &mut failed, &mut on_fatal);
            problem
        });
        let first_index = ledger.last() + 1 - if outcome.is_ok() { records.len() as u64 } else { 0 };
        for (index, done) in (first_index..).zip(accepted) {
            done(outcome.clone().map(|()| index));
        }
        for (problem, done) in refused {
            done(Err(problem));
        }
        // After the answers: nobody waits for it.
        if failed.is_none() && ledger.wants_compaction() {
            // A full disk is no reason to stop: the log grows on where it can and compaction is tried again.
            if let Err(failure) = ledger.compact() {
                let problem = ledger.problem(&failure);
                fail(&ledger, &failure, &problem, &mut failed, &mut on_fatal);
            }
        }
    }
}

type Refused = Vec<(Problem, Done)>;

/// The records of a batch, the callbacks that go with them, and those whose command cannot be written at all.
fn encode(batch: Vec<Append>, last: u64) -> (Vec<Vec<u8>>, Vec<Done>, Refused) {
    let (mut records, mut accepted, mut refused) = (Vec::with_capacity(batch.len()), Vec::new(), Vec::new());
    for append in batch {
        let index = last + 1 + records.len() as u64;
        match record::encode(Kind::Command, index, &append.record) {
            Ok(record) => {
                records.push(record);
                accepted.push(append.done);
            }
            Err(error) => {
                let problem = Problem::new(Code::Internal, format!("a command cannot be encoded: {error}"));
                refused.push((problem, append.done));
            }
        }
    }
    (records, accepted, refused)
}

/// Remembers a final failure and tells of it once. A full disk is not final.
fn fail(
    ledger: &Ledger,
    failure: &Failure,
    problem: &Problem,
    failed: &mut Option<Problem>,
    on_fatal: &mut Option<impl FnOnce(&Problem)>,
) {
    if matches!(failure, Failure::Full) {
        return;
    }
    if matches!(failure, Failure::Fatal(_)) {
        ledger.mark_sync_failed();
    }
    *failed = Some(problem.clone());
    if let Some(on_fatal) = on_fatal.take() {
        on_fatal(problem);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::SeqCst;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use crate::sample::command;

    const SOON: Duration = Duration::from_secs(30);

    #[test]
    fn a_failed_sync_calls_the_hook_once_and_refuses_everything_after() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        let faults = ledger.faults();
        let (events, happened) = channel();
        let told = events.clone();
        let hook = move |problem: &Problem| told.send(format!("fatal {}", problem.code)).unwrap();
        let store = Store::start(ledger, hook).unwrap();
        let append = || {
            let events = events.clone();
            store.append(command(1), move |result| {
                events.send(result.map_or_else(|problem| problem.code.to_string(), |index| index.to_string())).unwrap();
            });
        };
        let next = || happened.recv_timeout(SOON).unwrap();
        append();
        assert_eq!(next(), "1");
        faults.inject_sync_failure.store(true, SeqCst);
        append();
        assert_eq!([next(), next()], ["fatal C0900", "C0900"], "the hook comes before the answer");
        faults.inject_sync_failure.store(false, SeqCst);
        append();
        assert_eq!(next(), "C0900");
        drop(store);
        assert!(happened.try_recv().is_err());
        assert!(Ledger::open(dir.path()).unwrap().0.last() >= 1);
    }

    #[test]
    fn a_disk_that_falls_behind_is_felt_instead_of_queued_for() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path()).unwrap();
        let (go, wait) = channel::<()>();
        let (answers, answered) = channel();
        store.append(command(1), move |_| wait.recv().unwrap());
        // The thread may or may not have taken a first batch before it is held up.
        for _ in 0..QUEUE_MAX + BATCH_MAX {
            let answers = answers.clone();
            store.append(command(1), move |result| answers.send(result).unwrap());
        }
        let refused = answered.recv_timeout(SOON).unwrap().unwrap_err();
        assert_eq!(refused.code, Code::Unavailable);
        go.send(()).unwrap();
        drop(store);
        assert!(answered.try_iter().filter(Result::is_ok).count() >= QUEUE_MAX - 1);
    }
}
