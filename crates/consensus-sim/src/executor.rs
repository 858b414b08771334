//! One thread, virtual time, and chance that decides which of the tasks that could go on does.
//!
//! Every task belongs to an owner: a machine while it is on, or the world around them. What a task spawns belongs to its owner;
//! killing it drops all of its tasks where they stand, as a power cut does. Time stands still while any task can go on, and then
//! jumps to the next one that waits for it. Which task goes next is drawn among those that are ready, in the order of their numbers, so
//! in which order they were woken makes no difference: tokio's channels wake in an order of their own.
//!
//! One simulation a thread at a time; it ends with its [`Simulation`].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::io;
use std::mem;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use openraft::async_runtime::{AsyncRuntime, instant};
use openraft::impls::TokioRuntime;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::oneshot;

use crate::runtime::Defect;

/// Whose a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub u64);

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    static HERE: RefCell<Option<Executor>> = const { RefCell::new(None) };
}

struct Executor {
    now: Moment,
    chance: SmallRng,
    tasks: BTreeMap<u64, Task>,
    next_task: u64,
    woken: Arc<Mutex<Vec<u64>>>,
    ready: BTreeSet<u64>,
    timers: BTreeMap<(Moment, u64), Waker>,
    next_timer: u64,
    /// Whose task runs now.
    current: Owner,
    dead: BTreeSet<Owner>,
    /// Until when the disk that was used last is at it.
    busy: Moment,
    defect: Option<Defect>,
    hash: u64,
    polls: u64,
}

struct Task {
    owner: Owner,
    /// `None` while it runs.
    work: Option<Work>,
    waker: Waker,
    alarm: Arc<Alarm>,
}

struct Alarm {
    task: u64,
    queued: AtomicBool,
    woken: Arc<Mutex<Vec<u64>>>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, SeqCst) {
            self.woken.lock().expect("no panic while it is held").push(self.task);
        }
    }
}

/// What [`Simulation::step`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A task of this owner went on.
    Ran(Owner),
    /// Time went on.
    Waited,
    /// Nobody waits for anything that will come.
    Idle,
}

/// The simulation of this thread, while it lives.
#[derive(Debug)]
pub struct Simulation(());

impl Simulation {
    /// # Panics
    /// When there is one in this thread.
    pub fn new(seed: u64, defect: Option<Defect>) -> Self {
        HERE.with_borrow_mut(|here| {
            assert!(here.is_none(), "one simulation a thread at a time");
            *here = Some(Executor {
                // A machine that has been on for a while: times are subtracted from it.
                now: Moment(3_600 * 1_000_000_000),
                chance: SmallRng::seed_from_u64(seed),
                tasks: BTreeMap::new(),
                next_task: 0,
                woken: Arc::default(),
                ready: BTreeSet::new(),
                timers: BTreeMap::new(),
                next_timer: 0,
                current: Owner(0),
                dead: BTreeSet::new(),
                busy: Moment(0),
                defect,
                hash: 0xcbf2_9ce4_8422_2325,
                polls: 0,
            });
        });
        Self(())
    }

    /// Lets one task go on, or time when none can.
    pub fn step(&mut self) -> Step {
        step()
    }

    /// A number that is the same for two runs only if the same tasks went on in the same order at the same times.
    pub fn hash(&self) -> u64 {
        with(|this| this.hash)
    }

    /// How often tasks went on.
    pub fn polls(&self) -> u64 {
        with(|this| this.polls)
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        // Tasks that go may look at the clock, so they go first; what they begin goes with the rest.
        loop {
            let tasks = with(|this| mem::take(&mut this.tasks));
            if tasks.is_empty() {
                break;
            }
            drop(tasks);
        }
        let all = HERE.take();
        drop(all);
    }
}

fn step() -> Step {
    let picked = with(|this| this.pick());
    let Some((task, owner, mut work, waker)) = picked else {
        return match with(|this| this.wait()) {
            Some(wakers) => {
                wakers.into_iter().for_each(Waker::wake);
                Step::Waited
            }
            None => Step::Idle,
        };
    };
    let polled = work.as_mut().poll(&mut Context::from_waker(&waker));
    let over = with(|this| match this.tasks.get_mut(&task) {
        Some(there) if polled.is_pending() => {
            there.work = Some(work);
            None
        }
        // It is over, or was killed by what it did.
        _ => Some((this.tasks.remove(&task), work)),
    });
    drop(over);
    with(|this| this.current = Owner(0));
    Step::Ran(owner)
}

fn with<T>(work: impl FnOnce(&mut Executor) -> T) -> T {
    HERE.with_borrow_mut(|here| work(here.as_mut().expect("a simulation runs in this thread")))
}

impl Executor {
    fn pick(&mut self) -> Option<(u64, Owner, Work, Waker)> {
        let woken = mem::take(&mut *self.woken.lock().expect("no panic while it is held"));
        self.ready.extend(woken);
        loop {
            let count = self.ready.len();
            if count == 0 {
                return None;
            }
            let place = if count == 1 { 0 } else { self.chance.random_range(0..count) };
            let number = *self.ready.iter().nth(place)?;
            self.ready.remove(&number);
            let Some(task) = self.tasks.get_mut(&number) else { continue };
            task.alarm.queued.store(false, SeqCst);
            let Some(work) = task.work.take() else { continue };
            let (owner, waker) = (task.owner, task.waker.clone());
            self.current = owner;
            self.polls += 1;
            for part in [number, owner.0, self.now.0] {
                self.hash = (self.hash ^ part).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
            }
            return Some((number, owner, work, waker));
        }
    }

    /// Goes on to the next moment that anybody waits for. Gives all who do.
    fn wait(&mut self) -> Option<Vec<Waker>> {
        let (&(moment, _), _) = self.timers.first_key_value()?;
        self.now = self.now.max(moment);
        let later = self.timers.split_off(&(Moment(self.now.0 + 1), 0));
        Some(mem::replace(&mut self.timers, later).into_values().collect())
    }

    fn spawn(&mut self, owner: Owner, work: Work) -> u64 {
        let number = self.next_task;
        self.next_task += 1;
        let alarm = Arc::new(Alarm { task: number, queued: AtomicBool::new(true), woken: Arc::clone(&self.woken) });
        self.ready.insert(number);
        self.tasks.insert(number, Task { owner, work: Some(work), waker: Waker::from(Arc::clone(&alarm)), alarm });
        number
    }
}

/// The moment it is.
pub fn now() -> Moment {
    with(|this| this.now)
}

/// Whose task asks.
pub fn current() -> Owner {
    with(|this| this.current)
}

pub(crate) fn defect() -> Option<Defect> {
    with(|this| this.defect)
}

/// Says until when the disk is at what it was asked last.
pub fn busy_until(moment: Moment) {
    with(|this| this.busy = moment);
}

pub(crate) fn take_busy() -> Moment {
    with(|this| mem::replace(&mut this.busy, Moment(0)))
}

/// Begins a task of this owner. Of one that is dead it never begins.
pub fn spawn<T>(owner: Owner, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T>
where
    T: Send + 'static,
{
    let (told, ended) = oneshot::channel();
    let work: Work = Box::pin(async move {
        // Nobody may wait.
        let _ = told.send(work.await);
    });
    let begun = with(|this| match this.dead.contains(&owner) {
        false => Ok(this.spawn(owner, work)),
        true => Err(work),
    });
    // What is not begun is dropped when nothing is borrowed.
    JoinHandle { task: begun.ok(), ended }
}

/// Everything of this owner is gone, from this moment on. Not for a task of its own.
pub fn kill(owner: Owner) {
    let (gone, before) = with(|this| {
        this.dead.insert(owner);
        let before = mem::replace(&mut this.current, owner);
        let (gone, stay) = mem::take(&mut this.tasks).into_iter().partition(|(_, task)| task.owner == owner);
        this.tasks = stay;
        let gone: BTreeMap<u64, Task> = gone;
        (gone, before)
    });
    // What goes may tell others, or try to begin something.
    drop(gone);
    with(|this| this.current = before);
}

/// Returns at this moment.
pub fn sleep_until(deadline: Moment) -> Sleep {
    Sleep { deadline, timer: None }
}

/// Returns after this time.
pub fn sleep(time: Duration) -> Sleep {
    sleep_until(now() + time)
}

/// Nanoseconds since the world began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(nanos(time)))
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, time: Duration) {
        *self = *self + time;
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;
    fn sub(self, time: Duration) -> Self {
        Self(self.0.checked_sub(nanos(time)).expect("no moment before the beginning"))
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, time: Duration) {
        *self = *self - time;
    }
}

impl Sub for Moment {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl instant::Instant for Moment {
    fn now() -> Self {
        now()
    }
}

#[derive(Debug)]
pub struct Sleep {
    deadline: Moment,
    timer: Option<(Moment, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let before = self.timer.take();
        let (polled, old) = with(|this| {
            let old = before.and_then(|key| this.timers.remove(&key));
            if this.now >= deadline {
                return (Poll::Ready(()), old);
            }
            let key = (deadline, this.next_timer);
            this.next_timer += 1;
            this.timers.insert(key, context.waker().clone());
            self.timer = Some(key);
            (Poll::Pending, old)
        });
        drop(old);
        polled
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer.take() {
            let waker = HERE.with_borrow_mut(|here| here.as_mut().and_then(|this| this.timers.remove(&key)));
            drop(waker);
        }
    }
}

/// A task's end.
#[derive(Debug)]
pub struct JoinHandle<T> {
    task: Option<u64>,
    ended: oneshot::Receiver<T>,
}

impl<T> JoinHandle<T> {
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle(self.task)
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, Killed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        pin!(&mut self.ended).poll(context).map_err(|_| Killed)
    }
}

/// Ends a task where it stands.
#[derive(Debug)]
pub struct AbortHandle(Option<u64>);

impl AbortHandle {
    pub fn abort(&self) {
        let gone = self
            .0
            .and_then(|task| HERE.with_borrow_mut(|here| here.as_mut().and_then(|this| this.tasks.remove(&task))));
        drop(gone);
    }
}

/// The task was dropped before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Killed;

impl fmt::Display for Killed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task was killed")
    }
}

/// A wait had its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late;

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time is up")
    }
}

pub struct Timeout<F> {
    work: Pin<Box<F>>,
    sleep: Sleep,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Late>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(value) = self.work.as_mut().poll(context) {
            return Poll::Ready(Ok(value));
        }
        pin!(&mut self.sleep).poll(context).map(|()| Err(Late))
    }
}

/// openraft's runtime, here.
#[derive(Debug)]
pub struct Virtual(());

impl AsyncRuntime for Virtual {
    type JoinError = Killed;
    type JoinHandle<T: Send + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = Moment;
    type TimeoutError = Late;
    type Timeout<R, T: Future<Output = R> + Send> = Timeout<T>;
    type ThreadLocalRng = SmallRng;

    fn spawn<T>(work: T) -> JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        spawn(current(), work)
    }

    fn sleep(time: Duration) -> Sleep {
        sleep(time)
    }

    fn sleep_until(deadline: Moment) -> Sleep {
        sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + Send>(time: Duration, work: F) -> Timeout<F> {
        Self::timeout_at(now() + time, work)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(deadline: Moment, work: F) -> Timeout<F> {
        Timeout { work: Box::pin(work), sleep: sleep_until(deadline) }
    }

    fn is_panic(_: &Killed) -> bool {
        false
    }

    fn thread_rng() -> SmallRng {
        with(|this| SmallRng::seed_from_u64(this.chance.random()))
    }

    // They need no runtime, and wake whom they wake in any order.
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: Send + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn new(_: usize) -> Self {
        Self(())
    }

    fn block_on<F, T>(&mut self, work: F) -> T
    where
        F: Future<Output = T>,
    {
        struct Flag(AtomicBool);
        impl Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, SeqCst);
            }
        }
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&flag));
        let mut work = pin!(work);
        loop {
            if flag.0.swap(false, SeqCst)
                && let Poll::Ready(value) = work.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return value;
            }
            assert!(flag.0.load(SeqCst) || step() != Step::Idle, "nothing will ever happen any more");
        }
    }

    /// It blocks nobody: a task like others.
    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let task = Self::spawn(async move { work() });
        async move { task.await.map_err(io::Error::other) }
    }
}

impl std::error::Error for Killed {}
