//! `constellation`: the other machines and stars, through the agent of this machine.
//!
//! A star has a socket of its own to the agent, a program outside of stars takes the agent's. One connection carries all; it is
//! made when the first call needs it, and again when an agent has gone and another is there. What a message or an event is
//! handed to runs as a task of its own, like the handler of a request.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use model::talk::{Ask, Asked, LINE_MAX_BYTES, MESSAGE_MAX_BYTES, PROTOCOL, SOCKET, Said, WAY_IN_STAR, events};
use model::{Code, Problem};
use rads_vm::{Params, RootId, Value};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, oneshot};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::library::{Action, Entry, Host, host, make};
use crate::machine::Machine;

pub(crate) const ENTRIES: &[Entry] =
    &[host("constellation", "ask", Params::exactly(3), ask), host("constellation", "hear", Params::exactly(2), hear)];

pub(crate) const PRELUDE: &str = r#"
blast constellation__nodes() { return json.parse(constellation.ask("nodes", "", "")); }
blast constellation__leader() { return json.parse(constellation.ask("leader", "", "")); }
blast constellation__init(options) { return json.parse(constellation.ask("init", "", json.stringify(options ?? {}))); }
blast constellation__send(to, message) { return json.parse(constellation.ask("send", to, json.stringify(message))); }
blast constellation__broadcast(message) { return json.parse(constellation.ask("broadcast", "", json.stringify(message))); }
blast constellation__on(event, job) { constellation.hear(event, blast (text) { job(json.parse(text)); }); }
"#;

/// How long an agent that is not there is waited for: another one starts within it.
const CONNECT_FOR: Duration = Duration::from_secs(10);
const CONNECT_AGAIN: Duration = Duration::from_millis(100);
/// Events whose handlers have not ended. Beyond it no more are taken from the agent, which keeps a few and drops the rest.
const HEARD_MAX: usize = 64;

/// How the agent is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// By the socket that a star was given, if it was.
    Star,
    /// By the socket of the agent's API, or why it is not known.
    Api(Result<PathBuf, Problem>),
}

/// The program's connection, and what it listens for.
pub(crate) struct Agent {
    way: Way,
    writer: Mutex<Option<Writer>>,
    /// Who waits for the answer of which number, and on which connection it is to come.
    pending: RefCell<HashMap<u64, (u64, Waiting)>>,
    ears: RefCell<Vec<(String, RootId)>>,
    last: Cell<u64>,
    connections: Cell<u64>,
}

type Waiting = oneshot::Sender<Result<String, Problem>>;

struct Writer {
    connection: u64,
    stream: OwnedWriteHalf,
}

impl Agent {
    pub(crate) fn new(way: Way) -> Self {
        let (writer, pending, ears) = (Mutex::new(None), RefCell::default(), RefCell::default());
        Self { way, writer, pending, ears, last: Cell::new(0), connections: Cell::new(0) }
    }

    /// Whether something may still come to be heard.
    pub(crate) fn listens(&self) -> bool {
        !self.ears.borrow().is_empty()
    }

    /// Has the agent do something; connects first if that is needed.
    async fn ask(machine: &Rc<Machine>, ask: Ask) -> Result<String, Problem> {
        let this = &machine.world.agent;
        let id = this.last.get() + 1;
        this.last.set(id);
        let (answer, answered) = oneshot::channel();
        {
            let mut writer = this.writer.lock().await;
            let mut to = match writer.take() {
                Some(to) => to,
                None => connect(machine).await?,
            };
            this.pending.borrow_mut().insert(id, (to.connection, answer));
            if to.stream.write_all(&line(&Asked { id, ask })).await.is_err() {
                this.pending.borrow_mut().remove(&id);
                return Err(gone());
            }
            *writer = Some(to);
        }
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn line(asked: &Asked) -> Vec<u8> {
    // Strings and numbers are always JSON.
    let mut line = serde_json::to_vec(asked).unwrap_or_default();
    line.push(b'\n');
    line
}

fn gone() -> Problem {
    Problem::new(Code::Unavailable, "the agent went away before it answered: what was asked may have been done")
}

/// A connection whose other half is read from here on.
async fn connect(machine: &Rc<Machine>) -> Result<Writer, Problem> {
    let this = &machine.world.agent;
    let way = &this.way;
    let deadline = Instant::now() + CONNECT_FOR;
    let stream = loop {
        match dial(way).await {
            Ok(stream) => break stream,
            // A star's folder is there or never will be; an agent comes and goes.
            Err(problem) if problem.code != Code::NoAgent || Instant::now() >= deadline => return Err(problem),
            Err(_) => sleep(CONNECT_AGAIN).await,
        }
    };
    let connection = this.connections.get() + 1;
    this.connections.set(connection);
    let (reader, stream) = stream.into_split();
    spawn_local(read(Rc::clone(machine), connection, BufReader::new(reader)));
    Ok(Writer { connection, stream })
}

async fn dial(way: &Way) -> Result<UnixStream, Problem> {
    let path = match way {
        Way::Star => PathBuf::from(WAY_IN_STAR).join(SOCKET),
        Way::Api(path) => path.clone()?,
    };
    if *way == Way::Star && !PathBuf::from(WAY_IN_STAR).is_dir() {
        let problem = Problem::new(Code::Unsupported, "this star was given no way to its agent");
        return Err(problem);
    }
    let no_agent = |error: io::Error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Code::NoAgent,
            _ => Code::Unavailable,
        };
        let help = "start one with `rads up app.rads` or `rads c agent`";
        Problem::new(code, format!("no agent answers at `{}`: {error}", path.display())).help(help)
    };
    let mut stream = UnixStream::connect(&path).await.map_err(no_agent)?;
    if matches!(way, Way::Api(_)) {
        switch(&mut stream).await?;
    }
    Ok(stream)
}

/// Longest answer to the request for the switch.
const HEAD_MAX_BYTES: usize = 16 << 10;

/// Turns a connection to the API into one of this protocol.
async fn switch(stream: &mut UnixStream) -> Result<(), Problem> {
    let lost = |error: io::Error| Problem::new(Code::Unavailable, format!("the agent does not listen: {error}"));
    let request = format!(
        "POST /v1/talk HTTP/1.1\r\nhost: agent\r\nconnection: upgrade\r\nupgrade: {PROTOCOL}\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(lost)?;
    // Byte by byte: what follows the head is the protocol's.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_MAX_BYTES {
            return Err(Problem::new(Code::Unavailable, "the agent's answer is too long"));
        }
        head.push(stream.read_u8().await.map_err(lost)?);
    }
    if head.starts_with(b"HTTP/1.1 101 ") {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    let problem = Problem::new(Code::Unsupported, format!("the agent does not take programs: `{said}`"));
    Err(problem.help("it is of another version, or you have no right to send messages"))
}

/// Takes what the agent says until it goes; then connects anew when something is to be heard.
async fn read(machine: Rc<Machine>, connection: u64, mut reader: BufReader<OwnedReadHalf>) {
    let this = &machine.world.agent;
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = LINE_MAX_BYTES as u64 + 1;
        match AsyncReadExt::take(&mut reader, limit).read_until(b'\n', &mut line).await {
            Ok(read) if read > 0 && line.ends_with(b"\n") => {}
            _ => break,
        }
        match serde_json::from_slice(&line) {
            Ok(Said::Answer { id, result }) => {
                let waiting = this.pending.borrow_mut().remove(&id);
                // Its task may have been cancelled.
                let _ = waiting.map(|(_, waiting)| waiting.send(result));
            }
            Ok(Said::Event { event, data }) => {
                let jobs: Vec<RootId> =
                    this.ears.borrow().iter().filter(|(of, _)| *of == event).map(|(_, job)| *job).collect();
                for job in jobs {
                    machine.hear(job, &data);
                }
                machine.heard_at_most(HEARD_MAX).await;
            }
            Err(_) => break,
        }
    }
    // Whoever waits is told by the end of its channel; another connection may have been made already.
    this.pending.borrow_mut().retain(|_, (of, _)| *of != connection);
    {
        let mut writer = this.writer.lock().await;
        if writer.as_ref().is_some_and(|writer| writer.connection == connection) {
            *writer = None;
        }
    }
    while this.listens() {
        match Agent::ask(&machine, Ask::Hear).await {
            Ok(_) => return,
            Err(problem) if problem.code == Code::Unsupported => return,
            Err(_) => sleep(CONNECT_AGAIN).await,
        }
    }
}

/// `(what, to, message)`, both texts.
fn ask(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let mut cx = host.vm.heap();
    let what = cx.arg_text(args, 0, "what")?.to_owned();
    let to = cx.arg_text(args, 1, "to")?.to_owned();
    let message = cx.arg_text(args, 2, "message")?.to_owned();
    if message.len() > MESSAGE_MAX_BYTES {
        let text = format!("a message has at most {MESSAGE_MAX_BYTES} bytes as JSON, not {}", message.len());
        return Err(cx.error("value", text));
    }
    let ask = match what.as_str() {
        "nodes" => Ask::Nodes,
        "leader" => Ask::Leader,
        "send" => Ask::Send { to, message },
        "broadcast" => Ask::Broadcast { message },
        "init" => Ask::Init { options: message },
        _ => return Err(cx.error("value", format!("there is no `{what}` to ask for"))),
    };
    let machine = Rc::clone(host.machine);
    Ok(Action::Later(Box::pin(async move {
        let answer = Agent::ask(&machine, ask).await;
        make(move |cx| match answer {
            Ok(text) => Ok(cx.string(text)),
            Err(problem) => {
                let help = problem.help.map(|help| format!(" ({help})")).unwrap_or_default();
                Err(cx.error(kind(problem.code), format!("{}{help}", problem.message)))
            }
        })
    })))
}

fn kind(code: Code) -> &'static str {
    match code {
        Code::NotFound => "not_found",
        Code::Unavailable | Code::NoAgent => "unavailable",
        Code::Timeout => "timeout",
        Code::InvalidValue | Code::UnknownOption => "value",
        Code::Forbidden => "forbidden",
        Code::Unsupported => "unsupported",
        Code::AlreadyExists | Code::Conflict => "conflict",
        _ => "constellation",
    }
}

/// `(event, job)`: from here on the job is called for each such event.
fn hear(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let mut cx = host.vm.heap();
    let event = cx.arg_text(args, 0, "event")?.to_owned();
    if !events::ALL.contains(&event.as_str()) {
        let hint = match rads_syntax::nearest(&event, events::ALL.into_iter()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("there are `{}`", events::ALL.join("`, `")),
        };
        return Err(cx.error("value", format!("unknown event `{event}` ({hint})")));
    }
    let job = cx.arg_callable(args, 1, "job")?;
    let job = host.vm.root(job);
    let machine = Rc::clone(host.machine);
    // Two blasts for one event are told by one connection.
    let first = !machine.world.agent.listens();
    machine.world.agent.ears.borrow_mut().push((event, job));
    if !first {
        return Ok(Action::Done(Value::Null));
    }
    Ok(Action::Later(Box::pin(async move {
        let heard = Agent::ask(&machine, Ask::Hear).await;
        if heard.is_err() {
            machine.world.agent.ears.borrow_mut().clear();
        }
        make(move |cx| match heard {
            Ok(_) => Ok(Value::Null),
            Err(problem) => Err(cx.error(kind(problem.code), problem.message)),
        })
    })))
}
