//! How far the decisions carry (target 20): 5,000 machines, 10,000 services, 1,000,000 stars, as `sim::scale` has them. No network, no
//! disk, no star: two whole nodes, processor time of their decisions, and the memory that knowing all of it takes.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use sim::scale::{Cost, Scale, Size};

use crate::report::{Report, Target};
use crate::{Bench, Depth, memory};

/// Stars that end by themselves in a second: each of them once in a quarter of an hour.
const CRASHES: u64 = 1_000;

pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let size = match bench.depth {
        Depth::Quick => Size { nodes: 5_000, apps: 10, services: 100, stars: 100 },
        Depth::Full => Size { nodes: 5_000, apps: 100, services: 100, stars: 100 },
    };
    let before = memory::resident_own(std::process::id())?;
    let mut world = Scale::new(size, processor_time);
    world.cost();
    world.deploy()?;
    let held = memory::resident_own(std::process::id())?.saturating_sub(before) / 2;
    world.check_all()?;
    let stars = size.all_stars();
    let wanted = if bench.depth == Depth::Full { 1e6 } else { 0.0 };
    let note = format!(
        "simulated, {} nodes, {} services; two whole nodes, decisions and state alone: no network, no disk, no stars",
        size.nodes,
        size.apps * size.services
    );
    report.figure("scale_stars", stars as f64, "stars", Target::AtLeast(wanted), &note);
    let deployed = world.cost();
    let each = |cost: Duration| cost.as_secs_f64() * 1e6 / stars as f64;
    let note = format!(
        "processor time of the leader from what is wanted to all ready, {} commands; a worker's {:.1}",
        deployed.commands,
        each(deployed.worker)
    );
    report.figure("scale_star_deployed", each(deployed.leader), "us", Target::None, &note);
    let note = format!("of one node: {} bytes a star", held / stars);
    report.figure("scale_memory", held as f64 / 1e6, "MB", Target::None, &note);

    world.second(0)?;
    world.cost();
    world.second(0)?;
    let quiet = world.cost();
    told(report, "scale_second_quiet", quiet, "every machine reports");
    world.second(CRASHES)?;
    let busy = world.cost();
    told(report, "scale_second_busy", busy, &format!("the same, and {CRASHES} stars end and are replaced"));
    world.death(model::NodeId(size.nodes / 2))?;
    let death = world.cost();
    told(report, "scale_death", death, "a machine with its stars is given up, and they run elsewhere");
    world.succeed();
    let led = world.cost();
    let note = format!("another node comes to lead and looks at everything; {} commands", led.commands);
    report.figure("scale_new_leader", millis(led.worker), "ms", Target::AtMost(1_000.0), &note);
    world.start_again();
    let begun = world.cost();
    report.figure("scale_agent_start", millis(begun.worker), "ms", Target::None, "decisions, with the state in memory");
    world.check_all()
}

fn told(report: &mut Report, name: &str, cost: Cost, what: &str) {
    let note =
        format!("the leader's decisions: {what}; {} commands; a worker's {:.1}", cost.commands, millis(cost.worker));
    // More than a second for a second would never be caught up with.
    report.figure(name, millis(cost.leader), "ms", Target::AtMost(1_000.0), &note);
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Of this thread.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
