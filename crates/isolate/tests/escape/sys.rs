//! System calls as an attacker makes them: by number, without a library's care.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;

/// One call. Pointers in `args` must be valid for what the call does with them, or null.
pub(crate) fn call(number: libc::c_long, args: [usize; 6]) -> io::Result<i64> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: each probe runs in a process of its own that ends right after. The arguments are integers, null, or
    // addresses of live locals of the probe.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A call of the old 32-bit entry (`int 0x80`): numbers mean other calls there.
#[cfg(target_arch = "x86_64")]
pub(crate) fn call_32(number: i32) -> i32 {
    let result: i32;
    // SAFETY: the probes make `getpid` only, which takes no arguments; r8 to r11 are lost to the kernel.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") number => result, out("r8") _, out("r9") _, out("r10") _,
            out("r11") _, options(nostack));
    }
    result
}

pub(crate) fn text(text: &str) -> CString {
    CString::new(text).expect("no NUL")
}

/// Puts a process that is about to attack the host where what it does is seen by itself only: mounts, host name, IPC.
/// Its privileges stay.
pub(crate) fn step_aside() {
    let flags = libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
    call(libc::SYS_unshare, [flags as usize, 0, 0, 0, 0, 0]).expect("root may");
    let none = text("none");
    let (root, kind) = (text("/"), none.as_ptr().addr());
    let args = [kind, root.as_ptr().addr(), 0, (libc::MS_REC | libc::MS_PRIVATE) as usize, 0, 0];
    call(libc::SYS_mount, args).expect("root may");
    let _ = call(libc::SYS_setsid, [0; 6]);
}

pub(crate) fn set_env(name: &str, value: &str) {
    // SAFETY: the runner has a single thread.
    unsafe { std::env::set_var(name, value) };
}
