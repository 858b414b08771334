//! Two nodes that talk, and what ends it.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use model::{NodeId, WallTime};
use net::connection::{Ended, Failure, NotSent, SERVING_MAX, StreamEnd, WAITING_MAX};
use net::identity::trust::Distrust;
use net::identity::{Expected, Revoked};
use net::{ConnectError, Limits, Purpose, Received, Service, Stream, Threads, Timing};
use rnp::message::{Ping, RaftAnswer, StatePropose, StateReadIndex};
use rnp::stream::{Body, PIECE_BYTES_MAX, WINDOW_BYTES};
use rnp::{ErrorCode, Flags, Message, Payload, Piece};
use support::*;

fn answer(body: &[u8]) -> Result<Message, Failure> {
    Ok(RaftAnswer { body: Bytes::copy_from_slice(body) }.into())
}

fn propose() -> StatePropose {
    StatePropose { command: Bytes::from_static(b"x"), key: None }
}

async fn gated(cluster: &Cluster, node: u64) -> Node {
    let service = Arc::new(Test::default());
    let gated = Arc::new(Gated(Arc::clone(&service))) as Arc<dyn Service>;
    let endpoint = cluster.endpoint(node, gated, Timing::DEFAULT, Limits::default());
    Node::serve(endpoint, service, "127.0.0.1:0".parse().unwrap()).await
}

#[tokio::test]
async fn requests_are_answered_in_both_directions_and_know_who_asks() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, cluster.node(10).await);
    let connection = a.connect(&b, Purpose::Peer).await;
    assert_eq!(connection.peer().node(), NodeId(10));
    assert_eq!(connection.request(vote(b"hi"), SOON).await, answer(b"hi"));
    assert_eq!(connection.request(Ping {}, SOON).await, Ok(pong()));
    let refused = connection.request(rnp::message::GossipSync { members: Bytes::new() }, SOON).await;
    assert!(matches!(refused, Err(Failure::Refused(fault)) if fault.code == ErrorCode::NotFound));
    connection.tell(vote(b"told"), SOON).await.unwrap();
    until("what is told comes", || b.service.asked.load(Ordering::Relaxed) == 3).await;
}

#[tokio::test]
async fn answers_come_in_any_order_and_a_thousand_are_waited_for_at_once() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, gated(&cluster, 2).await);
    let connection = a.connect(&b, Purpose::Control).await;
    let waiting = tokio::spawn({
        let connection = connection.clone();
        async move { connection.request(propose(), SOON).await }
    });
    until("the first is asked", || b.service.asked.load(Ordering::Relaxed) == 1).await;
    // A large one behind it, and many small ones.
    let large = Bytes::from(vec![7; 900_000]);
    let vote_large = rnp::message::RaftVote { body: large.clone() };
    assert_eq!(connection.request(vote_large, SOON).await, Ok(RaftAnswer { body: large }.into()));
    let many = (0..500_u64).map(|n| {
        let connection = connection.clone();
        tokio::spawn(async move {
            let body = Bytes::from(n.to_be_bytes().to_vec());
            let asked = connection.request(rnp::message::RaftVote { body: body.clone() }, SOON).await;
            assert_eq!(asked, Ok(RaftAnswer { body }.into()));
        })
    });
    for one in many.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    assert!(!waiting.is_finished());
    b.service.gate.open_for(1);
    assert!(waiting.await.unwrap().is_ok());
    assert_eq!(connection.load(), 0);
}

#[tokio::test]
async fn a_request_ends_when_its_time_is_over_and_its_answer_is_passed_over() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, gated(&cluster, 2).await);
    let connection = a.connect(&b, Purpose::Control).await;
    let failed = connection.request(propose(), Duration::from_millis(50)).await;
    assert_eq!(failed, Err(Failure::Timeout));
    assert_eq!(connection.load(), 0);
    b.service.gate.open_for(1);
    assert_eq!(connection.request(vote(b"on"), SOON).await, answer(b"on"));
}

#[tokio::test]
async fn too_many_requests_are_refused_on_either_side_while_votes_pass() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, gated(&cluster, 2).await);
    let connection = a.connect(&b, Purpose::Control).await;
    let ask = || {
        let connection = connection.clone();
        tokio::spawn(async move { connection.request(propose(), SOON).await })
    };
    let served: Vec<_> = (0..SERVING_MAX).map(|_| ask()).collect();
    until("all are asked", || b.service.asked.load(Ordering::Relaxed) == SERVING_MAX).await;
    let Err(Failure::Refused(fault)) = connection.request(propose(), SOON).await else { panic!("one too many") };
    assert_eq!((fault.code, fault.retry_after_ms), (ErrorCode::ResourceExhausted, Some(100)));
    // The control: what is vital has places of its own.
    assert_eq!(connection.request(vote(b"v"), SOON).await, answer(b"v"));
    for one in served {
        b.service.gate.open_for(1);
        assert!(one.await.unwrap().is_ok());
    }
    b.service.gate.open_for(1);
    assert!(connection.request(propose(), SOON).await.is_ok());

    // A peer that answers nothing at all.
    let raw = RawServer::start(&cluster).await;
    let silent = a.endpoint.connect(raw.address, Expected::default(), Purpose::Control).await.unwrap();
    let asked: Vec<_> = (0..WAITING_MAX)
        .map(|_| {
            let silent = silent.clone();
            tokio::spawn(async move { silent.request(StateReadIndex {}, SOON).await })
        })
        .collect();
    until("all are asked", || silent.load() == WAITING_MAX).await;
    let refused = silent.request(StateReadIndex {}, SOON).await;
    assert_eq!(refused, Err(Failure::NotSent(NotSent::Full)));
    drop(raw);
    for one in asked {
        assert!(matches!(one.await.unwrap(), Err(Failure::Ended(_))));
    }
}

/// A node that says HELLO and nothing more.
struct RawServer {
    address: std::net::SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl RawServer {
    async fn start(cluster: &Cluster) -> Self {
        use net::tls::{Belief, Clock, Judge, server_config};
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let own = cluster.certificate(3);
        let belief = Belief::Trust(Arc::new(cluster.trust()));
        let clock = Arc::clone(&cluster.clock) as Arc<dyn Clock>;
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let judge = Judge::new(belief.clone(), Expected::default(), Arc::clone(&clock));
                let acceptor = tokio_rustls::TlsAcceptor::from(server_config(Arc::clone(&own), judge));
                let mut stream = acceptor.accept(socket).await.unwrap();
                let mut input = bytes::BytesMut::new();
                let frame = loop {
                    if let Some(frame) = rnp::Frame::decode(&mut input, rnp::Limit::Control).unwrap() {
                        break frame;
                    }
                    stream.read_buf(&mut input).await.unwrap();
                };
                let Payload::Message(hello) = rnp::read(&frame).unwrap() else { panic!() };
                let ack = rnp::message::HelloAck {
                    version: rnp::Version::CURRENT,
                    node: NodeId(3),
                    capabilities: vec!["test".to_owned()],
                };
                let mut out = bytes::BytesMut::new();
                let payload = envelope(hello.id, NodeId(3), ack).encode();
                rnp::Frame::new(Flags::ANSWER, payload).encode(rnp::Limit::Control, &mut out).unwrap();
                stream.write_all(&out).await.unwrap();
                stream.flush().await.unwrap();
                // Reads, and says nothing.
                let mut sink = [0; 4096];
                while stream.read(&mut sink).await.is_ok_and(|n| n > 0) {}
            }
        });
        Self { address, task }
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read_all(stream: &Stream) -> Result<Vec<u8>, StreamEnd> {
    let mut all = Vec::new();
    while let Some(bytes) = stream.read().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

fn pattern(bytes: usize, seed: usize) -> Bytes {
    (0..bytes).map(|n| (n * 31 + seed * 7 + n / 251) as u8).collect()
}

#[tokio::test]
async fn streams_carry_bytes_in_both_directions_at_once_and_end() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, cluster.node(2).await);
    let connection = a.connect(&b, Purpose::Data).await;
    let mut opened = b.service.streams();
    let before = a.endpoint.memory_left();
    let each = (0..5).map(|seed| {
        let connection = connection.clone();
        tokio::spawn(async move {
            let stream = connection.open("echo", Bytes::new(), WINDOW_BYTES, SOON).await.unwrap();
            let sent = pattern(1_500_000, seed);
            let send = async {
                stream.write(sent.clone()).await.unwrap();
                stream.finish();
            };
            let (received, ()) = tokio::join!(read_all(&stream), send);
            assert!(received.unwrap() == sent);
        })
    });
    let each: Vec<_> = each.collect();
    for _ in 0..5 {
        let (_, stream) = opened.recv().await.unwrap();
        tokio::spawn(async move {
            while let Some(bytes) = stream.read().await.unwrap() {
                stream.write(bytes).await.unwrap();
            }
            stream.finish();
        });
    }
    for one in each {
        one.await.unwrap();
    }
    until("nothing is left of them", || connection.load() == 0).await;
    until("nothing is held", || a.endpoint.memory_left() == before && b.endpoint.memory_left() == before).await;
    assert_eq!(connection.request(vote(b"on"), SOON).await, answer(b"on"));
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_its_writer_and_nobody_else() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, cluster.node(2).await);
    let connection = a.connect(&b, Purpose::Data).await;
    let mut opened = b.service.streams();
    let stream = Arc::new(connection.open("slow", Bytes::new(), WINDOW_BYTES, SOON).await.unwrap());
    let (_, slow) = opened.recv().await.unwrap();
    let written = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let writer = tokio::spawn({
        let (stream, written) = (Arc::clone(&stream), Arc::clone(&written));
        async move {
            for _ in 0..64 {
                stream.write(Bytes::from(vec![1; PIECE_BYTES_MAX])).await.unwrap();
                written.fetch_add(PIECE_BYTES_MAX, Ordering::Relaxed);
            }
            stream.finish();
        }
    });
    // The window, and two pieces ahead of it.
    let most = WINDOW_BYTES as usize + 2 * PIECE_BYTES_MAX;
    until("the window is full", || b.endpoint.memory_left() == (256 << 20) - WINDOW_BYTES as usize).await;
    for _ in 0..20 {
        assert_eq!(connection.request(vote(b"v"), SOON).await, answer(b"v"));
    }
    let other = connection.open("other", Bytes::new(), WINDOW_BYTES, SOON).await.unwrap();
    let (_, served) = opened.recv().await.unwrap();
    other.write(Bytes::from_static(b"past it")).await.unwrap();
    assert_eq!(served.read().await, Ok(Some(Bytes::from_static(b"past it"))));
    assert!(written.load(Ordering::Relaxed) <= most, "{}", written.load(Ordering::Relaxed));
    assert!(!writer.is_finished());
    assert_eq!(read_all(&slow).await.unwrap().len(), 64 * PIECE_BYTES_MAX);
    writer.await.unwrap();
}

#[tokio::test]
async fn the_window_of_a_stream_that_carries_much_grows_and_goes_with_it() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, cluster.node(2).await);
    let connection = a.connect(&b, Purpose::Data).await;
    let mut opened = b.service.streams();
    let stream = connection.open("much", Bytes::new(), WINDOW_BYTES, SOON).await.unwrap();
    let (_, read) = opened.recv().await.unwrap();
    let before = b.endpoint.memory_left();
    let total = 96 << 20;
    let writer = tokio::spawn(async move {
        let piece = Bytes::from(vec![1; PIECE_BYTES_MAX]);
        for _ in 0..total / PIECE_BYTES_MAX {
            stream.write(piece.clone()).await.unwrap();
        }
        stream.finish();
    });
    let mut carried = 0;
    while carried < 64 << 20 {
        carried += read.read().await.unwrap().unwrap().len();
    }
    // Nobody reads any more, and far more is on its way than at first.
    until("it is wide", || before - b.endpoint.memory_left() > 4 * WINDOW_BYTES as usize).await;
    carried += read_all(&read).await.unwrap().len();
    assert_eq!(carried, total);
    writer.await.unwrap();
    drop(read);
    until("nothing is held", || b.endpoint.memory_left() == before).await;
}

#[tokio::test]
async fn streams_are_refused_reset_and_end_with_their_connection() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, cluster.node(2).await);
    let connection = a.connect(&b, Purpose::Peer).await;
    let mut opened = b.service.streams();
    let open = async |service: &str| connection.open(service, Bytes::new(), WINDOW_BYTES, SOON).await;
    let refused = open("none").await;
    assert!(matches!(refused, Err(Failure::Refused(fault)) if fault.code == ErrorCode::NotFound));

    let ours = open("a").await.unwrap();
    let (_, theirs) = opened.recv().await.unwrap();
    theirs.reset(ErrorCode::QuotaExceeded);
    assert_eq!(ours.read().await, Err(StreamEnd::Reset(ErrorCode::QuotaExceeded)));
    assert_eq!(ours.write(Bytes::from_static(b"x")).await, Err(StreamEnd::Reset(ErrorCode::QuotaExceeded)));
    assert_eq!(theirs.read().await, Err(StreamEnd::Local));
    drop((ours, theirs));

    // Let go of without an end: the other side hears of it.
    let ours = open("b").await.unwrap();
    let (_, theirs) = opened.recv().await.unwrap();
    drop(theirs);
    assert_eq!(ours.read().await, Err(StreamEnd::Reset(ErrorCode::Internal)));
    drop(ours);

    let ours = open("c").await.unwrap();
    let (_, theirs) = opened.recv().await.unwrap();
    ours.write(Bytes::from_static(b"last words")).await.unwrap();
    ours.finish();
    assert_eq!(ours.write(Bytes::from_static(b"x")).await, Err(StreamEnd::Local));
    until("they came", || b.endpoint.memory_left() < 256 << 20).await;
    a.endpoint.set_trust(cluster.trust().with_revoked(Revoked { nodes: [NodeId(2)].into(), ..Revoked::default() }));
    assert_eq!(ours.read().await, Err(StreamEnd::Connection));
    // What had come is read all the same.
    ended(&connection).await;
    assert_eq!(read_all(&theirs).await.unwrap(), b"last words");
    drop(theirs);
    until("nothing is held", || b.endpoint.memory_left() == 256 << 20).await;
}

#[tokio::test]
async fn the_writer_sends_what_is_urgent_first_and_streams_in_turn() {
    let cluster = Cluster::new();
    let b = cluster.node(2).await;
    let mut raw = cluster.raw_node(&b, 1, Purpose::Peer).await;
    let mut opened = b.service.streams();
    for (id, stream) in [(10, 1), (11, 3)] {
        let open = rnp::message::StreamOpen { stream, window: 30 << 20, service: "s".to_owned(), body: Bytes::new() };
        raw.send(Flags::WANTS_ANSWER, &envelope(id, NodeId(1), open)).await;
        assert!(matches!(raw.message().await.unwrap().1.message, Message::StreamAccepted(_)));
    }
    let (_, first) = opened.recv().await.unwrap();
    let (_, second) = opened.recv().await.unwrap();
    // Nothing is read here until the node cannot write any more.
    let bulk = |stream: Stream| {
        tokio::spawn(async move {
            stream.write(Bytes::from(vec![0; 20 << 20])).await.unwrap();
            stream.finish();
        })
    };
    let tasks = [bulk(first), bulk(second)];
    tokio::time::sleep(Duration::from_millis(300)).await;
    for n in 0..50 {
        let ask = if n % 2 == 0 { Message::from(StateReadIndex {}) } else { Ping {}.into() };
        raw.send(Flags::WANTS_ANSWER, &envelope(100 + n, NodeId(1), ask)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (mut pieces, mut answers, mut kinds, mut last, mut turns) = (0, 0, Vec::new(), 0, 0);
    let mut pieces_before_first = None;
    while answers < 50 {
        let frame = raw.frame().await.unwrap();
        match rnp::read(&frame).unwrap() {
            Payload::Message(message) => {
                pieces_before_first.get_or_insert(pieces);
                answers += 1;
                kinds.push(message.message.kind().name());
            }
            Payload::Piece(Piece { stream, body: Body::Data(data) }) => {
                assert!(data.len() <= PIECE_BYTES_MAX);
                turns += usize::from(stream.0 != last);
                last = stream.0;
                pieces += 1;
            }
            Payload::Piece(other) => panic!("{other:?}"),
        }
    }
    // All that was urgent came before all that was not, and those together before the next pieces.
    assert!(kinds[..25].iter().all(|kind| *kind == "pong"), "{kinds:?}");
    assert!(kinds[25..].iter().all(|kind| *kind == "state.read_at"), "{kinds:?}");
    let first = pieces_before_first.unwrap();
    assert!(pieces - first <= 2, "{first} pieces before the first answer, {pieces} before the last");
    assert!(turns >= pieces - 2, "{turns} turns among {pieces} pieces");
    drop(raw);
    for task in tasks {
        assert!(task.await.is_err(), "the connection has ended");
    }
}

#[tokio::test]
async fn a_machine_that_says_nothing_does_not_hold_the_end_up() {
    let cluster = Cluster::new();
    let b = cluster.node(2).await;
    // It is there, and answers nothing.
    let raw = cluster.raw_node(&b, 1, Purpose::Peer).await;
    until("it is connected", || b.endpoint.connections() == 1).await;
    let since = std::time::Instant::now();
    b.endpoint.goodbye("shutting down").await;
    assert!(since.elapsed() < Duration::from_millis(3_500), "{:?}", since.elapsed());
    drop(raw);
}

#[tokio::test]
async fn goodbye_finishes_what_is_under_way_and_begins_nothing() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, gated(&cluster, 2).await);
    let connection = a.connect(&b, Purpose::Control).await;
    let waiting = tokio::spawn({
        let connection = connection.clone();
        async move { connection.request(propose(), SOON).await }
    });
    until("it is asked", || b.service.asked.load(Ordering::Relaxed) == 1).await;
    let leaving = tokio::spawn({
        let connection = connection.clone();
        async move { connection.goodbye("test").await }
    });
    until("it leaves", || !connection.is_open()).await;
    assert_eq!(connection.request(vote(b"no"), SOON).await, Err(Failure::NotSent(NotSent::Leaving)));
    assert!(!leaving.is_finished());
    b.service.gate.open_for(1);
    assert!(waiting.await.unwrap().is_ok());
    assert_eq!(leaving.await.unwrap(), Ended::Goodbye);
    until("the other side has ended, too", || b.endpoint.connections() == 0).await;
    // A whole node.
    let connections = [a.connect(&b, Purpose::Control).await, a.connect(&b, Purpose::Data).await];
    tokio::time::timeout(SOON, b.endpoint.goodbye("shutting down")).await.unwrap();
    for connection in connections {
        assert_eq!(ended(&connection).await, Ended::Goodbye);
    }
}

#[tokio::test]
async fn a_service_that_panics_ends_its_connection_and_leaves_nobody_waiting() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, gated(&cluster, 2).await);
    let connection = a.connect(&b, Purpose::Control).await;
    let other = a.connect(&b, Purpose::Control).await;
    let waiting = tokio::spawn({
        let connection = connection.clone();
        async move { connection.request(propose(), SOON).await }
    });
    until("it is asked", || b.service.asked.load(Ordering::Relaxed) == 1).await;
    let failed = connection.request(rnp::message::RaftTransfer { body: Bytes::new() }, SOON).await;
    assert!(matches!(failed, Err(Failure::Ended(_))), "{failed:?}");
    assert!(matches!(waiting.await.unwrap(), Err(Failure::Ended(_))));
    until("it is counted no longer", || b.endpoint.connections() == 1).await;
    assert_eq!(other.request(vote(b"on"), SOON).await, answer(b"on"));
    other.abort();
    assert_eq!(ended(&other).await, Ended::Local);
}

#[tokio::test]
async fn connections_that_are_unused_are_asked_and_let_go_of_and_dead_ones_end() {
    let cluster = Cluster::new();
    let quick = Timing { keep_alive: Duration::from_millis(50), idle: Duration::from_millis(600), ..Timing::DEFAULT };
    let a = cluster.node_with(1, quick, Limits::default()).await;
    let b = cluster.node(2).await;
    let begun = tokio::time::Instant::now();
    let connection = a.connect(&b, Purpose::Control).await;
    assert_eq!(ended(&connection).await, Ended::Goodbye);
    assert!(begun.elapsed() >= quick.idle, "pings are no use");
    let dead = RawServer::start(&cluster).await;
    let impatient = Timing { pong: Duration::from_millis(400), ..quick };
    let a = cluster.node_with(1, impatient, Limits::default()).await;
    let connection = a.endpoint.connect(dead.address, Expected::default(), Purpose::Control).await.unwrap();
    assert_eq!(connection.peer().capabilities, ["test"]);
    assert_eq!(ended(&connection).await, Ended::Silent);
}

#[tokio::test]
async fn a_peer_that_takes_nothing_or_finishes_nothing_is_let_go_of() {
    let cluster = Cluster::new();
    let quick = Timing { stall: Duration::from_millis(300), ..Timing::DEFAULT };
    let b = cluster.node_with(2, quick, Limits::default()).await;
    let mut opened = b.service.streams();
    let mut raw = cluster.raw_node(&b, 1, Purpose::Peer).await;
    let open = rnp::message::StreamOpen { stream: 1, window: 30 << 20, service: "s".to_owned(), body: Bytes::new() };
    raw.send(Flags::WANTS_ANSWER, &envelope(10, NodeId(1), open)).await;
    let (_, stream) = opened.recv().await.unwrap();
    // More than the kernel keeps for who does not read.
    let written = tokio::time::timeout(SOON, stream.write(Bytes::from(vec![0; 30 << 20]))).await;
    assert_eq!(written, Ok(Err(StreamEnd::Connection)));

    let mut raw = cluster.raw_node(&b, 1, Purpose::Peer).await;
    raw.write(b"RNP\x01\x01\x00").await.unwrap();
    raw.closed().await;
}

#[tokio::test]
async fn whoever_is_revoked_is_let_go_of_at_once_and_does_not_come_back() {
    let cluster = Cluster::new();
    let (a, b, c) = (cluster.node(1).await, cluster.node(2).await, cluster.node(3).await);
    let (to_b, to_c) = (a.connect(&b, Purpose::Control).await, a.connect(&c, Purpose::Control).await);
    let from_b = b.connect(&a, Purpose::Control).await;
    let begun = tokio::time::Instant::now();
    let without_b = cluster.trust().with_revoked(Revoked { nodes: [NodeId(2)].into(), ..Revoked::default() });
    a.endpoint.set_trust(without_b);
    assert_eq!(ended(&to_b).await, Ended::Distrust(Distrust::RevokedNode));
    ended(&from_b).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(to_c.request(vote(b"c"), SOON).await, answer(b"c"));
    let again = b.endpoint.connect(a.address, Expected::default(), Purpose::Control).await;
    assert!(matches!(&again, Err(ConnectError::Hello { reason: Ended::Revoked, .. })), "{again:?}");
    assert_eq!((b.endpoint.received(), a.endpoint.received()), (Received::ShutOut, Received::AsNode));
    assert!(!b.endpoint.is_connected() && a.endpoint.is_connected());
    // The control: without the list it does.
    a.endpoint.set_trust(cluster.trust());
    b.connect(&a, Purpose::Control).await;
    assert_eq!(b.endpoint.received(), Received::AsNode);
}

#[tokio::test]
async fn an_authority_that_is_not_trusted_any_more_takes_its_sessions_along() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, cluster.node(2).await);
    let connection = a.connect(&b, Purpose::Control).await;
    let next = cluster.authority.successor(NOW).unwrap();
    let both = vec![cluster.authority.certificate().clone(), next.certificate().clone()];
    let trust = |authorities| net::identity::Trust::new(cluster.name(), authorities, Revoked::default()).unwrap();
    a.endpoint.set_trust(trust(both));
    assert_eq!(connection.request(vote(b"on"), SOON).await, answer(b"on"));
    a.endpoint.set_trust(trust(vec![next.certificate().clone()]));
    assert_eq!(ended(&connection).await, Ended::Distrust(Distrust::UnknownAuthority));
}

#[tokio::test]
async fn a_session_ends_with_the_certificate_it_was_opened_with() {
    let cluster = Cluster::new();
    let quick = Timing { keep_alive: Duration::from_millis(50), ..Timing::DEFAULT };
    let (a, b) = (cluster.node_with(1, quick, Limits::default()).await, cluster.node(2).await);
    let connection = a.connect(&b, Purpose::Control).await;
    cluster.clock.set(WallTime(NOW.0 + 6 * DAY));
    assert_eq!(connection.request(vote(b"on"), SOON).await, answer(b"on"));
    cluster.clock.set(WallTime(NOW.0 + 7 * DAY));
    let end = Distrust::Expired(WallTime(NOW.0 + 7 * DAY));
    assert_eq!(ended(&connection).await, Ended::Distrust(end));
}

#[tokio::test]
async fn a_machine_that_joins_says_that_and_nothing_else() {
    let cluster = Cluster::new();
    let quick = Timing { stranger: Duration::from_secs(2), ..Timing::DEFAULT };
    let b = cluster.node_with(2, quick, Limits::default()).await;
    let (name, clock) = (cluster.name(), Arc::clone(&cluster.clock) as Arc<dyn net::tls::Clock>);
    let join = async |pin| {
        let belief = net::tls::Belief::Pin { cluster: name.clone(), pin };
        net::connect_as_stranger(b.address, &name, belief, Arc::clone(&clock), Timing::DEFAULT).await
    };
    let request = || rnp::message::JoinRequest {
        token: "t".to_owned(),
        csr: Bytes::new(),
        name: "n".to_owned(),
        address: "a".to_owned(),
        program: "p".to_owned(),
        time: None,
    };
    let connection = join(cluster.authority.pin()).await.unwrap();
    let refused = connection.request(request(), SOON).await;
    assert!(matches!(refused, Err(Failure::Refused(fault)) if fault.code == ErrorCode::AuthFailed));
    let asked = b.service.asked.load(Ordering::Relaxed);
    let refused = connection.request(StateReadIndex {}, SOON).await;
    assert!(matches!(refused, Err(Failure::Refused(fault)) if fault.code == ErrorCode::Unauthorized));
    assert_eq!(b.service.asked.load(Ordering::Relaxed), asked);
    ended(&connection).await;
    let connection = join(cluster.authority.pin()).await.unwrap();
    let refused = connection.open("s", Bytes::new(), 1, SOON).await;
    assert!(matches!(refused, Err(Failure::Refused(fault)) if fault.code == ErrorCode::Unauthorized));
    // And not for long.
    ended(&connection).await;
    let other = join(net::identity::KeyPin([0; 32])).await;
    assert!(matches!(other, Err(ConnectError::Distrust { reason: Distrust::OtherAuthority, .. })), "{other:?}");
}

/// An authority's side of joining and recovering, as an agent would have it.
struct Issuer {
    authority: net::identity::Authority,
    trust: net::identity::Trust,
    clock: Arc<Hand>,
    ticket: model::JoinTicket,
}

impl Issuer {
    fn answer_now(&self, peer: &net::Peer, message: Message) -> Result<Message, rnp::Fault> {
        use net::identity::{Lifetime, request::CheckedRequest};
        use net::tls::Clock;
        let refuse = |error: &dyn std::fmt::Display| rnp::Fault::new(ErrorCode::AuthFailed, error.to_string());
        let now = self.clock.now();
        let der = |chain: Vec<rustls::pki_types::CertificateDer<'static>>| {
            chain.iter().map(|der| Bytes::copy_from_slice(der)).collect::<Vec<_>>()
        };
        let authorities = der(self.trust.authorities().to_vec());
        match message {
            Message::JoinRequest(join) => {
                let token: net::identity::Token = join.token.parse().map_err(|error| refuse(&error))?;
                let role = model::NodeRole::Worker;
                token.check(&self.ticket, self.authority.cluster(), role, now).map_err(|error| refuse(&error))?;
                let request = CheckedRequest::read(&join.csr).map_err(|error| refuse(&error))?;
                let identity =
                    model::NodeIdentity { cluster: self.authority.cluster().clone(), role, node: NodeId(12) };
                let issued = self.authority.issue(&request, &identity, Lifetime::DEFAULT, now);
                let certificates = der(issued.map_err(|error| refuse(&error))?.chain);
                Ok(rnp::message::JoinAccepted {
                    node: NodeId(12),
                    cluster: "prod".to_owned(),
                    role: role.to_string(),
                    certificates,
                    authorities,
                    keys: Vec::new(),
                    peers: Vec::new(),
                    unsealing: None,
                }
                .into())
            }
            Message::CertificateRecover(recover) => {
                let (grace, lifetime) = (net::identity::renewal::Grace::default(), Lifetime::DEFAULT);
                let recovery = recover.into();
                let issued =
                    self.authority.recover(&recovery, &self.trust, grace, &peer.binding, lifetime, now, |_| true);
                let certificates = der(issued.map_err(|error| refuse(&error))?.chain);
                Ok(rnp::message::CertificateRenewed { certificates, authorities }.into())
            }
            _ => Err(rnp::Fault::new(ErrorCode::NotFound, "not here")),
        }
    }
}

impl Service for Issuer {
    fn answer(&self, peer: &Arc<net::Peer>, message: Message) -> net::connection::Answer {
        Box::pin(std::future::ready(self.answer_now(peer, message)))
    }

    fn stream(&self, _: &Arc<net::Peer>, _: &str, _: Bytes, _: Stream) -> Result<(), rnp::Fault> {
        Err(rnp::Fault::new(ErrorCode::NotFound, "not here"))
    }
}

#[tokio::test]
async fn a_machine_joins_by_a_token_goes_away_for_weeks_and_comes_back() {
    use net::identity::renewal::Recovery;
    use net::identity::token::TOKEN_LIFE;
    use net::identity::{NodeKey, Token, Trust};
    use net::tls::{Belief, Clock};
    let cluster = Cluster::new();
    let (name, clock) = (cluster.name(), Arc::clone(&cluster.clock));
    let (token, ticket) = Token::generate(&name, cluster.authority.pin(), model::NodeRole::Worker, 1, TOKEN_LIFE, NOW);
    let sealer = net::identity::KeyRing::new([(1, [7; 32])]).unwrap().for_use(net::identity::KeyUse::Authority);
    let authority = net::identity::Authority::open(&cluster.authority.seal(&sealer), &sealer).unwrap();
    let issuer = Arc::new(Issuer { authority, trust: cluster.trust(), clock: Arc::clone(&clock), ticket });
    let endpoint = cluster.endpoint(1, issuer, Timing::DEFAULT, Limits::default());
    let a = Node::serve(endpoint, Arc::default(), "127.0.0.1:0".parse().unwrap()).await;
    let stranger = async |belief| {
        let clock = Arc::clone(&clock) as Arc<dyn Clock>;
        net::connect_as_stranger(a.address, &name, belief, clock, Timing::DEFAULT).await.unwrap()
    };
    let certificates = |der: &[Bytes]| der.iter().map(|der| der.to_vec().into()).collect::<Vec<_>>();

    let text = token.reveal();
    let token: Token = text.parse().unwrap();
    let connection = stranger(Belief::Pin { cluster: name.clone(), pin: token.pin() }).await;
    let key = NodeKey::generate().unwrap();
    let join = rnp::message::JoinRequest {
        token: text.to_string(),
        csr: key.request().unwrap().into(),
        name: "n".to_owned(),
        address: "127.0.0.1:7946".to_owned(),
        program: "0.1.0".to_owned(),
        time: None,
    };
    let Message::JoinAccepted(accepted) = connection.request(join, SOON).await.unwrap() else { panic!() };
    let chain = certificates(&accepted.certificates);
    let trust = Trust::new(name.clone(), certificates(&accepted.authorities), Revoked::default()).unwrap();
    let node = |chain| {
        net::Endpoint::new(net::Config {
            node: NodeId(12),
            certificate: key.certified(chain).unwrap(),
            trust: trust.clone(),
            service: Arc::new(Test::default()),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            timing: Timing::DEFAULT,
            limits: Limits::default(),
            threads: Threads::here(),
        })
    };
    let call = async |endpoint: &net::Endpoint| {
        endpoint.connect(a.address, Expected::default(), Purpose::Peer).await.map(|_| ())
    };
    assert_eq!(call(&node(chain.clone())).await, Ok(()));

    // Three weeks on, both sides' certificates have run out; the authority's node has renewed.
    clock.set(WallTime(NOW.0 + 21 * DAY));
    a.endpoint.set_certificate(cluster.certificate(1));
    let late = call(&node(chain.clone())).await;
    assert!(matches!(&late, Err(ConnectError::Tls { reason, .. }) if reason.contains("Expired")), "{late:?}");
    let connection = stranger(Belief::Trust(Arc::new(trust.clone()))).await;
    let recovery = Recovery::ask(chain, &key, &key, &connection.peer().binding).unwrap();
    // Overheard, it is of no use on another connection.
    let other = stranger(Belief::Trust(Arc::new(trust.clone()))).await;
    let refused = other.request(rnp::message::CertificateRecover::from(recovery.clone()), SOON).await;
    assert!(matches!(refused, Err(Failure::Refused(fault)) if fault.code == ErrorCode::AuthFailed));
    let renewed = connection.request(rnp::message::CertificateRecover::from(recovery), SOON).await.unwrap();
    let Message::CertificateRenewed(renewed) = renewed else { panic!() };
    assert_eq!(call(&node(certificates(&renewed.certificates))).await, Ok(()));
}
