//! Reservations: when their places are held, which are free, and what is given one.
//!
//! A place is a star that runs nothing, so it is ready as soon as it is assigned and ends as soon as it is told to. While a star of
//! another service is in it, it keeps so much less as that star keeps: together they keep what was reserved, and when that star has
//! ended the place is whole again in the same moment.

use model::{
    AppSpec, Code, Exit, ExitCause, Name, NodeId, Problem, Program, ServiceKey, ServiceSpec, StarId, StarPhase,
    StarTemplate, WallTime,
};

use crate::apply::{Applied, Change, counted, service_mut, transit};
use crate::command::{Assignment, Transition};
use crate::record::{About, ServiceRecord, StarRecord, State};
use crate::single::remove_service;

impl StarRecord {
    /// It runs nothing, and holds a place.
    pub fn is_place(&self) -> bool {
        self.template.program == Program::Nothing
    }
}

impl State {
    /// The places of a reservation that no star is in, and where they are.
    pub fn free_places(&self, reservation: &ServiceKey) -> impl Iterator<Item = (StarId, NodeId)> {
        let places = self.stars.of_service(reservation).filter(|star| star.is_place());
        let is_held = |star: &&StarRecord| star.phase < StarPhase::Draining && self.stars.tenant_of(star.id).is_none();
        places.filter(is_held).map(|star| (star.id, star.node))
    }

    /// Whether a star is in a place that is still held.
    pub fn is_in_place(&self, star: &StarRecord) -> bool {
        let place = star.place.and_then(|place| self.stars.get(&place));
        place.is_some_and(|place| place.phase != StarPhase::Ended)
    }
}

/// Why a star may not have the place it was planned for.
pub(crate) fn check_place(
    state: &State,
    assignment: &Assignment,
    wanted: Option<&Name>,
    template: &StarTemplate,
) -> Applied {
    let refused = |message: String| Err(Problem::new(Code::Conflict, message));
    let service = &assignment.service;
    let (name, place) = match (wanted, assignment.place) {
        (None, None) => return Ok(()),
        (None, Some(_)) => return refused(format!("service `{service}` is in no reservation any more")),
        (Some(name), None) => return refused(format!("service `{service}` is to be in reservation `{name}`")),
        (Some(name), Some(place)) => (name, place),
    };
    let reservation = service.beside(name);
    let record = state.stars.get(&place).filter(|record| record.service == reservation && record.is_place());
    let Some(record) = record.filter(|record| record.phase < StarPhase::Draining && record.node == assignment.node)
    else {
        return refused(format!("the place of reservation `{name}` is not held there any more"));
    };
    if state.stars.tenant_of(place).is_some() {
        return refused(format!("place `{}` has a star already", record.name()));
    }
    if !template.reserve.is_within(&record.template.reserve) {
        let message = format!("place `{}` is too small for a star of `{service}`", record.name());
        return Err(Problem::new(Code::NoCapacity, message));
    }
    Ok(())
}

/// Whether the services that are in a reservation fit into its places as they are to be. Those of the same app come with it.
pub(crate) fn check_tenants(state: &State, app: &AppSpec, name: &Name, held: &ServiceSpec) -> Applied {
    let here = state.services.iter().filter(|(key, _)| key.namespace == app.app.namespace);
    let tenants = here.filter(|(key, record)| {
        record.spec.placement.reservation.as_ref() == Some(name) && !app.services.contains_key(&key.name)
    });
    for (key, record) in tenants {
        model::hold::check_tenant(&key.name, &record.spec.placement, &record.spec.template.reserve, Some(held))?;
    }
    Ok(())
}

/// Refuses what is asked of stars that run.
pub(crate) fn runs_something(key: &ServiceKey, service: &ServiceRecord) -> Applied {
    if service.spec.hold.is_none() {
        return Ok(());
    }
    let problem = Problem::new(Code::Conflict, format!("`{key}` is a reservation: nothing runs that could be told so"));
    Err(problem.help(format!("`rads c release {key}` gives its places back, `rads c scale {key} 3` changes how many")))
}

/// Tells a star to go. A place has nothing to finish.
pub(crate) fn retire(state: &mut State, star: StarId, wall: WallTime, changes: &mut Vec<Change>) {
    let is_place = state.stars.get(&star).is_some_and(StarRecord::is_place);
    let (phase, exit) = match is_place {
        true => (StarPhase::Ended, Some(Exit { cause: ExitCause::Code(0), asked: true })),
        false => (StarPhase::Draining, None),
    };
    let moved = transit(state, &Transition { star, phase, process: None, exit }, wall, changes);
    changes.extend(moved);
}

/// A reservation begins or ends, as its times say.
pub(crate) fn turn(state: &mut State, key: &ServiceKey, wall: WallTime, changes: &mut Vec<Change>) -> Applied {
    let service = service_mut(state, key)?;
    let Some(hold) = service.spec.hold else {
        return Err(Problem::new(Code::Conflict, format!("service `{key}` is no reservation any more")));
    };
    let places = counted_places(service.spec.instances);
    if hold.is_over(wall) {
        let about = About::service(state, key);
        state.record_of(
            about,
            wall,
            format!("reservation `{key}` is over, {places} given back: what runs there stays"),
        );
        return remove_service(state, key, wall, changes);
    }
    if service.begun || !hold.has_begun(wall) {
        return Err(Problem::new(Code::Conflict, format!("the time of reservation `{key}` is another by now")));
    }
    service.begun = true;
    service.give_time(wall);
    state.record_of(About::service(state, key), wall, format!("reservation `{key}` begins: {places} to be held"));
    changes.push(Change::ServicePut { service: key.clone() });
    Ok(())
}

fn counted_places(places: u32) -> String {
    counted(places).replace("star", "place")
}
