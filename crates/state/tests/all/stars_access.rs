//! What stars may ask for: what their service gives them, as far as who gave it had it, and for as long as it does.

use std::collections::BTreeMap;

use model::{
    Access, AppSpec, BundleId, Code, ContentHash, Fate, Limits, NamespaceChange, Network, NodeFacts, NodeId, NodeRole,
    Probe, ProbeKind, Program, RestartPolicy, Rights, Role, Scope, ServiceKey, ServiceSpec, StarId, StarPhase,
    StarTemplate, WallTime,
};
use state::{Assignment, Author, Change, Command, Grant, Outcome, Proof, Settled, State, Transition, Who, apply};

const WALL: WallTime = WallTime(1_795_000_000_000);
/// What a star of these services is made of.
const FILES: BundleId = BundleId(ContentHash([1; 32]));
const OTHER_FILES: BundleId = BundleId(ContentHash([2; 32]));
/// The first node, and a worker.
const CONTROLLER: NodeId = NodeId(1);

fn scope(namespaces: &str) -> Scope {
    Scope::of(namespaces.split(',').map(|text| text.parse().unwrap()).collect())
}

fn access(role: Role, namespaces: &str) -> Option<Access> {
    let namespaces = match namespaces {
        "" => None,
        "*" => Some(Scope::All),
        some => Some(scope(some)),
    };
    Some(Access { role, namespaces })
}

fn spec(access: Option<Access>) -> ServiceSpec {
    let template = StarTemplate {
        program: Program::Script("x.rads".to_owned()),
        args: Vec::new(),
        bundle: FILES,
        rootfs: None,
        checkpoint: false,
        singleton: false,
        env: BTreeMap::new(),
        limits: Limits::DEFAULT,
        reserve: Default::default(),
        volumes: Vec::new(),
        network: Network::None,
        port: None,
        probe: Probe::new(ProbeKind::Started),
        restart: RestartPolicy::Always,
        grace_ms: 1_000,
        stop_signal: None,
        deadline_ms: None,
        hooks: Default::default(),
        health: Default::default(),
        interior: Default::default(),
        weakened: Default::default(),
        access,
    };
    let (placement, update) = Default::default();
    ServiceSpec { template, instances: 1, entry: None, placement, update, job: None, hold: None }
}

fn put(service: &str, spec: ServiceSpec) -> Command {
    let key: ServiceKey = service.parse().unwrap();
    let app = model::AppKey { namespace: key.namespace, name: key.name.clone() };
    Command::PutApp { spec: AppSpec { app, services: [(key.name, spec)].into() }, base: None, wall: WALL }
}

fn scale(service: &str) -> Command {
    Command::Scale { service: service.parse().unwrap(), instances: 2, wall: WALL }
}

fn namespace(name: &str) -> Command {
    let (namespace, change) = (name.parse().unwrap(), NamespaceChange::default());
    Command::SetNamespace { namespace, change, new: true, wall: WALL }
}

/// A star of a service, on a node.
struct Star {
    id: StarId,
    service: ServiceKey,
    node: NodeId,
}

impl Star {
    fn who(&self) -> Who {
        Who::Star { star: self.id, service: self.service.clone() }
    }
}

#[derive(Default)]
struct World {
    state: State,
}

impl World {
    /// A constellation of a controller, with a worker; an admin deployed `web` and `b/web`, which may ask for nothing.
    fn new() -> (Self, NodeId) {
        let mut world = Self::default();
        let facts = || Box::new(NodeFacts::default());
        let (cluster, name) = ("test".parse().unwrap(), "a".parse().unwrap());
        world
            .write(Command::Found { cluster, name, address: "10.0.0.1:1".to_owned(), facts: facts(), wall: WALL })
            .unwrap();
        let (name, address, role) = ("w".parse().unwrap(), "10.0.0.2:1".to_owned(), NodeRole::Worker);
        world.write(Command::AdmitNode { name, role, address, facts: facts(), wall: WALL, ticket: None }).unwrap();
        let worker = NodeId(world.state.index);
        world.user(put("web", spec(None))).unwrap();
        world.user(put("b/web", spec(None))).unwrap();
        (world, worker)
    }

    fn write(&mut self, command: Command) -> Result<(), (Code, String)> {
        let index = self.state.index + 1;
        let changes = apply(&mut self.state, index, &command);
        changes.into_iter().try_for_each(|change| match change {
            Change::Refused { problem } => Err((problem.code, problem.message)),
            _ => Ok(()),
        })
    }

    fn by(&mut self, who: Who, node: NodeId, command: Command) -> Result<(), (Code, String)> {
        let author = Author { who, node, by_way_of: None, address: None };
        self.write(Command::By { author, command: Box::new(command), wall: WALL })
    }

    /// Somebody who has the controller.
    fn user(&mut self, command: Command) -> Result<(), (Code, String)> {
        self.by(Who::User(0), CONTROLLER, command)
    }

    fn asks(&mut self, star: &Star, command: Command) -> Result<(), (Code, String)> {
        self.by(star.who(), star.node, command)
    }

    #[track_caller]
    fn refused(&mut self, star: &Star, command: Command, says: &str) {
        let before = State { audit: Default::default(), ..self.state.clone() };
        let (code, message) = self.asks(star, command).unwrap_err();
        assert_eq!(code, Code::Forbidden, "{message}");
        assert!(message.contains(says), "{message}");
        let now = State { index: before.index, audit: Default::default(), ..self.state.clone() };
        assert_eq!(now, before, "it was refused and changed something");
    }

    /// Deploys a service with this access, and starts a star of it.
    fn star(&mut self, service: &str, access: Option<Access>, node: NodeId) -> Star {
        self.user(put(service, spec(access))).unwrap();
        self.start(service, node)
    }

    fn start(&mut self, service: &str, node: NodeId) -> Star {
        let (id, service) = (StarId(self.state.index + 100), service.parse::<ServiceKey>().unwrap());
        let revision = self.state.services[&service].revision;
        let star = Assignment {
            star: id,
            service: service.clone(),
            revision,
            ordinal: id.0 as u32,
            node,
            port: None,
            place: None,
        };
        self.write(Command::Assign { stars: vec![star], wall: WALL }).unwrap();
        assert!(self.state.stars.get(&id).is_some());
        Star { id, service, node }
    }
}

#[test]
fn a_star_may_what_its_service_gives_it_and_nothing_else() {
    let (mut world, _) = World::new();
    let star = world.star("ctl", access(Role::Operator, ""), CONTROLLER);
    world.asks(&star, put("more", spec(None))).unwrap();
    world.asks(&star, scale("web")).unwrap();
    let record = world.state.audit.records.back().unwrap();
    assert_eq!((record.author.who.clone(), &record.outcome), (star.who(), &Outcome::Done));
    assert_eq!(record.author.who.to_string(), "service ctl");
    world.refused(&star, scale("b/web"), "`ctl` may not change apps and services: it has no rights in namespace `b`");
    world.refused(&star, put("b/more", spec(None)), "no rights in namespace `b`");
    world.refused(&star, namespace("c"), "this takes an admin");
    let record = world.state.audit.records.back().unwrap();
    assert!(matches!(&record.outcome, Outcome::Refused(why) if why.contains("takes an admin")), "{record:?}");
    let grant =
        Grant { role: Role::Admin, namespaces: Scope::All, proof: Proof::Token(FILES.0), created: WALL, expires: None };
    let admin = world.star("root", access(Role::Admin, "*"), CONTROLLER);
    let grant = Command::AddGrant { name: "eve".parse().unwrap(), grant: Box::new(grant), wall: WALL };
    world.refused(&admin, grant, "no star may");
    let viewer = world.star("eyes", access(Role::Viewer, "*"), CONTROLLER);
    world.refused(&viewer, scale("web"), "it is a viewer");
    let none = world.start("web", CONTROLLER);
    world.refused(&none, scale("web"), "the stars of service `web` may ask for nothing: it has no `access`");
}

#[test]
fn a_star_of_a_kind_of_namespaces_makes_and_ends_those_and_no_others() {
    let (mut world, _) = World::new();
    let star = world.star("envs", access(Role::Admin, "dev-*"), CONTROLLER);
    world.asks(&star, namespace("dev-ann")).unwrap();
    world.asks(&star, put("dev-ann/web", spec(None))).unwrap();
    let delete = |name: &str| Command::DeleteNamespace { namespace: name.parse().unwrap(), force: true, wall: WALL };
    world.asks(&star, delete("dev-ann")).unwrap();
    world.refused(&star, namespace("prod"), "all namespaces");
    world.refused(&star, delete("b"), "all namespaces");
    world.refused(&star, scale("web"), "no rights in namespace `default`");
}

#[test]
fn nobody_gives_stars_more_than_they_have() {
    let (mut world, worker) = World::new();
    let star = world.star("ctl", access(Role::Operator, "default,b"), CONTROLLER);
    world.asks(&star, put("same", spec(access(Role::Operator, "b")))).unwrap();
    world.asks(&star, put("own", spec(access(Role::Operator, "")))).unwrap();
    world.refused(&star, put("more", spec(access(Role::Admin, ""))), "`more` would be admin of its own namespace");
    world.refused(
        &star,
        put("wider", spec(access(Role::Viewer, "*"))),
        "who asks for it is operator of `b`, `default`",
    );
    world.refused(&star, put("kind", spec(access(Role::Operator, "b*"))), "would be operator of b*");
    // Whoever puts other code in the place of some has what that had.
    world.user(put("root", spec(access(Role::Admin, "*")))).unwrap();
    let other = ServiceSpec {
        template: StarTemplate { args: vec!["evil".to_owned()], ..spec(access(Role::Admin, "*")).template },
        ..spec(None)
    };
    world.refused(&star, put("root", other), "`root` would be admin of all namespaces");
    // The control: what stays as it is gives nobody anything.
    world.asks(&star, put("root", ServiceSpec { instances: 3, ..spec(access(Role::Admin, "*")) })).unwrap();
    // People are held to the same, and so are nodes.
    let grant = Grant {
        role: Role::Operator,
        namespaces: scope("b"),
        proof: Proof::Token(FILES.0),
        created: WALL,
        expires: None,
    };
    let authority = state::AuthorityRecord { id: ContentHash([1; 32]), sealed: vec![1] };
    world
        .write(Command::SetAuthorities { authorities: vec![authority], lifetime_days: 7, base: 0, wall: WALL })
        .unwrap();
    world.user(Command::AddGrant { name: "ann".parse().unwrap(), grant: Box::new(grant), wall: WALL }).unwrap();
    let ann = || Who::Grant("ann".parse().unwrap());
    world.by(ann(), CONTROLLER, put("b/x", spec(access(Role::Operator, "")))).unwrap();
    assert!(world.by(ann(), CONTROLLER, put("b/y", spec(access(Role::Operator, "*")))).is_err());
    world.by(Who::User(0), worker, put("z", spec(access(Role::Operator, "*")))).unwrap();
    assert!(world.by(Who::User(0), worker, put("z", spec(access(Role::Admin, "")))).is_err());
}

#[test]
fn a_star_deploys_what_it_was_made_of_behind_the_usual_walls() {
    let (mut world, _) = World::new();
    let star = world.star("ctl", access(Role::Admin, "*"), CONTROLLER);
    let with = |change: fn(&mut StarTemplate)| {
        let mut spec = spec(None);
        change(&mut spec.template);
        spec
    };
    world.asks(&star, put("x", with(|template| template.args = vec!["x".to_owned()]))).unwrap();
    world.refused(
        &star,
        put("x", with(|template| template.bundle = OTHER_FILES)),
        "not made of the files of service `ctl`",
    );
    world.refused(&star, put("x", with(|template| template.network = Network::Host)), "may not weaken the walls");
    world.user(put("other", with(|template| template.bundle = OTHER_FILES))).unwrap();
    world
        .asks(&star, put("other", ServiceSpec { instances: 2, ..with(|template| template.bundle = OTHER_FILES) }))
        .unwrap();
}

#[test]
fn what_is_taken_away_is_gone_for_stars_that_run() {
    let (mut world, _) = World::new();
    let star = world.star("ctl", access(Role::Operator, "default,b"), CONTROLLER);
    let rights = |world: &World| world.state.rights_of_star(star.id);
    assert_eq!(rights(&world), Some(Rights { role: Role::Operator, namespaces: scope("default,b") }));
    // Less: what it was made with, as far as the service still has it.
    world.user(put("ctl", spec(access(Role::Operator, "")))).unwrap();
    assert_eq!(rights(&world), Some(Rights { role: Role::Operator, namespaces: scope("default") }));
    world.refused(&star, scale("b/web"), "no rights in namespace `b`");
    // More is for the stars that follow.
    world.user(put("ctl", spec(access(Role::Admin, "*")))).unwrap();
    assert_eq!(rights(&world), Some(Rights { role: Role::Operator, namespaces: scope("default,b") }));
    world.user(put("ctl", spec(None))).unwrap();
    assert_eq!(rights(&world), None);
    world.refused(&star, scale("web"), "it has no `access`");
    world.user(put("ctl", spec(access(Role::Operator, "")))).unwrap();
    assert!(rights(&world).is_some());
    world.user(Command::RemoveApp { app: "ctl".parse().unwrap(), wall: WALL }).unwrap();
    assert_eq!(rights(&world), None);
    world.refused(&star, scale("web"), "it has no `access`");
    let star = world.star("ctl", access(Role::Operator, ""), CONTROLLER);
    let ended = Transition { star: star.id, phase: StarPhase::Ended, process: None, exit: None };
    world.write(Command::Transitions { changes: vec![ended], wall: WALL }).unwrap();
    assert_eq!(world.state.rights_of_star(star.id), None);
}

#[test]
fn a_node_speaks_for_its_own_stars_and_a_worker_for_no_admin() {
    let (mut world, worker) = World::new();
    let star = world.star("ctl", access(Role::Admin, "*"), CONTROLLER);
    let forged = world.by(star.who(), worker, scale("web")).unwrap_err();
    assert!(forged.1.contains("no star of service `ctl` is known to run where this was asked for"), "{forged:?}");
    let wrong = Star { service: "web".parse().unwrap(), ..star };
    world.refused(&wrong, scale("web"), "no star of service `web`");
    let there = world.start("ctl", worker);
    world.asks(&there, scale("web")).unwrap();
    world.refused(&there, namespace("c"), "this takes an admin");
    world.refused(&there, put("x", spec(access(Role::Admin, ""))), "would be admin");
}

#[test]
fn a_version_that_comes_back_brings_no_more_access_than_there_is() {
    let (mut world, _) = World::new();
    let web = || "ctl".parse::<ServiceKey>().unwrap();
    let settle = |world: &mut World, settled: Settled| {
        let revision = world.state.services[&web()].revision;
        world.write(Command::SettleRollout { service: web(), revision, settled, wall: WALL }).unwrap();
    };
    let present = |world: &World| world.state.services[&web()].spec.template.access.clone();
    let star = world.star("ctl", access(Role::Operator, "default,b"), CONTROLLER);
    settle(&mut world, Settled::Done);
    // What takes the access away fails for another reason: it is gone all the same.
    world.user(put("ctl", spec(None))).unwrap();
    settle(&mut world, Settled::Failed { reason: "it never was".to_owned() });
    assert!(matches!(&world.state.services[&web()].versions[1].fate, Fate::Failed { .. }));
    assert_eq!(present(&world), None);
    assert_eq!(world.state.rights_of_star(star.id), None);
    world.user(put("ctl", spec(access(Role::Operator, "b,c")))).unwrap();
    settle(&mut world, Settled::Done);
    world.user(Command::Rollback { service: web(), version: Some(1), wall: WALL }).unwrap();
    assert_eq!(present(&world), access(Role::Operator, "b"));
}
