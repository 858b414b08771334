//! What is done here, beside the log, once under its key: snapshots are taken, deleted and brought back.
//!
//! Under a key it is done to its end, though whoever asked may be gone: that is when they ask again.

use std::sync::Arc;

use api::{RestoreSnapshot, SnapshotTaken, SnapshotView, TakeSnapshot};
use model::{Code, Name, Problem, ServiceKey, Verb};
use serde::Serialize;
use serde::de::DeserializeOwned;
use store::Known;

use crate::beside::beside;
use crate::clock;
use crate::control::Remote;

/// How a request stands when it is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begun {
    First,
    /// An agent began it before, and ended within it.
    Again,
}

impl Begun {
    /// # Errors
    /// `Conflict` when it may be half done.
    fn check(self) -> Result<(), Problem> {
        match self {
            Self::First => Ok(()),
            Self::Again => Err(cut_short()),
        }
    }
}

fn cut_short() -> Problem {
    let message = "the agent ended while it did this, and does not know how far it came";
    let problem = Problem::new(Code::Conflict, message).after_changes();
    problem.help("look at `rads c snapshots`, then ask for what is missing under a new key")
}

impl Remote {
    /// Does something once, if whoever asks chose a key for it; gives the first answer to who asks again.
    ///
    /// # Errors
    /// Those of the work, the same each time; `Unavailable` while it is under way.
    pub(crate) async fn once<T, F>(&self, work: impl FnOnce(Self, Begun) -> F + Send + 'static) -> Result<T, Problem>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        F: Future<Output = Result<T, Problem>> + Send + 'static,
    {
        let Some(once) = api::keyed::current() else { return work(self.clone(), Begun::First).await };
        let (answers, asked) = (Arc::clone(&self.answers), once.clone());
        let begun = match beside(move || answers.begin(&asked, clock::wall())).await? {
            Known::Fresh => Begun::First,
            Known::CutShort => Begun::Again,
            Known::UnderWay => {
                let problem = Problem::new(Code::Unavailable, "this very request is under way").after_changes();
                return Err(problem.help("ask again in a moment, under the same key"));
            }
            Known::Done(answer) => {
                let read = |text: String| serde_json::from_str(&text);
                return answer
                    .and_then(|text| read(text).map_err(|error| Problem::new(Code::DataCorrupt, error.to_string())));
            }
        };
        let this = self.clone();
        let done = tokio::spawn(async move {
            let answers = Arc::clone(&this.answers);
            let outcome = work(this, begun).await;
            let told = match &outcome {
                Ok(answer) => {
                    serde_json::to_string(answer).map_err(|error| Problem::new(Code::Internal, error.to_string()))
                }
                Err(problem) => Err(problem.clone()),
            };
            if let Err(problem) = beside(move || answers.end(&once, told)).await {
                tracing::warn!(%problem, "an answer is not on disk: after a restart nobody knows that this was done");
            }
            outcome
        });
        done.await.unwrap_or_else(|error| Err(Problem::new(Code::Internal, format!("a request failed: {error}"))))
    }

    pub(crate) async fn snapshot_of(
        self,
        service: ServiceKey,
        take: TakeSnapshot,
        begun: Begun,
    ) -> Result<SnapshotTaken, Problem> {
        begun.check()?;
        self.check_all_here(&service).await?;
        self.note(Verb::Snapshot, format!("take a snapshot of service `{service}`")).await?;
        self.darkroom().take(service, take).await
    }

    pub(crate) async fn discard_snapshot(self, name: Name, begun: Begun) -> Result<(), Problem> {
        let (snapshots, of) = (Arc::clone(&self.snapshots), name.clone());
        match (beside(move || snapshots.info(&of)).await, begun) {
            (Err(problem), Begun::Again) if problem.code == Code::NotFound => return Ok(()),
            // It may be another one of that name.
            (Ok(_), Begun::Again) => return Err(cut_short()),
            (known, _) => known.map(drop)?,
        }
        self.note(Verb::Snapshot, format!("delete snapshot `{name}`")).await?;
        let snapshots = Arc::clone(&self.snapshots);
        beside(move || snapshots.delete(&name)).await
    }

    pub(crate) async fn bring_back(
        self,
        name: Name,
        restore: RestoreSnapshot,
        begun: Begun,
    ) -> Result<SnapshotView, Problem> {
        begun.check()?;
        if self.far.is_some() {
            let (snapshots, called) = (Arc::clone(&self.snapshots), name.clone());
            let taken_of = beside(move || snapshots.info(&called)).await?.service;
            let service = restore.service.as_ref().unwrap_or(&taken_of);
            self.check_all_here(service).await?;
            self.check_stays_here(service).await?;
        }
        if !restore.check {
            self.note(Verb::Snapshot, format!("restore snapshot `{name}`")).await?;
        }
        let (view, service, memory) = self.darkroom().restore(name, restore).await?;
        if let Some(memory) = memory {
            self.go_on(&service, memory).await.map_err(Problem::after_changes)?;
        }
        Ok(view)
    }
}
