//! What machines keep for stars and what a namespace may have, added up once more, without the counters of the state.

use model::{
    Bytes, Kept, Millicores, NodeFacts, NodeId, Quota, QuotaChange, Reserve, RolloutTurn, ServiceKey, StarId, StarPhase,
};
use state::{Command, NodeRecord, StarRecord, State};

use super::world::{Bug, World};

/// What every machine has. What is kept for itself leaves room for two of the largest stars.
pub(crate) fn facts() -> NodeFacts {
    let reserved = Reserve { cpu: Millicores(200), memory: Bytes::mib(512) };
    NodeFacts { memory: Bytes::mib(4_096), cores: 2, reserved, ..NodeFacts::default() }
}

/// What the services of all namespaces ask for; all are in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Needs {
    services: u64,
    stars: u64,
    memory: u64,
}

/// Those of services with a star on each machine apart from the others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Demand {
    everywhere: Needs,
    others: Needs,
}

impl Needs {
    fn add(&mut self, stars: u32, memory: u64) {
        self.services += 1;
        self.stars += u64::from(stars);
        self.memory += memory * u64::from(stars);
    }

    fn and(self, other: Self) -> Self {
        let Self { services, stars, memory } = other;
        Self { services: self.services + services, stars: self.stars + stars, memory: self.memory + memory }
    }
}

impl Demand {
    pub(crate) fn of(state: &State) -> Self {
        let mut specs = state.services.values().map(|record| &record.spec);
        let places = specs.find(|spec| spec.hold.is_some()).map(|spec| spec.template.reserve.memory.0);
        // What a place has is asked for by the reservation.
        let memory = |spec: &model::ServiceSpec| match (&spec.hold, &spec.placement.reservation) {
            (Some(_), _) => spec.template.reserve.memory.0,
            (None, within) => {
                let given = places.filter(|_| within.is_some()).unwrap_or_default();
                spec.template.limits.memory.map_or(0, |memory| memory.0.saturating_sub(given))
            }
        };
        let mut asked = Self::default();
        for record in state.services.values() {
            let memory = memory(&record.spec);
            match record.everywhere {
                // That it is so many as there are machines for it is seen by where its stars are.
                Some(machines) => asked.everywhere.add(machines, memory),
                None => asked.others.add(record.spec.instances, memory),
            }
        }
        asked
    }

    fn all(self) -> Needs {
        self.everywhere.and(self.others)
    }
}

/// Why more may be asked for than a quota allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Excuse {
    /// A machine has come: each has a star of some services.
    Machine,
    /// A version came back that counts as it did when it came first.
    Return,
}

fn excuse(command: &Command) -> Option<Excuse> {
    match command {
        Command::AdmitNode { .. }
        | Command::DescribeNode { .. }
        | Command::WelcomeNode { .. }
        | Command::SetDuty { .. }
        | Command::SetTaint { .. } => Some(Excuse::Machine),
        Command::SettleRollout { .. } | Command::TurnRollout { turn: RolloutTurn::Abort, .. } => Some(Excuse::Return),
        _ => None,
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

    /// After every entry: nothing is kept twice, and nothing grows beyond a quota.
    pub(crate) fn check_shares(&mut self, before: Demand, command: &Command) {
        let room = facts().room();
        let over = self.truth.nodes.keys().find(|node| {
            let kept = self.kept_on(**node);
            room.0.is_some_and(|room| kept.cpu > room) || room.1.is_some_and(|room| kept.memory > room)
        });
        if let Some(node) = over.copied() {
            let kept = self.kept_on(node);
            self.must(false, &format!("no more is kept on {node} than it has: {kept:?}"));
        }
        let after = Demand::of(&self.truth);
        let excuse = excuse(command.bare());
        let (was, is) = match excuse {
            Some(Excuse::Machine) => (before.others, after.others),
            _ => (before.all(), after.all()),
        };
        let Quota { services, instances, memory, burst, .. } = self.quota;
        let with_burst = |own: u64| own + own * u64::from(burst.unwrap_or_default()) / 100;
        let returns = excuse == Some(Excuse::Return);
        // As many stars as it had: another number only where one of the two versions is on each machine.
        let stars_return = returns && before.everywhere.services != after.everywhere.services;
        for (what, most, before, after, may_grow) in [
            ("services", services.map(u64::from), was.services, is.services, false),
            ("stars", instances.map(|stars| with_burst(stars.into())), was.stars, is.stars, stars_return),
            ("memory", memory.map(|memory| with_burst(memory.0)), was.memory, is.memory, returns),
        ] {
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
