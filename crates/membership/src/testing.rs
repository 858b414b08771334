//! A node with company, for unit tests.

use model::{NodeId, Time};

use crate::config::Config;
use crate::member::{Attributes, Member, Metadata, Status};
use crate::membership::{Membership, Via};
use crate::wire::{Description, Record, Rumour};

pub(crate) fn peer(id: u64) -> Member {
    Member {
        id: NodeId(id),
        name: format!("n{id}").parse().unwrap(),
        addr: ([10, 0, (id >> 8) as u8, id as u8], 7946).into(),
        incarnation: 0,
        metadata: Metadata::new(Attributes::default()).unwrap(),
    }
}

/// Node 1, which knows 2 to `nodes`.
pub(crate) fn node(nodes: u64) -> Membership {
    let mut node = Membership::new(Config::default(), peer(1), Time::ZERO, 1);
    for id in 2..=nodes {
        let description = Description::of(&peer(id));
        let rumour = Rumour { id: NodeId(id), incarnation: 0, status: Status::Alive, by: Vec::new() };
        let record = Record { rumour, described: 0, age_s: 0, description: description.bytes() };
        node.introduce(&record, Via::Sync, &mut Vec::new());
    }
    node
}
