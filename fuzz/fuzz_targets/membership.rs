//! A member that is sent anything: the input is a list of (how, length, bytes), given to one node with a little time between.
#![no_main]

use std::net::SocketAddr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use membership::{Attributes, BLOB_MAX_BYTES, Config, DATAGRAM_MAX_BYTES, Effect, Event, Member, Membership, Metadata};
use model::{NodeId, Time};

/// Few, so that the bound is reached.
const MEMBERS_MAX: usize = 16;

fn member(id: u64) -> Member {
    Member {
        id: NodeId(id),
        name: format!("n{id}").parse().expect("a name"),
        addr: SocketAddr::from(([10, 0, 0, id as u8], 7946)),
        incarnation: 0,
        metadata: Metadata::new(Attributes::default()).expect("within bounds"),
    }
}

/// Node 1, with 2 and 3, which introduced themselves.
fn node() -> Membership {
    let config = Config { members_max: MEMBERS_MAX, ..Config::default() };
    let mut node = Membership::new(config, member(1), Time::ZERO, 1);
    for id in [2, 3] {
        let mut other = Membership::new(Config::default(), member(id), Time::ZERO, id);
        let mut effects = Vec::new();
        other.handle(Time::ZERO, Event::Join { seeds: &[member(1).addr] }, &mut effects);
        if let Some(Effect::PushPull { bytes, .. }) = effects.pop() {
            node.handle(Time::ZERO, Event::PushPull { exchange: id, bytes: &bytes }, &mut effects);
        }
    }
    node
}

fuzz_target!(|input: &[u8]| {
    let mut node = node();
    let mut now = Time::ZERO;
    let mut rest = input;
    while let [how, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (bytes, next) = after.split_at(length);
        rest = next;
        let mut effects = Vec::new();
        let from = member(2).addr;
        match how % 3 {
            0 => node.handle(now, Event::Datagram { from, bytes }, &mut effects),
            1 => node.handle(now, Event::PushPull { exchange: 1, bytes }, &mut effects),
            _ => node.handle(now, Event::PushPullAnswer { with: from, bytes }, &mut effects),
        }
        for _ in 0..(how / 3) % 8 {
            now = node.next_deadline().map_or(now, |at| at.max(now));
            node.handle(now, Event::Tick, &mut effects);
        }
        now = now + Duration::from_millis(1);
        for effect in effects {
            match effect {
                Effect::Send { bytes, .. } => assert!(bytes.len() <= DATAGRAM_MAX_BYTES),
                Effect::PushPull { bytes, .. } | Effect::Answer { bytes, .. } => assert!(bytes.len() <= BLOB_MAX_BYTES),
                _ => {}
            }
        }
    }
    assert!(node.members().count() <= MEMBERS_MAX);
});
