//! Staying with a process in the foreground to its end: signals are passed on, and its terminal, if it has one of its
//! own, is connected with this one.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::termios::{OptionalActions, Termios};

use super::{End, Process, reap_child};
use crate::fault::Because;
use crate::sys;
use crate::sys::signal::SignalFd;

/// Waits for a child to end. `terminal` is where the master of its terminal has been sent.
pub fn attend(pid: u32, terminal: Option<UnixStream>) -> Result<End, String> {
    let failed = || "cannot attend the container".to_owned();
    sys::signal::block_all();
    let signals = SignalFd::new().because(failed)?;
    let process = Process::open(pid);
    let master = terminal.map(receive_master).transpose()?;
    let _raw = master.as_ref().and_then(|_| Raw::set());
    if let Some(master) = &master {
        pass_size(master);
    }
    let mut input = master.is_some();
    let mut output = master.is_some();
    loop {
        if let Some(end) = reap_child(pid, false) {
            // What it wrote last is still to be shown.
            if let Some(master) = master.as_ref().filter(|_| output) {
                while has_more(master) && copy(master.as_fd(), rustix::stdio::stdout()) {}
            }
            return Ok(end);
        }
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![PollFd::new(&signals, PollFlags::IN)];
        if let Some(master) = &master {
            if output {
                fds.push(PollFd::new(master, PollFlags::IN));
            }
            if input {
                fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
            }
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            other => drop(other.because(failed)?),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = || ready.next().unwrap_or(false);
        let (signal, out, typed) = (next(), output && next(), input && next());
        if signal {
            while let Some(signal) = signals.next() {
                match (signal, &master) {
                    (libc::SIGCHLD, _) => {}
                    (libc::SIGWINCH, Some(master)) => pass_size(master),
                    // It may have ended; that is told by its own signal.
                    _ => drop(process.as_ref().map(|process| process.signal(signal))),
                }
            }
        }
        if let Some(master) = &master {
            output = output && (!out || copy(master.as_fd(), rustix::stdio::stdout()));
            input = input && (!typed || copy(stdin, master.as_fd()));
        }
    }
}

fn receive_master(socket: UnixStream) -> Result<OwnedFd, String> {
    let failed = || "cannot take the container's terminal".to_owned();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 64];
    let buffers = &mut [io::IoSliceMut::new(&mut bytes)];
    rustix::net::recvmsg(&socket, buffers, &mut control, RecvFlags::CMSG_CLOEXEC).because(failed)?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.ok_or_else(failed)
}

fn has_more(master: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(master, PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|_| fds[0].revents().contains(PollFlags::IN))
}

/// One read and its writes; `false` when there is nothing more to come.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0; 8192];
    let read = match rustix::io::read(from, &mut buffer) {
        Err(Errno::INTR | Errno::AGAIN) => return true,
        // A master without a slave.
        Err(_) | Ok(0) => return false,
        Ok(read) => read,
    };
    let mut rest = &buffer[..read];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => return false,
        }
    }
    true
}

/// The container's terminal becomes as large as this one.
fn pass_size(master: &OwnedFd) {
    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
        let _ = rustix::termios::tcsetwinsize(master, size);
    }
}

/// This terminal without a will of its own, until this is dropped.
struct Raw(Termios);

impl Raw {
    fn set() -> Option<Self> {
        let before = rustix::termios::tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}
