//! Neighbouring releases talk: a peer of the next minor version, one of the first, and one of another major version.

mod support;

use bytes::BytesMut;
use model::NodeId;
use net::Purpose;
use rnp::message::{Ping, StateReadIndex};
use rnp::{Envelope, ErrorCode, Flags, Frame, Limit, Message, Version};
use support::{Cluster, Raw, envelope, hello};

/// As a program of another minor version writes it: that version in the header, and fields this one does not know, in the message
/// and in its data.
async fn send(raw: &mut Raw, minor: u8, envelope: &Envelope) {
    let payload = envelope.encode();
    let data = payload.windows(5).position(|window| window == b"\xa4data").expect("every message has data") + 5;
    let entries = payload[data];
    assert_eq!(entries & 0xf0, 0x80, "a small map");
    let mut newer = payload[..data].to_vec();
    newer.push(entries + 1);
    newer.extend_from_slice(b"\xa5flair\x93\x01\x02\xa1x");
    newer.extend_from_slice(&payload[data + 1..]);
    newer[0] += 1;
    newer.extend_from_slice(b"\xa5trace\x81\xa1a\xc0");
    let mut out = BytesMut::new();
    let frame = Frame { version: Version { major: 1, minor }, flags: Flags::WANTS_ANSWER, payload: newer.into() };
    frame.encode_as_is(Limit::Bulk, &mut out).unwrap();
    raw.write(&out).await.unwrap();
}

async fn talks(minor: u8) {
    let cluster = Cluster::new();
    let node = cluster.node(2).await;
    let mut raw = cluster.raw(&node, Some(cluster.certificate(1))).await;
    let theirs = Version { major: 1, minor };
    let mut greeting = hello(1, "prod", Purpose::Control.as_str());
    greeting.version = theirs;
    send(&mut raw, minor, &envelope(1, NodeId(1), greeting)).await;
    match raw.message().await.unwrap().1.message {
        Message::HelloAck(ack) => assert_eq!(ack.version, Version::CURRENT.min(theirs), "the older of the two"),
        other => panic!("{other:?}"),
    }
    send(&mut raw, minor, &envelope(2, NodeId(1), Ping {})).await;
    assert!(matches!(raw.message().await.unwrap().1, Envelope { id: 2, message: Message::Pong(_), .. }));
    // A message of theirs that is not known here is refused under its id, and the connection goes on.
    let mut unknown = envelope(3, NodeId(1), StateReadIndex {}).encode().to_vec();
    let at = unknown.windows(16).position(|window| window == b"state.read_index").unwrap();
    unknown[at..at + 16].copy_from_slice(b"state.make_a_tea");
    let mut out = BytesMut::new();
    let frame = Frame { version: theirs, flags: Flags::WANTS_ANSWER, payload: unknown.into() };
    frame.encode_as_is(Limit::Bulk, &mut out).unwrap();
    raw.write(&out).await.unwrap();
    let (flags, refused) = raw.message().await.unwrap();
    let Message::Error(fault) = &refused.message else { panic!("{refused:?}") };
    assert_eq!((flags, refused.id, fault.code), (Flags::ANSWER, 3, ErrorCode::NotFound));
    send(&mut raw, minor, &envelope(4, NodeId(1), StateReadIndex {})).await;
    assert!(matches!(raw.message().await.unwrap().1, Envelope { id: 4, message: Message::StateReadAt(_), .. }));
}

#[tokio::test]
async fn a_peer_of_the_next_release_is_understood_as_far_as_this_one_goes() {
    talks(Version::CURRENT.minor + 1).await;
}

#[tokio::test]
async fn a_peer_of_the_first_release_is_understood() {
    talks(0).await;
}

/// The control: what another major version means by its bytes is not guessed at.
#[tokio::test]
async fn a_peer_of_another_major_version_is_told_so_and_let_go_of() {
    let cluster = Cluster::new();
    let node = cluster.node(2).await;
    let mut raw = cluster.raw(&node, Some(cluster.certificate(1))).await;
    let mut greeting = hello(1, "prod", Purpose::Control.as_str());
    greeting.version = Version { major: Version::CURRENT.major + 1, minor: 0 };
    raw.send(Flags::WANTS_ANSWER, &envelope(1, NodeId(1), greeting)).await;
    assert_eq!(raw.error().await, ErrorCode::VersionMismatch);
    raw.closed().await;
}
