//! What is measured: each figure is a function of size and seed.

use std::time::Duration;

use membership::Status;
use model::Time;

use crate::chance::Chance;
use crate::members::World;

/// When the first and when the last of the survivors knew of one death, for each of `deaths` deaths, one after the other.
pub fn detections(world: &mut World, deaths: usize, seed: u64) -> Vec<(Duration, Duration)> {
    let mut chance = Chance::new(seed);
    let mut times = Vec::new();
    // Two are left, of whom one can see the other.
    for _ in 0..deaths.min(world.running().count().saturating_sub(2)) {
        // At any moment of the period.
        world.run_for(Duration::from_secs(5) + Duration::from_micros(chance.below(1_000_000)));
        let running: Vec<usize> = world.running().collect();
        let victim = running[chance.below(running.len() as u64) as usize];
        let (killed, limit) = (world.now, world.now + Duration::from_secs(120));
        world.kill(victim);
        let first = world.run_while(limit, |world| world.count_seeing(victim, Status::Dead) == 0);
        let last = world.run_while(limit, |world| !world.all_see(victim, Status::Dead));
        let since = |at: Option<Time>| at.map_or(Duration::MAX, |at| at.since(killed));
        times.push((since(first), since(last)));
    }
    times
}

/// What running under loss did to the innocent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Innocents {
    pub node_hours: f64,
    pub false_deaths: u64,
    pub false_suspicions: u64,
}

pub fn innocents(world: &mut World, loss: f64, time: Duration) -> Innocents {
    world.network.loss = loss;
    world.forget_reports();
    world.run_for(time);
    world.network.loss = 0.0;
    Innocents {
        node_hours: world.running().count() as f64 * time.as_secs_f64() / 3_600.0,
        false_deaths: world.false_deaths,
        false_suspicions: world.false_suspicions,
    }
}

/// Mean and highest bits per second that a node sends and gets, each way, with every overhead of datagrams and streams.
pub fn traffic(world: &mut World, time: Duration) -> (f64, f64) {
    world.forget_reports();
    world.run_for(time);
    let rate = |bytes: u64| bytes as f64 * 8.0 / time.as_secs_f64();
    let each: Vec<f64> =
        world.running().map(|place| rate(world.nodes[place].sent.max(world.nodes[place].received))).collect();
    let mean = each.iter().sum::<f64>() / each.len() as f64;
    (mean, each.iter().copied().fold(0.0, f64::max))
}
