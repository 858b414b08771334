//! The bridge: stars that may call out, and cannot be called.
//!
//! A star on it has a wire (a veth pair) from its own network namespace to a bridge of the nursery's, an address, and
//! a way out that wears the host's address. It reaches neither the host nor another star; requests still come to
//! it through doors. The bridge is raised with the first such star and stays until the nursery ends; one that follows a
//! nursery that was killed takes it over with the stars.

mod firewall;
mod subnet;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use self::subnet::{FIRST, LAST, PREFIX, Subnet};
use crate::fault::Because;
use crate::netlink::{FIRST_INDEX, Netlink};
use crate::network::Networks;

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// How long a star's start waits for its wire to carry packets, which takes milliseconds. On a machine that is slower than this a star's
/// first packets get lost, as they may on any network; the nursery waits with it, so it is short.
const CARRIES_WITHIN: Duration = Duration::from_secs(1);

/// What the name of every nursery's bridge begins with.
const FAMILY: &str = "rads-";

pub(crate) struct Bridge {
    /// The link's and the firewall chain's.
    name: String,
    hash: u32,
    /// Exists while the host's forwarding is on because of this bridge.
    forwarding_note: PathBuf,
    standing: Option<Standing>,
}

struct Standing {
    netlink: Netlink,
    index: u32,
    subnet: Subnet,
    taken: BTreeSet<u32>,
    /// Given last. The kernel takes an ended star's wire away when it has time: a number is not given again at once.
    last: u32,
}

impl Bridge {
    /// `hash` tells nurseries of one machine apart. Nothing is made yet.
    pub(crate) fn new(hash: u32, data_dir: &std::path::Path) -> Self {
        let forwarding_note = data_dir.join("forwarding");
        Self { name: format!("{FAMILY}{hash:08x}"), hash, forwarding_note, standing: None }
    }

    /// Joins a network namespace that nobody has used to the bridge, and says which address it has there.
    pub(crate) fn wire(&mut self, networks: &Networks, namespace: BorrowedFd<'_>) -> Result<Ipv4Addr, String> {
        if self.standing.is_none() {
            match self.raise() {
                Ok(standing) => self.standing = Some(standing),
                Err(error) => {
                    // The half of it that stands goes again.
                    self.tear_down();
                    return Err(error).because(|| "cannot raise the bridge".to_owned());
                }
            }
        }
        let Some(bridge) = &mut self.standing else { unreachable!("it was raised") };
        let cannot = || "cannot join the star to the bridge".to_owned();
        let (number, wire) = bridge.plug(self.hash, namespace).because(cannot)?;
        let address = bridge.subnet.address(number);
        let join = || -> io::Result<()> {
            let port = bridge.netlink.index(&wire)?.ok_or(io::ErrorKind::NotFound)?;
            bridge.netlink.isolate_port(port)?;
            without_ipv6(&wire)?;
            bridge.netlink.switch_on(port)?;
            let deadline = Instant::now() + CARRIES_WITHIN;
            networks.inside(namespace, || {
                without_ipv6("eth0")?;
                let netlink = Netlink::open()?;
                netlink.furnish(address, PREFIX, bridge.subnet.gateway())?;
                netlink.await_carrier(FIRST_INDEX, deadline)
            })?;
            // The bridge carries when its first port does.
            for link in [port, bridge.index] {
                bridge.netlink.await_carrier(link, deadline)?;
            }
            Ok(())
        };
        // Its namespace is dropped by the caller then, and the wire with it.
        join().because(cannot)?;
        bridge.taken.insert(number);
        bridge.last = number;
        Ok(address)
    }

    /// Counts a star of a nursery that is gone.
    pub(crate) fn adopt(&mut self, address: Ipv4Addr) {
        if self.standing.is_none() {
            let found = || {
                let netlink = Netlink::open()?;
                let index = netlink.index(&self.name)?.ok_or(io::ErrorKind::NotFound)?;
                io::Result::Ok(Standing {
                    netlink,
                    index,
                    subnet: Subnet::of(address),
                    taken: BTreeSet::new(),
                    last: LAST,
                })
            };
            self.standing = found().ok();
        }
        if let Some(bridge) = &mut self.standing {
            let number = Subnet::number(address);
            bridge.taken.insert(number);
            bridge.last = number;
        }
    }

    /// Gives an ended star's address back.
    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        if let Some(bridge) = &mut self.standing {
            bridge.taken.remove(&Subnet::number(address));
        }
    }

    /// Removes what a nursery left that was killed, when no star of it lives on the bridge.
    pub(crate) fn sweep(&mut self) {
        if self.standing.is_none() {
            self.tear_down();
        }
    }

    /// Takes everything back: the rules, the link, the host's forwarding. What cannot be removed stays and is found by
    /// the next nursery of the same data folder.
    pub(crate) fn tear_down(&mut self) {
        let Ok(netlink) = Netlink::open() else { return };
        if let Ok(Some(index)) = netlink.index(&self.name) {
            // The rules first: while there is a link one may come back for them.
            let _ = firewall::take_down(&self.name);
            let _ = netlink.remove(index);
        }
        self.standing = None;
        if self.forwarding_note.exists() {
            // Another nursery's stars may need it by now.
            if !others(&fs::read_to_string("/proc/net/dev").unwrap_or_default(), &self.name) {
                let _ = fs::write(FORWARDING, "0");
            }
            let _ = fs::remove_file(&self.forwarding_note);
        }
    }

    fn raise(&self) -> io::Result<Standing> {
        let routes = subnet::routes(&fs::read_to_string("/proc/net/route")?);
        let in_use = || io::Error::other("all of 10.213.0.0/16 is in use");
        let subnet = Subnet::choose(self.hash, &routes).ok_or_else(in_use)?;
        let netlink = Netlink::open()?;
        if let Some(index) = netlink.index(&self.name)? {
            netlink.remove(index)?;
        }
        let [a, b, c, d] = self.hash.to_be_bytes();
        // Locally administered, so it is nobody's.
        netlink.add_bridge(&self.name, [0x02, 0x52, a, b, c, d])?;
        let index = netlink.index(&self.name)?.ok_or(io::ErrorKind::NotFound)?;
        without_ipv6(&self.name)?;
        firewall::put_up(&self.name, subnet)?;
        netlink.add_address(index, subnet.gateway(), PREFIX)?;
        self.forward()?;
        // Last: nothing passes before the rules stand.
        netlink.switch_on(index)?;
        Ok(Standing { netlink, index, subnet, taken: BTreeSet::new(), last: LAST })
    }

    /// Has the host pass packets on, which it may do already.
    fn forward(&self) -> io::Result<()> {
        if fs::read_to_string(FORWARDING)?.trim() != "0" {
            return Ok(());
        }
        fs::write(&self.forwarding_note, "")?;
        fs::write(FORWARDING, "1")
    }
}

impl Standing {
    /// Plugs a wire into a free number.
    fn plug(&self, hash: u32, namespace: BorrowedFd<'_>) -> io::Result<(u32, String)> {
        let numbers = (self.last + 1..=LAST).chain(FIRST..=self.last.min(LAST));
        for number in numbers.filter(|number| !self.taken.contains(number)) {
            let wire = format!("r{hash:08x}.{number}");
            match self.netlink.add_wire(&wire, self.index, namespace) {
                // The wire of a star that has just ended.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other.map(|()| (number, wire)),
            }
        }
        Err(io::Error::other("every address is taken"))
    }
}

/// Done before a link is switched on and gets a link-local address: the rules are for IPv4, and IPv6 would lead around
/// them. A kernel without IPv6 has no such file.
fn without_ipv6(link: &str) -> io::Result<()> {
    match fs::write(format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether `/proc/net/dev` lists a bridge of another nursery.
fn others(devices: &str, own: &str) -> bool {
    let names = devices.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
    names.into_iter().any(|name| name.starts_with(FAMILY) && name != own)
}

/// `/etc/resolv.conf` for a star on the bridge: name servers on the host itself are out of its reach. systemd-resolved
/// keeps those it asks in a file of its own.
pub(crate) fn resolv_conf() -> String {
    let read = |path: &str| reachable(&fs::read_to_string(path).unwrap_or_default());
    let usual = read("/etc/resolv.conf");
    match usual.contains("nameserver") {
        true => usual,
        false => read("/run/systemd/resolve/resolv.conf"),
    }
}

fn reachable(text: &str) -> String {
    let local = |line: &str| {
        let server = line.trim().strip_prefix("nameserver").map(str::trim);
        server.is_some_and(|server| server.starts_with("127.") || server.contains(':'))
    };
    text.lines().filter(|line| !local(line)).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use rustix::thread::UnshareFlags;

    use super::*;
    use crate::sys;

    /// What is sent before the kernel acts on a new wire is lost, and asked again after a second. About every second time, when nobody
    /// waits for that.
    #[test]
    fn the_first_packet_of_a_star_gets_through() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: a bridge needs root");
            return;
        }
        let begin = |hash: u32| {
            sys::namespace::unshare(UnshareFlags::NEWNET).unwrap();
            let (folder, mut networks) = (tempfile::tempdir().unwrap(), Networks::new(true).unwrap());
            let mut bridge = Bridge::new(hash, folder.path());
            let network = networks.take().unwrap().unwrap();
            let address = bridge.wire(&networks, network.as_fd()).unwrap();
            let gateway = Subnet::of(address).gateway();
            let asked = networks.inside(network.as_fd(), || {
                UdpSocket::bind((address, 0))?.send_to(b"?", (gateway, 9))?;
                let deadline = Instant::now() + Duration::from_millis(700);
                while Instant::now() < deadline {
                    // The gateway's hardware address is known once it has answered: flag 2.
                    let table = fs::read_to_string("/proc/thread-self/net/arp")?;
                    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
                    if lines.any(|line| line.first() == Some(&&*gateway.to_string()) && line.get(2) == Some(&"0x2")) {
                        return Ok(true);
                    }
                    std::thread::yield_now();
                }
                Ok(false)
            });
            bridge.tear_down();
            asked.unwrap()
        };
        let through = (1..=8).map(|hash| std::thread::spawn(move || begin(hash)).join().unwrap());
        assert_eq!(through.collect::<Vec<_>>(), [true; 8]);
    }

    #[test]
    fn only_name_servers_elsewhere_are_of_use() {
        let text = "# by hand\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 192.0.2.53\nsearch example.org\n";
        assert_eq!(reachable(text), "# by hand\nnameserver 192.0.2.53\nsearch example.org\n");
    }

    #[test]
    fn another_bridge_is_told_from_the_own_one() {
        let devices = "Inter-|   Receive\n face |bytes\n    lo:       0\nrads-00000001: 7 0\n";
        assert!(others(devices, "rads-00000002"));
        assert!(!others(devices, "rads-00000001"));
        assert!(!others("    lo: 0\n", "rads-00000001"));
    }
}
