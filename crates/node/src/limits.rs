//! What stars may use, changed while they run: the nursery is told, and whoever asked hears when it holds.

use model::{Code, Problem, ServiceKey, StarId, StarPhase};

use crate::balloon::with_soft;
use crate::event::{Effect, Reply};
use crate::node::{Node, Step};

impl Node {
    /// Tells the nursery what a star may use, unless it was told so last.
    pub(crate) fn fit(&mut self, star: StarId, step: &mut Step<'_>) {
        self.balloon(star, step);
        let (Some(local), Some(record)) = (self.stars.get_mut(&star), self.state.stars.get(&star)) else { return };
        let wanted = with_soft(record.template.limits, local.soft);
        // What is not ordered yet will be ordered with them; while the nursery is away there is nobody to tell.
        if !self.nursery_up || !local.ordered || local.phase == StarPhase::Ended || local.limits == Some(wanted) {
            return;
        }
        local.limits = Some(wanted);
        local.limiting += 1;
        step.effects.push(Effect::Limit { star, limits: wanted });
    }

    pub(crate) fn limited(&mut self, star: StarId, problem: Option<String>) {
        let Some(local) = self.stars.get_mut(&star) else { return };
        local.limiting = local.limiting.saturating_sub(1);
        // Of several answers the last one counts: it is about what holds now.
        local.limit_problem = problem;
    }

    /// The nursery went away: what it had not answered is unknown until it is told anew.
    pub(crate) fn forget_limiting(&mut self) {
        for local in self.stars.values_mut().filter(|local| local.limiting > 0) {
            local.limiting = 0;
            local.limits = None;
        }
    }

    /// Answers those who waited for limits that are now answered for by every star.
    pub(crate) fn settle_limits(&mut self, step: &mut Step<'_>) {
        let waits = std::mem::take(&mut self.limit_waits);
        for (id, index, service) in waits {
            let mut stars = self.stars.values().filter(|local| local.service == service);
            if stars.any(|local| local.limiting > 0) {
                self.limit_waits.push((id, index, service));
                continue;
            }
            let result = self.limit_problem(&service).map_or(Ok(Reply { index }), |problem| {
                let help = "they keep what they have; new stars of the service start with the new limits";
                Err(Problem::new(Code::LimitTooLow, problem).help(help).after_changes())
            });
            step.effects.push(Effect::Reply { id, result });
        }
    }

    /// Which star of a service does not have the limits it should have, and why.
    pub(crate) fn limit_problem(&self, service: &ServiceKey) -> Option<String> {
        self.stars.iter().find_map(|(star, local)| {
            let problem = local.limit_problem.as_ref().filter(|_| local.service == *service)?;
            let name = self.state.stars.get(star)?.name();
            Some(format!("star `{name}` cannot be limited so: {problem}"))
        })
    }
}
