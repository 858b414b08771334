//! Commands in their order: to the loop, and on to whoever follows this node.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use model::{NodeId, Problem};
use net::Stream;
use rnp::{ErrorCode, Fault};
use state::Command;
use tokio::sync::watch;

use super::wire::{Follow, Told, decode, encode, framed, told_command};
use crate::beside::beside;
use crate::clock;
use crate::control::Looker;

/// Commands kept for followers that are a little behind; others are given the state.
const RECENT_BYTES: usize = 8 << 20;
/// How often a follower hears something at least.
const MARK_EVERY: Duration = Duration::from_secs(1);

/// What this node knows of who keeps the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Keepers {
    pub(crate) leader: Option<NodeId>,
    /// Whose votes may be needed: while one set gives way to another, all of both.
    pub(crate) voters: Vec<NodeId>,
    /// The voters as last agreed on, all of one set.
    pub(crate) agreed: Vec<NodeId>,
    /// This node is one of them, or about to be, and hears the log at first hand.
    pub(crate) at_first_hand: bool,
}

/// Clones are the same feed.
#[derive(Clone)]
pub(crate) struct Feed {
    recent: Arc<Mutex<Recent>>,
    index: Arc<watch::Sender<u64>>,
    keepers: Arc<watch::Sender<Keepers>>,
    /// Nodes that were taken out since this agent began, and the command that says so.
    removed: Arc<Mutex<BTreeMap<NodeId, u64>>>,
}

#[derive(Default)]
struct Recent {
    /// Every command after this index is in `commands`.
    after: u64,
    /// As MessagePack: the bytes that are in the log.
    commands: VecDeque<(u64, Bytes)>,
    bytes: usize,
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self {
            recent: Arc::default(),
            index: Arc::new(watch::Sender::new(0)),
            keepers: Arc::new(watch::Sender::new(Keepers::default())),
            removed: Arc::default(),
        }
    }

    /// The loop begins with a state of this index.
    pub(crate) fn begin(&self, index: u64) {
        self.recent().begin(index);
        self.index.send_replace(index);
    }

    /// The loop has applied a command; `written` is the same as MessagePack, where that is at hand. Followers hear of it from
    /// [`Feed::reached`] on.
    pub(crate) fn push(&self, index: u64, command: &Command, written: Option<Bytes>) {
        // Told only if somebody may ask for it.
        let written = match self.keepers.borrow().at_first_hand {
            true => written.or_else(|| encode(command).ok()),
            false => None,
        };
        match written {
            Some(written) => self.recent().push(index, written),
            None => self.recent().begin(index),
        }
        if let Command::RemoveNode { node, .. } = command.bare() {
            // After the command is there to be told: it is the last that this node hears.
            self.removed().entry(*node).or_insert(index);
        }
    }

    /// Lets followers know that there is more, if there is.
    pub(crate) fn reached(&self, index: u64) {
        self.index.send_if_modified(|known| std::mem::replace(known, index) != index);
    }

    pub(crate) fn keepers(&self) -> watch::Receiver<Keepers> {
        self.keepers.subscribe()
    }

    /// Nobody is known to keep the log; whose votes were agreed on last stays to be seen.
    pub(crate) fn lose_keepers(&self) {
        let agreed = self.keepers.borrow().agreed.clone();
        self.set_keepers(Keepers { agreed, ..Keepers::default() });
    }

    pub(crate) fn set_keepers(&self, keepers: Keepers) {
        self.keepers.send_if_modified(|known| {
            let changed = *known != keepers;
            *known = keepers;
            changed
        });
    }

    /// Serves a follower on a stream, unless this node hears of the log from others itself. One that was taken out is told so, and
    /// nothing after it.
    pub(crate) fn serve(&self, looker: Looker, follower: NodeId, body: &[u8], stream: Stream) -> Result<(), Fault> {
        let Follow { after } = decode(body).map_err(|problem| Fault::new(ErrorCode::Protocol, problem.message))?;
        if !self.keepers.borrow().at_first_hand {
            return Err(Fault::new(ErrorCode::NotLeader, "this node keeps no part of the log"));
        }
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(problem) = this.tell(&looker, follower, after, &stream).await {
                tracing::debug!(%problem, "a follower was let go");
            }
        });
        Ok(())
    }

    async fn tell(&self, looker: &Looker, follower: NodeId, mut after: u64, stream: &Stream) -> Result<(), Problem> {
        let ended = |end: net::connection::StreamEnd| Problem::new(model::Code::Unavailable, end.to_string());
        let (mut index, mut keepers) = (self.index.subscribe(), self.keepers.subscribe());
        loop {
            index.borrow_and_update();
            let removed = self.removed().get(&follower).copied();
            if removed.is_some_and(|removed| after >= removed) {
                stream.finish();
                return Ok(());
            }
            let commands = self.recent().since(after);
            match commands {
                Some(commands) => {
                    let last = removed.unwrap_or(u64::MAX);
                    for (at, written) in commands.into_iter().take_while(|(at, _)| *at <= last) {
                        stream.write(told_command(at, &written)?).await.map_err(ended)?;
                        after = at;
                    }
                }
                None => {
                    let state = looker.look(|node| node.state().clone()).await?;
                    after = state.index;
                    // Tens of mebibytes, perhaps: votes are heard on this thread.
                    let written = beside(move || framed(&Told::State(Box::new(state)))).await?;
                    stream.write(written).await.map_err(ended)?;
                    continue;
                }
            }
            let Keepers { leader, voters, agreed, at_first_hand } = keepers.borrow_and_update().clone();
            if !at_first_hand {
                return Ok(());
            }
            stream.write(framed(&Told::Mark { index: after, leader, voters, agreed })?).await.map_err(ended)?;
            if removed.is_some() {
                continue;
            }
            let more = async {
                tokio::select! {
                    more = index.changed() => more,
                    more = keepers.changed() => more,
                }
            };
            // Late is no error: then a mark is due.
            let _ = clock::within(MARK_EVERY, more).await;
        }
    }

    fn removed(&self) -> MutexGuard<'_, BTreeMap<NodeId, u64>> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    fn push(&mut self, index: u64, bytes: Bytes) {
        self.bytes += bytes.len();
        self.commands.push_back((index, bytes));
        while self.bytes > RECENT_BYTES {
            let Some((index, bytes)) = self.commands.pop_front() else { return };
            self.after = index;
            self.bytes -= bytes.len();
        }
    }

    fn begin(&mut self, index: u64) {
        *self = Self { after: index, ..Self::default() };
    }

    /// The commands after an index; nothing when some of them are not kept any more.
    fn since(&self, after: u64) -> Option<Vec<(u64, Bytes)>> {
        if after < self.after {
            return None;
        }
        let from = self.commands.partition_point(|(index, _)| *index <= after);
        Some(self.commands.range(from..).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use model::{Duty, NodeRole, WallTime};
    use net::Purpose;

    use super::super::testing::{Town, showing};
    use super::super::wire::Reader;
    use super::*;

    #[tokio::test]
    async fn one_that_is_taken_out_hears_of_it_and_of_nothing_after_it() {
        let mut town = Town::new();
        let (keeper, follower) = (town.house(1, NodeRole::Controller).await, town.house(2, NodeRole::Worker).await);
        let feed = Feed::new();
        let (leader, voters) = (Some(NodeId(1)), vec![NodeId(1)]);
        feed.set_keepers(Keepers { leader, voters, at_first_hand: true, ..Keepers::default() });
        feed.begin(1);
        let (serving, looker) = (feed.clone(), showing(NodeId(1), town.state()));
        keeper.serve(move |peer, _, body, stream| serving.serve(looker.clone(), peer.node(), &body, stream));
        let roads = town.roads(&follower);
        let heard = async |after: u64| {
            let body = encode(&Follow { after }).unwrap();
            let within = Duration::from_secs(10);
            let stream = roads.open(NodeId(1), Purpose::Peer, "state.follow", body, within).await.unwrap();
            let (mut reader, mut heard) = (Reader::new(stream), Vec::new());
            while let Some(told) = reader.next::<Told>().await.unwrap() {
                if let Told::Command { index, .. } = told {
                    heard.push(index);
                }
            }
            heard
        };
        let wall = WallTime(1);
        let going = heard(1);
        let written = async {
            feed.push(2, &Command::SetDuty { node: NodeId(2), duty: Duty::Draining, wall }, None);
            // Another one goes, which ends nothing of this one's.
            feed.push(3, &Command::RemoveNode { node: NodeId(9), wall }, None);
            feed.push(4, &Command::RemoveNode { node: NodeId(2), wall }, None);
            feed.push(5, &Command::Forget { stars: Vec::new() }, None);
            feed.reached(5);
        };
        let (going, ()) =
            tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(going, written) }).await.unwrap();
        assert_eq!(going, [2, 3, 4]);
        assert_eq!((heard(3).await, heard(4).await, heard(5).await), (vec![4], vec![], vec![]));
    }

    #[test]
    fn recent_commands_are_given_without_a_gap_or_not_at_all() {
        let mut recent = Recent { after: 10, ..Recent::default() };
        let given =
            |recent: &Recent, after| recent.since(after).map(|all| all.iter().map(|(at, _)| *at).collect::<Vec<_>>());
        assert_eq!(given(&recent, 10), Some(vec![]));
        recent.push(12, Bytes::from_static(b"a"));
        recent.push(15, Bytes::from_static(b"b"));
        assert_eq!(given(&recent, 10), Some(vec![12, 15]));
        assert_eq!(given(&recent, 12), Some(vec![15]));
        assert_eq!(given(&recent, 15), Some(vec![]));
        assert_eq!(given(&recent, 9), None);
        let large = Bytes::from(vec![0; RECENT_BYTES]);
        recent.push(20, large);
        assert_eq!(given(&recent, 12), None);
        assert_eq!(given(&recent, 15), Some(vec![20]));
        recent.push(21, Bytes::from_static(b"c"));
        assert_eq!((given(&recent, 15), given(&recent, 20)), (None, Some(vec![21])));
        recent.begin(30);
        assert_eq!((given(&recent, 21), given(&recent, 30)), (None, Some(vec![])));
    }
}
