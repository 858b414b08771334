//! Stars that stand still: paused where they are, and let go on.

use model::{StarId, StarPhase};

use crate::event::Effect;
use crate::node::{Node, Step};

impl Node {
    /// Makes a star stand still or go on, as its service should be.
    pub(crate) fn hold(&mut self, star: StarId, step: &mut Step<'_>) {
        let Some(local) = self.stars.get_mut(&star) else { return };
        let paused = self.state.services.get(&local.service).is_some_and(|service| service.paused);
        match (paused, local.phase) {
            (true, StarPhase::Starting | StarPhase::Ready | StarPhase::Unready) => {
                local.phase = StarPhase::Paused;
                self.log.moved(star, StarPhase::Paused, None, None);
                self.timers.clear_probes(star);
                self.freeze(star, true, step);
            }
            (false, StarPhase::Paused) => {
                local.phase = StarPhase::Starting;
                local.failed_probes = 0;
                local.failed_life = 0;
                self.log.moved(star, StarPhase::Starting, None, None);
                self.freeze(star, false, step);
                self.await_start(star, step);
                self.probe(star, step);
                self.await_life(star, step);
            }
            _ => return,
        }
        self.mark(star);
    }

    /// Tells the nursery that is there now what one before it, or another agent, may have left otherwise.
    pub(crate) fn hold_again(&mut self, star: StarId, step: &mut Step<'_>) {
        self.hold(star, step);
        let Some(local) = self.stars.get(&star) else { return };
        let frozen = local.phase == StarPhase::Paused;
        if local.still != Some(frozen) {
            self.freeze(star, frozen, step);
        }
    }

    pub(crate) fn freeze(&mut self, star: StarId, frozen: bool, step: &mut Step<'_>) {
        let Some(local) = self.stars.get_mut(&star) else { return };
        // While the nursery is away there is nobody to tell; whoever comes is told.
        local.still = self.nursery_up.then_some(frozen);
        if self.nursery_up {
            step.effects.push(Effect::Freeze { star, frozen });
        }
    }

    pub(crate) fn frozen(&mut self, star: StarId, problem: Option<String>) {
        if let Some(local) = self.stars.get_mut(&star) {
            local.freeze_problem = problem;
        }
    }

    fn mark(&mut self, star: StarId) {
        if let Some(local) = self.stars.get(&star) {
            self.dirty.insert(local.service.clone());
        }
    }
}
