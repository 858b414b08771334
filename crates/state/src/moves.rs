//! A star that moves: another comes for it on another machine, then it goes. Until then it serves.

use model::{Code, Problem, ServiceKey, StarId, StarPhase, WallTime};

use crate::apply::{Applied, Change, service_mut};
use crate::record::{About, ServiceRecord, StarRecord, State};

pub(crate) fn begin(
    state: &mut State,
    key: &ServiceKey,
    ordinal: u32,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    let name = format!("{}-{ordinal}", key.name);
    let service = &*service_mut(state, key)?;
    if let Some(why) = stays(service) {
        return Err(Problem::new(Code::Conflict, format!("star `{name}` cannot move: {why}")));
    }
    let runs = |star: &&StarRecord| star.ordinal == ordinal && star.phase < StarPhase::Draining && !star.leaving;
    let Some(star) = state.stars.of_service(key).find(runs) else {
        return Err(Problem::new(Code::NotFound, format!("service `{key}` has no star `{name}` that runs")));
    };
    if state.nodes.len() < 2 {
        return Err(Problem::new(Code::NoCapacity, format!("star `{name}` cannot move: there is no other machine")));
    }
    let (star, is_moving) = (star.id, star.moves);
    if !is_moving {
        set(state, star, true, wall, "is to move", changes);
    }
    Ok(())
}

/// What keeps all stars of a service where they are.
fn stays(service: &ServiceRecord) -> Option<&'static str> {
    let spec = &service.spec;
    match () {
        () if service.stopped => Some("its service is stopped"),
        () if service.paused => Some("its service is paused"),
        () if service.rollout.is_some() => Some("a roll-out of its service is under way"),
        () if spec.hold.is_some() => Some("it is a place of a reservation"),
        () if spec.placement.reservation.is_some() => Some("it is in a place of a reservation"),
        () if spec.placement.every_node => Some("its service is on every node"),
        () if spec.job.is_some() => Some("it is part of a job, and would begin anew"),
        () if spec.template.singleton => Some("it is a singleton, so that none can come for it while it runs"),
        () if !spec.template.volumes.is_empty() => Some("it stays with its volumes"),
        () => None,
    }
}

impl ServiceRecord {
    /// Whether its stars may be moved, as things are.
    pub fn lets_stars_move(&self) -> bool {
        stays(self).is_none()
    }
}

pub(crate) fn end(state: &mut State, stars: &[StarId], wall: WallTime, changes: &mut Vec<Change>) -> Applied {
    for star in stars {
        if state.stars.get(star).is_some_and(|star| star.moves && star.phase < StarPhase::Draining) {
            set(state, *star, false, wall, "stays: no other machine has room for it", changes);
        }
    }
    Ok(())
}

fn set(state: &mut State, star: StarId, moves: bool, wall: WallTime, what: &str, changes: &mut Vec<Change>) {
    state.stars.change(star, |star| star.moves = moves);
    let Some(record) = state.stars.get(&star) else { return };
    let (name, service) = (record.name(), record.service.clone());
    state.record_of(About::star(state, &service, &name), wall, format!("star `{name}` {what}"));
    changes.push(Change::StarToMove { star });
    changes.push(Change::ServicePut { service });
}
