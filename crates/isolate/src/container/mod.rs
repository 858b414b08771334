//! Containers as others describe them: a plan in, a process in its own world out.
//!
//! A star has the walls its nursery knows; a container has those its bundle asks for. Both are made of the same parts:
//! `sys`, mounts by descriptors, groups, filters. Nothing here knows the form of a bundle; `oci` fills the plan in.

mod attend;
mod birth;
mod console;
mod devices;
mod enter;
mod groups;
pub mod hook;
mod identity;
mod inside;
mod links;
mod mounts;
pub mod plan;
pub mod profile;
mod tree;
mod wire;

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::process::{Pid, PidfdFlags, WaitOptions};

pub use attend::attend;
pub use birth::{Creator, Order, create, mount_of, release_root, resource_number};
pub use devices::DeviceRule;
pub use enter::{Errand, execute};
pub use groups::{GroupPath, Groups, Lacking, Limits, Setting};
pub use inside::{Stage, StateText};

use crate::sys;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Code(i32),
    Signal(i32),
}

/// A process of the host, for as long as this is held.
#[derive(Debug)]
pub struct Process {
    fd: OwnedFd,
}

impl Process {
    /// `None` when there is none of that number.
    pub fn open(pid: u32) -> Option<Self> {
        let pid = Pid::from_raw(pid as i32)?;
        rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok().map(|fd| Self { fd })
    }

    pub fn signal(&self, signal: i32) -> io::Result<()> {
        sys::signal::send(self.fd.as_fd(), signal)
    }

    /// Waits until it has ended or the time is over, which is `false`.
    pub fn ends_within(&self, time: std::time::Duration) -> bool {
        groups::wait_until(&self.fd, std::time::Instant::now() + time)
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Why a container that was told to start did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotStarted {
    /// A hook of its own failed; its program was not tried.
    Hook(String),
    /// The program did not run.
    Program(String),
}

/// Tells a container that waits at the other end to start.
pub fn start(mut door: UnixStream) -> Result<(), NotStarted> {
    let gone = |_| NotStarted::Program("the container is gone".to_owned());
    door.write_all(&[inside::START]).map_err(gone)?;
    let mut answer = Vec::new();
    // Closed by the exec.
    door.read_to_end(&mut answer).map_err(gone)?;
    let Some((&kind, reason)) = answer.split_first() else { return Ok(()) };
    let reason = String::from_utf8_lossy(reason).into_owned();
    match kind {
        inside::HOOK_FAILED => Err(NotStarted::Hook(reason)),
        _ => Err(NotStarted::Program(reason)),
    }
}

/// Takes a child that has ended, if it has; with `wait` until it has.
pub fn reap_child(pid: u32, wait: bool) -> Option<End> {
    let options = if wait { WaitOptions::empty() } else { WaitOptions::NOHANG };
    loop {
        match rustix::process::waitpid(Pid::from_raw(pid as i32), options) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) | Ok(None) => return None,
            Ok(Some((_, status))) => {
                return match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Some(End::Code(code)),
                    (None, Some(signal)) => Some(End::Signal(signal)),
                    _ => None,
                };
            }
        }
    }
}

fn reap(pid: u32) {
    let _ = reap_child(pid, true);
}
