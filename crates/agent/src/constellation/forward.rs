//! Requests of the API that are answered on another node: HTTP over a stream (`api`) to that node's own routes, in the name
//! of who asked here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{Caller, Client, Road, Routes};
use model::{Code, Name, NodeId, NodeRole, Problem, Rights, StarId, WallTime};
use net::{Peer, Purpose, Stream, StreamIo};
use rnp::{ErrorCode, Fault};
use serde::{Deserialize, Serialize};
use state::State;

use super::roads::Roads;
use super::wire::{decode, encode};
use crate::clock;
use crate::control::Looker;

pub(crate) const SERVICE: &str = "api";
/// The same for a star that asks. A node that does not know who that could be does not know this either.
pub(crate) const SERVICE_OF_STARS: &str = "api.star";

const OPEN_WITHIN: Duration = Duration::from_secs(3);

/// What follows from `api`: who asks, on the machine where the request was made. By which right is not for that machine to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Asker {
    uid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grant: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    star: Option<StarId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
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
    pub(crate) async fn road(&self, node: NodeId, caller: Caller) -> Result<Road, Problem> {
        let star = caller.star.map(|(star, _)| star);
        let service = if star.is_some() { SERVICE_OF_STARS } else { SERVICE };
        let asker = Asker { uid: caller.uid, grant: caller.grant, star, address: caller.address };
        let name = self.looker.look(move |own| name_of(own.state(), node)).await?;
        let opened = self.roads.open(node, Purpose::Data, service, encode(&asker)?, OPEN_WITHIN).await;
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
            let (this, caller) = (this.clone(), caller.clone());
            Box::pin(async move { this.road(node, caller).await })
        }))
    }
}

/// Answers what another node passes on, with the rights that both have: who asks by the grants known here, and that node.
pub(crate) fn serve(routes: &Routes, looker: &Looker, peer: &Peer, body: &[u8], stream: Stream) -> Result<(), Fault> {
    let asker: Asker = decode(body).map_err(|problem| Fault::new(ErrorCode::Protocol, problem.message))?;
    let identity = peer.identity().ok_or_else(|| Fault::new(ErrorCode::Unauthorized, "only nodes are served"))?;
    let (routes, looker, from, role) = (routes.clone(), looker.clone(), identity.node, identity.role);
    tokio::spawn(async move {
        let caller = looker.look(move |node| caller(node.state(), asker, from, role, clock::wall())).await;
        // The loop ends with the agent.
        let Ok(caller) = caller else { return };
        routes.serve(StreamIo::new(stream), caller).await;
    });
    Ok(())
}

/// Who asks, as far as is known here.
fn caller(state: &State, asker: Asker, from: NodeId, role: NodeRole, now: WallTime) -> Caller {
    let Asker { uid, grant, star, address } = asker;
    let Some(star) = star else {
        let rights = Arc::new(rights(state, grant.as_ref(), role, now));
        return Caller { uid, from: Some(from), grant, star: None, address, rights };
    };
    // A node speaks for its own stars.
    let Some(record) = state.stars.get(&star).filter(|record| record.node == from) else {
        return Caller { from: Some(from), ..Caller::nobody() };
    };
    let own = state.rights_of_star(star).map_or_else(Rights::nothing, |own| own.and(&Rights::of_node(role)));
    Caller { from: Some(from), ..Caller::star(star, record.service.clone(), own) }
}

fn rights(state: &State, grant: Option<&Name>, role: NodeRole, now: WallTime) -> Rights {
    let own = Rights::of_node(role);
    match grant {
        None => own,
        Some(name) => state.grant(name, now).map_or_else(Rights::nothing, |grant| grant.rights().and(&own)),
    }
}

fn name_of(state: &State, node: NodeId) -> String {
    state.nodes.get(&node).map_or_else(|| node.to_string(), |record| record.name.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::{ContentHash, Role, Scope};
    use state::{Grant, Proof, Security};

    use super::*;

    #[test]
    fn a_worker_passes_on_no_more_than_it_may_and_nobody_more_than_their_grant() {
        let wall = WallTime(1_000);
        let grant = |role, namespaces, expires| Grant {
            role,
            namespaces,
            proof: Proof::Token(ContentHash([1; 32])),
            created: wall,
            expires,
        };
        let shop = || Scope::Only(["shop".parse().unwrap()].into());
        let grants = BTreeMap::from([
            ("root".parse().unwrap(), grant(Role::Admin, Scope::All, None)),
            ("ann".parse().unwrap(), grant(Role::Viewer, shop(), None)),
            ("old".parse().unwrap(), grant(Role::Admin, Scope::All, Some(wall))),
        ]);
        let security = Some(Security { grants, ..Security::default() });
        let state = State { security, ..State::default() };
        let check = |grant: Option<&str>, role, expected: Rights| {
            let grant: Option<Name> = grant.map(|name| name.parse().unwrap());
            assert_eq!(rights(&state, grant.as_ref(), role, wall), expected, "{grant:?} {role}");
        };
        let (worker, controller) = (NodeRole::Worker, NodeRole::Controller);
        let operator = || Rights { role: Role::Operator, namespaces: Scope::All };
        check(None, worker, operator());
        check(None, controller, Rights::EVERYTHING);
        check(Some("root"), controller, Rights::EVERYTHING);
        check(Some("root"), worker, operator());
        check(Some("ann"), worker, Rights { role: Role::Viewer, namespaces: shop() });
        check(Some("ann"), controller, Rights { role: Role::Viewer, namespaces: shop() });
        check(Some("old"), controller, Rights::nothing());
        check(Some("eve"), controller, Rights::nothing());
    }
}
