//! Stars that may run only for as long as somebody says so, again and again: an agent that stands still, or is cut off from the
//! others, does not let them run beside the ones that were started elsewhere in their place.

use std::collections::BTreeMap;
use std::time::Duration;

use model::StarId;

use super::Nursery;
use crate::star::boottime;

#[derive(Debug, Default)]
pub(super) struct Leases {
    /// When each ends, by the clock that goes on while the machine sleeps.
    ends: BTreeMap<StarId, Duration>,
}

impl Leases {
    /// Lets the stars run for that long from now on.
    pub(super) fn renew(&mut self, stars: Vec<StarId>, length: Duration, now: Duration) {
        let end = now + length;
        self.ends.extend(stars.into_iter().map(|star| (star, end)));
    }

    pub(super) fn forget(&mut self, star: StarId) {
        self.ends.remove(&star);
    }

    /// How long until the first one is over.
    pub(super) fn patience(&self, now: Duration) -> Option<Duration> {
        self.ends.values().min().map(|end| end.saturating_sub(now))
    }

    /// Those that are over, once.
    fn over(&mut self, now: Duration) -> Vec<StarId> {
        self.ends.extract_if(.., |_, end| *end <= now).map(|(star, _)| star).collect()
    }
}

/// How long a star that has a lease may go on under a nursery that does not know for how much longer: the agent has so long to
/// say so. Together with the longest lease this must stay below the time after which another is started elsewhere.
const UNKNOWN: Duration = Duration::from_secs(1);

impl Nursery {
    pub(super) fn renew_leases(&mut self, stars: Vec<StarId>, length: Duration) {
        for star in &stars {
            let Some(star) = self.stars.get_mut(star).filter(|star| !star.record.leased) else { continue };
            star.record.leased = true;
            // Unknown to the next nursery, it would be left alone by it: tried again with the next renewal.
            star.record.leased = star.record.save(&star.folder).is_ok();
        }
        self.leases.renew(stars, length, boottime());
    }

    /// Leases that a nursery before this one knew of.
    pub(super) fn take_over_leases(&mut self) {
        let leased = self.stars.values().filter(|star| star.record.leased && star.record.ended.is_none());
        let stars = leased.map(|star| star.record.star).collect();
        self.leases.renew(stars, UNKNOWN, boottime());
    }

    /// Kills the stars whose time is over.
    pub(super) fn end_leases(&mut self) {
        for star in self.leases.over(boottime()) {
            if let Some(star) = self.stars.get_mut(&star) {
                star.told.lease_over = true;
                star.kill();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lasts_from_its_last_renewal_and_is_over_once() {
        let at = Duration::from_secs;
        let (one, two) = (StarId(1), StarId(2));
        let mut leases = Leases::default();
        assert_eq!(leases.patience(at(5)), None);
        leases.renew(vec![one, two], at(3), at(10));
        leases.renew(vec![two], at(3), at(12));
        assert_eq!(leases.patience(at(12)), Some(at(1)));
        assert_eq!(leases.over(at(12)), []);
        assert_eq!(leases.over(at(13)), [one]);
        assert_eq!(leases.over(at(14)), []);
        // A clock that jumped over the end.
        assert_eq!(leases.patience(at(90)), Some(at(0)));
        assert_eq!(leases.over(at(90)), [two]);
        leases.renew(vec![one], at(3), at(100));
        leases.forget(one);
        assert_eq!(leases.patience(at(100)), None);
    }
}
