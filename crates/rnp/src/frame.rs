//! The outer layer: twelve bytes of header, then a payload.
//!
//! ```text
//! 52 4e 50 01 | major minor | length, u32 big-endian | flags, u16 big-endian | payload
//! ```
//!
//! A reader takes what has arrived and gives back whole frames. It never makes room for a length that is only claimed: the
//! buffer grows with the bytes that came, and a length above the limit is refused at the header.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::lz;
use crate::version::Version;

/// "RNP" and the number of this layout.
pub const MAGIC: [u8; 4] = *b"RNP\x01";
pub const HEADER_BYTES: usize = 12;

/// Payloads above this are made smaller where that helps; below it costs more than it saves.
pub const COMPRESS_ABOVE_BYTES: usize = 1024;

/// How long a payload may be, by what is known of the peer and what the connection is for. Holds for the payload as it is on
/// the wire and for what it is decompressed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// Before the peer is known: 64 KiB.
    Unauthenticated,
    /// Messages and pieces of streams: 1 MiB.
    Control,
    /// Connections for bulk: 16 MiB, the most the protocol allows.
    Bulk,
}

impl Limit {
    pub const fn bytes(self) -> usize {
        match self {
            Self::Unauthenticated => 64 << 10,
            Self::Control => 1 << 20,
            Self::Bulk => 16 << 20,
        }
    }
}

/// What a header says of its payload. Bit 1 was "encrypted" once; TLS does that. All others are reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flags(u16);

impl Flags {
    pub const NONE: Self = Self(0);
    const COMPRESSED: u16 = 1 << 0;
    /// The sender waits for an answer.
    pub const WANTS_ANSWER: Self = Self(1 << 2);
    /// This is the answer to the message of the same id.
    pub const ANSWER: Self = Self(1 << 3);

    fn from_wire(bits: u16) -> Result<(Self, bool), FrameError> {
        let known = Self::COMPRESSED | Self::WANTS_ANSWER.0 | Self::ANSWER.0;
        if bits & !known != 0 {
            return Err(FrameError::ReservedFlags { bits: bits & !known });
        }
        let flags = Self(bits & !Self::COMPRESSED);
        // A message is asked or answered, not both.
        if flags == Self(Self::WANTS_ANSWER.0 | Self::ANSWER.0) {
            return Err(FrameError::AskedAndAnswered);
        }
        Ok((flags, bits & Self::COMPRESSED != 0))
    }
}

/// One frame. The payload is as it was before compression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub version: Version,
    pub flags: Flags,
    pub payload: Bytes,
}

/// Why bytes are not a frame. After any of these the connection cannot go on: where the next frame begins is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("not RNP: the frame begins with {found:02x?}")]
    Magic { found: [u8; 4] },
    #[error("version {0} of the protocol is not spoken here")]
    Version(Version),
    #[error("a payload of {length} bytes, at most {limit} are taken here")]
    TooLong { length: usize, limit: usize },
    #[error("reserved flags are set: {bits:#06x}")]
    ReservedFlags { bits: u16 },
    #[error("a frame both asks and answers")]
    AskedAndAnswered,
    #[error("an empty payload")]
    Empty,
    #[error("a payload that does not decompress: {0}")]
    Compression(&'static str),
}

impl Frame {
    pub fn new(flags: Flags, payload: Bytes) -> Self {
        Self { version: Version::CURRENT, flags, payload }
    }

    /// Appends the frame to `out`, compressed when that saves a tenth and more. Fails when the payload is longer than
    /// `limit`: the peer would close the connection.
    pub fn encode(&self, limit: Limit, out: &mut BytesMut) -> Result<(), FrameError> {
        let (length, limit) = (self.payload.len(), limit.bytes());
        if length == 0 {
            return Err(FrameError::Empty);
        }
        if length > limit {
            return Err(FrameError::TooLong { length, limit });
        }
        match lz::compress(&self.payload) {
            Some(smaller) => self.put(self.flags.0 | Flags::COMPRESSED, &smaller, out),
            None => self.put(self.flags.0, &self.payload, out),
        }
        Ok(())
    }

    /// The same without trying to make it smaller: for what is known not to shrink.
    pub fn encode_as_is(&self, limit: Limit, out: &mut BytesMut) -> Result<(), FrameError> {
        let (length, limit) = (self.payload.len(), limit.bytes());
        if length == 0 {
            return Err(FrameError::Empty);
        }
        if length > limit {
            return Err(FrameError::TooLong { length, limit });
        }
        self.put(self.flags.0, &self.payload, out);
        Ok(())
    }

    fn put(&self, flags: u16, payload: &[u8], out: &mut BytesMut) {
        put_header(self.version, payload.len(), flags, payload.len(), out);
        out.put_slice(payload);
    }

    /// How many bytes the first frame in `buffer`, as long as its header says, has yet to come; nothing while the header itself
    /// has. What [`Self::decode`] refuses has no such number that matters.
    pub fn lacks(buffer: &[u8]) -> Option<usize> {
        let length = buffer.get(MAGIC.len() + 2..HEADER_BYTES)?.first_chunk()?;
        Some((HEADER_BYTES + u32::from_be_bytes(*length) as usize).saturating_sub(buffer.len()))
    }

    /// Takes the first whole frame out of `buffer`; nothing when it is not all there yet.
    pub fn decode(buffer: &mut BytesMut, limit: Limit) -> Result<Option<Self>, FrameError> {
        let Some(header) = Header::read(buffer, limit)? else { return Ok(None) };
        if buffer.len() < HEADER_BYTES + header.length {
            return Ok(None);
        }
        buffer.advance(HEADER_BYTES);
        let payload = buffer.split_to(header.length).freeze();
        let payload = if header.compressed { lz::decompress(&payload, limit.bytes())? } else { payload };
        Ok(Some(Self { version: header.version, flags: header.flags, payload }))
    }
}

/// Appends a header, and makes room for so much of the payload as is to follow it there.
pub(crate) fn put_header(version: Version, length: usize, flags: u16, room: usize, out: &mut BytesMut) {
    out.reserve(HEADER_BYTES + room);
    out.put_slice(&MAGIC);
    out.put_u8(version.major);
    out.put_u8(version.minor);
    out.put_u32(u32::try_from(length).expect("at most 16 MiB, as `encode` checks"));
    out.put_u16(flags);
}

/// What is known before the payload is there.
struct Header {
    version: Version,
    length: usize,
    flags: Flags,
    compressed: bool,
}

impl Header {
    /// Refuses at the earliest byte that is wrong, so that a peer that speaks something else is not waited for.
    fn read(buffer: &[u8], limit: Limit) -> Result<Option<Self>, FrameError> {
        let there = buffer.len().min(MAGIC.len());
        if buffer[..there] != MAGIC[..there] {
            let mut found = [0; 4];
            found[..there].copy_from_slice(&buffer[..there]);
            return Err(FrameError::Magic { found });
        }
        if buffer.len() < HEADER_BYTES {
            return Ok(None);
        }
        let mut rest = &buffer[MAGIC.len()..];
        let version = Version { major: rest.get_u8(), minor: rest.get_u8() };
        if Version::CURRENT.common(version).is_none() {
            return Err(FrameError::Version(version));
        }
        let length = rest.get_u32() as usize;
        let (flags, compressed) = Flags::from_wire(rest.get_u16())?;
        if length > limit.bytes() {
            return Err(FrameError::TooLong { length, limit: limit.bytes() });
        }
        if length == 0 {
            return Err(FrameError::Empty);
        }
        Ok(Some(Self { version, length, flags, compressed }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(payload: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        Frame::new(Flags::NONE, Bytes::copy_from_slice(payload)).encode(Limit::Bulk, &mut out).unwrap();
        out
    }

    fn check_refused(bytes: &[u8], expected: FrameError) {
        let mut buffer = BytesMut::from(bytes);
        assert_eq!(Frame::decode(&mut buffer, Limit::Control), Err(expected), "{bytes:02x?}");
    }

    #[test]
    fn frames_come_back_however_the_bytes_arrive() {
        let payloads: [&[u8]; 3] = [b"a", &[7; 5_000], b"the last"];
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| encoded(payload)).collect();
        for chunk in [1, 2, 11, 12, 13, 1_000, 10_000] {
            let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
            for bytes in stream.chunks(chunk) {
                buffer.extend_from_slice(bytes);
                while let Some(frame) = Frame::decode(&mut buffer, Limit::Control).unwrap() {
                    found.push(frame.payload);
                }
            }
            assert_eq!(found, payloads, "in chunks of {chunk}");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn what_is_not_a_frame_is_refused_at_the_first_wrong_byte() {
        check_refused(b"G", FrameError::Magic { found: *b"G\0\0\0" });
        check_refused(b"RNQ", FrameError::Magic { found: *b"RNQ\0" });
        let header = |major, length: u32, flags: u16| {
            let mut bytes = MAGIC.to_vec();
            bytes.extend([major, 0]);
            bytes.extend(length.to_be_bytes());
            bytes.extend(flags.to_be_bytes());
            bytes
        };
        check_refused(&header(2, 1, 0), FrameError::Version(Version { major: 2, minor: 0 }));
        check_refused(&header(1, (1 << 20) + 1, 0), FrameError::TooLong { length: (1 << 20) + 1, limit: 1 << 20 });
        check_refused(&header(1, u32::MAX, 0), FrameError::TooLong { length: u32::MAX as usize, limit: 1 << 20 });
        check_refused(&header(1, 1, 0b10), FrameError::ReservedFlags { bits: 0b10 });
        check_refused(&header(1, 1, 0x8001), FrameError::ReservedFlags { bits: 0x8000 });
        check_refused(&header(1, 1, 0b1100), FrameError::AskedAndAnswered);
        check_refused(&header(1, 0, 0), FrameError::Empty);
    }

    #[test]
    fn a_claimed_length_makes_no_room() {
        let mut buffer = BytesMut::new();
        buffer.extend_from_slice(&encoded(&[0; 3])[..HEADER_BYTES - 6]);
        buffer.extend_from_slice(&[0x00, 0xff, 0xff, 0xff, 0, 0]);
        assert_eq!(Frame::decode(&mut buffer, Limit::Bulk), Ok(None));
        assert!(buffer.capacity() < 256, "{}", buffer.capacity());
    }

    #[test]
    fn an_unfinished_frame_tells_how_much_it_lacks() {
        let frame = encoded(&[7; 5_000]);
        let lacks = |there: usize| Frame::lacks(&frame[..there]);
        assert!((0..HEADER_BYTES).all(|there| lacks(there).is_none()));
        for there in [HEADER_BYTES, HEADER_BYTES + 1, frame.len() - 1, frame.len()] {
            assert_eq!(lacks(there), Some(frame.len() - there));
        }
        assert_eq!(Frame::lacks(&[&frame[..], b"RNP"].concat()), Some(0));
    }

    #[test]
    fn a_newer_minor_version_is_understood() {
        let mut bytes = encoded(b"a");
        bytes[5] = 9;
        let frame = Frame::decode(&mut bytes, Limit::Control).unwrap().unwrap();
        assert_eq!(frame.version, Version { major: 1, minor: 9 });
    }
}
