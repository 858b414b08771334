//! The bytes of version 1, which must never change, and how much of a newer minor version is understood.

use super::*;
use crate::member::Attributes;

fn member() -> Member {
    let attributes = Attributes {
        zone: Some("z1".parse().unwrap()),
        labels: [("disk".parse().unwrap(), "ssd".to_owned())].into(),
        version: "0.1.0".to_owned(),
        ..Attributes::default()
    };
    let metadata = Metadata::new(attributes).unwrap();
    Member { id: NodeId(5), name: "n5".parse().unwrap(), addr: ([10, 0, 0, 5], 7946).into(), incarnation: 3, metadata }
}

fn rumour(status: Status) -> Rumour {
    Rumour { id: NodeId(300), incarnation: 7, status, by: vec![NodeId(1), NodeId(2)] }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn a_datagram() -> Vec<u8> {
    let description = Description::of(&member());
    let mut writer = DatagramWriter::new(NodeId(1), 2, NodeId(300), Some(Message::Ping { nonce: 77 }));
    assert!(writer.news(&News::Rumour(rumour(Status::Suspect))));
    let alive = Rumour { id: NodeId(5), incarnation: 3, status: Status::Alive, by: Vec::new() };
    let record = Record { rumour: alive, described: 3, age_s: 0, description: description.bytes() };
    assert!(writer.news(&News::Record(record)));
    writer.finish()
}

#[test]
fn a_datagram_has_these_bytes() {
    // Version 1.0; from 1, incarnation 2, to 300; a ping; a suspicion with two accusers; a record.
    let expected = concat!(
        "100102ac02",
        "01014d",
        "1007ac020701020102",
        "112d0503000003002602",
        "6e35000a0000058a3e1b0001027a3100000000000005302e312e3001046469736b03737364",
    );
    assert_eq!(hex(&a_datagram()), expected);
}

#[test]
fn what_is_written_is_read_back() {
    let bytes = a_datagram();
    let datagram = decode_datagram(&bytes).unwrap();
    assert_eq!((datagram.from, datagram.incarnation, datagram.to), (NodeId(1), 2, NodeId(300)));
    assert_eq!(datagram.message, Some(Message::Ping { nonce: 77 }));
    assert_eq!(datagram.news[0], News::Rumour(rumour(Status::Suspect)));
    let News::Record(record) = &datagram.news[1] else { panic!("a record") };
    assert_eq!(Description::decode(record.description).unwrap().member(NodeId(5), 3), member());
    let messages = [
        Message::Ack { nonce: u32::MAX },
        Message::AskPing { nonce: 1, target: NodeId(u64::MAX) },
        Message::Heard { nonce: 0 },
        Message::Relayed { nonce: 9, target: NodeId(3), incarnation: INCARNATION_END - 1 },
    ];
    for message in messages {
        let bytes = DatagramWriter::new(NodeId(1), 2, NodeId(3), Some(message)).finish();
        assert_eq!(decode_datagram(&bytes).unwrap().message, Some(message));
    }
}

#[test]
fn blobs_are_read_back() {
    let description = Description::of(&member());
    let record = Record { rumour: rumour(Status::Dead), described: 1, age_s: 60, description: description.bytes() };
    let mut ask = BlobWriter::ask(NodeId(1), &[1, u64::MAX, 3, 4]);
    assert!(ask.record(&record));
    let bytes = ask.finish();
    let blob = decode_blob(&bytes).unwrap();
    assert_eq!(blob.kind, BlobKind::Ask { buckets: vec![1, u64::MAX, 3, 4] });
    assert_eq!(blob.records, [record]);
    let bytes = BlobWriter::answer(NodeId(2)).finish_answer(&[true, false], true);
    assert_eq!(decode_blob(&bytes).unwrap().kind, BlobKind::Answer { differing: vec![true, false], more: true });
    let bytes = BlobWriter::push(NodeId(2)).finish();
    assert_eq!(decode_blob(&bytes).unwrap().kind, BlobKind::Push);
}

#[test]
fn a_full_answer_keeps_room_for_its_end() {
    let mut attributes = Attributes::default();
    for n in 0..7 {
        attributes.labels.insert(format!("l{n}").parse().unwrap(), "x".repeat(60));
    }
    let largest = Member { metadata: Metadata::new(attributes).unwrap(), ..member() };
    let description = Description::of(&largest);
    let record = Record { rumour: rumour(Status::Alive), described: 1, age_s: 0, description: description.bytes() };
    let mut answer = BlobWriter::answer(NodeId(1));
    let count = (0..).take_while(|_| answer.record(&record)).count();
    let bytes = answer.finish_answer(&[true; BUCKETS_MAX], true);
    assert!(bytes.len() <= BLOB_MAX_BYTES);
    assert_eq!(decode_blob(&bytes).unwrap().records.len(), count);
}

#[test]
fn a_newer_minor_version_is_understood_as_far_as_it_is_known() {
    let mut bytes = DatagramWriter::new(NodeId(1), 2, NodeId(3), None).finish();
    bytes[0] = v1::MAJOR << 4 | 9;
    // An unknown kind, and a rumour with a field more at its end.
    bytes.extend([200, 3, 1, 2, 3]);
    bytes.extend([16, 6, 5, 1, 2, 0, 42, 42]);
    let datagram = decode_datagram(&bytes).unwrap();
    let dead = Rumour { id: NodeId(5), incarnation: 1, status: Status::Dead, by: Vec::new() };
    assert_eq!(datagram.news, [News::Rumour(dead)]);
    bytes[0] = (v1::MAJOR + 1) << 4;
    assert_eq!(decode_datagram(&bytes), Err(Malformed), "a newer major version is not");
}

#[test]
fn what_breaks_a_bound_is_malformed() {
    let start = |rest: &[u8]| [DatagramWriter::new(NodeId(1), 2, NodeId(3), None).finish(), rest.to_vec()].concat();
    let too_far = [1u8, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40];
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("a version alone", vec![v1::MAJOR << 4]),
        ("an item longer than the rest", start(&[16, 100, 1])),
        ("a status of no kind", start(&[16, 4, 5, 1, 9, 0])),
        ("five accusers", start(&[16, 9, 5, 1, 1, 5, 1, 2, 3, 4, 5])),
        ("two questions", start(&[1, 1, 5, 1, 1, 6])),
        ("an incarnation beyond the end", start(&[&[16, 10][..], &too_far, &[0, 0]].concat())),
        ("too long", start(&[0; DATAGRAM_MAX_BYTES])),
    ] {
        assert_eq!(decode_datagram(&bytes), Err(Malformed), "{what}");
    }
    for (what, rest) in [
        ("three buckets", [&[32, 24][..], &[0; 24]].concat()),
        ("no kind", Vec::new()),
        ("two kinds", vec![34, 0, 34, 0]),
        ("an answer about nothing", vec![33, 1, 0]),
    ] {
        let bytes = [vec![v1::MAJOR << 4, 1], rest].concat();
        assert_eq!(decode_blob(&bytes), Err(Malformed), "{what}");
    }
    for addr in ["0.0.0.0:1", "10.0.0.1:0", "224.0.0.1:7946", "[::]:7946"] {
        let member = Member { addr: addr.parse().unwrap(), ..member() };
        assert_eq!(Description::decode(&v1::encode_description(&member)), Err(Malformed), "{addr}");
    }
}
