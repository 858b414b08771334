//! A container's terminal: a pair of its own devpts, whose master goes to whoever attends it.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{Mode, OFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::mounts::{attach, clone_of_fd};
use super::tree::Tree;
use crate::fault::Because;

#[derive(Debug)]
pub(super) struct Console {
    master: OwnedFd,
    slave: OwnedFd,
}

impl Console {
    /// Opens a pair on the devpts of the tree; with `bind` the slave is also `/dev/console`.
    pub(super) fn open(tree: &Tree, size: Option<(u16, u16)>, bind: bool) -> Result<Self, String> {
        let failed = || "cannot open a terminal (is a `devpts` mounted at `/dev/pts`?)".to_owned();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let master = tree.open("/dev/pts/ptmx", flags).because(failed)?;
        rustix::pty::unlockpt(&master).because(failed)?;
        let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        // By the master, not by a name somebody could have put something else at.
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, peer).because(failed)?;
        if let Some((rows, columns)) = size {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            rustix::termios::tcsetwinsize(&master, size).because(|| "cannot size the terminal".to_owned())?;
        }
        if bind {
            let failed = || "cannot make `/dev/console`".to_owned();
            let target = tree.place("/dev/console", false).because(failed)?;
            attach(&clone_of_fd(slave.as_fd()).because(failed)?, &target).because(failed)?;
        }
        Ok(Self { master, slave })
    }

    /// Sends the master to its attendant, as other runtimes do: one message with the descriptor.
    pub(super) fn hand_over(&self, socket: &UnixStream) -> Result<(), String> {
        send_fd(socket, b"/dev/ptmx", &self.master).because(|| "cannot hand the terminal over".to_owned())
    }

    /// Makes it this session's terminal and the standard streams. Its owner becomes the process's user with `own`.
    pub(super) fn take(self) -> Result<(), String> {
        let failed = || "cannot take the terminal".to_owned();
        rustix::process::ioctl_tiocsctty(&self.slave).because(failed)?;
        rustix::stdio::dup2_stdin(&self.slave).because(failed)?;
        rustix::stdio::dup2_stdout(&self.slave).because(failed)?;
        rustix::stdio::dup2_stderr(&self.slave).because(failed)
    }

    /// Gives the terminal to the user who works at it, so that it may be opened again by name.
    pub(super) fn give_to(&self, uid: u32) {
        let owner = rustix::fs::Uid::from_raw(uid);
        // In a namespace without that id it stays as it is, and works all the same.
        let _ = rustix::fs::fchown(&self.slave, Some(owner), None);
        let _ = rustix::fs::fchmod(&self.slave, Mode::from_raw_mode(0o620));
    }
}

/// One message with one descriptor.
pub(super) fn send_fd(socket: &UnixStream, text: &[u8], fd: &OwnedFd) -> std::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(std::io::Error::other("no room for a descriptor"));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
