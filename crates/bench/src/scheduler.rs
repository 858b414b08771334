//! How long a decision takes (targets.md row 5): from the change of a service that is written to the machine of its next star, as the
//! node that leads decides it, and how many stars a plan places in a second. One thread, no disk, no network; the machines are
//! entries of the state.

use std::time::{Duration, Instant};

use model::{
    AppSpec, BundleId, Bytes, ContentHash, Kept, Limits, Network, NodeFacts, NodeId, NodeRole, Placement, Probe,
    ProbeKind, Program, RestartPolicy, ServiceSpec, StarTemplate, Time, WallTime,
};
use node::{Effect, Event, Node, NodeConfig};
use scheduler::{Ids, NodeView, Request, plan};
use state::{Command, State};

use crate::report::{Report, Samples, Target};
use crate::{Bench, Depth};

mod quality;

const WALL: WallTime = WallTime(1);
/// Four regions of four zones; every other machine has the disk that is asked for.
const PLACEMENT: &str =
    r#"{"require":["disk = ssd","cores >= 8"],"prefer":[{"that":"rack = r1","weight":20}],"spread":["region","zone"]}"#;

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    for nodes in [1_000, 5_000] {
        for (kind, placement) in [("plain", "{}"), ("constrained", PLACEMENT)] {
            if let Err(reason) = measure(bench, report, nodes, kind, placement) {
                report.failed("schedule", &reason);
            }
        }
    }
    if let Err(reason) = quality::run(bench, report) {
        report.failed("plans", &reason);
    }
}

fn measure(bench: &Bench, report: &mut Report, nodes: u64, kind: &str, placement: &str) -> Result<(), String> {
    let placement: Placement = serde_json::from_str(placement).map_err(|error| error.to_string())?;
    let decisions = if bench.depth == Depth::Quick { 200 } else { 2_000 };
    let figure = format!("schedule_{nodes}_{kind}");
    if bench.wants(&figure) {
        let times = decide(nodes, &placement, decisions)?;
        let samples = Samples::new(times).ok_or("no samples")?;
        let note =
            format!("p99, one star more; p50 {:.3}, max {:.3}, n={decisions}", samples.median(), samples.quantile(1.0));
        // The target is for a thousand machines.
        let target = if nodes == 1_000 { Target::AtMost(1.0) } else { Target::None };
        report.figure(&figure, samples.quantile(0.99), "ms", target, &note);
    }
    let figure = format!("placements_{nodes}_{kind}");
    if bench.wants(&figure) {
        let target = if nodes == 5_000 { Target::AtLeast(50_000.0) } else { Target::None };
        let (rate, note) = place(nodes, &placement)?;
        report.figure(&figure, rate, "/s", target, &note);
    }
    Ok(())
}

/// Milliseconds of each decision for one star more, in a constellation that has ten stars a machine.
fn decide(nodes: u64, placement: &Placement, decisions: u32) -> Result<Vec<f64>, String> {
    let mut lead = Lead::new(nodes)?;
    let before = u32::try_from(nodes).unwrap_or(u32::MAX).saturating_mul(10).min(model::app::INSTANCES_MAX);
    lead.put("filler", before, &Placement::default());
    lead.put("web", 0, placement);
    let mut times = Vec::new();
    for instances in 1..=decisions {
        let scale = Command::Scale { service: "web".parse().map_err(|_| "no name")?, instances, wall: WALL };
        let begun = Instant::now();
        lead.write(scale);
        let took = begun.elapsed();
        let assigned =
            lead.proposed.iter().any(|command| matches!(command, Command::Assign { stars, .. } if stars.len() == 1));
        if !assigned {
            return Err(format!("no machine for star {instances}"));
        }
        times.push(took.as_secs_f64() * 1e3);
        lead.settle();
    }
    Ok(times)
}

/// Stars placed in a second by plans of a thousand, and what that was.
fn place(nodes: u64, placement: &Placement) -> Result<(f64, String), String> {
    const AT_ONCE: u32 = 1_000;
    const LONG_ENOUGH: Duration = Duration::from_secs(2);
    let facts: Vec<NodeFacts> = (1..=nodes).map(facts).collect();
    let view = |(facts, number)| NodeView {
        shunned: false,
        node: NodeId(number),
        name: None,
        facts,
        taints: None,
        closed: None,
        others: 0,
        apart: None,
        stars: 10,
        of_service: 0,
        crowd: None,
        places: None,
        promised_memory: Bytes(0),
        promised_cpu: 0,
        kept: Kept::default(),
        ports: [None, None],
    };
    let views: Vec<NodeView<'_>> = facts.iter().zip(1..).map(view).collect();
    let (service, template) = ("web".parse().map_err(|_| "no name")?, template());
    let ordinals: Vec<u32> = (1..=AT_ONCE).collect();
    let request = Request { service: &service, template: &template, placement, ordinals: &ordinals };
    let (mut ids, begun, mut placed) = (Ids::new(1), Instant::now(), 0);
    while begun.elapsed() < LONG_ENOUGH {
        placed += plan(&views, &request, &mut ids, |_| false).len();
    }
    Ok((
        placed as f64 / begun.elapsed().as_secs_f64(),
        format!("plans of {AT_ONCE} stars; {placed} placed, one thread"),
    ))
}

/// The node that leads, and what it has proposed.
struct Lead {
    node: Node,
    index: u64,
    proposed: Vec<Command>,
}

impl Lead {
    fn new(nodes: u64) -> Result<Self, String> {
        let mut state = State::default();
        let name = |number: u64| format!("n{number}").parse().map_err(|_| "no name");
        let address = || "10.0.0.1:7946".to_owned();
        let cluster = "bench".parse().map_err(|_| "no name")?;
        let found =
            Command::Found { cluster, name: name(1)?, address: address(), facts: Box::new(facts(1)), wall: WALL };
        state::apply(&mut state, 1, &found);
        for number in 2..=nodes {
            let (name, facts, role) = (name(number)?, Box::new(facts(number)), NodeRole::Worker);
            let admit = Command::AdmitNode { name, role, address: address(), facts, wall: WALL, ticket: None };
            state::apply(&mut state, number, &admit);
        }
        let config =
            NodeConfig { node: NodeId(1), seed: 1, rootless: false, memory: Bytes::mib(65_536), cores: 32, cpus: None };
        let mut this = Self { index: state.index, node: Node::new(config, state), proposed: Vec::new() };
        this.tell(Event::NurseryUp { running: Vec::new(), ended: Vec::new() });
        this.tell(Event::Leads { leads: true });
        this.settle();
        Ok(this)
    }

    fn tell(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.node.handle(Time(1_000_000_000), WALL, event, &mut effects);
        let command = |effect| match effect {
            Effect::Propose { command, .. } => Some(command),
            _ => None,
        };
        self.proposed.extend(effects.into_iter().filter_map(command));
    }

    fn write(&mut self, command: Command) {
        self.index += 1;
        self.tell(Event::Committed { index: self.index, command });
    }

    /// Writes what is proposed until nothing is.
    fn settle(&mut self) {
        while !self.proposed.is_empty() {
            std::mem::take(&mut self.proposed).into_iter().for_each(|command| self.write(command));
        }
    }

    fn put(&mut self, name: &str, instances: u32, placement: &Placement) {
        let (Ok(app), Ok(service)) = (name.parse(), name.parse()) else { return };
        let spec = ServiceSpec {
            template: template(),
            instances,
            entry: None,
            placement: placement.clone(),
            update: Default::default(),
            job: None,
            hold: None,
        };
        self.write(Command::PutApp {
            spec: AppSpec { app, services: [(service, spec)].into() },
            base: None,
            wall: WALL,
        });
        self.settle();
    }
}

fn facts(number: u64) -> NodeFacts {
    let named = |kind: char, of: u64| format!("{kind}{}", number % of).parse().ok();
    let disk = if number.is_multiple_of(2) { "ssd" } else { "hdd" };
    NodeFacts {
        memory: Bytes::mib(65_536),
        cores: 32,
        region: named('e', 4),
        zone: named('z', 16),
        rack: named('r', 100),
        labels: [("disk".to_owned(), disk.to_owned())].into(),
        ..NodeFacts::default()
    }
}

fn template() -> StarTemplate {
    StarTemplate {
        program: Program::Command(vec!["server".to_owned()]),
        args: Vec::new(),
        bundle: BundleId(ContentHash([0; 32])),
        rootfs: None,
        env: Default::default(),
        limits: Limits::DEFAULT,
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
        access: None,
        reserve: Default::default(),
        checkpoint: false,
        singleton: false,
    }
}
