//! The few words of rtnetlink that a bridge and a container's own devices need: links, addresses, one route.
//!
//! A request is a header, a fixed part and attributes, each padded to four bytes, in the machine's byte order
//! (rtnetlink(7)). The kernel answers every request here with one acknowledgement, but for the list of addresses. What is
//! asked for is decided by the caller.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Attributes libc does not name: `VETH_INFO_PEER` of the kernel's `veth.h`, `IFLA_BRPORT_ISOLATED` of its `if_link.h`.
const VETH_INFO_PEER: u16 = 1;
const BRIDGE_PORT_ISOLATED: u16 = 33;

/// The number an end in a new namespace gets: `lo` is 1.
pub(crate) const FIRST_INDEX: u32 = 2;

/// A socket to the kernel's network configuration, of the namespace it was opened in.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        // The protocol of number 0, which is what `None` stands for, is `NETLINK_ROUTE`.
        Ok(Self(rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?))
    }

    /// The number of a link, `None` if there is no such link.
    pub(crate) fn index(&self, name: &str) -> io::Result<Option<u32>> {
        match rustix::net::netdevice::name_to_index(&self.0, name) {
            Ok(index) => Ok(Some(index)),
            Err(rustix::io::Errno::NODEV) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a bridge without ports or addresses, switched off. Its hardware address is given so that it does not change
    /// with its ports, which would leave its neighbours with a stale one.
    pub(crate) fn add_bridge(&self, name: &str, hardware: [u8; 6]) -> io::Result<()> {
        let mut request = Request::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &link(0, 0, 0));
        request.put(libc::IFLA_IFNAME, &text(name));
        request.put(libc::IFLA_ADDRESS, &hardware);
        request.nest(libc::IFLA_LINKINFO, |info| info.put(libc::IFLA_INFO_KIND, b"bridge"));
        self.call(request)
    }

    /// Makes a pair of ends: `name` here, a port of the bridge `master`; `eth0` in `namespace`, the first link there after
    /// loopback. Both are switched off.
    pub(crate) fn add_wire(&self, name: &str, master: u32, namespace: BorrowedFd<'_>) -> io::Result<()> {
        let any = link(libc::AF_UNSPEC, 0, 0);
        let mut request = Request::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &any);
        request.put(libc::IFLA_IFNAME, &text(name));
        request.put(libc::IFLA_MASTER, &master.to_ne_bytes());
        request.nest(libc::IFLA_LINKINFO, |info| {
            info.put(libc::IFLA_INFO_KIND, b"veth");
            info.nest(libc::IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.bytes.extend(link(libc::AF_UNSPEC, FIRST_INDEX, 0));
                    peer.put(libc::IFLA_IFNAME, &text("eth0"));
                    peer.put(libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
                });
            });
        });
        self.call(request)
    }

    /// Keeps a port of a bridge from every other port that is kept so: it talks with the bridge itself only.
    pub(crate) fn isolate_port(&self, index: u32) -> io::Result<()> {
        let mut request = Request::new(libc::RTM_SETLINK, 0, &link(libc::AF_BRIDGE, index, 0));
        request.nest(libc::IFLA_PROTINFO, |info| info.put(BRIDGE_PORT_ISOLATED, &[1]));
        self.call(request)
    }

    /// Gives the first link of a new namespace its address, switches it on and sends by `gateway` what is for elsewhere.
    pub(crate) fn furnish(&self, address: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> io::Result<()> {
        self.add_address(FIRST_INDEX, address, prefix)?;
        self.switch_on(FIRST_INDEX)?;
        // `struct rtmsg`: everything (a prefix of length 0), main table, no daemon's, the whole universe, unicast.
        let everything = [
            libc::AF_INET as u8,
            0,
            0,
            0,
            libc::RT_TABLE_MAIN,
            RTPROT_BOOT,
            libc::RT_SCOPE_UNIVERSE,
            UNICAST,
            0,
            0,
            0,
            0,
        ];
        let mut request = Request::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &everything);
        request.put(libc::RTA_GATEWAY, &gateway.octets());
        request.put(libc::RTA_OIF, &FIRST_INDEX.to_ne_bytes());
        self.call(request)
    }

    pub(crate) fn add_address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        // `struct ifaddrmsg`: family, prefix, flags, scope, link.
        let mut fixed = vec![libc::AF_INET as u8, prefix, 0, libc::RT_SCOPE_UNIVERSE];
        fixed.extend(index.to_ne_bytes());
        let mut request = Request::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &fixed);
        request.put(libc::IFA_LOCAL, &address.octets());
        request.put(libc::IFA_ADDRESS, &address.octets());
        self.call(request)
    }

    /// Puts a link into another namespace, where it has that name.
    pub(crate) fn give(&self, index: u32, namespace: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        let mut request = Request::new(libc::RTM_NEWLINK, 0, &link(libc::AF_UNSPEC, index, 0));
        request.put(libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        request.put(libc::IFLA_IFNAME, &text(name));
        self.call(request)
    }

    /// The addresses of a link that somebody gave it for good and that are good everywhere.
    pub(crate) fn addresses(&self, index: u32) -> io::Result<Vec<Address>> {
        let mut request = Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; 8]);
        request.finish();
        rustix::net::send(&self.0, &request.bytes, SendFlags::empty())?;
        let mut found = Vec::new();
        let mut answer = vec![0u8; ANSWER_MAX];
        loop {
            let (length, _) = rustix::net::recv(&self.0, &mut answer, RecvFlags::empty())?;
            let mut rest = &answer[..length];
            while let Some((kind, body, after)) = message(rest) {
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(found),
                    libc::NLMSG_ERROR => return outcome(rest).map(|()| found),
                    _ => found.extend(Address::of(index, body)),
                }
                rest = after;
            }
        }
    }

    /// Gives a link an address it had elsewhere.
    pub(crate) fn add(&self, index: u32, address: &Address) -> io::Result<()> {
        let mut fixed = vec![address.family, address.prefix, 0, libc::RT_SCOPE_UNIVERSE];
        fixed.extend(index.to_ne_bytes());
        let mut request = Request::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &fixed);
        address.attributes.iter().for_each(|(kind, value)| request.put(*kind, value));
        self.call(request)
    }

    pub(crate) fn switch_on(&self, index: u32) -> io::Result<()> {
        self.call(Request::new(libc::RTM_NEWLINK, 0, &link(libc::AF_UNSPEC, index, libc::IFF_UP)))
    }

    /// Waits until a link that was switched on carries packets. The kernel notices that a cable is connected some time after it has
    /// answered, and drops what is sent before without a word: an ARP question then costs its asker a second. False when that
    /// takes longer than until `deadline`.
    pub(crate) fn await_carrier(&self, index: u32, deadline: Instant) -> io::Result<bool> {
        // Listens before it looks, so that no news falls between.
        let news = Self::open()?.0;
        rustix::net::bind(&news, &SocketAddrNetlink::new(0, libc::RTMGRP_LINK as u32))?;
        while !self.carries(index)? {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            match poll(&mut [PollFd::new(&news, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Ok(false),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            // What the news is does not matter: the link is looked at again.
            while rustix::net::recv(&news, &mut [0u8; 64][..], RecvFlags::DONTWAIT).is_ok() {}
        }
        Ok(true)
    }

    /// Whether a link is up and connected, and the kernel acts on it. Newer kernels (6.8) catch up with that when they are asked.
    fn carries(&self, index: u32) -> io::Result<bool> {
        let mut request = Request::new(libc::RTM_GETLINK, 0, &link(libc::AF_UNSPEC, index, 0));
        request.has_answer();
        request.finish();
        rustix::net::send(&self.0, &request.bytes, SendFlags::empty())?;
        let mut answer = vec![0u8; ANSWER_MAX];
        let (length, _) = rustix::net::recv(&self.0, &mut answer[..], RecvFlags::empty())?;
        match message(&answer[..length]) {
            Some((libc::RTM_NEWLINK, body, _)) => Ok(is_running(body)),
            _ => outcome(&answer[..length]).map(|()| false),
        }
    }

    pub(crate) fn remove(&self, index: u32) -> io::Result<()> {
        self.call(Request::new(libc::RTM_DELLINK, 0, &link(libc::AF_UNSPEC, index, 0)))
    }

    fn call(&self, mut request: Request) -> io::Result<()> {
        request.finish();
        rustix::net::send(&self.0, &request.bytes, SendFlags::empty())?;
        let mut answer = [0u8; 1024];
        let (length, _) = rustix::net::recv(&self.0, &mut answer, RecvFlags::empty())?;
        outcome(&answer[..length])
    }
}

/// `RTPROT_BOOT` and `RTN_UNICAST` of `rtnetlink.h`.
const RTPROT_BOOT: u8 = 3;
const UNICAST: u8 = 1;
const HEADER: usize = 16;
/// As much as the kernel puts into one part of a list (`NLMSG_GOODSIZE` is less).
const ANSWER_MAX: usize = 1 << 15;

/// What an acknowledgement says: `struct nlmsghdr`, then a negated error number.
fn outcome(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    let code = answer.get(HEADER..HEADER + 4).map(|bytes| i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    match (kind, code) {
        (Some(kind), Some(0)) if i32::from(kind) == libc::NLMSG_ERROR => Ok(()),
        (Some(kind), Some(code)) if i32::from(kind) == libc::NLMSG_ERROR => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel answered with something else")),
    }
}

/// An address of a link with what makes it that address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    family: u8,
    prefix: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// From a `struct ifaddrmsg` and its attributes, if it is one of that link and to be kept.
    fn of(index: u32, body: &[u8]) -> Option<Self> {
        let [family, prefix, flags, scope, link @ ..] = body.get(..8)? else { return None };
        let link = u32::from_ne_bytes(link.try_into().ok()?);
        let permanent = u32::from(*flags) & libc::IFA_F_PERMANENT != 0;
        if link != index || !permanent || *scope != libc::RT_SCOPE_UNIVERSE {
            return None;
        }
        let kept = [libc::IFA_LOCAL, libc::IFA_ADDRESS, libc::IFA_BROADCAST];
        let mut attributes = Vec::new();
        let mut rest = &body[8..];
        while let Some(length) = rest.get(..2) {
            let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
            let one = rest.get(..length).filter(|one| one.len() >= 4)?;
            let kind = u16::from_ne_bytes([one[2], one[3]]);
            if kept.contains(&kind) {
                attributes.push((kind, one[4..].to_vec()));
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Some(Self { family: *family, prefix: *prefix, attributes })
    }
}

/// The first message of an answer: its kind, what follows its header, and the messages after it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let header = bytes.get(..HEADER)?;
    let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let kind = u16::from_ne_bytes([header[4], header[5]]);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// `struct nlmsghdr` (its length is filled in when it is sent) and the fixed part.
    fn new(kind: u16, flags: libc::c_int, fixed: &[u8]) -> Self {
        let flags = (flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(fixed);
        Self { bytes }
    }

    /// The kernel answers with what was asked for: an acknowledgement more would be taken for the next answer.
    fn has_answer(&mut self) {
        let flags = (libc::NLM_F_REQUEST as u16).to_ne_bytes();
        self.bytes[6..8].copy_from_slice(&flags);
    }

    /// Says how long it is.
    fn finish(&mut self) {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
    }

    fn put(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |request| request.bytes.extend(value));
    }

    /// An attribute that holds others.
    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        self.attribute(kind | libc::NLA_F_NESTED as u16, fill);
    }

    fn attribute(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// `struct ifinfomsg`: family, link, and which flags are to be set.
fn link(family: libc::c_int, index: u32, flags: libc::c_int) -> Vec<u8> {
    let mut bytes = vec![family as u8, 0, 0, 0];
    bytes.extend(index.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes
}

/// Of a `struct ifinfomsg`: whether the link's operational state is up (RFC 2863).
fn is_running(body: &[u8]) -> bool {
    let flags = body.get(8..12).map_or(0, |flags| u32::from_ne_bytes([flags[0], flags[1], flags[2], flags[3]]));
    flags & libc::IFF_RUNNING as u32 != 0
}

/// With the zero at its end that the kernel wants of names.
fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_their_lengths_are_not() {
        let mut request = Request::new(libc::RTM_NEWLINK, 0, &[]);
        request.nest(7, |outer| outer.put(3, b"abc"));
        let expected: Vec<u8> = [12u16, 0x8007, 7, 3].iter().flat_map(|n| n.to_ne_bytes()).chain(*b"abc\0").collect();
        assert_eq!(request.bytes.split_off(HEADER), expected);
    }

    #[test]
    fn addresses_are_those_of_the_link_that_are_for_good() {
        let body = |index: u32, flags: u8, scope: u8| {
            let mut bytes = vec![libc::AF_INET as u8, 24, flags, scope];
            bytes.extend(index.to_ne_bytes());
            bytes.extend([8u16, libc::IFA_LOCAL].iter().flat_map(|n| n.to_ne_bytes()));
            bytes.extend([10, 0, 0, 1]);
            // A name, padded.
            bytes.extend([7u16, 3].iter().flat_map(|n| n.to_ne_bytes()).chain(*b"lo\0\0"));
            bytes
        };
        let permanent = libc::IFA_F_PERMANENT as u8;
        let found = Address::of(4, &body(4, permanent, 0)).unwrap();
        assert_eq!((found.prefix, &found.attributes[..]), (24, &[(libc::IFA_LOCAL, vec![10, 0, 0, 1])][..]));
        for other in [body(5, permanent, 0), body(4, 0, 0), body(4, permanent, libc::RT_SCOPE_LINK)] {
            assert_eq!(Address::of(4, &other), None);
        }
        // A length that leads out of the message.
        let mut broken = body(4, permanent, 0);
        broken[8] = 200;
        assert_eq!(Address::of(4, &broken), None);
        assert_eq!(Address::of(4, &[0; 3]), None);
    }

    #[test]
    fn an_answer_is_an_error_number_or_nonsense() {
        let answer = |kind: libc::c_int, code: i32| {
            let mut bytes = vec![0; 4];
            bytes.extend((kind as u16).to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(code.to_ne_bytes());
            bytes
        };
        assert!(outcome(&answer(libc::NLMSG_ERROR, 0)).is_ok());
        let error = outcome(&answer(libc::NLMSG_ERROR, -libc::EEXIST)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(outcome(&answer(libc::NLMSG_DONE, 0)).is_err());
        assert!(outcome(&[0; 7]).is_err());
    }
}
