//! A payload that is one message: `{type, id, timestamp, sender, data}`.
//!
//! Fields come in any order; those not known are passed over, at any depth. A message that cannot be understood is refused
//! with what its sender can be told, and under which id.

use bytes::Bytes;
use model::NodeId;

use crate::fault::{ErrorCode, Fault};
use crate::message::{Kind, Message};
use crate::scan::{self, Value};

/// Who sends before it has a name: a node that asks to join. No node is given this id.
pub const NOBODY: NodeId = NodeId(0);

/// Fields a message may have beside the five that are known. A newer minor version adds a few, not many.
const FIELDS_MAX: usize = 32;

#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Chosen by the sender and unique among its messages of the last ten minutes; an answer carries the id it answers.
    pub id: u64,
    /// The sender's clock, milliseconds since 1970. For people and traces: nothing is decided by it.
    pub timestamp: u64,
    /// Equals the node of the sender's certificate.
    pub sender: NodeId,
    pub message: Message,
}

/// Why a payload is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct Refused {
    /// What its sender is told.
    pub fault: Fault,
    /// The id of the message, when so much could be read.
    pub id: Option<u64>,
}

impl Refused {
    pub(crate) fn outright(message: String) -> Self {
        Self { fault: Fault::new(ErrorCode::Protocol, message), id: None }
    }
}

impl Envelope {
    pub fn encode(&self) -> Bytes {
        let data = self.message.encode_data();
        let kind = self.message.kind().name();
        let sender = self.sender.to_string();
        let mut out = Vec::with_capacity(80 + kind.len() + data.len());
        out.push(0x85);
        put_str(&mut out, "type");
        put_str(&mut out, kind);
        put_str(&mut out, "id");
        put_uint(&mut out, self.id);
        put_str(&mut out, "timestamp");
        put_uint(&mut out, self.timestamp);
        put_str(&mut out, "sender");
        put_str(&mut out, &sender);
        put_str(&mut out, "data");
        out.extend_from_slice(&data);
        out.into()
    }

    pub fn decode(payload: &[u8]) -> Result<Self, Refused> {
        let fields = Fields::read(payload)?;
        let id = fields.id;
        let refuse = |code, message: String| Refused { fault: Fault::new(code, message), id };
        let missing = |name: &str| refuse(ErrorCode::Protocol, format!("a message without `{name}`"));
        let kind_name = fields.kind.ok_or_else(|| missing("type"))?;
        let Some(id) = fields.id else { return Err(missing("id")) };
        let timestamp = fields.timestamp.ok_or_else(|| missing("timestamp"))?;
        let sender = fields.sender.ok_or_else(|| missing("sender"))?;
        let data = fields.data.ok_or_else(|| missing("data"))?;
        let sender = sender.parse().map_err(|error| refuse(ErrorCode::Protocol, format!("`sender`: {error}")))?;
        let Some(kind) = Kind::of(kind_name) else {
            return Err(refuse(ErrorCode::NotFound, format!("no messages of type `{}`", shown(kind_name))));
        };
        let message = Message::decode_data(kind, data)
            .map_err(|error| refuse(ErrorCode::Protocol, format!("`{kind_name}`: {error}")))?;
        Ok(Self { id, timestamp, sender, message })
    }
}

/// The fields of a message as they lie in it.
#[derive(Default)]
struct Fields<'a> {
    kind: Option<&'a str>,
    id: Option<u64>,
    timestamp: Option<u64>,
    sender: Option<&'a str>,
    data: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn read(payload: &'a [u8]) -> Result<Self, Refused> {
        let outright = |fault: scan::Fault| Refused::outright(fault.to_string());
        let (head, end) = scan::value(payload, 0).map_err(outright)?;
        let Value::Map { pairs, first } = head else {
            return Err(Refused::outright("a message is a map".to_owned()));
        };
        if end != payload.len() {
            return Err(Refused::outright(format!("{} bytes after the message", payload.len() - end)));
        }
        if pairs > FIELDS_MAX {
            return Err(Refused::outright(format!("a message of {pairs} fields")));
        }
        let mut fields = Self::default();
        let mut at = first;
        for _ in 0..pairs {
            let (key, after_key) = scan::value(payload, at).map_err(outright)?;
            let (value, after) = scan::value(payload, after_key).map_err(outright)?;
            at = after;
            let Value::Str(name) = key else { continue };
            let fits = match (name, value) {
                ("type", Value::Str(text)) => fields.kind.replace(text).is_none(),
                ("id", Value::Uint(number)) => fields.id.replace(number).is_none(),
                ("timestamp", Value::Uint(number)) => fields.timestamp.replace(number).is_none(),
                ("sender", Value::Str(text)) => fields.sender.replace(text).is_none(),
                ("data", Value::Map { .. }) => fields.data.replace(&payload[after_key..after]).is_none(),
                ("type" | "id" | "timestamp" | "sender" | "data", _) => false,
                _ => true,
            };
            if !fits {
                let message = format!("`{name}` is there twice or is not what it should be");
                return Err(Refused { fault: Fault::new(ErrorCode::Protocol, message), id: fields.id });
            }
        }
        Ok(fields)
    }
}

/// A name from elsewhere, fit to be shown.
fn shown(name: &str) -> String {
    name.chars().take(64).flat_map(char::escape_default).collect()
}

fn put_str(out: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(length @ 0..32) => out.push(0xa0 | length),
        Ok(length) => out.extend([0xd9, length]),
        Err(_) => unreachable!("names of types and ids of nodes are short"),
    }
    out.extend_from_slice(text.as_bytes());
}

/// The shortest form, as MessagePack asks of a good writer.
fn put_uint(out: &mut Vec<u8>, number: u64) {
    if let Ok(byte @ 0..0x80) = u8::try_from(number) {
        out.push(byte);
    } else if let Ok(byte) = u8::try_from(number) {
        out.extend([0xcc, byte]);
    } else if let Ok(short) = u16::try_from(number) {
        out.push(0xcd);
        out.extend(short.to_be_bytes());
    } else if let Ok(word) = u32::try_from(number) {
        out.push(0xce);
        out.extend(word.to_be_bytes());
    } else {
        out.push(0xcf);
        out.extend(number.to_be_bytes());
    }
}
