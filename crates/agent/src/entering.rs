//! Who goes into a star has what it has. With rights of its own it is entered by who has those anyway; that somebody did is recorded:
//! with its secrets, when it has some, before they are there.

use model::{Code, Problem, StarId, Verb};
use node::{Node, Request};

use crate::control::Remote;

impl Remote {
    /// Notes that somebody is about to be where a star's secrets are, when it has some.
    ///
    /// # Errors
    /// `Forbidden` for who would have more rights there.
    pub(crate) async fn note_way_in(&self, star: StarId, what: &str) -> Result<(), Problem> {
        let access = self.looker().look(move |node| node.state().rights_of_star(star)).await?;
        if let (Some(access), Some(caller)) = (access, &self.caller)
            && !caller.rights.covers(&access)
        {
            self.denials.note(&self.looker(), self.author(), Verb::Enter, format!("{what} in a star with more rights"));
            let message =
                format!("{} may not go into this star: its service has an `access` that it has not", caller.name());
            return Err(Problem::new(Code::Forbidden, message).help("an admin gives rights with `rads c grant`"));
        }
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
