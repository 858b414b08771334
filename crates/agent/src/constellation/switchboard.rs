//! Who of this node answers what other nodes ask: the certificate says who asks, the kind of the message what.

use std::future::ready;
use std::sync::{Arc, OnceLock};

use api::Routes;
use bytes::Bytes;
use consensus::Consensus;
use model::NodeRole;
use net::connection::Answer;
use net::{Peer, Service, Stream};
use rnp::message::{GossipSync, NodeReported, RaftAnswer};
use rnp::{ErrorCode, Fault, Message};
use tokio::sync::mpsc;

use super::bundles::{self, Carrier};
use super::forward;
use super::gossip::Gossip;
use super::gossip_keys::{self, GossipKeys};
use super::mesh::{self, Mesh};
use super::post;
use super::registrar::Registrar;
use super::report;
use super::roads;
use super::shared::Shared;
use super::survey;
use super::twin::{self, Twins};
use super::vault::{self, Vault};
use super::wire::decode;
use crate::main_loop::Incoming;
use crate::talk::Talks;

/// What answers; set once, when all of it is there. Until then everybody is asked to wait.
#[derive(Default)]
pub(crate) struct Switchboard {
    lines: OnceLock<Lines>,
}

pub(crate) struct Lines {
    pub(crate) voter: Option<Consensus>,
    pub(crate) shared: Shared,
    pub(crate) gossip: Gossip,
    pub(crate) data: DataPlane,
    /// On controllers.
    pub(crate) registrar: Option<Registrar<Shared>>,
    pub(crate) gossip_keys: GossipKeys,
    pub(crate) twins: Twins,
    pub(crate) ask: mpsc::Sender<Incoming>,
}

/// What other nodes use of this one beside the log.
pub(crate) struct DataPlane {
    pub(crate) mesh: Mesh,
    pub(crate) carrier: Carrier,
    pub(crate) vault: Vault,
    pub(crate) routes: Routes,
    pub(crate) talks: Talks,
}

impl Switchboard {
    pub(crate) fn connect(&self, lines: Lines) {
        assert!(self.lines.set(lines).is_ok(), "connected once");
    }
}

impl Service for Switchboard {
    fn answer(&self, peer: &Arc<Peer>, message: Message) -> Answer {
        let Some(lines) = self.lines.get() else { return refused(not_yet()) };
        let Some(identity) = peer.identity().cloned() else { return lines.stranger(peer, message) };
        let is_controller = identity.role == NodeRole::Controller;
        match message {
            Message::RaftVote(asked) if is_controller => lines.raft(identity.node, &asked.body),
            Message::RaftAppend(asked) if is_controller => lines.raft(identity.node, &asked.body),
            Message::RaftSnapshot(asked) if is_controller => lines.raft(identity.node, &asked.body),
            Message::RaftTransfer(asked) if is_controller => lines.raft(identity.node, &asked.body),
            Message::GossipSync(GossipSync { members }) => {
                let gossip = lines.gossip.clone();
                Box::pin(async move { Ok(GossipSync { members: gossip.compare(members).await }.into()) })
            }
            Message::StatePropose(asked) => {
                let shared = lines.shared.clone();
                Box::pin(async move {
                    let command = decode(&asked.command);
                    let command = command.map_err(|problem| Fault::new(ErrorCode::Protocol, problem.message))?;
                    shared.answer_propose(identity.node, identity.role, command).await
                })
            }
            Message::StateReadIndex(_) => {
                let shared = lines.shared.clone();
                Box::pin(async move { shared.answer_read_index().await })
            }
            Message::CertificateRenew(asked) => match lines.registrar.clone() {
                Some(registrar) => Box::pin(registrar.renew(Arc::clone(peer), asked)),
                None => refused(no_registrar()),
            },
            Message::NodeReport(_) => {
                let (ask, shared) = (lines.ask.clone(), lines.shared.clone());
                Box::pin(async move {
                    let followed = shared.followed().await;
                    let followed = followed.map_err(|problem| Fault::new(ErrorCode::NotLeader, problem.message))?;
                    report::heard(&ask, identity.node).await.map_err(|problem| roads::fault(&problem))?;
                    // A whole millisecond more: what is cut off must not lengthen it.
                    let age_ms = u64::try_from(followed.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
                    Ok(NodeReported { age_ms }.into())
                })
            }
            other => {
                let what = format!("`{}` is not answered to a {}", other.kind().name(), identity.role);
                refused(Fault::new(ErrorCode::Unauthorized, what))
            }
        }
    }

    fn stream(&self, peer: &Arc<Peer>, service: &str, body: Bytes, stream: Stream) -> Result<(), Fault> {
        let lines = self.lines.get().ok_or_else(not_yet)?;
        if peer.identity().is_none() {
            return Err(Fault::new(ErrorCode::Unauthorized, "only nodes are served"));
        }
        match service {
            "state.follow" => lines.shared.feed.serve(lines.shared.looker.clone(), peer.node(), &body, stream),
            mesh::SERVICE => lines.data.mesh.serve(&body, stream),
            bundles::FETCH => lines.data.carrier.serve_fetch(peer, &body, stream),
            bundles::HOLD => lines.data.carrier.serve_hold(peer, &body, stream),
            vault::SERVICE => lines.data.vault.serve(peer, &body, stream),
            post::SERVICE => post::serve(&lines.data.talks, peer, &body, stream),
            gossip_keys::RING => lines.gossip_keys.serve_ring(stream),
            gossip_keys::HAVE => lines.gossip_keys.serve_have(stream),
            survey::CLOCK => survey::serve_clock(stream),
            twin::SERVICE => lines.twins.serve(peer, &body, stream),
            forward::SERVICE | forward::SERVICE_OF_STARS => {
                forward::serve(&lines.data.routes, &lines.shared.looker, peer, &body, stream)
            }
            _ => {
                let what = format!("no service `{}`", service.escape_debug());
                Err(Fault::new(ErrorCode::NotFound, what))
            }
        }
    }
}

impl Lines {
    /// A machine without a certificate: it wants to join, or slept until its own ran out.
    fn stranger(&self, peer: &Arc<Peer>, message: Message) -> Answer {
        let Some(registrar) = self.registrar.clone() else { return refused(no_registrar()) };
        match message {
            Message::JoinRequest(asked) => Box::pin(registrar.admit(Arc::clone(peer), asked)),
            Message::CertificateRecover(asked) => Box::pin(registrar.recover(Arc::clone(peer), asked)),
            _ => refused(Fault::new(ErrorCode::Unauthorized, "only nodes are answered that")),
        }
    }

    fn raft(&self, from: model::NodeId, body: &[u8]) -> Answer {
        let Some(voter) = &self.voter else {
            return refused(Fault::new(ErrorCode::Unauthorized, "a worker keeps no part of the log"));
        };
        // Taken here and now, in the order in which requests came.
        let answer = voter.handle(from, body);
        Box::pin(async move { Ok(RaftAnswer { body: answer.await.into() }.into()) })
    }
}

fn no_registrar() -> Fault {
    Fault::new(ErrorCode::Unauthorized, "this node is a worker: controllers issue certificates")
}

fn not_yet() -> Fault {
    Fault::new(ErrorCode::ResourceExhausted, "this node is just starting")
}

fn refused(fault: Fault) -> Answer {
    Box::pin(ready(Err(fault)))
}
