//! How good plans are: beside the best that there is, found by trying everything on small cases, and beside the first machine that
//! has the room.

use model::{Bytes, Kept, Limits, Millicores, NodeFacts, NodeId, Placement, Reserve, ServiceKey, StarTemplate};
use scheduler::{Ids, NodeView, Request, plan};

use crate::report::{Report, Target};
use crate::{Bench, Depth};

/// A machine of the small cases, in units of memory.
const UNITS: u32 = 10;
const UNIT: u64 = 64 << 20;
/// A machine of the large case.
const CORES: u32 = 16;
const MEMORY_GIB: u64 = 64;

pub(super) fn run(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let cases = if bench.depth == Depth::Quick { 500 } else { 5_000 };
    if bench.wants("spread_excess") {
        spread(cases, report)?;
    }
    if bench.wants("packing") {
        packing(cases, report)?;
    }
    if bench.wants("filled") {
        filled(report)?;
    }
    Ok(())
}

/// A machine, and what is on it.
#[derive(Debug, Clone)]
struct Machine {
    facts: NodeFacts,
    stars: u32,
    of_service: u32,
    kept: Kept,
}

impl Machine {
    fn new(memory: u64, cores: u32) -> Self {
        let facts = NodeFacts { memory: Bytes(memory), cores, ..NodeFacts::default() };
        Self { facts, stars: 0, of_service: 0, kept: Kept::default() }
    }

    fn give(&mut self, reserve: &Reserve) {
        self.stars += 1;
        self.of_service += 1;
        self.kept = self.kept.with(reserve, 1);
    }

    fn view((this, number): (&Self, u64)) -> NodeView<'_> {
        NodeView {
            shunned: false,
            node: NodeId(number),
            name: None,
            facts: &this.facts,
            taints: None,
            closed: None,
            others: 0,
            apart: None,
            stars: this.stars,
            of_service: this.of_service,
            crowd: None,
            places: None,
            promised_memory: Bytes(0),
            promised_cpu: 0,
            kept: this.kept,
            ports: [None, None],
        }
    }

    fn has_room(&self, reserve: &Reserve) -> bool {
        self.facts.lacks(self.kept, reserve).is_none()
    }
}

/// What is asked for, whoever answers.
struct Asked {
    service: ServiceKey,
    template: StarTemplate,
    placement: Placement,
}

impl Asked {
    fn new(placement: &str, reserve: Reserve) -> Result<Self, String> {
        let service = "web".parse().map_err(|_| "no name")?;
        let placement = serde_json::from_str(placement).map_err(|error| error.to_string())?;
        // What is kept bounds it alone: a machine that is promised more than it has would come last.
        let template = StarTemplate { reserve, limits: Limits::UNLIMITED, ..super::template() };
        Ok(Self { service, template, placement })
    }

    /// The places of the machines that so many stars go to.
    fn planned(&self, machines: &[Machine], stars: u32, ids: &mut Ids) -> Vec<usize> {
        let views: Vec<NodeView<'_>> = machines.iter().zip(0..).map(Machine::view).collect();
        let ordinals: Vec<u32> = (1..=stars).collect();
        let (service, template, placement) = (&self.service, &self.template, &self.placement);
        let request = Request { service, template, placement, ordinals: &ordinals };
        plan(&views, &request, ids, |_| false).iter().map(|placed| placed.node.0 as usize).collect()
    }
}

/// A number below `most`, from a seed of its own.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// By how many stars the fullest zone has more than the emptiest, beyond what is unavoidable.
fn spread(cases: u32, report: &mut Report) -> Result<(), String> {
    let unit = Reserve { memory: Bytes(UNIT), ..Reserve::default() };
    let asked = Asked::new(r#"{"spread":["zone"]}"#, unit)?;
    let (mut chance, mut ids) = (Chance(1), Ids::new(1));
    let (mut worst, mut best_of_all, mut first_fit_best) = (0, 0u32, 0u32);
    for _ in 0..cases {
        let zones = 2 + chance.below(3);
        let count = (zones + chance.below(4)).min(6);
        let mut machines: Vec<Machine> = Vec::new();
        for number in 0..count {
            let mut machine = Machine::new(chance.below(5) * UNIT, 0);
            // One that has nothing would have no bound.
            machine.facts.memory.0 += UNIT;
            machine.facts.zone = format!("z{}", number % zones).parse().ok();
            for _ in 0..chance.below(3) {
                if machine.has_room(&unit) {
                    machine.give(&unit);
                }
            }
            machines.push(machine);
        }
        let stars = 1 + chance.below(6) as u32;
        let placed = asked.planned(&machines, stars, &mut ids);
        let uneven = |machines: &[Machine]| {
            let of = |zone| machines.iter().skip(zone).step_by(zones as usize).map(|machine| machine.of_service).sum();
            let zones: Vec<u32> = (0..zones as usize).map(of).collect();
            zones.iter().max().unwrap_or(&0) - zones.iter().min().unwrap_or(&0)
        };
        let with = |places: &[usize]| {
            let mut all = machines.clone();
            places.iter().for_each(|place| all[*place].give(&unit));
            uneven(&all)
        };
        let mut first_fit = machines.clone();
        for _ in 0..placed.len() {
            if let Some(machine) = first_fit.iter_mut().find(|machine| machine.has_room(&unit)) {
                machine.give(&unit);
            }
        }
        let best = evenest(&mut machines.clone(), 0, placed.len(), &unit, &uneven);
        let ours = with(&placed);
        worst = worst.max(ours - best);
        best_of_all += u32::from(ours == best);
        first_fit_best += u32::from(uneven(&first_fit) == best);
    }
    let share = |count: u32| 100.0 * f64::from(count) / f64::from(cases);
    let note = format!(
        "most of {cases} small cases beyond the best there is; the best in {:.1} %, the first that fits in {:.1} %",
        share(best_of_all),
        share(first_fit_best)
    );
    report.figure("spread_excess", f64::from(worst), "stars", Target::AtMost(1.0), &note);
    Ok(())
}

/// The least unevenness of all ways to give so many stars to these machines, from one of them on.
fn evenest(
    machines: &mut Vec<Machine>,
    from: usize,
    stars: usize,
    unit: &Reserve,
    uneven: &impl Fn(&[Machine]) -> u32,
) -> u32 {
    if stars == 0 {
        return uneven(machines);
    }
    let mut best = u32::MAX;
    for place in from..machines.len() {
        if machines[place].has_room(unit) {
            let before = machines[place].clone();
            machines[place].give(unit);
            best = best.min(evenest(machines, place, stars - 1, unit, uneven));
            machines[place] = before;
        }
    }
    best
}

/// Machines that stars of many sizes take up, one after the other, beside the fewest that are enough.
fn packing(cases: u32, report: &mut Report) -> Result<(), String> {
    const STARS: usize = 9;
    let mut asked = Asked::new(r#"{"strategy":"binpack"}"#, Reserve::default())?;
    let (mut chance, mut ids) = (Chance(2), Ids::new(2));
    let (mut ours, mut first_fit, mut fewest) = (0, 0, 0);
    for _ in 0..cases {
        let sizes: Vec<u32> = (0..STARS).map(|_| 1 + chance.below(7) as u32).collect();
        let empty = vec![Machine::new(u64::from(UNITS) * UNIT, 0); STARS];
        let (mut packed, mut first) = (empty.clone(), empty);
        for size in &sizes {
            let reserve = Reserve { memory: Bytes(u64::from(*size) * UNIT), ..Reserve::default() };
            asked.template.reserve = reserve;
            let place = *asked.planned(&packed, 1, &mut ids).first().ok_or("no machine for a star")?;
            packed[place].give(&reserve);
            // Each is of a service of its own.
            packed[place].of_service = 0;
            first.iter_mut().find(|machine| machine.has_room(&reserve)).ok_or("no room")?.give(&reserve);
        }
        let used = |machines: &[Machine]| machines.iter().filter(|machine| machine.stars > 0).count();
        ours += used(&packed);
        first_fit += used(&first);
        fewest += fewest_bins(&sizes, &mut Vec::new(), STARS);
    }
    let beside = |count: usize| count as f64 / fewest as f64;
    let note = format!(
        "times the fewest machines, {cases} cases of {STARS} stars; the first that fits {:.3}",
        beside(first_fit)
    );
    report.figure("packing", beside(ours), "x", Target::AtMost(beside(first_fit)), &note);
    Ok(())
}

/// The fewest machines that hold these; `best` of them are known to be enough.
fn fewest_bins(sizes: &[u32], bins: &mut Vec<u32>, best: usize) -> usize {
    if bins.len() >= best {
        return best;
    }
    let Some((size, others)) = sizes.split_first() else { return bins.len() };
    let mut best = best;
    for bin in 0..bins.len() {
        if bins[bin] + size <= UNITS {
            bins[bin] += size;
            best = best.min(fewest_bins(others, bins, best));
            bins[bin] -= size;
        }
    }
    bins.push(*size);
    best = best.min(fewest_bins(others, bins, best));
    bins.pop();
    best
}

/// How much of a thousand machines is kept when the first star finds no room, where some need memory and others processors.
fn filled(report: &mut Report) -> Result<(), String> {
    const MACHINES: usize = 1_000;
    let reserves = |chance: &mut Chance| {
        let small = chance.below(2) == 0;
        let (cpu, gib) = if small { (1_000, 8) } else { (4_000, 4) };
        let (cpu, gib) = (cpu + chance.below(4) * 500, gib + chance.below(8));
        Reserve { cpu: Millicores(cpu as u32), memory: Bytes(gib << 30) }
    };
    let mut told = Vec::new();
    for strategy in ["spread", "binpack"] {
        let mut asked = Asked::new(&format!(r#"{{"strategy":"{strategy}"}}"#), Reserve::default())?;
        let (mut chance, mut ids) = (Chance(3), Ids::new(3));
        let mut machines = vec![Machine::new(MEMORY_GIB << 30, CORES); MACHINES];
        loop {
            asked.template.reserve = reserves(&mut chance);
            let Some(place) = asked.planned(&machines, 1, &mut ids).first().copied() else { break };
            machines[place].give(&asked.template.reserve);
            machines[place].of_service = 0;
        }
        told.push(share(&machines));
    }
    let (mut chance, mut machines) = (Chance(3), vec![Machine::new(MEMORY_GIB << 30, CORES); MACHINES]);
    loop {
        let reserve = reserves(&mut chance);
        let Some(machine) = machines.iter_mut().find(|machine| machine.has_room(&reserve)) else { break };
        machine.give(&reserve);
    }
    let first_fit = share(&machines);
    for (name, share) in ["filled_spread", "filled_binpack"].into_iter().zip(&told) {
        let note = format!(
            "of the scarcer of processors and memory of {MACHINES} machines, at the first refusal; the first that fits {first_fit:.1}"
        );
        let target = if name == "filled_binpack" { Target::AtLeast(first_fit) } else { Target::None };
        report.figure(name, *share, "%", target, &note);
    }
    Ok(())
}

/// Of the resource of which more is kept, the part that is.
fn share(machines: &[Machine]) -> f64 {
    let kept = machines.iter().fold(Kept::default(), |all, machine| all.and(machine.kept));
    let count = machines.len() as f64;
    let memory = kept.memory as f64 / (count * (MEMORY_GIB << 30) as f64);
    let cpu = kept.cpu as f64 / (count * f64::from(CORES) * 1_000.0);
    100.0 * memory.max(cpu)
}
