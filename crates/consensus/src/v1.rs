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
    // Most of what is written often fits.
    let mut bytes = Vec::with_capacity(256);
    bytes.push(VERSION);
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

/// A command's MessagePack, without what tells the version. Shares the bytes.
pub(crate) fn written(command: &Bytes) -> Bytes {
    command.slice(1.min(command.len())..)
}

fn payload(bytes: &[u8]) -> Result<&[u8], String> {
    match bytes.split_first() {
        Some((&VERSION, payload)) => Ok(payload),
        Some((version, _)) => Err(format!("unknown version {version}")),
        None => Err("empty".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fmt::Debug;

    const TERM: LogId = LogId { term: 3, index: 70_000 };
    const VOTE: Vote = Vote { term: 4, node: NodeId(9), committed: true };

    fn members() -> Members {
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        Members { configs: vec![ids(&[1, 2, 9]), ids(&[1, 9, 10])], nodes: ids(&[1, 2, 9, 10, 11]) }
    }

    fn requests() -> Vec<Request> {
        let asked = VoteRequest { vote: VOTE, last: Some(TERM), transfer: true };
        let entry = |index, payload| Entry { term: 3, index, payload };
        let entries = vec![
            entry(1, Payload::Blank),
            entry(2, Payload::Command(Bytes::from_static(b"\x01command"))),
            entry(3, Payload::Members(members())),
        ];
        vec![
            Request::Vote(asked.clone()),
            Request::PreVote(VoteRequest { last: None, transfer: false, ..asked }),
            Request::Append(Append { vote: VOTE, previous: Some(TERM), committed: None, entries }),
            Request::Piece(Piece {
                vote: VOTE,
                last: TERM,
                hash: ByteArray([7; 32]),
                size: 1 << 20,
                offset: 4096,
                bytes: Bytes::from_static(b"piece"),
            }),
            Request::Transfer(Transfer { from: VOTE, to: NodeId(2), last: Some(TERM) }),
        ]
    }

    fn answers() -> Vec<Answer> {
        let append = |answer| Answer::Append(answer);
        vec![
            Answer::Vote(VoteAnswer { vote: VOTE, granted: true, last: Some(TERM) }),
            append(AppendAnswer::Done),
            append(AppendAnswer::Part(Some(TERM))),
            append(AppendAnswer::Conflict),
            append(AppendAnswer::HigherVote(VOTE)),
            Answer::Piece(PieceAnswer { vote: VOTE, next: 8192, installed: false }),
            Answer::Transfer(TransferAnswer::Accepted),
            Answer::Transfer(TransferAnswer::VoteChanged(VOTE)),
            Answer::Transfer(TransferAnswer::LogBehind(None)),
            Answer::Refused("the disk is full".to_owned()),
        ]
    }

    /// A snapshot's own fields; the state in it has goldens where it is kept.
    fn snapshot() -> Snapshot {
        Snapshot { last: Some(TERM), members: members(), members_at: Some(TERM), state: State::default() }
    }

    fn written(snapshot: &Snapshot) -> Vec<u8> {
        let Snapshot { last, members, members_at, state } = snapshot;
        encode(&SnapshotRef { last: *last, members: members.clone(), members_at: *members_at, state }).unwrap()
    }

    /// The bytes as they were when version 1 was released, `what hex` a line: they must be read for ever, and what is
    /// written today is the same as long as nothing was added. `RADS_GOLDEN=1` prints those of today.
    #[test]
    fn bytes_of_the_first_version_are_still_read() {
        fn check<T: DeserializeOwned + PartialEq + Debug>(
            golden: &mut dyn Iterator<Item = &str>,
            what: &str,
            value: T,
            bytes: &[u8],
        ) {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            if std::env::var_os("RADS_GOLDEN").is_some() {
                println!("{what} {hex}");
                return;
            }
            let line = golden.next().and_then(|line| line.strip_prefix(what)).map(str::trim).unwrap_or_default();
            let old: Vec<u8> =
                (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect();
            assert_eq!(decode::<T>(&old).as_ref(), Ok(&value), "{what}");
        }
        let golden = &mut include_str!("../tests/golden/v1.txt").lines();
        for request in requests() {
            let bytes = encode(&request).unwrap();
            assert_eq!(decode_message::<Request>(&bytes).as_ref(), Ok(&request));
            check(golden, "request", request, &bytes);
        }
        for answer in answers() {
            let bytes = encode(&answer).unwrap();
            assert_eq!(decode_message::<Answer>(&bytes).as_ref(), Ok(&answer));
            check(golden, "answer", answer, &bytes);
        }
        check(golden, "vote", VOTE, &encode(&VOTE).unwrap());
        check(golden, "mark", TERM, &encode(&TERM).unwrap());
        check(golden, "snapshot", snapshot(), &written(&snapshot()));
        assert_eq!(golden.next(), None);
    }

    #[test]
    fn unknown_fields_are_passed_over_and_unknown_versions_are_not() {
        #[derive(Serialize)]
        struct Newer {
            term: u64,
            zone: &'static str,
            index: u64,
        }
        let newer = encode(&Newer { term: 3, zone: "a", index: 70_000 }).unwrap();
        assert_eq!(decode_message::<LogId>(&newer), Ok(TERM));
        let mut other = encode(&TERM).unwrap();
        other[0] = 2;
        assert_eq!(decode_message::<LogId>(&other), Err("unknown version 2".to_owned()));
    }

    #[test]
    fn cut_short_and_flipped_bytes_are_an_error_or_another_value_and_never_a_panic() {
        for request in requests() {
            let bytes = encode(&request).unwrap();
            for at in 0..bytes.len() {
                assert!(decode_message::<Request>(&bytes[..at]).is_err(), "cut at {at}");
                for bit in 0..8 {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= 1 << bit;
                    // TLS carries them; what counts here is that nothing breaks.
                    let _ = decode_message::<Request>(&flipped);
                }
            }
        }
    }
}
