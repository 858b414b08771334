//! A further process in a container that runs.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::DumpableBehavior;

use super::birth::{Creator, attend};
use super::console::Console;
use super::identity::{self, Identity};
use super::inside::{Go, StateText, Word, close_all_but};
use super::plan::{Kind, Namespaces, Process};
use super::tree::{Proc, Tree};
use super::wire;
use crate::fault::{Because, plain};
use crate::sys;

/// What to run in a container, and in which.
pub struct Errand<'a> {
    /// The container's first process.
    pub pid: u32,
    pub process: &'a Process,
    pub personality: Option<u32>,
    pub console: Option<&'a UnixStream>,
    /// Who is asked about system calls, and what it is told of the container.
    pub notify: Option<&'a UnixStream>,
    pub state: &'a StateText<'a>,
}

/// Starts the process. `Ok` once its program runs.
pub fn execute(errand: &Errand<'_>, creator: &mut dyn Creator) -> Result<u32, String> {
    let namespaces = namespaces_of(errand.pid)?;
    // A container without mounts of its own has another root all the same.
    let root = rustix::fs::open(
        format!("/proc/{}/root", errand.pid),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .because(|| "cannot open the container's root".to_owned())?;
    let (report, report_to) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).because(|| "cannot make a pipe".to_owned())?;
    let started = attend(&namespaces, errand.process, None, creator, |link| run(errand, &root, link, &report_to));
    drop(report_to);
    let pid = started?;
    let mut reason = String::new();
    // Closed by the exec.
    let read = io::Read::read_to_string(&mut fs::File::from(report), &mut reason);
    match (read, reason.is_empty()) {
        (Ok(_), true) => Ok(pid),
        (Ok(_), false) => {
            super::reap(pid);
            Err(reason)
        }
        (Err(error), _) => Err(format!("cannot tell whether it runs: {}", plain(&error))),
    }
}

/// The namespaces of a process that are not this one's own.
fn namespaces_of(pid: u32) -> Result<Namespaces, String> {
    let mut namespaces = Namespaces::default();
    for kind in Kind::ALL {
        let theirs = PathBuf::from(format!("/proc/{pid}/ns/{}", kind.file()));
        let ours = Path::new("/proc/self/ns").join(kind.file());
        let failed = || format!("cannot look at the container's {} namespace", kind.name());
        let ours = match fs::metadata(ours) {
            // A kernel without that kind.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.because(failed)?.ino(),
        };
        if fs::metadata(&theirs).because(failed)?.ino() != ours {
            namespaces.joined.push((kind, theirs));
        }
    }
    Ok(namespaces)
}

fn run(errand: &Errand<'_>, root: &OwnedFd, link: &OwnedFd, report: &OwnedFd) -> Infallible {
    let prepared = prepare(errand, root, link, report);
    let reason = match prepared {
        Ok((identity, pid)) => {
            if wire::send(link.as_fd(), &Word::Ready).is_err() {
                sys::process::exit(1);
            }
            // The creator closes the link when it has done its part.
            let _ = wire::receive::<Go>(link.as_fd());
            sys::process::close(link.as_fd());
            identity::execute(identity, errand.process, errand.notify, errand.state, pid)
        }
        Err(reason) => {
            let _ = wire::send(link.as_fd(), &Word::Failed(reason));
            sys::process::exit(1)
        }
    };
    let _ = rustix::io::write(report, reason.as_bytes());
    sys::process::exit(1)
}

fn prepare(errand: &Errand<'_>, root: &OwnedFd, link: &OwnedFd, report: &OwnedFd) -> Result<(Identity, u32), String> {
    // Its memory and descriptors are the host's: not for a process of the container to look into.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .because(|| "cannot close this process's memory".to_owned())?;
    let Ok(Go { pid }) = wire::receive(link.as_fd()) else { sys::process::exit(1) };
    rustix::process::setsid().because(|| "cannot make a session".to_owned())?;
    let failed = || "cannot enter the container's root".to_owned();
    rustix::process::fchdir(root).because(failed)?;
    rustix::process::chroot(".").because(failed)?;
    if let Some(domain) = errand.personality {
        sys::schedule::set_personality(domain).because(|| "cannot set the personality".to_owned())?;
    }
    if errand.process.terminal {
        let tree = Tree::open_root(Path::new("/")).because(failed)?;
        let console = Console::open(&tree, errand.process.terminal_size, false)?;
        if let Some(socket) = errand.console {
            console.hand_over(socket)?;
        }
        console.give_to(errand.process.uid);
        console.take()?;
    }
    sys::signal::default_all();
    let keep = [Some(link.as_fd()), Some(report.as_fd()), errand.notify.map(AsFd::as_fd)];
    // Only an AppArmor profile has to be written to the process's own file.
    let proc = match &errand.process.apparmor_profile {
        Some(_) => Some(Proc::open()?),
        None => None,
    };
    let held = proc.as_ref().map(Proc::fd);
    close_all_but(&errand.process.preserved, keep.into_iter().flatten().chain(held))?;
    let warn = |text: String| drop(wire::send(link.as_fd(), &Word::Warning(text)));
    let identity = Identity::assume(errand.process, proc.as_ref(), &warn)?;
    Ok((identity, pid))
}
