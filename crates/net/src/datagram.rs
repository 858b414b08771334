//! Membership's packets: one UDP socket, each packet sealed under the cluster's key ring.
//!
//! ```text
//! version (1) | key number (4) | session (16) | counter (8) | sealed payload | tag (16)
//! ```
//!
//! Integers are big-endian. Session and counter are the nonce of XChaCha20-Poly1305: the session is random and new with
//! each socket, the counter goes up by one with each packet, so no nonce is used twice under a key.
//!
//! **Replays.** A packet is taken once: for each session the receiver keeps the highest counter and which of the
//! [`WINDOW`] before it have come. Without that, a recorded acknowledgement would make a dead node look alive for as long as the key is in use.
//! What it leaves open: packets of a session that this receiver has never heard or has forgotten (it keeps the last
//! [`SESSIONS_MAX`]) may be played to it, in order, once. That ends with the next rotation of the key; and gossip is a hint:
//! the log decides who is lost.
//!
//! A packet that does not open is dropped and counted, never answered.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::net::UdpSocket;

use crate::identity::keyring::{KEY_BYTES, KeyNumber, KeyRing, KeyUse, NONCE_BYTES, OpenError, Sealer, TAG_BYTES};
use crate::identity::random;

/// Longest packet on the wire: what every path of the Internet carries in one piece, with room for tunnels
/// (1,500 of Ethernet, less 40 of IPv6, 8 of UDP and 52 for a VPN).
pub const PACKET_MAX_BYTES: usize = 1_400;

/// What the seal takes of it.
pub const OVERHEAD_BYTES: usize = HEAD_BYTES + TAG_BYTES;

/// Longest payload.
pub const PAYLOAD_MAX_BYTES: usize = PACKET_MAX_BYTES - OVERHEAD_BYTES;

const VERSION: u8 = 1;
/// Version and key number: authenticated, not secret.
const CLEAR_BYTES: usize = 5;
const HEAD_BYTES: usize = CLEAR_BYTES + NONCE_BYTES;

/// How far behind the newest a packet may come: a second's worth for a node that sends a thousand a second.
pub const WINDOW: u64 = 1_024;
const WINDOW_WORDS: usize = (WINDOW / 64) as usize;

/// Sessions remembered: four times the nodes of a large cluster, at 200 bytes each.
pub const SESSIONS_MAX: usize = 4_096;

const _: () = assert!(KEY_BYTES == 32 && WINDOW.is_multiple_of(64));

/// What came of packets so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub sent: u64,
    pub received: u64,
    /// Of no form, too short or too long.
    pub malformed: u64,
    pub unknown_key: u64,
    /// Damaged, or sealed by who has not the key.
    pub forged: u64,
    pub replayed: u64,
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
    malformed: AtomicU64,
    unknown_key: AtomicU64,
    forged: AtomicU64,
    replayed: AtomicU64,
}

/// Sending failed.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("a datagram carries at most {PAYLOAD_MAX_BYTES} bytes, not {0}")]
    TooLong(usize),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A UDP socket whose packets are sealed.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    sealer: ArcSwap<Sealer>,
    session: [u8; 16],
    counter: AtomicU64,
    heard: Mutex<Heard>,
    counts: Counters,
}

impl Datagrams {
    /// Takes the address.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub async fn bind(address: SocketAddr, ring: &KeyRing) -> io::Result<Self> {
        Ok(Self {
            socket: UdpSocket::bind(address).await?,
            sealer: ArcSwap::from_pointee(ring.for_use(KeyUse::Datagram)),
            session: random(),
            counter: AtomicU64::new(0),
            heard: Mutex::default(),
            counts: Counters::default(),
        })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Goes on with other keys; packets under way are still opened if the new ring has their key.
    pub fn set_keys(&self, ring: &KeyRing) {
        self.sealer.store(Arc::new(ring.for_use(KeyUse::Datagram)));
    }

    /// Seals and sends one packet.
    ///
    /// # Errors
    /// When it is too long or the system does not take it. A refusal by the other side ("connection refused") of an
    /// earlier packet may be told here; that a node is not there is membership's to find.
    pub async fn send(&self, to: SocketAddr, payload: &[u8]) -> Result<(), SendError> {
        let packet = self.seal(payload).ok_or(SendError::TooLong(payload.len()))?;
        self.socket.send_to(&packet, to).await?;
        self.counts.sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The next packet that opens and was not here before: its payload, and the address it came from.
    ///
    /// # Errors
    /// When the socket itself fails.
    pub async fn receive(&self) -> io::Result<(SocketAddr, Vec<u8>)> {
        // One byte more shows that a packet was longer than it may be.
        let mut packet = [0; PACKET_MAX_BYTES + 1];
        loop {
            let (length, from) = match self.socket.recv_from(&mut packet).await {
                // An earlier packet of ours was refused where it came to: not a failure of the socket.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                other => other?,
            };
            if let Some(payload) = self.open(&mut packet[..length]) {
                return Ok((from, payload));
            }
        }
    }

    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            sent: read(&self.counts.sent),
            received: read(&self.counts.received),
            malformed: read(&self.counts.malformed),
            unknown_key: read(&self.counts.unknown_key),
            forged: read(&self.counts.forged),
            replayed: read(&self.counts.replayed),
        }
    }

    fn seal(&self, payload: &[u8]) -> Option<Vec<u8>> {
        if payload.len() > PAYLOAD_MAX_BYTES {
            return None;
        }
        let sealer = self.sealer.load();
        let mut nonce = [0; NONCE_BYTES];
        nonce[..16].copy_from_slice(&self.session);
        nonce[16..].copy_from_slice(&self.counter.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let mut packet = Vec::with_capacity(OVERHEAD_BYTES + payload.len());
        packet.push(VERSION);
        packet.extend_from_slice(&sealer.sealing().to_be_bytes());
        packet.extend_from_slice(&nonce);
        packet.extend_from_slice(payload);
        let (head, body) = packet.split_at_mut(HEAD_BYTES);
        let tag = sealer.seal_in_place(&nonce, &head[..CLEAR_BYTES], body);
        packet.extend_from_slice(&tag);
        Some(packet)
    }

    /// The payload; counts the packet.
    fn open(&self, packet: &mut [u8]) -> Option<Vec<u8>> {
        let opened = self.try_open(packet);
        let counter = opened.as_ref().err().copied().unwrap_or(&self.counts.received);
        counter.fetch_add(1, Ordering::Relaxed);
        opened.ok()
    }

    /// The payload, or under what to count the packet.
    fn try_open(&self, packet: &mut [u8]) -> Result<Vec<u8>, &AtomicU64> {
        let malformed = &self.counts.malformed;
        if packet.len() < OVERHEAD_BYTES || packet.len() > PACKET_MAX_BYTES || packet[0] != VERSION {
            return Err(malformed);
        }
        let (head, rest) = packet.split_at_mut(HEAD_BYTES);
        let (body, tag) = rest.split_at_mut(rest.len() - TAG_BYTES);
        let (clear, nonce) = head.split_at(CLEAR_BYTES);
        let (Some(number), Some(nonce), Some(tag)) =
            (clear[1..].first_chunk::<4>(), nonce.first_chunk::<NONCE_BYTES>(), tag.first_chunk::<TAG_BYTES>())
        else {
            return Err(malformed);
        };
        let opened = self.sealer.load().open_in_place(KeyNumber::from_be_bytes(*number), nonce, clear, body, tag);
        opened.map_err(|error| match error {
            OpenError::UnknownKey(_) => &self.counts.unknown_key,
            OpenError::Forged => &self.counts.forged,
            OpenError::Short => malformed,
        })?;
        let (Some(session), Some(counter)) = (nonce.first_chunk::<16>(), nonce.last_chunk::<8>()) else {
            return Err(malformed);
        };
        let fresh =
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).take(session, u64::from_be_bytes(*counter));
        if fresh { Ok(body.to_vec()) } else { Err(&self.counts.replayed) }
    }
}

/// Which packets have come, by session.
#[derive(Debug, Default)]
struct Heard {
    sessions: HashMap<[u8; 16], Seen>,
    /// Counts packets; by it the session that was silent for longest is found.
    tick: u64,
}

#[derive(Debug)]
struct Seen {
    newest: u64,
    /// Bit `n` of the whole: counter `n`, modulo the window, has come.
    window: [u64; WINDOW_WORDS],
    tick: u64,
}

impl Heard {
    /// Whether this packet is here for the first time; notes that it was.
    fn take(&mut self, session: &[u8; 16], counter: u64) -> bool {
        self.tick += 1;
        let tick = self.tick;
        if let Some(seen) = self.sessions.get_mut(session) {
            seen.tick = tick;
            return seen.take(counter);
        }
        if self.sessions.len() == SESSIONS_MAX {
            self.forget();
        }
        let mut seen = Seen { newest: counter, window: [0; WINDOW_WORDS], tick };
        seen.mark(counter);
        self.sessions.insert(*session, seen);
        true
    }

    /// Makes room: an eighth of the sessions go, those that were silent for longest, so that it is not done each time.
    fn forget(&mut self) {
        let mut ticks: Vec<u64> = self.sessions.values().map(|seen| seen.tick).collect();
        let (_, limit, _) = ticks.select_nth_unstable(SESSIONS_MAX / 8);
        let limit = *limit;
        self.sessions.retain(|_, seen| seen.tick >= limit);
    }
}

impl Seen {
    fn take(&mut self, counter: u64) -> bool {
        if counter > self.newest {
            // What lies between has not come yet.
            for passed in (self.newest + 1..=counter).rev().take(WINDOW as usize) {
                self.clear(passed);
            }
            self.newest = counter;
        } else if self.newest - counter >= WINDOW || self.has(counter) {
            return false;
        }
        self.mark(counter);
        true
    }

    fn place(counter: u64) -> (usize, u64) {
        let bit = counter % WINDOW;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn has(&self, counter: u64) -> bool {
        let (word, bit) = Self::place(counter);
        self.window[word] & bit != 0
    }

    fn mark(&mut self, counter: u64) {
        let (word, bit) = Self::place(counter);
        self.window[word] |= bit;
    }

    fn clear(&mut self, counter: u64) {
        let (word, bit) = Self::place(counter);
        self.window[word] &= !bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn ring(numbers: &[u32]) -> KeyRing {
        KeyRing::new(numbers.iter().map(|&n| (n, [n as u8; KEY_BYTES]))).unwrap()
    }

    async fn socket(numbers: &[u32]) -> Datagrams {
        Datagrams::bind("127.0.0.1:0".parse().unwrap(), &ring(numbers)).await.unwrap()
    }

    fn check(at: &Datagrams, packet: &[u8], expected: Option<&[u8]>) {
        let opened = at.open(&mut packet.to_vec());
        assert_eq!(opened.as_deref(), expected);
    }

    #[tokio::test]
    async fn packets_go_from_socket_to_socket() {
        let (a, b) = (socket(&[1]).await, socket(&[1]).await);
        let longest = vec![7; PAYLOAD_MAX_BYTES];
        for payload in [b"".as_slice(), b"ping", &longest] {
            a.send(b.local_addr().unwrap(), payload).await.unwrap();
            let (from, received) = b.receive().await.unwrap();
            assert_eq!((from, received.as_slice()), (a.local_addr().unwrap(), payload));
        }
        let refused = a.send(b.local_addr().unwrap(), &[0; PAYLOAD_MAX_BYTES + 1]).await;
        assert!(matches!(refused, Err(SendError::TooLong(1_356))), "{refused:?}");
        assert_eq!(a.seal(&longest).unwrap().len(), PACKET_MAX_BYTES);
        assert_eq!((a.counts().sent, b.counts().received), (3, 3));
    }

    #[tokio::test]
    async fn what_is_not_sealed_by_a_member_is_dropped_and_counted() {
        let (a, b, stranger) = (socket(&[1]).await, socket(&[1]).await, socket(&[2]).await);
        let packet = a.seal(b"payload").unwrap();
        for at in 0..packet.len() {
            let mut damaged = packet.clone();
            damaged[at] ^= 1;
            check(&b, &damaged, None);
            check(&b, &packet[..at], None);
        }
        check(&b, &[0; PACKET_MAX_BYTES + 1], None);
        check(&b, &stranger.seal(b"payload").unwrap(), None);
        let counts = b.counts();
        assert_eq!(counts.malformed, 1 + OVERHEAD_BYTES as u64 + 1);
        assert_eq!(counts.unknown_key, 4 + 1);
        assert_eq!(counts.malformed + counts.unknown_key + counts.forged, 2 * packet.len() as u64 + 2);
        check(&b, &packet, Some(b"payload"));
        // On the wire, too: the next that is received is the one that opens.
        stranger.send(b.local_addr().unwrap(), b"no").await.unwrap();
        a.send(b.local_addr().unwrap(), b"yes").await.unwrap();
        assert_eq!(b.receive().await.unwrap().1, b"yes");
    }

    #[tokio::test]
    async fn keys_are_changed_while_packets_are_under_way() {
        let (a, b) = (socket(&[1]).await, socket(&[1]).await);
        let packets: Vec<_> = [&[1][..], &[1, 2], &[2, 1], &[2]]
            .into_iter()
            .map(|keys| {
                a.set_keys(&ring(keys));
                a.seal(b"x").unwrap()
            })
            .collect();
        // At each stage `b` is one behind `a`.
        for (packet, keys) in packets.iter().zip([&[1][..], &[1], &[1, 2], &[2, 1]]) {
            b.set_keys(&ring(keys));
            check(&b, packet, Some(b"x"));
        }
        // The control.
        b.set_keys(&ring(&[1]));
        check(&b, &a.seal(b"x").unwrap(), None);
    }

    #[tokio::test]
    async fn a_packet_is_taken_once_and_late_ones_are() {
        let (a, b) = (socket(&[1]).await, socket(&[1]).await);
        let packets: Vec<_> = (0..WINDOW + 2).map(|n| a.seal(&n.to_be_bytes()).unwrap()).collect();
        let check = |at: usize, taken: bool| {
            let payload = (at as u64).to_be_bytes();
            check(&b, &packets[at], taken.then_some(&payload[..]));
        };
        check(5, true);
        check(5, false);
        check(3, true);
        check(3, false);
        // The first of the window, the last before it.
        check(WINDOW as usize + 1, true);
        check(2, true);
        check(1, false);
        check(5, false);
        assert_eq!(b.counts().replayed, 4);
        // The control: who has not heard the session takes it.
        let other = socket(&[1]).await;
        assert!(other.open(&mut packets[5].clone()).is_some());
    }

    #[test]
    fn the_sessions_remembered_are_bounded_and_the_silent_go_first() {
        let mut heard = Heard::default();
        let session = |n: u32| {
            let mut session = [0; 16];
            session[..4].copy_from_slice(&n.to_be_bytes());
            session
        };
        let busy = session(0);
        for n in 0..3 * SESSIONS_MAX as u32 {
            assert!(heard.take(&session(n), 1) || n == 0);
            assert!(heard.take(&busy, u64::from(n) + 2));
            assert!(heard.sessions.len() <= SESSIONS_MAX);
        }
        assert!(!heard.take(&busy, 2));
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_list_of_all_that_came(steps in proptest::collection::vec(0_u64..3000, 1..400)) {
            let mut heard = Heard::default();
            let mut all = BTreeSet::new();
            for counter in steps {
                let newest = all.last().copied().unwrap_or(0);
                let expected = !all.contains(&counter) && (all.is_empty() || counter + WINDOW > newest);
                prop_assert_eq!(heard.take(&[1; 16], counter), expected);
                all.insert(counter);
            }
        }
    }
}
