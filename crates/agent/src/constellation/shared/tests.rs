//! A leader elsewhere that is there, slow, out of reach, or gone in the middle.

use net::Received;
use net::connection::Answer;
use net::identity::{Revoked, Trust};
use rnp::message::StateProposed;

use super::super::testing::{House, Town, showing};
use super::*;

const ME: u64 = 1;
const LEADER: u64 = 2;
const OTHER: u64 = 3;

/// Short, so that tests are; the times differ as those of a person do.
const SHORT: Patience = Patience {
    leader: Duration::from_millis(600),
    answer: Duration::from_secs(20),
    doubt: Duration::from_millis(200),
    sign: Duration::from_millis(400),
};
/// Far above what any of it takes on a busy machine, and far below what a leader that is there is waited for.
const SOON: Duration = Duration::from_secs(5);

fn answers(index: u64, after: Duration) -> impl Fn(Message) -> Answer + Send + Sync + 'static {
    move |message| {
        Box::pin(async move {
            tokio::time::sleep(after).await;
            match message {
                Message::StatePropose(_) => Ok(StateProposed { index }.into()),
                Message::StateReadIndex(_) => Ok(StateReadAt { index }.into()),
                _ => Err(Fault::new(ErrorCode::NotFound, "nothing else is asked")),
            }
        })
    }
}

/// The log as a worker has it that follows somebody who says who leads.
fn shared(town: &Town, me: &House, leader: Option<u64>) -> Shared {
    let shared = Shared {
        voter: None,
        roads: town.roads(me),
        feed: Feed::new(),
        looker: showing(me.node, town.state()),
        seen: tokio::sync::watch::channel(Seen::default()).1,
        followed: Arc::default(),
        patience: SHORT,
    };
    leads(&shared, leader);
    shared
}

fn leads(shared: &Shared, leader: Option<u64>) {
    shared.feed.set_keepers(Keepers { leader: leader.map(NodeId), ..Keepers::default() });
}

fn command() -> Command {
    Command::RemoveNode { node: NodeId(OTHER), wall: model::WallTime(0) }
}

/// Refused soon; gives what is told of it.
async fn refused(shared: &Shared) -> Problem {
    let began = Instant::now();
    let problem = shared.propose(&command()).await.unwrap_err();
    assert!(began.elapsed() < SOON, "after {:?}: {problem}", began.elapsed());
    problem
}

#[tokio::test]
async fn a_leader_out_of_reach_is_told_of_soon_and_whether_it_may_have_heard() {
    let mut town = Town::new();
    let (me, leader) = (town.house(ME, NodeRole::Worker).await, town.house(LEADER, NodeRole::Controller).await);
    leader.answer(answers(7, Duration::ZERO));
    let wire = town.by_wire(NodeId(LEADER)).await;
    let shared = shared(&town, &me, Some(LEADER));
    assert_eq!(shared.propose(&command()).await.unwrap(), 7);
    wire.hold();
    // It was sent on a connection that had been good: whether it came is not known.
    let problem = refused(&shared).await;
    assert!(problem.changed, "{problem}");
    assert_eq!(problem.message, "the leader, node `n2`, fell silent, so it may still take effect");
    // From then on nothing is sent that could take effect.
    let problem = refused(&shared).await;
    assert!(!problem.changed, "{problem}");
    assert_eq!(problem.message, "the leader, node `n2`, cannot be reached: it does not answer in time");
    assert_eq!(problem.help.as_deref(), Some(NOTHING_WRITTEN));
    let began = Instant::now();
    let read = shared.read_index().await.unwrap_err();
    assert!(read.message.contains("cannot be reached") && began.elapsed() < SOON, "{read}");
    wire.let_go();
    assert_eq!(shared.propose(&command()).await.unwrap(), 7);
}

#[tokio::test]
async fn a_leader_that_is_slow_and_shows_that_it_is_there_is_waited_for() {
    let mut town = Town::new();
    let (me, leader) = (town.house(ME, NodeRole::Worker).await, town.house(LEADER, NodeRole::Controller).await);
    leader.answer(answers(7, 2 * (SHORT.leader + SHORT.doubt + SHORT.sign)));
    let shared = shared(&town, &me, Some(LEADER));
    let command = command();
    let (written, read) = tokio::join!(shared.propose(&command), shared.read_index());
    assert_eq!((written.unwrap(), read.unwrap()), (7, 7));
}

#[tokio::test]
async fn without_a_leader_nothing_is_written_and_the_next_one_is_asked_at_once() {
    let mut town = Town::new();
    let me = town.house(ME, NodeRole::Worker).await;
    let (gone, next) = (town.house(LEADER, NodeRole::Controller).await, town.house(OTHER, NodeRole::Controller).await);
    next.answer(answers(9, Duration::ZERO));
    let wire = town.by_wire(NodeId(LEADER)).await;
    let shared = shared(&town, &me, None);
    let problem = refused(&shared).await;
    assert!(!problem.changed && problem.message.starts_with("no leader is known"), "{problem}");
    // One that nobody reaches, and while it is tried another is elected.
    wire.hold();
    leads(&shared, Some(gone.node.0));
    let patient = shared.with(Patience { leader: Duration::from_secs(60), ..SHORT });
    let (began, command) = (Instant::now(), command());
    let (written, ()) = tokio::join!(patient.propose(&command), async {
        tokio::time::timeout(SOON, wire.begun()).await.unwrap();
        leads(&shared, Some(next.node.0));
    });
    assert_eq!(written.unwrap(), 9);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_machine_that_was_removed_is_told_so_at_once() {
    let mut town = Town::new();
    let (me, other) = (town.house(ME, NodeRole::Worker).await, town.house(LEADER, NodeRole::Controller).await);
    let authorities = vec![town.authority().certificate().clone()];
    let trust = |revoked| Trust::new("town".parse().unwrap(), authorities.clone(), revoked).unwrap();
    let shared = shared(&town, &me, None).with(Patience { leader: Duration::from_secs(60), ..SHORT });
    let asks = async || shared.roads.call(other.node, Purpose::Control, Ping {}, SOON).await;
    // The control.
    asks().await.unwrap();
    assert!(shared.left_out().await.is_none());
    other.endpoint().set_trust(trust(Revoked { nodes: [me.node].into(), ..Revoked::default() }));
    // The connection that was open ends first; the next is refused.
    let deadline = Instant::now() + SOON;
    while shared.roads.endpoint().received() != Received::ShutOut && Instant::now() < deadline {
        drop(asks().await);
    }
    let problem = refused(&shared).await;
    assert_eq!(problem.message, "this machine was removed from the constellation, or its certificate was revoked");
    assert!(problem.help.unwrap().contains("joins anew"));
    assert!(shared.read_index().await.unwrap_err().message.contains("was removed"));
    // Whoever was taken for removed and is let in again is believed.
    other.endpoint().set_trust(trust(Revoked::default()));
    asks().await.unwrap();
    assert!(shared.left_out().await.is_none());
    // It heard so itself, from the log.
    let mut state = town.state();
    state.nodes.get_mut(&me.node).unwrap().standing = Standing::Left;
    let shared = Shared { looker: showing(me.node, state), ..shared };
    let problem = refused(&shared).await;
    assert_eq!(
        (problem.code, problem.message.as_str()),
        (Code::Conflict, "this machine was removed from the constellation")
    );
}
