//! Mounts and the file system: another view of files than the star's own.

use std::fs;

use super::{Attempt, Row, call, done, if_so, list, make, reached, read, write};
use crate::sys::text;
use crate::world::{SECRET, told};

pub(super) const PROBES: &[Row] = &[
    ("mount_tmpfs", || mount("tmpfs")),
    ("mount_proc", || mount("proc")),
    ("mount_sysfs", || mount("sysfs")),
    ("mount_devpts", || mount("devpts")),
    ("mount_mqueue", || mount("mqueue")),
    ("mount_overlay", overlay),
    ("bind_the_root", || bind("/")),
    ("bind_the_programs", || bind("/usr")),
    ("remount_the_root_writable", || remount("/")),
    ("remount_proc_writable", || remount("/proc")),
    ("make_mounts_shared", || flags("/", libc::MS_SHARED | libc::MS_REC)),
    ("move_a_mount", || flags("/proc", libc::MS_MOVE)),
    ("unmount_proc", || unmount("/proc")),
    ("unmount_dev_shm", || unmount("/dev")),
    ("pivot_root", || {
        let dot = text(".");
        reached(call(libc::SYS_pivot_root, &[dot.as_ptr().addr(), dot.as_ptr().addr()]))
    }),
    ("chroot", chroot),
    ("chroot_twice_and_climb", climb),
    ("open_tree", || {
        let root = text("/");
        done(call(libc::SYS_open_tree, &[libc::AT_FDCWD as usize, root.as_ptr().addr(), 1]))
    }),
    ("move_mount", || {
        let nothing = text("");
        reached(call(
            libc::SYS_move_mount,
            &[usize::MAX, nothing.as_ptr().addr(), usize::MAX, nothing.as_ptr().addr(), 4],
        ))
    }),
    ("fsopen", || {
        let kind = text("tmpfs");
        done(call(libc::SYS_fsopen, &[kind.as_ptr().addr(), 0]))
    }),
    ("fspick", || {
        let root = text("/");
        done(call(libc::SYS_fspick, &[libc::AT_FDCWD as usize, root.as_ptr().addr(), 0]))
    }),
    ("mount_setattr", || {
        // Clears nothing of the root's mount.
        let (root, attributes) = (text("/"), [0u64; 4]);
        let at = attributes.as_ptr().addr();
        done(call(libc::SYS_mount_setattr, &[libc::AT_FDCWD as usize, root.as_ptr().addr(), 0, at, 32]))
    }),
    ("write_the_root", || make("/escape-probe")),
    ("write_programs", || make("/usr/escape-probe")),
    ("write_the_bundle", || make("escape-probe")),
    ("write_etc", || make("/etc/escape-probe")),
    ("open_passwd_for_writing", || write("/etc/passwd")),
    ("open_a_program_for_writing", || write("/usr/bin/env")),
    ("change_a_programs_mode", || {
        let mode = fs::metadata("/usr/bin/env").map_err(|error| error.to_string())?.permissions();
        done(fs::set_permissions("/usr/bin/env", mode))
    }),
    ("read_the_hosts_secret", || {
        let secret = fs::read_to_string(told("HOST_SECRET")).map_err(|error| error.to_string())?;
        if_so(secret == SECRET, "something else is there")
    }),
    ("list_the_hosts_folder", || list(&told("HOST_FOLDER"))),
    ("read_shadow", || read("/etc/shadow")),
    ("list_roots_home", || list("/root")),
    ("list_var_lib", || list("/var/lib")),
    ("list_boot", || list("/boot")),
    ("list_run_of_the_host", || list("/run/lock")),
    ("climb_from_the_bundle", || read(&format!("{}etc/shadow", "../".repeat(40)))),
    ("follow_a_link_out", || {
        let link = "/tmp/escape-probe-link";
        let _ = fs::remove_file(link);
        std::os::unix::fs::symlink("/../../../../etc/shadow", link).map_err(|error| error.to_string())?;
        let outcome = read(link);
        let _ = fs::remove_file(link);
        outcome
    }),
];

fn folder(name: &str) -> Result<String, String> {
    let path = format!("/tmp/escape-probe-{}-{name}", std::process::id());
    fs::create_dir_all(&path).map_err(|error| error.to_string())?;
    Ok(path)
}

fn mount(kind: &str) -> Attempt {
    let path = folder(kind)?;
    let (kind, at) = (text(kind), text(&path));
    let mounted = call(libc::SYS_mount, &[kind.as_ptr().addr(), at.as_ptr().addr(), kind.as_ptr().addr(), 0, 0]);
    let _ = call(libc::SYS_umount2, &[at.as_ptr().addr(), libc::MNT_DETACH as usize]);
    let _ = fs::remove_dir(&path);
    done(mounted)
}

fn overlay() -> Attempt {
    let path = folder("overlay")?;
    let (kind, at) = (text("overlay"), text(&path));
    let layers = text("lowerdir=/usr:/etc");
    let args = [kind.as_ptr().addr(), at.as_ptr().addr(), kind.as_ptr().addr(), 0, layers.as_ptr().addr()];
    let mounted = call(libc::SYS_mount, &args);
    let _ = call(libc::SYS_umount2, &[at.as_ptr().addr(), libc::MNT_DETACH as usize]);
    let _ = fs::remove_dir(&path);
    done(mounted)
}

fn bind(source: &str) -> Attempt {
    let path = folder("bind")?;
    let (source, at) = (text(source), text(&path));
    let mounted = call(libc::SYS_mount, &[source.as_ptr().addr(), at.as_ptr().addr(), 0, libc::MS_BIND as usize, 0]);
    let _ = call(libc::SYS_umount2, &[at.as_ptr().addr(), libc::MNT_DETACH as usize]);
    let _ = fs::remove_dir(&path);
    done(mounted)
}

fn remount(path: &str) -> Attempt {
    flags(path, libc::MS_REMOUNT | libc::MS_BIND)
}

fn flags(path: &str, flags: libc::c_ulong) -> Attempt {
    let path = text(path);
    reached(call(libc::SYS_mount, &[path.as_ptr().addr(), path.as_ptr().addr(), 0, flags as usize, 0]))
}

fn unmount(path: &str) -> Attempt {
    let path = text(path);
    done(call(libc::SYS_umount2, &[path.as_ptr().addr(), libc::MNT_DETACH as usize]))
}

fn chroot() -> Attempt {
    let path = text("/tmp");
    done(call(libc::SYS_chroot, &[path.as_ptr().addr()]))
}

/// The oldest way out: a second chroot leaves the working folder outside of the root.
fn climb() -> Attempt {
    chroot()?;
    std::env::set_current_dir("..").map_err(|error| error.to_string())?;
    for _ in 0..40 {
        std::env::set_current_dir("..").map_err(|error| error.to_string())?;
    }
    let dot = text(".");
    done(call(libc::SYS_chroot, &[dot.as_ptr().addr()]))
}
