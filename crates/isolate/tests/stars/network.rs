//! A star's network: alone with loopback, reached through doors.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use isolate::{Message, Request};
use model::{Network, StarId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::kit::Kit;
use crate::{Test, Verdict};

pub(crate) const TESTS: &[Test] = &[
    ("the_hosts_loopback_is_out_of_reach", loopback),
    ("doors_lead_into_the_star", doors),
    ("ports_do_not_collide_between_stars", ports),
    ("the_host_network_is_there_when_asked_for", host),
    ("a_door_to_nowhere_says_why", nowhere),
];

fn loopback(kit: &Kit) -> Verdict {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let (_, said) = kit.run(&kit.script(&["connect", &port]));
    assert!(said.contains("interfaces [\"lo\"]"), "{said}");
    assert!(said.contains("connect: no, Connection refused"), "{said}");
    assert!(said.contains("elsewhere Some(NetworkUnreachable)"), "{said}");
    let outside = kit.outside(&["connect", &port]);
    assert!(outside.contains("connect: yes"), "the control fails:\n{outside}");
    Verdict::Held
}

/// Asks for doors.
fn open(kit: &Kit, star: StarId, count: u8) -> (Option<String>, Vec<OwnedFd>) {
    kit.send(&Request::Door { star, token: 42, count }, &[]);
    let (message, fds) = kit.expect(|message| matches!(message, Message::Doors { token: 42, .. }));
    let Message::Doors { problem, .. } = message else { unreachable!() };
    (problem, fds)
}

/// Connects a door to a port of the star's loopback and reads what is said behind it.
fn go_through(door: OwnedFd, port: u16) -> std::io::Result<String> {
    go_to(door, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

fn go_to(door: OwnedFd, address: SocketAddr) -> std::io::Result<String> {
    match rustix::net::connect(&door, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    poll(&mut [PollFd::new(&door, PollFlags::OUT)], Some(&Timespec { tv_sec: 5, tv_nsec: 0 }))?;
    let mut stream = TcpStream::from(door);
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn doors(kit: &Kit) -> Verdict {
    // A port that needs a privilege outside: inside nobody else wants it.
    let order = kit.script(&["listen", "80"]);
    kit.start(&order);
    kit.said(order.star, "listens");
    let (problem, fds) = open(kit, order.star, 3);
    assert_eq!((problem, fds.len()), (None, 3));
    for door in fds {
        assert_eq!(go_through(door, 80).unwrap(), "from inside\n");
    }
    let outside = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    assert!(go_through(outside, 80).map_or(true, |text| text != "from inside\n"), "the control reaches the star");
    let (_, fds) = open(kit, order.star, 1);
    let refused = go_through(fds.into_iter().next().unwrap(), 81).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    Verdict::Held
}

/// A door leads to what listens in the star at an address of its own.
pub(crate) fn answers(kit: &Kit, star: StarId, address: SocketAddr) {
    let (problem, fds) = open(kit, star, 1);
    assert_eq!(problem, None);
    assert_eq!(go_to(fds.into_iter().next().unwrap(), address).unwrap(), "from inside\n");
}

fn ports(kit: &Kit) -> Verdict {
    for _ in 0..3 {
        let order = kit.script(&["listen", "8080"]);
        kit.start(&order);
        kit.said(order.star, "listens");
        let (_, fds) = open(kit, order.star, 1);
        assert_eq!(go_through(fds.into_iter().next().unwrap(), 8080).unwrap(), "from inside\n");
    }
    Verdict::Held
}

fn host(kit: &Kit) -> Verdict {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut order = kit.script(&["connect", &port.to_string()]);
    order.network = Network::Host;
    let (_, said) = kit.run(&order);
    assert!(said.contains("connect: yes"), "{said}");
    drop(listener);
    let mut order = kit.script(&["listen", &port.to_string()]);
    order.network = Network::Host;
    kit.start(&order);
    kit.said(order.star, "listens");
    let (problem, fds) = open(kit, order.star, 1);
    assert_eq!(problem, None);
    assert_eq!(go_through(fds.into_iter().next().unwrap(), port).unwrap(), "from inside\n");
    Verdict::Held
}

fn nowhere(kit: &Kit) -> Verdict {
    assert_eq!(open(kit, StarId(99), 1).0.as_deref(), Some("the star does not run"));
    let order = kit.script(&["idle"]);
    kit.start(&order);
    assert_eq!(open(kit, order.star, 65).0.as_deref(), Some("at most 64 doors at a time"));
    assert_eq!(open(kit, order.star, 64).1.len(), 64);
    Verdict::Held
}
