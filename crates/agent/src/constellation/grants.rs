//! What a person may have done about who uses the constellation from outside, and what is shown of it and of who did what. Only
//! controllers give rights: they hold the authority.

use std::time::Duration;

use api::{After, AuditView, GrantView, Granted, NewGrant, WAIT_MAX_MS};
use model::{Code, Name, Problem, WallTime};
use net::identity::request::CheckedRequest;
use net::identity::user::key_hash;
use net::identity::{AccessToken, pem};
use state::{Command, Grant, Proof, State};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::registrar::{Log, Registrar};
use super::security;
use crate::looker::Looker;
use crate::main_loop::Seen;

/// How long a certificate of a user is good when nobody says, and at most: a key in a file is copied more easily than is noticed.
const CERTIFICATE_LIFE_MS: u64 = 90 * 24 * 60 * 60 * 1000;
const CERTIFICATE_LIFE_MAX_MS: u64 = 365 * 24 * 60 * 60 * 1000;

/// Records told at once; an answer of some hundred kilobytes.
const RECORDS_AT_ONCE: usize = 1_000;

impl<L: Log> Registrar<L> {
    /// Gives rights: to who has the token that is told here, or the key of a request.
    ///
    /// # Errors
    /// `AlreadyExists` while there is a grant of that name that is good.
    pub(crate) async fn grant(&self, asked: NewGrant) -> Result<Granted, Problem> {
        let NewGrant { name, role, namespaces, life_ms, request } = asked;
        if let Some(granted) = self.answered().await? {
            return Ok(granted);
        }
        let state = self.log().look(security::members).await?;
        let now = self.now();
        let (authority, _) = security::issuer(security::of(&state)?, self.ring())?;
        let request = request.map(|digits| read_request(&digits)).transpose()?;
        let life_ms = match &request {
            Some(_) if life_ms.is_some_and(|life| life > CERTIFICATE_LIFE_MAX_MS) => {
                return Err(Problem::new(Code::InvalidValue, "a certificate of a user is good for 365 days at most"));
            }
            Some(_) => Some(life_ms.unwrap_or(CERTIFICATE_LIFE_MS)),
            None => life_ms,
        };
        let expires = life_ms.map(|life| WallTime(now.0.saturating_add(life)));
        let (proof, token) = match &request {
            Some(request) => (Proof::Key(key_hash(request)), None),
            None => {
                let token = AccessToken::generate();
                (Proof::Token(token.hash()), Some(token.reveal().to_string()))
            }
        };
        let grant = Grant { role, namespaces, proof, created: now, expires };
        let view = view(&name, &grant);
        // Made before it is written: what cannot be issued is not granted.
        let certificate = match &request {
            Some(request) => {
                let issued = authority.issue_user(request, &name, expires.unwrap_or(now), now);
                let issued = issued.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
                Some(pem::certificates(&issued.chain))
            }
            None => None,
        };
        let granted = Granted {
            grant: view,
            token,
            certificate,
            cluster: authority.cluster().clone(),
            ca_hash: authority.pin().to_string(),
            url: self.home().url(),
        };
        self.held_once(Command::AddGrant { name, grant: Box::new(grant), wall: now }, granted, &state).await
    }

    /// Ends the grant of this name.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) async fn end_grant(&self, name: Name) -> Result<GrantView, Problem> {
        if let Some(ended) = self.answered().await? {
            return Ok(ended);
        }
        let state = self.log().look(security::members).await?;
        let gone = Command::RemoveGrant { name: name.clone(), wall: self.now() };
        let Some(grant) = security::of(&state)?.grants.get(&name) else {
            // It says what to do.
            self.held(gone, &state).await?;
            return Err(Problem::new(Code::NotFound, format!("no grant `{name}`")));
        };
        self.held_once(gone, view(&name, grant), &state).await
    }
}

fn read_request(digits: &str) -> Result<CheckedRequest, Problem> {
    let invalid = |why: String| Problem::new(Code::InvalidValue, why);
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = digits.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> = pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect();
    let bytes = bytes.ok_or_else(|| invalid("the certificate request is not in hexadecimal digits".to_owned()))?;
    CheckedRequest::read(&bytes).map_err(|error| invalid(error.to_string()))
}

fn view(name: &Name, grant: &Grant) -> GrantView {
    GrantView {
        name: name.clone(),
        role: grant.role,
        namespaces: grant.namespaces.clone(),
        certificate: matches!(grant.proof, Proof::Key(_)),
        created: grant.created,
        expires: grant.expires,
    }
}

/// Every grant, by name.
pub(crate) fn views(state: &State) -> Vec<GrantView> {
    state.grants().map(|(name, grant)| view(name, grant)).collect()
}

/// Records after a number; waits for some as long as it is asked to.
pub(crate) async fn audit(
    looker: Looker,
    mut seen: watch::Receiver<Seen>,
    mut leaving: watch::Receiver<bool>,
    after: After,
) -> Result<AuditView, Problem> {
    let until = Instant::now() + Duration::from_millis(after.wait_ms.min(WAIT_MAX_MS));
    loop {
        seen.mark_unchanged();
        let view = looker.look(move |node| audit_view(node.state(), after.after)).await?;
        let moved = async {
            tokio::select! {
                changed = seen.changed() => changed.is_ok(),
                _ = leaving.wait_for(|leaving| *leaving) => false,
            }
        };
        if !view.records.is_empty() || !timeout_at(until, moved).await.unwrap_or(false) {
            return Ok(view);
        }
    }
}

/// Records after a number, with the hash of the one before them.
fn audit_view(state: &State, after: u64) -> AuditView {
    let records = &state.audit.records;
    let first = records.partition_point(|record| record.number <= after);
    let before = match first.checked_sub(1) {
        Some(last) => records.get(last).map(|record| record.hash),
        None => state.audit.before,
    };
    let told = records.iter().skip(first).take(RECORDS_AT_ONCE).cloned().map(Into::into).collect();
    AuditView { before, records: told, more: records.len() - first > RECORDS_AT_ONCE, index: state.index }
}
