//! The cluster's symmetric keys: the first seals, any opens.
//!
//! A ring holds 256-bit keys under numbers. To rotate without a pause: add the new key at the end everywhere, put it
//! first everywhere, take the old one away everywhere; at every moment all members open what any of them seals.
//! What is sealed for one [`KeyUse`] does not open for another: each uses a key of its own, derived by BLAKE3.

use chacha20poly1305::aead::{Aead, AeadInOut, KeyInit, Payload};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::random;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
pub const NONCE_BYTES: usize = 24;
/// What sealing adds to the plaintext beside number and nonce.
pub const TAG_BYTES: usize = 16;
/// Most keys of a ring: the one in use, one coming, and what a slow member may still use.
pub const KEYS_MAX: usize = 8;

/// What a sealed thing is; part of the derivation of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    /// The authority's private key, in the replicated state and in backups.
    Authority,
    /// Membership datagrams.
    Datagram,
    /// Keys of other rings, in the replicated state.
    Ring,
    /// Values of secrets on their way and in the replicated state.
    Secret,
    /// Answers that tell a secret, kept in the replicated state for who asks again.
    Answer,
}

impl KeyUse {
    /// Contexts of `blake3::derive_key`: fixed for ever, one for each purpose.
    fn context(self) -> &'static str {
        match self {
            Self::Authority => "rads constellation 2026-11 authority key v1",
            Self::Datagram => "rads constellation 2026-11 membership datagram v1",
            Self::Ring => "rads constellation 2026-11 key of a ring v1",
            Self::Secret => "rads constellation 2026-11 secret value v1",
            Self::Answer => "rads constellation 2026-11 answer under a key v1",
        }
    }
}

/// A key's number within its cluster; chosen by whoever adds it, never used again for another key.
pub type KeyNumber = u32;

struct Key {
    number: KeyNumber,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

/// The keys of a cluster, the one that seals first. Never empty.
pub struct KeyRing {
    keys: Vec<Key>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    #[error("a key ring holds 1 to {KEYS_MAX} keys")]
    Size,
    #[error("two keys of the ring have the number {0}")]
    Twice(KeyNumber),
}

/// What was sealed does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("sealed under key {0}, which the key ring does not hold")]
    UnknownKey(KeyNumber),
    #[error("damaged, or sealed under another key or for another purpose")]
    Forged,
    #[error("too short to be anything sealed")]
    Short,
}

impl KeyRing {
    /// A ring of the given keys, the first of which seals.
    ///
    /// # Errors
    /// When it would be empty, too large, or hold one number twice.
    pub fn new(keys: impl IntoIterator<Item = (KeyNumber, [u8; KEY_BYTES])>) -> Result<Self, KeyRingError> {
        let keys: Vec<Key> =
            keys.into_iter().map(|(number, bytes)| Key { number, bytes: Zeroizing::new(bytes) }).collect();
        if keys.is_empty() || keys.len() > KEYS_MAX {
            return Err(KeyRingError::Size);
        }
        let twice =
            keys.iter().enumerate().find(|(at, key)| keys[..*at].iter().any(|other| other.number == key.number));
        match twice {
            Some((_, key)) => Err(KeyRingError::Twice(key.number)),
            None => Ok(Self { keys }),
        }
    }

    /// A new random key.
    pub fn generate_key() -> Zeroizing<[u8; KEY_BYTES]> {
        Zeroizing::new(random())
    }

    /// The numbers of the keys, the sealing one first.
    pub fn numbers(&self) -> impl Iterator<Item = KeyNumber> + '_ {
        self.keys.iter().map(|key| key.number)
    }

    /// The keys made ready for one purpose.
    pub fn for_use(&self, of: KeyUse) -> Sealer {
        let derive = |key: &Key| {
            let derived = Zeroizing::new(blake3::derive_key(of.context(), key.bytes.as_slice()));
            (key.number, XChaCha20Poly1305::new((&*derived).into()))
        };
        Sealer { ciphers: self.keys.iter().map(derive).collect() }
    }
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.numbers()).finish()
    }
}

/// A ring's keys for one purpose.
#[derive(Clone)]
pub struct Sealer {
    ciphers: Vec<(KeyNumber, XChaCha20Poly1305)>,
}

impl Sealer {
    /// Seals under the first key with a random nonce, bound to `context` (what else must agree when it is opened).
    /// The form: key number u32 big-endian, nonce, ciphertext with its tag.
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Vec<u8> {
        let (number, cipher) = &self.ciphers[0];
        let nonce: [u8; NONCE_BYTES] = random();
        let payload = Payload { msg: plain, aad: context };
        // Fails for more than 256 GiB only.
        let sealed = cipher.encrypt(&XNonce::from(nonce), payload).expect("shorter than the cipher's limit");
        [&number.to_be_bytes()[..], &nonce, &sealed].concat()
    }

    /// Opens what [`Sealer::seal`] made with the same `context`.
    ///
    /// # Errors
    /// When its key is not in the ring, or it is not what was sealed.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (number, rest) = sealed.split_first_chunk::<4>().ok_or(OpenError::Short)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::Short)?;
        let cipher = self.cipher(KeyNumber::from_be_bytes(*number))?;
        let plain = cipher.decrypt(&XNonce::from(*nonce), Payload { msg: body, aad: context });
        plain.map(Zeroizing::new).map_err(|_| OpenError::Forged)
    }

    /// The number of the key that seals.
    pub(crate) fn sealing(&self) -> KeyNumber {
        self.ciphers[0].0
    }

    /// Seals `buffer` where it lies, under the first key and a nonce that was never used with it.
    pub(crate) fn seal_in_place(
        &self,
        nonce: &[u8; NONCE_BYTES],
        context: &[u8],
        buffer: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        let sealed = self.ciphers[0].1.encrypt_inout_detached(&XNonce::from(*nonce), context, buffer.into());
        sealed.expect("shorter than the cipher's limit").into()
    }

    /// Opens `buffer` where it lies.
    pub(crate) fn open_in_place(
        &self,
        number: KeyNumber,
        nonce: &[u8; NONCE_BYTES],
        context: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), OpenError> {
        let cipher = self.cipher(number)?;
        let opened = cipher.decrypt_inout_detached(&XNonce::from(*nonce), context, buffer.into(), &Tag::from(*tag));
        opened.map_err(|_| OpenError::Forged)
    }

    fn cipher(&self, number: KeyNumber) -> Result<&XChaCha20Poly1305, OpenError> {
        let found = self.ciphers.iter().find(|(of, _)| *of == number);
        found.map(|(_, cipher)| cipher).ok_or(OpenError::UnknownKey(number))
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.ciphers.iter().map(|(number, _)| number)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(numbers: &[u32]) -> KeyRing {
        KeyRing::new(numbers.iter().map(|&n| (n, [n as u8; KEY_BYTES]))).unwrap()
    }

    #[test]
    fn a_ring_is_not_empty_not_large_and_has_no_number_twice() {
        assert_eq!(KeyRing::new([]).unwrap_err(), KeyRingError::Size);
        assert_eq!(KeyRing::new((0..9).map(|n| (n, [0; 32]))).unwrap_err(), KeyRingError::Size);
        assert_eq!(KeyRing::new([(3, [0; 32]), (3, [1; 32])]).unwrap_err(), KeyRingError::Twice(3));
    }

    #[test]
    fn a_key_is_changed_without_a_moment_in_which_members_do_not_understand_each_other() {
        let stages = [ring(&[1]), ring(&[1, 2]), ring(&[2, 1]), ring(&[2])];
        let sealers: Vec<Sealer> = stages.iter().map(|ring| ring.for_use(KeyUse::Secret)).collect();
        for pair in sealers.windows(2) {
            for (from, to) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
                assert_eq!(to.open(b"c", &from.seal(b"c", b"text")).unwrap().as_slice(), b"text");
            }
        }
        // The control: two steps at once are not understood.
        assert_eq!(sealers[3].open(b"c", &sealers[0].seal(b"c", b"text")), Err(OpenError::UnknownKey(1)));
    }

    #[test]
    fn what_is_sealed_opens_only_whole_for_its_purpose_and_in_its_context() {
        let ring = ring(&[1]);
        let sealer = ring.for_use(KeyUse::Secret);
        let sealed = sealer.seal(b"a", b"text");
        assert_eq!(sealer.open(b"b", &sealed), Err(OpenError::Forged));
        assert_eq!(ring.for_use(KeyUse::Datagram).open(b"a", &sealed), Err(OpenError::Forged));
        for at in 4..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(sealer.open(b"a", &damaged), Err(OpenError::Forged), "byte {at}");
        }
        for length in 0..sealed.len() {
            assert!(sealer.open(b"a", &sealed[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn keys_are_not_shown() {
        assert_eq!(format!("{:?}", ring(&[1, 2])), "[1, 2]");
    }
}
