//! The API's requests: changes and looks go to the loop; files, counters and commands are served beside it.

use std::collections::BTreeSet;
use std::io;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::{
    Accepted, After, Answer, AppView, AuditView, Became, BundleStatus, ByteStream, Caller, CertificatesView, Control,
    Copy, Events, Exec, ExecCommand, ExplainView, Forecast, Former, GrantView, Granted, Index, Init, Inspection,
    Invitation, Invite, Join, LogQuery, LogStream, MachineView, MoveView, NamespaceView, NewGrant, NodeView, Passed,
    Place, ResourcesView, RestoreSnapshot, Road, RunsView, ServiceView, Shutdown, SnapshotTaken, SnapshotView,
    StarStats, StarTurn, StarView, StarsThen, Status, Survey, TakeSnapshot, Talk, TokenView, Version, VersionView,
    VolumeView, WAIT_MAX_MS, WatchQuery, WatchStream,
};
use bytes::Bytes;
use isolate::parcel::{Copying, Naming};
use model::{
    AppKey, AppSpec, BundleManifest, Code, ContentHash, Duty, LimitsChange, Name, NamespaceChange, Network, NodeFacts,
    NodeId, Overcommit, Problem, RolloutTurn, SecretChange, SecretKey, SecretView, ServiceKey, StarId, StarPhase,
    Taint, Verb, VolumeKey, WallTime,
};
use node::{Node, Request};
use proxy::Proxy;
use state::{Author, Deed, Outcome, State};
use store::bundles::COLLECT_AFTER;
use store::{Answers, Bundles, Roots, Secrets, Snapshots};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio::time::timeout;

use crate::beside::beside;
use crate::clock::{self, Clock};
use crate::constellation::far_logs::FarLogs;
use crate::constellation::forward::Forward;
use crate::constellation::registrar::Registrar;
use crate::constellation::shared::Goes;
use crate::constellation::vault::Vault;
use crate::constellation::{Carrier, Mesh, Shared, Standpoint, backup, entry, grants, invitations, survey};
use crate::denials::Denials;
use crate::disk_use::DiskUse;
use crate::doors::{Doors, Need};
use crate::link::Link;
use crate::logs::{Asked, Sources};
pub(crate) use crate::looker::{Looker, author};
use crate::main_loop::{Incoming, Seen};
use crate::memories::Memories;
use crate::orders::Values;
use crate::snapshots::{self, Darkroom};
use crate::talk::{self, Talks};
use crate::unknown::{no_app, no_service, no_star};
use crate::watches::Watches;
use crate::{exec, inspect, logs};

/// A door is on this machine; when it does not open within this, it will not.
const DIAL_FOR: Duration = Duration::from_secs(5);

/// Longest wait for a star to go on from its memory: gigabytes are read from a disk.
const GO_ON_FOR: Duration = Duration::from_secs(600);

/// A running agent, for whoever asks.
#[derive(Clone)]
pub(crate) struct Remote {
    parts: Arc<Parts>,
    /// Nobody in particular where it is the agent itself.
    pub(crate) caller: Option<Caller>,
}

impl Deref for Remote {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// What the API side holds of a running agent.
pub(crate) struct Parts {
    pub(crate) node: NodeId,
    pub(crate) denials: Denials,
    pub(crate) ask: mpsc::Sender<Incoming>,
    pub(crate) seen: watch::Receiver<Seen>,
    pub(crate) watches: Watches,
    pub(crate) talks: Talks,
    /// Room for programs that talk.
    pub(crate) talkers: Arc<Semaphore>,
    pub(crate) clock: Clock,
    /// Becomes true when the agent is about to end.
    pub(crate) leaving: watch::Receiver<bool>,
    pub(crate) shutdown: mpsc::Sender<StarsThen>,
    pub(crate) link: Link,
    pub(crate) proxy: Arc<Proxy<Mesh>>,
    pub(crate) bundles: Arc<Bundles>,
    pub(crate) roots: Arc<Roots>,
    pub(crate) secrets: Arc<Secrets>,
    /// Held from the look whether a secret is there, or in use, until that look has become a fact.
    pub(crate) secrets_settle: Mutex<()>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) memories: Arc<Memories>,
    /// What was asked for under a key, beside the log.
    pub(crate) answers: Arc<Answers>,
    pub(crate) data_dir: PathBuf,
    pub(crate) disk: Arc<DiskUse>,
    pub(crate) doors: Doors,
    /// How to ask other nodes; nothing on a machine that is alone.
    pub(crate) far: Option<Forward>,
    /// Files of apps on other nodes, likewise.
    pub(crate) carrier: Option<Carrier>,
    /// Secrets of a constellation, likewise.
    pub(crate) vault: Option<Vault>,
    pub(crate) started: WallTime,
    pub(crate) background: bool,
    pub(crate) is_node: bool,
    /// Its part in a constellation, if it has one.
    pub(crate) standpoint: Option<Standpoint>,
    /// The constellation that let go of the machine, until somebody here has taken note.
    pub(crate) former: std::sync::Mutex<Option<Former>>,
    /// What the machine says of itself.
    pub(crate) facts: NodeFacts,
    /// Told when the agent is to begin anew.
    pub(crate) again: mpsc::Sender<()>,
}

impl Remote {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts), caller: None }
    }

    /// Who asks, as it is recorded.
    pub(crate) fn author(&self) -> Author {
        match &self.caller {
            Some(caller) => author(caller, self.node),
            None => Author::agent(self.node),
        }
    }

    /// Records what is no change of the state, before it is done.
    pub(crate) async fn note(&self, verb: Verb, what: String) -> Result<(), Problem> {
        let deed = Deed { verb, what, outcome: Outcome::Done };
        self.looker().note(self.author(), deed).await
    }

    /// What lets machines in, for whoever asks.
    ///
    /// # Errors
    /// Says where it is, if not here.
    async fn registrar(&self) -> Result<Registrar<Shared>, Problem> {
        let standpoint = self.standpoint()?;
        match &standpoint.registrar {
            Some(registrar) => Ok(registrar.by(self.author())),
            None => Err(self.looker().look(|node| invitations::not_here(node.state())).await?),
        }
    }

    /// What the state shows of who may come in and is believed.
    async fn of_members<T: Send + 'static>(
        &self,
        show: fn(&State, WallTime) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        self.standpoint()?;
        self.looker().look(move |node| show(node.state(), clock::wall())).await?
    }

    pub(crate) fn looker(&self) -> Looker {
        Looker { ask: self.ask.clone() }
    }

    fn values(&self) -> Values {
        match &self.vault {
            Some(vault) => Values::Shared(vault.clone()),
            None => Values::Alone(Arc::clone(&self.secrets)),
        }
    }

    pub(crate) fn darkroom(&self) -> Darkroom {
        let (looker, snapshots) = (self.looker(), Arc::clone(&self.snapshots));
        let (roots, data_dir) = (Arc::clone(&self.roots), self.data_dir.clone());
        let disk = self.seen.borrow().nursery.as_ref().map(|(_, walls)| walls.disk.clone());
        Darkroom { looker, snapshots, link: self.link.clone(), roots, data_dir, disk }
    }

    /// Starts a service whose star goes on from a memory. If it does not, the service is stopped again.
    pub(crate) async fn go_on(&self, service: &ServiceKey, memory: isolate::memory::Memory) -> Result<(), Problem> {
        let outcome = self.memories.give(service.clone(), memory);
        let started = self.change(Request::StartService { service: service.clone() }).await;
        let outcome = match started {
            Ok(_) => timeout(GO_ON_FOR, outcome).await,
            Err(problem) => {
                self.memories.take_back(service);
                return Err(problem);
            }
        };
        self.memories.take_back(service);
        let why = match outcome {
            Ok(Ok(Ok(_star))) => return Ok(()),
            Ok(Ok(Err(reason))) => reason,
            Ok(Err(_)) | Err(_) => "no star came for its memory".to_owned(),
        };
        // It must not begin anew unasked.
        let stopped = self.change(Request::StopService { service: service.clone() }).await;
        let problem = Problem::new(Code::StartFailed, format!("service `{service}` does not go on: {why}"));
        stopped.map(drop)?;
        Err(problem.help("its volumes are those of the snapshot; `rads c start` begins anew"))
    }

    async fn check_alone(&self) -> Result<(), Problem> {
        let cluster = self.looker().look(|node| node.state().cluster.clone()).await?;
        match cluster {
            None => Ok(()),
            Some(cluster) => {
                let message = format!("this machine is in constellation `{cluster}` already");
                Err(Problem::new(Code::AlreadyExists, message).help("`rads c leave` takes it out"))
            }
        }
    }

    /// The agent executes itself again once this request is answered.
    fn begin_anew(&self) {
        // Full means that it is about to.
        let _ = self.again.try_send(());
    }

    /// A change, once if whoever asked chose a key for it.
    pub(crate) fn change(&self, request: Request) -> impl Future<Output = Result<Accepted, Problem>> + use<> {
        let changed = self.looker().change_once(self.author(), request);
        async { changed.await.map(|reply| Accepted { index: reply.index }) }
    }

    /// What became of the change that is asked for here, if it was made under its key before.
    pub(crate) async fn done(&self) -> Result<Option<Accepted>, Problem> {
        let Some(once) = api::keyed::current() else { return Ok(None) };
        let outcome = self.looker().look(move |node| node.state().keys.outcome(&once)).await?;
        outcome.transpose().map(|index| index.map(|index| Accepted { index }))
    }

    /// A change of what runs, after which some files may be wanted no more.
    pub(crate) async fn change_apps(&self, request: Request) -> Result<Accepted, Problem> {
        let accepted = self.change(request).await?;
        let wanted = |node: &Node| (node.state().bundles(), node.state().services.keys().cloned().collect());
        if let Ok((keep, services)) = self.looker().look(wanted).await {
            let (bundles, roots) = (Arc::clone(&self.bundles), Arc::clone(&self.roots));
            let (snapshots, services): (_, BTreeSet<ServiceKey>) = (Arc::clone(&self.snapshots), services);
            // Nobody waits for it, and what could not be removed now is tried again after the next change.
            tokio::task::spawn_blocking(move || {
                // Another service of the name of one that is gone is not it.
                let left = snapshots.left_stopped().into_iter().map(|left| left.service);
                left.filter(|left| !services.contains(left)).for_each(|left| snapshots.forget_stopped(&left));
                let collected = bundles.collect(&keep).and_then(|_| roots.collect(&keep, COLLECT_AFTER));
                if let Err(problem) = collected {
                    tracing::warn!(%problem, "old bundles not removed");
                }
            });
        }
        Ok(accepted)
    }

    /// Waits until the log has gone beyond `after`, the agent ends or the time is over.
    async fn newer(&self, after: After) -> u64 {
        let (mut seen, mut leaving) = (self.seen.clone(), self.leaving.clone());
        let wait = Duration::from_millis(after.wait_ms.min(WAIT_MAX_MS));
        let moved = async {
            tokio::select! {
                _ = seen.wait_for(|seen| seen.index > after.after) => {}
                _ = leaving.wait_for(|leaving| *leaving) => {}
            }
        };
        // Whatever ended the wait, the answer is the index now.
        let _ = timeout(wait, moved).await;
        self.seen.borrow().index
    }

    async fn service_of(&self, service: ServiceKey) -> Result<ServiceView, Problem> {
        let name = service.clone();
        self.looker().look(move |node| node.service_view(&service)).await?.ok_or_else(|| no_service(&name))
    }

    async fn star_of(&self, star: StarId) -> Result<StarView, Problem> {
        self.looker().look(move |node| node.star_view(star)).await?.ok_or_else(|| no_star(star))
    }

    /// A star within which something can be done now.
    async fn running(&self, star: StarId) -> Result<StarView, Problem> {
        let view = self.star_of(star).await?;
        let not_now = |help: String| {
            let message = format!("star `{}` does not run: it is {}", view.name, view.phase);
            Err(Problem::new(Code::Conflict, message).help(help))
        };
        match view.phase {
            StarPhase::Assigned | StarPhase::Ended => not_now("see `rads c list` for those that do".to_owned()),
            StarPhase::Paused => not_now(format!("`rads c resume {}` lets it go on", view.service)),
            _ => Ok(view),
        }
    }
}

impl Control for Remote {
    fn by(&self, caller: Caller) -> Arc<dyn Control> {
        Arc::new(Self { parts: Arc::clone(&self.parts), caller: Some(caller) })
    }

    fn denied(&self, verb: Verb, what: String) {
        let author = self.author();
        self.denials.note(&self.looker(), author, verb, what);
    }

    fn namespace_of(&self, star: StarId) -> Answer<'_, Option<Name>> {
        Box::pin(async move {
            let of = move |node: &Node| node.state().stars.get(&star).map(|record| record.service.namespace.clone());
            self.looker().look(of).await
        })
    }

    fn version(&self) -> Version {
        Version {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api: api::API_VERSION,
            pid: std::process::id(),
            data_dir: self.data_dir.display().to_string(),
            started: self.started,
            background: self.background,
            is_node: self.is_node,
        }
    }

    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async move {
            let walls = self.seen.borrow().nursery.clone().map(|(pid, walls)| inspect::walls_view(pid, walls));
            let node = self.looker().look(|node| node.status_view()).await?;
            let (agent, former) = (self.version(), self.former());
            Ok(Status { agent, node, walls, agent_memory: inspect::resident_bytes(), former })
        })
    }

    fn index(&self, after: After) -> Answer<'_, Index> {
        Box::pin(async move {
            if let Some(Standpoint { shared, .. }) = self.standpoint.as_ref().filter(|_| after.agreed) {
                let index = shared.read_index().await?;
                // Nothing is written by who only waits.
                shared.applied(index).await.map_err(|problem| Problem { changed: false, ..problem })?;
            }
            if let Some(former) = self.former().filter(|_| after.agreed) {
                // Whoever is about to change something means the constellation.
                return Err(former.alone());
            }
            Ok(Index { index: self.newer(after).await })
        })
    }

    fn events(&self, after: After) -> Answer<'_, Events> {
        Box::pin(async move {
            self.newer(after).await;
            let after = after.after;
            self.looker().look(move |node| Events { index: node.state().index, events: node.events_view(after) }).await
        })
    }

    fn watch(&self, query: WatchQuery) -> Answer<'_, WatchStream> {
        Box::pin(self.watches.watch(query, self.leaving.clone()))
    }

    fn talk(&self, namespace: Name) -> Answer<'_, Talk> {
        Box::pin(std::future::ready(talk::of_user(self, namespace)))
    }

    fn apps(&self) -> Answer<'_, Vec<AppView>> {
        Box::pin(async move { self.looker().look(|node| node.app_views()).await })
    }

    fn app(&self, app: AppKey) -> Answer<'_, AppView> {
        Box::pin(async move {
            let name = app.clone();
            self.looker().look(move |node| node.app_view(&app)).await?.ok_or_else(|| no_app(&name))
        })
    }

    fn put_app(&self, spec: AppSpec, base: Option<u64>) -> Answer<'_, Accepted> {
        Box::pin(self.put(spec, base))
    }

    fn forecast(&self, spec: AppSpec, base: Option<u64>) -> Answer<'_, Forecast> {
        Box::pin(self.forecast_of(spec, base))
    }

    fn remove_app(&self, app: AppKey) -> Answer<'_, Accepted> {
        Box::pin(self.change_apps(Request::RemoveApp { app }))
    }

    fn services(&self) -> Answer<'_, Vec<ServiceView>> {
        Box::pin(async move { self.looker().look(|node| node.service_views()).await })
    }

    fn service(&self, service: ServiceKey) -> Answer<'_, ServiceView> {
        Box::pin(self.service_of(service))
    }

    fn moves(&self) -> Answer<'_, Vec<MoveView>> {
        Box::pin(async move { self.looker().look(|node| node.moves()).await })
    }

    fn explain(&self, service: ServiceKey) -> Answer<'_, ExplainView> {
        Box::pin(async move {
            let name = service.clone();
            self.looker().look(move |node| node.explain(&service)).await?.ok_or_else(|| no_service(&name))
        })
    }

    fn service_stats(&self, service: ServiceKey, caller: Caller) -> Answer<'_, Vec<StarStats>> {
        Box::pin(async move {
            self.service_of(service.clone()).await?;
            self.stats_of_service(service, caller).await
        })
    }

    fn passed(&self, service: ServiceKey) -> Answer<'_, Vec<Passed>> {
        Box::pin(async move {
            self.service_of(service.clone()).await?;
            Ok(self.passed_here(&service))
        })
    }

    fn limit(&self, service: ServiceKey, change: LimitsChange) -> Answer<'_, Accepted> {
        Box::pin(self.change(Request::Limit { service, change: Box::new(change) }))
    }

    fn scale(&self, service: ServiceKey, instances: u32) -> Answer<'_, Accepted> {
        Box::pin(self.change(Request::Scale { service, instances }))
    }

    fn pause(&self, service: ServiceKey) -> Answer<'_, Accepted> {
        Box::pin(self.change(Request::Pause { service }))
    }

    fn resume(&self, service: ServiceKey) -> Answer<'_, Accepted> {
        Box::pin(self.change(Request::Resume { service }))
    }

    fn runs(&self, service: ServiceKey) -> Answer<'_, RunsView> {
        Box::pin(async move {
            let (name, now) = (service.clone(), crate::clock::wall());
            self.looker().look(move |node| node.runs_view(&service, now)).await?.ok_or_else(|| no_service(&name))?
        })
    }

    fn run(&self, service: ServiceKey) -> Answer<'_, Accepted> {
        Box::pin(self.change(Request::RunJob { service }))
    }

    fn versions(&self, service: ServiceKey) -> Answer<'_, Vec<VersionView>> {
        Box::pin(async move {
            let name = service.clone();
            let versions = self.looker().look(move |node| node.version_views(&service)).await?;
            versions.ok_or_else(|| no_service(&name))
        })
    }

    fn roll_back(&self, service: ServiceKey, version: Option<u64>) -> Answer<'_, Accepted> {
        Box::pin(self.change(Request::Rollback { service, version }))
    }

    fn turn_rollout(&self, service: ServiceKey, turn: RolloutTurn) -> Answer<'_, Accepted> {
        Box::pin(self.change(Request::TurnRollout { service, turn }))
    }

    fn restart(&self, service: ServiceKey) -> Answer<'_, Accepted> {
        Box::pin(self.change(Request::Restart { service }))
    }

    fn stop(&self, service: ServiceKey) -> Answer<'_, Accepted> {
        Box::pin(async move {
            let key = service.clone();
            let stopped = move |node: &Node| node.state().services.get(&key).is_some_and(|record| record.stopped);
            if self.looker().look(stopped).await? {
                // Whatever stopped it before, it is to stay so.
                self.snapshots.forget_stopped(&service);
            }
            self.change(Request::StopService { service }).await
        })
    }

    fn start(&self, service: ServiceKey) -> Answer<'_, Accepted> {
        Box::pin(async move {
            let accepted = self.change(Request::StartService { service: service.clone() }).await?;
            self.snapshots.forget_stopped(&service);
            Ok(accepted)
        })
    }

    fn remove_service(&self, service: ServiceKey) -> Answer<'_, Accepted> {
        Box::pin(self.change_apps(Request::RemoveService { service }))
    }

    fn turn(&self, service: ServiceKey, ordinal: u32, turn: StarTurn) -> Answer<'_, Accepted> {
        Box::pin(self.change(match turn {
            StarTurn::Stop => Request::StopStar { service, ordinal },
            StarTurn::Start => Request::StartStar { service, ordinal },
            StarTurn::Restart => Request::RestartStar { service, ordinal },
            StarTurn::Move => Request::MoveStar { service, ordinal },
        }))
    }

    fn inspect(&self, star: StarId) -> Answer<'_, Inspection> {
        Box::pin(async move {
            let detail = self.looker().look(move |node| node.star_detail(star)).await?.ok_or_else(|| no_star(star))?;
            let walls = self.seen.borrow().nursery.clone().map(|(pid, walls)| inspect::walls_view(pid, walls));
            let folder = self.data_dir.clone();
            let look = move || {
                let files = isolate::log::files(&isolate::place::star(&folder, star));
                let files = files.into_iter().filter(|file| file.exists()).map(|file| file.display().to_string());
                // A star that is being made, or has just ended, is no host's concern yet or any more.
                Ok((isolate::inspect(&folder, star).unwrap_or_default().map(inspect::host_view), files.collect()))
            };
            let (host, log_files) = beside(look).await?;
            let not_enforced = walls.as_ref().map(inspect::not_enforced).unwrap_or_default();
            Ok(Inspection { detail, host, not_enforced, log_files })
        })
    }

    fn stars(&self) -> Answer<'_, Vec<StarView>> {
        Box::pin(async move { self.looker().look(|node| node.star_views()).await })
    }

    fn star(&self, star: StarId) -> Answer<'_, StarView> {
        Box::pin(self.star_of(star))
    }

    fn star_stats(&self, star: StarId, caller: Caller) -> Answer<'_, StarStats> {
        Box::pin(async move {
            let star = self.star_of(star).await?;
            self.stats_of(star, caller).await
        })
    }

    fn road(&self, to: Place, caller: Caller) -> Answer<'_, Option<Road>> {
        Box::pin(async move {
            let Some(far) = &self.far else { return Ok(None) };
            let home = move |node: &Node| match to {
                Place::Star(star) => node.state().stars.get(&star).map(|record| record.node),
                Place::Volume(volume) => node.state().home_of(&volume),
            };
            match self.looker().look(home).await?.filter(|node| *node != far.me()) {
                Some(node) => far.road(node, caller).await.map(Some),
                None => Ok(None),
            }
        })
    }

    fn exec(&self, star: StarId, command: ExecCommand, _: Caller) -> Answer<'_, Exec> {
        Box::pin(async move {
            self.running(star).await?;
            self.note_way_in(star, &format!("run `{}`", command.argv.join(" "))).await?;
            let record = self.looker().look(move |node| node.state().stars.get(&star).cloned()).await?;
            let record = record.ok_or_else(|| no_star(star))?;
            let (environment, grace_ms) = (self.values().environment(&record).await, record.template.grace_ms);
            exec::start(self.link.clone(), star, Duration::from_millis(grace_ms.into()), environment, command).await
        })
    }

    fn copy(&self, star: StarId, copy: Copy, _: Caller) -> Answer<'_, Exec> {
        Box::pin(async move {
            self.running(star).await?;
            let what = match &copy {
                Copy::Out { path } => format!("copy `{path}` out"),
                Copy::In { path, .. } => format!("copy to `{path}`"),
            };
            self.note_way_in(star, &what).await?;
            exec::copy(
                self.link.clone(),
                star,
                match copy {
                    Copy::Out { path } => Copying::Out { path },
                    Copy::In { path, archive: false } => Copying::In { path, naming: Naming::One },
                    Copy::In { path, archive: true } => Copying::In { path, naming: Naming::All },
                },
            )
        })
    }

    fn dial(&self, star: StarId, port: u16) -> Answer<'_, TcpStream> {
        Box::pin(async move {
            let view = self.running(star).await?;
            let network = move |node: &Node| node.state().stars.get(&star).map(|star| star.template.network);
            if self.looker().look(network).await? == Some(Network::Host) {
                let message = format!("star `{}` is on the host's network", view.name);
                let help = format!("what listens there is reached at 127.0.0.1:{port} without a door");
                return Err(Problem::new(Code::Unsupported, message).help(help));
            }
            let connected = timeout(DIAL_FOR, self.doors.connect(star, port, Need::One)).await;
            connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| match error.kind() {
                io::ErrorKind::ConnectionRefused => {
                    let message = format!("nothing listens on port {port} in star `{}`", view.name);
                    Problem::new(Code::Unavailable, message)
                }
                _ => Problem::new(Code::Unavailable, format!("port {port} of star `{}`: {error}", view.name)),
            })
        })
    }

    fn logs(&self, query: LogQuery, caller: Caller) -> Answer<'_, LogStream> {
        Box::pin(async move {
            let asked = if caller.from.is_none() { Asked::ByUser } else { Asked::ByNode };
            let far = self.far.clone().filter(|_| asked == Asked::ByUser);
            let sees = caller.rights.namespaces.clone();
            let far = far.map(|forward| FarLogs { forward, caller, query: query.clone() });
            let sources = Sources {
                looker: self.looker(),
                seen: self.seen.clone(),
                leaving: self.leaving.clone(),
                data_dir: self.data_dir.clone(),
                sees,
                far,
                asked,
            };
            logs::open(sources, query).await
        })
    }

    fn take_snapshot(&self, service: ServiceKey, take: TakeSnapshot) -> Answer<'_, SnapshotTaken> {
        Box::pin(self.once(move |this, begun| this.snapshot_of(service, take, begun)))
    }

    fn snapshots(&self) -> Answer<'_, Vec<SnapshotView>> {
        let snapshots = Arc::clone(&self.snapshots);
        Box::pin(beside(move || Ok(snapshots.list()?.into_iter().map(snapshots::view).collect())))
    }

    fn snapshot(&self, name: Name) -> Answer<'_, SnapshotView> {
        let snapshots = Arc::clone(&self.snapshots);
        Box::pin(beside(move || snapshots.info(&name).map(snapshots::view)))
    }

    fn delete_snapshot(&self, name: Name) -> Answer<'_, ()> {
        Box::pin(self.once(move |this, begun| this.discard_snapshot(name, begun)))
    }

    fn restore_snapshot(&self, name: Name, restore: RestoreSnapshot) -> Answer<'_, SnapshotView> {
        Box::pin(self.once(move |this, begun| this.bring_back(name, restore, begun)))
    }

    fn volumes(&self, caller: Caller) -> Answer<'_, Vec<VolumeView>> {
        Box::pin(self.all_volumes(caller))
    }

    fn delete_volume(&self, volume: VolumeKey) -> Answer<'_, ()> {
        Box::pin(self.discard_volume(volume))
    }

    fn resources(&self, caller: Caller) -> Answer<'_, ResourcesView> {
        Box::pin(self.all_resources(caller))
    }

    fn namespaces(&self) -> Answer<'_, Vec<NamespaceView>> {
        Box::pin(self.all_namespaces())
    }

    fn namespace(&self, namespace: Name) -> Answer<'_, NamespaceView> {
        Box::pin(self.one_namespace(namespace))
    }

    fn set_namespace(&self, namespace: Name, change: NamespaceChange, new: bool) -> Answer<'_, Accepted> {
        Box::pin(self.change(Request::SetNamespace { namespace, change, new }))
    }

    fn delete_namespace(&self, namespace: Name, force: bool) -> Answer<'_, Accepted> {
        Box::pin(self.remove_namespace(namespace, force))
    }

    fn put_bundle(&self, manifest: BundleManifest) -> Answer<'_, BundleStatus> {
        let bundles = Arc::clone(&self.bundles);
        Box::pin(beside(move || {
            let missing = bundles.missing(&manifest);
            let bundle = match missing.is_empty() {
                true => bundles.commit(&manifest)?,
                false => store::bundles::id_of(&manifest),
            };
            Ok(BundleStatus { bundle, missing })
        }))
    }

    fn put_blob(&self, hash: ContentHash, content: Bytes) -> Answer<'_, ()> {
        let bundles = Arc::clone(&self.bundles);
        Box::pin(beside(move || bundles.put_blob(&hash, &content)))
    }

    fn secrets(&self) -> Answer<'_, Vec<SecretView>> {
        if self.vault.is_some() {
            return Box::pin(async move { self.looker().look(|node| node.state().secret_views()).await });
        }
        let secrets = Arc::clone(&self.secrets);
        Box::pin(beside(move || secrets.list()))
    }

    fn secret(&self, secret: SecretKey, caller: Caller) -> Answer<'_, Bytes> {
        Box::pin(async move {
            if let Some(vault) = &self.vault {
                return vault.read(secret, caller, self.author()).await;
            }
            let uid = caller.uid;
            let (secrets, key) = (Arc::clone(&self.secrets), secret.clone());
            let mut value = beside(move || secrets.open(&key)).await?;
            self.change(Request::NoteRead { secrets: vec![secret], uid, star: None }).await?;
            Ok(std::mem::take(&mut *value).into())
        })
    }

    fn put_secret(&self, secret: SecretKey, value: Bytes, caller: Caller) -> Answer<'_, Accepted> {
        Box::pin(async move {
            if let Some(vault) = &self.vault {
                return vault.set(secret, &value, caller, self.author()).await.map(|index| Accepted { index });
            }
            if let Some(accepted) = self.done().await? {
                return Ok(accepted);
            }
            let (secrets, key) = (Arc::clone(&self.secrets), secret.clone());
            let change = beside(move || secrets.set(&key, &value, clock::wall())).await?;
            self.change(Request::NoteSecret { secret, change }).await.map_err(Problem::after_changes)
        })
    }

    fn delete_secret(&self, secret: SecretKey) -> Answer<'_, Accepted> {
        Box::pin(async move {
            if self.vault.is_some() {
                return self.change(Request::DeleteSecret { secret }).await;
            }
            if let Some(accepted) = self.done().await? {
                return Ok(accepted);
            }
            let _settle = self.secrets_settle.lock().await;
            let key = secret.clone();
            if let Some(service) = self.looker().look(move |node| node.state().user_of(&key).cloned()).await? {
                let message = format!("secret `{secret}` is in use by service `{service}`");
                let help = "take it out of the app first, or set another value with `rads c secrets set`";
                return Err(Problem::new(Code::Conflict, message).help(help));
            }
            let (secrets, key) = (Arc::clone(&self.secrets), secret.clone());
            beside(move || secrets.delete(&key)).await?;
            let noted = Request::NoteSecret { secret, change: SecretChange::Deleted };
            self.change(noted).await.map_err(Problem::after_changes)
        })
    }

    fn init(&self, init: Init) -> Answer<'_, Became> {
        Box::pin(async move {
            self.check_alone().await?;
            let became = entry::init(&self.ask, &self.data_dir, self.facts.clone(), init).await?;
            self.begin_anew();
            Ok(became)
        })
    }

    fn join(&self, join: Join) -> Answer<'_, Became> {
        Box::pin(async move {
            self.check_alone().await?;
            let became = entry::enter(&self.ask, &self.data_dir, join).await?;
            self.begin_anew();
            Ok(became)
        })
    }

    fn leave(&self, force: bool) -> Answer<'_, ()> {
        Box::pin(async move {
            match &self.standpoint {
                Some(standpoint) => entry::leave(standpoint, self.author(), force).await,
                None => self.forget_former().await,
            }
        })
    }

    fn nodes(&self) -> Answer<'_, Vec<NodeView>> {
        Box::pin(async move {
            let (own, machines) = self.looker().look(|node| (node.id(), node.machine_views())).await?;
            let shared = self.standpoint.as_ref().map(|standpoint| &standpoint.shared);
            let keepers = shared.map(Shared::keepers).unwrap_or_default();
            let leader = shared.and_then(Shared::leader);
            let view = |machine: MachineView| NodeView {
                leads: leader == Some(machine.id),
                votes: keepers.agreed.contains(&machine.id),
                answers: machine.id == own,
                machine,
            };
            Ok(machines.into_iter().map(view).collect())
        })
    }

    fn survey(&self) -> Answer<'_, Survey> {
        Box::pin(async move {
            match &self.standpoint {
                Some(standpoint) => survey::survey(standpoint).await,
                None => Ok(Survey::default()),
            }
        })
    }

    fn set_duty(&self, node: NodeId, duty: Duty) -> Answer<'_, Accepted> {
        Box::pin(self.change(Request::SetDuty { node, duty }))
    }

    fn set_taint(&self, node: NodeId, name: String, taint: Option<Taint>) -> Answer<'_, Accepted> {
        Box::pin(self.change(Request::SetTaint { node, name, taint }))
    }

    fn set_overcommit(&self, node: Option<NodeId>, overcommit: Option<Overcommit>) -> Answer<'_, Accepted> {
        Box::pin(self.change(Request::SetOvercommit { node, overcommit }))
    }

    fn remove_node(&self, node: NodeId, force: bool) -> Answer<'_, Accepted> {
        Box::pin(async move {
            if let Some(accepted) = self.done().await? {
                return Ok(accepted);
            }
            if let Some(standpoint) = &self.standpoint {
                standpoint.shared.check_log_stays(node, Goes::WhenItMay).await?;
            }
            self.change(Request::RemoveNode { node, force }).await
        })
    }

    fn backup(&self) -> Answer<'_, ByteStream> {
        Box::pin(async move {
            let Standpoint { shared, .. } = self.standpoint()?;
            let (data_dir, bundles) = (self.data_dir.clone(), Arc::clone(&self.bundles));
            let stream = backup::stream(shared, data_dir, bundles).await?;
            // It holds every key and every secret: nobody has any of it before this is written.
            self.note(Verb::Backup, "take a backup".to_owned()).await?;
            Ok(stream)
        })
    }

    fn invite(&self, invite: Invite) -> Answer<'_, Invitation> {
        Box::pin(async move { self.registrar().await?.invite(invite).await })
    }

    fn tokens(&self) -> Answer<'_, Vec<TokenView>> {
        Box::pin(self.of_members(invitations::tokens))
    }

    fn revoke_token(&self, id: String) -> Answer<'_, TokenView> {
        Box::pin(async move { self.registrar().await?.uninvite(&id).await })
    }

    fn certificates(&self) -> Answer<'_, CertificatesView> {
        Box::pin(self.of_members(invitations::certificates))
    }

    fn rotate_authority(&self) -> Answer<'_, CertificatesView> {
        Box::pin(async move {
            let registrar = self.registrar().await?;
            self.note(Verb::ManageAccess, "change the certificate authority".to_owned()).await?;
            registrar.rotate(clock::wall()).await?;
            self.of_members(invitations::certificates).await
        })
    }

    fn rotate_gossip(&self) -> Answer<'_, CertificatesView> {
        Box::pin(async move {
            self.registrar().await?;
            self.note(Verb::ManageAccess, "change the key of gossip".to_owned()).await?;
            if let Some(standpoint) = &self.standpoint {
                standpoint.gossip_keys.rotate().await?;
            }
            self.of_members(invitations::certificates).await
        })
    }

    fn revoke_certificates(&self, node: NodeId) -> Answer<'_, CertificatesView> {
        Box::pin(async move {
            let registrar = self.registrar().await?;
            self.standpoint()?.shared.check_log_stays(node, Goes::AtOnce).await?;
            registrar.shut_out(node).await?;
            self.of_members(invitations::certificates).await
        })
    }

    fn grant(&self, grant: NewGrant) -> Answer<'_, Granted> {
        Box::pin(async move { self.registrar().await?.grant(grant).await })
    }

    fn grants(&self) -> Answer<'_, Vec<GrantView>> {
        Box::pin(self.of_members(|state, _| Ok(grants::views(state))))
    }

    fn revoke_grant(&self, name: Name) -> Answer<'_, GrantView> {
        Box::pin(async move { self.registrar().await?.end_grant(name).await })
    }

    fn audit(&self, after: After) -> Answer<'_, AuditView> {
        Box::pin(grants::audit(self.looker(), self.seen.clone(), self.leaving.clone(), after))
    }

    fn shutdown(&self, shutdown: Shutdown) -> Answer<'_, ()> {
        Box::pin(async move {
            // Full means that somebody asked already.
            let _ = self.shutdown.try_send(shutdown.stars);
            Ok(())
        })
    }
}
