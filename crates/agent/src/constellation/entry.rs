//! How a machine becomes a node, and stops being one. What it is, is written last; then the agent begins anew.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::{Became, Init, Introduction, Invitation, Join};
use consensus::Status;
use model::machine::{KEEP_OR_LEAVE, check_given_up};
use model::{Code, Duty, NodeFacts, NodeId, NodeRole, Problem, Standing, StarPhase};
use net::identity::Lifetime;
use net::tls::SystemClock;
use node::Node;
use state::{Author, Command, State};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::disk::OnDisk;
use super::found::{Founded, found};
use super::gossip::Gossip;
use super::gossip_keys::GossipKeys;
use super::home::{Described, Home, folder};
use super::join::{Machine, join};
use super::let_go;
use super::registrar::Registrar;
use super::shared::{Goes, Shared};
use super::start::{in_use, log_folder};
use crate::beside::beside;
use crate::clock;
use crate::main_loop::Incoming;

/// How long the stars of a node that leaves may take to be elsewhere, beyond what they need to end.
const MOVE_WITHIN: Duration = Duration::from_secs(60);
/// How long a node that is taken out still votes, so that its own removal from the voters is agreed on. The leader looks at them
/// every second, and nobody talks to it any more after two.
const UNVOTE_WITHIN: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(50);
/// Between attempts to remove what a disk does not let go of.
const FORGET_EVERY: Duration = Duration::from_secs(10);

/// What a node is reached by from the API.
#[derive(Clone)]
pub(crate) struct Standpoint {
    pub(crate) home: Arc<Home>,
    pub(crate) shared: Shared,
    pub(crate) gossip: Gossip,
    /// On controllers.
    pub(crate) registrar: Option<Registrar<Shared>>,
    pub(crate) gossip_keys: GossipKeys,
    /// Somebody here has asked to leave.
    pub(crate) leaves: Arc<AtomicBool>,
}

/// Founds a constellation of a machine that is alone.
///
/// # Errors
/// Nothing is changed then.
pub(crate) async fn init(
    ask: &mpsc::Sender<Incoming>,
    data_dir: &Path,
    mut facts: NodeFacts,
    init: Init,
) -> Result<Became, Problem> {
    let days = init.certificate_days.map_or(Ok(Lifetime::DEFAULT), Lifetime::days);
    let lifetime = days.map_err(|error| Problem::new(Code::InvalidValue, error.to_string()))?;
    let machine = machine(init.me);
    ports_are_free(machine.listen)?;
    machine.described.clone().tell(&mut facts);
    let (cluster, folder) = (init.cluster, data_dir.to_owned());
    frozen(ask, move |state| {
        beside(move || {
            let founded = found(state, &cluster, machine, &facts, lifetime, clock::wall())?;
            let Founded { home, state, token, ticket } = founded;
            clear(&folder)?;
            consensus::found(&mut OnDisk::open(&log_folder(&folder))?, NodeId::FIRST, &state)?;
            home.write(&folder)?;
            let token = Invitation {
                token: token.reveal().to_string(),
                role: ticket.role,
                uses: ticket.uses_max,
                expires: ticket.expires,
            };
            Ok(Became { token: Some(token), ..became(&home) })
        })
    })
    .await
}

/// Takes a machine on which nothing runs into a constellation.
///
/// # Errors
/// Nothing is changed on this machine then.
pub(crate) async fn enter(ask: &mpsc::Sender<Incoming>, data_dir: &Path, request: Join) -> Result<Became, Problem> {
    let folder = data_dir.to_owned();
    // Before the token is shown to anybody: who could not listen would have been let in for nothing.
    ports_are_free(request.me.listen)?;
    frozen(ask, move |state| async move {
        is_empty(&state)?;
        let Join { address, token, me } = request;
        let home = join(address.as_deref(), &token, machine(me), Arc::new(SystemClock)).await?;
        beside(move || {
            clear(&folder)?;
            home.write(&folder).map_err(Problem::after_changes)?;
            Ok(became(&home))
        })
        .await
    })
    .await
}

/// Lets a node's stars go elsewhere, and takes it out. The rest follows when it hears of it: see [`until_removed`].
///
/// # Errors
/// `Conflict` for the last one that could keep the log, and while volumes lie here, unless it is forced; when no leader is to
/// be had.
pub(crate) async fn leave(standpoint: &Standpoint, author: Author, force: bool) -> Result<(), Problem> {
    let (shared, me) = (&standpoint.shared, standpoint.home.node);
    if !force {
        let volumes = shared.look_now(move |state| state.volumes_on(me)).await?;
        check_given_up(&standpoint.home.name, &volumes, KEEP_OR_LEAVE)?;
    }
    let others = shared.look_now(move |state| {
        let there = state.nodes.iter().filter(|(node, record)| **node != me && record.standing != Standing::Left);
        let (controllers, workers): (Vec<_>, Vec<_>) =
            there.partition(|(_, record)| record.role == NodeRole::Controller);
        (controllers.len(), workers.len())
    });
    if let (0, workers) = others.await? {
        let message = match workers {
            0 => "this is the last node of the constellation".to_owned(),
            _ => format!("this is the last controller, and {workers} workers are left"),
        };
        let help = "let another controller join first; `rads c shutdown` only ends the agent";
        return Err(Problem::new(Code::Conflict, message).help(help));
    }
    shared.check_log_stays(me, Goes::WhenItMay).await?;
    let wall = clock::wall();
    let asked = |command: Command| Command::By { author: author.clone(), command: Box::new(command), wall };
    let index = shared.propose(&asked(Command::SetDuty { node: me, duty: Duty::Draining, wall })).await?;
    shared.applied(index).await?;
    let looker = &shared.looker;
    let deadline = Instant::now() + MOVE_WITHIN + looker.look(Node::longest_end).await?;
    while looker.look(Node::stars_here).await? > 0 && Instant::now() < deadline {
        sleep(STEP).await;
    }
    standpoint.leaves.store(true, Ordering::Relaxed);
    let gone = Command::RemoveNode { node: me, wall: clock::wall() };
    let index = shared.propose(&asked(gone)).await.inspect_err(|problem| {
        // It may yet be taken out by somebody else, of which people here know nothing.
        standpoint.leaves.store(problem.changed, Ordering::Relaxed);
    })?;
    shared.applied(index).await
}

/// Waits until the log says that this node is none any more, or the others show it; then forgets that it was one.
pub(crate) async fn until_removed(standpoint: Standpoint, data_dir: std::path::PathBuf, again: mpsc::Sender<()>) {
    let Standpoint { home, shared, gossip, leaves, .. } = standpoint;
    tokio::select! {
        told = until_told(&shared, home.node) => if told.is_none() { return },
        () = let_go::until(&shared) => {}
    }
    gossip.leave().await;
    let by_own_will = leaves.load(Ordering::Relaxed);
    loop {
        let (home, folder) = (Arc::clone(&home), data_dir.clone());
        let forgotten = beside(move || match by_own_will {
            true => Home::remove(&folder),
            false => let_go::forget(&home, &folder),
        });
        match forgotten.await {
            Ok(()) => {
                // Asked once is enough.
                let _ = again.try_send(());
                return;
            }
            Err(problem) => tracing::error!(%problem, "what it kept of the constellation is still there"),
        }
        sleep(FORGET_EVERY).await;
    }
}

/// Waits until the log says that this node is none any more, and it keeps no part of it; nothing once the loop has ended.
async fn until_told(shared: &Shared, me: NodeId) -> Option<()> {
    let is_out = move |node: &Node| node.state().nodes.get(&me).is_some_and(|record| record.standing == Standing::Left);
    let mut seen = shared.seen.clone();
    loop {
        match shared.looker.look(is_out).await {
            Ok(true) => break,
            Ok(false) => {}
            Err(_) => return None,
        }
        seen.changed().await.ok()?;
        // Not after each of thousands of commands a second.
        sleep(STEP).await;
    }
    let deadline = Instant::now() + UNVOTE_WITHIN;
    if let Some(voter) = &shared.voter {
        // Who is taken out is told no more, not even that: then its leader falls silent.
        let votes = |now: &Status| now.voters.contains(&me) && now.leader.is_some();
        // While nobody else has the log it stays, for whoever comes to vote.
        let is_alone = |now: &Status| now.voters.iter().eq([&me]);
        let stays = |now: &Status| votes(now) && (Instant::now() < deadline || is_alone(now));
        let mut told = false;
        while stays(&voter.status()) {
            if Instant::now() > deadline && !std::mem::replace(&mut told, true) {
                tracing::warn!("no other controller keeps the log: it stays here until one does");
            }
            sleep(STEP).await;
        }
    }
    Some(())
}

/// Does something while the loop takes no changes; if it fails, they are taken again.
async fn frozen<T, F>(ask: &mpsc::Sender<Incoming>, then: impl FnOnce(State) -> F) -> Result<T, Problem>
where
    F: Future<Output = Result<T, Problem>>,
{
    let ending = || Problem::new(Code::Unavailable, "the agent is ending").help("try again when it is back");
    let (freeze, state) = oneshot::channel();
    ask.send(Incoming::Freeze { frozen: freeze }).await.map_err(|_| ending())?;
    let state = state.await.map_err(|_| ending())?;
    let done = then(state).await;
    if done.is_err() {
        // The loop ends with the agent.
        let _ = ask.send(Incoming::Thaw).await;
    }
    done
}

pub(crate) fn machine(me: Introduction) -> Machine {
    let Introduction { name, listen, advertise, region, zone, rack, labels, reserved, api, discoverable } = me;
    let described = Described { region, zone, rack, labels, reserved };
    Machine { name, listen, advertise, api, discoverable, described }
}

pub(crate) fn became(home: &Home) -> Became {
    Became { cluster: home.cluster.clone(), node: home.node, name: home.name.clone(), role: home.role, token: None }
}

/// Whether a node could listen there, for connections and for datagrams.
///
/// # Errors
/// `PortInUse`, or that there is no such address here.
pub(super) fn ports_are_free(listen: SocketAddr) -> Result<(), Problem> {
    let tcp = std::net::TcpListener::bind(listen).map(drop).map_err(|error| ("TCP", error));
    let udp = || std::net::UdpSocket::bind(listen).map(drop).map_err(|error| ("UDP", error));
    tcp.and_then(|()| udp()).map_err(|(what, error)| in_use(listen, what, &error))
}

/// A machine brings nothing with it: what runs is the constellation's to say.
fn is_empty(state: &State) -> Result<(), Problem> {
    let runs = state.stars.values().any(|star| star.phase != StarPhase::Ended);
    if state.services.is_empty() && !runs {
        return Ok(());
    }
    let message = "apps run on this machine: it cannot join a constellation with them";
    Err(Problem::new(Code::Conflict, message)
        .help("`rads c down` takes them away, volumes and secrets stay; or found one here with `rads c init`"))
}

/// What an attempt that was cut short may have left, and what the machine was before.
fn clear(data_dir: &Path) -> Result<(), Problem> {
    let_go::clear(data_dir)?;
    match fs::remove_dir_all(folder(data_dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let message = format!("cannot remove `{}`: {error}", folder(data_dir).display());
            Err(Problem::new(Code::DataUnwritable, message))
        }
        _ => Ok(()),
    }
}

/// What a machine that became a node kept of the time when it was alone is in the log it founded, or was nothing.
pub(crate) fn forget_alone(store: &Path) {
    match fs::remove_dir_all(store) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "what this machine kept when it was alone is still there");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn me(listen: SocketAddr) -> Introduction {
        Introduction {
            name: "b".parse().unwrap(),
            listen,
            advertise: listen.to_string(),
            region: None,
            zone: None,
            rack: None,
            labels: Default::default(),
            reserved: Default::default(),
            api: None,
            discoverable: false,
        }
    }

    #[tokio::test]
    async fn who_could_not_listen_shows_its_token_to_nobody_and_nothing_changes() {
        let folder = tempfile::tempdir().unwrap();
        let controller = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (ask, mut asked) = mpsc::channel(16);
        let join = |listen: SocketAddr| Join {
            address: Some(controller.local_addr().unwrap().to_string()),
            token: "rads1_".to_owned(),
            me: me(listen),
        };
        let init = |listen: SocketAddr| Init { cluster: "c".parse().unwrap(), me: me(listen), certificate_days: None };
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (taken, what) in [(tcp.local_addr().unwrap(), "TCP"), (udp.local_addr().unwrap(), "UDP")] {
            let joined = enter(&ask, folder.path(), join(taken)).await.err().unwrap();
            let founded = super::init(&ask, folder.path(), NodeFacts::default(), init(taken)).await.err().unwrap();
            for problem in [joined, founded] {
                assert_eq!(problem.code, Code::PortInUse);
                assert!(problem.message.starts_with(&format!("cannot listen on `{taken}` ({what}): ")), "{problem}");
                assert!(problem.help.as_ref().unwrap().contains("`--listen`") && !problem.changed, "{problem}");
            }
        }
        assert!(asked.try_recv().is_err(), "the loop was asked for something");
        let came = tokio::time::timeout(Duration::ZERO, controller.accept()).await;
        assert!(came.is_err(), "the controller was asked for something");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
