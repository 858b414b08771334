//! Frames as they were when version 1.0 was released: they are read for ever.

use bytes::{Bytes, BytesMut};
use model::NodeId;
use rnp::message::*;
use rnp::stream::Body;
use rnp::{Envelope, ErrorCode, Fault, Flags, Frame, Kind, Limit, Message, Payload, Piece, StreamId, Version};

/// Every message with every field set.
fn message(kind: Kind) -> Message {
    let text = |text: &str| text.to_owned();
    let bytes = |bytes: &'static [u8]| Bytes::from_static(bytes);
    let list = || vec![bytes(b"one"), bytes(&[0xff, 0])];
    let (version, node) = (Version { major: 1, minor: 0 }, NodeId(12));
    match kind {
        Kind::Hello => Hello { version, node, cluster: text("production"), purpose: text("peer") }.into(),
        Kind::HelloAck => HelloAck { version, node, capabilities: vec![text("tea"), text("milk")] }.into(),
        Kind::Goodbye => Goodbye { reason: text("the agent is ending") }.into(),
        Kind::GoodbyeAck => GoodbyeAck {}.into(),
        Kind::Ping => Ping {}.into(),
        Kind::Pong => Pong {}.into(),
        Kind::Error => {
            Fault::new(ErrorCode::ResourceExhausted, "later").detail("leader", "node_7").retry_after_ms(250).into()
        }
        Kind::GossipSync => GossipSync { members: bytes(&[1, 2, 3]) }.into(),
        Kind::JoinRequest => JoinRequest {
            token: text("rads1_prod_x"),
            csr: bytes(&[0x30, 0x82]),
            name: text("b"),
            address: text("10.0.0.2:7946"),
            program: text("0.1.0"),
            time: Some(1_764_028_800_000),
        }
        .into(),
        Kind::JoinAccepted => JoinAccepted {
            node,
            cluster: text("production"),
            role: text("controller"),
            certificates: list(),
            authorities: list(),
            keys: list(),
            peers: vec![Peer { node, name: text("a"), address: text("10.0.0.1:7946") }],
            unsealing: Some(bytes(&[9; 3])),
        }
        .into(),
        Kind::CertificateRenew => CertificateRenew { csr: bytes(&[0x30]) }.into(),
        Kind::CertificateRenewed => CertificateRenewed { certificates: list(), authorities: list() }.into(),
        Kind::CertificateRecover => {
            CertificateRecover { certificates: list(), csr: bytes(&[0x30]), signature: bytes(&[7; 4]) }.into()
        }
        Kind::RaftVote => RaftVote { body: bytes(&[1, 0x80]) }.into(),
        Kind::RaftAppend => RaftAppend { body: bytes(&[1, 0x81]) }.into(),
        Kind::RaftSnapshot => RaftSnapshot { body: bytes(&[1, 0x82]) }.into(),
        Kind::RaftTransfer => RaftTransfer { body: bytes(&[1, 0x83]) }.into(),
        Kind::RaftAnswer => RaftAnswer { body: bytes(&[1, 0x84]) }.into(),
        Kind::StatePropose => StatePropose { command: bytes(&[1, 0xc0]), key: Some(text("once")) }.into(),
        Kind::StateProposed => StateProposed { index: 70_000 }.into(),
        Kind::StateReadIndex => StateReadIndex {}.into(),
        Kind::StateReadAt => StateReadAt { index: u64::MAX }.into(),
        Kind::NodeReport => NodeReport { stars: 70_000 }.into(),
        Kind::NodeReported => NodeReported { age_ms: 120 }.into(),
        Kind::StreamOpen => {
            StreamOpen { stream: 3, window: 262_144, service: text("bundle"), body: bytes(&[0xca]) }.into()
        }
        Kind::StreamAccepted => StreamAccepted { window: 65_536 }.into(),
    }
}

/// One frame of every kind, and of every piece of a stream, by name.
fn frames() -> Vec<(String, Frame)> {
    let of_message = |kind: &Kind| {
        let envelope =
            Envelope { id: 70_001, timestamp: 1_764_028_800_000, sender: NodeId(12), message: message(*kind) };
        (kind.name().to_owned(), Frame::new(Flags::WANTS_ANSWER, envelope.encode()))
    };
    let pieces = [
        ("piece.data", Body::Data(Bytes::from_static(b"stars"))),
        ("piece.credit", Body::Credit(65_536)),
        ("piece.end", Body::End),
        ("piece.reset", Body::Reset(ErrorCode::Timeout)),
    ];
    let piece = |(name, body): (&str, Body)| {
        (name.to_owned(), Frame::new(Flags::NONE, Piece { stream: StreamId(3), body }.encode()))
    };
    Kind::ALL.iter().map(of_message).chain(pieces.into_iter().map(piece)).collect()
}

/// `name hex` a line. A line may be added, none changed: what wrote it is out there. `RADS_GOLDEN=1` prints those of today.
#[test]
fn frames_of_the_first_version_are_read_for_ever() {
    let frames = frames();
    if std::env::var_os("RADS_GOLDEN").is_some() {
        for (name, frame) in &frames {
            let mut bytes = BytesMut::new();
            frame.encode_as_is(Limit::Control, &mut bytes).unwrap();
            println!("{name} {}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        }
        return;
    }
    let mut read = Vec::new();
    for line in include_str!("golden/frames-1.0.txt").lines() {
        let (name, hex) = line.split_once(' ').unwrap();
        let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
        let mut bytes: BytesMut = bytes.collect();
        let frame = Frame::decode(&mut bytes, Limit::Control).unwrap().expect("a whole frame");
        assert!(bytes.is_empty(), "{name}");
        let (_, expected) =
            frames.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("`{name}` is gone"));
        // Values are compared, not bytes: a field with a default may have come since.
        match (rnp::read(&frame).unwrap(), rnp::read(expected).unwrap()) {
            (Payload::Message(old), Payload::Message(new)) => {
                assert_eq!((old.id, old.timestamp, old.sender), (new.id, new.timestamp, new.sender), "{name}");
                assert_eq!(old.message, new.message, "{name}");
            }
            (old, new) => assert_eq!(old, new, "{name}"),
        }
        read.push(name);
    }
    let missing: Vec<_> = frames.iter().filter(|(name, _)| !read.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "no frame of these is kept: {missing:?}");
}
