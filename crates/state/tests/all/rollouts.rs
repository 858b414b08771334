//! Versions of a service: which there are, what comes back, and how a roll-out ends.

use std::collections::BTreeMap;

use model::{
    AppSpec, BundleId, Bytes, Code, ContentHash, Fate, Interior, Limits, LimitsChange, Network, NodeId, OnFailure,
    OnSecret, Probe, ProbeKind, Program, RestartPolicy, RolloutTurn, SecretChange, SecretKey, ServiceKey, ServiceSpec,
    StarId, StarTemplate, Update, UpdateStrategy, WallTime,
};
use state::rollouts::VERSIONS_MAX;
use state::{Assignment, Change, Command, ServiceRecord, Settled, State, apply};

fn spec(word: &str) -> ServiceSpec {
    let template = StarTemplate {
        program: Program::Script("x.rads".to_owned()),
        args: vec![word.to_owned()],
        bundle: BundleId(ContentHash([0; 32])),
        rootfs: None,
        checkpoint: false,
        singleton: false,
        env: BTreeMap::new(),
        limits: Limits::DEFAULT,
        reserve: Default::default(),
        volumes: Vec::new(),
        network: Network::None,
        port: Some(80),
        probe: Probe::new(ProbeKind::Tcp),
        restart: RestartPolicy::Always,
        grace_ms: 1_000,
        stop_signal: None,
        deadline_ms: None,
        hooks: Default::default(),
        health: Default::default(),
        interior: Interior::default(),
        weakened: Default::default(),
        access: None,
    };
    ServiceSpec {
        template,
        instances: 4,
        entry: None,
        placement: Default::default(),
        update: Update::default(),
        job: None,
        hold: None,
    }
}

fn web() -> ServiceKey {
    "web".parse().unwrap()
}

/// A log, and what it comes to.
#[derive(Default)]
struct World {
    state: State,
}

impl World {
    /// With a first version that is good.
    fn with(first: ServiceSpec) -> Self {
        let mut world = Self::default();
        world.put(first);
        world.settle(Settled::Done).unwrap();
        world
    }

    /// A second before the next; a refused command must change nothing but the index.
    fn apply(&mut self, command: Command) -> Result<(), Code> {
        let before = self.state.clone();
        let changes = apply(&mut self.state, before.index + 1, &command);
        let refused = changes.into_iter().find_map(|change| match change {
            Change::Refused { problem } => Some(problem.code),
            _ => None,
        });
        if let Some(code) = refused {
            assert_eq!(State { index: self.state.index, ..before }, self.state);
            return Err(code);
        }
        Ok(())
    }

    fn wall(&self) -> WallTime {
        WallTime(self.state.index * 1_000)
    }

    fn put(&mut self, spec: ServiceSpec) {
        let services = [("web".parse().unwrap(), spec)].into();
        let spec = AppSpec { app: "shop".parse().unwrap(), services };
        self.apply(Command::PutApp { spec, base: None, wall: self.wall() }).unwrap();
    }

    fn settle(&mut self, settled: Settled) -> Result<(), Code> {
        let revision = self.web().revision;
        self.apply(Command::SettleRollout { service: web(), revision, settled, wall: self.wall() })
    }

    fn fail(&mut self) {
        self.settle(Settled::Failed { reason: "it never was".to_owned() }).unwrap();
    }

    fn turn(&mut self, turn: RolloutTurn) -> Result<(), Code> {
        self.apply(Command::TurnRollout { service: web(), turn, wall: self.wall() })
    }

    fn roll_back(&mut self, version: Option<u64>) -> Result<(), Code> {
        self.apply(Command::Rollback { service: web(), version, wall: self.wall() })
    }

    fn assign(&mut self, revision: u64) -> Result<StarId, Code> {
        let star = StarId(self.state.index + 100);
        let ordinal = star.0 as u32;
        let assignment =
            Assignment { star, service: web(), revision, ordinal, node: NodeId(1), port: None, place: None };
        self.apply(Command::Assign { stars: vec![assignment], wall: self.wall() }).map(|()| star)
    }

    fn web(&self) -> &ServiceRecord {
        &self.state.services[&web()]
    }

    /// What its stars are made from now.
    fn word(&self) -> &str {
        assert_eq!(self.state.apps[&self.web().app].spec.services[&web().name], self.web().spec);
        &self.web().spec.template.args[0]
    }

    fn fates(&self) -> Vec<(u64, Fate)> {
        self.web().versions.iter().map(|version| (version.number, version.fate.clone())).collect()
    }
}

#[test]
fn a_version_is_what_was_asked_for_but_not_how_many_stars() {
    let mut world = World::with(spec("one"));
    assert_eq!((world.web().version, world.web().versions.len()), (1, 0));
    world.apply(Command::Scale { service: web(), instances: 7, wall: world.wall() }).unwrap();
    world.put(ServiceSpec { instances: 2, ..spec("one") });
    assert_eq!((world.web().version, world.web().versions.len()), (1, 0));
    let change = LimitsChange { memory: Some(Some(Bytes(64 << 20))), ..LimitsChange::default() };
    world.apply(Command::Limit { service: web(), change: Box::new(change), wall: world.wall() }).unwrap();
    let first = world.web().revision;
    assert_eq!((world.web().version, world.web().rollout.is_none()), (2, true));
    world.put(spec("two"));
    assert_eq!((world.web().version, world.fates()), (3, vec![(1, Fate::Good), (2, Fate::Good)]));
    assert_ne!(world.web().revision, first);
}

#[test]
fn what_fails_is_taken_back_and_stars_that_still_run_are_those_that_are_wanted() {
    let mut world = World::with(spec("one"));
    let good = world.web().revision;
    world.put(spec("two"));
    let bad = world.web().revision;
    world.apply(Command::Scale { service: web(), instances: 6, wall: world.wall() }).unwrap();
    world.fail();
    assert_eq!((world.word(), world.web().revision, world.web().version), ("one", good, 3));
    assert_eq!(world.web().spec.instances, 6, "how many there are is asked for beside");
    assert_eq!(world.web().of, Some(1));
    let reason = "it never was".to_owned();
    assert_eq!(world.fates(), [(1, Fate::Good), (2, Fate::Failed { reason })]);
    let taken_back = world.web().taken_back.clone().unwrap();
    assert_eq!((taken_back.version, taken_back.index), (2, world.state.index));
    assert_eq!(world.assign(bad), Err(Code::Conflict));
    world.assign(good).unwrap();
    let settle = Command::SettleRollout { service: web(), revision: bad, settled: Settled::Done, wall: world.wall() };
    assert_eq!(world.apply(settle), Err(Code::Conflict), "it ended already");
    world.put(spec("three"));
    assert!(world.web().taken_back.is_none());
}

#[test]
fn while_a_version_is_on_its_way_the_one_before_gets_stars_too() {
    let mut world = World::with(spec("one"));
    let good = world.web().revision;
    world.put(spec("two"));
    let (old, new) = (world.assign(good).unwrap(), world.assign(world.web().revision).unwrap());
    let word = |star: StarId| world.state.stars.get(&star).unwrap().template.args[0].clone();
    assert_eq!((word(old).as_str(), word(new).as_str()), ("one", "two"));
    world.settle(Settled::Done).unwrap();
    assert_eq!(world.assign(good), Err(Code::Conflict));
}

#[test]
fn a_version_that_is_overtaken_is_not_what_comes_back() {
    let mut world = World::with(spec("one"));
    let good = world.web().revision;
    world.put(spec("two"));
    world.put(spec("three"));
    assert_eq!(world.web().before().map(|before| (before.version, before.stars)), Some((1, 4)));
    world.fail();
    assert_eq!((world.word(), world.web().revision), ("one", good));
    assert_eq!(world.fates()[1], (2, Fate::Overtaken));
}

#[test]
fn asking_for_the_version_before_again_ends_the_roll_out() {
    let mut world = World::with(spec("one"));
    let good = world.web().revision;
    world.put(spec("two"));
    world.put(spec("one"));
    assert_eq!((world.web().revision, world.web().rollout.is_none(), world.web().version), (good, true, 3));
}

#[test]
fn a_first_version_that_fails_is_tried_on_and_never_comes_back() {
    let mut world = World::default();
    world.put(spec("one"));
    world.fail();
    assert_eq!((world.web().failed.as_deref(), world.web().rollout.is_none()), (Some("it never was"), true));
    world.put(spec("two"));
    assert_eq!(world.web().before(), None);
    world.fail();
    assert_eq!(world.word(), "two");
    assert_eq!(world.roll_back(None), Err(Code::NotFound));
    world.roll_back(Some(1)).unwrap();
    assert_eq!((world.word(), world.web().version), ("one", 3));
}

#[test]
fn a_restart_that_fails_leaves_the_stars_there_were() {
    let mut world = World::with(spec("one"));
    let good = world.web().revision;
    world.apply(Command::Restart { service: web(), wall: world.wall() }).unwrap();
    assert_ne!(world.web().revision, good);
    world.assign(good).unwrap();
    world.fail();
    assert_eq!((world.web().revision, world.web().version, world.web().versions.len()), (good, 1, 0));
    assert!(world.web().taken_back.is_some());
}

#[test]
fn what_is_to_be_held_waits_for_somebody() {
    let held = Update { on_failure: OnFailure::Hold, ..Update::default() };
    let two = || ServiceSpec { update: held.clone(), ..spec("two") };
    let mut world = World::with(spec("one"));
    world.put(two());
    world.fail();
    let rollout = world.web().rollout.clone().unwrap();
    assert_eq!(rollout.held.unwrap().reason.as_deref(), Some("it never was"));
    world.turn(RolloutTurn::Resume).unwrap();
    let rollout = world.web().rollout.clone().unwrap();
    assert!(rollout.held.is_none() && rollout.ends > world.wall(), "it has its time once more");
    world.turn(RolloutTurn::Abort).unwrap();
    assert_eq!(world.word(), "one");
    assert_eq!(world.turn(RolloutTurn::Abort), Err(Code::Conflict));
}

#[test]
fn a_trial_is_promoted_once_and_only_where_something_runs() {
    let green = |word: &str| {
        let update = Update { strategy: UpdateStrategy::BlueGreen, ..Update::default() };
        ServiceSpec { update, ..spec(word) }
    };
    let mut world = World::with(green("one"));
    assert_eq!(world.turn(RolloutTurn::Promote), Err(Code::Conflict));
    world.put(green("two"));
    assert!(world.web().rollout.as_ref().unwrap().trial);
    world.turn(RolloutTurn::Promote).unwrap();
    assert_eq!(world.turn(RolloutTurn::Promote), Err(Code::Conflict));
    world.settle(Settled::Promoted).unwrap();
    world.settle(Settled::Done).unwrap();
    world.apply(Command::Stop { service: web(), wall: world.wall() }).unwrap();
    world.put(green("three"));
    assert!(!world.web().rollout.as_ref().unwrap().trial, "there is nothing to be tried beside");
    world.settle(Settled::Done).unwrap();
    world.roll_back(None).unwrap();
    assert!(!world.web().rollout.as_ref().unwrap().trial, "it ran before");
}

#[test]
fn going_back_takes_the_last_good_version_or_the_one_that_is_named() {
    let mut world = World::with(spec("one"));
    for word in ["two", "three"] {
        world.put(spec(word));
        world.settle(Settled::Done).unwrap();
    }
    world.roll_back(None).unwrap();
    assert_eq!((world.word(), world.web().of, world.web().version), ("two", Some(2), 4));
    world.settle(Settled::Done).unwrap();
    world.roll_back(Some(1)).unwrap();
    assert_eq!(world.word(), "one");
    let present = world.web().version;
    assert_eq!(world.roll_back(Some(present)), Err(Code::Conflict));
    assert_eq!(world.roll_back(Some(99)), Err(Code::NotFound));
}

#[test]
fn the_oldest_versions_go_first_and_never_the_one_that_would_come_back() {
    let mut world = World::with(spec("good"));
    for number in 0..2 * VERSIONS_MAX {
        world.put(spec(&format!("try {number}")));
    }
    assert_eq!(world.web().versions.len(), VERSIONS_MAX);
    world.fail();
    assert_eq!(world.word(), "good");
}

#[test]
fn a_new_value_of_a_secret_replaces_stars_that_have_it_unless_they_keep_theirs() {
    let secret: SecretKey = "password".parse().unwrap();
    let with = |on_secret: OnSecret, word: &str| {
        let mut spec = spec(word);
        spec.template.interior.env_secrets = [("PASSWORD".to_owned(), "password".parse().unwrap())].into();
        ServiceSpec { update: Update { on_secret, ..Update::default() }, ..spec }
    };
    let set = |world: &mut World, change: SecretChange| {
        let before = world.web().revision;
        let wall = world.wall();
        world.apply(Command::SecretChanged { secret: secret.clone(), change, wall }).unwrap();
        world.web().revision != before
    };
    let mut world = World::with(with(OnSecret::Restart, "one"));
    assert!(!set(&mut world, SecretChange::Created));
    assert!(set(&mut world, SecretChange::Replaced));
    assert!(world.web().before().is_some(), "and goes back if that fails");
    let mut keeps = World::with(with(OnSecret::Keep, "one"));
    assert!(!set(&mut keeps, SecretChange::Replaced));
    let mut without = World::with(spec("one"));
    assert!(!set(&mut without, SecretChange::Replaced));
}
