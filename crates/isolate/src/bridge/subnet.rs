//! Which addresses the stars of a bridge have.

use std::fmt;
use std::net::Ipv4Addr;

/// A block of 1,024 addresses: the first is the network's own, the second the bridge's, the last for everybody. A
/// bridge of the kernel has at most 1,024 ports (`BR_MAX_PORTS`), so a larger block would be of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subnet(u32);

/// Bits of an address that are the same in all of a block.
pub(super) const PREFIX: u8 = 22;
const SIZE: u32 = 1 << (32 - PREFIX as u32);
/// Numbers a star may have within the block.
pub(super) const FIRST: u32 = 2;
pub(super) const LAST: u32 = SIZE - 2;

/// Where blocks are taken from: 10.213.0.0/16, which no common tool uses by itself (Docker is in 172.17–31 and
/// 192.168, podman in 10.88, Kubernetes' in 10.42–43, 10.96 and 10.244).
const POOL: u32 = u32::from_be_bytes([10, 213, 0, 0]);
const BLOCKS: u32 = 64;

impl Subnet {
    /// The first block after `wish` (any number) that meets none of the routes; `None` if all do.
    pub(super) fn choose(wish: u32, routes: &[Route]) -> Option<Self> {
        let blocks = (0..BLOCKS).map(|step| Self(POOL + (wish.wrapping_add(step) % BLOCKS) * SIZE));
        blocks.into_iter().find(|block| !routes.iter().any(|route| block.meets(route)))
    }

    /// The block an address is in.
    pub(super) fn of(address: Ipv4Addr) -> Self {
        Self(u32::from(address) & !(SIZE - 1))
    }

    pub(super) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.0 + 1)
    }

    pub(super) fn address(self, number: u32) -> Ipv4Addr {
        debug_assert!((FIRST..=LAST).contains(&number));
        Ipv4Addr::from(self.0 + number)
    }

    /// The number of an address within its block.
    pub(super) fn number(address: Ipv4Addr) -> u32 {
        u32::from(address) & (SIZE - 1)
    }

    fn meets(self, route: &Route) -> bool {
        let common = route.mask & !(SIZE - 1);
        self.0 & common == route.to & common
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{PREFIX}", Ipv4Addr::from(self.0))
    }
}

/// Where the host sends something particular.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    to: u32,
    mask: u32,
}

/// The routes of `/proc/net/route` but the default one: a head line, then fields of hexadecimal numbers in the machine's
/// byte order.
pub(super) fn routes(text: &str) -> Vec<Route> {
    let number = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::from_be);
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        Some(Route { to: number(fields.get(1)?)?, mask: number(fields.get(7)?)? })
    };
    text.lines().skip(1).filter_map(route).filter(|route| route.mask != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_keeps_away_from_every_route() {
        let table = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
            eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0\n\
            eth0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n";
        let mut routes = routes(table);
        assert_eq!(routes, [Route { to: 0xc000_0200, mask: 0xffff_ff00 }]);
        assert_eq!(Subnet::choose(1, &routes).unwrap().to_string(), "10.213.4.0/22");
        // A single address within the block, and all of a larger one around it.
        routes.push(Route { to: 0x0ad5_0507, mask: 0xffff_ffff });
        assert_eq!(Subnet::choose(1, &routes).unwrap().to_string(), "10.213.8.0/22");
        routes.push(Route { to: 0x0ad5_0000, mask: 0xffff_8000 });
        assert_eq!(Subnet::choose(1, &routes).unwrap().to_string(), "10.213.128.0/22");
        assert_eq!(Subnet::choose(u32::MAX, &routes).unwrap().to_string(), "10.213.252.0/22");
        routes.push(Route { to: 0x0a00_0000, mask: 0xff00_0000 });
        assert_eq!(Subnet::choose(1, &routes), None);
    }

    #[test]
    fn an_address_says_where_it_belongs() {
        let block = Subnet::choose(3, &[]).unwrap();
        let address = block.address(LAST);
        assert_eq!(address, Ipv4Addr::new(10, 213, 15, 254));
        assert_eq!((Subnet::of(address), Subnet::number(address)), (block, LAST));
        assert_eq!(block.gateway(), Ipv4Addr::new(10, 213, 12, 1));
    }
}
