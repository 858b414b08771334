//! News waiting to be told: per member one piece, told a number of times that grows with the logarithm of the cluster, the least told
//! first. It rides on every datagram that has room.

use std::collections::{BTreeMap, BTreeSet};

use model::NodeId;

use crate::rng::mix;

/// Each piece is told this many times the logarithm (base 10) of the members. memberlist uses 4, with which some news was lost when a
/// third of the members, and with them what was told to them, went at once.
const TELLINGS_PER_DECADE: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    told: usize,
    /// With the description: the member is new, or describes itself anew.
    pub(crate) whole: bool,
}

/// Its bound is the table's: one piece a member.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Differs from node to node, so that they do not all begin with the same of many pieces.
    salt: u64,
    pieces: BTreeMap<NodeId, Piece>,
    /// Times told, a salted hash, the member.
    order: BTreeSet<(usize, u64, NodeId)>,
}

/// How often a piece is told among `members`.
pub(crate) fn tellings(members: usize) -> usize {
    TELLINGS_PER_DECADE * ((members + 1) as f64).log10().ceil().max(1.0) as usize
}

impl Queue {
    pub(crate) fn new(salt: u64) -> Self {
        Self { salt, ..Self::default() }
    }

    fn place(&self, told: usize, id: NodeId) -> (usize, u64, NodeId) {
        (told, mix(id.0 ^ self.salt), id)
    }

    /// What is known of `id` has changed: it is told from the start. What was to be told whole stays so.
    pub(crate) fn add(&mut self, id: NodeId, whole: bool) {
        let old = self.pieces.get(&id).copied();
        if let Some(old) = old {
            self.order.remove(&self.place(old.told, id));
        }
        self.pieces.insert(id, Piece { told: 0, whole: whole || old.is_some_and(|old| old.whole) });
        self.order.insert(self.place(0, id));
    }

    pub(crate) fn remove(&mut self, id: NodeId) {
        if let Some(piece) = self.pieces.remove(&id) {
            self.order.remove(&self.place(piece.told, id));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Ids and whether they are told whole, the least told first.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (NodeId, bool)> + '_ {
        self.order.iter().filter_map(|(_, _, id)| self.pieces.get(id).map(|piece| (*id, piece.whole)))
    }

    /// Told once more; forgotten when that was the last of `limit` times.
    pub(crate) fn told(&mut self, id: NodeId, limit: usize) {
        let Some(mut piece) = self.pieces.get(&id).copied() else { return };
        self.order.remove(&self.place(piece.told, id));
        piece.told += 1;
        if piece.told >= limit {
            self.pieces.remove(&id);
        } else {
            self.order.insert(self.place(piece.told, id));
            self.pieces.insert(id, piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_told_comes_first_and_each_is_told_so_often() {
        let mut queue = Queue::default();
        queue.add(NodeId(1), true);
        queue.told(NodeId(1), 2);
        queue.add(NodeId(2), false);
        assert_eq!(queue.waiting().collect::<Vec<_>>(), [(NodeId(2), false), (NodeId(1), true)]);
        queue.told(NodeId(1), 2);
        assert_eq!(queue.waiting().collect::<Vec<_>>(), [(NodeId(2), false)]);
        queue.add(NodeId(2), true);
        queue.add(NodeId(2), false);
        assert_eq!(queue.waiting().collect::<Vec<_>>(), [(NodeId(2), true)]);
        queue.remove(NodeId(2));
        assert!(queue.is_empty());
    }

    #[test]
    fn news_is_told_more_often_in_a_larger_cluster() {
        assert_eq!([3, 99, 1_000, 8_192].map(tellings), [6, 12, 24, 24]);
    }
}
