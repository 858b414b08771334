//! The cluster's certificate authority: made once at `init`, its key given out only sealed.
//!
//! It decides all a certificate says. Of a request it takes the public key; who the key belongs to is told by whoever
//! admitted the node. To rotate: [`Authority::successor`] makes a new key and has the old one certify it (the *cross*
//! certificate), so that a node that slept through the change still finds a way from the new authority to the old one
//! it trusts. Both are trusted until every certificate of the old one has run out or been renewed.

use std::time::Duration;

use model::{Name, NodeIdentity, Serial, WallTime};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::time::ASN1Time;

use super::certificate::{dns_name, public_key_info, uri_name};
use super::key::NodeKey;
use super::keyring::{OpenError, Sealer};
use super::request::CheckedRequest;
use super::user::user_uri;
use super::{KeyPin, random};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long an authority is good: longer than anyone plans, shorter than for ever. Rotation is what ends one.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// How far a certificate's life begins in the past: clocks of machines that join differ by minutes.
pub const BACKDATED: Duration = Duration::from_secs(10 * 60);

/// Longest life of a node's certificate.
pub const LIFETIME_MAX_DAYS: u16 = 365;

/// How long certificates of nodes are good, in days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Lifetime(u16);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("certificates last 1 to {LIFETIME_MAX_DAYS} days, not {0}")]
pub struct InvalidLifetime(pub u16);

impl Lifetime {
    /// A week: a stolen key is of use for days, and renewal is exercised often enough to be known to work.
    pub const DEFAULT: Self = Self(7);

    pub fn days(days: u16) -> Result<Self, InvalidLifetime> {
        if (1..=LIFETIME_MAX_DAYS).contains(&days) { Ok(Self(days)) } else { Err(InvalidLifetime(days)) }
    }

    pub fn duration(self) -> Duration {
        DAY * u32::from(self.0)
    }
}

impl TryFrom<u16> for Lifetime {
    type Error = InvalidLifetime;
    fn try_from(days: u16) -> Result<Self, InvalidLifetime> {
        Self::days(days)
    }
}

impl From<Lifetime> for u16 {
    fn from(lifetime: Lifetime) -> u16 {
        lifetime.0
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A key or a certificate is not what it should be, or could not be made.
    #[error("{0}")]
    Crypto(String),
    #[error("the authority's key does not open: {0}")]
    Sealed(#[from] OpenError),
    #[error("the authority's key is not the key of its certificate")]
    KeyMismatch,
    #[error("the authority's certificate has expired")]
    AuthorityExpired,
}

impl IdentityError {
    pub(super) fn crypto(error: impl std::fmt::Display) -> Self {
        Self::Crypto(error.to_string())
    }
}

/// An authority that can issue.
pub struct Authority {
    cluster: Name,
    key: NodeKey,
    certificate: CertificateDer<'static>,
    not_after: WallTime,
    /// Of a successor: its key certified by its predecessor, and that one's certificate.
    cross: Vec<CertificateDer<'static>>,
}

/// An authority as it is kept in the replicated state: all but the key in the open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedAuthority {
    pub cluster: Name,
    #[serde(with = "serde_bytes")]
    pub certificate: Vec<u8>,
    /// The private key (PKCS#8), sealed for [`super::KeyUse::Authority`] and bound to the certificate.
    #[serde(with = "serde_bytes")]
    pub sealed_key: Vec<u8>,
    pub not_after: WallTime,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cross: Vec<serde_bytes::ByteBuf>,
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The node's certificate, then what leads from it to any authority that may be trusted, and these themselves: a
    /// node that joins knows an authority by its key's hash only and must be shown it.
    pub chain: Vec<CertificateDer<'static>>,
    pub serial: Serial,
    pub not_before: WallTime,
    pub not_after: WallTime,
}

impl Authority {
    /// A new authority for a new cluster.
    pub fn create(cluster: &Name, now: WallTime) -> Result<Self, IdentityError> {
        let key = NodeKey::generate()?;
        let not_after = after(now, AUTHORITY_LIFE);
        let params = authority_params(cluster, &key, now, not_after, BasicConstraints::Constrained(1));
        let certificate = params.self_signed(key.pair()).map_err(IdentityError::crypto)?.der().clone();
        Ok(Self { cluster: cluster.clone(), key, certificate, not_after, cross: Vec::new() })
    }

    /// The next authority of the same cluster, vouched for by this one.
    ///
    /// # Errors
    /// When this one has itself expired.
    pub fn successor(&self, now: WallTime) -> Result<Self, IdentityError> {
        let mut next = Self::create(&self.cluster, now)?;
        let until = next.not_after.min(self.not_after);
        if until <= now {
            return Err(IdentityError::AuthorityExpired);
        }
        let params = authority_params(&self.cluster, &next.key, now, until, BasicConstraints::Constrained(0));
        let cross = self.sign(&params, next.key.pair())?;
        next.cross = vec![cross, self.certificate.clone()];
        Ok(next)
    }

    /// Forgets the predecessor, once nobody trusts it any more.
    pub fn without_cross(mut self) -> Self {
        self.cross.clear();
        self
    }

    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    /// The authority's own certificate: what nodes trust.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What a token carries of it.
    pub fn pin(&self) -> KeyPin {
        KeyPin::of(&self.key.public_key_info())
    }

    /// Issues a certificate for the key of `request` in the name of `subject`, good for `lifetime` from now on (and the
    /// [`BACKDATED`] minutes before), but not beyond the authority's own end.
    ///
    /// # Errors
    /// When the authority has expired.
    ///
    /// # Panics
    /// When `subject` is of another cluster: the caller has mixed up two clusters.
    pub fn issue(
        &self,
        request: &CheckedRequest,
        subject: &NodeIdentity,
        lifetime: Lifetime,
        now: WallTime,
    ) -> Result<Issued, IdentityError> {
        assert_eq!(subject.cluster, self.cluster, "an authority issues for its own cluster");
        if now >= self.not_after {
            return Err(IdentityError::AuthorityExpired);
        }
        // X.509 knows whole seconds only.
        let not_before = whole_seconds(before(now, BACKDATED));
        let not_after = whole_seconds(after(now, lifetime.duration()).min(self.not_after));
        let serial = random_serial();
        let ia5 = |text: String| text.try_into().map_err(IdentityError::crypto);
        let mut params = CertificateParams::default();
        set_validity(&mut params, not_before, not_after);
        params.serial_number = Some(SerialNumber::from(serial.0.to_be_bytes().to_vec()));
        params.subject_alt_names = vec![
            SanType::DnsName(ia5(dns_name(subject.node, &subject.cluster))?),
            SanType::URI(ia5(uri_name(subject))?),
        ];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject.node.to_string());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let mut chain = vec![self.sign(&params, request)?];
        chain.extend(self.presented().cloned());
        Ok(Issued { chain, serial, not_before, not_after })
    }

    /// Issues a certificate for the key of `request` in the name of a user, good until `not_after` or the authority's own end.
    /// It shows itself as a client only, and names no node.
    ///
    /// # Errors
    /// When the authority has expired.
    pub fn issue_user(
        &self,
        request: &CheckedRequest,
        name: &Name,
        not_after: WallTime,
        now: WallTime,
    ) -> Result<Issued, IdentityError> {
        if now >= self.not_after {
            return Err(IdentityError::AuthorityExpired);
        }
        let not_before = whole_seconds(before(now, BACKDATED));
        let not_after = whole_seconds(not_after.min(self.not_after));
        let serial = random_serial();
        let mut params = CertificateParams::default();
        set_validity(&mut params, not_before, not_after);
        params.serial_number = Some(SerialNumber::from(serial.0.to_be_bytes().to_vec()));
        let uri = user_uri(&self.cluster, name).try_into().map_err(IdentityError::crypto)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.to_string());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let mut chain = vec![self.sign(&params, request)?];
        chain.extend(self.presented().cloned());
        Ok(Issued { chain, serial, not_before, not_after })
    }

    /// What certificates of this authority are shown with: see [`Issued::chain`].
    fn presented(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.cross.iter().take(1).chain([&self.certificate]).chain(self.cross.iter().skip(1))
    }

    fn sign(
        &self,
        params: &CertificateParams,
        key: &impl rcgen::PublicKeyData,
    ) -> Result<CertificateDer<'static>, IdentityError> {
        let own =
            authority_params(&self.cluster, &self.key, WallTime(0), self.not_after, BasicConstraints::Constrained(1));
        let issuer = Issuer::<&KeyPair>::from_params(&own, self.key.pair());
        Ok(params.signed_by(key, &issuer).map_err(IdentityError::crypto)?.der().clone())
    }

    /// The authority with its key sealed under the first key of the ring.
    pub fn seal(&self, sealer: &Sealer) -> SealedAuthority {
        SealedAuthority {
            cluster: self.cluster.clone(),
            certificate: self.certificate.to_vec(),
            sealed_key: sealer.seal(&self.certificate, &self.key.to_pkcs8()),
            not_after: self.not_after,
            cross: self.cross.iter().map(|der| serde_bytes::ByteBuf::from(der.to_vec())).collect(),
        }
    }

    /// Opens what [`Authority::seal`] made, under any key of the ring.
    ///
    /// # Errors
    /// When it is damaged, or sealed under a key that is not in the ring.
    pub fn open(sealed: &SealedAuthority, sealer: &Sealer) -> Result<Self, IdentityError> {
        let key = NodeKey::from_pkcs8(&sealer.open(&sealed.certificate, &sealed.sealed_key)?)?;
        let certificate = CertificateDer::from(sealed.certificate.clone());
        let certified = public_key_info(&certificate).map_err(IdentityError::crypto)?;
        if certified != key.public_key_info() {
            return Err(IdentityError::KeyMismatch);
        }
        let cross = sealed.cross.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        Ok(Self { cluster: sealed.cluster.clone(), key, certificate, not_after: sealed.not_after, cross })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.cluster)
    }
}

/// An authority's certificate. Its name carries its key's hash, so that two of one cluster are told apart.
fn authority_params(
    cluster: &Name,
    key: &NodeKey,
    now: WallTime,
    not_after: WallTime,
    constraints: BasicConstraints,
) -> CertificateParams {
    let pin = KeyPin::of(&key.public_key_info()).0;
    let short: String = pin[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut params = CertificateParams::default();
    set_validity(&mut params, before(now, BACKDATED), not_after);
    params.serial_number = Some(SerialNumber::from(random_serial().0.to_be_bytes().to_vec()));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, cluster.to_string());
    params.distinguished_name.push(DnType::CommonName, format!("RADS Constellation authority {short}"));
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// 127 random bits: positive, and never the same twice.
fn random_serial() -> Serial {
    Serial(u128::from_be_bytes(random()) >> 1)
}

fn after(time: WallTime, rest: Duration) -> WallTime {
    WallTime(time.0.saturating_add(millis(rest)))
}

fn before(time: WallTime, rest: Duration) -> WallTime {
    WallTime(time.0.saturating_sub(millis(rest)))
}

fn millis(rest: Duration) -> u64 {
    u64::try_from(rest.as_millis()).unwrap_or(u64::MAX)
}

fn whole_seconds(time: WallTime) -> WallTime {
    WallTime(time.0 - time.0 % 1000)
}

/// Sets the whole seconds between which a certificate is good. A clock beyond the year 9999 stays there: it is wrong anyway.
fn set_validity(params: &mut CertificateParams, not_before: WallTime, not_after: WallTime) {
    const YEAR_9999: i64 = 253_402_300_799;
    let date = |time: WallTime| {
        let seconds = i64::try_from(time.0 / 1000).unwrap_or(YEAR_9999).min(YEAR_9999);
        ASN1Time::from_timestamp(seconds).expect("a second before the year 10000").to_datetime()
    };
    (params.not_before, params.not_after) = (date(not_before), date(not_after));
}
