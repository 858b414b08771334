//! Bytes from a broken or hostile holder of the cluster's key: nothing panics, nothing grows beyond its bound, and the others stay alive.

use std::net::SocketAddr;
use std::time::Duration;

use membership::{BLOB_MAX_BYTES, Config, DATAGRAM_MAX_BYTES, Effect, Event, Member, Membership, Status};
use model::{NodeId, Time};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use sim::members::{World, addr_of, member};

/// A node with nine members, and real datagrams and blobs that reached such nodes.
fn node_and_samples() -> (Membership, Time, Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut world = World::settled(10, Config::default(), 3);
    world.keep_bytes();
    world.give(2, Event::Update { metadata: member(7).metadata });
    world.kill(9);
    world.start_at(9, world.now + Duration::from_secs(10), &[0]);
    world.run_for(Duration::from_secs(60));
    let kept = world.kept_bytes();
    let pick = |all: Vec<Vec<u8>>| {
        let mut all = all;
        all.sort_by_key(|bytes| std::cmp::Reverse(bytes.len()));
        all.truncate(64);
        all
    };
    let (datagrams, blobs) = (pick(kept.datagrams), pick(kept.blobs));
    assert!(!datagrams.is_empty() && !blobs.is_empty());
    (world.nodes.swap_remove(0).membership, world.now, datagrams, blobs)
}

fn mutate(bytes: &[u8], changes: &[(prop::sample::Index, u8)], cut: Option<prop::sample::Index>) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, value) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *value;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len()));
    }
    bytes
}

/// Gives bytes as whatever can carry them, and lets time pass.
fn give(node: &mut Membership, now: &mut Time, bytes: &[u8]) {
    let mut effects = Vec::new();
    let from: SocketAddr = addr_of(3);
    node.handle(*now, Event::Datagram { from, bytes }, &mut effects);
    node.handle(*now, Event::PushPull { exchange: 1, bytes }, &mut effects);
    node.handle(*now, Event::PushPullAnswer { with: from, bytes }, &mut effects);
    for _ in 0..20 {
        *now = node.next_deadline().expect("a member").max(*now);
        node.handle(*now, Event::Tick, &mut effects);
    }
    for effect in &effects {
        match effect {
            Effect::Send { bytes, .. } => assert!(bytes.len() <= DATAGRAM_MAX_BYTES),
            Effect::PushPull { bytes, .. } | Effect::Answer { bytes, .. } => assert!(bytes.len() <= BLOB_MAX_BYTES),
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(all in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1300), 1..20)) {
        let mut node = Membership::new(Config::default(), member(0), Time::ZERO, 1);
        let mut now = Time::ZERO;
        for mut bytes in all {
            give(&mut node, &mut now, &bytes);
            if let Some(version) = bytes.first_mut() {
                *version = 0x10;
            }
            give(&mut node, &mut now, &bytes);
        }
    }
}

#[test]
fn changed_real_bytes_are_survived() {
    let (mut node, mut now, datagrams, blobs) = node_and_samples();
    let samples: Vec<Vec<u8>> = datagrams.into_iter().chain(blobs).collect();
    let change = (any::<prop::sample::Index>(), any::<u8>());
    let strategy = (
        any::<prop::sample::Index>(),
        prop::collection::vec(change, 0..6),
        proptest::option::weighted(0.2, any::<prop::sample::Index>()),
    );
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..3_000 {
        let (which, changes, cut) = strategy.new_tree(&mut runner).unwrap().current();
        give(&mut node, &mut now, &mutate(&samples[which.index(samples.len())], &changes, cut));
        assert!(node.members().count() <= Config::default().members_max);
    }
    assert!(node.counters().malformed > 100, "{:?}", node.counters());
}

/// What a node that nobody admitted says to introduce itself.
fn introduction(id: u64) -> Vec<u8> {
    let [_, _, _, _, _, a, b, c] = id.to_be_bytes();
    let stranger = Member {
        id: NodeId(id),
        name: format!("x{id}").parse().unwrap(),
        addr: SocketAddr::from(([172, a, b, c], 7946)),
        ..member(0)
    };
    let mut node = Membership::new(Config::default(), stranger, Time::ZERO, id);
    let mut effects = Vec::new();
    node.handle(Time::ZERO, Event::Join { seeds: &[addr_of(0)] }, &mut effects);
    match effects.pop() {
        Some(Effect::PushPull { bytes, .. }) => bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn members_are_bounded_and_refusals_counted() {
    let config = Config { members_max: 100, ..Config::default() };
    let mut node = Membership::new(config, member(0), Time::ZERO, 1);
    let mut effects = Vec::new();
    for id in 2..1_002 {
        node.handle(Time::ZERO, Event::PushPull { exchange: id, bytes: &introduction(id) }, &mut effects);
    }
    assert_eq!(node.members().count(), 100);
    assert_eq!(node.counters().refused_members, 900);
}

#[test]
fn the_dead_make_room_for_the_living() {
    let config = Config { members_max: 3, ..Config::default() };
    let mut world = World::settled(4, config, 5);
    world.kill(3);
    world.run_for(Duration::from_secs(20));
    let now = world.now;
    let mut effects = Vec::new();
    let node = &mut world.nodes[0].membership;
    node.handle(now, Event::PushPull { exchange: 9, bytes: &introduction(77) }, &mut effects);
    let ids: Vec<u64> = node.members().map(|view| view.member.id.0).collect();
    assert_eq!(ids, [2, 3, 77]);
    assert!(node.members().all(|view| view.status == Status::Alive));
}
