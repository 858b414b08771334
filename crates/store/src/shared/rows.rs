//! What a frame of the journal says: one row a change, in their order.
//!
//! `what (1) | index (8) | length (4) | bytes`, little-endian. Rows that have no index or no bytes have zero in their place.

/// A change as it is written: a snapshot lies beside the journal, named after the commit that told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row<'b> {
    Vote(&'b [u8]),
    Committed(&'b [u8]),
    Append { index: u64, bytes: &'b [u8] },
    Truncate { from: u64 },
    Purge { upto: u64, mark: &'b [u8] },
    Snapshot { index: u64, commit: u64 },
}

const VOTE: u8 = 1;
const COMMITTED: u8 = 2;
const APPEND: u8 = 3;
const TRUNCATE: u8 = 4;
const PURGE: u8 = 5;
const SNAPSHOT: u8 = 6;

const HEAD_BYTES: usize = 1 + 8 + 4;

impl<'b> Row<'b> {
    pub(super) fn put(&self, frame: &mut Vec<u8>) {
        let commit_bytes;
        let (what, index, bytes) = match *self {
            Self::Vote(bytes) => (VOTE, 0, bytes),
            Self::Committed(bytes) => (COMMITTED, 0, bytes),
            Self::Append { index, bytes } => (APPEND, index, bytes),
            Self::Truncate { from } => (TRUNCATE, from, &[][..]),
            Self::Purge { upto, mark } => (PURGE, upto, mark),
            Self::Snapshot { index, commit } => {
                commit_bytes = commit.to_le_bytes();
                (SNAPSHOT, index, &commit_bytes[..])
            }
        };
        frame.push(what);
        frame.extend(index.to_le_bytes());
        // A command has a bound far below this.
        frame.extend(u32::try_from(bytes.len()).expect("no row has four gibibytes").to_le_bytes());
        frame.extend(bytes);
    }

    /// All rows of a frame; `None` when it says anything else.
    pub(super) fn read(mut frame: &'b [u8]) -> Option<Vec<Self>> {
        let mut rows = Vec::new();
        while !frame.is_empty() {
            let (head, rest) = frame.split_at_checked(HEAD_BYTES)?;
            let index = u64::from_le_bytes(head[1..9].try_into().ok()?);
            let length = u32::from_le_bytes(head[9..].try_into().ok()?);
            let (bytes, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            rows.push(match head[0] {
                VOTE => Self::Vote(bytes),
                COMMITTED => Self::Committed(bytes),
                APPEND => Self::Append { index, bytes },
                TRUNCATE => Self::Truncate { from: index },
                PURGE => Self::Purge { upto: index, mark: bytes },
                SNAPSHOT => Self::Snapshot { index, commit: u64::from_le_bytes(bytes.try_into().ok()?) },
                _ => return None,
            });
            frame = rest;
        }
        Some(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_back_as_themselves_and_nothing_else_does() {
        let rows = [
            Row::Vote(b"vote"),
            Row::Committed(b""),
            Row::Append { index: 7, bytes: b"entry" },
            Row::Truncate { from: u64::MAX },
            Row::Purge { upto: 3, mark: b"mark" },
            Row::Snapshot { index: 9, commit: 12 },
        ];
        let mut frame = Vec::new();
        rows.iter().for_each(|row| row.put(&mut frame));
        assert_eq!(Row::read(&frame).as_deref(), Some(&rows[..]));
        let ends: Vec<usize> = (0..frame.len()).filter(|end| Row::read(&frame[..*end]).is_some()).collect();
        assert_eq!(ends.len(), rows.len(), "only whole rows: {ends:?}");
        assert_eq!(Row::read(&[7; HEAD_BYTES]), None);
        assert_eq!(Row::read(&[SNAPSHOT, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5]), None, "a commit has eight bytes");
    }
}
