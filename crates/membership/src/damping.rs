//! A member that comes and goes is believed more slowly each time.

use std::time::Duration;

use model::Time;

use crate::config::Config;

/// How often a member came back from the dead of late.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Damping {
    returns: u32,
    last: Time,
    /// Reported as suspect until then, however alive it is.
    pub(crate) held_until: Option<Time>,
}

impl Damping {
    /// It came back. The first return is believed at once.
    pub(crate) fn returned(&mut self, now: Time, config: &Config) {
        self.forgive(now, config.forgive_after);
        self.returns = self.returns.saturating_add(1);
        self.last = now;
        let doublings = self.returns.saturating_sub(2).min(16);
        let hold = (self.returns > 1).then(|| (config.hold * (1 << doublings)).min(config.hold_max));
        self.held_until = hold.map(|hold| now + hold);
    }

    fn forgive(&mut self, now: Time, after: Duration) {
        let quiet = now.since(self.last).as_nanos() / after.as_nanos().max(1);
        self.returns = self.returns.saturating_sub(u32::try_from(quiet).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_return_is_believed_more_slowly_until_it_is_forgiven() {
        let config = Config::default();
        let mut damping = Damping::default();
        let mut now = Time::ZERO + Duration::from_secs(1);
        let mut held = Vec::new();
        for _ in 0..8 {
            damping.returned(now, &config);
            held.push(damping.held_until.map_or(0, |until| until.since(now).as_secs()));
            now = now + Duration::from_secs(20);
        }
        assert_eq!(held, [0, 10, 20, 40, 80, 160, 300, 300]);
        damping.returned(now + config.forgive_after * 9, &config);
        assert_eq!(damping.held_until, None);
    }
}
