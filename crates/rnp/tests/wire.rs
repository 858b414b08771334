//! The bytes of the specification, and bytes that nobody specified.

use bytes::{Bytes, BytesMut};
use model::NodeId;
use proptest::prelude::*;
use rnp::envelope::NOBODY;
use rnp::message::*;
use rnp::stream::Body;
use rnp::{Envelope, ErrorCode, Fault, Flags, Frame, Kind, Limit, Message, Payload, Piece, StreamId, Version};

const SPECIFICATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/rnp.md");

/// The examples of the specification: fences that begin with "```hex NAME", whose bytes are written in hexadecimal, with
/// comments after `#`.
#[expect(clippy::disallowed_methods, reason = "the test reads the specification, not the crate")]
fn examples() -> Vec<(String, Vec<u8>)> {
    let text = std::fs::read_to_string(SPECIFICATION).unwrap();
    let mut examples = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```hex ") else { continue };
        let body = lines.by_ref().take_while(|line| *line != "```");
        let digits: String = body.flat_map(|line| line.split('#').next().unwrap().split_whitespace()).collect();
        let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
        examples.push((name.to_owned(), bytes.collect()));
    }
    examples
}

/// What each example says.
fn meant(name: &str) -> Frame {
    let message = |flags, id, sender: u64, message: Message| {
        let envelope = Envelope { id, timestamp: 1_764_028_800_000, sender: NodeId(sender), message };
        Frame::new(flags, envelope.encode())
    };
    let piece = |stream, body| Frame::new(Flags::NONE, Piece { stream: StreamId(stream), body }.encode());
    match name {
        "ping" => message(Flags::WANTS_ANSWER, 7, 12, Ping {}.into()),
        "pong" => message(Flags::ANSWER, 7, 9, Pong {}.into()),
        "hello" => {
            let hello = Hello {
                version: Version { major: 1, minor: 0 },
                node: NodeId(12),
                cluster: "production".to_owned(),
                purpose: "control".to_owned(),
            };
            message(Flags::WANTS_ANSWER, 1, 12, hello.into())
        }
        "hello_ack" => {
            let version = Version { major: 1, minor: 0 };
            message(Flags::ANSWER, 1, 9, HelloAck { version, node: NodeId(9), capabilities: Vec::new() }.into())
        }
        "error" => {
            let fault = Fault::new(ErrorCode::NotFound, "no messages of type `tea.make`");
            message(Flags::ANSWER, 300, 9, fault.into())
        }
        "stream.open" => {
            let open = StreamOpen {
                stream: 1,
                window: 262_144,
                service: "bundle".to_owned(),
                body: Bytes::from_static(&[0xca, 0xfe]),
            };
            message(Flags::WANTS_ANSWER, 70_000, 12, open.into())
        }
        "data" => piece(1, Body::Data(Bytes::from_static(b"stars"))),
        "credit" => piece(1, Body::Credit(65_536)),
        "end" => piece(1, Body::End),
        "reset" => piece(1, Body::Reset(ErrorCode::ResourceExhausted)),
        "compressed" => message(Flags::ANSWER, 7, 9, Pong {}.into()),
        other => panic!("the specification has an example `{other}` that no test knows"),
    }
}

#[test]
fn the_bytes_of_the_specification_are_what_is_written_and_read() {
    let examples = examples();
    assert!(examples.len() >= 11, "{} examples", examples.len());
    for (name, bytes) in examples {
        let frame = meant(&name);
        if name == "compressed" {
            let read = Frame::decode(&mut BytesMut::from(&bytes[..]), Limit::Control);
            assert_eq!(read, Ok(Some(frame)));
            continue;
        }
        let mut written = BytesMut::new();
        frame.encode(Limit::Control, &mut written).unwrap();
        let hex: Vec<String> = written.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(&written[..], bytes, "`{name}` is written as\n{}", hex.join(" "));
        assert_eq!(Frame::decode(&mut written, Limit::Control), Ok(Some(frame.clone())), "{name}");
        let payload = rnp::read(&frame).unwrap();
        match payload {
            Payload::Message(envelope) => assert_eq!(envelope.encode(), frame.payload),
            Payload::Piece(piece) => assert_eq!(piece.encode(), frame.payload),
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test reads the specification, not the crate")]
fn the_specification_names_every_message_and_every_code() {
    let text = std::fs::read_to_string(SPECIFICATION).unwrap();
    for kind in Kind::ALL {
        assert!(text.contains(&format!("`{}`", kind.name())), "message `{}` is not in docs/rnp.md", kind.name());
    }
    for number in 0..=u16::MAX {
        let code = ErrorCode::of(number);
        if code != ErrorCode::Other(number) {
            assert!(text.contains(&format!("| {number} |")), "code {number} is not in docs/rnp.md");
        }
    }
}

fn refused(payload: &[u8]) -> (ErrorCode, String, Option<u64>) {
    let refused = Envelope::decode(payload).unwrap_err();
    (refused.fault.code, refused.fault.message, refused.id)
}

/// A message as another implementation might write it.
fn packed(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = vec![0x80 | fields.len() as u8];
    for (name, value) in fields {
        out.push(0xa0 | name.len() as u8);
        out.extend(name.bytes());
        out.extend(*value);
    }
    out
}

const SENDER: &[u8] = b"\xb2node_000000000000c";

#[test]
fn fields_come_in_any_order_and_unknown_ones_are_passed_over() {
    let payload = packed(&[
        ("data", &[0x81, 0xa5, b'l', b'a', b't', b'e', b'r', 0x91, 0x07]),
        ("sender", SENDER),
        ("trace", &[0x92, 0x01, 0x80]),
        ("timestamp", &[0xcd, 1, 0]),
        ("id", &[0xcf, 0, 0, 0, 0, 0, 0, 0, 5]),
        ("type", b"\xa4ping"),
    ]);
    let envelope = Envelope::decode(&payload).unwrap();
    let expected = Envelope { id: 5, timestamp: 256, sender: NodeId(12), message: Ping {}.into() };
    assert_eq!(envelope, expected);
}

#[test]
fn what_is_missing_or_unknown_is_said_under_the_id() {
    let whole: [(&str, &[u8]); 5] =
        [("type", b"\xa4ping"), ("id", &[5]), ("timestamp", &[1]), ("sender", SENDER), ("data", &[0x80])];
    for left_out in 0..whole.len() {
        let name = whole[left_out].0;
        let fields: Vec<_> = whole.iter().copied().filter(|field| field.0 != name).collect();
        let id = (name != "id").then_some(5);
        assert_eq!(refused(&packed(&fields)), (ErrorCode::Protocol, format!("a message without `{name}`"), id));
    }
    let mut unknown = whole;
    unknown[0].1 = b"\xa8tea.make";
    let message = "no messages of type `tea.make`".to_owned();
    assert_eq!(refused(&packed(&unknown)), (ErrorCode::NotFound, message, Some(5)));
    let mut hostile = whole;
    hostile[0].1 = b"\xa4a\n\x1b[";
    assert_eq!(refused(&packed(&hostile)).1, r"no messages of type `a\n\u{1b}[`");
    let mut wrong = whole;
    wrong[0].1 = b"\xaastate.read";
    assert_eq!(refused(&packed(&wrong)).0, ErrorCode::NotFound);
    let mut twice = whole.to_vec();
    twice.push(("id", &[6]));
    assert_eq!(refused(&packed(&twice)).1, "`id` is there twice or is not what it should be");
    let mut trailing = packed(&whole);
    trailing.push(0);
    assert_eq!(refused(&trailing).1, "1 bytes after the message");
    assert_eq!(refused(&[0x90]).1, "a message is a map");
    let data_of_another: [(&str, &[u8]); 5] =
        [("type", b"\xaestate.proposed"), ("id", &[5]), ("timestamp", &[1]), ("sender", SENDER), ("data", &[0x80])];
    assert!(refused(&packed(&data_of_another)).1.starts_with("`state.proposed`: missing field `index`"));
}

#[test]
fn a_piece_with_flags_is_refused() {
    let piece = Piece { stream: StreamId(1), body: Body::End }.encode();
    assert!(rnp::read(&Frame::new(Flags::ANSWER, piece.clone())).is_err());
    assert!(rnp::read(&Frame::new(Flags::NONE, piece)).is_ok());
}

/// One message of each kind, its contents by chance.
fn any_message() -> impl Strategy<Value = Message> {
    let text = "[a-z0-9.:_-]{0,80}";
    let bytes = || prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    let list = || prop::collection::vec(bytes(), 0..4);
    let numbers = (any::<u64>(), any::<u32>(), any::<u16>(), any::<u8>());
    (0..Kind::ALL.len(), (text, text, text), (bytes(), bytes()), list(), numbers).prop_map(
        |(kind, (one, two, three), (some, other), many, (long, word, short, byte))| {
            let version = Version { major: byte, minor: byte };
            let node = NodeId(long);
            match Kind::ALL[kind] {
                Kind::Hello => Hello { version, node, cluster: one, purpose: two }.into(),
                Kind::HelloAck => HelloAck { version, node, capabilities: vec![one, two] }.into(),
                Kind::Goodbye => Goodbye { reason: one }.into(),
                Kind::GoodbyeAck => GoodbyeAck {}.into(),
                Kind::Ping => Ping {}.into(),
                Kind::Pong => Pong {}.into(),
                Kind::Error => Fault::new(ErrorCode::of(short), one).detail("leader", two).retry_after_ms(word).into(),
                Kind::GossipSync => GossipSync { members: some }.into(),
                Kind::JoinRequest => JoinRequest {
                    token: one.clone(),
                    csr: some,
                    name: two,
                    address: three,
                    program: one,
                    time: long.is_multiple_of(2).then_some(long),
                }
                .into(),
                Kind::JoinAccepted => JoinAccepted {
                    node,
                    cluster: one.clone(),
                    role: two.clone(),
                    certificates: many.clone(),
                    authorities: many.clone(),
                    keys: many,
                    peers: vec![Peer { node, name: one, address: two }],
                    unsealing: (byte > 127).then_some(some),
                }
                .into(),
                Kind::CertificateRenew => CertificateRenew { csr: some }.into(),
                Kind::CertificateRenewed => CertificateRenewed { certificates: many.clone(), authorities: many }.into(),
                Kind::CertificateRecover => {
                    CertificateRecover { certificates: many, csr: some, signature: other }.into()
                }
                Kind::RaftVote => RaftVote { body: some }.into(),
                Kind::RaftAppend => RaftAppend { body: some }.into(),
                Kind::RaftSnapshot => RaftSnapshot { body: other }.into(),
                Kind::RaftTransfer => RaftTransfer { body: some }.into(),
                Kind::RaftAnswer => RaftAnswer { body: some }.into(),
                Kind::StatePropose => StatePropose { command: some, key: (byte > 127).then_some(one) }.into(),
                Kind::StateProposed => StateProposed { index: long }.into(),
                Kind::StateReadIndex => StateReadIndex {}.into(),
                Kind::StateReadAt => StateReadAt { index: long }.into(),
                Kind::NodeReport => NodeReport { stars: 70_000 }.into(),
                Kind::NodeReported => NodeReported { age_ms: 120 }.into(),
                Kind::StreamOpen => StreamOpen { stream: word, window: word, service: one, body: some }.into(),
                Kind::StreamAccepted => StreamAccepted { window: word }.into(),
            }
        },
    )
}

proptest! {
    #[test]
    fn every_message_comes_back(id: u64, timestamp: u64, sender: u64, message in any_message()) {
        let envelope = Envelope { id, timestamp, sender: NodeId(sender), message };
        let mut bytes = BytesMut::new();
        Frame::new(Flags::WANTS_ANSWER, envelope.encode()).encode(Limit::Control, &mut bytes).unwrap();
        let frame = Frame::decode(&mut bytes, Limit::Control).unwrap().unwrap();
        prop_assert_eq!(rnp::read(&frame).unwrap(), Payload::Message(envelope));
        prop_assert!(bytes.is_empty());
    }

    #[test]
    fn a_damaged_message_ends_in_a_value_or_a_refusal(
        message in any_message(),
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut: prop::sample::Index,
    ) {
        let envelope = Envelope { id: 1, timestamp: 2, sender: NOBODY, message };
        let mut bytes = envelope.encode().to_vec();
        for (at, byte) in hits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = Envelope::decode(&bytes);
        let _ = Envelope::decode(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn any_bytes_end_in_frames_or_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..2_000), flags in 0_u16..16) {
        let mut framed = BytesMut::from(&b"RNP\x01\x01\x00"[..]);
        framed.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        framed.extend_from_slice(&flags.to_be_bytes());
        framed.extend_from_slice(&bytes);
        if let Ok(Some(frame)) = Frame::decode(&mut framed, Limit::Control) {
            let _ = rnp::read(&frame);
        }
        let _ = Frame::decode(&mut BytesMut::from(&bytes[..]), Limit::Control);
    }
}
