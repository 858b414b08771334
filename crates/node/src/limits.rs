//! What stars may use, changed while they run: the nursery is told, and whoever asked hears when it holds.

use model::{Code, Limits, LimitsChange, Problem, RequestId, ServiceKey, StarId, StarPhase};
use state::{Author, Command, StarRecord, State};

use crate::balloon::with_soft;
use crate::change::by;
use crate::event::{Effect, Reply};
use crate::log::Purpose;
use crate::node::{Node, Step};

/// Somebody who waits for the limits of a service to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LimitWait {
    pub(crate) id: RequestId,
    /// Where the change is in the log.
    pub(crate) index: u64,
    pub(crate) service: ServiceKey,
    pub(crate) change: Box<LimitsChange>,
    /// What the service had before the change.
    pub(crate) before: Limits,
    /// Why the change was taken back; its stars are about to have what they had before.
    pub(crate) refused: Option<Problem>,
}

/// What a star may use: what it was made with, and what its namespace lets it borrow.
pub(crate) fn limits_of(state: &State, star: &StarRecord) -> Limits {
    let limits = star.template.limits;
    let shared = state.namespaces.get(&star.service.namespace).and_then(|record| record.cpu_borrow);
    Limits { cpu_borrow: limits.cpu_borrow.or(shared).filter(|_| limits.cpu.is_some()), ..limits }
}

impl Node {
    /// Tells the nursery what a star may use, unless it was told so last.
    pub(crate) fn fit(&mut self, star: StarId, step: &mut Step<'_>) {
        self.balloon(star, step);
        let (Some(local), Some(record)) = (self.stars.get_mut(&star), self.state.stars.get(&star)) else { return };
        let wanted = with_soft(limits_of(&self.state, record), local.soft);
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

    /// Answers those who waited for limits that are now answered for by every star. What a star cannot have is taken back
    /// first: the log is to say what holds.
    pub(crate) fn settle_limits(&mut self, step: &mut Step<'_>) {
        let mut left = Vec::new();
        // The newest first: it was made on top of those before it, and with it taken back they may hold.
        while let Some(wait) = self.limit_waits.pop() {
            if self.own_of(&wait.service).any(|(_, local)| local.limiting > 0) || self.log.may_limit(&wait.service) {
                left.push(wait);
                continue;
            }
            let result = match (wait.refused.clone(), self.limit_problem(&wait.service)) {
                (None, None) => Ok(Reply { index: wait.index }),
                (None, Some(problem)) => {
                    let help = "nothing stays changed: the service has the limits it had before";
                    self.take_back(wait, Problem::new(Code::LimitTooLow, problem).help(help), step);
                    continue;
                }
                (Some(refused), Some(problem)) if refused.message != problem => {
                    Err(refused.help(format!("the change was taken back, but {problem}")).after_changes())
                }
                (Some(refused), _) => Err(refused),
            };
            step.effects.push(Effect::Reply { id: wait.id, result });
        }
        left.reverse();
        self.limit_waits = left;
    }

    /// Gives a service the limits it had before a change, as far as nobody has changed them since.
    fn take_back(&mut self, wait: LimitWait, problem: Problem, step: &mut Step<'_>) {
        let now = self.state.services.get(&wait.service).map(|record| record.spec.template.limits);
        let change = now.map(|now| wait.change.taken_back(&wait.before, &now)).filter(|change| !change.is_empty());
        let Some(change) = change else {
            step.effects.push(Effect::Reply { id: wait.id, result: Err(problem) });
            return;
        };
        let command = Command::Limit { service: wait.service.clone(), change: Box::new(change), wall: step.wall };
        let wait = Box::new(LimitWait { refused: Some(problem), ..wait });
        let own = Author::agent(self.config.node);
        self.propose(Purpose::TakeBack(wait), by(Some(own), command, step.wall), step);
    }

    /// A change is taken back, or cannot be. Whoever asked is answered when the stars have their limits of before.
    pub(crate) fn taken_back(&mut self, wait: LimitWait, failure: Option<Problem>, step: &mut Step<'_>) {
        let (Some(refused), Some(failure)) = (&wait.refused, failure) else {
            self.limit_waits.push(wait);
            return;
        };
        let help = format!("the change could not be taken back: {}", failure.message);
        let result = Err(refused.clone().help(help).after_changes());
        step.effects.push(Effect::Reply { id: wait.id, result });
    }

    /// Which star of a service does not have the limits it should have, and why.
    pub(crate) fn limit_problem(&self, service: &ServiceKey) -> Option<String> {
        self.own_of(service).find_map(|(star, local)| {
            let problem = local.limit_problem.as_ref()?;
            let name = self.state.stars.get(&star)?.name();
            Some(format!("star `{name}` cannot be limited so: {problem}"))
        })
    }
}
