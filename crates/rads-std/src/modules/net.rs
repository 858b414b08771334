//! HTTP servers: `net.http_server(host, port)` and what can be done with one. The serving itself is in `server`.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use rads_vm::{Cx, Params, RootId, Value};
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use super::Options;
use super::io::failed;
use crate::handler::Script;
use crate::library::{Action, Entry, Host, host, make, method};
use crate::machine::Machine;
use crate::server::{Bounds, Lifeline, Site, listen};

pub(crate) const ENTRIES: &[Entry] = &[
    host("net", "http_server", Params::exactly(2).with_options(), http_server),
    host("net", "route", Params::between(3, 4), route),
    host("net", "static", Params::exactly(3), static_folder),
    host("net", "serve", Params::between(0, 1), serve),
    method(KIND, "route", Params::between(2, 3).with_options(), route),
    method(KIND, "use", Params::exactly(1), middleware),
    method(KIND, "static", Params::exactly(2), static_folder),
    method(KIND, "listen", Params::exactly(0), start),
    method(KIND, "serve", Params::exactly(0), serve),
    method(KIND, "stop", Params::exactly(0), stop),
    method(KIND, "port", Params::exactly(0), port),
];

const KIND: &str = "server";

/// A server's number is its place here; servers are few and live as long as the program.
#[derive(Default)]
pub(crate) struct Servers(RefCell<Vec<Rc<Server>>>);

struct Server {
    host: String,
    /// The one asked for, and once it listens the one it has.
    port: Cell<u16>,
    listens: Cell<bool>,
    site: Rc<Site<RootId>>,
    lifeline: Lifeline,
}

impl Servers {
    /// Whether any server listens or has connections.
    pub(crate) fn any_open(&self) -> bool {
        self.0.borrow().iter().any(|server| server.lifeline.is_open())
    }

    pub(crate) fn stop_all(&self) {
        self.0.borrow().iter().for_each(|server| server.lifeline.stop());
    }
}

/// `host` is an address or `localhost`; port 0 takes any free one. Nothing listens yet.
fn http_server(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let mut cx = host.vm.heap();
    let address = cx.arg_text(args, 0, "host")?.to_owned();
    // As text too: that is how `env.get("PORT")` gives it.
    let port = match cx.as_text(cx.arg(args, 1)) {
        Some(text) => text.parse().map_err(|_| format!("`{text}`")),
        None => cx.arg_int(args, 1, "port").map(|port| u16::try_from(port).map_err(|_| format!("`{port}`")))?,
    };
    let port = match port {
        Ok(port) => port,
        Err(port) => return Err(cx.error("value", format!("`port` must lie between 0 and 65535, not {port}"))),
    };
    let mut options = Options::new(&mut cx, args, 2)?;
    let mut bounds = Bounds::default();
    let as_size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    if let Some(bytes) = options.natural(&mut cx, "max_body_bytes")? {
        bounds.body_bytes = as_size(bytes);
    }
    if let Some(count) = options.natural(&mut cx, "max_connections")? {
        bounds.connections = as_size(count).max(1);
    }
    if let Some(ms) = options.natural(&mut cx, "header_timeout_ms")? {
        bounds.header_read = Duration::from_millis(ms);
    }
    if let Some(ms) = options.natural(&mut cx, "body_timeout_ms")? {
        bounds.body_read = Duration::from_millis(ms);
    }
    options.done(&mut cx)?;
    let mut servers = host.machine.world.servers.0.borrow_mut();
    servers.push(Rc::new(Server {
        host: address,
        port: Cell::new(port),
        listens: Cell::new(false),
        site: Rc::new(Site::new(bounds)),
        lifeline: Lifeline::new(),
    }));
    Ok(Action::Done(cx.host(KIND, servers.len() as u64 - 1)))
}

fn server_of(host: &mut Host<'_>, args: &[Value]) -> Result<Rc<Server>, Value> {
    let number = host.cx().arg_host(args, 0, KIND, "server")?;
    Ok(Rc::clone(&host.machine.world.servers.0.borrow()[number as usize]))
}

/// `(pattern, handler, method)`; the method may come as `method: "POST"` too, and is any without it.
fn route(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let server = server_of(host, args)?;
    let mut cx = host.vm.heap();
    let pattern = cx.arg_text(args, 1, "pattern")?.to_owned();
    let handler = handler(&mut cx, args, 2)?;
    let method = match cx.arg(args, 3) {
        Value::Null => None,
        Value::Object(_) => {
            let mut options = Options::new(&mut cx, args, 3)?;
            let method = options.text(&mut cx, "method")?;
            options.done(&mut cx)?;
            method
        }
        _ => Some(cx.arg_text(args, 3, "method")?.to_owned()),
    };
    let target = host.vm.root(handler);
    match server.site.route(&pattern, method.as_deref(), target) {
        Ok(()) => Ok(Action::Done(args[0])),
        Err(fault) => Err(host.cx().error("value", fault)),
    }
}

/// Called before the handler of every request that has one, with the same arguments; what is not null is the reply.
fn middleware(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let server = server_of(host, args)?;
    let handler = handler(&mut host.cx(), args, 1)?;
    server.site.middleware(host.vm.root(handler));
    Ok(Action::Done(args[0]))
}

fn handler(cx: &mut Cx<'_>, args: &[Value], n: usize) -> Result<Value, Value> {
    match cx.arg_callable(args, n, "handler")? {
        blast @ Value::Function(_) => Ok(blast),
        _ => Err(cx.error("type", "`handler` must be a blast, not a library function")),
    }
}

fn static_folder(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let server = server_of(host, args)?;
    let mut cx = host.vm.heap();
    let prefix = cx.arg_text(args, 1, "prefix")?.to_owned();
    let folder = cx.arg_text(args, 2, "folder")?.to_owned();
    match server.site.folder(&prefix, &host.machine.world.path(&folder)) {
        Ok(()) => Ok(Action::Done(args[0])),
        Err(error) => Err(failed(&mut cx, "serve folder", &folder, &error)),
    }
}

/// Begins to listen and gives the port.
fn start(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let server = server_of(host, args)?;
    let machine = Rc::clone(host.machine);
    Ok(Action::Later(Box::pin(async move {
        let opened = open(&machine, &server).await;
        make(move |cx| match opened {
            Ok(()) => Ok(Value::Int(i64::from(server.port.get()))),
            Err(error) => Err(cannot_listen(cx, &server, &error)),
        })
    })))
}

/// Listens, unless it does already, and suspends the task until the server has stopped. Without a server all of them.
fn serve(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let servers = match host.cx().arg(args, 0) {
        Value::Null => host.machine.world.servers.0.borrow().clone(),
        _ => vec![server_of(host, args)?],
    };
    if servers.is_empty() {
        return Err(host.cx().error("value", "there is no server to serve (`net.http_server(host, port)` makes one)"));
    }
    host.machine.serves(host.task);
    let machine = Rc::clone(host.machine);
    Ok(Action::Later(Box::pin(async move {
        for server in &servers {
            if let Err(error) = open(&machine, server).await {
                let server = Rc::clone(server);
                return make(move |cx| Err(cannot_listen(cx, &server, &error)));
            }
        }
        for server in &servers {
            server.lifeline.ended().await;
        }
        make(|_| Ok(Value::Null))
    })))
}

async fn open(machine: &Rc<Machine>, server: &Rc<Server>) -> io::Result<()> {
    if server.listens.replace(true) {
        return Ok(());
    }
    // Addresses first: looking a name up would start a thread.
    let host = if server.host == "localhost" { "127.0.0.1" } else { &server.host };
    let bound = TcpListener::bind((host, server.port.get())).await.and_then(|listener| {
        server.port.set(listener.local_addr()?.port());
        Ok(listener)
    });
    let listener = bound.inspect_err(|_| server.listens.set(false))?;
    let serving = listen(Rc::clone(&server.site), Script(Rc::clone(machine)), listener, server.lifeline.clone());
    let (owner, lifeline) = (Rc::clone(machine), server.lifeline.clone());
    spawn_local(async move {
        serving.await;
        lifeline.ended().await;
        owner.work.notify_one();
    });
    if let Some(ready) = machine.world.ready.take() {
        // Whoever waits may have left; the server serves all the same.
        let _ = std::fs::File::from(ready).write_all(b"1");
    }
    Ok(())
}

fn cannot_listen(cx: &mut Cx<'_>, server: &Server, error: &io::Error) -> Value {
    let reason = match error.kind() {
        io::ErrorKind::AddrInUse => "the port is in use",
        io::ErrorKind::PermissionDenied => "ports below 1024 need privileges",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address",
        _ => &error.to_string(),
    };
    cx.error("net", format!("cannot listen on `{}:{}`: {reason}", server.host, server.port.get()))
}

/// Stops accepting and lets requests in flight end; `serve` returns when they have.
fn stop(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    server_of(host, args)?.lifeline.stop();
    Ok(Action::Done(Value::Null))
}

fn port(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let server = server_of(host, args)?;
    Ok(Action::Done(Value::Int(i64::from(server.port.get()))))
}
