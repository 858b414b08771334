//! One star of a service, by its number, and one service of an app: stopped, started, restarted, taken out.
//!
//! A star stopped so leaves its place free until it is started again, or until its whole service is started, scaled,
//! restarted or put anew. A service is a number of places; which of them are held free is part of it.

use model::{Code, Problem, ServiceKey, StarPhase, WallTime};

use crate::apply::{Applied, Change, service_mut};
use crate::record::{About, ServiceRecord, State};

/// What becomes of one star.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Stop,
    Start,
    Restart,
}

pub(crate) fn turn(
    state: &mut State,
    key: &ServiceKey,
    ordinal: u32,
    turn: Turn,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    let name = format!("{}-{ordinal}", key.name);
    crate::holds::runs_something(key, service_mut(state, key)?)?;
    let service = service_mut(state, key)?;
    if service.stopped || service.paused {
        let how = if service.stopped { "stopped" } else { "paused" };
        let problem = Problem::new(Code::Conflict, format!("star `{name}`: its service `{key}` is {how}"));
        let word = if service.stopped { "start" } else { "resume" };
        return Err(problem.help(format!("`rads c {word} {key}` lets its stars run")));
    }
    let (revision, was_held, was_done) =
        (service.revision, service.held.contains(&ordinal), service.done.contains(&ordinal));
    let mut known = was_held || was_done;
    let mut running = None;
    for star in state.stars.of_service(key).filter(|star| star.ordinal == ordinal) {
        known |= star.revision == revision;
        if star.phase < StarPhase::Draining && !star.leaving {
            running = Some(star.id);
        }
    }
    if !known && running.is_none() {
        let problem = Problem::new(Code::NotFound, format!("service `{key}` has no star `{name}`"));
        return Err(problem.help("`rads c list` names its stars, `rads c scale` changes how many there are"));
    }
    match (turn, was_held, was_done) {
        (Turn::Stop, true, _) => return Ok(()),
        (Turn::Stop, false, true) => {
            let problem = Problem::new(Code::Conflict, format!("star `{name}` has ended: there is nothing to stop"));
            return Err(problem.help("`rads c list --all` shows how"));
        }
        (Turn::Start, false, false) => return Ok(()),
        _ => {}
    }
    // A star that ended for good is brought back by a start as by a restart.
    if let (Turn::Stop | Turn::Restart, Some(star)) = (turn, running) {
        state.stars.change(star, |star| star.leaving = true);
        changes.push(Change::StarLeaves { star });
    }
    let what = match turn {
        Turn::Stop => "stopped",
        Turn::Start => "started",
        Turn::Restart => "restarted",
    };
    if let Some(service) = state.services.get_mut(key) {
        hold(service, ordinal, turn == Turn::Stop);
    }
    state.record_of(About::star(state, key, &name), wall, format!("star `{name}` {what}"));
    // Whoever is named is the next that comes, unless nobody has that place or is to have it.
    let comes = turn != Turn::Stop && (was_held || was_done || state.stars.is_taken(key, ordinal));
    changes.push(Change::PlaceChanged { service: key.clone(), ordinal, comes });
    changes.push(Change::ServicePut { service: key.clone() });
    Ok(())
}

fn hold(service: &mut ServiceRecord, ordinal: u32, held: bool) {
    service.done.remove(&ordinal);
    match held {
        true => service.held.insert(ordinal),
        false => service.held.remove(&ordinal),
    };
}

/// Takes a service out of its app; an app without services is no more.
pub(crate) fn remove_service(
    state: &mut State,
    key: &ServiceKey,
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    let app = service_mut(state, key)?.app.clone();
    let about = About::service(state, key);
    state.services.remove(key);
    changes.push(Change::ServiceRemoved { service: key.clone() });
    state.record_of(about, wall, format!("service `{key}` removed"));
    let index = state.index;
    let Some(record) = state.apps.get_mut(&app) else { return Ok(()) };
    record.spec.services.remove(&key.name);
    (record.version, record.changed) = (index, wall);
    if record.spec.services.is_empty() {
        state.apps.remove(&app);
        changes.push(Change::AppRemoved { app });
    } else {
        changes.push(Change::AppPut { app });
    }
    Ok(())
}
