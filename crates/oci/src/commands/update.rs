//! Other limits for a container that runs.

use std::fs;
use std::io::Read;

use isolate::container::{Groups, Limits};

use super::Context;
use super::create::expect;
use crate::cli;
use crate::plan;
use crate::spec::{self, Resources};
use crate::store::Status;

pub(crate) fn update(context: &Context<'_>, args: &cli::Update) -> Result<(), String> {
    let mut resources = resources(args)?;
    let folder = context.store.find(&args.id)?;
    folder.lock()?;
    let record = folder.load()?;
    let (status, _) = folder.status(&record);
    expect(status, &[Status::Created, Status::Running, Status::Paused], &args.id, "changed")?;
    keep_the_other_half(&mut resources, &record.groups);
    let limits = plan::limits(&resources)?;
    // Engines that change memory send the device rules of the beginning along, which stand already.
    let limits = Limits { devices: Vec::new(), ..limits };
    let Err(reason) = record.groups.limit(&limits, false) else { return Ok(()) };
    // Memory alone may not be above memory and swap together at any moment: raised, the sum goes first.
    let mut turned = limits.clone();
    let place = |file: &str| limits.v1.iter().position(|one| one.file == file);
    match (place("memory.limit_in_bytes"), place("memory.memsw.limit_in_bytes")) {
        (Some(limit), Some(sum)) => {
            turned.v1.swap(limit, sum);
            record.groups.limit(&turned, false)
        }
        _ => Err(reason),
    }
}

/// Version 2 has quota and period in one file: whoever names one of them means to keep the other.
fn keep_the_other_half(resources: &mut Resources, groups: &Groups) {
    let Some(now) = groups.unified_value("cpu.max") else { return };
    let mut now = now.split_whitespace();
    let (quota, period) =
        (now.next().and_then(|word| word.parse().ok()), now.next().and_then(|word| word.parse().ok()));
    match (resources.cpu.quota, resources.cpu.period) {
        (None, Some(_)) => resources.cpu.quota = quota,
        (Some(_), None) => resources.cpu.period = period,
        _ => {}
    }
}

fn resources(args: &cli::Update) -> Result<Resources, String> {
    let mut resources = match &args.resources {
        None => Resources::default(),
        Some(path) => {
            let text = match path.to_str() {
                Some("-") => {
                    let mut text = Vec::new();
                    std::io::stdin().read_to_end(&mut text).map(|_| text)
                }
                _ => fs::read(path),
            };
            let text = text.map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
            spec::read(&text).map_err(|reason| format!("`{}`: {reason}", path.display()))?
        }
    };
    let Resources { memory, cpu, pids, block_io, .. } = &mut resources;
    memory.limit = args.memory.or(memory.limit);
    memory.reservation = args.memory_reservation.or(memory.reservation);
    memory.swap = args.memory_swap.or(memory.swap);
    cpu.shares = args.cpu_share.or(cpu.shares);
    cpu.quota = args.cpu_quota.or(cpu.quota);
    cpu.period = args.cpu_period.or(cpu.period);
    cpu.burst = args.cpu_burst.or(cpu.burst);
    cpu.cpus = args.cpuset_cpus.clone().unwrap_or_else(|| std::mem::take(&mut cpu.cpus));
    cpu.mems = args.cpuset_mems.clone().unwrap_or_else(|| std::mem::take(&mut cpu.mems));
    // In a configuration 0 is none; whoever types it means as few as can be.
    pids.limit = args.pids_limit.map(|limit| if limit == 0 { 1 } else { limit }).or(pids.limit);
    block_io.weight = args.blkio_weight.or(block_io.weight);
    Ok(resources)
}
