//! Waits until what was asked for holds, and says early when it will not.
//!
//! The agent is asked for its log index first, then for what it knows, then to answer when the index has moved: so
//! nothing is missed and nothing is asked for twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{Client, ServiceView};
use model::{AppKey, Code, ProbeKind, Problem, ServiceKey};
use tokio::time::Instant;

use crate::moment::clock_time;
use crate::screen;

/// Longest wait for a change to hold. A star has 30 s to become ready, and a rolling change has several turns.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest single wait at the agent. Problems of the node, a full disk among them, do not move the index: they are seen
/// this much later.
const WAIT_MS: u64 = 1_000;

/// Waits until a service is as it was last asked to be, by what was written at `asked`.
pub(crate) async fn settled(client: &Client, service: &ServiceKey, asked: u64) -> Result<ServiceView, Problem> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    let mut patience = Patience::default();
    loop {
        let index = client.index(0, 0).await?;
        let view = client.service(service).await?;
        let is_over = patience.is_over(&view);
        let failed = failure(&view);
        if let Some(failure) = failed.clone().filter(|_| is_over).or_else(|| taken_back(&view, asked)) {
            return Err(failure);
        }
        if is_settled(&view) && failed.is_none() {
            return Ok(view);
        }
        wait(client, index, WAIT_MS, deadline, &format!("service `{service}` to settle")).await?;
    }
}

/// How long the stars of a service without a probe must have run: one that fails at its first lines has by then.
const STEADY_FOR: Duration = Duration::from_millis(300);

/// Services that are as they were asked to be.
pub(crate) struct Settled {
    pub(crate) views: Vec<ServiceView>,
    /// Since when.
    pub(crate) at: std::time::Instant,
}

/// Waits until every service of an app is as it was asked to be at `asked`; `seen` hears of each look on the way.
pub(crate) async fn app_settled(
    client: &Client,
    app: &AppKey,
    asked: u64,
    mut seen: impl FnMut(&[ServiceView]),
) -> Result<Settled, Problem> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    let mut steady = Steady::default();
    let mut patience = Patience::default();
    loop {
        let index = client.index(0, 0).await?;
        let mut views = client.services().await?;
        views.retain(|view| view.app == *app);
        seen(&views);
        let over: Vec<bool> = views.iter().map(|view| patience.is_over(view)).collect();
        let failed = |(view, is_over): (&ServiceView, &bool)| {
            let failure = failure(view).filter(|_| *is_over);
            failure.or_else(|| taken_back(view, asked)).or_else(|| unlimited(view))
        };
        if let Some(failure) = views.iter().zip(&over).find_map(failed) {
            return Err(failure);
        }
        let left = steady.left(&views);
        if let (Some(Duration::ZERO), Some((at, _))) = (left, steady.since) {
            return Ok(Settled { views, at: at.into_std() });
        }
        let wait_ms = left.map_or(WAIT_MS, |left| u64::try_from(left.as_millis()).unwrap_or(WAIT_MS) + 1);
        wait(client, index, wait_ms, deadline, &format!("app `{app}` to become ready")).await?;
    }
}

/// How long a service may have no place for a star: one that goes may leave it a moment later.
const NOWHERE_FOR: Duration = Duration::from_secs(2);

/// Since when services have had no place for a star, while nothing else of them changed.
#[derive(Default)]
struct Patience {
    since: BTreeMap<ServiceKey, (Instant, [u64; 2])>,
}

impl Patience {
    /// Whether what is wrong with a service has been so for long enough to be told as the end of it.
    fn is_over(&mut self, view: &ServiceView) -> bool {
        if view.nowhere.is_none() {
            self.since.remove(&view.service);
            return true;
        }
        let now = [view.ready.into(), view.started];
        let (since, before) = self.since.entry(view.service.clone()).or_insert((Instant::now(), now));
        if *before != now {
            (*since, *before) = (Instant::now(), now);
        }
        since.elapsed() >= NOWHERE_FOR
    }
}

/// Since when all services are settled without a star having ended.
#[derive(Default)]
struct Steady {
    since: Option<(Instant, u64)>,
}

impl Steady {
    /// How much longer they must stay so; `None` while they are not settled.
    fn left(&mut self, views: &[ServiceView]) -> Option<Duration> {
        if !views.iter().all(|view| is_settled(view) && failure(view).is_none()) {
            self.since = None;
            return None;
        }
        let restarts = views.iter().map(|view| view.restarts).sum();
        let since = match self.since {
            Some((since, before)) if before == restarts => since,
            _ => Instant::now(),
        };
        self.since = Some((since, restarts));
        let is_unprobed = |view: &ServiceView| matches!(view.spec.template.probe.kind, ProbeKind::Started);
        let long = if views.iter().any(is_unprobed) { STEADY_FOR } else { Duration::ZERO };
        Some(long.saturating_sub(since.elapsed()))
    }
}

/// A wait this long wants a word about why.
const REASON_AFTER: Duration = Duration::from_secs(2);

/// Waits until apps and all their stars are gone. What holds that up is told, once: it goes on by itself afterwards.
pub(crate) async fn gone(client: &Client, apps: &[AppKey]) -> Result<(), Problem> {
    let begun = Instant::now();
    let deadline = begun + SETTLE_TIMEOUT;
    let mut told = false;
    let apps: BTreeSet<&AppKey> = apps.iter().collect();
    loop {
        let index = client.index(0, 0).await?;
        let known = client.apps().await?;
        let services = client.services().await?;
        let stars = client.stars().await?;
        let left = known.iter().any(|view| apps.contains(&view.app))
            || services.iter().any(|view| apps.contains(&view.app))
            || stars.iter().any(|star| apps.contains(&star.app) && star.phase != model::StarPhase::Ended);
        if !left {
            return Ok(());
        }
        if !told
            && begun.elapsed() > REASON_AFTER
            && let Some(problem) = client.status().await?.node.problem
        {
            told = true;
            screen::note(format!("waiting: {problem}"));
        }
        wait(client, index, WAIT_MS, deadline, "stars to end").await?;
    }
}

/// Waits until a service and all its stars are gone.
pub(crate) async fn service_gone(client: &Client, service: &ServiceKey) -> Result<(), Problem> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    loop {
        let index = client.index(0, 0).await?;
        let known = client.services().await?.iter().any(|view| view.service == *service);
        let stars = client.stars().await?;
        if !known && stars.iter().all(|star| star.service != *service || star.phase == model::StarPhase::Ended) {
            return Ok(());
        }
        wait(client, index, WAIT_MS, deadline, "stars to end").await?;
    }
}

async fn wait(client: &Client, index: u64, wait_ms: u64, deadline: Instant, what: &str) -> Result<(), Problem> {
    if Instant::now() > deadline {
        let message = format!("waited {} s for {what}", SETTLE_TIMEOUT.as_secs());
        return Err(Problem::new(Code::Timeout, message).help("it goes on by itself; see `rads c status`"));
    }
    client.index(index, wait_ms).await.map(drop)
}

fn is_settled(view: &ServiceView) -> bool {
    // A job is what it was asked to be whether or not it runs just now.
    if waits_for_somebody(view).is_some() || view.job.is_some() {
        return true;
    }
    let wanted = if view.stopped || view.paused { 0 } else { view.desired };
    view.ready == wanted && !view.changing
}

/// A version that failed, and waits for somebody to say what becomes of it.
pub(crate) fn failed_and_held(view: &ServiceView) -> Option<Problem> {
    let ServiceView { service, version, .. } = view;
    let reason = view.rollout.as_ref()?.held.as_ref()?.reason.as_ref()?;
    let problem = Problem::new(Code::CrashLoop, format!("service `{service}`: version {version} is held: {reason}"));
    Some(problem.help(format!(
        "`rads c logs {service}` has what its stars said; `rads c rollout resume {service}` tries it anew, `rads c rollout abort \
         {service}` takes it back"
    )))
}

/// That a roll-out goes no further: somebody paused it, or its version failed.
pub(crate) fn held(view: &ServiceView) -> Option<String> {
    let (version, held) = (view.version, view.rollout.as_ref()?.held.as_ref()?);
    Some(match &held.reason {
        Some(reason) => format!("version {version} is held: {reason}"),
        None => format!("the roll-out of version {version} is paused"),
    })
}

/// What somebody has to say before a roll-out goes on, once everything is there to judge by.
pub(crate) fn waits_for_somebody(view: &ServiceView) -> Option<String> {
    let rollout = view.rollout.as_ref()?;
    let ServiceView { service, version, .. } = view;
    if let Some(held) = held(view) {
        return Some(format!(
            "{service}: {held}; `rads c rollout resume {service}` lets it go on, `rads c rollout abort {service}` takes it back"
        ));
    }
    let tried = rollout.trial.filter(|tried| rollout.ready >= *tried && view.spec.update.promote_after_ms.is_none())?;
    Some(format!(
        "{service}: version {version} is on trial with {} until {}; `rads c rollout promote {service}` lets it take the place of all, \
         `rads c rollout abort {service}` takes it back",
        screen::count(tried as usize, "star"),
        clock_time(rollout.ends)
    ))
}

/// A version that did not come about, since it was asked for.
fn taken_back(view: &ServiceView, asked: u64) -> Option<Problem> {
    let taken_back = view.taken_back.as_ref().filter(|taken_back| taken_back.index > asked)?;
    let ServiceView { service, version, .. } = view;
    let is_restart = taken_back.version == *version;
    let what = match is_restart {
        true => format!("service `{service}` was not restarted, its stars are those it had: {}", taken_back.reason),
        false => format!("version {} of service `{service}` was taken back: {}", taken_back.version, taken_back.reason),
    };
    let help = match is_restart {
        true => format!("see what its stars said with `rads c logs {service}`"),
        false => format!(
            "`rads c diff {service} {0}` shows what was other about it, `rads c logs {service}` what stars said",
            taken_back.version
        ),
    };
    Some(Problem::new(Code::RolledBack, what).help(help))
}

/// A service whose stars end as soon as they start will not settle. One that has another version to go back to does: it is waited
/// for.
pub(crate) fn failure(view: &ServiceView) -> Option<Problem> {
    // It is not its stars that have something to say about it.
    if let Some(nowhere) = view.nowhere.as_ref().filter(|nowhere| view.problem.as_ref() == Some(&nowhere.message)) {
        return Some(nowhere.clone());
    }
    let comes_back = view.ends_again && view.rollout.as_ref().is_some_and(|rollout| rollout.from.is_some());
    view.problem.as_ref().filter(|_| !comes_back).map(|problem| {
        Problem::new(Code::CrashLoop, format!("service `{}`: {problem}", view.service))
            .help(format!("see what its stars said with `rads c logs {}`", view.service))
    })
}

/// A star that runs and does not have the limits its description asks for. Whoever changes something else does not wait
/// for them.
fn unlimited(view: &ServiceView) -> Option<Problem> {
    let problem = view.limit_problem.as_ref()?;
    let help =
        format!("new stars start with them: `rads c restart {0}`; or change them: `rads c limits {0}`", view.service);
    Some(Problem::new(Code::LimitTooLow, format!("service `{}`: {problem}", view.service)).help(help))
}
