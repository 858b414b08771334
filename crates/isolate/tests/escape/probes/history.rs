//! Ways out of other runtimes that are public history, by the number of the report. What is tried is the step that those
//! runtimes left open.

use std::fs;
use std::os::fd::AsRawFd;

use super::{Attempt, Row, call, done, if_so, reached, read};
use crate::sys::text;

pub(super) const PROBES: &[Row] = &[
    // runc: the runtime's own program is overwritten through /proc.
    ("cve_2019_5736_own_program", || writable("/proc/self/exe")),
    ("cve_2019_5736_first_process", || writable("/proc/1/exe")),
    // runc: a descriptor of the host's files was left open.
    ("cve_2024_21626_left_descriptor", left_open),
    ("cve_2024_21626_working_folder", || {
        let folder = fs::read_link("/proc/self/cwd").map_err(|error| error.to_string())?;
        if_so(!folder.starts_with("/app") && folder.to_string_lossy() != "/", "it is within the root")
    }),
    // The kernel's legacy mount options overflow.
    ("cve_2022_0185_fsconfig", || {
        let kind = text("ext4");
        done(call(libc::SYS_fsopen, &[kind.as_ptr().addr(), 0]))
    }),
    // release_agent from a new user and cgroup namespace.
    ("cve_2022_0492_release_agent", || {
        let flags = (libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP) as usize;
        done(call(libc::SYS_unshare, &[flags]))
    }),
    // Keyrings counted in 32 bits.
    ("cve_2016_0728_keyring", || {
        let name = text("escape");
        done(call(libc::SYS_keyctl, &[1, name.as_ptr().addr()]))
    }),
    // A tracer's credentials.
    ("cve_2019_13272_traceme", || done(call(libc::SYS_ptrace, &[libc::PTRACE_TRACEME as usize, 0, 0, 0]))),
    // Packet sockets' rings.
    ("cve_2017_7308_packet_ring", || {
        done(call(libc::SYS_socket, &[libc::AF_PACKET as usize, libc::SOCK_RAW as usize, 0x0300]))
    }),
    // Netfilter by netlink.
    ("cve_2024_1086_nf_tables", || {
        done(call(libc::SYS_socket, &[libc::AF_NETLINK as usize, libc::SOCK_RAW as usize, 12]))
    }),
    // Netfilter by socket options: reached once the kernel looks at the option itself.
    ("cve_2021_22555_ip_tables", || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let mut value = [0u8; 8];
        let mut length = 8u32;
        let args = [socket.as_raw_fd() as usize, 0, 64, value.as_mut_ptr().addr(), (&raw mut length).addr()];
        // IPT_SO_GET_INFO asks for the same rights as the option that was broken.
        match call(libc::SYS_getsockopt, &args) {
            // No such tables in this network namespace, said before any right is looked at.
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Err(error.to_string()),
            other => reached(other),
        }
    }),
    // Handles of files outside of the root ("shocker").
    ("shocker_open_by_handle", shocker),
    // Overlay mounts of one's own.
    ("cve_2021_3493_own_overlay", || {
        done(call(libc::SYS_unshare, &[(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) as usize]))
    }),
    // Notification pipes.
    ("cve_2022_0995_watch_queue", || {
        let mut ends = [0i32; 2];
        done(call(libc::SYS_pipe2, &[ends.as_mut_ptr().addr(), libc::O_EXCL as usize]))
    }),
    // A user namespace's capabilities over the host's USB, sound and other old families.
    ("cve_2021_26708_vsock", || {
        done(call(libc::SYS_socket, &[libc::AF_VSOCK as usize, libc::SOCK_STREAM as usize, 0]))
    }),
    ("cve_2017_6074_dccp", || {
        reached(call(libc::SYS_socket, &[libc::AF_INET as usize, 6, 33])).and_then(|()| family_is_there(6, 33))
    }),
    ("cve_2023_3390_raw_sockets", || {
        done(call(libc::SYS_socket, &[libc::AF_INET as usize, libc::SOCK_RAW as usize, 255]))
    }),
    // Terminal input on behalf of another.
    ("cve_2016_7545_terminal", || {
        let character = [b'x'; 8];
        match call(libc::SYS_ioctl, &[0, libc::TIOCSTI as usize, character.as_ptr().addr()]) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => Ok(()),
            other => reached(other),
        }
    }),
];

fn writable(path: &str) -> Attempt {
    // Whether it could be written once nobody executes it any more: opening it now would be refused as busy.
    let path = text(path);
    done(call(libc::SYS_faccessat, &[libc::AT_FDCWD as usize, path.as_ptr().addr(), libc::W_OK as usize]))
}

/// Any descriptor beyond the three from which files of the host are reached.
fn left_open() -> Attempt {
    // What a runtime makes possible that leaves one open is shown by leaving one open, where there is one to leave.
    let _left = fs::File::open("/etc").ok().filter(|_| fs::metadata("/etc/shadow").is_ok());
    let own = fs::read_dir("/proc/self/fd").map_err(|error| error.to_string())?;
    let numbers = own.flatten().filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok());
    let reached = numbers.filter(|number| *number > 2).any(|number| {
        ["", "/..", "/../../../.."].iter().any(|up| {
            read(&format!("/proc/self/fd/{number}{up}/shadow")).is_ok()
                || read(&format!("/proc/self/fd/{number}{up}/etc/shadow")).is_ok()
        })
    });
    if_so(reached, "no descriptor leads to the host's files")
}

/// The handle of the root's inode on most file systems: number 2, generation 0.
fn shocker() -> Attempt {
    let root = fs::File::open("/").map_err(|error| error.to_string())?;
    let handle = [8u32, 1, 2, 0];
    done(call(libc::SYS_open_by_handle_at, &[root.as_raw_fd() as usize, handle.as_ptr().addr(), 0]))
}

fn family_is_there(kind: usize, protocol: usize) -> Attempt {
    match call(libc::SYS_socket, &[libc::AF_INET as usize, kind, protocol]) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
