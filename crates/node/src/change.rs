//! Requests for changes, from the first look to the proposal.
//!
//! The entry points that a change of an app needs are opened before it is proposed: when a port is taken, the answer is
//! a problem and nothing has changed. When the change is refused later, they become what they were.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use model::{
    AppSpec, Code, Condition, Entry, Kept, LimitsChange, Once, Problem, RequestId, ServiceKey, ServiceSpec, WallTime,
};
use scheduler::{Closed, NodeView, Request as PlanRequest, Unfit, check, reasons};
use state::rollouts::version_to_return;
use state::{Author, Command, check_put};

use crate::event::{Effect, Reply, Request};
use crate::log::Purpose;
use crate::node::{Node, Step};
use crate::timers::Timer;

/// Between two tries to open an entry point of a service that runs already: after a restart the port may be taken.
const LISTEN_AGAIN: Duration = Duration::from_secs(2);

/// A change of an app that waits for its entry points.
#[derive(Debug)]
pub(crate) struct PendingPut {
    id: RequestId,
    author: Option<Author>,
    spec: AppSpec,
    base: Option<u64>,
    once: Option<Once>,
    /// How many answers each entry point still owes.
    waiting: BTreeMap<ServiceKey, u32>,
    problem: Option<Problem>,
}

fn refuse(id: RequestId, problem: Problem, step: &mut Step<'_>) {
    step.effects.push(Effect::Reply { id, result: Err(problem) });
}

/// The command as it is written, if it is to be applied once.
fn under(once: Option<Once>, command: Command, wall: WallTime) -> Command {
    match once {
        Some(once) => Command::Keyed { once, command: Box::new(command), wall, answer: None },
        None => command,
    }
}

/// A command with who asks for it, when that is known.
pub(crate) fn by(author: Option<Author>, command: Command, wall: WallTime) -> Command {
    match author {
        Some(author) => Command::By { author, command: Box::new(command), wall },
        None => command,
    }
}

impl Node {
    pub(crate) fn request(&mut self, id: RequestId, request: Request, step: &mut Step<'_>) {
        let wall = step.wall;
        let (request, once) = match request {
            Request::Once { once, request } => (*request, Some(once)),
            request => (request, None),
        };
        let (request, author) = match request {
            Request::By { author, request } => (*request, Some(author)),
            request => (request, None),
        };
        // What it was planned against has changed by itself: it is not looked at again.
        if let Some(outcome) = once.as_ref().and_then(|once| self.state.keys.outcome(once)) {
            step.effects.push(Effect::Reply { id, result: outcome.map(|index| Reply { index }) });
            return;
        }
        let command = match request {
            Request::Once { .. } => {
                return refuse(id, Problem::new(Code::InvalidValue, "a change has one idempotency key"), step);
            }
            Request::By { .. } => {
                return refuse(id, Problem::new(Code::Internal, "a request has one author"), step);
            }
            Request::Note { author, deed } => {
                let note = under(once, Command::Note { author, deed, wall }, wall);
                return self.propose(Purpose::Request(id), note, step);
            }
            Request::PutApp { spec, base } => return self.put_app(id, author, once, spec, base, step),
            Request::RemoveApp { app } => Command::RemoveApp { app, wall },
            Request::Scale { service, instances } => Command::Scale { service, instances, wall },
            Request::Limit { service, change } => match self.check_limits(&service, &change) {
                Ok(()) => Command::Limit { service, change, wall },
                Err(problem) => return refuse(id, problem, step),
            },
            Request::SetDuty { node, duty } => match self.check_cluster() {
                Ok(()) => Command::SetDuty { node, duty, wall },
                Err(problem) => return refuse(id, problem, step),
            },
            Request::SetTaint { node, name, taint } => match self.check_cluster() {
                Ok(()) => Command::SetTaint { node, name, taint, wall },
                Err(problem) => return refuse(id, problem, step),
            },
            Request::SetOvercommit { node, overcommit } => match node.map_or(Ok(()), |_| self.check_cluster()) {
                Ok(()) => Command::SetOvercommit { node, overcommit, wall },
                Err(problem) => return refuse(id, problem, step),
            },
            Request::RemoveNode { node, force } => match self.check_removal(node, force) {
                Ok(()) => Command::RemoveNode { node, wall },
                Err(problem) => return refuse(id, problem, step),
            },
            Request::Restart { service } => Command::Restart { service, wall },
            Request::RunJob { service } => Command::BeginRun { service, slot: None, wall },
            Request::TurnRollout { service, turn } => Command::TurnRollout { service, turn, wall },
            Request::Rollback { service, version } => match self.check_return(&service, version) {
                Ok(()) => Command::Rollback { service, version, wall },
                Err(problem) => return refuse(id, problem, step),
            },
            Request::Pause { service } => Command::Pause { service, wall },
            Request::Resume { service } => Command::Resume { service, wall },
            Request::StopService { service } => Command::Stop { service, wall },
            Request::StartService { service } => Command::Start { service, wall },
            Request::RemoveService { service } => Command::RemoveService { service, wall },
            Request::StopStar { service, ordinal } => Command::StopStar { service, ordinal, wall },
            Request::StartStar { service, ordinal } => Command::StartStar { service, ordinal, wall },
            Request::RestartStar { service, ordinal } => Command::RestartStar { service, ordinal, wall },
            Request::MoveStar { service, ordinal } => Command::MoveStar { service, ordinal, wall },
            Request::SetSecret { secret, sealed } => Command::SetSecret { secret, sealed, wall },
            Request::DeleteSecret { secret } => Command::DeleteSecret { secret, wall },
            Request::DeleteVolume { volume } => Command::DeleteVolume { volume, wall },
            Request::SetNamespace { namespace, change, new } => Command::SetNamespace { namespace, change, new, wall },
            Request::DeleteNamespace { namespace, force } => Command::DeleteNamespace { namespace, force, wall },
            Request::NoteSecret { secret, change } => Command::SecretChanged { secret, change, wall },
            Request::NoteRead { secrets, uid, star } => Command::SecretsRead { secrets, uid, star, wall },
        };
        self.propose(Purpose::Request(id), under(once, by(author, command, wall), wall), step);
    }

    fn put_app(
        &mut self,
        id: RequestId,
        author: Option<Author>,
        once: Option<Once>,
        spec: AppSpec,
        base: Option<u64>,
        step: &mut Step<'_>,
    ) {
        if once.is_some() && self.is_being_put_once(once.as_ref()) {
            let problem = Problem::new(Code::Unavailable, "this very change is under way").after_changes();
            return refuse(id, problem.help("ask again in a moment, under the same key"), step);
        }
        if let Err(problem) = self.check_app(&spec, base) {
            return refuse(id, problem, step);
        }
        let changed = |key: &ServiceKey, entry: &Entry| {
            let is_open = self.services.get(key).is_some_and(|service| service.address.is_some());
            !is_open || self.entry_of(key) != Some(entry)
        };
        let entries: Vec<(ServiceKey, Entry)> = spec
            .services
            .iter()
            .filter_map(|(name, service)| Some((spec.service_key(name), service.entry.clone()?)))
            .filter(|(key, entry)| changed(key, entry))
            .collect();
        let waiting = entries.iter().map(|(key, _)| (key.clone(), 1)).collect();
        for (service, entry) in entries {
            step.effects.push(Effect::Listen { service, entry });
        }
        self.puts.push(PendingPut { id, author, spec, base, once, waiting, problem: None });
        self.settle_puts(step);
    }

    /// What can be known before anything is done: a refusal that comes later has closed and opened doors for nothing.
    pub(crate) fn check_app(&self, spec: &AppSpec, base: Option<u64>) -> Result<(), Problem> {
        check_put(&self.state, spec, base)?;
        for (name, service) in &spec.services {
            let key = spec.service_key(name);
            self.check_fits(&key, service)?;
            let is_over = service.hold.is_some_and(|hold| hold.is_over(self.wall));
            if is_over && !self.state.services.contains_key(&key) {
                let problem =
                    Problem::new(Code::InvalidValue, format!("the time of reservation `{name}` is over already"));
                return Err(problem.help("say another `until`, or leave the reservation out"));
            }
            if let Some(schedule) = service.job.as_ref().and_then(|job| job.schedule.as_ref()) {
                calendar::Calendar::new(&schedule.cron, &schedule.zone)?;
            }
            // Two changes of the same doors at once, and undoing the one would close what the other opened: the second is
            // told, until the first is written or refused.
            if self.is_being_put(&key) {
                let message = format!("another change of service `{key}` is under way");
                return Err(Problem::new(Code::Conflict, message).help("try again in a moment"));
            }
        }
        Ok(())
    }

    fn check_limits(&self, service: &ServiceKey, change: &LimitsChange) -> Result<(), Problem> {
        // One that is not there is refused when the command is applied.
        let Some(record) = self.state.services.get(service) else { return Ok(()) };
        let mut spec = record.spec.clone();
        spec.template.limits = change.of(&spec.template.limits);
        self.check_fits(service, &spec)
    }

    /// Whether there is a machine for what a service would be again.
    fn check_return(&self, service: &ServiceKey, version: Option<u64>) -> Result<(), Problem> {
        let Some(record) = self.state.services.get(service) else { return Ok(()) };
        let number = version_to_return(service, record, version)?;
        record.version(number).map_or(Ok(()), |kept| self.check_fits(service, &kept.spec))
    }

    /// Whether there is a machine for it at all. What is there already makes no difference: it may be what is replaced,
    /// or end before.
    fn check_fits(&self, service: &ServiceKey, spec: &ServiceSpec) -> Result<(), Problem> {
        let ServiceSpec { template, placement, .. } = spec;
        let mut machines = self.machines(service, placement, 0);
        // One of which nothing is heard may be back before the star is wanted.
        machines.extend(self.closed(service, placement).into_iter().filter(|view| view.closed != Some(Closed::Silent)));
        machines.iter_mut().for_each(|view| (view.of_service, view.others, view.kept) = (0, 0, Kept::default()));
        let request = PlanRequest { service, template, placement, ordinals: &[] };
        check(&machines, &request).map_err(|problem| {
            // What is asked for is not there yet, and cannot be explained.
            let closed = |view: &NodeView<'_>| match reasons(view, &request)[..] {
                [Unfit::Closed(closed)] => Some((closed, view.name?.clone())),
                _ => None,
            };
            match machines.iter().find_map(closed) {
                Some((Closed::Dead | Closed::Silent, node)) => problem.help(format!("switch `{node}` on again: `rads c nodes`")),
                Some((_, node)) => problem.help(format!("`rads c uncordon {node}` lets stars come to it")),
                None if placement.require.is_empty() => problem,
                None => {
                    let has = |label: &&str| machines.iter().any(|view| view.facts.labels.contains_key(*label));
                    let unknown = placement.require.iter().filter_map(Condition::label).find(|label| !has(label));
                    problem.help(match unknown {
                        Some(label) => format!(
                            "no node has a label `{label}`: they are given by `--label` when one is founded or joins; without labels there \
                             are `node`, `region`, `zone`, `rack`, `cores`, `memory_mb` and `version`"
                        ),
                        None => "`rads c nodes` shows where nodes are; labels are given by `--label` when one is founded or joins".to_owned(),
                    })
                }
            }
        })
    }

    /// A change of the service waits for its entry point or is being written.
    fn is_being_put(&self, key: &ServiceKey) -> bool {
        let mut under_way = self.puts.iter().map(|put| &put.spec).chain(self.log.puts());
        under_way.any(|spec| spec.app.namespace == key.namespace && spec.services.contains_key(&key.name))
    }

    fn is_being_put_once(&self, once: Option<&Once>) -> bool {
        self.puts.iter().any(|put| put.once.as_ref() == once) || self.log.under_keys().any(|key| Some(key) == once)
    }

    fn entry_of(&self, key: &ServiceKey) -> Option<&Entry> {
        self.state.services.get(key)?.spec.entry.as_ref()
    }

    pub(crate) fn listening(&mut self, key: ServiceKey, result: Result<SocketAddr, Problem>, step: &mut Step<'_>) {
        let mut put = self.puts.iter_mut().find(|put| put.waiting.contains_key(&key));
        let is_put = put.is_some();
        if let Some(put) = &mut put {
            match put.waiting.get_mut(&key) {
                Some(owed) if *owed > 1 => *owed -= 1,
                _ => drop(put.waiting.remove(&key)),
            }
        }
        match (result, put) {
            (Ok(address), _) => {
                // A service to be is remembered by its address already.
                let service = self.services.entry(key.clone()).or_default();
                service.address = Some(address);
                service.listen_problem = None;
            }
            (Err(problem), Some(put)) => {
                put.problem.get_or_insert(problem);
            }
            (Err(problem), None) => {
                if let Some(service) = self.services.get_mut(&key) {
                    service.address = None;
                    service.listen_problem = Some(problem.message);
                    self.timers.set(Timer::Listen(key.clone()), step.now + LISTEN_AGAIN);
                }
            }
        }
        if is_put {
            self.settle_puts(step);
        } else if self.entry_of(&key).is_none() && !self.is_being_put(&key) {
            // It was removed while the door was being opened.
            step.effects.push(Effect::Unlisten { service: key.clone() });
            if let Some(service) = self.services.get_mut(&key) {
                service.address = None;
            }
            self.dirty.insert(key);
        }
    }

    /// Proposes what waits for nothing any more, or says why not.
    fn settle_puts(&mut self, step: &mut Step<'_>) {
        while let Some(at) = self.puts.iter().position(|put| put.waiting.is_empty()) {
            let put = self.puts.remove(at);
            match put.problem {
                None => {
                    let command = Command::PutApp { spec: put.spec, base: put.base, wall: step.wall };
                    let command = under(put.once, by(put.author, command, step.wall), step.wall);
                    self.propose(Purpose::Request(put.id), command, step);
                }
                Some(problem) => {
                    self.undo_listening(&put.spec, step);
                    step.effects.push(Effect::Reply { id: put.id, result: Err(problem) });
                }
            }
        }
    }

    /// Makes the entry points of an app what the state says, after a change that did not come to be.
    pub(crate) fn undo_listening(&mut self, spec: &AppSpec, step: &mut Step<'_>) {
        for (name, wanted) in &spec.services {
            let service = spec.service_key(name);
            let entry = self.entry_of(&service).cloned();
            if wanted.entry.is_none() || entry == wanted.entry {
                continue;
            }
            match entry {
                Some(entry) => step.effects.push(Effect::Listen { service, entry }),
                None => {
                    step.effects.push(Effect::Unlisten { service: service.clone() });
                    if let Some(local) = self.services.get_mut(&service) {
                        local.address = None;
                    }
                    self.dirty.insert(service);
                }
            }
        }
    }

    /// Closes the entry point of a service that was removed. A change that was opening it at that moment, to bring the
    /// service back, opens it again.
    pub(crate) fn unlisten(&mut self, key: &ServiceKey, step: &mut Step<'_>) {
        step.effects.push(Effect::Unlisten { service: key.clone() });
        for put in &mut self.puts {
            let entry = put.spec.services.get(&key.name).and_then(|service| service.entry.clone());
            if let (Some(owed), Some(entry)) = (put.waiting.get_mut(key), entry) {
                *owed += 1;
                step.effects.push(Effect::Listen { service: key.clone(), entry });
            }
        }
    }

    /// Asks for the entry point of a service, if it has one.
    pub(crate) fn listen_again(&mut self, key: &ServiceKey, step: &mut Step<'_>) {
        if let Some(entry) = self.entry_of(key) {
            step.effects.push(Effect::Listen { service: key.clone(), entry: entry.clone() });
        }
    }
}
