//! The RADS Native Protocol: what nodes say to each other, as bytes and as values. `docs/rnp.md` is its specification.
//!
//! Bytes in, messages out: no sockets, clocks or TLS, which are `net`'s. Whatever the bytes, decoding ends in a value or a
//! refusal, in time and memory proportional to the bytes that are there, never to lengths they claim.
//!
//! - `frame`: the outer layer, a header and a payload; `lz`: payloads made smaller.
//! - `scan`: MessagePack walked without trusting it; `envelope`: a payload that is one message.
//! - `message`: every message there is. `stream`: a payload that is a piece of a stream.
//! - `fault`: error codes. `retry`: when to ask again. `version`: what two peers can speak.

#![forbid(unsafe_code)]

pub mod envelope;
pub mod fault;
pub mod frame;
mod lz;
pub mod message;
pub mod retry;
mod scan;
pub mod stream;
pub mod version;

pub use envelope::{Envelope, Refused};
pub use fault::{ErrorCode, Fault};
pub use frame::{Flags, Frame, FrameError, Limit};
pub use message::{Kind, Message};
pub use stream::{Piece, StreamId};
pub use version::Version;

/// What the payload of a frame is.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    Message(Envelope),
    Piece(Piece),
}

/// Reads the payload of a frame, which begins with `c1` for a piece of a stream and with a MessagePack map for a message.
pub fn read(frame: &Frame) -> Result<Payload, Refused> {
    if stream::is_piece(&frame.payload) {
        let piece = Piece::decode(&frame.payload).map_err(|error| Refused::outright(error.to_string()))?;
        // A piece is part of a conversation of its own: there is nothing to acknowledge.
        if frame.flags != Flags::NONE {
            return Err(Refused::outright("a piece of a stream carries flags".to_owned()));
        }
        return Ok(Payload::Piece(piece));
    }
    Envelope::decode(&frame.payload).map(Payload::Message)
}
