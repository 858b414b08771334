//! A container's mounts, made below its root before anybody is in it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::groups::Groups;
use super::plan::{Attributes, Kind, Mount, Plan, Propagation, Source};
use super::tree::{Proc, Tree, is_folder, is_proc};
use crate::fault::plain;
use crate::sys;
use crate::sys::mount::{Change, Reach};

/// What may be covered in a process file system: files that programs take for the machine's, and no others, lest a
/// bundle puts something where the kernel's own files are trusted.
const COVERABLE_PROC: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "net/dev",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];
/// Longest value of an option that the kernel takes one by one.
const OPTION_MAX: usize = 255;

/// Where a bundle's mounts go, and what they are made of.
pub(super) struct Furnisher<'a> {
    pub(super) plan: &'a Plan,
    pub(super) tree: &'a Tree,
    pub(super) groups: &'a Groups,
    /// Binds whose owners are mapped, opened where the rights for it are: by index of the mount.
    pub(super) mapped: &'a [(usize, OwnedFd)],
    pub(super) warn: &'a dyn Fn(String),
}

impl Furnisher<'_> {
    /// Makes every mount in the order of the list. Those that are to be read-only in the end may be written to until
    /// then, because later mounts and devices need places in them: the result are their descriptors.
    pub(super) fn mount_all(&self) -> Result<Vec<OwnedFd>, String> {
        let mut sealed = Vec::new();
        for (index, mount) in self.plan.mounts.iter().enumerate() {
            let made = self.mount(index, mount);
            let made = made.map_err(|reason| format!("cannot mount `{}`: {reason}", mount.destination))?;
            sealed.extend(made);
        }
        Ok(sealed)
    }

    fn mount(&self, index: usize, mount: &Mount) -> Result<Option<OwnedFd>, String> {
        let destination = &*mount.destination;
        if let Source::Remount = mount.source {
            let target = self.tree.find(destination).map_err(|error| plain(&error))?;
            self.adjust(target.as_fd(), mount).map_err(|error| plain(&error))?;
            return Ok(None);
        }
        if let Source::Cgroup = mount.source {
            return self.mount_cgroup(mount).map(|()| None);
        }
        let (source, folder) = self.source(index, mount)?;
        self.check_link(mount)?;
        let target = self.tree.place(destination, folder).map_err(|error| plain(&error))?;
        self.check_target(&target, mount)?;
        if matches!(&mount.source, Source::FileSystem { copy_up: true, .. }) {
            copy_into(self.tree, destination, &source).map_err(|error| format!("copying up: {}", plain(&error)))?;
        }
        attach(&source, &target).map_err(|error| plain(&error))?;
        // What is on top now: the mount itself.
        let late = matches!(&mount.source, Source::FileSystem { kind, .. } if kind == "tmpfs");
        let seal = late && mount.attributes.set & Attributes::READ_ONLY != 0;
        let mut attributes = mount.attributes;
        if seal {
            attributes.set &= !Attributes::READ_ONLY;
        }
        self.adjust(source.as_fd(), &Mount { attributes, ..mount.clone() }).map_err(|error| plain(&error))?;
        Ok(seal.then_some(source))
    }

    /// The mount, not attached yet, and whether its root is a folder.
    fn source(&self, index: usize, mount: &Mount) -> Result<(OwnedFd, bool), String> {
        match &mount.source {
            Source::Bind { path, recursive, .. } => {
                let mapped = self.mapped.iter().find(|(at, _)| *at == index);
                let bind = match mapped {
                    Some((_, fd)) => rustix::io::fcntl_dupfd_cloexec(fd, 0).map_err(io::Error::from),
                    None => clone_of(path, *recursive),
                };
                let bind = bind.map_err(|error| format!("its source `{}`: {}", path.display(), plain(&error)))?;
                let folder = is_folder(bind.as_fd()).map_err(|error| plain(&error))?;
                Ok((bind, folder))
            }
            Source::FileSystem { kind, source, options, .. } => match file_system(kind, source, options) {
                Ok(mount) => Ok((mount, true)),
                // The kernel lets a user's namespace mount its own only together with a network namespace.
                Err(Refusal { errno: Some(Errno::PERM), .. }) if kind == "sysfs" => {
                    let host = clone_of(Path::new("/sys"), true).map_err(|error| plain(&error))?;
                    (self.warn)("a `sysfs` of its own is not allowed here: the host's `/sys` is bound".to_owned());
                    Ok((host, true))
                }
                Err(Refusal { reason, .. }) => Err(reason),
            },
            Source::Cgroup | Source::Remount => unreachable!("handled by the caller"),
        }
    }

    /// What the kernel tells must be where programs trust it to be.
    fn check_link(&self, mount: &Mount) -> Result<(), String> {
        let Source::FileSystem { kind, .. } = &mount.source else { return Ok(()) };
        if !["proc", "sysfs"].contains(&&**kind) {
            return Ok(());
        }
        let is_link = self.tree.open(mount.destination.trim_end_matches('/'), OFlags::PATH | OFlags::NOFOLLOW);
        let is_link = is_link
            .and_then(|fd| Ok(rustix::fs::fstat(&fd)?.st_mode))
            .is_ok_and(|mode| rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::Symlink);
        match is_link {
            true => Err(format!("`{kind}` must be mounted on ordinary directory, and this is a link")),
            false => Ok(()),
        }
    }

    fn check_target(&self, target: &OwnedFd, mount: &Mount) -> Result<(), String> {
        if !is_proc(target.as_fd()).map_err(|error| plain(&error))? {
            return Ok(());
        }
        let inside = mount.destination.trim_matches('/').strip_prefix("proc/").unwrap_or_default();
        if mount.destination.trim_matches('/') == "proc" || COVERABLE_PROC.contains(&inside) {
            return Ok(());
        }
        Err("it lies in `/proc`, where only a few files may be covered".to_owned())
    }

    /// Sets attributes and propagation of a mount.
    fn adjust(&self, mount_fd: BorrowedFd<'_>, mount: &Mount) -> io::Result<()> {
        let apply = |attributes: Attributes, reach| {
            if attributes == Attributes::default() {
                return Ok(());
            }
            let Attributes { set, clear } = attributes;
            match sys::mount::change(mount_fd, Change { set, clear, ..Change::default() }, reach) {
                // What was read-only or without devices when the user's namespace began stays so.
                Err(error) if error.raw_os_error() == Some(libc::EPERM) && clear & !Attributes::ACCESS_TIME != 0 => {
                    (self.warn)(format!("`{}` keeps restrictions it has on the host", mount.destination));
                    let clear = clear & Attributes::ACCESS_TIME;
                    sys::mount::change(mount_fd, Change { set, clear, ..Change::default() }, reach)
                }
                other => other,
            }
        };
        apply(mount.recursive_attributes, Reach::WholeTree)?;
        apply(mount.attributes, Reach::ThisMount)?;
        mount.propagation.iter().try_for_each(|&propagation| propagate(mount_fd, propagation))
    }

    /// The container's own groups: a fresh mount where it has a cgroup namespace, else a bind of each group.
    fn mount_cgroup(&self, mount: &Mount) -> Result<(), String> {
        let apart = self.plan.namespaces.is_apart(Kind::Cgroup);
        let place = |path: &str| self.tree.place(path, true).map_err(|error| plain(&error));
        let failed = |error: io::Error| plain(&error);
        let (v1, v2) = self.groups.views();
        if let Some(dir) = v2 {
            let view = match apart {
                true => file_system("cgroup2", "cgroup", &[]).map_err(|refusal| refusal.reason),
                false => clone_of(dir, true).map_err(failed),
            };
            // In a user's namespace without its own control groups only a bind is allowed.
            let view = view.or_else(|_| clone_of(dir, true).map_err(failed))?;
            attach(&view, &place(&mount.destination)?).map_err(failed)?;
            return self.adjust(view.as_fd(), mount).map_err(failed);
        }
        if v1.is_empty() {
            return Err("no cgroups can be used here".to_owned());
        }
        let above = file_system("tmpfs", "cgroup", &[("mode".to_owned(), Some("755".to_owned()))]);
        let above = above.map_err(|refusal| refusal.reason)?;
        attach(&above, &place(&mount.destination)?).map_err(failed)?;
        for (controllers, dir) in v1 {
            let name = controllers.join(",");
            let name = name.strip_prefix("name=").unwrap_or(&name);
            let at = format!("{}/{name}", mount.destination);
            let view = match apart {
                true => {
                    let options: Vec<_> = controllers
                        .iter()
                        .map(|controller| match controller.split_once('=') {
                            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                            None => (controller.clone(), None),
                        })
                        .collect();
                    file_system("cgroup", "cgroup", &options).or_else(|_| clone_of(dir, false)).map_err(failed)?
                }
                false => clone_of(dir, false).map_err(failed)?,
            };
            attach(&view, &place(&at)?).map_err(failed)?;
            self.adjust(view.as_fd(), mount).map_err(failed)?;
            for controller in controllers.iter().filter(|_| controllers.len() > 1) {
                let (folder, name) = self.tree.above(&format!("{}/{controller}", mount.destination)).map_err(failed)?;
                rustix::fs::symlinkat(controllers.join(","), &folder, &*name).map_err(|error| failed(error.into()))?;
            }
        }
        self.adjust(above.as_fd(), mount).map_err(failed)
    }
}

/// Why a file system was not made, and the system's word for it.
struct Refusal {
    reason: String,
    errno: Option<Errno>,
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::other(refusal.reason)
    }
}

/// A new mount of a file system, not attached anywhere.
fn file_system(kind: &str, source: &str, options: &[(String, Option<String>)]) -> Result<OwnedFd, Refusal> {
    if options.iter().any(|(_, value)| value.as_ref().is_some_and(|value| value.len() > OPTION_MAX)) {
        return Err(Refusal {
            reason: format!("an option of `{kind}` is longer than {OPTION_MAX} bytes"),
            errno: None,
        });
    }
    let refuse = |what: String| {
        move |errno: Errno| Refusal { reason: format!("{what}: {}", plain(&errno.into())), errno: Some(errno) }
    };
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(refuse(format!("no file system `{}` here", kind.escape_debug())))?;
    if !source.is_empty() {
        fsconfig_set_string(context.as_fd(), "source", source).map_err(refuse("its source".to_owned()))?;
    }
    for (key, value) in options {
        let set = match value {
            Some(value) => fsconfig_set_string(context.as_fd(), key, value),
            None => fsconfig_set_flag(context.as_fd(), key),
        };
        set.map_err(|errno| Refusal {
            reason: complaint(&context, &format!("its option `{key}`"), errno),
            errno: Some(errno),
        })?;
    }
    fsconfig_create(context.as_fd()).map_err(|errno| Refusal {
        reason: complaint(&context, &format!("a new `{kind}`"), errno),
        errno: Some(errno),
    })?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(refuse(format!("a new `{kind}`")))
}

/// What the kernel says of a mount that did not work: its own message where it has one.
fn complaint(context: &OwnedFd, what: &str, errno: Errno) -> String {
    let mut buffer = [0; 512];
    let said = rustix::io::read(context, &mut buffer).unwrap_or(0);
    let said = String::from_utf8_lossy(&buffer[..said]);
    let said = said.trim().trim_start_matches(['e', 'w', 'i']).trim();
    match said.is_empty() {
        true => format!("{what}: {}", plain(&errno.into())),
        false => format!("{what}: {} ({said})", plain(&errno.into())),
    }
}

/// A second mount of what is at a path of the host, not attached anywhere.
pub(super) fn clone_of(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let deep = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | deep;
    Ok(open_tree(CWD, path, flags)?)
}

/// A second mount of what a descriptor stands for, with all that is mounted below it.
pub(super) fn clone_of_fd(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(fd, "", flags)?)
}

pub(super) fn attach(mount: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", flags)?)
}

pub(super) fn propagate(mount: BorrowedFd<'_>, propagation: Propagation) -> io::Result<()> {
    let (kind, recursive) = match propagation {
        Propagation::Shared { recursive } => (libc::MS_SHARED, recursive),
        Propagation::Slave { recursive } => (libc::MS_SLAVE, recursive),
        Propagation::Private { recursive } => (libc::MS_PRIVATE, recursive),
        Propagation::Unbindable { recursive } => (libc::MS_UNBINDABLE, recursive),
    };
    let reach = if recursive { Reach::WholeTree } else { Reach::ThisMount };
    sys::mount::change(mount, Change { propagation: kind, ..Change::default() }, reach)
}

/// The same by path, for what is mounted there.
pub(super) fn propagate_at(path: &Path, propagation: Propagation) -> io::Result<()> {
    let (kind, recursive) = match propagation {
        Propagation::Shared { recursive } => (rustix::mount::MountPropagationFlags::SHARED, recursive),
        Propagation::Slave { recursive } => (rustix::mount::MountPropagationFlags::DOWNSTREAM, recursive),
        Propagation::Private { recursive } => (rustix::mount::MountPropagationFlags::PRIVATE, recursive),
        Propagation::Unbindable { recursive } => (rustix::mount::MountPropagationFlags::UNBINDABLE, recursive),
    };
    let deep = match recursive {
        true => rustix::mount::MountPropagationFlags::REC,
        false => rustix::mount::MountPropagationFlags::empty(),
    };
    Ok(rustix::mount::mount_change(path, kind | deep)?)
}

/// Fills a new memory file system with what it is going to cover.
fn copy_into(tree: &Tree, destination: &str, mount: &OwnedFd) -> io::Result<()> {
    let from = tree.open(destination, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let stat = rustix::fs::fstat(&from)?;
    rustix::fs::chmod(Proc::path_of(mount.as_fd()), Mode::from_raw_mode(stat.st_mode))?;
    copy_folder(from.as_fd(), mount.as_fd())
}

fn copy_folder(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    use rustix::fs::{Dir, FileType};
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_bytes() == b"." || name.to_bytes() == b".." {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, mode)?;
                let below = OFlags::RDONLY | OFlags::DIRECTORY | flags;
                let source = rustix::fs::openat(from, name, below, Mode::empty())?;
                let target = rustix::fs::openat(to, name, below, Mode::empty())?;
                copy_folder(source.as_fd(), target.as_fd())?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(target, to, name)?;
            }
            FileType::RegularFile => {
                let source = rustix::fs::openat(from, name, OFlags::RDONLY | flags, Mode::empty())?;
                let created = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | flags;
                let target = rustix::fs::openat(to, name, created, mode)?;
                io::copy(&mut std::fs::File::from(source), &mut std::fs::File::from(target))?;
            }
            kind => rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?,
        }
        let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
        match rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
            // An owner that this user namespace does not know: it is the container's root then.
            Err(Errno::INVAL) => {}
            other => other?,
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
        }
    }
    Ok(())
}
