//! Machines that join, renew and come back, over real connections, to a registrar whose log is a state in memory.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use model::{ContentHash, WallTime};
use net::connection::{Answer, Failure};
use net::identity::token::TOKEN_LIFE;
use net::identity::{Expected, Lifetime, NodeKey, Revoked};
use net::tls::Belief;
use net::{
    Config, ConnectError, Connection, Endpoint, Limits, Purpose, Service, Stream, Threads, Timing, connect_as_stranger,
};
use state::apply;
use tokio::net::TcpListener;

use super::super::found::found;
use super::super::home::Described;
use super::super::join::{Machine, join};
use super::*;

const NOW: WallTime = WallTime(1_795_651_200_000);
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
const SOON: Duration = Duration::from_secs(20);

/// A clock that stands where a test puts it.
#[derive(Debug)]
struct Hand(AtomicU64);

impl Hand {
    fn at(now: WallTime) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(now.0)))
    }

    fn set(&self, now: u64) {
        self.0.store(now, Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn now(&self) -> WallTime {
        WallTime(self.0.load(Ordering::Relaxed))
    }
}

/// A log that agrees with itself.
#[derive(Clone)]
struct InMemory(Arc<Mutex<State>>);

impl InMemory {
    fn with<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What it says, but for how long it is.
    fn said(&self) -> State {
        self.with(|state| State { index: 0, ..state.clone() })
    }

    #[track_caller]
    fn does(&self, command: Command) {
        self.with(|state| {
            let index = state.index + 1;
            let changes = apply(state, index, &command);
            assert!(!changes.iter().any(|change| matches!(change, state::Change::Refused { .. })), "{changes:?}");
        });
    }
}

impl Log for InMemory {
    async fn look<T: Send + 'static>(&self, look: impl FnOnce(&State) -> T + Send + 'static) -> Result<T, Problem> {
        Ok(self.with(|state| look(state)))
    }

    async fn catch_up(&self) -> Result<(), Problem> {
        Ok(())
    }

    async fn write(&self, command: Command) -> Result<u64, Problem> {
        Ok(self.with(|state| {
            let index = state.index + 1;
            apply(state, index, &command);
            index
        }))
    }
}

/// What of a node's switchboard is the registrar's.
struct Desk {
    registrar: Registrar<InMemory>,
    asked: AtomicUsize,
}

impl Service for Desk {
    fn answer(&self, peer: &Arc<Peer>, message: Message) -> Answer {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let (registrar, peer) = (self.registrar.clone(), Arc::clone(peer));
        match message {
            Message::JoinRequest(asked) => Box::pin(registrar.admit(peer, asked)),
            Message::CertificateRenew(asked) => Box::pin(registrar.renew(peer, asked)),
            Message::CertificateRecover(asked) => Box::pin(registrar.recover(peer, asked)),
            _ => Box::pin(std::future::ready(Err(Fault::new(ErrorCode::NotFound, "not here")))),
        }
    }

    fn stream(&self, _: &Arc<Peer>, _: &str, _: Bytes, _: Stream) -> Result<(), Fault> {
        Err(Fault::new(ErrorCode::NotFound, "not here"))
    }
}

/// A constellation of one controller, which listens.
struct World {
    log: InMemory,
    clock: Arc<Hand>,
    endpoint: Endpoint,
    address: SocketAddr,
    desk: Arc<Desk>,
    home: Arc<Home>,
    /// Controllers', 16 uses.
    token: String,
}

impl World {
    async fn found(cluster: &str) -> Self {
        let clock = Hand::at(NOW);
        let founded =
            found(State::default(), &cluster.parse().unwrap(), machine("a"), &facts(), Lifetime::DEFAULT, NOW);
        let founded = founded.unwrap();
        let log = InMemory(Arc::new(Mutex::new(founded.state)));
        let token = founded.token.reveal().to_string();
        Self::of(founded.home, log, clock, token).await
    }

    /// A controller of a constellation that is there.
    async fn of(home: Home, log: InMemory, clock: Arc<Hand>, token: String) -> Self {
        let home = Arc::new(home);
        let registrar = Registrar::new(log.clone(), Arc::clone(&home), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let desk = Arc::new(Desk { registrar, asked: AtomicUsize::new(0) });
        let endpoint = endpoint(&home, Arc::clone(&desk) as Arc<dyn Service>, Arc::clone(&clock));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = endpoint.clone();
        tokio::spawn(async move { serving.serve(&listener).await });
        Self { log, clock, endpoint, address, desk, home, token }
    }

    /// What a node does with what it hears from the log.
    fn follow(&self) {
        self.endpoint.set_trust(self.log.with(|state| security::trust(state)).unwrap());
    }

    async fn joins(&self, name: &str, token: &str) -> Result<Home, Problem> {
        self.joins_at(name, token, self.clock.now()).await
    }

    async fn joins_at(&self, name: &str, token: &str, clock: WallTime) -> Result<Home, Problem> {
        join(Some(&self.address.to_string()), token, machine(name), Hand::at(clock)).await
    }

    fn token(&self, role: NodeRole, uses: u32) -> (String, ContentHash) {
        let (authority, _) =
            self.log.with(|state| security::issuer(security::of(state)?, self.desk.registrar.ring())).unwrap();
        let (token, ticket) =
            Token::generate(&self.home.cluster, authority.pin(), role, uses, TOKEN_LIFE, self.clock.now());
        let hash = ticket.hash;
        self.log.does(Command::AddTicket { ticket, wall: self.clock.now() });
        (token.reveal().to_string(), hash)
    }

    /// Refused, with these words, and nothing came of it.
    #[track_caller]
    fn refused(&self, before: &State, joined: Result<Home, Problem>, code: Code, says: &str) -> Problem {
        let problem = joined.expect_err("refused");
        assert_eq!(problem.code, code, "{problem}");
        assert!(problem.message.contains(says), "{problem}");
        assert!(problem.help.is_some(), "{problem}");
        assert!(!problem.changed, "{problem}");
        assert_eq!(self.log.said(), *before, "something changed");
        problem
    }

    /// A node that is to be, at a connection to this one.
    async fn connected(&self, home: &Home) -> Result<Connection, ConnectError> {
        let endpoint = endpoint(home, Arc::new(Nothing), Arc::clone(&self.clock));
        endpoint.connect(self.address, Expected { node: Some(self.home.node), role: None }, Purpose::Peer).await
    }

    fn record(&self, node: NodeId) -> Vec<CertificateRecord> {
        self.log.with(|state| state.security.as_ref().unwrap().certificates.get(&node).cloned().unwrap_or_default())
    }
}

struct Nothing;

impl Service for Nothing {
    fn answer(&self, _: &Arc<Peer>, _: Message) -> Answer {
        Box::pin(std::future::ready(Err(Fault::new(ErrorCode::NotFound, "not here"))))
    }

    fn stream(&self, _: &Arc<Peer>, _: &str, _: Bytes, _: Stream) -> Result<(), Fault> {
        Err(Fault::new(ErrorCode::NotFound, "not here"))
    }
}

fn endpoint(home: &Home, service: Arc<dyn Service>, clock: Arc<Hand>) -> Endpoint {
    Endpoint::new(Config {
        node: home.node,
        certificate: home.certified().unwrap(),
        trust: home.trust(Revoked::default()).unwrap(),
        service,
        clock,
        timing: Timing::DEFAULT,
        limits: Limits::default(),
        threads: Threads::here(),
    })
}

fn facts() -> NodeFacts {
    NodeFacts { cores: 2, ..NodeFacts::default() }
}

fn machine(name: &str) -> Machine {
    Machine {
        name: name.parse().unwrap(),
        listen: "0.0.0.0:7946".parse().unwrap(),
        advertise: "10.0.0.7:7946".to_owned(),
        described: Described::default(),
        api: None,
        discoverable: false,
    }
}

fn certificate(home: &Home) -> Certificate {
    super::super::join::certificate(home).unwrap()
}

async fn renews(connection: &Connection, csr: Vec<u8>) -> Result<CertificateRenewed, Fault> {
    match connection.request(CertificateRenew { csr: csr.into() }, SOON).await {
        Ok(Message::CertificateRenewed(renewed)) => Ok(renewed),
        Err(Failure::Refused(fault)) => Err(fault),
        other => panic!("{other:?}"),
    }
}

fn csr() -> Vec<u8> {
    NodeKey::generate().unwrap().request().unwrap()
}

/// The home of a node that went on with another certificate.
fn with(home: &Home, key: &NodeKey, renewed: &CertificateRenewed) -> Home {
    let bytes = |all: &[Bytes]| all.iter().map(|der| serde_bytes::ByteBuf::from(der.to_vec())).collect();
    Home {
        key: serde_bytes::ByteBuf::from(key.to_pkcs8().to_vec()),
        chain: bytes(&renewed.certificates),
        authorities: bytes(&renewed.authorities),
        ..home.clone()
    }
}

#[tokio::test]
async fn a_machine_joins_by_a_token_as_what_it_says_and_is_believed() {
    let world = World::found("prod").await;
    let (token, hash) = world.token(NodeRole::Worker, 1);
    let b = world.joins("b", &world.token).await.unwrap();
    let w = world.joins("w", &token).await.unwrap();
    assert_eq!((b.role, w.role), (NodeRole::Controller, NodeRole::Worker));
    // What opens the authority is the controllers' alone.
    assert!(b.unsealing == world.home.unsealing && w.unsealing.is_empty());
    assert!(b.gossip == world.home.gossip && w.gossip == b.gossip);
    let (admitted, uses) = world.log.with(|state| {
        let tickets = &state.security.as_ref().unwrap().tickets;
        (state.nodes.clone(), tickets.iter().find(|ticket| ticket.hash == hash).unwrap().uses)
    });
    assert_eq!((admitted[&b.node].name.as_str(), admitted[&w.node].name.as_str(), uses), ("b", "w", 1));
    assert_eq!(admitted[&w.node].facts.program, env!("CARGO_PKG_VERSION"));
    assert_eq!(w.seeds.iter().map(|seed| seed.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(world.record(w.node).iter().map(|record| record.serial).collect::<Vec<_>>(), [certificate(&w).serial]);
    for home in [&b, &w] {
        let connection = world.connected(home).await.unwrap();
        assert!(renews(&connection, csr()).await.is_ok());
    }
    // A controller that joined lets others in itself.
    let b = World::of(b, world.log.clone(), Arc::clone(&world.clock), world.token.clone()).await;
    let c = b.joins("c", &world.token).await.unwrap();
    world.connected(&c).await.unwrap();
    // A worker cannot, and says so.
    assert!(Registrar::new(world.log.clone(), Arc::new(w.clone()), world.clock.clone()).is_err());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, worker) = (listener.local_addr().unwrap(), endpoint(&w, Arc::new(Nothing), world.clock.clone()));
    tokio::spawn(async move { worker.serve(&listener).await });
    let refused = join(Some(&address.to_string()), &world.token, machine("d"), world.clock.clone()).await.unwrap_err();
    assert!(refused.message.ends_with("is a worker: a controller lets machines in"), "{refused}");
}

#[tokio::test]
async fn whatever_is_wrong_with_a_token_the_stranger_hears_the_same_and_nothing_changes() {
    let world = World::found("prod").await;
    let (once, _) = world.token(NodeRole::Worker, 1);
    let (revoked, hash) = world.token(NodeRole::Worker, 1);
    world.log.does(Command::RemoveTicket { hash, wall: NOW });
    world.joins("b", &once).await.unwrap();
    let mut heard = Vec::new();
    let before = world.log.said();
    // Used up, also under a name that is taken, which it does not learn.
    for name in ["c", "a"] {
        heard.push(world.refused(&before, world.joins(name, &once).await, Code::Forbidden, "not known here"));
    }
    heard.push(world.refused(&before, world.joins("c", &revoked).await, Code::Forbidden, "not known here"));
    world.clock.set(NOW.0 + HOUR);
    heard.push(world.refused(&before, world.joins("c", &world.token).await, Code::Forbidden, "not known here"));
    world.clock.set(NOW.0);
    // Of this authority, but never made here.
    let (authority, _) =
        world.log.with(|state| security::issuer(security::of(state)?, world.desk.registrar.ring())).unwrap();
    let (unknown, _) =
        Token::generate(&world.home.cluster, authority.pin(), NodeRole::Worker, 1, TOKEN_LIFE, world.clock.now());
    let unknown = unknown.reveal().to_string();
    heard.push(world.refused(&before, world.joins("c", &unknown).await, Code::Forbidden, "not known here"));
    assert!(heard.iter().all(|problem| *problem == heard[0]), "{heard:?}");
    // The control: one that is good does let it in.
    world.joins("c", &world.token).await.unwrap();
}

#[tokio::test]
async fn a_token_of_another_constellation_is_not_even_shown() {
    let (world, other) = (World::found("prod").await, World::found("test").await);
    let twin = World::found("prod").await;
    for token in [&other.token, &twin.token] {
        let before = world.log.said();
        world.refused(&before, world.joins("b", token).await, Code::Forbidden, "is not of the constellation");
    }
    assert_eq!(world.desk.asked.load(Ordering::Relaxed), 0);
    let (most, last) = world.token.split_at(world.token.len() - 1);
    let slip = format!("{most}{}", if last == "0" { "2" } else { "0" });
    let before = world.log.said();
    for (token, says) in
        [(slip.as_str(), "typing error"), ("secret", "not a join token"), ("rads1_prod_", "not complete")]
    {
        world.refused(&before, world.joins("b", token).await, Code::InvalidValue, says);
    }
    // A machine that says it is invited elsewhere, over a connection of its own.
    let said = JoinRequest { token: other.token.clone(), ..request("b") };
    assert!(asked(&world, said).await.message.contains("for constellation `test`, this is `prod`"));
}

fn request(name: &str) -> JoinRequest {
    JoinRequest {
        token: String::new(),
        csr: csr().into(),
        name: name.to_owned(),
        address: "10.0.0.7:7946".to_owned(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        time: None,
    }
}

/// What a machine is told that asks in its own way.
async fn asked(world: &World, asked: JoinRequest) -> Fault {
    let token: Token = world.token.parse().unwrap();
    let belief = Belief::Pin { cluster: token.cluster().clone(), pin: token.pin() };
    let stranger = connect_as_stranger(world.address, token.cluster(), belief, world.clock.clone(), Timing::DEFAULT);
    match stranger.await.unwrap().request(asked, SOON).await {
        Err(Failure::Refused(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn who_is_invited_is_told_what_is_wrong() {
    let world = World::found("prod").await;
    let b = world.joins("b", &world.token).await.unwrap();
    let (address, facts) = (b.advertise.clone(), Box::new(facts()));
    world.log.does(Command::DescribeNode { node: b.node, address, facts, wall: NOW });
    let before = world.log.said();
    for name in ["a", "b"] {
        let says = format!("there is a node `{name}` already");
        let problem = world.refused(&before, world.joins(name, &world.token).await, Code::AlreadyExists, &says);
        assert!(problem.help.unwrap().contains("another name"));
    }
    let good = || JoinRequest { token: world.token.clone(), ..request("c") };
    let version = JoinRequest { program: "9.0.0".to_owned(), ..good() };
    let clock = JoinRequest { time: Some(NOW.0 - 2 * HOUR), ..good() };
    for (bad, says) in [
        (version, "the machine rads 9.0.0"),
        (clock, "its clock is 2 hours behind"),
        (JoinRequest { name: "Not A Name\u{1b}[31m".to_owned(), ..good() }, "name"),
        (JoinRequest { address: "nowhere".to_owned(), ..good() }, "no address of a node"),
        (JoinRequest { csr: vec![0; 100].into(), ..good() }, "certificate request"),
    ] {
        let fault = asked(&world, bad).await;
        assert!(fault.message.contains(says), "{}", fault.message);
        assert!(!fault.message.chars().any(char::is_control), "{:?}", fault.message);
        assert_eq!(world.log.said(), before, "{says}");
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_told_before_anything_is_written() {
    let world = World::found("prod").await;
    let before = world.log.said();
    for (clock, says) in [
        (NOW.0 - 30 * DAY, "will exist in 29 days only"),
        (NOW.0 + 8 * DAY, "ran out 1 day ago"),
        (NOW.0 + 3 * HOUR, "its clock is 3 hours ahead"),
        (NOW.0 - 9 * 60_000, "its clock is 9 minutes behind"),
    ] {
        let joined = world.joins_at("b", &world.token, WallTime(clock)).await;
        let problem = world.refused(&before, joined, Code::Conflict, says);
        assert!(problem.help.unwrap().contains("clock"));
    }
    world.joins_at("b", &world.token, WallTime(NOW.0 + 4 * 60_000)).await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_told_as_that() {
    let world = World::found("prod").await;
    let before = world.log.said();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let joined = join(Some(&closed.to_string()), &world.token, machine("b"), world.clock.clone()).await;
    world.refused(&before, joined, Code::Unavailable, "does not answer");
    let joined = join(Some("no such host:7946"), &world.token, machine("b"), world.clock.clone()).await;
    world.refused(&before, joined, Code::InvalidValue, "is no address of a node");
}

#[tokio::test]
async fn a_new_certificate_is_in_the_name_of_the_old_one_and_for_members_only() {
    let world = World::found("prod").await;
    let (token, _) = world.token(NodeRole::Worker, 2);
    let (b, c) = (world.joins("b", &token).await.unwrap(), world.joins("c", &token).await.unwrap());
    let connection = world.connected(&b).await.unwrap();
    let key = NodeKey::generate().unwrap();
    let renewed = renews(&connection, key.request().unwrap()).await.unwrap();
    let newer = with(&b, &key, &renewed);
    assert_eq!(certificate(&newer).identity, certificate(&b).identity);
    assert_eq!(world.record(b.node).len(), 2);
    world.connected(&newer).await.unwrap();
    let fault = renews(&connection, vec![1; 200]).await.unwrap_err();
    assert!(fault.message.contains("certificate request"), "{}", fault.message);
    // Shut out while it asks: this connection does not know yet, the log does.
    let stolen = world.connected(&c).await.unwrap();
    world.joins("d", &world.token).await.unwrap();
    world.log.does(Command::RevokeCertificates { node: c.node, wall: NOW });
    let fault = renews(&stolen, csr()).await.unwrap_err();
    assert_eq!((fault.code, world.record(c.node).len()), (ErrorCode::Unauthorized, 1), "{}", fault.message);
    world.log.does(Command::RemoveNode { node: b.node, wall: NOW });
    assert!(renews(&connection, csr()).await.unwrap_err().message.contains("any more"));
}

#[tokio::test]
async fn a_stolen_certificate_opens_nothing_once_it_is_revoked_and_its_connections_end() {
    let world = World::found("prod").await;
    let thief = world.joins("b", &world.token).await.unwrap();
    let other = world.joins("c", &world.token).await.unwrap();
    let (open, untouched) = (world.connected(&thief).await.unwrap(), world.connected(&other).await.unwrap());
    // The control: until it is revoked it opens connections.
    world.connected(&thief).await.unwrap();
    world.log.does(Command::RevokeCertificates { node: thief.node, wall: NOW });
    world.follow();
    let ended = tokio::time::timeout(Duration::from_secs(5), open.ended()).await.expect("within five seconds");
    assert!(
        matches!(
            ended,
            net::connection::Ended::Told(_) | net::connection::Ended::Closed | net::connection::Ended::Failed(_)
        ),
        "{ended:?}"
    );
    let Err(again) = world.connected(&thief).await else { panic!("it was let in") };
    assert!(again.to_string().contains("Revoked") || again.to_string().contains("revoked"), "{again}");
    assert!(renews(&untouched, csr()).await.is_ok());
}

#[tokio::test]
async fn the_folder_of_a_node_that_was_taken_out_is_of_no_use() {
    let world = World::found("prod").await;
    let b = world.joins("b", &world.token).await.unwrap();
    world.log.does(Command::RemoveNode { node: b.node, wall: NOW });
    world.follow();
    let Err(again) = world.connected(&b).await else { panic!("it was let in") };
    assert!(again.to_string().to_lowercase().contains("revoked"), "{again}");
    // Nor by having slept until its certificate ran out.
    world.clock.set(NOW.0 + 8 * DAY);
    renewed_itself(&world).await;
    let fault = recovers(&world, &b).await.unwrap_err();
    assert!(fault.message.contains("removed"), "{}", fault.message);
    // Its name is free, its id is not given again.
    let (token, _) = world.token(NodeRole::Worker, 1);
    let anew = world.joins("b", &token).await.unwrap();
    assert_ne!(anew.node, b.node);
}

/// The controller goes on with a certificate that is good now.
async fn renewed_itself(world: &World) {
    let key = NodeKey::generate().unwrap();
    let own = world.desk.registrar.own(&key.request().unwrap()).await.unwrap();
    world.endpoint.set_certificate(with(&world.home, &key, &own).certified().unwrap());
}

async fn recovers(world: &World, home: &Home) -> Result<Home, Fault> {
    let (old, key) = (NodeKey::from_pkcs8(&home.key).unwrap(), NodeKey::generate().unwrap());
    let belief = Belief::Trust(Arc::new(home.trust(Revoked::default()).unwrap()));
    let stranger = connect_as_stranger(world.address, &home.cluster, belief, world.clock.clone(), Timing::DEFAULT);
    let connection = stranger.await.unwrap();
    let chain = home.chain.iter().map(|der| der.to_vec().into()).collect();
    let recovery = Recovery::ask(chain, &old, &key, &connection.peer().binding).unwrap();
    match connection.request(CertificateRecover::from(recovery), SOON).await {
        Ok(Message::CertificateRenewed(renewed)) => Ok(with(home, &key, &renewed)),
        Err(Failure::Refused(fault)) => Err(fault),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn who_slept_for_weeks_comes_back_and_who_was_shut_out_does_not() {
    let world = World::found("prod").await;
    let (b, c) = (world.joins("b", &world.token).await.unwrap(), world.joins("c", &world.token).await.unwrap());
    world.log.does(Command::RevokeCertificates { node: c.node, wall: NOW });
    world.clock.set(NOW.0 + 36 * DAY);
    renewed_itself(&world).await;
    world.follow();
    assert!(matches!(world.connected(&b).await, Err(ConnectError::Tls { .. })), "it has run out");
    let back = recovers(&world, &b).await.unwrap();
    world.connected(&back).await.unwrap();
    assert_eq!(certificate(&back).identity, certificate(&b).identity);
    assert!(recovers(&world, &c).await.unwrap_err().message.contains("revoked"));
    // Before a month is over, and not after.
    world.clock.set(NOW.0 + 37 * DAY + 1);
    renewed_itself(&world).await;
    assert!(recovers(&world, &b).await.unwrap_err().message.contains("join with a token"));
}

#[tokio::test]
async fn another_authority_takes_over_without_a_stranger_among_nodes() {
    use super::super::rotation::{Step, next};
    let world = World::found("prod").await;
    let b = world.joins("b", &world.token).await.unwrap();
    let registrar = &world.desk.registrar;
    let believed = async |home: &Home| {
        world.follow();
        world.connected(home).await.unwrap()
    };
    let coming = || {
        world.log.with(|state| {
            let security = security::of(state).unwrap();
            let last = security.authorities.last().unwrap().id;
            next(&security::authorities(security).unwrap(), state.need_authority(last, NOW).next().is_some())
        })
    };
    let step = async |step| {
        let state = world.log.with(|state| security::members(state));
        registrar.step(&state, step, NOW).await
    };
    assert_eq!(coming(), None);
    registrar.rotate(NOW).await.unwrap();
    let busy = registrar.rotate(NOW).await.unwrap_err();
    assert!(busy.message.contains("already"), "{busy}");
    let open = believed(&b).await;
    assert_eq!(coming(), Some(Step::Issue));
    step(Step::Issue).await.unwrap();
    believed(&b).await;
    // One that slept through it all, and trusts the predecessor only, believes what the successor issues.
    let key = NodeKey::generate().unwrap();
    let own = world.desk.registrar.own(&key.request().unwrap()).await.unwrap();
    world.endpoint.set_certificate(with(&world.home, &key, &own).certified().unwrap());
    believed(&b).await;
    // Both are needed until both nodes were seen with a new one.
    assert_eq!(coming(), None);
    assert!(step(Step::Retire).await.unwrap_err().message.contains("still needed"));
    let key = NodeKey::generate().unwrap();
    let renewed = renews(&open, key.request().unwrap()).await.unwrap();
    let newer = with(&b, &key, &renewed);
    let old = certificate(&world.home);
    let own = registrar.renewed(&old.identity, old.serial, &csr()).await.unwrap();
    let serial = |chain: &[Bytes]| Certificate::read(&chain[0].to_vec().into()).unwrap().serial;
    for (node, serial) in [(b.node, serial(&renewed.certificates)), (world.home.node, serial(&own.certificates))] {
        assert_eq!(coming(), None);
        world.log.does(Command::UseCertificate { node, serial, wall: NOW });
    }
    assert_eq!(coming(), Some(Step::Retire));
    step(Step::Retire).await.unwrap();
    assert_eq!(coming(), None);
    believed(&newer).await;
    assert!(world.connected(&b).await.is_err(), "the predecessor's certificates are of no use");
    // A token that was made before still names who leads to the controller's certificate.
    world.joins("d", &world.token).await.unwrap();
    let (token, _) = world.token(NodeRole::Worker, 1);
    let c = world.joins("c", &token).await.unwrap();
    assert_eq!(c.chain.len(), 2, "nothing leads to the predecessor any more");
    believed(&c).await;
}

#[tokio::test]
async fn a_machine_that_could_not_be_given_a_certificate_was_never_there() {
    let world = World::found("prod").await;
    // The ring does not open what the log has: nothing can be issued.
    let strange = Home { unsealing: World::found("prod").await.home.unsealing.clone(), ..Home::clone(&world.home) };
    let broken = World::of(strange, world.log.clone(), Arc::clone(&world.clock), world.token.clone()).await;
    let problem = broken.joins("b", &world.token).await.unwrap_err();
    assert_eq!(problem.code, Code::Internal, "{problem}");
    world.joins("b", &world.token).await.unwrap();
}

/// Its join was broken off: the controller let it in, and it was killed before it wrote down that it is a node.
#[tokio::test]
async fn a_machine_that_never_came_joins_anew_under_its_name_from_where_it_was_let_in() {
    let world = World::found("prod").await;
    let first = world.joins("b", &world.token).await.unwrap();
    let standing = |node: NodeId| world.log.with(|state| state.nodes[&node].standing);
    // Somebody else of that name is another machine.
    let other = JoinRequest { token: world.token.clone(), address: "10.0.0.8:7946".to_owned(), ..request("b") };
    let before = world.log.said();
    assert!(asked(&world, other).await.message.contains("there is a node `b` already"));
    // Who has no invitation takes nobody's place.
    let (token, hash) = world.token(NodeRole::Worker, 1);
    world.log.does(Command::RemoveTicket { hash, wall: NOW });
    assert_eq!(world.joins("b", &token).await.unwrap_err().code, Code::Forbidden);
    assert_eq!((world.log.said().nodes, standing(first.node)), (before.nodes, Standing::Up));
    let second = world.joins("b", &world.token).await.unwrap();
    assert_eq!((standing(first.node), standing(second.node)), (Standing::Left, Standing::Up));
    world.follow();
    assert!(world.connected(&first).await.is_err(), "what the first was given is worth nothing");
    assert!(world.connected(&second).await.is_ok());
    // Given up meanwhile it is the same.
    world.log.does(Command::LoseNode { node: second.node, wall: NOW });
    let third = world.joins("b", &world.token).await.unwrap();
    assert_eq!((standing(second.node), standing(third.node)), (Standing::Left, Standing::Up));
}

#[test]
fn only_programs_of_a_neighbouring_version_join() {
    let ours = env!("CARGO_PKG_VERSION");
    assert!(check_program(ours).is_ok());
    for bad in ["", "x", "1", "9.9.9", "0.99.0", "-1.0.0", "0.1\u{7}.0"] {
        assert!(check_program(bad).is_err(), "{bad}");
    }
}

#[test]
fn clocks_may_be_minutes_apart() {
    let now = 1_795_000_000_000;
    let check = |theirs: u64, expected: Option<&str>| {
        assert_eq!(check_clock(theirs, now).err().map(|fault| fault.message).as_deref(), expected);
    };
    check(now, None);
    check(now - 300_000, None);
    check(now + 300_000, None);
    check(now - 360_000, Some("its clock is 6 minutes behind that of the constellation"));
    check(now + 7_200_000, Some("its clock is 2 hours ahead of that of the constellation"));
    check(0, Some("its clock is 20775 days behind that of the constellation"));
}

#[test]
fn an_address_is_a_host_and_a_port() {
    for good in ["10.0.0.1:7946", "[::1]:1", "a.example.com:65535"] {
        assert!(check_address(good).is_ok(), "{good}");
    }
    for bad in ["", ":7946", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:65536", "a:b", "a:"] {
        assert!(check_address(bad).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn tokens_are_made_shown_without_their_secret_and_taken_back_by_their_id() {
    use super::super::invitations::{certificates, tokens};
    let world = World::found("prod").await;
    let registrar = &world.desk.registrar;
    let invite = |uses, life_ms| api::Invite { role: NodeRole::Worker, uses, life_ms };
    let before = world.log.said();
    for (asked, says) in [
        (invite(1, 0), "no time"),
        (invite(1, HOUR + 1), "at most 60 minutes"),
        (invite(1, u64::MAX), "at most 60 minutes"),
        (invite(0, HOUR), "not 0"),
        (invite(u32::MAX, HOUR), "not 4294967295"),
    ] {
        let problem = registrar.invite(asked).await.map(|_| ()).unwrap_err();
        assert!(problem.code == Code::InvalidValue && problem.message.contains(says), "{problem}");
    }
    let invitation = registrar.invite(invite(2, HOUR / 2)).await.unwrap();
    assert_eq!(invitation.expires, WallTime(NOW.0 + HOUR / 2));
    world.joins("w", &invitation.token).await.unwrap();
    let shown = world.log.with(|state| tokens(state, NOW)).unwrap();
    assert_eq!(shown.iter().map(|token| (token.uses, token.uses_max)).collect::<Vec<_>>(), [(1, 2), (0, 16)]);
    let secret: Token = invitation.token.parse().unwrap();
    assert!(secret.hash().to_string().starts_with(&shown[0].id));
    for (id, says) in [
        ("", "eight digits"),
        (&shown[0].id[..7], "eight digits"),
        ("../../v1", "eight digits"),
        ("ffffffffffffffff", "no token"),
        (invitation.token.as_str(), "named by its id"),
    ] {
        let problem = registrar.uninvite(id).await.unwrap_err();
        assert!(problem.message.contains(says) && problem.help.is_some(), "{problem}");
        assert!(!problem.message.contains(&invitation.token), "{problem}");
    }
    let revoked = registrar.uninvite(&shown[0].id.to_uppercase()).await.unwrap();
    assert_eq!(revoked, shown[0]);
    assert!(world.joins("x", &invitation.token).await.is_err());
    let events: Vec<String> = world.log.with(|state| state.events.iter().map(|event| event.what.clone()).collect());
    assert!(events.contains(&format!("join token `{}` revoked", shown[0].id)), "{events:?}");
    assert!(events.iter().all(|what| !what.contains("rads1_")));
    let known = world.log.with(|state| certificates(state, NOW)).unwrap();
    assert_eq!(known.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["a", "w"]);
    assert_eq!(known.authorities[0].needed_by.len(), 2);
    assert_ne!(world.log.said(), before);
    let only = registrar.shut_out(world.home.node).await.unwrap_err();
    assert!(only.message.contains("only controller"), "{only}");
}

fn once(key: &str, request: u8) -> model::Once {
    model::Once { key: key.parse().unwrap(), request: ContentHash([request; 32]) }
}

#[tokio::test]
async fn a_token_that_is_asked_for_again_under_its_key_is_the_first_one_and_nowhere_in_clear() {
    use api::keyed::under;
    let world = World::found("prod").await;
    let asked = || world.desk.registrar.by(Author::agent(world.home.node));
    let invite = api::Invite { role: NodeRole::Worker, uses: 2, life_ms: HOUR / 2 };
    let count = || world.log.with(|state| security::of(state).unwrap().tickets.len());
    let before = count();
    let first = under(once("k", 1), asked().invite(invite)).await.unwrap();
    let again = under(once("k", 1), asked().invite(invite)).await.unwrap();
    assert_eq!((&again.token, again.expires, count()), (&first.token, first.expires, before + 1));
    // At another controller, which was let in since.
    let (token, _) = world.token(NodeRole::Controller, 1);
    let other = world.joins("c", &token).await.unwrap();
    let other = Registrar::new(world.log.clone(), Arc::new(other), Arc::clone(&world.clock) as Arc<dyn Clock>).unwrap();
    let there = under(once("k", 1), other.by(Author::agent(world.home.node)).invite(invite)).await.unwrap();
    assert_eq!(there.token, first.token);
    // Two ask at one moment: who comes second finds out when both are written.
    let state = world.log.look(security::members).await.unwrap();
    let written = |answer: &str| {
        let (registrar, state, answer) = (asked(), state.clone(), answer.to_owned());
        let command = Command::RemoveTicket { hash: state.security.as_ref().unwrap().tickets[0].hash, wall: NOW };
        async move { under(once("race", 1), registrar.held_once(command, answer, &state)).await }
    };
    assert_eq!((written("one").await, written("two").await), (Ok("one".to_owned()), Ok("one".to_owned())));
    // Nothing that is kept has the secret: not what it is, nor how it is written.
    let secret: Token = first.token.parse().unwrap();
    let digits = first.token.rsplit_once('_').unwrap().1.to_owned();
    let kept = format!("{:?} {}", world.log.said(), serde_json::to_string(&world.log.said().events).unwrap());
    assert!(kept.contains(&format!("{:?}", secret.hash())), "its hash is kept");
    assert!(!kept.contains("rads1_") && !kept.contains(&digits));
    let sealed = world.log.with(|state| state.keys.answer(&once("k", 1)).unwrap().to_vec());
    assert!(!sealed.windows(16).any(|part| digits.as_bytes().windows(16).any(|digits| digits == part)));
    // For somebody else, and for another request, it is none.
    let stranger = Author { who: state::Who::User(7), ..Author::agent(world.home.node) };
    let problem = under(once("k", 1), world.desk.registrar.by(stranger).invite(invite)).await.map(drop).unwrap_err();
    assert!(problem.code == Code::Conflict && problem.message.contains("who asked for it first"), "{problem}");
    let problem = under(once("k", 2), asked().invite(invite)).await.map(drop).unwrap_err();
    assert!(problem.code == Code::AlreadyExists && problem.message.contains("another request"), "{problem}");
    // The control: without a key each is another one.
    let (one, two) = (asked().invite(invite).await.unwrap(), asked().invite(invite).await.unwrap());
    assert!(one.token != two.token && one.token != first.token);
}

#[tokio::test]
async fn what_is_asked_of_who_is_believed_happens_once_under_its_key() {
    use super::super::invitations::tokens;
    use api::keyed::under;
    let world = World::found("prod").await;
    let asked = || world.desk.registrar.by(Author::agent(world.home.node));
    let (token, _) = world.token(NodeRole::Controller, 1);
    let other = world.joins("c", &token).await.unwrap();
    let id = world.log.with(|state| tokens(state, NOW)).unwrap()[0].id.clone();
    let taken = under(once("a", 1), asked().uninvite(&id)).await.unwrap();
    assert_eq!(under(once("a", 1), asked().uninvite(&id)).await, Ok(taken));
    // The control, here and below: another request finds that it is done.
    assert_eq!(asked().uninvite(&id).await.unwrap_err().code, Code::NotFound);

    let new = || api::NewGrant {
        name: "ann".parse().unwrap(),
        role: model::Role::Viewer,
        namespaces: model::Scope::All,
        life_ms: None,
        request: None,
    };
    let granted = under(once("b", 1), asked().grant(new())).await.unwrap();
    assert_eq!(under(once("b", 1), asked().grant(new())).await.unwrap().token, granted.token);
    assert_eq!(asked().grant(new()).await.map(drop).unwrap_err().code, Code::AlreadyExists);
    let ended = under(once("c", 1), asked().end_grant("ann".parse().unwrap())).await.unwrap();
    assert_eq!(under(once("c", 1), asked().end_grant("ann".parse().unwrap())).await, Ok(ended));
    assert_eq!(asked().end_grant("ann".parse().unwrap()).await.unwrap_err().code, Code::NotFound);
    // What it was first asked for stays what it was, though there is no such grant any more.
    assert_eq!(under(once("b", 1), asked().grant(new())).await.unwrap().token, granted.token);

    under(once("d", 1), asked().rotate(NOW)).await.unwrap();
    under(once("d", 1), asked().rotate(NOW)).await.unwrap();
    assert_eq!(asked().rotate(NOW).await.unwrap_err().code, Code::Conflict);
    assert_eq!(world.log.with(|state| security::of(state).unwrap().authorities.len()), 2);

    under(once("e", 1), asked().shut_out(other.node)).await.unwrap();
    under(once("e", 1), asked().shut_out(other.node)).await.unwrap();
    assert_eq!(asked().shut_out(other.node).await.unwrap_err().code, Code::Conflict);
}
