//! An agent that only remembers what it was asked.
#![allow(dead_code, unreachable_pub, reason = "each suite uses a part of it")]

use std::sync::{Arc, Mutex};

use api::*;
use bytes::Bytes;
use futures_util::StreamExt;
use model::{
    AppKey, AppSpec, BundleId, BundleManifest, Code, ContentHash, Duty, Limits, LimitsChange, Name, Network, NodeId,
    Once, Probe, ProbeKind, Problem, Program, RestartPolicy, RolloutTurn, SecretKey, SecretView, ServiceKey,
    ServiceSpec, StarId, StarTemplate, Verb, VolumeKey, WallTime,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[derive(Default, Clone)]
pub struct Remembering {
    pub asked: Arc<Mutex<Vec<String>>>,
    /// The keys under which services were restarted; the first of them, but one, got no answer.
    pub keys: Arc<Mutex<Vec<Option<Once>>>>,
    pub silent: Arc<Mutex<u32>>,
    /// There is something of each namespace.
    pub listed: bool,
    /// Who asked last.
    pub by: Option<Caller>,
    /// Where stars are, if not here.
    pub elsewhere: Arc<Mutex<Option<Arc<Remembering>>>>,
}

impl Remembering {
    fn note<T: Send + 'static>(&self, what: String, answer: Result<T, Problem>) -> Answer<'_, T> {
        self.asked.lock().unwrap().push(what);
        Box::pin(async move { answer })
    }

    fn of_each<T>(&self, make: impl Fn((u64, &'static str)) -> T) -> Vec<T> {
        if self.listed { NAMESPACES.into_iter().map(make).collect() } else { Vec::new() }
    }

    fn refuse<T: Send + 'static>(&self, what: String) -> Answer<'_, T> {
        self.note(what, Err(Problem::new(Code::NotFound, "no such thing").help("look again")))
    }
}

fn snapshot(namespace: &str) -> SnapshotView {
    SnapshotView {
        name: format!("of-{namespace}").parse().unwrap(),
        service: format!("{namespace}/web").parse().unwrap(),
        taken: WallTime(1),
        volumes: Vec::new(),
        memory: None,
        stars: Vec::new(),
    }
}

/// Of stars with a low number: which namespace they are in.
pub const NAMESPACES: [(u64, &str); 2] = [(1, "shop"), (2, "blog")];

impl Control for Remembering {
    fn by(&self, caller: Caller) -> Arc<dyn Control> {
        Arc::new(Self { by: Some(caller), ..self.clone() })
    }
    fn denied(&self, verb: Verb, what: String) {
        self.asked.lock().unwrap().push(format!("denied: {verb}: {what}"));
    }
    fn namespace_of(&self, star: StarId) -> Answer<'_, Option<Name>> {
        let known = NAMESPACES.iter().find(|(id, _)| *id == star.0);
        Box::pin(std::future::ready(Ok(known.map(|(_, name)| name.parse().unwrap()))))
    }
    fn version(&self) -> Version {
        Version {
            version: "0".into(),
            api: API_VERSION,
            pid: 1,
            data_dir: "/x".into(),
            started: WallTime(0),
            background: false,
            is_node: false,
        }
    }
    fn status(&self) -> Answer<'_, Status> {
        self.refuse("status".into())
    }
    fn index(&self, after: After) -> Answer<'_, Index> {
        self.note("index".into(), Ok(Index { index: after.after + 1 }))
    }
    fn events(&self, after: After) -> Answer<'_, Events> {
        let event = |namespace: Option<&str>| EventView {
            index: 1,
            wall: WallTime(1),
            what: "it".to_owned(),
            namespace: None,
            app: None,
            service: namespace.map(|namespace| format!("{namespace}/web").parse().unwrap()),
            star: None,
        };
        let all = [None, Some("shop"), Some("blog")].map(event);
        let events = if self.listed { all.to_vec() } else { Vec::new() };
        self.note("events".into(), Ok(Events { index: after.after, events }))
    }
    fn apps(&self) -> Answer<'_, Vec<AppView>> {
        self.note("apps".into(), Ok(Vec::new()))
    }
    fn app(&self, app: AppKey) -> Answer<'_, AppView> {
        self.refuse(format!("app {app}"))
    }
    fn put_app(&self, spec: AppSpec, base: Option<u64>) -> Answer<'_, Accepted> {
        self.note(format!("put {} {base:?}", spec.app), Ok(Accepted { index: 7 }))
    }
    fn forecast(&self, spec: AppSpec, base: Option<u64>) -> Answer<'_, Forecast> {
        self.note(format!("forecast {} {base:?}", spec.app), Ok(Forecast::default()))
    }
    fn remove_app(&self, app: AppKey) -> Answer<'_, Accepted> {
        self.note(format!("remove {app}"), Ok(Accepted { index: 8 }))
    }
    fn services(&self) -> Answer<'_, Vec<ServiceView>> {
        self.note("services".into(), Ok(Vec::new()))
    }
    fn service(&self, service: ServiceKey) -> Answer<'_, ServiceView> {
        self.refuse(format!("service {service}"))
    }
    fn moves(&self) -> Answer<'_, Vec<MoveView>> {
        self.note("moves".into(), Ok(Vec::new()))
    }
    fn explain(&self, service: ServiceKey) -> Answer<'_, ExplainView> {
        self.refuse(format!("explain {service}"))
    }
    fn service_stats(&self, service: ServiceKey, caller: Caller) -> Answer<'_, Vec<StarStats>> {
        self.refuse(format!("service stats {service} {:?}", caller.from))
    }
    fn passed(&self, service: ServiceKey) -> Answer<'_, Vec<Passed>> {
        self.refuse(format!("passed {service}"))
    }
    fn limit(&self, service: ServiceKey, change: LimitsChange) -> Answer<'_, Accepted> {
        self.note(format!("limit {service} {change:?}"), Ok(Accepted { index: 9 }))
    }
    fn scale(&self, service: ServiceKey, instances: u32) -> Answer<'_, Accepted> {
        self.note(format!("scale {service} {instances}"), Ok(Accepted { index: 9 }))
    }
    fn pause(&self, service: ServiceKey) -> Answer<'_, Accepted> {
        self.note(format!("pause {service}"), Ok(Accepted { index: 9 }))
    }
    fn resume(&self, service: ServiceKey) -> Answer<'_, Accepted> {
        self.note(format!("resume {service}"), Ok(Accepted { index: 9 }))
    }
    fn runs(&self, service: ServiceKey) -> Answer<'_, RunsView> {
        self.refuse(format!("runs {service}"))
    }
    fn run(&self, service: ServiceKey) -> Answer<'_, Accepted> {
        self.note(format!("run {service}"), Ok(Accepted { index: 9 }))
    }
    fn versions(&self, service: ServiceKey) -> Answer<'_, Vec<VersionView>> {
        self.refuse(format!("versions {service}"))
    }
    fn roll_back(&self, service: ServiceKey, version: Option<u64>) -> Answer<'_, Accepted> {
        self.note(format!("roll back {service} {version:?}"), Ok(Accepted { index: 9 }))
    }
    fn turn_rollout(&self, service: ServiceKey, turn: RolloutTurn) -> Answer<'_, Accepted> {
        self.note(format!("{} rollout {service}", turn.as_str()), Ok(Accepted { index: 9 }))
    }
    fn restart(&self, service: ServiceKey) -> Answer<'_, Accepted> {
        self.keys.lock().unwrap().push(keyed::current());
        let mut silent = self.silent.lock().unwrap();
        *silent = silent.saturating_sub(1);
        match *silent {
            0 => {}
            1 => {
                let problem = Problem::new(Code::Unavailable, "the leader fell silent").after_changes();
                return self.note("silence".into(), Err(problem));
            }
            _ => {
                drop(silent);
                panic!("the connection is to break: this message is expected")
            }
        }
        self.note(format!("restart {service}"), Ok(Accepted { index: 9 }))
    }
    fn stop(&self, service: ServiceKey) -> Answer<'_, Accepted> {
        self.note(format!("stop {service}"), Ok(Accepted { index: 9 }))
    }
    fn start(&self, service: ServiceKey) -> Answer<'_, Accepted> {
        self.note(format!("start {service}"), Ok(Accepted { index: 9 }))
    }
    fn remove_service(&self, service: ServiceKey) -> Answer<'_, Accepted> {
        self.note(format!("remove service {service}"), Ok(Accepted { index: 9 }))
    }
    fn turn(&self, service: ServiceKey, ordinal: u32, turn: StarTurn) -> Answer<'_, Accepted> {
        self.note(format!("{turn:?} {service} {ordinal}"), Ok(Accepted { index: 9 }))
    }
    fn inspect(&self, star: StarId) -> Answer<'_, Inspection> {
        self.refuse(format!("inspect {star}"))
    }
    fn stars(&self) -> Answer<'_, Vec<StarView>> {
        let star = |(id, namespace): (u64, &str)| StarView {
            id: StarId(id),
            name: "web-1".to_owned(),
            service: format!("{namespace}/web").parse().unwrap(),
            ordinal: 1,
            app: format!("{namespace}/web").parse().unwrap(),
            node: NodeId(1),
            node_name: None,
            phase: model::StarPhase::Ready,
            outdated: false,
            port: None,
            pid: None,
            start_time: None,
            since: None,
            problem: None,
            exit: None,
            restarts: 0,
        };
        self.note("stars".into(), Ok(self.of_each(star)))
    }
    fn star(&self, star: StarId) -> Answer<'_, StarView> {
        self.refuse(format!("star {star}"))
    }
    fn star_stats(&self, star: StarId, _: Caller) -> Answer<'_, StarStats> {
        self.refuse(format!("star stats {star}"))
    }
    /// A command that repeats its input and ends with the number of its words.
    fn exec(&self, star: StarId, command: ExecCommand, _: Caller) -> Answer<'_, Exec> {
        let (stdin, mut input) = tokio::io::duplex(64);
        let (mut output, stdout) = tokio::io::duplex(64);
        let repeat = tokio::spawn(async move {
            let mut text = Vec::new();
            input.read_to_end(&mut text).await.unwrap();
            output.write_all(&text).await.unwrap();
        });
        let code = command.argv.len() as i32;
        let exit: Answer<'static, i32> = Box::pin(async move {
            repeat.await.unwrap();
            Ok(code)
        });
        let running = Exec {
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            stderr: Box::new(tokio::io::empty()),
            resize: None,
            exit,
        };
        self.note(format!("exec {star}"), Ok(running))
    }
    fn copy(&self, star: StarId, copy: Copy, _: Caller) -> Answer<'_, Exec> {
        self.refuse(format!("copy {star} {copy:?}"))
    }
    /// Somebody who says what was said.
    fn dial(&self, star: StarId, port: u16) -> Answer<'_, TcpStream> {
        self.asked.lock().unwrap().push(format!("dial {star} {port}"));
        Box::pin(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut echo, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut from, mut to) = echo.split();
                tokio::io::copy(&mut from, &mut to).await.unwrap();
            });
            Ok(stream)
        })
    }
    fn road(&self, _: Place, _: Caller) -> Answer<'_, Option<Road>> {
        let there = self.elsewhere.lock().unwrap().clone();
        Box::pin(
            async move { Ok(there.map(|there| Road { node: "b".to_owned(), stream: Box::new(stream_to(there)) })) },
        )
    }
    fn volumes(&self, _: Caller) -> Answer<'_, Vec<VolumeView>> {
        let volume = |(_, namespace): (u64, &str)| VolumeView {
            volume: format!("{namespace}/pages").parse().unwrap(),
            node: "a".to_owned(),
            services: Vec::new(),
            bytes: None,
        };
        self.note("volumes".into(), Ok(self.of_each(volume)))
    }
    fn delete_volume(&self, volume: VolumeKey) -> Answer<'_, ()> {
        self.refuse(format!("delete volume {volume}"))
    }
    fn resources(&self, _: Caller) -> Answer<'_, ResourcesView> {
        self.note("resources".into(), Ok(ResourcesView::default()))
    }
    fn namespaces(&self) -> Answer<'_, Vec<NamespaceView>> {
        let view = |(_, namespace): (u64, &str)| NamespaceView {
            namespace: namespace.parse().unwrap(),
            created: None,
            ends: None,
            cpu_borrow: None,
            quota: model::Quota::default(),
            used: model::Usage::default(),
            beyond: Vec::new(),
            burst_stars: 0,
            apps: 0,
            stars: 0,
            secrets: 0,
            volumes: Vec::new(),
        };
        self.note("namespaces".into(), Ok(self.of_each(view)))
    }
    fn namespace(&self, namespace: Name) -> Answer<'_, NamespaceView> {
        self.refuse(format!("namespace {namespace}"))
    }
    fn set_namespace(&self, namespace: Name, change: model::NamespaceChange, new: bool) -> Answer<'_, Accepted> {
        self.note(format!("set namespace {namespace} {change:?} {new}"), Ok(Accepted { index: 10 }))
    }
    fn delete_namespace(&self, namespace: Name, force: bool) -> Answer<'_, Accepted> {
        self.note(format!("delete namespace {namespace} {force}"), Ok(Accepted { index: 11 }))
    }
    fn logs(&self, query: LogQuery, _: Caller) -> Answer<'_, LogStream> {
        let record = |n: u64| LogRecord {
            star: StarId(n),
            name: format!("hello-{n}"),
            at: WallTime(n),
            error: false,
            text: "one\ntwo".into(),
        };
        let records = futures_util::stream::iter((1..=3).map(move |n| Ok(record(n))));
        // What is followed has no end.
        let records = match self.listed && query.follow {
            true => records.chain(futures_util::stream::pending()).boxed(),
            false => records.boxed(),
        };
        self.note(format!("logs {:?} {}", query.target, query.follow), Ok(records as LogStream))
    }
    fn take_snapshot(&self, service: ServiceKey, take: TakeSnapshot) -> Answer<'_, SnapshotTaken> {
        self.refuse(format!("snapshot {service} {take:?}"))
    }
    fn snapshots(&self) -> Answer<'_, Vec<SnapshotView>> {
        self.note("snapshots".into(), Ok(self.of_each(|(_, namespace)| snapshot(namespace))))
    }
    fn snapshot(&self, name: Name) -> Answer<'_, SnapshotView> {
        let Some((_, namespace)) = NAMESPACES.iter().find(|(_, namespace)| name.as_str() == format!("of-{namespace}"))
        else {
            return self.refuse(format!("snapshot {name}"));
        };
        let view = snapshot(namespace);
        Box::pin(std::future::ready(Ok(view)))
    }
    fn delete_snapshot(&self, name: Name) -> Answer<'_, ()> {
        self.note(format!("delete snapshot {name}"), Ok(()))
    }
    fn restore_snapshot(&self, name: Name, restore: RestoreSnapshot) -> Answer<'_, SnapshotView> {
        self.refuse(format!("restore {name} {restore:?}"))
    }
    fn put_bundle(&self, manifest: BundleManifest) -> Answer<'_, BundleStatus> {
        let bundle = model::BundleId(ContentHash([manifest.files.len() as u8; 32]));
        self.note("bundle".into(), Ok(BundleStatus { bundle, missing: Vec::new() }))
    }
    fn put_blob(&self, hash: ContentHash, content: Bytes) -> Answer<'_, ()> {
        self.note(format!("blob {hash} {}", content.len()), Ok(()))
    }
    fn secrets(&self) -> Answer<'_, Vec<SecretView>> {
        let secret = |(_, namespace): (u64, &str)| SecretView {
            secret: format!("{namespace}/key").parse().unwrap(),
            version: 1,
            changed: WallTime(1),
        };
        self.note("secrets".into(), Ok(self.of_each(secret)))
    }
    fn secret(&self, secret: SecretKey, caller: Caller) -> Answer<'_, Bytes> {
        self.note(format!("read secret {secret} {}", caller.uid), Ok(Bytes::from_static(b"\0value")))
    }
    fn put_secret(&self, secret: SecretKey, value: Bytes, _: Caller) -> Answer<'_, Accepted> {
        self.note(format!("secret {secret} {}", value.len()), Ok(Accepted { index: 10 }))
    }
    fn delete_secret(&self, secret: SecretKey) -> Answer<'_, Accepted> {
        self.note(format!("delete secret {secret}"), Ok(Accepted { index: 11 }))
    }
    fn init(&self, init: Init) -> Answer<'_, Became> {
        self.refuse(format!("init {} {} {:?}", init.cluster, init.me.name, init.me.labels))
    }
    fn join(&self, join: Join) -> Answer<'_, Became> {
        self.refuse(format!("{join:?}"))
    }
    fn leave(&self, force: bool) -> Answer<'_, ()> {
        self.note(format!("leave {force}"), Ok(()))
    }
    fn nodes(&self) -> Answer<'_, Vec<NodeView>> {
        self.note("nodes".into(), Ok(Vec::new()))
    }
    fn set_duty(&self, node: NodeId, duty: Duty) -> Answer<'_, Accepted> {
        self.note(format!("{node} {duty}"), Ok(Accepted { index: 12 }))
    }
    fn set_taint(&self, node: NodeId, name: String, taint: Option<model::Taint>) -> Answer<'_, Accepted> {
        self.note(format!("{node} {name} {taint:?}"), Ok(Accepted { index: 12 }))
    }
    fn set_overcommit(&self, node: Option<NodeId>, overcommit: Option<model::Overcommit>) -> Answer<'_, Accepted> {
        self.note(format!("{node:?} {overcommit:?}"), Ok(Accepted { index: 14 }))
    }
    fn remove_node(&self, node: NodeId, force: bool) -> Answer<'_, Accepted> {
        self.note(format!("remove {node} {force}"), Ok(Accepted { index: 13 }))
    }
    fn backup(&self) -> Answer<'_, ByteStream> {
        let parts = [Ok(Bytes::from_static(b"one ")), Ok(Bytes::from_static(b"two"))];
        self.note("backup".into(), Ok(futures_util::stream::iter(parts).boxed() as ByteStream))
    }
    fn shutdown(&self, shutdown: Shutdown) -> Answer<'_, ()> {
        self.note(format!("shutdown {:?}", shutdown.stars), Ok(()))
    }
}

/// A service that any description could have made.
pub fn service() -> ServiceSpec {
    let template = StarTemplate {
        program: Program::Command(vec!["./web".to_owned()]),
        args: Vec::new(),
        bundle: BundleId(ContentHash([1; 32])),
        rootfs: None,
        checkpoint: false,
        singleton: false,
        env: Default::default(),
        limits: Limits::DEFAULT,
        volumes: Vec::new(),
        network: Network::None,
        port: None,
        probe: Probe::new(ProbeKind::Started),
        restart: RestartPolicy::Always,
        grace_ms: 1,
        stop_signal: None,
        deadline_ms: None,
        hooks: Default::default(),
        health: Default::default(),
        interior: Default::default(),
        weakened: Default::default(),
        access: None,
        reserve: Default::default(),
    };
    ServiceSpec {
        template,
        instances: 1,
        entry: None,
        placement: Default::default(),
        update: Default::default(),
        job: None,
        hold: None,
    }
}

pub fn asked_from() -> Caller {
    Caller { from: Some(NodeId(7)), ..Caller::owner(1_000) }
}

/// As another agent's requests come.
pub fn stream_to(control: Arc<Remembering>) -> tokio::io::DuplexStream {
    let (here, there) = tokio::io::duplex(1 << 10);
    tokio::spawn(async move { Routes::new(control).serve(there, asked_from()).await });
    here
}
