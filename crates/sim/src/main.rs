//! `cargo xtask sim`: the figures of membership in virtual time, and whole clusters with faults from seeds.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use membership::Config;
use model::Time;
use sim::members::World;
use sim::{figures, peer};

const USAGE: &str = "\
usage: cargo xtask sim cluster [--seeds N …]      whole nodes, with faults; `--help` says more
usage: cargo xtask sim consensus [--seeds N …]    the real consensus, with faults; `--help` says more
usage: cargo xtask sim membership [--nodes=N,N,…] [--seed=N] [--minutes=N] [--deaths=N] [--peer]

  --nodes    sizes of the simulated clusters, 3 to 8192 (3,30,100,1000)
  --seed     what all chance follows from (1)
  --minutes  how long each loss is endured, in virtual time, 1 to 600 (10 below 1,000 nodes, 2 from there on)
  --deaths   how many deaths are timed, one after the other, 1 to 1000 (20)
  --peer     foca 2 with its own settings for local networks on the same network beside it; slow beyond 300 nodes
";

struct Options {
    nodes: Vec<usize>,
    seed: u64,
    minutes: Option<u64>,
    deaths: usize,
    peer: bool,
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options { nodes: vec![3, 30, 100, 1_000], seed: 1, minutes: None, deaths: 20, peer: false };
    let ranged = |name: &str, value: &str, range: std::ops::RangeInclusive<u64>| match value.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!(
            "`{name}` takes a number from {} to {}, not `{}`",
            range.start(),
            range.end(),
            value.escape_debug()
        )),
    };
    for arg in args {
        if arg == "--peer" {
            options.peer = true;
            continue;
        }
        match arg.split_once('=') {
            Some(("--nodes", list)) => {
                let sizes = list.split(',').map(|size| ranged("--nodes", size, 3..=8_192).map(|size| size as usize));
                options.nodes = sizes.collect::<Result<_, _>>()?;
            }
            Some(("--seed", value)) => options.seed = ranged("--seed", value, 0..=u64::MAX)?,
            Some(("--minutes", value)) => options.minutes = Some(ranged("--minutes", value, 1..=600)?),
            Some(("--deaths", value)) => options.deaths = ranged("--deaths", value, 1..=1_000)? as usize,
            _ => return Err(format!("unknown option `{}`", arg.escape_debug())),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let options = match args.split_first() {
        Some((what, rest)) if what == "cluster" => return sim::cluster::main(rest),
        Some((what, rest)) if what == "consensus" => return sim::voters::main(rest),
        Some((what, rest)) if what == "membership" => parse(rest),
        _ => Err("what is to be simulated: `membership`, `cluster` or `consensus`".to_owned()),
    };
    match options {
        Ok(options) if membership(&options) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(reason) => {
            eprint!("sim: {reason}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Prints figures in the format of `cargo xtask bench`: name, value, unit, target, verdict, note.
#[derive(Default)]
struct Report {
    missed: bool,
}

impl Report {
    fn line(&mut self, name: &str, value: f64, unit: &str, target: Option<f64>, note: &str) {
        let verdict = match target {
            Some(target) if value > target => "MISS",
            Some(_) => "ok",
            None => "-",
        };
        self.missed |= verdict == "MISS";
        let target = target.map_or_else(|| "-".to_owned(), |target| format!("<={target}"));
        println!("{name:<38}  {value:>10.3}  {unit:<7}  {target:>9}  {verdict:<4}  {note}");
    }
}

/// Whether every figure reached its target.
fn membership(options: &Options) -> bool {
    let mut report = Report::default();
    for nodes in &options.nodes {
        let start = Instant::now();
        one_size(*nodes, options, &mut report);
        if options.peer {
            foca(*nodes, options, &mut report);
        }
        println!(
            "# {nodes} nodes, seed {}: {:.0} s of this machine's time",
            options.seed,
            start.elapsed().as_secs_f64()
        );
    }
    !report.missed
}

fn one_size(nodes: usize, options: &Options, report: &mut Report) {
    let name = |what: &str| format!("membership.{nodes}.{what}");
    let seed = options.seed;
    let (mut world, joined) = World::joined(nodes, Config::default(), seed);
    report.line(
        &name("join"),
        joined.as_secs_f64(),
        "s",
        None,
        "all started within 2 s with 3 seeds, until all know all",
    );
    world.run_for(Duration::from_secs(45));

    let time = Duration::from_secs(120);
    let (mean, most) = figures::traffic(&mut world, time);
    let note = format!("each way, quiet, datagrams and streams with all heads; busiest node {:.4}", most / 1e6);
    report.line(&name("traffic"), mean / 1e6, "Mbit/s", Some(0.1), &note);

    let minutes = options.minutes.unwrap_or(if nodes < 1_000 { 10 } else { 2 });
    for percent in [0, 1, 5, 10, 30] {
        let it = figures::innocents(&mut world, f64::from(percent) / 100.0, Duration::from_secs(minutes * 60));
        let per_node_hour = it.false_suspicions as f64 / it.node_hours / (nodes - 1) as f64;
        let note = format!(
            "in {:.1} node-hours; each node was suspected and contradicted {per_node_hour:.1} times an hour",
            it.node_hours
        );
        report.line(&name(&format!("false_deaths.{percent}%")), it.false_deaths as f64, "deaths", Some(0.0), &note);
        world.run_for(Duration::from_secs(30));
    }

    let times = figures::detections(&mut world, options.deaths, seed);
    let mut last: Vec<f64> = times.iter().map(|(_, last)| last.as_secs_f64()).collect();
    last.sort_by(f64::total_cmp);
    let first = times.iter().map(|(first, _)| first.as_secs_f64()).sum::<f64>() / times.len() as f64;
    let note = format!(
        "all survivors know, the slowest of {} deaths; median {:.2}, the first knows after {first:.2} in the mean",
        last.len(),
        last[last.len() / 2]
    );
    report.line(&name("detection"), last[last.len() - 1], "s", Some(6.0), &note);
}

/// The same questions to foca. Its figures are shown, and miss nothing.
fn foca(nodes: usize, options: &Options, report: &mut Report) {
    let name = |what: &str| format!("foca.{nodes}.{what}");
    let mut world = peer::World::started(nodes, options.seed);
    let limit = Duration::from_secs(1_200);
    let joined = world.run_while(world.now + limit, |world| !world.all_know_all());
    let took = joined.map_or(limit, |at| at.since(Time::ZERO));
    let note = match joined {
        Some(_) => "as above".to_owned(),
        None => {
            format!("gave up: {} of {} pairs did not know each other by then", world.missing(), nodes * (nodes - 1))
        }
    };
    report.line(&name("join"), took.as_secs_f64(), "s", None, &note);

    let minutes = options.minutes.unwrap_or(2);
    for percent in [0, 5, 30] {
        (world.network.loss, world.false_deaths) = (f64::from(percent) / 100.0, 0);
        world.run_while(world.now + Duration::from_secs(minutes * 60), |_| true);
        let node_hours = nodes as f64 * minutes as f64 / 60.0;
        let note = format!("in {node_hours:.1} node-hours");
        report.line(&name(&format!("false_deaths.{percent}%")), world.false_deaths as f64, "deaths", None, &note);
    }
    world.network.loss = 0.0;
    world.run_while(world.now + Duration::from_secs(300), |world| !world.all_know_all());

    let mut times = Vec::new();
    for victim in (0..nodes).rev().take(options.deaths.min(nodes - 2)) {
        world.run_while(world.now + Duration::from_millis(5_000 + 137 * victim as u64 % 1_000), |_| true);
        let killed = world.now;
        world.kill(victim);
        let known = world.run_while(killed + Duration::from_secs(300), |world| !world.nobody_sees(victim));
        times.push(known.map_or(300.0, |at| at.since(killed).as_secs_f64()));
    }
    times.sort_by(f64::total_cmp);
    let note = format!("the slowest of {} deaths; median {:.2}", times.len(), times[times.len() / 2]);
    report.line(&name("detection"), times[times.len() - 1], "s", None, &note);
}
