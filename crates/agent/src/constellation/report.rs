//! Every node tells the leader once a second that it is there and at work: what its lease depends on. What it is, it tells when
//! that has changed.

use std::time::Duration;

use model::{Code, NodeFacts, NodeId, Problem};
use net::Purpose;
use node::Node;
use rnp::Message;
use rnp::message::{NodeReport, NodeReported};
use state::Command;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::shared::Shared;
use crate::clock;
use crate::main_loop::Incoming;

/// `node::peers::LEASE` is five of them.
const EVERY: Duration = Duration::from_secs(1);

/// Reports until the agent ends. That the loop itself answers is part of what is reported.
pub(crate) async fn run(shared: Shared, ask: mpsc::Sender<Incoming>) {
    loop {
        let began = Instant::now();
        let Ok(stars) = shared.looker.look(|node| node.stars_here()).await else { return };
        let me = shared.roads.me();
        match shared.leader() {
            Some(leader) if leader == me => match shared.followed().await {
                Ok(heard) => {
                    let _ = ask.send(Incoming::Heard(me)).await;
                    if granted(&shared, me).await.is_ok() {
                        let _ = ask.send(Incoming::Leased { heard }).await;
                    }
                }
                Err(problem) => tracing::debug!(%problem, "no majority follows this node"),
            },
            Some(leader) => {
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

/// Whether the node that was heard just now has a lease: asked on the node that leads, of the loop that gives nodes up, behind the word
/// of it. From here on its time runs anew.
///
/// # Errors
/// `Conflict` when it is given up, or another node leads.
pub(crate) async fn granted(shared: &Shared, node: NodeId) -> Result<(), Problem> {
    match shared.looker.look(move |here| here.leases(node)).await? {
        true => Ok(()),
        false => Err(Problem::new(Code::Conflict, "the node is given up, and is not welcomed back yet")),
    }
}

/// Writes what this node says of itself into the log, when it is not what is written there.
pub(crate) async fn describe(shared: Shared, address: String, facts: NodeFacts) {
    let me = shared.roads.me();
    loop {
        let (wanted_address, wanted) = (address.clone(), facts.clone());
        let differs = move |node: &Node| {
            node.state().nodes.get(&me).is_some_and(|record| record.address != wanted_address || record.facts != wanted)
        };
        match shared.looker.look(differs).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return,
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
