//! System calls that have let programs out of containers, or into the kernel, before.

use super::{Attempt, Row, call, done, if_so, reached};
use crate::sys::text;
use crate::world::told;

pub(super) const PROBES: &[Row] = &[
    ("bpf", || {
        let attributes = [0u64; 16];
        reached(call(libc::SYS_bpf, &[0, attributes.as_ptr().addr(), 128]))
    }),
    ("perf_event_open", || {
        // A software event, the processor clock, of this process.
        let mut attributes = [0u64; 16];
        attributes[0] = (128u64 << 32) | 1;
        done(call(libc::SYS_perf_event_open, &[attributes.as_ptr().addr(), 0, usize::MAX, usize::MAX, 0]))
    }),
    ("userfaultfd", || done(call(libc::SYS_userfaultfd, &[0]))),
    ("io_uring_setup", || {
        let parameters = [0u32; 30];
        done(call(libc::SYS_io_uring_setup, &[1, parameters.as_ptr().addr()]))
    }),
    ("io_uring_enter", || reached(call(libc::SYS_io_uring_enter, &[usize::MAX, 0, 0, 0, 0, 0]))),
    ("io_uring_register", || reached(call(libc::SYS_io_uring_register, &[usize::MAX, 0, 0, 0]))),
    ("keyctl", || done(call(libc::SYS_keyctl, &[1, 0]))),
    ("add_key", || {
        let (kind, name) = (text("user"), text("escape"));
        done(call(
            libc::SYS_add_key,
            &[kind.as_ptr().addr(), name.as_ptr().addr(), name.as_ptr().addr(), 6, -2isize as usize],
        ))
    }),
    ("request_key", || {
        let (kind, name) = (text("user"), text("escape-none"));
        reached(call(libc::SYS_request_key, &[kind.as_ptr().addr(), name.as_ptr().addr(), 0, -2isize as usize]))
    }),
    ("ptrace", || done(call(libc::SYS_ptrace, &[libc::PTRACE_TRACEME as usize, 0, 0, 0]))),
    ("read_a_processes_memory", || memory(libc::SYS_process_vm_readv)),
    ("write_a_processes_memory", || memory(libc::SYS_process_vm_writev)),
    ("process_madvise", || reached(call(libc::SYS_process_madvise, &[usize::MAX, 0, 0, 0, 0]))),
    ("kcmp", || {
        let own = std::process::id() as usize;
        reached(call(libc::SYS_kcmp, &[own, own, 0, 0, 0]))
    }),
    ("kexec_load", || reached(call(libc::SYS_kexec_load, &[0, 0, 0, 0xffff]))),
    ("kexec_file_load", || reached(call(libc::SYS_kexec_file_load, &[usize::MAX, usize::MAX, 0, 0, 0]))),
    ("init_module", || {
        let nothing = text("");
        reached(call(libc::SYS_init_module, &[0, 0, nothing.as_ptr().addr()]))
    }),
    ("finit_module", || {
        let nothing = text("");
        reached(call(libc::SYS_finit_module, &[usize::MAX, nothing.as_ptr().addr(), 0]))
    }),
    ("delete_module", || {
        let name = text("escape_no_such_module");
        reached(call(libc::SYS_delete_module, &[name.as_ptr().addr(), libc::O_NONBLOCK as usize]))
    }),
    ("name_to_handle_at", || {
        let (root, mut handle, mut mount) = (text("/"), [128u32; 40], 0i32);
        handle[0] = 128;
        let args =
            [libc::AT_FDCWD as usize, root.as_ptr().addr(), handle.as_mut_ptr().addr(), (&raw mut mount).addr(), 0];
        done(call(libc::SYS_name_to_handle_at, &args))
    }),
    ("open_by_handle_at", || reached(call(libc::SYS_open_by_handle_at, &[usize::MAX, 0, 0]))),
    ("fanotify_init", || done(call(libc::SYS_fanotify_init, &[0, 0]))),
    ("fanotify_mark", || reached(call(libc::SYS_fanotify_mark, &[usize::MAX, 0, 0, 0, 0]))),
    ("move_pages", || reached(call(libc::SYS_move_pages, &[0, 0, 0, 0, 0, 0]))),
    ("migrate_pages", || reached(call(libc::SYS_migrate_pages, &[0, 0, 0, 0]))),
    ("clock_settime", || reached(call(libc::SYS_clock_settime, &[0, 0]))),
    ("clock_adjtime", || reached(call(libc::SYS_clock_adjtime, &[0, 0]))),
    ("iopl", || done(call(libc::SYS_iopl, &[3]))),
    ("ioperm", || done(call(libc::SYS_ioperm, &[0x80, 1, 1]))),
    ("modify_ldt", || {
        let mut entries = [0u8; 64];
        done(call(libc::SYS_modify_ldt, &[0, entries.as_mut_ptr().addr(), 64]))
    }),
    ("ustat", || reached(call(libc::SYS_ustat, &[0, 0]))),
    ("sysfs", || done(call(libc::SYS_sysfs, &[3]))),
    ("call_of_the_x32_family", || {
        // Where the kernel has the family, getpid answers; where it has not, the call must still not be ours to make.
        reached(call(0x4000_0000 + libc::SYS_getpid, &[]))
    }),
    ("call_of_the_32_bit_family", || {
        // getpid is 20 there.
        if_so(crate::sys::call_32(20) > 0, "the kernel does not answer")
    }),
    ("odd_personality", || done(call(libc::SYS_personality, &[0x0040_0000]))),
    ("socket_to_the_kernels_cryptography", || socket(libc::AF_ALG, libc::SOCK_SEQPACKET)),
    ("socket_to_the_hypervisor", || socket(libc::AF_VSOCK, libc::SOCK_STREAM)),
    ("socket_netlink_route", || netlink(0)),
    ("socket_netlink_audit", || netlink(9)),
    ("socket_netlink_uevent", || netlink(15)),
    ("socket_to_the_key_manager", || socket(libc::AF_KEY, libc::SOCK_RAW)),
    ("socket_bluetooth", || socket(libc::AF_BLUETOOTH, libc::SOCK_RAW)),
    ("push_into_a_terminal", || terminal(libc::TIOCSTI)),
    ("paste_into_a_terminal", || terminal(libc::TIOCLINUX)),
];

fn memory(number: libc::c_long) -> Attempt {
    let pid: usize = told("HOST_PID").parse().unwrap_or(0);
    let (mut there, here) = ([0u8; 8], [0u8; 8]);
    let local = [there.as_mut_ptr().addr(), 8];
    let remote = [here.as_ptr().addr(), 8];
    reached(call(number, &[pid, local.as_ptr().addr(), 1, remote.as_ptr().addr(), 1, 0]))
}

fn socket(family: i32, kind: i32) -> Attempt {
    done(call(libc::SYS_socket, &[family as usize, kind as usize, usize::from(family == libc::AF_KEY) * 2]))
}

fn netlink(protocol: usize) -> Attempt {
    done(call(libc::SYS_socket, &[libc::AF_NETLINK as usize, libc::SOCK_RAW as usize, protocol]))
}

/// A character typed on behalf of whoever sits at the terminal. A new pair of terminals is where it can do no harm; what is
/// asked is whether the call is there at all.
fn terminal(request: libc::Ioctl) -> Attempt {
    let character = [b'x'; 8];
    // Any descriptor does: the filter looks at the request, the kernel at the descriptor after it.
    match call(libc::SYS_ioctl, &[0, request as usize, character.as_ptr().addr()]) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => Ok(()),
        other => reached(other),
    }
}
