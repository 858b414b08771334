//! Network namespaces with nothing but loopback, made ahead, and sockets inside them.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::sys;

/// Namespaces kept ready. Making one takes 0.3–0.9 ms, a third of a star's start; each costs about 0.1 MB of kernel
/// memory. Eight start a usual service without a wait.
const SPARE: usize = 8;

/// The nursery's own network and the spare ones.
#[derive(Debug)]
pub(crate) struct Networks {
    own: OwnedFd,
    spare: Vec<OwnedFd>,
}

impl Networks {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { own: here()?, spare: Vec::new() })
    }

    /// A namespace nobody has used.
    pub(crate) fn take(&mut self) -> io::Result<OwnedFd> {
        match self.spare.pop() {
            Some(network) => Ok(network),
            None => self.make(),
        }
    }

    pub(crate) fn wants_more(&self) -> bool {
        self.spare.len() < SPARE
    }

    /// Makes one more spare. Called when there is nothing else to do.
    pub(crate) fn prepare(&mut self) -> io::Result<()> {
        let network = self.make()?;
        self.spare.push(network);
        Ok(())
    }

    fn make(&self) -> io::Result<OwnedFd> {
        sys::namespace::unshare(UnshareFlags::NEWNET)?;
        let made = furnish();
        self.come_back();
        made
    }

    /// Does something inside a network. What is made there (a process, a socket) stays there.
    pub(crate) fn inside<T>(&self, network: BorrowedFd<'_>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        move_into_link_name_space(network, Some(LinkNameSpaceType::Network))?;
        let result = act();
        self.come_back();
        result
    }

    /// A nursery that stayed in a star's network would put the next star there too.
    fn come_back(&self) {
        move_into_link_name_space(self.own.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("a process may always go back to the network it came from");
    }

    /// Sockets that reach what listens inside `network`, or inside our own for `None`.
    pub(crate) fn doors(&self, network: Option<BorrowedFd<'_>>, count: u8) -> io::Result<Vec<OwnedFd>> {
        let open = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = || Ok(rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?);
            (0..count).map(|_| socket()).collect()
        };
        match network {
            Some(network) => self.inside(network, open),
            None => open(),
        }
    }
}

/// The network namespace this thread is in.
fn here() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

fn furnish() -> io::Result<OwnedFd> {
    sys::net::loopback_up()?;
    // Ports below 1024 are worth nothing where nobody else is; without capabilities a star could not use them.
    fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
    here()
}
