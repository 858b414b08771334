//! Taking a port, and saying who has it when it is taken.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use model::{Code, Problem};
use tokio::net::{TcpListener, TcpSocket};

/// Connections the kernel holds for us until they are accepted; the usual upper bound (`somaxconn`).
pub(crate) const BACKLOG: u32 = 4096;

/// Listens on an address; port 0 takes any free one.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, Problem> {
    let bound = (|| {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A port whose last connections still linger can be taken again at once.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    })();
    bound.map_err(|error| problem(address, &error))
}

fn problem(address: SocketAddr, error: &io::Error) -> Problem {
    let port = address.port();
    match error.kind() {
        ErrorKind::AddrInUse => {
            let by = holder(port).map(|holder| format!(" by {holder}")).unwrap_or_default();
            Problem::new(Code::PortInUse, format!("port {port} is in use{by}"))
                .help("stop what uses it, or choose another port with `--listen`, 0 for any free one")
        }
        ErrorKind::PermissionDenied => {
            Problem::new(Code::PortInUse, format!("port {port} may not be listened on by this user"))
                .help("choose a port from 1024 up, or run the agent as root")
        }
        ErrorKind::AddrNotAvailable => {
            Problem::new(Code::PortInUse, format!("`{}` is not an address of this machine", address.ip()))
                .help("listen on `127.0.0.1`, `0.0.0.0` or one of the addresses that `ip addr` lists")
        }
        _ => Problem::new(Code::PortInUse, format!("cannot listen on `{address}`: {error}")),
    }
}

/// The process that listens on a port, as `name (pid N)`; `None` when this user may not see it.
fn holder(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| sockets(&table, port))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str()))
    };
    let pid = { pids }.find(holds)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("`{}` (pid {pid})", name.trim()))
}

/// The sockets of a table of `proc_net(5)` that listen on a port, as links to them read.
fn sockets(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let rows = table.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    rows.filter_map(|row| {
        let (_, local) = row.get(1)?.rsplit_once(':')?;
        let listens = u16::from_str_radix(local, 16).ok()? == port && row.get(3) == Some(&LISTEN);
        if listens { row.get(9).map(|inode| format!("socket:[{inode}]")) } else { None }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_names_its_holder() {
        let held = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let problem = bind(held.local_addr().unwrap()).unwrap_err();
        assert_eq!(problem.code, Code::PortInUse);
        assert!(problem.message.contains(&format!("(pid {})", std::process::id())), "{problem}");
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_said_so() {
        let problem = bind("192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert!(problem.message.contains("`192.0.2.1` is not an address of this machine"), "{problem}");
    }

    #[test]
    fn rows_that_do_not_listen_or_make_sense_are_skipped() {
        let table = "  sl  local_address rem_address st\n\
            0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 0 0 111 1\n\
            1: 0100007F:1F90 0100007F:8000 01 0:0 0:0 0 0 0 222 1\n\
            2: 0100007F:1F91 00000000:0000 0A 0:0 0:0 0 0 0 333 1\n\
            3: nonsense\n";
        assert_eq!(sockets(table, 8080), ["socket:[111]"]);
    }
}
