//! Every node tells the leader about once a second that it is there and at work: what its lease depends on. What it is, it tells when
//! that has changed.

use std::time::Duration;

use model::{Code, NodeFacts, NodeId, Problem, beat};
use net::Purpose;
use node::Node;
use rnp::Message;
use rnp::message::{NodeReport, NodeReported};
use state::Command;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::shared::Shared;
use crate::clock;
use crate::main_loop::Incoming;

/// It waits for the next long beat, the fifth: in `node::peers::LEASE` five of them pass.
const EVERY: Duration = Duration::from_millis(900);
const _: () = assert!(EVERY.as_millis() < 5 * beat::LONG.as_millis() && 5 * beat::LONG.as_millis() < 1_000);

/// Reports until the agent ends. That the loop itself answers is part of what is reported.
pub(crate) async fn run(shared: Shared, ask: mpsc::Sender<Incoming>) {
    while !ask.is_closed() {
        let began = Instant::now();
        let me = shared.roads.me();
        match shared.leader() {
            Some(leader) if leader == me => match shared.followed().await {
                Ok(at) => {
                    if heard(&ask, me).await.is_ok() {
                        let _ = ask.send(Incoming::Leased { heard: at }).await;
                    }
                }
                Err(problem) => tracing::debug!(%problem, "no majority follows this node"),
            },
            Some(leader) => {
                let Ok(stars) = shared.looker.look(|node| node.stars_here()).await else { return };
                let (report, sent) = (NodeReport { stars }, std::time::Instant::now());
                match shared.roads.call_once(leader, Purpose::Control, report, EVERY).await {
                    Ok(Message::NodeReported(NodeReported { age_ms })) => {
                        if let Some(heard) = sent.checked_sub(Duration::from_millis(age_ms)) {
                            let _ = ask.send(Incoming::Leased { heard }).await;
                        }
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(%leader, %error, elapsed_ms = began.elapsed().as_millis(), "not reported");
                    }
                }
            }
            None => {}
        }
        clock::rest(EVERY.saturating_sub(began.elapsed())).await;
    }
}

/// Tells the loop of the node that leads, which gives nodes up, that one was heard just now: its time runs anew, and it has a lease.
///
/// # Errors
/// `Conflict` when it is given up, or another node leads; `Forbidden` when it was removed; `Unavailable` when the agent ends.
pub(crate) async fn heard(ask: &mpsc::Sender<Incoming>, node: NodeId) -> Result<(), Problem> {
    let (answer, answered) = oneshot::channel();
    let ending = || Problem::new(Code::Unavailable, "the agent is ending");
    ask.send(Incoming::Heard { node, answer }).await.map_err(|_| ending())?;
    answered.await.map_err(|_| ending())?
}

/// Writes what this node says of itself into the log, when it is not what is written there.
pub(crate) async fn describe(shared: Shared, address: String, facts: NodeFacts) {
    let me = shared.roads.me();
    loop {
        let (wanted_address, wanted) = (address.clone(), facts.clone());
        let differs =
            move |node: &Node| node.state().nodes.get(&me).map(|record| !record.is_described(&wanted_address, &wanted));
        match shared.looker.look(differs).await {
            Ok(Some(true)) => {}
            // The first state it was told may be of before it was let in.
            Ok(None) => {
                clock::rest(EVERY).await;
                continue;
            }
            Ok(Some(false)) | Err(_) => return,
        }
        let (address, facts) = (address.clone(), Box::new(facts.clone()));
        let command = Command::DescribeNode { node: me, address, facts, wall: clock::wall() };
        match shared.propose(&command).await {
            Ok(index) => drop(shared.applied(index).await),
            Err(problem) => tracing::debug!(%problem, "this node is not described yet"),
        }
        clock::rest(EVERY).await;
    }
}
