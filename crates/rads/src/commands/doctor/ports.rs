//! Ports: those the agent listens on, or would, and who has them. Read from the kernel's tables (proc_pid_net(5)); nothing
//! is bound or called.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Finding, State};

/// A port, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) address: SocketAddr,
    pub(super) kind: Kind,
    pub(super) purpose: Purpose,
    pub(super) holder: Holder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Udp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The agent of this folder runs, and is to listen there for other nodes.
    Nodes,
    /// Nothing listens there yet: it is where `init` and `join` would have it listen, or where it will once it runs.
    NodesLater,
    /// Requests for a service come in there; why they do not, as far as the agent knows.
    Entry { service: String, problem: Option<String> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holder {
    Nobody,
    Own,
    /// As people know it: a program and its pid, or that it is another user's.
    Other(String),
}

pub(super) fn judge(ports: &[Port]) -> Vec<Finding> {
    ports.iter().map(judge_one).collect()
}

fn judge_one(port: &Port) -> Finding {
    let kind = if port.kind == Kind::Tcp { "tcp" } else { "udp" };
    let what = format!("port {}/{kind}", port.address.port());
    let works = |detail: String| Finding { what: what.clone(), state: State::Works, detail, help: None };
    let warns = |detail: String, help: &str| Finding {
        what: what.clone(),
        state: State::Warns,
        detail,
        help: Some(help.to_owned()),
    };
    let elsewhere = "end that program, or give the service another address with `entry`";
    match (&port.purpose, &port.holder) {
        (Purpose::Nodes, Holder::Own) => works("the agent listens there for other nodes".to_owned()),
        (Purpose::Nodes, Holder::Nobody) => {
            warns("the agent should listen there, and does not".to_owned(), "see what it last said in `agent.log`")
        }
        (Purpose::Nodes, Holder::Other(who)) => {
            let detail = format!("other nodes are to reach the agent there, and {who} has it");
            warns(detail, "see what the agent last said in `agent.log`")
        }
        (Purpose::NodesLater, Holder::Nobody) => works("free for the other nodes of a constellation".to_owned()),
        (Purpose::NodesLater, Holder::Own) => works("this agent has it".to_owned()),
        (Purpose::NodesLater, Holder::Other(who)) => {
            let detail = format!("{who} has it, so no other node could reach an agent there");
            warns(detail, "end that program, or choose another with `--listen` at `rads c init` or `join`")
        }
        (Purpose::Entry { service, .. }, Holder::Own) => works(format!("requests for service `{service}` come in")),
        (Purpose::Entry { service, problem }, Holder::Nobody) => {
            let why = problem.as_deref().unwrap_or("the agent has not opened it");
            warns(format!("no requests for service `{service}` come in: {why}"), "`rads c status` shows when they do")
        }
        (Purpose::Entry { service, .. }, Holder::Other(who)) => {
            warns(format!("requests for service `{service}` go to {who}, which has it"), elsewhere)
        }
    }
}

/// The sockets of this machine, as the process `agent` (or this one) sees the network.
pub(super) struct Sockets {
    agent: Option<u32>,
    bound: Vec<(Kind, SocketAddr, u64)>,
}

impl Sockets {
    pub(super) fn look(agent: Option<u32>) -> Self {
        let process = agent.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
        let tables = [("tcp", Kind::Tcp), ("tcp6", Kind::Tcp), ("udp", Kind::Udp), ("udp6", Kind::Udp)];
        let read = |name: &str| fs::read_to_string(format!("/proc/{process}/net/{name}")).unwrap_or_default();
        let bound = tables.iter().flat_map(|(name, kind)| {
            read(name).lines().skip(1).filter_map(|line| bound(*kind, line)).collect::<Vec<_>>()
        });
        Self { agent, bound: bound.collect() }
    }

    /// Who would be in the way of whoever wants to listen there.
    pub(super) fn holder(&self, kind: Kind, address: SocketAddr) -> Holder {
        let there = self.bound.iter().filter(|(of, at, _)| *of == kind && overlap(*at, address));
        let inodes: Vec<u64> = there.map(|(_, _, inode)| *inode).collect();
        if inodes.is_empty() {
            return Holder::Nobody;
        }
        if self.agent.is_some_and(|pid| has_socket(pid, &inodes)) {
            return Holder::Own;
        }
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        Holder::Other(match pids.find(|pid| has_socket(*pid, &inodes)) {
            Some(pid) => {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                format!("`{}` (pid {pid})", name.trim_end().escape_debug())
            }
            None => "a program of another user".to_owned(),
        })
    }
}

fn has_socket(pid: u32, inodes: &[u64]) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut links = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.any(|link| {
        let inode = link.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        inode.is_some_and(|inode: u64| inodes.contains(&inode))
    })
}

/// A line of the table: of TCP only what listens, of UDP what has no one peer.
fn bound(kind: Kind, line: &str) -> Option<(Kind, SocketAddr, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let state = if kind == Kind::Tcp { "0A" } else { "07" };
    if *fields.get(3)? != state {
        return None;
    }
    Some((kind, address(fields.get(1)?)?, fields.get(9)?.parse().ok()?))
}

/// `0100007F:1F90`: words of 32 bits as the machine has them in memory, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words = ip.as_bytes().chunks(8).map(|word| {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let bytes = words.collect::<Option<Vec<[u8; 4]>>>()?.concat();
    let ip = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Whether two sockets cannot be bound to both: `::` takes IPv4 too, where nobody forbade it.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let check = |kind, line: &str, expected: Option<&str>| {
            let found = bound(kind, line).map(|(_, address, inode)| format!("{address} {inode}"));
            assert_eq!(found.as_deref(), expected, "{line}");
        };
        let rest = "00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0";
        check(Kind::Tcp, &format!("0: 0100007F:1F0A 00000000:0000 0A {rest}"), Some("127.0.0.1:7946 4711"));
        check(Kind::Tcp, &format!("0: 0100007F:1F0A 0100007F:1234 01 {rest}"), None);
        check(Kind::Udp, &format!("0: 00000000:1F0A 00000000:0000 07 {rest}"), Some("0.0.0.0:7946 4711"));
        let v6 = "00000000000000000000000000000000";
        check(Kind::Tcp, &format!("0: {v6}:1F0A {v6}:0000 0A {rest}"), Some("[::]:7946 4711"));
        let mapped = "0000000000000000FFFF00000100007F";
        check(Kind::Tcp, &format!("0: {mapped}:1F0A {v6}:0000 0A {rest}"), Some("127.0.0.1:7946 4711"));
        check(Kind::Tcp, "0: nothing", None);
        check(Kind::Tcp, "", None);
    }

    #[test]
    fn a_listener_of_ones_own_is_told_from_anothers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let own = Sockets::look(Some(std::process::id()));
        assert_eq!(own.holder(Kind::Tcp, address), Holder::Own);
        assert_eq!(own.holder(Kind::Tcp, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port())), Holder::Own);
        assert_eq!(own.holder(Kind::Tcp, SocketAddr::new([127, 0, 0, 2].into(), address.port())), Holder::Nobody);
        assert_eq!(own.holder(Kind::Udp, address), Holder::Nobody);
        let others = Sockets::look(None).holder(Kind::Tcp, address);
        let name = format!("(pid {})", std::process::id());
        assert!(matches!(&others, Holder::Other(who) if who.contains(&name)), "{others:?}");
        drop(listener);
        assert_eq!(Sockets::look(None).holder(Kind::Tcp, address), Holder::Nobody);
    }

    #[test]
    fn a_port_that_another_has_is_told_with_who_and_what_to_do() {
        let check = |purpose: Purpose, holder: Holder, state: State, says: &str| {
            let port = Port { address: "0.0.0.0:7946".parse().unwrap(), kind: Kind::Udp, purpose, holder };
            let found = judge_one(&port);
            assert_eq!((found.what.as_str(), found.state), ("port 7946/udp", state), "{found:?}");
            let text = format!("{} {}", found.detail, found.help.clone().unwrap_or_default());
            assert!(text.contains(says), "{found:?}");
        };
        let other = || Holder::Other("`nginx` (pid 7)".to_owned());
        check(Purpose::Nodes, Holder::Own, State::Works, "listens");
        check(Purpose::Nodes, Holder::Nobody, State::Warns, "agent.log");
        check(Purpose::Nodes, other(), State::Warns, "nginx");
        check(Purpose::NodesLater, Holder::Nobody, State::Works, "free");
        check(Purpose::NodesLater, other(), State::Warns, "--listen");
        let entry = || Purpose::Entry { service: "web".to_owned(), problem: Some("in use".to_owned()) };
        check(entry(), Holder::Own, State::Works, "`web`");
        check(entry(), Holder::Nobody, State::Warns, "in use");
        check(entry(), other(), State::Warns, "entry");
    }
}
