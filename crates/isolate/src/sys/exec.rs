//! Running another program as a child, without copying the parent's page tables.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::SeqCst;

use super::check;

/// Room for the few calls between clone and exec.
const STACK: usize = 64 * 1024;

/// What the child needs; it reads this in the parent's memory.
struct Errand<'a> {
    candidates: &'a [CString],
    argv: &'a [*const libc::c_char],
    envp: &'a [*const libc::c_char],
    /// Why nothing was executed; 0 while something may be. Atomic, because the parent reads in the same memory what the
    /// child wrote last: a plain write before the exec would be dropped as never read.
    errno: AtomicI32,
}

/// Executes the first of `candidates` that can be executed, as a child in the same namespaces. Returns its pid once
/// the program has been loaded. The child has default signal dispositions and an empty signal mask; descriptors not
/// marked close-on-exec are passed on.
pub(crate) fn spawn(candidates: &[CString], argv: &[CString], environment: &[CString]) -> io::Result<u32> {
    let (argv, envp) = (pointers(argv), pointers(environment));
    let errand = Errand { candidates, argv: &argv, envp: &envp, errno: AtomicI32::new(libc::ENOENT) };
    let mut stack = vec![0u8; STACK];
    let top = stack.as_mut_ptr_range().end.map_addr(|address| address & !15);
    // SAFETY: CLONE_VFORK suspends this thread until the child has executed a program or ended, so the stack and the
    // errand outlive the child's use of them, and nothing changes under it. With CLONE_VM the child shares memory:
    // it writes only `errand.errno` and its own stack, and calls only what is async-signal-safe.
    let pid = unsafe {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        libc::clone(child, top.cast(), flags, (&raw const errand).cast_mut().cast())
    };
    let pid = check(pid.into())?;
    let errno = errand.errno.load(SeqCst);
    if errno == 0 {
        return Ok(pid as u32);
    }
    // SAFETY: reaps the child that could not execute anything; no pointer but null is passed.
    check(unsafe { libc::waitpid(pid as libc::pid_t, ptr::null_mut(), 0) }.into())?;
    Err(io::Error::from_raw_os_error(errno))
}

/// Executes in place of this process. Returns only when it cannot.
pub(crate) fn replace(candidates: &[CString], argv: &[CString], environment: &[CString]) -> io::Error {
    let (argv, envp) = (pointers(argv), pointers(environment));
    let errand = Errand { candidates, argv: &argv, envp: &envp, errno: AtomicI32::new(libc::ENOENT) };
    execute(&errand);
    io::Error::from_raw_os_error(errand.errno.load(SeqCst))
}

/// Executes the program that a descriptor stands for in place of this one. Signals stay blocked as they are, and those
/// that wait go on waiting. Returns only when it cannot.
pub(crate) fn become_program(program: BorrowedFd<'_>, argv: &[CString], environment: &[CString]) -> io::Error {
    let (argv, envp) = (pointers(argv), pointers(environment));
    // SAFETY: the path and both lists are null-terminated and live.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

extern "C" fn child(errand: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `spawn` passes its own live errand and waits; see there.
    let errand = unsafe { &*errand.cast::<Errand<'_>>() };
    execute(errand);
    127
}

fn execute(errand: &Errand<'_>) {
    super::signal::reset();
    // While the program is loaded the errand must already say success: a loaded program cannot say it any more.
    for candidate in errand.candidates {
        let refused = errand.errno.swap(0, SeqCst);
        let failed = try_one(candidate, errand);
        // What exists but may not be run says more than what does not exist.
        errand.errno.store(if failed == libc::ENOENT { refused } else { failed }, SeqCst);
    }
}

/// Returns the error number only if the program was not loaded.
fn try_one(candidate: &CStr, errand: &Errand<'_>) -> i32 {
    // SAFETY: the path and both lists are null-terminated and live in the errand.
    unsafe {
        libc::execve(candidate.as_ptr(), errand.argv.as_ptr(), errand.envp.as_ptr());
        *libc::__errno_location()
    }
}
