//! Runs of jobs: how they begin, what their parts come to, and what waits for their end.

use std::collections::BTreeMap;

use model::{
    AppSpec, BundleId, Code, ContentHash, Exit, ExitCause, Job, Limits, Missed, Network, NodeId, Overlap, Probe,
    ProbeKind, Program, RestartPolicy, RunOutcome, Schedule, ServiceKey, ServiceSpec, StarId, StarPhase, StarTemplate,
    WallTime,
};
use state::{Assignment, Change, Command, ServiceRecord, State, Transition, apply};

fn job() -> Job {
    Job { parallelism: 2, retries: 1, inputs: Vec::new(), schedule: None, after: Vec::new(), keep: 3, keep_ms: None }
}

fn nightly(overlap: Overlap) -> Job {
    let schedule = Schedule { cron: "0 3 * * *".to_owned(), zone: "UTC".to_owned(), overlap, missed: Missed::Once };
    Job { schedule: Some(schedule), ..job() }
}

fn spec(parts: u32, word: &str, job: Job) -> ServiceSpec {
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
        port: None,
        probe: Probe::new(ProbeKind::Started),
        restart: RestartPolicy::OnFailure,
        grace_ms: 1_000,
        stop_signal: None,
        deadline_ms: None,
        hooks: Default::default(),
        health: Default::default(),
        interior: Default::default(),
        weakened: Default::default(),
        access: None,
    };
    let (placement, update) = (Default::default(), Default::default());
    ServiceSpec { template, instances: parts, entry: None, placement, update, job: Some(job), hold: None }
}

#[derive(Default)]
struct World {
    state: State,
}

impl World {
    fn with(jobs: &[(&str, ServiceSpec)]) -> Self {
        let mut world = Self::default();
        world.put(jobs).unwrap();
        world
    }

    fn put(&mut self, jobs: &[(&str, ServiceSpec)]) -> Result<(), Code> {
        let services = jobs.iter().map(|(name, spec)| (name.parse().unwrap(), spec.clone())).collect();
        let spec = AppSpec { app: "app".parse().unwrap(), services };
        self.apply(Command::PutApp { spec, base: None, wall: self.wall() })
    }

    fn apply(&mut self, command: Command) -> Result<(), Code> {
        let before = self.state.clone();
        let changes = apply(&mut self.state, before.index + 1, &command);
        let refused = changes.into_iter().find_map(|change| match change {
            Change::Refused { problem } => Some(problem.code),
            _ => None,
        });
        let Some(code) = refused else { return Ok(()) };
        assert_eq!(State { index: self.state.index, ..before }, self.state, "a refused command changes nothing");
        Err(code)
    }

    fn wall(&self) -> WallTime {
        WallTime(self.state.index * 1_000)
    }

    fn begin(&mut self, name: &str, slot: Option<u64>) -> Result<(), Code> {
        self.apply(Command::BeginRun { service: key(name), slot: slot.map(WallTime), wall: self.wall() })
    }

    /// A star of that part comes and ends like this.
    fn part(&mut self, name: &str, ordinal: u32, cause: ExitCause) {
        let star = StarId(self.state.index + 100);
        let revision = self.record(name).revision;
        let assignment =
            Assignment { star, service: key(name), revision, ordinal, node: NodeId(1), port: None, place: None };
        self.apply(Command::Assign { stars: vec![assignment], wall: self.wall() }).unwrap();
        let exit = Some(Exit { cause, asked: false });
        let ended = Transition { star, phase: StarPhase::Ended, process: Some((7, 7)), exit };
        self.apply(Command::Transitions { changes: vec![ended], wall: self.wall() }).unwrap();
    }

    fn record(&self, name: &str) -> &ServiceRecord {
        &self.state.services[&key(name)]
    }

    fn wanted(&self, name: &str) -> u32 {
        self.record(name).wanted()
    }

    fn outcomes(&self, name: &str) -> Vec<Option<RunOutcome>> {
        self.record(name).all_runs().into_iter().map(|run| run.outcome).collect()
    }
}

fn key(name: &str) -> ServiceKey {
    name.parse().unwrap()
}

const GOOD: ExitCause = ExitCause::Code(0);
const BAD: ExitCause = ExitCause::Code(3);

#[test]
fn a_batch_runs_its_parts_some_at_a_time_and_is_over() {
    let mut world = World::with(&[("sum", spec(3, "a", job()))]);
    assert_eq!(world.wanted("sum"), 2);
    world.part("sum", 1, GOOD);
    assert_eq!(world.wanted("sum"), 2);
    world.part("sum", 3, GOOD);
    assert_eq!(world.wanted("sum"), 1);
    world.part("sum", 2, GOOD);
    assert_eq!((world.wanted("sum"), world.outcomes("sum")), (0, vec![Some(RunOutcome::Succeeded)]));
    world.begin("sum", None).unwrap();
    assert_eq!((world.wanted("sum"), world.record("sum").runs.count), (2, 2));
    assert_eq!(world.begin("sum", None), Err(Code::Conflict), "it is under way");
}

#[test]
fn a_part_is_tried_again_as_often_as_it_may_fail_and_then_the_run_has() {
    let mut world = World::with(&[("sum", spec(2, "a", job()))]);
    world.part("sum", 1, BAD);
    world.part("sum", 2, BAD);
    world.part("sum", 2, ExitCause::NodeLost);
    world.part("sum", 2, ExitCause::Evicted);
    assert_eq!(world.wanted("sum"), 2, "each may fail once; that of a machine is not its own");
    world.part("sum", 2, ExitCause::OutOfMemory);
    let failed = RunOutcome::Failed { part: 1, cause: ExitCause::OutOfMemory };
    assert_eq!((world.wanted("sum"), world.outcomes("sum")), (0, vec![Some(failed)]));
    let run = world.record("sum").runs.last().unwrap().clone();
    let failures: Vec<_> = run.failures.iter().map(|failure| (failure.part, failure.times)).collect();
    assert_eq!((run.good, failures), (0, vec![(0, 1), (1, 2)]));
}

#[test]
fn of_each_moment_of_a_schedule_there_is_one_run_whoever_leads() {
    let mut world = World::with(&[("night", spec(1, "a", nightly(Overlap::Skip)))]);
    assert_eq!(world.wanted("night"), 0, "it waits for its time");
    world.begin("night", Some(1_000)).unwrap();
    assert_eq!(world.begin("night", Some(1_000)), Err(Code::Conflict));
    world.part("night", 1, GOOD);
    assert_eq!(world.begin("night", Some(1_000)), Err(Code::Conflict), "nor when it is over");
    assert_eq!(world.begin("night", Some(500)), Err(Code::Conflict));
    world.begin("night", Some(2_000)).unwrap();
    assert_eq!(world.record("night").runs.count, 2);
}

#[test]
fn a_run_that_is_due_amid_another_is_left_out_or_waits_or_takes_its_place() {
    let begun_twice = |overlap: Overlap| {
        let mut world = World::with(&[("night", spec(1, "a", nightly(overlap)))]);
        world.begin("night", Some(1_000)).unwrap();
        world.begin("night", Some(2_000)).unwrap();
        world
    };
    let mut skips = begun_twice(Overlap::Skip);
    assert_eq!(skips.begin("night", Some(2_000)), Err(Code::Conflict), "that one is settled");
    skips.part("night", 1, GOOD);
    assert_eq!((skips.wanted("night"), skips.record("night").runs.count), (0, 1));
    let mut queues = begun_twice(Overlap::Queue);
    queues.part("night", 1, GOOD);
    assert_eq!((queues.wanted("night"), queues.record("night").runs.count), (1, 2));
    let replaces = begun_twice(Overlap::Replace);
    assert_eq!(replaces.outcomes("night"), [Some(RunOutcome::Replaced), None]);
}

#[test]
fn what_waits_for_others_runs_once_after_each_good_run_of_all() {
    let after = |names: &[&str]| Job { after: names.iter().map(|name| name.parse().unwrap()).collect(), ..job() };
    let jobs = [
        ("read", spec(1, "a", job())),
        ("clean", spec(1, "a", job())),
        ("join", spec(1, "a", after(&["read", "clean"]))),
        ("send", spec(1, "a", after(&["join"]))),
    ];
    let mut world = World::with(&jobs);
    assert_eq!((world.wanted("join"), world.wanted("send")), (0, 0));
    world.part("read", 1, GOOD);
    assert_eq!(world.wanted("join"), 0, "the other one has not run");
    world.part("clean", 1, BAD);
    world.part("clean", 1, BAD);
    assert_eq!(world.wanted("join"), 0, "it failed");
    world.begin("clean", None).unwrap();
    world.part("clean", 1, GOOD);
    assert_eq!((world.wanted("join"), world.wanted("send")), (1, 0));
    world.part("join", 1, GOOD);
    assert_eq!((world.wanted("join"), world.wanted("send")), (0, 1));
    world.begin("read", None).unwrap();
    world.part("read", 1, GOOD);
    assert_eq!(world.wanted("join"), 0, "of `clean` it has had that run");
    let mut circle = jobs.to_vec();
    circle[0].1 = spec(1, "a", after(&["send"]));
    assert_eq!(world.put(&circle), Err(Code::InvalidValue));
}

#[test]
fn another_description_ends_what_runs_and_a_batch_runs_anew() {
    let mut world = World::with(&[("sum", spec(1, "a", job()))]);
    world.put(&[("sum", spec(1, "a", job()))]).unwrap();
    assert_eq!(world.record("sum").runs.count, 1, "it is what it was");
    world.put(&[("sum", spec(2, "a", job()))]).unwrap();
    assert_eq!(world.outcomes("sum"), [Some(RunOutcome::Replaced), None]);
    world.put(&[("sum", spec(2, "a", nightly(Overlap::Skip)))]).unwrap();
    assert_eq!((world.wanted("sum"), world.record("sum").runs.present.is_none()), (0, true));
    assert!(world.record("sum").rollout.is_none());
}

#[test]
fn a_job_that_is_stopped_runs_no_more_until_it_is_started() {
    let mut world = World::with(&[("sum", spec(1, "a", job()))]);
    world.apply(Command::Stop { service: key("sum"), wall: world.wall() }).unwrap();
    assert_eq!(world.outcomes("sum"), [Some(RunOutcome::Stopped)]);
    assert_eq!(world.begin("sum", None), Err(Code::Conflict));
    world.apply(Command::Start { service: key("sum"), wall: world.wall() }).unwrap();
    assert_eq!(world.wanted("sum"), 0);
    world.begin("sum", None).unwrap();
    assert_eq!(world.wanted("sum"), 1);
    let scaled = Command::Scale { service: key("sum"), instances: 5, wall: world.wall() };
    assert_eq!(world.apply(scaled), Err(Code::Conflict));
}

#[test]
fn as_many_runs_are_remembered_as_are_kept() {
    let mut world = World::with(&[("sum", spec(1, "a", job()))]);
    for _ in 0..5 {
        world.part("sum", 1, GOOD);
        world.begin("sum", None).unwrap();
    }
    let numbers: Vec<u64> = world.record("sum").all_runs().iter().map(|run| run.number).collect();
    assert_eq!(numbers, [3, 4, 5, 6]);
}

#[test]
fn runs_are_forgotten_by_age_but_the_last_and_the_last_good_one() {
    // Two commands a run of one part, and the clock is a second on with each.
    let mut world = World::with(&[("sum", spec(1, "a", Job { keep: 100, keep_ms: Some(7_000), retries: 0, ..job() }))]);
    world.part("sum", 1, GOOD);
    let kept = |world: &World| -> Vec<u64> {
        world.record("sum").all_runs().iter().filter(|run| run.ended.is_some()).map(|run| run.number).collect()
    };
    assert_eq!(kept(&world), [1]);
    for _ in 0..6 {
        world.begin("sum", None).unwrap();
        world.part("sum", 1, BAD);
    }
    // The first is the only good one.
    assert_eq!(kept(&world), [1, 5, 6, 7]);
    world.begin("sum", None).unwrap();
    world.part("sum", 1, GOOD);
    assert_eq!(kept(&world), [6, 7, 8]);
    // A long time passes.
    let later = WallTime(world.wall().0 + 1_000_000);
    world.apply(Command::BeginRun { service: key("sum"), slot: None, wall: later }).unwrap();
    assert_eq!(kept(&world), [8]);
}

/// A star of a part that runs.
fn begun(world: &mut World, ordinal: u32) -> StarId {
    let star = StarId(world.state.index + 100);
    let revision = world.record("sum").revision;
    let service = key("sum");
    let assignment = Assignment { star, service, revision, ordinal, node: NodeId(1), port: None, place: None };
    world.apply(Command::Assign { stars: vec![assignment], wall: world.wall() }).unwrap();
    star
}

#[test]
fn a_part_that_is_stopped_by_its_name_is_neither_counted_twice_nor_left_out() {
    for ends_well in [true, false] {
        let mut world = World::with(&[("sum", spec(3, "a", job()))]);
        let star = begun(&mut world, 3);
        world.apply(Command::StopStar { service: key("sum"), ordinal: 3, wall: world.wall() }).unwrap();
        // It was done before it was told, or was not.
        let exit = Some(Exit { cause: GOOD, asked: !ends_well });
        let ended = Transition { star, phase: StarPhase::Ended, process: Some((7, 7)), exit };
        world.apply(Command::Transitions { changes: vec![ended], wall: world.wall() }).unwrap();
        assert_eq!(world.wanted("sum"), 2);
        world.part("sum", 1, GOOD);
        world.part("sum", 2, GOOD);
        if !ends_well {
            assert_eq!((world.wanted("sum"), world.outcomes("sum")), (0, vec![None]), "it waits for that part");
            world.apply(Command::StartStar { service: key("sum"), ordinal: 3, wall: world.wall() }).unwrap();
            assert_eq!(world.wanted("sum"), 1);
            world.part("sum", 3, GOOD);
        }
        assert_eq!(world.outcomes("sum"), [Some(RunOutcome::Succeeded)]);
        assert_eq!(world.record("sum").runs.last().unwrap().good, 3);
    }
}

#[test]
fn a_place_that_is_held_and_done_is_one_place() {
    let mut world = World::with(&[("sum", ServiceSpec { job: None, ..spec(3, "a", job()) })]);
    let star = begun(&mut world, 1);
    world.apply(Command::StopStar { service: key("sum"), ordinal: 1, wall: world.wall() }).unwrap();
    let exit = Some(Exit { cause: GOOD, asked: false });
    let ended = Transition { star, phase: StarPhase::Ended, process: Some((7, 7)), exit };
    world.apply(Command::Transitions { changes: vec![ended], wall: world.wall() }).unwrap();
    assert_eq!(world.wanted("sum"), 2);
}

#[test]
fn a_run_that_waits_for_a_stopped_part_goes_on_when_the_job_is_started() {
    let mut world = World::with(&[("sum", spec(2, "a", job()))]);
    let star = begun(&mut world, 2);
    world.apply(Command::StopStar { service: key("sum"), ordinal: 2, wall: world.wall() }).unwrap();
    let exit = Some(Exit { cause: GOOD, asked: true });
    let ended = Transition { star, phase: StarPhase::Ended, process: Some((7, 7)), exit };
    world.apply(Command::Transitions { changes: vec![ended], wall: world.wall() }).unwrap();
    world.part("sum", 1, GOOD);
    assert_eq!((world.wanted("sum"), world.begin("sum", None)), (0, Err(Code::Conflict)));
    world.apply(Command::Start { service: key("sum"), wall: world.wall() }).unwrap();
    assert_eq!((world.wanted("sum"), world.record("sum").runs.count), (1, 1));
    world.part("sum", 2, GOOD);
    assert_eq!(world.outcomes("sum"), [Some(RunOutcome::Succeeded)]);
}

#[test]
fn what_is_told_to_come_back_does_though_it_had_ended_well() {
    let mut world = World::with(&[("sum", ServiceSpec { job: None, ..spec(1, "a", job()) })]);
    let star = begun(&mut world, 1);
    world.apply(Command::RestartStar { service: key("sum"), ordinal: 1, wall: world.wall() }).unwrap();
    let exit = Some(Exit { cause: GOOD, asked: false });
    let ended = Transition { star, phase: StarPhase::Ended, process: Some((7, 7)), exit };
    world.apply(Command::Transitions { changes: vec![ended], wall: world.wall() }).unwrap();
    assert_eq!(world.wanted("sum"), 1);
    // Nor does it stay away because it ran for as long as it may, and is to run once.
    let mut once = ServiceSpec { job: None, ..spec(1, "b", job()) };
    once.template.restart = RestartPolicy::Never;
    let mut world = World::with(&[("sum", once)]);
    let star = begun(&mut world, 1);
    world.apply(Command::RestartStar { service: key("sum"), ordinal: 1, wall: world.wall() }).unwrap();
    let exit = Some(Exit { cause: ExitCause::Deadline, asked: false });
    let ended = Transition { star, phase: StarPhase::Ended, process: Some((7, 7)), exit };
    world.apply(Command::Transitions { changes: vec![ended], wall: world.wall() }).unwrap();
    assert_eq!(world.wanted("sum"), 1);
}

#[test]
fn nothing_comes_into_a_place_that_was_stopped_meanwhile() {
    let mut world = World::with(&[("sum", ServiceSpec { job: None, ..spec(1, "a", job()) })]);
    let star = begun(&mut world, 1);
    let exit = Some(Exit { cause: BAD, asked: false });
    let ended = Transition { star, phase: StarPhase::Ended, process: Some((7, 7)), exit };
    world.apply(Command::Transitions { changes: vec![ended], wall: world.wall() }).unwrap();
    // The next was planned before it was written that none is to come.
    world.apply(Command::StopStar { service: key("sum"), ordinal: 1, wall: world.wall() }).unwrap();
    let (service, revision) = (key("sum"), world.record("sum").revision);
    let next = Assignment { star: StarId(9), service, revision, ordinal: 1, node: NodeId(1), port: None, place: None };
    assert_eq!(world.apply(Command::Assign { stars: vec![next], wall: world.wall() }), Err(Code::Conflict));
}

#[test]
fn what_is_beyond_the_last_part_is_none() {
    let mut world = World::with(&[("sum", spec(2, "a", job()))]);
    // As earlier versions had it beside a part that was on its way out.
    world.part("sum", 3, GOOD);
    world.part("sum", 1, GOOD);
    assert_eq!((world.wanted("sum"), world.outcomes("sum")), (1, vec![None]));
    world.part("sum", 4, BAD);
    world.part("sum", 4, BAD);
    world.part("sum", 2, GOOD);
    assert_eq!(world.outcomes("sum"), [Some(RunOutcome::Succeeded)]);
}
