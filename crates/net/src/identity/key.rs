//! A node's own key pair: it never leaves the node, and asks for a certificate by a request that it signs.
//!
//! ECDSA on P-256: what hardware keeps (TPM 2.0, PKCS#11), what FIPS allows and what every browser and `openssl` reads,
//! which is not so of Ed25519; on x86-64 and arm64 `aws-lc-rs` signs about as fast with either.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use zeroize::Zeroizing;

use super::authority::IdentityError;

/// A key pair, overwritten when it is dropped.
pub struct NodeKey {
    pair: Zeroizing<KeyPair>,
}

impl NodeKey {
    /// A new key pair from the kernel's randomness. 20 µs or so.
    pub fn generate() -> Result<Self, IdentityError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IdentityError::crypto)?;
        Ok(Self { pair: Zeroizing::new(pair) })
    }

    /// Reads back what [`NodeKey::to_pkcs8`] gave.
    ///
    /// # Errors
    /// When it is no P-256 key pair in PKCS#8.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, IdentityError> {
        let der = PrivatePkcs8KeyDer::from(der);
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256);
        Ok(Self { pair: Zeroizing::new(pair.map_err(IdentityError::crypto)?) })
    }

    /// The private key in PKCS#8, for a file that is its owner's alone.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.pair.serialized_der().to_vec())
    }

    /// The public key as a SubjectPublicKeyInfo.
    pub fn public_key_info(&self) -> Vec<u8> {
        rcgen::PublicKeyData::subject_public_key_info(&*self.pair)
    }

    /// A request for a certificate (PKCS#10, DER): the public key and the proof that the private one is here. It asks
    /// for nothing: what the certificate says is the authority's to decide.
    pub fn request(&self) -> Result<Vec<u8>, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&*self.pair).map_err(IdentityError::crypto)?;
        Ok(request.der().to_vec())
    }

    /// Signs `message` (ECDSA P-256 over SHA-256, ASN.1).
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        self.pair.sign(message).map_err(IdentityError::crypto)
    }

    /// The key with a certificate chain, for TLS.
    ///
    /// # Errors
    /// When the chain's first certificate is not for this key.
    pub fn certified(&self, chain: Vec<CertificateDer<'static>>) -> Result<Arc<CertifiedKey>, IdentityError> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pair.serialized_der()));
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).map_err(IdentityError::crypto)?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(IdentityError::crypto)?;
        Ok(Arc::new(certified))
    }

    pub(super) fn pair(&self) -> &KeyPair {
        &self.pair
    }
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeKey")
    }
}
