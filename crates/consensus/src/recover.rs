//! The first voter of a log and the last one: what is written to a disk that nobody uses.

use std::collections::BTreeSet;

use model::{Code, NodeId, Problem};
use state::State;

use crate::disk::{Disk, Fault, Write};
use crate::log::Memory;
use crate::raft::{Members, StoredMembers, log_id};
use crate::snapshot::Image;
use crate::v1;

/// Begins a log with one voter, whose first snapshot is the state given: that of a machine that was alone, or an empty one.
/// Commands will have the indexes after the state's.
///
/// # Errors
/// `Conflict` when the disk holds a log already; nothing is changed then, nor when the disk fails.
pub fn found(disk: &mut impl Disk, me: NodeId, state: &State) -> Result<(), Problem> {
    let stored = disk.load().map_err(problem)?;
    if stored != crate::disk::Stored::default() || disk.snapshot().map_err(problem)?.is_some() {
        let message = "this node already has a part of a shared log";
        return Err(Problem::new(Code::Conflict, message).help("it belongs to a constellation: leave that first"));
    }
    // Of no term: what comes before the first election.
    let last = log_id(0, state.index);
    let members = StoredMembers::new(Some(last), alone(me));
    let image = Image::encode(Some(last), &members, state).map_err(internal)?;
    let mark = v1::encode(&v1::LogId::from(last)).map_err(internal)?;
    let writes = [
        Write::Snapshot { index: last.index, bytes: image.bytes.to_vec() },
        Write::Purge { upto: last.index, mark: mark.clone() },
        Write::Committed(mark),
    ];
    disk.commit(&writes).map_err(problem)
}

/// How far the log of a node goes. Of two the one with the higher term is the newer, and of one term the one with the higher index:
/// what was answered for is in the newest of a majority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// Of the last entry.
    pub term: u64,
    pub index: u64,
    /// Whose votes count, as far as is known here.
    pub voters: BTreeSet<NodeId>,
}

/// What [`become_only_voter`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alone {
    /// The entry that says so; what is before it is kept.
    pub index: u64,
    /// The voters that were.
    pub voters: BTreeSet<NodeId>,
    /// Entries at the end of the log that are kept though nobody can say whether a majority had them: any of them may or may
    /// not have been answered for.
    pub uncertain: u64,
}

/// Makes this node the only voter, from the log it has: for when more than half of the voters are gone for good.
///
/// What was answered for is kept if this node has it: take the node whose log is the newest, by its [`Tail`]. Entries that only
/// others had are lost. The other voters of old must never come back as they were, since they know nothing of this and may agree
/// without it: they begin anew, under other ids.
///
/// # Errors
/// `NotFound` when there is no log, `Conflict` when it is the only voter; `DataCorrupt`, `DiskFull`. Nothing is changed then.
pub fn become_only_voter(disk: &mut impl Disk, me: NodeId) -> Result<Alone, Problem> {
    let (log, Tail { term, index: last, voters }) = read(disk)?;
    if voters.iter().eq([&me]) {
        let problem = Problem::new(Code::Conflict, "this controller keeps the log alone already");
        return Err(problem.help("start its agent: `rads c agent`"));
    }
    let committed = log.committed().map_or(0, |id| id.index);
    // Above every term there was here, so that it is the newest entry anywhere this node is heard.
    let term = log.vote().map_or(0, |vote| vote.leader_id.term).max(term) + 1;
    let index = last + 1;
    let entry = v1::Entry { term, index, payload: v1::Payload::Members((&alone(me)).into()) };
    let writes = [
        Write::Vote(v1::encode(&v1::Vote { term, node: me, committed: false }).map_err(internal)?),
        Write::Append { index, bytes: v1::encode(&entry).map_err(internal)? },
    ];
    disk.commit(&writes).map_err(problem)?;
    Ok(Alone { index, voters, uncertain: last.saturating_sub(committed) })
}

/// How far the log on a disk goes that nobody uses.
///
/// # Errors
/// `NotFound` when there is none; `DataCorrupt`.
pub fn tail(disk: &mut impl Disk) -> Result<Tail, Problem> {
    read(disk).map(|(_, tail)| tail)
}

fn read(disk: &mut impl Disk) -> Result<(Memory, Tail), Problem> {
    let stored = disk.load().map_err(problem)?;
    let corrupt = |what: String| Problem::new(Code::DataCorrupt, format!("the shared log is damaged: {what}"));
    let log = Memory::read(&stored).map_err(corrupt)?;
    let snapshot = match disk.snapshot().map_err(problem)? {
        Some((_, bytes)) => Some(Image::new(bytes).decode().map_err(corrupt)?.0.meta),
        None => None,
    };
    let Some(last) = log.last().max(snapshot.as_ref().and_then(|meta| meta.last_log_id)) else {
        return Err(Problem::new(Code::NotFound, "this node has no part of a shared log"));
    };
    let voters = log.members().or(snapshot.map(|meta| meta.last_membership.membership().clone()));
    let voters = voters.iter().flat_map(Members::voter_ids).map(NodeId).collect();
    Ok((log, Tail { term: last.leader_id.term, index: last.index, voters }))
}

fn alone(me: NodeId) -> Members {
    Members::new_with_defaults(vec![BTreeSet::from([me.0])], [])
}

fn problem(fault: Fault) -> Problem {
    fault.problem().clone()
}

fn internal(error: String) -> Problem {
    Problem::new(Code::Internal, error)
}
