//! What people ask for: a few apps whose services come, go, change and are scaled.

use std::collections::BTreeMap;

use model::{
    Amount, AppSpec, Attribute, Balance, BundleId, Bytes, ContentHash, Entry, Hold, Limits, ListenAddr, Millicores,
    Name, NamespaceChange, Network, OnFailure, Placement, Preference, Priority, Probe, ProbeKind, Program, Protocol,
    QuotaChange, Reserve, RestartPolicy, RolloutTurn, ServiceKey, ServiceSpec, StarTemplate, Strategy, Update,
    UpdateStrategy, VolumeMount,
};
use node::Request;

use crate::chance::Chance;

/// App `shop` has `web` and perhaps `api`; app `data` has `db`, whose stars share a volume, and `job`, which may run to its end, and `one`, of which
/// there is never more than one star.
pub(crate) fn request(random: &mut Chance, most: u64) -> Request {
    match random.below(11) {
        10 => quota(random, most),
        0..4 => put(random, most),
        4 => {
            let app = random.pick(&["shop", "data"]).unwrap_or("shop");
            Request::RemoveApp { app: app.parse().expect("a name") }
        }
        5..8 => Request::Scale { service: service(random), instances: random.below(most + 1) as u32 },
        8 if random.below(2) == 0 => Request::Restart { service: service(random) },
        8 => have_a_say(random),
        _ => {
            let (service, ordinal) = (service(random), random.below(most) as u32 + 1);
            match random.below(4) {
                3 => Request::MoveStar { service, ordinal },
                0 => Request::StopStar { service, ordinal },
                1 => Request::StartStar { service, ordinal },
                _ => Request::RestartStar { service, ordinal },
            }
        }
    }
}

fn have_a_say(random: &mut Chance) -> Request {
    let service = service(random);
    let turns = [RolloutTurn::Promote, RolloutTurn::Abort, RolloutTurn::Pause, RolloutTurn::Resume];
    match random.below(5) {
        0 => Request::Rollback { service, version: (random.below(2) == 0).then(|| random.below(4) + 1) },
        turn => Request::TurnRollout { service, turn: turns[turn as usize - 1] },
    }
}

/// Half of the time none. All services are in the one namespace.
fn quota(random: &mut Chance, most: u64) -> Request {
    let mut change = NamespaceChange { quota: QuotaChange::NONE, ..NamespaceChange::default() };
    if random.below(2) == 0 {
        let stars = random.below(most * 4) as u32;
        change.quota.instances = Some((random.below(2) == 0).then_some(stars));
        change.quota.memory = Some((random.below(2) == 0).then_some(Bytes::mib(u64::from(stars) * 512)));
        change.quota.burst = Some(stars.is_multiple_of(3).then_some(50));
        change.quota.services = Some((random.below(4) == 0).then_some(random.below(4) as u32));
    }
    Request::SetNamespace { namespace: Name::default_namespace(), change, new: false }
}

/// Half of the time nothing, else so much that a machine has room for two or seven.
fn reserve(random: &mut Chance) -> Reserve {
    let memory = random.pick(&[0, 500, 1_500]).unwrap_or(0);
    match random.below(2) {
        0 => Reserve::default(),
        _ => Reserve { cpu: Millicores(random.below(600) as u32), memory: Bytes::mib(memory) },
    }
}

fn service(random: &mut Chance) -> ServiceKey {
    random.pick(&["web", "api", "db", "job", "one", "room"]).unwrap_or("web").parse().expect("a name")
}

pub(crate) fn put(random: &mut Chance, most: u64) -> Request {
    let (app, names): (&str, &[&str]) = match random.below(4) {
        0 => ("shop", &["web", "api"]),
        1 => ("data", &["db", "one"]),
        2 => ("data", &["db", "job"]),
        _ => ("shop", &["web"]),
    };
    let mut services: BTreeMap<Name, ServiceSpec> =
        names.iter().map(|name| (name.parse().expect("a name"), asked_for(random, name, most))).collect();
    if app == "shop" && random.below(3) == 0 {
        reserve_for_web(random, &mut services, most);
    }
    Request::PutApp { spec: AppSpec { app: app.parse().expect("a name"), services }, base: None }
}

/// Half of the time none. Machines are named as `World::begin` does it.
fn placement(random: &mut Chance, name: &str) -> Placement {
    let condition = |text: String| text.parse().expect("a condition");
    let strategies = [Strategy::Spread, Strategy::Spread, Strategy::Binpack, Strategy::Random];
    if random.below(2) == 0 {
        return Placement::default();
    }
    let (usual, priority) = (Placement::default(), random.pick(&[10, 50, 90]).unwrap_or(50));
    let disruptions = random.pick(&[usual.disruptions, Amount::Percent(100), Amount::Stars(0)]);
    let apart = (random.below(4) == 0).then(|| if name == "web" { "api" } else { "web" });
    let tolerates = (random.below(2) == 0).then(|| "gpu".parse().expect("a taint"));
    let away_from = (random.below(2) == 0).then(|| condition(format!("node != node-{}", random.below(5) + 1)));
    let wish = condition(format!("node = node-{}", random.below(5) + 1));
    let spread = if random.below(2) == 0 { vec![Attribute::Node] } else { Vec::new() };
    let max_skew = (!spread.is_empty() && random.below(2) == 0).then(|| random.below(2) as u32 + 1);
    Placement {
        strategy: random.pick(&strategies).unwrap_or_default(),
        require: away_from.into_iter().collect(),
        prefer: vec![Preference { that: wish, weight: random.below(201) as i32 - 100 }],
        spread,
        max_skew,
        per_node: None,
        every_node: false,
        reservation: None,
        tolerate: tolerates.into_iter().collect(),
        apart_from: apart.map(|name| name.parse().expect("a name")).into_iter().collect(),
        priority: Priority(priority),
        disruptions: disruptions.unwrap_or(usual.disruptions),
    }
}

/// Reservation `room` beside the others, in whose places `web` is, which is placed otherwise as it was.
fn reserve_for_web(random: &mut Chance, services: &mut BTreeMap<Name, ServiceSpec>, most: u64) {
    let mut room = spec(random, "room", most);
    let place = Reserve { cpu: Millicores(random.below(600) as u32 + 1), memory: Bytes::mib(500) };
    room.placement = Placement { priority: Priority(random.pick(&[10, 50, 90]).unwrap_or(50)), ..Placement::default() };
    let template = &mut room.template;
    (template.program, template.limits, template.reserve, template.port) =
        (Program::Nothing, Limits::UNLIMITED, place, None);
    template.probe = Probe::new(ProbeKind::Started);
    (room.entry, room.update) = (None, Update { deadline_ms: 90_000, ..Update::default() });
    room.hold = Some(Hold::default());
    if let Some(web) = services.get_mut(&"web".parse::<Name>().expect("a name")) {
        web.placement = Placement { reservation: Some("room".parse().expect("a name")), ..Placement::default() };
        web.template.reserve = if random.below(2) == 0 { place } else { Reserve::default() };
    }
    services.insert("room".parse().expect("a name"), room);
}

/// What a version is called that never gets ready.
pub(crate) const POISON: &str = "poison";

pub(crate) fn is_poison(template: &StarTemplate) -> bool {
    template.args[0] == POISON
}

/// What a version is called that gets ready, and fails all requests.
pub(crate) const ERRING: &str = "erring";

pub(crate) fn is_erring(template: &StarTemplate) -> bool {
    template.args[0] == ERRING
}

/// A service whose requests may fail, and which may be taken back for that.
fn asked_for(random: &mut Chance, name: &str, most: u64) -> ServiceSpec {
    let mut spec = spec(random, name, most);
    if matches!(name, "web" | "api") {
        if random.below(8) == 0 && !is_poison(&spec.template) {
            spec.template.args = vec![ERRING.to_owned()];
        }
        let listens = spec.update.strategy != UpdateStrategy::BlueGreen && random.below(2) == 0;
        spec.update.errors_percent = listens.then_some(10);
    }
    spec
}

/// Half of the time what is usual, but for a deadline that fits into a run.
fn update(random: &mut Chance) -> Update {
    let deadline_ms = 5_000 + random.below(90_000);
    let usual = Update { deadline_ms, ..Update::default() };
    if random.below(2) == 0 {
        return usual;
    }
    let amounts = [Amount::Stars(1), Amount::Stars(2), Amount::Percent(50), Amount::Percent(100)];
    let amount = |random: &mut Chance| random.pick(&amounts).unwrap_or(Amount::Stars(1));
    let strategy = match random.below(4) {
        0 => UpdateStrategy::Canary { stars: amount(random) },
        1 => UpdateStrategy::BlueGreen,
        _ => UpdateStrategy::Rolling,
    };
    let by_itself = strategy != UpdateStrategy::Rolling && random.below(3) > 0;
    let update = Update {
        strategy,
        max_surge: if random.below(4) == 0 { Amount::Stars(0) } else { amount(random) },
        max_unavailable: if random.below(2) == 0 { amount(random) } else { Amount::Stars(0) },
        healthy_ms: if random.below(2) == 0 { random.below(2_000) as u32 } else { 0 },
        promote_after_ms: by_itself.then_some(1_000),
        on_failure: if random.below(6) == 0 { OnFailure::Hold } else { OnFailure::Rollback },
        ..usual
    };
    if update.check(false).is_ok() { update } else { usual }
}

pub(crate) fn spec(random: &mut Chance, name: &str, most: u64) -> ServiceSpec {
    let is_job = name == "job";
    let port = (!is_job).then_some(8080);
    let restart = match random.below(3) {
        0 if is_job => RestartPolicy::Never,
        1 if is_job => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    };
    let entry = Entry { listen: ListenAddr::loopback(8000), protocol: Protocol::Http, balance: Balance::RoundRobin };
    let rolls = matches!(name, "web" | "api");
    let version = if rolls && random.below(5) == 0 { POISON.to_owned() } else { random.below(3).to_string() };
    let volume = VolumeMount { volume: "data".parse().expect("a name"), path: "/data".to_owned(), size: None };
    let mut spec = ServiceSpec {
        placement: if rolls { placement(random, name) } else { Placement::default() },
        update: if rolls { update(random) } else { Update { deadline_ms: 90_000, ..Update::default() } },
        job: None,
        hold: None,
        template: StarTemplate {
            program: Program::Script("x.rads".to_owned()),
            args: vec![version],
            bundle: BundleId(ContentHash([0; 32])),
            rootfs: None,
            env: BTreeMap::new(),
            limits: Limits { memory: Some(Bytes::mib(2_048)), ..Limits::DEFAULT },
            volumes: if name == "db" { vec![volume] } else { Vec::new() },
            network: Network::None,
            port,
            probe: Probe::new(if is_job { ProbeKind::Started } else { ProbeKind::Tcp }),
            restart,
            grace_ms: 1_000,
            stop_signal: None,
            deadline_ms: None,
            hooks: Default::default(),
            health: Default::default(),
            interior: Default::default(),
            weakened: Default::default(),
            access: None,
            // Where volumes are there is one machine.
            reserve: if name == "db" { Reserve::default() } else { reserve(random) },
            checkpoint: false,
            singleton: name == "one",
        },
        instances: random.below(if name == "one" { 2 } else { most + 1 }) as u32,
        entry: port.map(|_| entry),
    };
    if rolls && random.below(6) == 0 {
        (spec.placement.every_node, spec.placement.max_skew, spec.instances) = (true, None, 1);
        spec.update.strategy = UpdateStrategy::Rolling;
        spec.update.promote_after_ms = None;
    }
    spec
}
