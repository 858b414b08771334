//! What a star is answered by the API, before an agent that remembers what it was asked.

use api::{Client, Road};
use model::{Access, BundleId, ContentHash, Name, NodeId, Role, Scope, StarPhase, WallTime};
use node::{Node, NodeConfig};
use state::ServiceRecord;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::constellation::testing;
use crate::main_loop::Incoming;
use crate::support::Remembering;

const STAR: StarId = StarId(1);
/// Longest wait for anything.
const SOON: Duration = Duration::from_secs(30);

/// A star of service `shop/ctl`, its agent, and what that was asked.
struct World {
    state: Arc<Mutex<State>>,
    control: Arc<Remembering>,
    desk: Desk,
    pace: Arc<Mutex<Pace>>,
    moved: watch::Sender<Seen>,
    _leave: watch::Sender<bool>,
}

impl World {
    fn new(access: Option<Access>) -> Self {
        let mut state = State::default();
        let mut star = testing::star(STAR, NodeId(1), BundleId(ContentHash([0; 32])));
        let mut template = (*star.template).clone();
        template.access = access.clone();
        (star.service, star.phase, star.template) = ("shop/ctl".parse().unwrap(), StarPhase::Ready, template.into());
        state.stars.insert(star);
        let world = Self::of(state);
        world.give(access);
        world
    }

    fn of(state: State) -> Self {
        let state = Arc::new(Mutex::new(state));
        let (ask, mut asked) = mpsc::channel(16);
        let looked_at = Arc::clone(&state);
        tokio::spawn(async move {
            while let Some(incoming) = asked.recv().await {
                let config = NodeConfig {
                    node: NodeId(1),
                    seed: 1,
                    rootless: false,
                    memory: model::Bytes(0),
                    cores: 1,
                    cpus: None,
                };
                let node = Node::new(config, looked_at.lock().unwrap().clone());
                if let Incoming::Look(look) = incoming {
                    look(&node);
                }
            }
        });
        let control = Arc::new(Remembering { listed: true, ..Remembering::default() });
        let (moved, seen) = watch::channel(Seen::default());
        let (leave, leaving) = watch::channel(false);
        let clock = Clock::start();
        let pace = Arc::new(Mutex::new(Pace::new(clock.now())));
        let routes = Routes::new(control.clone());
        let desk = Desk { looker: Looker { ask }, control: control.clone(), routes, seen, clock, leaving };
        Self { state, control, desk, pace, moved, _leave: leave }
    }

    /// What the service says from now on.
    fn give(&self, access: Option<Access>) {
        let mut state = self.state.lock().unwrap();
        let mut template = (*state.stars[&STAR].template).clone();
        template.access = access;
        let (placement, update) = Default::default();
        let spec = model::ServiceSpec { template, instances: 1, entry: None, placement, update, job: None, hold: None };
        let record = ServiceRecord::new(&"shop/ctl".parse().unwrap(), &spec, 1, WallTime(0));
        state.services.insert("shop/ctl".parse().unwrap(), record);
        drop(state);
        self.moved.send_modify(|seen| seen.index += 1);
    }

    fn connect(&self) -> DuplexStream {
        let (here, there) = duplex(1 << 16);
        tokio::spawn(self.desk.clone().serve(STAR, Arc::clone(&self.pace), there));
        here
    }

    fn client(&self) -> Client {
        let (desk, pace) = (self.desk.clone(), Arc::clone(&self.pace));
        Client::of_node("here".to_owned(), move || {
            let (here, there) = duplex(1 << 16);
            tokio::spawn(desk.clone().serve(STAR, Arc::clone(&pace), there));
            Box::pin(async move { Ok(Road { node: "here".to_owned(), stream: Box::new(here) as Box<dyn Duplex> }) })
        })
    }

    fn asked(&self) -> Vec<String> {
        self.control.asked.lock().unwrap().clone()
    }
}

fn operator(namespaces: &[&str]) -> Option<Access> {
    let names: Vec<Name> = namespaces.iter().map(|name| name.parse().unwrap()).collect();
    let namespaces = (!names.is_empty()).then(|| Scope::Only(names.into_iter().collect()));
    Some(Access { role: Role::Operator, namespaces })
}

#[tokio::test]
async fn a_star_without_access_is_told_which_option_is_missing() {
    let world = World::new(None);
    let refused = world.client().services().await.unwrap_err();
    assert_eq!(refused.code, Code::Forbidden);
    assert_eq!(refused.message, "the stars of service `shop/ctl` may ask for nothing: it has no `access`");
    assert!(refused.help.unwrap().contains("`access: \"operator\"`"));
    let refused = world.client().scale(&"shop/web".parse().unwrap(), 3).await.unwrap_err();
    assert_eq!(refused.code, Code::Forbidden);
    let asked = world.asked();
    assert!(asked.iter().all(|what| what.starts_with("denied: ")), "{asked:?}");
    assert_eq!(asked.len(), 2);
}

#[tokio::test]
async fn a_star_with_access_is_answered_there_and_refused_elsewhere() {
    let world = World::new(operator(&[]));
    let client = world.client();
    client.scale(&"shop/web".parse().unwrap(), 3).await.unwrap();
    let asked = world.asked();
    assert!(asked.iter().any(|what| what.contains("scale")), "{asked:?}");
    let refused = client.scale(&"blog/web".parse().unwrap(), 3).await.unwrap_err();
    assert_eq!(refused.code, Code::Forbidden);
    let says = "service `shop/ctl` may not change apps and services: it has no rights in namespace `blog`";
    assert_eq!(refused.message, says);
    assert!(refused.help.unwrap().contains("the option `access` of service `shop/ctl`"));
    assert_eq!(world.asked().iter().filter(|what| what.contains("scale") && !what.starts_with("denied")).count(), 1);
    // What is for nobody's stars.
    let secret = client.secret(&"shop/key".parse().unwrap()).await.unwrap_err();
    assert!(secret.code == Code::Forbidden && secret.message.contains("no star may"), "{secret}");
    assert_eq!(client.namespaces().await.unwrap().len(), 1, "it sees another's");
}

#[tokio::test]
async fn a_right_that_is_taken_away_ends_what_it_had_opened() {
    let world = World::new(operator(&[]));
    let mut stream = world.connect();
    let ask = b"GET /v1/services HTTP/1.1\r\nhost: agent\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    let mut answer = [0; 12];
    timeout(SOON, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    // The control: a move of the log that takes nothing away.
    world.give(operator(&[]));
    let rest = timeout(Duration::from_millis(300), stream.read_to_end(&mut Vec::new())).await;
    assert!(rest.is_err(), "the connection ended: {rest:?}");
    world.give(None);
    timeout(SOON, stream.read_to_end(&mut Vec::new())).await.expect("the connection ends").ok();
    assert_eq!(world.client().services().await.unwrap_err().code, Code::Forbidden);
    world.give(operator(&[]));
    assert!(world.client().services().await.is_ok());
    world.state.lock().unwrap().services.clear();
    assert_eq!(world.client().services().await.unwrap_err().code, Code::Forbidden);
}

#[tokio::test]
async fn a_star_that_asks_too_often_is_held_off() {
    let world = World::new(operator(&[]));
    let client = world.client();
    let mut refused = None;
    for _ in 0..2_000 {
        if let Err(problem) = client.index(0, 0).await {
            refused = Some(problem);
            break;
        }
    }
    let refused = refused.expect("it may ask as often as it likes");
    assert!(refused.code == Code::Unavailable && refused.message.contains("too often"), "{refused}");
}
