//! Requests of the API that are answered on another node: HTTP over a stream (`api`) to that node's own routes, in the name
//! of who asked here.

use std::time::Duration;

use api::{Caller, Client, Road, Routes};
use model::{Code, NodeId, Problem};
use net::{Peer, Purpose, Stream, StreamIo};
use rnp::{ErrorCode, Fault};
use serde::{Deserialize, Serialize};
use state::State;

use super::roads::Roads;
use super::wire::{decode, encode};
use crate::control::Looker;

pub(crate) const SERVICE: &str = "api";

const OPEN_WITHIN: Duration = Duration::from_secs(3);

/// What follows from `api`: who asks, on the machine where the request was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Asker {
    uid: u32,
}

/// Clones lead to the same nodes.
#[derive(Clone)]
pub(crate) struct Forward {
    roads: Roads,
    looker: Looker,
}

impl Forward {
    pub(crate) fn new(roads: Roads, looker: Looker) -> Self {
        Self { roads, looker }
    }

    pub(crate) fn me(&self) -> NodeId {
        self.roads.me()
    }

    /// A connection to the API of another node.
    ///
    /// # Errors
    /// Names the node when it cannot be reached.
    pub(crate) async fn road(&self, node: NodeId, Caller { uid, .. }: Caller) -> Result<Road, Problem> {
        let name = self.looker.look(move |own| name_of(own.state(), node)).await?;
        let opened = self.roads.open(node, Purpose::Data, SERVICE, encode(&Asker { uid })?, OPEN_WITHIN).await;
        let stream = opened.map_err(|problem| {
            let message = format!("node `{name}` cannot be asked: {}", problem.message);
            Problem::new(Code::Unavailable, message).help("`rads c nodes` shows who is there")
        })?;
        Ok(Road { node: name, stream: Box::new(StreamIo::new(stream)) })
    }

    /// The API of another node, in the name of who asks here.
    pub(crate) async fn client(&self, node: NodeId, caller: Caller) -> Result<Client, Problem> {
        let name = self.looker.look(move |own| name_of(own.state(), node)).await?;
        let this = self.clone();
        Ok(Client::of_node(name, move || {
            let this = this.clone();
            Box::pin(async move { this.road(node, caller).await })
        }))
    }
}

/// Answers what another node passes on.
pub(crate) fn serve(routes: &Routes, peer: &Peer, body: &[u8], stream: Stream) -> Result<(), Fault> {
    let Asker { uid } = decode(body).map_err(|problem| Fault::new(ErrorCode::Protocol, problem.message))?;
    let (routes, caller) = (routes.clone(), Caller { uid, from: Some(peer.node()) });
    tokio::spawn(async move { routes.serve(StreamIo::new(stream), caller).await });
    Ok(())
}

fn name_of(state: &State, node: NodeId) -> String {
    state.nodes.get(&node).map_or_else(|| node.to_string(), |record| record.name.to_string())
}
