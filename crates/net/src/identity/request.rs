//! What is read of a request for a certificate (PKCS#10): its public key, and the proof that whoever asks holds the
//! private one. Everything else in it is ignored.

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SignatureAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ED25519};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Largest request that is looked at. One for P-256 that asks for nothing has 180 bytes.
pub const REQUEST_MAX_BYTES: usize = 8 * 1024;

/// A public key whose owner proved to hold the private one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedRequest {
    key: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestRefusal {
    #[error("the certificate request has more than {REQUEST_MAX_BYTES} bytes")]
    TooLarge,
    #[error("the certificate request is not a PKCS#10 request in DER")]
    Malformed,
    #[error("the certificate request is for another kind of key than ECDSA P-256 or Ed25519")]
    UnknownAlgorithm,
    #[error("the certificate request is not signed by the key it is for")]
    NoPossession,
}

impl CheckedRequest {
    /// Reads a request in DER. Costs one signature check at most.
    ///
    /// # Errors
    /// Tells why it is refused.
    pub fn read(der: &[u8]) -> Result<Self, RequestRefusal> {
        if der.len() > REQUEST_MAX_BYTES {
            return Err(RequestRefusal::TooLarge);
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| RequestRefusal::Malformed)?;
        if !rest.is_empty() {
            return Err(RequestRefusal::Malformed);
        }
        let key = &request.certification_request_info.subject_pki;
        let signed_by = &request.signature_algorithm.algorithm;
        let algorithm: &'static SignatureAlgorithm = if is_p256(key) && *signed_by == OID_SIG_ECDSA_WITH_SHA256 {
            &PKCS_ECDSA_P256_SHA256
        } else if key.algorithm.algorithm == OID_SIG_ED25519 && *signed_by == OID_SIG_ED25519 {
            &PKCS_ED25519
        } else {
            return Err(RequestRefusal::UnknownAlgorithm);
        };
        request.verify_signature().map_err(|_| RequestRefusal::NoPossession)?;
        Ok(Self { key: key.subject_public_key.data.to_vec(), algorithm })
    }
}

impl PublicKeyData for CheckedRequest {
    fn der_bytes(&self) -> &[u8] {
        &self.key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

fn is_p256(key: &SubjectPublicKeyInfo<'_>) -> bool {
    let curve = key.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
    key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::NodeKey;
    use proptest::prelude::*;

    fn request() -> Vec<u8> {
        NodeKey::generate().unwrap().request().unwrap()
    }

    #[test]
    fn the_key_of_a_request_is_read() {
        let key = NodeKey::generate().unwrap();
        let read = CheckedRequest::read(&key.request().unwrap()).unwrap();
        assert_eq!(read.subject_public_key_info(), key.public_key_info());
        let ed25519 = rcgen::KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let asked = rcgen::CertificateParams::default().serialize_request(&ed25519).unwrap();
        assert_eq!(CheckedRequest::read(asked.der()).unwrap().der_bytes(), ed25519.public_key_raw());
    }

    #[test]
    fn other_keys_and_sizes_are_refused() {
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let asked = rcgen::CertificateParams::default().serialize_request(&p384).unwrap();
        assert_eq!(CheckedRequest::read(asked.der()), Err(RequestRefusal::UnknownAlgorithm));
        let mut long = request();
        long.resize(REQUEST_MAX_BYTES + 1, 0);
        assert_eq!(CheckedRequest::read(&long), Err(RequestRefusal::TooLarge));
        let mut trailing = request();
        trailing.push(0);
        assert_eq!(CheckedRequest::read(&trailing), Err(RequestRefusal::Malformed));
    }

    #[test]
    fn a_request_for_the_key_of_another_is_refused() {
        let (mine, other) = (NodeKey::generate().unwrap(), NodeKey::generate().unwrap());
        let mut request = mine.request().unwrap();
        let (from, to) = (mine.public_key_info(), other.public_key_info());
        let at = request.windows(from.len()).position(|window| window == from).unwrap();
        request[at..at + to.len()].copy_from_slice(&to);
        assert_eq!(CheckedRequest::read(&request), Err(RequestRefusal::NoPossession));
    }

    #[test]
    fn a_changed_request_is_refused_or_is_for_the_same_key_and_no_byte_may_be_missing() {
        let request = request();
        let key = CheckedRequest::read(&request).unwrap();
        let mut accepted = 0;
        for at in 0..request.len() {
            let mut damaged = request.clone();
            damaged[at] ^= 0x01;
            // What wraps key and signature is not signed, and not all of it is read.
            if let Ok(read) = CheckedRequest::read(&damaged) {
                assert_eq!(read, key, "byte {at}");
                accepted += 1;
            }
            assert!(CheckedRequest::read(&request[..at]).is_err(), "{at} bytes");
        }
        assert!(accepted < 5, "{accepted}");
    }

    proptest! {
        #[test]
        fn garbage_is_refused(garbage in proptest::collection::vec(any::<u8>(), 0..REQUEST_MAX_BYTES + 2)) {
            prop_assert!(CheckedRequest::read(&garbage).is_err());
        }

        #[test]
        fn a_request_with_bytes_put_in_is_refused(at in 0usize..180, what in proptest::collection::vec(any::<u8>(), 1..300)) {
            let mut request = request();
            let at = at.min(request.len());
            request.splice(at..at, what);
            prop_assert!(CheckedRequest::read(&request).is_err());
        }
    }
}
