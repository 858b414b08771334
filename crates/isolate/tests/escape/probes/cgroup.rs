//! Control groups: the limits themselves.

use std::fs;

use super::{Attempt, Row, call, done, if_so, list};
use crate::sys::text;

pub(super) const PROBES: &[Row] = &[
    ("see_the_hierarchies", || list("/sys/fs/cgroup")),
    ("learn_ones_place", || {
        let groups = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        if_so(groups.lines().any(|line| !line.ends_with(":/")), "every path is /")
    }),
    ("move_to_the_top", || {
        let tops = ["/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs"];
        let opened = tops.iter().any(|top| fs::OpenOptions::new().write(true).open(top).is_ok());
        if_so(opened, "no group can be written")
    }),
    ("mount_version_2", || mount("cgroup2", "")),
    ("mount_version_1", || mount("cgroup", "memory")),
    ("mount_a_named_hierarchy", || mount("cgroup", "none,name=escape")),
    ("write_a_release_agent", || {
        let agents = ["/sys/fs/cgroup/memory/release_agent", "/sys/fs/cgroup/cpu/release_agent"];
        let opened = agents.iter().any(|agent| fs::OpenOptions::new().write(true).open(agent).is_ok());
        if_so(opened, "no agent can be written")
    }),
    ("leave_the_cgroup_namespace", || {
        let namespace = fs::File::open("/proc/1/ns/cgroup").map_err(|error| error.to_string())?;
        use std::os::fd::AsRawFd;
        done(call(libc::SYS_setns, &[namespace.as_raw_fd() as usize, libc::CLONE_NEWCGROUP as usize]))
    }),
];

fn mount(kind: &str, options: &str) -> Attempt {
    let path = format!("/tmp/escape-probe-cgroup-{}", std::process::id());
    fs::create_dir_all(&path).map_err(|error| error.to_string())?;
    let (kind, at, options) = (text(kind), text(&path), text(options));
    let args = [kind.as_ptr().addr(), at.as_ptr().addr(), kind.as_ptr().addr(), 0, options.as_ptr().addr()];
    let mounted = call(libc::SYS_mount, &args);
    let _ = call(libc::SYS_umount2, &[at.as_ptr().addr(), libc::MNT_DETACH as usize]);
    let _ = fs::remove_dir(&path);
    done(mounted)
}
