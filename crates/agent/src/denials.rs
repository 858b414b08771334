//! Who was refused for lack of rights, on its way to the log: the first time at once, what follows once a minute as a number, so that
//! a flood of refusals fills nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::Verb;
use state::{Author, Deed, Outcome, Who};
use tokio::time::sleep;

use crate::control::Looker;

/// How long refusals are counted before they are written.
const COUNTED_FOR: Duration = Duration::from_secs(60);
/// Who is counted apart at once; all others are counted as one.
const COUNTED_MAX: usize = 256;

/// Clones count the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Denials(Arc<Mutex<HashMap<String, Counted>>>);

#[derive(Debug)]
struct Counted {
    author: Author,
    verb: Verb,
    /// The last of them.
    what: String,
    times: u32,
}

impl Denials {
    /// Counts one; what is to be written is written by tasks of its own.
    pub(crate) fn note(&self, looker: &Looker, author: Author, verb: Verb, what: String) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = author.who.to_string();
        if author.who == Who::Stranger || (counted.len() >= COUNTED_MAX && !counted.contains_key(&key)) {
            key = String::new();
        }
        if let Some(known) = counted.get_mut(&key) {
            known.times = known.times.saturating_add(1);
            (known.author, known.verb, known.what) = (author, verb, what);
            return;
        }
        let first = Counted { author: author.clone(), verb, what: what.clone(), times: 0 };
        counted.insert(key.clone(), first);
        drop(counted);
        let (this, looker) = (self.clone(), looker.clone());
        tokio::spawn(async move {
            write(&looker, author, verb, what, 1).await;
            loop {
                sleep(COUNTED_FOR).await;
                let Some((author, verb, what, times)) = this.take(&key) else { return };
                write(&looker, author, verb, what, times).await;
            }
        });
    }

    /// What came in the last minute; nothing, and who it was is forgotten, when nothing did.
    fn take(&self, key: &str) -> Option<(Author, Verb, String, u32)> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = counted.get_mut(key)?;
        match std::mem::take(&mut known.times) {
            0 => {
                counted.remove(key);
                None
            }
            times => Some((known.author.clone(), known.verb, known.what.clone(), times)),
        }
    }
}

async fn write(looker: &Looker, author: Author, verb: Verb, what: String, times: u32) {
    tracing::warn!(who = %author.who, address = ?author.address, by_way_of = ?author.by_way_of, %verb, what, times, "denied");
    let deed = Deed { verb, what, outcome: Outcome::Denied(times) };
    if let Err(problem) = looker.note(author, deed).await {
        tracing::warn!(%problem, times, "refusals not recorded");
    }
}
