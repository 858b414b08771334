//! Where stars go: a pure function from a view and a request to a plan with its reasons.
//!
//! A plan leaves nothing to choose (ids, ordinals, ports, node), and the state checks it again when it is applied.

#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use model::{Bytes, Code, CpuSet, Millicores, Network, NodeId, Problem, ServiceKey, StarId, StarTemplate};

/// A node that stars can go to, and what it has to do already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    pub node: NodeId,
    /// 0 when it is not known; then nothing is refused for it.
    pub memory: Bytes,
    /// How many processors it has; 0 when it is not known, and then nothing is refused for it.
    pub cores: u32,
    /// Its processors; `None` when they are not known, and then nothing is refused for them.
    pub cpus: Option<CpuSet>,
    /// Its agent has no privileges.
    pub rootless: bool,
    /// Stars that run there.
    pub stars: u32,
    /// Of these, stars of the service at hand.
    pub of_service: u32,
    /// Ports that stars on its network have.
    pub ports: BTreeSet<u16>,
}

/// Stars wanted for a service.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub service: &'a ServiceKey,
    pub template: &'a StarTemplate,
    /// Places to fill, in order.
    pub ordinals: &'a [u32],
}

/// One star, decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    pub star: StarId,
    pub ordinal: u32,
    pub node: NodeId,
    pub port: Option<u16>,
}

/// Ports for stars on the host's network: below the range that Linux gives to outgoing connections (32768 upwards).
const HOST_PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Star ids from a seed: the same seed gives the same ids, and different agents different ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    state: u64,
}

impl Ids {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next id that is not `taken`.
    pub fn next(&mut self, taken: impl Fn(StarId) -> bool) -> StarId {
        loop {
            let id = StarId(self.random());
            if !taken(id) {
                return id;
            }
        }
    }

    /// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Whether a star of this template can run on one of these nodes; the problem names what it needs and what the best has.
pub fn check<'v>(
    views: impl IntoIterator<Item = &'v NodeView>,
    service: &ServiceKey,
    template: &StarTemplate,
) -> Result<(), Problem> {
    let (mut refusal, mut largest) = (None, Bytes(0));
    for view in views {
        match fits(view, service, template) {
            Ok(()) => return Ok(()),
            // Of several reasons the one of the node that has most is told: it is the nearest.
            Err(problem) if refusal.is_none() || view.memory > largest => {
                largest = view.memory;
                refusal = Some(problem);
            }
            Err(_) => {}
        }
    }
    let nowhere = || Problem::new(Code::NoCapacity, format!("no node takes a star of `{service}`"));
    Err(refusal.unwrap_or_else(|| nowhere().help("`rads c nodes` shows which are up and take stars")))
}

fn fits(view: &NodeView, service: &ServiceKey, template: &StarTemplate) -> Result<(), Problem> {
    if let (Some(needs), Some(has)) = (template.limits.cpus, view.cpus)
        && let Some(missing) = needs.first_beyond(&has)
    {
        let message = format!("no node can hold a star of `{service}` (needs processor {missing}, the node has {has})");
        return Err(Problem::new(Code::NoCapacity, message).help("name others in its `cpus`"));
    }
    if let Some(needs) = template.limits.cpu
        && view.cores > 0
        && u64::from(needs.0) > u64::from(view.cores) * 1_000
    {
        let most = Millicores(view.cores * 1_000);
        let message = format!("no node can hold a star of `{service}` (needs {needs} of a core, the node has {most})");
        return Err(Problem::new(Code::NoCapacity, message).help("lower its `cpu_percent` or `cpu_cores`"));
    }
    if view.rootless {
        without_root(service, template)?;
    }
    let Some(needs) = template.limits.memory else { return Ok(()) };
    if view.memory.0 == 0 || needs <= view.memory {
        return Ok(());
    }
    let message = format!(
        "no node can hold a star of `{service}` (needs {needs} of memory, the largest node has {})",
        view.memory
    );
    Err(Problem::new(Code::NoCapacity, message).help("lower its `ram_mb`"))
}

/// Refuses what an ordinary user's stars cannot have: they have one id, that user's, and no bridge.
fn without_root(service: &ServiceKey, template: &StarTemplate) -> Result<(), Problem> {
    if template.network == Network::Bridge {
        let message = format!("service `{service}` asks for `network: \"bridge\"`, which needs root");
        return Err(Problem::new(Code::Unsupported, message).help("use `network: \"host\"`, or run the agent as root"));
    }
    let refused = |what: String| {
        let message = format!("service `{service}` asks for {what}, and without root a star has no id but its root's");
        Err(Problem::new(Code::Unsupported, message).help("leave it out, or run the agent as root"))
    };
    if let Some(user) = template.interior.user.filter(|user| (user.uid, user.gid) != (0, 0)) {
        return refused(format!("`user: \"{user}\"`"));
    }
    let mut capabilities = template.weakened.capabilities.iter();
    if let Some(capability) = capabilities.find(|capability| capability.needs_ids()) {
        return refused(format!("the capability `{capability}`"));
    }
    Ok(())
}

/// Places stars, each on the node that has fewest of its service, of those with fewest stars at all, of those the first.
/// `taken` tells ids in use. Ordinals beyond what the nodes can hold are left out.
pub fn plan(
    views: &[NodeView],
    request: &Request<'_>,
    ids: &mut Ids,
    taken: impl Fn(StarId) -> bool,
) -> Vec<Placement> {
    let views: Vec<&NodeView> =
        views.iter().filter(|view| fits(view, request.service, request.template).is_ok()).collect();
    // The next node is at the top: of thousands of nodes none is looked at that gets nothing.
    let rank = |(place, view): (usize, &&NodeView)| Reverse((view.of_service, view.stars, view.node, place));
    let mut order: BinaryHeap<_> = views.iter().enumerate().map(rank).collect();
    let mut ports: BTreeSet<(NodeId, u16)> = BTreeSet::new();
    let mut placed: BTreeSet<StarId> = BTreeSet::new();
    let mut placements: Vec<Placement> = Vec::with_capacity(request.ordinals.len());
    for ordinal in request.ordinals {
        let Some(mut least) = order.peek_mut() else { break };
        let Reverse((of_service, stars, node, place)) = *least;
        *least = Reverse((of_service + 1, stars + 1, node, place));
        drop(least);
        let star = ids.next(|id| taken(id) || placed.contains(&id));
        placed.insert(star);
        let port = match request.template.network {
            Network::None | Network::Bridge => request.template.port,
            // Stars that share the host's ports each get one of their own.
            Network::Host => request.template.port.and_then(|_| {
                let offset = (star.0 % HOST_PORTS.len() as u64) as u16;
                let start = HOST_PORTS.start + offset;
                let mut candidates = (start..HOST_PORTS.end).chain(HOST_PORTS.start..start);
                let is_free = |port: &u16| !views[place].ports.contains(port) && !ports.contains(&(node, *port));
                let free = candidates.find(is_free)?;
                ports.insert((node, free));
                Some(free)
            }),
        };
        placements.push(Placement { star, ordinal: *ordinal, node, port });
    }
    placements
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(node: u64, of_service: u32, stars: u32) -> NodeView {
        let memory = Bytes::mib(1_024);
        let ports = BTreeSet::new();
        NodeView { node: NodeId(node), memory, cores: 0, cpus: None, rootless: false, stars, of_service, ports }
    }

    fn check_spread(views: &[NodeView], stars: u32, expected: &[u64]) {
        let template = StarTemplate { limits: model::Limits::DEFAULT, ..template() };
        let ordinals: Vec<u32> = (1..=stars).collect();
        let service = "web".parse().unwrap();
        let request = Request { service: &service, template: &template, ordinals: &ordinals };
        let plan = plan(views, &request, &mut Ids::new(1), |_| false);
        assert_eq!(plan.iter().map(|placed| placed.node.0).collect::<Vec<_>>(), expected);
    }

    fn template() -> StarTemplate {
        StarTemplate {
            program: model::Program::Script("x.rads".to_owned()),
            args: Vec::new(),
            bundle: model::BundleId(model::ContentHash([0; 32])),
            rootfs: None,
            env: Default::default(),
            limits: model::Limits::DEFAULT,
            volumes: Vec::new(),
            network: Network::None,
            port: Some(80),
            probe: model::Probe::new(model::ProbeKind::Tcp),
            restart: model::RestartPolicy::Always,
            grace_ms: 1_000,
            stop_signal: None,
            deadline_ms: None,
            hooks: Default::default(),
            health: Default::default(),
            interior: Default::default(),
            weakened: Default::default(),
            checkpoint: false,
            singleton: false,
        }
    }

    #[test]
    fn stars_of_a_service_are_spread_and_then_go_where_there_are_fewest() {
        check_spread(&[view(1, 0, 0), view(2, 0, 0), view(3, 0, 0)], 4, &[1, 2, 3, 1]);
        check_spread(&[view(1, 1, 1), view(2, 0, 9), view(3, 0, 5)], 3, &[3, 2, 1]);
        check_spread(&[view(7, 5, 5)], 2, &[7, 7]);
        check_spread(&[], 2, &[]);
    }

    #[test]
    fn what_no_node_can_hold_is_refused_with_what_the_largest_has() {
        let service: ServiceKey = "web".parse().unwrap();
        let mut template = template();
        template.limits.memory = Some(Bytes::mib(2_048));
        let small = NodeView { memory: Bytes::mib(512), ..view(1, 0, 0) };
        let problem = check([&view(2, 0, 0), &small], &service, &template).unwrap_err();
        assert!(problem.message.contains("the largest node has 1 GiB"), "{problem}");
        let large = NodeView { memory: Bytes::mib(4_096), ..view(3, 0, 0) };
        assert_eq!(check([&small, &large], &service, &template), Ok(()));
        assert_eq!(check([], &service, &template).unwrap_err().code, Code::NoCapacity);
        template.limits.cpu = Some(Millicores(2_001));
        let two = NodeView { cores: 2, ..large.clone() };
        let problem = check([&two], &service, &template).unwrap_err();
        assert!(problem.message.contains("needs 200.1 % of a core, the node has 200 %"), "{problem}");
        assert_eq!(check([&two, &NodeView { cores: 4, ..large.clone() }], &service, &template), Ok(()));
        template.limits.cpu = Some(Millicores(2_000));
        assert_eq!(check([&two], &service, &template), Ok(()));
        template.network = Network::Bridge;
        let rootless = NodeView { rootless: true, ..large };
        assert_eq!(check([&rootless], &service, &template).unwrap_err().code, Code::Unsupported);
    }

    #[test]
    fn ids_follow_from_the_seed_and_avoid_those_taken() {
        let (mut a, mut b) = (Ids::new(7), Ids::new(7));
        let first = a.next(|_| false);
        assert_eq!(first, b.next(|_| false));
        let mut c = Ids::new(7);
        assert_ne!(c.next(|id| id == first), first);
        assert_ne!(Ids::new(8).next(|_| false), first);
    }
}
