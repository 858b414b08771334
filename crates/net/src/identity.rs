//! Who is who: the authority and its certificates, tokens, and who is believed.
//!
//! Everything here is handed the time and does no input or output; only making keys, serial numbers and nonces asks
//! the kernel for random bytes. Its parts: [`keyring`] (the cluster's symmetric keys), [`authority`] (issues),
//! [`request`] (what is read of a request to issue), [`certificate`] (what is read of a certificate), [`token`] (an
//! invitation), [`trust`] (who is believed), [`renewal`] (when, and what if too late), [`key`] (a node's own); of those who use
//! the API from outside [`access`] (their tokens) and [`user`] (their certificates); [`pem`] (how files have all that).

pub mod access;
pub mod authority;
pub mod certificate;
pub mod key;
pub mod keyring;
pub mod pem;
pub mod renewal;
pub mod request;
pub mod token;
pub mod trust;
pub mod user;

pub use access::AccessToken;
pub use authority::{Authority, Issued, Lifetime, SealedAuthority};
pub use certificate::Certificate;
pub use key::NodeKey;
pub use keyring::{KeyRing, KeyUse};
pub use token::Token;
pub use trust::{Expected, Revoked, Trust};
pub use user::UserCertificate;

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

impl std::fmt::Display for KeyPin {
    /// `sha256:` and 64 hexadecimal digits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The text is no hash of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash of a key is `sha256:` and 64 of 0-9 and a-f")]
pub struct InvalidKeyPin;

impl std::str::FromStr for KeyPin {
    type Err = InvalidKeyPin;
    fn from_str(text: &str) -> Result<Self, InvalidKeyPin> {
        let digits = text.strip_prefix("sha256:").ok_or(InvalidKeyPin)?;
        let whole = digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let mut pin = [0; 32];
        for (at, byte) in pin.iter_mut().enumerate().filter(|_| whole) {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(|_| InvalidKeyPin)?;
        }
        if whole { Ok(Self(pin)) } else { Err(InvalidKeyPin) }
    }
}

/// The kernel's random bytes. They are there from early in the boot on; a machine that cannot give any cannot make
/// keys either, and there is nothing sensible to do without.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_read_back_from_its_text_only() {
        let pin = KeyPin(std::array::from_fn(|at| at as u8 * 7));
        let text = pin.to_string();
        assert_eq!(text.parse(), Ok(pin));
        for wrong in ["", "sha256:", &text[..70], &format!("{text}0"), &text.replace('0', "g"), &text[7..]] {
            assert_eq!(wrong.parse::<KeyPin>(), Err(InvalidKeyPin), "{wrong}");
        }
    }
}
