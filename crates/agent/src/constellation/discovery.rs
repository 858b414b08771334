//! How a machine finds a constellation on its own network: it asks a multicast group, and controllers that were told to may answer
//! where they are.
//!
//! An answer is an address and nothing else. Anybody on the network may answer anything: whoever joins shows its token only to the
//! authority that the token names, wherever an address leads. An answer is never longer than its question, so that nobody is flooded by
//! asking in another's name.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use model::{Code, Name, Problem};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with, sockopt};
use tokio::time::{Instant, timeout_at};

use super::buckets::{Buckets, Rate};
use super::home::Home;

/// Of those that an organisation gives out by itself (RFC 2365); the port is beside those of nodes.
const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 79, 46), 7945);
/// Every datagram has this length, whatever is in it.
const DATAGRAM_BYTES: usize = 512;
/// "RADS" and the number of this layout.
const MAGIC: [u8; 5] = *b"RADS\x01";
const QUESTION: u8 = 0;
const ANSWER: u8 = 1;
const NONCE_BYTES: usize = 16;
/// When the question is asked, after the first time: a datagram may be lost.
const AGAIN: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(750)];
/// How long answers are waited for.
const WITHIN: Duration = Duration::from_millis(1_500);
/// Of how many addresses somebody hears at most.
const FOUND_MAX: usize = 8;
/// Twenty answers a second: a rack that is switched on asks at once, and asks again.
const ANSWERS: Rate = Rate { burst: 20, each: Duration::from_millis(50) };

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Datagram {
    kind: u8,
    nonce: [u8; NONCE_BYTES],
    cluster: Name,
    /// Of an answer, `host:port`.
    address: String,
}

impl Datagram {
    /// Magic, kind, nonce, then two texts, each after its length; zeros to the end.
    fn encode(&self) -> Option<[u8; DATAGRAM_BYTES]> {
        let mut out = Vec::with_capacity(DATAGRAM_BYTES);
        out.extend_from_slice(&MAGIC);
        out.push(self.kind);
        out.extend_from_slice(&self.nonce);
        for text in [self.cluster.as_str(), &self.address] {
            out.extend_from_slice(&u16::try_from(text.len()).ok()?.to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        (out.len() <= DATAGRAM_BYTES).then(|| out.resize(DATAGRAM_BYTES, 0))?;
        out.try_into().ok()
    }

    /// Nothing when it is anything else.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC).filter(|_| bytes.len() == DATAGRAM_BYTES)?;
        let (&kind, rest) = rest.split_first()?;
        let (&nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let (cluster, rest) = text(rest)?;
        let (address, rest) = text(rest)?;
        let is_whole = rest.iter().all(|byte| *byte == 0) && (kind == ANSWER) != address.is_empty() && kind <= ANSWER;
        (is_whole && address.bytes().all(|byte| byte.is_ascii_graphic())).then_some(())?;
        Some(Self { kind, nonce, cluster: cluster.parse().ok()?, address: address.to_owned() })
    }
}

fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// Answers whoever looks for this constellation, until the agent ends.
pub(crate) async fn answer(home: std::sync::Arc<Home>) {
    let own = own_interface(&home.advertise, home.listen);
    // Names are not looked up for anybody's answer.
    let address = home.advertise.parse().unwrap_or_else(|_| SocketAddr::from((own, home.listen.port())));
    let socket = match listening(own) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%error, group = %GROUP, "this node cannot be discovered");
            return;
        }
    };
    tracing::info!(group = %GROUP, "this node answers machines that look for its constellation");
    let mut answers = Buckets::new(ANSWERS, 1);
    let mut buffer = [0; DATAGRAM_BYTES + 1];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let asked = buffer.get(..length).and_then(Datagram::decode);
        let Some(asked) = asked.filter(|asked| asked.kind == QUESTION && asked.cluster == home.cluster) else {
            continue;
        };
        let now = std::time::Instant::now();
        if answers.wait(&(), now) > Duration::ZERO {
            continue;
        }
        answers.note((), now);
        let answer = Datagram { kind: ANSWER, address: address.to_string(), ..asked };
        if let Some(answer) = answer.encode() {
            // Who asked asks again.
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// Addresses at which nodes of a constellation say they are, the first that answered first.
///
/// # Errors
/// `NotFound` when nobody answers; `Unavailable` when nobody can be asked.
pub(crate) async fn find(cluster: &Name, own: Ipv4Addr) -> Result<Vec<String>, Problem> {
    let failed = |error: io::Error| {
        let problem =
            Problem::new(Code::Unavailable, format!("cannot ask this network for constellation `{cluster}`: {error}"));
        problem.help("name a controller: `rads c join HOST:PORT`")
    };
    let socket = asking(own).map_err(failed)?;
    let mut nonce = [0; NONCE_BYTES];
    let _ = rustix::rand::getrandom(&mut nonce[..], rustix::rand::GetRandomFlags::empty());
    let question = Datagram { kind: QUESTION, nonce, cluster: cluster.clone(), address: String::new() };
    let bytes = question.encode().ok_or_else(|| Problem::new(Code::Internal, "the name is too long"))?;
    let begun = Instant::now();
    let mut times = [Duration::ZERO].into_iter().chain(AGAIN);
    let mut next = times.next();
    let mut found: Vec<String> = Vec::new();
    let mut buffer = [0; DATAGRAM_BYTES + 1];
    while found.len() < FOUND_MAX {
        if next.is_some_and(|at| begun.elapsed() >= at) {
            socket.send_to(&bytes, SocketAddr::V4(GROUP)).await.map_err(failed)?;
            next = times.next();
        }
        let until = begun + next.unwrap_or(WITHIN);
        match timeout_at(until, socket.recv_from(&mut buffer)).await {
            Err(_) if next.is_none() => break,
            Err(_) | Ok(Err(_)) => {}
            Ok(Ok((length, _))) => {
                let told = buffer.get(..length).and_then(Datagram::decode);
                let told = told.filter(|told| told.kind == ANSWER && told.nonce == nonce && told.cluster == *cluster);
                let new = told.map(|told| told.address).filter(|address| !found.contains(address));
                found.extend(new);
            }
        }
    }
    if found.is_empty() {
        let problem =
            Problem::new(Code::NotFound, format!("no node of constellation `{cluster}` answers on this network"));
        return Err(problem.help(
            "only controllers that were told `--discoverable` do, and routers pass nothing on; name one: `rads c join HOST:PORT`",
        ));
    }
    Ok(found)
}

/// The interface by which this machine is on its network, as an address of it.
pub(crate) fn own_interface(advertise: &str, listen: SocketAddr) -> Ipv4Addr {
    let told = advertise.parse::<SocketAddr>().ok().map(|address| address.ip());
    let listens = Some(listen.ip()).filter(|ip| !ip.is_unspecified());
    let v4 = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    };
    // An address that others reach it by may be that of something before it.
    let own = [listens, told.filter(|ip| is_here(*ip)), crate::host::own_address()];
    own.into_iter().flatten().find_map(v4).unwrap_or(Ipv4Addr::UNSPECIFIED)
}

fn is_here(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Hears the group and nothing else; several agents of one machine may.
fn listening(own: Ipv4Addr) -> io::Result<tokio::net::UdpSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, Some(ipproto::UDP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &GROUP)?;
    let socket = UdpSocket::from(socket);
    socket.join_multicast_v4(GROUP.ip(), &own)?;
    tokio::net::UdpSocket::from_std(socket)
}

fn asking(own: Ipv4Addr) -> io::Result<tokio::net::UdpSocket> {
    // By its own address the kernel knows which interface is meant.
    let socket = UdpSocket::bind((own, 0))?;
    socket.set_nonblocking(true)?;
    // Not beyond this network.
    socket.set_multicast_ttl_v4(1)?;
    sockopt::set_ip_multicast_if(&socket, &own)?;
    tokio::net::UdpSocket::from_std(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(kind: u8, address: &str) -> Datagram {
        Datagram { kind, nonce: [7; NONCE_BYTES], cluster: "prod".parse().unwrap(), address: address.to_owned() }
    }

    #[test]
    fn what_is_said_is_read_back_and_anything_else_is_nothing() {
        for said in [datagram(QUESTION, ""), datagram(ANSWER, "10.0.0.1:7946")] {
            let bytes = said.encode().unwrap();
            assert_eq!(Datagram::decode(&bytes), Some(said));
            for at in 0..bytes.len() {
                // Shorter, longer, or with a byte that means nothing.
                assert_eq!(Datagram::decode(&bytes[..at]), None);
                let mut other = bytes;
                other[at] ^= 0x80;
                let read = Datagram::decode(&other);
                assert!(read.is_none_or(|read| read.nonce != [7; NONCE_BYTES]), "byte {at}");
            }
            assert_eq!(Datagram::decode(&[&bytes[..], &[0]].concat()), None);
        }
        assert_eq!(Datagram::decode(&datagram(QUESTION, "10.0.0.1:1").encode().unwrap()), None);
        assert_eq!(Datagram::decode(&datagram(ANSWER, "").encode().unwrap()), None);
        assert_eq!(Datagram::decode(&datagram(2, "a:1").encode().unwrap()), None);
        assert_eq!(datagram(ANSWER, &"x".repeat(DATAGRAM_BYTES)).encode(), None);
    }
}
