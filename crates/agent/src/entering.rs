//! Who goes into a star is recorded: with its secrets, when it has some, before they are there.

use model::{Problem, StarId, Verb};
use node::{Node, Request};

use crate::control::Remote;

impl Remote {
    /// Notes that somebody is about to be where a star's secrets are, when it has some.
    pub(crate) async fn note_way_in(&self, star: StarId, what: &str) -> Result<(), Problem> {
        let bound = move |node: &Node| {
            let record = node.state().stars.get(&star)?;
            Some((record.secrets(), (record.service.clone(), record.name())))
        };
        let Some((secrets, star)) = self.looker().look(bound).await? else { return Ok(()) };
        if !secrets.is_empty() {
            let uid = self.caller.as_ref().map_or(0, |caller| caller.uid);
            return self.change(Request::NoteRead { secrets, uid, star: Some(star) }).await.map(drop);
        }
        let (service, name) = star;
        let (this, what) = (self.clone(), format!("{what} in star `{name}` of service `{service}`"));
        let noted = async move { this.note(Verb::Enter, what).await };
        if self.caller.as_ref().is_some_and(|caller| caller.grant.is_some()) {
            return noted.await;
        }
        // Who has the machine finds out by this why nothing can be written.
        tokio::spawn(async move {
            if let Err(problem) = noted.await {
                tracing::warn!(%problem, star = name, "not recorded who went into a star");
            }
        });
        Ok(())
    }
}
