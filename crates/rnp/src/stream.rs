//! Pieces of streams: what flows after a message opened a stream, without a map around every piece.
//!
//! ```text
//! c1 | kind | stream, u32 big-endian | body
//! ```
//!
//! `c1` begins no MessagePack value, so a piece is told from a message by its first byte. The side that opened the connection
//! gives its streams odd numbers, the other side even ones; a number is used once on a connection. Each side may send as many
//! bytes of data as the other gave it credit for: the window named when the stream was opened, and what `Credit` adds.

use bytes::{BufMut, Bytes, BytesMut};

use crate::fault::ErrorCode;
use crate::frame;
use crate::version::Version;

const MARK: u8 = 0xc1;
const HEAD_BYTES: usize = 6;

/// The most bytes of data in one piece: what a message may have to wait for on the same connection, a fifth of a
/// millisecond at 300 MB/s.
pub const PIECE_BYTES_MAX: usize = 64 << 10;

/// Credit a stream starts with when nothing else is known: four pieces, so that the sender need not stop for an answer on a
/// network of a millisecond at 250 MB/s.
pub const WINDOW_BYTES: u32 = 4 * PIECE_BYTES_MAX as u32;

/// Credit outstanding, at most: twice the longest frame.
pub const WINDOW_BYTES_MAX: u32 = 32 << 20;

/// The number of a stream on its connection. 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl StreamId {
    /// The first number of the side that opened the connection, or of the other.
    pub const fn first(opened_connection: bool) -> Self {
        Self(if opened_connection { 1 } else { 2 })
    }

    /// The next number of the same side; nothing when all are used, and a new connection is needed.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(2).map(Self)
    }

    pub const fn is_of(self, opened_connection: bool) -> bool {
        self.0 != 0 && (self.0 % 2 == 1) == opened_connection
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub stream: StreamId,
    pub body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Bytes in order; at least one.
    Data(Bytes),
    /// The receiver takes this many more.
    Credit(u32),
    /// No more data comes from this side.
    End,
    /// This side neither sends nor takes any more, and why. Also the answer to a piece of a stream that is not known.
    Reset(ErrorCode),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PieceError {
    #[error("a piece of a stream is cut short")]
    Short,
    #[error("no kind {0} of piece of a stream")]
    Kind(u8),
    #[error("a piece of no stream")]
    NoStream,
    #[error("a piece of a stream is longer than its kind allows")]
    Long,
    #[error("a piece of a stream gives {0} bytes of credit")]
    Credit(u32),
}

/// Whether the payload of a frame is a piece of a stream.
pub fn is_piece(payload: &[u8]) -> bool {
    payload.first() == Some(&MARK)
}

impl Piece {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEAD_BYTES + self.kind_and_length().1);
        self.put(&mut out);
        out.freeze()
    }

    /// Appends the piece as a frame of its own, as it is. Data of `apart_from` bytes and more is not copied: it is given back, to be
    /// written behind `out`.
    pub fn put_frame(self, out: &mut BytesMut, apart_from: usize) -> Bytes {
        let length = HEAD_BYTES + self.kind_and_length().1;
        match self.body {
            Body::Data(data) if data.len() >= apart_from => {
                frame::put_header(Version::CURRENT, length, 0, HEAD_BYTES, out);
                Self { stream: self.stream, body: Body::Data(Bytes::new()) }.put(out);
                data
            }
            _ => {
                frame::put_header(Version::CURRENT, length, 0, length, out);
                self.put(out);
                Bytes::new()
            }
        }
    }

    fn kind_and_length(&self) -> (u8, usize) {
        match &self.body {
            Body::Data(data) => (0, data.len()),
            Body::Credit(_) => (1, 4),
            Body::End => (2, 0),
            Body::Reset(_) => (3, 2),
        }
    }

    fn put(&self, out: &mut BytesMut) {
        let (kind, _) = self.kind_and_length();
        out.put_u8(MARK);
        out.put_u8(kind);
        out.put_u32(self.stream.0);
        match &self.body {
            Body::Data(data) => out.put_slice(data),
            Body::Credit(bytes) => out.put_u32(*bytes),
            Body::End => {}
            Body::Reset(code) => out.put_u16(code.number()),
        }
    }

    /// Reads the payload of a frame; data is not copied.
    pub fn decode(payload: &Bytes) -> Result<Self, PieceError> {
        let (head, body) = payload.split_first_chunk::<HEAD_BYTES>().ok_or(PieceError::Short)?;
        let [_, kind, a, b, c, d] = *head;
        let stream = StreamId(u32::from_be_bytes([a, b, c, d]));
        if stream.0 == 0 {
            return Err(PieceError::NoStream);
        }
        let exact = |wanted: usize| match body.len().cmp(&wanted) {
            std::cmp::Ordering::Less => Err(PieceError::Short),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(PieceError::Long),
        };
        let body = match kind {
            0 if body.is_empty() => return Err(PieceError::Short),
            0 => Body::Data(payload.slice(HEAD_BYTES..)),
            1 => {
                exact(4)?;
                match u32::from_be_bytes([body[0], body[1], body[2], body[3]]) {
                    bytes @ (0 | WINDOW_BYTES_MAX..) => return Err(PieceError::Credit(bytes)),
                    bytes => Body::Credit(bytes),
                }
            }
            2 => exact(0).map(|()| Body::End)?,
            3 => exact(2).map(|()| Body::Reset(ErrorCode::of(u16::from_be_bytes([body[0], body[1]]))))?,
            other => return Err(PieceError::Kind(other)),
        };
        Ok(Self { stream, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back() {
        let bodies = [
            Body::Data(Bytes::from_static(b"x")),
            Body::Credit(65_536),
            Body::End,
            Body::Reset(ErrorCode::ResourceExhausted),
        ];
        for body in bodies {
            let piece = Piece { stream: StreamId(7), body };
            assert_eq!(Piece::decode(&piece.encode()).as_ref(), Ok(&piece));
            let (mut framed, mut as_is) = (BytesMut::new(), BytesMut::new());
            let framed = &mut framed;
            assert!(piece.clone().put_frame(framed, usize::MAX).is_empty());
            let mut head = BytesMut::new();
            let data = piece.clone().put_frame(&mut head, 1);
            assert_eq!([&head[..], &data[..]].concat(), framed[..]);
            crate::Frame::new(crate::Flags::NONE, piece.encode())
                .encode_as_is(crate::Limit::Control, &mut as_is)
                .unwrap();
            assert_eq!(*framed, as_is);
        }
    }

    #[test]
    fn malformed_pieces_are_refused() {
        let check = |bytes: &'static [u8], error| assert_eq!(Piece::decode(&Bytes::from_static(bytes)), Err(error));
        check(&[0xc1, 0, 0, 0, 0], PieceError::Short);
        check(&[0xc1, 0, 0, 0, 0, 7], PieceError::Short);
        check(&[0xc1, 0, 0, 0, 0, 0, 1], PieceError::NoStream);
        check(&[0xc1, 1, 0, 0, 0, 7, 0, 0, 0], PieceError::Short);
        check(&[0xc1, 1, 0, 0, 0, 7, 0, 0, 0, 0], PieceError::Credit(0));
        check(&[0xc1, 1, 0, 0, 0, 7, 0xff, 0, 0, 0], PieceError::Credit(0xff00_0000));
        check(&[0xc1, 2, 0, 0, 0, 7, 0], PieceError::Long);
        check(&[0xc1, 9, 0, 0, 0, 7], PieceError::Kind(9));
    }

    #[test]
    fn each_side_has_numbers_of_its_own() {
        let (ours, theirs) = (StreamId::first(true), StreamId::first(false));
        assert!(ours.is_of(true) && !ours.is_of(false) && theirs.is_of(false));
        assert_eq!(ours.next(), Some(StreamId(3)));
        assert!(ours.next().unwrap().is_of(true));
        assert_eq!(StreamId(u32::MAX).next(), None);
        assert!(!StreamId(0).is_of(true) && !StreamId(0).is_of(false));
    }
}
