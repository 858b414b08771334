//! A change under an idempotency key, asked for again because no answer came: every way in which the first may have ended and
//! the others may come, one after another.

use std::collections::BTreeMap;

use model::{
    AppSpec, BundleId, Bytes, Code, ContentHash, Limits, Network, NodeId, Once, Probe, ProbeKind, Problem, Program,
    RequestId, RestartPolicy, ServiceKey, ServiceSpec, StarTemplate, Time, WallTime,
};
use node::{Effect, Event, Node, NodeConfig, Request};
use state::{Command, State};

/// Machines, and the log that their proposals are written to, which each hears when it does.
struct World {
    log: Vec<Command>,
    machines: Vec<(Node, usize)>,
    answers: Vec<Result<u64, Problem>>,
    now: Time,
}

/// One time that the change is asked for.
#[derive(Debug, Clone, Copy)]
struct Try {
    at: usize,
    /// The machine has heard everything that was written before.
    knows: bool,
    /// What it proposes is written; otherwise the leader dies before.
    written: bool,
    /// It is killed before it answers, and begins anew from what it had heard.
    dies: bool,
}

const MACHINES: usize = 2;

impl World {
    fn new() -> Self {
        let log = vec![Command::PutApp { spec: app(), base: None, wall: WallTime(1) }];
        let machines = (0..MACHINES).map(|at| (machine(at, &log), log.len())).collect();
        Self { log, machines, answers: Vec::new(), now: Time(1_000_000_000) }
    }

    fn tell(&mut self, at: usize, event: Event) -> Vec<(u64, Command)> {
        let mut effects = Vec::new();
        self.now = self.now + std::time::Duration::from_millis(5);
        self.machines[at].0.handle(self.now, WallTime(self.now.0 / 1_000_000), event, &mut effects);
        let mut proposed = Vec::new();
        for effect in effects {
            match effect {
                Effect::Propose { proposal, command } => proposed.push((proposal, command)),
                // That it may have been done is no answer: it is what makes one ask again.
                Effect::Reply { result: Err(problem), .. } if problem.code == Code::Unavailable => {}
                Effect::Reply { result, .. } => self.answers.push(result.map(|reply| reply.index)),
                _ => {}
            }
        }
        proposed
    }

    fn hear(&mut self, at: usize) {
        while let Some(command) = self.log.get(self.machines[at].1).cloned() {
            self.machines[at].1 += 1;
            let index = self.machines[at].1 as u64;
            self.tell(at, Event::Committed { index, command });
        }
    }

    fn ask(&mut self, Try { at, knows, written, dies }: Try, request: Request) {
        if knows {
            self.hear(at);
        }
        let proposed = self.tell(at, Event::Request { id: RequestId(1), request });
        if written {
            self.log.extend(proposed.into_iter().map(|(_, command)| command));
        } else if !dies {
            for (proposal, _) in proposed {
                let problem = Problem::new(Code::Unavailable, "the leader fell silent").after_changes();
                self.tell(at, Event::ProposalFailed { proposal, problem });
            }
        }
        if dies {
            let heard = self.machines[at].1;
            self.machines[at] = (machine(at, &self.log[..heard]), heard);
        } else {
            self.hear(at);
        }
    }
}

fn machine(at: usize, log: &[Command]) -> Node {
    let mut state = State::default();
    for (index, command) in (1..).zip(log) {
        state::apply(&mut state, index, command);
    }
    let node = NodeId(at as u64 + 1);
    Node::new(NodeConfig { node, seed: 1, rootless: false, memory: Bytes(0), cores: 2, cpus: None }, state)
}

/// Wants no stars, so that nothing else is written.
fn app() -> AppSpec {
    let template = StarTemplate {
        program: Program::Script("a.rads".to_owned()),
        args: Vec::new(),
        bundle: BundleId(ContentHash([0; 32])),
        rootfs: None,
        checkpoint: false,
        singleton: false,
        env: BTreeMap::new(),
        limits: Limits::DEFAULT,
        volumes: Vec::new(),
        network: Network::None,
        port: None,
        probe: Probe::new(ProbeKind::Started),
        restart: RestartPolicy::Always,
        grace_ms: 0,
        stop_signal: None,
        deadline_ms: None,
        hooks: Default::default(),
        health: Default::default(),
        interior: Default::default(),
        weakened: Default::default(),
        access: None,
        reserve: Default::default(),
    };
    let service = ServiceSpec {
        template,
        instances: 0,
        entry: None,
        placement: Default::default(),
        update: Default::default(),
        job: None,
        hold: None,
    };
    AppSpec { app: "shop".parse().unwrap(), services: [("web".parse().unwrap(), service)].into() }
}

fn web() -> ServiceKey {
    ServiceKey::in_default("web".parse().unwrap())
}

fn once(request: Request, hash: u8) -> Request {
    let once = Once { key: "the-key".parse().unwrap(), request: ContentHash([hash; 32]) };
    Request::Once { once, request: Box::new(request) }
}

/// How often the service was restarted, in the end, and what was answered.
fn outcome(tries: &[Try], request: &Request) -> (usize, Vec<Result<u64, Problem>>) {
    let mut world = World::new();
    for one in tries {
        world.ask(*one, request.clone());
    }
    // The last time nothing goes wrong.
    world.ask(Try { at: 1, knows: true, written: true, dies: false }, request.clone());
    let restarts: Vec<usize> = (0..MACHINES)
        .map(|at| {
            world.hear(at);
            let events = world.machines[at].0.state().events.iter();
            events.filter(|event| event.what.contains("restarted")).count()
        })
        .collect();
    assert!(restarts.iter().all(|count| *count == restarts[0]), "{tries:?}: {restarts:?}");
    (restarts[0], world.answers)
}

/// Every two tries after one another.
fn every_two() -> Vec<[Try; 2]> {
    let one =
        |bits: u32| Try { at: (bits & 1) as usize, knows: bits & 2 != 0, written: bits & 4 != 0, dies: bits & 8 != 0 };
    (0..256).map(|bits| [one(bits & 15), one(bits >> 4)]).collect()
}

#[test]
fn what_is_asked_for_again_under_a_key_happens_once_and_is_answered_alike() {
    let restart = once(Request::Restart { service: web() }, 1);
    for tries in every_two() {
        let (restarts, answers) = outcome(&tries, &restart);
        assert_eq!(restarts, 1, "{tries:?}");
        assert!(!answers.is_empty() && answers.iter().all(|answer| *answer == answers[0]), "{tries:?}: {answers:?}");
        assert!(answers[0].is_ok(), "{tries:?}: {answers:?}");
    }
}

#[test]
fn without_a_key_it_happens_as_often_as_it_was_written() {
    let restart = Request::Restart { service: web() };
    let mut twice = 0;
    for tries in every_two() {
        let (restarts, _) = outcome(&tries, &restart);
        let written = tries.iter().filter(|one| one.written).count() + 1;
        assert_eq!(restarts, written, "{tries:?}");
        twice += usize::from(restarts > 1);
    }
    assert_eq!(twice, 192);
}

#[test]
fn a_change_planned_against_what_it_changed_itself_is_no_conflict_the_second_time() {
    let put = once(Request::PutApp { spec: app(), base: Some(1) }, 1);
    for tries in every_two() {
        let (_, answers) = outcome(&tries, &put);
        assert!(answers.iter().all(|answer| answer.is_ok() && *answer == answers[0]), "{tries:?}: {answers:?}");
    }
    // The control.
    let put = Request::PutApp { spec: app(), base: Some(1) };
    let sound = Try { at: 0, knows: true, written: true, dies: false };
    let (_, answers) = outcome(&[sound, sound], &put);
    assert!(answers.iter().any(|answer| answer.as_ref().is_err_and(|problem| problem.code == Code::Conflict)));
}

#[test]
fn another_request_under_the_key_is_refused_wherever_it_comes() {
    for knows in [false, true] {
        let mut world = World::new();
        let sound = Try { at: 0, knows: true, written: true, dies: false };
        world.ask(sound, once(Request::Restart { service: web() }, 1));
        world.ask(Try { at: 1, knows, ..sound }, once(Request::StopService { service: web() }, 2));
        let [Ok(_), Err(problem)] = &world.answers[..] else { panic!("{:?}", world.answers) };
        assert_eq!(problem.code, Code::AlreadyExists);
        assert!(!world.machines[1].0.state().services[&web()].stopped);
    }
}
