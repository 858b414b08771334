//! An invitation to join: `rads1_<cluster>_<secret, authority, check>`.
//!
//! The last part is, in Crockford's base 32 (no `i l o u`, either case), 32 bytes of secret, the 32 bytes of the authority's
//! [`KeyPin`] and 4 bytes of BLAKE3 over all before them and the cluster's name: 109 characters. By the check a slip of
//! the keyboard is told from a token that is good for nothing; by the pin a joining machine knows that it speaks with
//! the cluster it was invited to, before it shows the secret. Of the secret only a hash is kept anywhere.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use model::bundle::ContentHash;
use model::identity::{JoinTicket, TicketRefusal};
use model::{Name, NodeRole, WallTime};
use zeroize::Zeroizing;

use super::{KeyPin, random};

/// How long a token is good unless it is said otherwise.
pub const TOKEN_LIFE: Duration = Duration::from_secs(60 * 60);

const PREFIX: &str = "rads1";
const SECRET_BYTES: usize = 32;
const PIN_BYTES: usize = 32;
const CHECK_BYTES: usize = 4;
const BODY_BYTES: usize = SECRET_BYTES + PIN_BYTES + CHECK_BYTES;
const BODY_CHARS: usize = (BODY_BYTES * 8).div_ceil(5);
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A token in the open; its secret is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    cluster: Name,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
    pin: KeyPin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    #[error("this is not a join token: one starts with `rads1_`")]
    Kind,
    #[error("the join token is not complete: its last part has {BODY_CHARS} characters, this one {0}")]
    Length(usize),
    #[error("the join token has a typing error")]
    Typo,
}

/// Why a token does not let a machine join.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    #[error("the token is for cluster `{0}`")]
    OtherCluster(Name),
    #[error(transparent)]
    Ticket(#[from] TicketRefusal),
}

impl Token {
    /// A new token, and what is kept of it.
    pub fn generate(
        cluster: &Name,
        pin: KeyPin,
        role: NodeRole,
        uses_max: u32,
        life: Duration,
        now: WallTime,
    ) -> (Self, JoinTicket) {
        let token = Self { cluster: cluster.clone(), secret: Zeroizing::new(random()), pin };
        let life = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        let expires = WallTime(now.0.saturating_add(life));
        let ticket = JoinTicket { hash: token.hash(), role, expires, uses_max, uses: 0 };
        (token, ticket)
    }

    /// The token of this secret and authority.
    #[cfg(fuzzing)]
    pub fn from_parts(cluster: Name, body: &[u8; SECRET_BYTES + PIN_BYTES]) -> Self {
        let (mut secret, mut pin) = ([0; SECRET_BYTES], [0; PIN_BYTES]);
        secret.copy_from_slice(&body[..SECRET_BYTES]);
        pin.copy_from_slice(&body[SECRET_BYTES..]);
        Self { cluster, secret: Zeroizing::new(secret), pin: KeyPin(pin) }
    }

    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    /// Which authority the cluster has.
    pub fn pin(&self) -> KeyPin {
        self.pin
    }

    /// Under what it is kept: a hash needs no salt where what is hashed has 256 random bits.
    pub fn hash(&self) -> ContentHash {
        ContentHash(blake3::derive_key("rads constellation 2026-11 join token v1", self.secret.as_slice()))
    }

    /// Whether it lets a machine become a `role` of `cluster` now, by what was kept of it.
    ///
    /// # Errors
    /// Tells why not.
    pub fn check(
        &self,
        ticket: &JoinTicket,
        cluster: &Name,
        role: NodeRole,
        now: WallTime,
    ) -> Result<(), TokenRefusal> {
        if self.cluster != *cluster {
            return Err(TokenRefusal::OtherCluster(self.cluster.clone()));
        }
        Ok(ticket.admits(self.hash(), role, now)?)
    }

    /// The text to give away. Not `Display`, so that no log line has it by mistake.
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut body = Zeroizing::new([0; BODY_BYTES]);
        body[..SECRET_BYTES].copy_from_slice(self.secret.as_slice());
        body[SECRET_BYTES..SECRET_BYTES + PIN_BYTES].copy_from_slice(&self.pin.0);
        let check = check(&self.cluster, &body[..SECRET_BYTES + PIN_BYTES]);
        body[SECRET_BYTES + PIN_BYTES..].copy_from_slice(&check);
        Zeroizing::new(format!("{PREFIX}_{}_{}", self.cluster, encode(&body).as_str()))
    }
}

impl FromStr for Token {
    type Err = InvalidToken;
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let rest =
            text.trim().strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('_')).ok_or(InvalidToken::Kind)?;
        let (cluster, digits) = rest.split_once('_').ok_or(InvalidToken::Length(0))?;
        let cluster: Name = cluster.parse().map_err(|_| InvalidToken::Typo)?;
        if digits.len() != BODY_CHARS {
            return Err(InvalidToken::Length(digits.chars().count()));
        }
        let body = decode(digits.as_bytes()).ok_or(InvalidToken::Typo)?;
        let (said, checked) = body.split_at(SECRET_BYTES + PIN_BYTES);
        if checked != check(&cluster, said) {
            return Err(InvalidToken::Typo);
        }
        let (mut secret, mut pin) = (Zeroizing::new([0; SECRET_BYTES]), [0; PIN_BYTES]);
        secret.copy_from_slice(&said[..SECRET_BYTES]);
        pin.copy_from_slice(&said[SECRET_BYTES..]);
        Ok(Self { cluster, secret, pin: KeyPin(pin) })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.cluster)
    }
}

fn check(cluster: &Name, body: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key("rads constellation 2026-11 join token check v1");
    hasher.update(cluster.as_str().as_bytes()).update(b"_").update(body);
    let mut check = [0; CHECK_BYTES];
    hasher.finalize_xof().fill(&mut check);
    check
}

fn encode(body: &[u8; BODY_BYTES]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(BODY_CHARS));
    for digit in 0..BODY_CHARS {
        let value = (0..5).fold(0, |value, bit| value << 1 | bit_of(body, digit * 5 + bit));
        text.push(char::from(DIGITS[usize::from(value)]));
    }
    text
}

/// The `at`-th bit, the highest of the first byte first; zero beyond the end.
fn bit_of(body: &[u8], at: usize) -> u8 {
    body.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1)
}

fn decode(digits: &[u8]) -> Option<Zeroizing<[u8; BODY_BYTES]>> {
    let mut body = Zeroizing::new([0_u8; BODY_BYTES]);
    for (at, digit) in digits.iter().enumerate() {
        let value = DIGITS.iter().position(|known| known.eq_ignore_ascii_case(digit))?;
        for bit in (0..5).filter(|bit| value >> (4 - bit) & 1 == 1) {
            let place = at * 5 + bit;
            // Bits beyond the last byte are zero, so that a token has one text only (but for case).
            *body.get_mut(place / 8)? |= 0x80 >> (place % 8);
        }
    }
    Some(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: WallTime = WallTime(1_000_000);

    fn token() -> (Token, JoinTicket) {
        Token::generate(&"prod-1".parse().unwrap(), KeyPin([9; 32]), NodeRole::Worker, 1, TOKEN_LIFE, NOW)
    }

    #[test]
    fn a_token_is_read_back_from_its_text_in_either_case_and_with_spaces_around() {
        let (token, _) = token();
        let text = token.reveal();
        assert!(text.starts_with("rads1_prod-1_"), "{}", text.as_str());
        assert_eq!(text.len(), "rads1_prod-1_".len() + 109);
        assert_eq!(text.parse::<Token>().unwrap(), token);
        assert_eq!(format!(" {}\n", text.as_str()).parse::<Token>().unwrap(), token);
        let (head, tail) = text.rsplit_once('_').unwrap();
        assert_eq!(format!("{head}_{}", tail.to_uppercase()).parse::<Token>().unwrap(), token);
        assert_eq!(format!("{token:?}"), "Token(prod-1)");
    }

    #[test]
    fn every_slip_is_told_from_a_wrong_token() {
        let (token, _) = token();
        let text = token.reveal();
        for at in "rads1_".len()..text.len() {
            let mut slip = text.as_bytes().to_vec();
            slip[at] = if slip[at] == b'7' { b'8' } else { b'7' };
            let slip = String::from_utf8(slip).unwrap();
            assert!(matches!(slip.parse::<Token>(), Err(InvalidToken::Typo | InvalidToken::Length(_))), "{slip}");
            let mut swapped = text.as_bytes().to_vec();
            swapped.swap(at - 1, at);
            let swapped = String::from_utf8(swapped).unwrap();
            assert!(swapped == *text || swapped.parse::<Token>().is_err(), "{swapped}");
        }
        assert_eq!("".parse::<Token>(), Err(InvalidToken::Kind));
        assert_eq!("rads1_".parse::<Token>(), Err(InvalidToken::Length(0)));
        assert_eq!(text[..text.len() - 1].parse::<Token>(), Err(InvalidToken::Length(108)));
        assert_eq!(text.replace("prod-1", "prod-2").parse::<Token>(), Err(InvalidToken::Typo));
        assert_eq!(format!("rads1_prod_{}", "é".repeat(55)).parse::<Token>(), Err(InvalidToken::Length(55)));
    }

    #[test]
    fn a_token_is_good_for_its_cluster_role_hour_and_number_of_uses() {
        let (token, ticket) = token();
        let (cluster, worker) = (token.cluster().clone(), NodeRole::Worker);
        assert_eq!(token.check(&ticket, &cluster, worker, NOW), Ok(()));
        let other: Name = "test".parse().unwrap();
        assert_eq!(token.check(&ticket, &other, worker, NOW), Err(TokenRefusal::OtherCluster(cluster.clone())));
        let refused = |ticket: &JoinTicket, role, now| token.check(ticket, &cluster, role, now).unwrap_err();
        let late = WallTime(NOW.0 + 3_600_000);
        assert_eq!(refused(&ticket, worker, late), TicketRefusal::Expired.into());
        assert_eq!(refused(&ticket, NodeRole::Controller, NOW), TicketRefusal::WrongRole.into());
        assert_eq!(refused(&JoinTicket { uses: 1, ..ticket }, worker, NOW), TicketRefusal::UsedUp.into());
        let (_, foreign) = self::token();
        assert_eq!(refused(&foreign, worker, NOW), TicketRefusal::Unknown.into());
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_read(text in "rads1_[a-z0-9-]{0,70}_.{0,120}|.{0,200}") {
            let _ = text.parse::<Token>();
        }
    }
}
