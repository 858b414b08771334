//! Another authority in the place of the present one, without a moment in which nodes do not believe each other.
//!
//! Three steps: all trust the successor; it issues, and nodes renew; the predecessor goes when nobody needs it. The first is
//! asked for, the others follow, on the leader. Who sleeps through the first finds the successor by the predecessor's signature
//! (`net::identity::authority`).

use std::time::Duration;

use model::{Code, Problem};
use net::identity::{Authority, KeyUse, SealedAuthority};
use state::{Command, State};
use tokio::time::Instant;

use super::once;
use super::registrar::{Log, Registrar};
use super::security;
use super::shared::Shared;
use crate::clock;

/// How long a successor is trusted before it issues: commands reach every node that is there within a second or two.
const ANNOUNCED_FOR: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The second authority follows the first: it issues from here on.
    Issue,
    /// The last one is not needed any more.
    Retire,
}

/// `needed` tells whether somebody needs the last authority.
pub(super) fn next(authorities: &[SealedAuthority], needed: bool) -> Option<Step> {
    let [first, second, ..] = authorities else { return None };
    if second.cross.get(1).is_some_and(|predecessor| predecessor == &first.certificate) {
        return Some(Step::Issue);
    }
    (!needed).then_some(Step::Retire)
}

impl<L: Log> Registrar<L> {
    /// Begins to change the authority.
    ///
    /// # Errors
    /// `Conflict` while a change is under way.
    pub(crate) async fn rotate(&self, now: model::WallTime) -> Result<(), Problem> {
        if self.is_done().await? {
            return Ok(());
        }
        let state = self.log().look(security::members).await?;
        let known = security::of(&state)?;
        if known.authorities.len() > 1 {
            let problem = Problem::new(Code::Conflict, "the certificate authority is being changed already");
            return Err(problem.help("`rads c certs` shows how far it has come"));
        }
        let (present, _) = security::issuer(known, self.ring())?;
        let successor = present.successor(now).map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        let record = security::record(&successor, &self.ring().for_use(KeyUse::Authority))?;
        let authorities = known.authorities.iter().cloned().chain([record]).collect();
        let (lifetime_days, base) = (known.lifetime_days, known.version);
        self.set(Command::SetAuthorities { authorities, lifetime_days, base, wall: now }, &state).await
    }

    /// Takes the next step of a change, if there is one to take.
    pub(super) async fn step(&self, state: &State, step: Step, now: model::WallTime) -> Result<(), Problem> {
        let known = security::of(state)?;
        let mut authorities = known.authorities.clone();
        match step {
            Step::Issue => authorities.swap(0, 1),
            Step::Retire => {
                authorities.pop();
                if authorities.len() == 1 {
                    // Nobody trusts the predecessor any more: what leads to it is of no use.
                    let sealer = self.ring().for_use(KeyUse::Authority);
                    let all = security::authorities(known)?;
                    let opened = all.first().map(|first| Authority::open(first, &sealer)).transpose();
                    let opened = opened.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
                    authorities = opened
                        .map(|opened| security::record(&opened.without_cross(), &sealer))
                        .into_iter()
                        .collect::<Result<_, _>>()?;
                }
            }
        }
        let (lifetime_days, base) = (known.lifetime_days, known.version);
        self.set(Command::SetAuthorities { authorities, lifetime_days, base, wall: now }, state).await
    }

    async fn set(&self, command: Command, state: &State) -> Result<(), Problem> {
        if let Some(problem) = security::refusal(state, &command) {
            return Err(problem);
        }
        let index = self.log().write(once::under_key(command, self.now(), None)).await?;
        if let Some(outcome) = once::outcome(self.log()).await? {
            return outcome.map(drop);
        }
        let version = self.log().look(|state| state.security.as_ref().map(|security| security.version)).await?;
        if version.is_some_and(|version| version >= index) {
            return Ok(());
        }
        Err(Problem::new(Code::Conflict, "the certificate authorities have changed meanwhile")
            .help("look at them again with `rads c certs`, then repeat"))
    }
}

/// Takes the steps of a change, while this node leads and until the agent ends.
pub(crate) async fn run(registrar: Registrar<Shared>, shared: Shared, clock: std::sync::Arc<dyn net::tls::Clock>) {
    // The version of the authorities, and since when it is seen.
    let mut seen = (0, Instant::now());
    loop {
        clock::rest(LOOK_EVERY).await;
        let look = |state: &State| {
            let security = state.security.as_ref().filter(|security| security.authorities.len() > 1)?;
            Some((security.version, security::members(state)))
        };
        let Ok(looked) = registrar.log().look(look).await else { return };
        let Some((version, state)) = looked else { continue };
        if seen.0 != version {
            seen = (version, Instant::now());
        }
        if shared.leader() != Some(shared.roads.me()) {
            continue;
        }
        let now = clock.now();
        let stepped = async {
            let known = security::of(&state)?;
            let last = known.authorities.last().map(|authority| authority.id);
            let needed = last.is_some_and(|last| state.need_authority(last, now).next().is_some());
            match next(&security::authorities(known)?, needed) {
                Some(Step::Issue) if seen.1.elapsed() < ANNOUNCED_FOR => Ok(None),
                Some(step) => registrar.step(&state, step, now).await.map(|()| Some(step)),
                None => Ok(None),
            }
        };
        match stepped.await {
            Ok(None) => {}
            Ok(Some(step)) => tracing::info!(?step, "the certificate authority is being changed"),
            Err(problem) => tracing::warn!(%problem, "the certificate authority stays as it is"),
        }
    }
}
