//! What an agent can be asked to do: the one seam between the HTTP side and the loop behind it.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use model::{
    AppKey, AppSpec, BundleManifest, Code, ContentHash, Duty, LimitsChange, Name, NamespaceChange, NodeId, Overcommit,
    Problem, Rights, RolloutTurn, SecretKey, SecretView, ServiceKey, StarId, Taint, Verb, VolumeKey, access,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::certs::{CertificatesView, Invite, TokenView};
use crate::constellation::{Became, Init, Invitation, Join, NodeView, Survey};
use crate::grants::{AuditView, GrantView, Granted, NewGrant};
use crate::types::{
    Accepted, After, AppView, BundleStatus, Copy, Events, ExecCommand, ExplainView, Forecast, Index, Inspection,
    LogQuery, LogRecord, MoveView, NamespaceView, Passed, ResourcesView, RestoreSnapshot, RunsView, ServiceView,
    Shutdown, SnapshotTaken, SnapshotView, StarStats, StarTurn, StarView, Status, TakeSnapshot, TerminalSize, Version,
    VersionView, VolumeView,
};
use crate::watch::{WatchQuery, WatchStream};

/// What a request comes to, in time. Dropping it gives the request up.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Problem>> + Send + 'a>>;

/// Lines as they come; ends when there are no more, or the agent ends.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<LogRecord, Problem>> + Send>>;

/// Bytes as they come. One that ends with a problem was cut short.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Problem>> + Send>>;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// By the kernel's word, on the machine where the request was made; of no meaning with a grant.
    pub uid: u32,
    /// The node whose agent took the request and passed it on; nothing when it was made here.
    pub from: Option<NodeId>,
    /// The grant by which they are known; nothing for a user of a machine.
    pub grant: Option<Name>,
    /// The star that asks, by the access of its service.
    pub star: Option<(StarId, ServiceKey)>,
    /// Where the connection came from, when it came over the network.
    pub address: Option<IpAddr>,
    pub rights: Arc<Rights>,
}

impl Caller {
    /// A user of this machine who may use the agent's socket: root, or the data folder's owner.
    pub fn owner(uid: u32) -> Self {
        Self { uid, from: None, grant: None, star: None, address: None, rights: Arc::new(Rights::EVERYTHING) }
    }

    /// Who is known by nothing, and may nothing.
    pub fn nobody() -> Self {
        Self { uid: u32::MAX, from: None, grant: None, star: None, address: None, rights: Arc::new(Rights::nothing()) }
    }

    /// A star, by the access of its service.
    pub fn star(star: StarId, service: ServiceKey, rights: Rights) -> Self {
        Self { star: Some((star, service)), rights: Arc::new(rights), ..Self::nobody() }
    }

    /// Who they are, in words.
    pub fn name(&self) -> String {
        if let Some((_, service)) = &self.star {
            return format!("service `{service}`");
        }
        match (&self.grant, self.from) {
            (Some(name), _) => format!("`{name}`"),
            (None, Some(node)) => format!("a user of node `{node}`"),
            (None, None) => format!("uid {}", self.uid),
        }
    }

    pub fn sees(&self, namespace: &Name) -> bool {
        self.rights.may(Verb::See, access::Place::In(namespace)).is_ok()
    }

    /// # Errors
    /// `Forbidden`, in words.
    pub fn check(&self, verb: Verb, place: access::Place<'_>) -> Result<(), Problem> {
        match &self.star {
            Some((_, service)) if !verb.is_for_stars() => Err(access::not_for_stars(service, verb)),
            Some((_, service)) => {
                let denied = self.rights.may(verb, place);
                denied.map_err(|denied| denied.problem_of_star(service, &self.rights, verb, place))
            }
            None => {
                self.rights.may(verb, place).map_err(|denied| denied.problem(&self.name(), &self.rights, verb, place))
            }
        }
    }
}

/// Bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What is with one agent alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Star(StarId),
    Volume(VolumeKey),
}

/// A connection to the API of another agent.
pub struct Road {
    /// The name of its node.
    pub node: String,
    pub stream: Box<dyn Duplex>,
}

/// Takes a connection over, to its end.
pub type Talk = Box<dyn FnOnce(Box<dyn Duplex>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// A command that runs within a star.
pub struct Exec {
    /// Dropped at the end of the input.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    pub stderr: Box<dyn AsyncRead + Send + Unpin>,
    /// Tells its terminal of a new size; `None` when it has none.
    pub resize: Option<Box<dyn Fn(TerminalSize) + Send>>,
    /// Its exit code.
    pub exit: Answer<'static, i32>,
}

/// Every request of the API. The names are those of the routes.
pub trait Control: Send + Sync + 'static {
    /// The same, for what this caller asks: changes are recorded with who asked for them.
    fn by(&self, caller: Caller) -> Arc<dyn Control>;
    /// Somebody was refused for lack of rights.
    fn denied(&self, _verb: Verb, _what: String) {}
    /// The namespace of a star; nothing when it is not known.
    fn namespace_of(&self, star: StarId) -> Answer<'_, Option<Name>>;

    fn version(&self) -> Version;
    fn status(&self) -> Answer<'_, Status>;
    /// Answers when the log has gone beyond `after`, or the time is over.
    fn index(&self, after: After) -> Answer<'_, Index>;
    fn events(&self, after: After) -> Answer<'_, Events>;

    fn watch(&self, _: WatchQuery) -> Answer<'_, WatchStream> {
        not_here()
    }

    /// Lets a program talk as one of a namespace.
    fn talk(&self, _: Name) -> Answer<'_, Talk> {
        not_here()
    }

    fn apps(&self) -> Answer<'_, Vec<AppView>>;
    fn app(&self, app: AppKey) -> Answer<'_, AppView>;
    /// Answers once the change is on disk; the stars follow on their own.
    fn put_app(&self, spec: AppSpec, base: Option<u64>) -> Answer<'_, Accepted>;
    /// What putting it would come to; nothing is changed.
    fn forecast(&self, spec: AppSpec, base: Option<u64>) -> Answer<'_, Forecast>;
    fn remove_app(&self, app: AppKey) -> Answer<'_, Accepted>;

    fn services(&self) -> Answer<'_, Vec<ServiceView>>;
    fn service(&self, service: ServiceKey) -> Answer<'_, ServiceView>;
    /// Why its stars are where they are.
    fn moves(&self) -> Answer<'_, Vec<MoveView>>;
    fn explain(&self, service: ServiceKey) -> Answer<'_, ExplainView>;
    /// Of all its stars, wherever they are; of those here when another agent asks.
    fn service_stats(&self, service: ServiceKey, caller: Caller) -> Answer<'_, Vec<StarStats>>;
    /// What came in on this node for a service, by star.
    fn passed(&self, service: ServiceKey) -> Answer<'_, Vec<Passed>>;
    fn limit(&self, service: ServiceKey, change: LimitsChange) -> Answer<'_, Accepted>;
    fn scale(&self, service: ServiceKey, instances: u32) -> Answer<'_, Accepted>;
    fn pause(&self, service: ServiceKey) -> Answer<'_, Accepted>;
    fn resume(&self, service: ServiceKey) -> Answer<'_, Accepted>;
    fn restart(&self, service: ServiceKey) -> Answer<'_, Accepted>;
    /// Those of a job.
    fn runs(&self, service: ServiceKey) -> Answer<'_, RunsView>;
    /// Begins one.
    fn run(&self, service: ServiceKey) -> Answer<'_, Accepted>;
    /// Those that are kept, the present one last.
    fn versions(&self, service: ServiceKey) -> Answer<'_, Vec<VersionView>>;
    fn roll_back(&self, service: ServiceKey, version: Option<u64>) -> Answer<'_, Accepted>;
    fn turn_rollout(&self, service: ServiceKey, turn: RolloutTurn) -> Answer<'_, Accepted>;
    fn stop(&self, service: ServiceKey) -> Answer<'_, Accepted>;
    fn start(&self, service: ServiceKey) -> Answer<'_, Accepted>;

    /// Takes a service out of its app.
    fn remove_service(&self, service: ServiceKey) -> Answer<'_, Accepted>;
    fn turn(&self, service: ServiceKey, ordinal: u32, turn: StarTurn) -> Answer<'_, Accepted>;

    fn stars(&self) -> Answer<'_, Vec<StarView>>;
    fn inspect(&self, star: StarId) -> Answer<'_, Inspection>;
    fn star(&self, star: StarId) -> Answer<'_, StarView>;
    fn star_stats(&self, star: StarId, caller: Caller) -> Answer<'_, StarStats>;
    fn exec(&self, star: StarId, command: ExecCommand, caller: Caller) -> Answer<'_, Exec>;
    /// Copies files within the star's walls: a tar stream by its standard output or input.
    fn copy(&self, star: StarId, copy: Copy, caller: Caller) -> Answer<'_, Exec>;
    /// A connection to a port within the star.
    fn dial(&self, star: StarId, port: u16) -> Answer<'_, TcpStream>;
    /// Of all stars that are meant, wherever they are; of those here when another agent asks.
    fn logs(&self, query: LogQuery, caller: Caller) -> Answer<'_, LogStream>;
    /// The way to the agent that something is with; nothing when that is this one.
    fn road(&self, _to: Place, _caller: Caller) -> Answer<'_, Option<Road>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Keeps the files of a service's volumes and stars as they are at a moment when nothing writes to them.
    fn take_snapshot(&self, service: ServiceKey, take: TakeSnapshot) -> Answer<'_, SnapshotTaken>;
    fn snapshots(&self) -> Answer<'_, Vec<SnapshotView>>;
    fn snapshot(&self, name: Name) -> Answer<'_, SnapshotView>;
    fn delete_snapshot(&self, name: Name) -> Answer<'_, ()>;
    /// Refused while a star could use the volumes.
    fn restore_snapshot(&self, name: Name, restore: RestoreSnapshot) -> Answer<'_, SnapshotView>;

    /// Of all nodes, with what they hold when their nodes say so in time; of this one when another agent asks.
    fn volumes(&self, caller: Caller) -> Answer<'_, Vec<VolumeView>>;
    /// Removes the files of a volume that nobody has.
    fn delete_volume(&self, volume: VolumeKey) -> Answer<'_, ()>;

    fn namespaces(&self) -> Answer<'_, Vec<NamespaceView>>;
    fn namespace(&self, namespace: Name) -> Answer<'_, NamespaceView>;
    /// With `new` it must not be there yet, without it must be.
    fn set_namespace(&self, namespace: Name, change: NamespaceChange, new: bool) -> Answer<'_, Accepted>;
    /// Refused while there is something in it that would be gone, unless it is forced.
    fn delete_namespace(&self, namespace: Name, force: bool) -> Answer<'_, Accepted>;

    /// Stores a bundle whose files are all there; says which are not.
    fn put_bundle(&self, manifest: BundleManifest) -> Answer<'_, BundleStatus>;
    /// Stores one file; refused when its content does not have this hash.
    fn put_blob(&self, hash: ContentHash, content: Bytes) -> Answer<'_, ()>;

    /// Names, never values.
    fn secrets(&self) -> Answer<'_, Vec<SecretView>>;
    /// A value. Answers once it is on disk who read it.
    fn secret(&self, secret: SecretKey, caller: Caller) -> Answer<'_, Bytes>;
    /// Answers once the value is on disk, sealed. Stars that run keep the value they have.
    fn put_secret(&self, secret: SecretKey, value: Bytes, caller: Caller) -> Answer<'_, Accepted>;
    /// Refused while a service names it.
    fn delete_secret(&self, secret: SecretKey) -> Answer<'_, Accepted>;

    /// Founds a constellation of this machine alone. Answers first, then the agent begins anew as its first node.
    fn init(&self, _: Init) -> Answer<'_, Became> {
        not_here()
    }
    /// Takes this machine, on which nothing may run, into one. Answers first, then the agent begins anew as a node of it.
    fn join(&self, _: Join) -> Answer<'_, Became> {
        not_here()
    }
    /// Takes this machine out. Answers first, then the agent begins anew, alone. Refused while volumes lie here, unless it is
    /// forced.
    fn leave(&self, _force: bool) -> Answer<'_, ()> {
        not_here()
    }
    fn nodes(&self) -> Answer<'_, Vec<NodeView>>;
    /// Of all nodes, with what they use when they say so in time; of this one when another agent asks.
    fn resources(&self, caller: Caller) -> Answer<'_, ResourcesView>;
    /// Tries every other node, now.
    fn survey(&self) -> Answer<'_, Survey> {
        not_here()
    }
    fn set_duty(&self, node: NodeId, duty: Duty) -> Answer<'_, Accepted>;
    /// `None` takes it back.
    fn set_taint(&self, node: NodeId, name: String, taint: Option<Taint>) -> Answer<'_, Accepted>;
    /// Of all nodes of which nothing of their own is said, or of one; `None` takes it back.
    fn set_overcommit(&self, node: Option<NodeId>, overcommit: Option<Overcommit>) -> Answer<'_, Accepted>;
    /// Refused while the node is there, unless it is forced.
    fn remove_node(&self, node: NodeId, force: bool) -> Answer<'_, Accepted>;

    /// Everything a new first node needs to be what the constellation is, as one file.
    fn backup(&self) -> Answer<'_, ByteStream>;
    /// Makes a token that admits machines.
    fn invite(&self, _: Invite) -> Answer<'_, Invitation> {
        not_here()
    }
    fn tokens(&self) -> Answer<'_, Vec<TokenView>> {
        not_here()
    }
    /// By the first digits of its id.
    fn revoke_token(&self, _: String) -> Answer<'_, TokenView> {
        not_here()
    }
    fn certificates(&self) -> Answer<'_, CertificatesView> {
        not_here()
    }
    /// Begins to change the authority; the rest follows.
    fn rotate_authority(&self) -> Answer<'_, CertificatesView> {
        not_here()
    }
    /// Begins to change the key that gossip is sealed with; the rest follows.
    fn rotate_gossip(&self) -> Answer<'_, CertificatesView> {
        not_here()
    }
    /// Shuts a node out.
    fn revoke_certificates(&self, _: NodeId) -> Answer<'_, CertificatesView> {
        not_here()
    }

    /// Lets somebody use the constellation from outside.
    fn grant(&self, _: NewGrant) -> Answer<'_, Granted> {
        not_here()
    }
    fn grants(&self) -> Answer<'_, Vec<GrantView>> {
        not_here()
    }
    /// Ends a grant, and the connections by it.
    fn revoke_grant(&self, _: Name) -> Answer<'_, GrantView> {
        not_here()
    }
    /// Who did what after a record, oldest first.
    fn audit(&self, _: After) -> Answer<'_, AuditView> {
        not_here()
    }

    /// Answers first, then ends the agent.
    fn shutdown(&self, shutdown: Shutdown) -> Answer<'_, ()>;
}

/// What an agent says that can be no node of a constellation.
fn not_here<T: Send + 'static>() -> Answer<'static, T> {
    let problem = Problem::new(Code::Unsupported, "this agent can be no node of a constellation");
    Box::pin(std::future::ready(Err(problem.help("nothing was changed"))))
}
