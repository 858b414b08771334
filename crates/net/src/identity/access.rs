//! A token by which somebody is known to the API: `radk_` and 64 hexadecimal digits of a secret of 256 random bits.

use std::fmt;
use std::str::FromStr;

use model::ContentHash;
use zeroize::Zeroizing;

use super::random;

const PREFIX: &str = "radk_";
const SECRET_BYTES: usize = 32;

/// The token in the open; its secret is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(Zeroizing<[u8; SECRET_BYTES]>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no token of a grant: one is `{PREFIX}` and 64 of 0-9 and a-f")]
pub struct InvalidAccessToken;

impl AccessToken {
    pub fn generate() -> Self {
        Self(Zeroizing::new(random()))
    }

    /// Under what it is kept: a hash needs no salt where what is hashed has 256 random bits.
    pub fn hash(&self) -> ContentHash {
        ContentHash(blake3::derive_key("rads constellation 2026-11 access token v1", self.0.as_slice()))
    }

    /// The text to give away. Not `Display`, so that no log line has it by mistake.
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 2 * SECRET_BYTES));
        text.push_str(PREFIX);
        for byte in self.0.iter() {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
        }
        text
    }
}

impl FromStr for AccessToken {
    type Err = InvalidAccessToken;
    fn from_str(text: &str) -> Result<Self, InvalidAccessToken> {
        let digits = text.strip_prefix(PREFIX).ok_or(InvalidAccessToken)?.as_bytes();
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(InvalidAccessToken),
        };
        if digits.len() != 2 * SECRET_BYTES {
            return Err(InvalidAccessToken);
        }
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Ok(Self(secret))
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_from_its_text_and_from_no_other() {
        let token = AccessToken::generate();
        let text = token.reveal();
        assert_eq!(text.len(), 69);
        assert_eq!(text.parse(), Ok(token.clone()));
        assert_eq!(format!("{token:?}"), "AccessToken");
        assert_ne!(AccessToken::generate().hash(), token.hash());
        for wrong in ["", "radk_", &text[..68], &text[1..], &format!("{}0", text.as_str()), &text.to_uppercase()] {
            assert_eq!(wrong.parse::<AccessToken>(), Err(InvalidAccessToken), "{wrong}");
        }
        assert_eq!(format!("radk_{}", "é".repeat(32)).parse::<AccessToken>(), Err(InvalidAccessToken));
    }
}
