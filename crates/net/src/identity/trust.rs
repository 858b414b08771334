//! Who is believed: a chain that leads to an authority of this cluster, names one of its nodes, is good now and was
//! not revoked.

use std::collections::BTreeSet;

use model::{Name, NodeId, NodeIdentity, NodeRole, Serial, WallTime};
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::KeyPin;
use super::certificate::{Certificate, CertificateFault, public_key_info};
use super::user::UserCertificate;

/// Most authorities trusted at once: the present one, the last and the next.
pub const AUTHORITIES_MAX: usize = 3;

/// Most certificates a peer may show: its own, a cross certificate and the authorities.
pub const CHAIN_MAX: usize = 2 + AUTHORITIES_MAX;

/// Signatures that are believed: what authorities and nodes sign with.
pub(crate) static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] =
    &[webpki::aws_lc_rs::ECDSA_P256_SHA256, webpki::aws_lc_rs::ED25519];

/// Certificates that are no longer believed though they are good otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revoked {
    pub serials: BTreeSet<Serial>,
    /// Nodes that were removed: everything that was issued to them. Ids are never used again.
    pub nodes: BTreeSet<NodeId>,
}

/// What a node holds to judge others by. A value: whoever learns of a change makes the next one.
#[derive(Debug, Clone)]
pub struct Trust {
    cluster: Name,
    anchors: Vec<TrustAnchor<'static>>,
    authorities: Vec<CertificateDer<'static>>,
    revoked: Revoked,
}

/// Whom a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expected {
    /// This node and no other.
    pub node: Option<NodeId>,
    /// A node of this role.
    pub role: Option<NodeRole>,
}

/// Why a peer is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    #[error(transparent)]
    Certificate(#[from] CertificateFault),
    #[error("the peer shows no certificate")]
    NoCertificate,
    #[error("the peer shows more than {CHAIN_MAX} certificates")]
    LongChain,
    #[error("the peer's certificate is not issued by an authority of this cluster")]
    UnknownAuthority,
    #[error("the authority is not the one that was named")]
    OtherAuthority,
    #[error("the peer's certificate expired at {0}")]
    Expired(WallTime),
    #[error("the peer's certificate is good from {0} on only; is a clock wrong?")]
    NotYetValid(WallTime),
    #[error("the peer is of cluster `{0}`")]
    OtherCluster(Name),
    #[error("the peer is `{0}`, another node than the one that was called")]
    OtherNode(NodeId),
    #[error("the peer is a {0}")]
    OtherRole(NodeRole),
    #[error("the peer's certificate was revoked")]
    RevokedCertificate,
    #[error("the peer was removed from the cluster")]
    RevokedNode,
    #[error("the peer's certificate chain is refused: {0}")]
    Chain(String),
}

/// What is not an authority's certificate, or too many of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustFault {
    #[error("a cluster trusts 1 to {AUTHORITIES_MAX} authorities")]
    Count,
    #[error("an authority's certificate cannot be read: {0}")]
    Authority(String),
}

impl Trust {
    /// Trusts these authorities of this cluster, except for what was revoked.
    ///
    /// # Errors
    /// When there is none, too many, or one cannot be read.
    pub fn new(cluster: Name, authorities: Vec<CertificateDer<'static>>, revoked: Revoked) -> Result<Self, TrustFault> {
        if authorities.is_empty() || authorities.len() > AUTHORITIES_MAX {
            return Err(TrustFault::Count);
        }
        let anchor = |der: &CertificateDer<'static>| {
            let anchor = anchor_from_trusted_cert(der).map_err(|error| TrustFault::Authority(error.to_string()))?;
            Ok(anchor.to_owned())
        };
        let anchors = authorities.iter().map(anchor).collect::<Result<_, _>>()?;
        Ok(Self { cluster, anchors, authorities, revoked })
    }

    /// Trusts of the certificates a peer shows the one whose key has this hash, if it is among them.
    pub(crate) fn pinned(cluster: Name, pin: KeyPin, shown: &[CertificateDer<'_>]) -> Result<Self, Distrust> {
        if shown.len() > CHAIN_MAX {
            return Err(Distrust::LongChain);
        }
        let matches = |der: &&CertificateDer<'_>| public_key_info(der).is_ok_and(|key| KeyPin::of(&key) == pin);
        let authority = shown.iter().find(matches).ok_or(Distrust::OtherAuthority)?;
        Self::new(cluster, vec![authority.clone().into_owned()], Revoked::default())
            .map_err(|fault| Distrust::Chain(fault.to_string()))
    }

    /// The same authorities with another list of what was revoked.
    pub fn with_revoked(&self, revoked: Revoked) -> Self {
        Self { revoked, ..self.clone() }
    }

    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    pub fn revoked(&self) -> &Revoked {
        &self.revoked
    }

    /// Whether to believe a chain that a peer shows and whose private key it has proved to hold. Costs two signature
    /// checks, about 0.1 ms.
    ///
    /// # Errors
    /// Tells the first reason found not to.
    pub fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        expected: Expected,
        now: WallTime,
    ) -> Result<Certificate, Distrust> {
        let (leaf, rest) = chain.split_first().ok_or(Distrust::NoCertificate)?;
        if chain.len() > CHAIN_MAX {
            return Err(Distrust::LongChain);
        }
        let entity = EndEntityCert::try_from(leaf).map_err(|_| CertificateFault::Malformed)?;
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_millis(now.0));
        // Certificates of nodes are for both sides; each is checked for both.
        for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
            entity.verify_for_usage(ALGORITHMS, &self.anchors, rest, at, usage, None, None).map_err(distrust)?;
        }
        let certificate = Certificate::read(leaf)?;
        let NodeIdentity { cluster, role, node } = &certificate.identity;
        if *cluster != self.cluster {
            return Err(Distrust::OtherCluster(cluster.clone()));
        }
        self.still(&certificate)?;
        if expected.node.is_some_and(|expected| expected != *node) {
            return Err(Distrust::OtherNode(*node));
        }
        if expected.role.is_some_and(|expected| expected != *role) {
            return Err(Distrust::OtherRole(*role));
        }
        Ok(certificate)
    }

    /// Whether to believe a chain that names a user, whose private key the client has proved to hold. Whether the user has any
    /// rights is the log's to say.
    ///
    /// # Errors
    /// Tells the first reason found not to.
    pub fn judge_user(&self, chain: &[CertificateDer<'_>], now: WallTime) -> Result<UserCertificate, Distrust> {
        let (leaf, rest) = chain.split_first().ok_or(Distrust::NoCertificate)?;
        if chain.len() > CHAIN_MAX {
            return Err(Distrust::LongChain);
        }
        let entity = EndEntityCert::try_from(leaf).map_err(|_| CertificateFault::Malformed)?;
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_millis(now.0));
        let usage = KeyUsage::client_auth();
        entity.verify_for_usage(ALGORITHMS, &self.anchors, rest, at, usage, None, None).map_err(distrust)?;
        let certificate = UserCertificate::read(leaf)?;
        match certificate.cluster == self.cluster {
            true => Ok(certificate),
            false => Err(Distrust::OtherCluster(certificate.cluster)),
        }
    }

    /// Whether a certificate that was believed once still is, as far as revocation goes.
    ///
    /// # Errors
    /// When it or its node was revoked.
    pub fn still(&self, certificate: &Certificate) -> Result<(), Distrust> {
        if self.revoked.nodes.contains(&certificate.identity.node) {
            return Err(Distrust::RevokedNode);
        }
        if self.revoked.serials.contains(&certificate.serial) {
            return Err(Distrust::RevokedCertificate);
        }
        Ok(())
    }
}

fn distrust(error: webpki::Error) -> Distrust {
    let millis = |time: UnixTime| WallTime(time.as_secs().saturating_mul(1000));
    match error {
        webpki::Error::CertExpired { not_after, .. } => Distrust::Expired(millis(not_after)),
        webpki::Error::CertNotValidYet { not_before, .. } => Distrust::NotYetValid(millis(not_before)),
        webpki::Error::UnknownIssuer => Distrust::UnknownAuthority,
        other => Distrust::Chain(other.to_string()),
    }
}
