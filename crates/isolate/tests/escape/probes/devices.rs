//! Devices: the machine itself.

use std::fs;

use super::{Attempt, Row, call, done, make, read};
use crate::sys::text;

pub(super) const PROBES: &[Row] = &[
    ("open_memory", || open("/dev/mem")),
    ("open_ports", || open("/dev/port")),
    ("open_the_disk", || any(&["/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/xvda"])),
    ("open_kmsg_device", || open("/dev/kmsg")),
    ("open_fuse", || open("/dev/fuse")),
    ("open_kvm", || open("/dev/kvm")),
    ("open_tun", || open("/dev/net/tun")),
    ("open_loop_control", || open("/dev/loop-control")),
    ("open_device_mapper", || open("/dev/mapper/control")),
    ("open_vhost", || any(&["/dev/vhost-net", "/dev/vhost-vsock"])),
    ("open_hardware_random", || any(&["/dev/hwrng", "/dev/rtc0", "/dev/rtc"])),
    ("open_cpu_registers", || any(&["/dev/cpu/0/msr", "/dev/cpu/0/cpuid", "/dev/nvram"])),
    ("open_the_console", || any(&["/dev/console", "/dev/tty0", "/dev/tty1", "/dev/ttyS0"])),
    ("open_terminals_of_others", || any(&["/dev/pts/0", "/dev/pts/1", "/dev/pts/2", "/dev/pts/3"])),
    ("open_the_watchdog_folder", || any(&["/dev/snapshot", "/dev/btrfs-control", "/dev/autofs", "/dev/userfaultfd"])),
    ("make_a_file_among_devices", || make("/dev/escape-probe")),
    ("use_a_disk_made_by_hand", || by_hand(libc::S_IFBLK, &fs::read_to_string("/proc/partitions").unwrap_or_default())),
    ("use_a_null_made_by_hand", || by_hand(libc::S_IFCHR, "")),
];

/// Opening is enough; a device that is there and busy is as good as open.
fn open(path: &str) -> Attempt {
    match fs::File::open(path) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        other => done(other),
    }
}

fn any(paths: &[&str]) -> Attempt {
    let outcomes: Vec<Attempt> = paths.iter().map(|path| open(path)).collect();
    outcomes.iter().find(|outcome| outcome.is_ok()).or(outcomes.first()).cloned().unwrap_or(Ok(()))
}

/// The kernel knows a device by its number, whatever the file is called.
fn by_hand(kind: u32, partitions: &str) -> Attempt {
    let (major, minor) = match partitions.lines().nth(2).map(|line| line.split_whitespace().collect::<Vec<_>>()) {
        Some(fields) if fields.len() > 2 => (fields[0].parse().unwrap_or(254), fields[1].parse().unwrap_or(0)),
        _ => (1, 5),
    };
    let path = format!("/dev/shm/escape-probe-{}-{kind}", std::process::id());
    // A folder on the host's disk allows devices where its memory file systems do not.
    let path = if fs::metadata("/var/tmp").is_ok() { path.replace("/dev/shm", "/var/tmp") } else { path };
    let at = text(&path);
    let mode = (kind | 0o600) as usize;
    call(libc::SYS_mknod, &[at.as_ptr().addr(), mode, libc::makedev(major, minor) as usize])
        .map_err(|error| error.to_string())?;
    let outcome = read(&path);
    let _ = fs::remove_file(&path);
    outcome
}
