//! Every byte that leaves the process, to a peer or to the disk, first version: one byte that says so, then MessagePack
//! with named fields.
//!
//! Never edited once released. Fields may be added with a default, since they are written by name and unknown ones are
//! ignored; a new form gets a module and a first byte of its own.

use std::collections::BTreeSet;

use bytes::Bytes;
use model::NodeId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use state::{Command, State};

const VERSION: u8 = 1;
/// Deepest nesting of what peers send; their commands and snapshots are opaque here.
const DEPTH_MAX: usize = 16;
/// Largest command, as written: with what is around it, it must fit a control frame of a mebibyte.
pub const COMMAND_MAX: usize = 768 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct LogId {
    pub term: u64,
    pub index: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vote {
    pub term: u64,
    /// Who is voted for.
    pub node: NodeId,
    /// A majority did: it is the leader of this term.
    pub committed: bool,
}

/// Who votes. Two sets while one gives way to the other: then a majority of each is needed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Members {
    pub configs: Vec<BTreeSet<NodeId>>,
    /// The voters and whoever follows without a vote.
    pub nodes: BTreeSet<NodeId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub term: u64,
    pub index: u64,
    pub payload: Payload,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Payload {
    /// A new leader's first word.
    Blank,
    /// A [`Command`] as [`encode`] writes it.
    Command(Bytes),
    Members(Members),
}

/// The state at the beginning of the log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Snapshot {
    /// The last entry it stands for.
    pub last: Option<LogId>,
    /// Who voted then, and by which entry.
    pub members: Members,
    pub members_at: Option<LogId>,
    pub state: State,
}

/// The same, borrowed: a state may be large.
#[derive(Debug, Serialize)]
pub(crate) struct SnapshotRef<'s> {
    pub last: Option<LogId>,
    pub members: Members,
    pub members_at: Option<LogId>,
    pub state: &'s State,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Asks for a vote.
    Vote(VoteRequest),
    /// Asks whether a vote would be given.
    PreVote(VoteRequest),
    /// Adds entries; without any a sign of life.
    Append(Append),
    /// Brings a piece of a snapshot.
    Piece(Piece),
    /// Asks the receiver to become leader now.
    Transfer(Transfer),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteRequest {
    pub vote: Vote,
    pub last: Option<LogId>,
    /// The leader itself asked for this election.
    #[serde(default)]
    pub transfer: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Append {
    pub vote: Vote,
    pub previous: Option<LogId>,
    pub committed: Option<LogId>,
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub vote: Vote,
    /// Which snapshot: equal states are equal bytes, whoever made the snapshot.
    pub last: LogId,
    pub hash: ByteArray,
    /// Length of the whole.
    pub size: u64,
    pub offset: u64,
    /// None in the first request, which asks where to begin.
    pub bytes: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transfer {
    pub from: Vote,
    pub to: NodeId,
    pub last: Option<LogId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Vote(VoteAnswer),
    Append(AppendAnswer),
    Piece(PieceAnswer),
    Transfer(TransferAnswer),
    /// Nothing was done, for this reason.
    Refused(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteAnswer {
    pub vote: Vote,
    pub granted: bool,
    pub last: Option<LogId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AppendAnswer {
    /// All of them are on disk.
    Done,
    /// Up to here they are.
    Part(Option<LogId>),
    /// The entry before them is not the one here.
    Conflict,
    /// Another was voted for since.
    HigherVote(Vote),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PieceAnswer {
    pub vote: Vote,
    /// Where the next piece begins.
    pub next: u64,
    /// The whole arrived and took the place of the log.
    #[serde(default)]
    pub installed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TransferAnswer {
    Accepted,
    VoteChanged(Vote),
    LogBehind(Option<LogId>),
}

/// A BLAKE3 hash, written as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ByteArray(#[serde(with = "serde_bytes")] pub [u8; 32]);

/// The bytes of a value: a request, an answer, an entry, a vote, a command.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    let mut bytes = vec![VERSION];
    value
        .serialize(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map())
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// A value of this process's own, or of a peer that is trusted with the state: commands and snapshots nest as deep as apps.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    rmp_serde::from_slice(payload(bytes)?).map_err(|error| error.to_string())
}

/// What a peer sent: it nests no deeper than it has to, and nothing is set aside for what is only announced.
pub(crate) fn decode_message<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(payload(bytes)?);
    deserializer.set_max_depth(DEPTH_MAX);
    T::deserialize(&mut deserializer).map_err(|error| error.to_string())
}

pub(crate) fn command(bytes: &[u8]) -> Result<Command, String> {
    decode(bytes)
}

fn payload(bytes: &[u8]) -> Result<&[u8], String> {
    match bytes.split_first() {
        Some((&VERSION, payload)) => Ok(payload),
        Some((version, _)) => Err(format!("unknown version {version}")),
        None => Err("empty".to_owned()),
    }
}
