//! `constellation`: the other machines and stars, through the agent of this machine.
//!
//! A star has sockets of its own to the agent, a program outside of stars takes the agent's. To talk, one connection carries all; it is
//! made when the first call needs it, and again when an agent has gone and another is there. What a message or an event is
//! handed to runs as a task of its own, like the handler of a request.
//!
//! - `api`: what is asked of the agent otherwise. `deploying`: services of the program's own files. `looks`: what waits for services.
//! - `programs.rads`: what is said with these, in RADS.

mod api;
mod deploying;
mod looks;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use deploy::Setting;
use model::talk::{
    Ask, Asked, LINE_MAX_BYTES, MESSAGE_MAX_BYTES, NAMESPACE_VARIABLE, PROTOCOL, SOCKET, Said, WAY_IN_STAR, events,
};
use model::{Code, Name, NamespaceChange, Problem};
use rads_vm::{Cx, Params, RootId, Value};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, oneshot};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use self::api::Api;
use self::deploying::Wish;
use self::looks::Looks;
use crate::library::{Action, Entry, Host, host, make};
use crate::machine::Machine;

pub(crate) const ENTRIES: &[Entry] = &[
    host("constellation", "ask", Params::exactly(3), ask),
    host("constellation", "hear", Params::exactly(2), hear),
    host("constellation", "_request", Params::exactly(3), request),
    host("constellation", "_deploy", Params::exactly(3), deploy),
    host("constellation", "_key", Params::exactly(2), key),
    host("constellation", "_namespace_change", Params::exactly(2), namespace_change),
    host("constellation", "_last_look", Params::exactly(0), last_look),
    host("constellation", "_look", Params::exactly(2), look),
];

/// What is said with the API.
pub(crate) const PROGRAMS: &str = include_str!("constellation/programs.rads");

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
    /// By the socket of the agent's API, or why it is not known; services are made of the files of that folder.
    Api { socket: Result<PathBuf, Problem>, files: PathBuf },
}

/// The program's connection, and what it listens for.
pub(crate) struct Agent {
    way: Way,
    api: Rc<Api>,
    looks: Rc<Looks>,
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
        let (api, looks) = (Rc::new(Api::new(way.clone())), Rc::default());
        Self { way, api, looks, writer, pending, ears, last: Cell::new(0), connections: Cell::new(0) }
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
        Way::Api { socket, .. } => socket.clone()?,
    };
    if *way == Way::Star && !PathBuf::from(WAY_IN_STAR).is_dir() {
        let problem = Problem::new(Code::Unsupported, "this star was given no way to its agent");
        return Err(problem);
    }
    let mut stream = UnixStream::connect(&path).await.map_err(|error| no_agent(&path, &error))?;
    if matches!(way, Way::Api { .. }) {
        switch(&mut stream).await?;
    }
    Ok(stream)
}

fn no_agent(path: &Path, error: &io::Error) -> Problem {
    let code = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Code::NoAgent,
        _ => Code::Unavailable,
    };
    let help = "start one with `rads up app.rads` or `rads c agent`";
    Problem::new(code, format!("no agent answers at `{}`: {error}", path.display())).help(help)
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
            Err(problem) => Err(thrown(cx, &problem)),
        })
    })))
}

/// A problem as an error of the program: what it is in `.kind` and `.message`, and all that is known of it in `.data`.
fn thrown(cx: &mut Cx<'_>, problem: &Problem) -> Value {
    let help = problem.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
    let (code, told) = (cx.str(problem.code.as_str()), problem.help.as_ref().map(|help| cx.str(help)));
    let fields = [("code", code), ("help", told.unwrap_or_default()), ("changed", Value::Bool(problem.changed))];
    let data = cx.object_of(&fields);
    cx.error_with(kind(problem.code), format!("{}{help}", problem.message), data)
}

/// Asks the agent and gives what comes of it as text.
fn later(answer: impl Future<Output = Result<String, Problem>> + 'static) -> Result<Action, Value> {
    Ok(Action::Later(Box::pin(async move {
        let answer = answer.await;
        make(move |cx| match answer {
            Ok(text) => Ok(cx.string(text)),
            Err(problem) => Err(thrown(cx, &problem)),
        })
    })))
}

/// `(method, path, body)`, all texts; gives the answer as it came.
fn request(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let mut cx = host.vm.heap();
    let method = cx.arg_text(args, 0, "method")?.to_owned();
    let path = cx.arg_text(args, 1, "path")?.to_owned();
    let body = cx.arg_text(args, 2, "body")?.to_owned();
    let Ok(method) = hyper::Method::from_bytes(method.as_bytes()) else {
        return Err(cx.error("value", format!("`{method}` is no HTTP method")));
    };
    let api = Rc::clone(&host.machine.world.agent.api);
    later(async move {
        let answer = api.request(method, &path, body.into()).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })
}

/// `(namespace, name, options)`: the name may be null, then it is found, and what is there already is an error. `options` may have
/// `app`, beside those of a description.
fn deploy(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let machine = Rc::clone(host.machine);
    let mut cx = host.vm.heap();
    let create = cx.arg(args, 1).is_null();
    let name = if create { None } else { Some(cx.arg_text(args, 1, "name")?.to_owned()) };
    let namespace = if cx.arg(args, 0).is_null() { None } else { Some(cx.arg_text(args, 0, "namespace")?.to_owned()) };
    let options = cx.arg_object(args, 2, "options")?;
    let Setting::Map(mut settings) = Setting::from_value(&cx, options) else {
        return Err(cx.error("value", "the options of a service are an object"));
    };
    let mut taken = |option: &str| -> Result<Option<String>, String> {
        let Some(at) = settings.iter().position(|(name, _)| name == option) else { return Ok(None) };
        match settings.remove(at).1 {
            Setting::Null => Ok(None),
            Setting::Text(text) => Ok(Some(text)),
            _ => Err(format!("`{option}` is a name")),
        }
    };
    let wish = (|| {
        let own =
            |text: Option<String>| text.map(|text| text.parse::<Name>().map_err(|error| error.to_string())).transpose();
        let app = own(taken("app")?)?;
        let said = if create { taken("name")? } else { name };
        let namespace = own(namespace)?.unwrap_or_else(|| own_namespace(&machine));
        Ok::<_, String>(Wish { namespace, name: own(said)?, app, settings: Vec::new(), create })
    })();
    let wish = wish.map_err(|fault| cx.error("value", fault))?;
    let mut wish = Wish { settings, ..wish };
    // What is asked for by itself runs to its end once, unless its options say what else.
    if create && !wish.settings.iter().any(|(name, _)| matches!(name.as_str(), "job" | "restart")) {
        wish.settings.push(("job".to_owned(), Setting::Map(vec![("retries".to_owned(), Setting::Int(0))])));
    }
    let api = Rc::clone(&machine.world.agent.api);
    later(async move { deploying::deploy(&api, wish).await.map(|deployed| deploying::told(&deployed)) })
}

/// The namespace that is meant when none is named: a star's own.
fn own_namespace(machine: &Machine) -> Name {
    let own = machine.world.env.get(NAMESPACE_VARIABLE).filter(|_| machine.world.agent.way == Way::Star);
    own.and_then(|own| own.parse().ok()).unwrap_or_else(Name::default_namespace)
}

/// `(name, namespace)`, of which the second may be null: the namespace and name of a service, checked, as an array.
fn key(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let machine = Rc::clone(host.machine);
    let mut cx = host.vm.heap();
    let name = cx.arg_text(args, 0, "name")?.to_owned();
    let within = if cx.arg(args, 1).is_null() { None } else { Some(cx.arg_text(args, 1, "namespace")?.to_owned()) };
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name.to_owned()),
        None => (within, name),
    };
    let checked = |text: String| text.parse::<Name>().map_err(|error| error.to_string());
    let key = namespace
        .map_or_else(|| Ok(own_namespace(&machine)), checked)
        .and_then(|namespace| Ok((namespace, checked(name)?)));
    let (namespace, name) = key.map_err(|fault| cx.error("value", fault))?;
    let parts = vec![cx.str(namespace.as_str()), cx.str(name.as_str())];
    Ok(Action::Done(cx.array(parts)))
}

/// `(options, whole)`: what options say of a namespace, or of its quota alone, as the API takes it.
fn namespace_change(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let mut cx = host.vm.heap();
    let options = cx.arg_object(args, 0, "options")?;
    let whole = cx.arg_bool(args, 1, "whole")?;
    let settings = match Setting::from_value(&cx, options) {
        Setting::Map(settings) => settings,
        _ => Vec::new(),
    };
    let change = match whole {
        true => deploy::namespace_change(settings),
        false => deploy::quota_change(settings).map(|quota| NamespaceChange { quota, ..NamespaceChange::default() }),
    };
    match change {
        Ok(change) => Ok(Action::Done(cx.string(serde_json::json!(change).to_string()))),
        Err(problem) => Err(thrown(&mut cx, &problem)),
    }
}

fn last_look(host: &mut Host<'_>, _: &[Value]) -> Result<Action, Value> {
    Ok(Action::Done(Value::Int(i64::try_from(host.machine.world.agent.looks.last()).unwrap_or(i64::MAX))))
}

/// `(look, service)`: what becomes of a service after that look, as JSON: the look that saw it, and the service or null.
fn look(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let mut cx = host.vm.heap();
    let look = cx.arg_int(args, 0, "look")?;
    let service = cx.arg_text(args, 1, "service")?.to_owned();
    let agent = &host.machine.world.agent;
    let (api, looks) = (Rc::clone(&agent.api), Rc::clone(&agent.looks));
    later(async move { looks.after(&api, u64::try_from(look).unwrap_or(0), &service).await.map(looks::told) })
}

fn kind(code: Code) -> &'static str {
    match code {
        Code::NotFound => "not_found",
        Code::Unavailable | Code::NoAgent => "unavailable",
        Code::Timeout => "timeout",
        Code::InvalidValue | Code::UnknownOption | Code::FileUnreadable | Code::ScriptFaulty => "value",
        Code::Forbidden => "forbidden",
        Code::Unsupported => "unsupported",
        Code::AlreadyExists | Code::Conflict => "conflict",
        Code::QuotaExceeded | Code::NoCapacity => "capacity",
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
            Err(problem) => Err(thrown(cx, &problem)),
        })
    })))
}
