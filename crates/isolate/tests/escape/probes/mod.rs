//! The probes by group, as `reliability.md` lists them.

mod capabilities;
mod cgroup;
mod devices;
mod history;
mod mounts;
mod namespaces;
mod network;
mod proc;
mod resources;
mod seccomp;

use std::fs;
use std::io::{self, Read};

use crate::sys;

/// Where an attempt must succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// A process of the host's root, aside by `sys::step_aside`.
    Unwalled,
    /// A star with `network: "host"`.
    HostNetwork,
    /// A star without limits.
    Unlimited,
}

/// `Ok` when the attacker got what it wanted; else why not.
pub(crate) type Attempt = Result<(), String>;

pub(crate) struct Probe {
    pub(crate) group: &'static str,
    pub(crate) name: &'static str,
    pub(crate) control: Control,
    pub(crate) attempt: fn() -> Attempt,
}

impl Probe {
    pub(crate) fn path(&self) -> String {
        format!("{}::{}", self.group, self.name)
    }
}

pub(crate) type Row = (&'static str, fn() -> Attempt);

pub(crate) fn all() -> Vec<Probe> {
    let groups: [(&'static str, Control, &[Row]); 11] = [
        ("mounts", Control::Unwalled, mounts::PROBES),
        ("proc and sys", Control::Unwalled, proc::PROBES),
        ("namespaces", Control::Unwalled, namespaces::PROBES),
        ("capabilities", Control::Unwalled, capabilities::PROBES),
        ("seccomp", Control::Unwalled, seccomp::PROBES),
        ("cgroup", Control::Unwalled, cgroup::PROBES),
        ("devices", Control::Unwalled, devices::PROBES),
        ("history", Control::Unwalled, history::PROBES),
        ("network", Control::Unwalled, network::PROBES),
        ("host network", Control::HostNetwork, network::TO_THE_HOST),
        ("resources", Control::Unlimited, resources::PROBES),
    ];
    let of_group = |(group, control, rows): (&'static str, Control, &'static [Row])| {
        rows.iter().map(move |&(name, attempt)| Probe { group, name, control, attempt })
    };
    groups.into_iter().flat_map(of_group).collect()
}

/// It worked.
fn done<T>(result: io::Result<T>) -> Attempt {
    result.map(drop).map_err(|error| error.to_string())
}

/// A call got past every check of privilege: it worked, or the kernel minds what was asked for, not who asks.
fn reached<T>(result: io::Result<T>) -> Attempt {
    match result {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) | None => Err(error.to_string()),
            Some(_) => Ok(()),
        },
    }
}

/// One call with a few integers.
fn call(number: libc::c_long, args: &[usize]) -> io::Result<i64> {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    sys::call(number, all)
}

/// Something can be read there.
fn read(path: &str) -> Attempt {
    let mut byte = [0; 1];
    match fs::File::open(path).and_then(|mut file| file.read(&mut byte)) {
        Ok(0) => Err("it is empty".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// It can be opened for writing. Nothing is written.
fn write(path: &str) -> Attempt {
    done(fs::OpenOptions::new().write(true).open(path))
}

/// A file can be made there; it is removed again.
fn make(path: &str) -> Attempt {
    done(fs::OpenOptions::new().write(true).create_new(true).open(path).and_then(|_| fs::remove_file(path)))
}

/// Something is in the folder.
fn list(path: &str) -> Attempt {
    match fs::read_dir(path).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Ok(()),
        Ok(false) => Err("it is empty".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The attacker is better off only if something is so.
fn if_so(so: bool, otherwise: &str) -> Attempt {
    if so { Ok(()) } else { Err(otherwise.to_owned()) }
}
