//! Stands in for the file of that name in `consensus`: virtual time, tasks of the executor, and a disk whose work takes time.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use openraft::async_runtime::AsyncRuntime;

use crate::disk::{Disk, Fault, Write};
use crate::executor::{self, JoinHandle, Virtual};

pub(crate) type Runtime = Virtual;
pub(crate) use crate::executor::AbortHandle;

/// A protection that is taken away, to see that its absence is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// A commit is answered for when it was begun, not when the disk has it.
    AnswersBeforeSync,
    /// Votes stay in memory.
    ForgetsVotes,
    /// Pieces of a snapshot are taken for what they are not.
    TakesSnapshotsUnchecked,
}

/// A task in the place of a thread: what blocks there takes virtual time here.
#[derive(Debug)]
pub(crate) struct Thread(Mutex<Option<JoinHandle<()>>>);

impl Thread {
    pub(crate) fn start(_: &str, work: impl Future<Output = ()> + Send + 'static) -> io::Result<Self> {
        Ok(Self(Mutex::new(Some(Runtime::spawn(work)))))
    }

    pub(crate) async fn ended(&self) {
        let task = self.0.lock().expect("no panic while it is held").take();
        if let Some(task) = task {
            // It was killed with its machine, then.
            let _ = task.await;
        }
    }
}

pub(crate) async fn pause(time: Duration) {
    Runtime::sleep(time).await;
}

/// The disk says at once how it will end, and until when it is at it; a power cut meanwhile is its own business.
pub(crate) async fn commit(disk: &mut impl Disk, writes: &[Write]) -> Result<(), Fault> {
    let writes = match executor::defect() {
        Some(Defect::ForgetsVotes) => {
            Cow::Owned(writes.iter().filter(|write| !matches!(write, Write::Vote(_))).cloned().collect())
        }
        _ => Cow::Borrowed(writes),
    };
    let result = disk.commit(&writes);
    let until = executor::take_busy();
    if executor::defect() != Some(Defect::AnswersBeforeSync) {
        Runtime::sleep_until(until).await;
    }
    result
}

pub(crate) fn takes_snapshots_unchecked() -> bool {
    executor::defect() == Some(Defect::TakesSnapshotsUnchecked)
}
