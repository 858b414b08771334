//! /proc and /sys: what they tell of the host and what can be set there.

use std::fs;

use super::{Attempt, Row, if_so, list, read, write};
use crate::world::told;

pub(super) const PROBES: &[Row] = &[
    ("read_kcore", || read("/proc/kcore")),
    ("open_kmsg", || super::done(fs::File::open("/proc/kmsg")).and_then(|()| not_masked("/proc/kmsg"))),
    ("read_kallsyms", || read("/proc/kallsyms")),
    ("read_keys", || super::done(fs::read("/proc/keys")).and_then(|()| not_masked("/proc/keys"))),
    ("read_key_users", || read("/proc/key-users")),
    ("read_timer_list", || read("/proc/timer_list")),
    ("read_interrupts", || read("/proc/interrupts")),
    ("list_acpi", || list("/proc/acpi")),
    ("list_scsi", || list("/proc/scsi")),
    ("write_sysrq_trigger", || write("/proc/sysrq-trigger").and_then(|()| not_masked("/proc/sysrq-trigger"))),
    ("write_core_pattern", || write("/proc/sys/kernel/core_pattern")),
    ("write_modprobe", || write("/proc/sys/kernel/modprobe")),
    ("write_hostname", || write("/proc/sys/kernel/hostname")),
    ("write_kptr_restrict", || write("/proc/sys/kernel/kptr_restrict")),
    ("write_panic", || write("/proc/sys/kernel/panic")),
    ("write_sysrq", || write("/proc/sys/kernel/sysrq")),
    ("write_drop_caches", || write("/proc/sys/vm/drop_caches")),
    ("write_overcommit", || write("/proc/sys/vm/overcommit_memory")),
    ("write_ip_forward", || write("/proc/sys/net/ipv4/ip_forward")),
    ("write_file_max", || write("/proc/sys/fs/file-max")),
    ("write_protected_symlinks", || write("/proc/sys/fs/protected_symlinks")),
    ("write_max_user_namespaces", || write("/proc/sys/user/max_user_namespaces")),
    ("write_irq_affinity", || write("/proc/irq/default_smp_affinity")),
    ("write_uid_map", || write("/proc/self/uid_map")),
    ("write_setgroups", || write("/proc/self/setgroups")),
    ("write_oom_score_adj", || write("/proc/self/oom_score_adj")),
    ("write_own_attributes", || write("/proc/self/attr/current").or_else(|_| write("/proc/self/timerslack_ns"))),
    ("see_a_process_of_the_host", || {
        let pid = told("HOST_PID");
        let line = fs::read(format!("/proc/{pid}/cmdline")).map_err(|error| error.to_string())?;
        if_so(String::from_utf8_lossy(&line).contains("escape") && pid != "1", "another process has that number")
    }),
    ("read_the_hosts_environment", || {
        let environment = fs::read(format!("/proc/{}/environ", told("HOST_PID"))).map_err(|error| error.to_string())?;
        // Of the star's own processes one may have the same number.
        if_so(!String::from_utf8_lossy(&environment).contains("HOST_PID="), "it is the star's own")
    }),
    ("reach_the_hosts_root_through_proc", || read(&format!("/proc/{}/root/etc/shadow", told("HOST_PID")))),
    ("reach_the_first_process_root", || read("/proc/1/root/etc/shadow")),
    ("learn_the_hosts_name", || {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").map_err(|error| error.to_string())?;
        if_so(name.trim() == told("HOST_NAME"), "it is the star's own")
    }),
    ("list_sys_kernel", || list("/sys/kernel")),
    ("list_sys_firmware", || list("/sys/firmware")),
    ("list_sys_block", || list("/sys/block")),
    ("list_sys_class_net", || list("/sys/class/net")),
    ("list_sys_module", || list("/sys/module")),
    ("write_uevent_helper", || {
        write("/sys/kernel/uevent_helper").or_else(|_| write("/sys/kernel/mm/transparent_hugepage/enabled"))
    }),
    ("write_cpu_online", || write("/sys/devices/system/cpu/cpu1/online").or_else(|_| write("/sys/power/state"))),
];

/// A mask is a device that is always empty.
fn not_masked(path: &str) -> Attempt {
    use std::os::unix::fs::FileTypeExt;
    let masked = fs::metadata(path).map_err(|error| error.to_string())?.file_type().is_char_device();
    if_so(!masked, "it is masked")
}
