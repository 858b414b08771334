//! Grants, and the records of who did what.

use model::{Code, ContentHash, Name, NodeId, Role, Scope, Verb, WallTime};
use state::access::{GRANT_NAMESPACES_MAX, GRANTS_MAX, whose};
use state::audit::{AUDIT_MAX, Broken, TEXT_MAX, verify};
use state::{Author, Change, Command, Deed, Grant, Outcome, Proof, State, Who, apply};

const WALL: WallTime = WallTime(1_795_000_000_000);

#[derive(Default)]
struct World {
    state: State,
}

impl World {
    fn founded() -> Self {
        let mut world = Self::default();
        world.does(Command::Found {
            cluster: "test".parse().unwrap(),
            name: "a".parse().unwrap(),
            address: "10.0.0.1:7946".to_owned(),
            facts: Box::default(),
            wall: WALL,
        });
        let authority = state::AuthorityRecord { id: ContentHash([1; 32]), sealed: vec![1] };
        world.does(Command::SetAuthorities { authorities: vec![authority], lifetime_days: 7, base: 0, wall: WALL });
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
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn grant(proof: u16, expires: Option<WallTime>) -> Grant {
    let mut hash = [0; 32];
    hash[..2].copy_from_slice(&proof.to_be_bytes());
    let proof = Proof::Token(ContentHash(hash));
    Grant { role: Role::Viewer, namespaces: Scope::All, proof, created: WALL, expires }
}

fn add(called: &str, grant: Grant, wall: WallTime) -> Command {
    Command::AddGrant { name: name(called), grant: Box::new(grant), wall }
}

fn author(who: Who) -> Author {
    Author { who, node: NodeId(1), by_way_of: None, address: None }
}

fn by(who: Who, command: Command) -> Command {
    Command::By { author: author(who), command: Box::new(command), wall: WALL }
}

fn later(ms: u64) -> WallTime {
    WallTime(WALL.0 + ms)
}

#[test]
fn a_grant_is_good_until_it_ends_or_is_revoked() {
    let mut world = World::founded();
    world.does(add("ann", grant(1, Some(later(1_000))), WALL));
    assert!(world.state.grant(&name("ann"), later(999)).is_some());
    assert!(world.state.grant(&name("ann"), later(1_000)).is_none());
    assert!(world.state.grant(&name("bob"), WALL).is_none());
    world.refuses(add("ann", grant(2, None), WALL), Code::AlreadyExists, "`ann` already");
    // One that is over makes room for another of its name.
    world.does(add("ann", grant(2, None), later(1_000)));
    world.does(Command::RemoveGrant { name: name("ann"), wall: WALL });
    assert!(world.state.grant(&name("ann"), WALL).is_none());
    world.refuses(Command::RemoveGrant { name: name("ann"), wall: WALL }, Code::NotFound, "`ann`");
}

#[test]
fn what_is_no_grant_is_refused() {
    World::default().refuses(add("ann", grant(1, None), WALL), Code::Conflict, "no constellation");
    let mut world = World::founded();
    world.refuses(add("ann", grant(1, Some(WALL)), WALL), Code::InvalidValue, "no time");
    let only = |names: usize| Scope::Only((0..names).map(|n| name(&format!("n{n}"))).collect());
    for names in [0, GRANT_NAMESPACES_MAX + 1] {
        let grant = Grant { namespaces: only(names), ..grant(1, None) };
        world.refuses(add("ann", grant, WALL), Code::InvalidValue, "namespaces");
    }
    world.does(add("ann", Grant { namespaces: only(GRANT_NAMESPACES_MAX), ..grant(1, None) }, WALL));
    world.refuses(add("bob", grant(1, None), WALL), Code::AlreadyExists, "token or key");
}

#[test]
fn grants_are_bounded_and_those_that_are_over_make_room() {
    let mut world = World::founded();
    for n in 0..GRANTS_MAX as u16 {
        let expires = (n == 7).then(|| later(1_000));
        world.does(add(&format!("g{n}"), grant(n, expires), WALL));
    }
    world.refuses(add("ann", grant(5_000, None), WALL), Code::NoCapacity, "1000 grants");
    world.does(add("ann", grant(5_000, None), later(1_000)));
    assert_eq!(world.state.grants().count(), GRANTS_MAX);
}

#[test]
fn a_proof_finds_its_own_grant_and_no_other() {
    let mut world = World::founded();
    world.does(add("ann", grant(1, None), WALL));
    world.does(add("bob", Grant { proof: Proof::Key(ContentHash([9; 32])), ..grant(0, None) }, WALL));
    world.does(add("old", grant(3, Some(later(5))), WALL));
    let check = |proof: Proof, now: WallTime, expected: Option<&str>| {
        let found = whose(world.state.grants(), proof, now).map(|(name, _)| name.as_str());
        assert_eq!(found, expected, "{proof:?}");
    };
    check(grant(1, None).proof, WALL, Some("ann"));
    check(Proof::Key(ContentHash([9; 32])), WALL, Some("bob"));
    // The hash of a key is no token, and the other way round.
    check(Proof::Token(ContentHash([9; 32])), WALL, None);
    check(grant(2, None).proof, WALL, None);
    check(grant(3, None).proof, WALL, Some("old"));
    check(grant(3, None).proof, later(5), None);
}

#[test]
fn what_is_asked_for_is_recorded_with_what_came_of_it() {
    let mut world = World::founded();
    world.does(by(Who::User(0), add("ann", grant(1, None), WALL)));
    let scale = Command::Scale { service: "web".parse().unwrap(), instances: 3, wall: WALL };
    let changes = world.apply(by(Who::Grant(name("ann")), scale));
    assert!(matches!(&changes[..], [Change::Refused { .. }]), "{changes:?}");
    world.does(Command::Note {
        author: author(Who::Stranger),
        deed: Deed { verb: Verb::Greet, what: "come in".to_owned(), outcome: Outcome::Denied(4) },
        wall: WALL,
    });
    let said: Vec<String> = world
        .state
        .audit
        .records
        .iter()
        .map(|record| format!("{} {} {} {:?}", record.number, record.author.who, record.what, record.outcome))
        .collect();
    let expected = [
        "1 uid 0 grant `ann`: viewer of all namespaces Done",
        "2 ann scale service `web` to 3 Refused(\"no service `web`\")",
        "3 a stranger come in Denied(4)",
    ];
    assert_eq!(said, expected);
    assert_eq!(world.state.audit.records[1].index, world.state.index - 1);
    // What nobody asks for has no author.
    world.refuses(by(Who::User(0), Command::Forget { stars: Vec::new() }), Code::Forbidden, "nothing that somebody");
    let twice = by(Who::User(0), by(Who::User(1), Command::RemoveGrant { name: name("ann"), wall: WALL }));
    world.refuses(twice, Code::Forbidden, "nothing that somebody");
    assert!(world.state.grant(&name("ann"), WALL).is_some());
}

fn noted(n: u64) -> Command {
    Command::Note {
        author: Author { address: Some([10, 0, 0, n as u8].into()), ..author(Who::Grant(name("ann"))) },
        deed: Deed { verb: Verb::Enter, what: format!("deed {n}"), outcome: Outcome::Done },
        wall: later(n),
    }
}

#[test]
fn any_change_of_the_records_shows_and_where() {
    let mut world = World::founded();
    (0..20).for_each(|n| world.does(noted(n)));
    let audit = &world.state.audit;
    assert_eq!(verify(audit.before, &audit.records), Ok(()));
    type Edit = fn(&mut state::AuditRecord);
    let edits: [(&str, Edit); 11] = [
        ("number", |record| record.number += 1),
        ("index", |record| record.index ^= 1),
        ("wall", |record| record.wall.0 ^= 1),
        ("who", |record| record.author.who = Who::User(0)),
        ("node", |record| record.author.node.0 ^= 1),
        ("way", |record| record.author.by_way_of = Some(NodeId(9))),
        ("address", |record| record.author.address = None),
        ("verb", |record| record.verb = Verb::See),
        ("what", |record| record.what.push('!')),
        ("outcome", |record| record.outcome = Outcome::Denied(1)),
        ("hash", |record| record.hash.0[31] ^= 1),
    ];
    for at in [0, 7, 19] {
        for (what, edit) in edits {
            let mut records = audit.records.clone();
            edit(&mut records[at]);
            let Err(Broken { number }) = verify(audit.before, &records) else { panic!("{what} of {at}") };
            // A number that was changed is told as it is now.
            let expected = at as u64 + if what == "number" { 2 } else { 1 };
            assert_eq!(number, expected, "{what}");
        }
        if at < 19 {
            let mut records = audit.records.clone();
            records.remove(at);
            assert_eq!(verify(audit.before, &records), Err(Broken { number: at as u64 + 2 }), "without {at}");
            let mut records = audit.records.clone();
            records.swap(at, at + 1);
            assert!(verify(audit.before, &records).is_err(), "swapped {at}");
        }
    }
    assert!(verify(Some(ContentHash([1; 32])), &audit.records).is_err(), "the first had none before it");
}

#[test]
fn the_last_records_are_kept_and_the_chain_goes_on() {
    let mut world = World::founded();
    let more = 25;
    (0..(AUDIT_MAX + more) as u64).for_each(|n| world.does(noted(n)));
    let audit = &world.state.audit;
    assert_eq!(audit.records.len(), AUDIT_MAX);
    assert_eq!(audit.records[0].number, more as u64 + 1);
    assert!(audit.before.is_some());
    assert_eq!(verify(audit.before, &audit.records), Ok(()));
    // The hash before the first that is kept is part of it.
    assert_eq!(verify(None, &audit.records), Err(Broken { number: more as u64 + 1 }));
}

#[test]
fn long_texts_are_cut() {
    let mut world = World::founded();
    let deed = Deed { verb: Verb::Greet, what: "é".repeat(TEXT_MAX), outcome: Outcome::Done };
    world.does(Command::Note { author: author(Who::Stranger), deed, wall: WALL });
    let record = &world.state.audit.records[0];
    assert!(record.what.len() <= TEXT_MAX + '…'.len_utf8() && record.what.ends_with('…'), "{}", record.what);
    assert_eq!(verify(None, &world.state.audit.records), Ok(()));
}
