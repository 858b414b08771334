//! How stars of a service are replaced, and when a roll-out is over: asks `rollout`, writes what it says.
//!
//! Where a roll-out stands is in the log, so whoever leads next goes on with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{ServiceKey, StarId, StarPhase, Time, WallTime};
use rollout::{Answers, Pace, Previous, Seen, Verdict, Wanted, Watch};
use state::{Command, Rollout, ServiceRecord, Settled, StarRecord};

use crate::event::Effect;
use crate::log::Purpose;
use crate::node::{Node, Step};
use crate::timers::Timer;
use crate::view::{HeldView, RolloutView};

/// Between two looks at what new stars make of requests.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What the stars of a service made of requests.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    of: BTreeMap<StarId, Answers>,
    /// When it was heard.
    at: Option<Time>,
    /// The revision that the service had then: of stars of a later one nothing is known.
    revision: u64,
    /// The revision it has been asked for, until there is an answer.
    awaited: Option<u64>,
    /// Which of the new stars had settled when it was asked last.
    settled: BTreeSet<StarId>,
}

/// What a service should be, and how it gets there. `no_spare`: there is nowhere for a star beside those that are there.
pub(crate) fn wanted(record: &ServiceRecord, no_spare: bool) -> Wanted {
    let stars = record.wanted();
    let is_job = record.spec.job.is_some();
    let (surge, unavailable) = match record.spec.update.room(stars) {
        // The place of a star is its machine, or one that is held for it, or its number: the next one comes when it has gone.
        (_, unavailable) if no_spare || is_job => (0, unavailable.max(1)),
        room => room,
    };
    let pace = match &record.rollout {
        None => Pace { surge, unavailable, ..Pace::default() },
        Some(rollout) => Pace {
            surge,
            unavailable,
            trial: record.spec.update.trial(stars).filter(|_| rollout.trial),
            previous: rollout.previous.map(|before| Previous { revision: before.revision, stars: before.stars }),
            held: rollout.held.is_some(),
        },
    };
    let (singleton, in_place) = (record.spec.template.singleton, no_spare || is_job);
    Wanted { stars, revision: record.revision, singleton, in_place, pace }
}

/// Since when a star is ready, for the log.
pub(crate) fn ready_since(record: &StarRecord) -> Option<WallTime> {
    let turn = record.history.last().filter(|_| record.phase == StarPhase::Ready)?;
    Some(turn.at)
}

/// When a star has settled that is ready since then.
pub(crate) fn settles(record: &ServiceRecord, ready: WallTime) -> WallTime {
    WallTime(ready.0.saturating_add(record.spec.update.healthy_ms.into()))
}

impl Node {
    pub(crate) fn wanted_of(&self, key: &ServiceKey, record: &ServiceRecord) -> Wanted {
        let mut wanted = wanted(record, record.spec.placement.every_node || self.has_no_spare_place(key, record));
        let mut stars = self.state.stars_of(key).filter(|star| star.phase != StarPhase::Ended);
        if record.spec.job.is_some() && stars.any(|star| star.revision != record.revision) {
            // What is left of an earlier run goes at once.
            wanted.pace.unavailable = wanted.stars;
        }
        wanted
    }

    pub(crate) fn rollout_view(&self, key: &ServiceKey, record: &ServiceRecord) -> Option<RolloutView> {
        let rollout = record.rollout.as_ref()?;
        let is_ready =
            |star: &&StarRecord| star.revision == record.revision && star.phase == StarPhase::Ready && !star.leaving;
        let ready = self.state.stars_of(key).filter(is_ready).count();
        Some(RolloutView {
            from: rollout.previous.map(|before| before.version),
            trial: self.wanted_of(key, record).pace.trial,
            ready: u32::try_from(ready).unwrap_or(u32::MAX),
            began: rollout.began,
            ends: rollout.ends,
            held: rollout.held.clone().map(|held| HeldView { since: held.since, reason: held.reason }),
        })
    }

    /// Sees how far a roll-out has come, and has written what follows from that.
    pub(crate) fn settle_rollout(&mut self, key: &ServiceKey, seen: &[Seen], step: &mut Step<'_>) {
        let timer = Timer::Rollout(key.clone());
        let Some(record) = self.state.services.get(key) else { return self.timers.clear(&timer) };
        let rollout = record.rollout.as_ref().filter(|rollout| rollout.held.is_none());
        let Some(rollout) = rollout.filter(|_| self.peers.leads && !record.is_idle() && !self.resting) else {
            self.look_again(key, step);
            return;
        };
        let watch = self.watch(key, record, rollout, seen, step.wall);
        let (revision, deadline_ms) = (record.revision, record.spec.update.deadline_ms);
        let next = self.next_settling(key, record, step.wall);
        let is_bounded = watch.errors_percent.is_some() && watch.can_return;
        let verdict = watch.verdict();
        let is_belief = matches!(verdict, Verdict::Promote | Verdict::Done);
        let has_looked = !is_bounded || self.look_at_answers(key, revision, seen, is_belief, step);
        let settled = match verdict {
            Verdict::Wait { until } => {
                let next = step.now + next.map_or(until, |at| at.min(until)).since(step.wall);
                self.timers.set(timer, if is_bounded { next.min(step.now + LOOK_EVERY) } else { next });
                return;
            }
            // Nothing is believed before it was looked at: the answer comes back here.
            Verdict::Promote | Verdict::Done if !has_looked => return,
            Verdict::Promote => Settled::Promoted,
            Verdict::Done => Settled::Done,
            Verdict::Late => {
                let seconds = deadline_ms as f64 / 1_000.0;
                Settled::Failed { reason: format!("after {seconds} s {}", self.shortfall(key, &watch)) }
            }
            Verdict::Failing => Settled::Failed { reason: self.shortfall(key, &watch) },
            Verdict::Erring => {
                let Answers { requests, failed } = watch.answers;
                let most = watch.errors_percent.unwrap_or_default();
                let reason = format!("{failed} of {requests} requests to its stars failed, at most {most} % may");
                Settled::Failed { reason }
            }
        };
        let purpose = Purpose::Rollout(key.clone());
        if self.log.is_under_way(&purpose) {
            return;
        }
        let command = Command::SettleRollout { service: key.clone(), revision, settled, wall: step.wall };
        self.propose(purpose, command, step);
    }

    /// Has it looked at what the stars of a service make of requests, if that was not done just now; what is to be believed, since the
    /// last of the new stars settled. Whether it was.
    fn look_at_answers(
        &mut self,
        key: &ServiceKey,
        revision: u64,
        seen: &[Seen],
        is_belief: bool,
        step: &mut Step<'_>,
    ) -> bool {
        let heard = &mut self.services.entry(key.clone()).or_default().answers;
        let settled = seen.iter().filter(|star| star.revision == revision && star.settled);
        let settled: BTreeSet<StarId> = settled.map(|star| star.star).collect();
        let is_fresh = heard.awaited.is_none()
            && heard.revision == revision
            && heard.at.is_some_and(|at| step.now < at + LOOK_EVERY)
            && (!is_belief || settled.is_subset(&heard.settled));
        if !is_fresh && heard.awaited.is_none() {
            heard.awaited = Some(revision);
            heard.settled = settled;
            step.effects.push(Effect::LookAtAnswers { service: key.clone() });
        }
        is_fresh
    }

    pub(crate) fn answered(&mut self, service: ServiceKey, answers: Vec<(StarId, Answers)>, step: &Step<'_>) {
        if let Some(local) = self.services.get_mut(&service) {
            let mut of = BTreeMap::<StarId, Answers>::new();
            for (star, answers) in answers {
                let sum = of.entry(star).or_default();
                *sum = sum.and(answers);
            }
            let heard = &mut local.answers;
            heard.of.retain(|star, _| self.state.stars.contains_key(star));
            for (star, now) in of {
                let before = heard.of.entry(star).or_default();
                // A machine that does not answer, or has begun to count anew, takes nothing back.
                if now.requests >= before.requests {
                    *before = now;
                }
            }
            (heard.at, heard.revision) = (Some(step.now), heard.awaited.take().unwrap_or_default());
            self.dirty.insert(service);
        }
    }

    /// What stars of this revision made of requests.
    fn answers_of(&self, key: &ServiceKey, revision: u64) -> Answers {
        let Some(local) = self.services.get(key) else { return Answers::default() };
        let stars = self.state.stars_of(key).filter(|star| star.revision == revision);
        let of_stars = stars.filter_map(|star| local.answers.of.get(&star.id));
        of_stars.fold(Answers::default(), |sum, answers| sum.and(*answers))
    }

    /// Where stars settle without a roll-out, as those that take the place of stars on a drained machine.
    fn look_again(&mut self, key: &ServiceKey, step: &Step<'_>) {
        let timer = Timer::Rollout(key.clone());
        let record =
            self.state.services.get(key).filter(|record| self.peers.leads && record.spec.update.healthy_ms > 0);
        match record.and_then(|record| self.next_settling(key, record, step.wall)) {
            Some(at) => self.timers.set(timer, step.now + at.since(step.wall)),
            None => self.timers.clear(&timer),
        }
    }

    fn watch(
        &self,
        key: &ServiceKey,
        record: &ServiceRecord,
        rollout: &Rollout,
        seen: &[Seen],
        now: WallTime,
    ) -> Watch {
        let count = |is_meant: &dyn Fn(&Seen) -> bool| {
            let alive = seen.iter().filter(|star| star.phase < StarPhase::Draining);
            u32::try_from(alive.filter(|star| is_meant(star)).count()).unwrap_or(u32::MAX)
        };
        let settled = |star: &StarRecord| {
            let since = ready_since(star).filter(|_| star.revision == record.revision)?;
            Some(settles(record, since))
        };
        let promote_after = record.spec.update.promote_after_ms.map(Duration::from_millis);
        // Of interest only where something is to be promoted by itself, and costs a look at all stars.
        let since = promote_after.and_then(|_| self.state.stars_of(key).filter_map(settled).max());
        Watch {
            now,
            ends: rollout.ends,
            trial: self.wanted_of(key, record).pace.trial,
            stars: record.wanted(),
            settled: count(&|star| star.revision == record.revision && star.settled),
            since: since.unwrap_or(now),
            others: count(&|star| star.revision != record.revision && !star.goes),
            promote_after,
            failures: self.failures_of(key, record.revision),
            answers: self.answers_of(key, record.revision),
            errors_percent: record.spec.update.errors_percent.filter(|_| !rollout.pardoned),
            can_return: rollout.previous.is_some(),
        }
    }

    /// Ends in a row, in the place where there were most.
    fn failures_of(&self, key: &ServiceKey, revision: u64) -> u32 {
        let local = self.services.get(key);
        let of = local.into_iter().flat_map(|service| &service.backoff).filter(|((of, _), _)| *of == revision);
        of.map(|(_, backoff)| backoff.failures()).max().unwrap_or_default()
    }

    /// When the next star settles that is ready and has not.
    fn next_settling(&self, key: &ServiceKey, record: &ServiceRecord, now: WallTime) -> Option<WallTime> {
        if record.spec.update.healthy_ms == 0 {
            return None;
        }
        let at = self.state.stars_of(key).filter_map(|star| Some(settles(record, ready_since(star)?)));
        at.filter(|at| *at > now).min()
    }

    /// What a roll-out lacks, in a few words.
    fn shortfall(&self, key: &ServiceKey, watch: &Watch) -> String {
        let stars = watch.trial.unwrap_or(watch.stars);
        let mut text = match watch.trial {
            Some(tried) if watch.settled >= tried => "nobody had promoted it".to_owned(),
            _ => format!("{} of {stars} of its stars were ready", watch.settled.min(stars)),
        };
        if let Some(local) = self.services.get(key) {
            let last = local.last_failure.as_ref().filter(|_| watch.failures > 0);
            text.extend(last.map(|cause| {
                let times =
                    if watch.failures == 1 { "once".to_owned() } else { format!("{} times in a row", watch.failures) };
                format!("; one ended {times}, the last: {cause}")
            }));
        }
        let nowhere = self.nowhere(key).map(|problem| problem.message);
        let failing =
            || self.state.stars_of(key).find_map(|star| Some(format!("{}: {}", star.name(), self.failing(star)?)));
        text.extend(nowhere.or_else(|| failing().filter(|_| watch.failures == 0)).map(|why| format!("; {why}")));
        text
    }
}
