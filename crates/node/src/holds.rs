//! Reservations: who leads begins and ends them by its own clock, gives stars their places, and looks again for those that wait for one.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Code, NodeId, Placement, Problem, ServiceKey, StarId, StarPhase};
use rollout::Seen;
use scheduler::{NodeView, Request as PlanRequest};
use state::{Command, ServiceRecord, StarRecord};

use crate::log::Purpose;
use crate::node::{Node, Step};
use crate::timers::Timer;

/// Longest wait between two looks: the clock that its times are said of may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

impl Node {
    /// Begins or ends a reservation whose time has come, and sets the time of the next look.
    pub(crate) fn turn_hold(&mut self, key: &ServiceKey, step: &mut Step<'_>) {
        let timer = Timer::Hold(key.clone());
        let record = self.state.services.get(key).filter(|_| self.peers.leads && !self.resting);
        let Some((hold, begun)) = record.and_then(|record| Some((record.spec.hold?, record.begun))) else {
            return self.timers.clear(&timer);
        };
        match hold.next_turn(step.wall) {
            Some(at) => self.timers.set(timer, step.now + at.since(step.wall).min(LOOK_AGAIN)),
            None => self.timers.clear(&timer),
        }
        let is_due = hold.is_over(step.wall) || (!begun && hold.has_begun(step.wall));
        let purpose = Purpose::Hold(key.clone());
        if is_due && !self.log.is_under_way(&purpose) {
            self.propose(purpose, Command::TurnHold { service: key.clone(), wall: step.wall }, step);
        }
    }

    /// Places of a reservation that stars of a service may have, by machine; nothing for a service that is in none. An earlier version
    /// of it may want larger ones than there are.
    pub(crate) fn places_for(&self, request: &PlanRequest<'_>) -> Option<BTreeMap<NodeId, Vec<StarId>>> {
        let reservation = request.service.beside(request.placement.reservation.as_ref()?);
        let mut places: BTreeMap<NodeId, Vec<StarId>> = BTreeMap::new();
        let fits = |place: &StarId| {
            let record = self.state.stars.get(place);
            record.is_some_and(|record| request.template.reserve.is_within(&record.template.reserve))
        };
        for (place, node) in
            self.state.free_places(&reservation).filter(|(place, _)| !self.taking.contains(place) && fits(place))
        {
            places.entry(node).or_default().push(place);
        }
        Some(places)
    }

    /// That there is no such reservation any more, or not yet.
    pub(crate) fn no_reservation(&self, service: &ServiceKey, placement: &Placement) -> Option<Problem> {
        let name = placement.reservation.as_ref()?;
        let reservation = self.state.services.get(&service.beside(name));
        let message = match reservation {
            Some(record) if record.begun => return None,
            Some(_) => format!("reservation `{name}` has not begun"),
            None => format!("reservation `{name}` is over, or was released"),
        };
        Some(Problem::new(Code::NoCapacity, message).help("`rads c reservations` lists them"))
    }

    /// Of places that are too many, those that are free go first.
    pub(crate) fn free_first(&self, revision: u64, seen: &[Seen], drain: &mut [StarId]) {
        let is_free = |place: StarId| self.state.stars.tenant_of(place).is_none();
        let of_present = |place: StarId| seen.iter().any(|seen| seen.star == place && seen.revision == revision);
        let stay = |seen: &&Seen| {
            seen.revision == revision
                && seen.phase < StarPhase::Draining
                && is_free(seen.star)
                && !drain.contains(&seen.star)
        };
        let mut free = seen.iter().filter(stay).map(|seen| seen.star).collect::<Vec<_>>().into_iter();
        for place in drain.iter_mut().filter(|place| of_present(**place) && !is_free(**place)) {
            let Some(other) = free.next() else { break };
            *place = other;
        }
    }

    /// Counts them where there are such.
    pub(crate) fn count_places(&self, request: &PlanRequest<'_>, views: &mut [NodeView<'_>]) {
        let Some(places) = self.places_for(request) else { return };
        for view in views {
            let free = places.get(&view.node).map_or(0, Vec::len);
            view.places = Some(u32::try_from(free).unwrap_or(u32::MAX));
        }
    }

    /// The services whose stars are in a reservation.
    fn tenants_of_reservation<'n>(
        &'n self,
        reservation: &'n ServiceKey,
    ) -> impl Iterator<Item = (&'n ServiceKey, &'n ServiceRecord)> {
        let here = self.state.services.iter().filter(|(key, _)| key.namespace == reservation.namespace);
        here.filter(|(_, record)| record.spec.placement.reservation.as_ref() == Some(&reservation.name))
    }

    /// There may be a place for those that wait for one.
    pub(crate) fn look_for_places(&mut self, reservation: &ServiceKey) {
        let waiting: Vec<ServiceKey> = self.tenants_of_reservation(reservation).map(|(key, _)| key.clone()).collect();
        self.dirty.extend(waiting);
    }

    /// A star came into being or ended: whether somebody waits for the place that it is, or was in.
    pub(crate) fn place_changed(&mut self, star: StarId) {
        let Some(record) = self.state.stars.get(&star) else { return };
        let reservation = match record.place.and_then(|place| self.state.stars.get(&place)) {
            Some(place) => place.service.clone(),
            None if record.is_place() => record.service.clone(),
            None => return,
        };
        self.look_for_places(&reservation);
    }

    /// Whether the room of a star is another's, or would be when it has gone.
    pub(crate) fn is_spoken_for(&self, star: &StarRecord) -> bool {
        self.state.is_in_place(star) || self.state.stars.tenant_of(star.id).is_some()
    }

    /// Whether the services in its reservation have a star for each place, so that the next star comes when one has gone.
    pub(crate) fn has_no_spare_place(&self, key: &ServiceKey, record: &ServiceRecord) -> bool {
        let Some(name) = &record.spec.placement.reservation else { return false };
        let reservation = key.beside(name);
        let places = self.state.services.get(&reservation).filter(|held| held.begun).map(ServiceRecord::wanted);
        let stars = || self.tenants_of_reservation(&reservation).map(|(_, tenant)| tenant.wanted()).sum::<u32>();
        places.is_some_and(|places| places <= stars())
    }
}

/// Whether a star, as the log has it, keeps a machine busy.
pub(crate) fn is_busy(star: &StarRecord) -> bool {
    star.phase != StarPhase::Ended && !star.is_place()
}
