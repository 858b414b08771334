//! Lets machines in, and gives nodes new certificates. Every controller does: what it decides counts once it is in the log.
//!
//! A certificate is written down before it is given out, so that one for a node that left or was shut out in between
//! never comes to be. Who shows no good token hears the same whatever is wrong with it; why is in this node's own log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::{
    Code, Name, NodeFacts, NodeId, NodeIdentity, NodeRole, Problem, Serial, Standing, TicketRefusal, WallTime,
};
use net::Peer;
use net::identity::renewal::{Grace, Recovery};
use net::identity::request::CheckedRequest;
use net::identity::{Certificate, Issued, KeyRing, Token};
use net::tls::Clock;
use rnp::message::{CertificateRecover, CertificateRenew, CertificateRenewed, JoinAccepted, JoinRequest};
use rnp::{ErrorCode, Fault, Message};
use rustls::pki_types::CertificateDer;
use state::{Author, CertificateRecord, Command, State};

use super::gossip_keys;
use super::home::Home;
use super::roads;
use super::security;
use super::shared::Shared;

/// How far a machine's clock may be from ours when it joins. A certificate begins [`net::identity::authority::BACKDATED`]
/// in the past: whoever is further behind could not use it.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(5 * 60);
const _: () = assert!(CLOCKS_APART_MAX.as_secs() < net::identity::authority::BACKDATED.as_secs());
/// Of how many controllers a new node is told. From the log it learns of the others.
const PEERS_MAX: usize = 16;

/// The log as far as it is needed to say who may come in.
pub(crate) trait Log: Clone + Send + Sync + 'static {
    /// Looks at the state that is here.
    fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&State) -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, Problem>> + Send;
    /// Waits until everything that was acknowledged by now, anywhere, is in the state here.
    fn catch_up(&self) -> impl Future<Output = Result<(), Problem>> + Send;
    /// Writes a command; gives its index once it is in the state here. Whether it held shows there.
    fn write(&self, command: Command) -> impl Future<Output = Result<u64, Problem>> + Send;
}

impl Log for Shared {
    async fn look<T: Send + 'static>(&self, look: impl FnOnce(&State) -> T + Send + 'static) -> Result<T, Problem> {
        self.looker.look(|node| look(node.state())).await
    }

    async fn catch_up(&self) -> Result<(), Problem> {
        let index = self.read_index().await?;
        self.applied(index).await
    }

    async fn write(&self, command: Command) -> Result<u64, Problem> {
        let index = self.propose(&command).await?;
        self.applied(index).await?;
        Ok(index)
    }
}

/// Clones are the same registrar.
#[derive(Clone)]
pub(crate) struct Registrar<L> {
    log: L,
    home: Arc<Home>,
    unsealing: Arc<KeyRing>,
    clock: Arc<dyn Clock>,
    /// Who asks for what is changed by it.
    author: Author,
}

impl<L: Log> Registrar<L> {
    /// # Errors
    /// When the home is that of a worker, which cannot open the authority.
    pub(crate) fn new(log: L, home: Arc<Home>, clock: Arc<dyn Clock>) -> Result<Self, Problem> {
        let unsealing = Arc::new(home.unsealing_ring()?);
        let author = Author::agent(home.node);
        Ok(Self { log, home, unsealing, clock, author })
    }

    /// The same, for what somebody asks.
    pub(crate) fn by(&self, author: Author) -> Self {
        Self { author, ..self.clone() }
    }

    /// The same, over a log that waits otherwise.
    pub(crate) fn over(&self, log: L) -> Self {
        Self { log, ..self.clone() }
    }

    /// A command that says who asks for it.
    pub(crate) fn asked(&self, command: Command) -> Command {
        Command::By { author: self.author.clone(), command: Box::new(command), wall: self.now() }
    }

    pub(crate) fn author(&self) -> &Author {
        &self.author
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    pub(crate) fn ring(&self) -> &KeyRing {
        &self.unsealing
    }

    pub(crate) fn now(&self) -> WallTime {
        self.clock.now()
    }

    pub(crate) fn log(&self) -> &L {
        &self.log
    }

    /// Answers a machine without a certificate that wants to join.
    pub(crate) async fn admit(self, peer: Arc<Peer>, asked: JoinRequest) -> Result<Message, Fault> {
        let (address, name) = (peer.address, asked.name.clone());
        match self.try_admit(asked).await {
            Ok(accepted) => {
                tracing::info!(%address, name, node = %accepted.node, role = accepted.role, "a machine was let in");
                Ok(accepted.into())
            }
            Err(Refused { told, why }) => {
                tracing::warn!(%address, name = ?name.chars().take(80).collect::<String>(), why, "a machine was not let in");
                Err(told)
            }
        }
    }

    async fn try_admit(&self, asked: JoinRequest) -> Result<JoinAccepted, Refused> {
        let token: Token = asked.token.parse().map_err(|error| Refused::stranger(&error))?;
        if *token.cluster() != self.home.cluster {
            let text = format!("the token is for constellation `{}`, this is `{}`", token.cluster(), self.home.cluster);
            return Err(Fault::new(ErrorCode::AuthFailed, text).into());
        }
        self.log.catch_up().await?;
        let state = self.log.look(security::members).await?;
        let now = self.clock.now();
        let ticket = security::of(&state)?.tickets.iter().find(|ticket| ticket.hash == token.hash());
        let ticket = ticket.ok_or_else(|| Refused::stranger(&TicketRefusal::Unknown))?;
        let role = ticket.role;
        ticket.admits(token.hash(), role, now).map_err(|refusal| Refused::stranger(&refusal))?;
        // Who comes so far was invited, and is told what is wrong.
        check_program(&asked.program)?;
        if let Some(theirs) = asked.time {
            check_clock(theirs, now.0)?;
        }
        let protocol = |text: String| Fault::new(ErrorCode::Protocol, text);
        let name: Name = asked.name.parse().map_err(|error: model::name::InvalidName| protocol(error.to_string()))?;
        check_address(&asked.address)?;
        let request = CheckedRequest::read(&asked.csr).map_err(|error| protocol(error.to_string()))?;
        let facts = Box::new(NodeFacts { program: asked.program, ..NodeFacts::default() });
        let before = never_came(&state, &name, &asked.address);
        let (address, ticket) = (asked.address, Some(token.hash()));
        let admit = Command::AdmitNode { name: name.clone(), role, address, facts, wall: now, ticket };
        match (security::refusal(&state, &admit), before) {
            (None, _) => {}
            (Some(problem), Some(before)) if problem.code == Code::AlreadyExists => {
                self.log.write(self.asked(Command::RemoveNode { node: before, wall: now })).await?;
                tracing::info!(node = %before, %name, "a machine that never came after it was let in comes anew");
            }
            (Some(problem), _) => return Err(problem.into()),
        }
        let node = NodeId(self.log.write(admit.clone()).await?);
        let state = self.log.look(security::members).await?;
        if !state.nodes.contains_key(&node) {
            // Somebody was faster.
            return Err(security::refusal(&state, &admit).unwrap_or_else(not_held).into());
        }
        let subject = NodeIdentity { cluster: self.home.cluster.clone(), role, node };
        let issued = match self.issue(&subject, &request, None).await {
            Ok(issued) => issued,
            Err(problem) => {
                // It never was here: its name is free again.
                let gone = self.log.write(self.asked(Command::RemoveNode { node, wall: self.clock.now() })).await;
                tracing::warn!(%node, %problem, undone = gone.is_ok(), "a machine was admitted without a certificate");
                return Err(problem.into());
            }
        };
        let authorities = self.log.look(security::trust).await??.authorities().to_vec();
        let gossip = gossip_keys::present(security::of(&state)?, self.ring(), &self.home)?;
        Ok(JoinAccepted {
            node,
            cluster: self.home.cluster.to_string(),
            role: role.to_string(),
            certificates: der(&issued.chain),
            authorities: der(&authorities),
            keys: security::ring_out(&gossip),
            peers: controllers(&state, node),
            unsealing: (role == NodeRole::Controller).then(|| security::ring_out(&self.home.unsealing).concat().into()),
        })
    }

    /// Answers a node whose certificate is still good.
    pub(crate) async fn renew(self, peer: Arc<Peer>, asked: CertificateRenew) -> Result<Message, Fault> {
        let Some(shown) = &peer.certificate else {
            return Err(Fault::new(ErrorCode::AuthFailed, "only nodes renew a certificate"));
        };
        let renewed = self.renewed(&shown.identity, shown.serial, &asked.csr).await;
        if let Err(problem) = &renewed {
            tracing::warn!(node = %shown.identity.node, %problem, "a certificate was not renewed");
        }
        renewed.map(Into::into).map_err(|problem| roads::fault(&problem))
    }

    /// A new certificate in the name of an old one.
    pub(crate) async fn renewed(
        &self,
        subject: &NodeIdentity,
        by: Serial,
        csr: &[u8],
    ) -> Result<CertificateRenewed, Problem> {
        let request = CheckedRequest::read(csr);
        let request = request.map_err(|error| Problem::new(Code::InvalidValue, error.to_string()))?;
        let issued = self.issue(subject, &request, Some(by)).await?;
        tracing::info!(node = %subject.node, serial = %issued.serial, "a certificate was renewed");
        let authorities = self.log.look(security::trust).await??.authorities().to_vec();
        Ok(CertificateRenewed { certificates: der(&issued.chain), authorities: der(&authorities) })
    }

    /// Answers a node whose certificate ran out while it was off. It comes without one, and shows the old one with a signature.
    pub(crate) async fn recover(self, peer: Arc<Peer>, asked: CertificateRecover) -> Result<Message, Fault> {
        let address = peer.address;
        let recovered = self.try_recover(&peer, asked).await;
        match &recovered {
            Ok((node, _)) => tracing::info!(%address, %node, "a certificate that had run out was renewed"),
            Err(Refused { why, .. }) => tracing::warn!(%address, why, "a certificate that had run out was not renewed"),
        }
        recovered.map(|(_, renewed)| renewed.into()).map_err(|refused| refused.told)
    }

    async fn try_recover(
        &self,
        peer: &Peer,
        asked: CertificateRecover,
    ) -> Result<(NodeId, CertificateRenewed), Refused> {
        let recovery = Recovery::from(asked);
        let trust = self.log.look(security::trust).await??;
        let judged = recovery.judge(&trust, Grace::default(), &peer.binding, self.clock.now());
        let untrusted = |error: &dyn std::fmt::Display| Fault::new(ErrorCode::AuthFailed, error.to_string());
        let (subject, request) = judged.map_err(|refusal| untrusted(&refusal))?;
        let leaf = recovery.chain.first().ok_or_else(|| untrusted(&"no certificate is shown"))?;
        let old = Certificate::read(leaf).map_err(|fault| untrusted(&fault))?;
        // Only now: what strangers show costs no round through the log.
        self.log.catch_up().await?;
        let issued = self.issue(&subject, &request, Some(old.serial)).await?;
        let authorities = self.log.look(security::trust).await??.authorities().to_vec();
        Ok((subject.node, CertificateRenewed { certificates: der(&issued.chain), authorities: der(&authorities) }))
    }

    /// Issues a certificate, and has it written down first.
    async fn issue(
        &self,
        subject: &NodeIdentity,
        request: &CheckedRequest,
        by: Option<Serial>,
    ) -> Result<Issued, Problem> {
        let node = subject.node;
        let state = self.log.look(security::members).await?;
        let record = state.nodes.get(&node).filter(|record| record.standing != Standing::Left);
        // What a node is was decided when it was let in.
        if record.is_none_or(|record| record.role != subject.role) {
            return Err(Problem::new(Code::Forbidden, format!("`{node}` is not a {} here any more", subject.role)));
        }
        let now = self.clock.now();
        let (authority, lifetime) = security::issuer(security::of(&state)?, &self.unsealing)?;
        let issued = authority.issue(request, subject, lifetime, now);
        let issued = issued.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        let (serial, not_after) = (issued.serial, issued.not_after);
        let authority = security::id(authority.certificate());
        let certificate = CertificateRecord { serial, not_after, authority, used: false };
        let note = Command::NoteCertificate { node, certificate, by, wall: now };
        if let Some(problem) = security::refusal(&state, &note) {
            return Err(problem);
        }
        self.log.write(note.clone()).await?;
        let state = self.log.look(security::members).await?;
        let records = state.security.iter().flat_map(|security| security.certificates.get(&node)).flatten();
        if !records.into_iter().any(|record| record.serial == serial) {
            // Somebody was faster: the node was taken out, or another authority issues now.
            return Err(security::refusal(&state, &note).unwrap_or_else(not_held));
        }
        Ok(issued)
    }

    /// A certificate for this controller itself, out of nothing but what it has: when its own ran out while no majority was
    /// there to write anything. It holds the authority anyway. Nothing knows of it until it is renewed, as it is at once.
    pub(crate) async fn own(&self, csr: &[u8]) -> Result<CertificateRenewed, Problem> {
        let state = self.log.look(security::members).await?;
        let (authority, lifetime) = security::issuer(security::of(&state)?, &self.unsealing)?;
        let request = CheckedRequest::read(csr);
        let request = request.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        let issued = authority.issue(&request, &self.home.identity(), lifetime, self.clock.now());
        let issued = issued.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        let authorities = security::trust(&state)?.authorities().to_vec();
        Ok(CertificateRenewed { certificates: der(&issued.chain), authorities: der(&authorities) })
    }
}

/// What a machine is told, and why it is so.
struct Refused {
    told: Fault,
    why: String,
}

impl Refused {
    /// To who has no good token.
    fn stranger(why: &dyn std::fmt::Display) -> Self {
        let told = Fault::new(ErrorCode::AuthFailed, TicketRefusal::Unknown.to_string());
        Self { told, why: why.to_string() }
    }
}

impl From<Fault> for Refused {
    fn from(told: Fault) -> Self {
        Self { why: told.message.clone(), told }
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { told: roads::fault(&problem), why: problem.message }
    }
}

fn not_held() -> Problem {
    Problem::new(Code::Conflict, "the constellation has changed meanwhile").help("try it again")
}

/// Nodes of the version before and after this one may be among each other, for as long as it takes to upgrade them all.
fn check_program(theirs: &str) -> Result<(), Fault> {
    let ours = env!("CARGO_PKG_VERSION");
    let read = |text: &str| {
        let mut parts = text.split('.').map(|part| part.parse::<u32>().ok());
        Some((parts.next()??, parts.next()??))
    };
    let is_near = match (read(theirs), read(ours)) {
        (Some((major, minor)), Some((our_major, our_minor))) => major == our_major && minor.abs_diff(our_minor) <= 1,
        _ => false,
    };
    if is_near {
        return Ok(());
    }
    let shown: String = theirs.chars().take(40).collect();
    let text = format!("this constellation runs rads {ours}, the machine rads {}", shown.escape_debug());
    Err(Fault::new(ErrorCode::VersionMismatch, text))
}

fn check_clock(theirs: u64, ours: u64) -> Result<(), Fault> {
    let apart = Duration::from_millis(theirs.abs_diff(ours));
    if apart <= CLOCKS_APART_MAX {
        return Ok(());
    }
    let which = if theirs < ours { "behind" } else { "ahead of" };
    let text = format!("its clock is {} {which} that of the constellation", long(apart));
    Err(Fault::new(ErrorCode::Conflict, text))
}

/// `2 days`, `3 hours` or `17 minutes`: the largest that fits.
pub(crate) fn long(time: Duration) -> String {
    let of = |seconds: u64, word: &str| {
        let count = time.as_secs() / seconds;
        (count > 0).then(|| format!("{count} {word}{}", if count == 1 { "" } else { "s" }))
    };
    of(86_400, "day")
        .or_else(|| of(3_600, "hour"))
        .or_else(|| of(60, "minute"))
        .unwrap_or_else(|| of(1, "second").unwrap_or_else(|| "no time".to_owned()))
}

/// The node of that name and address that was let in and never said what it is: its join was broken off. Whoever comes from where
/// it should have come from takes its place; nothing is lost with it.
fn never_came(state: &State, name: &Name, address: &str) -> Option<NodeId> {
    let is = |record: &state::NodeRecord| {
        record.standing != Standing::Left
            && record.name == *name
            && record.address == address
            && !record.facts.are_told()
    };
    state.nodes.iter().find(|(_, record)| is(record)).map(|(node, _)| *node)
}

fn check_address(address: &str) -> Result<(), Fault> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    if matches!(port, Some(Ok(1..))) {
        return Ok(());
    }
    let shown: String = address.chars().take(80).collect();
    let text = format!("`{}` is no address of a node: it is `host:port`", shown.escape_debug());
    Err(Fault::new(ErrorCode::Protocol, text))
}

fn der(chain: &[CertificateDer<'static>]) -> Vec<Bytes> {
    chain.iter().map(|der| Bytes::copy_from_slice(der)).collect()
}

/// Where a new node finds the log.
fn controllers(state: &State, but: NodeId) -> Vec<rnp::message::Peer> {
    let there = state.nodes.iter().filter(|(node, record)| {
        **node != but && record.role == NodeRole::Controller && record.standing == Standing::Up
    });
    let peer = |(node, record): (&NodeId, &state::NodeRecord)| rnp::message::Peer {
        node: *node,
        name: record.name.to_string(),
        address: record.address.clone(),
    };
    there.take(PEERS_MAX).map(peer).collect()
}

#[cfg(test)]
mod tests;
