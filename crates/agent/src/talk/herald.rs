//! What becomes of the machines, told to programs: as the log has it, not as it seems.

use model::talk::events;
use model::{Name, NodeId, Standing};
use node::Node;
use serde_json::json;
use tokio::sync::watch;

use super::Talks;
use crate::watches::{Machines, Watches};

/// Runs for as long as the agent does.
pub(crate) async fn herald(talks: Talks, watches: Watches, mut leaving: watch::Receiver<bool>) {
    let Some((_, shared)) = talks.others.clone() else { return };
    let mut standings = watches.machines();
    let mut keepers = shared.feed.keepers();
    let mut leader = keepers.borrow_and_update().leader;
    let Ok(mut known) = talks.looker.look(machines).await else { return };
    loop {
        tokio::select! {
            () = async { drop(leaving.wait_for(|leaving| *leaving).await) } => return,
            changed = standings.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = standings.borrow_and_update().clone();
                for (event, name) in difference(&known, &now) {
                    talks.announce(event, &json!({"event": event, "node": name}));
                }
                known = now;
            },
            changed = keepers.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = keepers.borrow_and_update().leader;
                // That nobody leads is known by the next who does.
                let Some(id) = now.filter(|now| leader != Some(*now)) else { continue };
                let first = leader.replace(id).is_none();
                let name = talks.looker.look(move |node| node.name_of(id)).await.ok().flatten();
                if !first {
                    talks.announce(events::LEADER_CHANGED, &json!({"event": events::LEADER_CHANGED, "leader": name}));
                }
            }
        }
    }
}

fn machines(node: &Node) -> Machines {
    let nodes = node.state().nodes.iter();
    nodes.map(|(id, record)| (*id, (record.name.clone(), record.standing))).collect()
}

/// What happened between two looks.
fn difference(before: &Machines, now: &Machines) -> Vec<(&'static str, Name)> {
    let event = |id: &NodeId, standing: Standing| match (before.get(id).map(|(_, standing)| *standing), standing) {
        (Some(before), now) if before == now => None,
        (Some(Standing::Lost), Standing::Up) => Some(events::NODE_BACK),
        (_, Standing::Up) => Some(events::NODE_JOINED),
        (_, Standing::Lost) => Some(events::NODE_LOST),
        (Some(_), Standing::Left) => Some(events::NODE_LEFT),
        // It came and went in between.
        (None, Standing::Left) => None,
    };
    now.iter().filter_map(|(id, (name, standing))| Some((event(id, *standing)?, name.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_what_became_of_machines() {
        let of = |standings: &[(u64, Standing)]| -> Machines {
            let machine =
                |(id, standing): &(u64, Standing)| (NodeId(*id), (format!("n{id}").parse().unwrap(), *standing));
            standings.iter().map(machine).collect()
        };
        use Standing::{Left, Lost, Up};
        let check = |before: &[(u64, Standing)], now: &[(u64, Standing)], expected: &[&str]| {
            let told: Vec<&str> = difference(&of(before), &of(now)).into_iter().map(|(event, _)| event).collect();
            assert_eq!(told, expected, "{before:?} {now:?}");
        };
        check(&[(1, Up)], &[(1, Up), (2, Up)], &["node_joined"]);
        check(&[(1, Up), (2, Up)], &[(1, Up), (2, Lost)], &["node_lost"]);
        check(&[(2, Lost)], &[(2, Up)], &["node_back"]);
        check(&[(1, Up), (2, Lost)], &[(1, Left), (2, Left)], &["node_left", "node_left"]);
        check(&[(1, Up), (2, Left)], &[(1, Up), (2, Left)], &[]);
        check(&[(1, Up)], &[(1, Up), (2, Left)], &[]);
        check(&[(1, Up)], &[(1, Up), (2, Lost)], &["node_lost"]);
    }
}
