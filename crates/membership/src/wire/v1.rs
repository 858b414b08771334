//! Version 1. Numbers and text as postcard writes them (varints, lengths before text).
//!
//! ```text
//! datagram := version, from, incarnation, to, item*          at most 1,200 bytes
//! blob     := version, from, item*                           at most 1,000,000 bytes
//! item     := kind (1 byte), length (varint), body
//! ```
//!
//! A released version is never edited: what differs gets a module of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use model::{Bytes, Millicores, Name, NodeId};
use serde::{Deserialize, Serialize};

use super::{
    ACCUSERS_MAX, BLOB_MAX_BYTES, BUCKETS_MAX, Blob, BlobKind, DATAGRAM_MAX_BYTES, Datagram, INCARNATION_END,
    Malformed, Message, News, Record, Rumour,
};
use crate::member::{Attributes, Capacity, LABELS_MAX, METADATA_MAX_BYTES, Member, Metadata, Status};

pub(super) const MAJOR: u8 = 1;
const MINOR: u8 = 0;
const VERSION: u8 = MAJOR << 4 | MINOR;

/// Most records of a blob: its bytes hold no more that are well formed (30 bytes at least).
const RECORDS_MAX: usize = BLOB_MAX_BYTES / 30;

/// Kinds of items. Those of a datagram and of a blob share one space.
mod kind {
    pub(super) const PING: u8 = 1;
    pub(super) const ACK: u8 = 2;
    pub(super) const ASK_PING: u8 = 3;
    pub(super) const HEARD: u8 = 4;
    pub(super) const RELAYED: u8 = 5;
    pub(super) const RUMOUR: u8 = 16;
    pub(super) const RECORD: u8 = 17;
    pub(super) const ASK: u8 = 32;
    pub(super) const ANSWER: u8 = 33;
    pub(super) const PUSH: u8 = 34;
}

#[derive(Serialize, Deserialize)]
struct Claim {
    id: u64,
    incarnation: u64,
    status: u8,
}

fn status_number(status: Status) -> u8 {
    match status {
        Status::Alive => 0,
        Status::Suspect => 1,
        Status::Dead => 2,
        Status::Left => 3,
    }
}

fn status_of(number: u8) -> Result<Status, Malformed> {
    match number {
        0 => Ok(Status::Alive),
        1 => Ok(Status::Suspect),
        2 => Ok(Status::Dead),
        3 => Ok(Status::Left),
        _ => Err(Malformed),
    }
}

/// Bytes being read, from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<T: Deserialize<'a>>(&mut self) -> Result<T, Malformed> {
        let (value, rest) = postcard::take_from_bytes(self.0).map_err(|_| Malformed)?;
        self.0 = rest;
        Ok(value)
    }

    fn incarnation(&mut self) -> Result<u64, Malformed> {
        self.take().and_then(checked_incarnation)
    }

    fn item(&mut self) -> Result<Option<(u8, Reader<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let kind = self.take::<u8>()?;
        let body = self.take::<&[u8]>()?;
        Ok(Some((kind, Reader(body))))
    }

    fn rumour(&mut self) -> Result<Rumour, Malformed> {
        let claim: Claim = self.take()?;
        let count: u8 = self.take()?;
        if usize::from(count) > ACCUSERS_MAX {
            return Err(Malformed);
        }
        let by = (0..count).map(|_| self.take().map(NodeId)).collect::<Result<_, _>>()?;
        let status = status_of(claim.status)?;
        Ok(Rumour { id: NodeId(claim.id), incarnation: checked_incarnation(claim.incarnation)?, status, by })
    }

    fn record(&mut self) -> Result<Record<'a>, Malformed> {
        let rumour = self.rumour()?;
        let described = self.incarnation()?;
        let age_s = self.take()?;
        let description = self.take()?;
        Ok(Record { rumour, described, age_s, description })
    }
}

fn checked_incarnation(incarnation: u64) -> Result<u64, Malformed> {
    if incarnation < INCARNATION_END { Ok(incarnation) } else { Err(Malformed) }
}

/// Appends `value`; the types written here have no failing way.
fn put<T: Serialize + ?Sized>(bytes: Vec<u8>, value: &T) -> Vec<u8> {
    postcard::to_extend(value, bytes).expect("growing memory takes any plain value")
}

fn put_rumour(bytes: Vec<u8>, rumour: &Rumour) -> Vec<u8> {
    let claim = Claim { id: rumour.id.0, incarnation: rumour.incarnation, status: status_number(rumour.status) };
    let accusers = &rumour.by[..rumour.by.len().min(ACCUSERS_MAX)];
    let bytes = put(put(bytes, &claim), &(accusers.len() as u8));
    accusers.iter().fold(bytes, |bytes, id| put(bytes, &id.0))
}

fn put_record(bytes: Vec<u8>, record: &Record<'_>) -> Vec<u8> {
    put(put_rumour(bytes, &record.rumour), &(record.described, record.age_s, record.description))
}

fn message_body(message: Message) -> (u8, Vec<u8>) {
    let body = Vec::with_capacity(24);
    match message {
        Message::Ping { nonce } => (kind::PING, put(body, &nonce)),
        Message::Ack { nonce } => (kind::ACK, put(body, &nonce)),
        Message::AskPing { nonce, target } => (kind::ASK_PING, put(body, &(nonce, target.0))),
        Message::Heard { nonce } => (kind::HEARD, put(body, &nonce)),
        Message::Relayed { nonce, target, incarnation } => (kind::RELAYED, put(body, &(nonce, target.0, incarnation))),
    }
}

/// Bytes being written, up to a limit.
struct Writer {
    bytes: Vec<u8>,
    limit: usize,
}

impl Writer {
    /// Whether the item fitted; when not, nothing is written.
    fn item(&mut self, kind: u8, body: &[u8]) -> bool {
        let length_bytes = if body.len() < 1 << 7 {
            1
        } else if body.len() < 1 << 14 {
            2
        } else {
            3
        };
        if self.bytes.len() + 1 + length_bytes + body.len() > self.limit {
            return false;
        }
        self.bytes.push(kind);
        self.bytes = put(std::mem::take(&mut self.bytes), body);
        true
    }
}

pub(crate) struct DatagramWriter {
    writer: Writer,
    scratch: Vec<u8>,
}

impl DatagramWriter {
    pub(crate) fn new(from: NodeId, incarnation: u64, to: NodeId, message: Option<Message>) -> Self {
        let mut start = Vec::with_capacity(256);
        start.push(VERSION);
        let mut writer = Writer { bytes: put(start, &(from.0, incarnation, to.0)), limit: DATAGRAM_MAX_BYTES };
        if let Some(message) = message {
            let (kind, body) = message_body(message);
            let fitted = writer.item(kind, &body);
            debug_assert!(fitted, "a head and a message take less than 80 bytes");
        }
        Self { writer, scratch: Vec::new() }
    }

    /// Whether it fitted.
    pub(crate) fn news(&mut self, news: &News<'_>) -> bool {
        self.scratch.clear();
        let scratch = std::mem::take(&mut self.scratch);
        let kind = match news {
            News::Rumour(rumour) => {
                self.scratch = put_rumour(scratch, rumour);
                kind::RUMOUR
            }
            News::Record(record) => {
                self.scratch = put_record(scratch, record);
                kind::RECORD
            }
        };
        self.writer.item(kind, &self.scratch)
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.writer.bytes
    }
}

pub(super) fn decode_datagram(bytes: &[u8]) -> Result<Datagram<'_>, Malformed> {
    let mut reader = Reader(bytes.get(1..).ok_or(Malformed)?);
    let from = NodeId(reader.take()?);
    let incarnation = reader.incarnation()?;
    let to = NodeId(reader.take()?);
    let (mut message, mut news) = (None, Vec::new());
    while let Some((kind, mut body)) = reader.item()? {
        let said = match kind {
            kind::PING => Message::Ping { nonce: body.take()? },
            kind::ACK => Message::Ack { nonce: body.take()? },
            kind::ASK_PING => Message::AskPing { nonce: body.take()?, target: NodeId(body.take()?) },
            kind::HEARD => Message::Heard { nonce: body.take()? },
            kind::RELAYED => {
                Message::Relayed { nonce: body.take()?, target: NodeId(body.take()?), incarnation: body.incarnation()? }
            }
            kind::RUMOUR => {
                news.push(News::Rumour(body.rumour()?));
                continue;
            }
            kind::RECORD => {
                news.push(News::Record(body.record()?));
                continue;
            }
            _ => continue,
        };
        // One question a datagram: a second would make one packet cost several answers.
        if message.replace(said).is_some() {
            return Err(Malformed);
        }
    }
    Ok(Datagram { from, incarnation, to, message, news })
}

pub(crate) struct BlobWriter {
    writer: Writer,
    scratch: Vec<u8>,
}

impl BlobWriter {
    /// `more` can be said at the end: see [`Self::finish_answer`].
    fn start(from: NodeId, limit: usize) -> Self {
        Self { writer: Writer { bytes: put(vec![VERSION], &from.0), limit }, scratch: Vec::new() }
    }

    pub(crate) fn ask(from: NodeId, buckets: &[u64]) -> Self {
        let mut blob = Self::start(from, BLOB_MAX_BYTES);
        let body: Vec<u8> = buckets.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        blob.writer.item(kind::ASK, &body);
        blob
    }

    /// Begins an answer; its last item, which says what differed, is kept room for.
    pub(crate) fn answer(from: NodeId) -> Self {
        Self::start(from, BLOB_MAX_BYTES - BUCKETS_MAX - 16)
    }

    pub(crate) fn push(from: NodeId) -> Self {
        let mut blob = Self::start(from, BLOB_MAX_BYTES);
        blob.writer.item(kind::PUSH, &[]);
        blob
    }

    /// Whether it fitted.
    pub(crate) fn record(&mut self, record: &Record<'_>) -> bool {
        self.scratch.clear();
        self.scratch = put_record(std::mem::take(&mut self.scratch), record);
        self.writer.item(kind::RECORD, &self.scratch)
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.writer.bytes
    }

    pub(crate) fn finish_answer(mut self, differing: &[bool], more: bool) -> Vec<u8> {
        self.writer.limit = BLOB_MAX_BYTES;
        let body: Vec<u8> =
            std::iter::once(u8::from(more)).chain(differing.iter().map(|differs| u8::from(*differs))).collect();
        self.writer.item(kind::ANSWER, &body);
        self.writer.bytes
    }
}

pub(super) fn decode_blob(bytes: &[u8]) -> Result<Blob<'_>, Malformed> {
    let mut reader = Reader(bytes.get(1..).ok_or(Malformed)?);
    let from = NodeId(reader.take()?);
    let (mut said, mut records) = (None, Vec::new());
    while let Some((kind, mut body)) = reader.item()? {
        let this = match kind {
            kind::RECORD if records.len() == RECORDS_MAX => return Err(Malformed),
            kind::RECORD => {
                records.push(body.record()?);
                continue;
            }
            kind::ASK => {
                let hashes = body.0.chunks_exact(8);
                let count = hashes.len();
                if !count.is_power_of_two() || count > BUCKETS_MAX {
                    return Err(Malformed);
                }
                let word = |chunk: &[u8]| chunk.try_into().map(u64::from_le_bytes).map_err(|_| Malformed);
                BlobKind::Ask { buckets: hashes.map(word).collect::<Result<_, _>>()? }
            }
            kind::ANSWER => {
                let more = body.take::<u8>()? != 0;
                if !body.0.len().is_power_of_two() || body.0.len() > BUCKETS_MAX {
                    return Err(Malformed);
                }
                BlobKind::Answer { differing: body.0.iter().map(|byte| *byte != 0).collect(), more }
            }
            kind::PUSH => BlobKind::Push,
            _ => continue,
        };
        if said.replace(this).is_some() {
            return Err(Malformed);
        }
    }
    Ok(Blob { from, kind: said.ok_or(Malformed)?, records })
}

#[derive(Serialize, Deserialize)]
struct MetadataV1<'a> {
    region: Option<&'a str>,
    zone: Option<&'a str>,
    rack: Option<&'a str>,
    kind: Option<&'a str>,
    cpu_millicores: u32,
    memory_bytes: u64,
    disk_bytes: u64,
    gpus: u16,
    version: &'a str,
}

#[derive(Serialize, Deserialize)]
enum AddrV1 {
    V4([u8; 4], u16),
    V6([u8; 16], u16),
}

pub(super) fn encode_metadata(metadata: &Metadata) -> Vec<u8> {
    fn text(name: &Option<Name>) -> Option<&str> {
        name.as_ref().map(Name::as_str)
    }
    let fixed = MetadataV1 {
        region: text(&metadata.region),
        zone: text(&metadata.zone),
        rack: text(&metadata.rack),
        kind: text(&metadata.kind),
        cpu_millicores: metadata.capacity.cpu.0,
        memory_bytes: metadata.capacity.memory.0,
        disk_bytes: metadata.capacity.disk.0,
        gpus: metadata.capacity.gpus,
        version: &metadata.version,
    };
    let bytes = put(put(Vec::new(), &fixed), &(metadata.labels.len() as u8));
    metadata.labels.iter().fold(bytes, |bytes, (key, value)| put(bytes, &(key.as_str(), value.as_str())))
}

fn decode_metadata(bytes: &[u8]) -> Result<Metadata, Malformed> {
    let name = |text: Option<&str>| text.map(str::parse::<Name>).transpose().map_err(|_| Malformed);
    let mut reader = Reader(bytes);
    let fixed: MetadataV1<'_> = reader.take()?;
    let count: u8 = reader.take()?;
    if bytes.len() > METADATA_MAX_BYTES || usize::from(count) > LABELS_MAX {
        return Err(Malformed);
    }
    let mut labels = BTreeMap::new();
    for _ in 0..count {
        let (key, value): (&str, &str) = reader.take()?;
        labels.insert(key.parse().map_err(|_| Malformed)?, value.to_owned());
    }
    let capacity = Capacity {
        cpu: Millicores(fixed.cpu_millicores),
        memory: Bytes(fixed.memory_bytes),
        disk: Bytes(fixed.disk_bytes),
        gpus: fixed.gpus,
    };
    let attributes = Attributes {
        region: name(fixed.region)?,
        zone: name(fixed.zone)?,
        rack: name(fixed.rack)?,
        kind: name(fixed.kind)?,
        labels,
        capacity,
        version: fixed.version.to_owned(),
    };
    Metadata::new(attributes).map_err(|_| Malformed)
}

pub(super) fn encode_description(member: &Member) -> Vec<u8> {
    let port = member.addr.port();
    let addr = match member.addr.ip() {
        IpAddr::V4(ip) => AddrV1::V4(ip.octets(), port),
        IpAddr::V6(ip) => AddrV1::V6(ip.octets(), port),
    };
    let metadata = encode_metadata(&member.metadata);
    put(Vec::new(), &(member.name.as_str(), addr, metadata.as_slice()))
}

pub(super) fn decode_description(bytes: &[u8]) -> Result<(Name, SocketAddr, Metadata), Malformed> {
    let mut reader = Reader(bytes);
    let name: &str = reader.take()?;
    let addr = match reader.take()? {
        AddrV1::V4(ip, port) => SocketAddr::from((ip, port)),
        AddrV1::V6(ip, port) => SocketAddr::from((ip, port)),
    };
    let metadata: &[u8] = reader.take()?;
    // A peer's address must be one that can be sent to.
    if addr.port() == 0 || addr.ip().is_unspecified() || addr.ip().is_multicast() {
        return Err(Malformed);
    }
    Ok((name.parse().map_err(|_| Malformed)?, addr, decode_metadata(metadata)?))
}
