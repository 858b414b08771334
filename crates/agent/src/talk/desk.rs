//! The API within a star: what its service's `access` lets it ask for.
//!
//! Who asks is known by where it asks, as with the other socket of its folder. What it may is looked up in the log at each request, and
//! its connections end once that has become less: no answer that goes on and on outlives a right.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::{Admit, Bounds, Caller, Control, Duplex, Routes};
use model::{Code, Problem, Rights, StarId, Verb};
use state::State;
use tokio::sync::watch;
use tokio::time::sleep;

use super::pace::Pace;
use crate::clock::Clock;
use crate::control::Looker;
use crate::main_loop::Seen;

/// Connections of one star at once; more wait. Each may be a request that waits for something.
pub(crate) const CONNECTIONS_MAX: usize = 64;
/// Least time between two looks whether a star may still do what it could when it connected.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// For answers on their way when the agent ends.
const LAST_ANSWERS: Duration = Duration::from_millis(300);
const BOUNDS: Bounds = Bounds { head_within: Duration::from_secs(10), head_max_bytes: 16 << 10, fields_max: 64 };

/// Clones are the same.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) looker: Looker,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) routes: Routes,
    pub(crate) seen: watch::Receiver<Seen>,
    pub(crate) clock: Clock,
    /// Becomes true when the agent is about to end.
    pub(crate) leaving: watch::Receiver<bool>,
}

impl Desk {
    /// Serves one connection of a star to its end.
    pub(crate) async fn serve(self, star: StarId, pace: Arc<Mutex<Pace>>, stream: impl Duplex + 'static) {
        let first = self.rights(star).await;
        let (less, mut leaving) = (self.clone().until_less(star, first), self.leaving.clone());
        let (routes, admit) = (self.routes.clone(), self.admit(star, pace));
        tokio::select! {
            () = routes.serve_users(stream, admit, BOUNDS) => {}
            () = less => {}
            () = async {
                let _ = leaving.wait_for(|leaving| *leaving).await;
                sleep(LAST_ANSWERS).await;
            } => {}
        }
    }

    /// Who asks, each time anew.
    fn admit(self, star: StarId, pace: Arc<Mutex<Pace>>) -> Admit {
        Arc::new(move |_| {
            let (this, pace) = (self.clone(), Arc::clone(&pace));
            Box::pin(async move {
                if !pace.lock().unwrap_or_else(PoisonError::into_inner).take(this.clock.now(), 1) {
                    let problem = Problem::new(Code::Unavailable, "this program asks too often; nothing was changed");
                    return Err(problem.help("try again in a moment"));
                }
                let caller = this.looker.look(move |node| caller(node.state(), star)).await??;
                if *caller.rights == Rights::nothing() {
                    let refused = caller.star.as_ref().map(|(_, service)| model::access::no_access(service));
                    this.control.by(caller).denied(Verb::See, "ask for something without any access".to_owned());
                    return Err(refused.unwrap_or_else(unknown));
                }
                Ok(caller)
            })
        })
    }

    async fn rights(&self, star: StarId) -> Option<Rights> {
        self.looker.look(move |node| node.state().rights_of_star(star)).await.ok().flatten()
    }

    /// Returns when a star may less than it could. One that could nothing has nothing to lose.
    async fn until_less(mut self, star: StarId, first: Option<Rights>) {
        let Some(first) = first else { return std::future::pending().await };
        loop {
            self.seen.mark_unchanged();
            if !self.rights(star).await.is_some_and(|now| now.covers(&first)) {
                return;
            }
            if self.seen.changed().await.is_err() {
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// A star as who asks: with no rights at all if its service gives it none.
///
/// # Errors
/// `Forbidden` for one that is not known, or has ended.
fn caller(state: &State, star: StarId) -> Result<Caller, Problem> {
    let record = state.stars.get(&star).filter(|star| star.phase != model::StarPhase::Ended).ok_or_else(unknown)?;
    let rights = state.rights_of_star(star).unwrap_or_else(Rights::nothing);
    Ok(Caller::star(star, record.service.clone(), rights))
}

fn unknown() -> Problem {
    Problem::new(Code::Forbidden, "this star is not known to run")
}

#[cfg(test)]
mod tests;
