//! A star on the bridge: it calls out, and reaches neither the host nor a neighbour.
//!
//! Everything happens in network namespaces of the tests': in one the nursery lives as on a host, the other is the
//! world that host is connected to.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::mpsc;

use isolate::{Message, Request, StarOrder};
use model::Network;
use rustix::thread::UnshareFlags;

use crate::kit::{Kit, kill, until};
use crate::network::answers;
use crate::{Test, Verdict};

pub(crate) const TESTS: &[Test] = &[
    ("a_star_on_the_bridge_calls_out_in_the_hosts_name", calls_out),
    ("a_star_on_the_bridge_reaches_neither_host_nor_neighbour", reaches_nobody_else),
    ("requests_come_to_the_bridge_through_doors", doors),
    ("the_bridge_is_taken_over_and_taken_down", leaves_nothing),
    ("a_bridge_that_cannot_be_raised_says_why", says_why),
];

const WORLD: &str = "192.0.2.2:9000";
const METADATA: &str = "169.254.169.254:9000";
const HOST: &str = "192.0.2.1:9001";

/// Runs a test in a network with a world around it; as an ordinary user only the refusal, of which `walls` tells, is
/// to be seen.
fn with_world(kit: &Kit, test: fn(&Kit)) -> Verdict {
    if kit.walls.rootless {
        return Verdict::Skipped("a bridge needs root".to_owned());
    }
    let folder = kit.data_dir.with_file_name("behind");
    let run = move || {
        own_network();
        build_world();
        test(&Kit::new(&folder));
    };
    match std::thread::spawn(run).join() {
        Ok(()) => Verdict::Held,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[allow(deprecated)] // Its successor differs for threads that share descriptors, and needs `unsafe`.
fn own_network() {
    rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
}

/// A second network with a server that says who called, and the cable to it. It lives as long as its threads, which is
/// as long as this program.
fn build_world() {
    let (tell, told) = mpsc::channel();
    let (connected, wait) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        own_network();
        tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        wait.recv().unwrap();
        ip("link set lo up");
        ip("address add 192.0.2.2/24 dev down0");
        ip("address add 169.254.169.254/32 dev down0");
        ip("link set down0 up");
        until_carries("down0");
        tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        serve(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 9000)).unwrap());
    });
    let world = told.recv().unwrap();
    ip("link set lo up");
    ip(&format!("link add up0 type veth peer name down0 netns {world}"));
    ip("address add 192.0.2.1/24 dev up0");
    ip("link set up0 up");
    ip("route add default via 192.0.2.2");
    connected.send(()).unwrap();
    told.recv().unwrap();
    until_carries("up0");
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 9001)).unwrap();
    std::thread::spawn(move || serve(listener));
}

/// Tells everybody their own address.
fn serve(listener: TcpListener) {
    for stream in listener.incoming().flatten() {
        let _ = writeln!(&stream, "you are {}", stream.peer_addr().unwrap().ip());
    }
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().expect("the program `ip` (package `iproute2`)");
    assert!(status.success(), "ip {words}");
}

/// The world's own cable: what is sent before the kernel acts on it is lost.
fn until_carries(link: &str) {
    let state = || {
        let shown = Command::new("ip").args(["-brief", "link", "show", link]).output().unwrap().stdout;
        String::from_utf8(shown).unwrap()
    };
    until(|| state().contains(" UP ").then_some(()), state);
}

fn on_bridge(mut order: StarOrder) -> StarOrder {
    order.network = Network::Bridge;
    order
}

/// What is answered to a star on the bridge, and to a process of the host.
fn reached(kit: &Kit, address: &str) -> (String, String) {
    let answer = |text: &str| text.split_once(": ").expect("one line").1.trim_end().to_owned();
    let (_, from_star) = kit.run(&on_bridge(kit.script(&["reach", address])));
    (answer(&from_star), answer(&kit.outside(&["reach", address])))
}

fn calls_out(kit: &Kit) -> Verdict {
    with_world(kit, |kit| {
        let expected = "you are 192.0.2.1".to_owned();
        assert_eq!(reached(kit, WORLD), (expected.clone(), expected));
        let (_, alone) = kit.run(&kit.script(&["reach", WORLD]));
        assert!(alone.contains("nothing, NetworkUnreachable"), "the control: {alone}");
    })
}

fn reaches_nobody_else(kit: &Kit) -> Verdict {
    with_world(kit, |kit| {
        let neighbour = on_bridge(kit.script(&["listen everywhere", "80"]));
        kit.start(&neighbour);
        let address = kit.said(neighbour.star, "address ");
        kit.said(neighbour.star, "listens");
        let at = format!("{address}:80");
        assert_eq!(reached(kit, &at).0, "nothing, TimedOut");
        answers(kit, neighbour.star, at.parse().unwrap());
        let gateway = address.rsplit_once('.').unwrap().0.to_owned() + ".1:9001";
        for address in [&gateway, HOST, METADATA] {
            let (from_star, from_host) = reached(kit, address);
            assert_eq!(from_star, "nothing, TimedOut", "{address}");
            assert!(!from_host.contains("nothing"), "the control at {address}: {from_host}");
        }
    })
}

fn doors(kit: &Kit) -> Verdict {
    with_world(kit, |kit| {
        let order = on_bridge(kit.script(&["listen", "80"]));
        kit.start(&order);
        kit.said(order.star, "listens");
        answers(kit, order.star, SocketAddr::from((Ipv4Addr::LOCALHOST, 80)));
    })
}

/// Links, rules and forwarding of the network this thread is in.
fn state() -> String {
    let rules = Command::new("iptables-save").output().unwrap().stdout;
    let rules = String::from_utf8(rules).unwrap();
    // Built-in chains are listed, with counters, once a rule was ever there.
    let rules: Vec<&str> = rules.lines().filter(|line| line.contains("rads-")).collect();
    let links = Command::new("ip").args(["-brief", "link"]).output().unwrap().stdout;
    let links = String::from_utf8(links).unwrap();
    let links: Vec<&str> = links.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let forwarding = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    format!("{rules:?} {links:?} {}", forwarding.trim())
}

fn leaves_nothing(kit: &Kit) -> Verdict {
    with_world(kit, |kit| {
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let before = state();
        let order = on_bridge(kit.script(&["listen everywhere", "80"]));
        kit.start(&order);
        let address = kit.said(order.star, "address ");
        kit.said(order.star, "listens");
        let during = state();
        assert_ne!(before, during);
        // Another nursery finds the star and its bridge, and gives its address to nobody else.
        kit.kill_nursery();
        assert_eq!(kit.open().0.len(), 1);
        assert_eq!(state(), during);
        answers(kit, order.star, SocketAddr::from((Ipv4Addr::LOCALHOST, 80)));
        let second = on_bridge(kit.script(&["listen everywhere", "80"]));
        kit.start(&second);
        assert_ne!(kit.said(second.star, "address "), address);
        assert_eq!(reached(kit, WORLD).0, "you are 192.0.2.1");
        kit.shut_down();
        until(|| (state() == before).then_some(()), state);
        // One that was killed with its stars leaves the bridge to the next, which has no use for it.
        kit.open();
        let last = on_bridge(kit.script(&["idle"]));
        let (pid, _) = kit.start(&last);
        kit.kill_nursery();
        kill(pid);
        assert_ne!(state(), before);
        kit.open();
        until(|| (state() == before).then_some(()), state);
    })
}

fn says_why(kit: &Kit) -> Verdict {
    with_world(kit, |kit| {
        ip("route add 10.213.0.0/16 via 192.0.2.2");
        let reason = kit.start_fails(&on_bridge(kit.script(&["idle"])));
        assert_eq!(reason, "cannot raise the bridge: all of 10.213.0.0/16 is in use");
        // What stands in the way goes, and it works without more ado.
        ip("route del 10.213.0.0/16");
        let order = on_bridge(kit.script(&["idle"]));
        kit.start(&order);
        kit.send(&Request::Kill { star: order.star }, &[]);
        kit.expect(|message| matches!(message, Message::Exited { star, .. } if *star == order.star));
    })
}
