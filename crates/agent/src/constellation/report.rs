//! Every node tells the leader once a second that it is there and at work: what its lease depends on. What it is, it tells when
//! that has changed.

use std::time::Duration;

use model::NodeFacts;
use net::Purpose;
use node::Node;
use rnp::message::NodeReport;
use state::Command;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::shared::Shared;
use crate::clock;
use crate::main_loop::Incoming;

/// `node::peers::LEASE` is five of them.
const EVERY: Duration = Duration::from_secs(1);

/// Reports until the agent ends. That the loop itself answers is part of what is reported.
pub(crate) async fn run(shared: Shared, ask: mpsc::Sender<Incoming>) {
    let mut turn = interval(EVERY);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let began = Instant::now();
        turn.tick().await;
        let Ok(stars) = shared.looker.look(|node| node.stars_here()).await else { return };
        let me = shared.roads.me();
        match shared.leader() {
            Some(leader) if leader == me => {
                let _ = ask.send(Incoming::Heard(me)).await;
            }
            Some(leader) => {
                let report = NodeReport { stars };
                if let Err(problem) = shared.roads.call(leader, Purpose::Control, report, EVERY).await {
                    tracing::debug!(%leader, %problem, elapsed_ms = began.elapsed().as_millis(), "not reported");
                }
            }
            None => {}
        }
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
        tokio::time::sleep(EVERY).await;
    }
}
