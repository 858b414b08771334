//! The other end of the API: a client over the agent's Unix socket, of another node's agent, or of a constellation elsewhere, typed
//! like the routes.
//!
//! Each request takes a connection of its own: over a Unix socket one costs tens of microseconds, over TLS a millisecond and two ways
//! more, and nothing has to be kept or found broken.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, LengthLimitError};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::http::request;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use model::{
    AppKey, AppSpec, BundleManifest, Code, ContentHash, Duty, LimitsChange, Name, NamespaceChange, NodeId, Overcommit,
    Problem, RolloutTurn, SecretKey, SecretView, ServiceKey, StarId, Taint, VolumeKey,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::asking::{AGAIN_AFTER, Asking, Next};
use crate::certs::{CertificatesView, Invite, TokenView};
use crate::constellation::{Became, Init, Invitation, Join, NodeView, Removal, SetDuty, Survey};
use crate::control::{Answer, Duplex, Road};
use crate::exec::{BYTES, PROTOCOL};
use crate::grants::{AuditView, GrantView, Granted, NewGrant};
use crate::keyed;
use crate::serve::socket_path;
use crate::types::{
    Accepted, After, AppView, BundleStatus, Copy, Events, ExecCommand, ExplainView, Forecast, Index, Inspection,
    LogQuery, LogRecord, MoveView, NamespaceView, Passed, PutApp, ResourcesView, RestoreSnapshot, Rollback, RunsView,
    Scale, ServiceView, Shutdown, SnapshotTaken, SnapshotView, StarStats, StarTurn, StarView, StarsThen, Status,
    TakeSnapshot, Version, VersionView, VolumeView,
};
use crate::watch::{WatchLine, WatchQuery};

/// Largest answer read whole. The longest is the list of all stars.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// One agent: that of a data folder, or of another node.
#[derive(Debug, Clone)]
pub struct Client {
    reach: Reach,
}

/// Makes connections to the agent of another node.
type Connect = Arc<dyn Fn() -> Answer<'static, Road> + Send + Sync>;

#[derive(Clone)]
enum Reach {
    Folder(PathBuf),
    Node {
        name: String,
        connect: Connect,
    },
    /// A constellation elsewhere, by the name it has here.
    Context {
        name: String,
        connect: Connect,
        authorization: Option<HeaderValue>,
    },
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(data_dir) => write!(f, "the agent on `{}`", data_dir.display()),
            Self::Node { name, .. } => write!(f, "the agent of node `{name}`"),
            Self::Context { name, .. } => write!(f, "context `{name}`"),
        }
    }
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Client {
    /// Makes sure that an agent answers, and that it speaks this version of the API.
    pub async fn connect(data_dir: &Path) -> Result<(Self, Version), Problem> {
        let client = Self { reach: Reach::Folder(data_dir.to_owned()) };
        let version = client.greet().await?;
        Ok((client, version))
    }

    /// A constellation elsewhere, to which `connect` makes a connection for each request; with a token, if that is what proves
    /// who asks. Nothing is asked yet.
    ///
    /// # Errors
    /// When the token is no text that could be sent.
    pub fn of_context(
        name: String,
        token: Option<&str>,
        connect: impl Fn() -> Answer<'static, Road> + Send + Sync + 'static,
    ) -> Result<Self, Problem> {
        let bearer = |token: &str| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(internal)?;
            value.set_sensitive(true);
            Ok::<_, Problem>(value)
        };
        let authorization = token.map(bearer).transpose()?;
        Ok(Self { reach: Reach::Context { name, connect: Arc::new(connect), authorization } })
    }

    /// Who answers; it speaks this version of the API.
    pub async fn greet(&self) -> Result<Version, Problem> {
        let version: Version = self.get("/v1/version").await?;
        if version.api != crate::types::API_VERSION {
            let message = format!("{} is of version {}", self.reach, version.version);
            return Err(Problem::new(Code::Unsupported, message)
                .help("use the `rads` it was started with, or restart the agent with this one"));
        }
        Ok(version)
    }

    /// The agent of another node, to which `connect` makes a connection for each request.
    pub fn of_node(name: String, connect: impl Fn() -> Answer<'static, Road> + Send + Sync + 'static) -> Self {
        Self { reach: Reach::Node { name, connect: Arc::new(connect) } }
    }

    pub async fn status(&self) -> Result<Status, Problem> {
        self.get("/v1/status").await
    }

    /// Waits until the log has gone beyond `after`, or `wait_ms` is over; gives the index then.
    pub async fn index(&self, after: u64, wait_ms: u64) -> Result<u64, Problem> {
        let query = query(&After { after, wait_ms, agreed: false })?;
        self.get::<Index>(&format!("/v1/index?{query}")).await.map(|answer| answer.index)
    }

    /// Waits until the agent knows everything that was acknowledged by now, at any node; gives the index then.
    pub async fn agreed(&self) -> Result<u64, Problem> {
        let query = query(&After { after: 0, wait_ms: 0, agreed: true })?;
        self.get::<Index>(&format!("/v1/index?{query}")).await.map(|answer| answer.index)
    }

    pub async fn events(&self, after: u64, wait_ms: u64) -> Result<Events, Problem> {
        let query = query(&After { after, wait_ms, agreed: false })?;
        self.get(&format!("/v1/events?{query}")).await
    }

    pub async fn apps(&self) -> Result<Vec<AppView>, Problem> {
        self.get("/v1/apps").await
    }

    pub async fn app(&self, app: &AppKey) -> Result<AppView, Problem> {
        self.get(&format!("/v1/apps/{}", segment(app))).await
    }

    pub async fn put_app(&self, spec: AppSpec, base: Option<u64>) -> Result<Accepted, Problem> {
        let path = format!("/v1/apps/{}", segment(&spec.app));
        self.change(Method::PUT, &path, &PutApp { spec, base }).await
    }

    /// What putting it would come to; nothing is changed.
    pub async fn forecast(&self, spec: AppSpec, base: Option<u64>) -> Result<Forecast, Problem> {
        self.send(Method::POST, &format!("/v1/apps/{}/forecast", segment(&spec.app)), &PutApp { spec, base }).await
    }

    pub async fn remove_app(&self, app: &AppKey) -> Result<Accepted, Problem> {
        self.change(Method::DELETE, &format!("/v1/apps/{}", segment(app)), &()).await
    }

    pub async fn services(&self) -> Result<Vec<ServiceView>, Problem> {
        self.get("/v1/services").await
    }

    pub async fn service(&self, service: &ServiceKey) -> Result<ServiceView, Problem> {
        self.get(&format!("/v1/services/{}", segment(service))).await
    }

    /// Stars that would better be on another machine, at most 1,000.
    pub async fn moves(&self) -> Result<Vec<MoveView>, Problem> {
        self.get("/v1/moves").await
    }

    pub async fn explain(&self, service: &ServiceKey) -> Result<ExplainView, Problem> {
        self.get(&format!("/v1/services/{}/explain", segment(service))).await
    }

    pub async fn service_stats(&self, service: &ServiceKey) -> Result<Vec<StarStats>, Problem> {
        self.get(&format!("/v1/services/{}/stats", segment(service))).await
    }

    /// What the node has passed on to the stars of a service, wherever those are.
    pub async fn passed(&self, service: &ServiceKey) -> Result<Vec<Passed>, Problem> {
        self.get(&format!("/v1/services/{}/passed", segment(service))).await
    }

    /// Changes what running stars may use; returns when every one of them does.
    pub async fn limit(&self, service: &ServiceKey, change: &LimitsChange) -> Result<Accepted, Problem> {
        self.change(Method::POST, &format!("/v1/services/{}/limits", segment(service)), change).await
    }

    pub async fn scale(&self, service: &ServiceKey, instances: u32) -> Result<Accepted, Problem> {
        self.change(Method::POST, &format!("/v1/services/{}/scale", segment(service)), &Scale { instances }).await
    }

    pub async fn pause(&self, service: &ServiceKey) -> Result<Accepted, Problem> {
        self.change(Method::POST, &format!("/v1/services/{}/pause", segment(service)), &()).await
    }

    pub async fn resume(&self, service: &ServiceKey) -> Result<Accepted, Problem> {
        self.change(Method::POST, &format!("/v1/services/{}/resume", segment(service)), &()).await
    }

    pub async fn restart(&self, service: &ServiceKey) -> Result<Accepted, Problem> {
        self.change(Method::POST, &format!("/v1/services/{}/restart", segment(service)), &()).await
    }

    /// Those of a job.
    pub async fn runs(&self, service: &ServiceKey) -> Result<RunsView, Problem> {
        self.get(&format!("/v1/services/{}/runs", segment(service))).await
    }

    /// Begins a run of a job.
    pub async fn run(&self, service: &ServiceKey) -> Result<Accepted, Problem> {
        self.change(Method::POST, &format!("/v1/services/{}/runs", segment(service)), &()).await
    }

    /// Those that are kept, the present one last.
    pub async fn versions(&self, service: &ServiceKey) -> Result<Vec<VersionView>, Problem> {
        self.get(&format!("/v1/services/{}/versions", segment(service))).await
    }

    pub async fn roll_back(&self, service: &ServiceKey, version: Option<u64>) -> Result<Accepted, Problem> {
        self.change(Method::POST, &format!("/v1/services/{}/rollback", segment(service)), &Rollback { version }).await
    }

    pub async fn turn_rollout(&self, service: &ServiceKey, turn: RolloutTurn) -> Result<Accepted, Problem> {
        let path = format!("/v1/services/{}/rollout/{}", segment(service), turn.as_str());
        self.change(Method::POST, &path, &()).await
    }

    pub async fn stop(&self, service: &ServiceKey) -> Result<Accepted, Problem> {
        self.change(Method::POST, &format!("/v1/services/{}/stop", segment(service)), &()).await
    }

    pub async fn start(&self, service: &ServiceKey) -> Result<Accepted, Problem> {
        self.change(Method::POST, &format!("/v1/services/{}/start", segment(service)), &()).await
    }

    pub async fn remove_service(&self, service: &ServiceKey) -> Result<Accepted, Problem> {
        self.change(Method::DELETE, &format!("/v1/services/{}", segment(service)), &()).await
    }

    pub async fn turn(&self, service: &ServiceKey, ordinal: u32, turn: StarTurn) -> Result<Accepted, Problem> {
        let word = match turn {
            StarTurn::Stop => "stop",
            StarTurn::Start => "start",
            StarTurn::Restart => "restart",
            StarTurn::Move => "move",
        };
        self.change(Method::POST, &format!("/v1/services/{}/stars/{ordinal}/{word}", segment(service)), &()).await
    }

    pub async fn inspect(&self, star: StarId) -> Result<Inspection, Problem> {
        self.get(&format!("/v1/stars/{star}/inspect")).await
    }

    /// Keeps the files of a service's volumes.
    pub async fn take_snapshot(&self, service: &ServiceKey, take: &TakeSnapshot) -> Result<SnapshotTaken, Problem> {
        self.change(Method::POST, &format!("/v1/services/{}/snapshots", segment(service)), take).await
    }

    pub async fn snapshots(&self) -> Result<Vec<SnapshotView>, Problem> {
        self.get("/v1/snapshots").await
    }

    pub async fn snapshot(&self, name: &Name) -> Result<SnapshotView, Problem> {
        self.get(&format!("/v1/snapshots/{name}")).await
    }

    pub async fn delete_snapshot(&self, name: &Name) -> Result<(), Problem> {
        self.change(Method::DELETE, &format!("/v1/snapshots/{name}"), &()).await
    }

    /// Gives volumes and stars the files of a snapshot; those who use them have to be stopped.
    pub async fn restore_snapshot(&self, name: &Name, restore: &RestoreSnapshot) -> Result<SnapshotView, Problem> {
        self.change(Method::POST, &format!("/v1/snapshots/{name}/restore"), restore).await
    }

    pub async fn stars(&self) -> Result<Vec<StarView>, Problem> {
        self.get("/v1/stars").await
    }

    pub async fn star(&self, star: StarId) -> Result<StarView, Problem> {
        self.get(&format!("/v1/stars/{star}")).await
    }

    pub async fn star_stats(&self, star: StarId) -> Result<StarStats, Problem> {
        self.get(&format!("/v1/stars/{star}/stats")).await
    }

    pub async fn logs(&self, which: &LogQuery) -> Result<LogReader, Problem> {
        let query = query(which)?;
        let response = self.request(Method::GET, &format!("/v1/logs?{query}"), None, Bytes::new()).await?;
        Ok(LineReader::new(response, &self.reach))
    }

    /// What changes, as it does.
    pub async fn watch(&self, which: &WatchQuery) -> Result<LineReader<WatchLine>, Problem> {
        let query = query(which)?;
        let response = self.request(Method::GET, &format!("/v1/watch?{query}"), None, Bytes::new()).await?;
        Ok(LineReader::new(response, &self.reach))
    }

    pub async fn put_bundle(&self, manifest: &BundleManifest) -> Result<BundleStatus, Problem> {
        self.send(Method::POST, "/v1/bundles", manifest).await
    }

    pub async fn put_blob(&self, hash: ContentHash, content: Bytes) -> Result<(), Problem> {
        let kind = Some("application/octet-stream");
        let response = self.request(Method::PUT, &format!("/v1/blobs/{hash}"), kind, content).await?;
        self.read(response).await
    }

    pub async fn volumes(&self) -> Result<Vec<VolumeView>, Problem> {
        self.get("/v1/volumes").await
    }

    /// Removes a volume that nobody has, and its files.
    pub async fn delete_volume(&self, volume: &VolumeKey) -> Result<(), Problem> {
        self.change(Method::DELETE, &format!("/v1/volumes/{}", segment(volume)), &()).await
    }

    pub async fn resources(&self) -> Result<ResourcesView, Problem> {
        self.get("/v1/resources").await
    }

    pub async fn namespaces(&self) -> Result<Vec<NamespaceView>, Problem> {
        self.get("/v1/namespaces").await
    }

    pub async fn namespace(&self, namespace: &Name) -> Result<NamespaceView, Problem> {
        self.get(&format!("/v1/namespaces/{namespace}")).await
    }

    /// Makes one that is not there yet.
    pub async fn create_namespace(&self, namespace: &Name, change: &NamespaceChange) -> Result<Accepted, Problem> {
        self.change(Method::PUT, &format!("/v1/namespaces/{namespace}"), change).await
    }

    /// Changes one that is there.
    pub async fn set_namespace(&self, namespace: &Name, change: &NamespaceChange) -> Result<Accepted, Problem> {
        self.change(Method::POST, &format!("/v1/namespaces/{namespace}"), change).await
    }

    pub async fn delete_namespace(&self, namespace: &Name, force: bool) -> Result<Accepted, Problem> {
        self.change(Method::DELETE, &format!("/v1/namespaces/{namespace}?force={force}"), &()).await
    }

    pub async fn secrets(&self) -> Result<Vec<SecretView>, Problem> {
        self.get("/v1/secrets").await
    }

    /// The value; who read it is recorded.
    pub async fn secret(&self, secret: &SecretKey) -> Result<Bytes, Problem> {
        let path = format!("/v1/secrets/{}", segment(secret));
        let response = self.request(Method::GET, &path, None, Bytes::new()).await?;
        let body = response.into_body().collect().await.map_err(|error| self.lost(&error))?;
        Ok(body.to_bytes())
    }

    pub async fn put_secret(&self, secret: &SecretKey, value: Bytes) -> Result<Accepted, Problem> {
        let path = format!("/v1/secrets/{}", segment(secret));
        self.change_with(Method::PUT, &path, "application/octet-stream", value).await
    }

    pub async fn delete_secret(&self, secret: &SecretKey) -> Result<Accepted, Problem> {
        self.change(Method::DELETE, &format!("/v1/secrets/{}", segment(secret)), &()).await
    }

    pub async fn init(&self, init: &Init) -> Result<Became, Problem> {
        self.send(Method::POST, "/v1/constellation/init", init).await
    }

    pub async fn join(&self, join: &Join) -> Result<Became, Problem> {
        self.send(Method::POST, "/v1/constellation/join", join).await
    }

    pub async fn leave(&self, force: bool) -> Result<(), Problem> {
        let query = query(&Removal { force })?;
        self.send(Method::POST, &format!("/v1/constellation/leave?{query}"), &()).await
    }

    pub async fn nodes(&self) -> Result<Vec<NodeView>, Problem> {
        self.get("/v1/nodes").await
    }

    pub async fn survey(&self) -> Result<Survey, Problem> {
        self.get("/v1/survey").await
    }

    pub async fn set_duty(&self, node: NodeId, duty: Duty) -> Result<Accepted, Problem> {
        self.change(Method::PUT, &format!("/v1/nodes/{node}/duty"), &SetDuty { duty }).await
    }

    pub async fn set_taint(&self, node: NodeId, name: &str, taint: &Taint) -> Result<Accepted, Problem> {
        self.change(Method::PUT, &format!("/v1/nodes/{node}/taints/{name}"), taint).await
    }

    pub async fn remove_taint(&self, node: NodeId, name: &str) -> Result<Accepted, Problem> {
        self.change(Method::DELETE, &format!("/v1/nodes/{node}/taints/{name}"), &()).await
    }

    /// Of all nodes of which nothing of their own is said, or of one.
    pub async fn set_overcommit(&self, node: Option<NodeId>, overcommit: &Overcommit) -> Result<Accepted, Problem> {
        self.change(Method::PUT, &overcommit_path(node), overcommit).await
    }

    /// As it is when nothing is said, or as it is for all others.
    pub async fn remove_overcommit(&self, node: Option<NodeId>) -> Result<Accepted, Problem> {
        self.change(Method::DELETE, &overcommit_path(node), &()).await
    }

    pub async fn remove_node(&self, node: NodeId, force: bool) -> Result<Accepted, Problem> {
        let query = query(&Removal { force })?;
        self.change(Method::DELETE, &format!("/v1/nodes/{node}?{query}"), &()).await
    }

    /// A backup, as it comes.
    pub async fn backup(&self) -> Result<ByteReader, Problem> {
        let response = self.request(Method::GET, "/v1/backup", None, Bytes::new()).await?;
        Ok(ByteReader { body: response.into_body(), reach: self.reach.clone() })
    }

    pub async fn invite(&self, invite: &Invite) -> Result<Invitation, Problem> {
        self.change(Method::POST, "/v1/tokens", invite).await
    }

    pub async fn tokens(&self) -> Result<Vec<TokenView>, Problem> {
        self.get("/v1/tokens").await
    }

    /// By the first digits of its id, which are digits: nothing in them needs to be escaped.
    pub async fn revoke_token(&self, id: &str) -> Result<TokenView, Problem> {
        self.change(Method::DELETE, &format!("/v1/tokens/{id}"), &()).await
    }

    pub async fn certificates(&self) -> Result<CertificatesView, Problem> {
        self.get("/v1/certificates").await
    }

    pub async fn rotate_authority(&self) -> Result<CertificatesView, Problem> {
        self.change(Method::POST, "/v1/certificates/rotate", &()).await
    }

    pub async fn rotate_gossip(&self) -> Result<CertificatesView, Problem> {
        self.change(Method::POST, "/v1/gossip-keys/rotate", &()).await
    }

    pub async fn revoke_certificates(&self, node: NodeId) -> Result<CertificatesView, Problem> {
        self.change(Method::DELETE, &format!("/v1/nodes/{node}/certificates"), &()).await
    }

    pub async fn grant(&self, grant: &NewGrant) -> Result<Granted, Problem> {
        self.change(Method::POST, "/v1/grants", grant).await
    }

    pub async fn grants(&self) -> Result<Vec<GrantView>, Problem> {
        self.get("/v1/grants").await
    }

    pub async fn revoke_grant(&self, name: &Name) -> Result<GrantView, Problem> {
        self.change(Method::DELETE, &format!("/v1/grants/{name}"), &()).await
    }

    /// Records after a number; waits until there is one, or `wait_ms` is over.
    pub async fn audit(&self, after: u64, wait_ms: u64) -> Result<AuditView, Problem> {
        let query = query(&After { after, wait_ms, agreed: false })?;
        self.get(&format!("/v1/audit?{query}")).await
    }

    pub async fn shutdown(&self, stars: StarsThen) -> Result<(), Problem> {
        self.send(Method::POST, "/v1/shutdown", &Shutdown { stars }).await
    }

    /// Runs a command within a star; what comes back carries the frames of [`crate::exec`].
    pub async fn exec(
        &self,
        star: StarId,
        command: &ExecCommand,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, Problem> {
        self.upgrade(&format!("/v1/stars/{star}/exec"), PROTOCOL, encode(command)?).await
    }

    /// Copies files within a star, likewise.
    pub async fn copy(
        &self,
        star: StarId,
        copy: &Copy,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, Problem> {
        self.upgrade(&format!("/v1/stars/{star}/copy"), PROTOCOL, encode(copy)?).await
    }

    /// A connection to a port within a star.
    pub async fn dial(
        &self,
        star: StarId,
        port: u16,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, Problem> {
        self.upgrade(&format!("/v1/stars/{star}/ports/{port}"), BYTES, Bytes::new()).await
    }

    async fn upgrade(&self, path: &str, protocol: &str, body: Bytes) -> Result<TokioIo<Upgraded>, Problem> {
        let request = self
            .head(Method::POST, path)
            .header(header::CONTENT_TYPE, JSON)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, protocol);
        let response = self.exchange(request.body(Full::new(body)).map_err(internal)?).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let refusal = self.read::<serde::de::IgnoredAny>(response).await;
            return Err(refusal.err().unwrap_or_else(|| internal("the agent did not take the connection over")));
        }
        let connection = hyper::upgrade::on(response).await.map_err(internal)?;
        Ok(TokioIo::new(connection))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        let response = self.request(Method::GET, path, None, Bytes::new()).await?;
        self.read(response).await
    }

    async fn send<T: DeserializeOwned>(&self, method: Method, path: &str, body: &impl Serialize) -> Result<T, Problem> {
        let response = self.request(method, path, Some(JSON), encode(body)?).await?;
        self.read(response).await
    }

    /// A change of the log: one that an answer does not come to is asked for again, under the same key.
    async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Problem> {
        self.change_with(method, path, JSON, encode(body)?).await
    }

    async fn change_with<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<T, Problem> {
        // Whoever passes a change on does so under the key it came with.
        let key = keyed::current().map_or_else(keyed::random, |once| once.key);
        let mut asking = Asking::new(Instant::now());
        loop {
            let request = self.head(method.clone(), path);
            let request = request.header(header::CONTENT_TYPE, kind).header(keyed::HEADER, key.as_str());
            let request = request.body(Full::new(body.clone())).map_err(internal)?;
            let told = async {
                let connection = self.connection().await?;
                // From here on it may be done, whatever comes of it.
                let told = async { self.whole(self.exchange_over(connection, request).await?).await };
                told.await.map_err(Problem::after_changes)
            };
            let told = told.await;
            let by_agent = told.is_ok();
            let problem = match told.and_then(|(status, bytes)| understood(status, &bytes)) {
                Ok(answer) => return Ok(answer),
                Err(problem) => problem,
            };
            match asking.next(Instant::now(), problem, by_agent) {
                Next::Again => tokio::time::sleep(AGAIN_AFTER).await,
                Next::Tell(problem) => return Err(problem),
            }
        }
    }

    /// One exchange; an answer that is not a success becomes its problem.
    async fn request(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Response<Incoming>, Problem> {
        let mut request = self.head(method, path);
        if let Some(kind) = content_type {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let response = self.exchange(request.body(Full::new(body)).map_err(internal)?).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let refusal = self.read::<serde::de::IgnoredAny>(response).await;
        Err(refusal.err().unwrap_or_else(|| internal("the agent refused without a reason")))
    }

    fn head(&self, method: Method, path: &str) -> request::Builder {
        let request = Request::builder().method(method).uri(path).header(header::HOST, HOST);
        match &self.reach {
            Reach::Context { authorization: Some(value), .. } => request.header(header::AUTHORIZATION, value),
            _ => request,
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Problem> {
        self.exchange_over(self.connection().await?, request).await
    }

    async fn connection(&self) -> Result<Box<dyn Duplex>, Problem> {
        match &self.reach {
            Reach::Folder(data_dir) => Ok(Box::new(socket(data_dir).await?)),
            Reach::Node { connect, .. } | Reach::Context { connect, .. } => Ok(connect().await?.stream),
        }
    }

    async fn exchange_over(
        &self,
        stream: impl Duplex + 'static,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Problem> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.lost(&error))?;
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(|error| self.lost(&error))
    }

    async fn read<T: DeserializeOwned>(&self, response: Response<Incoming>) -> Result<T, Problem> {
        let (status, bytes) = self.whole(response).await?;
        understood(status, &bytes)
    }

    async fn whole(&self, response: Response<Incoming>) -> Result<(StatusCode, Bytes), Problem> {
        let status = response.status();
        let body = http_body_util::Limited::new(response.into_body(), ANSWER_MAX_BYTES);
        let bytes = body.collect().await.map_err(|error| match error.is::<LengthLimitError>() {
            true => internal("the agent's answer is too long"),
            false => self.lost(&*error),
        })?;
        Ok((status, bytes.to_bytes()))
    }

    /// The agent went away in the middle.
    fn lost(&self, error: &dyn std::error::Error) -> Problem {
        let message = format!("{} closed the connection: {error}", self.reach);
        Problem::new(Code::Unavailable, message).help("see what it last said in `agent.log` there")
    }
}

/// What an answer says: what was asked for, or a problem.
fn understood<T: DeserializeOwned>(status: StatusCode, bytes: &[u8]) -> Result<T, Problem> {
    if status.is_success() {
        return serde_json::from_slice(bytes).map_err(internal);
    }
    let not_ours = || internal(format!("the agent answered {status}: {}", String::from_utf8_lossy(bytes)));
    Err(serde_json::from_slice(bytes).unwrap_or_else(|_| not_ours()))
}

async fn socket(data_dir: &Path) -> Result<UnixStream, Problem> {
    let path = socket_path(data_dir);
    UnixStream::connect(&path).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => no_agent(data_dir),
        io::ErrorKind::PermissionDenied if !data_dir.try_exists().unwrap_or(false) => {
            let message = format!("the data folder `{}` cannot be reached: permission denied", data_dir.display());
            Problem::new(Code::DataUnwritable, message).help("choose another with `--data-dir` or `RADS_DATA`")
        }
        io::ErrorKind::PermissionDenied => {
            Problem::new(Code::Forbidden, format!("the agent on `{}` belongs to another user", data_dir.display()))
                .help("use your own data folder (`--data-dir` or `RADS_DATA`), or become its owner")
        }
        _ => Problem::new(Code::NoAgent, format!("cannot reach the agent at `{}`: {error}", path.display())),
    })
}

/// Nobody listens on the folder's socket.
fn no_agent(data_dir: &Path) -> Problem {
    Problem::new(Code::NoAgent, format!("no agent answers on `{}`", data_dir.display()))
        .help("start one with `rads up app.rads` or `rads c agent`, or name its folder with `--data-dir`")
}

/// Log records as they arrive.
pub type LogReader = LineReader<LogRecord>;

/// Records as they arrive, one a line.
#[derive(Debug)]
pub struct LineReader<T> {
    body: Incoming,
    buffer: BytesMut,
    reach: Reach,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> LineReader<T> {
    fn new(response: Response<Incoming>, reach: &Reach) -> Self {
        Self { body: response.into_body(), buffer: BytesMut::new(), reach: reach.clone(), of: PhantomData }
    }

    /// The next record; `None` at the end. May be given up and called again: nothing is lost.
    pub async fn next(&mut self) -> Option<Result<T, Problem>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return Some(serde_json::from_slice(&line).map_err(internal));
            }
            match self.body.frame().await? {
                Ok(frame) => self.buffer.extend(frame.into_data().ok()),
                Err(error) => {
                    let message = format!("{} ended its lines: {error}", self.reach);
                    return Some(Err(Problem::new(Code::Unavailable, message)));
                }
            }
        }
    }
}

/// Bytes as they arrive.
#[derive(Debug)]
pub struct ByteReader {
    body: Incoming,
    reach: Reach,
}

impl ByteReader {
    /// The next of them; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, Problem>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(bytes) => return Some(Ok(bytes)),
                    Err(_) => continue,
                },
                Err(error) => {
                    let message = format!("{} cut its answer short: {error}", self.reach);
                    return Some(Err(
                        Problem::new(Code::Unavailable, message).help("see what it last said in `agent.log` there")
                    ));
                }
            }
        }
    }
}

const JSON: &str = "application/json";
/// Whoever listens on the folder's socket; the protocol wants a name.
const HOST: &str = "agent";

fn encode(body: &impl Serialize) -> Result<Bytes, Problem> {
    serde_json::to_vec(body).map(Bytes::from).map_err(internal)
}

/// A key as one path segment: the `/` of a namespace is escaped.
fn segment(key: &impl std::fmt::Display) -> String {
    key.to_string().replace('/', "%2F")
}

fn overcommit_path(node: Option<NodeId>) -> String {
    node.map_or_else(|| "/v1/overcommit".to_owned(), |node| format!("/v1/nodes/{node}/overcommit"))
}

/// A flat struct as a query string. Only letters, digits, `-`, `_` and `.` pass as they are.
fn query(fields: &impl Serialize) -> Result<String, Problem> {
    let fields = serde_json::to_value(fields).map_err(internal)?;
    let mut text = String::new();
    for (name, value) in fields.as_object().into_iter().flatten() {
        let value = match value {
            serde_json::Value::Null => continue,
            serde_json::Value::String(value) => value.clone(),
            other => other.to_string(),
        };
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => text.push(char::from(byte)),
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    Ok(text)
}

fn internal(error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::Internal, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_leave_out_what_is_not_given_and_escape_the_rest() {
        let which = LogQuery { target: Some("a/b c&d".to_owned()), follow: true, ..LogQuery::default() };
        assert_eq!(query(&which).unwrap(), "follow=true&target=a%2Fb%20c%26d");
    }
}
