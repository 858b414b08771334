//! How soon everybody knows of a death: thirty agents on loopback beside thirty of serf (target 19, in the small and in earnest).
//!
//! The processes of one are killed; each of the others says in its log when it holds it for dead. One after the other, since both would
//! disturb each other.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::machines::Machines;
use super::serf::Serf;
use crate::report::{Report, Samples, Target};
use crate::{Bench, Depth};

const NODES: usize = 30;
const CONTROLLERS: usize = 3;
/// A member that came has been heard of by all, and no comparison is under way.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(10);

pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let deaths = if bench.depth == Depth::Quick { 2 } else { 5 };
    let ours = ours(bench, deaths)?;
    let theirs = theirs(deaths)?;
    let most = match theirs {
        Some(theirs) => {
            report.figure("serf_30_detection", theirs.median(), "s", Target::None, &theirs.spread());
            theirs.median().min(6.0)
        }
        None => {
            report.skipped("serf_30_detection", "serf is not installed");
            6.0
        }
    };
    let note =
        format!("agent and nursery of one are killed until all {} others see it dead; {}", NODES - 1, ours.spread());
    report.figure("members_30_detection", ours.median(), "s", Target::AtMost(most), &note);
    Ok(())
}

fn ours(bench: &Bench, deaths: usize) -> Result<Samples, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (mut machines, _) = Machines::found(bench, folder.path())?;
    machines.join("controller", CONTROLLERS)?;
    machines.until_voters(CONTROLLERS)?;
    machines.join("worker", NODES)?;
    let deadline = Instant::now() + PATIENCE;
    while !machines
        .all
        .iter()
        .all(|machine| machine.nodes().is_ok_and(|nodes| nodes.iter().filter(|node| node.alive).count() == NODES))
    {
        if Instant::now() > deadline {
            return Err(format!("{NODES} nodes do not know each other within {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(STEP);
    }
    let mut times = Vec::new();
    for _ in 0..deaths {
        std::thread::sleep(SETTLED_AFTER);
        // A worker: what it takes to notice is what is asked, not an election.
        let dead = machines.all.pop().ok_or("nobody is left")?;
        let began = Instant::now();
        dead.agent.kill_machine()?;
        let told = format!("name={} status=Dead", dead.name);
        let mut waiting: BTreeSet<usize> = (0..machines.all.len()).collect();
        while !waiting.is_empty() {
            waiting.retain(|place| !machines.all[*place].log().contains(&told));
            if began.elapsed() > PATIENCE {
                return Err(format!("{} of {NODES} agents do not see that one is dead", waiting.len()));
            }
            std::thread::sleep(STEP);
        }
        times.push(began.elapsed().as_secs_f64());
    }
    Samples::new(times).ok_or_else(|| "nobody died".to_owned())
}

fn theirs(deaths: usize) -> Result<Option<Samples>, String> {
    let Some(mut serf) = Serf::start(NODES)? else { return Ok(None) };
    serf.until_all_know_all()?;
    let mut times = Vec::new();
    for _ in 0..deaths {
        std::thread::sleep(SETTLED_AFTER);
        times.push(serf.kill_one()?.as_secs_f64());
    }
    Ok(Samples::new(times))
}
