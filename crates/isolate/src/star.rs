//! One star as the nursery knows it: what it is, how it is spoken to, how it ended.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use model::{ExitCause, Limits};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, WaitId, WaitIdOptions};
use serde::{Deserialize, Serialize};

use crate::fault::Because;
use crate::record::Record;
use crate::sys::process::Ended;
use crate::{child, sys};

/// What the kernel does by default with a signal that would end any ordinary process: all but these.
const HARMLESS: [i32; 7] =
    [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH, libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN];

/// How often a star's processes are gone through until all have a new limit.
const LOOKS: usize = 10;

/// What was sent to a star on the nursery's word; it decides how an end by SIGKILL is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Everything was killed.
    kill: bool,
    /// A signal that the program does not handle: its default was carried out by SIGKILL.
    unhandled: Option<i32>,
    /// It was killed because nobody said any more that it may run.
    #[serde(default)]
    pub(crate) lease_over: bool,
}

/// The clock that goes on while the machine sleeps.
pub(crate) fn boottime() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // Both are positive since the machine began.
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Sends a signal to the star's program.
///
/// Behind an init of ours it is passed on. A RADS star is process 1 of its namespace itself, where the kernel
/// drops signals that have no handler; there the signal's default, to end the process, is carried out here.
pub(crate) fn signal(record: &Record, pidfd: BorrowedFd<'_>, signal: i32, told: &mut Told) -> io::Result<()> {
    if !(1..=64).contains(&signal) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if signal == libc::SIGKILL {
        told.kill = true;
    } else if record.init && signal == libc::SIGSTOP {
        // Nobody can pass on what nobody can catch.
        return sys::signal::send(member(record)?.as_fd(), signal);
    } else if !record.init && signal < 32 && !HARMLESS.contains(&signal) && !minds(record.pid, signal) {
        told.unhandled = Some(signal);
        return sys::signal::send(pidfd, libc::SIGKILL);
    }
    sys::signal::send(pidfd, signal)
}

/// Ends everything in the star: with its first process the kernel ends the whole process namespace.
pub(crate) fn kill(record: &Record, pidfd: BorrowedFd<'_>, told: &mut Told) {
    told.kill = true;
    record.groups.kill();
    // It may have ended already, which is what is wanted.
    let _ = sys::signal::send(pidfd, libc::SIGKILL);
    // A version 1 freezer keeps even from dying. With the kill on its way nothing of the star's own runs any more.
    let _ = record.groups.thaw();
}

/// Halts everything in the star. Where there is no group for that, its processes are stopped one by one, which they can
/// see of each other, and commands executed in it run on.
pub(crate) fn freeze(record: &Record) -> Result<(), String> {
    let result = if record.groups.can_freeze() { record.groups.freeze() } else { stop(record.pid) };
    result.because(|| "cannot freeze the star".to_owned())
}

/// Whether nothing in a star moves that was frozen.
pub(crate) fn is_frozen(record: &Record) -> bool {
    if record.groups.can_freeze() {
        return record.groups.is_frozen();
    }
    let stands = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        match stat.rsplit_once(") ").and_then(|(_, after)| after.chars().next()) {
            // Stopped, or not more than an entry in a table.
            None | Some('T' | 't' | 'Z' | 'X') => true,
            // It cannot stop while it waits for its child to execute something (vfork), which does not happen before that
            // is let go on.
            Some('D') => {
                let waits_in = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
                ["fork", "clone"].iter().any(|place| waits_in.contains(place))
            }
            Some(_) => false,
        }
    };
    processes(record.pid).into_iter().all(stands)
}

/// Lets everything in the star go on.
pub(crate) fn thaw(record: &Record) -> Result<(), String> {
    if record.groups.can_freeze() {
        return record.groups.thaw().because(|| "cannot thaw the star".to_owned());
    }
    if !record.stopped {
        return Ok(());
    }
    // The first last: whoever waits for others finds them running again.
    for pid in processes(record.pid).into_iter().rev() {
        // It may have ended, killed while it was stopped.
        let _ = sys::signal::kill(pid as i32, libc::SIGCONT);
    }
    Ok(())
}

/// Stops a process and all it has brought forth: what it makes until it is stopped is found by another look.
fn stop(first: u32) -> io::Result<()> {
    let mut stopped = BTreeSet::new();
    for _ in 0..LOOKS {
        let running: Vec<u32> = processes(first).into_iter().filter(|pid| !stopped.contains(pid)).collect();
        if running.is_empty() {
            return Ok(());
        }
        for pid in running {
            match sys::signal::kill(pid as i32, libc::SIGSTOP) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
                _ => stopped.insert(pid),
            };
        }
    }
    Err(io::Error::other("it makes processes faster than they can be stopped"))
}

/// Sets the limits of a star that runs. Each is tried; those that failed are told together, the others stand.
pub(crate) fn limit(record: &Record, limits: &Limits) -> Result<(), String> {
    let of_groups = record.groups.limit(limits).map_err(|error| error.to_string());
    let of_processes = limit_open_files(record, limits.open_files);
    match (of_groups, of_processes) {
        (Err(first), Err(second)) => Err(format!("{first}; {second}")),
        (first, second) => first.and(second),
    }
}

fn limit_open_files(record: &Record, files: Option<u32>) -> Result<(), String> {
    let open_files = child::open_files(files)?;
    // What is born meanwhile may have its parent's limit from before; the next look finds it.
    for _ in 0..LOOKS {
        let mut all = true;
        for pid in processes(record.pid).into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            match rustix::process::prlimit(Some(pid), Resource::Nofile, open_files) {
                Ok(before) => all &= before == open_files,
                Err(Errno::SRCH) => {}
                Err(Errno::PERM) => {
                    return Err("to give a running star more open files takes the capability SYS_RESOURCE".to_owned());
                }
                Err(error) => return Err(format!("cannot limit the open files: {error}")),
            }
        }
        if all {
            return Ok(());
        }
    }
    Err("the star makes processes faster than their open files can be limited".to_owned())
}

/// The process and all it has brought forth. What was executed in a star from outside is not among them.
fn processes(first: u32) -> Vec<u32> {
    let mut found = vec![first];
    let mut looked_at = 0;
    while let Some(&pid) = found.get(looked_at) {
        looked_at += 1;
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

/// Every process of the star, commands executed in it included where it has groups, without an init of ours.
pub(crate) fn members(record: &Record) -> Vec<u32> {
    let mut members = record.groups.members().unwrap_or_default();
    if members.is_empty() {
        members = processes(record.pid);
    }
    members.retain(|pid| !(record.init && *pid == record.pid));
    members
}

/// Whether a process handles, ignores or waits for a signal itself.
fn minds(pid: u32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let bit = 1u64 << (signal - 1);
    status.lines().any(|line| {
        let set = ["SigCgt:", "SigIgn:", "SigBlk:"].iter().find_map(|name| line.strip_prefix(name));
        set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set & bit != 0)
    })
}

/// How a star ended whose first process has: reaps it if it is ours, else reads what the star noted.
pub(crate) fn cause(record: &Record, folder: &Path, pidfd: Option<BorrowedFd<'_>>, told: Told) -> ExitCause {
    let status = pidfd.and_then(|pidfd| rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED).ok());
    let reaped = status.flatten().and_then(|status| match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(Ended::Code(code)),
        (_, Some(signal)) => Some(Ended::Signal(signal)),
        _ => None,
    });
    let noted = || noted(&fs::read_to_string(folder.join("exit")).ok()?);
    // An init ends by its own code; how the program ended is in its note. It has none if it was killed itself.
    let ended = if record.init { noted().or(reaped) } else { reaped.or_else(noted) };
    match ended {
        // Not ours to reap: what it was told is the best that can be said.
        None => match told {
            Told { lease_over: true, .. } => ExitCause::LeaseOver,
            Told { kill: true, .. } => ExitCause::Signal(libc::SIGKILL),
            Told { unhandled: Some(signal), .. } => ExitCause::Signal(signal),
            Told { .. } => ExitCause::Unknown,
        },
        Some(Ended::Code(code)) => ExitCause::Code(code),
        Some(Ended::Signal(libc::SIGKILL)) => match told {
            Told { lease_over: true, .. } => ExitCause::LeaseOver,
            Told { kill: true, .. } => ExitCause::Signal(libc::SIGKILL),
            Told { unhandled: Some(signal), .. } => ExitCause::Signal(signal),
            _ if record.groups.oom_kills() > 0 => ExitCause::OutOfMemory,
            _ => ExitCause::Signal(libc::SIGKILL),
        },
        Some(Ended::Signal(signal)) => ExitCause::Signal(signal),
    }
}

/// The note of `child::note_exit`.
fn noted(text: &str) -> Option<Ended> {
    let (kind, number) = text.split_at_checked(1)?;
    match kind {
        "c" => Some(Ended::Code(number.parse().ok()?)),
        "s" => Some(Ended::Signal(number.parse().ok()?)),
        _ => None,
    }
}

/// The number of a process in the star whose namespaces may be looked at. An init of ours is closed to that (see
/// `init`); the program behind it is not.
pub(crate) fn member_pid(record: &Record) -> io::Result<u32> {
    if !record.init {
        return Ok(record.pid);
    }
    let pid = record.pid;
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let first = children.split_whitespace().next().and_then(|child| child.parse().ok());
    first.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "its program has ended"))
}

/// A pidfd of that process.
pub(crate) fn member(record: &Record) -> io::Result<OwnedFd> {
    let number = i32::try_from(member_pid(record)?).ok();
    let pid = number.and_then(rustix::process::Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// A pidfd of the process a record names, if that very process still runs.
pub(crate) fn find(record: &Record) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(record.pid).ok()?)?;
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
    // Opened before it is compared: from here on the number cannot be taken over by another process.
    let same = crate::start::start_time(record.pid).is_ok_and(|start| start == record.start_time);
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(pidfd.as_fd(), rustix::event::PollFlags::IN)];
    let ended = rustix::event::poll(&mut fds, Some(&rustix::event::Timespec::default())) != Ok(0);
    (same && !ended).then_some(pidfd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_notes_are_read_and_nonsense_is_not() {
        assert_eq!(noted("c3"), Some(Ended::Code(3)));
        assert_eq!(noted("s15"), Some(Ended::Signal(15)));
        for text in ["", "c", "x1", "é1", "c1 "] {
            assert_eq!(noted(text), None, "{text}");
        }
    }
}
