//! What is read of a node's certificate: who it names, its serial number, and from when until when.
//!
//! Whether to believe it is [`super::trust`]'s. It names one node twice, `DNS:<node>.node.<cluster>` (what X.509
//! libraries compare; the underscore of the id is a hyphen there, as host names have none) and `URI:rads://<cluster>/<role>/<node>` (which has the role too), and nothing else.

use model::{Name, NodeId, NodeIdentity, NodeRole, Serial, WallTime};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Largest certificate that is looked at; ours have 700 bytes.
pub const CERTIFICATE_MAX_BYTES: usize = 8 * 1024;

/// What a certificate says; not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub identity: NodeIdentity,
    pub serial: Serial,
    /// The first moment at which it is good (whole seconds).
    pub not_before: WallTime,
    /// The last moment at which it is good (whole seconds).
    pub not_after: WallTime,
}

/// It is no certificate of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    #[error("the certificate is not X.509 in DER")]
    Malformed,
    #[error("the certificate does not name one node of one cluster")]
    Nameless,
    #[error("the certificate's serial number has more than 128 bits")]
    Serial,
}

/// The name under which X.509 libraries look for a node.
pub fn dns_name(node: NodeId, cluster: &Name) -> String {
    format!("{}.node.{cluster}", node.to_string().replace('_', "-"))
}

/// The name that says all of an identity.
pub fn uri_name(identity: &NodeIdentity) -> String {
    format!("rads://{}/{}/{}", identity.cluster, identity.role, identity.node)
}

impl Certificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// When it is not one, or not one of a node.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, CertificateFault> {
        let certificate = parse(der)?;
        let named = certificate.subject_alternative_name().map_err(|_| CertificateFault::Malformed)?;
        let names = named.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let [GeneralName::DNSName(dns), GeneralName::URI(uri)] = names else { return Err(CertificateFault::Nameless) };
        let identity = parse_uri(uri).ok_or(CertificateFault::Nameless)?;
        if *dns != dns_name(identity.node, &identity.cluster) {
            return Err(CertificateFault::Nameless);
        }
        let serial = Serial(serial(certificate.raw_serial()).ok_or(CertificateFault::Serial)?);
        let validity = certificate.validity();
        let moment = |seconds: i64| WallTime(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
        Ok(Self {
            identity,
            serial,
            not_before: moment(validity.not_before.timestamp()),
            not_after: moment(validity.not_after.timestamp()),
        })
    }
}

/// The SubjectPublicKeyInfo of any certificate.
///
/// # Errors
/// When it is none.
pub fn public_key_info(der: &CertificateDer<'_>) -> Result<Vec<u8>, CertificateFault> {
    Ok(parse(der)?.public_key().raw.to_vec())
}

pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateFault> {
    if der.len() > CERTIFICATE_MAX_BYTES {
        return Err(CertificateFault::Malformed);
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(CertificateFault::Malformed),
    }
}

fn parse_uri(uri: &str) -> Option<NodeIdentity> {
    let mut parts = uri.strip_prefix("rads://")?.split('/');
    let (cluster, role, node) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    Some(NodeIdentity {
        cluster: cluster.parse().ok()?,
        role: role.parse::<NodeRole>().ok()?,
        node: node.parse().ok()?,
    })
}

/// A serial number's content as DER writes it: big-endian, with a zero in front when the first bit is set.
fn serial(raw: &[u8]) -> Option<u128> {
    let digits = raw.strip_prefix(&[0]).unwrap_or(raw);
    (digits.len() <= 16).then(|| digits.iter().fold(0, |value, &byte| value << 8 | u128::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_read_only_as_they_are_written() {
        let identity = NodeIdentity { cluster: "prod".parse().unwrap(), role: NodeRole::Worker, node: NodeId(7) };
        let uri = "rads://prod/worker/node_0000000000007";
        assert_eq!(uri_name(&identity), uri);
        assert_eq!(parse_uri(uri), Some(identity));
        for other in [
            "rads://prod/worker/node_0000000000007/",
            "rads://prod/worker/node_0000000000007?x",
            "rads://prod/admin/node_0000000000007",
            "rads://Prod/worker/node_0000000000007",
            "rads:///worker/node_0000000000007",
            "rads://prod/worker/star_0000000000007",
            "RADS://prod/worker/node_0000000000007",
            "https://prod/worker/node_0000000000007",
            "",
        ] {
            assert_eq!(parse_uri(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused(garbage in proptest::collection::vec(any::<u8>(), 0..CERTIFICATE_MAX_BYTES + 2)) {
            prop_assert!(Certificate::read(&CertificateDer::from(garbage)).is_err());
        }
    }
}
