//! Where requests come in: a 0600 path socket in the data folder, whose callers are checked by their peer credentials;
//! connections of other agents; and of users, each request of whom shows who they are.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::{IncomingStream, Listener};
use axum::{Extension, Router};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use model::{Code, Problem};
use tokio::net::{UnixListener, UnixStream};

use crate::control::{Answer, Caller, Control, Duplex};
use crate::refusal::Refusal;

/// Where the agent of a data folder listens.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("agent.sock")
}

/// A bound socket. Dropping it removes its path.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds the data folder's socket, replacing one that a killed agent left behind. The caller holds the folder's
    /// lock, so nobody alive listens on the old one.
    pub fn bind(data_dir: &Path) -> Result<Self, Problem> {
        let path = socket_path(data_dir);
        let problem = |error: io::Error| {
            let message = format!("cannot listen on `{}`: {error}", path.display());
            let problem = Problem::new(Code::DataUnwritable, message);
            match error.kind() {
                // Paths of Unix sockets are short: 108 bytes on Linux (unix(7)).
                io::ErrorKind::InvalidInput => problem.help("choose a data folder with a shorter path"),
                _ => problem,
            }
        };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(problem(error)),
            _ => {}
        }
        // Bound under another name and renamed only once its mode is right, so that it is never open to others.
        let hidden = data_dir.join(".agent.sock");
        let _ = std::fs::remove_file(&hidden);
        let listener = UnixListener::bind(&hidden).map_err(problem)?;
        std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600)).map_err(problem)?;
        std::fs::rename(&hidden, &path).map_err(problem)?;
        Ok(Self { listener, path })
    }

    /// Serves until `stop` completes; requests in flight are answered first, streams are cut.
    pub async fn serve(
        self,
        control: Arc<dyn Control>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let Self { listener, path } = self;
        let routes = crate::routes::router(control).into_make_service_with_connect_info::<Caller>();
        axum::serve(Peers { listener, path }, routes).with_graceful_shutdown(stop).await
    }
}

/// The routes over what an agent can do, for connections that come another way than over the socket.
#[derive(Clone)]
pub struct Routes(Router);

impl Routes {
    pub fn new(control: Arc<dyn Control>) -> Self {
        Self(crate::routes::router(control))
    }

    /// Serves one connection to its end, for a caller that is known.
    pub async fn serve(&self, stream: impl Duplex + 'static, caller: Caller) {
        let routes = TowerToHyperService::new(self.0.clone().layer(Extension(ConnectInfo(caller))));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), routes).with_upgrades();
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection of another agent ended early");
        }
    }
}

/// Says who somebody is by the head of a request, each time anew.
pub type Admit = Arc<dyn Fn(&HeaderMap) -> Answer<'static, Caller> + Send + Sync>;

/// What a connection of somebody who is not known yet may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// For the head of a request to come, and for the next one on the same connection.
    pub head_within: Duration,
    pub head_max_bytes: usize,
    pub fields_max: usize,
}

impl Routes {
    /// Serves one connection to its end, each of its requests for who `admit` says.
    pub async fn serve_users(&self, stream: impl Duplex + 'static, admit: Admit, bounds: Bounds) {
        let routes = TowerToHyperService::new(self.0.clone());
        let answer = move |request: Request<Incoming>| {
            let (routes, admit) = (routes.clone(), Arc::clone(&admit));
            async move {
                let (mut parts, body) = request.into_parts();
                let caller = match admit(&parts.headers).await {
                    Ok(caller) => caller,
                    Err(problem) => return Ok(not_admitted(problem)),
                };
                // What proves who they are stays here, also when the request is passed on.
                parts.headers.remove(header::AUTHORIZATION);
                parts.extensions.insert(ConnectInfo(caller));
                routes.call(Request::from_parts(parts, Body::new(body))).await
            }
        };
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(bounds.head_within);
        server.max_buf_size(bounds.head_max_bytes).max_headers(bounds.fields_max);
        let connection = server.serve_connection(TokioIo::new(stream), service_fn(answer)).with_upgrades();
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection of a user ended early");
        }
    }
}

/// The body of what is refused so is not waited for.
fn not_admitted(problem: Problem) -> Response {
    let status = match problem.code {
        Code::Forbidden => StatusCode::UNAUTHORIZED,
        _ => StatusCode::TOO_MANY_REQUESTS,
    };
    let fields = [(header::WWW_AUTHENTICATE, "Bearer"), (header::CONNECTION, "close")];
    let mut response = (fields, Refusal(problem)).into_response();
    *response.status_mut() = status;
    response
}

/// Hands out connections of allowed callers only.
struct Peers {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener for Peers {
    type Io = UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            match stream.peer_cred() {
                Ok(peer) if allowed(peer.uid()) => return (stream, address),
                Ok(peer) => tracing::warn!(uid = peer.uid(), "caller refused"),
                Err(error) => tracing::warn!(%error, "caller without credentials refused"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Peers>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Peers>) -> Self {
        // They were there when it was accepted, and a connection's credentials never change.
        Self::owner(stream.io().peer_cred().map_or(u32::MAX, |peer| peer.uid()))
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The agent's own user and root. The socket's mode says the same; this holds when somebody loosens the mode.
fn allowed(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}
