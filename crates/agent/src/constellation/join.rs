//! How a machine becomes a node: it shows a token to a controller, and is given all it needs to be one.
//!
//! The token says which authority to expect, so that the secret in it is shown to that constellation only. Its new certificate is
//! tried on before anything is kept.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use model::{Code, Name, NodeRole, Problem};
use net::connection::{Ended, Failure};
use net::identity::trust::{Distrust, Expected};
use net::identity::{Certificate, NodeKey, Revoked, Token, Trust};
use net::tls::{Belief, Clock};
use net::{ConnectError, Connection, Timing, connect_as_stranger};
use rnp::message::{JoinAccepted, JoinRequest};
use rnp::{ErrorCode, Fault, Message};
use rustls::pki_types::CertificateDer;
use serde_bytes::ByteBuf;

use super::discovery;
use super::home::{Described, Home, Seed};
use super::registrar::long;
use super::security;

/// Longest wait for an answer: the controller has the machine's admission written, then its certificate.
const WITHIN: Duration = Duration::from_secs(25);

/// What a machine says of itself to become a node.
pub(crate) struct Machine {
    pub(crate) name: Name,
    pub(crate) listen: SocketAddr,
    /// Where others reach it, `host:port`.
    pub(crate) advertise: String,
    pub(crate) described: Described,
    /// Where it listens for users.
    pub(crate) api: Option<SocketAddr>,
    /// Whether it answers machines that look for its constellation.
    pub(crate) discoverable: bool,
}

/// Joins by a token at a controller's address, `host:port`; without one, at one of those that say on this network where they are.
///
/// # Errors
/// Tells what to do about it. Marked `after_changes` when the machine may have been admitted without hearing so.
pub(crate) async fn join(
    address: Option<&str>,
    token: &str,
    machine: Machine,
    clock: Arc<dyn Clock>,
) -> Result<Home, Problem> {
    let token: Token = token.parse().map_err(|error: net::identity::token::InvalidToken| {
        Problem::new(Code::InvalidValue, error.to_string())
            .help("copy it as a whole, as `rads c token create` printed it on a controller")
    })?;
    let key = NodeKey::generate().map_err(internal)?;
    let csr = key.request().map_err(internal)?;
    let (address, connection) = match address {
        Some(address) => (address.to_owned(), reach(address, &token, &clock).await?),
        None => discover(&token, &machine, &clock).await?,
    };
    let address = address.as_str();
    let request = JoinRequest {
        token: token.reveal().to_string(),
        csr: csr.into(),
        name: machine.name.to_string(),
        address: machine.advertise.clone(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        time: Some(clock.now().0),
    };
    let answer = connection.request(request, WITHIN).await;
    connection.goodbye("joined").await;
    match answer {
        Ok(Message::JoinAccepted(accepted)) => {
            home(&token, &key, machine, accepted, &*clock).map_err(Problem::after_changes)
        }
        Ok(other) => {
            let message = format!("`{address}` answers `{}` to a machine that joins", other.kind().name());
            Err(Problem::new(Code::Unsupported, message).help("its version may be another one: `rads --version` there"))
        }
        Err(failure) => Err(not_admitted(address, &machine, failure)),
    }
}

/// A connection to a node of this network that the token is of. Whoever else says so is found out by it, and costs time only.
async fn discover(token: &Token, machine: &Machine, clock: &Arc<dyn Clock>) -> Result<(String, Connection), Problem> {
    let own = discovery::own_interface(&machine.advertise, machine.listen);
    let found = discovery::find(token.cluster(), own).await?;
    let mut tried: FuturesUnordered<_> = found
        .into_iter()
        .map(|address| async move {
            // What is no address is none, and leads to no name server.
            let address: SocketAddr = address.parse().map_err(|_| leads_nowhere(&address))?;
            let address = address.to_string();
            reach(&address, token, clock).await.map(|connection| (address, connection))
        })
        .collect();
    let mut last = leads_nowhere("");
    while let Some(tried) = tried.next().await {
        match tried {
            Ok(found) => return Ok(found),
            Err(problem) => last = problem,
        }
    }
    Err(last)
}

fn leads_nowhere(address: &str) -> Problem {
    Problem::new(Code::InvalidValue, format!("`{}` leads nowhere", address.escape_debug()))
}

/// A connection to who the token is of.
async fn reach(address: &str, token: &Token, clock: &Arc<dyn Clock>) -> Result<Connection, Problem> {
    let mut last = None;
    for socket in resolve(address).await? {
        let belief = Belief::Pin { cluster: token.cluster().clone(), pin: token.pin() };
        let connected = connect_as_stranger(socket, token.cluster(), belief, Arc::clone(clock), Timing::DEFAULT);
        match connected.await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| leads_nowhere(address), |error| unreached(address, token, &error, &**clock)))
}

async fn resolve(address: &str) -> Result<Vec<SocketAddr>, Problem> {
    let unknown = |why: String| {
        Problem::new(Code::InvalidValue, format!("`{}` is no address of a node: {why}", address.escape_debug()))
            .help("it is the one that a controller was given, as 10.0.0.1:7946; `rads c nodes` there shows it")
    };
    let found = tokio::net::lookup_host(address).await.map_err(|error| unknown(error.to_string()))?;
    Ok(found.collect())
}

fn unreached(address: &str, token: &Token, error: &ConnectError, clock: &dyn Clock) -> Problem {
    let cluster = token.cluster();
    let problem = |code, message: String, help: String| Problem::new(code, message).help(help);
    match error {
        ConnectError::Unreachable { reason, .. } => problem(
            Code::Unavailable,
            format!("`{address}` does not answer: {reason}"),
            format!("is it the address of a controller of `{cluster}`, and does its agent run? `rads c status` there tells"),
        ),
        ConnectError::Timeout { .. } => problem(
            Code::Timeout,
            format!("`{address}` does not answer in time"),
            "a firewall may be between: TCP and UDP of this port are needed both ways".to_owned(),
        ),
        ConnectError::Distrust { reason, .. } => match reason {
            Distrust::NotYetValid(from) => problem(
                Code::Conflict,
                format!("by the clock of this machine, `{address}` will exist in {} only", long(from.since(clock.now()))),
                "set this machine's clock, as with `timedatectl set-ntp true`, then join again".to_owned(),
            ),
            Distrust::Expired(end) => problem(
                Code::Conflict,
                format!("by the clock of this machine, the certificate of `{address}` ran out {} ago", long(clock.now().since(*end))),
                "set this machine's clock, as with `timedatectl set-ntp true`; if it is right, see `rads c certs` there".to_owned(),
            ),
            Distrust::OtherRole(NodeRole::Worker) => problem(
                Code::Usage,
                format!("`{address}` is a worker: a controller lets machines in"),
                "`rads c nodes` there shows which are".to_owned(),
            ),
            Distrust::OtherAuthority | Distrust::OtherCluster(_) | Distrust::UnknownAuthority => problem(
                Code::Forbidden,
                format!("`{address}` is not of the constellation `{cluster}` that the token is for, or its authority was changed since"),
                "nothing was shown to it; make another token there with `rads c token create`, or use the address of a controller \
                 of the one that made this one"
                    .to_owned(),
            ),
            other => Problem::new(Code::Forbidden, format!("`{address}` is not believed: {other}")),
        },
        ConnectError::Hello { reason: Ended::Told(fault), .. } if fault.code == ErrorCode::VersionMismatch => problem(
            Code::Unsupported,
            format!("`{address}` speaks another version: {}", fault.message),
            "install the same version of rads on both".to_owned(),
        ),
        ConnectError::Hello { reason: Ended::Told(fault), .. } if fault.code == ErrorCode::ResourceExhausted => problem(
            Code::Unavailable,
            format!("`{address}` has no place for another machine just now"),
            "try it again in a minute".to_owned(),
        ),
        other => Problem::new(Code::Unavailable, other.to_string())
            .help(format!("is it the address of a controller of `{cluster}`?")),
    }
}

/// What a controller answered that does not let the machine in.
fn not_admitted(address: &str, machine: &Machine, failure: Failure) -> Problem {
    let name = &machine.name;
    let fault = match failure {
        Failure::Refused(fault) => fault,
        Failure::NotSent(reason) => {
            return Problem::new(Code::Unavailable, format!("`{address}` could not be asked: {reason}"))
                .help("try it again");
        }
        silent => {
            let message = format!("`{address}` fell silent, so this machine may have been let in or not: {silent}");
            let help = format!(
                "if `rads c nodes` shows `{name}` there, take it out with `rads c remove {name}`, then join again"
            );
            return Problem::new(Code::Timeout, message).help(help).after_changes();
        }
    };
    let Fault { code, message, .. } = fault;
    let told = format!("`{address}` does not let this machine in: {message}");
    match code {
        ErrorCode::AuthFailed => Problem::new(Code::Forbidden, told).help(
            "it may have run out, been used up or been taken back (the controller's `agent.log` says which): `rads c token create` there makes another",
        ),
        ErrorCode::AlreadyExists => Problem::new(Code::AlreadyExists, told).help(format!(
            "join under another name with `--name`, or take the old one out: `rads c remove {name}`"
        )),
        ErrorCode::VersionMismatch => {
            Problem::new(Code::Unsupported, told).help("install the same version of rads on both")
        }
        ErrorCode::Conflict => Problem::new(Code::Conflict, told)
            .help("set this machine's clock, as with `timedatectl set-ntp true`, then join again"),
        ErrorCode::ResourceExhausted | ErrorCode::NotLeader | ErrorCode::Timeout => {
            Problem::new(Code::Unavailable, told).help("the constellation has no leader just now: try again in a moment")
        }
        ErrorCode::Protocol => Problem::new(Code::InvalidValue, told),
        ErrorCode::Unauthorized => Problem::new(Code::Forbidden, told),
        ErrorCode::QuotaExceeded => Problem::new(Code::NoCapacity, told),
        _ => Problem::new(Code::Internal, told).help("its `agent.log` says more"),
    }
}

/// What the machine keeps, once it is sure that others will believe it.
fn home(
    token: &Token,
    key: &NodeKey,
    machine: Machine,
    accepted: JoinAccepted,
    clock: &dyn Clock,
) -> Result<Home, Problem> {
    let wrong = |what: String| {
        Problem::new(Code::Unsupported, format!("the controller's answer is of no use: {what}"))
            .help("its version may be another one: `rads --version` there")
    };
    let JoinAccepted { node, cluster, role, certificates, authorities, keys, peers, unsealing } = accepted;
    let cluster: Name = cluster.parse().map_err(|error: model::name::InvalidName| wrong(error.to_string()))?;
    let role: NodeRole = role.parse().map_err(|error: model::identity::InvalidRole| wrong(error.to_string()))?;
    if cluster != *token.cluster() {
        return Err(wrong(format!("it is of constellation `{cluster}`")));
    }
    let chain = der(&certificates);
    let trust = Trust::new(cluster.clone(), der(&authorities), Revoked::default());
    let trust = trust.map_err(|error| wrong(error.to_string()))?;
    let expected = Expected { node: Some(node), role: Some(role) };
    trust.judge(&chain, expected, clock.now()).map_err(|distrust| match distrust {
        Distrust::NotYetValid(_) | Distrust::Expired(_) => {
            Problem::new(Code::Conflict, "by the clock of this machine, its new certificate is not good now").help(
                format!(
                    "set this machine's clock, take `{}` out with `rads c remove {}` there, then join again",
                    machine.name, machine.name
                ),
            )
        }
        other => wrong(other.to_string()),
    })?;
    key.certified(chain).map_err(|error| wrong(error.to_string()))?;
    let unsealing = match (role, unsealing) {
        (NodeRole::Controller, Some(ring)) => ring_of(&ring).map_err(|problem| wrong(problem.message))?,
        (NodeRole::Controller, None) => return Err(wrong("a controller needs a key to the authority".to_owned())),
        (NodeRole::Worker, _) => Vec::new(),
    };
    let gossip = security::ring_in(&keys)?;
    super::home::ring(&gossip)?;
    let seed = |peer: rnp::message::Peer| Seed { node: peer.node, name: peer.name, address: peer.address };
    let Machine { name, listen, advertise, described, api, discoverable } = machine;
    Ok(Home {
        cluster,
        node,
        name,
        role,
        listen,
        advertise,
        described,
        key: ByteBuf::from(key.to_pkcs8().to_vec()),
        chain: bytes(&certificates),
        authorities: bytes(&authorities),
        gossip,
        unsealing,
        seeds: peers.into_iter().map(seed).collect(),
        api,
        discoverable,
        has_log: false,
    })
}

/// A ring in one piece.
fn ring_of(ring: &Bytes) -> Result<Vec<super::home::Key>, Problem> {
    const KEY: usize = 4 + net::identity::keyring::KEY_BYTES;
    let keys: Vec<Bytes> = ring.chunks(KEY).map(Bytes::copy_from_slice).collect();
    let keys = security::ring_in(&keys)?;
    super::home::ring(&keys)?;
    Ok(keys)
}

/// Reads a certificate that this node has.
pub(crate) fn certificate(home: &Home) -> Result<Certificate, Problem> {
    let leaf = home.chain.first().map(|der| CertificateDer::from(der.to_vec()));
    let leaf = leaf.ok_or_else(|| Problem::new(Code::DataCorrupt, "this node has no certificate"))?;
    Certificate::read(&leaf).map_err(|fault| Problem::new(Code::DataCorrupt, fault.to_string()))
}

fn der(chain: &[Bytes]) -> Vec<CertificateDer<'static>> {
    chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect()
}

fn bytes(chain: &[Bytes]) -> Vec<ByteBuf> {
    chain.iter().map(|der| ByteBuf::from(der.to_vec())).collect()
}

fn internal(error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::Internal, error.to_string())
}
