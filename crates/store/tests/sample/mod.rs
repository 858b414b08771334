//! A log to test with: an app whose services are scaled, restarted and given stars, one command a number.
#![allow(dead_code, unreachable_pub)] // each test takes its own part

use std::collections::BTreeMap;

use model::app::GRACE_DEFAULT_MS;
use model::{
    Access, Amount, AppKey, AppSpec, Balance, BundleId, Bytes, ContentHash, Duty, Entry, Exit, ExitCause, Hold, Hooks,
    JoinTicket, Limits, LimitsChange, ListenAddr, Millicores, Name, NamespaceChange, Network, NodeFacts, NodeId,
    NodeRole, Once, Overcommit, Priority, Probe, ProbeKind, Program, Protocol, QuotaChange, Reserve, RestartPolicy,
    Role, RolloutTurn, Scope, SecretChange, SecretKey, Serial, ServiceKey, ServiceSpec, StarId, StarPhase,
    StarTemplate, Taint, Verb, VolumeKey, VolumeMount, WallTime,
};
use state::{
    Assignment, Author, AuthorityRecord, CertificateRecord, Command, Deed, GossipKey, Grant, Outcome, Proof, Settled,
    State, Transition, Who,
};

const SERVICES: u64 = 7;

/// Command `n` of the log, from 1.
pub fn command(n: u64) -> Command {
    let (service, wall) = (key(n), WallTime(1_795_000_000_000 + n));
    match n {
        1 => Command::PutApp { spec: app(), base: Some(0), wall },
        _ if n.is_multiple_of(50) => Command::Restart { service, wall },
        _ => Command::Scale { service, instances: (n % 10_000) as u32, wall },
    }
}

/// What the first `last` commands lead to.
pub fn state_at(last: u64) -> State {
    let mut state = State::default();
    for n in 1..=last {
        state::apply(&mut state, n, &command(n));
    }
    state
}

/// One command of every kind, every field set.
pub fn one_of_each() -> Vec<Command> {
    let (service, wall) = (key(1), WallTime(1_795_000_000_000));
    let secret = SecretKey::in_default(name("password"));
    let assignment = Assignment {
        star: StarId(7),
        service: service.clone(),
        revision: 1,
        ordinal: 1,
        node: NodeId(1),
        port: Some(8080),
        place: None,
    };
    let in_place = Assignment { star: StarId(8), place: Some(StarId(7)), ..assignment.clone() };
    let step = |phase, process, exit| Transition { star: StarId(7), phase, process, exit };
    let exit = |cause| Some(Exit { cause, asked: false });
    vec![
        Command::PutApp { spec: app(), base: Some(0), wall },
        Command::Assign { stars: vec![assignment], wall },
        Command::Transitions {
            changes: vec![
                step(StarPhase::Starting, Some((4242, 99_000)), None),
                step(StarPhase::Ready, None, None),
                step(StarPhase::Unready, None, None),
                step(StarPhase::Draining, None, None),
                step(StarPhase::Stopping, None, None),
                step(StarPhase::Ended, None, exit(ExitCause::Code(3))),
                step(StarPhase::Ended, None, exit(ExitCause::Signal(9))),
                step(StarPhase::Ended, None, exit(ExitCause::OutOfMemory)),
                step(StarPhase::Ended, None, exit(ExitCause::StartTimeout)),
                step(StarPhase::Ended, None, exit(ExitCause::StartFailed { reason: "no such file".to_owned() })),
                step(StarPhase::Ended, None, exit(ExitCause::Unknown)),
            ],
            wall,
        },
        Command::Scale { service: service.clone(), instances: 300, wall },
        Command::Restart { service: service.clone(), wall },
        Command::Stop { service: service.clone(), wall },
        Command::Start { service: service.clone(), wall },
        Command::RemoveApp { app: AppKey::in_default(name("shop")), wall },
        Command::Forget { stars: vec![StarId(7), StarId(u64::MAX)] },
        Command::Limit {
            service: service.clone(),
            change: Box::new(LimitsChange {
                memory: Some(Some(Bytes::mib(64))),
                pids: Some(None),
                ..LimitsChange::default()
            }),
            wall,
        },
        Command::PutApp { spec: hooked(), base: None, wall },
        Command::Pause { service: service.clone(), wall },
        Command::Transitions {
            changes: vec![
                step(StarPhase::Paused, None, None),
                step(StarPhase::Ended, None, exit(ExitCause::Unhealthy)),
                step(StarPhase::Ended, None, exit(ExitCause::Deadline)),
            ],
            wall,
        },
        Command::Resume { service: service.clone(), wall },
        Command::StopStar { service: service.clone(), ordinal: 2, wall },
        Command::StartStar { service: service.clone(), ordinal: 2, wall },
        Command::RestartStar { service: service.clone(), ordinal: 1, wall },
        Command::RemoveService { service: service.clone(), wall },
        Command::SecretChanged { secret: secret.clone(), change: SecretChange::Replaced, wall },
        Command::SecretsRead {
            secrets: vec![secret],
            uid: 1_000,
            star: Some((service.clone(), "web-1".to_owned())),
            wall,
        },
        Command::Found { cluster: name("production"), name: name("a"), address: address(1), facts: facts(), wall },
        Command::AdmitNode {
            name: name("b"),
            role: NodeRole::Controller,
            address: address(2),
            facts: facts(),
            wall,
            ticket: None,
        },
        Command::AdmitNode {
            name: name("c"),
            role: NodeRole::Worker,
            address: address(3),
            facts: facts(),
            wall,
            ticket: None,
        },
        Command::DescribeNode { node: NodeId(22), address: address(4), facts: Box::default(), wall },
        Command::SetDuty { node: NodeId(22), duty: Duty::Draining, wall },
        Command::SetDuty { node: NodeId(22), duty: Duty::Cordoned, wall },
        Command::SetDuty { node: NodeId(22), duty: Duty::Takes, wall },
        Command::Retire { stars: vec![StarId(7)], wall },
        Command::LoseNode { node: NodeId(22), wall },
        Command::WelcomeNode { node: NodeId(22), wall },
        Command::RemoveNode { node: NodeId(22), wall },
        Command::Transitions { changes: vec![step(StarPhase::Ended, None, exit(ExitCause::NodeLost))], wall },
        Command::SetAuthorities { authorities: authorities(), lifetime_days: 7, base: 0, wall },
        Command::AddTicket { ticket: ticket(), wall },
        Command::AdmitNode {
            name: name("d"),
            role: NodeRole::Worker,
            address: address(5),
            facts: facts(),
            wall,
            ticket: Some(ticket().hash),
        },
        Command::NoteCertificate { node: NodeId(34), certificate: certificate(), by: Some(Serial(u128::MAX)), wall },
        Command::UseCertificate { node: NodeId(34), serial: certificate().serial, wall },
        Command::RevokeCertificates { node: NodeId(34), wall },
        Command::RemoveTicket { hash: ticket().hash, wall },
        Command::SetSecret { secret: SecretKey::in_default(name("password")), sealed: vec![7; 40], wall },
        Command::DeleteSecret { secret: SecretKey::in_default(name("password")), wall },
        Command::DeleteVolume { volume: VolumeKey::in_default(name("pages")), wall },
        Command::Keyed {
            once: Once { key: "a-key".parse().expect("a key"), request: ContentHash([3; 32]) },
            command: Box::new(Command::Restart { service: key(1), wall }),
            wall,
            answer: None,
        },
        Command::SetGossipKeys { keys: vec![GossipKey { number: 2, sealed: vec![7; 92] }], base: 41, wall },
        Command::AddGrant { name: name("ann"), grant: grant(), wall },
        Command::RemoveGrant { name: name("ann"), wall },
        Command::By {
            author: author(Who::Grant(name("ann"))),
            command: Box::new(Command::Scale { service: key(1), instances: 2, wall }),
            wall,
        },
        Command::By {
            author: author(Who::User(1_000)),
            command: Box::new(Command::Pause { service: key(1), wall }),
            wall,
        },
        Command::Note { author: Author::agent(NodeId(1)), deed: deed(Outcome::Done), wall },
        Command::Note { author: author(Who::Stranger), deed: deed(Outcome::Denied(7)), wall },
        Command::Note { author: author(Who::Stranger), deed: deed(Outcome::Refused("why".to_owned())), wall },
        Command::Keyed {
            once: Once { key: "b-key".parse().expect("a key"), request: ContentHash([4; 32]) },
            command: Box::new(Command::By {
                author: author(Who::User(0)),
                command: Box::new(Command::Restart { service: key(1), wall }),
                wall,
            }),
            wall,
            answer: None,
        },
        Command::Keyed {
            once: Once { key: "c-key".parse().expect("a key"), request: ContentHash([5; 32]) },
            command: Box::new(Command::AddTicket { ticket: other_ticket(), wall }),
            wall,
            answer: Some(vec![0xff, 7]),
        },
        Command::NoteTwin { node: NodeId(7), address: "10.0.0.9".to_owned(), wall },
        Command::SetNamespace {
            namespace: name("dev"),
            change: NamespaceChange {
                ttl_ms: Some(Some(600_000)),
                quota: QuotaChange { instances: Some(Some(8)), memory: Some(None), ..QuotaChange::default() },
                ..NamespaceChange::default()
            },
            new: true,
            wall,
        },
        Command::SetNamespace { namespace: name("dev"), change: NamespaceChange::default(), new: false, wall },
        Command::WarnNamespace { namespace: name("dev"), at: WallTime(wall.0 + 600_000), wall },
        Command::SetNamespace {
            namespace: name("kept"),
            change: NamespaceChange {
                ttl_ms: Some(Some(600_000)),
                quota: QuotaChange { memory: Some(Some(Bytes::mib(512))), ..QuotaChange::default() },
                ..NamespaceChange::default()
            },
            new: true,
            wall,
        },
        Command::EndNamespace {
            namespace: name("dev"),
            at: WallTime(wall.0 + 600_000),
            wall: WallTime(wall.0 + 600_000),
        },
        Command::DeleteNamespace { namespace: name("dev"), force: true, wall },
        Command::DescribeNode { node: NodeId(34), address: address(5), facts: reserving(), wall },
        Command::PutApp { spec: kept(), base: None, wall },
        Command::SettleRollout { service: service.clone(), revision: 3, settled: Settled::Promoted, wall },
        Command::SettleRollout {
            service: service.clone(),
            revision: 3,
            settled: Settled::Failed { reason: "0 of 3 of its stars were ready".to_owned() },
            wall,
        },
        Command::TurnRollout { service: service.clone(), turn: RolloutTurn::Abort, wall },
        Command::Rollback { service: service.clone(), version: Some(2), wall },
        Command::BeginRun { service: service.clone(), slot: Some(WallTime(wall.0 - 1)), wall },
        Command::BeginRun { service: service.clone(), slot: None, wall },
        Command::SetTaint {
            node: NodeId(34),
            name: "gpu".to_owned(),
            taint: Some(Taint { value: Some("a100".to_owned()), evicts: true }),
            wall,
        },
        Command::SetTaint { node: NodeId(34), name: "gpu".to_owned(), taint: None, wall },
        Command::Preempt { service, stars: vec![StarId(1)], wall },
        Command::PutApp { spec: everywhere(), base: None, wall },
        Command::By {
            author: author(Who::Star { star: StarId(7), service: key(1) }),
            command: Box::new(Command::PutApp { spec: giving(), base: None, wall }),
            wall,
        },
        Command::MoveStar { service: key(1), ordinal: 2, wall },
        Command::EndMove { stars: vec![StarId(1)], wall },
        Command::PutApp { spec: reserved(), base: None, wall },
        Command::Assign { stars: vec![in_place], wall },
        Command::TurnHold { service: key(1), wall },
        Command::SetOvercommit {
            node: Some(NodeId(34)),
            overcommit: Some(Overcommit { cpu_percent: 200, memory_percent: 120 }),
            wall,
        },
        Command::SetOvercommit { node: None, overcommit: None, wall },
        Command::Transitions { changes: vec![step(StarPhase::Ended, None, exit(ExitCause::Evicted))], wall },
        Command::NoteLeader { node: NodeId(7), wall },
        Command::SetNamespace {
            namespace: name("lent"),
            change: NamespaceChange {
                quota: QuotaChange {
                    burst: Some(Some(50)),
                    priority: Some(Some(Priority(60))),
                    ..QuotaChange::default()
                },
                cpu_borrow: Some(Some(100)),
                ..NamespaceChange::default()
            },
            new: true,
            wall,
        },
        Command::Limit {
            service: key(1),
            change: Box::new(LimitsChange { cpu_borrow: Some(Some(300)), ..LimitsChange::default() }),
            wall,
        },
    ]
}

/// A reservation, and a service in another.
fn reserved() -> AppSpec {
    let mut spec = kept();
    for service in spec.services.values_mut() {
        service.placement.reservation = Some(name("room"));
    }
    let mut room = spec.services.values().next().cloned().expect("a service");
    room.placement.reservation = None;
    (room.template.program, room.entry, room.template.port) = (Program::Nothing, None, None);
    room.hold = Some(Hold { from: Some(WallTime(1_795_000_000_000)), until: Some(WallTime(1_795_000_100_000)) });
    spec.services.insert(name("room"), room);
    spec
}

/// What only newer programs say of places.
fn everywhere() -> AppSpec {
    let mut spec = kept();
    for service in spec.services.values_mut() {
        service.instances = 1;
        service.placement.every_node = true;
        service.placement.tolerate = vec!["gpu".parse().unwrap()];
        service.placement.apart_from = vec![name("db")];
        service.placement.priority = Priority(90);
        service.placement.disruptions = Amount::Stars(2);
    }
    spec
}

/// Its stars may ask for something.
fn giving() -> AppSpec {
    let mut spec = kept();
    let namespaces = ["dev-*", "shop"].map(|text| text.parse().expect("a pattern"));
    for service in spec.services.values_mut() {
        let namespaces = Some(Scope::of(namespaces.clone().into()));
        service.template.access = Some(Access { role: Role::Operator, namespaces });
    }
    spec
}

fn other_ticket() -> JoinTicket {
    JoinTicket { hash: ContentHash([10; 32]), ..ticket() }
}

fn grant() -> Box<Grant> {
    Box::new(Grant {
        role: Role::Operator,
        namespaces: Scope::Only([name("shop")].into()),
        proof: Proof::Token(ContentHash([3; 32])),
        created: WallTime(1_795_000_000_000),
        expires: Some(WallTime(1_795_604_800_000)),
    })
}

fn author(who: Who) -> Author {
    Author { who, node: NodeId(1), by_way_of: Some(NodeId(22)), address: Some([10, 0, 0, 9].into()) }
}

fn deed(outcome: Outcome) -> Deed {
    Deed { verb: Verb::Enter, what: "run `ls`".to_owned(), outcome }
}

fn authorities() -> Vec<AuthorityRecord> {
    let record = |n: u8| AuthorityRecord { id: ContentHash([n; 32]), sealed: vec![n; 5] };
    vec![record(1), record(2)]
}

fn ticket() -> JoinTicket {
    let expires = WallTime(1_795_000_000_000 + 3_600_000);
    JoinTicket { hash: ContentHash([9; 32]), role: NodeRole::Worker, expires, uses_max: 16, uses: 0 }
}

fn certificate() -> CertificateRecord {
    let not_after = WallTime(1_795_604_800_000);
    CertificateRecord { serial: Serial(7), not_after, authority: ContentHash([1; 32]), used: true }
}

fn address(n: u8) -> String {
    format!("10.0.0.{n}:7946")
}

fn facts() -> Box<NodeFacts> {
    Box::new(NodeFacts {
        memory: Bytes::mib(4_096),
        overcommit: Overcommit::default(),
        reserved: Reserve::default(),
        cores: 2,
        cpus: "0-1".parse().ok(),
        rootless: true,
        program: "0.1.0".to_owned(),
        region: Some(name("north")),
        zone: Some(name("north-1")),
        rack: Some(name("r7")),
        labels: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
    })
}

/// An app for whose stars something is kept.
fn kept() -> AppSpec {
    let mut spec = app();
    for service in spec.services.values_mut() {
        service.template.reserve = reserve();
    }
    spec
}

/// What the first released machine could not say.
fn reserving() -> Box<NodeFacts> {
    Box::new(NodeFacts { reserved: reserve(), ..*facts() })
}

fn reserve() -> Reserve {
    Reserve { cpu: Millicores(250), memory: Bytes::mib(512) }
}

/// What the first released app could not say.
fn hooked() -> AppSpec {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect();
    let mut spec = app();
    for (n, service) in spec.services.values_mut().enumerate() {
        let template = &mut service.template;
        template.stop_signal = Some(2);
        template.deadline_ms = Some(60_000);
        template.hooks = Hooks { before_start: words("./migrate --all"), before_stop: words("./drain") };
        let kinds = [ProbeKind::Exec { command: words("./healthy") }, ProbeKind::Script { path: "ok.rads".to_owned() }];
        template.probe.kind = kinds[n % 2].clone();
    }
    spec
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn key(n: u64) -> ServiceKey {
    ServiceKey::in_default(name(&format!("web-{}", n % SERVICES)))
}

fn app() -> AppSpec {
    let services = (0..SERVICES).map(|n| (key(n).name, service(n))).collect();
    AppSpec { app: AppKey::in_default(name("shop")), services }
}

fn service(n: u64) -> ServiceSpec {
    let script = n.is_multiple_of(2);
    let program = if script { Program::Script("web.rads".into()) } else { Program::Command(vec!["./web".into()]) };
    let kinds = [ProbeKind::Started, ProbeKind::Tcp, ProbeKind::Http { path: "/health".to_owned() }];
    let template = StarTemplate {
        program,
        args: vec!["--fast".to_owned()],
        bundle: BundleId(ContentHash([n as u8; 32])),
        rootfs: None,
        checkpoint: false,
        singleton: false,
        env: BTreeMap::from([("LANG".to_owned(), "C.UTF-8".to_owned())]),
        limits: Limits::DEFAULT,
        volumes: vec![VolumeMount { volume: name("data"), path: "/data".to_owned(), size: None }],
        network: [Network::None, Network::Host, Network::Bridge][n as usize % 3],
        port: Some(8080),
        probe: Probe::new(kinds[n as usize % 3].clone()),
        restart: [RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never][n as usize % 3],
        grace_ms: GRACE_DEFAULT_MS,
        stop_signal: None,
        deadline_ms: None,
        hooks: Hooks::default(),
        health: Default::default(),
        interior: Default::default(),
        weakened: Default::default(),
        access: None,
        reserve: Default::default(),
    };
    let protocol = if script { Protocol::Http } else { Protocol::Tcp };
    let balance = if script { Balance::RoundRobin } else { Balance::LeastConnections };
    let entry = Entry { listen: ListenAddr::loopback(8080), protocol, balance };
    ServiceSpec {
        template,
        instances: 3,
        entry: (n > 0).then_some(entry),
        placement: Default::default(),
        update: Default::default(),
        job: None,
        hold: None,
    }
}
