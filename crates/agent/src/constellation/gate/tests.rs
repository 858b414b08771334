//! The listener with real TLS on loopback, before an agent that remembers what it was asked.

use std::collections::BTreeMap;

use api::{Client, LogQuery, Road};
use model::{Code, ContentHash, Name, NodeRole, Problem, Role, Scope, StarId, WallTime};
use net::identity::request::CheckedRequest;
use net::identity::user::key_hash;
use net::identity::{AccessToken, NodeKey};
use net::tls::Belief;
use rustls::sign::CertifiedKey;
use state::{Grant, Proof, Security, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::super::testing::{House, Town, name, showing};
use super::*;
use crate::clock;
use crate::support::Remembering;

/// Longest wait for anything; a grant that ends is to end its connections within five seconds.
const SOON: Duration = Duration::from_secs(5);

struct Door {
    town: Town,
    _house: House,
    address: SocketAddr,
    access: Access,
    control: Arc<Remembering>,
    _leave: watch::Sender<bool>,
}

fn grant(proof: Proof, expires: Option<WallTime>) -> Grant {
    Grant { role: Role::Operator, namespaces: Scope::All, proof, created: WallTime(1), expires }
}

impl Door {
    async fn open(grants: BTreeMap<Name, Grant>) -> Self {
        Self::open_with(grants, BOUNDS).await
    }

    async fn open_with(grants: BTreeMap<Name, Grant>, bounds: Bounds) -> Self {
        let mut town = Town::new();
        let house = town.house(1, NodeRole::Controller).await;
        let security = Some(Security { grants: grants.clone(), ..Security::default() });
        let state = State { security, ..town.state() };
        let access = Access::new(showing(house.node, state));
        access.set(grants);
        let control = Arc::new(Remembering { listed: true, ..Remembering::default() });
        let routes = Routes::new(control.clone());
        let (leave, leaving) = watch::channel(false);
        let endpoint = house.endpoint().clone();
        let gate = Gate { access: access.clone(), routes, control: control.clone(), endpoint, leaving, bounds };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(gate.serve(listener));
        Self { town, _house: house, address, access, control, _leave: leave }
    }

    async fn connect(&self, own: Option<Arc<CertifiedKey>>) -> Result<Box<dyn api::Duplex>, Problem> {
        connect(self.address, Belief::Authority(self.town.authority().pin()), own).await
    }

    fn client(&self, token: Option<&str>, own: Option<Arc<CertifiedKey>>) -> Client {
        let (address, pin) = (self.address, self.town.authority().pin());
        let client = Client::of_context("door".to_owned(), token, move || {
            let own = own.clone();
            Box::pin(async move {
                let stream = connect(address, Belief::Authority(pin), own).await?;
                Ok(Road { node: "n1".to_owned(), stream })
            })
        });
        client.unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.control.asked.lock().unwrap().clone()
    }
}

async fn connect(
    address: SocketAddr,
    belief: Belief,
    own: Option<Arc<CertifiedKey>>,
) -> Result<Box<dyn api::Duplex>, Problem> {
    let connected = https::connect(address, belief, own, Arc::new(SystemClock)).await;
    let connected = connected.map_err(|error| Problem::new(Code::Unavailable, error.to_string()))?;
    Ok(Box::new(connected.stream))
}

fn with_token(token: &AccessToken, expires: Option<WallTime>) -> BTreeMap<Name, Grant> {
    [(name("ann"), grant(Proof::Token(token.hash()), expires))].into()
}

async fn raw(door: &Door, request: &str) -> String {
    let mut stream = door.connect(None).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().ok();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_token_lets_its_owner_in_and_nothing_else_does() {
    let token = AccessToken::generate();
    let door = Door::open(with_token(&token, None)).await;
    door.client(Some(&token.reveal()), None).stars().await.unwrap();
    assert_eq!(door.asked(), ["stars"]);
    // Never made, and no token at all: nothing tells the one from the other.
    let mut answers = Vec::new();
    for wrong in ["Bearer radk_00", &format!("Bearer {}", AccessToken::generate().reveal().as_str()), "Basic YTpi", ""]
    {
        let head = format!("GET /v1/stars HTTP/1.1\r\nhost: a\r\nauthorization: {wrong}\r\n\r\n");
        let answer = raw(&door, &head).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        let date = answer.lines().find(|line| line.starts_with("date: ")).unwrap().to_owned();
        answers.push(answer.replace(&date, ""));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let nothing = raw(&door, "GET /v1/stars HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(nothing.starts_with("HTTP/1.1 401 ") && nothing.contains("www-authenticate: Bearer"), "{nothing}");
    let asked = door.asked();
    assert!(asked[1..].iter().all(|asked| asked.starts_with("denied: see nodes: come in")), "{asked:?}");
}

#[tokio::test]
async fn too_many_wrong_tokens_shut_an_address_out_for_a_while() {
    let token = AccessToken::generate();
    let door = Door::open(with_token(&token, None)).await;
    let wrong = format!("Bearer {}", AccessToken::generate().reveal().as_str());
    let head = format!("GET /v1/stars HTTP/1.1\r\nhost: a\r\nauthorization: {wrong}\r\n\r\n");
    let mut refused = 0;
    while raw(&door, &head).await.starts_with("HTTP/1.1 401 ") {
        refused += 1;
        assert!(refused < 100, "never shut out");
    }
    assert!(refused >= 20, "{refused}");
    // Whoever is right has to wait too: else it would be a search all the same.
    let problem = door.client(Some(&token.reveal()), None).stars().await.unwrap_err();
    assert_eq!(problem.code, Code::Unavailable, "{problem}");
}

/// What goes on for ever ends with the grant: lines that are followed, a connection into a star, and one at rest.
async fn ends_with(door: &Door, token: &str, end: impl FnOnce()) {
    let client = door.client(Some(token), None);
    let mut lines = client.logs(&LogQuery { follow: true, ..LogQuery::default() }).await.unwrap();
    for _ in 0..3 {
        lines.next().await.unwrap().unwrap();
    }
    let mut inside = client.dial(StarId(1), 80).await.unwrap();
    inside.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    inside.read_exact(&mut answer).await.unwrap();
    let mut resting = door.connect(None).await.unwrap();
    let head = format!("GET /v1/stars HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n");
    resting.write_all(head.as_bytes()).await.unwrap();
    assert!(resting.read(&mut [0; 4096]).await.unwrap() > 0);
    end();
    let began = Instant::now();
    let over = async {
        // Cut short, however that shows.
        assert!(!matches!(lines.next().await, Some(Ok(_))));
        assert!(!matches!(inside.read(&mut answer).await, Ok(1..)));
        while let Ok(1..) = resting.read(&mut [0; 4096]).await {}
    };
    timeout(SOON, over).await.expect("everything ends within five seconds");
    assert!(began.elapsed() < SOON);
    assert_eq!(client.stars().await.unwrap_err().code, Code::Forbidden);
}

#[tokio::test]
async fn a_grant_that_is_revoked_ends_what_is_open() {
    let token = AccessToken::generate();
    let door = Door::open(BTreeMap::new()).await;
    door.access.set(with_token(&token, None));
    ends_with(&door, &token.reveal(), || door.access.set(BTreeMap::new())).await;
}

#[tokio::test]
async fn a_grant_of_the_same_name_with_another_token_does_not_keep_the_old_one_open() {
    let token = AccessToken::generate();
    let door = Door::open(BTreeMap::new()).await;
    door.access.set(with_token(&token, None));
    let other = with_token(&AccessToken::generate(), None);
    ends_with(&door, &token.reveal(), || door.access.set(other)).await;
}

#[tokio::test]
async fn a_grant_that_runs_out_ends_what_is_open() {
    let token = AccessToken::generate();
    let door = Door::open(BTreeMap::new()).await;
    door.access.set(with_token(&token, Some(WallTime(clock::wall().0 + 2_000))));
    ends_with(&door, &token.reveal(), || {}).await;
}

/// The control: a grant that stays leaves all of that open.
#[tokio::test]
async fn another_grant_that_is_revoked_ends_nothing() {
    let token = AccessToken::generate();
    let door = Door::open(BTreeMap::new()).await;
    let mut grants = with_token(&token, None);
    grants.insert(name("bob"), grant(Proof::Token(ContentHash([7; 32])), None));
    door.access.set(grants);
    let client = door.client(Some(&token.reveal()), None);
    let mut inside = client.dial(StarId(1), 80).await.unwrap();
    door.access.set(with_token(&token, None));
    for _ in 0..20 {
        inside.write_all(b"hello").await.unwrap();
        let mut answer = [0; 5];
        inside.read_exact(&mut answer).await.unwrap();
        client.stars().await.unwrap();
    }
}

#[tokio::test]
async fn a_certificate_is_good_for_its_own_grant_only() {
    let door = Door::open(BTreeMap::new()).await;
    let key = NodeKey::generate().unwrap();
    let request = CheckedRequest::read(&key.request().unwrap()).unwrap();
    let now = clock::wall();
    let issued = |called: &str| {
        let end = WallTime(now.0 + 60_000);
        let issued = door.town.authority().issue_user(&request, &name(called), end, now).unwrap();
        key.certified(issued.chain).unwrap()
    };
    let proof = Proof::Key(key_hash(&request));
    door.access.set([(name("ann"), grant(proof, None))].into());
    door.client(None, Some(issued("ann"))).stars().await.unwrap();
    // The right key under another name, and the right name without the grant.
    assert_eq!(door.client(None, Some(issued("bob"))).stars().await.unwrap_err().code, Code::Forbidden);
    door.access.set(BTreeMap::new());
    assert_eq!(door.client(None, Some(issued("ann"))).stars().await.unwrap_err().code, Code::Forbidden);
}

#[tokio::test]
async fn slow_and_long_heads_are_cut() {
    let bounds = Bounds { head_within: Duration::from_millis(300), ..BOUNDS };
    let token = AccessToken::generate();
    let door = Door::open_with(with_token(&token, None), bounds).await;
    // A head that never ends, a connection that says nothing, and one that has asked and rests.
    for (request, answered) in [
        ("GET /v1/stars HTTP/1.1\r\nhost: a\r\n".to_owned(), false),
        (String::new(), false),
        (
            format!("GET /v1/stars HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n", token.reveal().as_str()),
            true,
        ),
    ] {
        let answer = raw(&door, &request).await;
        assert_eq!(answer.starts_with("HTTP/1.1 200 "), answered, "{answer}");
    }
    let long = format!("GET /v1/stars HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(BOUNDS.head_max_bytes));
    let many = format!("GET /v1/stars HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(BOUNDS.fields_max + 1));
    for head in [long, many] {
        let answer = raw(&door, &head).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    // The control: what fits is read, if not let in.
    let fits = format!("GET /v1/stars HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(40));
    assert!(raw(&door, &fits).await.starts_with("HTTP/1.1 401 "));
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_no_more() {
    let door = Door::open(BTreeMap::new()).await;
    let mut held = Vec::new();
    for _ in 0..PER_ADDRESS_MAX {
        held.push(door.connect(None).await.unwrap());
    }
    assert!(door.connect(None).await.is_err());
    held.pop();
    // It is noticed when the connection has ended.
    let again = async { while door.connect(None).await.is_err() {} };
    timeout(SOON, again).await.expect("there is room again");
}
