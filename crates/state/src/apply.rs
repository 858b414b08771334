//! From a command to a changed state.

use std::sync::Arc;

use model::app::INSTANCES_MAX;
use model::limits::limits_difference;
use model::taint;
use model::{
    AppKey, AppSpec, Code, Exit, LimitsChange, Name, NodeId, Placement, Problem, Program, RestartPolicy, RunOutcome,
    SecretChange, SecretKey, ServiceKey, ServiceSpec, StarId, StarPhase, StarTemplate, Turn, VolumeKey, WallTime,
};

use crate::audit::{Deed, Outcome};
use crate::command::{Assignment, Command, Transition};
use crate::record::{About, AppRecord, NodeRecord, ServiceRecord, StarRecord, State};
use crate::{
    access, audit, everywhere, holds, jobs, keys, moves, namespaces, nodes, rollouts, secrets, security, single,
    volumes,
};

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    AppPut {
        app: AppKey,
    },
    AppRemoved {
        app: AppKey,
    },
    /// The service is new or its spec, revision or stop mark changed.
    ServicePut {
        service: ServiceKey,
    },
    /// A roll-out of it is over, or goes on otherwise, or there are more machines for it or fewer; what its stars are to be is what it was.
    RolloutMoved {
        service: ServiceKey,
    },
    ServiceRemoved {
        service: ServiceKey,
    },
    StarAssigned {
        star: StarId,
    },
    StarMoved {
        star: StarId,
        phase: StarPhase,
    },
    /// It may use more or less from now on.
    StarLimited {
        star: StarId,
    },
    StarForgotten {
        star: StarId,
        service: ServiceKey,
    },
    /// A star is to move, or is not any more.
    StarToMove {
        star: StarId,
    },
    /// It was stopped by its name, or restarted, and is to go.
    StarLeaves {
        star: StarId,
    },
    /// Somebody has seen to the star of this number; whether it is the next that comes.
    PlaceChanged {
        service: ServiceKey,
        ordinal: u32,
        comes: bool,
    },
    /// It lies on a node from here on.
    VolumePlaced {
        volume: VolumeKey,
    },
    /// It is out of reach for good, or was deleted.
    VolumeLost {
        volume: VolumeKey,
    },
    SecretSet {
        secret: SecretKey,
    },
    SecretDeleted {
        secret: SecretKey,
    },
    /// Something else is said of it than before.
    NamespaceChanged {
        namespace: Name,
    },
    /// It went, with its apps and secrets.
    NamespaceRemoved {
        namespace: Name,
    },
    /// A node came, went, or is other than it was.
    NodeChanged {
        node: NodeId,
    },
    /// How often what machines have may be kept for stars, and that of these nodes.
    OvercommitChanged {
        nodes: Vec<NodeId>,
    },
    /// Who may come in, or who is believed, is other than it was.
    SecurityChanged,
    /// It was applied before, at this index, and is not again.
    Repeated {
        index: u64,
    },
    /// The command, or this part of it, changed nothing.
    Refused {
        problem: Problem,
    },
}

/// Applies one command of the log. `index` grows from command to command; a shared log has entries of its own in between.
pub fn apply(state: &mut State, index: u64, command: &Command) -> Vec<Change> {
    state.index = index;
    let mut changes = Vec::new();
    let result = match command {
        Command::PutApp { spec, base, wall } => put_app(state, spec, *base, *wall, &mut changes),
        Command::RemoveApp { app, wall } => remove_app(state, app, *wall, &mut changes),
        Command::Scale { service, instances, wall } => scale(state, service, *instances, *wall, &mut changes),
        Command::Limit { service, change, wall } => limit(state, service, change, *wall, &mut changes),
        Command::Restart { service, wall } => restart(state, service, *wall, &mut changes),
        Command::Stop { service, wall } => set_stopped(state, service, true, *wall, &mut changes),
        Command::Start { service, wall } => set_stopped(state, service, false, *wall, &mut changes),
        Command::Pause { service, wall } => pause(state, service, *wall, &mut changes),
        Command::Resume { service, wall } => resume(state, service, *wall, &mut changes),
        Command::StopStar { service, ordinal, wall } => {
            single::turn(state, service, *ordinal, single::Turn::Stop, *wall, &mut changes)
        }
        Command::StartStar { service, ordinal, wall } => {
            single::turn(state, service, *ordinal, single::Turn::Start, *wall, &mut changes)
        }
        Command::RestartStar { service, ordinal, wall } => {
            single::turn(state, service, *ordinal, single::Turn::Restart, *wall, &mut changes)
        }
        Command::MoveStar { service, ordinal, wall } => moves::begin(state, service, *ordinal, *wall, &mut changes),
        Command::EndMove { stars, wall } => moves::end(state, stars, *wall, &mut changes),
        Command::RemoveService { service, wall } => single::remove_service(state, service, *wall, &mut changes),
        Command::Assign { stars, wall } => {
            for star in stars {
                let change = assign(state, star, *wall, &mut changes);
                changes.push(change);
            }
            Ok(())
        }
        Command::Transitions { changes: transitions, wall } => {
            for transition in transitions {
                let moved = transit(state, transition, *wall, &mut changes);
                changes.extend(moved);
            }
            Ok(())
        }
        Command::Retire { stars, wall } => {
            stars.iter().for_each(|star| holds::retire(state, *star, *wall, &mut changes));
            Ok(())
        }
        Command::TurnHold { service, wall } => holds::turn(state, service, *wall, &mut changes),
        Command::Preempt { service, stars, wall } => preempt(state, service, stars, *wall, &mut changes),
        Command::SetTaint { node, name, taint, wall } => {
            nodes::set_taint(state, *node, name, taint.as_ref(), *wall, &mut changes)
        }
        Command::SetOvercommit { node, overcommit, wall } => {
            nodes::set_overcommit(state, *node, *overcommit, *wall, &mut changes)
        }
        Command::Forget { stars } => {
            stars.iter().for_each(|star| changes.extend(forget(state, *star)));
            Ok(())
        }
        Command::SecretChanged { secret, change, wall } => {
            let what = match change {
                SecretChange::Created => "set",
                SecretChange::Replaced => "set anew",
                SecretChange::Deleted => "deleted",
            };
            state.record(*wall, format!("secret `{secret}` {what}"));
            if *change == SecretChange::Replaced {
                rollouts::secret_changed(state, secret, *wall, &mut changes);
            }
            Ok(())
        }
        Command::SecretsRead { secrets, uid, star, wall } => {
            let names = secret_names(secrets);
            match star {
                None => state.record(*wall, format!("{names} read by uid {uid}")),
                Some((service, star)) => {
                    let about = About::star(state, service, star);
                    state.record_of(about, *wall, format!("uid {uid} went into star `{star}`, which has {names}"));
                }
            }
            Ok(())
        }
        Command::Found { cluster, name, address, facts, wall } => {
            nodes::found(state, cluster, name, address, facts, *wall, &mut changes)
        }
        Command::AdmitNode { name, role, address, facts, wall, ticket } => {
            nodes::admit(state, name, *role, address, facts, *wall, *ticket, &mut changes)
        }
        Command::DescribeNode { node, address, facts, .. } => {
            nodes::describe(state, *node, address, facts, &mut changes)
        }
        Command::LoseNode { node, wall } => nodes::lose(state, *node, *wall, &mut changes),
        Command::WelcomeNode { node, wall } => nodes::welcome(state, *node, *wall, &mut changes),
        Command::RemoveNode { node, wall } => nodes::remove(state, *node, *wall, &mut changes),
        Command::SetDuty { node, duty, wall } => nodes::set_duty(state, *node, *duty, *wall, &mut changes),
        Command::SetAuthorities { authorities, lifetime_days, base, wall } => {
            security::set_authorities(state, authorities, *lifetime_days, *base, *wall, &mut changes)
        }
        Command::AddTicket { ticket, wall } => security::add_ticket(state, ticket, *wall, &mut changes),
        Command::RemoveTicket { hash, wall } => security::remove_ticket(state, *hash, *wall, &mut changes),
        Command::NoteCertificate { node, certificate, by, wall } => {
            security::note_certificate(state, *node, certificate, *by, *wall, &mut changes)
        }
        Command::UseCertificate { node, serial, wall } => {
            security::use_certificate(state, *node, *serial, *wall, &mut changes)
        }
        Command::SetSecret { secret, sealed, wall } => secrets::set(state, secret, sealed, *wall, &mut changes),
        Command::DeleteSecret { secret, wall } => secrets::delete(state, secret, *wall, &mut changes),
        Command::RevokeCertificates { node, wall } => security::revoke(state, *node, *wall, &mut changes),
        Command::DeleteVolume { volume, wall } => volumes::delete(state, volume, *wall, &mut changes),
        Command::SetGossipKeys { keys, base, wall } => {
            security::set_gossip_keys(state, keys, *base, *wall, &mut changes)
        }
        Command::Keyed { once, command, wall, answer } => {
            let asked = keys::Asked { once, wall: *wall, answer: answer.as_deref() };
            return keys::apply_once(state, index, &asked, command);
        }
        Command::AddGrant { name, grant, wall } => access::add(state, name, grant, *wall, &mut changes),
        Command::RemoveGrant { name, wall } => access::remove(state, name, *wall, &mut changes),
        Command::By { author, command, wall } => match command.asked() {
            Some((verb, mut what)) => {
                if let Command::RemoveNode { node, .. } = &**command {
                    what += &nodes::given_up(state, *node);
                }
                changes = match access::check(state, author, verb, command, *wall) {
                    Ok(()) => apply(state, index, command),
                    Err(problem) => vec![Change::Refused { problem }],
                };
                let refused = changes.iter().find_map(|change| match change {
                    Change::Refused { problem } => Some(problem.message.clone()),
                    _ => None,
                });
                let outcome = refused.map_or(Outcome::Done, Outcome::Refused);
                audit::record(state, author, *wall, Deed { verb, what, outcome });
                Ok(())
            }
            None => Err(Problem::new(Code::Forbidden, "this is nothing that somebody asks for")),
        },
        Command::Note { author, deed, wall } => {
            audit::record(state, author, *wall, deed.clone());
            Ok(())
        }
        Command::SettleRollout { service, revision, settled, wall } => {
            rollouts::settle(state, service, *revision, settled, *wall, &mut changes)
        }
        Command::BeginRun { service, slot, wall } => jobs::begin(state, service, *slot, *wall, &mut changes),
        Command::TurnRollout { service, turn, wall } => rollouts::turn(state, service, *turn, *wall, &mut changes),
        Command::Rollback { service, version, wall } => {
            rollouts::roll_back(state, service, *version, *wall, &mut changes)
        }
        Command::NoteLeader { node, wall } => nodes::note_leader(state, *node, *wall),
        Command::NoteTwin { node, address, wall } => nodes::note_twin(state, *node, address, *wall),
        Command::SetNamespace { namespace, change, new, wall } => {
            namespaces::set(state, namespace, change, *new, *wall, &mut changes)
        }
        Command::DeleteNamespace { namespace, force, wall } => {
            namespaces::delete(state, namespace, *force, *wall, &mut changes)
        }
        Command::WarnNamespace { namespace, at, wall } => namespaces::warn(state, namespace, *at, *wall, &mut changes),
        Command::EndNamespace { namespace, at, wall } => namespaces::end(state, namespace, *at, *wall, &mut changes),
    };
    if let Err(problem) = result {
        changes.push(Change::Refused { problem });
    }
    everywhere::recount(state, &mut changes);
    changes
}

pub(crate) type Applied = Result<(), Problem>;

/// Why an app cannot be put: it changed since `base`, a service asks for too many stars, or belongs to another app, or its namespace
/// may not have so much. Asked
/// again when the command is applied; asked before, nothing has to be undone.
pub fn check_put(state: &State, spec: &AppSpec, base: Option<u64>) -> Result<(), Problem> {
    let app = &spec.app;
    let version = state.apps.get(app).map_or(0, |record| record.version);
    if base.is_some_and(|base| base != version) {
        let message = format!("app `{app}` changed since this change was planned");
        return Err(Problem::new(Code::Conflict, message).help("look at it again with `rads c plan`, then repeat"));
    }
    model::job::check_order(spec.services.iter().map(|(name, service)| (name, service.job.as_ref())))?;
    secrets::check(state, spec)?;
    for (name, service) in &spec.services {
        check_instances(service.instances, service.template.singleton)?;
        if let Some(job) = &service.job {
            job.check(service.instances)?;
        }
        service.check_everywhere()?;
        service.check_hold()?;
        let reservation = service.placement.reservation.as_ref();
        let held = reservation.and_then(|name| {
            let here = spec.services.get(name);
            here.or_else(|| state.services.get(&spec.service_key(name)).map(|record| &record.spec))
        });
        model::hold::check_tenant(name, &service.placement, &service.template.reserve, held)?;
        if service.hold.is_some() {
            holds::check_tenants(state, spec, name, service)?;
        }
        let key = spec.service_key(name);
        if let Some(other) = state.services.get(&key).filter(|service| service.app != *app) {
            let message = format!("service `{key}` belongs to app `{}`", other.app);
            return Err(Problem::new(Code::AlreadyExists, message).help("give it another name or namespace"));
        }
    }
    let of_app = |name: &Name| {
        let key = spec.service_key(name);
        state.services.get(&key).is_some_and(|service| service.app == *app)
    };
    state.check_quota(&app.namespace, &spec.services, of_app)
}

fn check_instances(instances: u32, singleton: bool) -> Applied {
    if singleton && instances > 1 {
        let message = format!("a `singleton` has one star at most, not {instances}");
        return Err(Problem::new(Code::InvalidValue, message)
            .help("take `singleton: true` out of its description for it to have more"));
    }
    if instances > INSTANCES_MAX {
        let message = format!("`instances` is between 0 and {INSTANCES_MAX}, not `{instances}`");
        return Err(Problem::new(Code::InvalidValue, message)
            .help("what needs more stars is several services, each under a name of its own"));
    }
    Ok(())
}

fn put_app(state: &mut State, spec: &AppSpec, base: Option<u64>, wall: WallTime, changes: &mut Vec<Change>) -> Applied {
    check_put(state, spec, base)?;
    let app = &spec.app;
    let before = state.apps.get(app);
    let created = before.map_or(wall, |record| record.created);
    let times = before.map_or(0, |record| record.changes) + 1;
    let record = AppRecord { spec: spec.clone(), version: state.index, changes: times, created, changed: wall };
    state.apps.insert(app.clone(), record);
    changes.push(Change::AppPut { app: app.clone() });
    let gone: Vec<ServiceKey> = state
        .services
        .iter()
        .filter(|(key, service)| service.app == *app && !spec.services.contains_key(&key.name))
        .map(|(key, _)| key.clone())
        .collect();
    for key in gone {
        let about = About::service(state, &key);
        state.services.remove(&key);
        state.record_of(about, wall, format!("service `{key}` removed"));
        changes.push(Change::ServiceRemoved { service: key });
    }
    for (name, wanted) in &spec.services {
        let key = spec.service_key(name);
        let index = state.index;
        let before = state.services.get(&key).map(|service| service.spec.template.missing_walls()).unwrap_or_default();
        let what = match state.services.get_mut(&key) {
            None => {
                state.services.insert(key.clone(), ServiceRecord::new(app, wanted, index, wall));
                format!("service `{key}` created with {}", counted(wanted.instances))
            }
            Some(service)
                if service.spec == *wanted && !service.stopped && !service.paused && service.held.is_empty() =>
            {
                continue;
            }
            Some(service) => {
                service.begun = wanted.hold.is_some_and(|hold| hold.has_begun(wall));
                if rollouts::put(service, wanted, index, wall) {
                    format!("service `{key}` changed: its stars are replaced")
                } else {
                    format!("service `{key}` changed")
                }
            }
        };
        state.record_of(About::service(state, &key), wall, what);
        match (before, wanted.template.missing_walls()) {
            (before, now) if before == now => {}
            (_, now) if now.is_empty() => {
                state.record_of(About::service(state, &key), wall, format!("service `{key}` has every wall again"));
            }
            (_, now) => {
                let what = format!("service `{key}` runs with weaker walls: {now}");
                state.record_of(About::service(state, &key), wall, what);
            }
        }
        limit_stars(state, &key, changes);
        changes.push(Change::ServicePut { service: key });
    }
    Ok(())
}

pub(crate) fn counted(stars: u32) -> String {
    if stars == 1 { "1 star".to_owned() } else { format!("{stars} stars") }
}

pub(crate) fn remove_app(state: &mut State, app: &AppKey, wall: WallTime, changes: &mut Vec<Change>) -> Applied {
    if state.apps.remove(app).is_none() {
        return Err(Problem::new(Code::NotFound, format!("no app `{app}`")).help("`rads c status` lists what there is"));
    }
    let services: Vec<ServiceKey> =
        state.services.iter().filter(|(_, service)| service.app == *app).map(|(key, _)| key.clone()).collect();
    changes.push(Change::AppRemoved { app: app.clone() });
    for service in services {
        state.services.remove(&service);
        changes.push(Change::ServiceRemoved { service });
    }
    state.record_of(About::app(app), wall, format!("app `{app}` removed"));
    Ok(())
}

fn scale(state: &mut State, key: &ServiceKey, instances: u32, wall: WallTime, changes: &mut Vec<Change>) -> Applied {
    let service = service_mut(state, key)?;
    if service.spec.job.is_some() {
        let problem = Problem::new(Code::Conflict, format!("`{key}` is a job: its parts are part of its description"));
        return Err(problem.help("change its `completions` or its `inputs`, and its `parallelism`"));
    }
    if service.spec.placement.every_node {
        let problem = Problem::new(Code::Conflict, format!("`{key}` has a star on every node"));
        return Err(problem.help("take `every_node` out of its `placement` for it to have a number of them"));
    }
    check_instances(instances, service.spec.template.singleton)?;
    let was_idle = service.is_idle();
    let scaled = ServiceSpec { instances, ..service.spec.clone() };
    state.check_quota_of(key, scaled)?;
    let service = service_mut(state, key)?;
    let before = std::mem::replace(&mut service.spec.instances, instances);
    (service.stopped, service.paused) = (false, false);
    service.held.clear();
    if was_idle {
        service.give_time(wall);
    }
    touch_app(state, key, wall, changes);
    state.record_of(
        About::service(state, key),
        wall,
        format!("service `{key}` scaled from {before} to {}", counted(instances)),
    );
    changes.push(Change::ServicePut { service: key.clone() });
    Ok(())
}

fn limit(
    state: &mut State,
    key: &ServiceKey,
    change: &LimitsChange,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    let index = state.index;
    let service = service_mut(state, key)?;
    let template = &service.spec.template;
    let (before, after) = (template.limits, change.of(&template.limits));
    template.check_limits(&after)?;
    if before == after {
        return Ok(());
    }
    let mut limited = service.spec.clone();
    limited.template.limits = after;
    state.check_quota_of(key, limited.clone())?;
    rollouts::change_in_place(service_mut(state, key)?, limited, index, wall);
    touch_app(state, key, wall, changes);
    state.record_of(
        About::service(state, key),
        wall,
        format!("service `{key}` limited: {}", limits_difference(&before, &after)),
    );
    limit_stars(state, key, changes);
    changes.push(Change::ServicePut { service: key.clone() });
    Ok(())
}

/// Gives the stars of a service's present revision its limits. Those of an earlier one are on their way out.
pub(crate) fn limit_stars(state: &mut State, key: &ServiceKey, changes: &mut Vec<Change>) {
    let Some(service) = state.services.get(key) else { return };
    let (revision, limits) = (service.revision, service.spec.template.limits);
    let of_revision = state.stars.of_service(key).filter(|star| star.revision == revision);
    let to_limit = of_revision.filter(|star| star.phase != StarPhase::Ended && star.template.limits != limits);
    let stars: Vec<StarId> = to_limit.map(|star| star.id).collect();
    // Stars that share what they were made from go on sharing it.
    let mut last: Option<(Arc<StarTemplate>, Arc<StarTemplate>)> = None;
    for id in stars {
        state.stars.change(id, |star| {
            let limited = match &last {
                Some((before, limited)) if Arc::ptr_eq(before, &star.template) => Arc::clone(limited),
                _ => Arc::new(StarTemplate { limits, ..(*star.template).clone() }),
            };
            last = Some((std::mem::replace(&mut star.template, Arc::clone(&limited)), limited));
        });
        changes.push(Change::StarLimited { star: id });
    }
}

fn restart(state: &mut State, key: &ServiceKey, wall: WallTime, changes: &mut Vec<Change>) -> Applied {
    let index = state.index;
    let service = service_mut(state, key)?;
    holds::runs_something(key, service)?;
    if service.spec.job.is_some() {
        let problem = Problem::new(Code::Conflict, format!("`{key}` is a job: it is not restarted, it runs again"));
        return Err(problem.help(format!("`rads c run {key}` begins a run")));
    }
    rollouts::renew(service, index, wall);
    state.record_of(About::service(state, key), wall, format!("service `{key}` restarted: its stars are replaced"));
    changes.push(Change::ServicePut { service: key.clone() });
    Ok(())
}

fn set_stopped(
    state: &mut State,
    key: &ServiceKey,
    stopped: bool,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    let service = service_mut(state, key)?;
    match (service.stopped == stopped, service.paused) {
        (true, false)
            if !stopped
                && service.spec.job.is_some()
                && (service.held.is_empty() || service.runs.present.is_none()) =>
        {
            return jobs::begin(state, key, None, wall, changes);
        }
        // All its stars ran to their end: whoever starts it wants them to run again.
        (true, false) if !stopped && service.held.is_empty() && !service.done.is_empty() && service.wanted() == 0 => {
            service.done.clear();
            let what = format!("service `{key}` started again: its stars had run to their end");
            state.record_of(About::service(state, key), wall, what);
            changes.push(Change::ServicePut { service: key.clone() });
            return Ok(());
        }
        (true, false) if service.held.is_empty() => return Ok(()),
        // Stars that were stopped one by one; what is done stays done.
        (true, false) => {
            service.held.clear();
            let what = format!("service `{key}` started: the stars that were stopped one by one");
            state.record_of(About::service(state, key), wall, what);
            changes.push(Change::ServicePut { service: key.clone() });
            return Ok(());
        }
        // What is done stays done.
        (true, true) => return resume(state, key, wall, changes),
        (false, _) => {}
    }
    (service.stopped, service.paused) = (stopped, false);
    if stopped && service.runs.present.is_some() {
        jobs::over(state, key, RunOutcome::Stopped, wall, changes);
    }
    let service = service_mut(state, key)?;
    if !stopped {
        service.give_time(wall);
    }
    service.done.clear();
    service.held.clear();
    state.record_of(
        About::service(state, key),
        wall,
        format!("service `{key}` {}", if stopped { "stopped" } else { "started" }),
    );
    changes.push(Change::ServicePut { service: key.clone() });
    Ok(())
}

fn pause(state: &mut State, key: &ServiceKey, wall: WallTime, changes: &mut Vec<Change>) -> Applied {
    let service = service_mut(state, key)?;
    holds::runs_something(key, service)?;
    if service.stopped {
        let problem = Problem::new(Code::Conflict, format!("service `{key}` is stopped: there is nothing to pause"));
        return Err(problem.help(format!("`rads c start {key}` starts it")));
    }
    if !std::mem::replace(&mut service.paused, true) {
        state.record_of(About::service(state, key), wall, format!("service `{key}` paused"));
        changes.push(Change::ServicePut { service: key.clone() });
    }
    Ok(())
}

fn resume(state: &mut State, key: &ServiceKey, wall: WallTime, changes: &mut Vec<Change>) -> Applied {
    let service = service_mut(state, key)?;
    if !std::mem::replace(&mut service.paused, false) {
        let problem = Problem::new(Code::Conflict, format!("service `{key}` is not paused"));
        return Err(problem.help("`rads c status` shows how it is"));
    }
    service.give_time(wall);
    state.record_of(About::service(state, key), wall, format!("service `{key}` resumed"));
    changes.push(Change::ServicePut { service: key.clone() });
    Ok(())
}

pub(crate) fn service_mut<'s>(state: &'s mut State, key: &ServiceKey) -> Result<&'s mut ServiceRecord, Problem> {
    let missing =
        || Problem::new(Code::NotFound, format!("no service `{key}`")).help("`rads c status` lists what there is");
    state.services.get_mut(key).ok_or_else(missing)
}

/// A service changed by itself is a change of its app too: whoever planned against the app must look again.
pub(crate) fn touch_app(state: &mut State, key: &ServiceKey, wall: WallTime, changes: &mut Vec<Change>) {
    let Some(service) = state.services.get(key) else { return };
    if let Some(app) = state.apps.get_mut(&service.app) {
        app.spec.services.insert(key.name.clone(), service.spec.clone());
        app.version = state.index;
        app.changed = wall;
        changes.push(Change::AppPut { app: service.app.clone() });
    }
}

fn assign(state: &mut State, assignment: &Assignment, wall: WallTime, changes: &mut Vec<Change>) -> Change {
    let refused = |code: Code, message: String| Change::Refused { problem: Problem::new(code, message) };
    let Some(service) = state.services.get(&assignment.service) else {
        return refused(Code::NotFound, format!("no service `{}`", assignment.service));
    };
    let Some(spec) = service.spec_of(assignment.revision).filter(|_| !service.stopped) else {
        return refused(Code::Conflict, format!("service `{}` has changed since", assignment.service));
    };
    let template = Arc::new(spec.template.clone());
    let singleton = template.singleton;
    if singleton && state.stars.of_service(&assignment.service).any(|star| star.phase != StarPhase::Ended) {
        return refused(Code::Conflict, format!("the star of singleton `{}` has not ended", assignment.service));
    }
    if state.stars.contains_key(&assignment.star) {
        return refused(Code::AlreadyExists, format!("there is a star `{}` already", assignment.star));
    }
    // Who planned this may have proposed first that the one there has ended, and only this was written.
    if state.stars.is_taken(&assignment.service, assignment.ordinal) {
        let Assignment { service, ordinal, .. } = assignment;
        return refused(Code::Conflict, format!("star `{}-{ordinal}` of `{service}` has not ended", service.name));
    }
    if service.held.contains(&assignment.ordinal) {
        let Assignment { service, ordinal, .. } = assignment;
        return refused(Code::Conflict, format!("star `{}-{ordinal}` of `{service}` is stopped", service.name));
    }
    // A machine in no constellation knows of no nodes, and everything is for it.
    let takes = |node: &NodeRecord| node.takes_stars_of(&spec.placement);
    if !state.nodes.is_empty() && !state.nodes.get(&assignment.node).is_some_and(takes) {
        return refused(Code::Conflict, format!("node `{}` takes no stars any more", assignment.node));
    }
    if let Some(record) = state.nodes.get(&assignment.node)
        && let Some(why) = keeps_off(&spec.placement, record)
    {
        return refused(
            Code::Conflict,
            format!("node `{}` gets no star of `{}`: {why}", record.name, assignment.service),
        );
    }
    // What is kept for stars is kept once: who planned this may not have known of all that is on its way.
    let kept = state.stars.load_of(assignment.node).map(|load| load.kept).unwrap_or_default();
    if let Err(problem) = holds::check_place(state, assignment, spec.placement.reservation.as_ref(), &template) {
        return Change::Refused { problem };
    }
    if assignment.place.is_none()
        && let Some(record) = state.nodes.get(&assignment.node)
        && let Some(lack) = record.facts.lacks(kept, &template.reserve)
    {
        let message = format!("node `{}` has no room for a star of `{}`: {lack}", record.name, assignment.service);
        return refused(Code::NoCapacity, message);
    }
    let volumes = State::volumes_of(&assignment.service, &template);
    for volume in volumes {
        let home = *state.homes.entry(volume.clone()).or_insert_with(|| {
            changes.push(Change::VolumePlaced { volume: volume.clone() });
            assignment.node
        });
        if home != assignment.node {
            return refused(Code::Conflict, format!("volume `{volume}` lies on node `{home}`"));
        }
    }
    let Some(service) = state.services.get_mut(&assignment.service) else {
        return refused(Code::NotFound, format!("no service `{}`", assignment.service));
    };
    service.started += 1;
    // What runs nothing is ready when it is there.
    let phase = if template.program == Program::Nothing { StarPhase::Ready } else { StarPhase::Assigned };
    let star = StarRecord {
        id: assignment.star,
        app: service.app.clone(),
        service: assignment.service.clone(),
        revision: assignment.revision,
        ordinal: assignment.ordinal,
        node: assignment.node,
        generation: state.index,
        template,
        port: assignment.port,
        phase,
        process: None,
        exit: None,
        assigned: wall,
        started: None,
        ended: None,
        leaving: false,
        moves: false,
        place: assignment.place,
        history: vec![Turn { phase, at: wall }],
    };
    state.stars.insert(star);
    Change::StarAssigned { star: assignment.star }
}

/// What of a machine keeps the stars of a service off it.
fn keeps_off(placement: &Placement, record: &NodeRecord) -> Option<String> {
    if let Some(condition) = placement.broken(Some(&record.name), &record.facts).next() {
        return Some(format!("`{condition}` does not hold"));
    }
    let (name, taint) = placement.kept_off(&record.taints)?;
    Some(format!("it is tainted `{}`", taint::shown(name, taint)))
}

/// Stars of lower services go for one of a higher one.
fn preempt(
    state: &mut State,
    service: &ServiceKey,
    stars: &[StarId],
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    let Some(record) = state.services.get(service) else {
        return Err(Problem::new(Code::NotFound, format!("no service `{service}`")));
    };
    let priority = record.spec.placement.priority;
    let comes_back = record.rollout.as_ref().is_some_and(|rollout| rollout.previous.is_some());
    let is_own = state.own_left(service, true) > 0 || (comes_back && state.own_left(service, false) > 0);
    let beyond = state.beyond_quotas(stars.iter().filter_map(|star| Some(&state.stars.get(star)?.service)));
    for star in stars {
        let Some(star) = state.stars.get(star).filter(|star| star.phase < StarPhase::Draining) else { continue };
        let (name, of) = (star.name(), star.service.clone());
        let is_beyond = beyond.contains(&star.id);
        let gives_way = state.services.get(&of).map(|record| record.spec.placement.priority);
        if !is_own || (!is_beyond && gives_way.is_some_and(|other| other >= priority)) {
            let message = format!("star `{name}` need not give way to `{service}` any more");
            changes.push(Change::Refused { problem: Problem::new(Code::Conflict, message) });
            continue;
        }
        let id = star.id;
        let than = match gives_way {
            _ if is_beyond => format!(" (it was beyond the quota of `{}`)", of.namespace),
            Some(other) => format!(" (priority {priority} over {other})"),
            None => String::new(),
        };
        let about = About::star(state, &of, &name);
        holds::retire(state, id, wall, changes);
        state.record_of(about, wall, format!("star `{name}` gives way to a star of `{service}`{than}"));
    }
    Ok(())
}

pub(crate) fn transit(
    state: &mut State,
    transition: &Transition,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Option<Change> {
    let star = state.stars.get(&transition.star)?;
    if !star.phase.leads_to(transition.phase) {
        return None;
    }
    let (before, secrets) = (star.phase, star.secrets());
    if transition.process.is_some() && star.process.is_none() && !secrets.is_empty() {
        let what = format!("star `{}` was given {}", star.name(), secret_names(&secrets));
        state.record_of(About::star(state, &star.service, &star.name()), wall, what);
    }
    state.stars.change(transition.star, |star| move_on(star, transition, wall));
    let star = state.stars.get(&transition.star)?;
    let moved = Change::StarMoved { star: star.id, phase: star.phase };
    if star.phase != StarPhase::Ended {
        let what = match (before, star.phase) {
            (_, StarPhase::Unready) => "unready",
            (StarPhase::Unready, StarPhase::Ready) => "ready again",
            _ => return Some(moved),
        };
        let (name, service) = (star.name(), star.service.clone());
        state.record_of(About::star(state, &service, &name), wall, format!("star `{name}` is {what}"));
        return Some(moved);
    }
    let exit = star.exit.clone()?;
    let (name, service, revision, ordinal) = (star.name(), star.service.clone(), star.revision, star.ordinal);
    let (policy, leaving) = (star.template.restart, star.leaving);
    if exit.asked {
        return Some(moved);
    }
    // It was told to come back before it ended by itself: then it does, and that it ended well is nothing to its job.
    let comes_back = |service: &ServiceRecord| leaving && !service.held.contains(&ordinal);
    let comes_back = state.services.get(&service).is_some_and(comes_back);
    let is_part = |service: &ServiceRecord| service.spec.job.is_some() && service.revision == revision;
    if state.services.get(&service).is_some_and(is_part) {
        state.record_of(About::star(state, &service, &name), wall, format!("star `{name}` ended: {}", exit.cause));
        if !(comes_back && exit.cause.is_success()) {
            jobs::part_ended(state, &service, ordinal, &exit.cause, wall, changes);
        }
        return Some(moved);
    }
    if let Some(service) = state.services.get_mut(&service) {
        let is_over = match policy {
            RestartPolicy::Always => false,
            RestartPolicy::OnFailure => exit.cause.is_success(),
            RestartPolicy::Never => true,
        };
        if is_over && !comes_back && service.revision == revision {
            service.done.insert(ordinal);
        }
        service.restarts += u64::from(!is_over);
        if !is_over {
            *service.restarts_by.entry(ordinal).or_default() += 1;
        }
    }
    state.record_of(About::star(state, &service, &name), wall, format!("star `{name}` ended: {}", exit.cause));
    Some(moved)
}

fn move_on(star: &mut StarRecord, transition: &Transition, wall: WallTime) {
    star.phase = transition.phase;
    // What happened while the batch before was written comes as one; that it ran is known by its process.
    if transition.process.is_some() && star.process.is_none() && transition.phase > StarPhase::Starting {
        star.turned(StarPhase::Starting, wall);
    }
    star.turned(transition.phase, wall);
    if let Some(process) = transition.process {
        star.process = Some(process);
        star.started = star.started.or(Some(wall));
    }
    if star.phase == StarPhase::Ended {
        star.exit = Some(transition.exit.clone().unwrap_or(Exit { cause: model::ExitCause::Unknown, asked: false }));
        star.ended = Some(wall);
    }
}

/// `secret `db`` or `secrets `db`, `key``.
fn secret_names(secrets: &[SecretKey]) -> String {
    let names: Vec<String> = secrets.iter().map(|secret| format!("`{secret}`")).collect();
    format!("{} {}", if names.len() == 1 { "secret" } else { "secrets" }, names.join(", "))
}

/// A star that has not ended is not forgotten.
fn forget(state: &mut State, star: StarId) -> Option<Change> {
    let ended = state.stars.get(&star).is_some_and(|record| record.phase == StarPhase::Ended);
    if !ended {
        return None;
    }
    let record = state.stars.remove(star)?;
    Some(Change::StarForgotten { star, service: record.service })
}
