//! What this machine is called and where others may reach it, as far as the kernel knows.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use model::Name;

/// The host's name as a node's: what stands before the first dot, in what letters a name has.
pub fn own_name() -> Name {
    name_of(&rustix::system::uname().nodename().to_string_lossy())
}

fn name_of(host: &str) -> Name {
    let first = host.split('.').next().unwrap_or_default().to_lowercase();
    let text: String = first.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let name = text.trim_matches('-').parse().ok();
    name.or_else(|| "node".parse().ok()).unwrap_or_else(Name::default_namespace)
}

/// This machine's own address on the way to another one. No packet is sent for it.
pub fn address_towards(other: SocketAddr) -> Option<IpAddr> {
    let from: SocketAddr = match other {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(other).ok()?;
    let own = socket.local_addr().ok()?.ip();
    (!own.is_unspecified() && !own.is_loopback()).then_some(own)
}

/// This machine's address: the one that leads out of its network, or else the first of an interface that is one of the
/// machine's own.
pub fn own_address() -> Option<IpAddr> {
    // TEST-NET-1 (RFC 5737): nobody's address, so it takes the way that leads anywhere.
    let anywhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
    address_towards(anywhere).or_else(|| {
        let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
        let trie = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
        first_on_a_network(&routes, &trie).map(IpAddr::V4)
    })
}

/// Interfaces between this machine and what runs on it.
const INWARD: [&str; 5] = ["lo", "rads-", "docker", "veth", "br-"];

/// By the kernel's tables `route` and `fib_trie` (proc_net(5)): the first local address on a network that an outward interface
/// is on.
fn first_on_a_network(routes: &str, trie: &str) -> Option<Ipv4Addr> {
    let hex = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::swap_bytes);
    let networks: Vec<(u32, u32)> = routes
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [interface, to, _, _, _, _, _, mask, ..] = fields[..] else { return None };
            let is_inward = INWARD.iter().any(|inward| interface.starts_with(inward));
            (!is_inward).then_some((hex(to)?, hex(mask)?))
        })
        .filter(|(_, mask)| *mask != 0)
        .collect();
    let mut last = None;
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(address) = last
            && networks.iter().any(|(to, mask)| u32::from(address) & mask == *to)
        {
            return Some(address);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_name_becomes_one_that_a_node_may_have() {
        let check = |host: &str, expected: &str| assert_eq!(name_of(host).as_str(), expected, "{host}");
        check("web1", "web1");
        check("Web_1.example.com", "web-1");
        check("-x-", "x");
        check("", "node");
        check("…", "node");
        check(&"a".repeat(70), &"a".repeat(63));
    }

    #[test]
    fn the_address_of_a_machine_without_a_way_out_is_that_of_its_own_network() {
        // `cat /proc/net/route` and a part of `/proc/net/fib_trie` in a network namespace of two interfaces.
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                      rads-1\t00000A0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
                      eth0\t00014D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.10.0.1\n        /32 host LOCAL\n     |-- 10.77.1.0\n        \
                    /24 link UNICAST\n     |-- 10.77.1.3\n        /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
        assert_eq!(first_on_a_network(routes, trie), Some(Ipv4Addr::new(10, 77, 1, 3)));
        assert_eq!(first_on_a_network("", trie), None);
        assert_eq!(first_on_a_network(routes, ""), None);
    }
}
