//! The life of each star on this node: ordered, probed, drained, stopped, ended.
//!
//! What happens is acted on at once and written behind: a transition waits in the log's next batch. Nothing here depends
//! on that write, only what others see does.

use std::time::Duration;

use model::{Exit, ExitCause, NodeId, RestartPolicy, ServiceKey, StarId, StarPhase};

use crate::event::{Effect, RunningStar, StartOrder};
use crate::node::{Local, NURSERY_PATIENCE, Node, Step};
use crate::pressure;
use crate::probes::start_limit;
use crate::timers::Timer;

/// SIGTERM of signal(7).
const SIGTERM: i32 = 15;
/// Between two kills of a star that does not go: it hangs in the kernel, or the nursery is away.
const KILL_AGAIN: Duration = Duration::from_secs(5);

impl Node {
    /// Tells the nursery to start a star that is assigned here and that it has not been told of.
    pub(crate) fn order(&mut self, star: StarId, step: &mut Step<'_>) {
        let (Some(local), Some(record)) = (self.stars.get_mut(&star), self.state.stars.get(&star)) else { return };
        if !self.nursery_up || local.ordered || record.leaving || local.phase != StarPhase::Assigned {
            return;
        }
        if record.template.singleton && self.state.cluster.is_some() {
            // Another may run elsewhere by now: it is started when that is known not to be so.
            let length = self.leased_until.since(step.now);
            if length.is_zero() {
                return;
            }
            step.effects.push(Effect::Lease { stars: vec![star], length });
        }
        let template = self.template_of(record);
        let Some(local) = self.stars.get_mut(&star) else { return };
        local.ordered = true;
        local.limits = Some(template.limits);
        if !record.template.hooks.before_start.is_empty() {
            // What runs first may hang; the time it may take to get ready begins with it.
            self.timers.set(Timer::Start(star), step.now + start_limit(&record.template, false));
        }
        step.effects.push(Effect::Start {
            order: StartOrder {
                star,
                generation: record.generation,
                service: record.service.clone(),
                name: record.name(),
                template,
                port: record.port,
            },
        });
    }

    pub(crate) fn nursery_up(
        &mut self,
        running: Vec<RunningStar>,
        ended: Vec<(StarId, ExitCause)>,
        step: &mut Step<'_>,
    ) {
        self.nursery_up = true;
        self.nursery_missing = false;
        self.timers.clear(&Timer::Nursery);
        let mut there: Vec<StarId> = Vec::new();
        self.early.clear();
        for report in running {
            let star = report.star;
            let generation = self.state.stars.get(&star).map(|record| record.generation);
            // Of a machine that is alone nobody else writes the log: it is left of a constellation that let go of it.
            if report.generation > self.state.index && self.state.cluster.is_some() {
                there.push(star);
                self.early.push((report, None));
                continue;
            }
            if generation != Some(report.generation) {
                // Nobody here asked for it, or it was asked for by an order that no longer holds.
                step.effects.push(Effect::Kill { star });
                continue;
            }
            there.push(star);
            self.adopt(&report, step);
        }
        for (star, cause) in ended {
            there.push(star);
            self.star_ended(star, cause, step);
        }
        let missing: Vec<StarId> = self
            .stars
            .iter()
            .filter(|(star, local)| local.phase != StarPhase::Ended && !there.contains(star))
            .map(|(star, _)| *star)
            .collect();
        for star in missing {
            let Some(local) = self.stars.get_mut(&star) else { continue };
            if local.phase == StarPhase::Assigned {
                // The order was lost with the nursery that had it, or never given.
                local.ordered = false;
                self.leave_again(star);
                self.order(star, step);
            } else {
                self.star_ended(star, ExitCause::Unknown, step);
            }
        }
        // A nursery that has just begun does not know how long singletons may run.
        self.leased(self.leased_until.since(step.now), step);
        // What was wanted while nothing could be ordered is ordered now.
        self.dirty.extend(self.state.services.keys().cloned());
        self.dirty.extend(self.stars.values().map(|local| local.service.clone()));
    }

    /// Singletons may run on, and those that waited for it may start.
    pub(crate) fn leased(&mut self, length: Duration, step: &mut Step<'_>) {
        if !length.is_zero() {
            self.leased_until = self.leased_until.max(step.now + length);
        }
        let singleton = |star: &StarId| self.state.stars.get(star).is_some_and(|record| record.template.singleton);
        let there = self.stars.iter().filter(|(_, local)| local.phase != StarPhase::Ended).map(|(star, _)| *star);
        let stars: Vec<StarId> = there.filter(singleton).collect();
        if !stars.is_empty() && !length.is_zero() {
            step.effects.push(Effect::Lease { stars: stars.clone(), length });
        }
        stars.into_iter().for_each(|star| self.order(star, step));
    }

    /// Takes over stars whose order has come by now, and ends those that nobody ordered after all.
    pub(crate) fn meet_early(&mut self, step: &mut Step<'_>) {
        let index = self.state.index;
        let met = self.early.extract_if(.., |(early, _)| early.generation <= index);
        for (report, cause) in met.collect::<Vec<_>>() {
            let ordered = self.state.stars.get(&report.star);
            let ordered = ordered.is_some_and(|record| record.generation == report.generation);
            match (ordered, cause) {
                (true, None) => self.adopt(&report, step),
                (_, Some(cause)) => self.star_ended(report.star, cause, step),
                (false, None) => step.effects.push(Effect::Kill { star: report.star }),
            }
        }
    }

    pub(crate) fn nursery_down(&mut self, step: &mut Step<'_>) {
        self.early.clear();
        if std::mem::replace(&mut self.nursery_up, false) {
            self.timers.set(Timer::Nursery, step.now + NURSERY_PATIENCE);
        }
        self.forget_limiting();
    }

    /// Takes over a star that runs: the same process as before, or one whose start nobody wrote down.
    fn adopt(&mut self, report: &RunningStar, step: &mut Step<'_>) {
        let Some(local) = self.stars.get_mut(&report.star) else { return };
        local.ordered = true;
        let process = (report.pid, report.start_time);
        // A change may have been written and not have reached it.
        local.limits = None;
        self.fit(report.star, step);
        let Some(local) = self.stars.get_mut(&report.star) else { return };
        match local.phase {
            // Still on its way: `StarStarted` will come.
            StarPhase::Assigned if report.pid == 0 => {}
            StarPhase::Assigned => self.star_started(report.star, process, step),
            // It ended for us and yet it runs: it is not the one that ended.
            StarPhase::Ended => step.effects.push(Effect::Kill { star: report.star }),
            _ if local.process.is_some_and(|known| known != process) => {
                step.effects.push(Effect::Kill { star: report.star });
            }
            StarPhase::Stopping | StarPhase::Draining => {
                self.hold_again(report.star, step);
                self.stop(report.star, step);
            }
            _ => {
                if local.phase == StarPhase::Starting {
                    self.await_start(report.star, step);
                }
                self.await_deadline(report.star, step);
                self.await_memory(step);
                self.hold_again(report.star, step);
                self.probe(report.star, step);
                self.await_life(report.star, step);
            }
        }
        self.leave_again(report.star);
    }

    /// Lets go of a star that was told to go by an agent that did not come to it.
    fn leave_again(&mut self, star: StarId) {
        if self.state.stars.get(&star).is_some_and(|record| record.leaving) {
            self.leave(star);
        }
    }

    pub(crate) fn star_started(&mut self, star: StarId, process: (u32, u64), step: &mut Step<'_>) {
        let Some(local) = self.stars.get_mut(&star) else {
            step.effects.push(Effect::Kill { star });
            return;
        };
        if local.phase >= StarPhase::Stopping {
            // It was no longer wanted before it ran.
            step.effects.push(Effect::Kill { star });
            return;
        }
        if local.phase != StarPhase::Assigned {
            return;
        }
        local.phase = StarPhase::Starting;
        local.process = Some(process);
        self.log.moved(star, StarPhase::Starting, Some(process), None);
        self.await_start(star, step);
        self.await_deadline(star, step);
        self.balloon(star, step);
        self.await_memory(step);
        self.probe(star, step);
        // It may have been paused while it was on its way.
        self.hold(star, step);
    }

    /// Sets the end of the time it may run. The wall clock measures it across agents, and only it can.
    fn await_deadline(&mut self, star: StarId, step: &mut Step<'_>) {
        let Some(record) = self.state.stars.get(&star) else { return };
        let Some(deadline) = record.template.deadline_ms.map(Duration::from_millis) else { return };
        let ran = record.started.map_or(Duration::ZERO, |started| step.wall.since(started));
        self.timers.set(Timer::Deadline(star), step.now + deadline.saturating_sub(ran));
    }

    pub(crate) fn deadline(&mut self, star: StarId, step: &mut Step<'_>) {
        let Some(local) = self.stars.get_mut(&star).filter(|local| local.phase < StarPhase::Draining) else { return };
        local.overdue = true;
        self.stop(star, step);
    }

    pub(crate) fn start_overdue(&mut self, star: StarId, step: &mut Step<'_>) {
        let is_starting = |local: &&mut Local| match local.phase {
            StarPhase::Assigned => local.ordered,
            phase => phase == StarPhase::Starting,
        };
        let Some(local) = self.stars.get_mut(&star).filter(is_starting) else { return };
        local.timed_out = true;
        self.kill(star, step);
    }

    /// The log says where a star has come to. Of a star of this node it says what this node said before, unless another
    /// decided that it is to go, or that it has ended because this node was given up.
    pub(crate) fn star_moved(&mut self, star: StarId, phase: StarPhase, step: &mut Step<'_>) {
        let Some(record) = self.state.stars.get(&star) else { return };
        self.dirty.insert(record.service.clone());
        let Some(local) = self.stars.get_mut(&star) else {
            let exit = record.exit.as_ref().filter(|_| phase == StarPhase::Ended);
            let failed = exit.filter(|exit| !exit.asked && exit.cause != ExitCause::NodeLost).cloned();
            if let Some(exit) = failed.filter(|exit| !is_over(record.template.restart, &exit.cause)) {
                let (service, node, place) = (record.service.clone(), record.node, (record.revision, record.ordinal));
                self.failed(&service, node, place, exit.cause, step);
            }
            return;
        };
        match phase {
            // It is told by others to go, or was by an agent before this one, which did not hear of it any more.
            StarPhase::Draining | StarPhase::Stopping if local.phase < StarPhase::Draining => {
                // A service that is gone may be known no more; its stars go all the same.
                self.services.entry(local.service.clone()).or_default().leaving.push(star);
            }
            StarPhase::Ended if self.nursery_up && local.phase == StarPhase::Assigned && !local.ordered => {
                // Given and taken while this node was away: the nursery does not know of it, so it would not tell of its end.
                local.phase = StarPhase::Ended;
                self.timers.clear_star(star);
            }
            StarPhase::Ended if local.phase != StarPhase::Ended => {
                // Another may have its place already.
                local.phase = StarPhase::Stopping;
                self.timers.clear_star(star);
                self.kill(star, step);
            }
            _ => {}
        }
    }

    /// A star ended by itself: the next in its place waits the longer, the oftener that happened, and goes elsewhere if that happened
    /// on this machine again and again.
    fn failed(
        &mut self,
        key: &ServiceKey,
        node: NodeId,
        (revision, ordinal): (u64, u32),
        cause: ExitCause,
        step: &Step<'_>,
    ) {
        let Some(record) = self.state.services.get(key).filter(|record| record.spec_of(revision).is_some()) else {
            return;
        };
        let is_current = record.revision == revision;
        let Some(service) = self.services.get_mut(key) else { return };
        service.backoff.entry((revision, ordinal)).or_default().failed(step.now);
        if is_current {
            let shun = service.shuns.entry(node).or_default();
            match cause {
                ExitCause::Evicted => shun.evicted(step.now),
                _ => shun.failed(step.now),
            }
            service.last_failure = Some(cause);
        }
    }

    /// Lets a star go that was told so by its name.
    pub(crate) fn leave(&mut self, star: StarId) {
        let Some(record) = self.state.stars.get(&star) else { return };
        let (key, ordinal) = (record.service.clone(), record.ordinal);
        // Its own node lets it go. Its service may be gone and known no more; its stars go all the same.
        if self.stars.get(&star).is_some_and(|local| local.phase < StarPhase::Draining) {
            self.services.entry(key.clone()).or_default().leaving.push(star);
        }
        // Its place is the first that is taken, unless nothing is to run there.
        let is_held = self.state.services.get(&key).is_none_or(|service| service.held.contains(&ordinal));
        if let Some(service) = self.services.get_mut(&key).filter(|_| !is_held) {
            service.first.insert(ordinal);
        }
        self.dirty.insert(key);
    }

    /// Sends a star no new requests, or ends it at once when it has none. Gives whether the proxy has to be told.
    pub(crate) fn retire(&mut self, star: StarId, step: &mut Step<'_>) -> bool {
        let (Some(local), Some(record)) = (self.stars.get_mut(&star), self.state.stars.get(&star)) else {
            return false;
        };
        match local.phase {
            StarPhase::Assigned if !local.ordered => {
                let exit =
                    Exit { cause: ExitCause::StartFailed { reason: "no longer wanted".to_owned() }, asked: true };
                self.end(star, exit);
            }
            StarPhase::Assigned => {
                local.phase = StarPhase::Stopping;
                self.log.moved(star, StarPhase::Stopping, None, None);
                self.kill(star, step);
            }
            StarPhase::Ready if local.port.is_some() => {
                local.phase = StarPhase::Draining;
                self.log.moved(star, StarPhase::Draining, None, None);
                let grace = Duration::from_millis(record.template.grace_ms.into());
                self.timers.clear(&Timer::Probe(star));
                self.timers.set(Timer::Drain(star), step.now + grace);
                return true;
            }
            StarPhase::Starting | StarPhase::Ready | StarPhase::Unready | StarPhase::Paused => self.stop(star, step),
            StarPhase::Draining | StarPhase::Stopping | StarPhase::Ended => {}
        }
        false
    }

    /// Its requests are finished, or have had their time.
    pub(crate) fn star_drained(&mut self, star: StarId, step: &mut Step<'_>) {
        if self.stars.get(&star).is_some_and(|local| local.phase == StarPhase::Draining) {
            self.stop(star, step);
        }
    }

    /// Its hook now, or the signal; the kill after its grace, whatever came of that.
    fn stop(&mut self, star: StarId, step: &mut Step<'_>) {
        let (Some(local), Some(record)) = (self.stars.get_mut(&star), self.state.stars.get(&star)) else { return };
        let was = std::mem::replace(&mut local.phase, StarPhase::Stopping);
        self.timers.clear_star(star);
        self.log.moved(star, StarPhase::Stopping, None, None);
        let template = &record.template;
        let grace = Duration::from_millis(template.grace_ms.into());
        // It has its signal already when it gives way, and others wait for its memory.
        let (grace, hook) = match local.gives_way {
            true => (grace.min(pressure::GRACE_MAX), Vec::new()),
            false => (grace, template.hooks.before_stop.clone()),
        };
        self.timers.set(Timer::Kill(star), step.now + grace);
        local.in_hook = !hook.is_empty();
        if was == StarPhase::Paused {
            self.freeze(star, false, step);
        }
        if hook.is_empty() {
            self.tell_to_stop(star, step);
        } else {
            step.effects.push(Effect::Hook { star, command: hook });
        }
    }

    pub(crate) fn tell_to_stop(&mut self, star: StarId, step: &mut Step<'_>) {
        let signal = self.state.stars.get(&star).and_then(|record| record.template.stop_signal).unwrap_or(SIGTERM);
        step.effects.push(Effect::Signal { star, signal });
    }

    pub(crate) fn hook_ended(&mut self, star: StarId, step: &mut Step<'_>) {
        let Some(local) = self.stars.get_mut(&star) else { return };
        if std::mem::take(&mut local.in_hook) && local.phase == StarPhase::Stopping {
            self.tell_to_stop(star, step);
        }
    }

    pub(crate) fn kill(&mut self, star: StarId, step: &mut Step<'_>) {
        if self.stars.get(&star).is_some_and(|local| local.phase != StarPhase::Ended) {
            step.effects.push(Effect::Kill { star });
            self.timers.set(Timer::Kill(star), step.now + KILL_AGAIN);
        }
    }

    pub(crate) fn star_ended(&mut self, star: StarId, cause: ExitCause, step: &mut Step<'_>) {
        if let Some((_, ended)) = self.early.iter_mut().find(|(early, _)| early.star == star) {
            *ended = Some(cause);
            return;
        }
        let (Some(local), Some(record)) = (self.stars.get(&star), self.state.stars.get(&star)) else {
            // Known to the nursery alone.
            step.effects.push(Effect::Forget { star });
            return;
        };
        if local.phase == StarPhase::Ended {
            return;
        }
        let asked = local.phase >= StarPhase::Draining && !local.overdue;
        let cause = match cause {
            _ if local.timed_out => ExitCause::StartTimeout,
            _ if local.unhealthy => ExitCause::Unhealthy,
            _ if local.overdue => ExitCause::Deadline,
            _ if local.gives_way => ExitCause::Evicted,
            cause => cause,
        };
        let (key, ordinal, revision) = (local.service.clone(), local.ordinal, local.revision);
        if !asked && !is_over(record.template.restart, &cause) {
            self.failed(&key, self.config.node, (revision, ordinal), cause.clone(), step);
        }
        self.end(star, Exit { cause, asked });
    }

    fn end(&mut self, star: StarId, exit: Exit) {
        let Some(local) = self.stars.get_mut(&star) else { return };
        local.phase = StarPhase::Ended;
        local.exit = Some(exit.clone());
        local.limiting = 0;
        local.limit_problem = None;
        local.freeze_problem = None;
        self.timers.clear_star(star);
        self.log.moved(star, StarPhase::Ended, None, Some(exit));
        self.weighing.void();
        self.dirty.insert(local.service.clone());
    }
}

/// Whether a star that ended by itself is not to be replaced.
pub(crate) fn is_over(policy: RestartPolicy, cause: &ExitCause) -> bool {
    match policy {
        RestartPolicy::Always => false,
        RestartPolicy::OnFailure => cause.is_success(),
        RestartPolicy::Never => true,
    }
}
