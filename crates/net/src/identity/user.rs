//! What is read of a user's certificate: the name of a grant, and the key that proves it. It names no node, so that it opens no
//! connection between nodes.

use model::{ContentHash, Name, WallTime};
use rcgen::PublicKeyData;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use super::certificate::{CertificateFault, parse, public_key_info};
use super::request::CheckedRequest;

/// What a certificate says; not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserCertificate {
    pub cluster: Name,
    pub name: Name,
    /// BLAKE3 of its key's SubjectPublicKeyInfo.
    pub key: ContentHash,
    /// The last moment at which it is good (whole seconds).
    pub not_after: WallTime,
}

pub(super) fn user_uri(cluster: &Name, name: &Name) -> String {
    format!("rads://{cluster}/user/{name}")
}

/// Under what the key of a request is known once it has a certificate.
pub fn key_hash(request: &CheckedRequest) -> ContentHash {
    ContentHash(*blake3::hash(&request.subject_public_key_info()).as_bytes())
}

impl UserCertificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// When it is not one, or not one of a user.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, CertificateFault> {
        let certificate = parse(der)?;
        let named = certificate.subject_alternative_name().map_err(|_| CertificateFault::Malformed)?;
        let names = named.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let [GeneralName::URI(uri)] = names else { return Err(CertificateFault::Nameless) };
        let (cluster, name) = parse_uri(uri).ok_or(CertificateFault::Nameless)?;
        let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        let key = ContentHash(*blake3::hash(&public_key_info(der)?).as_bytes());
        Ok(Self { cluster, name, key, not_after: WallTime(seconds.saturating_mul(1000)) })
    }
}

fn parse_uri(uri: &str) -> Option<(Name, Name)> {
    let (cluster, rest) = uri.strip_prefix("rads://")?.split_once('/')?;
    Some((cluster.parse().ok()?, rest.strip_prefix("user/")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::{Authority, Certificate, Expected, NodeKey, Revoked, Trust};
    use super::*;

    const NOW: WallTime = WallTime(1_795_000_000_000);

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn a_users_certificate_is_believed_of_its_authority_only_and_names_no_node() {
        let authority = Authority::create(&name("prod"), NOW).unwrap();
        let request = CheckedRequest::read(&NodeKey::generate().unwrap().request().unwrap()).unwrap();
        let end = WallTime(NOW.0 + 60_000);
        let issued = authority.issue_user(&request, &name("ann"), end, NOW).unwrap();
        let trust = |authority: &Authority| {
            Trust::new(name("prod"), vec![authority.certificate().clone()], Revoked::default()).unwrap()
        };
        let believed = trust(&authority).judge_user(&issued.chain, NOW).unwrap();
        assert_eq!((believed.name, believed.key, believed.not_after), (name("ann"), key_hash(&request), end));
        assert!(trust(&authority).judge_user(&issued.chain, WallTime(end.0 + 1000)).is_err());
        let other = Authority::create(&name("prod"), NOW).unwrap();
        assert!(trust(&other).judge_user(&issued.chain, NOW).is_err());
        assert!(Certificate::read(&issued.chain[0]).is_err());
        assert!(trust(&authority).judge(&issued.chain, Expected::default(), NOW).is_err());
    }

    #[test]
    fn names_are_read_only_as_they_are_written() {
        assert_eq!(parse_uri("rads://prod/user/ann"), Some((name("prod"), name("ann"))));
        for other in ["rads://prod/user/", "rads://prod/user/ann/", "rads://prod/admin/ann", "rads://prod/user/A", ""] {
            assert_eq!(parse_uri(other), None, "{other}");
        }
    }
}
