//! `consensus` in virtual time: the files of that crate, compiled a second time over another runtime.
//!
//! Every file but three is `consensus`'s own. `concrete` lets its users be compiled without openraft. `runtime` is another: time, tasks and the disk's thread come from `executor`, which runs
//! the tasks of many machines in one thread, in an order that a seed decides, and moves its clock on when nobody has anything to do.
//! What a simulation adds to the interface is at the end of this file.

#![forbid(unsafe_code)]

#[path = "../../consensus/src/compact.rs"]
mod compact;
mod concrete;
#[path = "../../consensus/src/config.rs"]
mod config;
#[path = "../../consensus/src/disk.rs"]
mod disk;
pub mod executor;
#[path = "../../consensus/src/flusher.rs"]
mod flusher;
#[path = "../../consensus/src/gather.rs"]
mod gather;
#[path = "../../consensus/src/handle.rs"]
mod handle;
#[path = "../../consensus/src/log.rs"]
mod log;
#[path = "../../consensus/src/machine.rs"]
mod machine;
#[path = "../../consensus/src/members.rs"]
mod members;
#[path = "../../consensus/src/network.rs"]
mod network;
#[path = "../../consensus/src/peers.rs"]
mod peers;
#[path = "../../consensus/src/pulse.rs"]
mod pulse;
#[path = "../../consensus/src/raft.rs"]
mod raft;
#[path = "../../consensus/src/recover.rs"]
mod recover;
mod runtime;
#[path = "../../consensus/src/snapshot.rs"]
mod snapshot;
#[path = "../../consensus/src/status.rs"]
mod status;
#[path = "../../consensus/src/v1.rs"]
mod v1;
#[path = "../../consensus/src/voter.rs"]
mod voter;

pub use concrete::{Carrier, start};
pub use config::Config;
pub use disk::{Disk, Fault, Kept, Stored, Write};
pub use machine::Applied;
pub use peers::{Lane, PeerError, Peers};
pub use recover::{Alone, Tail, become_only_voter, found, tail};
pub use runtime::Defect;
pub use status::{Role, Standing, Status};
pub use v1::COMMAND_MAX;
pub use voter::{Consensus, Outcome, Refusal};

/// The term and the leader that a request speaks for, when it is one that only a leader sends.
pub fn leader_who_says(request: &[u8]) -> Option<(u64, model::NodeId)> {
    let vote = match v1::decode_message::<v1::Request>(request).ok()? {
        v1::Request::Append(append) => append.vote,
        v1::Request::Piece(piece) => piece.vote,
        v1::Request::Transfer(transfer) => transfer.from,
        v1::Request::Vote(_) | v1::Request::PreVote(_) => return None,
    };
    Some((vote.term, vote.node))
}

/// Reads what another controller may send, and forgets it: for fuzzing.
pub fn read_message(bytes: &[u8]) {
    if let Ok(request) = v1::decode_message::<v1::Request>(bytes) {
        let again = v1::encode(&request).expect("plain values");
        assert_eq!(v1::decode_message::<v1::Request>(&again), Ok(request));
    }
    let _ = v1::decode_message::<v1::Answer>(bytes);
    if let Ok(entry) = v1::decode::<v1::Entry>(bytes) {
        let _ = entry.into_raft();
    }
}

/// The state in a snapshot: for fuzzing. What is read is written so that it is read as the same.
pub fn read_snapshot(bytes: &[u8]) -> Result<state::State, String> {
    let (read, state) = snapshot::Image::new(bytes.to_vec()).decode()?;
    let again = snapshot::Image::encode(read.meta.last_log_id, &read.meta.last_membership, &state)?;
    let (_, same) = again.decode()?;
    assert_eq!(same, state);
    Ok(state)
}
