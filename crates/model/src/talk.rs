//! What a program and the agent of its machine say to each other: one JSON object a line, each way, over a socket that only that
//! program has.
//!
//! Messages travel as text that is JSON itself. They are handed on at most once: nothing is kept for who does not listen, and
//! nothing is sent again.

use serde::{Deserialize, Serialize};

use crate::Problem;

/// Where a star finds the socket.
pub const WAY_IN_STAR: &str = "/run/rads";
/// Its name there.
pub const SOCKET: &str = "s";
/// Beside it: the agent's API over HTTP, as far as the service's `access` goes.
pub const API_SOCKET: &str = "api";
/// The variable that tells a star which namespace it is of.
pub const NAMESPACE_VARIABLE: &str = "STAR_NAMESPACE";
/// What the connection to an agent's API becomes, for programs that are no star.
pub const PROTOCOL: &str = "rads-talk";

/// Longest message, as JSON.
pub const MESSAGE_MAX_BYTES: usize = 64 << 10;
/// Longest line: a message whose every character is escaped once more, and what is around it.
pub const LINE_MAX_BYTES: usize = 2 * MESSAGE_MAX_BYTES + (4 << 10);

/// A program asks. Answered once, under the same number, in any order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub id: u64,
    pub ask: Ask,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// The machines, as a list.
    Nodes,
    /// The name of the one that leads.
    Leader,
    /// A message to a service, a star by its name, or every star on a node; of the program's own namespace. Answered with
    /// how many stars it was handed to.
    Send { to: String, message: String },
    /// The same to every star of the namespace but this one.
    Broadcast { message: String },
    /// From here on events are told, and messages.
    Hear,
    /// Found a constellation: for programs that are no star.
    Init { options: String },
}

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// JSON, or why not.
    Answer { id: u64, result: Result<String, Problem> },
    /// Something happened; `data` is JSON.
    Event { event: String, data: String },
}

/// What happens.
pub mod events {
    /// Somebody sent one.
    pub const MESSAGE: &str = "message";
    pub const NODE_JOINED: &str = "node_joined";
    /// It was given up: its stars run elsewhere.
    pub const NODE_LOST: &str = "node_lost";
    /// It was given up and is there again.
    pub const NODE_BACK: &str = "node_back";
    /// It left, or was removed.
    pub const NODE_LEFT: &str = "node_left";
    pub const LEADER_CHANGED: &str = "leader_changed";

    pub const ALL: [&str; 6] = [MESSAGE, NODE_JOINED, NODE_LOST, NODE_BACK, NODE_LEFT, LEADER_CHANGED];
}
