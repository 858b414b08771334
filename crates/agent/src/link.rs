//! The connection to the nursery: made, kept, and made again. It starts a nursery when none answers.
//!
//! One task owns the socket. Orders come to it from the loop, questions from whoever needs a door or runs a command;
//! messages go on to the loop, except the answers to questions, which go straight to whoever asked.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use isolate::memory::Keeping;
use isolate::parcel::Copying;
use isolate::{Client, Launch, Message, Request, StarReport, Walls};
use model::{Code, Problem, StarId};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::main_loop::Incoming;
use crate::ready::{Ready, register};
use crate::upgrade::{Upgraded, upgrade_nursery};

/// Questions waiting for the socket. A nursery answers one in some microseconds; a queue this long means that it
/// hangs, and whoever asks waits then.
const QUESTIONS_MAX: usize = 256;
/// Longest wait for a nursery to come up: it has a VM to build and old stars to adopt.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at whether the nursery's socket is there yet; it comes up in a few milliseconds.
const START_STEP: Duration = Duration::from_millis(2);
/// Between two attempts to have a nursery at all; doubles up to `RETRY_MAX`.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What the loop hears from the nursery.
#[derive(Debug)]
pub(crate) enum FromNursery {
    Up { pid: u32, stars: Vec<StarReport>, walls: Walls },
    Down,
    Said(Message),
}

/// How to have a nursery.
#[derive(Debug, Clone)]
pub(crate) struct NurseryPlace {
    pub(crate) data_dir: PathBuf,
    /// The program that becomes one under `args`.
    pub(crate) exe: PathBuf,
    pub(crate) args: Vec<OsString>,
}

/// A handle to the task; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    /// Unbounded, so that the loop never waits for the nursery; the node has but a few orders per star outstanding.
    orders: mpsc::UnboundedSender<Request>,
    questions: mpsc::Sender<Question>,
    /// Of commands, which whoever asked may end before they end.
    next_token: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Question {
    Door {
        star: StarId,
        count: u8,
        answer: oneshot::Sender<Result<Vec<OwnedFd>, String>>,
    },
    Exec {
        star: StarId,
        token: u64,
        launch: Launch,
        env: BTreeMap<String, String>,
        pipes: Vec<OwnedFd>,
        answer: ExecAnswer,
    },
    Copy {
        star: StarId,
        token: u64,
        copying: Copying,
        pipes: Vec<OwnedFd>,
        answer: ExecAnswer,
    },
    Memory {
        star: StarId,
        token: u64,
        keeping: Keeping,
        pipes: Vec<OwnedFd>,
        answer: ExecAnswer,
    },
    /// End the nursery and every star, and have no other; answered when it is gone.
    Shutdown {
        answer: oneshot::Sender<()>,
    },
}

type ExecAnswer = oneshot::Sender<Result<i32, String>>;

impl Link {
    /// Starts the task. Everything the nursery says goes to `heard`.
    pub(crate) fn start(place: NurseryPlace, heard: mpsc::UnboundedSender<Incoming>) -> Self {
        let (orders, ordered) = mpsc::unbounded_channel();
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        tokio::spawn(keep(place, Queues { ordered, asked, heard }));
        Self { orders, questions, next_token: Arc::default() }
    }

    /// Sends an order. Lost when the nursery is down: the loop hears of that, and orders anew when it is up.
    pub(crate) fn order(&self, request: Request) {
        let _ = self.orders.send(request);
    }

    /// Unconnected sockets made inside a star's network namespace.
    pub(crate) async fn doors(&self, star: StarId, count: u8) -> io::Result<Vec<OwnedFd>> {
        let (answer, answered) = oneshot::channel();
        let down = || io::Error::new(io::ErrorKind::NotConnected, "the nursery is down");
        self.questions.send(Question::Door { star, count, answer }).await.map_err(|_| down())?;
        answered.await.map_err(|_| down())?.map_err(io::Error::other)
    }

    /// Runs a command for somebody who may leave before it ends: dropped, it is hung up on, and killed after `grace`.
    pub(crate) async fn exec_leashed(
        &self,
        grace: Duration,
        star: StarId,
        launch: Launch,
        env: BTreeMap<String, String>,
        pipes: Vec<OwnedFd>,
    ) -> Result<i32, Problem> {
        let mut leash = self.leash(grace);
        let ended = self.exec_as(leash.token, star, launch, env, pipes).await;
        leash.ended = true;
        ended
    }

    fn leash(&self, grace: Duration) -> Leash {
        Leash { link: self.clone(), token: self.next_token.fetch_add(1, Relaxed), grace, ended: false }
    }

    /// Runs a command within a star; resolves to its exit code when it ends.
    pub(crate) async fn exec(
        &self,
        star: StarId,
        launch: Launch,
        env: BTreeMap<String, String>,
        pipes: Vec<OwnedFd>,
    ) -> Result<i32, Problem> {
        let token = self.next_token.fetch_add(1, Relaxed);
        self.exec_as(token, star, launch, env, pipes).await
    }

    /// Copies files within a star; resolves to its exit code when it ends. Dropped, it is ended.
    pub(crate) async fn copy(&self, star: StarId, copying: Copying, pipes: Vec<OwnedFd>) -> Result<i32, Problem> {
        let mut leash = self.leash(Duration::ZERO);
        let token = leash.token;
        let ended = self.ask_to_run("the copy", |answer| Question::Copy { star, token, copying, pipes, answer }).await;
        leash.ended = true;
        ended
    }

    /// Keeps the memory of a star; see `isolate::Request::KeepMemory`.. Dropped, it runs on: cut
    /// short it would leave the star half way.
    pub(crate) async fn keep_memory(
        &self,
        star: StarId,
        keeping: Keeping,
        pipes: Vec<OwnedFd>,
    ) -> Result<i32, Problem> {
        let token = self.next_token.fetch_add(1, Relaxed);
        self.ask_to_run("CRIU", |answer| Question::Memory { star, token, keeping, pipes, answer }).await
    }

    /// The same as `exec`, but a command that has not ended in time is killed, and is an error.
    pub(crate) async fn exec_within(
        &self,
        time: Duration,
        star: StarId,
        launch: Launch,
        env: BTreeMap<String, String>,
        pipes: Vec<OwnedFd>,
    ) -> Result<i32, Problem> {
        let token = self.next_token.fetch_add(1, Relaxed);
        let ended = timeout(time, self.exec_as(token, star, launch, env, pipes)).await;
        ended.unwrap_or_else(|_| {
            self.order(Request::EndExec { token });
            Err(Problem::new(Code::Timeout, format!("it did not end within {} ms", time.as_millis())))
        })
    }

    async fn exec_as(
        &self,
        token: u64,
        star: StarId,
        launch: Launch,
        env: BTreeMap<String, String>,
        pipes: Vec<OwnedFd>,
    ) -> Result<i32, Problem> {
        self.ask_to_run("the command", |answer| Question::Exec { star, token, launch, env, pipes, answer }).await
    }

    async fn ask_to_run(&self, what: &str, question: impl FnOnce(ExecAnswer) -> Question) -> Result<i32, Problem> {
        let (answer, answered) = oneshot::channel();
        let down = || Problem::new(Code::Unavailable, "the nursery is down").help("it is started again by itself");
        self.questions.send(question(answer)).await.map_err(|_| down())?;
        let ended = answered.await.map_err(|_| down())?;
        ended.map_err(|reason| Problem::new(Code::StartFailed, format!("{what} did not run: {reason}")))
    }

    /// Ends the nursery and every star; returns when both are gone.
    pub(crate) async fn shut_down(&self) {
        let (answer, answered) = oneshot::channel();
        if self.questions.send(Question::Shutdown { answer }).await.is_ok() {
            // An error means that the task ended, which it does only when there is no nursery any more.
            let _ = answered.await;
        }
    }
}

/// What is run for somebody: nobody is left to wait for it when this is dropped before it ended.
struct Leash {
    link: Link,
    token: u64,
    /// From hanging up to killing.
    grace: Duration,
    ended: bool,
}

impl Drop for Leash {
    fn drop(&mut self) {
        let Self { ref link, token, grace, ended } = *self;
        // Without a runtime the agent itself ends.
        let (false, Ok(runtime)) = (ended, tokio::runtime::Handle::try_current()) else { return };
        link.order(Request::HangUpExec { token });
        let link = link.clone();
        runtime.spawn(async move {
            sleep(grace).await;
            link.order(Request::EndExec { token });
        });
    }
}

/// The task's ends of its queues.
struct Queues {
    ordered: mpsc::UnboundedReceiver<Request>,
    asked: mpsc::Receiver<Question>,
    heard: mpsc::UnboundedSender<Incoming>,
}

impl Queues {
    fn tell(&self, heard: FromNursery) -> Result<(), ()> {
        self.heard.send(Incoming::Nursery(heard)).map_err(|_| ())
    }
}

/// The task's whole life: have a nursery, talk to it until it is gone, again.
async fn keep(place: NurseryPlace, mut queues: Queues) {
    let mut retry = RETRY_MIN;
    loop {
        // Orders of the time without a nursery are stale: when the next one is up, the loop orders anew.
        while queues.ordered.try_recv().is_ok() {}
        match have(&place).await {
            Ok(client) => {
                let Ok(mut talk) = Talk::new(client) else { return };
                let ended = talk.run(&mut queues).await;
                if talk.welcomed {
                    retry = RETRY_MIN;
                    if queues.tell(FromNursery::Down).is_err() {
                        return;
                    }
                }
                match ended {
                    Ended::Abandoned => return,
                    Ended::Lost(_) if talk.last.is_some() => {
                        tracing::info!("nursery ended");
                        return;
                    }
                    Ended::Lost(error) => tracing::warn!(%error, "nursery lost"),
                }
            }
            Err(reason) => tracing::error!(reason, "no nursery"),
        }
        tokio::select! {
            () = sleep(retry) => retry = (retry * 2).min(RETRY_MAX),
            () = queues.heard.closed() => return,
        }
    }
}

/// Connects to the nursery, starting one first if none answers.
async fn have(place: &NurseryPlace) -> Result<Client, String> {
    let absent = |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
    match Client::connect(&place.data_dir) {
        Ok(client) => {
            // The nursery follows its agent, whichever of the two is older: then one program looks after a star.
            match upgrade_nursery(&place.data_dir, &place.args).await {
                Ok(None) => {}
                Ok(Some(Upgraded { stars, pause })) => tracing::info!(stars, ?pause, "nursery became this program"),
                Err(problem) => tracing::warn!(%problem, "nursery stays the program it is"),
            }
            return Ok(client);
        }
        Err(error) if !absent(&error) => return Err(error.to_string()),
        Err(_) => {}
    }
    let log = place.data_dir.join("nursery.log");
    let pid = isolate::launch_detached(&place.exe, &place.args, &log).map_err(|fault| fault.to_string())?;
    tracing::info!(pid, "nursery started");
    let up = async {
        loop {
            match Client::connect(&place.data_dir) {
                Err(error) if absent(&error) => sleep(START_STEP).await,
                other => return other.map_err(|error| error.to_string()),
            }
        }
    };
    timeout(START_TIMEOUT, up).await.unwrap_or_else(|_| {
        Err(format!("it did not come up within {} s; see `{}`", START_TIMEOUT.as_secs(), log.display()))
    })
}

enum Ended {
    /// Nobody listens any more.
    Abandoned,
    Lost(io::Error),
}

/// One connection.
struct Talk {
    client: AsyncFd<Ready<Client>>,
    welcomed: bool,
    /// Requests that did not fit into the socket yet, oldest first.
    waiting: VecDeque<(Request, Vec<OwnedFd>)>,
    next_token: u64,
    doors: HashMap<u64, oneshot::Sender<Result<Vec<OwnedFd>, String>>>,
    /// By tokens of their own.
    commands: HashMap<u64, ExecAnswer>,
    /// Who waits for the nursery's end. Dropped, and so answered, with the rest.
    last: Option<oneshot::Sender<()>>,
}

impl Talk {
    fn new(client: Client) -> io::Result<Self> {
        let client = register(client)?;
        let hello = (Request::Hello { version: isolate::protocol::VERSION }, Vec::new());
        Ok(Self {
            client,
            welcomed: false,
            waiting: VecDeque::from([hello]),
            next_token: 0,
            doors: HashMap::new(),
            commands: HashMap::new(),
            last: None,
        })
    }

    async fn run(&mut self, queues: &mut Queues) -> Ended {
        loop {
            if let Err(error) = self.flush() {
                return Ended::Lost(error);
            }
            // Only what the socket takes is taken from the queues, so that their bounds are the only ones.
            let free = self.welcomed && self.waiting.is_empty() && self.last.is_none();
            tokio::select! {
                biased;
                received = receive(&self.client) => match received {
                    Ok((message, fds)) => {
                        let abandoned = self.route(message, fds).is_some_and(|heard| queues.tell(heard).is_err());
                        if abandoned {
                            return Ended::Abandoned;
                        }
                    }
                    Err(error) => return Ended::Lost(error),
                },
                order = queues.ordered.recv(), if free => match order {
                    Some(order) => self.waiting.push_back((order, Vec::new())),
                    None => return Ended::Abandoned,
                },
                question = queues.asked.recv(), if free => match question {
                    Some(question) => self.take(question),
                    None => return Ended::Abandoned,
                },
                ready = self.client.writable(), if !self.waiting.is_empty() => match ready {
                    Ok(mut guard) => guard.clear_ready(),
                    Err(error) => return Ended::Lost(error),
                },
            }
        }
    }

    fn take(&mut self, question: Question) {
        self.next_token += 1;
        let token = self.next_token;
        let request = match question {
            Question::Door { star, count, answer } => {
                self.doors.insert(token, answer);
                (Request::Door { star, token, count }, Vec::new())
            }
            Question::Exec { star, token, launch, env, pipes, answer } => {
                self.commands.insert(token, answer);
                (Request::Exec { star, token, launch, env }, pipes)
            }
            Question::Copy { star, token, copying, pipes, answer } => {
                self.commands.insert(token, answer);
                (Request::Copy { star, token, copying }, pipes)
            }
            Question::Memory { star, token, keeping, pipes, answer } => {
                self.commands.insert(token, answer);
                (Request::KeepMemory { star, token, keeping }, pipes)
            }
            Question::Shutdown { answer } => {
                self.last = Some(answer);
                (Request::Shutdown, Vec::new())
            }
        };
        self.waiting.push_back(request);
    }

    /// Sends what waits, as far as the socket takes it.
    fn flush(&mut self) -> io::Result<()> {
        while let Some((request, fds)) = self.waiting.front() {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match self.client.get_ref().0.try_send(request, &fds) {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives an answer to whoever asked; what concerns the loop is returned.
    fn route(&mut self, message: Message, fds: Vec<OwnedFd>) -> Option<FromNursery> {
        match message {
            Message::Welcome { pid, stars, walls, .. } => {
                self.welcomed = true;
                Some(FromNursery::Up { pid, stars, walls })
            }
            Message::Doors { token, problem, .. } => {
                if let Some(answer) = self.doors.remove(&token) {
                    let _ = answer.send(problem.map_or(Ok(fds), Err));
                }
                None
            }
            Message::ExecEnded { token, result } => {
                if let Some(answer) = self.commands.remove(&token) {
                    let _ = answer.send(result);
                }
                None
            }
            other => Some(FromNursery::Said(other)),
        }
    }
}

async fn receive(client: &AsyncFd<Ready<Client>>) -> io::Result<(Message, Vec<OwnedFd>)> {
    loop {
        let mut guard = client.readable().await?;
        match guard.try_io(|client| client.get_ref().0.try_recv()) {
            Ok(received) => return received,
            Err(_would_block) => {}
        }
    }
}
