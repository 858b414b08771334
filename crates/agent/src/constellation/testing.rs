//! Nodes for tests: real connections on loopback, a loop that only shows its state, and what a test has them serve.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes as Buffer;
use model::{
    BundleId, Bytes, Duty, Limits as LimitsOf, Name, Network, NodeFacts, NodeId, NodeIdentity, NodeRole, Probe,
    ProbeKind, Program, RestartPolicy, Standing, StarId, StarPhase, StarTemplate, WallTime,
};
use net::connection::Answer;
use net::identity::request::CheckedRequest;
use net::identity::{Authority, Lifetime, NodeKey, Revoked, Trust};
use net::tls::SystemClock;
use net::{Endpoint, Limits, Peer, Service, Stream, Threads, Timing};
use node::{Node, NodeConfig};
use rnp::{ErrorCode, Fault, Message};
use state::{NodeRecord, StarRecord, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::roads::Roads;
use crate::clock;
use crate::control::Looker;
use crate::main_loop::Incoming;

/// The authority of a few nodes.
pub(super) struct Town {
    authority: Authority,
    addresses: BTreeMap<NodeId, (NodeRole, SocketAddr)>,
}

/// A node before its test gives it something to serve.
pub(super) struct House {
    pub(super) node: NodeId,
    endpoint: Endpoint,
    serves: Arc<Serves>,
    serving: tokio::task::JoinHandle<()>,
}

type Take = Box<dyn Fn(&Arc<Peer>, &str, Buffer, Stream) -> Result<(), Fault> + Send + Sync>;

type Answers = Box<dyn Fn(Message) -> Answer + Send + Sync>;

#[derive(Default)]
struct Serves {
    take: OnceLock<Take>,
    answers: OnceLock<Answers>,
}

impl Service for Serves {
    fn answer(&self, _: &Arc<Peer>, message: Message) -> Answer {
        match self.answers.get() {
            Some(answers) => answers(message),
            None => Box::pin(std::future::ready(Err(Fault::new(ErrorCode::NotFound, "nothing is answered")))),
        }
    }

    fn stream(&self, peer: &Arc<Peer>, service: &str, body: Buffer, stream: Stream) -> Result<(), Fault> {
        let take = self.take.get().ok_or_else(|| Fault::new(ErrorCode::NotFound, "nothing is served"))?;
        take(peer, service, body, stream)
    }
}

impl Town {
    pub(super) fn new() -> Self {
        let authority = Authority::create(&name("town"), clock::wall()).unwrap();
        Self { authority, addresses: BTreeMap::new() }
    }

    pub(super) async fn house(&mut self, node: u64, role: NodeRole) -> House {
        let node = NodeId(node);
        let key = NodeKey::generate().unwrap();
        let request = CheckedRequest::read(&key.request().unwrap()).unwrap();
        let identity = NodeIdentity { cluster: name("town"), role, node };
        let issued = self.authority.issue(&request, &identity, Lifetime::DEFAULT, clock::wall()).unwrap();
        let trust = vec![self.authority.certificate().clone()];
        let serves = Arc::new(Serves::default());
        let endpoint = Endpoint::new(net::Config {
            node,
            certificate: key.certified(issued.chain).unwrap(),
            trust: Trust::new(name("town"), trust, Revoked::default()).unwrap(),
            service: Arc::clone(&serves) as Arc<dyn Service>,
            clock: Arc::new(SystemClock),
            timing: Timing::DEFAULT,
            limits: Limits::default(),
            threads: Threads::here(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.addresses.insert(node, (role, listener.local_addr().unwrap()));
        let accepting = endpoint.clone();
        let serving = tokio::spawn(async move { accepting.serve(&listener).await.unwrap() });
        House { node, endpoint, serves, serving }
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Whoever goes to a node from here on, goes by this wire.
    pub(super) async fn by_wire(&mut self, node: NodeId) -> Wire {
        let (_, address) = self.addresses.get_mut(&node).unwrap();
        let wire = Wire::to(*address).await;
        *address = wire.address;
        wire
    }

    /// A state that knows every node.
    pub(super) fn state(&self) -> State {
        let record = |(node, (role, address)): (&NodeId, &(NodeRole, SocketAddr))| {
            let record = NodeRecord {
                taints: Default::default(),
                overcommit: None,
                name: name(&format!("n{}", node.0)),
                role: *role,
                address: address.to_string(),
                facts: NodeFacts::default(),
                standing: Standing::Up,
                duty: Duty::Takes,
                admitted: WallTime(0),
                since: WallTime(0),
            };
            (*node, record)
        };
        State { cluster: Some(name("town")), nodes: self.addresses.iter().map(record).collect(), ..State::default() }
    }

    /// The roads of a node to all others, as far as they are built.
    pub(super) fn roads(&self, house: &House) -> Roads {
        let book = self.addresses.iter().map(|(node, (_, address))| (*node, address.to_string())).collect();
        Roads::with_book(house.node, house.endpoint.clone(), book)
    }
}

/// Carries connections to an address, or holds what is on them: nobody is told that nothing gets through.
pub(super) struct Wire {
    address: SocketAddr,
    flows: watch::Sender<bool>,
    /// How many connections were begun.
    begun: watch::Receiver<usize>,
}

impl Wire {
    async fn to(address: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (begins, begun) = watch::channel(0);
        let wire = Self { address: listener.local_addr().unwrap(), flows: watch::Sender::new(true), begun };
        let flows = wire.flows.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = TcpStream::connect(address).await.unwrap().into_split();
                tokio::spawn(carry(near_in, far_out, flows.clone()));
                tokio::spawn(carry(far_in, near_out, flows.clone()));
                begins.send_modify(|begun| *begun += 1);
            }
        });
        wire
    }

    pub(super) fn hold(&self) {
        self.flows.send_replace(false);
    }

    pub(super) fn let_go(&self) {
        self.flows.send_replace(true);
    }

    /// Waits until somebody begins a connection.
    pub(super) async fn begun(&self) {
        self.begun.clone().wait_for(|begun| *begun > 0).await.unwrap();
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut flows: watch::Receiver<bool>) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        // The wire is dropped at the end of its test.
        if flows.wait_for(|flows| *flows).await.is_err() || to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

impl House {
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn serve(
        &self,
        take: impl Fn(&Arc<Peer>, &str, Buffer, Stream) -> Result<(), Fault> + Send + Sync + 'static,
    ) {
        assert!(self.serves.take.set(Box::new(take)).is_ok(), "set once");
    }

    pub(super) fn answer(&self, answers: impl Fn(Message) -> Answer + Send + Sync + 'static) {
        assert!(self.serves.answers.set(Box::new(answers)).is_ok(), "set once");
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A loop that shows a state and does nothing else.
pub(super) fn showing(node: NodeId, state: State) -> Looker {
    let (ask, mut asked) = mpsc::channel(16);
    let config = NodeConfig { node, seed: 1, rootless: false, memory: Bytes::mib(1_024), cores: 1, cpus: None };
    let node = Node::new(config, state);
    tokio::spawn(async move {
        while let Some(incoming) = asked.recv().await {
            if let Incoming::Look(look) = incoming {
                look(&node);
            }
        }
    });
    Looker { ask }
}

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A star of a node, made from a bundle.
pub(crate) fn star(id: StarId, node: NodeId, bundle: BundleId) -> StarRecord {
    let template = StarTemplate {
        program: Program::Script("x.rads".to_owned()),
        args: Vec::new(),
        bundle,
        rootfs: None,
        env: BTreeMap::new(),
        limits: LimitsOf::DEFAULT,
        volumes: Vec::new(),
        network: Network::None,
        port: Some(80),
        probe: Probe::new(ProbeKind::Tcp),
        restart: RestartPolicy::Always,
        grace_ms: 1_000,
        stop_signal: None,
        deadline_ms: None,
        hooks: Default::default(),
        health: Default::default(),
        interior: Default::default(),
        weakened: Default::default(),
        access: None,
        reserve: Default::default(),
        checkpoint: false,
        singleton: false,
    };
    StarRecord {
        id,
        app: "web".parse().unwrap(),
        service: "web".parse().unwrap(),
        revision: 1,
        ordinal: 1,
        node,
        generation: 1,
        template: template.into(),
        port: Some(80),
        phase: StarPhase::Assigned,
        process: None,
        exit: None,
        assigned: WallTime(0),
        started: None,
        ended: None,
        leaving: false,
        moves: false,
        place: None,
        history: Vec::new(),
    }
}
