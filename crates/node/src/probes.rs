//! What is asked of a star, when, and what its answers mean: whether it has started, whether it is ready for requests,
//! whether it still lives. Each has consequences of its own.
//!
//! First its start: until its start-up probe passes nothing else is asked. Then its readiness, on which its requests depend.
//! Its life is asked for beside that from the end of its start on; without a start-up probe that is when it is first ready,
//! so that a slow start is not taken for death.

use std::time::Duration;

use model::{Network, Probe, ProbeKind, ProbeRole, StarId, StarPhase, StarTemplate};

use crate::event::Effect;
use crate::node::{Local, Node, Step};
use crate::timers::Timer;

/// Longest wait between two probes of a star that gets ready: short beside what a person notices, long enough that a slow
/// start costs little.
const STARTING_PROBE_MAX: Duration = Duration::from_millis(100);

/// How long a star may take: for its start while that is not over, then to get ready.
pub(crate) fn start_limit(template: &StarTemplate, begun: bool) -> Duration {
    let probe = template.health.startup.as_ref().filter(|_| !begun).unwrap_or(&template.probe);
    Duration::from_millis(probe.start_ms.into())
}

fn interval(probe: &Probe) -> Duration {
    Duration::from_millis(probe.interval_ms.into())
}

fn is_probed(phase: StarPhase) -> bool {
    matches!(phase, StarPhase::Starting | StarPhase::Ready | StarPhase::Unready)
}

/// 1, 2, 4 … ms after the first failures, up to `most`.
fn backed_off(failures: u32, most: Duration) -> Duration {
    Duration::from_millis(1 << failures.saturating_sub(1).min(20)).min(most)
}

impl Node {
    pub(crate) fn await_start(&mut self, star: StarId, step: &mut Step<'_>) {
        if let (Some(local), Some(record)) = (self.stars.get(&star), self.state.stars.get(&star)) {
            self.timers.set(Timer::Start(star), step.now + start_limit(&record.template, local.begun));
        }
    }

    /// Asks whether a star has started, or else whether it is ready. One that listens on nothing is ready because it runs.
    pub(crate) fn probe(&mut self, star: StarId, step: &mut Step<'_>) {
        let (Some(local), Some(record)) = (self.stars.get_mut(&star), self.state.stars.get(&star)) else { return };
        if local.probing || local.gives_way || !is_probed(local.phase) {
            return;
        }
        let template = &record.template;
        let (role, probe) = match &template.health.startup {
            Some(startup) if !local.begun => (ProbeRole::Startup, startup),
            _ => (ProbeRole::Ready, &template.probe),
        };
        match ask(star, local, template, role, probe) {
            Some(effect) => {
                local.probing = true;
                step.effects.push(effect);
            }
            None if role == ProbeRole::Startup => self.begun(star, step),
            None => self.ready(star, step),
        }
    }

    pub(crate) fn star_probed(
        &mut self,
        star: StarId,
        role: ProbeRole,
        outcome: Result<(), String>,
        step: &mut Step<'_>,
    ) {
        if self.stars.get(&star).is_some_and(|local| local.gives_way) {
            // Asked before it was told to end.
            return;
        }
        if let (Some(local), Err(why)) = (self.stars.get_mut(&star), &outcome) {
            local.failing = Some(why.clone());
        }
        match role {
            ProbeRole::Startup => self.startup_probed(star, outcome.is_ok(), step),
            ProbeRole::Ready => self.readiness_probed(star, outcome.is_ok(), step),
            ProbeRole::Live => self.life_probed(star, outcome.is_ok(), step),
        }
    }

    fn startup_probed(&mut self, star: StarId, passed: bool, step: &mut Step<'_>) {
        let (Some(local), Some(record)) = (self.stars.get_mut(&star), self.state.stars.get(&star)) else { return };
        local.probing = false;
        let Some(startup) = record.template.health.startup.as_ref().filter(|_| is_probed(local.phase)) else { return };
        if passed {
            self.begun(star, step);
            return;
        }
        local.failed_probes = local.failed_probes.saturating_add(1);
        let wait = backed_off(local.failed_probes, interval(startup));
        self.timers.set(Timer::Probe(star), step.now + wait);
    }

    /// Its start is over: from here on it has the time to get ready, and has to live.
    fn begun(&mut self, star: StarId, step: &mut Step<'_>) {
        let Some(local) = self.stars.get_mut(&star) else { return };
        local.begun = true;
        local.failed_probes = 0;
        if local.phase == StarPhase::Starting {
            self.await_start(star, step);
        }
        self.probe(star, step);
        self.await_life(star, step);
    }

    fn readiness_probed(&mut self, star: StarId, passed: bool, step: &mut Step<'_>) {
        let (Some(local), Some(record)) = (self.stars.get_mut(&star), self.state.stars.get(&star)) else { return };
        local.probing = false;
        if !is_probed(local.phase) {
            return;
        }
        let probe = &record.template.probe;
        let interval = interval(probe);
        if passed {
            local.failed_probes = 0;
            self.ready(star, step);
            self.timers.set(Timer::Probe(star), step.now + interval);
            return;
        }
        local.failed_probes = local.failed_probes.saturating_add(1);
        let was_ready = matches!(local.phase, StarPhase::Ready | StarPhase::Unready);
        if was_ready && probe.restart_after.is_some_and(|most| local.failed_probes >= most) {
            local.unhealthy = true;
            self.kill(star, step);
            return;
        }
        let wait = match local.phase {
            StarPhase::Starting => backed_off(local.failed_probes, STARTING_PROBE_MAX),
            _ => interval,
        };
        if local.phase == StarPhase::Ready && local.failed_probes >= probe.failures {
            local.phase = StarPhase::Unready;
            self.log.moved(star, StarPhase::Unready, None, None);
            self.dirty.insert(local.service.clone());
        }
        self.timers.set(Timer::Probe(star), step.now + wait);
    }

    fn ready(&mut self, star: StarId, step: &mut Step<'_>) {
        let Some(local) = self.stars.get_mut(&star) else { return };
        local.failing = None;
        if local.phase == StarPhase::Ready {
            return;
        }
        local.phase = StarPhase::Ready;
        local.failed_probes = 0;
        let first = !std::mem::replace(&mut local.begun, true);
        self.timers.clear(&Timer::Start(star));
        self.log.moved(star, StarPhase::Ready, None, None);
        self.dirty.insert(local.service.clone());
        if first {
            self.await_life(star, step);
        }
    }

    /// Asks for its life an interval from now, if that is to be asked at all and its start is over.
    pub(crate) fn await_life(&mut self, star: StarId, step: &mut Step<'_>) {
        let (Some(local), Some(record)) = (self.stars.get(&star), self.state.stars.get(&star)) else { return };
        let live = record.template.health.live.as_ref().filter(|_| local.begun && is_probed(local.phase));
        if let Some(live) = live {
            self.timers.set(Timer::Live(star), step.now + interval(live));
        }
    }

    pub(crate) fn probe_life(&mut self, star: StarId, step: &mut Step<'_>) {
        let (Some(local), Some(record)) = (self.stars.get_mut(&star), self.state.stars.get(&star)) else { return };
        // One that is still on its way is answered, and then asked again.
        if local.probing_life || local.gives_way || !is_probed(local.phase) {
            return;
        }
        let template = &record.template;
        let asked = template.health.live.as_ref().and_then(|live| ask(star, local, template, ProbeRole::Live, live));
        if let Some(effect) = asked {
            local.probing_life = true;
            step.effects.push(effect);
        }
    }

    fn life_probed(&mut self, star: StarId, passed: bool, step: &mut Step<'_>) {
        let (Some(local), Some(record)) = (self.stars.get_mut(&star), self.state.stars.get(&star)) else { return };
        local.probing_life = false;
        let Some(live) = record.template.health.live.as_ref().filter(|_| is_probed(local.phase)) else { return };
        local.failed_life = if passed { 0 } else { local.failed_life.saturating_add(1) };
        if local.failed_life >= live.failures {
            local.unhealthy = true;
            self.kill(star, step);
            return;
        }
        self.timers.set(Timer::Live(star), step.now + interval(live));
    }
}

/// One look; none where there is nothing to ask.
fn ask(star: StarId, local: &Local, template: &StarTemplate, role: ProbeRole, probe: &Probe) -> Option<Effect> {
    let kind = probe.kind.clone();
    if kind == ProbeKind::Started || (kind.needs_port() && local.port.is_none()) {
        return None;
    }
    let host_network = template.network == Network::Host;
    let timeout = Duration::from_millis(probe.timeout_ms.into());
    Some(Effect::Probe { star, role, port: local.port, host_network, kind, timeout })
}
