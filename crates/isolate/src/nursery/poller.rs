//! What the nursery waits for, and which descriptor stands for what.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use model::StarId;
use rustix::event::{Timespec, epoll};

use crate::log::LogSource;

/// Something that may become ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Listener,
    Signals,
    Peer(u64),
    /// A star's first process ended.
    End(StarId),
    /// A star that is starting says how it went.
    Report(StarId),
    Log(StarId, LogSource),
    /// A command that ran inside a star ended.
    ExecEnd(u64),
    /// A program that may take over says whether it can.
    Check,
}

/// Names one registration, for its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Token(u64);

#[derive(Debug)]
pub(super) struct Poller {
    epoll: OwnedFd,
    sources: BTreeMap<Token, Source>,
    next: u64,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, sources: BTreeMap::new(), next: 0 })
    }

    pub(super) fn add(&mut self, fd: impl AsFd, source: Source) -> io::Result<Token> {
        let token = Token(self.next);
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token.0), epoll::EventFlags::IN)?;
        self.next += 1;
        self.sources.insert(token, source);
        Ok(token)
    }

    /// Also waits until `fd` can be written, or no longer does.
    pub(super) fn want_write(&self, fd: impl AsFd, token: Token, wanted: bool) -> io::Result<()> {
        let write = if wanted { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
        Ok(epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(token.0), epoll::EventFlags::IN | write)?)
    }

    /// Forgets `fd`. Call it before the descriptor is closed: a copy that a star inherited would keep it registered.
    pub(super) fn remove(&mut self, fd: impl AsFd, token: Token) {
        let _ = epoll::delete(&self.epoll, fd);
        self.sources.remove(&token);
    }

    /// What is ready, after at most `timeout`. Something removed in between may still be among it.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Vec<(Token, Source)>> {
        let mut events = Vec::with_capacity(64);
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let known = |event: &epoll::Event| {
            let token = Token(event.data.u64());
            self.sources.get(&token).map(|&source| (token, source))
        };
        Ok(events.iter().filter_map(known).collect())
    }

    pub(super) fn knows(&self, token: Token) -> bool {
        self.sources.contains_key(&token)
    }
}
