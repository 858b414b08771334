//! A thousand members in virtual time, by the code that ships (target 19): joining, traffic, false deaths under loss, detection. What
//! `cargo xtask sim membership` prints for more sizes, and beside foca.

use std::time::Duration;

use membership::Config;
use sim::figures;
use sim::members::World;

use crate::report::{Report, Target};
use crate::{Bench, Depth};

const NODES: usize = 1_000;
const SEED: u64 = 1;
/// News of joining is over by then.
const SETTLED_AFTER: Duration = Duration::from_secs(45);

pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let (minutes, deaths) = if bench.depth == Depth::Quick { (1, 5) } else { (2, 20) };
    let name = |what: &str| format!("members_1000_{what}");
    let (mut world, joined) = World::joined(NODES, Config::default(), SEED);
    let note = format!("simulated, seed {SEED}; all start within 2 s and know three, until all know all");
    report.figure(&name("join"), joined.as_secs_f64(), "s", Target::None, &note);
    world.run_for(SETTLED_AFTER);

    let (mean, most) = figures::traffic(&mut world, Duration::from_secs(60));
    let note = format!("simulated; gossip alone, each way, quiet, with all heads; busiest node {:.3}", most / 1e6);
    report.figure(&name("traffic"), mean / 1e6, "Mbit/s", Target::AtMost(0.1), &note);

    for percent in [0, 1, 5, 10, 30] {
        let it = figures::innocents(&mut world, f64::from(percent) / 100.0, Duration::from_secs(minutes * 60));
        let note =
            format!("simulated, in {:.1} node-hours; {} suspicions, contradicted", it.node_hours, it.false_suspicions);
        let target = Target::AtMost(0.0);
        report.figure(&name(&format!("false_at_{percent}%")), it.false_deaths as f64, "deaths", target, &note);
        world.run_for(Duration::from_secs(30));
    }

    let times = figures::detections(&mut world, deaths, SEED);
    let mut last: Vec<f64> = times.iter().map(|(_, last)| last.as_secs_f64()).collect();
    last.sort_by(f64::total_cmp);
    let note = format!("simulated; all survivors know, the slowest of {deaths}; median {:.2}", last[last.len() / 2]);
    report.figure(&name("detection"), last[last.len() - 1], "s", Target::AtMost(6.0), &note);
    Ok(())
}
