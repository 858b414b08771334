//! Plans over small constellations, and over arbitrary ones.

use std::collections::BTreeMap;

use model::{Code, Limits, Millicores, Probe, ProbeKind, Program, Reserve, RestartPolicy, Strategy};
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
use proptest::strategy::Strategy as Arbitrarily;

use super::*;

/// A machine as these tests describe it.
#[derive(Debug, Clone, Default)]
struct Machine {
    facts: NodeFacts,
    stars: u32,
    of_service: u32,
    promised: Bytes,
    kept: Kept,
    taints: Taints,
    apart: Option<&'static ServiceKey>,
    shunned: bool,
}

fn machine(of_service: u32, stars: u32) -> Machine {
    let facts = NodeFacts { memory: Bytes::mib(1_024), ..NodeFacts::default() };
    Machine { facts, stars, of_service, ..Machine::default() }
}

impl Machine {
    fn label(mut self, name: &str, value: &str) -> Self {
        self.facts.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    fn at(mut self, region: &str, zone: &str) -> Self {
        self.facts.region = Some(region.parse().unwrap());
        self.facts.zone = Some(zone.parse().unwrap());
        self
    }

    fn tainted(mut self, name: &str, value: Option<&str>) -> Self {
        let taint = model::Taint { value: value.map(str::to_owned), evicts: false };
        self.taints.insert(name.to_owned(), taint);
        self
    }

    fn promised(mut self, megabytes: u64) -> Self {
        self.promised = Bytes::mib(megabytes);
        self
    }
}

/// Numbered from 1.
fn views(machines: &[Machine]) -> Vec<NodeView<'_>> {
    fn view(
        (Machine { facts, taints, apart, shunned, stars, of_service, promised, kept }, number): (&Machine, u64),
    ) -> NodeView<'_> {
        NodeView {
            shunned: *shunned,
            node: NodeId(number),
            name: None,
            facts,
            taints: Some(taints),
            apart: *apart,
            stars: *stars,
            of_service: *of_service,
            crowd: None,
            places: None,
            closed: None,
            others: 0,
            promised_memory: *promised,
            promised_cpu: 0,
            kept: *kept,
            ports: [None, None],
        }
    }
    machines.iter().zip(1..).map(view).collect()
}

fn template() -> StarTemplate {
    StarTemplate {
        program: Program::Script("x.rads".to_owned()),
        args: Vec::new(),
        bundle: model::BundleId(model::ContentHash([0; 32])),
        rootfs: None,
        env: Default::default(),
        limits: Limits::DEFAULT,
        volumes: Vec::new(),
        network: Network::None,
        port: Some(80),
        probe: Probe::new(ProbeKind::Tcp),
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

fn needs(megabytes: u64) -> StarTemplate {
    let limits = Limits { memory: Some(Bytes::mib(megabytes)), ..Limits::DEFAULT };
    StarTemplate { limits, ..template() }
}

fn placement(text: &str) -> Placement {
    serde_json::from_str(text).unwrap()
}

/// The machines that so many stars go to, in turn.
fn placed(machines: &[Machine], template: &StarTemplate, placement: &Placement, stars: u32) -> Vec<u64> {
    let ordinals: Vec<u32> = (1..=stars).collect();
    let service = "web".parse().unwrap();
    let request = Request { service: &service, template, placement, ordinals: &ordinals };
    let plan = plan(&views(machines), &request, &mut Ids::new(1), |_| false);
    plan.iter().map(|placed| placed.node.0).collect()
}

fn refused(machines: &[Machine], template: &StarTemplate, placement: &Placement) -> Option<model::Problem> {
    let service = "web".parse().unwrap();
    let request = Request { service: &service, template, placement, ordinals: &[] };
    check(&views(machines), &request).err()
}

#[test]
fn a_machine_on_which_stars_fail_comes_last_whatever_is_preferred_and_is_not_left_out() {
    let failing = |of_service| Machine { shunned: true, ..machine(of_service, of_service) };
    let machines = [failing(0), machine(3, 3), machine(4, 4).promised(9_000)];
    for text in ["{}", r#"{"strategy":"binpack"}"#, r#"{"strategy":"random"}"#] {
        let places = placed(&machines, &needs(100), &placement(text), 3);
        assert!(places.len() == 3 && !places.contains(&1), "{text}: {places:?}");
    }
    assert_eq!(placed(&machines, &needs(100), &placement(r#"{"per_node":5}"#), 9), [2, 2, 3, 1, 1, 1, 1, 1]);
    assert_eq!(placed(&[failing(0), failing(1)], &template(), &Placement::default(), 2), [1, 1]);
}

#[test]
fn stars_of_a_service_are_spread_and_then_go_where_there_are_fewest() {
    let anywhere = Placement::default();
    let check = |machines: &[Machine], stars, expected: &[u64]| {
        assert_eq!(placed(machines, &template(), &anywhere, stars), expected);
    };
    check(&[machine(0, 0), machine(0, 0), machine(0, 0)], 4, &[1, 2, 3, 1]);
    check(&[machine(1, 1), machine(0, 9), machine(0, 5)], 3, &[3, 2, 1]);
    check(&[machine(5, 5)], 2, &[1, 1]);
    check(&[], 2, &[]);
}

#[test]
fn only_machines_for_which_all_conditions_hold_get_stars() {
    let machines = [
        machine(0, 0).label("disk", "ssd"),
        machine(0, 0).label("disk", "nvme").label("gpu", "a100"),
        machine(0, 0).label("gpu", "a100"),
    ];
    let check = |text: &str, expected: &[u64]| {
        assert_eq!(placed(&machines, &template(), &placement(text), 3), expected, "{text}");
    };
    check(r#"{"require":["disk exists"]}"#, &[1, 2, 1]);
    check(r#"{"require":["disk exists","gpu = a100"]}"#, &[2, 2, 2]);
    check(r#"{"require":["disk = hdd"]}"#, &[]);
    check(r#"{"require":["gpu exists"],"per_node":1}"#, &[2, 3]);
}

#[test]
fn stars_are_even_over_the_values_of_what_they_are_spread_over() {
    // One zone has three machines, the other one.
    let machines = [
        machine(0, 0).at("eu", "a"),
        machine(0, 0).at("eu", "a"),
        machine(0, 0).at("eu", "a"),
        machine(0, 0).at("eu", "b"),
        machine(0, 0).at("us", "c"),
    ];
    let check = |text: &str, stars, expected: &[u64]| {
        assert_eq!(placed(&machines, &template(), &placement(text), stars), expected, "{text}");
    };
    check(r#"{"spread":["zone"]}"#, 6, &[1, 4, 5, 2, 4, 5]);
    check(r#"{"spread":["region"]}"#, 4, &[1, 5, 2, 5]);
    check(r#"{"spread":["region","zone"]}"#, 8, &[1, 5, 4, 5, 2, 5, 4, 5]);
    // What a zone has already counts.
    let mut uneven = machines.clone();
    uneven[3].of_service = 3;
    uneven[4].of_service = 3;
    assert_eq!(placed(&uneven, &template(), &placement(r#"{"spread":["zone"]}"#), 3), [1, 2, 3]);
    // A zone without a place left is no reason to wait.
    check(r#"{"spread":["zone"],"per_node":1}"#, 9, &[1, 4, 5, 2, 3]);
}

#[test]
fn a_wish_is_outweighed_by_stars_that_are_there_already() {
    let machines = [machine(0, 0), machine(0, 0).label("disk", "ssd"), machine(0, 0)];
    let check = |weight: i32, expected: &[u64]| {
        let text = format!(r#"{{"prefer":[{{"that":"disk = ssd","weight":{weight}}}]}}"#);
        assert_eq!(placed(&machines, &template(), &placement(&text), 4), expected, "{weight}");
    };
    check(50, &[2, 1, 3, 2]);
    check(100, &[2, 2, 1, 3]);
    check(-50, &[1, 3, 2, 1]);
    check(0, &[1, 2, 3, 1]);
}

#[test]
fn binpack_fills_a_machine_up_to_what_it_has_and_random_is_the_same_for_the_same_seed() {
    let machines = [machine(0, 3), machine(0, 5), machine(0, 5)];
    let packed = placement(r#"{"strategy":"binpack"}"#);
    // Four of them are all that 1 GiB holds.
    assert_eq!(placed(&machines, &needs(256), &packed, 9), [2, 2, 2, 2, 3, 3, 3, 3, 1]);
    let random = placement(r#"{"strategy":"random"}"#);
    let first = placed(&machines, &template(), &random, 30);
    assert_eq!(first, placed(&machines, &template(), &random, 30));
    assert!((1..=3).all(|node| first.contains(&node)), "{first:?}");
}

#[test]
fn binpack_leaves_little_and_evenly_where_something_is_kept_for_stars() {
    let packed = placement(r#"{"strategy":"binpack"}"#);
    let mut template = template();
    template.reserve = Reserve { cpu: Millicores(1_000), memory: Bytes::mib(512) };
    let large = |cpu, megabytes: u64| {
        let mut machine = machine(0, 0);
        (machine.facts.cores, machine.facts.memory) = (4, Bytes::mib(4_096));
        machine.kept = Kept { cpu, memory: megabytes << 20 };
        machine
    };
    let check = |machines: &[Machine], expected: &[u64]| {
        assert_eq!(placed(machines, &template, &packed, expected.len() as u32), expected);
    };
    // The fullest first, however many stars the others have.
    check(&[large(0, 0), large(2_000, 1_024), large(1_000, 512)], &[2, 2, 3, 3, 3, 1]);
    // Of two that are as full, the one whose processors are left over.
    check(&[large(2_000, 1_024), large(1_000, 2_048)], &[2, 2]);
    // Of what is not known nothing is left.
    let mut unknown = large(3_000, 0);
    unknown.facts.memory = Bytes(0);
    check(&[large(1_000, 512), unknown], &[2, 1]);
}

#[test]
fn a_machine_that_is_promised_more_than_it_has_comes_last() {
    let machines = [machine(0, 0).promised(1_000), machine(1, 9)];
    assert_eq!(placed(&machines, &needs(64), &Placement::default(), 2), [2, 2]);
    // Promised is not used: when all are, stars go there all the same.
    let machines = [machine(0, 0).promised(1_000), machine(1, 9).promised(1_000)];
    assert_eq!(placed(&machines, &needs(64), &Placement::default(), 2), [1, 1]);
}

#[test]
fn what_no_node_can_hold_is_refused_with_what_the_largest_has() {
    let sized = |megabytes, cores| {
        let mut machine = machine(0, 0);
        (machine.facts.memory, machine.facts.cores) = (Bytes::mib(megabytes), cores);
        machine
    };
    let anywhere = Placement::default();
    let (small, large) = (sized(512, 0), sized(1_024, 0));
    let problem = refused(&[large.clone(), small.clone()], &needs(2_048), &anywhere).unwrap();
    assert!(problem.message.contains("the largest node has 1 GiB"), "{problem}");
    assert_eq!(refused(&[small, sized(4_096, 0)], &needs(2_048), &anywhere), None);
    assert_eq!(refused(&[], &needs(2_048), &anywhere).unwrap().code, Code::NoCapacity);
    let mut template = template();
    template.limits.cpu = Some(Millicores(2_001));
    let problem = refused(&[sized(4_096, 2)], &template, &anywhere).unwrap();
    assert!(problem.message.contains("needs 200.1 % of a core, the node has 200 %"), "{problem}");
    assert_eq!(refused(&[sized(4_096, 2), sized(4_096, 4)], &template, &anywhere), None);
    template.limits.cpu = Some(Millicores(2_000));
    assert_eq!(refused(&[sized(4_096, 2)], &template, &anywhere), None);
    template.network = Network::Bridge;
    let mut rootless = large;
    rootless.facts.rootless = true;
    assert_eq!(refused(&[rootless], &template, &anywhere).unwrap().code, Code::Unsupported);
}

#[test]
fn a_refusal_counts_the_machines_by_what_keeps_stars_off_them() {
    let machines = [machine(0, 0).at("eu", "a"), machine(0, 0).at("eu", "a"), machine(2, 2).at("us", "b")];
    let problem = refused(&machines, &needs(64), &placement(r#"{"require":["region = us"],"per_node":2}"#)).unwrap();
    let expected = "no node takes a star of `web`: `region = us` does not hold on 2 nodes; 1 node has 2 of its stars already (`per_node`)";
    assert_eq!(problem.message, expected);
    assert!(problem.help.unwrap().contains("rads c explain web"));
}

#[test]
fn what_is_kept_for_a_star_is_promised_once() {
    let keeps = |megabytes| {
        let reserve = Reserve { memory: Bytes::mib(megabytes), ..Reserve::default() };
        StarTemplate { reserve, limits: Limits::UNLIMITED, ..template() }
    };
    let with = |kept, own| {
        let mut machine = machine(0, 0);
        machine.kept.memory = Bytes::mib(kept).0;
        machine.facts.reserved.memory = Bytes::mib(own);
        machine.facts.memory = Bytes::mib(2_048);
        machine
    };
    let anywhere = Placement::default();
    // Of the first half is the machine's own, of the second some is kept for others.
    let machines = [with(0, 1_024), with(512, 0)];
    assert_eq!(placed(&machines, &keeps(512), &anywhere, 9), [1, 2, 1, 2, 2]);
    assert_eq!(placed(&machines, &keeps(1_025), &anywhere, 9), [2]);
    let problem = refused(&machines, &keeps(1_537), &anywhere).unwrap();
    assert_eq!(problem.message, "no node can hold a star of `web` (needs 1537 MiB of memory, largest free is 1.5 GiB)");
    assert!(problem.help.unwrap().contains("reserve_ram_mb"));
    // Limits alone keep nothing.
    assert_eq!(placed(&machines, &needs(2_048), &anywhere, 3).len(), 3);
    let mut by_cpu = keeps(0);
    by_cpu.reserve.cpu = Millicores(1_500);
    let mut two_cores = with(0, 0);
    two_cores.facts.cores = 2;
    assert_eq!(placed(&[two_cores.clone()], &by_cpu, &anywhere, 9), [1]);
    two_cores.kept.cpu = 1_000;
    let problem = refused(&[two_cores], &by_cpu, &anywhere).unwrap();
    assert!(problem.message.contains("(needs 150 % of a core, largest free is 100 %)"), "{problem}");
}

#[test]
fn a_machine_that_is_too_full_is_nearer_than_one_that_is_too_small() {
    let mut full = machine(0, 0);
    full.kept.memory = 1_000 << 20;
    let mut fuller = full.clone();
    fuller.kept.memory = 1_020 << 20;
    let mut small = machine(0, 0);
    small.facts.memory = Bytes::mib(32);
    let reserve = Reserve { memory: Bytes::mib(64), ..Reserve::default() };
    let template = StarTemplate { reserve, ..needs(64) };
    let check = |text: &str, expected: &str| {
        let machines = [small.clone(), fuller.clone(), full.clone().at("eu", "a")];
        let problem = refused(&machines, &template, &placement(text)).unwrap();
        assert_eq!(problem.message, expected);
    };
    check("{}", "no node can hold a star of `web` (needs 64 MiB of memory, largest free is 24 MiB)");
    check(
        r#"{"require":["region != us","zone missing"]}"#,
        "no node takes a star of `web`: 1 node: a star needs 64 MiB of memory, it has 32 MiB; 1 node: a star keeps 64 MiB of \
         memory, 4 MiB is free; `zone missing` does not hold on 1 node",
    );
}

/// Machines of few kinds, so that conditions and spreads meet several.
fn machines() -> impl Arbitrarily<Value = Vec<Machine>> {
    let kept = (0..3u32, 0..1_200u64, 0..2_500u64, 0..300u64);
    let one = (0..3u32, 0..4u32, 0..3u8, 0..3u8, 0..2u8, 0..1_500u64, kept).prop_map(
        |(of_service, others, region, zone, disk, promised, (cores, memory, cpu, own))| {
            let machine = machine(of_service, of_service + others).at(&format!("r{region}"), &format!("z{zone}"));
            let mut machine = machine.promised(promised);
            machine.facts.cores = cores;
            machine.facts.reserved = Reserve { cpu: Millicores(200), memory: Bytes::mib(own) };
            machine.kept = Kept { cpu, memory: memory << 20 };
            if disk == 0 { machine } else { machine.label("disk", "ssd") }
        },
    );
    prop::collection::vec(one, 0..12)
}

fn placements() -> impl Arbitrarily<Value = Placement> {
    let require = prop::sample::subsequence(vec!["disk = ssd", "region != r0", "zone in z0, z1"], 0..=3);
    let spread = prop::sample::subsequence(vec!["region", "zone", "disk"], 0..=3);
    let strategy = prop::sample::select(vec![Strategy::Spread, Strategy::Binpack, Strategy::Random]);
    (strategy, require, spread, prop::option::of(1..4u32), -100..=100).prop_map(
        |(strategy, require, spread, per_node, weight)| Placement {
            strategy,
            require: require.into_iter().map(|text| text.parse().unwrap()).collect(),
            prefer: vec![model::Preference { that: "disk exists".parse().unwrap(), weight }],
            spread: spread.into_iter().map(|text| text.parse().unwrap()).collect(),
            per_node,
            ..Placement::default()
        },
    )
}

proptest! {
    #[test]
    fn no_plan_breaks_a_condition_and_every_place_that_there_is_is_found(
        machines in machines(), placement in placements(), stars in 0..40u32
    ) {
        let plan = placed(&machines, &needs(64), &placement, stars);
        prop_assert_eq!(&plan, &placed(&machines, &needs(64), &placement, stars), "the same again is the same");
        let mut given: BTreeMap<u64, u32> = BTreeMap::new();
        plan.iter().for_each(|node| *given.entry(*node).or_default() += 1);
        let mut room = 0u32;
        for (machine, node) in machines.iter().zip(1..) {
            let allowed = placement.require.iter().all(|condition| condition.holds(None, &machine.facts));
            let given = given.get(&node).copied().unwrap_or(0);
            prop_assert!(allowed || given == 0);
            let most = placement.per_node.map_or(u32::MAX, |most| most.saturating_sub(machine.of_service));
            prop_assert!(given <= most);
            room = room.saturating_add(if allowed { most } else { 0 });
        }
        prop_assert_eq!(plan.len() as u32, stars.min(room));
    }

    #[test]
    fn no_plan_keeps_more_than_a_machine_has_and_all_that_there_is_is_found(
        machines in machines(), placement in placements(), stars in 0..40u32, cpu in 0..700u32, megabytes in 0..400u64
    ) {
        let reserve = Reserve { cpu: Millicores(cpu), memory: Bytes::mib(megabytes) };
        let plan = placed(&machines, &StarTemplate { reserve, ..needs(512) }, &placement, stars);
        let mut room = 0u32;
        for (machine, node) in machines.iter().zip(1u64..) {
            let given = plan.iter().filter(|to| **to == node).count() as u64;
            let Machine { facts, kept, of_service, .. } = machine;
            let most = |has: u64, own: u64, kept: u64, needs: u64| match needs {
                // What is not known bounds nothing, and neither does what is not asked for.
                0 => u64::MAX,
                _ if has == 0 => u64::MAX,
                needs => has.saturating_sub(own).saturating_sub(kept) / needs,
            };
            let by_memory = most(facts.memory.0, facts.reserved.memory.0, kept.memory, megabytes << 20);
            let by_cpu = most(u64::from(facts.cores) * 1_000, 200, kept.cpu, cpu.into());
            let fits = by_memory.min(by_cpu);
            prop_assert!(given <= fits, "{given} of {fits} on {node}");
            let allowed = placement.require.iter().all(|condition| condition.holds(None, facts));
            let per_node = placement.per_node.map_or(u32::MAX, |most| most.saturating_sub(*of_service));
            let here = if allowed { u64::from(per_node).min(fits) } else { 0 };
            room = room.saturating_add(u32::try_from(here).unwrap_or(u32::MAX));
        }
        prop_assert_eq!(plan.len() as u32, stars.min(room));
    }

    /// With room everywhere no value of the first attribute has two stars more than another, unless it had before.
    #[test]
    fn what_is_spread_is_even_within_one(machines in machines(), stars in 1..60u32, zone in any::<bool>()) {
        let attribute = if zone { "zone" } else { "region" };
        let machines: Vec<Machine> =
            machines.into_iter().map(|machine| Machine { of_service: 0, promised: Bytes(0), ..machine }).collect();
        let placement = placement(&format!(r#"{{"spread":["{attribute}"]}}"#));
        let mut of_value: BTreeMap<String, u32> = BTreeMap::new();
        let value = |machine: &Machine| placement.spread[0].of(None, &machine.facts).unwrap().into_owned();
        of_value.extend(machines.iter().map(|machine| (value(machine), 0)));
        let mut template = template();
        template.limits.memory = None;
        for node in placed(&machines, &template, &placement, stars) {
            *of_value.get_mut(&value(&machines[node as usize - 1])).unwrap() += 1;
        }
        let (least, most) = (of_value.values().min().unwrap_or(&0), of_value.values().max().unwrap_or(&0));
        prop_assert!(most - least <= 1, "{of_value:?}");
    }
}

#[test]
fn stars_on_a_full_machine_count_for_what_they_are_spread_over() {
    // Zone a has three on a machine that takes no more, and an empty one.
    let machines = [machine(3, 3).at("eu", "a"), machine(0, 0).at("eu", "a"), machine(0, 0).at("eu", "b")];
    let even = placement(r#"{"spread":["zone"],"per_node":3}"#);
    assert_eq!(placed(&machines, &template(), &even, 4), [3, 3, 3, 2]);
}

/// Where the machines with these numbers are in the plan, the others away.
fn placed_evenly(machines: &[Machine], placement: &Placement, stars: u32, away: &[u64]) -> Vec<u64> {
    let (service, template) = ("web".parse().unwrap(), needs(64));
    let ordinals: Vec<u32> = (1..=stars).collect();
    let request = Request { service: &service, template: &template, placement, ordinals: &ordinals };
    let mut all = views(machines);
    count_crowds(&mut all, &request, |node| !away.contains(&node.0));
    all.retain(|view| !away.contains(&view.node.0));
    plan(&all, &request, &mut Ids::new(7), |_| false).into_iter().map(|placed| placed.node.0).collect()
}

#[test]
fn no_value_gets_more_stars_than_the_skew_allows() {
    let full = |zone| {
        let mut machine = machine(0, 0).at("eu", zone);
        machine.facts.memory = Bytes::mib(32);
        machine
    };
    let zones = [machine(0, 0).at("eu", "a"), machine(0, 0).at("eu", "b"), machine(0, 0).at("eu", "c")];
    let skew = |text: &str| placement(&format!(r#"{{"spread":["zone"],{text}}}"#));
    assert_eq!(placed_evenly(&zones, &skew(r#""max_skew":1"#), 5, &[]), [1, 2, 3, 1, 2]);
    // One zone cannot be reached: its stars would come there.
    assert_eq!(placed_evenly(&zones, &skew(r#""max_skew":1"#), 5, &[3]), [1, 2]);
    assert_eq!(placed_evenly(&zones, &skew(r#""max_skew":2"#), 5, &[3]), [1, 2, 1, 2]);
    // One that may have none does not count.
    assert_eq!(placed_evenly(&zones, &skew(r#""max_skew":1,"require":["zone != c"]"#), 4, &[3]), [1, 2, 1, 2]);
    let small = [machine(0, 0).at("eu", "a"), full("b")];
    assert_eq!(placed_evenly(&small, &skew(r#""max_skew":1"#), 4, &[]), [1, 1, 1, 1], "too small for good");
    // Full of its own stars it does.
    let machines = [machine(0, 0).at("eu", "a"), machine(2, 2).at("eu", "b")];
    assert_eq!(placed_evenly(&machines, &skew(r#""max_skew":1,"per_node":2"#), 4, &[]), [1, 1]);
    let mut crowded = [machine(0, 0).at("eu", "a"), machine(0, 0).at("eu", "b")];
    crowded[0].of_service = 2;
    let (service, template, even) = ("web".parse().unwrap(), template(), skew(r#""max_skew":1"#));
    let request = Request { service: &service, template: &template, placement: &even, ordinals: &[1] };
    let mut views = views(&crowded);
    count_crowds(&mut views, &request, |_| true);
    let told: Vec<String> = reasons(&views[0], &request).iter().map(ToString::to_string).collect();
    assert_eq!(told, ["its `zone` has 2 stars of the service, another 0, and `max_skew` is 1"]);
    assert_eq!(reasons(&views[1], &request), []);
}

proptest! {
    /// Star by star, beside the plainest way to say it; and where it ends, no machine may have another.
    #[test]
    fn no_plan_is_more_uneven_than_it_may_be_and_every_place_is_found(
        machines in machines(), placement in placements(), stars in 0..40u32, max_skew in 1..4u32, away in 0..4u64
    ) {
        let mut placement = Placement { max_skew: Some(max_skew), ..placement };
        if placement.spread.is_empty() {
            placement.spread.push("region".parse().unwrap());
        }
        // Every so many a machine is away.
        let is_away = |node: u64| away > 1 && node.is_multiple_of(away);
        let gone: Vec<u64> = (1..=machines.len() as u64).filter(|node| is_away(*node)).collect();
        let plan = placed_evenly(&machines, &placement, stars, &gone);
        let value = |machine: &Machine| placement.spread[0].of(None, &machine.facts).map(|value| value.into_owned());
        let allowed = |machine: &Machine| placement.require.iter().all(|condition| condition.holds(None, &machine.facts));
        let mut has: Vec<u32> = machines.iter().map(|machine| machine.of_service).collect();
        let in_value = |has: &[u32], of: &Machine| -> u32 {
            machines.iter().zip(has).filter(|(machine, _)| value(machine) == value(of)).map(|(_, has)| has).sum()
        };
        let may_have = |has: &[u32], place: usize| {
            let machine = &machines[place];
            let least = machines.iter().filter(|machine| allowed(machine)).map(|machine| in_value(has, machine)).min();
            allowed(machine)
                && !is_away(place as u64 + 1)
                && placement.per_node.is_none_or(|most| has[place] < most)
                && in_value(has, machine) < least.unwrap_or(0) + max_skew
        };
        for node in &plan {
            let place = *node as usize - 1;
            prop_assert!(may_have(&has, place), "{node} of {plan:?}");
            has[place] += 1;
        }
        let is_over = plan.len() < stars as usize;
        prop_assert!(!is_over || !(0..machines.len()).any(|place| may_have(&has, place)), "{plan:?} has {has:?}");
    }
}

#[test]
fn a_tainted_machine_is_for_who_tolerates_it() {
    let machines = [machine(0, 0).tainted("gpu", Some("a100")), machine(0, 0).tainted("old", None), machine(0, 0)];
    let check = |text: &str, expected: &[u64]| {
        assert_eq!(placed(&machines, &template(), &placement(text), 3), expected, "{text}");
    };
    check("{}", &[3, 3, 3]);
    check(r#"{"tolerate":["gpu"]}"#, &[1, 3, 1]);
    check(r#"{"tolerate":["gpu = h100"]}"#, &[3, 3, 3]);
    check(r#"{"tolerate":["*"]}"#, &[1, 2, 3]);
    let problem = refused(&machines[..1], &template(), &Placement::default()).unwrap();
    assert!(problem.message.contains("1 node is tainted `gpu = a100`"), "{problem}");
}

#[test]
fn a_machine_with_a_service_to_be_apart_from_gets_none() {
    static OTHER: std::sync::LazyLock<ServiceKey> = std::sync::LazyLock::new(|| "db".parse().unwrap());
    let machines = [Machine { apart: Some(&OTHER), ..machine(0, 0) }, machine(0, 5)];
    assert_eq!(placed(&machines, &template(), &Placement::default(), 2), [2, 2]);
    let problem = refused(&machines[..1], &template(), &Placement::default()).unwrap();
    assert!(problem.message.contains("1 node has a star of `db`"), "{problem}");
}

#[test]
fn every_node_has_one_star_of_a_service_that_is_on_each() {
    let machines = [machine(0, 0), machine(1, 1), machine(0, 9)];
    assert_eq!(placed(&machines, &template(), &placement(r#"{"every_node":true}"#), 3), [1, 3]);
}

/// A star that is there already, in these tests: machine, service, priority, megabytes kept, whether it goes and whether it serves.
type There = (u64, u8, u8, u64, bool, bool);

const SERVICES: [&str; 3] = ["a", "b", "c"];
/// In place of a priority: its namespace has it beyond its quota.
const BEYOND: u8 = u8::MAX;

fn rank(priority: u8) -> Option<model::Priority> {
    (priority != BEYOND).then_some(model::Priority(priority))
}

/// Machines of a gigabyte on which these stars are, with what is kept for them.
fn full_of(there: &[There], machines: u64) -> Vec<Machine> {
    let on = |node: u64| {
        let here = there.iter().filter(|(on, ..)| *on == node);
        let memory = here.map(|(.., megabytes, _, _)| Bytes::mib(*megabytes).0).sum();
        Machine { kept: Kept { cpu: 0, memory }, ..machine(0, 0) }
    };
    (1..=machines).map(on).collect()
}

fn keeps(megabytes: u64) -> Reserve {
    Reserve { memory: Bytes::mib(megabytes), ..Reserve::default() }
}

/// Who goes for a star of this priority that keeps so much, if somebody may; by their places in `there`, from 0.
fn gives_way(there: &[There], machines: u64, priority: u8, megabytes: u64, spare: u32) -> Option<(u64, Vec<u64>)> {
    let services: Vec<ServiceKey> = SERVICES.iter().map(|name| name.parse().unwrap()).collect();
    let tenant = |(at, (node, service, priority, megabytes, goes, serves)): (usize, &There)| Tenant {
        star: StarId(at as u64),
        service: &services[usize::from(*service) % SERVICES.len()],
        node: NodeId(*node),
        priority: rank(*priority),
        reserve: keeps(*megabytes),
        goes: *goes,
        serves: *serves,
    };
    let tenants: Vec<Tenant<'_>> = there.iter().enumerate().map(tenant).collect();
    let machines = full_of(there, machines);
    let template = StarTemplate { reserve: keeps(megabytes), ..template() };
    let placement = Placement { priority: model::Priority(priority), ..Placement::default() };
    let service = "web".parse().unwrap();
    let request = Request { service: &service, template: &template, placement: &placement, ordinals: &[1] };
    let found = preempt(&views(&machines), &request, &tenants, |_| spare)?;
    Some((found.node.0, found.stars.iter().map(|star| star.0).collect()))
}

#[test]
fn the_lowest_and_the_fewest_give_way() {
    let there = [(1, 0, 30, 512, false, true), (1, 1, 20, 512, false, true), (2, 2, 10, 1_024, false, true)];
    assert_eq!(gives_way(&there, 2, 50, 512, 1), Some((2, vec![2])), "the lowest of all");
    assert_eq!(gives_way(&there[..2], 1, 50, 512, 1), Some((1, vec![1])));
    assert_eq!(gives_way(&there[..2], 1, 50, 1_024, 1), Some((1, vec![1, 0])));
    assert_eq!(gives_way(&there[..2], 1, 30, 1_024, 1), None, "one of them is as high");
    assert_eq!(gives_way(&there[..2], 1, 50, 2_048, 1), None, "no machine is so large");
    assert_eq!(gives_way(&there, 2, 50, 512, 0), None, "none may be missing");
    let small = [(1, 0, 10, 100, false, true), (1, 0, 10, 400, false, true), (1, 0, 10, 500, false, true)];
    assert_eq!(gives_way(&small, 1, 50, 400, 9), Some((1, vec![2])), "one that is large enough");
}

#[test]
fn what_is_beyond_a_quota_is_lower_than_any_priority_and_no_service_misses_it() {
    let there = [(1, 0, 0, 512, false, true), (1, 1, BEYOND, 512, false, true), (2, 2, BEYOND, 1_024, false, true)];
    assert_eq!(gives_way(&there, 2, 50, 512, 0), Some((1, vec![1])), "the smaller of two that are as low");
    assert_eq!(gives_way(&there, 2, 0, 1_024, 0), Some((2, vec![2])), "to the lowest priority, too");
    assert_eq!(gives_way(&there[..2], 1, 50, 1_024, 0), None);
}

#[test]
fn nobody_else_goes_where_enough_are_going() {
    let there = [(1, 0, 30, 512, true, true), (1, 1, 20, 512, false, true), (2, 2, 10, 1_024, false, true)];
    assert_eq!(gives_way(&there, 2, 50, 512, 1), Some((1, vec![])));
    assert_eq!(gives_way(&there, 2, 10, 512, 1), Some((1, vec![])), "whatever its priority");
    assert_eq!(gives_way(&there, 2, 50, 1_024, 1), Some((2, vec![2])));
}

/// What must hold of who gives way, and that the highest of them is as low as it can be: by trying every set.
fn must_do_least_harm(there: &[There], machines: u64, priority: u8, megabytes: u64, spare: u32) -> Result<(), String> {
    let may_go = |set: u32, node: u64| {
        let goes = |at: &usize| set & (1 << at) != 0;
        let chosen: Vec<usize> = (0..there.len()).filter(goes).collect();
        let lower =
            chosen.iter().all(|at| there[*at].0 == node && rank(there[*at].2) < rank(priority) && !there[*at].4);
        let of = |service: u8| {
            let of = |at: &&usize| {
                let (_, of, priority, _, _, serves) = there[**at];
                usize::from(of) % SERVICES.len() == usize::from(service) && serves && priority != BEYOND
            };
            chosen.iter().filter(of).count() as u32
        };
        let within = (0..SERVICES.len() as u8).all(|service| of(service) <= spare);
        let stays = |at: &usize| there[*at].0 == node && !there[*at].4 && !goes(at);
        let kept: u64 = (0..there.len()).filter(stays).map(|at| there[at].3).sum();
        (lower && within && kept + megabytes <= 1_024).then(|| chosen.iter().filter_map(|at| rank(there[*at].2)).max())
    };
    let best = (1..=machines).flat_map(|node| (0..1 << there.len()).filter_map(move |set| may_go(set, node))).min();
    match (gives_way(there, machines, priority, megabytes, spare), best) {
        (None, None) => Ok(()),
        (Some((node, stars)), Some(best)) => {
            let set = stars.iter().fold(0, |set, star| set | 1 << star);
            let highest = may_go(set, node).ok_or("what was chosen may not go, or is not enough")?;
            if stars.iter().any(|star| may_go(set & !(1 << star), node).is_some()) {
                return Err(format!("of {stars:?} one goes for nothing"));
            }
            if highest == best { Ok(()) } else { Err(format!("{highest:?} goes, {best:?} would have been enough")) }
        }
        (found, best) => Err(format!("found {found:?}, there is {best:?}")),
    }
}

proptest! {
    #[test]
    fn who_gives_way_is_lower_within_what_may_be_missing_and_needed(
        there in prop::collection::vec((1..4_u64, 0..3_u8, 0..5_u8, 100..600_u64, any::<bool>(), any::<bool>()), 0..8),
        priority in 0..5_u8,
        megabytes in 1..1_200_u64,
        spare in 0..3_u32,
    ) {
        let there: Vec<There> = there.into_iter().map(|(node, service, beyond, megabytes, goes, serves)| {
            // All stars of a service have its priority.
            let priority = if beyond == 0 { BEYOND } else { [0, 2, 3][usize::from(service)] };
            (node, service, priority, megabytes, goes, serves)
        }).collect();
        if let Err(why) = must_do_least_harm(&there, 3, priority, megabytes, spare) {
            prop_assert!(false, "{}", why);
        }
    }
}

/// The stars of the service on each machine after the moves, and how many these are.
fn balanced(machines: &[Machine], template: &StarTemplate, placement: &Placement) -> (Vec<u32>, Vec<(u64, u64)>) {
    let service = "web".parse().unwrap();
    let request = Request { service: &service, template, placement, ordinals: &[] };
    let movable = |node: NodeId| machines[node.0 as usize - 1].of_service;
    let moves = balance(&views(machines), &request, movable, 1_000);
    let mut there: Vec<u32> = machines.iter().map(|machine| machine.of_service).collect();
    for step in &moves {
        there[step.from.0 as usize - 1] -= 1;
        there[step.to.0 as usize - 1] += 1;
    }
    (there, moves.into_iter().map(|step| (step.from.0, step.to.0)).collect())
}

#[test]
fn stars_move_from_where_there_are_most_to_where_there_are_fewest() {
    let check = |machines: &[Machine], text: &str, expected: &[u32], moves: usize| {
        let (there, made) = balanced(machines, &template(), &placement(text));
        assert_eq!((&there[..], made.len()), (expected, moves), "{made:?}");
    };
    let of = |stars: &[u32]| stars.iter().map(|stars| machine(*stars, *stars)).collect::<Vec<_>>();
    check(&of(&[4, 0]), "{}", &[2, 2], 2);
    check(&of(&[3, 2, 2]), "{}", &[3, 2, 2], 0);
    check(&of(&[1, 0]), "{}", &[1, 0], 0);
    check(&of(&[6, 0, 0]), r#"{"strategy":"binpack"}"#, &[6, 0, 0], 0);
    check(&of(&[6, 0, 0]), r#"{"per_node":1}"#, &[4, 1, 1], 2);
    // Regions first, then zones of each.
    let there = [(3, "r1", "a"), (0, "r1", "b"), (1, "r2", "c"), (0, "r2", "d")];
    let machines: Vec<Machine> =
        there.iter().map(|(stars, region, zone)| machine(*stars, 9).at(region, zone)).collect();
    check(&machines, r#"{"spread":["region","zone"]}"#, &[1, 1, 1, 1], 2);
    // What is preferred may have more.
    let machines = [machine(2, 2).label("disk", "ssd"), machine(0, 0)];
    check(&machines, r#"{"prefer":[{"that":"disk = ssd","weight":100}]}"#, &[2, 0], 0);
    check(&machines, r#"{"prefer":[{"that":"disk = ssd","weight":-100}]}"#, &[1, 1], 1);
    // No room is made by who goes.
    let full = Machine { kept: Kept { memory: 900 << 20, cpu: 0 }, ..machine(0, 5) };
    let template = StarTemplate { reserve: needs_kept(200), ..template() };
    assert_eq!(balanced(&[machine(4, 4), full], &template, &Placement::default()).0, [4, 0]);
}

fn needs_kept(megabytes: u64) -> Reserve {
    Reserve { cpu: Millicores(0), memory: Bytes::mib(megabytes) }
}

proptest! {
    /// Every move is one that a plan might have made, none comes after another, and of one level they are the fewest there are.
    #[test]
    fn moves_break_nothing_and_end(machines in machines(), placement in placements(), megabytes in 0..400u64) {
        let template = StarTemplate { reserve: needs_kept(megabytes), ..needs(64) };
        let (there, moves) = balanced(&machines, &template, &placement);
        let sum = |stars: &[u32]| stars.iter().sum::<u32>();
        let before: Vec<u32> = machines.iter().map(|machine| machine.of_service).collect();
        prop_assert_eq!(sum(&there), sum(&before));
        for (number, machine) in machines.iter().enumerate() {
            let came = moves.iter().filter(|(_, to)| *to == number as u64 + 1).count() as u64;
            if came == 0 {
                continue;
            }
            prop_assert!(placement.require.iter().all(|condition| condition.holds(None, &machine.facts)));
            prop_assert!(placement.per_node.is_none_or(|most| there[number] <= most));
            let free = machine.facts.memory.0.saturating_sub(machine.facts.reserved.memory.0);
            prop_assert!(megabytes == 0 || machine.kept.memory + came * (megabytes << 20) <= free);
        }
        let after: Vec<Machine> = machines.iter().zip(&there).zip(1u64..).map(|((machine, stars), number)| {
            let came = moves.iter().filter(|(_, to)| *to == number).count() as u32;
            let kept = machine.kept.with(&template.reserve, came);
            Machine { of_service: *stars, kept, stars: machine.stars - machine.of_service + stars, ..machine.clone() }
        }).collect();
        prop_assert_eq!(balanced(&after, &template, &placement).1, Vec::new());
    }

    #[test]
    fn the_fewest_move(stars in prop::collection::vec(0..9u32, 1..8)) {
        let machines: Vec<Machine> = stars.iter().map(|stars| machine(*stars, *stars)).collect();
        let (there, moves) = balanced(&machines, &template(), &Placement::default());
        prop_assert!(there.iter().max().unwrap() - there.iter().min().unwrap() <= 1);
        let (floor, ceiling) = (stars.iter().sum::<u32>() / stars.len() as u32, stars.iter().sum::<u32>().div_ceil(stars.len() as u32));
        let too_many: u32 = stars.iter().map(|stars| stars.saturating_sub(ceiling)).sum();
        let too_few: u32 = stars.iter().map(|stars| floor.saturating_sub(*stars)).sum();
        prop_assert_eq!(moves.len() as u32, too_many.max(too_few));
    }
}
