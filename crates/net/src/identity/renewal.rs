//! When a node renews its certificate, and how it gets a new one when it was off for so long that the old one ran out.
//!
//! In time, it asks over a connection that its present certificate opened. Too late, no connection accepts it: it connects
//! as a stranger (to the authority it already trusts) and shows the old certificate with a signature by the old key.
//! Within [`Grace`] the authority answers that with a new certificate in the same name, if the node still is a member.

use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use bytes::Bytes;
use model::{NodeId, NodeIdentity, WallTime};
use rnp::message::CertificateRecover;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::{IdentityError, Issued, Lifetime};
use super::certificate::{Certificate, CertificateFault};
use super::request::{CheckedRequest, RequestRefusal};
use super::trust::{Distrust, Expected, Trust};
use super::{Authority, NodeKey};

/// How long after its end an old certificate still gets its node a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace(pub Duration);

impl Default for Grace {
    /// 30 days: a machine that was away for a holiday or a repair comes back by itself; one that was away longer
    /// needs a token, as would whoever found its disk.
    fn default() -> Self {
        Self(Duration::from_secs(30 * 24 * 60 * 60))
    }
}

/// When to renew a certificate: at two thirds of its life, give or take a twentieth by the node's id, so that a thousand
/// nodes that joined in one minute do not all come back in one.
pub fn renew_at(certificate: &Certificate) -> WallTime {
    let life = certificate.not_after.0.saturating_sub(certificate.not_before.0);
    let spread = life / 10;
    let lot = blake3::hash(&certificate.identity.node.0.to_be_bytes());
    let lot = lot.as_bytes().first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let offset = if spread == 0 { 0 } else { lot % spread };
    WallTime(certificate.not_before.0 + life / 3 * 2 - spread / 2 + offset)
}

/// When to try again after `failures` attempts in a row that failed: a minute, doubled each time, at most an hour and at most
/// a tenth of what is left.
pub fn retry_after(failures: u32, certificate: &Certificate, now: WallTime) -> Duration {
    const FIRST: Duration = Duration::from_secs(60);
    const LAST: Duration = Duration::from_secs(60 * 60);
    let doubled = FIRST.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(LAST);
    let left = certificate.not_after.since(now) / 10;
    doubled.min(left.max(Duration::from_secs(1)))
}

/// What a node shows when its certificate has run out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The old certificate with what leads to its authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// For the new certificate; may be for the same key.
    pub request: Vec<u8>,
    /// Of the old key, over [`Recovery`]'s other parts and the connection.
    pub signature: Vec<u8>,
}

impl From<Recovery> for CertificateRecover {
    fn from(recovery: Recovery) -> Self {
        let certificates = recovery.chain.iter().map(|der| Bytes::copy_from_slice(der)).collect();
        Self { certificates, csr: recovery.request.into(), signature: recovery.signature.into() }
    }
}

impl From<CertificateRecover> for Recovery {
    fn from(message: CertificateRecover) -> Self {
        let chain = message.certificates.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        Self { chain, request: message.csr.into(), signature: message.signature.into() }
    }
}

/// Why an old certificate does not get a new one.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryRefusal {
    #[error(transparent)]
    Distrust(#[from] Distrust),
    #[error("the certificate expired at {0}, longer ago than it may have; join with a token")]
    TooLate(WallTime),
    #[error("the certificate is still good: renew it over a connection of its own")]
    StillGood,
    #[error("the signature is not of the key of the old certificate")]
    NoPossession,
    #[error(transparent)]
    Request(#[from] RequestRefusal),
    #[error("`{0}` is not a member of the cluster any more")]
    NotMember(NodeId),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Recovery {
    /// Asks for a certificate for `new` by an old one and its key. `binding` is what only this connection knows (exported
    /// keying material, RFC 9266): a recovery that was overheard by its receiver is of no use elsewhere.
    pub fn ask(
        chain: Vec<CertificateDer<'static>>,
        old: &NodeKey,
        new: &NodeKey,
        binding: &[u8],
    ) -> Result<Self, IdentityError> {
        let request = new.request()?;
        let signature = old.sign(&signed_text(&request, binding))?;
        Ok(Self { chain, request, signature })
    }

    /// Who asks, if that is to be believed.
    ///
    /// # Errors
    /// Tells why not.
    pub fn judge(
        &self,
        trust: &Trust,
        grace: Grace,
        binding: &[u8],
        now: WallTime,
    ) -> Result<(NodeIdentity, CheckedRequest), RecoveryRefusal> {
        let leaf = self.chain.first().ok_or(Distrust::NoCertificate)?;
        let claimed = Certificate::read(leaf).map_err(Distrust::from)?;
        if now <= claimed.not_after {
            return Err(RecoveryRefusal::StillGood);
        }
        if now.since(claimed.not_after) > grace.0 {
            return Err(RecoveryRefusal::TooLate(claimed.not_after));
        }
        // As of the last moment at which it was good.
        let certificate = trust.judge(&self.chain, Expected::default(), claimed.not_after)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| Distrust::from(CertificateFault::Malformed))?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &parsed.public_key().subject_public_key.data);
        key.verify(&signed_text(&self.request, binding), &self.signature).map_err(|_| RecoveryRefusal::NoPossession)?;
        Ok((certificate.identity, CheckedRequest::read(&self.request)?))
    }
}

impl Authority {
    /// Answers a recovery. `is_member` tells whether the log still has the node with this role.
    ///
    /// # Errors
    /// Tells why it is refused.
    pub fn recover(
        &self,
        recovery: &Recovery,
        trust: &Trust,
        grace: Grace,
        binding: &[u8],
        lifetime: Lifetime,
        now: WallTime,
        is_member: impl FnOnce(&NodeIdentity) -> bool,
    ) -> Result<Issued, RecoveryRefusal> {
        let (identity, request) = recovery.judge(trust, grace, binding, now)?;
        if !is_member(&identity) {
            return Err(RecoveryRefusal::NotMember(identity.node));
        }
        Ok(self.issue(&request, &identity, lifetime, now)?)
    }
}

fn signed_text(request: &[u8], binding: &[u8]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new_derive_key("rads constellation 2026-11 certificate recovery v1");
    hasher.update(&(request.len() as u64).to_be_bytes()).update(request).update(binding);
    hasher.finalize().as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{NodeRole, Serial};

    fn certificate(node: u64) -> Certificate {
        let identity = NodeIdentity { cluster: "prod".parse().unwrap(), role: NodeRole::Worker, node: NodeId(node) };
        Certificate { identity, serial: Serial(1), not_before: WallTime(0), not_after: WallTime(6_000_000) }
    }

    #[test]
    fn nodes_renew_around_two_thirds_of_the_life_and_not_all_at_once() {
        let times: Vec<u64> = (0..1000).map(|node| renew_at(&certificate(node)).0).collect();
        assert!(times.iter().all(|time| (3_700_000..4_300_000).contains(time)));
        // A tenth of the life in ten parts: a thousand nodes, about a hundred in each.
        for part in 0..10 {
            let from = 3_700_000 + part * 60_000;
            let here = times.iter().filter(|&&time| (from..from + 60_000).contains(&time)).count();
            assert!((60..140).contains(&here), "{here} in part {part}");
        }
        assert_eq!(renew_at(&certificate(7)), renew_at(&certificate(7)));
    }

    #[test]
    fn a_renewal_that_fails_is_tried_again_more_often_towards_the_end() {
        let after = |failures, now| retry_after(failures, &certificate(1), WallTime(now)).as_secs();
        let far = Certificate { not_after: WallTime(u64::MAX), ..certificate(1) };
        assert_eq!(retry_after(1, &far, WallTime(0)).as_secs(), 60);
        assert_eq!(retry_after(3, &far, WallTime(0)).as_secs(), 240);
        assert_eq!(retry_after(u32::MAX, &far, WallTime(0)).as_secs(), 3600);
        assert_eq!(after(9, 5_900_000), 10);
        assert_eq!(after(9, 7_000_000), 1);
    }
}
