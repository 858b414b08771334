//! What time, tasks and the disk's thread are made of: tokio's, and a thread that waits.
//!
//! The only file that `consensus-sim` has another of: there time is virtual, a disk takes some of it, and chance decides who
//! goes next. Everything else is compiled into both.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use openraft::type_config::TypeConfigExt;

use crate::disk::{Disk, Fault, Write};
use crate::raft::Types;

/// Everything that waits or spawns does so through openraft's traits of this one type.
pub(crate) type Runtime = openraft::impls::TokioRuntime;
pub(crate) use tokio::task::AbortHandle;

/// A thread of its own for what blocks.
#[derive(Debug)]
pub(crate) struct Thread(Mutex<Option<thread::JoinHandle<()>>>);

impl Thread {
    pub(crate) fn start(name: &str, work: impl Future<Output = ()> + Send + 'static) -> io::Result<Self> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || block_on(work))?;
        Ok(Self(Mutex::new(Some(thread))))
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self) {
        let thread = self.0.lock().expect("no panic while it is held").take();
        // A panic of the thread was printed where it happened.
        if let Some(thread) = thread {
            let _ = Types::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// Lets time pass on a thread of its own.
pub(crate) async fn pause(time: Duration) {
    thread::sleep(time);
}

/// As [`Disk::commit`], which blocks.
pub(crate) async fn commit(disk: &mut impl Disk, writes: &[Write]) -> Result<(), Fault> {
    disk.commit(writes)
}

/// A protection that only a simulation can take away, to see that its absence is found.
pub(crate) const fn takes_snapshots_unchecked() -> bool {
    false
}

fn block_on(work: impl Future<Output = ()>) {
    struct Parked(thread::Thread);
    impl Wake for Parked {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Parked(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut work = pin!(work);
    while work.as_mut().poll(&mut context).is_pending() {
        thread::park();
    }
}
