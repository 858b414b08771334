//! The machines of the constellation: which of them may get stars, and, on the node that leads, which of them are given up.
//!
//! What membership says is a hint. A machine is given up by the log, when the node that leads has not heard from it for
//! as long as its lease lasts and the others do not see it either; it is welcomed again when it is heard from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{Bytes, Duty, Kept, NodeFacts, NodeId, Placement, ServiceKey, Standing, StarPhase, Time};
use scheduler::{NodeView, Request as PlanRequest};
use state::{Command, Load, NodeRecord, StarRecord, State};

use crate::along::Along;
use crate::log::Purpose;
use crate::node::{Node, NodeConfig, Step};
use crate::services::WRITE_AGAIN;
use crate::timers::Timer;

/// A machine reports somewhat more often than every second. One that misses five is silent for a reason.
pub const LEASE: Duration = Duration::from_secs(5);
/// For how long after a leader was sure to hear from it a machine lets its singletons run: so much less than [`LEASE`] that they have
/// ended, on a machine that is slow to do it too, before others are started elsewhere.
pub const SINGLETON_LEASE: Duration = Duration::from_secs(3);
const _: () = assert!(SINGLETON_LEASE.as_millis() + 1_500 < LEASE.as_millis());
/// One that others still see but that does not report is given up after this long: it answers probes and does no work.
const LEASE_WHILE_SEEN: Duration = Duration::from_secs(30);
/// One that membership has said nothing about, since this agent began, is given up after this long: nobody sees it. After a
/// power cut all agents begin at about the same time, a slow machine some seconds later than the one that leads; that its
/// stars are not moved for those seconds is what this is more than [`LEASE`] for.
const LEASE_WHILE_UNKNOWN: Duration = Duration::from_secs(10);
const _: () = assert!(LEASE.as_millis() < LEASE_WHILE_UNKNOWN.as_millis());

/// What the node that leads knows of the others, beyond the state.
#[derive(Debug)]
pub(crate) struct Peers {
    /// Whether what is wanted is planned here. A machine that is alone always does.
    pub(crate) leads: bool,
    heard: BTreeMap<NodeId, Heard>,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    /// When its lease began: with its last report, or when this node came to lead.
    last: Time,
    /// It has reported to this node.
    reported: bool,
    /// Whether membership says that it is there; nothing when it has said nothing yet.
    seems_alive: Option<bool>,
}

impl Heard {
    fn not_yet(now: Time) -> Self {
        Self { last: now, reported: false, seems_alive: None }
    }

    /// Whether nothing says that it is dead.
    fn may_be_alive(&self) -> bool {
        self.seems_alive != Some(false)
    }

    /// How long it may be silent, and whether it ever told what it is.
    fn lease(self, arrived: bool) -> Duration {
        match self.seems_alive {
            Some(true) => LEASE_WHILE_SEEN,
            Some(false) => LEASE,
            // It was let in and never came.
            None if !arrived => LEASE,
            None => LEASE_WHILE_UNKNOWN,
        }
    }
}

impl Peers {
    pub(crate) fn new(state: &State) -> Self {
        Self { leads: state.cluster.is_none(), heard: BTreeMap::new() }
    }
}

impl Node {
    /// This node leads from now on, or does not any more.
    pub(crate) fn leads(&mut self, leads: bool, step: &mut Step<'_>) {
        if std::mem::replace(&mut self.peers.leads, leads) == leads {
            return;
        }
        if leads {
            // Nobody reported here before: each gets a whole lease, also who was not heard of at all.
            self.peers.heard.values_mut().for_each(|heard| heard.last = step.now);
            self.look_at_peers(step);
            self.look_at_all();
            self.look_at_namespaces(step);
        } else {
            self.timers.clear(&Timer::Namespaces);
            self.timers.clear(&Timer::Peers);
        }
    }

    /// A machine reported to this node, which leads.
    pub(crate) fn heard(&mut self, node: NodeId, step: &mut Step<'_>) {
        let heard = self.peers.heard.entry(node).or_insert(Heard::not_yet(step.now));
        (heard.last, heard.reported) = (step.now, true);
        if self.peers.leads {
            self.welcome(node, step);
        }
    }

    /// Whether a machine that has just been heard may let its singletons run for [`SINGLETON_LEASE`]: not one that is given up, be it
    /// that this is written, or on its way to be. It may not know that yet, and others would start them a moment later.
    pub fn leases(&self, node: NodeId) -> bool {
        let is_up = self.state.nodes.get(&node).is_some_and(|record| record.standing == Standing::Up);
        self.peers.leads && is_up && !self.log.is_under_way(&Purpose::Peer(node))
    }

    fn welcome(&mut self, node: NodeId, step: &mut Step<'_>) {
        let is_lost = self.state.nodes.get(&node).is_some_and(|record| record.standing == Standing::Lost);
        if is_lost && !self.log.is_under_way(&Purpose::Peer(node)) {
            self.propose(Purpose::Peer(node), Command::WelcomeNode { node, wall: step.wall }, step);
        }
    }

    /// Membership sees a machine, or does not.
    pub(crate) fn seems(&mut self, node: NodeId, alive: bool, step: &mut Step<'_>) {
        let heard = self.peers.heard.entry(node).or_insert(Heard::not_yet(step.now));
        let is_news = heard.seems_alive.replace(alive) == Some(!alive);
        if self.peers.leads {
            self.look_at_peers(step);
            if is_news && alive {
                // Stars may go there again.
                self.look_at_all();
            }
        }
        // Requests are sent elsewhere at once, whatever becomes of it.
        let routes_to = self.state.stars.on_node(node).filter(|star| star.phase == StarPhase::Ready);
        let services: BTreeSet<ServiceKey> = routes_to.map(|star| star.service.clone()).collect();
        self.dirty.extend(services);
    }

    /// Whether a machine that the log takes for up was heard of at all since this agent began.
    pub(crate) fn is_known(&self, node: NodeId) -> bool {
        let is = |heard: &Heard| heard.reported || heard.seems_alive.is_some();
        node == self.config.node || self.peers.heard.get(&node).is_some_and(is)
    }

    /// Whether requests may be sent to a machine. One that was not heard of yet gets them: an agent that has just begun would
    /// know of nowhere else to send them.
    pub(crate) fn is_reachable(&self, node: NodeId) -> bool {
        node == self.config.node
            || self.state.nodes.get(&node).is_some_and(|record| record.standing == Standing::Up)
                && self.peers.heard.get(&node).is_none_or(Heard::may_be_alive)
    }

    /// Gives up those whose lease is over, and comes again when the next one's is.
    pub(crate) fn look_at_peers(&mut self, step: &mut Step<'_>) {
        if !self.peers.leads {
            return;
        }
        // It was given up before it came to lead.
        self.welcome(self.config.node, step);
        let mut next: Option<Time> = None;
        let up = self
            .state
            .nodes
            .iter()
            .filter(|(node, record)| record.standing == Standing::Up && **node != self.config.node);
        let mut lost = Vec::new();
        for (node, record) in up {
            let heard = self.peers.heard.entry(*node).or_insert(Heard::not_yet(step.now));
            match heard.last + heard.lease(record.facts.are_told()) {
                at if at <= step.now => lost.push(*node),
                at => next = Some(next.map_or(at, |first| first.min(at))),
            }
        }
        for node in lost {
            if !self.log.is_under_way(&Purpose::Peer(node)) {
                self.propose(Purpose::Peer(node), Command::LoseNode { node, wall: step.wall }, step);
            }
        }
        if let Some(at) = next {
            self.timers.set(Timer::Peers, at);
        }
    }

    /// What was to be written of a machine was not: it is looked at again.
    pub(crate) fn peer_not_written(&mut self, step: &mut Step<'_>) {
        self.timers.set(Timer::Peers, step.now + WRITE_AGAIN);
    }

    pub(crate) fn node_changed(&mut self, node: NodeId, step: &mut Step<'_>) {
        if self.state.nodes.get(&node).is_none_or(|record| record.standing == Standing::Left) {
            self.peers.heard.remove(&node);
        }
        self.look_at_peers(step);
        self.look_at_all();
    }

    pub(crate) fn look_at_all(&mut self) {
        self.dirty.extend(self.state.services.keys().cloned());
        self.dirty.extend(self.state.stars.services().cloned());
    }

    /// Whether the stars of a machine are to move elsewhere.
    pub(crate) fn is_draining(&self, node: NodeId) -> bool {
        self.state.nodes.get(&node).is_some_and(|record| record.duty == Duty::Draining)
    }

    /// The machines that stars of a revision of a service could be on, at all.
    pub(crate) fn machines<'n>(
        &'n self,
        service: &ServiceKey,
        placement: &Placement,
        revision: u64,
    ) -> Vec<NodeView<'n>> {
        let mut views: Vec<NodeView<'n>> = if self.state.cluster.is_none() {
            vec![self.view(self.config.node, None, &self.own_facts)]
        } else {
            let takes = self
                .state
                .nodes
                .iter()
                .filter(|(_, record)| record.takes_stars_of(placement))
                // One that was let in may never come.
                .filter(|(_, record)| record.facts.are_told());
            let mut loads = Along::new(self.state.stars.loads());
            let mut coming = Along::new(self.coming.iter().map(|(node, load)| (*node, load)));
            let view = |(node, record): (&NodeId, &'n NodeRecord)| {
                view(*node, Some(record), &record.facts, [loads.at(node), coming.at(node)])
            };
            takes.map(view).collect()
        };
        let there = self.state.stars_of(service).filter(|star| star.phase != StarPhase::Ended);
        // Those that may not stay where they are go as those of another version do; of each machine that is found out once.
        let (ground, mut may_stay) = (self.ground_of(service), BTreeMap::<NodeId, bool>::new());
        let mut stays = |star: &StarRecord| {
            let here = || ground.revision_on(star.node, revision, false) == revision;
            star.revision == revision
                && star.phase < StarPhase::Draining
                && !star.leaving
                && !star.moves
                && *may_stay.entry(star.node).or_insert_with(here)
        };
        let assigning = self.services.get(service).into_iter().flat_map(|service| &service.assigning);
        let assigning = assigning.map(|(_, node, _, of)| (*node, *of == revision));
        for (node, is_like_it) in there.map(|star| (star.node, stays(star))).chain(assigning) {
            // They are in the order of their numbers.
            if let Ok(place) = views.binary_search_by_key(&node, |view| view.node) {
                let view = &mut views[place];
                *(if is_like_it { &mut view.of_service } else { &mut view.others }) += 1;
            }
        }
        for (node, other) in self.apart_there(service, placement) {
            if let Ok(place) = views.binary_search_by_key(&node, |view| view.node) {
                views[place].apart = Some(other);
            }
        }
        self.count_claims(service, revision, &mut views);
        views
    }

    /// A machine without what the service at hand has there.
    pub(crate) fn view<'v>(
        &'v self,
        node: NodeId,
        record: Option<&'v NodeRecord>,
        facts: &'v NodeFacts,
    ) -> NodeView<'v> {
        view(node, record, facts, [self.state.stars.load_of(node), self.coming.get(&node)])
    }

    /// The machines that get stars of a service now: not one whose nursery is away, and where its volumes lie, if it
    /// has any.
    pub(crate) fn candidates(&self, request: &PlanRequest<'_>, revision: u64) -> Vec<NodeView<'_>> {
        self.candidates_among(request, self.machines(request.service, request.placement, revision))
    }

    /// The same of these.
    pub(crate) fn candidates_among<'v>(
        &'v self,
        request: &PlanRequest<'_>,
        mut views: Vec<NodeView<'v>>,
    ) -> Vec<NodeView<'v>> {
        let PlanRequest { service, template, .. } = *request;
        let homes: BTreeSet<NodeId> =
            State::volumes_of(service, template).filter_map(|volume| self.state.homes.get(&volume).copied()).collect();
        self.count_places(request, &mut views);
        let all = request.placement.max_skew.map(|_| views.clone());
        let mut heard = Along::new(self.peers.heard.iter().map(|(node, heard)| (*node, heard)));
        views.retain(|view| {
            // Those that the log does not take for up are not among them.
            let can_order = match view.node == self.config.node {
                true => self.nursery_up,
                false => heard.at(&view.node).is_none_or(Heard::may_be_alive),
            };
            can_order && homes.iter().all(|home| *home == view.node)
        });
        if let Some(local) = self.services.get(service).filter(|local| !local.shuns.is_empty()) {
            let is_shunned = |node| local.shuns.get(&node).is_some_and(|shun| shun.failures(self.now).is_some());
            views.iter_mut().for_each(|view| view.shunned = is_shunned(view.node));
        }
        let left = self.left_by_moves(service);
        views.retain(|view| !left.contains(&view.node));
        // What has no home yet gets one: all its stars go there together.
        if homes.is_empty() && !template.volumes.is_empty() {
            let may = views.iter().filter(|view| scheduler::reasons(view, request).is_empty());
            let first = may.min_by_key(|view| (view.of_service, view.stars, view.node)).map(|view| view.node);
            // When none may, why is to be seen of all.
            views.retain(|view| first.is_none_or(|first| view.node == first));
        }
        if let Some(mut all) = all {
            // Both are in the order of their numbers.
            let planned = |node| views.binary_search_by_key(&node, |view| view.node).is_ok();
            scheduler::count_crowds(&mut all, request, planned);
            for view in &mut views {
                let known = all.binary_search_by_key(&view.node, |view| view.node);
                view.crowd = known.ok().and_then(|place| all[place].crowd);
            }
        }
        views
    }
}

/// A machine without what the service at hand has there. `loads`: what runs there, and what comes.
fn view<'v>(
    node: NodeId,
    record: Option<&'v NodeRecord>,
    facts: &'v NodeFacts,
    loads: [Option<&'v Load>; 2],
) -> NodeView<'v> {
    let [load, _] = loads;
    NodeView {
        node,
        name: record.map(|record| &record.name),
        facts,
        taints: record.map(|record| &record.taints),
        closed: None,
        others: 0,
        apart: None,
        shunned: false,
        stars: loads.into_iter().flatten().map(|load| load.stars).sum(),
        of_service: 0,
        crowd: None,
        promised_memory: Bytes(load.map_or(0, |load| load.memory)),
        promised_cpu: load.map_or(0, |load| load.cpu),
        places: None,
        kept: loads.into_iter().flatten().fold(Kept::default(), |kept, load| kept.and(load.kept)),
        ports: loads.map(|load| load.map(|load| &load.ports)),
    }
}

impl NodeConfig {
    /// What the machine says of itself, beyond what its owner says of it.
    pub fn facts(&self) -> model::NodeFacts {
        let (memory, cores, cpus, rootless) = (self.memory, self.cores, self.cpus, self.rootless);
        let program = env!("CARGO_PKG_VERSION").to_owned();
        model::NodeFacts { memory, cores, cpus, rootless, program, ..model::NodeFacts::default() }
    }
}
