//! An agent from its start to its end: takes its folder, resumes from its log, serves, and leaves in order.

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::{Control, Routes, Socket, StarsThen};
use model::{Bytes, Code, NodeId, Problem};
use node::{Node, NodeConfig, Request};
use proxy::Proxy;
use rustix::process::Resource;
use state::Author;
use store::snapshots::Stopped;
use store::{Answers, Bundles, DataDir, Roots, Secrets, Snapshots, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::bereft;
use crate::clock::{self, Clock};
use crate::constellation::access::Access;
use crate::constellation::forward::Forward;
use crate::constellation::gate::{BOUNDS, Gate};
use crate::constellation::vault::Vault;
use crate::constellation::{self, Carrier, DataPlane, Home, Mesh};
use crate::control::{Looker, Parts, Remote};
use crate::denials::Denials;
use crate::doors::Doors;
use crate::link::{Link, NurseryPlace};
use crate::main_loop::{Incoming, Ledger, Loop, Seen};
use crate::memories::Memories;
use crate::orders::Values;
use crate::snapshots::BACKING;
use crate::talk::{Desk, Talks, USERS_MAX, Ways, herald};
use crate::watches::Watches;

/// What an agent is started with.
#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    /// The program that becomes the nursery under `nursery_args`.
    pub exe: PathBuf,
    pub nursery_args: Vec<OsString>,
    /// Started by a command that needed an agent; told to clients, who end it when they need it no more.
    pub background: bool,
    /// Where users with a grant are let in from now on, or that they are not; as it was when nothing is said.
    pub api: Option<Option<SocketAddr>>,
}

/// Changes and looks waiting for the loop. It takes one in microseconds; whoever asks waits when it is full.
const ASKED_MAX: usize = 256;
/// Longest wait, at the end, for answers on their way and for connections to close.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How much longer than their grace stars may take to end: a thousand are killed, and that they ended is written.
const REST_SLACK: Duration = Duration::from_secs(10);
/// Longest silence of a log that others keep too, while it is to learn that the stars have ended: without a leader it never
/// does, and the next agent here tells it.
const LOG_SILENCE: Duration = Duration::from_secs(1);
/// Longest wait for the nursery to end, and for stars that had their time: they are killed, which takes milliseconds each.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs an agent until SIGTERM, SIGINT or a request ends it, or it has to begin anew. Stars run on unless the request says
/// otherwise.
pub async fn run(config: Config) -> Result<Ending, Problem> {
    let clock = Clock::start();
    let folder = Arc::new(DataDir::open(&config.data_dir)?);
    let watching = tokio::spawn(bereft::watch(Arc::clone(&folder)));
    let bundles = Arc::new(Bundles::new(folder.path())?);
    let roots = Arc::new(Roots::new(folder.path())?);
    let secrets = Arc::new(Secrets::new(folder.path()));
    let snapshots = Arc::new(Snapshots::new(folder.path(), !rustix::process::geteuid().is_root(), BACKING)?);
    let memories = Arc::new(Memories::default());
    let socket = Socket::bind(folder.path())?;
    let mut signals = Signals::new()?;
    raise_descriptor_limit();

    let (done, reported) = mpsc::unbounded_channel();
    let (ask, asked) = mpsc::channel(ASKED_MAX);
    let (seen, seeing) = watch::channel(Seen::default());
    let seeing_rest = seeing.clone();
    let (leave, leaving) = watch::channel(false);
    let (shutdown, mut shutdowns) = mpsc::channel(1);
    let (again, mut agains) = mpsc::channel(1);
    let (over, mut overs) = mpsc::channel(1);
    let mut about = describe_node();
    let mut facts = about.facts();
    let mut home = Home::read(folder.path())?;
    if let (Some(home), Some(api)) = (&mut home, config.api) {
        home.api = api;
        home.write(folder.path())?;
    }
    let mut former = None;
    let (ledger, state, part) = match home {
        None => {
            former = constellation::let_go::former(folder.path());
            let (store, recovered) = Store::open(&folder.store())?;
            (Ledger::Alone(store), recovered.state, None)
        }
        Some(home) => {
            about.node = home.node;
            constellation::entry::forget_alone(&folder.store());
            home.described.clone().tell(&mut facts);
            let (threads, data_dir) = (clock::threads(), folder.path().to_owned());
            let control = threads.control.clone();
            let part = constellation::start(home, facts.clone(), data_dir, clock, ask.clone(), seeing.clone(), threads);
            let mut starting = control.spawn(part);
            let part = tokio::select! {
                started = &mut starting => {
                    started.map_err(|error| Problem::new(Code::Internal, format!("it could not start: {error}")))??
                }
                // Nothing runs yet.
                () = signals.any() => {
                    starting.abort();
                    // What it was amid is let go of.
                    let _ = starting.await;
                    return Ok(Ending::Over);
                }
            };
            let Some(part) = part else { return Ok(Ending::Again) };
            (Ledger::Shared(part.shared.clone()), part.state.clone(), Some(part))
        }
    };
    seen.send_modify(|seen| seen.index = state.index);
    let watches = Watches::new(state.index);
    tracing::info!(data_dir = %folder.path().display(), index = state.index, node = %about.node, "agent started");
    let place = NurseryPlace { data_dir: folder.path().to_owned(), exe: config.exe.clone(), args: config.nursery_args };
    crate::volumes::sweep(folder.path());
    let link = Link::start(place, done.clone());
    let doors = Doors::new(link.clone());
    let looker = Looker { ask: ask.clone() };
    let way = part.as_ref().map(|part| part.shared.roads.clone());
    let mesh = Mesh::new(about.node, doors.clone(), looker.clone(), way.clone());
    let proxy = Arc::new(Proxy::new(Arc::new(mesh.clone())));
    let far = way.map(|roads| Forward::new(roads, looker.clone()));
    let vault = match part.as_ref().zip(far.clone()) {
        Some((part, far)) => Some(Vault::new(&part.home, part.shared.roads.clone(), looker.clone(), far)?),
        None => None,
    };
    let carrier = part.as_ref().map(|part| {
        let (bundles, roots) = (Arc::clone(&bundles), Arc::clone(&roots));
        Carrier::new(part.shared.roads.clone(), part.shared.feed.clone(), bundles, roots, looker.clone())
    });
    let talks = Talks::new(about.node, looker.clone(), part.as_ref().map(|part| part.shared.clone()));
    let remote = Remote::new(Parts {
        node: about.node,
        denials: Denials::default(),
        talks: talks.clone(),
        talkers: Arc::new(Semaphore::new(USERS_MAX)),
        clock,
        ask: ask.clone(),
        seen: seeing.clone(),
        watches: watches.clone(),
        leaving: leaving.clone(),
        shutdown,
        link: link.clone(),
        proxy: Arc::clone(&proxy),
        bundles: Arc::clone(&bundles),
        roots: Arc::clone(&roots),
        secrets: Arc::clone(&secrets),
        secrets_settle: Mutex::default(),
        snapshots: Arc::clone(&snapshots),
        memories: Arc::clone(&memories),
        answers: Arc::new(Answers::new(folder.path())),
        data_dir: folder.path().to_owned(),
        disk: Arc::default(),
        doors: doors.clone(),
        far,
        carrier: carrier.clone(),
        vault: vault.clone(),
        started: clock::wall(),
        background: config.background,
        standpoint: part.as_ref().map(constellation::Part::standpoint),
        former: std::sync::Mutex::new(former),
        facts: about.facts(),
        again: again.clone(),
        is_node: state.cluster.is_some(),
    });
    let own_remote = remote.clone();
    let remote: Arc<dyn Control> = Arc::new(remote);
    let routes = Routes::new(Arc::clone(&remote));
    let (control, seen_by_stars) = (Arc::clone(&remote), seeing);
    let desk = Desk {
        looker: looker.clone(),
        control,
        routes: routes.clone(),
        seen: seen_by_stars,
        clock,
        leaving: leaving.clone(),
    };
    let ways = Ways::new(talks.clone(), desk, folder.path());
    let own = about.node;
    let node = Node::new(about, state);
    let (snapshots_left, entries) = (Arc::clone(&snapshots), Arc::clone(&proxy));
    let main_loop = Loop {
        node,
        clock,
        ledger,
        bundles,
        roots,
        values: vault.clone().map_or_else(|| Values::Alone(Arc::clone(&secrets)), Values::Shared),
        memories,
        snapshots,
        data_dir: folder.path().to_owned(),
        exe: config.exe,
        link: link.clone(),
        doors,
        proxy,
        mesh: mesh.clone(),
        carrier: carrier.clone(),
        fetching: HashMap::new(),
        done,
        seen,
        watches: watches.clone(),
        ways,
        answers: HashMap::new(),
        next_request: 0,
        remote: own_remote,
        resting: None,
        ending: None,
        heard: None,
        freezing: None,
        frozen: false,
        storing: 0,
    };
    let looping = tokio::spawn(main_loop.run(asked, reported));
    tokio::spawn(herald(talks.clone(), watches, leaving.clone()));
    let part = part.zip(carrier).zip(vault).map(|((part, carrier), vault)| {
        tokio::spawn(vault.clone().take_over(secrets));
        if let Some(address) = part.home.api {
            let access = Access::new(looker.clone());
            tokio::spawn(access.clone().follow(part.shared.seen.clone()));
            let (control, endpoint) = (Arc::clone(&remote), part.shared.roads.endpoint().clone());
            let (routes, leaving, bounds) = (routes.clone(), leaving.clone(), BOUNDS);
            let gate = Gate { access, routes, control, endpoint, leaving, bounds };
            clock::traffic().spawn(gate.run(address));
        }
        let data = DataPlane { mesh, carrier, vault, routes, talks };
        part.run(facts, folder.path(), data, again, over.clone())
    });
    if part.is_none() {
        start_again(&looker, own, &snapshots_left).await;
    }
    let mut left = leaving;
    let serving = tokio::spawn(socket.serve(remote, async move {
        let _ = left.wait_for(|leave| *leave).await;
    }));

    let (stars, ending) = tokio::select! {
        () = signals.any() => (StarsThen::Keep, Ok(Ending::Over)),
        Some(stars) = shutdowns.recv() => (stars, Ok(Ending::Over)),
        Some(()) = agains.recv() => (StarsThen::Keep, Ok(Ending::Again)),
        Some(problem) = overs.recv() => (StarsThen::Keep, Err(problem)),
    };
    tracing::info!(?stars, again = matches!(ending, Ok(Ending::Again)), "agent ending");
    let silence = if part.is_some() { LOG_SILENCE } else { REST_SLACK };
    if stars == StarsThen::Stop {
        // Still serving: their last requests are answered, and who looks sees them end.
        tokio::select! {
            () = rest(&ask, seeing_rest, silence) => {}
            () = signals.any() => tracing::warn!("told to end while stars were ending: they are killed"),
        }
    }
    // Streams end, answers on their way arrive, nothing new is taken; then the node has its last word.
    let _ = leave.send(true);
    let cut = serving.abort_handle();
    if timeout(LEAVE_TIMEOUT, serving).await.is_err() {
        tracing::warn!("connections cut");
        cut.abort();
    }
    // While stars elsewhere can still be reached.
    if timeout(LEAVE_TIMEOUT, entries.leave()).await.is_err() {
        tracing::warn!("requests to services cut");
    }
    let (ended, end) = oneshot::channel();
    if let Some(part) = part {
        part.end().await;
    }
    if ask.send(Incoming::End { ended }).await.is_ok() {
        let _ = end.await;
    }
    let kept = looping.await.map_err(|error| Problem::new(Code::Internal, format!("the loop failed: {error}")))?;
    if stars == StarsThen::Stop && timeout(STOP_TIMEOUT, link.shut_down()).await.is_err() {
        tracing::error!("nursery did not end");
    }
    // Dropping the store writes what is queued.
    tokio::task::spawn_blocking(move || drop(kept))
        .await
        .map_err(|error| Problem::new(Code::Internal, format!("the store failed: {error}")))?;
    tracing::info!("agent ended");
    watching.abort();
    // Once the task is gone, so is the lock.
    let _ = watching.await;
    drop(folder);
    ending
}

/// How an agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to.
    Over,
    /// It is to begin anew at once, as something else than it was: its program is to be executed again.
    Again,
}

/// Starts services that an agent was lost with while they were stopped for a restore.
async fn start_again(looker: &Looker, own: NodeId, snapshots: &Snapshots) {
    for Stopped { service, paused } in snapshots.left_stopped() {
        let key = service.clone();
        let stopped = move |node: &Node| node.state().services.get(&key).is_some_and(|record| record.stopped);
        let again = async {
            if looker.look(stopped).await? {
                tracing::warn!(%service, "a restore was cut short: the service is started again");
                let start = Request::StartService { service: service.clone() };
                looker.change_by(Author::agent(own), start).await?;
                if paused {
                    let pause = Request::Pause { service: service.clone() };
                    looker.change_by(Author::agent(own), pause).await?;
                }
            }
            Ok::<(), Problem>(())
        };
        match again.await {
            Ok(()) => snapshots.forget_stopped(&service),
            // The next agent tries again.
            Err(problem) => tracing::warn!(%service, %problem, "a restore was cut short: the service stays stopped"),
        }
    }
}

/// Has every star end as it does when it is stopped: its requests, its hook, its signal, its grace. Then the log is told, as
/// long as it goes on at all.
async fn rest(ask: &mpsc::Sender<Incoming>, seeing: watch::Receiver<Seen>, silence: Duration) {
    let looker = Looker { ask: ask.clone() };
    let Ok(longest) = looker.look(Node::longest_end).await else { return };
    let ((ended, end), (rested, rest)) = (oneshot::channel(), oneshot::channel());
    if ask.send(Incoming::Rest { ended, rested }).await.is_err() {
        return;
    }
    if timeout(longest + REST_SLACK, end).await.is_err() {
        tracing::warn!("stars did not end in time: they are killed");
    } else if !timeout(REST_SLACK, written(rest, seeing, silence)).await.unwrap_or(false) {
        tracing::warn!("the stars have ended; the log will know it when this node is back, or is given up");
    }
}

/// Whether something comes to be written before the log has been silent for this long.
async fn written(mut rest: oneshot::Receiver<()>, mut seeing: watch::Receiver<Seen>, silence: Duration) -> bool {
    loop {
        let index = seeing.borrow_and_update().index;
        tokio::select! {
            told = &mut rest => return told.is_ok(),
            moved = timeout(silence, seeing.wait_for(|seen| seen.index > index)) => {
                if !matches!(moved, Ok(Ok(_))) {
                    return false;
                }
            }
        }
    }
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Problem> {
        let problem = |error| Problem::new(Code::Internal, format!("cannot wait for signals: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(problem)?,
            interrupt: signal(SignalKind::interrupt()).map_err(problem)?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What this machine offers. Its id is that of a machine that is alone.
pub(crate) fn describe_node() -> NodeConfig {
    let mut seed = [0; 8];
    // It fails before the kernel has gathered randomness, minutes before anybody starts an agent; star ids are checked
    // against those in use, so that a bad seed costs a retry.
    let _ = rustix::rand::getrandom(&mut seed[..], rustix::rand::GetRandomFlags::empty());
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_memory(&text));
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    NodeConfig {
        node: NodeId::FIRST,
        seed: u64::from_ne_bytes(seed),
        rootless: !rustix::process::geteuid().is_root(),
        memory: memory.unwrap_or(Bytes(0)),
        cores,
        // The kernel's own list of those it uses.
        cpus: std::fs::read_to_string("/sys/devices/system/cpu/online").ok().and_then(|list| list.trim().parse().ok()),
    }
}

/// `MemTotal:  4045212 kB` of proc_meminfo(5).
fn total_memory(meminfo: &str) -> Option<Bytes> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    rest.trim().strip_suffix(" kB")?.parse().ok().map(Bytes::kib)
}

/// Every star costs some descriptors for its doors and connections; the usual limit of 1024 is for programs that know
/// no better, and raising it to the hard limit is what it is for.
fn raise_descriptor_limit() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "descriptor limit not raised");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_log_is_waited_for_as_long_as_it_goes_on() {
        let silence = Duration::from_millis(600);
        let (seen, seeing) = watch::channel(Seen::default());
        let (rested, rest) = oneshot::channel();
        let waiting = tokio::spawn(written(rest, seeing.clone(), silence));
        // Longer than the silence, all together.
        for index in 1..=5 {
            tokio::time::sleep(silence / 4).await;
            seen.send_modify(|seen| seen.index = index);
        }
        rested.send(()).unwrap();
        assert!(waiting.await.unwrap(), "it was written in the end");
        // One that nobody leads says nothing, whatever else is seen.
        let (_rested, rest) = oneshot::channel();
        let before = std::time::Instant::now();
        let waiting = tokio::spawn(written(rest, seeing, silence));
        seen.send_modify(|seen| seen.nursery = None);
        assert!(!waiting.await.unwrap());
        assert!(before.elapsed() >= silence);
    }

    #[test]
    fn the_machines_memory_is_read_from_the_kernels_table() {
        let check = |text: &str, expected: Option<Bytes>| assert_eq!(total_memory(text), expected, "{text}");
        check("MemTotal:        4045212 kB\nMemFree: 1 kB\n", Some(Bytes::kib(4_045_212)));
        check("MemFree: 1 kB\n", None);
        check("MemTotal: many kB\n", None);
    }
}
