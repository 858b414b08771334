//! Machines that were taken out or shut out while they could not hear the log: nobody tells it to them any more. What is left is
//! how they are received.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::Former;
use consensus::Consensus;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use model::{Code, NodeId, NodeRole, Problem};
use net::connection::Ended;
use net::identity::Expected;
use net::{ConnectError, Purpose};
use tokio::time::{sleep, timeout};

use super::home::Home;
use super::roads::Roads;
use super::shared::Shared;
use super::start::controllers;
use crate::clock;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks in a row before it is believed: whoever begins may be told so by the one of whom it has not heard yet.
const LOOKS: usize = 3;
/// Longest wait for what one controller says.
const WITHIN: Duration = Duration::from_secs(1);
/// The same before stars start again, which waits for it: where they answer at all it is some milliseconds.
pub(super) const WITHIN_BEFORE: Duration = Duration::from_millis(500);

/// How a controller receives this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Welcome {
    AsNode,
    ShutOut,
    /// Nobody is there, or nobody who is believed here.
    Unknown,
}

/// Waits until this node is let go of.
pub(super) async fn until(shared: &Shared) {
    let (mut looks, mut known) = (0, 0);
    while looks < LOOKS {
        sleep(LOOK_EVERY).await;
        let times = shared.roads.endpoint().times_shut_out();
        // Who is not shut out by anybody need not ask. A look that is answered so is the reason for the next.
        if std::mem::replace(&mut known, times) == times {
            continue;
        }
        looks = match is_now(shared).await {
            true => looks + 1,
            false => 0,
        };
    }
}

async fn is_now(shared: &Shared) -> bool {
    if keeps_the_log(shared.voter.as_ref(), shared.roads.me()) {
        return false;
    }
    let Ok(controllers) = shared.looker.look(|node| controllers(node.state())).await else { return false };
    is_by_those_there(&shared.roads, &controllers, WITHIN).await
}

/// Whether the constellation's log would be lost, or its leader, with this node: whatever others say, they have it from there.
pub(super) fn keeps_the_log(voter: Option<&Consensus>, me: NodeId) -> bool {
    let status = voter.map(Consensus::status);
    status.is_some_and(|now| now.voters.iter().eq([&me]) || now.leader == Some(me))
}

/// Whether more of the controllers that answer say that this node was removed or shut out than receive it.
pub(super) async fn is_by_those_there(roads: &Roads, controllers: &[NodeId], within: Duration) -> bool {
    let said = said(roads, controllers, within).await;
    said.shut_out > said.as_node
}

/// Whether most of all controllers say that this node was removed or shut out: asked once, before its stars start.
pub(super) async fn is_by_most(roads: &Roads, controllers: &[NodeId], within: Duration) -> bool {
    let Said { as_node, shut_out, unknown } = said(roads, controllers, within).await;
    shut_out > as_node + unknown
}

/// What controllers say of this node. Of those that receive it, some may have been taken out with it.
#[derive(Debug, Default)]
struct Said {
    as_node: usize,
    shut_out: usize,
    unknown: usize,
}

async fn said(roads: &Roads, controllers: &[NodeId], within: Duration) -> Said {
    let others = controllers.iter().filter(|node| **node != roads.me());
    let mut asked: FuturesUnordered<_> = others.map(|node| timeout(within, welcome(roads, *node))).collect();
    let mut said = Said::default();
    while let Some(welcome) = asked.next().await {
        match welcome.unwrap_or(Welcome::Unknown) {
            Welcome::AsNode => said.as_node += 1,
            Welcome::ShutOut => said.shut_out += 1,
            Welcome::Unknown => said.unknown += 1,
        }
    }
    said
}

async fn welcome(roads: &Roads, controller: NodeId) -> Welcome {
    let Ok(address) = roads.address(controller).await else { return Welcome::Unknown };
    // Anybody else's word is not taken for it.
    let expected = Expected { node: Some(controller), role: Some(NodeRole::Controller) };
    match roads.endpoint().connect(address, expected, Purpose::Control).await {
        Ok(connection) => {
            connection.abort();
            Welcome::AsNode
        }
        Err(ConnectError::Hello { reason: Ended::Revoked, .. }) => Welcome::ShutOut,
        Err(_) => Welcome::Unknown,
    }
}

/// Makes the machine alone, and has it remember what it was.
pub(crate) fn forget(home: &Home, data_dir: &Path) -> Result<(), Problem> {
    let Home { cluster, name, .. } = home;
    tracing::warn!(%cluster, node = %home.node, "this machine is no node of the constellation any more");
    let former = Former { cluster: cluster.clone(), name: name.clone(), since: clock::wall() };
    if let Err(problem) = remember(data_dir, &former) {
        // As on a full disk. Nothing of it may go on for that.
        tracing::warn!(%problem, "it will not be said that this machine was removed");
    }
    Home::remove(data_dir)
}

/// What constellation let go of this machine, if one did.
pub(crate) fn former(data_dir: &Path) -> Option<Former> {
    let path = path(data_dir);
    let read = fs::read(&path).and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
    match read {
        Ok(former) => Some(former),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "what this machine was before is not known");
            None
        }
    }
}

/// Its next place, or none by its own will, is all that counts.
pub(crate) fn clear(data_dir: &Path) -> Result<(), Problem> {
    match fs::remove_file(path(data_dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unwritable("remove", data_dir, &error)),
        _ => Ok(()),
    }
}

fn remember(data_dir: &Path, former: &Former) -> Result<(), Problem> {
    let written = || -> io::Result<()> {
        let new = data_dir.join(".former");
        fs::write(&new, serde_json::to_vec(former)?)?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(&new, path(data_dir))?;
        fs::File::open(data_dir)?.sync_all()
    };
    written().map_err(|error| unwritable("write", data_dir, &error))
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("former.json")
}

fn unwritable(what: &str, data_dir: &Path, error: &io::Error) -> Problem {
    Problem::new(Code::DataUnwritable, format!("cannot {what} `{}`: {error}", path(data_dir).display()))
}

#[cfg(test)]
mod tests {
    use model::WallTime;
    use net::identity::{Revoked, Trust};

    use super::super::testing::Town;
    use super::*;

    #[tokio::test]
    async fn a_node_is_let_go_of_when_more_controllers_say_so_than_say_otherwise() {
        let mut town = Town::new();
        let me = town.house(1, NodeRole::Worker).await;
        let (a, b) = (town.house(2, NodeRole::Controller).await, town.house(3, NodeRole::Controller).await);
        let worker = town.house(4, NodeRole::Worker).await;
        let authorities = vec![town.authority().certificate().clone()];
        let trust = |revoked| Trust::new("town".parse().unwrap(), authorities.clone(), revoked).unwrap();
        let out = || trust(Revoked { nodes: [me.node].into(), ..Revoked::default() });
        let roads = town.roads(&me);
        let is_out = async |controllers: &[NodeId]| is_by_those_there(&roads, controllers, WITHIN).await;
        let is_out_at_start = async |controllers: &[NodeId]| is_by_most(&roads, controllers, WITHIN).await;
        let (both, all) = ([a.node, b.node], [me.node, a.node, b.node]);
        assert!(!is_out(&all).await, "all receive it");
        a.endpoint().set_trust(out());
        assert!(!is_out(&all).await, "one receives it still, as one says that it is out");
        assert!(is_out(&[a.node]).await);
        // Nobody who is not there says otherwise.
        assert!(is_out(&[a.node, NodeId(9)]).await && !is_out(&[NodeId(9)]).await && !is_out(&[]).await);
        assert!(!is_out_at_start(&[a.node, NodeId(9)]).await, "the other may know better");
        b.endpoint().set_trust(out());
        assert!(is_out_at_start(&all).await && is_out_at_start(&[a.node, b.node, NodeId(9)]).await);
        assert!(is_out(&both).await && is_out(&all).await);
        worker.endpoint().set_trust(out());
        assert!(!is_out(&[worker.node]).await, "a worker's word");
    }

    #[test]
    fn a_machine_remembers_what_it_was_until_it_is_something_else() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(former(folder.path()), None);
        let was = Former { cluster: "prod".parse().unwrap(), name: "c".parse().unwrap(), since: WallTime(7) };
        remember(folder.path(), &was).unwrap();
        assert_eq!(former(folder.path()), Some(was));
        clear(folder.path()).unwrap();
        clear(folder.path()).unwrap();
        assert_eq!(former(folder.path()), None);
        fs::write(path(folder.path()), "no such thing").unwrap();
        assert_eq!(former(folder.path()), None);
    }
}
