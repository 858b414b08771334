//! The network: what is there besides the star's own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{Attempt, Row, call, done, if_so, reached};
use crate::world::told;

pub(super) const PROBES: &[Row] = &[
    ("raw_socket", || socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)),
    ("raw_socket_6", || socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6)),
    ("packet_socket", || socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)),
    ("set_an_interfaces_flags", || interface(libc::SIOCSIFFLAGS)),
    ("set_an_interfaces_address", || interface(libc::SIOCSIFMTU)),
    ("mark_packets", || option(libc::SOL_SOCKET, libc::SO_MARK, &7u32.to_ne_bytes())),
    ("force_a_receive_buffer", || option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &4096u32.to_ne_bytes())),
    ("be_transparent", || option(libc::SOL_IP, libc::IP_TRANSPARENT, &1u32.to_ne_bytes())),
];

/// These succeed in a star that shares the host's network.
pub(super) const TO_THE_HOST: &[Row] = &[
    ("connect_to_the_hosts_loopback", || connect(Ipv4Addr::LOCALHOST, &told("HOST_TCP"))),
    ("connect_to_any_address_of_the_host", || connect(Ipv4Addr::UNSPECIFIED, &told("HOST_TCP"))),
    ("connect_to_another_loopback_address", || connect(Ipv4Addr::new(127, 9, 8, 7), &told("HOST_TCP"))),
    ("take_the_hosts_port", || {
        // In use there means that it is the host's.
        let port: u16 = told("HOST_TCP").parse().unwrap_or(0);
        match std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
            _ => Err("it is free: another network".to_owned()),
        }
    }),
    ("send_to_the_host", || {
        let socket = UdpSocket::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let port: u16 = told("HOST_UDP").parse().unwrap_or(0);
        socket.connect((Ipv4Addr::LOCALHOST, port)).map_err(|error| error.to_string())?;
        socket.send(b"x").map_err(|error| error.to_string())?;
        std::thread::sleep(Duration::from_millis(20));
        // A second one is told that nobody listened to the first.
        done(socket.send(b"x"))
    }),
    ("connect_to_an_abstract_socket", || {
        let address = std::os::unix::net::SocketAddr::from_abstract_name(told("HOST_ABSTRACT"));
        done(address.and_then(|address| UnixStream::connect_addr(&address)))
    }),
    ("see_the_hosts_interfaces", || {
        let table = std::fs::read_to_string("/proc/net/dev").map_err(|error| error.to_string())?;
        if_so(table.lines().count() > 3, "only loopback is there")
    }),
    ("see_the_hosts_connections", || {
        let port = format!(":{:04X} ", told("HOST_TCP").parse::<u16>().unwrap_or(0));
        let table = std::fs::read_to_string("/proc/net/tcp").map_err(|error| error.to_string())?;
        if_so(table.contains(&port), "the host's listener is not in the table")
    }),
];

fn socket(family: i32, kind: i32, protocol: i32) -> Attempt {
    done(call(libc::SYS_socket, &[family as usize, kind as usize, protocol as usize]))
}

fn connect(address: Ipv4Addr, port: &str) -> Attempt {
    let address = SocketAddr::from((address, port.parse().unwrap_or(0)));
    done(TcpStream::connect_timeout(&address, Duration::from_secs(2)))
}

/// Asks for a change of the loopback interface to something no interface can be.
fn interface(request: libc::Ioctl) -> Attempt {
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let mut wanted = [0u8; 40];
    wanted[..16].copy_from_slice(b"escape-no-such\0\0");
    reached(call(libc::SYS_ioctl, &[socket.as_raw_fd() as usize, request as usize, wanted.as_ptr().addr()]))
}

fn option(level: i32, name: i32, value: &[u8]) -> Attempt {
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let args = [socket.as_raw_fd() as usize, level as usize, name as usize, value.as_ptr().addr(), value.len()];
    done(call(libc::SYS_setsockopt, &args))
}
