//! Messages of programs on their way between nodes: one stream each, handed on at most once.

use std::time::Duration;

use model::{Name, NodeId, Problem, StarId};
use net::{Peer, Purpose, Stream};
use rnp::{ErrorCode, Fault};
use serde::{Deserialize, Serialize};

use super::bundles::given;
use super::mesh::refuse;
use super::roads::Roads;
use super::wire::{Reader, decode, encode};
use crate::talk::{From, Talks};

pub(crate) const SERVICE: &str = "message.give";

/// A node that has not taken it by then does not.
const WITHIN: Duration = Duration::from_secs(3);
/// Longest answer.
const ANSWER_MAX_BYTES: usize = 64 << 10;

/// What follows from `message.give`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Letter {
    pub(crate) namespace: Name,
    /// The star that sends it; nothing for a program outside of stars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sender: Option<StarId>,
    pub(crate) from: From,
    pub(crate) stars: Vec<StarId>,
    /// JSON.
    pub(crate) message: String,
}

/// Sends a letter once; how many stars took it. One that may not have come is counted as not taken.
pub(crate) async fn send(roads: &Roads, node: NodeId, letter: &Letter) -> usize {
    let told = async {
        let stream = roads.open(node, Purpose::Data, SERVICE, encode(letter)?, WITHIN).await?;
        let mut reader = Reader::bounded(stream, ANSWER_MAX_BYTES);
        let answer: Option<Result<u64, Problem>> = reader.next().await?;
        answer.unwrap_or_else(|| Err(Problem::new(model::Code::Unavailable, "it gave no answer")))
    };
    match tokio::time::timeout(WITHIN, told).await {
        Ok(Ok(told)) => usize::try_from(told).unwrap_or_default().min(letter.stars.len()),
        Ok(Err(problem)) => {
            tracing::debug!(%node, %problem, "a message was not handed on");
            0
        }
        Err(_) => 0,
    }
}

pub(crate) fn serve(talks: &Talks, peer: &Peer, body: &[u8], stream: Stream) -> Result<(), Fault> {
    let letter: Letter = decode(body).map_err(|problem| Fault::new(ErrorCode::Protocol, problem.message))?;
    if letter.message.len() > model::talk::MESSAGE_MAX_BYTES {
        return Err(Fault::new(ErrorCode::Protocol, "a message is too long"));
    }
    let (talks, by) = (talks.clone(), peer.node());
    tokio::spawn(async move {
        match talks.receive(by, letter).await {
            Ok(told) => given(stream, &(told as u64)).await,
            Err(problem) => refuse(stream, &problem).await,
        }
    });
    Ok(())
}
