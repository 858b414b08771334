//! One star as the proxy sees it: what is in flight there, connections at rest, and counters.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use balancer::Candidate;
use hyper::StatusCode;
use model::Endpoint;
use tokio::sync::Notify;

use crate::health::Health;
use crate::upstream::Upstream;

/// Connections at rest kept for one star. A star that ever had more requests at once than this pays a new connection
/// for some of them, and no star hoards descriptors.
const IDLE_MAX: usize = 256;
/// A connection at rest for longer is closed when another comes to rest; well below what servers themselves allow.
const IDLE_FOR: Duration = Duration::from_secs(30);

/// A client that has waited for so long and goes had reason to.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What happened at one star since its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StarTraffic {
    /// Requests (or TCP connections) that ended, well or not.
    pub requests: u64,
    /// Those that have not ended yet.
    pub in_flight: u32,
    /// Those that ended because of the star: no connection, no answer, an answer cut short.
    pub errors: u64,
    /// Those that were answered that the server could not (status 500 to 599), or that clients gave up after [`PATIENCE`] without an
    /// answer.
    pub server_errors: u64,
    /// Sum over the ended ones, from choosing the star to the last byte of its answer.
    pub latency_us_sum: u64,
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) endpoint: Endpoint,
    health: Health,
    /// Of the machine it runs on, shared with its other stars; nothing for this machine.
    machine: Option<Arc<Health>>,
    /// It is of a version that is not believed yet.
    on_trial: AtomicBool,
    in_flight: AtomicU32,
    /// No connection comes to rest any more.
    closed: AtomicBool,
    idle: Mutex<VecDeque<(Instant, Box<Upstream>)>>,
    /// Told whenever nothing is in flight any more.
    quiet: Notify,
    requests: AtomicU64,
    errors: AtomicU64,
    server_errors: AtomicU64,
    latency_us_sum: AtomicU64,
}

impl Lane {
    pub(crate) fn new(endpoint: Endpoint, machine: Option<Arc<Health>>) -> Self {
        Self {
            endpoint,
            health: Health::default(),
            machine,
            on_trial: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            closed: AtomicBool::new(false),
            idle: Mutex::default(),
            quiet: Notify::new(),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            server_errors: AtomicU64::new(0),
            latency_us_sum: AtomicU64::new(0),
        }
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(SeqCst)
    }

    pub(crate) fn is_on_trial(&self) -> bool {
        self.on_trial.load(Relaxed)
    }

    pub(crate) fn set_on_trial(&self, is_on_trial: bool) {
        self.on_trial.store(is_on_trial, Relaxed);
    }

    pub(crate) fn is_far(&self) -> bool {
        self.machine.is_some()
    }

    /// How it looks to who chooses.
    pub(crate) fn candidate(&self) -> Candidate {
        let left_out = |health: &Health| health.is_left_out(Instant::now);
        Candidate {
            star: self.endpoint.star,
            in_flight: self.in_flight(),
            far: self.is_far(),
            on_trial: self.is_on_trial(),
            left_out: left_out(&self.health) || self.machine.as_deref().is_some_and(left_out),
        }
    }

    /// No connection could be made to it.
    pub(crate) fn star_failed(&self) {
        self.health.failed(Instant::now());
    }

    /// The machine it runs on could not be reached.
    pub(crate) fn machine_failed(&self) {
        self.machine.as_deref().unwrap_or(&self.health).failed(Instant::now());
    }

    /// It took a connection, or answered.
    pub(crate) fn reached(&self) {
        self.health.reached();
        if let Some(machine) = &self.machine {
            machine.reached();
            machine.heard(Instant::now());
        }
    }

    /// For how long the machine it runs on has said nothing; no time for this machine.
    pub(crate) fn silence(&self) -> Duration {
        self.machine.as_deref().map_or(Duration::ZERO, |machine| machine.silence(Instant::now()))
    }

    /// The machine it runs on answered.
    pub(crate) fn heard(&self) {
        if let Some(machine) = &self.machine {
            machine.heard(Instant::now());
        }
    }

    /// Counts a request in. Called under the route's lock, so that a drain that begins later sees it.
    pub(crate) fn enter(self: &Arc<Self>) -> Ticket {
        self.in_flight.fetch_add(1, SeqCst);
        self.health.is_tried(Instant::now);
        if let Some(machine) = &self.machine {
            machine.is_tried(Instant::now);
        }
        Ticket { lane: Arc::clone(self), since: Instant::now(), failed: false, answered: None }
    }

    /// A live connection at rest, the one used last: its caches are warm, and the others may go.
    pub(crate) fn take_idle(&self) -> Option<Box<Upstream>> {
        loop {
            let (_, mut upstream) = self.idle().pop_back()?;
            if upstream.is_usable() {
                return Some(upstream);
            }
        }
    }

    pub(crate) fn put_idle(&self, upstream: Box<Upstream>) {
        let now = Instant::now();
        let mut idle = self.idle();
        if self.closed.load(SeqCst) {
            return;
        }
        while idle.len() >= IDLE_MAX || idle.front().is_some_and(|(since, _)| now.duration_since(*since) > IDLE_FOR) {
            idle.pop_front();
        }
        idle.push_back((now, upstream));
    }

    /// Connections may rest here, also when they were closed before.
    pub(crate) fn keep_idle(&self) {
        let _idle = self.idle();
        self.closed.store(false, SeqCst);
    }

    /// Closes the connections at rest, now and from now on.
    pub(crate) fn close_idle(&self) {
        let mut idle = self.idle();
        self.closed.store(true, SeqCst);
        idle.clear();
    }

    /// Ends when nothing is in flight.
    pub(crate) async fn until_quiet(&self) {
        loop {
            let quiet = self.quiet.notified();
            tokio::pin!(quiet);
            // Registered before looking, so that an end in between is not missed.
            quiet.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            quiet.await;
        }
    }

    pub(crate) fn traffic(&self) -> StarTraffic {
        StarTraffic {
            requests: self.requests.load(Relaxed),
            in_flight: self.in_flight(),
            errors: self.errors.load(Relaxed),
            server_errors: self.server_errors.load(Relaxed),
            latency_us_sum: self.latency_us_sum.load(Relaxed),
        }
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<(Instant, Box<Upstream>)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request at one star, counted until dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) lane: Arc<Lane>,
    since: Instant,
    failed: bool,
    /// Whether with a status of 500 to 599.
    answered: Option<bool>,
}

impl Ticket {
    /// The star is at fault for how this ends.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }

    /// The star has answered with this.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.answered = Some(status.is_server_error());
    }

    /// The star has taken a connection for whatever is said on it.
    pub(crate) fn connected(&mut self) {
        self.answered = Some(false);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let lane = &self.lane;
        lane.requests.fetch_add(1, Relaxed);
        lane.errors.fetch_add(u64::from(self.failed), Relaxed);
        let took = self.since.elapsed();
        let server_error = self.answered.unwrap_or(took >= PATIENCE);
        // One that was cut short is counted already.
        lane.server_errors.fetch_add(u64::from(server_error && !self.failed), Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        lane.latency_us_sum.fetch_add(micros, Relaxed);
        if lane.in_flight.fetch_sub(1, SeqCst) == 1 {
            lane.quiet.notify_waiters();
        }
    }
}
