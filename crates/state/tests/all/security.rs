//! Authorities, invitations and certificates: what is let in, what is shut out, and when nobody needs to know any more.

use model::{Code, ContentHash, JoinTicket, NodeId, NodeRole, Serial, WallTime};
use state::security::{CERTIFICATES_MAX, GRACE_MS, TICKET_LIFE_MAX_MS, TICKETS_MAX};
use state::{AuthorityRecord, CertificateRecord, Change, Command, State, apply};

const WALL: WallTime = WallTime(1_795_000_000_000);
const WEEK_MS: u64 = 7 * 24 * 60 * 60 * 1000;

#[derive(Default)]
struct World {
    state: State,
}

impl World {
    /// Node 1, authority 1, ticket 1 for two workers and ticket 2 for controllers.
    fn founded() -> Self {
        let mut world = Self::default();
        world.does(Command::Found {
            cluster: "test".parse().unwrap(),
            name: "a".parse().unwrap(),
            address: "10.0.0.1:7946".to_owned(),
            facts: Box::default(),
            wall: WALL,
        });
        world.does(authorities(&[1], 0));
        world.does(note(1, 101, 1, None));
        world.does(Command::AddTicket { ticket: ticket(1, NodeRole::Worker, 2), wall: WALL });
        world.does(Command::AddTicket { ticket: ticket(2, NodeRole::Controller, 16), wall: WALL });
        world
    }

    fn apply(&mut self, command: Command) -> Vec<Change> {
        let index = self.state.index + 1;
        apply(&mut self.state, index, &command)
    }

    #[track_caller]
    fn does(&mut self, command: Command) {
        let changes = self.apply(command);
        assert!(!changes.iter().any(|change| matches!(change, Change::Refused { .. })), "{changes:?}");
    }

    /// Refused, and nothing changed but the index.
    #[track_caller]
    fn refuses(&mut self, command: Command, code: Code, says: &str) {
        let before = self.state.clone();
        let changes = self.apply(command);
        let [Change::Refused { problem }] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!(problem.code, code, "{problem}");
        assert!(problem.message.contains(says), "{problem}");
        assert_eq!(State { index: before.index, ..self.state.clone() }, before);
    }

    /// Admits a machine, and gives its id.
    fn joins(&mut self, name: &str, role: NodeRole, by: u8) -> u64 {
        self.does(admit(name, role, Some(by), WALL));
        self.state.index
    }

    fn uses(&self, of: u8) -> u32 {
        let tickets = &self.state.security.as_ref().unwrap().tickets;
        tickets.iter().find(|ticket| ticket.hash == hash(of)).unwrap().uses
    }

    fn told(&self) -> Vec<&str> {
        self.state.events.iter().map(|event| event.what.as_str()).collect()
    }
}

fn hash(n: u8) -> ContentHash {
    ContentHash([n; 32])
}

fn ticket(n: u8, role: NodeRole, uses_max: u32) -> JoinTicket {
    JoinTicket { hash: hash(n), role, expires: WallTime(WALL.0 + 1_000), uses_max, uses: 0 }
}

fn admit(name: &str, role: NodeRole, by: Option<u8>, wall: WallTime) -> Command {
    let address = "10.0.0.2:7946".to_owned();
    Command::AdmitNode { name: name.parse().unwrap(), role, address, facts: Box::default(), wall, ticket: by.map(hash) }
}

fn authorities(of: &[u8], base: u64) -> Command {
    let record = |n: &u8| AuthorityRecord { id: hash(*n), sealed: vec![*n; 100] };
    Command::SetAuthorities { authorities: of.iter().map(record).collect(), lifetime_days: 7, base, wall: WALL }
}

fn note(node: u64, serial: u128, authority: u8, by: Option<u128>) -> Command {
    let not_after = WallTime(WALL.0 + WEEK_MS);
    let certificate = CertificateRecord { serial: Serial(serial), not_after, authority: hash(authority), used: false };
    Command::NoteCertificate { node: NodeId(node), certificate, by: by.map(Serial), wall: WALL }
}

fn seen(node: u64, serial: u128) -> Command {
    Command::UseCertificate { node: NodeId(node), serial: Serial(serial), wall: WALL }
}

#[test]
fn a_token_admits_as_often_and_as_long_and_as_what_it_says() {
    let mut world = World::founded();
    let worker = NodeRole::Worker;
    world.refuses(admit("b", worker, None, WALL), Code::Forbidden, "by a token only");
    world.refuses(admit("b", worker, Some(9), WALL), Code::Forbidden, "not known");
    world.refuses(admit("b", NodeRole::Controller, Some(1), WALL), Code::Forbidden, "another role");
    world.refuses(admit("b", worker, Some(1), WallTime(WALL.0 + 1_000)), Code::Forbidden, "expired");
    assert_eq!(world.uses(1), 0);
    let b = world.joins("b", worker, 1);
    assert_eq!(b, world.state.index, "a node's id is the index of its admission");
    // Another of the same name does not use the token up.
    world.refuses(admit("b", worker, Some(1), WALL), Code::AlreadyExists, "node `b`");
    assert_eq!(world.uses(1), 1);
    world.joins("c", worker, 1);
    world.refuses(admit("d", worker, Some(1), WALL), Code::Forbidden, "as often as it may");
    // Who shows no good token does not learn that a name is taken.
    world.refuses(admit("b", worker, Some(1), WALL), Code::Forbidden, "as often as it may");
    assert!(world.told().contains(&"node `b` joined as worker with token `01010101`"), "{:?}", world.told());
}

#[test]
fn where_no_authority_is_no_token_is_asked_for() {
    let mut world = World::default();
    world.refuses(authorities(&[1], 0), Code::Conflict, "no constellation");
    world.refuses(Command::AddTicket { ticket: ticket(1, NodeRole::Worker, 1), wall: WALL }, Code::Conflict, "no con");
    world.does(Command::Found {
        cluster: "test".parse().unwrap(),
        name: "a".parse().unwrap(),
        address: "10.0.0.1:7946".to_owned(),
        facts: Box::default(),
        wall: WALL,
    });
    world.does(admit("b", NodeRole::Worker, None, WALL));
}

#[test]
fn tokens_are_bounded_and_go_by_themselves() {
    let mut world = World::founded();
    let mut refuses = |ticket: JoinTicket, code, says: &str| {
        world.refuses(Command::AddTicket { ticket, wall: WALL }, code, says);
    };
    let plain = ticket(3, NodeRole::Worker, 1);
    let expires = |ms: u64| WallTime(WALL.0 + ms);
    refuses(JoinTicket { expires: WALL, ..plain.clone() }, Code::InvalidValue, "no time");
    refuses(JoinTicket { expires: expires(TICKET_LIFE_MAX_MS + 1), ..plain.clone() }, Code::InvalidValue, "60 minutes");
    refuses(JoinTicket { uses_max: 0, ..plain.clone() }, Code::InvalidValue, "not 0");
    refuses(JoinTicket { uses_max: u32::MAX, ..plain.clone() }, Code::InvalidValue, "not 4294967295");
    refuses(JoinTicket { uses: 1, ..plain.clone() }, Code::InvalidValue, "admits");
    refuses(JoinTicket { hash: hash(1), ..plain.clone() }, Code::AlreadyExists, "already");
    for n in 0..TICKETS_MAX - 2 {
        let mut hash = [200; 32];
        hash[0] = n as u8;
        world.does(Command::AddTicket { ticket: JoinTicket { hash: ContentHash(hash), ..plain.clone() }, wall: WALL });
    }
    let add = |wall| Command::AddTicket { ticket: JoinTicket { expires: expires(5_000), ..plain.clone() }, wall };
    world.refuses(add(WALL), Code::NoCapacity, "256");
    world.does(add(expires(1_000)));
    assert_eq!(world.state.security.as_ref().unwrap().tickets.len(), 1);
    world.does(Command::RemoveTicket { hash: hash(3), wall: WALL });
    world.refuses(Command::RemoveTicket { hash: hash(3), wall: WALL }, Code::NotFound, "`03030303`");
    world.refuses(admit("b", NodeRole::Worker, Some(3), WALL), Code::Forbidden, "not known");
}

#[test]
fn a_certificate_is_for_members_that_were_not_shut_out() {
    let mut world = World::founded();
    let (b, c) = (world.joins("b", NodeRole::Controller, 2), world.joins("c", NodeRole::Worker, 1));
    world.does(note(b, 201, 1, None));
    world.does(note(c, 301, 1, None));
    world.refuses(note(c, 302, 1, None), Code::Forbidden, "by which it gets the next");
    world.refuses(note(c, 302, 9, Some(301)), Code::Conflict, "not trusted");
    world.refuses(note(c, 301, 1, Some(301)), Code::AlreadyExists, "known already");
    world.refuses(note(77, 302, 1, Some(301)), Code::NotFound, "not a member");
    world.does(note(c, 302, 1, Some(301)));
    world.does(Command::RevokeCertificates { node: NodeId(c), wall: WALL });
    assert!(world.told().contains(&"certificates of node `c` revoked: it is shut out"));
    let revoked = |world: &World| world.state.security.as_ref().unwrap().revoked.keys().copied().collect::<Vec<_>>();
    assert_eq!(revoked(&world), [Serial(301), Serial(302)]);
    for by in [301, 302] {
        world.refuses(note(c, 303, 1, Some(by)), Code::Forbidden, "was revoked");
    }
    world.refuses(note(c, 303, 1, None), Code::Forbidden, "by which it gets the next");
    world.refuses(Command::RevokeCertificates { node: NodeId(c), wall: WALL }, Code::Conflict, "already");
    // What is revoked is known to be for as long as it could get its node a new one.
    let late = |ms: u64| WallTime(WALL.0 + WEEK_MS + GRACE_MS + ms);
    let touch = |world: &mut World, serial, wall| {
        let Command::NoteCertificate { node, certificate, by, .. } = note(b, serial, 1, Some(201)) else { panic!() };
        let certificate = CertificateRecord { not_after: late(1), ..certificate };
        world.does(Command::NoteCertificate { node, certificate, by, wall });
    };
    touch(&mut world, 202, WallTime(late(0).0 - 1));
    assert_eq!(revoked(&world), [Serial(301), Serial(302)]);
    touch(&mut world, 203, late(0));
    assert_eq!(revoked(&world), []);
    // A node that left is no member, whatever it shows.
    world.does(Command::RemoveNode { node: NodeId(b), wall: WALL });
    world.refuses(note(b, 204, 1, Some(203)), Code::NotFound, "not a member");
    assert!(!world.state.security.as_ref().unwrap().certificates.contains_key(&NodeId(b)));
}

#[test]
fn a_node_that_asks_again_and_again_gets_so_many_certificates() {
    let mut world = World::founded();
    for n in 1..CERTIFICATES_MAX as u128 {
        world.does(note(1, 101 + n, 1, Some(101)));
    }
    world.refuses(note(1, 999, 1, Some(101)), Code::NoCapacity, "16 certificates");
}

#[test]
fn the_only_controller_is_not_shut_out() {
    let mut world = World::founded();
    world.refuses(Command::RevokeCertificates { node: NodeId(1), wall: WALL }, Code::Conflict, "only controller");
    let b = world.joins("b", NodeRole::Controller, 2);
    world.refuses(Command::RevokeCertificates { node: NodeId(b), wall: WALL }, Code::Conflict, "no certificate");
    world.does(Command::RevokeCertificates { node: NodeId(1), wall: WALL });
    world.refuses(Command::RevokeCertificates { node: NodeId(77), wall: WALL }, Code::NotFound, "not a member");
}

#[test]
fn an_authority_is_trusted_before_it_issues_and_until_nobody_needs_it() {
    let mut world = World::founded();
    let c = world.joins("c", NodeRole::Worker, 1);
    world.does(note(c, 301, 1, None));
    world.does(seen(c, 301));
    let version = |world: &World| world.state.security.as_ref().unwrap().version;
    let base = version(&world);
    world.refuses(authorities(&[2, 1], base), Code::Conflict, "only after all trust it");
    world.refuses(authorities(&[1, 2], base + 1), Code::Conflict, "changed meanwhile");
    world.refuses(authorities(&[], base), Code::InvalidValue, "1 to 3");
    world.refuses(authorities(&[1, 2, 3, 4], base), Code::InvalidValue, "1 to 3");
    world.refuses(authorities(&[1, 1], base), Code::InvalidValue, "twice");
    world.does(authorities(&[1, 2], base));
    world.does(authorities(&[2, 1], version(&world)));
    let base = version(&world);
    world.refuses(authorities(&[2], base), Code::Conflict, "still needed");
    world.does(note(1, 102, 2, Some(101)));
    world.does(note(c, 302, 2, Some(301)));
    // Given is not had: the answer may have been lost.
    world.does(seen(1, 102));
    world.refuses(authorities(&[2], base), Code::Conflict, "still needed");
    assert_eq!(world.state.need_authority(hash(1), WALL).collect::<Vec<_>>(), [NodeId(c)]);
    world.does(seen(c, 302));
    world.does(authorities(&[2], base));
    world.refuses(note(c, 303, 1, Some(302)), Code::Conflict, "not trusted");
    let told: Vec<_> = world.told().into_iter().filter(|what| what.contains("authority")).map(str::to_owned).collect();
    assert_eq!(
        told,
        [
            "certificate authority `01010101` made",
            "certificate authority `02020202` made: all trust it before it issues",
            "certificate authority `02020202` issues from here on",
            "certificate authority `01010101` is no longer trusted: nobody needs it",
        ]
    );
}

#[test]
fn an_authority_is_not_kept_for_who_was_shut_out_or_left_or_was_away_for_too_long() {
    let with_two = || {
        let mut world = World::founded();
        let c = world.joins("c", NodeRole::Worker, 1);
        world.does(note(c, 301, 1, None));
        let b = world.joins("b", NodeRole::Controller, 2);
        world.does(authorities(&[1, 2], world.state.security.as_ref().unwrap().version));
        world.does(authorities(&[2, 1], world.state.security.as_ref().unwrap().version));
        world.does(note(b, 201, 2, None));
        world.does(note(1, 102, 2, Some(101)));
        world.does(seen(1, 102));
        (world, c)
    };
    let need = |world: &State, at: u64| world.need_authority(hash(1), WallTime(WALL.0 + at)).next();
    let (mut world, c) = with_two();
    assert_eq!(need(&world.state, WEEK_MS + GRACE_MS - 1), Some(NodeId(c)));
    assert_eq!(need(&world.state, WEEK_MS + GRACE_MS), None);
    world.does(Command::RevokeCertificates { node: NodeId(c), wall: WALL });
    assert_eq!(need(&world.state, 0), None);
    let (mut world, c) = with_two();
    world.does(Command::RemoveNode { node: NodeId(c), wall: WALL });
    assert_eq!(need(&world.state, 0), None);
}

#[test]
fn a_node_is_seen_with_what_it_was_given_only() {
    let mut world = World::founded();
    world.refuses(seen(1, 999), Code::NotFound, "no certificate");
    world.refuses(seen(7, 101), Code::NotFound, "no certificate");
    assert_eq!(world.apply(seen(1, 101)), [Change::SecurityChanged]);
    assert_eq!(world.apply(seen(1, 101)), []);
}

#[test]
fn the_keys_of_gossip_change_in_steps_that_all_understand() {
    let key = |number: u32| state::GossipKey { number, sealed: vec![number as u8; 92] };
    let set = |numbers: &[u32], base: u64| Command::SetGossipKeys {
        keys: numbers.iter().copied().map(key).collect(),
        base,
        wall: WALL,
    };
    let mut world = World::founded();
    let at = |world: &World| world.state.security.as_ref().unwrap().gossip_version;
    for numbers in [&[][..], &[1, 1], &[1, 2, 3, 4, 5, 6, 7, 8, 9]] {
        world.refuses(set(numbers, 0), Code::InvalidValue, "key");
    }
    world.refuses(set(&[1, 2], 7), Code::Conflict, "meanwhile");
    // Each step, and from each what would leave out one.
    let steps: [(&[u32], &[&[u32]]); 3] =
        [(&[1, 2], &[&[2], &[3, 1], &[3]]), (&[2, 1], &[&[1], &[3, 2]]), (&[2], &[&[1], &[3]])];
    for (step, too_far) in steps {
        world.does(set(step, at(&world)));
        for numbers in too_far {
            world.refuses(set(numbers, at(&world)), Code::Conflict, "one step after the other");
        }
        let numbers: Vec<u32> = world.state.security.as_ref().unwrap().gossip.iter().map(|key| key.number).collect();
        assert_eq!(numbers, step);
    }
}
