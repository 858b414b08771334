//! What follows from the voter here: hearing the log at first hand, telling the loop that this node leads, and, while it
//! does, keeping the voters as they should be.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use consensus::{Applied, Consensus, Refusal, Role};
use model::NodeId;
use node::voters::next;
use state::{Command, State};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::feed::{Feed, Keepers};
use super::order::Order;
use super::shared::Shared;
use crate::clock;
use crate::main_loop::Incoming;

/// A voter without a leader for this long hears what others have to tell.
const LEADERLESS: Duration = Duration::from_secs(3);
/// So long after its start one that was a voter waits for its leader before it asks others.
const SETTLING: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(250);
const LOOK_WHILE_LED: Duration = Duration::from_secs(1);
/// How often the voters are looked at.
const VOTERS_EVERY: Duration = Duration::from_secs(1);

/// Hands on what the own voter tells, which began after `told`; `told` says how far it has come.
pub(crate) async fn hear(mut applied: mpsc::Receiver<Applied>, order: Arc<Order>, told: Arc<AtomicU64>) {
    let mut before = told.load(Ordering::Acquire);
    while let Some(applied) = applied.recv().await {
        match applied {
            // It has jumped over commands. The loop hears these from another voter, then goes on here.
            Applied::State(state) => before = state.index,
            Applied::Command { index, command, written, .. } => {
                order.deliver(before, index, command, Some(written)).await;
                before = index;
            }
        }
        told.store(before, Ordering::Release);
    }
}

/// Decides all the time whether the log is heard at first hand, or another voter is to be followed.
pub(crate) async fn stand(
    voter: Consensus,
    feed: Feed,
    order: Arc<Order>,
    told: Arc<AtomicU64>,
    follow: watch::Sender<bool>,
) {
    let me = voter.me();
    let mut standing = voter.watch_standing();
    let (began, mut led, mut is_led_now) = (Instant::now(), None::<Instant>, false);
    loop {
        let now = standing.borrow_and_update().clone();
        // That a leader is gone is told at once: until now there was one.
        if std::mem::replace(&mut is_led_now, now.leader.is_some()) || is_led_now {
            led = Some(Instant::now());
        }
        let belongs = now.voters.contains(&me) || now.learners.contains(&me);
        let is_led = led.is_some_and(|led| led.elapsed() < LEADERLESS);
        let at_first_hand = belongs && is_led && told.load(Ordering::Acquire) <= order.last();
        // One that was taken out while it was away would ask for votes for ever.
        let others = feed.keepers().borrow().voters.clone();
        voter.set_may_ask_for_votes(now.leader.is_some() || others.is_empty() || others.contains(&me));
        if at_first_hand {
            feed.set_keepers(Keepers {
                leader: now.leader,
                voters: now.voters.iter().copied().collect(),
                agreed: now.agreed.iter().copied().collect(),
                at_first_hand,
            });
        } else if feed.keepers().borrow().at_first_hand {
            feed.lose_keepers();
        }
        // A voter that has just begun mostly hears its leader at once.
        let settles = belongs && led.is_none() && began.elapsed() < SETTLING;
        let follows = !at_first_hand && !settles;
        follow.send_if_modified(|follow| std::mem::replace(follow, follows) != follows);
        // While a leader is followed, whatever matters is told, but that the voter has jumped over commands.
        let look = if at_first_hand && is_led_now { LOOK_WHILE_LED } else { LOOK_EVERY };
        let changed = clock::within(look, standing.changed()).await;
        if matches!(changed, Some(Err(_))) || now.role == Role::Stopped {
            return;
        }
    }
}

/// Tells the loop that this node leads, once it has applied everything that was written before, and that it does no more.
pub(crate) async fn lead(voter: Consensus, shared: Shared, ask: mpsc::Sender<Incoming>) {
    loop {
        let Some(term) = until_leader(&voter).await else { return };
        let ready = async {
            let index = voter.read_index().await.ok()?;
            shared.applied(index).await.ok()
        };
        if ready.await.is_none() {
            sleep(LOOK_EVERY / 5).await;
            continue;
        }
        if !leads(&voter, term) {
            continue;
        }
        tracing::info!(term, "this node leads");
        if ask.send(Incoming::Leads { leads: true }).await.is_err() {
            return;
        }
        let works = async {
            let command = Command::NoteLeader { node: voter.me(), wall: clock::wall() };
            if let Err(problem) = shared.propose(&command).await {
                tracing::debug!(%problem, "that this node leads is not written");
            }
            keep_voters(&voter, &shared).await;
        };
        tokio::select! {
            () = until_not_leader(&voter, term) => {}
            () = works => {}
        }
        tracing::info!(term, "this node no longer leads");
        if ask.send(Incoming::Leads { leads: false }).await.is_err() {
            return;
        }
    }
}

fn leads(voter: &Consensus, term: u64) -> bool {
    let now = voter.standing();
    now.role == Role::Leader && now.term == term
}

async fn until_leader(voter: &Consensus) -> Option<u64> {
    let mut standing = voter.watch_standing();
    let now = standing.wait_for(|now| matches!(now.role, Role::Leader | Role::Stopped)).await.ok()?;
    (now.role == Role::Leader).then_some(now.term)
}

async fn until_not_leader(voter: &Consensus, term: u64) {
    let mut standing = voter.watch_standing();
    // An end of the voter ends its leadership too.
    let _ = standing.wait_for(|now| now.role != Role::Leader || now.term != term).await;
}

/// Who should vote, when that is not who does.
async fn wanted_voters(voter: &Consensus, shared: &Shared) -> Option<BTreeSet<NodeId>> {
    let (now, me) = (voter.standing(), shared.roads.me());
    let wanted = move |state: &State| next(state, &now.voters, now.voters_next.as_deref(), me);
    shared.looker.look(move |node| wanted(node.state())).await.ok().flatten()
}

/// Until the voters should be others than those that are being made so. What has begun to be agreed on stays wanted.
async fn until_others_are_wanted(voter: &Consensus, shared: &Shared, these: &BTreeSet<NodeId>) {
    loop {
        clock::rest(VOTERS_EVERY).await;
        let has_begun = voter.standing().voters_next.is_some();
        if !has_begun && wanted_voters(voter, shared).await.as_ref() != Some(these) {
            return;
        }
    }
}

/// Keeps the voters as they should be, one change at a time, for as long as this node leads.
async fn keep_voters(voter: &Consensus, shared: &Shared) {
    let mut is_first = true;
    loop {
        if !std::mem::take(&mut is_first) {
            clock::rest(VOTERS_EVERY).await;
        }
        let Some(wanted) = wanted_voters(voter, shared).await else { continue };
        let changed = tokio::select! {
            changed = voter.set_voters(&wanted) => changed,
            // Who is waited for may never come, and another voter may die meanwhile.
            () = until_others_are_wanted(voter, shared, &wanted) => continue,
        };
        match changed {
            Ok(()) => tracing::info!(voters = ?wanted, "the voters have changed"),
            Err(Refusal::NotLeader { .. }) => return sleep(VOTERS_EVERY).await,
            Err(refusal) => tracing::warn!(?wanted, ?refusal, "the voters stay as they are"),
        }
    }
}
