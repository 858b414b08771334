//! Peers that do not keep to the protocol: before HELLO, at HELLO and after it.

mod support;

use std::time::Duration;

use bytes::Bytes;
use model::NodeId;
use net::{Limits, Purpose, Timing};
use proptest::prelude::*;
use rnp::envelope::NOBODY;
use rnp::message::{GossipSync, Ping, StateReadIndex, StreamOpen};
use rnp::stream::Body;
use rnp::{ErrorCode, Flags, Frame, Limit, Message, Payload, Piece, StreamId, Version};
use support::*;

fn header(length: u32, flags: u16) -> Vec<u8> {
    let mut bytes = b"RNP\x01\x01\x00".to_vec();
    bytes.extend(length.to_be_bytes());
    bytes.extend(flags.to_be_bytes());
    bytes
}

#[tokio::test]
async fn before_hello_little_is_read_and_not_for_long() {
    let cluster = Cluster::new();
    let quick = Timing { hello: Duration::from_millis(1_500), ..Timing::DEFAULT };
    let b = cluster.node_with(2, quick, Limits::default()).await;
    let node = Some(cluster.certificate(1));
    // Too long, reserved flags, no RNP, nothing at all, half a header: each is closed without a word.
    let starts: [&[u8]; 5] =
        [&header(64 * 1024 + 1, 4), &header(10, 0x8000), b"GET / HTTP/1.1\r\n\r\n", b"", b"RNP\x01\x01"];
    for bytes in starts {
        let mut raw = cluster.raw(&b, node.clone()).await;
        raw.write(bytes).await.unwrap();
        raw.closed().await;
    }
    // A connection that does not even begin with TLS.
    use tokio::io::AsyncReadExt;
    let mut socket = tokio::net::TcpStream::connect(b.address).await.unwrap();
    let mut rest = Vec::new();
    let read = tokio::time::timeout(SOON, socket.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "closed in time");
}

#[tokio::test]
async fn hello_names_who_the_certificate_names() {
    let cluster = Cluster::new();
    let b = cluster.node(2).await;
    let check = async |own: Option<u64>, sender: NodeId, hello, expected: Option<ErrorCode>| {
        let own = own.map(|node| cluster.certificate(node));
        let mut raw = cluster.raw(&b, own).await;
        let answer = raw.hello(hello, sender).await.unwrap();
        match (answer.message, expected) {
            (Message::HelloAck(ack), None) => assert_eq!(ack.node, NodeId(2)),
            (Message::Error(fault), Some(code)) => {
                assert_eq!(fault.code, code);
                raw.closed().await;
            }
            other => panic!("{other:?}"),
        }
    };
    check(Some(1), NodeId(1), hello(1, "prod", "control"), None).await;
    check(Some(1), NodeId(1), hello(1, "prod", "a new word"), None).await;
    check(None, NOBODY, hello(0, "prod", "control"), None).await;
    check(Some(1), NodeId(1), hello(1, "test", "control"), Some(ErrorCode::AuthFailed)).await;
    check(Some(1), NodeId(3), hello(1, "prod", "control"), Some(ErrorCode::AuthFailed)).await;
    check(Some(1), NodeId(1), hello(3, "prod", "control"), Some(ErrorCode::AuthFailed)).await;
    check(Some(1), NOBODY, hello(0, "prod", "control"), Some(ErrorCode::AuthFailed)).await;
    check(None, NodeId(1), hello(1, "prod", "control"), Some(ErrorCode::AuthFailed)).await;
    let mut newer = hello(1, "prod", "control");
    newer.version = Version { major: 2, minor: 0 };
    check(Some(1), NodeId(1), newer, Some(ErrorCode::VersionMismatch)).await;
    // Something else first.
    let mut raw = cluster.raw(&b, Some(cluster.certificate(1))).await;
    raw.send(Flags::WANTS_ANSWER, &envelope(1, NodeId(1), Ping {})).await;
    assert_eq!(raw.error().await, ErrorCode::Protocol);
    raw.closed().await;
}

#[tokio::test]
async fn a_client_that_names_no_protocol_is_not_served() {
    use net::tls::{Belief, Clock, Judge, client_config, server_name};
    use std::sync::Arc;
    let cluster = Cluster::new();
    let b = cluster.node(2).await;
    let belief = Belief::Trust(Arc::new(cluster.trust()));
    let clock = Arc::clone(&cluster.clock) as Arc<dyn Clock>;
    let judge = Judge::new(belief, Default::default(), clock);
    let mut config = (*client_config(Some(cluster.certificate(1)), judge)).clone();
    config.alpn_protocols.clear();
    let socket = tokio::net::TcpStream::connect(b.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(server_name(), socket).await.unwrap();
    let mut raw = Raw { stream, input: Default::default() };
    let mut frame = bytes::BytesMut::new();
    let hello = envelope(1, NodeId(1), hello(1, "prod", "control"));
    Frame::new(Flags::WANTS_ANSWER, hello.encode()).encode(Limit::Control, &mut frame).unwrap();
    let _ = raw.write(&frame).await;
    raw.closed().await;
}

#[tokio::test]
async fn after_hello_what_breaks_the_protocol_ends_the_connection() {
    let cluster = Cluster::new();
    let b = cluster.node(2).await;
    // Reserved flags; asked and answered; too long for control, for bulk; nothing; another version; no MessagePack.
    let cases: [(Purpose, Vec<u8>); 7] = [
        (Purpose::Control, header(1, 1 << 4)),
        (Purpose::Control, header(1, 0b1100)),
        (Purpose::Peer, header((1 << 20) + 1, 0)),
        (Purpose::Log, header((16 << 20) + 1, 0)),
        (Purpose::Data, header((16 << 20) + 1, 0)),
        (Purpose::Control, header(0, 0)),
        (Purpose::Control, [b"RNP\x01\x02\x00".to_vec(), vec![0, 0, 0, 1, 0, 0]].concat()),
    ];
    for (purpose, bytes) in cases {
        let mut raw = cluster.raw_node(&b, 1, purpose).await;
        raw.write(&bytes).await.unwrap();
        raw.closed().await;
    }
    for (garbage, kept) in [(b"\xc3\xc3\xc3".as_slice(), false), (b"\x80", false), (b"\xc1\x09\0\0\0\x01", false)] {
        let mut raw = cluster.raw_node(&b, 1, Purpose::Control).await;
        raw.write(&[header(garbage.len() as u32, 4), garbage.to_vec()].concat()).await.unwrap();
        assert_eq!(raw.error().await, ErrorCode::Protocol);
        assert!(!kept);
        raw.closed().await;
    }
    // A sender that is somebody else, after HELLO too.
    let mut raw = cluster.raw_node(&b, 1, Purpose::Control).await;
    raw.send(Flags::WANTS_ANSWER, &envelope(5, NodeId(3), StateReadIndex {})).await;
    assert_eq!(raw.error().await, ErrorCode::AuthFailed);
    raw.closed().await;
}

#[tokio::test]
async fn what_is_not_understood_is_refused_and_the_connection_goes_on() {
    let cluster = Cluster::new();
    let b = cluster.node(2).await;
    let mut raw = cluster.raw_node(&b, 1, Purpose::Control).await;
    let payload = envelope(7, NodeId(1), Ping {}).encode();
    let at = payload.windows(4).position(|window| window == b"ping").unwrap();
    let mut unknown = payload.to_vec();
    unknown[at..at + 4].copy_from_slice(b"pang");
    raw.write(&[header(unknown.len() as u32, 4), unknown].concat()).await.unwrap();
    assert_eq!(raw.error().await, ErrorCode::NotFound);
    // An answer that nobody waits for, HELLO again, and a message that asks for no answer.
    raw.send(Flags::ANSWER, &envelope(8, NodeId(1), Ping {})).await;
    raw.send(Flags::WANTS_ANSWER, &envelope(9, NodeId(1), hello(1, "prod", "control"))).await;
    assert_eq!(raw.error().await, ErrorCode::Protocol);
    raw.send(Flags::NONE, &envelope(10, NodeId(1), StateReadIndex {})).await;
    raw.send(Flags::WANTS_ANSWER, &envelope(11, NodeId(1), StateReadIndex {})).await;
    let (flags, answer) = raw.message().await.unwrap();
    assert_eq!((flags, answer.id, answer.sender), (Flags::ANSWER, 11, NodeId(2)));
}

async fn piece(raw: &mut Raw, stream: u32, body: Body) {
    let payload = Piece { stream: StreamId(stream), body }.encode();
    let mut out = bytes::BytesMut::new();
    Frame::new(Flags::NONE, payload).encode(Limit::Bulk, &mut out).unwrap();
    raw.write(&out).await.unwrap();
}

async fn expect_piece(raw: &mut Raw, stream: u32, expected: Body) {
    let frame = tokio::time::timeout(SOON, raw.frame()).await.unwrap().unwrap();
    let Payload::Piece(found) = rnp::read(&frame).unwrap() else { panic!("{frame:?}") };
    assert_eq!(found, Piece { stream: StreamId(stream), body: expected });
}

async fn open(raw: &mut Raw, id: u64, stream: u32) -> Result<u32, ErrorCode> {
    let open = StreamOpen { stream, window: 1000, service: "s".to_owned(), body: Bytes::new() };
    raw.send(Flags::WANTS_ANSWER, &envelope(id, NodeId(1), open)).await;
    match raw.message().await.unwrap().1.message {
        Message::StreamAccepted(accepted) => Ok(accepted.window),
        Message::Error(fault) => Err(fault.code),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn streams_keep_to_their_numbers_and_windows() {
    let cluster = Cluster::new();
    let b = cluster.node(2).await;
    let mut opened = b.service.streams();
    let mut raw = cluster.raw_node(&b, 1, Purpose::Data).await;
    assert_eq!(open(&mut raw, 1, 2).await, Err(ErrorCode::Protocol), "a number of the other side");
    assert_eq!(open(&mut raw, 2, 0).await, Err(ErrorCode::Protocol));
    let window = open(&mut raw, 3, 5).await.unwrap();
    assert_eq!(open(&mut raw, 4, 5).await, Err(ErrorCode::Protocol), "used");
    assert_eq!(open(&mut raw, 5, 3).await, Err(ErrorCode::Protocol), "passed over");
    // Never opened.
    piece(&mut raw, 9, Body::End).await;
    expect_piece(&mut raw, 9, Body::Reset(ErrorCode::Protocol)).await;
    piece(&mut raw, 4, Body::Data(Bytes::from_static(b"x"))).await;
    expect_piece(&mut raw, 4, Body::Reset(ErrorCode::Protocol)).await;
    // One byte more than the window.
    piece(&mut raw, 5, Body::Data(Bytes::from(vec![0; window as usize]))).await;
    piece(&mut raw, 5, Body::Data(Bytes::from_static(b"x"))).await;
    expect_piece(&mut raw, 5, Body::Reset(ErrorCode::Protocol)).await;
    // It is over: passed over in silence.
    piece(&mut raw, 5, Body::Data(Bytes::from_static(b"x"))).await;
    let (_, stream) = opened.recv().await.unwrap();
    drop(stream);
    // More credit than anybody may give.
    assert!(open(&mut raw, 6, 7).await.is_ok());
    piece(&mut raw, 7, Body::Credit((32 << 20) - 1)).await;
    expect_piece(&mut raw, 7, Body::Reset(ErrorCode::Protocol)).await;
    raw.send(Flags::WANTS_ANSWER, &envelope(99, NodeId(1), Ping {})).await;
    assert_eq!(raw.message().await.unwrap().1.message, pong());
    until("nothing is held of them", || b.endpoint.memory_left() == 256 << 20).await;
}

#[tokio::test]
async fn the_number_of_streams_and_the_sum_of_their_windows_are_bounded() {
    let cluster = Cluster::new();
    let b = cluster.node(2).await;
    let _opened = b.service.streams();
    let mut raw = cluster.raw_node(&b, 1, Purpose::Data).await;
    let mut accepted = 0_u32;
    let mut windows = 0_u64;
    let refused = loop {
        match open(&mut raw, u64::from(accepted) + 1, accepted * 2 + 1).await {
            Ok(window) => windows += u64::from(window),
            Err(code) => break code,
        }
        accepted += 1;
    };
    assert_eq!(refused, ErrorCode::ResourceExhausted);
    assert!(windows <= 64 << 20, "{windows}");
    assert!((200..=1024).contains(&accepted), "{accepted}");
}

#[tokio::test]
async fn what_peers_make_a_node_hold_is_bounded_for_all_of_them_together() {
    let cluster = Cluster::new();
    let limits = Limits { memory: 1 << 20, ..Limits::default() };
    let b = cluster.node_with(2, Timing::DEFAULT, limits).await;
    let opened = b.service.streams();
    let mut first = cluster.raw_node(&b, 1, Purpose::Data).await;
    let mut second = cluster.raw_node(&b, 3, Purpose::Data).await;
    // Streams that nobody reads, until one byte more would be too much.
    for stream in [1, 3, 5, 7] {
        let window = open(&mut first, stream.into(), stream).await.unwrap();
        for _ in 0..window / (64 << 10) {
            piece(&mut first, stream, Body::Data(Bytes::from(vec![0; 64 << 10]))).await;
        }
    }
    let open_second = StreamOpen { stream: 1, window: 1000, service: "s".to_owned(), body: Bytes::new() };
    second.send(Flags::WANTS_ANSWER, &envelope(1, NodeId(3), open_second)).await;
    second.message().await.unwrap();
    until("all is held", || b.endpoint.memory_left() == 0).await;
    piece(&mut second, 1, Body::Data(Bytes::from_static(b"x"))).await;
    expect_piece(&mut second, 1, Body::Reset(ErrorCode::ResourceExhausted)).await;
    // And an unfinished frame of which more has come than is free.
    let _ = second.write(&header(16 << 20, 4)).await;
    let _ = second.write(&vec![0x81; 2 << 20]).await;
    second.closed().await;
    drop((first, opened));
    until("it is given back", || b.endpoint.memory_left() == 1 << 20).await;
}

#[tokio::test]
async fn who_asks_for_much_and_reads_nothing_is_refused() {
    const ASKED: u64 = 200;
    let cluster = Cluster::new();
    let b = cluster.node(2).await;
    let mut raw = cluster.raw_node(&b, 1, Purpose::Control).await;
    let mut all = bytes::BytesMut::new();
    for id in 0..ASKED {
        let ask = GossipSync { members: Bytes::from_static(b"large") };
        let payload = envelope(id + 10, NodeId(1), ask).encode();
        Frame::new(Flags::WANTS_ANSWER, payload).encode(Limit::Control, &mut all).unwrap();
    }
    raw.write(&all).await.unwrap();
    let (mut answered, mut refused) = (0, 0);
    for _ in 0..ASKED {
        match raw.message().await.unwrap().1.message {
            Message::GossipSync(_) => answered += 1,
            Message::Error(fault) if fault.code == ErrorCode::ResourceExhausted => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    // What is kept for it, and what the kernel took meanwhile.
    assert!(answered >= net::connection::ANSWER_BYTES / LARGE.len(), "{answered}");
    assert!(answered <= 40, "{answered} of 900 KB each, {refused} refused");
    // The control: who reads is answered.
    for id in 0..ASKED {
        raw.send(Flags::WANTS_ANSWER, &envelope(id, NodeId(1), GossipSync { members: Bytes::from_static(b"large") }))
            .await;
        assert!(matches!(raw.message().await.unwrap().1.message, Message::GossipSync(_)));
    }
}

#[tokio::test]
async fn who_pings_without_reading_is_not_read_any_more() {
    use tokio::io::AsyncWriteExt;
    let cluster = Cluster::new();
    let b = cluster.node(2).await;
    let mut raw = cluster.raw_node(&b, 1, Purpose::Control).await;
    let mut pings = bytes::BytesMut::new();
    for id in 0..500 {
        Frame::new(Flags::WANTS_ANSWER, envelope(id, NodeId(1), Ping {}).encode())
            .encode(Limit::Control, &mut pings)
            .unwrap();
    }
    // The kernel keeps some on both ways, the node 512 KiB: it stops somewhere.
    let mut written = 0;
    while let Ok(result) = tokio::time::timeout(Duration::from_secs(1), raw.stream.write_all(&pings)).await {
        result.unwrap();
        written += pings.len();
        assert!(written < 64 << 20, "{written} bytes of pings are taken from who reads no pong");
    }
    // Once they are read it goes on, up to the last that left this side: TLS here keeps up to 64 KiB.
    for _ in 0..(written - (128 << 10)) / pings.len() * 500 {
        assert_eq!(raw.message().await.unwrap().1.message, pong());
    }
}

#[tokio::test]
async fn connections_of_one_node_one_address_and_of_machines_that_join_are_counted() {
    let cluster = Cluster::new();
    let limits = Limits { per_node: 2, per_address: 8, joining: 1, ..Limits::default() };
    let b = cluster.node_with(2, Timing::DEFAULT, limits).await;
    let hello_of = async |node: u64| {
        let own = (node != 0).then(|| cluster.certificate(node));
        let mut raw = cluster.raw(&b, own).await;
        let answer = raw.hello(hello(node, "prod", "control"), NodeId(node)).await.unwrap();
        match answer.message {
            Message::HelloAck(_) => Ok(raw),
            Message::Error(fault) => Err(fault.code),
            other => panic!("{other:?}"),
        }
    };
    let full = ErrorCode::ResourceExhausted;
    let (one, _two) = (hello_of(1).await.unwrap(), hello_of(1).await.unwrap());
    assert_eq!(hello_of(1).await.err(), Some(full));
    let _other = hello_of(3).await.unwrap();
    drop(one);
    until("its place is free", || b.endpoint.connections() == 2).await;
    let _three = hello_of(1).await.unwrap();
    let joining = hello_of(0).await.unwrap();
    assert_eq!(hello_of(0).await.err(), Some(full));
    drop(joining);
    // Its place is free a moment after its end.
    let deadline = tokio::time::Instant::now() + SOON;
    let _joining = loop {
        match hello_of(0).await {
            Ok(joining) => break joining,
            Err(code) => assert_eq!(code, full),
        }
        assert!(tokio::time::Instant::now() < deadline, "its place is free");
    };
    // Strangers that say nothing: the ninth is closed at once, long before its five seconds are over.
    use tokio::io::AsyncReadExt;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(tokio::net::TcpStream::connect(b.address).await.unwrap());
    }
    let begun = tokio::time::Instant::now();
    let mut ninth = tokio::net::TcpStream::connect(b.address).await.unwrap();
    let _ = ninth.read_u8().await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    drop(silent);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Bytes that begin well and go on badly: the node closes, or answers; it does not panic, and serves others.
    #[test]
    fn hostile_bytes_end_a_connection_at_most(
        pieces in proptest::collection::vec((0..6_u8, proptest::collection::vec(any::<u8>(), 0..300)), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let cluster = Cluster::new();
            let b = cluster.node(2).await;
            let _opened = b.service.streams();
            let mut raw = cluster.raw_node(&b, 1, Purpose::Control).await;
            let mut good = cluster.raw_node(&b, 3, Purpose::Control).await;
            for (kind, bytes) in pieces {
                let frame = match kind {
                    0 => bytes,
                    1 => [header(bytes.len() as u32, 4), bytes].concat(),
                    2 => [header(bytes.len() as u32, 0), [vec![0xc1], bytes].concat()].concat(),
                    3 => [header(bytes.len() as u32, 1), bytes].concat(),
                    4 => {
                        let mut payload = envelope(3, NodeId(1), Ping {}).encode().to_vec();
                        for (at, byte) in bytes.iter().enumerate().take(3) {
                            let place = (at * 17 + usize::from(*byte)) % payload.len();
                            payload[place] ^= byte;
                        }
                        [header(payload.len() as u32, 4), payload].concat()
                    }
                    _ => {
                        let open = StreamOpen { stream: 1, window: 0, service: String::new(), body: bytes.into() };
                        let payload = envelope(3, NodeId(1), open).encode();
                        [header(payload.len() as u32, 4), payload.to_vec()].concat()
                    }
                };
                if raw.write(&frame).await.is_err() {
                    break;
                }
            }
            good.send(Flags::WANTS_ANSWER, &envelope(9, NodeId(3), Ping {})).await;
            assert_eq!(good.message().await.unwrap().1.message, pong());
        });
    }
}
