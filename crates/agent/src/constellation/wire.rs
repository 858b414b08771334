//! The bytes of what nodes say beyond the protocol's own messages, version 1: MessagePack with named fields.

use bytes::{Buf, Bytes, BytesMut};
use model::{Code, NodeId, Problem};
use net::{Stream, StreamIo};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use state::{Command, State};

/// What follows from `state.follow`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Follow {
    /// The index of the last command the follower has.
    pub(crate) after: u64,
}

/// What a follower is told, in the order of the log, without gap or repetition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Told {
    /// The whole state, in the place of everything before.
    State(Box<State>),
    Command {
        index: u64,
        command: Command,
    },
    /// Everything up to this index was told. Comes about every second at least.
    Mark {
        index: u64,
        leader: Option<NodeId>,
        voters: Vec<NodeId>,
        #[serde(default)]
        agreed: Vec<NodeId>,
    },
}

/// A state may be this long on the wire: ten thousand stars have some tens of mebibytes.
const TOLD_MAX_BYTES: usize = 256 << 20;

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Bytes, Problem> {
    let bytes = rmp_serde::to_vec_named(value);
    bytes.map(Bytes::from).map_err(|error| Problem::new(Code::Internal, error.to_string()))
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let not_understood = |error: rmp_serde::decode::Error| {
        Problem::new(Code::Unsupported, format!("another node said something that is not understood: {error}"))
    };
    rmp_serde::from_slice(bytes).map_err(not_understood)
}

/// A value with its length before it (4 bytes, little-endian), as it goes into a stream.
pub(crate) fn framed<T: Serialize>(value: &T) -> Result<Bytes, Problem> {
    let value = encode(value)?;
    let length = u32::try_from(value.len()).map_err(|_| Problem::new(Code::Internal, "too long for a stream"))?;
    Ok([&length.to_le_bytes(), value.as_ref()].concat().into())
}

/// `framed(&Told::Command { index, command })` of a command that is MessagePack already.
pub(crate) fn told_command(index: u64, command: &[u8]) -> Result<Bytes, Problem> {
    let mut bytes = vec![0; 4];
    let internal = |error: rmp_serde::encode::Error| Problem::new(Code::Internal, error.to_string());
    {
        let mut head = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
        // A map of one: the variant, and its fields without the last one's value, which follows.
        let mut variant = serde::Serializer::serialize_map(&mut head, Some(1)).map_err(internal)?;
        serde::ser::SerializeMap::serialize_key(&mut variant, "Command").map_err(internal)?;
        let mut fields = serde::Serializer::serialize_map(&mut head, Some(2)).map_err(internal)?;
        serde::ser::SerializeMap::serialize_entry(&mut fields, "index", &index).map_err(internal)?;
        serde::ser::SerializeMap::serialize_key(&mut fields, "command").map_err(internal)?;
    }
    bytes.extend_from_slice(command);
    let length = u32::try_from(bytes.len() - 4).map_err(|_| Problem::new(Code::Internal, "too long for a stream"))?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes.into())
}

/// Reads such values from a stream.
pub(crate) struct Reader {
    stream: Stream,
    input: BytesMut,
    /// Bytes of one value.
    most: usize,
}

impl Reader {
    pub(crate) fn new(stream: Stream) -> Self {
        Self::bounded(stream, TOLD_MAX_BYTES)
    }

    /// One that takes no longer values than these.
    pub(crate) fn bounded(stream: Stream, most: usize) -> Self {
        Self { stream, input: BytesMut::new(), most }
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// What else comes on the stream, as it is; first what has come already.
    pub(crate) fn into_parts(self) -> (Stream, BytesMut) {
        (self.stream, self.input)
    }

    pub(crate) fn into_io(self) -> StreamIo {
        StreamIo::with_rest(self.stream, self.input.freeze())
    }

    /// The next value; nothing once the other side has finished.
    ///
    /// # Errors
    /// When the stream ended in between, or what came is no such value.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Problem> {
        loop {
            if let Some(value) = self.take()? {
                return Ok(Some(value));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// A value that has come already.
    pub(crate) fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Problem> {
        let Some(length) = self.input.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > self.most {
            return Err(Problem::new(Code::Unsupported, format!("another node announces {length} bytes at once")));
        }
        if self.input.len() < 4 + length {
            return Ok(None);
        }
        self.input.advance(4);
        let value = self.input.split_to(length);
        decode(&value).map(Some)
    }

    /// Waits for more bytes; false at the end.
    async fn more(&mut self) -> Result<bool, Problem> {
        let ended = |end: net::connection::StreamEnd| Problem::new(Code::Unavailable, end.to_string());
        match self.stream.read().await.map_err(ended)? {
            Some(bytes) => {
                self.input.extend_from_slice(&bytes);
                Ok(true)
            }
            None if self.input.is_empty() => Ok(false),
            None => Err(Problem::new(Code::Unavailable, "a stream ended within a value")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Duty, WallTime};

    #[test]
    fn a_command_that_is_written_already_is_told_in_the_same_bytes() {
        let commands = [
            Command::Forget { stars: Vec::new() },
            Command::SetDuty { node: NodeId(7), duty: Duty::Draining, wall: WallTime(1_700_000_000_000) },
        ];
        for (index, command) in (0_u64..).map(|index| index * 70_000).zip(commands) {
            let told = told_command(index, &encode(&command).unwrap()).unwrap();
            assert_eq!(told, framed(&Told::Command { index, command }).unwrap());
        }
    }
}
