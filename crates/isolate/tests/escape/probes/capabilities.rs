//! What root may do by its capabilities, and a star's root may not.

use std::fs;

use super::{Attempt, Row, call, done, if_so, reached};
use crate::sys::text;

pub(super) const PROBES: &[Row] = &[
    ("have_any_capability", || {
        let status = fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
        let set = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
            u64::from_str_radix(line.trim(), 16).unwrap_or(0)
        };
        let sets = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"];
        if_so(sets.into_iter().any(|name| set(name) != 0), "every set is empty")
    }),
    ("raise_capabilities", || {
        let header = [0x2008_0522u32, 0];
        let wanted = [1u32 << 21, 1 << 21, 0, 0, 0, 0];
        done(call(libc::SYS_capset, &[header.as_ptr().addr(), wanted.as_ptr().addr()]))
    }),
    ("raise_an_ambient_capability", || {
        // CAP_CHOWN, inheritable first.
        let header = [0x2008_0522u32, 0];
        let wanted = [1u32, 1, 1, 0, 0, 0];
        call(libc::SYS_capset, &[header.as_ptr().addr(), wanted.as_ptr().addr()]).map_err(|error| error.to_string())?;
        done(call(libc::SYS_prctl, &[libc::PR_CAP_AMBIENT as usize, libc::PR_CAP_AMBIENT_RAISE as usize, 0, 0, 0]))
    }),
    ("clear_the_secure_bits", || done(call(libc::SYS_prctl, &[libc::PR_SET_SECUREBITS as usize, 0]))),
    ("give_a_file_away", || {
        let path = own_file()?;
        let result = std::os::unix::fs::chown(&path, Some(12_345), Some(12_345));
        let _ = fs::remove_file(&path);
        done(result)
    }),
    ("become_another_user", || done(call(libc::SYS_setresuid, &[12_345, 12_345, 12_345]))),
    ("become_another_group", || done(call(libc::SYS_setresgid, &[12_345, 12_345, 12_345]))),
    ("join_groups", || {
        let groups = [4u32, 27];
        done(call(libc::SYS_setgroups, &[2, groups.as_ptr().addr()]))
    }),
    ("make_a_character_device", || device(libc::S_IFCHR, 1, 3)),
    ("make_a_block_device", || device(libc::S_IFBLK, 254, 0)),
    ("give_a_file_capabilities", || {
        let path = own_file()?;
        let (at, name) = (text(&path), text("security.capability"));
        // Version 2, effective, CAP_SYS_ADMIN permitted.
        let value = [0x0200_0001u32, 1 << 21, 0, 0, 0];
        let args = [at.as_ptr().addr(), name.as_ptr().addr(), value.as_ptr().addr(), 20, 0];
        let result = call(libc::SYS_setxattr, &args);
        let _ = fs::remove_file(&path);
        done(result)
    }),
    ("write_a_trusted_attribute", || {
        let path = own_file()?;
        let (at, name, value) = (text(&path), text("trusted.escape"), text("x"));
        let args = [at.as_ptr().addr(), name.as_ptr().addr(), value.as_ptr().addr(), 1, 0];
        let result = call(libc::SYS_setxattr, &args);
        let _ = fs::remove_file(&path);
        // A file system that has no such attributes minds too, but not who asks.
        done(result)
    }),
    ("raise_own_priority", || done(call(libc::SYS_setpriority, &[0, 0, -10i32 as usize]))),
    ("become_a_real_time_process", || {
        let priority = [10i32];
        done(call(libc::SYS_sched_setscheduler, &[0, 1, priority.as_ptr().addr()]))
    }),
    ("take_the_disk_first", || {
        // IOPRIO_WHO_PROCESS, self, real-time class.
        done(call(libc::SYS_ioprio_set, &[1, 0, 1 << 13]))
    }),
    ("set_the_clock", || {
        // Microseconds out of range: refused even where one may.
        let time = [0i64, 2_000_000];
        reached(call(libc::SYS_settimeofday, &[time.as_ptr().addr(), 0]))
    }),
    ("adjust_the_clock", || {
        // ADJ_FREQUENCY with the present frequency.
        let mut state = [0i64; 32];
        call(libc::SYS_adjtimex, &[state.as_mut_ptr().addr()]).map_err(|error| error.to_string())?;
        Ok(())
    }),
    ("reboot", || reached(call(libc::SYS_reboot, &[1, 2, 3, 0]))),
    ("read_the_kernels_log", || {
        let mut text = [0u8; 64];
        done(call(libc::SYS_syslog, &[3, text.as_mut_ptr().addr(), 64]))
    }),
    ("account_processes", || {
        let path = text("/nonexistent/acct");
        reached(call(libc::SYS_acct, &[path.as_ptr().addr()]))
    }),
    ("set_quotas", || {
        let path = text("/nonexistent");
        let command = (0x80_0007usize) << 8;
        reached(call(libc::SYS_quotactl, &[command, path.as_ptr().addr(), 0, 0]))
    }),
    ("hang_up_the_terminal", || done(call(libc::SYS_vhangup, &[]))),
    ("swap_on", || {
        let path = text("/nonexistent/swap");
        reached(call(libc::SYS_swapon, &[path.as_ptr().addr(), 0]))
    }),
    ("swap_off", || {
        let path = text("/nonexistent/swap");
        reached(call(libc::SYS_swapoff, &[path.as_ptr().addr()]))
    }),
];

fn own_file() -> Result<String, String> {
    // Where user attributes of every kind exist on the host; in a star the same folder is memory.
    let path = format!("/var/tmp/escape-probe-{}", std::process::id());
    let path = if fs::write(&path, "x").is_ok() { path } else { path.replace("/var", "") };
    fs::write(&path, "x").map_err(|error| error.to_string())?;
    Ok(path)
}

fn device(kind: u32, major: u32, minor: u32) -> Attempt {
    let path = format!("/tmp/escape-probe-device-{}", std::process::id());
    let at = text(&path);
    let mode = (kind | 0o600) as usize;
    let result = call(libc::SYS_mknod, &[at.as_ptr().addr(), mode, libc::makedev(major, minor) as usize]);
    let _ = fs::remove_file(&path);
    done(result)
}
