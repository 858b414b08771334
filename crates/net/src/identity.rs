//! Who is who: the authority and its certificates, tokens, and who is believed.
//!
//! Everything here is handed the time and does no input or output; only making keys, serial numbers and nonces asks
//! the kernel for random bytes. Its parts: [`keyring`] (the cluster's symmetric keys), [`authority`] (issues),
//! [`request`] (what is read of a request to issue), [`certificate`] (what is read of a certificate), [`token`] (an
//! invitation), [`trust`] (who is believed), [`renewal`] (when, and what if too late), [`key`] (a node's own).

pub mod authority;
pub mod certificate;
pub mod key;
pub mod keyring;
pub mod renewal;
pub mod request;
pub mod token;
pub mod trust;

pub use authority::{Authority, Issued, Lifetime, SealedAuthority};
pub use certificate::Certificate;
pub use key::NodeKey;
pub use keyring::{KeyRing, KeyUse};
pub use token::Token;
pub use trust::{Expected, Revoked, Trust};

/// SHA-256 of a public key's SubjectPublicKeyInfo, by which a joining machine knows the authority. SHA-256 because a
/// person can compute it with what every system has: `openssl x509 -pubkey | openssl pkey -pubin -outform der | sha256sum`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyPin(pub [u8; 32]);

impl KeyPin {
    pub fn of(subject_public_key_info: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, subject_public_key_info);
        let mut pin = [0; 32];
        pin.copy_from_slice(digest.as_ref());
        Self(pin)
    }
}

/// The kernel's random bytes. They are there from early in the boot on; a machine that cannot give any cannot make
/// keys either, and there is nothing sensible to do without.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}
