//! The HTTP server: sites with routes and static folders, listeners, connections, and stopping without losing a
//! request. It knows nothing of the language: what a route leads to is the [`App`]'s business.

mod connection;
pub(crate) mod reply;
mod router;
mod static_files;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::ALLOW;
use hyper::http::request;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;
use tokio::time::sleep;

use reply::Reply;
pub(crate) use router::Params;
use router::{Match, Router};
use static_files::StaticFolder;

/// Who answers requests. A clone is made per request, so it should be a counted pointer.
pub(crate) trait App: Clone + Unpin + 'static {
    type Target: Copy + 'static;

    /// Runs the targets in order (middleware first, the route's handler last) until one of them has an answer.
    fn answer(&self, targets: Vec<Self::Target>, call: Call) -> impl Future<Output = Reply>;
}

/// One complete request.
pub(crate) struct Call {
    pub(crate) head: request::Parts,
    pub(crate) params: Params,
    pub(crate) body: Bytes,
}

/// What a client may cost. The defaults fit a star of 64 MiB.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// A larger body is answered with 413.
    pub(crate) body_bytes: usize,
    /// Request line and headers together; more is answered with 431. hyper accepts no less than 8 KiB.
    pub(crate) header_bytes: usize,
    /// From the first byte awaited to the end of the headers; also how long an idle connection is kept.
    pub(crate) header_read: Duration,
    /// For the whole body; longer is answered with 408.
    pub(crate) body_read: Duration,
    /// Connections at a time; more wait in the kernel's queue.
    pub(crate) connections: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            body_bytes: 1024 * 1024,
            header_bytes: 64 * 1024,
            header_read: Duration::from_secs(30),
            body_read: Duration::from_secs(30),
            connections: 4096,
        }
    }
}

/// Everything one server answers. Routes may be added while it serves.
pub(crate) struct Site<T> {
    pub(crate) bounds: Bounds,
    routes: RefCell<Router<T>>,
    middleware: RefCell<Vec<T>>,
    folders: RefCell<Vec<StaticFolder>>,
}

impl<T: Copy> Site<T> {
    pub(crate) fn new(bounds: Bounds) -> Site<T> {
        Site {
            bounds,
            routes: RefCell::new(Router::new()),
            middleware: RefCell::default(),
            folders: RefCell::default(),
        }
    }

    pub(crate) fn route(&self, pattern: &str, method: Option<&str>, target: T) -> Result<(), String> {
        self.routes.borrow_mut().add(pattern, method, target)
    }

    /// Runs before every route that matches, in the order of registration.
    pub(crate) fn middleware(&self, target: T) {
        self.middleware.borrow_mut().push(target);
    }

    pub(crate) fn folder(&self, prefix: &str, folder: &Path) -> std::io::Result<()> {
        let mut folders = self.folders.borrow_mut();
        folders.push(StaticFolder::new(prefix, folder)?);
        // The longest prefix is the most particular one.
        folders.sort_by_key(|folder| std::cmp::Reverse(folder.prefix().len()));
        Ok(())
    }

    /// Routes win over static files, so that a page may stand in for one of the files.
    fn find(&self, head: &request::Parts) -> Found<T> {
        let path = head.uri.path();
        let refused = match self.routes.borrow().find(head.method.as_str(), path) {
            Match::Found { target, params } => {
                let mut targets = self.middleware.borrow().clone();
                targets.push(target);
                return Found::Targets(targets, params);
            }
            Match::WrongMethod { allow } => Some(allow),
            Match::Nothing => None,
        };
        let folders = self.folders.borrow();
        let from_folder = folders.iter().find_map(|folder| folder.answer(&head.method, path, &head.headers));
        Found::Reply(match (from_folder, refused) {
            (Some(reply), None) => reply,
            (Some(reply), Some(_)) if reply.status().is_success() => reply,
            (_, Some(allow)) => reply::status_with(StatusCode::METHOD_NOT_ALLOWED, ALLOW, &allow),
            (None, None) => reply::status(StatusCode::NOT_FOUND),
        })
    }
}

/// Who answers a request.
enum Found<T> {
    /// The app, which is asked target by target.
    Targets(Vec<T>, Params),
    /// The server itself: a file, or why there is nothing.
    Reply(Reply),
}

/// Tells listeners and connections to stop, and knows when all of them have.
#[derive(Clone)]
pub(crate) struct Lifeline {
    stopping: watch::Sender<bool>,
    open: Rc<Open>,
}

#[derive(Default)]
struct Open {
    count: Cell<usize>,
    changed: Notify,
}

impl Lifeline {
    pub(crate) fn new() -> Lifeline {
        Lifeline { stopping: watch::Sender::new(false), open: Rc::default() }
    }

    /// Listeners close, idle connections too, the others after the request in flight. Returns at once.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Waits until every listener and connection has ended.
    pub(crate) async fn ended(&self) {
        while self.is_open() {
            self.open.changed.notified().await;
        }
        // Several may wait, and a notice wakes only one: it is passed on.
        self.open.changed.notify_one();
    }

    /// Whether anything listens or is connected.
    pub(crate) fn is_open(&self) -> bool {
        self.open.count.get() > 0
    }

    fn hold(&self) -> Hold {
        self.open.count.set(self.open.count.get() + 1);
        Hold(Rc::clone(&self.open))
    }
}

struct Hold(Rc<Open>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.changed.notify_one();
    }
}

/// Accepts until the lifeline says stop; every connection is a local task of its own. The lifeline counts as open from
/// now on, not from when the future is polled first.
pub(crate) fn listen<A: App>(
    site: Rc<Site<A::Target>>,
    app: A,
    listener: TcpListener,
    lifeline: Lifeline,
) -> impl Future<Output = ()> {
    let open = lifeline.hold();
    async move {
        accept(site, app, listener, lifeline).await;
        drop(open);
    }
}

async fn accept<A: App>(site: Rc<Site<A::Target>>, app: A, listener: TcpListener, lifeline: Lifeline) {
    // Connections inherit it. Small replies must not wait for the client's delayed acknowledgement; failing would only
    // cost latency.
    let _ = sockopt::set_tcp_nodelay(&listener, true);
    let mut stopping = lifeline.stopping.subscribe();
    let mut stop = pin!(async move { stopping.wait_for(|stopping| *stopping).await.is_ok() });
    let slots = Rc::new(Slots { free: Cell::new(site.bounds.connections), freed: Notify::new() });
    let begin = |stream: TcpStream| {
        let slot = Slot::take(&slots);
        let open = lifeline.hold();
        let serving = connection::serve(Rc::clone(&site), app.clone(), stream, lifeline.stopping.subscribe());
        spawn_local(async move {
            serving.await;
            drop((slot, open));
        });
    };
    loop {
        let accepted = {
            let mut next = pin!(async {
                slots.wait().await;
                listener.accept().await
            });
            poll_fn(|context| {
                if stop.as_mut().poll(context).is_ready() {
                    return Poll::Ready(None);
                }
                next.as_mut().poll(context).map(Some)
            })
            .await
        };
        match accepted {
            Some(Ok((stream, _))) => begin(stream),
            // The client left between connect and accept, or file descriptors ran out: pause, other connections end.
            Some(Err(_)) => sleep(Duration::from_millis(10)).await,
            None => break,
        }
    }
    // Connections that the kernel has already accepted for us are served: closing the listener would reset them.
    poll_fn(|context| {
        while let Poll::Ready(Ok((stream, _))) = listener.poll_accept(context) {
            begin(stream);
        }
        Poll::Ready(())
    })
    .await;
}

/// Counts connections against the bound.
struct Slots {
    free: Cell<usize>,
    freed: Notify,
}

struct Slot(Rc<Slots>);

impl Slots {
    async fn wait(&self) {
        while self.free.get() == 0 {
            self.freed.notified().await;
        }
    }
}

impl Slot {
    fn take(slots: &Rc<Slots>) -> Slot {
        slots.free.set(slots.free.get().saturating_sub(1));
        Slot(Rc::clone(slots))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests;
