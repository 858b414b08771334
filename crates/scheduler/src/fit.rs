//! Whether a machine can have a star of a service at all, and if not, why not.

use std::fmt;

use model::reserve::free_memory;
use model::{
    Attribute, Bytes, Code, Condition, CpuSet, Lack, Millicores, Name, Network, Problem, ServiceKey, StarTemplate,
};

use crate::{Crowd, NodeView, Request};

/// Why a machine gets no star now, whatever it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    Cordoned,
    Drained,
    /// Nothing is heard of it.
    Silent,
    /// It is given up.
    Dead,
}

/// Why a machine cannot have a star.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// It has no such processor.
    Processor {
        missing: u32,
        has: CpuSet,
    },
    Cores {
        needs: Millicores,
        has: Millicores,
    },
    Memory {
        needs: Bytes,
        has: Bytes,
    },
    /// Its agent has no privileges.
    Rootless {
        asks_for: String,
        instead: &'static str,
    },
    /// It is not as the service requires.
    Condition(Condition),
    /// Its operator keeps it for others: what it is tainted.
    Tainted(String),
    /// A service has stars there with which this one shares no machine.
    Apart(ServiceKey),
    /// Too little of it is not kept for others.
    NoRoom(Lack),
    /// No place of the reservation of this name is free there.
    NoPlace(Name),
    /// What stars are spread over has too many more where it is than where there are fewest.
    Skewed {
        attribute: Attribute,
        crowd: Crowd,
        max_skew: u32,
    },
    /// It has as many stars of the service as it may, or more.
    Full {
        has: u32,
        per_node: u32,
    },
    /// Nothing else keeps it off.
    Closed(Closed),
}

impl Unfit {
    /// Whether no placement could change it: the machine is too small, too full, or of the wrong kind.
    fn is_of_the_machine(&self) -> bool {
        let of_the_service = matches!(
            self,
            Self::Condition(_)
                | Self::Full { .. }
                | Self::Tainted(_)
                | Self::Apart(_)
                | Self::Skewed { .. }
                | Self::NoPlace(_)
                | Self::Closed(_)
        );
        !of_the_service
    }

    /// What two machines have in common, if they have: how much is free differs from one to the other, and what the better one has
    /// is told.
    fn nearer(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::NoRoom(one), Self::NoRoom(two)) => one.nearer(*two).map(Self::NoRoom),
            (Self::Skewed { .. }, Self::Skewed { .. }) => Some(self.clone()),
            _ => (self == other).then(|| self.clone()),
        }
    }

    /// As the answer to whoever asks for the star where this holds of each machine.
    fn refusal(&self, service: &ServiceKey) -> Problem {
        let cannot = |what: String, help: &'static str| {
            Problem::new(Code::NoCapacity, format!("no node can hold a star of `{service}` ({what})")).help(help)
        };
        match self {
            Self::Processor { missing, has } => {
                cannot(format!("needs processor {missing}, the node has {has}"), "name others in its `cpus`")
            }
            Self::Cores { needs, has } => {
                cannot(format!("needs {needs} of a core, the node has {has}"), "lower its `cpu_percent` or `cpu_cores`")
            }
            Self::Memory { needs, has } => {
                cannot(format!("needs {needs} of memory, the largest node has {has}"), "lower its `ram_mb`")
            }
            Self::Rootless { asks_for, instead } => {
                Problem::new(Code::Unsupported, format!("service `{service}` asks for {asks_for}")).help(*instead)
            }
            Self::NoRoom(Lack::Memory { needs, free }) => cannot(
                format!("needs {} of memory, largest free is {}", needs.exact(), free_memory(*free)),
                "lower its `reserve_ram_mb`; `rads c resources` shows what is kept where",
            ),
            Self::NoRoom(Lack::Cpu { needs, free }) => cannot(
                format!("needs {needs} of a core, largest free is {free}"),
                "lower its `reserve_cpu_percent`; `rads c resources` shows what is kept where",
            ),
            Self::Condition(_)
            | Self::Full { .. }
            | Self::Tainted(_)
            | Self::Apart(_)
            | Self::Skewed { .. }
            | Self::NoPlace(_)
            | Self::Closed(_) => cannot(self.to_string(), "change its `placement`"),
        }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Processor { missing, has } => write!(f, "it has no processor {missing}, only {has}"),
            Self::Cores { needs, has } => write!(f, "a star needs {needs} of a core, it has {has}"),
            Self::Memory { needs, has } => write!(f, "a star needs {needs} of memory, it has {has}"),
            Self::Rootless { asks_for, .. } => write!(f, "its agent has no root: {asks_for}"),
            Self::Condition(condition) => write!(f, "`{condition}` does not hold"),
            Self::Closed(Closed::Cordoned) => f.write_str("it is cordoned"),
            Self::Closed(Closed::Drained) => f.write_str("it is drained"),
            Self::Closed(Closed::Silent) => f.write_str("nothing is heard of it"),
            Self::Closed(Closed::Dead) => f.write_str("it is dead"),
            Self::NoRoom(lack) => lack.fmt(f),
            Self::NoPlace(reservation) => {
                write!(f, "it has no place of reservation `{reservation}` that is free and large enough")
            }
            Self::Tainted(taint) => write!(f, "it is tainted `{taint}`, which the service does not tolerate"),
            Self::Apart(other) => write!(f, "it has a star of `{other}`, from which this one is to be apart"),
            Self::Skewed { attribute, crowd: Crowd { has, least, .. }, max_skew } => {
                let stars = if *has == 1 { "star" } else { "stars" };
                write!(
                    f,
                    "its `{attribute}` has {has} {stars} of the service, another {least}, and `max_skew` is {max_skew}"
                )
            }
            Self::Full { has: 1, per_node } => {
                write!(f, "it has a star of the service, and `per_node` is {per_node}")
            }
            Self::Full { has, per_node } => {
                write!(f, "it has {has} stars of the service, and `per_node` is {per_node}")
            }
        }
    }
}

/// Everything that keeps a star off a machine; nothing when it can have one.
pub fn reasons(view: &NodeView<'_>, request: &Request<'_>) -> Vec<Unfit> {
    let mut all: Vec<Unfit> = of_the_machine(view, request.template).into_iter().collect();
    all.extend(request.placement.broken(view.name, view.facts).cloned().map(Unfit::Condition));
    all.extend(kept_for_others(view, request));
    all.extend(full(view, request));
    all.extend(skewed(view, request));
    all.extend(no_room(view, 0, request));
    all.extend(view.closed.map(Unfit::Closed));
    all
}

/// The contrary of [`reasons`] but for room: whether it could have a star if enough of it were free.
pub(crate) fn fits_but_for_room(view: &NodeView<'_>, request: &Request<'_>) -> bool {
    full(view, request).is_none()
        && request.placement.broken(view.name, view.facts).next().is_none()
        && kept_for_others(view, request).is_none()
        && of_the_machine(view, request.template).is_none()
}

/// Whether it could have stars of the service if it had none of them, and room.
pub(crate) fn could_have(view: &NodeView<'_>, request: &Request<'_>) -> bool {
    fits_but_for_room(&NodeView { of_service: 0, others: 0, ..*view }, request)
}

/// Whether its value of what stars are spread over has enough of them. Not so for good: the others may get some in the same plan.
pub(crate) fn skewed(view: &NodeView<'_>, request: &Request<'_>) -> Option<Unfit> {
    let (crowd, max_skew, attribute) =
        (view.crowd?, request.placement.max_skew?, request.placement.spread.first()?.clone());
    crowd.is_beyond(max_skew).then_some(Unfit::Skewed { attribute, crowd, max_skew })
}

fn kept_for_others(view: &NodeView<'_>, request: &Request<'_>) -> Option<Unfit> {
    let taint = view.taints.and_then(|taints| request.placement.kept_off(taints));
    let tainted = taint.map(|(name, taint)| Unfit::Tainted(model::taint::shown(name, taint)));
    tainted.or_else(|| view.apart.cloned().map(Unfit::Apart))
}

/// Whether there are none, which is asked of every machine for every plan.
pub(crate) fn fits(view: &NodeView<'_>, request: &Request<'_>) -> bool {
    view.closed.is_none() && fits_but_for_room(view, request) && no_room(view, 0, request).is_none()
}

/// Whether too little is left of it when it has been given so many stars more.
pub(crate) fn no_room(view: &NodeView<'_>, given: u32, request: &Request<'_>) -> Option<Unfit> {
    if let (Some(places), Some(reservation)) = (view.places, &request.placement.reservation) {
        // What a place has is kept, and enough for a star.
        return (given >= places).then(|| Unfit::NoPlace(reservation.clone()));
    }
    let reserve = &request.template.reserve;
    view.facts.lacks(view.kept.with(reserve, given), reserve).map(Unfit::NoRoom)
}

fn full(view: &NodeView<'_>, request: &Request<'_>) -> Option<Unfit> {
    let has = view.of_service + view.others;
    request.placement.most_per_node().filter(|most| has >= *most).map(|per_node| Unfit::Full { has, per_node })
}

/// Whether a star can run on one of these machines; the problem names what it needs and what the best has.
///
/// # Errors
/// `NoCapacity` or `Unsupported`: no machine can have it.
pub fn check<'v, 'a: 'v>(
    views: impl IntoIterator<Item = &'v NodeView<'a>>,
    request: &Request<'_>,
) -> Result<(), Problem> {
    let service = request.service;
    let (mut nearest, mut largest) = (None, Bytes(0));
    let mut counted: Vec<(Unfit, usize)> = Vec::new();
    for view in views {
        let Some(first) = reasons(view, request).into_iter().next() else { return Ok(()) };
        // Of several reasons the one of the node that has most is told: it is the nearest.
        if nearest.is_none() || view.facts.memory > largest {
            largest = view.facts.memory;
            nearest = Some(first.clone());
        }
        match counted.iter_mut().find_map(|(reason, nodes)| Some((reason.nearer(&first)?, reason, nodes))) {
            Some((nearer, reason, nodes)) => (*reason, *nodes) = (nearer, *nodes + 1),
            None => counted.push((first, 1)),
        }
    }
    // One that is only too full is nearer than all that are too small.
    let full = counted.iter().find(|(reason, _)| matches!(reason, Unfit::NoRoom(_)));
    let nearest = full.map(|(reason, _)| reason.clone()).or(nearest);
    let Some(nearest) = nearest else {
        let nowhere = Problem::new(Code::NoCapacity, format!("no node takes a star of `{service}`"));
        return Err(nowhere.help("`rads c nodes` shows which are up and take stars"));
    };
    if counted.iter().all(|(reason, _)| reason.is_of_the_machine()) {
        return Err(nearest.refusal(service));
    }
    counted.sort_by_key(|(_, nodes)| std::cmp::Reverse(*nodes));
    let told: Vec<String> = counted.iter().take(TOLD_MAX).map(|(reason, nodes)| told(reason, *nodes)).collect();
    let more = if counted.len() > TOLD_MAX { "; and more" } else { "" };
    let message = format!("no node takes a star of `{service}`: {}{more}", told.join("; "));
    Err(Problem::new(Code::NoCapacity, message).help(format!("`rads c explain {service}` tells it node by node")))
}

/// Reasons in one line.
const TOLD_MAX: usize = 4;

fn told(reason: &Unfit, nodes: usize) -> String {
    match (reason, nodes) {
        (Unfit::Condition(condition), 1) => format!("`{condition}` does not hold on 1 node"),
        (Unfit::Condition(condition), _) => format!("`{condition}` does not hold on {nodes} nodes"),
        (Unfit::Tainted(taint), 1) => format!("1 node is tainted `{taint}`"),
        (Unfit::Tainted(taint), _) => format!("{nodes} nodes are tainted `{taint}`"),
        (Unfit::Apart(other), 1) => format!("1 node has a star of `{other}` (`apart_from`)"),
        (Unfit::Apart(other), _) => format!("{nodes} nodes have a star of `{other}` (`apart_from`)"),
        (Unfit::NoPlace(reservation), 1) => {
            format!("1 node has no place of reservation `{reservation}` that is free and large enough")
        }
        (Unfit::NoPlace(reservation), _) => {
            format!("{nodes} nodes have no place of reservation `{reservation}` that is free and large enough")
        }
        (Unfit::NoRoom(lack), 2..) => format!("{nodes} nodes: {lack} on the best"),
        (Unfit::Skewed { attribute, max_skew, .. }, 1) => {
            format!("the `{attribute}` of 1 node has enough of its stars (`max_skew` is {max_skew})")
        }
        (Unfit::Skewed { attribute, max_skew, .. }, _) => {
            format!("the `{attribute}` of {nodes} nodes has enough of its stars (`max_skew` is {max_skew})")
        }
        (Unfit::Closed(Closed::Cordoned), 1) => "1 node is cordoned".to_owned(),
        (Unfit::Closed(Closed::Cordoned), _) => format!("{nodes} nodes are cordoned"),
        (Unfit::Closed(Closed::Drained), 1) => "1 node is drained".to_owned(),
        (Unfit::Closed(Closed::Drained), _) => format!("{nodes} nodes are drained"),
        (Unfit::Closed(Closed::Dead), 1) => "1 node is dead".to_owned(),
        (Unfit::Closed(Closed::Dead), _) => format!("{nodes} nodes are dead"),
        (Unfit::Closed(Closed::Silent), 1) => "nothing is heard of 1 node".to_owned(),
        (Unfit::Closed(Closed::Silent), _) => format!("nothing is heard of {nodes} nodes"),
        (Unfit::Full { has, .. }, 1) => format!("1 node has {has} of its stars already (`per_node`)"),
        (Unfit::Full { has, .. }, _) => format!("{nodes} nodes have {has} of its stars already (`per_node`)"),
        (other, 1) => format!("1 node: {other}"),
        (other, _) => format!("{nodes} nodes: {other}"),
    }
}

fn of_the_machine(view: &NodeView<'_>, template: &StarTemplate) -> Option<Unfit> {
    let facts = view.facts;
    if let (Some(needs), Some(has)) = (template.limits.cpus, facts.cpus)
        && let Some(missing) = needs.first_beyond(&has)
    {
        return Some(Unfit::Processor { missing, has });
    }
    if let Some(needs) = template.limits.cpu
        && facts.cores > 0
        && u64::from(needs.0) > u64::from(facts.cores) * 1_000
    {
        return Some(Unfit::Cores { needs, has: Millicores(facts.cores * 1_000) });
    }
    if facts.rootless
        && let Some(unfit) = without_root(template)
    {
        return Some(unfit);
    }
    let needs = template.limits.memory?;
    (facts.memory.0 > 0 && needs > facts.memory).then_some(Unfit::Memory { needs, has: facts.memory })
}

/// What an ordinary user's stars cannot have: they have one id, that user's, and no bridge.
fn without_root(template: &StarTemplate) -> Option<Unfit> {
    if template.network == Network::Bridge {
        let asks_for = "`network: \"bridge\"`, which needs root".to_owned();
        return Some(Unfit::Rootless { asks_for, instead: "use `network: \"host\"`, or run the agent as root" });
    }
    let refused = |what: String| {
        let asks_for = format!("{what}, and without root a star has no id but its root's");
        Some(Unfit::Rootless { asks_for, instead: "leave it out, or run the agent as root" })
    };
    if let Some(user) = template.interior.user.filter(|user| (user.uid, user.gid) != (0, 0)) {
        return refused(format!("`user: \"{user}\"`"));
    }
    let mut capabilities = template.weakened.capabilities.iter();
    let capability = capabilities.find(|capability| capability.needs_ids())?;
    refused(format!("the capability `{capability}`"))
}
