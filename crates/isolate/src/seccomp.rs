//! Which system calls a star may make: an allow-list, compiled once per nursery into a program for the kernel.
//!
//! There are two. A command may be any program, and has what programs need. A RADS star is the nursery's own machine and
//! library, whose calls are known: it starts no other program, makes no processes, becomes nobody else, and has less than half
//! of the list.
//!
//! What is not listed does not exist (`ENOSYS`), so that a call added to Linux tomorrow is closed today and the C
//! library falls back to older ones. Calls that programs know and must not make are refused (`EPERM`). The program is
//! a binary search over ranges of numbers: about seven comparisons for any call, where a chain of several hundred
//! would cost every system call of a busy server dearly, and the kernel a long look at each start.

pub(crate) use crate::sys::privilege::Instruction;

/// Whose list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Script,
    Command,
}

/// The programs for both, which are the same for every star.
///
/// Loading one takes the kernel time with its length, so most of it is done before there is an order: a protostar loads `ahead`,
/// under which every star may still become what is ordered, and the star a shorter one, `closing`, that takes away what it must
/// not do. Both hold from then on, and together they are `of` its profile.
pub(crate) struct Filters {
    script: Vec<Instruction>,
    command: Vec<Instruction>,
    ahead: Vec<Instruction>,
    closing_script: Vec<Instruction>,
    closing_command: Vec<Instruction>,
}

impl Filters {
    pub(crate) fn new() -> Self {
        Self {
            script: program(&table(Profile::Script)),
            command: program(&table(Profile::Command)),
            ahead: program(&table_ahead()),
            closing_script: closing(Profile::Script),
            closing_command: closing(Profile::Command),
        }
    }

    pub(crate) fn of(&self, profile: Profile) -> &[Instruction] {
        match profile {
            Profile::Script => &self.script,
            Profile::Command => &self.command,
        }
    }

    pub(crate) fn ahead(&self) -> &[Instruction] {
        &self.ahead
    }

    pub(crate) fn closing(&self, profile: Profile) -> &[Instruction] {
        match profile {
            Profile::Script => &self.closing_script,
            Profile::Command => &self.closing_command,
        }
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow,
    /// Known and refused.
    Deny,
    /// As if this kernel did not have it.
    Absent,
    /// Processes and threads, but no new namespaces.
    NoNamespaces,
    /// Threads of the calling process and nothing else.
    OnlyThreads,
    /// Unix and internet sockets only.
    CommonSockets,
    /// Any but those that feed input to a terminal.
    NoTerminalInput,
    /// The usual Linux personality only.
    UsualPersonality,
    /// Pipes for bytes, not those that carry the kernel's notifications (`O_NOTIFICATION_PIPE`, which is `O_EXCL`).
    PlainPipes,
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
const KILLED: u32 = libc::SECCOMP_RET_KILL_PROCESS;

const fn refused(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno as u32
}

/// Any of the `CLONE_NEW…` flags that `clone` knows.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

// Offsets in the kernel's `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;
const SECOND_ARGUMENT: u32 = 24;

/// The whole filter: what is in no table is absent.
fn program(table: &[(libc::c_long, Verdict)]) -> Vec<Instruction> {
    search_for(&ranges(table, Verdict::Absent))
}

/// What remains to be said of a profile's star under the filter ahead. Where both say the same, this one lets the call pass: of
/// two that refuse a call, the kernel takes the later one's word.
fn closing(profile: Profile) -> Vec<Instruction> {
    let ahead = table_ahead();
    let table: Vec<_> = table(profile).into_iter().filter(|entry| !ahead.contains(entry)).collect();
    search_for(&ranges(&table, Verdict::Allow))
}

fn search_for(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    let mut program = vec![
        load(ARCH),
        // Numbers mean other calls on other architectures; no star has a reason to switch.
        jump_if(libc::BPF_JEQ, ARCHITECTURE, 1, 0),
        give(KILLED),
        load(NUMBER),
    ];
    program.extend(search(ranges, &decide));
    program
}

/// The verdict from each number on, up to the next range. The first starts at 0. `usual` is that of calls in no table.
fn ranges(table: &[(libc::c_long, Verdict)], usual: Verdict) -> Vec<(u32, Verdict)> {
    let mut calls: Vec<(u32, Verdict)> = table.iter().map(|&(number, verdict)| (number as u32, verdict)).collect();
    calls.sort_unstable_by_key(|&(number, _)| number);
    let mut ranges = vec![(0, usual)];
    let mut put = |from: u32, verdict: Verdict| {
        let &(last, before) = ranges.last().expect("it starts with one");
        match (last == from, before == verdict) {
            (true, _) => {
                ranges.pop();
                if ranges.last().is_none_or(|&(_, before)| before != verdict) {
                    ranges.push((from, verdict));
                }
            }
            (false, true) => {}
            (false, false) => ranges.push((from, verdict)),
        }
    };
    for (number, verdict) in calls {
        put(number, verdict);
        put(number + 1, usual);
    }
    ranges
}

/// Halves the ranges until one is left. They begin at 0, in order.
pub(crate) fn search<V>(ranges: &[(u32, V)], decide: &impl Fn(&V) -> Vec<Instruction>) -> Vec<Instruction> {
    if let [(_, verdict)] = ranges {
        return decide(verdict);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let (below, above) = (search(low, decide), search(high, decide));
    // A conditional jump reaches 255 instructions; further, an unconditional one carries it.
    let mut code = match u8::try_from(below.len()) {
        Ok(length) => vec![jump_if(libc::BPF_JGE, high[0].0, length, 0)],
        Err(_) => vec![jump_if(libc::BPF_JGE, high[0].0, 0, 1), jump(below.len() as u32)],
    };
    code.extend(below);
    code.extend(above);
    code
}

fn decide(verdict: &Verdict) -> Vec<Instruction> {
    let either = |test: Vec<Instruction>, otherwise: u32| {
        let mut code = test;
        code.extend([give(otherwise), give(ALLOWED)]);
        code
    };
    match *verdict {
        Verdict::Allow => vec![give(ALLOWED)],
        Verdict::Deny => vec![give(refused(libc::EPERM))],
        Verdict::Absent => vec![give(refused(libc::ENOSYS))],
        Verdict::NoNamespaces => {
            either(vec![load(FIRST_ARGUMENT), jump_if(libc::BPF_JSET, NEW_NAMESPACES, 0, 1)], refused(libc::EPERM))
        }
        Verdict::OnlyThreads => {
            // A thread in a namespace of its own is none of these; the kernel refuses most such pairs itself.
            let mut test = vec![load(FIRST_ARGUMENT), jump_if(libc::BPF_JSET, NEW_NAMESPACES, 1, 0)];
            test.push(jump_if(libc::BPF_JSET, libc::CLONE_THREAD as u32, 1, 0));
            either(test, refused(libc::EPERM))
        }
        Verdict::CommonSockets => {
            let mut test = vec![load(FIRST_ARGUMENT)];
            test.push(jump_if(libc::BPF_JEQ, libc::AF_UNIX as u32, 3, 0));
            test.push(jump_if(libc::BPF_JEQ, libc::AF_INET as u32, 2, 0));
            test.push(jump_if(libc::BPF_JEQ, libc::AF_INET6 as u32, 1, 0));
            either(test, refused(libc::EAFNOSUPPORT))
        }
        Verdict::NoTerminalInput => {
            let mut test = vec![load(SECOND_ARGUMENT)];
            test.push(jump_if(libc::BPF_JEQ, libc::TIOCSTI as u32, 1, 0));
            test.push(jump_if(libc::BPF_JEQ, libc::TIOCLINUX as u32, 0, 1));
            either(test, refused(libc::EPERM))
        }
        Verdict::PlainPipes => either(
            vec![load(SECOND_ARGUMENT), jump_if(libc::BPF_JSET, libc::O_EXCL as u32, 0, 1)],
            refused(libc::EPERM),
        ),
        Verdict::UsualPersonality => {
            let mut test = vec![load(FIRST_ARGUMENT)];
            test.push(jump_if(libc::BPF_JEQ, 0, 2, 0));
            test.push(jump_if(libc::BPF_JEQ, u32::MAX, 1, 0));
            either(test, refused(libc::EPERM))
        }
    }
}

pub(crate) fn load(offset: u32) -> Instruction {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

pub(crate) fn jump_if(test: u32, value: u32, then: u8, otherwise: u8) -> Instruction {
    instruction(libc::BPF_JMP | test | libc::BPF_K, then, otherwise, value)
}

pub(crate) fn jump(distance: u32) -> Instruction {
    instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, distance)
}

pub(crate) fn give(result: u32) -> Instruction {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, result)
}

pub(crate) fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code: code as u16, jt, jf, k }
}

macro_rules! calls {
    ($table:ident, $verdict:expr, $($call:ident)+) => {
        $table.extend([$((libc::$call, $verdict)),+]);
    };
}

/// Every call that has a verdict of its own. One that is in no list is `Absent`, among them `clone3` (its flags lie
/// in memory, where a filter cannot look) and io_uring (its work escapes the filter). What a command may and a script may not
/// is denied.
fn table(profile: Profile) -> Vec<(libc::c_long, Verdict)> {
    let table = commands();
    let Profile::Script = profile else { return table };
    let own = scripts();
    let verdict = |call| own.iter().find(|(own, _)| *own == call).map_or(Verdict::Deny, |&(_, verdict)| verdict);
    table.into_iter().map(|(call, _)| (call, verdict(call))).collect()
}

/// What a protostar needs beside what commands may do, to become the star that is ordered: to take its name and to mount what
/// goes into it.
const UNTIL_ORDERED: [libc::c_long; 3] = [libc::SYS_sethostname, libc::SYS_open_tree, libc::SYS_move_mount];

fn table_ahead() -> Vec<(libc::c_long, Verdict)> {
    let verdict = |call, verdict| if UNTIL_ORDERED.contains(&call) { Verdict::Allow } else { verdict };
    commands().into_iter().map(|(call, of_command)| (call, verdict(call, of_command))).collect()
}

/// What the machine and its library call, the C library and the allocator below them included: files, sockets and name
/// look-ups, waiting, its own memory, its own threads (for names that are looked up), its own end.
fn scripts() -> Vec<(libc::c_long, Verdict)> {
    let mut table = Vec::new();
    calls!(table, Verdict::Allow,
        SYS_read SYS_write SYS_close SYS_fstat SYS_lseek SYS_pread64 SYS_pwrite64 SYS_readv SYS_writev SYS_dup
        SYS_dup3 SYS_fcntl SYS_fsync SYS_fdatasync SYS_ftruncate SYS_fallocate SYS_getdents64 SYS_getcwd SYS_fchmod
        SYS_fchmodat SYS_fchmodat2 SYS_fchown SYS_umask SYS_statfs SYS_fstatfs SYS_openat SYS_openat2 SYS_mkdirat
        SYS_newfstatat SYS_statx SYS_unlinkat SYS_renameat SYS_renameat2 SYS_readlinkat SYS_faccessat SYS_faccessat2
        SYS_utimensat SYS_splice SYS_sendfile SYS_copy_file_range SYS_fadvise64 SYS_close_range);
    calls!(table, Verdict::Allow,
        SYS_ppoll SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_nanosleep
        SYS_clock_nanosleep SYS_clock_gettime SYS_clock_getres SYS_gettimeofday SYS_restart_syscall);
    calls!(table, Verdict::Allow,
        SYS_mmap SYS_munmap SYS_mprotect SYS_mremap SYS_brk SYS_madvise SYS_msync SYS_membarrier);
    calls!(table, Verdict::Allow,
        SYS_exit SYS_exit_group SYS_tgkill SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_sigaltstack
        SYS_futex SYS_set_robust_list SYS_set_tid_address SYS_rseq SYS_sched_yield SYS_sched_getaffinity SYS_getcpu
        SYS_getrusage SYS_getrlimit SYS_prlimit64 SYS_prctl);
    calls!(table, Verdict::Allow,
        SYS_getpid SYS_getppid SYS_gettid SYS_getsid SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getresuid
        SYS_getresgid SYS_getgroups SYS_uname SYS_sysinfo SYS_getrandom);
    calls!(table, Verdict::Allow,
        SYS_bind SYS_listen SYS_accept SYS_accept4 SYS_connect SYS_getsockname SYS_getpeername SYS_sendto
        SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_sendmmsg SYS_recvmmsg SYS_shutdown SYS_setsockopt SYS_getsockopt);
    #[cfg(target_arch = "x86_64")]
    calls!(table, Verdict::Allow,
        SYS_open SYS_stat SYS_lstat SYS_poll SYS_access SYS_pipe SYS_dup2 SYS_getdents SYS_rename SYS_mkdir SYS_rmdir
        SYS_unlink SYS_readlink SYS_chmod SYS_arch_prctl SYS_time SYS_epoll_wait);
    calls!(table, Verdict::OnlyThreads, SYS_clone);
    calls!(table, Verdict::CommonSockets, SYS_socket SYS_socketpair);
    calls!(table, Verdict::NoTerminalInput, SYS_ioctl);
    calls!(table, Verdict::PlainPipes, SYS_pipe2);
    table
}

fn commands() -> Vec<(libc::c_long, Verdict)> {
    let mut table = Vec::new();
    // Files and directories.
    calls!(table, Verdict::Allow,
        SYS_read SYS_write SYS_close SYS_fstat SYS_lseek SYS_pread64 SYS_pwrite64 SYS_readv SYS_writev SYS_dup
        SYS_dup3 SYS_fcntl SYS_flock SYS_fsync SYS_fdatasync SYS_truncate SYS_ftruncate SYS_getdents64 SYS_getcwd
        SYS_chdir SYS_fchdir SYS_fchmod SYS_fchown SYS_umask SYS_statfs SYS_fstatfs SYS_sync SYS_syncfs SYS_readahead
        SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_getxattr SYS_lgetxattr SYS_fgetxattr SYS_listxattr
        SYS_llistxattr SYS_flistxattr SYS_removexattr SYS_lremovexattr SYS_fremovexattr SYS_openat SYS_openat2
        SYS_mkdirat SYS_mknodat SYS_fchownat SYS_newfstatat SYS_unlinkat SYS_renameat SYS_renameat2 SYS_linkat
        SYS_symlinkat SYS_readlinkat SYS_fchmodat SYS_fchmodat2 SYS_faccessat SYS_faccessat2 SYS_utimensat SYS_splice
        SYS_tee SYS_vmsplice SYS_sync_file_range SYS_fallocate SYS_preadv SYS_pwritev SYS_preadv2 SYS_pwritev2
        SYS_sendfile SYS_copy_file_range SYS_statx SYS_close_range SYS_memfd_create SYS_fadvise64
        SYS_inotify_init1 SYS_inotify_add_watch SYS_inotify_rm_watch);
    // Waiting and timers.
    calls!(table, Verdict::Allow,
        SYS_ppoll SYS_pselect6 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2
        SYS_signalfd4 SYS_timerfd_create SYS_timerfd_settime SYS_timerfd_gettime SYS_nanosleep SYS_clock_nanosleep
        SYS_clock_gettime SYS_clock_getres SYS_gettimeofday SYS_getitimer SYS_setitimer SYS_timer_create
        SYS_timer_settime SYS_timer_gettime SYS_timer_getoverrun SYS_timer_delete SYS_times SYS_io_setup
        SYS_io_destroy SYS_io_submit SYS_io_cancel SYS_io_getevents SYS_restart_syscall);
    // Memory.
    calls!(table, Verdict::Allow,
        SYS_mmap SYS_munmap SYS_mprotect SYS_mremap SYS_brk SYS_madvise SYS_mincore SYS_msync SYS_mlock SYS_mlock2
        SYS_munlock SYS_mlockall SYS_munlockall SYS_membarrier SYS_get_mempolicy SYS_set_mempolicy SYS_mbind
        SYS_pkey_mprotect SYS_pkey_alloc SYS_pkey_free SYS_shmget SYS_shmat SYS_shmctl SYS_shmdt SYS_remap_file_pages);
    // Processes, threads and signals.
    calls!(table, Verdict::Allow,
        SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_wait4 SYS_waitid SYS_kill SYS_tkill SYS_tgkill
        SYS_pidfd_open SYS_pidfd_send_signal SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigsuspend
        SYS_rt_sigpending SYS_rt_sigtimedwait SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo SYS_sigaltstack SYS_futex
        SYS_set_robust_list SYS_get_robust_list SYS_set_tid_address SYS_rseq SYS_sched_yield SYS_sched_getaffinity
        SYS_sched_setaffinity SYS_sched_getparam SYS_sched_setparam SYS_sched_getscheduler SYS_sched_setscheduler
        SYS_sched_getattr SYS_sched_setattr SYS_sched_get_priority_max SYS_sched_get_priority_min
        SYS_sched_rr_get_interval SYS_getpriority SYS_setpriority SYS_ioprio_get SYS_ioprio_set SYS_prctl SYS_getcpu
        SYS_getrlimit SYS_setrlimit SYS_prlimit64 SYS_getrusage);
    // Who and where one is.
    calls!(table, Verdict::Allow,
        SYS_getpid SYS_getppid SYS_gettid SYS_getpgid SYS_setpgid SYS_getsid SYS_setsid SYS_getuid SYS_geteuid
        SYS_getgid SYS_getegid SYS_getresuid SYS_getresgid SYS_getgroups SYS_setuid SYS_setgid SYS_setreuid
        SYS_setregid SYS_setresuid SYS_setresgid SYS_setfsuid SYS_setfsgid SYS_setgroups SYS_capget SYS_capset
        SYS_uname SYS_sysinfo SYS_getrandom SYS_landlock_create_ruleset SYS_landlock_add_rule
        SYS_landlock_restrict_self SYS_seccomp);
    // Between processes.
    calls!(table, Verdict::Allow,
        SYS_bind SYS_listen SYS_accept SYS_accept4 SYS_connect SYS_getsockname SYS_getpeername SYS_sendto
        SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_sendmmsg SYS_recvmmsg SYS_shutdown SYS_setsockopt SYS_getsockopt
        SYS_semget SYS_semop SYS_semtimedop SYS_semctl SYS_msgget SYS_msgsnd SYS_msgrcv SYS_msgctl SYS_mq_open
        SYS_mq_unlink SYS_mq_timedsend SYS_mq_timedreceive SYS_mq_notify SYS_mq_getsetattr);
    // What old C libraries call instead of the above.
    #[cfg(target_arch = "x86_64")]
    calls!(table, Verdict::Allow,
        SYS_open SYS_stat SYS_lstat SYS_poll SYS_access SYS_pipe SYS_select SYS_dup2 SYS_pause SYS_alarm SYS_fork
        SYS_vfork SYS_getdents SYS_rename SYS_mkdir SYS_rmdir SYS_creat SYS_link SYS_unlink SYS_symlink SYS_readlink
        SYS_chmod SYS_chown SYS_lchown SYS_getpgrp SYS_utime SYS_mknod SYS_arch_prctl SYS_time SYS_epoll_create
        SYS_epoll_wait SYS_utimes SYS_futimesat SYS_signalfd SYS_eventfd SYS_inotify_init);
    calls!(table, Verdict::NoNamespaces, SYS_clone);
    calls!(table, Verdict::CommonSockets, SYS_socket SYS_socketpair);
    calls!(table, Verdict::NoTerminalInput, SYS_ioctl);
    calls!(table, Verdict::UsualPersonality, SYS_personality);
    calls!(table, Verdict::PlainPipes, SYS_pipe2);
    calls!(table, Verdict::Deny,
        SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_open_tree SYS_move_mount SYS_fsopen SYS_fsconfig
        SYS_fsmount SYS_fspick SYS_mount_setattr SYS_swapon SYS_swapoff SYS_quotactl SYS_unshare SYS_setns
        SYS_sethostname SYS_setdomainname SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_kcmp
        SYS_pidfd_getfd SYS_process_madvise SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_keyctl SYS_add_key
        SYS_request_key SYS_kexec_load SYS_kexec_file_load SYS_init_module SYS_finit_module SYS_delete_module
        SYS_reboot SYS_acct SYS_syslog SYS_settimeofday SYS_clock_settime SYS_clock_adjtime SYS_adjtimex
        SYS_open_by_handle_at SYS_name_to_handle_at SYS_fanotify_init SYS_fanotify_mark SYS_lookup_dcookie
        SYS_vhangup SYS_move_pages SYS_migrate_pages SYS_nfsservctl);
    #[cfg(target_arch = "x86_64")]
    calls!(table, Verdict::Deny,
        SYS_iopl SYS_ioperm SYS_modify_ldt SYS_uselib SYS_ustat SYS_sysfs);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do with the program, for the few instructions it uses.
    fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u32; 2]) -> u32 {
        let (mut accumulator, mut at) = (0, 0);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            let code = u32::from(code);
            at += 1;
            let then = |test: bool| usize::from(if test { jt } else { jf });
            if code == libc::BPF_RET | libc::BPF_K {
                return k;
            } else if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS {
                accumulator = match k {
                    NUMBER => number,
                    ARCH => architecture,
                    FIRST_ARGUMENT => arguments[0],
                    _ => arguments[1],
                };
            } else if code == libc::BPF_JMP | libc::BPF_JA {
                at += k as usize;
            } else if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K {
                at += then(accumulator == k);
            } else if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K {
                at += then(accumulator >= k);
            } else {
                at += then(accumulator & k != 0);
            }
        }
    }

    fn verdict(profile: Profile, call: libc::c_long, arguments: [u32; 2]) -> u32 {
        run(&program(&table(profile)), ARCHITECTURE, call as u32, arguments)
    }

    /// What the kernel would make of two filters: the stricter one's word, and of two refusals the later one's.
    fn both(earlier: &[Instruction], later: &[Instruction], number: u32, arguments: [u32; 2]) -> u32 {
        let word = |program| run(program, ARCHITECTURE, number, arguments);
        let strictness = |word: u32| (word & libc::SECCOMP_RET_ACTION_FULL) as i32;
        let (earlier, later) = (word(earlier), word(later));
        if strictness(earlier) < strictness(later) { earlier } else { later }
    }

    const BOTH: [Profile; 2] = [Profile::Script, Profile::Command];

    #[test]
    fn every_listed_call_meets_its_verdict_and_no_other_passes() {
        for profile in BOTH {
            let table = table(profile);
            let program = program(&table);
            for number in (0..600).chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
                let listed = table.iter().find(|(call, _)| *call as u32 == number).map(|&(_, verdict)| verdict);
                let expected = match listed {
                    None => refused(libc::ENOSYS),
                    Some(Verdict::Deny | Verdict::OnlyThreads) => refused(libc::EPERM),
                    Some(Verdict::CommonSockets) => refused(libc::EAFNOSUPPORT),
                    Some(_) => ALLOWED,
                };
                assert_eq!(run(&program, ARCHITECTURE, number, [0, 0]), expected, "{profile:?}: call {number}");
            }
        }
    }

    #[test]
    fn the_filter_ahead_and_the_closing_one_together_are_the_whole() {
        let filters = Filters::new();
        let words = [0, 1, 2, 10, 16, 0x80, u32::MAX];
        let words = words.into_iter().chain((0..32).map(|bit| 1 << bit)).chain([
            libc::TIOCSTI as u32,
            libc::TIOCLINUX as u32,
            libc::CLONE_THREAD as u32 | libc::CLONE_VM as u32,
            libc::CLONE_THREAD as u32 | libc::CLONE_NEWUSER as u32,
        ]);
        let words: Vec<u32> = words.collect();
        for profile in BOTH {
            for number in (0..600).chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
                for &first in &words {
                    for &second in &words {
                        let arguments = [first, second];
                        let whole = run(filters.of(profile), ARCHITECTURE, number, arguments);
                        let split = both(filters.ahead(), filters.closing(profile), number, arguments);
                        assert_eq!(split, whole, "{profile:?}: call {number} {arguments:x?}");
                    }
                }
            }
            assert_eq!(run(filters.closing(profile), 0x4000_0003, libc::SYS_read as u32, [0, 0]), KILLED);
        }
        // The control: one of them alone is not.
        let mount = libc::SYS_move_mount as u32;
        assert_eq!(run(filters.ahead(), ARCHITECTURE, mount, [0, 0]), ALLOWED);
        assert_eq!(run(filters.of(Profile::Command), ARCHITECTURE, mount, [0, 0]), refused(libc::EPERM));
        let length = |profile| filters.closing(profile).len();
        let (script, command) = (length(Profile::Script), length(Profile::Command));
        assert!(command < 20 && script < filters.of(Profile::Script).len(), "{command} and {script} instructions");
    }

    #[test]
    fn calls_are_judged_by_their_arguments() {
        let check = |call, arguments, expected| {
            for profile in BOTH {
                assert_eq!(verdict(profile, call, arguments), expected, "{profile:?}: {call} {arguments:x?}");
            }
        };
        check(libc::SYS_clone, [libc::CLONE_VM as u32 | libc::CLONE_THREAD as u32, 0], ALLOWED);
        for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWNET, libc::CLONE_NEWCGROUP, libc::CLONE_NEWNS] {
            check(libc::SYS_clone, [flag as u32, 0], refused(libc::EPERM));
            check(libc::SYS_clone, [flag as u32 | libc::CLONE_THREAD as u32, 0], refused(libc::EPERM));
        }
        for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
            check(libc::SYS_socket, [family as u32, 0], ALLOWED);
        }
        for family in [libc::AF_NETLINK, libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG, libc::AF_BLUETOOTH] {
            check(libc::SYS_socket, [family as u32, 0], refused(libc::EAFNOSUPPORT));
        }
        check(libc::SYS_ioctl, [0, libc::TCGETS as u32], ALLOWED);
        check(libc::SYS_ioctl, [0, libc::TIOCSTI as u32], refused(libc::EPERM));
        check(libc::SYS_ioctl, [0, libc::TIOCLINUX as u32], refused(libc::EPERM));
        check(libc::SYS_personality, [0x0040_0000, 0], refused(libc::EPERM));
        check(libc::SYS_clone3, [0, 0], refused(libc::ENOSYS));
        check(libc::SYS_io_uring_setup, [0, 0], refused(libc::ENOSYS));
    }

    #[test]
    fn a_script_has_less_than_half_of_what_a_command_has() {
        let passes = |profile| {
            let program = program(&table(profile));
            // As a thread is made, the one way of `clone` that a script has.
            let thread = [libc::CLONE_THREAD as u32, 0];
            (0..600).filter(|&number| run(&program, ARCHITECTURE, number, thread) == ALLOWED).collect::<Vec<u32>>()
        };
        let (script, command) = (passes(Profile::Script), passes(Profile::Command));
        assert!(script.iter().all(|call| command.contains(call)));
        assert!(2 * script.len() < command.len(), "{} of {}", script.len(), command.len());
        let fork = libc::SIGCHLD as u32;
        assert_eq!(verdict(Profile::Command, libc::SYS_clone, [fork, 0]), ALLOWED);
        for call in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_fork,
            libc::SYS_vfork,
            libc::SYS_setuid,
            libc::SYS_setgroups,
            libc::SYS_capset,
            libc::SYS_shmget,
            libc::SYS_mq_open,
            libc::SYS_memfd_create,
            libc::SYS_kill,
            libc::SYS_mknodat,
            libc::SYS_io_setup,
            libc::SYS_sched_setscheduler,
            libc::SYS_seccomp,
        ] {
            assert_eq!(verdict(Profile::Command, call, [0, 0]), ALLOWED, "{call}");
            assert_eq!(verdict(Profile::Script, call, [0, 0]), refused(libc::EPERM), "{call}");
        }
        assert_eq!(verdict(Profile::Script, libc::SYS_clone, [fork, 0]), refused(libc::EPERM));
    }

    #[test]
    fn what_scripts_may_commands_may() {
        let commands: Vec<_> = commands().into_iter().map(|(call, _)| call).collect();
        assert!(
            scripts().iter().all(|(call, _)| commands.contains(call)),
            "a script's call that no list of commands has"
        );
    }

    #[test]
    fn another_architecture_is_the_end() {
        for profile in BOTH {
            assert_eq!(run(&program(&table(profile)), 0x4000_0003, libc::SYS_read as u32, [0, 0]), KILLED);
        }
    }

    #[test]
    fn no_call_has_two_verdicts() {
        for list in [commands(), scripts()] {
            let mut numbers: Vec<_> = list.into_iter().map(|(number, _)| number).collect();
            let count = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), count);
        }
    }
}
