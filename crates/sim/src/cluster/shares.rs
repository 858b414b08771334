//! What machines keep for stars and what a namespace may have, added up once more, without the counters of the state.

use model::{
    Bytes, Kept, Millicores, NodeFacts, NodeId, Quota, QuotaChange, Reserve, RolloutTurn, ServiceKey, StarId, StarPhase,
};
use state::{Command, NodeRecord, ServiceRecord, StarRecord, State};

use super::world::{Bug, World};

/// What every machine has. What is kept for itself leaves room for two of the largest stars.
pub(crate) fn facts() -> NodeFacts {
    let reserved = Reserve { cpu: Millicores(200), memory: Bytes::mib(512) };
    NodeFacts { memory: Bytes::mib(4_096), cores: 2, reserved, ..NodeFacts::default() }
}

/// What the services of all namespaces ask for; all are in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    services: u64,
    stars: u64,
    memory: u64,
}

impl Asked {
    pub(crate) fn of(state: &State) -> Self {
        let specs = || state.services.values().map(|record| &record.spec);
        // That it is so many as there are machines for it is seen by where its stars are.
        let stars = |record: &ServiceRecord| u64::from(record.everywhere.unwrap_or(record.spec.instances));
        let places = specs().find(|spec| spec.hold.is_some()).map(|spec| spec.template.reserve.memory.0);
        // What a place has is asked for by the reservation.
        let memory = |spec: &model::ServiceSpec| match (&spec.hold, &spec.placement.reservation) {
            (Some(_), _) => spec.template.reserve.memory.0,
            (None, within) => {
                let given = places.filter(|_| within.is_some()).unwrap_or_default();
                spec.template.limits.memory.map_or(0, |memory| memory.0.saturating_sub(given))
            }
        };
        Self {
            services: specs().count() as u64,
            stars: state.services.values().map(stars).sum(),
            memory: state.services.values().map(|record| memory(&record.spec) * stars(record)).sum(),
        }
    }
}

impl World {
    /// What is written of a command: all of it, unless a protection is taken away. What was asked for is remembered.
    pub(crate) fn as_written(&mut self, command: Command) -> Command {
        let Command::SetNamespace { change, .. } = command.bare() else { return command };
        self.quota = change.quota.of(&self.quota);
        match command {
            Command::SetNamespace { namespace, mut change, new, wall } if self.options.bug == Some(Bug::NoQuota) => {
                change.quota = QuotaChange::default();
                Command::SetNamespace { namespace, change, new, wall }
            }
            command => command,
        }
    }

    /// After every entry: nothing is kept twice, and nothing grows beyond a quota. Not so with machines, of which each has a star of some
    /// services; and a version that comes back, since the next failed or was aborted, counts as it did when it came first.
    pub(crate) fn check_shares(&mut self, before: Asked, command: &Command) {
        let may_grow = match command.bare() {
            Command::SettleRollout { .. }
            | Command::AdmitNode { .. }
            | Command::DescribeNode { .. }
            | Command::WelcomeNode { .. }
            | Command::SetDuty { .. }
            | Command::SetTaint { .. } => true,
            Command::TurnRollout { turn, .. } => *turn == RolloutTurn::Abort,
            _ => false,
        };
        let room = facts().room();
        let over = self.truth.nodes.keys().find(|node| {
            let kept = self.kept_on(**node);
            room.0.is_some_and(|room| kept.cpu > room) || room.1.is_some_and(|room| kept.memory > room)
        });
        if let Some(node) = over.copied() {
            let kept = self.kept_on(node);
            self.must(false, &format!("no more is kept on {node} than it has: {kept:?}"));
        }
        let (after, Quota { services, instances, memory, .. }) = (Asked::of(&self.truth), self.quota);
        for (what, most, before, after) in [
            ("services", services.map(u64::from), before.services, after.services),
            ("stars", instances.map(u64::from), before.stars, after.stars),
            ("memory", memory.map(|memory| memory.0), before.memory, after.memory),
        ] {
            let may_grow = may_grow && what != "services";
            let within = may_grow || most.is_none_or(|most| after <= most || after <= before);
            self.must(within, &format!("{what} do not grow beyond a quota: {before} to {after} of {most:?}"));
        }
    }

    pub(crate) fn kept_on(&self, node: NodeId) -> Kept {
        let runs = |star: &&StarRecord| star.phase != StarPhase::Ended;
        let is_held = |place: &StarId| self.truth.stars.get(place).as_ref().is_some_and(runs);
        let there = self.truth.stars.values().filter(|star| star.node == node).filter(runs);
        // What is in a place has what that keeps.
        let there = there.filter(|star| !star.place.as_ref().is_some_and(is_held));
        there.fold(Kept::default(), |kept, star| kept.with(&star.template.reserve, 1))
    }

    /// There is one reservation.
    fn has_free_place(&self, node: NodeId, reserve: &Reserve) -> bool {
        let stars = || self.truth.stars.values().filter(|star| star.phase != StarPhase::Ended);
        let has_one = |place: &StarRecord| stars().any(|star| star.place == Some(place.id));
        let is_large = |star: &StarRecord| reserve.is_within(&star.template.reserve);
        stars().any(|star| star.is_place() && star.node == node && is_large(star) && !has_one(star))
    }

    /// Whether a machine has room for one more star of a service.
    pub(crate) fn has_room(&self, key: &ServiceKey, id: NodeId, node: &NodeRecord) -> bool {
        let Some(record) = self.truth.services.get(key) else { return true };
        if record.spec.placement.reservation.is_some() {
            return self.has_free_place(id, &record.spec.template.reserve);
        }
        node.facts.lacks(self.kept_on(id), &record.spec.template.reserve).is_none()
    }
}
