//! What requests meet: some versions get ready and answer all of them with an error.

use model::{ServiceKey, StarId};
use node::{Answers, Event};
use state::{Command, Settled};

use super::apps::is_erring;
use super::world::{Bug, World};

/// That came to each star by the entry point of each machine. More than it takes to judge a version.
const REQUESTS: u64 = 30;

impl World {
    /// Tells a machine what the entry points of those that it can ask have seen of a service.
    pub(crate) fn look_at_answers(&mut self, at: usize, service: ServiceKey) {
        let asked = (0..self.machines.len()).filter(|other| self.connected(at, *other));
        let seen = asked.filter_map(|other| self.machines[other].routes.get(&service)).flatten();
        let answers: Vec<(StarId, Answers)> =
            seen.map(|endpoint| (endpoint.star, self.made_by(endpoint.star))).collect();
        self.soon(at, Event::Answered { service, answers });
    }

    fn made_by(&self, star: StarId) -> Answers {
        let errs = self.truth.stars.get(&star).is_some_and(|record| is_erring(&record.template));
        Answers { requests: REQUESTS, failed: if errs { REQUESTS } else { 0 } }
    }

    /// What a machine was told is not forgotten while it runs. Gives what its agent hears of it.
    pub(crate) fn heard(&mut self, at: usize, mut event: Event) -> Event {
        if let Event::Answered { answers, .. } = &mut event {
            let failed = answers.iter().filter(|(_, answers)| answers.failed > 0).map(|(star, _)| *star);
            self.machines[at].known_to_err.extend(failed);
            if self.options.bug == Some(Bug::Deaf) {
                answers.clear();
            }
        }
        event
    }

    /// Nothing is believed of which its machine knows that it fails.
    pub(crate) fn check_settled(&mut self, at: usize, command: &Command) {
        let Command::SettleRollout { service, revision, settled, .. } = command.bare() else { return };
        let Some(record) = self.truth.services.get(service) else { return };
        let is_asked_for = record.spec.update.errors_percent.is_some()
            && record.rollout.as_ref().is_some_and(|rollout| rollout.previous.is_some() && !rollout.pardoned);
        if *revision != record.revision || !is_asked_for {
            return;
        }
        match settled {
            Settled::Failed { .. } => {}
            Settled::Done | Settled::Promoted => {
                let is_known = |star: &StarId| self.machines[at].known_to_err.contains(star);
                let believed = self.truth.stars_of(service).filter(|star| star.revision == *revision);
                let erring: Vec<StarId> = believed.map(|star| star.id).filter(is_known).collect();
                self.must(erring.is_empty(), &format!("what is known to fail is not believed: {erring:?}"));
            }
        }
    }
}
