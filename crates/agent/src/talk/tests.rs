//! Who is sent what, what is refused, and what comes over a connection.

use std::time::Duration;

use model::talk::{Ask, Asked, LINE_MAX_BYTES, MESSAGE_MAX_BYTES};
use model::{BundleId, ContentHash, NodeFacts, NodeRole, Standing, WallTime};
use node::NodeConfig;
use state::{NodeRecord, ServiceRecord, StarRecord};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::clock::Clock;
use crate::constellation::testing;
use crate::main_loop::Incoming;

const WEB_1: u64 = 1;
const WEB_2: u64 = 2;
const API_1: u64 = 3;
const OTHERS_1: u64 = 4;

/// Node 1 is asked. In namespace `default` run `web-1` here, `web-2` and `api-1` on node 2, in `team` another `web-1` here.
fn state() -> State {
    let mut state = State::default();
    for (id, name) in [(1, "a"), (2, "b")] {
        let record = NodeRecord {
            taints: Default::default(),
            overcommit: None,
            name: name.parse().unwrap(),
            role: NodeRole::Controller,
            address: "10.0.0.1:7946".to_owned(),
            facts: NodeFacts::default(),
            standing: Standing::Up,
            duty: model::Duty::Takes,
            admitted: WallTime(0),
            since: WallTime(0),
        };
        state.nodes.insert(NodeId(id), record);
    }
    for (id, service, ordinal, node) in
        [(WEB_1, "web", 1, 1), (WEB_2, "web", 2, 2), (API_1, "api", 1, 2), (OTHERS_1, "team/web", 1, 1)]
    {
        let mut star = testing::star(StarId(id), NodeId(node), BundleId(ContentHash([0; 32])));
        star.service = service.parse().unwrap();
        (star.ordinal, star.phase) = (ordinal, StarPhase::Ready);
        let spec = model::ServiceSpec {
            template: (*star.template).clone(),
            instances: 1,
            entry: None,
            placement: Default::default(),
            update: Default::default(),
            job: None,
            hold: None,
        };
        let service = ServiceRecord::new(&"shop".parse().unwrap(), &spec, 1, model::WallTime(0));
        state.services.insert(star.service.clone(), service);
        state.stars.insert(star);
    }
    state
}

fn node(state: State) -> Node {
    let config =
        NodeConfig { node: NodeId(1), seed: 1, rootless: false, memory: model::Bytes(0), cores: 1, cpus: None };
    Node::new(config, state)
}

/// As on a machine that is alone: everybody is told here.
fn talks() -> Talks {
    let (ask, mut asked) = mpsc::channel(16);
    let node = node(state());
    tokio::spawn(async move {
        while let Some(incoming) = asked.recv().await {
            if let Incoming::Look(look) = incoming {
                look(&node);
            }
        }
    });
    Talks::new(NodeId(1), Looker { ask }, None)
}

fn star(id: u64) -> Who {
    let record = &state().stars[&StarId(id)];
    Who::Star { star: StarId(id), service: record.service.clone(), name: record.name() }
}

fn user() -> Who {
    Who::User { namespace: Name::default_namespace() }
}

#[test]
fn messages_are_for_stars_of_the_senders_namespace_and_never_for_the_sender() {
    let node = node(state());
    let check = |who: &Who, to: Option<&str>, expected: &[u64]| {
        let meant = addressees(&node, who, to).map(|meant| meant.into_values().flatten().map(|star| star.0).collect());
        assert_eq!(meant, Ok(expected.to_vec()), "{who:?} {to:?}");
    };
    check(&star(WEB_1), None, &[WEB_2, API_1]);
    check(&star(WEB_1), Some("web"), &[WEB_2]);
    check(&star(WEB_1), Some("web-1"), &[]);
    check(&star(WEB_1), Some("api-1"), &[API_1]);
    check(&star(API_1), Some("a"), &[WEB_1]);
    check(&star(API_1), Some("b"), &[WEB_2]);
    check(&user(), None, &[WEB_1, WEB_2, API_1]);
    check(&star(OTHERS_1), None, &[]);
    check(&star(OTHERS_1), Some("web"), &[]);
    check(&star(OTHERS_1), Some("b"), &[]);
    let nobody = addressees(&node, &star(OTHERS_1), Some("api")).unwrap_err();
    assert_eq!(nobody.code, Code::NotFound);
    // The same name is known where it is one.
    assert!(addressees(&node, &star(WEB_1), Some("api")).is_ok());
    assert_eq!(addressees(&node, &user(), Some("nowhere")).unwrap_err().code, Code::NotFound);
}

#[test]
fn stars_that_do_not_run_are_sent_nothing() {
    let mut state = state();
    for (id, phase) in [(WEB_2, StarPhase::Ended), (API_1, StarPhase::Assigned)] {
        state.stars.change(StarId(id), |star| star.phase = phase).unwrap();
    }
    assert_eq!(addressees(&node(state), &star(WEB_1), None), Ok(BTreeMap::new()));
}

fn letter(sender: Option<u64>, namespace: &str, stars: &[u64]) -> Letter {
    Letter {
        namespace: namespace.parse().unwrap(),
        sender: sender.map(StarId),
        from: From { star: None, service: None, node: None },
        stars: stars.iter().copied().map(StarId).collect(),
        message: "7".to_owned(),
    }
}

#[test]
fn a_node_speaks_for_its_own_stars_in_their_namespace() {
    let state = state();
    let check = |by: u64, sender: Option<u64>, namespace: &str, stars: &[u64], expected: Option<&[u64]>| {
        let checked = check(&state, NodeId(by), letter(sender, namespace, stars)).ok();
        let stars: Option<Vec<u64>> = checked.map(|letter| letter.stars.iter().map(|star| star.0).collect());
        assert_eq!(stars.as_deref(), expected, "{by} {sender:?} {namespace} {stars:?}");
    };
    check(2, Some(WEB_2), "default", &[WEB_1], Some(&[WEB_1]));
    // Of another node, of another namespace, of nobody.
    check(2, Some(WEB_1), "default", &[WEB_1], None);
    check(2, Some(WEB_2), "team", &[OTHERS_1], None);
    check(2, Some(99), "default", &[WEB_1], None);
    // Stars of another namespace get nothing, whoever names them.
    check(2, Some(WEB_2), "default", &[WEB_1, OTHERS_1, 99], Some(&[WEB_1]));
    check(2, None, "team", &[OTHERS_1, WEB_1], Some(&[OTHERS_1]));
}

#[test]
fn a_worker_speaks_for_programs_outside_of_stars_only_where_it_runs_some() {
    let mut state = state();
    let check = |state: &State, by: u64, namespace: &str, expected: bool| {
        let told = check(state, NodeId(by), letter(None, namespace, &[WEB_1, OTHERS_1]));
        let refused = told.as_ref().is_err_and(|problem| problem.code == Code::Forbidden);
        assert_eq!((told.is_ok(), refused), (expected, !expected), "{by} {namespace} {told:?}");
    };
    // The control: a controller may anyway.
    check(&state, 2, "team", true);
    state.nodes.get_mut(&NodeId(2)).unwrap().role = NodeRole::Worker;
    check(&state, 2, "default", true);
    check(&state, 2, "team", false);
    check(&state, 2, "nowhere", false);
    check(&state, 99, "default", false);
    // What ran there once is of no use.
    for star in [WEB_2, API_1] {
        state.stars.change(StarId(star), |star| star.phase = StarPhase::Ended).unwrap();
    }
    check(&state, 2, "default", false);
    // It says so itself, to whoever asks it.
    state.nodes.get_mut(&NodeId(1)).unwrap().role = NodeRole::Worker;
    let elsewhere = StarRecord { node: NodeId(2), ..state.stars.remove(StarId(OTHERS_1)).unwrap() };
    state.stars.insert(elsewhere);
    let node = node(state);
    let outside = |namespace: &str| addressees(&node, &Who::User { namespace: namespace.parse().unwrap() }, None);
    assert_eq!(outside("team").unwrap_err().code, Code::Forbidden);
    assert!(outside("default").is_ok());
    assert!(addressees(&node, &star(OTHERS_1), None).is_ok());
}

#[tokio::test]
async fn who_does_not_listen_or_not_take_gets_nothing_and_nobody_waits() {
    let talks = talks();
    let all = letter(None, "default", &[WEB_1, WEB_2]);
    assert_eq!(talks.deliver(&all), 0);
    let (ear, mut heard) = Ear::new();
    talks.listen(&star(WEB_1), &ear);
    talks.listen(&star(WEB_1), &ear);
    assert_eq!(talks.deliver(&all), 1);
    let told = (0..2 * WAITING_MAX).filter(|_| talks.deliver(&all) == 1).count();
    assert_eq!(told, WAITING_MAX - 1, "the rest was dropped");
    let mut taken = 0;
    while let Ok(said) = heard.try_recv() {
        ear.taken(&said);
        taken += 1;
    }
    assert_eq!(taken, WAITING_MAX);
    // Long ones are bounded by what they weigh.
    let long = Letter { message: format!("\"{}\"", "x".repeat(MESSAGE_MAX_BYTES - 2)), ..all.clone() };
    let told = (0..WAITING_MAX).filter(|_| talks.deliver(&long) == 1).count();
    assert_eq!(told, WAITING_MAX_BYTES / (MESSAGE_MAX_BYTES + 100));
    talks.hang_up(&star(WEB_1), &ear);
    assert_eq!(talks.deliver(&all), 0);
    assert!(talks.ears().stars.is_empty());
}

struct Program {
    to: tokio::io::WriteHalf<DuplexStream>,
    from: BufReader<tokio::io::ReadHalf<DuplexStream>>,
}

impl Program {
    fn of(talks: &Talks, who: Who) -> Self {
        let (here, there) = tokio::io::duplex(1 << 20);
        let clock = Clock::start();
        let pace = Arc::new(Mutex::new(Pace::new(clock.now())));
        let (leave, leaving) = watch::channel(false);
        let talks = talks.clone();
        tokio::spawn(async move {
            serve(talks, who, pace, clock, None, there, leaving).await;
            drop(leave);
        });
        let (from, to) = tokio::io::split(here);
        Self { to, from: BufReader::new(from) }
    }

    async fn line(&mut self) -> Option<Said> {
        let mut line = String::new();
        let read = timeout(Duration::from_secs(60), self.from.read_line(&mut line)).await.expect("a line or the end");
        // A connection that is cut ends, however.
        (read.unwrap_or(0) > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    async fn ask(&mut self, ask: Ask) -> Result<String, Problem> {
        let line = serde_json::to_string(&Asked { id: 5, ask }).unwrap() + "\n";
        self.to.write_all(line.as_bytes()).await.unwrap();
        match self.line().await {
            Some(Said::Answer { id: 5, result }) => result,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn programs_ask_and_are_told() {
    let talks = talks();
    let (mut one, mut two) = (Program::of(&talks, star(API_1)), Program::of(&talks, star(WEB_1)));
    let mut other = Program::of(&talks, star(OTHERS_1));
    for program in [&mut one, &mut two, &mut other] {
        assert_eq!(program.ask(Ask::Hear).await, Ok("null".to_owned()));
    }
    let message = || "{\"n\":1}".to_owned();
    // Both `web` of the namespace are meant; `web-2` does not listen.
    assert_eq!(one.ask(Ask::Send { to: "web".to_owned(), message: message() }).await, Ok("1".to_owned()));
    let Some(Said::Event { event, data }) = two.line().await else { panic!("no message") };
    assert_eq!(event, "message");
    let data: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(
        data,
        json!({"event": "message", "from": {"star": "api-1", "service": "api", "node": "a"}, "message": {"n": 1}})
    );
    // What the other namespace hears first is its own.
    assert_eq!(other.ask(Ask::Broadcast { message: message() }).await, Ok("0".to_owned()));
    talks.announce("node_lost", &json!({"event": "node_lost", "node": "b"}));
    for program in [&mut one, &mut two, &mut other] {
        let said = program.line().await;
        assert!(matches!(&said, Some(Said::Event { event, .. }) if event == "node_lost"), "{said:?}");
    }
    let nodes: Value = serde_json::from_str(&one.ask(Ask::Nodes).await.unwrap()).unwrap();
    assert_eq!(
        (&nodes[0]["name"], &nodes[1]["state"], &nodes[0]["address"]),
        (&json!("a"), &json!("unknown"), &Value::Null)
    );
    let mut user = Program::of(&talks, user());
    let nodes: Value = serde_json::from_str(&user.ask(Ask::Nodes).await.unwrap()).unwrap();
    assert_eq!(nodes[0]["address"], "10.0.0.1:7946");
    assert_eq!(one.ask(Ask::Init { options: "{}".to_owned() }).await.unwrap_err().code, Code::Forbidden);
}

#[tokio::test]
async fn what_is_no_line_or_too_much_is_refused_and_hurts_nobody_else() {
    let talks = talks();
    let mut steady = Program::of(&talks, star(WEB_1));
    let mut hostile = Program::of(&talks, star(API_1));
    let long = Ask::Broadcast { message: format!("\"{}\"", "x".repeat(MESSAGE_MAX_BYTES)) };
    assert_eq!(hostile.ask(long).await.unwrap_err().code, Code::InvalidValue);
    let unsound = Ask::Broadcast { message: "{".to_owned() };
    assert_eq!(hostile.ask(unsound).await.unwrap_err().code, Code::InvalidValue);
    let deep = Ask::Broadcast { message: "[".repeat(1_000) + &"]".repeat(1_000) };
    assert_eq!(hostile.ask(deep).await.unwrap_err().code, Code::InvalidValue);
    let mut refused = None;
    for _ in 0..2_000 {
        if let Err(problem) = hostile.ask(Ask::Leader).await {
            refused = Some(problem.code);
            break;
        }
    }
    assert_eq!(refused, Some(Code::Unavailable), "it may ask as often as it likes");
    hostile.to.write_all(b"hello\n").await.unwrap();
    assert!(matches!(hostile.line().await, Some(Said::Answer { id: 0, result: Err(_) })));
    assert_eq!(hostile.line().await, None);
    // A line without an end is read no further than a line may be long.
    let mut endless = Program::of(&talks, star(API_1));
    let written = endless.to.write_all(&vec![b'x'; LINE_MAX_BYTES + 2]).await;
    drop(written);
    assert_eq!(endless.line().await, None);
    assert!(steady.ask(Ask::Leader).await.is_ok());
}
