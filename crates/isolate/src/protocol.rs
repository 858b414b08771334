//! What an agent and a nursery say to each other: MessagePack with named fields, one message per packet of a
//! `SOCK_SEQPACKET` path socket, file descriptors beside it.
//!
//! This version is never edited once released; a new one gets a new number and both are spoken for a release. How
//! bytes get across is `packet`.

use std::collections::BTreeMap;

use model::{ExitCause, Limits, StarId};
use serde::{Deserialize, Serialize};

use crate::memory::Keeping;
use crate::order::{Launch, StarOrder};
use crate::parcel::Copying;
use crate::walls::Walls;

/// The version spoken here, compared in `Hello`.
pub const VERSION: u32 = 1;

/// Most sockets one `Door` may ask for: the kernel passes at most 253 descriptors in one packet, and a proxy that
/// wants more at once asks again.
pub const DOORS_MAX: u8 = 64;

/// From the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The first request of a connection; until it is welcomed, every other is refused.
    Hello { version: u32 },
    /// Answered by `Started` or `StartFailed`, and by `Refused` when the id is known already.
    Start(Box<StarOrder>),
    /// Sends a signal to the star's program, not to what it started. No answer; a star that ended is left alone.
    Signal { star: StarId, signal: i32 },
    /// Ends everything in the star at once. Answered by `Exited`.
    Kill { star: StarId },
    /// Changes the limits of a running star. Answered by `Limited`.
    Limit { star: StarId, limits: Box<Limits> },
    /// The stars may run for so long from now on: each that is not named again until then is killed. One that was never named
    /// runs as long as it likes. Holds for stars to come too. No answer.
    Lease { stars: Vec<StarId>, for_ms: u64 },
    /// Halts everything in a running star, or lets it go on; twice is once. Answered by `Frozen`.
    Freeze { star: StarId, frozen: bool },
    /// Halts everything in a running star for as long as this connection lasts, however it ends; beside `Freeze`, not in
    /// place of it. Answered by `Held` once nothing in it moves any more.
    Hold { star: StarId },
    /// Asks for `count` TCP sockets (non-blocking, IPv4, not connected) made inside the star's network namespace, or
    /// the host's for a star on the host network. Answered by `Doors` with the same token.
    Door { star: StarId, token: u64, count: u8 },
    /// Runs a command or a script inside the star's walls, with the three descriptors that come along as its standard
    /// input, output and error; or with one, a socket of `terminal::socket`: then it has a terminal of the star's, whose near
    /// side comes by that socket. Answered by `ExecEnded` with the same token.
    Exec { star: StarId, token: u64, launch: Launch, env: BTreeMap<String, String> },
    /// Copies files within the star's walls, as a tar stream: by its standard streams, as `Exec`. Answered by `ExecEnded`.
    Copy { star: StarId, token: u64, copying: Copying },
    /// Hangs up on what was run under a token, and the rest of its process group: SIGHUP, as when a terminal goes away.
    HangUpExec { token: u64 },
    /// Keeps the memory of a running star. Standard output is told `memory::Kept` when everything its program began stands still
    /// and is written; it goes on when standard input is closed. Answered by `ExecEnded`.
    KeepMemory { star: StarId, token: u64, keeping: Keeping },
    /// Kills what was run under a token, and the rest of its process group. Answered by its `ExecEnded`; one that has
    /// ended is left alone.
    EndExec { token: u64 },
    /// Removes an ended star's folder with its logs; the nursery knows it no more. Refused while it runs.
    Forget { star: StarId },
    /// Kills every star, removes what the nursery made (its logs stay) and ends it.
    Shutdown,
    /// Hands over to another program in the same process, so that stars, connections and exit codes are kept. The program
    /// comes along as a descriptor; under `args` it is a nursery of the same data folder. The one request that needs no
    /// hello and that no version may change: any nursery can be asked by any later program. Answered by `TookOver`
    /// from the new program, or by `Refused`: then nothing has changed.
    Upgrade { args: Vec<String> },
}

/// From the nursery. `Started`, `StartFailed` and `Exited` go to every connection, the rest to the one that asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "the large one comes once a connection, and no more than one is held")]
pub enum Message {
    Welcome {
        version: u32,
        pid: u32,
        /// Every star it knows: running, and ended but not yet forgotten.
        stars: Vec<StarReport>,
        walls: Walls,
    },
    /// Every wall stands and the program runs.
    Started {
        star: StarId,
        /// The star's first process as the host numbers it.
        pid: u32,
        /// Clock ticks since boot, field 22 of `/proc/PID/stat`: with the pid it names one process for ever.
        start_time: u64,
        /// Microseconds from the request's arrival to this moment.
        elapsed_us: u64,
    },
    /// The star does not exist: nothing of it is left but its folder, until `Forget`.
    StartFailed { star: StarId, reason: String },
    /// The star ended and its group, namespaces and mounts are gone.
    Exited { star: StarId, cause: ExitCause },
    /// The limits stand, or `problem` says which does not and why.
    Limited { star: StarId, problem: Option<String> },
    /// The star halts or goes on, or `problem` says why not.
    Frozen { star: StarId, problem: Option<String> },
    /// Nothing in the star moves, or `problem` says why it does.
    Held { star: StarId, problem: Option<String> },
    /// The sockets come along in the packet; none with a problem.
    Doors { star: StarId, token: u64, problem: Option<String> },
    /// The command's exit code (128 and the signal's number when one ended it; 127 or 126 when there is no such program or it cannot
    /// be executed), or why it was not tried.
    ExecEnded { token: u64, result: Result<i32, String> },
    /// The program that answers is the nursery now; `elapsed_us` passed since the last one stopped serving.
    TookOver { stars: u32, elapsed_us: u64 },
    /// A request that makes no sense now; nothing was changed.
    Refused { star: Option<StarId>, reason: String },
}

/// What a new agent learns of a star.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StarReport {
    pub star: StarId,
    pub generation: u64,
    /// 0 while it is being started.
    pub pid: u32,
    pub start_time: u64,
    /// How it ended, when it has.
    pub ended: Option<ExitCause>,
}
