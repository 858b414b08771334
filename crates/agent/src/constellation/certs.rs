//! A node's own certificate, renewed in time, and whom it believes, as the log says it: two tasks that share its home.
//!
//! No connection is dropped for a renewal: open ones go on under the old certificate, new ones show the new one
//! (`net::Endpoint::set_certificate`). A node whose certificate ran out while it was off gets another before it does
//! anything else; when every controller slept for so long, each makes its own, as it could at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use model::{Code, ContentHash, NodeId, NodeRole, Problem, Serial, Standing, WallTime};
use net::identity::renewal::{Recovery, renew_at, retry_after};
use net::identity::{Certificate, NodeKey, Revoked, Trust};
use net::tls::{Belief, Clock};
use net::{Purpose, Timing, connect_as_stranger};
use rnp::Message;
use rnp::message::{CertificateRecover, CertificateRenew, CertificateRenewed};
use rustls::pki_types::CertificateDer;
use serde_bytes::ByteBuf;
use state::{Command, State};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::home::Home;
use super::join;
use super::registrar::{Log, Registrar};
use super::roads::Roads;
use super::security;
use super::shared::Shared;
use crate::main_loop::Seen;

/// Longest wait for a controller's answer: it has the new certificate written into the log.
const WITHIN: Duration = Duration::from_secs(15);
/// How often the wall clock is looked at: it may jump, and it stands still while a machine sleeps.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Least time between two looks at what the log says of who is believed. A revocation is known everywhere within five seconds.
const TRUST_EVERY: Duration = Duration::from_millis(200);
/// How long a node that left is still spoken with: until it has heard that it did, and says goodbye.
const FAREWELL: Duration = Duration::from_secs(2);
/// When another authority issues, nodes do not all come at once: so long for each, in all at most ten minutes.
const CHANGE_EACH: Duration = Duration::from_millis(20);
const CHANGE_ALL: Duration = Duration::from_secs(10 * 60);
/// Between attempts of a node that nobody believes until one succeeds.
const RECOVER_EVERY: Duration = Duration::from_secs(2);

/// What both tasks hold. Clones are the same.
#[derive(Clone)]
pub(crate) struct Certs {
    pub(crate) home: Arc<Mutex<Home>>,
    pub(crate) data_dir: PathBuf,
    pub(crate) roads: Roads,
    pub(crate) log: Shared,
    /// On a controller: it gives itself what it needs.
    pub(crate) registrar: Option<Registrar<Shared>>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What the log says of who is believed, to see whether it has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Believed {
    authorities: Vec<ContentHash>,
    serials: BTreeSet<Serial>,
    left: BTreeSet<NodeId>,
}

impl Believed {
    fn of(state: &State) -> Option<Self> {
        let security = state.security.as_ref()?;
        let left = state.nodes.iter().filter(|(_, record)| record.standing == Standing::Left);
        Some(Self {
            authorities: security.authorities.iter().map(|record| record.id).collect(),
            serials: security.revoked.keys().copied().collect(),
            left: left.map(|(node, _)| *node).collect(),
        })
    }

    /// Takes out of those that left who did so just now, and tells when the first of them is to go.
    fn spare(
        &mut self,
        known: &BTreeSet<NodeId>,
        leaving: &mut BTreeMap<NodeId, Instant>,
        now: Instant,
    ) -> Option<Instant> {
        for node in self.left.difference(known) {
            leaving.entry(*node).or_insert(now + FAREWELL);
        }
        leaving.retain(|_, until| *until > now);
        self.left.retain(|node| !leaving.contains_key(node));
        leaving.values().min().copied()
    }
}

/// What a node does about its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// Nothing before then.
    At(WallTime),
    /// The log does not know that the node has it.
    Told,
    Renew,
    /// It has run out.
    Recover,
}

/// What the log knows of a node's present certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// Whether it is noted, and whether the node is known to have it.
    noted: Option<bool>,
    /// It is of the authority that issues now.
    current: bool,
    nodes: usize,
}

/// `since` is when another authority was first seen to issue.
fn due(certificate: &Certificate, known: Known, since: Option<WallTime>, now: WallTime) -> Due {
    let later = |time: WallTime, rest: Duration| WallTime(time.0 + rest.as_millis() as u64);
    if now > certificate.not_after {
        return Due::Recover;
    }
    let mut at = renew_at(certificate);
    match known {
        // Of this controller's own making.
        Known { noted: None, .. } => return Due::Renew,
        Known { noted: Some(false), .. } => return Due::Told,
        Known { current: false, nodes, .. } => {
            let all = CHANGE_EACH.saturating_mul(u32::try_from(nodes).unwrap_or(u32::MAX)).min(CHANGE_ALL);
            let part = certificate.identity.node.0 % (nodes.max(1) as u64);
            let own = all.mul_f64(part as f64 / nodes.max(1) as f64);
            at = at.min(later(since.unwrap_or(now), own));
        }
        Known { .. } => {}
    }
    if now >= at { Due::Renew } else { Due::At(at) }
}

impl Certs {
    /// Follows what the log says of who is believed, until the agent ends. Whoever was shut out is let go of at once, who left
    /// once it had the time to hear that it may go.
    pub(crate) async fn follow(self, mut seen: watch::Receiver<Seen>) {
        let (mut last, mut leaving) = (None::<Believed>, BTreeMap::new());
        loop {
            let Ok(looked) = self.log.look(Believed::of).await else { return };
            let mut soon = None;
            if let Some(mut believed) = looked {
                if let Some(last) = &last {
                    soon = believed.spare(&last.left, &mut leaving, Instant::now());
                }
                if last.as_ref() != Some(&believed) {
                    let Ok(trust) = self.log.look(security::trust).await else { return };
                    self.believe(trust, &believed).await;
                    last = Some(believed);
                }
            }
            sleep(TRUST_EVERY).await;
            tokio::select! {
                changed = seen.changed() => if changed.is_err() { return },
                () = sleep_until(soon.unwrap_or_else(Instant::now)), if soon.is_some() => {}
            }
        }
    }

    async fn believe(&self, trust: Result<Trust, Problem>, believed: &Believed) {
        let trust = match trust {
            Ok(trust) => trust,
            Err(problem) => {
                tracing::error!(%problem, "who is believed stays as it was");
                return;
            }
        };
        let own = join::certificate(&self.home()).map(|certificate| certificate.serial);
        if own.is_ok_and(|serial| believed.serials.contains(&serial)) {
            tracing::error!("this node is shut out: its certificate was revoked, and nobody believes it any more");
        }
        let (revoked, left) = (believed.serials.len(), believed.left.len());
        tracing::info!(authorities = trust.authorities().len(), revoked, left, "who is believed has changed");
        let authorities: Vec<_> = trust.authorities().iter().map(|der| ByteBuf::from(der.to_vec())).collect();
        let revoked = Revoked { serials: believed.serials.clone(), nodes: believed.left.clone() };
        self.roads.endpoint().set_trust(trust.with_revoked(revoked));
        self.keep(|home| home.authorities = authorities).await;
    }

    /// Keeps the node's certificate good, until the agent ends.
    pub(crate) async fn renew(self) {
        let (mut failures, mut since) = (0, None);
        loop {
            let Ok(certificate) = join::certificate(&self.home()) else {
                tracing::error!("this node has no certificate that can be read: it gets no other");
                return;
            };
            let (node, serial) = (certificate.identity.node, certificate.serial);
            let Ok(mut known) = self.log.look(move |state| known(state, node, serial)).await else { return };
            if known.noted.is_none() && self.log.catch_up().await.is_ok() {
                // The state here may have been behind.
                let Ok(now) = self.log.look(move |state| self::known(state, node, serial)).await else { return };
                known = now;
            }
            let now = self.clock.now();
            since = if known.current { None } else { since.or(Some(now)) };
            let due = due(&certificate, known, since, now);
            let done = match due {
                Due::At(at) => {
                    failures = 0;
                    sleep(at.since(now).min(LOOK_EVERY)).await;
                    continue;
                }
                Due::Told => self.tell(node, serial).await,
                Due::Renew => self.renewed(&certificate).await,
                Due::Recover => self.recovered(&certificate).await,
            };
            let pause = match done {
                Ok(()) => {
                    failures = 0;
                    continue;
                }
                Err(problem) => {
                    failures += 1;
                    let pause = match due {
                        Due::Renew if known.noted.is_some() => retry_after(failures, &certificate, now),
                        _ => RECOVER_EVERY,
                    };
                    let left_s = certificate.not_after.since(now).as_secs();
                    tracing::warn!(%problem, ?due, left_s, again_s = pause.as_secs(), "the certificate of this node stays as it is");
                    pause
                }
            };
            sleep(pause).await;
        }
    }

    /// Has written down that the node has its certificate: the log may forget the one before.
    async fn tell(&self, node: NodeId, serial: Serial) -> Result<(), Problem> {
        self.log.write(Command::UseCertificate { node, serial, wall: self.clock.now() }).await?;
        let known = self.log.look(move |state| known(state, node, serial)).await?;
        match known.noted {
            Some(true) => Ok(()),
            _ => Err(Problem::new(Code::Conflict, "the log does not take note of it")),
        }
    }

    async fn renewed(&self, certificate: &Certificate) -> Result<(), Problem> {
        let key = NodeKey::generate().map_err(internal)?;
        let csr = key.request().map_err(internal)?;
        if let Some(registrar) = &self.registrar {
            registrar.log().catch_up().await?;
            // What this controller made for itself the log does not know.
            let renewed = registrar.renewed(&certificate.identity, certificate.serial, &csr).await?;
            return self.take(key, renewed, certificate).await;
        }
        let mut last = Problem::new(Code::Unavailable, "no controller is known");
        for controller in self.controllers().await? {
            let asked = CertificateRenew { csr: Bytes::copy_from_slice(&csr) };
            match self.roads.call(controller, Purpose::Peer, asked, WITHIN).await {
                Ok(Message::CertificateRenewed(renewed)) => return self.take(key, renewed, certificate).await,
                Ok(other) => last = Problem::new(Code::Internal, format!("`{}` is no answer", other.kind().name())),
                Err(problem) => last = problem,
            }
        }
        Err(last)
    }

    /// A certificate that has run out opens no connection: the node comes as a stranger, and shows it.
    async fn recovered(&self, certificate: &Certificate) -> Result<(), Problem> {
        let key = NodeKey::generate().map_err(internal)?;
        if let Some(registrar) = &self.registrar {
            tracing::warn!("the certificate of this node ran out: it makes itself one that holds until it is renewed");
            let renewed = registrar.own(&key.request().map_err(internal)?).await?;
            return self.take(key, renewed, certificate).await;
        }
        tracing::warn!("the certificate of this node ran out: it asks a controller for another");
        let home = self.home();
        let old = NodeKey::from_pkcs8(&home.key).map_err(internal)?;
        let chain: Vec<CertificateDer<'static>> = home.chain.iter().map(|der| der.to_vec().into()).collect();
        let trust = self.roads.endpoint().trust();
        let mut last = Problem::new(Code::Unavailable, "no controller is known");
        for controller in self.controllers().await? {
            let asked = async {
                let address = self.roads.address(controller).await?;
                let belief = Belief::Trust(Arc::clone(&trust));
                let clock = Arc::clone(&self.clock);
                let connection = connect_as_stranger(address, &home.cluster, belief, clock, Timing::DEFAULT).await;
                let connection = connection.map_err(unreachable)?;
                let recovery =
                    Recovery::ask(chain.clone(), &old, &key, &connection.peer().binding).map_err(internal)?;
                let answer = connection.request(CertificateRecover::from(recovery), WITHIN).await;
                connection.goodbye("recovered").await;
                match answer {
                    Ok(Message::CertificateRenewed(renewed)) => Ok(renewed),
                    Ok(other) => Err(Problem::new(Code::Internal, format!("`{}` is no answer", other.kind().name()))),
                    Err(failure) => Err(unreachable(failure)),
                }
            };
            match asked.await {
                Ok(renewed) => return self.take(key, renewed, certificate).await,
                Err(problem) => last = problem,
            }
        }
        Err(last)
    }

    /// Goes on with a new certificate, once it is sure that others will believe it.
    async fn take(&self, key: NodeKey, renewed: CertificateRenewed, before: &Certificate) -> Result<(), Problem> {
        let CertificateRenewed { certificates, authorities } = renewed;
        let wrong = |why: &dyn std::fmt::Display| {
            Problem::new(Code::Unsupported, format!("the new certificate is of no use: {why}"))
        };
        let der = |all: &[Bytes]| all.iter().map(|der| CertificateDer::from(der.to_vec())).collect::<Vec<_>>();
        let chain = der(&certificates);
        let known = self.roads.endpoint().trust();
        let trust = Trust::new(known.cluster().clone(), der(&authorities), Revoked::clone(known.revoked()));
        let trust = trust.map_err(|error| wrong(&error))?;
        let judged = trust.judge(&chain, Default::default(), self.clock.now()).map_err(|distrust| wrong(&distrust))?;
        if judged.identity != before.identity {
            return Err(wrong(&"it is for another node"));
        }
        let certified = key.certified(chain).map_err(|error| wrong(&error))?;
        // What comes late from a controller that is behind takes nothing away.
        let adds = trust.authorities().iter().all(|authority| known.authorities().contains(authority));
        if !adds {
            self.roads.endpoint().set_trust(trust);
        }
        self.keep(|home| {
            home.key = ByteBuf::from(key.to_pkcs8().to_vec());
            home.chain = certificates.iter().map(|der| ByteBuf::from(der.to_vec())).collect();
            if !adds {
                home.authorities = authorities.iter().map(|der| ByteBuf::from(der.to_vec())).collect();
            }
        })
        .await;
        self.roads.endpoint().set_certificate(certified);
        let left_s = judged.not_after.since(self.clock.now()).as_secs();
        tracing::info!(serial = %judged.serial, left_s, "this node has a new certificate");
        Ok(())
    }

    /// Changes what is kept. What cannot be written now is written with the next change; until then it is here.
    pub(super) async fn keep(&self, change: impl FnOnce(&mut Home)) {
        let home = {
            let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
            let before = home.clone();
            change(&mut home);
            if *home == before {
                return;
            }
            home.clone()
        };
        let data_dir = self.data_dir.clone();
        let written = tokio::task::spawn_blocking(move || home.write(&data_dir)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => tracing::error!(%problem, "the new certificate is not kept yet"),
            Err(error) => tracing::error!(%error, "the new certificate is not kept yet"),
        }
    }

    pub(super) fn home(&self) -> Home {
        self.home.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Other controllers, those that are up first; those of the home when the state knows none.
    pub(super) async fn controllers(&self) -> Result<Vec<NodeId>, Problem> {
        let me = self.roads.me();
        let known = self.log.look(move |state| {
            let of = |standing: Standing| {
                let there = state.nodes.iter().filter(move |(node, record)| {
                    **node != me && record.role == NodeRole::Controller && record.standing == standing
                });
                there.map(|(node, _)| *node).collect::<Vec<_>>()
            };
            [of(Standing::Up), of(Standing::Lost)].concat()
        });
        let known = known.await?;
        let seeds = || self.home().seeds.iter().map(|seed| seed.node).collect();
        Ok(if known.is_empty() { seeds() } else { known })
    }
}

fn known(state: &State, node: NodeId, serial: Serial) -> Known {
    let security = state.security.as_ref();
    let records = security.and_then(|security| security.certificates.get(&node)).map(Vec::as_slice).unwrap_or_default();
    let record = records.iter().find(|record| record.serial == serial);
    let issues = security.and_then(|security| security.authorities.first()).map(|authority| authority.id);
    let nodes = state.nodes.values().filter(|record| record.standing != Standing::Left).count();
    Known {
        noted: record.map(|record| record.used),
        current: record.is_none_or(|record| Some(record.authority) == issues),
        nodes,
    }
}

fn unreachable(error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::Unavailable, error.to_string())
}

fn internal(error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::Internal, error.to_string())
}

#[cfg(test)]
mod tests {
    use model::NodeIdentity;

    use super::*;

    const DAY_MS: u64 = 86_400_000;

    fn certificate(node: u64) -> Certificate {
        let identity = NodeIdentity { cluster: "prod".parse().unwrap(), role: NodeRole::Worker, node: NodeId(node) };
        let (not_before, not_after) = (WallTime(0), WallTime(9 * DAY_MS));
        Certificate { identity, serial: Serial(1), not_before, not_after }
    }

    #[test]
    fn a_certificate_is_renewed_in_time_and_recovered_when_it_is_too_late() {
        let (certificate, good) = (certificate(7), Known { noted: Some(true), current: true, nodes: 3 });
        let at = renew_at(&certificate);
        let check = |known, now: u64, expected| assert_eq!(due(&certificate, known, None, WallTime(now)), expected);
        check(good, DAY_MS, Due::At(at));
        check(good, at.0, Due::Renew);
        check(good, 9 * DAY_MS, Due::Renew);
        check(good, 9 * DAY_MS + 1, Due::Recover);
        check(Known { noted: Some(false), ..good }, DAY_MS, Due::Told);
        check(Known { noted: None, ..good }, DAY_MS, Due::Renew);
        check(Known { noted: None, ..good }, 9 * DAY_MS + 1, Due::Recover);
    }

    #[test]
    fn who_left_is_spoken_with_until_it_has_heard_so() {
        let node = |n| NodeId(n);
        let believed = |left: &[u64]| Believed {
            authorities: Vec::new(),
            serials: BTreeSet::new(),
            left: left.iter().map(|n| NodeId(*n)).collect(),
        };
        let (mut leaving, start) = (BTreeMap::new(), Instant::now());
        let known = believed(&[3]).left;
        let mut now = believed(&[3, 4]);
        assert_eq!(now.spare(&known, &mut leaving, start), Some(start + FAREWELL));
        assert_eq!(now.left, [node(3)].into());
        let mut later = believed(&[3, 4, 5]);
        assert_eq!(later.spare(&now.left, &mut leaving, start + FAREWELL / 2), Some(start + FAREWELL));
        assert_eq!(later.left, [node(3)].into());
        let mut gone = believed(&[3, 4, 5]);
        assert_eq!(gone.spare(&later.left, &mut leaving, start + FAREWELL), Some(start + FAREWELL / 2 * 3));
        assert_eq!(gone.left, [node(3), node(4)].into());
        let mut all = believed(&[3, 4, 5]);
        assert_eq!(all.spare(&gone.left, &mut leaving, start + FAREWELL * 2), None);
        assert_eq!(all.left, [node(3), node(4), node(5)].into());
    }

    #[test]
    fn when_another_authority_issues_nodes_come_one_after_the_other() {
        let known = Known { noted: Some(true), current: false, nodes: 1_000 };
        let since = WallTime(DAY_MS);
        let at = |node, now| due(&certificate(node), known, Some(since), now);
        assert_eq!(at(0, since), Due::Renew);
        assert_eq!(at(500, since), Due::At(WallTime(DAY_MS + 10_000)));
        assert_eq!(at(500, WallTime(DAY_MS + 10_000)), Due::Renew);
        assert_eq!(at(999, WallTime(DAY_MS + 20_000)), Due::Renew);
        // In time anyway.
        let late = WallTime(7 * DAY_MS);
        assert_eq!(due(&certificate(999), known, Some(late), late), Due::Renew);
    }
}
