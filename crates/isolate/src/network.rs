//! Network namespaces with nothing but loopback, and sockets inside them.
//!
//! With privileges on the host the nursery steps into a namespace and back again, so namespaces are made ahead, a star is
//! born in one, and a socket is there in a tenth of a millisecond. Without, there is no way back into the host's network, so
//! a star makes its own namespace, and a short-lived process goes there for the sockets: a millisecond or more, whether
//! for one or for many.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::{packet, sys};

/// Namespaces kept ready. Making one takes 0.6–1 ms, a third of a star's start; each costs 0.2 MB of kernel memory.
/// Eight start a usual service without a wait.
const SPARE: usize = 8;

/// The namespaces not yet given to a star.
#[derive(Debug)]
pub(crate) struct Networks {
    /// The nursery's own; `None` when there is no way back into it.
    own: Option<OwnedFd>,
    spare: Vec<OwnedFd>,
}

impl Networks {
    pub(crate) fn new(privileged: bool) -> io::Result<Self> {
        Ok(Self { own: if privileged { Some(here()?) } else { None }, spare: Vec::new() })
    }

    /// A namespace nobody has used; `None` when the star is to make its own by `furnish`.
    pub(crate) fn take(&mut self) -> io::Result<Option<OwnedFd>> {
        match (&self.own, self.spare.pop()) {
            (None, _) => Ok(None),
            (_, Some(network)) => Ok(Some(network)),
            (Some(own), None) => make(own).map(Some),
        }
    }

    pub(crate) fn wants_more(&self) -> bool {
        self.own.is_some() && self.spare.len() < SPARE
    }

    /// Makes one more spare. Called when there is nothing else to do.
    pub(crate) fn prepare(&mut self) -> io::Result<()> {
        if let Some(own) = &self.own {
            self.spare.push(make(own)?);
        }
        Ok(())
    }

    /// Does something inside a network that `take` returned. What is made there (a process, a socket) stays there.
    pub(crate) fn inside<T>(&self, network: BorrowedFd<'_>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let own = self.own.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        move_into_link_name_space(network, Some(LinkNameSpaceType::Network))?;
        let result = act();
        come_back(own);
        result
    }

    /// Sockets that reach what listens inside `network`, or inside the host's for `None`.
    pub(crate) fn doors(&self, network: Option<BorrowedFd<'_>>, count: u8) -> io::Result<Vec<OwnedFd>> {
        match (network, &self.own) {
            (None, _) => sockets(count),
            (Some(network), Some(_)) => self.inside(network, || sockets(count)),
            (Some(network), None) => fetch(network, count),
        }
    }
}

fn sockets(count: u8) -> io::Result<Vec<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = |_| Ok(rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?);
    (0..count).map(socket).collect()
}

/// Has a child go into `network` for the sockets: it need not come back.
fn fetch(network: BorrowedFd<'_>, count: u8) -> io::Result<Vec<OwnedFd>> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let (_, pidfd) = sys::process::clone(0, None, || {
        let fetched = move_into_link_name_space(network, Some(LinkNameSpaceType::Network))
            .map_err(io::Error::from)
            .and_then(|()| sockets(count));
        let fds = fetched.as_ref().map_or(&[][..], |fds| &fds[..]);
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let problem = fetched.as_ref().err().and_then(io::Error::raw_os_error);
        sys::process::exit(match packet::send(theirs.as_fd(), &problem, &borrowed) {
            Ok(()) => 0,
            Err(_) => 1,
        })
    })?;
    // It does a handful of system calls and ends; nothing it does can wait for anybody.
    let pid = rustix::process::WaitId::PidFd(pidfd.as_fd());
    rustix::process::waitid(pid, rustix::process::WaitIdOptions::EXITED)?;
    let (problem, fds): (Option<i32>, _) = packet::receive(ours.as_fd())?;
    problem.map_or(Ok(fds), |errno| Err(io::Error::from_raw_os_error(errno)))
}

fn make(own: &OwnedFd) -> io::Result<OwnedFd> {
    sys::namespace::unshare(UnshareFlags::NEWNET)?;
    let made = furnish().and_then(|()| here());
    come_back(own);
    made
}

/// A nursery that stayed in a star's network would put the next star there too.
fn come_back(own: &OwnedFd) {
    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("a privileged process may always go back to the network it came from");
}

/// The network namespace this thread is in.
fn here() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Makes the network namespace one is in usable: loopback on, every port free to take. Ports below 1024 are worth
/// nothing where nobody else is, and without capabilities a star could not have them.
pub(crate) fn furnish() -> io::Result<()> {
    sys::net::loopback_up()?;
    fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
}
