//! Machines that come, go, are given up and come back, and what that does to stars and volumes.

use std::collections::BTreeMap;

use model::taint::TAINTS_MAX;
use model::{
    AppSpec, BundleId, Bytes, Code, ContentHash, Duty, Exit, ExitCause, Limits, Name, NamespaceChange, Network,
    NodeFacts, NodeId, NodeRole, Overcommit, Placement, Priority, Probe, ProbeKind, Program, QuotaChange, Reserve,
    RestartPolicy, ServiceKey, ServiceSpec, Standing, StarId, StarPhase, StarTemplate, Taint, VolumeKey, VolumeMount,
    WallTime,
};
use state::{Assignment, Change, Command, Part, State, Transition, apply, touched};

const WALL: WallTime = WallTime(5);

/// A state and the log that led to it.
#[derive(Default)]
struct World {
    state: State,
}

impl World {
    /// With nodes 1, 2 and 3 and an app of the services `web` and `db`, whose stars have a volume.
    fn of_three() -> Self {
        let mut world = Self::default();
        world.does(found());
        world.does(admit("b"));
        world.does(admit("c"));
        let services = [("web", Vec::new()), ("db", vec![volume()])];
        let services = services.map(|(name, volumes)| (name.parse().unwrap(), service(volumes)));
        world.does(Command::PutApp {
            spec: AppSpec { app: "shop".parse().unwrap(), services: services.into() },
            base: None,
            wall: WALL,
        });
        world
    }

    /// Whoever watches is told of everything that is other than it was.
    fn apply(&mut self, command: Command) -> Vec<Change> {
        let before = self.state.clone();
        let index = before.index + 1;
        let changes = apply(&mut self.state, index, &command);
        let (state, told) = (&self.state, touched(&self.state, &changes));
        let volumes = differ(&before.homes, &state.homes).map(Part::Volume);
        let secrets = differ(&before.secrets, &state.secrets).map(Part::Secret);
        let nodes = differ(&before.nodes, &state.nodes).map(Part::Node);
        let services = differ(&before.services, &state.services).map(Part::Service);
        let security = (before.security != state.security).then_some(Part::Security);
        for part in volumes.chain(secrets).chain(nodes).chain(services).chain(security) {
            assert!(told.contains(&part), "{part} is not in {told:?} of {command:?}");
        }
        changes
    }

    fn does(&mut self, command: Command) {
        let changes = self.apply(command);
        assert!(!changes.iter().any(|change| matches!(change, Change::Refused { .. })), "{changes:?}");
    }

    #[track_caller]
    fn refuses(&mut self, command: Command, code: Code, says: &str) {
        let changes = self.apply(command);
        let [Change::Refused { problem }] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!(problem.code, code, "{problem}");
        assert!(problem.message.contains(says), "{problem}");
    }

    fn phase(&self, star: u64) -> StarPhase {
        self.state.stars[&StarId(star)].phase
    }

    fn standing(&self, node: u64) -> Standing {
        self.state.nodes[&NodeId(node)].standing
    }
}

/// Keys of what is in one and not, or otherwise, in the other.
fn differ<K: Ord + Clone, V: PartialEq>(a: &BTreeMap<K, V>, b: &BTreeMap<K, V>) -> impl Iterator<Item = K> {
    let keys = a.keys().chain(b.keys()).filter(|key| a.get(key) != b.get(key));
    keys.cloned().collect::<Vec<K>>().into_iter()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn found() -> Command {
    let address = "10.0.0.1:7946".to_owned();
    Command::Found { cluster: name("test"), name: name("a"), address, facts: Box::default(), wall: WALL }
}

fn admit(of: &str) -> Command {
    let (name, address) = (name(of), "10.0.0.2:7946".to_owned());
    Command::AdmitNode { name, role: NodeRole::Worker, address, facts: Box::default(), wall: WALL, ticket: None }
}

fn volume() -> VolumeMount {
    VolumeMount { volume: name("data"), path: "/data".to_owned(), size: None }
}

fn service(volumes: Vec<VolumeMount>) -> ServiceSpec {
    ServiceSpec {
        placement: Default::default(),
        update: Default::default(),
        job: None,
        hold: None,
        template: StarTemplate {
            program: Program::Script("x.rads".to_owned()),
            args: Vec::new(),
            bundle: BundleId(ContentHash([0; 32])),
            rootfs: None,
            env: BTreeMap::new(),
            limits: Limits::DEFAULT,
            volumes,
            network: Network::None,
            port: Some(80),
            probe: Probe::new(ProbeKind::Tcp),
            restart: RestartPolicy::Always,
            grace_ms: 1_000,
            stop_signal: None,
            deadline_ms: None,
            hooks: Default::default(),
            health: Default::default(),
            interior: Default::default(),
            weakened: Default::default(),
            access: None,
            reserve: Default::default(),
            checkpoint: false,
            singleton: false,
        },
        instances: 3,
        entry: None,
    }
}

fn assign(service: &str, star: u64, node: u64) -> Command {
    let assignment = Assignment {
        star: StarId(star),
        service: service.parse().unwrap(),
        revision: 4,
        ordinal: star as u32,
        node: NodeId(node),
        port: Some(80),
        place: None,
    };
    Command::Assign { stars: vec![assignment], wall: WALL }
}

#[test]
fn a_machine_that_was_alone_keeps_what_it_runs_when_it_founds_a_constellation() {
    let mut world = World::default();
    world.refuses(admit("b"), Code::Conflict, "in no constellation");
    world.does(Command::PutApp {
        spec: AppSpec { app: "shop".parse().unwrap(), services: [(name("web"), service(vec![volume()]))].into() },
        base: None,
        wall: WALL,
    });
    let Command::Assign { mut stars, wall } = assign("web", 7, NodeId::FIRST.0) else { unreachable!() };
    stars[0].revision = 2;
    world.does(Command::Assign { stars, wall });
    let before = world.state.stars.clone();
    world.does(found());
    assert_eq!(world.state.stars, before);
    assert_eq!(world.standing(NodeId::FIRST.0), Standing::Up);
    world.refuses(found(), Code::AlreadyExists, "constellation `test` already");
}

#[test]
fn a_node_gets_the_index_it_was_admitted_at_and_nobody_else_ever_does() {
    let mut world = World::of_three();
    assert!(world.state.nodes.keys().copied().eq([NodeId(1), NodeId(2), NodeId(3)]));
    world.refuses(admit("b"), Code::AlreadyExists, "a node `b` already");
    world.does(Command::RemoveNode { node: NodeId(2), wall: WALL });
    world.does(admit("b"));
    assert!(world.state.nodes.keys().copied().eq([NodeId(1), NodeId(2), NodeId(3), NodeId(7)]));
    world.refuses(Command::WelcomeNode { node: NodeId(2), wall: WALL }, Code::NotFound, "no node");
    assert_eq!(world.standing(2), Standing::Left);
}

#[test]
fn what_ran_on_a_lost_node_has_ended_and_its_place_is_free() {
    let mut world = World::of_three();
    world.does(assign("web", 1, 2));
    world.does(assign("web", 2, 3));
    let moved = Transition { star: StarId(1), phase: StarPhase::Ready, process: Some((9, 9)), exit: None };
    world.does(Command::Transitions { changes: vec![moved], wall: WALL });
    world.does(Command::LoseNode { node: NodeId(2), wall: WALL });
    assert_eq!((world.phase(1), world.phase(2)), (StarPhase::Ended, StarPhase::Assigned));
    assert_eq!(world.state.stars[&StarId(1)].exit.as_ref().unwrap().cause, ExitCause::NodeLost);
    assert_eq!(world.state.services[&"web".parse::<ServiceKey>().unwrap()].restarts, 1);
    world.refuses(assign("web", 3, 2), Code::Conflict, "takes no stars");
    // What it says of its stars by now comes too late.
    let late = Transition { star: StarId(1), phase: StarPhase::Ready, process: None, exit: None };
    world.does(Command::Transitions { changes: vec![late], wall: WALL });
    assert_eq!(world.phase(1), StarPhase::Ended);
    world.does(Command::WelcomeNode { node: NodeId(2), wall: WALL });
    world.does(assign("web", 3, 2));
}

#[test]
fn a_node_that_takes_no_stars_gets_none() {
    let mut world = World::of_three();
    for duty in [Duty::Cordoned, Duty::Draining] {
        world.does(Command::SetDuty { node: NodeId(2), duty, wall: WALL });
        world.refuses(assign("web", 1, 2), Code::Conflict, "takes no stars");
    }
    world.does(Command::SetDuty { node: NodeId(2), duty: Duty::Takes, wall: WALL });
    world.does(assign("web", 1, 2));
    world.refuses(assign("web", 2, 99), Code::Conflict, "takes no stars");
}

#[test]
fn what_is_kept_on_a_node_is_kept_once_whoever_planned_it() {
    let mut world = World::of_three();
    let reserved = Reserve { memory: Bytes::mib(100), ..Reserve::default() };
    let facts = Box::new(NodeFacts { cores: 2, memory: Bytes::mib(1_100), reserved, ..NodeFacts::default() });
    world.does(Command::DescribeNode { node: NodeId(2), address: "b:1".to_owned(), facts, wall: WALL });
    let mut keeps = service(Vec::new());
    keeps.template.reserve = Reserve { memory: Bytes::mib(400), ..Reserve::default() };
    let services = [(name("kept"), keeps)].into();
    let spec = AppSpec { app: "kept".parse().unwrap(), services };
    world.does(Command::PutApp { spec, base: None, wall: WALL });
    let revision = world.state.index;
    let kept = |star: u64| {
        let Command::Assign { mut stars, wall } = assign("kept", star, 2) else { unreachable!() };
        stars[0].revision = revision;
        Command::Assign { stars, wall }
    };
    world.does(kept(1));
    world.does(kept(2));
    world.refuses(
        kept(3),
        Code::NoCapacity,
        "node `b` has no room for a star of `kept`: a star keeps 400 MiB of memory, 200 MiB is free",
    );
    // What keeps nothing comes all the same.
    world.does(assign("web", 4, 2));
    let ended = Transition { star: StarId(1), phase: StarPhase::Ended, process: None, exit: None };
    world.does(Command::Transitions { changes: vec![ended], wall: WALL });
    world.does(kept(3));
}

#[test]
fn how_often_a_node_is_kept_is_its_operators_to_say_and_not_its_own() {
    let mut world = World::of_three();
    let of = |world: &World, node: u64| world.state.nodes[&NodeId(node)].facts.overcommit;
    let overcommit = |cpu_percent, memory_percent| Overcommit { cpu_percent, memory_percent };
    let set = |node: Option<u64>, overcommit| Command::SetOvercommit { node: node.map(NodeId), overcommit, wall: WALL };
    world.does(set(None, Some(overcommit(200, 100))));
    world.does(set(Some(2), Some(overcommit(100, 150))));
    assert_eq!(
        [1, 2, 3].map(|node| of(&world, node)),
        [(200, 100), (100, 150), (200, 100)].map(|(c, m)| overcommit(c, m))
    );
    // Whatever a node says of itself.
    let facts = Box::new(NodeFacts { cores: 2, overcommit: overcommit(1_000, 1_000), ..NodeFacts::default() });
    for node in [2, 3] {
        let (address, facts) = ("b:1".to_owned(), facts.clone());
        world.does(Command::DescribeNode { node: NodeId(node), address, facts, wall: WALL });
    }
    assert_eq!((of(&world, 2), of(&world, 3)), (overcommit(100, 150), overcommit(200, 100)));
    let record = &world.state.nodes[&NodeId(2)];
    assert!(
        record.is_described("b:1", &facts)
            && record.is_described("b:1", &NodeFacts { cores: 2, ..NodeFacts::default() })
    );
    assert!(!record.is_described("b:2", &facts) && !record.is_described("b:1", &NodeFacts::default()));
    world.does(set(Some(2), None));
    assert_eq!(of(&world, 2), overcommit(200, 100));
    world.does(set(None, None));
    assert_eq!([1, 2, 3].map(|node| of(&world, node)), [Overcommit::default(); 3]);
    world.refuses(set(None, Some(overcommit(50, 100))), Code::InvalidValue, "50 % of a machine's processors");
    world.refuses(set(Some(9), None), Code::NotFound, "no node");
}

#[test]
fn stars_with_a_volume_stay_where_it_lies_until_that_node_leaves() {
    let mut world = World::of_three();
    let data: VolumeKey = "data".parse().unwrap();
    world.does(assign("db", 1, 2));
    assert_eq!(world.state.homes.get(&data), Some(&NodeId(2)));
    world.refuses(assign("db", 2, 3), Code::Conflict, "volume `data` lies on node");
    world.does(assign("web", 2, 3));
    world.does(Command::LoseNode { node: NodeId(2), wall: WALL });
    world.refuses(assign("db", 3, 3), Code::Conflict, "volume `data` lies on node");
    world.does(Command::RemoveNode { node: NodeId(2), wall: WALL });
    world.does(assign("db", 3, 3));
    assert_eq!(world.state.homes.get(&data), Some(&NodeId(3)));
}

#[test]
fn what_is_given_up_with_a_node_is_told_where_people_look() {
    let mut world = World::of_three();
    world.does(assign("db", 1, 2));
    assert!(world.state.volumes_on(NodeId(3)).is_empty());
    let author = state::Author::agent(NodeId(1));
    let remove = |node: u64| Command::By {
        author: author.clone(),
        command: Box::new(Command::RemoveNode { node: NodeId(node), wall: WALL }),
        wall: WALL,
    };
    world.does(remove(2));
    assert_eq!(world.state.events.back().unwrap().what, "node `b` left; given up with it: volume `data` of `db`");
    let record = world.state.audit.records.back().unwrap();
    assert_eq!(record.what, "remove node `node_0000000000002`; given up with it: volume `data` of `db`");
    // Who has none is only taken out.
    world.does(remove(3));
    assert_eq!(world.state.events.back().unwrap().what, "node `c` left");
    assert_eq!(world.state.audit.records.back().unwrap().what, "remove node `node_0000000000003`");
}

#[test]
fn a_volume_goes_when_nobody_has_it() {
    let mut world = World::of_three();
    let delete = |name: &str| Command::DeleteVolume { volume: name.parse().unwrap(), wall: WALL };
    world.refuses(delete("data"), Code::NotFound, "no volume `data`");
    world.does(assign("db", 1, 2));
    world.refuses(delete("data"), Code::Conflict, "in use by service `db`");
    world.does(Command::Stop { service: "db".parse().unwrap(), wall: WALL });
    world.refuses(delete("data"), Code::Conflict, "in use by service `db`");
    world.does(Command::RemoveService { service: "db".parse().unwrap(), wall: WALL });
    // Its star has not ended yet.
    world.refuses(delete("data"), Code::Conflict, "in use by service `db`");
    world.refuses(delete("team/data"), Code::NotFound, "no volume `team/data`");
    let exit = Some(Exit { cause: ExitCause::Code(0), asked: true });
    let ended = Transition { star: StarId(1), phase: StarPhase::Ended, process: None, exit };
    world.does(Command::Transitions { changes: vec![ended], wall: WALL });
    world.does(delete("data"));
    assert!(world.state.homes.is_empty());
}

#[test]
fn what_a_node_says_of_itself_has_bounds() {
    let mut world = World::of_three();
    let describe = |facts: NodeFacts, address: &str| Command::DescribeNode {
        node: NodeId(2),
        address: address.to_owned(),
        facts: Box::new(facts),
        wall: WALL,
    };
    let labels = |count: usize| (0..count).map(|n| (n.to_string(), "x".to_owned())).collect();
    let with = |labels| NodeFacts { labels, ..NodeFacts::default() };
    world.does(describe(with(labels(64)), "10.0.0.2:7946"));
    world.refuses(describe(with(labels(65)), "10.0.0.2:7946"), Code::InvalidValue, "at most 64 labels");
    let long = BTreeMap::from([("a".repeat(300), String::new())]);
    world.refuses(describe(with(long), "10.0.0.2:7946"), Code::InvalidValue, "is not a label");
    for address in ["10.0.0.2 7946", "a\nb", &"x".repeat(300)] {
        world.refuses(describe(NodeFacts::default(), address), Code::InvalidValue, "the address of a node");
    }
}

#[test]
fn secrets_of_a_constellation_are_sealed_counted_and_kept_while_they_are_named() {
    let secret: model::SecretKey = "password".parse().unwrap();
    let set = |sealed: &[u8]| Command::SetSecret { secret: secret.clone(), sealed: sealed.to_vec(), wall: WALL };
    let delete = Command::DeleteSecret { secret: secret.clone(), wall: WALL };
    World::default().refuses(set(b"sealed"), Code::Conflict, "alone");

    let mut world = World::of_three();
    let mut service = service(Vec::new());
    let path = "/run/secrets/password".to_owned();
    service.template.interior.secrets.insert(path, "password".parse().unwrap());
    let spec = AppSpec { app: "bank".parse().unwrap(), services: [("safe".parse().unwrap(), service)].into() };
    let put = Command::PutApp { spec, base: None, wall: WALL };
    world.refuses(put.clone(), Code::SecretMissing, "service `safe`: there is no secret `password`");
    world.refuses(set(b""), Code::InvalidValue, "between 1 byte and 64 KiB");
    world.refuses(set(&[7; 66_000]), Code::InvalidValue, "between 1 byte and 64 KiB");
    world.refuses(delete.clone(), Code::SecretMissing, "there is no secret `password`");
    world.does(set(b"one"));
    world.does(set(b"two"));
    assert_eq!(world.state.secret_views()[0].version, 2);
    assert_eq!(world.state.secrets[&secret].sealed, b"two");
    world.does(put);
    world.refuses(delete.clone(), Code::Conflict, "in use by service `safe`");
    world.does(Command::RemoveApp { app: "bank".parse().unwrap(), wall: WALL });
    world.does(delete);
    assert!(world.state.secrets.is_empty());
}

#[test]
fn that_a_node_was_started_twice_is_an_event_and_changes_nothing_else() {
    let mut world = World::of_three();
    let node = *world.state.nodes.last_key_value().unwrap().0;
    let note = |node, address: &str| Command::NoteTwin { node, address: address.to_owned(), wall: WALL };
    let before = world.state.clone();
    world.does(note(node, "10.0.0.9"));
    let event = world.state.events.back().unwrap();
    assert!(event.what.contains("node `c` was started once more at `10.0.0.9`"), "{}", event.what);
    assert_eq!((world.state.nodes.len(), &world.state.nodes), (before.nodes.len(), &before.nodes));
    world.refuses(note(NodeId(77), "10.0.0.9"), Code::NotFound, "no node");
    world.refuses(note(node, "two words"), Code::InvalidValue, "host:port");
}

#[test]
fn that_a_node_leads_is_an_event_and_changes_nothing_else() {
    let mut world = World::of_three();
    let node = *world.state.nodes.last_key_value().unwrap().0;
    let before = world.state.clone();
    world.does(Command::NoteLeader { node, wall: WALL });
    assert_eq!(world.state.events.back().unwrap().what, "node `c` leads");
    let State { index, events, .. } = world.state.clone();
    assert_eq!(world.state, State { index, events, ..before });
    world.refuses(Command::NoteLeader { node: NodeId(77), wall: WALL }, Code::NotFound, "no node");
}

fn taint(node: u64, name: &str, taint: Option<Taint>) -> Command {
    Command::SetTaint { node: NodeId(node), name: name.to_owned(), taint, wall: WALL }
}

#[test]
fn a_tainted_node_gets_no_star_of_who_does_not_tolerate_it() {
    let mut world = World::of_three();
    world.does(taint(2, "gpu", Some(Taint { value: Some("a100".to_owned()), evicts: false })));
    world.refuses(assign("web", 1, 2), Code::Conflict, "node `b` gets no star of `web`: it is tainted `gpu = a100`");
    world.does(assign("web", 1, 3));
    world.does(taint(3, "old", Some(Taint::default())));
    assert_eq!(world.phase(1), StarPhase::Assigned, "who is there stays");
    world.does(taint(2, "gpu", None));
    world.does(assign("web", 2, 2));
    world.refuses(taint(2, "gpu", None), Code::NotFound, "node `b` has no taint `gpu`");
    world.refuses(taint(9, "gpu", Some(Taint::default())), Code::NotFound, "no node");
    for odd in ["", "a b", "a=b", "*"] {
        world.refuses(taint(2, odd, Some(Taint { value: Some("x".to_owned()), evicts: true })), Code::InvalidValue, "");
    }
    for number in 0..TAINTS_MAX {
        world.does(taint(1, &format!("t{number}"), Some(Taint::default())));
    }
    world.refuses(taint(1, "more", Some(Taint::default())), Code::InvalidValue, "at most 16 taints");
}

/// What `web` and `db` are now, with other placements.
fn placed(world: &World, web: Placement, db: Placement) -> Command {
    let mut spec = world.state.apps[&"shop".parse::<model::AppKey>().unwrap()].spec.clone();
    for (name, placement) in [("web", web), ("db", db)] {
        spec.services.get_mut(&name.parse::<Name>().unwrap()).unwrap().placement = placement;
    }
    Command::PutApp { spec, base: None, wall: WALL }
}

fn priority(priority: u8) -> Placement {
    Placement { priority: Priority(priority), ..Placement::default() }
}

#[test]
fn who_gives_way_is_lower_at_the_moment_it_is_written() {
    let mut world = World::of_three();
    world.does(assign("web", 1, 2));
    let preempt =
        || Command::Preempt { service: "db".parse().unwrap(), stars: vec![StarId(1), StarId(99)], wall: WALL };
    world.refuses(preempt(), Code::Conflict, "star `web-1` need not give way to `db` any more");
    assert_eq!(world.phase(1), StarPhase::Assigned);
    world.does(placed(&world, priority(49), priority(50)));
    world.does(preempt());
    assert_eq!(world.phase(1), StarPhase::Draining);
    let told = "star `web-1` gives way to a star of `db` (priority 50 over 49)";
    assert_eq!(world.state.events.back().unwrap().what, told);
    world.does(preempt());
    assert_eq!(world.state.events.back().unwrap().what, told, "once");
}

#[test]
fn a_service_on_every_node_is_wanted_as_often_as_there_are_nodes_for_it() {
    let mut world = World::default();
    let everywhere = || Placement { every_node: true, ..Placement::default() };
    let mut spec = service(Vec::new());
    (spec.instances, spec.placement) = (1, everywhere());
    let app = |spec: ServiceSpec| Command::PutApp {
        spec: AppSpec { app: "shop".parse().unwrap(), services: [(name("web"), spec)].into() },
        base: None,
        wall: WALL,
    };
    world.does(app(spec.clone()));
    let wanted = |world: &World| world.state.services[&"web".parse::<ServiceKey>().unwrap()].wanted();
    assert_eq!(wanted(&world), 1, "on a machine that is alone");
    world.does(found());
    assert_eq!(wanted(&world), 0, "what is not known of a node may be anything");
    let describe = |node: u64| {
        let facts = Box::new(NodeFacts { cores: 2, ..NodeFacts::default() });
        Command::DescribeNode { node: NodeId(node), address: "10.0.0.1:7946".to_owned(), facts, wall: WALL }
    };
    world.does(describe(1));
    world.does(admit("b"));
    let b = world.state.index;
    world.does(describe(b));
    assert_eq!(wanted(&world), 2);
    for (command, expected) in [
        (Command::SetDuty { node: NodeId(b), duty: Duty::Cordoned, wall: WALL }, 2),
        (Command::SetDuty { node: NodeId(b), duty: Duty::Draining, wall: WALL }, 1),
        (Command::SetDuty { node: NodeId(b), duty: Duty::Takes, wall: WALL }, 2),
        (taint(1, "gpu", Some(Taint::default())), 1),
        (Command::LoseNode { node: NodeId(b), wall: WALL }, 0),
        (Command::WelcomeNode { node: NodeId(b), wall: WALL }, 1),
        (taint(1, "gpu", None), 2),
        (Command::RemoveNode { node: NodeId(b), wall: WALL }, 1),
    ] {
        world.does(command);
        assert_eq!(wanted(&world), expected, "{:?}", world.state.events.back());
    }
    world.refuses(
        Command::Scale { service: "web".parse().unwrap(), instances: 3, wall: WALL },
        Code::Conflict,
        "has a star on every node",
    );
    let odd = [
        ServiceSpec { instances: 2, ..spec.clone() },
        ServiceSpec { template: StarTemplate { singleton: true, ..spec.template.clone() }, ..spec.clone() },
        ServiceSpec { template: StarTemplate { volumes: vec![volume()], ..spec.template.clone() }, ..spec.clone() },
    ];
    for spec in odd {
        world.refuses(app(spec), Code::InvalidValue, "`every_node` does not go with");
    }
    world.does(app(service(Vec::new())));
    assert_eq!(wanted(&world), 3);
}

#[test]
fn a_quota_counts_a_star_on_each_node() {
    let mut world = World::default();
    let everywhere = |megabytes| {
        let mut spec = service(Vec::new());
        (spec.instances, spec.placement) = (1, Placement { every_node: true, ..Placement::default() });
        spec.template.limits.memory = Some(Bytes::mib(megabytes));
        Command::PutApp {
            spec: AppSpec { app: "shop".parse().unwrap(), services: [(name("web"), spec)].into() },
            base: None,
            wall: WALL,
        }
    };
    let quota = |megabytes| {
        let memory = Some(Some(Bytes::mib(megabytes)));
        let change =
            NamespaceChange { quota: QuotaChange { memory, ..QuotaChange::default() }, ..NamespaceChange::default() };
        Command::SetNamespace { namespace: Name::default_namespace(), change, new: false, wall: WALL }
    };
    let used = |world: &World| world.state.usage_of(&Name::default_namespace());
    world.does(found());
    for (node, admitted) in [(1, None), (3, Some("b")), (5, Some("c"))] {
        admitted.into_iter().for_each(|name| world.does(admit(name)));
        let facts = Box::new(NodeFacts { cores: 2, ..NodeFacts::default() });
        let address = "10.0.0.1:7946".to_owned();
        world.does(Command::DescribeNode { node: NodeId(node), address, facts, wall: WALL });
    }
    world.does(quota(300));
    world.refuses(everywhere(101), Code::QuotaExceeded, "may have 300 MiB of memory: 0 B are used, 303 MiB more");
    world.does(everywhere(100));
    assert_eq!((used(&world).instances, used(&world).memory), (3, 300 << 20));
    // A machine that comes is not turned away; what it brings is beyond the quota, and nothing more may be asked for.
    world.does(admit("d"));
    let d = NodeId(world.state.index);
    let facts = Box::new(NodeFacts { cores: 2, ..NodeFacts::default() });
    world.does(Command::DescribeNode { node: d, address: "10.0.0.4:7946".to_owned(), facts, wall: WALL });
    assert_eq!((used(&world).instances, used(&world).memory), (4, 400 << 20));
    world.refuses(everywhere(101), Code::QuotaExceeded, "400 MiB are used, 4 MiB more");
    world.does(everywhere(90));
    assert_eq!(used(&world).memory, 360 << 20);
}
