//! Namespaces that are made, limited, and end, and what becomes of what is in them.

use std::collections::BTreeMap;

use model::{
    AppSpec, BundleId, Bytes, Code, ContentHash, Limits, LimitsChange, Name, NamespaceChange, Network, NodeId,
    Priority, Probe, ProbeKind, Program, QuotaChange, RestartPolicy, ServiceKey, ServiceSpec, StarId, StarPhase,
    StarTemplate, VolumeMount, WallTime,
};
use state::namespaces::span;
use state::{Assignment, Change, Command, End, Part, State, Transition, apply, touched};

const WALL: WallTime = WallTime(1_000);
const MINUTE: u64 = 60_000;

#[derive(Default)]
struct World {
    state: State,
}

impl World {
    fn apply(&mut self, command: Command) -> Vec<Change> {
        let before = self.state.namespaces.clone();
        let index = self.state.index + 1;
        let changes = apply(&mut self.state, index, &command);
        let told = touched(&self.state, &changes);
        for name in before.keys().chain(self.state.namespaces.keys()) {
            let differs = before.get(name) != self.state.namespaces.get(name);
            assert!(!differs || told.contains(&Part::Namespace(name.clone())), "{name} is not in {told:?}");
        }
        changes
    }

    #[track_caller]
    fn does(&mut self, command: Command) {
        let changes = self.apply(command);
        assert!(!changes.iter().any(|change| matches!(change, Change::Refused { .. })), "{changes:?}");
    }

    #[track_caller]
    fn refuses(&mut self, command: Command, code: Code, says: &str) {
        let before = self.state.clone();
        let changes = self.apply(command);
        let [Change::Refused { problem }] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!(problem.code, code, "{problem}");
        assert!(problem.message.contains(says), "{problem}");
        self.state.index = before.index;
        assert_eq!(self.state, before, "nothing is changed by what is refused");
    }

    fn names(&self) -> Vec<String> {
        self.state.namespace_names().iter().map(ToString::to_string).collect()
    }

    fn last_event(&self) -> &str {
        &self.state.events.back().unwrap().what
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn service(instances: u32, volumes: Vec<VolumeMount>) -> ServiceSpec {
    let template = StarTemplate {
        program: Program::Script("x.rads".to_owned()),
        args: Vec::new(),
        bundle: BundleId(ContentHash([0; 32])),
        rootfs: None,
        checkpoint: false,
        singleton: false,
        env: BTreeMap::new(),
        limits: Limits { memory: Some(Bytes::mib(64)), ..Limits::DEFAULT },
        volumes,
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
        access: None,
        reserve: Default::default(),
    };
    ServiceSpec {
        template,
        instances,
        entry: None,
        placement: Default::default(),
        update: Default::default(),
        job: None,
        hold: None,
    }
}

fn sized(instances: u32, megabytes: u64, priority: u8) -> ServiceSpec {
    let mut spec = service(instances, Vec::new());
    spec.template.limits.memory = Some(Bytes::mib(megabytes));
    spec.placement.priority = Priority(priority);
    spec
}

fn put_services(app: &str, services: Vec<(&str, ServiceSpec)>) -> Command {
    let services = services.into_iter().map(|(service, spec)| (name(service), spec)).collect();
    Command::PutApp { spec: AppSpec { app: app.parse().unwrap(), services }, base: None, wall: WALL }
}

fn put(app: &str, service_name: &str, instances: u32) -> Command {
    put_services(app, vec![(service_name, service(instances, Vec::new()))])
}

fn set(of: &str, ttl_ms: Option<u64>, quota: QuotaChange, new: bool) -> Command {
    let change = NamespaceChange { ttl_ms: ttl_ms.map(Some), quota, ..NamespaceChange::default() };
    Command::SetNamespace { namespace: name(of), change, new, wall: WALL }
}

fn stars(most: u32) -> QuotaChange {
    QuotaChange { instances: Some(Some(most)), ..QuotaChange::default() }
}

fn delete(of: &str, force: bool) -> Command {
    Command::DeleteNamespace { namespace: name(of), force, wall: WALL }
}

fn scale(instances: u32) -> Command {
    Command::Scale { service: "dev/web".parse().unwrap(), instances, wall: WALL }
}

#[test]
fn a_namespace_is_there_when_it_was_made_or_something_is_in_it() {
    let mut world = World::default();
    assert_eq!(world.names(), ["default"]);
    world.does(put("dev/shop", "web", 1));
    world.does(set("empty", None, QuotaChange::default(), true));
    assert_eq!(world.names(), ["default", "dev", "empty"]);
    world.refuses(set("dev", None, QuotaChange::default(), true), Code::AlreadyExists, "there is a namespace `dev`");
    world.refuses(set("other", None, stars(1), false), Code::NotFound, "no namespace `other`");
    world.does(set("dev", None, stars(8), false));
    world.does(Command::RemoveApp { app: "dev/shop".parse().unwrap(), wall: WALL });
    assert_eq!(world.names(), ["default", "dev", "empty"], "it was spoken of, and stays");
    world.does(delete("dev", false));
    world.does(delete("empty", false));
    assert_eq!(world.names(), ["default"]);
    world.refuses(delete("default", true), Code::InvalidValue, "is always there");
    world.refuses(set("default", Some(MINUTE), stars(1), false), Code::InvalidValue, "has no end");
    world.refuses(set("x", Some(1), stars(1), true), Code::InvalidValue, "lasts between");
}

#[test]
fn one_that_is_not_empty_goes_with_force_and_its_volumes_stay() {
    let mut world = World::default();
    let mount = VolumeMount { volume: name("pages"), path: "/data".to_owned(), size: None };
    world.does(put_services("dev/shop", vec![("web", service(2, vec![mount])), ("api", service(1, Vec::new()))]));
    world.does(put("other/shop", "web", 1));
    world.state.homes.insert("dev/pages".parse().unwrap(), NodeId(1));
    world.refuses(delete("dev", false), Code::Conflict, "not empty: 2 services with 0 stars, volume `dev/pages`");
    world.does(delete("dev", true));
    assert_eq!(
        world.last_event(),
        "namespace `dev` deleted; gone with it: 2 services with 0 stars; kept: volume `dev/pages`"
    );
    assert_eq!(world.names(), ["default", "dev", "other"], "its volume is there");
    assert_eq!(world.state.services.len(), 1);
    // Nothing is lost by this.
    world.does(delete("dev", false));
    assert!(world.state.homes.contains_key(&"dev/pages".parse().unwrap()));
}

#[test]
fn a_namespace_is_warned_of_and_ends_with_what_is_in_it_unless_it_was_given_more_time() {
    let mut world = World::default();
    world.does(set("dev", Some(10 * MINUTE), QuotaChange::default(), true));
    world.does(put("dev/shop", "web", 1));
    let at = |minutes| WallTime(WALL.0 + minutes * MINUTE);
    let warn = |end, now| Command::WarnNamespace { namespace: name("dev"), at: at(end), wall: at(now) };
    let end = |end, now| Command::EndNamespace { namespace: name("dev"), at: at(end), wall: at(now) };
    world.refuses(warn(9, 9), Code::Conflict, "is another by now");
    world.does(warn(10, 9));
    assert_eq!(world.last_event(), "namespace `dev` ends in 1 min, with what is in it: 1 service with 0 stars");
    world.refuses(warn(10, 9), Code::Conflict, "is another by now");
    world.refuses(end(10, 9), Code::Conflict, "is another by now");
    // It is given more.
    world.does(set("dev", Some(20 * MINUTE), QuotaChange::default(), false));
    world.refuses(end(10, 10), Code::Conflict, "is another by now");
    world.does(warn(20, 18));
    world.does(end(20, 20));
    assert!(world.state.apps.is_empty() && world.state.services.is_empty());
    assert_eq!(world.names(), ["default"]);
    assert_eq!(world.last_event(), "namespace `dev` ended: its time was over; gone with it: 1 service with 0 stars");
    world.refuses(end(20, 20), Code::Conflict, "is another by now");
}

#[test]
fn no_way_to_grow_leads_beyond_a_quota() {
    let mut world = World::default();
    world.does(put("dev/shop", "web", 6));
    world.does(set("dev", None, stars(8), false));
    let says = "namespace `dev` may have 8 stars: 6 are used, 4 more are asked for";
    world.refuses(put("dev/blog", "pages", 4), Code::QuotaExceeded, says);
    world.refuses(scale(10), Code::QuotaExceeded, says);
    world.does(scale(8));
    world.does(put("other/shop", "web", 100));
    // A service that its app has no more gives its part to those that come with the same change.
    world.does(put("dev/shop", "api", 8));
    world.does(put("dev/shop", "web", 8));
    let memory = QuotaChange { memory: Some(Some(Bytes::mib(8 * 64))), ..QuotaChange::default() };
    world.does(set("dev", None, memory, false));
    let limit = |megabytes: Option<u64>| {
        let change = LimitsChange { memory: Some(megabytes.map(Bytes::mib)), ..LimitsChange::default() };
        Command::Limit { service: "dev/web".parse().unwrap(), change: Box::new(change), wall: WALL }
    };
    world.refuses(limit(Some(65)), Code::QuotaExceeded, "may have 512 MiB of memory: 512 MiB are used, 8 MiB more");
    world.refuses(limit(None), Code::QuotaExceeded, "service `web` has no limit of memory");
    world.does(limit(Some(32)));
    // A service that is stopped keeps its part: it may be started at any time.
    world.does(Command::Stop { service: "dev/web".parse().unwrap(), wall: WALL });
    world.refuses(put("dev/blog", "pages", 1), Code::QuotaExceeded, "8 are used, 1 more is asked for");
    world.does(Command::Start { service: "dev/web".parse().unwrap(), wall: WALL });
}

#[test]
fn a_quota_below_what_is_used_takes_nothing_away_and_says_so() {
    let mut world = World::default();
    world.does(put("dev/shop", "web", 6));
    world.does(set("dev", None, stars(4), false));
    assert_eq!(
        world.last_event(),
        "namespace `dev` changed: it has another quota; more than that is used and stays, without growing: 6 of 4 stars"
    );
    assert_eq!(world.state.services[&"dev/web".parse().unwrap()].spec.instances, 6);
    world.refuses(scale(7), Code::QuotaExceeded, "6 are used, 1 more is asked for");
    world.does(put("dev/shop", "web", 6));
    world.does(scale(5));
    world.refuses(scale(6), Code::QuotaExceeded, "5 are used");
    world.does(set("dev", None, QuotaChange::NONE, false));
    world.does(scale(60));
}

#[test]
fn a_quota_is_shared_out_by_priority_then_to_the_older_app_whether_it_runs_or_not() {
    let mut world = World::default();
    let put_at = |app: &str, services, at| match put_services(app, services) {
        Command::PutApp { spec, base, .. } => Command::PutApp { spec, base, wall: WallTime(at) },
        other => other,
    };
    let shares = |world: &World, planned: Option<&AppSpec>| -> Vec<(String, u32, u32)> {
        let all = world.state.shares(&name("dev"), planned).unwrap_or_default();
        all.into_iter().map(|(name, share)| (name.to_string(), share.own, share.asked)).collect()
    };
    let shown = |all: &[(&str, u32, u32)]| -> Vec<(String, u32, u32)> {
        all.iter().map(|(name, own, asked)| ((*name).to_owned(), *own, *asked)).collect()
    };
    world.does(put_at("dev/old", vec![("z", sized(2, 64, 50))], 1));
    world.does(put_at("dev/new", vec![("a", sized(2, 64, 50)), ("b", sized(1, 64, 50)), ("low", sized(1, 1, 10))], 2));
    assert_eq!(shares(&world, None), [], "without burst nothing is beyond");
    world.does(set("dev", None, QuotaChange { burst: Some(Some(100)), ..stars(4) }, false));
    assert_eq!(shares(&world, None), shown(&[("a", 2, 2), ("b", 0, 1), ("low", 0, 1), ("z", 2, 2)]));
    world.does(Command::Stop { service: "dev/z".parse().unwrap(), wall: WALL });
    assert_eq!(shares(&world, None), shown(&[("a", 2, 2), ("b", 0, 1), ("low", 0, 1), ("z", 2, 2)]), "it comes back");
    // Nothing is given to what is behind somebody who lacks it: 129 MiB are two stars of 64, and none of one.
    let quota = QuotaChange { instances: Some(None), memory: Some(Some(Bytes::mib(129))), ..QuotaChange::default() };
    world.does(set("dev", None, quota, false));
    assert_eq!(shares(&world, None), shown(&[("a", 0, 2), ("b", 0, 1), ("low", 0, 1), ("z", 2, 2)]));
    let Command::PutApp { spec, .. } = put_services("dev/more", vec![("first", sized(1, 64, 90))]) else {
        unreachable!()
    };
    let planned = shown(&[("a", 0, 2), ("b", 0, 1), ("first", 1, 1), ("low", 0, 1), ("z", 1, 2)]);
    assert_eq!(shares(&world, Some(&spec)), planned, "with an app as it would be");
}

fn assign(service: &str, stars: std::ops::RangeInclusive<u64>, wall: u64) -> Command {
    let service: ServiceKey = service.parse().unwrap();
    let assignment = |star: u64| Assignment {
        star: StarId(star),
        service: service.clone(),
        revision: 1,
        ordinal: star as u32,
        node: NodeId(1),
        port: None,
        place: None,
    };
    Command::Assign { stars: stars.map(assignment).collect(), wall: WallTime(wall) }
}

#[test]
fn what_is_beyond_a_quota_is_the_lowest_and_the_youngest_and_gives_way_to_what_is_somebodys_own() {
    let mut world = World::default();
    let beyond =
        |world: &World| -> Vec<u64> { world.state.beyond_quota(&name("dev")).into_iter().map(|star| star.0).collect() };
    let quota = QuotaChange { memory: Some(Some(Bytes::mib(400))), burst: Some(Some(100)), ..stars(5) };
    world.does(set("dev", None, quota, true));
    world.does(put_services("dev/shop", vec![("web", sized(4, 100, 50)), ("low", sized(2, 64, 10))]));
    world.does(put_services("other/shop", vec![("web", sized(1, 64, 20))]));
    let revision = |command: Command, revision| match command {
        Command::Assign { mut stars, wall } => {
            stars.iter_mut().for_each(|star| star.revision = revision);
            Command::Assign { stars, wall }
        }
        other => other,
    };
    let at = |world: &World, of: &str| world.state.services[&of.parse().unwrap()].revision;
    for (of, numbers, wall) in [("dev/low", 1..=2, 5), ("dev/web", 3..=5, 7), ("dev/web", 6..=6, 6)] {
        world.does(revision(assign(of, numbers, wall), at(&world, of)));
    }
    assert_eq!(beyond(&world), [1, 2], "400 MiB are those of `web`; of five stars a sixth is one too many");
    world.does(set("dev", None, QuotaChange { memory: Some(Some(Bytes::mib(300))), ..QuotaChange::default() }, false));
    assert_eq!(beyond(&world), [1, 2, 5], "the youngest of `web`, by when it came, then by its number");
    let left = |world: &World, of: &str| world.state.own_left(&of.parse().unwrap(), true);
    assert_eq!((left(&world, "dev/web"), left(&world, "dev/low")), (0, 0));
    assert_eq!(left(&world, "other/web"), u32::MAX, "where there is no burst, all is");
    let preempt = |by: &str, stars: &[u64]| Command::Preempt {
        service: by.parse().unwrap(),
        stars: stars.iter().map(|star| StarId(*star)).collect(),
        wall: WALL,
    };
    // Of a lower priority than `web`, and yet; but not one that is the namespace's own.
    world.refuses(preempt("other/web", &[6]), Code::Conflict, "need not give way");
    world.does(preempt("other/web", &[5, 2]));
    assert_eq!(
        world.last_event(),
        "star `low-2` gives way to a star of `other/web` (it was beyond the quota of `dev`)"
    );
    assert_eq!(beyond(&world), [1]);
    assert_eq!(left(&world, "dev/web"), 0, "three of four are, and there");
    // Who is beyond a quota sends nobody away, whatever its priority is.
    world.does(revision(assign("other/web", 9..=9, 9), at(&world, "other/web")));
    world.refuses(preempt("dev/web", &[9]), Code::Conflict, "need not give way");
    // With more it has more of its own.
    world.does(set("dev", None, QuotaChange { memory: Some(Some(Bytes::mib(400))), ..QuotaChange::default() }, false));
    assert_eq!(beyond(&world), [1]);
    assert_eq!(left(&world, "dev/web"), 1);
    world.does(preempt("dev/web", &[9]));
    // Who comes for one of an earlier version has its part; and so has that one, until it goes.
    world.does(Command::Restart { service: "dev/web".parse().unwrap(), wall: WALL });
    world.does(set("dev", None, QuotaChange { memory: Some(Some(Bytes::mib(300))), ..QuotaChange::default() }, false));
    assert_eq!((beyond(&world), left(&world, "dev/web")), (vec![1], 3));
    world.does(revision(assign("dev/web", 10..=10, 9), at(&world, "dev/web")));
    assert_eq!((beyond(&world), left(&world, "dev/web")), (vec![1], 2), "it is not ready yet");
    let ready = Transition { star: StarId(10), phase: StarPhase::Ready, process: Some((1, 1)), exit: None };
    world.does(Command::Transitions { changes: vec![ready], wall: WALL });
    assert_eq!((beyond(&world), left(&world, "dev/web")), (vec![1, 4], 2));
    // A quota without burst has nothing beyond it, however much more there is.
    world.does(set("dev", None, QuotaChange { burst: Some(None), ..stars(1) }, false));
    assert_eq!(beyond(&world), [0_u64; 0]);
}

#[test]
fn spans_are_told_in_the_largest_unit_that_says_enough() {
    let check = |ms: u64, expected: &str| assert_eq!(span(ms), expected, "{ms}");
    check(3 * 86_400_000, "3 days");
    check(86_400_000, "1 day");
    check(3_600_000, "1 h");
    check(90 * 60_000, "90 min");
    check(60_000, "1 min");
    check(59_999, "60 s");
    check(1_400, "2 s");
    check(0, "0 s");
}

#[test]
fn a_warning_comes_an_hour_before_the_end_or_when_a_tenth_is_left() {
    let end = |ms: u64| End { at: WallTime(1_000 + ms), since: WallTime(1_000), warned: false };
    assert_eq!(end(3 * 86_400_000).warn_at(), WallTime(1_000 + 71 * 3_600_000));
    assert_eq!(end(600_000).warn_at(), WallTime(1_000 + 540_000));
}
