//! Changes of who is let in and believed, once under the key they came with: who asks again is given the first answer.
//!
//! An answer may tell a secret that is kept nowhere else: a token. It is in the log with the change, sealed under a key that only
//! controllers have, and opens for the same request of the same asker. What only shows how things are is shown as it is now.

use model::{Code, Once, Problem};
use net::identity::KeyUse;
use net::identity::keyring::OpenError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use state::{Command, State};

use super::registrar::{Log, Registrar};
use super::security;

/// A command that is applied once, if whoever asked chose a key.
pub(crate) fn under_key(command: Command, now: model::WallTime, answer: Option<Vec<u8>>) -> Command {
    match api::keyed::current() {
        Some(once) => Command::Keyed { once, command: Box::new(command), wall: now, answer },
        None => command,
    }
}

/// What became of the change that is asked for here, if it was made under its key before; as far as the state here knows.
pub(crate) async fn outcome(log: &impl Log) -> Result<Option<Result<u64, Problem>>, Problem> {
    match api::keyed::current() {
        Some(once) => log.look(move |state| state.keys.outcome(&once)).await,
        None => Ok(None),
    }
}

impl<L: Log> Registrar<L> {
    /// Whether the change that is asked for here was made under its key before. Catches up first.
    ///
    /// # Errors
    /// Why it was refused then.
    pub(crate) async fn is_done(&self) -> Result<bool, Problem> {
        self.log().catch_up().await?;
        Ok(outcome(self.log()).await?.transpose()?.is_some())
    }

    /// The answer to the change that is asked for here, if it was made under its key before. Catches up first.
    ///
    /// # Errors
    /// Why it was refused then; `Conflict` when the answer is of no use any more.
    pub(crate) async fn answered<T: DeserializeOwned>(&self) -> Result<Option<T>, Problem> {
        if !self.is_done().await? {
            return Ok(None);
        }
        let Some(once) = api::keyed::current() else { return Ok(None) };
        let (key, asked) = (once.key.clone(), once.clone());
        let sealed = self.log().look(move |state| state.keys.answer(&asked).map(<[u8]>::to_vec)).await?;
        let lost = |why: &str| {
            let problem = Problem::new(Code::Conflict, format!("what was asked for under `{key}` is done, and {why}"));
            problem.help("look at what there is, and ask for what is missing under a new key")
        };
        // Written by a node of a version that keeps none.
        let sealed = sealed.ok_or_else(|| lost("its answer was not kept"))?;
        let opened = self.ring().for_use(KeyUse::Answer).open(&self.context(&once), &sealed);
        let answer = opened.map_err(|error| match error {
            OpenError::Forged => lost("its answer is for who asked for it first"),
            OpenError::UnknownKey(_) | OpenError::Short => lost("its answer cannot be read any more"),
        })?;
        let answer = serde_json::from_slice(&answer);
        answer.map(Some).map_err(|error| Problem::new(Code::DataCorrupt, format!("an answer that was kept: {error}")))
    }

    /// Has a command written that would hold, with the answer that whoever asks for it is to have; gives the first such answer.
    pub(crate) async fn held_once<T: Serialize + DeserializeOwned>(
        &self,
        command: Command,
        answer: T,
        state: &State,
    ) -> Result<T, Problem> {
        let Some(once) = api::keyed::current() else {
            return self.held(command, state).await.map(|()| answer);
        };
        let plain = serde_json::to_vec(&answer).map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        let sealed = self.ring().for_use(KeyUse::Answer).seal(&self.context(&once), &plain);
        self.written_once(command, Some(sealed), state).await?;
        // Somebody may have been faster.
        self.answered().await?.ok_or_else(not_kept)
    }

    /// Has a command written that would hold, under the key of the request.
    pub(super) async fn written_once(
        &self,
        command: Command,
        answer: Option<Vec<u8>>,
        state: &State,
    ) -> Result<(), Problem> {
        if let Some(problem) = security::refusal(state, &command) {
            return Err(problem);
        }
        let now = self.now();
        self.log().write(under_key(self.asked(command), now, answer)).await?;
        outcome(self.log()).await?.unwrap_or_else(|| Err(not_kept())).map(drop)
    }

    /// What an answer is sealed for.
    fn context(&self, once: &Once) -> Vec<u8> {
        let who = format!("{:?}", self.author().who);
        [once.key.as_str().as_bytes(), &[0], &once.request.0, who.as_bytes()].concat()
    }
}

/// The place for keys was full.
fn not_kept() -> Problem {
    Problem::new(Code::Unavailable, "too many changes with idempotency keys came within a minute")
        .help("wait a minute, or send this one without a key; nothing was changed")
}
