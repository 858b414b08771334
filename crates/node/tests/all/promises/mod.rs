//! The promises that a node makes about when and in which order, one at a time: what `world.rs` shows to hold in the end,
//! whatever happens, is shown here to happen as it should when one thing happens.

mod by_name;
mod jobs;

use std::collections::BTreeMap;
use std::time::Duration;

use model::{
    AppSpec, Balance, BundleId, Bytes, Code, ContentHash, Entry, ExitCause, Limits, LimitsChange, ListenAddr, Network,
    NodeId, Probe, ProbeKind, ProbeRole, Problem, Program, Protocol, RequestId, RestartPolicy, ServiceKey, ServiceSpec,
    StarId, StarPhase, StarTemplate, Time, WallTime,
};
use node::{Effect, Event, Node, NodeConfig, Request, RunningStar};
use state::{Command, State};

/// A node whose writes succeed and whose doors open, at once. The rest is up to the test.
struct Desk {
    node: Node,
    now: Time,
    index: u64,
    /// Nothing can be written.
    disk_full: bool,
    /// What becomes of stars cannot be.
    moves_unwritten: bool,
    /// What is written seems not to be, at first.
    in_doubt: bool,
    /// All effects but those that are answered here, oldest first.
    effects: Vec<Effect>,
}

impl Desk {
    fn new(state: State) -> Self {
        Self::of(state, false)
    }

    fn of(state: State, rootless: bool) -> Self {
        let memory = Bytes::mib(1024);
        let config = NodeConfig { node: NodeId(1), seed: 1, rootless, memory, cores: 2, cpus: "0-1".parse().ok() };
        let index = state.index;
        Self {
            node: Node::new(config, state),
            now: Time(1_000_000_000_000),
            index,
            disk_full: false,
            moves_unwritten: false,
            in_doubt: false,
            effects: Vec::new(),
        }
    }

    /// With a nursery in which nothing runs, and `instances` of `web` that are ready.
    fn serving(instances: u32) -> Self {
        let mut desk = Self::new(State::default());
        desk.tell(Event::NurseryUp { running: Vec::new(), ended: Vec::new() });
        desk.put(web(instances, "a"));
        for star in desk.started() {
            desk.make_ready(star);
        }
        desk.effects.clear();
        desk
    }

    fn tell(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.node.handle(self.now, WallTime(self.now.0 / 1_000_000), event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Propose { proposal, command }
                    if self.disk_full || (self.moves_unwritten && matches!(command, Command::Transitions { .. })) =>
                {
                    let problem = Problem::new(Code::DiskFull, "the disk is full");
                    self.tell(Event::ProposalFailed { proposal, problem });
                }
                Effect::Propose { proposal, command } => {
                    self.index += 1;
                    if self.in_doubt {
                        let problem = Problem::new(Code::Unavailable, "no leader answers").after_changes();
                        self.tell(Event::ProposalFailed { proposal, problem });
                    }
                    self.tell(Event::Committed { index: self.index, command });
                }
                Effect::Listen { service, entry } => {
                    let address = std::net::SocketAddr::new(entry.listen.ip, entry.listen.port);
                    self.effects.push(Effect::Listen { service: service.clone(), entry });
                    self.tell(Event::Listening { service, result: Ok(address) });
                }
                effect => self.effects.push(effect),
            }
        }
    }

    fn ask(&mut self, request: Request) -> Result<(), Problem> {
        self.tell(Event::Request { id: RequestId(1), request });
        let at = self.effects.iter().position(|effect| matches!(effect, Effect::Reply { .. })).expect("an answer");
        match self.effects.remove(at) {
            Effect::Reply { result, .. } => result.map(drop),
            _ => unreachable!(),
        }
    }

    fn put(&mut self, spec: AppSpec) {
        self.ask(Request::PutApp { spec, base: None }).unwrap();
    }

    fn make_ready(&mut self, star: StarId) {
        self.tell(Event::StarStarted { star, pid: pid(star), start_time: 7 });
        self.tell(Event::Probed { star, role: ProbeRole::Ready, outcome: Ok(()) });
    }

    fn exit(&mut self, star: StarId) {
        self.tell(Event::StarExited { star, cause: ExitCause::Code(1) });
    }

    /// The star of this name, `web-N`, that has not ended.
    fn of_name(&self, ordinal: u32) -> StarId {
        let mut stars = self.node.state().stars.values();
        stars.find(|star| star.ordinal == ordinal && star.phase != StarPhase::Ended).expect("it is there").id
    }

    /// Stars ordered since this was asked last.
    fn started(&mut self) -> Vec<StarId> {
        let mut started = Vec::new();
        self.effects.retain(|effect| match effect {
            Effect::Start { order } => {
                started.push(order.star);
                false
            }
            _ => true,
        });
        started
    }

    /// Lets time pass, with every deadline of the node kept.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.node.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.tell(Event::Tick);
        }
        self.now = until;
    }

    /// How long it takes until a star is ordered, which has to be within a minute.
    fn time_to_start(&mut self) -> (Duration, StarId) {
        let from = self.now;
        for _ in 0..100 {
            if let [star] = self.started()[..] {
                return (self.now - from, star);
            }
            let at = self.node.next_deadline().expect("something is due");
            let time = at - self.now;
            self.wait(time);
        }
        panic!("nothing was started");
    }

    /// What the node has told others, in a few letters: `drain`, `signal N`, `kill`, `routes N` and so on.
    fn told(&mut self) -> Vec<String> {
        let told = self.effects.drain(..).filter_map(|effect| match effect {
            Effect::Drain { .. } => Some("drain".to_owned()),
            Effect::Signal { signal, .. } => Some(format!("signal {signal}")),
            Effect::Kill { .. } => Some("kill".to_owned()),
            Effect::Freeze { frozen, .. } => Some(if frozen { "freeze" } else { "thaw" }.to_owned()),
            Effect::Hook { command, .. } => Some(format!("hook {}", command.join(" "))),
            Effect::Listen { entry, .. } => Some(format!("listen {}", entry.listen.port)),
            Effect::Unlisten { .. } => Some("unlisten".to_owned()),
            Effect::Publish { set, .. } => Some(format!("routes {}", set.endpoints.len())),
            _ => None,
        });
        told.collect()
    }

    /// The same, but for entry points, which are asked for again after every change.
    fn told_of_stars(&mut self) -> Vec<String> {
        let mut told = self.told();
        told.retain(|what| !what.starts_with("listen"));
        told
    }

    fn stars(&self, phase: StarPhase) -> Vec<StarId> {
        let stars = self.node.state().stars.values();
        stars.filter(|star| star.phase == phase).map(|star| star.id).collect()
    }
}

fn pid(star: StarId) -> u32 {
    (star.0 % 30_000) as u32 + 1
}

fn name_of(desk: &Desk, star: StarId) -> String {
    desk.node.star_view(star).unwrap().name
}

fn web(instances: u32, version: &str) -> AppSpec {
    let entry = Entry { listen: ListenAddr::loopback(8000), protocol: Protocol::Http, balance: Balance::RoundRobin };
    let service = ServiceSpec {
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
            port: Some(8080),
            probe: Probe::new(ProbeKind::Tcp),
            restart: RestartPolicy::Always,
            grace_ms: 10_000,
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
        entry: Some(entry),
    };
    AppSpec { app: "shop".parse().unwrap(), services: [("web".parse().unwrap(), service)].into() }
}

fn key() -> ServiceKey {
    "web".parse().unwrap()
}

#[test]
fn what_was_wanted_before_the_nursery_came_is_started_when_it_comes() {
    let mut desk = Desk::new(State::default());
    desk.put(web(3, "a"));
    assert_eq!(desk.started(), []);
    desk.tell(Event::NurseryUp { running: Vec::new(), ended: Vec::new() });
    assert_eq!(desk.started().len(), 3);
}

#[test]
fn requests_go_to_a_star_only_while_it_is_ready() {
    let mut desk = Desk::new(State::default());
    desk.tell(Event::NurseryUp { running: Vec::new(), ended: Vec::new() });
    desk.put(web(1, "a"));
    let star = desk.started()[0];
    desk.tell(Event::StarStarted { star, pid: 5, start_time: 7 });
    desk.tell(Event::Probed { star, role: ProbeRole::Ready, outcome: Err("refused".to_owned()) });
    assert_eq!(desk.told(), ["listen 8000", "listen 8000"]);
    desk.tell(Event::Probed { star, role: ProbeRole::Ready, outcome: Ok(()) });
    assert_eq!(desk.told(), ["routes 1"]);
    for expected in [vec![], vec![], vec!["routes 0"]] {
        desk.tell(Event::Probed { star, role: ProbeRole::Ready, outcome: Err("refused".to_owned()) });
        assert_eq!(desk.told(), expected);
    }
    desk.tell(Event::Probed { star, role: ProbeRole::Ready, outcome: Ok(()) });
    assert_eq!(desk.told(), ["routes 1"]);
}

#[test]
fn a_star_that_starts_is_probed_at_once_then_after_ever_longer_pauses() {
    let mut desk = Desk::new(State::default());
    desk.tell(Event::NurseryUp { running: Vec::new(), ended: Vec::new() });
    desk.put(web(1, "a"));
    let star = desk.started()[0];
    desk.tell(Event::StarStarted { star, pid: 5, start_time: 7 });
    let mut pauses = Vec::new();
    for _ in 0..9 {
        desk.tell(Event::Probed { star, role: ProbeRole::Ready, outcome: Err("refused".to_owned()) });
        let at = desk.node.next_deadline().unwrap();
        pauses.push((at - desk.now).as_millis());
        let time = at - desk.now;
        desk.wait(time);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 100, 100]);
}

#[test]
fn a_star_that_does_not_get_ready_in_time_is_ended_and_replaced() {
    let mut desk = Desk::serving(0);
    desk.ask(Request::Scale { service: key(), instances: 1 }).unwrap();
    let star = desk.started()[0];
    desk.tell(Event::StarStarted { star, pid: 5, start_time: 7 });
    desk.told();
    desk.wait(Duration::from_millis(29_999));
    assert_eq!(desk.told(), [""; 0]);
    desk.wait(Duration::from_millis(1));
    assert_eq!(desk.told(), ["kill"]);
    desk.tell(Event::StarExited { star, cause: ExitCause::Signal(9) });
    let exit = desk.node.star_view(star).unwrap().exit.unwrap();
    assert_eq!((exit.cause, exit.asked), (ExitCause::StartTimeout, false));
    assert_eq!(desk.started().len(), 1);
}

/// A node with one star of a template changed so, which is ready.
fn serving_one(change: impl FnOnce(&mut StarTemplate)) -> (Desk, StarId) {
    let mut spec = web(1, "a");
    change(&mut spec.services.values_mut().next().unwrap().template);
    let mut desk = Desk::new(State::default());
    desk.tell(Event::NurseryUp { running: Vec::new(), ended: Vec::new() });
    desk.put(spec);
    let star = desk.started()[0];
    desk.make_ready(star);
    desk.effects.clear();
    (desk, star)
}

/// A world of `cargo xtask sim cluster` found that it waited for ever, as long as what was being written was asked and not the state.
#[test]
fn an_end_that_was_written_though_it_seemed_not_to_be_is_followed_by_the_next_star() {
    let (mut desk, star) = serving_one(|template| template.singleton = true);
    desk.in_doubt = true;
    desk.exit(star);
    desk.in_doubt = false;
    assert_eq!(desk.stars(StarPhase::Ended), [star]);
    assert_eq!(desk.started().len(), 1);
}

#[test]
fn a_paused_star_gets_no_requests_and_is_probed_again_before_it_does() {
    let (mut desk, star) = serving_one(|_| {});
    desk.ask(Request::Pause { service: key() }).unwrap();
    assert_eq!(desk.told_of_stars(), ["freeze", "routes 0"]);
    assert_eq!(desk.stars(StarPhase::Paused), [star]);
    let view = desk.node.service_view(&key()).unwrap();
    assert!(view.paused && !view.changing && view.ready == 0);
    // It is not missed, not probed and not given up, however long it takes.
    desk.wait(Duration::from_secs(3600));
    assert_eq!((desk.started(), desk.told_of_stars()), (vec![], vec![]));
    desk.ask(Request::Resume { service: key() }).unwrap();
    assert_eq!(desk.told_of_stars(), ["thaw"]);
    desk.tell(Event::Probed { star, role: ProbeRole::Ready, outcome: Ok(()) });
    assert_eq!(desk.told_of_stars(), ["routes 1"]);
    let problem = desk.ask(Request::Resume { service: key() }).unwrap_err();
    assert!(problem.message.contains("not paused"), "{problem}");
}

#[test]
fn a_paused_star_goes_on_before_it_is_told_to_stop() {
    let (mut desk, star) = serving_one(|_| {});
    desk.ask(Request::Pause { service: key() }).unwrap();
    desk.told_of_stars();
    desk.ask(Request::StopService { service: key() }).unwrap();
    let told = desk.told_of_stars();
    assert!(told.iter().position(|what| what == "thaw") < told.iter().position(|what| what == "signal 15"), "{told:?}");
    desk.tell(Event::StarExited { star, cause: ExitCause::Code(0) });
    let problem = desk.ask(Request::Pause { service: key() }).unwrap_err();
    assert!(problem.message.contains("is stopped"), "{problem}");
    // The same when its app is taken away.
    let (mut desk, _) = serving_one(|_| {});
    desk.ask(Request::Pause { service: key() }).unwrap();
    desk.told_of_stars();
    desk.ask(Request::RemoveApp { app: "shop".parse().unwrap() }).unwrap();
    assert_eq!(desk.told_of_stars(), ["unlisten", "thaw", "signal 15"]);
}

#[test]
fn a_nursery_that_comes_learns_what_is_to_stand_still() {
    let (mut desk, star) = serving_one(|_| {});
    let running =
        RunningStar { star, generation: desk.node.state().stars[&star].generation, pid: pid(star), start_time: 7 };
    desk.tell(Event::NurseryDown);
    desk.ask(Request::Pause { service: key() }).unwrap();
    assert_eq!(desk.told_of_stars(), ["routes 0"]);
    desk.tell(Event::NurseryUp { running: vec![running.clone()], ended: Vec::new() });
    assert_eq!(desk.told_of_stars(), ["freeze"]);
    desk.tell(Event::NurseryDown);
    desk.ask(Request::Resume { service: key() }).unwrap();
    assert_eq!(desk.told_of_stars(), [""; 0]);
    desk.tell(Event::NurseryUp { running: vec![running], ended: Vec::new() });
    assert_eq!(desk.told_of_stars(), ["thaw"]);
}

#[test]
fn why_a_star_does_not_stand_still_is_told() {
    let (mut desk, star) = serving_one(|_| {});
    desk.ask(Request::Pause { service: key() }).unwrap();
    desk.tell(Event::Frozen { star, problem: Some("no group".to_owned()) });
    let problem = desk.node.service_view(&key()).unwrap().problem.unwrap();
    assert!(problem.contains("`web-1`: no group"), "{problem}");
}

#[test]
fn a_star_is_told_to_stop_by_the_signal_it_wants_and_after_its_hook() {
    let hook = |template: &mut StarTemplate| {
        template.stop_signal = Some(3);
        template.hooks.before_stop = vec!["./drain".to_owned(), "now".to_owned()];
    };
    let (mut desk, star) = serving_one(hook);
    desk.ask(Request::StopService { service: key() }).unwrap();
    assert_eq!(desk.told_of_stars(), ["routes 0", "drain"]);
    desk.tell(Event::Drained { star });
    assert_eq!(desk.told_of_stars(), ["hook ./drain now"]);
    desk.tell(Event::HookEnded { star });
    assert_eq!(desk.told_of_stars(), ["signal 3"]);
    desk.tell(Event::HookEnded { star });
    assert_eq!(desk.told_of_stars(), [""; 0]);
    // A hook that hangs has the grace and no more.
    let (mut desk, star) = serving_one(hook);
    desk.ask(Request::StopService { service: key() }).unwrap();
    desk.tell(Event::Drained { star });
    desk.told_of_stars();
    desk.wait(Duration::from_millis(9_999));
    assert_eq!(desk.told_of_stars(), [""; 0]);
    desk.wait(Duration::from_millis(1));
    assert_eq!(desk.told_of_stars(), ["kill"]);
}

#[test]
fn a_star_ends_at_its_deadline_and_that_is_told_apart() {
    let job = |template: &mut StarTemplate| {
        template.deadline_ms = Some(60_000);
        template.restart = RestartPolicy::Never;
    };
    let (mut desk, star) = serving_one(job);
    desk.wait(Duration::from_millis(59_999));
    assert_eq!(desk.told_of_stars(), [""; 0]);
    desk.wait(Duration::from_millis(1));
    // Its place is its own until it has ended, and after.
    assert_eq!(desk.started(), []);
    assert_eq!(desk.told_of_stars(), ["signal 15", "routes 0"]);
    desk.tell(Event::StarExited { star, cause: ExitCause::Code(0) });
    let exit = desk.node.star_view(star).unwrap().exit.unwrap();
    assert_eq!((exit.cause, exit.asked), (ExitCause::Deadline, false));
    assert_eq!(desk.started(), []);
    // The time runs on while nobody looks.
    let (mut desk, star) = serving_one(job);
    desk.wait(Duration::from_secs(20));
    let running =
        RunningStar { star, generation: desk.node.state().stars[&star].generation, pid: pid(star), start_time: 7 };
    let mut next = Desk::new(desk.node.state().clone());
    next.now = desk.now + Duration::from_secs(30);
    next.tell(Event::NurseryUp { running: vec![running], ended: Vec::new() });
    next.told();
    next.wait(Duration::from_millis(9_999));
    assert_eq!(next.stars(StarPhase::Stopping), []);
    next.wait(Duration::from_millis(1));
    assert_eq!(next.stars(StarPhase::Stopping), [star]);
}

#[test]
fn what_runs_before_a_star_has_no_more_time_than_its_start() {
    let mut desk = Desk::new(State::default());
    desk.tell(Event::NurseryUp { running: Vec::new(), ended: Vec::new() });
    let mut spec = web(1, "a");
    spec.services.values_mut().next().unwrap().template.hooks.before_start = vec!["./migrate".to_owned()];
    desk.put(spec);
    let star = desk.started()[0];
    desk.told_of_stars();
    desk.wait(Duration::from_millis(29_999));
    assert_eq!(desk.told_of_stars(), [""; 0]);
    desk.wait(Duration::from_millis(1));
    assert_eq!(desk.told_of_stars(), ["kill"]);
    desk.tell(Event::StarStartFailed { star, reason: "killed".to_owned() });
    assert_eq!(desk.node.star_view(star).unwrap().exit.unwrap().cause, ExitCause::StartTimeout);
}

#[test]
fn a_star_that_stays_unhealthy_is_replaced_when_that_is_wished() {
    let mut spec = web(1, "a");
    let service = spec.services.values_mut().next().unwrap();
    service.template.probe.restart_after = Some(5);
    let mut desk = Desk::new(State::default());
    desk.tell(Event::NurseryUp { running: Vec::new(), ended: Vec::new() });
    desk.put(spec);
    let star = desk.started()[0];
    desk.make_ready(star);
    desk.told();
    let fail = |desk: &mut Desk, times: usize| {
        for _ in 0..times {
            desk.wait(Duration::from_secs(5));
            desk.tell(Event::Probed { star, role: ProbeRole::Ready, outcome: Err("refused".to_owned()) });
        }
    };
    // Four failures take it out of service, and one answer brings it back.
    fail(&mut desk, 4);
    assert_eq!(desk.told(), ["routes 0"]);
    let why =
        |desk: &Desk| (desk.node.service_view(&key()).unwrap().unready, desk.node.star_view(star).unwrap().problem);
    assert_eq!(why(&desk), (Some("web-1: refused".to_owned()), Some("refused".to_owned())));
    desk.wait(Duration::from_secs(5));
    desk.tell(Event::Probed { star, role: ProbeRole::Ready, outcome: Ok(()) });
    assert_eq!(desk.told(), ["routes 1"]);
    assert_eq!(why(&desk), (None, None));
    let events: Vec<_> = desk.node.state().events.iter().map(|event| event.what.as_str()).collect();
    assert!(events.ends_with(&["star `web-1` is unready", "star `web-1` is ready again"]), "{events:?}");
    fail(&mut desk, 5);
    assert_eq!(desk.told(), ["routes 0", "kill"]);
    desk.tell(Event::StarExited { star, cause: ExitCause::Signal(9) });
    assert_eq!(desk.node.state().stars[&star].exit.as_ref().unwrap().cause, ExitCause::Unhealthy);
    assert_eq!(desk.started().len(), 1, "another takes its place");
}

#[test]
fn a_star_that_crashes_is_replaced_at_once_then_later_and_later() {
    let mut desk = Desk::serving(2);
    let mut star = desk.stars(StarPhase::Ready)[0];
    let mut delays = Vec::new();
    for _ in 0..8 {
        desk.exit(star);
        let (delay, next) = desk.time_to_start();
        delays.push(delay.as_secs());
        star = next;
        desk.make_ready(star);
    }
    assert_eq!(delays, [0, 1, 2, 4, 8, 16, 30, 30]);
    desk.wait(Duration::from_secs(60));
    desk.exit(star);
    assert_eq!(desk.time_to_start().0, Duration::ZERO);
}

#[test]
fn what_waits_for_a_disk_says_so_until_it_is_written() {
    let mut desk = Desk::serving(1);
    desk.ask(Request::Scale { service: key(), instances: 2 }).unwrap();
    let [star] = desk.started()[..] else { panic!() };
    desk.disk_full = true;
    desk.make_ready(star);
    let view = |desk: &Desk| desk.node.service_view(&key()).unwrap();
    assert_eq!((view(&desk).changing, view(&desk).problem.as_deref()), (true, Some("the disk is full")));
    desk.disk_full = false;
    desk.wait(Duration::from_secs(5));
    assert_eq!((view(&desk).changing, view(&desk).problem, view(&desk).ready), (false, None, 2));
    // What was refused to whoever asked is told to them, and to nobody else.
    desk.disk_full = true;
    desk.ask(Request::Restart { service: key() }).unwrap_err();
    assert_eq!(view(&desk).problem, None);
}

#[test]
fn who_asks_again_does_not_wait_for_the_back_off() {
    let mut desk = Desk::serving(1);
    desk.exit(desk.stars(StarPhase::Ready)[0]);
    for _ in 1..rollout::CRASH_LOOP_FAILURES {
        let (_, star) = desk.time_to_start();
        desk.tell(Event::StarStarted { star, pid: 5, start_time: 7 });
        desk.exit(star);
    }
    assert_eq!(desk.started(), []);
    desk.ask(Request::Scale { service: key(), instances: 1 }).unwrap();
    assert_eq!(desk.started().len(), 1);
    assert_eq!(desk.node.service_view(&key()).unwrap().problem, None, "what was before is not held against it");
}

#[test]
fn a_script_that_ends_at_once_is_told_of() {
    let mut desk = Desk::serving(1);
    desk.exit(desk.stars(StarPhase::Ready)[0]);
    for _ in 1..rollout::CRASH_LOOP_FAILURES {
        let (_, star) = desk.time_to_start();
        desk.tell(Event::StarStarted { star, pid: 5, start_time: 7 });
        desk.exit(star);
    }
    let problem = desk.node.service_view(&key()).unwrap().problem.unwrap();
    assert_eq!(problem, "its stars end again and again (3 in a row; the last: exit code 1)");
}

#[test]
fn a_star_is_taken_from_the_routes_then_drained_then_told_then_killed() {
    let mut desk = Desk::serving(2);
    desk.ask(Request::Scale { service: key(), instances: 1 }).unwrap();
    let told = desk.told();
    assert_eq!(told.iter().filter(|what| !what.starts_with("listen")).collect::<Vec<_>>(), ["routes 1", "drain"]);
    let star = desk.stars(StarPhase::Draining)[0];
    desk.tell(Event::Drained { star });
    assert_eq!(desk.told(), ["signal 15"]);
    desk.wait(Duration::from_millis(9_999));
    assert_eq!(desk.told(), [""; 0]);
    desk.wait(Duration::from_millis(1));
    assert_eq!(desk.told(), ["kill"]);
    // It hangs in the kernel, or the order was lost.
    desk.wait(Duration::from_secs(5));
    assert_eq!(desk.told(), ["kill"]);
    desk.tell(Event::StarExited { star, cause: ExitCause::Signal(9) });
    assert!(desk.node.star_view(star).unwrap().exit.unwrap().asked);
    assert_eq!(desk.started(), []);
}

#[test]
fn new_limits_are_answered_when_every_star_has_them() {
    let mut desk = Desk::serving(2);
    let stars = desk.stars(StarPhase::Ready);
    let memory = |mib| LimitsChange { memory: Some(Some(Bytes::mib(mib))), ..LimitsChange::default() };
    let limit = |mib| Request::Limit { service: key(), change: Box::new(memory(mib)) };
    let told = |desk: &mut Desk| -> Vec<(StarId, Option<Bytes>)> {
        let told = desk.effects.extract_if(.., |effect| matches!(effect, Effect::Limit { .. }));
        let told = told.map(|effect| match effect {
            Effect::Limit { star, limits } => (star, limits.memory),
            _ => unreachable!(),
        });
        told.collect()
    };
    let answered = |desk: &mut Desk| {
        let replies = desk.effects.extract_if(.., |effect| matches!(effect, Effect::Reply { .. }));
        let replies: Vec<_> = replies.collect();
        replies.into_iter().next().map(|effect| match effect {
            Effect::Reply { result, .. } => result.map(drop).map_err(|problem| problem.message),
            _ => unreachable!(),
        })
    };
    desk.tell(Event::Request { id: RequestId(7), request: limit(64) });
    assert_eq!(told(&mut desk), stars.iter().map(|star| (*star, Some(Bytes::mib(64)))).collect::<Vec<_>>());
    desk.tell(Event::Limited { star: stars[0], problem: None });
    assert_eq!(answered(&mut desk), None, "one star has not answered");
    desk.tell(Event::Limited { star: stars[1], problem: None });
    assert_eq!(answered(&mut desk), Some(Ok(())));

    // What one cannot have is taken back from all before that is said.
    desk.tell(Event::Request { id: RequestId(8), request: limit(32) });
    told(&mut desk);
    desk.tell(Event::Limited { star: stars[0], problem: Some("it uses 40 MiB".to_owned()) });
    desk.tell(Event::Limited { star: stars[1], problem: None });
    assert_eq!(told(&mut desk), stars.iter().map(|star| (*star, Some(Bytes::mib(64)))).collect::<Vec<_>>());
    assert_eq!(answered(&mut desk), None, "the stars have not answered");
    desk.tell(Event::Limited { star: stars[0], problem: None });
    desk.tell(Event::Limited { star: stars[1], problem: None });
    let problem = answered(&mut desk).unwrap().unwrap_err();
    assert!(problem.ends_with("cannot be limited so: it uses 40 MiB"), "{problem}");
    let view = desk.node.service_view(&key()).unwrap();
    assert_eq!((view.spec.template.limits.memory, view.limit_problem), (Some(Bytes::mib(64)), None));
    let event = desk.node.events_view(0).pop().unwrap().what;
    assert!(event.ends_with("memory 32 MiB → 64 MiB"), "{event}");
    desk.exit(stars[1]);
    let replacement = desk.started()[0];
    desk.make_ready(replacement);
    told(&mut desk);

    // A nursery that went away may have heard or not: it is told again, and nobody waits for an answer that is lost.
    desk.tell(Event::Request { id: RequestId(9), request: limit(48) });
    assert_eq!(told(&mut desk).len(), 2);
    desk.tell(Event::NurseryDown);
    assert!(answered(&mut desk).is_some());
    let running = [stars[0], replacement].map(|star| RunningStar {
        star,
        generation: desk.node.state().stars[&star].generation,
        pid: pid(star),
        start_time: 7,
    });
    desk.tell(Event::NurseryUp { running: running.to_vec(), ended: Vec::new() });
    assert_eq!(told(&mut desk), running.each_ref().map(|report| (report.star, Some(Bytes::mib(48)))));
    for report in running {
        desk.tell(Event::Limited { star: report.star, problem: None });
    }
    assert_eq!(desk.node.service_view(&key()).unwrap().limit_problem, None);

    // What cannot be is refused before anything is written.
    let refused = desk.ask(limit(1 << 20)).unwrap_err();
    assert_eq!(refused.code, Code::NoCapacity, "{refused}");
    assert_eq!(desk.ask(limit(1)).unwrap_err().code, Code::LimitTooLow);
}

#[test]
fn limits_that_cannot_be_are_taken_back_the_newest_first() {
    let mut desk = Desk::serving(1);
    let star = desk.stars(StarPhase::Ready)[0];
    let ask = |desk: &mut Desk, id, change| {
        let request = Request::Limit { service: key(), change: Box::new(change) };
        desk.tell(Event::Request { id: RequestId(id), request });
    };
    let none = LimitsChange::default();
    let answers = |desk: &mut Desk| -> Vec<(u64, Result<(), Problem>)> {
        let replies = desk.effects.extract_if(.., |effect| matches!(effect, Effect::Reply { .. }));
        let replies = replies.map(|effect| match effect {
            Effect::Reply { id, result } => (id.0, result.map(drop)),
            _ => unreachable!(),
        });
        replies.collect()
    };
    let limits = |desk: &Desk| desk.node.service_view(&key()).unwrap().spec.template.limits;
    let before = limits(&desk);
    let no = |star| Event::Limited { star, problem: Some("no".to_owned()) };

    // Two of the same at once: the second is taken back to the first, the first to what was before.
    ask(&mut desk, 7, LimitsChange { pids: Some(Some(20)), ..none });
    ask(&mut desk, 8, LimitsChange { pids: Some(Some(30)), ..none });
    desk.tell(no(star));
    assert_eq!(answers(&mut desk), [], "one change is not answered");
    desk.tell(no(star));
    assert_eq!(limits(&desk).pids, Some(20));
    desk.tell(no(star));
    assert_eq!(answers(&mut desk).len(), 1);
    assert_eq!(limits(&desk), before);
    desk.tell(Event::Limited { star, problem: None });
    let (id, result) = answers(&mut desk).pop().unwrap();
    assert_eq!((id, result.unwrap_err().changed, limits(&desk)), (7, false, before));

    // What was changed meanwhile stays.
    ask(&mut desk, 9, LimitsChange { pids: Some(Some(20)), cpu: Some(None), memory: Some(None), ..none });
    let mut spec = web(1, "a");
    for service in spec.services.values_mut() {
        service.template.limits = Limits { pids: Some(40), ..limits(&desk) };
    }
    desk.tell(Event::Request { id: RequestId(1), request: Request::PutApp { spec, base: None } });
    assert_eq!(answers(&mut desk), [(1, Ok(()))]);
    desk.tell(no(star));
    desk.tell(no(star));
    assert_eq!(limits(&desk), Limits { pids: Some(40), ..before });
    desk.tell(Event::Limited { star, problem: None });
    assert_eq!(answers(&mut desk).len(), 1);

    // A full disk keeps it from being taken back, and that is said.
    ask(&mut desk, 10, LimitsChange { pids: Some(Some(20)), ..none });
    desk.disk_full = true;
    desk.tell(no(star));
    let (_, result) = answers(&mut desk).pop().unwrap();
    let problem = result.unwrap_err();
    assert!(problem.changed && problem.help.unwrap().ends_with("the disk is full"));
    // Everything else goes on.
    desk.disk_full = false;
    let view = desk.node.service_view(&key()).unwrap();
    assert!(view.problem.is_none() && !view.changing, "{view:?}");
    assert!(view.limit_problem.unwrap().ends_with("cannot be limited so: no"));
    desk.exit(star);
    assert_eq!(desk.node.service_view(&key()).unwrap().limit_problem, None);
}

#[test]
fn a_soft_limit_that_follows_use_is_brought_there_while_a_star_runs() {
    let (mut desk, star) = serving_one(|template| {
        template.limits = Limits { memory: Some(Bytes::mib(256)), balloon: true, ..Limits::UNLIMITED };
    });
    let look = |desk: &mut Desk, used: Option<u64>| -> Option<Option<Bytes>> {
        desk.wait(Duration::from_secs(5));
        let looked = desk.effects.extract_if(.., |effect| matches!(effect, Effect::Measure { .. })).count();
        assert_eq!(looked, 1);
        desk.tell(Event::Measured { star, used: used.map(Bytes::mib) });
        let limited = desk.effects.extract_if(.., |effect| matches!(effect, Effect::Limit { .. })).next();
        desk.tell(Event::Limited { star, problem: None });
        limited.map(|effect| match effect {
            Effect::Limit { limits, .. } => limits.memory_soft,
            _ => unreachable!(),
        })
    };
    assert_eq!(look(&mut desk, Some(100)), Some(Some(Bytes::mib(125))));
    assert_eq!(look(&mut desk, Some(100)), None, "it is where it should be");
    assert_eq!(look(&mut desk, None), None, "nothing is measured here");
    assert_eq!(look(&mut desk, Some(200)), Some(Some(Bytes::mib(250))));
    // An agent that follows begins anew, and a nursery that follows is told.
    desk.tell(Event::NurseryDown);
    let generation = desk.node.state().stars[&star].generation;
    let running = vec![RunningStar { star, generation, pid: pid(star), start_time: 7 }];
    desk.tell(Event::NurseryUp { running, ended: Vec::new() });
    let told = desk.effects.extract_if(.., |effect| matches!(effect, Effect::Limit { .. })).next();
    assert!(
        matches!(told, Some(Effect::Limit { limits, .. }) if limits.memory_soft == Some(Bytes::mib(250))),
        "{told:?}"
    );
    desk.tell(Event::Limited { star, problem: None });
    // Switched off, it has none, and nobody looks any more.
    let change = LimitsChange { balloon: Some(false), ..LimitsChange::default() };
    desk.tell(Event::Request {
        id: RequestId(5),
        request: Request::Limit { service: key(), change: Box::new(change) },
    });
    let told = desk.effects.extract_if(.., |effect| matches!(effect, Effect::Limit { .. })).next();
    assert!(matches!(told, Some(Effect::Limit { limits, .. }) if limits.memory_soft.is_none()), "{told:?}");
    desk.effects.clear();
    desk.wait(Duration::from_secs(60));
    assert!(!desk.effects.iter().any(|effect| matches!(effect, Effect::Measure { .. })));
    let both = LimitsChange { balloon: Some(true), memory_soft: Some(Some(Bytes::mib(64))), ..LimitsChange::default() };
    let refused = desk.ask(Request::Limit { service: key(), change: Box::new(both) }).unwrap_err();
    assert_eq!(refused.code, Code::InvalidValue, "{refused}");
}

#[test]
fn a_drain_that_does_not_end_is_given_up_after_the_grace() {
    let mut desk = Desk::serving(1);
    desk.ask(Request::StopService { service: key() }).unwrap();
    desk.told();
    desk.wait(Duration::from_secs(10));
    assert_eq!(desk.told(), ["signal 15"]);
}

#[test]
fn a_new_version_that_fails_leaves_the_old_one_serving() {
    let mut desk = Desk::serving(3);
    let old = desk.stars(StarPhase::Ready);
    desk.put(web(3, "b"));
    for _ in 0..4 {
        let (_, star) = desk.time_to_start();
        desk.tell(Event::StarStarted { star, pid: 5, start_time: 7 });
        desk.exit(star);
    }
    assert_eq!(desk.stars(StarPhase::Ready), old);
    assert!(!desk.told().contains(&"drain".to_owned()));
    let problem = desk.node.service_view(&key()).unwrap().problem.unwrap();
    assert!(problem.ends_with("; those of the old one still serve"), "{problem}");
    let (_, star) = desk.time_to_start();
    desk.tell(Event::StarStarted { star, pid: 5, start_time: 7 });
    desk.exit(star);
    desk.wait(Duration::from_secs(60));
    let view = desk.node.service_view(&key()).unwrap();
    assert_eq!((view.version, view.rollout, view.problem), (3, None, None));
    let taken_back = view.taken_back.unwrap();
    assert_eq!(taken_back.version, 2);
    assert!(taken_back.reason.contains("0 of 3 of its stars were ready; one ended 5 times in a row"), "{taken_back:?}");
    assert_eq!(desk.stars(StarPhase::Ready), old, "none of them was replaced");
}

/// `web` whose stars come again only when they fail.
fn on_failure(instances: u32, version: &str) -> AppSpec {
    let mut app = web(instances, version);
    app.services.values_mut().for_each(|service| service.template.restart = RestartPolicy::OnFailure);
    app
}

#[test]
fn what_crashed_makes_up_for_nothing_before_that_is_written() {
    let mut desk = Desk::serving(1);
    desk.put(on_failure(1, "a"));
    let old = desk.started()[0];
    desk.make_ready(old);
    for star in desk.stars(StarPhase::Draining) {
        desk.exit(star);
    }
    desk.put(on_failure(1, "b"));
    let [new] = desk.started()[..] else { panic!() };
    desk.effects.clear();
    desk.tell(Event::StarStarted { star: new, pid: pid(new), start_time: 7 });
    desk.moves_unwritten = true;
    desk.exit(new);
    desk.wait(Duration::from_secs(5));
    assert!(!desk.told().contains(&"drain".to_owned()));
    desk.moves_unwritten = false;
    assert_ne!(desk.time_to_start().1, new, "another is tried in its place");
    assert_eq!(desk.stars(StarPhase::Ready), [old]);
}

#[test]
fn what_ended_for_good_is_the_new_version_once_that_is_written() {
    let mut desk = Desk::serving(0);
    desk.put(on_failure(1, "a"));
    let old = desk.started()[0];
    desk.make_ready(old);
    desk.put(on_failure(1, "b"));
    let [new] = desk.started()[..] else { panic!() };
    desk.effects.clear();
    desk.moves_unwritten = true;
    desk.tell(Event::StarStarted { star: new, pid: pid(new), start_time: 7 });
    desk.tell(Event::StarExited { star: new, cause: ExitCause::Code(0) });
    desk.wait(Duration::from_secs(5));
    assert!(desk.started().is_empty(), "nothing comes in its place");
    assert!(!desk.told().contains(&"drain".to_owned()));
    desk.moves_unwritten = false;
    desk.wait(Duration::from_secs(2));
    assert_eq!((desk.told(), desk.started().len()), (vec!["routes 0".to_owned(), "drain".to_owned()], 0));
}

#[test]
fn what_crashed_is_the_first_that_is_too_much() {
    let mut desk = Desk::serving(0);
    desk.put(on_failure(3, "a"));
    for star in desk.started() {
        desk.make_ready(star);
    }
    desk.effects.clear();
    desk.moves_unwritten = true;
    desk.exit(desk.of_name(1));
    desk.ask(Request::Scale { service: key(), instances: 2 }).unwrap();
    desk.moves_unwritten = false;
    desk.wait(Duration::from_secs(30));
    assert!(!desk.told().contains(&"drain".to_owned()));
    assert_eq!((desk.stars(StarPhase::Ready).len(), desk.started()), (2, Vec::new()));
}

#[test]
fn a_new_agent_takes_over_what_runs_and_replaces_what_does_not() {
    let before = Desk::serving(3);
    let stars = before.stars(StarPhase::Ready);
    let mut desk = Desk::new(before.node.state().clone());
    let as_it_was = |star: StarId| {
        let record = &before.node.state().stars[&star];
        let (pid, start_time) = record.process.unwrap();
        RunningStar { star, generation: record.generation, pid, start_time }
    };
    let mut other_process = as_it_was(stars[1]);
    other_process.start_time += 1;
    let mut other_order = as_it_was(stars[2]);
    other_order.generation -= 1;
    let unknown = RunningStar { star: StarId(99), generation: 1, pid: 9, start_time: 9 };
    let later = before.node.state().index + 1;
    let left_over = RunningStar { star: StarId(100), generation: later, pid: 10, start_time: 9 };
    let running = vec![as_it_was(stars[0]), other_process, other_order, unknown, left_over];
    desk.tell(Event::NurseryUp { running, ended: Vec::new() });
    let mut killed: Vec<StarId> = Vec::new();
    for effect in &desk.effects {
        match effect {
            Effect::Kill { star } => killed.push(*star),
            Effect::Signal { star, .. } => assert_ne!(*star, stars[0]),
            _ => {}
        }
    }
    assert_eq!(killed, [stars[1], stars[2], StarId(99), StarId(100)]);
    assert!(desk.stars(StarPhase::Ready).contains(&stars[0]), "it goes on, and stays in the routes");
    assert_eq!(desk.node.state().stars[&stars[0]].process, before.node.state().stars[&stars[0]].process);
}

#[test]
fn what_was_ready_once_is_not_settled_before_a_nursery_says_so() {
    let before = Desk::serving(2);
    let star = |star: StarId| RunningStar {
        star,
        generation: before.node.state().stars[&star].generation,
        pid: pid(star),
        start_time: 7,
    };
    let running: Vec<_> = before.stars(StarPhase::Ready).into_iter().map(star).collect();
    let mut desk = Desk::new(before.node.state().clone());
    let is_changing = |desk: &Desk| desk.node.service_view(&key()).unwrap().changing;
    assert!(is_changing(&desk));
    // One of them is not there any more, which takes a moment to be written.
    let mut other = Desk::new(before.node.state().clone());
    other.disk_full = true;
    other.tell(Event::NurseryUp { running: running[..1].to_vec(), ended: Vec::new() });
    let view = other.node.service_view(&key()).unwrap();
    assert!(view.changing && view.ready == 1, "{view:?}");
    desk.tell(Event::NurseryUp { running, ended: Vec::new() });
    assert!(!is_changing(&desk));
    desk.tell(Event::NurseryDown);
    assert!(is_changing(&desk), "nobody knows what becomes of them");
}

#[test]
fn a_nursery_that_does_not_come_is_a_problem_until_it_does() {
    let mut desk = Desk::new(Desk::serving(1).node.state().clone());
    let problem = |desk: &Desk| desk.node.service_view(&key()).unwrap().problem.or(desk.node.status_view().problem);
    desk.tell(Event::Tick);
    desk.wait(Duration::from_secs(4));
    assert_eq!(problem(&desk), None);
    desk.wait(Duration::from_secs(2));
    assert!(problem(&desk).unwrap().contains("`nursery.log`"));
    desk.tell(Event::NurseryUp { running: Vec::new(), ended: Vec::new() });
    assert_eq!(problem(&desk), None);
    // One that is replaced within a moment is none.
    desk.tell(Event::NurseryDown);
    desk.wait(Duration::from_secs(1));
    desk.tell(Event::NurseryUp { running: Vec::new(), ended: Vec::new() });
    desk.wait(Duration::from_secs(10));
    assert_eq!(problem(&desk), None);
}

#[test]
fn what_cannot_be_is_refused_before_any_door_is_touched() {
    let elsewhere = |mut spec: AppSpec, app: &str| {
        spec.app = app.parse().unwrap();
        spec
    };
    let moved = |mut spec: AppSpec| {
        let service = spec.services.values_mut().next().unwrap();
        service.entry.as_mut().unwrap().listen.port = 9000;
        spec
    };
    let mut too_big = moved(web(1, "a"));
    too_big.services.values_mut().next().unwrap().template.limits.memory = Some(Bytes::mib(4096));
    let on = |cpus: &str| {
        let mut spec = moved(web(1, "a"));
        spec.services.values_mut().next().unwrap().template.limits.cpus = cpus.parse().ok();
        spec
    };
    let cases = [
        (elsewhere(moved(web(1, "a")), "blog"), None, Code::AlreadyExists),
        (moved(web(1, "a")), Some(0), Code::Conflict),
        (moved(web(u32::MAX, "a")), None, Code::InvalidValue),
        (too_big, None, Code::NoCapacity),
        (on("1-2"), None, Code::NoCapacity),
    ];
    let mut desk = Desk::serving(1);
    let before = desk.node.state().clone();
    for (spec, base, code) in cases {
        let problem = desk.ask(Request::PutApp { spec, base }).unwrap_err();
        assert_eq!(problem.code, code, "{problem}");
        assert_eq!(desk.told(), [""; 0], "{problem}");
    }
    assert_eq!(desk.node.state(), &before);
    desk.ask(Request::PutApp { spec: on("0-1"), base: None }).unwrap();
}

#[test]
fn what_an_ordinary_users_stars_cannot_have_is_refused_there_and_only_there() {
    let with = |change: fn(&mut StarTemplate)| {
        let mut app = web(1, "a");
        let template = &mut app.services.values_mut().next().unwrap().template;
        template.program = Program::Command(vec!["x".to_owned()]);
        change(template);
        Request::PutApp { spec: app, base: None }
    };
    let user = |template: &mut StarTemplate| template.interior.user = Some(model::User { uid: 1000, gid: 0 });
    let own = |template: &mut StarTemplate| template.interior.user = Some(model::User { uid: 0, gid: 0 });
    let setuid = |template: &mut StarTemplate| template.weakened.capabilities = [model::Capability::Setuid].into();
    let kill = |template: &mut StarTemplate| template.weakened.capabilities = [model::Capability::Kill].into();
    let bridge = |template: &mut StarTemplate| template.network = Network::Bridge;
    for (request, says) in [
        (with(user), "`user: \"1000:0\"`"),
        (with(setuid), "the capability `setuid`"),
        (with(bridge), "`network: \"bridge\"`"),
    ] {
        let mut desk = Desk::of(State::default(), true);
        let problem = desk.ask(request.clone()).unwrap_err();
        assert!(problem.code == Code::Unsupported && problem.message.contains(says), "{problem}");
        assert_eq!(Desk::new(State::default()).ask(request), Ok(()));
    }
    for request in [with(own), with(kill)] {
        assert_eq!(Desk::of(State::default(), true).ask(request), Ok(()));
    }
}

#[test]
fn two_changes_of_one_service_at_once_are_told_apart() {
    let mut node = Desk::new(State::default()).node;
    let mut answers = Vec::new();
    for id in 1..=2 {
        let request = Request::PutApp { spec: web(1, "a"), base: None };
        let event = Event::Request { id: RequestId(id), request };
        node.handle(Time(1), WallTime(1), event, &mut answers);
    }
    let refused: Vec<_> = answers
        .iter()
        .filter_map(|effect| match effect {
            Effect::Reply { id, result: Err(problem) } => Some((*id, problem.code)),
            _ => None,
        })
        .collect();
    assert_eq!(refused, [(RequestId(2), Code::Conflict)]);
}

#[test]
fn a_taken_port_changes_nothing() {
    let mut desk = Desk::serving(1);
    let before = desk.node.state().clone();
    let mut spec = web(1, "b");
    spec.services.values_mut().next().unwrap().entry.as_mut().unwrap().listen.port = 9000;
    let mut effects = Vec::new();
    let event = Event::Request { id: RequestId(2), request: Request::PutApp { spec, base: None } };
    desk.node.handle(desk.now, WallTime(1), event, &mut effects);
    let problem = Problem::new(Code::PortInUse, "taken");
    let event = Event::Listening { service: key(), result: Err(problem.clone()) };
    desk.node.handle(desk.now, WallTime(1), event, &mut effects);
    assert!(effects.contains(&Effect::Reply { id: RequestId(2), result: Err(problem) }));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Propose { .. })));
    assert_eq!(desk.node.state(), &before);
}

#[test]
fn a_few_ended_stars_are_kept_for_their_logs() {
    let mut desk = Desk::serving(1);
    for _ in 0..12 {
        desk.exit(desk.stars(StarPhase::Ready)[0]);
        let (_, star) = desk.time_to_start();
        desk.make_ready(star);
    }
    assert_eq!(desk.stars(StarPhase::Ended).len(), 5);
    let forgotten = desk.effects.iter().filter(|effect| matches!(effect, Effect::Forget { .. })).count();
    assert_eq!(forgotten, 7);
}

#[test]
fn a_command_from_elsewhere_opens_its_doors_too() {
    let mut desk = Desk::new(State::default());
    desk.tell(Event::Committed {
        index: 1,
        command: Command::PutApp { spec: web(1, "a"), base: None, wall: WallTime(1_000_000) },
    });
    assert_eq!(desk.told(), ["listen 8000"]);
}

#[test]
fn nobody_is_let_in_before_it_is_known_who_answers() {
    let before = Desk::serving(1);
    let star = before.stars(StarPhase::Ready)[0];
    let generation = before.node.state().stars[&star].generation;
    let mut next = Desk::new(before.node.state().clone());
    next.tell(Event::NurseryUp {
        running: vec![RunningStar { star, generation, pid: pid(star), start_time: 7 }],
        ended: Vec::new(),
    });
    let told = next.told().into_iter().filter(|told| told.starts_with("routes") || told.starts_with("listen"));
    assert_eq!(told.collect::<Vec<_>>(), ["routes 1", "listen 8000"]);
}

#[test]
fn a_service_is_taken_out_of_its_app_and_with_the_last_the_app_is_gone() {
    let mut desk = Desk::serving(1);
    let star = desk.stars(StarPhase::Ready)[0];
    desk.ask(Request::RemoveService { service: key() }).unwrap();
    assert!(desk.node.app_views().is_empty() && desk.node.service_views().is_empty());
    assert!(desk.told().contains(&"unlisten".to_owned()));
    desk.tell(Event::Drained { star });
    desk.exit(star);
    assert!(desk.node.star_views().is_empty(), "nothing is kept of it");
    assert_eq!(desk.ask(Request::RemoveService { service: key() }).unwrap_err().code, Code::NotFound);
}

#[test]
fn a_star_remembers_its_turns_and_those_before_it() {
    let mut desk = Desk::serving(1);
    let first = desk.stars(StarPhase::Ready)[0];
    let phases = |desk: &Desk, star| -> Vec<StarPhase> {
        desk.node.star_detail(star).unwrap().history.into_iter().map(|turn| turn.phase).collect()
    };
    assert_eq!(phases(&desk, first), [StarPhase::Assigned, StarPhase::Starting, StarPhase::Ready]);
    desk.exit(first);
    let (_, second) = desk.time_to_start();
    assert_eq!(phases(&desk, first).last(), Some(&StarPhase::Ended));
    let detail = desk.node.star_detail(second).unwrap();
    assert_eq!(detail.before.iter().map(|star| star.id).collect::<Vec<_>>(), [first]);
    // However often it changes, what is kept is bounded: the first turn and the last.
    desk.make_ready(second);
    for _ in 0..50 {
        for outcome in [Err("no".to_owned()), Err("no".to_owned()), Err("no".to_owned()), Ok(())] {
            desk.tell(Event::Probed { star: second, role: ProbeRole::Ready, outcome });
        }
    }
    let turns = phases(&desk, second);
    assert!(turns.len() <= state::TURNS_MAX && turns[0] == StarPhase::Assigned, "{turns:?}");
    let events = desk.node.events_view(0);
    let ended = events.iter().find(|event| event.what.contains("ended")).unwrap();
    assert_eq!((ended.star.clone(), ended.service.clone()), (Some(name_of(&desk, second)), Some(key())));
}

/// What is asked of stars that was not answered yet.
fn asked(desk: &mut Desk) -> Vec<ProbeRole> {
    let asked = desk.effects.drain(..).filter_map(|effect| match effect {
        Effect::Probe { role, .. } => Some(role),
        _ => None,
    });
    asked.collect()
}

fn answer(desk: &mut Desk, star: StarId, role: ProbeRole, outcome: Result<(), String>) {
    desk.tell(Event::Probed { star, role, outcome });
}

#[test]
fn nothing_else_is_asked_until_a_star_has_started() {
    let mut desk = Desk::new(State::default());
    desk.tell(Event::NurseryUp { running: Vec::new(), ended: Vec::new() });
    let mut spec = web(1, "a");
    let template = &mut spec.services.values_mut().next().unwrap().template;
    let exec = |word: &str| ProbeKind::Exec { command: vec![word.to_owned()] };
    template.probe = Probe { start_ms: 4_000, ..template.probe.clone() };
    template.health.startup = Some(Probe { start_ms: 60_000, interval_ms: 1_000, ..Probe::new(exec("begun")) });
    template.health.live = Some(Probe { interval_ms: 1_000, failures: 2, ..Probe::new(exec("alive")) });
    desk.put(spec);
    let [star] = desk.started()[..] else { panic!() };
    desk.tell(Event::StarStarted { star, pid: pid(star), start_time: 7 });
    // Far longer than it may take to get ready, and than it may be dead.
    for _ in 0..30 {
        assert_eq!(asked(&mut desk), [ProbeRole::Startup]);
        answer(&mut desk, star, ProbeRole::Startup, Err("not yet".to_owned()));
        desk.wait(Duration::from_secs(1));
    }
    assert_eq!(asked(&mut desk), [ProbeRole::Startup]);
    answer(&mut desk, star, ProbeRole::Startup, Ok(()));
    assert_eq!(asked(&mut desk), [ProbeRole::Ready]);
    assert_eq!(desk.stars(StarPhase::Starting), [star]);
    // Now it lives, ready or not, and has its own time to get ready.
    desk.wait(Duration::from_millis(1_500));
    assert_eq!(asked(&mut desk), [ProbeRole::Live]);
    answer(&mut desk, star, ProbeRole::Live, Ok(()));
    answer(&mut desk, star, ProbeRole::Ready, Ok(()));
    assert_eq!(desk.stars(StarPhase::Ready), [star]);
}

#[test]
fn a_star_that_does_not_start_in_time_is_ended_and_one_that_started_has_time_to_get_ready() {
    for (passes, time) in [(false, 10), (true, 4)] {
        let mut desk = Desk::new(State::default());
        desk.tell(Event::NurseryUp { running: Vec::new(), ended: Vec::new() });
        let mut spec = web(1, "a");
        let template = &mut spec.services.values_mut().next().unwrap().template;
        template.probe.start_ms = 4_000;
        let startup = Probe::new(ProbeKind::Http { path: "/begun".to_owned() });
        template.health.startup = Some(Probe { start_ms: 10_000, ..startup });
        desk.put(spec);
        let [star] = desk.started()[..] else { panic!() };
        desk.tell(Event::StarStarted { star, pid: pid(star), start_time: 7 });
        if passes {
            desk.wait(Duration::from_secs(9));
            answer(&mut desk, star, ProbeRole::Startup, Ok(()));
        }
        desk.wait(Duration::from_secs(time) - Duration::from_millis(1));
        assert!(!desk.told().contains(&"kill".to_owned()), "{passes}");
        desk.wait(Duration::from_millis(1));
        assert_eq!(desk.told(), ["kill"], "{passes}");
        desk.tell(Event::StarExited { star, cause: ExitCause::Signal(9) });
        let exit = desk.node.star_view(star).unwrap().exit.unwrap();
        assert_eq!(exit.cause, ExitCause::StartTimeout);
    }
}

#[test]
fn a_star_whose_life_fails_is_replaced_whether_it_is_ready_or_not() {
    for ready in [true, false] {
        let (mut desk, star) = serving_one(|template| {
            let live = Probe::new(ProbeKind::Exec { command: vec!["alive".to_owned()] });
            template.health.live = Some(Probe { interval_ms: 1_000, failures: 3, ..live });
        });
        if !ready {
            for _ in 0..3 {
                answer(&mut desk, star, ProbeRole::Ready, Err("busy".to_owned()));
            }
            assert_eq!(desk.stars(StarPhase::Unready), [star]);
        }
        let fail = |desk: &mut Desk, outcome: Result<(), String>| {
            desk.effects.clear();
            desk.wait(Duration::from_secs(1));
            assert!(asked(desk).contains(&ProbeRole::Live), "it is asked every second");
            answer(desk, star, ProbeRole::Live, outcome);
        };
        // One success between failures begins the count anew.
        for outcome in [Err(()), Err(()), Ok(()), Err(()), Err(())] {
            fail(&mut desk, outcome.map_err(|()| "hangs".to_owned()));
            assert!(!desk.told().contains(&"kill".to_owned()));
        }
        fail(&mut desk, Err("hangs".to_owned()));
        assert!(desk.told().contains(&"kill".to_owned()), "{ready}");
        desk.tell(Event::StarExited { star, cause: ExitCause::Signal(9) });
        assert_eq!(desk.node.star_view(star).unwrap().exit.unwrap().cause, ExitCause::Unhealthy);
        assert_ne!(desk.time_to_start().1, star);
    }
}

#[test]
fn a_star_that_fails_its_readiness_lives_on() {
    let (mut desk, star) = serving_one(|template| {
        template.health.live = Some(Probe::new(ProbeKind::Exec { command: vec!["alive".to_owned()] }));
    });
    for _ in 0..20 {
        answer(&mut desk, star, ProbeRole::Ready, Err("busy".to_owned()));
        desk.wait(Duration::from_secs(5));
        answer(&mut desk, star, ProbeRole::Live, Ok(()));
    }
    assert_eq!(desk.stars(StarPhase::Unready), [star]);
    assert!(!desk.told().contains(&"kill".to_owned()));
}

#[test]
fn a_paused_star_is_not_asked_whether_it_lives_and_is_again_when_it_goes_on() {
    let (mut desk, star) = serving_one(|template| {
        let live = Probe::new(ProbeKind::Exec { command: vec!["alive".to_owned()] });
        template.health.live = Some(Probe { interval_ms: 1_000, failures: 1, ..live });
    });
    desk.wait(Duration::from_secs(1));
    assert!(asked(&mut desk).contains(&ProbeRole::Live));
    desk.ask(Request::Pause { service: key() }).unwrap();
    // It was asked before and cannot answer: that is no death.
    answer(&mut desk, star, ProbeRole::Live, Err("no answer within 1000 ms".to_owned()));
    desk.wait(Duration::from_secs(60));
    assert!(asked(&mut desk).is_empty() && desk.stars(StarPhase::Paused) == [star]);
    desk.ask(Request::Resume { service: key() }).unwrap();
    answer(&mut desk, star, ProbeRole::Ready, Ok(()));
    desk.wait(Duration::from_secs(1));
    assert!(asked(&mut desk).contains(&ProbeRole::Live));
}

#[test]
fn stars_of_an_agent_that_ends_with_them_end_in_good_order_and_come_again() {
    let (mut desk, star) = serving_one(|template| template.hooks.before_stop = vec!["bye".to_owned()]);
    desk.told();
    desk.tell(Event::Rest);
    desk.tell(Event::Drained { star });
    assert!(desk.told().contains(&"hook bye".to_owned()));
    desk.tell(Event::HookEnded { star });
    assert_eq!(desk.told(), ["signal 15"]);
    assert!(!desk.node.is_at_rest());
    assert_eq!(desk.ask(Request::Scale { service: key(), instances: 3 }).unwrap_err().code, Code::Unavailable);
    desk.tell(Event::StarExited { star, cause: ExitCause::Signal(15) });
    desk.wait(Duration::from_secs(60));
    assert!(desk.node.is_at_rest() && desk.started().is_empty());
    assert!(desk.node.star_view(star).unwrap().exit.unwrap().asked);
    assert_eq!(desk.node.service_view(&key()).unwrap().restarts, 0);
    // The log wants it as before, and so does the next agent.
    assert_eq!(desk.node.service_view(&key()).unwrap().desired, 1);
}

#[test]
fn a_star_that_does_not_end_with_its_agent_is_killed_after_its_grace() {
    let (mut desk, star) = serving_one(|template| template.grace_ms = 3_000);
    desk.tell(Event::Rest);
    desk.tell(Event::Drained { star });
    desk.told();
    desk.wait(Duration::from_millis(2_900));
    assert!(desk.told().is_empty());
    desk.wait(Duration::from_millis(200));
    assert_eq!(desk.told(), ["kill"]);
}
