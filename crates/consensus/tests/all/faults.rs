//! Disks that fill up, fail and forget; voters that are far behind; peers that lie; too much at once.

use std::time::{Duration, Instant};

use crate::support::disk::OnDisk;
use crate::support::{Cluster, Net, SOON, register, sample, scale, set, start};
use consensus::{Config, Consensus, Refusal, Role, become_only_voter, found, tail};
use model::{Code, NodeId};
use state::{Command, State};

/// Small enough that a few hundred commands fill it.
fn compacting() -> Config {
    Config { compact_bytes: 16 << 10, keep_bytes: 4 << 10, piece_bytes: 4 << 10, ..Config::new(NodeId(0)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_stays_short_and_one_far_behind_gets_the_state_in_pieces() {
    let mut cluster = Cluster::with(3, compacting()).await;
    let leader = cluster.leader().await;
    let behind = cluster.all().into_iter().find(|node| *node != leader).unwrap();
    cluster.kill(behind).await;
    let mut longest = 0;
    for value in 1..=2_000 {
        cluster.voter(leader).propose(&scale(value % 7, value as u32)).await.unwrap();
        longest = longest.max(cluster.disks[&leader].kept().stored.entries.len());
    }
    let purged = cluster.voter(leader).wait_for(SOON, |now| now.purged > 1_000).await.expect("the log is dropped");
    assert!(longest < 1_500, "{longest} of 2000 entries at once on the disk");
    println!(
        "2,000 commands of about 100 bytes, 16 KiB a log: at most {longest} entries on disk, {} dropped",
        purged.purged
    );

    // On the way the third piece is lost; what was there before is not sent again.
    let size = cluster.disks[&leader].kept().snapshot.as_ref().map(|(_, bytes)| bytes.len()).unwrap();
    let pieces = size.div_ceil(4 << 10) as u64;
    assert!(pieces >= 4, "a snapshot of {size} bytes is too small for this");
    let bulk = |cluster: &Cluster| {
        let sent = cluster.net.sent.lock().unwrap();
        sent.iter().filter(|((_, lane), _)| lane == "Bulk").map(|(_, count)| count).sum::<u64>()
    };
    let before = bulk(&cluster);
    cluster.net.lose_pieces_after(3);
    cluster.up(behind).await;
    let state = cluster.settle().await;
    assert_eq!(register(&state, 2_000 % 7), 2_000);
    let sent = bulk(&cluster) - before;
    assert!(cluster.voter(behind).status().snapshot > 1_000, "{:?}", cluster.voter(behind).status());
    // Each transfer asks first where to begin; one piece was lost.
    assert!((pieces + 2..=pieces + 4).contains(&sent), "{pieces} pieces took {sent} requests");
    let heard = cluster.heard(behind);
    assert!(heard.states == 2 && heard.commands < 1_000, "a state at the start, and one that was sent: {heard:?}");
}

/// openraft names a leader that hears from nobody as leader for ever, on that very voter.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_no_longer_names_itself_and_is_named_again_when_it_is_followed() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let voter = cluster.voter(leader).clone();
    let others: Vec<NodeId> = cluster.all().into_iter().filter(|node| *node != leader).collect();
    // Not for a moment while it is followed.
    let mut watch = voter.watch_standing();
    let long = 3 * Config::new(leader).election_max;
    let lost = tokio::time::timeout(long, watch.wait_for(|now| now.leader != Some(leader))).await;
    assert!(lost.is_err(), "{:?}", voter.status());
    cluster.net.cut(&[leader], &others);
    let alone = voter.wait_for(SOON, |now| now.leader != Some(leader)).await.expect("it names itself no more");
    assert_eq!((alone.role, alone.leader), (Role::Leader, None));
    let next = cluster.leader_of(&others).await;
    cluster.net.heal();
    voter.wait_for(SOON, |now| now.leader == Some(next)).await.expect("it follows the next one");
    cluster.settle().await;
}

/// One that votes alone needs nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_votes_alone_names_itself() {
    let cluster = Cluster::start(1).await;
    let voter = cluster.voter(NodeId(1)).clone();
    voter.wait_for(SOON, |now| now.leader == Some(NodeId(1))).await.expect("it leads");
    let long = 3 * Config::new(NodeId(1)).election_max;
    let mut watch = voter.watch_standing();
    assert!(tokio::time::timeout(long, watch.wait_for(|now| now.leader.is_none())).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_restarts_from_its_snapshot_and_the_log_after_it() {
    let mut cluster = Cluster::with(1, compacting()).await;
    for value in 1..=700 {
        cluster.propose(&scale(1, value)).await;
    }
    let voter = cluster.voter(NodeId(1)).clone();
    voter.wait_for(SOON, |now| now.snapshot > 100).await.unwrap();
    cluster.kill(NodeId(1)).await;
    cluster.up(NodeId(1)).await;
    assert_eq!(register(&cluster.settle().await, 1), 700);
    assert_eq!(cluster.heard(NodeId(1)).states, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_at_once_and_recovers_by_itself() {
    // Alone: nobody else can answer for it.
    let cluster = Cluster::start(1).await;
    let (disk, voter) = (cluster.disks[&NodeId(1)].clone(), cluster.voter(NodeId(1)).clone());
    for round in 1..=2 {
        cluster.propose(&scale(1, round)).await;
        disk.kept().full = true;
        // The first is taken before anybody knows; it waits for room.
        let waiting = tokio::spawn({
            let voter = voter.clone();
            async move { voter.propose(&scale(2, round)).await }
        });
        voter.wait_for(SOON, |now| now.disk_full).await.expect("it is noticed");
        let asked = Instant::now();
        let Err(Refusal::Refused(problem)) = voter.propose(&scale(3, round)).await else {
            panic!("taken by a full disk")
        };
        assert!(asked.elapsed() < Duration::from_millis(500));
        assert_eq!((problem.code, problem.changed), (Code::DiskFull, false));
        assert_eq!(register(&voter.state(), 1), round, "reading what is here goes on");
        disk.kept().full = false;
        waiting.await.unwrap().unwrap();
        voter.wait_for(SOON, |now| !now.disk_full).await.expect("it is over");
    }
    let state = cluster.settle().await;
    assert_eq!((register(&state, 1), register(&state, 2), register(&state, 3)), (2, 2, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_with_a_full_disk_is_left_behind_and_catches_up() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let full = cluster.all().into_iter().find(|node| *node != leader).unwrap();
    cluster.disks[&full].kept().full = true;
    for value in 1..=200 {
        cluster.propose(&scale(1, value)).await;
    }
    assert_eq!(cluster.leader().await, leader, "it goes on leading");
    assert!(cluster.voter(full).status().disk_full);
    cluster.disks[&full].kept().full = false;
    assert_eq!(register(&cluster.settle().await, 1), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_disk_is_told_before_anything_is_answered_and_the_others_go_on() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.propose(&scale(1, 1)).await;
    cluster.disks[&leader].kept().broken = true;
    let start = Instant::now();
    // Agreed on by the others, or refused: never answered for from the disk that failed.
    let outcome = cluster.voter(leader).propose(&scale(1, 2)).await;
    let told = cluster.voters[&leader].fatal.lock().unwrap().clone();
    assert!(told.is_some_and(|told| told.contains("the disk failed")), "{outcome:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
    let stopped = cluster.voter(leader).wait_for(SOON, |now| now.role == Role::Stopped).await;
    assert!(stopped.is_some_and(|now| now.failed.is_some()));
    let rest: Vec<NodeId> = cluster.all().into_iter().filter(|node| *node != leader).collect();
    cluster.propose_to(&rest, &scale(1, 3)).await;
    cluster.disks[&leader].kept().broken = false;
    cluster.kill(leader).await;
    cluster.up(leader).await;
    assert_eq!(register(&cluster.settle().await, 1), 3);
}

/// With its vote, it could let somebody lead who lacks what was answered for: its agent does not start it. Should one come back all the
/// same, it harms nobody.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_lost_its_log_ends_no_leader() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let lost = *cluster.all().iter().find(|node| **node != leader).unwrap();
    for value in 1..=20 {
        cluster.propose(&scale(1, value)).await;
    }
    cluster.voter(lost).wait_for(SOON, |now| now.leader == Some(leader)).await.unwrap();
    cluster.settle().await;
    let term = cluster.voter(leader).status().term;
    cluster.kill(lost).await;
    cluster.disks.remove(&lost);
    cluster.up(lost).await;
    let voter = cluster.voter(leader).clone();
    for value in 21..=60 {
        let outcome = voter.propose(&scale(1, value)).await;
        assert!(outcome.is_ok(), "{value}: {outcome:?}");
    }
    // It was asked often enough by then to have ended whoever believes it.
    let heartbeats = 10 * cluster.config.heartbeat;
    assert!(voter.wait_for(heartbeats, |now| now.role != Role::Leader || now.term != term).await.is_none());
    assert_eq!(cluster.voter(lost).status().applied, 0, "{:?}", cluster.voter(lost).status());
    assert_eq!(*cluster.voters[&leader].fatal.lock().unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_lost_the_majority_for_good_goes_on_alone_with_what_it_has() {
    let mut cluster = Cluster::start(3).await;
    for value in 1..=30 {
        cluster.propose(&scale(1, value)).await;
    }
    cluster.settle().await;
    let left = NodeId(2);
    for node in cluster.all() {
        cluster.kill(node).await;
    }
    let before = tail(&mut cluster.disk(left).open()).unwrap();
    let alone = become_only_voter(&mut cluster.disk(left).open(), left).unwrap();
    assert_eq!((alone.index, &alone.voters), (before.index + 1, &before.voters));
    let after = tail(&mut cluster.disk(left).open()).unwrap();
    assert!(after.term > before.term && after.index == alone.index && after.voters.iter().eq([&left]), "{after:?}");
    // Done twice it would say again what may have been acknowledged, of nothing.
    let twice = become_only_voter(&mut cluster.disk(left).open(), left).unwrap_err();
    assert_eq!((twice.code, tail(&mut cluster.disk(left).open()).unwrap()), (Code::Conflict, after));
    assert!(alone.voters.iter().eq(&[NodeId(1), NodeId(2), NodeId(3)]), "{alone:?}");
    cluster.up(left).await;
    cluster.propose(&scale(2, 1)).await;
    let status = cluster.voter(left).status();
    assert!(status.role == Role::Leader && status.voters.iter().eq(&[left]), "{status:?}");
    // New ones join it.
    for node in [4, 5] {
        cluster.up(NodeId(node)).await;
    }
    cluster.voter(left).set_voters(&set([left.0, 4, 5])).await.unwrap();
    let state = cluster.settle().await;
    assert_eq!((register(&state, 1), register(&state, 2)), (30, 1));

    let nothing = become_only_voter(&mut crate::support::InMemory::default().open(), left).unwrap_err();
    assert_eq!(nothing.code, Code::NotFound);
    assert_eq!(tail(&mut crate::support::InMemory::default().open()).unwrap_err().code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_alone_brings_its_state_and_its_indexes() {
    let mut before = State::default();
    for number in 1..=40 {
        state::apply(&mut before, number, &sample::command(number));
    }
    let dir = tempfile::tempdir().unwrap();
    let net = std::sync::Arc::<Net>::default();
    found(&mut OnDisk::open(dir.path()).unwrap(), NodeId(7), &before).unwrap();
    let again = found(&mut OnDisk::open(dir.path()).unwrap(), NodeId(7), &before).unwrap_err();
    assert_eq!(again.code, Code::Conflict);
    let config = Config::new(NodeId(7));
    let voter = start(config.clone(), OnDisk::open(dir.path()).unwrap(), &net).await;
    assert_eq!(*voter.consensus.state(), before);
    let outcome = voter.consensus.propose(&scale(1, 5)).await.unwrap();
    assert!(outcome.index > before.index, "{outcome:?}");
    voter.consensus.shutdown().await;
    drop(voter);
    let voter = start(config, opened(dir.path()).await, &net).await;
    voter.consensus.wait_for(SOON, |now| now.applied >= outcome.index).await.unwrap();
    assert_eq!(register(&voter.consensus.state(), 1), 5);
}

/// The lock of a folder may be held a moment longer by a program that another test started.
async fn opened(dir: &std::path::Path) -> OnDisk {
    let end = Instant::now() + SOON;
    loop {
        match OnDisk::open(dir) {
            Ok(disk) => return disk,
            Err(problem) => assert!(problem.code == Code::AgentRunning && Instant::now() < end, "{problem}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_and_a_node_speaks_for_itself_only() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let voter = cluster.voter(leader).clone();
    let term = voter.status().term;
    let refused = async |from: u64, request: &[u8]| {
        let answer = voter.handle(NodeId(from), request).await;
        String::from_utf8_lossy(&answer).contains("refused")
    };
    let mut deep = vec![1, 0x81, 0xa6];
    deep.extend(b"append");
    deep.extend(vec![0x91; 100_000]);
    let mut announced = vec![1, 0x81, 0xa5];
    announced.extend(b"piece");
    announced.extend([0x81, 0xa5]);
    announced.extend(b"bytes");
    announced.extend([0xc6, 0xff, 0xff, 0xff, 0xff]);
    for request in [&[][..], &[1], &[2, 0x80], b"GET / HTTP/1.1\r\n\r\n", &[1, 0xc1], &deep, &announced, &[1; 70_000]] {
        assert!(refused(2, request).await, "{:?}", &request[..request.len().min(20)]);
    }
    // A vote for node 3, which only node 3 may ask for.
    let vote = vote_request(3, term + 5);
    assert!(refused(2, &vote).await);
    assert_eq!(voter.status().term, term, "and nothing came of it");
    assert!(!refused(3, &vote).await, "from itself it is heard");
    cluster.settle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_is_on_the_disk_before_it_is_answered() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let others: Vec<NodeId> = cluster.all().into_iter().filter(|node| *node != leader).collect();
    let (asks, asked) = (others[0], others[1]);
    let (disk, voter) = (cluster.disks[&asked].clone(), cluster.voter(asked).clone());
    cluster.kill(leader).await;
    cluster.kill(asks).await;
    // The leader's word counts a while longer: until then the vote is refused, whatever the term.
    let term = voter.status().term + 5;
    let end = Instant::now() + SOON;
    loop {
        assert!(Instant::now() < end, "no vote is given");
        let before = disk.kept().stored.vote.clone();
        let (locked, is_locked) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let still = disk.clone();
        let standing_still = std::thread::spawn(move || {
            let kept = still.kept();
            locked.send(()).unwrap();
            let _ = released.recv();
            kept.stored.vote.clone()
        });
        is_locked.recv().unwrap();
        let mut answer = Box::pin(voter.handle(asks, &vote_request_with(asks.0, term, true)));
        // A refusal comes at once. A vote does not come before the disk goes on.
        let early = tokio::time::timeout(Duration::from_millis(300), &mut answer).await;
        release.send(()).unwrap();
        assert_eq!(standing_still.join().unwrap(), before);
        match early {
            Ok(refusal) => assert!(!granted(&refusal), "a vote that is nowhere yet"),
            Err(_) => {
                assert!(granted(&answer.await));
                let after = disk.kept().stored.vote.clone();
                assert_ne!(after, before);
                return;
            }
        }
    }
}

/// Whether an answer says `granted: true`.
fn granted(answer: &[u8]) -> bool {
    answer.windows(8).any(|bytes| bytes == b"granted\xc3")
}

/// `{vote: {vote: {term, node, committed: false}, last: nil}}` as bytes.
fn vote_request(node: u64, term: u64) -> Vec<u8> {
    vote_request_with(node, term, false)
}

/// The same, or with a log that is longer than any.
fn vote_request_with(node: u64, term: u64, long: bool) -> Vec<u8> {
    let text = |text: &str| [&[0xa0 | text.len() as u8][..], text.as_bytes()].concat();
    let node = NodeId(node).to_string();
    let mut bytes = vec![1, 0x81];
    bytes.extend(text("vote"));
    bytes.push(0x82);
    bytes.extend(text("vote"));
    bytes.push(0x83);
    bytes.extend(text("term"));
    bytes.push(u8::try_from(term).unwrap());
    bytes.extend(text("node"));
    bytes.extend(text(&node));
    bytes.extend(text("committed"));
    bytes.push(0xc2);
    bytes.extend(text("last"));
    if !long {
        bytes.push(0xc0);
        return bytes;
    }
    bytes.push(0x82);
    for field in ["term", "index"] {
        bytes.extend(text(field));
        bytes.push(0x7f);
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_at_once_is_refused_at_once_and_too_large_by_its_size() {
    let cluster = Cluster::start(1).await;
    let (disk, voter) = (cluster.disks[&NodeId(1)].clone(), cluster.voter(NodeId(1)).clone());
    let huge = Command::Forget { stars: (0..100_000).map(model::StarId).collect() };
    let Err(Refusal::Refused(problem)) = voter.propose(&huge).await else { panic!("taken") };
    assert!(problem.code == Code::InvalidValue && problem.message.contains("768 KiB"), "{problem}");
    let large = Command::Forget { stars: (0..30_000).map(model::StarId).collect() };
    voter.propose(&large).await.unwrap();

    // A disk that stands still: what waits is bounded. Locked, not full, so that nothing is refused for that.
    let proposals: Vec<_> = {
        let _still = disk.kept();
        let proposals = (0..6_000_u32).map(|number| {
            let voter = voter.clone();
            tokio::spawn(async move { voter.propose(&scale(1, number)).await })
        });
        let proposals: Vec<_> = proposals.collect();
        let end = Instant::now() + SOON;
        while proposals.iter().filter(|proposal| proposal.is_finished()).count() < 6_000 - 4_096 {
            assert!(Instant::now() < end, "those beyond the bound are refused while the disk stands still");
            std::thread::yield_now();
        }
        proposals
    };
    let (mut taken, mut refused) = (0, 0);
    for proposal in proposals {
        match proposal.await.unwrap() {
            Ok(_) => taken += 1,
            Err(Refusal::Refused(problem)) if problem.code == Code::Unavailable => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(taken >= 4_096 && refused > 0, "{taken} taken, {refused} refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_any_size_fit_the_frames_they_travel_in() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let behind = cluster.all().into_iter().find(|node| *node != leader).unwrap();
    cluster.kill(behind).await;
    // Small ones around the largest there is, so that some request would hold both.
    for round in 1..=3 {
        for value in 0..1_200 / round {
            let voter = cluster.voter(leader).clone();
            tokio::spawn(async move { voter.propose(&scale(1, value)).await });
        }
        cluster.propose(&Command::Forget { stars: (0..33_000).map(model::StarId).collect() }).await;
        cluster.propose(&scale(2, round)).await;
    }
    cluster.up(behind).await;
    // Looks at every request there was.
    assert_eq!(register(&cluster.settle().await, 2), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_share_commits() {
    let cluster = Cluster::start(1).await;
    let (disk, voter) = (cluster.disks[&NodeId(1)].clone(), cluster.voter(NodeId(1)).clone());
    let (commits, appended) = {
        let kept = disk.kept();
        (kept.commits, kept.appended)
    };
    let clients = (0..64).map(|client| {
        let voter: Consensus = voter.clone();
        tokio::spawn(async move {
            for number in 0..20 {
                voter.propose(&scale(client % 7, number)).await.unwrap();
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let kept = disk.kept();
    let (commits, appended) = (kept.commits - commits, kept.appended - appended);
    assert_eq!(appended, 64 * 20);
    assert!(commits < appended, "{commits} commits for {appended} entries");
    println!("64 clients at once: {appended} entries in {commits} commits");
}
