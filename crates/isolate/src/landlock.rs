//! A second wall around a star's files, where the kernel has Landlock: even on a mount that should have been read-only nothing can be
//! changed but where the star may write. It also forbids mounts, and to trace what another run began.
//!
//! It rests on the kernel's own look at each path, not on how mounts were made: a mistake there does not open it. In a root of
//! the star's own everything may be written, and only the rest of it remains.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};

use crate::fault::{Because, plain};
use crate::record::Stance;
use crate::sys;
use crate::walls::Enforced;

// Rights of landlock(7).
const WRITE_FILE: u64 = 1 << 1;
/// To remove folders and files, and to make all kinds of them, devices among them.
const CHANGE_FOLDERS: u64 = 0b1_1111_1111 << 4;
const MAKE_DEVICES: u64 = 1 << 6 | 1 << 11;
/// To move files from one folder to another. Version 1 forbids it everywhere, with or without a rule.
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;

/// The first version with `REFER`: an older one would break every program that moves files.
const VERSION_MIN: u32 = 2;
/// The first version with `TRUNCATE`.
const VERSION_TRUNCATE: u32 = 3;

/// Where every star may write.
const FOLDERS: [&str; 3] = ["/tmp", "/run", "/dev/shm"];
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// The version of the rules to use; `None` where there is none that serves.
pub(crate) fn version() -> Option<u32> {
    sys::landlock::version().ok().filter(|version| *version >= VERSION_MIN)
}

/// Whether stars have this wall on this machine.
pub(crate) fn enforced() -> Enforced {
    let reason = match sys::landlock::version() {
        Ok(version) if version >= VERSION_MIN => return Enforced::Yes,
        Ok(version) => format!("the kernel's Landlock is of version {version}, {VERSION_MIN} is needed"),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOSYS) => "the kernel is built without Landlock".to_owned(),
            Some(libc::EOPNOTSUPP) => "the kernel's Landlock is switched off".to_owned(),
            _ => format!("the kernel's Landlock does not answer: {}", plain(&error)),
        },
    };
    Enforced::No { reason }
}

/// The rules of one star, which do not hold yet.
#[derive(Debug)]
pub(crate) struct Rules {
    ruleset: OwnedFd,
    /// Of a place in which everything may be changed.
    all: u64,
}

impl Rules {
    /// What every star may write to, in the star's root and with its streams in place. `version` is what `version` said.
    pub(crate) fn usual(version: u32) -> Result<Self, String> {
        let of_files = WRITE_FILE | if version >= VERSION_TRUNCATE { TRUNCATE } else { 0 };
        let handled = of_files | CHANGE_FOLDERS | REFER;
        let ruleset = sys::landlock::ruleset(handled).because(failed)?;
        let rules = Self { ruleset, all: handled & !MAKE_DEVICES };
        FOLDERS.into_iter().try_for_each(|path| rules.allow(path, rules.all))?;
        DEVICES.into_iter().try_for_each(|path| rules.allow(path, of_files))?;
        // Terminals are written to where they are; nothing is made there but by the kernel.
        rules.allow("/dev/pts", of_files)?;
        // Not every machine has it.
        let _ = rules.allow("/dev/tty", of_files);
        // By name they are opened anew: `/dev/stdout` is for many programs the file to log to.
        let streams: [BorrowedFd<'_>; 3] = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        for stream in streams {
            // Unnamed pipes and sockets have no place and need no rule.
            let _ = sys::landlock::allow(rules.ruleset.as_fd(), stream, of_files);
        }
        Ok(rules)
    }

    fn allow(&self, path: &str, rights: u64) -> Result<(), String> {
        let failed = || format!("cannot let the star write to `{path}`");
        let place = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).because(failed)?;
        sys::landlock::allow(self.ruleset.as_fd(), place.as_fd(), rights).because(failed)
    }

    /// Puts the wall around this process, before it gives up the right to open the places where this star may write beside
    /// the usual ones.
    pub(crate) fn restrict(self, stance: &Stance) -> Result<(), String> {
        if stance.weakened.no_landlock {
            return Ok(());
        }
        stance.writable.iter().try_for_each(|path| self.allow(path, self.all))?;
        sys::landlock::restrict(self.ruleset.as_fd()).because(failed)
    }
}

impl AsFd for Rules {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ruleset.as_fd()
    }
}

fn failed() -> String {
    "cannot put Landlock around the star".to_owned()
}
