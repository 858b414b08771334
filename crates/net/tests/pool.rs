//! Connections that are used again, and questions that are asked again.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use model::NodeId;
use net::connection::{Failure, Service};
use net::pool::{BUSY, CallError};
use net::{ConnectError, Limits, Pool, Purpose, Threads, Timing};
use rnp::message::{RaftAnswer, StatePropose, StreamOpen};
use rnp::{ErrorCode, Message};
use support::*;
use tokio::runtime::{Builder, Handle};

const B: NodeId = NodeId(2);

fn answered(body: &'static [u8]) -> Result<Message, CallError> {
    Ok(RaftAnswer { body: Bytes::from_static(body) }.into())
}

fn propose() -> StatePropose {
    StatePropose { command: Bytes::new(), key: None }
}

async fn gated(cluster: &Cluster, node: u64) -> Node {
    let service = Arc::new(Test::default());
    let gated = Arc::new(Gated(Arc::clone(&service))) as Arc<dyn Service>;
    let endpoint = cluster.endpoint(node, gated, Timing::DEFAULT, Limits::default());
    Node::serve(endpoint, service, "127.0.0.1:0".parse().unwrap()).await
}

#[tokio::test]
async fn a_connection_is_used_again_and_others_are_opened_while_it_is_busy_up_to_a_bound() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, gated(&cluster, 2).await);
    let pool = Pool::new(a.endpoint.clone());
    for _ in 0..20 {
        assert_eq!(pool.call(B, b.address, Purpose::Peer, vote(b"x"), SOON).await, answered(b"x"));
    }
    assert_eq!(pool.len(), 1);
    a.endpoint.goodbye("next").await;
    for (purpose, most) in [(Purpose::Control, 4), (Purpose::Peer, 2), (Purpose::Log, 2), (Purpose::Data, 8)] {
        let many: Vec<_> = (0..BUSY * 10)
            .map(|_| {
                let (pool, address) = (pool.clone(), b.address);
                tokio::spawn(async move { pool.call(B, address, purpose, propose(), SOON).await })
            })
            .collect();
        until("all are asked", || b.service.asked.load(Ordering::Relaxed) >= BUSY * 10).await;
        b.service.asked.store(0, Ordering::Relaxed);
        let open = pool.len();
        b.service.gate.open_for(BUSY * 10);
        for one in many {
            assert!(one.await.unwrap().is_ok());
        }
        assert_eq!(open, most, "{purpose:?}");
        a.endpoint.goodbye("next").await;
        until("none is left", || a.endpoint.connections() == 0).await;
    }
}

#[tokio::test]
async fn a_hundred_who_ask_at_once_open_one_connection() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, cluster.node(2).await);
    let pool = Pool::new(a.endpoint.clone());
    let many: Vec<_> = (0..100)
        .map(|_| {
            let (pool, address) = (pool.clone(), b.address);
            tokio::spawn(async move { pool.get(B, address, Purpose::Control).await.map(|_| ()) })
        })
        .collect();
    for one in many {
        one.await.unwrap().unwrap();
    }
    assert_eq!(b.endpoint.connections(), 1);
}

#[tokio::test]
async fn a_full_pool_lets_go_of_the_one_that_was_unused_for_longest() {
    let cluster = Cluster::new();
    let a = cluster.node(1).await;
    let others = [cluster.node(2).await, cluster.node(3).await, cluster.node(4).await];
    let pool = Pool::with_most(a.endpoint.clone(), 2);
    let get = async |at: usize| pool.get(others[at].endpoint.node(), others[at].address, Purpose::Peer).await;
    let first = get(0).await.unwrap();
    let second = get(1).await.unwrap();
    // The first is used again: the second is the older one.
    get(0).await.unwrap();
    get(2).await.unwrap();
    ended(&second).await;
    assert!(first.is_open());
    assert_eq!(pool.len(), 2);
    // All in use: there is no room.
    let mut opened = others[0].service.streams();
    let mut opened_too = others[2].service.streams();
    let third = get(2).await.unwrap();
    let _held = first.open("s", Bytes::new(), 1, SOON).await.unwrap();
    let _held_too = third.open("s", Bytes::new(), 1, SOON).await.unwrap();
    let _theirs = (opened.recv().await, opened_too.recv().await);
    assert!(matches!(get(1).await, Err(ConnectError::Full)));
}

#[tokio::test]
async fn what_may_be_repeated_is_asked_again_until_it_works_and_what_may_not_is_not() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, cluster.node(2).await);
    let pool = Pool::new(a.endpoint.clone());
    b.service.refuse.store(3, Ordering::Relaxed);
    assert_eq!(pool.call(B, b.address, Purpose::Control, vote(b"4th"), SOON).await, answered(b"4th"));
    assert_eq!(b.service.asked.load(Ordering::Relaxed), 4);
    // Five attempts, and no more.
    b.service.refuse.store(100, Ordering::Relaxed);
    b.service.asked.store(0, Ordering::Relaxed);
    let refused = pool.call(B, b.address, Purpose::Control, vote(b"x"), SOON).await;
    let Err(CallError::Request(Failure::Refused(fault))) = refused else { panic!("{refused:?}") };
    assert_eq!(fault.code, ErrorCode::ResourceExhausted);
    assert_eq!(b.service.asked.load(Ordering::Relaxed), 5);
    // Not within less time than the waits take.
    b.service.asked.store(0, Ordering::Relaxed);
    let begun = tokio::time::Instant::now();
    let within = Duration::from_millis(250);
    assert!(pool.call(B, b.address, Purpose::Control, vote(b"x"), within).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(b.service.asked.load(Ordering::Relaxed), 2);
    // What may not be repeated: the same refusal is the last word.
    b.service.refuse.store(1, Ordering::Relaxed);
    b.service.asked.store(0, Ordering::Relaxed);
    let join = rnp::message::JoinRequest {
        token: String::new(),
        csr: Bytes::new(),
        name: String::new(),
        address: String::new(),
        program: String::new(),
        time: None,
    };
    let refused = pool.call(B, b.address, Purpose::Control, join, SOON).await;
    assert!(matches!(refused, Err(CallError::Request(Failure::Refused(_)))), "{refused:?}");
    assert_eq!(b.service.asked.load(Ordering::Relaxed), 1);
    // What another answer would not change.
    b.service.refuse.store(0, Ordering::Relaxed);
    b.service.asked.store(0, Ordering::Relaxed);
    let gossip = rnp::message::GossipSync { members: Bytes::new() };
    assert!(pool.call(B, b.address, Purpose::Control, gossip, SOON).await.is_err());
    assert_eq!(b.service.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_node_that_comes_back_is_found_again() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, cluster.node(2).await);
    let pool = Pool::new(a.endpoint.clone());
    let address = b.address;
    assert_eq!(pool.call(B, address, Purpose::Control, vote(b"x"), SOON).await, answered(b"x"));
    // It dies without a word, and comes back at the same place a little later.
    b.stop_accepting();
    b.endpoint.set_trust(
        cluster.trust().with_revoked(net::identity::Revoked { nodes: [NodeId(1)].into(), ..Default::default() }),
    );
    drop(b);
    let (endpoint, service) = {
        let service = Arc::new(Test::default());
        let served = Arc::clone(&service) as Arc<dyn Service>;
        (cluster.endpoint(2, served, Timing::DEFAULT, Limits::default()), service)
    };
    let back = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        loop {
            // The old listener's socket is closed when its task has ended.
            if let Ok(probe) = tokio::net::TcpListener::bind(address).await {
                drop(probe);
                return Node::serve(endpoint, service, address).await;
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(pool.call(B, address, Purpose::Control, vote(b"again"), SOON).await, answered(b"again"));
    drop(back.await.unwrap());
}

#[tokio::test]
async fn a_certificate_is_renewed_while_requests_and_streams_go_on() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, cluster.node(2).await);
    let pool = Pool::new(a.endpoint.clone());
    let mut opened = b.service.streams();
    let open = StreamOpen { stream: 0, window: 1 << 20, service: "s".to_owned(), body: Bytes::new() };
    let stream = pool.open(B, b.address, Purpose::Control, open, SOON).await.unwrap();
    let (_, theirs) = opened.recv().await.unwrap();
    let before = pool.get(B, b.address, Purpose::Control).await.unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (pool, stop, asked, address) = (pool.clone(), Arc::clone(&stop), Arc::clone(&asked), b.address);
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(pool.call(B, address, Purpose::Control, vote(b"x"), SOON).await, answered(b"x"));
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let more = async || {
        let so_far = asked.load(Ordering::Relaxed);
        until("requests go on", || asked.load(Ordering::Relaxed) > so_far + 50).await;
    };
    more().await;
    // Both renew, five days on, and with that the clock passes the end of what they had before.
    cluster.clock.set(model::WallTime(NOW.0 + 5 * DAY));
    a.endpoint.set_certificate(cluster.certificate(1));
    b.endpoint.set_certificate(cluster.certificate(2));
    more().await;
    let after = pool.get(B, b.address, Purpose::Control).await.unwrap();
    let end = |connection: &net::Connection| connection.peer().certificate.as_ref().unwrap().not_after;
    assert_eq!(end(&before), model::WallTime(NOW.0 + 7 * DAY));
    assert_eq!(end(&after), model::WallTime(NOW.0 + 12 * DAY));
    // The stream that was open is still.
    assert!(!before.is_open() || before.load() == 1);
    stream.write(Bytes::from_static(b"still here")).await.unwrap();
    assert_eq!(theirs.read().await, Ok(Some(Bytes::from_static(b"still here"))));
    stop.store(true, Ordering::Relaxed);
    for one in load {
        one.await.unwrap();
    }
}

#[tokio::test]
async fn what_keeps_a_cluster_together_waits_for_no_payload_whoever_opened_the_connection() {
    let cluster = Cluster::new();
    let elsewhere = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let threads = Threads { control: Handle::current(), data: elsewhere.handle().clone() };
    let (apart, other) = (cluster.node_on(1, threads).await, cluster.node(2).await);
    for (from, to) in [(&apart, &other), (&other, &apart)] {
        let (control, peer) = (from.connect(to, Purpose::Control).await, from.connect(to, Purpose::Peer).await);
        let data = from.connect(to, Purpose::Data).await;
        assert!(data.request(vote(b"before"), SOON).await.is_ok());
        // The only thread of data has something else to do.
        let (resume, halted) = std::sync::mpsc::channel::<()>();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let waiting = elsewhere.spawn(async move {
            let _ = begun.send(());
            halted.recv()
        });
        begins.await.unwrap();
        assert_eq!(data.request(vote(b"meanwhile"), Duration::from_millis(300)).await, Err(Failure::Timeout));
        for connection in [control, peer] {
            assert!(connection.request(vote(b"meanwhile"), SOON).await.is_ok());
        }
        assert!(!waiting.is_finished());
        drop(resume);
        assert!(data.request(vote(b"after"), SOON).await.is_ok());
    }
    elsewhere.shutdown_background();
}
