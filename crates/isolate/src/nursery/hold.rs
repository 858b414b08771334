//! Stars that stand still: because their service is paused, or because somebody looks at their files for a moment.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use model::StarId;
use serde::{Deserialize, Serialize};

use super::{Nursery, Phase, Star};
use crate::fault::plain;
use crate::protocol::Message;
use crate::record::Record;
use crate::star;

/// Longest wait for everything in a star to halt. A process that waits for a disk halts when it has got what it waits for,
/// which was seen to take more than five seconds on a busy one.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a star stands still.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Still {
    /// It was told so.
    paused: bool,
    /// These connections hold it.
    held_by: BTreeSet<u64>,
    /// Of these, who has not been told yet that nothing in it moves.
    untold: BTreeSet<u64>,
    /// When that began.
    #[serde(skip)]
    since: Option<Instant>,
}

impl Nursery {
    /// Halts a star or lets it go on, unless somebody holds it.
    pub(super) fn pause(&mut self, id: StarId, frozen: bool) -> Result<(), String> {
        let star = self.stars.get_mut(&id).filter(|star| matches!(star.phase, Phase::Running));
        let Some(Star { still, .. }) = star else { return Err("the star does not run".to_owned()) };
        still.paused = frozen;
        match frozen || still.held_by.is_empty() {
            true => self.freeze(id, frozen),
            false => Ok(()),
        }
    }

    /// Halts a star for a connection.
    pub(super) fn hold(&mut self, peer: u64, id: StarId) {
        let star = self.stars.get_mut(&id).filter(|star| matches!(star.phase, Phase::Running));
        let Some(Star { still, .. }) = star else {
            let problem = Some("the star does not run".to_owned());
            return self.tell(peer, Message::Held { star: id, problem });
        };
        still.held_by.insert(peer);
        still.untold.insert(peer);
        still.since = Some(Instant::now());
        if let Err(problem) = self.freeze(id, true) {
            self.release(id, peer);
            self.tell(peer, Message::Held { star: id, problem: Some(problem) });
        }
    }

    /// Whether somebody waits for a star to come to a stand.
    pub(super) fn holds_begin(&self) -> bool {
        self.stars.values().any(|star| !star.still.untold.is_empty())
    }

    /// Tells of stars that have come to a stand, and lets those go on that nobody holds any more.
    pub(super) fn let_go(&mut self) {
        for peer in self.peers.take_gone() {
            let held: Vec<StarId> =
                self.stars.iter().filter(|(_, star)| star.still.held_by.contains(&peer)).map(|(&id, _)| id).collect();
            held.into_iter().for_each(|id| self.release(id, peer));
        }
        let mut told = Vec::new();
        for (&id, star) in self.stars.iter_mut().filter(|(_, star)| !star.still.untold.is_empty()) {
            let late = star.still.since.is_none_or(|since| since.elapsed() > PATIENCE);
            let problem = if !matches!(star.phase, Phase::Running) {
                Some("the star does not run".to_owned())
            } else if star::is_frozen(&star.record) {
                None
            } else if late {
                Some(format!("the star did not come to a stand within {} s", PATIENCE.as_secs()))
            } else {
                continue;
            };
            let untold = std::mem::take(&mut star.still.untold);
            told.extend(untold.into_iter().map(|peer| (peer, id, problem.clone())));
        }
        for (peer, id, problem) in told {
            if problem.is_some() {
                self.release(id, peer);
            }
            self.tell(peer, Message::Held { star: id, problem });
        }
    }

    fn release(&mut self, id: StarId, peer: u64) {
        let Some(Star { still, phase, .. }) = self.stars.get_mut(&id) else { return };
        still.untold.remove(&peer);
        let was_held = still.held_by.remove(&peer);
        let goes_on = was_held && still.held_by.is_empty() && !still.paused && matches!(phase, Phase::Running);
        if goes_on {
            // A star that cannot be thawed is one that is gone.
            let _ = self.freeze(id, false);
        }
    }

    fn freeze(&mut self, id: StarId, frozen: bool) -> Result<(), String> {
        let star = self.stars.get_mut(&id).filter(|star| matches!(star.phase, Phase::Running));
        let Some(Star { record, folder, .. }) = star else { return Err("the star does not run".to_owned()) };
        let keep = |record: &Record| {
            record.save(folder).map_err(|error| format!("cannot keep the star's record: {}", plain(&error)))
        };
        if !frozen {
            star::thaw(record)?;
            return if std::mem::take(&mut record.stopped) { keep(record) } else { Ok(()) };
        }
        let freezer = record.groups.names().pop_first().and_then(|name| self.site.hierarchies.freezer(&name));
        if let (false, Some(group)) = (record.groups.can_freeze(), freezer) {
            let added = record.groups.add_freezer(group);
            added.map_err(|error| format!("cannot make a group to freeze the star in: {}", plain(&error)))?;
            // The next nursery has to know what to thaw and to remove.
            keep(record)?;
        } else if !record.groups.can_freeze() && !std::mem::replace(&mut record.stopped, true) {
            keep(record)?;
        }
        star::freeze(record)
    }
}
