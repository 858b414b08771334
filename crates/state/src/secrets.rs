//! Secrets of a constellation: names, and values that are sealed under keys which controllers alone hold. A machine that is
//! alone keeps its own beside the log.

use model::secret::{SECRET_MAX, SECRETS_MAX};
use model::{AppSpec, Code, Problem, SecretKey, SecretView, ServiceKey, WallTime};
use serde::{Deserialize, Serialize};

use crate::apply::{Applied, Change};
use crate::record::State;
use crate::rollouts;

/// Longest sealed value: the number of its key, a nonce and a tag are beside it.
pub const SEALED_MAX_BYTES: usize = SECRET_MAX.0 as usize + 64;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRecord {
    #[serde(with = "serde_bytes")]
    pub sealed: Vec<u8>,
    /// How often it was set.
    pub version: u64,
    pub changed: WallTime,
}

impl State {
    /// Every secret, by name.
    pub fn secret_views(&self) -> Vec<SecretView> {
        let view = |(secret, record): (&SecretKey, &SecretRecord)| SecretView {
            secret: secret.clone(),
            version: record.version,
            changed: record.changed,
        };
        self.secrets.iter().map(view).collect()
    }

    /// A service that names a secret.
    pub fn user_of(&self, secret: &SecretKey) -> Option<&ServiceKey> {
        let mut services = self.services.iter().filter(|(key, _)| key.namespace == secret.namespace);
        let uses = services.find(|(_, service)| service.spec.template.secrets().contains(&secret.name));
        uses.map(|(key, _)| key)
    }
}

pub(crate) fn set(
    state: &mut State,
    secret: &SecretKey,
    sealed: &[u8],
    wall: WallTime,
    changes: &mut Vec<Change>,
) -> Applied {
    if state.cluster.is_none() {
        return Err(Problem::new(Code::Conflict, "a machine that is alone keeps its secrets beside its log"));
    }
    if sealed.is_empty() || sealed.len() > SEALED_MAX_BYTES {
        return Err(Problem::new(Code::InvalidValue, format!("a secret has between 1 byte and {SECRET_MAX}")));
    }
    let before = state.secrets.get(secret).map(|record| record.version);
    if before.is_none() && state.secrets.len() >= SECRETS_MAX {
        let problem = Problem::new(Code::InvalidValue, format!("a constellation keeps at most {SECRETS_MAX} secrets"));
        return Err(problem.help("delete some with `rads c secrets delete NAME`"));
    }
    let record = SecretRecord { sealed: sealed.to_vec(), version: before.unwrap_or(0) + 1, changed: wall };
    state.secrets.insert(secret.clone(), record);
    let what = if before.is_some() { "set anew" } else { "set" };
    state.record(wall, format!("secret `{secret}` {what}"));
    changes.push(Change::SecretSet { secret: secret.clone() });
    if before.is_some() {
        rollouts::secret_changed(state, secret, wall, changes);
    }
    Ok(())
}

pub(crate) fn delete(state: &mut State, secret: &SecretKey, wall: WallTime, changes: &mut Vec<Change>) -> Applied {
    if !state.secrets.contains_key(secret) {
        return Err(missing(secret));
    }
    if let Some(service) = state.user_of(secret) {
        let message = format!("secret `{secret}` is in use by service `{service}`");
        let help = "take it out of the app first, or set another value with `rads c secrets set`";
        return Err(Problem::new(Code::Conflict, message).help(help));
    }
    state.secrets.remove(secret);
    state.record(wall, format!("secret `{secret}` deleted"));
    changes.push(Change::SecretDeleted { secret: secret.clone() });
    Ok(())
}

/// Refuses an app that names secrets which are not there.
pub(crate) fn check(state: &State, spec: &AppSpec) -> Applied {
    if state.cluster.is_none() {
        return Ok(());
    }
    for (service, of) in &spec.services {
        for name in of.template.secrets() {
            let secret = SecretKey { namespace: spec.app.namespace.clone(), name: name.clone() };
            if !state.secrets.contains_key(&secret) {
                let mut problem = missing(&secret);
                problem.message = format!("service `{service}`: {}", problem.message);
                return Err(problem);
            }
        }
    }
    Ok(())
}

fn missing(secret: &SecretKey) -> Problem {
    let problem = Problem::new(Code::SecretMissing, format!("there is no secret `{secret}`"));
    problem.help(format!("set it with `rads c secrets set {secret}`"))
}
