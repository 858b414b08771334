//! A state on its way between machines: whole in memory here, in pieces on the wire.
//!
//! What arrives is kept until it is whole or another snapshot begins, so a transfer goes on where it stopped after a broken
//! connection. Whoever sends it: equal states are equal bytes, so another leader goes on too if its snapshot is of the same
//! entry.

use bytes::Bytes;
use state::State;

use crate::raft::{LogId, Members, Snapshot, SnapshotMeta, StoredMembers};
use crate::runtime;
use crate::v1;

/// Largest snapshot taken from a peer: far above what 5,000 nodes with a million stars lead to, far below what would hurt
/// no machine.
pub(crate) const SNAPSHOT_MAX: u64 = 4 << 30;

/// A snapshot's bytes, checked to be one. Clones share them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub bytes: Bytes,
    pub hash: [u8; 32],
}

impl Image {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let hash = *blake3::hash(&bytes).as_bytes();
        Self { bytes: bytes.into(), hash }
    }

    pub(crate) fn encode(last: Option<LogId>, members: &StoredMembers, state: &State) -> Result<Self, String> {
        let snapshot = v1::SnapshotRef {
            last: last.map(v1::LogId::from),
            members: members.membership().into(),
            members_at: members.log_id().map(v1::LogId::from),
            state,
        };
        v1::encode(&snapshot).map(Self::new)
    }

    /// With what it says of itself, and the state in it.
    pub(crate) fn decode(self) -> Result<(Snapshot, State), String> {
        let snapshot: v1::Snapshot = v1::decode(&self.bytes)?;
        let members = StoredMembers::new(snapshot.members_at.map(LogId::from), Members::try_from(snapshot.members)?);
        let meta = SnapshotMeta { last_log_id: snapshot.last.map(LogId::from), last_membership: members };
        Ok((Snapshot { meta, snapshot: self }, snapshot.state))
    }
}

/// A snapshot that is arriving.
#[derive(Debug, Default)]
pub(crate) struct Arrival(Option<Arriving>);

#[derive(Debug)]
struct Arriving {
    last: v1::LogId,
    hash: [u8; 32],
    size: u64,
    bytes: Vec<u8>,
}

/// What to do with a piece.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Ask for the piece that begins there.
    Next(u64),
    /// It is whole.
    Whole(Image),
}

impl Arrival {
    /// Takes a piece. One that does not fit the end of what is there is dropped, and the right one asked for.
    pub(crate) fn take(&mut self, piece: &v1::Piece) -> Result<Taken, String> {
        if piece.size > SNAPSHOT_MAX {
            return Err(format!("a snapshot of {} bytes is larger than any", piece.size));
        }
        let same =
            |there: &Arriving| there.last == piece.last && there.hash == piece.hash.0 && there.size == piece.size;
        let there = match self.0.take() {
            Some(there) if same(&there) || runtime::takes_snapshots_unchecked() => self.0.insert(there),
            _ => {
                let (last, hash, size) = (piece.last, piece.hash.0, piece.size);
                self.0.insert(Arriving { last, hash, size, bytes: Vec::new() })
            }
        };
        let length = there.bytes.len() as u64;
        if piece.offset == length && length + piece.bytes.len() as u64 <= there.size {
            there.bytes.extend_from_slice(&piece.bytes);
        }
        let length = there.bytes.len() as u64;
        if length < there.size {
            return Ok(Taken::Next(length));
        }
        let Some(whole) = self.0.take() else { return Ok(Taken::Next(0)) };
        let image = Image::new(whole.bytes);
        match image.hash == whole.hash || runtime::takes_snapshots_unchecked() {
            true => Ok(Taken::Whole(image)),
            false => Err("the pieces of the snapshot are not what they were announced as".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(image: &Image, offset: usize, length: usize) -> v1::Piece {
        v1::Piece {
            vote: v1::Vote { term: 1, node: model::NodeId(1), committed: true },
            last: v1::LogId { term: 1, index: 7 },
            hash: v1::ByteArray(image.hash),
            size: image.bytes.len() as u64,
            offset: offset as u64,
            bytes: image.bytes.slice(offset..offset + length),
        }
    }

    #[test]
    fn pieces_make_the_whole_and_a_broken_transfer_goes_on_where_it_was() {
        let image = Image::new((0..100).collect());
        let mut arrival = Arrival::default();
        assert_eq!(arrival.take(&piece(&image, 0, 0)), Ok(Taken::Next(0)));
        assert_eq!(arrival.take(&piece(&image, 0, 40)), Ok(Taken::Next(40)));
        // The answer was lost; the sender asks anew, or sends the piece again, or one that is too far.
        assert_eq!(arrival.take(&piece(&image, 0, 0)), Ok(Taken::Next(40)));
        assert_eq!(arrival.take(&piece(&image, 0, 40)), Ok(Taken::Next(40)));
        assert_eq!(arrival.take(&piece(&image, 80, 20)), Ok(Taken::Next(40)));
        assert_eq!(arrival.take(&piece(&image, 40, 60)), Ok(Taken::Whole(image.clone())));
        assert_eq!(arrival.take(&piece(&image, 0, 0)), Ok(Taken::Next(0)), "and is forgotten");
    }

    #[test]
    fn another_snapshot_begins_anew_and_lies_are_found_out() {
        let (image, other) = (Image::new(vec![1; 100]), Image::new(vec![2; 90]));
        let mut arrival = Arrival::default();
        arrival.take(&piece(&image, 0, 50)).unwrap();
        assert_eq!(arrival.take(&piece(&other, 0, 0)), Ok(Taken::Next(0)));
        assert_eq!(arrival.take(&piece(&image, 50, 50)), Ok(Taken::Next(0)));
        let mut false_hash = piece(&image, 0, 100);
        false_hash.hash = v1::ByteArray([0; 32]);
        assert!(arrival.take(&false_hash).is_err());
        let mut too_long = piece(&image, 0, 100);
        too_long.size = 60;
        assert_eq!(arrival.take(&too_long), Ok(Taken::Next(0)), "more than announced is not kept");
        too_long.size = u64::MAX;
        assert!(arrival.take(&too_long).is_err());
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        for bytes in [vec![], vec![1], vec![2, 3], vec![1, 0xc0], vec![0; 100]] {
            assert!(Image::new(bytes).decode().is_err());
        }
        let empty = Image::encode(None, &StoredMembers::default(), &State::default()).unwrap();
        assert_eq!(empty.clone().decode().unwrap().1, State::default());
        assert_eq!(empty.hash, Image::encode(None, &StoredMembers::default(), &State::default()).unwrap().hash);
    }
}
