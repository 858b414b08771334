//! The agents connected to a nursery: who they are, what is waiting to be sent to them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::SocketFlags;

use super::handover::{Luggage, PeerState};
use super::poller::{Poller, Source, Token};
use crate::packet;
use crate::protocol::{Message, Request, VERSION};
use crate::sys::inherit;

/// Messages that may wait for one agent. One that reads so little is cut off: when it comes back, `Welcome` tells it
/// everything that still matters.
const WAITING_MAX: usize = 1024;
/// Agents at a time: one, its successor during an upgrade, and a few tools.
const PEERS_MAX: usize = 16;

#[derive(Debug)]
struct Peer {
    socket: OwnedFd,
    token: Token,
    /// It has said hello in a version that is spoken here.
    welcome: bool,
    waiting: VecDeque<(Message, Vec<OwnedFd>)>,
}

#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<u64, Peer>,
    next: u64,
    /// Those forgotten since the last question.
    gone: Vec<u64>,
}

impl Peers {
    /// Takes the connections that wait. Whoever has another user id is turned away.
    pub(super) fn accept(&mut self, listener: impl AsFd, poller: &mut Poller) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Ok(socket) = rustix::net::accept_with(listener.as_fd(), flags) {
            let us = rustix::process::geteuid();
            let known = rustix::net::sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid == us);
            if !known || self.peers.len() >= PEERS_MAX {
                continue;
            }
            let id = self.next;
            self.next += 1;
            if let Ok(token) = poller.add(&socket, Source::Peer(id)) {
                self.peers.insert(id, Peer { socket, token, welcome: false, waiting: VecDeque::new() });
            }
        }
    }

    /// Connections that have ended since the last time.
    pub(super) fn take_gone(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.gone)
    }

    pub(super) fn is_welcome(&self, id: u64) -> bool {
        self.peers.get(&id).is_some_and(|peer| peer.welcome)
    }

    pub(super) fn welcome(&mut self, id: u64) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.welcome = true;
        }
    }

    /// One request, if there is one. A peer that is gone or speaks nonsense is forgotten.
    pub(super) fn receive(&mut self, id: u64, poller: &mut Poller) -> Option<(Request, Vec<OwnedFd>)> {
        let received = packet::receive(self.peers.get(&id)?.socket.as_fd());
        if received.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
            self.forget(id, poller);
        }
        received.ok()
    }

    pub(super) fn send(&mut self, id: u64, message: Message, fds: Vec<OwnedFd>, poller: &mut Poller) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.waiting.push_back((message, fds));
            self.flush(id, poller);
        }
    }

    pub(super) fn broadcast(&mut self, message: &Message, poller: &mut Poller) {
        let ids: Vec<u64> = self.peers.iter().filter(|(_, peer)| peer.welcome).map(|(&id, _)| id).collect();
        for id in ids {
            self.send(id, message.clone(), Vec::new(), poller);
        }
    }

    /// Sends what waits, as far as the peer takes it.
    pub(super) fn flush(&mut self, id: u64, poller: &mut Poller) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mut gone = false;
        while let Some((message, fds)) = peer.waiting.front() {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match packet::send(peer.socket.as_fd(), message, &fds) {
                Ok(()) => drop(peer.waiting.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    gone = true;
                    break;
                }
            }
        }
        let blocked = !peer.waiting.is_empty();
        gone |= peer.waiting.len() > WAITING_MAX;
        gone |= poller.want_write(&peer.socket, peer.token, blocked).is_err();
        if gone {
            self.forget(id, poller);
        }
    }

    /// The next number, and what the next program needs to go on with each.
    pub(super) fn pack<'a>(&'a self, luggage: &mut Luggage<'a>) -> (u64, Vec<PeerState>) {
        let pack = |(&id, peer): (&u64, &'a Peer)| PeerState {
            id,
            socket: luggage.pack(&peer.socket),
            speaks: peer.welcome.then_some(VERSION),
            waiting: peer
                .waiting
                .iter()
                .map(|(message, fds)| (message.clone(), fds.iter().map(|fd| luggage.pack(fd)).collect()))
                .collect(),
        };
        (self.next, self.peers.iter().map(pack).collect())
    }

    /// Goes on with those that the program before this one talked to. One that spoke another version is let go: it comes
    /// back and says hello.
    pub(super) fn unpack(&mut self, next: u64, states: Vec<PeerState>, poller: &mut Poller) -> io::Result<()> {
        self.next = next;
        for PeerState { id, socket, speaks, waiting } in states {
            let socket = inherit::take(socket)?;
            let take = |(message, fds): (Message, Vec<i32>)| {
                let fds: io::Result<_> = fds.into_iter().map(inherit::take).collect();
                fds.map(|fds| (message, fds))
            };
            let waiting: VecDeque<_> = waiting.into_iter().map(take).collect::<io::Result<_>>()?;
            if speaks.is_some_and(|version| version != VERSION) {
                self.gone.push(id);
                continue;
            }
            let token = poller.add(&socket, Source::Peer(id))?;
            self.peers.insert(id, Peer { socket, token, welcome: speaks.is_some(), waiting });
            self.flush(id, poller);
        }
        Ok(())
    }

    fn forget(&mut self, id: u64, poller: &mut Poller) {
        if let Some(peer) = self.peers.remove(&id) {
            poller.remove(&peer.socket, peer.token);
            self.gone.push(id);
        }
    }
}
