//! What each command does, and what no sequence of commands does: random ones are applied to a small world of names, so
//! that they meet each other often, and after each the state has to make sense.
//!
//! That states and commands read back from bytes is shown in `store`, whose bytes they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::app::INSTANCES_MAX;
use model::{
    AppKey, AppSpec, BundleId, Bytes, Code, ContentHash, Exit, ExitCause, Hold, Limits, LimitsChange, Network, NodeId,
    Overcommit, Probe, ProbeKind, Program, Reserve, RestartPolicy, ServiceKey, ServiceSpec, StarId, StarPhase,
    StarTemplate, VolumeKey, VolumeMount, WallTime,
};
use state::{Assignment, Change, Command, EVENTS_MAX, Load, Part, StarRecord, State, Transition, apply, touched};

const WALL: WallTime = WallTime(5);

fn service(instances: u32, version: &str, restart: RestartPolicy) -> ServiceSpec {
    ServiceSpec {
        placement: Default::default(),
        update: Default::default(),
        job: None,
        hold: None,
        template: StarTemplate {
            program: Program::Script("x.rads".to_owned()),
            args: vec![version.to_owned()],
            bundle: BundleId(ContentHash([0; 32])),
            rootfs: None,
            checkpoint: false,
            singleton: false,
            env: BTreeMap::new(),
            limits: Limits::DEFAULT,
            volumes: Vec::new(),
            network: Network::None,
            port: Some(80),
            probe: Probe::new(ProbeKind::Tcp),
            restart,
            grace_ms: 1_000,
            stop_signal: None,
            deadline_ms: None,
            hooks: Default::default(),
            health: Default::default(),
            interior: Default::default(),
            weakened: Default::default(),
            access: None,
            reserve: Default::default(),
        },
        instances,
        entry: None,
    }
}

fn put(app: &str, services: &[(&str, ServiceSpec)], base: Option<u64>) -> Command {
    let services = services.iter().map(|(name, spec)| (name.parse().unwrap(), spec.clone())).collect();
    Command::PutApp { spec: AppSpec { app: key(app), services }, base, wall: WALL }
}

fn web(instances: u32, version: &str) -> Command {
    put("shop", &[("web", service(instances, version, RestartPolicy::Always))], None)
}

fn scale(instances: u32) -> Command {
    Command::Scale { service: name("web"), instances, wall: WALL }
}

fn assign(star: u64, revision: u64) -> Command {
    let star = Assignment {
        star: StarId(star),
        service: name("web"),
        revision,
        ordinal: star as u32,
        node: NodeId(1),
        port: Some(80),
        place: None,
    };
    Command::Assign { stars: vec![star], wall: WALL }
}

fn moved(star: u64, phase: StarPhase) -> Command {
    let transition = Transition { star: StarId(star), phase, process: None, exit: None };
    Command::Transitions { changes: vec![transition], wall: WALL }
}

fn ended(star: u64, cause: ExitCause, asked: bool) -> Command {
    let exit = Some(Exit { cause, asked });
    let transition = Transition { star: StarId(star), phase: StarPhase::Ended, process: None, exit };
    Command::Transitions { changes: vec![transition], wall: WALL }
}

fn key(app: &str) -> AppKey {
    app.parse().unwrap()
}

fn limited(mib: u64) -> Command {
    let change = LimitsChange { memory: Some(Some(Bytes::mib(mib))), ..LimitsChange::default() };
    Command::Limit { service: name("web"), change: Box::new(change), wall: WALL }
}

fn name(service: &str) -> ServiceKey {
    service.parse().unwrap()
}

fn after(commands: &[Command]) -> State {
    let mut state = State::default();
    for (at, command) in commands.iter().enumerate() {
        apply(&mut state, at as u64 + 1, command);
    }
    state
}

/// The code of the refusal of the last command; none when it was taken.
fn refusal(commands: &[Command]) -> Option<Code> {
    let (last, before) = commands.split_last().unwrap();
    let mut state = after(before);
    let changes = apply(&mut state, commands.len() as u64, last);
    changes.into_iter().find_map(|change| match change {
        Change::Refused { problem } => Some(problem.code),
        _ => None,
    })
}

#[test]
fn of_a_singleton_there_is_one_star_at_most_whoever_plans() {
    let one = |instances| {
        let mut spec = service(instances, "a", RestartPolicy::Always);
        spec.template.singleton = true;
        put("shop", &[("web", spec)], None)
    };
    let cases: [(&[Command], Option<Code>); 7] = [
        (&[one(1)], None),
        (&[one(0)], None),
        (&[one(2)], Some(Code::InvalidValue)),
        (&[one(1), scale(2)], Some(Code::InvalidValue)),
        (&[one(1), assign(1, 1)], None),
        (&[one(1), assign(1, 1), assign(2, 1)], Some(Code::Conflict)),
        (&[one(1), assign(1, 1), ended(1, ExitCause::Code(1), false), assign(2, 1)], None),
    ];
    for (commands, expected) in cases {
        assert_eq!(refusal(commands), expected, "{commands:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_its_reason() {
    let job = |app| put(app, &[("web", service(1, "a", RestartPolicy::Always))], None);
    let based = |base| put("shop", &[], Some(base));
    // Another `web-7`.
    let instead = |star| match assign(star, 1) {
        Command::Assign { stars, wall } => {
            let stars = stars.into_iter().map(|star| Assignment { ordinal: 7, ..star }).collect();
            Command::Assign { stars, wall }
        }
        command => command,
    };
    let cases: [(&[Command], Option<Code>); 22] = [
        (&[web(1, "a")], None),
        (&[based(0)], None),
        (&[based(1)], Some(Code::Conflict)),
        (&[web(1, "a"), based(0)], Some(Code::Conflict)),
        (&[web(1, "a"), based(1)], None),
        // A service changed by itself is a change of its app.
        (&[web(1, "a"), scale(2), based(1)], Some(Code::Conflict)),
        (&[web(1, "a"), scale(2), based(2)], None),
        (&[job("shop"), job("blog")], Some(Code::AlreadyExists)),
        (&[job("shop"), job("team/blog")], None),
        (&[web(INSTANCES_MAX, "a")], None),
        (&[web(INSTANCES_MAX + 1, "a")], Some(Code::InvalidValue)),
        (&[web(1, "a"), scale(INSTANCES_MAX + 1)], Some(Code::InvalidValue)),
        (&[scale(1)], Some(Code::NotFound)),
        (&[limited(64)], Some(Code::NotFound)),
        (&[web(1, "a"), limited(1)], Some(Code::LimitTooLow)),
        (&[web(1, "a"), limited(64), based(1)], Some(Code::Conflict)),
        (&[Command::RemoveApp { app: key("shop"), wall: WALL }], Some(Code::NotFound)),
        (&[web(1, "a"), assign(7, 1), assign(7, 1)], Some(Code::AlreadyExists)),
        (&[web(1, "a"), assign(7, 1), instead(8)], Some(Code::Conflict)),
        (&[web(1, "a"), assign(7, 1), ended(7, ExitCause::Code(1), false), instead(8)], None),
        (&[web(1, "a"), web(1, "b"), assign(7, 1)], Some(Code::Conflict)),
        (&[web(1, "a"), Command::Stop { service: name("web"), wall: WALL }, assign(7, 1)], Some(Code::Conflict)),
    ];
    for (commands, expected) in cases {
        assert_eq!(refusal(commands), expected, "{commands:?}");
    }
}

#[test]
fn a_star_of_an_assignment_that_does_not_fit_leaves_the_others_standing() {
    let (Command::Assign { mut stars, .. }, Command::Assign { stars: late, .. }) = (assign(1, 1), assign(2, 9)) else {
        unreachable!()
    };
    stars.extend(late);
    let state = after(&[web(2, "a"), Command::Assign { stars, wall: WALL }]);
    assert_eq!(state.stars.keys().collect::<Vec<_>>(), [&StarId(1)]);
    assert_eq!(state.stars[&StarId(1)].generation, 2);
}

#[test]
fn stars_are_replaced_for_another_template_or_a_restart_and_for_nothing_else() {
    let restart = Command::Restart { service: name("web"), wall: WALL };
    let stop = Command::Stop { service: name("web"), wall: WALL };
    let cases: [(&[Command], u64); 6] = [
        (&[web(1, "a"), web(1, "a")], 1),
        (&[web(1, "a"), web(4, "a")], 1),
        (&[web(1, "a"), scale(3)], 1),
        (&[web(1, "a"), stop], 1),
        (&[web(1, "a"), web(1, "b")], 2),
        (&[web(1, "a"), restart], 2),
    ];
    for (commands, revision) in cases {
        assert_eq!(after(commands).services[&name("web")].revision, revision, "{commands:?}");
    }
}

#[test]
fn a_star_moves_down_its_phases_and_only_becomes_ready_again() {
    use StarPhase::{Draining, Ended, Ready, Starting, Stopping, Unready};
    let cases = [
        (vec![Starting, Ready], Ready),
        (vec![Ready, Starting], Ready),
        (vec![Ready, Unready, Ready], Ready),
        (vec![Draining, Ready], Draining),
        (vec![Stopping, Unready], Stopping),
        (vec![Ended, Ready], Ended),
    ];
    for (phases, expected) in cases {
        let mut commands = vec![web(1, "a"), assign(1, 1)];
        commands.extend(phases.iter().map(|phase| moved(1, *phase)));
        assert_eq!(after(&commands).stars[&StarId(1)].phase, expected, "{phases:?}");
    }
}

#[test]
fn how_a_star_ended_decides_whether_its_place_is_filled_again() {
    use ExitCause::{Code, OutOfMemory};
    use RestartPolicy::{Always, Never, OnFailure};
    let cases = [
        (Always, Code(0), false, 2, 1),
        (Always, OutOfMemory, false, 2, 1),
        (OnFailure, Code(0), false, 1, 0),
        (OnFailure, Code(1), false, 2, 1),
        (Never, Code(1), false, 1, 0),
        // It was told to: no failure, and its place stays to be filled.
        (Never, Code(0), true, 2, 0),
        (Always, Code(1), true, 2, 0),
    ];
    for (policy, cause, asked, wanted, restarts) in cases {
        let spec = service(2, "a", policy);
        let state = after(&[put("shop", &[("web", spec)], None), assign(1, 1), ended(1, cause.clone(), asked)]);
        let record = &state.services[&name("web")];
        assert_eq!((record.wanted(), record.restarts), (wanted, restarts), "{policy:?} {cause} asked: {asked}");
    }
}

#[test]
fn only_an_ended_star_is_forgotten() {
    let forget = Command::Forget { stars: vec![StarId(1), StarId(2)] };
    let state = after(&[web(2, "a"), assign(1, 1), assign(2, 1), ended(1, ExitCause::Unknown, true), forget]);
    assert_eq!(state.stars.keys().collect::<Vec<_>>(), [&StarId(2)]);
}

#[test]
fn the_oldest_events_go_first() {
    let mut commands = vec![web(0, "a")];
    commands.extend((0..EVENTS_MAX as u32 + 10).map(|n| scale(n % 3)));
    let state = after(&commands);
    assert_eq!(state.events.len(), EVENTS_MAX);
    assert_eq!(state.events.back().unwrap().index, state.index);
    assert_eq!(state.events.front().unwrap().index, state.index + 1 - EVENTS_MAX as u64);
}

/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % bound
    }

    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }

    /// Times and numbers at both ends of what there is, too.
    fn number(&mut self) -> u64 {
        let small = self.below(40);
        self.one_of(&[small, small, small, 0, u64::MAX])
    }

    fn command(&mut self, state: &State) -> Command {
        let wall = WallTime(self.number());
        let app = self.one_of(&["shop", "blog", "team/shop"]);
        let service = name(self.one_of(&["web", "api", "team/web"]));
        match self.below(15) {
            0..3 => self.put(app),
            14 => {
                let percent = self.one_of(&[100, 200, 50, u32::MAX]);
                let overcommit = Overcommit { cpu_percent: percent, memory_percent: 100 };
                let node = self.one_of(&[None, None, Some(NodeId(1))]);
                Command::SetOvercommit { node, overcommit: self.one_of(&[None, Some(overcommit)]), wall }
            }
            3 => Command::RemoveApp { app: key(app), wall },
            4 => Command::Scale { service, instances: self.one_of(&[0, 1, 3, u32::MAX]), wall },
            5 => Command::Restart { service, wall },
            6 => Command::Stop { service, wall },
            7 => Command::Start { service, wall },
            8 | 9 => {
                let count = self.below(4);
                let stars = (0..count).map(|_| self.assignment(&service, state)).collect();
                Command::Assign { stars, wall }
            }
            12 => {
                let memory = self.one_of(&[None, Some(None), Some(Some(Bytes(1))), Some(Some(Bytes::mib(64)))]);
                let pids = self.one_of(&[None, Some(Some(0)), Some(Some(9))]);
                let change = LimitsChange { memory, pids, ..LimitsChange::default() };
                Command::Limit { service, change: Box::new(change), wall }
            }
            10 | 11 => {
                let count = self.below(5);
                Command::Transitions { changes: (0..count).map(|_| self.transition()).collect(), wall }
            }
            _ => {
                let count = self.below(4);
                Command::Forget { stars: (0..count).map(|_| StarId(self.below(20))).collect() }
            }
        }
    }

    fn put(&mut self, app: &str) -> Command {
        let names = self.one_of(&[vec![], vec!["web"], vec!["api"], vec!["web", "api"]]);
        let mut services = Vec::new();
        for name in names {
            let restart = self.one_of(&[RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never]);
            let instances = self.one_of(&[0, 1, 2, 5, u32::MAX]);
            let mut spec = self::service(instances, self.one_of(&["a", "b"]), restart);
            spec.template.network = self.one_of(&[Network::None, Network::Host]);
            let mount = VolumeMount { volume: "data".parse().unwrap(), path: "/data".to_owned(), size: None };
            spec.template.volumes = self.one_of(&[Vec::new(), Vec::new(), vec![mount]]);
            let kept = |megabytes| Reserve { memory: Bytes::mib(megabytes), ..Reserve::default() };
            match (name, self.below(3)) {
                ("api", 0) => {
                    let template = &mut spec.template;
                    (template.program, template.limits, template.reserve) =
                        (Program::Nothing, Limits::UNLIMITED, kept(100));
                    (template.port, template.volumes) = (None, Vec::new());
                    spec.hold = Some(Hold::default());
                }
                ("web", 1) => {
                    spec.placement.reservation = Some("api".parse().unwrap());
                    spec.template.reserve = kept(self.one_of(&[0, 60, 200]));
                }
                _ => {}
            }
            services.push((name, spec));
        }
        let base = self.number();
        put(app, &services, self.one_of(&[None, None, Some(base)]))
    }

    fn assignment(&mut self, service: &ServiceKey, state: &State) -> Assignment {
        let holds = state.services.get(service).map_or(0, |service| service.revision);
        let revision = self.number();
        Assignment {
            star: StarId(self.below(20)),
            service: service.clone(),
            revision: self.one_of(&[holds, holds, holds, revision]),
            ordinal: self.one_of(&[0, 1, 2, 3, u32::MAX]),
            node: NodeId(self.below(2)),
            port: self.one_of(&[None, Some(80)]),
            place: self.place(state),
        }
    }

    /// Of some star, most often one that is a place.
    fn place(&mut self, state: &State) -> Option<StarId> {
        let places: Vec<StarId> = state.stars.values().filter(|star| star.is_place()).map(|star| star.id).collect();
        match self.below(4) {
            0 => None,
            1 => Some(StarId(self.below(20))),
            _ if places.is_empty() => None,
            _ => Some(self.one_of(&places)),
        }
    }

    fn transition(&mut self) -> Transition {
        use StarPhase::{Assigned, Draining, Ended, Ready, Starting, Stopping, Unready};
        let process = Some((self.below(9) as u32, self.number()));
        let cause = self.one_of(&[ExitCause::Code(0), ExitCause::Code(-1), ExitCause::OutOfMemory, ExitCause::Unknown]);
        let exit = Some(Exit { cause, asked: self.below(2) == 0 });
        Transition {
            star: StarId(self.below(20)),
            phase: self.one_of(&[Assigned, Starting, Ready, Unready, Draining, Stopping, Ended]),
            process: self.one_of(&[None, process]),
            exit: self.one_of(&[None, exit]),
        }
    }
}

/// The commands of one seed. Assignments mostly know the revision that holds, or none would be taken.
fn sequence(seed: u64) -> Vec<Command> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut state = State::default();
    let mut commands = Vec::new();
    for index in 1..=60 {
        let command = random.command(&state);
        apply(&mut state, index, &command);
        commands.push(command);
    }
    commands
}

const SEEDS: std::ops::Range<u64> = 0..2_000;

#[test]
fn the_same_commands_give_the_same_state() {
    for seed in SEEDS {
        assert_eq!(after(&sequence(seed)), after(&sequence(seed)), "seed {seed}");
    }
}

#[test]
fn whatever_is_said_the_state_makes_sense() {
    let mut stars = 0;
    for seed in SEEDS {
        let mut state = State::default();
        for (at, command) in sequence(seed).iter().enumerate() {
            let before = state.clone();
            let index = at as u64 + 1;
            let changes = apply(&mut state, index, command);
            check(&before, &state, &changes).unwrap_or_else(|what| panic!("seed {seed}, {index}: {what}\n{command:?}"));
        }
        stars += state.stars.len();
    }
    // Or the test would show nothing about them.
    assert!(stars > 1_000, "only {stars} stars came into being");
}

/// Keys of what is in one and not, or otherwise, in the other.
fn differ<K: Ord + Clone, V: PartialEq>(a: &BTreeMap<K, V>, b: &BTreeMap<K, V>) -> impl Iterator<Item = K> {
    let keys = a.keys().chain(b.keys()).filter(|key| a.get(key) != b.get(key));
    keys.cloned().collect::<Vec<K>>().into_iter()
}

/// By looking at all of them.
fn all_where(state: &State, is_meant: impl Fn(&StarRecord) -> bool) -> Vec<StarId> {
    state.stars.values().filter(|star| is_meant(star)).map(|star| star.id).collect()
}

fn check(before: &State, state: &State, changes: &[Change]) -> Result<(), &'static str> {
    let must = |holds: bool, what: &'static str| if holds { Ok(()) } else { Err(what) };
    must(state.index == before.index + 1, "the index is the command's")?;
    must(state.events.len() <= EVENTS_MAX, "events are bounded")?;

    let mut unchanged = before.clone();
    unchanged.index = state.index;
    let all_refused = changes.iter().all(|change| matches!(change, Change::Refused { .. }));
    must(!all_refused || *state == unchanged, "a refused command, and one that says nothing new, changes nothing")?;

    let told = touched(state, changes);
    let is_told = |part: Part| told.contains(&part);
    must(differ(&before.apps, &state.apps).all(|app| is_told(Part::App(app))), "who watches apps is told")?;
    must(differ(&before.services, &state.services).all(|key| is_told(Part::Service(key))), "who watches services is")?;
    for star in differ(&before.stars, &state.stars) {
        let record = state.stars.get(&star).or(before.stars.get(&star));
        let service = record.ok_or("a star is known")?.service.clone();
        must(is_told(Part::Star(service, star)), "who watches stars is told")?;
    }
    must(!all_refused || told.is_empty(), "nobody is told of what was refused")?;

    for (app, record) in &state.apps {
        must(record.version <= state.index, "a version is an index that was")?;
        for (name, spec) in &record.spec.services {
            let service = state.services.get(&record.spec.service_key(name));
            must(service.is_some_and(|service| service.app == *app), "an app has the services it asks for")?;
            must(service.is_some_and(|service| service.spec == *spec), "as it asks for them")?;
        }
    }
    for (key, service) in &state.services {
        let app = state.apps.get(&service.app);
        must(app.is_some_and(|app| app.spec.services.contains_key(&key.name)), "a service belongs to an app")?;
        must(service.spec.instances <= INSTANCES_MAX, "nobody has too many stars")?;
        must(service.wanted() <= service.spec.instances, "no more stars are wanted than asked for")?;
        must(service.revision <= state.index, "a revision is an index that was")?;
    }
    for (id, star) in &state.stars {
        must(star.id == *id, "a star is known by its id")?;
        let is_over = star.phase == StarPhase::Ended;
        must(star.exit.is_some() == is_over && star.ended.is_some() == is_over, "what has ended says how and when")?;
        match before.stars.get(id) {
            None => must(star.generation == state.index, "a new star's generation is the index that brought it")?,
            Some(was) => {
                let turned_ready = was.phase == StarPhase::Unready && star.phase == StarPhase::Ready;
                must(star.phase >= was.phase || turned_ready, "a star goes no way back")?;
                let same = (star.generation, star.revision, star.ordinal, &star.service);
                let as_was = (was.generation, was.revision, was.ordinal, &was.service);
                must(same == as_was && was.template.can_become(&star.template), "a star stays who it is")?;
                let limited = was.template.limits != star.template.limits;
                let told = changes.contains(&Change::StarLimited { star: *id });
                must(limited == told && !(limited && is_over), "who may use something else is told, and lives")?;
            }
        }
    }
    for service in ["web", "api", "team/web"].map(name) {
        let found: Vec<StarId> = state.stars_of(&service).map(|star| star.id).collect();
        must(found == all_where(state, |star| star.service == service), "the stars of a service are found")?;
        let volume = VolumeKey { namespace: service.namespace.clone(), name: "data".parse().unwrap() };
        let has = |star: &StarRecord| State::volumes_of(&star.service, &star.template).any(|other| other == volume);
        let found: Vec<StarId> = state.stars.of_volume(&volume).map(|star| star.id).collect();
        must(found == all_where(state, has), "the stars of a volume are found")?;
        let one = state.stars_of(&service).next().is_some();
        must(one == state.stars.services().any(|key| *key == service), "services with stars are known")?;
    }
    for node in [NodeId(0), NodeId(1)] {
        let found: Vec<StarId> = state.stars.on_node(node).map(|star| star.id).collect();
        must(found == all_where(state, |star| star.node == node), "the stars of a machine are found")?;
        let mut load = Load::default();
        for star in state.stars.values().filter(|star| star.node == node && star.phase != StarPhase::Ended) {
            load.stars += 1;
            load.memory += star.template.limits.memory.map_or(0, |memory| memory.0);
            load.cpu += star.template.limits.cpu.map_or(0, |cpu| u64::from(cpu.0));
            load.disk += star.template.limits.disk.map_or(0, |disk| disk.0);
            let tenants = || {
                let in_it = state.stars.values().filter(|other| other.place == Some(star.id));
                in_it.filter(|other| other.phase != StarPhase::Ended)
            };
            must(tenants().count() <= 1, "a place has one star")?;
            let given = tenants().next().map(|tenant| tenant.template.reserve).unwrap_or_default();
            load.kept = load.kept.with(&star.template.reserve.less(&given), 1);
            if let (Some(port), Network::Host) = (star.port, star.template.network) {
                *load.ports.entry(port).or_default() += 1;
            }
        }
        must(state.stars.load_of(node).cloned().unwrap_or_default() == load, "what a machine has to do is known")?;
    }
    let lost = before.stars.values().filter(|star| !state.stars.contains_key(&star.id));
    must(lost.into_iter().all(|star| star.phase == StarPhase::Ended), "only ended stars are forgotten")
}

#[test]
fn limits_change_while_stars_run_and_only_theirs() {
    let mut state = State::default();
    let mut index = 0;
    let mut run = |state: &mut State, command: Command| {
        index += 1;
        apply(state, index, &command)
    };
    run(&mut state, web(2, "a"));
    run(&mut state, assign(1, 1));
    run(&mut state, ended(1, ExitCause::Code(1), false));
    run(&mut state, assign(2, 1));
    let changes = run(&mut state, limited(64));
    assert!(changes.contains(&Change::StarLimited { star: StarId(2) }), "{changes:?}");
    assert!(!changes.contains(&Change::StarLimited { star: StarId(1) }), "it has ended");
    let memory = |state: &State, star: u64| state.stars[&StarId(star)].template.limits.memory;
    assert_eq!((memory(&state, 1), memory(&state, 2)), (Limits::DEFAULT.memory, Some(Bytes::mib(64))));
    assert_eq!(state.services[&name("web")].revision, 1, "nothing is replaced");
    assert_eq!(run(&mut state, limited(64)), [], "once is enough");
    // The same by a description: limits in place, anything more by replacement.
    let changes = run(&mut state, web(2, "a"));
    assert!(changes.contains(&Change::StarLimited { star: StarId(2) }), "{changes:?}");
    assert_eq!(state.services[&name("web")].revision, 1);
    run(&mut state, limited(64));
    let changes = run(&mut state, web(2, "b"));
    assert!(!changes.iter().any(|change| matches!(change, Change::StarLimited { .. })), "{changes:?}");
    assert_eq!(memory(&state, 2), Some(Bytes::mib(64)), "a star that is replaced keeps what it has");
}

#[test]
fn weaker_walls_and_secrets_are_among_the_events() {
    let mut state = State::default();
    let last = |state: &State| state.events.back().unwrap().what.clone();
    let mut weak = service(1, "a", RestartPolicy::Always);
    weak.template.program = Program::Command(vec!["x".to_owned()]);
    let usual = weak.clone();
    weak.template.network = Network::Host;
    weak.template.weakened.no_seccomp = true;
    weak.template.weakened.capabilities = [model::Capability::Setuid].into();
    apply(&mut state, 1, &put("shop", &[("web", weak.clone())], None));
    let expected =
        "service `web` runs with weaker walls: the host's network, no system call filter, capabilities setuid";
    assert_eq!(last(&state), expected);
    weak.template.args.push("more".to_owned());
    apply(&mut state, 2, &put("shop", &[("web", weak)], None));
    assert_eq!(last(&state), "service `web` changed: its stars are replaced", "told once");
    apply(&mut state, 3, &put("shop", &[("web", usual)], None));
    assert_eq!(last(&state), "service `web` has every wall again");
    let secret = "team/db".parse().unwrap();
    let noted = Command::SecretChanged { secret, change: model::SecretChange::Replaced, wall: WALL };
    assert_eq!(apply(&mut state, 4, &noted), []);
    assert_eq!(last(&state), "secret `team/db` set anew");
    let secrets = vec!["team/db".parse().unwrap()];
    apply(&mut state, 5, &Command::SecretsRead { secrets, uid: 1000, star: None, wall: WALL });
    assert_eq!(last(&state), "secret `team/db` read by uid 1000");
}

#[test]
fn a_star_that_is_given_secrets_is_told_of_once() {
    let mut state = State::default();
    let mut bound = service(1, "a", RestartPolicy::Always);
    bound.template.interior.secrets.insert("/run/secrets/db".to_owned(), "db".parse().unwrap());
    bound.template.interior.env_secrets.insert("KEY".to_owned(), "key".parse().unwrap());
    apply(&mut state, 1, &put("shop", &[("web", bound)], None));
    apply(&mut state, 2, &assign(7, 1));
    let events = |state: &State| state.events.iter().map(|event| event.what.clone()).collect::<Vec<_>>();
    let before = events(&state);
    // A start that fails has no process, and gave nothing.
    let step = |star: u64, phase, process| Transition { star: StarId(star), phase, process, exit: None };
    let steps = |changes| Command::Transitions { changes, wall: WALL };
    apply(&mut state, 3, &steps(vec![step(7, StarPhase::Starting, None)]));
    assert_eq!(events(&state), before);
    apply(&mut state, 4, &steps(vec![step(7, StarPhase::Ready, Some((9, 9)))]));
    apply(&mut state, 5, &steps(vec![step(7, StarPhase::Unready, Some((9, 9)))]));
    let told: Vec<_> = state.events.iter().filter(|event| event.what.contains("secret")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].what, "star `web-7` was given secrets `db`, `key`");
    assert_eq!(told[0].about.star.as_deref(), Some("web-7"));
    // Whoever goes into it could read them.
    let star = Some((told[0].about.service.clone().unwrap(), "web-7".to_owned()));
    let secrets = state.stars[&StarId(7)].secrets();
    apply(&mut state, 6, &Command::SecretsRead { secrets, uid: 0, star, wall: WALL });
    let last = state.events.back().unwrap();
    assert_eq!(last.what, "uid 0 went into star `web-7`, which has secrets `db`, `key`");
    assert_eq!(last.about.star.as_deref(), Some("web-7"));
}

#[test]
fn a_service_whose_stars_all_ran_to_their_end_runs_again_when_it_is_started() {
    let mut state = State::default();
    let job = put("shop", &[("web", service(2, "a", RestartPolicy::Never))], None);
    for (index, command) in (1..).zip([job, assign(1, 1), assign(2, 1)]) {
        apply(&mut state, index, &command);
    }
    let start = Command::Start { service: name("web"), wall: WALL };
    apply(&mut state, 4, &ended(1, ExitCause::Code(0), false));
    apply(&mut state, 5, &start);
    assert_eq!(state.services[&name("web")].wanted(), 1, "one still runs: what is done stays done");
    apply(&mut state, 6, &ended(2, ExitCause::Code(3), false));
    assert_eq!(state.services[&name("web")].wanted(), 0);
    apply(&mut state, 7, &start);
    assert_eq!(state.services[&name("web")].wanted(), 2);
}

#[test]
fn stars_made_from_the_same_share_it() {
    let mut state = after(&[web(2, "a"), assign(1, 1), assign(2, 1)]);
    let shared = |state: &State, a: u64, b: u64| {
        Arc::ptr_eq(&state.stars[&StarId(a)].template, &state.stars[&StarId(b)].template)
    };
    assert!(shared(&state, 1, 2));
    apply(&mut state, 4, &limited(64));
    assert!(shared(&state, 1, 2), "other limits are shared as well");
    assert_eq!(state.stars[&StarId(1)].template.limits.memory, Some(Bytes::mib(64)));
    apply(&mut state, 5, &web(2, "b"));
    apply(&mut state, 6, &assign(3, 5));
    assert!(!shared(&state, 1, 3));
    assert_eq!(state.stars[&StarId(1)].template.args, ["a"], "a star stays what it was made from");
}
