//! Other namespaces: new ones, in which one would be root again, and those of others.

use std::fs;
use std::os::fd::AsRawFd;

use super::{Attempt, Row, call, done, reached};
use crate::sys::text;
use crate::world::told;

/// `CLONE_NEWTIME`, which the libc crate lacks for this use.
const NEW_TIME: i32 = 0x80;

pub(super) const PROBES: &[Row] = &[
    ("unshare_user", || unshare(libc::CLONE_NEWUSER)),
    ("unshare_mounts", || unshare(libc::CLONE_NEWNS)),
    ("unshare_pids", || unshare(libc::CLONE_NEWPID)),
    ("unshare_network", || unshare(libc::CLONE_NEWNET)),
    ("unshare_ipc", || unshare(libc::CLONE_NEWIPC)),
    ("unshare_uts", || unshare(libc::CLONE_NEWUTS)),
    ("unshare_cgroup", || unshare(libc::CLONE_NEWCGROUP)),
    ("unshare_time", || unshare(NEW_TIME)),
    ("clone_into_a_user_namespace", || clone(libc::CLONE_NEWUSER)),
    ("clone_into_everything_new", || clone(libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET)),
    ("clone3_into_a_user_namespace", || {
        let mut args = [0u64; 11];
        args[0] = libc::CLONE_NEWUSER as u64;
        args[4] = libc::SIGCHLD as u64;
        match call(libc::SYS_clone3, &[args.as_ptr().addr(), size_of_val(&args)]) {
            Ok(0) => std::process::exit(0),
            other => done(other),
        }
    }),
    ("enter_the_first_process_mounts", || enter("/proc/1/ns/mnt")),
    ("enter_the_first_process_network", || enter("/proc/1/ns/net")),
    ("enter_own_ipc_again", || enter("/proc/self/ns/ipc")),
    ("enter_a_process_of_the_host", || enter(&format!("/proc/{}/ns/mnt", told("HOST_PID")))),
    ("enter_by_pidfd", || {
        let pid: usize = told("HOST_PID").parse().unwrap_or(0);
        let pidfd = call(libc::SYS_pidfd_open, &[pid, 0]).map_err(|error| error.to_string())?;
        done(call(libc::SYS_setns, &[pidfd as usize, libc::CLONE_NEWUTS as usize]))
    }),
    ("take_a_hosts_descriptor", || {
        let pid: usize = told("HOST_PID").parse().unwrap_or(0);
        let pidfd = call(libc::SYS_pidfd_open, &[pid, 0]).map_err(|error| error.to_string())?;
        done(call(libc::SYS_pidfd_getfd, &[pidfd as usize, 0, 0]))
    }),
    ("signal_a_process_of_the_host", || {
        let pid: usize = told("HOST_PID").parse().unwrap_or(0);
        if pid == 1 {
            return Err("its number is the star's own".to_owned());
        }
        // Only if it is that process, and not one of the star's that has the number by chance.
        let line = fs::read(format!("/proc/{pid}/cmdline")).map_err(|error| error.to_string())?;
        super::if_so(!line.is_empty(), "no such process")?;
        done(call(libc::SYS_kill, &[pid, 0]))
    }),
    ("set_the_host_name", || {
        let name = text("escaped");
        done(call(libc::SYS_sethostname, &[name.as_ptr().addr(), 7]))
    }),
    ("set_the_domain_name", || {
        let name = text("escaped");
        done(call(libc::SYS_setdomainname, &[name.as_ptr().addr(), 7]))
    }),
    ("leave_by_mount_namespace_id", || {
        // listmount(2) of the caller's namespace parent; absent on old kernels.
        let request = [24u64, u64::MAX, 0];
        let mut ids = [0u64; 8];
        reached(call(458, &[request.as_ptr().addr(), ids.as_mut_ptr().addr(), 8, 0]))
    }),
];

fn unshare(flags: i32) -> Attempt {
    done(call(libc::SYS_unshare, &[flags as usize]))
}

fn clone(flags: i32) -> Attempt {
    match call(libc::SYS_clone, &[(flags | libc::SIGCHLD) as usize, 0, 0, 0, 0]) {
        Ok(0) => std::process::exit(0),
        other => done(other),
    }
}

fn enter(path: &str) -> Attempt {
    let namespace = fs::File::open(path).map_err(|error| error.to_string())?;
    done(call(libc::SYS_setns, &[namespace.as_raw_fd() as usize, 0]))
}
