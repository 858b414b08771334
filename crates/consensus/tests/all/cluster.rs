//! Voters in one process that agree, lose each other and find each other again.

use std::time::{Duration, Instant};

use crate::support::{Cluster, SOON, register, scale, set};
use consensus::{Config, Refusal, Role};
use model::{Code, NodeId};

#[tokio::test(flavor = "multi_thread")]
async fn one_voter_starts_at_once_and_keeps_what_it_answered_for() {
    // An election with its waiting time would take minutes.
    let slow = Config {
        heartbeat: Duration::from_secs(10),
        election_min: Duration::from_secs(60),
        election_max: Duration::from_secs(100),
        answer_within: Duration::from_secs(300),
        ..Config::new(NodeId(0))
    };
    let mut cluster = Cluster::with(1, slow).await;
    for value in 1..=20 {
        cluster.propose(&scale(3, value)).await;
    }
    let index = cluster.voter(NodeId(1)).status().last;
    for _ in 0..3 {
        cluster.kill(NodeId(1)).await;
        let start = Instant::now();
        cluster.up(NodeId(1)).await;
        let outcome = cluster.propose(&scale(4, 1)).await;
        println!("one voter: first answer {:?} after its start", start.elapsed());
        // The first look at whether to be elected would come after 2 s.
        assert!(start.elapsed() < Duration::from_millis(1_900) && outcome.index > index);
        assert_eq!(register(&cluster.settle().await, 3), 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_and_five_voters_survive_the_death_of_their_leader() {
    for count in [3, 5] {
        let mut cluster = Cluster::start(count).await;
        let mut times = Vec::new();
        for round in 1..=5 {
            let leader = cluster.leader().await;
            cluster.propose(&scale(1, round)).await;
            let start = Instant::now();
            cluster.kill(leader).await;
            cluster.propose(&scale(2, round)).await;
            times.push(start.elapsed());
            assert_ne!(cluster.leader().await, leader);
            cluster.up(leader).await;
            let state = cluster.settle().await;
            assert_eq!((register(&state, 1), register(&state, 2)), (round, round));
        }
        times.sort();
        println!("{count} voters, leader killed, next write answered: {:?} (median {:?})", times, times[2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_answered_for_is_lost_when_all_are_killed_again_and_again() {
    let mut cluster = Cluster::start(3).await;
    let mut answered = 0;
    for round in 0..8 {
        let leader = cluster.leader().await;
        let voter = cluster.voter(leader).clone();
        // Writes that are cut off at some moment; the last one answered for counts.
        let writing = tokio::spawn(async move {
            let mut last = answered;
            while let Ok(outcome) = voter.propose(&scale(1, last + 1)).await {
                assert!(outcome.changes.iter().all(|change| !matches!(change, state::Change::Refused { .. })));
                last += 1;
            }
            last
        });
        let enough = answered + 20 + round * 7;
        let reached = cluster.voter(leader).clone();
        let end = Instant::now() + SOON;
        while register(&reached.state(), 1) < enough {
            assert!(Instant::now() < end);
            tokio::task::yield_now().await;
        }
        for node in cluster.all() {
            cluster.kill(node).await;
        }
        answered = writing.await.unwrap();
        assert!(answered >= enough - 1);
        for node in 1..=3 {
            cluster.up(NodeId(node)).await;
        }
        let found = register(&cluster.settle().await, 1);
        // One more may have been on its way.
        assert!(
            found == answered || found == answered + 1,
            "round {round}: {answered} was answered for, {found} is there"
        );
        answered = found;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_refuses_writes_and_reads_and_the_majority_goes_on() {
    let cluster = Cluster::start(5).await;
    let leader = cluster.leader().await;
    let others: Vec<NodeId> = cluster.all().into_iter().filter(|node| *node != leader).collect();
    let (minority, majority) = ([leader, others[0]], &others[1..]);
    cluster.propose(&scale(1, 1)).await;
    cluster.net.cut(&minority, majority);
    let start = Instant::now();
    cluster.propose_to(majority, &scale(1, 2)).await;
    println!("five voters, leader in a minority of two: the others answer {:?} later", start.elapsed());
    for node in minority {
        let end = Instant::now() + SOON;
        // It may still take a change it cannot finish, until it has noticed.
        loop {
            match cluster.voter(node).propose(&scale(1, 3)).await {
                Ok(outcome) => panic!("{node} of the minority agreed with itself: {outcome:?}"),
                Err(Refusal::Unknown(_)) => assert!(Instant::now() < end),
                Err(_) => break,
            }
        }
        let asked = Instant::now();
        cluster.voter(node).read_index().await.unwrap_err();
        if let Refusal::Refused(problem) = cluster.voter(node).propose(&scale(1, 3)).await.unwrap_err() {
            assert_eq!((problem.code, problem.changed), (Code::Unavailable, false));
        }
        assert!(asked.elapsed() < cluster.config.answer_within, "it knows by now and does not wait");
    }
    cluster.net.heal();
    let state = cluster.settle().await;
    assert_eq!(register(&state, 1), 2, "what the minority took was never answered for, and is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn halves_one_way_and_bridge_partitions_leave_one_truth() {
    let cluster = Cluster::start(3).await;
    let check = async |name: &str, cut: &dyn Fn(&Cluster, NodeId, NodeId, NodeId), value: u32| {
        let leader = cluster.leader().await;
        let others: Vec<NodeId> = cluster.all().into_iter().filter(|node| *node != leader).collect();
        cut(&cluster, leader, others[0], others[1]);
        let start = Instant::now();
        cluster.propose(&scale(1, value)).await;
        println!("three voters, {name}: a write is answered {:?} later", start.elapsed());
        cluster.net.heal();
        assert_eq!(register(&cluster.settle().await, 1), value);
    };
    check("leader cut off", &|c, leader, a, b| c.net.cut(&[leader], &[a, b]), 1).await;
    check("a follower cut off", &|c, leader, a, b| c.net.cut(&[a], &[leader, b]), 2).await;
    let deaf = |c: &Cluster, leader, a, b| {
        c.net.cut_one_way(a, leader);
        c.net.cut_one_way(b, leader);
    };
    check("leader hears nobody", &deaf, 3).await;
    let mute = |c: &Cluster, leader, a, b| {
        c.net.cut_one_way(leader, a);
        c.net.cut_one_way(leader, b);
    };
    check("nobody hears the leader", &mute, 4).await;
    // One sees both, who do not see each other.
    check("bridge over the leader", &|c, _, a, b| c.net.cut(&[a], &[b]), 5).await;
    check("bridge over a follower", &|c, leader, a, _| c.net.cut(&[leader], &[a]), 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn voters_are_added_removed_and_replaced_one_change_at_a_time() {
    let mut cluster = Cluster::start(1).await;
    let voters = |cluster: &Cluster, wanted: &[u64]| {
        let wanted: Vec<NodeId> = wanted.iter().map(|node| NodeId(*node)).collect();
        let leader = cluster.leader_now().expect("a leader");
        assert!(cluster.voter(leader).status().voters.iter().eq(&wanted), "{:?}", cluster.voter(leader).status());
    };
    let only = cluster.voter(NodeId(1)).clone();
    let refused = only.set_voters(&set([])).await.unwrap_err();
    assert!(matches!(&refused, Refusal::Refused(problem) if problem.code == Code::InvalidValue), "{refused:?}");
    for node in [2, 3] {
        cluster.up(NodeId(node)).await;
        only.set_voters(&set(1..=node)).await.unwrap();
        only.set_voters(&set(1..=node)).await.unwrap();
    }
    voters(&cluster, &[1, 2, 3]);
    cluster.propose(&scale(1, 7)).await;

    // One that cannot be reached does not become a voter, and others can.
    let short = Config { me: NodeId(0), catch_up_within: Duration::from_millis(300), ..cluster.config.clone() };
    let slow = {
        let mut hasty = Cluster::with(1, short).await;
        hasty.up(NodeId(2)).await;
        let first = hasty.voter(NodeId(1)).clone();
        let missing = first.set_voters(&set([1, 9])).await.unwrap_err();
        assert!(matches!(&missing, Refusal::Refused(problem) if problem.code == Code::Timeout), "{missing:?}");
        assert!(first.status().learners.contains(&NodeId(9)));
        first.set_voters(&set([1, 2])).await.unwrap();
        first.status()
    };
    assert!(slow.voters.iter().eq(&[NodeId(1), NodeId(2)]) && slow.learners.is_empty(), "{slow:?}");

    // Two changes at once: one of them is told to wait.
    cluster.up(NodeId(4)).await;
    cluster.up(NodeId(5)).await;
    let leader = cluster.leader().await;
    let voter = cluster.voter(leader).clone();
    let (with_4, with_5) = (set([1, 2, 3, 4]), set([1, 2, 3, 5]));
    let (one, two) = tokio::join!(voter.set_voters(&with_4), voter.set_voters(&with_5));
    assert!(one.is_ok() && matches!(&two, Err(Refusal::Refused(problem)) if problem.code == Code::Conflict), "{two:?}");
    voter.set_voters(&with_5).await.unwrap();
    voters(&cluster, &[1, 2, 3, 5]);
    voter.set_voters(&set(1..=3)).await.unwrap();
    voters(&cluster, &[1, 2, 3]);
    // Those who were let go know nothing any more, and disturb nobody.
    for node in [4, 5] {
        cluster.kill(NodeId(node)).await;
    }

    // The leader goes too, and hands its place on.
    let leader = cluster.leader().await;
    let rest: Vec<NodeId> = cluster.all().into_iter().filter(|node| *node != leader).collect();
    cluster.voter(leader).set_voters(&rest.iter().copied().collect()).await.unwrap();
    let start = Instant::now();
    cluster.propose_to(&rest, &scale(1, 8)).await;
    println!("a leader that takes its own vote: the next write is answered {:?} later", start.elapsed());
    cluster.kill(leader).await;
    assert_eq!(register(&cluster.settle().await, 1), 8);
    let last = cluster.leader().await;
    assert!(cluster.voter(last).status().voters.iter().eq(&rest));
}

/// openraft goes on naming its last leader, and a voter that is let go is told nothing.
#[tokio::test(flavor = "multi_thread")]
async fn who_hears_no_leader_names_none() {
    let mut cluster = Cluster::start(4).await;
    let leader = cluster.leader().await;
    let let_go = *cluster.all().iter().find(|node| **node != leader).unwrap();
    let heard = cluster.voter(let_go).wait_for(SOON, |now| now.leader == Some(leader)).await;
    assert!(heard.is_some());
    let rest = cluster.all().into_iter().filter(|node| *node != let_go).collect();
    cluster.voter(leader).set_voters(&rest).await.unwrap();
    let alone = cluster.voter(let_go).wait_for(SOON, |now| now.leader.is_none()).await;
    assert!(alone.is_some(), "{:?}", cluster.voter(let_go).status());
    // Nor does one that begins anew and is told nothing.
    cluster.kill(let_go).await;
    cluster.up(let_go).await;
    let again = cluster.voter(let_go).clone();
    let named = again.wait_for(3 * cluster.config.election_max, |now| now.leader.is_some()).await;
    assert!(named.is_none(), "{named:?}");
    // One that is taken back hears, and says so.
    let all = cluster.all().into_iter().collect();
    cluster.voter(leader).set_voters(&all).await.unwrap();
    assert!(again.wait_for(SOON, |now| now.leader == Some(leader)).await.is_some(), "{:?}", again.status());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_ends_hands_its_place_on() {
    let mut cluster = Cluster::start(3).await;
    let (mut times, mut handed) = (Vec::new(), 0);
    for round in 1..=6 {
        let leader = cluster.leader().await;
        cluster.propose(&scale(1, round)).await;
        let start = Instant::now();
        cluster.voter(leader).shutdown().await;
        let gone = cluster.voters.remove(&leader).unwrap();
        cluster.net.disconnect(leader);
        assert_eq!(gone.consensus.status().role, Role::Stopped);
        // The next one leads before the last one is gone; its own status may say so a moment later. Nobody can have missed the
        // last one by then: that takes an election's time.
        let rest: Vec<NodeId> = cluster.all();
        let led = tokio::time::timeout(cluster.config.election_min / 2, cluster.leader_of(&rest)).await;
        handed += u32::from(led.is_ok());
        cluster.propose(&scale(2, round)).await;
        times.push(start.elapsed());
        cluster.up(leader).await;
        let state = cluster.settle().await;
        assert_eq!((register(&state, 1), register(&state, 2)), (round, round));
    }
    times.sort();
    println!("three voters, leader shut down, next write answered: {times:?}; {handed} of 6 handed over");
    // On a busy machine the one it is handed to may be too late, and the voters elect another. Without handing over, none is in time.
    assert!(handed >= 3, "{handed} of 6 handed over: {times:?}");

    let (leader, to) =
        (cluster.leader().await, cluster.all().into_iter().find(|node| Some(*node) != cluster.leader_now()));
    let to = to.unwrap();
    assert_eq!(cluster.voter(leader).transfer_leadership(Some(to)).await.unwrap(), to);
    let refusal = cluster.voter(leader).transfer_leadership(None).await.unwrap_err();
    assert_eq!(refusal, Refusal::NotLeader { leader: Some(to) });
}

/// A round costs each voter a commit and a message, however much is in it. Without rounds these take about forty requests.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_proposed_at_once_is_agreed_on_together() {
    const PROPOSALS: u32 = 600;
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let sent = || cluster.net.sent.lock().unwrap()[&(leader, "Log".to_owned())];
    let before = sent();
    let voter = cluster.voter(leader);
    let proposals = (1..=PROPOSALS).map(|value| async move { voter.propose(&scale(1, value)).await.unwrap().index });
    let mut indexes = futures_util::future::join_all(proposals).await;
    let requests = sent() - before;
    println!("{PROPOSALS} proposals at once: {requests} requests to two others");
    indexes.sort_unstable();
    indexes.dedup();
    assert_eq!(indexes.len(), PROPOSALS as usize);
    assert!(requests < 25, "{requests} requests");
    cluster.settle().await;
}
